//! Flags, environment and file, read once and checked into one [`Settings`]; the only reader of the environment.
//!
//! Each setting has one name: the flag `--state-dir` is the variable `GITAMP_STATE_DIR` and the key `state-dir` in `gitamp.yaml`.
//! A flag wins over a variable, a variable over the file, the file over the default. The file is the one that `--config` or
//! `GITAMP_CONFIG` names, else `/etc/gitamp/gitamp.yaml` when there is one. Relative paths in the file are taken from the file's
//! directory, all others from the working directory. All problems are reported at once, each by the name its author used.

pub mod alerts;
mod check;
pub mod forge;
pub mod layers;
pub mod limits;
mod places;
pub mod proxy;
pub mod repo;
pub mod schema;
pub mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use layers::ServeArgs;
pub use limits::{AgentLimits, ApiLimits, ContentLimits, HookLimits};
pub use repo::{RepoIdentity, RepoKind, RepoUrl};
pub use secret::{HookSecrets, Secret, SecretFile};

use layers::{FileError, Given, Source};

/// Where the settings file is looked for when none is named.
pub const SYSTEM_FILE: &str = "/etc/gitamp/gitamp.yaml";

/// Where the daemon's state is when systemd runs it; commands look here after the user's own directory.
pub const SYSTEM_STATE: &str = "/var/lib/gitamp";

/// The name of the admin socket inside the state directory.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// What of a repository is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The branch that the remote's `HEAD` names.
    Default,
    /// The head of this branch, by its short name.
    Branch(String),
    /// The newest of the tags whose short names this glob matches.
    TagPattern(String),
}

impl Reference {
    /// True when a push to `full_name` (`refs/heads/main`) may change what is followed.
    pub fn concerns(&self, full_name: &str) -> bool {
        match self {
            // Which branch it is, only the remote knows: a push to any of them is worth a look.
            Self::Default => full_name.strip_prefix("refs/heads/").is_some_and(|branch| !branch.is_empty()),
            Self::Branch(branch) => full_name.strip_prefix("refs/heads/") == Some(branch),
            Self::TagPattern(pattern) => full_name.strip_prefix("refs/tags/").is_some_and(|tag| {
                globset::GlobBuilder::new(pattern)
                    .literal_separator(false)
                    .build()
                    .is_ok_and(|glob| glob.compile_matcher().is_match(tag))
            }),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default branch"),
            Self::Branch(branch) => write!(f, "branch {branch}"),
            Self::TagPattern(pattern) => write!(f, "tags {pattern}"),
        }
    }
}

/// How the remote is reached, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSettings {
    /// The token for https, read at each use.
    pub token: Option<SecretFile>,
    /// The user name that goes with the token.
    pub user: String,
    /// The private key for ssh.
    pub ssh_key: Option<PathBuf>,
    /// The host keys that are trusted for ssh; `None` when there is no home directory to have a default in, and then no host is.
    pub known_hosts: Option<PathBuf>,
    /// True when an ssh agent may be asked; only with `SSH_AUTH_SOCK` set is there one.
    pub ssh_agent: bool,
    /// The deadline for connecting.
    pub connect_timeout: Duration,
    /// The longest silence of the remote.
    pub silence_timeout: Duration,
    /// The deadline of one whole operation.
    pub total_timeout: Duration,
}

/// The journal's own settings. What is `None` here is as it is for the fleet's repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalSettings {
    /// Another repository than the fleet's.
    pub repo: Option<RepoUrl>,
    /// A token of its own for https.
    pub token: Option<SecretFile>,
    /// The user name that goes with a token there.
    pub user: Option<String>,
    /// A private key of its own for ssh.
    pub ssh_key: Option<PathBuf>,
    /// The host keys that are trusted there.
    pub known_hosts: Option<PathBuf>,
    /// What notes and records are signed with, the first one; any of them proves what is signed. Empty: nothing is signed.
    pub keys: Vec<Secret>,
    /// The journal's commit whose records are believed without a proof, when no others are: 40 hexadecimal digits.
    pub adopt: Option<String>,
}

/// The hooks, when there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSettings {
    /// A delivery that proves to know any of them is good.
    pub secrets: HookSecrets,
    /// A listener of their own; `None`: they come in where agents connect.
    pub listen: Option<SocketAddr>,
    /// How often the remote is asked while hooks come: no more often than without them.
    pub interval: Option<Duration>,
    /// What whoever delivers them may take.
    pub limits: HookLimits,
}

