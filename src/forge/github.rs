//! GitHub's deliveries, and those of Gitea, Forgejo and Gogs, which speak GitHub's dialect when they are asked to.

use axum::http::HeaderMap;
use serde::Deserialize;

use super::{Refusal, Verdict, Watched, is_json, signature};
use crate::settings::Secret;

/// Where the signature is. `X-Hub-Signature` (SHA-1) is not looked at.
const SIGNATURE: &str = "x-hub-signature-256";
const EVENT: &str = "x-github-event";

/// What is read of a push; everything else in it is skipped.
#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    repository: Repository,
}

#[derive(Deserialize)]
struct Repository {
    full_name: Option<String>,
    clone_url: Option<String>,
    ssh_url: Option<String>,
    html_url: Option<String>,
}

/// Verifies and reads one delivery. Pure; the caller has limited the body.
///
/// Gitea, Forgejo and Gogs are taken as well: they sign the same way in the same header and their pushes have the same shape. With an
/// empty secret on their side they send an empty signature, which is refused.
///
/// # Errors
/// When it is not signed by one of `secrets`, or is signed and makes no sense.
pub fn read(headers: &HeaderMap, body: &[u8], secrets: &[Secret], watched: &Watched) -> Result<Verdict, Refusal> {
    signature::verify(headers, SIGNATURE, body, secrets)?;
    if !is_json(headers) {
        return Err(Refusal::ContentType);
    }
    let event = headers.get(EVENT).and_then(|value| value.to_str().ok()).ok_or(Refusal::Header("X-GitHub-Event"))?;
    match event {
        "ping" => Ok(Verdict::Ping),
        "push" => {
            let push: Push = serde_json::from_slice(body).map_err(|error| Refusal::Body(error.to_string()))?;
            let repository = &push.repository;
            let addresses: Vec<&str> = [&repository.clone_url, &repository.ssh_url, &repository.html_url]
                .into_iter()
                .filter_map(Option::as_deref)
                .collect();
            Ok(watched.judge(&push.reference, &addresses, repository.full_name.as_deref()))
        }
        other => Ok(Verdict::Ignored(format!("the event {}; only pushes ring", super::shown(other)))),
    }
}
