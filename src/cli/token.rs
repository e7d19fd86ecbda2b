//! `gitamp token`: the file of agents' tokens, edited whole or not at all. A token is shown once, when it is made.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use ring::rand::{SecureRandom, SystemRandom};

use super::screen::clean;
use super::{Failure, print};
use crate::clock::Clock;
use crate::identity::tokens::{Entry, TokenFile, new_token};
use crate::settings::layers::Text;
use crate::settings::{ServeArgs, token_file_of_daemon};
use crate::time::{Timestamp, parse_duration};

/// Make, list and revoke the tokens that agents prove themselves with
///
/// The file holds their hashes, names, labels and ends; a running gitamp (`--agent-token-file`) takes changes up within seconds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp token new eu-gateways --label env=prod --label region=eu --for 90d --file /etc/gitamp/agent-tokens.yaml\n  \
    gitamp token new eu-gateways                 a second one with the same labels, to replace the first\n  \
    gitamp token list\n  \
    gitamp token revoke 3f2a91c04b77             one of several of a name, by its id\n  \
    gitamp token revoke eu-gateways              all of that name")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
    /// The file of tokens [env: GITAMP_AGENT_TOKEN_FILE] [default: the settings file's `agent-token-file`]
    #[arg(long, value_name = "FILE", global = true)]
    file: Option<Text>,
    /// The daemon's settings file [default: /etc/gitamp/gitamp.yaml, when there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a token, and print it: this is the only time that it can be seen
    New {
        /// Whose it is; several agents may share a token, and are told apart by nothing that is proven then
        name: String,
        /// A label that it gives, whatever the agent says of itself; may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
        /// It ends after so long, like 90d [default: never]
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
        length: Option<Duration>,
    },
    /// List them: names, ids, ends and labels
    List,
    /// Take tokens out: agents that are connected with them lose their connection within seconds
    Revoke {
        /// A name, for all of that name, or the id of one
        #[arg(value_name = "NAME|ID")]
        which: String,
    },
}

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("no file of tokens is named: --file, GITAMP_AGENT_TOKEN_FILE, or `agent-token-file` in the settings file")]
    NoFile,
    #[error("{}: {reason}", .path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("{} cannot be written", .path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },
    #[error("`{0}` is no label: write KEY=VALUE")]
    Label(String),
    #[error("{0}")]
    Unfit(String),
    #[error("no token has the name or the id `{0}`: see `gitamp token list`")]
    Unknown(String),
    #[error("{} was changed by somebody else meanwhile: try again", .0.display())]
    Raced(PathBuf),
    #[error("the system has no random numbers")]
    NoRandomness,
}

impl Arguments {
    /// Reads the file, and writes it when something changes.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let args =
            ServeArgs { agent_token_file: self.file.clone(), config: self.config.clone(), ..ServeArgs::default() };
        let path = token_file_of_daemon(&args)?.ok_or(TokenError::NoFile)?;
        let now = Clock::start().now();
        match self.what {
            What::New { name, labels, length } => new(&path, name, &labels, length, now)?,
            What::List => {
                let opened = Opened::read(&path)?;
                if opened.before.is_none() {
                    anstream::eprintln!("There is no file {} yet.", path.display());
                }
                print(&list(&opened.file, now))?;
            }
            What::Revoke { which } => revoke(&path, &which)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn new(path: &Path, name: String, labels: &[String], length: Option<Duration>, now: Timestamp) -> Result<(), Failure> {
    let mut opened = Opened::read(path)?;
    let pair = |text: &String| {
        let pair = text.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.to_owned()));
        pair.ok_or_else(|| TokenError::Label(text.clone()))
    };
    let given = labels.iter().map(pair).collect::<Result<BTreeMap<_, _>, _>>()?;
    let sister = opened.file.tokens.iter().find(|entry| entry.name == name);
    let labels = match sister {
        Some(sister) if given.is_empty() => sister.labels.clone(),
        Some(_) | None => given,
    };
    let mut random = [0; 32];
    SystemRandom::new().fill(&mut random).map_err(|_| TokenError::NoRandomness)?;
    let (token, sha256) = new_token(&random);
    let is_second = sister.is_some();
    let entry = Entry { name, sha256, created: Some(now), expires: length.map(|length| now + length), labels };
    let (id, shown) = (entry.id().to_owned(), clean(&entry.name));
    let end = entry.expires.map_or_else(|| "until it is revoked".to_owned(), |end| format!("until {end}"));
    opened.file.tokens.push(entry);
    opened.file.check().map_err(TokenError::Unfit)?;
    opened.write()?;
    // The token alone is what is printed, so that it can be piped to where it belongs.
    print(&format!("{token}\n"))?;
    anstream::eprintln!(
        "This is the token of {shown} (id {id}), good {end}. It is not stored anywhere: agents send it as `Authorization: Bearer ...`."
    );
    if is_second {
        anstream::eprintln!(
            "The earlier ones of that name are good until they are revoked: `gitamp token list` has their ids."
        );
    }
    Ok(())
}

