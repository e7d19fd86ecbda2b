//! Limits, each exceeded by somebody: who exceeds one is refused and counted, and whoever is beside them is served. Holds `docs/limits.md`.

#[path = "support/page.rs"]
mod page;
mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use gitamp::forge::hooks::signature::sign;
use gitamp::opamp::proto::any_value::Value;
use gitamp::opamp::proto::{
    AgentConfigMap, AgentConfigObject, AgentDescription, AgentToServer, AgentToServerFlags, AnyValue, EffectiveConfig,
    KeyValue,
};
use gitamp::settings::Secret;
use prost::Message;
use support::gateways::collector;
use support::{Daemon, PATIENCE, Repository, get, gitamp, run, wait_for, write_secret};

const GROUP: &str = "apiVersion: gitamp/v1\nkind: Group\nselector: {matchLabels: {service.name: gateway}}\n";

fn repository() -> Repository {
    Repository::with(&[("a/group.yaml", GROUP), ("a/collector.yaml", &collector("basic"))])
}

/// The guilty one, and whoever is beside it.
const GUILTY: [u8; 4] = [127, 0, 0, 1];
const NEIGHBOUR: [u8; 4] = [127, 0, 0, 2];

fn exceeded(daemon: &Daemon, setting: &str) -> f64 {
    let name = format!("gitamp_limits_exceeded_total{{limit=\"{setting}\"}}");
    daemon.metric(&name).unwrap_or_else(|| panic!("{name} is not there"))
}

/// A connection from an address of this machine.
fn connect(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        tokio::time::timeout(PATIENCE, socket.connect(to)).await?
    })?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The status of the answer to a request as it stands; `None`: the connection ended without one.
fn send(from: [u8; 4], to: SocketAddr, request: &[u8]) -> Option<u16> {
    let mut stream = connect(from, to).ok()?;
    // A server that refuses early may reset the connection behind its answer.
    let _written = stream.write_all(request);
    status(&mut stream)
}

fn status(stream: &mut TcpStream) -> Option<u16> {
    let mut answer = Vec::new();
    let _end = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";

fn poll(daemon: &Daemon, from: [u8; 4], message: &AgentToServer) -> Option<u16> {
    send(from, daemon.agents(), &request("/v1/opamp", PROTOBUF, &message.encode_to_vec()))
}

fn uid(who: u16) -> Bytes {
    let mut uid = vec![7; 16];
    uid[..2].copy_from_slice(&who.to_be_bytes());
    uid.into()
}

fn heartbeat(who: u16, sequence_num: u64) -> AgentToServer {
    AgentToServer { instance_uid: uid(who), sequence_num, capabilities: 1, ..Default::default() }
}

fn described(who: u16, attributes: &[(&str, &str)]) -> AgentToServer {
    let pair = |(key, value): &(&str, &str)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue((*value).to_owned())) }),
    };
    let identifying_attributes = attributes.iter().map(pair).collect();
    let agent_description = Some(AgentDescription { identifying_attributes, ..Default::default() });
    AgentToServer { agent_description, ..heartbeat(who, 0) }
}

/// A message of about so many bytes.
fn large(who: u16, sequence_num: u64, bytes: usize) -> AgentToServer {
    let body = AgentConfigObject { body: format!("# {}\n", "x".repeat(bytes)).into(), ..Default::default() };
    let config_map = Some(AgentConfigMap { config_map: [(String::new(), body)].into() });
    AgentToServer { effective_config: Some(EffectiveConfig { config_map }), ..heartbeat(who, sequence_num) }
}

