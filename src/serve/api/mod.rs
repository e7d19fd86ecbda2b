//! The operators' listener: what the admin socket offers, over TLS, to those who prove who they are and as far as their role goes.
//!
//! Bearer tokens alone prove it: no cookie, nothing that a browser sends by itself. A page of some other site gets nothing done here, and
//! requests that say they come from one are refused all the same.

mod known;
mod pace;
mod tokens;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::serve::admin::{self, Admin, AdminRequest};
use crate::serve::links::lock;
use crate::serve::metrics::Metrics;
use crate::serve::orders::{self, Asker};
use crate::serve::places::{NoPlace, Place, Places, network};
use crate::serve::plain;
use crate::serve::socket::Socket;
use crate::serve::tls::{ClientCertificates, Tls, TlsError, TlsLimits};
use crate::serve::traffic::ApiTraffic;
use crate::settings::{ApiLimits, ApiSettings};
use crate::time::Timestamp;
use crate::view::operator::Operator;

use known::Operators;
pub use known::UnusableTokens;
pub use pace::Pace;
use pace::Paces;
use tokens::{Denied, Holder};

/// Networks, and operators, whose pace is remembered at a time.
const MOST_REMEMBERED: usize = 4_096;

/// Where the listener gets what it needs.
#[derive(Debug)]
pub struct ApiOptions {
    /// Its files and rules.
    pub files: ApiSettings,
    /// Host names that requests without TLS may name besides this machine's own.
    pub hosts: Vec<String>,
    /// The daemon's clock.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// What strangers, and operators who do too much, can make this listener work for, in the measures in which it is counted.
#[derive(Clone, Copy, Debug)]
pub struct ApiRules {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time of one address (of IPv6: the first 64 bits).
    pub connections_of_one: usize,
    /// How long a connection lives: as long as a sync may take, and a little.
    pub life: Duration,
    /// Of handshakes, and how often files are looked at.
    pub tls: TlsLimits,
    /// Requests of one operator.
    pub requests: Pace,
    /// Requests of one address that prove nothing. Who sends more is answered late.
    pub failures: Pace,
    /// So late. Whoever has a token that counts is never slowed by others who guess.
    pub delay: Duration,
    /// Bytes of one order.
    pub order_bytes: usize,
}

impl ApiRules {
    /// As settings say it.
    pub fn of(limits: &ApiLimits) -> Self {
        let ApiLimits { connections, per_address, handshakes, handshake_timeout, requests, unproven, body } = *limits;
        Self {
            connections,
            connections_of_one: per_address,
            life: Duration::from_secs(1_200),
            tls: TlsLimits { handshakes, patience: handshake_timeout, ..TlsLimits::default() },
            requests: Pace { burst: requests.saturating_mul(3), every: 1_000 / u64::from(requests.clamp(1, 1_000)) },
            failures: Pace { burst: unproven, every: 60_000 / u64::from(unproven.clamp(1, 60_000)) },
            delay: Duration::from_secs(2),
            order_bytes: body,
        }
    }
}

/// Why operators cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// TLS cannot be spoken.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// Nobody is known.
    #[error("the operators' tokens: {0}")]
    Tokens(#[from] UnusableTokens),
}

/// The listener.
#[derive(Debug)]
pub struct Api {
    tls: Option<Arc<Tls>>,
    operators: Arc<Operators>,
    self_approval: bool,
    hosts: Vec<String>,
    clock: Clock,
    rules: ApiRules,
    places: Arc<Places>,
    /// Of operators, by name.
    requests: Mutex<Paces<String>>,
    /// Of networks.
    failures: Mutex<Paces<IpAddr>>,
    traffic: Arc<ApiTraffic>,
    metrics: Arc<Metrics>,
    orders: mpsc::Sender<AdminRequest>,
}

/// From where a request comes.
#[derive(Clone, Copy, Debug)]
struct Peer(IpAddr);

impl Api {
    /// Reads the files. What is asked goes to `requests`.
    ///
    /// # Errors
    /// When one of the files cannot be used.
    pub fn open(options: ApiOptions, rules: ApiRules, requests: mpsc::Sender<AdminRequest>) -> Result<Self, ApiError> {
        let ApiOptions {
            files: ApiSettings { listen: _, tls, tokens, self_approval, limits: _ },
            hosts,
            clock,
            metrics,
        } = options;
        // Operators prove who they are by tokens; certificates of agents mean nothing here.
        let traffic = Arc::clone(&metrics.traffic().api);
        let open = |files| Tls::open(files, ClientCertificates::Welcome, rules.tls, Arc::clone(&traffic.tls));
        Ok(Self {
            tls: tls.map(open).transpose()?.map(Arc::new),
            operators: Arc::new(Operators::open(tokens)?),
            self_approval,
            hosts,
            clock,
            rules,
            places: Arc::new(Places::new(rules.connections, rules.connections_of_one)),
            requests: Mutex::new(Paces::new(rules.requests, MOST_REMEMBERED)),
            failures: Mutex::new(Paces::new(rules.failures, MOST_REMEMBERED)),
            traffic,
            metrics,
            orders: requests,
        })
    }

    /// What is wrong with its files at this time.
    pub fn problems(&self, now: Timestamp) -> Vec<String> {
        let of_tls = self.tls.as_ref().and_then(|tls| tls.state(now).problem);
        of_tls.into_iter().chain(self.operators.problem()).collect()
    }

