//! The agents' listener over real sockets: agents good and bad, on 127.0.0.1.

#[path = "support/counted.rs"]
mod counted;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use counted::counted;
use gitamp::agent::{AgentEvent, AgentId, ConfigState, ConnectionId};
use gitamp::clock::Clock;
use gitamp::config::{ComponentNames, ConfigHash, RenderedConfig};
use gitamp::opamp::connection::Rules;
use gitamp::opamp::proto::*;
use gitamp::serve::traffic::Traffic;
use gitamp::serve::{AgentLinks, AgentMessage, AgentServerOptions, serve_agents};

/// Nothing in these tests takes long; what is not there by then will never come.
const BOUND: Duration = Duration::from_secs(20);

async fn bounded<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(BOUND, future).await.unwrap_or_else(|_| panic!("{what}: nothing came"))
}

/// How agents come in.
#[derive(Clone, Copy)]
struct Door(SocketAddr);

/// A listener and the daemon's end of its channel.
struct House {
    door: Door,
    links: AgentLinks,
    events: mpsc::Receiver<AgentMessage>,
    traffic: Arc<Traffic>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

async fn open(options: AgentServerOptions) -> House {
    open_on(TcpListener::bind("127.0.0.1:0").await.expect("a port"), options)
}

fn open_on(listener: TcpListener, options: AgentServerOptions) -> House {
    let door = Door(listener.local_addr().expect("an address"));
    let (sender, events) = mpsc::channel(64);
    let (stop, stopped) = watch::channel(false);
    let traffic = Arc::new(Traffic::default());
    let hooks = Router::new().route("/hooks/github", post(async |body: String| format!("rung by {body}")));
    let (links, task) =
        serve_agents(listener, options, Clock::start(), sender, Some(hooks), Arc::clone(&traffic), stopped);
    House { door, links, events, traffic, stop, task }
}

impl House {
    async fn event(&mut self, what: &str) -> AgentMessage {
        bounded(what, self.events.recv()).await.expect("the listener runs")
    }

    /// The events of a first message: who is there, and what it reported. The verdict is still to be given.
    async fn arrival(&mut self, who: u8) -> (ConnectionId, AgentMessage) {
        let AgentEvent::Connected { id, connection, .. } = self.event("connected").await.event else {
            panic!("somebody comes first");
        };
        assert_eq!(id, agent(who));
        (connection, self.event("a report").await)
    }

    /// What happens next, in a word.
    async fn word(&mut self) -> String {
        match self.event("an event").await.event {
            AgentEvent::Connected { id, transport, .. } => format!("connected {} {transport:?}", id.as_bytes()[0]),
            AgentEvent::Report { id, .. } => format!("report {}", id.as_bytes()[0]),
            AgentEvent::Gone { id, goodbye, .. } => {
                format!("{} {}", if goodbye { "goodbye" } else { "lost" }, id.as_bytes()[0])
            }
        }
    }
}

impl Door {
    async fn websocket(self) -> WebSocketStream<TcpStream> {
        let stream = TcpStream::connect(self.0).await.expect("accepted");
        let url = format!("ws://{}/v1/opamp", self.0);
        let (socket, _) = bounded("upgrade", tokio_tungstenite::client_async(url, stream)).await.expect("upgraded");
        socket
    }

    /// Sends a request as it is and returns status, head and body of the answer. The connection is closed afterwards.
    async fn request(self, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.0).await.expect("accepted");
        let head = format!("{head}\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).await.expect("written");
        let mut answer = Vec::new();
        // A server that refuses a body early may reset the connection after its answer.
        let _end = bounded("an answer", stream.read_to_end(&mut answer)).await;
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&answer[..split]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, head.to_ascii_lowercase(), answer[split..].to_vec())
    }

    async fn post(self, extra: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let head = format!(
            "POST /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}{extra}",
            body.len()
        );
        self.request(&head, body).await
    }

    async fn poll(self, message: &AgentToServer) -> ServerToAgent {
        let (status, head, body) = self.post("", &message.encode_to_vec()).await;
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        ServerToAgent::decode(&body[..]).expect("a ServerToAgent")
    }
}

fn agent(byte: u8) -> AgentId {
    AgentId::new(&[byte; 16]).expect("a uid")
}

fn config(byte: u8, bytes: usize) -> RenderedConfig {
    config_of(byte, vec![b'y'; bytes].into())
}

fn config_of(byte: u8, body: Bytes) -> RenderedConfig {
    RenderedConfig::new(ConfigHash::new([byte; 32]), body, ComponentNames::default())
}

fn heartbeat(who: u8, sequence_num: u64) -> AgentToServer {
    AgentToServer { instance_uid: vec![who; 16].into(), sequence_num, capabilities: 0x1802, ..Default::default() }
}

/// A first message, complete.
fn hello(who: u8) -> AgentToServer {
    described(who, 0, "gateway")
}

fn described(who: u8, sequence_num: u64, name: &str) -> AgentToServer {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(name.to_owned())) });
    let identifying_attributes = vec![KeyValue { key: "service.name".into(), value }];
    AgentToServer {
        agent_description: Some(AgentDescription { identifying_attributes, ..Default::default() }),
        remote_config_status: Some(RemoteConfigStatus::default()),
        ..heartbeat(who, sequence_num)
    }
}

