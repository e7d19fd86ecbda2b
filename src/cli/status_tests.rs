//! What `gitamp status` prints, for fleets in all phases.

use super::*;
use crate::view::{AgentCounts, Counts, LastHook};
use std::time::Duration;

fn now() -> Timestamp {
    "2026-11-20T09:30:00Z".parse().expect("a time")
}

fn group(name: &str, phase: Phase) -> GroupStatus {
    GroupStatus {
        name: name.to_owned(),
        phase,
        wanted: Some("aaaaaaaaaaaaaaaa".to_owned()),
        stable: Some("bbbbbbbbbbbbbbbb".to_owned()),
        counts: Counts { selected: 40, eligible: 40, confirmed: 40, ..Counts::default() },
        ..GroupStatus::default()
    }
}

fn fleet(groups: Vec<GroupStatus>) -> FleetStatus {
    FleetStatus {
        instance: "eu".to_owned(),
        version: "1.2.3".to_owned(),
        now: now(),
        observe: false,
        sync: SyncStatus {
            repository: "https://git.example.com/fleet.git".to_owned(),
            revision: Some("main@sha1:0123456789abcdef0123456789abcdef01234567".to_owned()),
            subject: Some("Raise the \u{1b}[2Jlimit".to_owned()),
            last_success: Some(Timestamp::from_millis(now().as_millis() - 12_000)),
            next_attempt: Some(now() + Duration::from_secs(48)),
            ..SyncStatus::default()
        },
        journal: JournalStatus { last_pushed: Some(now()), ..JournalStatus::default() },
        forge: None,
        listener: ListenerStatus::default(),
        alerts: None,
        agents: AgentCounts { connected: 43, managed: 40, unmanaged: 3, away: 2, ..AgentCounts::default() },
        groups,
        commits: Vec::new(),
        diagnostics: Vec::new(),
    }
}

fn plain(status: &FleetStatus, all: bool) -> String {
    anstream::adapter::strip_str(&human(status, all)).to_string()
}

