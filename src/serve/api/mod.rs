//! The operators' listener: what the admin socket offers, over TLS, to those who prove who they are and as far as their role goes.
//!
//! Bearer tokens alone prove it: no cookie, nothing that a browser sends by itself. A page of some other site gets nothing done here, and
//! requests that say they come from one are refused all the same.

mod holder;
mod pace;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::identity::Denied;
use crate::serve::admin::{self, Admin, AdminRequest};
use crate::serve::gate::Gate;
use crate::serve::links::lock;
use crate::serve::metrics::Metrics;
use crate::serve::orders::{self, Asker};
use crate::serve::plain;
use crate::serve::quota::{NoPlace, Origin, Place, Quota, network};
use crate::serve::socket::Socket;
use crate::serve::tls::{ClientCertificates, Tls, TlsError, TlsLimits};
use crate::serve::traffic::{ApiTraffic, GateTraffic};
use crate::serve::unusable::Unusable;
use crate::settings::{ApiLimits, ApiSettings};
use crate::time::Timestamp;
use crate::view::operator::{Attempt, Operator};

use holder::{Holder, OPERATORS, shown};
pub use pace::Pace;
use pace::Paces;

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
    /// What lets agents in; who has such a token is no operator.
    pub agents: Option<Arc<Gate>>,
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
            requests: Pace { burst: requests.saturating_mul(3), back: requests, within: 1_000 },
            failures: Pace { burst: unproven, back: unproven, within: 60_000 },
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
    #[error("it cannot be told who operators are")]
    Proofs(#[source] Unusable),
}

