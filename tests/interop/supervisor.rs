//! A real supervisor with its collector.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::daemon::NAME_LABEL;
use super::process::Process;
use super::{Daemon, Programs, wait};

/// A starting supervisor runs its collector once for a moment, and that one always opens the port of its own metrics.
static BOOTSTRAP: Mutex<()> = Mutex::new(());

/// A supervisor, its state and its logs.
pub(crate) struct Supervisor {
    process: Option<Process>,
    program: PathBuf,
    directory: PathBuf,
    name: String,
}

impl Supervisor {
    /// Starts one that connects to `endpoint`, and waits until the daemon lists it. `labels` are `key: value` lines of its
    /// description, besides its name.
    pub(crate) fn start(
        programs: &Programs,
        directory: &Path,
        name: &str,
        endpoint: &str,
        labels: &str,
        daemon: &Daemon,
    ) -> Self {
        Self::start_with(programs, directory, name, &format!("{{endpoint: '{endpoint}'}}"), labels, daemon)
    }

    /// The same with all that `server` of its settings says.
    pub(crate) fn start_with(
        programs: &Programs,
        directory: &Path,
        name: &str,
        server: &str,
        labels: &str,
        daemon: &Daemon,
    ) -> Self {
        let directory = directory.join(name);
        fs::create_dir(&directory).expect("a new directory");
        // Several collectors on one machine would fight over the port of their own metrics.
        let quiet = directory.join("quiet.yaml");
        fs::write(&quiet, "service: {telemetry: {metrics: {level: none}}}\n").expect("written");
        let (state, quiet, collector) = (directory.join("state"), quiet.display(), programs.collector.display());
        let state = state.display();
        let config = format!(
            "server: {server}\n\
             capabilities:\n  accepts_remote_config: true\n  reports_remote_config: true\n  \
             reports_available_components: true\n  accepts_opamp_connection_settings: true\n  accepts_restart_command: true\n\
             storage: {{directory: '{state}'}}\n\
             agent:\n  executable: '{collector}'\n  bootstrap_timeout: 60s\n  config_files: ['{quiet}']\n  \
             passthrough_logs: true\n  description:\n    \
             non_identifying_attributes: {{{NAME_LABEL}: {name}, host.name: {name}, os.description: Linux{labels}}}\n\
             telemetry: {{logs: {{level: debug, output_paths: [stdout]}}}}\n"
        );
        fs::write(directory.join("supervisor.yaml"), config).expect("written");
        let mut supervisor =
            Self { process: None, program: programs.supervisor.clone(), directory, name: name.to_owned() };
        supervisor.run(daemon);
        supervisor
    }

    /// Kills it and its collector without a word, and starts it again with the state that it had.
    pub(crate) fn kill_and_start(&mut self, daemon: &Daemon) {
        self.process.take().expect("it runs").kill();
        daemon.wait_agent(&self.name, "gone", |agent| !agent.connected);
        self.run(daemon);
    }

    fn run(&mut self, daemon: &Daemon) {
        let _alone = BOOTSTRAP.lock().unwrap_or_else(PoisonError::into_inner);
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log");
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.directory.join("supervisor.yaml")).current_dir(&self.directory);
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.process = Some(Process::start(&mut command));
        wait(&format!("{} is connected", self.name), || {
            let ended = self.process.as_mut().and_then(Process::ended);
            assert!(ended.is_none(), "the supervisor: {ended:?}\n{}", self.log());
            let is_it = |label: &String| *label == self.name;
            let agents = daemon.agents(None);
            let found = agents.iter().any(|agent| agent.connected && agent.labels.get(NAME_LABEL).is_some_and(is_it));
            if found { Ok(()) } else { Err(format!("{agents:?}")) }
        });
    }

    /// The collector that runs now.
    pub(crate) fn collector(&self) -> u32 {
        let process = self.process.as_ref().expect("it runs");
        wait("one collector runs", || match process.named("otelcol")[..] {
            [id] => Ok(id),
            ref other => Err(format!("{other:?}")),
        })
    }

    /// Kills its collector without a word. The supervisor starts another one five seconds later.
    pub(crate) fn kill_collector(&self) {
        let kill = ["-c", "kill -s KILL -- \"$0\"", &self.collector().to_string()];
        assert!(Command::new("sh").args(kill).status().expect("sh starts").success(), "it ran");
    }

    /// What it merged for its collector.
    pub(crate) fn effective(&self) -> String {
        fs::read_to_string(self.directory.join("state/effective.yaml")).expect("an effective configuration")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("supervisor.log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let end: Vec<&str> = log.lines().rev().take(60).collect();
            println!("the log of {} ends with:\n{}", self.name, end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}
