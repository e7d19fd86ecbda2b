//! What an operator asks and orders from the command line, at the running program.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Output, Stdio};
use std::sync::{Arc, Mutex};

use gitamp::simulate::Fleet;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use support::gateways::{AT_ONCE, agents, collector, gateways};
use support::{Daemon, Repository, get, post, run, wait_for};

/// A daemon with a group `gateways` of four agents that all run what the repository says.
fn settled() -> (Repository, Daemon, Fleet) {
    let repository = gateways(&format!("{AT_ONCE}  maxUnavailable: 100%\n  onFailure: pause\n"));
    let daemon = Daemon::start(&repository, &["--interval", "1h"]);
    let fleet = agents(&daemon, 4);
    repository.ending(&repository.git(&["rev-parse", "HEAD"]), "succeeded");
    (repository, daemon, fleet)
}

fn words(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn ask(daemon: &Daemon, line: &str) -> (Option<i32>, String, String) {
    words(&run(&mut daemon.command(&line.split(' ').collect::<Vec<_>>())))
}

#[test]
fn rollouts_and_agents_are_explained() {
    let (repository, daemon, fleet) = settled();
    let (code, text, _) = ask(&daemon, "rollout gateways");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("gateways  steady, nothing is rolled out"), "{text}");
    assert!(text.contains("4 connected: 4 confirmed"), "{text}");
    let (code, text, errors) = ask(&daemon, "rollout gateway");
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(errors.contains("there is no group `gateway`: is it gateways?"), "{errors}");

    let agents: serde_json::Value = serde_json::from_str(&daemon.ask(&["agents", "--output", "json"])).expect("JSON");
    let id = agents["agents"][0]["id"].as_str().expect("an id").to_owned();
    let (code, text, _) = ask(&daemon, &format!("explain {id}"));
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "labels ",
        "service.name=otelcol-gateway",
        "It belongs to gateways, which selects it (priority 0)",
        "It is connected over a WebSocket.",
        "It has what it should have, and is well.",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let (code, text, errors) = ask(&daemon, "explain ffffffff-ffff");
    assert_eq!((code, text.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("no agent's id begins with `ffffffff-ffff`"), "{errors}");
    let (code, ..) = ask(&daemon, "explain ../status");
    assert_eq!(code, Some(2));

    let bad = repository.commit("Break it", &[("gateways/collector.yaml", &collector("broken"))]);
    wait_for("a failure to be explained", || {
        let (_, text, _) = ask(&daemon, &format!("explain {id} --output json"));
        let explained: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let next = explained["next"].to_string();
        if next.contains("It failed") && next.contains("gitamp retry gateways") { Ok(()) } else { Err(explained) }
    });
    let note = wait_for("the commit to have ended", || {
        let note = repository.note(&bad).unwrap_or_default();
        if note.contains("ending: failed") || note.contains("ending: rolled-back") { Ok(note) } else { Err(note) }
    });
    assert!(note.contains("exited unexpectedly"), "{note}");
    drop(fleet);
}

#[test]
fn orders_are_asked_about_and_refusals_are_told() {
    let (_repository, daemon, fleet) = settled();
    for line in ["pause nowhere", "freeze nowhere --reason holidays", "pin nowhere --for 4h", "undo nowhere"] {
        let (code, text, errors) = ask(&daemon, &format!("{line} --yes"));
        assert_eq!(code, Some(1), "{line}: {text} {errors}");
        assert!(errors.starts_with("refused: ") && errors.trim_end().len() > "refused: ".len(), "{line}: {errors}");
        let (code, text, _) = ask(&daemon, &format!("{line} --output json --yes"));
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(code, Some(1), "{line}: {document}");
        assert_eq!(document["done"], false, "{line}: {document}");
        assert!(document["refused"].as_str().is_some_and(|words| !words.is_empty()), "{line}: {document}");
    }
    let (code, _, errors) = ask(&daemon, "undo");
    assert_eq!(code, Some(2), "{errors}");
    let nobody = tempfile::tempdir().expect("a directory");
    let mut stray = support::gitamp(["pause", "gateways", "--yes"]);
    let (code, _, errors) = words(&run(stray.arg("--state-dir").arg(nobody.path())));
    assert_eq!(code, Some(2));
    assert!(errors.contains("no gitamp daemon answers"), "{errors}");

    let order = br#"{"command":"pause","group":"gateways"}"#;
    for path in ["/api/v1/orders", "/api/v1/orders/preview", "/api/v1/orders/refused"] {
        let (code, body) = post(daemon.admin(), path, &[], order).expect("an answer");
        assert_eq!(code, 403, "{path}: {body}");
    }
    let (code, body) = get(daemon.admin(), "/api/v1/agents/ffff/explanation").expect("an answer");
    assert_eq!(code, 404, "{body}");
    drop(fleet);
}

fn yes(daemon: &Daemon, line: &str) -> serde_json::Value {
    let (code, text, errors) = ask(daemon, &format!("{line} --yes --output json"));
    assert_eq!(code, Some(0), "{line}: {text} {errors}");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["done"], true, "{line}: {document}");
    document
}

