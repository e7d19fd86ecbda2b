//! Everything of the core joined, driven by chance from a seed, with invariants after each step.
//!
//! A failing seed is printed with the last lines of its story and replays with `GITAMP_SEED=<seed> cargo test --test simulation`.
//! `GITAMP_SEEDS=<count>` runs more of them, `GITAMP_FIRST_SEED=<seed>` begins elsewhere.

mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use gitamp::agent::{AgentId, AgentReport, Capabilities, ConfigStatus, ConnectionId, Transport};
use gitamp::config::ConfigHash;
use gitamp::controller::Options;
use gitamp::controller::record::{FleetFile, GroupFile};
use gitamp::fleet::snapshot::RolloutTrailer;
use gitamp::fleet::strategy::{Amount, OnFailure, OnNewCommit, Strategy};
use gitamp::fleet::{GroupDefinition, GroupName};
use gitamp::labels::Labels;
use gitamp::rollout::record::{Kind, Progress};
use gitamp::roster::standing::Standing;
use gitamp::time::Timestamp;
use gitamp::view::command::Command;
use gitamp::view::{AgentQuery, Phase};

use world::agent::{ModelAgent, Nature};
use world::repository::{self, ModelCommit, ModelGroup};
use world::{Observer, OfferMade, State, World};

/// Seeds of an ordinary run.
const SEEDS: u64 = 70;

/// Configurations that commits choose from: few, so that the same ones come again.
const CONFIGS: [&str; 7] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6"];

/// The longest `progressDeadline` of any group.
const LONGEST_DEADLINE: Duration = Duration::from_secs(600);

/// Lines of a story that are kept.
const STORY: usize = 120;

/// What the invariants need to remember.
#[derive(Default)]
struct Judge {
    /// The groups by the definitions that are accepted now, with what they want.
    accepted: BTreeMap<String, (GroupDefinition, Option<ConfigHash>)>,
    /// What each agent told to have failed, as a member of which group, in which epoch of it.
    failed: BTreeMap<(AgentId, ConfigHash), (String, u64)>,
    /// What each group's agents were last known to be wanted to have, and how often that changed.
    wanted: BTreeMap<String, (Option<ConfigHash>, u64)>,
    /// What was put out last on each connection and not taken back.
    put: BTreeMap<ConnectionId, ConfigHash>,
    files: BTreeMap<String, (Bytes, GroupFile)>,
    story: VecDeque<String>,
    offers: usize,
    /// When this process took over from another one, and the members that this one knew in each group.
    restarted: Option<(Timestamp, BTreeMap<GroupName, BTreeSet<AgentId>>)>,
    /// Members that came too late for the last record: it is only on its way while they are there.
    unrecorded: BTreeMap<GroupName, usize>,
    /// True when a commit changed who belongs where since then.
    is_shaken: bool,
    /// `maxUnavailable` over all groups.
    fleet_budget: Option<Amount>,
    /// Groups that a person froze; the whole fleet under the name of nobody.
    frozen: BTreeSet<String>,
    /// Agents and groups that a person pinned, until when.
    pinned: BTreeMap<String, Timestamp>,
    /// Candidates that tripped a gate, in which epoch of their group.
    tripped: BTreeMap<(String, String), u64>,
    /// Groups in which a person wanted another try.
    retried: BTreeSet<String>,
    /// What whole rollouts proved, by group.
    proven: BTreeSet<(String, String)>,
}

impl Judge {
    fn tell(&mut self, world: &State, line: String) {
        if self.story.len() == STORY {
            self.story.pop_front();
        }
        self.story.push_back(format!("{} {line}", world.now));
    }

    /// The one group that the labels belong to, found as the design says it and not as the code does.
    fn group_of(&self, labels: &Labels) -> Option<&str> {
        let matching = || self.accepted.iter().filter(|(_, (definition, _))| definition.selector.matches(labels));
        let highest = matching().map(|(_, (definition, _))| definition.priority).max()?;
        let mut best = matching().filter(|(_, (definition, _))| definition.priority == highest);
        let (name, _) = best.next()?;
        best.next().is_none().then_some(name)
    }

