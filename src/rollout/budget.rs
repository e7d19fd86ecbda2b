//! How many agents of a group may be unavailable at once, and how many may fail.

use crate::fleet::strategy::Amount;

/// The most agents that may be unavailable: a share rounds down, but at least one, or nothing would ever move.
pub fn limit(max_unavailable: Amount, eligible: usize) -> usize {
    max_unavailable.round_down(eligible).max(1)
}

/// How many more healthy agents may be offered something now.
///
/// `stored` is the room that the journal already knows about: a process that dies must not leave more agents in the middle of
/// something than its successor assumes.
pub fn room(max_unavailable: Amount, eligible: usize, stored: usize, unavailable: usize) -> usize {
    limit(max_unavailable, eligible).min(stored).saturating_sub(unavailable)
}

/// The room to store for a group of this size: the next power of two, so that a fleet that is just connecting does not cost a
/// record for every agent that joins.
pub fn room_to_store(max_unavailable: Amount, eligible: usize) -> usize {
    limit(max_unavailable, eligible).next_power_of_two()
}

/// The members to store for a group that outgrew what is stored: an eighth more than before where that is more, so that a fleet that
/// is just connecting writes dozens of records, not thousands.
pub fn reach_to_store(stored: usize, members: usize) -> usize {
    members.max(stored + stored / 8)
}

/// The fewest agents that a share of failures is judged by. Where there are fewer, a share that allows one failure of so many allows
/// one as well: one of two is half of them, and says nothing about half of a fleet.
pub const LEAST_SAMPLE: usize = 20;

/// Failures that a rollout over so many agents may have. A share never allows all of them to fail.
pub fn allowed_failures(max_failures: Amount, population: usize) -> usize {
    match max_failures {
        Amount::Count(count) => count as usize,
        Amount::Share(_) => {
            let sample = max_failures.round_down(LEAST_SAMPLE).min(1);
            let one = if population < LEAST_SAMPLE { sample } else { 0 };
            max_failures.round_down(population).max(one).min(population.saturating_sub(1))
        }
    }
}

/// A way back that fails at one agent in so many has failed (of fewer it may fail at one, and never at all).
pub const WAY_BACK: Amount = Amount::Share(500);

/// Failures that the way back to stable may have over so many agents. It is not stopped by what stops something new: those who are not
/// back yet hold what failed.
pub fn allowed_on_the_way_back(max_failures: Amount, population: usize) -> usize {
    allowed_failures(max_failures, population).max(allowed_failures(WAY_BACK, population))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_round_down_and_leave_at_least_one() {
        for (amount, eligible, stored, unavailable, expected, why) in [
            (Amount::Share(2_000), 100, 1_000, 0, 20, "a fifth"),
            (Amount::Share(2_000), 100, 1_000, 15, 5, "what is unavailable takes room"),
            (Amount::Share(2_000), 100, 1_000, 30, 0, "never negative"),
            (Amount::Share(2_000), 4, 1_000, 0, 1, "at least one, or nothing would move"),
            (Amount::Share(2_000), 9, 1_000, 0, 1, "rounds down"),
            (Amount::Share(2_000), 0, 1_000, 0, 1, "an empty group has room for its first"),
            (Amount::Count(3), 100, 1_000, 1, 2, "a count is a count"),
            (Amount::ALL, 100, 8, 0, 8, "not more than the journal knows"),
            (Amount::ALL, 100, 0, 0, 0, "nothing before anything is stored"),
        ] {
            assert_eq!(room(amount, eligible, stored, unavailable), expected, "{why}");
        }
    }

    #[test]
    fn shares_of_few_agents_allow_one_failure_and_never_all() {
        for (amount, population, allowed, why) in [
            (Amount::Share(500), 2, 1, "one of two is no twentieth, and no reason to stop"),
            (Amount::Share(500), 19, 1, "one of nineteen as well"),
            (Amount::Share(500), 20, 1, "a twentieth"),
            (Amount::Share(500), 100, 5, "a share"),
            (Amount::Share(200), 2, 0, "less than one of twenty: none of few"),
            (Amount::Share(200), 49, 0, "rounds down"),
            (Amount::Share(200), 50, 1, "rounds down"),
            (Amount::Share(5_000), 3, 1, "half of three"),
            (Amount::Share(5_000), 1, 0, "the only one"),
            (Amount::Share(0), 10, 0, "none is none"),
            (Amount::ALL, 5, 4, "somebody has to prove it"),
            (Amount::ALL, 0, 0, "nobody"),
            (Amount::ALL, 100, 99, "of many as well"),
            (Amount::Count(2), 1, 2, "a count is a count"),
        ] {
            assert_eq!(allowed_failures(amount, population), allowed, "{amount} of {population}: {why}");
        }
    }

    #[test]
    fn one_broken_agent_stops_no_way_back() {
        for (amount, population, allowed, why) in [
            (Amount::Share(200), 10, 1, "2 % allow none of ten, and the others have to get back all the same"),
            (Amount::Count(0), 40, 2, "none of what is new may fail"),
            (Amount::Share(200), 2, 1, "one of two"),
            (Amount::Share(200), 1, 0, "the only one: nobody is back"),
            (Amount::Share(200), 1_000, 50, "one in twenty"),
            (Amount::Share(1_000), 1_000, 100, "what the rollout itself may"),
            (Amount::Count(7), 10, 7, "a count is a count"),
        ] {
            assert_eq!(allowed_on_the_way_back(amount, population), allowed, "{amount} of {population}: {why}");
        }
    }

    #[test]
    fn stored_reach_covers_the_members_and_grows_rarely() {
        let mut stored = 0;
        let mut records = 0;
        for members in 0..20_000 {
            if members > stored {
                (stored, records) = (reach_to_store(stored, members), records + 1);
            }
            assert!(stored >= members, "{members}");
        }
        assert!(records < 100, "a fleet of 20,000 that connects one by one writes {records} records");
    }

    #[test]
    fn stored_room_covers_the_budget_and_grows_rarely() {
        let stored: std::collections::BTreeSet<_> =
            (0..20_000).map(|eligible| room_to_store(Amount::Share(2_000), eligible)).collect();
        assert!(stored.len() < 16, "a fleet of 20,000 that connects writes a dozen records, not thousands");
        for eligible in [0, 1, 7, 100, 19_000] {
            assert!(room_to_store(Amount::ALL, eligible) >= limit(Amount::ALL, eligible), "{eligible}");
        }
    }
}