    /// Serves operators until `stop` says true.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: watch::Receiver<bool>) {
        let mut watching = tokio::task::JoinSet::new();
        watching.spawn(Arc::clone(&self.operators).watch(self.rules.tls.reload));
        if let Some(tls) = &self.tls {
            watching.spawn(Arc::clone(tls).watch());
        }
        let router = self.router();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(stream, peer, &router, &stop),
                    Err(error) => plain::pause(&error).await,
                },
                () = plain::stopped(&stop) => return,
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, router: &Router, stop: &watch::Receiver<bool>) {
        let peer = network(peer.ip());
        let place = match self.places.take(peer) {
            Ok(place) => place,
            Err(why) => {
                self.traffic.turned_away.one();
                if why == NoPlace::OfAddress {
                    self.traffic.crowded_address.one();
                }
                return;
            }
        };
        let router = router.clone().layer(Extension(Peer(peer)));
        tokio::spawn(Arc::clone(self).converse(stream, place, router, stop.clone()));
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, _place: Place, router: Router, stop: watch::Receiver<bool>) {
        let socket = match &self.tls {
            Some(tls) => tls.accept(stream).await,
            None => Some(Socket::Plain(stream)),
        };
        if let Some(socket) = socket {
            // Whoever is still there then connects anew.
            let _over = tokio::time::timeout(self.rules.life, plain::converse(socket, router, stop)).await;
        }
    }

    fn router(self: &Arc<Self>) -> Router {
        let admin = Admin {
            requests: self.orders.clone(),
            metrics: Arc::clone(&self.metrics),
            hosts: self.hosts.clone(),
            order_bytes: self.rules.order_bytes,
        };
        let sync = |State(admin): State<Arc<Admin>>, Extension(by): Extension<Operator>| async move {
            admin::sync(&admin, Some(by)).await
        };
        let give = |State(admin): State<Arc<Admin>>, Extension(by): Extension<Operator>, request: Request| async move {
            orders::give(&admin, Asker::Operator(by), request).await
        };
        let preview =
            |State(admin): State<Arc<Admin>>, request: Request| async move { orders::preview(&admin, request).await };
        admin::reading_routes()
            .route("/api/v1/sync", post(sync))
            .route("/api/v1/orders", post(give))
            .route("/api/v1/orders/preview", post(preview))
            .layer(middleware::from_fn_with_state(Arc::clone(self), only_operators))
            .with_state(Arc::new(admin))
    }

    /// Who sent this request.
    ///
    /// # Errors
    /// When it is not answered.
    fn judge(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Operator, Turned> {
        let now = self.clock.now();
        if headers.contains_key(header::ORIGIN) {
            return Err(Turned::Page);
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        // Through TLS the client knows by the certificate whom it talks to.
        if self.tls.is_none() && !admin::is_known_host(host, &self.hosts) {
            return Err(Turned::Name);
        }
        let Holder { name, role, email } = match self.operators.judge(headers, now) {
            Ok(holder) => holder,
            Err(denied) => return Err(self.turn_away(denied, peer, now)),
        };
        if !lock(&self.requests).admits(&name, now) {
            self.traffic.paced.one();
            return Err(Turned::Paced);
        }
        self.traffic.answered.one();
        let by = match &email {
            Some(email) => format!("{name} <{email}> (API)"),
            None => format!("{name} (API)"),
        };
        Ok(Operator { by, role, email, approves_own: self.self_approval })
    }

    fn turn_away(&self, denied: Denied, peer: IpAddr, now: Timestamp) -> Turned {
        if !lock(&self.failures).admits(&peer, now) {
            self.traffic.slowed.one();
            return Turned::Slowed;
        }
        self.traffic.unproven.one();
        tracing::warn!(%peer, "a request of an operator was refused: {denied}");
        Turned::Unproven(denied)
    }
}

/// Why a request is not answered.
#[derive(Debug)]
enum Turned {
    /// It comes from a page in a browser.
    Page,
    /// It names somebody else.
    Name,
    /// It proves nothing.
    Unproven(Denied),
    /// So do many from there: this is answered late.
    Slowed,
    /// The operator asks too often.
    Paced,
}

impl Turned {
    /// The answer, after which the connection is closed.
    fn answer(&self, rules: &ApiRules) -> Response {
        let (status, words) = match self {
            Self::Page => (StatusCode::FORBIDDEN, "pages of browsers are not answered here".to_owned()),
            Self::Name => {
                (StatusCode::MISDIRECTED_REQUEST, "this name is not one of the daemon's: see --admin-hosts".to_owned())
            }
            Self::Unproven(denied) => (StatusCode::UNAUTHORIZED, denied.to_string()),
            Self::Slowed => (StatusCode::TOO_MANY_REQUESTS, "too many requests from there prove nothing".to_owned()),
            Self::Paced => (StatusCode::TOO_MANY_REQUESTS, "too many requests: ask less often".to_owned()),
        };
        let mut answer = (status, [(header::CONNECTION, "close")], words + "\n").into_response();
        let headers = answer.headers_mut();
        let later = |pace: Pace| HeaderValue::from(pace.every.div_ceil(1_000));
        match self {
            Self::Unproven(_) => drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::Slowed => drop(headers.insert(header::RETRY_AFTER, later(rules.failures))),
            Self::Paced => drop(headers.insert(header::RETRY_AFTER, later(rules.requests))),
            Self::Page | Self::Name => {}
        }
        answer
    }
}

/// Lets nobody through who proves nothing. Every role may see everything, so what is left to judge is commands.
async fn only_operators(
    State(api): State<Arc<Api>>,
    Extension(Peer(peer)): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    match api.judge(request.headers(), peer) {
        Ok(operator) => {
            request.extensions_mut().insert(operator);
            next.run(request).await
        }
        Err(turned) => {
            if matches!(turned, Turned::Slowed) {
                tokio::time::sleep(api.rules.delay).await;
            }
            turned.answer(&api.rules)
        }
    }
}
