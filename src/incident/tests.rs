//! Stories: what the daemon sees over time, and the messages that one receiver gets of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::incident::desk::{Delivery, Desk, Next, Outcome, UPDATE_PAUSE};
use crate::incident::find::{Limits, Seen};
use crate::incident::watch::{HOLD, Memory, Watch};
use crate::incident::{Incident, Severity, desk, words};
use crate::time::Timestamp;
use crate::view::{
    AgentCounts, CommitReport, Counts, Ending, FailureCluster, FleetStatus, GroupReport, GroupStatus, JournalStatus,
    ListenerStatus, Phase, SyncStatus, WaitingOn,
};

pub(super) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(super) const BAD: &str = "main@sha1:1111111111111111111111111111111111111111";

pub(super) fn quiet() -> FleetStatus {
    FleetStatus {
        instance: "blue".to_owned(),
        version: String::new(),
        now: START,
        observe: false,
        sync: SyncStatus { last_success: Some(START), revision: Some(BAD.to_owned()), ..SyncStatus::default() },
        journal: JournalStatus { last_stored: Some(START), last_pushed: Some(START), ..JournalStatus::default() },
        forge: None,
        listener: ListenerStatus::default(),
        alerts: None,
        agents: AgentCounts::default(),
        groups: Vec::new(),
        commits: Vec::new(),
        diagnostics: Vec::new(),
    }
}

pub(super) fn waits(reason: &str, message: &str) -> WaitingOn {
    WaitingOn { reason: reason.to_owned(), message: message.to_owned(), agents: None, until: None }
}

pub(super) fn group(name: &str, phase: Phase, waiting_on: Vec<WaitingOn>) -> GroupStatus {
    GroupStatus {
        name: name.to_owned(),
        phase,
        candidate: Some("c1".to_owned()),
        stage: Some("canary".to_owned()),
        brought_by: Some(BAD.to_owned()),
        counts: Counts { selected: 40, ..Counts::default() },
        waiting_on,
        ..GroupStatus::default()
    }
}

pub(super) fn failing(mut group: GroupStatus, count: usize, message: &str) -> GroupStatus {
    group.counts.failed = count;
    let cluster =
        FailureCluster { message: message.to_owned(), count, example: "a1".to_owned(), ..FailureCluster::default() };
    group.failures.push(cluster);
    group
}

pub(super) fn rolled_back(name: &str, count: usize) -> GroupStatus {
    failing(
        group(name, Phase::RolledBack, vec![waits("failed", "3 agents failed, 0 may (maxFailures)")]),
        count,
        "exited unexpectedly",
    )
}

pub(super) fn report(revision: &str, ending: Option<Ending>) -> CommitReport {
    CommitReport {
        revision: revision.to_owned(),
        ending,
        committer: "Ada".to_owned(),
        subject: "Raise the limit".to_owned(),
        synced_at: START,
        ended_at: None,
        author: None,
        rewritten_history: false,
        unknown_history: false,
        after: None,
        diagnostics: Vec::new(),
        groups: BTreeMap::new(),
        more_groups: BTreeMap::new(),
    }
}

/// A daemon, one receiver, and what it is told.
pub(super) struct Story {
    pub(super) watch: Watch,
    pub(super) desk: Desk,
    limits: Limits,
    pub(super) now: Timestamp,
    pub(super) transcript: String,
    pub(super) deliveries: Vec<Delivery>,
}

impl Story {
    pub(super) fn new() -> Self {
        Self::from(Memory::default(), desk::Memory::default(), START)
    }

    fn from(incidents: Memory, told: desk::Memory, now: Timestamp) -> Self {
        let limits = Limits { waits_too_long: Duration::from_secs(4 * 3600), stale_after: Duration::from_secs(900) };
        Self {
            watch: Watch::new("blue", limits, incidents, now),
            desk: Desk::new(None, told, now),
            limits,
            now,
            transcript: String::new(),
            deliveries: Vec::new(),
        }
    }