fn framed(message: &AgentToServer) -> Message {
    Message::binary([vec![0], message.encode_to_vec()].concat())
}

async fn say(socket: &mut WebSocketStream<TcpStream>, message: &AgentToServer) {
    bounded("sending", socket.send(framed(message))).await.expect("sent");
}

/// The next message of the server.
async fn hear(socket: &mut WebSocketStream<TcpStream>) -> ServerToAgent {
    loop {
        match bounded("a message", socket.next()).await.expect("open").expect("in order") {
            Message::Binary(bytes) => {
                assert_eq!(bytes[0], 0, "the header");
                return ServerToAgent::decode(&bytes[1..]).expect("a ServerToAgent");
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other @ (Message::Text(_) | Message::Close(_) | Message::Frame(_)) => {
                panic!("{other:?} instead of a message")
            }
        }
    }
}

/// The code with which the server closes.
async fn closed(socket: &mut WebSocketStream<TcpStream>) -> CloseCode {
    loop {
        match bounded("a close frame", socket.next()).await.expect("a close frame comes first").expect("in order") {
            Message::Close(frame) => return frame.expect("with a code").code,
            Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

fn offered(message: &ServerToAgent) -> Option<u8> {
    message.remote_config.as_ref().map(|offer| offer.config_hash[0])
}

#[tokio::test]
async fn a_websocket_agent_reports_and_is_offered() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(1)).await;
    let (connection, report) = house.arrival(1).await;
    let AgentEvent::Report { report: said, .. } = &report.event else { panic!("{:?}", report.event) };
    assert_eq!(said.labels.as_ref().and_then(|labels| labels.get("service.name")), Some("gateway"));
    assert_eq!(said.config, Some(ConfigState::NOTHING));

    house.links.offer(connection, agent(1), config(7, 16_384), false);
    drop(report);
    let answer = hear(&mut socket).await;
    assert_eq!((offered(&answer), answer.capabilities), (Some(7), 7), "the offer comes with the answer");
    assert_eq!(answer.remote_config.and_then(|offer| offer.config).expect("a map").config_map[""].body.len(), 16_384);

    house.links.offer(connection, agent(1), config(7, 16_384), false);
    house.links.offer(connection, agent(1), config(8, 100_000), false);
    assert_eq!(offered(&hear(&mut socket).await), Some(8), "pushed, and the same one not twice");
    say(&mut socket, &heartbeat(1, 1)).await;
    assert_eq!(offered(&hear(&mut socket).await), None, "an answer to each message");
    counted(2, || house.traffic.offers_out.get()).await;
    counted(1, || house.traffic.websockets.get()).await;

    say(&mut socket, &AgentToServer { agent_disconnect: Some(AgentDisconnect {}), ..heartbeat(1, 2) }).await;
    assert_eq!(house.word().await, "goodbye 1");
    assert_eq!(hear(&mut socket).await.instance_uid, vec![1; 16]);
    socket.close(None).await.expect("closing");
    assert_eq!(closed(&mut socket).await, CloseCode::Normal, "the close frame is answered");
}

#[tokio::test]
async fn a_changed_description_voids_what_waits() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(1)).await;
    let (connection, report) = house.arrival(1).await;
    // The daemon is busy: an offer for the old labels, and one for the new ones once it has seen the report.
    house.links.offer(connection, agent(1), config(1, 10), false);
    house.links.offer(connection, agent(1), config(2, 10), false);
    drop(report);
    assert_eq!(offered(&hear(&mut socket).await), Some(2));

    say(&mut socket, &described(1, 1, "other")).await;
    let report = house.event("the new labels").await;
    house.links.offer(connection, agent(1), config(3, 10), false);
    house.links.withdraw(connection, agent(1));
    drop(report);
    assert_eq!(offered(&hear(&mut socket).await), None, "withdrawn before the verdict");
}

