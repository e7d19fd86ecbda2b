//! The agents' listener: accepts connections as long as there is room, and ends them all within a bound.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::admin::AdminRequest;
use super::admission::{Admission, NotNow};
use super::arrival::Pace;
use super::gate::{Gate, Proof, Shown};
use super::http;
use super::links::{AgentLinks, Claim, Link, lock};
use super::polling::{self, Polls};
use super::quota::{Allowance, Origin, Origins, Place, Quota};
use super::room::{Room, Rooms, Share};
use super::tls::Tls;
use super::traffic::Traffic;
use crate::agent::{AgentEvent, AgentId, AgentReport, ConnectionId};
use crate::clock::Clock;
use crate::config::ComponentNames;
use crate::identity::Denied;
use crate::labels::Labels;
use crate::opamp::connection::{Connection, Context, Flood, Heard, Rules};
use crate::opamp::wire::WireError;
use crate::opamp::{Digest, Lookup, NameCache, SharedNames};
use crate::time::Timestamp;
use crate::view::operator::Attempt;
use crate::view::text::{clip, plain};

/// An event on its way to the daemon.
#[derive(Debug)]
pub struct AgentMessage {
    /// What happened.
    pub event: AgentEvent,
    /// To be fired, or dropped, when the event was handled and what followed from it was performed: somebody waits for
    /// the offer that may follow.
    pub settled: Option<oneshot::Sender<()>>,
}

/// How agents are served. Every number bounds something that strangers could otherwise make grow.
#[derive(Clone, Debug)]
pub struct AgentServerOptions {
    /// The path, for both transports.
    pub path: String,
    /// Limits of messages and the patience with silent agents.
    pub rules: Rules,
    /// TCP connections at a time. Each takes a file descriptor: see [`AgentServerOptions::connections_for`].
    pub max_connections: usize,
    /// Agents that poll over HTTP; they hold no connection, so the file descriptors do not bound them.
    pub max_polling_agents: usize,
    /// From the accepted connection to the end of the first request's head. Slow handshakes end here.
    pub header_timeout: Duration,
    /// Between two requests on one connection. Longer than a poll interval (30 s), so that agents can keep theirs.
    pub keep_alive: Duration,
    /// For the body of a request, and for a message on a WebSocket once it began.
    pub message_timeout: Duration,
    /// How fast a message has to come that holds room.
    pub pace: Pace,
    /// For the first message after an upgrade, and for the next one after the last agent said goodbye.
    pub first_message_timeout: Duration,
    /// For an agent to take one message. Who reads more slowly than that (1 MiB: 35 KiB/s) is deaf.
    pub write_timeout: Duration,
    /// After this long without a poll an agent is gone: three of the usual 30 s, with slack.
    pub poll_expiry: Duration,
    /// How long an answer over HTTP waits for the verdict on what was reported, so that a config comes with it.
    pub verdict_wait: Duration,
    /// Bytes of messages that are held in memory at a time, over all connections; small messages are not counted.
    pub bytes_in_flight: usize,
    /// New connections and newly polling agents a second, with as many at once; `None`: as many as come. Others are asked to come back
    /// later, so that those who are here are served.
    pub max_rate: Option<u32>,
    /// Connections at a time from one address, and as many agents that poll from there without a token; `None`: as many as there may be
    /// in all.
    pub max_per_address: Option<u32>,
    /// Connections and polling agents at a time with one token; `None`: as many as there may be in all.
    pub max_per_token: Option<u32>,
    /// Agents that one token, or where none is shown one address, may bring in a minute; `None`: as many as come.
    pub max_new_agents: Option<u32>,
    /// For connections to end in order when the server stops.
    pub drain: Duration,
    /// TLS, in which everything on this listener is spoken then.
    pub tls: Option<Arc<Tls>>,
    /// What agents may prove themselves with, besides certificates; `None`: nothing.
    pub gate: Option<Arc<Gate>>,
    /// Where it is told that somebody used the uid of another agent; `None`: in the log alone.
    pub audit: Option<mpsc::Sender<AdminRequest>>,
}

