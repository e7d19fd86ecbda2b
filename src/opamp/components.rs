//! What an agent's build could run: the names in its list of components, asked for once for each build and shared by all who run it.
//!
//! Agents send a hash of that list and the list itself only when they are asked. The hash is the same for every agent of a build,
//! so one answer serves a whole fleet. An agent that makes up a hash of somebody else can put a wrong list before people's eyes;
//! nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::attributes::clean;
use super::inbound::Digest;
use super::wire::WireError;
use crate::config::ComponentNames;
use crate::time::Timestamp;

/// Longest name that is kept, in bytes; `exporters/opentelemetry_arrow_stream` has some forty.
const LONGEST_NAME: usize = 128;

/// Names of one build that are kept. The largest distribution has about four hundred.
const MOST_NAMES: usize = 1_000;

/// Builds that are remembered. A fleet has a handful.
const MOST_BUILDS: usize = 256;

/// How long a question may stay without its answer before somebody else is asked; twice as long each time, up to
/// [`LONGEST_PAUSE`].
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// See [`ASK_AGAIN`].
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// An `AvailableComponents` without what describes each component.
#[derive(Clone, PartialEq, Message)]
struct Listing {
    #[prost(btree_map = "string, message", tag = "1")]
    kinds: BTreeMap<String, Kind>,
    #[prost(bytes = "bytes", tag = "2")]
    hash: Bytes,
}

/// A `ComponentDetails`: usually a kind of component, with those of this kind below it.
#[derive(Clone, PartialEq, Message)]
struct Kind {
    #[prost(btree_map = "string, message", tag = "2")]
    components: BTreeMap<String, Component>,
}

#[derive(Clone, PartialEq, Message)]
struct Component {}

/// What a message tells of its agent's build.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Which build it is.
    pub(super) build: Digest,
    /// The list, when it is there.
    pub(super) names: Option<ComponentNames>,
}

/// Reads an encoded `AvailableComponents`; `None` when it tells nothing.
///
/// # Errors
/// When the bytes are no such message.
pub(super) fn told(encoded: Option<&Bytes>) -> Result<Option<Told>, WireError> {
    let Some(encoded) = encoded else { return Ok(None) };
    let listing = Listing::decode(encoded.clone())?;
    if listing.hash.is_empty() && listing.kinds.is_empty() {
        return Ok(None);
    }
    // Who leaves the hash out is told apart by the list.
    let build = Digest::of(if listing.hash.is_empty() { encoded } else { &listing.hash });
    let names = (!listing.kinds.is_empty()).then(|| names(&listing.kinds).take(MOST_NAMES).collect());
    Ok(Some(Told { build, names }))
}

/// The kinds of a collector's components: one without any below it is no component by itself.
const KINDS: [&str; 5] = ["receivers", "processors", "exporters", "extensions", "connectors"];

fn names(kinds: &BTreeMap<String, Kind>) -> impl Iterator<Item = String> {
    kinds.iter().flat_map(|(kind, below)| {
        let is_component = below.components.is_empty() && !KINDS.contains(&kind.as_str());
        let alone = is_component.then(|| clean(kind, LONGEST_NAME));
        alone.into_iter().chain(below.components.keys().map(move |name| clean(&format!("{kind}/{name}"), LONGEST_NAME)))
    })
}

/// What a session knows of its agent's build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Build {
    /// Nothing.
    Unknown,
    /// Which it is; what it holds is still to be learnt.
    Named(Digest),
    /// Everything, and the controller knows it too.
    Known(Digest),
}

#[derive(Debug)]
enum Entry {
    /// Somebody was asked, so many times in all, the last time then.
    Asked {
        times: u32,
        at: Timestamp,
    },
    Listed(Arc<ComponentNames>),
}

/// What is known of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// What it holds.
    Known(Arc<ComponentNames>),
    /// Nothing, and this agent is the one to ask.
    Ask,
    /// Nothing yet.
    Unknown,
}

/// A bounded memory of what builds hold.
#[derive(Debug, Default)]
pub struct Builds(BTreeMap<Digest, Entry>);

impl Builds {
    /// What a build holds. `told` is what an agent of it has just told; what was known before stays. `ask` is the time, when this
    /// agent could be asked for the list.
    pub fn look_up(&mut self, build: Digest, told: Option<ComponentNames>, ask: Option<Timestamp>) -> Lookup {
        if let Some(names) = told {
            return Lookup::Known(self.share(build, names));
        }
        match self.find(build) {
            Some(names) => Lookup::Known(names),
            None if ask.is_some_and(|now| self.ask(build, now)) => Lookup::Ask,
            None => Lookup::Unknown,
        }
    }

    fn find(&self, build: Digest) -> Option<Arc<ComponentNames>> {
        match self.0.get(&build)? {
            Entry::Listed(names) => Some(Arc::clone(names)),
            Entry::Asked { .. } => None,
        }
    }

