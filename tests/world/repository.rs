//! A model of the repository: configurations named by letters, groups with their rules, and the revisions made of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gitamp::config::{ConfigHash, RenderedConfig};
use gitamp::controller::Revision;
use gitamp::fleet::Policy;
use gitamp::fleet::diagnostic::Diagnostic;
use gitamp::fleet::snapshot::{CommitId, CommitInfo, RolloutTrailer};
use gitamp::fleet::strategy::{Amount, Expect, OnFailure, OnNewCommit, Stage, Strategy};
use gitamp::fleet::{GroupDefinition, GroupName, RenderedFleet, RenderedGroup};
use gitamp::labels::{Labels, Operator, Requirement, Selector};
use gitamp::time::Timestamp;
use gitamp::yaml;

/// The configuration of this name, rendered as the fleet would; once, because stories ask for the same ones over and over.
pub fn config(name: &str) -> RenderedConfig {
    static KNOWN: Mutex<BTreeMap<String, RenderedConfig>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().expect("no other thread panicked in here");
    known.entry(name.to_owned()).or_insert_with(|| render(name)).clone()
}

fn render(name: &str) -> RenderedConfig {
    let text = format!(
        "receivers:\n  otlp:\nexporters:\n  debug/{name}:\nservice:\n  pipelines:\n    traces:\n      \
         receivers: [otlp]\n      exporters: [debug/{name}]\n"
    );
    let file: Arc<str> = "model.yaml".into();
    let node = yaml::parse(&file, text.as_bytes(), &yaml::Limits::default());
    let node = node.expect("the model's configuration is valid").expect("it is not empty");
    let body = Bytes::from(yaml::emit(&node));
    RenderedConfig::new(yaml::config_hash(&node), body, yaml::component_names(&node))
}

/// The hash of the configuration of this name.
pub fn hash(name: &str) -> ConfigHash {
    config(name).hash()
}

/// `a=1,b=2`.
pub fn labels(text: &str) -> Labels {
    Labels::new(
        text.split(',').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())),
    )
}

/// `a=1,b=2` as a selector; `*` selects everybody.
pub fn selector(text: &str) -> Selector {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let requirement = |(key, value): (&str, &str)| {
        let values = value.split('|').map(str::to_owned).collect();
        Requirement::new(key, Operator::In, values).expect("a valid requirement")
    };
    Selector::new(pairs.map(requirement).collect())
}

/// A group of a revision.
#[derive(Clone, Debug)]
pub struct ModelGroup {
    /// Its definition.
    pub definition: GroupDefinition,
    /// The name of its configuration.
    pub config: String,
    /// True when its files are broken.
    pub rejected: bool,
}

impl ModelGroup {
    /// A group with the default rules.
    pub fn new(selector: Selector, config: &str) -> Self {
        let definition = GroupDefinition {
            selector,
            priority: 0,
            variant_of: None,
            suspend: false,
            expect: None,
            strategy: Strategy::default(),
        };
        Self { definition, config: config.to_owned(), rejected: false }
    }

    /// Takes one word of a script: `maxUnavailable=20%`, `suspend`.
    pub fn set(&mut self, word: &str) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let length = || gitamp::time::parse_duration(value).unwrap_or_else(|error| panic!("{word}: {error}"));
        let strategy = &mut self.definition.strategy;
        match key {
            "config" => value.clone_into(&mut self.config),
            "selector" => {
                self.definition.selector = selector(word.split_once('=').map_or("", |(_, selector)| selector));
            }
            "priority" => self.definition.priority = value.parse().expect("a number"),
            "suspend" => self.definition.suspend = true,
            "rejected" => self.rejected = true,
            "expect" => {
                let (min, max) = value.split_once("..").expect("expect=2..5");
                self.definition.expect = Some(Expect { min: min.parse().ok(), max: max.parse().ok() });
            }
            "soak" => strategy.stages[0].soak = length(),
            "bake" => strategy.bake = length(),
            "deadline" => strategy.progress_deadline = length(),
            "stages" if value == "default" => {
                strategy.stages = stages("canary:1%:5m,early:10%:5m,half:50%:5m,all:100%:5m");
                strategy.bake = Duration::from_secs(600);
            }
            "stages" => strategy.stages = stages(word.split_once('=').map_or("", |(_, stages)| stages)),
            "spreadBy" => strategy.spread_by = value.split(',').map(str::to_owned).collect(),
            "dependsOn" => strategy.depends_on = value.split(',').map(GroupName::new).collect(),
            "window" => {
                let windows = value.split(';').map(|window| window.replace('_', " ").parse());
                strategy.windows = windows.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{word}: {error}"));
            }
            "maxUnavailable" => strategy.max_unavailable = amount(value),
            "maxFailures" => strategy.max_failures = Some(amount(value)),
            "pause" => strategy.on_failure = OnFailure::Pause,
            "finish" => strategy.on_new_commit = OnNewCommit::Finish,
            _ => panic!("a group has no `{word}`"),
        }
    }
}

