//! In which line of a settings file a setting stands, so that what is wrong with it can be said with its place.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser};

/// Lines by path: `interval`, `alerts.receivers[0].url`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<String, usize>);

/// A collection that is not closed yet.
enum Open {
    /// The next item's number.
    Sequence(usize),
    /// The key whose value comes next.
    Mapping(Option<String>),
}

impl Places {
    /// Finds the settings of a file that was read without an error; of others it may find none.
    pub fn of(text: &str) -> Self {
        let mut places = Self::default();
        let mut open: Vec<Open> = Vec::new();
        for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
            let line = span.start.line().max(1);
            #[expect(clippy::wildcard_enum_match_arm, reason = "the scanner's enum may grow; we name what we take")]
            match event {
                Event::Scalar(text, ..) => match open.last_mut() {
                    Some(Open::Mapping(key @ None)) => {
                        *key = Some(text.into_owned());
                        places.note(&open, line);
                    }
                    Some(_) | None => places.value(&mut open, line),
                },
                Event::SequenceStart(..) => {
                    places.note(&open, line);
                    open.push(Open::Sequence(0));
                }
                Event::MappingStart(..) => {
                    places.note(&open, line);
                    open.push(Open::Mapping(None));
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                    step(&mut open);
                }
                Event::Alias(..) => places.value(&mut open, line),
                _ => {}
            }
        }
        places
    }

    /// The line of a setting, or of the nearest thing around it that is there.
    pub fn line(&self, setting: &str) -> Option<usize> {
        let mut path = setting.to_owned();
        loop {
            if let Some(line) = self.0.get(&path) {
                return Some(*line);
            }
            path.truncate(path.rfind(['.', '['])?);
        }
    }

    fn value(&mut self, open: &mut [Open], line: usize) {
        self.note(open, line);
        step(open);
    }

    /// Notes what stands at the path that is open; where the key stands counts, not the value.
    fn note(&mut self, open: &[Open], line: usize) {
        let mut path = String::new();
        for one in open {
            match one {
                Open::Sequence(number) => path.push_str(&format!("[{number}]")),
                Open::Mapping(Some(key)) => {
                    path.push_str(if path.is_empty() { "" } else { "." });
                    path.push_str(key);
                }
                Open::Mapping(None) => {}
            }
        }
        self.0.entry(path).or_insert(line);
    }
}

/// A value is over: the next item, or the next key, comes.
fn step(open: &mut [Open]) {
    match open.last_mut() {
        Some(Open::Sequence(number)) => *number += 1,
        Some(Open::Mapping(key)) => *key = None,
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_in_every_style() {
        let text = "# a comment\nrepo: x\nalerts:\n  staleAfter: 5m\n  receivers:\n    - {name: a,\n       type: slack}\n    - name: b\n      \
                    groups:\n        - x\n        - y\ninterval:\n  60s\n";
        let places = Places::of(text);
        for (setting, line) in [
            ("repo", Some(2)),
            ("alerts", Some(3)),
            ("alerts.staleAfter", Some(4)),
            ("alerts.receivers", Some(5)),
            ("alerts.receivers[0]", Some(6)),
            ("alerts.receivers[0].type", Some(7)),
            ("alerts.receivers[1].name", Some(8)),
            ("alerts.receivers[1].groups[1]", Some(11)),
            ("alerts.receivers[1].url", Some(8)),
            ("interval", Some(12)),
            ("listen", None),
        ] {
            assert_eq!(places.line(setting), line, "{setting}");
        }
        assert_eq!(Places::of("a: [").line("a"), Some(1), "what is broken is read as far as it goes");
    }
}
