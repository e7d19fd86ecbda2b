//! When stages may start: `rollout.windows`, as spans of the week or of the calendar, open or closed.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZoneDatabase;

use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::fields::{self, Fields};
use crate::yaml::Node;

/// Most windows of one group.
const MOST_WINDOWS: usize = 50;

/// Minutes of a day.
pub(super) const DAY_MINUTES: u16 = 24 * 60;

/// The days of the week as they are written, Monday first.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// One entry of `windows`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// True: stages start inside only (of this or another such window). False: none starts inside.
    pub allows: bool,
    /// The span.
    pub span: Span,
    /// The IANA name of the time zone that the span is meant in; known to the bundled database. `UTC` when nothing is said.
    pub time_zone: String,
}

/// A span of time that a window covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Every week.
    Weekly {
        /// Monday first. The day on which the span starts, when it goes past midnight.
        days: [bool; 7],
        /// First minute of the day that belongs to it.
        from: u16,
        /// First minute that does not any more; not after `from`: on the next day.
        until: u16,
    },
    /// Once, whole days.
    Dates {
        /// The first day.
        first: Date,
        /// The last day.
        last: Date,
    },
}

impl fmt::Display for Window {
    /// In one line, as [`Window::from_str`] reads it: `allow Mon-Fri 09:00-17:00 Europe/Berlin`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allows { "allow " } else { "deny " })?;
        match &self.span {
            Span::Dates { first, last } if first == last => write!(f, "{first}")?,
            Span::Dates { first, last } => write!(f, "{first}..{last}")?,
            Span::Weekly { days, from, until } => {
                f.write_str(&show_days(*days))?;
                if (*from, *until) != (0, DAY_MINUTES) {
                    let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
                    write!(f, " {}-{}", clock(*from), clock(*until))?;
                }
            }
        }
        write!(f, " {}", self.time_zone)
    }
}

/// A text that is no window.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no window like `allow Mon-Fri 09:00-17:00 Europe/Berlin`")]
pub struct NotAWindow(String);

impl FromStr for Window {
    type Err = NotAWindow;

    /// Reads what its `Display` writes, as the journal keeps it.
    fn from_str(text: &str) -> Result<Self, NotAWindow> {
        let read = || {
            let (word, rest) = text.split_once(' ')?;
            let (span, time_zone) = rest.rsplit_once(' ')?;
            let allows = match word {
                "allow" => true,
                "deny" => false,
                _ => return None,
            };
            let is_known = TimeZoneDatabase::bundled().get(time_zone).is_ok();
            is_known.then_some(Self { allows, span: parse_span(span)?, time_zone: time_zone.to_owned() })
        };
        read().ok_or_else(|| NotAWindow(text.chars().take(64).collect()))
    }
}

/// `Mon-Fri`, `Sat,Sun`: three and more days in a row as a range.
fn show_days(days: [bool; 7]) -> String {
    let mut parts = Vec::new();
    let mut day = 0;
    while day < days.len() {
        let run = days[day..].iter().take_while(|on| **on).count();
        match run {
            0 => {}
            1 | 2 => parts.extend(DAYS[day..day + run].iter().map(|&name| name.to_owned())),
            _ => parts.push(format!("{}-{}", DAYS[day], DAYS[day + run - 1])),
        }
        day += run.max(1);
    }
    parts.join(",")
}

