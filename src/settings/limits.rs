//! What others may take of the daemon at most, and the settings that say so.

use std::time::Duration;

/// What one address, token, connection or agent may take of the agents' listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentLimits {
    /// Connections at once from one address, and agents that poll from there without a token; `None`: as many as in all.
    pub per_address: Option<u32>,
    /// Connections and polling agents at once with one token; `None`: as many as in all.
    pub per_token: Option<u32>,
    /// Agents that poll, in all.
    pub polling: usize,
    /// Agents that one token or address may bring in a minute; `None`: as many as come.
    pub new_agents: Option<u32>,
    /// Agents on one connection.
    pub per_connection: usize,
    /// Messages of one agent in ten seconds.
    pub messages: u32,
    /// Bytes of messages of one agent in ten seconds.
    pub bytes: usize,
    /// Attributes in a description: 1 to 256.
    pub attributes: usize,
    /// Bytes of all attributes of one agent, as they are kept: 1 KiB to 1 MiB.
    pub attribute_bytes: usize,
    /// Bytes of larger messages at a time, over all connections: at least as many as four of the largest message have.
    pub in_flight: usize,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            per_address: Some(40_000),
            per_token: Some(100_000),
            polling: 50_000,
            new_agents: Some(30_000),
            per_connection: 1_024,
            messages: 2_000,
            bytes: 64 << 20,
            attributes: 256,
            attribute_bytes: 32 << 10,
            in_flight: 64 << 20,
        }
    }
}

/// What whoever delivers webhooks may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookLimits {
    /// Bytes of one body: 4 KiB to 32 MiB. GitHub sends up to 25 MiB for pushes of thousands of commits; what is larger than this is turned
    /// away, and the poll interval finds the push.
    pub body: usize,
    /// Deliveries of one address in a minute that prove nothing; `None`: as many as come.
    pub a_minute: Option<u32>,
}

impl Default for HookLimits {
    fn default() -> Self {
        Self { body: 1 << 20, a_minute: Some(600) }
    }
}

/// What strangers, and operators who do too much, may take of the operators' listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiLimits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub per_address: usize,
    /// TLS handshakes at a time.
    pub handshakes: usize,
    /// How long a handshake may take, and how long it may wait for its turn: as for agents.
    pub handshake_timeout: Duration,
    /// Requests of one operator in a second; three times as many at once.
    pub requests: u32,
    /// Requests of one address in a minute that prove nothing, and as many at once; others are answered late.
    pub unproven: u32,
    /// Bytes of one order: 1 KiB to 1 MiB.
    pub body: usize,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            per_address: 32,
            handshakes: 64,
            handshake_timeout: Duration::from_secs(10),
            requests: 20,
            unproven: 10,
            body: 16 << 10,
        }
    }
}

/// How much one commit may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentLimits {
    /// Files below the fleet root, whatever they are: 1 to 2,000,000.
    pub files: usize,
    /// Bytes of one YAML file: 1 KiB to 16 MiB.
    pub file_bytes: usize,
    /// Bytes of all YAML files: 1 KiB to 4 GiB.
    pub total_bytes: usize,
    /// Directories within directories: 1 to 200.
    pub depth: usize,
    /// Collections within collections of one YAML file: 8 to 255.
    pub yaml_depth: usize,
    /// Bytes of one rendered configuration: 1 KiB to 1 MiB.
    pub config_bytes: usize,
}

impl ContentLimits {
    /// The settings that say it.
    pub const NAMES: [&'static str; 6] =
        ["max-files", "max-directory-depth", "max-file-size", "max-fleet-size", "max-yaml-depth", "max-config-size"];
}

impl Default for ContentLimits {
    fn default() -> Self {
        Self {
            files: 200_000,
            file_bytes: 1 << 20,
            total_bytes: 256 << 20,
            depth: 32,
            yaml_depth: 64,
            config_bytes: 512 << 10,
        }
    }
}

/// The largest answer of a forge or of a receiver of alerts that is read: a page of a hundred comments fits.
pub const LARGEST_ANSWER: usize = 8 << 20;
