//! The journal with a key against whoever may push but has none: what they write is carried, told, and never believed.

mod git_support;

use std::collections::BTreeMap;
use std::fs;

use git_support::git;
use git_support::journal::{REF, Remote, id, write};
use gitamp::fleet::snapshot::CommitId;
use gitamp::git::FailureClass;
use gitamp::git::journal::{Journal, JournalContents, JournalError, JournalOptions, LONGEST_NOTE_BYTES, PushOutcome};
use gitamp::git::seal::{Authenticity, JournalKeys};
use gitamp::settings::Secret;

const RECORD: &str = "groups/all/@record.yaml";

/// A remote whose journals have keys.
struct Place(Remote);

impl std::ops::Deref for Place {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.0
    }
}

fn place() -> Place {
    Place(Remote::new())
}

fn keys(all: &[&str]) -> Option<JournalKeys> {
    JournalKeys::new(all.iter().map(|key| Secret::new(*key)).collect())
}

impl Place {
    fn options(&self, disk: &str, all: &[&str]) -> JournalOptions {
        JournalOptions { keys: keys(all), ..self.0.options(disk) }
    }

    async fn open(&self, disk: &str, all: &[&str]) -> Result<(Journal, JournalContents), JournalError> {
        Journal::open(self.options(disk, all)).await
    }

    async fn opened(&self, disk: &str, all: &[&str]) -> (Journal, JournalContents) {
        self.open(disk, all).await.unwrap_or_else(|error| panic!("{disk} {all:?}: {error}"))
    }

    /// The record that a start on this disk with the key `k1` goes on from.
    async fn read(&self, disk: &str) -> Option<String> {
        record(&self.opened(disk, &["k1"]).await.1)
    }

    /// Stores this as the record, and pushes it.
    async fn keep(&self, journal: &Journal, text: &str) {
        journal.store(write(&self.first, text, &[(RECORD, Some(text))])).await.expect("it stores");
        journal.push().await.expect("it pushes");
    }

    /// The start waits; the journal's commit that it names, and the newest one that it believes.
    async fn held(&self, options: JournalOptions) -> (CommitId, Option<CommitId>) {
        let error = Journal::open(options).await.expect_err("it must not be believed");
        assert_eq!(error.class(), FailureClass::Stalled, "{error}");
        let text = error.to_string();
        let JournalError::Unbelieved { commit, newest, .. } = error else { panic!("{error}") };
        assert!(text.contains("not believed") && text.contains(&commit.to_string()), "{text}");
        assert!(text.contains("--journal-adopt") && text.len() < 400, "{} {text}", text.len());
        (commit, newest)
    }

    fn tip(&self) -> String {
        git(&self.bare, &["rev-parse", REF])
    }

    /// Whoever may push puts a commit with these contents below `state/` on top; everything else stays.
    fn forge(&self, files: &[(&str, &str)]) -> String {
        self.forge_on(&self.tip(), files)
    }

