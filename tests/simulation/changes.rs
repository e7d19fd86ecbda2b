//! Commits by chance: other configurations, rules, members and groups, reverts, and what is refused or held.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gitamp::fleet::GroupName;
use gitamp::fleet::snapshot::RolloutTrailer;
use gitamp::fleet::strategy::{OnFailure, OnNewCommit};

use crate::judge::{Accepted, Coming};
use crate::story::Story;
use crate::world::repository::{self, ModelCommit, ModelGroup};

/// Configurations that commits choose from: few, so that the same ones come again.
pub(crate) const CONFIGS: [&str; 7] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6"];

impl Story {
    fn some_group(&mut self) -> Option<String> {
        let count = self.head.groups.len();
        (count > 0).then(|| self.rng.usize(0..count)).and_then(|index| self.head.groups.keys().nth(index).cloned())
    }

    fn new_group(&mut self) -> ModelGroup {
        let config = CONFIGS[self.rng.usize(0..CONFIGS.len())];
        let mut group = ModelGroup::new(repository::selector("*"), config);
        self.edit_selector(&mut group);
        self.edit_rules(&mut group);
        group
    }

    fn edit_selector(&mut self, group: &mut ModelGroup) {
        let (env, ring) = (self.rng.u8(0..3), self.rng.u8(0..3));
        let text = match self.rng.u8(0..5) {
            0..=2 => format!("env=e{env}"),
            3 => format!("env=e{env},ring=r{ring}"),
            _ => format!("ring=r{ring}|r{}", self.rng.u8(0..3)),
        };
        group.definition.selector = repository::selector(&text);
        group.definition.priority = self.rng.i32(0..3);
    }

    fn edit_rules(&mut self, group: &mut ModelGroup) {
        let rng = &mut self.rng;
        let amount = *rng.choice(&["1", "20%", "34%", "100%", "5"]).expect("a choice");
        let strategy = &mut group.definition.strategy;
        strategy.max_unavailable = repository::amount(amount);
        strategy.max_failures = match rng.u8(0..3) {
            0 => None,
            1 => Some(repository::amount("0")),
            _ => Some(repository::amount("30%")),
        };
        strategy.progress_deadline = Duration::from_secs(*rng.choice(&[60, 300, 600]).expect("a choice"));
        let stages = [
            "all:100%",
            "all:100%:10m",
            "canary:1:30s,all:100%",
            "canary:1:1m,half:50%:30s,all:100%:30s",
            "canary:2:0s,ring:ring=r1:10s,most:70%,all:100%",
            "early:10%:2m:max=1,half:50%:0s:approval,all:100%",
        ];
        strategy.stages = repository::stages(rng.choice(&stages).expect("a choice"));
        strategy.on_failure = if rng.u8(0..4) == 0 { OnFailure::Pause } else { OnFailure::Rollback };
        strategy.spread_by = match rng.u8(0..4) {
            0 => vec!["ring".to_owned()],
            1 => vec!["env".to_owned(), "ring".to_owned()],
            _ => Vec::new(),
        };
        strategy.bake = Duration::from_secs(*rng.choice(&[0, 0, 60]).expect("a choice"));
        strategy.on_new_commit = if rng.u8(0..4) == 0 { OnNewCommit::Finish } else { OnNewCommit::Supersede };
        group.definition.suspend = rng.u8(0..15) == 0;
        group.rejected = rng.u8(0..20) == 0;
        group.definition.expect = None;
        if rng.u8(0..10) == 0 {
            group.set(&format!("expect={}..{}", rng.u8(0..4), rng.u8(4..20)));
        }
        group.definition.strategy.windows.clear();
        if rng.u8(0..8) == 0 {
            let windows = [
                "window=allow_Mon-Sun_09:00-11:00_UTC",
                "window=deny_Mon-Sun_09:30-10:15_UTC",
                "window=allow_Mon-Sun_11:00-12:30_Europe/Berlin;deny_2026-11-21_UTC",
            ];
            group.set(rng.choice(&windows).expect("a choice"));
        }
    }

