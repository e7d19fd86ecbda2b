//! `gitamp notes` as a person runs it, in a clone of a repository that a journal was pushed to.

mod git_support;

use std::path::Path;
use std::process::{Command, Output};

use git_support::journal::{journal_options, write};
use git_support::{Author, git, open, options, write_secret};
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

#[tokio::test]
async fn notes_of_a_repository_without_a_clone_and_from_one_of_their_own() {
    use git_support::server::{Day, Server};
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("author"));
    let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
    author.git(&["tag", "v1"]);
    let second = author.commit("Two", &[("a.yaml", "a: 2\n")]);
    git(home.path(), &["clone", "-q", "--bare", "author", "fleet.git"]);
    git(home.path(), &["clone", "-q", "fleet.git", "clone"]);
    git(home.path(), &["init", "-q", "--bare", "notes.git"]);
    let fleet = Server::start(&home.path().join("fleet.git"), Day::Good);
    let token = home.path().join("token");
    write_secret(&token, "s3cret");
    let token = format!("--git-token-file={}", token.display());

    // The fleet's repository by its address: branches, tags and HEAD have their names.
    let url = fleet.url();
    let (code, _, err) = notes(home.path(), &["--repo", &url]);
    assert!(code == 1 && err.contains("no notes here"), "{err}");
    let state = home.path().join("state");
    let (journal, _) = Journal::open(journal_options(Some(&url), &state)).await.expect("it opens");
    git(&home.path().join("fleet.git"), &["config", "http.receivepack", "true"]);
    journal.store(write(&first, "ending: succeeded\n", &[])).await.expect("it stores");
    journal.push().await.expect("it pushes");
    for revision in ["HEAD~1", "v1", "main~1", &first, &first[..10]] {
        let (code, out, err) = notes(home.path(), &[revision, "--repo", &url]);
        assert!(code == 0 && out.contains("ending: succeeded") && out.contains(&first), "{revision}: {out}{err}");
    }
    let (code, _, err) = notes(home.path(), &["--repo", &url, "--offline"]);
    assert!(code == 2 && err.contains("name one with --repo"), "{err}");
    for wrong in ["https://u:p@host/x", "foo://host/x"] {
        let (code, _, err) = notes(home.path(), &["--repo", wrong]);
        assert!(code == 2 && err.contains("--repo: ") && !err.contains("u:p"), "{err}");
    }
    let (code, out, _) = notes(home.path(), &["HEAD~1", "--repo", "fleet.git"]);
    assert!(code == 0 && out.contains("ending: succeeded"), "a bare repository of this machine: {out}");

    // The notes in a repository of their own, on another server: the fleet's token stays at home.
    let own = home.path().join("notes.git");
    git(&own, &["config", "http.receivepack", "true"]);
    let server = Server::start(&own, Day::Good);
    let (apart, _) =
        Journal::open(journal_options(Some(&server.url()), &home.path().join("apart"))).await.expect("it opens");
    apart.store(write(&second, "ending: failed\n", &[])).await.expect("it stores");
    apart.push().await.expect("it pushes");
    server.turn(Day::Login("x-access-token".to_owned(), "s3cret".to_owned()));
    let clone = home.path().join("clone");
    let (_, _, err) = notes(&clone, &["HEAD", "--journal-repo", &server.url(), &token]);
    assert!(err.contains("warning: ") && err.contains("wants credentials"), "{err}");
    assert!(server.authorizations.lock().expect("no panic").is_empty(), "nothing was sent there");
    let own_token = token.replace("--git-token-file", "--journal-token-file");
    for arguments in [&["HEAD"][..], &["HEAD", "--repo", &url]] {
        let more = ["--journal-repo", &server.url(), &own_token];
        let (code, out, err) = notes(&clone, &[arguments, &more].concat());
        assert!(code == 0 && out.contains("ending: failed"), "{arguments:?}: {out}{err}");
    }
    assert_eq!(git(&clone, &["notes", "--ref=gitamp/default", "show", "HEAD"]), "ending: failed", "Git has them too");
}