/// Waits until every agent has one and the same configuration, other than `before`; its hash.
fn all_have(fleet: &Fleet, before: Option<&str>) -> String {
    wait_for("all agents to have one configuration", || {
        let counts = fleet.counts();
        let one = counts.configs.iter().find(|config| config.applied == counts.agents).map(|one| one.hash.to_string());
        one.filter(|hash| Some(hash.as_str()) != before).ok_or(counts)
    })
}

#[test]
fn a_freeze_holds_everything_until_it_ends_also_over_a_restart() {
    let (repository, mut daemon, fleet) = settled();
    let basic = all_have(&fleet, None);
    let document = yes(&daemon, "freeze --reason holidays");
    assert_eq!((&document["command"], &document["impact"]["agents"]), (&"freeze".into(), &4.into()), "{document}");
    let (code, _, errors) = ask(&daemon, "freeze --reason again --yes");
    assert_eq!(code, Some(1), "{errors}");

    let second = repository.commit("Say more", &[("gateways/collector.yaml", &collector("normal"))]);
    daemon.ask(&["sync"]);
    let frozen = |daemon: &Daemon| {
        wait_for("the freeze to be told", || {
            let (_, text, _) = ask(daemon, "rollout gateways");
            if text.contains("frozen") && text.contains("holidays") { Ok(()) } else { Err(text) }
        });
    };
    frozen(&daemon);
    daemon.kill();
    daemon.restart();
    wait_for("the agents to be back", || {
        let counts = fleet.counts();
        if counts.connected == 4 && counts.connects >= 8 { Ok(()) } else { Err(counts) }
    });
    frozen(&daemon);
    assert_eq!(all_have(&fleet, None), basic, "nothing was offered");
    assert_eq!(fleet.counts().offers, 4, "nothing was offered");

    yes(&daemon, "unfreeze");
    repository.ending(&second, "succeeded");
    assert_ne!(all_have(&fleet, Some(&basic)), basic);
    let log = repository.git(&["log", "--format=%B", "refs/notes/gitamp/default"]);
    assert!(log.contains("freeze by ") && log.contains("holidays"), "the journal's history tells of the order:\n{log}");
    drop(fleet);
}

#[test]
fn an_undo_goes_back_and_a_resume_goes_on() {
    let (repository, daemon, fleet) = settled();
    let basic = all_have(&fleet, None);
    let second = repository.commit("Say more", &[("gateways/collector.yaml", &collector("normal"))]);
    repository.ending(&second, "succeeded");
    let normal = all_have(&fleet, Some(&basic));

    let (code, text, errors) = ask(&daemon, "undo gateways");
    assert_eq!(code, Some(2), "without a terminal and --yes nothing is done: {text} {errors}");
    assert!(text.starts_with("undo touches 4 agents, the group gateways\n"), "what it would do is shown: {text}");
    assert!(errors.contains("--yes"), "{errors}");
    assert_eq!(all_have(&fleet, None), normal);

    yes(&daemon, "undo gateways --reason queues");
    assert_eq!(all_have(&fleet, Some(&normal)), basic);
    let (_, text, _) = ask(&daemon, "rollout gateways");
    assert!(text.contains("undone") && text.contains("queues"), "{text}");
    let (code, _, errors) = ask(&daemon, &format!("undo gateways --to {} --yes", "f".repeat(12)));
    assert_eq!(code, Some(1), "{errors}");
    yes(&daemon, "resume gateways");
    assert_eq!(all_have(&fleet, Some(&basic)), normal);

    let agents: serde_json::Value = serde_json::from_str(&daemon.ask(&["agents", "--output", "json"])).expect("JSON");
    let id = agents["agents"][0]["id"].as_str().expect("an id").to_owned();
    let document = yes(&daemon, &format!("pin {} --for 4h --reason dump", &id[..18]));
    assert_eq!((&document["target"], &document["impact"]["agents"]), (&id.as_str().into(), &1.into()), "{document}");
    let (_, text, _) = ask(&daemon, &format!("explain {id}"));
    assert!(text.contains("pinned until") && text.contains("dump"), "{text}");
    yes(&daemon, &format!("unpin {id}"));
    drop(fleet);
}