#[tokio::test]
async fn an_agent_that_never_reads_blocks_nobody() {
    let options = AgentServerOptions { write_timeout: Duration::from_millis(300), ..AgentServerOptions::default() };
    let mut house = open(options).await;
    let (mut deaf, mut well) = (house.door.websocket().await, house.door.websocket().await);
    say(&mut deaf, &hello(1)).await;
    let (deaf_connection, report) = house.arrival(1).await;
    drop(report);
    say(&mut well, &hello(2)).await;
    let (connection, report) = house.arrival(2).await;
    drop(report);
    assert_eq!(offered(&hear(&mut well).await), None);
    // More than the buffers of the sockets hold.
    let large = Bytes::from(vec![b'y'; 32 << 20]);
    for byte in 1..=50 {
        house.links.offer(deaf_connection, agent(1), config_of(byte, large.clone()), false);
        house.links.offer(connection, agent(2), config(byte, 10), false);
        assert_eq!(offered(&hear(&mut well).await), Some(byte), "the other one is served");
    }
    assert_eq!(house.word().await, "lost 1");
    counted(1, || house.traffic.deaf.get()).await;
    assert!(house.traffic.offers_out.get() < 60, "the latest won: offers did not pile up");
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_closed() {
    let mut house = open(AgentServerOptions::default()).await;
    for (what, message, code) in [
        ("text", Message::text("{}"), CloseCode::Unsupported),
        ("too large", Message::binary(vec![0; (1 << 20) + 1]), CloseCode::Size),
    ] {
        let mut socket = house.door.websocket().await;
        // The server may close while this is still being written.
        let _sent = bounded(what, socket.send(message)).await;
        assert_eq!(closed(&mut socket).await, code, "{what}");
    }
    let mut socket = house.door.websocket().await;
    for at in 0..8 {
        socket.send(Message::binary(vec![0xff; 100])).await.expect("sent");
        let answer = hear(&mut socket).await;
        let error = answer.error_response.expect("an error");
        assert_eq!(error.r#type(), ServerErrorResponseType::BadRequest, "{at}");
    }
    assert_eq!(closed(&mut socket).await, CloseCode::Protocol, "hopeless");
    counted((8, 1), || (house.traffic.messages_refused.get(), house.traffic.broken.get())).await;
    assert!(house.events.try_recv().is_err(), "the daemon heard nothing of it");
}

#[tokio::test]
async fn several_agents_share_a_connection() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut socket = house.door.websocket().await;
    let mut connections = Vec::new();
    for who in 1..=3 {
        say(&mut socket, &hello(who)).await;
        connections.push(house.arrival(who).await.0);
        assert_eq!(hear(&mut socket).await.instance_uid, vec![who; 16]);
    }
    assert!(connections.iter().all(|connection| *connection == connections[0]));
    for who in 1..=3 {
        house.links.offer(connections[0], agent(who), config(who, 100), false);
    }
    let mut got = BTreeMap::new();
    for _ in 0..3 {
        let message = hear(&mut socket).await;
        got.insert(message.instance_uid[0], offered(&message));
    }
    assert_eq!(got, BTreeMap::from([(1, Some(1)), (2, Some(2)), (3, Some(3))]));
    drop(socket);
    let mut words = Vec::new();
    for _ in 0..3 {
        words.push(house.word().await);
    }
    assert_eq!(words, ["lost 1", "lost 2", "lost 3"]);
}

/// Answers the first report of agent `who` with an offer, as the daemon would.
async fn offer_at_first_report(house: &mut House, who: u8, config: RenderedConfig) -> ConnectionId {
    let (connection, report) = house.arrival(who).await;
    house.links.offer(connection, agent(who), config, false);
    drop(report);
    connection
}

#[tokio::test]
async fn a_poll_gets_its_config_with_the_answer() {
    let mut house = open(AgentServerOptions { verdict_wait: BOUND, ..AgentServerOptions::default() }).await;
    let (door, first) = (house.door, hello(1));
    let (answer, connection) = tokio::join!(door.poll(&first), offer_at_first_report(&mut house, 1, config(9, 16_384)));
    assert_eq!(offered(&answer), Some(9));
    assert_eq!(door.poll(&first).await, answer, "a repeated request gets the same answer");
    assert_eq!(offered(&door.poll(&heartbeat(1, 1)).await), None);
    house.links.offer(connection, agent(1), config(8, 10), false);
    assert_eq!(offered(&door.poll(&heartbeat(1, 2)).await), Some(8), "what waits comes with the next poll");
    counted(1, || house.traffic.polling_agents.get()).await;

    let goodbye = AgentToServer { agent_disconnect: Some(AgentDisconnect {}), ..heartbeat(1, 3) };
    assert_eq!(door.poll(&goodbye).await.instance_uid, vec![1; 16]);
    assert_eq!(house.word().await, "goodbye 1");
    counted(0, || house.traffic.polling_agents.get()).await;
}

#[tokio::test]
async fn a_poll_does_not_wait_long_for_a_verdict() {
    let options = AgentServerOptions { verdict_wait: Duration::from_millis(20), ..AgentServerOptions::default() };
    let mut house = open(options).await;
    assert_eq!(offered(&house.door.poll(&hello(1)).await), None, "nobody gave a verdict");
    let (connection, report) = house.arrival(1).await;
    house.links.offer(connection, agent(1), config(9, 10), false);
    drop(report);
    assert_eq!(offered(&house.door.poll(&heartbeat(1, 1)).await), Some(9));
}

#[tokio::test]
async fn polls_that_stop_are_noticed() {
    let options = AgentServerOptions { poll_expiry: Duration::from_millis(200), ..AgentServerOptions::default() };
    let mut house = open(options).await;
    house.door.poll(&hello(1)).await;
    assert_eq!(house.word().await, "connected 1 Http");
    assert_eq!(house.word().await, "report 1");
    assert_eq!(house.word().await, "lost 1");
    counted(0, || house.traffic.polling_agents.get()).await;
    house.door.poll(&heartbeat(1, 1)).await;
    assert_eq!(house.word().await, "connected 1 Http", "and welcome again");
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::best());
    let mut out = Vec::new();
    encoder.read_to_end(&mut out).expect("memory to memory");
    out
}

