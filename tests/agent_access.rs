//! Who may speak on the agents' port: TLS, certificates of agents, and what changes while agents are connected.

#[path = "support/counted.rs"]
mod counted;
mod support;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use counted::counted;
use gitamp::agent::{AgentEvent, AgentId, ConnectionId};
use gitamp::clock::Clock;
use gitamp::config::{ComponentNames, ConfigHash, RenderedConfig};
use gitamp::identity::tokens::{Entry, TokenFile, new_token};
use gitamp::opamp::proto::*;
use gitamp::serve::gate::{Gate, Whose};
use gitamp::serve::tls::{ClientCertificates, Tls, TlsLimits};
use gitamp::serve::traffic::Traffic;
use gitamp::serve::{AgentLinks, AgentMessage, AgentServerOptions, serve_agents};
use gitamp::settings::{ProofSettings, SecretFile, TlsSettings};
use gitamp::simulate::client_config;
use gitamp::time::Timestamp;
use support::issuer::Issuer;

/// Nothing in these tests takes long; what is not there by then will never come.
const BOUND: Duration = Duration::from_secs(30);

async fn bounded<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(BOUND, future).await.unwrap_or_else(|_| panic!("{what}: nothing came"))
}

/// Waits until a level is reached.
async fn reached(what: &str, mut level: impl FnMut() -> bool) {
    let waiting = async {
        while !level() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    bounded(what, waiting).await;
}

/// A file of the tests.
fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// The files of one server, to be changed while it runs.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().expect("a temporary directory"));
        files.put("server.pem", "certificate");
        files.put("server-key.pem", "key");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a copy of a file of the tests there, whole, as whoever renews it would.
    fn put(&self, source: &str, name: &str) {
        self.write(name, &std::fs::read(fixture(source)).expect("a file of the tests"));
    }

    fn write(&self, name: &str, content: &[u8]) {
        let new = self.path("new");
        std::fs::write(&new, content).expect("written");
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        std::fs::rename(new, self.path(name)).expect("renamed");
    }

    fn settings(&self, ca: bool, crl: bool) -> TlsSettings {
        TlsSettings {
            certificate: self.path("certificate"),
            key: SecretFile::new(self.path("key")),
            client_ca: ca.then(|| self.path("ca")),
            client_crl: crl.then(|| self.path("crl")),
        }
    }
}

const QUICK: TlsLimits =
    TlsLimits { handshakes: 64, patience: Duration::from_secs(20), reload: Duration::from_millis(20) };

/// A listener and the daemon's end of its channel.
struct House {
    at: SocketAddr,
    links: AgentLinks,
    events: mpsc::Receiver<AgentMessage>,
    traffic: Arc<Traffic>,
    tls: Option<Arc<Tls>>,
    _stop: watch::Sender<bool>,
    _task: JoinHandle<()>,
}

impl House {
    async fn open(settings: TlsSettings, clients: ClientCertificates, limits: TlsLimits) -> Self {
        let traffic = Arc::new(Traffic::default());
        let tls = Tls::open(settings, clients, limits, Arc::clone(&traffic.tls)).expect("files that can be used");
        Self::with(AgentServerOptions { tls: Some(Arc::new(tls)), ..AgentServerOptions::default() }, traffic).await
    }

    async fn with(options: AgentServerOptions, traffic: Arc<Traffic>) -> Self {
        Self::with_clock(options, traffic, Clock::start()).await
    }

    async fn with_clock(options: AgentServerOptions, traffic: Arc<Traffic>, clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let (sender, events) = mpsc::channel(64);
        let (stop, stopped) = watch::channel(false);
        let tls = options.tls.clone();
        let (links, task) = serve_agents(listener, options, clock, sender, None, Arc::clone(&traffic), stopped);
        Self { at, links, events, traffic, tls, _stop: stop, _task: task }
    }

    /// A connection that is encrypted, and shows this certificate.
    async fn connect(&self, own: Option<&str>) -> std::io::Result<TlsStream<TcpStream>> {
        let own = own.map(|name| (fixture(&format!("{name}.pem")), fixture(&format!("{name}-key.pem"))));
        let own = own.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path()));
        let config = client_config(Some(&fixture("ca.pem")), own).expect("files that can be used");
        let stream = TcpStream::connect(self.at).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        bounded("a handshake", TlsConnector::from(config).connect(name, stream)).await
    }

    async fn websocket(&self, own: Option<&str>) -> Result<Socket, String> {
        self.enter(own, None).await
    }

    /// The same with a bearer token.
    async fn enter(&self, own: Option<&str>, bearer: Option<&str>) -> Result<Socket, String> {
        let stream = self.connect(own).await.map_err(|error| error.to_string())?;
        let mut request = format!("wss://{}/v1/opamp", self.at).into_client_request().expect("a request");
        if let Some(bearer) = bearer {
            request.headers_mut().insert("authorization", format!("Bearer {bearer}").parse().expect("a header"));
        }
        let upgraded = bounded("an upgrade", tokio_tungstenite::client_async(request, stream)).await;
        upgraded.map(|(socket, _)| socket).map_err(|error| error.to_string())
    }

    /// Events until this agent has reported, and its connection.
    async fn report(&mut self, who: u8) -> ConnectionId {
        loop {
            let message = bounded("a report", self.events.recv()).await.expect("the listener runs");
            if let AgentEvent::Report { id, connection, .. } = message.event
                && id == agent(who)
            {
                return connection;
            }
        }
    }

    /// One poll; the status and the body of the answer.
    async fn poll(&self, bearer: &str, message: &AgentToServer) -> (u16, Vec<u8>) {
        let mut stream = self.connect(None).await.expect("a handshake");
        let message = message.encode_to_vec();
        let head = format!(
            "POST /v1/opamp HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/x-protobuf\r\nAuthorization: Bearer \
             {bearer}\r\nContent-Length: {}\r\n\r\n",
            message.len()
        );
        stream.write_all(&[head.as_bytes(), &message].concat()).await.expect("written");
        let mut answer = Vec::new();
        bounded("an answer", stream.read_to_end(&mut answer)).await.expect("in order");
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let status = String::from_utf8_lossy(&answer[9..12]).parse().expect("a status");
        (status, answer[split..].to_vec())
    }

    /// The labels in the next report of this agent.
    async fn labels(&mut self, who: u8) -> String {
        loop {
            let message = bounded("a report", self.events.recv()).await.expect("the listener runs");
            if let AgentEvent::Report { id, report, .. } = message.event
                && id == agent(who)
                && let Some(labels) = report.labels
            {
                return format!("{labels}; proven {}", labels.proofs());
            }
        }
    }

    /// Waits until this agent is gone.
    async fn gone(&mut self, who: u8) {
        loop {
            let message = bounded("its end", self.events.recv()).await.expect("the listener runs");
            if let AgentEvent::Gone { id, .. } = message.event
                && id == agent(who)
            {
                return;
            }
        }
    }

    /// Waits until both are gone, in whatever order.
    async fn both_gone(&mut self, one: u8, other: u8) {
        let mut left = vec![agent(one), agent(other)];
        while !left.is_empty() {
            let message = bounded("their end", self.events.recv()).await.expect("the listener runs");
            if let AgentEvent::Gone { id, .. } = message.event {
                left.retain(|other| *other != id);
            }
        }
    }

    fn state(&self) -> gitamp::serve::tls::TlsState {
        self.tls.as_ref().expect("TLS").state(Clock::start().now())
    }
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

fn agent(byte: u8) -> AgentId {
    AgentId::new(&[byte; 16]).expect("a uid")
}

fn config(byte: u8, bytes: usize) -> RenderedConfig {
    let body: Bytes = (0..bytes).map(|at| b'a' + (at % 23) as u8).collect::<Vec<u8>>().into();
    RenderedConfig::new(ConfigHash::new([byte; 32]), body, ComponentNames::default())
}

/// A first message, complete.
fn hello(who: u8) -> AgentToServer {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue("gateway".to_owned())) });
    let identifying_attributes = vec![KeyValue { key: "service.name".into(), value }];
    AgentToServer {
        instance_uid: vec![who; 16].into(),
        capabilities: 0x1802,
        agent_description: Some(AgentDescription { identifying_attributes, ..Default::default() }),
        remote_config_status: Some(RemoteConfigStatus::default()),
        ..Default::default()
    }
}

fn heartbeat(who: u8, sequence_num: u64) -> AgentToServer {
    AgentToServer { instance_uid: vec![who; 16].into(), sequence_num, capabilities: 0x1802, ..Default::default() }
}

async fn say(socket: &mut Socket, message: &AgentToServer) {
    let framed = Message::binary([vec![0], message.encode_to_vec()].concat());
    bounded("sending", socket.send(framed)).await.expect("sent");
}

