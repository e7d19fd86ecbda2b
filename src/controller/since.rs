//! Going back to how everything was at some time: what each group had then, and why some stay as they are.

use crate::config::ConfigHash;
use crate::controller::orders::Target;
use crate::controller::{Controller, GroupState};
use crate::time::Timestamp;
use crate::view::command::Refusal;

/// Why a group stays as it is while others go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stays {
    /// What it had then is not retained any more.
    Lost,
    /// Nothing was stable in it then.
    HadNothing,
}

impl Stays {
    /// For the operator.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Lost => "what it had then is not retained any more; revert the commit",
            Self::HadNothing => "nothing was stable in it then, so that there is nothing to go back to",
        }
    }
}

/// What becomes of one group.
enum Past {
    /// It has what it had then.
    Unchanged,
    /// It goes back to this.
    Had(ConfigHash),
    /// It changed, and cannot go back.
    Stays(Stays),
}

impl Controller {
    /// The groups whose configuration changed since, each with what it had before.
    ///
    /// # Errors
    /// When there is none that could go back, with what stands in its way.
    pub(super) fn changed_since(&self, since: Timestamp) -> Result<Target, Refusal> {
        let mut changed = Vec::new();
        let mut staying = Vec::new();
        for (name, state) in &self.groups {
            match past(state, since) {
                Past::Unchanged => {}
                Past::Had(hash) => changed.push((name.clone(), hash)),
                Past::Stays(why) => staying.push((name.clone(), why)),
            }
        }
        if !changed.is_empty() {
            return Ok(Target::Undo(changed, staying));
        }
        let those = |why: Stays| {
            let names = staying.iter().filter(|(_, one)| *one == why).map(|(name, _)| name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let (lost, young) = (those(Stays::Lost), those(Stays::HadNothing));
        let lost = (!lost.is_empty())
            .then(|| format!("what {lost} had before {since} is not retained any more; revert the commits"));
        let young = (!young.is_empty())
            .then(|| format!("before {since} nothing was stable in {young}: there is nothing to go back to"));
        let reasons: Vec<String> = lost.into_iter().chain(young).collect();
        if reasons.is_empty() {
            return Err(Refusal::new(format!("no group has changed since {since}")));
        }
        Err(Refusal::new(reasons.join("; ")))
    }
}

fn past(state: &GroupState, since: Timestamp) -> Past {
    let machine = &state.machine;
    let record = machine.record();
    let runs = machine.introduced_since(since);
    let promoted = machine.stable().and_then(|stable| record.promoted.get(&stable));
    if !runs && promoted.is_none_or(|one| one.started < since) {
        return Past::Unchanged;
    }
    // What became stable last before then: the group had it at that time.
    let before = |hash: &ConfigHash| {
        let promoted = record.promoted.get(hash)?;
        promoted.times().map(|(started, _)| started).find(|started| *started < since)
    };
    let then = record.stables.iter().filter_map(|hash| Some((before(hash)?, *hash))).max();
    let is_young = record.stables.is_empty() || record.first_stable.is_some_and(|first| since <= first);
    match then {
        Some((_, hash)) if !runs && machine.stable() == Some(hash) => Past::Unchanged,
        Some((_, hash)) => Past::Had(hash),
        None if is_young => Past::Stays(Stays::HadNothing),
        None => Past::Stays(Stays::Lost),
    }
}
