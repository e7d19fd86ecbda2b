//! The journal at the running program: its remote fails, is taken, or is written by others, and the fleet never notices.

mod git_support;
mod support;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use git_support::server::{Day, Server};
use git_support::{git, try_git};
use gitamp::simulate::Fleet;
use support::gateways::{AT_ONCE, agents, change, gateways};
use support::{Daemon, PATIENCE, Repository, now, stays, wait_for, write_secret};

const REF: &str = "refs/notes/gitamp/default";

const AGENTS: u32 = 3;

fn repository() -> Repository {
    gateways(&format!("{AT_ONCE}  maxUnavailable: 100%\n"))
}

/// Waits until the daemon's only group is finished with this many offers in all; its stable hash.
fn finished(daemon: &Daemon, fleet: &Fleet, offers: u64) -> String {
    wait_for("the rollout to end", || {
        let (group, counts) = (daemon.group("gateways"), fleet.counts());
        let is_done =
            group["phase"] == "steady" && group["counts"]["confirmed"] == AGENTS && group["stable"] == group["wanted"];
        match group["stable"].as_str() {
            Some(stable) if is_done && counts.offers == offers => Ok(stable.to_owned()),
            Some(_) | None => Err(format!("{group} {} offers", counts.offers)),
        }
    })
}

/// A repository for the notes alone, behind a server.
fn notes_repository(directory: &tempfile::TempDir) -> (PathBuf, Server) {
    git(directory.path(), &["init", "-q", "--bare", "notes.git"]);
    let notes = directory.path().join("notes.git");
    git(&notes, &["config", "http.receivepack", "true"]);
    let server = Server::start(&notes, Day::Good);
    (notes, server)
}

