//! Real agents: the daemon as a user runs it, the OpenTelemetry supervisor with a real collector, Git in between.
//!
//! `tests/interop/build.sh` builds the agents once, with Go. Without them these tests say that they are skipped. Each has a
//! daemon, a repository and supervisors of its own, and leaves no process behind, also when it fails. With
//! `GITAMP_INTEROP_RECORD=FILE` the longest conversation is written down; `src/opamp/transcripts/recorded/` has one.

#![expect(
    clippy::disallowed_methods,
    reason = "real processes are waited for in real time; the variable is this test's own"
)]
#![expect(clippy::print_stdout, reason = "the test harness shows it when a test fails")]

mod interop;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gitamp::view::{AgentStatus, Ending};
use interop::{Daemon, FleetRepository, Programs, Supervisor, Tap};

const EVERYBODY: &str = "{matchAll: true}";

/// Watched for longer than any test takes; whatever fails stays as it is.
const CAREFUL: &str =
    "{stages: [{name: all, agents: 100%, soak: 0s}], bake: 10m, progressDeadline: 20s, onFailure: pause}";

/// A configuration that any collector here can run; `processors` are its processors, with their settings.
fn logs(processors: &[(&str, &str)]) -> String {
    let defined: String = processors.iter().map(|(name, settings)| format!("  {name}: {settings}\n")).collect();
    let names: Vec<&str> = processors.iter().map(|(name, _)| *name).collect();
    let defined = if defined.is_empty() { String::new() } else { format!("processors:\n{defined}") };
    format!(
        "receivers:\n  nop: {{}}\n{defined}exporters:\n  debug: {{verbosity: basic}}\nservice:\n  pipelines:\n    \
         logs: {{receivers: [nop], processors: [{}], exporters: [debug]}}\n",
        names.join(", ")
    )
}

/// A configuration that listens on this port.
fn otlp(port: u16) -> String {
    format!(
        "receivers:\n  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{port}'}}}}}}\nexporters:\n  debug: {{}}\n\
         service:\n  pipelines:\n    traces: {{receivers: [otlp], exporters: [debug]}}\n"
    )
}

fn is_confirmed(agent: &AgentStatus) -> bool {
    agent.state == "confirmed" && agent.config_status == "applied" && agent.healthy == Some(true)
}

fn has(agent: &AgentStatus, component: &str) -> bool {
    agent.components.iter().any(|name| name == component)
}

/// A temporary directory, a repository in it whose only group is everybody, and its first commit.
fn one_group(collector: &str) -> (tempfile::TempDir, FleetRepository, String) {
    let directory = tempfile::Builder::new().prefix("gitamp-interop-").tempdir().expect("a directory");
    let repository = FleetRepository::create(&directory.path().join("fleet"));
    repository.write_group("all", EVERYBODY, collector);
    let first = repository.commit("The first configuration");
    (directory, repository, first)
}

