//! From settings to a running daemon, and in good order back out of it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::alert::watcher::Look;
use crate::clock::Clock;
use crate::controller::{Controller, Options};
use crate::daemon::alarm::Alarm;
use crate::daemon::follow::{Before, Follower, Progress};
use crate::daemon::historian::Historian;
use crate::daemon::keep::{Keeper, told};
use crate::daemon::pace::Pace;
use crate::daemon::remotes::{journal_options, source_options};
use crate::daemon::tell::Forge;
use crate::daemon::verify::Verifier;
use crate::daemon::{DRAIN, Daemon, DaemonError, Door, Inputs, Known};
use crate::forge::hooks::Watched;
use crate::git::backoff::Backoff;
use crate::git::journal::{Journal, JournalContents, JournalOptions};
use crate::git::mirror::Mirror;
use crate::git::{self, SourceOptions, lock, transport};
use crate::opamp::connection::Rules;
use crate::opamp::wire::Limits;
use crate::serve::admin::{self, AdminOptions, AdminRequest};
use crate::serve::api::{Api, ApiOptions, ApiRules};
use crate::serve::bell::Bell;
use crate::serve::gate::{Gate, Whose};
use crate::serve::hints::Hints;
use crate::serve::hooks::Hooks;
use crate::serve::metrics::Metrics;
use crate::serve::tls::{ClientCertificates, Tls, TlsLimits};
use crate::serve::{self, AgentServerOptions};
use crate::settings::{AgentLimits, RepoKind, Settings};
use crate::view::command::Refusal;
use crate::view::operator::Role;
use crate::view::{AgentList, FleetStatus, JournalStatus, SyncStatus};

/// Agents' events between the listener and the loop. A fleet that reconnects at once fills it; connections then wait.
const AGENT_QUEUE: usize = 4_096;

/// Questions and commands that may wait for the loop.
const ADMIN_QUEUE: usize = 64;

/// How long an address that is in use is waited for.
const LISTEN_PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries.
const LISTEN_PAUSE: Duration = Duration::from_millis(100);

/// Runs until SIGTERM or SIGINT. SIGHUP rings the bell.
pub async fn run(settings: Settings) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: ending"),
            _ = interrupt.recv() => tracing::info!("SIGINT: ending"),
        }
    };
    run_until(settings, stop).await
}

/// Runs until `stop` is done, then ends within five seconds.
pub async fn run_until(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let lock = lock::take(&settings.state_dir, "lock")
        .await
        .map_err(|source| DaemonError::State { path: settings.state_dir.clone(), source })?
        .ok_or_else(|| DaemonError::Busy(settings.state_dir.clone()))?;
    if let Err(error) = transport::clear_scratch(&settings.state_dir) {
        tracing::warn!("what earlier transfers left behind cannot be removed: {error}");
    }
    let (stopping, stopped) = watch::channel(false);
    let local_only = !settings.push;
    let base = Base {
        settings: Arc::new(settings),
        clock: Clock::start(),
        metrics: Arc::default(),
        bell: Bell::default(),
        journal: watch::Sender::new(JournalStatus { local_only, ..JournalStatus::default() }),
        stopped,
    };
    let source = source_options(&base.settings)?;
    let journal = journal_options(&base.settings, &source)?;
    let (tls, gate) = (base.open_tls()?, base.open_gate()?);
    let (requests_in, mut requests) = mpsc::channel(ADMIN_QUEUE);
    let audit = Some(requests_in.clone());
    let options = AgentServerOptions { tls, gate, audit, ..server_options(&base.settings) };
    let agents = listen(base.settings.listen, "--listen").await?;
    let api = base.start_api(requests_in.clone(), options.gate.clone()).await?;
    let admin = base.start_admin(requests_in).await?;
    tracing::info!(
        repository = %base.settings.repo,
        instance = %base.settings.instance,
        observe = base.settings.observe,
        agents = %base.settings.listen,
        state = %base.settings.state_dir.display(),
        "starting"
    );
    let mut alarm = Alarm::start(&base.settings, base.clock, &base.metrics);
    tokio::pin!(stop);
    let mut questions = Questions { requests: &mut requests, alarm: &mut alarm };
    let opened = tokio::select! {
        opened = base.open_journal(&journal, &mut questions) => Some(opened),
        () = &mut stop => None,
    };
    if let Some((journal, contents, syncs)) = opened {
        let (mut daemon, mut inputs, tasks) =
            base.start(source, journal, contents, (agents, options, api), requests, alarm).await?;
        for reply in syncs {
            daemon.sync(reply);
        }
        notify_systemd(&[sd_notify::NotifyState::Ready]);
        daemon.run(&mut inputs, stop).await;
        notify_systemd(&[sd_notify::NotifyState::Stopping]);
        let _nobody_listens = stopping.send(true);
        drop((daemon, inputs));
        tasks.end(admin).await;
    }
    tracing::info!("ended");
    drop(lock);
    Ok(())
}

