//! A second client that nobody here wrote: an agent on the OpAMP client library for Go, with compression on, over both transports.
//!
//! `tests/interop/build.sh` builds it once, with Go. Without it these tests say that they are skipped.

#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]
#![expect(clippy::print_stdout, reason = "the test harness shows it when a test fails")]

mod interop;

use gitamp::view::{AgentStatus, Ending};
use interop::{Client, Daemon, FleetRepository, wait};

/// What the agent refuses to run.
const POISON: &str = "nosuchreceiver";

/// A configuration with this receiver, and so many lines beside it: long ones are worth compressing.
fn config(receiver: &str, lines: usize) -> String {
    let padding: String =
        (0..lines).map(|line| format!("      - {{action: upsert, key: k{line}, value: v}}\n")).collect();
    let resource = if lines == 0 { String::new() } else { format!("  resource:\n    attributes:\n{padding}") };
    let (processors, used) =
        if lines == 0 { (String::new(), "") } else { (format!("processors:\n{resource}"), "resource") };
    format!(
        "receivers:\n  {receiver}: {{}}\n{processors}exporters:\n  debug: {{}}\nservice:\n  pipelines:\n    \
         logs: {{receivers: [{receiver}], processors: [{used}], exporters: [debug]}}\n"
    )
}

fn is_confirmed(agent: &AgentStatus) -> bool {
    agent.state == "confirmed" && agent.config_status == "applied" && agent.healthy == Some(true)
}

fn runs(agent: &AgentStatus, component: &str) -> bool {
    agent.components.iter().any(|name| name == component)
}

/// Commits a configuration for every such agent.
fn commit(repository: &FleetRepository, collector: &str, message: &str) -> String {
    repository.write_group("all", "{matchLabels: {service.name: go-client}}", collector);
    repository.commit(message)
}

/// Everything that the library and the daemon do with each other.
fn a_life(test: &str, scheme: &str, transport: &str) {
    let Some(program) = Client::find(test) else { return };
    let directory = tempfile::Builder::new().prefix("gitamp-interop-").tempdir().expect("a directory");
    let repository = FleetRepository::create(&directory.path().join("fleet"));
    let first = commit(&repository, &config("nop", 0), "The first configuration");
    let mut daemon = Daemon::start(directory.path(), &repository);
    let endpoint = format!("{scheme}://{}/v1/opamp", daemon.address());
    let start = || Client::start(&program, directory.path(), "go", &endpoint, POISON);
    let mut client = start();

    // The first configuration.
    repository.wait_ending(&first, Ending::Succeeded);
    let agent = daemon.wait_agent("go", "confirmed", is_confirmed);
    assert_eq!((agent.transport.as_str(), agent.group.as_deref()), (transport, Some("all")));
    assert_eq!(agent.hash, agent.desired, "{agent:?}");
    assert_eq!(agent.labels["service.name"], "go-client", "{agent:?}");
    let offered = client.events("offered");
    assert_eq!(offered.len(), 1, "{offered:?}");
    assert_eq!(Some(&offered[0].hash), agent.hash.as_ref());
    assert!(offered[0].text.contains("receivers:\n  nop: {}\n"), "{offered:?}");
    let listed = daemon.agents_command();
    assert!(listed.len() == 1 && is_confirmed(&listed[0]) && runs(&listed[0], "receivers/nop"), "{listed:?}");

    // A changed one, long enough to be compressed.
    let changed = commit(&repository, &config("nop", 2_000), "Add attributes");
    repository.wait_ending(&changed, Ending::Succeeded);
    let good = daemon.wait_agent("go", "changed", |agent| is_confirmed(agent) && runs(agent, "processors/resource"));
    let offered = client.events("offered");
    assert_eq!(offered.len(), 2, "one offer each");
    let text = &offered[1].text;
    assert!(text.contains("key: k1999") && text.len() > 50_000, "{} bytes", text.len());

    // Its health.
    client.feel("the disk is full");
    let ill = daemon.wait_agent("go", "ill", |agent| agent.healthy == Some(false));
    assert_eq!(ill.health_message.as_deref(), Some("the disk is full"));
    client.feel("");
    daemon.wait_agent("go", "well", is_confirmed);

    refuses_one(&repository, &daemon, &good);
    assert_eq!(client.events("offered").len(), 4);
    is_left_alone(&repository, &mut daemon, &client, &good);
    assert!(client.events("error").is_empty() && client.events("broken").is_empty(), "{:?}", client.events("error"));

    // The agent is started again, with what it kept: it is recognised and left alone.
    drop(client);
    if transport == "websocket" {
        // Over HTTP the library ends without a goodbye, and is missed only after some polls.
        let away = daemon.wait_agent("go", "away", |agent| !agent.connected);
        assert_eq!(away.state, "away", "it said goodbye: {away:?}");
    }
    let client = start();
    wait("the second life begins", || client.events("connected").pop().ok_or("not connected".to_owned()));
    daemon.wait_agent("go", "here again", |agent| {
        agent.connected && is_confirmed(agent) && runs(agent, "receivers/otlp")
    });
    let last = commit(&repository, &config("nop", 0), "And back");
    repository.wait_ending(&last, Ending::Succeeded);
    let offered = client.events("offered");
    assert_eq!(offered.len(), 1, "nothing that it held: {offered:?}");
    assert!(offered[0].text.contains("nop: {}"), "{offered:?}");
}

/// One configuration that the agent cannot run, and back to the good one.
fn refuses_one(repository: &FleetRepository, daemon: &Daemon, good: &AgentStatus) {
    let bad = commit(repository, &config(POISON, 0), "Receive something unheard of");
    let note = repository.wait_ending(&bad, Ending::Failed);
    let failures = &note.groups["all"].failures;
    assert!(failures.iter().any(|failure| failure.message.contains("the configuration holds")), "{note:?}");
    let failed = daemon.wait_agent("go", "failed", |agent| agent.config_status == "failed");
    assert!(failed.config_message.as_deref().is_some_and(|message| message.contains(POISON)), "{failed:?}");
    assert!(runs(&failed, "processors/resource"), "it goes on with what it had: {failed:?}");
    let back = repository.revert();
    repository.wait_ending(&back, Ending::Succeeded);
    daemon.wait_agent("go", "back", |agent| is_confirmed(agent) && agent.hash == good.hash);
}

/// The daemon is killed, and comes back with nothing but the repository: it is told what the agent holds, and offers only what is new.
fn is_left_alone(repository: &FleetRepository, daemon: &mut Daemon, client: &Client, good: &AgentStatus) {
    let (connected, offered) = (client.events("connected").len(), client.events("offered").len());
    daemon.restart_without_memory();
    let known = daemon.wait_agent("go", "known again", |agent| is_confirmed(agent) && agent.hash == good.hash);
    assert_eq!((&known.labels, &known.components), (&good.labels, &good.components), "asked for again");
    wait("the client says that it is connected", || {
        let now = client.events("connected").len();
        if now > connected { Ok(()) } else { Err(format!("{now} times")) }
    });
    let next = commit(repository, &config("otlp", 0), "Another receiver");
    repository.wait_ending(&next, Ending::Succeeded);
    let all = client.events("offered");
    assert_eq!(all.len(), offered + 1, "the new one, once, and nothing before it");
    assert!(all[offered].text.contains("otlp: {}"), "{:?}", all[offered]);
}

#[test]
fn a_life_over_websocket() {
    a_life("a_life_over_websocket", "ws", "websocket");
}

#[test]
fn a_life_over_http() {
    a_life("a_life_over_http", "http", "http");
}
