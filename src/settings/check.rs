//! Turns the values that were given into checked settings, noting every problem instead of stopping at the first.

mod access;
mod agents;
mod alerts;
mod api;
mod forge;
mod limits;

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use access::{access, journal, secret_problem, verify};
use agents::agents;

use super::alerts::AlertSettings;
use super::layers::{Given, Source};
use super::proxy::Proxies;
use super::{
    ContentLimits, Environment, HookSecrets, HookSettings, LogFormat, LogSettings, Problem, Reference, RepoUrl,
    SecretFile, Settings, SettingsError, VerifyMode,
};
use crate::time::{parse_duration, show_duration};

/// The longest path that a Unix socket can be bound to on Linux, in bytes (`sun_path` without its final NUL).
const LONGEST_SOCKET_PATH: usize = 107;

/// Reads values by key and notes what is wrong with them.
struct Reader<'a> {
    given: &'a Given,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.given.get(key).map(|(text, _)| text.as_str())
    }

    fn problem(&mut self, key: &str, message: impl Into<String>) {
        let setting = self.given.get(key).map_or_else(|| format!("--{key}"), |(_, source)| source.name(key));
        self.problems.push(Problem { setting, message: message.into() });
    }

    /// The value of `key`; `None` when it is not given, or wrong, which is noted.
    fn read<T, E: Display>(&mut self, key: &str, parse: impl FnOnce(&'a str) -> Result<T, E>) -> Option<T> {
        match parse(self.text(key)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(key, error.to_string());
                None
            }
        }
    }

    /// Puts the value of `key` into `slot`, when there is a good one.
    fn set<T, E: Display>(&mut self, slot: &mut T, key: &str, parse: impl FnOnce(&'a str) -> Result<T, E>) {
        if let Some(value) = self.read(key, parse) {
            *slot = value;
        }
    }

    /// A path; relative ones in the settings file are taken from the file's directory.
    fn path(&mut self, key: &str) -> Option<PathBuf> {
        let base = self.given.get(key).and_then(|(_, source)| directory(source));
        self.read(key, |text| absolute(base, text))
    }

    fn duration(&mut self, slot: &mut Duration, key: &str, least: Duration, most: Duration) {
        self.set(slot, key, |text| {
            let length = parse_duration(text).map_err(|error| error.to_string())?;
            if length < least || length > most {
                return Err(format!("must be from {} to {}, not {text}", show_duration(least), show_duration(most)));
            }
            Ok(length)
        });
    }
}

/// The directory that relative paths of this source are taken from, unless it is the working directory.
fn directory(source: &Source) -> Option<&Path> {
    match source {
        Source::File(file, _) => file.parent(),
        Source::Flag | Source::Environment => None,
    }
}

fn absolute(base: Option<&Path>, text: &str) -> Result<PathBuf, String> {
    if text.trim().is_empty() {
        return Err("is empty: name a path, or leave it out".to_owned());
    }
    if text.starts_with('~') {
        return Err("`~` is a matter of the shell: write the path out".to_owned());
    }
    let joined = base.map_or_else(|| PathBuf::from(text), |base| base.join(text));
    std::path::absolute(joined).map_err(|error| error.to_string())
}

/// The state directory: what was given, else systemd's, else the user's.
pub(super) fn state_dir(given: &Given, environment: &Environment) -> Result<PathBuf, SettingsError> {
    let mut reader = Reader { given, problems: Vec::new() };
    let path = reader.path("state-dir");
    match path {
        _ if !reader.problems.is_empty() => Err(SettingsError::Values(reader.problems)),
        Some(path) => Ok(path),
        None => default_state_dir(environment)
            .map_err(|message| SettingsError::Values(vec![Problem { setting: "--state-dir".to_owned(), message }])),
    }
}

