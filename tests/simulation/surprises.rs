//! One thing that happens by chance.

use std::time::Duration;

use gitamp::agent::ConfigStatus;

use crate::story::Story;
use crate::world::agent::ModelAgent;

impl Story {
    /// One thing that happens by chance.
    pub(crate) fn happen(&mut self) {
        let name = self.some_agent();
        match self.rng.u8(0..34) {
            0..=4 => self.commit(),
            5 => {
                for _ in 0..self.rng.u8(2..5) {
                    self.commit();
                }
            }
            6..=10 => self.connect(&name),
            11 => self.everybody(|story, name| story.connect(name)),
            12 | 13 => self.disconnect(&name),
            14 => {
                self.disconnect(&name);
                self.connect(&name);
            }
            15 => {
                let share = self.rng.u8(1..10);
                self.everybody(|story, name| {
                    if story.rng.u8(0..10) < share {
                        story.disconnect(name);
                    }
                });
            }
            16 => {
                let labels = self.labels();
                self.world.change(&name, |agent| agent.labels = labels);
            }
            17 => {
                let is_well = self.rng.bool();
                self.world.change(&name, |agent| agent.is_well = is_well);
            }
            18 if self.rng.bool() => self.wipe(&name),
            19 | 20 => {
                self.restart();
                if self.rng.u8(0..3) > 0 {
                    self.take_head();
                }
                if self.rng.bool() {
                    self.everybody(|story, name| story.connect(name));
                }
            }
            21 => self.restart_without_some(),
            22 => self.world.state.weather.store_works = self.rng.u8(0..3) > 0,
            23 | 24 if !self.is_head_known => self.take_head(),
            25..=28 => self.some_order(),
            29 => {
                // What everybody exports to is away, or back.
                let is_well = self.rng.bool();
                self.everybody(|story, name| {
                    if story.rng.u8(0..8) > 0 {
                        story.world.change(name, |agent| agent.is_well = is_well);
                    }
                });
            }
            30 => {
                let length = Duration::from_secs(*self.rng.choice(&[90, 600, 5_000]).expect("a choice"));
                self.world.stand_still(length, false);
            }
            31 => self.wipe_a_failed_one(),
            32 => self.pause_something(),
            33 => self.resume_everything(),
            _ => {}
        }
    }

    /// The agent is started anew with an empty disk.
    fn wipe(&mut self, name: &str) {
        self.disconnect(name);
        self.world.observer.tell(&self.world.state, || format!("{name} loses its disk"));
        self.world.change(name, ModelAgent::wipe);
    }

    /// Somebody who failed is started anew with an empty disk: nothing that it says tells of the failure.
    fn wipe_a_failed_one(&mut self) {
        if let Some(name) = self.some_failed_agent() {
            self.wipe(&name);
            self.connect(&name);
        }
    }

    /// Somebody who failed what it was given last.
    pub(crate) fn some_failed_agent(&mut self) -> Option<String> {
        let agents = self.world.state.agents.iter();
        let failed = agents.filter(|(_, agent)| agent.status.status == ConfigStatus::Failed);
        let failed: Vec<&String> = failed.map(|(name, _)| name).collect();
        self.rng.choice(failed).cloned()
    }

    /// Everybody is back at once after a restart, but for a few: those who are in the middle of something above all.
    fn restart_without_some(&mut self) {
        let agents = self.world.state.agents.iter().filter(|(_, agent)| agent.connection.is_some());
        let mut missing: Vec<(bool, String)> =
            agents.map(|(name, agent)| (agent.given.is_none(), name.clone())).collect();
        self.rng.shuffle(&mut missing);
        missing.sort_by_key(|(is_idle, _)| *is_idle);
        missing.truncate((missing.len() / 8).max(1));
        self.restart();
        self.take_head();
        self.everybody(|story, name| {
            if missing.iter().all(|(_, other)| other != name) {
                story.connect(name);
            }
        });
    }
}
