//! The three sources of a setting (flags, environment, file) as layers of text that one of them wins.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::places::Places;

/// One setting's value before it is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text(pub String);

impl FromStr for Text {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Text {
    /// Takes what a person writes for one value: text, a number, `true` or `false`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneValue;
        impl de::Visitor<'_> for OneValue {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value (text, a number, true or false)")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Text, E> {
                Ok(Text(value.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
        }
        deserializer.deserialize_any(OneValue)
    }
}

/// Every setting of the daemon, as text. One name each: the flag `--state-dir` is the variable `GITAMP_STATE_DIR` and the key
/// `state-dir` in the file.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default, expecting = "settings, one `name: value` a line")]
pub struct ServeArgs {
    /// A file with settings; flags and GITAMP_* variables win over it [default: /etc/gitamp/gitamp.yaml, when there is one]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// The fleet repository: a directory, file://, https://, ssh:// or user@host:path
    #[arg(long, value_name = "REPOSITORY", help_heading = "Repository")]
    pub repo: Option<Text>,
    /// The branch to follow [default: the remote's own]
    #[arg(long, value_name = "BRANCH", help_heading = "Repository")]
    pub branch: Option<Text>,
    /// Instead of a branch: follow the newest tag that this pattern matches, like 'v*'
    #[arg(long, value_name = "PATTERN", help_heading = "Repository")]
    pub tag: Option<Text>,
    /// 1: fetch only the newest commit, for repositories whose history is too large [default: the whole history]
    #[arg(long, value_name = "1", help_heading = "Repository")]
    pub depth: Option<Text>,
    /// The fleet root: a directory inside the repository [default: its top]
    #[arg(long, value_name = "DIRECTORY", help_heading = "Repository")]
    pub path: Option<Text>,
    /// How often the remote is asked without a bell [default: 60s]
    #[arg(long, value_name = "DURATION", help_heading = "Repository")]
    pub interval: Option<Text>,
    /// Whose notes: they go to refs/notes/gitamp/INSTANCE, so daemons that share a repository need different ones
    /// [default: default]
    #[arg(long, value_name = "INSTANCE", help_heading = "Repository")]
    pub instance: Option<Text>,
    /// Compute and show everything; offer nothing, and write nothing to the remote [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Repository")]
    pub observe: Option<Text>,
    /// Keep the notes in the state directory instead of pushing them to the remote [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Repository")]
    pub no_push: Option<Text>,

    /// Take only commits that are signed: `head`, the head of what is followed, or `all` since the last accepted one [default:
    /// off]
    #[arg(long, value_name = "MODE", help_heading = "Signed commits")]
    pub verify_mode: Option<Text>,
    /// Whose SSH signatures count: a file in OpenSSH's form of allowed signers; read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Signed commits")]
    pub verify_allowed_signers: Option<Text>,
    /// Whose OpenPGP signatures count: a file of exported public keys; read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Signed commits")]
    pub verify_keyring: Option<Text>,
    /// The same three as one mapping of the file.
    #[arg(skip)]
    pub verify: Option<VerifyArgs>,

    /// Files below the fleet root [default: 200000]
    #[arg(long, value_name = "NUMBER", help_heading = "What a commit may bring")]
    pub max_files: Option<Text>,
    /// The largest YAML file [default: 1MiB]
    #[arg(long, value_name = "SIZE", help_heading = "What a commit may bring")]
    pub max_file_size: Option<Text>,
    /// All YAML files together [default: 256MiB]
    #[arg(long, value_name = "SIZE", help_heading = "What a commit may bring")]
    pub max_fleet_size: Option<Text>,
    /// Directories within directories [default: 32]
    #[arg(long, value_name = "NUMBER", help_heading = "What a commit may bring")]
    pub max_directory_depth: Option<Text>,
    /// Maps and lists within each other in a YAML file [default: 64]
    #[arg(long, value_name = "NUMBER", help_heading = "What a commit may bring")]
    pub max_yaml_depth: Option<Text>,
    /// The largest rendered configuration; agents report it back with all that they resolved, so --max-message-size has to be larger
    /// [default: 512KiB]
    #[arg(long, value_name = "SIZE", help_heading = "What a commit may bring")]
    pub max_config_size: Option<Text>,

