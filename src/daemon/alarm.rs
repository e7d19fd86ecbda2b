//! Starts the tasks that tell people of incidents, and answers their looks while the daemon only starts.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::alert::store::Store;
use crate::alert::watcher::{Look, Watcher, Wiring};
use crate::clock::Clock;
use crate::serve::metrics::Metrics;
use crate::settings::Settings;
use crate::view::AlertsStatus;

/// The loop's end of the way to whoever is told of incidents.
pub(super) struct Alarm {
    /// Looks that are asked for. Nobody asks when nobody is told.
    pub(super) looks: mpsc::Receiver<Look>,
    /// How it goes; nothing when nobody is told.
    pub(super) status: watch::Receiver<Option<AlertsStatus>>,
    /// They end when they are told to: what they have to remember is written already.
    pub(super) tasks: Vec<JoinHandle<()>>,
}

impl Alarm {
    /// Starts the tasks. They begin before the journal is read: that it cannot be is an incident.
    pub(super) fn start(settings: &Settings, clock: Clock, metrics: &Metrics) -> Self {
        let (looks_in, looks) = mpsc::channel(1);
        let status = watch::Sender::new(None);
        let seen = status.subscribe();
        let mut tasks = Vec::new();
        if let Some(alerts) = &settings.alerts {
            let (store, warning) = Store::open(&settings.state_dir);
            if let Some(warning) = warning {
                tracing::warn!("{warning}");
            }
            let wiring = Wiring { looks: looks_in, status, counts: Arc::clone(&metrics.alerts()), clock };
            let (watcher, messengers) = Watcher::new(alerts, &settings.instance, store, wiring);
            tasks.push(tokio::spawn(watcher.run()));
            tasks.extend(messengers.into_iter().map(|messenger| tokio::spawn(messenger.run())));
        }
        Self { looks, status: seen, tasks }
    }
}
