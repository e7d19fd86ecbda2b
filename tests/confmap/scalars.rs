//! The scalars that people really write into configurations, in every position that they can have.

/// The environment of the collector's side, for references in scalars.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("WORD", "word"),
    ("NUMBER", "0123"),
    ("FLAG", "true"),
    ("NOTHING", ""),
    ("LIST", "[1, two]"),
    ("MAP", "{a: 1, b: {c: 2}}"),
    ("TRICKY", "a: b # c"),
];

/// What stands in a scalar, before any quotes.
pub(crate) const TEXTS: &[&str] = &[
    // Booleans of one YAML or the other.
    "true",
    "True",
    "TRUE",
    "false",
    "False",
    "FALSE",
    "tRue",
    "yes",
    "Yes",
    "YES",
    "no",
    "No",
    "NO",
    "on",
    "On",
    "ON",
    "off",
    "Off",
    "OFF",
    "y",
    "Y",
    "n",
    "N",
    // Nothing.
    "",
    "~",
    "null",
    "Null",
    "NULL",
    "nil",
    "none",
    // Whole numbers.
    "0",
    "1",
    "-1",
    "+1",
    "00",
    "012",
    "0777",
    "08",
    "09",
    "-012",
    "+012",
    "0o12",
    "0O12",
    "-0o12",
    "0x1F",
    "0X1f",
    "-0x1F",
    "0b101",
    "-0b101",
    "0b2",
    "1_000",
    "1__0",
    "_1",
    "1_",
    "0_1",
    "0x_1F",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890",
    "1,000",
    "1 000",
    "4_294_967_296",
    "0.0.0.0",
    // Others.
    "1.0",
    "1.",
    ".5",
    "0.1",
    "-0.0",
    "+.5",
    "1e3",
    "1E3",
    "1e+3",
    "1e-3",
    "1.5e3",
    "1e400",
    "12e03",
    "-2E+05",
    "1_0.5",
    ".inf",
    "-.inf",
    "+.inf",
    ".Inf",
    ".INF",
    ".nan",
    ".NaN",
    ".NAN",
    "inf",
    "nan",
    "NaN",
    "Infinity",
    "0x1p-2",
    ".",
    "..",
    "+",
    "-1-",
    "1e",
    "e3",
    "0.1.2",
    // Times.
    "22:30",
    "12:30:45",
    "1:2",
    "190:20:30",
    "2024-01-01",
    "2024-1-1",
    "2024-01-01T00:00:00Z",
    "2024-01-01t00:00:00.5+02:00",
    "2024-01-01 12:30:45",
    "2024-01-01 12:30:45 +1",
    "2024-13-45",
    "2024-01",
    "20240101",
    "30s",
    "5m",
    "1h30m",
    "100ms",
    "1.5h",
    "2d",
    // What stands in configurations of collectors.
    "0.0.0.0:4317",
    "localhost:4318",
    ":8888",
    "[::]:4317",
    "::1",
    "http://otel:4318/v1/traces",
    "unix:///var/run/otel.sock",
    "1GiB",
    "512MiB",
    "50%",
    "gzip",
    "a/b",
    "otlp/2",
    "*.example.com",
    "C:\\Program Files\\x",
    "\\d+\\s*",
    "^(?P<a>[a-z]+)$",
    "a & b",
    "a | b",
    "key=value, other=value",
    "Bearer abc==",
    "YWJj",
    "{{ .Name }}",
    "%Y-%m-%d",
    "attributes[\"a\"] == \"b\"",
    "IsMatch(name, \"x.*\") and kind == 1",
    "@every 5m",
    "#fff",
    "a #b",
    "a#b",
    "a: b",
    "a:b",
    "- a",
    "-",
    "?",
    "? a",
    ":",
    "!",
    "!a",
    "&a",
    "*a",
    "|",
    ">",
    "'",
    "\"",
    "''",
    "it's",
    "`",
    "@",
    "%",
    ",",
    "[",
    "]",
    "{",
    "}",
    "[]",
    "{}",
    "<<",
    "=",
    "...",
    "---",
    "--- a",
    "-- a",
    "~a",
    "null a",
    "\\",
    "a\\",
    "\\n",
    "a  b",
    " a",
    "a ",
    "  ",
    // References.
    "${env:WORD}",
    "${env:NUMBER}",
    "${env:FLAG}",
    "${env:NOTHING}",
    "${env:LIST}",
    "${env:MAP}",
    "${env:UNSET}",
    "${env:UNSET:-0x1F}",
    "${WORD}",
    "$WORD",
    "$${env:WORD}",
    "$$${env:WORD}",
    "$$",
    "a-${env:WORD}-b",
    "${env:WORD}:${env:NUMBER}",
    "${yaml:{a: 012}}",
    "${yaml:012}",
    "${env:TRICKY}",
    "$",
    "${",
    "}",
    "$1",
    // Letters of all kinds.
    "é",
    "日本語",
    "😀",
    "\u{a0}",
    "a\u{a0}b",
    "ﷺ",
    "\u{200b}",
    "\u{e000}",
    "\u{fffd}",
    "Ω≈ç√",
    // Several lines, tabs.
    "a\nb",
    "a\n\nb",
    "a\nb\n",
    "a\n\n",
    "\na",
    "a\n b\nc",
    "  a\nb",
    "\n",
    "a\tb",
    "\ta",
    "a\t",
    "a\n\tb",
    "a\r\nb",
    "a \nb",
    "a\n\n\n b\n\n",
];