    /// A file with the token for https; read again at every use, so it may be renewed in place
    #[arg(long, value_name = "FILE", help_heading = "Access to the repository")]
    pub git_token_file: Option<Text>,
    /// The user name that goes with the token [default: x-access-token]
    #[arg(long, value_name = "NAME", help_heading = "Access to the repository")]
    pub git_user: Option<Text>,
    /// The private key for ssh, without a passphrase
    #[arg(long, value_name = "FILE", help_heading = "Access to the repository")]
    pub ssh_key_file: Option<Text>,
    /// The host keys to trust for ssh [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "FILE", help_heading = "Access to the repository")]
    pub known_hosts_file: Option<Text>,
    /// Ask the ssh agent for keys, where SSH_AUTH_SOCK names one [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Access to the repository")]
    pub ssh_agent: Option<Text>,
    /// How long connecting to the remote may take [default: 10s]
    #[arg(long, value_name = "DURATION", help_heading = "Access to the repository")]
    pub git_connect_timeout: Option<Text>,
    /// How long the remote may say nothing [default: 30s]
    #[arg(long, value_name = "DURATION", help_heading = "Access to the repository")]
    pub git_silence_timeout: Option<Text>,
    /// How long one clone, fetch or push may take [default: 5m]
    #[arg(long, value_name = "DURATION", help_heading = "Access to the repository")]
    pub git_timeout: Option<Text>,

    /// Another repository for the notes than the fleet's; it need not hold the commits that they are about
    #[arg(long, value_name = "REPOSITORY", help_heading = "Journal")]
    pub journal_repo: Option<Text>,
    /// A token for the notes alone [default: the fleet's, when both are on one server]
    #[arg(long, value_name = "FILE", help_heading = "Journal")]
    pub journal_token_file: Option<Text>,
    /// The user name that goes with that token [default: the fleet's name]
    #[arg(long, value_name = "NAME", help_heading = "Journal")]
    pub journal_user: Option<Text>,
    /// A private key for ssh, for the notes alone [default: the fleet's key]
    #[arg(long, value_name = "FILE", help_heading = "Journal")]
    pub journal_ssh_key_file: Option<Text>,
    /// The host keys to trust where the notes go [default: the fleet's hosts]
    #[arg(long, value_name = "FILE", help_heading = "Journal")]
    pub journal_known_hosts_file: Option<Text>,
    /// A file with the key that notes and records are signed with, so that whoever may push cannot forge them; several, one a line,
    /// while one replaces another: the first one signs
    #[arg(long, value_name = "FILE", help_heading = "Journal")]
    pub journal_key_file: Option<Text>,
    /// Take the records in this commit of the journal for gitamp's own although no key proves them; needed once, when a key is
    /// introduced or was lost
    #[arg(long, value_name = "COMMIT", help_heading = "Journal")]
    pub journal_adopt: Option<Text>,

    /// Where agents connect; anything but loopback needs TLS, proofs of who they are, or --insecure [default: 127.0.0.1:4320]
    #[arg(long, value_name = "IP:PORT", help_heading = "Agents")]
    pub listen: Option<Text>,
    /// The path that agents connect to [default: /v1/opamp]
    #[arg(long, value_name = "PATH", help_heading = "Agents")]
    pub opamp_path: Option<Text>,
    /// The largest message of an agent [default: 1MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Agents")]
    pub max_message_size: Option<Text>,
    /// Connections at once; `auto` is what the limit of open files allows [default: auto]
    #[arg(long, value_name = "NUMBER", help_heading = "Agents")]
    pub max_connections: Option<Text>,
    /// New connections a second, and as many at once; others are told to come back in 30 to 60 s; `off`: as many as come
    /// [default: 10000]
    #[arg(long, value_name = "NUMBER", help_heading = "Agents")]
    pub max_connection_rate: Option<Text>,
    /// Offer agents this interval for their heartbeats and polls, to those that take it; `off` leaves them theirs [default: off]
    #[arg(long, value_name = "DURATION", help_heading = "Agents")]
    pub heartbeat_interval: Option<Text>,
    /// How long an agent that is gone is remembered [default: 1h]
    #[arg(long, value_name = "DURATION", help_heading = "Agents")]
    pub forget_after: Option<Text>,

