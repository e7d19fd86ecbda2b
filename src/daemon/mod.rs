//! The one loop: an event comes, the controller decides, its actions are performed.
//!
//! Everything around the loop only carries. Tasks of their own: the follower (repository in), the keeper (journal out), the agents'
//! listener, the admin interface, and one for signals. Each talks to the loop through a bounded channel; nothing but the loop
//! touches the controller.

mod alarm;
mod follow;
mod historian;
mod keep;
mod pace;
mod remotes;
mod start;
mod tell;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::alert::watcher::Look;
use crate::clock::Clock;
use crate::controller::record::RecordError;
use crate::controller::{Action, Controller, OrdersKept, Store};
use crate::fleet::snapshot::CommitId;
use crate::forge::outbound::teller::Word;
use crate::serve::admin::AdminRequest;
use crate::serve::api::{Api, ApiError};
use crate::serve::bell::Bell;
use crate::serve::gate::Gate;
use crate::serve::hints::Hints;
use crate::serve::metrics::Metrics;
use crate::serve::tls::{Tls, TlsError};
use crate::serve::{AgentLinks, AgentMessage, Unusable};
use crate::settings::Settings;
use crate::view::command::{Impact, NOT_STORED, Order, OrderRequest, Refusal};
use crate::view::operator::Authors;
use crate::view::{AlertsStatus, FleetStatus, JournalStatus, ListenerStatus};

use follow::{Found, Progress};
use historian::{Asked, Historian, Told};
use keep::{NotStored, Stored};
use tell::Forge;

pub use start::{run, run_until};

/// Events taken together before records are stored and timers looked at.
const BATCH: usize = 512;

/// For an order's record to be stored before it is answered. Whoever asked waits for 15 s at most.
const RECORDING: Duration = Duration::from_secs(6);

/// The loop turns at least so often: whether the process stood still shows in turns that are late, also when nothing was due meanwhile.
const PULSE: Duration = Duration::from_secs(30);

