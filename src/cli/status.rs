//! `gitamp status`: what the daemon follows, what each group is doing, and what it waits for.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::admin_client::{AdminClient, DaemonPlace};
use super::screen::{Rows, Tint, ago, clean, clean_short, json, json_line, rough, short_hash, short_revision, tinted};
use super::{Failure, print, watch};
use crate::time::Timestamp;
use crate::view::{
    AlertsStatus, CommitReport, FailureCluster, FleetStatus, GroupStatus, JournalStatus, ListenerStatus, Phase,
    StageState, StageStatus, SyncStatus, WaitingOn,
};

/// Up to this many groups, the quiet ones are shown as well.
const SMALL_FLEET: usize = 40;

/// Lines about one group's failures, and about its files, before the rest is counted.
const MOST_LINES: usize = 10;

/// Names of groups of which the same is to say.
const MOST_NAMES: usize = 8;

/// Characters of a commit's subject.
const LONGEST_SUBJECT: usize = 72;

/// Characters of a message.
const LONGEST_MESSAGE: usize = 400;

/// How something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    Human,
    /// For scripts: the document of the admin interface
    Json,
}

/// Show what each group is doing, and what it waits for
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp status\n  \
    gitamp status --watch                                   again every second, until Ctrl-C\n  \
    gitamp status --all                                     steady groups of a large fleet, too\n  \
    gitamp status --output json | jq '.groups[] | select(.phase == \"failed\").name'\n\n\
    Exit codes: 0 the daemon answered, whatever it said; 2 no daemon answers.")]
pub(super) struct Arguments {
    /// Show it again and again: on a terminal every second, elsewhere whenever something has changed
    #[arg(long, short)]
    watch: bool,
    /// Every group and every line, however large the fleet is
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    place: DaemonPlace,
    /// How the status is written
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,
}

impl Arguments {
    /// Asks and prints, once or again and again.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = AdminClient::of(&self.place)?;
        let runtime = super::runtime()?;
        if self.watch {
            let is_json = self.output == Output::Json;
            runtime.block_on(watch::watch(&client, is_json, |_| {}, |status| self.text(status)))?;
        } else {
            let status: FleetStatus = runtime.block_on(client.get("/api/v1/status"))?;
            print(&self.text(&status)?)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn text(&self, status: &FleetStatus) -> Result<String, Failure> {
        Ok(match self.output {
            Output::Human => human(status, self.all),
            // One line a document, so that a reader can tell where each ends.
            Output::Json if self.watch => json_line(status)?,
            Output::Json => json(status)?,
        })
    }
}

/// The whole status for people.
pub(super) fn human(status: &FleetStatus, all: bool) -> String {
    let mut text = header(status);
    for diagnostic in &status.diagnostics {
        text.push_str(&format!("  {}\n", tinted(&clean_short(diagnostic, LONGEST_MESSAGE), Tint::Bad)));
    }
    text.push_str(&commits(&status.commits, status.now));
    if status.groups.is_empty() {
        let why = if status.sync.revision.is_some() { "the repository has no group" } else { "nothing was read yet" };
        text.push_str(&format!("\nNo groups: {why}.\n"));
        return text;
    }
    let shows = |group: &&GroupStatus| all || status.groups.len() <= SMALL_FLEET || !is_quiet(group);
    let shown: Vec<&GroupStatus> = status.groups.iter().filter(shows).collect();
    if !shown.is_empty() {
        text.push('\n');
        text.push_str(&table(&shown));
    }
    let hidden = status.groups.len() - shown.len();
    if hidden > 0 {
        let agents: usize =
            status.groups.iter().filter(|group| !shows(group)).map(|group| group.counts.confirmed).sum();
        let line = format!("{}{hidden} groups are steady, with {agents} agents: --all shows them", lead(&shown));
        text.push_str(&format!("{}\n", tinted(&line, Tint::Dim)));
    }
    text.push_str(&sections(&shown, status.now, all));
    text
}

/// A rollout is under way, or ended badly.
fn has_begun(group: &GroupStatus) -> bool {
    match group.phase {
        Phase::Rolling | Phase::Soaking | Phase::Failed | Phase::RollingBack | Phase::RolledBack | Phase::Undone => {
            true
        }
        Phase::Steady | Phase::Unproven | Phase::Held => false,
    }
}

/// What stands before the line about groups that are not shown.
fn lead(shown: &[&GroupStatus]) -> &'static str {
    if shown.is_empty() { "All " } else { "… and " }
}

/// Nothing is going on, and nothing is wrong.
fn is_quiet(group: &GroupStatus) -> bool {
    group.phase == Phase::Steady
        && group.waiting_on.is_empty()
        && group.failures.is_empty()
        && group.diagnostics.is_empty()
        && group.orders.is_empty()
        && group.restarts.is_none()
        && group.rolled_back.is_none()
}