#[test]
fn a_fleet_follows_commits_bad_ones_and_reverts() {
    let Some(programs) = Programs::find("a_fleet_follows_commits_bad_ones_and_reverts") else { return };
    let (directory, repository, first) = one_group(&logs(&[]));
    let daemon = Daemon::start(directory.path(), &repository);
    let tap = Tap::start(daemon.address());
    let endpoint = format!("ws://{}/v1/opamp", tap.address());
    let supervisor =
        Supervisor::start(&programs, directory.path(), "gw", &endpoint, ", deployment.environment: test", &daemon);

    // The first configuration.
    let note = repository.wait_ending(&first, Ending::Succeeded);
    assert_eq!(note.groups["all"].counts.confirmed, 1, "{note:?}");
    let agent = daemon.wait_agent("gw", "confirmed", is_confirmed);
    assert_eq!(agent.hash, agent.desired, "{agent:?}");
    assert_eq!((agent.transport.as_str(), agent.group.as_deref()), ("websocket", Some("all")));
    assert_eq!(agent.labels["service.name"], "otelcol", "{:?}", agent.labels);
    assert_eq!(agent.labels["deployment.environment"], "test", "{:?}", agent.labels);
    assert!(has(&agent, "receivers/nop") && has(&agent, "exporters/debug"), "{:?}", agent.components);
    let available = daemon.available_components(&agent.id);
    for name in ["receivers/otlp", "processors/memory_limiter", "extensions/opamp"] {
        assert!(available.iter().any(|one| one == name), "its build has {name}, used or not: {available:?}");
    }
    let first_collector = supervisor.collector();

    // A changed one.
    repository.write_group("all", EVERYBODY, &logs(&[("batch", "{timeout: 1s}")]));
    let changed = repository.commit("Send in batches");
    repository.wait_ending(&changed, Ending::Succeeded);
    let agent =
        daemon.wait_agent("gw", "running batches", |agent| is_confirmed(agent) && has(agent, "processors/batch"));
    let good = agent.hash.clone();
    assert!(supervisor.effective().contains("batch"), "{}", supervisor.effective());
    assert_ne!(supervisor.collector(), first_collector, "a changed configuration starts a new collector");
    assert_eq!(tap.offers(), 2, "one offer each");

    // One whose receiver no collector here knows; our own check does not know which components were built in.
    repository.write_group("all", EVERYBODY, &logs(&[]).replace("nop", "nosuchreceiver"));
    let unknown = repository.commit("Receive something unheard of");
    let note = repository.wait_ending(&unknown, Ending::Failed);
    let failures = &note.groups["all"].failures;
    assert!(failures.iter().any(|failure| failure.message.contains("exited unexpectedly")), "{note:?}");
    let agent = daemon.wait_agent("gw", "failed", |agent| agent.config_status == "failed");
    let message = agent.config_message.as_deref().unwrap_or_default();
    assert!(message.contains("exited unexpectedly with exit code 1"), "{agent:?}");
    assert_eq!(agent.state, "failed", "{agent:?}");

    // Back.
    let back = repository.revert();
    repository.wait_ending(&back, Ending::Succeeded);
    daemon.wait_agent("gw", "back", |agent| is_confirmed(agent) && agent.hash == good);

    // One that is right in every word, but whose port is somebody else's.
    let somebody = TcpListener::bind("127.0.0.1:0").expect("a port");
    repository.write_group("all", EVERYBODY, &otlp(somebody.local_addr().expect("an address").port()));
    let taken = repository.commit("Listen");
    let note = repository.wait_ending(&taken, Ending::Failed);
    assert_eq!(note.groups["all"].counts.failed, 1, "{note:?}");
    let back = repository.revert();
    repository.wait_ending(&back, Ending::Succeeded);
    daemon.wait_agent("gw", "back again", |agent| is_confirmed(agent) && agent.hash == good);
    assert_eq!(tap.offers(), 6, "one offer for each commit, none twice");

    drop(supervisor);
    let agent = daemon.wait_agent("gw", "gone", |agent| !agent.connected);
    assert_eq!(agent.state, "away", "it said goodbye: {agent:?}");
    if let Ok(path) = std::env::var("GITAMP_INTEROP_RECORD") {
        std::fs::write(path, tap.transcript()).expect("written");
    }
}

#[test]
fn a_daemon_that_forgot_everything_restarts_nobody() {
    let Some(programs) = Programs::find("a_daemon_that_forgot_everything_restarts_nobody") else { return };
    let (directory, repository, first) = one_group(&logs(&[("batch", "{}")]));
    let mut daemon = Daemon::start(directory.path(), &repository);
    let tap = Tap::start(daemon.address());
    let endpoint = format!("ws://{}/v1/opamp", tap.address());
    let supervisor = Supervisor::start(&programs, directory.path(), "gw", &endpoint, "", &daemon);
    repository.wait_ending(&first, Ending::Succeeded);
    let before = daemon.wait_agent("gw", "confirmed", is_confirmed);
    let collector = supervisor.collector();
    assert_eq!(tap.offers(), 1);

    daemon.restart_without_memory();
    let after = daemon.wait_agent("gw", "recognised", is_confirmed);
    assert_eq!((after.hash, after.group, after.labels), (before.hash, before.group, before.labels));
    assert_eq!(after.components, before.components, "asked for again");

    // What is committed now still arrives; until then nothing was offered, and no collector was started.
    assert_eq!((tap.offers(), supervisor.collector()), (1, collector));
    repository.write_group("all", EVERYBODY, &logs(&[]));
    let next = repository.commit("Without batches");
    repository.wait_ending(&next, Ending::Succeeded);
    assert_eq!(tap.offers(), 2, "the new one, once");
    let status = daemon.status();
    assert_eq!((status.agents.connected, status.agents.managed), (1, 1), "{status:?}");
}

