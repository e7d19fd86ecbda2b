//! Webhooks over HTTP: reads a bounded body, lets `forge` judge it, and rings.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Extension, Router};
use http_body_util::{BodyExt, Limited};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::forge::hooks::{Dialect, Refusal, Sender, Verdict, Watched};
use crate::serve::admission::Admission;
use crate::serve::bell::Bell;
use crate::serve::hints::Hints;
use crate::serve::metrics::Metrics;
use crate::serve::plain;
use crate::serve::quota::{Allowance, Origin, Origins};
use crate::serve::yielding::{YieldingPlace, YieldingPlaces};
use crate::settings::{HookLimits, HookSecrets, Secret};
use crate::view::LastHook;

/// To who made way.
const MADE_WAY: &str = "other deliveries came meanwhile, and there are only so many places: try again, and faster";

/// For a whole body to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Deliveries at a time, each until it is answered: what their bodies can take of the memory is bounded.
const AT_ONCE: usize = 16;

/// Of them, those of one address. Whoever sends slowly makes way for who comes: behind a proxy a forge has the address of everybody else.
const AT_ONCE_OF_ADDRESS: usize = 4;

/// What the routes share.
pub struct Hooks {
    /// The file of secrets that deliveries may prove to know; read again for each of them.
    pub secrets: HookSecrets,
    /// What is followed.
    pub watched: Watched,
    /// What rings.
    pub bell: Bell,
    /// Where it is kept what they said.
    pub hints: Hints,
    /// The time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What whoever delivers may take.
    pub limits: HookLimits,
}

struct Shared {
    hooks: Hooks,
    /// The secrets that were read last.
    secrets: ArcSwap<Vec<Secret>>,
    places: Arc<YieldingPlaces>,
    /// Of deliveries that prove nothing.
    paces: Allowance,
    /// How often something is said that strangers cause.
    warnings: Admission,
}

/// One `POST` route for each dialect.
pub fn router(hooks: Hooks) -> Router {
    let secrets = ArcSwap::from_pointee(hooks.secrets.first.clone());
    let shared = Arc::new(Shared {
        secrets,
        places: YieldingPlaces::new(AT_ONCE, AT_ONCE_OF_ADDRESS),
        paces: Allowance::new(hooks.limits.a_minute),
        warnings: Admission::new(Some(1)),
        hooks,
    });
    let routes = Dialect::ALL.into_iter().fold(Router::new(), |router, dialect| {
        router.route(
            dialect.path(),
            post(move |State(shared), origin: Option<Extension<Origin>>, headers, body| async move {
                deliver(shared, dialect, origin.map(|Extension(origin)| origin), headers, body).await
            }),
        )
    });
    routes.with_state(shared)
}

/// Serves the routes on a listener of their own until `stop` says true.
pub async fn serve(listener: TcpListener, router: Router, metrics: Arc<Metrics>, stop: watch::Receiver<bool>) {
    plain::serve_tcp(listener, router, || metrics.traffic().hooks.turned_away.one(), stop).await;
}