    fn forge_on(&self, parent: &str, files: &[(&str, &str)]) -> String {
        let index = self.bare.join("forged-index");
        let index = index.to_string_lossy();
        let run = |arguments: &[&str]| {
            let output = std::process::Command::new("git")
                .args(["-c", "user.name=Eve", "-c", "user.email=eve@example.com"])
                .args(arguments)
                .current_dir(&self.bare)
                .env("GIT_INDEX_FILE", &*index)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .output()
                .expect("git");
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        run(&["read-tree", parent]);
        for (path, text) in files {
            let file = self.bare.join("forged");
            fs::write(&file, text).expect("a file");
            let blob = run(&["hash-object", "-w", "forged"]);
            run(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},state/{path}")]);
        }
        let tree = run(&["write-tree"]);
        let commit = run(&["commit-tree", "-p", parent, "-m", "forged", &tree]);
        run(&["update-ref", REF, &commit]);
        commit
    }

    /// The seal in this commit of the journal.
    fn seal(&self, commit: &str) -> String {
        git(&self.bare, &["show", &format!("{commit}:state/@seal.yaml")]) + "\n"
    }

    fn record(&self) -> String {
        git(&self.bare, &["show", &format!("{REF}:state/{RECORD}")])
    }
}

fn record(contents: &JournalContents) -> Option<String> {
    contents.state.get(RECORD).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

#[tokio::test]
async fn what_was_written_with_the_key_is_believed_on_an_empty_disk() {
    let place = place();
    let (journal, contents) = place.opened("one", &["k1"]).await;
    assert_eq!(contents, JournalContents::default());
    journal.store(write(&place.first, "ending: failed", &[(RECORD, Some("1"))])).await.expect("it stores");
    journal.store(write(&place.first, "ending: succeeded", &[(RECORD, Some("2"))])).await.expect("it stores");
    let history = journal.history(10).await.expect("a history").len();
    journal.store(write(&place.first, "ending: succeeded", &[(RECORD, Some("2"))])).await.expect("the same again");
    assert_eq!(journal.history(10).await.expect("a history").len(), history, "no change is no commit, seal or not");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    let note = journal.note(id(&place.first)).await.expect("it reads").expect("a note");
    let judge = |all: &[&str], commit: &str| keys(all).map(|keys| keys.judge_note(REF, id(commit), &note));
    assert_eq!(judge(&["k1"], &place.first), Some(Authenticity::Genuine), "{note}");
    assert_eq!(judge(&["k1"], &place.second), Some(Authenticity::Wrong));
    assert_eq!(judge(&["k2"], &place.first), Some(Authenticity::Wrong));
    let shown = place.note(&place.first);
    assert!(shown.starts_with("ending: succeeded\n# gitamp-mac: "), "still what people read: {shown}");

    let (fresh, contents) = place.opened("two", &["k1"]).await;
    assert_eq!(record(&contents).as_deref(), Some("2"));
    assert_eq!(contents.state.len(), 1, "the seal is no record: {contents:?}");
    assert!(contents.is_sealed);
    let long = "ä".repeat(LONGEST_NOTE_BYTES);
    fresh.store(write(&place.second, &long, &[])).await.expect("it stores");
    let note = fresh.note(id(&place.second)).await.expect("it reads").expect("a note");
    assert!(note.len() <= LONGEST_NOTE_BYTES, "{}", note.len());
    assert_eq!(keys(&["k1"]).map(|keys| keys.judge_note(REF, id(&place.second), &note)), Some(Authenticity::Genuine));
    git(&place.home.path().join("two/journal.git"), &["fsck", "--full", "--strict"]);
}

#[tokio::test]
async fn without_a_key_nothing_changes() {
    let place = place();
    let (journal, _) = place.opened("one", &[]).await;
    journal.store(write(&place.first, "ending: succeeded", &[(RECORD, Some("1"))])).await.expect("it stores");
    journal.push().await.expect("it pushes");
    let note = place.note(&place.first);
    assert_eq!(note, "ending: succeeded");
    let files = git(&place.bare, &["ls-tree", "-r", "--name-only", &format!("{REF}:state")]);
    assert_eq!(files, RECORD);
    place.forge(&[(RECORD, "forged")]);
    let (_, contents) = place.opened("two", &[]).await;
    assert_eq!(record(&contents).as_deref(), Some("forged"), "this is why there are keys");
}

#[tokio::test]
async fn a_forged_record_starts_nothing_on_an_empty_disk() {
    let place = place();
    let (journal, _) = place.opened("one", &["k1"]).await;
    let files = [(RECORD, Some("1")), ("groups/b/@record.yaml", Some("b")), ("configs/x.yaml", Some("x"))];
    journal.store(write(&place.first, "one", &files)).await.expect("it stores");
    place.keep(&journal, "2").await;
    drop(journal);
    let good = place.tip();
    let older_seal = place.seal(&format!("{good}~1"));
    let seal = place.seal(&good);
    let later = seal.replace("sequence: 2", "sequence: 9");
    assert_ne!(later, seal, "{seal}");
    for (what, files) in [
        ("another content", &[(RECORD, "forged")][..]),
        ("a record of the past", &[(RECORD, "1")]),
        ("a seal of the past", &[("@seal.yaml", &older_seal)]),
        ("a seal made newer", &[("@seal.yaml", &later)]),
        ("no seal to speak of", &[("@seal.yaml", "sequence: 1\n")]),
        ("one more group", &[("groups/evil/@record.yaml", "forged")]),
        ("another group's record", &[("groups/b/@record.yaml", "2")]),
    ] {
        git(&place.bare, &["update-ref", REF, &good]);
        let forged = place.forge(files);
        let (commit, newest) = place.held(place.options("fresh", &["k1"])).await;
        assert_eq!((commit, newest), (id(&forged), Some(id(&good))), "{what}");
        assert_eq!(place.read("one").await.as_deref(), Some("2"), "{what}: the local journal is believed, and enough");
    }
    // With another key nothing of it is believed; with the ref put right it starts without further ado.
    git(&place.bare, &["update-ref", REF, &good]);
    assert_eq!(place.held(place.options("other", &["k2"])).await, (id(&good), None));
    assert_eq!(place.read("fresh").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_record_of_another_instance_is_none_of_this_one() {
    let place = place();
    let (journal, _) = place.opened("one", &["k1"]).await;
    place.keep(&journal, "1").await;
    let tip = place.tip();
    git(&place.bare, &["update-ref", "refs/notes/gitamp/eu", &tip]);
    let options = JournalOptions { instance: "eu".to_owned(), ..place.options("eu", &["k1"]) };
    assert_eq!(place.held(options).await.0, id(&tip));
}

#[tokio::test]
async fn what_others_write_meanwhile_is_put_right_and_said_and_their_notes_stay() {
    let place = place();
    let (journal, _) = place.opened("one", &["k1"]).await;
    place.keep(&journal, "1").await;
    let before = place.tip();
    let object = git(&place.bare, &["rev-parse", "HEAD^{tree}"]);
    git(&place.bare, &["notes", "--ref=gitamp/default", "add", "-m", "a person's", &object]);
    assert_eq!(journal.verify().await.expect("it looks"), PushOutcome::UpToDate);
    assert_eq!(journal.disbelieved(), None, "a note is no record");

    for (what, parent) in [("on top", place.tip()), ("instead", before.clone())] {
        git(&place.bare, &["update-ref", REF, &parent]);
        place.forge(&[(RECORD, "forged"), ("groups/evil/@record.yaml", "forged")]);
        assert_eq!(journal.verify().await.expect("it looks"), PushOutcome::Pushed, "{what}");
        assert_eq!(place.record(), "1", "{what}: ours stand there again");
        let files = git(&place.bare, &["ls-tree", "-r", "--name-only", &format!("{REF}:state")]);
        assert!(!files.contains("evil"), "{what}: {files}");
        let said = journal.disbelieved().expect(what);
        assert!(said.contains("not believed") && said.contains(REF), "{said}");
        let note = place.note(&object);
        assert_eq!(note, "a person's", "{what}");
    }
    assert_eq!(place.read("fresh").await.as_deref(), Some("1"));
    git(&place.bare, &["fsck", "--full", "--strict"]);
}

#[tokio::test]
async fn records_of_the_past_never_come_back_while_the_disk_remembers() {
    let place = place();
    let (journal, _) = place.opened("one", &["k1"]).await;
    let mut tips = Vec::new();
    for value in ["1", "2", "3"] {
        place.keep(&journal, value).await;
        tips.push(place.tip());
    }
    // Wholly genuine, and old: the past put on top of the present, while it runs and before it starts.
    let old_seal = place.seal(&tips[0]);
    place.forge(&[(RECORD, "1"), ("@seal.yaml", &old_seal)]);
    assert_eq!(journal.verify().await.expect("it looks"), PushOutcome::Pushed);
    assert_eq!(place.record(), "3");
    drop(journal);
    place.forge(&[(RECORD, "1"), ("@seal.yaml", &old_seal)]);
    let (journal, contents) = place.opened("one", &["k1"]).await;
    assert_eq!(record(&contents).as_deref(), Some("3"));
    journal.push().await.expect("it pushes");
    assert_eq!(place.record(), "3");
    drop(journal);
    git(&place.bare, &["update-ref", REF, &tips[0]]);
    assert_eq!(place.read("one").await.as_deref(), Some("3"));
    // What an empty disk cannot know; the documentation says so.
    assert_eq!(place.read("fresh").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn an_ordinary_push_on_top_neither_erases_nor_replays_records_on_an_empty_disk() {
    let place = place();
    let (journal, _) = place.opened("one", &["k1"]).await;
    let mut tips = Vec::new();
    for value in ["1", "2", "3"] {
        place.keep(&journal, value).await;
        tips.push(place.tip());
    }
    drop(journal);
    let newest = tips[2].clone();
    let blob = git(&place.bare, &["rev-parse", "HEAD:a.yaml"]);
    let on_top = |entries: &str| {
        let file = place.home.path().join("entries");
        fs::write(&file, entries).expect("a file");
        let script = format!("git mktree < '{}'", file.display());
        let output = std::process::Command::new("sh").args(["-ec", &script]).current_dir(&place.bare).output();
        let tree = String::from_utf8(output.expect("a shell").stdout).expect("an id");
        let commit = git(&place.bare, &["commit-tree", "-p", &newest, "-m", "on top", tree.trim()]);
        git(&place.bare, &["update-ref", REF, &commit]);
        commit
    };
    let old_seal = place.seal(&tips[0]);
    let note = format!("100644 blob {blob}\t{}\n", place.second);
    let readme = format!("100644 blob {blob}\tREADME\n");
    let attacks: [(&str, &dyn Fn() -> String); 4] = [
        ("no records", &|| on_top(&note)),
        ("nothing at all", &|| on_top("")),
        ("no journal", &|| on_top(&readme)),
        ("the past", &|| place.forge_on(&newest, &[(RECORD, "1"), ("@seal.yaml", &old_seal)])),
    ];
    for (what, attack) in attacks {
        let commit = attack();
        let disk = format!("fresh {what}");
        let held = place.held(place.options(&disk, &["k1"])).await;
        assert_eq!(held, (id(&commit), Some(id(&newest))), "{what}");
        let (journal, contents) = place.opened("one", &["k1"]).await;
        assert_eq!(record(&contents).as_deref(), Some("3"), "{what}: the disk is enough");
        drop(journal);
        let adopting = JournalOptions { adopt: Some(id(&newest)), ..place.options(&disk, &["k1"]) };
        let (journal, contents) = Journal::open(adopting).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(record(&contents).as_deref(), Some("3"), "{what}: the operator's word");
        assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed, "{what}");
        drop(journal);
        assert_eq!(place.read(&format!("after {what}")).await.as_deref(), Some("3"), "{what}: once is enough");
    }
}

#[tokio::test]
async fn a_journal_that_began_anew_before_the_old_one_came_back_is_newer_than_it() {
    let place = place();
    let (journal, _) = place.opened("one", &["k1"]).await;
    for value in ["1", "2", "3"] {
        journal.store(write(&place.first, value, &[(RECORD, Some(value))])).await.expect("it stores");
    }
    journal.push().await.expect("it pushes");
    drop(journal);
    let old = place.tip();
    git(&place.bare, &["update-ref", "-d", REF]);
    let (journal, contents) = place.opened("two", &["k1"]).await;
    assert_eq!(contents, JournalContents::default());
    git(&place.bare, &["update-ref", REF, &old]);
    journal.verify().await.expect("it looks");
    journal.store(write(&place.first, "new", &[(RECORD, Some("new"))])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    drop(journal);
    for disk in ["two", "fresh"] {
        assert_eq!(place.read(disk).await.as_deref(), Some("new"), "{disk}");
    }
}

#[tokio::test]
async fn newer_records_of_ours_replace_an_old_disk() {
    let place = place();
    let (journal, _) = place.opened("one", &["k1"]).await;
    place.keep(&journal, "1").await;
    drop(journal);
    let (journal, _) = place.opened("two", &["k1"]).await;
    place.keep(&journal, "2").await;
    drop(journal);
    let (journal, contents) = place.opened("one", &["k1"]).await;
    assert_eq!(record(&contents).as_deref(), Some("2"), "the disk was away for a while");
    // Two at once: each acts by its own records, the ref holds those of whoever was last, whole, and it is said.
    let (other, _) = place.opened("two", &["k1"]).await;
    journal.store(write(&place.first, "3", &[(RECORD, Some("3")), ("x", Some("3"))])).await.expect("it stores");
    other.store(write(&place.second, "4", &[(RECORD, Some("4")), ("y", Some("4"))])).await.expect("it stores");
    journal.push().await.expect("it pushes");
    other.push().await.expect("it pushes");
    assert_eq!(place.record(), "4");
    assert!(other.disbelieved().is_some_and(|said| said.contains("--instance")), "{:?}", other.disbelieved());
    let (_, contents) = place.opened("fresh", &["k1"]).await;
    assert_eq!(contents.state.keys().collect::<Vec<_>>(), [RECORD, "y"], "records of one side only");
}

#[tokio::test]
async fn a_key_is_introduced_by_adopting_what_is_there() {
    let place = place();
    let (journal, _) = place.opened("one", &[]).await;
    place.keep(&journal, "1").await;
    journal.store(write(&place.first, "2", &[(RECORD, Some("2"))])).await.expect("it stores, not pushed");
    drop(journal);
    let local = git(&place.home.path().join("one/journal.git"), &["rev-parse", REF]);
    let pushed = place.tip();
    assert_eq!(place.held(place.options("one", &["k1"])).await, (id(&local), None), "the newest, which is here");
    assert_eq!(place.held(place.options("fresh", &["k1"])).await, (id(&pushed), None));
    let adopting =
        |disk: &str, commit: &str| JournalOptions { adopt: Some(id(commit)), ..place.options(disk, &["k1"]) };
    for elsewhere in [&place.first, &place.second] {
        assert_eq!(
            place.held(adopting("one", elsewhere)).await.0,
            id(&local),
            "a commit of the fleet is none of the journal"
        );
    }
    let (journal, contents) = Journal::open(adopting("one", &local)).await.expect("it is adopted");
    assert_eq!(record(&contents).as_deref(), Some("2"));
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    drop(journal);
    assert_eq!(place.read("fresh").await.as_deref(), Some("2"), "once is enough");
    // The flag was forgotten there: it names what was right then, and nothing else.
    place.forge(&[(RECORD, "forged")]);
    let (_, contents) = Journal::open(adopting("one", &local)).await.expect("it opens");
    assert_eq!(record(&contents).as_deref(), Some("2"));
    // Not even with an empty disk, for it was acted upon; and the operator chooses the newest ones that are believed.
    let (forged, newest) = place.held(adopting("empty", &local)).await;
    let newest = newest.expect("there are some").to_string();
    assert_ne!(forged.to_string(), newest);
    let (journal, contents) = Journal::open(adopting("empty", &newest)).await.expect("it opens");
    assert_eq!(record(&contents).as_deref(), Some("2"));
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!(place.read("last").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn keys_are_changed_one_after_the_other() {
    let place = place();
    let (journal, _) = place.opened("one", &["old"]).await;
    place.keep(&journal, "1").await;
    drop(journal);
    let (journal, contents) = place.opened("one", &["new", "old"]).await;
    assert_eq!(record(&contents).as_deref(), Some("1"));
    assert_eq!(journal.push().await.expect("sealed again at once"), PushOutcome::Pushed);
    drop(journal);
    for disk in ["one", "fresh"] {
        let (_, contents) = place.opened(disk, &["new"]).await;
        assert_eq!(record(&contents).as_deref(), Some("1"), "{disk}: the old key is not needed any more");
    }
    place.held(place.options("late", &["old"])).await;
}

#[tokio::test]
async fn a_ref_that_is_gone_begins_anew_and_one_that_cannot_be_asked_does_not() {
    let place = place();
    let (journal, contents) = place.opened("one", &["k1"]).await;
    assert_eq!(contents.state, BTreeMap::new(), "nothing there is nothing to be believed");
    place.keep(&journal, "1").await;
    drop(journal);
    let gone = place.home.path().join("gone.git");
    fs::rename(&place.bare, &gone).expect("movable");
    let error = place.open("fresh", &["k1"]).await.expect_err("nobody knows");
    assert!(matches!(error, JournalError::Transport(_)), "{error}");
    assert_eq!(place.read("one").await.as_deref(), Some("1"));
    fs::rename(gone, &place.bare).expect("movable");
    // What stands locally is judged too: written without the key by a start that forgot it.
    let (journal, _) = place.opened("one", &[]).await;
    journal.store(write(&place.first, "2", &[(RECORD, Some("2"))])).await.expect("it stores");
    drop(journal);
    let local = JournalOptions { remote: None, ..place.options("one", &["k1"]) };
    let (commit, newest) = place.held(local).await;
    assert_eq!(newest, Some(id(&place.tip())));
    let adopting = JournalOptions { adopt: Some(commit), remote: None, ..place.options("one", &["k1"]) };
    let (_, contents) = Journal::open(adopting).await.expect("it is adopted");
    assert_eq!(record(&contents).as_deref(), Some("2"));
}

impl Place {
    /// Whoever may push puts so many commits on top of the journal, each as `fast-import` reads it: a note, or files below `state/`.
    fn pile(&self, number: usize, files: impl Fn(usize) -> Vec<(String, String)>) {
        use std::fmt::Write as _;
        let mut stream = String::new();
        for commit in 0..number {
            let from = if commit == 0 { format!("from {REF}^0\n") } else { String::new() };
            write!(
                stream,
                "commit {REF}\ncommitter Eve <eve@example.com> {} +0000\ndata 1\nx\n{from}",
                2_000_000_000 + commit
            )
            .expect("strings grow");
            for (path, text) in files(commit) {
                write!(stream, "M 100644 inline {path}\ndata {}\n{text}\n", text.len()).expect("strings grow");
            }
        }
        let file = self.home.path().join("stream");
        fs::write(&file, stream).expect("a file");
        let mut command = std::process::Command::new("git");
        command.args(["fast-import", "--quiet"]).current_dir(&self.bare).stdin(fs::File::open(&file).expect("a file"));
        assert!(command.status().expect("git").success());
    }
}

#[tokio::test]
async fn a_start_finds_what_is_newest_below_ten_thousand_commits() {
    let place = place();
    let (journal, _) = place.opened("one", &["k1"]).await;
    place.keep(&journal, "old").await;
    let seal = place.seal(REF);
    place.keep(&journal, "new").await;
    let newest = place.tip();
    // Old records that were good once, on top, and far above what is newer.
    place.pile(9_000, |number| {
        let note = (format!("ab/{}", "1".repeat(38)), format!("note {number}"));
        let old = vec![(format!("state/{RECORD}"), "old".to_owned()), ("state/@seal.yaml".to_owned(), seal.clone())];
        if number == 0 { old } else { vec![note] }
    });
    let (_, found) = place.held(place.options("empty", &["k1"])).await;
    assert_eq!(found, Some(id(&newest)), "it is found all the same");
    // Who has the records on the disk goes on with them.
    drop(journal);
    assert_eq!(place.read("one").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn more_claims_than_can_be_judged_hide_nothing() {
    let place = place();
    let (journal, _) = place.opened("one", &["k1"]).await;
    place.keep(&journal, "old").await;
    let old = place.seal(REF);
    assert!(old.contains("sequence: 1\n"), "{old}");
    place.keep(&journal, "new").await;
    place.pile(1_100, |number| {
        let (seal, record) = if number == 1_099 {
            (old.clone(), "old".to_owned())
        } else {
            (old.replace("sequence: 1\n", &format!("sequence: {}\n", 9000 + number)), format!("{number}"))
        };
        vec![(format!("state/{RECORD}"), record), ("state/@seal.yaml".to_owned(), seal)]
    });
    // The records on top are good, but were replaced: an empty disk cannot know that they were not, and does not guess.
    let error = Journal::open(place.options("empty", &["k1"])).await.expect_err("not to be believed").to_string();
    assert!(error.contains("claim to be newer than can be judged"), "{error}");
    drop(journal);
    assert_eq!(place.read("one").await.as_deref(), Some("new"), "the disk knows");
    // The operator's word ends it.
    let adopt = Some(id(&place.tip()));
    let options = JournalOptions { adopt, ..place.options("empty", &["k1"]) };
    let (_, contents) = Journal::open(options).await.expect("adopted");
    assert_eq!(record(&contents).as_deref(), Some("old"));
}
