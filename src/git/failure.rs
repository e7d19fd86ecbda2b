//! What can go wrong between us and a remote, what to do about it, and whether waiting helps.

use std::time::Duration;

use git2::{ErrorClass, ErrorCode};
use serde::{Deserialize, Serialize};

use super::remote::sanitise;

/// Decides the retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// It may go well by itself: try again with backoff.
    Transient,
    /// The remote asks for patience, and libgit2 does not pass on for how long: try again, but not within a minute.
    Throttled,
    /// It needs a person or a new revision. Still tried again, at the slowest pace, because both come without a word.
    Stalled,
}

/// What went wrong in a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The remote could not be reached, or the connection broke.
    Network,
    /// A deadline passed.
    Timeout,
    /// The remote said that it is in trouble (5xx).
    Server,
    /// The remote said that it is asked too much (429, 503). When it wants to be asked again libgit2 does not pass on.
    Throttled,
    /// The remote wants other credentials.
    Credentials,
    /// The remote forbids it (403): for want of a right, or, as some forges say it, because it is asked too much.
    Forbidden,
    /// The remote's SSH host key is unknown or has changed.
    HostKey,
    /// The remote's TLS certificate is not trusted.
    Certificate,
    /// There is no such repository.
    NotFound,
    /// The repository has no such branch, or no tag that matches.
    NoSuchRef,
    /// The remote has commits that the push does not contain.
    NotFastForward,
    /// The remote refuses the push (a hook, a protected ref, a read-only token).
    PushRefused,
    /// What was received is over a limit, or is no Git protocol.
    Protocol,
    /// Objects came that cannot be taken in: they are broken, they grow beyond all memory, or our copy lacks what they build on.
    Content,
    /// Our own copy cannot be used: damaged, locked, or the disk is full.
    Local,
    /// The process that does the transfer could not be started, or died.
    Child,
}

impl FailureKind {
    /// Whether waiting helps.
    pub fn class(self) -> FailureClass {
        match self {
            Self::Network | Self::Timeout | Self::Server | Self::NotFastForward | Self::Local | Self::Child => {
                FailureClass::Transient
            }
            Self::Throttled => FailureClass::Throttled,
            Self::Credentials
            | Self::Forbidden
            | Self::HostKey
            | Self::Certificate
            | Self::NotFound
            | Self::NoSuchRef
            | Self::PushRefused
            | Self::Protocol
            | Self::Content => FailureClass::Stalled,
        }
    }
}

/// A transfer that failed. The message is one sanitised line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// What went wrong.
    pub kind: FailureKind,
    /// The sentence for people.
    pub message: String,
}

impl TransportError {
    /// A failure with its sentence; the text may come from outside.
    pub(crate) fn new(kind: FailureKind, message: impl AsRef<str>) -> Self {
        Self { kind, message: sanitise(message.as_ref()) }
    }

    /// Whether waiting helps.
    pub fn class(&self) -> FailureClass {
        self.kind.class()
    }
}

/// What libgit2's error means. `shown` is the redacted address; `elapsed` how long it took and `silence` the limit that
/// libgit2 was given: over https a timeout looks like any broken connection, so the time decides.
pub(crate) fn classify(error: &git2::Error, shown: &str, elapsed: Duration, silence: Duration) -> TransportError {
    let said = error.message();
    let kind = kind_of(error, elapsed, silence);
    let advice = match kind {
        FailureKind::Network => "check the address and the network; it is tried again",
        FailureKind::Timeout => "the remote stopped answering; it is tried again",
        FailureKind::Server => "the remote is in trouble; it is tried again",
        FailureKind::Throttled => "the remote is asked too much; it is tried again, not within a minute",
        FailureKind::Forbidden => {
            "the token or key lacks the right, or the remote is asked too much: see what it may do in this repository"
        }
        FailureKind::Credentials => {
            "check --git-token-file (https), or --ssh-key-file or the SSH agent (ssh), and that they may read this repository"
        }
        FailureKind::HostKey => {
            "the host key is unknown or has changed: verify it with whoever runs the host, then put it into --known-hosts-file"
        }
        FailureKind::Certificate => "the certificate is not trusted; set SSL_CERT_FILE if the authority is your own",
        FailureKind::NotFound => {
            "no such repository, or these credentials may not see it: check --repo and the credentials"
        }
        FailureKind::NoSuchRef => "check --branch",
        FailureKind::NotFastForward => "somebody else pushed first; it is merged and tried again",
        FailureKind::PushRefused => "the remote refuses the push; notes stay local until it is allowed",
        FailureKind::Protocol => {
            "the answer is not what a Git server says: check that --repo is a repository's address"
        }
        FailureKind::Content => "see what `git fsck` says there",
        FailureKind::Local => "our copy cannot be used; it is set aside and made anew",
        FailureKind::Child => "it is tried again",
    };
    TransportError::new(kind, format!("{shown}: {said} ({advice})"))
}

