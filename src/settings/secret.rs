//! Secrets that come from files: read late, never shown, and not taken from files that everybody may read.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Not;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The largest secret file: 64 KiB. A token is a line; what is larger is the wrong file.
const LARGEST_SECRET_FILE: u64 = 64 << 10;

/// The permissions that no file with a secret may have: everybody's to read and to write. Those of its group are somebody's decision, and
/// usual: Kubernetes' `fsGroup` and systemd's credentials hand secrets over that way.
const EVERYBODY: u32 = 0o006;

/// Secrets of the webhooks that are valid at once: each of them is tried on every delivery.
const MOST_HOOK_SECRETS: usize = 8;

/// A value that no log, error or debug output ever shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps this value from being shown.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself; the name says what the caller does with it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `text` with `***` wherever the secret stands in it: for words of somebody who was given it, and may repeat it.
    pub fn hidden_in(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, "***") }
    }

    /// The secrets that stand in this one, one a line: several are good while one replaces another.
    pub fn lines(&self) -> Vec<Self> {
        self.0.lines().map(str::trim).filter(|line| !line.is_empty()).map(Self::new).collect()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a secret cannot be had from its file.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Reading failed.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no such file, and what stands for its name may be the secret itself.
    #[error(
        "there is no file of this name (which is not repeated, for it may be the secret itself): write the secret into a file, and name that"
    )]
    NotNamed,
    /// Everybody on this machine may read the file, or write it.
    #[error(
        "{path} (mode {mode:03o}) can be read or written by every user of this machine, so it is not used: chmod 600 {path} (in a volume of \
         Kubernetes: defaultMode 0440, and the pod's fsGroup)",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Nothing but white space.
    #[error("{path} is empty: write the secret into it", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Too large to be a secret.
    #[error("{path} is larger than 64 KiB, which no secret is", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// More lines than anybody rotates.
    #[error("{path} holds {count} secrets, one a line, and at most {MOST_HOOK_SECRETS} are tried", path = path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// So many lines.
        count: usize,
    },
    /// A signing token that cannot be one.
    #[error("{path} has a line that begins with `whsec_` and does not go on in base64: copy the signing token again", path = path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// Not text.
    #[error("{path} holds bytes that are not UTF-8 text, or a NUL", path = path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

/// The shortest value that may be a secret instead of the name of a file with one.
const SHORTEST_SECRET: usize = 12;

/// True when a text that was given for the name of a file may be a secret instead: it is long enough, and leads nowhere.
pub fn may_be_secret(text: &str) -> bool {
    text.len() >= SHORTEST_SECRET && !text.contains(['/', '.'])
}

/// A file with a secret. It is read when it is needed, so that a token which was renewed in place is taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    path: PathBuf,
}

impl SecretFile {
    /// The secret in this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret, without the white space around it.
    ///
    /// # Errors
    /// When the file cannot be read, may be read or written by everybody, is empty, not text, or larger than 64 KiB.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let path = || self.path.clone();
        let unreadable = |source: std::io::Error| {
            let is_missing = source.kind() == std::io::ErrorKind::NotFound;
            if is_missing && self.path.to_str().is_some_and(may_be_secret) {
                return SecretError::NotNamed;
            }
            SecretError::Unreadable { path: path(), source }
        };
        let file = File::open(&self.path).map_err(unreadable)?;
        // Of what was opened, not of what the path leads to a moment later. Pipes and devices have no readers behind our back.
        let found = file.metadata().map_err(unreadable)?;
        let mode = found.permissions().mode() & 0o777;
        if found.is_file() && mode & EVERYBODY != 0 {
            return Err(SecretError::Exposed { path: path(), mode });
        }
        let mut bytes = Vec::new();
        file.take(LARGEST_SECRET_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > LARGEST_SECRET_FILE {
            return Err(SecretError::TooLarge { path: path() });
        }
        let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText { path: path() })?;
        let trimmed = text.trim();
        if trimmed.contains('\0') {
            return Err(SecretError::NotText { path: path() });
        }
        if trimmed.is_empty() { Err(SecretError::Empty { path: path() }) } else { Ok(Secret::new(trimmed)) }
    }
}

