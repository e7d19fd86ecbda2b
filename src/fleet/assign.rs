//! Who belongs where: an agent's labels against the selectors of all groups.
//!
//! The highest priority wins. Of one family (a group and its variants) the first variant that matches takes the agent, and the
//! group itself takes who matches no variant. Different families at equal priority are a conflict, which nobody wins.
//!
//! Every group stands in an index below one condition that its selector cannot do without, the one that fewest groups share: a
//! value of `In`, the fixed beginning of a `Glob`, or a key that must exist. Assigning an agent looks at the groups that its
//! labels lead to, so that 20,000 agents among 10,000 groups take a fraction of a second.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::fleet::{GroupDefinition, GroupName};
use crate::labels::{Labels, Operator, Requirement, Selector};

/// The selectors and priorities of all groups, indexed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Assigner(Arc<Index>);

/// Where an agent belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// No group selects it.
    Unmanaged,
    /// Here.
    Group(GroupName),
    /// Several groups select it at equal priority; in order of their names.
    Conflict(Vec<GroupName>),
}

/// What one group has to do with an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The group.
    pub group: GroupName,
    /// Its priority.
    pub priority: i32,
    /// Whether it gets the agent, or why not.
    pub verdict: Verdict,
}

/// Whether a group gets an agent, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Chosen,
    /// It would, but so would groups of other families at the same priority, so nobody does.
    Conflict,
    /// It selects the agent, and a group of higher priority does, too.
    Outranked {
        /// That group; the first by name when several conflict.
        by: GroupName,
    },
    /// It selects the agent, and so does a variant of the same group that comes first.
    Varied {
        /// That variant.
        by: GroupName,
    },
    /// It does not select the agent.
    Unmet {
        /// The first condition that the labels do not meet.
        first: Requirement,
        /// How many conditions they do not meet.
        unmet: usize,
    },
}

/// One group in the order in which groups win.
#[derive(Debug)]
pub(super) struct Ranked {
    name: GroupName,
    /// The group itself, or the one that it varies.
    family: GroupName,
    priority: i32,
    selector: Selector,
}

/// Groups by rank: those of higher priority first, families together, variants before what they vary.
#[derive(Debug, Default)]
pub(super) struct Index {
    groups: Vec<Ranked>,
    by_key: BTreeMap<Box<str>, KeyIndex>,
    /// Groups that require nothing that could be looked up.
    always: Vec<Rank>,
}

/// A place in [`Index::groups`].
pub(super) type Rank = usize;

/// The groups that stand below one key.
#[derive(Debug, Default)]
struct KeyIndex {
    /// By a value that the label must have.
    values: BTreeMap<Box<str>, Vec<Rank>>,
    /// By what the label's value must begin with; "" for those that only need the key.
    beginnings: BTreeMap<Box<str>, Vec<Rank>>,
    /// The lengths of these beginnings in bytes.
    lengths: BTreeSet<usize>,
}

impl Assigner {
    /// Takes the definitions of all groups.
    pub fn new<'a>(groups: impl IntoIterator<Item = (&'a GroupName, &'a GroupDefinition)>) -> Self {
        let mut sorted: Vec<_> = groups.into_iter().collect();
        sorted.sort_by_key(|(name, definition)| winning_order(name, definition));
        let ranked = sorted.into_iter().map(|(name, definition)| Ranked::new(name, definition));
        Self(Arc::new(Index::new(ranked.collect())))
    }

    /// Where an agent with these labels belongs.
    pub fn assign(&self, labels: &Labels) -> Assignment {
        let index = &*self.0;
        winner(index.candidates(labels).into_iter().filter_map(|rank| index.groups.get(rank)), labels)
    }

    /// What every group has to do with an agent with these labels: those that select it first, by priority, then the others,
    /// those that miss fewest conditions first.
    pub fn explain(&self, labels: &Labels) -> Vec<Match> {
        let chosen = match self.assign(labels) {
            Assignment::Unmanaged => Vec::new(),
            Assignment::Group(name) => vec![name],
            Assignment::Conflict(names) => names,
        };
        let mut taken = BTreeMap::<&GroupName, &GroupName>::new();
        let mut matches = Vec::with_capacity(self.0.groups.len());
        for group in &self.0.groups {
            let verdict = match group.selector.first_unmet(labels) {
                Some(first) => {
                    let requirements = group.selector.requirements();
                    let unmet = requirements.iter().filter(|requirement| !requirement.matches(labels)).count();
                    Verdict::Unmet { first: first.clone(), unmet }
                }
                None if chosen.contains(&group.name) && chosen.len() == 1 => Verdict::Chosen,
                None if chosen.contains(&group.name) => Verdict::Conflict,
                None => match (taken.get(&group.family), chosen.first()) {
                    (Some(first), _) => Verdict::Varied { by: (*first).clone() },
                    (None, Some(first)) => Verdict::Outranked { by: first.clone() },
                    (None, None) => continue, // who selects an agent is chosen unless somebody else is
                },
            };
            if !matches!(verdict, Verdict::Unmet { .. }) {
                taken.entry(&group.family).or_insert(&group.name);
            }
            matches.push(Match { group: group.name.clone(), priority: group.priority, verdict });
        }
        matches.sort_by_key(|one| match &one.verdict {
            Verdict::Chosen | Verdict::Conflict | Verdict::Outranked { .. } | Verdict::Varied { .. } => 0,
            Verdict::Unmet { first: _, unmet } => *unmet,
        });
        matches
    }
}

