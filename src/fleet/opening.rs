//! When a stage may start: what the windows of a group say of one moment, and when they next open.

use std::fmt;
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use crate::fleet::window::{DAY_MINUTES, Span, Window};
use crate::time::Timestamp;

/// How far ahead an opening is looked for. A group that stays closed for longer was closed by mistake, and says so.
const FARTHEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Why no stage may start at a moment, and when the next one may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideWindows {
    /// The window that says so, as a phrase: ``inside `deny 2026-12-24..2027-01-02 UTC` ``.
    pub why: String,
    /// The first moment at which a stage may start; `None`: not within a year.
    pub opens: Option<Timestamp>,
}

impl fmt::Display for OutsideWindows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.opens {
            Some(opens) => write!(f, "{}, until {opens}", self.why),
            None => write!(f, "{}, and nothing opens within a year", self.why),
        }
    }
}

/// What these windows say of `now`; `None`: a stage may start. It may inside any window that allows (at any time when none of them
/// allows anything), unless a window that denies covers the moment too. The work is bounded by the spans that all windows have in a
/// year: milliseconds for the most windows that a group can have, microseconds for what people write.
pub(super) fn outside(windows: &[Window], now: Timestamp) -> Option<OutsideWindows> {
    let side = |allows: bool| -> Vec<Cursor<'_>> {
        windows.iter().filter(|window| window.allows == allows).map(|window| Cursor::new(window, now)).collect()
    };
    let (mut allows, mut denies) = (side(true), side(false));
    let why = closed(&allows, &denies, now)?;
    let mut at = now;
    loop {
        allows.iter_mut().chain(&mut denies).for_each(|cursor| cursor.advance(at));
        // While something denies: until the last end of what does. Otherwise: until something allows.
        let next = match denies.iter().filter_map(|cursor| cursor.covering(at)).max() {
            Some(end) => Some(end),
            None if closed(&allows, &denies, at).is_none() => return Some(OutsideWindows { why, opens: Some(at) }),
            None => allows.iter().filter_map(|cursor| cursor.span.map(|(from, _)| from)).min(),
        };
        match next {
            Some(next) if next.since(now) <= FARTHEST => at = next,
            Some(_) | None => return Some(OutsideWindows { why, opens: None }),
        }
    }
}

/// Which window closes the moment that all cursors stand at.
fn closed(allows: &[Cursor<'_>], denies: &[Cursor<'_>], at: Timestamp) -> Option<String> {
    if let Some(deny) = denies.iter().find(|cursor| cursor.covering(at).is_some()) {
        return Some(format!("inside `{}`", deny.window));
    }
    let first = allows.first()?;
    if allows.iter().any(|cursor| cursor.covering(at).is_some()) {
        return None;
    }
    match allows.len() - 1 {
        0 => Some(format!("outside `{}`", first.window)),
        more => Some(format!("outside `{}` and {more} more", first.window)),
    }
}

/// A window, and the first of its spans that ends after a moment; moments only grow.
struct Cursor<'w> {
    window: &'w Window,
    zone: TimeZone,
    /// The first day whose span was not looked at; `None`: there are no more.
    day: Option<Date>,
    /// Spans that begin on later days are not looked at.
    last_day: Date,
    /// From, and until (exclusive).
    span: Option<(Timestamp, Timestamp)>,
}

impl<'w> Cursor<'w> {
    fn new(window: &'w Window, now: Timestamp) -> Self {
        // Its name was checked against the same database when the window was read.
        let zone = TimeZoneDatabase::bundled().get(&window.time_zone).unwrap_or(TimeZone::UTC);
        let date = |moment: Timestamp| {
            let millis = i64::try_from(moment.as_millis()).ok();
            let moment = millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
            moment.map(|moment| zone.to_datetime(moment).date())
        };
        let day = match &window.span {
            Span::Dates { first, .. } => Some(*first),
            // Yesterday's span may go past midnight.
            Span::Weekly { .. } => date(now).map(|today| today.yesterday().unwrap_or(today)),
        };
        let last_day = date(now + FARTHEST).unwrap_or(Date::MAX);
        let mut cursor = Self { window, zone, day, last_day, span: None };
        cursor.span = cursor.next();
        cursor.advance(now);
        cursor
    }

