//! What persons order by chance, and what the judge has to hold the product to from then on.

use std::time::Duration;

use gitamp::time::Timestamp;
use gitamp::view::Phase;
use gitamp::view::command::Command;

use crate::story::Story;

impl Story {
    /// A person orders something, and the judge remembers what must hold from then on. True when it was done.
    pub(crate) fn order(&mut self, command: Command) -> bool {
        let (is_freeze, group) = match &command {
            Command::Freeze { group } => (Some(true), group.clone().unwrap_or_default()),
            Command::Unfreeze { group } => (Some(false), group.clone().unwrap_or_default()),
            Command::Retry { target } if self.name_of(target).is_some() => (None, String::new()),
            Command::Retry { target: group } | Command::Undo { group, .. } | Command::Resume { group } => {
                (None, group.clone())
            }
            Command::Pause { .. }
            | Command::Abort { .. }
            | Command::Promote { .. }
            | Command::UndoSince { .. }
            | Command::Restart { .. }
            | Command::Pin { .. }
            | Command::Unpin { .. } => (None, String::new()),
        };
        let state = &self.world.state;
        let judge = &mut self.world.observer;
        let now = state.now;
        let (frozen, pinned) = (judge.frozen.clone(), judge.pinned.clone());
        let forgiven = judge.forgiven();
        if is_freeze == Some(false) {
            judge.frozen.remove(&group);
        }
        if is_freeze.is_none() && !group.is_empty() {
            // A person asked: what failed there may be tried again.
            judge.tripped.retain(|(name, _), _| *name != group);
            judge.failed.retain(|_, (name, _)| *name != group);
        }
        if matches!(command, Command::UndoSince { .. }) {
            // A person asked, of whichever group it is.
            judge.tripped.clear();
            judge.failed.clear();
        }
        if let Command::Retry { target } = &command {
            judge.expect_retry(state, target);
        }
        let pin =
            if let Command::Pin { target, length } = &command { Some((self.key(target), now + *length)) } else { None };
        if let Command::Unpin { target } = &command {
            let key = self.key(target);
            self.world.observer.pinned.remove(&key);
        }
        if let Command::Promote { target, now: true } = &command {
            self.world.observer.hurried.insert(target.clone(), now);
        }
        self.world.observer.tell(&self.world.state, || format!("ORDER {command:?}"));
        let is_done = self.world.order(command, "somebody", None).is_ok();
        let judge = &mut self.world.observer;
        match (is_done, is_freeze) {
            (true, Some(true)) => {
                judge.frozen.insert(group);
            }
            (true, Some(false) | None) => judge.pinned.extend(pin),
            (false, _) => {
                (judge.frozen, judge.pinned) = (frozen, pinned);
                judge.restore(forgiven);
            }
        }
        is_done
    }

    /// The agent that is meant, when it is one.
    fn name_of(&self, target: &str) -> Option<&str> {
        self.world.state.name_of(target.parse().ok()?)
    }

    /// The name by which the judge knows what a pin is about.
    fn key(&self, target: &str) -> String {
        self.name_of(target).unwrap_or(target).to_owned()
    }

    /// Somebody pauses a rollout that runs.
    pub(crate) fn pause_something(&mut self) {
        let state = &self.world.state;
        let groups = state.controller.status("test", state.now).groups.into_iter();
        let running = groups.filter(|group| matches!(group.phase, Phase::Rolling | Phase::Soaking));
        let running: Vec<String> = running.map(|group| group.name).collect();
        if let Some(group) = self.rng.choice(&running).cloned() {
            self.order(Command::Pause { group });
        }
    }

    /// Everything that somebody paused goes on.
    pub(crate) fn resume_everything(&mut self) {
        let state = &self.world.state;
        for group in state.controller.status("test", state.now).groups {
            if group.waiting_on.iter().any(|waiting| waiting.reason == "paused") {
                self.order(Command::Resume { group: group.name });
            }
        }
    }

    /// Any order.
    pub(crate) fn some_order(&mut self) {
        // What one agent is told concerns those who failed above all.
        let is_about_failed = self.rng.bool();
        let failed = self.some_failed_agent().filter(|_| is_about_failed);
        let agent = failed.unwrap_or_else(|| self.some_agent());
        let id = self.world.state.agents[&agent].id.to_string();
        let groups: Vec<String> = self.world.observer.accepted.keys().cloned().collect();
        if groups.is_empty() {
            return;
        }
        let group = groups[self.rng.usize(0..groups.len())].clone();
        let length = Duration::from_secs(self.rng.u64(60..3_600));
        let now = self.world.state.now.as_millis();
        let command = match self.rng.u8(0..22) {
            0 => Command::Pause { group },
            1 => Command::Resume { group },
            2 => Command::Abort { group },
            3 | 4 => Command::Retry { target: group },
            5 => Command::Promote { target: group, now: false },
            6 => Command::Promote { target: group, now: true },
            7 => Command::Undo { group, to: None },
            8 => Command::UndoSince {
                since: Timestamp::from_millis(now - u64::try_from(length.as_millis()).expect("short")),
            },
            9 => Command::Pin { target: id, length },
            10 => Command::Pin { target: group, length },
            11 => Command::Unpin { target: id },
            12 => Command::Freeze { group: Some(group) },
            13 => Command::Unfreeze { group: Some(group) },
            14 => Command::Freeze { group: None },
            15 | 16 => Command::Unfreeze { group: None },
            17 => Command::Restart { target: group },
            18 => Command::Restart { target: id },
            19 | 20 => Command::Retry { target: id },
            _ => Command::Promote { target: self.head.id().to_string(), now: false },
        };
        self.order(command);
    }

    /// Everything that a person holds goes on.
    pub(crate) fn let_go(&mut self) {
        for frozen in self.world.observer.frozen.clone() {
            self.order(Command::Unfreeze { group: (!frozen.is_empty()).then_some(frozen) });
        }
        for pinned in self.world.observer.pinned.keys().cloned().collect::<Vec<_>>() {
            let target = self.world.state.agents.get(&pinned).map_or(pinned, |agent| agent.id.to_string());
            self.order(Command::Unpin { target });
        }
        // Those that are left were over by themselves.
        self.world.observer.pinned.clear();
        let state = &self.world.state;
        let status = state.controller.status("test", state.now);
        for commit in &status.commits {
            let waiting = commit.groups.values().flat_map(|group| &group.waiting_on);
            if waiting.into_iter().any(|waiting| waiting.reason == "guard") {
                let (_, target) = commit.revision.split_once("sha1:").expect("a revision names its commit");
                self.order(Command::Promote { target: target.to_owned(), now: false });
            }
        }
        for group in status.groups {
            let waits_for = |reason: &str| group.waiting_on.iter().any(|waiting| waiting.reason == reason);
            let (is_asked, is_paused) = (waits_for("approval"), waits_for("paused"));
            if is_asked {
                self.order(Command::Promote { target: group.name.clone(), now: false });
            }
            if is_paused {
                self.order(Command::Resume { group: group.name });
            }
        }
    }
}
