//! Tokens of agents and operators: a file that holds their hashes, names, labels and ends, and what a presented token proves.
//!
//! A token is 256 random bits, so its plain SHA-256 cannot be turned back, and nothing slower is needed. The file holds no secret; what has
//! to be protected is who may write it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Denied, Identity, Source, check_labels, discreet, visible};
use crate::labels::Labels;
use crate::time::Timestamp;

/// What every token begins with, for people and for programs that search for leaked secrets.
pub const BEGINNING: &str = "gitamp_";

/// Most tokens in a file: one for each agent of a large fleet.
pub const MOST_TOKENS: usize = 100_000;

/// What stands on top of the file.
const HEADER: &str = "# Tokens by their SHA-256: no secret stands here, but whoever may write this file decides who may speak.\n\
     # `gitamp token new`, `list` and `revoke` edit it; a running gitamp takes changes up within seconds.\n";

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenFile {
    /// In the order in which they were made.
    pub tokens: Vec<Entry>,
}

/// One token, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Whose it is. Several may have one name while one replaces another; they have the same labels then.
    pub name: String,
    /// The SHA-256 of the token, in hexadecimal digits.
    pub sha256: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it ends; never by itself when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The labels that it gives, beside `token.name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Entry {
    /// What tells it from others of its name: the beginning of its hash.
    pub fn id(&self) -> &str {
        self.sha256.get(..12).unwrap_or(&self.sha256)
    }
}

/// A new token of 32 random bytes, and its hash for the file.
pub fn new_token(random: &[u8; 32]) -> (String, String) {
    let token = format!("{BEGINNING}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = hex::encode(hash(&token));
    (token, hash)
}

/// The hash by which a token is known.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl TokenFile {
    /// Reads the file; an empty one has no tokens.
    ///
    /// # Errors
    /// When it is malformed; the reason names the token.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: Option<Self> = serde_yaml::from_str(text).map_err(|error| discreet(&error.to_string()))?;
        let file = file.unwrap_or_default();
        file.check()?;
        Ok(file)
    }

    /// Checks that every entry is sound.
    ///
    /// # Errors
    /// With the reason, which names the token.
    pub fn check(&self) -> Result<(), String> {
        if self.tokens.len() > MOST_TOKENS {
            return Err(format!("{} tokens, and at most {MOST_TOKENS} fit", self.tokens.len()));
        }
        let mut labels = BTreeMap::new();
        let mut hashes = BTreeMap::new();
        for (at, entry) in self.tokens.iter().enumerate() {
            let name = visible(&entry.name).filter(|name| name.len() <= 256);
            let Some(name) = name else {
                let why = "is empty, too long, or holds letters that cannot be seen";
                return Err(format!("the name of token {} {why}", at + 1));
            };
            let wrong = |why: String| format!("the token `{name}`: {why}");
            decode(&entry.sha256).ok_or_else(|| wrong("`sha256` is not 64 hexadecimal digits".to_owned()))?;
            check_labels(&entry.labels).map_err(wrong)?;
            if hashes.insert(entry.sha256.to_ascii_lowercase(), ()).is_some() {
                return Err(wrong("stands there twice".to_owned()));
            }
            if *labels.entry(name).or_insert(&entry.labels) != &entry.labels {
                return Err(wrong(
                    "another one of this name has other labels, and whoever changes from one to the other must stay who they are"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// The text of the file.
    ///
    /// # Errors
    /// When it cannot be written, which no content causes.
    pub fn render(&self) -> Result<String, String> {
        let text = serde_yaml::to_string(self).map_err(|error| error.to_string())?;
        Ok(format!("{HEADER}{text}"))
    }
}

fn decode(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

/// The tokens of a file, to be looked up.
#[derive(Clone, Debug, Default)]
pub struct Tokens(BTreeMap<[u8; 8], Vec<Arc<Identity>>>);

impl Tokens {
    /// Takes a checked file.
    pub fn new(file: &TokenFile) -> Self {
        let mut by_beginning = BTreeMap::<_, Vec<_>>::new();
        for entry in &file.tokens {
            let Some(hash) = decode(&entry.sha256) else { continue };
            let own = [("token.name", entry.name.as_str())];
            let given = entry.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let identity = Identity {
                labels: Labels::proven(own.into_iter().chain(given)),
                expires: entry.expires,
                source: Source::Token(hash),
                holder: hash,
            };
            by_beginning.entry(beginning(&hash)).or_default().push(Arc::new(identity));
        }
        Self(by_beginning)
    }

    /// Whose token has this hash. What leads to it is the beginning of a hash, which nobody can choose; the rest is compared in constant
    /// time.
    pub fn find(&self, hash: &[u8; 32]) -> Option<&Arc<Identity>> {
        self.0.get(&beginning(hash))?.iter().find(|identity| match &identity.source {
            Source::Token(known) => bool::from(known.ct_eq(hash)),
            Source::Issuer(_) => false,
        })
    }

    /// What a token proves at this time.
    ///
    /// # Errors
    /// When it is not known, or ended.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Identity>, Denied> {
        let identity = self.find(&hash(token)).ok_or(Denied::Unknown)?;
        match identity.expires {
            Some(end) if end <= now => Err(Denied::Expired(end)),
            Some(_) | None => Ok(Arc::clone(identity)),
        }
    }
}

fn beginning(hash: &[u8; 32]) -> [u8; 8] {
    let mut beginning = [0; 8];
    beginning.copy_from_slice(&hash[..8]);
    beginning
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, random: u8, expires: Option<u64>, labels: &[(&str, &str)]) -> (String, Entry) {
        let (token, sha256) = new_token(&[random; 32]);
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let expires = expires.map(Timestamp::from_millis);
        (token, Entry { name: name.to_owned(), sha256, created: None, expires, labels })
    }

    #[test]
    fn a_token_gives_its_labels_until_it_ends() {
        let (eu, first) = entry("eu", 1, Some(10_000), &[("env", "prod"), ("region", "eu")]);
        let (again, second) = entry("eu", 2, None, &[("env", "prod"), ("region", "eu")]);
        let file = TokenFile { tokens: vec![first, second] };
        assert_eq!(file.check(), Ok(()), "two of one name while one replaces the other");
        let text = file.render().expect("text");
        assert!(!text.contains(&eu) && text.starts_with("# Tokens by their"), "{text}");
        assert_eq!(TokenFile::parse(&text), Ok(file.clone()), "{text}");
        let tokens = Tokens::new(&file);
        let at = Timestamp::from_millis;
        let proved = tokens.verify(&eu, at(9_999)).expect("known");
        assert_eq!(proved.labels.to_string(), "env=prod, region=eu, token.name=eu");
        assert!(proved.labels.is_proven("env"));
        assert_eq!(tokens.verify(&again, at(99_999)).expect("known").labels, proved.labels, "and it is the same agent");
        assert_eq!(tokens.verify(&eu, at(10_000)), Err(Denied::Expired(at(10_000))));
        for wrong in ["", "gitamp_", &eu[..eu.len() - 1], &eu.to_uppercase()] {
            assert_eq!(tokens.verify(wrong, at(0)), Err(Denied::Unknown), "{wrong}");
        }
        assert_eq!(TokenFile::parse("# nothing\n"), Ok(TokenFile::default()));
    }

    #[test]
    fn files_that_are_wrong_say_where() {
        let hash = "ab".repeat(32);
        let one = |labels: &str| format!("{{name: eu, sha256: {hash}, labels: {labels}}}");
        for (text, words) in [
            ("tokens: [{name: eu, sha256: abc}]".to_owned(), "`eu`: `sha256` is not 64"),
            (format!("tokens: [{{name: '', sha256: {hash}}}]"), "the name of token 1"),
            (format!("tokens: [{}]", one("{tls.cn: x}")), "`tls.cn` is given by gitamp itself"),
            (format!("tokens: [{}]", one("{env: ''}")), "the value of the label `env`"),
            (format!("tokens: [{}]", one("{'a b': x}")), "white space"),
            (format!("tokens: [{}]", one("{\"a\\u200bb\": x}")), "or letters that cannot be seen"),
            (
                format!("tokens: [{}]", one("{env: \"pr\\u200bod\"}")),
                "of the label `env` is empty, longer than 1024 bytes, or holds letters",
            ),
            (
                format!("tokens: [{{name: \"\\u202epr\", sha256: {hash}}}]"),
                "the name of token 1 is empty, too long, or holds letters",
            ),
            (format!("tokens: [{}, {}]", one("{}"), one("{}")), "stands there twice"),
            ("gitamp_the-token-itself".to_owned(), "string \"***\", expected"),
            ("tokens: [gitamp_the-token-itself]".to_owned(), "tokens[0]: invalid type: string \"***\""),
            (
                "tokens: [{gitamp_the-token-itself: x}]".to_owned(),
                "unknown field `***`, expected one of `name`, `sha256`",
            ),
            (
                format!("tokens: [{}, {{name: eu, sha256: {}}}]", one("{env: prod}"), "cd".repeat(32)),
                "another one of this name has other labels",
            ),
            ("token: []".to_owned(), "unknown field"),
        ] {
            let error = TokenFile::parse(&text).expect_err(words);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
