//! Keeps the journal: stores at once and in order, pushes when there is time, and never lets the one wait for the other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::clock::Clock;
use crate::controller::{Store, Written, group_of_file};
use crate::git::FailureKind;
use crate::git::backoff::PushPace;
use crate::git::journal::{Journal, JournalError, JournalWrite, PushOutcome};
use crate::serve::metrics::Metrics;
use crate::view::JournalStatus;

/// Pushes are at least so far apart: a rollout writes many records, a forge need not see each of them.
const LEAST_PAUSE: Duration = Duration::from_secs(2);

/// The remote is looked at so often when nothing is stored: somebody may have deleted or moved the journal's ref there.
const LOOK_INTERVAL: Duration = Duration::from_secs(300);

/// How a status begins that is about pushes.
const PUSHING: &str = "pushing";

/// Names a store, and says how it went.
pub(super) type Stored = (u64, Result<(), NotStored>);

/// Nothing of a write was stored.
#[derive(Debug)]
pub(super) struct NotStored {
    /// For people.
    pub(super) reason: String,
    /// The files that it is about; none: the journal as a whole cannot be written.
    pub(super) refused: Vec<String>,
}

/// These files, when all of them are groups' records: without any other the journal is as good as not written.
fn of_groups(files: Vec<String>) -> Vec<String> {
    if files.iter().all(|path| group_of_file(path).is_some()) { files } else { Vec::new() }
}

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
            let outcome = self.write(request).await;
            self.metrics.journal_stored(outcome.is_ok());
            self.status.send_modify(|status| match &outcome {
                Ok(()) => {
                    status.blocked = false;
                    status.last_stored = Some(self.clock.now());
                    // What the pushes say stands until a push says otherwise.
                    status.error.take_if(|error| !error.starts_with(PUSHING));
                }
                // What can be stored without these comes at once, and says how the journal is.
                Err(NotStored { refused, .. }) if !refused.is_empty() => {}
                Err(NotStored { reason, .. }) => {
                    status.blocked = true;
                    status.error = Some(format!("storing failed, nothing new is offered: {reason}"));
                }
            });
            if let Err(NotStored { reason, refused }) = &outcome
                && refused.is_empty()
            {
                tracing::error!("the journal cannot be stored, so nothing new is offered: {reason}");
            }
            self.stored.notify_one();
            if answers.send((ticket, outcome)).await.is_err() {
                return;
            }
        }
    }

    /// Writes it out, which for a large fleet takes a while, and stores it.
    async fn write(&self, request: Store) -> Result<(), NotStored> {
        let whole = |reason: String| NotStored { reason, refused: Vec::new() };
        let written =
            tokio::task::spawn_blocking(|| request.written()).await.map_err(|error| whole(error.to_string()))?;
        let written = written.map_err(|error| NotStored { reason: told(&error), refused: of_groups(vec![error.path]) });
        let Written { message, notes, files } = written?;
        let write = JournalWrite { message, notes, state: files };
        self.journal.store(write).await.map_err(|error| {
            let reason = error.to_string();
            let refused = if let JournalError::InvalidPath(paths) = error { of_groups(paths) } else { Vec::new() };
            NotStored { reason, refused }
        })
    }

    /// Pushes what was stored, for ever. Failing costs nothing but delay.
    pub(super) async fn push(self) {
        let mut pace = PushPace::default();
        let allowed = self.journal.deadlines().unwrap_or_default();
        let mut looks = tokio::time::interval_at(Instant::now() + LOOK_INTERVAL, LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = false;
        loop {
            let journal = self.journal.within(pace.deadlines(&allowed));
            let begun = self.clock.now();
            let outcome = if look { journal.verify().await } else { journal.push().await };
            match self.came_of(outcome) {
                Ok(()) => {
                    look = false;
                    pace.succeeded(self.clock.now().since(begun));
                }
                Err(Setback { kind, message }) => {
                    let pause = pace.failed(kind, fastrand::f64());
                    tracing::debug!(retry_in = ?pause, "the journal is not pushed: {message}");
                    tokio::time::sleep(pause).await;
                    continue;
                }
            }
            // The look first: a busy fleet stores all the time, and must not keep it from happening.
            tokio::select! {
                biased;
                _ = looks.tick() => look = true,
                () = self.stored.notified() => tokio::time::sleep(LEAST_PAUSE).await,
            }
        }
    }

    /// Pushes now, as long as it may take.
    pub(super) async fn push_once(&self) -> Result<(), Setback> {
        self.came_of(self.journal.push().await)
    }

    /// Tells what came of a push, in the log when that is news.
    fn came_of(&self, outcome: Result<PushOutcome, JournalError>) -> Result<(), Setback> {
        let is_good = matches!(outcome, Ok(PushOutcome::Pushed | PushOutcome::UpToDate));
        self.metrics.journal_pushed(is_good);
        self.status.send_if_modified(|status| {
            let (foreign, disbelieved) = (self.journal.foreign().is_some(), self.journal.disbelieved());
            let is_news = status.foreign != foreign || status.disbelieved != disbelieved;
            (status.foreign, status.disbelieved) = (foreign, disbelieved);
            is_news
        });
        let before = self.status.borrow().clone();
        let had_failed = before.local_only || before.error.as_ref().is_some_and(|error| error.starts_with(PUSHING));
        if is_good && had_failed {
            tracing::info!("the journal is pushed again");
        }
        let (setback, local_only, error) = match outcome {
            Ok(PushOutcome::Pushed | PushOutcome::UpToDate) => {
                self.status.send_modify(|status| {
                    status.last_pushed = Some(self.clock.now());
                    status.local_only = false;
                    status.error.take_if(|error| error.starts_with(PUSHING));
                });
                return Ok(());
            }
            Ok(PushOutcome::ReadOnly { kind, reason }) => {
                let error = format!("{PUSHING} is refused, the journal stays here: {reason}");
                (Setback { kind, message: reason }, true, error)
            }
            Err(error) => {
                let setback = Setback { kind: error.kind(), message: told(&error) };
                let error = format!("{PUSHING} failed: {}", setback.message);
                (setback, before.local_only, error)
            }
        };
        // Once for each reason: it is tried again and again.
        if !before.blocked && before.error.as_ref() != Some(&error) {
            tracing::warn!("{error}");
        }
        self.status.send_modify(|status| not_pushed(status, local_only, error));
        Err(setback)
    }
}

/// A push did not succeed. While nothing can be stored the error is about that, which weighs more.
fn not_pushed(status: &mut JournalStatus, local_only: bool, error: String) {
    status.local_only = local_only;
    if !status.blocked {
        status.error = Some(error);
    }
}

/// Why a push did not succeed.
#[derive(Debug)]
pub(super) struct Setback {
    kind: FailureKind,
    /// For people.
    pub(super) message: String,
}

/// An error with its causes, in one line.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_that_fails_does_not_hide_that_nothing_is_stored() {
        let full = "storing failed: no space".to_owned();
        let mut status = JournalStatus { blocked: true, error: Some(full.clone()), ..JournalStatus::default() };
        not_pushed(&mut status, true, format!("{PUSHING} is refused"));
        assert_eq!((status.local_only, status.error), (true, Some(full)));
        let mut status = JournalStatus::default();
        not_pushed(&mut status, false, format!("{PUSHING} failed: denied"));
        assert_eq!(status.error.as_deref(), Some("pushing failed: denied"));
    }
}
