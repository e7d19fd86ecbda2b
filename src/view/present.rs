//! From the values of the core to what a person sees: the only place where reasons become sentences.

use std::collections::BTreeMap;

use crate::agent::{AgentId, Capabilities, ConfigStatus, ReportedHash, Transport};
use crate::config::ConfigHash;
use crate::labels::shown;
use crate::rollout::record::{Cause, Said, WayBack};
use crate::rollout::{Closed, Peers, Sickness, Tally, Waiting};
use crate::roster::failures::Cluster;
use crate::roster::group::Group;
use crate::roster::member::{Member, Placement};
use crate::roster::standing::{HeldReason, Standing};
use crate::time::Timestamp;
use crate::view::{AgentStatus, Counts, FailureCluster, WaitingOn};

/// How the sentence about a rollout begins that a person ended.
pub const ABORTED: &str = "aborted";

/// Why an agent that is sick with the candidate does not count as failed.
pub const EXCUSED: &str = "it is sick, but others are as well: it does not count as failed meanwhile";

/// Agents that a reason names one by one.
const MOST_NAMED: usize = 5;

/// Characters of a label that failed agents have in common.
const LONGEST_PAIR: usize = 120;

impl From<&Tally> for Counts {
    fn from(tally: &Tally) -> Self {
        Self {
            selected: tally.selected,
            eligible: tally.eligible,
            offered: tally.offered,
            confirmed: tally.confirmed,
            failed: tally.failed,
            held: tally.held,
            pending: tally.pending,
            away: tally.away,
            lost: tally.lost,
            unavailable: tally.unavailable,
            later: tally.outside.eligible,
        }
    }
}

impl From<&Cluster> for FailureCluster {
    fn from(cluster: &Cluster) -> Self {
        let common = cluster.common.as_ref();
        // A value of a label is as long as an agent likes.
        let pair = |(key, value): &(String, String)| shown(key, value).chars().take(LONGEST_PAIR).collect();
        Self {
            message: cluster.message.clone(),
            count: cluster.count,
            example: cluster.example.to_string(),
            in_common: common.map_or_else(Vec::new, |common| common.pairs.iter().map(pair).collect()),
            sharing: common.map_or(0, |common| common.sharing),
            peers: common.map_or(0, |common| common.peers),
            peers_sharing: common.map_or(0, |common| common.peers_sharing),
        }
    }
}

/// Why the rollout of this group does not go on, when that ends by itself, and what ends it otherwise.
pub fn waiting(waiting: &Waiting, group: &str) -> WaitingOn {
    let told = match waiting {
        Waiting::Closed(closed) => says(closed_name(closed), closed_sentence(closed, group)),
        Waiting::NoAgents => says("no-agents", "no agent matches yet: the first to come will prove it".to_owned()),
        Waiting::NobodyEligible { selected } => WaitingOn {
            agents: Some(*selected),
            ..says("nobody-eligible", format!("{selected} agents match, but none can be offered a configuration"))
        },
        Waiting::Budget { pending, unavailable, assumed, limit, .. } => WaitingOn {
            agents: Some(*pending),
            ..says("budget", budget_sentence(*pending, *unavailable, *assumed, *limit))
        },
        Waiting::Illness { agents } => WaitingOn {
            agents: Some(*agents),
            ..says(
                "illness",
                format!("{agents} fell ill only just now; they are offered it in half a minute at the latest"),
            )
        },
        Waiting::Confirmation { agents, .. } => WaitingOn {
            agents: Some(*agents),
            ..says("confirmation", format!("{} offered it, unconfirmed yet", count(*agents, "was", "were")))
        },
        Waiting::LostAgents { agents, .. } => WaitingOn {
            agents: Some(*agents),
            ..says(
                "lost",
                format!("{agents} vanished after the offer; they count as failed after their progressDeadline"),
            )
        },
        Waiting::Settling { .. } => says("settling", "many agents have only just come".to_owned()),
        Waiting::TooManyMissing { missing, of, .. } => WaitingOn {
            agents: Some(*missing),
            ..says("missing", format!("{missing} of {of} are gone without a goodbye; more than a fifth is too many"))
        },
        Waiting::Soak { .. } => says("soak", "soaking".to_owned()),
        Waiting::Bake { .. } => says("bake", "baking".to_owned()),
        Waiting::NotWatching { connected, of } => says(
            "not-watching",
            format!(
                "soak and bake stand still: {connected} of {of} offered agents are there and well, nine in ten are needed"
            ),
        ),
        Waiting::NoProof => says("no-proof", "no agent that was well before has confirmed it".to_owned()),
        Waiting::Failed { .. }
        | Waiting::RollingBack { .. }
        | Waiting::Paused { .. }
        | Waiting::Approval { .. }
        | Waiting::Window(_)
        | Waiting::Prerequisite { .. }
        | Waiting::Outage { .. }
        | Waiting::Opening { .. }
        | Waiting::Undone { .. } => stage_reason(waiting, group),
        Waiting::NewerCommit => says("newer-commit", "the running rollout goes first (onNewCommit: finish)".to_owned()),
    };
    WaitingOn { until: waiting.until(), ..told }
}

