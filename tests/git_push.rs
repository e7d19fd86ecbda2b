//! Pushing the journal on every kind of bad day: nothing is lost, nobody is overwritten, nobody is stormed, and it arrives in the end.

mod git_support;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use git_support::journal::{REF, Remote, journal_options, write};
use git_support::server::{Day, Server};
use git_support::{git, try_git};
use gitamp::fleet::snapshot::CommitId;
use gitamp::git::journal::{Journal, JournalError, PushOutcome};
use gitamp::git::{Deadlines, FailureKind};

/// A remote that remembers every move of its refs, behind a server.
struct Place {
    remote: Remote,
    server: Server,
}

impl std::ops::Deref for Place {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.remote
    }
}

fn place() -> Place {
    let remote = Remote::new();
    git(&remote.bare, &["config", "http.receivepack", "true"]);
    git(&remote.bare, &["config", "core.logAllRefUpdates", "always"]);
    let server = Server::start(&remote.bare, Day::Good);
    Place { remote, server }
}

impl Place {
    async fn journal(&self) -> Journal {
        let state = self.home.path().join("state");
        Journal::open(journal_options(Some(&self.server.url()), &state)).await.expect("it opens").0
    }

    /// Somebody else's note on an object of their own, written on the server; the object.
    fn write_elsewhere(&self, text: &str) -> String {
        fs::write(self.bare.join("elsewhere"), text).expect("a file");
        let object = git(&self.bare, &["hash-object", "-w", "elsewhere"]);
        git(&self.bare, &["notes", "--ref=gitamp/default", "add", "-m", text, &object]);
        object
    }

    fn requests(&self) -> usize {
        self.server.requests.load(Ordering::SeqCst)
    }

    /// Holds that the ref of the notes only ever moved forwards.
    fn only_forwards(&self) {
        let log = fs::read_to_string(self.bare.join("logs").join(REF)).expect("a log of the ref");
        let mut moves = 0;
        for line in log.lines() {
            let mut words = line.split(' ');
            let (old, new) = (words.next().expect("old"), words.next().expect("new"));
            let is_new = old.bytes().all(|byte| byte == b'0');
            assert!(is_new || try_git(&self.bare, &["merge-base", "--is-ancestor", old, new]).0, "{log}");
            moves += 1;
        }
        assert!(moves >= 2, "the log tells of pushes: {log}");
        git(&self.bare, &["fsck", "--full", "--strict"]);
    }
}

/// Short deadlines, for days on which they must pass.
fn impatient() -> Deadlines {
    Deadlines {
        connect: Duration::from_millis(700),
        silence: Duration::from_millis(700),
        total: Duration::from_secs(4),
    }
}

/// What kind of failure a push came to, and whether the journal counts as local.
fn came_to(outcome: Result<PushOutcome, JournalError>) -> (FailureKind, bool) {
    match outcome {
        Ok(PushOutcome::ReadOnly { kind, .. }) => (kind, true),
        Ok(good @ (PushOutcome::Pushed | PushOutcome::UpToDate)) => panic!("it went well: {good:?}"),
        Err(error) => (error.kind(), false),
    }
}

