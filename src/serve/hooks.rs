//! Webhooks over HTTP: reads a bounded body, lets `forge` judge it, and rings.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use http_body_util::{BodyExt, Limited};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::forge::{self, Refusal, Verdict, Watched};
use crate::serve::bell::Bell;
use crate::serve::metrics::Metrics;
use crate::serve::plain;
use crate::settings::Secret;

/// For a whole body to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Deliveries that are read at a time: what their bodies can take of the memory is bounded.
const AT_ONCE: usize = 16;

/// Reads a delivery of one kind of sender.
type Read = fn(&HeaderMap, &[u8], &[Secret], &Watched) -> Result<Verdict, Refusal>;

/// What the routes share.
pub struct Hooks {
    /// The secrets that deliveries may be signed with; at least one.
    pub secrets: Vec<Secret>,
    /// What is followed.
    pub watched: Watched,
    /// What rings.
    pub bell: Bell,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

struct Shared {
    hooks: Hooks,
    places: tokio::sync::Semaphore,
}

/// `POST /hooks/github` and `POST /hooks/generic`.
pub fn router(hooks: Hooks) -> Router {
    let shared = Arc::new(Shared { hooks, places: tokio::sync::Semaphore::new(AT_ONCE) });
    let github = |State(shared), headers, body| deliver(shared, "github", forge::github::read, headers, body);
    let generic = |State(shared), headers, body| deliver(shared, "generic", forge::generic::read, headers, body);
    Router::new().route("/hooks/github", post(github)).route("/hooks/generic", post(generic)).with_state(shared)
}

/// Serves the routes on a listener of their own until `stop` says true.
pub async fn serve(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) {
    plain::serve_tcp(listener, router, stop).await;
}

async fn deliver(
    shared: Arc<Shared>,
    forge: &'static str,
    read: Read,
    headers: HeaderMap,
    body: Body,
) -> (StatusCode, String) {
    let Hooks { secrets, watched, bell, metrics } = &shared.hooks;
    let Ok(_place) = shared.places.try_acquire() else {
        metrics.hook(forge, "busy");
        return (StatusCode::SERVICE_UNAVAILABLE, "too many deliveries at once: try again\n".to_owned());
    };
    let body = match collect(body).await {
        Ok(body) => body,
        Err((status, reason)) => {
            metrics.hook(forge, "refused");
            return (status, reason.to_owned());
        }
    };
    match read(&headers, &body, secrets, watched) {
        Ok(Verdict::Ring(reference)) => {
            metrics.hook(forge, "ring");
            tracing::info!(forge, "a push to {reference}: looking at the repository");
            bell.ring();
            (StatusCode::ACCEPTED, "looking at the repository\n".to_owned())
        }
        Ok(Verdict::Ignored(reason)) => {
            metrics.hook(forge, "ignored");
            tracing::debug!(forge, "ignored: {reason}");
            (StatusCode::ACCEPTED, format!("ignored: {reason}\n"))
        }
        Ok(Verdict::Ping) => {
            metrics.hook(forge, "ping");
            (StatusCode::OK, "gitamp is here\n".to_owned())
        }
        Err(refusal) => {
            metrics.hook(forge, "refused");
            tracing::warn!(forge, "a delivery is refused: {refusal}");
            let status = match refusal {
                // What exactly does not fit is for the log alone.
                Refusal::Signature(_) => {
                    return (StatusCode::UNAUTHORIZED, "the signature is missing or wrong\n".to_owned());
                }
                Refusal::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Refusal::Header(_) | Refusal::Body(_) => StatusCode::BAD_REQUEST,
            };
            (status, format!("{refusal}\n"))
        }
    }
}

async fn collect(body: Body) -> Result<Bytes, (StatusCode, &'static str)> {
    match tokio::time::timeout(BODY_TIME, Limited::new(body, forge::LARGEST_DELIVERY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, "the body has more than 1 MiB\n"))
        }
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body did not arrive whole\n")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took longer than 10 s\n")),
    }
}

#[cfg(test)]
#[path = "hooks_tests.rs"]
mod tests;
