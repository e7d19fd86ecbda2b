//! The frozen canonical form of a document and its hash, by which fleets tell configurations apart.

use sha2::{Digest, Sha256};

use crate::config::ConfigHash;
use crate::yaml::node::{Kind, Node};

/// What every canonical form starts with. Another form gets another name here, and the old one stays for hashes in use.
const VERSION: &[u8] = b"gitamp/config/v1\n";

/// SHA-256 over the canonical form.
///
/// It ignores the order of keys, comments, places, indentation, flow or block style, and whether a value was written out or came
/// from an anchor or a merge key. Everything else counts: the exact text of scalars and keys, whether they are quoted (the two
/// kinds of quotes and the two kinds of block scalars are the same: all make a string of any text), tags, the order of lists.
///
/// The form is frozen: a release that changed it would restart every agent of every fleet. In it
/// - a tag is `t`, its length in decimal, `:`, its bytes, before the node that has it;
/// - a plain scalar is `p`, a quoted one `q`, then length, `:` and bytes of the text;
/// - a sequence is `[`, its items, `]`;
/// - a mapping is `{`, each key followed by its value, keys in the order of the bytes of their texts, `}`.
pub fn config_hash(node: &Node) -> ConfigHash {
    let mut form = Vec::with_capacity(4096);
    form.extend_from_slice(VERSION);
    write(node, &mut form);
    ConfigHash::new(Sha256::digest(&form).into())
}

fn write(node: &Node, form: &mut Vec<u8>) {
    if let Some(tag) = &node.tag {
        write_text(b't', tag, form);
    }
    match &node.kind {
        Kind::Scalar { text, style } => write_text(if style.is_quoted() { b'q' } else { b'p' }, text, form),
        Kind::Sequence(items) => {
            form.push(b'[');
            for item in items {
                write(item, form);
            }
            form.push(b']');
        }
        Kind::Mapping(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|one, other| one.key.as_str().cmp(&other.key.as_str()));
            form.push(b'{');
            for entry in sorted {
                write(&entry.key, form);
                write(&entry.value, form);
            }
            form.push(b'}');
        }
    }
}