#[test]
fn a_fleet_in_all_phases() {
    let mut rolling = group("prod/gateways", Phase::Rolling);
    rolling.stage = Some("canary".to_owned());
    rolling.started_at = Some(Timestamp::from_millis(now().as_millis() - 90_000));
    rolling.counts = Counts {
        eligible: 40,
        confirmed: 30,
        offered: 4,
        failed: 1,
        pending: 5,
        away: 2,
        lost: 1,
        ..Counts::default()
    };
    rolling.waiting_on = vec![WaitingOn {
        reason: "soak".to_owned(),
        message: "soaking".to_owned(),
        agents: None,
        until: Some(now() + Duration::from_secs(500)),
    }];
    rolling.failures = vec![FailureCluster {
        message: "cannot listen\non port".to_owned(),
        count: 31,
        example: "0191".to_owned(),
        ..FailureCluster::default()
    }];
    let mut broken = group("prod/hosts", Phase::Steady);
    broken.diagnostics = vec!["prod/hosts/collector.yaml:4:3: unknown exporter `otlq`".to_owned()];
    broken.stable = None;
    assert_eq!(
        plain(&fleet(vec![rolling, broken, group("staging", Phase::Steady)]), false),
        "\
gitamp 1.2.3, instance eu
  repository  https://git.example.com/fleet.git
  revision    main@sha1:0123456789ab  Raise the \\u{1b}[2Jlimit
  synced      12s ago, next look in 48s
  notes       pushed 0s ago
  agents      43 connected: 40 in a group, 3 in no group; 2 away

GROUP          PHASE             CONFIRMED  OFFERED  FAILED  PENDING  HELD        AWAY  WANTED        STABLE
prod/gateways  rolling (canary)      30/40        4       1        5     0  2 + 1 lost  aaaaaaaaaaaa  bbbbbbbbbbbb
prod/hosts     steady                40/40        0       0        0     0           0  aaaaaaaaaaaa  -
staging        steady                40/40        0       0        0     0           0  aaaaaaaaaaaa  bbbbbbbbbbbb

prod/gateways (started 1m30s ago)
  soaking, for 8m20s at most
  31 × cannot listen\\non port (e.g. 0191)

prod/hosts
  prod/hosts/collector.yaml:4:3: unknown exporter `otlq`
"
    );
}

#[test]
fn trouble_is_said_in_plain_words() {
    let mut status = fleet(Vec::new());
    status.observe = true;
    status.sync.error = Some("the branch is gone".to_owned());
    status.sync.stale = true;
    status.sync.revision = None;
    status.sync.last_hook = Some(LastHook {
        at: Timestamp::from_millis(now().as_millis() - 180_000),
        forge: "GitLab".to_owned(),
        about: "ignored: a push to \u{7}x".to_owned(),
    });
    status.journal =
        JournalStatus { local_only: true, error: Some("the remote says no".to_owned()), ..JournalStatus::default() };
    status.agents = AgentCounts::default();
    status.diagnostics = vec!["fleet.yaml:1:1: not a mapping".to_owned()];
    assert_eq!(
        plain(&status, false),
        "\
gitamp 1.2.3, instance eu
  mode        only watching: nothing is offered, nothing is written (--observe)
  repository  https://git.example.com/fleet.git
  revision    none yet
  synced      12s ago, next look in 48s; stale, agents keep what they have
              the branch is gone
  webhook     3m ago, from GitLab: ignored: a push to \\u{7}x
  notes       they stay in the state directory
              the remote says no
  agents      0 connected
  fleet.yaml:1:1: not a mapping

No groups: nothing was read yet.
"
    );
}

#[test]
fn large_fleets_show_what_is_not_steady() {
    let mut groups: Vec<GroupStatus> = (0..60).map(|number| group(&format!("g{number:02}"), Phase::Steady)).collect();
    groups[7].phase = Phase::Failed;
    groups[8].waiting_on = vec![WaitingOn {
        reason: "cannot-accept".to_owned(),
        message: "2 held: does not accept".to_owned(),
        agents: Some(2),
        until: None,
    }];
    groups[9].diagnostics = (0..12).map(|number| format!("finding {number}")).collect();
    let status = fleet(groups);
    let text = plain(&status, false);
    for line in [
        "\ng07    failed ",
        "\ng08    steady ",
        "… and 57 groups are steady, with 2280 agents: --all shows them\n",
        "\ng08\n  2 held: does not accept\n",
        "  finding 9\n    … and 2 more findings: --all\n",
    ] {
        assert!(text.contains(line), "{line:?}\n{text}");
    }
    assert!(!text.contains("g10"), "{text}");
    let all = plain(&status, true);
    assert!(all.contains("\ng10 ") && all.contains("  finding 11\n") && !all.contains("--all"), "{all}");

    let quiet = fleet((0..60).map(|number| group(&format!("g{number:02}"), Phase::Steady)).collect());
    assert!(plain(&quiet, false).ends_with("\nAll 60 groups are steady, with 2400 agents: --all shows them\n"));
}

#[test]
fn groups_of_which_the_same_is_to_say_share_a_section() {
    let waiting = |name: &str| {
        let mut group = group(name, Phase::Unproven);
        group.stage = Some("all".to_owned());
        group.waiting_on = vec![WaitingOn {
            reason: "no-agents".to_owned(),
            message: "no agent matches yet".to_owned(),
            agents: None,
            until: None,
        }];
        group
    };
    let mut groups: Vec<GroupStatus> = (0..10).map(|number| waiting(&format!("g{number}"))).collect();
    groups[3] = group("g3", Phase::Steady);
    let text = plain(&fleet(groups), false);
    let section = "\ng0, g1, g2, g4, g5, g6, g7, g8 and 1 more\n  no agent matches yet\n";
    assert!(text.ends_with(section), "{text}");
    assert!(text.contains("\ng0     unproven  "), "a stage that nobody is in is not named: {text}");
}

#[test]
fn running_commits_are_named() {
    let commit = |ending| CommitReport {
        revision: "main@sha1:0123456789abcdef".to_owned(),
        ending,
        committer: "Ada \u{7}".to_owned(),
        subject: "Raise".to_owned(),
        synced_at: now(),
        ended_at: None,
        author: None,
        rewritten_history: true,
        unknown_history: false,
        after: None,
        diagnostics: Vec::new(),
        groups: BTreeMap::new(),
        more_groups: BTreeMap::new(),
    };
    let text = commits(&[commit(None), commit(Some(crate::view::Ending::Succeeded))], now());
    assert_eq!(
        anstream::adapter::strip_str(&text).to_string(),
        "  rolling out main@sha1:0123456789ab  Raise  by Ada \\u{7}, taken 0s ago, after a force push\n"
    );
}

#[test]
fn stages_orders_and_what_was_taken_back_are_shown_shortly() {
    let stage = |name: &str, size, confirmed, state| StageStatus {
        name: name.to_owned(),
        size,
        confirmed,
        state,
        ..StageStatus::default()
    };
    let mut rolling = group("prod/a", Phase::Rolling);
    rolling.stages = vec![
        stage("canary", 1, 1, StageState::Done),
        stage("early", 5, 3, StageState::Running),
        StageStatus { needs_approval: true, ..stage("half", 20, 3, StageState::Waiting) },
        stage("all", 40, 3, StageState::Waiting),
    ];
    let mut frozen = group("prod/b", Phase::Steady);
    frozen.orders = vec!["frozen by ada: \u{7}holidays".to_owned()];
    frozen.rolled_back = Some("aaaaaaaaaaaaaaaa".to_owned());
    let many = (0..60).map(|number| group(&format!("g{number:02}"), Phase::Steady));
    let text = plain(&fleet(many.chain([rolling, frozen]).collect()), false);
    for line in [
        "\nprod/a\n  canary ✓ › early 3/5, running › half 20 (approval) › all 40\n",
        "\nprod/b\n  aaaaaaaaaaaa was taken back, although the repository still says it\n  frozen by ada: \\u{7}holidays\n",
    ] {
        assert!(text.contains(line), "{line:?}\n{text}");
    }
    let mut done = group("prod/c", Phase::Steady);
    done.stages = vec![stage("canary", 1, 1, StageState::Done), stage("all", 40, 40, StageState::Done)];
    assert_eq!(section(&done, now(), false), "");
}
