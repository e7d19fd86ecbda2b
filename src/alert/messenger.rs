//! The task of one receiver: sends what its desk says, one message at a time, and is in nobody's way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::alert::Counts;
use crate::alert::payload::REPEAT;
use crate::alert::post::{Post, Trouble};
use crate::alert::store::Store;
use crate::alert::watcher::Concern;
use crate::clock::Clock;
use crate::incident::Incident;
use crate::incident::desk::{Delivery, Desk, Event, Next, Outcome};
use crate::settings::alerts::{Receiver, ReceiverKind};
use crate::view::ReceiverStatus;

/// What others see of a receiver; clones see the same.
#[derive(Clone)]
pub struct State {
    desk: Arc<Mutex<Desk>>,
    concern: Arc<Concern>,
    status: Arc<Mutex<ReceiverStatus>>,
}

impl State {
    /// True when there is nothing left to tell of an incident that is over, or it never was the receiver's business.
    pub fn is_done(&self, incident: &Incident) -> bool {
        let own = self.concern.select(std::slice::from_ref(incident));
        own.iter().all(|incident| self.desk().is_done(incident))
    }

    /// How it goes.
    pub fn status(&self) -> ReceiverStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task.
pub struct Messenger {
    name: String,
    kind: ReceiverKind,
    post: Post,
    state: State,
    incidents: watch::Receiver<Arc<Vec<Incident>>>,
    store: Arc<Store>,
    counts: Arc<Counts>,
    clock: Clock,
}

impl Messenger {
    /// A task that has not begun.
    pub fn new(
        receiver: Receiver,
        incidents: watch::Receiver<Arc<Vec<Incident>>>,
        store: Arc<Store>,
        counts: Arc<Counts>,
        clock: Clock,
    ) -> Self {
        let (name, kind) = (receiver.name.clone(), receiver.kind);
        let repeat = match kind {
            ReceiverKind::Alertmanager => Some(REPEAT),
            ReceiverKind::Webhook | ReceiverKind::Slack => None,
        };
        let status = ReceiverStatus { name: name.clone(), kind: kind.to_string(), ..ReceiverStatus::default() };
        let state = State {
            desk: Arc::new(Mutex::new(Desk::new(repeat, store.told(&name), clock.now()))),
            concern: Arc::new(Concern::of(&receiver)),
            status: Arc::new(Mutex::new(status)),
        };
        Self { name, kind, post: Post::new(receiver), state, incidents, store, counts, clock }
    }

    /// What others see of it.
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// Sends for ever; ends when there is nobody any more who would know of incidents.
    pub async fn run(mut self) {
        loop {
            let own = self.take_in().await;
            let next = self.state.desk().next(&own, self.clock.now());
            let until = match next {
                Next::Send(delivery) => {
                    // What has ended meanwhile without being told must not be told now: nobody would tell of its end.
                    if !self.incidents.has_changed().unwrap_or(true) {
                        self.send(&delivery).await;
                        continue;
                    }
                    Some(self.clock.instant(self.clock.now()))
                }
                Next::At(at) => Some(self.clock.instant(at)),
                Next::Idle => None,
            };
            let time = async {
                match until {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.incidents.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = time => {}
            }
        }
    }

    /// The incidents that concern the receiver now. What nobody knows any more is forgotten.
    async fn take_in(&mut self) -> Vec<Incident> {
        let all = Arc::clone(&self.incidents.borrow_and_update());
        let is_known = |id: &str| all.iter().any(|incident| incident.id == id);
        let is_less = self.state.desk().retain(is_known);
        if is_less {
            self.keep().await;
        }
        self.state.concern.select(&all)
    }

    async fn send(&mut self, delivery: &Delivery) {
        // Remembered before it goes out: a process that dies meanwhile leaves a successor that knows whom to tell of the end.
        let is_new = self.state.desk().begin(delivery, self.clock.now());
        if is_new {
            self.keep().await;
        }
        let outcome = self.post.send(delivery, self.clock.wall()).await;
        let now = self.clock.now();
        let incident = delivery.incident.id.as_str();
        let (outcome, error) = match outcome {
            Ok(_) => {
                if delivery.event != Event::Repeated {
                    tracing::info!(receiver = self.name, incident, event = delivery.event.name(), "told");
                }
                (Outcome::Taken, None)
            }
            Err(Trouble::Later(pause)) => (Outcome::Later(pause), Some("it wants fewer messages".to_owned())),
            Err(Trouble::Failed(why)) => (Outcome::Failed, Some(why)),
            Err(Trouble::Doubtful(why)) => (Outcome::Doubtful, Some(why)),
            Err(Trouble::Refused(why)) => (Outcome::Refused, Some(why)),
        };
        let (is_new, has_given_up) = {
            let mut desk = self.state.desk();
            let is_new = desk.handle(delivery, outcome, now, fastrand::f64());
            (is_new, outcome == Outcome::Refused && desk.has_given_up(&delivery.incident))
        };
        if is_new {
            self.keep().await;
        }
        self.count(outcome, has_given_up);
        if has_given_up {
            tracing::warn!(
                receiver = self.name,
                incident,
                "this receiver refuses what it is told of this incident; it is left out"
            );
        }
        let mut status = self.state.status.lock().unwrap_or_else(PoisonError::into_inner);
        if error.is_none() {
            status.last_sent = Some(now);
        } else if status.error != error {
            // Once for each reason: it is tried again and again.
            tracing::warn!(receiver = self.name, incident, "cannot be told: {}", error.as_deref().unwrap_or_default());
        }
        status.error = error;
    }

    async fn keep(&self) {
        self.store.set_told(&self.name, self.state.desk().memory().clone());
        if let Err(error) = self.store.keep().await {
            tracing::warn!(receiver = self.name, "what it was told cannot be written, and may be told again: {error}");
        }
    }

    fn count(&self, outcome: Outcome, has_given_up: bool) {
        let sent = self.counts.of(self.kind);
        let raise = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match outcome {
            Outcome::Taken => raise(&sent.ok),
            Outcome::Later(_) => raise(&sent.throttled),
            Outcome::Failed | Outcome::Doubtful => raise(&sent.failed),
            Outcome::Refused if has_given_up => raise(&sent.refused),
            Outcome::Refused => raise(&sent.failed),
        }
    }
}
