//! What an operator asks and orders from the command line, at the running program.

mod support;

use std::process::Output;
use std::time::Duration;

use gitamp::simulate::{Attribute, DelayRange, Endpoint, Fleet, Options};
use support::{Daemon, Repository, get, post, run, wait_for};

/// Everybody at once: this is about the commands, not about stages.
const GROUP: &str = "\
apiVersion: gitamp/v1
kind: Group
selector:
  matchLabels: {service.name: otelcol-gateway}
rollout:
  stages: [{name: all, agents: 100%, soak: 0s}]
  bake: 0s
  maxUnavailable: 100%
  onFailure: pause
";

fn collector(level: &str) -> String {
    format!(
        "receivers:\n  otlp:\n    protocols: {{grpc: {{}}}}\nexporters:\n  debug:\n    verbosity: {level}\nservice:\n  \
         pipelines:\n    traces:\n      receivers: [otlp]\n      exporters: [debug]\n"
    )
}

fn fleet(daemon: &Daemon, agents: u32) -> Fleet {
    let server = Endpoint::resolve(&format!("ws://{}/v1/opamp", daemon.agents()), false).expect("loopback");
    let mut options = Options::new(server, agents);
    options.attributes = Attribute::parse_all(&["service.name=otelcol-gateway".to_owned()]).expect("an attribute");
    options.apply_delay = DelayRange { from: Duration::from_millis(10), to: Duration::from_millis(50) };
    options.fail_matching = Some("broken".to_owned());
    Fleet::start(options).expect("a fleet")
}

/// A daemon with a group `gateways` of four agents that all run what the repository says.
fn settled() -> (Repository, Daemon, Fleet) {
    let repository =
        Repository::with(&[("gateways/group.yaml", GROUP), ("gateways/collector.yaml", &collector("basic"))]);
    let daemon = Daemon::start(&repository, &["--interval", "1h"]);
    let fleet = fleet(&daemon, 4);
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
    for path in ["/api/v1/orders", "/api/v1/orders/preview"] {
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
