//! What the repository says: from the files of one commit to the groups, who belongs to them, and the one configuration each gets.

pub mod assign;
mod dependencies;
pub mod diagnostic;
mod document;
mod doubtful;
mod family;
mod fields;
pub mod generations;
mod group_file;
pub mod guards;
mod inheritance;
mod layout;
mod lint;
mod load;
#[cfg(test)]
mod load_tests;
mod matching;
mod opening;
pub mod overlap;
mod policy;
mod recipe;
mod render;
mod risks;
mod rollout_section;
mod secrets;
mod signers;
pub mod snapshot;
pub mod strategy;
mod trailer;
mod tree;
mod window;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::RenderedConfig;
use crate::fleet::diagnostic::Diagnostic;
pub use crate::fleet::strategy::Expect;
use crate::fleet::strategy::Strategy;
use crate::labels::Selector;

pub use load::{Memory, load, load_after};
pub use opening::OutsideWindows;
pub use policy::{Bounds, Policy};
pub use signers::{Forbidden, SignerRules};
pub use window::{NotAWindow, Span, Window};

/// A group's path below the fleet root (`prod/gateways`), with `@variant` behind it for a variant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// The group of this name; whoever makes one has checked it (layout, journal).
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A group without its configuration: who belongs to it and how changes reach them. Everything inherited is already in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDefinition {
    /// The group's own selector and those of its ancestors and boundaries.
    pub selector: Selector,
    /// The highest wins.
    pub priority: i32,
    /// For a variant: the group it varies, and its place among the variants (the first that matches wins, all come before the
    /// base).
    pub variant_of: Option<(GroupName, u32)>,
    /// True when its agents are to be left as they are.
    pub suspend: bool,
    /// How many agents should match.
    pub expect: Option<Expect>,
    /// How changes arrive.
    pub strategy: Strategy,
}

/// One group of a revision. A group without a definition may have variants that nobody can name any more: whoever knows them from an
/// earlier revision keeps them as they were, and does not take them for removed.
#[derive(Clone, Debug)]
pub struct RenderedGroup {
    /// Its definition; `None` when its files are too broken to tell (then its last good one stays).
    pub definition: Option<Arc<GroupDefinition>>,
    /// Its configuration; `None` when it is rejected (then its last good one stays). The errors are among the diagnostics.
    pub config: Option<RenderedConfig>,
    /// The paths of the layers that it is made of, in their order.
    pub layers: Arc<[Arc<str>]>,
}

/// What one commit says, complete and immutable.
#[derive(Clone, Debug, Default)]
pub struct RenderedFleet {
    /// All groups, variants included.
    pub groups: BTreeMap<GroupName, RenderedGroup>,
    /// `fleet.yaml` as it stands in the commit, the policy that the NEXT revision is judged by once this one is accepted.
    /// `None`: there is none.
    pub policy: Option<Bytes>,
    /// The policy that this revision was judged by: boundaries are in the definitions already, guards and budgets are for the
    /// controller.
    pub judged_by: Arc<Policy>,
    /// Every finding, by place. An error without a group rejects the whole commit.
    pub diagnostics: Vec<Diagnostic>,
}
