//! What the journal keeps for a successor with an empty disk, as YAML: one file a group, and one for the fleet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::ConfigHash;
use crate::fleet::snapshot::{CommitId, CommitInfo, RolloutTrailer};
use crate::fleet::strategy::{Amount, Expect, OnFailure, OnNewCommit, Stage, Strategy};
use crate::fleet::{GroupDefinition, GroupName, NotAWindow, Window};
use crate::labels::{Operator, Requirement, Selector};
use crate::rollout::record::{GroupRecord, Pin, Said};
use crate::time::Timestamp;
use crate::view::CommitReport;
use crate::view::command::Order;

/// The form of the records. A successor that finds a newer one refuses to guess.
pub const VERSION: u32 = 1;

/// A record that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is no YAML of the expected shape.
    #[error("it cannot be read: {0}")]
    Shape(#[from] serde_yaml::Error),
    /// It cannot be written as YAML.
    #[error("it cannot be written: {0}")]
    Unwritable(#[source] serde_yaml::Error),
    /// A newer gitamp wrote it.
    #[error("it has version {0}, this gitamp knows {VERSION}: use the newer one again")]
    Version(u32),
    /// A value in it makes no sense.
    #[error("{0}")]
    Value(String),
}

/// The fleet's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetFile {
    /// [`VERSION`].
    pub version: u32,
    /// The accepted commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitFile>,
    /// The commit that was refused last, so that it is told once and not after each restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Its `fleet.yaml`: the policy that the next revision is judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// A person stopped every offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<Said>,
    /// Agents that keep what they have for a while.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<String, Pin>,
    /// Groups that the accepted commit rejects: who depends on them waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<String>,
    /// The held commit that a person let go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<String>,
    /// Who belonged where before commits moved agents, for those that were not connected then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generations: Option<GenerationsFile>,
    /// The same in the form of earlier releases; read only.
    #[serde(default, skip_serializing)]
    pub earlier: Option<EarlierFile>,
    /// The agents that belonged to no group ([`crate::roster::known::Known`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outsiders: Option<String>,
}

/// Who belonged where before commits changed that, commit by commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationsFile {
    /// When the newest commit was taken that was forgotten before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evicted: Option<Timestamp>,
    /// What each commit replaced, the oldest first.
    pub generations: Vec<GenerationFile>,
}

/// What one commit replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationFile {
    /// When.
    pub since: Timestamp,
    /// What its groups said before; `null`: they were not there.
    pub groups: BTreeMap<String, Option<BelongingFile>>,
}

/// Who belonged where before commits changed that, as one generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierFile {
    /// When a commit last did.
    pub since: Timestamp,
    /// What such groups said before; `null`: they were not there.
    pub groups: BTreeMap<String, Option<BelongingFile>>,
}

/// Who belongs to a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BelongingFile {
    selector: Vec<RequirementFile>,
    #[serde(default)]
    priority: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant_of: Option<(String, u32)>,
}

fn variant_file(variant_of: Option<&(GroupName, u32)>) -> Option<(String, u32)> {
    variant_of.map(|(base, index)| (base.to_string(), *index))
}

fn variant(file: Option<(String, u32)>) -> Option<(GroupName, u32)> {
    file.map(|(base, index)| (GroupName::new(base), index))
}

impl From<&GroupDefinition> for BelongingFile {
    fn from(definition: &GroupDefinition) -> Self {
        Self {
            selector: selector_file(&definition.selector),
            priority: definition.priority,
            variant_of: variant_file(definition.variant_of.as_ref()),
        }
    }
}

impl TryFrom<BelongingFile> for GroupDefinition {
    type Error = RecordError;

    /// What does not say who belongs to it is left at its defaults.
    fn try_from(file: BelongingFile) -> Result<Self, RecordError> {
        Ok(Self {
            selector: selector(file.selector)?,
            priority: file.priority,
            variant_of: variant(file.variant_of),
            suspend: false,
            expect: None,
            strategy: Strategy::default(),
        })
    }
}

/// What operators ordered, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersFile {
    /// The orders.
    pub orders: Vec<OrderEntry>,
    /// What operators did besides: syncs, and how many refusals and syncs were not recorded one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}

/// Something that is no order, and is to be known all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// When.
    pub at: Timestamp,
    /// Who did what.
    pub what: String,
}

/// One order, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderEntry {
    /// What, who, when and why.
    pub order: Order,
    /// The answer: what it did, or why it was refused.
    pub result: String,
}

/// A commit as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitFile {
    id: String,
    reference: String,
    committer: String,
    author: String,
    subject: String,
    time: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trailer: Option<String>,
}