/// The secrets of the webhooks: a file with one a line, so that two are valid while one replaces the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSecrets {
    /// Where they are.
    pub file: SecretFile,
    /// What stood there when it was read: 1 to 8 secrets.
    pub first: Vec<Secret>,
}

impl HookSecrets {
    /// Reads the file.
    ///
    /// # Errors
    /// As for [`SecretFile::read`]; and when it holds more than 8 lines, or a signing token (`whsec_<base64>`) that cannot be one.
    pub fn read(file: SecretFile) -> Result<Self, SecretError> {
        let all = file.read()?;
        let path = || file.path.clone();
        let first = all.lines();
        if first.len() > MOST_HOOK_SECRETS {
            return Err(SecretError::TooMany { path: path(), count: first.len() });
        }
        let is_broken = |line: &Secret| {
            let key = line.expose().strip_prefix("whsec_").map(|key| STANDARD.decode(key));
            key.is_some_and(|key| key.is_ok_and(|key| !key.is_empty()).not())
        };
        if first.iter().any(is_broken) {
            return Err(SecretError::NotAKey { path: path() });
        }
        Ok(Self { file, first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_trimmed_and_never_shown() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = SecretFile::new(directory.path().join("secret"));
        let write = |bytes: &[u8]| std::fs::write(file.path(), bytes).expect("writing");

        assert!(matches!(file.read(), Err(SecretError::Unreadable { .. })), "a missing file");
        write(b"");
        chmod(&file, 0o600);
        write(b"hunter2\r\n");
        let secret = file.read().expect("a secret");
        assert_eq!(secret.expose(), "hunter2", "the newline that editors add is no part of it");
        assert_eq!(format!("{secret:?} {file:?}").matches("hunter2").count(), 0);
        assert_eq!(secret.hidden_in("no hunter2: hunter2"), "no ***: ***");
        assert_eq!(Secret::new("").hidden_in("as it is"), "as it is");
        write(b"old\n\n  new \n");
        let secrets = HookSecrets::read(file.clone()).expect("two secrets");
        assert_eq!(secrets.first.iter().map(Secret::expose).collect::<Vec<_>>(), ["old", "new"]);
        for (content, words) in [
            ("hunter2\n".repeat(9), "9 secrets"),
            ("hunter2\nwhsec_!\n".to_owned(), "signing token"),
            ("whsec_".to_owned(), "signing token"),
        ] {
            write(content.as_bytes());
            let error = HookSecrets::read(file.clone()).expect_err(words).to_string();
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }

        for (content, kind) in
            [(&b" \n\n"[..], "empty"), (b"a\0b", "NUL"), (b"\xff\xfe", "UTF-8"), (&[b'x'; 70_000], "64 KiB")]
        {
            write(content);
            let error = file.read().expect_err(kind).to_string();
            assert!(error.contains(kind), "{kind}: {error}");
            assert!(HookSecrets::read(file.clone()).is_err(), "{kind}");
        }
    }

    #[test]
    fn files_that_everybody_may_read_or_write_are_refused_with_the_remedy() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = SecretFile::new(directory.path().join("secret"));
        std::fs::write(file.path(), "hunter2").expect("writing");
        let link = SecretFile::new(directory.path().join("link"));
        std::os::unix::fs::symlink(file.path(), link.path()).expect("a link");
        for (mode, refused) in [
            (0o600, false),
            (0o400, false),
            (0o640, false),
            (0o440, false),
            (0o644, true),
            (0o604, true),
            (0o602, true),
        ] {
            chmod(&file, mode);
            for one in [&file, &link] {
                let outcome = one.read();
                assert_eq!(outcome.is_err(), refused, "{mode:o}: {outcome:?}");
                if let Err(error) = outcome {
                    let error = error.to_string();
                    let remedy = format!("chmod 600 {}", one.path().display());
                    assert!(error.contains(&remedy) && error.contains(&format!("{mode:o}")), "{error}");
                    assert!(!error.contains("hunter2"), "{error}");
                }
            }
        }
        assert!(matches!(SecretFile::new("/dev/null").read(), Err(SecretError::Empty { .. })), "a device is no file");
    }

    fn chmod(file: &SecretFile, mode: u32) {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("chmod");
    }
}