/// Whoever asked for a sync before there was anything to sync with.
type Syncs = Vec<SyncReply>;

/// Whoever waits for a sync.
pub(super) type SyncReply = oneshot::Sender<Result<SyncStatus, Refusal>>;

/// What is asked while the daemon starts.
struct Questions<'a> {
    requests: &'a mut mpsc::Receiver<AdminRequest>,
    alarm: &'a mut Alarm,
}

/// What all tasks share.
struct Base {
    settings: Arc<Settings>,
    clock: Clock,
    metrics: Arc<Metrics>,
    bell: Bell,
    journal: watch::Sender<JournalStatus>,
    stopped: watch::Receiver<bool>,
}

/// The tasks around the loop.
struct Tasks {
    /// They end when they are told to; nothing is lost.
    aborted: Vec<JoinHandle<()>>,
    /// Ends when the loop is gone and everything is stored.
    storing: JoinHandle<()>,
    server: JoinHandle<()>,
    keeper: Keeper,
    pushes: bool,
    _watcher: Option<git::watch::Watcher>,
}

impl Tasks {
    /// Ends everything in order: what was to be stored is stored, then the remote gets it, if it answers in time.
    async fn end(self, admin: JoinHandle<()>) {
        for task in &self.aborted {
            task.abort();
        }
        let drained = async {
            let _ended = self.storing.await;
            if self.pushes
                && let Err(setback) = self.keeper.push_once().await
            {
                tracing::warn!("the last records stay here for now: {}", setback.message);
            }
            let _ended = tokio::join!(self.server, admin);
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("not everything ended within {DRAIN:?}; what is stored is safe");
        }
    }
}

impl Base {
    /// TLS for the agents' port, if it speaks that.
    fn open_tls(&self) -> Result<Option<Arc<Tls>>, DaemonError> {
        let Some(files) = self.settings.tls.clone() else { return Ok(None) };
        // Forges have no certificate of ours, and agents with a token need none.
        let has_hooks = self.settings.hooks.as_ref().is_some_and(|hooks| hooks.listen.is_none());
        let clients = if has_hooks || self.settings.proofs.is_some() {
            ClientCertificates::Welcome
        } else {
            ClientCertificates::Demanded
        };
        let limits = TlsLimits {
            handshakes: self.settings.max_handshakes,
            patience: self.settings.handshake_timeout,
            ..TlsLimits::default()
        };
        let traffic = Arc::clone(&self.metrics.traffic().tls);
        Tls::open(files, clients, limits, traffic).map(Arc::new).map(Some).map_err(DaemonError::Tls)
    }

    /// Tokens and issuers, if agents may prove themselves with any.
    fn open_gate(&self) -> Result<Option<Arc<Gate>>, DaemonError> {
        let Some(files) = self.settings.proofs.clone() else { return Ok(None) };
        let traffic = Arc::clone(&self.metrics.traffic().gate);
        let gate = Gate::open(files, Whose::AGENTS, TlsLimits::default().reload, traffic);
        gate.map(Arc::new).map(Some).map_err(DaemonError::Gate)
    }

    /// The operators' listener, if there is one. It ends by itself when this stops.
    async fn start_api(
        &self,
        requests: mpsc::Sender<AdminRequest>,
        agents: Option<Arc<Gate>>,
    ) -> Result<Option<Arc<Api>>, DaemonError> {
        let Some(settings) = &self.settings.api else { return Ok(None) };
        let options = ApiOptions {
            files: settings.clone(),
            hosts: self.settings.admin_hosts.clone(),
            clock: self.clock,
            metrics: Arc::clone(&self.metrics),
            agents,
        };
        let api =
            Api::open(options, ApiRules::of(&settings.limits), requests).map(Arc::new).map_err(DaemonError::Api)?;
        let listener = listen(settings.listen, "--api-listen").await?;
        tokio::spawn(Arc::clone(&api).serve(listener, self.stopped.clone()));
        Ok(Some(api))
    }

