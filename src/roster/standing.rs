//! What one agent is to its group at this moment: the one place that turns reports, offers and time into a standing.

use std::sync::Arc;
use std::time::Duration;

use crate::agent::{AgentId, Capabilities, ConfigState, ConfigStatus, ReportedHash};
use crate::config::ConfigHash;
use crate::rollout::Closed;
use crate::roster::group::{Failure, Group};
use crate::roster::member::{Member, Offer};
use crate::roster::peers::{Bystander, Bystanders, RECOVERY, TOGETHER, WELL_FOR_LONG};
use crate::time::{Timestamp, show_duration};

/// A bare "Config apply timeout exceeded" may be a slow shutdown of the collector before; for so long a recovery is awaited. And a
/// supervisor that dies while it applies says APPLYING from its disk for ever when it is back, although its collector runs what it
/// was given: after so long without an outcome its health and its effective configuration are taken for one.
pub const LATE_CONFIRMATION: Duration = Duration::from_secs(30);

/// An agent that falls ill after it was confirmed is given so long before that counts as a failure. And one that is ill when it is
/// to be offered something counts as ill before only after so long: collectors that just start are ill for a moment.
pub const ILLNESS_DEBOUNCE: Duration = Duration::from_secs(30);

/// After a person asked for another try: a supervisor answers a repeated offer of the same with APPLIED, unverified. It counts after so
/// long without bad health (DESIGN rules for offers, 3).
pub const RETRY_VERIFICATION: Duration = Duration::from_secs(20);

/// The message by which a supervisor says that its own timer ran out, and nothing else.
const APPLY_TIMEOUT: &str = "Config apply timeout exceeded";

/// True when the supervisor says no more than that its own timer ran out: its collector may be well all the same.
pub(super) fn is_bare_timeout(message: &str) -> bool {
    message.trim() == APPLY_TIMEOUT
}

/// Why an agent that a group selects is not offered what the group wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeldReason {
    /// It does not declare `AcceptsRemoteConfig`: a collector without a supervisor, for example.
    CannotAccept,
    /// It does not declare `ReportsRemoteConfig`: nobody would learn what became of an offer.
    CannotReport,
    /// It is connected, but has not told its configuration's state on this connection yet.
    NotHeard,
    /// Its group has nothing for it yet: no stable configuration, and no stage that it belongs to.
    NothingForIt,
    /// A commit moved it here. It has what it had before, until a rollout of this group reaches it.
    MovedHere,
    /// It holds a candidate that was superseded or that failed, and keeps it.
    KeepsCandidate,
    /// The whole group is offered nothing; the group says why.
    GroupClosed,
    /// It was given the configuration on this connection and now reports another: somebody else configures it too.
    Drifted,
    /// Its stage is open, but the rollout offers nothing new for now; the group says why.
    RolloutHeld,
    /// A person wants it to keep what it has.
    Pinned,
}

/// What an agent is to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In no group.
    Unplaced,
    /// Not to be offered anything.
    Held(HeldReason),
    /// Waits for an offer.
    Pending,
    /// Was offered what is desired; the outcome is open.
    Offered,
    /// Has what is desired.
    Confirmed,
    /// Could not use it.
    Failed,
    /// Not connected, and nothing is expected of it.
    Away,
    /// Vanished after its offer.
    Lost,
}

/// The judgement on one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it is.
    pub standing: Standing,
    /// True when it is connected and selected.
    pub selected: bool,
    /// True when it is also able to take and report.
    pub eligible: bool,
    /// True when it takes from the budget.
    pub unavailable: bool,
    /// True when it was ill before its offer.
    pub ill_before: bool,
    /// True when it left without a goodbye.
    pub vanished: bool,
    /// True when it was here before this process, and was heard since.
    pub back: bool,
    /// True when it can be offered something, connected or not.
    pub reachable: bool,
    /// True when it waits for an offer, but may not have one yet: it fell ill only just now.
    pub unready: bool,
    /// When the judgement may change by itself.
    pub until: Option<Timestamp>,
    /// A failure that is new.
    pub failure: Option<Failure>,
    /// True when a rollout runs whose stages it does not belong to yet.
    pub outside: bool,
    /// True when it has the candidate, or was offered it.
    pub treated: bool,
    /// True when nothing may be offered, and it has what the repository wants.
    pub holding: bool,
    /// True when it fell sick since the rollout began.
    pub sick: bool,
    /// True when it would count as failed, were it not that everybody is sick.
    pub excused: bool,
    /// True when it is excused because everybody was until a moment ago.
    pub recovers: bool,
    /// When it fell sick, where it has the candidate and had been well with it for long.
    pub long_well: Option<Timestamp>,
    /// Where it was left alone: others are compared with it.
    pub bystander: Option<Bystander>,
}

