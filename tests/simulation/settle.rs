//! In the end the world is quiet, and everything comes to an end or says whom it waits for.

use std::collections::BTreeSet;
use std::time::Duration;

use gitamp::view::{AgentQuery, GroupStatus, Phase};

use crate::story::Story;

/// How often everybody is connected again before nothing may move any more.
const ROUNDS: usize = 80;

/// From one such time to the next.
const ROUND: Duration = Duration::from_secs(180);

/// What a rollout may wait for although nobody does anything any more: the repository, or the agents, have to change.
const EXCUSES: [&str; 10] = [
    "no-proof",
    "nobody-eligible",
    "suspended",
    "expect",
    "budget",
    "fleet-budget",
    "no-agents",
    "depends-on",
    "outage",
    "window",
];

impl Story {
    /// The repository is quiet, the journal can be written, everybody comes back whenever it dies.
    pub(crate) fn settle(&mut self) {
        self.world.observer.tell(&self.world.state, || "QUIET".to_owned());
        self.world.state.weather.store_works = true;
        self.world.state.weather.stores_failing = 0;
        self.world.state.weather.answers_lost = 0;
        self.take_head();
        for _ in 0..ROUNDS {
            self.let_go();
            self.everybody(|story, name| story.connect(name));
            self.world.advance(ROUND);
            if self.is_over() {
                break;
            }
        }
        self.everybody(|story, name| story.connect(name));
        self.world.advance(Duration::from_secs(40));
        self.check_counts();
        let offers = self.world.observer.offers;
        if !self.is_over() {
            self.world.advance(Duration::from_secs(1800));
        }
        assert_eq!(self.world.observer.offers, offers, "offers are still made when everything has settled");
        self.check_settled();
    }

    /// True when nothing changes any more, however long one waits.
    fn is_over(&self) -> bool {
        let is_here = |name: &String| self.world.state.agents[name].connection.is_some();
        let judge = &self.world.observer;
        let is_held = !judge.frozen.is_empty() || !judge.pinned.is_empty() || self.waits_for_a_word();
        !is_held && self.world.state.is_quiet() && self.world.state.agents.keys().all(is_here)
    }

    fn waits_for_a_word(&self) -> bool {
        let state = &self.world.state;
        let is_word =
            |waiting: &gitamp::view::WaitingOn| matches!(waiting.reason.as_str(), "approval" | "paused" | "guard");
        let status = state.controller.status("test", state.now);
        let commits = status.commits.iter().flat_map(|commit| commit.groups.values());
        commits.flat_map(|group| &group.waiting_on).any(is_word)
            || status.groups.iter().flat_map(|group| &group.waiting_on).any(is_word)
    }

    fn check_settled(&self) {
        let state = &self.world.state;
        let status = state.controller.status("test", state.now);
        for group in &status.groups {
            self.check_group(group);
        }
        let agents = state.controller.agents(&AgentQuery { limit: Some(1000), ..AgentQuery::default() });
        for agent in &agents.agents {
            let group = status.groups.iter().find(|group| Some(&group.name) == agent.group.as_ref());
            let is_frozen =
                group.is_some_and(|group| group.waiting_on.iter().any(|waiting| waiting.reason == "outage"));
            // As many as may fail do not hold a rollout up while others are as sick.
            let id = agent.id.parse().expect("an id");
            let is_excused = state.controller.roster().agent(id).is_some_and(|member| member.verdict.excused);
            let is_settled = is_frozen
                || is_excused
                || matches!(
                    agent.state.as_str(),
                    "confirmed" | "failed" | "held" | "unmanaged" | "orphaned" | "conflict" | "pending"
                );
            assert!(is_settled, "{} is {} ({:?}) when everything has settled", agent.id, agent.state, agent.reason);
        }
        // What runs says above whom it waits for.
        let runs = |name: &String| {
            status.groups.iter().any(|group| {
                let is_running =
                    matches!(group.phase, Phase::Rolling | Phase::RollingBack | Phase::Soaking | Phase::Held);
                group.name == *name && is_running
            })
        };
        for commit in &status.commits {
            let mut waiting = commit.groups.iter().filter(|(_, group)| group.ending.is_none());
            assert!(
                waiting.all(|(name, _)| runs(name)),
                "{} has no ending, and nothing runs: {commit:?}",
                commit.revision
            );
        }
    }

    /// A group's rollout is over, or says what it waits for; and agents wait for room only while others take it.
    fn check_group(&self, group: &GroupStatus) {
        let reasons: BTreeSet<&str> = group.waiting_on.iter().map(|waiting| waiting.reason.as_str()).collect();
        let is_over = match group.phase {
            Phase::Steady | Phase::Failed | Phase::RolledBack | Phase::Undone | Phase::Unproven => true,
            Phase::Rolling | Phase::RollingBack | Phase::Soaking | Phase::Held => {
                EXCUSES.iter().any(|reason| reasons.contains(reason)) || !group.diagnostics.is_empty()
            }
        };
        assert!(is_over, "{} does not end: {:?} {:?} {:?}", group.name, group.phase, group.counts, group.waiting_on);
        if group.counts.pending == 0 || reasons.contains("fleet-budget") {
            return;
        }
        let ill = self.world.observer.members(&self.world.state, &group.name);
        let ill = ill.filter(|(_, agent)| agent.is_eligible() && agent.told_ill()).count();
        let definition = &self.world.observer.accepted[&group.name].definition;
        let limit = definition.strategy.max_unavailable.round_down(group.counts.eligible).max(1);
        assert!(ill >= limit, "{}: agents wait for no reason: {:?} {:?}", group.name, group.counts, group.waiting_on);
    }
}
