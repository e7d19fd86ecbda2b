//! `gitamp serve`: the daemon, from its settings to its exit code.

use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use crate::cli::Failure;
use crate::daemon;
use crate::git::close_memory;
use crate::settings::{LogFormat, LogSettings, ServeArgs, Settings};

/// Lines of log that may wait for a slow reader. A pipe that nobody empties costs lines, never the daemon's time.
const WAITING_LINES: usize = 16_384;

/// The target of what no level of the log hides: that strangers may act as agents.
const ALWAYS: &str = "gitamp::insecure";

/// Open files that the daemon asks for: enough for every agent it could carry.
const WANTED_FILES: u64 = 1_048_576;

/// Follow a Git repository and be the OpAMP server of its fleet
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    gitamp serve --repo /srv/git/fleet.git                    a repository on this machine\n  \
    gitamp serve --repo https://git.example.com/ops/fleet.git --git-token-file /run/secrets/git\n  \
    gitamp serve --repo git@git.example.com:ops/fleet.git --ssh-key-file ~/.ssh/fleet --branch main --path collectors\n  \
    gitamp serve --config /etc/gitamp/gitamp.yaml\n  \
    gitamp serve --repo . --observe                           look, but offer nothing and write nothing\n\n\
    Exit codes: 0 it was asked to end, 2 it could not run.")]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: ServeArgs,
}

impl Arguments {
    /// Runs the daemon until a signal ends it.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        // Files with secrets are read by what follows.
        let closed = close_memory();
        let settings = Settings::load(&self.settings)?;
        let _flushed_at_the_end = start_log(&settings.log)?;
        if let Some(alarm) = &settings.alarm {
            tracing::warn!(target: ALWAYS, "{alarm}");
        }
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        warn_of_open_directory(&settings.state_dir);
        raise_file_limit();
        if let Err(error) = closed {
            tracing::warn!(
                "what is in memory, secrets among it, is not closed to other processes and core files: {error}"
            );
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(daemon::run(settings))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Human on a terminal, JSON elsewhere, always to standard error and never waited for.
fn start_log(log: &LogSettings) -> Result<WorkerGuard, Failure> {
    let is_terminal = std::io::stderr().is_terminal();
    let is_json = match log.format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true).finish(std::io::stderr());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter(&log.filter)?).with_writer(writer);
    if is_json {
        subscriber.json().flatten_event(true).init();
    } else {
        subscriber.with_ansi(is_terminal).with_target(false).init();
    }
    Ok(guard)
}

/// The filter as it was asked for, with what has to be said in any case; and unless that speaks of it, without the chatter of the library that
/// watches directories.
fn filter(asked: &str) -> Result<EnvFilter, ParseError> {
    let filter = EnvFilter::try_new(asked)?;
    let is_quiet = filter.max_level_hint().is_some_and(|level| level <= LevelFilter::WARN);
    let filter =
        if is_quiet || asked.contains("notify") { filter } else { EnvFilter::try_new(format!("notify=warn,{asked}"))? };
    Ok(filter.add_directive(format!("{ALWAYS}=warn").parse()?))
}

/// Whoever may write the directory of the state may put other records there, and whoever may read it sees what the fleet runs. One that we make is ours
/// alone; another one is somebody's decision: volumes of Kubernetes are everybody's, in a pod without anybody else.
fn warn_of_open_directory(state: &Path) {
    let mode = std::fs::metadata(state).map_or(0, |found| found.permissions().mode() & 0o777);
    let state = state.display();
    if mode & 0o002 != 0 {
        tracing::warn!(
            "{state} (mode {mode:03o}) can be changed by every user of this machine, and with it what the fleet runs: chmod 700 {state}"
        );
    } else if mode & 0o005 != 0 {
        tracing::warn!("{state} (mode {mode:03o}) can be read by every user of this machine: chmod 700 {state}");
    }
}

/// One file an agent: the limit is raised as far as the system lets us, and told.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(WANTED_FILES) {
        Ok(limit) if limit < 4_096 => {
            tracing::warn!(limit, "few open files are allowed, each agent needs one: raise the limit (LimitNOFILE=)");
        }
        Ok(limit) => tracing::info!(limit, "open files"),
        Err(error) => tracing::warn!("the limit of open files cannot be raised: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_watcher_is_quiet_unless_it_is_asked_for() {
        for (asked, shown) in [
            ("info", "notify=warn,info,gitamp::insecure=warn"),
            ("gitamp=debug,info", "notify=warn,gitamp=debug,info,gitamp::insecure=warn"),
            ("notify=debug,info", "notify=debug,info,gitamp::insecure=warn"),
            ("error", "error,gitamp::insecure=warn"),
            ("off", "off,gitamp::insecure=warn"),
            ("gitamp::insecure=off", "gitamp::insecure=warn"),
        ] {
            let sorted = |text: &str| {
                let mut parts: Vec<String> = text.split(',').map(str::to_owned).collect();
                parts.sort();
                parts
            };
            assert_eq!(sorted(&filter(asked).expect("a filter").to_string()), sorted(shown), "{asked}");
        }
        assert!(filter("gitamp=loud").is_err());
    }
}