#[test]
fn an_agent_that_polls_is_no_worse_off() {
    let Some(programs) = Programs::find("an_agent_that_polls_is_no_worse_off") else { return };
    let (directory, repository, first) = one_group(&logs(&[]));
    let daemon = Daemon::start(directory.path(), &repository);
    let endpoint = format!("http://{}/v1/opamp", daemon.address());
    let supervisor = Supervisor::start(&programs, directory.path(), "poller", &endpoint, "", &daemon);
    repository.wait_ending(&first, Ending::Succeeded);
    let agent = daemon.wait_agent("poller", "confirmed", is_confirmed);
    assert_eq!(agent.transport, "http");
    assert!(has(&agent, "receivers/nop"), "{agent:?}");
    let good = agent.hash;

    // A value that the collector refuses; which values a component takes is nothing that we know.
    repository.write_group("all", EVERYBODY, &logs(&[("batch", "{timeout: soon}")]));
    let bad = repository.commit("Soon");
    let note = repository.wait_ending(&bad, Ending::Failed);
    assert!(!note.groups["all"].failures.is_empty(), "{note:?}");
    let back = repository.revert();
    repository.wait_ending(&back, Ending::Succeeded);
    daemon.wait_agent("poller", "back", |agent| is_confirmed(agent) && agent.hash == good);
    drop(supervisor);
}

#[test]
fn each_group_gets_its_own() {
    let Some(programs) = Programs::find("each_group_gets_its_own") else { return };
    let directory = tempfile::Builder::new().prefix("gitamp-interop-").tempdir().expect("a directory");
    let repository = FleetRepository::create(&directory.path().join("fleet"));
    let of = |environment: &str| format!("{{matchLabels: {{deployment.environment: {environment}}}}}");
    repository.write_group("prod", &of("prod"), &logs(&[("batch", "{}")]));
    repository.write_group("staging", &of("staging"), &logs(&[]));
    let first = repository.commit("Two groups");
    let daemon = Daemon::start(directory.path(), &repository);
    let endpoint = format!("ws://{}/v1/opamp", daemon.address());
    let start = |name: &str| {
        let labels = format!(", deployment.environment: {name}");
        Supervisor::start(&programs, directory.path(), name, &endpoint, &labels, &daemon)
    };
    let (prod, staging) = (start("prod"), start("staging"));

    let note = repository.wait_ending(&first, Ending::Succeeded);
    for name in ["prod", "staging"] {
        assert_eq!(note.groups[name].counts.confirmed, 1, "{name}: {note:?}");
        let agent = daemon.wait_agent(name, "confirmed", is_confirmed);
        assert_eq!(agent.group.as_deref(), Some(name));
        assert_eq!(has(&agent, "processors/batch"), name == "prod", "{agent:?}");
        assert_eq!(daemon.agents(Some(name)).len(), 1);
    }

    let (of_prod, of_staging) = (prod.collector(), staging.collector());
    repository.write_group(
        "staging",
        &of("staging"),
        &logs(&[("memory_limiter", "{check_interval: 1s, limit_mib: 99}")]),
    );
    let second = repository.commit("Try a limit");
    let note = repository.wait_ending(&second, Ending::Succeeded);
    assert_eq!(note.groups.keys().collect::<Vec<_>>(), ["staging"], "the other one did not change");
    daemon.wait_agent("staging", "limited", |agent| is_confirmed(agent) && has(agent, "processors/memory_limiter"));
    assert_ne!(staging.collector(), of_staging);
    assert_eq!(prod.collector(), of_prod, "nobody touched it");
}

#[test]
fn a_supervisor_killed_while_it_applies_gets_there() {
    let Some(programs) = Programs::find("a_supervisor_killed_while_it_applies_gets_there") else { return };
    let (directory, repository, first) = one_group(&logs(&[]));
    let daemon = Daemon::start(directory.path(), &repository);
    let endpoint = format!("ws://{}/v1/opamp", daemon.address());
    let mut supervisor = Supervisor::start(&programs, directory.path(), "gw", &endpoint, "", &daemon);
    repository.wait_ending(&first, Ending::Succeeded);

    repository.write_group("all", EVERYBODY, &logs(&[("batch", "{}")]));
    let changed = repository.commit("Send in batches");
    daemon.wait_agent("gw", "in the middle of it", |agent| agent.config_status == "applying");
    supervisor.kill_and_start(&daemon);
    // From its disk it says for ever that it is applying; that its collector runs the new one, and well, is what counts.
    repository.wait_ending(&changed, Ending::Succeeded);
    let agent = daemon.wait_agent("gw", "there", |agent| agent.state == "confirmed" && agent.healthy == Some(true));
    assert!(has(&agent, "processors/batch"), "{agent:?}");
    assert_eq!(agent.hash, agent.desired);

    // And the next one goes the usual way.
    repository.write_group("all", EVERYBODY, &logs(&[]));
    let next = repository.commit("Without batches");
    repository.wait_ending(&next, Ending::Succeeded);
    daemon.wait_agent("gw", "as everybody", is_confirmed);
}

