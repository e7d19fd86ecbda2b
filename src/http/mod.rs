//! One request to somebody else's server and its answer, over a connection of its own: TLS, deadlines, limits, and no redirect to anywhere else.
//!
//! Forges and the receivers of alerts are spoken to through this. Addresses may be secrets: errors name the host, and nothing else of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::settings::Secret;
use crate::settings::proxy::{Proxies, Proxy};
use crate::time::Timestamp;

/// Of the deadline for the whole, until there is a connection, and once more until it is encrypted.
const CONNECT_DEADLINE: Duration = Duration::from_secs(9);

/// Redirects that are followed within one host: forges use them for repositories that were renamed.
const MOST_REDIRECTS: usize = 3;

/// What a proxy may say before it carries bytes.
const LONGEST_PROXY_ANSWER: usize = 8 << 10;

/// The longest that a server may ask to wait: GitHub's limits begin anew every hour.
const LONGEST_PAUSE: Duration = Duration::from_secs(3700);

/// What is sent. It has no `Debug`: the address may be a secret.
#[derive(Clone)]
pub struct Request {
    /// As HTTP spells it: `GET`, `POST`.
    pub method: &'static str,
    /// Where to; http or https.
    pub target: Url,
    /// Headers that anybody may see.
    pub headers: Vec<(&'static str, String)>,
    /// Headers that say who we are.
    pub secrets: Vec<(&'static str, Secret)>,
    /// JSON, when there is a body.
    pub body: Option<Bytes>,
}

/// What was answered, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// How many requests are left (`X-RateLimit-Remaining`, `RateLimit-Remaining`).
    pub remaining: Option<String>,
    /// When there will be more (`X-RateLimit-Reset`, `RateLimit-Reset`): seconds since 1970.
    pub reset: Option<String>,
    /// Where it sends us (`Location`).
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// How long a server asks us to wait; also after an answer that went well, when it was the last one for now.
pub fn pause(answer: &Answer, now: Timestamp) -> Option<Duration> {
    let seconds = |text: &str| text.trim().parse::<u64>().ok().map(Duration::from_secs);
    let date = |text: &str| {
        let parsed = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp().as_millisecond();
        u64::try_from(parsed).ok().map(|at| Timestamp::from_millis(at).since(now))
    };
    let asked = answer.retry_after.as_deref().and_then(|text| seconds(text).or_else(|| date(text)));
    let is_exhausted = answer.remaining.as_deref() == Some("0");
    let reset = answer.reset.as_deref().filter(|_| is_exhausted).and_then(seconds);
    let until_reset = reset.map(|reset| {
        let at = Timestamp::from_millis(u64::try_from(reset.as_millis()).unwrap_or(u64::MAX));
        at.since(now)
    });
    // One second more: the server's clock is not ours.
    asked.or(until_reset).map(|wait| (wait.min(LONGEST_PAUSE) + Duration::from_secs(1)).min(LONGEST_PAUSE))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The certificates to know the server by cannot be read.
    #[error("cannot read the certificates in {}: {reason}", .path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// This machine has no certificates.
    #[error(
        "this machine has no certificates to know other servers by: install ca-certificates, or name a file (--forge-ca-file, `caFile` of a receiver)"
    )]
    NoCertificates,
    /// It cannot be reached: it has heard nothing.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// The host.
        host: String,
        /// Why not.
        reason: String,
    },
    /// It breaks off, or says too much, or something that is no answer. What was asked for may have been done.
    #[error("{host} gave no answer that can be read: {reason}")]
    Broken {
        /// The host.
        host: String,
        /// Why not.
        reason: String,
    },
    /// It takes too long. What was asked for may have been done.
    #[error("{host} did not answer within {deadline:?}")]
    TooSlow {
        /// The host.
        host: String,
        /// How long it had.
        deadline: Duration,
    },
    /// The request cannot be made.
    #[error("no request can be made of this: {0}")]
    Request(String),
}

/// Speaks to servers that it knows by the same certificates.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    knows_anybody: bool,
    deadline: Duration,
    largest_answer: usize,
    proxies: Proxies,
}

