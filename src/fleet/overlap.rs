//! Groups that can select the same agent at equal priority, found before an agent shows it, each pair with an example.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::assign::{Assigner, Assignment, family};
use crate::fleet::{GroupDefinition, GroupName};
use crate::labels::{Labels, Operator, Requirement, Selector};

/// Most pairs of groups that are looked at; a fleet whose selectors name different labels for every group has more. Looking at
/// one takes less than a microsecond, unless an example must be found.
const MOST_PAIRS: usize = 1_000_000;

/// Most pairs for which an example is searched, at some ten microseconds each.
const MOST_SEARCHES: usize = 50_000;

/// Most pairs that are counted beyond those that are returned.
pub const MOST_COUNTED: usize = 1_000;

/// Most patterns of one condition that examples are made from.
const MOST_PATTERNS: usize = 8;

/// Two groups that conflict over some agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The one, earlier by name.
    pub one: GroupName,
    /// The other.
    pub other: GroupName,
    /// The priority of both.
    pub priority: i32,
    /// Labels that both selectors match.
    pub example: Labels,
}

/// What was found, and how much was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlaps {
    /// One entry for each pair of families, in order of priority and name.
    pub found: Vec<Overlap>,
    /// How many more pairs there are; at most [`MOST_COUNTED`].
    pub more: usize,
    /// True when the search ended early: there may be more than that.
    pub is_cut: bool,
}

/// Pairs of groups of different families and equal priority that can select one agent; at most `most`.
///
/// Every pair that is returned is real: its example was tried on both selectors. A pair is left out when another group of higher
/// priority takes every agent that both select, and may be missed when only unusual globs (or none of the obvious values)
/// would show it.
pub fn overlaps<'a>(groups: impl IntoIterator<Item = (&'a GroupName, &'a GroupDefinition)>, most: usize) -> Overlaps {
    let groups: Vec<_> = groups.into_iter().collect();
    let mut classes = BTreeMap::<i32, BTreeMap<Vec<&str>, Vec<Pinned<'_>>>>::new();
    for (name, definition) in &groups {
        if let Some(pinned) = Pinned::new(name, definition) {
            let signature = pinned.pins.keys().copied().collect();
            classes.entry(definition.priority).or_default().entry(signature).or_default().push(pinned);
        }
    }
    let mut search = Search {
        groups: &groups,
        everybody: None,
        most,
        pairs: 0,
        searches: 0,
        families: BTreeSet::new(),
        found: Vec::new(),
        more: 0,
    };
    let is_cut = search.classes(&classes).is_none();
    let (mut found, more) = (search.found, search.more);
    found.sort_by(|one, other| {
        other.priority.cmp(&one.priority).then_with(|| (&one.one, &one.other).cmp(&(&other.one, &other.other)))
    });
    Overlaps { found, more, is_cut }
}

/// A group with the values that its selector pins labels to.
struct Pinned<'a> {
    name: &'a GroupName,
    family: &'a GroupName,
    selector: &'a Selector,
    /// For each label with `In`: the values that meet every condition on it, ascending.
    pins: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Pinned<'a> {
    /// `None` when no value is left for some label: such a group selects nobody.
    fn new(name: &'a GroupName, definition: &'a GroupDefinition) -> Option<Self> {
        let mut by_key = BTreeMap::<&str, Vec<&Requirement>>::new();
        for requirement in definition.selector.requirements() {
            by_key.entry(requirement.key()).or_default().push(requirement);
        }
        let mut pins = BTreeMap::new();
        for (key, requirements) in by_key {
            let Some(among) = requirements.iter().find(|one| one.operator() == Operator::In) else { continue };
            let mut values: Vec<&str> = among.values().iter().map(String::as_str).collect();
            if requirements.len() > 1 {
                values.retain(|value| meets(key, value, &requirements));
            }
            values.sort_unstable();
            values.dedup();
            if values.is_empty() {
                return None;
            }
            pins.insert(key, values);
        }
        Some(Self { name, family: family(name, definition).0, selector: &definition.selector, pins })
    }

    /// True unless a label is pinned to different values.
    fn may_meet(&self, other: &Self) -> bool {
        self.pins
            .iter()
            .all(|(key, values)| other.pins.get(key).is_none_or(|others| first_common(values, others).is_some()))
    }
}