fn default_state_dir(environment: &Environment) -> Result<PathBuf, String> {
    // systemd separates several directories by colons; the first is ours.
    if let Some(first) =
        environment.get("STATE_DIRECTORY").and_then(|all| all.split(':').next()).filter(|one| !one.is_empty())
    {
        return absolute(None, first);
    }
    if let Some(base) = environment.get("XDG_STATE_HOME").filter(|base| Path::new(base).is_absolute()) {
        return Ok(Path::new(base).join("gitamp"));
    }
    match environment.get("HOME").filter(|home| Path::new(home).is_absolute()) {
        Some(home) => Ok(Path::new(home).join(".local/state/gitamp")),
        None => Err("there is no home directory to keep state in: name a directory that survives restarts".to_owned()),
    }
}

/// The file of agents' tokens, which need not be there yet.
pub(super) fn token_file(given: &Given) -> Result<Option<PathBuf>, SettingsError> {
    let mut reader = Reader { given, problems: Vec::new() };
    let path = reader.path("agent-token-file");
    if reader.problems.is_empty() { Ok(path) } else { Err(SettingsError::Values(reader.problems)) }
}

/// Checks everything that was given.
pub(super) fn check(
    given: &Given,
    environment: &Environment,
    warnings: Vec<String>,
) -> Result<Settings, SettingsError> {
    let mut reader = Reader { given, problems: Vec::new() };
    let repo = repository(&mut reader);
    let state_dir = state_dir(given, environment);
    let (repo, state_dir) = match (repo, state_dir) {
        (Some(repo), Ok(state_dir)) => (repo, state_dir),
        (repo, state_dir) => {
            // Check the rest all the same, so that all problems are named at once; the stand-ins are never used.
            let stand_in = || RepoUrl::local(Path::new("/")).ok();
            if let Some(repo) = repo.or_else(stand_in) {
                let mut rest = Settings::new(repo, PathBuf::new());
                fill(&mut rest, &mut reader, environment);
            }
            if let Err(SettingsError::Values(more)) = state_dir {
                reader.problems.extend(more);
            }
            return Err(SettingsError::Values(reader.problems));
        }
    };
    let mut settings = Settings::new(repo, state_dir);
    settings.warnings = warnings;
    let socket = settings.admin_socket();
    if socket.as_os_str().len() > LONGEST_SOCKET_PATH {
        let why = format!(
            "is too long: the admin socket {} would have a path of {} bytes, and {LONGEST_SOCKET_PATH} are possible; name a shorter \
             directory with --state-dir",
            socket.display(),
            socket.as_os_str().len()
        );
        reader.problem("state-dir", why);
    }
    fill(&mut settings, &mut reader, environment);
    if reader.problems.is_empty() { Ok(settings) } else { Err(SettingsError::Values(reader.problems)) }
}

/// Checks what was given about alerts, and the instance that they are sent as.
pub(super) fn alerts_alone(
    given: &Given,
    environment: &Environment,
) -> Result<(String, Option<AlertSettings>), SettingsError> {
    let mut reader = Reader { given, problems: Vec::new() };
    let mut name = "default".to_owned();
    reader.set(&mut name, "instance", instance);
    let mut settings = alerts::alerts(&mut reader, &mut Vec::new());
    let (proxies, _) = Proxies::read(|name| environment.get(name));
    for receiver in settings.iter_mut().flat_map(|alerts| &mut alerts.receivers) {
        receiver.proxies = proxies.clone();
    }
    if reader.problems.is_empty() { Ok((name, settings)) } else { Err(SettingsError::Values(reader.problems)) }
}

/// What one commit may bring. How large agents' messages may be is not known here, and not asked.
pub(super) fn content_alone(given: &Given) -> Result<ContentLimits, SettingsError> {
    let mut reader = Reader { given, problems: Vec::new() };
    let mut content = ContentLimits::default();
    limits::content(&mut content, &mut reader);
    if reader.problems.is_empty() { Ok(content) } else { Err(SettingsError::Values(reader.problems)) }
}