/// Reads `windows`.
pub(super) fn read_windows(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Vec<Window>> {
    let items = fields::list(node, "`windows`", MOST_WINDOWS, findings)?;
    let windows: Vec<_> = items.iter().filter_map(|item| read_window(item, findings)).collect();
    (windows.len() == items.len()).then_some(windows)
}

fn read_window(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Window> {
    let fields = Fields::open(node, "a window", &["allow", "deny", "timeZone"], findings)?;
    let (allows, span) = match (fields.get("allow"), fields.get("deny")) {
        (Some(span), None) => (true, span),
        (None, Some(span)) => (false, span),
        (Some(_), Some(_)) | (None, None) => {
            let message = "a window says either `allow` or `deny`";
            findings.push(Diagnostic::error("bad-window", Some(node.place.clone()), message));
            return None;
        }
    };
    let time_zone = match fields.get("timeZone") {
        None => "UTC".to_owned(),
        Some(zone) => read_time_zone(zone, findings)?,
    };
    let written = fields::text(span, "a window", findings)?;
    let Some(parsed) = parse_span(written) else {
        let message = format!("`{}` is no span of time", fields::shorten(written));
        let help = "write days and hours like `Mon-Fri 09:00-17:00`, or dates like `2026-12-24..2027-01-02`";
        findings.push(Diagnostic::error("bad-window", Some(span.place.clone()), message).help(help));
        return None;
    };
    Some(Window { allows, span: parsed, time_zone })
}

/// The bundled database is asked, never the machine's: the same commit means the same everywhere.
fn read_time_zone(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<String> {
    let name = fields::text(node, "`timeZone`", findings)?;
    if TimeZoneDatabase::bundled().get(name).is_ok() {
        return Some(name.to_owned());
    }
    let message = format!("`{}` is no time zone that we know", fields::shorten(name));
    let help = "write an IANA name like Europe/Berlin, or UTC";
    findings.push(Diagnostic::error("bad-window", Some(node.place.clone()), message).help(help));
    None
}

fn parse_span(text: &str) -> Option<Span> {
    if let Some(date) = parse_date(text.trim()) {
        return Some(Span::Dates { first: date, last: date });
    }
    if let Some((first, last)) = text.split_once("..") {
        let (first, last) = (parse_date(first.trim())?, parse_date(last.trim())?);
        return (first <= last).then_some(Span::Dates { first, last });
    }
    let parts: Vec<&str> = text.split_whitespace().collect();
    let (days, hours) = match parts.as_slice() {
        [days, hours] => (*days, Some(*hours)),
        [one] if one.contains(':') => ("Mon-Sun", Some(*one)),
        [one] => (*one, None),
        _ => return None,
    };
    let (from, until) = match hours {
        None => (0, DAY_MINUTES),
        Some(hours) => {
            let (from, until) = hours.split_once('-')?;
            (parse_clock(from)?, parse_clock(until)?)
        }
    };
    (from < DAY_MINUTES && from != until).then_some(Span::Weekly { days: parse_days(days)?, from, until })
}

/// `2026-12-24`, and nothing that could be a time or another way to write a date.
fn parse_date(text: &str) -> Option<Date> {
    let is_plain = text.len() == "2026-12-24".len() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    text.parse().ok().filter(|_| is_plain)
}

/// `Mon-Fri`, `Sat,Sun`, `Fri-Mon`.
fn parse_days(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        for step in 0..=(last + 7 - first) % 7 {
            days[(first + step) % 7] = true;
        }
    }
    Some(days)
}

/// `09:00` to `24:00`, as minutes of the day.
fn parse_clock(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60 && hours * 60 + minutes <= DAY_MINUTES).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_or_refused() {
        for (written, shown) in [
            ("Mon-Fri 09:00-17:00", "Mon-Fri 09:00-17:00"),
            ("sat,sun", "Sat,Sun"),
            ("Mon,Wed,Thu,Fri 00:00-12:00", "Mon,Wed-Fri 00:00-12:00"),
            ("Fri-Mon 22:00-06:00", "Mon,Fri-Sun 22:00-06:00"),
            ("Fri 22:00-02:00", "Fri 22:00-02:00"),
            ("08:30-12:00", "Mon-Sun 08:30-12:00"),
            ("Mon 00:00-24:00", "Mon"),
            ("2026-12-24..2027-01-02", "2026-12-24..2027-01-02"),
            ("2026-12-24 .. 2027-01-02", "2026-12-24..2027-01-02"),
            ("2026-12-24", "2026-12-24"),
            ("2026-12-24..2026-12-24", "2026-12-24"),
        ] {
            let span = parse_span(written).unwrap_or_else(|| panic!("{written} must be read"));
            for (allows, word) in [(true, "allow"), (false, "deny")] {
                let window = Window { allows, span: span.clone(), time_zone: "Europe/Berlin".to_owned() };
                assert_eq!(window.to_string(), format!("{word} {shown} Europe/Berlin"), "{written}");
                assert_eq!(window.to_string().parse::<Window>().ok(), Some(window), "{written}: shown and read back");
            }
        }
        for written in [
            "",
            "always",
            "Mon-Fry 09:00-17:00",
            "Mon 9-17",
            "Mon 09:00",
            "Mon 25:00-26:00",
            "Mon 09:00-09:00",
            "Mon 24:00-08:00",
            "2027-01-02..2026-12-24",
            "2026-13-01..2026-12-24",
            "20261224",
            "2026-12-24T00:00",
            "2026-W52-4",
            "Mon Tue 09:00-10:00",
        ] {
            assert_eq!(parse_span(written), None, "{written} must be refused");
        }
    }

    #[test]
    fn windows_of_a_record_are_read_with_care() {
        for text in ["", "allow", "allow Mon", "Mon UTC", "permit Mon UTC", "allow Mon Mars/Olympus", "deny never UTC"]
        {
            assert!(text.parse::<Window>().is_err(), "{text} must be refused");
        }
    }
}
