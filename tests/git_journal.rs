//! The journal against real repositories: what is stored is kept, whoever else writes, and whatever happens to disk or remote.

mod git_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use git_support::{Author, git, journal_options, try_git, write};
use gitamp::fleet::snapshot::CommitId;
use gitamp::git::journal::{Journal, JournalError, JournalWrite, LONGEST_NOTE_BYTES, PushOutcome};
use proptest::prelude::*;

const REF: &str = "refs/notes/gitamp/default";

fn id(text: &str) -> CommitId {
    text.parse().expect("a commit id")
}

/// The note as the git command shows it.
fn shown(repository: &Path, commit: &str) -> String {
    git(repository, &["notes", "--ref=gitamp/default", "show", commit])
}

struct Place {
    home: tempfile::TempDir,
    author: Author,
    url: String,
    first: String,
    second: String,
}

/// A bare remote with two commits, and an author's clone of it.
fn place() -> Place {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("author"));
    let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
    let second = author.commit("Two", &[("a.yaml", "a: 2\n")]);
    let bare = home.path().join("remote.git");
    git(home.path(), &["clone", "-q", "--bare", "author", "remote.git"]);
    author.git(&["remote", "add", "origin", &bare.to_string_lossy()]);
    let url = bare.to_string_lossy().into_owned();
    Place { home, author, url, first, second }
}

#[tokio::test]
async fn what_is_stored_is_read_back_by_us_and_by_git() {
    let place = place();
    let state = place.home.path().join("state");
    let (journal, contents) = Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens");
    assert!(contents.state.is_empty());
    assert_eq!(journal.push().await.expect("nothing to do"), PushOutcome::UpToDate);
    let files = [("groups/prod/gateways/rollout.yaml", Some("stage: 1\n")), ("accepted", Some("x"))];
    journal.store(write(&place.first, "ending: succeeded\n", &files)).await.expect("it stores");
    journal.store(write(&place.second, "ending: failed\n", &[("accepted", None)])).await.expect("it stores");
    assert_eq!(journal.note(id(&place.first)).await.expect("it reads").as_deref(), Some("ending: succeeded\n"));
    assert_eq!(journal.note(CommitId([9; 20])).await.expect("it reads"), None);
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!(journal.push().await.expect("it looks"), PushOutcome::UpToDate);
    let bare = Path::new(&place.url);
    assert_eq!(shown(bare, &place.first), "ending: succeeded");
    let log = git(bare, &["log", "-1", "--notes=gitamp/default", "--format=%N", &place.second]);
    assert_eq!(log, "ending: failed");
    let files = git(bare, &["ls-tree", "-r", "--name-only", REF]);
    assert!(files.contains("state/groups/prod/gateways/rollout.yaml") && !files.contains("accepted"), "{files}");
    let history = journal.history(10).await.expect("a history");
    let messages: Vec<&str> = history.iter().map(|entry| entry.message.trim()).collect();
    assert_eq!(messages, ["Write ending: failed", "Write ending: succeeded"]);
    journal.store(write(&place.second, "ending: failed\n", &[])).await.expect("the same again");
    assert_eq!(journal.history(10).await.expect("a history").len(), 2, "no commit for no change");
    git(&state.join("journal.git"), &["fsck", "--full", "--strict"]);
}

