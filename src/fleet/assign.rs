//! Who belongs where: an agent's labels against the selectors of all groups.

use crate::fleet::{GroupDefinition, GroupName};
use crate::labels::Labels;

/// The selectors and priorities of all groups.
#[derive(Clone, Debug, Default)]
pub struct Assigner(Vec<(GroupName, GroupDefinition)>);

/// Where an agent belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// No group selects it.
    Unmanaged,
    /// Here.
    Group(GroupName),
    /// Several groups select it at equal priority.
    Conflict(Vec<GroupName>),
}

impl Assigner {
    /// Takes the definitions of all groups.
    pub fn new<'a>(groups: impl IntoIterator<Item = (&'a GroupName, &'a GroupDefinition)>) -> Self {
        Self(groups.into_iter().map(|(name, definition)| (name.clone(), definition.clone())).collect())
    }

    /// Where an agent with these labels belongs: the highest priority wins; of one family, the first variant that matches.
    pub fn assign(&self, labels: &Labels) -> Assignment {
        let family = |(name, definition): &&(GroupName, GroupDefinition)| {
            definition.variant_of.clone().unwrap_or((name.clone(), u32::MAX))
        };
        let mut matching: Vec<_> =
            self.0.iter().filter(|(_, definition)| definition.selector.matches(labels)).collect();
        matching.sort_by_key(|one| (-i64::from(one.1.priority), family(one)));
        matching.dedup_by_key(|one| family(one).0);
        let highest = matching.first().map(|(_, definition)| definition.priority);
        matching.retain(|(_, definition)| Some(definition.priority) == highest);
        match matching.as_slice() {
            [] => Assignment::Unmanaged,
            [(name, _)] => Assignment::Group(name.clone()),
            several => Assignment::Conflict(several.iter().map(|(name, _)| name.clone()).collect()),
        }
    }
}
