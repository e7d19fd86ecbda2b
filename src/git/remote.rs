//! Where a repository is: the URL forms that are understood, and text about them that is safe to show.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

use crate::view::text::is_invisible;

/// The longest message that is passed on from a remote or from libgit2, in characters.
const LONGEST_MESSAGE: usize = 500;

/// How the repository is reached. Every other protocol (`git://` has no authentication, `ext::` runs commands) is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A directory of this machine, as a path or as `file://`.
    Local,
    /// `http://` or `https://`.
    Http,
    /// `ssh://` or `user@host:path`.
    Ssh,
}

/// The address of a Git repository. `Display` and `Debug` never show a password.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    text: String,
    protocol: Protocol,
}

/// An address that is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` {reason}; write a path, file:///path, https://host/path, ssh://user@host/path or user@host:path")]
pub struct NotARemote {
    shown: String,
    reason: &'static str,
}

impl RemoteUrl {
    /// The address as libgit2 needs it, passwords included: for the transfer only, never for people.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// How it is reached.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The directory, when the repository is on this machine.
    pub fn local_path(&self) -> Option<PathBuf> {
        match self.protocol {
            Protocol::Local => match Url::parse(&self.text) {
                Ok(url) if url.scheme() == "file" => url.to_file_path().ok(),
                Ok(_) | Err(_) => Some(PathBuf::from(&self.text)),
            },
            Protocol::Http | Protocol::Ssh => None,
        }
    }

    /// The host that credentials may be given to, in lower case.
    pub fn host(&self) -> Option<String> {
        host_of(&self.text)
    }

    /// A relative path made absolute, so that the transfer does not depend on a working directory.
    #[must_use]
    pub fn anchored_at(self, directory: &Path) -> Self {
        match self.protocol {
            Protocol::Local if !self.text.contains("://") => {
                Self { text: directory.join(&self.text).to_string_lossy().into_owned(), protocol: Protocol::Local }
            }
            Protocol::Local | Protocol::Http | Protocol::Ssh => self,
        }
    }
}

/// The host in a URL or in `user@host:path`, in lower case.
pub(crate) fn host_of(text: &str) -> Option<String> {
    if text.contains("://") {
        return Url::parse(text).ok()?.host_str().map(str::to_ascii_lowercase);
    }
    let (before, _) = text.split_once(':')?;
    let host = before.rsplit('@').next().unwrap_or(before);
    Some(host.to_ascii_lowercase())
}

impl FromStr for RemoteUrl {
    type Err = NotARemote;

    fn from_str(text: &str) -> Result<Self, NotARemote> {
        let text = text.trim();
        let refuse = |reason| Err(NotARemote { shown: sanitise(text), reason });
        let of = |protocol| Ok(Self { text: text.to_owned(), protocol });
        if text.is_empty() {
            return refuse("is empty");
        }
        if text.chars().any(char::is_control) {
            return refuse("contains control characters");
        }
        if text.starts_with('-') {
            return refuse("looks like an option");
        }
        if let Some((scheme, _)) = text.split_once("://") {
            let Ok(url) = Url::parse(text) else { return refuse("is not a valid URL") };
            return match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" if url.host_str().is_some() => of(Protocol::Http),
                "ssh" if url.host_str().is_some() => of(Protocol::Ssh),
                "http" | "https" | "ssh" => refuse("names no host"),
                "file" if url.to_file_path().is_ok() => of(Protocol::Local),
                "file" => refuse("is no file of this machine"),
                _ => refuse("has a protocol that gitamp does not speak"),
            };
        }
        // As Git decides it: a colon before the first slash makes it an address on another host.
        match text.find([':', '/']).and_then(|at| text.as_bytes().get(at)) {
            Some(b':') if text.contains("::") && !text.contains('@') => {
                refuse("has a protocol that gitamp does not speak")
            }
            Some(b':') if text.starts_with(':') => refuse("names no host"),
            Some(b':') => of(Protocol::Ssh),
            Some(_) | None => of(Protocol::Local),
        }
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.text))
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The text with the user part of every URL in it replaced (`https://***@host/path`): a token may stand there as the user
/// or as the password. The user of an ssh address is kept, it is no secret and needed to understand errors.
pub(crate) fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(|c: char| c == '/' || c.is_whitespace() || c == '\'' || c == '"').unwrap_or(after.len());
        let authority = after.get(..end).unwrap_or(after);
        match authority.rsplit_once('@') {
            Some((user, host)) if before.ends_with("ssh://") && !user.contains(':') => {
                shown.push_str(user);
                shown.push('@');
                shown.push_str(host);
            }
            Some((_, host)) => {
                shown.push_str("***@");
                shown.push_str(host);
            }
            None => shown.push_str(authority),
        }
        rest = after.get(end..).unwrap_or("");
    }
    shown.push_str(rest);
    shown
}

