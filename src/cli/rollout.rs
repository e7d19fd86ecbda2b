//! `gitamp rollout`: one group's running or last rollout, stage by stage, and everything that it waits for.

use std::process::ExitCode;

use clap::Args;

use super::admin_client::{AdminClient, DaemonPlace};
use super::screen::{Tint, ago, clean, clean_short, json, json_line, rough, short_hash, short_revision, tinted};
use super::status::{Output, failures, restarts, wait};
use super::{Failure, print, watch};
use crate::time::Timestamp;
use crate::view::{FleetStatus, GroupStatus, Phase, StageState, StageStatus};

/// Cells of a progress bar.
const BAR: usize = 24;

/// Characters of a stage's name, and of a sentence.
const LONGEST_NAME: usize = 24;
const LONGEST_SENTENCE: usize = 400;

/// Show a group's running or last rollout: stages, counts, timers, and why it waits
///
/// Exit codes: 0 the daemon answered, whatever it said; 1 it knows no such group; 2 no daemon answers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp rollout prod/gateways\n  \
    gitamp rollout prod/gateways --watch                    again every second, until Ctrl-C\n  \
    gitamp rollout prod/gateways --output json | jq '.stages[] | select(.state == \"running\")'\n\n\
    What to do about it: `gitamp promote`, `pause`, `abort`, `retry`, `undo`.")]
pub(super) struct Arguments {
    /// Which group
    group: String,
    /// Show it again and again: on a terminal every second, elsewhere whenever something has changed
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    place: DaemonPlace,
    /// How it is written
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,
}

impl Arguments {
    /// Asks and prints, once or again and again.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let name = self.group.trim_end_matches('/');
        let client = AdminClient::of(&self.place)?;
        let runtime = super::runtime()?;
        let status: FleetStatus = runtime.block_on(client.get("/api/v1/status"))?;
        if find(&status, name).is_none() {
            anstream::eprintln!("error: {}", unknown(&status, name));
            return Ok(ExitCode::from(1));
        }
        if self.watch {
            let is_json = self.output == Output::Json;
            let narrow = |status: &mut FleetStatus| only(status, name);
            runtime.block_on(watch::watch(&client, is_json, narrow, |status| self.text(status, name)))?;
        } else {
            print(&self.text(&status, name)?)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn text(&self, status: &FleetStatus, name: &str) -> Result<String, Failure> {
        let Some(group) = find(status, name) else {
            // It can go while it is watched.
            return Ok(match self.output {
                Output::Human => format!("{}: the group is gone from the repository\n", clean(name)),
                Output::Json => "null\n".to_owned(),
            });
        };
        Ok(match self.output {
            Output::Human => human(group, status.now),
            Output::Json if self.watch => json_line(group)?,
            Output::Json => json(group)?,
        })
    }
}

fn find<'a>(status: &'a FleetStatus, name: &str) -> Option<&'a GroupStatus> {
    status.groups.iter().find(|group| group.name == name)
}

/// What stands for the change of one group: nothing else of the fleet.
fn only(status: &mut FleetStatus, name: &str) {
    status.groups.retain(|group| group.name == name);
    status.commits.clear();
    status.diagnostics.clear();
    (status.sync, status.journal, status.agents) = Default::default();
}

/// The sentence about a name that no group has, with those that are nearly called so.
fn unknown(status: &FleetStatus, name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let near = status.groups.iter().map(|group| group.name.as_str());
    let near: Vec<String> = near.filter(|one| !last.is_empty() && one.contains(last)).take(5).map(clean).collect();
    let hint =
        if near.is_empty() { "see `gitamp status --all`".to_owned() } else { format!("is it {}?", near.join(", ")) };
    format!("there is no group `{}`: {hint}", clean_short(name, 200))
}

/// One group's rollout for people.
fn human(group: &GroupStatus, now: Timestamp) -> String {
    let mut text = title(group, now);
    let mut line = |name: &str, value: &str, tint: Tint| {
        text.push_str(&format!("  {name:<11} {}\n", tinted(value, tint)));
    };
    let revision = group.revision.as_deref().map(|revision| format!("  of {}", short_revision(revision)));
    line("wanted", &(short_hash(group.wanted.as_deref()) + &revision.unwrap_or_default()), Tint::Plain);
    line("stable", &short_hash(group.stable.as_deref()), Tint::Plain);
    if let Some(hash) = &group.rolled_back {
        line("taken back", &format!("{}, although the repository still says it", short_hash(Some(hash))), Tint::Bad);
    }
    line("agents", &agents(group), Tint::Plain);
    text.push_str(&stages(group, now));
    let list = |text: &mut String, title: &str, lines: Vec<String>, tint: Tint| {
        for (index, line) in lines.iter().enumerate() {
            let title = if index == 0 { title } else { "" };
            text.push_str(&format!("  {title:<11} {}\n", tinted(line, tint)));
        }
    };
    let orders = group.further_orders().map(|order| clean_short(order, LONGEST_SENTENCE)).collect();
    list(&mut text, "ordered", orders, Tint::Warning);
    list(&mut text, "restarts", restarts(group, now), Tint::Moving);
    let waits: Vec<String> = group.waiting_on.iter().map(|waiting| wait(waiting, now)).collect();
    list(&mut text, "waits", waits, Tint::Plain);
    list(&mut text, "failed", failures(&group.failures, usize::MAX), Tint::Bad);
    let findings = group.diagnostics.iter().map(|finding| clean_short(finding, LONGEST_SENTENCE)).collect();
    list(&mut text, "files", findings, Tint::Bad);
    text
}