    async fn start_admin(&self, requests: mpsc::Sender<AdminRequest>) -> Result<JoinHandle<()>, DaemonError> {
        let tcp = match self.settings.admin_listen {
            Some(address) => Some(listen(address, "--admin-listen").await?),
            None => None,
        };
        let options = AdminOptions {
            tcp,
            socket: self.settings.admin_socket(),
            metrics: Arc::clone(&self.metrics),
            hosts: self.settings.admin_hosts.clone(),
        };
        admin::spawn(options, requests, self.stopped.clone()).map_err(DaemonError::Admin)
    }

    /// Starts the tasks, with the loop ready to be run among them.
    async fn start(
        self,
        source: SourceOptions,
        journal: Journal,
        contents: JournalContents,
        (listener, options, api): (TcpListener, AgentServerOptions, Option<Arc<Api>>),
        requests: mpsc::Receiver<AdminRequest>,
        Alarm { looks, status: alerts, tasks: mut aborted }: Alarm,
    ) -> Result<(Daemon, Inputs, Tasks), DaemonError> {
        let Self { settings, clock, metrics, bell, journal: journal_status, stopped } = self;
        let mut controller = restore(&settings, &contents, clock)?;
        let (events_in, agents) = mpsc::channel(AGENT_QUEUE);
        let (hints, known) = (Hints::default(), Known::of(&controller));
        let hooks = serve_hooks(&settings, &bell, &hints, clock, &metrics, &stopped).await?;
        let door = Door { tls: options.tls.clone(), gate: options.gate.clone() };
        let (links, server) =
            serve::serve_agents(listener, options, clock, events_in, hooks, metrics.traffic(), stopped);
        let progress = watch::Sender::new(Progress::of(settings.repo.to_string()));
        let (found_in, found) = mpsc::channel(1);
        let (forge, words, teller) = Forge::new(&settings, &source, clock, &metrics, &mut controller);
        let mirror = Mirror::open(source).await.map_err(|error| DaemonError::Source(Box::new(error)))?;
        let (historian, told) = Historian::new(mirror.history());
        let follower = Follower {
            mirror,
            pace: Pace::new(settings.interval, settings.hooks.as_ref().and_then(|hooks| hooks.interval)),
            bell: bell.clone(),
            hints: hints.clone(),
            known: known.clone(),
            verifier: Verifier::new(settings.verify.clone()),
            before: Before::default(),
            found: found_in,
            progress: progress.clone(),
            clock,
            metrics: Arc::clone(&metrics),
            limits: git::snapshot_limits(&settings.content),
        };
        let keeper = Keeper {
            journal: Arc::new(journal),
            status: journal_status.clone(),
            stored: Arc::default(),
            clock,
            metrics: Arc::clone(&metrics),
        };
        let ((stores, store_requests), (answers, stored)) = (mpsc::channel(1), mpsc::channel(1));
        aborted.extend(follow(follower, &bell));
        aborted.extend(settings.push.then(|| tokio::spawn(keeper.clone().push())));
        aborted.extend(teller.map(|teller| tokio::spawn(teller.run())));
        let tasks = Tasks {
            aborted,
            storing: tokio::spawn(keeper.clone().store(store_requests, answers)),
            server,
            keeper,
            pushes: settings.push,
            _watcher: watch_repository(&settings, &bell),
        };
        let (progress, journal) = (progress.subscribe(), journal_status.subscribe());
        let daemon = Daemon {
            settings,
            clock,
            controller,
            links,
            metrics,
            bell,
            hints,
            known,
            progress,
            journal,
            stores,
            orders: watch::Sender::default(),
            forge,
            alerts,
            door,
            api,
            historian,
        };
        Ok((daemon, Inputs { agents, found, stored, requests, words, looks, told }, tasks))
    }

