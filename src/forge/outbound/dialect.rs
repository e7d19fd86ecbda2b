//! The forges' dialects: where a status goes, in whose words, and what an answer means. Pure: requests and answers are values.

use std::time::Duration;

use serde_json::{Value, json};

use crate::forge::outbound::statuses::{State, Status};
use crate::http::{Answer, pause};
use crate::time::Timestamp;
use crate::view::text::{clip, plain};

pub use crate::settings::forge::Kind;

/// Characters of a Bitbucket build's key.
const LONGEST_BITBUCKET_KEY: usize = 40;

/// How long to wait when a forge says that it is too much, and not until when.
const UNTOLD_PAUSE: Duration = Duration::from_secs(60);

impl Kind {
    /// True when it takes another description for a state that it has. GitLab refuses any second `running`.
    pub fn takes_new_words(self) -> bool {
        match self {
            Self::GitHub | Self::Gitea | Self::Bitbucket => true,
            Self::GitLab => false,
        }
    }

    /// What it wants to hear in every request, beside who we are.
    pub fn headers(self) -> Vec<(&'static str, String)> {
        match self {
            Self::GitHub => vec![
                ("accept", "application/vnd.github+json".to_owned()),
                ("x-github-api-version", "2022-11-28".to_owned()),
            ],
            Self::GitLab | Self::Gitea | Self::Bitbucket => vec![("accept", "application/json".to_owned())],
        }
    }

    /// What a token has to allow.
    pub fn scopes(self) -> &'static str {
        match self {
            Self::GitHub => {
                "write access to commit statuses (a classic token: `repo:status`, a fine-grained one or an App: \"Commit statuses\"; \
                 for comments and revert pull requests also \"Pull requests\", with a classic token `repo`)"
            }
            Self::GitLab => {
                "the scope `api` and the role Developer in the project, or Maintainer when the branch is protected"
            }
            Self::Gitea => {
                "`write:repository`, for comments `write:issue` as well, of a user that may write to the repository"
            }
            Self::Bitbucket => "`repository:write`, for revert pull requests `pullrequest:write` as well",
        }
    }
}

/// What is done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Read it.
    Get,
    /// Make one.
    Post,
    /// Replace it.
    Put,
    /// Change it.
    Patch,
}

impl Method {
    /// As HTTP spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
        }
    }
}

/// A request to the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What to do.
    pub method: Method,
    /// With what: a path below the API's address, with its query, without a slash in front.
    pub path: String,
    /// The JSON that goes with it.
    pub body: Option<Value>,
}

impl Call {
    /// Reads something.
    pub fn get(path: String) -> Self {
        Self { method: Method::Get, path, body: None }
    }

    /// Sends something.
    pub fn send(method: Method, path: String, body: Value) -> Self {
        Self { method, path, body: Some(body) }
    }
}

/// A repository on a forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Which forge.
    pub kind: Kind,
    /// Its full name: `team/fleet`, on GitLab perhaps with more parts. Letters, digits and `-_.~` between slashes.
    pub name: String,
}

impl Project {
    /// Where everything of the repository is, without a slash at either end.
    pub fn path(&self) -> String {
        match self.kind {
            Kind::GitHub | Kind::Gitea => format!("repos/{}", self.name),
            Kind::GitLab => format!("projects/{}", self.name.replace('/', "%2F")),
            Kind::Bitbucket => format!("repositories/{}", self.name),
        }
    }

    /// Who owns it.
    pub fn owner(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The request that posts a status.
    pub fn post_status(&self, status: &Status) -> Call {
        let Status { commit, reference, context, state, description, target_url } = status;
        let word = self.word(*state);
        let (path, mut body) = match self.kind {
            Kind::GitHub | Kind::Gitea => (
                format!("{}/statuses/{commit}", self.path()),
                json!({"state": word, "context": context, "description": description}),
            ),
            Kind::GitLab => (
                format!("{}/statuses/{commit}", self.path()),
                json!({"state": word, "name": context, "description": description, "ref": reference}),
            ),
            Kind::Bitbucket => (
                format!("{}/commit/{commit}/statuses/build", self.path()),
                json!({"state": word, "key": bitbucket_key(context), "name": context, "description": description}),
            ),
        };
        let url = target_url.clone().or_else(|| match self.kind {
            // Bitbucket takes none without an address; the commit's own page is at least true.
            Kind::Bitbucket => Some(format!("https://bitbucket.org/{}/commits/{commit}", self.name)),
            Kind::GitHub | Kind::GitLab | Kind::Gitea => None,
        });
        let key = if self.kind == Kind::Bitbucket { "url" } else { "target_url" };
        if let (Some(url), Some(body)) = (url, body.as_object_mut()) {
            body.insert(key.to_owned(), Value::String(url));
        }
        Call::send(Method::Post, path, body)
    }

    fn word(&self, state: State) -> &'static str {
        match (self.kind, state) {
            (Kind::GitHub | Kind::Gitea, State::Waiting | State::Running) | (Kind::GitLab, State::Waiting) => "pending",
            (Kind::GitHub | Kind::Gitea | Kind::GitLab, State::Success) => "success",
            (Kind::GitHub | Kind::Gitea, State::Failure) => "failure",
            (Kind::GitHub, State::Stopped) => "error",
            (Kind::Gitea, State::Stopped) => "warning",
            (Kind::GitLab, State::Running) => "running",
            (Kind::GitLab, State::Failure) => "failed",
            (Kind::GitLab, State::Stopped) => "canceled",
            (Kind::Bitbucket, State::Waiting | State::Running) => "INPROGRESS",
            (Kind::Bitbucket, State::Success) => "SUCCESSFUL",
            (Kind::Bitbucket, State::Failure) => "FAILED",
            (Kind::Bitbucket, State::Stopped) => "STOPPED",
        }
    }
}

