//! The admin interface over real sockets, with a daemon that only answers.

use http_body_util::{BodyExt, Empty};
use hyper::Method;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::view::{AgentCounts, JournalStatus};

fn fleet_status() -> FleetStatus {
    FleetStatus {
        instance: "default".to_owned(),
        version: "0".to_owned(),
        now: crate::time::Timestamp::from_millis(0),
        observe: false,
        sync: SyncStatus { revision: None, ..SyncStatus::default() },
        journal: JournalStatus::default(),
        agents: AgentCounts::default(),
        groups: Vec::new(),
        commits: Vec::new(),
        diagnostics: Vec::new(),
    }
}

struct Running {
    address: std::net::SocketAddr,
    directory: tempfile::TempDir,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

async fn start() -> Running {
    let directory = tempfile::tempdir().expect("a directory");
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = tcp.local_addr().expect("an address");
    let (requests, mut asked) = mpsc::channel(4);
    let (stop, stopped) = watch::channel(false);
    let socket = directory.path().join("admin.sock");
    std::fs::write(&socket, "left behind").expect("a stale file");
    let options =
        AdminOptions { tcp: Some(tcp), socket, hosts: vec!["gitamp.example".to_owned()], metrics: Arc::default() };
    let task = spawn(options, requests, stopped).expect("both listeners");
    tokio::spawn(async move {
        while let Some(request) = asked.recv().await {
            match request {
                AdminRequest::Status(reply) => drop(reply.send(fleet_status())),
                AdminRequest::Agents(query, reply) => {
                    let more = query.limit.unwrap_or_default();
                    drop(reply.send(AgentList { agents: Vec::new(), more }));
                }
                AdminRequest::Sync(reply) => drop(reply.send(SyncStatus { stale: true, ..SyncStatus::default() })),
            }
        }
    });
    Running { address, directory, stop, task }
}

async fn ask<S>(stream: S, method: Method, path: &str, host: &str) -> (StatusCode, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri(path).header("host", host);
    let request = request.body(Empty::<axum::body::Bytes>::new()).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn tcp_reads_and_the_socket_commands() {
    let running = start().await;
    let tcp = async |method, path, host: &str| {
        ask(TcpStream::connect(running.address).await.expect("a connection"), method, path, host).await
    };
    for (method, path, host, code, part) in [
        (Method::GET, "/healthz", "127.0.0.1:1", StatusCode::OK, "ok"),
        (Method::GET, "/readyz", "localhost", StatusCode::SERVICE_UNAVAILABLE, "sync: not yet"),
        (Method::GET, "/metrics", "[::1]:4321", StatusCode::OK, "# TYPE gitamp_offers_total counter"),
        (Method::GET, "/api/v1/status", "GITAMP.example", StatusCode::OK, "\"instance\":\"default\""),
        (Method::GET, "/api/v1/groups", "127.0.0.1", StatusCode::OK, "[]"),
        (Method::GET, "/api/v1/agents?limit=7", "127.0.0.1", StatusCode::OK, "\"more\":7"),
        (Method::GET, "/api/v1/agents?limit=many", "127.0.0.1", StatusCode::BAD_REQUEST, ""),
        (Method::GET, "/api/v1/status", "evil.example", StatusCode::MISDIRECTED_REQUEST, "--admin-host"),
        (Method::GET, "/api/v1/status", "", StatusCode::MISDIRECTED_REQUEST, ""),
        (Method::POST, "/api/v1/sync", "127.0.0.1", StatusCode::FORBIDDEN, "Unix socket"),
        (Method::POST, "/api/v1/status", "127.0.0.1", StatusCode::METHOD_NOT_ALLOWED, ""),
        (Method::GET, "/nothing", "127.0.0.1", StatusCode::NOT_FOUND, "/metrics"),
    ] {
        let (status, body) = tcp(method.clone(), path, host).await;
        assert_eq!(status, code, "{method} {path} as {host}: {body}");
        assert!(body.contains(part), "{method} {path} as {host}: {body}");
    }
    let socket = running.directory.path().join("admin.sock");
    let mode = std::fs::metadata(&socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else may command");
    let stream = UnixStream::connect(&socket).await.expect("the socket answers");
    let (status, body) = ask(stream, Method::POST, "/api/v1/sync", "gitamp").await;
    assert_eq!((status, body.contains("\"stale\":true")), (StatusCode::OK, true), "{body}");
    running.stop.send(true).expect("somebody listens");
    running.task.await.expect("a clean end");
    assert!(!socket.exists(), "the socket is taken away");
}