fn list(file: &TokenFile, now: Timestamp) -> String {
    if file.tokens.is_empty() {
        return "There are no tokens: `gitamp token new NAME` makes one.\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["NAME", "ID", "CREATED", "ENDS", "LABELS"]);
    for entry in &file.tokens {
        let labels: Vec<String> = entry.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let ends = match entry.expires {
            Some(end) if end <= now => format!("ended {end}"),
            Some(end) => end.to_string(),
            None => "never".to_owned(),
        };
        table.add_row([
            clean(&entry.name),
            entry.id().to_owned(),
            entry.created.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            ends,
            clean(&labels.join(", ")),
        ]);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn revoke(path: &Path, which: &str) -> Result<(), Failure> {
    let mut opened = Opened::read(path)?;
    let is_it = |entry: &Entry| entry.name == which || (which.len() >= 8 && entry.sha256.starts_with(which));
    let (gone, kept): (Vec<Entry>, Vec<Entry>) = opened.file.tokens.into_iter().partition(is_it);
    if gone.is_empty() {
        return Err(TokenError::Unknown(clean(which)).into());
    }
    opened.file = TokenFile { tokens: kept };
    opened.write()?;
    for entry in &gone {
        print(&format!("revoked {} (id {})\n", clean(&entry.name), entry.id()))?;
    }
    Ok(())
}

/// The file as it was read.
struct Opened {
    path: PathBuf,
    before: Option<Vec<u8>>,
    file: TokenFile,
}

impl Opened {
    /// Reads the file; one that is not there has no tokens. A link is followed, and stays what it is.
    fn read(path: &Path) -> Result<Self, Failure> {
        let meant = meant(path);
        let path = meant.as_path();
        let before = content(path)?;
        let malformed = |reason: String| TokenError::Malformed { path: path.to_owned(), reason };
        let text = std::str::from_utf8(before.as_deref().unwrap_or_default());
        let text = text.map_err(|_| malformed("it is not text".to_owned()))?;
        let file = TokenFile::parse(text).map_err(malformed)?;
        Ok(Self { path: path.to_owned(), before, file })
    }

    /// Puts the new file in the place of the old one, with its permissions and its owner: whoever reads it meanwhile sees one or the other, whole.
    fn write(&self) -> Result<(), Failure> {
        let malformed = |reason: String| TokenError::Malformed { path: self.path.clone(), reason };
        let text = self.file.render().map_err(malformed)?;
        let directory = self.path.parent().filter(|directory| !directory.as_os_str().is_empty());
        let before = std::fs::metadata(&self.path).ok();
        // Where there is none yet everybody may read it, because no secret stands in it, and its owner alone may write it.
        let mode = before.as_ref().map_or(0o644, |found| found.permissions().mode() & 0o7777);
        // No daemon takes a file that everybody may write.
        let permissions = Permissions::from_mode(mode & !EVERYBODY_WRITES);
        let unwritable = |source: std::io::Error| TokenError::Unwritable { path: self.path.clone(), source };
        let mut new = tempfile::Builder::new()
            .permissions(permissions.clone())
            .tempfile_in(directory.unwrap_or(Path::new(".")))
            .map_err(unwritable)?;
        new.write_all(text.as_bytes()).map_err(unwritable)?;
        let kept = before.as_ref().map_or(Kept::All, |before| hand_over(new.as_file(), before));
        // Another group than before was never meant to write it.
        let permissions = if kept == Kept::Nothing {
            Permissions::from_mode(permissions.mode() & !ITS_GROUP_WRITES)
        } else {
            permissions
        };
        // The process's mask may have taken something off, and another owner, too.
        new.as_file().set_permissions(permissions).map_err(unwritable)?;
        new.as_file().sync_all().map_err(unwritable)?;
        if content(&self.path)? != self.before {
            return Err(TokenError::Raced(self.path.clone()).into());
        }
        new.persist(&self.path).map_err(|error| unwritable(error.error))?;
        let path = self.path.display();
        if mode & EVERYBODY_WRITES != 0 {
            anstream::eprintln!(
                "Every user of this machine could change {path} (mode {mode:03o}), and so let anybody in. Its owner{} can now: look with \
                 `gitamp token list` whether all in it are yours.",
                if mode & ITS_GROUP_WRITES == 0 || kept == Kept::Nothing { " alone" } else { " and group alone" }
            );
        }
        match kept {
            Kept::All => {}
            Kept::Group => {
                anstream::eprintln!("{path} belongs to you and its group now: see that gitamp may still read it.");
            }
            Kept::Nothing => anstream::eprintln!(
                "{path} belongs to you and your group now, and you alone can change it: see that gitamp may still read it."
            ),
        }
        Ok(())
    }
}

/// With it everybody may change a file.
const EVERYBODY_WRITES: u32 = 0o002;

/// With it its group may.
const ITS_GROUP_WRITES: u32 = 0o020;

/// The file that a name means: links are followed, also to where nothing is yet.
fn meant(path: &Path) -> PathBuf {
    let mut meant = path.to_owned();
    // As many as the kernel follows.
    for _ in 0..40 {
        match (std::fs::canonicalize(&meant), std::fs::read_link(&meant)) {
            (Ok(found), _) => return found,
            (Err(_), Ok(target)) => meant = meant.parent().map_or_else(|| target.clone(), |at| at.join(&target)),
            (Err(_), Err(_)) => break,
        }
    }
    meant
}

/// Whose a new file is, of whom the one before belonged to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    All,
    Group,
    Nothing,
}

/// Gives a new file to whom the one before belonged, as far as that is allowed: members of its group may keep that.
fn hand_over(new: &File, before: &Metadata) -> Kept {
    let is_same = |found: Metadata| found.uid() == before.uid() && found.gid() == before.gid();
    if new.metadata().is_ok_and(is_same) || fchown(new, Some(before.uid()), Some(before.gid())).is_ok() {
        return Kept::All;
    }
    if fchown(new, None, Some(before.gid())).is_ok() { Kept::Group } else { Kept::Nothing }
}

fn content(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenError::Malformed { path: path.to_owned(), reason: source.to_string() }.into()),
    }
}