fn kind_of(error: &git2::Error, elapsed: Duration, silence: Duration) -> FailureKind {
    let said = error.message();
    let has = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
    let by_code = [
        (ErrorCode::Auth, FailureKind::Credentials),
        (ErrorCode::Timeout, FailureKind::Timeout),
        (ErrorCode::NotFastForward, FailureKind::NotFastForward),
        (ErrorCode::Locked, FailureKind::Local),
    ];
    if let Some((_, kind)) = by_code.iter().find(|(code, _)| *code == error.code()) {
        return *kind;
    }
    let class = error.class();
    let is_certificate = error.code() == ErrorCode::Certificate;
    if class == ErrorClass::Ssh && (is_certificate || has(&["hostkey", "host key"])) {
        return FailureKind::HostKey;
    }
    if is_certificate || (class == ErrorClass::Ssl && has(&["certificate"])) {
        return FailureKind::Certificate;
    }
    match http_status(said) {
        Some(401 | 407) => return FailureKind::Credentials,
        Some(403) => return FailureKind::Forbidden,
        Some(404 | 410) => return FailureKind::NotFound,
        Some(429 | 503) => return FailureKind::Throttled,
        Some(408 | 425 | 500..) => return FailureKind::Server,
        Some(_) => return FailureKind::Protocol,
        None => {}
    }
    let (http, net) = (class == ErrorClass::Http, class == ErrorClass::Net);
    let over_ssl = class == ErrorClass::Os && has(&["SSL", "socket", "connect"]);
    if (class == ErrorClass::Ssh && has(&["authenticat", "publickey"])) || (http && has(&["authentication"])) {
        FailureKind::Credentials
    } else if (http && has(&["content-type"])) || (net && has(&["cannot redirect"])) {
        FailureKind::Protocol
    } else if net && has(&["not found", "does not exist"]) {
        FailureKind::NotFound
    } else if http || net || over_ssl || class == ErrorClass::Ssl || class == ErrorClass::Ssh {
        if elapsed >= silence { FailureKind::Timeout } else { FailureKind::Network }
    } else {
        FailureKind::Local
    }
}

/// The status in libgit2's `unexpected http status code: 503`.
fn http_status(said: &str) -> Option<u16> {
    said.split_once("http status code: ")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libgit2_errors_decide_the_retry() {
        use FailureKind as K;
        let second = Duration::from_secs(1);
        for (code, class, said, elapsed, kind) in [
            (ErrorCode::GenericError, ErrorClass::Http, "unexpected http status code: 503", 0, K::Throttled),
            (ErrorCode::GenericError, ErrorClass::Http, "unexpected http status code: 429", 0, K::Throttled),
            (ErrorCode::GenericError, ErrorClass::Http, "unexpected http status code: 502", 0, K::Server),
            (ErrorCode::GenericError, ErrorClass::Http, "unexpected http status code: 404", 0, K::NotFound),
            (ErrorCode::GenericError, ErrorClass::Http, "unexpected http status code: 403", 0, K::Forbidden),
            (ErrorCode::GenericError, ErrorClass::Http, "unexpected http status code: 302", 0, K::Protocol),
            (ErrorCode::Auth, ErrorClass::Http, "too many attempts", 0, K::Credentials),
            (ErrorCode::Certificate, ErrorClass::Ssh, "invalid or unknown remote ssh hostkey", 0, K::HostKey),
            (ErrorCode::Certificate, ErrorClass::Ssl, "the SSL certificate is invalid", 0, K::Certificate),
            (ErrorCode::GenericError, ErrorClass::Net, "failed to connect", 0, K::Network),
            (ErrorCode::GenericError, ErrorClass::Os, "SSL error: syscall failure", 30, K::Timeout),
            (ErrorCode::GenericError, ErrorClass::Os, "SSL error: syscall failure", 1, K::Network),
            (ErrorCode::Timeout, ErrorClass::Net, "timed out", 30, K::Timeout),
            (ErrorCode::Locked, ErrorClass::Os, "failed to lock file", 0, K::Local),
            (ErrorCode::GenericError, ErrorClass::Zlib, "stream truncated", 0, K::Local),
            (ErrorCode::NotFastForward, ErrorClass::Reference, "cannot push", 0, K::NotFastForward),
        ] {
            let error = git2::Error::new(code, class, said);
            let failure = classify(&error, "https://host/x", second * elapsed, second * 30);
            assert_eq!(failure.kind, kind, "{said}: {failure}");
            assert!(failure.message.contains(said), "{failure}");
        }
    }
}
