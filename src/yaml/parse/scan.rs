//! The scanner's findings in the words of somebody who edits configurations.

use std::sync::Arc;

use granit_parser::{ErrorKind, ScanError};

use super::{Limits, place_of, too_deep};
use crate::yaml::Place;
use crate::yaml::node::YamlError;

/// The scanner's finding in the words of somebody who edits configurations.
#[expect(clippy::wildcard_enum_match_arm, reason = "the scanner's enum may grow; its own words serve for the rest")]
pub(super) fn error(file: &Arc<str>, text: &str, error: &ScanError, limits: &Limits) -> YamlError {
    let (line, column) = (error.marker().line(), error.marker().col());
    let place = place_of(file, line, column);
    let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    if is_reference_in_flow(source, column) {
        return YamlError::new(place, "`{` starts a map inside `[...]` or `{...}`, even behind a `$`")
            .help("quote the reference: [\"${env:NAME}\"]");
    }
    match error.kind() {
        ErrorKind::RecursionLimitExceeded => too_deep(place, limits),
        ErrorKind::UnknownAnchor => YamlError::new(place, "this alias names no anchor that stands before it")
            .help("quote the value if it is text that starts with `*`"),
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => {
            let place = indenting_tab(file, text, line).unwrap_or(place);
            YamlError::new(place, "a tab character where YAML wants spaces").help("indent with spaces only")
        }
        ErrorKind::InvalidQuotedScalarIndent if text.lines().count() < line => {
            YamlError::new(place, "the file ends within a quoted text").help("close the quotes")
        }
        ErrorKind::InvalidQuotedScalarIndent => YamlError::new(
            place,
            "this line is part of a quoted text that started above and is not indented enough for it",
        )
        .help("close the quotes above, or indent this line"),
        ErrorKind::UnclosedQuotedScalar => YamlError::new(place, "a quoted text that starts here is never closed"),
        _ if source.trim_start_matches(' ').starts_with('\t') => {
            YamlError::new(place, format!("{}; the line is indented with a tab", error.kind()))
                .help("indent with spaces only")
        }
        kind => {
            let error = YamlError::new(place, kind.to_string());
            if source.contains("=======") { error.help("is this line left from a merge conflict?") } else { error }
        }
    }
}

/// The tab in the indentation of this line or the next one: the scanner may stop at the end of the line before.
fn indenting_tab(file: &Arc<str>, text: &str, line: usize) -> Option<Place> {
    let lines = text.lines().enumerate().skip(line.saturating_sub(1)).take(2);
    lines.into_iter().find_map(|(index, source)| {
        let indent = source.len() - source.trim_start_matches([' ', '\t']).len();
        let tab = source.get(..indent)?.find('\t')?;
        Some(place_of(file, index + 1, tab))
    })
}

/// True when the scanner stopped at or shortly behind the `{` of an unquoted `${...}` within a flow collection.
fn is_reference_in_flow(source: &str, column: usize) -> bool {
    let upto: String = source.chars().take(column.saturating_add(1)).collect();
    let Some(at) = upto.rfind("${") else { return false };
    let before = &source[..at];
    let quotes = before.matches('"').count() + before.matches('\'').count();
    before.contains(['[', '{']) && quotes.is_multiple_of(2)
}