/// A scalar that is sound YAML, and whose tag no reader can follow: nothing here reads values, so it passes.
#[test]
fn yaml_that_only_the_agent_cannot_read_stops_no_collector() {
    let Some(programs) = Programs::find("yaml_that_only_the_agent_cannot_read_stops_no_collector") else { return };
    let (directory, repository, first) = one_group(&logs(&[("batch", "{}")]));
    let daemon = Daemon::start(directory.path(), &repository);
    let endpoint = format!("ws://{}/v1/opamp", daemon.address());
    let supervisor = Supervisor::start(&programs, directory.path(), "gw", &endpoint, "", &daemon);
    repository.wait_ending(&first, Ending::Succeeded);
    let good = daemon.wait_agent("gw", "confirmed", is_confirmed).hash;
    let collector = supervisor.collector();

    repository.write_group_with("all", EVERYBODY, CAREFUL, &logs(&[("batch", "{timeout: !!timestamp soon}")]));
    let broken = repository.commit("Soon");
    let note = repository.wait_ending(&broken, Ending::Failed);
    let failures = &note.groups["all"].failures;
    assert!(failures.iter().any(|failure| failure.message.contains("timestamp")), "{note:?}");
    let agent = daemon.wait_agent("gw", "failed", |agent| agent.config_status == "failed");
    assert_eq!((agent.state.as_str(), agent.healthy), ("failed", Some(true)), "it runs what it ran: {agent:?}");
    assert_eq!(supervisor.collector(), collector, "and was not even stopped");

    let back = repository.revert();
    repository.wait_ending(&back, Ending::Succeeded);
    daemon.wait_agent("gw", "back", |agent| is_confirmed(agent) && agent.hash == good);
    assert_eq!(supervisor.collector(), collector, "the same configuration again starts nothing");
}

/// The configuration is right, and applied; what it needs is taken away later, and from then on the collector dies at every start.
#[test]
fn a_collector_that_dies_later_fails_the_commit() {
    let Some(programs) = Programs::find("a_collector_that_dies_later_fails_the_commit") else { return };
    let (directory, repository, first) = one_group(&logs(&[]));
    let daemon = Daemon::start(directory.path(), &repository);
    let endpoint = format!("ws://{}/v1/opamp", daemon.address());
    let supervisor = Supervisor::start(&programs, directory.path(), "gw", &endpoint, "", &daemon);
    repository.wait_ending(&first, Ending::Succeeded);

    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    repository.write_group_with("all", EVERYBODY, CAREFUL, &otlp(port));
    let fragile = repository.commit("Listen");
    daemon.wait_agent("gw", "listening", |agent| is_confirmed(agent) && has(agent, "receivers/otlp"));
    supervisor.kill_collector();
    let taken =
        interop::wait("the port is free", || TcpListener::bind(("127.0.0.1", port)).map_err(|error| error.to_string()));

    let note = repository.wait_ending(&fragile, Ending::Failed);
    let failures = &note.groups["all"].failures;
    assert!(failures.iter().any(|failure| failure.message.contains("applied, but unhealthy")), "{note:?}");
    let agent = daemon.wait_agent("gw", "failed", |agent| agent.state == "failed");
    assert_eq!((agent.config_status.as_str(), agent.healthy), ("applied", Some(false)), "{agent:?}");

    let back = repository.revert();
    repository.wait_ending(&back, Ending::Succeeded);
    daemon.wait_agent("gw", "back", |agent| is_confirmed(agent) && has(agent, "receivers/nop"));
    drop(taken);
}

