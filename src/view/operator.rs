//! Who may command what: three roles, each of which includes the one before, and the question whose commit it is.

use serde::{Deserialize, Serialize};

use crate::view::command::Command;

/// What an operator may do. Each role includes those before it: whoever may let a change through to the whole fleet must also be able to
/// stop it, and nobody can do either without seeing what goes on. The other way round, whoever may stop everything may let nothing through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Every answer that only reads.
    View,
    /// Every command but approvals.
    Operate,
    /// Approvals: letting go on what waits for a person's word.
    Approve,
}

impl Role {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Operate => "operate",
            Self::Approve => "approve",
        }
    }
}

impl Command {
    /// The least role that may give it. A [`Command::Resume`] of what a commit itself holds is an approval as well, which only the state of
    /// the fleet tells.
    pub const fn needs(&self) -> Role {
        match self {
            Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Abort { .. }
            | Self::Retry { .. }
            | Self::Undo { .. }
            | Self::UndoSince { .. }
            | Self::Pin { .. }
            | Self::Unpin { .. }
            | Self::Restart { .. }
            | Self::Freeze { .. }
            | Self::Unfreeze { .. } => Role::Operate,
            Self::Promote { .. } => Role::Approve,
        }
    }
}

/// Somebody who asks or commands, as the daemon knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The name that stands in records.
    pub by: String,
    /// What they may do.
    pub role: Role,
    /// The address by which they are known in commits.
    pub email: Option<String>,
    /// False: what they wrote or committed themselves, somebody else has to approve.
    pub approves_own: bool,
}

impl Operator {
    /// Somebody whom the operating system lets at the daemon's socket, and who may do everything.
    pub fn local(by: impl Into<String>) -> Self {
        Self { by: by.into(), role: Role::Approve, email: None, approves_own: true }
    }

    /// True when this is one of the people, each as `Name <mail>`. Addresses are compared without regard to the case of ASCII letters.
    pub fn is_one_of<'a>(&self, people: impl IntoIterator<Item = &'a str>) -> bool {
        let Some(own) = &self.email else { return false };
        people.into_iter().filter_map(mail_of).any(|mail| mail.eq_ignore_ascii_case(own))
    }
}

/// The address in `Name <mail>`.
fn mail_of(person: &str) -> Option<&str> {
    person.trim_end().strip_suffix('>')?.rsplit_once('<').map(|(_, mail)| mail.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use std::time::Duration;

    #[test]
    fn promoting_alone_is_an_approval() {
        let group = || "a".to_owned();
        let all = [
            (Command::Pause { group: group() }, Role::Operate),
            (Command::Resume { group: group() }, Role::Operate),
            (Command::Abort { group: group() }, Role::Operate),
            (Command::Retry { target: group() }, Role::Operate),
            (Command::Promote { target: group(), now: false }, Role::Approve),
            (Command::Promote { target: group(), now: true }, Role::Approve),
            (Command::Undo { group: group(), to: None }, Role::Operate),
            (Command::UndoSince { since: Timestamp::from_millis(0) }, Role::Operate),
            (Command::Pin { target: group(), length: Duration::from_secs(60) }, Role::Operate),
            (Command::Unpin { target: group() }, Role::Operate),
            (Command::Restart { target: group() }, Role::Operate),
            (Command::Freeze { group: None }, Role::Operate),
            (Command::Unfreeze { group: None }, Role::Operate),
        ];
        for (command, needed) in all {
            assert_eq!(command.needs(), needed, "{command:?}");
            assert!(command.needs() > Role::View, "who only looks commands nothing: {command:?}");
        }
        assert!(Role::Approve > Role::Operate && Role::Operate > Role::View);
    }

    #[test]
    fn people_are_known_by_their_addresses() {
        let ann = |email: Option<&str>| Operator { email: email.map(str::to_owned), ..Operator::local("ann") };
        let known = ann(Some("ann@example.org"));
        for (person, is_her) in [
            ("Ann <ann@example.org>", true),
            ("Somebody <Ann@Example.ORG> ", true),
            ("Ann <x> <ann@example.org>", true),
            ("Ann <ann@example.org.evil>", false),
            ("ann@example.org", false),
            ("ann@example.org <bob@example.org>", false),
            ("", false),
            ("Ann <>", false),
        ] {
            assert_eq!(known.is_one_of([person]), is_her, "{person}");
        }
        assert!(!ann(None).is_one_of(["Ann <ann@example.org>"]));
        assert!(known.is_one_of(["Bob <bob@example.org>", "Ann <ann@example.org>"]));
    }
}
