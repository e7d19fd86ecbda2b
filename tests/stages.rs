//! Rollouts in stages as a user sees them: what a group does that says nothing, what a commit asks for itself, and what the calendar
//! holds back.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::gateways::{agents, change, collector, gateways};
use support::{Daemon, stays, wait_for};

/// Nothing about rollouts: the defaults hold.
const GROUP: &str = "apiVersion: gitamp/v1\nkind: Group\nselector:\n  matchLabels: {service.name: otelcol-gateway}\n";

/// Waits until the group is like this; the group.
fn group_when(daemon: &Daemon, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || {
        let group = daemon.group("gateways");
        if holds(&group) { Ok(group) } else { Err(group) }
    })
}

/// Waits until so many agents in this stage have what is new and are watched.
fn watched_in(daemon: &Daemon, stage: &str, agents: u64) {
    group_when(daemon, &format!("{agents} agents to be watched in stage {stage}"), |group| {
        group["stage"] == stage && group["phase"] == "soaking" && group["counts"]["confirmed"] == agents
    });
}

fn waits_for(group: &Value, reason: &str) -> bool {
    group["waitingOn"].as_array().is_some_and(|waiting| waiting.iter().any(|one| one["reason"] == reason))
}

#[test]
fn a_group_that_says_nothing_has_its_canaries() {
    let repository = gateways(GROUP);
    let daemon = Daemon::start(&repository, &["--interval", "1h"]);
    let fleet = agents(&daemon, 20);
    for (stage, agents) in [("canary", 1), ("tenth", 2), ("half", 10), ("bake", 20)] {
        watched_in(&daemon, stage, agents);
        assert_eq!(fleet.counts().offers, agents, "one offer for each agent of stage {stage}");
        daemon.ask(&["promote", "gateways", "--now", "--yes", "--reason", "seen enough"]);
    }
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.ending(&first, "succeeded");
    let stable = daemon.group("gateways")["stable"].clone();
    assert!(stable.is_string(), "{stable}");

    let bad = change(&repository, "Debug at a level that there is not", "broken");
    repository.ending(&bad, "rolled-back");
    let group = group_when(&daemon, "the canary to be back", |group| group["counts"]["confirmed"] == 20);
    assert_eq!((&group["phase"], &group["stable"]), (&"rolled-back".into(), &stable), "{group}");
    assert_eq!(
        fleet.counts().offers,
        22,
        "the canary tried, and got what it had before; nobody else was sent anything"
    );

    let held = change(&repository, "Debug in detail\n\nGitamp-Rollout: hold", "detailed");
    group_when(&daemon, "the commit to be held", |group| waits_for(group, "paused") && group["phase"] == "held");
    stays("a commit that is held is offered to nobody", Duration::from_secs(1), || fleet.counts().offers);
    daemon.ask(&["promote", &held, "--yes"]);
    watched_in(&daemon, "canary", 1);
    assert_eq!(fleet.counts().offers, 23);

    // What was stable before the hold and the failure goes to everybody at once, watched by nobody.
    let back = change(&repository, "Debug as before", "basic");
    repository.ending(&back, "succeeded");
    assert_eq!(daemon.group("gateways")["counts"]["confirmed"], 20);
    assert_eq!(fleet.counts().offers, 24, "only the canary had something else");
}

#[test]
fn a_commit_may_be_fast_where_the_policy_allows_it() {
    let repository = gateways(GROUP);
    let policy = "apiVersion: gitamp/v1\nkind: Fleet\nallowFast: [gateways]\n";
    repository.write(&[("fleet.yaml", policy)]);
    let fast =
        change(&repository, "Debug normally\n\nSigned-off-by: Ada <ada@example.com>\nGitamp-Rollout: fast", "normal");
    let daemon = Daemon::start(&repository, &["--interval", "1h"]);
    let fleet = agents(&daemon, 10);
    repository.ending(&fast, "succeeded");
    assert_eq!(fleet.counts().offers, 10, "everybody at once, without a soak and a bake");
    let slow = change(&repository, "Debug in detail", "detailed");
    watched_in(&daemon, "canary", 1);
    assert_eq!(fleet.counts().offers, 11, "the next commit says nothing of itself, and has its canary");
    assert!(!repository.note(&slow).unwrap_or_default().contains("ending: "), "it is on its way");
}

#[test]
fn a_closed_window_holds_stages_and_no_revert() {
    let at_once = format!("{GROUP}rollout: {{stages: [{{name: all, agents: 100%}}], bake: 0s}}\n");
    let repository = gateways(&at_once);
    let daemon = Daemon::start(&repository, &["--interval", "1h"]);
    let fleet = agents(&daemon, 4);
    repository.ending(&repository.git(&["rev-parse", "HEAD"]), "succeeded");

    // Closed at any time: the test does not know which day it is.
    let closed = at_once.replace("bake: 0s", "bake: 0s, windows: [{deny: Mon-Sun, timeZone: Europe/Berlin}]");
    let files = [("gateways/group.yaml", closed.as_str()), ("gateways/collector.yaml", &collector("normal"))];
    let commit = repository.commit("Debug normally, but not now", &files);
    let group = group_when(&daemon, "the window to be in the way", |group| waits_for(group, "window"));
    let reason = group["waitingOn"].to_string();
    assert!(reason.contains("deny Mon-Sun Europe/Berlin") && reason.contains("within a year"), "{reason}");
    assert_eq!(fleet.counts().offers, 4);
    daemon.ask(&["promote", "gateways", "--now", "--yes"]);
    repository.ending(&commit, "succeeded");
    assert_eq!(fleet.counts().offers, 8);

    let back = change(&repository, "Debug as before", "basic");
    repository.ending(&back, "succeeded");
    assert_eq!(fleet.counts().offers, 12, "what was stable before does not wait for a window");
}