/// The first value that both sorted lists have.
fn first_common<'v>(mut values: &[&'v str], mut others: &[&'v str]) -> Option<&'v str> {
    while let ([value, ..], [other, ..]) = (values, others) {
        match value.cmp(other) {
            Ordering::Equal => return Some(value),
            Ordering::Less => values = &values[1..],
            Ordering::Greater => others = &others[1..],
        }
    }
    None
}

/// The search and what it may still do. `None` from its methods: it has found or tried enough.
struct Search<'a> {
    groups: &'a [(&'a GroupName, &'a GroupDefinition)],
    /// Who gets whom, and by which definition: made when it is asked for, because most fleets have no overlaps.
    everybody: Option<(Assigner, BTreeMap<&'a GroupName, &'a GroupDefinition>)>,
    most: usize,
    pairs: usize,
    searches: usize,
    /// Pairs of families that are among the findings.
    families: BTreeSet<(&'a GroupName, &'a GroupName)>,
    found: Vec<Overlap>,
    more: usize,
}

impl<'a> Search<'a> {
    /// Within a priority, groups that pin the same labels stand together, so that a shared label with few common values can be
    /// used to find the pairs worth looking at.
    fn classes(&mut self, classes: &BTreeMap<i32, BTreeMap<Vec<&str>, Vec<Pinned<'a>>>>) -> Option<()> {
        for (priority, signatures) in classes.iter().rev() {
            let signatures: Vec<_> = signatures.iter().collect();
            for (at, (keys, ones)) in signatures.iter().enumerate() {
                for (other_keys, others) in signatures.iter().skip(at) {
                    self.count_pair()?;
                    let shared = keys.iter().copied().filter(|key| other_keys.contains(key));
                    self.join(*priority, shared, ones, others)?;
                }
            }
        }
        Some(())
    }

