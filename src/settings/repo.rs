//! The address of the fleet repository: which forms are taken, what is refused, and how two addresses of one repository compare.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

/// How a repository is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepoKind {
    /// A directory of this machine.
    Local(PathBuf),
    /// `https://` (or `http://`, which is warned about unless it is loopback).
    Http {
        /// True when the transport is encrypted.
        encrypted: bool,
    },
    /// `ssh://` or `user@host:path`.
    Ssh,
}

/// A checked address of a Git repository. It never holds a password or a token, so it may be shown anywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct RepoUrl {
    text: String,
    kind: RepoKind,
    identity: Option<RepoIdentity>,
}

/// Why an address is not taken. The address itself is never part of it: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotARepoUrl {
    /// Nothing at all.
    #[error("it is empty: give a directory, or an address like https://git.example.com/team/fleet.git")]
    Empty,
    /// A password or token inside.
    #[error(
        "it holds credentials, which would end up in logs and process lists: remove them from the address, and give a \
         token with --git-token-file (its user name with --git-user) or a key with --ssh-key-file"
    )]
    Credentials,
    /// Not one of ours.
    #[error("`{0}://` is not supported: use a directory, file://, https://, ssh:// or user@host:path")]
    Scheme(String),
    /// Reading it failed.
    #[error("it cannot be read as an address: {0}")]
    Malformed(String),
}

