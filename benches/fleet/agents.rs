//! The simulated fleet as a child process, and what it tells line by line.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::Failure;
use crate::process::Process;

/// What the fleet told last; see `gitamp simulate --output json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Told {
    started_epoch_ms: u64,
    /// Agents on an open connection.
    pub(crate) connected: usize,
    /// Agents that hold something.
    pub(crate) applied: usize,
    /// Connections that came up.
    pub(crate) connects: u64,
    /// Connections that broke.
    pub(crate) lost: u64,
    /// Attempts that were turned away.
    pub(crate) refused: u64,
    /// Offers received.
    pub(crate) offers: u64,
    /// Of a hash that the agent had been offered last.
    pub(crate) repeated_offers: u64,
    malformed: u64,
    errors: u64,
    configs: Vec<Config>,
}

/// What it told about one configuration; times in milliseconds since the fleet started.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    /// In hexadecimal digits.
    pub(crate) hash: String,
    /// Agents that run it.
    pub(crate) applied: usize,
    first_receipt_ms: Option<f64>,
    last_receipt_ms: Option<f64>,
    last_applied_ms: Option<f64>,
}

/// When a configuration arrived, in milliseconds since the epoch.
pub(crate) struct Arrival {
    /// At the first agent.
    pub(crate) first_receipt: f64,
    /// At the last one.
    pub(crate) last_receipt: f64,
    /// When the last one had applied it.
    pub(crate) last_applied: f64,
}

impl Told {
    /// The configuration that arrived last.
    pub(crate) fn newest(&self) -> Option<&Config> {
        self.configs.last()
    }

    /// How many agents run it.
    pub(crate) fn run_newest(&self) -> usize {
        self.newest().map_or(0, |config| config.applied)
    }

    /// When it arrived.
    pub(crate) fn arrival(&self) -> Option<Arrival> {
        let epoch = |millis: Option<f64>| Some(self.started_epoch_ms as f64 + millis?);
        let newest = self.newest()?;
        Some(Arrival {
            first_receipt: epoch(newest.first_receipt_ms)?,
            last_receipt: epoch(newest.last_receipt_ms)?,
            last_applied: epoch(newest.last_applied_ms)?,
        })
    }
}

/// `gitamp simulate`.
pub(crate) struct Agents {
    /// The process.
    pub(crate) process: Process,
    told: Arc<(Mutex<Told>, Condvar)>,
}

impl Agents {
    /// Starts so many agents, which apply whatever they are offered at once.
    pub(crate) fn start(url: &str, agents: usize, attributes: usize, more: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gitamp"));
        command.args(["simulate", "--output", "json", "--apply-delay", "0", "--server", url]);
        command.args(["--agents", &agents.to_string()]).args(more);
        // Seven are reported anyhow.
        for number in 7..attributes {
            command.args(["--attr", &format!("label.number.{number}=value-{{n%{}}}", number * 3)]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let output = process.child().stdout.take().ok_or("no output of the simulator")?;
        let told = Arc::new((Mutex::new(Told::default()), Condvar::new()));
        let teller = Arc::clone(&told);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(told) = serde_json::from_str(&line) {
                    *teller.0.lock().unwrap_or_else(PoisonError::into_inner) = told;
                    teller.1.notify_all();
                }
            }
        });
        Ok(Self { process, told })
    }

    /// What it told last.
    pub(crate) fn told(&self) -> Told {
        self.told.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it told something that fits.
    pub(crate) fn wait(&mut self, what: &str, bound: Duration, fits: impl Fn(&Told) -> bool) -> Result<Told, Failure> {
        let end = Instant::now() + bound;
        loop {
            let told = self.told.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (told, _) = self
                .told
                .1
                .wait_timeout_while(told, Duration::from_millis(500), |told| !fits(told))
                .unwrap_or_else(PoisonError::into_inner);
            if fits(&told) {
                return Ok(told.clone());
            }
            let told = told.clone();
            self.process.check("gitamp simulate")?;
            if Instant::now() > end {
                return Err(format!("not within {bound:?}: {what}; the fleet told last: {told:?}").into());
            }
        }
    }

    /// Fails when something happened that never may.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let told = self.told();
        if told.malformed + told.errors + told.repeated_offers > 0 {
            return Err(format!("agents were sent what they never may be: {told:?}").into());
        }
        Ok(())
    }
}