    fn members<'a>(&'a self, world: &'a State, group: &'a str) -> impl Iterator<Item = (&'a str, &'a ModelAgent)> {
        let belongs = move |agent: &ModelAgent| {
            let labels = agent.told_labels().unwrap_or(&agent.labels);
            self.group_of(labels) == Some(group)
        };
        world.agents.iter().filter(move |(_, agent)| belongs(agent)).map(|(name, agent)| (name.as_str(), agent))
    }

    fn file(&mut self, world: &State, group: &str) -> &GroupFile {
        let path = format!("groups/{group}/@record.yaml");
        let bytes =
            world.files.get(&path).unwrap_or_else(|| panic!("an offer for {group}, of which nothing is stored"));
        if self.files.get(group).is_none_or(|(known, _)| known != bytes) {
            let file = GroupFile::read(bytes).expect("a record reads back");
            self.files.insert(group.to_owned(), (bytes.clone(), file));
        }
        &self.files[group].1
    }

    /// How often the group's wanted hash changed.
    fn epoch(&mut self, world: &State, group: &str) -> u64 {
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
        let (definition, wanted) = self.accepted[&group].clone();
        assert!(!definition.suspend, "{group} is suspended");

        let file = self.file(world, &group).clone();
        let candidate = file.rollouts.rollout.as_ref().map(|rollout| rollout.candidate);
        let stable = file.rollouts.stables.first().copied();
        assert!(
            candidate == Some(hash) || stable == Some(hash),
            "{group}: the stored record allows no such offer to {name}"
        );
        let stored = file.definition().expect("a definition reads back");
        assert!(stored.selector.matches(labels), "{group}: by the stored record {name} does not belong to it");
        assert!(world.files.contains_key(&format!("configs/{hash}.yaml")), "the body of an offer is not stored");
        let is_patient = definition.strategy.on_new_commit == OnNewCommit::Finish;
        let is_undone = file.rollouts.undone.as_ref().is_some_and(|undone| undone.to == hash);
        assert!(
            wanted == Some(hash) || stable == Some(hash) || is_patient || is_undone,
            "{group}: {name} gets what is superseded"
        );

        let told = agent.told_status().expect("it told its status");
        let is_retry = told.status == ConfigStatus::Failed && self.retried.contains(&group);
        assert!(!told.is_about(hash) || is_retry, "{name} holds what it is offered");
        let epoch = self.epoch(world, &group);
        if let Some((failed_in, failed_at)) = self.failed.get(&(agent.id, hash)) {
            let is_still_wanted = *failed_in == group && *failed_at == epoch && self.wanted[&group].0 == Some(hash);
            assert!(!is_still_wanted, "{name} failed what it is offered, and it is still wanted");
        }
        self.check_orders(world, offer, &group);
        self.check_stage(offer, agent, &group);
        let before = self.put.insert(offer.connection, hash);
        assert!(before != Some(hash), "{name} is offered the same twice in a row on one connection");
        self.check_budget(world, name, &group, &definition.strategy);
    }

    /// What a person ordered, and a gate that tripped, hold.
    fn check_orders(&mut self, world: &State, offer: &OfferMade<'_>, group: &str) {
        let (name, hash) = (offer.name, offer.config.hash());
        assert!(
            !self.frozen.contains("") && !self.frozen.contains(group),
            "{group} is frozen, and {name} is offered something"
        );
        let is_pinned = |key: &str| self.pinned.get(key).is_some_and(|until| *until > world.now);
        let goes_back = self.files[group].1.rollouts.stables.contains(&hash);
        assert!(goes_back || !is_pinned(name), "{name} is pinned, and gets something new");
        assert!(goes_back || !is_pinned(group), "{group} is pinned, and {name} gets something new");
        let epoch = self.epoch(world, group);
        let tripped = self.tripped.get(&(group.to_owned(), hash.short()));
        let is_wanted = self.wanted[group].0 == Some(hash);
        assert!(!is_wanted || tripped != Some(&epoch), "{group}: {name} is offered what tripped a gate");
    }

    /// Nobody is offered a candidate before the stage that names it, or drew it, is open by the stored record.
    fn check_stage(&self, offer: &OfferMade<'_>, agent: &ModelAgent, group: &str) {
        let file = &self.files[group].1;
        let Some(rollout) = file.rollouts.rollout.as_ref() else { return };
        let hash = offer.config.hash();
        if rollout.candidate != hash || file.rollouts.stables.first() == Some(&hash) {
            return;
        }
        let stages = file.definition().expect("a definition reads back").strategy.stages.clone();
        let is_everybody = rollout.kind == Kind::Revert || rollout.fast;
        let opened = match rollout.progress {
            Progress::Opening => rollout.stage,
            Progress::Rolling | Progress::Soaking { .. } | Progress::Baking { .. } if is_everybody => stages.len(),
            Progress::Rolling | Progress::Soaking { .. } | Progress::Baking { .. } => rollout.stage + 1,
            Progress::RollingBack { .. } | Progress::Failed { .. } => {
                panic!("{group}: {} is offered a candidate that stopped", offer.name)
            }
        };
        let labels = agent.told_labels();
        let rank = rank(rollout.seed, agent.id);
        let is_named = stages.iter().take(opened).any(|stage| {
            stage.selector.as_ref().is_some_and(|selector| labels.is_some_and(|labels| selector.matches(labels)))
        });
        let is_in = opened >= stages.len() || is_named || rollout.drawn.includes(labels, rank);
        assert!(is_in, "{group}: the stage of {} has not come: {rollout:?}", offer.name);
    }

    /// A rollout is said to have succeeded: everybody who could has what it introduced, and somebody proves it.
    fn check_success(&mut self, world: &State, group: &str, short: &str) {
        let members: Vec<&ModelAgent> =
            self.members(world, group).map(|(_, agent)| agent).filter(|agent| agent.is_eligible()).collect();
        let roster = world.controller.roster();
        let mut proofs = 0;
        for agent in members {
            let Some(member) = roster.agent(agent.id) else { continue };
            let state = agent.told_status().and_then(|state| state.known()).map(|hash| hash.short());
            let has_it = state.as_deref() == Some(short);
            proofs += usize::from(has_it);
            let is_excused =
                matches!(member.verdict.standing, Standing::Held(_) | Standing::Failed | Standing::Pending)
                    || !member.is_heard();
            assert!(
                has_it || is_excused,
                "{group}: {short} succeeded, and an agent has {state:?}: {:?}",
                member.verdict
            );
        }
        assert!(proofs > 0, "{group}: {short} succeeded, and nobody has it");
        self.proven.insert((group.to_owned(), short.to_owned()));
    }

    /// What stands for stable in the journal was proven by a whole rollout.
    fn check_stables(&mut self, world: &State) {
        let names: Vec<String> = self.accepted.keys().cloned().collect();
        for name in names {
            if !world.files.contains_key(&format!("groups/{name}/@record.yaml")) {
                continue;
            }
            let stables = self.file(world, &name).rollouts.stables.clone();
            for stable in stables {
                assert!(
                    self.proven.contains(&(name.clone(), stable.short())),
                    "{name}: {} became stable unproven",
                    stable.short()
                );
            }
        }
    }

    /// After a restart a newcomer may be taken for one who is back, as long as the room of the earlier process is counted: what the
    /// journal knows of single agents does not tell them apart.
    fn newcomers(&self, world: &State, group: &str, strategy: &Strategy) -> usize {
        let Some((at, known)) = &self.restarted else { return 0 };
        let name = GroupName::new(group);
        let now = world.controller.roster().group(&name).filter(|_| world.now < *at + strategy.progress_deadline);
        let is_first = self.files.get(group).is_some_and(|(_, file)| file.rollouts.stables.is_empty());
        if is_first && world.now < *at + strategy.progress_deadline {
            // Before anything is stable nothing that agents hold tells newcomers from those who are back.
            return world.agents.len();
        }
        if self.is_shaken {
            // Who belonged to which group then is known to nobody after a commit that changed it before everybody was back.
            return usize::from(world.now < *at + LONGEST_DEADLINE) * world.agents.len();
        }
        let is_new = |id: &&AgentId| known.get(&name).is_none_or(|members| !members.contains(id));
        let unrecorded = self.unrecorded.get(&name).copied().unwrap_or(0);
        now.map_or(0, |group| group.members.iter().filter(is_new).count() + unrecorded)
    }

    /// Truth against the budget: who was given something and is in the middle of it, wherever it is, and who is known to be ill.
    fn check_budget(&self, world: &State, target: &str, group: &str, strategy: &Strategy) {
        let agent = &world.agents[target];
        let is_counted = agent.counted.is_some_and(|(_, since)| since + strategy.progress_deadline > world.now);
        let is_applying = agent.told_status().is_some_and(|state| state.status == ConfigStatus::Applying);
        if is_counted || is_applying || agent.given.is_some() || agent.told_ill() {
            // It takes no room that is not taken already.
            return;
        }
        let eligible = self.members(world, group).filter(|(_, agent)| agent.is_eligible()).count();
        let limit = strategy.max_unavailable.round_down(eligible).max(1) + self.newcomers(world, group, strategy);
        let roster = world.controller.roster().group(&GroupName::new(group));
        // Failures count against maxFailures instead.
        let has_failed = |agent: &ModelAgent| roster.is_some_and(|group| group.failures.contains_key(&agent.id));
        let is_unavailable = |name: &str, agent: &ModelAgent| {
            let is_busy = agent
                .given
                .is_some_and(|given| !agent.said_goodbye && given.at + strategy.progress_deadline > world.now);
            // Whoever was forgotten meanwhile has to tell again.
            let is_remembered = world.controller.roster().agent(agent.id).is_some_and(|member| member.health.is_some());
            let is_ill = agent.is_eligible() && agent.told_ill() && is_remembered;
            name != target && (is_busy || is_ill) && !has_failed(agent)
        };
        let unavailable: Vec<&str> = self
            .members(world, group)
            .filter(|(name, agent)| is_unavailable(name, agent))
            .map(|(name, _)| name)
            .collect();
        if let Some(amount) = self.fleet_budget {
            let eligible = world
                .agents
                .values()
                .filter(|agent| agent.is_eligible())
                .filter(|agent| self.group_of(agent.told_labels().unwrap_or(&agent.labels)).is_some())
                .count();
            let groups = || self.accepted.iter().map(|(name, (definition, _))| (name, &definition.strategy));
            let slack: usize = groups().map(|(name, strategy)| self.newcomers(world, name, strategy)).sum();
            let limit = amount.round_down(eligible).max(1) + slack;
            let busy = |(name, strategy): (&String, &Strategy)| {
                let roster = world.controller.roster().group(&GroupName::new(name.as_str()));
                self.members(world, name)
                    .filter(|(other, agent)| {
                        let is_busy = agent.given.is_some_and(|given| {
                            !agent.said_goodbye && given.at + strategy.progress_deadline > world.now
                        });
                        let is_remembered =
                            world.controller.roster().agent(agent.id).is_some_and(|member| member.health.is_some());
                        let is_ill = agent.is_eligible() && agent.told_ill() && is_remembered;
                        *other != target
                            && (is_busy || is_ill)
                            && !roster.is_some_and(|group| group.failures.contains_key(&agent.id))
                    })
                    .count()
            };
            let busy: usize = groups().map(busy).sum();
            assert!(
                busy < limit,
                "{target} is one too many in the fleet: {busy} are unavailable, {limit} of {eligible} may be"
            );
        }
        assert!(
            unavailable.len() < limit,
            "{group}: {target} is one too many: {unavailable:?} are unavailable, {limit} of {eligible} may be"
        );
    }
}

