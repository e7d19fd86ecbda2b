//! What is read, as whom, and what is refused where.

use proptest::prelude::*;

use super::*;
use crate::yaml::emit;
use crate::yaml::testing::read;

fn errors(text: &str) -> Vec<YamlError> {
    match parse(&"f.yaml".into(), text.as_bytes(), &Limits::default()) {
        Ok(node) => panic!("{text:?} was read as {node:?}"),
        Err(errors) => errors,
    }
}

#[test]
fn scalars_keep_their_text_and_style() {
    // What go.yaml.in/yaml/v3 makes of each plain one, for the reader of this table, is in the third column.
    for (written, text, _go) in [
        ("no", "no", "string, and false where a boolean is wanted"),
        ("on", "on", "string, and true where a boolean is wanted"),
        ("y", "y", "string, and true where a boolean is wanted"),
        ("012", "012", "int 10"),
        ("0o12", "0o12", "int 10"),
        ("08", "08", "float 8"),
        ("1e3", "1e3", "float 1000"),
        ("~", "~", "null"),
        ("22:30", "22:30", "string"),
        ("1_000", "1_000", "int 1000"),
        ("2024-01-01", "2024-01-01", "time"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z", "time"),
        (".inf", ".inf", "float"),
        (".nan", ".nan", "float"),
        ("=", "=", "string"),
        ("<<", "<<", "string, as a value"),
        ("0x1F", "0x1F", "int 31"),
        ("+1", "+1", "int 1"),
        ("True", "True", "bool"),
        ("18446744073709551615", "18446744073709551615", "uint64"),
        ("${env:X}", "${env:X}", "string, resolved by confmap"),
        ("a, b] {c}", "a, b] {c}", "string"),
    ] {
        let node = read(&format!("k: {written}"));
        let value = node.get("k").expect("the key is there");
        assert_eq!(value.as_plain(), Some(text), "{written}");
        assert_eq!(emit(&node), format!("k: {written}\n"));
        let quoted = read(&format!("k: '{written}'"));
        let value = quoted.get("k").expect("the key is there");
        assert_eq!((value.as_str(), value.as_plain(), value.is_null()), (Some(text), None, false), "'{written}'");
    }
}

#[test]
fn block_scalars_at_the_end_of_a_file_are_what_the_collector_reads() {
    // Each row was compared with go.yaml.in/yaml/v3 v3.0.6: it never adds a line break that the file does not have.
    for (text, expected) in [
        ("k: |\n  a\n", "a\n"),
        ("k: |\n  a", "a"),
        ("k: |+\n  a", "a"),
        ("k: |-\n  a\n", "a"),
        ("k: |\n  a\n  ", "a\n"),
        ("k: |\n  a\n    ", "a\n  "),
        ("k: |\n  a\n\n    ", "a\n\n  "),
        ("k: |+\n  a\n\n", "a\n\n"),
        ("k: |\n  a\n# c", "a\n"),
        ("k: |\n  a\n  # c", "a\n# c"),
        ("k: >\n  a\n  b", "a b"),
        ("k: |+\n", ""),
        ("k: |+\n  ", ""),
        ("k: |+\n\n", "\n"),
        ("k: |+\n\n  ", "\n"),
        ("k: |\r\n  a\r\n  b", "a\nb"),
    ] {
        let node = read(text);
        assert_eq!(node.get("k").and_then(Node::as_str), Some(expected), "{text:?}");
        assert!(read(&emit(&node)).is_same(&node), "{text:?}");
    }
}

#[test]
fn tags_are_kept_in_one_spelling() {
    for (text, tag) in [
        ("!!binary aGk=", Some("!!binary")),
        ("!<tag:yaml.org,2002:str> 1", Some("!!str")),
        ("!local 1", Some("!local")),
        ("!<!local> 1", Some("!local")),
        ("!<tag:example.com,2000:x> 1", Some("!<tag:example.com,2000:x>")),
        ("! 1", Some("!")),
        ("1", None),
    ] {
        let node = read(&format!("k: {text}"));
        assert_eq!(node.get("k").and_then(|value| value.tag.as_deref()), tag, "{text}");
        assert!(read(&emit(&node)).is_same(&node), "{text}");
    }
    let node = read("%TAG !e! tag:example.com,2000:\n---\nk: !e!x 1\n");
    assert_eq!(node.get("k").and_then(|value| value.tag.as_deref()), Some("!<tag:example.com,2000:x>"));
}

#[test]
fn merge_keys_and_aliases_are_what_the_collector_reads() {
    // Each row was compared with go.yaml.in/yaml/v3 v3.0.6.
    for (text, expected, why) in [
        ("{x: &x {a: 1}, z: {<<: *x, b: 2}}", "{x: {a: 1}, z: {a: 1, b: 2}}", "an alias"),
        ("{x: &x {a: 1}, z: {b: 2, <<: *x}}", "{x: {a: 1}, z: {a: 1, b: 2}}", "wherever it stands"),
        ("{x: &x {a: 1}, z: {<<: *x, a: 2}}", "{x: {a: 1}, z: {a: 2}}", "own keys win"),
        ("{z: {<<: {a: 1}, b: 2}}", "{z: {a: 1, b: 2}}", "a map in place"),
        ("{z: {<<: [{a: 1, b: 1}, {a: 2, c: 2}]}}", "{z: {c: 2, a: 1, b: 1}}", "of several the first wins"),
        ("{x: &x {<<: {a: 1, b: 1}, a: 2}, z: {<<: *x}}", "{x: {b: 1, a: 2}, z: {b: 1, a: 2}}", "merges within merges"),
        ("{z: {<<: {a: {b: 1}}, a: {c: 2}}}", "{z: {a: {c: 2}}}", "values are not merged"),
        ("{z: {\"<<\": 1}}", "{z: {\"<<\": 1}}", "quoted it is a key like others"),
        ("{z: {!!str <<: 1}}", "{z: {!!str \"<<\": 1}}", "so it is with a tag"),
        ("{z: {!!merge <<: {a: 1}}}", "{z: {a: 1}}", "unless the tag says so"),
        ("{z: [<<]}", "{z: [<<]}", "as a value it is text"),
        ("{a: &x 1, *x : b}", "{a: 1, 1: b}", "an alias as a key"),
        ("{a: &x [1], b: [*x, *x]}", "{a: [1], b: [[1], [1]]}", "lists are repeated"),
        ("{a: &x 1, b: &x 2, c: *x}", "{a: 1, b: 2, c: 2}", "the last anchor of a name counts"),
        ("{z: {<<: {200: a, 012: b}, c: d}}", "{z: {\"200\": a, \"012\": b, c: d}}", "all keys are text beside text"),
        ("{z: {<<: {200: a}, 404: d}}", "{z: {200: a, 404: d}}", "and stay what they are beside others"),
        ("{x: &x {}, z: {<<: *x}}", "{x: {}, z: {}}", "an empty map adds nothing"),
    ] {
        let node = read(text);
        let expected = match expected.contains("!!str \"<<\"") {
            true => {
                assert_eq!(emit(&node), "z:\n  !!str <<: 1\n", "{why}");
                continue;
            }
            false => read(expected),
        };
        assert!(node.is_same(&expected), "{why}: {}", emit(&node));
    }
}

#[test]
fn findings_have_places_and_advice() {
    for (text, line, column, message, why) in [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "the key `a` is here twice, first at 1:1", "duplicate"),
        ("a: 1\n\"a\": 3\n", 2, 1, "first at 1:1", "quoted and plain are one key, as the collector has it"),
        ("r:\n  x: {p: 1, q: 2, p: 3}\n", 2, 19, "first at 2:7", "in flow style"),
        ("<<: {a: 1}\n<<: {b: 1}\n", 2, 1, "the key `<<` is here twice", "two merge keys"),
        ("{<<: 1}", 1, 6, "takes a map", "a merge of no map"),
        ("{<<: [{a: 1}, 2]}", 1, 15, "takes a map", "in a list"),
        ("x: &x [{a: 1}]\nz: {<<: *x}", 1, 7, "takes a map", "an alias of a list, which the collector refuses"),
        ("a: 1\n---\nb: 2\n", 2, 1, "a second document", "documents"),
        ("a: 1\n---\n", 2, 1, "a second document", "even an empty one"),
        ("[a, b]: 1\n", 1, 1, "a list cannot be a key", "complex keys"),
        ("? {a: 1}\n: 1\n", 1, 3, "a map cannot be a key", "complex keys"),
        (": 1\n", 1, 1, "a key is missing", "no key"),
        ("a: *b\n", 1, 4, "names no anchor", "unknown alias"),
        ("a: &a [*a]\n", 1, 8, "inside what it names", "an alias of itself"),
        ("a:\n\tb: 1\n", 2, 1, "tab", "tabs"),
        ("a:\n  b: 1\n\tc: 1\n", 3, 1, "tab", "tabs further down"),
        ("a: [${env:X}]\n", 1, 6, "even behind a `$`", "references in flow lists"),
        ("a: {b: ${env:X}}\n", 1, 9, "even behind a `$`", "references in flow maps"),
        ("a: [x, ${env:X}, y]\n", 1, 9, "even behind a `$`", "between others"),
        ("a: {nop:, b: 1}\n", 1, 5, "a space is missing behind the `:`", "a colon that the collector takes for text"),
        ("a: {b: 1, nop:}\n", 1, 11, "a space is missing behind the `:`", "at the end"),
        ("a: [b:]\n", 1, 5, "a space is missing behind the `:`", "in a list"),
        ("a: [!x, b]\n", 1, 7, "a space is missing behind this tag", "a comma that the collector takes for a tag"),
        ("a: {endpoint: :8888}\n", 1, 15, "needs quotes", "a colon that the collector takes for a key's end"),
        ("a: &a {\"200\": 1}\nb: {<<: *a, 200: 2}\n", 1, 8, "no text in another, at 2:13", "merged keys"),
        ("a: \"x\n", 2, 1, "ends within a quoted text", "an open quote"),
        ("a: \"x\nb: 1\n", 2, 1, "started above", "an open quote with lines below"),
    ] {
        let found = errors(text);
        let error = &found[0];
        assert!(error.message.contains(message), "{why}: {error}");
        assert_eq!((error.place.line, error.place.column), (line, column), "{why}: {error}");
    }
}