    /// What a process that starts anew knows: what was written down, as text.
    pub(super) fn restart(&mut self) {
        let incidents = serde_json::to_string(&self.watch.memory()).expect("JSON");
        let told = serde_json::to_string(self.desk.memory()).expect("JSON");
        let fresh = Self::from(
            serde_json::from_str(&incidents).expect("what was written"),
            serde_json::from_str(&told).expect("what was written"),
            self.now,
        );
        (self.watch, self.desk) = (fresh.watch, fresh.desk);
        self.transcript.push_str("-- restart\n");
    }

    /// This is seen for so long, every other second.
    pub(super) fn sees(&mut self, length: Duration, status: &FleetStatus) {
        self.looks(length, status, true);
    }

    pub(super) fn looks(&mut self, length: Duration, status: &FleetStatus, is_whole: bool) {
        let until = self.now + length;
        while self.now < until {
            self.now = self.now + Duration::from_secs(2);
            let status = FleetStatus { now: self.now, ..status.clone() };
            self.watch.handle(&Seen { status: &status, is_whole });
            self.tell();
        }
    }

    pub(super) fn incidents(&self) -> Vec<Incident> {
        self.watch.incidents()
    }

    fn tell(&mut self) {
        while let Next::Send(delivery) = self.desk.next(&self.incidents(), self.now) {
            self.desk.begin(&delivery, self.now);
            self.desk.handle(&delivery, Outcome::Taken, self.now, 0.5);
            let incident = &delivery.incident;
            let line = format!(
                "{:>5}s {} {} {}\n",
                self.now.since(START).as_secs(),
                delivery.event.name(),
                incident.severity(),
                words::title(incident)
            );
            self.transcript.push_str(&line);
            self.deliveries.push(*delivery);
        }
        for incident in self.incidents() {
            if self.desk.is_done(&incident) {
                self.watch.forget(&incident.id);
            }
        }
        let known = self.incidents();
        self.desk.retain(|id| known.iter().any(|incident| incident.id == id));
    }

    pub(super) fn says(&self, wanted: &str) {
        let lines = |text: &str| text.trim().lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(lines(&self.transcript), lines(wanted));
    }
}

pub(super) const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_rollback_is_one_message_and_its_revert_one_more() {
    let mut story = Story::new();
    let mut status = quiet();
    status.commits = vec![report(BAD, None)];
    status.groups = vec![failing(group("gw", Phase::Rolling, vec![]), 1, "exited unexpectedly")];
    story.sees(Duration::from_secs(4), &status);
    status.groups = vec![failing(
        group("gw", Phase::RollingBack, vec![waits("rolling-back", "2 agents to go")]),
        3,
        "exited unexpectedly",
    )];
    story.sees(Duration::from_secs(4), &status);
    status.groups = vec![rolled_back("gw", 3)];
    story.sees(10 * MINUTE, &status);
    // A later commit ends, and the fleet forgets the bad one.
    status.commits.clear();
    story.sees(10 * MINUTE, &status);
    story.restart();
    status.groups[0].failures.clear();
    story.sees(10 * MINUTE, &status);
    story.sees(MINUTE, &quiet());
    story.says(
        r#"
   12s opened critical gw: rolled back, 3 agents failed; 1111111 "Raise the limit" by Ada
-- restart
 1818s resolved critical gw: rolled back, 3 agents failed; 1111111 "Raise the limit" by Ada
"#,
    );
    let [opened, resolved] = &story.deliveries[..] else { panic!("two messages") };
    assert_eq!((opened.sequence, resolved.sequence), (1, 2));
    assert_eq!(opened.incident.id, resolved.incident.id);
    let (_, section) = opened.incident.worst().expect("a section");
    assert_eq!(section.part.failures[0].message, "exited unexpectedly");
    let steps = words::advice(&opened.incident).join("\n");
    assert!(steps.contains("git revert 1111111") && steps.contains("gitamp rollout gw"), "{steps}");
}

