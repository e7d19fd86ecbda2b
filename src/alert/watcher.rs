//! The task that looks at the daemon's status every other second and makes incidents of what it sees.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use tokio::sync::{mpsc, oneshot, watch};

use crate::alert::Counts;
use crate::alert::messenger::{Messenger, State};
use crate::alert::store::Store;
use crate::clock::Clock;
use crate::incident::find::{Limits, Seen};
use crate::incident::watch::Watch;
use crate::incident::{Incident, Severity, words};
use crate::settings::alerts::{AlertSettings, Least, Receiver};
use crate::view::{AlertsStatus, FleetStatus, OpenIncident};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// A look may take this part of the time: where ten thousand groups are in motion at once it takes a while, and the loop has more to do.
const SHARE: u32 = 20;

/// Between two looks at most.
const LONGEST_INTERVAL: Duration = Duration::from_secs(30);

/// Incidents that the status names.
const MOST_NAMED: usize = 20;

/// A look: the status as it is now, and whether it is known what groups and the journal do.
#[derive(Debug)]
pub struct Look(pub oneshot::Sender<(FleetStatus, bool)>);

/// What alerts are connected to.
pub struct Wiring {
    /// Where looks are asked for. A look that is not answered is asked for again.
    pub looks: mpsc::Sender<Look>,
    /// Where everybody sees how it goes.
    pub status: watch::Sender<Option<AlertsStatus>>,
    /// Counters.
    pub counts: Arc<Counts>,
    /// The time.
    pub clock: Clock,
}

/// The task.
pub struct Watcher {
    watch: Watch,
    store: Arc<Store>,
    incidents: watch::Sender<Arc<Vec<Incident>>>,
    states: Vec<State>,
    wiring: Wiring,
    stored_badly: bool,
}

/// What concerns a receiver.
#[derive(Debug)]
pub struct Concern {
    least: Severity,
    /// `None`: all groups.
    groups: Option<GlobSet>,
    fleet: bool,
}

impl Concern {
    /// As the settings say. A pattern that cannot be used, which the settings do not let pass, matches nothing.
    pub fn of(receiver: &Receiver) -> Self {
        let mut set = GlobSetBuilder::new();
        for glob in &receiver.groups {
            if let Ok(glob) = GlobBuilder::new(glob).literal_separator(true).build() {
                set.add(glob);
            }
        }
        let least = match receiver.least {
            Least::Warning => Severity::Warning,
            Least::Critical => Severity::Critical,
        };
        let groups = (!receiver.groups.is_empty()).then(|| set.build().unwrap_or_else(|_| GlobSet::empty()));
        Self { least, groups, fleet: receiver.fleet }
    }

    /// Of these incidents what concerns the receiver.
    pub fn select(&self, incidents: &[Incident]) -> Vec<Incident> {
        let concerns = |name: &str| match (name, &self.groups) {
            ("", _) => self.fleet,
            (_, None) => true,
            // A variant belongs to the group that it varies.
            (name, Some(globs)) => globs.is_match(name) || globs.is_match(name.split('@').next().unwrap_or(name)),
        };
        incidents.iter().filter_map(|incident| incident.for_whom(self.least, concerns)).collect()
    }
}

impl Watcher {
    /// The task, and one for each receiver; none has begun.
    pub fn new(settings: &AlertSettings, instance: &str, store: Store, wiring: Wiring) -> (Self, Vec<Messenger>) {
        let names: Vec<&str> = settings.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        store.retain(&names);
        let limits = Limits { waits_too_long: settings.waits_too_long, stale_after: settings.stale_after };
        let watch = Watch::new(instance, limits, store.incidents(), wiring.clock.now());
        let store = Arc::new(store);
        let incidents = watch::Sender::new(Arc::new(watch.incidents()));
        let make = |receiver: &Receiver| {
            Messenger::new(
                receiver.clone(),
                incidents.subscribe(),
                Arc::clone(&store),
                Arc::clone(&wiring.counts),
                wiring.clock,
            )
        };
        let messengers: Vec<Messenger> = settings.receivers.iter().map(make).collect();
        let states = messengers.iter().map(Messenger::state).collect();
        (Self { watch, store, incidents, states, wiring, stored_badly: false }, messengers)
    }

    /// Looks for ever; ends when nobody answers any more.
    pub async fn run(mut self) {
        let mut pause = INTERVAL;
        loop {
            tokio::time::sleep(pause).await;
            let begun = self.wiring.clock.now();
            let (reply, answer) = oneshot::channel();
            if self.wiring.looks.send(Look(reply)).await.is_err() {
                return;
            }
            // The loop may be between its beginning and its work: then the next look is answered.
            let Ok((status, is_whole)) = answer.await else { continue };
            let took = self.wiring.clock.now().since(begun);
            pause = took.saturating_mul(SHARE).clamp(INTERVAL, LONGEST_INTERVAL);
            // Only what everybody could see to be over since the look before: whoever was about to send has heard of it.
            self.forget(&status);
            self.watch.handle(&Seen { status: &status, is_whole });
            self.keep().await;
            self.publish();
        }
    }

    /// Drops what is over and told to everybody whom it concerns.
    fn forget(&mut self, status: &FleetStatus) {
        let outdated = self.watch.outdated(status.now);
        for incident in self.watch.incidents() {
            let is_told = || self.states.iter().all(|state| state.is_done(&incident));
            if incident.ended.is_some() && (outdated.contains(&incident.id) || is_told()) {
                self.watch.forget(&incident.id);
            }
        }
    }

    /// Writes down what is known, before anybody is told of it; a disk that does not answer keeps nobody from being told.
    async fn keep(&mut self) {
        self.store.set_incidents(self.watch.memory());
        let kept = self.store.keep().await;
        if let Err(error) = &kept
            && !self.stored_badly
        {
            tracing::warn!(
                "what alerts have to remember cannot be written: after a restart incidents are announced again: {error}"
            );
        }
        self.stored_badly = kept.is_err();
    }

    fn publish(&mut self) {
        let incidents = self.watch.incidents();
        let mut counts: BTreeMap<Severity, u64> = BTreeMap::new();
        let open: Vec<&Incident> = incidents.iter().filter(|incident| incident.ended.is_none()).collect();
        for incident in &open {
            *counts.entry(incident.severity()).or_default() += 1;
        }
        self.wiring.counts.set_open(&counts);
        let named = open.iter().take(MOST_NAMED).map(|incident| OpenIncident {
            id: incident.id.clone(),
            severity: incident.severity().to_string(),
            title: words::title(incident),
            since: incident.since,
        });
        let status = AlertsStatus {
            open: named.collect(),
            more: open.len().saturating_sub(MOST_NAMED),
            left_out: self.watch.left_out(),
            receivers: self.states.iter().map(State::status).collect(),
        };
        self.wiring.status.send_if_modified(|before| {
            let is_other = before.as_ref() != Some(&status);
            *before = Some(status);
            is_other
        });
        self.incidents.send_if_modified(|before| {
            let is_other = **before != incidents;
            *before = Arc::new(incidents);
            is_other
        });
    }
}