impl Verdict {
    /// Of an agent that is in no group.
    pub const NOBODY: Self = Self {
        standing: Standing::Unplaced,
        selected: false,
        eligible: false,
        unavailable: false,
        ill_before: false,
        vanished: false,
        back: false,
        reachable: false,
        unready: false,
        until: None,
        failure: None,
        outside: false,
        treated: false,
        holding: false,
        sick: false,
        excused: false,
        recovers: false,
        long_well: None,
        bystander: None,
    };

    fn stands(mut self, standing: Standing) -> Self {
        self.standing = standing;
        self
    }

    fn fails(mut self, hash: ConfigHash, reason: impl Into<Arc<str>>) -> Self {
        self.failure = Some(Failure { at: Timestamp::from_millis(u64::MAX), ..Failure::new(hash, reason.into()) });
        (self.unavailable, self.until) = (false, None);
        self.stands(Standing::Failed)
    }

    /// It failed, but that says nothing about what runs here now: it was long before, or is about what another group gave it.
    fn fails_beside(self, hash: ConfigHash, reason: impl Into<Arc<str>>) -> Self {
        let failure = Some(Failure::new(hash, reason.into()));
        Self { failure, ..self.fails(hash, "") }
    }

    fn vanishes_for_good(self, hash: ConfigHash, reason: String) -> Self {
        let failed = self.fails(hash, reason);
        let failure = failed.failure.map(|failure| Failure { is_absent: true, ..failure });
        Self { failure, ..failed }
    }

    /// It is sick as everybody is: it is looked at again in a while.
    fn excused(self, standing: Standing, now: Timestamp) -> Self {
        Self { excused: true, ..self.open(standing, now + ILLNESS_DEBOUNCE) }
    }

    /// Open until `end`; it takes room meanwhile.
    fn open(mut self, standing: Standing, end: Timestamp) -> Self {
        self.unavailable = true;
        self.until = Some(end);
        self.stands(standing)
    }
}

/// Judges `member` of `group`.
pub fn judge(id: AgentId, member: &Member, group: &Group, fleet: &Bystanders, now: Timestamp) -> Verdict {
    let mut verdict = judge_standing(id, member, group, fleet, now);
    // Whether stable works is not asked while something else is introduced: who says that it did not is asked when it goes back.
    let is_beside = |failure: &Failure| verdict.outside && Some(failure.hash) == group.desired.stable;
    if verdict.failure.as_ref().is_some_and(is_beside) {
        verdict.failure = None;
    }
    if verdict.standing == Standing::Failed {
        // It gives its room back, but for the restart that a person ordered.
        let restarting = member.restarting_until().filter(|until| verdict.eligible && *until > now);
        verdict.unavailable = restarting.is_some() || verdict.eligible && group.restarts.claimed.contains(&id);
        verdict.until = restarting.or(verdict.until);
    }
    let treated = !verdict.outside
        && match verdict.standing {
            Standing::Offered | Standing::Confirmed | Standing::Failed | Standing::Lost => true,
            // Who vanished with it long after its offer is not expected to say anything more, but neither is it without it.
            Standing::Away => group.desired.candidate.is_some_and(|candidate| group.holds(member, candidate)),
            Standing::Unplaced | Standing::Held(_) | Standing::Pending => false,
        };
    let treated = treated && group.desired.candidate.is_some();
    let long_well = member.fell_sick().filter(|at| treated && verdict.sick && was_long_well(member, *at));
    let bystander = if treated { None } else { bystander(id, member, group, &verdict) };
    Verdict { treated, long_well, bystander, ..verdict }
}