#[test]
fn what_comes_and_goes_is_not_told_and_what_gets_worse_is_told_at_once() {
    let mut story = Story::new();
    let mut status = quiet();
    let short = HOLD.saturating_sub(Duration::from_secs(4));
    for _ in 0..3 {
        status.groups = vec![failing(group("gw", Phase::Rolling, vec![]), 1, "slow")];
        story.sees(short, &status);
        story.sees(MINUTE, &quiet());
    }
    status.groups = vec![failing(group("gw", Phase::Rolling, vec![]), 1, "slow")];
    story.sees(MINUTE, &status);
    // More of the same is no news, another kind of failure is, but not at once.
    status.groups = vec![failing(group("gw", Phase::Rolling, vec![]), 4, "slow")];
    story.sees(MINUTE, &status);
    status.groups = vec![failing(failing(group("gw", Phase::Rolling, vec![]), 4, "slow"), 5, "out of memory")];
    story.sees(UPDATE_PAUSE, &status);
    status.groups = vec![rolled_back("gw", 30)];
    story.sees(MINUTE, &status);
    story.says(
        "
  210s opened warning gw: 1 agent failed; 1111111
  510s updated warning gw: 9 agents failed; 1111111
  620s updated critical gw: rolled back, 30 agents failed; 1111111
",
    );
}

#[test]
fn groups_of_one_commit_are_one_incident_and_everybody_hears_of_their_own() {
    let mut story = Story::new();
    let mut status = quiet();
    status.groups = vec![rolled_back("prod/a", 3), rolled_back("prod/b", 2), rolled_back("staging/c", 1)];
    story.sees(MINUTE, &status);
    let whole = story.incidents();
    assert_eq!(whole.len(), 1);
    assert_eq!(words::title(&whole[0]), "prod/a and 2 other groups: rolled back, 6 agents failed; 1111111");
    let own = whole[0].for_whom(Severity::Critical, |name| name.starts_with("staging/")).expect("it is theirs");
    assert_eq!(words::title(&own), "staging/c: rolled back, 1 agent failed; 1111111");
    assert_eq!(whole[0].for_whom(Severity::Critical, |name| name == "dev"), None);
    // One group is repaired: for those who have only that it is over.
    status.groups.truncate(2);
    story.sees(MINUTE, &status);
    let left = &story.incidents()[0];
    assert!(left.ended.is_none());
    let own = left.for_whom(Severity::Warning, |name| name.starts_with("staging/")).expect("it was theirs");
    assert!(own.ended.is_some());
    story.says("12s opened critical prod/a and 2 other groups: rolled back, 6 agents failed; 1111111");
    story.sees(UPDATE_PAUSE, &status);
    assert!(story.transcript.contains("updated critical"), "{}", story.transcript);
}

#[test]
fn who_hears_of_critical_things_alone_hears_of_their_end_as_well() {
    let mut story = Story::new();
    let mut status = quiet();
    status.groups = vec![failing(group("gw", Phase::Rolling, vec![]), 1, "slow")];
    story.sees(MINUTE, &status);
    assert_eq!(story.incidents()[0].for_whom(Severity::Critical, |_| true), None);
    status.groups = vec![rolled_back("gw", 3)];
    story.sees(MINUTE, &status);
    assert!(story.incidents()[0].for_whom(Severity::Critical, |_| true).is_some());
    status.groups = vec![failing(group("gw", Phase::Rolling, vec![]), 1, "slow")];
    story.sees(MINUTE, &status);
    let own = story.incidents()[0].for_whom(Severity::Critical, |_| true).expect("it stays theirs");
    assert_eq!((own.severity(), own.ended), (Severity::Warning, None));
}