#[tokio::test]
async fn on_every_bad_day_the_push_ends_and_everybodys_notes_arrive_afterwards() {
    let astray = Server::start(Path::new("/nowhere"), Day::Status(500));
    let elsewhere = format!("http://localhost:{}", astray.address.port());
    let not_local = |kinds: &'static [FailureKind]| (kinds, false);
    for (day, (kinds, is_local)) in [
        (Day::Hang, not_local(&[FailureKind::Timeout])),
        (Day::Trickle, not_local(&[FailureKind::Timeout])),
        (Day::Cut, not_local(&[FailureKind::Network])),
        (Day::Forget, not_local(&[FailureKind::Network])),
        (Day::Status(401), (&[FailureKind::Credentials], true)),
        (Day::Status(403), (&[FailureKind::Forbidden], true)),
        (Day::ReadOnly, (&[FailureKind::Forbidden], true)),
        (Day::Status(404), not_local(&[FailureKind::NotFound])),
        (Day::Status(429), not_local(&[FailureKind::Throttled])),
        (Day::Status(500), not_local(&[FailureKind::Server])),
        (Day::Status(503), not_local(&[FailureKind::Throttled])),
        (Day::Redirect(elsewhere), not_local(&[FailureKind::Protocol, FailureKind::Network])),
        (Day::Page, not_local(&[FailureKind::Protocol])),
    ] {
        let place = place();
        let journal = place.journal().await;
        journal.store(write(&place.first, "before", &[("a", Some("1"))])).await.expect("it stores");
        assert_eq!(journal.push().await.expect("a good day"), PushOutcome::Pushed, "{day:?}");
        let theirs = place.write_elsewhere("theirs, before");

        place.server.turn(day.clone());
        journal.store(write(&place.second, "meanwhile", &[("b", Some("2"))])).await.expect("it stores");
        let before = place.requests();
        for _ in 0..2 {
            let outcome = journal.within(if matches!(day, Day::Hang | Day::Trickle) {
                impatient()
            } else {
                git_support::patient()
            });
            let (kind, local) = came_to(outcome.push().await);
            assert!(kinds.contains(&kind) && local == is_local, "{day:?}: {kind:?}, local: {local}");
        }
        assert!(place.requests() - before <= 10, "{day:?}: no storm of {} requests", place.requests() - before);
        let second: CommitId = place.second.parse().expect("a commit");
        assert_eq!(journal.note(second).await.expect("it reads").as_deref(), Some("meanwhile"), "{day:?}");

        place.server.turn(Day::Good);
        let also_theirs = place.write_elsewhere("theirs, after");
        // Where only the answer was lost, ours is there already, and what came on top of it is taken over.
        let outcome = journal.push().await.expect("well again");
        assert!(matches!(outcome, PushOutcome::Pushed | PushOutcome::UpToDate), "{day:?}: {outcome:?}");
        for (object, note) in [
            (&place.first, "before"),
            (&place.second, "meanwhile"),
            (&theirs, "theirs, before"),
            (&also_theirs, "theirs, after"),
        ] {
            assert_eq!(place.note(object), note, "{day:?}");
        }
        let files = git(&place.bare, &["ls-tree", "-r", "--name-only", &format!("{REF}:state")]);
        assert_eq!(files, "a\nb", "{day:?}");
        place.only_forwards();
    }
    assert_eq!(astray.requests.load(Ordering::SeqCst), 0, "nobody is followed to another host");
}

#[tokio::test]
async fn rivals_that_are_always_first_cost_a_few_tries_and_nobodys_notes() {
    let place = place();
    let journal = place.journal().await;
    journal.store(write(&place.first, "ours", &[("a", Some("1"))])).await.expect("it stores");
    place.server.turn(Day::Rivals(3));
    assert_eq!(journal.push().await.expect("the fourth try is ours"), PushOutcome::Pushed);
    let notes = |place: &Place| git(&place.bare, &["notes", "--ref=gitamp/default", "list"]).lines().count();
    assert_eq!(notes(&place), 4, "three of theirs and one of ours");

    place.server.turn(Day::Rivals(1000));
    journal.store(write(&place.second, "ours, too", &[("b", Some("2"))])).await.expect("it stores");
    let before = place.requests();
    let error = journal.push().await.expect_err("somebody is always first");
    assert!(matches!(error, JournalError::Contended) && error.kind() == FailureKind::NotFastForward, "{error}");
    assert!(place.requests() - before <= 6 * 8, "a bounded number of tries: {}", place.requests() - before);
    let rivals = notes(&place) - 4;
    assert!((1..=7).contains(&rivals), "{rivals}");
    place.server.turn(Day::Good);
    assert_eq!(journal.push().await.expect("nobody is in the way"), PushOutcome::Pushed);
    assert_eq!(notes(&place), 4 + rivals + 1);
    assert_eq!((place.note(&place.first), place.note(&place.second)), ("ours".to_owned(), "ours, too".to_owned()));
    place.only_forwards();
}

