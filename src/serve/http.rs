//! Requests on the agents' port: messages over plain HTTP, upgrades to a WebSocket, and hooks for those who serve them.

use std::convert::Infallible;
use std::io::Read;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tower::ServiceExt;

use super::collected::Collected;
use super::frames::FrameReader;
use super::gate::Proof;
use super::links::{Link, Registration, lock};
use super::listener::Server;
use super::polling::{self, Answer};
use super::quota::{Origin, Origins, Place};
use super::room::Room;
use super::socket::Socket;
use super::websocket;
use crate::clock::Clock;
use crate::identity::Denied;
use crate::time::Timestamp;

/// Bytes that the head of a request may have.
const MOST_HEAD_BYTES: usize = 16 * 1024;

/// The content type that tells a message over plain HTTP from everything else.
const PROTOBUF: &str = "application/x-protobuf";

/// Answers smaller than this are not worth compressing.
const SMALLEST_COMPRESSED: usize = 1024;

/// What the requests of one connection tell its task.
#[derive(Debug, Default)]
struct Phase {
    /// A first request came: the handshake is over.
    began: AtomicBool,
    /// The connection becomes a WebSocket, for somebody who proved this.
    upgrade: Mutex<Option<(OnUpgrade, Proof)>>,
    /// What the connection itself proves.
    certified: Proof,
}

/// Serves one connection to its end, whatever it turns out to be. `address` is where it came from when it was accepted: later the socket
/// may not say any more, because a client that resets it leaves what it sent, but not its name. `_places` are its places among all
/// connections, and among those of its address.
pub(super) async fn serve(
    server: Arc<Server>,
    stream: TcpStream,
    address: IpAddr,
    registration: Registration,
    _places: (OwnedSemaphorePermit, Option<Place>),
) {
    // Before the handshake: what changes during it is found out with the first request.
    let round = server.options.tls.as_ref().map_or(0, |tls| tls.round());
    // In a box of its own, so that an open WebSocket does not keep the room that HTTP needed.
    let Some(socket) = Box::pin(secure(&server, stream, address, &registration.link)).await else { return };
    let certified = Proof::of_connection(socket.peer_certificates(), round, Some(address));
    let upgraded = Box::pin(requests(&server, socket, certified, &registration.link)).await;
    if let Some((stream, reader, proof)) = upgraded {
        websocket::serve(&server, stream, reader, proof, &registration).await;
    }
}

/// Makes the connection secure, where that is asked for. `None`: it came to nothing, or the server stops.
async fn secure(server: &Server, stream: TcpStream, address: IpAddr, link: &Link) -> Option<Socket> {
    let Some(tls) = &server.options.tls else { return Some(Socket::Plain(stream)) };
    let mut accepting = pin!(tls.accept(stream, address));
    loop {
        tokio::select! {
            socket = accepting.as_mut() => return socket,
            () = link.wake.notified() => {
                if link.is_over() {
                    return None;
                }
            }
        }
    }
}

