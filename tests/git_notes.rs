//! `gitamp notes` as a person runs it, in a clone of a repository that a journal was pushed to.

mod git_support;

use std::path::Path;
use std::process::{Command, Output};

use git_support::{Author, git, journal_options, open, options, write};
use gitamp::git::journal::{Journal, JournalOptions};

fn notes(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_gitamp"))
        .arg("notes")
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", directory)
        .output()
        .expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("it ended by itself"), text(stdout), text(stderr))
}

#[tokio::test]
async fn notes_are_fetched_and_shown() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("author"));
    let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
    author.commit("Two, without a note", &[("a.yaml", "a: 2\n")]);
    let third = author.commit("Three", &[("a.yaml", "a: 3\n")]);
    git(home.path(), &["clone", "-q", "--bare", "author", "fleet.git"]);
    git(home.path(), &["clone", "-q", "fleet.git", "clone"]);
    let clone = home.path().join("clone");
    // A relative address, as `git clone ../fleet.git` leaves it.
    git(&clone, &["remote", "set-url", "origin", "../fleet.git"]);
    std::fs::create_dir(clone.join("below")).expect("a directory");

    let (code, out, err) = notes(&clone, &[]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("no notes"), "{err}");

    let url = home.path().join("fleet.git").to_string_lossy().into_owned();
    let state = home.path().join("state");
    let (journal, _) = Journal::open(journal_options(Some(&url), &state)).await.expect("it opens");
    journal.store(write(&first, "ending: succeeded\n\u{1b}[31m", &[])).await.expect("it stores");
    journal.store(write(&third, "ending: failed\ngroups: {all: {ending: failed}}\n", &[])).await.expect("it stores");
    journal.push().await.expect("it pushes");
    let options_eu =
        JournalOptions { instance: "eu".to_owned(), ..journal_options(Some(&url), &home.path().join("eu")) };
    let (eu, _) = Journal::open(options_eu).await.expect("it opens");
    eu.store(write(&third, "ending: succeeded\n", &[])).await.expect("it stores");
    eu.push().await.expect("it pushes");

    let (code, out, err) = notes(&clone.join("below"), &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    let (at_third, at_first) = (out.find(&third).expect("the third"), out.find(&first).expect("the first"));
    assert!(at_third < at_first && !out.contains("Two"), "newest first, only those with notes: {out}");
    assert!(
        out.contains("  default:\n    ending: failed\n") && out.contains("  eu:\n    ending: succeeded\n"),
        "{out}"
    );
    assert!(!out.contains('\u{1b}'), "nothing moves the cursor");
    assert_eq!(git(&clone, &["notes", "--ref=gitamp/eu", "show", &third]), "ending: succeeded", "Git has them too");

    let (code, out, _) = notes(&clone, &["HEAD~2", "--offline", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, 0);
    assert_eq!(json[0]["commit"], serde_json::json!(first));
    assert!(json[0]["notes"]["default"]["text"].as_str().is_some_and(|text| text.starts_with("ending: succeeded")));
    let (_, out, _) = notes(&clone, &["-n", "1", "--instance", "default", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(json.as_array().map(Vec::len), Some(1));
    assert_eq!(json[0]["notes"]["default"]["document"]["groups"]["all"]["ending"], serde_json::json!("failed"));
    assert_eq!(json[0]["notes"]["eu"], serde_json::Value::Null);
    let (code, _, err) = notes(&clone, &["HEAD~1", "--instance", "default"]);
    assert!(code == 1 && err.contains("instance `default`"), "{err}");
    let (code, _, err) = notes(&clone, &["nonsense"]);
    assert!(code == 2 && err.contains("`nonsense` names no commit"), "{err}");
    let (code, _, err) = notes(home.path(), &[]);
    assert!(code == 2 && err.contains("in no Git repository"), "{err}");

    std::fs::rename(home.path().join("fleet.git"), home.path().join("gone.git")).expect("movable");
    let (code, out, err) = notes(&clone, &[]);
    assert!(code == 0 && out.contains(&third) && err.contains("warning: ") && err.contains("git fetch"), "{out}{err}");
}

#[tokio::test]
async fn a_daemons_own_notes_are_shown_from_its_state_directory() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("author"));
    let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
    let state = home.path().join("state");
    let (code, _, err) = notes(home.path(), &["--state-dir", "state"]);
    assert!(code == 2 && err.contains("mirror.git"), "{err}");
    let mut mirror = open(options(&author.path.to_string_lossy(), &state)).await;
    mirror.sync().await.expect("it syncs");
    let (journal, _) = Journal::open(journal_options(None, &state)).await.expect("it opens");
    journal.store(write(&first, "ending: succeeded\n", &[])).await.expect("it stores");
    // The daemon is still running: reading takes no lock.
    let (code, out, err) = notes(home.path(), &["--state-dir", "state"]);
    assert!(code == 0 && out.contains("ending: succeeded") && out.contains(&first), "{out}{err}");
}
