//! Labels, and what matches them: an agent's OpAMP attributes as strings, and Kubernetes' selectors with globs added.

use std::fmt;
use std::sync::Arc;

use globset::{Glob, GlobMatcher};

/// Letters that change how others are shown, or are not shown at all: no words of others keep them.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// True for what must not stand as it is on a line that a person reads: it steers a terminal, ends the line, turns the direction of writing, or
/// is not seen.
pub fn is_deceptive(c: char) -> bool {
    c.is_control() || is_invisible(c) || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Most labels one agent may have; the wire decoder refuses more before it takes memory for them.
pub const MOST_LABELS: usize = 256;

/// Labels in order of their keys, packed into one shared allocation: a fleet of 20,000 agents keeps 400,000 of them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<Packed>);

#[derive(PartialEq, Eq, Hash)]
struct Packed {
    /// Key, value, key, value, ... without separators.
    text: Box<str>,
    /// Where each key and each value ends in `text`; two entries a label, keys ascending. The highest bit of a key's entry says that the
    /// label is proven.
    ends: Box<[u32]>,
}

/// See [`Packed::ends`]. No text is that long.
const PROVEN: u32 = 1 << 31;

impl Default for Labels {
    /// None.
    fn default() -> Self {
        Self::pack(std::iter::empty())
    }
}

impl Labels {
    /// Packs the pairs. The first pair of a key wins: identifying attributes come before the others.
    pub fn new<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::pack(pairs.into_iter().map(|(key, value)| (key.into(), value.into(), false)))
    }

    /// The same of what a credential gives: all of these are proven.
    pub fn proven<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::pack(pairs.into_iter().map(|(key, value)| (key.into(), value.into(), true)))
    }

    /// These labels with those of a credential, which win: whatever somebody says of itself, it cannot say something else than what it
    /// proved.
    #[must_use]
    pub fn with_proofs(&self, proofs: &Self) -> Self {
        if proofs.is_empty() {
            return self.clone();
        }
        let all = proofs.iter_all().chain(self.iter_all());
        Self::pack(all.map(|(key, value, is_proven)| (key.to_owned(), value.to_owned(), is_proven)))
    }

    fn pack(labels: impl Iterator<Item = (String, String, bool)>) -> Self {
        let mut sorted = std::collections::BTreeMap::<String, (String, bool)>::new();
        for (key, value, is_proven) in labels {
            sorted.entry(key).or_insert((value, is_proven));
        }
        let mut text = String::with_capacity(sorted.iter().map(|(key, (value, _))| key.len() + value.len()).sum());
        let mut ends = Vec::with_capacity(sorted.len() * 2);
        for (key, (value, is_proven)) in &sorted {
            for (part, mark) in [(key, if *is_proven { PROVEN } else { 0 }), (value, 0)] {
                text.push_str(part);
                ends.push(u32::try_from(text.len()).unwrap_or(PROVEN - 1).min(PROVEN - 1) | mark);
            }
        }
        Self(Arc::new(Packed { text: text.into_boxed_str(), ends: ends.into_boxed_slice() }))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.find(key).map(|(value, _)| value)
    }

    /// The value of `key`, when a credential gave it.
    pub fn get_proven(&self, key: &str) -> Option<&str> {
        self.find(key).filter(|(_, is_proven)| *is_proven).map(|(value, _)| value)
    }

    /// True when a credential gave this label.
    pub fn is_proven(&self, key: &str) -> bool {
        self.get_proven(key).is_some()
    }

    fn find(&self, key: &str) -> Option<(&str, bool)> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let (here, value, is_proven) = self.at(middle);
            match here.cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some((value, is_proven)),
            }
        }
        None
    }

    /// The labels, keys ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter_all().map(|(key, value, _)| (key, value))
    }

    fn iter_all(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        (0..self.len()).map(|index| self.at(index))
    }

    /// Those that a credential gave.
    #[must_use]
    pub fn proofs(&self) -> Self {
        let proven = self.iter_all().filter(|(_, _, is_proven)| *is_proven);
        Self::proven(proven.map(|(key, value, _)| (key, value)))
    }

    /// True when a credential gave any of them.
    pub fn has_proofs(&self) -> bool {
        self.iter_all().any(|(_, _, is_proven)| is_proven)
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.ends.len() / 2
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.ends.is_empty()
    }

    fn at(&self, index: usize) -> (&str, &str, bool) {
        let start = if index == 0 { 0 } else { self.0.ends[index * 2 - 1] as usize };
        let (key_end, value_end) = (self.0.ends[index * 2], self.0.ends[index * 2 + 1] as usize);
        let (is_proven, key_end) = (key_end & PROVEN != 0, (key_end & !PROVEN) as usize);
        (&self.0.text[start..key_end], &self.0.text[key_end..value_end], is_proven)
    }
}