fn header(status: &FleetStatus) -> String {
    let title = format!("gitamp {}, instance {}", clean(&status.version), clean(&status.instance));
    let mut text = format!("{}\n", tinted(&title, Tint::Bold));
    let mut line = |name: &str, value: &str, tint: Tint| {
        text.push_str(&format!("  {name:<11} {}\n", tinted(value, tint)));
    };
    if status.observe {
        line("mode", "only watching: nothing is offered, nothing is written (--observe)", Tint::Warning);
    }
    let sync = &status.sync;
    line("repository", &clean(&sync.repository), Tint::Plain);
    let subject = sync.subject.as_ref().map(|text| format!("  {}", clean_short(text, LONGEST_SUBJECT)));
    let revision = sync.revision.as_ref().map(|revision| short_revision(revision) + &subject.unwrap_or_default());
    line("revision", revision.as_deref().unwrap_or("none yet"), Tint::Plain);
    line("synced", &synced(sync, status.now), if sync.stale { Tint::Warning } else { Tint::Plain });
    if let Some(error) = &sync.error {
        line("", &clean_short(error, LONGEST_MESSAGE), Tint::Bad);
    }
    if let Some(hook) = &sync.last_hook {
        let about = clean_short(&hook.about, LONGEST_SUBJECT);
        line("webhook", &format!("{}, from {}: {about}", ago(hook.at, status.now), clean(&hook.forge)), Tint::Plain);
    }
    line("notes", &notes(&status.journal, status.now), Tint::Plain);
    if let Some(error) = &status.journal.error {
        line("", &clean_short(error, LONGEST_MESSAGE), Tint::Bad);
    }
    if let Some(disbelieved) = &status.journal.disbelieved {
        line("", &clean_short(disbelieved, LONGEST_MESSAGE), Tint::Bad);
    }
    if let Some(forge) = &status.forge {
        let told = forge
            .last_told
            .map_or_else(|| "not told anything yet".to_owned(), |at| format!("told {}", ago(at, status.now)));
        line("forge", &format!("{}, {} {}", told, clean(&forge.kind), clean(&forge.project)), Tint::Plain);
        if let Some(error) = &forge.error {
            line("", &clean_short(error, LONGEST_MESSAGE), Tint::Bad);
        }
    }
    if let Some(alerts) = &status.alerts {
        let tint = if alerts.open.is_empty() { Tint::Plain } else { Tint::Warning };
        line("alerts", &alerting(alerts), tint);
        for incident in alerts.open.iter().take(MOST_LINES) {
            let title = clean_short(&incident.title, LONGEST_MESSAGE);
            line(
                "",
                &format!("{}: {title}, {}", clean(&incident.severity), ago(incident.since, status.now)),
                Tint::Bad,
            );
        }
        for receiver in &alerts.receivers {
            if let Some(error) = &receiver.error {
                line("", &format!("{}: {}", clean(&receiver.name), clean_short(error, LONGEST_MESSAGE)), Tint::Bad);
            }
        }
    }
    line("agents", &agents(status), Tint::Plain);
    let listener = &status.listener;
    if let Some(words) = access(listener) {
        line("access", &words, Tint::Plain);
    }
    for problem in &listener.problems {
        line("", &clean_short(problem, LONGEST_MESSAGE), Tint::Bad);
    }
    text
}

/// Who may speak as an agent; `None` where nothing is asked for.
fn access(listener: &ListenerStatus) -> Option<String> {
    let until = listener.certificate_expires.map(|at| format!(", certificate until {at}")).unwrap_or_default();
    let proofs: Vec<String> = listener.proofs.iter().map(|proof| clean(proof)).collect();
    let proofs = match proofs.as_slice() {
        [] if listener.tls => return Some(format!("TLS{until}; nobody is asked who it is")),
        [] => return None,
        [one] => one.clone(),
        [several @ .., last] => format!("{} or {last}", several.join(", ")),
    };
    Some(match listener.tls {
        true => format!("TLS{until}; agents prove who they are by {proofs}"),
        false => format!("agents prove who they are by {proofs}, without encryption"),
    })
}

fn alerting(alerts: &AlertsStatus) -> String {
    let open = alerts.open.len() + alerts.more;
    let open = match open {
        0 => "no open incident".to_owned(),
        1 => "1 open incident".to_owned(),
        open => format!("{open} open incidents"),
    };
    let names: Vec<String> = alerts.receivers.iter().map(|receiver| clean(&receiver.name)).collect();
    let left_out = match alerts.left_out {
        0 => String::new(),
        more => format!(", and {more} findings that are too many to be told"),
    };
    format!("{open}{left_out}; told are {}", names.join(", "))
}

