//! Checks what is said about the forge that is told what becomes of commits.

use url::Url;

use super::access::{existing, secret_file};
use super::{Reader, boolean};
use crate::settings::forge::{Access, ForgeSettings, Kind, UrlTemplate};
use crate::settings::limits::LARGEST_ANSWER;
use crate::settings::proxy::Proxies;
use crate::settings::{Reference, RepoUrl, Settings};

/// The settings that make no sense without somebody to be to the forge.
const NEED_ACCESS: [&str; 6] = [
    "forge-comment",
    "revert-pull-request",
    "forge-statuses",
    "forge-status-url",
    "forge-user",
    "forge-app-installation",
];

/// Reads everything that begins with `forge`.
pub(super) fn forge(settings: &mut Settings, reader: &mut Reader<'_>) {
    let kind = reader.read("forge", |text| match text {
        // YAML readers make `off` a boolean.
        "off" | "false" => Ok(None),
        name => match Kind::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => Ok(Some(kind)),
            None => Err(format!("must be github, gitlab, gitea, bitbucket or off, not {name}")),
        },
    });
    let access = access(reader);
    let project = reader.read("forge-project", project);
    let api = reader.read("forge-api", address);
    let mut said = ForgeSettingsSaid::read(reader);
    if kind == Some(None) {
        return;
    }
    let Some(access) = access else {
        for key in NEED_ACCESS {
            let is_off = key == "forge-statuses" || matches!(reader.read(key, boolean_or_text), Some(false));
            if reader.given.contains_key(key) && !is_off && !is_access_named(reader) {
                reader.problem(
                    key,
                    "the forge is told nothing without --forge-token-file, or --forge-app-id and --forge-app-key-file",
                );
            }
        }
        return;
    };
    let Some((kind, api, project)) = place(reader, kind.flatten(), &settings.repo, api, project) else { return };
    if matches!(access, Access::App { .. }) && kind != Kind::GitHub {
        reader
            .problem("forge-app-id", format!("only GitHub has Apps, and the forge is {kind}: use --forge-token-file"));
    }
    if said.comment && kind == Kind::Bitbucket {
        reader.problem("forge-comment", "Bitbucket does not tell which pull request a commit came from: leave it out");
    }
    if said.revert_pull_request && matches!(settings.reference, Reference::TagPattern(_)) {
        reader.problem("revert-pull-request", "needs a branch to revert on, and tags are followed: leave it out");
    }
    if settings.observe {
        settings.warnings.push("with --observe nothing is written to the forge either".to_owned());
        return;
    }
    if let (Some(api), Some(project)) = (api, project) {
        settings.forge = Some(ForgeSettings {
            kind,
            api,
            project,
            access,
            ca_file: said.ca_file.take(),
            proxies: Proxies::default(),
            largest_answer: LARGEST_ANSWER,
            statuses: said.statuses,
            comment: said.comment,
            revert_pull_request: said.revert_pull_request,
            status_url: said.status_url.take(),
        });
    }
}

/// Which forge it is, where it is, and what the repository is called there: as far as it is said, else as the repository's address
/// tells. What cannot be told is noted.
fn place(
    reader: &mut Reader<'_>,
    kind: Option<Kind>,
    repo: &RepoUrl,
    api: Option<Url>,
    project: Option<String>,
) -> Option<(Kind, Option<Url>, Option<String>)> {
    let place = repo.place();
    let setting = if reader.given.contains_key("forge-app-id") { "forge-app-id" } else { "forge-token-file" };
    let known = place.as_ref().and_then(|(host, _)| Kind::of_host(host));
    let Some(kind) = kind.or(known) else {
        if !reader.given.contains_key("forge") {
            reader.problem(
                setting,
                "which forge it is for cannot be told from --repo: say --forge github, gitlab, gitea or bitbucket",
            );
        }
        return None;
    };
    let guessed = || place.as_ref().and_then(|(host, _)| Url::parse(&kind.api_at(host)?).ok());
    let api = api.or_else(|| (!reader.given.contains_key("forge-api")).then(guessed).flatten());
    let named = || place.as_ref().and_then(|(_, path)| self::project(path).ok());
    let project = project.or_else(|| (!reader.given.contains_key("forge-project")).then(named).flatten());
    if api.is_none() && !reader.given.contains_key("forge-api") {
        let advice = match kind {
            Kind::Bitbucket => {
                "only Bitbucket Cloud is told, and --repo is not there: say --forge-api https://api.bitbucket.org/2.0 if that is meant"
            }
            Kind::GitHub | Kind::GitLab | Kind::Gitea => {
                "where the forge is cannot be told from --repo: say --forge-api https://..."
            }
        };
        reader.problem(setting, advice);
    }
    if project.is_none() && !reader.given.contains_key("forge-project") {
        reader.problem(
            setting,
            "what the repository is called there cannot be told from --repo: say --forge-project team/fleet",
        );
    }
    Some((kind, api, project))
}

