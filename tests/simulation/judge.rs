//! What must hold for every offer, found from what the agents really did and what the journal holds, not from what the product thinks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gitamp::agent::{AgentId, AgentReport, ConfigState, ConfigStatus, ConnectionId, Transport};
use gitamp::config::ConfigHash;
use gitamp::controller::Content;
use gitamp::controller::record::GroupFile;
use gitamp::fleet::snapshot::CommitId;
use gitamp::fleet::strategy::{Amount, OnNewCommit};
use gitamp::fleet::{GroupDefinition, GroupName};
use gitamp::labels::Labels;
use gitamp::rollout::record::RolloutRecord;
use gitamp::time::Timestamp;

use crate::budget::Restarted;
use crate::outcomes::{AgentRetry, Retry, Tries};
use crate::world::agent::ModelAgent;
use crate::world::{Observer, OfferMade, State};

/// A group as the accepted commit has it.
#[derive(Clone)]
pub(crate) struct Accepted {
    pub(crate) definition: Arc<GroupDefinition>,
    pub(crate) wanted: Option<ConfigHash>,
}

/// A group's record as the journal holds it.
pub(crate) struct Stored {
    pub(crate) file: Arc<GroupFile>,
    pub(crate) definition: Arc<GroupDefinition>,
}

impl Stored {
    pub(crate) fn rollout(&self) -> Option<&RolloutRecord> {
        self.file.rollouts.rollout.as_ref()
    }

    pub(crate) fn stable(&self) -> Option<ConfigHash> {
        self.file.rollouts.stables.first().copied()
    }
}

/// A commit that the controller is about to take.
pub(crate) struct Coming {
    pub(crate) id: CommitId,
    pub(crate) groups: BTreeMap<String, Accepted>,
    /// Groups that are there, but not good.
    pub(crate) rejected: BTreeSet<String>,
    pub(crate) fleet_budget: Option<Amount>,
}

/// What the invariants need to remember.
#[derive(Default)]
pub(crate) struct Judge {
    /// The groups by the definitions that are accepted now, with what they want.
    pub(crate) accepted: BTreeMap<String, Accepted>,
    /// What is accepted next, unless it is refused or held.
    pub(crate) coming: Option<Coming>,
    /// What each agent told to have failed, as a member of which group, in which epoch of it.
    pub(crate) failed: BTreeMap<(AgentId, ConfigHash), (String, u64)>,
    /// What each group's agents were last known to be wanted to have, and how often that changed.
    pub(crate) wanted: BTreeMap<String, (Option<ConfigHash>, u64)>,
    /// What was put out last on each connection and not taken back.
    pub(crate) put: BTreeMap<ConnectionId, ConfigHash>,
    pub(crate) files: BTreeMap<String, Arc<Stored>>,
    /// Every line of the story, when somebody will read it.
    pub(crate) story: Option<Vec<String>>,
    pub(crate) offers: usize,
    /// Offers whose budget was judged to the agent.
    pub(crate) exact: usize,
    /// When this process took over from another one, and what that one knew.
    pub(crate) restarted: Option<Restarted>,
    /// `maxUnavailable` over all groups.
    pub(crate) fleet_budget: Option<Amount>,
    /// Groups that a person froze; the whole fleet under the name of nobody.
    pub(crate) frozen: BTreeSet<String>,
    /// Agents and groups that a person pinned, until when.
    pub(crate) pinned: BTreeMap<String, Timestamp>,
    /// Candidates that tripped a gate, in which epoch of their group.
    pub(crate) tripped: BTreeMap<(String, String), u64>,
    /// Candidates whose rollout ended without success, and when that was.
    pub(crate) ended: BTreeMap<(String, String), Timestamp>,
    /// Groups in which a person wanted another try.
    pub(crate) retried: BTreeMap<String, Retry>,
    /// Agents that a person wanted to try again what they failed.
    pub(crate) retried_agents: BTreeMap<AgentId, AgentRetry>,
    /// What each agent last said of itself, to whichever process.
    pub(crate) described: BTreeMap<AgentId, Labels>,
    /// Agents that told this process of their configuration.
    pub(crate) heard: BTreeSet<AgentId>,
    /// Agents that are where they are by what they say of themselves, and not because a commit gave them another group.
    pub(crate) came: BTreeSet<AgentId>,
    /// When a person last skipped a wait in a group.
    pub(crate) hurried: BTreeMap<String, Timestamp>,
    /// When a commit last gave a group other windows.
    pub(crate) windows_changed: BTreeMap<String, Timestamp>,
    /// Who was offered which candidate in which rollout, and who failed it.
    pub(crate) tries: Tries,
    /// What whole rollouts proved, by group.
    pub(crate) proven: BTreeSet<(String, String)>,
    /// When the last stores but one and the last were done: what the next one holds was decided since the first of them.
    pub(crate) stored_at: [Option<Timestamp>; 2],
}