/// Who of these gets an agent with these labels; they come in the order in which they win.
pub(super) fn winner<'a>(groups: impl Iterator<Item = &'a Ranked>, labels: &Labels) -> Assignment {
    let mut winners: Vec<&Ranked> = Vec::new();
    for group in groups {
        match winners.last() {
            Some(winner) if winner.priority != group.priority => break,
            Some(winner) if winner.family == group.family => {}
            Some(_) | None if group.selector.matches(labels) => winners.push(group),
            Some(_) | None => {}
        }
    }
    match winners.as_slice() {
        [] => Assignment::Unmanaged,
        [winner] => Assignment::Group(winner.name.clone()),
        several => Assignment::Conflict(several.iter().map(|winner| winner.name.clone()).collect()),
    }
}

/// What sorts groups so that those that win come first.
pub(super) fn winning_order<'a>(name: &'a GroupName, definition: &'a GroupDefinition) -> impl Ord + use<'a> {
    (Reverse(definition.priority), family(name, definition), name)
}

/// The family that a group belongs to and its place in it: variants in their order, the group itself last.
pub(super) fn family<'a>(name: &'a GroupName, definition: &'a GroupDefinition) -> (&'a GroupName, u32) {
    definition.variant_of.as_ref().map_or((name, u32::MAX), |(base, place)| (base, *place))
}

/// A condition as something to look up.
enum Handle<'a> {
    Value(&'a str),
    Beginning(&'a str),
}

/// What a label of this requirement's key has to look like, if anything: one of these.
fn handles(requirement: &Requirement) -> Option<Vec<Handle<'_>>> {
    match requirement.operator() {
        Operator::In => Some(requirement.values().iter().map(|value| Handle::Value(value)).collect()),
        Operator::Glob => Some(requirement.values().iter().map(|glob| Handle::Beginning(beginning(glob))).collect()),
        Operator::Exists => Some(vec![Handle::Beginning("")]),
        Operator::NotIn | Operator::DoesNotExist | Operator::NotGlob => None,
    }
}

/// What everything that a glob matches begins with.
fn beginning(glob: &str) -> &str {
    glob.find(['*', '?', '[', '{', '\\']).map_or(glob, |end| &glob[..end])
}

impl Ranked {
    pub(super) fn new(name: &GroupName, definition: &GroupDefinition) -> Self {
        Self {
            name: name.clone(),
            family: family(name, definition).0.clone(),
            priority: definition.priority,
            selector: definition.selector.clone(),
        }
    }

    pub(super) fn selects(&self, labels: &Labels) -> bool {
        self.selector.matches(labels)
    }
}

impl Index {
    /// Takes groups in [`winning_order`].
    pub(super) fn new(groups: Vec<Ranked>) -> Self {
        let mut shared = BTreeMap::<(&str, bool, &str), usize>::new();
        for requirement in groups.iter().flat_map(|group| group.selector.requirements()) {
            for handle in handles(requirement).into_iter().flatten() {
                *shared.entry(count_key(requirement, &handle)).or_default() += 1;
            }
        }
        let mut by_key = BTreeMap::<Box<str>, KeyIndex>::new();
        let mut always = Vec::new();
        for (rank, group) in groups.iter().enumerate() {
            let rarest = group
                .selector
                .requirements()
                .iter()
                .filter_map(|requirement| Some((requirement, handles(requirement)?)))
                .min_by_key(|(requirement, handles)| {
                    handles
                        .iter()
                        .map(|handle| shared.get(&count_key(requirement, handle)).copied().unwrap_or(0))
                        .sum::<usize>()
                });
            match rarest {
                None => always.push(rank),
                Some((requirement, handles)) => {
                    let key = by_key.entry(requirement.key().into()).or_default();
                    handles.into_iter().for_each(|handle| key.add(&handle, rank));
                }
            }
        }
        Self { groups, by_key, always }
    }

    pub(super) fn get(&self, rank: Rank) -> Option<&Ranked> {
        self.groups.get(rank)
    }