    /// Opens the journal. A process with an empty disk must hear from the remote what its predecessor did before it may do
    /// anything, so this waits for as long as it takes; questions are answered meanwhile.
    async fn open_journal(
        &self,
        options: &JournalOptions,
        questions: &mut Questions<'_>,
    ) -> (Journal, JournalContents, Syncs) {
        let mut backoff = Backoff::default();
        let mut syncs = Syncs::new();
        loop {
            let opened = Journal::open(options.clone());
            let error = match self.answering(opened, questions, &mut syncs).await {
                Ok((journal, contents)) => return (journal, contents, syncs),
                Err(error) => error,
            };
            let pause = backoff.failed(error.class(), fastrand::f64());
            let error = told(&error);
            tracing::warn!(retry_in = ?pause, "the journal cannot be read, nothing is offered before it is: {error}");
            self.journal.send_modify(|status| status.error = Some(format!("cannot be read: {error}")));
            for reply in syncs.drain(..) {
                let _gone = reply.send(Ok(self.early_sync()));
            }
            let pause = async {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.bell.wait() => {}
                }
            };
            self.answering(pause, questions, &mut syncs).await;
        }
    }

    /// Waits for `work`, and answers questions meanwhile.
    async fn answering<T>(&self, work: impl Future<Output = T>, questions: &mut Questions<'_>, syncs: &mut Syncs) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(request) = questions.requests.recv() => self.answer_early(request, syncs, questions.alarm),
                Some(Look(reply)) = questions.alarm.looks.recv() => {
                    // Who looks ends with the process.
                    let _gone = reply.send((self.early_status(questions.alarm), false));
                }
            }
        }
    }

    /// How following goes while it cannot begin.
    fn early_sync(&self) -> SyncStatus {
        let error = self.journal.borrow().error.clone().map(|error| format!("the journal {error}"));
        SyncStatus { repository: self.settings.repo.to_string(), error, stale: true, ..SyncStatus::default() }
    }

    fn early_status(&self, alarm: &Alarm) -> FleetStatus {
        let options = Options { observe: self.settings.observe, forget_after: self.settings.forget_after };
        FleetStatus {
            sync: self.early_sync(),
            journal: self.journal.borrow().clone(),
            alerts: alarm.status.borrow().clone(),
            ..Controller::new(options).status(&self.settings.instance, self.clock.now())
        }
    }

    fn answer_early(&self, request: AdminRequest, syncs: &mut Syncs, alarm: &Alarm) {
        // Whoever asked may be gone already.
        match request {
            AdminRequest::Status(reply) => {
                let _gone = reply.send(self.early_status(alarm));
            }
            AdminRequest::Agents(_, reply) => {
                let _gone = reply.send(AgentList::default());
            }
            AdminRequest::Sync { by, reply } => match by {
                // Nothing can be written down yet: whoever may not is refused all the same.
                Some(by) if by.role < Role::Operate => {
                    let _gone = reply.send(Err(Refusal::forbidden(format!("{} may not ask for a sync", by.by))));
                }
                Some(_) | None => {
                    syncs.push(reply);
                    self.bell.ring();
                }
            },
            // Before the journal was read nobody knows what an order would be about: whoever asked is told that this is starting.
            AdminRequest::Explain(_, _)
            | AdminRequest::Preview(_, _)
            | AdminRequest::Order { .. }
            | AdminRequest::Refused { .. }
            | AdminRequest::Attempt(_, _) => {}
        }
    }
}

/// What follows the repository, and what rings for it and tells that it runs.
fn follow(follower: Follower, bell: &Bell) -> [JoinHandle<()>; 3] {
    [tokio::spawn(follower.run()), tokio::spawn(ring_on_hangup(bell.clone())), tokio::spawn(feed_watchdog())]
}

/// The controller that goes on where the journal says the last one was.
fn restore(settings: &Settings, contents: &JournalContents, clock: Clock) -> Result<Controller, DaemonError> {
    let options = Options { observe: settings.observe, forget_after: settings.forget_after };
    let (controller, problems) =
        Controller::restore(options, &contents.state, clock.now()).map_err(DaemonError::Records)?;
    for problem in problems {
        tracing::error!("the journal holds something that cannot be used: state/{problem}");
    }
    Ok(controller)
}

/// Listens there. The lock says that no other daemon runs on this state, but one that was killed may still be about to close its thousands
/// of connections, with its listener among them: an address in use is waited for.
async fn listen(address: SocketAddr, setting: &'static str) -> Result<TcpListener, DaemonError> {
    let until = tokio::time::Instant::now() + LISTEN_PATIENCE;
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse && tokio::time::Instant::now() < until => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%address, "{setting} is in use: waiting for up to {LISTEN_PATIENCE:?} for whoever has it to end");
                }
                tokio::time::sleep(LISTEN_PAUSE).await;
            }
            Err(source) => return Err(DaemonError::Listen { address, setting, source }),
        }
    }
}

