//! One seed's world: who is in it, and how its time passes.

use std::collections::BTreeMap;
use std::time::Duration;

use gitamp::agent::{Capabilities, ConfigStatus, Transport};
use gitamp::controller::Options;
use gitamp::fleet::GroupName;
use gitamp::labels::Labels;
use gitamp::roster::standing::Standing;

use crate::budget::Restarted;
use crate::changes::CONFIGS;
use crate::judge::Judge;
use crate::world::World;
use crate::world::agent::{ModelAgent, Nature};
use crate::world::repository::{self, ModelCommit};

/// One seed's world, and what chance does to it.
pub(crate) struct Story {
    pub(crate) world: World<Judge>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) commits: Vec<ModelCommit>,
    pub(crate) head: ModelCommit,
    /// False after a restart in which the head was not taken again yet.
    pub(crate) is_head_known: bool,
    pub(crate) restarts: usize,
}

impl Story {
    pub(crate) fn new(seed: u64, keeps_story: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let forget_after = Duration::from_secs(*rng.choice(&[600, 3600, 3600]).expect("a choice"));
        let judge = Judge::new(keeps_story);
        let mut world = World::new(Options { observe: false, forget_after }, rng.u64(..), judge);
        world.state.weather.latency = Duration::from_millis(*rng.choice(&[0, 0, 200, 5_000]).expect("a choice"));
        world.state.weather.store_delay = Duration::from_millis(*rng.choice(&[0, 50, 3_000]).expect("a choice"));
        world.state.weather.stores_failing = *rng.choice(&[0, 0, 0, 100]).expect("a choice");
        world.state.weather.answers_lost = *rng.choice(&[0, 100, 400]).expect("a choice");
        let head = ModelCommit::new(1, "the beginning");
        let mut story = Self { world, rng, commits: Vec::new(), head, is_head_known: true, restarts: 0 };
        let most = if story.rng.u8(0..20) == 0 { 120 } else { 30 };
        let agents = story.rng.u16(2..most);
        for number in 1..=agents {
            story.add_agent(number, seed);
        }
        story
    }

    pub(crate) fn labels(&mut self) -> Labels {
        repository::labels(&format!("env=e{},ring=r{}", self.rng.u8(0..3), self.rng.u8(0..3)))
    }

    fn add_agent(&mut self, number: u16, salt: u64) {
        let transport = if self.rng.u8(0..4) == 0 { Transport::Http } else { Transport::WebSocket };
        let mut agent = ModelAgent::new(number, self.labels(), transport);
        agent.nature = Nature::Drawn { salt };
        if self.rng.u8(0..20) == 0 {
            agent.capabilities = Capabilities(0x2845);
        }
        if self.rng.u8(0..6) == 0 {
            agent.say(repository::hash(CONFIGS[self.rng.usize(0..CONFIGS.len())]), ConfigStatus::Applied, None);
        }
        agent.is_well = self.rng.u8(0..10) != 0;
        self.world.state.agents.insert(format!("a{number:03}"), agent);
    }

    pub(crate) fn some_agent(&mut self) -> String {
        let index = self.rng.usize(0..self.world.state.agents.len());
        self.world.state.agents.keys().nth(index).expect("an agent").clone()
    }

    pub(crate) fn connect(&mut self, name: &str) {
        let silence =
            if self.rng.u8(0..5) == 0 { Duration::from_millis(self.rng.u64(1..3_000)) } else { Duration::ZERO };
        self.world.connect(name, Some(silence));
    }

    pub(crate) fn disconnect(&mut self, name: &str) {
        let goodbye = self.rng.bool();
        let now = if goodbye { "says goodbye" } else { "vanishes" };
        self.world.observer.tell(&self.world.state, || format!("{name} {now}"));
        self.world.disconnect(name, goodbye);
    }

    pub(crate) fn everybody(&mut self, mut act: impl FnMut(&mut Self, &str)) {
        let mut names: Vec<String> = self.world.state.agents.keys().cloned().collect();
        self.rng.shuffle(&mut names);
        for name in names {
            act(self, &name);
        }
    }

    /// The process dies, and the next one knows what was stored.
    pub(crate) fn restart(&mut self) {
        self.restarts += 1;
        let judge = &self.world.observer;
        let names: Vec<GroupName> = judge.accepted.keys().map(|name| GroupName::new(name.as_str())).collect();
        let roster = self.world.state.controller.roster();
        let members = |name: &GroupName| roster.group(name).map(|group| group.members.clone()).unwrap_or_default();
        let known = names.into_iter().map(|name| (name.clone(), members(&name))).collect();
        self.world.observer.restarted = Some(Restarted {
            took_over: self.world.state.now,
            at: self.world.state.now,
            known,
            population: BTreeMap::new(),
            unrecorded: BTreeMap::new(),
            is_shaken: false,
        });
        self.world.observer.tell(&self.world.state, || "RESTART".to_owned());
        let problems = self.world.restart();
        assert!(problems.is_empty(), "what was stored cannot be read: {problems:?}");
        self.is_head_known = false;
    }

    /// Chance has its time.
    pub(crate) fn live(&mut self, steps: u64) {
        for _ in 0..self.rng.u8(1..4) {
            self.commit();
        }
        self.everybody(|story, name| {
            if story.rng.u8(0..5) > 0 {
                story.connect(name);
            }
        });
        for _ in 0..steps {
            let millis = match self.rng.u8(0..8) {
                0 => 0,
                1..=4 => self.rng.u64(1..5_000),
                5 | 6 => self.rng.u64(5_000..60_000),
                _ => self.rng.u64(60_000..900_000),
            };
            self.world.advance(Duration::from_millis(millis));
            self.happen();
            self.check_counts();
        }
    }

    /// The counts of every group are what its members' verdicts add up to.
    pub(crate) fn check_counts(&self) {
        let roster = self.world.state.controller.roster();
        let mut by_group: BTreeMap<&GroupName, [usize; 9]> = BTreeMap::new();
        for (_, member) in roster.agents() {
            let Some(name) = member.placement.group() else { continue };
            let verdict = &member.verdict;
            let is = |standing: Standing| usize::from(verdict.standing == standing && !verdict.outside);
            let parts = [
                usize::from(verdict.selected),
                usize::from(verdict.eligible),
                is(Standing::Pending),
                is(Standing::Offered),
                is(Standing::Confirmed),
                usize::from(matches!(verdict.standing, Standing::Held(_))),
                usize::from(verdict.standing == Standing::Away),
                is(Standing::Lost),
                usize::from(verdict.vanished),
            ];
            let sums = by_group.entry(name).or_default();
            sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        }
        for (name, sums) in by_group {
            let tally = roster.tally(name, self.world.state.now);
            let counted = [
                tally.selected,
                tally.eligible,
                tally.pending,
                tally.offered,
                tally.confirmed,
                tally.held,
                tally.away,
                tally.lost,
                tally.vanished,
            ];
            assert_eq!(counted, sums, "{name}: the counts differ from the members");
        }
    }
}