impl Client {
    /// Knows servers by the certificates in this file, or by the system's, and gives each request so long, from the first packet to the
    /// last byte of the answer, of which so many bytes are read. What a proxy leads to goes through it. Reads files.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn new(
        ca_file: Option<&Path>,
        deadline: Duration,
        largest_answer: usize,
        proxies: Proxies,
    ) -> Result<Self, ClientError> {
        let mut roots = rustls::RootCertStore::empty();
        match ca_file {
            Some(path) => {
                let unreadable = |reason: String| ClientError::Certificates { path: path.to_owned(), reason };
                let certificates =
                    CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
                    roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(unreadable("there is none in it".to_owned()));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let knows_anybody = !roots.is_empty();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Request(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), knows_anybody, deadline, largest_answer, proxies })
    }

    /// Sends a request, and reads the answer. Redirects within the host are followed, those to another one are an answer: what says who
    /// we are is for this host alone.
    ///
    /// # Errors
    /// When there is no answer, or none in time.
    pub async fn send(&self, request: &Request) -> Result<Answer, ClientError> {
        let mut target = request.target.clone();
        let whole = async {
            for _ in 0..MOST_REDIRECTS {
                let answer = self.send_to(&target, request).await?;
                let next = answer.location.as_deref().filter(|_| [301, 302, 307, 308].contains(&answer.status));
                let within = |next: &Url| next.origin() == request.target.origin();
                match next.and_then(|place| target.join(place).ok()).filter(within) {
                    Some(next) => target = next,
                    None => return Ok(answer),
                }
            }
            self.send_to(&target, request).await
        };
        let (host, deadline) = (host_of(&request.target), self.deadline);
        let answer =
            tokio::time::timeout(deadline, whole).await.unwrap_or(Err(ClientError::TooSlow { host, deadline }));
        answer.map(|answer| request.secrets.iter().fold(answer, |answer, (_, secret)| without(answer, secret)))
    }

    async fn send_to(&self, target: &Url, request: &Request) -> Result<Answer, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable { host: host_of(target), reason };
        let is_encrypted = target.scheme() == "https";
        if is_encrypted && !self.knows_anybody {
            return Err(ClientError::NoCertificates);
        }
        let proxy = self.proxies.to(target);
        let request = on_the_wire(target, request, proxy.filter(|_| !is_encrypted))?;
        let late = |_| unreachable(format!("no connection within {CONNECT_DEADLINE:?}"));
        let tcp = tokio::time::timeout(CONNECT_DEADLINE, connect(target, proxy, is_encrypted));
        let tcp = tcp.await.map_err(late)?.map_err(unreachable)?;
        let response = if is_encrypted {
            let host = target.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host).map_err(|error| ClientError::Request(error.to_string()))?;
            let tls = tokio::time::timeout(CONNECT_DEADLINE, self.tls.connect(name, tcp));
            let tls = tls.await.map_err(late)?.map_err(|error| unreachable(error.to_string()))?;
            exchange(tls, request, self.largest_answer).await
        } else {
            exchange(tcp, request, self.largest_answer).await
        };
        response.map_err(|reason| ClientError::Broken { host: host_of(target), reason })
    }
}

fn host_of(target: &Url) -> String {
    target.host_str().unwrap_or_default().to_owned()
}

/// A connection on which the target hears us, through the proxy when there is one: a tunnel for what will be encrypted, else the proxy's own.
async fn connect(target: &Url, proxy: Option<&Proxy>, is_encrypted: bool) -> Result<TcpStream, String> {
    let host = target.host_str().unwrap_or_default();
    let port = target.port_or_known_default().unwrap_or(443);
    let Some(proxy) = proxy else {
        let direct = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
        return direct.map_err(|error| error.to_string());
    };
    let through = |reason: String| format!("through the proxy {}: {reason}", proxy.host);
    let stream = TcpStream::connect((proxy.host.as_str(), proxy.port)).await;
    let mut stream = stream.map_err(|error| through(error.to_string()))?;
    if is_encrypted {
        tunnel(&mut stream, &format!("{host}:{port}"), proxy).await.map_err(through)?;
    }
    Ok(stream)
}

