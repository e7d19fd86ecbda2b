//! `gitamp notes`: what became of a commit, as the daemons noted it in the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Failure, print, runtime};
use crate::git::notes::{Note, NotedCommit, NotesPlace};
use crate::git::seal::{Authenticity, JournalKeys};
use crate::git::transport::{Transport, own_program};
use crate::git::{Access, Deadlines, RemoteUrl};
use crate::settings::{RepoUrl, SecretFile};
use crate::view::text::is_invisible;

const EXAMPLES: &str = "Examples:
  gitamp notes                          the newest commits that have a note
  gitamp notes HEAD~2                   what became of that commit
  gitamp notes v1.4.0 --instance eu --output json
  gitamp notes --repo ../fleet --offline
  gitamp notes main --repo https://git.example.com/platform/fleet.git --git-token-file token
  gitamp notes --journal-repo https://git.example.com/platform/fleet-notes.git
  gitamp notes --state-dir /var/lib/gitamp

The notes are Git's own. To see them in `git log` and to fetch them with `git fetch`, once per clone:
  git config --add notes.displayRef 'refs/notes/gitamp/*'
  git config --add remote.origin.fetch '+refs/notes/gitamp/*:refs/notes/gitamp/*'";

/// What a person may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Human,
    /// For scripts.
    Json,
}

/// Show what became of commits: the notes that gitamp wrote on them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The commit, as Git understands it. Without one: the newest commits of HEAD that have a note.
    #[arg(value_name = "REV")]
    revision: Option<String>,
    /// How many commits to show when none is named.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5)]
    number: usize,
    /// The fleet's repository: a clone of it, or its address, which is fetched anew each time.
    #[arg(long, value_name = "REPOSITORY", default_value = ".")]
    repo: String,
    /// Read what the daemon with this state directory has, instead of a clone.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["repo", "remote", "offline", "journal_repo"])]
    state_dir: Option<PathBuf>,
    /// Only the notes of this instance.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// The clone's remote that notes are fetched from.
    #[arg(long, value_name = "NAME", default_value = "origin")]
    remote: String,
    /// Where the notes are, if they have a repository of their own (`--journal-repo` of the daemon).
    #[arg(long, value_name = "REPOSITORY", env = "GITAMP_JOURNAL_REPO", hide_env_values = true)]
    journal_repo: Option<String>,
    /// Show what is here, fetch nothing.
    #[arg(long)]
    offline: bool,
    /// The keys of the journal, one a line: a note that none of them proves is marked, and not counted.
    #[arg(long, value_name = "FILE", env = "GITAMP_JOURNAL_KEY_FILE", hide_env_values = true)]
    journal_key_file: Option<PathBuf>,
    #[command(flatten)]
    access: AccessArguments,
    /// How to print it.
    #[arg(long, value_enum, value_name = "FORM", default_value = "human")]
    output: Output,
}

/// How the repositories are reached; like the daemon's settings of these names.
#[derive(Debug, Args)]
struct AccessArguments {
    /// A file with a token for https.
    #[arg(long, value_name = "FILE", env = "GITAMP_GIT_TOKEN_FILE", hide_env_values = true)]
    git_token_file: Option<PathBuf>,
    /// The user name that goes with the token.
    #[arg(
        long,
        value_name = "NAME",
        env = "GITAMP_GIT_USER",
        hide_env_values = true,
        default_value = "x-access-token"
    )]
    git_user: String,
    /// A private key for ssh; without one the SSH agent is asked.
    #[arg(long, value_name = "FILE", env = "GITAMP_SSH_KEY_FILE", hide_env_values = true)]
    ssh_key_file: Option<PathBuf>,
    /// The host keys to trust, instead of ~/.ssh/known_hosts.
    #[arg(long, value_name = "FILE", env = "GITAMP_KNOWN_HOSTS_FILE", hide_env_values = true)]
    known_hosts_file: Option<PathBuf>,
    /// A token for the notes alone; that of --git-token-file goes to its own server only.
    #[arg(long, value_name = "FILE", env = "GITAMP_JOURNAL_TOKEN_FILE", hide_env_values = true)]
    journal_token_file: Option<PathBuf>,
    /// The user name that goes with that token.
    #[arg(long, value_name = "NAME", env = "GITAMP_JOURNAL_USER", hide_env_values = true)]
    journal_user: Option<String>,
    /// A private key for ssh, for the notes alone.
    #[arg(long, value_name = "FILE", env = "GITAMP_JOURNAL_SSH_KEY_FILE", hide_env_values = true)]
    journal_ssh_key_file: Option<PathBuf>,
    /// The host keys to trust where the notes are.
    #[arg(long, value_name = "FILE", env = "GITAMP_JOURNAL_KNOWN_HOSTS_FILE", hide_env_values = true)]
    journal_known_hosts_file: Option<PathBuf>,
}