fn says(reason: &str, message: String) -> WaitingOn {
    WaitingOn { reason: reason.to_owned(), message, agents: None, until: None }
}

/// Why a stage does not start, or why a rollout stopped.
fn stage_reason(reason: &Waiting, group: &str) -> WaitingOn {
    match reason {
        Waiting::Failed { cause, way_back, nothing_stable } => WaitingOn {
            agents: failures_of(cause),
            ..says("failed", failed_sentence(cause, *way_back, *nothing_stable, group))
        },
        Waiting::RollingBack { cause, left } => WaitingOn {
            agents: Some(*left),
            ..says(
                "rolling-back",
                format!(
                    "{}; stable goes back to everybody, {} to go",
                    cause_sentence(cause),
                    count(*left, "agent", "agents")
                ),
            )
        },
        Waiting::Paused { said } => {
            says("paused", format!("paused {}; `gitamp resume {group}` lets it go on", said_by(said)))
        }
        Waiting::Approval { stage } => {
            says("approval", format!("stage `{stage}` needs a person's word: `gitamp promote {group}` gives it"))
        }
        Waiting::Window(outside) => {
            let why = outside.opens.map_or_else(|| outside.to_string(), |_| outside.why.clone());
            says("window", format!("{why}; `gitamp promote {group} --now` does not wait for it"))
        }
        Waiting::Prerequisite { reason } => {
            says("depends-on", format!("{reason} (dependsOn); `gitamp promote {group} --now` begins without it"))
        }
        Waiting::Outage { treated, peers, with, is_over } => {
            let sentence = match is_over {
                true => recovery_sentence(*treated),
                false => outage_sentence(*treated, *peers, *with, group),
            };
            WaitingOn { agents: Some(treated.sick), ..says("outage", sentence) }
        }
        Waiting::Opening { stage } => says("opening", format!("stage `{stage}` is about to start")),
        Waiting::Undone { said } => says(
            "undone",
            format!(
                "undone {}; the group keeps an earlier configuration than the repository says; a commit that changes it or \
                     `gitamp resume {group}` ends that",
                said_by(said)
            ),
        ),
        Waiting::Closed(_)
        | Waiting::NoAgents
        | Waiting::NobodyEligible { .. }
        | Waiting::Budget { .. }
        | Waiting::Illness { .. }
        | Waiting::Confirmation { .. }
        | Waiting::LostAgents { .. }
        | Waiting::Settling { .. }
        | Waiting::TooManyMissing { .. }
        | Waiting::Soak { .. }
        | Waiting::Bake { .. }
        | Waiting::NotWatching { .. }
        | Waiting::NoProof
        | Waiting::NewerCommit => waiting(reason, group),
    }
}

fn outage_sentence(treated: Sickness, peers: Sickness, with: Peers, group: &str) -> String {
    let Sickness { sick, of } = treated;
    match with {
        Peers::Group => {
            format!(
                "frozen: {sick} of {of} agents with it fell sick or vanished, but so did {} of {} without it: it is not this commit, and goes on \
                 when they are well",
                peers.sick, peers.of
            )
        }
        Peers::Fleet => {
            format!(
                "frozen: {sick} of {of} agents with it fell sick or vanished, but so did {} of {} in the rest of the fleet to which nothing was \
                 rolled out meanwhile: it is not this commit, and goes on when they are well",
                peers.sick, peers.of
            )
        }
        Peers::Nobody => {
            format!(
                "frozen: {sick} of {of} agents with it are sick or gone. That befell them together, after they had been well with it for \
                 long, and nobody is without it to compare them with: nothing is rolled back, and it goes on when they are well; if it is this \
                 commit all the same, `gitamp abort {group}` takes it back"
            )
        }
    }
}

