//! The roster alone: where agents belong, what is offered to them and when, and what is remembered of them.

use std::time::Duration;

use super::standing::HeldReason;
use super::*;
use crate::agent::{AgentReport, Capabilities, ConfigState, ConfigStatus, Health, ReportedHash};
use crate::config::ConfigHash;
use crate::fleet::GroupDefinition;
use crate::fleet::strategy::{Amount, Strategy};
use crate::labels::{Labels, Operator, Requirement, Selector};
use crate::rollout::Closed;
use crate::roster::group::Assumed;

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const DEADLINE: Duration = Duration::from_secs(600);
const FORGET: Duration = Duration::from_secs(3600);

fn after(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn id(number: u8) -> AgentId {
    AgentId::new(&[number; 16]).expect("a valid id")
}

fn hash(letter: u8) -> ConfigHash {
    ConfigHash::new([letter; 32])
}

fn config(letter: u8) -> RenderedConfig {
    RenderedConfig::new(hash(letter), bytes::Bytes::from_static(b"receivers: {}"), Default::default())
}

fn group() -> GroupName {
    GroupName::new("prod")
}

fn definition(env: &str, priority: i32) -> GroupDefinition {
    let requirement = Requirement::new("env", Operator::In, vec![env.to_owned()]).expect("a valid requirement");
    GroupDefinition {
        selector: Selector::new(vec![requirement]),
        priority,
        variant_of: None,
        suspend: false,
        expect: None,
        strategy: Strategy::default(),
    }
}

/// A rollout of `candidate`, with plenty of room.
fn desired(candidate: u8, stable: Option<u8>) -> Desired {
    Desired {
        cohort: crate::rollout::cohort::Cohort::everybody(),
        candidate: Some(hash(candidate)),
        stable: stable.map(hash),
        wanted: Some(hash(candidate)),
        seed: Some(hash(candidate)),
        watched: true,
        max_unavailable: Amount::ALL,
        room: 100,
        reach: 100,
        progress_deadline: DEADLINE,
        ..Desired::default()
    }
}

struct Bench {
    roster: Roster,
    connections: u64,
}

impl Bench {
    fn new(desired: Desired) -> Self {
        let mut roster = Roster::new(FORGET);
        roster.set_assigner(Assigner::new([(&group(), &definition("prod", 0))]), START);
        let mut bench = Self { roster, connections: 0 };
        bench.desire(desired, START);
        bench
    }

    fn desire(&mut self, desired: Desired, now: Timestamp) -> Vec<String> {
        self.roster.set_desired(&group(), desired, |hash| Some(config(hash.as_bytes()[0])), now);
        self.actions(now)
    }

    /// What is to be done, in words: `offer A to 1`.
    fn actions(&mut self, now: Timestamp) -> Vec<String> {
        self.roster.make_offers(now);
        let mut actions = Vec::new();
        while let Some(action) = self.roster.poll_action() {
            actions.push(match action {
                RosterAction::Offer { id, config, .. } => {
                    format!("offer {} to {}", char::from(config.hash().as_bytes()[0]), id.as_bytes()[0])
                }
                RosterAction::Restart { group, connection, id } => {
                    let is_told = self.roster.restart(&group, id, connection, now);
                    format!("{} {}", if is_told { "restart" } else { "spare" }, id.as_bytes()[0])
                }
                RosterAction::Withdraw { id, .. } => format!("withdraw from {}", id.as_bytes()[0]),
            });
        }
        actions
    }

    fn connect(&mut self, number: u8, now: Timestamp) -> ConnectionId {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let transport = Transport::WebSocket;
        self.roster.handle_event(
            AgentEvent::Connected { id: id(number), connection, transport, proofs: Labels::default() },
            now,
        );
        connection
    }

    fn report(&mut self, number: u8, report: AgentReport, now: Timestamp) -> Vec<String> {
        let connection = self.roster.agent(id(number)).and_then(|member| member.link).expect("connected").connection;
        self.roster.handle_event(AgentEvent::Report { id: id(number), connection, report: Box::new(report) }, now);
        self.actions(now)
    }

    /// Connects an agent that reports everything, and holds nothing.
    fn join(&mut self, number: u8, now: Timestamp) -> Vec<String> {
        self.connect(number, now);
        self.report(number, complete(ConfigState::NOTHING), now)
    }

    fn leave(&mut self, number: u8, goodbye: bool, now: Timestamp) -> Vec<String> {
        let connection = self.roster.agent(id(number)).and_then(|member| member.link).expect("connected").connection;
        self.roster.handle_event(AgentEvent::Gone { id: id(number), connection, goodbye }, now);
        self.actions(now)
    }

    fn says(&mut self, number: u8, letter: u8, status: ConfigStatus, now: Timestamp) -> Vec<String> {
        self.report(number, AgentReport { config: Some(state(letter, status)), ..AgentReport::default() }, now)
    }

    fn feels(&mut self, number: u8, healthy: bool, now: Timestamp) -> Vec<String> {
        let health = Some(Health { healthy, message: None });
        self.report(number, AgentReport { health, ..AgentReport::default() }, now)
    }

    fn wait(&mut self, now: Timestamp) -> Vec<String> {
        self.roster.handle_timeout(now);
        self.actions(now)
    }

    fn standing(&self, number: u8) -> Standing {
        self.roster.agent(id(number)).map_or(Standing::Unplaced, |member| member.verdict.standing)
    }

    fn tally(&self, now: Timestamp) -> Tally {
        self.roster.tally(&group(), now)
    }
}

fn state(letter: u8, status: ConfigStatus) -> ConfigState {
    ConfigState { hash: ReportedHash::Known(hash(letter)), status, message: None }
}

fn complete(state: ConfigState) -> AgentReport {
    AgentReport {
        capabilities: Some(Capabilities(0x7C47)),
        labels: Some(Labels::new([("env", "prod")])),
        config: Some(state),
        health: Some(Health { healthy: true, message: None }),
        effective: None,
        available: None,
    }
}

#[test]
fn nobody_is_offered_anything_before_everything_is_known() {
    for (why, report, reason) in [
        ("no labels", AgentReport { labels: None, ..complete(ConfigState::NOTHING) }, None),
        ("no state", AgentReport { config: None, ..complete(ConfigState::NOTHING) }, Some(HeldReason::NotHeard)),
        (
            "no capabilities",
            AgentReport { capabilities: None, ..complete(ConfigState::NOTHING) },
            Some(HeldReason::CannotAccept),
        ),
        (
            "it would not tell",
            AgentReport { capabilities: Some(Capabilities(0x2847)), ..complete(ConfigState::NOTHING) },
            Some(HeldReason::CannotReport),
        ),
    ] {
        let mut bench = Bench::new(desired(b'A', None));
        bench.connect(1, START);
        assert_eq!(bench.report(1, report, START), Vec::<String>::new(), "{why}");
        assert_eq!(bench.standing(1), reason.map_or(Standing::Unplaced, Standing::Held), "{why}");
    }
    let mut bench = Bench::new(desired(b'A', None));
    assert_eq!(bench.join(1, START), ["offer A to 1"]);
}

#[test]
fn an_offer_ends_as_reports_and_time_say() {
    use ConfigStatus::{Applied, Applying, Failed};
    // What it says, after how many seconds; then what it is after that many.
    for (why, says, at, standing, unavailable) in [
        ("nothing yet", &[][..], 599, Standing::Offered, true),
        ("nothing at all", &[], 600, Standing::Failed, false),
        ("it applies", &[(1, Applying)], 599, Standing::Offered, true),
        ("it applies for ever", &[(1, Applying)], 600, Standing::Failed, false),
        ("it applied", &[(1, Applying), (6, Applied)], 7, Standing::Confirmed, false),
        ("it failed", &[(1, Applying), (6, Failed)], 7, Standing::Failed, false),
        ("it failed, and says later that it applied", &[(1, Failed), (6, Applied)], 7, Standing::Failed, false),
    ] {
        let mut bench = Bench::new(desired(b'A', None));
        bench.join(1, START);
        for (seconds, status) in says {
            bench.says(1, b'A', *status, after(*seconds));
        }
        bench.wait(after(at));
        assert_eq!(bench.standing(1), standing, "{why}");
        let tally = bench.tally(after(at));
        assert_eq!(tally.unavailable > 0, unavailable, "{why}");
        assert_eq!(tally.failed, usize::from(standing == Standing::Failed), "{why}");
    }
}

#[test]
fn health_decides_what_applied_is_worth() {
    // Ill from and to, in seconds after APPLIED at 10; then what it is after that many.
    for (why, ill, at, standing) in [
        ("well", None, 700, Standing::Confirmed),
        ("ill for a moment", Some((20, 25)), 30, Standing::Confirmed),
        ("ill from the start, and the deadline is not over", Some((10, 9_999)), 599, Standing::Offered),
        ("ill at the deadline", Some((10, 9_999)), 600, Standing::Failed),
        ("ill after it was well: half a minute to recover", Some((20, 9_999)), 49, Standing::Offered),
        ("and no longer, whatever the deadline", Some((20, 9_999)), 50, Standing::Failed),
        ("ill late: half a minute to recover", Some((650, 9_999)), 679, Standing::Offered),
        ("and no longer", Some((650, 9_999)), 680, Standing::Failed),
    ] {
        let mut bench = Bench::new(desired(b'A', None));
        bench.join(1, START);
        if let Some((from, to)) = ill {
            bench.feels(1, from > 10, after(10));
            bench.says(1, b'A', ConfigStatus::Applied, after(10));
            bench.feels(1, false, after(from));
            if to <= at {
                bench.feels(1, true, after(to));
            }
        } else {
            bench.says(1, b'A', ConfigStatus::Applied, after(10));
        }
        bench.wait(after(at));
        assert_eq!(bench.standing(1), standing, "{why}");
    }
}

#[test]
fn who_was_ill_before_is_no_evidence_and_who_fell_ill_just_now_is_waited_for() {
    let mut bench = Bench::new(desired(b'A', None));
    bench.connect(1, START);
    let ill = Health { healthy: false, message: None };
    let report = AgentReport { health: Some(ill), ..complete(ConfigState::NOTHING) };
    assert_eq!(bench.report(1, report, START), Vec::<String>::new(), "it fell ill only now, as far as we know");
    assert_eq!((bench.tally(START).pending, bench.tally(START).unready), (1, 1));
    assert_eq!(bench.wait(after(30)), ["offer A to 1"], "it was ill before");
    bench.says(1, b'A', ConfigStatus::Applied, after(40));
    let tally = bench.tally(after(40));
    assert_eq!((tally.confirmed, tally.proof, tally.unavailable), (1, 0, 1), "confirmed, and no evidence");
    // Whoever falls sick after a candidate must be healthy to be confirmed with the next one.
    assert_eq!(bench.join(2, after(50)), ["offer A to 2"]);
    bench.says(2, b'A', ConfigStatus::Applied, after(60));
    bench.feels(2, false, after(61));
    assert_eq!(bench.desire(desired(b'B', None), after(62)), ["offer B to 2", "offer B to 1"]);
    bench.says(2, b'B', ConfigStatus::Applied, after(70));
    assert_eq!(bench.standing(2), Standing::Offered);
}

#[test]
fn room_is_taken_by_whoever_may_be_in_the_middle_of_something() {
    let narrow = || Desired { max_unavailable: Amount::Count(1), ..desired(b'A', None) };
    let mut bench = Bench::new(narrow());
    bench.join(1, START);
    assert_eq!(bench.join(2, START), Vec::<String>::new(), "one at a time");
    assert_eq!(bench.leave(1, false, after(1)), Vec::<String>::new(), "the first may be in the middle of it");
    assert_eq!(bench.standing(1), Standing::Lost);
    assert_eq!(bench.wait(after(600)), ["offer A to 2"], "until its deadline");
    assert_eq!(bench.standing(1), Standing::Failed);

    let mut bench = Bench::new(narrow());
    bench.join(1, START);
    bench.join(2, START);
    assert_eq!(bench.leave(1, true, after(1)), ["offer A to 2"], "who says goodbye gives the room back");
    assert_eq!(bench.standing(1), Standing::Away);

    // Another candidate does not make an agent available that is on its way to the first.
    let mut bench = Bench::new(narrow());
    bench.join(1, START);
    bench.join(2, START);
    bench.leave(1, false, after(1));
    let next = Desired { candidate: Some(hash(b'B')), wanted: Some(hash(b'B')), ..narrow() };
    assert_eq!(bench.desire(next, after(2)), Vec::<String>::new());
    assert_eq!((bench.standing(1), bench.tally(after(2)).unavailable), (Standing::Away, 1));
    assert_eq!(bench.wait(after(600)), ["offer B to 2"]);
}

#[test]
fn nothing_is_offered_beyond_what_is_stored() {
    let mut bench = Bench::new(Desired { room: 1, reach: 3, ..desired(b'A', None) });
    assert_eq!(bench.join(1, START), ["offer A to 1"]);
    assert_eq!(bench.join(2, START), Vec::<String>::new(), "room for one");
    assert_eq!(bench.desire(Desired { room: 4, reach: 3, ..desired(b'A', None) }, START), ["offer A to 2"]);
    assert_eq!(bench.join(3, START), ["offer A to 3"]);
    assert_eq!(bench.join(4, START), Vec::<String>::new(), "a successor would not know of a fourth member");
    assert_eq!(bench.desire(Desired { room: 4, reach: 4, ..desired(b'A', None) }, START), ["offer A to 4"]);
}

#[test]
fn an_earlier_process_keeps_its_room_until_its_agents_are_back() {
    let restored = |reach| {
        let mut bench = Bench::new(Desired::default());
        let known = Some(Known::of([id(1), id(2), id(5), id(6)].into_iter(), None));
        let assumed = Assumed { room: 2, reach, until: START + DEADLINE, known, known_until: START + FORGET };
        bench.roster.restore(&group(), BTreeMap::new(), BTreeSet::new(), assumed, None);
        let two = Desired { max_unavailable: Amount::Count(2), ..desired(b'B', Some(b'A')) };
        bench.desire(two, START);
        bench
    };
    let back = |bench: &mut Bench, number, letter| {
        bench.connect(number, after(1));
        bench.report(number, complete(state(letter, ConfigStatus::Applied)), after(1))
    };
    let mut bench = restored(4);
    assert_eq!(back(&mut bench, 1, b'A'), Vec::<String>::new());
    assert_eq!(
        back(&mut bench, 2, b'A'),
        Vec::<String>::new(),
        "two are missing, and may be in the middle of something"
    );
    assert_eq!(back(&mut bench, 3, b'X'), Vec::<String>::new(), "a newcomer is not one of them");
    assert_eq!(back(&mut bench, 4, b'B').len(), 1, "one is missing: room for one");
    assert_eq!(bench.wait(START + DEADLINE).len(), 1, "in any case at its deadline");
    // Who comes back with an empty disk is back as well, as far as the record knows it; who comes with one for the first time is not.
    let mut bench = restored(4);
    assert_eq!(bench.join(5, after(1)), Vec::<String>::new());
    assert_eq!(bench.join(7, after(1)), Vec::<String>::new());
    assert_eq!(bench.join(6, after(1)), Vec::<String>::new(), "two are missing, although three came");
    assert_eq!(bench.join(1, after(1)).len(), 1, "one is missing: room for one");
    assert_eq!(bench.join(2, after(1)).len(), 1, "all are back");
    // Who can be offered nothing was never in the middle of anything.
    let mut bench = restored(1);
    bench.connect(8, after(1));
    let unmanageable = AgentReport { capabilities: Some(Capabilities(0x2805)), ..complete(ConfigState::NOTHING) };
    assert_eq!(bench.report(8, unmanageable, after(1)), Vec::<String>::new());
    assert_eq!(bench.roster.tally(&group(), after(1)).members, 0);
    assert_eq!(back(&mut bench, 1, b'A').len(), 1, "the one that it could be is back");
}

#[test]
fn members_who_are_away_stay_known_until_they_are_forgotten() {
    let mut bench = Bench::new(desired(b'B', Some(b'A')));
    let known = Some(Known::of([id(1), id(2)].into_iter(), None));
    let assumed = Assumed { room: 1, reach: 2, until: START + DEADLINE, known, known_until: START + FORGET };
    bench.roster.restore(&group(), BTreeMap::new(), BTreeSet::new(), assumed, Some(hash(b'A')));
    bench.join(3, after(1));
    let known = |bench: &Bench, now| {
        let known = bench.roster.group(&group()).expect("the group").known(now);
        [1, 2, 3, 4].map(|number| known.contains(id(number)))
    };
    assert_eq!(known(&bench, after(1)), [true, true, true, false]);
    assert_eq!(known(&bench, START + FORGET), [false, false, true, false]);
}

#[test]
fn never_twice_in_a_row_on_one_connection() {
    let mut bench = Bench::new(desired(b'A', None));
    bench.join(1, START);
    bench.says(1, b'A', ConfigStatus::Applied, after(5));
    for report in [state(b'X', ConfigStatus::Applied), ConfigState::NOTHING] {
        let report = AgentReport { config: Some(report), ..AgentReport::default() };
        assert_eq!(bench.report(1, report, after(10)), Vec::<String>::new());
        assert_eq!(bench.standing(1), Standing::Held(HeldReason::Drifted));
    }
    bench.leave(1, false, after(20));
    assert_eq!(bench.join(1, after(21)), ["offer A to 1"], "another connection");
    bench.says(1, b'A', ConfigStatus::Applied, after(25));
    assert_eq!(bench.desire(desired(b'B', None), after(30)), ["offer B to 1"]);
    assert_eq!(bench.desire(desired(b'A', None), after(31)), ["withdraw from 1"], "it holds A, as far as it said");
    bench.says(1, b'B', ConfigStatus::Applied, after(32));
    assert_eq!(bench.actions(after(32)), Vec::<String>::new());
    assert_eq!(bench.standing(1), Standing::Offered, "A again, as B was in between");
}

#[test]
fn what_is_on_its_way_is_taken_back_when_it_is_wrong() {
    let mut bench = Bench::new(desired(b'A', None));
    bench.join(1, START);
    let moved = AgentReport { labels: Some(Labels::new([("env", "dev")])), ..AgentReport::default() };
    assert_eq!(bench.report(1, moved, after(1)), ["withdraw from 1"], "it belongs nowhere any more");

    let mut bench = Bench::new(desired(b'A', None));
    bench.join(1, START);
    let other = AgentReport { labels: Some(Labels::new([("env", "prod"), ("zone", "b")])), ..AgentReport::default() };
    assert_eq!(bench.report(1, other, after(1)), ["offer A to 1"], "the session dropped it; it is still right");

    let mut bench = Bench::new(desired(b'A', None));
    bench.join(1, START);
    let suspended = Desired { candidate: None, closed: Some(Closed::Suspended), ..desired(b'A', None) };
    assert_eq!(bench.desire(suspended, after(1)), ["withdraw from 1"]);
    assert_eq!(bench.desire(desired(b'A', None), after(2)), ["offer A to 1"]);

    let mut bench = Bench::new(desired(b'A', None));
    bench.join(1, START);
    bench.roster.remove_group(&group(), after(1));
    assert_eq!(bench.actions(after(1)), ["withdraw from 1"]);
    let placement = bench.roster.agent(id(1)).map(|member| member.placement.clone());
    assert_eq!(placement, Some(Placement::Orphaned(group())));
}

#[test]
fn failures_are_remembered_until_something_else_is_wanted() {
    let mut bench = Bench::new(desired(b'B', Some(b'A')));
    bench.join(1, START);
    bench.says(1, b'B', ConfigStatus::Failed, after(1));
    // It falls back by itself, and comes again.
    bench.says(1, b'A', ConfigStatus::Applied, after(2));
    bench.leave(1, true, after(3));
    bench.connect(1, after(4));
    assert_eq!(bench.report(1, complete(state(b'A', ConfigStatus::Applied)), after(4)), Vec::<String>::new());
    assert_eq!((bench.standing(1), bench.tally(after(4)).failed), (Standing::Failed, 1));
    assert_eq!(bench.desire(desired(b'C', Some(b'A')), after(5)), ["offer C to 1"]);
    assert_eq!(bench.tally(after(5)).failed, 0);
    bench.says(1, b'A', ConfigStatus::Applied, after(6));
    assert_eq!(
        bench.desire(desired(b'B', Some(b'A')), after(7)),
        ["withdraw from 1", "offer B to 1"],
        "wanted had changed"
    );
}

#[test]
fn whoever_stays_away_is_forgotten() {
    let over = Desired { candidate: None, watched: false, ..desired(b'A', Some(b'A')) };
    let mut bench = Bench::new(over);
    bench.join(1, START);
    bench.says(1, b'A', ConfigStatus::Failed, after(1));
    assert_eq!(bench.tally(after(1)).failed, 1);
    bench.leave(1, true, after(2));
    bench.wait(after(3601));
    assert!(bench.roster.agent(id(1)).is_some());
    bench.wait(after(3602));
    assert!(bench.roster.agent(id(1)).is_none());
    let nothing = Tally { restless_at: Some(START), failed: 1, ..Tally::default() };
    assert_eq!(bench.tally(after(3602)), nothing, "only what it failed is still known");
    assert_eq!(bench.join(1, after(3603)), Vec::<String>::new(), "so that it is never offered that again");
    assert_eq!(bench.standing(1), Standing::Failed);
}

#[test]
fn agents_that_fail_and_never_come_again_are_remembered_within_bounds() {
    let over = Desired { candidate: None, watched: false, reach: 100_000, room: 100_000, ..desired(b'A', Some(b'A')) };
    let mut bench = Bench::new(over);
    for number in 0..1_200u64 {
        let mut bytes = [9; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let (id, connection) = (AgentId::new(&bytes).expect("a valid id"), ConnectionId(1_000 + number));
        let transport = Transport::WebSocket;
        bench
            .roster
            .handle_event(AgentEvent::Connected { id, connection, transport, proofs: Labels::default() }, START);
        let report = Box::new(complete(state(b'A', ConfigStatus::Failed)));
        bench.roster.handle_event(AgentEvent::Report { id, connection, report }, START);
        bench.roster.handle_event(AgentEvent::Gone { id, connection, goodbye: true }, START);
    }
    bench.wait(START + FORGET);
    let remembered = bench.roster.group(&group()).map(|group| group.failures.len());
    assert_eq!(remembered, Some(crate::rollout::MOST_REMEMBERED));
    assert_eq!(Some(bench.tally(START + FORGET).failed), remembered);
}

#[test]
fn a_connection_that_lost_its_agent_is_not_heard_any_more() {
    let mut bench = Bench::new(desired(b'A', None));
    bench.join(1, START);
    let first = ConnectionId(bench.connections);
    bench.connect(1, after(1));
    let report = Box::new(AgentReport { config: Some(state(b'A', ConfigStatus::Failed)), ..AgentReport::default() });
    bench.roster.handle_event(AgentEvent::Report { id: id(1), connection: first, report }, after(2));
    bench.roster.handle_event(AgentEvent::Gone { id: id(1), connection: first, goodbye: true }, after(2));
    assert!(bench.roster.agent(id(1)).is_some_and(|member| member.is_connected() && member.state().is_some()));
    assert_eq!((bench.tally(after(2)).failed, bench.roster.connected()), (0, 1));
}

#[test]
fn agents_belong_to_the_one_group_of_the_highest_priority() {
    let mut bench = Bench::new(desired(b'A', None));
    bench.join(1, START);
    let place = |bench: &mut Bench, groups: &[(&str, GroupDefinition)]| {
        let groups: Vec<_> = groups.iter().map(|(name, definition)| (GroupName::new(*name), definition)).collect();
        let receivers = bench.roster.set_assigner(Assigner::new(groups.iter().map(|(n, d)| (n, *d))), after(1));
        let placement = bench.roster.agent(id(1)).map(|member| member.placement.clone()).expect("known");
        (placement, receivers.into_iter().map(|name| name.to_string()).collect::<Vec<_>>())
    };
    let other = GroupName::new("other");
    assert_eq!(
        place(&mut bench, &[("prod", definition("prod", 0)), ("other", definition("prod", 1))]),
        (Placement::Group(other.clone()), vec!["other".to_owned()]),
        "moved by the revision"
    );
    assert_eq!(
        place(&mut bench, &[("prod", definition("prod", 1)), ("other", definition("prod", 1))]),
        (Placement::Conflict([other, group()].into()), Vec::new()),
        "it keeps what it has"
    );
    assert_eq!(place(&mut bench, &[("prod", definition("dev", 1))]), (Placement::Unmanaged, Vec::new()));
    assert_eq!(
        place(&mut bench, &[("prod", definition("prod", 0))]),
        (Placement::Group(group()), Vec::new()),
        "it comes from nowhere to where nothing is stable: that is no move"
    );
}

#[test]
fn the_order_of_agents_is_frozen() {
    // A successor of another release must ask the same agents first.
    let mut bench = Bench::new(Desired { max_unavailable: Amount::Count(1), ..desired(b'A', None) });
    let mut order = Vec::new();
    for number in 1..=6 {
        bench.connect(number, START);
        order.extend(bench.report(number, complete(state(b'X', ConfigStatus::Applied)), START));
    }
    while let Some(last) = order.last().and_then(|words| words.rsplit(' ').next()?.parse::<u8>().ok()) {
        let more = bench.says(last, b'A', ConfigStatus::Applied, after(1));
        if more.is_empty() {
            break;
        }
        order.extend(more);
    }
    assert_eq!(order, ["offer A to 1", "offer A to 4", "offer A to 6", "offer A to 2", "offer A to 3", "offer A to 5"]);
}

#[test]
fn made_up_identities_are_not_remembered_without_end() {
    let mut roster = Roster::new(Duration::from_secs(3600));
    let now = Timestamp::from_millis(1_800_000_000_000);
    for number in 1..=(MOST_ABSENT as u64 + 500) {
        let mut bytes = [7; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let id = AgentId::new(&bytes).expect("sixteen bytes");
        let connection = ConnectionId(number);
        roster.handle_event(
            AgentEvent::Connected { id, connection, transport: Transport::WebSocket, proofs: Labels::default() },
            now,
        );
        roster.handle_event(AgentEvent::Gone { id, connection, goodbye: false }, now);
    }
    assert_eq!(roster.agents().count(), MOST_ABSENT + 2, "twice the one that was connected at a time, and the base");
    roster.handle_timeout(now + Duration::from_secs(3600));
    assert_eq!(roster.agents().count(), 0, "and those for an hour");
}

#[test]
fn restarts_go_in_waves_and_only_to_those_who_can() {
    let mut bench = Bench::new(Desired { max_unavailable: Amount::Count(2), ..desired(b'A', None) });
    for number in 1..=5 {
        bench.connect(number, START);
        let mut report = complete(state(b'A', ConfigStatus::Applied));
        let restart = Capabilities::ACCEPTS_RESTART_COMMAND.0;
        let with = |can: Capabilities| Capabilities(if number == 5 { can.0 & !restart } else { can.0 | restart });
        report.capabilities = report.capabilities.map(with);
        bench.report(number, report, START);
    }
    let (can, cannot) = bench.roster.restartable(&group());
    assert_eq!((can.len(), cannot), (4, 1), "the fifth does not take the command");
    bench.roster.order_restarts(&can);
    assert_eq!(bench.actions(START), ["restart 1", "restart 2"], "no more than may be unavailable");
    assert_eq!(bench.wait(after(29)), Vec::<String>::new(), "they are still at it");
    assert_eq!(bench.wait(after(30)), ["restart 3", "restart 4"], "the next wave");
    assert_eq!(bench.wait(after(90)), Vec::<String>::new(), "each once");
}

/// Of an agent that was away nothing is taken for true of one that uses its uid and proves something else.
#[test]
fn who_proves_something_else_is_offered_nothing_that_was_meant_for_another() {
    let (id, now) = (id(1), START);
    let mut roster = Roster::new(FORGET);
    roster.set_assigner(Assigner::new([(&group(), &definition("prod", 0))]), now);
    let come = |roster: &mut Roster, connection: u64, env: &str| {
        let (connection, proofs) = (ConnectionId(connection), Labels::proven([("env", env)]));
        let transport = Transport::WebSocket;
        roster.handle_event(AgentEvent::Connected { id, connection, transport, proofs: proofs.clone() }, now);
        proofs
    };
    let proofs = come(&mut roster, 1, "prod");
    let report = AgentReport { labels: Some(proofs), ..AgentReport::default() };
    roster.handle_event(AgentEvent::Report { id, connection: ConnectionId(1), report: Box::new(report) }, now);
    let place = |roster: &Roster| roster.agents().next().map(|(_, member)| member.placement.clone());
    assert_eq!(place(&roster), Some(Placement::Group(group())));
    roster.handle_event(AgentEvent::Gone { id, connection: ConnectionId(1), goodbye: false }, now);
    come(&mut roster, 2, "prod");
    assert_eq!(place(&roster), Some(Placement::Group(group())), "the same proof, the same agent");
    roster.handle_event(AgentEvent::Gone { id, connection: ConnectionId(2), goodbye: false }, now);
    come(&mut roster, 3, "staging");
    assert_eq!(place(&roster), Some(Placement::Unmanaged), "before it described itself");
}
