//! Counters of what goes over the agents' listener, for the metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Timestamp;

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

/// A point in time, or none yet.
#[derive(Debug, Default)]
pub struct Moment(AtomicU64);

impl Moment {
    /// Which.
    pub fn get(&self) -> Option<Timestamp> {
        Some(self.0.load(Ordering::Relaxed)).filter(|millis| *millis > 0).map(Timestamp::from_millis)
    }

    pub(super) fn store(&self, at: Option<Timestamp>) {
        self.0.store(at.map_or(0, Timestamp::as_millis), Ordering::Relaxed);
    }
}

/// What came of TLS on one listener since the process started.
#[derive(Debug, Default)]
pub struct TlsTraffic {
    /// Handshakes that succeeded.
    pub handshakes: Counter,
    /// Gauge: handshakes at this moment.
    pub in_flight: Counter,
    /// Handshakes that had to wait for a turn.
    pub waited: Counter,
    /// Connections that took too long over it.
    pub slow: Counter,
    /// Connections for which there was no turn in time.
    pub crowded: Counter,
    /// Connections that speak no TLS.
    pub foreign: Counter,
    /// Clients without a certificate that counts.
    pub uncertified: Counter,
    /// Handshakes that failed otherwise.
    pub broken: Counter,
    /// Changed files that were taken.
    pub reloads: Counter,
    /// Changed files that could not be used.
    pub reload_failures: Counter,
    /// Gauge: 1 while the files are not what is in use.
    pub is_stale: Counter,
    /// When the server's certificate ends.
    pub expires: Moment,
}

/// What came of proofs of agents since the process started.
#[derive(Debug, Default)]
pub struct GateTraffic {
    /// Requests of agents that proved nothing, or nothing that counts.
    pub unproven: Counter,
    /// Signatures of JWTs that were verified; others were remembered.
    pub signatures: Counter,
    /// Connections, and agents that poll, that were ended because what they proved themselves with does not count any more.
    pub revoked: Counter,
    /// Agents that were refused because their uid belongs to one that proved to be somebody else.
    pub impostors: Counter,
    /// Changed files that were taken.
    pub reloads: Counter,
    /// Changed files that could not be used.
    pub reload_failures: Counter,
    /// Gauge: 1 while the files are not what is in use.
    pub is_stale: Counter,
}

/// What came over the operators' listener since the process started.
#[derive(Debug, Default)]
pub struct ApiTraffic {
    /// Requests of somebody who is known.
    pub answered: Counter,
    /// Requests that prove nothing that counts, answered at once.
    pub unproven: Counter,
    /// The same, answered late, because there were many from one address.
    pub slowed: Counter,
    /// Requests of somebody who is known and asks too often.
    pub paced: Counter,
    /// Connections for which there was no place.
    pub turned_away: Counter,
    /// Of these, those that came while there were as many in all as there may be.
    pub crowded: Counter,
    /// The others: from an address that has as many as it may.
    pub crowded_address: Counter,
    /// Orders that are larger than one may be.
    pub oversized: Counter,
    /// Of TLS.
    pub tls: Arc<TlsTraffic>,
}

/// What was refused of webhooks since the process started.
#[derive(Debug, Default)]
pub struct HookTraffic {
    /// Deliveries that are larger than one may be.
    pub oversized: Counter,
    /// Deliveries that prove nothing, of an address that sends too many of them.
    pub paced: Counter,
    /// Connections to a listener of their own for which there was no place.
    pub turned_away: Counter,
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
    /// Of these, those whose own token or address brought more than its share.
    pub throttled_origin: Counter,
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
    /// Connections that were turned away because there are as many in all as there may be.
    pub crowded: Counter,
    /// Agents that were put off because as many poll as may do so.
    pub crowded_polls: Counter,
    /// Messages that waited, because as many bytes of larger ones were held as there may be, in all or of one origin.
    pub waited_for_room: Counter,
    /// Messages that held room and came too slowly to keep it.
    pub slow: Counter,
    /// Messages that are larger than one may be.
    pub oversized: Counter,
    /// Messages whose description has too many attributes.
    pub too_many_attributes: Counter,
    /// Messages whose description has attributes of too many bytes.
    pub too_long_attributes: Counter,
    /// Connections, and agents that poll, that were turned away because there are as many from one address as there may be.
    pub crowded_address: Counter,
    /// Upgrades and first polls that were turned away because there are as many with one token as there may be.
    pub crowded_token: Counter,
    /// Agents that were put off because one token or address brought too many in a minute.
    pub new_agents_refused: Counter,
    /// Messages that were not looked into, because an agent sent too many in a short time.
    pub flooded: Counter,
    /// Messages that were not looked into, because an agent sent too many bytes in a short time.
    pub flooded_bytes: Counter,
    /// Messages of agents for which their connection had no room.
    pub crowded_connection: Counter,
    /// Of what agents prove.
    pub gate: Arc<GateTraffic>,
    /// Of TLS.
    pub tls: Arc<TlsTraffic>,
    /// Of operators.
    pub api: Arc<ApiTraffic>,
    /// Of webhooks.
    pub hooks: HookTraffic,
    /// Connections to the listener that only reads for which there was no place.
    pub admin_turned_away: Counter,
}