/// A label for people: `key=value`. What a certificate or a JWT says is kept as it is, for selectors; a value that would look like another one
/// here, or like several labels, stands in quotes, with escapes.
pub fn shown(key: &str, value: &str) -> String {
    if value.contains([',', '"']) || value.trim() != value || value.contains(is_deceptive) {
        format!("{key}={value:?}")
    } else {
        format!("{key}={value}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Display for Labels {
    /// `key=value, key=value`, as `kubectl` prints labels; see [`shown`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, shown(key, value))?;
        }
        Ok(())
    }
}

/// How a requirement compares. The first four are Kubernetes' set-based operators, exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The key exists and its value is one of the values.
    In,
    /// The key is absent, or its value is none of the values.
    NotIn,
    /// The key exists.
    Exists,
    /// The key is absent.
    DoesNotExist,
    /// The key exists and its value matches one of the globs (`*`, `?`, `[a-z]`, `{a,b}`).
    Glob,
    /// The key is absent, or its value matches none of the globs.
    NotGlob,
}

impl Operator {
    /// Every operator, in the order of the documentation.
    pub const ALL: [Self; 6] = [Self::In, Self::NotIn, Self::Exists, Self::DoesNotExist, Self::Glob, Self::NotGlob];

    /// The name in a `group.yaml`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
            Self::Glob => "Glob",
            Self::NotGlob => "NotGlob",
        }
    }

    /// True for the operators that take no values.
    pub const fn is_about_the_key(self) -> bool {
        match self {
            Self::Exists | Self::DoesNotExist => true,
            Self::In | Self::NotIn | Self::Glob | Self::NotGlob => false,
        }
    }
}

