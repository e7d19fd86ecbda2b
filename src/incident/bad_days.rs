//! Stories of bad days: networks, receivers, clocks and fleets on which more goes wrong than one thing at a time.

use std::time::Duration;

use crate::incident::desk::{self, Delivery, Desk, Next, Outcome};
use crate::incident::find::Seen;
use crate::incident::tests::{BAD, MINUTE, START, Story, failing, group, quiet, report, rolled_back, waits};
use crate::incident::watch::{MOST_INCIDENTS, MOST_SECTIONS};
use crate::incident::{Severity, Situation, Topic, words};
use crate::view::{Ending, FleetStatus, GroupStatus, Phase};

impl Story {
    /// This is seen for so long, and nobody is told.
    fn sees_silently(&mut self, length: Duration, status: &FleetStatus) {
        let until = self.now + length;
        while self.now < until {
            self.now = self.now + Duration::from_secs(2);
            let status = FleetStatus { now: self.now, ..status.clone() };
            self.watch.handle(&Seen { status: &status, is_whole: true });
        }
    }

    fn due(&self) -> Delivery {
        match self.desk.next(&self.incidents(), self.now) {
            Next::Send(delivery) => *delivery,
            other @ (Next::At(_) | Next::Idle) => panic!("nothing is due: {other:?}"),
        }
    }
}

fn with(groups: Vec<GroupStatus>) -> FleetStatus {
    FleetStatus { groups, ..quiet() }
}

#[test]
fn a_head_that_is_refused_is_one_incident_through_every_hiccup_and_every_further_push() {
    let mut story = Story::new();
    let mut refused = quiet();
    (refused.sync.error, refused.sync.refused) = (Some("not synced: 1111111 is not signed".to_owned()), true);
    let mut rejected = report(BAD, Some(Ending::Rejected));
    rejected.diagnostics = vec!["not synced: it is not signed".to_owned()];
    refused.commits = vec![rejected];
    let mut hiccup = refused.clone();
    (hiccup.sync.error, hiccup.sync.unreachable) = (Some("cannot connect to git.example.com".to_owned()), true);
    story.sees(MINUTE, &refused);
    story.sees(MINUTE, &hiccup);
    story.sees(MINUTE, &refused);
    refused.sync.error = Some("not synced: 2222222 is not signed".to_owned());
    story.sees(MINUTE, &refused);
    let title = "the head of the repository is refused, the fleet stays as it is";
    story.says(&format!("12s opened critical {title}"));
    // What lasts is told although the head was refused before, and its end is no end of the refusal.
    story.sees(20 * MINUTE, &hiccup);
    assert!(story.transcript.contains("opened critical the repository cannot be followed"), "{}", story.transcript);
    story.sees(MINUTE, &refused);
    let open: Vec<Topic> =
        story.incidents().iter().filter(|one| one.ended.is_none()).map(|incident| incident.topic).collect();
    assert_eq!(open, [Topic::Head]);
    story.sees(MINUTE, &quiet());
    assert!(story.transcript.ends_with(&format!("resolved critical {title}\n")), "{}", story.transcript);
}

#[test]
fn who_may_have_taken_the_beginning_hears_of_the_end() {
    // It took it, but its answer came too late.
    let mut story = Story::new();
    story.sees_silently(MINUTE, &with(vec![rolled_back("gw", 3)]));
    let opened = story.due();
    assert!(story.desk.begin(&opened, story.now));
    story.desk.handle(&opened, Outcome::Doubtful, story.now, 0.5);
    story.sees_silently(MINUTE, &quiet());
    assert!(!story.desk.is_done(&story.incidents()[0]));
    let end = story.due();
    assert_eq!((end.event.name(), end.sequence), ("resolved", 2));
    assert!(end.named.contains_key("gw"));

    // It is over while the message is on its way.
    let mut story = Story::new();
    story.sees_silently(MINUTE, &with(vec![rolled_back("gw", 3)]));
    let opened = story.due();
    story.desk.begin(&opened, story.now);
    story.sees_silently(MINUTE, &quiet());
    assert!(!story.desk.is_done(&story.incidents()[0]), "nobody may forget it");
    story.desk.handle(&opened, Outcome::Taken, story.now, 0.5);
    story.now = story.now + MINUTE;
    assert_eq!(story.due().event.name(), "resolved");

    // The process dies before it could note the answer: the same message again, or the end.
    let mut story = Story::new();
    let status = with(vec![rolled_back("gw", 3)]);
    story.sees_silently(MINUTE, &status);
    let opened = story.due();
    story.desk.begin(&opened, story.now);
    story.restart();
    story.sees_silently(Duration::from_secs(2), &status);
    let again = story.due();
    assert_eq!((again.event, again.sequence, &again.incident.id), (opened.event, 1, &opened.incident.id));
    story.sees_silently(MINUTE, &quiet());
    assert_eq!((story.due().event.name(), story.due().sequence), ("resolved", 2));
}

