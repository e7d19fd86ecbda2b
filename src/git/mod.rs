//! The repository as it really is: a bare mirror, transfers in a killable child process, and the journal of notes and state.
//!
//! Two bare repositories stand in the state directory: `mirror.git` holds what was fetched and can be thrown away at any time;
//! `journal.git` holds what this process must not forget. Nothing is ever checked out. Whatever speaks to a remote happens in
//! a child process (`transport`), because libgit2 has no total deadline and cannot be interrupted while a server trickles.
//! Deliberately absent: any decision about groups or rollouts, and any meaning of what the journal stores.

pub mod answers;
pub mod authors;
pub mod backoff;
mod bounded;
mod child;
pub mod failure;
mod hermetic;
pub mod journal;
mod known_hosts;
pub mod lineage;
mod local;
pub mod lock;
pub mod mirror;
pub mod notes;
mod reader;
pub mod remote;
pub mod revert;
mod sandbox;
pub mod seal;
mod sealing;
mod settle;
mod store;
mod tags;
pub mod transport;
mod tree;
mod upkeep;
pub mod watch;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use git2::Oid;
use serde::{Deserialize, Serialize};

use crate::fleet::snapshot::{CommitId, RenderLimits, SnapshotLimits};
use crate::settings::ContentLimits;

pub use child::run as run_transport_child;
pub use failure::{FailureClass, FailureKind, TransportError};
pub use remote::RemoteUrl;
pub use sandbox::close_memory;

/// What of the repository is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tracked {
    /// The branch that the remote's `HEAD` names.
    Default,
    /// A branch, in its short form (`main`).
    Branch(String),
    /// The highest tag that matches this glob (`v*`, `prod/*`): versions by semantic versioning, above all names that are no
    /// versions, which are compared as text. Pre-releases count only when the glob asks for them, with a `-` behind its first
    /// digit or wildcard (`v*-rc*`).
    Tags(String),
}

impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default branch"),
            Self::Branch(name) => write!(f, "branch {name}"),
            Self::Tags(glob) => write!(f, "tags {glob}"),
        }
    }
}

/// How long a transfer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// To reach the remote: 10 s.
    pub connect: Duration,
    /// Without a sign of progress: 30 s.
    pub silence: Duration,
    /// In total, whatever the progress: 10 min, enough for a first clone of a large repository over a slow line.
    pub total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(30), total: Duration::from_secs(600) }
    }
}

/// The repository that is followed, and how to get at it.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Its address.
    pub url: RemoteUrl,
    /// What of it is followed.
    pub tracked: Tracked,
    /// True when only the newest commit is fetched, without what led to it. Then nobody can tell whether history was rewritten.
    pub shallow: bool,
    /// The fleet root: a path in the repository, `` for its top.
    pub fleet_root: String,
    /// Where `mirror.git` and `journal.git` stand; made when it is missing.
    pub state_dir: PathBuf,
    /// How to prove who we are.
    pub access: Access,
    /// How long a transfer may take.
    pub deadlines: Deadlines,
    /// The program that runs transfers as `<program> git-transport`: this one, see [`transport::own_program`].
    pub transport_program: PathBuf,
}

impl SourceOptions {
    /// The transport that these options describe.
    pub fn transport(&self) -> transport::Transport {
        transport::Transport {
            program: self.transport_program.clone(),
            url: self.url.clone(),
            access: self.access.clone(),
            deadlines: self.deadlines,
            state_dir: Some(self.state_dir.clone()),
        }
    }
}

/// How to prove who we are, and how the remote proves who it is. Files are read again for each transfer, so that tokens
/// can be rotated under a running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// A file with a token for https.
    pub token_file: Option<PathBuf>,
    /// The user name that goes with the token.
    pub token_user: String,
    /// A private key for ssh, without a passphrase. Absent: the SSH agent, if it may be asked.
    pub ssh_key_file: Option<PathBuf>,
    /// Whether the SSH agent may be asked.
    pub ssh_agent: bool,
    /// The host keys that are trusted, in OpenSSH's form. Absent: `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts`.
    pub known_hosts_file: Option<PathBuf>,
}

impl Default for Access {
    /// No token, the name that forges expect beside one, and the SSH agent.
    fn default() -> Self {
        Self {
            token_file: None,
            token_user: "x-access-token".to_owned(),
            ssh_key_file: None,
            ssh_agent: true,
            known_hosts_file: None,
        }
    }
}

/// What one commit may bring, as settings say it.
pub fn snapshot_limits(settings: &ContentLimits) -> SnapshotLimits {
    let ContentLimits { files, file_bytes, total_bytes, depth, yaml_depth, config_bytes } = *settings;
    SnapshotLimits {
        files,
        depth,
        file_bytes: file_bytes as u64,
        total_bytes: total_bytes as u64,
        rendering: RenderLimits { layer_bytes: file_bytes, yaml_depth, config_bytes },
        ..SnapshotLimits::default()
    }
}

/// A commit's id as libgit2 wants it.
fn oid_of(commit: CommitId) -> Result<Oid, git2::Error> {
    Oid::from_bytes(&commit.0)
}

/// A libgit2 id as ours; `None` for anything that is not SHA-1.
fn commit_of(oid: Oid) -> Option<CommitId> {
    oid.as_bytes().try_into().ok().map(CommitId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::snapshot::Limit;

    #[test]
    fn the_defaults_of_settings_and_of_the_fleet_are_the_same() {
        let (ours, theirs) = (snapshot_limits(&ContentLimits::default()), SnapshotLimits::default());
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        assert_eq!(Limit::ALL.map(Limit::name), ContentLimits::NAMES);
    }
}