/// `canary:1:5m,ring=early:10m:approval,half:50%:5m:max=2%,all:100%`: a name and who is in (a number, a share, or the labels
/// `key=value` of those who are), how long it is watched, and what else holds.
pub fn stages(text: &str) -> Vec<Stage> {
    let stage = |text: &str| {
        let mut parts = text.split(':');
        let mut stage = Stage {
            name: parts.next().expect("a name").to_owned(),
            agents: None,
            selector: None,
            soak: Duration::ZERO,
            needs_approval: false,
            max_failures: None,
        };
        match parts.next().expect("an amount or labels") {
            labels if labels.contains('=') => stage.selector = Some(selector(&labels.replace('+', ","))),
            number => stage.agents = Some(amount(number)),
        }
        for part in parts {
            match part.split_once('=') {
                Some(("max", value)) => stage.max_failures = Some(amount(value)),
                None if part == "approval" => stage.needs_approval = true,
                Some(_) | None => stage.soak = gitamp::time::parse_duration(part).expect("a soak"),
            }
        }
        stage
    };
    text.split(',').map(stage).collect()
}

/// `20%` or `3`.
pub fn amount(text: &str) -> Amount {
    match text.strip_suffix('%') {
        Some(share) => Amount::Share(share.parse::<u16>().expect("a percentage") * 100),
        None => Amount::Count(text.parse().expect("a count")),
    }
}

/// One commit: all groups, as they are in it.
#[derive(Clone, Debug)]
pub struct ModelCommit {
    /// Its number makes its id.
    pub number: u64,
    /// The first line of its message.
    pub subject: String,
    /// All groups.
    pub groups: BTreeMap<String, ModelGroup>,
    /// Why the whole commit is refused.
    pub refused: Option<String>,
    /// A force push.
    pub rewritten: bool,
    /// `Gitamp-Rollout` in its message.
    pub trailer: Option<RolloutTrailer>,
    /// `fleet.yaml`, and by what it is judged itself, in the words of the file; guards of moves are off unless it sets them.
    pub policy: ModelPolicy,
}

/// What a `fleet.yaml` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPolicy {
    /// `maxUnavailable`.
    pub max_unavailable: Option<String>,
    /// `guards.maxChangedGroups`.
    pub max_changed_groups: Option<String>,
    /// `guards.maxMovedAgents`.
    pub max_moved_agents: Option<String>,
    /// `allowFast`.
    pub allow_fast: Option<String>,
}

impl ModelPolicy {
    /// The file. Stories move whole groups about; what a guard does with that is told where it is meant.
    pub fn file(&self) -> String {
        let mut text = "apiVersion: gitamp/v1\nkind: Fleet\nguards:\n".to_owned();
        let moved = self.max_moved_agents.as_deref().unwrap_or("100%");
        text.push_str(&format!("  maxMovedAgents: {moved}\n"));
        for (key, value) in
            [("  maxChangedGroups", &self.max_changed_groups), ("maxUnavailable", &self.max_unavailable)]
        {
            text.extend(value.iter().map(|value| format!("{key}: {value}\n")));
        }
        text.extend(self.allow_fast.iter().map(|path| format!("allowFast: [\"{path}\"]\n")));
        text
    }

    /// The same, read.
    pub fn read(&self) -> Policy {
        policy(&self.file())
    }
}

/// A `fleet.yaml`, read; once, as configurations are.
pub fn policy(text: &str) -> Policy {
    static KNOWN: Mutex<BTreeMap<String, Policy>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().expect("no other thread panicked in here");
    if let Some(policy) = known.get(text) {
        return policy.clone();
    }
    let (policy, findings) = Policy::read(&"fleet.yaml".into(), text.as_bytes());
    assert!(findings.is_empty(), "the model's policy is wrong: {findings:?}");
    known.entry(text.to_owned()).or_insert(policy).clone()
}

impl ModelCommit {
    /// A commit that says nothing yet.
    pub fn new(number: u64, subject: &str) -> Self {
        Self {
            number,
            subject: subject.to_owned(),
            groups: BTreeMap::new(),
            refused: None,
            rewritten: false,
            trailer: None,
            policy: ModelPolicy::default(),
        }
    }

    /// Its id.
    pub fn id(&self) -> CommitId {
        let mut bytes = [0xc0; 20];
        // Their short forms differ as well.
        bytes[..2].copy_from_slice(&u16::try_from(self.number).expect("few commits").to_be_bytes());
        CommitId(bytes)
    }

    /// What Git knows of it.
    pub fn info(&self) -> CommitInfo {
        CommitInfo {
            id: self.id(),
            reference: "main".to_owned(),
            committer: "Ada <ada@example.com>".to_owned(),
            author: "Ada <ada@example.com>".to_owned(),
            subject: self.subject.clone(),
            time: Timestamp::from_millis(1_000 * self.number),
            trailer: self.trailer.clone(),
        }
    }

    /// Read and rendered.
    pub fn revision(&self) -> Revision {
        let mut diagnostics = Vec::new();
        if let Some(reason) = &self.refused {
            diagnostics.push(Diagnostic::error("model", None, reason.clone()));
        }
        let mut groups = BTreeMap::new();
        for (name, group) in &self.groups {
            let name = GroupName::new(name.as_str());
            if group.rejected {
                diagnostics.push(Diagnostic::error("model", None, "its files are broken").of(&name));
            }
            let rendered = RenderedGroup {
                definition: Some(Arc::new(group.definition.clone())),
                config: (!group.rejected).then(|| config(&group.config)),
                layers: Arc::default(),
            };
            groups.insert(name, rendered);
        }
        let policy = Some(Bytes::from(self.policy.file()));
        let judged_by = Arc::new(self.policy.read());
        let fleet = RenderedFleet { groups, diagnostics, policy, judged_by };
        Revision { info: self.info(), rewritten: Some(self.rewritten), fleet }
    }
}

/// The default deadline.
pub const DEADLINE: Duration = Duration::from_secs(600);