impl Judge {
    pub(crate) fn new(keeps_story: bool) -> Self {
        Self { story: keeps_story.then(Vec::new), ..Self::default() }
    }

    pub(crate) fn tell(&mut self, world: &State, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{} {}", world.now, line()));
        }
    }

    /// The one group that the labels belong to, found as the design says it and not as the code does.
    pub(crate) fn group_of(&self, labels: &Labels) -> Option<&str> {
        let matching = || self.accepted.iter().filter(|(_, group)| group.definition.selector.matches(labels));
        let highest = matching().map(|(_, group)| group.definition.priority).max()?;
        let mut best = matching().filter(|(_, group)| group.definition.priority == highest);
        let (name, _) = best.next()?;
        best.next().is_none().then_some(name)
    }

    /// The group of an agent, by what it told if it did.
    pub(crate) fn home_of(&self, agent: &ModelAgent) -> Option<&str> {
        self.group_of(agent.told_labels().unwrap_or(&agent.labels))
    }

    pub(crate) fn members<'a>(
        &'a self,
        world: &'a State,
        group: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a ModelAgent)> {
        let belongs = move |agent: &ModelAgent| self.home_of(agent) == Some(group);
        world.agents.iter().filter(move |(_, agent)| belongs(agent)).map(|(name, agent)| (name.as_str(), agent))
    }

    pub(crate) fn file(&self, group: &str) -> &Arc<Stored> {
        self.files.get(group).unwrap_or_else(|| panic!("an offer for {group}, of which nothing is stored"))
    }

    /// Reads again what changed in the journal.
    pub(crate) fn read_files(&mut self, world: &State) {
        let mut names = BTreeSet::new();
        for (path, content) in world.files.range("groups/".to_owned().."groups0".to_owned()) {
            let name = path.strip_prefix("groups/").and_then(|rest| rest.strip_suffix("/@record.yaml"));
            let (Some(name), Content::Group(file)) = (name, content) else { panic!("{path} is no record") };
            names.insert(name);
            if self.files.get(name).is_some_and(|known| Arc::ptr_eq(&known.file, file)) {
                continue;
            }
            let definition = file.definition().expect("a definition reads back");
            let stored = Arc::new(Stored { file: file.clone(), definition });
            let before = self.files.insert(name.to_owned(), stored.clone());
            self.check_step(world, name, before.as_deref(), &stored);
            self.check_stables(name, &stored);
        }
        self.files.retain(|name, _| names.contains(name.as_str()));
    }

    /// How often the group's wanted hash changed.
    pub(crate) fn epoch(&mut self, world: &State, group: &str) -> u64 {
        let name = GroupName::new(group);
        let now = world.controller.roster().group(&name).and_then(|group| group.desired.wanted);
        let entry = self.wanted.entry(group.to_owned()).or_default();
        if entry.0 != now {
            *entry = (now, entry.1 + 1);
        }
        entry.1
    }

    /// Everything that must hold for every offer.
    fn check_offer(&mut self, world: &State, offer: &OfferMade<'_>) {
        let (name, hash) = (offer.name, offer.config.hash());
        let agent = &world.agents[name];
        assert!(agent.is_greeted, "{name} was not heard on this connection yet");
        assert!(agent.is_eligible(), "{name} cannot be offered anything");
        let labels = agent.told_labels().expect("it told its labels");
        let group = self.group_of(labels).unwrap_or_else(|| panic!("{name} is in no group, or in several")).to_owned();
        let Accepted { definition, wanted } = self.accepted[&group].clone();
        assert!(!definition.suspend, "{group} is suspended");

        let stored = self.file(&group).clone();
        let (candidate, stable) = (stored.rollout().map(|rollout| rollout.candidate), stored.stable());
        assert!(
            candidate == Some(hash) || stable == Some(hash),
            "{group}: the stored record allows no such offer to {name}"
        );
        assert!(
            stored.definition.selector.matches(labels),
            "{group}: by the stored record {name} does not belong to it"
        );
        assert!(world.files.contains_key(&format!("configs/{hash}.yaml")), "the body of an offer is not stored");
        let is_patient = definition.strategy.on_new_commit == OnNewCommit::Finish;
        let is_undone = stored.file.rollouts.undone.as_ref().is_some_and(|undone| undone.to == hash);
        assert!(
            wanted == Some(hash) || stable == Some(hash) || is_patient || is_undone,
            "{group}: {name} gets what is superseded"
        );

        let told = agent.told_status().expect("it told its status");
        let epoch = self.epoch(world, &group);
        let is_retry = told.status == ConfigStatus::Failed && self.is_first_retry(agent, hash, &group, epoch);
        assert!(!told.is_about(hash) || is_retry, "{name} holds what it is offered");
        if let Some((failed_in, failed_at)) = self.failed.get(&(agent.id, hash)) {
            let is_still_wanted = *failed_in == group && *failed_at == epoch && self.wanted[&group].0 == Some(hash);
            assert!(!is_still_wanted, "{name} failed what it is offered, and it is still wanted");
        }
        self.check_orders(world, name, Some(hash), &group);
        self.check_ended(name, hash, &group, &stored);
        self.check_gate(world, offer, &group, &stored);
        self.check_stage(world, offer, &group, &stored);
        let before = self.put.insert(offer.connection, hash);
        assert!(before != Some(hash), "{name} is offered the same twice in a row on one connection");
        self.exact += usize::from(self.check_budget(world, name, &group, &definition.strategy));
    }

    /// What a person ordered holds. `hash`: what the agent is offered; `None`: it is told to restart.
    pub(crate) fn check_orders(&self, world: &State, name: &str, hash: Option<ConfigHash>, group: &str) {
        assert!(
            !self.frozen.contains("") && !self.frozen.contains(group),
            "{group} is frozen, and {name} is offered something"
        );
        let is_pinned = |key: &str| self.pinned.get(key).is_some_and(|until| *until > world.now);
        let Some(hash) = hash else { return };
        let goes_back = self.file(group).file.rollouts.stables.contains(&hash);
        assert!(goes_back || !is_pinned(name), "{name} is pinned, and gets something new");
        assert!(goes_back || !is_pinned(group), "{group} is pinned, and {name} gets something new");
    }

    /// A rollout that ended goes on for nobody, whatever the journal still says of it.
    fn check_ended(&self, name: &str, hash: ConfigHash, group: &str, stored: &Stored) {
        let Some(rollout) = stored.rollout().filter(|rollout| rollout.candidate == hash) else { return };
        // The journal tells times to the second.
        let is_over = |ended: &Timestamp| rollout.started + Duration::from_secs(1) <= *ended;
        let has_ended = self.ended.get(&(group.to_owned(), hash.short())).is_some_and(is_over);
        assert!(
            !has_ended || stored.stable() == Some(hash),
            "{group}: {name} is offered {}, whose rollout has ended",
            hash.short()
        );
    }

    /// Where each agent belongs that ever said what it is.
    fn homes(&self) -> BTreeMap<AgentId, Option<String>> {
        let home = |labels| self.group_of(labels).map(str::to_owned);
        self.described.iter().map(|(id, labels)| (*id, home(labels))).collect()
    }

    /// The accepted commit is another one from now on.
    fn accept(&mut self, coming: Coming, now: Timestamp) {
        let before = self.homes();
        self.take_groups(coming, now);
        let after = self.homes();
        self.came.retain(|id| before.get(id) == after.get(id));
    }

    fn take_groups(&mut self, coming: Coming, now: Timestamp) {
        self.fleet_budget = coming.fleet_budget;
        let is_there = |name: &String| coming.groups.contains_key(name) || coming.rejected.contains(name);
        for name in self.accepted.keys().filter(|name| !is_there(name)) {
            if let Some(restarted) = &mut self.restarted {
                restarted.population.remove(name);
            }
            self.frozen.remove(name);
            self.pinned.remove(name);
            // A group that comes again is another one.
            self.wanted.entry(name.clone()).or_default().1 += 1;
        }
        let form = |group: &Accepted| (group.definition.selector.clone(), group.definition.priority);
        let is_moved =
            |(name, before): (&String, &Accepted)| coming.groups.get(name).is_none_or(|now| form(now) != form(before));
        if let Some(restarted) = &mut self.restarted {
            restarted.is_shaken |= self.accepted.iter().any(is_moved);
        }
        self.accepted.retain(|name, _| coming.groups.contains_key(name) || coming.rejected.contains(name));
        for (name, group) in coming.groups {
            let windows = |group: &Accepted| group.definition.strategy.windows.clone();
            if self.accepted.get(&name).is_some_and(|before| windows(before) != windows(&group)) {
                self.windows_changed.insert(name.clone(), now);
            }
            if self.accepted.get(&name).is_some_and(|before| before.wanted != group.wanted) {
                self.wanted.entry(name.clone()).or_default().1 += 1;
            }
            self.accepted.insert(name, group);
        }
    }
}

