//! What an agent is offered: a rendered collector configuration, its hash, and the names of what it defines.
//!
//! A [`RenderedConfig`] is immutable and shared: one group, one allocation, however many agents hold it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// SHA-256 over the canonical form of a rendered configuration (`yaml::canonical`): `config_hash` on the wire, 64 lowercase
/// hexadecimal digits for people.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigHash([u8; 32]);

impl ConfigHash {
    /// The hash with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes as they go over the wire.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve hexadecimal digits, for tables and messages.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigHash({})", self.short())
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("a config hash has 64 hexadecimal digits")]
pub struct NotAConfigHash;

impl FromStr for ConfigHash {
    type Err = NotAConfigHash;

    fn from_str(text: &str) -> Result<Self, NotAConfigHash> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAConfigHash)?;
        Ok(Self(bytes))
    }
}

impl Serialize for ConfigHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConfigHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The components and pipelines that a collector configuration really runs, as `receivers/otlp`, `pipelines/traces/2`:
/// those its pipelines and `service.extensions` name. Small enough to compare, free of values, so never a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ComponentNames(BTreeSet<String>);

impl ComponentNames {
    /// The names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// True when this name is here.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// True when every name of `other` is here too.
    pub fn contains_all(&self, other: &Self) -> bool {
        other.0.is_subset(&self.0)
    }

    /// True when nothing is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<String> for ComponentNames {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

/// One collector YAML body with its hash, cheap to clone. Equal hashes mean equal meaning: comparison looks at nothing else.
#[derive(Clone)]
pub struct RenderedConfig(Arc<Inner>);

struct Inner {
    hash: ConfigHash,
    body: Bytes,
    components: ComponentNames,
    encoded: OnceLock<Bytes>,
}

impl RenderedConfig {
    /// Joins a body (UTF-8 YAML, never empty) with the hash of its canonical form and the names it defines.
    pub fn new(hash: ConfigHash, body: Bytes, components: ComponentNames) -> Self {
        Self(Arc::new(Inner { hash, body, components, encoded: OnceLock::new() }))
    }

    /// The hash of the canonical form.
    pub fn hash(&self) -> ConfigHash {
        self.0.hash
    }

    /// The YAML text as agents get it.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// The components and pipelines that the body runs.
    pub fn components(&self) -> &ComponentNames {
        &self.0.components
    }

    /// The body in the form of the wire, made by `encode` at the first call and shared by every agent afterwards.
    pub fn encoded(&self, encode: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.0.encoded.get_or_init(|| encode(self))
    }
}

impl PartialEq for RenderedConfig {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for RenderedConfig {}

impl fmt::Debug for RenderedConfig {
    /// Never the body: it is long, and may name what is private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RenderedConfig({}, {} bytes)", self.hash().short(), self.body().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_read_what_they_show() {
        let hash = ConfigHash::new([0xab; 32]);
        assert_eq!(hash.to_string().parse::<ConfigHash>().ok(), Some(hash));
        assert_eq!(hash.short(), "abababababab");
        for text in ["", "ab", &"zz".repeat(32), &"ab".repeat(33)] {
            assert!(text.parse::<ConfigHash>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_compare_as_sets() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<ComponentNames>();
        assert!(names(&["receivers/otlp", "extensions/opamp"]).contains_all(&names(&["receivers/otlp"])));
        assert!(!names(&["receivers/otlp"]).contains_all(&names(&["receivers/otlp", "exporters/debug"])));
    }
}
