//! A running fleet: one thread with all connections, and the handle that the rest of the process holds.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::agent::Transport;
use crate::serve::socket::Socket;
use crate::simulate::connect::{self, Backoff, Refusal};
use crate::simulate::conversation::Conversation;
use crate::simulate::tally::Tally;
use crate::simulate::websocket::Scratch;
use crate::simulate::{Agent, Bodies, Counts, OptionError, Options, Profile, cast, polling, websocket};
use crate::time::Timestamp;

/// Connections that are being set up at the same time: enough to keep a server busy, few enough for its backlog.
const CONNECTING_AT_ONCE: usize = 128;

/// How long setting up one connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// A connection that ended earlier counts as a refusal: real clients come back at once, and so hammer a server that
/// accepts and closes; a simulated fleet shall not.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// How often the numbers are published while they change.
const PUBLISH_EVERY: Duration = Duration::from_millis(20);

/// How long a fleet that stops waits for its connections.
const STOP_PATIENCE: Duration = Duration::from_secs(6);

/// File descriptors beside those of the connections.
const SPARE_FILES: u64 = 64;

/// A simulated fleet that runs in a thread of its own. Dropping it ends all connections without a word.
#[derive(Debug)]
pub struct Fleet {
    stop: watch::Sender<Stop>,
    counts: watch::Receiver<Arc<Counts>>,
    clock: Clock,
    thread: Option<thread::JoinHandle<()>>,
}

/// A fleet that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What was asked for cannot be played.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// Each connection is an open file.
    #[error(
        "{connections} connections need more open files than this process may have ({limit}): raise the limit (ulimit -n), or put several agents on a connection (--per-connection)"
    )]
    OpenFiles {
        /// How many connections were asked for.
        connections: u64,
        /// The hard limit.
        limit: u64,
    },
    /// No thread, or no event queue.
    #[error("cannot start the simulated fleet: {0}")]
    Thread(#[from] io::Error),
}

/// What a fleet did not become in time.
#[derive(Debug, thiserror::Error)]
#[error("the simulated fleet did not get there within {} s: {counts:?}", bound.as_secs())]
pub struct NotReached {
    /// How long it was waited for.
    pub bound: Duration,
    /// What the fleet was like in the end.
    pub counts: Arc<Counts>,
}

impl Fleet {
    /// Starts the fleet: its agents connect, and come back whenever they lose their connection, until it is stopped.
    /// Raises the process's limit of open files if that is necessary.
    pub fn start(options: Options) -> Result<Self, StartError> {
        options.check()?;
        let connections = u64::from(options.agents.div_ceil(options.per_connection));
        let wanted = connections + SPARE_FILES;
        let limit = rlimit::increase_nofile_limit(wanted)?;
        if limit < wanted {
            return Err(StartError::OpenFiles { connections, limit });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(Stop::No);
        let clock = Clock::start();
        let nothing =
            Counts { agents: options.agents as usize, without_config: options.agents as usize, ..Counts::default() };
        let (publish, counts) = watch::channel(Arc::new(nothing));
        let thread = thread::Builder::new().name("simulated-fleet".to_owned()).spawn(move || {
            let shared = Rc::new(Shared::new(options, clock, stopped));
            LocalSet::new().block_on(&runtime, run(shared, publish));
        })?;
        Ok(Self { stop, counts, clock, thread: Some(thread) })
    }

    /// When it was started, on the clock that all times in [`Counts`] are of.
    pub fn started(&self) -> Timestamp {
        self.clock.wall
    }

    /// The present moment on that clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What it is like now (20 ms ago at most).
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts.borrow())
    }

    /// False once it has ended, which it only does by itself when it panicked.
    pub fn is_running(&self) -> bool {
        self.counts.has_changed().is_ok()
    }

    /// Waits for the next change. False when the fleet has ended.
    pub async fn changed(&mut self) -> bool {
        self.counts.changed().await.is_ok()
    }

    /// Waits until the fleet is as `wanted`, at most for `bound`.
    pub async fn wait_until(
        &self,
        bound: Duration,
        mut wanted: impl FnMut(&Counts) -> bool,
    ) -> Result<Arc<Counts>, NotReached> {
        let mut counts = self.counts.clone();
        let reached = timeout(bound, counts.wait_for(|counts| wanted(counts))).await;
        match reached {
            Ok(Ok(counts)) => Ok(Arc::clone(&counts)),
            Ok(Err(_)) | Err(_) => Err(NotReached { bound, counts: self.counts() }),
        }
    }

    /// Lets every agent say goodbye and close its connection; takes at most six seconds. Returns the last numbers.
    pub async fn stop(mut self) -> Arc<Counts> {
        self.stop.send_replace(Stop::Goodbye);
        while self.counts.changed().await.is_ok() {}
        if let Some(thread) = self.thread.take() {
            thread.join().ok(); // it has nothing left to do; a panic of it was printed there
        }
        self.counts()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop.send_replace(Stop::AtOnce);
        }
    }
}

