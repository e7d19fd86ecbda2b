//! Deliveries of anything that can compute an HMAC: a script, a CI job, a forge without its own endpoint here.

use axum::http::HeaderMap;
use serde::Deserialize;

use super::{Change, Named, Push, Refusal, Verdict, Watched, json, signature};
use crate::settings::Secret;
use crate::time::Timestamp;

/// What may be said; nothing has to be. Other keys are skipped.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    #[serde(rename = "ref")]
    reference: Option<String>,
    after: Option<String>,
    repository: Option<String>,
}

/// Verifies and reads one delivery: `X-Signature: sha256=<hex>` over the raw body, or the headers of Standard Webhooks. The body is empty
/// or a JSON object with, optionally, `ref` (a full ref name, or the short one of what is followed), `after` (its new head) and
/// `repository` (an address or a full name). What is not said counts as ours.
pub(super) fn read(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    watched: &Watched,
    now: Timestamp,
) -> Result<Verdict, Refusal> {
    let by_itself = || signature::verify(headers, "x-signature", "sha256=", body, secrets);
    if let Some(ignored) = super::verify_dated(headers, body, secrets, now, by_itself)? {
        return Ok(ignored);
    }
    if body.is_empty() {
        return Ok(Verdict::Ring(Push::somewhere()));
    }
    let said: Said = json(headers, body)?;
    let repository = said.repository.filter(|repository| !repository.is_empty());
    // What is not said counts as ours.
    let anywhere = Watched { repository: None, ..watched.clone() };
    let watched = if repository.is_some() { watched } else { &anywhere };
    let repository = Named::new([repository.clone()], [repository]);
    let Some(reference) = said.reference else {
        return Ok(watched.foreign(&repository).unwrap_or_else(|| Verdict::Ring(Push::somewhere())));
    };
    let reference = if reference.starts_with("refs/") { reference } else { watched.full_name(&reference) };
    Ok(watched.judge(&repository, &[Change { reference, head: said.after }]))
}
