//! The fleet against a small server over real sockets, on both transports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::fleet::strategy::Amount;
use crate::opamp::proto;
use crate::simulate::offered::tests::offer;
use crate::simulate::{Attribute, Endpoint};

const BOUND: Duration = Duration::from_secs(30);

/// What every agent shall hold, and what agents said last.
struct Server {
    wanted: watch::Sender<proto::AgentRemoteConfig>,
    agents: Mutex<BTreeMap<Vec<u8>, Known>>,
}

#[derive(Default)]
struct Known {
    reported: Vec<u8>,
    offered: Vec<u8>,
    regions: Vec<String>,
    goodbye: bool,
}

impl Server {
    fn new(hash: &str, body: &str) -> Arc<Self> {
        Arc::new(Self { wanted: watch::channel(offer(hash, body)).0, agents: Mutex::default() })
    }

    fn answer(&self, message: &proto::AgentToServer) -> proto::ServerToAgent {
        let mut agents = self.agents.lock().expect("the server's agents");
        let mut flags = 0;
        let first = !agents.contains_key(&message.instance_uid[..]);
        let known = agents.entry(message.instance_uid.to_vec()).or_default();
        if first && message.agent_description.is_none() {
            flags = proto::ServerToAgentFlags::ReportFullState as u64;
        }
        if let Some(description) = &message.agent_description {
            known.regions = description.non_identifying_attributes.iter().map(|pair| pair.key.clone()).collect();
        }
        if let Some(status) = &message.remote_config_status {
            known.reported = status.last_remote_config_hash.to_vec();
        }
        known.goodbye |= message.agent_disconnect.is_some();
        let mut answer = proto::ServerToAgent {
            instance_uid: message.instance_uid.clone(),
            flags,
            capabilities: 7,
            ..Default::default()
        };
        self.offer(known, &mut answer);
        answer
    }

    fn offer(&self, known: &mut Known, answer: &mut proto::ServerToAgent) {
        let wanted = self.wanted.borrow().clone();
        if known.reported != wanted.config_hash && known.offered != wanted.config_hash {
            known.offered = wanted.config_hash.to_vec();
            answer.remote_config = Some(wanted);
        }
    }