fn recovery_sentence(treated: Sickness) -> String {
    let Sickness { sick, of } = treated;
    format!(
        "frozen: {sick} of {of} agents with it are sick or gone, and those without it were as well until just now: they have two minutes to get \
         well, too"
    )
}

fn failures_of(cause: &Cause) -> Option<usize> {
    match cause {
        Cause::TooManyFailures { failed, .. } => Some(*failed),
        Cause::Aborted { .. } => None,
    }
}

/// Why a rollout stopped.
pub fn cause_sentence(cause: &Cause) -> String {
    match cause {
        Cause::TooManyFailures { failed, allowed } => {
            format!("{} failed, {allowed} may (maxFailures)", count(*failed, "agent", "agents"))
        }
        Cause::Aborted { said } => format!("{ABORTED} {}", said_by(said)),
    }
}

fn failed_sentence(cause: &Cause, way_back: WayBack, nothing_stable: bool, group: &str) -> String {
    let cause = cause_sentence(cause);
    let again = format!("`gitamp retry {group}` tries it once more");
    match way_back {
        WayBack::None if nothing_stable => {
            format!("{cause}; nothing is stable to go back to: revert the commit, or correct it; {again}")
        }
        WayBack::None => format!("{cause}; revert the commit, or correct it; {again}"),
        WayBack::Done { failed } => {
            let back = if failed == 0 { "everybody is back on stable" } else { "whoever can use stable is back on it" };
            format!("{cause}; {back}, the repository says otherwise: revert the commit, or correct it; {again}")
        }
        WayBack::Failed { failed, allowed } => format!(
            "{cause}; the way back to stable stopped too, because {} failed there and {allowed} may: a person has to look",
            count(failed, "agent", "agents")
        ),
    }
}

/// Agents that could not take stable back, and so may hold on to what was taken back from the others.
pub fn not_back(agents: &[AgentId], candidate: ConfigHash) -> Option<WaitingOn> {
    let (shown, more) = agents.split_at(agents.len().min(MOST_NAMED));
    let mut names: Vec<String> = shown.iter().map(ToString::to_string).collect();
    names.extend((!more.is_empty()).then(|| format!("{} more", more.len())));
    let message = format!(
        "{} not take stable back and may still run {}: {}; `gitamp retry AGENT` offers it once more",
        count(agents.len(), "agent could", "agents could"),
        candidate.short(),
        names.join(", ")
    );
    (!agents.is_empty()).then(|| WaitingOn { agents: Some(agents.len()), ..says("not-back", message) })
}

/// `by alice at 2026-..: why`.
pub fn said_by(said: &Said) -> String {
    let reason = said.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("by {} at {}{reason}", said.by, said.at)
}

fn budget_sentence(pending: usize, unavailable: usize, assumed: usize, limit: usize) -> String {
    let unheard = match assumed {
        0 => String::new(),
        assumed => format!(", {assumed} of them because they have not been heard since the daemon started"),
    };
    let waiting = count(pending, "waits", "wait");
    let beyond = if unavailable > limit {
        "; who falls ill or vanishes by itself counts as well, and nothing is taken back"
    } else {
        ""
    };
    format!("{waiting} for room: {unavailable} unavailable{unheard}, {limit} may be (maxUnavailable){beyond}")
}

/// `1 agent`, `2 agents`.
fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn closed_name(closed: &Closed) -> &'static str {
    match closed {
        Closed::Suspended => "suspended",
        Closed::Frozen { .. } => "frozen",
        Closed::Pinned { .. } => "pinned",
        Closed::Observing => "observing",
        Closed::Unexpected { .. } => "expect",
        Closed::RolloutFailed => "rollout-failed",
        Closed::NotStored => "journal",
    }
}

