//! Asks a daemon, over its Unix socket or over its operators' listener, with a deadline and a limit on every answer.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Builder;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::Failure;
use super::api_server::{Server, ServerError, Stream};
use crate::serve::orders::user_name;
use crate::settings::layers::Text;
use crate::settings::{ADMIN_SOCKET, ClientVariables, SecretFile, ServeArgs, state_dir_of_daemon};

/// The longest answer: a status of 10,000 groups, or 100,000 agents with their labels, is some tens of MiB.
const LARGEST_ANSWER: usize = 64 << 20;

/// Characters of a refusal that are shown.
const LONGEST_REFUSAL: usize = 500;

/// For connecting, and for an answer that the daemon has at hand: it gives up itself after 5 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// For a sync to end: the daemon gives up itself after 15 min.
pub(super) const SYNC_PATIENCE: Duration = Duration::from_secs(930);

/// Which daemon is asked.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct DaemonPlace {
    /// The daemon's state directory, with its admin socket [env: GITAMP_STATE_DIR]
    /// [default: the settings file's, else ~/.local/state/gitamp, else /var/lib/gitamp]
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<Text>,
    /// The daemon's settings file, which may name its state directory [default: /etc/gitamp/gitamp.yaml, when there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A daemon on another machine instead: its operators' listener, like https://gitamp.example.com:4323 [env: GITAMP_SERVER]
    #[arg(long, value_name = "URL", conflicts_with_all = ["state_dir", "config"])]
    server: Option<String>,
    /// The file with your token for it, which nobody else may read [env: GITAMP_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The certificates that it is known by [env: GITAMP_CA_FILE] [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl DaemonPlace {
    /// The daemon on another machine, if that is meant. Flags win over the environment: who names a state directory means that.
    fn server(&self) -> Result<Option<Server>, ServerError> {
        let is_here = self.state_dir.is_some() || self.config.is_some();
        let variables = if is_here { ClientVariables::default() } else { ClientVariables::read() };
        let Some(url) = self.server.clone().or(variables.server) else { return Ok(None) };
        let token = self.token_file.clone().or(variables.token_file).ok_or(ServerError::NoToken)?;
        let authorities = self.ca_file.clone().or(variables.ca_file);
        Server::new(&url, &SecretFile::new(token), authorities.as_deref()).map(Some)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    /// Nobody listens.
    #[error("no gitamp daemon answers at {}: start one with `gitamp serve`, or name its --state-dir", .0.display())]
    Nobody(PathBuf),
    /// The socket is somebody else's.
    #[error("permission denied at {}: it belongs to {owner}: run this as that user or as root", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// The server cannot be reached, or is not whom its certificate has to name.
    #[error("cannot reach the daemon at {place}")]
    Unreachable {
        /// Its address.
        place: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("the daemon at {place} took longer than {seconds} s to answer: see its log")]
    TooSlow {
        /// Where it was asked.
        place: String,
        /// The deadline.
        seconds: u64,
    },
    /// It said no, in its own words.
    #[error("the daemon refuses ({status}): {message}")]
    Refused {
        /// Its code.
        status: StatusCode,
        /// Its words, clean.
        message: String,
    },
    /// The answer is cut off, too long or not HTTP.
    #[error("the daemon at {place} gave no whole answer")]
    Broken {
        /// Where it was asked.
        place: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is something else than this version knows.
    #[error("the daemon's answer is not understood: is it of another version than this gitamp ({})?", env!("CARGO_PKG_VERSION"))]
    Foreign(#[source] serde_json::Error),
}

impl AdminError {
    /// True when the daemon never heard what it was asked.
    pub(super) const fn is_unheard(&self) -> bool {
        match self {
            Self::Nobody(_) | Self::Denied { .. } | Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => {
                matches!(
                    *status,
                    StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS | StatusCode::MISDIRECTED_REQUEST
                )
            }
            Self::TooSlow { .. } | Self::Broken { .. } | Self::Foreign(_) => false,
        }
    }
}

/// A way to the daemon; each question is a connection of its own.
#[derive(Clone, Debug)]
pub(super) struct AdminClient {
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    /// The Unix socket in its state directory.
    Socket(PathBuf),
    /// Its operators' listener.
    Server(Arc<Server>),
}

impl AdminClient {
    /// The client of the daemon that these arguments, the environment and the settings file lead to.
    pub(super) fn of(place: &DaemonPlace) -> Result<Self, Failure> {
        if let Some(server) = place.server()? {
            return Ok(Self { way: Way::Server(Arc::new(server)) });
        }
        let args =
            ServeArgs { state_dir: place.state_dir.clone(), config: place.config.clone(), ..ServeArgs::default() };
        Ok(Self { way: Way::Socket(state_dir_of_daemon(&args)?.join(ADMIN_SOCKET)) })
    }

    /// Reads what is at `target` (`/api/v1/status`).
    pub(super) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, AdminError> {
        self.ask(Method::GET, target, Bytes::new(), PATIENCE).await
    }

    /// Gives the command `target`, and waits for it to end.
    pub(super) async fn command<T: DeserializeOwned>(&self, target: &str) -> Result<T, AdminError> {
        self.ask(Method::POST, target, Bytes::new(), SYNC_PATIENCE).await
    }

    /// Sends `body` to `target`, as JSON.
    pub(super) async fn send<T: DeserializeOwned>(&self, target: &str, body: &impl Serialize) -> Result<T, AdminError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.ask(Method::POST, target, body.into(), PATIENCE).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, AdminError> {
        let (status, body) = tokio::time::timeout(patience, self.exchange(method, target, body))
            .await
            .map_err(|_| AdminError::TooSlow { place: self.place(), seconds: patience.as_secs() })??;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            let message = super::screen::clean_short(text.trim(), LONGEST_REFUSAL);
            return Err(AdminError::Refused { status, message });
        }
        serde_json::from_slice(&body).map_err(AdminError::Foreign)
    }

    async fn exchange(&self, method: Method, target: &str, body: Bytes) -> Result<(StatusCode, Bytes), AdminError> {
        let request = Request::builder().method(method).uri(target).header(header::CONNECTION, "close");
        match &self.way {
            Way::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| unreachable(path, error))?;
                self.converse(stream, request.header(header::HOST, "localhost"), body).await
            }
            Way::Server(server) => {
                let request =
                    request.header(header::HOST, server.authority()).header(header::AUTHORIZATION, server.bearer());
                let reached = server.connect().await;
                match reached.map_err(|source| AdminError::Unreachable { place: self.place(), source })? {
                    Stream::Plain(stream) => self.converse(stream, request, body).await,
                    Stream::Secure(stream) => self.converse(stream, request, body).await,
                }
            }
        }
    }

    async fn converse<S>(&self, stream: S, request: Builder, body: Bytes) -> Result<(StatusCode, Bytes), AdminError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        let request = request.body(Full::new(body)).map_err(|error| self.broken(error))?;
        // It reads and writes until the sender is dropped; an error of it reaches the request as well.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        Ok((status, body.map_err(|error| self.broken(error))?.to_bytes()))
    }

    /// Where the daemon is asked.
    fn place(&self) -> String {
        match &self.way {
            Way::Socket(path) => path.display().to_string(),
            Way::Server(server) => server.to_string(),
        }
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AdminError {
        AdminError::Broken { place: self.place(), source: source.into() }
    }
}

