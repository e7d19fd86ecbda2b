//! A controller that goes on where the journal says the last one was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::agent::AgentId;
use crate::controller::moves::Earlier;
use crate::controller::record::{FleetFile, GroupFile, RecordError};
use crate::controller::storage::{commit_of_file, group_of_file};
use crate::controller::{Content, Controller, GroupState, Next, Options, rules};
use crate::fleet::snapshot::{CommitId, CommitInfo};
use crate::fleet::{GroupName, Policy};
use crate::rollout::{Machine, Plan};
use crate::roster::group::{Assumed, Failure};
use crate::roster::known::Known;
use crate::time::Timestamp;
use crate::view::CommitReport;

impl Controller {
    /// Takes the files below `state/`. What cannot be read is told in the second value and left out; the repository and the
    /// agents' reports then say what to do.
    ///
    /// # Errors
    /// When a newer gitamp wrote them: what this one does not understand it must not replace.
    pub fn restore(
        options: Options,
        files: &BTreeMap<String, Bytes>,
        now: Timestamp,
    ) -> Result<(Self, Vec<String>), RecordError> {
        let mut contents = BTreeMap::new();
        let mut problems = Vec::new();
        for (path, bytes) in files {
            match Content::read(path, bytes) {
                Ok(content) => contents.extend(content.map(|content| (path.clone(), content))),
                Err(newer @ RecordError::Version(_)) => return Err(newer),
                Err(error) => problems.push(format!("{path}: {error}")),
            }
        }
        let (controller, more) = Self::resume(options, &contents, now);
        problems.extend(more);
        Ok((controller, problems))
    }

    /// The same with the files as values, as they were handed out to be stored.
    pub fn resume(options: Options, contents: &BTreeMap<String, Content>, now: Timestamp) -> (Self, Vec<String>) {
        let mut controller = Self::new(options);
        let mut problems = Vec::new();
        for content in contents.values() {
            if let Content::Config(config) = content {
                controller.storage.configs.insert(config.hash());
                controller.configs.insert(config.hash(), config.clone());
            }
        }
        for (path, content) in contents {
            let restored = match content {
                Content::Group(file) => {
                    group_of_file(path).map_or(Ok(()), |name| controller.restore_group(&name, (**file).clone(), now))
                }
                Content::Fleet(file) => controller.restore_fleet((**file).clone(), now),
                Content::Orders(file) => {
                    controller.orders = (**file).clone();
                    Ok(())
                }
                Content::Commit(_) | Content::Config(_) => Ok(()),
            };
            if let Err(error) = restored {
                problems.push(format!("{path}: {error}"));
            }
        }
        controller.restore_commits(contents, now);
        controller.recall_belonging();
        controller.assign(now);
        controller.spread_freeze();
        controller.find_dependents();
        for (id, pin) in controller.pins.clone() {
            controller.roster.set_pin(id, Some(pin.until), now);
        }
        let names: Vec<GroupName> = controller.groups.keys().cloned().collect();
        for name in names {
            controller.refresh_prerequisites(&name);
            if let Some(desired) = controller.groups.get(&name).map(|state| state.machine.desired(now)) {
                controller.publish(&name, desired, now);
            }
        }
        controller.settle(now);
        (controller, problems)
    }

    fn restore_fleet(&mut self, file: FleetFile, now: Timestamp) -> Result<(), RecordError> {
        self.accepted = file.commit.map(CommitInfo::try_from).transpose()?;
        self.policy = file.policy.map(Bytes::from);
        if let Some(bytes) = &self.policy {
            let (policy, _) = Policy::read(&"fleet.yaml".into(), bytes);
            self.roster.set_fleet_budget(policy.max_unavailable);
        }
        self.refused = file.refused.and_then(|id| id.parse().ok());
        self.promoted = file.promoted.and_then(|id| id.parse().ok());
        self.frozen = file.frozen;
        self.rejected = file.rejected.iter().map(|name| GroupName::new(name.as_str())).collect();
        if let Some(known) = file.outsiders.as_deref().and_then(Known::from_text) {
            self.roster.restore_outsiders(known, now + self.options.forget_after);
        }
        self.pins = file.pins.into_iter().filter_map(|(id, pin)| Some((id.parse().ok()?, pin))).collect();
        // Last: where it makes no sense, the orders of people still hold.
        self.earlier = Earlier::read(file.generations, file.earlier)?;
        Ok(())
    }

    fn restore_group(&mut self, name: &GroupName, file: GroupFile, now: Timestamp) -> Result<(), RecordError> {
        let definition = file.definition()?;
        let missing =
            file.rollouts.stables.first().into_iter().chain(file.rollouts.rollout.iter().map(|one| &one.candidate));
        if let Some(hash) = missing.into_iter().find(|hash| !self.configs.contains_key(hash)) {
            return Err(RecordError::Value(format!("the body of {} is missing", hash.short())));
        }
        let mut failures = BTreeMap::new();
        // An id that is none belongs to nobody; the rest of the record is as good as before.
        for (id, failure) in file.failures {
            if let Ok(id) = id.parse() {
                failures.insert(
                    id,
                    Failure {
                        is_absent: failure.is_absent,
                        at: failure.at,
                        ..Failure::new(failure.hash, failure.message.into())
                    },
                );
            }
        }
        let ill: BTreeSet<_> = file.ill_before.iter().filter_map(|id| id.parse().ok()).collect();
        let assumed = Assumed {
            room: file.rollouts.room,
            reach: file.rollouts.reach,
            until: now + definition.strategy.progress_deadline,
            known: file.members.as_deref().and_then(Known::from_text),
            known_until: now + self.options.forget_after,
        };
        let retries = file.to_retry.iter().filter_map(|(id, hash)| Some((id.parse().ok()?, *hash)));
        self.roster.restore_retries(name, retries.collect());
        let restarts = file.restarts.iter().filter_map(|id| id.parse().ok()).collect();
        let recent = file.restarting.iter().filter_map(|(id, at)| Some((id.parse().ok()?, *at)));
        let recent: Vec<(AgentId, Timestamp)> = recent.collect();
        self.roster.restore_restarts(name, restarts, file.restarts_told, &recent, now);
        let next = file.next.and_then(|next| {
            let config = self.configs.get(&next.wanted)?.clone();
            let plan = Plan {
                wanted: next.wanted,
                rules: rules(&definition),
                moved_in: next.moved_in,
                revision: next.revision.clone(),
                hold: next.hold,
                fast: next.fast,
            };
            Some(Next { plan, config, revision: next.revision })
        });
        let machine =
            Machine::restore(file.rollouts, rules(&definition), self.options.observe, self.options.forget_after, now);
        self.roster.restore(name, failures, ill, assumed, machine.desired(now).stable);
        let layers = (!file.layers.is_empty()).then(|| file.layers.into_iter().map(Arc::from).collect());
        let state = GroupState { machine, definition, revision: file.revision, next, timer: None, layers };
        self.groups.insert(name.clone(), state);
        Ok(())
    }

    fn restore_commits(&mut self, contents: &BTreeMap<String, Content>, now: Timestamp) {
        let mut reports: Vec<(CommitId, &Arc<CommitReport>)> = contents
            .iter()
            .filter_map(|(path, content)| {
                let Content::Commit(report) = content else { return None };
                Some((commit_of_file(path)?, report))
            })
            .collect();
        reports.sort_by_key(|(_, report)| report.synced_at);
        for (id, report) in reports {
            self.commits.add(id, (**report).clone(), now);
        }
    }
}
