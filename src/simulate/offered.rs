//! Configurations as simulated agents hold them: one copy of each, however many agents were offered it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::opamp::proto;

/// One offered configuration, shared by all who hold it.
pub struct OfferedConfig {
    hash: Bytes,
    entries: BTreeMap<String, proto::AgentConfigObject>,
    breaks_collectors: bool,
    parse_error: Option<String>,
}

impl OfferedConfig {
    /// `config_hash`, as the server sent it.
    pub fn hash(&self) -> &Bytes {
        &self.hash
    }

    /// What the collector that runs this reports as its effective configuration: the offered entries.
    pub fn effective(&self) -> proto::EffectiveConfig {
        proto::EffectiveConfig { config_map: Some(proto::AgentConfigMap { config_map: self.entries.clone() }) }
    }

    /// True when this says what `other` says, under whatever hash: a supervisor then restarts nothing.
    pub fn same_content(&self, other: &Self) -> bool {
        self.entries == other.entries
    }

    /// True without any entry: the supervisor stops its collector.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True when a collector that is started with this exits at once.
    pub fn breaks_collectors(&self) -> bool {
        self.breaks_collectors
    }

    /// Why a supervisor cannot even read it.
    pub fn parse_error(&self) -> Option<&str> {
        self.parse_error.as_deref()
    }
}

impl fmt::Debug for OfferedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OfferedConfig({})", hex::encode(&self.hash))
    }
}

/// All configurations that are held by some agent, by hash.
#[derive(Debug, Default)]
pub struct Bodies {
    known: BTreeMap<Bytes, Weak<OfferedConfig>>,
    /// The latest one; mostly all agents are offered the same within a second.
    latest: Option<Arc<OfferedConfig>>,
    fail_matching: Option<String>,
    /// Offers whose hash was known with another content: a server's error that no agent can see.
    contradictions: u64,
}

impl Bodies {
    /// No configuration yet. Those that hold `fail_matching` will break collectors.
    pub fn new(fail_matching: Option<String>) -> Self {
        Self { fail_matching: fail_matching.filter(|text| !text.is_empty()), ..Self::default() }
    }

    /// The shared copy of an offer. The first offer of a hash is parsed and kept, the others are only compared.
    pub fn intern(&mut self, offer: proto::AgentRemoteConfig) -> Arc<OfferedConfig> {
        let entries = offer.config.unwrap_or_default().config_map;
        let latest = self.latest.as_ref().filter(|latest| latest.hash == offer.config_hash).cloned();
        let known = latest.or_else(|| self.known.get(&offer.config_hash).and_then(Weak::upgrade));
        if let Some(known) = known {
            if known.entries == entries {
                return known;
            }
            self.contradictions += 1;
        }
        let parse_error = entries.iter().find_map(|(name, entry)| {
            let error = parse_error(&entry.body)?;
            Some(if name.is_empty() { error } else { format!("{name}: {error}") })
        });
        let breaks_collectors = self
            .fail_matching
            .as_deref()
            .is_some_and(|text| entries.values().any(|entry| contains(&entry.body, text.as_bytes())));
        let config = Arc::new(OfferedConfig { hash: offer.config_hash, entries, breaks_collectors, parse_error });
        self.known.retain(|_, held| held.strong_count() > 0);
        self.known.insert(config.hash.clone(), Arc::downgrade(&config));
        self.latest = Some(Arc::clone(&config));
        config
    }

    /// How often one hash came with two contents.
    pub fn contradictions(&self) -> u64 {
        self.contradictions
    }
}

/// What a supervisor answers to a body that is no YAML mapping.
fn parse_error(body: &[u8]) -> Option<String> {
    match serde_yaml::from_slice::<serde_yaml::Value>(body) {
        Ok(serde_yaml::Value::Mapping(_) | serde_yaml::Value::Null) => None,
        Ok(_) => Some("yaml: the configuration is not a mapping".to_owned()),
        Err(error) => Some(format!("yaml: {error}")),
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An offer of one entry under the empty name, as the server makes it.
    pub(in crate::simulate) fn offer(hash: &str, body: &str) -> proto::AgentRemoteConfig {
        let entry = proto::AgentConfigObject {
            body: Bytes::copy_from_slice(body.as_bytes()),
            content_type: "text/yaml".to_owned(),
            role: String::new(),
        };
        proto::AgentRemoteConfig {
            config: Some(proto::AgentConfigMap { config_map: BTreeMap::from([(String::new(), entry)]) }),
            config_hash: Bytes::copy_from_slice(hash.as_bytes()),
        }
    }

    #[test]
    fn equal_offers_share_one_copy() {
        let mut bodies = Bodies::new(Some("boom".to_owned()));
        let first = bodies.intern(offer("h1", "a: 1"));
        let second = bodies.intern(offer("h2", "a: boom"));
        assert!(Arc::ptr_eq(&first, &bodies.intern(offer("h1", "a: 1"))), "held, so shared");
        assert!(Arc::ptr_eq(&second, &bodies.intern(offer("h2", "a: boom"))), "the latest, so shared");
        assert!(!first.breaks_collectors() && second.breaks_collectors());
        assert!(first.same_content(&bodies.intern(offer("h3", "a: 1"))), "another hash, the same content");
        assert_eq!(bodies.contradictions(), 0);
        bodies.intern(offer("h1", "a: 2"));
        assert_eq!(bodies.contradictions(), 1, "one hash with two contents");
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut bodies = Bodies::new(None);
        for number in 0..100 {
            bodies.intern(offer(&format!("h{number}"), "a: 1"));
        }
        assert!(bodies.known.len() <= 2, "{} hashes are remembered, nobody holds any", bodies.known.len());
    }

    #[test]
    fn bodies_that_are_no_mapping_are_refused_like_a_supervisor_would() {
        for (body, refused) in [("a: 1", false), ("", false), ("[1, 2]", true), ("a: [1", true), ("text", true)] {
            let config = Bodies::new(None).intern(offer("h", body));
            assert_eq!(config.parse_error().is_some(), refused, "{body}");
        }
    }
}
