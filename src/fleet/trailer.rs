//! The `Gitamp-Rollout` trailer: what the message of a commit asks for its own rollouts.

use std::fmt;

use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::fields::shorten;
use crate::labels::is_invisible;

/// The key, in any case of letters.
const KEY: &str = "Gitamp-Rollout";

/// How much of a message is looked at, from its end: 64 KiB, far more than the trailers of any commit.
const MOST_BYTES: usize = 64 << 10;

/// Most characters of a word that is kept because nobody knows it.
const MOST_WORD: usize = 40;

/// What a commit asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutTrailer {
    /// No rollout starts before a person promotes the commit.
    Hold,
    /// One stage, no soak: only in groups whose path `allowFast` of `fleet.yaml` covers.
    Fast,
    /// A word that nobody knows; it changes nothing, and a warning says so.
    Unknown(String),
}

impl fmt::Display for RolloutTrailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold => f.write_str("hold"),
            Self::Fast => f.write_str("fast"),
            Self::Unknown(word) => f.write_str(word),
        }
    }
}

impl RolloutTrailer {
    /// What a commit with this message asks for; `None`: nothing. Of several such trailers the most careful one holds.
    pub fn read(message: &str) -> Option<Self> {
        let is_ours = |(key, _): &(&str, String)| key.eq_ignore_ascii_case(KEY);
        let asked = trailers(message).into_iter().filter(is_ours).map(|(_, value)| Self::from_value(&value));
        asked.reduce(|one, other| if one.care() >= other.care() { one } else { other })
    }

    /// The value of the trailer, in any case of letters.
    pub fn from_value(value: &str) -> Self {
        match value.trim() {
            word if word.eq_ignore_ascii_case("hold") => Self::Hold,
            word if word.eq_ignore_ascii_case("fast") => Self::Fast,
            word => {
                let is_shown = |c: &char| !c.is_control() && !is_invisible(*c);
                Self::Unknown(word.chars().filter(is_shown).take(MOST_WORD).collect())
            }
        }
    }

    /// A warning when the word means nothing.
    pub fn finding(&self) -> Option<Diagnostic> {
        let Self::Unknown(word) = self else { return None };
        let message = format!("the commit's trailer `{KEY}: {}` means nothing", shorten(word));
        Some(Diagnostic::warning("unknown-trailer", None, message).help("write `hold` or `fast`"))
    }

    fn care(&self) -> u8 {
        match self {
            Self::Fast => 0,
            Self::Unknown(_) => 1,
            Self::Hold => 2,
        }
    }
}

/// The trailers of a message as Git finds them: keys and values of its last paragraph, unless that is its first one, or mostly prose.
fn trailers(message: &str) -> Vec<(&str, String)> {
    let cut = message.len().saturating_sub(MOST_BYTES);
    let tail = (cut..).find_map(|at| message.get(at..)).unwrap_or_default();
    let lines: Vec<&str> = tail.lines().filter(|line| !line.starts_with('#')).collect();
    let end = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
    let Some(blank) = lines[..end].iter().rposition(|line| line.trim().is_empty()) else { return Vec::new() };
    let (mut found, mut prose, mut by_git) = (Vec::<(&str, String)>::new(), 0_usize, false);
    let mut follows_trailer = false;
    for line in &lines[blank + 1..end] {
        if line.starts_with([' ', '\t']) && follows_trailer {
            if let Some((_, value)) = found.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
            continue;
        }
        let trailer = trailer(line);
        let is_by_git = line.starts_with("Signed-off-by: ") || line.starts_with("(cherry picked from commit ");
        by_git |= is_by_git;
        follows_trailer = trailer.is_some();
        match trailer {
            Some((key, value)) => found.push((key, value.to_owned())),
            None if is_by_git => {}
            None => prose += 1,
        }
    }
    let is_mostly_prose = prose > 0 && !(by_git && found.len() * 3 >= prose);
    if is_mostly_prose { Vec::new() } else { found }
}

