//! What is told to a forge, which one it is, and who we are to it.

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::SecretFile;
use super::proxy::Proxies;

/// Which forge it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// GitHub.com, GitHub Enterprise.
    GitHub,
    /// GitLab.com, GitLab of one's own.
    GitLab,
    /// Gitea and Forgejo, Codeberg.
    Gitea,
    /// Bitbucket Cloud.
    Bitbucket,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::GitHub, Self::GitLab, Self::Gitea, Self::Bitbucket];

    /// The name that settings use.
    pub fn name(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
        }
    }

    /// The forge that runs under this host name, where that is well known.
    pub fn of_host(host: &str) -> Option<Self> {
        match host {
            "github.com" | "ssh.github.com" => Some(Self::GitHub),
            "gitlab.com" | "altssh.gitlab.com" => Some(Self::GitLab),
            "codeberg.org" | "gitea.com" => Some(Self::Gitea),
            "bitbucket.org" | "altssh.bitbucket.org" => Some(Self::Bitbucket),
            _ => None,
        }
    }

    /// Where its API is when it runs under this host name; `None` where it does not run: a token is for one host alone.
    pub fn api_at(self, host: &str) -> Option<String> {
        match (self, host) {
            (Self::GitHub, "github.com" | "ssh.github.com") => Some("https://api.github.com".to_owned()),
            (Self::GitHub, host) => Some(format!("https://{host}/api/v3")),
            (Self::GitLab, "altssh.gitlab.com") => Some("https://gitlab.com/api/v4".to_owned()),
            (Self::GitLab, host) => Some(format!("https://{host}/api/v4")),
            (Self::Gitea, host) => Some(format!("https://{host}/api/v1")),
            (Self::Bitbucket, host) => {
                (Self::of_host(host) == Some(Self::Bitbucket)).then(|| "https://api.bitbucket.org/2.0".to_owned())
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GitHub => "GitHub",
            Self::GitLab => "GitLab",
            Self::Gitea => "Gitea",
            Self::Bitbucket => "Bitbucket",
        })
    }
}

/// Who we are to the forge. Files are read again at each use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// A token.
    Token {
        /// The file with it.
        file: SecretFile,
        /// The user whose password it is, for forges that want both; `None`: the token stands for itself.
        user: Option<String>,
    },
    /// A GitHub App.
    App {
        /// Its id or client id.
        id: String,
        /// Which of its installations; `None`: the one in our repository.
        installation: Option<u64>,
        /// Its private key.
        key: SecretFile,
    },
}

/// An address with places for `{commit}`, `{instance}` and `{group}` (empty for the status of all groups).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate(String);

impl UrlTemplate {
    /// Takes a template.
    ///
    /// # Errors
    /// With a sentence, when it is no http(s) address, or names another place.
    pub fn new(text: &str) -> Result<Self, String> {
        let template = Self(text.to_owned());
        let filled = template.fill("0", "i", Some("g"));
        let url = Url::parse(&filled).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
        if url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
            return Err("holds credentials, and is shown to everybody who sees the commit: remove them".to_owned());
        }
        if url.is_none() || filled.contains(['{', '}']) || text.len() > 1024 {
            return Err("must be an http(s) address; {commit}, {instance} and {group} are filled in".to_owned());
        }
        Ok(template)
    }

    /// The address for one status.
    pub fn fill(&self, commit: &str, instance: &str, group: Option<&str>) -> String {
        let group: String = url::form_urlencoded::byte_serialize(group.unwrap_or_default().as_bytes()).collect();
        self.0.replace("{commit}", commit).replace("{instance}", instance).replace("{group}", &group)
    }
}

/// The forge that is told what becomes of commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgeSettings {
    /// Which forge it is.
    pub kind: Kind,
    /// Where its API is; over https, but for loopback.
    pub api: Url,
    /// The repository's full name there: `team/fleet`, at least two parts of letters, digits and `-_.~`.
    pub project: String,
    /// Who we are.
    pub access: Access,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What leads there.
    pub proxies: Proxies,
    /// Bytes of an answer that are read.
    pub largest_answer: usize,
    /// Statuses are posted.
    pub statuses: bool,
    /// A comment on the merged pull request is kept up to date.
    pub comment: bool,
    /// A commit that was taken back gets a pull request that reverts it.
    pub revert_pull_request: bool,
    /// Where a click on a status leads.
    pub status_url: Option<UrlTemplate>,
}
