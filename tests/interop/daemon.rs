//! `gitamp serve` as a user runs it, and what it says over its read-only listener.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gitamp::view::{AgentList, AgentStatus, FleetStatus};

use super::process::Process;
use super::{FleetRepository, wait};

/// The label by which a test knows its agents.
pub(crate) const NAME_LABEL: &str = "agent.name";

/// The daemon.
pub(crate) struct Daemon {
    process: Option<Process>,
    directory: PathBuf,
    repository: PathBuf,
    agents: SocketAddr,
    admin: SocketAddr,
    more: Vec<String>,
}

impl Daemon {
    /// Starts it on free ports, with its state and its log below `directory`, and waits until it is ready.
    pub(crate) fn start(directory: &Path, repository: &FleetRepository) -> Self {
        Self::start_with(directory, repository, &[])
    }

    /// The same with more flags.
    pub(crate) fn start_with(directory: &Path, repository: &FleetRepository, more: &[&str]) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let mut daemon = Self {
            process: None,
            directory: directory.to_owned(),
            repository: repository.path().to_owned(),
            agents: free(),
            admin: free(),
            more: more.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        daemon.run();
        daemon
    }

    /// Kills it, deletes all that it knows, and starts it again in the same place.
    pub(crate) fn restart_without_memory(&mut self) {
        self.process.take().expect("it runs").kill();
        fs::remove_dir_all(self.directory.join("state")).expect("it kept its state there");
        self.run();
    }

    fn run(&mut self) {
        let log = File::options().create(true).append(true).open(self.directory.join("serve.log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gitamp"));
        command.arg("serve").arg("--repo").arg(&self.repository).arg("--state-dir").arg(self.directory.join("state"));
        command.args(["--listen", &self.agents.to_string(), "--admin-listen", &self.admin.to_string()]);
        command.args(["--interval", "2s", "--log", "debug", "--log-format", "human"]).current_dir(&self.directory);
        command.args(&self.more);
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.process = Some(Process::start(&mut command));
        wait("the daemon is ready", || {
            let ended = self.process.as_mut().and_then(Process::ended);
            assert!(ended.is_none(), "gitamp serve: {ended:?}\n{}", self.log());
            self.get("/readyz")
        });
    }

    /// Where agents connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.agents
    }

    pub(crate) fn status(&self) -> FleetStatus {
        let text = self.get("/api/v1/status").expect("a status");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The agents, as `/api/v1/agents` lists them; of one group when it is named.
    pub(crate) fn agents(&self, group: Option<&str>) -> Vec<AgentStatus> {
        let query = group.map_or(String::new(), |group| format!("?group={group}"));
        let text = self.get(&format!("/api/v1/agents{query}")).expect("a list");
        let list: AgentList = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        list.agents
    }

    /// What the build of this agent could run.
    pub(crate) fn available_components(&self, id: &str) -> Vec<String> {
        let text = self.get(&format!("/api/v1/agents?id={id}")).expect("a list");
        let mut list: AgentList = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        list.agents.pop().unwrap_or_else(|| panic!("{id} is not there: {text}")).available_components
    }

    /// The agents, as `gitamp agents --output json` prints them for a person or script on this machine.
    pub(crate) fn agents_command(&self) -> Vec<AgentStatus> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gitamp"));
        command.args(["agents", "--output", "json", "--state-dir"]).arg(self.directory.join("state"));
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let list: AgentList = serde_json::from_slice(&output.stdout).expect("a list");
        list.agents
    }

    /// Waits until the agent of this name is as it should be.
    pub(crate) fn wait_agent(&self, name: &str, what: &str, is_so: impl Fn(&AgentStatus) -> bool) -> AgentStatus {
        wait(&format!("{name} is {what}"), || {
            let mut agents = self.agents(None);
            agents.retain(|agent| agent.labels.get(NAME_LABEL).is_some_and(|label| label == name));
            assert!(agents.len() <= 1, "one agent of this name: {agents:?}");
            let agent = agents.pop().ok_or("not there")?;
            if is_so(&agent) { Ok(agent) } else { Err(format!("{agent:?}")) }
        })
    }

    /// Gives an order over the admin socket, as an operator would.
    pub(crate) fn order(&self, arguments: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gitamp"));
        command.args(arguments).arg("--yes").arg("--state-dir").arg(self.directory.join("state"));
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "gitamp {arguments:?}: {output:?}");
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("serve.log")).unwrap_or_default()
    }

    /// The body of a successful answer.
    fn get(&self, path: &str) -> Result<String, String> {
        let ask = || {
            let mut stream = TcpStream::connect(self.admin)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.admin)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = ask().map_err(|error| error.to_string())?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
            Some(_) | None => Err(answer),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let end: Vec<&str> = log.lines().rev().take(40).collect();
            println!("the daemon's log ends with:\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}