#[tokio::test]
async fn http_is_answered_by_its_rules() {
    let mut house = open(AgentServerOptions { verdict_wait: BOUND, ..AgentServerOptions::default() }).await;
    let door = house.door;
    let post = |length: usize, extra: &str| {
        format!("POST /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Length: {length}{extra}")
    };
    let bomb = gzipped(&vec![0; 64 << 20]);
    let gzip = "\r\nContent-Encoding: gzip";
    for (what, head, body, status) in [
        ("another path", "GET /nothing HTTP/1.1".to_owned(), &b""[..], 404),
        ("a browser", "GET /v1/opamp HTTP/1.1".to_owned(), b"", 426),
        (
            "GET with the content type",
            "GET /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf".to_owned(),
            b"",
            405,
        ),
        ("too large", post((1 << 20) + 1, ""), b"", 413),
        ("no protobuf", post(3, ""), b"\x0a\xff\xff", 400),
        ("no gzip", post(3, gzip), b"abc", 400),
        ("a gzip bomb", post(bomb.len(), gzip), &bomb, 413),
        ("gzip in capitals that is none", post(3, "\r\nContent-Encoding: X-GZIP"), b"abc", 400),
        ("another encoding", post(3, "\r\nContent-Encoding: br"), b"abc", 415),
        ("a hook", "POST /hooks/github HTTP/1.1\r\nContent-Length: 4".to_owned(), b"push", 200),
    ] {
        let (found, head, body) = door.request(&head, body).await;
        assert_eq!(found, status, "{what}: {head}");
        if what == "a hook" {
            assert_eq!(body, b"rung by push");
        }
    }
    let chunked = "POST /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked";
    let endless = [&b"100001\r\n"[..], &vec![0; 0x10_0001]].concat();
    assert_eq!(door.request(chunked, &endless).await.0, 413, "chunks without end");
    assert!(house.events.try_recv().is_err(), "the daemon heard nothing of it");

    let body = gzipped(&hello(1).encode_to_vec());
    let both = "\r\nContent-Encoding: gzip\r\nAccept-Encoding: gzip";
    let (answer, _) = tokio::join!(door.post(both, &body), offer_at_first_report(&mut house, 1, config(9, 16_384)));
    let (status, head, compressed) = answer;
    assert!(status == 200 && head.contains("content-encoding: gzip"), "{head}");
    assert!(compressed.len() < 1000, "16 KiB of the same letter");
    let mut inflated = Vec::new();
    flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut inflated).expect("gzip");
    assert_eq!(offered(&ServerToAgent::decode(&inflated[..]).expect("a message")), Some(9));

    let nobody = AgentToServer { instance_uid: Bytes::from_static(b"short"), ..Default::default() };
    let answer = door.poll(&nobody).await;
    assert_eq!(answer.error_response.map(|error| error.r#type()), Some(ServerErrorResponseType::BadRequest));
}

#[tokio::test]
async fn slow_and_silent_ones_are_closed() {
    let mut options = AgentServerOptions {
        header_timeout: Duration::from_millis(100),
        message_timeout: Duration::from_millis(100),
        first_message_timeout: Duration::from_millis(100),
        ..AgentServerOptions::default()
    };
    options.rules.silence = Duration::from_millis(300);
    let mut house = open(options).await;

    let mut stream = TcpStream::connect(house.door.0).await.expect("accepted");
    stream.write_all(b"GET /v1/opamp HTTP/1.1\r\nHost: te").await.expect("written");
    let read = bounded("slow headers", stream.read(&mut [0; 10])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "closed without an answer: {read:?}");

    let mut quiet = house.door.websocket().await;
    assert_eq!(closed(&mut quiet).await, CloseCode::Policy, "no first message");

    let mut half = house.door.websocket().await;
    half.get_mut().write_all(&[0x82, 0xfe, 0x40, 0x00]).await.expect("written");
    assert_eq!(closed(&mut half).await, CloseCode::Policy, "half a frame");

    let mut silent = house.door.websocket().await;
    say(&mut silent, &hello(1)).await;
    drop(house.arrival(1).await);
    assert_eq!(house.word().await, "lost 1");
    assert_eq!(closed(&mut silent).await, CloseCode::Policy, "nothing after the first message");
    counted(2, || house.traffic.silent.get()).await;
}

/// Begins a message of 60,000 bytes of which nothing follows.
async fn announce(socket: &mut WebSocketStream<TcpStream>) {
    socket.get_mut().write_all(&[0x82, 0xfe, 0xea, 0x60, 0, 0, 0, 0]).await.expect("written");
}

/// Options with room for one message of 60,000 bytes, and so long for one.
fn narrow(message_timeout: Duration) -> AgentServerOptions {
    let mut options =
        AgentServerOptions { bytes_in_flight: 64 << 10, message_timeout, ..AgentServerOptions::default() };
    options.rules.limits.message_bytes = 64 << 10;
    options
}

#[tokio::test]
async fn who_waits_for_room_is_offered_what_there_is() {
    let mut house = open(narrow(Duration::from_secs(3_600))).await;
    let mut present = house.door.websocket().await;
    say(&mut present, &hello(2)).await;
    let (connection, report) = house.arrival(2).await;
    drop(report);
    hear(&mut present).await;
    let mut first = house.door.websocket().await;
    announce(&mut first).await;
    let mut second = house.door.websocket().await;
    announce(&mut second).await;
    counted(1, || house.traffic.waited_for_room.get()).await;
    // One of the two has the room and the other waits: so does whoever comes now.
    announce(&mut present).await;
    counted(2, || house.traffic.waited_for_room.get()).await;
    house.links.offer(connection, agent(2), config(5, 10), false);
    assert_eq!(offered(&hear(&mut present).await), Some(5));
}

#[tokio::test]
async fn who_waits_for_room_does_so_no_longer_than_a_message_may_take() {
    let options = AgentServerOptions { verdict_wait: Duration::from_secs(3_600), ..narrow(Duration::from_secs(2)) };
    let mut house = open(options).await;
    // It has the room for as long as nobody gives the verdict.
    let file = AgentConfigObject { body: vec![b'#'; 50_000].into(), ..Default::default() };
    let config_map = Some(AgentConfigMap { config_map: [(String::new(), file)].into() });
    let large = AgentToServer { effective_config: Some(EffectiveConfig { config_map }), ..hello(1) };
    let door = house.door;
    let polling = tokio::spawn(async move { door.poll(&large).await });
    let (_, report) = house.arrival(1).await;
    let mut waiting = house.door.websocket().await;
    announce(&mut waiting).await;
    assert_eq!(closed(&mut waiting).await, CloseCode::Policy, "nobody waits for ever");
    assert_eq!((house.traffic.waited_for_room.get(), house.traffic.broken.get()), (1, 1));
    drop(report);
    bounded("an answer", polling).await.expect("answered");
}

#[tokio::test]
async fn who_resets_a_connection_counts_for_its_address_all_the_same() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    for who in 1..=4 {
        let polls: Vec<u8> = [hello(who), hello(100 + who)].iter().flat_map(|message| {
            let body = message.encode_to_vec();
            let head = format!(
                "POST /v1/opamp HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            [head.into_bytes(), body].concat()
        }).collect();
        let mut stream = TcpStream::connect(at).await.expect("accepted");
        stream.write_all(&polls).await.expect("written");
        stream.set_zero_linger().expect("a socket");
    }
    // Accepted only now: what they sent is there, and the sockets do not say any more where they come from.
    let options = AgentServerOptions { max_new_agents: Some(1), ..AgentServerOptions::default() };
    let house = open_on(listener, options);
    counted(true, || house.traffic.new_agents_refused.get() >= 1).await;
}

#[tokio::test]
async fn the_one_too_many_is_turned_away_and_the_present_are_served() {
    let mut house = open(AgentServerOptions { max_connections: 1, ..AgentServerOptions::default() }).await;
    let mut socket = house.door.websocket().await;
    let (status, head, _) = house.door.request("GET /v1/opamp HTTP/1.1", b"").await;
    assert!(status == 503 && head.contains("retry-after: "), "{head}");
    say(&mut socket, &hello(1)).await;
    drop(house.arrival(1).await);
    assert_eq!(hear(&mut socket).await.instance_uid, vec![1; 16]);
    counted(1, || house.traffic.turned_away.get()).await;
    drop(socket);
    assert_eq!(house.word().await, "lost 1");
}

#[tokio::test]
async fn the_newest_connection_has_the_agent() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut old = house.door.websocket().await;
    say(&mut old, &hello(1)).await;
    let (first, report) = house.arrival(1).await;
    drop(report);
    hear(&mut old).await;
    let mut new = house.door.websocket().await;
    say(&mut new, &hello(1)).await;
    let (second, report) = house.arrival(1).await;
    assert_ne!(first, second);
    drop(report);
    assert_eq!(closed(&mut old).await, CloseCode::Policy);
    hear(&mut new).await;
    house.links.offer(second, agent(1), config(5, 10), false);
    assert_eq!(offered(&hear(&mut new).await), Some(5));
    // From HTTP to a WebSocket and back: each time the newest has it.
    house.door.poll(&hello(1)).await;
    let (third, report) = house.arrival(1).await;
    drop(report);
    assert_eq!(closed(&mut new).await, CloseCode::Policy);
    let mut newest = house.door.websocket().await;
    say(&mut newest, &hello(1)).await;
    let (fourth, report) = house.arrival(1).await;
    drop(report);
    assert!(third > second && fourth > third);
    counted(0, || house.traffic.polling_agents.get()).await;
}