#[tokio::test]
async fn unpushed_writes_outlive_the_process_and_an_empty_disk_resumes_from_the_remote() {
    let place = place();
    let state = place.home.path().join("state");
    let (journal, _) = Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens");
    journal.store(write(&place.first, "one", &[("a", Some("1"))])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    journal.store(write(&place.second, "two", &[("b", Some("2"))])).await.expect("it stores");
    let busy = Journal::open(journal_options(None, &state)).await.expect_err("one process at a time");
    assert!(matches!(busy, JournalError::InUse(_)), "{busy}");
    drop(journal);
    // As a killed process leaves it.
    fs::write(state.join("journal.git").join(format!("{REF}.lock")), "").expect("writable");

    let (journal, contents) = Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens");
    assert_eq!(contents.state, BTreeMap::from([("a".to_owned(), "1".into()), ("b".to_owned(), "2".into())]));
    journal.store(write(&place.second, "two!", &[])).await.expect("a stale lock does not last");
    drop(journal);
    fs::remove_dir_all(&state).expect("removable");
    let (journal, contents) = Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens");
    assert_eq!(contents.state, BTreeMap::from([("a".to_owned(), "1".into())]), "what was pushed is back");
    assert_eq!(journal.note(id(&place.first)).await.expect("it reads").as_deref(), Some("one"));
    assert_eq!(journal.push().await.expect("it looks"), PushOutcome::UpToDate);
}

#[tokio::test]
async fn a_ref_that_was_deleted_or_set_back_on_the_remote_is_restored_by_a_look() {
    let place = place();
    let bare = Path::new(&place.url);
    let state = place.home.path().join("state");
    let (journal, _) = Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens");
    journal.store(write(&place.first, "one", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    let older = git(bare, &["rev-parse", REF]);
    journal.store(write(&place.second, "two", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    let newest = git(bare, &["rev-parse", REF]);
    assert_eq!(journal.verify().await.expect("it looks"), PushOutcome::UpToDate);
    for (what, damage) in
        [("deleted", ["update-ref", "-d", REF].as_slice()), ("set back", &["update-ref", REF, older.as_str()])]
    {
        git(bare, damage);
        assert_eq!(journal.verify().await.expect("it looks"), PushOutcome::Pushed, "{what}");
        assert_eq!(git(bare, &["rev-parse", REF]), newest, "{what}");
    }
    let (local, _) = Journal::open(journal_options(None, &place.home.path().join("local"))).await.expect("it opens");
    assert!(
        matches!(local.verify().await, Ok(PushOutcome::ReadOnly { .. })),
        "without a remote there is nothing to look at"
    );
}

#[tokio::test]
async fn an_empty_disk_without_its_remote_is_no_empty_journal() {
    let place = place();
    let state = place.home.path().join("state");
    let gone = place.home.path().join("gone.git").to_string_lossy().into_owned();
    let error = Journal::open(journal_options(Some(&gone), &state)).await.expect_err("the records are unknown");
    assert!(matches!(error, JournalError::Transport(_)), "{error}");
    let (journal, _) = Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens later");
    journal.store(write(&place.first, "one", &[])).await.expect("it stores");
    drop(journal);
    let (journal, _) = Journal::open(journal_options(Some(&gone), &state)).await.expect("a local journal is enough");
    journal.store(write(&place.first, "two", &[])).await.expect("it stores");
    assert!(journal.push().await.is_err());
    drop(journal);
    let (journal, _) = Journal::open(journal_options(None, &state)).await.expect("without a remote");
    assert!(matches!(journal.push().await, Ok(PushOutcome::ReadOnly { .. })));
}

#[tokio::test]
async fn other_writers_notes_survive_and_ours_arrive() {
    let place = place();
    let bare = Path::new(&place.url);
    let one = place.home.path().join("one");
    let two = place.home.path().join("two");
    let (ours, _) = Journal::open(journal_options(Some(&place.url), &one)).await.expect("it opens");
    ours.store(write(&place.first, "ours", &[("shared", Some("ours")), ("own", Some("1"))])).await.expect("it stores");
    assert_eq!(ours.push().await.expect("it pushes"), PushOutcome::Pushed);

    // A second process with the same instance, and a person with the git command, write in between.
    let (theirs, contents) = Journal::open(journal_options(Some(&place.url), &two)).await.expect("it opens");
    assert_eq!(contents.state.len(), 2);
    theirs
        .store(write(&place.second, "theirs", &[("shared", Some("theirs")), ("own", None)]))
        .await
        .expect("it stores");
    assert_eq!(theirs.push().await.expect("it pushes"), PushOutcome::Pushed);
    let tree = place.author.git(&["rev-parse", "HEAD^{tree}"]);
    git(bare, &["notes", "--ref=gitamp/default", "add", "-m", "a person's", &tree]);

    ours.store(write(&place.first, "ours, later", &[("shared", Some("ours, later"))])).await.expect("it stores");
    assert_eq!(ours.push().await.expect("it merges and pushes"), PushOutcome::Pushed);
    for (object, note) in [(&place.first, "ours, later"), (&place.second, "theirs"), (&tree, "a person's")] {
        assert_eq!(shown(bare, object), note);
        assert_eq!(ours.note(id(object)).await.expect("it reads").as_deref().map(str::trim), Some(note));
    }
    assert_eq!(git(bare, &["show", &format!("{REF}:state/shared")]), "ours, later", "what we wrote since wins");
    assert!(!try_git(bare, &["show", &format!("{REF}:state/own")]).0, "what only they changed is as they say");
    git(bare, &["fsck", "--full", "--strict"]);
    let listed = git(bare, &["notes", "--ref=gitamp/default", "list"]);
    assert_eq!(listed.lines().count(), 3, "no note stands twice, whatever fan-out it came in: {listed}");
}

#[tokio::test]
async fn a_ref_that_was_deleted_or_reset_comes_back_whole() {
    let place = place();
    let bare = Path::new(&place.url);
    let state = place.home.path().join("state");
    let (journal, _) = Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens");
    for number in 0..3 {
        journal.store(write(&place.first, &format!("note {number}"), &[])).await.expect("it stores");
        journal.push().await.expect("it pushes");
    }
    git(bare, &["update-ref", "-d", REF]);
    journal.store(write(&place.second, "after", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!((shown(bare, &place.first), shown(bare, &place.second)), ("note 2".to_owned(), "after".to_owned()));
    git(bare, &["update-ref", REF, &format!("{REF}~2")]);
    journal.store(write(&place.second, "later", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!((shown(bare, &place.first), shown(bare, &place.second)), ("note 2".to_owned(), "later".to_owned()));

    // Deleted, and begun anew by somebody else: two histories without a common commit.
    git(bare, &["update-ref", "-d", REF]);
    let tree = place.author.git(&["rev-parse", "HEAD^{tree}"]);
    git(bare, &["notes", "--ref=gitamp/default", "add", "-m", "anew", &tree]);
    git(bare, &["notes", "--ref=gitamp/default", "add", "-m", "also on it", &place.first]);
    journal.store(write(&place.second, "and on", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it merges and pushes"), PushOutcome::Pushed);
    assert_eq!(shown(bare, &tree), "anew", "theirs is kept");
    assert_eq!(shown(bare, &place.second), "and on");
    assert_eq!(shown(bare, &place.first), "note 2", "on one note ours counts, theirs is in the history");
}

#[tokio::test]
async fn foreign_content_under_our_name_is_left_alone() {
    for foreign in ["HEAD", "HEAD:a.yaml", "HEAD^{tree}"] {
        let place = place();
        let bare = Path::new(&place.url);
        let object = place.author.git(&["rev-parse", foreign]);
        git(bare, &["update-ref", REF, &object]);
        let state = place.home.path().join("state");
        let (journal, contents) = Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens");
        assert!(contents.state.is_empty());
        journal.store(write(&place.first, "local", &[("a", Some("1"))])).await.expect("it stores");
        let outcome = journal.push().await.expect("it looks");
        assert!(
            matches!(&outcome, PushOutcome::ReadOnly { reason, .. } if reason.contains(REF)),
            "{foreign}: {outcome:?}"
        );
        assert_eq!(git(bare, &["rev-parse", REF]), object, "{foreign} is untouched");
        assert_eq!(journal.note(id(&place.first)).await.expect("it reads").as_deref(), Some("local"));
        git(bare, &["update-ref", "-d", REF]);
        assert_eq!(journal.push().await.expect("put right"), PushOutcome::Pushed, "{foreign}: without a restart");
        assert_eq!(shown(bare, &place.first), "local");
    }
}

/// Whoever may push puts a history of one commit with just this tree (as `git mktree` reads it) into the ref.
fn put(bare: &Path, entries: &str) -> String {
    put_on(bare, entries, &[])
}

/// The same, with these parents (`-p` and a name).
fn put_on(bare: &Path, entries: &str, parents: &[&str]) -> String {
    let file = bare.join("entries");
    fs::write(&file, entries).expect("writable");
    let output = std::process::Command::new("sh").args(["-ec", "git mktree < entries"]).current_dir(bare).output();
    let tree = String::from_utf8(output.expect("a shell").stdout).expect("an id");
    let commit = git(bare, &[&["commit-tree", "-m", "theirs", tree.trim()], parents].concat());
    git(bare, &["update-ref", REF, &commit]);
    commit
}

#[tokio::test]
async fn a_history_in_the_way_of_ours_stops_neither_a_start_nor_the_daemon() {
    let keys = gitamp::git::seal::JournalKeys::new(vec![gitamp::settings::Secret::new("k1")]);
    for keys in [None, keys] {
        let place = place();
        let bare = Path::new(&place.url);
        let state = place.home.path().join("state");
        let options =
            || gitamp::git::journal::JournalOptions { keys: keys.clone(), ..journal_options(Some(&place.url), &state) };
        let (journal, _) = Journal::open(options()).await.expect("it opens");
        journal.store(write(&place.first, "ours", &[("a", Some("1"))])).await.expect("it stores");
        assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
        let blob = git(bare, &["rev-parse", "HEAD:a.yaml"]);
        let entries = format!("100644 blob {blob}\t{}\n100644 blob {blob}\t{}\n", &place.first[..2], "e".repeat(40));
        for number in 0..2 {
            put(bare, &entries);
            let text = format!("ours {number}");
            journal.store(write(&place.second, &text, &[])).await.expect("it stores");
            assert_eq!(journal.verify().await.expect("it looks"), PushOutcome::Pushed);
            assert_eq!(journal.foreign(), None);
            for (commit, note) in [(&place.first, "ours"), (&place.second, text.as_str()), (&"e".repeat(40), "a: 2")] {
                assert!(shown(bare, commit).starts_with(note), "{commit}");
            }
            assert_eq!(git(bare, &["rev-parse", &format!("{REF}:foreign-{blob}")]), blob, "theirs is kept beside");
            git(bare, &["fsck", "--strict"]);
        }
        drop(journal);
        put(bare, &entries);
        let (journal, contents) = Journal::open(options()).await.expect("it opens");
        assert_eq!(contents.state.get("a").map(|bytes| &bytes[..]), Some(&b"1"[..]));
        assert!(journal.note(id(&place.first)).await.expect("it reads").is_some_and(|note| note.starts_with("ours")));
    }
}

#[tokio::test]
async fn a_history_that_cannot_be_written_with_ours_stops_neither_a_start_nor_the_daemon() {
    let place = place();
    let bare = Path::new(&place.url);
    let state = place.home.path().join("state");
    let options = || journal_options(Some(&place.url), &state);
    let (journal, _) = Journal::open(options()).await.expect("it opens");
    journal.store(write(&place.first, "ours", &[("a", Some("1"))])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    let good = git(bare, &["rev-parse", REF]);
    let blob = git(bare, &["rev-parse", "HEAD:a.yaml"]);
    // Taken over as it comes, on top of ours; and then gone again, so that it would have to be written anew.
    let tree = git(bare, &["ls-tree", REF]);
    put_on(bare, &format!("{tree}\n100644 blob {blob}\t.git\n"), &["-p", REF]);
    journal.store(write(&place.second, "ours, too", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    let theirs = put(bare, &format!("100644 blob {blob}\t{}\n", "e".repeat(40)));
    for _ in 0..2 {
        let outcome = journal.verify().await.expect("it looks");
        assert!(
            matches!(&outcome, PushOutcome::ReadOnly { reason, .. } if reason.contains("brought together")),
            "{outcome:?}"
        );
        assert!(journal.foreign().is_some());
        assert_eq!(git(bare, &["rev-parse", REF]), theirs, "it is left alone");
        journal.store(write(&place.second, "ours, still", &[])).await.expect("it stores");
    }
    drop(journal);
    let (journal, contents) = Journal::open(options()).await.expect("the disk is enough");
    assert_eq!(contents.state.get("a").map(|bytes| &bytes[..]), Some(&b"1"[..]));
    git(bare, &["update-ref", REF, &good]);
    assert_eq!(journal.push().await.expect("put right"), PushOutcome::Pushed, "without a restart");
}

#[tokio::test]
async fn foreign_entries_and_every_fan_out_are_kept() {
    let place = place();
    let bare = Path::new(&place.url);
    let blob = place.author.git(&["rev-parse", "HEAD:a.yaml"]);
    let third = "cd".repeat(20);
    let entries = format!(
        "100644 blob {blob}\tREADME\n100644 blob {blob}\t{}\n100644 blob {blob}\t{}\n100644 blob {blob}\t{}\n",
        place.first,
        format_args!("{}/{}", &place.second[..2], &place.second[2..]),
        format_args!("cd/cd/{}", &third[4..]),
    );
    fs::write(place.home.path().join("entries"), entries).expect("writable");
    let script = format!(
        "GIT_INDEX_FILE=$PWD/index git update-index --index-info < ../entries && GIT_INDEX_FILE=$PWD/index git update-ref {REF} \
         $(git -c user.name=Ada -c user.email=a@b commit-tree -m x $(GIT_INDEX_FILE=$PWD/index git write-tree))"
    );
    let status = std::process::Command::new("sh").args(["-ec", &script]).current_dir(bare).status().expect("a shell");
    assert!(status.success());
    let state = place.home.path().join("state");
    let (journal, _) = Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens");
    for commit in [&place.first, &place.second, &third] {
        assert_eq!(journal.note(id(commit)).await.expect("it reads").as_deref(), Some("a: 2\n"), "{commit}");
        journal.store(write(commit, "new", &[])).await.expect("it stores");
    }
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    let files = git(bare, &["ls-tree", "-r", "--name-only", REF]);
    assert_eq!(files.lines().count(), 4, "each note once, and the README: {files}");
    assert_eq!(shown(bare, &third), "new");
}

#[tokio::test]
async fn a_refusing_remote_keeps_the_journal_local() {
    let place = place();
    // Nobody may write, root included: the ref's directory is a file.
    fs::write(Path::new(&place.url).join("refs/notes"), "in the way").expect("writable");
    let state = place.home.path().join("state");
    let (journal, _) = Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens");
    journal.store(write(&place.first, "local", &[])).await.expect("it stores");
    journal.push().await.expect_err("it cannot be pushed");
    assert_eq!(journal.note(id(&place.first)).await.expect("it reads").as_deref(), Some("local"));
    fs::remove_file(Path::new(&place.url).join("refs/notes")).expect("removable");
    assert_eq!(journal.push().await.expect("later it can"), PushOutcome::Pushed);
}

#[tokio::test]
async fn a_working_copy_as_remote_gets_the_notes_too() {
    let place = place();
    let state = place.home.path().join("state");
    let url = format!("file://{}", place.author.path.display());
    let (journal, _) = Journal::open(journal_options(Some(&url), &state)).await.expect("it opens");
    journal.store(write(&place.first, "seen", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!(shown(&place.author.path, &place.first), "seen");
    assert_eq!(place.author.git(&["for-each-ref", "refs/gitamp"]), "", "nothing of ours stays behind");
    assert_eq!(place.author.git(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn a_damaged_journal_is_set_aside_and_fetched_again() {
    let place = place();
    let state = place.home.path().join("state");
    let path = state.join("journal.git");
    let damages: [(&str, &dyn Fn()); 3] = [
        ("a ref to nowhere", &|| fs::write(path.join(REF), "77".repeat(20)).expect("writable")),
        ("no objects", &|| fs::remove_dir_all(path.join("objects")).expect("removable")),
        ("empty files", &|| {
            for directory in fs::read_dir(path.join("objects")).expect("objects").flatten() {
                for file in fs::read_dir(directory.path()).expect("objects").flatten() {
                    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).expect("ours");
                    fs::write(file.path(), b"").expect("writable");
                }
            }
        }),
    ];
    for (number, (what, damage)) in damages.into_iter().enumerate() {
        let value = number.to_string();
        let (journal, _) = Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens");
        journal.store(write(&place.first, &value, &[("n", Some(&value))])).await.expect("it stores");
        journal.push().await.expect("it pushes");
        drop(journal);
        damage();
        let opened = Journal::open(journal_options(Some(&place.url), &state)).await;
        let (journal, contents) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(contents.state.get("n").map(|bytes| bytes.to_vec()), Some(value.into_bytes()), "{what}");
        drop(journal);
    }
    assert!(state.join("journal.git.damaged-3").exists() && !state.join("journal.git.damaged-1").exists());
}

#[tokio::test]
async fn notes_are_bounded_and_bad_names_refused() {
    let place = place();
    let state = place.home.path().join("state");
    let (journal, _) = Journal::open(journal_options(None, &state)).await.expect("it opens");
    journal
        .store(write(&place.first, &format!("a\0b{}", "ä".repeat(LONGEST_NOTE_BYTES)), &[]))
        .await
        .expect("it stores");
    let note = journal.note(id(&place.first)).await.expect("it reads").expect("a note");
    assert!(
        note.len() <= LONGEST_NOTE_BYTES && note.starts_with("abä") && note.ends_with("too long\n"),
        "{}",
        note.len()
    );
    for path in ["", "..", "a/../b", "a//b", "/a", "a/", ".git/x", "a\\b", "a\nb"] {
        let error = journal.store(write(&place.first, "x", &[(path, Some("1"))])).await.expect_err(path);
        assert!(matches!(error, JournalError::InvalidPath(_)), "{path:?}: {error}");
    }
    // Which of the files it is about is told, and what cannot be there is not there to be removed.
    let odd = ["groups/GIT~1/@record.yaml", "groups/a/.git./@record.yaml"];
    let files = [(odd[0], Some("1")), ("groups/b/@record.yaml", Some("1")), (odd[1], Some("1"))];
    match journal.store(write(&place.first, "x", &files)).await {
        Err(JournalError::InvalidPath(paths)) => assert_eq!(paths, odd),
        other => panic!("{other:?}"),
    }
    let files = [("groups/b/@record.yaml", Some("1")), (odd[0], None), ("a\\b", None)];
    journal.store(write(&place.first, "x", &files)).await.expect("the rest is stored");
    journal.store(write(&place.first, "x", &[("dir/file", Some("1"))])).await.expect("it stores");
    let all = || git(&state.join("journal.git"), &["ls-tree", "-r", "--name-only", REF]);
    for (path, kept) in [("dir", "/file"), ("dir/file/below", "")] {
        journal.store(write(&place.first, "y", &[(path, Some("2"))])).await.expect("it stores");
        let is_aside = |line: &str| line.starts_with("foreign-") && line.ends_with(kept);
        assert!(all().lines().any(is_aside), "nothing is dropped silently: {}", all());
    }
    assert!(all().lines().any(|line| line == "state/dir/file/below"), "{}", all());
    for instance in ["", "a/b", "a b", "..", "x.lock", "~"] {
        let mut options = journal_options(None, &place.home.path().join("other"));
        options.instance = instance.to_owned();
        let error = Journal::open(options).await.expect_err(instance);
        assert!(matches!(error, JournalError::InvalidInstance(_)), "{instance:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_and_pushers_lose_nothing() {
    let place = place();
    let mut journals = Vec::new();
    for name in ["one", "two", "three"] {
        let state = place.home.path().join(name);
        journals.push(Journal::open(journal_options(Some(&place.url), &state)).await.expect("it opens").0);
    }
    let mut tasks = Vec::new();
    for (writer, journal) in journals.iter().enumerate() {
        for part in 0..2_usize {
            let journal = journal.clone();
            tasks.push(tokio::spawn(async move {
                for number in 0..10_usize {
                    let commit = CommitId([u8::try_from(writer * 80 + part * 40 + number).expect("small"); 20]);
                    let path = format!("{writer}/{part}/{number}");
                    let state = BTreeMap::from([(path, Some(Bytes::from_static(b"x")))]);
                    let write = JournalWrite {
                        message: "m".to_owned(),
                        notes: BTreeMap::from([(commit, "n".to_owned())]),
                        state,
                    };
                    journal.store(write).await.expect("it stores");
                    if number % 4 == 3 {
                        // Losing every race is allowed here; the last push below is what counts.
                        let _outcome = journal.push().await;
                    }
                }
            }));
        }
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    for journal in &journals {
        journal.push().await.expect("one after the other nobody is in the way");
    }
    let listed = git(Path::new(&place.url), &["notes", "--ref=gitamp/default", "list"]);
    assert_eq!(listed.lines().count(), 60);
    let files = git(Path::new(&place.url), &["ls-tree", "-r", "--name-only", &format!("{REF}:state")]);
    assert_eq!(files.lines().count(), 60);
}

#[tokio::test]
async fn many_stores_are_packed_and_stay_whole() {
    let place = place();
    let state = place.home.path().join("state");
    let (journal, _) = Journal::open(journal_options(None, &state)).await.expect("it opens");
    let mut notes = BTreeMap::new();
    for number in 0..5000_u32 {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
        notes.insert(CommitId(bytes), format!("note {number}"));
    }
    let commits: Vec<CommitId> = notes.keys().copied().collect();
    let write = JournalWrite { message: "many".to_owned(), notes, state: BTreeMap::new() };
    journal.store(write).await.expect("it stores");
    for number in 0..60 {
        let commit = commits[number * 7].to_string();
        let value = number.to_string();
        let files = [("a/b", Some("1")), ("n", Some(value.as_str()))];
        journal.store(git_support::write(&commit, &format!("again {number}"), &files)).await.expect("it stores");
    }
    let repository = state.join("journal.git");
    let packs = fs::read_dir(repository.join("objects/pack")).expect("packs").count();
    assert!(packs < 110, "{packs} files of packs and indexes are left");
    assert!(git(&repository, &["count-objects"]).starts_with("0 objects"), "everything is in packs");
    git(&repository, &["fsck", "--full", "--strict"]);
    assert_eq!(journal.note(commits[7]).await.expect("it reads").as_deref(), Some("again 1"));
    assert_eq!(journal.note(commits[4999]).await.expect("it reads").map(|note| note.starts_with("note ")), Some(true));
    assert_eq!(journal.history(1000).await.expect("a history").len(), 61);
}

/// One step of somebody who writes.
#[derive(Clone, Debug)]
enum Step {
    Store { writer: usize, key: u8, value: u8 },
    Push { writer: usize },
    Restart { writer: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_usize, 0..6_u8, any::<u8>()).prop_map(|(writer, key, value)| Step::Store { writer, key, value }),
        2 => (0..2_usize).prop_map(|writer| Step::Push { writer }),
        1 => (0..2_usize).prop_map(|writer| Step::Restart { writer }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// Whatever two writers do, in the end the remote holds every path that anybody stored, each with a value that somebody
    /// stored there, and paths of one writer alone with their last value.
    #[test]
    fn two_writers_converge(steps in prop::collection::vec(step(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let place = place();
            let states = [place.home.path().join("one"), place.home.path().join("two")];
            let open = |writer: usize| Journal::open(journal_options(Some(&place.url), &states[writer]));
            let mut journals = vec![Some(open(0).await.expect("it opens").0), Some(open(1).await.expect("it opens").0)];
            let mut stored: BTreeMap<String, String> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Store { writer, key, value } => {
                        // Even keys are shared, odd ones belong to one writer.
                        let key = if key % 2 == 0 { format!("shared/{key}") } else { format!("own-{writer}/{key}") };
                        let value = value.to_string();
                        let journal = journals[writer].as_ref().expect("open");
                        journal.store(write(&place.first, &value, &[(&key, Some(&value))])).await.expect("it stores");
                        stored.insert(key, value);
                    }
                    Step::Push { writer } => {
                        journals[writer].as_ref().expect("open").push().await.expect("it pushes");
                    }
                    Step::Restart { writer } => {
                        drop(journals[writer].take());
                        journals[writer] = Some(open(writer).await.expect("it opens").0);
                    }
                }
            }
            for journal in journals.iter().flatten() {
                journal.push().await.expect("it pushes");
            }
            drop(journals);
            let fresh = journal_options(Some(&place.url), &place.home.path().join("fresh"));
            let (_, contents) = Journal::open(fresh).await.expect("it opens");
            let have: Vec<&String> = contents.state.keys().collect();
            assert_eq!(have, stored.keys().collect::<Vec<_>>(), "no path is lost, none appears");
            for (key, value) in stored.iter().filter(|(key, _)| key.starts_with("own-")) {
                assert_eq!(contents.state.get(key).map(|bytes| bytes.to_vec()), Some(value.clone().into_bytes()), "{key}");
            }
        });
    }
}
