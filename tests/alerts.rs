//! Who is told of incidents, by the program as a user runs it: a bad commit from its first message to its last, bad days of receivers, restarts.

mod support;

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use support::gateways::{AT_ONCE, agents, collector};
use support::receiver::{Message, Mood, Receiver};
use support::{Daemon, Repository, gitamp, run, stays, wait_for, write_secret};

const SECRET: &str = "s1gned-with-this";

fn gateways() -> Repository {
    Repository::with(&[("prod/gateways/group.yaml", AT_ONCE), ("prod/gateways/collector.yaml", &collector("basic"))])
}

fn change(repository: &Repository, message: &str, level: &str) -> String {
    repository.commit(message, &[("prod/gateways/collector.yaml", &collector(level))])
}

/// A settings file with these receivers, and files beside it.
fn settings(alerts: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| write_secret(&directory.path().join(name), text);
    write("gitamp.yaml", &format!("alerts:\n{alerts}"));
    for (name, text) in files {
        write(name, text);
    }
    directory
}

fn start(repository: &Repository, settings: &Path, more: &[&str]) -> Daemon {
    let config = format!("--config={}", settings.join("gitamp.yaml").display());
    let flags: Vec<&str> = [config.as_str()].into_iter().chain(more.iter().copied()).collect();
    Daemon::start(repository, &flags)
}

fn assert_signed(message: &Message, key: &str) {
    let header = |name: &str| message.headers.get(name).cloned().unwrap_or_default();
    let (id, time) = (header("webhook-id"), header("webhook-timestamp"));
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
    mac.update(format!("{id}.{time}.{}", message.body).as_bytes());
    assert_eq!(header("webhook-signature"), format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));
    let seconds: u64 = time.parse().expect("seconds");
    let sent: jiff::Timestamp = message.json()["sentAt"].as_str().expect("a time").parse().expect("a time");
    assert_eq!(i64::try_from(seconds).expect("a time"), sent.as_second(), "the time is the one in the message");
}

#[test]
fn a_bad_commit_is_one_message_with_its_failures_and_its_revert_one_more() {
    let repository = gateways();
    let receiver = Receiver::start();
    let alerts = format!(
        "  receivers:
    - {{name: ops, type: webhook, url: {}, secretFile: secret}}
    - {{name: chat, type: slack, urlFile: chat-url, severity: critical, groups: ['prod/**']}}
    - {{name: others, type: webhook, url: {}, groups: ['staging/**']}}
    - {{name: am, type: alertmanager, url: {}}}
",
        receiver.url("ops"),
        receiver.url("others"),
        receiver.url("am"),
    );
    let files = [("secret", SECRET), ("chat-url", &receiver.url("services/T0/B0/s3cret"))];
    let directory = settings(&alerts, &files);
    let mut daemon = start(&repository, directory.path(), &["--interval=1h"]);
    let agents = agents(&daemon, 10);
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.ending(&first, "succeeded");

    let bad = change(&repository, "Debug at a level that there is not", "broken");
    repository.ending(&bad, "rolled-back");
    let opened = receiver.wait("ops", 1);
    assert_signed(&opened, SECRET);
    let message = opened.json();
    for (key, value) in [("event", "opened"), ("status", "firing"), ("severity", "critical"), ("instance", "default")] {
        assert_eq!(message[key], value, "{key}: {message:#}");
    }
    assert_eq!(message["commit"]["id"], bad);
    assert_eq!(message["commit"]["subject"], "Debug at a level that there is not");
    assert!(message["commit"]["author"].as_str().expect("a name").contains("Ada Platform"), "{message:#}");
    let group = &message["groups"][0];
    assert_eq!(group["name"], "prod/gateways");
    let cluster = &group["failures"][0];
    assert!(cluster["message"].as_str().expect("words").contains("exited unexpectedly"), "{message:#}");
    assert!(cluster["count"].as_u64().is_some_and(|count| count >= 1), "{message:#}");
    let advice = message["advice"].to_string();
    assert!(advice.contains(&format!("git revert {}", &bad[..7])), "{advice}");

    let chat = receiver.wait("services/T0/B0/s3cret", 1).json();
    assert!(chat["text"].as_str().expect("a text").starts_with("*[critical]* prod/gateways: roll"), "{chat:#}");
    let alert = receiver.wait("am/api/v2/alerts", 1).json();
    assert_eq!(
        (&alert[0]["labels"]["alertname"], &alert[0]["labels"]["group"]),
        (&"GitampRollout".into(), &"prod/gateways".into())
    );
    assert_eq!(daemon.metric("gitamp_incidents{severity=\"critical\"}"), Some(1.0));
    wait_for("the messages to be counted", || {
        let counted = daemon.metric("gitamp_alerts_sent_total{kind=\"webhook\",result=\"ok\"}");
        if counted == Some(1.0) { Ok(()) } else { Err(counted) }
    });
    let status = daemon.ask(&["status"]);
    assert!(status.contains("1 open incident; told are ops, chat, others, am"), "{status}");

    // A successor goes on with it, and neither announces it again nor forgets it.
    daemon.kill();
    daemon.restart();
    stays("nothing is announced again", Duration::from_secs(14), || receiver.events("ops"));
    let revert = repository.revert();
    daemon.ask(&["sync"]);
    repository.ending(&revert, "no-op");
    let resolved = receiver.wait("ops", 2);
    assert_signed(&resolved, SECRET);
    let over = resolved.json();
    assert_eq!(
        (&over["event"], &over["status"], &over["id"]),
        (&"resolved".into(), &"resolved".into(), &message["id"])
    );
    assert_eq!((&over["sequence"], &over["commit"]["id"]), (&2.into(), &bad.into()));
    receiver.wait("services/T0/B0/s3cret", 2);
    wait_for("an end for Alertmanager", || {
        let last = receiver.messages("am/api/v2/alerts").last().map(Message::json).unwrap_or_default();
        let ends = |name: &str| last[0][name].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let is_over = ends("endsAt").zip(over["sentAt"].as_str().and_then(|text| text.parse().ok()));
        if is_over.is_some_and(|(ends, sent)| ends <= sent) { Ok(()) } else { Err(last) }
    });
    wait_for("no incident to be open", || {
        let open = daemon.metric("gitamp_incidents{severity=\"critical\"}");
        if open == Some(0.0) { Ok(()) } else { Err(open) }
    });
    assert_eq!(receiver.events("ops"), ["opened", "resolved"], "exactly these");
    assert_eq!(receiver.messages("services/T0/B0/s3cret").len(), 2);
    assert_eq!(receiver.events("others"), [""; 0], "it is none of their groups");
    let log = daemon.process().log();
    assert!(!log.contains("s3cret") && !log.contains(SECRET), "no secret in the log");
    assert!(!daemon.status().to_string().contains("s3cret"));
    drop(agents);
}