fn title(group: &GroupStatus, now: Timestamp) -> String {
    let stage = group
        .stage
        .as_deref()
        .map_or_else(String::new, |stage| format!(", stage {}", clean_short(stage, LONGEST_NAME)));
    let (state, tint) = match group.phase {
        Phase::Steady => ("steady, nothing is rolled out".to_owned(), Tint::Plain),
        Phase::Unproven => ("unproven: no agent is there yet".to_owned(), Tint::Plain),
        Phase::Rolling => (format!("rolling out {}{stage}", short_hash(group.candidate.as_deref())), Tint::Moving),
        Phase::Soaking => (format!("watching {}{stage}", short_hash(group.candidate.as_deref())), Tint::Moving),
        Phase::RollingBack => (format!("taking back {}", short_hash(group.candidate.as_deref())), Tint::Bad),
        Phase::RolledBack => {
            ("rolled back: the repository says one thing, the group has another".to_owned(), Tint::Bad)
        }
        Phase::Undone => ("undone: the group has something earlier than the repository says".to_owned(), Tint::Warning),
        Phase::Failed => (format!("failed with {}{stage}", short_hash(group.candidate.as_deref())), Tint::Bad),
        Phase::Held => ("held".to_owned(), Tint::Warning),
    };
    let since = group.started_at.map_or_else(String::new, |at| format!(", started {}", ago(at, now)));
    format!("{}  {}{since}\n", tinted(&clean(&group.name), Tint::Bold), tinted(&state, tint))
}

