//! Whose turn it is: nobody is offered a candidate before the stage that names it or drew it is open by the stored record.

use gitamp::agent::AgentId;
use gitamp::config::ConfigHash;
use gitamp::rollout::record::{Kind, Progress, RolloutRecord};

use crate::judge::{Judge, Stored};
use crate::world::{OfferMade, State};

/// The frozen order of a group's agents, written down a second time.
fn rank(seed: ConfigHash, id: AgentId) -> u64 {
    let hash = seed.as_bytes()[..8]
        .iter()
        .chain(id.as_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// How many stages have been opened.
fn opened(rollout: &RolloutRecord) -> usize {
    match rollout.progress {
        Progress::Opening => rollout.stage,
        Progress::Rolling | Progress::Soaking { .. } | Progress::Baking { .. } => rollout.stage + 1,
        Progress::RollingBack { .. } | Progress::Failed { .. } => 0,
    }
}

fn is_stopped(rollout: &RolloutRecord) -> bool {
    matches!(rollout.progress, Progress::RollingBack { .. } | Progress::Failed { .. })
}

impl Judge {
    /// Nobody is offered a candidate before the stage that names it, or drew it, is open by the stored record.
    pub(crate) fn check_stage(&mut self, world: &State, offer: &OfferMade<'_>, group: &str, stored: &Stored) {
        let Some(rollout) = stored.rollout() else { return };
        let hash = offer.config.hash();
        let is_stable = stored.stable() == Some(hash);
        // What is stable goes to anybody, but while it goes to agents that a commit moved here: then it has stages.
        let is_free = is_stable && (rollout.kind != Kind::Move || is_stopped(rollout));
        if rollout.candidate != hash || is_free {
            return;
        }
        assert!(!is_stopped(rollout), "{group}: {} is offered a candidate that stopped", offer.name);
        let agent = &world.agents[offer.name];
        let stages = &stored.definition.strategy.stages;
        let opened = if rollout.takes_everybody() { stages.len() } else { opened(rollout) };
        let labels = agent.told_labels();
        let is_named = stages.iter().take(opened).any(|stage| {
            stage.selector.as_ref().is_some_and(|selector| labels.is_some_and(|labels| selector.matches(labels)))
        });
        let is_drawn = || rollout.drawn.includes(labels, rank(rollout.seed, agent.id));
        let is_in = opened >= stages.len() || is_named || is_drawn();
        // Other stages may have come with a commit after it was offered this, and the offer was lost with its connection: who is being
        // given the candidate is not left behind.
        let was_in = self.tries.was_placed(agent.id, group, rollout);
        assert!(is_in || was_in, "{group}: the stage of {} has not come: {rollout:?}", offer.name);
        self.tries.place(agent.id, group, rollout);
    }

    /// A record takes the place of another one.
    pub(crate) fn check_step(&self, world: &State, group: &str, before: Option<&Stored>, after: &Stored) {
        let is_other_rules = before.is_some_and(|before| before.definition != after.definition);
        let Some(is) = after.rollout().filter(|is| !is_stopped(is) && !is_other_rules) else { return };
        let is_same = |was: &&RolloutRecord| (was.candidate, was.started) == (is.candidate, is.started);
        let was = before.and_then(Stored::rollout).filter(is_same);
        // A revert that finds only agents whom a commit moved here begins anew as a rollout for them: nobody takes another's place.
        let is_drawn_anew = |was: &RolloutRecord| {
            was.kind == is.kind && was.stage == is.stage && was.progress != Progress::Opening && is.draws > was.draws
        };
        if was.is_some_and(is_drawn_anew) {
            self.check_replacement(world, group, before, after);
        }
        if opened(is) > was.map_or(0, opened) && !was.is_some_and(|was| was.hurried) {
            self.check_window(world, group, after, is);
        }
    }

    /// Others were drawn in the place of a stage's agents, who are gone: not while those who were there before a restart may still
    /// come back.
    fn check_replacement(&self, world: &State, group: &str, before: Option<&Stored>, after: &Stored) {
        let Some(restarted) = &self.restarted else { return };
        let Some(population) = restarted.population.get(group) else { return };
        // With a success the group is what it is by then.
        let population = (*population).min(after.file.rollouts.population);
        // It may have been decided by the rules before the last commit.
        let definitions = self.accepted.get(group).map(|group| &group.definition);
        let definitions = definitions.into_iter().chain(before.map(|before| &before.definition));
        let Some(deadline) = definitions.map(|definition| definition.strategy.progress_deadline).min() else { return };
        // A process that stood still waits for so much longer; how much that was it says itself.
        let until = restarted.took_over + deadline.min(world.options.forget_after);
        let heard = self.members(world, group).filter(|(_, agent)| agent.told_status().is_some()).count();
        assert!(
            heard >= population || world.now >= until,
            "{group}: others were drawn, and {} of {population} may still come back after the restart",
            population - heard
        );
    }

    /// A stage opened: at some time since the last record but one its windows let it.
    fn check_window(&self, world: &State, group: &str, after: &Stored, rollout: &RolloutRecord) {
        let strategy = &after.definition.strategy;
        if rollout.kind == Kind::Revert || rollout.hurried || strategy.windows.is_empty() {
            return;
        }
        let Some(since) = self.stored_at[0] else { return };
        if self.hurried.get(group).is_some_and(|at| *at >= since) {
            // A person skipped the wait; the stage after that has waits of its own.
            return;
        }
        if self.windows_changed.get(group).is_some_and(|at| *at >= since) {
            // It may have opened before the commit that brought these windows.
            return;
        }
        let minutes = (0..).map(|minute| since + std::time::Duration::from_secs(60 * minute));
        let mut times = minutes.take_while(|at| *at < world.now).chain([world.now]);
        assert!(
            times.any(|at| strategy.outside_windows(at).is_none()),
            "{group}: a stage opened outside of its windows: {rollout:?}"
        );
    }
}