fn repository(reader: &mut Reader<'_>) -> Option<RepoUrl> {
    if !reader.given.contains_key("repo") {
        let message = "no repository is named: `gitamp serve --repo https://git.example.com/team/fleet.git`, GITAMP_REPO, \
                       or `repo:` in the settings file";
        reader.problem("repo", message);
    }
    repo_url(reader, "repo")
}

/// An address; relative directories in the settings file are taken from the file's directory.
fn repo_url(reader: &mut Reader<'_>, key: &str) -> Option<RepoUrl> {
    let base = reader.given.get(key).and_then(|(_, source)| directory(source));
    reader.read(key, |text| match RepoUrl::parse(text) {
        Ok(repo) if repo.local_path().is_some() && !text.contains("://") => match base {
            Some(base) => RepoUrl::local(&base.join(text.trim())),
            None => Ok(repo),
        },
        other => other,
    })
}

fn fill(settings: &mut Settings, reader: &mut Reader<'_>, environment: &Environment) {
    what_is_followed(settings, reader);
    verify(settings, reader);
    access(settings, reader, environment);
    journal(settings, reader);
    agents(settings, reader);
    hooks(settings, reader);
    agents::access(settings, reader);
    api::api(settings, reader);
    forge::forge(settings, reader);
    without_history(settings, reader);
    settings.alerts = alerts::alerts(reader, &mut settings.warnings);
    limits::content(&mut settings.content, reader);
    limits::answers(settings, reader);
    reach(settings, environment);
    running(settings, reader);
    warn(settings);
}

/// Whoever is told something is reached through the proxies that the environment names, and heard for as long as an answer may be.
fn reach(settings: &mut Settings, environment: &Environment) {
    let (proxies, warnings) = Proxies::read(|name| environment.get(name));
    let receivers = settings.alerts.iter_mut().flat_map(|alerts| &mut alerts.receivers);
    let of_receivers = receivers.map(|receiver| (&mut receiver.proxies, &mut receiver.largest_answer));
    let of_forge = settings.forge.iter_mut().map(|forge| (&mut forge.proxies, &mut forge.largest_answer));
    let mut is_used = false;
    for (slot, largest_answer) in of_receivers.chain(of_forge) {
        *slot = proxies.clone();
        *largest_answer = settings.largest_answer;
        is_used = true;
    }
    settings.warnings.extend(warnings.into_iter().filter(|_| is_used));
}

fn what_is_followed(settings: &mut Settings, reader: &mut Reader<'_>) {
    match (reader.given.get("branch"), reader.given.get("tag")) {
        // Of different strength: the stronger source means to replace the weaker one's choice.
        (Some((_, branch)), Some((_, tag))) if rank(branch) == rank(tag) => {
            reader.problem("tag", "a branch is named as well, and only one of them can be followed: leave one out");
        }
        (Some((_, branch)), Some((_, tag))) if rank(branch) > rank(tag) => {
            reader.set(&mut settings.reference, "tag", tag_pattern);
        }
        (None, Some(_)) => reader.set(&mut settings.reference, "tag", tag_pattern),
        (_, _) => reader.set(&mut settings.reference, "branch", branch),
    }
    reader.set(&mut settings.shallow, "depth", depth);
    reader.set(&mut settings.fleet_root, "path", fleet_root);
    reader.duration(&mut settings.interval, "interval", Duration::from_secs(1), Duration::from_secs(86_400));
    reader.set(&mut settings.instance, "instance", instance);
    reader.set(&mut settings.observe, "observe", boolean);
    let mut no_push = false;
    reader.set(&mut no_push, "no-push", boolean);
    settings.push = !no_push && !settings.observe;
}

/// What cannot be done without the commits before the newest one.
fn without_history(settings: &Settings, reader: &mut Reader<'_>) {
    if !settings.shallow {
        return;
    }
    if settings.verify.as_ref().is_some_and(|verify| verify.mode == VerifyMode::All) {
        reader.problem(
            "depth",
            "only the newest commit would be there to be verified: say --verify-mode head, or leave it out",
        );
    }
    if settings.forge.as_ref().is_some_and(|forge| forge.revert_pull_request) {
        reader.problem(
            "depth",
            "a revert is made from what was before, which would not be there: leave out one of the two",
        );
    }
}

