//! What is risky about how groups roll out, though nothing is wrong with it: changes that reach many before they have proven themselves.

use std::collections::BTreeMap;

use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::fields::Placed;
use crate::fleet::strategy::{Amount, Stage};
use crate::fleet::{GroupDefinition, GroupName};
use crate::yaml::Place;

/// A group that expects more agents than this has somebody to be first.
const LARGE: u32 = 50;

/// A kind of risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Risk {
    /// A change is offered to everybody of a large group at once.
    NoCanary,
    /// Nothing is watched after it was confirmed.
    NoSoak,
}

/// What is risky about a group whose files say these stages; those of no file are not risky.
pub(super) fn risks(definition: &GroupDefinition, written: Option<&Placed<Vec<Stage>>>) -> Vec<(Place, Risk)> {
    let Some(Placed { value: stages, place }) = written else { return Vec::new() };
    let expected = definition.expect.and_then(|expect| expect.min).unwrap_or(0);
    let starts_with_everybody = stages.first().is_some_and(|first| first.agents == Some(Amount::ALL));
    let watches = stages.iter().any(|stage| !stage.soak.is_zero()) || !definition.strategy.bake.is_zero();
    let risks =
        [(starts_with_everybody && expected > LARGE).then_some(Risk::NoCanary), (!watches).then_some(Risk::NoSoak)];
    risks.into_iter().flatten().map(|risk| (place.clone(), risk)).collect()
}

/// The risks of all groups: those that stand at one place are told once, whoever inherits them.
#[derive(Debug, Default)]
pub(super) struct Risks {
    /// The first group of each, and how many more there are.
    found: BTreeMap<(Place, Risk), (GroupName, usize)>,
}

impl Risks {
    /// Takes those of one group.
    pub(super) fn add(&mut self, name: &GroupName, risks: &[(Place, Risk)]) {
        for risk in risks {
            let found = self.found.entry(risk.clone());
            found.and_modify(|(_, more)| *more += 1).or_insert_with(|| (name.clone(), 0));
        }
    }

    /// A warning for each.
    pub(super) fn findings(self) -> impl Iterator<Item = Diagnostic> {
        self.found.into_iter().map(|((place, risk), (name, more))| {
            let whom = match more {
                0 => format!("`{name}`"),
                1 => format!("`{name}` and one more group"),
                more => format!("`{name}` and {more} more groups"),
            };
            let (code, message, help) = match risk {
                Risk::NoCanary => (
                    "no-canary",
                    format!(
                        "a change reaches all agents of {whom} in its first stage, and more than {LARGE} are expected"
                    ),
                    "let a few be first, like `{name: canary, agents: 1%}`, or remove `stages` for the default ones",
                ),
                Risk::NoSoak => (
                    "no-soak",
                    format!("nobody watches what a change does to {whom}: every `soak` and the `bake` are zero"),
                    "say a `bake`, or name the groups in `allowFast` of `fleet.yaml` if that is meant",
                ),
            };
            Diagnostic::warning(code, Some(place), message).help(help)
        })
    }
}