/// Which commits have to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyMode {
    /// The head of what is followed.
    Head,
    /// Every commit since the revision that was accepted last.
    All,
}

/// How commits are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifySettings {
    /// Which of them.
    pub mode: VerifyMode,
    /// The SSH keys that count, in OpenSSH's form; at least one of the two files is named.
    pub allowed_signers: Option<PathBuf>,
    /// The OpenPGP keys that count.
    pub keyring: Option<PathBuf>,
}

/// The files of TLS on the agents' port. They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The server's certificate, and those between it and an authority that agents know.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: SecretFile,
    /// The authorities that agents' certificates are known by; `None`: they are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// The certificates that do not count any more.
    pub client_crl: Option<PathBuf>,
}

/// What agents (besides certificates), or operators, may prove themselves with. The files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofSettings {
    /// The file of hashed tokens.
    pub tokens: Option<PathBuf>,
    /// The file of issuers of JWTs.
    pub issuers: Option<PathBuf>,
}

/// The operators' listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSettings {
    /// Where it is.
    pub listen: SocketAddr,
    /// TLS there; `None` only on loopback.
    pub tls: Option<TlsSettings>,
    /// What operators prove themselves with.
    pub proofs: ProofSettings,
    /// False: what somebody wrote or committed, somebody else has to approve.
    pub self_approval: bool,
    /// What strangers and operators may take of it.
    pub limits: ApiLimits,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A `tracing` filter, checked.
    pub filter: String,
    /// The format.
    pub format: LogFormat,
}

/// Everything the daemon is told from outside, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The fleet repository.
    pub repo: RepoUrl,
    /// What of it is followed.
    pub reference: Reference,
    /// True when only its newest commit is fetched.
    pub shallow: bool,
    /// The fleet root inside it: no slash at either end, no `.` or `..`; empty for the top.
    pub fleet_root: String,
    /// How often the remote is asked without a bell: 1 s to 1 day.
    pub interval: Duration,
    /// Whose notes; safe as the last part of a ref's name.
    pub instance: String,
    /// True when nothing is offered and nothing written to the remote.
    pub observe: bool,
    /// True when the journal is pushed to the remote; never with `observe`.
    pub push: bool,
    /// Whose signature commits need; `None`: nobody's.
    pub verify: Option<VerifySettings>,
    /// How the remote is reached.
    pub git: GitSettings,
    /// What is different for the journal.
    pub journal: JournalSettings,
    /// Where agents connect.
    pub listen: SocketAddr,
    /// The path they connect to; starts with a slash.
    pub opamp_path: String,
    /// TLS there; `None`: none.
    pub tls: Option<TlsSettings>,
    /// Tokens and JWTs; `None`: neither.
    pub proofs: Option<ProofSettings>,
    /// How long a handshake may take: 1 s to 2 min.
    pub handshake_timeout: Duration,
    /// Handshakes at a time.
    pub max_handshakes: usize,
    /// What one address, token, connection or agent may take.
    pub limits: AgentLimits,
    /// How much one commit may bring.
    pub content: ContentLimits,
    /// True when a listener may be open to everybody.
    pub insecure: bool,
    /// The largest message of an agent, in bytes: 4 KiB to 64 MiB.
    pub max_message_bytes: usize,
    /// Connections at once; `None`: what the limit of open files allows.
    pub max_connections: Option<usize>,
    /// New connections a second, and as many at once; `None`: as many as come.
    pub max_connection_rate: Option<u32>,
    /// The interval for heartbeats that agents are offered: 1 s to 10 min, in whole seconds. `None`: they keep their own.
    pub heartbeat_interval: Option<Duration>,
    /// How long an agent that is gone is remembered: 1 min to 30 days.
    pub forget_after: Duration,
    /// The hooks; `None` without a secret, and then there is no endpoint.
    pub hooks: Option<HookSettings>,
    /// The forge that is told what becomes of commits; `None`: none is.
    pub forge: Option<forge::ForgeSettings>,
    /// The largest answer of a forge, or of a receiver of alerts, that is read, in bytes.
    pub largest_answer: usize,
    /// Who is told of incidents; `None`: nobody.
    pub alerts: Option<alerts::AlertSettings>,
    /// The operators' listener; `None`: there is none.
    pub api: Option<ApiSettings>,
    /// Where the reading admin listener is; `None`: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// Lowercase host names under which it may be asked, besides loopback and addresses.
    pub admin_hosts: Vec<String>,
    /// Where mirror, journal and admin socket live; absolute.
    pub state_dir: PathBuf,
    /// The log.
    pub log: LogSettings,
    /// What is allowed, but should be looked at; to be logged at start.
    pub warnings: Vec<String>,
    /// That strangers may act as agents (`--insecure`); to be said at every start, whatever else the log leaves out.
    pub alarm: Option<String>,
}