impl Observer for Judge {
    fn offer(&mut self, world: &State, offer: &OfferMade<'_>) {
        self.tell(world, format!("offer {} to {}", offer.config.hash().short(), offer.name));
        self.offers += 1;
        self.check_offer(world, offer);
    }

    fn sent(&mut self, world: &State, name: &str, hash: ConfigHash) {
        self.tell(world, format!("{name} is sent {}", hash.short()));
        // What waited in a slot leaves with the poll: it must still be something of the agent's group.
        let agent = &world.agents[name];
        let labels = agent.told_labels().expect("it told its labels");
        let group =
            self.group_of(labels).unwrap_or_else(|| panic!("{name} is sent something and is in no group")).to_owned();
        let rollouts = &self.file(world, &group).rollouts;
        let candidate = rollouts.rollout.iter().map(|rollout| rollout.candidate);
        let is_its = rollouts
            .stables
            .iter()
            .copied()
            .chain(candidate)
            .chain(rollouts.superseded.iter().copied())
            .any(|one| one == hash);
        assert!(is_its, "{name} is sent what is none of {group}");
    }

    fn withdraw(&mut self, world: &State, name: &str) {
        self.tell(world, format!("withdraw from {name}"));
        if let Some(connection) = world.agents[name].connection {
            self.put.remove(&connection);
        }
    }