    /// Another commit.
    pub(crate) fn commit(&mut self) {
        let mut next = self.head.clone();
        (next.number, next.refused, next.rewritten) = (self.commits.len() as u64 + 2, None, false);
        match (self.rng.u8(0..13), self.some_group()) {
            (0..=4, Some(name)) => {
                let config = CONFIGS[self.rng.usize(0..CONFIGS.len())];
                next.groups.get_mut(&name).expect("a group").config = config.to_owned();
                if self.rng.bool() {
                    // Another group in the same commit.
                    let other = self.some_group().expect("a group");
                    next.groups.get_mut(&other).expect("a group").config = config.to_owned();
                }
            }
            (5, Some(name)) => {
                let mut group = next.groups[&name].clone();
                self.edit_rules(&mut group);
                next.groups.insert(name, group);
            }
            (6, Some(name)) => {
                let mut group = next.groups[&name].clone();
                self.edit_selector(&mut group);
                next.groups.insert(name, group);
            }
            (7, Some(name)) => {
                next.groups.remove(&name);
            }
            (8 | 9, Some(_)) if !self.commits.is_empty() => {
                let index = self.rng.usize(0..self.commits.len());
                next.groups = self.commits[index].groups.clone();
                next.rewritten = self.rng.bool();
            }
            (10, Some(_)) => next.refused = Some("fleet.yaml is broken".to_owned()),
            (11, Some(name)) => {
                // Those of one group become those of another.
                let other = self.some_group().expect("a group");
                let selector = next.groups[&name].definition.selector.clone();
                let group = next.groups.get_mut(&other).expect("a group");
                let selector = std::mem::replace(&mut group.definition.selector, selector);
                next.groups.get_mut(&name).expect("a group").definition.selector = selector;
            }
            _ => {
                let group = self.new_group();
                next.groups.insert(format!("g{}", self.rng.u8(0..5)), group);
            }
        }
        next.subject = format!("change {}", next.number);
        next.trailer = match self.rng.u8(0..12) {
            0 => Some(RolloutTrailer::Hold),
            1 => Some(RolloutTrailer::Fast),
            _ => None,
        };
        next.policy.allow_fast = Some("g*".to_owned());
        if self.rng.u8(0..6) == 0 {
            let budget = *self.rng.choice(&["", "1", "3", "30%"]).expect("a choice");
            next.policy.max_unavailable = (!budget.is_empty()).then(|| budget.to_owned());
        }
        (next.policy.max_changed_groups, next.policy.max_moved_agents) = (None, None);
        if self.rng.u8(0..10) == 0 {
            let amount = *self.rng.choice(&["0", "1", "50%"]).expect("a choice");
            next.policy.max_changed_groups = self.rng.bool().then(|| amount.to_owned());
            next.policy.max_moved_agents = Some("10%".to_owned());
        }
        self.edit_dependencies(&mut next);
        self.take(next);
    }

    /// A group may wait for those with lower numbers; a circle, or a group that is not there, would be an error of the commit.
    fn edit_dependencies(&mut self, commit: &mut ModelCommit) {
        let names: Vec<String> = commit.groups.keys().cloned().collect();
        for (index, name) in names.iter().enumerate() {
            let group = commit.groups.get_mut(name).expect("a group");
            let depends_on = &mut group.definition.strategy.depends_on;
            depends_on.retain(|other| names.iter().any(|name| name == other.as_str()));
            if index > 0 && self.rng.u8(0..30) == 0 {
                *depends_on = vec![GroupName::new(names[self.rng.usize(0..index)].as_str())];
            }
        }
    }

    /// Makes the commit the head, and tells the judge what is accepted from now on.
    fn take(&mut self, commit: ModelCommit) {
        self.commits.push(commit.clone());
        self.head = commit;
        self.take_head();
    }

    pub(crate) fn take_head(&mut self) {
        self.is_head_known = true;
        let head = self.head.clone();
        self.world.observer.tell(&self.world.state, || {
            let groups = head.groups.iter().map(|(name, group)| {
                let mark = if group.rejected { "!" } else { "" };
                let (definition, config) = (&group.definition, repository::hash(&group.config).short());
                format!("{name}{mark}[{} ^{}]={config}", definition.selector, definition.priority)
            });
            let groups = groups.collect::<Vec<_>>().join(" ");
            format!("commit {} refused={} {groups}", head.number, head.refused.is_some())
        });
        let mut coming = Coming {
            id: head.id(),
            groups: BTreeMap::new(),
            rejected: BTreeSet::new(),
            fleet_budget: head.policy.read().max_unavailable,
        };
        for (name, group) in &head.groups {
            if group.rejected {
                coming.rejected.insert(name.clone());
                continue;
            }
            let definition = group.definition.clone().into();
            let wanted = Some(repository::hash(&group.config));
            coming.groups.insert(name.clone(), Accepted { definition, wanted });
        }
        self.world.observer.coming = Some(coming);
        self.world.commit(head.revision());
    }
}
