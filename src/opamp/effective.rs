//! An effective configuration reduced to the names of what it runs, shared by all who run the same.
//!
//! Agents report the configuration they really use with every `${env:...}` resolved, so it can hold secrets. It is read once and
//! dropped: what remains are names of components and pipelines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;

use super::attributes::clean;
use super::components::{Builds, Lookup};
use super::inbound::Digest;
use super::proto::EffectiveConfig;
use super::wire::WireError;
use crate::config::ComponentNames;
use crate::time::Timestamp;
use crate::yaml;

/// What is parsed of one entry. Larger ones are not looked at: a collector's configuration with every default written out has
/// some 30 KiB, and parsing happens between two messages of a connection.
const YAML_LIMITS: yaml::Limits = yaml::Limits { bytes: 256 * 1024, nodes: 20_000, depth: 64 };

/// Longest list of names that is kept for one configuration; with more, nothing is known.
const MOST_NAMES: usize = 2_000;

/// Longest name that is kept, in bytes: a collector's own are at most 1,024 characters long, for the type and for the name.
const LONGEST_NAME: usize = 8 * 1024;

/// Where sessions find the names that others reported already. The shell owns it and decides how it is guarded.
pub trait SharedNames {
    /// The names of the effective configuration with this digest, when somebody reported it lately.
    fn find(&self, digest: Digest) -> Option<Arc<ComponentNames>>;
    /// Keeps `names` under `digest`, and returns them in the one allocation that equal names share.
    fn share(&self, digest: Digest, names: ComponentNames) -> Arc<ComponentNames>;
    /// See [`Builds::look_up`].
    fn look_up(&self, build: Digest, told: Option<ComponentNames>, ask: Option<Timestamp>) -> Lookup;
}

/// The names in an encoded `EffectiveConfig`. What is no YAML, or too large, names nothing.
///
/// # Errors
/// When the bytes are no `EffectiveConfig`.
pub(super) fn names(
    encoded: &[u8],
    digest: Digest,
    shared: &dyn SharedNames,
) -> Result<Arc<ComponentNames>, WireError> {
    if let Some(known) = shared.find(digest) {
        return Ok(known);
    }
    let entries = EffectiveConfig::decode(encoded)?.config_map.unwrap_or_default().config_map;
    // The entry "" is the whole; others are views of it (supervisors send a second one named `raw`).
    let bodies: Vec<&[u8]> = match entries.get("") {
        Some(whole) => vec![&whole.body],
        None => entries.values().map(|entry| &entry.body[..]).collect(),
    };
    let file: Arc<str> = Arc::from("effective.yaml");
    let mut found = BTreeSet::new();
    let mut is_whole = true;
    for body in bodies {
        match yaml::parse(&file, body, &YAML_LIMITS) {
            Ok(Some(document)) => {
                found.extend(yaml::component_names(&document).iter().map(|name| clean(name, LONGEST_NAME)));
            }
            Ok(None) => {}
            Err(_) => is_whole = false,
        }
    }
    // Half of the names would look like another configuration.
    let bounded = if found.len() > MOST_NAMES || !is_whole { BTreeSet::new() } else { found };
    Ok(shared.share(digest, bounded.into_iter().collect()))
}

/// A bounded memory of names by digest. Equal names share one allocation, whatever the texts they came from.
#[derive(Debug)]
pub struct NameCache {
    most: usize,
    by_digest: BTreeMap<Digest, Arc<ComponentNames>>,
    distinct: BTreeSet<Arc<ComponentNames>>,
    builds: Builds,
}

impl NameCache {
    /// A memory of at most `most` digests and as many sets of names.
    pub fn new(most: usize) -> Self {
        Self { most, by_digest: BTreeMap::new(), distinct: BTreeSet::new(), builds: Builds::default() }
    }

    /// See [`SharedNames::look_up`].
    pub fn look_up(&mut self, build: Digest, told: Option<ComponentNames>, ask: Option<Timestamp>) -> Lookup {
        self.builds.look_up(build, told, ask)
    }

    /// See [`SharedNames::find`].
    pub fn find(&self, digest: Digest) -> Option<Arc<ComponentNames>> {
        self.by_digest.get(&digest).cloned()
    }