impl From<&CommitInfo> for CommitFile {
    fn from(info: &CommitInfo) -> Self {
        Self {
            id: info.id.to_string(),
            reference: info.reference.clone(),
            committer: info.committer.clone(),
            author: info.author.clone(),
            subject: info.subject.clone(),
            time: info.time,
            trailer: info.trailer.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<CommitFile> for CommitInfo {
    type Error = RecordError;

    fn try_from(file: CommitFile) -> Result<Self, RecordError> {
        let id: CommitId = file.id.parse().map_err(|error| RecordError::Value(format!("`{}`: {error}", file.id)))?;
        Ok(Self {
            id,
            reference: file.reference,
            committer: file.committer,
            author: file.author,
            subject: file.subject,
            time: file.time,
            trailer: file.trailer.as_deref().map(RolloutTrailer::from_value),
        })
    }
}

/// A group's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupFile {
    /// [`VERSION`].
    pub version: u32,
    /// The revision that it was last accepted from.
    pub revision: String,
    /// Its last good definition.
    definition: DefinitionFile,
    /// Its rollouts.
    pub rollouts: GroupRecord,
    /// Agents that failed a configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, FailureFile>,
    /// Agents that were ill before they were offered a candidate since stable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ill_before: Vec<String>,
    /// Agents that a person wants to be offered once more what they failed, and that have not tried yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub to_retry: BTreeMap<String, ConfigHash>,
    /// Agents that a person wants to restart, and that wait for room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarts: Vec<String>,
    /// How many of them were told already.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts_told: usize,
    /// Who was told last, or is as soon as this is stored, and when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub restarting: BTreeMap<String, Timestamp>,
    /// What waits for the end of the running rollout (`onNewCommit: finish`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextFile>,
    /// The layers that its rollout was rendered from, while there is one; earlier releases did not write them down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// Its agents ([`crate::roster::known::Known`]); earlier releases did not write them down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<String>,
}

/// A configuration that waits for the end of the running rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextFile {
    /// Which.
    pub wanted: ConfigHash,
    /// The revision that says so.
    pub revision: String,
    /// True when it moved agents of other groups here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved_in: bool,
    /// Its commit wants it held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Said>,
    /// Its commit wants one stage, and may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fast: bool,
}

/// One failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureFile {
    /// What the agent could not use.
    pub hash: ConfigHash,
    /// Its words.
    pub message: String,
    /// True when it vanished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_absent: bool,
    /// When; the beginning of time when it said nothing about a rollout.
    #[serde(default = "beginning")]
    pub at: Timestamp,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn beginning() -> Timestamp {
    Timestamp::from_millis(0)
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DefinitionFile {
    selector: Vec<RequirementFile>,
    #[serde(default)]
    priority: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant_of: Option<(String, u32)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    suspend: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect_min: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect_max: Option<u32>,
    stages: Vec<StageFile>,
    bake_ms: u64,
    max_unavailable: AmountFile,
    progress_deadline_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_failures: Option<AmountFile>,
    pause_on_failure: bool,
    finish_on_new_commit: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    spread_by: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    spread_proven: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<String>,
    /// Each in its text form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    windows: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RequirementFile {
    key: String,
    operator: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
    /// Only what a credential gave counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    proven: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StageFile {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agents: Option<AmountFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    selector: Option<Vec<RequirementFile>>,
    soak_ms: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    needs_approval: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_failures: Option<AmountFile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum AmountFile {
    Count(u32),
    HundredthsOfPercent(u16),
}

impl From<Amount> for AmountFile {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Count(count) => Self::Count(count),
            Amount::Share(share) => Self::HundredthsOfPercent(share),
        }
    }
}

impl From<AmountFile> for Amount {
    fn from(file: AmountFile) -> Self {
        match file {
            AmountFile::Count(count) => Self::Count(count),
            AmountFile::HundredthsOfPercent(share) => Self::Share(share.min(10_000)),
        }
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn selector_file(selector: &Selector) -> Vec<RequirementFile> {
    let requirement = |one: &Requirement| RequirementFile {
        key: one.key().to_owned(),
        operator: one.operator().name().to_owned(),
        values: one.values().to_vec(),
        proven: one.demands_proof(),
    };
    selector.requirements().iter().map(requirement).collect()
}

fn selector(file: Vec<RequirementFile>) -> Result<Selector, RecordError> {
    let requirement = |one: RequirementFile| {
        let operator = Operator::ALL.into_iter().find(|operator| operator.name() == one.operator);
        let operator = operator.ok_or_else(|| RecordError::Value(format!("`{}` is no operator", one.operator)))?;
        let read = Requirement::new(&one.key, operator, one.values);
        let read = read.map_err(|error| RecordError::Value(error.to_string()))?;
        Ok(if one.proven { read.demanding_proof() } else { read })
    };
    file.into_iter().map(requirement).collect::<Result<Vec<_>, _>>().map(Selector::new)
}

fn window(text: &str) -> Result<Window, RecordError> {
    text.parse().map_err(|error: NotAWindow| RecordError::Value(error.to_string()))
}

impl From<&GroupDefinition> for DefinitionFile {
    fn from(definition: &GroupDefinition) -> Self {
        let strategy = &definition.strategy;
        let stage = |stage: &Stage| StageFile {
            name: stage.name.clone(),
            agents: stage.agents.map(Into::into),
            selector: stage.selector.as_ref().map(selector_file),
            soak_ms: millis(stage.soak),
            needs_approval: stage.needs_approval,
            max_failures: stage.max_failures.map(Into::into),
        };
        Self {
            selector: selector_file(&definition.selector),
            priority: definition.priority,
            variant_of: variant_file(definition.variant_of.as_ref()),
            suspend: definition.suspend,
            expect_min: definition.expect.and_then(|expect| expect.min),
            expect_max: definition.expect.and_then(|expect| expect.max),
            stages: strategy.stages.iter().map(stage).collect(),
            bake_ms: millis(strategy.bake),
            max_unavailable: strategy.max_unavailable.into(),
            progress_deadline_ms: millis(strategy.progress_deadline),
            max_failures: strategy.max_failures.map(Into::into),
            pause_on_failure: strategy.on_failure == OnFailure::Pause,
            finish_on_new_commit: strategy.on_new_commit == OnNewCommit::Finish,
            spread_by: strategy.spread_by.clone(),
            spread_proven: strategy.spread_proven,
            depends_on: strategy.depends_on.iter().map(ToString::to_string).collect(),
            windows: strategy.windows.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<DefinitionFile> for GroupDefinition {
    type Error = RecordError;

    fn try_from(file: DefinitionFile) -> Result<Self, RecordError> {
        let stage = |stage: StageFile| {
            Ok::<_, RecordError>(Stage {
                name: stage.name,
                agents: stage.agents.map(Into::into),
                selector: stage.selector.map(selector).transpose()?,
                soak: Duration::from_millis(stage.soak_ms),
                needs_approval: stage.needs_approval,
                max_failures: stage.max_failures.map(Into::into),
            })
        };
        let expect = Expect { min: file.expect_min, max: file.expect_max };
        Ok(Self {
            selector: selector(file.selector)?,
            priority: file.priority,
            variant_of: variant(file.variant_of),
            suspend: file.suspend,
            expect: (expect != Expect { min: None, max: None }).then_some(expect),
            strategy: Strategy {
                stages: file.stages.into_iter().map(stage).collect::<Result<_, _>>()?,
                bake: Duration::from_millis(file.bake_ms),
                max_unavailable: file.max_unavailable.into(),
                progress_deadline: Duration::from_millis(file.progress_deadline_ms),
                max_failures: file.max_failures.map(Into::into),
                on_failure: if file.pause_on_failure { OnFailure::Pause } else { OnFailure::Rollback },
                on_new_commit: if file.finish_on_new_commit { OnNewCommit::Finish } else { OnNewCommit::Supersede },
                spread_by: file.spread_by,
                spread_proven: file.spread_proven,
                depends_on: file.depends_on.into_iter().map(GroupName::new).collect(),
                windows: file.windows.iter().map(|text| window(text)).collect::<Result<_, _>>()?,
            },
        })
    }
}

impl GroupFile {
    /// The file of a group.
    pub fn new(revision: &str, definition: &GroupDefinition, rollouts: GroupRecord) -> Self {
        Self {
            version: VERSION,
            revision: revision.to_owned(),
            definition: definition.into(),
            rollouts,
            failures: BTreeMap::new(),
            ill_before: Vec::new(),
            to_retry: BTreeMap::new(),
            restarts: Vec::new(),
            restarts_told: 0,
            restarting: BTreeMap::new(),
            next: None,
            layers: Vec::new(),
            members: None,
        }
    }

    /// The definition in it.
    pub fn definition(&self) -> Result<Arc<GroupDefinition>, RecordError> {
        GroupDefinition::try_from(self.definition.clone()).map(Arc::new)
    }

    /// Reads one, refusing other versions.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let file: Self = serde_yaml::from_slice(bytes)?;
        if file.version == VERSION { Ok(file) } else { Err(RecordError::Version(file.version)) }
    }
}

impl OrdersFile {
    /// Reads one.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(serde_yaml::from_slice(bytes)?)
    }
}

impl FleetFile {
    /// Reads one, refusing other versions.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let file: Self = serde_yaml::from_slice(bytes)?;
        if file.version == VERSION { Ok(file) } else { Err(RecordError::Version(file.version)) }
    }
}

/// Writes a record.
pub(super) fn encode(value: &impl Serialize) -> Result<Bytes, RecordError> {
    serde_yaml::to_string(value).map(Bytes::from).map_err(RecordError::Unwritable)
}

/// Reads the report of a commit.
pub(super) fn read_report(bytes: &[u8]) -> Result<CommitReport, RecordError> {
    Ok(serde_yaml::from_slice(bytes)?)
}