impl Shared {
    /// The secrets as the file has them now. While it cannot be read, because it is being replaced, say, those of before hold.
    async fn secrets(&self) -> Arc<Vec<Secret>> {
        let file = self.hooks.secrets.file.clone();
        let reason = match tokio::task::spawn_blocking(move || HookSecrets::read(file)).await {
            Ok(Ok(read)) => {
                self.secrets.store(Arc::new(read.first));
                return self.secrets.load_full();
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if self.may_warn() {
            tracing::warn!("the secrets of the webhooks are those of before: {reason}");
        }
        self.secrets.load_full()
    }

    /// Once a second: strangers decide how often there is something. The metric counts all of them.
    fn may_warn(&self) -> bool {
        self.warnings.admits(self.hooks.clock.now())
    }

    /// False when this origin delivered too much that proves nothing; else one more is counted.
    fn suffers(&self, origin: Option<Origin>) -> bool {
        origin.is_none_or(|origin| self.paces.admits(Origins { whole: origin, part: origin }, self.hooks.clock.now()))
    }

    /// A place for a delivery, until it is answered. Who delivered too much that proves nothing takes none from others.
    fn place(&self, origin: Origin) -> Result<YieldingPlace, (StatusCode, String)> {
        let may_evict = !self.paces.is_used_up(origin, self.hooks.clock.now());
        self.places.take(origin, may_evict).ok_or_else(|| busy("too many deliveries at once: try again"))
    }

    /// Keeps what an authentic delivery was about.
    fn remember(&self, sender: Sender, about: String) {
        let at = self.hooks.clock.now();
        self.hooks.metrics.hook_came(sender.label(), at);
        self.hooks.hints.came(LastHook { at, forge: sender.to_string(), about });
    }

    fn accept(&self, sender: Sender, verdict: Verdict) -> (StatusCode, String) {
        let Hooks { bell, hints, clock, metrics, .. } = &self.hooks;
        match verdict {
            Verdict::Ring(push) => {
                metrics.hook(sender.label(), "ring");
                tracing::info!(forge = sender.label(), "a push to {}: looking at the repository", push.what);
                self.remember(sender, format!("a push to {}", push.what));
                // First what is to be found, then the ring that sends somebody to find it.
                hints.pushed(clock.now(), push.announced);
                bell.ring();
                (StatusCode::ACCEPTED, "looking at the repository\n".to_owned())
            }
            Verdict::Ignored(reason) => {
                metrics.hook(sender.label(), "ignored");
                tracing::debug!(forge = sender.label(), "ignored: {reason}");
                self.remember(sender, format!("ignored: {reason}"));
                (StatusCode::ACCEPTED, format!("ignored: {reason}\n"))
            }
            Verdict::Ping => {
                metrics.hook(sender.label(), "ping");
                self.remember(sender, "a ping".to_owned());
                (StatusCode::OK, "gitamp is here\n".to_owned())
            }
            Verdict::UnsignedPing => {
                metrics.hook(sender.label(), "ping");
                (StatusCode::OK, "gitamp is here; this was not signed, so the secret is untested\n".to_owned())
            }
        }
    }

    fn refuse(&self, sender: Sender, refusal: &Refusal) -> (StatusCode, String) {
        self.hooks.metrics.hook(sender.label(), "refused");
        if self.may_warn() {
            tracing::warn!(forge = sender.label(), "a delivery is refused: {refusal}");
        }
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

async fn deliver(
    shared: Arc<Shared>,
    dialect: Dialect,
    origin: Option<Origin>,
    headers: HeaderMap,
    body: Body,
) -> (StatusCode, String) {
    let sender = dialect.sender(&headers);
    let metrics = &shared.hooks.metrics;
    let paced = || {
        metrics.hook(sender.label(), "paced");
        metrics.traffic().hooks.paced.one();
        let words = "too many deliveries from there prove nothing: try again in a minute\n";
        (StatusCode::TOO_MANY_REQUESTS, words.to_owned())
    };
    let mut place = match origin.map(|origin| shared.place(origin)).transpose() {
        Ok(place) => place,
        Err(refusal) => {
            metrics.hook(sender.label(), "busy");
            return refusal;
        }
    };
    let collected = tokio::select! {
        biased;
        collected = collect(body, shared.hooks.limits.body) => collected,
        refusal = yielded(place.as_mut()) => Err(refusal),
    };
    // Its body is held until it is answered, and so is its place.
    let collected = collected.and_then(|body| match &place {
        Some(place) if !place.keep() => Err(busy(MADE_WAY)),
        Some(_) | None => Ok(body),
    });
    let body = match collected {
        Ok(body) => body,
        // It made way: nobody knows what it would have proved.
        Err(refusal) if refusal.0 == StatusCode::SERVICE_UNAVAILABLE => {
            metrics.hook(sender.label(), "busy");
            return refusal;
        }
        Err(_) if !shared.suffers(origin) => return paced(),
        Err((status, reason)) => {
            metrics.hook(sender.label(), "refused");
            if status == StatusCode::PAYLOAD_TOO_LARGE {
                metrics.traffic().hooks.oversized.one();
            }
            return (status, reason);
        }
    };
    let secrets = shared.secrets().await;
    let outcome = dialect.read(&headers, &body, &secrets, &shared.hooks.watched, shared.hooks.clock.now());
    let proves_nothing = matches!(outcome, Ok(Verdict::UnsignedPing) | Err(Refusal::Signature(_)));
    // Only now it is known whose they are: behind a proxy a forge has the address of everybody who makes up deliveries.
    if proves_nothing && !shared.suffers(origin) {
        return paced();
    }
    match outcome {
        Ok(verdict) => shared.accept(sender, verdict),
        Err(refusal) => shared.refuse(sender, &refusal),
    }
}

/// Waits until the place is lost, and says so.
async fn yielded(place: Option<&mut YieldingPlace>) -> (StatusCode, String) {
    match place {
        Some(place) => place.lost().await,
        None => std::future::pending().await,
    }
    busy(MADE_WAY)
}

fn busy(words: &str) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{words}\n"))
}

async fn collect(body: Body, most: usize) -> Result<Bytes, (StatusCode, String)> {
    match tokio::time::timeout(BODY_TIME, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {most} bytes (--max-hook-size)\n")))
        }
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body did not arrive whole\n".to_owned())),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took longer than 10 s\n".to_owned())),
    }
}

#[cfg(test)]
#[path = "hooks_tests.rs"]
mod tests;