fn server_options(settings: &Settings) -> AgentServerOptions {
    let defaults = AgentServerOptions::default();
    let files = rlimit::Resource::NOFILE.get_soft().unwrap_or(1024);
    let possible = AgentServerOptions::connections_for(files);
    let AgentLimits {
        per_address,
        per_token,
        polling,
        new_agents,
        per_connection,
        messages,
        bytes,
        attributes,
        attribute_bytes,
        in_flight,
    } = settings.limits;
    let message_bytes = settings.max_message_bytes;
    let limits = Limits { message_bytes, attributes, attribute_bytes, ..defaults.rules.limits };
    let rules = Rules {
        limits,
        most_agents: per_connection,
        most_messages: messages,
        most_bytes: bytes as u64,
        ..defaults.rules
    };
    // Over HTTP the interval is that of the polls: three may be missed, and the connection is kept for the next one.
    let interval = settings.heartbeat_interval.unwrap_or_default();
    AgentServerOptions {
        path: settings.opamp_path.clone(),
        rules: rules.offering_heartbeat(interval),
        poll_expiry: defaults.poll_expiry.max(interval * 3 + Duration::from_secs(5)),
        keep_alive: defaults.keep_alive.max(interval + Duration::from_secs(15)),
        max_rate: settings.max_connection_rate,
        max_per_address: per_address,
        max_per_token: per_token,
        max_polling_agents: polling,
        max_new_agents: new_agents,
        bytes_in_flight: in_flight,
        max_connections: settings.max_connections.map_or(possible, |most| most.min(possible)),
        ..defaults
    }
}

/// The hooks' routes: on the agents' port, unless they have a listener of their own.
async fn serve_hooks(
    settings: &Settings,
    bell: &Bell,
    hints: &Hints,
    clock: Clock,
    metrics: &Arc<Metrics>,
    stopped: &watch::Receiver<bool>,
) -> Result<Option<axum::Router>, DaemonError> {
    let Some(hooks) = &settings.hooks else { return Ok(None) };
    let router = serve::hooks::router(Hooks {
        secrets: hooks.secrets.clone(),
        watched: Watched::of(settings),
        bell: bell.clone(),
        hints: hints.clone(),
        clock,
        metrics: Arc::clone(metrics),
        limits: hooks.limits,
    });
    let Some(address) = hooks.listen else { return Ok(Some(router)) };
    let listener = listen(address, "--hooks-listen").await?;
    tokio::spawn(serve::hooks::serve(listener, router, Arc::clone(metrics), stopped.clone()));
    Ok(None)
}

/// A remote that is a directory here rings by itself.
fn watch_repository(settings: &Settings, bell: &Bell) -> Option<git::watch::Watcher> {
    let RepoKind::Local(path) = settings.repo.kind() else { return None };
    let bell = bell.clone();
    match git::watch::watch(path, move || bell.ring()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!("the repository is not watched, only polled: {error}");
            None
        }
    }
}

async fn ring_on_hangup(bell: Bell) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: looking at the repository");
        bell.ring();
    }
}

fn notify_systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd does not listen: {error}");
    }
}

/// Feeds systemd's watchdog, when there is one, twice as often as it asks.
async fn feed_watchdog() {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval((interval / 2).max(Duration::from_millis(100)));
    loop {
        tick.tick().await;
        notify_systemd(&[sd_notify::NotifyState::Watchdog]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_in_use_is_waited_for_and_not_for_ever() {
        let before = listen(SocketAddr::from(([127, 0, 0, 1], 0)), "--listen").await.expect("a free port");
        let address = before.local_addr().expect("it is bound");
        let refused = listen(address, "--listen").await.expect_err("somebody has it");
        assert!(refused.to_string().contains(&address.to_string()), "{refused}");
        let (after, ()) = tokio::join!(listen(address, "--listen"), async {
            tokio::time::sleep(LISTEN_PAUSE * 3).await;
            drop(before);
        });
        assert!(after.is_ok(), "let go of while it was waited for: {after:?}");
    }
}
