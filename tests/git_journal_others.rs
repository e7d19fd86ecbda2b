//! The journal beside others: who else writes to its ref, or makes something else of it, loses nothing, and stops nobody.

mod git_support;

use std::fs;
use std::path::Path;

use git_support::journal::{REF, Remote, id, journal_options, write};
use git_support::{git, try_git};
use gitamp::git::journal::{Journal, PushOutcome};

#[tokio::test]
async fn a_ref_that_was_deleted_or_set_back_on_the_remote_is_restored_by_a_look() {
    let place = Remote::new();
    let bare = &place.bare;
    let journal = place.journal().await;
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
async fn other_writers_notes_survive_and_ours_arrive() {
    let place = Remote::new();
    let bare = &place.bare;
    let (ours, _) = place.opened("one").await;
    ours.store(write(&place.first, "ours", &[("shared", Some("ours")), ("own", Some("1"))])).await.expect("it stores");
    assert_eq!(ours.push().await.expect("it pushes"), PushOutcome::Pushed);

    // A second process with the same instance, and a person with the git command, write in between.
    let (theirs, contents) = place.opened("two").await;
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
        assert_eq!(place.note(object), note);
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
    let place = Remote::new();
    let bare = &place.bare;
    let journal = place.journal().await;
    for number in 0..3 {
        journal.store(write(&place.first, &format!("note {number}"), &[])).await.expect("it stores");
        journal.push().await.expect("it pushes");
    }
    git(bare, &["update-ref", "-d", REF]);
    journal.store(write(&place.second, "after", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!((place.note(&place.first), place.note(&place.second)), ("note 2".to_owned(), "after".to_owned()));
    git(bare, &["update-ref", REF, &format!("{REF}~2")]);
    journal.store(write(&place.second, "later", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!((place.note(&place.first), place.note(&place.second)), ("note 2".to_owned(), "later".to_owned()));

    // Deleted, and begun anew by somebody else: two histories without a common commit.
    git(bare, &["update-ref", "-d", REF]);
    let tree = place.author.git(&["rev-parse", "HEAD^{tree}"]);
    git(bare, &["notes", "--ref=gitamp/default", "add", "-m", "anew", &tree]);
    git(bare, &["notes", "--ref=gitamp/default", "add", "-m", "also on it", &place.first]);
    journal.store(write(&place.second, "and on", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it merges and pushes"), PushOutcome::Pushed);
    assert_eq!(place.note(&tree), "anew", "theirs is kept");
    assert_eq!(place.note(&place.second), "and on");
    assert_eq!(place.note(&place.first), "note 2", "on one note ours counts, theirs is in the history");
}

#[tokio::test]
async fn foreign_content_under_our_name_is_left_alone() {
    for foreign in ["HEAD", "HEAD:a.yaml", "HEAD^{tree}"] {
        let place = Remote::new();
        let bare = &place.bare;
        let object = place.author.git(&["rev-parse", foreign]);
        git(bare, &["update-ref", REF, &object]);
        let (journal, contents) = place.opened("state").await;
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
        assert_eq!(place.note(&place.first), "local");
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
        let place = Remote::new();
        let bare = &place.bare;
        let options = || gitamp::git::journal::JournalOptions { keys: keys.clone(), ..place.options("state") };
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
                assert!(place.note(commit).starts_with(note), "{commit}");
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
    let place = Remote::new();
    let bare = &place.bare;
    let options = || place.options("state");
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
    let place = Remote::new();
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
    let status =
        std::process::Command::new("sh").args(["-ec", &script]).current_dir(&place.bare).status().expect("a shell");
    assert!(status.success());
    let journal = place.journal().await;
    for commit in [&place.first, &place.second, &third] {
        assert_eq!(journal.note(id(commit)).await.expect("it reads").as_deref(), Some("a: 2\n"), "{commit}");
        journal.store(write(commit, "new", &[])).await.expect("it stores");
    }
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    let files = git(&place.bare, &["ls-tree", "-r", "--name-only", REF]);
    assert_eq!(files.lines().count(), 4, "each note once, and the README: {files}");
    assert_eq!(place.note(&third), "new");
}

#[tokio::test]
async fn a_refusing_remote_keeps_the_journal_local() {
    let place = Remote::new();
    // Nobody may write, root included: the ref's directory is a file.
    fs::write(place.bare.join("refs/notes"), "in the way").expect("writable");
    let journal = place.journal().await;
    journal.store(write(&place.first, "local", &[])).await.expect("it stores");
    journal.push().await.expect_err("it cannot be pushed");
    assert_eq!(journal.note(id(&place.first)).await.expect("it reads").as_deref(), Some("local"));
    fs::remove_file(place.bare.join("refs/notes")).expect("removable");
    assert_eq!(journal.push().await.expect("later it can"), PushOutcome::Pushed);
}

#[tokio::test]
async fn a_working_copy_as_remote_gets_the_notes_too() {
    let place = Remote::new();
    let state = place.home.path().join("state");
    let url = format!("file://{}", place.author.path.display());
    let (journal, _) = Journal::open(journal_options(Some(&url), &state)).await.expect("it opens");
    journal.store(write(&place.first, "seen", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!(git(&place.author.path, &["notes", "--ref=gitamp/default", "show", &place.first]), "seen");
    assert_eq!(place.author.git(&["for-each-ref", "refs/gitamp"]), "", "nothing of ours stays behind");
    assert_eq!(place.author.git(&["status", "--porcelain"]), "");
}
