//! A child process with all that it starts: nothing of it outlives its owner, however that ends.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For an orderly end; a collector may take 10 s, and its supervisor waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that leads a group of its own. Dropping it interrupts it, and kills what is left of the group.
pub(crate) struct Process {
    child: Child,
    /// Kills the group when its standard input ends: when this value is dropped, or when the test is killed.
    guard: Child,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::spawn(command.stdin(Stdio::null()))
    }

    /// The same, with pipes into it and out of it.
    pub(crate) fn start_talking(command: &mut Command) -> (Self, ChildStdin, ChildStdout) {
        let mut process = Self::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let input = process.child.stdin.take().expect("it has an input");
        let output = process.child.stdout.take().expect("it has an output");
        (process, input, output)
    }

    fn spawn(command: &mut Command) -> Self {
        let child = command.process_group(0).spawn().expect("the program starts");
        let guard = Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -s KILL -- \"-$0\" 2>/dev/null", &child.id().to_string()])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Self { child, guard }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, when it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is ours to wait for")
    }

    /// The processes of its group that run a program of this name.
    pub(crate) fn named(&self, name: &str) -> Vec<u32> {
        let is_ours = |stat: &str| {
            let (before, after) = stat.rsplit_once(')')?;
            let (_, program) = before.split_once('(')?;
            let mut fields = after.split_whitespace();
            let (state, group) = (fields.next()?, fields.nth(1)?);
            (program == name && state != "Z" && group.parse() == Ok(self.id())).then_some(())
        };
        let processes = fs::read_dir("/proc").expect("Linux").flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let mut found: Vec<u32> = ids
            .filter(|id| fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| is_ours(&stat).is_some()))
            .collect();
        found.sort_unstable();
        found
    }

    /// Kills the whole group, at once.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Asks it to end and waits; true when it did by itself.
    fn interrupt(&mut self) -> bool {
        if self.ended().is_some() {
            return true;
        }
        let kill = ["-c", "kill -s INT -- \"$0\"", &self.id().to_string()];
        Command::new("sh").args(kill).status().expect("sh starts");
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.ended().is_some() {
                return true;
            }
            sleep(Duration::from_millis(20));
        }
        false
    }

    fn end(&mut self) -> Option<io::Error> {
        drop(self.guard.stdin.take());
        self.guard.wait().and_then(|_| self.child.wait()).err()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.guard.stdin.is_none() {
            return;
        }
        let is_orderly = self.interrupt();
        let error = self.end();
        if !std::thread::panicking() {
            assert!(is_orderly, "process {} did not end within {PATIENCE:?} of SIGINT", self.id());
            assert!(error.is_none(), "{error:?}");
        }
    }
}
