//! Sockets: agents, hooks and the admin interface. Carries messages in and out, decides nothing.

pub mod bell;
pub mod metrics;