/// What does not depend on which forge it is.
struct ForgeSettingsSaid {
    ca_file: Option<std::path::PathBuf>,
    statuses: bool,
    comment: bool,
    revert_pull_request: bool,
    status_url: Option<UrlTemplate>,
}

impl ForgeSettingsSaid {
    fn read(reader: &mut Reader<'_>) -> Self {
        let mut said = Self {
            ca_file: existing(reader, "forge-ca-file"),
            statuses: true,
            comment: false,
            revert_pull_request: false,
            status_url: reader.read("forge-status-url", UrlTemplate::new),
        };
        reader.set(&mut said.statuses, "forge-statuses", boolean);
        reader.set(&mut said.comment, "forge-comment", boolean);
        reader.set(&mut said.revert_pull_request, "revert-pull-request", boolean);
        said
    }
}

/// False for a switch that is off; true for everything else that was said.
fn boolean_or_text(text: &str) -> Result<bool, String> {
    Ok(boolean(text).unwrap_or(true))
}

fn is_access_named(reader: &Reader<'_>) -> bool {
    ["forge-token-file", "forge-app-id", "forge-app-key-file"].iter().any(|key| reader.given.contains_key(*key))
}

/// Who we are; `None` when nothing is said of it, or nothing good, which is noted.
fn access(reader: &mut Reader<'_>) -> Option<Access> {
    let token = secret_file(reader, "forge-token-file");
    let key = secret_file(reader, "forge-app-key-file");
    let id = reader.read("forge-app-id", |text| {
        let is_fit =
            !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
        if is_fit {
            Ok(text.to_owned())
        } else {
            Err("must be the number or the client id that GitHub shows for the App")
        }
    });
    let installation = reader.read("forge-app-installation", |text| {
        text.parse::<u64>().map_err(|_| "must be the number that GitHub shows for the installation")
    });
    let user = reader.read("forge-user", |text| {
        let is_fit = !text.is_empty() && text.len() <= 256 && !text.chars().any(|c| c.is_control() || c == ':');
        if is_fit { Ok(text.to_owned()) } else { Err("must be a name without colons or control characters") }
    });
    match (token, id, key) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            reader.problem(
                "forge-token-file",
                "an App is named as well, and only one of them can be who we are: leave one out",
            );
            None
        }
        (Some(file), None, None) => Some(Access::Token { file, user }),
        (None, Some(id), Some(key)) => Some(Access::App { id, installation, key }),
        (None, Some(_), None) => {
            if !reader.given.contains_key("forge-app-key-file") {
                reader.problem("forge-app-id", "an App needs its private key as well: --forge-app-key-file");
            }
            None
        }
        (None, None, Some(_)) => {
            if !reader.given.contains_key("forge-app-id") {
                reader.problem("forge-app-key-file", "the key alone does not say whose it is: --forge-app-id");
            }
            None
        }
        (None, None, None) => None,
    }
}

/// The address of an API: https, or http to this machine.
fn address(text: &str) -> Result<Url, String> {
    let url =
        Url::parse(text).map_err(|error| format!("must be an address like https://git.example.com/api/v4: {error}"))?;
    let is_here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => return Err("names no host".to_owned()),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_here => {}
        "http" => return Err("would show the token to everybody on the way: use https://".to_owned()),
        other => return Err(format!("must begin with https://, not {other}://")),
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("must be an address alone: no user, no password, no query".to_owned());
    }
    Ok(url)
}

fn project(text: &str) -> Result<String, &'static str> {
    let text = text.trim_matches('/');
    let is_part = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.~".contains(c))
    };
    if text.len() <= 500 && text.contains('/') && text.split('/').all(is_part) {
        Ok(text.to_owned())
    } else {
        Err("must be the full name of the repository, like team/fleet")
    }
}
