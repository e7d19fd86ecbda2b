//! From nodes back to YAML text that the collector reads with unchanged meaning.

use crate::yaml::node::{Entry, Kind, Node, Style};
use crate::yaml::source::is_misleading;

/// Longest key, in bytes, that is written before its `:`; readers give up looking for one after 1,024 characters.
const LONGEST_SIMPLE_KEY: usize = 1_000;

/// Writes a document: block style, two spaces a level, each scalar in its own style on as few lines as that style allows.
/// The result depends on the node alone, ends in a line break, and reads back as the same node.
#[must_use]
pub fn emit(node: &Node) -> String {
    let mut out = String::with_capacity(4096);
    match &node.kind {
        Kind::Mapping(entries) if !entries.is_empty() => {
            if let Some(tag) = &node.tag {
                write_tag(tag, &mut out);
                out.push('\n');
            }
            write_entries(entries, 0, false, &mut out);
        }
        Kind::Sequence(items) if !items.is_empty() => {
            if let Some(tag) = &node.tag {
                write_tag(tag, &mut out);
                out.push('\n');
            }
            write_items(items, 0, false, &mut out);
        }
        Kind::Mapping(_) | Kind::Sequence(_) | Kind::Scalar { .. } => {
            if node.tag.is_none() && node.as_str() == Some("") && !is_quoted(node) {
                return String::new();
            }
            write_single(node, 0, &mut out);
            if is_misleading(&out) {
                out.insert_str(0, "--- ");
            }
            out.push('\n');
        }
    }
    out
}

fn is_quoted(node: &Node) -> bool {
    match &node.kind {
        Kind::Scalar { text: _, style } => style.is_quoted(),
        Kind::Sequence(_) | Kind::Mapping(_) => false,
    }
}

/// Writes entries at `indent`; the first one goes on where the line is when `inline`.
fn write_entries(entries: &[Entry], indent: usize, mut inline: bool, out: &mut String) {
    for Entry { key, value } in entries {
        if !std::mem::take(&mut inline) {
            push_spaces(indent, out);
        }
        let start = out.len();
        write_key(key, out);
        let at_beginning = start == 0 || out[..start].ends_with('\n');
        if out.len() - start > LONGEST_SIMPLE_KEY || (at_beginning && is_misleading(&out[start..])) {
            out.insert_str(start, "? ");
            out.push('\n');
            push_spaces(indent, out);
        }
        out.push(':');
        write_value(value, indent, out);
    }
}

/// Writes items at `indent`; the first one goes on where the line is when `inline`.
fn write_items(items: &[Node], indent: usize, mut inline: bool, out: &mut String) {
    for item in items {
        if !std::mem::take(&mut inline) {
            push_spaces(indent, out);
        }
        out.push('-');
        match (&item.kind, &item.tag) {
            (Kind::Mapping(entries), None) if !entries.is_empty() => {
                out.push(' ');
                write_entries(entries, indent + 2, true, out);
            }
            (Kind::Sequence(items), None) if !items.is_empty() => {
                out.push(' ');
                write_items(items, indent + 2, true, out);
            }
            (Kind::Mapping(_) | Kind::Sequence(_) | Kind::Scalar { .. }, _) => write_value(item, indent, out),
        }
    }
}

/// Writes what follows a `:` or `-` at `indent`, with the line break at its end.
fn write_value(value: &Node, indent: usize, out: &mut String) {
    match &value.kind {
        Kind::Mapping(entries) if !entries.is_empty() => {
            write_collection_tag(value, out);
            write_entries(entries, indent + 2, false, out);
        }
        Kind::Sequence(items) if !items.is_empty() => {
            write_collection_tag(value, out);
            write_items(items, indent + 2, false, out);
        }
        Kind::Scalar { text, style: Style::Plain } if text.is_empty() && value.tag.is_none() => out.push('\n'),
        Kind::Mapping(_) | Kind::Sequence(_) | Kind::Scalar { .. } => {
            out.push(' ');
            write_single(value, indent, out);
            out.push('\n');
        }
    }
}

fn write_collection_tag(node: &Node, out: &mut String) {
    if let Some(tag) = &node.tag {
        out.push(' ');
        write_tag(tag, out);
    }
    out.push('\n');
}

/// Writes a scalar or an empty collection, its tag before it, without a line break behind it.
fn write_single(node: &Node, indent: usize, out: &mut String) {
    if let Some(tag) = &node.tag {
        write_tag(tag, out);
    }
    let (text, style) = match &node.kind {
        Kind::Scalar { text, style } => (&**text, style.fitting(text)),
        Kind::Sequence(_) => ("[]", Style::Plain),
        Kind::Mapping(_) => ("{}", Style::Plain),
    };
    if node.tag.is_some() && !(text.is_empty() && style == Style::Plain) {
        out.push(' ');
    }
    match style {
        Style::Plain => out.push_str(text),
        Style::SingleQuoted => write_single_quoted(text, out),
        Style::DoubleQuoted => write_double_quoted(text, out),
        Style::Literal => write_block('|', text, indent, out),
        Style::Folded => write_block('>', text, indent, out),
    }
}

/// Keys stay on one line.
fn write_key(key: &Node, out: &mut String) {
    let Kind::Scalar { text, style } = &key.kind else { return };
    if let Some(tag) = &key.tag {
        write_tag(tag, out);
        out.push(' ');
    }
    match style.fitting(text) {
        Style::Plain if !text.is_empty() => out.push_str(text),
        Style::SingleQuoted => write_single_quoted(text, out),
        Style::Plain | Style::DoubleQuoted | Style::Literal | Style::Folded => write_double_quoted(text, out),
    }
}