impl Observer for Judge {
    fn offer(&mut self, world: &State, offer: &OfferMade<'_>) {
        self.tell(world, || format!("offer {} to {}", offer.config.hash().short(), offer.name));
        self.offers += 1;
        self.check_offer(world, offer);
    }

    fn sent(&mut self, world: &State, name: &str, hash: ConfigHash) {
        self.tell(world, || format!("{name} is sent {}", hash.short()));
        // What waited in a slot leaves with the poll: it must still be something of the agent's group.
        let agent = &world.agents[name];
        let labels = agent.told_labels().expect("it told its labels");
        let group =
            self.group_of(labels).unwrap_or_else(|| panic!("{name} is sent something and is in no group")).to_owned();
        let rollouts = &self.file(&group).file.rollouts;
        let candidate = rollouts.rollout.iter().map(|rollout| rollout.candidate);
        let mut its = rollouts.stables.iter().copied().chain(candidate).chain(rollouts.superseded.iter().copied());
        assert!(its.any(|one| one == hash), "{name} is sent what is none of {group}");
    }

    fn withdraw(&mut self, world: &State, name: &str) {
        self.tell(world, || format!("withdraw from {name}"));
        if let Some(connection) = world.agents[name].connection {
            self.put.remove(&connection);
        }
    }

