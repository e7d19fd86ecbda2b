//! HMAC-SHA-256 signatures over the raw body of a delivery, compared in constant time.

use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::settings::Secret;

/// Why a delivery is not believed. The answer to all of them is the same; the difference is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No header, or several.
    #[error("exactly one signature header is expected")]
    Missing,
    /// Not `sha256=` and 64 hexadecimal digits. Forges send an empty one when no secret is set on their side.
    #[error("the signature is not `sha256=` with 64 hexadecimal digits behind it (is a secret set on the other side?)")]
    Malformed,
    /// By none of our secrets.
    #[error("the signature does not fit: the secrets differ, or something changed the body on its way")]
    Wrong,
}

/// Checks `header: sha256=<hex>` against the body, by any of the secrets.
pub(super) fn verify(headers: &HeaderMap, header: &str, body: &[u8], secrets: &[Secret]) -> Result<(), SignatureError> {
    let mut values = headers.get_all(header).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(SignatureError::Missing) };
    let digits =
        value.to_str().ok().and_then(|text| text.trim().strip_prefix("sha256=")).ok_or(SignatureError::Malformed)?;
    let mut claimed = [0; 32];
    hex::decode_to_slice(digits, &mut claimed).map_err(|_| SignatureError::Malformed)?;
    // Every secret is tried, so that the time says nothing about which one fits.
    let mut fits = false;
    for secret in secrets {
        fits |= by_secret(secret, body).is_some_and(|mac| mac.verify_slice(&claimed).is_ok());
    }
    if fits { Ok(()) } else { Err(SignatureError::Wrong) }
}

/// The MAC of the body; an empty secret has none, so that nothing is ever signed by it.
fn by_secret(secret: &Secret, body: &[u8]) -> Option<Hmac<Sha256>> {
    let key = Some(secret.expose().as_bytes()).filter(|key| !key.is_empty())?;
    Hmac::<Sha256>::new_from_slice(key).ok().map(|mac| mac.chain_update(body))
}

/// The header value that signs `body`, as forges send it: for `gitamp` talking to itself and for tests.
pub fn sign(secret: &Secret, body: &[u8]) -> Option<String> {
    by_secret(secret, body).map(|mac| format!("sha256={}", hex::encode(mac.finalize().into_bytes())))
}