impl AccessArguments {
    fn fleet(&self) -> Access {
        Access {
            token_file: self.git_token_file.clone(),
            token_user: self.git_user.clone(),
            ssh_key_file: self.ssh_key_file.clone(),
            known_hosts_file: self.known_hosts_file.clone(),
            ..Access::default()
        }
    }

    /// To the repository of the notes, which may be on the fleet's server.
    fn journal(&self, is_same_server: bool) -> Access {
        let own = |own: &Option<PathBuf>, fleets: &Option<PathBuf>| own.clone().or_else(|| fleets.clone());
        let shared_token = self.git_token_file.clone().filter(|_| is_same_server);
        Access {
            token_file: self.journal_token_file.clone().or(shared_token),
            token_user: self.journal_user.clone().unwrap_or_else(|| self.git_user.clone()),
            ssh_key_file: own(&self.journal_ssh_key_file, &self.ssh_key_file),
            known_hosts_file: own(&self.journal_known_hosts_file, &self.known_hosts_file),
            ..Access::default()
        }
    }
}

impl Arguments {
    /// Shows the notes. Exit code 1 when there are none, or none that is believed.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let keys = match &self.journal_key_file {
            Some(path) => JournalKeys::new(SecretFile::new(path).read()?.lines()),
            None => None,
        };
        // Dropped at the end of this function, and the copy with it.
        let copy;
        let place = match (&self.state_dir, self.remote_repo()?) {
            (Some(directory), _) => NotesPlace::state_dir(directory)?,
            (None, Some(url)) => {
                copy = tempfile::tempdir()?;
                self.copy(&url, copy.path())?
            }
            (None, None) => {
                let path = PathBuf::from(&self.repo);
                let place = NotesPlace::clone_at(RepoUrl::parse(&self.repo)?.local_path().unwrap_or(&path))?;
                self.fetch(&place)?;
                place
            }
        };
        let place = place.judged_by(keys);
        let instance = self.instance.as_deref();
        let found = match &self.revision {
            Some(revision) => vec![place.on(revision, instance)?],
            None => place.newest(self.number, instance)?,
        };
        match self.output {
            Output::Human => print(&human(&found))?,
            Output::Json => print(&json(&found)?)?,
        }
        if found.iter().flat_map(|noted| noted.notes.values()).any(Note::is_believed) {
            return Ok(ExitCode::SUCCESS);
        }
        let instance = instance.map_or(String::new(), |name| format!(" of instance `{name}`"));
        if found.iter().any(|noted| !noted.notes.is_empty()) {
            anstream::eprintln!("no note{instance} here is proved by the key: do not act on what they say");
        } else {
            anstream::eprintln!(
                "no notes{instance} here: has a daemon synced this commit, and may it push refs/notes/gitamp/*?"
            );
        }
        Ok(ExitCode::from(1))
    }

    /// The address of the fleet's repository, when it is none of this machine.
    fn remote_repo(&self) -> Result<Option<RepoUrl>, Failure> {
        if Path::new(&self.repo).exists() {
            return Ok(None);
        }
        let url = RepoUrl::parse(&self.repo).map_err(|error| format!("--repo: {error}"))?;
        Ok((url.local_path().is_none()).then_some(url))
    }

    fn journal_url(&self) -> Result<Option<RepoUrl>, Failure> {
        let parsed = self.journal_repo.as_deref().map(RepoUrl::parse).transpose();
        parsed.map_err(|error| format!("--journal-repo: {error}").into())
    }

    /// Copies a remote repository with its notes.
    fn copy(&self, url: &RepoUrl, directory: &Path) -> Result<NotesPlace, Failure> {
        if self.offline {
            return Err("--offline shows what is in a clone: name one with --repo".into());
        }
        let notes = self.journal_url()?.unwrap_or_else(|| url.clone());
        let commits = transport(url.as_str().parse()?, self.access.fleet())?;
        let access = self.access.journal(notes == *url || notes.shares_server(url));
        let notes = transport(notes.as_str().parse()?, access)?;
        Ok(runtime()?.block_on(NotesPlace::copy_of(directory, &commits, &notes))?)
    }

    /// Fetches the notes into the clone; what is here already is worth showing even when that fails.
    fn fetch(&self, place: &NotesPlace) -> Result<(), Failure> {
        if self.offline {
            return Ok(());
        }
        let fleets = place.remote(&self.remote)?;
        let (url, access, from) = match (self.journal_url()?, fleets) {
            (Some(url), fleets) => {
                let fleets = fleets.and_then(|fleets| RepoUrl::parse(fleets.reveal()).ok());
                let is_same_server = fleets.is_some_and(|fleets| fleets.shares_server(&url));
                (url.as_str().parse()?, self.access.journal(is_same_server), url.to_string())
            }
            (None, Some(url)) => (url, self.access.journal(true), self.remote.clone()),
            (None, None) => return Ok(()),
        };
        if let Err(error) = runtime()?.block_on(place.fetch(&transport(url, access)?)) {
            anstream::eprintln!(
                "warning: {error}\n  showing the notes that are here; `git fetch {from} 'refs/notes/gitamp/*:refs/notes/gitamp/*'` \
                 fetches them with Git's own credentials"
            );
        }
        Ok(())
    }
}