#[test]
fn an_offered_heartbeat_interval_is_taken_and_nothing_else_changes() {
    let name = "an_offered_heartbeat_interval_is_taken_and_nothing_else_changes";
    let Some(programs) = Programs::find(name) else { return };
    let (directory, repository, first) = one_group(&logs(&[]));
    let daemon = Daemon::start_with(directory.path(), &repository, &["--heartbeat-interval", "1s"]);
    let tap = Tap::start(daemon.address());
    let endpoint = format!("ws://{}/v1/opamp", tap.address());
    let supervisor = Supervisor::start(&programs, directory.path(), "gw", &endpoint, "", &daemon);
    repository.wait_ending(&first, Ending::Succeeded);
    // Ten would take five minutes at the supervisor's own interval.
    interop::wait("heartbeats come every second", || match tap.heartbeats() {
        10.. => Ok(()),
        count => Err(format!("{count} heartbeats")),
    });
    let agent = daemon.wait_agent("gw", "as before", is_confirmed);
    assert_eq!((agent.transport.as_str(), tap.offers()), ("websocket", 1));
    assert_eq!(tap.connections(), 1, "it kept its connection");
    drop(supervisor);
}

#[test]
fn what_fails_is_taken_back_by_itself() {
    let Some(programs) = Programs::find("what_fails_is_taken_back_by_itself") else { return };
    let (directory, repository, first) = one_group(&logs(&[("batch", "{}")]));
    let daemon = Daemon::start(directory.path(), &repository);
    let tap = Tap::start(daemon.address());
    let endpoint = format!("ws://{}/v1/opamp", tap.address());
    let supervisor = Supervisor::start(&programs, directory.path(), "gw", &endpoint, "", &daemon);
    repository.wait_ending(&first, Ending::Succeeded);
    let good = daemon.wait_agent("gw", "confirmed", is_confirmed).hash;

    let rollout = "{stages: [{name: all, agents: 100%, soak: 0s}], bake: 0s}";
    repository.write_group_with("all", EVERYBODY, rollout, &logs(&[("batch", "{timeout: soon}")]));
    let bad = repository.commit("Soon");
    let note = repository.wait_ending(&bad, Ending::RolledBack);
    assert!(!note.groups["all"].failures.is_empty(), "the note tells why: {note:?}");
    daemon.wait_agent("gw", "as before", |agent| is_confirmed(agent) && agent.hash == good);
    assert_eq!(tap.offers(), 3, "the good one, the bad one, the good one");

    // The repository still says what nobody can run; what corrects it goes out as usual.
    repository.write_group_with("all", EVERYBODY, rollout, &logs(&[]));
    let next = repository.commit("Not at all");
    repository.wait_ending(&next, Ending::Succeeded);
    daemon.wait_agent("gw", "without batches", |agent| is_confirmed(agent) && !has(agent, "processors/batch"));
    assert_eq!(tap.offers(), 4);
    drop(supervisor);
}

#[test]
fn a_restart_starts_another_collector_with_the_same_configuration() {
    let name = "a_restart_starts_another_collector_with_the_same_configuration";
    let Some(programs) = Programs::find(name) else { return };
    let (directory, repository, first) = one_group(&logs(&[]));
    let daemon = Daemon::start(directory.path(), &repository);
    let tap = Tap::start(daemon.address());
    let endpoint = format!("ws://{}/v1/opamp", tap.address());
    let supervisor = Supervisor::start(&programs, directory.path(), "gw", &endpoint, "", &daemon);
    repository.wait_ending(&first, Ending::Succeeded);
    let before = daemon.wait_agent("gw", "confirmed", is_confirmed);
    let collector = supervisor.collector();

    daemon.order(&["restart", &before.id]);
    interop::wait("another collector runs", || match supervisor.collector() {
        same if same == collector => Err(format!("{same} still runs")),
        _ => Ok(()),
    });
    let after = daemon.wait_agent("gw", "well again", is_confirmed);
    assert_eq!((after.hash, after.group), (before.hash, before.group));
    assert_eq!((tap.offers(), tap.connections()), (1, 1), "nothing was offered, and the supervisor stayed");
    drop(supervisor);
}

/// A file of the tests' authority, private in this directory as keys have to be.
fn private(directory: &Path, name: &str) -> String {
    let path = directory.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name);
    std::fs::copy(source, &path).expect("a copy");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    path.display().to_string()
}

