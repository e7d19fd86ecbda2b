//! Holds what the documentation says against the program: every command, flag and file that it names exists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A page: its path from the root of the repository, and its text.
struct Page {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<Page> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(root().join("docs"))
        .expect("docs/ is there")
        .map(|entry| entry.expect("an entry of docs/").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    paths.extend(["README.md", "CHANGELOG.md", "SECURITY.md", "fuzz/README.md"].map(|name| root().join(name)));
    paths.sort();
    assert!(paths.len() >= 5, "pages are missing: {paths:?}");
    let read = |path: PathBuf| Page {
        text: std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        path: path.strip_prefix(root()).expect("a path below the root").to_string_lossy().into_owned(),
    };
    paths.into_iter().map(read).collect()
}

/// What stands in code blocks without a language (commands), and between backticks, with line numbers.
fn code(text: &str) -> Vec<(usize, String)> {
    let (mut found, mut block): (Vec<(usize, String)>, Option<String>) = (Vec::new(), None);
    for (index, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(language.to_owned()) };
        } else if let Some(language) = &block {
            // A command that goes on in the next line is still one command; so are comments behind it none of it.
            if language.is_empty() || language == "sh" {
                found.push((index + 1, line.split(" #").next().unwrap_or_default().trim().to_owned()));
            }
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(|span| (index + 1, span.to_owned())));
        }
    }
    found
}

/// `gitamp <command> <flags>` and `cargo run --release -- <command>` in a piece of code: the command and its long flags.
fn invocation(code: &str) -> Option<(String, Vec<String>)> {
    let rest = code
        .strip_prefix("$ ")
        .unwrap_or(code)
        .strip_prefix("gitamp ")
        .or_else(|| code.split_once("cargo run --release -- ").map(|(_, rest)| rest))
        .or_else(|| code.split_once("/gitamp ").map(|(_, rest)| rest))?;
    let mut words = rest.split_whitespace();
    let command = words.next()?;
    if !command.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-') {
        return None;
    }
    let long = |word: &str| word.starts_with("--").then(|| word.split('=').next().unwrap_or(word).to_owned());
    Some((command.to_owned(), words.filter_map(long).collect()))
}

