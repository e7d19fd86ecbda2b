//! What an operator may order, and what is answered: the words that the command line, the admin socket and the journal share.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// An order to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "command")]
pub enum Command {
    /// The group's running rollout offers nothing new until [`Command::Resume`]; rolling back is still possible.
    Pause {
        /// Whose rollout.
        group: String,
    },
    /// Takes back a pause, a hold of a commit's trailer, or an undo.
    Resume {
        /// Whose.
        group: String,
    },
    /// Ends the running rollout and takes its agents back to stable; its configuration counts as failed.
    Abort {
        /// Whose rollout.
        group: String,
    },
    /// Tries once more what failed, was rolled back or was aborted.
    Retry {
        /// Whose rollout.
        group: String,
    },
    /// Approves the stage that waits for approval, or a whole commit that a guard or its own trailer holds.
    Promote {
        /// A group, or a commit (at least seven hex digits).
        target: String,
        /// True: what the rollout waits for now (soak, bake, window, approval) is skipped.
        #[serde(default)]
        now: bool,
    },
    /// Goes back to an earlier stable configuration, whatever the repository says, until a later commit changes the group or
    /// [`Command::Resume`].
    Undo {
        /// Which group.
        group: String,
        /// One of the retained configurations: its hash, or the commit that brought it, from seven hex digits; `None`: the one before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// Undoes every group that changed since.
    UndoSince {
        /// The point in time.
        since: Timestamp,
    },
    /// An agent or a group keeps what it has for so long; only rolling back still reaches it.
    Pin {
        /// An agent's id, or a group.
        target: String,
        /// How long, in milliseconds.
        #[serde(with = "millis")]
        length: Duration,
    },
    /// Ends a pin.
    Unpin {
        /// An agent's id, or a group.
        target: String,
    },
    /// No offer of any kind leaves, rolling back included, until [`Command::Unfreeze`].
    Freeze {
        /// Which group; `None`: the whole fleet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// Ends a freeze.
    Unfreeze {
        /// Which group; `None`: the whole fleet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
}

impl Command {
    /// The subcommand's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Abort { .. } => "abort",
            Self::Retry { .. } => "retry",
            Self::Promote { .. } => "promote",
            Self::Undo { .. } | Self::UndoSince { .. } => "undo",
            Self::Pin { .. } => "pin",
            Self::Unpin { .. } => "unpin",
            Self::Freeze { .. } => "freeze",
            Self::Unfreeze { .. } => "unfreeze",
        }
    }
}

/// A command with who gave it, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// What.
    #[serde(flatten)]
    pub command: Command,
    /// Who, as the operating system or the API says.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What an order would do, or did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Impact {
    /// The groups that it concerns.
    pub groups: Vec<String>,
    /// How many agents it may touch.
    pub agents: usize,
    /// One sentence a group, or one for all.
    pub effects: Vec<String>,
}

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The sentence, with what to do instead.
    pub message: String,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

mod millis {
    //! Durations as whole milliseconds.
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
