//! Counters of what goes over the agents' listener, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that goes up, or up and down. Reading and changing never wait.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(super) fn one(&self) {
        self.add(1);
    }

    pub(super) fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    /// One more until what is returned is dropped.
    pub(super) fn hold(&self) -> Held<'_> {
        self.one();
        Held(self)
    }
}

/// One of those that a gauge counts.
#[derive(Debug)]
pub(super) struct Held<'a>(&'a Counter);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What went over the listener since the process started. Gauges say so; everything else only grows.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Gauge: open WebSocket connections.
    pub websockets: Counter,
    /// Gauge: agents that poll over HTTP.
    pub polling_agents: Counter,
    /// TCP connections that were accepted.
    pub accepted: Counter,
    /// Connections that were turned away because there are as many as there may be.
    pub turned_away: Counter,
    /// Upgrades and first polls that were told to come back later, because too many came at once.
    pub throttled: Counter,
    /// Failures to accept, such as running out of file descriptors.
    pub accept_errors: Counter,
    /// Messages of agents.
    pub messages_in: Counter,
    /// Their bytes.
    pub bytes_in: Counter,
    /// Messages of agents that were malformed or over a limit.
    pub messages_refused: Counter,
    /// Messages to agents.
    pub messages_out: Counter,
    /// Their bytes.
    pub bytes_out: Counter,
    /// Messages to agents that carried a configuration.
    pub offers_out: Counter,
    /// Statuses that say that an agent could not use the settings for its connection.
    pub settings_refused: Counter,
    /// Agents that were given another identity, because theirs was in use elsewhere.
    pub renamed: Counter,
    /// Connections that were closed because the agent did not read.
    pub deaf: Counter,
    /// Connections that were closed because the agent was silent.
    pub silent: Counter,
    /// Connections that were closed because the agent broke the protocol.
    pub broken: Counter,
}
