//! Holds `docs/opamp-conformance.md` against the tests: every statement stands there once, and every test that it names exists.

use std::collections::BTreeMap;
use std::path::Path;

/// How many statements each letter has.
const STATEMENTS: &[(char, usize)] = &[
    ('T', 7),
    ('F', 7),
    ('S', 11),
    ('I', 7),
    ('C', 6),
    ('R', 17),
    ('H', 5),
    ('D', 6),
    ('E', 8),
    ('N', 10),
    ('P', 5),
    ('X', 3),
    ('U', 4),
    ('A', 3),
    ('V', 1),
];

/// Tests that need programs which not every machine has: no statement may rest on them alone.
const MAY_BE_SKIPPED: &[&str] = &["tests/supervisor.rs", "tests/opamp_go_client.rs", "tests/confmap.rs"];

/// A row of a table: its cells, without the space around them.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(inner.split(" | ").map(str::trim).collect())
}

/// `T12`: a capital letter and a number.
fn is_id(cell: &str) -> bool {
    let mut letters = cell.chars();
    letters.next().is_some_and(|letter| letter.is_ascii_uppercase())
        && cell.len() > 1
        && letters.all(|digit| digit.is_ascii_digit())
}

/// The tests that a cell names: `file::function` between backticks.
fn tests_in(cell: &str) -> Vec<(&str, &str)> {
    let spans = cell.split('`').skip(1).step_by(2);
    spans.filter_map(|span| span.split_once("::")).filter(|(file, _)| file.ends_with(".rs")).collect()
}

/// The files that are no sources and that a cell names: scripts of scenarios.
fn files_in(cell: &str) -> impl Iterator<Item = &str> {
    let spans = cell.split('`').skip(1).step_by(2);
    spans.filter(|span| !span.contains("::") && ["src/", "tests/", "docs/"].iter().any(|start| span.starts_with(start)))
}

/// True when this source has a test of this name: a function under an attribute that ends in `test`, one within `proptest!`,
/// or a name in the list of a macro that makes a test of each (`transcripts!(...)`, `scenarios!(...)`).
fn has_test(source: &str, name: &str) -> bool {
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

/// What is wrong with the page.
fn findings(page: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let (mut wrong, mut seen) = (Vec::new(), BTreeMap::new());
    for (index, line) in page.lines().enumerate() {
        let Some(cells) = cells(line).filter(|cells| is_id(cells[0])) else { continue };
        let at = format!("line {} ({})", index + 1, cells[0]);
        let [id, _, state, shown] = cells[..] else {
            wrong.push(format!("{at}: a row has four cells"));
            continue;
        };
        if let Some(before) = seen.insert(id.to_owned(), index + 1) {
            wrong.push(format!("{at}: stands in line {before} already"));
        }
        let tests = tests_in(shown);
        for (file, name) in &tests {
            match read(file) {
                None => wrong.push(format!("{at}: there is no file {file}")),
                Some(source) if !has_test(&source, name) => wrong.push(format!("{at}: {file} has no test {name}")),
                Some(_) => {}
            }
        }
        let absent = files_in(shown).filter(|file| read(file).is_none());
        wrong.extend(absent.map(|file| format!("{at}: there is no file {file}")));
        match state {
            "implemented" if tests.iter().all(|(file, _)| MAY_BE_SKIPPED.contains(file)) => {
                wrong.push(format!("{at}: names no test that runs everywhere"));
            }
            "not announced" | "not applicable" | "not followed" if shown.is_empty() => {
                wrong.push(format!("{at}: gives no reason"));
            }
            "implemented" | "not announced" | "not applicable" | "not followed" => {}
            other => wrong.push(format!("{at}: `{other}` is no state")),
        }
    }
    let ids = STATEMENTS.iter().flat_map(|(letter, count)| (1..=*count).map(move |number| format!("{letter}{number}")));
    for id in ids {
        if seen.remove(&id).is_none() {
            wrong.push(format!("{id} is missing"));
        }
    }
    wrong.extend(seen.into_iter().map(|(id, line)| format!("line {line}: there is no statement {id}")));
    wrong
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

#[test]
fn every_statement_is_there_once_and_its_tests_exist() {
    let page = read("docs/opamp-conformance.md").expect("the page");
    let wrong = findings(&page, read);
    assert!(wrong.is_empty(), "docs/opamp-conformance.md:\n{}", wrong.join("\n"));
}

#[test]
fn what_is_wrong_is_found() {
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
    let rows: String = STATEMENTS
        .iter()
        .flat_map(|(letter, count)| (1..=*count).map(move |number| format!("{letter}{number}")))
        .map(|id| format!("| {id} | words | implemented | `a.rs::one` |\n"))
        .collect();
    let file = |path: &str| (path == "a.rs" || path == "tests/supervisor.rs").then(|| source.to_owned());
    assert_eq!(findings(&rows, file), [""; 0]);
    for (row, wrong, said) in [
        ("| V1 | words | implemented | `a.rs::one` |\n", "", "V1 is missing"),
        ("`a.rs::one` |\n| V1 ", "`a.rs::one` |\n| V1 | words | implemented | `a.rs::one` |\n| V1 ", "already"),
        ("| V1 ", "| V2 ", "there is no statement V2"),
        ("| V1 | words | implemented | `a.rs::one`", "| V1 | words | implemented | `a.rs::two`", "has no test two"),
        (
            "| V1 | words | implemented | `a.rs::one`",
            "| V1 | words | implemented | `b.rs::one`",
            "there is no file b.rs",
        ),
        (
            "| V1 | words | implemented | `a.rs::one`",
            "| V1 | words | implemented | `tests/a.txt`",
            "there is no file tests",
        ),
        ("| V1 | words | implemented | `a.rs::one`", "| V1 | words | implemented | surely", "names no test"),
        (
            "| V1 | words | implemented | `a.rs::one`",
            "| V1 | words | implemented | `tests/supervisor.rs::one`",
            "names no test that runs everywhere",
        ),
        ("| V1 | words | implemented", "| V1 | words | done", "`done` is no state"),
        ("| V1 | words |", "| V1 |", "four cells"),
    ] {
        let page = rows.replace(row, wrong);
        assert_ne!(page, rows, "{row}");
        let found = findings(&page, file);
        assert!(found.iter().any(|one| one.contains(said)), "{said}: {found:?}");
    }
}