    /// The certificate of the agents' port in PEM form, with those that lead to its authority: TLS is spoken there, and nothing
    /// else; read again when it changes, without ending a connection
    #[arg(long, value_name = "FILE", help_heading = "Who may speak as an agent")]
    pub tls_cert_file: Option<Text>,
    /// Its private key, which nobody else may read
    #[arg(long, value_name = "FILE", help_heading = "Who may speak as an agent")]
    pub tls_key_file: Option<Text>,
    /// The authorities whose certificates prove who an agent is; read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Who may speak as an agent")]
    pub tls_client_ca_file: Option<Text>,
    /// Their lists of revoked certificates, in PEM form, one for each authority that issues; read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Who may speak as an agent")]
    pub tls_client_crl_file: Option<Text>,
    /// The file of agents' tokens, of which it holds hashes: see `gitamp token`; read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Who may speak as an agent")]
    pub agent_token_file: Option<Text>,
    /// The file that names the issuers of JWTs that prove who an agent is; read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Who may speak as an agent")]
    pub agent_issuers_file: Option<Text>,
    /// Connections at once from one address, and as many agents that poll from there without a token; `off`: as many as in all
    /// [default: 40000]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may speak as an agent")]
    pub max_connections_per_address: Option<Text>,
    /// Connections and polling agents at once with one token; `off`: as many as in all [default: 100000]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may speak as an agent")]
    pub max_connections_per_token: Option<Text>,
    /// Agents at once that poll over HTTP, over all addresses and tokens [default: 50000]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may speak as an agent")]
    pub max_polling_agents: Option<Text>,
    /// Agents that one token, or where none is shown one address, may bring in a minute; `off`: as many as come [default: 30000]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may speak as an agent")]
    pub max_new_agents: Option<Text>,
    /// Agents on one connection, as a proxy carries them [default: 1024]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may speak as an agent")]
    pub max_agents_per_connection: Option<Text>,
    /// Messages of one agent in ten seconds [default: 2000]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may speak as an agent")]
    pub max_agent_messages: Option<Text>,
    /// Bytes of messages of one agent in ten seconds [default: 64MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Who may speak as an agent")]
    pub max_agent_bytes: Option<Text>,
    /// Attributes in the description of one agent, at most 256 [default: 256]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may speak as an agent")]
    pub max_attributes: Option<Text>,
    /// Bytes of all attributes of one agent [default: 32KiB]
    #[arg(long, value_name = "SIZE", help_heading = "Who may speak as an agent")]
    pub max_attribute_bytes: Option<Text>,
    /// Bytes of larger messages that are held at a time, over all connections, a quarter of them for one token or address; others wait
    /// [default: 64MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Who may speak as an agent")]
    pub max_bytes_in_flight: Option<Text>,
    /// How long a TLS handshake may take, and how long it may wait for its turn [default: 10s]
    #[arg(long, value_name = "DURATION", help_heading = "Who may speak as an agent")]
    pub handshake_timeout: Option<Text>,
    /// TLS handshakes at a time [default: 512]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may speak as an agent")]
    pub max_handshakes: Option<Text>,
    /// Let agents in from other machines with neither TLS nor proofs of who they are [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Who may speak as an agent")]
    pub insecure: Option<Text>,

    /// A file with the secret of POST /hooks/{github,gitlab,gitea,bitbucket,azure,generic}, one a line while one replaces
    /// another; read again for each delivery; without it there are no hooks
    #[arg(long, value_name = "FILE", help_heading = "Hooks")]
    pub hook_secret_file: Option<Text>,
    /// A listener of its own for hooks [default: they come in where agents connect]
    #[arg(long, value_name = "IP:PORT", help_heading = "Hooks")]
    pub hooks_listen: Option<Text>,
    /// How often the remote is asked while hooks tell of pushes; back to --interval when one was missed, or none came for a
    /// day [default: the same]
    #[arg(long, value_name = "DURATION", help_heading = "Hooks")]
    pub interval_with_hooks: Option<Text>,
    /// The largest body of a delivery [default: 1MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Hooks")]
    pub max_hook_size: Option<Text>,
    /// Deliveries of one address in a minute that prove nothing; `off`: as many as come [default: 600]
    #[arg(long, value_name = "NUMBER", help_heading = "Hooks")]
    pub max_hook_rate: Option<Text>,