/// `Key: value`, the key of letters, digits and hyphens.
fn trailer(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let key = key.trim_end_matches([' ', '\t']);
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_key.then(|| (key, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_read_as_git_reads_them() {
        let hold = || Some(RolloutTrailer::Hold);
        let fast = || Some(RolloutTrailer::Fast);
        for (message, expected, why) in [
            ("Fix\n\nGitamp-Rollout: hold\n", hold(), "the plain form"),
            ("Fix\n\nGitamp-Rollout: fast", fast(), "no newline at the end"),
            ("Fix\n\ngitamp-rollout :  HOLD \n\n\n", hold(), "case, spaces and empty lines do not matter"),
            ("Fix\r\n\r\nGitamp-Rollout: hold\r\n", hold(), "line ends of another system"),
            ("Fix\n\nBecause.\n\nReviewed-by: Ada\nGitamp-Rollout: hold\nTicket: 7\n", hold(), "among others"),
            ("Fix\n\nReviewed-by: Ada\n  Lovelace\nGitamp-Rollout:\n  hold\n", hold(), "folded lines"),
            ("Fix\n\nGitamp-Rollout: fast\nGitamp-Rollout: hold\n", hold(), "the careful one holds"),
            ("Fix\n\nGitamp-Rollout: hold\nGitamp-Rollout: soon\n", hold(), "whatever their order"),
            ("Fix\n\n# a comment\nGitamp-Rollout: hold\n", hold(), "comments do not count"),
            (
                "Fix\n\nprose\nmore: of it\nGitamp-Rollout: hold\nSigned-off-by: Ada\n",
                hold(),
                "a quarter and Git's own",
            ),
            ("Gitamp-Rollout: hold\n", None, "a subject is no trailer"),
            ("Fix\nGitamp-Rollout: hold\n", None, "not within the first paragraph"),
            ("Fix\n\nGitamp-Rollout: hold\n\nMore prose.\n", None, "only in the last paragraph"),
            ("Fix\n\nWe write Gitamp-Rollout: hold\n", None, "a key is one word"),
            ("Fix\n\nsome prose\nGitamp-Rollout: hold\n", None, "prose with a line that looks like one"),
            ("Fix\n\n Gitamp-Rollout: hold\n", None, "an indented line continues nothing"),
            ("Fix\n\nGitamp-Rollouts: hold\n", None, "another key"),
            ("", None, "no message"),
        ] {
            assert_eq!(RolloutTrailer::read(message), expected, "{why}: {message:?}");
        }
        for (message, word) in [("Fix\n\nGitamp-Rollout: hodl\n", "hodl"), ("Fix\n\nGitamp-Rollout:\n", "")] {
            let read = RolloutTrailer::read(message).expect("the trailer is there");
            assert_eq!(read, RolloutTrailer::Unknown(word.to_owned()));
            assert!(read.finding().is_some_and(|finding| finding.code == "unknown-trailer"), "{word} is told");
        }
        assert!(RolloutTrailer::Hold.finding().is_none() && RolloutTrailer::Fast.finding().is_none());
    }

    #[test]
    fn long_messages_are_read_from_their_end() {
        let long = format!("Fix\n\n{}\n\nGitamp-Rollout: hold\n", "é line of prose\n".repeat(100_000));
        assert_eq!(RolloutTrailer::read(&long), Some(RolloutTrailer::Hold));
        let paragraph = format!("Fix\n\n{}Gitamp-Rollout: hold\n", "Ticket: 7\n".repeat(100_000));
        assert_eq!(RolloutTrailer::read(&paragraph), None, "a paragraph without an end is none of Git's");
        let word = "x\u{1b}".repeat(10_000);
        let kept = RolloutTrailer::read(&format!("Fix\n\nGitamp-Rollout: {word}")).expect("a trailer").to_string();
        assert_eq!(kept, "x".repeat(40), "short and printable");
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for trailer in [RolloutTrailer::Hold, RolloutTrailer::Fast, RolloutTrailer::Unknown("soon".to_owned())] {
            assert_eq!(RolloutTrailer::from_value(&trailer.to_string()), trailer);
        }
    }
}