fn rank(source: &Source) -> u8 {
    match source {
        Source::Flag => 0,
        Source::Environment => 1,
        Source::File(_, _) => 2,
    }
}

fn hooks(settings: &mut Settings, reader: &mut Reader<'_>) {
    let file = reader.path("hook-secret-file").map(SecretFile::new);
    let listen = reader.read("hooks-listen", address);
    let mut interval = settings.interval;
    reader.duration(&mut interval, "interval-with-hooks", settings.interval, Duration::from_secs(86_400));
    let interval = reader.given.contains_key("interval-with-hooks").then_some(interval);
    let limits = limits::hooks(reader);
    match file.map(HookSecrets::read) {
        Some(Ok(secrets)) => settings.hooks = Some(HookSettings { secrets, listen, interval, limits }),
        Some(Err(error)) => secret_problem(reader, "hook-secret-file", &error),
        None if !reader.given.contains_key("hook-secret-file") => {
            for key in ["hooks-listen", "interval-with-hooks"] {
                if reader.given.contains_key(key) {
                    reader.problem(key, "without --hook-secret-file there are no hooks: give both, or neither");
                }
            }
        }
        None => {}
    }
}

fn running(settings: &mut Settings, reader: &mut Reader<'_>) {
    reader.set(&mut settings.admin_listen, "admin-listen", |text| match text {
        // YAML readers make `off` a boolean.
        "off" | "false" => Ok(None),
        other => address(other).map(Some),
    });
    reader.set(&mut settings.admin_hosts, "admin-hosts", |text| {
        let names = text.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty());
        names.map(host_name).collect::<Result<Vec<_>, _>>()
    });
    reader.set(&mut settings.log.filter, "log", |text| {
        tracing_subscriber::EnvFilter::try_new(text)
            .map(|_| text.to_owned())
            .map_err(|error| format!("{error}: write a level (error, warn, info, debug, trace), or levels by module like 'info,gitamp::git=debug'"))
    });
    let log: &mut LogSettings = &mut settings.log;
    reader.set(&mut log.format, "log-format", |text| match text {
        "auto" => Ok(LogFormat::Auto),
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("must be auto, human or json, not {other}")),
    });
    let listeners = [
        ("listen", Some(settings.listen)),
        ("hooks-listen", settings.hooks.as_ref().and_then(|hooks| hooks.listen)),
        ("admin-listen", settings.admin_listen),
        ("api-listen", settings.api.as_ref().map(|api| api.listen)),
    ];
    for (index, (key, one)) in listeners.iter().enumerate() {
        for (other_key, other) in listeners.iter().take(index) {
            if one.is_some() && one == other && one.is_some_and(|address| address.port() != 0) {
                reader.problem(key, format!("the same address as --{other_key}: give each listener its own"));
            }
        }
    }
}

fn warn(settings: &mut Settings) {
    settings.alarm = agents::alarm(settings);
    let mut warnings = Vec::new();
    warnings.extend(agents::exposure(settings));
    if let Some(address) = settings.admin_listen.filter(|address| !address.ip().is_loopback()) {
        warnings.push(format!(
            "the listener of the admin interface ({address}) is open to other machines and has neither encryption nor authentication: let \
             only a trusted network, or a proxy that adds both, reach it"
        ));
    }
    if settings.repo.is_exposed() {
        warnings.push(
            "the repository is reached over http://: whoever is on the way can change what the fleet runs".to_owned(),
        );
    }
    if settings.journal.repo.as_ref().is_some_and(RepoUrl::is_exposed) {
        warnings.push(
            "the journal's repository is reached over http://: whoever is on the way can change what gitamp remembers"
                .to_owned(),
        );
    }
    settings.warnings.extend(warnings);
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("must be true or false, not {text}")),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| {
        let hint = if text.starts_with(':') {
            format!(" (all addresses are 0.0.0.0{text} or [::]{text})")
        } else {
            String::new()
        };
        format!("must be an address and a port like 127.0.0.1:4320, not {text}{hint}")
    })
}