fn agents(group: &GroupStatus) -> String {
    let counts = &group.counts;
    let parts: Vec<String> = [
        (counts.confirmed, "confirmed"),
        (counts.offered, "offered"),
        (counts.failed, "failed"),
        (counts.pending, "to come"),
        (counts.later, "in later stages"),
        (counts.held, "held"),
        (counts.unavailable, "unavailable"),
        (counts.away, "away"),
        (counts.lost, "lost"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    let list = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    format!("{} connected{list}", counts.selected)
}

/// One line a stage. A rollout of one stage of everybody is told by the counts.
fn stages(group: &GroupStatus, now: Timestamp) -> String {
    let counts = &group.counts;
    let everybody = || StageStatus {
        name: group.stage.clone().unwrap_or_else(|| "all".to_owned()),
        size: counts.eligible,
        confirmed: counts.confirmed,
        failed: counts.failed,
        state: match group.phase {
            Phase::Rolling => StageState::Running,
            Phase::Soaking => StageState::Soaking,
            Phase::Failed | Phase::RollingBack | Phase::RolledBack => StageState::Failed,
            Phase::Undone => StageState::Done,
            Phase::Steady => StageState::Done,
            Phase::Unproven | Phase::Held => StageState::Waiting,
        },
        ..StageStatus::default()
    };
    let shown = match (group.stages.as_slice(), group.phase) {
        ([], Phase::Steady | Phase::Undone) => return String::new(),
        ([], _) => vec![everybody()],
        (stages, _) => stages.to_vec(),
    };
    let width = shown.iter().map(|stage| clean_short(&stage.name, LONGEST_NAME).chars().count()).max().unwrap_or(0);
    let mut text = "\n".to_owned();
    for stage in &shown {
        let mark = match stage.state {
            StageState::Done => "✓",
            StageState::Running | StageState::Soaking | StageState::Baking => "›",
            StageState::Failed => "✗",
            StageState::Waiting => " ",
        };
        let is_current = matches!(stage.state, StageState::Running | StageState::Soaking | StageState::Baking);
        let trying = if is_current { counts.offered } else { 0 };
        let name = clean_short(&stage.name, LONGEST_NAME);
        let numbers = format!("{}/{}", stage.confirmed, stage.size);
        let line =
            format!("  {mark} {name:<width$}  {} {numbers:>11}  {}", bar(stage, trying), condition(stage, group, now));
        text.push_str(&format!("{}\n", line.trim_end()));
    }
    text.push('\n');
    text
}

/// What a stage is doing, with its timer.
fn condition(stage: &StageStatus, group: &GroupStatus, now: Timestamp) -> String {
    let timer = stage.until.filter(|until| *until > now);
    let timer = timer.map_or_else(String::new, |until| format!(", for {} at most", rough(until.since(now))));
    let failed = if stage.failed > 0 { format!(", {} failed", stage.failed) } else { String::new() };
    let approval = if stage.needs_approval {
        format!(", needs approval: gitamp promote {}", clean(&group.name))
    } else {
        String::new()
    };
    let tint = match stage.state {
        StageState::Failed => Tint::Bad,
        StageState::Running | StageState::Soaking | StageState::Baking => Tint::Moving,
        StageState::Waiting if stage.needs_approval => Tint::Warning,
        StageState::Waiting | StageState::Done => Tint::Dim,
    };
    tinted(&format!("{}{timer}{failed}{approval}", stage.state), tint)
}

/// Always [`BAR`] cells: confirmed, being tried, failed, the rest. Whatever there is at all takes at least one cell.
fn bar(stage: &StageStatus, trying: usize) -> String {
    let cells = |agents: usize| (agents.saturating_mul(BAR)).div_ceil(stage.size.max(1)).min(BAR);
    let failed = cells(stage.failed);
    let done = (stage.confirmed.saturating_mul(BAR) / stage.size.max(1)).min(BAR - failed);
    let trying = cells(trying).min(BAR - failed - done);
    let rest = BAR - failed - done - trying;
    format!(
        "{}{}{}{}",
        "█".repeat(done),
        tinted(&"▒".repeat(trying), Tint::Moving),
        tinted(&"█".repeat(failed), Tint::Bad),
        tinted(&"░".repeat(rest), Tint::Dim)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::view::{Counts, FailureCluster, RestartStatus, WaitingOn};

    fn now() -> Timestamp {
        "2026-11-20T09:30:00Z".parse().expect("a time")
    }

    fn stage(name: &str, size: usize, confirmed: usize, state: StageState) -> StageStatus {
        StageStatus { name: name.to_owned(), size, confirmed, state, ..StageStatus::default() }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn rolling() -> GroupStatus {
        let early =
            StageStatus { until: Some(now() + Duration::from_secs(250)), ..stage("early", 5, 4, StageState::Soaking) };
        let half = StageStatus { needs_approval: true, ..stage("half", 20, 4, StageState::Waiting) };
        GroupStatus {
            name: "prod/gateways".to_owned(),
            phase: Phase::Soaking,
            revision: Some("main@sha1:0123456789abcdef".to_owned()),
            wanted: Some("aaaaaaaaaaaaaaaa".to_owned()),
            stable: Some("bbbbbbbbbbbbbbbb".to_owned()),
            candidate: Some("aaaaaaaaaaaaaaaa".to_owned()),
            stage: Some("early".to_owned()),
            counts: Counts { selected: 41, eligible: 40, confirmed: 4, offered: 1, held: 1, ..Counts::default() },
            waiting_on: vec![WaitingOn {
                reason: "soak".to_owned(),
                message: "soaking".to_owned(),
                agents: None,
                until: Some(now() + Duration::from_secs(250)),
            }],
            failures: vec![FailureCluster {
                message: "cannot listen".to_owned(),
                count: 31,
                example: "0191".to_owned(),
                in_common: vec!["os.type=windows".to_owned(), "service.version=0.98".to_owned()],
                sharing: 31,
                peers: 400,
                peers_sharing: 0,
            }],
            started_at: Some(Timestamp::from_millis(now().as_millis() - 90_000)),
            stages: vec![
                stage("canary", 1, 1, StageState::Done),
                early,
                half,
                stage("all", 40, 4, StageState::Waiting),
            ],
            orders: vec!["pinned by ada until 10:00: \u{1b}[2Ja test".to_owned()],
            ..GroupStatus::default()
        }
    }

    #[test]
    fn stages_timers_and_reasons_are_shown() {
        assert_eq!(
            plain(&human(&rolling(), now())),
            "\
prod/gateways  watching aaaaaaaaaaaa, stage early, started 1m30s ago
  wanted      aaaaaaaaaaaa  of main@sha1:0123456789ab
  stable      bbbbbbbbbbbb
  agents      41 connected: 4 confirmed, 1 offered, 1 held

  ✓ canary  ████████████████████████         1/1  done
  › early   ███████████████████▒▒▒▒▒         4/5  soaking, for 4m10s at most
    half    ████░░░░░░░░░░░░░░░░░░░░        4/20  waiting, needs approval: gitamp promote prod/gateways
    all     ██░░░░░░░░░░░░░░░░░░░░░░        4/40  waiting

  ordered     pinned by ada until 10:00: \\u{1b}[2Ja test
  waits       soaking, for 4m10s at most
  failed      31 × cannot listen (e.g. 0191)
                31 of 31 failed: os.type=windows, service.version=0.98; 0 of 400 others
"
        );
    }

    #[test]
    fn a_group_at_rest_is_short_and_one_that_was_taken_back_says_so() {
        let mut group = GroupStatus { phase: Phase::Steady, stages: Vec::new(), ..rolling() };
        (group.failures, group.waiting_on, group.orders) = Default::default();
        group.counts = Counts { selected: 3, confirmed: 3, ..Counts::default() };
        group.rolled_back = Some("aaaaaaaaaaaaaaaa".to_owned());
        assert_eq!(
            plain(&human(&group, now())),
            "\
prod/gateways  steady, nothing is rolled out, started 1m30s ago
  wanted      aaaaaaaaaaaa  of main@sha1:0123456789ab
  stable      bbbbbbbbbbbb
  taken back  aaaaaaaaaaaa, although the repository still says it
  agents      3 connected: 3 confirmed
"
        );
    }

    #[test]
    fn the_queue_of_restarts_is_shown_with_what_it_waits_for() {
        let mut group = GroupStatus { phase: Phase::Steady, stages: Vec::new(), ..rolling() };
        (group.failures, group.waiting_on, group.orders) = Default::default();
        let room = WaitingOn {
            reason: "budget".to_owned(),
            message: "4 wait for room: 2 unavailable, 2 may be (maxUnavailable)".to_owned(),
            agents: Some(4),
            until: None,
        };
        group.restarts = Some(RestartStatus { told: 2, waiting: 4, waiting_on: vec![room] });
        let text = plain(&human(&group, now()));
        let lines = [
            "  restarts    2 of 6 told to restart, 4 wait",
            "4 wait for room: 2 unavailable, 2 may be (maxUnavailable)",
        ];
        assert!(lines.iter().all(|line| text.contains(line)), "{text}");
        let document = serde_json::to_value(&group).expect("JSON");
        assert_eq!(document["restarts"]["waiting"], 4, "{document}");
        assert_eq!(document["restarts"]["waitingOn"][0]["reason"], "budget", "{document}");
    }

    #[test]
    fn an_order_that_a_reason_tells_of_is_told_once() {
        let mut group = rolling();
        group.orders = vec!["paused by ada".to_owned(), "pinned until 10:00 by ada".to_owned()];
        group.waiting_on[0].message = "paused by ada; `gitamp resume` lets it go on".to_owned();
        let text = plain(&human(&group, now()));
        assert_eq!(text.matches("paused by ada").count(), 1, "{text}");
        assert!(text.contains("  ordered     pinned until 10:00 by ada\n"), "{text}");
    }

    #[test]
    fn bars_are_always_of_one_width() {
        for (size, confirmed, failed, trying) in [
            (0, 0, 0, 0),
            (1, 1, 0, 0),
            (5, 5, 5, 5),
            (10_000, 9_999, 1, 0),
            (3, 1, 1, 1),
            (7, 0, 0, 100),
            (usize::MAX, 1, 1, 1),
        ] {
            let stage = StageStatus { failed, ..stage("x", size, confirmed, StageState::Running) };
            let text = plain(&bar(&stage, trying));
            assert_eq!(text.chars().count(), BAR, "{stage:?} {trying}: {text}");
            assert!(failed == 0 || text.contains('█'), "a failure is seen: {text}");
        }
    }

    #[test]
    fn groups_that_are_nearly_called_so_are_named() {
        let mut status: FleetStatus = serde_json::from_value(serde_json::json!({
            "instance": "default", "version": "1", "now": "2026-11-20T09:30:00Z", "observe": false,
            "sync": {"repository": "/x", "stale": false}, "journal": {"localOnly": false}, "agents": {},
            "groups": [], "commits": [], "diagnostics": [],
        }))
        .expect("a status");
        assert_eq!(unknown(&status, "gateways"), "there is no group `gateways`: see `gitamp status --all`");
        status.groups = vec![rolling(), GroupStatus { name: "staging/hosts".to_owned(), ..GroupStatus::default() }];
        assert_eq!(unknown(&status, "x/gateways"), "there is no group `x/gateways`: is it prod/gateways?");
        only(&mut status, "prod/gateways");
        assert_eq!(status.groups, [rolling()]);
    }
}