/// The listener.
#[derive(Debug)]
pub struct Api {
    tls: Option<Arc<Tls>>,
    operators: Arc<Gate>,
    agents: Option<Arc<Gate>>,
    self_approval: bool,
    hosts: Vec<String>,
    clock: Clock,
    rules: ApiRules,
    places: Arc<Quota>,
    /// Of operators, by what tells them apart.
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
            files: ApiSettings { listen: _, tls, proofs, self_approval, limits: _ },
            hosts,
            clock,
            metrics,
            agents,
        } = options;
        let operators = Gate::open(proofs, OPERATORS, rules.tls.reload, Arc::new(GateTraffic::default()));
        // Operators prove who they are by tokens; certificates of agents mean nothing here.
        let traffic = Arc::clone(&metrics.traffic().api);
        let open = |files| Tls::open(files, ClientCertificates::Welcome, rules.tls, Arc::clone(&traffic.tls));
        Ok(Self {
            tls: tls.map(open).transpose()?.map(Arc::new),
            operators: Arc::new(operators.map_err(ApiError::Proofs)?),
            agents,
            self_approval,
            hosts,
            clock,
            rules,
            places: Quota::new(rules.connections, Some(u32::try_from(rules.connections_of_one).unwrap_or(u32::MAX))),
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
        watching.spawn(Arc::clone(&self.operators).watch());
        if let Some(tls) = &self.tls {
            watching.spawn(Arc::clone(tls).watch(self.clock));
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
        let place = match self.places.take(Origin::of(peer)) {
            Ok(place) => place,
            Err(why) => {
                self.traffic.turned_away.one();
                match why {
                    NoPlace::OfAll => self.traffic.crowded.one(),
                    NoPlace::OfOrigin => self.traffic.crowded_address.one(),
                }
                return;
            }
        };
        let router = router.clone().layer(Extension(Peer(peer)));
        tokio::spawn(Arc::clone(self).converse((stream, peer), place, router, stop.clone()));
    }

    async fn converse(
        self: Arc<Self>,
        (stream, peer): (TcpStream, IpAddr),
        _place: Place,
        router: Router,
        stop: watch::Receiver<bool>,
    ) {
        let socket = match &self.tls {
            Some(tls) => tls.accept(stream, peer).await,
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
        let record = |State(admin): State<Arc<Admin>>, Extension(by): Extension<Operator>, request: Request| async move {
            orders::record(&admin, Asker::Operator(by), request).await
        };
        admin::reading_routes()
            .route("/api/v1/sync", post(sync))
            .route("/api/v1/orders", post(give))
            .route("/api/v1/orders/preview", post(preview))
            .route("/api/v1/orders/refused", post(record))
            .layer(middleware::from_fn_with_state(Arc::clone(self), only_operators))
            .with_state(Arc::new(admin))
    }

    /// Who sent this request.
    ///
    /// # Errors
    /// When it is not answered.
    fn judge(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Operator, Turned> {
        let now = self.clock.now();
        let turn_away = |turned| Err(self.turn_away(turned, peer, now));
        if headers.contains_key(header::ORIGIN) {
            return turn_away(Turned::Page);
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        // Through TLS the client knows by the certificate whom it talks to.
        if self.tls.is_none() && !admin::is_known_host(host, &self.hosts) {
            return turn_away(Turned::Name);
        }
        // Tokens are dated by others.
        let Holder { key, by, role, email } = match self.identify(headers, self.clock.wall()) {
            Ok(holder) => holder,
            Err(denied) => return turn_away(Turned::Unproven(denied)),
        };
        if !lock(&self.requests).admits(&key, now) {
            self.traffic.paced.one();
            return Err(Turned::Paced(by));
        }
        self.traffic.answered.one();
        Ok(Operator { by, role, email, approves_own: self.self_approval })
    }

    fn identify(&self, headers: &HeaderMap, now: Timestamp) -> Result<Holder, Denied> {
        let identity = self.operators.bearer(headers, now)?.ok_or(Denied::Nothing)?;
        // Whatever the files say: a token that is on every machine of a fleet commands nothing.
        if self.agents.as_ref().is_some_and(|agents| matches!(agents.bearer(headers, now), Ok(Some(_)))) {
            return Err(Denied::Agent);
        }
        Holder::of(&identity).ok_or(Denied::Unknown)
    }

    fn turn_away(&self, turned: Turned, peer: IpAddr, now: Timestamp) -> Turned {
        if !lock(&self.failures).admits(&peer, now) {
            self.traffic.slowed.one();
            return Turned::Slowed;
        }
        self.traffic.unproven.one();
        tracing::warn!(%peer, "a request of an operator was refused: {}", turned.words());
        turned
    }

    /// Has the journal tell of a command that was not even read. Whoever floods this listener is slowed before, and nobody waits for it.
    fn tell_of(&self, turned: &Turned, command: &str, peer: IpAddr) {
        let who = match turned {
            Turned::Slowed => return,
            Turned::Paced(by) if lock(&self.failures).admits(&peer, self.clock.now()) => by.clone(),
            Turned::Paced(_) => return,
            Turned::Page | Turned::Name | Turned::Unproven(_) => format!("somebody at {peer}"),
        };
        let line = format!("{command} by {who}: refused: {}", turned.words());
        // Without room the daemon has other troubles, and the log has it.
        let _full = self.orders.try_send(AdminRequest::Attempt(Attempt::Command, line));
    }
}

/// What a request would command, when it is one that does.
fn command_of(request: &Request) -> Option<&'static str> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/api/v1/sync") => Some("sync"),
        // Who gives one has it previewed first: what is refused there would be told nowhere.
        (&Method::POST, "/api/v1/orders" | "/api/v1/orders/preview" | "/api/v1/orders/refused") => Some("an order"),
        (_, _) => None,
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
    /// The operator of this name asks too often.
    Paced(String),
}

impl Turned {
    /// For whoever asked.
    fn words(&self) -> String {
        match self {
            Self::Page => "pages of browsers are not answered here".to_owned(),
            Self::Name => "this name is not one of the daemon's: see --admin-hosts".to_owned(),
            // The name of its holder is whatever somebody called himself.
            Self::Unproven(Denied::Role(name)) => Denied::Role(shown(name)).to_string(),
            Self::Unproven(denied) => denied.to_string(),
            Self::Slowed => "too many requests from there prove nothing".to_owned(),
            Self::Paced(_) => "too many requests: ask less often".to_owned(),
        }
    }

    /// The answer, after which the connection is closed.
    fn answer(&self, rules: &ApiRules) -> Response {
        let status = match self {
            Self::Page | Self::Unproven(Denied::Role(_) | Denied::Agent) => StatusCode::FORBIDDEN,
            Self::Name => StatusCode::MISDIRECTED_REQUEST,
            Self::Unproven(_) => StatusCode::UNAUTHORIZED,
            Self::Slowed | Self::Paced(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        let mut answer = (status, [(header::CONNECTION, "close")], self.words() + "\n").into_response();
        let headers = answer.headers_mut();
        let later = |pace: Pace| HeaderValue::from(pace.seconds_for_one());
        match self {
            Self::Unproven(_) => drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::Slowed => drop(headers.insert(header::RETRY_AFTER, later(rules.failures))),
            Self::Paced(_) => drop(headers.insert(header::RETRY_AFTER, later(rules.requests))),
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
            if let Some(command) = command_of(&request) {
                api.tell_of(&turned, command, peer);
            }
            turned.answer(&api.rules)
        }
    }
}
