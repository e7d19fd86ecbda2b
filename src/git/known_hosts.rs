//! The host keys that are trusted, gathered into a home directory of the transfer's own, where libssh2 reads them.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::failure::{FailureKind, TransportError};

/// The largest file of host keys that is read: 8 MiB, some 50,000 hosts.
const LARGEST_FILE_BYTES: u64 = 8 << 20;

/// What is known about host keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostKeys {
    /// The lines that libssh2 understands.
    pub(super) trusted: String,
    /// Keys (base64) that are marked as revoked, for whatever host: refused even if another line trusts them.
    pub(super) revoked: Vec<String>,
}

impl HostKeys {
    /// Sorts the lines of a `known_hosts` file. Host certificates (`@cert-authority`) are left out: libssh2 cannot check
    /// them, so those hosts count as unknown.
    pub(super) fn add(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.trim();
            if let Some(entry) = line.strip_prefix("@revoked") {
                self.revoked.extend(entry.split_whitespace().nth(2).map(str::to_owned));
            } else if !line.is_empty() && !line.starts_with(['#', '@']) {
                self.trusted.push_str(line);
                self.trusted.push('\n');
            }
        }
    }

    /// The keys of the named file, or of the places where OpenSSH looks.
    pub(super) fn gather(named: Option<&Path>, home: Option<&Path>) -> Result<Self, TransportError> {
        let mut keys = Self::default();
        if let Some(path) = named {
            let text = read_bounded(path).map_err(|error| {
                TransportError::new(
                    FailureKind::HostKey,
                    format!("cannot read the known hosts in {}: {error}; check --known-hosts-file", path.display()),
                )
            })?;
            keys.add(&text);
            return Ok(keys);
        }
        let places = home.map(|home| home.join(".ssh/known_hosts")).into_iter();
        for path in places.chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]) {
            // Absent is normal here; without any key the host is unknown, and that is said.
            if let Ok(text) = read_bounded(&path) {
                keys.add(&text);
            }
        }
        Ok(keys)
    }

    /// Writes the trusted keys where libssh2 looks when `home` is the home directory.
    pub(super) fn write_below(&self, home: &Path) -> io::Result<()> {
        let directory = home.join(".ssh");
        fs::create_dir_all(&directory)?;
        let fresh = directory.join("known_hosts.new");
        fs::write(&fresh, &self.trusted)?;
        fs::rename(fresh, directory.join("known_hosts"))
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is over 8 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_sorted_by_what_can_be_checked() {
        let mut keys = HostKeys::default();
        keys.add(
            "# ours\n\ngit.example.com ssh-ed25519 AAAA\n|1|salt|hash ssh-rsa BBBB\n\
             @cert-authority *.example.com ssh-ed25519 CCCC\n@revoked * ssh-ed25519 DDDD\n",
        );
        assert_eq!(keys.trusted, "git.example.com ssh-ed25519 AAAA\n|1|salt|hash ssh-rsa BBBB\n");
        assert_eq!(keys.revoked, ["DDDD"]);
    }

    #[test]
    fn a_named_file_must_be_there_and_default_places_need_not() {
        let home = tempfile::tempdir().expect("a directory");
        let missing = HostKeys::gather(Some(&home.path().join("nope")), None).expect_err("it is missing");
        assert_eq!(missing.kind, FailureKind::HostKey);
        assert!(missing.message.contains("--known-hosts-file"), "{missing}");
        HostKeys::gather(None, Some(home.path())).expect("absent files are no error");
        let keys = HostKeys { trusted: "h ssh-ed25519 A\n".to_owned(), revoked: Vec::new() };
        keys.write_below(home.path()).expect("it is written");
        let read = HostKeys::gather(None, Some(home.path())).expect("it is read");
        assert!(read.trusted.starts_with(&keys.trusted));
    }
}