#[tokio::test]
async fn a_ref_that_is_deleted_or_taken_by_something_else_over_http() {
    let place = place();
    let journal = place.journal().await;
    journal.store(write(&place.first, "one", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    git(&place.bare, &["update-ref", "-d", REF]);
    journal.store(write(&place.second, "two", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it is made again"), PushOutcome::Pushed);
    assert_eq!((place.note(&place.first), place.note(&place.second)), ("one".to_owned(), "two".to_owned()));

    git(&place.bare, &["update-ref", REF, "main"]);
    let main = git(&place.bare, &["rev-parse", "main"]);
    journal.store(write(&place.first, "three", &[])).await.expect("it stores");
    for _ in 0..2 {
        assert_eq!(came_to(journal.push().await), (FailureKind::PushRefused, true));
        assert!(journal.foreign().is_some_and(|why| why.contains(REF) && why.contains("left alone")));
        assert_eq!(git(&place.bare, &["rev-parse", REF]), main, "it is left alone");
    }
    git(&place.bare, &["update-ref", "-d", REF]);
    assert_eq!(journal.push().await.expect("it is free again"), PushOutcome::Pushed);
    assert_eq!(journal.foreign(), None);
    assert_eq!(place.note(&place.first), "three");
}

#[tokio::test]
async fn what_somebody_puts_where_our_notes_and_records_belong_is_kept_beside_them() {
    let place = place();
    let journal = place.journal().await;
    journal.store(write(&place.first, "before", &[("a", Some("1"))])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    let bare = &place.bare;
    let [taken, buried, later] =
        [("ab", "1"), ("cd", "2"), ("ef", "3")].map(|(two, digit)| two.to_owned() + &digit.repeat(38));
    fs::write(bare.join("theirs"), "theirs").expect("a file");
    let theirs = git(bare, &["hash-object", "-w", "theirs"]);
    // On top of our history, as a push that nobody refuses: files where folders belong, and folders where files do.
    let put = |paths: &[&str]| {
        git(bare, &["read-tree", REF]);
        for path in paths {
            git(bare, &["update-index", "--add", "--replace", "--cacheinfo", &format!("100644,{theirs},{path}")]);
        }
        let tree = git(bare, &["write-tree"]);
        let commit = git(bare, &["commit-tree", "-p", REF, "-m", "theirs", &tree]);
        git(bare, &["update-ref", REF, &commit]);
    };
    put(&["ab", &format!("cd/{}/x", &buried[2..]), "state/prod", "state/b/x"]);
    let folder = git(bare, &["rev-parse", &format!("{REF}:cd/{}", &buried[2..])]);
    // Taken over as it is, and written to.
    journal.verify().await.expect("it looks");
    journal.store(write(&taken, "taken", &[("prod/x", Some("2")), ("b", Some("3"))])).await.expect("it stores");
    journal.store(write(&buried, "buried", &[])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    // And once more, when both sides have gone on.
    journal.store(write(&later, "later", &[])).await.expect("it stores");
    put(&["ef"]);
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    for (commit, note) in [(&place.first, "before"), (&taken, "taken"), (&buried, "buried"), (&later, "later")] {
        assert_eq!(place.note(commit), note, "{commit}");
        let read = journal.note(commit.parse().expect("a commit")).await.expect("it reads");
        assert_eq!(read.as_deref(), Some(note), "{commit}");
    }
    let files = git(bare, &["ls-tree", "-r", "--name-only", REF]);
    for path in [format!("foreign-{theirs}"), format!("foreign-{folder}/x"), "state/prod/x".into(), "state/b".into()] {
        assert!(files.lines().any(|line| line == path), "{path}: {files}");
    }
    // Git goes on with it as with any notes.
    git(bare, &["notes", "--ref=gitamp/default", "append", "-m", "a word", &place.first]);
    assert!(place.note(&place.first).ends_with("a word") && place.note(&taken) == "taken");
    place.only_forwards();
}

#[tokio::test]
async fn a_journal_in_a_repository_that_has_none_of_the_commits() {
    let place = place();
    let notes = place.home.path().join("notes.git");
    git(place.home.path(), &["init", "-q", "--bare", "notes.git"]);
    let url = notes.to_string_lossy().into_owned();
    let state = place.home.path().join("state");
    let (journal, _) = Journal::open(journal_options(Some(&url), &state)).await.expect("it opens");
    journal.store(write(&place.first, "elsewhere", &[("a", Some("1"))])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    drop(journal);
    // Moved to another repository: the next start brings everything there.
    git(place.home.path(), &["init", "-q", "--bare", "other.git"]);
    let other = place.home.path().join("other.git").to_string_lossy().into_owned();
    let (journal, _) = Journal::open(journal_options(Some(&other), &state)).await.expect("it opens");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    drop(journal);
    fs::remove_dir_all(&state).expect("removable");
    let (journal, contents) = Journal::open(journal_options(Some(&other), &state)).await.expect("an empty disk");
    assert_eq!(contents.state.get("a").map(|bytes| bytes.to_vec()), Some(b"1".to_vec()));
    let first: CommitId = place.first.parse().expect("a commit");
    assert_eq!(journal.note(first).await.expect("it reads").as_deref(), Some("elsewhere"));
    git(&notes, &["fsck", "--full", "--strict"]);
}
