//! Sockets: agents, hooks and the admin interface. Carries messages in and out, decides nothing.

pub mod admin;
mod admission;
pub mod api;
mod arrival;
pub mod bell;
mod collected;
pub mod frames;
pub mod gate;
pub mod hints;
pub mod hooks;
mod http;
mod links;
mod listener;
pub mod metrics;
pub(crate) mod orders;
mod plain;
mod polling;
mod quota;
mod room;
pub(crate) mod socket;
pub mod tls;
pub mod traffic;
mod unusable;
mod websocket;
mod yielding;

pub use arrival::Pace;
pub use links::AgentLinks;
pub use unusable::Unusable;

pub use listener::{AgentMessage, AgentServerOptions, serve_agents};
