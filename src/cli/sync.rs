//! `gitamp sync`: makes the daemon look at the repository now, and waits for what comes of it.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::admin_client::{AdminClient, AdminError, DaemonPlace};
use super::screen::{clean, clean_short, json, short_revision};
use super::status::Output;
use super::{Failure, print};
use crate::view::SyncStatus;

/// After this long a terminal is told that there is something to wait for.
const QUIET: Duration = Duration::from_secs(2);

/// Make the daemon look at the repository now, and wait until it has
///
/// Exit codes: 0 the repository was read, 1 it could not be, 2 no daemon answers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp sync\n  \
    gitamp sync --state-dir /var/lib/gitamp\n  \
    git push && gitamp sync && gitamp status --watch\n  \
    gitamp sync --output json | jq -r .revision")]
pub(super) struct Arguments {
    #[command(flatten)]
    place: DaemonPlace,
    /// How the outcome is written
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,
}

impl Arguments {
    /// Rings, waits, tells.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = AdminClient::of(&self.place)?;
        let runtime = super::runtime()?;
        let shows_progress = self.output == Output::Human && std::io::stderr().is_terminal();
        let status = runtime.block_on(waited(&client, shows_progress))?;
        match self.output {
            Output::Human => print(&human(&status))?,
            Output::Json => print(&json(&status)?)?,
        }
        let Some(error) = &status.error else { return Ok(ExitCode::SUCCESS) };
        if self.output == Output::Human {
            anstream::eprintln!("error: the sync failed: {}", clean(error));
        }
        Ok(ExitCode::from(1))
    }
}

async fn waited(client: &AdminClient, shows_progress: bool) -> Result<SyncStatus, AdminError> {
    let answer = client.command::<SyncStatus>("/api/v1/sync");
    tokio::pin!(answer);
    let mut waited = QUIET;
    let mut next = QUIET;
    loop {
        tokio::select! {
            status = &mut answer => {
                if shows_progress && waited > QUIET {
                    progress("");
                }
                return status;
            }
            () = tokio::time::sleep(next), if shows_progress => {
                progress(&format!("the daemon is looking at the repository, {} s", waited.as_secs()));
                next = Duration::from_secs(1);
                waited += next;
            }
        }
    }
}

/// Replaces the line that tells how it goes.
fn progress(text: &str) {
    let mut out = std::io::stderr().lock();
    // Nobody is left to tell when standard error itself is gone.
    let _gone = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
}

/// What was found; nothing when nothing ever was.
fn human(status: &SyncStatus) -> String {
    let Some(revision) = &status.revision else { return String::new() };
    let subject = status.subject.as_deref().map_or_else(String::new, |text| format!("  {}", clean_short(text, 72)));
    match &status.error {
        None => format!("{}{subject}\n", clean(revision)),
        Some(_) => format!("still at {}{subject}\n", short_revision(revision)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::admin_client::tests::{answer, daemon};
    use super::*;

    #[test]
    fn the_revision_is_told() {
        let mut status = SyncStatus {
            revision: Some("main@sha1:0123456789abcdef".to_owned()),
            subject: Some("Raise the \u{1b}[31mlimit".to_owned()),
            ..SyncStatus::default()
        };
        assert_eq!(human(&status), "main@sha1:0123456789abcdef  Raise the \\u{1b}[31mlimit\n");
        status.error = Some("no route".to_owned());
        assert_eq!(human(&status), "still at main@sha1:0123456789ab  Raise the \\u{1b}[31mlimit\n");
        assert_eq!(human(&SyncStatus::default()), "");
    }

    #[tokio::test]
    async fn the_answer_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = r#"{"repository":"/srv/x","stale":true,"error":"gone"}"#;
        let (client, request) = daemon(directory.path(), answer("200 OK", body));
        let status = waited(&client, false).await.expect("an answer");
        assert_eq!(status.error.as_deref(), Some("gone"));
        assert!(request.await.expect("a request").starts_with("POST /api/v1/sync "));
    }
}
