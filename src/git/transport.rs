//! Transfers from and to a remote, each in a child process of the same binary that is killed when a deadline passes.
//!
//! The request goes to the child's standard input as one line of JSON, so that no secret ever stands in the process list; its
//! standard output says that there is progress, and at last what came of it. The child ends when its standard input does, so
//! it never outlives us.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::answers::{Done, LONGEST_LINE, Line, child_trouble};
use super::failure::{FailureKind, TransportError};
use super::known_hosts::HostKeys;
use super::remote::Protocol;
use super::{Access, Deadlines, RemoteUrl, Tracked};
use crate::settings::SecretFile;

/// The name of the hidden subcommand that runs [`super::run_transport_child`].
pub const CHILD_SUBCOMMAND: &str = "git-transport";

/// What the child may say in total: progress lines of 25 bytes, four a second for a day, fit in.
const LONGEST_OUTPUT_BYTES: u64 = 16 << 20;
/// What is kept of the child's standard error, for the one case that it panics.
const LONGEST_COMPLAINT_BYTES: u64 = 4096;
/// How much later than libgit2 we lose patience: its own message is the better one.
const GRACE: Duration = Duration::from_millis(500);
/// The variables that the child gets: where known hosts, the SSH agent, certificate authorities and proxies are, which libgit2, OpenSSL and
/// libssh2 look up by themselves. Nothing else of the environment.
const PASSED_VARIABLES: [&str; 11] = [
    "HOME",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
];
/// The directory in a state directory for what a transfer needs only while it runs.
const SCRATCH: &str = "transfers";

/// A text that is shown nowhere: `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Secret(pub(super) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What the child is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) url: String,
    pub(super) token: Option<Secret>,
    pub(super) token_user: String,
    pub(super) ssh_key_file: Option<PathBuf>,
    pub(super) ssh_agent: bool,
    pub(super) revoked_host_keys: Vec<String>,
    pub(super) connect_millis: u64,
    pub(super) silence_millis: u64,
    pub(super) total_millis: u64,
    pub(super) action: Action,
}

/// A transfer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Action {
    /// Fetch what is tracked into the private ref `into` of the bare repository, which is made if it is missing.
    FetchTracked {
        /// The bare repository.
        repository: PathBuf,
        /// What of the remote.
        tracked: Tracked,
        /// Only the newest commit, without what led to it.
        shallow: bool,
        /// The private ref.
        into: String,
    },
    /// Fetch the ref of this name, if the remote has it, into the private ref `into` of the bare repository.
    FetchRef {
        /// The bare repository.
        repository: PathBuf,
        /// The remote's ref.
        reference: String,
        /// The private ref.
        into: String,
    },
    /// Bring the refs below this prefix of an existing repository up to the remote's, forwards only.
    FetchBelow {
        /// The repository.
        repository: PathBuf,
        /// A prefix of refs, ending in a slash.
        prefix: String,
    },
    /// Push the private ref `from` to the remote's ref `to`, forwards only.
    Push {
        /// The bare repository.
        repository: PathBuf,
        /// The private ref.
        from: String,
        /// The remote's ref.
        to: String,
    },
}

/// How to run transfers with one remote.
#[derive(Clone, Debug)]
pub struct Transport {
    /// The program that knows the subcommand `git-transport`.
    pub program: PathBuf,
    /// The remote.
    pub url: RemoteUrl,
    /// Who we are, and who it is.
    pub access: Access,
    /// How long it may take.
    pub deadlines: Deadlines,
    /// The state directory that it may write to beside the repository; `None`: the system's directory for temporary files.
    pub state_dir: Option<PathBuf>,
}

/// Removes what transfers of an earlier process left behind when it was killed. For whoever holds the lock of the state directory.
///
/// # Errors
/// What is there cannot be removed.
pub fn clear_scratch(state_dir: &Path) -> std::io::Result<()> {
    super::upkeep::remove(&state_dir.join(SCRATCH))
}