#[test]
fn bad_days_of_one_receiver_are_its_own() {
    let repository = gateways();
    let (bad, good) = (Receiver::start(), Receiver::start());
    bad.then([Mood::Says(500, ""), Mood::Says(429, "Retry-After: 2\r\n"), Mood::Hangs]);
    let nobody = support::free_port();
    let alerts = format!(
        "  receivers:
    - {{name: bad, type: webhook, url: {}, secretFile: secret}}
    - {{name: gone, type: webhook, url: 'http://127.0.0.1:{nobody}/s3cret'}}
    - {{name: good, type: webhook, url: {}}}
",
        bad.url("bad"),
        good.url("good"),
    );
    let directory = settings(&alerts, &[("secret", SECRET)]);
    let daemon = start(&repository, directory.path(), &["--interval=1s"]);
    let agents = agents(&daemon, 3);
    repository.ending(&repository.git(&["rev-parse", "HEAD"]), "succeeded");
    let broken = AT_ONCE.replace("kind: Group", "kind: Grope");
    repository.commit("A slip", &[("prod/gateways/group.yaml", &broken)]);
    let told = good.wait("good", 1).json();
    assert_eq!((&told["event"], &told["situation"]), (&"opened".into(), &"rejected".into()), "{told:#}");
    let tries: Vec<Message> = (1..=4).map(|count| bad.wait("bad", count)).collect();
    for message in &tries {
        assert_eq!(
            message.headers["webhook-id"], tries[0].headers["webhook-id"],
            "it is one message, however often it is tried"
        );
        assert_eq!(message.event(), "opened");
        assert_signed(message, SECRET);
    }
    let waited = tries[2].at.duration_since(tries[1].at);
    assert!(waited >= Duration::from_millis(1900), "it asked for two seconds, and got {waited:?}");
    let errors = wait_for("the errors to be said", || {
        let receivers = daemon.status()["alerts"]["receivers"].clone();
        let is_well = receivers[0]["error"].is_null() && receivers[0]["lastSent"].is_string();
        if is_well && receivers[1]["error"].is_string() { Ok(receivers) } else { Err(receivers) }
    });
    assert!(errors[1]["error"].as_str().expect("words").contains("cannot reach 127.0.0.1"), "{errors:#}");
    assert!(daemon.ask(&["status"]).contains("gone: cannot reach 127.0.0.1"));
    assert!(
        daemon.metric("gitamp_alerts_sent_total{kind=\"webhook\",result=\"failed\"}").is_some_and(|count| count >= 3.0)
    );
    assert!(
        daemon
            .metric("gitamp_alerts_sent_total{kind=\"webhook\",result=\"throttled\"}")
            .is_some_and(|count| count >= 1.0)
    );

    // What is repaired is over for those who heard of it.
    repository.commit("Another word", &[("prod/gateways/group.yaml", AT_ONCE)]);
    assert_eq!(good.wait("good", 2).event(), "resolved");
    assert_eq!(bad.wait("bad", 5).event(), "resolved");
    assert!(!daemon.process().log().contains("s3cret"), "no address in the log");
    // Whatever a receiver does, the end of the process does not wait for it.
    let mut daemon = daemon;
    bad.then([Mood::Hangs, Mood::Hangs]);
    repository.commit("Another slip", &[("prod/gateways/group.yaml", &broken)]);
    bad.wait("bad", 6);
    daemon.process().signal("TERM");
    let ending = support::now();
    assert!(daemon.take().ended().success());
    assert!(ending.elapsed() < Duration::from_secs(8), "it took {:?}", ending.elapsed());
    drop(agents);
}

