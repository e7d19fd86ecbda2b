//! One layer over another, by the collector's own rules.

use std::collections::BTreeMap;

use crate::yaml::node::{Entry, Kind, Node};

/// Puts `over` on top of `base` as `confmap` does it: maps are merged key by key, everything else is replaced as a whole, lists,
/// scalars and null too. So a map replaces a null, a null replaces a map, and an empty map over a map changes nothing. Keys are
/// the same when their texts are; they keep their order, new ones come last.
///
/// Layers are merged from the first to the last. As long as no key is a map in one layer and something else in another, the
/// merge is associative; otherwise that order decides, as it does in the collector.
#[must_use]
pub fn merge(base: Node, over: Node) -> Node {
    match (base.kind, over.kind) {
        (Kind::Mapping(entries), Kind::Mapping(others)) => {
            Node { kind: Kind::Mapping(merge_entries(entries, others)), tag: over.tag.or(base.tag), place: base.place }
        }
        (_, kind) => Node { kind, tag: over.tag, place: over.place },
    }
}

fn merge_entries(entries: Vec<Entry>, others: Vec<Entry>) -> Vec<Entry> {
    let mut merged: Vec<Option<Entry>> = entries.into_iter().map(Some).collect();
    let mut index = BTreeMap::<Box<str>, usize>::new();
    for (at, entry) in merged.iter().enumerate() {
        if let Some(key) = entry.as_ref().and_then(|entry| entry.key.as_str()) {
            index.insert(key.into(), at);
        }
    }
    for Entry { key, value } in others {
        let slot = key.as_str().and_then(|key| index.get(key)).and_then(|at| merged.get_mut(*at));
        match slot {
            Some(slot) => {
                *slot = slot.take().map(|entry| Entry { key, value: merge(entry.value, value) });
            }
            None => merged.push(Some(Entry { key, value })),
        }
    }
    merged.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::testing::{consistent_document, document, read};
    use crate::yaml::{config_hash, emit};

    #[test]
    fn layers_merge_as_confmap_does() {
        // Each row was compared with confmap v1.55.0.
        for (base, over, expected, why) in [
            ("a: {b: 1}", "a: {c: 2}", "a: {b: 1, c: 2}", "maps merge"),
            ("a: {b: 1}", "a: {b: 2}", "a: {b: 2}", "scalars are replaced"),
            ("a: [1, 2]", "a: [3]", "a: [3]", "lists are replaced"),
            ("a: [{b: 1}]", "a: [{c: 1}]", "a: [{c: 1}]", "and nothing within lists is merged"),
            ("a: {b: 1}", "a:", "a:", "null replaces a map"),
            ("a: {b: 1}", "a: ~", "a: ~", "however it is written"),
            ("a: {b: 1}", "a: {}", "a: {b: 1}", "an empty map adds nothing"),
            ("a:", "a: {b: 1}", "a: {b: 1}", "a map replaces null"),
            ("a: 1", "a: {b: 1}", "a: {b: 1}", "a map replaces a scalar"),
            ("a: {b: 1}", "a: 1", "a: 1", "a scalar replaces a map"),
            ("a: {b: 1}", "a: []", "a: []", "an empty list replaces a map"),
            ("a: [1]", "a: {}", "a: {}", "an empty map replaces a list"),
            ("a: 1\nb: 2", "c: 3\na: 4", "a: 4\nb: 2\nc: 3", "keys keep their places, new ones come last"),
            ("a: 012", "a: '012'", "a: '012'", "with the style of the value that wins"),
            ("a: !x {b: 1}", "a: {c: 1}", "a: !x {b: 1, c: 1}", "a tag stays until another replaces it"),
            ("\"a\": 1", "a: 2", "a: 2", "keys are compared by their text"),
            ("{}", "a: 1", "a: 1", "an empty document below"),
        ] {
            let merged = merge(read(base), read(over));
            assert!(merged.is_same(&read(expected)), "{why}: {}", emit(&merged));
        }
    }

    #[test]
    fn what_is_a_map_here_and_no_map_there_depends_on_the_order() {
        let (one, two, three) = (read("a: {b: 1}"), read("a: 2"), read("a: {c: 3}"));
        let first = merge(merge(one.clone(), two.clone()), three.clone());
        assert!(first.is_same(&read("a: {c: 3}")), "layers from first to last, as the collector does");
        assert!(!merge(one, merge(two, three)).is_same(&first), "another grouping is another result");
    }

    fn keys(node: &Node) -> Vec<&str> {
        node.as_mapping().unwrap_or_default().iter().filter_map(|entry| entry.key.as_str()).collect()
    }

    proptest! {
        #[test]
        fn merging_is_associative(one in consistent_document(), two in consistent_document(), three in consistent_document()) {
            let left = merge(merge(one.clone(), two.clone()), three.clone());
            let right = merge(one, merge(two, three));
            prop_assert!(left.is_same(&right), "{}\n{}", emit(&left), emit(&right));
        }

        #[test]
        fn merging_a_document_with_itself_changes_nothing(one in document()) {
            prop_assert!(merge(one.clone(), one.clone()).is_same(&one));
        }

        #[test]
        fn merging_the_same_layer_twice_is_merging_it_once(one in document(), two in document()) {
            let once = merge(one, two.clone());
            prop_assert!(merge(once.clone(), two).is_same(&once));
        }

        #[test]
        fn merging_keeps_the_order_of_keys(one in consistent_document(), two in consistent_document()) {
            let merged = merge(one.clone(), two.clone());
            let (before, added) = (keys(&one), keys(&two));
            let expected: Vec<&str> =
                before.iter().copied().chain(added.iter().copied().filter(|key| !before.contains(key))).collect();
            prop_assert_eq!(keys(&merged), expected);
        }

        #[test]
        fn order_of_disjoint_layers_does_not_change_the_hash(one in consistent_document()) {
            let entries = one.as_mapping().unwrap_or_default().to_vec();
            let (front, back) = entries.split_at(entries.len() / 2);
            let half = |entries: &[Entry]| Node::mapping(entries.to_vec(), one.place.clone());
            prop_assert_eq!(config_hash(&merge(half(front), half(back))), config_hash(&merge(half(back), half(front))));
        }
    }
}
