//! GitHub's deliveries, and those of Gitea, Forgejo and Gogs, which speak GitHub's dialect as well.
//!
//! As GitHub's documentation has them: "Webhook events and payloads" (`push`, `ping`) and "Validating webhook deliveries".

use axum::http::HeaderMap;
use serde::Deserialize;

use super::{Change, Named, Refusal, Verdict, Watched, json, only, other_event, signature};
use crate::settings::Secret;

/// Where the signature is. `X-Hub-Signature` (SHA-1) is not looked at.
pub(super) const SIGNATURE: &str = "x-hub-signature-256";

/// What is read of a push; everything else in it is skipped.
#[derive(Deserialize)]
struct Pushed {
    #[serde(rename = "ref")]
    reference: String,
    after: Option<String>,
    repository: Repository,
}

#[derive(Deserialize)]
struct Repository {
    full_name: Option<String>,
    clone_url: Option<String>,
    ssh_url: Option<String>,
    html_url: Option<String>,
}

/// Verifies and reads one delivery of GitHub.
///
/// Gitea, Forgejo and Gogs are taken as well: they sign the same way in the same header and their pushes have the same shape. With an
/// empty secret on their side they send an empty signature, which is refused.
pub(super) fn read(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    watched: &Watched,
) -> Result<Verdict, Refusal> {
    signature::verify(headers, SIGNATURE, "sha256=", body, secrets)?;
    if !super::is_json(headers) {
        return Err(Refusal::ContentType);
    }
    let event = only(headers, "x-github-event").ok_or(Refusal::Header("X-GitHub-Event"))?;
    match event {
        "ping" => Ok(Verdict::Ping),
        "push" => push(headers, body, watched),
        other => Ok(other_event(other)),
    }
}

/// Reads the body of a push.
pub(super) fn push(headers: &HeaderMap, body: &[u8], watched: &Watched) -> Result<Verdict, Refusal> {
    let Pushed { reference, after, repository } = json(headers, body)?;
    let Repository { full_name, clone_url, ssh_url, html_url } = repository;
    let repository = Named::new([clone_url, ssh_url, html_url], [full_name]);
    Ok(watched.judge(&repository, &[Change { reference, head: after }]))
}