fn transport(url: RemoteUrl, access: Access) -> Result<Transport, Failure> {
    Ok(Transport { program: own_program()?, url, access, deadlines: Deadlines::default(), state_dir: None })
}

/// Text from the repository as it may stand on a terminal: lines, and nothing that moves the cursor or hides what is there.
fn harmless(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !c.is_control() && !is_invisible(*c)).collect()
}

fn human(found: &[NotedCommit]) -> String {
    let mut text = String::new();
    for (number, noted) in found.iter().enumerate() {
        let commit = &noted.commit;
        if number > 0 {
            text.push('\n');
        }
        text.push_str(&format!("{} {} {}\n  {}\n", commit.id, commit.time, commit.author, commit.subject));
        if noted.notes.is_empty() {
            text.push_str("  (no notes)\n");
        }
        for (instance, note) in &noted.notes {
            let judgement = match note.authenticity {
                None => "",
                Some(Authenticity::Genuine) => " (signed)",
                Some(Authenticity::Unsigned) => " (NOT BELIEVED: it is not signed)",
                Some(Authenticity::Wrong) => " (NOT BELIEVED: its signature does not fit)",
            };
            text.push_str(&format!("  {}{judgement}:\n", harmless(instance)));
            for line in harmless(&note.text).lines() {
                let line = format!("    {line}");
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
    }
    text
}

/// A commit for scripts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonCommit<'a> {
    commit: String,
    time: String,
    author: &'a str,
    subject: &'a str,
    notes: BTreeMap<&'a str, JsonNote<'a>>,
}

/// A note for scripts: its text, its fields when it is a document of ours, and whether a key proves it when there are keys.
#[derive(Serialize)]
struct JsonNote<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentic: Option<bool>,
}

fn json(found: &[NotedCommit]) -> Result<String, Failure> {
    let commits: Vec<JsonCommit<'_>> = found
        .iter()
        .map(|noted| JsonCommit {
            commit: noted.commit.id.to_string(),
            time: noted.commit.time.to_string(),
            author: &noted.commit.author,
            subject: &noted.commit.subject,
            notes: noted.notes.iter().map(|(instance, note)| (instance.as_str(), json_note(note))).collect(),
        })
        .collect();
    Ok(super::screen::json(&commits)?)
}

fn json_note(note: &Note) -> JsonNote<'_> {
    let document = serde_yaml::from_str(&note.text).ok().filter(serde_json::Value::is_object);
    JsonNote { text: &note.text, document, authentic: note.authenticity.map(|_| note.is_believed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_of_strangers_steer_no_terminal() {
        assert_eq!(
            harmless("ending: \u{1b}[31mfailed\r\n\u{202e}dne\u{200b}: x\u{e0041}\n"),
            "ending: [31mfailed\ndne: x\n"
        );
    }
}
