//! Getting a connection: TCP, HTTP on top of it, the upgrade to WebSocket, and how long to wait after a refusal.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderMap, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::serve::socket::Socket;
use crate::simulate::{Endpoint, Options};
use crate::view::text::{clip, plain};

/// Connections from one loopback address to one port. A system lends about 28,000 ports for that, and looks longer and longer
/// for a free one; further ones leave from the next address (127.0.0.2, ...).
const CONNECTIONS_PER_SOURCE: u32 = 10_000;

/// What a deaf agent's socket takes in before the server notices: as little as the system allows.
const DEAF_BUFFER_BYTES: u32 = 4_096;

/// The most that is read of what a server says to a refusal.
const LONGEST_WORDS: usize = 64 * 1024;

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct Refusal {
    /// For people.
    pub(super) reason: String,
    /// What the server asked for in `Retry-After`.
    pub(super) retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal in which the server said nothing of when to come back.
    pub(super) fn because(reason: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_string(), retry_after: None }
    }

    /// A refusal by an HTTP status.
    pub(super) fn status(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        Self { reason: refused(status, body), retry_after: retry_after(status, headers) }
    }
}

/// What a server answered, with its own words as far as one line goes.
pub(super) fn refused(status: StatusCode, body: &[u8]) -> String {
    const LONGEST: usize = 300;
    let words = clip(&plain(&String::from_utf8_lossy(body.get(..4 * LONGEST).unwrap_or(body))), LONGEST);
    if words.is_empty() {
        format!("the server answered {status}")
    } else {
        format!("the server answered {status}: {words}")
    }
}

/// `Retry-After` in seconds, which clients honour with 429 and 503 only.
pub(super) fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// How long to wait before the next attempt: 0.5 s, half as much more each time, at most a minute, all give or take a half.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(60);

    /// As after a success.
    pub(super) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// The wait after one more failure.
    pub(super) fn after_failure(&mut self, random: &mut fastrand::Rng) -> Duration {
        let wait = self.next.mul_f64(0.5 + random.f64());
        self.next = self.next.mul_f64(1.5).min(Self::LONGEST);
        wait
    }
}

/// Opens a TCP connection for the connection with this number and starts HTTP on it. Runs within a `LocalSet`.
pub(super) async fn open(options: &Options, number: u32, deaf: bool) -> Result<SendRequest<Full<Bytes>>, Refusal> {
    let endpoint = &options.server;
    let stream = dial(endpoint, number, deaf).await.map_err(|error| {
        if error.kind() == io::ErrorKind::AddrNotAvailable {
            Refusal::because("no local port is free: fewer agents, or more of them to a connection (--per-connection)")
        } else {
            Refusal::because(format_args!("cannot connect to {}: {error}", endpoint.authority))
        }
    })?;
    let socket = secure(options, stream).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(Refusal::because)?;
    tokio::task::spawn_local(async move {
        // What goes wrong on the connection is told by the request that it happens to.
        connection.with_upgrades().await.ok();
    });
    Ok(sender)
}

/// Speaks TLS from here on, where the address says so.
async fn secure(options: &Options, stream: TcpStream) -> Result<Socket, Refusal> {
    let Some(name) = &options.server.tls else { return Ok(Socket::Plain(stream)) };
    let Some(config) = &options.tls else { return Err(Refusal::because("nothing says what the server is known by")) };
    let handshake = Box::pin(TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream));
    let stream = handshake.await.map_err(|error| Refusal::because(format_args!("no TLS with the server: {error}")))?;
    let (stream, tls) = stream.into_inner();
    Ok(Socket::secure(stream, rustls::Connection::Client(tls)))
}

/// The credential of the connection with this number.
pub(super) fn bearer(options: &Options, number: u32) -> Option<String> {
    let turn = (number as usize).checked_rem(options.tokens.len())?;
    options.tokens.get(turn).map(|token| format!("Bearer {}", token.expose()))
}

async fn dial(endpoint: &Endpoint, number: u32, deaf: bool) -> io::Result<TcpStream> {
    let mut latest = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in &endpoint.addresses {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if deaf {
            socket.set_recv_buffer_size(DEAF_BUFFER_BYTES)?;
        }
        let source = number / CONNECTIONS_PER_SOURCE;
        if source > 0 && address.is_ipv4() && address.ip().is_loopback() {
            let last = u8::try_from(1 + source % 250).unwrap_or(1);
            // Systems that have no more than one loopback address connect from that one.
            socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0)).ok();
        }
        match socket.connect(*address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => latest = error,
        }
    }
    Err(latest)
}

/// Turns the connection into a WebSocket. Returns the socket and what came behind the server's answer.
pub(super) async fn upgrade(
    options: &Options,
    number: u32,
    mut sender: SendRequest<Full<Bytes>>,
) -> Result<(Socket, Bytes), Refusal> {
    let endpoint = &options.server;
    let key = generate_key();
    let mut request = Request::get(&endpoint.path)
        .header(HOST, &endpoint.authority)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key);
    if let Some(bearer) = bearer(options, number) {
        request = request.header(AUTHORIZATION, bearer);
    }
    let request = request.body(Full::default()).map_err(Refusal::because)?;
    let response = sender.send_request(request).await.map_err(Refusal::because)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = response.into_parts();
        // Words that do not come are no reason to wait for.
        let body = Limited::new(body, LONGEST_WORDS).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        return Err(Refusal::status(head.status, &head.headers, &body));
    }
    let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(|accept| accept.as_bytes());
    if accepted != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(Refusal::because("the server's Sec-WebSocket-Accept does not fit the key"));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(Refusal::because)?;
    let parts = upgraded
        .downcast::<TokioIo<Socket>>()
        .map_err(|_| Refusal::because("the upgraded connection is not the one that was opened"))?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_below_a_minute_and_a_half() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..40).map(|_| backoff.after_failure(&mut random)).collect();
        assert!((Duration::from_millis(250)..=Duration::from_millis(750)).contains(&waits[0]), "{:?}", waits[0]);
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(90)), "{waits:?}");
        assert!(waits[39] >= Duration::from_secs(30), "{:?}", waits[39]);
    }

    #[test]
    fn retry_after_counts_with_the_two_statuses_that_mean_it() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().expect("a header"));
        for (status, seconds) in [(503, Some(7)), (429, Some(7)), (404, None), (500, None)] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(retry_after(status, &headers), seconds.map(Duration::from_secs), "{status}");
        }
        headers.insert(RETRY_AFTER, "soon".parse().expect("a header"));
        assert_eq!(retry_after(StatusCode::SERVICE_UNAVAILABLE, &headers), None);
    }
}