#[test]
fn findings_that_do_not_hide_others_come_together() {
    let found = errors("a: 1\na: 2\nb: {c: 1, c: 2, c: 3}\n? [x]\n: 1\n<<: 2\n");
    let lines: Vec<u32> = found.iter().map(|error| error.place.line).collect();
    assert_eq!(lines, [2, 3, 3, 4, 6], "{found:?}");
    let many = errors(&"a: 1\n".repeat(1_000));
    assert_eq!(many.len(), MOST_ERRORS, "who has more has one cause");
}

#[test]
fn a_document_without_content_is_nothing() {
    for text in
        ["", "\n\n", "# only a comment\n", "---\n", "--- # x\n...\n", "~", "null", "!!null x", "\u{feff}", "  \n"]
    {
        let node = parse(&"f.yaml".into(), text.as_bytes(), &Limits::default()).expect("no error");
        assert!(node.is_none(), "{text:?}");
    }
    for text in ["{}", "[]", "''", "a", "false"] {
        read(text);
    }
}

#[test]
fn places_are_those_of_the_file() {
    let node = read("\u{feff}# é\na:\n  - é: 'x'\n    b: \"y\"\nc: &c {d: 1}\ne: *c\n");
    for (path, line, column) in [(&["c", "d"][..], 5, 11), (&["e", "d"], 5, 11), (&["a"], 3, 3)] {
        let place = &node.at(path).expect("it is there").place;
        assert_eq!((place.line, place.column), (line, column), "{path:?}");
    }
    let item = &node.get("a").and_then(Node::as_sequence).expect("a list")[0];
    assert_eq!((item.entry("b").expect("b").key.place.line, item.entry("b").expect("b").key.place.column), (4, 5));
    assert_eq!(
        (item.get("é").expect("é").place.line, item.get("é").expect("é").place.column),
        (3, 8),
        "characters, not bytes"
    );
}