    fn share(&mut self, build: Digest, names: ComponentNames) -> Arc<ComponentNames> {
        if let Some(known) = self.find(build) {
            return known;
        }
        let names = Arc::new(names);
        self.put(build, Entry::Listed(Arc::clone(&names)));
        names
    }

    /// True when an agent of this build is to be asked for its list now, which is noted.
    fn ask(&mut self, build: Digest, now: Timestamp) -> bool {
        let times = match self.0.get(&build) {
            Some(Entry::Listed(_)) => return false,
            Some(Entry::Asked { times, at }) => {
                let pause = ASK_AGAIN.saturating_mul(1_u32 << (times - 1).min(10)).min(LONGEST_PAUSE);
                if now.since(*at) < pause {
                    return false;
                }
                *times
            }
            None => 0,
        };
        self.put(build, Entry::Asked { times: times.saturating_add(1), at: now });
        true
    }

    fn put(&mut self, build: Digest, entry: Entry) {
        if self.0.len() >= MOST_BUILDS && !self.0.contains_key(&build) {
            // Made-up builds go, and those whose agents all left.
            self.0.retain(|_, entry| matches!(entry, Entry::Listed(names) if Arc::strong_count(names) > 1));
            if self.0.len() >= MOST_BUILDS {
                self.0.clear();
            }
        }
        self.0.insert(build, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{AvailableComponents, ComponentDetails};
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn listing(hash: &str, kinds: &[(&str, &[&str])]) -> Bytes {
        let component = |name: &&str| ((*name).to_owned(), ComponentDetails::default());
        let kind = |(kind, names): &(&str, &[&str])| {
            let sub_component_map = names.iter().map(component).collect();
            ((*kind).to_owned(), ComponentDetails { sub_component_map, ..Default::default() })
        };
        let components = kinds.iter().map(kind).collect();
        AvailableComponents { components, hash: Bytes::copy_from_slice(hash.as_bytes()) }.encode_to_vec().into()
    }

    fn list(names: &ComponentNames) -> Vec<&str> {
        names.iter().collect()
    }

    #[test]
    fn lists_are_reduced_to_names() {
        assert_eq!(told(None), Ok(None));
        assert_eq!(told(Some(&Bytes::new())), Ok(None), "present and empty");
        let hash_only = told(Some(&listing("h", &[]))).expect("sound").expect("a build");
        assert_eq!(hash_only, Told { build: digest("h"), names: None });
        let full = listing("h", &[("receivers", &["otlp", "no\np"]), ("odd", &[]), ("connectors", &[])]);
        let full = told(Some(&full)).expect("sound").expect("a build");
        assert_eq!(full.build, digest("h"));
        assert_eq!(list(&full.names.expect("names")), ["odd", "receivers/no p", "receivers/otlp"]);
        let nameless = told(Some(&listing("", &[("a", &[])]))).expect("sound").expect("a build");
        assert_ne!(nameless.build, digest(""), "told apart by what it lists");
        assert!(told(Some(&Bytes::from_static(&[0x0a, 0xff]))).is_err());
        let many: Vec<String> = (0..2 * MOST_NAMES).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let many = told(Some(&listing("m", &[("receivers", &many)]))).expect("sound").expect("a build");
        assert_eq!(many.names.map(|names| names.iter().count()), Some(MOST_NAMES));
    }

    #[test]
    fn a_build_is_asked_for_once_and_again_after_growing_pauses() {
        let mut builds = Builds::default();
        let start = Timestamp::from_millis(1_000_000);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for (seconds, is_asked) in
            [(0, true), (0, false), (59, false), (60, true), (120, false), (180, true), (419, false), (420, true)]
        {
            assert_eq!(builds.ask(digest("b"), at(seconds)), is_asked, "{seconds}");
        }
        assert!(builds.ask(digest("other"), at(0)), "each build by itself");
        let mut asked = 0;
        for hour in 1..=48 {
            asked += u32::from(builds.ask(digest("b"), at(hour * 3600)));
        }
        assert!(asked >= 47, "never given up: {asked}");
        assert!(builds.find(digest("b")).is_none());
        let names = builds.share(digest("b"), ["receivers/otlp".to_owned()].into_iter().collect());
        assert!(!builds.ask(digest("b"), at(1_000_000)), "known");
        let again = builds.share(digest("b"), ComponentNames::default());
        assert!(Arc::ptr_eq(&names, &again), "what is known is never replaced, least of all by nothing");
    }

    #[test]
    fn made_up_builds_are_not_remembered_without_end() {
        let mut builds = Builds::default();
        let held = builds.share(digest("held"), ["a".to_owned()].into_iter().collect());
        for number in 0..10 * MOST_BUILDS {
            builds.ask(digest(&number.to_string()), Timestamp::default());
            builds.share(digest(&format!("listed {number}")), ComponentNames::default());
            assert!(builds.0.len() <= MOST_BUILDS);
        }
        assert!(builds.find(digest("held")).is_some_and(|names| Arc::ptr_eq(&names, &held)), "agents still run it");
    }
}