fn closed_sentence(closed: &Closed, group: &str) -> String {
    match closed {
        Closed::Suspended => "suspended: nothing is offered until `suspend: true` is gone".to_owned(),
        Closed::Frozen { said, whole_fleet } => {
            let (what, end) = match whole_fleet {
                true => ("the whole fleet is frozen", "gitamp unfreeze".to_owned()),
                false => ("frozen", format!("gitamp unfreeze {group}")),
            };
            format!("{what} {}; nothing is offered, not even to roll back, until `{end}`", said_by(said))
        }
        Closed::Pinned { until, said } => {
            format!(
                "pinned until {until} {}; the agents keep what they have, and `gitamp unpin {group}` ends that",
                said_by(said)
            )
        }
        Closed::Observing => {
            "this daemon only watches, and offers nothing until it is started without --observe".to_owned()
        }
        Closed::Unexpected { selected, min, max } => {
            let bound = match (min, max) {
                (Some(min), Some(max)) => format!("{min} to {max}"),
                (Some(min), None) => format!("at least {min}"),
                (None, Some(max)) => format!("at most {max}"),
                (None, None) => "any number".to_owned(),
            };
            let more = if min.is_some_and(|min| *selected < min as usize) { "bring agents back, or " } else { "" };
            let matching = count(*selected, "agent matches", "agents match");
            format!("{matching}, {bound} are expected: {more}correct the selector or `expect`")
        }
        Closed::RolloutFailed => {
            "the rollout failed and there is nothing good to give instead: a commit has to say what to do".to_owned()
        }
        Closed::NotStored => "the journal could not be written: nothing is offered before it is".to_owned(),
    }
}

/// The journal takes everything but the record of this group.
pub fn record_refused(reason: &str) -> WaitingOn {
    says("journal", format!("nothing is offered in this group, because its record cannot be stored: {reason}"))
}

/// Agents that a person wants to restart wait for room.
pub fn restart_room(waiting: usize, unavailable: usize, assumed: usize, limit: usize) -> WaitingOn {
    WaitingOn { agents: Some(waiting), ..says("budget", budget_sentence(waiting, unavailable, assumed, limit)) }
}

/// That agents are to restart is not stored yet.
pub fn restart_unstored(agents: usize) -> WaitingOn {
    let message =
        format!("{} until that is stored in the journal: nobody is told twice", count(agents, "waits", "wait"));
    WaitingOn { agents: Some(agents), ..says("journal", message) }
}

/// Agents that are to restart are not back since the daemon started; who is not by `until` is left alone.
pub fn restart_to_come(agents: usize, until: Option<Timestamp>) -> WaitingOn {
    let message = format!("{} not been heard since the daemon started", count(agents, "has", "have"));
    WaitingOn { agents: Some(agents), until, ..says("not-heard", message) }
}

/// A group has room, but the fleet has none.
pub fn fleet_budget(unavailable: usize, limit: usize) -> WaitingOn {
    WaitingOn {
        reason: "fleet-budget".to_owned(),
        message: format!(
            "{unavailable} agents of the whole fleet are unavailable, {limit} may be (fleet.yaml: maxUnavailable)"
        ),
        agents: None,
        until: None,
    }
}

/// Why agents of a group are held, one line a reason.
pub fn held(reasons: &BTreeMap<HeldReason, usize>) -> Vec<WaitingOn> {
    reasons
        .iter()
        .map(|(reason, count)| WaitingOn {
            reason: held_name(*reason).to_owned(),
            message: format!("{count} held: {}", held_sentence(*reason)),
            agents: Some(*count),
            until: None,
        })
        .collect()
}

fn held_name(reason: HeldReason) -> &'static str {
    match reason {
        HeldReason::CannotAccept => "cannot-accept",
        HeldReason::CannotReport => "cannot-report",
        HeldReason::NotHeard => "not-heard",
        HeldReason::NothingForIt => "nothing-stable",
        HeldReason::MovedHere => "moved-here",
        HeldReason::KeepsCandidate => "keeps-candidate",
        HeldReason::GroupClosed => "group-closed",
        HeldReason::Drifted => "drifted",
        HeldReason::RolloutHeld => "rollout-held",
        HeldReason::Pinned => "pinned",
    }
}

