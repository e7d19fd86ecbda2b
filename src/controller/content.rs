//! What the journal holds, as values: text is made of them by whoever writes it, and values of text after a restart.
//!
//! Deciding what is to be stored happens in the one loop that everything waits for, writing it out does not have to.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{ConfigHash, RenderedConfig};
use crate::controller::record::{FleetFile, GroupFile, OrdersFile, RecordError, encode, read_report};
use crate::controller::storage::{FLEET_FILE, ORDERS_FILE, commit_file, commit_of_file, group_of_file};
use crate::fleet::snapshot::CommitId;
use crate::view::CommitReport;
use crate::yaml;

/// A file below `state/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A group's record.
    Group(Arc<GroupFile>),
    /// What is known of the fleet as a whole.
    Fleet(Arc<FleetFile>),
    /// What operators ordered.
    Orders(Arc<OrdersFile>),
    /// The report of a commit that the journal still has to do something with.
    Commit(Arc<CommitReport>),
    /// A rendered body.
    Config(RenderedConfig),
}

impl Content {
    /// The file as it stands in the journal.
    ///
    /// # Errors
    /// When it cannot be written as YAML. Nothing that the controller makes is of that kind.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        match self {
            Self::Group(file) => encode(&**file),
            Self::Fleet(file) => encode(&**file),
            Self::Orders(file) => encode(&**file),
            Self::Commit(report) => encode(&**report),
            Self::Config(config) => Ok(config.body().clone()),
        }
    }

    /// The file at `path`, read back; `None` for a path that is none of ours.
    ///
    /// # Errors
    /// When it is not what its path says, or of a newer version.
    pub fn read(path: &str, bytes: &Bytes) -> Result<Option<Self>, RecordError> {
        let within = |folder: &str| path.strip_prefix(folder)?.strip_suffix(".yaml");
        Ok(Some(if path == FLEET_FILE {
            Self::Fleet(Arc::new(FleetFile::read(bytes)?))
        } else if path == ORDERS_FILE {
            Self::Orders(Arc::new(OrdersFile::read(bytes)?))
        } else if group_of_file(path).is_some() {
            Self::Group(Arc::new(GroupFile::read(bytes)?))
        } else if let Some(hash) = within("configs/") {
            Self::Config(read_config(path, hash, bytes)?)
        } else if within("commits/").is_some() {
            let report = commit_of_file(path).and_then(|_| read_report(bytes).ok());
            Self::Commit(Arc::new(report.ok_or_else(|| RecordError::Value("it is no commit's report".to_owned()))?))
        } else {
            return Ok(None);
        }))
    }
}

/// Whatever was rendered can be read again: layers that are merged have more nodes than each of them may have, and settings may have allowed
/// more when it was.
const READABLE: yaml::Limits = yaml::Limits { bytes: 1 << 20, nodes: 1 << 20, depth: 255 };

fn read_config(path: &str, hash: &str, body: &Bytes) -> Result<RenderedConfig, RecordError> {
    let parsed = yaml::parse(&path.into(), body, &READABLE);
    let (Ok(hash), Ok(Some(node))) = (hash.parse::<ConfigHash>(), parsed) else {
        return Err(RecordError::Value("it is no rendered configuration".to_owned()));
    };
    // Whoever may write the ref could put another body under a hash that agents are known to be well with.
    if yaml::config_hash(&node) != hash {
        return Err(RecordError::Value("the body is not the one with this hash".to_owned()));
    }
    Ok(RenderedConfig::new(hash, body.clone(), yaml::component_names(&node)))
}

/// What the journal shall hold, in one commit.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// Names this request.
    pub ticket: u64,
    /// One line for the journal's own history.
    pub message: String,
    /// What the notes of commits say, in full; a note of them is short enough for people.
    pub notes: BTreeMap<CommitId, Arc<CommitReport>>,
    /// Files below `state/`; `None` removes one.
    pub files: BTreeMap<String, Option<Content>>,
}

/// A [`Store`], written out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// One line for the journal's own history.
    pub message: String,
    /// Notes by commit.
    pub notes: BTreeMap<CommitId, String>,
    /// Files below `state/`; `None` removes one.
    pub files: BTreeMap<String, Option<Bytes>>,
}

impl Store {
    /// All of it as text. For large fleets that takes a while.
    ///
    /// # Errors
    /// When something of it cannot be written, see [`Content::encode`]: then nothing of it is to be stored.
    pub fn written(self) -> Result<Written, Unwritten> {
        let Self { ticket: _, message, notes, files } = self;
        let mut texts = BTreeMap::new();
        for (path, content) in files {
            match content.as_ref().map(Content::encode).transpose() {
                Ok(text) => drop(texts.insert(path, text)),
                Err(error) => return Err(Unwritten { path, error }),
            }
        }
        let note = |(id, report): (CommitId, Arc<CommitReport>)| {
            // Nearly every note is what the state holds of the commit as well: it is written out once.
            let kept = texts.get(&commit_file(id)).cloned().flatten().filter(|_| report.is_short());
            let note = kept.map_or_else(|| encode(&report.summarised()), Ok);
            let note = note.map_err(|error| Unwritten { path: commit_file(id), error })?;
            Ok((id, String::from_utf8_lossy(&note).into_owned()))
        };
        let notes = notes.into_iter().map(note).collect::<Result<_, Unwritten>>()?;
        Ok(Written { message, notes, files: texts })
    }
}

/// A file that cannot be written as text.
#[derive(Debug, thiserror::Error)]
#[error("{path}")]
pub struct Unwritten {
    /// Which.
    pub path: String,
    /// Why.
    #[source]
    pub error: RecordError,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers that are merged come to more than one file may have.
    #[test]
    fn a_configuration_of_more_nodes_than_a_file_may_have_is_read_after_a_restart() {
        let most = yaml::Limits::default().nodes;
        let body = Bytes::from(format!("a: [{}]\n", vec!["1"; most * 3 / 2].join(",")));
        let node = yaml::parse(&"x".into(), &body, &READABLE).expect("readable").expect("a document");
        let hash = yaml::config_hash(&node);
        assert!(yaml::parse(&"x".into(), &body, &yaml::Limits::default()).is_err(), "as a file it is refused");
        assert_eq!(read_config("configs/x", &hash.to_string(), &body).expect("the same").hash(), hash);
    }
}