/// Answers requests until the connection ends or becomes a WebSocket: then it returns the socket and a reader of its
/// frames, which has what came behind the request.
async fn requests(
    server: &Arc<Server>,
    stream: Socket,
    certified: Proof,
    link: &Link,
) -> Option<(Socket, FrameReader, Box<Proof>)> {
    let phase = Arc::new(Phase { certified, ..Phase::default() });
    let is_trusted = || server.still_holds(&phase.certified).is_ok();
    let service = service_fn(|request: Request<Incoming>| {
        phase.began.store(true, Ordering::Relaxed);
        let (server, phase) = (Arc::clone(server), Arc::clone(&phase));
        async move { Ok::<_, Infallible>(respond(&server, &phase, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(server.options.keep_alive)
        .max_buf_size(MOST_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut first_head = pin!(sleep(server.options.header_timeout));
    // A certificate is shown once; what a request shows besides is judged with each.
    let mut certified = pin!(reached(server.clock, phase.certified.expires));
    let mut is_parting = false;
    // What counts may have changed during the handshake, whose wait took the wake-up.
    let mut was_in_doubt = link.take_doubt();
    if was_in_doubt && !is_trusted() {
        return None;
    }
    loop {
        tokio::select! {
            // How an HTTP connection ended makes no difference here.
            _ended = connection.as_mut() => break,
            () = first_head.as_mut(), if !phase.began.load(Ordering::Relaxed) => {
                if !phase.began.load(Ordering::Relaxed) {
                    return None;
                }
            }
            () = link.wake.notified() => {
                let is_in_doubt = link.take_doubt();
                was_in_doubt |= is_in_doubt;
                let is_revoked = is_in_doubt && !is_trusted();
                // A request that is under way is not answered as if it counted.
                if let Some(shown) = &phase.certified.shown {
                    shown.is_revoked.fetch_or(is_revoked, Ordering::Relaxed);
                }
                if (link.is_over() || is_revoked) && !is_parting {
                    is_parting = true;
                    server.traffic.gate.revoked.add(usize::from(is_revoked));
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = certified.as_mut(), if !is_parting => {
                is_parting = true;
                server.traffic.gate.revoked.one();
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    let (upgrade, proof) = lock(&phase.upgrade).take()?;
    let parts = upgrade.await.ok()?.downcast::<TokioIo<Socket>>().ok()?;
    if was_in_doubt {
        // The upgrade may have gone on beside that, and by a token that was not looked at here.
        link.doubt();
    }
    // Copied, because even without a byte in it this is the room of 8 KiB into which the request was read.
    Some((parts.io.into_inner(), FrameReader::new(&parts.read_buf), Box::new(proof)))
}

/// Waits until the wall clock has reached this time; for ever when there is none.
async fn reached(clock: Clock, end: Option<Timestamp>) {
    let Some(end) = end else { return std::future::pending().await };
    while clock.wall() < end {
        sleep_until(clock.instant_of_wall(end)).await;
    }
}

async fn respond(server: &Arc<Server>, phase: &Phase, request: Request<Incoming>) -> Response<Body> {
    if request.uri().path() == server.options.path {
        let proof = match server.prove(request.headers(), &phase.certified) {
            Ok(proof) => proof,
            Err(denied) => return unproven(server, &denied),
        };
        let is_message = content_type(request.headers()).is_some_and(|kind| kind.eq_ignore_ascii_case(PROTOBUF));
        return if is_message { message(server, proof, request).await } else { upgrade(server, phase, proof, request) };
    }
    match &server.hooks {
        Some(hooks) if request.uri().path().starts_with("/hooks/") => {
            let mut request = request.map(Body::new);
            // Whoever delivers too much is told from the others by its address.
            if let Some(address) = phase.certified.address {
                request.extensions_mut().insert(Origin::of(address));
            }
            let Ok(response) = hooks.clone().oneshot(request).await;
            response
        }
        Some(_) | None => plain(StatusCode::NOT_FOUND, "OpAMP is spoken at another path\n"),
    }
}

/// The answer to who proves nothing that counts.
fn unproven(server: &Server, denied: &Denied) -> Response<Body> {
    server.traffic.gate.unproven.one();
    tracing::debug!("an agent is not let in: {denied}");
    let mut response = Response::new(Body::from(format!("agents have to prove who they are: {denied}\n")));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    with(response, header::WWW_AUTHENTICATE, "Bearer realm=\"opamp\"")
}

/// The content type without its parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').next().map(str::trim)
}

fn plain(status: StatusCode, words: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(words));
    *response.status_mut() = status;
    response
}

fn with(mut response: Response<Body>, name: HeaderName, value: &'static str) -> Response<Body> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

/// Turns the connection into a WebSocket (RFC 6455, 4.2). No extension and no subprotocol is ever chosen.
fn upgrade(server: &Server, phase: &Phase, mut proof: Proof, mut request: Request<Incoming>) -> Response<Body> {
    let has = |name: HeaderName, token: &str| {
        let lines = request.headers().get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if request.method() != Method::GET || !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        let words = "OpAMP is spoken here: over a WebSocket, or by POST of application/x-protobuf\n";
        return with(plain(StatusCode::UPGRADE_REQUIRED, words), header::UPGRADE, "websocket");
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        let response = plain(StatusCode::UPGRADE_REQUIRED, "this server speaks version 13 of WebSocket\n");
        return with(response, header::SEC_WEBSOCKET_VERSION, "13");
    }
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing\n");
    };
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is no key\n");
    };
    if !server.admits(&proof) || !server.take_place(&mut proof) {
        return with(unavailable(), header::CONNECTION, "close");
    }
    // TLS keeps the certificate of an open connection itself.
    proof.shown = None;
    *lock(&phase.upgrade) = Some((hyper::upgrade::on(&mut request), proof));
    let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    with(with(response, header::CONNECTION, "Upgrade"), header::UPGRADE, "websocket")
}

/// Answers a message that came as the body of a request.
async fn message(server: &Arc<Server>, proof: Proof, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return with(plain(StatusCode::METHOD_NOT_ALLOWED, "messages are sent by POST\n"), header::ALLOW, "POST");
    }
    let compress = accepts_gzip(request.headers());
    let until = Instant::now() + server.options.message_timeout;
    let (bytes, room) = match timeout_at(until, read(server, request, proof.origins(), until)).await {
        Ok(Ok(body)) => body,
        Ok(Err(refusal)) => return refusal,
        // There was no room for it in time.
        Err(_) => return too_slow(),
    };
    server.traffic.messages_in.one();
    server.traffic.bytes_in.add(bytes.len());
    // In a task of its own: a client that hangs up ends this one, and half of what it reported would be lost.
    let answering = tokio::spawn({
        let server = Arc::clone(server);
        async move {
            let _room = room;
            polling::answer(&server, bytes, proof).await
        }
    });
    let (status, out) = match answering.await {
        Ok(Answer::Message(out)) => (StatusCode::OK, out),
        Ok(Answer::Malformed(out)) => (StatusCode::BAD_REQUEST, out),
        Ok(Answer::Impostor) => {
            let words = "this instance_uid belongs to an agent that proved to be somebody else\n";
            return plain(StatusCode::FORBIDDEN, words);
        }
        Ok(Answer::Unproven(denied)) => return unproven(server, &denied),
        Ok(Answer::Unavailable) | Err(_) => return unavailable(),
    };
    server.traffic.messages_out.one();
    server.traffic.bytes_out.add(out.len());
    if out.shared.is_some() {
        server.traffic.offers_out.one();
    }
    let compressed = if compress && out.len() >= SMALLEST_COMPRESSED { gzip(&out.to_vec()) } else { None };
    let mut response = match compressed {
        Some(bytes) => with(Response::new(bytes.into()), header::CONTENT_ENCODING, "gzip"),
        None => Response::new(out.to_vec().into()),
    };
    *response.status_mut() = status;
    with(with(response, header::CONTENT_TYPE, PROTOBUF), header::VARY, "Accept-Encoding")
}

/// The one way to slow agents down that they obey: after a WebSocket that was accepted and closed they come back at once.
fn unavailable() -> Response<Body> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "there is no room for more agents now\n");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(fastrand::u16(30..=60)));
    response
}

/// Reads the body, inflated, within the limits, and holds room for it. `until`: when all of it has to be there.
async fn read(
    server: &Server,
    request: Request<Incoming>,
    origins: Option<Origins>,
    until: Instant,
) -> Result<(Bytes, Option<Room>), Response<Body>> {
    let limit = server.options.rules.limits.message_bytes;
    let is = |coding: &[u8], names: [&str; 2]| names.iter().any(|name| coding.eq_ignore_ascii_case(name.as_bytes()));
    let is_gzip = match request.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None => false,
        Some(coding) if is(coding, ["identity", ""]) => false,
        Some(coding) if is(coding, ["gzip", "x-gzip"]) => true,
        Some(_) => {
            let response = plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "only gzip is understood\n");
            return Err(with(response, header::ACCEPT_ENCODING, "gzip"));
        }
    };
    let total = request.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    if total.is_some_and(|bytes| bytes > limit) {
        return Err(too_large(server));
    }
    // How large it is in the end is not known before that.
    let needed = if is_gzip { limit } else { total.unwrap_or(limit) };
    let (body, mut room) = collect(server, request.into_body(), (total, needed), origins, until).await?;
    if !is_gzip {
        return Ok((body, room));
    }
    if room.is_none() {
        room = server.room_for(needed, origins).await;
    }
    let mut inflated = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(&body[..]).take(limit as u64 + 1);
    match decoder.read_to_end(&mut inflated) {
        Ok(bytes) if bytes > limit => Err(too_large(server)),
        Ok(bytes) => {
            if let Some(room) = &mut room {
                room.keep(bytes);
            }
            Ok((inflated.into(), room))
        }
        Err(_) => Err(plain(StatusCode::BAD_REQUEST, "the body is no gzip\n")),
    }
}

fn too_large(server: &Server) -> Response<Body> {
    server.traffic.oversized.one();
    plain(StatusCode::PAYLOAD_TOO_LARGE, "the message is larger than this server takes\n")
}

/// The body as it comes: the first of it without room, the rest with room for `needed` bytes, and no more slowly than whoever holds room may
/// send. `total`: how many bytes it has, where it says so.
async fn collect(
    server: &Server,
    mut body: Incoming,
    (total, needed): (Option<usize>, usize),
    origins: Option<Origins>,
    until: Instant,
) -> Result<(Bytes, Option<Room>), Response<Body>> {
    let mut collected = Collected::of(total);
    loop {
        let Ok(frame) = timeout_at(collected.slow_at(server.options.pace, until), body.frame()).await else {
            server.traffic.slow.add(usize::from(collected.has_room()));
            return Err(too_slow());
        };
        let Some(frame) = frame else { break };
        let Ok(frame) = frame else { return Err(plain(StatusCode::BAD_REQUEST, "the body was cut off\n")) };
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > server.options.rules.limits.message_bytes - collected.len() {
            return Err(too_large(server));
        }
        collected.take(data, server.room_for(needed, origins)).await;
    }
    Ok(collected.whole())
}

fn too_slow() -> Response<Body> {
    plain(StatusCode::REQUEST_TIMEOUT, "the body came too slowly\n")
}

/// Whether the client takes gzip: named, or meant by `*`, with a weight that is not zero (RFC 9110, 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let (mut named, mut any) = (None, None);
    for coding in lines.flat_map(|line| line.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let wanted = weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0));
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            named = Some(wanted);
        } else if name == "*" {
            any = Some(wanted);
        }
    }
    named.or(any).unwrap_or(false)
}

fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (value, taken) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, *", false),
            ("*", true),
            ("*;q=0", false),
            ("identity", false),
            ("br", false),
            ("gzip;q=much", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(accepts_gzip(&headers), taken, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