#[test]
fn a_repository_out_of_reach_is_told_and_so_is_its_return() {
    let repository = gateways();
    let receiver = Receiver::start();
    let alerts =
        format!("  staleAfter: 2s\n  receivers: [{{name: ops, type: webhook, url: {}}}]\n", receiver.url("ops"));
    let directory = settings(&alerts, &[]);
    let mut daemon = start(&repository, directory.path(), &["--interval=1s", "--no-push"]);
    let elsewhere = repository.remote().with_extension("away");
    std::fs::rename(repository.remote(), &elsewhere).expect("it is moved away");
    let told = receiver.wait("ops", 1).json();
    assert_eq!(
        (&told["event"], &told["situation"], &told["groups"]),
        (&"opened".into(), &"sync-stale".into(), &serde_json::json!([]))
    );
    wait_for("the answer to be noted", || {
        let receivers = daemon.status()["alerts"]["receivers"].clone();
        if receivers[0]["lastSent"].is_string() { Ok(()) } else { Err(receivers) }
    });
    daemon.kill();
    daemon.spawn();
    stays("nothing is announced again", Duration::from_secs(14), || receiver.events("ops"));
    std::fs::rename(&elsewhere, repository.remote()).expect("it is back");
    daemon.ask(&["sync"]);
    assert_eq!(receiver.wait("ops", 2).event(), "resolved");
    assert_eq!(receiver.events("ops"), ["opened", "resolved"]);
}

#[test]
fn receivers_can_be_tried_without_a_daemon() {
    let receiver = Receiver::start();
    let alerts = format!(
        "  receivers:
    - {{name: ops, type: webhook, url: {}, secretFile: secret}}
    - {{name: chat, type: slack, urlFile: chat-url}}
",
        receiver.url("ops"),
    );
    let directory = settings(&alerts, &[("secret", SECRET), ("chat-url", &receiver.url("services/s3cret"))]);
    let config = directory.path().join("gitamp.yaml");
    let test = |more: &[&str]| {
        let output = run(gitamp(["alerts", "test", "--config"]).arg(&config).args(more));
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("s3cret") && !text.contains(SECRET), "{text}");
        (output.status.code(), text)
    };
    let (code, text) = test(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("ops (webhook, http://127.0.0.1): taken after ") && text.contains("HTTP 200: ok"), "{text}");
    assert_eq!(receiver.events("ops"), ["test"]);
    assert_signed(&receiver.messages("ops")[0], SECRET);
    receiver.then([Mood::Says(404, "")]);
    let (code, text) = test(&["chat"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("not taken: there is no such receiver (404): ok"), "{text}");
    assert_eq!(receiver.events("ops").len(), 1, "only the one that was named");
    let (code, text) = test(&["pager"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("there is no receiver `pager`, but `ops`, `chat`"), "{text}");
}