fn write_single_quoted(text: &str, out: &mut String) {
    out.push('\'');
    for (index, part) in text.split('\'').enumerate() {
        if index > 0 {
            out.push_str("''");
        }
        out.push_str(part);
    }
    out.push('\'');
}

fn write_double_quoted(text: &str, out: &mut String) {
    out.push('"');
    for one in text.chars() {
        match one {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            one if super::node::is_shown(one) => out.push(one),
            one => {
                let code = u32::from(one);
                let escape = match code {
                    0..=0xFF => format!("\\x{code:02X}"),
                    0x100..=0xFFFF => format!("\\u{code:04X}"),
                    _ => format!("\\U{code:08X}"),
                };
                out.push_str(&escape);
            }
        }
    }
    out.push('"');
}

/// Writes a block scalar that [`Style::fitting`] allows, without the line break at its end. The lines of folded text are folded
/// by nobody: each keeps its line, and each break within the text is written as one more break.
fn write_block(indicator: char, text: &str, indent: usize, out: &mut String) {
    let content = text.trim_end_matches('\n');
    let ends = text.len() - content.len();
    out.push(indicator);
    match ends {
        0 => out.push('-'),
        1 => {}
        _ => out.push('+'),
    }
    let mut after_text = false;
    for line in content.split('\n') {
        out.push('\n');
        if line.is_empty() {
            continue;
        }
        if indicator == '>' && after_text {
            out.push('\n');
        }
        push_spaces(indent + 2, out);
        out.push_str(line);
        after_text = true;
    }
    for _ in 1..ends {
        out.push('\n');
    }
}

/// Writes a tag with every character that is not plain in a URI as an escape.
fn write_tag(tag: &str, out: &mut String) {
    let (open, name, close) = if tag == "!" {
        ("!", "", "")
    } else if let Some(name) = tag.strip_prefix("!!") {
        ("!!", name, "")
    } else if let Some(uri) = tag.strip_prefix("!<").and_then(|rest| rest.strip_suffix('>')) {
        ("!<", uri, ">")
    } else {
        ("!", tag.strip_prefix('!').unwrap_or(tag), "")
    };
    out.push_str(open);
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~:/;?@&=+$*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out.push_str(close);
}

fn push_spaces(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::testing::{document, read};

    #[test]
    fn documents_are_written_as_people_write_them() {
        for (text, expected) in [
            ("{a: {b: [1, two], c: {}}, d: [], e: }", "a:\n  b:\n    - 1\n    - two\n  c: {}\nd: []\ne:\n"),
            ("- [a, [b]]\n- {c: 1, d: 2}\n-\n", "- - a\n  - - b\n- c: 1\n  d: 2\n-\n"),
            ("a: !x {b: 1}\nc: !y [!z 1]\n", "a: !x\n  b: 1\nc: !y\n  - !z 1\n"),
            ("a: 'it''s'\nb: \"q\\\"\\\\\\u2028\"\n", "a: 'it''s'\nb: \"q\\\"\\\\\\u2028\"\n"),
            ("a: |\n  x\n\n    y\n\n\nb: |-\n   x\nc: |+\n  x\n\n", "a: |\n  x\n\n    y\nb: |-\n  x\nc: |+\n  x\n\n"),
            ("a: >\n  x\n  y\n\n  z\nb: >-\n  x\n", "a: >\n  x y\n\n  z\nb: >-\n  x\n"),
            ("a:\n  one\n  two\n\n  three\n", "a: \"one two\\nthree\"\n"),
            ("a: !!str\nb: ! c\n", "a: !!str\nb: ! c\n"),
            ("a: !<tag:example.com,2000:x> 1", "a: !<tag:example.com%2C2000:x> 1\n"),
            ("plain", "plain\n"),
            ("'quoted'", "'quoted'\n"),
        ] {
            assert_eq!(emit(&read(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_would_mislead_a_reader_begins_no_line() {
        // Indented they are text, and have to be read again as that.
        for (text, written) in [
            (" <<<<<<< HEAD: 1\n b: 2\n", "? <<<<<<< HEAD\n: 1\nb: 2\n"),
            (" <<<<<<<:\n   c: 2\n", "? <<<<<<<\n:\n  c: 2\n"),
            (" version https://git-lfs.github.com/spec/v1: 1\n", "? version https://git-lfs.github.com/spec/v1\n: 1\n"),
            (" version https://git-lfs.github.com/spec/v1\n", "--- version https://git-lfs.github.com/spec/v1\n"),
            ("- <<<<<<<: 1\n", "- <<<<<<<: 1\n"),
        ] {
            let node = read(text);
            assert_eq!(emit(&node), written, "{text}");
            assert!(read(written).is_same(&node), "{text}");
        }
    }

    #[test]
    fn long_keys_are_written_as_explicit_keys() {
        let key = "k".repeat(1_500);
        let node = read(&format!("a:\n  ? {key}\n  : {{b: 1}}\n"));
        let text = emit(&node);
        assert_eq!(text, format!("a:\n  ? {key}\n  :\n    b: 1\n"));
        assert!(read(&text).is_same(&node));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(node in document()) {
            let text = emit(&node);
            let again = read(&text);
            prop_assert!(again.is_same(&node), "{text}\n{node:?}\n{again:?}");
            prop_assert_eq!(emit(&again), text);
        }
    }
}
