//! What a configuration may not hold although it is YAML: keys that the collector's loader takes for something else than they say.

use std::collections::BTreeMap;

use crate::yaml::node::{Entry, Kind, Node, Style, YamlError};

/// What separates the steps of a path in one key, for the collector's loader.
const PATH_SEPARATOR: &str = "::";

/// Every key that the collector reads as another key, because then layers would not merge as they do there.
///
/// - A plain key that is no text in YAML becomes its value, written as Go does it: `012` is the key `10`, `~` is `<nil>`. Where that is the same
///   text again (`200`, `true`, `1.5`), it is fine; but not at the top, where the collector refuses the whole document.
/// - `a::b: 1` is `a: {b: 1}`, outside of lists. It would also hide from every check here.
///
/// In the order of the document.
pub fn ambiguous_keys(config: &Node) -> Vec<YamlError> {
    let mut errors = Vec::new();
    visit(config, Position { is_top: true, in_list: false }, &mut errors);
    errors
}

#[derive(Clone, Copy)]
struct Position {
    is_top: bool,
    in_list: bool,
}

fn visit(node: &Node, position: Position, errors: &mut Vec<YamlError>) {
    match &node.kind {
        Kind::Scalar { .. } => {}
        Kind::Sequence(items) => {
            for item in items {
                visit(item, Position { is_top: false, in_list: true }, errors);
            }
        }
        Kind::Mapping(entries) => {
            for entry in entries {
                errors.extend(refuse(&entry.key, position));
                visit(&entry.value, Position { is_top: false, in_list: position.in_list }, errors);
            }
        }
    }
}

fn refuse(key: &Node, position: Position) -> Option<YamlError> {
    let text = key.as_str()?;
    let error = |message: String, help: &str| Some(YamlError::new(key.place.clone(), message).help(help));
    if text.contains(PATH_SEPARATOR) && !position.in_list {
        let help = "write a map for each step: `a: {b: ...}` instead of `a::b: ...`";
        return error(format!("the key `{text}` is a path to the collector, which takes it apart at `::`"), help);
    }
    // At the top a tag of any other kind is enough, whatever it makes of the key.
    let is_plain_text = !position.is_top || matches!(key.tag.as_deref(), None | Some("!" | "!!str"));
    if (is_plain_text && is_text(key)) || (!position.is_top && is_its_own_text(text)) {
        return None;
    }
    let message = if position.is_top {
        format!("the key `{text}` is no text to the collector, which takes nothing else at the top")
    } else {
        format!("the key `{text}` is no text to the collector, which takes it for another one")
    };
    error(message, "quote it")
}

/// The first key that is text in one of the maps that are merged into a map (`<<`) or in that map itself, and the same characters but no text
/// in another: `"200"` and `200`. They are two keys when the collector's reader merges, and one later; which of them wins is chance. Where all
/// own keys are text, the others become text before that.
pub(super) fn mixed(merged: &[Vec<Entry>], own: &[Entry]) -> Option<YamlError> {
    if own.iter().all(|entry| is_text(&entry.key)) {
        return None;
    }
    let mut known = BTreeMap::new();
    own.iter().chain(merged.iter().flatten()).find_map(|Entry { key, value: _ }| {
        let text = key.as_str()?;
        let is_text = is_text(key);
        let (before, place) = *known.entry(text).or_insert((is_text, &key.place));
        let (line, column) = (place.line, place.column);
        let message =
            format!("the key `{text}` is text in one of these maps, and no text in another, at {line}:{column}");
        (before != is_text).then(|| YamlError::new(key.place.clone(), message).help("quote it in both, or in none"))
    })
}

/// True when the collector's reader makes text of a key.
pub(super) fn is_text(key: &Node) -> bool {
    let Kind::Scalar { text, style } = &key.kind else { return false };
    match key.tag.as_deref() {
        None | Some("!") => *style != Style::Plain || !is_value(text),
        Some("!!str") => true,
        // Every other tag of YAML itself makes something else of it; a local one leaves it text.
        Some(tag) => !tag.starts_with("!!"),
    }
}

/// The key as text, whatever it was.
pub(super) fn as_text(key: Node) -> Node {
    match (is_text(&key), key.as_str()) {
        (false, Some(text)) => Node::scalar(text, Style::DoubleQuoted, key.place.clone()),
        (true, _) | (false, None) => key,
    }
}

/// True when the collector's reader makes something else than text of this plain scalar. Of texts that look like dates it may also be
/// true for those that are none.
fn is_value(text: &str) -> bool {
    let is_word = matches!(
        text,
        "" | "~"
            | "null"
            | "Null"
            | "NULL"
            | "true"
            | "True"
            | "TRUE"
            | "false"
            | "False"
            | "FALSE"
            | ".nan"
            | ".NaN"
            | ".NAN"
    );
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    is_word || matches!(unsigned, ".inf" | ".Inf" | ".INF") || is_number(text) || is_date(text)
}

/// Numbers in all spellings of YAML 1.1 and 1.2 that the collector's reader knows.
fn is_number(text: &str) -> bool {
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return false;
    }
    let plain = text.replace('_', "");
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let digits = |rest: &str, radix: u32| !rest.is_empty() && rest.chars().all(|one| one.is_digit(radix));
    let based = |prefixes: [&str; 2], radix: u32| {
        prefixes.iter().any(|prefix| unsigned.strip_prefix(prefix).is_some_and(|rest| digits(rest, radix)))
    };
    based(["0x", "0X"], 16) || based(["0o", "0O"], 8) || based(["0b", "0B"], 2) || is_decimal(unsigned)
}

