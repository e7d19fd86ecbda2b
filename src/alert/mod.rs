//! Tells people of incidents: what is found in the daemon's status goes to any number of receivers, by tasks that nobody waits for.
//!
//! [`watcher`] looks every other second and makes incidents of what it sees; [`messenger`] is a task for each receiver, which sends what its
//! [`desk`](crate::incident::desk) says, in the form that [`payload`] gives it. What has to survive a restart is in one small file
//! ([`store`]), so that an open incident is announced once and a resolved one is not forgotten.

pub mod messenger;
pub mod payload;
pub mod post;
pub mod store;
pub mod watcher;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::incident::Severity;
use crate::settings::alerts::ReceiverKind;

/// What came of messages to receivers of one kind.
#[derive(Debug, Default)]
pub struct Sent {
    /// They were taken.
    pub ok: AtomicU64,
    /// They were not, and are tried again.
    pub failed: AtomicU64,
    /// The receiver asked to wait.
    pub throttled: AtomicU64,
    /// They were refused for good.
    pub refused: AtomicU64,
}

/// What has been counted so far.
#[derive(Debug, Default)]
pub struct Counts {
    webhook: Sent,
    slack: Sent,
    alertmanager: Sent,
    warnings: AtomicU64,
    criticals: AtomicU64,
}

impl Counts {
    /// Of one kind of receivers.
    pub fn of(&self, kind: ReceiverKind) -> &Sent {
        match kind {
            ReceiverKind::Webhook => &self.webhook,
            ReceiverKind::Slack => &self.slack,
            ReceiverKind::Alertmanager => &self.alertmanager,
        }
    }

    /// Incidents of this severity that have not ended.
    pub fn open(&self, severity: Severity) -> u64 {
        self.slot(severity).load(Ordering::Relaxed)
    }

    fn slot(&self, severity: Severity) -> &AtomicU64 {
        match severity {
            Severity::Warning => &self.warnings,
            Severity::Critical => &self.criticals,
        }
    }

    fn set_open(&self, counts: &BTreeMap<Severity, u64>) {
        for severity in Severity::ALL {
            self.slot(severity).store(counts.get(&severity).copied().unwrap_or(0), Ordering::Relaxed);
        }
    }
}