    fn join<'k>(
        &mut self,
        priority: i32,
        shared: impl Iterator<Item = &'k str>,
        ones: &[Pinned<'a>],
        others: &[Pinned<'a>],
    ) -> Option<()> {
        let same = std::ptr::eq(ones, others);
        let tables = shared.map(|key| (key, by_value(key, ones), by_value(key, others)));
        let size = |(_, left, right): &(&str, ByValue<'_>, ByValue<'_>)| -> usize {
            left.iter().map(|(value, at)| at.len() * right.get(value).map_or(0, Vec::len)).sum()
        };
        let Some((key, left, right)) = tables.min_by_key(size) else {
            for (at, one) in ones.iter().enumerate() {
                for other in others.iter().skip(if same { at + 1 } else { 0 }) {
                    self.pair(priority, one, other)?;
                }
            }
            return Some(());
        };
        for (value, at) in &left {
            for (at, with) in
                at.iter().flat_map(|at| right.get(value).into_iter().flatten().map(move |with| (*at, *with)))
            {
                let (Some(one), Some(other)) = (ones.get(at), others.get(with)) else { continue };
                let common =
                    one.pins.get(key).zip(other.pins.get(key)).and_then(|(one, other)| first_common(one, other));
                // Each pair once: not mirrored, and only below the first value that both have.
                if (!same || at < with) && common == Some(*value) {
                    self.pair(priority, one, other)?;
                } else {
                    self.count_pair()?;
                }
            }
        }
        Some(())
    }

    fn pair(&mut self, priority: i32, one: &Pinned<'a>, other: &Pinned<'a>) -> Option<()> {
        self.count_pair()?;
        let (one, other) = if one.name < other.name { (one, other) } else { (other, one) };
        let families = (one.family.min(other.family), one.family.max(other.family));
        if one.family == other.family || !one.may_meet(other) || self.families.contains(&families) {
            return Some(());
        }
        self.searches += 1;
        if self.searches > MOST_SEARCHES {
            return None;
        }
        let Some(example) = example(one.selector, other.selector) else { return Some(()) };
        if self.is_shadowed(&example, priority, one.selector, other.selector) {
            return Some(());
        }
        self.families.insert(families);
        if self.found.len() < self.most {
            self.found.push(Overlap { one: one.name.clone(), other: other.name.clone(), priority, example });
            return Some(());
        }
        self.more += 1;
        (self.more < MOST_COUNTED).then_some(())
    }

    /// True when a group of higher priority selects everybody that both select: it asks for nothing that they do not ask for.
    fn is_shadowed(&mut self, example: &Labels, priority: i32, one: &Selector, other: &Selector) -> bool {
        let groups = self.groups;
        let (assigner, definitions) = self
            .everybody
            .get_or_insert_with(|| (Assigner::new(groups.iter().copied()), groups.iter().copied().collect()));
        let winner = match assigner.assign(example) {
            Assignment::Unmanaged | Assignment::Conflict(_) => return false,
            Assignment::Group(winner) => winner,
        };
        let asked = |wanted: &Requirement| one.requirements().contains(wanted) || other.requirements().contains(wanted);
        definitions
            .get(&winner)
            .is_some_and(|winner| winner.priority > priority && winner.selector.requirements().iter().all(asked))
    }

    fn count_pair(&mut self) -> Option<()> {
        self.pairs += 1;
        (self.pairs <= MOST_PAIRS).then_some(())
    }
}

type ByValue<'a> = BTreeMap<&'a str, Vec<usize>>;

fn by_value<'p, 'a: 'p>(key: &str, groups: &'p [Pinned<'a>]) -> ByValue<'p> {
    let mut table = ByValue::new();
    for (at, group) in groups.iter().enumerate() {
        for value in group.pins.get(key).into_iter().flatten() {
            table.entry(*value).or_default().push(at);
        }
    }
    table
}

fn meets(key: &str, value: &str, requirements: &[&Requirement]) -> bool {
    let labels = somebody(requirements, [(key, value)]);
    requirements.iter().all(|requirement| requirement.matches(&labels))
}

/// An agent with these labels; where a condition looks at what is proven, one that proved them, and who it is.
fn somebody<K: Into<String>, V: Into<String>>(
    requirements: &[&Requirement],
    labels: impl IntoIterator<Item = (K, V)>,
) -> Labels {
    if !requirements.iter().any(|requirement| requirement.demands_proof()) {
        return Labels::new(labels);
    }
    let own = (PROOF.to_owned(), "example".to_owned());
    Labels::proven(labels.into_iter().map(|(key, value)| (key.into(), value.into())).chain([own]))
}

/// What an example agent proves when nothing else is asked for.
const PROOF: &str = "token.name";

/// Labels that both selectors match, as few as possible; `None` when there are none, or none were found.
fn example(one: &Selector, other: &Selector) -> Option<Labels> {
    let mut by_key = BTreeMap::<&str, Vec<&Requirement>>::new();
    for requirement in one.requirements().iter().chain(other.requirements()) {
        by_key.entry(requirement.key()).or_default().push(requirement);
    }
    let mut labels = Vec::new();
    for (key, requirements) in by_key {
        let absent = somebody(&requirements, [("", ""); 0]);
        if key != PROOF && requirements.iter().all(|requirement| requirement.matches(&absent)) {
            continue;
        }
        let value = values_to_try(&requirements).into_iter().find(|value| meets(key, value, &requirements))?;
        labels.push((key, value));
    }
    let all: Vec<&Requirement> = one.requirements().iter().chain(other.requirements()).collect();
    let labels = somebody(&all, labels);
    (one.matches(&labels) && other.matches(&labels)).then_some(labels)
}

/// Values of one label that may meet conditions, the likeliest first.
fn values_to_try(requirements: &[&Requirement]) -> Vec<String> {
    let pinned = requirements.iter().filter(|one| one.operator() == Operator::In).min_by_key(|one| one.values().len());
    if let Some(pinned) = pinned {
        return pinned.values().to_vec();
    }
    let globs: Vec<&str> = requirements
        .iter()
        .filter(|one| one.operator() == Operator::Glob)
        .flat_map(|one| one.values().iter().take(MOST_PATTERNS).map(String::as_str))
        .collect();
    let fills = ["", "1", "example"];
    let mut values: Vec<String> = globs.iter().flat_map(|glob| fills.map(|fill| sample(glob, fill))).collect();
    // `gw-*` and `*-eu` meet in `gw-` + `-eu`, or around something.
    for one in &globs {
        for other in &globs {
            let (start, end) = (one.split(META).next().unwrap_or(""), other.rsplit(META).next().unwrap_or(""));
            values.extend(fills.map(|fill| format!("{start}{fill}{end}")));
        }
    }
    values.extend(["example", "1", "other-example"].map(str::to_owned));
    values
}

/// The characters that mean something in a glob.
const META: [char; 8] = ['*', '?', '[', ']', '{', '}', '\\', ','];

/// A text that a glob may match: stars become `fill`, of alternatives and classes the first is taken.
fn sample(glob: &str, fill: &str) -> String {
    let mut text = String::new();
    let mut rest = glob.chars();
    while let Some(one) = rest.next() {
        match one {
            '*' => text.push_str(fill),
            '?' => text.push('1'),
            '\\' => text.extend(rest.next()),
            '[' => {
                let class: String = rest.by_ref().take_while(|one| *one != ']').collect();
                text.extend(if class.starts_with(['!', '^']) { Some('1') } else { class.chars().next() });
            }
            '{' => {
                let choices: String = rest.by_ref().take_while(|one| *one != '}').collect();
                text.push_str(&sample(choices.split(',').next().unwrap_or_default(), fill));
            }
            one => text.push(one),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::assign::tests::{any_groups, definition, requirement};

    type Conditions<'a> = &'a [(&'a str, Operator, &'a [&'a str])];

    fn find(groups: &[(&str, i32, Conditions<'_>)]) -> Vec<String> {
        let groups: BTreeMap<GroupName, GroupDefinition> = groups
            .iter()
            .map(|(name, priority, requirements)| {
                let requirements =
                    requirements.iter().map(|(key, operator, values)| requirement(key, *operator, values));
                (GroupName::new(*name), definition(*priority, requirements.collect()))
            })
            .collect();
        let overlaps = overlaps(&groups, 100);
        assert!(!overlaps.is_cut);
        overlaps
            .found
            .iter()
            .map(|one| format!("{} {} {}: {}", one.one, one.other, one.priority, one.example))
            .collect()
    }

    #[test]
    fn overlaps_are_shown_by_examples() {
        use Operator::{DoesNotExist, Exists, Glob, In, NotGlob, NotIn};
        for (one, other, expected, why) in [
            (&[("env", In, &["prod"][..])][..], &[("env", In, &["dev"][..])][..], None, "different values"),
            (&[("env", In, &["prod", "dev"])], &[("env", In, &["dev", "test"])], Some("env=dev"), "a common value"),
            (&[("env", In, &["prod"])], &[("region", In, &["eu"])], Some("env=prod, region=eu"), "different labels"),
            (&[], &[("region", In, &["eu"])], Some("region=eu"), "one is for everybody"),
            (
                &[("env", In, &["prod"]), ("a", In, &["1"])],
                &[("env", In, &["prod"]), ("a", In, &["2"])],
                None,
                "one label differs",
            ),
            (&[("env", Exists, &[])], &[("env", DoesNotExist, &[])], None, "there and absent"),
            (&[("env", Exists, &[])], &[("env", NotIn, &["example"])], Some("env=1"), "some other value"),
            (&[("env", NotIn, &["a"])], &[("env", DoesNotExist, &[])], Some(""), "nobody needs the label"),
            (&[("host", Glob, &["gw-*"])], &[("host", Glob, &["db-*"])], None, "different beginnings"),
            (&[("host", Glob, &["gw-*"])], &[("host", Glob, &["*-eu"])], Some("host=gw--eu"), "beginning and end"),
            (&[("host", Glob, &["gw-*"])], &[("host", NotGlob, &["gw-"])], Some("host=gw-1"), "an exception"),
            (
                &[("host", Glob, &["gw-?"])],
                &[("host", In, &["gw-12", "gw-2"])],
                Some("host=gw-2"),
                "a value that matches",
            ),
            (
                &[("host", Glob, &["{a,b}[x-z]\\*"])],
                &[("host", Exists, &[])],
                Some("host=ax*"),
                "a glob with everything",
            ),
            (&[("env", In, &["a"]), ("env", In, &["b"])], &[("env", Exists, &[])], None, "one selects nobody"),
        ] as [(Conditions<'_>, Conditions<'_>, Option<&str>, &str); 14]
        {
            let found = find(&[("a", 5, one), ("b", 5, other)]);
            let expected: Vec<String> = expected.map(|labels| format!("a b 5: {labels}")).into_iter().collect();
            assert_eq!(found, expected, "{why}");
            assert_eq!(find(&[("a", 5, one), ("b", 6, other)]), [""; 0], "{why}: not at different priorities");
        }
    }

    #[test]
    fn what_a_higher_priority_takes_anyway_is_no_overlap() {
        use Operator::In;
        let (one, other) = (&[("env", In, &["prod"][..])][..], &[("region", In, &["eu"][..])][..]);
        let both = &[("env", In, &["prod"][..]), ("region", In, &["eu"])][..];
        assert_eq!(find(&[("a", 0, one), ("b", 0, other), ("c", 1, both)]), [""; 0]);
        assert_eq!(find(&[("a", 0, one), ("b", 0, other), ("c", -1, both)]).len(), 1, "a lower one takes nothing");
        let narrow = &[("env", In, &["prod"][..]), ("zone", In, &["x"])][..];
        assert_eq!(find(&[("a", 0, one), ("b", 0, other), ("c", 1, narrow)]).len(), 1, "a narrower one leaves some");
    }

    #[test]
    fn large_fleets_are_searched_within_bounds() {
        use Operator::In;
        let group = |index: usize, keys: &[(&str, usize)]| {
            let values = keys.iter().map(|(key, values)| requirement(key, In, &[&format!("v{}", index % values)]));
            (GroupName::new(format!("g{index:05}")), definition(0, values.collect()))
        };
        let clean: BTreeMap<_, _> =
            (0..10_000).map(|index| group(index, &[("env", 3), ("service.name", 10_000)])).collect();
        assert_eq!(overlaps(&clean, 20), Overlaps::default(), "every group has a service of its own");
        let hopeless: BTreeMap<_, _> = (0..10_000).map(|index| group(index, &[("env", 3)])).collect();
        let found = overlaps(&hopeless, 20);
        assert_eq!(
            (found.found.len(), found.more, found.is_cut),
            (20, MOST_COUNTED, true),
            "thousands share each environment"
        );
    }

    proptest! {
        #[test]
        fn every_example_is_real(groups in any_groups()) {
            for one in overlaps(&groups, 50).found {
                for name in [&one.one, &one.other] {
                    prop_assert!(groups[name].selector.matches(&one.example), "{name} {}", one.example);
                    prop_assert_eq!(groups[name].priority, one.priority);
                }
                prop_assert_ne!(family(&one.one, &groups[&one.one]).0, family(&one.other, &groups[&one.other]).0);
            }
        }

        #[test]
        fn whoever_conflicts_over_an_agent_of_listed_values_is_found(
            groups in any_groups(),
            labels in prop::collection::vec((prop::sample::select(vec!["env", "host", "zone"]), prop::sample::select(vec!["a", "ab", "b"])), 0..4),
        ) {
            // Without globs the search misses nothing.
            let exact = |group: &GroupDefinition| {
                group.selector.requirements().iter().all(|one| !matches!(one.operator(), Operator::Glob | Operator::NotGlob))
            };
            let groups: BTreeMap<_, _> = groups.into_iter().filter(|(_, group)| exact(group)).collect();
            if let Assignment::Conflict(names) = Assigner::new(&groups).assign(&Labels::new(labels)) {
                let found = overlaps(&groups, 1_000).found;
                let families: BTreeSet<&GroupName> = names.iter().map(|name| family(name, &groups[name]).0).collect();
                let pair: Vec<&&GroupName> = families.iter().take(2).collect();
                let is_pair = |one: &Overlap| {
                    let pair_found = BTreeSet::from([family(&one.one, &groups[&one.one]).0, family(&one.other, &groups[&one.other]).0]);
                    pair_found == BTreeSet::from([*pair[0], *pair[1]])
                };
                prop_assert!(found.iter().any(is_pair), "{names:?} {found:?}");
            }
        }
    }
}