    fn told_to_restart(&mut self, world: &State, name: &str) {
        self.tell(world, || format!("{name} is told to restart"));
        let agent = &world.agents[name];
        let group = self.home_of(agent).unwrap_or_else(|| panic!("{name} is told to restart and is in no group"));
        let (group, definition) = (group.to_owned(), self.accepted[group].definition.clone());
        assert!(!definition.suspend, "{group} is suspended");
        self.check_orders(world, name, None, &group);
        let _is_exact = self.check_budget(world, name, &group, &definition.strategy);
    }

    fn notice(&mut self, world: &State, text: &str) {
        self.tell(world, || text.to_owned());
        let words: Vec<&str> = text.trim_start_matches("! ").splitn(3, ' ').collect();
        let [group, short, what] = words.as_slice() else { return };
        let Some(group) = group.strip_suffix(':') else { return };
        let is_stopped = what.starts_with("is taken back:") || what.starts_with("failed:");
        if is_stopped || what.starts_with("superseded:") {
            self.ended.insert((group.to_owned(), (*short).to_owned()), world.now);
        }
        if is_stopped {
            let epoch = self.epoch(world, group);
            self.tripped.insert((group.to_owned(), (*short).to_owned()), epoch);
        } else if what.starts_with("succeeded:") {
            self.check_success(world, group, short);
        }
    }

    fn decided(&mut self, world: &State) {
        let accepted = world.controller.accepted().map(|commit| commit.id);
        if let Some(coming) = self.coming.take_if(|coming| accepted == Some(coming.id)) {
            self.accept(coming, world.now);
        }
    }

    fn store(&mut self, world: &State, worked: bool) {
        self.tell(world, || if worked { "stored".to_owned() } else { "the store failed".to_owned() });
        self.read_files(world);
        if worked {
            self.stored_at = [self.stored_at[1], Some(world.now)];
        }
    }

    fn restored(&mut self, world: &State) {
        self.recall(world);
    }

    fn stood_still(&mut self, world: &State, length: Duration) {
        self.tell(world, || format!("STOOD STILL for {} s", length.as_secs()));
        if let Some(restarted) = &mut self.restarted {
            // What the earlier process may have left behind is assumed for so much longer, and a bit.
            restarted.at = restarted.at + length + Duration::from_secs(60);
        }
    }

    fn report(&mut self, world: &State, name: &str, report: &AgentReport) {
        let agent = &world.agents[name];
        self.tell(world, || {
            let config = report.config.as_ref().map(|state| (state.known().map(|hash| hash.short()), state.status));
            let health = report.health.as_ref().map(|health| health.healthy);
            let labels = report.labels.as_ref().map(ToString::to_string);
            format!("{name} tells config {config:?} well {health:?} labels {labels:?}")
        });
        if let Some(labels) = &report.labels
            && self.described.insert(agent.id, labels.clone()).as_ref() != Some(labels)
        {
            self.came.insert(agent.id);
            self.tries.forget_places(agent.id);
        }
        if report.labels.is_some()
            && let Some(connection) = agent.connection
        {
            // A session drops what has not left when the agent describes itself anew; where it belongs is found anew, too.
            self.put.remove(&connection);
        }
        if let Some(state) = &report.config {
            self.take_outcome(world, agent, state);
            self.heard.insert(agent.id);
        }
        if report.config.as_ref().is_some_and(|state| *state == ConfigState::NOTHING)
            && let (Some(connection), Transport::Http) = (agent.connection, agent.transport)
        {
            self.put.remove(&connection);
        }
    }
}
