//! Connection settings that agents are offered: the interval of their heartbeats, and nothing else.
//!
//! Real clients take an offer of OpAMP settings as the whole set: with an address in it they would drop the headers and the
//! certificates that they were configured with. Without one they keep their connection and take the interval, so that is what is
//! sent, although the specification calls the address required.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::inbound::SettingsOutcome;
use super::proto::{ConnectionSettingsOffers, ConnectionSettingsStatuses, OpAmpConnectionSettings};
use crate::agent::Capabilities;

/// What is hashed in front of the interval: a later form of these settings must have another hash.
const FORM: &str = "gitamp connection settings 1: heartbeat_interval_seconds=";

/// What may be offered to an agent that is to take an interval: it takes OpAMP settings, and it sends heartbeats.
const NEEDED: Capabilities =
    Capabilities(Capabilities::ACCEPTS_OPAMP_CONNECTION_SETTINGS.0 | Capabilities::REPORTS_HEARTBEAT.0);

/// Settings for the connections of agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Never 0: that would switch heartbeats off.
    seconds: u64,
    hash: Bytes,
}

impl ConnectionSettings {
    /// Heartbeats in this interval, in whole seconds. `None` when it is shorter than a second.
    pub fn heartbeat(interval: Duration) -> Option<Self> {
        let seconds = interval.as_secs();
        let hash = Sha256::digest(format!("{FORM}{seconds}")).to_vec().into();
        (seconds > 0).then_some(Self { seconds, hash })
    }

    /// The message that offers them.
    pub(super) fn offer(&self) -> ConnectionSettingsOffers {
        let opamp = OpAmpConnectionSettings { heartbeat_interval_seconds: self.seconds, ..Default::default() };
        ConnectionSettingsOffers { hash: self.hash.clone(), opamp: Some(opamp), ..Default::default() }
    }
}

impl SettingsOutcome {
    fn is_final(&self) -> bool {
        self.is_failure() || self.status == i32::from(ConnectionSettingsStatuses::Applied)
    }

    /// True when the agent could not use the settings.
    pub(super) fn is_failure(&self) -> bool {
        self.status == i32::from(ConnectionSettingsStatuses::Failed)
    }
}

/// How far an agent is with the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// They were not offered on this connection.
    Fresh,
    /// They were offered.
    Offered,
    /// They were offered, and a status about others came since, which may have been on its way already.
    Doubtful,
    /// The agent reports them, applied or failed: sending them again would change nothing.
    Reported,
}

impl Progress {
    /// Looks at a message of an agent that declared `capabilities`: true when the settings are to go along with the answer. `is_full`: it
    /// describes the agent, so a status that it does not have is none.
    pub(super) fn step(
        &mut self,
        settings: &ConnectionSettings,
        capabilities: Capabilities,
        status: Option<&SettingsOutcome>,
        is_full: bool,
    ) -> bool {
        let reports = capabilities.contains(Capabilities::REPORTS_CONNECTION_SETTINGS_STATUS);
        let reported = status.filter(|_| reports);
        if let Some(outcome) = reported.filter(|outcome| outcome.hash == settings.hash) {
            *self = if outcome.is_final() { Self::Reported } else { Self::Offered };
            return false;
        }
        let is_told = reported.is_some() || is_full || !reports;
        let is_due = capabilities.contains(NEEDED)
            && match *self {
                Self::Fresh => is_told,
                Self::Offered => {
                    if reported.is_some() {
                        *self = Self::Doubtful;
                    }
                    false
                }
                Self::Doubtful | Self::Reported => reported.is_some(),
            };
        if is_due {
            *self = Self::Offered;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_never_zero_and_has_a_hash_of_its_own() {
        for (interval, seconds) in [(0, None), (999, None), (1_000, Some(1)), (30_999, Some(30))] {
            let settings = ConnectionSettings::heartbeat(Duration::from_millis(interval));
            let offered = settings.map(|settings| settings.offer());
            let found =
                offered.as_ref().and_then(|offer| offer.opamp.as_ref()).map(|opamp| opamp.heartbeat_interval_seconds);
            assert_eq!(found, seconds, "{interval} ms");
            assert!(offered.is_none_or(|offer| offer.hash.len() == 32 && offer.own_metrics.is_none()));
        }
        let hash = |seconds| ConnectionSettings::heartbeat(Duration::from_secs(seconds)).map(|settings| settings.hash);
        assert_ne!(hash(10), hash(20));
        // Frozen: another hash would make every agent that reports it take the same settings once more.
        assert_eq!(
            hash(30).map(hex::encode).as_deref(),
            Some("f08aa8322404b518267b3990753a39af3b8f73f96b1ea17362f4c6c57ccbfe57")
        );
    }

    #[test]
    fn settings_are_offered_once_and_again_only_when_others_are_reported() {
        let settings = ConnectionSettings::heartbeat(Duration::from_secs(10)).expect("ten seconds");
        let outcome = |hash: &Bytes, status: ConnectionSettingsStatuses| SettingsOutcome {
            hash: hash.clone(),
            status: status.into(),
            ..Default::default()
        };
        use ConnectionSettingsStatuses::{Applied, Applying, Failed, Unset};
        let (ours, others) = (settings.hash.clone(), Bytes::from_static(b"others"));
        let (silent, telling) = (0x2100, 0xa100);
        let steps = |bits: u64, messages: &[(Option<SettingsOutcome>, bool)]| {
            let mut progress = Progress::Fresh;
            let mut letters = String::new();
            for (status, is_full) in messages {
                let is_due = progress.step(&settings, Capabilities(bits), status.as_ref(), *is_full);
                letters.push(if is_due { 'o' } else { '-' });
            }
            letters
        };
        let bare = (None, false);
        let full = (None, true);
        let said = |hash: &Bytes, status| (Some(outcome(hash, status)), false);
        for (what, bits, messages, expected) in [
            ("no heartbeats", 0x100, vec![full.clone(), bare.clone()], "--"),
            ("no settings", 0x2000, vec![full.clone(), bare.clone()], "--"),
            ("one that never reports", silent, vec![bare.clone(), full.clone(), bare.clone()], "o--"),
            ("one that is still to report", telling, vec![bare.clone(), full.clone(), bare.clone()], "-o-"),
            ("one that has them", telling, vec![said(&ours, Applied), full.clone()], "--"),
            (
                "one that has others",
                telling,
                vec![said(&others, Applied), said(&ours, Applying), said(&ours, Applied)],
                "o--",
            ),
            ("none yet", telling, vec![said(&Bytes::new(), Unset), bare.clone()], "o-"),
            ("a status that was on its way", telling, vec![full.clone(), said(&others, Applied), bare.clone()], "o--"),
            ("again others", telling, vec![full.clone(), said(&others, Applied), said(&others, Applied)], "o-o"),
            ("refused", telling, vec![full.clone(), said(&ours, Failed), bare.clone()], "o--"),
            ("lost later", telling, vec![full, said(&ours, Applied), said(&others, Applied), bare], "o-o-"),
        ] {
            assert_eq!(steps(bits, &messages), expected, "{what}");
        }
    }
}