/// A command that a person types at a terminal.
struct Session {
    child: Child,
    keys: File,
    screen: Arc<Mutex<String>>,
}

impl Session {
    fn start(daemon: &Daemon, line: &str) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&keys).and_then(|()| unlockpt(&keys)).expect("a terminal of ours");
        let name = ptsname(&keys, Vec::new()).expect("its name");
        let other = || {
            let path = std::ffi::OsStr::from_bytes(name.as_bytes());
            let terminal = File::options().read(true).write(true).open(path).expect("its other side");
            Stdio::from(terminal)
        };
        let mut command = daemon.command(&line.split(' ').collect::<Vec<_>>());
        command.env("SUDO_USER", "ann").stdin(other()).stdout(other()).stderr(other());
        let child = command.spawn().expect("the program");
        // Only the program has the other side open now: what we read ends with it.
        drop(command);
        let keys = File::from(keys);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut lines, shown) = (keys.try_clone().expect("the same terminal"), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut some = [0; 1024];
            while let Ok(count @ 1..) = lines.read(&mut some) {
                shown.lock().expect("a screen").push_str(&String::from_utf8_lossy(&some[..count]));
            }
        });
        Self { child, keys, screen }
    }

    fn shows(&self, words: &str) {
        wait_for("the terminal to show something", || {
            let screen = self.screen.lock().expect("a screen").clone();
            if screen.contains(words) { Ok(()) } else { Err(screen) }
        });
    }

    /// Types a line when the question is there; the exit code, and everything that was shown.
    fn answer(mut self, line: &str) -> (Option<i32>, String) {
        self.shows("Is this meant? [y/N] ");
        self.keys.write_all(format!("{line}\n").as_bytes()).expect("keys");
        let status = wait_for("the program to end", || self.child.try_wait().expect("a child").ok_or("it runs"));
        let screen = self.screen.lock().expect("a screen").clone();
        (status.code(), screen)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Only a test that failed leaves it running.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn at_a_terminal_an_order_is_asked_about() {
    let (_repository, daemon, fleet) = settled();
    let (code, screen) = Session::start(&daemon, "freeze gateways --reason holidays").answer("n");
    assert_eq!(code, Some(2), "{screen}");
    assert!(screen.contains("freeze touches 4 agents, the group gateways"), "it is told before: {screen}");
    let (_, text, _) = ask(&daemon, "rollout gateways");
    assert!(!text.contains("frozen"), "nobody said yes: {text}");

    let (code, screen) = Session::start(&daemon, "freeze gateways --reason holidays").answer("y");
    assert_eq!(code, Some(0), "{screen}");
    let (_, text, _) = ask(&daemon, "rollout gateways");
    assert!(text.contains("frozen") && text.contains("holidays"), "{text}");
    // Root is believed who became root; anybody else is who the operating system says.
    let is_root = std::fs::metadata("/proc/self").expect("a process").uid() == 0;
    assert_eq!(text.contains("ann (sudo)"), is_root, "{text}");
    drop(fleet);
}

#[test]
fn an_order_whose_record_cannot_be_stored_says_so() {
    let (_repository, daemon, fleet) = settled();
    let (journal, away) = (daemon.state().join("journal.git"), daemon.state().join("journal.away"));
    std::fs::rename(&journal, &away).expect("the journal goes away");
    let (code, text, errors) = ask(&daemon, "freeze gateways --reason holidays --yes");
    assert_eq!(code, Some(2), "{text} {errors}");
    assert!(errors.contains("its record is not stored yet"), "{errors}");
    let (_, text, _) = ask(&daemon, "rollout gateways");
    assert!(text.contains("frozen") && text.contains("holidays"), "what it forbids holds: {text}");
    std::fs::remove_dir_all(&journal).ok();
    std::fs::rename(&away, &journal).expect("the journal is back");
    wait_for("the order to be stored", || {
        let record = std::process::Command::new("git")
            .arg("--git-dir")
            .arg(&journal)
            .args(["show", "refs/notes/gitamp/default:state/orders.yaml"])
            .output()
            .expect("git");
        let text = String::from_utf8_lossy(&record.stdout).into_owned();
        if text.contains("holidays") { Ok(()) } else { Err(text) }
    });
    yes(&daemon, "unfreeze gateways");
    drop(fleet);
}