#[test]
fn who_took_nothing_for_sure_hears_of_no_end() {
    for outcome in [Outcome::Failed, Outcome::Refused, Outcome::Later(MINUTE)] {
        let mut story = Story::new();
        story.sees_silently(MINUTE, &with(vec![rolled_back("gw", 3)]));
        let opened = story.due();
        story.desk.begin(&opened, story.now);
        assert!(story.desk.handle(&opened, outcome, story.now, 0.5), "what was remembered is taken back");
        story.sees_silently(MINUTE, &quiet());
        assert_eq!(story.desk.next(&story.incidents(), story.now), Next::Idle, "{outcome:?}");
    }
}

#[test]
fn a_doubtful_update_is_told_again_as_another_message_when_it_says_something_else() {
    let mut story = Story::new();
    story.sees(MINUTE, &with(vec![failing(group("gw", Phase::Rolling, vec![]), 1, "slow")]));
    story.sees_silently(MINUTE, &with(vec![rolled_back("gw", 3)]));
    let worse = story.due();
    assert_eq!((worse.event.name(), worse.sequence), ("updated", 2));
    story.desk.begin(&worse, story.now);
    story.desk.handle(&worse, Outcome::Doubtful, story.now, 0.0);
    story.now = story.now + MINUTE;
    assert_eq!(story.due().sequence, 2, "another try of the same");
    // It is as it was when it was told first, but the receiver may believe the update.
    story.sees_silently(MINUTE, &with(vec![failing(group("gw", Phase::Rolling, vec![]), 1, "slow")]));
    let milder = story.due();
    assert_eq!((milder.event.name(), milder.sequence, milder.incident.severity()), ("updated", 3, Severity::Warning));
}

#[test]
fn one_message_that_a_receiver_cannot_bear_holds_up_no_other() {
    let mut story = Story::new();
    story.desk = Desk::new(Some(MINUTE), desk::Memory::default(), START);
    let mut poison = rolled_back("poison", 3);
    poison.brought_by = Some("main@sha1:2222222222222222222222222222222222222222".to_owned());
    story.sees_silently(MINUTE, &with(vec![poison.clone()]));
    let all = with(vec![poison, rolled_back("gw", 1), {
        let mut warning = failing(group("mild", Phase::Rolling, vec![]), 1, "slow");
        warning.brought_by = Some("main@sha1:3333333333333333333333333333333333333333".to_owned());
        warning
    }]);
    let mut taken: Vec<String> = Vec::new();
    let mut failures = 0;
    let until = story.now + 10 * MINUTE;
    while story.now < until {
        story.sees_silently(Duration::from_secs(2), &all);
        let Next::Send(delivery) = story.desk.next(&story.incidents(), story.now) else { continue };
        story.desk.begin(&delivery, story.now);
        let is_poison = delivery.incident.sections.contains_key("poison");
        let outcome = if is_poison { Outcome::Doubtful } else { Outcome::Taken };
        story.desk.handle(&delivery, outcome, story.now, 1.0);
        if is_poison {
            failures += 1;
        } else {
            taken.push(format!("{} {}", delivery.event.name(), delivery.incident.severity()));
        }
    }
    assert_eq!(taken.iter().take(2).collect::<Vec<_>>(), ["opened critical", "opened warning"], "the worst first");
    assert!((3..12).contains(&failures), "it is tried less and less often: {failures}");
    let repeated = taken.iter().filter(|line| line.starts_with("repeated")).count();
    assert!(repeated >= 16, "two incidents, nearly ten minutes, one reminder a minute: {taken:?}");
}

