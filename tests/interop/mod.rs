//! Real agents, built by `build.sh` beside this file, and what they are driven with: the OpenTelemetry supervisor with a collector, and an
//! agent on the OpAMP client library.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

mod built;
mod client;
mod daemon;
mod fleet;
mod process;
mod supervisor;
mod tap;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(crate) use client::Client;
pub(crate) use daemon::Daemon;
pub(crate) use fleet::FleetRepository;
pub(crate) use supervisor::Supervisor;
pub(crate) use tap::Tap;

/// The slowest thing that a test waits for: an agent that polls every 30 s, on a machine that is busy.
const BOUND: Duration = Duration::from_secs(120);

/// The two programs.
pub(crate) struct Programs {
    supervisor: PathBuf,
    collector: PathBuf,
}

impl Programs {
    /// Where `build.sh` put them; `None`, and a word about it, where there is no Go.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let place = built::find("agents", test)?;
        Some(Self { supervisor: place.join("opampsupervisor"), collector: place.join("otelcol") })
    }
}

/// Waits until `look` finds something. What it last saw instead is part of the panic.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + BOUND;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > end => panic!("{what}: not within {BOUND:?}; last seen: {seen}"),
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
}