/// Why a requirement cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    /// `In`, `NotIn`, `Glob` and `NotGlob` compare with something.
    #[error("`{0}` needs at least one value in `values`")]
    NoValues(&'static str),
    /// `Exists` and `DoesNotExist` look at the key alone.
    #[error("`{0}` takes no `values`")]
    UnwantedValues(&'static str),
    /// The key is empty.
    #[error("the key is empty")]
    NoKey,
    /// A glob that cannot be compiled, with the reason.
    #[error("`{0}` is no valid glob: {1}")]
    BadGlob(String, String),
}

/// One condition on one label.
#[derive(Clone)]
pub struct Requirement {
    key: Arc<str>,
    operator: Operator,
    values: Arc<[String]>,
    globs: Arc<[GlobMatcher]>,
    /// True when only what a credential gave counts.
    proven: bool,
}

impl Requirement {
    /// Checks and compiles a requirement.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, RequirementError> {
        if key.is_empty() {
            return Err(RequirementError::NoKey);
        }
        if operator.is_about_the_key() && !values.is_empty() {
            return Err(RequirementError::UnwantedValues(operator.name()));
        }
        if !operator.is_about_the_key() && values.is_empty() {
            return Err(RequirementError::NoValues(operator.name()));
        }
        let globs = match operator {
            Operator::Glob | Operator::NotGlob => values
                .iter()
                .map(|value| {
                    Glob::new(value)
                        .map(|glob| glob.compile_matcher())
                        .map_err(|error| RequirementError::BadGlob(value.clone(), error.kind().to_string()))
                })
                .collect::<Result<Arc<[_]>, _>>()?,
            Operator::In | Operator::NotIn | Operator::Exists | Operator::DoesNotExist => Arc::new([]),
        };
        Ok(Self { key: key.into(), operator, values: values.into(), globs, proven: false })
    }

    /// The same, looking at what credentials gave alone: a label that an agent only claims is as good as none, and an agent that proved
    /// nothing at all meets no such condition, not even one on what must be absent.
    #[must_use]
    pub fn demanding_proof(&self) -> Self {
        Self { proven: true, ..self.clone() }
    }

    /// True when only what a credential gave counts.
    pub fn demands_proof(&self) -> bool {
        self.proven
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it compares.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with; empty for `Exists` and `DoesNotExist`.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// What these labels have instead, as the rest of a sentence: `and env is "dev"`.
    pub fn found_in(&self, labels: &Labels) -> String {
        let key = &self.key;
        match labels.get(key) {
            Some(_) if self.proven && !labels.is_proven(key) => format!("and {key} is only claimed"),
            Some(value) => format!("and {key} is {value:?}"),
            None => format!("and there is no {key}"),
        }
    }

    /// True when the labels meet the condition.
    pub fn matches(&self, labels: &Labels) -> bool {
        if self.proven && !labels.has_proofs() {
            return false;
        }
        let value = if self.proven { labels.get_proven(&self.key) } else { labels.get(&self.key) };
        let among = |value: &str| self.values.iter().any(|one| one == value);
        let globbed = |value: &str| self.globs.iter().any(|glob| glob.is_match(value));
        match self.operator {
            Operator::In => value.is_some_and(among),
            Operator::NotIn => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Glob => value.is_some_and(globbed),
            Operator::NotGlob => !value.is_some_and(globbed),
        }
    }
}

impl PartialEq for Requirement {
    fn eq(&self, other: &Self) -> bool {
        (&self.key, self.operator, &self.values, self.proven)
            == (&other.key, other.operator, &other.values, other.proven)
    }
}

impl Eq for Requirement {}

impl fmt::Debug for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Requirement {
    /// As `kubectl` writes selectors: `key in (a, b)`, `!key`, `key=value` for one value; globs as `key glob (a*)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(", "));
        if self.proven {
            f.write_str("proven ")?;
        }
        match self.operator {
            Operator::In if self.values.len() == 1 => write!(f, "{key}={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Glob => write!(f, "{key} glob ({values})"),
            Operator::NotGlob => write!(f, "{key} notglob ({values})"),
        }
    }
}

/// Requirements that must all be met. The one without requirements matches everybody, and is only ever made from
/// `matchAll: true`: the parser of group files refuses an empty selector.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    /// All of these must hold.
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// The selector of everybody.
    pub fn everybody() -> Self {
        Self::default()
    }

    /// What both this and `other` match.
    pub fn and(&self, other: &Self) -> Self {
        let mut requirements = self.requirements.clone();
        requirements.extend(other.requirements.iter().filter(|one| !self.requirements.contains(one)).cloned());
        Self { requirements }
    }

    /// The same, looking at what credentials gave alone; see [`Requirement::demanding_proof`].
    #[must_use]
    pub fn demanding_proof(&self) -> Self {
        Self { requirements: self.requirements.iter().map(Requirement::demanding_proof).collect() }
    }

    /// The conditions, all of which must hold.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True when every requirement is met.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// The first requirement that the labels do not meet: why they are not selected.
    pub fn first_unmet(&self, labels: &Labels) -> Option<&Requirement> {
        self.requirements.iter().find(|requirement| !requirement.matches(labels))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("everybody");
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
        Requirement::new(key, operator, values.iter().map(|value| (*value).to_owned()).collect())
            .unwrap_or_else(|error| panic!("{key}: {error}"))
    }

    #[test]
    fn labels_are_found_and_the_first_of_equal_keys_wins() {
        let labels = Labels::new([("b", "2"), ("a", "1"), ("c", ""), ("a", "other")]);
        assert_eq!(labels.get("a"), Some("1"));
        assert_eq!(labels.get("b"), Some("2"));
        assert_eq!(labels.get("c"), Some(""));
        assert_eq!(labels.get("d"), None);
        assert_eq!(labels.get(""), None);
        assert_eq!(labels.to_string(), "a=1, b=2, c=");
        assert_eq!(labels.len(), 3);
        assert!(Labels::new::<String, String>([]).is_empty());
    }

    #[test]
    fn operators_are_those_of_kubernetes() {
        let labels = Labels::new([("env", "prod"), ("host.name", "gw-07")]);
        for (key, operator, values, expected, why) in [
            ("env", Operator::In, &["prod", "dev"][..], true, "value among the values"),
            ("env", Operator::In, &["dev"], false, "value not among the values"),
            ("zone", Operator::In, &["a"], false, "In needs the key"),
            ("env", Operator::NotIn, &["dev"], true, "value not among the values"),
            ("env", Operator::NotIn, &["prod"], false, "value among the values"),
            ("zone", Operator::NotIn, &["a"], true, "NotIn is met by an absent key, as in Kubernetes"),
            ("env", Operator::Exists, &[], true, "key there"),
            ("zone", Operator::Exists, &[], false, "key absent"),
            ("env", Operator::DoesNotExist, &[], false, "key there"),
            ("zone", Operator::DoesNotExist, &[], true, "key absent"),
            ("host.name", Operator::Glob, &["gw-*"], true, "glob matches"),
            ("host.name", Operator::Glob, &["db-*", "gw-0?"], true, "one of the globs matches"),
            ("host.name", Operator::Glob, &["gw"], false, "a glob covers the whole value"),
            ("zone", Operator::Glob, &["*"], false, "Glob needs the key"),
            ("host.name", Operator::NotGlob, &["gw-*"], false, "glob matches"),
            ("zone", Operator::NotGlob, &["*"], true, "NotGlob is met by an absent key"),
        ] {
            let requirement = requirement(key, operator, values);
            assert_eq!(requirement.matches(&labels), expected, "{requirement}: {why}");
        }
    }

    #[test]
    fn what_is_proven_wins_and_what_is_claimed_proves_nothing() {
        let claimed = Labels::new([("env", "prod"), ("region", "eu"), ("zone", "")]);
        let proofs = Labels::proven([("env", "staging"), ("token.name", "t")]);
        let labels = claimed.with_proofs(&proofs);
        assert_eq!(labels.to_string(), "env=staging, region=eu, token.name=t, zone=");
        assert_eq!((labels.get("env"), labels.get_proven("env")), (Some("staging"), Some("staging")));
        assert_eq!((labels.get("region"), labels.get_proven("region")), (Some("eu"), None));
        assert_eq!(labels.proofs(), proofs);
        assert_eq!(claimed.with_proofs(&Labels::proven::<String, String>([])), claimed);
        assert_ne!(Labels::new([("a", "b")]), Labels::proven([("a", "b")]), "the same text is not the same");
        for (key, operator, values, of_proofs, of_claims) in [
            ("env", Operator::In, &["staging"][..], true, false),
            ("region", Operator::In, &["eu"], false, false),
            ("region", Operator::DoesNotExist, &[], true, false),
            ("region", Operator::NotIn, &["eu"], true, false),
            ("env", Operator::Glob, &["st*"], true, false),
        ] {
            let demanding = requirement(key, operator, values).demanding_proof();
            assert_eq!(demanding.matches(&labels), of_proofs, "{demanding}");
            assert_eq!(demanding.matches(&claimed), of_claims, "{demanding}: nothing is proven");
            assert_ne!(demanding, requirement(key, operator, values));
        }
        let both = Selector::new(vec![requirement("env", Operator::Exists, &[])]);
        assert_eq!(both.and(&both.demanding_proof()).to_string(), "env, proven env");
    }

    #[test]
    fn what_is_unmet_is_told_with_what_is_there() {
        let labels = Labels::new([("env", "prod")]).with_proofs(&Labels::proven([("team", "a\u{200b}")]));
        let plain = requirement("env", Operator::In, &["dev"]);
        for (requirement, words) in [
            (plain.clone(), "and env is \"prod\""),
            (plain.demanding_proof(), "and env is only claimed"),
            (requirement("team", Operator::In, &["a"]).demanding_proof(), "and team is \"a\\u{200b}\""),
            (requirement("zone", Operator::Exists, &[]).demanding_proof(), "and there is no zone"),
        ] {
            assert_eq!(requirement.found_in(&labels), words, "{requirement}");
        }
    }

    #[test]
    fn a_value_is_what_it_is_and_looks_like_no_other() {
        let odd: Vec<char> = ('\0'..=char::MAX).filter(|c| is_deceptive(*c)).collect();
        assert!(odd.len() > 200 && odd.contains(&'\u{202e}') && odd.contains(&'\u{feff}'), "{odd:?}");
        for c in odd {
            let value = format!("pr{c}od");
            let labels = Labels::proven([("env", value.as_str())]);
            let shown = labels.to_string();
            assert!(!shown.contains(is_deceptive) && shown.contains('\\'), "{c:?}: {shown}");
            assert!(requirement("env", Operator::In, &[&value]).matches(&labels), "{c:?}");
            assert!(!requirement("env", Operator::In, &["prod"]).matches(&labels), "{c:?}");
        }
        for (value, shown) in [
            ("a b", "o=a b"),
            ("C:\\x", "o=C:\\x"),
            ("", "o="),
            ("shop, env=prod", "o=\"shop, env=prod\""),
            (" shop", "o=\" shop\""),
            ("say \"x\"", "o=\"say \\\"x\\\"\""),
        ] {
            assert_eq!(Labels::proven([("o", value)]).to_string(), shown);
        }
    }

    #[test]
    fn impossible_requirements_are_refused() {
        for (key, operator, values) in [
            ("", Operator::Exists, &[][..]),
            ("a", Operator::In, &[]),
            ("a", Operator::Exists, &["x"]),
            ("a", Operator::Glob, &["["]),
        ] {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            assert!(Requirement::new(key, operator, values).is_err(), "{key} {operator:?}");
        }
    }

    #[test]
    fn selectors_are_conjunctions() {
        let labels = Labels::new([("env", "prod"), ("region", "eu")]);
        let production = Selector::new(vec![requirement("env", Operator::In, &["prod"])]);
        let american = Selector::new(vec![requirement("region", Operator::In, &["us"])]);
        assert!(Selector::everybody().matches(&labels));
        assert!(production.matches(&labels));
        let both = production.and(&american);
        assert!(!both.matches(&labels));
        assert_eq!(both.first_unmet(&labels).map(ToString::to_string).as_deref(), Some("region=us"));
        assert_eq!(production.and(&production), production, "repeating a condition adds nothing");
    }
}
