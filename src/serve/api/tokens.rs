//! Operators' tokens: a file that holds their hashes, names, roles, addresses and ends, and what a presented token proves.
//!
//! The file has the form of any file of hashed tokens: a token is 256 random bits, so that its plain SHA-256 cannot be turned back, and
//! its labels say what it gives, which here is `role` and `email`.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::time::Timestamp;
use crate::view::operator::Role;

/// Most tokens in a file: operators are people and pipelines.
const MOST_TOKENS: usize = 10_000;

/// Characters of a name, and of an address.
const LONGEST: usize = 254;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    tokens: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    /// For people who read the file.
    #[serde(default, rename = "created")]
    _created: Option<Timestamp>,
    #[serde(default)]
    expires: Option<Timestamp>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) email: Option<String>,
}

/// Why a token proves nothing. Nothing of the token is repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// None was shown, or no bearer token.
    #[error("a token is needed: `Authorization: Bearer ...`")]
    Missing,
    /// Nobody has it, or it was revoked.
    #[error("the token is not known")]
    Unknown,
    /// It ended.
    #[error("the token ended {0}")]
    Expired(Timestamp),
}

/// A token as it is known.
#[derive(Debug)]
struct Known {
    hash: [u8; 32],
    expires: Option<Timestamp>,
    holder: Holder,
}

/// The tokens of a file, by the beginnings of their hashes.
#[derive(Debug, Default)]
pub(super) struct Tokens(BTreeMap<[u8; 8], Vec<Known>>);

impl Tokens {
    /// Reads the file; an empty one has no tokens.
    ///
    /// # Errors
    /// When it is malformed; the reason names the token.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: Option<File> = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let entries = file.unwrap_or_default().tokens;
        if entries.len() > MOST_TOKENS {
            return Err(format!("{} tokens, and at most {MOST_TOKENS} fit", entries.len()));
        }
        let mut tokens = Self::default();
        let mut holders: BTreeMap<String, Holder> = BTreeMap::new();
        for (index, entry) in entries.into_iter().enumerate() {
            if !is_presentable(&entry.name) {
                return Err(format!("the name of token {} is empty, too long or not printable", index + 1));
            }
            let wrong = |why: String| format!("the token `{}`: {why}", entry.name);
            let mut hash = [0; 32];
            hex::decode_to_slice(&entry.sha256, &mut hash)
                .map_err(|_| wrong("`sha256` is not 64 hexadecimal digits".to_owned()))?;
            if tokens.find(&hash).is_some() {
                return Err(wrong("stands there twice".to_owned()));
            }
            let holder = holder(&entry.name, &entry.labels).map_err(wrong)?;
            // Whoever replaces a token by another must stay who they are: the name is what stands in records.
            if holders.entry(entry.name.clone()).or_insert_with(|| holder.clone()) != &holder {
                return Err(wrong("another one of this name has another role or e-mail address".to_owned()));
            }
            tokens.0.entry(beginning(&hash)).or_default().push(Known { hash, expires: entry.expires, holder });
        }
        Ok(tokens)
    }

    /// What leads to a token is the beginning of a hash, which nobody can choose; the rest is compared in constant time.
    fn find(&self, hash: &[u8; 32]) -> Option<&Known> {
        self.0.get(&beginning(hash))?.iter().find(|known| bool::from(known.hash.ct_eq(hash)))
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// When it is not known, or ended.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<&Holder, Denied> {
        let known = self.find(&Sha256::digest(token).into()).ok_or(Denied::Unknown)?;
        match known.expires {
            Some(end) if end <= now => Err(Denied::Expired(end)),
            Some(_) | None => Ok(&known.holder),
        }
    }
}

fn beginning(hash: &[u8; 32]) -> [u8; 8] {
    let mut beginning = [0; 8];
    beginning.copy_from_slice(&hash[..8]);
    beginning
}

fn is_presentable(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= LONGEST && !text.chars().any(char::is_control)
}

