//! gitamp: GitOps for OpenTelemetry Collector fleets.

pub mod agent;
pub mod config;
pub mod fleet;
pub mod labels;
pub mod time;
pub mod view;
pub mod yaml;