/// A list of ten, ten of these, and so on: 10^10 values from 500 bytes.
fn bomb(leaf: &str) -> String {
    let mut text = format!("a0: &a0 [{leaf}]\n");
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    text
}

#[test]
fn bombs_are_refused() {
    let long = "x".repeat(100_000);
    for (text, message, why) in [
        (bomb("x"), "more than 100000 values", "aliases of aliases"),
        (format!("a: &a {long}\nb: [{}]", vec!["*a"; 90_000].join(",")), "bytes of text", "a long text repeated"),
        ("[".repeat(100_000), "deeper than 64", "nested lists"),
        ("{a: ".repeat(100_000), "deeper than 64", "nested maps"),
        ("- ".repeat(100_000), "deeper than 64", "nested block lists"),
        (format!("a: [{}]", vec!["1"; 200_000].join(",")), "more than 100000 values", "many values"),
        (
            format!("a: &a {}1{}\nb: {}*a{}", "[".repeat(40), "]".repeat(40), "[".repeat(40), "]".repeat(40)),
            "deeper than 64",
            "depth through an alias",
        ),
        (
            format!(
                "{}[{}]{}",
                (0..60).map(|level| format!("&a{level} [")).collect::<String>(),
                vec!["1"; 50_000].join(","),
                "]".repeat(60)
            ),
            "more than 100000 values",
            "nested anchors",
        ),
    ] {
        let found = errors(&text);
        assert!(found[0].message.contains(message), "{why}: {}", found[0]);
    }
}

#[test]
fn many_keys_are_checked_without_comparing_each_with_each() {
    let text: String = (0..40_000).map(|key| format!("k{key}: 1\n")).collect();
    assert_eq!(read(&text).as_mapping().map(<[_]>::len), Some(40_000));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Err(errors) = parse(&"f.yaml".into(), &bytes, &Limits::default()) {
            prop_assert!(!errors.is_empty());
        }
    }

    #[test]
    fn random_yaml_never_panics(text in "[a-c \\n\\t:\\-\\[\\]{},&*!|>'\"%@#?<~0-9.$]{0,200}") {
        if let Ok(Some(node)) = parse(&"f.yaml".into(), text.as_bytes(), &Limits::default()) {
            let again = emit(&node);
            prop_assert!(read(&again).is_same(&node), "{text:?}\n{again}");
        }
    }
}