/// Waits for the note on a commit, longer than the longest pause between two pushes on a busy machine.
fn arrives(notes: &std::path::Path, commit: &str, word: &str) {
    let until = now() + PATIENCE * 4;
    loop {
        let (_, note, _) = try_git(notes, &["notes", "--ref=gitamp/default", "show", commit]);
        if note.contains(word) {
            return;
        }
        assert!(now() < until, "the note on {commit} does not arrive: {note:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn rollouts_never_wait_for_the_journals_remote_and_the_notes_arrive_when_it_is_well() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (notes, server) = notes_repository(&directory);
    let repository = repository();
    let first = repository.git(&["rev-parse", "HEAD"]);
    let mut daemon = Daemon::start(&repository, &["--interval=1h", &format!("--journal-repo={}", server.url())]);
    let fleet = agents(&daemon, AGENTS);
    let mut offers = u64::from(AGENTS);
    let mut stable = finished(&daemon, &fleet, offers);
    arrives(&notes, &first, "ending: succeeded");
    assert_eq!(repository.note(&first), None, "the fleet's own repository gets none");

    for (day, level) in [(Day::Hang, "normal"), (Day::Status(500), "detailed"), (Day::Status(401), "basic")] {
        server.turn(day.clone());
        let commit = change(&repository, "Another level", level);
        offers += u64::from(AGENTS);
        let next = finished(&daemon, &fleet, offers);
        assert_ne!(next, stable, "{day:?}: the rollout went on");
        stable = next;
        let before = server.requests.load(Ordering::SeqCst);
        wait_for("status to say that it is not pushed", || {
            let journal = daemon.status()["journal"].clone();
            if journal["error"].as_str().is_some_and(|error| error.starts_with("pushing ")) {
                Ok(())
            } else {
                Err(journal)
            }
        });
        let (code, shown) = (daemon.metric("gitamp_journal_error"), daemon.ask(&["notes", &commit]));
        assert!(
            code == Some(1.0) && shown.contains("ending: succeeded"),
            "{day:?}: the notes can be read here: {shown}"
        );
        server.turn(Day::Good);
        arrives(&notes, &commit, "ending: succeeded");
        let asked = server.requests.load(Ordering::SeqCst) - before;
        assert!(asked < 60, "{day:?}: no storm of {asked} requests");
        wait_for("status to be well", || {
            let journal = daemon.status()["journal"].clone();
            if journal["error"].is_null() && journal["localOnly"] == false { Ok(()) } else { Err(journal) }
        });
    }
    // The records are in that repository too: an empty disk resumes from them.
    daemon.kill();
    std::fs::remove_dir_all(daemon.state()).expect("the state directory goes");
    daemon.restart();
    assert_eq!(finished(&daemon, &fleet, offers), stable);
    stays("nobody is offered anything again", Duration::from_secs(1), || fleet.counts().offers);
}

#[test]
fn a_ref_that_holds_something_foreign_is_left_alone_and_told() {
    let repository = repository();
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["push", "-q", "origin", &format!("{first}:{REF}")]);
    let daemon = Daemon::start(&repository, &["--interval=1h"]);
    let fleet = agents(&daemon, AGENTS);
    finished(&daemon, &fleet, u64::from(AGENTS));
    wait_for("status to tell", || {
        let journal = daemon.status()["journal"].clone();
        let is_told =
            journal["error"].as_str().is_some_and(|error| error.contains(REF) && error.contains("left alone"));
        if is_told && journal["foreign"] == true && journal["localOnly"] == true { Ok(()) } else { Err(journal) }
    });
    assert_eq!(daemon.metric("gitamp_journal_foreign"), Some(1.0));
    assert!(daemon.process().log().contains("left alone"), "the log tells it too");
    assert_eq!(git(&repository.remote(), &["rev-parse", REF]), first, "nothing was written there");
    git(&repository.remote(), &["update-ref", "-d", REF]);
    arrives(&repository.remote(), &first, "ending: succeeded");
    wait_for("the metric to be well", || match daemon.metric("gitamp_journal_foreign") {
        Some(0.0) => Ok(()),
        other => Err(other),
    });
}

#[test]
fn with_a_key_forged_records_give_nobody_a_configuration() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let key = directory.path().join("key");
    write_secret(&key, "0123456789abcdef0123456789abcdef\n");
    let repository = repository();
    let first = repository.git(&["rev-parse", "HEAD"]);
    let mut daemon = Daemon::start(&repository, &["--interval=1h"]);
    let fleet = agents(&daemon, AGENTS);
    let offers = u64::from(AGENTS);
    let stable = finished(&daemon, &fleet, offers);
    arrives(&repository.remote(), &first, "ending: succeeded");

    // The key is introduced: the start waits for the operator's word, and agents notice nothing.
    daemon.kill();
    daemon.also(&format!("--journal-key-file={}", key.display()));
    daemon.spawn();
    let held = |daemon: &Daemon| {
        wait_for("the start to wait", || {
            let journal = daemon.status()["journal"].clone();
            let error = journal["error"].as_str().unwrap_or_default().to_owned();
            if error.contains("not believed") { Ok(error) } else { Err(journal) }
        })
    };
    let said = held(&daemon);
    // The disk may be ahead of the remote.
    let commit = git(&daemon.state().join("journal.git"), &["rev-parse", REF]);
    assert!(said.contains(&commit) && said.contains("--journal-adopt"), "{said}");
    daemon.kill();
    daemon.also(&format!("--journal-adopt={commit}"));
    daemon.restart();
    assert_eq!(finished(&daemon, &fleet, offers), stable);
    wait_for("the seal to arrive", || {
        let (is_there, seal, said) = try_git(&repository.remote(), &["show", &format!("{REF}:state/@seal.yaml")]);
        if is_there && seal.contains("sequence:") { Ok(()) } else { Err(said) }
    });

    // Somebody who may push makes a configuration of their own the stable one; the disk is lost as well.
    daemon.kill();
    let good = git(&repository.remote(), &["rev-parse", REF]);
    std::fs::remove_dir_all(daemon.state()).expect("the state directory goes");
    let work = repository.work();
    repository.git(&["fetch", "-q", "origin", &format!("+{REF}:{REF}")]);
    repository.git(&["worktree", "add", "-q", "--detach", "forged", REF]);
    let forged = work.join("forged");
    let record = forged.join("state/groups/gateways/@record.yaml");
    let text = std::fs::read_to_string(&record).expect("the record");
    let evil = "f".repeat(64);
    assert!(text.contains(&stable), "{text}");
    std::fs::write(&record, text.replace(&stable, &evil)).expect("writable");
    git(&forged, &["commit", "-q", "-a", "-m", "forged"]);
    git(&forged, &["push", "-q", "origin", &format!("HEAD:{REF}")]);
    daemon.spawn();
    let said = held(&daemon);
    assert!(said.contains(&good), "the newest records that are believed are named: {said}");
    stays("nobody is offered anything", Duration::from_secs(2), || fleet.counts().offers);
    assert_eq!(fleet.counts().offers, offers);

    // Put right, it goes on by itself.
    git(&repository.remote(), &["update-ref", REF, &good]);
    daemon.ask(&["sync"]);
    daemon.ready();
    assert_eq!(finished(&daemon, &fleet, offers), stable);
    let commit = change(&repository, "Another level", "normal");
    arrives(&repository.remote(), &commit, "ending: succeeded");
    let notes = daemon.ask(&["notes", &commit, &format!("--journal-key-file={}", key.display())]);
    assert!(notes.contains("default (signed)"), "{notes}");
    assert_eq!(daemon.metric("gitamp_journal_disbelieved"), Some(0.0));
}