#[test]
fn an_outage_is_not_over_because_the_daemon_or_the_group_stands_still() {
    let out =
        with(vec![group("gw", Phase::Held, vec![waits("outage", "5 of 5 agents fall sick with and without it")])]);
    let mut story = Story::new();
    story.sees(MINUTE, &out);
    // Agents need a while to come back and to say again that they are sick.
    story.restart();
    story.sees(Duration::from_secs(40), &with(vec![group("gw", Phase::Rolling, vec![])]));
    story.sees(MINUTE, &out);
    for reason in ["frozen", "paused", "observing"] {
        story.sees(MINUTE, &with(vec![group("gw", Phase::Held, vec![waits(reason, "frozen by ann")])]));
        story.sees(MINUTE, &out);
    }
    let about_it = |story: &Story| {
        let is_it = |told: &&Delivery| told.incident.topic == Topic::Rollout;
        story.deliveries.iter().filter(is_it).map(|told| told.event.name()).collect::<Vec<_>>()
    };
    assert_eq!(about_it(&story), ["opened"], "{}", story.transcript);
    // Another commit in the same group ends it, also under a freeze.
    let mut other = group("gw", Phase::Held, vec![waits("frozen", "frozen by ann")]);
    other.brought_by = Some("main@sha1:2222222222222222222222222222222222222222".to_owned());
    story.sees(MINUTE, &with(vec![other]));
    assert_eq!(about_it(&story), ["opened", "resolved"], "{}", story.transcript);
}

#[test]
fn a_journal_that_stays_here_is_not_said_to_be_pushed() {
    let mut unpushed = quiet();
    unpushed.journal.error = Some("pushing failed: denied".to_owned());
    let mut local = quiet();
    (local.journal.local_only, local.journal.last_pushed) = (true, None);
    for is_local in [true, false] {
        let mut story = Story::new();
        story.sees(20 * MINUTE, &unpushed);
        story.restart();
        story.sees(
            MINUTE,
            if is_local {
                &local
            } else {
                unpushed.journal.error = None;
                &unpushed
            },
        );
        let [opened, resolved] = &story.deliveries[..] else { panic!("two messages: {}", story.transcript) };
        assert_eq!(opened.incident.id, resolved.incident.id);
        let ending = words::ending(&resolved.incident);
        assert_eq!(ending.contains("stays on this disk"), is_local, "{ending}");
        assert_eq!(ending == "over: the journal is pushed again", !is_local, "{ending}");
        unpushed.journal.error = Some("pushing failed: denied".to_owned());
    }
}

/// Groups of which each has a commit of its own.
fn apart(count: usize, of: impl Fn(&str) -> GroupStatus) -> Vec<GroupStatus> {
    let one = |number: usize| GroupStatus {
        brought_by: Some(format!("main@sha1:{number:040}")),
        ..of(&format!("g{number:04}"))
    };
    (0..count).map(one).collect()
}

#[test]
fn what_is_critical_has_room_however_much_else_is_wrong() {
    let slow = |name: &str| failing(group(name, Phase::Rolling, vec![]), 1, "slow");
    let mut story = Story::new();
    let mut status = with(apart(300, slow));
    story.sees_silently(MINUTE, &status);
    assert_eq!((story.incidents().len(), story.watch.left_out()), (MOST_INCIDENTS, 200));
    (status.journal.error, status.journal.blocked) = (Some("storing failed: no space".to_owned()), true);
    status.groups[299] = rolled_back("g0299", 3);
    status.groups[299].brought_by = Some(BAD.to_owned());
    story.sees_silently(MINUTE, &status);
    let worst: Vec<Situation> = story
        .incidents()
        .iter()
        .filter(|incident| incident.severity() == Severity::Critical)
        .filter_map(|incident| incident.worst().map(|(_, section)| section.part.situation))
        .collect();
    assert_eq!(worst, [Situation::JournalNotStored, Situation::RolledBack]);
    assert_eq!((story.incidents().len(), story.watch.left_out()), (MOST_INCIDENTS + 1, 200));

    // The same within one incident.
    let mut story = Story::new();
    let mut status = with((0..600).map(|number| slow(&format!("g{number:04}"))).collect());
    story.sees_silently(MINUTE, &status);
    assert_eq!((story.incidents()[0].sections.len(), story.watch.left_out()), (MOST_SECTIONS, 100));
    status.groups[599] = rolled_back("g0599", 3);
    story.sees_silently(MINUTE, &status);
    assert!(story.incidents()[0].sections.contains_key("g0599"));
    // What is over makes room for what is not.
    status.groups.drain(..200);
    story.sees_silently(MINUTE, &status);
    assert_eq!(story.watch.left_out(), 0);
    let open = story.incidents()[0].sections.values().filter(|section| section.ended.is_none()).count();
    assert_eq!(open, 400);
}

#[test]
fn a_clock_that_was_ahead_delays_no_message() {
    let mut story = Story::new();
    story.now = story.now + 600 * MINUTE;
    story.sees(MINUTE, &with(vec![failing(group("gw", Phase::Rolling, vec![]), 1, "slow")]));
    story.now = START;
    story.restart();
    story.sees(MINUTE, &with(vec![rolled_back("gw", 3)]));
    assert!(story.transcript.contains("updated critical gw: rolled back"), "{}", story.transcript);
}
