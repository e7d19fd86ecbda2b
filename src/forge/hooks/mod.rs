//! Hooks: reads and judges deliveries; listening is `serve::hooks`.
//!
//! A hook is a doorbell. It is believed only as far as "somebody who knows the secret says that there was a push": what is synced is
//! read from the repository itself, so a replayed delivery, or one that lies about its content, costs two looks at the remote, and bells
//! coalesce. Order of every check: signature over the raw body, then content type, then JSON. What is authentic and not for us is
//! acknowledged: GitLab switches a hook off for good after four answers of 4xx.

mod azure;
mod bitbucket;
mod generic;
mod gitea;
mod github;
mod gitlab;
pub mod signature;

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde::Deserialize;

use crate::fleet::snapshot::CommitId;
use crate::settings::{Reference, RepoIdentity, RepoUrl, Secret, Settings};
use crate::time::Timestamp;
use signature::SignatureError;

/// How far the time in a signature may be from ours, in milliseconds.
const TIME_TOLERANCE: u64 = 5 * 60 * 1000;

/// The dialects that are understood, each with a path of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// GitHub, and what speaks like it.
    GitHub,
    /// GitLab.
    GitLab,
    /// Gitea, Forgejo and Gogs.
    Gitea,
    /// Bitbucket, Cloud and Data Center.
    Bitbucket,
    /// Azure DevOps.
    Azure,
    /// Whatever can compute an HMAC.
    Generic,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::GitHub, Self::GitLab, Self::Gitea, Self::Bitbucket, Self::Azure, Self::Generic];

    /// Where its deliveries go.
    pub fn path(self) -> &'static str {
        match self {
            Self::GitHub => "/hooks/github",
            Self::GitLab => "/hooks/gitlab",
            Self::Gitea => "/hooks/gitea",
            Self::Bitbucket => "/hooks/bitbucket",
            Self::Azure => "/hooks/azure",
            Self::Generic => "/hooks/generic",
        }
    }

    /// Verifies and reads one delivery. Pure; the caller has limited the body.
    ///
    /// # Errors
    /// When it does not come from somebody who knows one of `secrets`, or does and makes no sense.
    pub fn read(
        self,
        headers: &HeaderMap,
        body: &[u8],
        secrets: &[Secret],
        watched: &Watched,
        now: Timestamp,
    ) -> Result<Verdict, Refusal> {
        match self {
            Self::GitHub => github::read(headers, body, secrets, watched),
            Self::GitLab => gitlab::read(headers, body, secrets, watched, now),
            Self::Gitea => gitea::read(headers, body, secrets, watched),
            Self::Bitbucket => bitbucket::read(headers, body, secrets, watched),
            Self::Azure => azure::read(headers, body, secrets, watched),
            Self::Generic => generic::read(headers, body, secrets, watched, now),
        }
    }

    /// Who sent it, as its headers claim: for people, never for a decision.
    pub fn sender(self, headers: &HeaderMap) -> Sender {
        match self {
            // Gitea and its relatives send GitHub's headers as well, so theirs come first.
            Self::GitHub | Self::Gitea => {
                let relative = [
                    ("x-forgejo-event", Sender::Forgejo),
                    ("x-gitea-event", Sender::Gitea),
                    ("x-gogs-event", Sender::Gogs),
                ];
                let claimed = relative.into_iter().find(|(header, _)| headers.contains_key(*header));
                let otherwise = if self == Self::GitHub { Sender::GitHub } else { Sender::Gitea };
                claimed.map_or(otherwise, |(_, sender)| sender)
            }
            Self::GitLab => Sender::GitLab,
            Self::Bitbucket => bitbucket::sender(headers),
            Self::Azure => Sender::AzureDevOps,
            Self::Generic => Sender::Generic,
        }
    }
}

/// Whose software sent a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// github.com, or GitHub Enterprise.
    GitHub,
    /// gitlab.com, or an own GitLab.
    GitLab,
    /// Forgejo.
    Forgejo,
    /// Gitea.
    Gitea,
    /// Gogs.
    Gogs,
    /// bitbucket.org.
    BitbucketCloud,
    /// Bitbucket Server, or Data Center.
    BitbucketDataCenter,
    /// Azure DevOps.
    AzureDevOps,
    /// Something of the user's own.
    Generic,
}

impl Sender {
    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Forgejo => "forgejo",
            Self::Gitea => "gitea",
            Self::Gogs => "gogs",
            Self::BitbucketCloud => "bitbucket-cloud",
            Self::BitbucketDataCenter => "bitbucket-data-center",
            Self::AzureDevOps => "azure-devops",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GitHub => "GitHub",
            Self::GitLab => "GitLab",
            Self::Forgejo => "Forgejo",
            Self::Gitea => "Gitea",
            Self::Gogs => "Gogs",
            Self::BitbucketCloud => "Bitbucket Cloud",
            Self::BitbucketDataCenter => "Bitbucket Data Center",
            Self::AzureDevOps => "Azure DevOps",
            Self::Generic => "the generic hook",
        })
    }
}

/// What a delivery must be about to ring.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The repository; `None` when ours is a directory, which no forge can name: then the ref alone decides.
    pub repository: Option<RepoIdentity>,
    /// What of it is followed.
    pub reference: Reference,
}

/// A repository as a delivery names it: everything that may be the address or the full name of ours.
#[derive(Debug, Default)]
struct Named {
    addresses: Vec<String>,
    names: Vec<String>,
}

impl Named {
    fn new(
        addresses: impl IntoIterator<Item = Option<String>>,
        names: impl IntoIterator<Item = Option<String>>,
    ) -> Self {
        Self { addresses: addresses.into_iter().flatten().collect(), names: names.into_iter().flatten().collect() }
    }
}