/// Takes the labels of a token for what they give here.
fn holder(name: &str, labels: &BTreeMap<String, String>) -> Result<Holder, String> {
    if let Some(other) = labels.keys().find(|key| !["role", "email"].contains(&key.as_str())) {
        return Err(format!("the label `{other}` means nothing for operators: `role` and `email` do"));
    }
    let role = match labels.get("role").map(String::as_str) {
        Some("view") => Role::View,
        Some("operate") => Role::Operate,
        Some("approve") => Role::Approve,
        Some(_) | None => return Err("its label `role` must be view, operate or approve".to_owned()),
    };
    let email = labels.get("email").cloned();
    if email.as_deref().is_some_and(|mail| !is_address(mail)) {
        return Err("its label `email` is no address".to_owned());
    }
    Ok(Holder { name: name.to_owned(), role, email })
}

fn is_address(text: &str) -> bool {
    let is_odd = |c: char| c.is_whitespace() || "<>".contains(c);
    is_presentable(text)
        && !text.contains(is_odd)
        && text.split_once('@').is_some_and(|(local, host)| !local.is_empty() && !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(token: &str) -> String {
        hex::encode(Sha256::digest(token))
    }

    fn parse(entries: &[String]) -> Result<Tokens, String> {
        Tokens::parse(&format!("tokens: [{}]", entries.join(", ")))
    }

    #[test]
    fn a_token_says_who_somebody_is_until_it_ends() {
        let at = Timestamp::from_millis;
        let tokens = parse(&[
            format!("{{name: ann, sha256: {}, labels: {{role: approve, email: ann@example.org}}}}", hash("one")),
            format!("{{name: ann, sha256: {}, created: 2026-01-01T00:00:00Z, expires: 1970-01-01T00:00:10Z, labels: {{role: approve, email: ann@example.org}}}}", hash("two")),
            format!("{{name: dashboard, sha256: {}, labels: {{role: view}}}}", hash("three").to_uppercase()),
        ])
        .expect("a file");
        let ann = Holder { name: "ann".to_owned(), role: Role::Approve, email: Some("ann@example.org".to_owned()) };
        assert_eq!(tokens.verify("one", at(99_999_999)), Ok(&ann));
        assert_eq!(tokens.verify("two", at(9_999)), Ok(&ann));
        assert_eq!(tokens.verify("two", at(10_000)), Err(Denied::Expired(at(10_000))));
        assert_eq!(tokens.verify("three", at(0)).map(|holder| holder.role), Ok(Role::View));
        for wrong in ["", "four", "One", &hash("one")] {
            assert_eq!(tokens.verify(wrong, at(0)), Err(Denied::Unknown), "{wrong}");
        }
        assert!(Tokens::parse("# nothing yet\n").is_ok_and(|tokens| tokens.0.is_empty()));
    }

    #[test]
    fn files_that_are_wrong_say_where() {
        let one = |name: &str, labels: &str| format!("{{name: {name}, sha256: {}, labels: {{{labels}}}}}", hash("one"));
        let other = |labels: &str| format!("{{name: ann, sha256: {}, labels: {{{labels}}}}}", hash("two"));
        for (entries, words) in [
            (vec!["{name: ann, sha256: abc, labels: {role: view}}".to_owned()], "`ann`: `sha256` is not 64"),
            (vec![one("''", "role: view")], "the name of token 1"),
            (vec![one("\"a\\tb\"", "role: view")], "the name of token 1"),
            (vec![one("ann", "")], "`ann`: its label `role` must be view, operate or approve"),
            (vec![one("ann", "role: admin")], "must be view, operate or approve"),
            (vec![one("ann", "role: view, env: prod")], "the label `env` means nothing"),
            (vec![one("ann", "role: view, email: ann")], "`email` is no address"),
            (vec![one("ann", "role: view, email: 'Ann <a@b>'")], "`email` is no address"),
            (vec![one("ann", "role: view"), one("bob", "role: view")], "`bob`: stands there twice"),
            (vec![one("ann", "role: view"), other("role: approve")], "another role or e-mail"),
            (vec!["{name: ann, token: x}".to_owned()], "unknown field"),
        ] {
            let error = parse(&entries).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic(text in ".{0,200}", token in ".{0,80}") {
            let tokens = Tokens::parse(&text).unwrap_or_default();
            prop_assert_eq!(tokens.verify(&token, Timestamp::from_millis(0)), Err(Denied::Unknown));
        }
    }
}
