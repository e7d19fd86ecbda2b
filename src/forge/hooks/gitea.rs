//! Deliveries of Gitea, Forgejo and Gogs in their own dialect: a push like GitHub's, a signature without a prefix.
//!
//! As Gitea's documentation has them: "Webhooks". They send GitHub's headers too, and with no secret an empty signature.

use axum::http::HeaderMap;

use super::{Refusal, Verdict, Watched, github, only, other_event, signature};
use crate::settings::Secret;

/// Where the signature is, as bare hexadecimal digits. The first that is there decides: a good one elsewhere does not make up for it.
const SIGNATURES: [&str; 3] = ["x-forgejo-signature", "x-gitea-signature", "x-gogs-signature"];

const EVENTS: [&str; 3] = ["x-forgejo-event", "x-gitea-event", "x-gogs-event"];

/// Verifies and reads one delivery.
pub(super) fn read(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    watched: &Watched,
) -> Result<Verdict, Refusal> {
    match SIGNATURES.into_iter().find(|header| headers.contains_key(*header)) {
        Some(header) => signature::verify(headers, header, "", body, secrets)?,
        None => signature::verify(headers, github::SIGNATURE, "sha256=", body, secrets)?,
    }
    if !super::is_json(headers) {
        return Err(Refusal::ContentType);
    }
    let event =
        EVENTS.into_iter().find(|header| headers.contains_key(*header)).and_then(|header| only(headers, header));
    match event.ok_or(Refusal::Header("X-Gitea-Event"))? {
        "push" => github::push(headers, body, watched),
        other => Ok(other_event(other)),
    }
}