#[test]
fn a_wait_is_told_when_nobody_wanted_it_and_not_before_its_time() {
    let budget = || waits("budget", "5 wait for room");
    let rolling =
        |reasons: Vec<WaitingOn>| FleetStatus { groups: vec![group("gw", Phase::Rolling, reasons)], ..quiet() };
    for reason in ["soak", "bake", "window", "approval", "pinned", "no-agents"] {
        let mut story = Story::new();
        story.sees(5 * 60 * MINUTE, &rolling(vec![budget(), waits(reason, "as it should be")]));
        story.says("");
    }
    let mut story = Story::new();
    story.sees(3 * 60 * MINUTE, &rolling(vec![budget()]));
    // A window is closed for a night: that time does not count.
    story.sees(8 * 60 * MINUTE, &rolling(vec![waits("window", "opens tomorrow")]));
    story.says("");
    story.sees(61 * MINUTE, &rolling(vec![budget()]));
    story.says("43212s opened warning gw: the rollout waits for too long; 1111111");
    story.restart();
    story.sees(MINUTE, &rolling(vec![budget()]));
    let mut moved = rolling(vec![budget()]);
    moved.groups[0].counts.confirmed = 1;
    story.sees(MINUTE, &moved);
    assert!(story.transcript.contains("resolved warning gw: the rollout waits"), "{}", story.transcript);
    assert_eq!(story.deliveries.len(), 2, "{}", story.transcript);
    let message = &story.deliveries[0].incident.sections["gw"].part.message;
    assert_eq!(message, "no progress for more than 4h: 5 wait for room");

    // What waits for another group is told there; what waits for one that nothing will come of is told.
    for (other, is_told) in [(Phase::Soaking, false), (Phase::RolledBack, false), (Phase::Unproven, true)] {
        let mut story = Story::new();
        let mut status = rolling(vec![waits("depends-on", "waits until staging has finished abc (dependsOn)")]);
        status.groups.push(GroupStatus { brought_by: None, ..group("staging", other, vec![]) });
        story.sees(5 * 60 * MINUTE, &status);
        assert_eq!(story.transcript.contains("gw: the rollout waits"), is_told, "{other}: {}", story.transcript);
    }
}

#[test]
fn a_repository_out_of_reach_is_told_after_a_while_also_over_restarts() {
    let mut story = Story::new();
    let mut status = quiet();
    status.sync.error = Some("cannot connect to git.example.com".to_owned());
    story.sees(14 * MINUTE, &status);
    story.sees(MINUTE, &quiet());
    story.sees(14 * MINUTE, &status);
    story.says("");
    story.sees(2 * MINUTE, &status);
    let opened = "1812s opened critical the repository cannot be followed, the fleet stays as it is";
    story.says(opened);
    // A daemon that starts knows nothing at first, and then that it still cannot reach it: no end, and no second beginning.
    story.restart();
    let fresh = FleetStatus { sync: SyncStatus::default(), journal: JournalStatus::default(), ..quiet() };
    story.looks(MINUTE, &fresh, false);
    let mut still = fresh.clone();
    still.sync.error = Some("cannot connect to git.example.com".to_owned());
    story.sees(5 * MINUTE, &still);
    story.says(&format!("{opened}\n-- restart"));
    story.sees(MINUTE, &quiet());
    assert!(story.transcript.contains("resolved critical the repository"), "{}", story.transcript);
    assert_eq!(story.deliveries.len(), 2);
    // The same another day is another incident.
    story.sees(20 * MINUTE, &status);
    let ids: Vec<&str> = story.deliveries.iter().map(|delivery| delivery.incident.id.as_str()).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
}

#[test]
fn what_cannot_be_told_after_a_start_changes_nothing() {
    let mut story = Story::new();
    let mut status = quiet();
    status.groups = vec![failing(group("gw", Phase::Steady, vec![]), 2, "slow")];
    status.groups[0].stage = None;
    status.groups.push(GroupStatus {
        diagnostics: vec!["base.yaml:3: wrong".to_owned()],
        ..group("other", Phase::Steady, vec![])
    });
    story.sees(MINUTE, &status);
    assert_eq!(story.deliveries.len(), 2, "{}", story.transcript);
    story.restart();
    let unread = FleetStatus { sync: SyncStatus::default(), ..quiet() };
    story.looks(Duration::from_secs(20), &unread, false);
    story.sees(Duration::from_secs(30), &unread);
    assert_eq!(story.deliveries.len(), 2, "agents are not back, files are not read: {}", story.transcript);
    story.sees(3 * MINUTE, &quiet());
    assert_eq!(story.deliveries.len(), 4, "{}", story.transcript);
}