/// True when it had been well for long with what it was given when it fell sick then.
fn was_long_well(member: &Member, fell_sick: Timestamp) -> bool {
    let well_since = member.offer.as_ref().and_then(|offer| offer.well_since);
    well_since.is_some_and(|since| since + WELL_FOR_LONG <= fell_sick)
}

/// An agent that has what is stable in its group, and was given nothing else since that became stable.
fn bystander(id: AgentId, member: &Member, group: &Group, verdict: &Verdict) -> Option<Bystander> {
    let since = group.desired.stable_since?;
    let is_there = verdict.eligible || verdict.vanished && verdict.reachable;
    let has_it = |state: &ConfigState| state.known() == group.desired.stable && state.status != ConfigStatus::Failed;
    let is_alone = is_there && member.state().is_some_and(has_it) && !member.moved && !group.was_tried(id, member);
    is_alone.then(|| Bystander { since, fell_sick: member.fell_sick() })
}

/// What becomes of an agent that would fail for being sick: it is excused when everybody is, and for a while longer; and where nobody is there
/// with whom it could be compared, and it had been well for long, it is seen first whether others fall sick together with it. `None`: it
/// failed.
fn spare(
    base: &Verdict,
    standing: Standing,
    member: &Member,
    group: &Group,
    fleet: &Bystanders,
    now: Timestamp,
) -> Option<Verdict> {
    let fell_sick = member.fell_sick();
    if group.excuses(fell_sick, fleet) {
        return Some(base.clone().excused(standing, now));
    }
    let recovered = member.excused_at.map(|at| at + RECOVERY).filter(|end| *end > now);
    if let Some(end) = recovered.filter(|_| group.desired.candidate.is_some()) {
        return Some(Verdict { excused: true, recovers: true, ..base.clone().open(standing, end) });
    }
    let is_open = fell_sick.is_some_and(|at| was_long_well(member, at)) && group.has_no_peers(fleet);
    let since = member.ill_since.or(member.gone.map(|gone| gone.at));
    let seen = since.map(|since| since + TOGETHER).filter(|end| is_open && *end > now);
    seen.map(|end| base.clone().open(standing, end))
}

/// True when it fell ill, or vanished, since the group's rollout began.
fn fell_sick(member: &Member, group: &Group) -> bool {
    let fell_sick = member.fell_sick();
    fell_sick.is_some_and(|at| group.desired.since.is_some_and(|since| at >= since))
}

fn judge_standing(id: AgentId, member: &Member, group: &Group, fleet: &Bystanders, now: Timestamp) -> Verdict {
    let ill_before = group.ill.contains(&id) && member.is_eligible();
    let outside = group.desired.candidate.is_some() && !group.in_cohort(id, member);
    let sick = fell_sick(member, group);
    let (back, reachable) = (group.was_here_before(id, member), member.is_eligible());
    let base = Verdict { ill_before, back, reachable, outside, sick, ..Verdict::NOBODY };
    let desired = group.desired_for(id, member);
    if !member.is_connected() {
        return judge_absent(id, member, group, desired, base, fleet, now);
    }
    let busy_until = busy_until(member, group.desired.progress_deadline).filter(|until| *until > now);
    let eligible = member.is_eligible();
    let is_claimed = group.restarts.claimed.contains(&id);
    let base = Verdict {
        selected: true,
        eligible,
        unavailable: eligible && (busy_until.is_some() || is_claimed || member.is_ill()),
        until: busy_until,
        ..base
    };
    if !member.capabilities.contains(Capabilities::ACCEPTS_REMOTE_CONFIG) {
        return base.stands(Standing::Held(HeldReason::CannotAccept));
    }
    if !eligible {
        return base.stands(Standing::Held(HeldReason::CannotReport));
    }
    if let Some(failure) = desired.and_then(|hash| group.failed_before_its_stage(id, hash)) {
        return base.fails(failure.hash, failure.message.clone());
    }
    if desired.or(group.desired.wanted).is_some_and(|hash| group.has_failed(id, hash)) {
        return base.stands(Standing::Failed);
    }
    let Some(hash) = desired else {
        let reason = if group.holds_kept(id, member) {
            return judge_keeper(id, member, group, base);
        } else if group.desired.closed.is_some() {
            HeldReason::GroupClosed
        } else if !member.moved {
            HeldReason::NothingForIt
        } else if !member.is_heard() {
            HeldReason::NotHeard
        } else if is_pinned(member, group, now) {
            let until = base.until.or(member.pinned_until);
            return Verdict { until, ..base }.stands(Standing::Held(HeldReason::Pinned));
        } else if group.desired.stable.is_some_and(|stable| was_put_out(member, stable)) {
            // It was given what is stable on this connection, and something else since: no rollout of the same reaches it (rule 2).
            HeldReason::Drifted
        } else {
            HeldReason::MovedHere
        };
        return base.stands(Standing::Held(reason));
    };
    judge_holder(hash, id, member, group, base, fleet, now)
}