    /// The ranks of all groups that could select an agent with these labels, ascending.
    pub(super) fn candidates(&self, labels: &Labels) -> Vec<Rank> {
        let mut ranks = self.always.clone();
        for (key, value) in labels.iter() {
            if let Some(index) = self.by_key.get(key) {
                index.collect(value, &mut ranks);
            }
        }
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }
}

fn count_key<'a>(requirement: &'a Requirement, handle: &Handle<'a>) -> (&'a str, bool, &'a str) {
    match handle {
        Handle::Value(value) => (requirement.key(), true, value),
        Handle::Beginning(beginning) => (requirement.key(), false, beginning),
    }
}

impl KeyIndex {
    fn add(&mut self, handle: &Handle<'_>, rank: Rank) {
        match *handle {
            Handle::Value(value) => self.values.entry(value.into()).or_default().push(rank),
            Handle::Beginning(beginning) => {
                self.lengths.insert(beginning.len());
                self.beginnings.entry(beginning.into()).or_default().push(rank);
            }
        }
    }

    fn collect(&self, value: &str, ranks: &mut Vec<Rank>) {
        ranks.extend(self.values.get(value).into_iter().flatten());
        for length in &self.lengths {
            // Longer ones are no beginnings, and one that ends within a character is none either.
            if let Some(beginning) = value.get(..*length) {
                ranks.extend(self.beginnings.get(beginning).into_iter().flatten());
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::strategy::Strategy as Rollout;

    pub(in crate::fleet) fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
        Requirement::new(key, operator, values.iter().map(|value| (*value).to_owned()).collect())
            .unwrap_or_else(|error| panic!("{key}: {error}"))
    }

    pub(in crate::fleet) fn definition(priority: i32, requirements: Vec<Requirement>) -> GroupDefinition {
        GroupDefinition {
            selector: Selector::new(requirements),
            priority,
            variant_of: None,
            suspend: false,
            expect: None,
            strategy: Rollout::default(),
        }
    }

    fn name(name: &str) -> GroupName {
        GroupName::new(name)
    }

    type Groups = BTreeMap<GroupName, GroupDefinition>;

    fn fleet() -> Groups {
        use Operator::{Exists, Glob, In, NotIn};
        let gateways = || vec![requirement("service.name", In, &["gateway"])];
        let mut american = definition(10, gateways());
        american.selector = american.selector.and(&Selector::new(vec![requirement("region", In, &["us", "ca"])]));
        american.variant_of = Some((name("prod/gateways"), 0));
        let mut canadian = definition(10, gateways());
        canadian.selector = canadian.selector.and(&Selector::new(vec![requirement("region", In, &["ca"])]));
        canadian.variant_of = Some((name("prod/gateways"), 1));
        [
            ("all", definition(-5, vec![])),
            ("prod/gateways", definition(10, gateways())),
            ("prod/gateways@ca", canadian),
            ("prod/gateways@us", american),
            ("prod/hosts", definition(0, vec![requirement("host.name", Glob, &["gw-*", "db-?"])])),
            ("prod/zoned", definition(0, vec![requirement("zone", Exists, &[]), requirement("env", NotIn, &["dev"])])),
        ]
        .into_iter()
        .map(|(group, definition)| (name(group), definition))
        .collect()
    }

    #[test]
    fn the_highest_priority_wins_and_variants_come_first() {
        let groups = fleet();
        let assigner = Assigner::new(&groups);
        for (labels, expected, why) in [
            (&[][..], Assignment::Group(name("all")), "a group for everybody"),
            (&[("service.name", "gateway")], Assignment::Group(name("prod/gateways")), "no variant matches"),
            (
                &[("service.name", "gateway"), ("region", "ca")],
                Assignment::Group(name("prod/gateways@us")),
                "the first variant of the list, not of the alphabet",
            ),
            (&[("region", "us")], Assignment::Group(name("all")), "a variant needs what its group needs"),
            (
                &[("service.name", "gateway"), ("host.name", "gw-1")],
                Assignment::Group(name("prod/gateways")),
                "a lower priority loses",
            ),
            (&[("host.name", "db-1")], Assignment::Group(name("prod/hosts")), "a glob"),
            (&[("host.name", "db-12")], Assignment::Group(name("all")), "no glob"),
            (
                &[("host.name", "gw-"), ("zone", "a")],
                Assignment::Conflict(vec![name("prod/hosts"), name("prod/zoned")]),
                "equal priorities",
            ),
            (&[("zone", ""), ("env", "dev")], Assignment::Group(name("all")), "NotIn"),
        ] {
            assert_eq!(assigner.assign(&Labels::new(labels.iter().copied())), expected, "{why}");
        }
        assert_eq!(Assigner::default().assign(&Labels::new([("a", "b")])), Assignment::Unmanaged);
    }

    #[test]
    fn every_group_says_why_not() {
        let groups = fleet();
        let labels = Labels::new([("service.name", "gateway"), ("region", "us"), ("host.name", "gw-1")]);
        let shown: Vec<String> = Assigner::new(&groups)
            .explain(&labels)
            .into_iter()
            .map(|one| match one.verdict {
                Verdict::Chosen => format!("{} chosen", one.group),
                Verdict::Conflict => format!("{} conflict", one.group),
                Verdict::Outranked { by } => format!("{} outranked by {by}", one.group),
                Verdict::Varied { by } => format!("{} varied by {by}", one.group),
                Verdict::Unmet { first, unmet } => format!("{} lacks {first} and {} more", one.group, unmet - 1),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "prod/gateways@us chosen",
                "prod/gateways varied by prod/gateways@us",
                "prod/hosts outranked by prod/gateways@us",
                "all outranked by prod/gateways@us",
                "prod/gateways@ca lacks region=ca and 0 more",
                "prod/zoned lacks zone and 0 more",
            ]
        );
        let labels = Labels::new([("host.name", "gw-"), ("zone", "a")]);
        let explained = Assigner::new(&groups).explain(&labels);
        assert_eq!(explained.iter().filter(|one| one.verdict == Verdict::Conflict).count(), 2);
        assert_eq!(explained.len(), groups.len(), "every group is there");
    }

    /// The rules in their plainest form, every group tried.
    fn naive(groups: &Groups, labels: &Labels) -> Assignment {
        let matching: Vec<_> = groups.iter().filter(|(_, group)| group.selector.matches(labels)).collect();
        let highest = matching.iter().map(|(_, group)| group.priority).max();
        let mut families = BTreeMap::<&GroupName, (u32, &GroupName)>::new();
        for (name, group) in matching.into_iter().filter(|(_, group)| Some(group.priority) == highest) {
            let (family, place) = family(name, group);
            let first = families.entry(family).or_insert((place, name));
            if place < first.0 {
                *first = (place, name);
            }
        }
        let names: Vec<GroupName> = families.into_values().map(|(_, name)| name.clone()).collect();
        match names.as_slice() {
            [] => Assignment::Unmanaged,
            [one] => Assignment::Group(one.clone()),
            _ => Assignment::Conflict(names),
        }
    }

    const KEYS: [&str; 3] = ["env", "host", "zone"];
    const VALUES: [&str; 6] = ["a", "ab", "abc", "b", "é", ""];

    pub(in crate::fleet) fn any_requirement() -> impl Strategy<Value = Requirement> {
        let key = prop::sample::select(KEYS.to_vec());
        let values = prop::collection::vec(prop::sample::select(VALUES.to_vec()), 1..3);
        let globs = prop::sample::select(vec!["*", "a*", "ab?", "*b", "[ab]*", "{a,b}c", "a\\*", "?", "é*", "abc"]);
        let globs = prop::collection::vec(globs, 1..3);
        (key, prop::sample::select(Operator::ALL.to_vec()), values, globs).prop_map(|(key, operator, values, globs)| {
            match operator {
                Operator::In | Operator::NotIn => requirement(key, operator, &values),
                Operator::Glob | Operator::NotGlob => requirement(key, operator, &globs),
                Operator::Exists | Operator::DoesNotExist => requirement(key, operator, &[]),
            }
        })
    }

    pub(in crate::fleet) fn any_groups() -> impl Strategy<Value = Groups> {
        let group = (0..3_i32, prop::collection::vec(any_requirement(), 0..4), prop::option::of(any_requirement()));
        prop::collection::vec(group, 0..8).prop_map(|groups| {
            let mut all = Groups::new();
            for (index, (priority, requirements, variant)) in groups.into_iter().enumerate() {
                let base = name(&format!("g{index}"));
                let group = definition(priority, requirements);
                if let Some(variant) = variant {
                    let mut varied = group.clone();
                    varied.selector = varied.selector.and(&Selector::new(vec![variant]));
                    varied.variant_of = Some((base.clone(), 0));
                    all.insert(name(&format!("g{index}@v")), varied);
                }
                all.insert(base, group);
            }
            all
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_trying_every_group_finds(
            groups in any_groups(),
            labels in prop::collection::vec((prop::sample::select(KEYS.to_vec()), prop::sample::select(VALUES.to_vec())), 0..5),
        ) {
            let labels = Labels::new(labels);
            let assigner = Assigner::new(&groups);
            prop_assert_eq!(assigner.assign(&labels), naive(&groups, &labels));
            prop_assert_eq!(assigner.explain(&labels).len(), groups.len());
        }
    }
}