/// The one incident that comes of a status: its severity, its title, a word of what to do; and that it ends.
fn assert_told(status: &FleetStatus, severity: &str, title: &str, advice: &str) {
    let mut story = Story::new();
    story.sees(20 * MINUTE, status);
    let [told] = &story.deliveries[..] else { panic!("{title}: {}", story.transcript) };
    assert_eq!((told.incident.severity().name(), words::title(&told.incident)), (severity, title.to_owned()));
    let steps = words::advice(&told.incident).join("\n");
    assert!(steps.contains(advice), "{title}: {steps}");
    story.sees(MINUTE, &quiet());
    assert_eq!(story.deliveries.len(), 2, "it ends: {}", story.transcript);
    assert!(words::ending(&story.deliveries[1].incident).starts_with("over"));
}

#[test]
fn every_situation_of_a_group_has_its_words() {
    let with = |group: GroupStatus| FleetStatus { groups: vec![group], ..quiet() };
    let held = |reason: &str, message: &str| with(group("gw", Phase::Held, vec![waits(reason, message)]));
    let aborted = "aborted by ann at 2026: too slow; revert the commit";
    for (status, severity, title, advice) in [
        (
            with(group("gw", Phase::Failed, vec![waits("failed", "3 agents failed")])),
            "critical",
            "gw: the rollout failed; 1111111",
            "git revert",
        ),
        (
            with(group("gw", Phase::Failed, vec![waits("failed", aborted)])),
            "warning",
            "gw: the rollout failed; 1111111",
            "git revert",
        ),
        (held("paused", "paused by ann"), "warning", "gw: the rollout is paused; 1111111", "gitamp resume gw"),
        (
            held("frozen", "the whole fleet is frozen by ann"),
            "warning",
            "gw: the rollout is frozen; 1111111",
            "gitamp unfreeze",
        ),
        (
            held("expect", "3 agents match, at least 20 are expected"),
            "warning",
            "gw: the rollout is held, the number of agents is not as expected; 1111111",
            "expect",
        ),
        (
            held("outage", "frozen: 5 of 5"),
            "critical",
            "gw: the rollout stands still, agents are sick and the commit seems not to be the reason; 1111111",
            "gitamp abort gw",
        ),
    ] {
        assert_told(&status, severity, title, advice);
    }
}

#[test]
fn every_situation_of_the_fleet_has_its_words() {
    let mut guarded = report(BAD, None);
    let guard = GroupReport {
        waiting_on: vec![waits("guard", "changes 12 of 20 groups")],
        ..GroupReport::ended(Ending::NoOp, "", START)
    };
    guarded.groups.insert("gw".to_owned(), guard);
    let rejected =
        CommitReport { diagnostics: vec!["fleet.yaml:2: wrong".to_owned()], ..report(BAD, Some(Ending::Rejected)) };
    let mut refused = quiet();
    (refused.sync.error, refused.sync.refused) = (Some("the head is not synced: it is not signed".to_owned()), true);
    let mut blocked = quiet();
    (blocked.journal.error, blocked.journal.blocked) = (Some("storing failed: no space".to_owned()), true);
    let mut unpushed = quiet();
    unpushed.journal.error = Some("pushing failed: denied".to_owned());
    for (status, severity, title, advice) in [
        (
            FleetStatus { commits: vec![guarded], ..quiet() },
            "warning",
            "gw: the commit is held by a guard; 1111111 \"Raise the limit\" by Ada",
            "gitamp promote 1111111",
        ),
        (
            FleetStatus { commits: vec![rejected], ..quiet() },
            "critical",
            "the files are refused; 1111111 \"Raise the limit\" by Ada",
            "gitamp check",
        ),
        (refused, "critical", "the head of the repository is refused, the fleet stays as it is", "sign the commit"),
        (blocked, "critical", "the journal cannot be stored, nothing new is offered", "disk"),
        (unpushed, "warning", "the journal does not reach the remote", "write access"),
    ] {
        assert_told(&status, severity, title, advice);
    }
    let local = FleetStatus {
        journal: JournalStatus { error: Some("pushing is refused".to_owned()), local_only: true, ..quiet().journal },
        ..quiet()
    };
    let mut story = Story::new();
    story.sees(20 * MINUTE, &local);
    story.says("");
}