fn held_sentence(reason: HeldReason) -> &'static str {
    match reason {
        HeldReason::CannotAccept => "does not accept remote configuration (AcceptsRemoteConfig)",
        HeldReason::CannotReport => "does not report what becomes of it (ReportsRemoteConfig)",
        HeldReason::NotHeard => "has not reported its configuration on this connection yet",
        HeldReason::NothingForIt => "the group has nothing for it yet: nothing is stable, or its stage has not come",
        HeldReason::MovedHere => "a commit moved agents here: it keeps what it has until its stage has come",
        HeldReason::KeepsCandidate => "keeps a configuration that was superseded or that failed",
        HeldReason::GroupClosed => "the whole group is offered nothing",
        HeldReason::RolloutHeld => "its rollout offers nothing new for now",
        HeldReason::Pinned => "a person pinned it: it keeps what it has",
        HeldReason::Drifted => {
            "reports another configuration than the one it was given: something else configures it too"
        }
    }
}

/// One agent, now. `group` is the one that it is in.
pub fn agent(id: AgentId, member: &Member, group: Option<&Group>) -> AgentStatus {
    let state = member.state();
    let (stands, mut reason) = standing(member);
    let desired = group.and_then(|group| group.desired_for(id, member));
    if let (Some(group), Standing::Failed) = (group, member.verdict.standing) {
        reason = group.failures.get(&id).map(|failure| failure.message.to_string());
    }
    AgentStatus {
        id: id.to_string(),
        group: member.placement.group().map(ToString::to_string),
        state: stands.to_owned(),
        reason,
        transport: match member.link.map(|link| link.transport) {
            Some(Transport::WebSocket) => "websocket",
            Some(Transport::Http) => "http",
            None => "none",
        }
        .to_owned(),
        connected: member.is_connected(),
        hash: state.and_then(|state| match state.hash {
            ReportedHash::Known(hash) => Some(hash.to_string()),
            ReportedHash::Foreign => Some("foreign".to_owned()),
            ReportedHash::None => None,
        }),
        config_status: match state.map(|state| state.status) {
            Some(ConfigStatus::Applied) => "applied",
            Some(ConfigStatus::Applying) => "applying",
            Some(ConfigStatus::Failed) => "failed",
            Some(ConfigStatus::Unset) | None => "unset",
        }
        .to_owned(),
        config_message: state.and_then(|state| state.message.as_ref()).map(ToString::to_string),
        desired: desired.map(|hash| hash.to_string()),
        healthy: member
            .health
            .as_ref()
            .filter(|_| member.capabilities.contains(Capabilities::REPORTS_HEALTH))
            .map(|health| health.healthy),
        health_message: member.health.as_ref().and_then(|health| health.message.as_ref()).map(ToString::to_string),
        labels: member
            .labels
            .iter()
            .flat_map(|labels| labels.iter())
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        proven: member
            .labels
            .iter()
            .flat_map(|labels| labels.iter().filter(|(key, _)| labels.is_proven(key)))
            .map(|(key, _)| key.to_owned())
            .collect(),
        components: member.effective.iter().flat_map(|names| names.iter()).map(str::to_owned).collect(),
        available_components: Vec::new(),
    }
}

/// The word for where an agent stands, and why.
pub fn standing(member: &Member) -> (&'static str, Option<String>) {
    match &member.placement {
        Placement::Unknown => return ("unknown", Some("has not described itself yet".to_owned())),
        Placement::Unmanaged => return ("unmanaged", Some("no group selects it; it keeps what it has".to_owned())),
        Placement::Orphaned(name) => {
            return (
                "orphaned",
                Some(format!("its group {name} is no longer in the repository; it keeps what it has")),
            );
        }
        Placement::Conflict(names) => {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            let reason = format!("{} select it at equal priority; it keeps what it has", names.join(" and "));
            return ("conflict", Some(reason));
        }
        Placement::Group(_) => {}
    }
    let excuse = member.verdict.excused.then(|| EXCUSED.to_owned());
    match member.verdict.standing {
        Standing::Unplaced => ("unknown", None),
        Standing::Held(reason) => ("held", Some(held_sentence(reason).to_owned())),
        Standing::Pending => ("pending", Some("waits for room in the budget".to_owned())),
        Standing::Offered => ("offered", excuse),
        Standing::Confirmed => ("confirmed", None),
        Standing::Failed => ("failed", None),
        Standing::Away => ("away", None),
        Standing::Lost => ("lost", excuse),
    }
}