/// Has a proxy connect us to a host and port, and from then on only carry bytes.
async fn tunnel(stream: &mut TcpStream, target: &str, proxy: &Proxy) -> Result<(), String> {
    let who = proxy
        .authorization
        .as_ref()
        .map_or_else(String::new, |value| format!("Proxy-Authorization: {}\r\n", value.expose()));
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{who}\r\n");
    stream.write_all(head.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= LONGEST_PROXY_ANSWER {
            return Err("its answer has no end".to_owned());
        }
        // What follows the head is the target's: not a byte more may be taken.
        answer.push(stream.read_u8().await.map_err(|error| error.to_string())?);
    }
    let status = answer.split(|byte| *byte == b' ').nth(1).and_then(|word| std::str::from_utf8(word).ok());
    match status.and_then(|word| word.parse::<u16>().ok()) {
        Some(200..=299) => Ok(()),
        Some(407) => Err("it wants to know who we are (407): name a user and a password in HTTPS_PROXY".to_owned()),
        Some(status) => Err(format!("it does not lead there ({status})")),
        None => Err("it does not speak HTTP".to_owned()),
    }
}

/// `proxy`: who has to find the target by the whole address.
fn on_the_wire(
    target: &Url,
    request: &Request,
    proxy: Option<&Proxy>,
) -> Result<hyper::Request<Full<Bytes>>, ClientError> {
    let bad = |error: &dyn std::fmt::Display| ClientError::Request(error.to_string());
    let path = match proxy {
        Some(_) => &target[..url::Position::AfterQuery],
        None => &target[url::Position::BeforePath..url::Position::AfterQuery],
    };
    let host = &target[url::Position::BeforeHost..url::Position::AfterPort];
    let mut built = hyper::Request::builder()
        .method(request.method)
        .uri(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("gitamp/", env!("CARGO_PKG_VERSION")));
    for (name, value) in &request.headers {
        built = built.header(*name, value);
    }
    let for_proxy = proxy.and_then(|proxy| proxy.authorization.clone()).map(|value| ("proxy-authorization", value));
    for (name, value) in request.secrets.iter().chain(&for_proxy) {
        let mut value = HeaderValue::from_str(value.expose()).map_err(|error| bad(&error))?;
        value.set_sensitive(true);
        built = built.header(*name, value);
    }
    if request.body.is_some() {
        built = built.header(CONTENT_TYPE, "application/json");
    }
    built.body(Full::new(request.body.clone().unwrap_or_default())).map_err(|error| bad(&error))
}

/// An answer as it may be shown: a forge that refuses a token may repeat it, whole, or out of a header with user and password.
fn without(mut answer: Answer, header: &Secret) -> Answer {
    if (200..300).contains(&answer.status) {
        return answer;
    }
    let sent = header.expose().rsplit(' ').next().unwrap_or_default();
    let pair = STANDARD.decode(sent).ok().and_then(|pair| String::from_utf8(pair).ok());
    let password = pair.as_deref().and_then(|pair| pair.split_once(':')).map(|(_, password)| password);
    for secret in [Some(sent), password].into_iter().flatten().map(Secret::new) {
        answer.body = secret.hidden_in(&String::from_utf8_lossy(&answer.body)).into();
        answer.location = answer.location.map(|place| secret.hidden_in(&place));
    }
    answer
}

/// One request over a fresh connection.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: hyper::Request<Full<Bytes>>,
    largest_answer: usize,
) -> Result<Answer, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let answered = async move {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        read(response, largest_answer).await
    };
    // The connection moves bytes only while it is polled, and ends with the future: nothing is left behind by a deadline.
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

async fn read(response: Response<hyper::body::Incoming>, largest: usize) -> Result<Answer, String> {
    let (head, body) = response.into_parts();
    let body =
        Limited::new(body, largest).collect().await.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => format!("it says more than {largest} bytes (--max-answer-size)"),
            Err(error) => error.to_string(),
        });
    let body = body?.to_bytes();
    let text = |headers: &HeaderMap, names: &[&str]| {
        let found = names.iter().find_map(|name| headers.get(*name));
        found.and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    Ok(Answer {
        status: head.status.as_u16(),
        retry_after: text(&head.headers, &[RETRY_AFTER.as_str()]),
        remaining: text(&head.headers, &["x-ratelimit-remaining", "ratelimit-remaining"]),
        reset: text(&head.headers, &["x-ratelimit-reset", "ratelimit-reset"]),
        location: text(&head.headers, &[LOCATION.as_str()]),
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests;
