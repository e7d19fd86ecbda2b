//! The journal against real repositories: what is stored is kept, whoever else writes, and whatever happens to disk or remote.

mod git_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use git_support::git;
use git_support::journal::{REF, Remote, id, journal_options, write};
use gitamp::fleet::snapshot::CommitId;
use gitamp::git::journal::{Journal, JournalError, JournalWrite, LONGEST_NOTE_BYTES, PushOutcome};
use proptest::prelude::*;

#[tokio::test]
async fn what_is_stored_is_read_back_by_us_and_by_git() {
    let place = Remote::new();
    let state = place.home.path().join("state");
    let (journal, contents) = place.opened("state").await;
    assert!(contents.state.is_empty());
    assert_eq!(journal.push().await.expect("nothing to do"), PushOutcome::UpToDate);
    let files = [("groups/prod/gateways/rollout.yaml", Some("stage: 1\n")), ("accepted", Some("x"))];
    journal.store(write(&place.first, "ending: succeeded\n", &files)).await.expect("it stores");
    journal.store(write(&place.second, "ending: failed\n", &[("accepted", None)])).await.expect("it stores");
    assert_eq!(journal.note(id(&place.first)).await.expect("it reads").as_deref(), Some("ending: succeeded\n"));
    assert_eq!(journal.note(CommitId([9; 20])).await.expect("it reads"), None);
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!(journal.push().await.expect("it looks"), PushOutcome::UpToDate);
    let bare = &place.bare;
    assert_eq!(place.note(&place.first), "ending: succeeded");
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
    let place = Remote::new();
    let state = place.home.path().join("state");
    let journal = place.journal().await;
    journal.store(write(&place.first, "one", &[("a", Some("1"))])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    journal.store(write(&place.second, "two", &[("b", Some("2"))])).await.expect("it stores");
    let busy = Journal::open(journal_options(None, &state)).await.expect_err("one process at a time");
    assert!(matches!(busy, JournalError::InUse(_)), "{busy}");
    drop(journal);
    // As a killed process leaves it.
    fs::write(state.join("journal.git").join(format!("{REF}.lock")), "").expect("writable");

    let (journal, contents) = place.opened("state").await;
    assert_eq!(contents.state, BTreeMap::from([("a".to_owned(), "1".into()), ("b".to_owned(), "2".into())]));
    journal.store(write(&place.second, "two!", &[])).await.expect("a stale lock does not last");
    drop(journal);
    fs::remove_dir_all(&state).expect("removable");
    let (journal, contents) = place.opened("state").await;
    assert_eq!(contents.state, BTreeMap::from([("a".to_owned(), "1".into())]), "what was pushed is back");
    assert_eq!(journal.note(id(&place.first)).await.expect("it reads").as_deref(), Some("one"));
    assert_eq!(journal.push().await.expect("it looks"), PushOutcome::UpToDate);
}

#[tokio::test]
async fn an_empty_disk_without_its_remote_is_no_empty_journal() {
    let place = Remote::new();
    let state = place.home.path().join("state");
    let gone = place.home.path().join("gone.git").to_string_lossy().into_owned();
    let error = Journal::open(journal_options(Some(&gone), &state)).await.expect_err("the records are unknown");
    assert!(matches!(error, JournalError::Transport(_)), "{error}");
    let journal = place.journal().await;
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
async fn a_damaged_journal_is_set_aside_and_fetched_again() {
    let place = Remote::new();
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
        let journal = place.journal().await;
        journal.store(write(&place.first, &value, &[("n", Some(&value))])).await.expect("it stores");
        journal.push().await.expect("it pushes");
        drop(journal);
        damage();
        let opened = Journal::open(place.options("state")).await;
        let (journal, contents) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(contents.state.get("n").map(|bytes| bytes.to_vec()), Some(value.into_bytes()), "{what}");
        drop(journal);
    }
    assert!(state.join("journal.git.damaged-3").exists() && !state.join("journal.git.damaged-1").exists());
}

#[tokio::test]
async fn notes_are_bounded_and_bad_names_refused() {
    let place = Remote::new();
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
    let place = Remote::new();
    let mut journals = Vec::new();
    for name in ["one", "two", "three"] {
        journals.push(place.opened(name).await.0);
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
    let listed = git(&place.bare, &["notes", "--ref=gitamp/default", "list"]);
    assert_eq!(listed.lines().count(), 60);
    let files = git(&place.bare, &["ls-tree", "-r", "--name-only", &format!("{REF}:state")]);
    assert_eq!(files.lines().count(), 60);
}

#[tokio::test]
async fn many_stores_are_packed_and_stay_whole() {
    let place = Remote::new();
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
        journal
            .store(git_support::journal::write(&commit, &format!("again {number}"), &files))
            .await
            .expect("it stores");
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
            let place = Remote::new();
            let disks = ["one", "two"];
            let mut journals = vec![Some(place.opened(disks[0]).await.0), Some(place.opened(disks[1]).await.0)];
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
                        journals[writer] = Some(place.opened(disks[writer]).await.0);
                    }
                }
            }
            for journal in journals.iter().flatten() {
                journal.push().await.expect("it pushes");
            }
            drop(journals);
            let (_, contents) = place.opened("fresh").await;
            let have: Vec<&String> = contents.state.keys().collect();
            assert_eq!(have, stored.keys().collect::<Vec<_>>(), "no path is lost, none appears");
            for (key, value) in stored.iter().filter(|(key, _)| key.starts_with("own-")) {
                assert_eq!(contents.state.get(key).map(|bytes| bytes.to_vec()), Some(value.clone().into_bytes()), "{key}");
            }
        });
    }
}
