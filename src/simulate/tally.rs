//! What a simulated fleet holds and has been through, as numbers with times.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::agent::ConfigStatus;
use crate::simulate::agent::Heard;
use crate::simulate::{Agent, OfferedConfig};
use crate::time::Timestamp;

/// Configurations that are listed at most. Those that nobody holds any more go first, the oldest before the others.
const MOST_CONFIGS: usize = 1_000;

/// What a fleet holds and has been through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All agents.
    pub agents: usize,
    /// Agents on an open connection; over HTTP, agents whose latest request was answered.
    pub connected: usize,
    /// Agents that would report to be well.
    pub healthy: usize,
    /// Agents that were never offered anything.
    pub without_config: usize,
    /// Agents whose status is about an offer that is applied, applying, failed: see [`Holding`], summed up.
    pub applied: usize,
    /// See `applied`.
    pub applying: usize,
    /// See `applied`.
    pub failed: usize,
    /// Connections that came up.
    pub connects: u64,
    /// Attempts to connect that were turned away or timed out.
    pub refused: u64,
    /// Connections that ended without either side meaning it.
    pub lost: u64,
    /// Offers that were received.
    pub offers: u64,
    /// Of these: of the hash that the agent had been offered last.
    pub repeated_offers: u64,
    /// Offers of a hash that had come with another content before.
    pub contradictions: u64,
    /// Error responses.
    pub errors: u64,
    /// Messages from the server that were none, or for an agent that is not on the connection.
    pub malformed: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages received.
    pub received: u64,
    /// Why the latest connection was refused or lost.
    pub trouble: Option<Arc<str>>,
    /// What agents hold, in the order of the first receipt.
    pub configs: Vec<Holding>,
}

impl Counts {
    /// What is known of one configuration, by its hash in hexadecimal digits.
    pub fn config(&self, hash: &str) -> Option<&Holding> {
        self.configs.iter().find(|holding| &*holding.hash == hash)
    }
}

/// Who holds one configuration, and when it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// `config_hash` in hexadecimal digits.
    pub hash: Arc<str>,
    /// Agents that run it as far as they can tell.
    pub applied: usize,
    /// Agents that try.
    pub applying: usize,
    /// Agents that cannot.
    pub failed: usize,
    /// How often it was offered.
    pub offers: u64,
    /// When the first offer arrived.
    pub first_receipt: Option<Timestamp>,
    /// When the latest offer arrived.
    pub last_receipt: Option<Timestamp>,
    /// When the first agent had applied it.
    pub first_applied: Option<Timestamp>,
    /// When the latest agent had applied it.
    pub last_applied: Option<Timestamp>,
}

impl Holding {
    /// The first twelve digits of the hash.
    pub fn short(&self) -> &str {
        self.hash.get(..12).unwrap_or(&self.hash)
    }

    fn holders(&self) -> usize {
        self.applied + self.applying + self.failed
    }

    fn slot(&mut self, status: ConfigStatus) -> Option<&mut usize> {
        match status {
            ConfigStatus::Applied => Some(&mut self.applied),
            ConfigStatus::Applying => Some(&mut self.applying),
            ConfigStatus::Failed => Some(&mut self.failed),
            ConfigStatus::Unset => None,
        }
    }
}

/// What was last counted for one agent.
#[derive(Clone, Copy, Debug)]
struct Counted {
    config: Option<u64>,
    status: ConfigStatus,
    healthy: bool,
}

/// Counts as things happen.
#[derive(Debug)]
pub(super) struct Tally {
    counts: Counts,
    /// By a number that grows with each hash.
    configs: BTreeMap<u64, (bytes::Bytes, Holding)>,
    next_config: u64,
    agents: Vec<Counted>,
    changed: bool,
}

impl Tally {
    /// Nobody is connected, nobody holds anything.
    pub(super) fn new(agents: usize) -> Self {
        let nothing = Counted { config: None, status: ConfigStatus::Unset, healthy: false };
        Self {
            counts: Counts { agents, without_config: agents, ..Counts::default() },
            configs: BTreeMap::new(),
            next_config: 0,
            agents: vec![nothing; agents],
            changed: true,
        }
    }