/// The agent holds, or failed, a candidate that is not rolled out any more.
fn judge_keeper(id: AgentId, member: &Member, group: &Group, base: Verdict) -> Verdict {
    let Some((hash, state)) = member.state().and_then(|state| state.known().map(|hash| (hash, state))) else {
        return base.stands(Standing::Held(HeldReason::NothingForIt));
    };
    if group.has_failed(id, hash) {
        return base.stands(Standing::Failed);
    }
    let is_tried_again = group.desired.retry || member.retried == Some(hash);
    if state.status == ConfigStatus::Failed && group.desired.wanted == Some(hash) && !is_tried_again {
        return base.fails(hash, failure_message(state));
    }
    // What is rolled out is nothing that it keeps: it goes on once offers may leave again.
    let goes_on = match group.desired.closed {
        Some(Closed::RolloutFailed) | None => false,
        Some(
            Closed::Suspended
            | Closed::Observing
            | Closed::Frozen { .. }
            | Closed::Pinned { .. }
            | Closed::Unexpected { .. }
            | Closed::NotStored,
        ) => group.desired.watched && group.desired.wanted == Some(hash),
    };
    let reason = if goes_on { HeldReason::GroupClosed } else { HeldReason::KeepsCandidate };
    Verdict { holding: goes_on, ..base }.stands(Standing::Held(reason))
}

fn illness_words(member: &Member, deadline: Duration) -> String {
    let message = member.health.as_ref().and_then(|health| health.message.as_ref());
    message.map_or_else(
        || format!("applied, but not healthy within {}", show_duration(deadline)),
        |message| format!("applied, but unhealthy: {message}"),
    )
}

/// What it said when it failed.
pub(super) fn failure_message(state: &ConfigState) -> Arc<str> {
    state.message.clone().unwrap_or_else(|| "failed without saying why".into())
}

fn judge_absent(
    id: AgentId,
    member: &Member,
    group: &Group,
    desired: Option<ConfigHash>,
    base: Verdict,
    fleet: &Bystanders,
    now: Timestamp,
) -> Verdict {
    let Some(gone) = member.gone else { return base.stands(Standing::Away) };
    let base = Verdict { vanished: !gone.goodbye, ..base };
    if desired.is_some_and(|hash| group.has_failed(id, hash)) {
        return base.stands(Standing::Failed);
    }
    let deadline = group.desired.progress_deadline;
    let is_open = |offer: &&Offer| !offer.settled && !gone.goodbye && gone.at < offer.at + deadline;
    let Some(offer) = member.offer.as_ref().filter(is_open) else { return base.stands(Standing::Away) };
    let end = offer.at + deadline;
    let is_judged = group.judges(offer.hash, Some(offer)) && member.offered_elsewhere(offer.hash).is_none();
    if Some(offer.hash) != desired || !is_judged {
        // Nothing is expected of it, but whatever it was given, it may be in the middle of it.
        let is_busy = !offer.confirmed && now < end;
        return if is_busy { base.open(Standing::Away, end) } else { base.stands(Standing::Away) };
    }
    if now < end {
        return base.open(Standing::Lost, end);
    }
    if let Some(spared) = spare(&base, Standing::Lost, member, group, fleet, now) {
        return spared;
    }
    let words = format!("vanished after the offer and was not back within {}", show_duration(deadline));
    base.vanishes_for_good(offer.hash, words)
}