    /// The end of its span, when that covers the moment.
    fn covering(&self, at: Timestamp) -> Option<Timestamp> {
        self.span.filter(|(from, until)| *from <= at && at < *until).map(|(_, until)| until)
    }

    /// Goes to the first span that ends after `at`.
    fn advance(&mut self, at: Timestamp) {
        while self.span.is_some_and(|(_, until)| until <= at) {
            self.span = self.next();
        }
    }

    /// The span after those looked at.
    fn next(&mut self) -> Option<(Timestamp, Timestamp)> {
        loop {
            let day = self.day.take().filter(|day| *day <= self.last_day)?;
            let span = match &self.window.span {
                Span::Dates { last, .. } => self.instants(day, 0, *last, DAY_MINUTES),
                Span::Weekly { days, from, until } => {
                    self.day = day.tomorrow().ok();
                    let weekday = usize::from(day.weekday().to_monday_zero_offset().unsigned_abs());
                    let last = if until > from { Some(day) } else { self.day };
                    last.filter(|_| days[weekday]).and_then(|last| self.instants(day, *from, last, *until))
                }
            };
            if span.is_some() {
                return span;
            }
        }
    }

    /// From a minute of one day until a minute of another, as moments; `None` when the clock skips all of it.
    ///
    /// Minutes that the clock skips belong to no span. Where a clock goes through the same hour twice, a span begins with the first
    /// showing of its start, and what it ends with is what is more careful: the first showing of its end where it allows, the second
    /// where it denies.
    fn instants(&self, first: Date, from: u16, last: Date, until: u16) -> Option<(Timestamp, Timestamp)> {
        let from = self.instant(first, from, false)?;
        // Past the last day of the calendar: for ever.
        let until = self.instant(last, until, !self.window.allows).unwrap_or(Timestamp::from_millis(u64::MAX));
        (from < until).then_some((from, until))
    }

