//! Points in time and lengths of time as values: nothing here reads a clock.
//!
//! The daemon's clock is monotonic, anchored to the wall clock once at start, so a clock that jumps moves no deadline.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, in whole milliseconds since the Unix epoch (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The point `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at the end of time instead of wrapping.
    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with seconds, as the journal and the logs show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(timestamp) => write!(f, "{timestamp:.0}"),
            None => f.write_str("the end of time"),
        }
    }
}

/// A text that is no RFC 3339 time between 1970 and 9999.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a time like 2026-11-20T09:30:00Z")]
pub struct NotATimestamp(String);

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        text.parse::<jiff::Timestamp>()
            .ok()
            .and_then(|parsed| u64::try_from(parsed.as_millisecond()).ok())
            .map(Self)
            .ok_or_else(|| NotATimestamp(text.chars().take(64).collect()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is no length of time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration: write a number with a unit, like 30s, 5m, 1h30m or 2d")]
pub struct NotADuration {
    text: String,
}

/// The longest duration that a setting or a strategy may name: 365 days. Longer ones are typing errors.
pub const LONGEST_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads `0s`, `30s`, `5m`, `1h30m`, `500ms`, `2d` (a day is 24 hours). A number without a unit is an error, because
/// nobody can tell which unit was meant; `0` alone is clear.
pub fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    let error = || NotADuration { text: text.chars().take(64).collect() };
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    let span: jiff::Span = trimmed.parse().map_err(|_| error())?;
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| error())?;
    let length = Duration::try_from(signed).map_err(|_| error())?;
    if length > LONGEST_DURATION { Err(error()) } else { Ok(length) }
}

/// Writes a duration the way `parse_duration` reads it, without noise: `0s`, `45s`, `5m`, `1h30m`, `250ms`.
pub fn show_duration(length: Duration) -> String {
    let millis = length.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let seconds = length.as_secs();
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, millis, shown) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("250ms", 250, "250ms"),
            ("30s", 30_000, "30s"),
            ("5m", 300_000, "5m"),
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("2d", 172_800_000, "2d"),
        ] {
            let length = parse_duration(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(length, Duration::from_millis(millis), "{text}");
            assert_eq!(show_duration(length), shown, "{text}");
            assert_eq!(parse_duration(shown), Ok(length), "{text}: what is shown can be read");
        }
        for text in ["", "5", "-5m", "soon", "400d", "5 parsecs", "1y"] {
            assert!(parse_duration(text).is_err(), "{text} must be refused");
        }
    }

    #[test]
    fn timestamps_are_rfc3339_and_saturate() {
        let at: Timestamp = "2026-11-20T09:30:00Z".parse().expect("a valid time");
        assert_eq!(at.to_string(), "2026-11-20T09:30:00Z");
        assert_eq!((at + Duration::from_secs(90)).since(at), Duration::from_secs(90));
        assert_eq!(at.since(at + Duration::from_secs(1)), Duration::ZERO, "time never runs backwards");
        assert_eq!(Timestamp::from_millis(u64::MAX) + Duration::from_secs(1), Timestamp::from_millis(u64::MAX));
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
