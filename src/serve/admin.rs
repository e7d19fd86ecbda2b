//! The admin interface. The Unix socket in the state directory takes commands, because the operating system says who asks; the TCP
//! listener only reads.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path as Place, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::serve::metrics::{Metrics, classic, wants_open_metrics};
use crate::serve::orders::{self, Asker};
use crate::serve::plain;
use crate::settings::ApiLimits;
use crate::view::command::{Command, Impact, OrderRequest, Refusal};
use crate::view::operator::{Attempt, Operator};
use crate::view::{AgentList, AgentQuery, Explanation, FleetStatus, Phase, SyncStatus};

/// For the daemon to answer a question.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// For a sync to end: as long as a transfer may take, and a little.
const SYNC_PATIENCE: Duration = Duration::from_secs(900);

/// A question or a command for the loop.
#[derive(Debug)]
pub enum AdminRequest {
    /// How is everything?
    Status(oneshot::Sender<FleetStatus>),
    /// Which agents are there?
    Agents(AgentQuery, oneshot::Sender<AgentList>),
    /// Why does the agent with this id, or this beginning of one, have what it has?
    Explain(String, oneshot::Sender<Result<Explanation, Refusal>>),
    /// Look at the repository now; answered when that is done.
    Sync {
        /// Who, when it is somebody who may not everything.
        by: Option<Operator>,
        /// How it went, or why it was not done.
        reply: oneshot::Sender<Result<SyncStatus, Refusal>>,
    },
    /// What would this command do?
    Preview(Command, oneshot::Sender<Result<Impact, Refusal>>),
    /// Do it.
    Order {
        /// What, and why.
        order: OrderRequest,
        /// Who, as the operating system or a token says.
        by: Operator,
        /// What it does.
        reply: oneshot::Sender<Result<Impact, Refusal>>,
    },
    /// Record that it was refused when it was tried, and do nothing else.
    Refused {
        /// What, and why.
        order: OrderRequest,
        /// Who, as the operating system or a token says.
        by: Operator,
        /// Why it is refused.
        reply: oneshot::Sender<Refusal>,
    },
    /// Something to be told in the journal, which nobody waits for.
    Attempt(Attempt, String),
}

/// Where the interface is.
#[derive(Debug)]
pub struct AdminOptions {
    /// The listener that only reads; `None`: there is none.
    pub tcp: Option<TcpListener>,
    /// The socket that takes commands. A stale one is replaced.
    pub socket: PathBuf,
    /// Host names that requests over TCP may name besides this machine's own: a page of some other site that makes a browser
    /// ask us must not get an answer (DNS rebinding).
    pub hosts: Vec<String>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

pub(super) struct Admin {
    pub(super) requests: mpsc::Sender<AdminRequest>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) hosts: Vec<String>,
    /// Bytes of one order.
    pub(super) order_bytes: usize,
}

/// Starts both listeners. The task ends when `stop` says true, and takes the socket away.
pub fn spawn(
    options: AdminOptions,
    requests: mpsc::Sender<AdminRequest>,
    stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    let AdminOptions { tcp, socket, hosts, metrics } = options;
    let unix = bind_socket(&socket)?;
    let order_bytes = ApiLimits::default().body;
    let traffic = metrics.traffic();
    let admin = Arc::new(Admin { requests, metrics, hosts, order_bytes });
    let only_reads =
        (StatusCode::FORBIDDEN, "commands are taken over the Unix socket only: use `gitamp` on the daemon's machine\n");
    let refused = || post(move || async move { only_reads });
    let over_tcp = reading_routes()
        .route("/api/v1/sync", refused())
        .route("/api/v1/orders", refused())
        .route("/api/v1/orders/preview", refused())
        .route("/api/v1/orders/refused", refused())
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), only_known_hosts))
        .with_state(Arc::clone(&admin));
    let over_unix = move |peer: Option<u32>| {
        let sync = move |State(admin): State<Arc<Admin>>| async move {
            tracing::info!(user_id = peer, "sync was asked for");
            sync(&admin, None).await
        };
        let give = move |State(admin): State<Arc<Admin>>, request: Request| async move {
            orders::give(&admin, Asker::Peer(peer), request).await
        };
        let preview =
            |State(admin): State<Arc<Admin>>, request: Request| async move { orders::preview(&admin, request).await };
        let record = move |State(admin): State<Arc<Admin>>, request: Request| async move {
            orders::record(&admin, Asker::Peer(peer), request).await
        };
        reading_routes()
            .route("/api/v1/sync", post(sync))
            .route("/api/v1/orders", post(give))
            .route("/api/v1/orders/preview", post(preview))
            .route("/api/v1/orders/refused", post(record))
            .with_state(Arc::clone(&admin))
    };
    Ok(tokio::spawn(async move {
        let tcp = async {
            if let Some(listener) = tcp {
                plain::serve_tcp(listener, over_tcp, || traffic.admin_turned_away.one(), stop.clone()).await;
            }
        };
        tokio::join!(tcp, plain::serve_unix(unix, over_unix, stop.clone()));
        if let Err(error) = std::fs::remove_file(&socket) {
            tracing::debug!("the admin socket stays: {error}");
        }
    }))
}

fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    // The state directory is locked by now: whoever left this socket is gone.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub(super) fn reading_routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/groups", get(groups))
        .route("/api/v1/rollouts", get(rollouts))
        .route("/api/v1/agents", get(agents))
        .route("/api/v1/agents/{id}/explanation", get(explanation))
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "not here; see /healthz, /readyz, /metrics and /api/v1/status\n")
        })
}

/// A refusal in words.
pub(super) type Refused = (StatusCode, String);

pub(super) async fn ask<T>(
    admin: &Admin,
    question: impl FnOnce(oneshot::Sender<T>) -> AdminRequest,
    patience: Duration,
) -> Result<T, Refused> {
    let busy = || {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the daemon did not answer in time: it is starting, busy or ending\n".to_owned(),
        )
    };
    let (reply, answer) = oneshot::channel();
    let asked = async {
        admin.requests.send(question(reply)).await.map_err(|_| busy())?;
        answer.await.map_err(|_| busy())
    };
    tokio::time::timeout(patience, asked).await.map_err(|_| busy())?
}

async fn status(State(admin): State<Arc<Admin>>) -> Result<Json<FleetStatus>, Refused> {
    ask(&admin, AdminRequest::Status, PATIENCE).await.map(Json)
}

async fn groups(State(admin): State<Arc<Admin>>) -> Result<Response, Refused> {
    let status = ask(&admin, AdminRequest::Status, PATIENCE).await?;
    Ok(Json(status.groups).into_response())
}

/// The groups in which something is going on.
async fn rollouts(State(admin): State<Arc<Admin>>) -> Result<Response, Refused> {
    let mut status = ask(&admin, AdminRequest::Status, PATIENCE).await?;
    status.groups.retain(|group| group.phase != Phase::Steady);
    Ok(Json(status.groups).into_response())
}

async fn agents(State(admin): State<Arc<Admin>>, Query(query): Query<AgentQuery>) -> Result<Json<AgentList>, Refused> {
    ask(&admin, |reply| AdminRequest::Agents(query, reply), PATIENCE).await.map(Json)
}

/// Why an agent has what it has; 404 when nobody is called so, or more than one.
async fn explanation(State(admin): State<Arc<Admin>>, Place(id): Place<String>) -> Result<Json<Explanation>, Refused> {
    let outcome = ask(&admin, |reply| AdminRequest::Explain(id, reply), PATIENCE).await?;
    outcome.map(Json).map_err(|refusal| (StatusCode::NOT_FOUND, format!("{refusal}\n")))
}

pub(super) async fn sync(admin: &Admin, by: Option<Operator>) -> Result<Json<SyncStatus>, Refused> {
    orders::answer(ask(admin, |reply| AdminRequest::Sync { by, reply }, SYNC_PATIENCE).await?)
}

/// Ready means: the repository was read once, so that agents are told what it says.
async fn ready(State(admin): State<Arc<Admin>>) -> Result<Response, Refused> {
    let status = ask(&admin, AdminRequest::Status, PATIENCE).await?;
    let checks = [
        ("sync", status.sync.revision.is_some(), status.sync.error),
        ("journal", status.journal.error.is_none() || status.journal.last_stored.is_some(), status.journal.error),
    ];
    let is_ready = checks.iter().all(|(_, is_good, _)| *is_good);
    let lines: String = checks
        .iter()
        .map(|(name, is_good, error)| {
            let mark = if *is_good { "ok" } else { "not yet" };
            error.as_ref().map_or_else(|| format!("{name}: {mark}\n"), |error| format!("{name}: {mark} ({error})\n"))
        })
        .collect();
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((code, lines).into_response())
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Result<Response, Refused> {
    let status = ask(&admin, AdminRequest::Status, PATIENCE).await?;
    let text = admin.metrics.open_metrics(&status);
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    Ok(if wants_open_metrics(accept) {
        ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
    } else {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], classic(&text)).into_response()
    })
}

/// A browser sends the name that it was led by. Addresses and `localhost` cannot be made to lead here by somebody's DNS.
async fn only_known_hosts(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_known_host(host, &admin.hosts) {
        return next.run(request).await;
    }
    let refused = "this name is not one of the daemon's: ask by address, or name it with --admin-host\n";
    (StatusCode::MISDIRECTED_REQUEST, refused).into_response()
}

pub(super) fn is_known_host(host: &str, known: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || known.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
