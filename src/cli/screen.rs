//! What may stand on a terminal: plain tables, tints, and text of strangers that cannot move the cursor.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use owo_colors::{OwoColorize, Style};
use serde::Serialize;

use crate::time::{Timestamp, show_duration};
use crate::view::AgentStatus;
use crate::view::text::is_deceptive;

/// Digits of a hash or a commit that people are shown.
const SHORT: usize = 12;

/// How a line stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tint {
    /// It does not.
    Plain,
    /// Names of columns, and what is of little weight.
    Dim,
    /// Titles.
    Bold,
    /// Something moves.
    Moving,
    /// Something needs a look.
    Warning,
    /// Something is bad.
    Bad,
}

/// The text with this tint. Printing takes the colours off where they do not belong.
pub(super) fn tinted(text: &str, tint: Tint) -> String {
    let style = match tint {
        Tint::Plain => return text.to_owned(),
        Tint::Dim => Style::new().dimmed(),
        Tint::Bold => Style::new().bold(),
        Tint::Moving => Style::new().cyan(),
        Tint::Warning => Style::new().yellow(),
        Tint::Bad => Style::new().red(),
    };
    text.style(style).to_string()
}

/// Text made by an agent, a commit or a remote, on one line: what steers a terminal, or turns the direction of writing, is
/// shown as an escape.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => clean.push_str("\\n"),
            '\t' => clean.push(' '),
            c if is_deceptive(c) => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    clean
}

/// As [`clean`], and not longer than `most` characters.
pub(super) fn clean_short(text: &str, most: usize) -> String {
    let clean = clean(text);
    match clean.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

/// An agent's labels as `key=value`: those that were proven, or what it says of itself.
pub(super) fn labels(agent: &AgentStatus, proven: bool) -> impl Iterator<Item = String> {
    let some = agent.labels.iter().filter(move |(key, _)| agent.proven.contains(key) == proven);
    some.map(|(key, value)| format!("{key}={value}"))
}

/// A value as a JSON document of several lines for people who look at it.
pub(super) fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(value).map(|document| clean_json(&document))
}

/// The same in one line, where documents follow each other.
pub(super) fn json_line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(value).map(|document| clean_json(&document))
}

/// A JSON document with the same values, in which what [`clean`] would change stands as JSON's own escapes.
fn clean_json(document: &str) -> String {
    let mut clean = String::with_capacity(document.len() + 1);
    for c in document.chars() {
        if c != '\n' && is_deceptive(c) {
            clean.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            clean.push(c);
        }
    }
    clean + "\n"
}

/// The first digits of a hash; other words (`foreign`) as they are, nothing as `-`.
pub(super) fn short_hash(hash: Option<&str>) -> String {
    hash.map_or_else(|| "-".to_owned(), |hash| clean(hash).chars().take(SHORT).collect())
}

/// `main@sha1:6dcb09b5b575…` with the first digits of the commit.
pub(super) fn short_revision(revision: &str) -> String {
    match revision.rsplit_once(':') {
        Some((name, commit)) => format!("{}:{}", clean(name), short_hash(Some(commit))),
        None => clean(revision),
    }
}

/// A length of time in its two largest units: `1h3m`, `45s`.
pub(super) fn rough(length: Duration) -> String {
    let seconds = length.as_secs();
    let whole = match seconds {
        0..3_600 => seconds,
        3_600..86_400 => seconds - seconds % 60,
        _ => seconds - seconds % 3_600,
    };
    show_duration(Duration::from_secs(whole))
}

/// `12s ago`.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", rough(now.since(at)))
}

/// A table without lines; one line a row.
#[derive(Debug)]
pub(super) struct Rows {
    table: Table,
    tints: Vec<Tint>,
}

impl Rows {
    /// A table with these columns, of which those in `numbers` are aligned to the right.
    pub(super) fn new(columns: &[&str], numbers: std::ops::Range<usize>) -> Self {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(Cell::new));
        for index in numbers {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table, tints: vec![Tint::Dim] }
    }

    /// Adds a row of clean cells.
    pub(super) fn add(&mut self, cells: Vec<String>, tint: Tint) {
        self.table.add_row(cells);
        self.tints.push(tint);
    }
}

impl std::fmt::Display for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Every cell is one line, so lines and rows are the same.
        for (line, tint) in self.table.lines().zip(&self.tints) {
            // The style pads each cell on both sides.
            let line = line.strip_prefix(' ').unwrap_or(&line).trim_end();
            f.write_str(&tinted(line, *tint))?;
            f.write_char('\n')?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_steer_the_terminal() {
        for (text, shown) in [
            ("plain “text” é", "plain “text” é"),
            ("two\nlines\tand", "two\\nlines and"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("bell\u{7}\r", "bell\\u{7}\\u{d}"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("ta\u{e0041}gs\u{61c}", "ta\\u{e0041}gs\\u{61c}"),
        ] {
            assert_eq!(clean(text), shown, "{text:?}");
        }
        assert_eq!(clean_short("abcdef", 3), "abc…");
        assert_eq!(clean_short("äöü", 3), "äöü");
    }

    #[test]
    fn json_keeps_its_values_and_steers_nothing() {
        let value =
            serde_json::json!({"tls.o": "a\u{202e}b\u{200b}\u{e0041}\u{9b}\u{7f}\n", "ü": ["\u{2028}", "é 漢"]});
        let text = clean_json(&serde_json::to_string_pretty(&value).expect("JSON"));
        assert!(text.contains("a\\u202eb\\u200b\\udb40\\udc41\\u009b\\u007f\\n") && text.contains("é 漢"), "{text}");
        assert!(!text.replace('\n', "").contains(is_deceptive) && text.ends_with("}\n"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }

    #[test]
    fn hashes_revisions_and_times_are_short() {
        assert_eq!(short_hash(Some("0123456789abcdef")), "0123456789ab");
        assert_eq!(short_hash(Some("foreign")), "foreign");
        assert_eq!(short_hash(None), "-");
        assert_eq!(short_revision("main@sha1:0123456789abcdef0123"), "main@sha1:0123456789ab");
        for (seconds, shown) in [(0, "0s"), (59, "59s"), (90, "1m30s"), (3_661, "1h1m"), (90_061, "1d1h")] {
            assert_eq!(rough(Duration::from_secs(seconds)), shown, "{seconds}");
        }
    }

    #[test]
    fn tables_are_lines_of_columns() {
        let mut rows = Rows::new(&["NAME", "COUNT"], 1..2);
        rows.add(vec!["a".to_owned(), "7".to_owned()], Tint::Plain);
        rows.add(vec!["longer".to_owned(), "1000".to_owned()], Tint::Bad);
        let text = rows.to_string();
        assert!(text.contains("\u{1b}[31m"), "the bad row is red: {text:?}");
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "NAME    COUNT\na           7\nlonger   1000\n",
            "{text:?}"
        );
    }
}
