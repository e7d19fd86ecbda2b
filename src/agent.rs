//! One agent as the controller knows it: who it is, what it can do, what it last said of its configuration and health.
//!
//! Protobuf ends in `opamp`; these are the words that cross from a session to the controller. Every string in here has already
//! been bounded and stripped of control characters by the session.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::config::{ComponentNames, ConfigHash};
use crate::labels::Labels;

/// An OpAMP `instance_uid`: 16 bytes, shown as a UUID. Never all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId([u8; 16]);

impl AgentId {
    /// The id with these bytes; `None` for any other length than 16 and for all zeros (spec: "instance_uid").
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 16] = bytes.try_into().ok()?;
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// The bytes as they go over the wire.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", uuid::Uuid::from_bytes(self.0).as_hyphenated())
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is no UUID, or the one of zeros.
#[derive(Debug, thiserror::Error)]
#[error("an agent's id is a UUID like 019a9c64-81f2-772e-b193-011beed33277")]
pub struct NotAnAgentId;

impl FromStr for AgentId {
    type Err = NotAnAgentId;

    fn from_str(text: &str) -> Result<Self, NotAnAgentId> {
        let parsed = uuid::Uuid::try_parse(text).map_err(|_| NotAnAgentId)?;
        Self::new(parsed.as_bytes()).ok_or(NotAnAgentId)
    }
}

/// A connection of this process, never used twice. An agent that polls over HTTP has one for as long as it keeps polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// How an agent talks to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One open socket, both directions at any time.
    WebSocket,
    /// A request now and then; what we want to say waits for the next one.
    Http,
}

/// The bits of `AgentCapabilities` that the agent declared last. Unknown bits are kept and ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// `AcceptsRemoteConfig`: may be offered a configuration.
    pub const ACCEPTS_REMOTE_CONFIG: Self = Self(0x2);
    /// `ReportsEffectiveConfig`: tells what it runs.
    pub const REPORTS_EFFECTIVE_CONFIG: Self = Self(0x4);
    /// `AcceptsOpAMPConnectionSettings`: takes settings for its connection.
    pub const ACCEPTS_OPAMP_CONNECTION_SETTINGS: Self = Self(0x100);
    /// `AcceptsRestartCommand`: may be told to restart.
    pub const ACCEPTS_RESTART_COMMAND: Self = Self(0x400);
    /// `ReportsHealth`: tells whether it is well.
    pub const REPORTS_HEALTH: Self = Self(0x800);
    /// `ReportsRemoteConfig`: tells what became of an offer.
    pub const REPORTS_REMOTE_CONFIG: Self = Self(0x1000);
    /// `ReportsHeartbeat`: speaks up at intervals.
    pub const REPORTS_HEARTBEAT: Self = Self(0x2000);
    /// `ReportsAvailableComponents`: can list what its binary holds.
    pub const REPORTS_AVAILABLE_COMPONENTS: Self = Self(0x4000);
    /// `ReportsConnectionSettingsStatus`: tells what became of settings for its connection.
    pub const REPORTS_CONNECTION_SETTINGS_STATUS: Self = Self(0x8000);

    /// True when every bit of `other` is declared.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Which configuration a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportedHash {
    /// None was ever received.
    None,
    /// A hash of our form.
    Known(ConfigHash),
    /// Bytes that are no hash of ours: another server's.
    Foreign,
}

/// `RemoteConfigStatuses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigStatus {
    /// Nothing was received yet, or an unknown number.
    Unset,
    /// In use, as far as the agent can tell.
    Applied,
    /// Received, not in use yet.
    Applying,
    /// Could not be used.
    Failed,
}

/// The last `remote_config_status` of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigState {
    /// The configuration it is about.
    pub hash: ReportedHash,
    /// What became of it.
    pub status: ConfigStatus,
    /// The agent's words when it failed; at most 1 KiB, printable.
    pub message: Option<Arc<str>>,
}

impl ConfigState {
    /// The state of an agent that never received a configuration.
    pub const NOTHING: Self = Self { hash: ReportedHash::None, status: ConfigStatus::Unset, message: None };

    /// The hash, when it is one of our form.
    pub fn known(&self) -> Option<ConfigHash> {
        match self.hash {
            ReportedHash::Known(hash) => Some(hash),
            ReportedHash::None | ReportedHash::Foreign => None,
        }
    }

    /// True when this is about `hash`.
    pub fn is_about(&self, hash: ConfigHash) -> bool {
        self.hash == ReportedHash::Known(hash)
    }
}

/// The top of an agent's last health report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Up and well.
    pub healthy: bool,
    /// The agent's words when it is not; at most 1 KiB, printable.
    pub message: Option<Arc<str>>,
}

/// What changed about an agent. `None` means "as before"; what is present replaces what was known (spec: status compression).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentReport {
    /// The capabilities, when they are stated and differ.
    pub capabilities: Option<Capabilities>,
    /// The labels, when the description changed.
    pub labels: Option<Labels>,
    /// The configuration's state. The session also sends [`ConfigState::NOTHING`] when a full report held none.
    pub config: Option<ConfigState>,
    /// The health.
    pub health: Option<Health>,
    /// The names in the effective configuration (equal ones share memory).
    pub effective: Option<Arc<ComponentNames>>,
    /// The names of the components that its build could run (agents of one build share memory).
    pub available: Option<Arc<ComponentNames>>,
}

impl AgentReport {
    /// True when nothing changed, as in a heartbeat.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a session tells the controller. Heartbeats are not among it.
#[derive(Clone, Debug)]
pub enum AgentEvent {
    /// The first valid message of this agent on this connection. A connection that had the agent before no longer has it;
    /// what was known of the agent still holds until a report says otherwise, but whether it still does is unknown until
    /// the agent was heard on this connection ([`AgentEvent::Report`] with its configuration's state).
    Connected {
        /// Who.
        id: AgentId,
        /// Where.
        connection: ConnectionId,
        /// How.
        transport: Transport,
        /// The labels that it proved on that connection. What is known of an agent that proved others is of somebody else.
        proofs: Labels,
    },
    /// Something changed. Events of a connection that no longer has the agent are ignored.
    Report {
        /// Who.
        id: AgentId,
        /// Where.
        connection: ConnectionId,
        /// What.
        report: Box<AgentReport>,
    },
    /// The agent is no longer on this connection.
    Gone {
        /// Who.
        id: AgentId,
        /// Where it was.
        connection: ConnectionId,
        /// True when it said so (`agent_disconnect`), false when the connection just ended or the polls stopped.
        goodbye: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sixteen_bytes_and_not_zero() {
        assert!(AgentId::new(&[]).is_none());
        assert!(AgentId::new(&[1; 15]).is_none());
        assert!(AgentId::new(&[1; 17]).is_none());
        assert!(AgentId::new(&[0; 16]).is_none());
        let id = AgentId::new(&[0x01; 16]).expect("sixteen bytes");
        assert_eq!(id.to_string(), "01010101-0101-0101-0101-010101010101");
        assert_eq!(id.to_string().parse::<AgentId>().ok(), Some(id));
        assert!("00000000-0000-0000-0000-000000000000".parse::<AgentId>().is_err());
    }
}
