//! The places that host repositories: their hooks in. Reads and judges deliveries; listening is `serve::hooks`.
//!
//! A hook is a doorbell. It is believed only as far as "somebody who knows the secret says that there was a push": what is synced is
//! read from the repository itself, so a replayed delivery, or one that lies about its content, costs one look at the remote, and bells
//! coalesce. Order of every check: signature over the raw body, then content type, then JSON.

pub mod generic;
pub mod github;
pub mod signature;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;

use crate::settings::{Reference, RepoIdentity, RepoUrl, Settings};
use signature::SignatureError;

/// The largest delivery that is read: 1 MiB. GitHub sends up to 25 MiB for pushes of thousands of commits; those are turned away,
/// and the poll interval finds the push.
pub const LARGEST_DELIVERY: usize = 1 << 20;

/// What a delivery must be about to ring.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The repository; `None` when ours is a directory, which no forge can name: then the ref alone decides.
    pub repository: Option<RepoIdentity>,
    /// What of it is followed.
    pub reference: Reference,
}

impl Watched {
    /// What these settings follow.
    pub fn of(settings: &Settings) -> Self {
        let repository = RepoUrl::identity(&settings.repo).cloned();
        Self { repository, reference: settings.reference.clone() }
    }

    /// Judges a push to `reference` of the repository that has these addresses and this full name (`team/fleet`).
    fn judge(&self, reference: &str, addresses: &[&str], full_name: Option<&str>) -> Verdict {
        if let Some(ignored) = self.foreign(addresses, full_name) {
            return ignored;
        }
        if self.reference.concerns(reference) {
            Verdict::Ring(shown(reference))
        } else {
            Verdict::Ignored(format!("a push to {}, which is not followed ({} is)", shown(reference), self.reference))
        }
    }

    /// The verdict on a repository that is not ours; `None` for ours.
    fn foreign(&self, addresses: &[&str], full_name: Option<&str>) -> Option<Verdict> {
        let ours = self.repository.as_ref()?;
        // The full name counts by itself as well: an ssh alias or an internal host name is spelt differently on the forge.
        let named = full_name.is_some_and(|name| name.trim_matches('/').eq_ignore_ascii_case(ours.path()));
        let addressed = addresses.iter().filter_map(|one| RepoIdentity::of_url(one)).any(|theirs| theirs == *ours);
        let name = full_name.or_else(|| addresses.first().copied()).unwrap_or("without a name");
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

/// What an authentic delivery means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What is followed may have changed (the ref, to be shown).
    Ring(String),
    /// Nothing to do with us; the reason, to be shown.
    Ignored(String),
    /// The forge tries out whether we are there.
    Ping,
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

/// True for `application/json`, whatever parameters follow.
fn is_json(headers: &HeaderMap) -> bool {
    let essence =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Text of a delivery as it may stand in logs and answers: bounded, control characters escaped.
fn shown(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