/// The agent reports the configuration that it should have; or another one, or none.
fn judge_holder(
    hash: ConfigHash,
    id: AgentId,
    member: &Member,
    group: &Group,
    base: Verdict,
    fleet: &Bystanders,
    now: Timestamp,
) -> Verdict {
    let Some(state) = member.state().filter(|state| state.is_about(hash)) else {
        return judge_other(hash, id, member, group, base, now);
    };
    let deadline = group.desired.progress_deadline;
    let since = member.config.as_ref().map_or(now, |(_, since)| *since);
    let offered_at = member.offer.as_ref().map_or(since, |offer| offer.at);
    let is_others = member.offered_elsewhere(hash).is_some();
    match state.status {
        ConfigStatus::Applied => {
            // Something else may still be on its way to it; then it takes room, although it has what it should have.
            let is_judged = group.judges(hash, member.offer.as_ref());
            if !member.is_ill() || base.ill_before || !is_judged {
                return judge_well(hash, member, group, base, since, now);
            }
            // Who has been well with it is given a moment, because stray reports are common; who has not, its whole deadline.
            let is_first = member.offer.as_ref().is_none_or(|offer| !offer.well);
            let patience = member.ill_since.unwrap_or(now) + ILLNESS_DEBOUNCE;
            let end = if is_first { patience.max(offered_at + deadline) } else { patience };
            if now < end {
                return base.open(Standing::Offered, end);
            }
            if let Some(spared) = spare(&base, Standing::Offered, member, group, fleet, now) {
                return spared;
            }
            let words = illness_words(member, deadline);
            // Who was well with it before it came here is one of this group's by now.
            let was_well = member.offer.as_ref().is_some_and(|offer| offer.confirmed);
            if is_others && !was_well { base.fails_beside(hash, words) } else { base.fails(hash, words) }
        }
        ConfigStatus::Failed => judge_failed(hash, id, member, group, state, base, now),
        ConfigStatus::Applying | ConfigStatus::Unset => {
            let end = offered_at + deadline;
            let found = member.link.and_then(|link| link.found_applying).map(|found| found + LATE_CONFIRMATION);
            if let Some(concluded) = found.filter(|_| !member.is_ill() && group.runs_what_was_offered(member)) {
                if concluded <= now {
                    // It is in the middle of this no more, but it may be of something else.
                    let until = occupied_until(member, deadline).filter(|until| *until > now);
                    return Verdict { until, unavailable: until.is_some(), ..base }.stands(Standing::Confirmed);
                }
                if concluded < end {
                    return base.open(Standing::Offered, concluded);
                }
            }
            if now < end {
                return base.open(Standing::Offered, end);
            }
            let words = format!("no outcome within {}", show_duration(deadline));
            if is_others { base.fails_beside(hash, words) } else { base.fails(hash, words) }
        }
    }
}

/// The agent says that it failed what it should have.
fn judge_failed(
    hash: ConfigHash,
    id: AgentId,
    member: &Member,
    group: &Group,
    state: &ConfigState,
    base: Verdict,
    now: Timestamp,
) -> Verdict {
    let since = member.config.as_ref().map_or(now, |(_, since)| *since);
    let is_others = member.offered_elsewhere(hash).is_some();
    let is_given = |offer: &&Offer| offer.hash == hash && offer.answered && offer.connection.is_some();
    let given = member.offer.as_ref().filter(is_given).filter(|_| !is_others);
    let is_retried = member.retried == Some(hash) || group.desired.retry && group.desired.candidate == Some(hash);
    if is_retried && given.is_none() {
        return judge_other(hash, id, member, group, base, now);
    }
    let message = failure_message(state);
    if is_bare_timeout(&message) {
        if !member.is_ill() && group.runs_what_was_offered(member) {
            return base.stands(Standing::Confirmed);
        }
        let end = since + LATE_CONFIRMATION;
        if now < end {
            return base.open(Standing::Offered, end);
        }
    }
    // What goes back, or is stable already, may have been failed long before: that says nothing about now. Who came in the middle
    // of it, given it by a process before this one, failed it now.
    let desired = &group.desired;
    let goes_back = desired.introduces_old() || desired.restoring_since.is_some();
    let start = desired.restoring_since.or(desired.since);
    let is_witnessed =
        |offer: &Offer| offer.hash == hash && offer.connection.is_none() && !offer.confirmed && offer.at < since;
    let is_about_now = member.offer.as_ref().is_some_and(is_witnessed)
        || given.is_some_and(|offer| start.is_none_or(|start| offer.made >= start));
    let is_beside = is_others || goes_back && !is_about_now;
    if is_beside { base.fails_beside(hash, message) } else { base.fails(hash, message) }
}