/// Whether the fleet is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    /// Every agent says goodbye first.
    Goodbye,
    AtOnce,
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Parting {
    /// The fleet stops.
    Stopped,
    /// The agents dropped it, as they were asked to from time to time.
    Dropped,
    /// The server closed it properly, and said why.
    Closed(String),
    /// The server answered that these agents may not speak.
    Refused(String),
    /// It broke.
    Failed(String),
}

/// The fleet's clock: monotonic, anchored to the wall clock once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    wall: Timestamp,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the simulator's one clock: its agents get the time as an argument")]
    fn start() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let wall = Timestamp::default() + since_epoch;
        Self { start: Instant::now(), wall }
    }

    /// The present moment.
    pub(super) fn now(&self) -> Timestamp {
        self.wall + self.start.elapsed()
    }

    /// The same moment on the timer's clock.
    pub(super) fn instant(&self, at: Timestamp) -> Instant {
        self.start + at.since(self.wall)
    }
}

/// What all connections of the fleet's thread share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) stop: watch::Receiver<Stop>,
    pub(super) bodies: RefCell<Bodies>,
    pub(super) tally: RefCell<Tally>,
    pub(super) scratch: RefCell<Scratch>,
    pub(super) random: RefCell<fastrand::Rng>,
    connecting: Semaphore,
}

impl Shared {
    fn new(options: Options, clock: Clock, stop: watch::Receiver<Stop>) -> Self {
        Self {
            clock,
            stop,
            bodies: RefCell::new(Bodies::new(options.fail_matching.clone())),
            tally: RefCell::new(Tally::new(options.agents as usize)),
            scratch: RefCell::new(Scratch::new()),
            random: RefCell::new(fastrand::Rng::with_seed(options.seed)),
            connecting: Semaphore::new(CONNECTING_AT_ONCE),
            options,
        }
    }
}

async fn run(shared: Rc<Shared>, publish: watch::Sender<Arc<Counts>>) {
    let profile = Arc::new(Profile::new(&shared.options));
    let mut agents =
        (0..).zip(cast(&shared.options)).map(|(number, character)| Agent::new(Arc::clone(&profile), number, character));
    let mut connections = JoinSet::new();
    loop {
        let company: Vec<_> = agents.by_ref().take(shared.options.per_connection as usize).collect();
        if company.is_empty() {
            break;
        }
        connections.spawn_local(stay_connected(Rc::clone(&shared), Conversation::new(company)));
    }
    let mut stop = shared.stop.clone();
    let everybody = async { while connections.join_next().await.is_some() {} };
    let stopped = async {
        stop.wait_for(|stop| *stop != Stop::No).await.ok();
        sleep(STOP_PATIENCE).await;
    };
    tokio::select! {
        () = everybody => {}
        () = stopped => {}
        () = keep_publishing(&shared, &publish) => {}
    }
    publish_now(&shared, &publish);
}

async fn keep_publishing(shared: &Shared, publish: &watch::Sender<Arc<Counts>>) {
    let mut ticks = interval(PUBLISH_EVERY);
    loop {
        ticks.tick().await;
        publish_now(shared, publish);
    }
}

fn publish_now(shared: &Shared, publish: &watch::Sender<Arc<Counts>>) {
    let contradictions = shared.bodies.borrow().contradictions();
    if let Some(counts) = shared.tally.borrow_mut().take(contradictions) {
        publish.send_replace(Arc::new(counts));
    }
}