#[tokio::test]
async fn two_that_share_an_identity_end_up_with_two() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut older = Vec::new();
    let mut newer = house.door.websocket().await;
    // Each newcomer throws out the one before it, as clones do that reconnect at once; until one is told that it is somebody else.
    let identification = loop {
        say(&mut newer, &hello(1)).await;
        tokio::select! {
            answer = hear(&mut newer) => break answer.agent_identification,
            message = house.events.recv() => {
                assert!(matches!(message.expect("it runs").event, AgentEvent::Connected { .. }));
                drop(house.event("the report").await);
                hear(&mut newer).await;
            }
        }
        older.push(std::mem::replace(&mut newer, house.door.websocket().await));
    };
    let uid = identification.expect("another identity").new_instance_uid;
    assert!(AgentId::new(&uid).is_some_and(|new| new != agent(1)));
    counted(1, || house.traffic.renamed.get()).await;
    say(&mut newer, &AgentToServer { instance_uid: uid.clone(), ..described(9, 1, "gateway") }).await;
    let AgentEvent::Connected { id, .. } = house.event("connected").await.event else { panic!("somebody new") };
    assert_eq!(id.as_bytes()[..], uid[..]);
}

fn is_restart(message: &ServerToAgent) -> bool {
    let alone = ServerToAgent {
        instance_uid: message.instance_uid.clone(),
        capabilities: message.capabilities,
        command: message.command,
        ..Default::default()
    };
    message.command.is_some_and(|command| command.r#type() == CommandType::Restart) && *message == alone
}

#[tokio::test]
async fn a_restart_is_told_alone_and_only_to_those_who_can() {
    let mut house = open(AgentServerOptions::default()).await;
    let can = |message: AgentToServer| AgentToServer { capabilities: 0x1c02, ..message };
    let mut socket = house.door.websocket().await;
    say(&mut socket, &can(hello(1))).await;
    let (connection, report) = house.arrival(1).await;
    drop(report);
    hear(&mut socket).await;
    house.links.restart(connection, agent(1));
    assert!(is_restart(&hear(&mut socket).await), "at once");
    house.links.restart(connection, agent(1));
    house.links.offer(connection, agent(1), config(3, 10), false);
    let (one, other) = (hear(&mut socket).await, hear(&mut socket).await);
    assert!(is_restart(&one) != is_restart(&other), "a message of its own");
    assert_eq!(offered(&one).or(offered(&other)), Some(3), "and the offer is not lost");

    let mut cannot = house.door.websocket().await;
    say(&mut cannot, &hello(2)).await;
    let (connection, report) = house.arrival(2).await;
    drop(report);
    hear(&mut cannot).await;
    house.links.restart(connection, agent(2));
    house.links.offer(connection, agent(2), config(4, 10), false);
    assert_eq!(offered(&hear(&mut cannot).await), Some(4), "nothing came before it");

    house.door.poll(&can(hello(3))).await;
    let (connection, report) = house.arrival(3).await;
    drop(report);
    house.links.restart(connection, agent(3));
    let poll = can(heartbeat(3, 1));
    assert!(is_restart(&house.door.poll(&poll).await), "with the next poll");
    assert!(!is_restart(&house.door.poll(&poll).await), "and not again to the same one");
    assert!(!is_restart(&house.door.poll(&can(heartbeat(3, 2))).await));
}

/// A first message of an agent that can list its components: their hash, and the list if there is one.
fn of_build(who: u8, sequence_num: u64, components: &[&str]) -> AgentToServer {
    let component = |name: &&str| ((*name).to_owned(), ComponentDetails::default());
    let components = components.iter().map(component).collect();
    AgentToServer {
        capabilities: 0x5802,
        available_components: Some(AvailableComponents { components, hash: Bytes::from_static(b"build") }),
        ..described(who, sequence_num, "gateway")
    }
}

fn available(message: &AgentMessage) -> Option<Vec<String>> {
    let AgentEvent::Report { report, .. } = &message.event else { panic!("{:?}", message.event) };
    report.available.as_ref().map(|names| names.iter().map(str::to_owned).collect())
}

#[tokio::test]
async fn the_list_of_components_is_asked_for_once_a_build() {
    const LIST: u64 = ServerToAgentFlags::ReportAvailableComponents as u64;
    let mut house = open(AgentServerOptions::default()).await;
    let mut first = house.door.websocket().await;
    say(&mut first, &of_build(1, 0, &[])).await;
    let (_, report) = house.arrival(1).await;
    assert_eq!(available(&report), None);
    drop(report);
    assert_eq!(hear(&mut first).await.flags, LIST);

    let second = of_build(2, 0, &[]);
    let (answer, _) = tokio::join!(house.door.poll(&second), async {
        drop(house.events.recv().await);
        drop(house.events.recv().await);
    });
    assert_eq!(answer.flags, 0, "another agent of the same build, over the other transport");

    say(&mut first, &of_build(1, 1, &["otlp", "debug"])).await;
    let report = house.event("the list").await;
    assert_eq!(available(&report), Some(vec!["debug".to_owned(), "otlp".to_owned()]));
    drop(report);
    assert_eq!(hear(&mut first).await.flags, 0);

    let mut third = house.door.websocket().await;
    say(&mut third, &of_build(3, 0, &[])).await;
    let (_, report) = house.arrival(3).await;
    assert_eq!(available(&report).map(|names| names.len()), Some(2), "known already");
    drop(report);
    assert_eq!(hear(&mut third).await.flags, 0);
}

#[tokio::test]
async fn an_interval_is_offered_to_those_who_take_it() {
    let mut options = AgentServerOptions { verdict_wait: BOUND, ..AgentServerOptions::default() };
    options.rules = options.rules.offering_heartbeat(Duration::from_secs(200));
    assert_eq!(options.rules.silence, Duration::from_secs(630), "and waited for");
    assert_eq!(options.rules.heartbeat_silence, Duration::from_secs(630));
    let mut house = open(options).await;
    let mut socket = house.door.websocket().await;
    for (who, capabilities, expected) in
        [(1, 0xb902, Some(200)), (2, 0x3902, Some(200)), (3, 0x3802, None), (4, 0x1902, None)]
    {
        say(&mut socket, &AgentToServer { capabilities, ..hello(who) }).await;
        drop(house.arrival(who).await);
        let answer = hear(&mut socket).await;
        assert_eq!(answer.capabilities, 0x27, "announced to everybody");
        let interval = answer.connection_settings.and_then(|settings| settings.opamp);
        assert_eq!(interval.map(|opamp| opamp.heartbeat_interval_seconds), expected, "{capabilities:#x}");
    }
    assert!(Rules::default().settings.is_none(), "unless it is asked for, nothing is");
    let (door, poller) = (house.door, AgentToServer { capabilities: 0xb902, ..hello(5) });
    let (answer, _) = tokio::join!(door.poll(&poller), offer_at_first_report(&mut house, 5, config(9, 10)));
    let settings = answer.connection_settings.clone().expect("over HTTP it is the time between two polls");
    assert_eq!(offered(&answer), Some(9), "beside a configuration");
    let status = ConnectionSettingsStatus {
        last_connection_settings_hash: settings.hash,
        status: ConnectionSettingsStatuses::Failed.into(),
        error_message: "not for me".to_owned(),
    };
    let said = AgentToServer { connection_settings_status: Some(status), capabilities: 0xb902, ..heartbeat(5, 1) };
    assert_eq!(house.door.poll(&said).await.connection_settings, None, "acknowledged");
    counted(1, || house.traffic.settings_refused.get()).await;
}

/// Two clones that poll in turn, each with numbers of its own: the first answer with another identity, and after how many polls.
#[tokio::test]
async fn two_that_poll_with_one_identity_end_up_with_two() {
    let mut house = open(AgentServerOptions { verdict_wait: Duration::ZERO, ..AgentServerOptions::default() }).await;
    let door = house.door;
    door.poll(&described(1, 5, "one")).await;
    drop(house.arrival(1).await);
    let mut renamed = None;
    for turn in 1..10 {
        for number in [500 + turn, 5 + turn] {
            let answer = door.poll(&heartbeat(1, number)).await;
            renamed = renamed.or(answer.agent_identification.map(|new| (number, new.new_instance_uid)));
        }
        if renamed.is_some() {
            break;
        }
    }
    let (number, uid) = renamed.expect("told apart within some polls");
    assert!(AgentId::new(&uid).is_some_and(|new| new != agent(1)));
    counted(1, || house.traffic.renamed.get()).await;
    let (stays, from) = if number > 500 { ("the older", 30) } else { ("the newer", 530) };
    for next in from..from + 8 {
        assert_eq!(door.poll(&heartbeat(1, next)).await.agent_identification, None, "{stays} one keeps it");
    }
}

#[tokio::test]
async fn clones_that_answer_on_lost_connections_are_told_apart_sooner() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut older: Option<WebSocketStream<TcpStream>> = None;
    for connections in 1.. {
        let mut newer = house.door.websocket().await;
        say(&mut newer, &hello(1)).await;
        tokio::select! {
            answer = hear(&mut newer) => {
                assert!(answer.agent_identification.is_some(), "{answer:?}");
                assert!(connections < 20, "before so many takeovers alone would be suspicious: {connections}");
                break;
            }
            message = house.events.recv() => {
                assert!(matches!(message.expect("it runs").event, AgentEvent::Connected { .. }));
                drop(house.event("the report").await);
                assert_eq!(hear(&mut newer).await.agent_identification, None);
            }
        }
        if let Some(mut lost) = older.replace(newer) {
            assert_eq!(closed(&mut lost).await, CloseCode::Policy);
            // It is there, and says so by answering the close.
            while let Some(Ok(_)) = bounded("the end", lost.next()).await {}
        }
    }
    counted(1, || house.traffic.renamed.get()).await;
}