impl Transport {
    /// Runs one transfer to its end, or kills it at a deadline. Dropping the future kills it too.
    pub(super) async fn run(&self, action: Action) -> Result<Done, TransportError> {
        match timeout(self.deadlines.total, self.converse(action)).await {
            Ok(outcome) => outcome,
            // The conversation was dropped, and `kill_on_drop` has ended the child.
            Err(_) => Err(TransportError::new(
                FailureKind::Timeout,
                format!("{}: not finished after {:?} in total; it is tried again", self.url, self.deadlines.total),
            )),
        }
    }

    async fn converse(&self, action: Action) -> Result<Done, TransportError> {
        let environment = passed_environment();
        let (request, home) = self.prepare(action, &environment)?;
        let mut child = self.spawn(environment, home.as_ref().map(TempDir::path))?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(child_trouble("its pipes are missing"));
        };
        let complaint = tokio::spawn(async move {
            let mut text = Vec::new();
            let mut stderr = stderr;
            // What cannot be read cannot be shown; the rest is drained so that the child never blocks on it.
            let _read = (&mut stderr).take(LONGEST_COMPLAINT_BYTES).read_to_end(&mut text).await;
            let _drained = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        let outcome = match send(&mut stdin, &request).await {
            Ok(()) => self.listen(stdout).await,
            // It has ended already: what it said tells more than the broken pipe.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => self.listen(stdout).await,
            Err(error) => Err(child_trouble(&format!("it took no request: {error}"))),
        };
        drop(stdin);
        finish(&mut child).await;
        match outcome {
            Err(failure) if failure.kind == FailureKind::Child => {
                let said = timeout(GRACE, complaint).await.ok().and_then(Result::ok).unwrap_or_default();
                let said = said.trim();
                let more = if said.is_empty() { String::new() } else { format!("; it said: {said}") };
                Err(TransportError::new(FailureKind::Child, format!("{failure}{more}")))
            }
            Ok(_) | Err(_) => {
                complaint.abort();
                outcome
            }
        }
    }

    /// Everything that the child needs to know, and the home directory that it gets instead of ours.
    fn prepare(
        &self,
        action: Action,
        environment: &[(&'static str, OsString)],
    ) -> Result<(Request, Option<TempDir>), TransportError> {
        let mut home = None;
        let mut revoked_host_keys = Vec::new();
        if self.url.protocol() == Protocol::Ssh {
            let real_home = environment.iter().find(|(name, _)| *name == "HOME").map(|(_, value)| PathBuf::from(value));
            let keys = HostKeys::gather(self.access.known_hosts_file.as_deref(), real_home.as_deref())?;
            home =
                Some(self.scratch().and_then(|own| keys.write_below(own.path()).map(|()| own)).map_err(|error| {
                    let advice = if self.state_dir.is_some() { "check --state-dir" } else { "check TMPDIR" };
                    TransportError::new(FailureKind::Child, format!("cannot write the known hosts: {error}; {advice}"))
                })?);
            revoked_host_keys = keys.revoked;
        }
        let token = match (&self.access.token_file, self.url.protocol()) {
            (Some(path), Protocol::Http) => Some(self.read_token(path)?),
            (Some(_) | None, Protocol::Http | Protocol::Ssh | Protocol::Local) => None,
        };
        let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let request = Request {
            url: self.url.reveal().to_owned(),
            token,
            token_user: self.access.token_user.clone(),
            ssh_key_file: self.access.ssh_key_file.clone(),
            ssh_agent: self.access.ssh_agent,
            revoked_host_keys,
            connect_millis: millis(self.deadlines.connect),
            silence_millis: millis(self.deadlines.silence),
            total_millis: millis(self.deadlines.total),
            action,
        };
        Ok((request, home))
    }

    fn read_token(&self, path: &Path) -> Result<Secret, TransportError> {
        let refuse = |why: String| Err(TransportError::new(FailureKind::Credentials, why));
        let token = match SecretFile::new(path).read() {
            Ok(token) => token,
            Err(error) => return refuse(format!("no token: {error}; check --git-token-file")),
        };
        if token.expose().chars().any(char::is_control) {
            return refuse(format!("{} does not hold a token: one line of text is expected", path.display()));
        }
        if self.url.reveal().to_ascii_lowercase().starts_with("http://") && !is_loopback(&self.url) {
            return refuse(format!("{}: a token is never sent over unencrypted http; use https", self.url));
        }
        Ok(Secret(token.expose().to_owned()))
    }

    /// A directory that is gone after the transfer.
    fn scratch(&self) -> std::io::Result<TempDir> {
        match &self.state_dir {
            Some(state_dir) => {
                let place = state_dir.join(SCRATCH);
                std::fs::create_dir_all(&place)?;
                tempfile::tempdir_in(place)
            }
            None => tempfile::tempdir(),
        }
    }

    fn spawn(&self, environment: Vec<(&'static str, OsString)>, home: Option<&Path>) -> Result<Child, TransportError> {
        let mut command = Command::new(&self.program);
        command
            .arg(CHILD_SUBCOMMAND)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(home) = home {
            command.env("HOME", home);
        }
        // Of its own, so that Ctrl-C on our terminal reaches us alone and we decide what becomes of a push.
        #[cfg(unix)]
        command.process_group(0);
        command.spawn().map_err(|error| child_trouble(&format!("cannot start {}: {error}", self.program.display())))
    }

    /// Reads what the child says until its last word, or until it was silent for too long.
    async fn listen(&self, stdout: ChildStdout) -> Result<Done, TransportError> {
        let patience = self.deadlines.connect.saturating_add(self.deadlines.silence).saturating_add(GRACE);
        let mut said = BufReader::new(stdout.take(LONGEST_OUTPUT_BYTES));
        let mut furthest = None;
        let mut silent_since = tokio::time::Instant::now();
        let mut line = Vec::new();
        loop {
            let left = patience.saturating_sub(silent_since.elapsed());
            line.clear();
            // A line that is longer is cut behind the limit, which tells that it is.
            let mut one = (&mut said).take(LONGEST_LINE as u64 + 1);
            match timeout(left, one.read_until(b'\n', &mut line)).await {
                Ok(Ok(0)) => return Err(child_trouble("it ended without an answer")),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(child_trouble(&format!("its answer cannot be read: {error}"))),
                Err(_) => {
                    let message = format!("{}: no progress for {patience:?}; it is tried again", self.url);
                    return Err(TransportError::new(FailureKind::Timeout, message));
                }
            }
            match Line::read(&line)? {
                Line::Progress(at) => {
                    if furthest.is_none_or(|furthest| at > furthest) {
                        furthest = Some(at);
                        silent_since = tokio::time::Instant::now();
                    }
                }
                Line::Done(done) => return Ok(done),
                Line::Failed(failure) => return Err(failure),
            }
        }
    }
}

/// The program that is running, so that a child is always of the same version: on Linux even when the file was replaced or
/// deleted meanwhile by an upgrade.
pub fn own_program() -> std::io::Result<PathBuf> {
    let linux = Path::new("/proc/self/exe");
    if linux.exists() { Ok(linux.to_owned()) } else { std::env::current_exe() }
}

fn is_loopback(url: &RemoteUrl) -> bool {
    url.host().is_some_and(|host| {
        host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "these variables are handed on to the child; nothing here is decided by them"
)]
fn passed_environment() -> Vec<(&'static str, OsString)> {
    PASSED_VARIABLES.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect()
}

async fn send(stdin: &mut ChildStdin, request: &Request) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stdin.write_all(&line).await?;
    stdin.flush().await
}

/// Ends the child and takes its exit status, so that no zombie stays. Its work is done, or not wanted any more.
async fn finish(child: &mut Child) {
    if timeout(GRACE, child.wait()).await.is_err() {
        // Both fail only for a child that is gone already.
        let _killed = child.start_kill();
        let _reaped = child.wait().await;
    }
}