#[tokio::test]
async fn the_lines_of_configuration_that_are_told_show_notes_in_git_log() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("author"));
    let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
    for name in ["fleet.git", "apart.git"] {
        git(home.path(), &["clone", "-q", "--bare", "author", name]);
        git(home.path(), &["clone", "-q", name, &format!("clone-of-{name}")]);
    }
    git(home.path(), &["init", "-q", "--bare", "notes.git"]);
    let read = |page: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        std::fs::read_to_string(path).expect("a page")
    };
    let (_, help, _) = notes(home.path(), &["--help"]);
    for (what, text, fetched) in [
        ("README.md", read("README.md"), "fleet.git"),
        ("docs/journal.md", read("docs/journal.md"), "fleet.git"),
        ("--help", help, "fleet.git"),
        ("docs/journal.md, another repository", read("docs/journal.md"), "notes.git"),
    ] {
        let is_apart = fetched == "notes.git";
        let clone = home.path().join(if is_apart { "clone-of-apart.git" } else { "clone-of-fleet.git" });
        let url = home.path().join(fetched).to_string_lossy().into_owned();
        let note = format!("ending: succeeded # {what}\n");
        let state = home.path().join(format!("state-{fetched}"));
        let (journal, _) = Journal::open(journal_options(Some(&url), &state)).await.expect("it opens");
        journal.store(write(&first, &note, &[])).await.expect("it stores");
        journal.push().await.expect("it pushes");
        // What a page says is done as it says, each page from the start.
        let configured = std::fs::read_to_string(clone.join(".git/config")).expect("a configuration");
        let is_told = |line: &&str| line.starts_with("git config ") && line.contains("remote.gitamp") == is_apart;
        let shown = |line: &&str| line.contains("notes.displayRef");
        let mut lines: Vec<&str> = text.lines().map(str::trim).filter(is_told).collect();
        if is_apart {
            lines.extend(text.lines().map(str::trim).find(shown));
        }
        assert_eq!(
            lines.len(),
            if is_apart { 3 } else { 2 + usize::from(what == "docs/journal.md") },
            "{what}: {lines:?}"
        );
        for line in lines {
            let line = line.replace("https://git.example.com/platform/fleet-notes.git", &url);
            let done = Command::new("sh").args(["-c", &line]).current_dir(&clone).status().expect("a shell");
            assert!(done.success(), "{what}: {line}");
        }
        git(&clone, if is_apart { &["fetch", "-q", "gitamp"] } else { &["fetch", "-q"] });
        let log = git(&clone, &["log", "-1"]);
        assert!(log.contains(note.trim()), "{what}: {log}");
        std::fs::write(clone.join(".git/config"), configured).expect("writable");
    }
}

#[tokio::test]
async fn notes_that_a_key_does_not_prove_are_marked_and_not_counted() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("author"));
    let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
    let second = author.commit("Two", &[("a.yaml", "a: 2\n")]);
    let url = author.path.to_string_lossy().into_owned();
    let key = home.path().join("key");
    write_secret(&key, "old-key-old-key-old-key-old-key-old\nkey\n");
    let secret = gitamp::settings::SecretFile::new(&key);
    let options = JournalOptions {
        keys: gitamp::git::seal::JournalKeys::new(secret.read().expect("keys").lines()),
        ..journal_options(Some(&url), &home.path().join("state"))
    };
    let (journal, _) = Journal::open(options).await.expect("it opens");
    journal.store(write(&first, "ending: succeeded\n", &[])).await.expect("it stores");
    journal.push().await.expect("it pushes");
    let genuine = author.git(&["notes", "--ref=gitamp/default", "show", &first]);
    author.git(&["notes", "--ref=gitamp/default", "add", "-m", &genuine, &second]);
    let flag = format!("--journal-key-file={}", key.display());
    let (code, out, err) = notes(&author.path, &["HEAD~1", &flag]);
    assert!(code == 0 && out.contains("  default (signed):\n    ending: succeeded\n"), "{out}{err}");
    let (code, out, err) = notes(&author.path, &["HEAD", &flag]);
    assert!(code == 1 && out.contains("NOT BELIEVED: its signature does not fit"), "moved to another commit: {out}");
    assert!(err.contains("no note here is proved by the key"), "{err}");
    author.git(&["notes", "--ref=gitamp/default", "add", "-f", "-m", "ending: succeeded", &second]);
    let (_, out, _) = notes(&author.path, &["HEAD", &flag]);
    assert!(out.contains("NOT BELIEVED: it is not signed"), "{out}");
    let (code, out, _) = notes(&author.path, &[&flag, "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, 0, "one of them is");
    assert_eq!(json[0]["notes"]["default"]["authentic"], serde_json::json!(false));
    assert_eq!(json[1]["notes"]["default"]["authentic"], serde_json::json!(true));
    let (_, out, _) = notes(&author.path, &["--output", "json"]);
    assert!(!out.contains("authentic"), "without a key nothing is said: {out}");
    let (code, _, err) = notes(&author.path, &["--journal-key-file=/does/not/exist"]);
    assert!(code == 2 && err.contains("cannot read"), "{err}");
}