impl Default for AgentServerOptions {
    fn default() -> Self {
        Self {
            path: "/v1/opamp".to_owned(),
            rules: Rules::default(),
            max_connections: 50_000,
            max_polling_agents: 50_000,
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            message_timeout: Duration::from_secs(30),
            pace: Pace::default(),
            first_message_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            poll_expiry: Duration::from_secs(95),
            verdict_wait: Duration::from_millis(200),
            bytes_in_flight: 64 << 20,
            max_rate: Some(10_000),
            max_per_address: Some(40_000),
            max_per_token: Some(100_000),
            max_new_agents: Some(30_000),
            drain: Duration::from_secs(5),
            tls: None,
            gate: None,
            audit: None,
        }
    }
}

impl AgentServerOptions {
    /// How many connections fit into a limit of file descriptors, with 256 left for Git, logs and the admin's listeners.
    pub fn connections_for(file_descriptors: u64) -> usize {
        usize::try_from(file_descriptors.saturating_sub(256)).unwrap_or(usize::MAX).clamp(16, Semaphore::MAX_PERMITS)
    }
}

/// What all connections of the listener share.
pub(super) struct Server {
    pub(super) options: AgentServerOptions,
    pub(super) links: AgentLinks,
    pub(super) polls: Polls,
    pub(super) hooks: Option<Router>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) clock: Clock,
    /// Room for the bytes of larger messages.
    pub(super) room: Arc<Rooms>,
    admission: Admission,
    /// How often something is said that strangers cause.
    warnings: Admission,
    by_address: Arc<Quota>,
    by_token: Arc<Quota>,
    polls_by_address: Arc<Quota>,
    newcomers: Allowance,
    events: mpsc::Sender<AgentMessage>,
    names: Mutex<NameCache>,
}

/// Sets of names that are remembered: a fleet has as many as it has different configurations, times what hosts add.
const MOST_NAMES: usize = 4_096;

impl SharedNames for Server {
    fn find(&self, digest: Digest) -> Option<Arc<ComponentNames>> {
        lock(&self.names).find(digest)
    }

    fn share(&self, digest: Digest, names: ComponentNames) -> Arc<ComponentNames> {
        lock(&self.names).share(digest, names)
    }

    fn look_up(&self, build: Digest, told: Option<ComponentNames>, ask: Option<Timestamp>) -> Lookup {
        lock(&self.names).look_up(build, told, ask)
    }
}

/// The daemon's verdict on a report, to wait for.
pub(super) struct Verdict {
    pub(super) receiver: oneshot::Receiver<()>,
    /// Until it is there, what waits in the slot may be meant for what the agent was before.
    pub(super) is_about_labels: bool,
}

/// The daemon no longer takes events.
#[derive(Debug)]
pub(super) struct NobodyListens;

