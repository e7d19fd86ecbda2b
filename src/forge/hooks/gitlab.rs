//! GitLab's deliveries: hooks of projects and groups, and system hooks.
//!
//! As GitLab's documentation has them: "Webhooks" (secret token, signing token) and "Webhook events" (push, tag push), "System hooks".
//! The signing token follows Standard Webhooks: HMAC-SHA-256 over `<webhook-id>.<webhook-timestamp>.<body>`.

use axum::http::HeaderMap;
use serde::Deserialize;

use super::{Change, Named, Refusal, Verdict, Watched, json, only, other_event, signature};
use crate::settings::Secret;
use crate::time::Timestamp;

/// What is read of a push; everything else in it is skipped.
#[derive(Deserialize)]
struct Pushed {
    /// Says what a system hook is about; those of projects say it in the header.
    event_name: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    after: Option<String>,
    /// Of `repository_update`: all refs of one push.
    #[serde(default)]
    changes: Vec<Moved>,
    project: Option<Project>,
}

#[derive(Deserialize)]
struct Moved {
    #[serde(rename = "ref")]
    reference: String,
    after: Option<String>,
}

#[derive(Deserialize)]
struct Project {
    path_with_namespace: Option<String>,
    git_http_url: Option<String>,
    git_ssh_url: Option<String>,
    web_url: Option<String>,
}

/// Verifies and reads one delivery: by its signature where it carries one and one of `secrets` is a signing token, else by the secret
/// token. Everything authentic is acknowledged, because four answers of 4xx switch the hook off for good; a signature whose time is far
/// from ours is authentic too, and ignored.
pub(super) fn read(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    watched: &Watched,
    now: Timestamp,
) -> Result<Verdict, Refusal> {
    let by_token = || signature::verify_token(headers, "x-gitlab-token", secrets);
    if let Some(ignored) = super::verify_dated(headers, body, secrets, now, by_token)? {
        return Ok(ignored);
    }
    if !super::is_json(headers) {
        return Err(Refusal::ContentType);
    }
    match only(headers, "x-gitlab-event").ok_or(Refusal::Header("X-Gitlab-Event"))? {
        "Push Hook" | "Tag Push Hook" => push(json(headers, body)?, watched),
        "System Hook" => {
            let pushed: Pushed = json(headers, body)?;
            match pushed.event_name.as_deref() {
                Some("push" | "tag_push" | "repository_update") => push(pushed, watched),
                Some(other) => Ok(other_event(other)),
                None => Ok(other_event("without a name")),
            }
        }
        other => Ok(other_event(other)),
    }
}

fn push(pushed: Pushed, watched: &Watched) -> Result<Verdict, Refusal> {
    let project = pushed.project.ok_or_else(|| Refusal::Body("there is no `project`".to_owned()))?;
    let Project { path_with_namespace, git_http_url, git_ssh_url, web_url } = project;
    let repository = Named::new([git_http_url, git_ssh_url, web_url], [path_with_namespace]);
    let mut changes: Vec<Change> =
        pushed.changes.into_iter().map(|moved| Change { reference: moved.reference, head: moved.after }).collect();
    changes.extend(pushed.reference.map(|reference| Change { reference, head: pushed.after }));
    if changes.is_empty() {
        return Err(Refusal::Body("there is neither `ref` nor `changes`".to_owned()));
    }
    Ok(watched.judge(&repository, &changes))
}
