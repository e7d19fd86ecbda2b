//! Pages of the documentation that tests hold: tables, and the tests that they name.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path;

/// A row of a table: its cells, without the space around them.
pub(crate) fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(inner.split(" |").map(str::trim).collect())
}

/// The tests that a cell names: `file::function` between backticks.
pub(crate) fn tests_in(cell: &str) -> Vec<(&str, &str)> {
    let spans = cell.split('`').skip(1).step_by(2);
    spans.filter_map(|span| span.split_once("::")).filter(|(file, _)| file.ends_with(".rs")).collect()
}

/// The files that are no sources and that a cell names: scripts of scenarios.
pub(crate) fn files_in(cell: &str) -> impl Iterator<Item = &str> {
    let spans = cell.split('`').skip(1).step_by(2);
    spans.filter(|span| !span.contains("::") && ["src/", "tests/", "docs/"].iter().any(|start| span.starts_with(start)))
}

/// True when this source has a test of this name: a function under an attribute that ends in `test`, one within `proptest!`,
/// or a name in the list of a macro that makes a test of each (`transcripts!(...)`, `scenarios!(...)`).
pub(crate) fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let starts = |line: &str| {
        ["fn ", "async fn "].iter().any(|start| {
            line.strip_prefix(start).and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
        })
    };
    if let Some(at) = lines.iter().position(|line| starts(line)) {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        let is_marked = above.clone().any(|line| line.ends_with("test]") || line.contains("test("));
        let is_ignored = above.clone().any(|line| line.starts_with("#[ignore"));
        let is_property = lines[..at].iter().any(|line| line.ends_with("proptest! {"));
        return (is_marked || is_property) && !is_ignored;
    }
    source.split("!(").skip(1).filter_map(|rest| rest.split(");").next()).any(|list| {
        let words: Vec<&str> = list.split(',').map(str::trim).collect();
        words.iter().all(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) && words.contains(&name)
    })
}

/// A file of the repository.
pub(crate) fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

#[test]
fn tests_are_told_from_other_functions() {
    let source = "#[test]\nfn one() {}\nfn helper() {}\n#[test]\n#[ignore = \"slow\"]\nfn ignored() {}\n\
                  proptest! {\n/// Any.\nfn any(x in 0..2) {}\n}\nplayed!(first,\n second);\n";
    for (name, is_there) in [
        ("one", true),
        ("helper", false),
        ("ignored", false),
        ("any", true),
        ("first", true),
        ("second", true),
        ("on", false),
        ("third", false),
    ] {
        assert_eq!(has_test(source, name), is_there, "{name}");
    }
}
