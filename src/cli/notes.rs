//! `gitamp notes`: what became of a commit, as the daemons noted it in the repository.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Failure, print};
use crate::git::notes::{NotedCommit, NotesPlace};
use crate::git::transport::{Transport, own_program};
use crate::git::{Access, Deadlines};

const EXAMPLES: &str = "Examples:
  gitamp notes                          the newest commits that have a note
  gitamp notes HEAD~2                   what became of that commit
  gitamp notes v1.4.0 --instance eu --output json
  gitamp notes --repo ../fleet --offline
  gitamp notes --state-dir /var/lib/gitamp

The notes are Git's own. To see them in `git log` and to fetch them with `git fetch`, once per clone:
  git config --add notes.displayRef 'refs/notes/gitamp/*'
  git config --add remote.origin.fetch 'refs/notes/gitamp/*:refs/notes/gitamp/*'";

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
    /// A clone of the fleet's repository.
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,
    /// Read what the daemon with this state directory has, instead of a clone.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["repo", "remote", "offline"])]
    state_dir: Option<PathBuf>,
    /// Only the notes of this instance.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// The clone's remote that notes are fetched from.
    #[arg(long, value_name = "NAME", default_value = "origin")]
    remote: String,
    /// Show what is here, fetch nothing.
    #[arg(long)]
    offline: bool,
    /// A file with a token for https.
    #[arg(long, value_name = "FILE", env = "GITAMP_GIT_TOKEN_FILE")]
    git_token_file: Option<PathBuf>,
    /// A private key for ssh; without one the SSH agent is asked.
    #[arg(long, value_name = "FILE", env = "GITAMP_SSH_KEY_FILE")]
    ssh_key_file: Option<PathBuf>,
    /// The host keys to trust, instead of ~/.ssh/known_hosts.
    #[arg(long, value_name = "FILE", env = "GITAMP_KNOWN_HOSTS_FILE")]
    known_hosts_file: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, value_name = "FORM", default_value = "human")]
    output: Output,
}

impl Arguments {
    /// Shows the notes. Exit code 1 when there are none.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let place = match &self.state_dir {
            Some(directory) => NotesPlace::state_dir(directory)?,
            None => {
                let place = NotesPlace::clone_at(&self.repo)?;
                self.fetch(&place)?;
                place
            }
        };
        let instance = self.instance.as_deref();
        let found = match &self.revision {
            Some(revision) => vec![place.on(revision, instance)?],
            None => place.newest(self.number, instance)?,
        };
        match self.output {
            Output::Human => print(&human(&found))?,
            Output::Json => print(&json(&found)?)?,
        }
        if found.iter().any(|noted| !noted.notes.is_empty()) {
            return Ok(ExitCode::SUCCESS);
        }
        let instance = instance.map_or(String::new(), |name| format!(" of instance `{name}`"));
        anstream::eprintln!(
            "no notes{instance} here: has a daemon synced this commit, and may it push refs/notes/gitamp/*?"
        );
        Ok(ExitCode::from(1))
    }

    /// Fetches the notes; what is here already is worth showing even when that fails.
    fn fetch(&self, place: &NotesPlace) -> Result<(), Failure> {
        if self.offline {
            return Ok(());
        }
        let Some(url) = place.remote(&self.remote)? else { return Ok(()) };
        let transport = Transport {
            program: own_program()?,
            url,
            access: Access {
                token_file: self.git_token_file.clone(),
                ssh_key_file: self.ssh_key_file.clone(),
                known_hosts_file: self.known_hosts_file.clone(),
                ..Access::default()
            },
            deadlines: Deadlines::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        if let Err(error) = runtime.block_on(place.fetch(&transport)) {
            anstream::eprintln!(
                "warning: {error}\n  showing the notes that are here; `git fetch {} 'refs/notes/gitamp/*:refs/notes/gitamp/*'` \
                 fetches them with Git's own credentials",
                self.remote
            );
        }
        Ok(())
    }
}

/// Text from the repository as it may stand on a terminal: lines, and nothing that moves the cursor.
fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
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
            text.push_str(&format!("  {}:\n", harmless(instance)));
            for line in harmless(note).lines() {
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

/// A note for scripts: its text, and its fields when it is a document of ours.
#[derive(Serialize)]
struct JsonNote<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<serde_json::Value>,
}

fn json(found: &[NotedCommit]) -> Result<String, Failure> {
    let commits: Vec<JsonCommit<'_>> = found
        .iter()
        .map(|noted| JsonCommit {
            commit: noted.commit.id.to_string(),
            time: noted.commit.time.to_string(),
            author: &noted.commit.author,
            subject: &noted.commit.subject,
            notes: noted.notes.iter().map(|(instance, text)| (instance.as_str(), json_note(text))).collect(),
        })
        .collect();
    Ok(serde_json::to_string_pretty(&commits)? + "\n")
}

fn json_note(text: &str) -> JsonNote<'_> {
    let document = serde_yaml::from_str(text).ok().filter(serde_json::Value::is_object);
    JsonNote { text, document }
}