    /// The numbers to add to that need no further care.
    pub(super) fn counts(&mut self) -> &mut Counts {
        self.changed = true;
        &mut self.counts
    }

    /// Counts a message that `agent` heard, and what it made of it.
    pub(super) fn heard(&mut self, heard: &Heard, now: Timestamp) {
        let counts = self.counts();
        counts.received += 1;
        let config = match heard {
            Heard::Nothing => return,
            Heard::Error => {
                counts.errors += 1;
                return;
            }
            Heard::Offer(config) => config,
            Heard::RepeatedOffer(config) => {
                counts.repeated_offers += 1;
                config
            }
        };
        counts.offers += 1;
        let number = self.number_of(config);
        if let Some((_, holding)) = self.configs.get_mut(&number) {
            holding.offers += 1;
            holding.first_receipt.get_or_insert(now);
            holding.last_receipt = Some(now);
        }
    }

    /// Counts what `agent` holds now instead of what it held when it was last looked at.
    pub(super) fn look_at(&mut self, agent: &Agent, now: Timestamp) {
        let (config, status) = agent.holds();
        let current =
            Counted { config: config.map(|config| self.number_of(config)), status, healthy: agent.is_healthy() };
        let Some(counted) = self.agents.get_mut(agent.number() as usize) else { return };
        let before = std::mem::replace(counted, current);
        if before.healthy != current.healthy {
            self.changed = true;
            if current.healthy {
                self.counts.healthy += 1;
            } else {
                self.counts.healthy = self.counts.healthy.saturating_sub(1);
            }
        }
        if (before.config, before.status) == (current.config, current.status) {
            return;
        }
        self.changed = true;
        if let Some((_, holding)) = before.config.and_then(|number| self.configs.get_mut(&number))
            && let Some(slot) = holding.slot(before.status)
        {
            *slot = slot.saturating_sub(1);
        }
        if before.config.is_none() {
            self.counts.without_config = self.counts.without_config.saturating_sub(1);
        }
        if let Some((_, holding)) = current.config.and_then(|number| self.configs.get_mut(&number)) {
            if let Some(slot) = holding.slot(status) {
                *slot += 1;
            }
            if status == ConfigStatus::Applied {
                holding.first_applied.get_or_insert(now);
                holding.last_applied = Some(now);
            }
        }
    }

    /// The numbers, if they changed since they were last taken.
    pub(super) fn take(&mut self, contradictions: u64) -> Option<Counts> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut counts = self.counts.clone();
        counts.contradictions = contradictions;
        counts.configs = self.configs.values().map(|(_, holding)| holding.clone()).collect();
        counts.applied = counts.configs.iter().map(|holding| holding.applied).sum();
        counts.applying = counts.configs.iter().map(|holding| holding.applying).sum();
        counts.failed = counts.configs.iter().map(|holding| holding.failed).sum();
        Some(counts)
    }

    fn number_of(&mut self, config: &OfferedConfig) -> u64 {
        if let Some((number, _)) = self.configs.iter().rev().find(|(_, (hash, _))| hash == config.hash()) {
            return *number;
        }
        if self.configs.len() >= MOST_CONFIGS {
            let abandoned =
                self.configs.iter().find(|(_, (_, holding))| holding.holders() == 0).map(|(number, _)| *number);
            if let Some(number) = abandoned {
                self.configs.remove(&number);
            }
        }
        let holding = Holding {
            hash: hex::encode(config.hash()).into(),
            applied: 0,
            applying: 0,
            failed: 0,
            offers: 0,
            first_receipt: None,
            last_receipt: None,
            first_applied: None,
            last_applied: None,
        };
        let number = self.next_config;
        self.next_config += 1;
        self.configs.insert(number, (config.hash().clone(), holding));
        number
    }
}