    fn instant(&self, day: Date, minute: u16, second_showing: bool) -> Option<Timestamp> {
        let day = if minute == DAY_MINUTES { day.tomorrow().ok()? } else { day };
        let minute = i8::try_from(minute % DAY_MINUTES / 60).ok().zip(i8::try_from(minute % 60).ok());
        let shown: DateTime = minute.map(|(hour, minute)| day.at(hour, minute, 0, 0))?;
        let ambiguous = self.zone.to_ambiguous_timestamp(shown);
        let moment = match ambiguous.offset() {
            AmbiguousOffset::Gap { .. } => {
                // As long after the change as the skipped minute is: the change itself is the last one up to there.
                let behind = ambiguous.later().ok()?;
                let upto = behind.checked_add(Duration::from_secs(1)).ok()?;
                self.zone.preceding(upto).next().map_or(behind, |change| change.timestamp())
            }
            AmbiguousOffset::Fold { .. } if second_showing => ambiguous.later().ok()?,
            AmbiguousOffset::Fold { .. } | AmbiguousOffset::Unambiguous { .. } => ambiguous.compatible().ok()?,
        };
        Some(Timestamp::from_millis(u64::try_from(moment.as_millisecond()).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn windows(texts: &[&str]) -> Vec<Window> {
        texts.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{error}"))).collect()
    }

    /// Windows, a moment, and the next opening: `now`, `never` or a moment.
    type Row<'r> = (&'r [&'r str], &'r str, &'r str);

    fn check(rows: &[Row<'_>]) {
        for (texts, moment, expected) in rows {
            let (windows, now) = (windows(texts), at(moment));
            let found = match outside(&windows, now) {
                None => "now".to_owned(),
                Some(OutsideWindows { opens: None, .. }) => "never".to_owned(),
                Some(OutsideWindows { opens: Some(opens), .. }) => {
                    assert!(opens > now, "{texts:?} at {moment}: it opens later, not at {opens}");
                    assert_eq!(outside(&windows, opens), None, "{texts:?} at {moment}: open at {opens}");
                    let before = Timestamp::from_millis(opens.as_millis() - 1);
                    assert!(outside(&windows, before).is_some(), "{texts:?} at {moment}: closed just before {opens}");
                    opens.to_string()
                }
            };
            assert_eq!(found, *expected, "{texts:?} at {moment}");
        }
    }

    /// 2026-11-23 is a Monday.
    #[test]
    fn windows_open_and_close() {
        let office: &[&str] = &["allow Mon-Fri 09:00-17:00 UTC"];
        let night: &[&str] = &["allow Fri 22:00-02:00 UTC"];
        let holidays: &[&str] = &["allow Mon-Fri 09:00-17:00 UTC", "deny 2026-12-24..2027-01-02 UTC"];
        let two: &[&str] = &["allow Mon 09:00-10:00 UTC", "allow Tue 09:00-10:00 UTC"];
        let adjoining: &[&str] = &["deny Mon-Sun 00:00-12:00 UTC", "deny Mon-Sun 12:00-18:00 UTC"];
        check(&[
            (&[], "2026-11-23T03:00:00Z", "now"),
            (office, "2026-11-23T08:59:59Z", "2026-11-23T09:00:00Z"),
            (office, "2026-11-23T09:00:00Z", "now"),
            (office, "2026-11-23T16:59:59Z", "now"),
            (office, "2026-11-23T17:00:00Z", "2026-11-24T09:00:00Z"),
            (office, "2026-11-27T17:00:00Z", "2026-11-30T09:00:00Z"),
            (office, "2026-11-29T12:00:00Z", "2026-11-30T09:00:00Z"),
            (night, "2026-11-27T21:59:59Z", "2026-11-27T22:00:00Z"),
            (night, "2026-11-28T01:59:59Z", "now"),
            (night, "2026-11-28T02:00:00Z", "2026-12-04T22:00:00Z"),
            (night, "2026-11-27T01:00:00Z", "2026-11-27T22:00:00Z"),
            (holidays, "2026-12-24T10:00:00Z", "2027-01-04T09:00:00Z"),
            (holidays, "2026-12-23T18:00:00Z", "2027-01-04T09:00:00Z"),
            (holidays, "2026-12-23T12:00:00Z", "now"),
            (&["deny 2026-12-24..2027-01-02 UTC"], "2026-12-23T23:59:59Z", "now"),
            (&["deny 2026-12-24..2027-01-02 UTC"], "2026-12-24T00:00:00Z", "2027-01-03T00:00:00Z"),
            (&["deny 2026-12-24 UTC"], "2026-12-24T23:59:59Z", "2026-12-25T00:00:00Z"),
            (&["allow 2026-12-24..2027-01-02 UTC"], "2026-11-23T00:00:00Z", "2026-12-24T00:00:00Z"),
            (&["allow 2026-12-24..2027-01-02 UTC"], "2027-01-02T23:59:59Z", "now"),
            (&["allow 2026-12-24..2027-01-02 UTC"], "2027-01-03T00:00:00Z", "never"),
            (&["allow 2030-01-01..2030-12-31 UTC"], "2026-11-23T00:00:00Z", "never"),
            (&["deny 2020-01-01..9999-12-31 UTC"], "2026-11-23T00:00:00Z", "never"),
            (&["deny Mon-Sun UTC"], "2026-11-23T00:00:00Z", "never"),
            (&["allow Mon 09:00-10:00 UTC", "deny Mon UTC"], "2026-11-23T00:00:00Z", "never"),
            (two, "2026-11-23T10:00:00Z", "2026-11-24T09:00:00Z"),
            (two, "2026-11-24T09:30:00Z", "now"),
            (two, "2026-11-24T10:00:00Z", "2026-11-30T09:00:00Z"),
            (adjoining, "2026-11-23T05:00:00Z", "2026-11-23T18:00:00Z"),
            (&["deny Mon-Sun 18:00-12:00 UTC"], "2026-11-23T05:00:00Z", "2026-11-23T12:00:00Z"),
            (&["allow Mon-Sun UTC"], "1970-01-01T00:00:00Z", "now"),
            (&["allow Mon-Sun 09:00-10:00 UTC"], "9998-06-01T00:00:00Z", "9998-06-01T09:00:00Z"),
        ]);
    }

    /// In Berlin the clock goes from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on 2026-10-25.
    #[test]
    fn time_zones_and_their_changes_are_kept() {
        let office: &[&str] = &["allow Mon-Fri 09:00-17:00 Europe/Berlin"];
        let skipped: &[&str] = &["allow Mon-Sun 02:15-02:45 Europe/Berlin"];
        let begins_skipped: &[&str] = &["allow Mon-Sun 02:00-04:00 Europe/Berlin"];
        let ends_skipped: &[&str] = &["allow Sun 01:00-02:30 Europe/Berlin"];
        let deny_twice: &[&str] = &["deny Sun 01:00-02:30 Europe/Berlin"];
        let begins_twice: &[&str] = &["allow Sun 02:30-05:00 Europe/Berlin"];
        check(&[
            (office, "2026-11-23T07:59:59Z", "2026-11-23T08:00:00Z"),
            (office, "2026-07-06T06:59:59Z", "2026-07-06T07:00:00Z"),
            (office, "2026-03-27T16:00:00Z", "2026-03-30T07:00:00Z"),
            (office, "2026-10-23T15:00:00Z", "2026-10-26T08:00:00Z"),
            (&["allow Mon 00:00-01:00 Asia/Tokyo"], "2026-11-22T14:00:00Z", "2026-11-22T15:00:00Z"),
            (&["allow Sun 23:00-24:00 America/Los_Angeles"], "2026-11-23T06:00:00Z", "2026-11-23T07:00:00Z"),
            (&["allow Mon-Sun 12:00-13:00 Asia/Kolkata"], "2026-11-23T00:00:00Z", "2026-11-23T06:30:00Z"),
            (&["deny 2026-12-24 Asia/Tokyo"], "2026-12-23T15:00:00Z", "2026-12-24T15:00:00Z"),
            // A span that the clock skips is left out that day; one that it begins or ends in is cut at the change.
            (skipped, "2026-03-28T12:00:00Z", "2026-03-30T00:15:00Z"),
            (begins_skipped, "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z"),
            (begins_skipped, "2026-03-29T01:59:59Z", "now"),
            (begins_skipped, "2026-03-29T02:00:00Z", "2026-03-30T00:00:00Z"),
            (ends_skipped, "2026-03-29T00:59:59Z", "now"),
            (ends_skipped, "2026-03-29T01:00:00Z", "2026-04-04T23:00:00Z"),
            // 02:30 is shown at 00:30Z and at 01:30Z.
            (ends_skipped, "2026-10-25T00:29:59Z", "now"),
            (ends_skipped, "2026-10-25T00:30:00Z", "2026-11-01T00:00:00Z"),
            (deny_twice, "2026-10-24T23:00:00Z", "2026-10-25T01:30:00Z"),
            (begins_twice, "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"),
            (begins_twice, "2026-10-25T01:15:00Z", "now"),
        ]);
    }

    #[test]
    fn the_reason_names_the_window() {
        for (texts, expected) in [
            (
                &["allow Mon-Fri 09:00-17:00 Europe/Berlin"][..],
                "outside `allow Mon-Fri 09:00-17:00 Europe/Berlin`, until 2026-11-23T08:00:00Z",
            ),
            (
                &["allow Mon 09:00-10:00 UTC", "allow Tue 09:00-10:00 UTC", "allow Wed 09:00-10:00 UTC"],
                "outside `allow Mon 09:00-10:00 UTC` and 2 more, until 2026-11-23T09:00:00Z",
            ),
            (
                &["allow Mon-Fri 09:00-17:00 UTC", "deny 2026-11-01..2026-11-23 UTC"],
                "inside `deny 2026-11-01..2026-11-23 UTC`, until 2026-11-24T09:00:00Z",
            ),
            (&["deny Mon-Sun UTC"], "inside `deny Mon-Sun UTC`, and nothing opens within a year"),
        ] {
            let found = outside(&windows(texts), at("2026-11-23T03:00:00Z")).expect("closed");
            assert_eq!(found.to_string(), expected);
        }
    }

    /// As many windows as a group can have, each with another hour, that never leave a gap.
    #[test]
    fn the_most_windows_are_looked_through() {
        let hour = |hour: usize| format!("deny Mon-Sun {:02}:00-{:02}:30 Europe/Berlin", hour % 24, (hour + 1) % 24);
        let mut texts: Vec<String> = (0..49).map(hour).collect();
        texts.push("allow Mon-Sun Europe/Berlin".to_owned());
        let windows = windows(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let found = outside(&windows, at("2026-11-23T03:00:00Z")).expect("closed");
        assert_eq!(found.opens, None);
    }
}
