//! The demo as a person runs it: it tells its story to the end, ends well, and leaves nothing behind.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long the demo may say nothing.
const BOUND: Duration = Duration::from_secs(120);

/// The demo, with a directory for temporary files of its own; killed by its id if a test ends before it does.
struct Demo(Child);

impl Demo {
    fn start(directory: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gitamp"));
        command.args(["demo", "--fast", "--agents", "30"]).env("TMPDIR", directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("the demo starts"))
    }

    /// Collects what it prints; each time more has come, `look` sees all of it.
    fn watch(&mut self, mut look: impl FnMut(&str)) -> (String, Option<i32>) {
        let mut output = self.0.stdout.take().expect("its output");
        let (sender, chunks) = mpsc::sync_channel(16);
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                if sender.send(chunk[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut told = Vec::new();
        loop {
            match chunks.recv_timeout(BOUND) {
                Ok(chunk) => told.extend(chunk),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("nothing more for {BOUND:?}: {}", String::from_utf8_lossy(&told))
                }
            }
            look(&String::from_utf8_lossy(&told));
        }
        let told = String::from_utf8(told).expect("text");
        let mut errors = String::new();
        self.0.stderr.take().expect("its errors").read_to_string(&mut errors).expect("text");
        assert_eq!(errors, "", "{told}");
        (told, self.0.wait().expect("its end").code())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn entries(directory: &Path) -> Vec<String> {
    let read = fs::read_dir(directory).expect("the directory");
    read.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_demo_tells_its_story_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let (told, code) = Demo::start(directory.path()).watch(|_| {});
    assert_eq!(code, Some(0), "{told}");
    let mut rest = told.as_str();
    for expected in [
        "1. A fleet repository",
        "matchLabels: {env: prod, role: gateway}",
        "stages:",
        "name: canary",
        "30 simulated agents",
        "12/12 run it",
        "Every agent runs what the repository says.",
        "send_batch_size: 4096",
        "stage canary",
        "Every agent runs the new configuration.",
        "otlphtp/backend",
        "could not use it. Nobody but the canaries",
        "exit code 1 while applying configuration",
        "$ git revert",
        "Git and the fleet say the same again, and nobody had to be sent anything.",
        "$ git notes",
        "ending: rolled-back",
        "gitamp serve --repo",
    ] {
        let at =
            rest.find(expected).unwrap_or_else(|| panic!("`{expected}` is missing, or comes too early, in: {told}"));
        rest = &rest[at..];
    }
    assert!(!told.contains('\x1b'), "no colours and no motion without a terminal");
    assert_eq!(entries(directory.path()), [""; 0], "nothing is left behind");
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind_either() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut demo = Demo::start(directory.path());
    let id = demo.0.id().to_string();
    let mut interrupted = false;
    let (told, code) = demo.watch(|told| {
        if !interrupted && told.contains("simulated agents speak") {
            interrupted = Command::new("kill").args(["-INT", &id]).status().expect("kill").success();
        }
    });
    assert!(interrupted, "{told}");
    assert_eq!(code, Some(130), "{told}");
    assert!(!told.contains("On your own repository"), "{told}");
    assert_eq!(entries(directory.path()), [""; 0], "nothing is left behind");
}