#[test]
fn what_one_agent_may_say_is_bounded() {
    let repository = repository();
    let daemon = Daemon::start(
        &repository,
        &["--max-message-size=8KiB", "--max-agent-bytes=16KiB", "--max-attributes=4", "--max-attribute-bytes=1KiB"],
    );
    let neighbour = |sequence| {
        let said = poll(&daemon, NEIGHBOUR, &heartbeat(1, sequence));
        assert_eq!(said, Some(200), "the neighbour is served");
    };
    neighbour(0);
    let many: Vec<(String, String)> = (0..5).map(|at| (format!("k{at}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(poll(&daemon, GUILTY, &described(2, &many)), Some(400), "five attributes");
    assert_eq!(exceeded(&daemon, "max-attributes"), 1.0);
    neighbour(1);
    let long = "v".repeat(700);
    assert_eq!(poll(&daemon, GUILTY, &described(2, &[("a", &long), ("b", &long)])), Some(400), "1,400 bytes of them");
    assert_eq!(exceeded(&daemon, "max-attribute-bytes"), 1.0);
    neighbour(2);
    assert_eq!(poll(&daemon, GUILTY, &large(2, 0, 9_000)), Some(413), "a message of 9 KB");
    assert_eq!(exceeded(&daemon, "max-message-size"), 1.0);
    neighbour(3);
    // Counted for ten seconds: on a slow machine a few more of them are needed.
    let refused =
        (0..40).map(|sequence| poll(&daemon, GUILTY, &large(2, sequence, 7_000))).find(|said| *said == Some(503));
    assert_eq!(refused, Some(Some(503)), "7 KB, again and again");
    assert!(exceeded(&daemon, "max-agent-bytes") >= 1.0);
    neighbour(4);
}

#[test]
fn agents_that_poll_are_bounded_in_all_and_for_each_address() {
    let repository = repository();
    let daemon = Daemon::start(&repository, &["--max-polling-agents=9", "--max-connections-per-address=6"]);
    let came = |from, who| poll(&daemon, from, &heartbeat(who, 0));
    assert_eq!(came(NEIGHBOUR, 100), Some(200));
    for who in 0..6 {
        assert_eq!(came(GUILTY, who), Some(200), "{who}");
    }
    assert_eq!(came(GUILTY, 6), Some(503), "six of one address");
    assert_eq!(exceeded(&daemon, "max-connections-per-address"), 1.0);
    assert_eq!((came(NEIGHBOUR, 101), came(NEIGHBOUR, 102)), (Some(200), Some(200)), "another address has its own");
    assert_eq!(came(NEIGHBOUR, 103), Some(503), "nine in all");
    assert_eq!(exceeded(&daemon, "max-polling-agents"), 1.0);
    assert_eq!(poll(&daemon, NEIGHBOUR, &heartbeat(100, 1)), Some(200), "who is there is served");
    assert_eq!(poll(&daemon, GUILTY, &heartbeat(0, 1)), Some(200), "as is who brought too many");
}

#[test]
fn made_up_identities_use_up_what_is_their_own_and_nothing_else() {
    let repository = repository();
    let daemon = Daemon::start(&repository, &["--max-new-agents=1", "--max-connection-rate=8"]);
    let plain = |who| heartbeat(who, 0);
    let nameless = |who| AgentToServer { flags: AgentToServerFlags::RequestInstanceUid as u64, ..heartbeat(who, 0) };
    let overlong: Vec<(String, &str)> = (0..257).map(|at| (format!("k{at}"), "v")).collect();
    let overlong: Vec<(&str, &str)> = overlong.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let refused = |who| described(who, &overlong);
    flood(&daemon, GUILTY, ("max-new-agents", 180.0), plain);
    // Those that never have a session, too: they ask for another uid at once, or say what is refused.
    flood(&daemon, [127, 0, 0, 3], ("max-new-agents", 360.0), nameless);
    flood(&daemon, [127, 0, 0, 4], ("max-new-agents", 540.0), refused);
    assert_eq!(poll(&daemon, NEIGHBOUR, &heartbeat(1_000, 0)), Some(200), "a newcomer from elsewhere");
    assert_eq!(exceeded(&daemon, "max-connection-rate"), 0.0, "what all share was not used up");
    let nobody = AgentToServer { instance_uid: Bytes::from_static(b"short"), ..Default::default() };
    let turned_away = (0..9).any(|_| poll(&daemon, GUILTY, &nobody) == Some(503));
    assert!(turned_away, "nor does it help to have no identity");
}

/// Whoever comes again and again has what nobody else wants, and no more: a newcomer comes in at the first attempt.
#[test]
fn one_address_leaves_turns_to_come_in_to_others() {
    let repository = repository();
    let daemon = Daemon::start(&repository, &["--max-connection-rate=20"]);
    // Fewer than twenty a second would have to come for none of them to be refused. A quarter is left at least, which is five.
    for round in 0..2 {
        flood(&daemon, GUILTY, ("max-connection-rate", 1.0), |who| heartbeat(round * 200 + who, 0));
        assert_eq!(poll(&daemon, NEIGHBOUR, &heartbeat(5_000 + round, 0)), Some(200), "a newcomer from elsewhere");
        let upgrade = b"GET /v1/opamp HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut stream = connect(NEIGHBOUR, daemon.agents()).expect("a connection");
        stream.write_all(upgrade).expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 101", "over a WebSocket, too");
    }
    // Two looks, between which the last of the flood may be counted.
    wait_for("all refusals to be for an own share", || {
        let all = exceeded(&daemon, "max-connection-rate");
        let by_share = daemon.metric("gitamp_connections_throttled_by_share_total");
        if by_share == Some(all) { Ok(()) } else { Err((all, by_share)) }
    });
}

/// Has two hundred agents of one address poll over one connection, as fast as can be, until so many in all are refused.
fn flood(daemon: &Daemon, from: [u8; 4], (limit, refused): (&str, f64), message: impl Fn(u16) -> AgentToServer) {
    let mut stream = connect(from, daemon.agents()).expect("a connection");
    let all: Vec<u8> = (0..200)
        .flat_map(|who| {
            let body = message(who).encode_to_vec();
            let head =
                format!("POST /v1/opamp HTTP/1.1\r\nHost: x\r\n{PROTOBUF}Content-Length: {}\r\n\r\n", body.len());
            [head.into_bytes(), body].concat()
        })
        .collect();
    let mut reader = stream.try_clone().expect("a second handle");
    let reading = std::thread::spawn(move || {
        // What each is answered does not matter, but somebody has to read it. It ends with the connection.
        let _end = std::io::copy(&mut reader, &mut std::io::sink());
    });
    stream.write_all(&all).expect("sent");
    wait_for("most of them to be refused", || match exceeded(daemon, limit) {
        count if count >= refused => Ok(()),
        count => Err(count),
    });
    stream.shutdown(std::net::Shutdown::Both).expect("the end");
    reading.join().expect("read");
}

/// Whoever begins large messages and then sends nothing holds room for them until they are too slow.
#[test]
fn large_messages_that_never_come_make_nobody_else_wait() {
    let repository = repository();
    let limits = ["--max-message-size=64KiB", "--max-agent-bytes=64KiB", "--max-bytes-in-flight=256KiB"];
    let daemon = Daemon::start(&repository, &limits);
    let head = format!(
        "POST /v1/opamp HTTP/1.1\r\nHost: x\r\n{PROTOBUF}Content-Length: 60000\r\n\r\n{}",
        "\x0a".repeat(9_000)
    );
    let slow: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = connect(GUILTY, daemon.agents()).expect("a connection");
            stream.write_all(head.as_bytes()).expect("sent");
            stream
        })
        .collect();
    wait_for("all but one to wait", || match exceeded(&daemon, "max-bytes-in-flight") {
        7.0 => Ok(()),
        waiting => Err(waiting),
    });
    assert_eq!(poll(&daemon, NEIGHBOUR, &large(1, 0, 50_000)), Some(200), "there is room for the neighbour");
    assert_eq!(exceeded(&daemon, "max-bytes-in-flight"), 7.0, "who did not have to wait for it");
    wait_for("the first to be refused because nothing more of it comes", || {
        let refused = daemon.metric("gitamp_messages_too_slow_total");
        if refused.is_some_and(|count| count >= 1.0) { Ok(()) } else { Err(refused) }
    });
    drop(slow);
}

#[test]
fn hooks_are_bounded_for_each_address() {
    let (repository, files) = (repository(), tempfile::tempdir().expect("a directory"));
    let secret = files.path().join("secret");
    write_secret(&secret, "It's a Secret to Everybody\n");
    let flag = format!("--hook-secret-file={}", secret.display());
    let daemon = Daemon::start(&repository, &[&flag, "--max-hook-size=4KiB", "--max-hook-rate=1"]);
    let ring = |from, bytes: usize| send(from, daemon.agents(), &request("/hooks/generic", "", &vec![b' '; bytes]));
    assert_eq!(ring(GUILTY, 5_000), Some(413), "5 KB");
    assert_eq!(exceeded(&daemon, "max-hook-size"), 1.0);
    let paced = (0..9).map(|_| ring(GUILTY, 10)).find(|said| *said == Some(429));
    assert!(paced.is_some(), "more than one a minute that is not signed");
    assert_eq!(exceeded(&daemon, "max-hook-rate"), 1.0);
    assert_eq!(ring(NEIGHBOUR, 10), Some(401), "another address is heard");
}

#[test]
fn deliveries_that_prove_nothing_do_not_fill_the_log() {
    let (repository, files) = (repository(), tempfile::tempdir().expect("a directory"));
    let secret = files.path().join("secret");
    write_secret(&secret, "It's a Secret to Everybody\n");
    let flag = format!("--hook-secret-file={}", secret.display());
    let daemon = Daemon::start(&repository, &[&flag, "--max-hook-rate=off"]);
    let one = "POST /hooks/generic HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    let all =
        one.repeat(99) + "POST /hooks/generic HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let mut stream = connect(GUILTY, daemon.agents()).expect("a connection");
    stream.write_all(all.as_bytes()).expect("sent");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("answers");
    assert_eq!(answers.matches("HTTP/1.1 401 ").count(), 100);
    // The log is written in order, and a moment later: what is signed is told after all of them.
    let said = br#"{"ref": "refs/heads/main"}"#;
    let signature = sign(&Secret::new("It's a Secret to Everybody"), said).expect("a signature");
    let signed =
        request("/hooks/generic", &format!("Content-Type: application/json\r\nX-Signature: {signature}\r\n"), said);
    assert_eq!(send(GUILTY, daemon.agents(), &signed), Some(202));
    let log = wait_for("the push in the log", || {
        let log = daemon.process().log();
        if log.contains("looking at the repository") { Ok(log) } else { Err(log) }
    });
    let lines = log.matches("a delivery is refused").count();
    assert!((1..100).contains(&lines), "one a second at most: {lines}");
}

#[test]
fn idle_connections_of_one_address_leave_places_for_others() {
    let repository = repository();
    let daemon = Daemon::start(&repository, &[]);
    let idle: Vec<TcpStream> = (0..64).filter_map(|_| connect(GUILTY, daemon.admin()).ok()).collect();
    let health = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(send(NEIGHBOUR, daemon.admin(), health), Some(200), "a scraper elsewhere");
    drop(idle);
    let turned_away = wait_for("a place", || match get(daemon.admin(), "/metrics") {
        Ok((200, text)) => {
            Ok(text.lines().find_map(|line| line.strip_prefix("gitamp_admin_turned_away_total ")?.parse::<f64>().ok()))
        }
        other => Err(format!("{other:?}")),
    });
    assert!(turned_away.is_some_and(|count| count >= 32.0), "{turned_away:?}");
}

fn holders(names: &[&str]) -> String {
    use sha2::Digest;
    let entry = |name: &&str| {
        let hash = hex::encode(sha2::Sha256::digest(format!("token-of-{name}")));
        format!("- {{name: {name}, sha256: {hash}, labels: {{role: operate}}}}\n")
    };
    format!("tokens:\n{}", names.iter().map(entry).collect::<String>())
}

#[test]
fn operators_and_strangers_are_bounded_each_for_themselves() {
    let (repository, files) = (repository(), tempfile::tempdir().expect("a directory"));
    let tokens = files.path().join("operators.yaml");
    write_secret(&tokens, &holders(&["ann", "bob"]));
    let port = support::free_port();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let daemon = Daemon::start(
        &repository,
        &[
            &format!("--api-listen=127.0.0.1:{port}"),
            &format!("--api-token-file={}", tokens.display()),
            "--api-plain",
            "--api-max-connections=4",
            "--api-max-connections-per-address=3",
            "--api-max-requests=1",
            "--api-max-unproven=2",
            "--api-max-order-size=1KiB",
        ],
    );
    let ask = |from, who: &str, path: &str, body: &[u8]| {
        send(from, at, &request(path, &format!("Authorization: Bearer token-of-{who}\r\n"), body))
    };
    // Places come back a moment after their connections ended.
    let answered = |from, who: &str, path: &str, body: &[u8]| {
        wait_for("a place", || ask(from, who, path, body).ok_or("turned away"))
    };
    let mut idle: Vec<TcpStream> = (0..3).map(|_| connect(GUILTY, at).expect("a connection")).collect();
    wait_for("one address to have its places", || match ask(GUILTY, "bob", "/api/v1/orders/preview", b"{}") {
        None => Ok(()),
        Some(status) => Err(status),
    });
    assert!(exceeded(&daemon, "api-max-connections-per-address") >= 1.0);
    assert_eq!(answered(NEIGHBOUR, "bob", "/api/v1/orders/preview", b"{}"), 400, "another address has its own");
    let last = wait_for("the last place", || {
        let mut stream = connect(NEIGHBOUR, at).map_err(|error| error.to_string())?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").map_err(|error| error.to_string())?;
        let mut first = [0];
        match stream.read(&mut first) {
            Ok(1) => Ok(stream),
            other => Err(format!("{other:?}")),
        }
    });
    drop(last);
    let other = [127, 0, 0, 3];
    let mut holding: Vec<TcpStream> = (0..2).map(|_| connect(other, at).expect("a connection")).collect();
    wait_for("all places to be taken", || match exceeded(&daemon, "api-max-connections") {
        count if count >= 1.0 => Ok(()),
        count => {
            // On a slow machine the first ones may have ended.
            idle.extend(connect(GUILTY, at));
            holding.extend(connect(other, at));
            Err(count)
        }
    });
    drop((idle, holding));

    let large = format!("{{\"command\":\"pause\",\"group\":\"{}\"}}", "x".repeat(2_000));
    assert_eq!(answered(NEIGHBOUR, "bob", "/api/v1/orders/preview", large.as_bytes()), 413, "an order of 2 KB");
    assert_eq!(exceeded(&daemon, "api-max-order-size"), 1.0);
    let paced = (0..60).map(|_| answered(GUILTY, "ann", "/api/v1/orders/preview", b"{}")).find(|said| *said == 429);
    assert_eq!(paced, Some(429), "one a second");
    assert!(exceeded(&daemon, "api-max-requests") >= 1.0);
    let slowed = (0..40).map(|_| answered(GUILTY, "nobody", "/api/v1/orders/preview", b"{}")).find(|said| *said == 429);
    assert_eq!(slowed, Some(429), "two a minute");
    assert!(exceeded(&daemon, "api-max-unproven") >= 1.0);
    assert_eq!(answered(GUILTY, "bob", "/api/v1/orders/preview", b"{}"), 400, "who is known is not slowed by guesses");
}

#[test]
fn handshakes_with_operators_are_bounded() {
    let (repository, files) = (repository(), tempfile::tempdir().expect("a directory"));
    let path = |name: &str| files.path().join(name).display().to_string();
    let fixture = |name: &str| format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    write_secret(&files.path().join("operators.yaml"), &holders(&["ann"]));
    write_secret(&files.path().join("token"), "token-of-ann\n");
    write_secret(&files.path().join("key.pem"), &std::fs::read_to_string(fixture("server-key.pem")).expect("a key"));
    let port = support::free_port();
    let daemon = Daemon::start(
        &repository,
        &[
            &format!("--api-listen=127.0.0.1:{port}"),
            &format!("--api-token-file={}", path("operators.yaml")),
            &format!("--api-cert-file={}", fixture("server.pem")),
            &format!("--api-key-file={}", path("key.pem")),
            "--api-max-handshakes=1",
            "--handshake-timeout=1s",
        ],
    );
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let slow: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = connect(NEIGHBOUR, at).expect("a connection");
            // The beginning of a record that never ends.
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0]).expect("sent");
            stream
        })
        .collect();
    wait_for("no turn for some, and no time for another", || {
        let counts = (exceeded(&daemon, "api-max-handshakes"), exceeded(&daemon, "handshake-timeout"));
        if counts.0 >= 1.0 && counts.1 >= 1.0 { Ok(()) } else { Err(counts) }
    });
    drop(slow);
    wait_for("an operator to come in", || {
        let server = format!("https://localhost:{port}");
        let ca = fixture("ca.pem");
        let token = path("token");
        let output = run(&mut gitamp(["status", "--server", &server, "--token-file", &token, "--ca-file", &ca]));
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    let counted = daemon.metric("gitamp_api_tls_handshakes_total{result=\"ok\"}");
    assert!(counted.is_some_and(|count| count >= 1.0), "{counted:?}");
}

#[test]
fn a_commit_that_brings_too_much_is_refused_and_what_was_there_goes_on() {
    let other = GROUP.replace("gateway", "edge");
    let repository = Repository::with(&[
        ("a/group.yaml", GROUP),
        ("a/collector.yaml", &collector("basic")),
        ("b/group.yaml", &other),
        ("b/collector.yaml", &collector("basic")),
    ]);
    let limits = [
        "--max-files=40",
        "--max-file-size=8KiB",
        "--max-fleet-size=32KiB",
        "--max-directory-depth=4",
        "--max-yaml-depth=12",
        "--max-config-size=4KiB",
    ];
    let daemon = Daemon::start(&repository, &limits);
    let of_comments = format!("{}\n", "# ".repeat(3_500));
    let extension = |text: &str| format!("{}extensions:\n  x: {text}\n", collector("basic"));
    let files = |names: &[String], text: &str| -> Vec<(String, String)> {
        names.iter().map(|name| (name.clone(), text.to_owned())).collect()
    };
    let many: Vec<String> = (0..50).map(|at| format!("many/{at}.txt")).collect();
    let heavy: Vec<String> = (0..5).map(|at| format!("heavy/{at}.yaml")).collect();
    for (setting, whole, brought) in [
        ("max-files", true, files(&many, "")),
        ("max-fleet-size", true, files(&heavy, &of_comments)),
        ("max-directory-depth", true, files(&["1/2/3/4/5/6/x.yaml".to_owned()], "")),
        ("max-file-size", false, files(&["a/collector.yaml".to_owned()], &format!("{of_comments}{of_comments}"))),
        (
            "max-yaml-depth",
            false,
            files(&["a/collector.yaml".to_owned()], &extension(&format!("{}{}", "[".repeat(20), "]".repeat(20)))),
        ),
        ("max-config-size", false, files(&["a/collector.yaml".to_owned()], &extension(&"y".repeat(5_000)))),
    ] {
        assert_eq!(exceeded(&daemon, setting), 0.0, "{setting}");
        let brought: Vec<(&str, &str)> = brought.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let bad = repository.commit(setting, &brought);
        let note = wait_for("what is too much to be rejected", || {
            let note = repository.note(&bad).unwrap_or_default();
            let is_told = note.lines().any(|line| line.trim() == "ending: rejected");
            if is_told { Ok(note) } else { Err(note) }
        });
        assert!(exceeded(&daemon, setting) >= 1.0, "{setting}");
        let is_whole = note.lines().any(|line| line == "ending: rejected");
        assert_eq!(is_whole, whole, "{setting}: {note}");
        assert!(note.contains(setting) || !whole, "{setting}: {note}");
        let checked = run(gitamp(["check"].iter().chain(&limits)).current_dir(repository.work()));
        assert!(!checked.status.success(), "`gitamp check` sees it before: {setting}");
        // The other group goes on with the same commit, or with the next one when nothing of this one is taken.
        let group = daemon.group("b");
        assert_eq!(group["diagnostics"], serde_json::json!([]), "{setting}: {group}");
        repository.git(&["rm", "-r", "--quiet", "--ignore-unmatch", "many", "heavy", "1"]);
        let level = if exceeded(&daemon, "max-fleet-size") > 0.0 { "normal" } else { "detailed" };
        let good = repository.commit(
            "What was there, and something new",
            &[
                ("a/collector.yaml", &collector("basic")),
                ("b/collector.yaml", &format!("{}# {setting}\n", collector(level))),
            ],
        );
        wait_for("the next commit to be taken", || {
            let status = daemon.status();
            let revision = status["sync"]["revision"].as_str().unwrap_or_default().to_owned();
            let note = repository.note(&good).unwrap_or_default();
            if revision.contains(&good) && !note.contains("rejected") { Ok(()) } else { Err((revision, note)) }
        });
    }
    let plain = run(gitamp(["check"]).current_dir(repository.work()));
    assert!(plain.status.success(), "{}", String::from_utf8_lossy(&plain.stdout));
}

/// Settings that are limits, although their names do not begin like one.
const ALSO_LIMITS: [&str; 1] = ["handshake-timeout"];

/// What is wrong with the page, with these flags of `gitamp serve` and this exposition.
fn findings(page: &str, flags: &BTreeSet<String>, exposition: &str) -> Vec<String> {
    let (mut wrong, mut named) = (Vec::new(), BTreeSet::new());
    for (index, line) in page.lines().enumerate() {
        let Some(cells) = page::cells(line).filter(|cells| cells.len() == 6 && !cells[0].starts_with(['-', ':']))
        else {
            continue;
        };
        let [what, default, setting, _, metric, tests] = cells[..] else { continue };
        if what == "what" {
            continue;
        }
        let at = format!("line {} ({what})", index + 1);
        if default.is_empty() {
            wrong.push(format!("{at}: has no default"));
        }
        let spans = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        for setting in spans(setting) {
            let key = setting.trim_start_matches("--").to_owned();
            if !flags.contains(&key) {
                wrong.push(format!("{at}: there is no setting {setting}"));
            }
            let label = format!("gitamp_limits_exceeded_total{{limit=\"{key}\"}}");
            // Answers are counted with what else becomes of requests.
            if !exposition.contains(&label) && metric.is_empty() {
                wrong.push(format!("{at}: {setting} has no counter"));
            }
            named.insert(key);
        }
        for metric in spans(metric) {
            if !exposition.lines().any(|line| line.starts_with(metric.as_str())) {
                wrong.push(format!("{at}: there is no metric {metric}"));
            }
        }
        let tests = page::tests_in(tests);
        if tests.is_empty() {
            wrong.push(format!("{at}: names no test"));
        }
        for (file, name) in tests {
            if !page::read(file).is_some_and(|source| page::has_test(&source, name)) {
                wrong.push(format!("{at}: {file} has no test {name}"));
            }
        }
    }
    let is_limit =
        |key: &&String| key.starts_with("max-") || key.starts_with("api-max-") || ALSO_LIMITS.contains(&key.as_str());
    wrong.extend(
        flags.iter().filter(is_limit).filter(|key| !named.contains(*key)).map(|key| format!("`--{key}` is missing")),
    );
    wrong
}

#[test]
fn every_limit_has_a_default_a_setting_a_metric_and_a_test() {
    let page = page::read("docs/limits.md").expect("the page");
    let help = run(&mut gitamp(["serve", "--help"]));
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let flag = |line: &str| {
        line.trim_start().split([' ', '[', '=']).find_map(|word| word.strip_prefix("--").map(str::to_owned))
    };
    let flags: BTreeSet<String> = help.lines().filter_map(flag).collect();
    let (repository, files) = (repository(), tempfile::tempdir().expect("a directory"));
    let token = files.path().join("token");
    write_secret(&token, "hunter2\n");
    let token = format!("--forge-token-file={}", token.display());
    let forge = ["--forge=gitea", "--forge-api=http://127.0.0.1:1/api/v1", "--forge-project=team/fleet", &token];
    let daemon = Daemon::start(&repository, &forge);
    let (_, exposition) = get(daemon.admin(), "/metrics").expect("metrics");
    let wrong = findings(&page, &flags, &exposition);
    assert!(wrong.is_empty(), "docs/limits.md:\n{}", wrong.join("\n"));

    let row = "| something | 7 | `--max-files` | said | `gitamp_build` | `tests/limits.rs::hooks_are_bounded_for_each_address` |";
    let flags = BTreeSet::from(["max-files".to_owned()]);
    assert_eq!(findings(row, &flags, &exposition), [""; 0]);
    for (from, to, said) in [
        ("| 7 |", "|  |", "has no default"),
        ("max-files", "max-file", "there is no setting"),
        ("gitamp_build", "gitamp_nothing", "there is no metric"),
        ("hooks_are", "hooks_were", "has no test"),
        ("`tests/limits.rs::hooks_are_bounded_for_each_address`", "none", "names no test"),
        ("`--max-files`", "none", "`--max-files` is missing"),
    ] {
        let found = findings(&row.replace(from, to), &flags, &exposition);
        assert!(found.iter().any(|one| one.contains(said)), "{said}: {found:?}");
    }
}