impl RepoUrl {
    /// Reads an address. A relative directory is taken from the working directory of this process.
    ///
    /// # Errors
    /// When it is empty, holds credentials, or has a form that Git cannot follow here.
    pub fn parse(text: &str) -> Result<Self, NotARepoUrl> {
        let text = text.trim();
        if text.is_empty() {
            return Err(NotARepoUrl::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(NotARepoUrl::Malformed("it contains control characters".to_owned()));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Self::parse_url(text, &scheme.to_ascii_lowercase());
        }
        // Like Git: a colon before the first slash means host:path.
        if let Some((host, path)) = text.split_once(':')
            && !host.contains('/')
        {
            return Self::parse_scp(text, host, path);
        }
        if text.starts_with('~') {
            return Err(NotARepoUrl::Malformed("`~` is a matter of the shell: write the directory out".to_owned()));
        }
        Self::local(Path::new(text))
    }

    /// The repository in this directory of this machine.
    ///
    /// # Errors
    /// When the path is empty, not UTF-8, or the working directory that it is relative to is gone.
    pub fn local(path: &Path) -> Result<Self, NotARepoUrl> {
        let absolute = std::path::absolute(path).map_err(|error| NotARepoUrl::Malformed(error.to_string()))?;
        let text = absolute.to_str().ok_or_else(|| NotARepoUrl::Malformed("the path is not UTF-8".to_owned()))?;
        Ok(Self { text: text.to_owned(), kind: RepoKind::Local(absolute), identity: None })
    }

    fn parse_url(text: &str, scheme: &str) -> Result<Self, NotARepoUrl> {
        let url = Url::parse(text).map_err(|error| NotARepoUrl::Malformed(error.to_string()))?;
        let kind = match scheme {
            "file" => {
                let path = url.to_file_path().map_err(|()| {
                    NotARepoUrl::Malformed("a file address names an absolute path: file:///srv/fleet.git".to_owned())
                })?;
                return Self::local(&path);
            }
            "https" => RepoKind::Http { encrypted: true },
            "http" => RepoKind::Http { encrypted: false },
            "ssh" => RepoKind::Ssh,
            other => return Err(NotARepoUrl::Scheme(other.chars().take(32).collect())),
        };
        // Over https a token is often given in place of the user name, so neither may stand there.
        if url.password().is_some() || (kind != RepoKind::Ssh && !url.username().is_empty()) {
            return Err(NotARepoUrl::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(NotARepoUrl::Malformed("it has a query or a fragment behind the path".to_owned()));
        }
        let identity = RepoIdentity::of_url(text)
            .ok_or_else(|| NotARepoUrl::Malformed("it names a host without a repository".to_owned()))?;
        Ok(Self { text: text.to_owned(), kind, identity: Some(identity) })
    }

    fn parse_scp(text: &str, host: &str, path: &str) -> Result<Self, NotARepoUrl> {
        // `user:password@host:path`, as people write it who know it from other addresses.
        if !host.contains('@') && path.split('/').next().is_some_and(|first| first.contains('@')) {
            return Err(NotARepoUrl::Credentials);
        }
        let name = host.rsplit('@').next().unwrap_or_default();
        if name.is_empty() || path.trim_matches('/').is_empty() {
            return Err(NotARepoUrl::Malformed("user@host:path needs a host and a path".to_owned()));
        }
        // `ext::command` would be a program to run for Git, and a leading dash an option.
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "-._@[]:".contains(c));
        if path.starts_with(':') || host.starts_with('-') || name.starts_with('-') || host.contains(odd) {
            return Err(NotARepoUrl::Malformed("what stands before the colon is no host".to_owned()));
        }
        // `https:/host/x` and the like: a scheme with a slash missing, not a host.
        if ["http", "https", "ssh", "file", "git"].contains(&host) {
            return Err(NotARepoUrl::Malformed(format!("`{host}:` needs two slashes behind it")));
        }
        Ok(Self { text: text.to_owned(), kind: RepoKind::Ssh, identity: RepoIdentity::of_url(text) })
    }

    /// The address as Git takes it; for a directory, its absolute path.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is reached.
    pub fn kind(&self) -> &RepoKind {
        &self.kind
    }

    /// Its directory, when it is one of this machine.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.kind {
            RepoKind::Local(path) => Some(path),
            RepoKind::Http { .. } | RepoKind::Ssh => None,
        }
    }

    /// The host, over https with a port that is not the usual one, and the path on it as it is written, without `.git` and surrounding
    /// slashes; `None` for a directory.
    pub fn place(&self) -> Option<(String, String)> {
        let mut host = self.identity.as_ref()?.host.clone();
        let path = if self.text.contains("://") {
            let url = Url::parse(&self.text).ok()?;
            if let Some(port) = url.port().filter(|_| url.scheme() == "https") {
                host = format!("{host}:{port}");
            }
            url.path().to_owned()
        } else {
            self.text.split_once(':')?.1.to_owned()
        };
        let path = path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
        Some((host, path.to_owned()))
    }

    /// What it is called whatever way it is reached; `None` for a directory.
    pub fn identity(&self) -> Option<&RepoIdentity> {
        self.identity.as_ref()
    }

    /// True when both are reached over http(s) at one scheme, host and port, so that a token for the one is no secret to the other.
    pub fn shares_server(&self, other: &Self) -> bool {
        let origin = |one: &Self| match one.kind {
            RepoKind::Http { .. } => Url::parse(&one.text).ok().map(|url| url.origin()),
            RepoKind::Local(_) | RepoKind::Ssh => None,
        };
        origin(self).is_some_and(|ours| ours.is_tuple() && Some(ours) == origin(other))
    }

    /// True for `http://` to another machine, where anybody on the way can change what the fleet runs.
    pub fn is_exposed(&self) -> bool {
        let loopback = || {
            self.identity.as_ref().is_some_and(|one| {
                one.host == "localhost" || one.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            })
        };
        matches!(self.kind, RepoKind::Http { encrypted: false }) && !loopback()
    }
}

impl fmt::Display for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A repository by host and path alone: `https://git.example.com:8443/Team/Fleet.git` and `git@GIT.example.com:team/fleet` are
/// the same. Scheme, user, port, `.git`, surrounding slashes and the case of letters are left out, so this is for matching a hook's
/// repository with ours, where a wrong match costs one needless look at the remote, and never to decide who is trusted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RepoIdentity {
    host: String,
    path: String,
}

impl RepoIdentity {
    /// Reads any address form with a host; `None` for the rest, and without a path.
    pub fn of_url(text: &str) -> Option<Self> {
        let (host, path) = if text.contains("://") {
            let url = Url::parse(text).ok()?;
            (url.host_str()?.trim_matches(['[', ']']).to_owned(), url.path().to_owned())
        } else {
            let (host, path) = text.split_once(':').filter(|(host, _)| !host.contains('/'))?;
            (host.rsplit('@').next()?.to_owned(), path.to_owned())
        };
        let path = path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/').to_ascii_lowercase();
        (!host.is_empty() && !path.is_empty()).then(|| Self { host: host.to_ascii_lowercase(), path })
    }

