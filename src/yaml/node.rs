//! One value of a document: its kind, its tag, its exact text and the place it came from.

use std::fmt;

use crate::yaml::Place;

/// One value of a document. Aliases and merge keys are already resolved in it.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is, with its content.
    pub kind: Kind,
    /// Its explicit tag: `!!str` for YAML's own, `!name` for a local one, `!<uri>` for any other.
    pub tag: Option<Box<str>>,
    /// Where it starts. A value that an alias repeats keeps the place where it was written.
    pub place: Place,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A single value: its exact text after YAML's escapes, never a number or a boolean.
    Scalar {
        /// The text.
        text: Box<str>,
        /// How it is written.
        style: Style,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// A map in the order of the file. The keys are scalars, and no two have the same text.
    Mapping(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key, a scalar.
    pub key: Node,
    /// The value.
    pub value: Node,
}

/// How a scalar is written. Only `Plain` can be anything but a string: what a reader makes of `no`, `012` or `1e3` depends on
/// its dialect, so the text is never interpreted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// `'...'`
    SingleQuoted,
    /// `"..."`
    DoubleQuoted,
    /// `|`
    Literal,
    /// `>`
    Folded,
}

impl Style {
    /// True for every style that makes a string of any text. Block scalars count as quoted: no reader looks for numbers in them.
    pub const fn is_quoted(self) -> bool {
        match self {
            Self::Plain => false,
            Self::SingleQuoted | Self::DoubleQuoted | Self::Literal | Self::Folded => true,
        }
    }

    /// This style, or the nearest one that can carry `text` on the way back to YAML without changing what a reader sees.
    /// Plain text that only a quoted scalar can carry (several lines, say) is a string to every reader, so quoting it keeps its
    /// meaning.
    pub fn fitting(self, text: &str) -> Self {
        let fits = match self {
            Self::Plain => text.is_empty() || is_plain(text),
            Self::SingleQuoted => text.chars().all(is_shown),
            Self::Literal => is_block(text),
            Self::Folded => {
                if is_block(text) && !text.split('\n').any(|line| line.starts_with([' ', '\t'])) {
                    return Self::Folded;
                }
                return Self::Literal.fitting(text);
            }
            Self::DoubleQuoted => true,
        };
        if fits { self } else { Self::DoubleQuoted }
    }
}

/// True when `text` stands for itself as a plain scalar on one line, in every YAML reader: nothing in it can be taken for
/// structure, a comment or an indicator. Empty text is no such scalar.
pub fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some(first) = bytes.first() else { return false };
    let starts_well = match first {
        b' ' | b',' | b'[' | b']' | b'{' | b'}' | b'#' | b'&' | b'*' | b'!' | b'|' | b'>' | b'\'' | b'"' | b'%'
        | b'@' | b'`' => false,
        b'-' | b'?' | b':' => bytes.get(1).is_some_and(|next| *next != b' '),
        _ => true,
    };
    let marks_document = ["---", "..."]
        .iter()
        .any(|mark| text.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')));
    if !starts_well || marks_document {
        return false;
    }
    let structure = |pair: &[u8]| matches!(pair, b": " | b" #");
    let ends_well = !text.ends_with([' ', ':']) && !bytes.windows(2).any(structure);
    ends_well
        && if text.is_ascii() {
            bytes.iter().all(|one| matches!(one, b' '..=b'~'))
        } else {
            text.chars().all(|one| one != '\t' && is_shown(one))
        }
}

/// True for text that a block scalar carries unchanged without an indentation indicator.
fn is_block(text: &str) -> bool {
    let mut lines = text.trim_end_matches('\n').split('\n');
    let blank = |line: &str| line.chars().all(|one| matches!(one, ' ' | '\t'));
    let starts_well = lines.next().is_some_and(|line| !line.starts_with([' ', '\t']) && !line.is_empty());
    let ends_well = text.trim_end_matches('\n').rsplit('\n').next().is_some_and(|line| !blank(line));
    starts_well && ends_well && text.chars().all(|one| one == '\n' || is_shown(one))
}

/// True for a character that may stand in a document as itself within a line: printable in YAML's sense, no line break of
/// YAML 1.1 or 1.2, no byte order mark.
pub(super) fn is_shown(one: char) -> bool {
    match one {
        '\t' | ' '..='~' => true,
        '\u{2028}' | '\u{2029}' | '\u{FEFF}' => false,
        '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}' => true,
        _ => false,
    }
}

impl Node {
    /// A scalar in the style nearest to `style` that can carry `text`.
    pub fn scalar(text: &str, style: Style, place: Place) -> Self {
        Self { kind: Kind::Scalar { text: text.into(), style: style.fitting(text) }, tag: None, place }
    }

    /// A sequence without a tag.
    pub fn sequence(items: Vec<Self>, place: Place) -> Self {
        Self { kind: Kind::Sequence(items), tag: None, place }
    }

    /// A mapping without a tag. The keys must be scalars of different texts.
    pub fn mapping(entries: Vec<Entry>, place: Place) -> Self {
        Self { kind: Kind::Mapping(entries), tag: None, place }
    }