#[tokio::test]
async fn who_promised_no_heartbeats_is_pinged() {
    let mut options = AgentServerOptions::default();
    // Half of it is how long a pong may take here.
    options.rules.silence = Duration::from_secs(4);
    let mut house = open(options).await;
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(1)).await;
    drop(house.arrival(1).await);
    hear(&mut socket).await;
    // Reading answers the pings; so many take longer than the patience with somebody who says nothing.
    let mut pings = 0;
    while pings < 3 {
        let message = bounded("a ping", socket.next()).await.expect("open").expect("in order");
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
        pings += 1;
    }
    say(&mut socket, &heartbeat(1, 1)).await;
    assert_eq!(hear(&mut socket).await.instance_uid, vec![1; 16], "it is still known");
    assert!(house.events.try_recv().is_err(), "and was never lost");
    // From now on nobody reads.
    assert_eq!(house.word().await, "lost 1");
    counted(1, || house.traffic.silent.get()).await;
}

#[tokio::test]
async fn a_storm_of_connections_is_spread_by_answers_that_clients_obey() {
    let house = open(AgentServerOptions { max_rate: Some(1), ..AgentServerOptions::default() }).await;
    let url = format!("ws://{}/v1/opamp", house.door.0);
    let (mut sockets, mut refusal) = (Vec::new(), None);
    for _ in 0..40 {
        let stream = TcpStream::connect(house.door.0).await.expect("accepted");
        match bounded("an answer", tokio_tungstenite::client_async(&url, stream)).await {
            Ok((socket, _)) => sockets.push(socket),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                refusal = Some(response);
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let refusal = refusal.expect("one a second, not forty at once");
    assert_eq!(refusal.status(), 503);
    let retry_after = refusal.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    assert!(retry_after.is_some_and(|seconds| (30..=60).contains(&seconds)), "{retry_after:?}");
    assert!(!sockets.is_empty(), "the first one may always come");
    let mut statuses = Vec::new();
    for who in 1..=40 {
        let (status, head, _) = house.door.post("", &hello(who).encode_to_vec()).await;
        statuses.push(status);
        if status == 503 {
            assert!(head.contains("retry-after: "), "{head}");
            break;
        }
    }
    assert_eq!(statuses.last(), Some(&503), "{statuses:?}");
    assert!(house.traffic.throttled.get() >= 2);
    // Who is here is served.
    say(&mut sockets[0], &hello(99)).await;
    assert_eq!(house.traffic.turned_away.get(), 0);
    drop(house.events);
}

#[tokio::test]
async fn who_says_too_much_is_put_off() {
    let mut options = AgentServerOptions { verdict_wait: Duration::ZERO, ..AgentServerOptions::default() };
    options.rules.most_messages = 2;
    let mut house = open(options).await;
    house.door.poll(&hello(1)).await;
    drop(house.arrival(1).await);
    let mut statuses = Vec::new();
    for number in 1..20 {
        let (status, head, _) = house.door.post("", &heartbeat(1, number).encode_to_vec()).await;
        statuses.push(status);
        if status == 503 {
            assert!(head.contains("retry-after: "), "{head}");
            break;
        }
    }
    assert_eq!(statuses.last(), Some(&503), "{statuses:?}");
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(2)).await;
    drop(house.arrival(2).await);
    let mut answer = hear(&mut socket).await;
    for number in 1..20 {
        say(&mut socket, &heartbeat(2, number)).await;
        answer = hear(&mut socket).await;
        if answer.error_response.is_some() {
            break;
        }
    }
    let error = answer.error_response.expect("put off");
    assert_eq!(error.r#type(), ServerErrorResponseType::Unavailable);
    assert!(matches!(error.details, Some(server_error_response::Details::RetryInfo(_))), "{error:?}");
    let counted = house.traffic.flooded.get();
    let mut neighbour = house.door.websocket().await;
    say(&mut neighbour, &hello(3)).await;
    drop(house.arrival(3).await);
    assert!(hear(&mut neighbour).await.error_response.is_none(), "another connection is served");
    // What is malformed counts as well: between two that are not, nobody has the server read without end.
    say(&mut neighbour, &heartbeat(3, 1)).await;
    assert!(hear(&mut neighbour).await.error_response.is_none());
    let malformed = bounded("sent", neighbour.send(Message::Binary(Bytes::from_static(b"\0\x0a\xff\xff")))).await;
    malformed.expect("the connection is there");
    let error = hear(&mut neighbour).await.error_response.expect("an error");
    assert_eq!(error.r#type(), ServerErrorResponseType::Unavailable, "the third in ten seconds: {error:?}");
    assert_eq!(house.traffic.flooded.get(), counted + 1);
}

#[tokio::test]
async fn a_connection_carries_so_many_agents_and_serves_those() {
    let mut options = AgentServerOptions::default();
    options.rules.most_agents = 1;
    let mut house = open(options).await;
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(1)).await;
    drop(house.arrival(1).await);
    assert!(hear(&mut socket).await.error_response.is_none());
    say(&mut socket, &hello(2)).await;
    let error = hear(&mut socket).await.error_response.expect("put off");
    assert_eq!(error.r#type(), ServerErrorResponseType::Unavailable, "{error:?}");
    assert_eq!(house.traffic.crowded_connection.get(), 1);
    say(&mut socket, &heartbeat(1, 1)).await;
    assert!(hear(&mut socket).await.error_response.is_none(), "who is there is served");
}

#[tokio::test]
async fn a_client_that_hangs_up_is_heard_all_the_same() {
    let mut house = open(AgentServerOptions { verdict_wait: BOUND, ..AgentServerOptions::default() }).await;
    let body = hello(1).encode_to_vec();
    let head = format!(
        "POST /v1/opamp HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(house.door.0).await.expect("accepted");
    stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("written");
    let AgentEvent::Connected { id, .. } = house.event("connected").await.event else { panic!("somebody") };
    drop(stream);
    assert_eq!(id, agent(1));
    assert_eq!(house.word().await, "report 1");
}

#[tokio::test]
async fn stopping_closes_everybody_and_says_nobody_is_lost() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(1)).await;
    drop(house.arrival(1).await);
    hear(&mut socket).await;
    house.stop.send(true).expect("it runs");
    assert_eq!(closed(&mut socket).await, CloseCode::Away);
    drop(socket);
    bounded("the end", house.task).await.expect("no panic");
    assert!(house.events.recv().await.is_none(), "no event, and nobody is left to send one");
}

#[tokio::test]
async fn stopping_does_not_wait_for_the_deaf() {
    let options = AgentServerOptions { drain: Duration::from_millis(100), ..AgentServerOptions::default() };
    let mut house = open(options).await;
    let mut deaf = house.door.websocket().await;
    say(&mut deaf, &hello(1)).await;
    let (connection, report) = house.arrival(1).await;
    house.links.offer(connection, agent(1), config(1, 64 << 20), false);
    drop(report);
    house.stop.send(true).expect("it runs");
    bounded("the end", house.task).await.expect("no panic");
    assert!(bounded("the channel's end", house.events.recv()).await.is_none(), "the task was ended, too");
}