fn bitbucket_key(context: &str) -> String {
    if context.len() <= LONGEST_BITBUCKET_KEY {
        return context.to_owned();
    }
    let digest = <sha2::Sha256 as sha2::Digest>::digest(context.as_bytes());
    format!("gitamp-{}", hex::encode(digest).chars().take(32).collect::<String>())
}

/// What that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as was asked for.
    Done,
    /// Too many requests: none at all before this time has passed.
    Later(Duration),
    /// It does not work at the moment; the reason.
    Transient(String),
    /// Not with these credentials or settings; the reason. Nothing else will go either.
    Denied(String),
    /// Not this request; the reason. Others may go.
    Refused(String),
}

/// Judges an answer.
pub fn judge(kind: Kind, answer: &Answer, now: Timestamp) -> Verdict {
    let said = message(&answer.body);
    let told = |what: &str| if said.is_empty() { what.to_owned() } else { format!("{what}: {said}") };
    let with_status = |what: &str| told(&format!("{what} ({})", answer.status));
    let lower = said.to_ascii_lowercase();
    let is_exhausted = answer.remaining.as_deref() == Some("0");
    let is_too_much = lower.contains("rate limit") || lower.contains("abuse detection");
    match answer.status {
        200..=299 => Verdict::Done,
        // It has this state already, or is past it: after a restart that is what was to be reached.
        400 if kind == Kind::GitLab && lower.contains("cannot transition status") => Verdict::Done,
        429 => Verdict::Later(pause(answer, now).unwrap_or(UNTOLD_PAUSE)),
        403 if answer.retry_after.is_some() || is_exhausted || is_too_much => {
            Verdict::Later(pause(answer, now).unwrap_or(UNTOLD_PAUSE))
        }
        // GitLab serves one update of a commit at a time.
        409 if kind == Kind::GitLab => Verdict::Transient(with_status("another update is in progress")),
        503 if answer.retry_after.is_some() => Verdict::Later(pause(answer, now).unwrap_or(UNTOLD_PAUSE)),
        408 | 425 | 500..=599 => Verdict::Transient(with_status("the forge has trouble")),
        301 | 302 | 303 | 307 | 308 => {
            let place =
                answer.location.as_deref().map_or_else(|| "elsewhere".to_owned(), |place| clip(&plain(place), 200));
            Verdict::Denied(format!(
                "the forge sends us to {place}: name the right address (--forge-api, --forge-project)"
            ))
        }
        401 => Verdict::Denied(with_status("the forge does not accept the token")),
        403 => Verdict::Denied(with_status("the token is not allowed to do this")),
        404 if !["commit", "sha", "object", "reference"].iter().any(|word| lower.contains(word)) => {
            Verdict::Denied(with_status("the forge knows no such repository, or does not show it to this token"))
        }
        _ => Verdict::Refused(with_status("the forge refuses it")),
    }
}

/// What the forge says, in one line of at most 200 characters.
pub fn message(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let texts = [&value["message"], &value["error"]["message"], &value["error_description"], &value["error"]];
    let found = texts.into_iter().find(|one| !one.is_null());
    let text = found.map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).unwrap_or_default();
    let details = value["errors"].as_array().map(|errors| {
        let one = |error: &Value| error["message"].as_str().or_else(|| error.as_str()).map(str::to_owned);
        errors.iter().filter_map(one).collect::<Vec<_>>().join(", ")
    });
    let whole = match details.filter(|details| !details.is_empty()) {
        Some(details) => format!("{text}: {details}"),
        None => text,
    };
    clip(&plain(&whole), 200)
}
