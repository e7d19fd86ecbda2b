//! Who is told of incidents, of which, and how they are reached.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::proxy::Proxies;
use super::secret::SecretError;
use super::{Secret, SecretFile};

/// What is said to a receiver, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiverKind {
    /// JSON of our own, signed.
    Webhook,
    /// What Slack's incoming webhooks take, and Mattermost's, Rocket.Chat's and others that imitate them.
    Slack,
    /// Prometheus' Alertmanager, by its API v2.
    Alertmanager,
}

impl ReceiverKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Webhook, Self::Slack, Self::Alertmanager];

    /// The name that settings use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::Alertmanager => "alertmanager",
        }
    }
}

impl fmt::Display for ReceiverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is bad enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// Everything.
    Warning,
    /// What cannot wait.
    Critical,
}

/// Where a receiver is. It may be a secret, whichever of the two it is: no log, error or debug output shows more than the host.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// In the settings.
    Said(Url),
    /// In a file, read again for each message.
    File(SecretFile),
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(url) => write!(f, "{}://{}/***", url.scheme(), url.host_str().unwrap_or_default()),
            Self::File(file) => write!(f, "{file:?}"),
        }
    }
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Its file cannot be read.
    #[error(transparent)]
    File(#[from] SecretError),
    /// It is none. The text is not shown.
    #[error("{0}")]
    Malformed(String),
}

impl Address {
    /// The address.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no address.
    pub fn get(&self) -> Result<Url, AddressError> {
        match self {
            Self::Said(url) => Ok(url.clone()),
            Self::File(file) => {
                let text = file.read()?;
                parse_url(text.expose())
                    .map_err(|why| AddressError::Malformed(format!("{} {why}", file.path().display())))
            }
        }
    }
}

/// Reads an address of a receiver.
///
/// # Errors
/// With a sentence that does not show it.
pub fn parse_url(text: &str) -> Result<Url, String> {
    let url =
        Url::parse(text.trim()).map_err(|error| format!("holds no address like https://example.com/hook: {error}"))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err("must hold an address that begins with https:// or http://".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must hold an address without user, password and `#`; a token comes from tokenFile".to_owned());
    }
    Ok(url)
}

/// True when what is sent there can be read by whoever is on the way.
pub fn is_exposed(url: &Url) -> bool {
    let is_here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !is_here
}

/// Somebody who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// What it is called: letters, digits and `-_.`, once among all receivers.
    pub name: String,
    /// What is said to it, and in which form.
    pub kind: ReceiverKind,
    /// Where it is.
    pub address: Address,
    /// What messages are signed with, of a webhook: one secret a line while one replaces another.
    pub secret: Option<SecretFile>,
    /// A token that goes along as `Authorization: Bearer`.
    pub token: Option<SecretFile>,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What is bad enough.
    pub least: Least,
    /// Globs over groups' names, as in fleet.yaml: `prod/**`. Empty: all groups.
    pub groups: Vec<String>,
    /// True when it hears of what concerns no group in particular.
    pub fleet: bool,
    /// What leads there.
    pub proxies: Proxies,
    /// Bytes of an answer that are read.
    pub largest_answer: usize,
}

impl Receiver {
    /// The secrets that sign, one a line of the file; read again at each use.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn secrets(&self) -> Result<Vec<Secret>, SecretError> {
        self.secret.as_ref().map_or(Ok(Vec::new()), |file| file.read().map(|secret| secret.lines()))
    }
}

/// Everything about alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertSettings {
    /// How long a rollout may stand still without a reason that its strategy or a person gave: 1 min to 30 days.
    pub waits_too_long: Duration,
    /// How long the repository, or the journal's remote, may be out of reach: 1 s to 1 day.
    pub stale_after: Duration,
    /// Who is told; at least one.
    pub receivers: Vec<Receiver>,
}

/// When nothing is said.
pub const WAITS_TOO_LONG: Duration = Duration::from_secs(4 * 3600);

/// When nothing is said.
pub const STALE_AFTER: Duration = Duration::from_secs(900);