    /// Serves WebSocket connections until `closing` says that all of them are to be dropped.
    async fn websockets(self: Arc<Self>, closing: watch::Receiver<bool>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut closing = closing.clone();
                closing.mark_unchanged();
                tokio::spawn(Arc::clone(&self).websocket(stream, closing));
            }
        });
        address
    }

    async fn websocket(self: Arc<Self>, stream: TcpStream, mut closing: watch::Receiver<bool>) {
        let mut socket = tokio_tungstenite::accept_async(stream).await.expect("a handshake");
        let mut wanted = self.wanted.subscribe();
        let mut here: Vec<Vec<u8>> = Vec::new();
        loop {
            let answers = tokio::select! {
                changed = closing.changed() => {
                    if changed.is_ok() { drop(socket); }
                    return;
                }
                _ = wanted.changed() => {
                    let mut agents = self.agents.lock().expect("the server's agents");
                    here.iter().map(|id| {
                        let mut push = proto::ServerToAgent { instance_uid: Bytes::copy_from_slice(id), ..Default::default() };
                        self.offer(agents.get_mut(id).expect("known"), &mut push);
                        push
                    }).collect()
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(data))) => {
                        assert_eq!(data[0], 0, "the OpAMP header");
                        let message = proto::AgentToServer::decode(&data[1..]).expect("a message");
                        if !here.contains(&message.instance_uid.to_vec()) {
                            here.push(message.instance_uid.to_vec());
                        }
                        vec![self.answer(&message)]
                    }
                    Some(Ok(_)) => continue, // the library answers a close by itself
                    Some(Err(_)) | None => return,
                },
            };
            for answer in answers {
                let mut data = vec![0];
                answer.encode(&mut data).expect("room");
                socket.feed(Message::Ping(Bytes::from_static(b"still there?"))).await.ok();
                if socket.send(Message::Binary(data.into())).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Serves polls; the first of each agent is turned away.
    async fn polls(self: Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let turned_away = Arc::new(Mutex::new(BTreeMap::<Vec<u8>, Bytes>::new()));
        let handler = move |body: Bytes| async move {
            let message = proto::AgentToServer::decode(body.clone()).expect("a message");
            let known = turned_away.lock().expect("ids").insert(message.instance_uid.to_vec(), body.clone());
            let kind = [("content-type", "application/x-protobuf")];
            match known {
                None => (axum::http::StatusCode::SERVICE_UNAVAILABLE, kind, Vec::new()),
                Some(first) => {
                    assert!(message.sequence_num > 0 || first == body, "repeated byte by byte");
                    (axum::http::StatusCode::OK, kind, self.answer(&message).encode_to_vec())
                }
            }
        };
        let router = axum::Router::new().route("/v1/opamp", axum::routing::post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }
}

fn options(url: &str, agents: u32) -> Options {
    let mut options = Options::new(Endpoint::resolve(url, false).expect("loopback"), agents);
    options.apply_delay = "0..50ms".parse().expect("a delay");
    options.attributes = Attribute::parse_all(&["region=eu,us"]).expect("attributes");
    options.fail_matching = Some("boom".to_owned());
    options
}

fn applied(counts: &Counts, hash: &str) -> usize {
    counts.config(&hex::encode(hash)).map_or(0, |holding| holding.applied)
}

#[tokio::test]
async fn a_fleet_connects_takes_configs_comes_back_and_says_goodbye() {
    let server = Server::new("h1", &format!("a: {}", "x".repeat(40_000)));
    let (close, closing) = watch::channel(false);
    let address = Arc::clone(&server).websockets(closing).await;
    let fleet = Fleet::start(options(&format!("ws://{address}/v1/opamp"), 40)).expect("a fleet");
    let counts = fleet.wait_until(BOUND, |counts| applied(counts, "h1") == 40).await.expect("all hold the first");
    assert_eq!((counts.connected, counts.without_config, counts.offers), (40, 0, 40));

    server.wanted.send_replace(offer("h2", "a: boom"));
    let failed = |counts: &Counts| counts.config(&hex::encode("h2")).is_some_and(|holding| holding.failed == 40);
    fleet.wait_until(BOUND, failed).await.expect("all refuse the second");

    server.wanted.send_replace(offer("h3", "a: 3"));
    fleet
        .wait_until(BOUND, |counts| applied(counts, "h3") == 40 && counts.healthy == 40)
        .await
        .expect("all hold the third");

    close.send_replace(true);
    let back = |counts: &Counts| counts.connects == 80 && counts.connected == 40;
    let counts = fleet.wait_until(BOUND, back).await.expect("all come back");
    assert_eq!((counts.offers, counts.repeated_offers), (120, 0), "they remembered what they hold");
    let holding = counts.config(&hex::encode("h3")).expect("held");
    assert!(holding.first_receipt <= holding.last_receipt && holding.last_receipt <= holding.last_applied);

    let counts = fleet.stop().await;
    assert_eq!((counts.connected, counts.malformed, counts.contradictions), (0, 0, 0));
    let agents = server.agents.lock().expect("the server's agents");
    assert_eq!(agents.len(), 40);
    assert!(agents.values().all(|known| known.goodbye), "everybody said goodbye");
    assert!(agents.values().all(|known| known.regions.contains(&"region".to_owned())));
}

#[tokio::test]
async fn several_agents_share_a_connection() {
    let server = Server::new("h1", "a: 1");
    let (_close, closing) = watch::channel(false);
    let address = Arc::clone(&server).websockets(closing).await;
    let mut options = options(&format!("ws://{address}/v1/opamp"), 25);
    options.per_connection = 10;
    options.silent = Amount::Count(5);
    let fleet = Fleet::start(options).expect("a fleet");
    let counts = fleet.wait_until(BOUND, |counts| applied(counts, "h1") == 25).await.expect("all hold it");
    assert_eq!((counts.connects, counts.connected), (3, 25));
    let told =
        server.agents.lock().expect("the server's agents").values().filter(|known| known.reported == b"h1").count();
    assert!(told <= 20, "{told} told what became of it, five never do");
}

#[tokio::test]
async fn agents_poll_over_http() {
    let server = Server::new("h1", &format!("a: {}", "x".repeat(40_000)));
    let address = Arc::clone(&server).polls().await;
    let mut options = options(&format!("http://{address}/v1/opamp"), 10);
    options.poll_interval = Duration::from_millis(50);
    let fleet = Fleet::start(options).expect("a fleet");
    fleet.wait_until(BOUND, |counts| applied(counts, "h1") == 10).await.expect("all hold the first");
    server.wanted.send_replace(offer("h2", "a: 2"));
    let counts = fleet.wait_until(BOUND, |counts| applied(counts, "h2") == 10).await.expect("all hold the second");
    assert_eq!((counts.malformed, counts.lost, counts.refused), (0, 0, 10), "{counts:?}");
    fleet.stop().await;
}

#[tokio::test]
async fn deaf_agents_go_on_talking_and_hear_nothing() {
    let server = Server::new("h1", "a: 1");
    let (_close, closing) = watch::channel(false);
    let address = Arc::clone(&server).websockets(closing).await;
    let mut options = options(&format!("ws://{address}/v1/opamp"), 10);
    options.deaf = Amount::Count(3);
    options.heartbeat = Duration::from_millis(20);
    let fleet = Fleet::start(options).expect("a fleet");
    fleet.wait_until(BOUND, |counts| applied(counts, "h1") == 10).await.expect("the first answer is heard");
    server.wanted.send_replace(offer("h2", "a: 2"));
    let counts = fleet.wait_until(BOUND, |counts| applied(counts, "h2") == 7).await.expect("those who hear have it");
    let sent = counts.sent;
    let counts = fleet.wait_until(BOUND, |counts| counts.sent > sent + 100).await.expect("they go on talking");
    assert_eq!((applied(&counts, "h2"), applied(&counts, "h1"), counts.connected), (7, 3, 10));
}

#[tokio::test]
async fn agents_drop_and_reconnect_at_random_and_wait_when_nobody_is_there() {
    let server = Server::new("h1", "a: 1");
    let (_close, closing) = watch::channel(false);
    let address = Arc::clone(&server).websockets(closing).await;
    let mut options = options(&format!("ws://{address}/v1/opamp"), 5);
    options.reconnect = Some(Duration::from_millis(30));
    let fleet = Fleet::start(options).expect("a fleet");
    let counts = fleet.wait_until(BOUND, |counts| counts.connects > 30).await.expect("they come and go");
    assert_eq!((counts.lost, counts.offers), (0, 5), "on purpose, and offered once: {counts:?}");

    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its address");
    let fleet = Fleet::start(self::options(&format!("ws://{nobody}/v1/opamp"), 3)).expect("a fleet");
    let counts = fleet.wait_until(BOUND, |counts| counts.refused >= 3).await.expect("refused");
    assert_eq!(counts.connected, 0);
    assert!(counts.trouble.as_deref().is_some_and(|trouble| trouble.contains("cannot connect")), "{counts:?}");
    let counts = fleet.stop().await;
    assert_eq!(counts.connects, 0);
}

#[tokio::test]
async fn who_may_not_speak_says_why_and_is_not_connected() {
    let refuse = || async { (axum::http::StatusCode::UNAUTHORIZED, "the token\nended\u{202e} yesterday\n") };
    let app = axum::Router::new().fallback(refuse);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    for scheme in ["ws", "http"] {
        let fleet = Fleet::start(options(&format!("{scheme}://{address}/v1/opamp"), 3)).expect("a fleet");
        let refused = |counts: &Counts| counts.refused >= 6 && counts.connected == 0;
        let counts = fleet.wait_until(BOUND, refused).await.expect("refused, again and again");
        let trouble = counts.trouble.as_deref();
        assert_eq!(trouble, Some("the server answered 401 Unauthorized: the token ended yesterday"), "{scheme}");
        assert_eq!((counts.malformed, counts.lost), (0, 0), "{counts:?}");
    }
    serving.abort();
}

#[test]
fn what_cannot_be_played_is_refused() {
    for change in [
        (|options| options.agents = 0) as fn(&mut Options),
        |options| options.agents = 2_000_000,
        |options| options.per_connection = 0,
        |options| options.heartbeat = Duration::ZERO,
        |options| options.reconnect = Some(Duration::from_millis(1)),
    ] {
        let mut options = options("ws://127.0.0.1:1/", 1);
        change(&mut options);
        assert!(matches!(Fleet::start(options), Err(StartError::Options(_))));
    }
}
