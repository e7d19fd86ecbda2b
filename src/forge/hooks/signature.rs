//! The ways in which a delivery proves that its sender knows the secret, all compared in constant time.
//!
//! An HMAC over the raw body where the forge can; the secret itself in a header where it cannot, which is worth as much as the TLS
//! around it.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::only;
use crate::settings::Secret;
use crate::time::Timestamp;

/// Before the key of a Standard-Webhooks secret, which is the rest in base64.
const STANDARD_KEY: &str = "whsec_";

/// Signatures that are looked at in one header: a sender that rotates its key sends two.
const MOST_SIGNATURES: usize = 8;

/// Why a delivery is not believed. The answer to all of them is the same; the difference is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No header, or several.
    #[error("it is not signed, or more than once (is a secret set on the other side?)")]
    Missing,
    /// Not what such a signature looks like. Forges send an empty one when no secret is set on their side.
    #[error("its signature does not have the form that this sender uses (is a secret set on the other side?)")]
    Malformed,
    /// By none of our secrets.
    #[error("the signature does not fit: the secrets differ, or something changed the body on its way")]
    Wrong,
}

fn fits(is_good: bool) -> Result<(), SignatureError> {
    if is_good { Ok(()) } else { Err(SignatureError::Wrong) }
}

/// Checks `header: <prefix><hex>`, the HMAC-SHA-256 of the body by any of the secrets.
pub(super) fn verify(
    headers: &HeaderMap,
    header: &str,
    prefix: &str,
    body: &[u8],
    secrets: &[Secret],
) -> Result<(), SignatureError> {
    if !headers.contains_key(header) {
        return Err(SignatureError::Missing);
    }
    let value = only(headers, header).ok_or(SignatureError::Missing)?;
    let digits = value.trim().strip_prefix(prefix).ok_or(SignatureError::Malformed)?;
    let mut claimed = [0; 32];
    hex::decode_to_slice(digits, &mut claimed).map_err(|_| SignatureError::Malformed)?;
    // Every secret is tried, so that the time says nothing about which one fits.
    let mut is_good = false;
    for secret in secrets {
        is_good |= by_key(secret.expose().as_bytes(), &[body]).is_some_and(|mac| mac.verify_slice(&claimed).is_ok());
    }
    fits(is_good)
}

/// Checks a signature in the form of Standard Webhooks by any of the secrets that are keys of that form. `Ok(None)`: it carries none,
/// or there is no such key; otherwise when it was made.
pub(super) fn verify_standard(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
) -> Result<Option<Timestamp>, SignatureError> {
    let keys: Vec<Vec<u8>> = secrets.iter().filter_map(standard_key).collect();
    if keys.is_empty() || !headers.contains_key("webhook-signature") {
        return Ok(None);
    }
    let header = |name: &str| only(headers, name).ok_or(SignatureError::Missing);
    let (id, time, signatures) = (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    let seconds: u64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    let decoded = |one: &str| STANDARD.decode(one.strip_prefix("v1,")?).ok();
    let claimed: Vec<Vec<u8>> = signatures.split(' ').take(MOST_SIGNATURES).filter_map(decoded).collect();
    if claimed.is_empty() {
        return Err(SignatureError::Malformed);
    }
    let mut is_good = false;
    for key in &keys {
        let Some(mac) = by_key(key, &[id.as_bytes(), b".", time.as_bytes(), b".", body]) else { continue };
        let wanted = mac.finalize().into_bytes();
        for one in &claimed {
            is_good |= bool::from(wanted.ct_eq(one));
        }
    }
    fits(is_good).map(|()| Some(Timestamp::from_millis(seconds.saturating_mul(1000))))
}

/// The key in a secret of the form `whsec_<base64>`.
fn standard_key(secret: &Secret) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.expose().strip_prefix(STANDARD_KEY)?).ok()?;
    (!key.is_empty()).then_some(key)
}

/// Checks a header that holds one of the secrets itself.
pub(super) fn verify_token(headers: &HeaderMap, header: &str, secrets: &[Secret]) -> Result<(), SignatureError> {
    let token = only(headers, header).ok_or(SignatureError::Missing)?;
    if token.is_empty() {
        return Err(SignatureError::Malformed);
    }
    fits(is_one_of(token.as_bytes(), secrets))
}

/// Checks that the password of basic authentication is one of the secrets; the user's name is not looked at.
pub(super) fn verify_password(headers: &HeaderMap, secrets: &[Secret]) -> Result<(), SignatureError> {
    let value = only(headers, AUTHORIZATION.as_str()).ok_or(SignatureError::Missing)?;
    let (scheme, rest) = value.trim().split_once(' ').ok_or(SignatureError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(SignatureError::Malformed);
    }
    let pair = STANDARD.decode(rest.trim()).map_err(|_| SignatureError::Malformed)?;
    let colon = pair.iter().position(|byte| *byte == b':').ok_or(SignatureError::Malformed)?;
    let password = pair.get(colon + 1..).filter(|password| !password.is_empty()).ok_or(SignatureError::Malformed)?;
    fits(is_one_of(password, secrets))
}

/// Compares digests, so that the time tells neither how much of a secret fits nor how long it is.
fn is_one_of(claimed: &[u8], secrets: &[Secret]) -> bool {
    let claimed = Sha256::digest(claimed);
    let mut is_good = false;
    for secret in secrets.iter().filter(|secret| !secret.expose().is_empty()) {
        is_good |= bool::from(Sha256::digest(secret.expose().as_bytes()).ct_eq(&claimed));
    }
    is_good
}

/// The MAC of the parts; an empty key has none, so that nothing is ever signed by it.
fn by_key(key: &[u8], parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
    let key = Some(key).filter(|key| !key.is_empty())?;
    let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    Some(parts.iter().fold(mac, |mac, part| mac.chain_update(part)))
}

/// The header value that signs `body`, as most forges send it: for `gitamp` talking to itself and for tests.
pub fn sign(secret: &Secret, body: &[u8]) -> Option<String> {
    by_key(secret.expose().as_bytes(), &[body])
        .map(|mac| format!("sha256={}", hex::encode(mac.finalize().into_bytes())))
}

/// The `webhook-signature` of a delivery under a secret of the form `whsec_<base64>`: for tests.
#[cfg(test)]
pub(super) fn sign_standard(secret: &Secret, id: &str, time: &str, body: &[u8]) -> Option<String> {
    let mac = by_key(&standard_key(secret)?, &[id.as_bytes(), b".", time.as_bytes(), b".", body])?;
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}
