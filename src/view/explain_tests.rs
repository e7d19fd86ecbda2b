//! What is said of agents in all situations.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::agent::{AgentReport, ConnectionId, Health};
use crate::config::ConfigHash;
use crate::fleet::GroupDefinition;
use crate::fleet::GroupName;
use crate::fleet::assign::Assigner;
use crate::fleet::strategy::Strategy;
use crate::labels::{Operator, Requirement};
use crate::rollout::Desired;
use crate::roster::member::{Gone, Link, Offer};
use crate::roster::standing::{HeldReason, Verdict as Judgement};

const NOW: Timestamp = Timestamp::from_millis(3_600_000);

fn hash(byte: u8) -> ConfigHash {
    ConfigHash::new([byte; 32])
}

fn before(seconds: u64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() - seconds * 1_000)
}

fn group() -> Group {
    let mut group = Group::default();
    group.set_desired(Desired {
        candidate: Some(hash(0xcc)),
        stable: Some(hash(0x55)),
        wanted: Some(hash(0xcc)),
        kept: vec![hash(0x11)],
        ..Desired::default()
    });
    group
}

/// Connected, healthy, in `prod/a`, with this configuration applied for five minutes.
fn member(reported: u8) -> Member {
    let mut member = Member {
        link: Some(Link {
            connection: ConnectionId(1),
            transport: Transport::WebSocket,
            heard: true,
            offered: None,
            found_applying: None,
        }),
        placement: Placement::Group(GroupName::new("prod/a")),
        ..Member::default()
    };
    let capabilities =
        Capabilities::ACCEPTS_REMOTE_CONFIG.0 | Capabilities::REPORTS_REMOTE_CONFIG.0 | Capabilities::REPORTS_HEALTH.0;
    let report = AgentReport {
        capabilities: Some(Capabilities(capabilities)),
        labels: Some(Labels::new([("env", "prod"), ("host.name", "a-1")])),
        config: Some(ConfigState {
            hash: ReportedHash::Known(hash(reported)),
            status: ConfigStatus::Applied,
            message: None,
        }),
        health: Some(Health { healthy: true, message: None }),
        ..AgentReport::default()
    };
    member.take(report, before(300));
    member
}

fn stands(member: Member, standing: Standing, until: Option<u64>) -> Member {
    let until = until.map(|seconds| NOW + Duration::from_secs(seconds));
    Member { verdict: Judgement { standing, until, ..Judgement::NOBODY }, ..member }
}

fn definition(priority: i32, key: &str, value: &str) -> GroupDefinition {
    let requirement = Requirement::new(key, Operator::In, vec![value.to_owned()]).expect("a requirement");
    GroupDefinition {
        selector: Selector::new(vec![requirement]),
        priority,
        variant_of: None,
        suspend: false,
        expect: None,
        strategy: Strategy::default(),
    }
}

fn told(member: &Member, group: &Group) -> Explanation {
    let groups = [
        (GroupName::new("prod/a"), definition(10, "env", "prod")),
        (GroupName::new("prod/all"), definition(0, "env", "prod")),
        (GroupName::new("staging/a"), definition(0, "env", "staging")),
    ];
    let labels = member.labels.clone().unwrap_or_else(|| Labels::new::<String, String>([]));
    let waiting = WaitingOn { reason: "soak".to_owned(), message: "soaking".to_owned(), agents: None, until: None };
    let is_in_group = member.placement.group().is_some();
    explain(&Facts {
        id: AgentId::new(&[1; 16]).expect("an id"),
        member,
        group: is_in_group.then_some(group),
        selector: is_in_group.then_some(&groups[0].1.selector),
        revision: is_in_group.then_some("main@sha1:0123"),
        stage: is_in_group.then_some("canary"),
        can_retry: group.failures.len() == 1,
        waiting: if is_in_group { vec![waiting] } else { Vec::new() },
        orders: Vec::new(),
        matches: Assigner::new(groups.iter().map(|(name, definition)| (name, definition))).explain(&labels),
        now: NOW,
    })
}

#[test]
fn an_agent_that_has_what_it_should_have() {
    let member = stands(member(0xcc), Standing::Confirmed, None);
    let told = told(&member, &group());
    assert_eq!(
        told.belongs,
        [
            "It belongs to prod/a, which selects it (priority 10): env=prod.",
            "prod/all (priority 0) selects it, but prod/a has a higher priority.",
            "staging/a (priority 0) wants env=staging, and env is \"prod\".",
        ]
    );
    assert_eq!(
        told.reports,
        [
            "It is connected over a WebSocket.",
            "It has applied cccccccccccc, the one that is rolled out (5m ago)",
            "It says that it is healthy.",
        ]
    );
    assert_eq!(told.should_have, ["It should have cccccccccccc: the running rollout's, stage canary."]);
    assert_eq!(told.next, ["It has what it should have, and is well."]);
    let verdicts: Vec<&str> = told.matches.iter().map(|one| one.verdict.as_str()).collect();
    assert_eq!(verdicts, ["chosen", "outranked", "unmet"]);
}

fn failure() -> crate::roster::group::Failure {
    let (message, at) = ("port in use".into(), Timestamp::from_millis(1));
    crate::roster::group::Failure { at, ..crate::roster::group::Failure::new(hash(0xcc), message) }
}