/// From the signal to the end, whatever happens.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A port is taken or not allowed.
    #[error("cannot listen on {address} ({setting})")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Which setting says so.
        setting: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {} (--state-dir)", .path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// TLS cannot be spoken.
    #[error("cannot speak TLS with agents")]
    Tls(#[source] TlsError),
    /// The files of tokens or issuers cannot be used.
    #[error("cannot tell who may speak as an agent")]
    Gate(#[source] Unusable),
    /// Operators cannot be served.
    #[error("cannot serve operators (--api-listen)")]
    Api(#[source] ApiError),
    /// Another daemon uses the state directory.
    #[error("another gitamp runs with the state directory {}: stop it, or give this one its own (--state-dir)", .0.display())]
    Busy(PathBuf),
    /// The repository's address or the mirror cannot be used.
    #[error("cannot follow the repository")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The journal holds records of a newer gitamp.
    #[error("the journal cannot be resumed from")]
    Records(#[source] RecordError),
    /// The admin interface cannot be opened.
    #[error("cannot open the admin interface")]
    Admin(#[source] std::io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// What the loop tells the follower of the last accepted revision; clones tell the same.
#[derive(Clone, Debug, Default)]
struct Known(Arc<Accepted>);

#[derive(Debug, Default)]
struct Accepted {
    policy: ArcSwapOption<Bytes>,
    commit: ArcSwapOption<CommitId>,
}

impl Known {
    fn of(controller: &Controller) -> Self {
        let known = Self::default();
        known.tell(controller);
        known
    }

    fn tell(&self, controller: &Controller) {
        self.0.policy.store(controller.policy().map(Arc::new));
        self.0.commit.store(controller.accepted().map(|info| Arc::new(info.id)));
    }

    /// Its policy, which judges the next one.
    fn policy(&self) -> Option<Arc<Bytes>> {
        self.0.policy.load_full()
    }

    /// Its commit.
    fn accepted(&self) -> Option<CommitId> {
        self.0.commit.load().as_deref().copied()
    }
}

/// The loop with everything it holds.
struct Daemon {
    settings: Arc<Settings>,
    clock: Clock,
    controller: Controller,
    links: AgentLinks,
    metrics: Arc<Metrics>,
    bell: Bell,
    hints: Hints,
    known: Known,
    progress: watch::Receiver<Progress>,
    journal: watch::Receiver<JournalStatus>,
    stores: mpsc::Sender<Store>,
    orders: watch::Sender<OrdersKept>,
    forge: Forge,
    alerts: watch::Receiver<Option<AlertsStatus>>,
    api: Option<Arc<Api>>,
    door: Door,
    historian: Historian,
}

/// What decides who may speak as an agent.
#[derive(Debug)]
struct Door {
    tls: Option<Arc<Tls>>,
    gate: Option<Arc<Gate>>,
}

/// What comes into the loop.
struct Inputs {
    agents: mpsc::Receiver<AgentMessage>,
    found: mpsc::Receiver<Found>,
    stored: mpsc::Receiver<Stored>,
    requests: mpsc::Receiver<AdminRequest>,
    words: mpsc::Receiver<Word>,
    looks: mpsc::Receiver<Look>,
    told: mpsc::Receiver<Told>,
}

/// What one turn of the loop is about.
enum Turn {
    Stored(Stored),
    Found(Found),
    Request(AdminRequest),
    Told(Told),
    Word(Word),
    Look(Look),
    /// So many events are in the batch.
    Agents(usize),
    Time,
}

impl Daemon {
    /// Runs until `stop` is done.
    async fn run(&mut self, inputs: &mut Inputs, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut batch = Vec::with_capacity(BATCH);
        self.perform();
        loop {
            let back_by = self.clock.now() + PULSE;
            let timeout = self.controller.poll_timeout().map_or(back_by, |due| due.min(back_by));
            self.controller.expect_back(back_by);
            let sleep = tokio::time::sleep_until(self.clock.instant(timeout));
            let turn = tokio::select! {
                () = &mut stop => return,
                Some(stored) = inputs.stored.recv() => Turn::Stored(stored),
                Some(found) = inputs.found.recv() => Turn::Found(found),
                Some(request) = inputs.requests.recv() => Turn::Request(request),
                Some(told) = inputs.told.recv() => Turn::Told(told),
                Some(word) = inputs.words.recv() => Turn::Word(word),
                Some(look) = inputs.looks.recv() => Turn::Look(look),
                count = inputs.agents.recv_many(&mut batch, BATCH) => Turn::Agents(count),
                () = sleep => Turn::Time,
            };
            let begun = tokio::time::Instant::now();
            let mut done: Vec<oneshot::Sender<()>> = Vec::new();
            match turn {
                Turn::Stored((ticket, outcome)) => self.stored(ticket, outcome),
                Turn::Found(found) => self.found(found),
                Turn::Request(request) => self.answer(request),
                Turn::Told((asked, authors)) => self.carry_out(asked, &authors),
                Turn::Word(word) => self.forge.heard(word, &mut self.controller),
                Turn::Look(Look(reply)) => {
                    let status = self.controller.unsettled(&self.settings.instance, self.clock.now());
                    // Who looks ends with the process.
                    let _gone = reply.send((self.joined(status), true));
                }
                // Nobody listens for agents any more.
                Turn::Agents(0) => return,
                Turn::Agents(_) => {
                    self.metrics.event_queue(inputs.agents.len());
                    let now = self.clock.now();
                    for message in batch.drain(..) {
                        self.controller.handle_agent(message.event, now);
                        done.extend(message.settled);
                    }
                }
                Turn::Time => {}
            }
            self.controller.handle_timeout(self.clock.now());
            self.perform();
            let kept = self.controller.orders_kept();
            self.orders.send_if_modified(|before| std::mem::replace(before, kept) != kept);
            self.metrics.loop_took(begun.elapsed());
            for waiting in done {
                // Whoever waited may have given up: an HTTP agent waits for a moment only.
                let _gone = waiting.send(());
            }
        }
    }

    fn stored(&mut self, ticket: u64, outcome: Result<(), NotStored>) {
        let now = self.clock.now();
        match outcome {
            Ok(()) => self.controller.handle_stored(ticket, now),
            Err(NotStored { reason, refused }) => {
                self.controller.handle_store_refused(ticket, &refused, &reason, now);
            }
        }
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::Revision(revision, done) => {
                let is_accepted = self.controller.handle_revision(*revision, self.clock.now());
                self.known.tell(&self.controller);
                // The follower is there for as long as the loop is.
                let _gone = done.send(is_accepted);
            }
            Found::Unrelated(info) => {
                tracing::info!(revision = %info.revision(), "nothing below the fleet root changed");
                self.forge.report_unrelated(&info, self.clock.now());
                self.controller.handle_unrelated(info);
                self.known.tell(&self.controller);
            }
        }
    }

    /// Does what the controller wants, in its order.
    fn perform(&mut self) {
        while let Some(action) = self.controller.poll_action() {
            match action {
                Action::Offer { connection, id, config, retry } => {
                    self.metrics.offered();
                    self.links.offer(connection, id, config, retry);
                }
                Action::Restart { connection, id } => self.links.restart(connection, id),
                Action::Withdraw { connection, id } => self.links.withdraw(connection, id),
                Action::Store(store) => {
                    let ticket = store.ticket;
                    // One is under way at most, and the channel has room for it.
                    if self.stores.try_send(store).is_err() {
                        self.controller.handle_store_failed(ticket, self.clock.now());
                    }
                }
                Action::Report(reports) => self.forge.report(reports),
                Action::Notice(notice) => {
                    let group = notice.group.as_ref().map(|group| group.as_str());
                    if notice.is_warning {
                        tracing::warn!(group, "{}", notice.message);
                    } else {
                        tracing::info!(group, "{}", notice.message);
                    }
                }
            }
        }
    }

    fn answer(&mut self, request: AdminRequest) {
        match request {
            AdminRequest::Status(reply) => {
                // Whoever asked may be gone already.
                let _gone = reply.send(self.status());
            }
            AdminRequest::Agents(query, reply) => {
                let _gone = reply.send(self.controller.agents(&query));
            }
            AdminRequest::Explain(prefix, reply) => {
                let _gone = reply.send(self.controller.explain(&prefix, self.clock.now()));
            }
            AdminRequest::Sync { by, reply } => {
                let permitted = by.map_or(Ok(()), |by| self.controller.handle_sync_of(&by, self.clock.now()));
                match permitted {
                    Ok(()) => self.sync(reply),
                    Err(refusal) => {
                        let _gone = reply.send(Err(refusal));
                    }
                }
            }
            AdminRequest::Attempt(kind, line) => self.controller.handle_attempt(kind, line, self.clock.now()),
            AdminRequest::Preview(command, reply) => {
                let _gone = reply.send(self.controller.preview(&command, self.clock.now()));
            }
            AdminRequest::Order { order, by, reply } => {
                let ranges = self.controller.ranges(&order.command, &by);
                let asked = Asked { order, by, reply };
                if ranges.is_empty() {
                    self.carry_out(asked, &Authors::new());
                } else {
                    self.historian.look_up(ranges, asked);
                }
            }
            AdminRequest::Refused { order, by, reply } => {
                let OrderRequest { command, reason, sudo_user: _ } = order;
                let now = self.clock.now();
                let order = Order { command, by: by.by.clone(), at: now, reason };
                let _gone = reply.send(self.controller.handle_refused_of(&order, &by, now));
            }
        }
    }

    /// Carries an order out, when whoever gives it may.
    fn carry_out(&mut self, asked: Asked, authors: &Authors) {
        let Asked { order: OrderRequest { command, reason, sudo_user: _ }, by, reply } = asked;
        let now = self.clock.now();
        let order = Order { command, by: by.by.clone(), at: now, reason };
        let answer = self.controller.handle_order_of(&order, &by, authors, now);
        // A promoted commit brings the policy that the next one is judged by.
        self.known.tell(&self.controller);
        match answer {
            Ok(impact) => self.answer_once_stored(impact, reply),
            Err(refusal) => {
                // Whoever asked may be gone already.
                let _gone = reply.send(Err(refusal));
            }
        }
    }

    fn status(&self) -> FleetStatus {
        self.joined(self.controller.status(&self.settings.instance, self.clock.now()))
    }

    /// What the controller knows, with what the tasks around the loop know.
    fn joined(&self, mut status: FleetStatus) -> FleetStatus {
        status.sync = self.progress.borrow().status.clone();
        status.sync.last_hook = self.hints.last().as_deref().cloned();
        status.journal = self.journal.borrow().clone();
        status.forge = self.forge.status();
        status.listener = self.listener();
        status.alerts = self.alerts.borrow().clone();
        status
    }

    /// Who may speak as an agent.
    fn listener(&self) -> ListenerStatus {
        let of_api = self.api.as_ref().map(|api| api.problems(self.clock.now())).unwrap_or_default();
        let of_api = of_api.into_iter().map(|problem| format!("the operators' listener: {problem}"));
        let state = self.door.tls.as_ref().map(|tls| tls.state(self.clock.now())).unwrap_or_default();
        let proofs = self.settings.proofs.as_ref();
        let kinds = [
            ("certificates", self.door.tls.as_ref().is_some_and(|tls| tls.knows_clients())),
            ("tokens", proofs.is_some_and(|proofs| proofs.tokens.is_some())),
            ("JWTs", proofs.is_some_and(|proofs| proofs.issuers.is_some())),
        ];
        ListenerStatus {
            tls: self.door.tls.is_some(),
            proofs: kinds.iter().filter(|(_, is_asked)| *is_asked).map(|(kind, _)| (*kind).to_owned()).collect(),
            certificate_expires: state.expires,
            problems: state
                .problem
                .into_iter()
                .chain(self.door.gate.as_ref().and_then(|gate| gate.problem()))
                .chain(of_api)
                .collect(),
        }
    }

    /// Answers the newest order when its record is stored, or says that it is not; of one that is in a record which is refused that is known
    /// already.
    fn answer_once_stored(&self, impact: Impact, reply: oneshot::Sender<Result<Impact, Refusal>>) {
        let newest = self.controller.orders_kept().given;
        let mut kept = self.orders.subscribe();
        tokio::spawn(async move {
            let tried = tokio::time::timeout(RECORDING, kept.wait_for(|kept| kept.tried >= newest)).await;
            let is_stored = matches!(tried, Ok(Ok(kept)) if kept.stored >= newest);
            let late = (!is_stored).then(|| NOT_STORED.to_owned());
            // Whoever asked may be gone already.
            let _gone = reply.send(Ok(Impact { unstored: impact.unstored.or(late), ..impact }));
        });
    }

    /// Rings, and answers once an attempt that began after the ring has ended.
    fn sync(&self, reply: start::SyncReply) {
        let mut progress = self.progress.clone();
        let target = progress.borrow().begun + 1;
        self.bell.ring();
        tokio::spawn(async move {
            if let Ok(reached) = progress.wait_for(|progress| progress.ended >= target).await {
                let _gone = reply.send(Ok(reached.status.clone()));
            }
        });
    }
}