/// `1`, `1.`, `.5`, `1.5`, each with or without an exponent.
fn is_decimal(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let is_digits = |text: &str| text.bytes().all(|one| one.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_exponent = |text: &str| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        !digits.is_empty() && is_digits(digits)
    };
    is_digits(whole)
        && is_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(is_exponent)
}

/// Four digits, a month and a day; a time may follow.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let (year, month, rest) = (parts.next(), parts.next(), parts.next());
    let is_short = |text: &str| matches!(text.len(), 1 | 2) && text.bytes().all(|one| one.is_ascii_digit());
    let day = rest.map(|rest| rest.split(['T', 't', ' ']).next().unwrap_or_default());
    year.is_some_and(|year| year.len() == 4 && year.bytes().all(|one| one.is_ascii_digit()))
        && month.is_some_and(is_short)
        && day.is_some_and(is_short)
}

/// True for values that Go writes as they stand here.
fn is_its_own_text(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let is_whole = |text: &str| {
        text == "0" || (!text.starts_with('0') && !text.is_empty() && text.bytes().all(|one| one.is_ascii_digit()))
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "1"));
    // Nineteen digits are too many for some whole numbers, sixteen for fractions.
    let is_short = unsigned.len() <= if unsigned.contains('.') { 15 } else { 18 };
    // Below this Go writes an exponent.
    let is_tiny = whole == "0" && fraction.starts_with("0000");
    let is_fraction =
        fraction.bytes().all(|one| one.is_ascii_digit()) && !fraction.is_empty() && !fraction.ends_with('0');
    matches!(text, "true" | "false") || (is_whole(whole) && is_fraction && is_short && !is_tiny && text != "-0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::testing::read;

    #[test]
    fn keys_that_are_not_what_they_say_are_refused() {
        for (text, line, column, message, why) in [
            ("a::b: 1", 1, 1, "the key `a::b` is a path", "at the top"),
            ("extensions: {opamp::server: {}}", 1, 14, "a path", "below"),
            ("a: {b: {\"c::d\": 1}}", 1, 9, "a path", "with quotes, too"),
            ("1: a", 1, 1, "no text to the collector, which takes nothing else at the top", "a number at the top"),
            ("!x a: 1", 1, 4, "nothing else at the top", "a tag at the top"),
            ("a: 1\ntrue: a", 2, 1, "nothing else at the top", "a boolean at the top"),
            ("a: {012: b}", 1, 5, "the key `012` is no text to the collector", "octal"),
            ("a: [{0x1F: b}]", 1, 6, "`0x1F`", "hexadecimal, in a list"),
            ("a: {1e3: b}", 1, 5, "`1e3`", "an exponent"),
            ("a: {1.50: b}", 1, 5, "`1.50`", "a fraction in a longer spelling"),
            ("a: {1.0: b}", 1, 5, "`1.0`", "a fraction that is none"),
            ("a: {0.00001: b}", 1, 5, "`0.00001`", "which Go writes with an exponent"),
            ("a: {1_000: b}", 1, 5, "`1_000`", "underscores"),
            ("a: {08: b}", 1, 5, "`08`", "a float, of all things"),
            ("a: {+1: b}", 1, 5, "`+1`", "a sign"),
            ("a: {True: b}", 1, 5, "`True`", "another spelling of true"),
            ("a: {~: b}", 1, 5, "`~`", "null"),
            ("a: {.inf: b}", 1, 5, "`.inf`", "infinity"),
            ("a: {2024-01-01: b}", 1, 5, "`2024-01-01`", "a date"),
            ("a: {2024-1-1 10:00:00: b}", 1, 5, "`2024-1-1 10:00:00`", "a time"),
            ("a: {2024-01-01T10:00:00Z: b}", 1, 5, "`2024-01-01T10:00:00Z`", "another"),
            ("a: {18446744073709551616: b}", 1, 5, "`18446744073709551616`", "too many digits"),
            ("a: {!!binary aGk=: b}", 1, 14, "`aGk=`", "bytes"),
            ("a: {!!int 012: b}", 1, 11, "`012`", "by its tag"),
        ] {
            let found = ambiguous_keys(&read(text));
            let error = found.first().unwrap_or_else(|| panic!("{why}: {text}"));
            assert!(error.message.contains(message), "{why}: {error}");
            assert_eq!((error.place.line, error.place.column), (line, column), "{why}: {error}");
            assert_eq!(found.len(), 1, "{why}: {found:?}");
        }
    }

    #[test]
    fn ordinary_keys_pass() {
        for text in [
            "a: {1: b, 200: c, -5: d, 0: e, 1.5: f, 0.25: g, true: h, false: i}",
            "on: {yes: 1, no: 2, y: 3, 22:30: 4, 10.0.0.1: 5, 1.2.3: 6, 1h: 7, e3: 8, 2024-01: 9, 12-34-56: 10, 0b2: 11, '+': 12, .: 13}",
            "\"1\": a\n'012': b\n\"~\": c\n! \"x\": d\n!!str 013: e",
            "a: [{b::c: 1}]",
            "a:b: {c:d: 1}",
            "a: {\"\": 1, '2024-01-01': 2, !x 012: 3}",
            "~a: 1\n0x: 2\n_1: 3\nnan: 4\ninf: 5\nNaN: 6\n<: 7",
        ] {
            assert_eq!(ambiguous_keys(&read(text)), [], "{text}");
        }
    }
}