#[test]
fn what_comes_next_is_told_for_every_standing() {
    let offered = |mut member: Member| {
        member.offer = Some(Offer::new(hash(0xcc), before(120), Some(ConnectionId(1))));
        member
    };
    let ill = Judgement {
        unready: true,
        until: Some(NOW + Duration::from_secs(12)),
        standing: Standing::Pending,
        ..Judgement::NOBODY
    };
    let mut failed = group();
    let failure = failure();
    failed.failures.insert(AgentId::new(&[1; 16]).expect("an id"), failure);
    let soaks = "Its group waits: soaking.";
    for (member, group, next) in [
        (
            stands(member(0x55), Standing::Pending, None),
            group(),
            vec!["It will be offered it when there is room.", soaks],
        ),
        (
            Member { verdict: ill, ..member(0x55) },
            group(),
            vec!["It fell ill only just now, and is offered it in at most 12s.", soaks],
        ),
        (
            stands(offered(member(0x55)), Standing::Offered, Some(480)),
            group(),
            vec!["gitamp offered it cccccccccccc 2m ago; the outcome is awaited, for at most 8m.", soaks],
        ),
        (
            stands(member(0x55), Standing::Held(HeldReason::Drifted), None),
            group(),
            vec![
                "It is held: reports another configuration than the one it was given: something else configures it too.",
                soaks,
            ],
        ),
        (
            stands(member(0xcc), Standing::Failed, None),
            failed,
            vec![
                "It failed cccccccccccc: port in use",
                "It is not offered that again until the group is to have another configuration, or somebody says `gitamp retry \
                 prod/a`.",
            ],
        ),
        (
            Member {
                link: None,
                gone: Some(Gone { at: before(60), left: before(60), goodbye: false }),
                ..stands(offered(member(0x55)), Standing::Lost, Some(480))
            },
            group(),
            vec![
                "gitamp offered it cccccccccccc 2m ago, and it vanished then; it counts as failed unless it is back in 8m.",
            ],
        ),
        (
            Member {
                link: None,
                gone: Some(Gone { at: before(60), left: before(60), goodbye: true }),
                ..stands(member(0x55), Standing::Away, None)
            },
            group(),
            vec!["Nothing is expected of it while it is away."],
        ),
    ] {
        assert_eq!(told(&member, &group).next, next);
    }
}

#[test]
fn what_an_agent_says_of_itself_is_put_into_words() {
    let with = |reported, status, message: Option<&str>| {
        let mut one = member(0);
        let state = ConfigState { hash: reported, status, message: message.map(Arc::from) };
        one.config = Some((state, before(30)));
        told(&one, &group()).reports.remove(1)
    };
    let known = |byte| ReportedHash::Known(hash(byte));
    for (said, words) in [
        (with(known(0x55), ConfigStatus::Applied, None), "It has applied 555555555555, the stable one (30s ago)"),
        (
            with(known(0x11), ConfigStatus::Applying, None),
            "It is applying 111111111111, one that was superseded or that failed (30s ago)",
        ),
        (
            with(known(0x99), ConfigStatus::Failed, Some("no such receiver")),
            "It could not apply 999999999999, which is none of its group's (30s ago): no such receiver",
        ),
        (
            with(ReportedHash::Foreign, ConfigStatus::Applied, None),
            "It runs a configuration that another server gave it.",
        ),
        (with(ReportedHash::None, ConfigStatus::Unset, None), "It has no remote configuration yet."),
    ] {
        assert_eq!(said, words);
    }
    let mut ill = member(0xcc);
    let health = Some(Health { healthy: false, message: Some("queue full".into()) });
    ill.take(AgentReport { health, ..AgentReport::default() }, before(90));
    assert_eq!(told(&ill, &group()).reports[2], "It says that it is unhealthy, for 1m30s now: queue full");
    let silent = Member { capabilities: Capabilities::default(), ..member(0xcc) };
    assert_eq!(told(&silent, &group()).reports[2], "It does not report its health.");
}

#[test]
fn agents_of_no_group_keep_what_they_have() {
    let names: Arc<[GroupName]> = [GroupName::new("prod/a"), GroupName::new("prod/b")].into();
    let mut told_all = BTreeSet::new();
    for (placement, words) in [
        (Placement::Unknown, "It has not described itself yet, so no group can be found for it."),
        (Placement::Unmanaged, "No group selects it, so it keeps what it has."),
        (
            Placement::Orphaned(GroupName::new("old")),
            "Its group old is no longer in the repository and no other selects it; it keeps what it has.",
        ),
        (
            Placement::Conflict(names),
            "prod/a and prod/b select it at the same priority, so none of them gets it and it keeps what it has: give one a \
             higher priority, or narrow a selector.",
        ),
    ] {
        let one = Member { placement, verdict: Judgement::NOBODY, ..member(0x55) };
        let told = told(&one, &group());
        assert_eq!(told.belongs[0], words);
        assert_eq!(told.should_have, ["It keeps what it has."]);
        assert!(told.next.is_empty(), "{:?}", told.next);
        told_all.insert(told.agent.state);
    }
    assert_eq!(told_all.len(), 4, "{told_all:?}");
}
