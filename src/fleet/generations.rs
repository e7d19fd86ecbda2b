//! Where agents belonged before the last commits: several generations of definitions in one index.
//!
//! A generation is the fleet just before a commit that changed who belongs where. Of each only what that commit replaced is known; what
//! it did not touch was as it is in the next one. Definitions that held for many generations stand in the index once, with the
//! generations for which they held, so that a hundred of them cost hardly more than one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::fleet::assign::{Assignment, Index, Ranked, winner, winning_order};
use crate::fleet::{GroupDefinition, GroupName};
use crate::labels::Labels;

/// What a commit replaced; `None`: the group was not there.
pub type Replaced = BTreeMap<GroupName, Option<Arc<GroupDefinition>>>;

/// Who belonged where in each of several generations.
#[derive(Debug, Default)]
pub struct Generations {
    index: Index,
    /// For each group of the index: the generations for which it was defined so, from 0, the oldest.
    held: Vec<Range<usize>>,
    /// How many generations there are.
    count: usize,
}

impl Generations {
    /// Takes what commits replaced, the oldest first, and the definitions as they are now.
    pub fn new<'a>(
        replaced: &'a [&'a Replaced],
        current: impl IntoIterator<Item = (&'a GroupName, &'a GroupDefinition)>,
    ) -> Self {
        // Until which generation each name's definitions are known already.
        let mut known = BTreeMap::<&GroupName, usize>::new();
        let mut all: Vec<(&GroupName, &GroupDefinition, Range<usize>)> = Vec::new();
        for (generation, names) in replaced.iter().enumerate() {
            for (name, definition) in *names {
                let from = known.insert(name, generation + 1).unwrap_or(0);
                all.extend(definition.iter().map(|definition| (name, &**definition, from..generation + 1)));
            }
        }
        for (name, definition) in current {
            let from = known.get(name).copied().unwrap_or(0);
            all.extend((from < replaced.len()).then_some((name, definition, from..replaced.len())));
        }
        all.sort_by(|(one, of_one, _), (other, of_other, _)| {
            winning_order(one, of_one).cmp(&winning_order(other, of_other))
        });
        let index = Index::new(all.iter().map(|(name, definition, _)| Ranked::new(name, definition)).collect());
        Self { index, held: all.into_iter().map(|(_, _, held)| held).collect(), count: replaced.len() }
    }

    /// Every place in which agents with these labels belonged in some generation, the oldest first; the same in a row once.
    pub fn belonged(&self, labels: &Labels) -> Vec<Assignment> {
        let ranks = self.index.candidates(labels).into_iter();
        let matching: Vec<(&Ranked, &Range<usize>)> =
            ranks.filter_map(|rank| self.index.get(rank).zip(self.held.get(rank))).collect();
        let matching: Vec<_> = matching.into_iter().filter(|(group, _)| group.selects(labels)).collect();
        // Only where a definition begins or ends to hold may the answer be another one.
        let bounds = matching.iter().flat_map(|(_, held)| [held.start, held.end]);
        let bounds: BTreeSet<usize> = bounds.chain([0]).filter(|generation| *generation < self.count).collect();
        let mut places = Vec::new();
        for generation in bounds {
            let held = matching.iter().filter(|(_, held)| held.contains(&generation)).map(|(group, _)| *group);
            let place = winner(held, labels);
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::assign::Assigner;
    use crate::fleet::assign::tests::{definition, requirement};
    use crate::labels::Operator;

    type Fleet = BTreeMap<GroupName, Arc<GroupDefinition>>;

    fn difference(before: &Fleet, after: &Fleet) -> Replaced {
        let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
        changed.map(|name| (name.clone(), before.get(name).cloned())).collect()
    }

    fn fleets() -> impl Strategy<Value = Vec<Fleet>> {
        let value = prop_oneof![Just("a"), Just("b"), Just("c")];
        let group = (value, 0..3_i32).prop_map(|(value, priority)| {
            Arc::new(definition(priority, vec![requirement("ring", Operator::In, &[value])]))
        });
        let name = prop_oneof![Just("one"), Just("two"), Just("three"), Just("four")].prop_map(GroupName::new);
        prop::collection::vec(prop::collection::btree_map(name, group, 0..4), 2..8)
    }

    proptest! {
        /// One index says what an assigner of each generation would say.
        #[test]
        fn each_generation_is_as_it_was(fleets in fleets(), ring in prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")]) {
            let labels = Labels::new([("ring".to_owned(), ring.to_owned())]);
            let replaced: Vec<Replaced> = fleets.windows(2).map(|pair| difference(&pair[0], &pair[1])).collect();
            let borrowed: Vec<&Replaced> = replaced.iter().collect();
            let current = fleets.last().expect("at least two");
            let one = Generations::new(&borrowed, current.iter().map(|(name, definition)| (name, &**definition)));
            let mut expected: Vec<Assignment> = Vec::new();
            for fleet in &fleets[..fleets.len() - 1] {
                let place = Assigner::new(fleet.iter().map(|(name, definition)| (name, &**definition))).assign(&labels);
                if expected.last() != Some(&place) {
                    expected.push(place);
                }
            }
            prop_assert_eq!(one.belonged(&labels), expected);
        }
    }

    #[test]
    fn nothing_replaced_is_nothing_known() {
        let labels = Labels::new([("ring".to_owned(), "a".to_owned())]);
        let group = definition(0, vec![requirement("ring", Operator::In, &["a"])]);
        let name = GroupName::new("one");
        assert_eq!(Generations::new(&[], [(&name, &group)]).belonged(&labels), []);
    }
}
