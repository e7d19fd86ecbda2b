//! Deliveries of Azure DevOps' service hooks (consumer "Web Hooks", event "Code pushed").
//!
//! As Microsoft's documentation has them: "Service hook events" (`git.push`) and "Webhooks with Azure DevOps". They are not signed: the
//! secret is the password of basic authentication, or stands in a header that the subscription adds.

use axum::http::HeaderMap;
use serde::Deserialize;
use url::Url;

use super::{Change, Named, Push, Refusal, Verdict, Watched, json, other_event, signature};
use crate::settings::Secret;

/// The header that a subscription may carry the secret in ("HTTP headers" of its settings).
const TOKEN: &str = "x-gitamp-secret";

/// What is read of a delivery; everything else in it is skipped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    event_type: String,
    /// Left out, or emptied, by subscriptions that send few details.
    resource: Option<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(default)]
    ref_updates: Vec<Update>,
    repository: Option<Repository>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Update {
    name: String,
    new_object_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Repository {
    remote_url: Option<String>,
    ssh_url: Option<String>,
    web_url: Option<String>,
}

/// Verifies and reads one delivery.
pub(super) fn read(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    watched: &Watched,
) -> Result<Verdict, Refusal> {
    if headers.contains_key(TOKEN) {
        signature::verify_token(headers, TOKEN, secrets)?;
    } else {
        signature::verify_password(headers, secrets)?;
    }
    let delivery: Delivery = json(headers, body)?;
    if delivery.event_type != "git.push" {
        return Ok(other_event(&delivery.event_type));
    }
    let Some(resource) = delivery.resource else { return Ok(Verdict::Ring(Push::somewhere())) };
    let repository = resource.repository.map(named);
    if resource.ref_updates.is_empty() {
        // Few details: whoever made the subscription chose the repository and the branch.
        let foreign = repository.filter(|named| !named.addresses.is_empty()).and_then(|named| watched.foreign(&named));
        return Ok(foreign.unwrap_or_else(|| Verdict::Ring(Push::somewhere())));
    }
    let changes: Vec<Change> = resource
        .ref_updates
        .into_iter()
        .map(|update| Change { reference: update.name, head: update.new_object_id })
        .collect();
    Ok(watched.judge(&repository.unwrap_or_default(), &changes))
}

fn named(repository: Repository) -> Named {
    let Repository { remote_url, ssh_url, web_url } = repository;
    let others = [&remote_url, &web_url].into_iter().flatten().flat_map(|url| other_forms(url)).map(Some);
    let others: Vec<Option<String>> = others.collect();
    Named::new([remote_url, ssh_url, web_url].into_iter().chain(others), [])
}

/// The forms that one repository has: `https://dev.azure.com/<organisation>/<project>/_git/<name>`, the older
/// `https://<organisation>.visualstudio.com/<project>/_git/<name>`, and `git@ssh.dev.azure.com:v3/<organisation>/<project>/<name>`. The
/// project is left out where it has the repository's name. Deliveries carry only the first or second.
fn other_forms(url: &str) -> Vec<String> {
    let Ok(url) = Url::parse(url) else { return Vec::new() };
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let mut parts: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
    let organisation = match host.strip_suffix(".visualstudio.com") {
        Some(organisation) => {
            // Older still, the collection stands before the project.
            parts.retain(|part| !part.eq_ignore_ascii_case("DefaultCollection"));
            organisation.to_owned()
        }
        None if host == "dev.azure.com" && !parts.is_empty() => parts.remove(0).to_owned(),
        None => return Vec::new(),
    };
    let (project, name) = match parts[..] {
        [project, "_git", name] => (project, name),
        ["_git", name] => (name, name),
        _ => return Vec::new(),
    };
    let mut forms = vec![
        format!("https://dev.azure.com/{organisation}/{project}/_git/{name}"),
        format!("https://{organisation}.visualstudio.com/{project}/_git/{name}"),
        format!("ssh://git@ssh.dev.azure.com/v3/{organisation}/{project}/{name}"),
        format!("ssh://git@vs-ssh.visualstudio.com/v3/{organisation}/{project}/{name}"),
    ];
    if project.eq_ignore_ascii_case(name) {
        forms.push(format!("https://dev.azure.com/{organisation}/_git/{name}"));
        forms.push(format!("https://{organisation}.visualstudio.com/_git/{name}"));
    }
    forms
}
