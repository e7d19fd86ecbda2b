//! The admin interface over real sockets, with a daemon that only answers.

use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::view::{AgentCounts, JournalStatus, ListenerStatus};

fn fleet_status() -> FleetStatus {
    FleetStatus {
        instance: "default".to_owned(),
        version: "0".to_owned(),
        now: crate::time::Timestamp::from_millis(0),
        observe: false,
        sync: SyncStatus { revision: None, ..SyncStatus::default() },
        journal: JournalStatus::default(),
        forge: None,
        listener: ListenerStatus::default(),
        alerts: None,
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

/// Whoever froze something may not do so again.
fn carried_out(command: &Command, by: &str) -> Result<Impact, Refusal> {
    if matches!(command, Command::Freeze { .. }) {
        return Err(Refusal::new("it is frozen already: `gitamp unfreeze` first"));
    }
    Ok(Impact { groups: vec!["prod/a".to_owned()], agents: 7, effects: vec![by.to_owned()], unstored: None })
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
                AdminRequest::Explain(prefix, reply) => {
                    let unknown = Err(Refusal::new(format!("no agent's id begins with `{prefix}`")));
                    drop(reply.send(if prefix == "01" { Ok(Explanation::default()) } else { unknown }));
                }
                AdminRequest::Preview(command, reply) => drop(reply.send(carried_out(&command, "somebody"))),
                AdminRequest::Order { order, by, reply } => {
                    assert_eq!(order.reason.as_deref(), Some("the backend is down"), "the reason arrives, cleaned");
                    drop(reply.send(carried_out(&order.command, &by.by)));
                }
                AdminRequest::Refused { order, by, reply } => {
                    drop(reply.send(Refusal::new(format!("{} by {} is recorded", order.command.name(), by.by))));
                }
                AdminRequest::Attempt(kind, line) => panic!("nobody tried anything: {kind:?} {line}"),
                AdminRequest::Sync { by: _, reply } => {
                    drop(reply.send(Ok(SyncStatus { stale: true, ..SyncStatus::default() })));
                }
            }
        }
    });
    Running { address, directory, stop, task }
}

async fn ask<S>(stream: S, method: Method, path: &str, host: &str) -> (StatusCode, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    ask_with(stream, method, path, host, String::new()).await
}

async fn ask_with<S>(stream: S, method: Method, path: &str, host: &str, body: String) -> (StatusCode, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri(path).header("host", host);
    let request = request.body(Full::new(axum::body::Bytes::from(body))).expect("a request");
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
        (Method::POST, "/api/v1/orders", "127.0.0.1", StatusCode::FORBIDDEN, "Unix socket"),
        (Method::POST, "/api/v1/orders/preview", "127.0.0.1", StatusCode::FORBIDDEN, "Unix socket"),
        (Method::POST, "/api/v1/orders/refused", "127.0.0.1", StatusCode::FORBIDDEN, "Unix socket"),
        (Method::GET, "/api/v1/agents/01/explanation", "127.0.0.1", StatusCode::OK, "\"belongs\":[]"),
        (Method::GET, "/api/v1/agents/%2e%2e/explanation", "127.0.0.1", StatusCode::NOT_FOUND, "begins with `..`"),
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

#[tokio::test]
async fn orders_come_over_the_socket_and_name_who_gave_them() {
    let running = start().await;
    let socket = running.directory.path().join("admin.sock");
    let own = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&socket).expect("the socket"));
    let pause = r#"{"command":"pause","group":"prod/a","reason":" the backend\u001fis down "}"#;
    let freeze = r#"{"command":"freeze","reason":"the backend is down"}"#;
    let long = format!(r#"{{"command":"pause","group":"a","reason":"{}"}}"#, "x".repeat(501));
    let huge = format!(r#"{{"command":"pause","group":"{}"}}"#, "x".repeat(20_000));
    let name = format!("uid {own}");
    for (path, body, code, part) in [
        ("/api/v1/orders/preview", pause, StatusCode::OK, r#"{"groups":["prod/a"],"agents":7,"effects":["somebody"]}"#),
        ("/api/v1/orders", pause, StatusCode::OK, name.as_str()),
        ("/api/v1/orders/preview", freeze, StatusCode::CONFLICT, "it is frozen already: `gitamp unfreeze` first"),
        ("/api/v1/orders", freeze, StatusCode::CONFLICT, "it is frozen already"),
        ("/api/v1/orders/refused", freeze, StatusCode::CONFLICT, "is recorded"),
        ("/api/v1/orders/refused", "", StatusCode::BAD_REQUEST, "this is no order"),
        ("/api/v1/orders", "", StatusCode::BAD_REQUEST, "this is no order"),
        ("/api/v1/orders", r#"{"command":"reboot"}"#, StatusCode::BAD_REQUEST, "reboot"),
        ("/api/v1/orders", r#"{"command":"pause"}"#, StatusCode::BAD_REQUEST, "group"),
        ("/api/v1/orders", r#"{"command":"pause","group":"a\u0007"}"#, StatusCode::BAD_REQUEST, "control characters"),
        ("/api/v1/orders", long.as_str(), StatusCode::BAD_REQUEST, "500 characters"),
        ("/api/v1/orders", huge.as_str(), StatusCode::PAYLOAD_TOO_LARGE, "at most 16384 bytes"),
    ] {
        let stream = UnixStream::connect(&socket).await.expect("the socket answers");
        let (status, answer) = ask_with(stream, Method::POST, path, "gitamp", body.to_owned()).await;
        let shown: String = body.chars().take(80).collect();
        assert_eq!(status, code, "{path} {shown}: {answer}");
        assert!(answer.contains(part), "{path} {shown}: {answer}");
    }
    running.stop.send(true).expect("somebody listens");
    running.task.await.expect("a clean end");
}
