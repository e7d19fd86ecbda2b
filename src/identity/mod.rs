//! Who somebody proved to be, whatever they say of themselves: client certificates, tokens and JWTs, and the labels that they give.
//!
//! Everything is judged from bytes and the time. Whether a certificate was issued by whom we trust is judged by the TLS handshake; here its
//! names become labels.

pub mod certificate;
pub mod jwt;
pub mod roles;
pub mod tokens;

use std::collections::BTreeMap;
use std::fmt;

use crate::labels::{Labels, is_deceptive};
use crate::time::Timestamp;

/// Longest value of a label that a credential gives, in bytes. What is longer is left out, because a cut name is another name.
pub const LONGEST_VALUE: usize = 1024;

/// Most labels that one credential gives.
pub const MOST_LABELS: usize = 64;

/// The beginnings of labels that come from credentials alone: whoever says such a thing of itself is not believed.
pub const RESERVED: [&str; 3] = ["tls.", "token.", "jwt."];

/// True for a label that only a credential gives.
pub fn is_reserved(key: &str) -> bool {
    RESERVED.iter().any(|beginning| key.starts_with(beginning))
}

/// What a bearer token proved.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The labels that it gives, all of them proven.
    pub labels: Labels,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
    /// What it rests on; when that goes, it does not count any more.
    pub source: Source,
    /// Tells holders apart: the hash of a token, or that of the issuer and subject of a JWT, which is renewed every hour.
    pub holder: [u8; 32],
}

/// What an identity rests on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A token with this SHA-256.
    Token([u8; 32]),
    /// A key of an issuer with these rules; their digest.
    Issuer([u8; 32]),
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.labels)
    }
}

/// Why a credential proves nothing. Nothing of the credential is repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nothing was shown.
    #[error(
        "nothing was shown: send a token (`Authorization: Bearer ...`), or show a certificate where agents are known by those"
    )]
    Nothing,
    /// Nobody has this token, or it was revoked.
    #[error("the token is not known")]
    Unknown,
    /// It ended.
    #[error("the token ended {0}")]
    Expired(Timestamp),
    /// The certificate of the connection ended.
    #[error("the certificate ended {0}")]
    Ended(Timestamp),
    /// The certificate of the connection was revoked, or its authority counts no more.
    #[error("the certificate does not count any more")]
    Revoked,
    /// It does not hold yet.
    #[error("the token does not hold before {0}")]
    NotYet(Timestamp),
    /// It is no JWT that can be read.
    #[error("the token cannot be read: {0}")]
    Malformed(&'static str),
    /// Its issuer is none of ours.
    #[error("the token's issuer is not trusted here")]
    Issuer,
    /// It was made for somebody else.
    #[error("the token was made for another audience")]
    Audience,
    /// It is signed with an algorithm that nobody here verifies.
    #[error("the token is signed in a way that is not understood here: RS256, ES256 and EdDSA are")]
    Algorithm,
    /// It names a key that the file of its issuer does not have.
    #[error(
        "the token is signed with a key that the file of its issuer's keys does not hold: if keys were replaced, fetch them again"
    )]
    Key,
    /// No key of the issuer made this signature.
    #[error("the token's signature is not of a key of its issuer")]
    Signature,
    /// It is good, and gives its holder, who is called so, no role.
    #[error("the token is good, and no rule of its issuer gives `{0}` a role here")]
    Role(String),
    /// It lets agents in.
    #[error("the token lets agents in, and is no operator's: each needs files, or audiences, of its own")]
    Agent,
}

/// What a reader says is wrong with a file, without what stands in the file: somebody may have put a token itself there. Names of fields stay.
fn discreet(error: &str) -> String {
    let is_name = |text: &str| {
        let most = if text.chars().all(|c| c.is_ascii_alphabetic()) { 20 } else { 8 };
        text.len() <= most && text.chars().all(|c| c.is_ascii_alphanumeric())
    };
    let mut said = String::new();
    let mut rest = error;
    while let Some(begin) = rest.find(['"', '`']) {
        let (before, quoted) = rest.split_at(begin);
        let mark = if quoted.starts_with('"') { '"' } else { '`' };
        // What is quoted may hold the mark itself: the last one before what the reader says of its own.
        let inside = &quoted[1..];
        let end = inside.find(&format!("{mark}, expected")).or_else(|| inside.find(mark)).unwrap_or(inside.len());
        let text = &inside[..end];
        said.push_str(before);
        said.push(mark);
        said.push_str(if mark == '`' && is_name(text) { text } else { "***" });
        said.push(mark);
        rest = inside.get(end + 1..).unwrap_or_default();
    }
    said + rest
}

/// `text`, when it may be the value of a label: not empty, without control characters, and not too long. Letters that are not seen, which names in
/// some languages are written with, stay what they are, because a changed name is another name; [`Labels`] shows them as escapes.
fn presentable(text: &str) -> Option<&str> {
    let fine = !text.is_empty() && text.len() <= LONGEST_VALUE && !text.chars().any(char::is_control);
    fine.then_some(text)
}

/// `text`, when all of it can be seen as well: what our own operators write has no reason to look like something else.
fn visible(text: &str) -> Option<&str> {
    presentable(text).filter(|text| !text.contains(is_deceptive))
}

/// Checks labels that a person wrote to be given by credentials.
fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), String> {
    if labels.len() > MOST_LABELS {
        return Err(format!("{} labels, and at most {MOST_LABELS} are given by one credential", labels.len()));
    }
    for (key, value) in labels {
        check_key(key)?;
        if visible(value).is_none() {
            return Err(format!(
                "the value of the label `{key}` is empty, longer than {LONGEST_VALUE} bytes, or holds letters that cannot be seen"
            ));
        }
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), String> {
    if is_reserved(key) {
        return Err(format!("the label `{key}` is given by gitamp itself: choose another name"));
    }
    let fine = visible(key).is_some_and(|key| key.len() <= 256 && !key.contains(char::is_whitespace));
    let why = "a label's name is empty, too long, or holds white space or letters that cannot be seen";
    if fine { Ok(()) } else { Err(why.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_file_is_not_repeated() {
        for (error, said) in [
            (
                "invalid type: string \"gitamp_x\", expected struct TokenFile",
                "invalid type: string \"***\", expected struct TokenFile",
            ),
            ("invalid type: string \"a\\\"gitamp_x\\\"b\", expected a", "invalid type: string \"***\", expected a"),
            (
                "unknown field `gitamp_x1`, expected one of `name`, `sha256` at line 1",
                "unknown field `***`, expected one of `name`, `sha256` at line 1",
            ),
            ("unknown field `jwksfile`, expected `issuers`", "unknown field `jwksfile`, expected `issuers`"),
            ("unknown field `a`b`, expected `issuers`", "unknown field `***`, expected `issuers`"),
            ("missing field `jwksFile` at line 1 column 10", "missing field `jwksFile` at line 1 column 10"),
            ("an open \"quote", "an open \"***\""),
        ] {
            assert_eq!(discreet(error), said);
        }
    }
}
