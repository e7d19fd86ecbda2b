//! Real agents: the OpenTelemetry supervisor and a collector, built by `build.sh` beside this file, and what they are driven with.

mod daemon;
mod fleet;
mod process;
mod supervisor;
mod tap;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

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
    /// Where `build.sh` put them. Without them the caller has nothing to test, which is said where a person sees it.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/build.sh");
        let output = Command::new(&script).arg("--where").output().expect("build.sh runs");
        assert!(output.status.success(), "{}: {output:?}", script.display());
        let place = PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end());
        let found = Self { supervisor: place.join("opampsupervisor"), collector: place.join("otelcol") };
        if found.supervisor.exists() && found.collector.exists() {
            return Some(found);
        }
        // Not by `eprintln!`: the test harness keeps that of a test that passes to itself.
        let why = "no real agents are built; tests/interop/build.sh does that, with Go";
        writeln!(std::io::stderr(), "skipped: {test}: {why}").expect("standard error is there");
        None
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
