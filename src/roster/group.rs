//! The agents of one group: what is desired of them, how they are counted, who waits for an offer and who failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::agent::{AgentId, Capabilities, ConfigState, ConfigStatus};
use crate::config::{ConfigHash, RenderedConfig};
use crate::labels::Labels;
use crate::rollout::cohort::{self, Draw, Drawable, Opening};
use crate::rollout::{Closed, Desired, MOST_REMEMBERED, SETTLE, Tally, budget};
use crate::roster::failures;
use crate::roster::known::Known;
use crate::roster::member::{Member, Offer};
use crate::roster::peers::{Bystanders, Kept, LongWell};
use crate::roster::restarts::Restarts;
use crate::roster::standing::{HeldReason, Standing, Verdict};
use crate::time::Timestamp;

/// Why and with what an agent failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it could not use.
    pub hash: ConfigHash,
    /// In its words, or in ours when it said nothing.
    pub message: Arc<str>,
    /// The message without what differs from agent to agent ([`failures::normal_form`]); those of one group that are equal share memory. Set
    /// when the failure is remembered, so that looking at many of them costs little.
    pub form: Arc<str>,
    /// True when it vanished, and never said anything.
    pub is_absent: bool,
    /// When; the beginning of time when it is no evidence about anything that runs ([`Failure::is_evidence`]), and a second later when it
    /// becomes evidence with its agent's stage ([`Failure::before_its_stage`]).
    pub at: Timestamp,
}

/// When a failure was that is no evidence.
const BEGINNING: Timestamp = Timestamp::from_millis(0);

/// When a failure was that becomes evidence with the stage of its agent. Records tell times to the second.
const BEFORE_ITS_STAGE: Timestamp = Timestamp::from_millis(1_000);

impl Failure {
    /// One with these words, at the beginning of time.
    pub fn new(hash: ConfigHash, message: Arc<str>) -> Self {
        Self { hash, message, form: "".into(), is_absent: false, at: BEGINNING }
    }

    /// True when it says something about what its group rolls out. What another group gave the agent, or what it failed long before, only
    /// keeps it from being offered that again.
    pub fn is_evidence(&self) -> bool {
        self.at > BEFORE_ITS_STAGE
    }

    /// What the agent said before its stage has come, of something that nobody knows to be given by another group: it counts when the stage
    /// comes.
    pub fn before_its_stage(self) -> Self {
        Self { at: BEFORE_ITS_STAGE, ..self }
    }

    fn awaits_stage(&self) -> bool {
        self.at == BEFORE_ITS_STAGE
    }
}

/// What a process that died may have left in the middle of something: agents that have not been heard since.
#[derive(Clone, Debug)]
pub struct Assumed {
    /// The room that the record allowed.
    pub room: usize,
    /// The members among whom it could make offers.
    pub reach: usize,
    /// When it is over in any case.
    pub until: Timestamp,
    /// Its members; `None`: the record is of a release that did not write them down.
    pub known: Option<Known>,
    /// Until when they are remembered.
    pub known_until: Timestamp,
}

/// One group's agents.
#[derive(Debug, Default)]
pub struct Group {
    /// What they should have.
    pub desired: Desired,
    /// Its members, connected or not.
    pub members: BTreeSet<AgentId>,
    /// Failures that are remembered: one an agent.
    pub failures: BTreeMap<AgentId, Failure>,
    /// The forms of their messages, and perhaps some that are past.
    forms: BTreeSet<Arc<str>>,
    /// Agents that were ill before they were offered a candidate since stable.
    pub ill: BTreeSet<AgentId>,
    /// What an earlier process may have left behind.
    pub assumed: Option<Assumed>,
    /// The bodies of candidate and stable, to offer them and to recognise them in an effective configuration.
    pub candidate: Option<RenderedConfig>,
    /// The stable one.
    pub stable: Option<RenderedConfig>,
    /// Members that a person wants to be offered once more what they failed, until they have tried.
    pub to_retry: BTreeMap<AgentId, ConfigHash>,
    /// Members that a person wants to restart.
    pub restarts: Restarts,
    /// True when failures or illnesses changed since the last look.
    pub memory_changed: bool,
    pub(super) tally: Tally,
    pub(super) long_well: LongWell,
    /// How many had fallen sick when members are judged anew one by one: meanwhile the counts are of only some of them.
    pub(super) kept: Option<Kept>,
    held: BTreeMap<HeldReason, usize>,
    /// Who waits for an offer: those that take no room first, then by rank.
    pending: BTreeSet<(bool, u64, AgentId)>,
    failed_of_hash: usize,
    /// When those count as failed who were offered something, and those who are lost.
    offered: BTreeSet<(Timestamp, AgentId)>,
    lost: BTreeSet<(Timestamp, AgentId)>,
    vanished: BTreeSet<(Timestamp, AgentId)>,
    joined_since: Option<(Timestamp, usize)>,
}