/// The next message of the server; its close code instead, when that is what comes.
async fn hear(socket: &mut Socket) -> Result<ServerToAgent, CloseCode> {
    loop {
        match bounded("a message", socket.next()).await.expect("open").expect("in order") {
            Message::Binary(bytes) => return Ok(ServerToAgent::decode(&bytes[1..]).expect("a ServerToAgent")),
            Message::Close(frame) => return Err(frame.expect("with a code").code),
            Message::Ping(_) | Message::Pong(_) => {}
            other @ (Message::Text(_) | Message::Frame(_)) => panic!("{other:?} instead of a message"),
        }
    }
}

fn body(message: ServerToAgent) -> Option<Bytes> {
    Some(message.remote_config?.config?.config_map.remove("")?.body)
}

#[tokio::test]
async fn large_messages_pass_whole_in_both_directions() {
    let files = Files::new();
    let mut house = House::open(files.settings(false, false), ClientCertificates::Welcome, QUICK).await;
    let mut socket = house.websocket(None).await.expect("upgraded");
    say(&mut socket, &hello(1)).await;
    let connection = house.report(1).await;
    hear(&mut socket).await.expect("an answer");
    for (byte, bytes) in [(1, 10), (2, 16 * 1024), (3, 3 << 20), (4, 1)] {
        house.links.offer(connection, agent(1), config(byte, bytes), false);
        let message = hear(&mut socket).await.expect("an offer");
        assert_eq!(body(message).as_ref(), Some(config(byte, bytes).body()), "{bytes} bytes");
    }
    // A report of as many bytes as a message may have, in frames that are cut where they like.
    let large = AgentConfigObject { body: vec![b'#'; 900_000].into(), ..Default::default() };
    let map = AgentConfigMap { config_map: [(String::new(), large)].into() };
    let report = AgentToServer { effective_config: Some(EffectiveConfig { config_map: Some(map) }), ..heartbeat(1, 1) };
    say(&mut socket, &report).await;
    house.report(1).await;
    hear(&mut socket).await.expect("an answer");
    counted((0, 1), || (house.traffic.messages_refused.get(), house.traffic.tls.handshakes.get())).await;
}

#[tokio::test]
async fn versions_1_2_and_1_3_are_spoken_and_older_ones_are_not() {
    let files = Files::new();
    let mut house = House::open(files.settings(false, false), ClientCertificates::Welcome, QUICK).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(fixture("ca.pem")).expect("a certificate")).expect("an authority");
    let (roots, name) = (Arc::new(roots), ServerName::try_from("localhost").expect("a name"));
    for (who, version) in [(1, &rustls::version::TLS12), (2, &rustls::version::TLS13)] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
        let config = config.expect("a version").with_root_certificates(Arc::clone(&roots)).with_no_client_auth();
        let stream = TcpStream::connect(house.at).await.expect("accepted");
        let connecting = TlsConnector::from(Arc::new(config)).connect(name.clone(), stream);
        let stream = bounded("a handshake", connecting).await.expect("spoken");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        let upgraded = tokio_tungstenite::client_async(format!("wss://{}/v1/opamp", house.at), stream);
        let (mut socket, _) = bounded("an upgrade", upgraded).await.expect("upgraded");
        say(&mut socket, &hello(who)).await;
        house.report(who).await;
        hear(&mut socket).await.expect("an answer");
    }
    // The greeting of a client that knows version 1.1 alone, with a cipher of that time: it is told so in an alert.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    let mut stream = TcpStream::connect(house.at).await.expect("accepted");
    stream.write_all(&hello).await.expect("written");
    let mut answer = Vec::new();
    bounded("an answer", stream.read_to_end(&mut answer)).await.expect("in order");
    assert_eq!((answer[0], answer[5], answer.len()), (21, 2, 7), "a fatal alert and nothing else: {answer:?}");
    counted(1, || house.traffic.tls.broken.get()).await;
}

#[tokio::test]
async fn agents_that_poll_do_so_over_tls() {
    let files = Files::new();
    let mut house = House::open(files.settings(false, false), ClientCertificates::Welcome, QUICK).await;
    let mut stream = house.connect(None).await.expect("a handshake");
    let message = hello(1).encode_to_vec();
    let head = format!(
        "POST /v1/opamp HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        message.len()
    );
    stream.write_all(&[head.as_bytes(), &message].concat()).await.expect("written");
    house.report(1).await;
    let mut answer = Vec::new();
    bounded("an answer", stream.read_to_end(&mut answer)).await.expect("an end that TLS announces");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_and_counted() {
    let files = Files::new();
    let house = House::open(files.settings(false, false), ClientCertificates::Welcome, QUICK).await;
    let mut stream = TcpStream::connect(house.at).await.expect("accepted");
    stream.write_all(b"GET /v1/opamp HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("written");
    let mut answer = String::new();
    bounded("an answer", stream.read_to_string(&mut answer)).await.expect("in order");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("wss:// or https\n"), "{answer}");
    counted(1, || house.traffic.tls.foreign.get()).await;
    // What only looks like TLS.
    let mut stream = TcpStream::connect(house.at).await.expect("accepted");
    stream.write_all(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0]).await.expect("written");
    let mut answer = Vec::new();
    let _end = bounded("an answer", stream.read_to_end(&mut answer)).await;
    reached("a broken handshake", || house.traffic.tls.broken.get() == 1).await;
}

#[tokio::test]
async fn slow_handshakes_end_and_only_so_many_run() {
    let files = Files::new();
    let limits = TlsLimits { handshakes: 4, patience: Duration::from_millis(300), ..QUICK };
    let house = House::open(files.settings(false, false), ClientCertificates::Welcome, limits).await;
    let silent = TcpStream::connect(house.at).await.expect("accepted");
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(house.at).await.expect("accepted");
        // The beginning of a record that never ends.
        stream.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.expect("written");
        slow.push(stream);
    }
    let mut most = 0;
    reached("all to be ended", || {
        most = most.max(house.traffic.tls.in_flight.get());
        house.traffic.tls.slow.get() + house.traffic.tls.crowded.get() == 9
    })
    .await;
    assert!(most <= 3, "{most} handshakes of one address at a time");
    assert!(house.traffic.tls.slow.get() >= 4, "the silent one, and those who had a turn");
    for mut stream in slow.into_iter().chain([silent]) {
        let _end = bounded("the end", stream.read_to_end(&mut Vec::new())).await;
    }
    // Patience was short for them; somebody who is quick enough still comes in.
    let deadline = async {
        loop {
            if house.websocket(None).await.is_ok() {
                return;
            }
        }
    };
    bounded("one that comes in", deadline).await;
}

#[tokio::test]
async fn slow_handshakes_of_one_address_leave_turns_to_others() {
    let files = Files::new();
    let limits = TlsLimits { handshakes: 8, patience: Duration::from_secs(60), ..QUICK };
    let house = House::open(files.settings(false, false), ClientCertificates::Welcome, limits).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(house.at).await.expect("accepted");
        stream.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.expect("written");
        slow.push(stream);
    }
    counted((6, 14), || (house.traffic.tls.in_flight.get(), house.traffic.tls.waited.get())).await;
    assert!(reach(&house, [127, 0, 0, 2]).await.is_ok(), "a neighbour");
    assert_eq!(house.traffic.tls.waited.get(), 14, "which did not have to wait");
    drop(slow);
}

#[tokio::test]
async fn a_certificate_is_replaced_without_ending_a_connection() {
    let files = Files::new();
    let mut house = House::open(files.settings(false, false), ClientCertificates::Welcome, QUICK).await;
    let mut socket = house.websocket(None).await.expect("upgraded");
    let name = |stream: &TlsStream<TcpStream>| {
        let shown = stream.get_ref().1.peer_certificates().expect("certificates")[0].clone();
        gitamp::identity::certificate::names(&shown).expect("readable").labels["tls.cn"].clone()
    };
    assert_eq!(name(&house.connect(None).await.expect("a handshake")), "server");
    // The certificate comes first, and its key is still to come.
    files.put("renewed.pem", "certificate");
    reached("the half pair to be noticed", || house.state().problem.is_some()).await;
    let problem = house.state().problem.expect("said");
    assert!(problem.contains("does not belong") && problem.contains("stays in use"), "{problem}");
    assert!(!problem.contains("BEGIN"), "{problem}");
    counted(1, || house.traffic.tls.is_stale.get()).await;
    assert_eq!(name(&house.connect(None).await.expect("a handshake")), "server", "what was read before is in use");
    files.put("renewed-key.pem", "key");
    reached("the pair to be taken", || house.state().problem.is_none()).await;
    assert_eq!(name(&house.connect(None).await.expect("a handshake")), "renewed");
    counted((0, 1), || (house.traffic.tls.is_stale.get(), house.traffic.tls.reloads.get())).await;
    say(&mut socket, &hello(1)).await;
    house.report(1).await;
    hear(&mut socket).await.expect("the connection from before is as it was");
}

