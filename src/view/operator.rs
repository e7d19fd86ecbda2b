//! Who may command what: three roles, each of which includes the one before, and the question whose commit it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fleet::snapshot::CommitId;
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
    /// The role that is written so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::View, Self::Operate, Self::Approve].into_iter().find(|role| role.name() == name)
    }

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

/// What somebody tried who is none of ours, or not who they say. The journal tells of it, within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// To command, without a proof of who they are, or in words that are no command.
    Command,
    /// To be another agent.
    Identity,
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

    /// True when one of these addresses is this one's. They are compared without regard to the case of ASCII letters.
    pub fn is_one_of<'a>(&self, mails: impl IntoIterator<Item = &'a str>) -> bool {
        let Some(own) = &self.email else { return false };
        mails.into_iter().any(|mail| mail.eq_ignore_ascii_case(own))
    }
}

/// Commits whose authors have to be known before somebody may approve what they bring.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// What is known already, with all that leads to it; `None`: nothing is.
    pub since: Option<CommitId>,
    /// The newest one. Whose it is counts whatever it touches.
    pub head: CommitId,
    /// Only commits that touch one of these paths below the fleet root count: files, or directories with all below them. Empty: everything.
    pub paths: Vec<Arc<str>>,
}

/// The addresses of whoever wrote or committed the commits of ranges, or why they are not known.
pub type Authors = BTreeMap<Range, Result<BTreeSet<String>, String>>;

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
        for role in [Role::View, Role::Operate, Role::Approve] {
            assert_eq!(Role::named(role.name()), Some(role));
        }
        assert_eq!((Role::named("Approve"), Role::named("")), (None, None));
    }

    #[test]
    fn people_are_known_by_their_addresses() {
        let ann = |email: Option<&str>| Operator { email: email.map(str::to_owned), ..Operator::local("ann") };
        let known = ann(Some("ann@example.org"));
        for (mail, is_her) in [
            ("ann@example.org", true),
            ("Ann@Example.ORG", true),
            ("ann@example.org.evil", false),
            ("", false),
            ("ann", false),
        ] {
            assert_eq!(known.is_one_of([mail]), is_her, "{mail}");
        }
        assert!(!ann(None).is_one_of(["ann@example.org", ""]));
        assert!(known.is_one_of(["bob@example.org", "ann@example.org"]));
    }
}
