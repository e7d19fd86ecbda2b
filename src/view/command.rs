//! What an operator may order, and what is answered: the words that the command line, the admin socket and the journal share.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::view::text::is_invisible;

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
    /// Tries once more what failed, was rolled back or was aborted; or what one agent failed, while the rollout went on.
    Retry {
        /// Whose rollout, or an agent's id; called so for older releases that read the journal.
        #[serde(rename = "group", alias = "target")]
        target: String,
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
    /// An agent, or all of a group in waves of `maxUnavailable`, restarts what it supervises.
    Restart {
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
            Self::Restart { .. } => "restart",
            Self::Freeze { .. } => "freeze",
            Self::Unfreeze { .. } => "unfreeze",
        }
    }

    /// Every name that it holds: of groups, agents, commits, hashes.
    fn names(&self) -> impl Iterator<Item = &str> {
        let (one, other) = match self {
            Self::Pause { group } | Self::Resume { group } | Self::Abort { group } => (Some(group), None),
            Self::Retry { target }
            | Self::Promote { target, now: _ }
            | Self::Pin { target, length: _ }
            | Self::Unpin { target }
            | Self::Restart { target } => (Some(target), None),
            Self::Undo { group, to } => (Some(group), to.as_ref()),
            Self::UndoSince { since: _ } => (None, None),
            Self::Freeze { group } | Self::Unfreeze { group } => (group.as_ref(), None),
        };
        [one, other].into_iter().flatten().map(String::as_str)
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

/// Characters of a reason; it stands in notes, statuses and logs.
pub const LONGEST_REASON: usize = 500;

/// Characters of a name in a command: no path of a group and no id is longer.
const LONGEST_NAME: usize = 1_024;

/// A command with its reason, as an operator's program sends it: who gave it and when is for the daemon to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderRequest {
    /// What.
    #[serde(flatten)]
    pub command: Command,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who became root to give it (`SUDO_USER`). Only root is believed, who may say what it wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_user: Option<String>,
}

/// Characters of a user's name; no system allows more than 32.
const LONGEST_USER: usize = 64;

impl OrderRequest {
    /// To be carried out, for whoever calls.
    pub fn of(command: Command, reason: Option<String>) -> Self {
        Self { command, reason, sudo_user: None }
    }

    /// The same, fit to be shown and recorded: a reason on one line, without characters that steer terminals; an empty one is none.
    ///
    /// # Errors
    /// When the reason or a name is longer than anything that makes sense, or a name holds control characters.
    pub fn checked(self) -> Result<Self, Refusal> {
        let reason = self.reason.as_deref().map(|text| {
            let line: String = text.chars().map(|c| if steers(c) { ' ' } else { c }).collect();
            line.trim().to_owned()
        });
        if reason.as_ref().is_some_and(|reason| reason.chars().count() > LONGEST_REASON) {
            return Err(Refusal::new(format!("the reason is longer than {LONGEST_REASON} characters: say it shorter")));
        }
        for name in self.command.names() {
            if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(steers) {
                return Err(Refusal::new(format!(
                    "a name is empty, longer than {LONGEST_NAME} characters, or holds control characters"
                )));
            }
        }
        let is_name = |user: &String| {
            let is_usual = |c: char| c.is_alphanumeric() || "._-@\\$+".contains(c);
            !user.is_empty() && user.chars().count() <= LONGEST_USER && user.chars().all(is_usual)
        };
        let sudo_user = self.sudo_user.filter(is_name);
        Ok(Self { reason: reason.filter(|reason| !reason.is_empty()), sudo_user, ..self })
    }
}

/// True for what would steer a terminal, or the direction of writing, where it is shown.
fn steers(c: char) -> bool {
    c.is_control() || is_invisible(c)
}

/// What holds when an order was carried out, and its record could not be stored.
pub const NOT_STORED: &str = "its record is not stored yet (see `gitamp status`): what it forbids holds already, what it allows waits for the \
                              record, and all of it is forgotten if the daemon ends before that";

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
    /// Set when the order was carried out and its record is not stored: what holds then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unstored: Option<String>,
}

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The sentence, with what to do instead.
    pub message: String,
    /// True when it is about who asks, not about the state of the fleet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_forbidden: bool,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_forbidden: false }
    }

    /// A refusal of whoever asks.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_forbidden: true }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> OrderRequest {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_words_of_the_interface_stay() {
        let hour = Duration::from_secs(3_600);
        let name = || "prod/a".to_owned();
        for (command, text) in [
            (Command::Pause { group: name() }, r#"{"command":"pause","group":"prod/a"}"#),
            (Command::Promote { target: name(), now: true }, r#"{"command":"promote","target":"prod/a","now":true}"#),
            (Command::Undo { group: name(), to: None }, r#"{"command":"undo","group":"prod/a"}"#),
            (
                Command::UndoSince { since: Timestamp::from_millis(60_000) },
                r#"{"command":"undo-since","since":"1970-01-01T00:01:00Z"}"#,
            ),
            (Command::Pin { target: name(), length: hour }, r#"{"command":"pin","target":"prod/a","length":3600000}"#),
            (Command::Retry { target: name() }, r#"{"command":"retry","group":"prod/a"}"#),
            (Command::Freeze { group: None }, r#"{"command":"freeze"}"#),
        ] {
            assert_eq!(serde_json::to_string(&command).expect("JSON"), text);
            assert_eq!(serde_json::from_str::<Command>(text).expect("a command"), command);
            let request = OrderRequest::of(command, Some("why".to_owned()));
            let written = serde_json::to_string(&request).expect("JSON");
            assert_eq!(read(&written), request, "{written}");
        }
        let other: Command = serde_json::from_str(r#"{"command":"retry","target":"prod/a"}"#).expect("an agent's word");
        assert_eq!(other, Command::Retry { target: name() });
    }

    #[test]
    fn requests_are_made_fit_or_refused() {
        let user = |user: &str| {
            let (command, reason) = (Command::Freeze { group: None }, None);
            OrderRequest { sudo_user: Some(user.to_owned()), ..OrderRequest::of(command, reason) }
                .checked()
                .expect("fit")
                .sudo_user
        };
        assert_eq!(user("ann.b-c_d"), Some("ann.b-c_d".to_owned()));
        for odd in ["", "a b", "a\u{7}", "a)", &"x".repeat(LONGEST_USER + 1)] {
            assert_eq!(user(odd), None, "{odd:?}");
        }
        let with = |reason: &str| OrderRequest::of(Command::Freeze { group: None }, Some(reason.to_owned())).checked();
        assert_eq!(with(" two\nlines \u{1b}[2J").expect("fit").reason.as_deref(), Some("two lines  [2J"));
        assert_eq!(with("ok\u{202e}ko").expect("fit").reason.as_deref(), Some("ok ko"));
        assert_eq!(with(" \n ").expect("fit").reason, None);
        assert_eq!(with(&"é".repeat(LONGEST_REASON)).expect("fit").reason.map(|text| text.chars().count()), Some(500));
        assert!(with(&"x".repeat(LONGEST_REASON + 1)).expect_err("too long").message.contains("500 characters"));
        for name in ["", "a\u{7}", "a\u{202e}b", &"x".repeat(LONGEST_NAME + 1)] {
            let command = Command::Pause { group: name.to_owned() };
            assert!(OrderRequest::of(command, None).checked().is_err(), "{name:?}");
            let command = Command::Undo { group: "a".to_owned(), to: Some(name.to_owned()) };
            assert!(OrderRequest::of(command, None).checked().is_err(), "{name:?}");
        }
    }
}