impl Server {
    /// What a connection needs to handle a message.
    pub(super) fn context(&self) -> Context<'_> {
        let mut fresh = [0; 10];
        fastrand::fill(&mut fresh);
        Context { now: self.clock.now(), rules: &self.options.rules, names: self, fresh }
    }

    /// True when what somebody came in with still counts: these certificates, and this proof.
    pub(super) fn trusts(&self, chain: &[CertificateDer<'static>], proof: &Proof) -> bool {
        // What others dated is judged by the wall clock: this machine may have been suspended.
        let now = self.clock.wall();
        proof.expires.is_none_or(|end| end > now)
            && self.believes(proof)
            && self.options.tls.as_ref().is_none_or(|tls| tls.still_trusts(chain, now))
    }

    /// True when the token of a proof still counts, or there was none.
    pub(super) fn believes(&self, proof: &Proof) -> bool {
        let Some(identity) = &proof.bearer else { return true };
        self.options.gate.as_ref().is_some_and(|gate| gate.still_believes(identity))
    }

    /// True when a certificate that was shown counts by the files about certificates. It is judged anew when they changed.
    pub(super) fn still_counts(&self, shown: &Shown) -> bool {
        let Some(tls) = &self.options.tls else { return true };
        let round = tls.round();
        if !shown.is_revoked.load(Ordering::Relaxed) && shown.round.load(Ordering::Relaxed) != round {
            let is_good = tls.still_trusts(&shown.chain, self.clock.wall());
            shown.is_revoked.fetch_or(!is_good, Ordering::Relaxed);
            shown.round.store(round, Ordering::Relaxed);
        }
        !shown.is_revoked.load(Ordering::Relaxed)
    }

    /// Whether what was proved before still counts.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn still_holds(&self, proof: &Proof) -> Result<(), Denied> {
        match proof.expires.filter(|end| *end <= self.clock.wall()) {
            Some(end) if proof.bearer.is_some() => return Err(Denied::Expired(end)),
            Some(end) => return Err(Denied::Ended(end)),
            None => {}
        }
        if proof.shown.as_ref().is_some_and(|shown| !self.still_counts(shown)) {
            return Err(Denied::Revoked);
        }
        if self.believes(proof) { Ok(()) } else { Err(Denied::Unknown) }
    }

    /// What a request proves.
    ///
    /// # Errors
    /// When what it shows proves nothing, or not any more.
    pub(super) fn prove(&self, headers: &HeaderMap, certified: &Proof) -> Result<Proof, Denied> {
        let now = self.clock.wall();
        self.still_holds(certified)?;
        let proof = match &self.options.gate {
            Some(gate) => gate.judge(headers, certified, now)?,
            None => certified.clone(),
        };
        let is_asked = self.options.gate.is_some() || self.options.tls.as_ref().is_some_and(|tls| tls.knows_clients());
        if is_asked && proof.labels.is_empty() { Err(Denied::Nothing) } else { Ok(proof) }
    }

    /// Takes one message of an agent.
    pub(super) fn hear(&self, connection: &mut Connection, message: Bytes) -> Heard {
        let heard = connection.handle_message(message, &self.context());
        if let Heard::Duplicate(agent) = heard {
            tracing::warn!(%agent, "two agents use one instance_uid in turn; the one that spoke last gets another");
            self.traffic.renamed.one();
        }
        match &heard {
            Heard::Crowded => self.traffic.crowded_connection.one(),
            Heard::Flooded(Flood::Messages) => self.traffic.flooded.one(),
            Heard::Flooded(Flood::Bytes) => self.traffic.flooded_bytes.one(),
            Heard::Refused(WireError::TooLarge { .. }) => self.traffic.oversized.one(),
            Heard::Refused(WireError::Attributes(_)) => self.traffic.too_many_attributes.one(),
            Heard::Refused(WireError::AttributeBytes(_)) => self.traffic.too_long_attributes.one(),
            Heard::From(_) | Heard::Stranger | Heard::Refused(_) | Heard::Duplicate(_) | Heard::NoIdentity => {}
        }
        if let Some((agent, words)) = connection.poll_refused_settings() {
            self.traffic.settings_refused.one();
            tracing::info!(%agent, "the agent could not use the heartbeat interval that it was offered: {words}");
        }
        heard
    }

    /// Hands the connection's events to the daemon, one after the other. While the daemon is behind, this waits, and the
    /// connection reads nothing meanwhile. New agents count as brought by `origins`; `None`: they are counted already. Returns a verdict to wait for, when `is_awaited` says so of an event.
    pub(super) async fn deliver(
        &self,
        connection: &mut Connection,
        link: &Link,
        origins: Option<Origins>,
        is_awaited: fn(&AgentReport) -> bool,
    ) -> Result<Option<Verdict>, NobodyListens> {
        let mut verdict: Option<Verdict> = None;
        while let Some(event) = connection.poll_event() {
            let mut settled = None;
            match &event {
                AgentEvent::Connected { id, connection: place, transport, proofs } => {
                    let now = self.clock.now();
                    if !self.links.has(*id) && !self.admits_newcomer(origins) {
                        connection.handle_flood(*id);
                        continue;
                    }
                    match self.links.claim(*id, *place, *transport, proofs, now) {
                        Claim::Free => {}
                        Claim::From(before) => self.polls.forget(*id, before, &self.traffic),
                        Claim::Impostor => {
                            self.warn_of_impostor(*id, proofs);
                            connection.handle_impostor(*id);
                            continue;
                        }
                        Claim::Contested => {
                            tracing::warn!(agent = %id, "two agents use one instance_uid; the newer one gets another");
                            self.traffic.renamed.one();
                            connection.handle_duplicate(*id, &self.context());
                            continue;
                        }
                    }
                }
                AgentEvent::Report { id, report, .. } => {
                    if report.labels.is_some() {
                        // It was made for what the agent no longer is.
                        link.void(*id);
                    }
                    if is_awaited(report) {
                        let (sender, receiver) = oneshot::channel();
                        settled = Some(sender);
                        verdict = Some(Verdict { receiver, is_about_labels: report.labels.is_some() });
                    }
                }
                AgentEvent::Gone { id, connection, .. } => self.links.release(*id, *connection),
            }
            self.events.send(AgentMessage { event, settled }).await.map_err(|_| NobodyListens)?;
        }
        Ok(verdict)
    }

    /// Finds a place among all connections, and one among those from the same address; who finds none is counted.
    fn find_place(&self, places: &Arc<Semaphore>, address: IpAddr) -> Option<(OwnedSemaphorePermit, Option<Place>)> {
        match (Arc::clone(places).try_acquire_owned(), self.by_address.take(Origin::of(address))) {
            (Ok(place), Ok(of_address)) => return Some((place, Some(of_address))),
            (_, Err(_)) => self.traffic.crowded_address.one(),
            (Err(_), Ok(_)) => self.traffic.crowded.one(),
        }
        self.traffic.turned_away.one();
        None
    }

    /// Finds a place among those with the same token; false: there is none.
    pub(super) fn take_place(&self, proof: &mut Proof) -> bool {
        let Some(Origins { whole, .. }) = proof.origins().filter(|_| proof.bearer.is_some()) else { return true };
        proof.place = self.by_token.take(whole).ok().map(Arc::new);
        if proof.place.is_none() {
            self.traffic.crowded_token.one();
        }
        proof.place.is_some()
    }

    /// Says, in the log and to the journal, that somebody uses the uid of an agent that proved to be somebody else; at most once a second,
    /// because strangers decide how often that is.
    pub(super) fn warn_of_impostor(&self, id: AgentId, proofs: &Labels) {
        self.traffic.gate.impostors.one();
        if !self.warnings.admits(self.clock.now()) {
            return;
        }
        tracing::warn!(
            agent = %id,
            proved = %proofs,
            "an agent is refused: its instance_uid belongs to one that is here and proved to be somebody else"
        );
        if let Some(audit) = &self.options.audit {
            let proved = if proofs.is_empty() { "nothing".to_owned() } else { clip(&plain(&proofs.to_string()), 300) };
            let line = format!("the instance_uid of agent {id} was used by somebody who proved {proved}: refused");
            // While the daemon is behind, the log and the metric tell alone.
            let _full = audit.try_send(AdminRequest::Attempt(Attempt::Identity, line));
        }
    }

    /// Finds a place among those that poll from the same address, for who has none with a token; false: there is none.
    pub(super) fn take_polling_place(&self, proof: &mut Proof) -> bool {
        if proof.place.is_none()
            && let Some(address) = proof.address
        {
            proof.place = self.polls_by_address.take(Origin::of(address)).ok().map(Arc::new);
            if proof.place.is_none() {
                self.traffic.crowded_address.one();
                return false;
            }
        }
        true
    }

    /// True when a connection, or an agent that begins to poll, may come now with this proof; others are counted.
    pub(super) fn admits(&self, proof: &Proof) -> bool {
        let outcome = self.admission.admit(proof.origins(), self.clock.now());
        if let Err(why) = outcome {
            self.traffic.throttled.one();
            self.traffic.throttled_origin.add(usize::from(why == NotNow::Origin));
        }
        outcome.is_ok()
    }

    /// True when these may bring one more, which they did; others are counted.
    pub(super) fn admits_newcomer(&self, origins: Option<Origins>) -> bool {
        let admits = origins.is_none_or(|origins| self.newcomers.admits(origins, self.clock.now()));
        if !admits {
            self.traffic.new_agents_refused.one();
        }
        admits
    }

    /// Room for a message of `bytes` of this origin, once there is some. Held until the message was handled.
    pub(super) async fn room_for(&self, bytes: usize, origins: Option<Origins>) -> Option<Room> {
        let part = origins.map(|origins| origins.part);
        // In a box of its own: most connections never ask.
        Box::pin(self.room.take(part, bytes, &self.traffic.waited_for_room)).await
    }
}