#[tokio::test]
async fn only_certificates_that_count_come_in() {
    let files = Files::new();
    files.put("ca.pem", "ca");
    files.put("revoked.crl", "crl");
    let house = House::open(files.settings(true, true), ClientCertificates::Demanded, QUICK).await;
    assert!(house.websocket(Some("client")).await.is_ok());
    for (count, own) in [(1, None), (2, Some("foreign")), (3, Some("revoked"))] {
        // TLS 1.3 tells the client with its first read.
        assert!(house.websocket(own).await.is_err(), "{own:?}");
        reached("the refusal to be counted", || house.traffic.tls.uncertified.get() == count).await;
    }
    // Hooks come in without one, agents do not.
    let house = House::open(files.settings(true, true), ClientCertificates::Welcome, QUICK).await;
    let refused = house.websocket(None).await.expect_err("nothing proved");
    assert!(refused.contains("401"), "{refused}");
    counted(1, || house.traffic.gate.unproven.get()).await;
    assert!(house.websocket(Some("client")).await.is_ok());
}

#[tokio::test]
async fn authorities_may_be_several_and_each_needs_its_list() {
    let files = Files::new();
    let read = |name: &str| std::fs::read(fixture(name)).expect("a file of the tests");
    files.write("ca", &[read("ca.pem"), read("foreign-ca.pem")].concat());
    let house = House::open(files.settings(true, false), ClientCertificates::Demanded, QUICK).await;
    for (own, comes_in) in [("client", true), ("foreign", true), ("revoked", true), ("ended", false)] {
        assert_eq!(house.websocket(Some(own)).await.is_ok(), comes_in, "{own}");
    }
    // A list counts on when it should have been renewed, and says nothing for another authority: its certificates are refused.
    files.put("stale.crl", "crl");
    let house = House::open(files.settings(true, true), ClientCertificates::Demanded, QUICK).await;
    for (own, comes_in) in [("client", true), ("foreign", false), ("revoked", false), ("ended", false)] {
        assert_eq!(house.websocket(Some(own)).await.is_ok(), comes_in, "{own}");
    }
    counted(3, || house.traffic.tls.uncertified.get()).await;
}

#[tokio::test]
async fn a_revoked_certificate_ends_its_connection_and_no_other() {
    let files = Files::new();
    files.put("ca.pem", "ca");
    files.put("empty.crl", "crl");
    let mut house = House::open(files.settings(true, true), ClientCertificates::Demanded, QUICK).await;
    let mut gone = house.websocket(Some("revoked")).await.expect("not revoked yet");
    let mut kept = house.websocket(Some("client")).await.expect("upgraded");
    for (who, socket) in [(1, &mut gone), (2, &mut kept)] {
        say(socket, &hello(who)).await;
        house.report(who).await;
        hear(socket).await.expect("an answer");
    }
    // A list that cannot be read revokes nobody, and does not go unnoticed.
    files.write("crl", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    reached("the broken list to be noticed", || house.state().problem.is_some()).await;
    files.put("revoked.crl", "crl");
    assert_eq!(hear(&mut gone).await, Err(CloseCode::Policy));
    counted(1, || house.traffic.gate.revoked.get()).await;
    say(&mut kept, &heartbeat(2, 1)).await;
    hear(&mut kept).await.expect("the other one is as it was");
    assert!(house.websocket(Some("revoked")).await.is_err(), "nor does it come in again");
}

/// One request over a connection that stays open; the status of the answer.
async fn ask(stream: &mut TlsStream<TcpStream>, headers: &str, message: &AgentToServer) -> u16 {
    let message = message.encode_to_vec();
    let head = format!(
        "POST /v1/opamp HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-protobuf\r\n{headers}Content-Length: {}\r\n\r\n",
        message.len()
    );
    stream.write_all(&[head.as_bytes(), &message].concat()).await.expect("written");
    let mut answer = Vec::new();
    loop {
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            if answer.len() >= head + length.parse::<usize>().expect("a number") {
                return text[9..12].parse().expect("a status");
            }
        }
        let read = bounded("an answer", stream.read_buf(&mut answer)).await.expect("in order");
        assert!(read > 0, "the connection ended in an answer: {}", String::from_utf8_lossy(&answer));
    }
}

/// Waits until the server ended the connection.
async fn ended(mut stream: TlsStream<TcpStream>) {
    let read = bounded("the end", stream.read(&mut [0; 64])).await.unwrap_or_default();
    assert_eq!(read, 0, "nothing but the end");
}

#[tokio::test]
async fn a_connection_that_is_kept_for_polls_ends_with_its_certificate() {
    let files = Files::new();
    files.put("ca.pem", "ca");
    files.put("empty.crl", "crl");
    let house = House::open(files.settings(true, true), ClientCertificates::Demanded, QUICK).await;
    let mut gone = house.connect(Some("revoked")).await.expect("not revoked yet");
    let mut kept = house.connect(Some("client")).await.expect("a handshake");
    for sequence in 0..2 {
        let message = |who| if sequence == 0 { hello(who) } else { heartbeat(who, sequence) };
        assert_eq!(ask(&mut gone, "", &message(1)).await, 200);
        assert_eq!(ask(&mut kept, "", &message(2)).await, 200);
    }
    files.put("revoked.crl", "crl");
    ended(gone).await;
    // The connection, and the agent that polled over it.
    counted(2, || house.traffic.gate.revoked.get()).await;
    assert_eq!(ask(&mut kept, "", &heartbeat(2, 2)).await, 200, "the other one is as it was");

    // One that ends by itself. A slow machine may need longer to come in at all.
    for seconds in [2, 8, 25] {
        let end: Timestamp = "2120-01-01T00:00:00Z".parse().expect("when the certificates of the tests end");
        let clock = Clock::start_at(Timestamp::from_millis(end.as_millis() - seconds * 1_000));
        let traffic = Arc::new(Traffic::default());
        let limits = TlsLimits { reload: Duration::from_secs(3_600), ..QUICK };
        let tls =
            Tls::open(files.settings(true, false), ClientCertificates::Demanded, limits, Arc::clone(&traffic.tls));
        let options = AgentServerOptions { tls: Some(Arc::new(tls.expect("files"))), ..AgentServerOptions::default() };
        let house = House::with_clock(options, traffic, clock).await;
        let mut polling = house.connect(Some("client")).await.expect("a handshake");
        let mut socket = house.websocket(Some("other")).await;
        if ask(&mut polling, "", &hello(1)).await == 200
            && let Ok(socket) = &mut socket
        {
            ended(polling).await;
            assert_eq!(hear(socket).await, Err(CloseCode::Policy));
            ended(house.connect(Some("client")).await.expect("a handshake")).await;
            return;
        }
    }
    panic!("no certificate came in before its end");
}

/// One request over a connection of its own, with this certificate; the status of the answer.
async fn poll_as(house: &House, own: &str, message: &AgentToServer) -> u16 {
    let mut stream = house.connect(Some(own)).await.expect("a handshake");
    ask(&mut stream, "", message).await
}

#[tokio::test]
async fn agents_that_poll_go_with_their_certificate_and_those_that_renewed_it_stay() {
    let files = Files::new();
    files.put("ca.pem", "ca");
    files.put("empty.crl", "crl");
    let mut house = House::open(files.settings(true, true), ClientCertificates::Demanded, QUICK).await;
    // Each poll on a connection of its own: nothing but the session is left of them. The third one shows its next certificate meanwhile.
    for (who, own) in [(1, "revoked"), (2, "client"), (3, "revoked")] {
        assert_eq!(poll_as(&house, own, &hello(who)).await, 200, "{own}");
        house.report(who).await;
    }
    assert_eq!(poll_as(&house, "again", &heartbeat(3, 1)).await, 200, "the same names");
    files.put("revoked.crl", "crl");
    house.gone(1).await;
    counted(1, || house.traffic.gate.revoked.get()).await;
    for (who, own, number) in [(2, "client", 1), (3, "again", 2)] {
        assert_eq!(poll_as(&house, own, &heartbeat(who, number)).await, 200, "{own}");
    }
    assert!(house.events.try_recv().is_err(), "they are there as before");
    // The authority is replaced by one that issued none of them.
    files.put("foreign-ca.pem", "ca");
    house.both_gone(2, 3).await;
    counted(3, || house.traffic.gate.revoked.get()).await;
}