    /// See [`SharedNames::share`]. When the memory is full it starts anew with those sets that agents still hold.
    pub fn share(&mut self, digest: Digest, names: ComponentNames) -> Arc<ComponentNames> {
        if self.by_digest.len() >= self.most {
            self.by_digest.clear();
            self.distinct.retain(|names| Arc::strong_count(names) > 1);
        }
        if self.distinct.len() >= self.most {
            self.distinct.clear();
        }
        let one = match self.distinct.get(&names) {
            Some(same) => Arc::clone(same),
            None => {
                let new = Arc::new(names);
                self.distinct.insert(Arc::clone(&new));
                new
            }
        };
        self.by_digest.insert(digest, Arc::clone(&one));
        one
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{AgentConfigMap, AgentConfigObject};
    use super::*;

    /// A cache without a guard, for one thread.
    struct Alone(std::cell::RefCell<NameCache>);

    impl SharedNames for Alone {
        fn find(&self, digest: Digest) -> Option<Arc<ComponentNames>> {
            self.0.borrow().find(digest)
        }

        fn share(&self, digest: Digest, names: ComponentNames) -> Arc<ComponentNames> {
            self.0.borrow_mut().share(digest, names)
        }

        fn look_up(&self, build: Digest, told: Option<ComponentNames>, ask: Option<Timestamp>) -> Lookup {
            self.0.borrow_mut().look_up(build, told, ask)
        }
    }

    fn encoded(entries: &[(&str, &str)]) -> Vec<u8> {
        let object = |body: &str| AgentConfigObject { body: body.to_owned().into(), ..Default::default() };
        let config_map = entries.iter().map(|(key, body)| ((*key).to_owned(), object(body))).collect();
        EffectiveConfig { config_map: Some(AgentConfigMap { config_map }) }.encode_to_vec()
    }

    const TRACES: &str = "receivers: {otlp: {}}\nexporters: {debug: {}}\n\
                          service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n";
    const LOGS: &str = "receivers: {filelog: {token: s3cret}}\nexporters: {debug: {}}\n\
                        service: {pipelines: {logs: {receivers: [filelog], exporters: [debug]}}}\n";

    #[test]
    fn a_configuration_is_reduced_to_names() {
        let alone = Alone(NameCache::new(8).into());
        let read = |entries: &[(&str, &str)]| {
            let bytes = encoded(entries);
            let names = names(&bytes, Digest::of(&bytes), &alone).expect("an EffectiveConfig");
            names.iter().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        let traces = read(&[("", TRACES)]);
        assert!(traces.contains("receivers/otlp") && traces.contains("pipelines/traces"), "{traces}");
        assert_eq!(read(&[("", TRACES), ("raw", LOGS)]), traces, "the empty name is the whole");
        let both = read(&[("a", TRACES), ("b", LOGS)]);
        assert!(both.contains("receivers/otlp") && both.contains("receivers/filelog"), "{both}");
        assert!(!both.contains("s3cret"), "names only");
        let turned = TRACES.replace("otlp", "\"ot\u{202e}lp\"");
        assert_eq!(read(&[("", turned.as_str())]), traces, "without what turns the direction of writing");
        assert_eq!(read(&[("", "][")]), "", "no YAML names nothing");
        assert_eq!(read(&[]), "");
        assert!(names(&[0x0a, 0x05], Digest::of(b"x"), &alone).is_err(), "cut off");
    }

    #[test]
    fn equal_names_are_shared_and_the_memory_is_bounded() {
        let mut cache = NameCache::new(4);
        let one = |name: &str| std::iter::once(name.to_owned()).collect::<ComponentNames>();
        let first = cache.share(Digest::of(b"1"), one("receivers/otlp"));
        let same = cache.share(Digest::of(b"2"), one("receivers/otlp"));
        assert!(Arc::ptr_eq(&first, &same), "one allocation");
        assert!(cache.find(Digest::of(b"2")).is_some_and(|found| Arc::ptr_eq(&found, &first)));
        for at in 0..100_u8 {
            let _dropped = cache.share(Digest::of(&[at, 0]), one(&format!("receivers/{at}")));
            assert!(cache.by_digest.len() <= 4 && cache.distinct.len() <= 4, "{at}");
        }
        let again = cache.share(Digest::of(b"3"), one("receivers/otlp"));
        assert_eq!(again, first);
    }
}
