//! Remotes on bad days: they hang, trickle, cut, refuse and lead astray. Deadlines hold, credentials stay, and it recovers.

mod git_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use git_support::journal::{journal_options, write};
use git_support::server::{Day, Server};
use git_support::{Author, git, open, options, patient, write_secret};
use gitamp::fleet::snapshot::SnapshotLimits;
use gitamp::git::journal::{Journal, PushOutcome};
use gitamp::git::mirror::{Mirror, SyncError};
use gitamp::git::{Deadlines, FailureClass, FailureKind, SourceOptions, TransportError};

struct Place {
    home: tempfile::TempDir,
    author: Author,
    server: Server,
    first: String,
}

impl Place {
    fn bare(&self) -> std::path::PathBuf {
        self.home.path().join("fleet.git")
    }

    /// A new commit, there for whoever fetches.
    fn publish(&self, text: &str) -> String {
        let commit = self.author.commit(text, &[("a.yaml", text)]);
        self.author.git(&["push", "-q", "--force", "origin", "main"]);
        commit
    }

    fn options(&self) -> SourceOptions {
        options(&self.server.url(), &self.home.path().join("state"))
    }

    async fn journal(&self, disk: &str) -> Journal {
        let options = journal_options(Some(&self.server.url()), &self.home.path().join(disk));
        Journal::open(options).await.expect("it opens").0
    }

    async fn mirror(&self) -> Mirror {
        open(self.options()).await
    }
}

fn place(day: Day) -> Place {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("author"));
    let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
    git(home.path(), &["clone", "-q", "--bare", "author", "fleet.git"]);
    let bare = home.path().join("fleet.git");
    git(&bare, &["config", "http.receivepack", "true"]);
    author.git(&["remote", "add", "origin", &bare.to_string_lossy()]);
    let server = Server::start(&bare, day);
    Place { home, author, server, first }
}

/// Short deadlines, for days on which they must pass.
fn impatient() -> Deadlines {
    Deadlines {
        connect: Duration::from_millis(700),
        silence: Duration::from_millis(700),
        total: Duration::from_secs(4),
    }
}