fn synced(sync: &SyncStatus, now: Timestamp) -> String {
    let last = sync.last_success.map_or_else(|| "never".to_owned(), |at| ago(at, now));
    let next = match sync.next_attempt {
        Some(at) if at > now => format!(", next look in {}", rough(at.since(now))),
        Some(_) => ", looking".to_owned(),
        None => String::new(),
    };
    let stale = match (sync.stale, sync.last_success) {
        (true, _) => "; stale, agents keep what they have",
        (false, _) if sync.error.is_some() => "; the last look failed",
        (false, _) => "",
    };
    format!("{last}{next}{stale}")
}

fn notes(journal: &JournalStatus, now: Timestamp) -> String {
    let stored = || journal.last_stored.map(|at| format!("stored {}", ago(at, now)));
    let pushed = journal.last_pushed.map(|at| format!("pushed {}", ago(at, now)));
    let state = match (journal.local_only && !journal.blocked, &journal.error) {
        (true, _) => Some("they stay in the state directory".to_owned()),
        (false, Some(_)) => Some("not written".to_owned()),
        (false, None) => None,
    };
    let parts: Vec<String> = state.into_iter().chain(pushed.or_else(stored)).collect();
    if parts.is_empty() { "none yet".to_owned() } else { parts.join(", ") }
}