#[test]
fn a_freeze_of_the_fleet_is_one_incident_and_a_broken_layer_too() {
    let mut status = quiet();
    for name in ["a", "b", "c"] {
        status.groups.push(group(name, Phase::Held, vec![waits("frozen", "the whole fleet is frozen by ann at 2026")]));
        let broken = GroupStatus {
            diagnostics: vec!["base.yaml:3: wrong".to_owned()],
            ..group(&format!("{name}2"), Phase::Steady, vec![])
        };
        status.groups.push(broken);
    }
    let mut story = Story::new();
    story.sees(MINUTE, &status);
    assert_eq!(story.deliveries.len(), 2, "{}", story.transcript);
    assert!(story.deliveries.iter().all(|told| told.incident.sections.len() == 3), "{}", story.transcript);
}

#[test]
fn a_receiver_that_is_out_gets_the_latest_word_and_nothing_that_is_over() {
    let mut story = Story::new();
    let mut status = quiet();
    status.groups = vec![failing(group("gw", Phase::Rolling, vec![]), 1, "slow")];
    let seen = |story: &mut Story, status: &FleetStatus, length: Duration| {
        let until = story.now + length;
        while story.now < until {
            story.now = story.now + Duration::from_secs(2);
            story.watch.handle(&Seen { status: &FleetStatus { now: story.now, ..status.clone() }, is_whole: true });
        }
    };
    seen(&mut story, &status, MINUTE);
    let Next::Send(first) = story.desk.next(&story.incidents(), story.now) else { panic!("it is due") };
    story.desk.handle(&first, Outcome::Failed, story.now, 0.0);
    let Next::At(retry) = story.desk.next(&story.incidents(), story.now) else { panic!("it waits") };
    assert_eq!(retry.since(story.now), desk::FIRST_RETRY / 2, "the lower end of the jitter");
    for _ in 0..20 {
        story.desk.handle(&first, Outcome::Failed, story.now, 1.0);
    }
    let Next::At(retry) = story.desk.next(&story.incidents(), story.now) else { panic!("it waits") };
    assert_eq!(retry.since(story.now), desk::LONGEST_RETRY);
    story.desk.handle(&first, Outcome::Later(Duration::from_secs(1000)), story.now, 0.0);
    let Next::At(retry) = story.desk.next(&story.incidents(), story.now) else { panic!("it waits") };
    assert_eq!(retry.since(story.now), Duration::from_secs(1000), "as it asked");
    status.groups = vec![rolled_back("gw", 3)];
    seen(&mut story, &status, 20 * MINUTE);
    let Next::Send(latest) = story.desk.next(&story.incidents(), story.now) else { panic!("it is due") };
    assert_eq!((latest.event.name(), latest.sequence, latest.incident.severity()), ("opened", 1, Severity::Critical));
    seen(&mut story, &quiet(), MINUTE);
    assert_eq!(story.desk.next(&story.incidents(), story.now), Next::Idle, "it never heard of it, and it is over");
    assert!(story.desk.is_done(&story.incidents()[0]));
    let id = story.incidents()[0].id.clone();
    assert!(story.watch.forget(&id) && story.incidents().is_empty());
    assert!(story.limits.stale_after > Duration::ZERO);
}