/// `gitamp token` with this file; what it printed.
fn token(file: &Path, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gitamp"));
    let output = command.arg("token").args(arguments).arg("--file").arg(file).output().expect("the program starts");
    assert!(output.status.success(), "gitamp token {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[test]
fn a_supervisor_comes_in_over_tls_with_a_token() {
    let Some(programs) = Programs::find("a_supervisor_comes_in_over_tls_with_a_token") else { return };
    let (directory, repository, _) = one_group(&logs(&[]));
    let home = directory.path();
    repository.write_policy("boundaries: [{path: all, trust: proven}]");
    repository.write_group("all", "{matchLabels: {env: prod}}", &logs(&[]));
    let first = repository.commit("Only who proves it");
    let (own, tokens) = ([private(home, "server.pem"), private(home, "server-key.pem")], home.join("tokens.yaml"));
    let secret = token(&tokens, &["new", "gw", "--label", "env=prod"]);
    let flags = [
        format!("--tls-cert-file={}", own[0]),
        format!("--tls-key-file={}", own[1]),
        format!("--agent-token-file={}", tokens.display()),
    ];
    let daemon = Daemon::start_with(home, &repository, &flags.each_ref().map(String::as_str));
    let server = format!(
        "{{endpoint: 'wss://{}/v1/opamp', headers: {{Authorization: 'Bearer {secret}'}}, tls: {{ca_file: '{}'}}}}",
        daemon.address(),
        private(home, "ca.pem")
    );
    // What it says of itself is another thing.
    let supervisor = Supervisor::start_with(&programs, home, "gw", &server, ", env: staging", &daemon);
    let note = repository.wait_ending(&first, Ending::Succeeded);
    assert_eq!(note.groups["all"].counts.confirmed, 1, "{note:?}");
    let agent = daemon.wait_agent("gw", "confirmed", is_confirmed);
    assert_eq!((agent.transport.as_str(), agent.labels["env"].as_str()), ("websocket", "prod"), "{agent:?}");
    assert_eq!(agent.proven, ["env", "token.name"], "{agent:?}");
    repository.write_group("all", "{matchLabels: {env: prod}}", &logs(&[("batch", "{timeout: 1s}")]));
    let changed = repository.commit("Send in batches");
    repository.wait_ending(&changed, Ending::Succeeded);
    daemon.wait_agent("gw", "running batches", |agent| is_confirmed(agent) && has(agent, "processors/batch"));
    let collector = supervisor.collector();
    token(&tokens, &["revoke", "gw"]);
    daemon.wait_agent("gw", "gone", |agent| !agent.connected);
    assert_eq!(supervisor.collector(), collector, "what runs goes on running");
    assert!(!daemon.log().contains(&secret), "a token stands in the log");
}

#[test]
fn a_supervisor_comes_in_with_a_certificate_and_is_known_by_it() {
    let Some(programs) = Programs::find("a_supervisor_comes_in_with_a_certificate_and_is_known_by_it") else { return };
    let (directory, repository, _) = one_group(&logs(&[]));
    let home = directory.path();
    repository.write_policy("boundaries: [{path: all, trust: proven}]");
    repository.write_group("all", "{matchLabels: {tls.cn: gw-1, tls.o: shop}}", &logs(&[]));
    let first = repository.commit("Only who proves it");
    let ca = private(home, "ca.pem");
    let flags = [
        format!("--tls-cert-file={}", private(home, "server.pem")),
        format!("--tls-key-file={}", private(home, "server-key.pem")),
        format!("--tls-client-ca-file={ca}"),
    ];
    let daemon = Daemon::start_with(home, &repository, &flags.each_ref().map(String::as_str));
    let (chain, key) = (private(home, "client.pem"), private(home, "client-key.pem"));
    let server = format!(
        "{{endpoint: 'wss://{}/v1/opamp', tls: {{ca_file: '{ca}', cert_file: '{chain}', key_file: '{key}'}}}}",
        daemon.address()
    );
    let supervisor = Supervisor::start_with(&programs, home, "gw", &server, "", &daemon);
    let note = repository.wait_ending(&first, Ending::Succeeded);
    assert_eq!(note.groups["all"].counts.confirmed, 1, "{note:?}");
    let agent = daemon.wait_agent("gw", "confirmed", is_confirmed);
    assert_eq!(agent.labels["tls.spiffe"], "spiffe://example.org/ns/shop/sa/gateway", "{agent:?}");
    assert!(agent.proven.iter().all(|label| label.starts_with("tls.")) && !agent.proven.is_empty(), "{agent:?}");
    drop(supervisor);
}
