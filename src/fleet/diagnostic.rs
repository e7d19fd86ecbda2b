//! Findings about a fleet repository: what is wrong, where, and what to do about it. All of them at once, never the first only.

use crate::fleet::GroupName;
use crate::fleet::snapshot::Limit;
use crate::labels::is_invisible;
use crate::yaml::Place;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing is held back, but somebody should look.
    Warning,
    /// The group (or the whole commit, when no group is named) keeps what it had.
    Error,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// A short stable name of the kind, like `unknown-field`, for scripts and for searching the documentation.
    pub code: &'static str,
    /// Where, when there is a place.
    pub place: Option<Place>,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The group that an error holds back; `None`: the whole commit (or, for a warning, nobody in particular).
    pub group: Option<GroupName>,
    /// The limit that something is over, when it can be set.
    pub limit: Option<Limit>,
}

impl Diagnostic {
    /// An error of this kind. What the words hold of a repository's names and texts cannot steer or hide anything where they are shown.
    pub fn error(code: &'static str, place: Option<Place>, message: impl Into<String>) -> Self {
        let message = visible(message.into());
        Self { severity: Severity::Error, code, place, message, help: None, group: None, limit: None }
    }

    /// A warning of this kind.
    pub fn warning(code: &'static str, place: Option<Place>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, message) }
    }

    /// The same, saying what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(visible(help.into()));
        self
    }

    /// The same, about something that is over this limit.
    #[must_use]
    pub fn over(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The same, holding back only this group.
    #[must_use]
    pub fn of(mut self, group: &GroupName) -> Self {
        self.group = Some(group.clone());
        self
    }
}

/// The text with everything replaced that nobody would see, or that would change how the rest is seen.
fn visible(text: String) -> String {
    if text.chars().any(is_odd) { text.chars().map(show).collect() } else { text }
}

/// One letter of it.
pub(super) fn show(letter: char) -> char {
    if is_odd(letter) { char::REPLACEMENT_CHARACTER } else { letter }
}

fn is_odd(letter: char) -> bool {
    letter.is_control() || is_invisible(letter)
}

impl std::fmt::Display for Diagnostic {
    /// One line: `prod/group.yaml:3:5: what is wrong (what to do)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}: ", visible(place.to_string()))?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_of_a_repository_hide_nothing_in_a_finding() {
        let place = Place { file: "a/\u{feff}group.yaml".into(), line: 1, column: 1 };
        let finding =
            Diagnostic::error("unused", Some(place), "no group uses `\u{202e}lmay.x`").help("call it `a\u{1b}[2J`");
        let line = finding.to_string();
        assert!(
            line.contains("a/\u{fffd}group.yaml") && line.ends_with("`\u{fffd}lmay.x` (call it `a\u{fffd}[2J`)"),
            "{line:?}"
        );
    }
}