    fn notice(&mut self, world: &State, text: &str) {
        self.tell(world, text.to_owned());
        let words: Vec<&str> = text.trim_start_matches("! ").splitn(3, ' ').collect();
        let [group, short, what] = words.as_slice() else { return };
        let Some(group) = group.strip_suffix(':') else { return };
        if what.starts_with("is taken back:") || what.starts_with("failed:") {
            let epoch = self.epoch(world, group);
            self.tripped.insert((group.to_owned(), (*short).to_owned()), epoch);
        } else if what.starts_with("succeeded:") {
            self.check_success(world, group, short);
        }
    }

    fn store(&mut self, world: &State, worked: bool) {
        self.tell(world, if worked { "stored".to_owned() } else { "the store failed".to_owned() });
    }

    fn report(&mut self, world: &State, name: &str, report: &AgentReport) {
        let agent = &world.agents[name];
        let config = report.config.as_ref().map(|state| (state.known().map(|hash| hash.short()), state.status));
        let health = report.health.as_ref().map(|health| health.healthy);
        let labels = report.labels.as_ref().map(ToString::to_string);
        self.tell(world, format!("{name} tells config {config:?} well {health:?} labels {labels:?}"));
        if report.labels.is_some()
            && let Some(connection) = agent.connection
        {
            // A session drops what has not left when the agent describes itself anew.
            self.put.remove(&connection);
        }
        let group = self.group_of(agent.told_labels().expect("it told its labels")).map(str::to_owned);
        if let (Some(group), Some(state)) = (group, &report.config)
            && let (ConfigStatus::Failed, Some(hash)) = (state.status, state.known())
            && state.message.as_deref() != Some("Config apply timeout exceeded")
        {
            // A bare apply timeout may turn out to be a late confirmation.
            let epoch = self.epoch(world, &group);
            if self.wanted[&group].0 == Some(hash) {
                self.failed.insert((agent.id, hash), (group, epoch));
            }
        }
        if report.config.as_ref().is_some_and(|state| *state == gitamp::agent::ConfigState::NOTHING)
            && let (Some(connection), Transport::Http) = (agent.connection, agent.transport)
        {
            self.put.remove(&connection);
        }
    }
}

