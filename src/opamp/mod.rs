//! How agents are spoken to: the protobuf messages, their framing, one agent's session and one connection's sessions. No sockets.
//!
//! ```text
//! bytes ─ wire (limits) ─> inbound ─> connection (who speaks?) ─> session ─┬─> AgentEvent, when something changed
//!                                                    offer ────────────────┴─> OutMessage: own bytes + shared bytes
//! ```
//!
//! Invariants: every message gets one answer; nothing of a refused message counts; the same configuration never leaves twice in
//! a row on one connection unless a person asked (over HTTP, where answers get lost, at most three times and 60 s apart); no
//! body of a configuration and no value in one is kept.

pub mod attributes;
mod components;
pub mod connection;
mod duplicates;
mod effective;
mod inbound;
mod masking;
pub mod proto;
#[cfg(test)]
mod proto_tests;
mod session;
mod settings;
pub mod wire;

pub use components::{Builds, Lookup};
pub use effective::{NameCache, SharedNames};
pub use inbound::Digest;
pub use masking::mask;
pub use session::Offer;
pub use settings::ConnectionSettings;
