//! Holds `docs/opamp-conformance.md` against the tests: every statement stands there once, and every test that it names exists.

#[path = "support/page.rs"]
mod page;

use std::collections::BTreeMap;

use page::{cells, files_in, has_test, read, tests_in};

/// How many statements each letter has.
const STATEMENTS: &[(char, usize)] = &[
    ('T', 9),
    ('F', 7),
    ('S', 11),
    ('I', 8),
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

/// `T12`: a capital letter and a number.
fn is_id(cell: &str) -> bool {
    let mut letters = cell.chars();
    letters.next().is_some_and(|letter| letter.is_ascii_uppercase())
        && cell.len() > 1
        && letters.all(|digit| digit.is_ascii_digit())
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

#[test]
fn every_statement_is_there_once_and_its_tests_exist() {
    let page = read("docs/opamp-conformance.md").expect("the page");
    let wrong = findings(&page, read);
    assert!(wrong.is_empty(), "docs/opamp-conformance.md:\n{}", wrong.join("\n"));
}

#[test]
fn what_is_wrong_is_found() {
    let source = "#[test]\nfn one() {}\n";
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