impl Group {
    /// What the member should have; `None`: it keeps what it has.
    pub fn desired_for(&self, id: AgentId, member: &Member) -> Option<ConfigHash> {
        if self.in_cohort(id, member) {
            return self.desired.candidate;
        }
        // Who was moved here by a commit keeps what it has until its stage.
        let has_failed_it =
            member.state().and_then(ConfigState::known).is_some_and(|hash| self.desired.candidate == Some(hash));
        let waits_for_stage = self.desired.moving || member.moved || has_failed_it;
        if waits_for_stage || self.holds_kept(id, member) { None } else { self.desired.stable }
    }

    /// True when the running rollout's candidate is for this member now. Who has it already, or is being given it, is not left
    /// behind.
    pub fn in_cohort(&self, id: AgentId, member: &Member) -> bool {
        let Some(candidate) = self.desired.candidate else { return false };
        if self.desired.reverting && member.moved {
            // What this group had before is nothing that the agent ever had: it comes to it in stages, afterwards.
            return self.holds(member, candidate);
        }
        self.desired.cohort.everybody
            || self.holds(member, candidate)
            || self.failed_what_it_was_given(member, candidate)
            || self.desired.cohort.includes(member.labels.as_ref(), self.rank(id))
    }

    /// True when the member has this configuration, or is being given it and has not said anything else: on the connection it is on, or by
    /// the rollout that runs. What an earlier one, or another group, gave it on a connection that is gone does not count. Who failed it does
    /// not have it.
    pub fn holds(&self, member: &Member, hash: ConfigHash) -> bool {
        let is_own = member.offered_elsewhere(hash).is_none();
        let is_new = |offer: &Offer| {
            let is_its = is_own && self.desired.since.is_none_or(|since| offer.made >= since);
            is_its || member.link.is_some_and(|link| offer.connection == Some(link.connection))
        };
        let is_out = |offer: &Offer| !offer.answered && !offer.withdrawn && !offer.settled;
        let is_offered = |offer: &Offer| offer.hash == hash && is_out(offer) && is_new(offer);
        let has_it = |state: &ConfigState| state.known() == Some(hash) && state.status != ConfigStatus::Failed;
        member.state().is_some_and(has_it) || member.offer.as_ref().is_some_and(is_offered)
    }

    /// True when the rollout that runs gave this to the member, and it failed. That counts, whoever is named or drawn by the rules of a
    /// commit that came since, and also where the process before this one gave it and this one found the member in the middle of it.
    fn failed_what_it_was_given(&self, member: &Member, hash: ConfigHash) -> bool {
        let told = member.config.as_ref().map(|(_, since)| *since);
        let is_its = |offer: &Offer| {
            let is_witnessed = !offer.confirmed && told.is_some_and(|told| offer.at < told);
            offer.hash == hash
                && !offer.settled
                && (offer.connection.is_some() || is_witnessed)
                && self.desired.since.is_none_or(|since| offer.made >= since)
        };
        member.offer.as_ref().is_some_and(is_its)
            && member.offered_elsewhere(hash).is_none()
            && member.says_it_failed(hash)
    }