#[tokio::test]
async fn a_request_that_takes_its_time_is_judged_by_what_counts_at_its_end() {
    let mut keyring = Keyring::new();
    let token = keyring.issue("gone", 1, "prod", None);
    let house = keyring.open(false).await;
    let body = hello(1).encode_to_vec();
    let head = |more: &str| {
        format!(
            "POST /v1/opamp HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/x-protobuf\r\n{more}Content-Length: {}\r\n\r\n",
            body.len()
        )
    };
    // The head comes in while the proof counts; that it did is seen by the answer to `Expect`.
    let begin = async |house: &House, own: Option<&str>, more: String| {
        let mut stream = house.connect(own).await.expect("a handshake");
        let head = head(&format!("Expect: 100-continue\r\n{more}"));
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut answer = [0; 25];
        bounded("leave to go on", stream.read_exact(&mut answer)).await.expect("in order");
        assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream
    };
    let finish = async |mut stream: TlsStream<TcpStream>| {
        stream.write_all(&body).await.expect("written");
        let mut answer = Vec::new();
        bounded("an answer", stream.read_to_end(&mut answer)).await.expect("in order");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let slow = begin(&house, None, format!("Authorization: Bearer {token}\r\n")).await;
    keyring.revoke("gone");
    reached("the revocation", || house.traffic.gate.reloads.get() == 1).await;
    let answer = finish(slow).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("the token is not known"), "{answer}");
    assert_eq!(house.traffic.polling_agents.get(), 0, "and nothing is left of it");

    let files = Files::new();
    files.put("ca.pem", "ca");
    files.put("empty.crl", "crl");
    let house = House::open(files.settings(true, true), ClientCertificates::Demanded, QUICK).await;
    let slow = begin(&house, Some("revoked"), String::new()).await;
    files.put("revoked.crl", "crl");
    counted(1, || house.traffic.gate.revoked.get()).await;
    let answer = finish(slow).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("does not count any more"), "{answer}");
    assert_eq!(house.traffic.polling_agents.get(), 0);
}

#[tokio::test]
async fn nothing_is_offered_to_who_is_revoked_while_an_answer_is_awaited() {
    let mut keyring = Keyring::new();
    let token = keyring.issue("gone", 1, "prod", None);
    let options = AgentServerOptions { verdict_wait: Duration::from_secs(600), ..AgentServerOptions::default() };
    let mut house = keyring.open_with(false, options).await;
    let mut events = std::mem::replace(&mut house.events, mpsc::channel(1).1);
    let meanwhile = async {
        let message = loop {
            let message = bounded("a report", events.recv()).await.expect("the listener runs");
            if let AgentEvent::Report { id, connection, .. } = &message.event {
                house.links.offer(*connection, *id, config(b'n', 100), false);
                break message;
            }
        };
        // The second poll waits for the first one, whose verdict is awaited.
        reached("the second poll", || house.traffic.messages_in.get() == 2).await;
        keyring.revoke("gone");
        reached("the revocation", || house.traffic.gate.reloads.get() == 1).await;
        drop(message);
        while let Some(message) = bounded("its end", events.recv()).await {
            if matches!(message.event, AgentEvent::Gone { .. }) {
                break;
            }
        }
    };
    let hello = hello(1);
    let (first, second, ()) = tokio::join!(house.poll(&token, &hello), house.poll(&token, &hello), meanwhile);
    assert_eq!((first.0, second.0), (401, 401), "what was revoked meanwhile is given nothing");
    assert_eq!(house.traffic.polling_agents.get(), 0);
}

#[tokio::test]
async fn who_shows_certificates_without_end_is_not_remembered_for_them() {
    let files = Files::new();
    files.put("ca.pem", "ca");
    let house = House::open(files.settings(true, false), ClientCertificates::Demanded, QUICK).await;
    for (more, comes_in) in [(7, true), (8, false)] {
        let chain = std::fs::read_to_string(fixture("client.pem")).expect("a certificate")
            + &std::fs::read_to_string(fixture("ca.pem")).expect("a certificate").repeat(more);
        files.write("chain", chain.as_bytes());
        let (chain, key) = (files.path("chain"), fixture("client-key.pem"));
        let config = client_config(Some(&fixture("ca.pem")), Some((&chain, &key))).expect("files that can be used");
        let stream = TcpStream::connect(house.at).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = bounded("a handshake", TlsConnector::from(config).connect(name, stream)).await.expect("TLS");
        if comes_in {
            assert_eq!(ask(&mut stream, "", &hello(1)).await, 200);
        } else {
            ended(stream).await;
            counted(1, || house.traffic.tls.uncertified.get()).await;
        }
    }
}

#[tokio::test]
async fn each_request_of_a_kept_connection_is_judged_by_its_own_token() {
    let mut keyring = Keyring::new();
    let (first, second) = (keyring.issue("first", 1, "prod", None), keyring.issue("second", 2, "prod", None));
    let house = keyring.open(false).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let mut stream = house.connect(None).await.expect("a handshake");
    assert_eq!(ask(&mut stream, &bearer(&first), &hello(1)).await, 200);
    assert_eq!(ask(&mut stream, "", &heartbeat(1, 1)).await, 401, "what was shown before is not shown now");
    for both in [[&first, &second], [&second, &first], [&first, &first]] {
        let headers = both.map(|token| bearer(token)).concat();
        assert_eq!(ask(&mut stream, &headers, &heartbeat(1, 1)).await, 401, "nobody is two");
    }
    let odd = format!("authorization:   BEARER   {second}  \r\n");
    assert_eq!(ask(&mut stream, &odd, &hello(2)).await, 200, "names of headers and schemes have no case");
    for wrong in [
        format!("Authorization: {first}\r\n"),
        format!("Authorization: Basic {first}\r\n"),
        bearer(&first.to_uppercase()),
    ] {
        assert_eq!(ask(&mut stream, &wrong, &heartbeat(1, 1)).await, 401, "{wrong}");
    }
    assert_eq!(ask(&mut stream, &bearer(&first), &heartbeat(1, 1)).await, 200);
    keyring.revoke("first");
    reached("the revocation", || house.traffic.gate.reloads.get() == 1).await;
    assert_eq!(ask(&mut stream, &bearer(&first), &heartbeat(1, 2)).await, 401);
    assert_eq!(ask(&mut stream, &bearer(&second), &heartbeat(2, 1)).await, 200, "nobody else's");
}

#[tokio::test]
async fn an_agent_that_never_reads_blocks_nobody_over_tls() {
    let files = Files::new();
    let traffic = Arc::new(Traffic::default());
    let tls = Tls::open(files.settings(false, false), ClientCertificates::Welcome, QUICK, Arc::clone(&traffic.tls));
    let options = AgentServerOptions {
        write_timeout: Duration::from_millis(300),
        tls: Some(Arc::new(tls.expect("files"))),
        ..AgentServerOptions::default()
    };
    let mut house = House::with(options, traffic).await;
    let mut deaf = house.websocket(None).await.expect("upgraded");
    say(&mut deaf, &hello(1)).await;
    let connection = house.report(1).await;
    // More than the buffers of the sockets hold.
    house.links.offer(connection, agent(1), config(1, 32 << 20), false);
    reached("it to be given up", || house.traffic.deaf.get() == 1).await;
    drop(deaf);
}

/// Tokens of agents, in a file that tests change.
struct Keyring {
    files: Files,
    entries: TokenFile,
}

impl Keyring {
    fn new() -> Self {
        let keyring = Self { files: Files::new(), entries: TokenFile::default() };
        keyring.store();
        keyring
    }

    fn store(&self) {
        self.files.write("tokens", self.entries.render().expect("text").as_bytes());
    }

    /// A new token of this name, with a label.
    fn issue(&mut self, name: &str, random: u8, env: &str, expires: Option<Timestamp>) -> String {
        let (token, sha256) = new_token(&[random; 32]);
        let labels = [("env".to_owned(), env.to_owned())].into();
        self.entries.tokens.push(Entry { name: name.to_owned(), sha256, created: None, expires, labels });
        self.store();
        token
    }

    fn revoke(&mut self, name: &str) {
        self.entries.tokens.retain(|entry| entry.name != name);
        self.store();
    }

    async fn open(&self, issuers: bool) -> House {
        self.open_with(issuers, AgentServerOptions::default()).await
    }

    async fn open_with(&self, issuers: bool, options: AgentServerOptions) -> House {
        self.open_at(issuers, options, Clock::start()).await
    }

    async fn open_at(&self, issuers: bool, options: AgentServerOptions, clock: Clock) -> House {
        let traffic = Arc::new(Traffic::default());
        let tls =
            Tls::open(self.files.settings(false, false), ClientCertificates::Welcome, QUICK, Arc::clone(&traffic.tls));
        let proofs = ProofSettings {
            tokens: Some(self.files.path("tokens")),
            issuers: issuers.then(|| self.files.path("issuers")),
        };
        let gate =
            Gate::open(proofs, Whose::AGENTS, QUICK.reload, Arc::clone(&traffic.gate)).expect("files that can be used");
        let options =
            AgentServerOptions { tls: Some(Arc::new(tls.expect("files"))), gate: Some(Arc::new(gate)), ..options };
        House::with_clock(options, traffic, clock).await
    }
}