    /// The forge that is told what becomes of commits: github, gitlab, gitea (Forgejo as well), bitbucket, or off; told only with a
    /// token or an App [default: known from the repository for
    /// github.com, gitlab.com, codeberg.org and bitbucket.org]
    #[arg(long, value_name = "FORGE", help_heading = "Forge")]
    pub forge: Option<Text>,
    /// Where its API is, like `https://git.example.com/api/v4` [default: known from the repository]
    #[arg(long, value_name = "URL", help_heading = "Forge")]
    pub forge_api: Option<Text>,
    /// The repository's full name on the forge, like team/fleet [default: known from the repository]
    #[arg(long, value_name = "NAME", help_heading = "Forge")]
    pub forge_project: Option<Text>,
    /// A file with the token for the API; read again at every use, so it may be renewed in place
    #[arg(long, value_name = "FILE", help_heading = "Forge")]
    pub forge_token_file: Option<Text>,
    /// The user whose password the token is, for forges that want both
    #[arg(long, value_name = "NAME", help_heading = "Forge")]
    pub forge_user: Option<Text>,
    /// Instead of a token: the id of a GitHub App
    #[arg(long, value_name = "ID", help_heading = "Forge")]
    pub forge_app_id: Option<Text>,
    /// A file with the App's private key
    #[arg(long, value_name = "FILE", help_heading = "Forge")]
    pub forge_app_key_file: Option<Text>,
    /// The App's installation [default: the one in the repository]
    #[arg(long, value_name = "NUMBER", help_heading = "Forge")]
    pub forge_app_installation: Option<Text>,
    /// The certificates that the forge is known by [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "Forge")]
    pub forge_ca_file: Option<Text>,
    /// Post statuses to each commit that is synced [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Forge")]
    pub forge_statuses: Option<Text>,
    /// Where a click on a status leads; {commit}, {instance} and {group} are filled in
    #[arg(long, value_name = "URL", help_heading = "Forge")]
    pub forge_status_url: Option<Text>,
    /// Keep a comment on the merged pull request up to date [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Forge")]
    pub forge_comment: Option<Text>,
    /// Open a pull request that reverts a commit which was taken back [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Forge")]
    #[serde(alias = "revertPullRequest")]
    pub revert_pull_request: Option<Text>,

    /// The largest answer of a forge, or of a receiver of alerts, that is read [default: 8MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Forge")]
    pub max_answer_size: Option<Text>,

    /// Who is told of incidents; only in the file, because it is a list.
    #[arg(skip)]
    pub alerts: Option<AlertsArgs>,

    /// A listener for operators on other machines, who prove who they are by tokens or JWTs (OpenID Connect); speaks TLS
    #[arg(long, value_name = "IP:PORT", help_heading = "Who may command from elsewhere")]
    pub api_listen: Option<Text>,
    /// The file of operators' tokens, of which it holds hashes, with their roles (view, operate, approve); read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Who may command from elsewhere")]
    pub api_token_file: Option<Text>,
    /// The file of issuers whose JWTs (OpenID Connect) make operators, by which claims give which role; read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Who may command from elsewhere")]
    pub api_issuers_file: Option<Text>,
    /// The certificate of that listener in PEM form; read again when it changes [default: the agents' listener's]
    #[arg(long, value_name = "FILE", help_heading = "Who may command from elsewhere")]
    pub api_cert_file: Option<Text>,
    /// Its private key, which nobody else may read [default: the agents' listener's]
    #[arg(long, value_name = "FILE", help_heading = "Who may command from elsewhere")]
    pub api_key_file: Option<Text>,
    /// Let that listener speak without TLS, on loopback only: for a proxy on this machine that adds it [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Who may command from elsewhere")]
    pub api_plain: Option<Text>,
    /// Whoever wrote or committed a part of a change cannot approve it over that listener; compared by e-mail address [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Who may command from elsewhere")]
    pub no_self_approval: Option<Text>,
    /// Connections at once [default: 256]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may command from elsewhere")]
    pub api_max_connections: Option<Text>,
    /// Connections at once from one address [default: 32]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may command from elsewhere")]
    pub api_max_connections_per_address: Option<Text>,
    /// TLS handshakes at a time; --handshake-timeout holds for them too [default: 64]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may command from elsewhere")]
    pub api_max_handshakes: Option<Text>,
    /// Requests of one operator in a second; three times as many at once [default: 20]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may command from elsewhere")]
    pub api_max_requests: Option<Text>,
    /// Requests of one address in a minute that prove nothing; others are answered late [default: 10]
    #[arg(long, value_name = "NUMBER", help_heading = "Who may command from elsewhere")]
    pub api_max_unproven: Option<Text>,
    /// The largest order [default: 16KiB]
    #[arg(long, value_name = "SIZE", help_heading = "Who may command from elsewhere")]
    pub api_max_order_size: Option<Text>,

