//! One request to a forge's API and its answer, over a connection of its own: TLS, deadlines, limits, and no redirect to anywhere else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::forge::outbound::dialect::{Answer, Call, Kind};
use crate::settings::Secret;

/// From the first packet to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// Of that, until there is a connection, and once more until it is encrypted.
const CONNECT_DEADLINE: Duration = Duration::from_secs(9);

/// The largest answer that is read: a page of a hundred comments fits.
const LARGEST_ANSWER: usize = 8 << 20;

/// Redirects that are followed within one host: forges use them for repositories that were renamed.
const MOST_REDIRECTS: usize = 3;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The certificates to know the forge by cannot be read.
    #[error("cannot read the certificates in {}: {reason}", .path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// This machine has no certificates.
    #[error(
        "this machine has no certificates to know the forge by: install ca-certificates, or name a file with --forge-ca-file"
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
    #[error("{host} did not answer within {DEADLINE:?}")]
    TooSlow {
        /// The host.
        host: String,
    },
    /// The request cannot be made.
    #[error("no request can be made of this: {0}")]
    Request(String),
}

/// Speaks to one forge.
#[derive(Clone)]
pub struct Client {
    kind: Kind,
    api: Url,
    tls: TlsConnector,
}

impl Client {
    /// For the API at this address, known by the certificates in this file, or by the system's. Reads files.
    ///
    /// # Errors
    /// When there are no certificates.
    pub fn new(kind: Kind, api: Url, ca_file: Option<&Path>) -> Result<Self, ClientError> {
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
                if roots.is_empty() && api.scheme() == "https" {
                    return Err(ClientError::NoCertificates);
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Request(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { kind, api, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Sends a request with this header that says who we are, and reads the answer. Redirects within the host are followed, those to
    /// another one are an answer: the header is for this host alone.
    ///
    /// # Errors
    /// When there is no answer, or none in time.
    pub async fn send(&self, call: &Call, who: &(&'static str, Secret)) -> Result<Answer, ClientError> {
        let mut target = self.target(call)?;
        let whole = async {
            for _ in 0..MOST_REDIRECTS {
                let answer = self.send_to(&target, call, who).await?;
                let next = answer.location.as_deref().filter(|_| [301, 302, 307, 308].contains(&answer.status));
                match next.and_then(|place| target.join(place).ok()).filter(|next| next.origin() == self.api.origin()) {
                    Some(next) => target = next,
                    None => return Ok(answer),
                }
            }
            self.send_to(&target, call, who).await
        };
        let host = || self.host();
        tokio::time::timeout(DEADLINE, whole).await.unwrap_or_else(|_| Err(ClientError::TooSlow { host: host() }))
    }

    fn host(&self) -> String {
        self.api.host_str().unwrap_or_default().to_owned()
    }

    fn target(&self, call: &Call) -> Result<Url, ClientError> {
        let whole = format!("{}/{}", self.api.as_str().trim_end_matches('/'), call.path);
        Url::parse(&whole).map_err(|error| ClientError::Request(error.to_string()))
    }

    async fn send_to(&self, target: &Url, call: &Call, who: &(&'static str, Secret)) -> Result<Answer, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable { host: self.host(), reason };
        let request = self.request(target, call, who)?;
        let host = target.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = target.port_or_known_default().unwrap_or(443);
        let late = |_| unreachable(format!("no connection within {CONNECT_DEADLINE:?}"));
        let tcp = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect((host.as_str(), port)));
        let tcp = tcp.await.map_err(late)?.map_err(|error| unreachable(error.to_string()))?;
        let response = if target.scheme() == "https" {
            let name = ServerName::try_from(host).map_err(|error| ClientError::Request(error.to_string()))?;
            let tls = tokio::time::timeout(CONNECT_DEADLINE, self.tls.connect(name, tcp));
            let tls = tls.await.map_err(late)?.map_err(|error| unreachable(error.to_string()))?;
            exchange(tls, request).await
        } else {
            exchange(tcp, request).await
        };
        response.map_err(|reason| ClientError::Broken { host: self.host(), reason })
    }

    fn request(
        &self,
        target: &Url,
        call: &Call,
        (name, value): &(&'static str, Secret),
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let bad = |error: &dyn std::fmt::Display| ClientError::Request(error.to_string());
        let path = &target[url::Position::BeforePath..url::Position::AfterQuery];
        let host = &target[url::Position::BeforeHost..url::Position::AfterPort];
        let mut value = HeaderValue::from_str(value.expose()).map_err(|error| bad(&error))?;
        value.set_sensitive(true);
        let mut request = Request::builder()
            .method(call.method.name())
            .uri(path)
            .header(HOST, host)
            .header(*name, value)
            .header(USER_AGENT, concat!("gitamp/", env!("CARGO_PKG_VERSION")));
        request = match self.kind {
            Kind::GitHub => {
                request.header(ACCEPT, "application/vnd.github+json").header("x-github-api-version", "2022-11-28")
            }
            Kind::GitLab | Kind::Gitea | Kind::Bitbucket => request.header(ACCEPT, "application/json"),
        };
        let body = match &call.body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request.body(Full::new(body)).map_err(|error| bad(&error))
    }
}

/// One request over a fresh connection.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let answered = async move {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        read(response).await
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

async fn read(response: Response<hyper::body::Incoming>) -> Result<Answer, String> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| error.to_string())?.to_bytes();
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