#[tokio::test]
async fn a_token_gives_labels_that_win_and_nothing_else_comes_in() {
    let mut keyring = Keyring::new();
    let token = keyring.issue("eu", 1, "prod", None);
    let mut house = keyring.open(false).await;
    for (count, bearer) in [(1, None), (2, Some("gitamp_wrong")), (3, Some(""))] {
        let refused = house.enter(None, bearer).await.expect_err("nothing proved");
        assert!(refused.contains("401"), "{refused}");
        counted(count, || house.traffic.gate.unproven.get()).await;
    }
    assert_eq!(house.poll("gitamp_wrong", &hello(1)).await.0, 401);
    let mut socket = house.enter(None, Some(&token)).await.expect("known");
    let mut hello = hello(1);
    let claim = |key: &str, value: &str| {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
        KeyValue { key: key.into(), value }
    };
    let description = hello.agent_description.as_mut().expect("described");
    description.identifying_attributes.extend([
        claim("env", "staging"),
        claim("token.name", "admin"),
        claim("tls.cn", "admin"),
    ]);
    description.non_identifying_attributes.push(claim("env", "dev"));
    say(&mut socket, &hello).await;
    assert_eq!(
        house.labels(1).await,
        "env=prod, service.name=gateway, token.name=eu; proven env=prod, token.name=eu",
        "what it claims of the same name does not count"
    );
}

#[tokio::test]
async fn what_is_revoked_or_ends_loses_its_connections_and_nobody_else() {
    let mut keyring = Keyring::new();
    let (first, second) = (keyring.issue("first", 1, "prod", None), keyring.issue("second", 2, "prod", None));
    let mut house = keyring.open(false).await;
    let mut gone = house.enter(None, Some(&first)).await.expect("known");
    let mut kept = house.enter(None, Some(&second)).await.expect("known");
    for (who, socket) in [(1, &mut gone), (2, &mut kept)] {
        say(socket, &hello(who)).await;
        house.report(who).await;
        hear(socket).await.expect("an answer");
    }
    let polled = house.poll(&first, &hello(3)).await;
    assert_eq!(polled.0, 200);
    // A file that is cut off changes nothing, and does not go unnoticed.
    keyring.files.write("tokens", b"tokens: [{name: eu");
    reached("the broken file to be noticed", || house.traffic.gate.is_stale.get() == 1).await;
    keyring.revoke("first");
    assert_eq!(hear(&mut gone).await, Err(CloseCode::Policy));
    house.gone(3).await;
    counted((2, 0), || (house.traffic.gate.revoked.get(), house.traffic.gate.is_stale.get())).await;
    assert_eq!(house.poll(&first, &hello(3)).await.0, 401);
    say(&mut kept, &heartbeat(2, 1)).await;
    hear(&mut kept).await.expect("the other one is as it was");
    // Other labels are another identity: who came in with the old ones comes again.
    keyring.entries.tokens[0].labels.insert("env".to_owned(), "dev".to_owned());
    keyring.store();
    assert_eq!(hear(&mut kept).await, Err(CloseCode::Policy));
    // What ends by itself ends what it opened. A slow machine may need a longer one to come in at all.
    for (random, seconds) in [(3, 2), (4, 8), (5, 20)] {
        let soon = Clock::start().now() + Duration::from_secs(seconds);
        let reloads = house.traffic.gate.reloads.get();
        let short = keyring.issue("short", random, "prod", Some(soon));
        reached("the token to be taken", || house.traffic.gate.reloads.get() > reloads).await;
        if let Ok(mut ending) = house.enter(None, Some(&short)).await {
            assert_eq!(hear(&mut ending).await, Err(CloseCode::Policy));
            assert!(house.enter(None, Some(&short)).await.expect_err("ended").contains("401"));
            return;
        }
    }
    panic!("no token came in before its end");
}

#[tokio::test]
async fn nobody_takes_the_uid_of_an_agent_that_proved_something_else() {
    let mut keyring = Keyring::new();
    let (prod, again) = (keyring.issue("prod", 1, "prod", None), keyring.issue("prod", 2, "prod", None));
    let staging = keyring.issue("staging", 3, "staging", None);
    let mut house = keyring.open(false).await;
    let mut owner = house.enter(None, Some(&prod)).await.expect("known");
    say(&mut owner, &hello(1)).await;
    let connection = house.report(1).await;
    hear(&mut owner).await.expect("an answer");
    let mut thief = house.enter(None, Some(&staging)).await.expect("known");
    say(&mut thief, &hello(1)).await;
    let answer = hear(&mut thief).await.expect("an answer").error_response.expect("an error");
    assert!(answer.error_message.contains("somebody else"), "{answer:?}");
    assert_eq!(hear(&mut thief).await, Err(CloseCode::Policy));
    assert_eq!(house.poll(&staging, &hello(1)).await.0, 403);
    assert_eq!(house.traffic.polling_agents.get(), 0, "nothing is left of it");
    counted(2, || house.traffic.gate.impostors.get()).await;
    house.links.offer(connection, agent(1), config(7, 100), false);
    assert!(body_of(hear(&mut owner).await).is_some(), "the owner is served as before");
    assert!(house.events.try_recv().is_err(), "the daemon heard nothing of the thief");
    // The same agent with the token that replaces its own is itself.
    let mut renewed = house.enter(None, Some(&again)).await.expect("known");
    say(&mut renewed, &hello(1)).await;
    house.report(1).await;
    hear(&mut renewed).await.expect("an answer");
    // An agent that polls is protected in the same way.
    assert_eq!(house.poll(&prod, &hello(2)).await.0, 200);
    assert_eq!(house.poll(&staging, &hello(2)).await.0, 403);
    counted(3, || house.traffic.gate.impostors.get()).await;
}

fn body_of(heard: Result<ServerToAgent, CloseCode>) -> Option<Bytes> {
    body(heard.expect("a message"))
}

#[tokio::test]
async fn a_jwt_is_verified_once_and_goes_with_its_key() {
    let keyring = Keyring::new();
    let issuer = Issuer::new();
    keyring.files.write("keys", issuer.jwks().as_bytes());
    let rules = "issuers: [{issuer: https://cluster, audience: gitamp, jwksFile: keys, labels: {k8s.namespace.name: kubernetes.io/namespace}}]";
    keyring.files.write("issuers", rules.as_bytes());
    let mut house = keyring.open(true).await;
    let expires = Clock::start().now().as_millis() / 1_000 + 600;
    let claims = serde_json::json!({"iss": "https://cluster", "aud": "gitamp", "sub": "gw", "exp": expires, "kubernetes.io": {"namespace": "shop"}});
    let token = issuer.token(&claims);
    let mut socket = house.enter(None, Some(&token)).await.expect("verified");
    say(&mut socket, &hello(1)).await;
    let labels = house.labels(1).await;
    assert!(labels.ends_with("proven jwt.iss=https://cluster, jwt.sub=gw, k8s.namespace.name=shop"), "{labels}");
    hear(&mut socket).await.expect("an answer");
    for _ in 0..3 {
        assert_eq!(house.poll(&token, &hello(2)).await.0, 200);
    }
    // Polls cost no signature.
    counted(1, || house.traffic.gate.signatures.get()).await;
    keyring.files.write("keys", Issuer::new().jwks().as_bytes());
    assert_eq!(hear(&mut socket).await, Err(CloseCode::Policy));
    assert!(house.enter(None, Some(&token)).await.expect_err("its key is gone").contains("401"));
}

#[test]
fn files_of_proofs_that_cannot_be_used_are_named_with_what_is_wrong() {
    let files = Files::new();
    let issuers = "issuers: [{issuer: https://a, audience: b, jwksFile: keys}]";
    let (issuers_path, keys_path) =
        (files.path("issuers").display().to_string(), files.path("keys").display().to_string());
    for (file, keys, words) in [
        (issuers, None, vec![keys_path.as_str(), "No such file"]),
        (
            issuers,
            Some("-----BEGIN PUBLIC KEY-----\n"),
            vec![&issuers_path, "https://a", &keys_path, "no JWKS", "line 1"],
        ),
        (issuers, Some("{\"keys\": []}"), vec![&issuers_path, "https://a", &keys_path, "no key for signatures in it"]),
        ("issuers: [{issuer: https://a, jwksFile: keys}]", Some("{}"), vec![&issuers_path, "missing field `audience`"]),
        ("issuers: {}", Some("{}"), vec![&issuers_path, "expected a sequence"]),
    ] {
        files.write("issuers", file.as_bytes());
        drop(std::fs::remove_file(files.path("keys")));
        if let Some(keys) = keys {
            files.write("keys", keys.as_bytes());
        }
        let proofs = ProofSettings { tokens: None, issuers: Some(files.path("issuers")) };
        let opened = Gate::open(proofs, Whose::AGENTS, QUICK.reload, Arc::default());
        let error = opened.expect_err("no use").to_string();
        assert!(words.iter().all(|words| error.contains(words)), "{words:?}: {error}");
    }
}