/// The agent has what it should have, and is well as far as that matters.
fn judge_well(
    hash: ConfigHash,
    member: &Member,
    group: &Group,
    base: Verdict,
    applied: Timestamp,
    now: Timestamp,
) -> Verdict {
    let unverified_until = applied + RETRY_VERIFICATION;
    if member.retried == Some(hash) && now < unverified_until {
        return base.open(Standing::Offered, unverified_until);
    }
    let on_its_way = member.offer.as_ref().filter(|offer| member.moved && offer.hash != hash);
    if on_its_way.is_some()
        && let Some(until) = base.until
    {
        // It had this before as well, but what its group of before gave it may still change that.
        return base.open(Standing::Offered, until);
    }
    let is_given = |offer: &&Offer| offer.hash == hash && offer.connection.is_some();
    let offer = member.offer.as_ref().filter(is_given).filter(|_| member.offered_elsewhere(hash).is_none());
    let Some(offer) = offer.filter(|offer| group.judges(hash, Some(offer))) else {
        return base.stands(Standing::Confirmed);
    };
    // What it told before the offer is about what it had then: not every agent tells again.
    let told = member.effective_at.filter(|at| *at > offer.sent && group.runs_something_else(hash, member));
    let Some(told) = told else { return base.stands(Standing::Confirmed) };
    let end = told.max(applied) + LATE_CONFIRMATION;
    if now < end {
        return base.open(Standing::Offered, end);
    }
    base.fails(hash, "applied, but its effective configuration does not name what was offered")
}

/// The agent reports another configuration than it should have, or none.
fn judge_other(
    hash: ConfigHash,
    id: AgentId,
    member: &Member,
    group: &Group,
    base: Verdict,
    now: Timestamp,
) -> Verdict {
    let deadline = group.desired.progress_deadline;
    let offer = member.offer.as_ref().filter(|offer| offer.hash == hash && !offer.withdrawn);
    let open = offer.filter(|offer| !offer.answered);
    if !member.is_heard() {
        return match open {
            Some(offer) if now < offer.at + deadline => base.open(Standing::Offered, offer.at + deadline),
            Some(_) | None => base.stands(Standing::Held(HeldReason::NotHeard)),
        };
    }
    if group.desired.closed.is_some() {
        return base.stands(Standing::Held(HeldReason::GroupClosed));
    }
    match open.filter(|offer| offer.connection == member.link.map(|link| link.connection)) {
        Some(offer) if now < offer.at + deadline => base.open(Standing::Offered, offer.at + deadline),
        Some(_) => {
            let words = format!("no answer to the offer within {}", show_duration(deadline));
            if member.offered_elsewhere(hash).is_some() {
                base.fails_beside(hash, words)
            } else {
                base.fails(hash, words)
            }
        }
        None if was_put_out(member, hash) => base.stands(Standing::Held(HeldReason::Drifted)),
        None if group.desired.holds_back && group.desired.candidate == Some(hash) => {
            base.stands(Standing::Held(HeldReason::RolloutHeld))
        }
        None if is_pinned(member, group, now) => {
            Verdict { until: base.until.or(member.pinned_until), ..base }.stands(Standing::Held(HeldReason::Pinned))
        }
        None => {
            let is_new_illness = !group.was_tried(id, member) && !group.ill.contains(&id);
            let until = member.ill_since.filter(|_| is_new_illness).map(|since| since + ILLNESS_DEBOUNCE);
            match until.filter(|until| *until > now) {
                Some(until) => Verdict { unready: true, until: Some(until), ..base }.stands(Standing::Pending),
                None => base.stands(Standing::Pending),
            }
        }
    }
}

