//! Keeps the journal: stores at once and in order, pushes when there is time, and never lets the one wait for the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::clock::Clock;
use crate::controller::Store;
use crate::git::backoff::Backoff;
use crate::git::journal::{Journal, JournalError, JournalWrite, PushOutcome};
use crate::serve::metrics::Metrics;
use crate::view::JournalStatus;

/// Pushes are at least so far apart: a rollout writes many records, a forge need not see each of them.
const LEAST_PAUSE: Duration = Duration::from_secs(2);

/// A remote that takes no notes is asked again after so long.
const READ_ONLY_PAUSE: Duration = Duration::from_secs(600);

/// The remote is looked at so often when nothing is stored: somebody may have deleted or moved the journal's ref there.
const LOOK_INTERVAL: Duration = Duration::from_secs(300);

/// How a status begins that is about pushes.
const PUSHING: &str = "pushing";

/// Names a store, and says how it went.
pub(super) type Stored = (u64, Result<(), String>);

/// What the two tasks share.
#[derive(Clone)]
pub(super) struct Keeper {
    /// The journal.
    pub journal: Arc<Journal>,
    /// Where everybody sees how it goes.
    pub status: watch::Sender<JournalStatus>,
    /// Rings after each store.
    pub stored: Arc<Notify>,
    /// The time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Keeper {
    /// Stores what comes, in order, and answers each.
    pub(super) async fn store(self, mut requests: mpsc::Receiver<Store>, answers: mpsc::Sender<Stored>) {
        while let Some(request) = requests.recv().await {
            let ticket = request.ticket;
            let outcome = self.journal.store(write_of(request)).await.map_err(|error| error.to_string());
            self.metrics.journal_stored(outcome.is_ok());
            self.status.send_modify(|status| match &outcome {
                Ok(()) => {
                    status.last_stored = Some(self.clock.now());
                    // What the pushes say stands until a push says otherwise.
                    status.error.take_if(|error| !error.starts_with(PUSHING));
                }
                Err(error) => status.error = Some(format!("storing failed, nothing new is offered: {error}")),
            });
            if let Err(error) = &outcome {
                tracing::error!("the journal cannot be stored, so nothing new is offered: {error}");
            }
            self.stored.notify_one();
            if answers.send((ticket, outcome)).await.is_err() {
                return;
            }
        }
    }

    /// Pushes what was stored, for ever. Failing costs nothing but delay.
    pub(super) async fn push(self) {
        let mut backoff = Backoff::default();
        let mut looks = tokio::time::interval_at(Instant::now() + LOOK_INTERVAL, LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = false;
        loop {
            let attempt = if look { self.verify_once().await } else { self.push_once().await };
            let pause = match attempt {
                Ok(pause) => {
                    look = false;
                    backoff.succeeded();
                    pause
                }
                Err((class, message)) => {
                    let pause = backoff.failed(class, fastrand::f64());
                    tracing::warn!(retry_in = ?pause, "the journal cannot be pushed: {message}");
                    self.status.send_modify(|status| status.error = Some(format!("{PUSHING} failed: {message}")));
                    pause
                }
            };
            if pause > LEAST_PAUSE {
                tokio::time::sleep(pause).await;
                continue;
            }
            // The look first: a busy fleet stores all the time, and must not keep it from happening.
            tokio::select! {
                biased;
                _ = looks.tick() => look = true,
                () = self.stored.notified() => tokio::time::sleep(LEAST_PAUSE).await,
            }
        }
    }

    /// Pushes now. Says after how long it makes sense to try again without anything new.
    pub(super) async fn push_once(&self) -> Result<Duration, (crate::git::FailureClass, String)> {
        self.came_of(self.journal.push().await)
    }

    /// Looks at the remote, and pushes what it lacks.
    async fn verify_once(&self) -> Result<Duration, (crate::git::FailureClass, String)> {
        self.came_of(self.journal.verify().await)
    }

    fn came_of(
        &self,
        outcome: Result<PushOutcome, JournalError>,
    ) -> Result<Duration, (crate::git::FailureClass, String)> {
        self.metrics.journal_pushed(matches!(outcome, Ok(PushOutcome::Pushed | PushOutcome::UpToDate)));
        match outcome {
            Ok(PushOutcome::Pushed | PushOutcome::UpToDate) => {
                self.status.send_modify(|status| {
                    status.last_pushed = Some(self.clock.now());
                    status.local_only = false;
                    status.error.take_if(|error| error.starts_with(PUSHING));
                });
                Ok(LEAST_PAUSE)
            }
            Ok(PushOutcome::ReadOnly(reason)) => {
                let is_new = !self.status.borrow().local_only;
                if is_new {
                    tracing::warn!("the remote takes no notes, the journal stays here: {reason}");
                }
                self.status.send_modify(|status| {
                    status.local_only = true;
                    status.error = Some(format!("{PUSHING} is refused, the journal stays here: {reason}"));
                });
                Ok(READ_ONLY_PAUSE)
            }
            Err(error) => Err((error.class(), error.to_string())),
        }
    }
}

fn write_of(request: Store) -> JournalWrite {
    let Store { ticket: _, message, notes, files } = request;
    let state: BTreeMap<_, _> = files;
    JournalWrite { message, notes, state }
}
