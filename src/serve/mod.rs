//! Sockets: agents, hooks and the admin interface. Carries messages in and out, decides nothing.

pub mod bell;
mod frames;
mod http;
mod links;
mod listener;
pub mod metrics;
mod polling;
pub mod traffic;
mod websocket;

pub use links::AgentLinks;
pub use listener::{AgentMessage, AgentServerOptions, serve_agents};