    /// True when it holds a candidate that was superseded or failed, and no other is on its way to it.
    pub fn holds_kept(&self, id: AgentId, member: &Member) -> bool {
        !self.in_cohort(id, member)
            && member.state().and_then(ConfigState::known).is_some_and(|hash| self.desired.kept.contains(&hash))
    }

    /// True when what becomes of this configuration with this offer says something about the rollout.
    pub fn judges(&self, hash: ConfigHash, offer: Option<&Offer>) -> bool {
        let is_restored = |since| {
            let given =
                offer.is_some_and(|offer| offer.hash == hash && offer.made >= since && offer.connection.is_some());
            self.desired.stable == Some(hash) && given
        };
        self.desired.watched
            && (self.desired.candidate == Some(hash) || self.desired.restoring_since.is_some_and(is_restored))
    }

    /// True when the member was given something new since stable: how it is now may be because of that.
    pub fn was_tried(&self, id: AgentId, member: &Member) -> bool {
        // What an earlier process gave it shows in what it holds, and in what it failed.
        let gave = |hash: ConfigHash| self.desired.candidate == Some(hash) || self.desired.kept.contains(&hash);
        member.tried || self.failures.contains_key(&id) || member.state().and_then(ConfigState::known).is_some_and(gave)
    }

    /// The agents that a stage can be drawn from.
    pub fn draw<'a>(&self, request: &Draw, member: impl Fn(AgentId) -> Option<&'a Member>, now: Timestamp) -> Opening {
        let candidate = self.desired.candidate;
        let mut pinned = 0;
        let drawable: Vec<Drawable<'_>> = self
            .members
            .iter()
            .filter_map(|id| Some((*id, member(*id)?)))
            .filter(|(_, member)| member.is_connected() && member.is_eligible())
            .filter(|(_, member)| {
                let is_pinned = member.pinned_until.is_some_and(|until| until > now);
                pinned += usize::from(is_pinned);
                !is_pinned
            })
            // Who failed it elsewhere proves nothing: a stage of such agents alone would wait for ever.
            .filter(|(id, _)| {
                let is_elsewhere = |one: &Failure| !one.is_evidence() && !one.awaits_stage();
                !self.failures.get(id).is_some_and(|one| Some(one.hash) == candidate && is_elsewhere(one))
            })
            // Who had it before agents were moved here takes no part in their rollout: the stages are shares of the others.
            .filter(|(_, member)| !self.desired.moving || !self.had_before(member))
            .map(|(id, member)| Drawable {
                labels: member.labels.as_ref(),
                rank: self.rank(id),
                holds: candidate.is_some_and(|candidate| self.holds(member, candidate)),
            })
            .collect();
        Opening { pinned, ..cohort::draw(request, &drawable) }
    }

    /// True when the member holds the candidate, and not because this rollout gave it to it.
    pub fn had_before(&self, member: &Member) -> bool {
        let (Some(candidate), Some(since)) = (self.desired.candidate, self.desired.since) else { return false };
        let is_its = |offer: &Offer| offer.connection.is_some() && offer.sent >= since;
        let is_given = member.offer.as_ref().is_some_and(is_its);
        self.holds(member, candidate) && !is_given
    }

    /// True when the agent was heard, could have been offered something by the process before, and was here then: it holds something of the
    /// group's, which a newcomer does not, or it is one of those that the record knows, whatever became of what it held. Where nothing is
    /// stable, what it holds shows nothing.
    pub fn was_here_before(&self, id: AgentId, member: &Member) -> bool {
        let holds = || member.state().and_then(ConfigState::known).is_some_and(|hash| self.is_current(hash));
        member.heard_once && member.is_eligible() && (self.desired.stable.is_none() || holds() || self.knew(id))
    }

    /// True when the process before this one knew the agent as a member.
    pub fn knew(&self, id: AgentId) -> bool {
        let known = self.assumed.as_ref().and_then(|assumed| assumed.known.as_ref());
        known.is_some_and(|known| known.contains(id))
    }

    /// The members as a successor is to know them, with those that have not been back since a restart.
    pub fn known(&self, now: Timestamp) -> Known {
        let before = self.assumed.as_ref().filter(|assumed| now < assumed.known_until);
        Known::of(self.members.iter().copied(), before.and_then(|assumed| assumed.known.as_ref()))
    }

    /// True when the group gives this, or did since what is stable became that.
    fn is_current(&self, hash: ConfigHash) -> bool {
        let desired = &self.desired;
        let one = [desired.stable, desired.candidate, desired.wanted];
        one.contains(&Some(hash)) || desired.kept.contains(&hash)
    }

    /// True when the member reports a configuration that it was sent, and not by this group as far as that is remembered.
    pub fn holds_another_groups(&self, member: &Member) -> bool {
        let is_foreign = |hash| !self.is_current(hash) && !self.desired.retained.contains(&hash);
        member.state().and_then(ConfigState::known).is_some_and(is_foreign)
    }

    /// The configuration with this hash, when it is one that the group gives.
    pub fn config(&self, hash: ConfigHash) -> Option<&RenderedConfig> {
        [&self.candidate, &self.stable].into_iter().flatten().find(|config| config.hash() == hash)
    }

    /// True when the member's effective configuration names everything that it was given.
    pub fn runs_what_was_offered(&self, member: &Member) -> bool {
        let reported = member.state().and_then(ConfigState::known).and_then(|hash| self.config(hash));
        match (reported, &member.effective) {
            (Some(config), Some(effective)) => effective.contains_all(config.components()),
            (Some(_) | None, Some(_) | None) => false,
        }
    }

    /// True when the member says what it runs, and that is not what this configuration names. Names that the agent itself completes
    /// (`otlp/${env:SITE}`) are left out.
    pub fn runs_something_else(&self, hash: ConfigHash, member: &Member) -> bool {
        let says = member.capabilities.contains(Capabilities::REPORTS_EFFECTIVE_CONFIG);
        match (self.config(hash), &member.effective) {
            // No names at all: what it runs was too large to be looked at, or no YAML. That says nothing.
            (Some(config), Some(effective)) if says && !effective.is_empty() => {
                let mut names = config.components().iter().filter(|name| !name.contains('$'));
                !names.all(|name| effective.contains(name))
            }
            (Some(_) | None, Some(_) | None) => false,
        }
    }

    /// True when the agent failed this very configuration here.
    pub fn has_failed(&self, id: AgentId, hash: ConfigHash) -> bool {
        self.failures.get(&id).is_some_and(|failure| failure.hash == hash)
    }

    /// The failures of which hash count: the candidate's; on the way back those of stable; and where nothing is running, the wanted
    /// one's.
    fn judged(&self) -> Option<ConfigHash> {
        let restored = self.desired.restoring_since.and(self.desired.stable);
        restored.or(self.desired.candidate).or(self.desired.wanted).or(self.desired.stable)
    }

    /// What the member said of the candidate that it failed, before its stage had come; it has come now.
    pub fn failed_before_its_stage(&self, id: AgentId, hash: ConfigHash) -> Option<&Failure> {
        let is_introduced = self.desired.candidate == Some(hash) && !self.desired.introduces_old();
        self.failures.get(&id).filter(|failure| is_introduced && failure.hash == hash && failure.awaits_stage())
    }

    /// Whether a failure counts for or against what runs: what goes back, or is stable already, may have been failed long before.
    fn counts_failure(&self, failure: &Failure) -> bool {
        let desired = &self.desired;
        let since = desired.restoring_since.or(desired.since.filter(|_| desired.introduces_old()));
        let is_about_it = failure.is_evidence() && self.judged() == Some(failure.hash);
        is_about_it && since.is_none_or(|since| failure.at >= since)
    }

    fn count_failures(&mut self) {
        let counted = self.failures.values().filter(|failure| self.counts_failure(failure));
        let (all, absent) = counted.fold((0, 0), |(all, absent), one| (all + 1, absent + usize::from(one.is_absent)));
        (self.failed_of_hash, self.tally.failed_absent) = (all, absent);
    }

    /// Remembers a failure of an agent with these labels.
    pub fn remember(&mut self, id: AgentId, labels: Option<&Labels>, failure: Failure) {
        let form = self.form(&failure.message, labels);
        let failure = Failure { form, ..failure };
        self.end_retry(id, failure.hash);
        let add = |number: &mut usize, by: isize| *number = number.saturating_add_signed(by);
        let new = (self.counts_failure(&failure), failure.is_absent);
        let old =
            self.failures.insert(id, failure).map_or((false, false), |old| (self.counts_failure(&old), old.is_absent));
        for ((counts, is_absent), by) in [(new, 1), (old, -1)] {
            add(&mut self.failed_of_hash, if counts { by } else { 0 });
            add(&mut self.tally.failed_absent, if counts && is_absent { by } else { 0 });
        }
        self.memory_changed = true;
    }

    /// Takes what the journal remembers.
    pub fn restore_failures(&mut self, failures: BTreeMap<AgentId, Failure>) {
        self.failures.clear();
        for (id, failure) in failures {
            let form = self.form(&failure.message, None);
            self.failures.insert(id, Failure { form, ..failure });
        }
    }

    /// An agent with these labels has come: if the journal remembered a failure of it, its own names in that are known by now.
    pub fn reform(&mut self, id: AgentId, labels: &Labels) {
        let Some(message) = self.failures.get(&id).map(|failure| failure.message.clone()) else { return };
        let form = self.form(&message, Some(labels));
        if let Some(failure) = self.failures.get_mut(&id) {
            failure.form = form;
        }
    }

    fn form(&mut self, message: &str, labels: Option<&Labels>) -> Arc<str> {
        let form = failures::normal_form(message, labels);
        if let Some(known) = self.forms.get(form.as_str()) {
            return known.clone();
        }
        if self.forms.len() > 2 * self.failures.len() + MOST_REMEMBERED {
            self.forms = self.failures.values().map(|failure| failure.form.clone()).collect();
        }
        let form: Arc<str> = form.into();
        self.forms.insert(form.clone());
        form
    }

    /// What the agent failed is forgiven by a person.
    pub fn forgive(&mut self, id: AgentId) {
        self.memory_changed |= self.failures.remove(&id).is_some();
        self.count_failures();
    }

    /// It tried once more what a person wanted it to, and the order is carried out.
    pub fn end_retry(&mut self, id: AgentId, hash: ConfigHash) {
        if self.to_retry.get(&id) == Some(&hash) {
            self.to_retry.remove(&id);
            self.memory_changed = true;
        }
    }

    /// Forgets an agent that is gone for good. What it failed stays remembered, as far as the journal can remember it.
    pub fn forget(&mut self, id: AgentId) {
        self.members.remove(&id);
        self.memory_changed |= self.to_retry.remove(&id).is_some();
        if self.desired.watched {
            return;
        }
        self.memory_changed |= self.ill.remove(&id);
        if self.failures.len() <= MOST_REMEMBERED {
            return;
        }
        if self.failures.remove(&id).is_some() {
            self.count_failures();
            self.memory_changed = true;
        }
    }

    /// Takes what is desired from now on. Members have to be judged again afterwards.
    pub fn set_desired(&mut self, desired: Desired) {
        if desired.stable != self.desired.stable && !self.ill.is_empty() {
            self.ill.clear();
            self.memory_changed = true;
        }
        let keeps =
            |hash| desired.wanted == Some(hash) || desired.stable == Some(hash) || desired.candidate == Some(hash);
        let before = self.failures.len();
        // What is tried again may have to go back again, too.
        let is_retry = self.is_retry(&desired);
        // Who vanished may have had other reasons; now that others have proven it, it gets what everybody has when it is back.
        let has_succeeded = desired.successes > self.desired.successes;
        let is_past =
            |failure: &Failure| is_retry || has_succeeded && failure.is_absent && desired.stable == Some(failure.hash);
        self.failures.retain(|_, failure| keeps(failure.hash) && !is_past(failure));
        self.memory_changed |= before != self.failures.len();
        self.to_retry.retain(|_, hash| keeps(*hash));
        self.desired = desired;
        self.count_failures();
    }

    /// True when a person asked for another try of the candidate since.
    pub fn is_retry(&self, desired: &Desired) -> bool {
        // What is published first after a restart is no news.
        self.desired.wanted.is_some() && desired.retries > self.desired.retries
    }

    /// The order in which agents of this group get something new: a hash of the agent and the rollout's seed, so that it is the
    /// same after every restart and no agent is always first. FNV-1a with a final mix; frozen.
    fn rank(&self, id: AgentId) -> u64 {
        let seed = self.desired.seed.as_ref().map_or(&[][..], |seed| &seed.as_bytes()[..8]);
        let hash = seed.iter().chain(id.as_bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }

    /// Counts a member as `verdict` says. The same verdict has to be taken out again before the next one comes in.
    pub fn count_in(&mut self, id: AgentId, verdict: &Verdict, gone_at: Option<Timestamp>) {
        self.count(verdict, 1);
        if verdict.standing == Standing::Pending && !verdict.unready {
            self.pending.insert((!verdict.unavailable, self.rank(id), id));
        }
        if let Some((open, at)) = self.open(verdict) {
            open.insert((at, id));
        }
        if let (true, Some(at)) = (verdict.vanished, gone_at) {
            self.vanished.insert((at, id));
        }
    }

    /// Takes a member's verdict out of the counts.
    pub fn count_out(&mut self, id: AgentId, verdict: &Verdict, gone_at: Option<Timestamp>) {
        self.count(verdict, -1);
        if verdict.standing == Standing::Pending {
            self.pending.remove(&(!verdict.unavailable, self.rank(id), id));
        }
        if let Some((open, at)) = self.open(verdict) {
            open.remove(&(at, id));
        }
        if let (true, Some(at)) = (verdict.vanished, gone_at) {
            self.vanished.remove(&(at, id));
        }
    }

    /// Where it is written down when the outcome of an offer is decided at the latest.
    fn open(&mut self, verdict: &Verdict) -> Option<(&mut BTreeSet<(Timestamp, AgentId)>, Timestamp)> {
        let open = match verdict.standing {
            Standing::Offered => &mut self.offered,
            Standing::Lost => &mut self.lost,
            Standing::Unplaced
            | Standing::Held(_)
            | Standing::Pending
            | Standing::Confirmed
            | Standing::Failed
            | Standing::Away => return None,
        };
        verdict.until.filter(|_| !verdict.excused).map(|at| (open, at))
    }

    fn count(&mut self, verdict: &Verdict, by: isize) {
        let add = |number: &mut usize, when: bool| {
            if when {
                *number = number.saturating_add_signed(by);
            }
        };
        let tally = &mut self.tally;
        add(&mut tally.members, verdict.reachable);
        add(&mut tally.selected, verdict.selected);
        add(&mut tally.eligible, verdict.eligible);
        add(&mut tally.unavailable, verdict.unavailable);
        add(&mut tally.vanished, verdict.vanished);
        add(&mut tally.back, verdict.back);
        add(&mut tally.holding, verdict.holding);
        let sickness = if verdict.treated { &mut tally.treated } else { &mut tally.peers };
        add(&mut sickness.of, verdict.eligible || verdict.vanished);
        add(&mut sickness.sick, (verdict.eligible || verdict.vanished) && verdict.sick);
        self.long_well.change(verdict.long_well, by);
        match verdict.standing {
            Standing::Held(reason) => {
                add(&mut tally.held, true);
                add(&mut tally.stranded, reason == HeldReason::MovedHere);
                let count = self.held.entry(reason).or_default();
                add(count, true);
                if *count == 0 {
                    self.held.remove(&reason);
                }
            }
            Standing::Away => add(&mut tally.away, true),
            Standing::Unplaced
            | Standing::Failed
            | Standing::Pending
            | Standing::Offered
            | Standing::Confirmed
            | Standing::Lost => {}
        }
        if verdict.outside {
            add(&mut tally.outside.eligible, verdict.eligible);
            add(&mut tally.outside.pending, verdict.standing == Standing::Pending);
            return;
        }
        add(&mut tally.cohort, verdict.eligible);
        add(&mut tally.cohort_vanished, verdict.vanished && verdict.standing != Standing::Failed);
        add(&mut tally.ill_before, verdict.ill_before && verdict.eligible);
        add(&mut tally.excused, verdict.excused);
        match verdict.standing {
            Standing::Unplaced | Standing::Failed | Standing::Held(_) | Standing::Away => {}
            Standing::Pending => {
                add(&mut tally.pending, true);
                add(&mut tally.unready, verdict.unready);
            }
            Standing::Offered => add(&mut tally.offered, true),
            Standing::Confirmed => {
                add(&mut tally.confirmed, true);
                add(&mut tally.proof, !verdict.ill_before);
            }
            Standing::Lost => add(&mut tally.lost, true),
        }
    }

    /// Counts a member as heard by this process, or no longer.
    pub fn count_heard(&mut self, by: isize) {
        self.tally.heard = self.tally.heard.saturating_add_signed(by);
    }

    /// A member came anew: the group is restless while more than one in twenty did within [`SETTLE`].
    pub fn join(&mut self, now: Timestamp) {
        let (since, count) = match self.joined_since {
            Some((since, count)) if now.since(since) < SETTLE => (since, count + 1),
            Some(_) | None => (now, 1),
        };
        self.joined_since = Some((since, count));
        if count * 20 >= self.tally.selected.max(1) {
            self.tally.restless_at = Some(now);
        }
    }

    /// How many agents that are not back are assumed to be in the middle of something.
    pub fn assumed(&self, now: Timestamp) -> usize {
        let still = |assumed: &Assumed| {
            if now < assumed.until { assumed.room.min(assumed.reach.saturating_sub(self.tally.back)) } else { 0 }
        };
        self.assumed.as_ref().map_or(0, still)
    }

    /// The counts.
    pub fn tally(&self, now: Timestamp, forget_after: Duration, fleet: &Bystanders) -> Tally {
        let assumed = self.assumed(now);
        let (treated, compared) = self.compare(fleet);
        Tally {
            // While nothing may leave, agents that wait are no longer counted as such: that nobody waits proves nothing. What is only held
            // back says so itself.
            candidate: self.desired.candidate.filter(|_| self.desired.closed.as_ref().is_none_or(Closed::only_holds)),
            draws: self.desired.draws,
            restoring: self.desired.restoring_since.is_some() && self.desired.closed.is_none(),
            held_back: self.desired.holds_back,
            assumed,
            assumed_until: self.assumed.as_ref().filter(|_| assumed > 0).map(|assumed| assumed.until),
            failed: self.failed_of_hash,
            decided_by: (self.offered.last().map(|(at, _)| *at), self.lost.last().map(|(at, _)| *at)),
            treated,
            peers: compared.peers,
            compared_with: compared.with,
            unavailable: self.tally.unavailable + assumed,
            forgotten_at: self.vanished.first().map(|(at, _)| *at + forget_after),
            ..self.tally.clone()
        }
    }

    /// Why members are held, with their number.
    pub fn held(&self) -> &BTreeMap<HeldReason, usize> {
        &self.held
    }

    /// Agents that can be offered something, and those that take room now.
    pub fn load(&self) -> (usize, usize) {
        (self.tally.eligible, self.tally.unavailable)
    }

    /// The next one to be offered something, when there is room: first those that are unavailable already. True: it takes room.
    pub fn next_pending(&self, now: Timestamp) -> Option<(AgentId, bool)> {
        if self.desired.closed.is_some() || self.tally.members > self.desired.reach {
            return None;
        }
        let (takes_room, _, id) = self.pending.first()?;
        if !takes_room {
            return Some((*id, false));
        }
        self.has_room(now).then_some((*id, true))
    }

    /// True when one more agent may become unavailable.
    pub fn has_room(&self, now: Timestamp) -> bool {
        let unavailable = self.tally.unavailable + self.assumed(now);
        budget::room(self.desired.max_unavailable, self.tally.eligible, self.desired.room, unavailable) > 0
    }
}