impl Settings {
    /// All defaults, for a repository and a state directory.
    pub fn new(repo: RepoUrl, state_dir: PathBuf) -> Self {
        Self {
            repo,
            reference: Reference::Default,
            shallow: false,
            fleet_root: String::new(),
            interval: Duration::from_secs(60),
            instance: "default".to_owned(),
            observe: false,
            push: true,
            verify: None,
            git: GitSettings {
                token: None,
                user: "x-access-token".to_owned(),
                ssh_key: None,
                known_hosts: None,
                ssh_agent: true,
                connect_timeout: Duration::from_secs(10),
                silence_timeout: Duration::from_secs(30),
                total_timeout: Duration::from_secs(300),
            },
            journal: JournalSettings::default(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4320)),
            opamp_path: "/v1/opamp".to_owned(),
            tls: None,
            proofs: None,
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 512,
            limits: AgentLimits::default(),
            content: ContentLimits::default(),
            insecure: false,
            max_message_bytes: 1 << 20,
            max_connections: None,
            max_connection_rate: Some(10_000),
            heartbeat_interval: None,
            forget_after: Duration::from_secs(3600),
            hooks: None,
            forge: None,
            largest_answer: limits::LARGEST_ANSWER,
            alerts: None,
            api: None,
            admin_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 4321))),
            admin_hosts: Vec::new(),
            state_dir,
            log: LogSettings { filter: "info".to_owned(), format: LogFormat::Auto },
            warnings: Vec::new(),
            alarm: None,
        }
    }

    /// The settings of this process: these flags, its environment, its file.
    ///
    /// # Errors
    /// When the file cannot be used, or values are missing or wrong; all of them are named.
    pub fn load(args: &ServeArgs) -> Result<Self, SettingsError> {
        Self::within(args, &Environment::read())
    }

    /// The same with these variables instead of the process's own, and no file but one that they or the flags name.
    ///
    /// # Errors
    /// As for [`Settings::load`].
    pub fn load_with(args: &ServeArgs, variables: BTreeMap<String, String>) -> Result<Self, SettingsError> {
        Self::within(args, &Environment { variables, system_file: PathBuf::new() })
    }

    fn within(args: &ServeArgs, environment: &Environment) -> Result<Self, SettingsError> {
        let (given, warnings) = gather(args, environment)?;
        check::check(&given, environment, warnings)
    }

    /// The repository that the journal is pushed to.
    pub fn journal_repo(&self) -> &RepoUrl {
        self.journal.repo.as_ref().unwrap_or(&self.repo)
    }

    /// How the journal's repository is reached. The fleet's token goes to the fleet's server only.
    pub fn journal_access(&self) -> GitSettings {
        let own = &self.journal;
        let shared_token = self.git.token.clone().filter(|_| self.journal_repo().shares_server(&self.repo));
        GitSettings {
            token: own.token.clone().or(shared_token),
            user: own.user.clone().unwrap_or_else(|| self.git.user.clone()),
            ssh_key: own.ssh_key.clone().or_else(|| self.git.ssh_key.clone()),
            known_hosts: own.known_hosts.clone().or_else(|| self.git.known_hosts.clone()),
            ..self.git.clone()
        }
    }

    /// True when agents have to prove who they are.
    pub fn asks_agents(&self) -> bool {
        self.proofs.is_some() || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    /// The admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.state_dir.join(ADMIN_SOCKET)
    }
}

/// The state directory that a command (`status`, `agents`, `sync`) looks for its daemon in: what flag, environment or file say, else
/// the default; and when no daemon has been there, but one run by systemd has, that one's.
///
/// # Errors
/// As for [`Settings::load`], concerning the state directory alone.
pub fn state_dir_of_daemon(args: &ServeArgs) -> Result<PathBuf, SettingsError> {
    let environment = Environment::read();
    let (given, _) = gather(args, &environment)?;
    let own = check::state_dir(&given, &environment)?;
    let elsewhere = Path::new(SYSTEM_STATE);
    let is_default = !given.contains_key("state-dir");
    // Where this user may not even look there is something: the error then says whose it is.
    let is_elsewhere = || elsewhere.join(ADMIN_SOCKET).try_exists().unwrap_or(true);
    let use_system = is_default && !own.join(ADMIN_SOCKET).exists() && is_elsewhere();
    Ok(if use_system { elsewhere.to_owned() } else { own })
}