/// One ref that a delivery says was moved.
#[derive(Debug)]
struct Change {
    /// Its full name.
    reference: String,
    /// Where it is now, in hexadecimal digits; zeros, or nothing, when it was deleted.
    head: Option<String>,
}

/// A head that a delivery says is there. It is a hint for how often to look, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The branch, in its short form.
    pub branch: String,
    /// Its new head.
    pub commit: CommitId,
}

impl Change {
    /// What is announced: branches only. A tag's object may be another one than its commit, and is not followed when a higher one exists.
    fn announced(&self) -> Option<Announced> {
        let branch = self.reference.strip_prefix("refs/heads/")?;
        let commit: CommitId = self.head.as_deref()?.parse().ok()?;
        (commit != CommitId([0; 20])).then(|| Announced { branch: branch.to_owned(), commit })
    }
}

impl Watched {
    /// What these settings follow.
    pub fn of(settings: &Settings) -> Self {
        let repository = RepoUrl::identity(&settings.repo).cloned();
        Self { repository, reference: settings.reference.clone() }
    }

    /// Judges a push of these changes: one that concerns us is enough.
    fn judge(&self, repository: &Named, changes: &[Change]) -> Verdict {
        if let Some(ignored) = self.foreign(repository) {
            return ignored;
        }
        if let Some(ours) = changes.iter().find(|change| self.reference.concerns(&change.reference)) {
            return Verdict::Ring(Push { what: shown(&ours.reference), announced: ours.announced() });
        }
        Verdict::Ignored(match changes.first() {
            Some(other) => {
                format!("a push to {}, which is not followed ({} is)", shown(&other.reference), self.reference)
            }
            None => "a push that moved nothing".to_owned(),
        })
    }

    /// The verdict on a repository that is not ours; `None` for ours.
    fn foreign(&self, repository: &Named) -> Option<Verdict> {
        let ours = self.repository.as_ref()?;
        // The full name counts by itself as well: an ssh alias or an internal host name is spelt differently on the forge.
        let named = repository.names.iter().any(|name| name.trim_matches('/').eq_ignore_ascii_case(ours.path()));
        let addressed =
            repository.addresses.iter().filter_map(|one| RepoIdentity::of_url(one)).any(|theirs| theirs == *ours);
        let name = repository.names.first().or(repository.addresses.first()).map_or("without a name", String::as_str);
        (!named && !addressed).then(|| Verdict::Ignored(format!("a push to another repository ({})", shown(name))))
    }

    /// The full name of a ref that was said in its short form, read as the kind that is followed.
    fn full_name(&self, short: &str) -> String {
        match &self.reference {
            Reference::Default | Reference::Branch(_) => format!("refs/heads/{short}"),
            Reference::TagPattern(_) => format!("refs/tags/{short}"),
        }
    }
}

/// A push to what is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// What was pushed to, to be shown.
    pub what: String,
    /// The head that is to be expected, when the delivery says one.
    pub announced: Option<Announced>,
}

impl Push {
    /// A push of which nothing more is known.
    fn somewhere() -> Self {
        Self { what: "the repository".to_owned(), announced: None }
    }
}

/// What an acceptable delivery means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What is followed may have changed.
    Ring(Push),
    /// Authentic, and nothing to do with us; the reason, to be shown.
    Ignored(String),
    /// Authentic: the forge tries out whether we are there.
    Ping,
    /// The same by a forge that signs no pings: it says nothing about the secret, and is no sign of life.
    UnsignedPing,
}

/// Why a delivery is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not from somebody who knows the secret.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Authentic, but not JSON.
    #[error("the content type must be application/json: choose it in the settings of the webhook")]
    ContentType,
    /// Authentic, but the header that says what it is about is missing or twice there.
    #[error("the header {0} is missing or not text")]
    Header(&'static str),
    /// Authentic, but not what such a delivery looks like.
    #[error("the body is not the JSON that was expected: {0}")]
    Body(String),
}

/// The one value of a header; `None` when it is missing, several times there, or not text.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        (_, _) => None,
    }
}

/// The body as JSON, when the headers say that it is.
fn json<'b, T: Deserialize<'b>>(headers: &HeaderMap, body: &'b [u8]) -> Result<T, Refusal> {
    if !is_json(headers) {
        return Err(Refusal::ContentType);
    }
    serde_json::from_slice(body).map_err(|error| Refusal::Body(error.to_string()))
}

/// True for `application/json`, whatever parameters follow.
fn is_json(headers: &HeaderMap) -> bool {
    let essence = only(headers, CONTENT_TYPE.as_str()).and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// An event that is not a push.
fn other_event(event: &str) -> Verdict {
    Verdict::Ignored(format!("the event {}; only pushes ring", shown(event)))
}

/// Verifies a delivery that may carry the headers of Standard Webhooks, or else its own kind of proof. The verdict, when it is authentic and
/// to be ignored for its age.
fn verify_dated(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    now: Timestamp,
    otherwise: impl FnOnce() -> Result<(), SignatureError>,
) -> Result<Option<Verdict>, Refusal> {
    match signature::verify_standard(headers, body, secrets)? {
        Some(at) => Ok(outdated(at, now)),
        None => otherwise().map(|()| None).map_err(Refusal::from),
    }
}

/// The verdict on a signature that was made too long ago, or is yet to be made.
fn outdated(at: Timestamp, now: Timestamp) -> Option<Verdict> {
    let off = at.as_millis().abs_diff(now.as_millis());
    (off > TIME_TOLERANCE).then(|| {
        Verdict::Ignored(format!(
            "it was signed {} s away from now: sent again by somebody, or a clock is wrong",
            off / 1000
        ))
    })
}

/// Text of a delivery as it may stand in logs and answers: bounded, control characters escaped.
fn shown(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