/// Serves agents on `listener` until `stop` says true (or its sender is gone), and then ends all connections within
/// [`AgentServerOptions::drain`]. `clock` is the daemon's. Requests to `/hooks/` go to `hooks`.
///
/// Every change about an agent goes into `events`, which is bounded: a daemon that is behind slows the connections down,
/// never the other way round. Must be called within a tokio runtime.
pub fn serve_agents(
    listener: TcpListener,
    options: AgentServerOptions,
    clock: Clock,
    events: mpsc::Sender<AgentMessage>,
    hooks: Option<Router>,
    traffic: Arc<Traffic>,
    stop: watch::Receiver<bool>,
) -> (AgentLinks, JoinHandle<()>) {
    let links = AgentLinks::default();
    let room = Rooms::new(options.bytes_in_flight, Share::QUARTER);
    let server = Arc::new(Server {
        links: links.clone(),
        polls: Polls::default(),
        hooks,
        traffic,
        clock,
        room,
        admission: Admission::new(options.max_rate),
        warnings: Admission::new(Some(1)),
        by_address: Quota::new(usize::MAX, options.max_per_address),
        by_token: Quota::new(usize::MAX, options.max_per_token),
        polls_by_address: Quota::new(usize::MAX, options.max_per_address),
        newcomers: Allowance::new(options.max_new_agents),
        events,
        names: Mutex::new(NameCache::new(MOST_NAMES)),
        options,
    });
    (links, tokio::spawn(run(listener, server, stop)))
}

