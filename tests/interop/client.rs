//! An agent on the OpAMP client library of the OpenTelemetry project: `client/` beside this file.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::Deserialize;

use super::process::Process;
use super::{built, wait};

/// Something that happened to it, in its own words.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    pub(crate) event: String,
    #[serde(default)]
    pub(crate) hash: String,
    #[serde(default)]
    pub(crate) text: String,
}

/// The agent. It ends with a goodbye when it is dropped.
pub(crate) struct Client {
    process: Process,
    input: Option<ChildStdin>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Client {
    /// Where its program is, when it has been built; the test is skipped otherwise.
    pub(crate) fn find(test: &str) -> Option<PathBuf> {
        Some(built::find("client", test)?.join("client"))
    }

    /// Starts one that keeps what it is offered below `directory`, fails whatever holds `refuse`, and is called `name`. One that is started
    /// again in the same place still has what it had.
    pub(crate) fn start(program: &Path, directory: &Path, name: &str, endpoint: &str, refuse: &str) -> Self {
        let mut command = Command::new(program);
        command.args(["-server", endpoint, "-name", name, "-refuse", refuse]);
        command.args(["-uid", "0190aa00000070008000000000000001"]).arg("-file").arg(directory.join("offered.json"));
        let (process, input, output) = Process::start_talking(&mut command);
        let events = Arc::default();
        listen(output, Arc::clone(&events));
        Self { process, input: Some(input), events }
    }

    /// Makes it ill with this message; well, with none.
    pub(crate) fn feel(&mut self, message: &str) {
        let input = self.input.as_mut().expect("it runs");
        writeln!(input, "{message}").expect("it listens");
    }

    /// Everything of this kind that happened to it.
    pub(crate) fn events(&self, kind: &str) -> Vec<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().filter(|event| event.event == kind).cloned().collect()
    }

    /// Lets it say goodbye and end.
    fn stop(&mut self) {
        drop(self.input.take());
        wait("the client ends", || {
            let status = self.process.ended().ok_or("it runs")?;
            if status.success() { Ok(()) } else { Err(format!("{status}")) }
        });
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop();
        }
    }
}

/// Takes down what it says until it ends.
fn listen(output: ChildStdout, events: Arc<Mutex<Vec<Event>>>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        }
    });
}