#[test]
fn an_end_that_nobody_took_is_told_by_the_next_process() {
    let mut story = Story::new();
    story.sees(MINUTE, &FleetStatus { groups: vec![rolled_back("gw", 3)], ..quiet() });
    let until = story.now + MINUTE;
    while story.now < until {
        story.now = story.now + Duration::from_secs(2);
        story.watch.handle(&Seen { status: &FleetStatus { now: story.now, ..quiet() }, is_whole: true });
    }
    story.restart();
    story.sees(Duration::from_secs(4), &quiet());
    story.says(
        "
   12s opened critical gw: rolled back, 3 agents failed; 1111111
-- restart
  122s resolved critical gw: rolled back, 3 agents failed; 1111111
",
    );
    assert!(story.incidents().is_empty(), "and then it is forgotten");
}

#[test]
fn who_refuses_a_message_again_and_again_is_left_alone_with_it() {
    let mut story = Story::new();
    let mut status = quiet();
    status.groups = vec![rolled_back("gw", 3)];
    let mut refusals = 0;
    for _ in 0..30 {
        story.now = story.now + Duration::from_secs(10);
        story.watch.handle(&Seen { status: &FleetStatus { now: story.now, ..status.clone() }, is_whole: true });
        if let Next::Send(delivery) = story.desk.next(&story.incidents(), story.now) {
            refusals += 1;
            story.desk.begin(&delivery, story.now);
            story.desk.handle(&delivery, Outcome::Refused, story.now, 0.5);
        }
    }
    assert_eq!(refusals, 5);
    assert!(story.desk.has_given_up(&story.incidents()[0]));
    assert_eq!(story.desk.memory(), &desk::Memory::default(), "it took none of them");
    // What becomes of it is another message, which it may take.
    status.groups = vec![failing(rolled_back("gw", 3), 40, "out of memory")];
    story.sees(Duration::from_secs(4), &status);
    assert_eq!(story.deliveries.len(), 1, "{}", story.transcript);
    story.sees(MINUTE, &quiet());
    assert_eq!(story.deliveries.len(), 2, "{}", story.transcript);
}

#[test]
fn who_forgets_is_reminded() {
    let mut story = Story::new();
    story.desk = Desk::new(Some(MINUTE), desk::Memory::default(), START);
    let mut status = quiet();
    status.groups = vec![rolled_back("gw", 3)];
    story.sees(5 * MINUTE, &status);
    let events: Vec<&str> = story.deliveries.iter().map(|delivery| delivery.event.name()).collect();
    assert_eq!(events, ["opened", "repeated", "repeated", "repeated", "repeated"]);
    story.sees(MINUTE, &quiet());
    assert_eq!(story.deliveries.last().map(|delivery| delivery.event.name()), Some("resolved"));
    let named = &story.deliveries.last().expect("one").named;
    assert_eq!(named.get("gw"), Some(&Severity::Critical), "what was named is known, so that it can be ended");
}

#[test]
fn there_is_an_end_to_what_is_kept() {
    let mut story = Story::new();
    let mut status = quiet();
    for number in 0..300 {
        let mut one = rolled_back(&format!("g{number}"), 1);
        one.brought_by = Some(format!("main@sha1:{number:040}"));
        status.groups.push(one);
    }
    story.sees(Duration::from_secs(20), &status);
    assert_eq!(story.incidents().len(), super::watch::MOST_INCIDENTS);
    let mut status = quiet();
    status.groups = (0..900).map(|number| rolled_back(&format!("g{number}"), 1)).collect();
    let mut story = Story::new();
    story.sees(Duration::from_secs(20), &status);
    assert_eq!(story.incidents()[0].sections.len(), super::watch::MOST_SECTIONS);
    let hostile = failing(
        group("gw", Phase::RolledBack, vec![waits("failed", &"x\u{1b}[31m\n".repeat(10_000))]),
        1,
        &"y".repeat(100_000),
    );
    let mut story = Story::new();
    story.sees(MINUTE, &FleetStatus { groups: vec![hostile], ..quiet() });
    let text = serde_json::to_string(&story.watch.memory()).expect("JSON");
    assert!(text.len() < 5_000 && !text.contains("\\u001b"), "{} bytes", text.len());
}