fn unreachable(socket: &Path, error: io::Error) -> AdminError {
    // A socket that a killed daemon left refuses; without a daemon there is none, or not even its directory.
    let is_nobody = matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    );
    if is_nobody {
        AdminError::Nobody(socket.to_owned())
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        AdminError::Denied { path: socket.to_owned(), owner: owner_of(socket) }
    } else {
        AdminError::Unreachable { place: socket.display().to_string(), source: error }
    }
}

/// Who owns the socket, or the innermost of its directories that may be looked at.
fn owner_of(path: &Path) -> String {
    let owner = path.ancestors().find_map(|one| one.metadata().ok()).map(|metadata| metadata.uid());
    let Some(uid) = owner else { return "its owner".to_owned() };
    match user_name(uid) {
        Some(name) => format!("`{name}`"),
        None => format!("the user with the id {uid}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// A daemon that answers one request with these bytes; the task ends with the request it got.
    pub(in crate::cli) fn daemon(directory: &Path, answer: Vec<u8>) -> (AdminClient, tokio::task::JoinHandle<String>) {
        let socket = directory.join(ADMIN_SOCKET);
        let listener = UnixListener::bind(&socket).expect("a socket");
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a request"));
            }
            // A client that has heard enough hangs up.
            let _gone = stream.write_all(&answer).await;
            String::from_utf8(request).expect("a request in text")
        });
        (AdminClient { way: Way::Socket(socket) }, task)
    }

    /// An answer as the daemon gives it.
    pub(in crate::cli) fn answer(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn questions_and_commands_are_answered() {
        let directory = tempfile::tempdir().expect("a directory");
        let (client, request) = daemon(directory.path(), answer("200 OK", "[1,2]"));
        assert_eq!(client.get::<Vec<u32>>("/api/v1/agents?id=a").await.expect("an answer"), [1, 2]);
        let request = request.await.expect("a request");
        assert!(request.starts_with("GET /api/v1/agents?id=a HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("host: localhost\r\n"), "{request}");

        let directory = tempfile::tempdir().expect("a directory");
        let (client, request) = daemon(directory.path(), answer("200 OK", "7"));
        assert_eq!(client.command::<u32>("/api/v1/sync").await.expect("an answer"), 7);
        assert!(request.await.expect("a request").starts_with("POST /api/v1/sync HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn bad_answers_are_told_apart() {
        let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", LARGEST_ANSWER + 1);
        for (bytes, words) in [
            (answer("503 Service Unavailable", "busy\u{1b}[2J\n"), "(503 Service Unavailable): busy\\u{1b}[2J"),
            (answer("200 OK", "{\"a\":1}"), "another version"),
            (answer("200 OK", "[1,"), "not understood"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[1".to_vec(), "no whole answer"),
            (b"SSH-2.0-x\r\n\r\n".to_vec(), "no whole answer"),
            (Vec::new(), "no whole answer"),
            ([endless.into_bytes(), vec![b' '; LARGEST_ANSWER + 1]].concat(), "no whole answer"),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let (client, _request) = daemon(directory.path(), bytes);
            let error = client.get::<Vec<u32>>("/").await.expect_err(words).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[tokio::test]
    async fn without_a_daemon_the_error_says_what_to_do() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = DaemonPlace {
            state_dir: Some(Text(directory.path().to_str().expect("UTF-8").to_owned())),
            ..DaemonPlace::default()
        };
        let client = AdminClient::of(&place).expect("a client");
        let socket = directory.path().join(ADMIN_SOCKET);
        let wanted = format!(
            "no gitamp daemon answers at {}: start one with `gitamp serve`, or name its --state-dir",
            socket.display()
        );
        let error = |client: AdminClient| async move { client.get::<u32>("/").await.expect_err("nobody").to_string() };
        assert_eq!(error(client.clone()).await, wanted, "no socket");
        drop(UnixListener::bind(&socket).expect("a socket"));
        assert_eq!(error(client.clone()).await, wanted, "a socket that a dead daemon left");
        let nowhere = AdminClient { way: Way::Socket(directory.path().join("missing/admin.sock")) };
        assert!(error(nowhere).await.contains("no gitamp daemon answers"));

        let denied = unreachable(&socket, io::Error::from(io::ErrorKind::PermissionDenied)).to_string();
        assert!(denied.starts_with("permission denied at ") && denied.contains("it belongs to "), "{denied}");
    }
}