/// True when a person wants the agent to keep what it has. What is taken back reaches it all the same.
fn is_pinned(member: &Member, group: &Group, now: Timestamp) -> bool {
    let goes_back = group.desired.reverting || group.desired.restoring_since.is_some();
    !goes_back && member.pinned_until.is_some_and(|until| until > now)
}

/// True when the last that the agent was given on its connection is this, and it took it (rule 2).
fn was_put_out(member: &Member, hash: ConfigHash) -> bool {
    let is_withdrawn = member.offer.as_ref().is_some_and(|offer| offer.hash == hash && offer.withdrawn);
    !is_withdrawn && member.link.is_some_and(|link| link.offered == Some(hash))
}

/// An agent in the middle of something, whatever it is, until when at the latest.
fn busy_until(member: &Member, deadline: Duration) -> Option<Timestamp> {
    let applying = member.config.as_ref().and_then(|(state, since)| {
        let is_busy = state.status == ConfigStatus::Applying && state.hash != ReportedHash::Foreign;
        is_busy.then(|| *since + deadline)
    });
    occupied_until(member, deadline).max(applying)
}

/// The same, whatever it says of its configuration: an offer is on its way to it, or it was told to restart.
fn occupied_until(member: &Member, deadline: Duration) -> Option<Timestamp> {
    let open = member.offer.as_ref().filter(|offer| !offer.answered && !offer.settled);
    open.map(|offer| offer.at + deadline).max(member.restarting_until())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{AgentReport, ConnectionId, Health, Transport};
    use crate::config::{ComponentNames, RenderedConfig};
    use crate::rollout::Desired;
    use crate::rollout::cohort::Cohort;
    use crate::roster::member::Link;
    use crate::roster::restarts::RESTART_TAKES;

    const FOUND: Timestamp = Timestamp::from_millis(1_000_000);

    fn names(names: &[&str]) -> ComponentNames {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn watched_group(hash: ConfigHash) -> Group {
        let mut group = Group::default();
        group.candidate = Some(RenderedConfig::new(hash, String::new().into(), names(&["receivers/nop"])));
        let progress_deadline = Duration::from_secs(600);
        group.set_desired(Desired { candidate: Some(hash), watched: true, progress_deadline, ..Desired::default() });
        group
    }

    fn reconnected() -> Member {
        let connection = ConnectionId(1);
        let link =
            Link { connection, transport: Transport::WebSocket, heard: false, offered: None, found_applying: None };
        Member { link: Some(link), ..Member::default() }
    }

    fn says(hash: ConfigHash, status: ConfigStatus) -> AgentReport {
        let config = Some(ConfigState { hash: ReportedHash::Known(hash), status, message: None });
        let capabilities =
            Some(Capabilities(Capabilities::ACCEPTS_REMOTE_CONFIG.0 | Capabilities::REPORTS_REMOTE_CONFIG.0));
        AgentReport { capabilities, config, ..AgentReport::default() }
    }

    fn runs(healthy: bool, effective: &[&str]) -> AgentReport {
        let health = Some(Health { healthy, message: None });
        AgentReport { health, effective: Some(Arc::new(names(effective))), ..AgentReport::default() }
    }

    #[test]
    fn applying_without_an_end_is_concluded_from_what_runs() {
        let hash = ConfigHash::new([7; 32]);
        let group = watched_group(hash);
        let id = AgentId::new(&[1; 16]).expect("a uid");
        let concluded = FOUND + LATE_CONFIRMATION;
        let deadline = FOUND + group.desired.progress_deadline;
        for (why, healthy, effective, until, after) in [
            (
                "it is well and runs it",
                true,
                &["receivers/nop", "extensions/opamp"][..],
                concluded,
                Standing::Confirmed,
            ),
            ("it is ill", false, &["receivers/nop"], deadline, Standing::Offered),
            ("it runs something else", true, &["receivers/otlp"], deadline, Standing::Offered),
        ] {
            let mut member = reconnected();
            member.take(says(hash, ConfigStatus::Applying), FOUND);
            member.take(runs(healthy, effective), FOUND);
            let before = judge(id, &member, &group, &Bystanders::default(), FOUND);
            assert_eq!((before.standing, before.until), (Standing::Offered, Some(until)), "{why}");
            assert_eq!(judge(id, &member, &group, &Bystanders::default(), concluded).standing, after, "{why}");
        }
    }

    #[test]
    fn who_was_confirmed_late_takes_room_while_it_restarts() {
        let hash = ConfigHash::new([7; 32]);
        let mut group = watched_group(hash);
        group.desired.cohort = Cohort::everybody();
        let id = AgentId::new(&[1; 16]).expect("a uid");
        let told = FOUND + LATE_CONFIRMATION;
        for status in [ConfigStatus::Failed, ConfigStatus::Applying] {
            let mut member = reconnected();
            let mut report = says(hash, status);
            if let Some(state) = report.config.as_mut().filter(|state| state.status == ConfigStatus::Failed) {
                state.message = Some(APPLY_TIMEOUT.into());
            }
            member.take(report, FOUND);
            member.take(runs(true, &["receivers/nop"]), FOUND);
            let is_taking_room = |member: &Member, now| {
                let verdict = judge(id, member, &group, &Bystanders::default(), now);
                assert_eq!(verdict.standing, Standing::Confirmed, "{status:?}");
                verdict.unavailable
            };
            assert!(!is_taking_room(&member, told), "{status:?}: it came to an end");
            member.restarted_at = Some(told);
            assert!(is_taking_room(&member, told), "{status:?}: it is told to restart");
            assert!(!is_taking_room(&member, told + RESTART_TAKES), "{status:?}: it has restarted");
        }
    }

    #[test]
    fn what_an_agent_says_it_runs_counts_when_it_could_be_read() {
        let hash = ConfigHash::new([7; 32]);
        let group = watched_group(hash);
        let id = AgentId::new(&[1; 16]).expect("a uid");
        for (why, effective, standing) in [
            ("it runs it", &["receivers/nop"][..], Standing::Confirmed),
            ("too large to be looked at", &[], Standing::Confirmed),
            ("it runs something else", &["receivers/otlp"], Standing::Failed),
        ] {
            let mut member = reconnected();
            member.offer = Some(Offer::new(hash, FOUND, Some(ConnectionId(1))));
            let later = FOUND + Duration::from_secs(1);
            member.take(says(hash, ConfigStatus::Applied), later);
            member.take(runs(true, effective), later);
            member.capabilities.0 |= Capabilities::REPORTS_EFFECTIVE_CONFIG.0;
            assert_eq!(
                judge(id, &member, &group, &Bystanders::default(), later + LATE_CONFIRMATION).standing,
                standing,
                "{why}"
            );
        }
    }

    #[test]
    fn applying_that_began_on_this_connection_is_waited_for() {
        let hash = ConfigHash::new([7; 32]);
        let group = watched_group(hash);
        let id = AgentId::new(&[1; 16]).expect("a uid");
        let mut member = reconnected();
        member.take(says(ConfigHash::new([8; 32]), ConfigStatus::Applied), FOUND);
        member.take(says(hash, ConfigStatus::Applying), FOUND);
        member.take(runs(true, &["receivers/nop"]), FOUND);
        assert_eq!(
            judge(id, &member, &group, &Bystanders::default(), FOUND + LATE_CONFIRMATION).standing,
            Standing::Offered
        );
        // An agent that polls keeps its connection when it is started anew: it says the same once more.
        member.take(says(hash, ConfigStatus::Applying), FOUND);
        assert_eq!(
            judge(id, &member, &group, &Bystanders::default(), FOUND + LATE_CONFIRMATION).standing,
            Standing::Confirmed
        );
    }
}
