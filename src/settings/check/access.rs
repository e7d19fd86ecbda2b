//! Checks how repositories are reached, what is different for the journal's, and whose signatures count.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Reader, boolean, repo_url};
use crate::settings::secret::{SecretError, may_be_secret};
use crate::settings::{Environment, GitSettings, RepoKind, SecretFile, Settings, VerifyMode, VerifySettings};

pub(super) fn access(settings: &mut Settings, reader: &mut Reader<'_>, environment: &Environment) {
    let known_hosts = reader.path("known-hosts-file");
    let home = || environment.get("HOME").map(|home| Path::new(home).join(".ssh/known_hosts"));
    let git: &mut GitSettings = &mut settings.git;
    git.known_hosts = known_hosts.or_else(home);
    git.ssh_key = key_file(reader, "ssh-key-file");
    git.token = secret_file(reader, "git-token-file");
    reader.set(&mut git.user, "git-user", user_name);
    reader.set(&mut git.ssh_agent, "ssh-agent", boolean);
    git.ssh_agent = git.ssh_agent && environment.get("SSH_AUTH_SOCK").is_some();
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(3600));
    reader.duration(&mut git.connect_timeout, "git-connect-timeout", least, most);
    reader.duration(&mut git.silence_timeout, "git-silence-timeout", least, most);
    reader.duration(&mut git.total_timeout, "git-timeout", Duration::from_secs(1), Duration::from_secs(86_400));
    match settings.repo.kind() {
        RepoKind::Http { encrypted: false } if git.token.is_some() && settings.repo.is_exposed() => {
            reader.problem("git-token-file", "the repository is reached over http://, which would show the token to everybody on the way: use https://");
        }
        RepoKind::Local(_) | RepoKind::Http { .. } | RepoKind::Ssh => {}
    }
}

/// Keys of the journal at once: each is tried on what is judged.
const MOST_JOURNAL_KEYS: usize = 8;

/// The shortest key of the journal, in characters: 16 bytes as hexadecimal digits.
const SHORTEST_JOURNAL_KEY: usize = 32;

pub(super) fn journal(settings: &mut Settings, reader: &mut Reader<'_>) {
    settings.journal.repo = repo_url(reader, "journal-repo");
    settings.journal.known_hosts = reader.path("journal-known-hosts-file");
    settings.journal.ssh_key = key_file(reader, "journal-ssh-key-file");
    settings.journal.token = secret_file(reader, "journal-token-file");
    settings.journal.user = reader.read("journal-user", user_name);
    if settings.journal.token.is_some() && settings.journal_repo().is_exposed() {
        reader.problem("journal-token-file", "the journal's repository is reached over http://, which would show the token to everybody on the way: use https://");
    }
    let keys = secret_file(reader, "journal-key-file").map(|file| file.read());
    // What is wrong with the file has been noted already.
    if let Some(Ok(keys)) = keys {
        let keys = keys.lines();
        if keys.len() > MOST_JOURNAL_KEYS {
            reader.problem(
                "journal-key-file",
                format!("it holds more than {MOST_JOURNAL_KEYS} keys: remove the old ones"),
            );
        }
        if keys.iter().any(|key| key.expose().chars().count() < SHORTEST_JOURNAL_KEY) {
            let why = format!(
                "each line must be a key of at least {SHORTEST_JOURNAL_KEY} characters, like one that `openssl rand -hex 32` prints"
            );
            reader.problem("journal-key-file", why);
        }
        settings.journal.keys = keys;
    }
    settings.journal.adopt = reader.read("journal-adopt", |text| {
        let fine = text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if fine { Ok(text.to_owned()) } else { Err("must be a commit of the journal in full: 40 hexadecimal digits") }
    });
    if settings.journal.adopt.is_some() && !reader.given.contains_key("journal-key-file") {
        reader.problem("journal-adopt", "without --journal-key-file everything is believed: give both, or neither");
    }
    if settings.journal.repo.is_some() && !settings.push {
        settings.warnings.push(
            "the journal has a repository of its own, and nothing is pushed to it (no-push or observe)".to_owned(),
        );
    }
}

fn user_name(text: &str) -> Result<String, &'static str> {
    let fine = !text.is_empty() && text.len() <= 256 && !text.chars().any(|c| c.is_control() || c == ':');
    if fine { Ok(text.to_owned()) } else { Err("must be a name without colons or control characters") }
}

/// What the files hold is read by whoever verifies; here they have to be there.
pub(super) fn verify(settings: &mut Settings, reader: &mut Reader<'_>) {
    let allowed_signers = existing(reader, "verify-allowed-signers");
    let keyring = existing(reader, "verify-keyring");
    let mode = reader.read("verify-mode", |text| match text {
        "head" => Ok(Some(VerifyMode::Head)),
        "all" => Ok(Some(VerifyMode::All)),
        // YAML readers make `off` a boolean.
        "off" | "false" => Ok(None),
        other => Err(format!("must be head, all or off, not {other}")),
    });
    let has_keys = allowed_signers.is_some() || keyring.is_some();
    match mode {
        Some(Some(_)) if !has_keys => {
            reader.problem(
                "verify-mode",
                "nobody could sign: name the keys with --verify-allowed-signers or --verify-keyring",
            );
        }
        Some(Some(mode)) => settings.verify = Some(VerifySettings { mode, allowed_signers, keyring }),
        // Switched off on purpose, or wrong, which has been noted.
        Some(None) => {}
        None if has_keys && !reader.given.contains_key("verify-mode") => {
            let key = if allowed_signers.is_some() { "verify-allowed-signers" } else { "verify-keyring" };
            reader.problem(key, "without --verify-mode nothing is verified: say head, all, or off");
        }
        None => {}
    }
}

/// A file that has to be there when the daemon starts.
pub(super) fn existing(reader: &mut Reader<'_>, key: &str) -> Option<PathBuf> {
    let path = reader.path(key)?;
    if let Err(error) = open(&path, reader.text(key).unwrap_or_default()) {
        reader.problem(key, error);
    }
    Some(path)
}

/// Opens a file that was named like this, to see whether it is there.
pub(super) fn open(path: &Path, given: &str) -> Result<(), String> {
    let wrong = |source| SecretError::Unreadable { path: path.to_owned(), source };
    std::fs::File::open(path).map(drop).map_err(|error| unnamed(&wrong(error), given))
}

/// A file with a secret that can be read now; later it is read again at each use.
pub(super) fn secret_file(reader: &mut Reader<'_>, key: &str) -> Option<SecretFile> {
    let file = SecretFile::new(reader.path(key)?);
    if let Err(error) = file.read() {
        secret_problem(reader, key, &error);
    }
    Some(file)
}

/// The same for a private key.
fn key_file(reader: &mut Reader<'_>, key: &str) -> Option<PathBuf> {
    secret_file(reader, key).map(|file| file.path().to_owned())
}

/// Notes why a secret cannot be had from its file. Who gave the secret itself instead of a file's name does not find it in the log.
pub(super) fn secret_problem(reader: &mut Reader<'_>, key: &str, error: &SecretError) {
    let message = unnamed(error, reader.text(key).unwrap_or_default());
    reader.problem(key, message);
}

/// What is said of a secret that cannot be had from the file that was named like this.
pub(super) fn unnamed(error: &SecretError, given: &str) -> String {
    let is_missing =
        matches!(error, SecretError::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
    if is_missing && may_be_secret(given) { SecretError::NotNamed.to_string() } else { error.to_string() }
}
