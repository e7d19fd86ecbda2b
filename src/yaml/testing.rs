//! Documents for the tests of this module: read from text, or made up at random.

use std::sync::Arc;

use proptest::prelude::*;

use crate::yaml::node::{Entry, Kind, Node, Style};
use crate::yaml::{Limits, Place, parse};

/// Reads a document that must be valid and not empty.
pub(crate) fn read(text: &str) -> Node {
    parse(&"test.yaml".into(), text.as_bytes(), &Limits::default())
        .unwrap_or_else(|errors| panic!("{text:?}: {errors:?}"))
        .unwrap_or_else(|| panic!("{text:?} is empty"))
}

fn place() -> Place {
    Place { file: Arc::from("made-up.yaml"), line: 1, column: 1 }
}

/// Equal but for the order of keys and the kind of quotes: written without the canonical form, to check it.
pub(crate) fn means_the_same(one: &Node, other: &Node) -> bool {
    one.tag == other.tag
        && match (&one.kind, &other.kind) {
            (Kind::Scalar { text, style }, Kind::Scalar { text: other, style: others }) => {
                text == other && style.is_quoted() == others.is_quoted()
            }
            (Kind::Sequence(items), Kind::Sequence(others)) => {
                items.len() == others.len() && items.iter().zip(others).all(|(one, other)| means_the_same(one, other))
            }
            (Kind::Mapping(entries), Kind::Mapping(others)) => {
                entries.len() == others.len()
                    && entries.iter().all(|entry| {
                        others.iter().any(|other| {
                            means_the_same(&entry.key, &other.key) && means_the_same(&entry.value, &other.value)
                        })
                    })
            }
            (Kind::Scalar { .. } | Kind::Sequence(_) | Kind::Mapping(_), _) => false,
        }
}

/// Texts that dialects, indicators and white space make interesting, and any others.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "", "a", "no", "on", "y", "012", "1e3", "~", "null", "22:30", "1_000", "2024-01-01", "<<", "0o12", ".inf", "=", "- a", "-",
            "#", "a #b", "a: b", "a:", " a", "a ", "'", "\"", "\\", "a\nb", "a\n\nb\n", "a\nb\n\n", "\na", " a\nb", "a\n b", "a\n\tb",
            "a \n b ", "\n", "---", "... x", "%a", "[", "{a", "*a", "&a", "!a", "|", ">", "@", "`", "?", "? a", "${env:X}", "é", "😀",
            "\u{85}", "\u{2028}", "\u{7}", "\t", "a\tb", "\r", "a\r\nb", "\u{feff}",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
        1 => "[ \\n\\ta#:'-]{0,12}",
    ]
}

fn style() -> impl Strategy<Value = Style> {
    prop::sample::select(vec![Style::Plain, Style::SingleQuoted, Style::DoubleQuoted, Style::Literal, Style::Folded])
}

fn tag() -> impl Strategy<Value = Option<Box<str>>> {
    prop_oneof![
        8 => Just(None),
        1 => prop::sample::select(vec!["!!str", "!!binary", "!x", "!", "!<tag:example.com,2000:x>"]).prop_map(|tag| Some(tag.into())),
    ]
}

fn scalar() -> impl Strategy<Value = Node> {
    (text(), style(), tag()).prop_map(|(text, style, tag)| Node { tag, ..Node::scalar(&text, style, place()) })
}

fn entries(values: Vec<(String, Style, Node)>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (text, style, value) in values {
        let style = match style {
            // An empty plain key has no place in a document, a plain `<<` merges, and keys are never blocks.
            Style::Plain if matches!(&*text, "" | "<<") => Style::DoubleQuoted,
            Style::Plain | Style::SingleQuoted | Style::DoubleQuoted => style,
            Style::Literal | Style::Folded => Style::DoubleQuoted,
        };
        if !entries.iter().any(|entry| entry.key.as_str() == Some(&text)) {
            entries.push(Entry { key: Node::scalar(&text, style, place()), value });
        }
    }
    entries
}

/// Any document whose root is a mapping.
pub(crate) fn document() -> impl Strategy<Value = Node> {
    let value = scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..5), tag())
                .prop_map(|(items, tag)| Node { tag, ..Node::sequence(items, place()) }),
            (prop::collection::vec((text(), style(), inner), 0..5), tag())
                .prop_map(|(values, tag)| Node { tag, ..Node::mapping(entries(values), place()) }),
        ]
    });
    prop::collection::vec((text(), style(), value), 0..6).prop_map(|values| Node::mapping(entries(values), place()))
}

/// A document in which a key's name says whether its value is a map, so that layers agree on it.
pub(crate) fn consistent_document() -> impl Strategy<Value = Node> {
    let key = |name: &'static str| (Just(name), prop::sample::select(vec!["a", "b", "c", "d"]));
    let leaf = prop::collection::vec((key("v"), scalar()), 0..4).prop_map(|values| {
        Node::mapping(
            entries(
                values
                    .into_iter()
                    .map(|((kind, name), value)| (format!("{kind}{name}"), Style::Plain, value))
                    .collect(),
            ),
            place(),
        )
    });
    leaf.prop_recursive(3, 30, 5, move |inner| {
        (prop::collection::vec((key("m"), inner), 0..4), prop::collection::vec((key("v"), scalar()), 0..3)).prop_map(
            |(maps, values)| {
                let all = maps.into_iter().chain(values);
                Node::mapping(
                    entries(all.map(|((kind, name), value)| (format!("{kind}{name}"), Style::Plain, value)).collect()),
                    place(),
                )
            },
        )
    })
}
