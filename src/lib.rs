//! gitamp: GitOps for OpenTelemetry Collector fleets.

pub mod agent;
pub mod cli;
pub mod config;
pub mod controller;
pub mod daemon;
pub mod fleet;
pub mod forge;
pub mod git;
pub mod labels;
pub mod opamp;
pub mod rollout;
pub mod roster;
pub mod serve;
pub mod settings;
pub mod simulate;
pub mod time;
pub mod view;
pub mod yaml;