/// A JWT that was verified is remembered; what the files say now decides all the same.
#[tokio::test]
async fn a_jwt_that_is_remembered_goes_with_its_issuer_audience_and_rules() {
    let keyring = Keyring::new();
    let issuer = Issuer::new();
    keyring.files.write("keys", issuer.jwks().as_bytes());
    let rules = |issuer: &str, audience: &str, label: &str| {
        format!(
            "issuers: [{{issuer: {issuer}, audience: {audience}, jwksFile: keys, labels: {{{label}: kubernetes.io/namespace}}}}]"
        )
    };
    let before = rules("https://cluster", "gitamp", "namespace");
    keyring.files.write("issuers", before.as_bytes());
    let mut house = keyring.open(true).await;
    let expires = Clock::start().now().as_millis() / 1_000 + 600;
    let claims = serde_json::json!({"iss": "https://cluster", "aud": "gitamp", "sub": "gw", "exp": expires, "kubernetes.io": {"namespace": "shop"}});
    let token = issuer.token(&claims);
    for (who, after, comes_back) in [
        (1, rules("https://other", "gitamp", "namespace"), None),
        (2, rules("https://cluster", "vault", "namespace"), None),
        (3, rules("https://cluster", "gitamp", "team"), Some("team=shop")),
        (4, "issuers: []".to_owned(), None),
    ] {
        keyring.files.write("issuers", before.as_bytes());
        let mut socket = bounded("a connection", async {
            loop {
                match house.enter(None, Some(&token)).await {
                    Ok(socket) => return socket,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await;
        say(&mut socket, &hello(who)).await;
        assert!(house.labels(who).await.ends_with("namespace=shop"), "{after}");
        hear(&mut socket).await.expect("an answer");
        assert_eq!(house.poll(&token, &hello(who + 100)).await.0, 200, "and the same token over HTTP");
        drop(house.labels(who + 100).await);
        keyring.files.write("issuers", after.as_bytes());
        assert_eq!(hear(&mut socket).await, Err(CloseCode::Policy), "{after}");
        house.both_gone(who, who + 100).await;
        match (house.enter(None, Some(&token)).await, comes_back) {
            (Err(refused), None) => assert!(refused.contains("401"), "{refused}"),
            (Ok(mut socket), Some(labels)) => {
                say(&mut socket, &hello(who)).await;
                assert!(house.labels(who).await.ends_with(labels));
                drop(socket);
                house.gone(who).await;
            }
            (entered, _) => panic!("{after}: {:?}", entered.map(drop)),
        }
    }
}

/// What others dated ends by the wall clock, although timers stand still on a machine that sleeps.
#[tokio::test]
async fn a_machine_that_slept_lets_nobody_stay_whose_proof_ended_meanwhile() {
    let mut keyring = Keyring::new();
    let (clock, slept) = Clock::start_on_a_machine_that_sleeps();
    let soon = clock.wall() + Duration::from_secs(3_600);
    let (short, long) = (keyring.issue("short", 1, "prod", Some(soon)), keyring.issue("long", 2, "prod", None));
    let options = AgentServerOptions { poll_expiry: BOUND * 2, ..AgentServerOptions::default() };
    let mut house = keyring.open_at(false, options, clock).await;
    let mut ends = house.enter(None, Some(&short)).await.expect("known");
    let mut stays = house.enter(None, Some(&long)).await.expect("known");
    for (socket, who) in [(&mut ends, 1), (&mut stays, 2)] {
        say(socket, &hello(who)).await;
        house.report(who).await;
        hear(socket).await.expect("an answer");
    }
    for (token, who) in [(&short, 3), (&long, 4)] {
        assert_eq!(house.poll(token, &hello(who)).await.0, 200);
        house.report(who).await;
    }
    slept.store(2 * 3_600_000, std::sync::atomic::Ordering::Relaxed);
    // Nobody says a word: who polls is not waited for until it has been silent for too long.
    house.both_gone(1, 3).await;
    assert_eq!(hear(&mut ends).await, Err(CloseCode::Policy));
    assert_eq!(house.poll(&short, &heartbeat(3, 1)).await.0, 401);
    say(&mut stays, &heartbeat(2, 1)).await;
    hear(&mut stays).await.expect("an answer");
    assert_eq!(house.poll(&long, &heartbeat(4, 1)).await.0, 200);
}

/// An agent that polls shows its next token with its next poll: until that had the time to come, the end of the one before changes nothing.
#[tokio::test]
async fn an_agent_that_polls_has_the_time_of_a_poll_to_show_its_next_token() {
    let mut keyring = Keyring::new();
    let (clock, slept) = Clock::start_on_a_machine_that_sleeps();
    // A third of it is the time for the next poll. Nothing in this test waits for that: the wall clock alone goes on.
    let options = AgentServerOptions { poll_expiry: Duration::from_secs(1_800), ..AgentServerOptions::default() };
    let grace = options.poll_expiry / 3;
    let noon = clock.wall() + Duration::from_secs(36_000);
    let long_over = keyring.issue("long over", 1, "prod", Some(noon));
    let just_over = keyring.issue("just over", 2, "prod", Some(noon + grace));
    let next = keyring.issue("just over", 3, "prod", None);
    let mut house = keyring.open_at(false, options, clock).await;
    for (token, who) in [(&long_over, 1), (&just_over, 2), (&just_over, 3)] {
        assert_eq!(house.poll(token, &hello(who)).await.0, 200);
        house.report(who).await;
    }
    let wake_at = |at: Timestamp| {
        let ahead = at.as_millis() - clock.wall().as_millis();
        slept.fetch_add(ahead, std::sync::atomic::Ordering::Relaxed);
    };
    // One has been over for longer than the grace, the other for a moment. All are judged at the same time.
    wake_at(noon + grace + Duration::from_secs(60));
    house.gone(1).await;
    assert_eq!(house.poll(&just_over, &heartbeat(2, 1)).await.0, 401, "meanwhile it gets nothing");
    assert_eq!(house.poll(&next, &heartbeat(2, 1)).await.0, 200);
    assert!(house.events.try_recv().is_err(), "two and three are there as before");
    wake_at(noon + grace * 2 + Duration::from_secs(60));
    house.gone(3).await;
    assert_eq!(house.poll(&next, &heartbeat(2, 2)).await.0, 200);
    assert!(house.events.try_recv().is_err(), "two was never gone");
    assert_eq!(house.traffic.gate.revoked.get(), 2);
}

#[tokio::test]
async fn limits_hold_for_one_address_and_one_token_and_nobody_else() {
    let mut keyring = Keyring::new();
    let (greedy, modest) = (keyring.issue("greedy", 1, "prod", None), keyring.issue("modest", 2, "prod", None));
    let options = AgentServerOptions {
        max_per_address: Some(3),
        max_per_token: Some(1),
        max_new_agents: Some(2),
        ..AgentServerOptions::default()
    };
    let mut house = keyring.open_with(false, options).await;
    let mut first = house.enter(None, Some(&greedy)).await.expect("the first");
    let refused = house.enter(None, Some(&greedy)).await.expect_err("one with this token is enough");
    assert!(refused.contains("503"), "{refused}");
    assert_eq!(house.poll(&greedy, &hello(9)).await.0, 503, "an agent that polls is one of them");
    counted(2, || house.traffic.crowded_token.get()).await;
    // The connections that were refused have gone by then.
    let mut second = bounded("a place", async {
        loop {
            match house.enter(None, Some(&modest)).await {
                Ok(socket) => return socket,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    for who in [1, 2] {
        say(&mut first, &hello(who)).await;
        house.report(who).await;
        assert!(hear(&mut first).await.expect("an answer").error_response.is_none());
    }
    say(&mut first, &hello(3)).await;
    let error = hear(&mut first).await.expect("an answer").error_response.expect("an error");
    assert!(error.error_message.contains("too many new agents"), "{error:?}");
    counted(1, || house.traffic.new_agents_refused.get()).await;
    say(&mut first, &heartbeat(1, 1)).await;
    assert!(hear(&mut first).await.expect("an answer").error_response.is_none(), "who is there stays");
    say(&mut second, &hello(4)).await;
    house.report(4).await;
    hear(&mut second).await.expect("another token has its own allowance");
    let _third = reach(&house, [127, 0, 0, 1]).await.expect("the last place of this address");
    let turned_away = house.traffic.crowded_address.get();
    assert!(reach(&house, [127, 0, 0, 1]).await.is_err(), "one more from this address");
    assert!(house.traffic.crowded_address.get() > turned_away);
    assert!(reach(&house, [127, 0, 0, 2]).await.is_ok(), "another address has places of its own");
}

/// An encrypted connection from this address.
async fn reach(house: &House, source: [u8; 4]) -> std::io::Result<TlsStream<TcpStream>> {
    let config = client_config(Some(&fixture("ca.pem")), None).expect("files that can be used");
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect(house.at).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    bounded("a handshake", TlsConnector::from(config).connect(name, stream)).await
}

/// What is wrong with files is said with their names, before anybody connects.
#[test]
fn files_that_cannot_be_used_are_named() {
    let files = Files::new();
    let open = |settings: TlsSettings| {
        let traffic = Arc::new(Traffic::default());
        let opened = Tls::open(settings, ClientCertificates::Demanded, QUICK, Arc::clone(&traffic.tls));
        opened.expect_err("no use").to_string()
    };
    let with = |name: &str, source: &Path| TlsSettings {
        certificate: if name == "certificate" { source.to_owned() } else { files.path("certificate") },
        key: SecretFile::new(if name == "key" { source.to_owned() } else { files.path("key") }),
        client_ca: (name == "ca").then(|| source.to_owned()),
        client_crl: None,
    };
    for (name, source, words) in [
        ("certificate", "server-key.pem", "no certificate"),
        ("certificate", "nowhere.pem", "No such file"),
        ("certificate", "client.pem", "does not belong"),
        ("key", "server.pem", "no private key"),
        ("key", "other-key.pem", "does not belong"),
        ("ca", "server-key.pem", "no certificate"),
    ] {
        let path = if source == "nowhere.pem" {
            fixture(source)
        } else {
            // Keys are for their owner alone, wherever the tests were checked out.
            files.put(source, "candidate");
            files.path("candidate")
        };
        let error = open(with(name, &path));
        assert!(error.contains(words) && !error.contains("BEGIN"), "{name} {source}: {error}");
        assert_eq!(error.matches(path.to_str().expect("UTF-8")).count(), 1, "{error}");
    }
    // Whoever may change an authority, or a list, lets anybody in, or back in.
    let mode = |name: &str, mode| {
        std::fs::set_permissions(files.path(name), std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    files.put("ca.pem", "ca");
    files.put("empty.crl", "crl");
    for name in ["ca", "crl"] {
        mode(name, 0o646);
        let error = open(files.settings(true, true));
        let path = files.path(name).display().to_string();
        assert!(error.starts_with(&path) && error.contains("every user of this machine may change it"), "{error}");
        mode(name, 0o664);
    }
    let opened = Tls::open(files.settings(true, true), ClientCertificates::Demanded, QUICK, Arc::default());
    assert!(opened.is_ok(), "{opened:?}");
}

/// The program as a user runs it.
mod program {
    use super::{Files, fixture};
    use crate::support::{Daemon, Process, Repository, gitamp, run, wait_for};
    use gitamp::simulate::{Attribute, DelayRange, Endpoint, Fleet, Options, client_config};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::time::Duration;

    const GROUP: &str = "\
apiVersion: gitamp/v1
kind: Group
selector: {matchLabels: {service.name: gateway}}
rollout: {stages: [{name: all, agents: 100%, soak: 0s}], bake: 0s}
";

    fn collector(level: &str) -> String {
        format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{}}}}}}}}\nexporters: {{debug: {{verbosity: {level}}}}}\nservice: {{pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}}}\n"
        )
    }

    fn fleet(daemon: &Daemon, scheme: &str, own: Option<&str>) -> Fleet {
        let server = Endpoint::resolve(&format!("{scheme}://{}/v1/opamp", daemon.agents()), false).expect("loopback");
        let mut options = Options::new(server, 20);
        let own = own.map(|name| (fixture(&format!("{name}.pem")), fixture(&format!("{name}-key.pem"))));
        let own = own.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path()));
        options.tls = Some(client_config(Some(&fixture("ca.pem")), own).expect("files"));
        options.attributes = Attribute::parse_all(&["service.name=gateway"]).expect("an attribute");
        options.apply_delay = DelayRange { from: Duration::from_millis(10), to: Duration::from_millis(50) };
        options.poll_interval = Duration::from_millis(200);
        options.seed = scheme.len() as u64;
        Fleet::start(options).expect("a fleet")
    }

    #[test]
    fn a_fleet_is_served_over_tls_and_status_says_so() {
        let files = Files::new();
        files.put("ca.pem", "ca");
        let repository = Repository::with(&[("g/group.yaml", GROUP), ("g/collector.yaml", &collector("basic"))]);
        let flag = |name: &str, file: &str| format!("--{name}={}", files.path(file).display());
        let arguments =
            [flag("tls-cert-file", "certificate"), flag("tls-key-file", "key"), flag("tls-client-ca-file", "ca")];
        let daemon = Daemon::start(&repository, &arguments.each_ref().map(String::as_str));
        let (websockets, polling) = (fleet(&daemon, "wss", Some("client")), fleet(&daemon, "https", Some("other")));
        let all_run = |offers: usize| {
            wait_for("everybody to run it", || {
                let counts = [websockets.counts(), polling.counts()];
                let run = |counts: &gitamp::simulate::Counts| {
                    counts.configs.len() >= offers && counts.configs.last().is_some_and(|config| config.applied == 20)
                };
                if counts.iter().all(|counts| run(counts)) { Ok(()) } else { Err(counts) }
            });
        };
        all_run(1);
        repository.commit("More words", &[("g/collector.yaml", &collector("detailed"))]);
        daemon.ask(&["sync"]);
        all_run(2);
        let status = daemon.ask(&["status"]);
        assert!(
            status.contains("TLS, certificate until 2120-01-01T00:00:00Z; agents prove who they are by certificates"),
            "{status}"
        );
        assert_eq!(daemon.metric("gitamp_tls_handshakes_total{result=\"ok\"}"), Some(40.0));
        assert_eq!(daemon.metric("gitamp_tls_certificate_expiry_timestamp_seconds"), Some(4_733_510_400.0));
        files.put("renewed.pem", "certificate");
        wait_for("the half pair to be told of", || {
            let status = daemon.ask(&["status"]);
            if status.contains("does not belong to the certificate") { Ok(()) } else { Err(status) }
        });
        assert_eq!(daemon.metric("gitamp_tls_files_unusable"), Some(1.0));
        assert!(daemon.process().log().contains("stays in use"));
        files.put("server.pem", "certificate");
        wait_for("the pair that is in use to be back", || {
            let log = daemon.process().log();
            if log.contains("the files of TLS can be used again") { Ok(()) } else { Err(log) }
        });
        assert_eq!(daemon.metric("gitamp_tls_files_unusable"), Some(0.0));
        // Who shows nothing stays outside.
        let strangers = fleet(&daemon, "wss", None);
        wait_for("strangers to be refused", || {
            let counts = strangers.counts();
            if counts.refused + counts.lost >= 20 { Ok(()) } else { Err(counts) }
        });
        assert_eq!(daemon.status()["agents"]["connected"], 40);
    }

    #[test]
    fn tokens_are_made_listed_and_revoked_and_decide_who_gets_what() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("tokens.yaml");
        let file = format!("--file={}", path.display());
        let ask = |arguments: &[&str]| {
            let output = run(gitamp(["token"]).args(arguments).arg(&file));
            let (out, err) = (
                String::from_utf8_lossy(&output.stdout).into_owned(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            );
            (output.status.success(), out, err)
        };
        let make = |arguments: &[&str]| {
            let (is_good, out, err) = ask(&[&["new"], arguments].concat());
            assert!(is_good && out.starts_with("gitamp_") && !err.contains(out.trim()), "{out}{err}");
            out.trim().to_owned()
        };
        let prod = make(&["prod", "--label", "env=prod", "--for", "90d"]);
        let staging = make(&["staging", "--label=env=staging"]);
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(!text.contains(&prod) && text.contains("env: prod"), "{text}");
        let proven = "apiVersion: gitamp/v1\nkind: Fleet\nboundaries: [{path: 'prod/**', trust: proven}]\n";
        // Who only claims to be in the ring of the first is in none.
        let stages = "stages: [{name: ring, selector: {matchLabels: {ring: early}}, soak: 1h}, {name: all, agents: 100%, soak: 0s}]";
        let group = |env: &str| {
            let group = GROUP.replace("service.name: gateway", &format!("env: {env}"));
            group.replace("stages: [{name: all, agents: 100%, soak: 0s}]", stages)
        };
        let repository = Repository::with(&[
            ("fleet.yaml", proven),
            ("prod/g/group.yaml", &group("prod")),
            ("prod/g/collector.yaml", &collector("basic")),
            ("staging/g/group.yaml", &group("staging")),
            ("staging/g/collector.yaml", &collector("detailed")),
        ]);
        let daemon = Daemon::start(&repository, &[&format!("--agent-token-file={}", path.display())]);
        let fleet = |token: &str, seed: u64| {
            let server = Endpoint::resolve(&format!("ws://{}/v1/opamp", daemon.agents()), false).expect("loopback");
            let mut options = Options::new(server, 5);
            options.tokens = vec![gitamp::settings::Secret::new(token)];
            // Everybody says that it is in production, and among the first.
            options.attributes = Attribute::parse_all(&["env=prod", "ring=early"]).expect("an attribute");
            options.seed = seed;
            Fleet::start(options).expect("a fleet")
        };
        let (good, liars) = (fleet(&prod, 1), fleet(&staging, 2));
        let confirmed = |name: &str, count: u64| {
            wait_for("a group to be confirmed", || {
                let group = daemon.group(name);
                if group["counts"]["confirmed"] == count { Ok(()) } else { Err(group) }
            });
        };
        confirmed("prod/g", 5);
        // Below a path without `trust: proven` a claim is enough: all of them are in that stage, which is watched for an hour.
        confirmed("staging/g", 5);
        assert_eq!(daemon.group("staging/g")["stage"], "ring");
        assert_ne!(daemon.group("prod/g")["stage"], "ring", "nobody is, so that it passed at once");
        assert!(daemon.ask(&["status"]).contains("agents prove who they are by tokens, without encryption"));
        // Somebody in staging uses the identity of an agent in production.
        let victim = "42".repeat(16);
        let poll = |token: &str| {
            let uid: Vec<u8> = [10, 16].into_iter().chain([0x42; 16]).collect();
            let headers = [("Content-Type", "application/x-protobuf"), ("Authorization", &*format!("Bearer {token}"))];
            crate::support::post(daemon.agents(), "/v1/opamp", &headers, &uid).expect("an answer").0
        };
        assert_eq!((poll(&prod), poll(&staging)), (200, 403));
        let id =
            format!("{}-{}-{}-{}-{}", &victim[..8], &victim[8..12], &victim[12..16], &victim[16..20], &victim[20..]);
        let line = format!(
            "the instance_uid of agent {id} was used by somebody who proved env=staging, token.name=staging: refused"
        );
        wait_for("the journal to tell of it", || {
            let fetch = ["fetch", "--quiet", "origin", "+refs/notes/gitamp/*:refs/notes/gitamp/*"];
            repository.git(&fetch);
            let log = repository.try_git(&["log", "--format=%B", "refs/notes/gitamp/default"])?;
            if log.contains(&line) { Ok(()) } else { Err(log) }
        });
        assert_eq!(daemon.metric("gitamp_agents_impostors_total"), Some(1.0));
        let agents: serde_json::Value =
            serde_json::from_str(&daemon.ask(&["agents", "--group", "prod/g", "--output", "json"])).expect("JSON");
        assert_eq!(agents["agents"][0]["proven"], serde_json::json!(["env", "token.name"]), "{agents}");
        let (is_good, listed, _) = ask(&["list"]);
        assert!(is_good && listed.contains("env=staging") && !listed.contains("gitamp_"), "{listed}");
        assert!(!ask(&["revoke", "nobody"]).0);
        assert!(ask(&["revoke", "staging"]).0);
        wait_for("the revoked to be gone", || {
            let counts = liars.counts();
            if counts.connected == 0 && counts.refused > 0 { Ok(()) } else { Err(counts) }
        });
        assert_eq!(good.counts().connected, 5, "nobody else is");
        let log = daemon.process().log();
        assert!(![&prod, &staging].iter().any(|token| log.contains(token.as_str())), "{log}");
    }

    #[test]
    fn a_file_of_tokens_keeps_its_mode_and_its_place_and_everybody_loses_the_right_to_change_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (path, link) = (directory.path().join("tokens.yaml"), directory.path().join("link.yaml"));
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        let mode = || std::fs::metadata(&path).expect("the file").permissions().mode() & 0o7777;
        let ask = |arguments: &[&str]| {
            let output = run(gitamp(["token"]).args(arguments).arg("--file").arg(&link));
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        std::fs::write(&path, "").expect("written");
        for (before, after, whose) in [
            (0o644, 0o644, None),
            (0o600, 0o600, None),
            (0o660, 0o660, None),
            (0o666, 0o664, Some("Its owner and group alone can now")),
            (0o602, 0o600, Some("Its owner alone can now")),
        ] {
            for arguments in [["new", "eu"], ["revoke", "eu"]] {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(before)).expect("chmod");
                let said = ask(&arguments);
                assert_eq!(mode(), after, "{before:o}: {arguments:?}");
                let is_told = said.contains("Every user of this machine");
                assert_eq!(is_told, whose.is_some(), "{said}");
                let words = [format!("(mode {before:o})"), whose.unwrap_or_default().to_owned()];
                assert!(!is_told || words.iter().all(|words| said.contains(words)), "{said}");
            }
        }
        assert!(link.is_symlink(), "what is named stays a link to where the file is");
        // Whoever may give files away gives the new one to whom the old one belonged.
        if chown(&path, Some(1), Some(1)).is_ok() {
            ask(&["new", "eu"]);
            let found = std::fs::metadata(&path).expect("the file");
            assert_eq!((found.uid(), found.gid()), (1, 1));
        }
        // Who reads alone changes nothing, and a new file is its owner's to write.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("chmod");
        ask(&["list"]);
        assert_eq!(mode(), 0o666);
        std::fs::remove_file(&path).expect("removed");
        ask(&["new", "eu"]);
        assert!(link.is_symlink() && path.exists(), "the file is made where the link leads");
        assert_eq!(mode(), 0o644);
        std::fs::remove_file(&path).expect("removed");
        let second = directory.path().join("second.yaml");
        std::fs::rename(&link, &second).expect("renamed");
        std::os::unix::fs::symlink("second.yaml", &link).expect("a link to a link");
        ask(&["new", "eu"]);
        assert!(link.is_symlink() && second.is_symlink() && path.is_file(), "as is one behind several links");
    }

    #[test]
    fn a_certificate_that_ended_is_told_in_the_log_and_the_status() {
        let repository = Repository::with(&[("g/group.yaml", GROUP), ("g/collector.yaml", &collector("basic"))]);
        let files = Files::new();
        files.put("ended.pem", "certificate");
        files.put("ended-key.pem", "key");
        let flag = |name: &str, file: &str| format!("--{name}={}", files.path(file).display());
        let daemon = Daemon::start(&repository, &[&flag("tls-cert-file", "certificate"), &flag("tls-key-file", "key")]);
        let words = "the certificate ended 2021-01-01T00:00:00Z: agents refuse it";
        assert!(daemon.ask(&["status"]).contains(words));
        wait_for("the log to tell", || {
            let log = daemon.process().log();
            if log.contains(&format!("TLS: {words}")) { Ok(()) } else { Err(log) }
        });
        files.put("server.pem", "certificate");
        files.put("server-key.pem", "key");
        wait_for("another one to be used", || {
            let status = daemon.ask(&["status"]);
            if status.contains("certificate until 2120-01-01T00:00:00Z") && !status.contains(words) {
                Ok(())
            } else {
                Err(status)
            }
        });
        assert_eq!(daemon.process().log().matches(words).count(), 1, "once is enough");
    }

    #[test]
    fn an_open_port_needs_a_word() {
        let repository = Repository::with(&[("g/group.yaml", GROUP), ("g/collector.yaml", &collector("basic"))]);
        let state = tempfile::tempdir().expect("a temporary directory");
        let serve = |more: &[&str]| {
            let mut command = gitamp(["serve", "--listen=0.0.0.0:0", "--admin-listen=off"]);
            command.arg("--repo").arg(repository.remote()).arg("--state-dir").arg(state.path()).args(more);
            command
        };
        let output = run(&mut serve(&[]));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && words.contains("--tls-cert-file") && words.contains("--insecure"),
            "{words}"
        );
        // At every start, and no level of the log hides it.
        for level in ["info", "error", "off", "gitamp=off,gitamp::insecure=off"] {
            for format in ["human", "json"] {
                let log = state.path().join(format!("{level}-{format}"));
                let flags = [format!("--log={level}"), format!("--log-format={format}"), "--insecure".to_owned()];
                let process = Process::start(&mut serve(&flags.each_ref().map(String::as_str)), &log);
                let line = wait_for("it to be said", || {
                    let log = process.log();
                    let said = log.lines().find(|line| line.contains("neither encryption nor authentication"));
                    said.map(str::to_owned).ok_or(format!("{flags:?}: {log}"))
                });
                let json = serde_json::from_str::<serde_json::Value>(&line);
                match format {
                    "json" => assert_eq!(json.expect("JSON, as every other line")["level"], "WARN", "{line}"),
                    _ => assert!(json.is_err() && line.contains("WARN"), "{line}"),
                }
            }
        }
    }
}