/// Text from outside made fit for a log line: URLs redacted, no control characters, nothing that turns the direction of
/// writing around, at most 500 characters.
pub(crate) fn sanitise(text: &str) -> String {
    clean_line(&redact(text), LONGEST_MESSAGE)
}

/// One line of at most `longest` characters: control characters become spaces, invisible letters vanish.
pub(crate) fn clean_line(text: &str, longest: usize) -> String {
    let mut line = String::new();
    let mut count = 0;
    for c in text.trim().chars() {
        if is_invisible(c) {
            continue;
        }
        if count == longest {
            line.push('…');
            break;
        }
        let c = if c.is_control() || c == '\u{2028}' || c == '\u{2029}' { ' ' } else { c };
        line.push(c);
        count += 1;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        for (text, protocol, host) in [
            ("/srv/git/fleet.git", Protocol::Local, None),
            ("./fleet", Protocol::Local, None),
            ("fleet", Protocol::Local, None),
            ("./a:b", Protocol::Local, None),
            ("file:///srv/git/fleet.git", Protocol::Local, None),
            ("https://git.example.com/org/fleet.git", Protocol::Http, Some("git.example.com")),
            ("https://token@Git.Example.com:8443/fleet", Protocol::Http, Some("git.example.com")),
            ("http://127.0.0.1:3000/fleet", Protocol::Http, Some("127.0.0.1")),
            ("ssh://git@git.example.com:2222/fleet.git", Protocol::Ssh, Some("git.example.com")),
            ("git@git.example.com:org/fleet.git", Protocol::Ssh, Some("git.example.com")),
        ] {
            let url: RemoteUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(url.protocol(), protocol, "{text}");
            if protocol != Protocol::Local {
                assert_eq!(url.host().as_deref(), host, "{text}");
            }
            assert_eq!(url.local_path().is_some(), protocol == Protocol::Local, "{text}");
        }
        let refused = [
            "",
            "git://host/x",
            "ext::sh -c id",
            "ftp://host/x",
            "--upload-pack=id",
            "https://",
            "a\nb",
            ":x",
            "file://host/x",
        ];
        for text in refused {
            assert!(text.parse::<RemoteUrl>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn passwords_are_never_shown() {
        for (text, shown) in [
            ("https://ghp_secret@host/x", "https://***@host/x"),
            ("https://user:p@ss@host/x", "https://***@host/x"),
            ("ssh://git@host/x", "ssh://git@host/x"),
            ("ssh://git:secret@host/x", "ssh://***@host/x"),
            ("failed for 'https://u:p@h/x' and https://h2/y", "failed for 'https://***@h/x' and https://h2/y"),
            ("nothing here", "nothing here"),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
        let url: RemoteUrl = "https://user:secret@host/x".parse().expect("a URL");
        assert!(!format!("{url} {url:?}").contains("secret"));
        let refused = "foo://user:secret@host/x".parse::<RemoteUrl>().expect_err("unknown protocol").to_string();
        assert!(!refused.contains("secret"), "{refused}");
    }

    #[test]
    fn lines_are_harmless_and_bounded() {
        assert_eq!(clean_line("a\u{1b}[31mred\nb", 100), "a [31mred b");
        assert_eq!(clean_line("\u{202e}evil", 100), "evil");
        assert_eq!(clean_line("ta\u{e0041}gs\u{61c} h\u{ad}id\u{200b}den", 100), "tags hidden");
        assert_eq!(clean_line("abcdef", 3), "abc…");
        assert!(sanitise(&"x".repeat(100_000)).chars().count() <= LONGEST_MESSAGE + 1);
    }
}
