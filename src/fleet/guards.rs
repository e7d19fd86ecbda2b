//! The guards of `fleet.yaml`: whether a commit changes so much at once that a person has to promote it first.

use crate::fleet::policy::Policy;

/// As many agents may always be moved by one commit: small fleets are not stopped by a percentage of theirs.
pub const ALWAYS_MOVABLE: usize = 10;

/// What a revision would do, compared with the last accepted one. The first revision of a fleet has nothing to be compared with, and
/// is not asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Groups whose wanted configuration or definition of who belongs to them would change, removed ones included.
    pub changed_groups: usize,
    /// Groups of the accepted revision.
    pub groups: usize,
    /// Agents that would belong to another group than now.
    pub moved_agents: usize,
    /// Agents that belong to a group now.
    pub agents: usize,
}

/// Why a person has to promote a commit that does so much, as one sentence without a full stop; `None`: nobody has to. Shares round
/// down: 10 % of 25 groups are two, and a third needs a person.
pub fn needs_promotion(policy: &Policy, extent: Extent) -> Option<String> {
    let Extent { changed_groups, groups, moved_agents, agents } = extent;
    let mut reasons = Vec::new();
    if changed_groups > policy.max_changed_groups.round_down(groups) {
        let most = policy.max_changed_groups;
        reasons.push(format!("changes {changed_groups} of {groups} groups (`maxChangedGroups` is {most})"));
    }
    if moved_agents > ALWAYS_MOVABLE && moved_agents > policy.max_moved_agents.round_down(agents) {
        let most = policy.max_moved_agents;
        reasons.push(format!("moves {moved_agents} of {agents} agents to other groups (`maxMovedAgents` is {most})"));
    }
    (!reasons.is_empty()).then(|| format!("the commit {}", reasons.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::strategy::Amount;

    #[test]
    fn guards_hold_what_is_above_them() {
        let policy = |groups, agents| {
            let mut policy = Policy::default();
            (policy.max_changed_groups, policy.max_moved_agents) = (groups, agents);
            policy
        };
        let (all, tenth, half) = (Amount::ALL, Amount::Share(1_000), Amount::Share(5_000));
        for (groups, agents, changed, moved, expected) in [
            (all, tenth, (20, 20), (0, 100), None),
            (all, tenth, (0, 0), (0, 0), None),
            (half, tenth, (10, 20), (0, 100), None),
            (half, tenth, (11, 20), (0, 100), Some("changes 11 of 20 groups (`maxChangedGroups` is 50%)")),
            (half, tenth, (2, 3), (0, 0), Some("changes 2 of 3 groups (`maxChangedGroups` is 50%)")),
            (Amount::Count(3), tenth, (3, 100), (0, 0), None),
            (Amount::Count(3), tenth, (4, 100), (0, 0), Some("changes 4 of 100 groups (`maxChangedGroups` is 3)")),
            (Amount::Count(0), tenth, (1, 1), (0, 0), Some("changes 1 of 1 groups (`maxChangedGroups` is 0)")),
            (all, tenth, (1, 2), (10, 10), None),
            (all, tenth, (1, 2), (11, 110), None),
            (all, tenth, (1, 2), (11, 109), Some("moves 11 of 109 agents to other groups (`maxMovedAgents` is 10%)")),
            (all, Amount::Count(0), (1, 2), (10, 5_000), None),
            (
                all,
                Amount::Count(0),
                (1, 2),
                (11, 5_000),
                Some("moves 11 of 5000 agents to other groups (`maxMovedAgents` is 0)"),
            ),
            (
                half,
                tenth,
                (2, 2),
                (99, 100),
                Some(
                    "changes 2 of 2 groups (`maxChangedGroups` is 50%) and moves 99 of 100 agents to other groups (`maxMovedAgents` is 10%)",
                ),
            ),
        ] {
            let extent =
                Extent { changed_groups: changed.0, groups: changed.1, moved_agents: moved.0, agents: moved.1 };
            let found = needs_promotion(&policy(groups, agents), extent);
            assert_eq!(found, expected.map(|reason| format!("the commit {reason}")), "{extent:?}");
        }
    }
}