fn write_text(kind: u8, text: &str, form: &mut Vec<u8>) {
    form.push(kind);
    form.extend_from_slice(text.len().to_string().as_bytes());
    form.push(b':');
    form.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::emit;
    use crate::yaml::node::{Entry, Style};
    use crate::yaml::testing::{document, means_the_same, read};

    fn hash(text: &str) -> String {
        config_hash(&read(text)).to_string()
    }

    /// No later release may change these: an agent that runs one of these configurations would be restarted for nothing. If
    /// this test fails, the code is wrong, never the table.
    #[test]
    fn golden_hashes() {
        for (text, expected) in GOLDEN {
            assert_eq!(hash(text), *expected, "{text}");
        }
    }

    const GOLDEN: &[(&str, &str)] = &[
        ("{}", "71c39eb3a9e9ec90b421fce764fe63e0b17e7e86e750fa17966e4fb8a15a863a"),
        ("a: 012", "e96d783b0272850bc4385fce1a1c0933f1af84fe3443634e1a61d85468fb9884"),
        ("a: '012'", "b6a146b7c33148399bead71175c27d39b050619a1719220a98606de003ccc6e4"),
        ("\"a\":", "45f257995a57142161e2a8295422ca042cb4e3557aa9f40a51e30aaecf7a5d5a"),
        (
            "b: !x [1, \"2\", ~]\na: {c: 'é', d: {}}\n",
            "17ac9ca3c0d7a6a19af2ec5fb55dce7d1b2d5c1811a123275ec19962850a69e9",
        ),
        (
            "a: |\n  one\n  two\n\nb: >-\n  one\n  two\nc: !!binary aGk=\n",
            "ff07a869e59235a72c203187452418fd2872dce153907c85c1e5dee4cd879c09",
        ),
        (
            "receivers: {otlp: {protocols: {grpc: {endpoint: 0.0.0.0:4317}}}}\nexporters: {debug: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n",
            "a0fe70759a87d1f80ba57e75f476ce8e36887278206466e265d086b89c2b24d2",
        ),
    ];

    #[test]
    fn the_form_is_what_the_documentation_says() {
        let mut form = Vec::new();
        write(&read("b: !x [1, \"2\", ~]\na: |\n  é\nc: {d: }\n"), &mut form);
        assert_eq!(String::from_utf8_lossy(&form), "{p1:aq3:é\np1:bt2:!x[p1:1q1:2p1:~]p1:c{p1:dp0:}}");
    }

    #[test]
    fn what_does_not_change_the_meaning_does_not_change_the_hash() {
        let base = "receivers:\n  otlp:\n    endpoint: 'a'\n    on: [x, 1]\n";
        for (text, why) in [
            ("# hi\nreceivers: # there\n  otlp:\n    endpoint: 'a'\n    on: [x, 1]\n", "comments"),
            ("receivers:\n  otlp:\n    on: [x, 1]\n    endpoint: 'a'\n", "order of keys"),
            ("receivers: {otlp: {endpoint: 'a', on: [x, 1]}}", "flow style"),
            ("receivers:\n      otlp:\n        endpoint: 'a'\n        on:\n        - x\n        - 1", "indentation"),
            ("receivers:\r\n  otlp:\r\n    endpoint: 'a'\r\n    on: [x, 1]\r\n", "Windows line ends"),
            (
                "\u{feff}---\nreceivers:\n  otlp:\n    endpoint: 'a'\n    on: [x, 1]\n...\n",
                "marks of byte order and document",
            ),
            ("receivers:\n  otlp:\n    endpoint: \"a\"\n    on: [x, 1]\n", "the other quotes"),
            ("receivers:\n  otlp:\n    endpoint: |-\n      a\n    on: [x, 1]\n", "a block scalar of the same text"),
            ("receivers:\n  otlp:\n    endpoint: &a 'a'\n    on: [x, 1]\n", "an anchor"),
            ("receivers:\n  otlp:\n    <<: {on: [x, 1]}\n    endpoint: 'a'\n", "a merge key"),
        ] {
            assert_eq!(hash(text), hash(base), "{why}");
        }
    }

    #[test]
    fn what_may_change_the_meaning_changes_the_hash() {
        let all = [
            "a: 012",
            "a: '012'",
            "a: 12",
            "a: 10",
            "a: !!str 012",
            "a: !x 012",
            "a: [012]",
            "a: {b: 012}",
            "a: {012: }",
            "b: 012",
            "a: [012, 012]",
            "a:",
            "a: ''",
            "a: ~",
            "a: null",
            "a: []",
            "a: {}",
            "a: no",
            "a: 'no'",
            "a: No",
            "'a': 012",
            "a: [1, 2]",
            "a: [2, 1]",
            "a: [[1], 2]",
            "a: [[1, 2]]",
            "a: x\nb: y",
            "a: 'x'\nb: y",
            "a: \" 012\"",
            "a: \"012\\n\"",
            "{}",
            "[]",
        ];
        let mut hashes: Vec<(String, &str)> = all.iter().map(|text| (hash(text), *text)).collect();
        hashes.sort();
        for pair in hashes.windows(2) {
            assert_ne!(pair[0].0, pair[1].0, "{} and {}", pair[0].1, pair[1].1);
        }
    }

    fn reversed(node: &Node) -> Node {
        let kind = match &node.kind {
            Kind::Mapping(entries) => Kind::Mapping(
                entries
                    .iter()
                    .rev()
                    .map(|entry| Entry { key: entry.key.clone(), value: reversed(&entry.value) })
                    .collect(),
            ),
            Kind::Sequence(items) => Kind::Sequence(items.iter().map(reversed).collect()),
            Kind::Scalar { .. } => node.kind.clone(),
        };
        Node { kind, tag: node.tag.clone(), place: node.place.clone() }
    }

    /// Changes the node that is `at` steps from the start: its text, its quotes, its tag, or the order of its items.
    fn alter(node: &mut Node, at: &mut usize, change: usize) {
        if *at == 0 {
            match (change, &mut node.kind) {
                (0, Kind::Scalar { text, style: _ }) => *text = format!("{text}x").into(),
                (1, Kind::Scalar { text, style }) => {
                    let quoted = if style.is_quoted() { Style::Plain } else { Style::SingleQuoted };
                    *style = quoted.fitting(text);
                }
                (2, Kind::Sequence(items)) => items.reverse(),
                (3, Kind::Mapping(entries)) => drop(entries.pop()),
                (_, Kind::Scalar { .. } | Kind::Sequence(_) | Kind::Mapping(_)) => {
                    node.tag = if node.tag.is_some() { None } else { Some("!altered".into()) };
                }
            }
        }
        *at = at.wrapping_sub(1);
        match &mut node.kind {
            Kind::Sequence(items) => items.iter_mut().for_each(|item| alter(item, at, change)),
            Kind::Mapping(entries) => entries.iter_mut().for_each(|entry| alter(&mut entry.value, at, change)),
            Kind::Scalar { .. } => {}
        }
    }

    fn commented(text: &str) -> String {
        // Indented and empty lines may belong to a block scalar; what would stand there would be text.
        let above = |line: &str| if line.is_empty() || line.starts_with(' ') { "" } else { "# x\n" };
        text.split('\n').map(|line| format!("{}{line}", above(line))).collect::<Vec<_>>().join("\n")
    }

    proptest! {
        #[test]
        fn the_hash_ignores_order_and_comments(node in document()) {
            prop_assert_eq!(config_hash(&node), config_hash(&reversed(&node)));
            prop_assert_eq!(config_hash(&node), config_hash(&read(&commented(&emit(&node)))));
        }

        #[test]
        fn the_hash_ignores_nothing_else(node in document(), at in 0..60_usize, change in 0..4_usize) {
            let mut other = reversed(&node);
            alter(&mut other, &mut { at }, change);
            prop_assert_eq!(config_hash(&node) == config_hash(&other), means_the_same(&node, &other));
        }
    }
}