/// Whether this stands for itself without quotes, in block or in flow style.
pub(crate) fn is_plain(text: &str, flow: bool) -> bool {
    let structure = |one: char| matches!(one, ',' | '[' | ']' | '{' | '}');
    !text.is_empty()
        && !text.starts_with([
            ' ', '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', '\t',
        ])
        && !text.ends_with([' ', ':'])
        && !["---", "..."].iter().any(|mark| text.starts_with(mark))
        && !text.contains(['\n', '\r', '\t'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !(flow && text.contains(structure))
}

/// `"..."`
pub(crate) fn double_quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|one| match one {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            one => one.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// `'...'`, of a text of one line.
pub(crate) fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The text in every way to write it, also where it means something else then, or nothing.
fn ways(text: &str) -> Vec<String> {
    let mut all = vec![text.to_owned(), double_quoted(text), format!("!!str {text}"), format!("!x {text}")];
    if !text.contains(['\n', '\r']) {
        all.push(single_quoted(text));
    }
    for header in ["|", "|-", "|+", ">", ">-", ">+"] {
        all.push(format!("{header}\n    {}", text.replace('\n', "\n    ")));
    }
    all
}

/// A document for each scalar, each way to write it, and each position.
pub(crate) fn documents() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for text in TEXTS {
        for written in ways(text) {
            let key = written.replace('\n', "\n ");
            for (base, over) in [
                (format!("k: {written}\n"), "l: 1\n".to_owned()),
                (format!("k: {written}"), "l: 1".to_owned()),
                ("k: {a: 1}\n".to_owned(), format!("k: {written}\n")),
                (format!("k: {written}\n"), "k: {a: 1}\n".to_owned()),
                ("k: [1]\n".to_owned(), format!("k:\n  - {written}\n  - {written}\n")),
                (format!("k: {{a: {written}, b: 1}}\n"), "k: {b: 2}\n".to_owned()),
                (format!("k: [a, {written}, b]\n"), "l: 1\n".to_owned()),
                (format!("k: # comment\n  {written}\n"), "l: 1 # c\n".to_owned()),
                (format!("k:\n  {key}: 1\n  other: 2\n"), "k: {x: 1}\n".to_owned()),
                (format!("{key}: 1\nother: 2\n"), "other: 1\n".to_owned()),
                (format!("k: &a {written}\nl: *a\n"), "m: [1]\n".to_owned()),
                (format!("k: {{<<: {{a: {written}}}, b: 2}}\n"), "k: {c: 1}".to_owned()),
            ] {
                all.push(vec![base, over]);
            }
        }
    }
    all
}