/// Has every connection judged anew when the files about tokens or certificates changed, and the sessions of polls, which may take longer.
async fn doubt_when_trust_changes(server: Arc<Server>, polls: Arc<Notify>) {
    let (tls, gate) = (server.options.tls.as_deref(), server.options.gate.as_deref());
    loop {
        tokio::select! {
            () = rung(tls.map(|tls| &tls.trust_changed)) => {}
            () = rung(gate.map(|gate| &gate.changed)) => {}
        }
        server.links.doubt_all();
        polls.notify_one();
    }
}

/// Waits for a bell; for ever where there is none.
async fn rung(bell: Option<&Notify>) {
    match bell {
        Some(bell) => bell.notified().await,
        None => std::future::pending().await,
    }
}

async fn run(listener: TcpListener, server: Arc<Server>, mut stop: watch::Receiver<bool>) {
    let most = u32::try_from(server.options.max_connections.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
    let places = Arc::new(Semaphore::new(most as usize));
    let turning_away = Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE));
    let mut warned = None;
    let mut helpers = vec![tokio::spawn(polling::sweep(Arc::clone(&server)))];
    if let Some(tls) = &server.options.tls {
        helpers.push(tokio::spawn(Arc::clone(tls).watch(server.clock)));
    }
    if let Some(gate) = &server.options.gate {
        helpers.push(tokio::spawn(Arc::clone(gate).watch()));
    }
    let doubted = Arc::new(Notify::new());
    helpers.push(tokio::spawn(doubt_when_trust_changes(Arc::clone(&server), Arc::clone(&doubted))));
    helpers.push(tokio::spawn(polling::end_doubted(Arc::clone(&server), doubted)));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, from)) => {
                server.traffic.accepted.one();
                match server.find_place(&places, from.ip()) {
                    Some(places) => admit(&server, (stream, from.ip()), places),
                    None => {
                        // When even this is too much, the connection is dropped. So it is where a word would need a handshake first.
                        if server.options.tls.is_none()
                            && let Ok(place) = Arc::clone(&turning_away).try_acquire_owned()
                        {
                            tokio::spawn(turn_away(stream, place));
                        }
                    }
                }
            }
            Err(error) => {
                server.traffic.accept_errors.one();
                if !is_of_one_connection(&error) {
                    if warned.is_none_or(|at: Instant| at.elapsed() >= WARN_AGAIN) {
                        warned = Some(Instant::now());
                        tracing::warn!(%error, "cannot accept connections; raise the limit of open files if this stays");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    helpers.iter().for_each(JoinHandle::abort);
    server.links.end_all();
    // All places are free when all connections ended; those that did not within the bound are cut off.
    if tokio::time::timeout(server.options.drain, places.acquire_many(most)).await.is_err() {
        server.links.abort_all();
    }
}

/// Connections that are told that there is no room, at a time.
const TURNED_AWAY_AT_ONCE: usize = 256;

/// After running out of something that may come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Between two warnings of the same trouble.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// True for errors that say nothing about the next connection.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionReset, ConnectionRefused, Interrupted].contains(&error.kind())
}

fn admit(server: &Arc<Server>, (stream, address): (TcpStream, IpAddr), places: (OwnedSemaphorePermit, Option<Place>)) {
    // Messages are written whole, so waiting for more would only delay them. A failure costs a little latency.
    let _delayed = stream.set_nodelay(true);
    let registration = server.links.open();
    let id: ConnectionId = registration.id;
    let task = tokio::spawn(http::serve(Arc::clone(server), stream, address, registration, places));
    server.links.served_by(id, task.abort_handle());
}

/// Answers 503 with a jittered `Retry-After`, as the protocol has it for servers that are full.
async fn turn_away(mut stream: TcpStream, _place: OwnedSemaphorePermit) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let seconds = fastrand::u32(30..=60);
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let told = async {
        // Somebody who is still writing the request would see a reset instead of the answer.
        stream.readable().await?;
        let _request = stream.try_read(&mut [0; 4096]);
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // Whether it was heard makes no difference to this server.
    let _outcome = tokio::time::timeout(PATIENCE, told).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory is what bounds the number of agents, and this is there for each of them, idle or not.
    #[tokio::test]
    async fn the_task_of_a_connection_is_small() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Arc::new(Server {
            links: AgentLinks::default(),
            polls: Polls::default(),
            hooks: None,
            traffic: Arc::new(Traffic::default()),
            clock: Clock::start(),
            room: Rooms::new(1, Share::QUARTER),
            admission: Admission::new(None),
            warnings: Admission::new(Some(1)),
            by_address: Quota::new(usize::MAX, None),
            by_token: Quota::new(usize::MAX, None),
            polls_by_address: Quota::new(usize::MAX, None),
            newcomers: Allowance::new(None),
            events: mpsc::channel(1).0,
            names: Mutex::new(NameCache::new(1)),
            options: AgentServerOptions::default(),
        });
        let at = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(at).await.expect("accepted");
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("one");
        let registration = server.links.open();
        let task = http::serve(Arc::clone(&server), stream, at.ip(), registration, (place, None));
        assert!(size_of_val(&task) <= 2048, "{} bytes for each of 20,000", size_of_val(&task));
    }
}