fn agents(status: &FleetStatus) -> String {
    let counts = &status.agents;
    let parts: Vec<String> = [
        (counts.managed, "in a group"),
        (counts.unmanaged, "in no group"),
        (counts.conflict, "in conflict between groups"),
        (counts.unknown, "not heard out yet"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    let mut text = format!("{} connected", counts.connected);
    if !parts.is_empty() {
        text.push_str(&format!(": {}", parts.join(", ")));
    }
    if counts.away > 0 {
        text.push_str(&format!("; {} away", counts.away));
    }
    text
}

/// The commits whose rollouts run.
fn commits(commits: &[CommitReport], now: Timestamp) -> String {
    let running: Vec<&CommitReport> = commits.iter().filter(|commit| commit.ending.is_none()).collect();
    let mut text = String::new();
    for commit in running.iter().take(MOST_LINES) {
        let rewritten = if commit.rewritten_history { ", after a force push" } else { "" };
        let line = format!(
            "{}  {}  by {}, taken {}{rewritten}",
            short_revision(&commit.revision),
            clean_short(&commit.subject, LONGEST_SUBJECT),
            clean_short(&commit.committer, 60),
            ago(commit.synced_at, now)
        );
        text.push_str(&format!("  {:<11} {}\n", "rolling out", tinted(&line, Tint::Moving)));
    }
    text.push_str(&more(running.len(), MOST_LINES, "commits"));
    text
}

fn more(count: usize, shown: usize, what: &str) -> String {
    if count > shown { format!("    … and {} more {what}: --all\n", count - shown) } else { String::new() }
}

fn tint(group: &GroupStatus) -> Tint {
    match group.phase {
        Phase::Failed | Phase::RollingBack | Phase::RolledBack => Tint::Bad,
        Phase::Held | Phase::Undone => Tint::Warning,
        Phase::Rolling | Phase::Soaking => Tint::Moving,
        Phase::Steady | Phase::Unproven if !group.diagnostics.is_empty() => Tint::Bad,
        Phase::Steady | Phase::Unproven => Tint::Plain,
    }
}

fn table(groups: &[&GroupStatus]) -> String {
    let columns = ["GROUP", "PHASE", "CONFIRMED", "OFFERED", "FAILED", "PENDING", "HELD", "AWAY", "WANTED", "STABLE"];
    let mut rows = Rows::new(&columns, 2..8);
    for group in groups {
        let counts = &group.counts;
        let phase = match &group.stage {
            Some(stage) if has_begun(group) => format!("{} ({})", group.phase, clean_short(stage, 24)),
            Some(_) | None => group.phase.to_string(),
        };
        let away = match counts.lost {
            0 => counts.away.to_string(),
            lost => format!("{} + {lost} lost", counts.away),
        };
        rows.add(
            vec![
                clean(&group.name),
                phase,
                format!("{}/{}", counts.confirmed, counts.eligible),
                counts.offered.to_string(),
                counts.failed.to_string(),
                counts.pending.to_string(),
                counts.held.to_string(),
                away,
                short_hash(group.wanted.as_deref()),
                short_hash(group.stable.as_deref()),
            ],
            tint(group),
        );
    }
    rows.to_string()
}

/// What is to say about the groups. Those of which the same is to say share one section.
fn sections(groups: &[&GroupStatus], now: Timestamp, all: bool) -> String {
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for group in groups {
        let body = section(group, now, all);
        if body.is_empty() {
            continue;
        }
        let place = *places.entry(body.clone()).or_insert(sections.len());
        if place == sections.len() {
            sections.push((body, Vec::new()));
        }
        if let Some((_, names)) = sections.get_mut(place) {
            let since = group.started_at.filter(|_| has_begun(group));
            let since = since.map_or_else(String::new, |at| format!(" (started {})", ago(at, now)));
            names.push(tinted(&clean(&group.name), Tint::Bold) + &since);
        }
    }
    let most = if all { usize::MAX } else { MOST_NAMES };
    let mut text = String::new();
    for (body, names) in sections {
        let more = match names.len().saturating_sub(most) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names: Vec<String> = names.into_iter().take(most).collect();
        text.push_str(&format!("\n{}{more}\n{body}", names.join(", ")));
    }
    text
}

/// Everything that is to say about one group; empty when there is nothing.
fn section(group: &GroupStatus, now: Timestamp, all: bool) -> String {
    let most = if all { usize::MAX } else { MOST_LINES };
    let mut text = stages(group);
    if let Some(hash) = &group.rolled_back {
        let line = format!("{} was taken back, although the repository still says it", short_hash(Some(hash)));
        text.push_str(&format!("  {}\n", tinted(&line, Tint::Bad)));
    }
    for order in group.further_orders().take(most) {
        text.push_str(&format!("  {}\n", tinted(&clean_short(order, LONGEST_MESSAGE), Tint::Warning)));
    }
    text.push_str(&more(group.further_orders().count(), most, "orders"));
    for line in restarts(group, now) {
        text.push_str(&format!("  {}\n", tinted(&line, Tint::Moving)));
    }
    for waiting in &group.waiting_on {
        let tint =
            if waiting.reason == "failed" || waiting.reason == "rollout-failed" { Tint::Bad } else { Tint::Plain };
        text.push_str(&format!("  {}\n", tinted(&wait(waiting, now), tint)));
    }
    for line in failures(&group.failures, most) {
        text.push_str(&format!("  {}\n", tinted(&line, Tint::Bad)));
    }
    text.push_str(&more(group.failures.len(), most, "kinds of failures"));
    for diagnostic in group.diagnostics.iter().take(most) {
        text.push_str(&format!("  {}\n", tinted(&clean_short(diagnostic, LONGEST_MESSAGE), Tint::Bad)));
    }
    text.push_str(&more(group.diagnostics.len(), most, "findings"));
    text
}

/// The stages on one line while a rollout runs: those that are through, the one that runs with its counts, those to come.
fn stages(group: &GroupStatus) -> String {
    let is_over = group.stages.iter().all(|stage| stage.state == StageState::Done);
    if group.stages.len() < 2 || is_over {
        return String::new();
    }
    let shown = |stage: &StageStatus| {
        let name = clean_short(&stage.name, 24);
        match stage.state {
            StageState::Done => format!("{name} ✓"),
            StageState::Failed => format!("{name} ✗ {}/{}", stage.confirmed, stage.size),
            StageState::Running | StageState::Soaking | StageState::Baking => {
                format!("{name} {}/{}, {}", stage.confirmed, stage.size, stage.state)
            }
            StageState::Waiting if stage.needs_approval => format!("{name} {} (approval)", stage.size),
            StageState::Waiting => format!("{name} {}", stage.size),
        }
    };
    let line: Vec<String> = group.stages.iter().map(shown).collect();
    format!("  {}\n", tinted(&line.join(" › "), Tint::Moving))
}

/// One line a kind of failure, and one more for what the failed have in common.
pub(super) fn failures(clusters: &[FailureCluster], most: usize) -> Vec<String> {
    let lines = clusters.iter().take(most).flat_map(|cluster| {
        let message = clean_short(&cluster.message, LONGEST_MESSAGE);
        let line = format!("{} × {message} (e.g. {})", cluster.count, clean(&cluster.example));
        let common = cluster.commonality().map(|text| format!("  {}", clean_short(&text, LONGEST_MESSAGE)));
        std::iter::once(line).chain(common)
    });
    lines.collect()
}

/// How far ordered restarts are, and why the others wait.
pub(super) fn restarts(group: &GroupStatus, now: Timestamp) -> Vec<String> {
    let Some(restarts) = &group.restarts else { return Vec::new() };
    let reasons = restarts.waiting_on.iter().map(|waiting| format!("  {}", wait(waiting, now)));
    std::iter::once(restarts.to_string()).chain(reasons).collect()
}

/// Why something waits, and for how long at most.
pub(super) fn wait(waiting: &WaitingOn, now: Timestamp) -> String {
    let message = clean_short(&waiting.message, LONGEST_MESSAGE);
    match waiting.until {
        Some(until) if until > now => format!("{message}, for {} at most", rough(until.since(now))),
        Some(_) => format!("{message}, until now"),
        None => message,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