/// Who the daemon of these flags, this environment and this file tells of incidents, and as which `--instance`; nothing else of the
/// settings is looked at. `None`: nobody.
///
/// # Errors
/// As for [`Settings::load`], concerning alerts alone.
pub fn alerts_of_daemon(args: &ServeArgs) -> Result<(String, Option<alerts::AlertSettings>), SettingsError> {
    let environment = Environment::read();
    let (given, _) = gather(args, &environment)?;
    check::alerts_alone(&given, &environment)
}

/// The file of agents' tokens, as flag, environment or settings file name it.
///
/// # Errors
/// As for [`Settings::load`], concerning this file alone.
pub fn token_file_of_daemon(args: &ServeArgs) -> Result<Option<PathBuf>, SettingsError> {
    let (given, _) = gather(args, &Environment::read())?;
    check::token_file(&given)
}

/// What one commit may bring, when these flags (`max-files`, ...) are given on a command line.
///
/// # Errors
/// When one of them cannot be.
pub fn content_limits<'a>(
    flags: impl Iterator<Item = (&'static str, &'a str)>,
) -> Result<ContentLimits, SettingsError> {
    check::content_alone(&flags.map(|(key, value)| (key.to_owned(), (value.to_owned(), Source::Flag))).collect())
}

/// How a command reaches a daemon on another machine, as the environment says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientVariables {
    /// `GITAMP_SERVER`: where its operators' listener is.
    pub server: Option<String>,
    /// `GITAMP_TOKEN_FILE`: the file with the operator's token.
    pub token_file: Option<PathBuf>,
    /// `GITAMP_CA_FILE`: the certificates that it is known by.
    pub ca_file: Option<PathBuf>,
}

impl ClientVariables {
    /// Those of this process.
    pub fn read() -> Self {
        let environment = Environment::read();
        let [server, token_file, ca_file] =
            layers::CLIENT_KEYS.map(|key| environment.get(&layers::variable(key)).map(str::to_owned));
        Self { server, token_file: token_file.map(PathBuf::from), ca_file: ca_file.map(PathBuf::from) }
    }
}

/// Who became root to run this program, as `sudo` says it.
pub(crate) fn sudo_user() -> Option<String> {
    Environment::read().get("SUDO_USER").map(str::to_owned)
}

/// The variables of this process that are text. Tests make their own.
#[derive(Clone, Debug, Default)]
struct Environment {
    variables: BTreeMap<String, String>,
    /// Where a settings file is taken from when none is named, if it is there.
    system_file: PathBuf,
}

impl Environment {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    fn read() -> Self {
        let pairs =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { variables: pairs.collect(), system_file: PathBuf::from(SYSTEM_FILE) }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Lays the sources over each other.
fn gather(args: &ServeArgs, environment: &Environment) -> Result<(Given, Vec<String>), SettingsError> {
    let mut given = Given::new();
    layers::add_layer(&mut given, args, &Source::Flag)?;
    let (variables, warnings) = layers::environment_layer(&environment.variables);
    for (key, value) in variables {
        given.entry(key).or_insert(value);
    }
    let named = args.config.clone().or_else(|| environment.get("GITAMP_CONFIG").map(PathBuf::from));
    let file = named.or_else(|| environment.system_file.exists().then(|| environment.system_file.clone()));
    if let Some(path) = file {
        let path = std::path::absolute(&path).map_err(|source| FileError::Unreadable { path, source })?;
        let (said, places) = layers::read_file(&path)?;
        layers::add_layer(&mut given, &said, &Source::File(path, Arc::new(places)))?;
    }
    Ok((given, warnings))
}

/// One value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting by the name its author used: `--interval`, `GITAMP_INTERVAL`, `` `interval` in FILE:LINE ``.
    pub setting: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Values are missing or wrong.
    #[error("{}", lines(.0))]
    Values(Vec<Problem>),
    /// The values could not be laid over each other, which no input does.
    #[error("reading the settings failed: {0}")]
    Layers(#[from] serde_json::Error),
}

fn lines(problems: &[Problem]) -> String {
    let each = problems.iter().map(|problem| format!("{}: {}", problem.setting, problem.message));
    match problems {
        [_] => each.collect(),
        _ => {
            format!("{} settings cannot be used", problems.len())
                + &each.map(|line| format!("\n  {line}")).collect::<String>()
        }
    }
}

#[cfg(test)]
mod tests;
