//! The bytes of a file as text, or why they are no YAML at all: encodings, control characters, leftovers of Git.

use std::sync::Arc;

use crate::yaml::node::YamlError;
use crate::yaml::{Limits, Place};

/// How a pointer to a file in Git LFS begins.
const LFS_POINTER: &str = "version https://git-lfs.github.com/spec/";

/// What a merge leaves behind at the beginning of a line.
const CONFLICT_MARKS: [&str; 3] = ["<<<<<<<", ">>>>>>>", "|||||||"];

/// Checks what a YAML reader would choke on or read differently from another one, and gives the text without a byte order mark.
pub(super) fn text<'a>(file: &Arc<str>, bytes: &'a [u8], limits: &Limits) -> Result<&'a str, YamlError> {
    let start = Place { file: Arc::clone(file), line: 1, column: 1 };
    if bytes.len() > limits.bytes {
        let message = format!("the file has {} bytes, more than the limit of {}", bytes.len(), limits.bytes);
        return Err(YamlError::new(start, message));
    }
    if let Some(encoding) = wide_encoding(bytes) {
        let message = format!("the file is encoded in {encoding}");
        return Err(YamlError::new(start, message).help("save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if bytes.starts_with(LFS_POINTER.as_bytes()) {
        return Err(YamlError::new(start, "this is a Git LFS pointer, not the file itself")
            .help("keep configurations in Git itself: `git lfs untrack` the pattern and commit the file again"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        let message = format!("byte 0x{byte:02x} is not valid UTF-8");
        YamlError::new(place_after(file, &String::from_utf8_lossy(good)), message).help("save the file as UTF-8")
    })?;
    refuse_characters(file, text)?;
    refuse_conflicts(file, text)?;
    Ok(text)
}

/// UTF-16 and UTF-32, by their byte order marks or by the zero bytes among the first four.
fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => Some("UTF-32"),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Some("UTF-16"),
        [first, 0, second, 0, ..] | [0, first, 0, second, ..] if *first != 0 && *second != 0 => Some("UTF-16"),
        _ => None,
    }
}

/// Control characters are refused by the collector's reader; the line breaks of YAML 1.1 are breaks for some readers and
/// ordinary characters for others.
fn refuse_characters(file: &Arc<str>, text: &str) -> Result<(), YamlError> {
    let plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r');
    if text.bytes().all(plain) {
        return Ok(());
    }
    for (at, one) in text.char_indices() {
        let (message, help) = match one {
            '\t' | '\n' | '\r' | ' '..='~' => continue,
            '\0' => ("a NUL character".to_owned(), "is this a binary file?"),
            '\u{85}' | '\u{2028}' | '\u{2029}' => (
                format!(
                    "the character U+{:04X} is a line break for some YAML readers and none for others",
                    u32::from(one)
                ),
                "write it as an escape in a double-quoted string, or remove it",
            ),
            '\u{FEFF}' => ("a byte order mark in the middle of the file".to_owned(), "remove it"),
            one if super::node::is_shown(one) => continue,
            one => (
                format!("the control character U+{:04X} is not allowed in YAML", u32::from(one)),
                "write it as an escape in a double-quoted string, or remove it",
            ),
        };
        return Err(YamlError::new(place_after(file, &text[..at]), message).help(help));
    }
    Ok(())
}

/// Lines that `git merge` left behind. `=======` alone is not enough: it can be text.
fn refuse_conflicts(file: &Arc<str>, text: &str) -> Result<(), YamlError> {
    for (index, line) in text.split('\n').enumerate() {
        let line = line.trim_end_matches('\r');
        if is_conflict_marker(line) {
            let line = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let place = Place { file: Arc::clone(file), line, column: 1 };
            return Err(YamlError::new(place, "a conflict marker that a merge left behind")
                .help("resolve the conflict, then commit the result"));
        }
    }
    Ok(())
}

fn is_conflict_marker(line: &str) -> bool {
    let rest = CONFLICT_MARKS.iter().find_map(|mark| line.strip_prefix(mark));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// True for text that must not begin a line of a document: its reader would take the document for something else.
pub(super) fn is_misleading(text: &str) -> bool {
    // More may follow it on the line, the colon behind a key first of all.
    text.starts_with(LFS_POINTER) || CONFLICT_MARKS.iter().any(|mark| text.starts_with(mark))
}

/// The place right behind `text` in `file`.
fn place_after(file: &Arc<str>, text: &str) -> Place {
    let (mut line, mut column) = (1_u32, 1_u32);
    let mut characters = text.chars().peekable();
    while let Some(one) = characters.next() {
        let breaks = one == '\n' || (one == '\r' && characters.peek() != Some(&'\n'));
        if breaks {
            (line, column) = (line.saturating_add(1), 1);
        } else {
            column = column.saturating_add(1);
        }
    }
    Place { file: Arc::clone(file), line, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_yaml_text_is_named_with_its_place() {
        let limits = Limits { bytes: 1_000, ..Limits::default() };
        for (bytes, line, column, message, why) in [
            (&b"\xFF\xFEa\0"[..], 1, 1, "UTF-16", "little-endian with a mark"),
            (b"\xFE\xFF\0a", 1, 1, "UTF-16", "big-endian with a mark"),
            (b"a\0:\0 \0", 1, 1, "UTF-16", "little-endian without a mark"),
            (b"\0a\0:\0 ", 1, 1, "UTF-16", "big-endian without a mark"),
            (b"\xFF\xFE\0\0a\0\0\0", 1, 1, "UTF-32", "with a mark"),
            (b"a: 1\nb: \xC3(", 2, 4, "0xc3 is not valid UTF-8", "a broken character"),
            (b"a: caf\xE9\n", 1, 7, "0xe9 is not valid UTF-8", "Latin-1"),
            (b"a: 1\n\0", 2, 1, "NUL", "a zero byte"),
            (b"a: \x1b[31m", 1, 4, "control character U+001B", "an escape sequence"),
            (b"a: \xC2\x9b", 1, 4, "control character U+009B", "a C1 control"),
            ("a: é\u{2028}b".as_bytes(), 1, 5, "U+2028", "a line break of YAML 1.1"),
            ("a: \u{85}b".as_bytes(), 1, 4, "U+0085", "another"),
            ("a: \u{feff}b".as_bytes(), 1, 4, "byte order mark", "in the middle"),
            (b"a: 1\n<<<<<<< HEAD\nb: 1\n", 2, 1, "conflict marker", "ours"),
            (b"a: 1\r\n>>>>>>> topic\r\n", 2, 1, "conflict marker", "theirs, with Windows line ends"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", 1, 1, "Git LFS", "a pointer"),
            (&[b'a'; 1_001], 1, 1, "1001 bytes", "too long"),
        ] {
            let error = text(&"f.yaml".into(), bytes, &limits).expect_err(why);
            assert_eq!((error.place.line, error.place.column), (line, column), "{why}: {error}");
            assert!(error.message.contains(message), "{why}: {error}");
        }
    }

    #[test]
    fn ordinary_text_passes() {
        let limits = Limits::default();
        for (bytes, expected) in [
            (&b"\xEF\xBB\xBFa: 1\n"[..], "a: 1\n"),
            (b"", ""),
            (b"\xEF\xBB\xBF", ""),
            (b"<<: 1\n=======\n <<<<<<< x\n", "<<: 1\n=======\n <<<<<<< x\n"),
            ("é 😀 \u{a0}\t\r\n".as_bytes(), "é 😀 \u{a0}\t\r\n"),
        ] {
            assert_eq!(text(&"f.yaml".into(), bytes, &limits).expect("passes"), expected);
        }
    }
}