    /// Where health, metrics and the reading API are served, or `off` [default: 127.0.0.1:4321]
    #[arg(long, value_name = "IP:PORT", help_heading = "Running it")]
    pub admin_listen: Option<Text>,
    /// Host names, besides loopback and addresses, under which the admin listener may be asked; separated by commas
    #[arg(long, value_name = "NAMES", help_heading = "Running it")]
    pub admin_hosts: Option<Text>,
    /// Where the mirror, the journal and the admin socket live [default: $STATE_DIRECTORY, else
    /// ${XDG_STATE_HOME:-~/.local/state}/gitamp]
    #[arg(long, value_name = "DIRECTORY", help_heading = "Running it")]
    pub state_dir: Option<Text>,
    /// What is logged: a level, or levels by module like 'info,gitamp::git=debug' [default: info]
    #[arg(long, value_name = "FILTER", help_heading = "Running it")]
    pub log: Option<Text>,
    /// How it is logged: human, json, or auto: human on a terminal [default: auto]
    #[arg(long, value_name = "FORMAT", help_heading = "Running it")]
    pub log_format: Option<Text>,
}

/// `verify: {mode: all, allowedSigners: FILE, keyring: FILE}` in the file: the settings `verify-mode` and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "camelCase",
    default,
    expecting = "a mapping with `mode`, `allowedSigners` and `keyring`"
)]
pub struct VerifyArgs {
    /// `verify-mode`.
    pub mode: Option<Text>,
    /// `verify-allowed-signers`.
    pub allowed_signers: Option<Text>,
    /// `verify-keyring`.
    pub keyring: Option<Text>,
}

/// `alerts: {waitsTooLong: 4h, staleAfter: 15m, receivers: [...]}` in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "camelCase",
    default,
    expecting = "a mapping with `receivers`, `waitsTooLong` and `staleAfter`"
)]
pub struct AlertsArgs {
    /// How long a rollout may stand still.
    pub waits_too_long: Option<Text>,
    /// How long the repository may be out of reach.
    pub stale_after: Option<Text>,
    /// Who is told.
    pub receivers: Vec<ReceiverArgs>,
}

/// One of `receivers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "camelCase",
    default,
    expecting = "a receiver: a mapping with `name`, `type`, and `url` or `urlFile`"
)]
pub struct ReceiverArgs {
    /// What it is called.
    pub name: Option<Text>,
    /// `webhook`, `slack` or `alertmanager`.
    #[serde(rename = "type")]
    pub kind: Option<Text>,
    /// Where it is.
    pub url: Option<Text>,
    /// A file that says where it is.
    pub url_file: Option<Text>,
    /// A file with what messages are signed with.
    pub secret_file: Option<Text>,
    /// A file with a token for it.
    pub token_file: Option<Text>,
    /// Certificates that it is known by.
    pub ca_file: Option<Text>,
    /// `warning` or `critical`.
    pub severity: Option<Text>,
    /// Globs over groups' names.
    pub groups: Option<Vec<Text>>,
    /// Whether it hears of what concerns no group in particular.
    pub fleet: Option<Text>,
}

impl ServeArgs {
    /// Moves what stands in mappings to the settings that they stand for. The name of one that is given in both forms is the error.
    fn flatten(&mut self) -> Result<(), &'static str> {
        let Some(VerifyArgs { mode, allowed_signers, keyring }) = self.verify.take() else { return Ok(()) };
        for (key, flat, nested) in [
            ("verify-mode", &mut self.verify_mode, mode),
            ("verify-allowed-signers", &mut self.verify_allowed_signers, allowed_signers),
            ("verify-keyring", &mut self.verify_keyring, keyring),
        ] {
            match (flat.is_some(), nested) {
                (true, Some(_)) => return Err(key),
                (false, Some(value)) => *flat = Some(value),
                (_, None) => {}
            }
        }
        Ok(())
    }
}

/// Where a value came from, to be named in errors as the person who wrote it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// A `GITAMP_*` variable.
    Environment,
    /// This file, and where its settings stand.
    File(PathBuf, Arc<Places>),
}

impl Source {
    /// The setting's name as it is written there: `--interval`, `GITAMP_INTERVAL`, or `interval in FILE:LINE`.
    pub fn name(&self, key: &str) -> String {
        match self {
            Self::Flag => format!("--{key}"),
            Self::Environment => variable(key),
            Self::File(path, places) => {
                // `verify: {mode: ...}` is another way to write `verify-mode`.
                let nested = key.strip_prefix("verify-").map(|rest| format!("verify.{}", camel(rest)));
                let line = places.line(key).or_else(|| places.line(&nested?)).or_else(|| places.line(&camel(key)));
                let line = line.map_or_else(String::new, |line| format!(":{line}"));
                format!("`{key}` in {}{line}", path.display())
            }
        }
    }
}