fn transport_error(error: SyncError) -> TransportError {
    match error {
        SyncError::Transport(error) => error,
        other @ (SyncError::NotACommit { .. } | SyncError::Local { .. }) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_good_day_over_http() {
    let place = place(Day::Good);
    let mut mirror = place.mirror().await;
    assert_eq!(mirror.sync().await.expect("it syncs").commit.to_string(), place.first);
    let second = place.publish("a: 2\n");
    assert_eq!(mirror.sync().await.expect("it syncs").commit.to_string(), second);
    let before = place.server.requests.load(Ordering::SeqCst);
    mirror.sync().await.expect("nothing new");
    assert_eq!(place.server.requests.load(Ordering::SeqCst) - before, 1, "a poll without news is one request");

    let journal = place.journal("state").await;
    journal.store(write(&second, "over http", &[("a", Some("1"))])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!(git(&place.bare(), &["notes", "--ref=gitamp/default", "show", &second]), "over http");
    drop(journal);
    // Another instance of the same name was first: the server says so, and it is merged.
    let (one, two) = (place.journal("state").await, place.journal("other").await);
    one.store(write(&place.first, "one", &[])).await.expect("it stores");
    two.store(write(&second, "two", &[])).await.expect("it stores");
    assert_eq!(one.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!(two.push().await.expect("it merges"), PushOutcome::Pushed);
    for (commit, note) in [(&place.first, "one"), (&second, "two")] {
        assert_eq!(git(&place.bare(), &["notes", "--ref=gitamp/default", "show", commit]), note);
    }
}

#[tokio::test]
async fn every_bad_day_ends_and_it_recovers_by_itself() {
    for (day, kinds) in [
        (Day::Hang, &[FailureKind::Timeout][..]),
        (Day::Trickle, &[FailureKind::Timeout]),
        (Day::Cut, &[FailureKind::Network, FailureKind::Local]),
        (Day::Status(401), &[FailureKind::Credentials]),
        (Day::Status(403), &[FailureKind::Forbidden]),
        (Day::Status(404), &[FailureKind::NotFound]),
        (Day::Status(429), &[FailureKind::Throttled]),
        (Day::Status(500), &[FailureKind::Server]),
        (Day::Status(503), &[FailureKind::Throttled]),
        (Day::Page, &[FailureKind::Protocol]),
    ] {
        let place = place(Day::Good);
        let mut source = place.options();
        source.deadlines = if matches!(day, Day::Hang | Day::Trickle) { impatient() } else { patient() };
        let mut mirror = open(source).await;
        mirror.sync().await.unwrap_or_else(|error| panic!("{day:?}: {error}"));
        let second = place.publish("a: 2\n");
        place.server.turn(day.clone());
        let error = transport_error(mirror.sync().await.expect_err("a bad day"));
        assert!(kinds.contains(&error.kind), "{day:?}: {:?} {error}", error.kind);
        assert_eq!(mirror.head().map(|head| head.to_string()), Some(place.first.clone()), "{day:?}");
        let old = place.first.parse().expect("a commit id");
        mirror
            .read(old, "main", &SnapshotLimits::default(), None)
            .await
            .unwrap_or_else(|error| panic!("{day:?}: {error}"));
        place.server.turn(Day::Good);
        assert_eq!(mirror.sync().await.expect("well again").commit.to_string(), second, "{day:?}");
    }
}

#[tokio::test]
async fn a_trickle_that_makes_progress_ends_at_the_total_deadline() {
    let place = place(Day::Trickle);
    let mut source = place.options();
    // Silence is never long: a byte comes every 100 ms.
    source.deadlines = Deadlines { total: Duration::from_secs(2), ..patient() };
    let mut mirror = open(source).await;
    let error = transport_error(mirror.sync().await.expect_err("it would take minutes"));
    assert_eq!((error.kind, error.class()), (FailureKind::Timeout, FailureClass::Transient));
    assert!(error.message.contains("2s in total"), "{error}");
}

#[tokio::test]
async fn a_token_opens_the_door_and_is_never_shown_or_led_away() {
    let place = place(Day::Login("x-access-token".to_owned(), "s3cret".to_owned()));
    let token = place.home.path().join("token");
    let mut source = place.options();
    let mut mirror = open(source.clone()).await;
    let error = transport_error(mirror.sync().await.expect_err("no token"));
    assert_eq!((error.kind, error.class()), (FailureKind::Credentials, FailureClass::Stalled));
    assert!(error.message.contains("--git-token-file"), "{error}");

    source.access.token_file = Some(token.clone());
    let mut mirror = open(source.clone()).await;
    for (content, part) in [(None, "cannot read"), (Some(""), "is empty"), (Some("a\nb"), "one line")] {
        if let Some(content) = content {
            write_secret(&token, content);
        }
        let error = transport_error(mirror.sync().await.expect_err(part));
        assert!(error.kind == FailureKind::Credentials && error.message.contains(part), "{error}");
    }
    fs::write(&token, "wr0ng\n").expect("writable");
    let before = place.server.requests.load(Ordering::SeqCst);
    let error = transport_error(mirror.sync().await.expect_err("the wrong token"));
    assert_eq!(error.kind, FailureKind::Credentials);
    assert!(!error.message.contains("wr0ng"), "{error}");
    assert!(place.server.requests.load(Ordering::SeqCst) - before <= 3, "no storm of attempts");
    fs::write(&token, "s3cret\n").expect("writable");
    mirror.sync().await.expect("a token can be rotated under a running process");
    let config = fs::read_to_string(place.home.path().join("state/mirror.git/config")).expect("a file");
    assert!(!config.contains("s3cret"), "{config}");

    source.access.token_user = "oauth2".to_owned();
    let mut renamed = open(source.clone()).await;
    let error =
        transport_error(renamed.sync().await.expect_err("the right token under a name that the remote does not know"));
    assert_eq!(error.kind, FailureKind::Credentials);
    place.server.turn(Day::Login("oauth2".to_owned(), "s3cret".to_owned()));
    renamed.sync().await.expect("some forges want another name beside the token");

    // Somebody answers in the remote's place and leads to another host: the token stays at home.
    let thief = Server::start(&place.bare(), Day::Login("x-access-token".to_owned(), "never".to_owned()));
    place.server.turn(Day::Redirect(format!("http://localhost:{}", thief.address.port())));
    let error = transport_error(mirror.sync().await.expect_err("led astray"));
    assert_eq!(error.class(), FailureClass::Stalled, "{error}");
    assert!(thief.authorizations.lock().expect("no panic").is_empty(), "nothing was sent elsewhere");
}

#[tokio::test]
async fn a_token_is_not_sent_in_clear_to_other_machines() {
    let home = tempfile::tempdir().expect("a directory");
    let token = home.path().join("token");
    write_secret(&token, "s3cret");
    let mut source = options("http://git.invalid/fleet.git", &home.path().join("state"));
    source.access.token_file = Some(token);
    let error = transport_error(open(source).await.sync().await.expect_err("it would be in clear"));
    assert!(error.message.contains("unencrypted") && error.kind == FailureKind::Credentials, "{error}");
}

#[tokio::test]
async fn a_hook_that_declines_keeps_the_journal_local_and_is_no_error() {
    let place = place(Day::Good);
    let hook = place.bare().join("hooks/update");
    fs::create_dir_all(hook.parent().expect("a parent")).expect("a directory");
    fs::write(&hook, "#!/bin/sh\necho 'notes are protected' >&2\nexit 1\n").expect("writable");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("ours");
    let journal = place.journal("state").await;
    journal.store(write(&place.first, "local", &[])).await.expect("it stores");
    let before = place.server.requests.load(Ordering::SeqCst);
    let outcome = journal.push().await.expect("a supported way of working");
    assert!(
        matches!(&outcome, PushOutcome::ReadOnly { reason, .. } if reason.contains("hook declined")),
        "{outcome:?}"
    );
    assert!(place.server.requests.load(Ordering::SeqCst) - before <= 3, "no storm of attempts");
    fs::remove_file(&hook).expect("removable");
    assert_eq!(journal.push().await.expect("allowed now"), PushOutcome::Pushed);

    git(&place.bare(), &["config", "http.receivepack", "false"]);
    journal.store(write(&place.first, "again", &[])).await.expect("it stores");
    let outcome = journal.push().await.expect("a read-only remote");
    assert!(matches!(outcome, PushOutcome::ReadOnly { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_push_whose_answer_was_lost_is_found_to_have_arrived() {
    let place = place(Day::Good);
    let journal = place.journal("state").await;
    journal.store(write(&place.first, "arrived", &[])).await.expect("it stores");
    place.server.turn(Day::Forget);
    journal.push().await.expect_err("no answer");
    assert_eq!(git(&place.bare(), &["notes", "--ref=gitamp/default", "show", &place.first]), "arrived");
    place.server.turn(Day::Good);
    let commits = |place: &Place| git(&place.bare(), &["rev-list", "--count", "refs/notes/gitamp/default"]);
    assert_eq!(journal.push().await.expect("it was there"), PushOutcome::Pushed);
    assert_eq!(commits(&place), "1", "nothing is written twice");
}

#[tokio::test]
async fn storing_never_waits_for_a_push() {
    let place = place(Day::Good);
    let journal = place.journal("state").await;
    journal.store(write(&place.first, "one", &[])).await.expect("it stores");
    place.server.turn(Day::Hang);
    let before = place.server.requests.load(Ordering::SeqCst);
    let pusher = journal.clone();
    let push = tokio::spawn(async move { pusher.push().await });
    while place.server.requests.load(Ordering::SeqCst) == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    journal.store(write(&place.first, "two", &[])).await.expect("it stores while the push hangs");
    assert!(!push.is_finished(), "the push still hangs");
    push.abort();
    drop(push.await);
    place.server.turn(Day::Good);
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!(git(&place.bare(), &["notes", "--ref=gitamp/default", "show", &place.first]), "two");
}

#[tokio::test]
async fn a_dropped_transfer_leaves_no_process_behind() {
    let place = place(Day::Hang);
    let state = place.home.path().join("state");
    let needle = state.to_string_lossy().into_owned();
    let mut source = place.options();
    // A name of its own, to tell its processes from those of tests beside this one.
    source.transport_program = place.home.path().join("hang-marker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_gitamp"), &source.transport_program).expect("a link");
    let mut mirror = open(source).await;
    let syncing = tokio::spawn(async move { drop(mirror.sync().await) });
    while place.server.requests.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!children().is_empty(), "the transfer runs in a process of its own");
    assert!(
        children().iter().all(|arguments| !arguments.contains(&needle) && !arguments.contains("http")),
        "and its arguments tell nothing"
    );
    syncing.abort();
    drop(syncing.await);
    for _ in 0..200 {
        if children().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still there: {:?}", children());
}

/// The command lines of this process's children that transfer something.
fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    processes
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let after = stat.rsplit_once(')')?.1;
            let mut fields = after.split_whitespace();
            let (status, parent) = (fields.next()?, fields.next()?);
            let arguments = fs::read(entry.path().join("cmdline")).ok()?;
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            (parent == own && status != "Z" && arguments.contains("git-transport") && arguments.contains("hang-marker"))
                .then_some(arguments)
        })
        .collect()
}

#[tokio::test]
async fn a_program_that_is_none_is_said() {
    let place = place(Day::Good);
    for (program, part) in
        [("/nowhere/gitamp", "cannot start"), ("/bin/true", "without an answer"), ("/bin/echo", "makes no sense")]
    {
        let mut source = place.options();
        source.transport_program = Path::new(program).to_owned();
        let error = transport_error(open(source).await.sync().await.expect_err(program));
        assert!(error.kind == FailureKind::Child && error.message.contains(part), "{program}: {error}");
    }
}

#[test]
fn a_transfer_ends_with_its_parent() {
    use std::io::Write;
    let place = place(Day::Hang);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_gitamp"))
        .arg("git-transport")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let request = serde_json::json!({
        "url": place.server.url(), "token": null, "token_user": "x", "ssh_key_file": null, "ssh_agent": false,
        "revoked_host_keys": [],
        "connect_millis": 600_000, "silence_millis": 600_000, "total_millis": 600_000,
        "action": {"fetch-tracked": {"repository": place.home.path().join("m.git"), "tracked": "default", "shallow": false, "into": "refs/x"}},
    });
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "{request}").expect("it listens");
    while place.server.requests.load(Ordering::SeqCst) == 0 {
        assert!(child.try_wait().expect("a child").is_none(), "it hangs in its request");
        std::thread::sleep(Duration::from_millis(5));
    }
    // As the kernel does when the parent is killed.
    drop(stdin);
    for _ in 0..500 {
        if child.try_wait().expect("a child").is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("it is ours");
    panic!("it outlived its parent");
}