/// A number of bytes: `65536`, `64KiB`, `1MiB`.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text.get(digits.len()..).map(str::trim) {
        Some("" | "B") => Some(1),
        Some("KiB") => Some(1 << 10),
        Some("MiB") => Some(1 << 20),
        Some(_) | None => None,
    };
    let number = digits.parse::<usize>().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .ok_or_else(|| format!("must be a size like 1MiB, 64KiB or a number of bytes, not {text}"))
}

fn url_path(text: &str) -> Result<String, &'static str> {
    let fine = text.starts_with('/')
        && text.len() <= 256
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/-._~".contains(c));
    let ours = text == "/hooks" || text.starts_with("/hooks/");
    if fine && !ours { Ok(text.to_owned()) } else { Err("must be a path like /v1/opamp, and not below /hooks") }
}

fn host_name(text: String) -> Result<String, String> {
    let fine = text.len() <= 253 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if fine {
        Ok(text)
    } else {
        Err(format!("`{text}` is no host name: write names without ports, separated by commas"))
    }
}

fn instance(text: &str) -> Result<String, &'static str> {
    let fine = !text.is_empty()
        && text.len() <= 64
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !text.starts_with(['.', '-'])
        && !text.ends_with('.')
        && !text.ends_with(".lock")
        && !text.contains("..");
    if fine {
        Ok(text.to_owned())
    } else {
        Err(
            "must be a name of letters, digits, `-`, `_` and `.` (at most 64), because it becomes part of refs/notes/gitamp/<instance>",
        )
    }
}

/// Nothing between one commit and all of them is of use to a follower.
fn depth(text: &str) -> Result<bool, String> {
    if text == "1" { Ok(true) } else { Err("must be 1: leave it out for the whole history".to_owned()) }
}

fn fleet_root(text: &str) -> Result<String, String> {
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("must stay inside the repository: no `..`".to_owned()),
            ".git" => return Err("cannot be inside .git".to_owned()),
            part if part.chars().any(|c| c.is_control() || c == '\\') => {
                return Err(
                    "must be a directory inside the repository, without backslashes or control characters".to_owned()
                );
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn branch(text: &str) -> Result<Reference, String> {
    let name = text.strip_prefix("refs/heads/").unwrap_or(text);
    if let Some(tag) = text.strip_prefix("refs/tags/") {
        return Err(format!("names a tag: use --tag {tag}"));
    }
    if name.contains(['*', '?', '[']) {
        return Err(format!("`{name}` is a pattern, and only one branch can be followed; patterns are for --tag"));
    }
    is_ref_name(name)
        .then(|| Reference::Branch(name.to_owned()))
        .ok_or_else(|| format!("`{name}` is no name of a branch"))
}

fn tag_pattern(text: &str) -> Result<Reference, String> {
    let pattern = text.strip_prefix("refs/tags/").unwrap_or(text);
    // The letters of a glob are checked away, so that what is left must be a possible name.
    let plain: String = pattern.chars().filter(|c| !"*?[]{},!".contains(*c)).collect();
    if !(plain.is_empty() && !pattern.is_empty() || is_ref_name(plain.trim_matches(['/', '.']))) {
        return Err(format!("`{pattern}` can match no tag"));
    }
    match globset::Glob::new(pattern) {
        Ok(_) => Ok(Reference::TagPattern(pattern.to_owned())),
        Err(error) => Err(format!("not a pattern like 'v*': {error}")),
    }
}

/// Git's rules for the name of a branch or tag (git-check-ref-format).
fn is_ref_name(name: &str) -> bool {
    let fine_part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    name.len() <= 244
        && name != "@"
        && name.split('/').all(fine_part)
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c))
}