    /// The path without `.git`, lowercase: what forges call the full name.
    pub fn path(&self) -> &str {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_are_taken() {
        for (text, kind, identity) in [
            (
                "https://Git.Example.com/team/Fleet.git",
                RepoKind::Http { encrypted: true },
                "git.example.com team/fleet",
            ),
            (
                "https://git.example.com:8443/team/fleet/",
                RepoKind::Http { encrypted: true },
                "git.example.com team/fleet",
            ),
            ("http://127.0.0.1:3000/a.git", RepoKind::Http { encrypted: false }, "127.0.0.1 a"),
            ("ssh://git@git.example.com:2222/team/fleet.git", RepoKind::Ssh, "git.example.com team/fleet"),
            ("git@git.example.com:team/fleet.git", RepoKind::Ssh, "git.example.com team/fleet"),
            ("git.example.com:/srv/fleet", RepoKind::Ssh, "git.example.com srv/fleet"),
            ("/srv/fleet.git", RepoKind::Local("/srv/fleet.git".into()), ""),
            ("file:///srv/a%20b", RepoKind::Local("/srv/a b".into()), ""),
            ("/srv/odd:name", RepoKind::Local("/srv/odd:name".into()), ""),
        ] {
            let url = RepoUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(url.kind(), &kind, "{text}");
            let shown = url.identity().map(|one| format!("{} {}", one.host, one.path)).unwrap_or_default();
            assert_eq!(shown, identity, "{text}");
            assert_eq!(RepoUrl::parse(url.as_str()), Ok(url.clone()), "{text}: what Git gets can be read again");
        }
        let relative = RepoUrl::parse("./fleet").expect("a relative directory");
        assert!(relative.local_path().is_some_and(Path::is_absolute), "{relative}");
    }

    #[test]
    fn forms_that_are_refused_without_repeating_them() {
        for (text, part) in [
            ("", "empty"),
            ("https://bob:hunter2@git.example.com/x", "--git-token-file"),
            ("https://hunter2@git.example.com/x", "--git-token-file"),
            ("ssh://git:hunter2@git.example.com/x", "credentials"),
            ("git:hunter2@git.example.com:team/fleet", "credentials"),
            ("git://git.example.com/hunter2", "`git://` is not supported"),
            ("ext::sh -c hunter2", "no host"),
            ("-oProxyCommand=hunter2:x", "no host"),
            ("bob;hunter2@host:x", "no host"),
            ("https://git.example.com", "without a repository"),
            ("https://git.example.com/x?hunter2", "query"),
            ("https:/git.example.com/hunter2", "two slashes"),
            ("git@host:", "host and a path"),
            ("~/fleet", "shell"),
            ("/srv/x\n", ""),
            ("/srv/\u{1b}[31m", "control characters"),
            ("file://elsewhere/srv", "absolute path"),
        ] {
            match RepoUrl::parse(text) {
                Ok(url) => assert!(part.is_empty(), "{text}: taken as {url}"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.contains(part) && !part.is_empty(), "{text}: {error}");
                    assert!(!error.contains("hunter2"), "{text}: {error}");
                }
            }
        }
    }

    #[test]
    fn servers_are_shared_by_scheme_host_and_port() {
        for (one, other, shared) in [
            ("https://git.example.com/a", "https://GIT.example.com:443/b", true),
            ("https://git.example.com/a", "http://git.example.com/b", false),
            ("https://git.example.com/a", "https://git.example.com:8443/b", false),
            ("https://git.example.com/a", "https://git.example.com.evil.example/b", false),
            ("git@git.example.com:a", "git@git.example.com:b", false),
            ("/srv/a", "/srv/a", false),
        ] {
            let url = |text| RepoUrl::parse(text).expect("an address");
            assert_eq!(url(one).shares_server(&url(other)), shared, "{one} {other}");
        }
    }

    #[test]
    fn plain_http_to_other_machines_is_exposed() {
        for (text, exposed) in [
            ("http://git.example.com/x", true),
            ("http://127.0.0.1:1/x", false),
            ("http://localhost/x", false),
            ("http://[::1]:80/x", false),
            ("https://git.example.com/x", false),
            ("/srv/x", false),
        ] {
            assert_eq!(RepoUrl::parse(text).expect(text).is_exposed(), exposed, "{text}");
        }
    }
}