/// One connection's life: connect, talk, and again, until the fleet stops.
async fn stay_connected(shared: Rc<Shared>, mut conversation: Conversation) {
    let mut stop = shared.stop.clone();
    let mut backoff = Backoff::new();
    loop {
        let Some(wait) = live(&shared, &mut conversation, &mut backoff).await else { return };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::No) => return,
            () = sleep(wait) => {}
        }
    }
}

/// One connection, from the first attempt to its end. Returns how long to wait for the next one; `None`: it was the last.
async fn live(shared: &Shared, conversation: &mut Conversation, backoff: &mut Backoff) -> Option<Duration> {
    let agents = conversation.len();
    let line = match connect(shared, conversation).await {
        Ok(Some(line)) => line,
        Ok(None) => return None,
        Err(refusal) => {
            let mut tally = shared.tally.borrow_mut();
            let counts = tally.counts();
            counts.refused += 1;
            counts.trouble = Some(refusal.reason.into());
            let wait = backoff.after_failure(&mut shared.random.borrow_mut());
            return Some(wait.max(refusal.retry_after.unwrap_or_default()));
        }
    };
    let since = shared.clock.now();
    let drop_at = shared.options.reconnect.map(|mean| since + mean.mul_f64(0.5 + shared.random.borrow_mut().f64()));
    {
        let mut tally = shared.tally.borrow_mut();
        tally.counts().connects += 1;
        tally.counts().connected += agents;
    }
    let parting = match line {
        Line::WebSocket(stream, leftover) => websocket::converse(stream, leftover, conversation, shared, drop_at).await,
        Line::Http(sender) => Box::pin(polling::converse(sender, conversation, shared, drop_at)).await,
    };
    let mut tally = shared.tally.borrow_mut();
    let counts = tally.counts();
    counts.connected = counts.connected.saturating_sub(agents);
    match parting {
        Parting::Stopped => return None,
        Parting::Dropped => {
            *backoff = Backoff::new();
            return Some(Duration::ZERO);
        }
        Parting::Closed(reason) => counts.trouble = Some(reason.into()),
        Parting::Refused(reason) => {
            counts.refused += 1;
            counts.trouble = Some(reason.into());
            return Some(backoff.after_failure(&mut shared.random.borrow_mut()));
        }
        Parting::Failed(reason) => {
            counts.lost += 1;
            counts.trouble = Some(reason.into());
        }
    }
    if shared.clock.now().since(since) < SHORTEST_LIFE {
        return Some(backoff.after_failure(&mut shared.random.borrow_mut()));
    }
    *backoff = Backoff::new();
    Some(Duration::ZERO)
}

/// A connection that agents can talk on.
enum Line {
    WebSocket(Socket, bytes::Bytes),
    Http(hyper::client::conn::http1::SendRequest<http_body_util::Full<bytes::Bytes>>),
}

/// Sets a connection up when it is its turn. `None`: the fleet stops.
async fn connect(shared: &Shared, conversation: &Conversation) -> Result<Option<Line>, Refusal> {
    let mut stop = shared.stop.clone();
    let options = &shared.options;
    let number = conversation.number() / shared.options.per_connection;
    let deaf = conversation.has(|character| character.deaf);
    let attempt = async {
        let _permit = shared.connecting.acquire().await.map_err(Refusal::because)?;
        let setup = async {
            let sender = connect::open(options, number, deaf).await?;
            match options.server.transport {
                Transport::Http => Ok(Line::Http(sender)),
                Transport::WebSocket => {
                    let (socket, leftover) = connect::upgrade(options, number, sender).await?;
                    Ok(Line::WebSocket(socket, leftover))
                }
            }
        };
        timeout(CONNECT_PATIENCE, setup).await.unwrap_or_else(|_| Err(Refusal::because("no connection within 30 s")))
    };
    let attempt = Box::pin(attempt); // large, and only needed for a moment
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop != Stop::No) => Ok(None),
        line = attempt => line.map(Some),
    }
}

#[cfg(test)]
mod tests;
