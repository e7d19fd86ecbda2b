//! The hidden `gitamp git-transport`: one transfer for the daemon, in a process that can be killed.

use std::process::ExitCode;

/// Runs one Git transfer for gitamp itself: reads a request from standard input, answers on standard output.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

impl Arguments {
    /// Runs it; failures are part of the answer.
    pub(super) fn run(self) -> ExitCode {
        crate::git::run_transport_child()
    }
}
