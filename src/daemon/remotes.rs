//! How the fleet's repository and the journal's are reached, from the settings.

use crate::daemon::DaemonError;
use crate::git::journal::JournalOptions;
use crate::git::seal::JournalKeys;
use crate::git::{Access, Deadlines, RemoteUrl, SourceOptions, Tracked, transport};
use crate::settings::{GitSettings, Reference, Settings};

/// What is followed, how it is reached, and by which program.
pub(super) fn source_options(settings: &Settings) -> Result<SourceOptions, DaemonError> {
    let source = |error: Box<dyn std::error::Error + Send + Sync>| DaemonError::Source(error);
    Ok(SourceOptions {
        url: settings.repo.as_str().parse::<RemoteUrl>().map_err(|error| source(Box::new(error)))?,
        tracked: match &settings.reference {
            Reference::Default => Tracked::Default,
            Reference::Branch(name) => Tracked::Branch(name.clone()),
            Reference::TagPattern(pattern) => Tracked::Tags(pattern.clone()),
        },
        shallow: settings.shallow,
        fleet_root: settings.fleet_root.clone(),
        state_dir: settings.state_dir.clone(),
        access: access(&settings.git),
        deadlines: Deadlines {
            connect: settings.git.connect_timeout,
            silence: settings.git.silence_timeout,
            total: settings.git.total_timeout,
        },
        transport_program: transport::own_program().map_err(|error| source(Box::new(error)))?,
    })
}

fn access(git: &GitSettings) -> Access {
    Access {
        token_file: git.token.as_ref().map(|file| file.path().to_owned()),
        token_user: git.user.clone(),
        ssh_key_file: git.ssh_key.clone(),
        ssh_agent: git.ssh_agent,
        known_hosts_file: git.known_hosts.clone(),
    }
}

/// Where the journal goes, and what it is signed with.
pub(super) fn journal_options(settings: &Settings, source: &SourceOptions) -> Result<JournalOptions, DaemonError> {
    let invalid = |error: Box<dyn std::error::Error + Send + Sync>| DaemonError::Source(error);
    let url = settings.journal_repo().as_str().parse::<RemoteUrl>().map_err(|error| invalid(Box::new(error)))?;
    let adopt = settings.journal.adopt.as_ref().map(|commit| commit.parse()).transpose();
    let remote = transport::Transport { url, access: access(&settings.journal_access()), ..source.transport() };
    Ok(JournalOptions {
        instance: settings.instance.clone(),
        state_dir: settings.state_dir.clone(),
        remote: settings.push.then_some(remote),
        keys: JournalKeys::new(settings.journal.keys.clone()),
        adopt: adopt.map_err(|error| invalid(Box::new(error)))?,
    })
}