/// `allowed-signers` as `allowedSigners`.
fn camel(key: &str) -> String {
    let mut parts = key.split('-');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |whole, part| {
        let mut letters = part.chars();
        whole + &letters.next().map(|letter| letter.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    })
}

/// The variable of a setting.
pub fn variable(key: &str) -> String {
    format!("GITAMP_{}", key.replace('-', "_").to_ascii_uppercase())
}

/// The values that were given, by setting, each from the strongest source that has one.
pub type Given = BTreeMap<String, (String, Source)>;

/// Adds the values of a weaker source.
pub fn add_layer(given: &mut Given, layer: &ServeArgs, source: &Source) -> Result<(), serde_json::Error> {
    let serde_json::Value::Object(values) = serde_json::to_value(layer)? else { return Ok(()) };
    for (key, value) in values {
        if value.is_null() {
            continue;
        }
        // What is no single value travels as the JSON of it.
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        given.entry(key).or_insert_with(|| (text, source.clone()));
    }
    Ok(())
}

/// What commands that ask a daemon on another machine take from the environment; the daemon itself does not.
pub const CLIENT_KEYS: [&str; 3] = ["server", "token-file", "ca-file"];

/// The names of all settings.
pub fn keys() -> Vec<String> {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    command.get_arguments().filter_map(|one| one.get_long()).filter(|key| *key != "config").map(str::to_owned).collect()
}

/// The layer of the environment, and a warning for each `GITAMP_*` variable that means nothing. An empty variable counts as
/// not set, because that is how many tools unset one.
pub fn environment_layer(variables: &BTreeMap<String, String>) -> (Given, Vec<String>) {
    let mut given = Given::new();
    let mut known: Vec<String> = ["config"].iter().chain(&CLIENT_KEYS).map(|key| variable(key)).collect();
    for key in keys() {
        let name = variable(&key);
        if let Some(value) = variables.get(&name).filter(|value| !value.is_empty()) {
            given.insert(key, (value.clone(), Source::Environment));
        }
        known.push(name);
    }
    let unknown = |name: &&String| name.starts_with("GITAMP_") && !known.contains(*name);
    let warnings = variables.keys().filter(unknown).map(|name| {
        format!("the environment variable {name} means nothing to gitamp: see `gitamp serve --help` for the names")
    });
    (given, warnings.collect())
}

/// The largest settings file: 1 MiB.
const LARGEST_FILE: u64 = 1 << 20;

/// Why a settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading failed.
    #[error("cannot read the settings file {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Too large.
    #[error("the settings file {path} is larger than 1 MiB", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not what a settings file looks like; the reason has line and column.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What and where.
        reason: String,
    },
}

/// Reads a settings file: what it says, and where.
pub fn read_file(path: &Path) -> Result<(ServeArgs, Places), FileError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    let malformed = |reason: String| FileError::Malformed { path: path.to_owned(), reason };
    let text = std::str::from_utf8(&bytes).map_err(|error| malformed(format!("it is not UTF-8: {error}")))?;
    // A file of comments only is an empty document, which says nothing, and that is fine.
    let mut args = serde_yaml::from_str::<Option<ServeArgs>>(text).map(Option::unwrap_or_default).map_err(|error| {
        let what = with_place(&without_text(&error.to_string()), text);
        malformed(format!("{what}; the keys are the flags of `gitamp serve`, without the dashes in front"))
    })?;
    args.flatten().map_err(|key| malformed(format!("`{key}` and `verify` say the same: leave one out")))?;
    Ok((args, Places::of(text)))
}

/// The reader's words without a text that stands where a setting should: somebody may have named the file of a secret.
fn without_text(message: &str) -> String {
    let parts = message
        .split_once("invalid type: string \"")
        .and_then(|(before, rest)| Some((before, rest.rsplit_once("\", expected")?.1)));
    parts.map_or_else(|| message.to_owned(), |(before, after)| format!("{before}invalid type: text, expected{after}"))
}

/// The reader gives no place to errors that concern the file's outermost mapping (its first key, a key given twice): finds the last
/// line with the key that the message names.
fn with_place(message: &str, text: &str) -> String {
    let key = message.split('`').nth(1).filter(|_| !message.contains(" at line "));
    let starts = |line: &str, key: &str| line.trim_start_matches(['"', '\'']).starts_with(key);
    let line = key.and_then(|key| text.lines().enumerate().filter(|(_, line)| starts(line, key)).last());
    match line {
        Some((index, _)) => format!("{message} at line {} column 1", index + 1),
        None => message.to_owned(),
    }
}