    /// The value of `key`, when this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        Some(&self.entry(key)?.value)
    }

    /// The entry of `key`, when this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.as_mapping()?.iter().find(|entry| entry.key.as_str() == Some(key))
    }

    /// The value at the end of these keys.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text of a scalar, whatever its style: `012` and `"012"` both give `012`.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, style: _ } => Some(text),
            Kind::Sequence(_) | Kind::Mapping(_) => None,
        }
    }

    /// The text of a plain scalar without a tag: the only ones that may be a number, a boolean or null.
    pub fn as_plain(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, style: Style::Plain } if self.tag.is_none() => Some(text),
            Kind::Scalar { .. } | Kind::Sequence(_) | Kind::Mapping(_) => None,
        }
    }

    /// The items of a sequence.
    pub fn as_sequence(&self) -> Option<&[Self]> {
        match &self.kind {
            Kind::Sequence(items) => Some(items),
            Kind::Scalar { .. } | Kind::Mapping(_) => None,
        }
    }

    /// The entries of a mapping, in the order of the file.
    pub fn as_mapping(&self) -> Option<&[Entry]> {
        match &self.kind {
            Kind::Mapping(entries) => Some(entries),
            Kind::Scalar { .. } | Kind::Sequence(_) => None,
        }
    }

    /// True for what the collector reads as null: nothing at all, `~`, `null` in its three spellings, or `!!null`.
    pub fn is_null(&self) -> bool {
        let text = match (&self.kind, self.tag.as_deref()) {
            (Kind::Scalar { text, style: Style::Plain }, None | Some("!")) => text,
            (Kind::Scalar { .. }, Some("!!null")) => return true,
            (Kind::Scalar { .. } | Kind::Sequence(_) | Kind::Mapping(_), _) => return false,
        };
        matches!(&**text, "" | "~" | "null" | "Null" | "NULL")
    }

    /// What it is, for messages: `a map`, `a list`, `nothing`, `text` or `a value`.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Mapping(_) => "a map",
            Kind::Sequence(_) => "a list",
            Kind::Scalar { .. } if self.is_null() => "nothing",
            Kind::Scalar { text: _, style } if style.is_quoted() => "text",
            Kind::Scalar { .. } => "a value",
        }
    }

    /// True when kinds, texts, styles and tags are equal all the way down, in the same order; places do not count.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = match (&self.kind, &other.kind) {
            (Kind::Scalar { text, style }, Kind::Scalar { text: other, style: others }) => {
                (text, style) == (other, others)
            }
            (Kind::Sequence(items), Kind::Sequence(others)) => {
                items.len() == others.len() && items.iter().zip(others).all(|(one, other)| one.is_same(other))
            }
            (Kind::Mapping(entries), Kind::Mapping(others)) => {
                entries.len() == others.len()
                    && entries
                        .iter()
                        .zip(others)
                        .all(|(one, other)| one.key.is_same(&other.key) && one.value.is_same(&other.value))
            }
            (Kind::Scalar { .. } | Kind::Sequence(_) | Kind::Mapping(_), _) => false,
        };
        same && self.tag == other.tag
    }
}

/// What is wrong with a document, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct YamlError {
    /// Where.
    pub place: Place,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// True when the document is nested deeper than its limit.
    pub is_too_deep: bool,
}

impl YamlError {
    /// An error without advice.
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), help: None, is_too_deep: false }
    }

    /// The same, saying what to do.
    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
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
    fn plain_text_is_what_no_reader_takes_for_structure() {
        for text in [
            "a",
            "no",
            "012",
            "-1",
            "-.inf",
            "?x",
            ":x",
            "a:b",
            "a#b",
            "http://h:4317",
            "1 2",
            "${env:X}",
            "é",
            "a, b]",
        ] {
            assert!(is_plain(text), "{text:?} can be plain");
        }
        for text in [
            "",
            " a",
            "a ",
            "-",
            "- a",
            "?",
            "? a",
            ":",
            "a:",
            "a: b",
            "a #b",
            "#a",
            "[a",
            "{a",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "'a",
            "\"a",
            "%a",
            "@a",
            "`a",
            "a\nb",
            "a\tb",
            "a\u{7}",
            "---",
            "--- a",
            "...",
            "a\u{2028}b",
            "a\u{85}b",
            "\u{feff}a",
            ",a",
        ] {
            assert!(!is_plain(text), "{text:?} cannot be plain");
            assert_eq!(Style::Plain.fitting(text), if text.is_empty() { Style::Plain } else { Style::DoubleQuoted });
        }
    }

    #[test]
    fn block_styles_give_way_to_what_carries_the_text() {
        for (style, text, expected, why) in [
            (Style::Literal, "a\nb\n", Style::Literal, "ordinary lines"),
            (Style::Literal, "a\n\n  b\n\n\n", Style::Literal, "blank lines, indented lines, kept ends"),
            (Style::Literal, " a\n", Style::DoubleQuoted, "would need an indentation indicator"),
            (Style::Literal, "\na", Style::DoubleQuoted, "starts with a blank line"),
            (Style::Literal, "a\n ", Style::DoubleQuoted, "ends in a line of spaces"),
            (Style::Literal, "\n", Style::DoubleQuoted, "no line has content"),
            (Style::Literal, "", Style::DoubleQuoted, "nothing"),
            (Style::Literal, "a\u{7}", Style::DoubleQuoted, "a control character"),
            (Style::Folded, "a\nb", Style::Folded, "ordinary lines"),
            (Style::Folded, "a\n b", Style::Literal, "indented lines do not fold"),
            (Style::SingleQuoted, "a\nb", Style::DoubleQuoted, "a line break"),
            (Style::SingleQuoted, " it's ", Style::SingleQuoted, "spaces and quotes are fine"),
        ] {
            assert_eq!(style.fitting(text), expected, "{text:?}: {why}");
        }
    }
}