/// The frozen order of a group's agents, written down a second time.
fn rank(seed: ConfigHash, id: AgentId) -> u64 {
    let hash = seed.as_bytes()[..8]
        .iter()
        .chain(id.as_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// One seed's world, and what chance does to it.
struct Story {
    world: World<Judge>,
    rng: fastrand::Rng,
    commits: Vec<ModelCommit>,
    head: ModelCommit,
    /// False after a restart in which the head was not taken again yet.
    is_head_known: bool,
    restarts: usize,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let forget_after = Duration::from_secs(*rng.choice(&[600, 3600, 3600]).expect("a choice"));
        let mut world = World::new(Options { observe: false, forget_after }, rng.u64(..), Judge::default());
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

    fn labels(&mut self) -> Labels {
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

    fn some_agent(&mut self) -> String {
        let index = self.rng.usize(0..self.world.state.agents.len());
        self.world.state.agents.keys().nth(index).expect("an agent").clone()
    }

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
    }

    fn commit(&mut self) {
        let mut next = self.head.clone();
        (next.number, next.refused, next.rewritten) = (self.commits.len() as u64 + 2, None, false);
        match (self.rng.u8(0..12), self.some_group()) {
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

    /// A person orders something, and the judge remembers what must hold from then on.
    fn order(&mut self, command: Command) {
        let (is_freeze, group) = match &command {
            Command::Freeze { group } => (Some(true), group.clone().unwrap_or_default()),
            Command::Unfreeze { group } => (Some(false), group.clone().unwrap_or_default()),
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
        let now = self.world.state.now;
        let before = self.world.observer.frozen.clone();
        let (tripped, failed) = (self.world.observer.tripped.clone(), self.world.observer.failed.clone());
        if is_freeze == Some(false) {
            self.world.observer.frozen.remove(&group);
        }
        if is_freeze.is_none() && !group.is_empty() {
            // A person asked: what failed there may be tried again.
            self.world.observer.tripped.retain(|(name, _), _| *name != group);
            self.world.observer.failed.retain(|_, (name, _)| *name != group);
        }
        let pin =
            if let Command::Pin { target, length } = &command { Some((self.key(target), now + *length)) } else { None };
        let unpin = if let Command::Unpin { target } = &command { Some(self.key(target)) } else { None };
        let retried = if let Command::Retry { target: group } = &command { Some(group.clone()) } else { None };
        self.world.observer.retried.extend(retried.clone());
        if retried.is_some() {
            // The same once more is what was asked for.
            self.world.observer.put.clear();
        }
        let pins = self.world.observer.pinned.clone();
        if let Some(key) = unpin {
            self.world.observer.pinned.remove(&key);
        }
        let words = format!("ORDER {command:?}");
        self.world.observer.tell(&self.world.state, words);
        let is_done = self.world.order(command, "somebody", None).is_ok();
        let judge = &mut self.world.observer;
        match (is_done, is_freeze) {
            (true, Some(true)) => {
                judge.frozen.insert(group);
            }
            (true, Some(false) | None) => {
                judge.pinned.extend(pin);
            }
            (false, _) => {
                (judge.frozen, judge.tripped, judge.failed, judge.pinned) = (before, tripped, failed, pins);
            }
        }
    }

    /// The name by which the judge knows what a pin is about.
    fn key(&self, target: &str) -> String {
        let agent = self.world.state.agents.iter().find(|(_, agent)| agent.id.to_string() == target);
        agent.map_or_else(|| target.to_owned(), |(name, _)| name.clone())
    }

    fn some_order(&mut self) {
        let agent = self.some_agent();
        let id = self.world.state.agents[&agent].id.to_string();
        let groups: Vec<String> = self.world.observer.accepted.keys().cloned().collect();
        if groups.is_empty() {
            return;
        }
        let group = groups[self.rng.usize(0..groups.len())].clone();
        let length = Duration::from_secs(self.rng.u64(60..3_600));
        let now = self.world.state.now.as_millis();
        let command = match self.rng.u8(0..16) {
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
            _ => Command::Unfreeze { group: None },
        };
        if matches!(command, Command::UndoSince { .. }) {
            // A person asked, of whichever group it is.
            (self.world.observer.tripped, self.world.observer.failed) = Default::default();
        }
        self.order(command);
    }

    /// Makes the commit the head, and tells the judge what is accepted from now on.
    fn take(&mut self, commit: ModelCommit) {
        self.commits.push(commit.clone());
        self.head = commit;
        self.take_head();
    }

    fn take_head(&mut self) {
        self.is_head_known = true;
        let head = self.head.clone();
        let summary: Vec<String> = head
            .groups
            .iter()
            .map(|(name, group)| {
                let mark = if group.rejected { "!" } else { "" };
                let (definition, config) = (&group.definition, repository::hash(&group.config).short());
                format!("{name}{mark}[{} ^{}]={config}", definition.selector, definition.priority)
            })
            .collect();
        // A repository without any group looks like an accident.
        let is_empty = head.groups.is_empty() && !self.world.observer.accepted.is_empty();
        let refused = head.refused.is_some() || is_empty;
        self.world
            .observer
            .tell(&self.world.state, format!("commit {} refused={refused} {}", head.number, summary.join(" ")));
        if !refused {
            self.world.observer.fleet_budget = head.policy.read().max_unavailable;
            let judge = &mut self.world.observer;
            for name in judge.accepted.keys().filter(|name| !head.groups.contains_key(*name)) {
                judge.frozen.remove(name);
                judge.pinned.remove(name);
            }
            let accepted = &mut self.world.observer.accepted;
            let selects =
                |name: &String| head.groups.get(name).filter(|group| !group.rejected).map(|group| &group.definition);
            self.world.observer.is_shaken |= accepted.iter().any(|(name, (before, _))| {
                selects(name).is_none_or(|now| (&now.selector, now.priority) != (&before.selector, before.priority))
            });
            let gone = accepted.keys().filter(|name| !head.groups.contains_key(*name));
            for name in gone {
                // A group that comes again is another one.
                self.world.observer.wanted.entry(name.clone()).or_default().1 += 1;
            }
            accepted.retain(|name, _| head.groups.contains_key(name));
            for (name, group) in head.groups.iter().filter(|(_, group)| !group.rejected) {
                let wanted = repository::hash(&group.config);
                if accepted.get(name).is_some_and(|(_, before)| *before != Some(wanted)) {
                    self.world.observer.wanted.entry(name.clone()).or_default().1 += 1;
                }
                accepted.insert(name.clone(), (group.definition.clone(), Some(repository::hash(&group.config))));
            }
        }
        self.world.commit(head.revision());
    }

    fn restart(&mut self) {
        self.restarts += 1;
        let names: Vec<GroupName> =
            self.world.observer.accepted.keys().map(|name| GroupName::new(name.as_str())).collect();
        let roster = self.world.state.controller.roster();
        let members = |name: &GroupName| roster.group(name).map(|group| group.members.clone()).unwrap_or_default();
        let known = names.into_iter().map(|name| (name.clone(), members(&name))).collect();
        self.world.observer.restarted = Some((self.world.state.now, known));
        self.world.observer.unrecorded.clear();
        self.world.observer.tell(&self.world.state, "RESTART".to_owned());
        let problems = self.world.restart();
        assert!(problems.is_empty(), "what was stored cannot be read: {problems:?}");
        let judge = &mut self.world.observer;
        judge.accepted.clear();
        judge.put.clear();
        judge.is_shaken = false;
        (judge.frozen, judge.pinned) = Default::default();
        if let Some(bytes) = self.world.state.files.get("fleet.yaml") {
            let file = FleetFile::read(bytes).expect("a record reads back");
            judge.frozen.extend(file.frozen.map(|_| String::new()));
            for (name, agent) in &self.world.state.agents {
                judge.pinned.extend(file.pins.get(&agent.id.to_string()).map(|pin| (name.clone(), pin.until)));
            }
        }
        for (path, bytes) in &self.world.state.files {
            let Some(name) = path.strip_prefix("groups/").and_then(|rest| rest.strip_suffix("/@record.yaml")) else {
                continue;
            };
            let file = GroupFile::read(bytes).expect("a record reads back");
            let definition = file.definition().expect("a definition reads back");
            judge.accepted.insert(name.to_owned(), ((*definition).clone(), file.rollouts.wanted));
            let stopped =
                file.rollouts.rollout.as_ref().filter(|rollout| {
                    matches!(rollout.progress, Progress::RollingBack { .. } | Progress::Failed { .. })
                });
            let stopped = stopped.map(|rollout| rollout.candidate.short());
            // What was not stored yet is forgotten.
            judge.tripped.retain(|(group, short), _| group != name || Some(short) == stopped.as_ref());
            judge.frozen.extend(file.rollouts.frozen.as_ref().map(|_| name.to_owned()));
            judge.pinned.extend(file.rollouts.pinned.as_ref().map(|pin| (name.to_owned(), pin.until)));
            let known = judge.restarted.as_ref().and_then(|(_, known)| known.get(&GroupName::new(name)));
            let unrecorded = known.map_or(0, |members| members.len().saturating_sub(file.rollouts.reach));
            judge.unrecorded.insert(GroupName::new(name), unrecorded);
        }
        self.is_head_known = false;
    }

    fn connect(&mut self, name: &str) {
        let silence =
            if self.rng.u8(0..5) == 0 { Duration::from_millis(self.rng.u64(1..3_000)) } else { Duration::ZERO };
        self.world.connect(name, Some(silence));
    }

    /// One thing that happens by chance.
    fn happen(&mut self) {
        let name = self.some_agent();
        match self.rng.u8(0..30) {
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
            18 if self.rng.bool() => {
                self.disconnect(&name);
                self.world.change(&name, ModelAgent::wipe);
            }
            19..=21 => {
                self.restart();
                if self.rng.u8(0..3) > 0 {
                    self.take_head();
                }
                if self.rng.bool() {
                    self.everybody(|story, name| story.connect(name));
                }
            }
            22 => self.world.state.weather.store_works = self.rng.u8(0..3) > 0,
            23 | 24 if !self.is_head_known => self.take_head(),
            25..=27 => self.some_order(),
            28 => {
                // What everybody exports to is away, or back.
                let is_well = self.rng.bool();
                self.everybody(|story, name| {
                    if story.rng.u8(0..8) > 0 {
                        story.world.change(name, |agent| agent.is_well = is_well);
                    }
                });
            }
            _ => {}
        }
    }

    fn disconnect(&mut self, name: &str) {
        let goodbye = self.rng.bool();
        let now = if goodbye { "says goodbye" } else { "vanishes" };
        self.world.observer.tell(&self.world.state, format!("{name} {now}"));
        self.world.disconnect(name, goodbye);
    }

    fn everybody(&mut self, mut act: impl FnMut(&mut Self, &str)) {
        let mut names: Vec<String> = self.world.state.agents.keys().cloned().collect();
        self.rng.shuffle(&mut names);
        for name in names {
            act(self, &name);
        }
    }

    /// Chance has its time.
    fn live(&mut self) {
        for _ in 0..self.rng.u8(1..4) {
            self.commit();
        }
        self.everybody(|story, name| {
            if story.rng.u8(0..5) > 0 {
                story.connect(name);
            }
        });
        for _ in 0..self.rng.u16(20..80) {
            let millis = match self.rng.u8(0..8) {
                0 => 0,
                1..=4 => self.rng.u64(1..5_000),
                5 | 6 => self.rng.u64(5_000..60_000),
                _ => self.rng.u64(60_000..900_000),
            };
            self.world.advance(Duration::from_millis(millis));
            self.happen();
            self.check_counts();
            self.world.observer.check_stables(&self.world.state);
        }
    }

    /// The counts of every group are what its members' verdicts add up to.
    fn check_counts(&self) {
        let roster = self.world.state.controller.roster();
        let mut by_group: BTreeMap<&GroupName, [usize; 9]> = BTreeMap::new();
        for (_, member) in roster.agents() {
            let Some(name) = member.placement.group() else { continue };
            let verdict = &member.verdict;
            let is = |standing: Standing| usize::from(verdict.standing == standing && !verdict.outside);
            let held = match verdict.standing {
                Standing::Held(_) => 1,
                Standing::Unplaced
                | Standing::Pending
                | Standing::Offered
                | Standing::Confirmed
                | Standing::Failed
                | Standing::Away
                | Standing::Lost => 0,
            };
            let parts = [
                usize::from(verdict.selected),
                usize::from(verdict.eligible),
                is(Standing::Pending),
                is(Standing::Offered),
                is(Standing::Confirmed),
                held,
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

    /// The repository is quiet, the journal can be written, everybody comes back whenever it dies.
    fn settle(&mut self) {
        self.world.observer.tell(&self.world.state, "QUIET".to_owned());
        self.world.state.weather.store_works = true;
        self.world.state.weather.stores_failing = 0;
        self.world.state.weather.answers_lost = 0;
        self.take_head();
        for _ in 0..80 {
            self.let_go();
            self.everybody(|story, name| story.connect(name));
            self.world.advance(Duration::from_secs(180));
        }
        self.everybody(|story, name| story.connect(name));
        self.world.advance(Duration::from_secs(40));
        self.check_counts();
        let offers = self.world.observer.offers;
        self.world.advance(Duration::from_secs(1800));
        assert_eq!(self.world.observer.offers, offers, "offers are still made when everything has settled");
        self.check_settled();
    }

    /// Everything that a person holds goes on.
    fn let_go(&mut self) {
        self.order(Command::Unfreeze { group: None });
        let groups: Vec<String> = self.world.observer.accepted.keys().cloned().collect();
        for group in groups {
            self.order(Command::Unfreeze { group: Some(group.clone()) });
            self.order(Command::Unpin { target: group.clone() });
            self.order(Command::Promote { target: group.clone(), now: false });
            let state = &self.world.state;
            let status = state.controller.status("test", state.now);
            let is_held = |waiting: &gitamp::view::WaitingOn| waiting.reason == "paused";
            if status.groups.iter().any(|status| status.name == group && status.waiting_on.iter().any(is_held)) {
                self.order(Command::Resume { group });
            }
        }
        for name in self.world.state.agents.keys().cloned().collect::<Vec<_>>() {
            if self.world.observer.pinned.contains_key(&name) {
                let target = self.world.state.agents[&name].id.to_string();
                self.order(Command::Unpin { target });
            }
        }
    }

    fn check_settled(&mut self) {
        let state = &self.world.state;
        let status = state.controller.status("test", state.now);
        for group in &status.groups {
            let reasons: BTreeSet<&str> = group.waiting_on.iter().map(|waiting| waiting.reason.as_str()).collect();
            let is_excused = [
                "no-proof",
                "nobody-eligible",
                "suspended",
                "expect",
                "budget",
                "fleet-budget",
                "no-agents",
                "depends-on",
                "outage",
            ]
            .iter()
            .any(|reason| reasons.contains(reason));
            let is_over = match group.phase {
                Phase::Steady | Phase::Failed | Phase::RolledBack | Phase::Undone | Phase::Unproven => true,
                Phase::Rolling | Phase::RollingBack | Phase::Soaking | Phase::Held => {
                    is_excused || !group.diagnostics.is_empty()
                }
            };
            assert!(
                is_over,
                "{} does not end: {:?} {:?} {:?}",
                group.name, group.phase, group.counts, group.waiting_on
            );
            if group.counts.pending > 0 && !reasons.contains("fleet-budget") {
                let ill = self.world.observer.members(state, &group.name);
                let ill = ill.filter(|(_, agent)| agent.is_eligible() && agent.told_ill()).count();
                let (definition, _) = &self.world.observer.accepted[&group.name];
                let limit = definition.strategy.max_unavailable.round_down(group.counts.eligible).max(1);
                assert!(
                    ill >= limit,
                    "{}: agents wait for no reason: {:?} {:?}",
                    group.name,
                    group.counts,
                    group.waiting_on
                );
            }
        }
        let agents = state.controller.agents(&AgentQuery { limit: Some(1000), ..AgentQuery::default() });
        for agent in &agents.agents {
            let group = status.groups.iter().find(|group| Some(&group.name) == agent.group.as_ref());
            let is_frozen =
                group.is_some_and(|group| group.waiting_on.iter().any(|waiting| waiting.reason == "outage"));
            let is_settled = is_frozen
                || matches!(
                    agent.state.as_str(),
                    "confirmed" | "failed" | "held" | "unmanaged" | "orphaned" | "conflict" | "pending"
                );
            assert!(is_settled, "{} is {} ({:?}) when everything has settled", agent.id, agent.state, agent.reason);
        }
        for commit in &status.commits {
            let waits = commit.groups.values().any(|group| group.ending.is_none());
            let running =
                status.groups.iter().any(|group| matches!(group.phase, Phase::Rolling | Phase::Soaking | Phase::Held));
            assert!(!waits || running, "{} has no ending, and nothing runs: {commit:?}", commit.revision);
        }
    }
}

/// Lives one seed's story to its end. Returns the offers and restarts in it.
fn run(seed: u64) -> Result<(usize, usize), String> {
    let mut story = Story::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        story.live();
        story.settle();
    }));
    match outcome {
        Ok(()) => Ok((story.world.observer.offers, story.restarts)),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            let lines: Vec<String> = story.world.observer.story.into_iter().collect();
            Err(format!("seed {seed}: {}\n{}", words.unwrap_or_default(), lines.join("\n")))
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a person who looks for a bug chooses the seeds")]
fn invariants_hold_in_every_story() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("GITAMP_SEED") {
        Some(seed) => seed..=seed,
        None => {
            let first = number("GITAMP_FIRST_SEED").unwrap_or(1);
            first..=first + number("GITAMP_SEEDS").unwrap_or(SEEDS) - 1
        }
    };
    let (mut offers, mut restarts, mut failed) = (0, 0, Vec::new());
    for seed in seeds.clone() {
        match run(seed) {
            Ok((more_offers, more_restarts)) => (offers, restarts) = (offers + more_offers, restarts + more_restarts),
            Err(story) => failed.push(story),
        }
    }
    println!("{seeds:?}: {offers} offers, {restarts} restarts");
    assert!(
        failed.is_empty(),
        "{} of the seeds fail:\n{}\nThe shortest story:\n{}\nReplay it with GITAMP_SEED",
        failed.len(),
        failed.iter().filter_map(|story| story.lines().next()).take(20).collect::<Vec<_>>().join("\n"),
        failed.iter().min_by_key(|story| story.len()).map_or("", String::as_str)
    );
    assert!(offers > 0, "nothing happened");
}
