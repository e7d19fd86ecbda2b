//! The agents' listener on 127.0.0.1, the daemon's end of its channel, and agents that speak to it over real sockets.

#![allow(dead_code, reason = "each test binary uses its part")]

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

use gitamp::agent::{AgentEvent, AgentId, ConnectionId};
use gitamp::clock::Clock;
use gitamp::config::{ComponentNames, ConfigHash, RenderedConfig};
use gitamp::opamp::proto::*;
use gitamp::serve::traffic::Traffic;
use gitamp::serve::{AgentLinks, AgentMessage, AgentServerOptions, serve_agents};

/// Nothing in these tests takes long; what is not there by then will never come.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) async fn bounded<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(BOUND, future).await.unwrap_or_else(|_| panic!("{what}: nothing came"))
}

/// How agents come in.
#[derive(Clone, Copy)]
pub(crate) struct Door(pub(crate) SocketAddr);

/// A listener and the daemon's end of its channel.
pub(crate) struct House {
    pub(crate) door: Door,
    pub(crate) links: AgentLinks,
    pub(crate) events: mpsc::Receiver<AgentMessage>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) async fn open(options: AgentServerOptions) -> House {
    open_on(TcpListener::bind("127.0.0.1:0").await.expect("a port"), options)
}

pub(crate) fn open_on(listener: TcpListener, options: AgentServerOptions) -> House {
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
    pub(crate) async fn event(&mut self, what: &str) -> AgentMessage {
        bounded(what, self.events.recv()).await.expect("the listener runs")
    }

    /// The events of a first message: who is there, and what it reported. The verdict is still to be given.
    pub(crate) async fn arrival(&mut self, who: u8) -> (ConnectionId, AgentMessage) {
        let AgentEvent::Connected { id, connection, .. } = self.event("connected").await.event else {
            panic!("somebody comes first");
        };
        assert_eq!(id, agent(who));
        (connection, self.event("a report").await)
    }

    /// What happens next, in a word.
    pub(crate) async fn word(&mut self) -> String {
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
    pub(crate) async fn websocket(self) -> WebSocketStream<TcpStream> {
        let stream = TcpStream::connect(self.0).await.expect("accepted");
        let url = format!("ws://{}/v1/opamp", self.0);
        let (socket, _) = bounded("upgrade", tokio_tungstenite::client_async(url, stream)).await.expect("upgraded");
        socket
    }

    /// Sends a request as it is and returns status, head and body of the answer. The connection is closed afterwards.
    pub(crate) async fn request(self, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
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

    pub(crate) async fn post(self, extra: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let head = format!(
            "POST /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}{extra}",
            body.len()
        );
        self.request(&head, body).await
    }

    pub(crate) async fn poll(self, message: &AgentToServer) -> ServerToAgent {
        let (status, head, body) = self.post("", &message.encode_to_vec()).await;
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        ServerToAgent::decode(&body[..]).expect("a ServerToAgent")
    }
}

pub(crate) fn agent(byte: u8) -> AgentId {
    AgentId::new(&[byte; 16]).expect("a uid")
}

pub(crate) fn config(byte: u8, bytes: usize) -> RenderedConfig {
    config_of(byte, vec![b'y'; bytes].into())
}

pub(crate) fn config_of(byte: u8, body: Bytes) -> RenderedConfig {
    RenderedConfig::new(ConfigHash::new([byte; 32]), body, ComponentNames::default())
}

pub(crate) fn heartbeat(who: u8, sequence_num: u64) -> AgentToServer {
    AgentToServer { instance_uid: vec![who; 16].into(), sequence_num, capabilities: 0x1802, ..Default::default() }
}

/// A first message, complete.
pub(crate) fn hello(who: u8) -> AgentToServer {
    described(who, 0, "gateway")
}

pub(crate) fn described(who: u8, sequence_num: u64, name: &str) -> AgentToServer {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(name.to_owned())) });
    let identifying_attributes = vec![KeyValue { key: "service.name".into(), value }];
    AgentToServer {
        agent_description: Some(AgentDescription { identifying_attributes, ..Default::default() }),
        remote_config_status: Some(RemoteConfigStatus::default()),
        ..heartbeat(who, sequence_num)
    }
}

pub(crate) fn framed(message: &AgentToServer) -> Message {
    Message::binary([vec![0], message.encode_to_vec()].concat())
}

pub(crate) async fn say(socket: &mut WebSocketStream<TcpStream>, message: &AgentToServer) {
    bounded("sending", socket.send(framed(message))).await.expect("sent");
}

/// The next message of the server.
pub(crate) async fn hear(socket: &mut WebSocketStream<TcpStream>) -> ServerToAgent {
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
pub(crate) async fn closed(socket: &mut WebSocketStream<TcpStream>) -> CloseCode {
    loop {
        match bounded("a close frame", socket.next()).await.expect("a close frame comes first").expect("in order") {
            Message::Close(frame) => return frame.expect("with a code").code,
            Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

pub(crate) fn offered(message: &ServerToAgent) -> Option<u8> {
    message.remote_config.as_ref().map(|offer| offer.config_hash[0])
}
