//! A child process that ends with its owner, and what the kernel says about it.

use std::fs;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use crate::Failure;

/// A child process; dropping it kills it, by its id.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a command.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Failure> {
        Ok(Self(command.spawn()?))
    }

    /// The child, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Kills it without a chance to do anything, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.0.kill().ok(); // it may have ended by itself
        self.0.wait().ok();
    }

    /// Fails when it has ended.
    pub(crate) fn check(&mut self, name: &str) -> Result<(), Failure> {
        match self.0.try_wait()? {
            Some(status) => Err(format!("{name} ended: {status}").into()),
            None => Ok(()),
        }
    }

    /// Resident memory now, in KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64, Failure> {
        self.status("VmRSS:")
    }

    /// The most resident memory since [`Process::forget_peak`], in KiB.
    pub(crate) fn peak_kib(&self) -> Result<u64, Failure> {
        self.status("VmHWM:")
    }

    /// Starts a new measurement of the peak.
    pub(crate) fn forget_peak(&self) -> Result<(), Failure> {
        let written = fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5");
        Ok(written.map_err(|error| format!("only root may start a measurement of the daemon's memory: {error}"))?)
    }

    /// Resident memory once it has not changed by a percent for two seconds; at most half a minute is waited for that.
    pub(crate) fn settled_kib(&self) -> Result<u64, Failure> {
        let mut last = self.resident_kib()?;
        for _ in 0..15 {
            sleep(Duration::from_secs(2));
            let now = self.resident_kib()?;
            if now.abs_diff(last) * 100 <= last {
                return Ok(now);
            }
            last = now;
        }
        Ok(last)
    }

    /// Seconds of processor time so far, of all its threads.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks =
            |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).ok_or("an odd /proc/PID/stat");
        Ok((ticks(11)? + ticks(12)?) / 100.0) // USER_HZ is 100 on every Linux that this runs on
    }

    fn status(&self, field: &str) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find(|line| line.starts_with(field)).ok_or("no memory in /proc/PID/status")?;
        Ok(line.split_whitespace().nth(1).ok_or("an odd /proc/PID/status")?.parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