fn help(command: &str) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_gitamp"))
        .args([command, "--help"])
        .output()
        .expect("the program can be started");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn every_command_and_flag_that_is_named_exists() {
    let mut helps: BTreeMap<String, Option<String>> = BTreeMap::new();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for page in pages() {
        for (line, code) in code(&page.text) {
            let Some((command, flags)) = invocation(&code) else { continue };
            seen += 1;
            let is_word = |flag: &String, text: &str| {
                text.split(|letter: char| letter.is_whitespace() || ",[]=<>".contains(letter)).any(|word| word == flag)
            };
            match helps
                .entry(command.clone())
                .or_insert_with(|| if command == "help" { Some(String::new()) } else { help(&command) })
            {
                None => wrong.push(format!("{}:{line}: there is no command `gitamp {command}`", page.path)),
                Some(text) => wrong.extend(
                    flags
                        .iter()
                        .filter(|flag| !is_word(flag, text))
                        .map(|flag| format!("{}:{line}: `gitamp {command}` has no flag `{flag}`", page.path)),
                ),
            }
        }
    }
    assert!(seen >= 20, "only {seen} commands found: does this test still read the pages?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Names of tests as a page gives them: whole words of small letters with underscores, perhaps behind the file of the test.
fn tests_named(text: &str) -> Vec<&str> {
    let is_word = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_name = |span: &&str| span.contains("::") || span.matches('_').count() >= 3;
    spans.filter(|span| span.split("::").all(is_word) && !span.starts_with("gitamp_")).filter(is_name).collect()
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let page = std::fs::read_to_string(root().join("docs/security.md")).expect("the page");
    let mut source = String::new();
    let mut open = vec![root().join("src"), root().join("tests")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                source.push_str(&std::fs::read_to_string(&path).expect("a source file"));
            }
        }
    }
    let named = tests_named(&page);
    assert!(named.len() >= 30, "only {named:?}: does this test still read the page?");
    let is_there = |name: &str| match name.split_once("::") {
        // Made by a macro from its name.
        Some(("foreign_bytes", name)) => root().join("fuzz/fuzz_targets").join(format!("{name}.rs")).exists(),
        Some((file, name)) => std::fs::read_to_string(root().join("tests").join(format!("{file}.rs")))
            .is_ok_and(|text| text.contains(&format!("fn {name}("))),
        None => source.contains(&format!("fn {name}(")),
    };
    let missing: Vec<&&str> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:#?}");
    let (mut rows, mut is_attack, mut bare) = (0, false, Vec::new());
    for line in page.lines() {
        is_attack = line.starts_with("| attack") || (is_attack && line.starts_with('|'));
        if is_attack && !line.starts_with("| attack") && !line.starts_with("| ---") {
            rows += 1;
            bare.extend(tests_named(line).is_empty().then_some(line));
        }
    }
    assert!(rows >= 30, "only {rows} attacks: does this test still read the page?");
    assert!(bare.is_empty(), "attacks without a test: {bare:#?}");
    assert_eq!(tests_named("`a_b_c_d` `x::y` `no_new_privs` `gitamp_a_b_c` `A_b_c_d`"), ["a_b_c_d", "x::y"]);
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = |letter: char| letter.is_alphanumeric() || letter == '-' || letter == '_' || letter == ' ';
    heading
        .to_lowercase()
        .chars()
        .filter(|letter| kept(*letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        for (index, line) in page.text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if target.starts_with("https://") {
                    continue;
                }
                let (file, section) = target.split_once('#').unwrap_or((target, ""));
                let here = root().join(&page.path);
                let path =
                    if file.is_empty() { here } else { here.parent().expect("a page is in a directory").join(file) };
                let complaint = format!("{}:{}: `{target}` leads nowhere", page.path, index + 1);
                if !path.exists() {
                    wrong.push(complaint);
                } else if !section.is_empty() {
                    let text = std::fs::read_to_string(&path).unwrap_or_default();
                    let heads = text.lines().filter(|line| line.starts_with('#'));
                    if !heads.map(|line| anchor(line.trim_start_matches('#').trim())).any(|one| one == section) {
                        wrong.push(complaint);
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pages_name_no_machine_of_their_authors() {
    let top = root().components().nth(1).map(|first| format!("/{}/", first.as_os_str().to_string_lossy()));
    let own = ["/home/", "/root/", "/Users/"].map(str::to_owned);
    let system = ["/usr/", "/var/", "/etc/", "/tmp/", "/opt/", "/srv/", "/run/"];
    let forbidden: Vec<String> = own.into_iter().chain(top.filter(|top| !system.contains(&top.as_str()))).collect();
    let mut wrong = Vec::new();
    for page in pages() {
        for (index, line) in page.text.lines().enumerate() {
            // A path begins after a space, a quote, a bracket or `=`; `/x/` inside a longer path or an address is none.
            let starts = |at: usize| at == 0 || line[..at].ends_with([' ', '"', '\'', '`', '(', '=', ':']);
            let named = forbidden.iter().filter(|path| line.match_indices(path.as_str()).any(|(at, _)| starts(at)));
            wrong.extend(named.map(|path| format!("{}:{}: names `{path}`", page.path, index + 1)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reading_of_pages_finds_what_is_there() {
    let text = "Use `gitamp status --watch`.\n```\ngitamp sync   # now\ncargo run --release -- demo\n```\n```yaml\ngitamp: no\n```\n";
    let found: Vec<_> = code(text).into_iter().filter_map(|(line, code)| Some((line, invocation(&code)?))).collect();
    let is = |command: &str, flags: &[&str]| {
        (command.to_owned(), flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(found, [(1, is("status", &["--watch"])), (3, is("sync", &[])), (4, is("demo", &[]))]);
    assert_eq!(invocation("gitamp: a name"), None);
    assert_eq!(anchor("Who gets what?"), "who-gets-what");
    assert_eq!(help("no-such-command"), None);
}

/// The codes in calls of `error("code", ...)` and `warning("code", ...)`.
fn codes(text: &str) -> Vec<String> {
    let without_tests = text.split("#[cfg(test)]").next().unwrap_or_default();
    let calls = ["error(", "warning("].into_iter().flat_map(|call| without_tests.split(call).skip(1));
    let code = |after: &str| after.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned);
    let is_code = |code: &String| !code.is_empty() && code.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    calls.filter_map(code).filter(is_code).collect()
}

#[test]
fn every_code_of_a_finding_is_explained() {
    let page = std::fs::read_to_string(root().join("docs/fleet-repository.md")).expect("the page");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("src/fleet")).expect("src/fleet is there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            found.extend(codes(&text).into_iter().map(|code| (code, path.clone())));
        }
    }
    assert!(found.len() >= 30, "only {} codes found: does this test still read the source?", found.len());
    let unexplained: Vec<_> = found.iter().filter(|(code, _)| !page.contains(&format!("`{code}`"))).collect();
    assert!(unexplained.is_empty(), "docs/fleet-repository.md does not explain {unexplained:#?}");
    assert_eq!(codes("x.error(\n  \"a-b\", y); error(z); warning(\"c\") #[cfg(test)] error(\"d\")"), ["a-b", "c"]);
}

#[test]
fn every_setting_of_serve_is_explained() {
    let page = std::fs::read_to_string(root().join("docs/running.md")).expect("the page");
    let help = help("serve").expect("`gitamp serve --help`");
    let flags: std::collections::BTreeSet<&str> = help
        .lines()
        .filter_map(|line| line.trim_start().split([' ', '[', '=']).find(|word| word.starts_with("--")))
        .filter(|flag| *flag != "--help")
        .collect();
    assert!(flags.len() >= 20, "only {flags:?} found: does this test still read the help?");
    let missing: Vec<_> = flags.iter().filter(|flag| !page.contains(&format!("`{flag}"))).collect();
    assert!(missing.is_empty(), "docs/running.md does not explain {missing:?}");
}
