//! Deliveries of anything that can compute an HMAC: a script, a CI job, a forge without its own endpoint here.

use axum::http::HeaderMap;
use serde::Deserialize;

use super::{Refusal, Verdict, Watched, is_json, signature};
use crate::settings::Secret;

/// Where the signature is.
const SIGNATURE: &str = "x-signature";

/// What may be said; nothing has to be. Other keys are skipped.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    #[serde(rename = "ref")]
    reference: Option<String>,
    repository: Option<String>,
}

/// Verifies and reads one delivery: `X-Signature: sha256=<hex>` over the raw body, which is empty or a JSON object with, optionally,
/// `ref` (a full ref name, or the short one of what is followed) and `repository` (an address or a full name). What is not said counts
/// as ours. Pure; the caller has limited the body.
///
/// # Errors
/// When it is not signed by one of `secrets`, or is signed and makes no sense.
pub fn read(headers: &HeaderMap, body: &[u8], secrets: &[Secret], watched: &Watched) -> Result<Verdict, Refusal> {
    signature::verify(headers, SIGNATURE, body, secrets)?;
    if body.is_empty() {
        return Ok(Verdict::Ring("the repository".to_owned()));
    }
    if !is_json(headers) {
        return Err(Refusal::ContentType);
    }
    let said: Said = serde_json::from_slice(body).map_err(|error| Refusal::Body(error.to_string()))?;
    let repository = said.repository.unwrap_or_default();
    // What is not said counts as ours.
    let anywhere = Watched { repository: None, ..watched.clone() };
    let watched = if repository.is_empty() { &anywhere } else { watched };
    Ok(match said.reference {
        Some(reference) if reference.starts_with("refs/") => {
            watched.judge(&reference, &[&repository], Some(&repository))
        }
        Some(short) => watched.judge(&watched.full_name(&short), &[&repository], Some(&repository)),
        None => watched
            .foreign(&[&repository], Some(&repository))
            .unwrap_or_else(|| Verdict::Ring("the repository".to_owned())),
    })
}
