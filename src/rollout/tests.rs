//! The machine alone: what plans lead to, what counts make of them, and what a successor goes on with.

use std::time::Duration;

use super::machine::{Effect, Rules};
use super::record::{GroupRecord, Kind, Progress, Said};
use super::*;
use crate::fleet::strategy::{Expect, OnFailure, OnNewCommit, Strategy};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn hash(letter: u8) -> ConfigHash {
    ConfigHash::new([letter; 32])
}

fn after(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn plan(letter: u8) -> Plan {
    Plan {
        wanted: hash(letter),
        rules: Rules::default(),
        moved_in: false,
        revision: String::new(),
        hold: None,
        fast: false,
    }
}

fn machine() -> Machine {
    Machine::new(false, HOUR, START)
}

/// Counts about a candidate: so many of ten agents confirmed it and failed it, the others wait.
fn counts(letter: u8, confirmed: usize, failed: usize) -> Tally {
    Tally {
        candidate: Some(hash(letter)),
        members: 10,
        selected: 10,
        eligible: 10,
        cohort: 10,
        pending: 10 - confirmed - failed,
        confirmed,
        proof: confirmed,
        failed,
        heard: 10,
        back: 10,
        ..Tally::default()
    }
}

/// Takes the machine through a whole rollout.
fn make_stable(machine: &mut Machine, letter: u8, now: Timestamp) {
    assert_eq!(machine.plan(plan(letter), now), Effect::Started);
    machine.observe(counts(letter, 10, 0), now);
    assert_eq!(machine.stable(), Some(hash(letter)), "all confirmed");
    machine.observe(Tally { candidate: None, ..counts(letter, 10, 0) }, now);
    machine.take_finished();
}

#[test]
fn plans_lead_to_what_the_design_says() {
    let mut machine = machine();
    make_stable(&mut machine, b'A', START);
    assert_eq!(machine.plan(plan(b'A'), START), Effect::Nothing, "it is stable already");
    assert_eq!(machine.plan(Plan { moved_in: true, ..plan(b'A') }, START), Effect::Started, "agents were moved here");
    assert_eq!(machine.rollout().map(|rollout| rollout.kind), Some(Kind::Move));
    assert_eq!(machine.plan(plan(b'B'), START), Effect::Started, "another one takes its place");
    assert_eq!(machine.plan(plan(b'B'), START), Effect::Joined, "the same again");
    machine.observe(counts(b'B', 0, 1), START);
    assert_eq!(machine.plan(plan(b'B'), START), Effect::Joined, "its agents are on their way back");
    machine.observe(Tally { restoring: true, ..counts(b'A', 10, 0) }, START);
    assert_eq!(machine.plan(plan(b'B'), START), Effect::FailedBefore, "it is not tried again by itself");
    assert_eq!(machine.plan(plan(b'A'), START), Effect::Started, "back to stable");
    assert_eq!(machine.rollout().map(|rollout| rollout.kind), Some(Kind::Revert));
    let outcomes: Vec<Outcome> = machine.take_finished().into_iter().map(|finished| finished.outcome).collect();
    let expected = [Outcome::Superseded, Outcome::RollingBack, Outcome::RolledBack];
    assert_eq!(outcomes, expected, "the move, then B; one that was taken back ends only once");
}

#[test]
fn newer_commits_wait_only_for_what_can_end() {
    let finish = || {
        let strategy = Strategy { on_new_commit: OnNewCommit::Finish, ..Strategy::default() };
        Rules { strategy, ..Rules::default() }
    };
    let next = |letter| Plan { rules: finish(), ..plan(letter) };
    for (why, tally, expected) in [
        ("agents are on their way", counts(b'B', 3, 0), Effect::Waits),
        ("nobody is there", Tally { candidate: Some(hash(b'B')), ..Tally::default() }, Effect::Started),
        ("those who vanished may come back", Tally { vanished: 1, ..Tally::default() }, Effect::Waits),
        (
            "all failed, as they may, and nothing is proved",
            Tally { failed: 0, pending: 0, confirmed: 0, proof: 0, ..counts(b'B', 0, 0) },
            Effect::Started,
        ),
    ] {
        let mut machine = machine();
        make_stable(&mut machine, b'A', START);
        machine.plan(next(b'B'), START);
        machine.observe(tally, START);
        assert_eq!(machine.plan(next(b'C'), START), expected, "{why}");
    }
    let mut machine = machine();
    make_stable(&mut machine, b'A', START);
    machine.plan(next(b'B'), START);
    machine.observe(counts(b'B', 3, 0), START);
    let stop = Rules { suspend: true, ..finish() };
    assert_eq!(machine.plan(Plan { rules: stop, ..plan(b'C') }, START), Effect::Waits);
    assert_eq!(machine.desired(START).closed, Some(Closed::Suspended), "suspend never waits");
    assert_eq!(machine.plan(next(b'A'), START), Effect::Started, "nor does a revert");
}

#[test]
fn counts_about_something_else_prove_nothing() {
    let mut machine = machine();
    make_stable(&mut machine, b'A', START);
    machine.plan(plan(b'B'), START);
    machine.observe(Tally { candidate: None, ..counts(b'A', 10, 0) }, after(60));
    assert!(machine.is_running(), "the ten confirmed A");
    machine.observe(counts(b'A', 0, 10), after(61));
    assert!(machine.is_running(), "the ten failed A");
    machine.observe(counts(b'B', 10, 0), after(62));
    assert_eq!(machine.stable(), Some(hash(b'B')));
}

#[test]
fn a_rollout_ends_only_with_everybody_and_a_proof() {
    let all = || counts(b'A', 10, 0);
    for (why, tally, ends) in [
        ("all confirmed", all(), true),
        ("one waits for room", Tally { pending: 1, unavailable: 2, ..all() }, false),
        ("one was offered it", Tally { offered: 1, ..all() }, false),
        ("one is lost", Tally { lost: 1, vanished: 1, ..all() }, false),
        ("two of twelve vanished before their offer", Tally { vanished: 2, ..all() }, true),
        ("three of thirteen are too many", Tally { vanished: 3, ..all() }, false),
        ("those who said goodbye do not count", Tally { away: 30, ..all() }, true),
        ("held ones do not count", Tally { selected: 12, held: 2, ..all() }, true),
        ("nobody who was well confirmed it", Tally { proof: 0, ill_before: 9, ..all() }, false),
        ("nobody was well before", Tally { proof: 0, ill_before: 10, ..all() }, true),
        ("many came only just now", Tally { restless_at: Some(after(58)), ..all() }, false),
        ("many came, but a while ago", Tally { restless_at: Some(after(50)), ..all() }, true),
        ("nobody is there", Tally { candidate: Some(hash(b'A')), ..Tally::default() }, false),
    ] {
        let mut machine = machine();
        machine.plan(plan(b'A'), START);
        machine.observe(tally, after(60));
        assert_eq!(!machine.is_running(), ends, "{why}");
        let waits = machine.waiting(after(60));
        assert_eq!(waits.is_empty(), ends, "{why}: a rollout that does not end says why: {waits:?}");
    }
}

#[test]
fn a_group_that_never_becomes_steady_is_taken_as_it_is() {
    let mut machine = machine();
    machine.plan(plan(b'A'), START);
    for second in (0..SETTLE_AT_MOST.as_secs()).step_by(2) {
        let tally = Tally { restless_at: Some(after(second)), ..counts(b'A', 10, 0) };
        machine.observe(tally, after(second));
        assert!(machine.is_running(), "after {second} s");
    }
    let (due, why) = machine.poll_timeout(after(119)).expect("a deadline");
    assert_eq!((due, why), (START + SETTLE_AT_MOST, "settle"));
    machine.handle_timeout(due);
    assert!(!machine.is_running());
}

#[test]
fn failures_are_counted_against_their_share() {
    let with = |amount| {
        let strategy = Strategy { max_failures: amount, ..Strategy::default() };
        Plan { rules: Rules { strategy, ..Rules::default() }, ..plan(b'A') }
    };
    for (why, amount, eligible, failed, fails) in [
        ("2 % of ten is nobody", None, 10, 1, true),
        ("2 % of fifty is one", None, 50, 1, false),
        ("and not two", None, 50, 2, true),
        ("a count is a count", Some(Amount::Count(3)), 10, 3, false),
        ("more than it", Some(Amount::Count(3)), 10, 4, true),
        ("more than can be remembered", Some(Amount::ALL), 5_000, MOST_REMEMBERED + 1, true),
    ] {
        let mut machine = machine();
        machine.plan(with(amount), START);
        let tally = Tally { eligible, selected: eligible, failed, ..counts(b'A', 0, 0) };
        machine.observe(tally, START);
        let progress = machine.rollout().map(|rollout| rollout.progress.clone());
        assert_eq!(matches!(progress, Some(Progress::Failed { .. })), fails, "{why}");
        assert_eq!(machine.desired(START).candidate.is_none(), fails, "{why}: a failed one is offered no more");
    }
}

#[test]
fn what_a_failed_rollout_leaves_depends_on_what_it_was_for() {
    let fail = |machine: &mut Machine, letter| {
        machine.observe(counts(letter, 0, 10), START);
        machine.desired(START)
    };
    let mut first = machine();
    first.plan(plan(b'A'), START);
    assert_eq!(fail(&mut first, b'A').closed, Some(Closed::RolloutFailed), "nothing is stable");

    let mut forward = machine();
    make_stable(&mut forward, b'A', START);
    forward.plan(plan(b'B'), START);
    let desired = fail(&mut forward, b'B');
    assert_eq!((desired.closed, desired.stable), (None, Some(hash(b'A'))), "everybody gets stable");
    assert_eq!((desired.kept, desired.restoring_since), (Vec::new(), Some(START)), "whoever has it goes back");
    let after_way_back = |well, failed| {
        let mut machine = forward.clone();
        machine.observe(Tally { restoring: true, pending: 0, ..counts(b'A', well, failed) }, START);
        (machine.is_rolled_back(), machine.desired(START).closed)
    };
    assert_eq!(after_way_back(9, 1), (true, None), "one broken agent holds nobody else back");
    assert_eq!(after_way_back(8, 2), (false, Some(Closed::RolloutFailed)), "the way back failed too: it stops");
    assert_eq!(after_way_back(0, 1), (false, Some(Closed::RolloutFailed)), "nobody is back");

    let mut paused = machine();
    make_stable(&mut paused, b'A', START);
    let strategy = Strategy { on_failure: OnFailure::Pause, ..Strategy::default() };
    paused.plan(Plan { rules: Rules { strategy, ..Rules::default() }, ..plan(b'B') }, START);
    let desired = fail(&mut paused, b'B');
    assert_eq!((desired.closed, desired.stable), (None, Some(hash(b'A'))), "whoever is new gets stable");
    assert_eq!(desired.kept, [hash(b'B')], "whoever has it keeps it");

    let mut revert = machine();
    make_stable(&mut revert, b'A', START);
    make_stable(&mut revert, b'B', START);
    revert.plan(plan(b'A'), START);
    assert_eq!(fail(&mut revert, b'A').closed, Some(Closed::RolloutFailed), "B is what was to be left");

    let mut moved = machine();
    make_stable(&mut moved, b'A', START);
    moved.plan(Plan { moved_in: true, ..plan(b'A') }, START);
    assert_eq!(fail(&mut moved, b'A').closed, None, "A is what all others are well with");
}

#[test]
fn three_stables_are_retained_and_superseded_ones_are_known_until_the_next() {
    let mut machine = machine();
    for letter in [b'A', b'B', b'C', b'D', b'C'] {
        make_stable(&mut machine, letter, START);
    }
    assert_eq!(machine.record().stables, [hash(b'C'), hash(b'D'), hash(b'B')]);
    for letter in 0..40 {
        machine.plan(plan(letter), START);
    }
    assert_eq!(machine.record().superseded.len(), 16, "bounded, newest first");
    assert_eq!(machine.record().superseded.first(), Some(&hash(38)));
    assert_eq!(machine.rollout().map(|rollout| rollout.seed), Some(hash(0)), "the order stays that of the first");
    machine.observe(counts(39, 10, 0), after(60));
    assert!(machine.record().superseded.is_empty(), "who holds one now is a case of drift");
}

#[test]
fn an_order_to_go_back_brings_nothing_of_the_newest_commit() {
    let mut machine = machine();
    for (letter, revision) in [(b'A', "one"), (b'B', "two")] {
        assert_eq!(machine.plan(Plan { revision: revision.to_owned(), ..plan(letter) }, START), Effect::Started);
        machine.observe(counts(letter, 10, 0), START);
        machine.observe(Tally { candidate: None, ..counts(letter, 10, 0) }, START);
    }
    let said = Said { by: "ada".into(), at: START, reason: None };
    machine.undo(hash(b'A'), said, "three", START).expect("it is retained");
    machine.observe(counts(b'A', 10, 0), START);
    assert_eq!(machine.stable(), Some(hash(b'A')));
    let promoted = machine.record().promoted.get(&hash(b'A')).expect("stable");
    let revisions: Vec<&str> = promoted.times().map(|(_, revision)| revision).collect();
    assert_eq!(revisions, ["one", "one"], "who approves what comes next is judged by all since then");
}

#[test]
fn soak_and_bake_count_watched_time_only() {
    let mut strategy = Strategy { bake: Duration::from_secs(60), ..Strategy::default() };
    strategy.stages[0].soak = Duration::from_secs(100);
    let rules = Rules { strategy, ..Rules::default() };
    let mut machine = machine();
    machine.plan(Plan { rules: rules.clone(), ..plan(b'A') }, START);
    machine.observe(counts(b'A', 10, 0), after(10));
    assert_eq!(machine.poll_timeout(after(10)), Some((after(110), "soak")));
    // Two of ten vanish for a while.
    let gone = Tally { selected: 8, eligible: 8, confirmed: 8, vanished: 2, cohort_vanished: 2, ..counts(b'A', 10, 0) };
    machine.observe(gone, after(50));
    assert_eq!(machine.poll_timeout(after(50)), None, "the watch stands still");
    assert_eq!(machine.waiting(after(60)), [Waiting::NotWatching { connected: 8, of: 10 }]);
    machine.observe(counts(b'A', 10, 0), after(500));
    assert_eq!(machine.poll_timeout(after(500)), Some((after(560), "soak")), "sixty seconds were left");
    machine.handle_timeout(after(560));
    assert_eq!(machine.poll_timeout(after(560)), Some((after(620), "bake")));
    // An agent that is ill at the end is waited for.
    machine.observe(Tally { confirmed: 9, offered: 1, ..counts(b'A', 10, 0) }, after(600));
    machine.handle_timeout(after(700));
    assert!(machine.is_running());
    assert_eq!(machine.poll_timeout(after(700)), None, "it waits for the agent, not for time");
    machine.observe(counts(b'A', 10, 0), after(701));
    assert_eq!(machine.stable(), Some(hash(b'A')));
    // A revert is not watched.
    make_stable(&mut machine, b'B', after(800));
    machine.plan(Plan { rules, ..plan(b'A') }, after(900));
    machine.observe(counts(b'A', 10, 0), after(900));
    assert_eq!(machine.stable(), Some(hash(b'A')));
}

#[test]
fn what_holds_a_rollout_back_does_not_hold_back_a_revert() {
    let expect = Some(Expect { min: Some(11), max: None });
    for (why, rules, holds_revert) in [
        ("expect", Rules { expect, ..Rules::default() }, false),
        ("suspend", Rules { suspend: true, ..Rules::default() }, true),
    ] {
        let mut machine = machine();
        make_stable(&mut machine, b'A', START);
        make_stable(&mut machine, b'B', START);
        machine.plan(Plan { rules: rules.clone(), ..plan(b'C') }, START);
        assert_eq!(machine.desired(START).candidate, None, "{why}");
        machine.plan(Plan { rules, ..plan(b'A') }, START);
        assert_eq!(machine.desired(START).candidate.is_none(), holds_revert, "{why}");
    }
    let mut watching = Machine::new(true, HOUR, START);
    watching.plan(plan(b'A'), START);
    assert_eq!(watching.desired(START).closed, Some(Closed::Observing));
}

#[test]
fn what_offers_need_is_stored_before_they_are_made() {
    let mut machine = machine();
    machine.plan(plan(b'A'), START);
    assert!(machine.take_unstored(), "a new rollout");
    machine.observe(counts(b'A', 0, 0), START);
    assert!(machine.take_unstored(), "room for two, among ten members");
    assert_eq!((machine.desired(START).room, machine.desired(START).reach), (2, 10));
    machine.observe(counts(b'A', 4, 0), START);
    assert!(!machine.take_unstored(), "nothing more than before");
    machine.observe(Tally { members: 11, ..counts(b'A', 4, 0) }, START);
    assert!(machine.take_unstored(), "an eleventh member, and somebody waits for an offer");
    assert_eq!(machine.desired(START).reach, 11);
    machine.observe(Tally { members: 12, pending: 0, offered: 6, ..counts(b'A', 4, 0) }, START);
    assert!(!machine.take_unstored(), "nobody waits for an offer");
    machine.observe(Tally { members: 5, ..counts(b'A', 4, 0) }, START);
    assert!(!machine.take_unstored() && machine.take_outdated(), "what shrinks can wait");
    assert_eq!(machine.record().reach, 5);
}

#[test]
fn a_successor_goes_on_where_the_record_says() {
    let mut machine = machine();
    make_stable(&mut machine, b'A', START);
    machine.plan(plan(b'B'), START);
    machine.observe(counts(b'B', 3, 0), START);
    let yaml = serde_yaml::to_string(machine.record()).expect("a record can be written");
    let record: GroupRecord = serde_yaml::from_str(&yaml).expect("and read");
    assert_eq!(&record, machine.record());

    let mut successor = Machine::restore(record, machine.rules().clone(), false, HOUR, after(100));
    assert_eq!(successor.desired(START), Desired { successes: 0, ..machine.desired(START) });
    let back = |count: usize| Tally {
        members: count,
        selected: count,
        eligible: count,
        pending: 0,
        confirmed: count,
        proof: count,
        heard: count,
        back: count,
        ..counts(b'B', 10, 0)
    };
    successor.observe(back(7), after(110));
    assert!(successor.is_running(), "three of ten are not back");
    assert_eq!(successor.record().population, 10, "which is no reason to forget them");
    assert_eq!(
        successor.waiting(after(110)),
        [Waiting::TooManyMissing { missing: 3, of: 10, until: Some(after(100) + HOUR) }]
    );
    assert_eq!(successor.poll_timeout(after(110)), Some((after(100) + HOUR, "forget")));
    successor.observe(back(8), after(120));
    assert_eq!(successor.stable(), Some(hash(b'B')), "two are no more than a fifth");
}

#[test]
fn failures_after_a_restart_are_a_share_of_the_recorded_group() {
    let strategy = Strategy { max_failures: Some(Amount::Share(1_000)), ..Strategy::default() };
    let rules = Rules { strategy, ..Rules::default() };
    let mut machine = machine();
    machine.plan(Plan { rules: rules.clone(), ..plan(b'A') }, START);
    machine.observe(Tally { members: 100, selected: 100, eligible: 100, heard: 100, ..counts(b'A', 0, 0) }, START);
    let mut successor = Machine::restore(machine.record().clone(), rules, false, HOUR, START);
    let one = Tally { members: 2, selected: 2, eligible: 2, heard: 2, failed: 2, pending: 0, ..counts(b'A', 0, 0) };
    successor.observe(one, START);
    assert!(successor.is_running(), "two of the first two, but ten of a hundred may fail");
}

#[test]
fn a_successor_gives_up_on_agents_that_never_come_back() {
    let strategy = Strategy { on_new_commit: OnNewCommit::Finish, ..Strategy::default() };
    let rules = Rules { strategy, ..Rules::default() };
    let mut machine = machine();
    machine.plan(Plan { rules: rules.clone(), ..plan(b'A') }, START);
    machine.observe(counts(b'A', 3, 0), START);
    let mut successor = Machine::restore(machine.record().clone(), rules.clone(), false, HOUR, after(10));
    let next = || Plan { rules: rules.clone(), ..plan(b'B') };
    assert_eq!(successor.plan(next(), after(20)), Effect::Waits, "ten agents may come back");
    let forgotten = after(10) + HOUR;
    assert_eq!(successor.poll_timeout(after(20)), Some((forgotten, "forget")));
    assert!(!successor.can_finish(forgotten));
    assert_eq!(successor.plan(next(), forgotten), Effect::Started);
}
