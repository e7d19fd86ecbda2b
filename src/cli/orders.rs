//! The commands that tell a running daemon what to do: pause, resume, abort, retry, promote, undo, pin, unpin, freeze, unfreeze.

mod carry_out;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use self::carry_out::{Asking, Task, carry_out};
use super::Failure;
use crate::time::{Timestamp, parse_duration};
use crate::view::command::Command;

/// What all orders share but `freeze`, whose reason is not optional.
#[derive(Args, Clone, Debug)]
struct Ordering {
    /// Why; it stands in the journal, in the status and in the log
    #[arg(long, short, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

impl Ordering {
    fn order(&self, command: Command) -> Result<ExitCode, Failure> {
        carry_out(&Task::Order(command), self.reason.as_deref(), &self.asking)
    }
}

/// A group as the repository names it. Completion of a path in a checkout leaves a slash behind it.
fn group(text: &str) -> Result<String, &'static str> {
    match text.trim_end_matches('/') {
        "" => Err("a group is called by its path below the fleet root, like prod/gateways"),
        name => Ok(name.to_owned()),
    }
}

/// Let a group's rollout offer nothing new until `gitamp resume`
///
/// What was offered runs on, and a rollback is still possible. Exit codes: 0 done, 1 refused, 2 no daemon, no answer or not confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp pause prod/gateways --reason \"the backend is being moved\"\n  \
    gitamp pause prod/gateways --yes --output json\n\n\
    Go on with `gitamp resume`, end it with `gitamp abort`.")]
pub(super) struct Pause {
    /// Whose rollout
    #[arg(value_parser = group)]
    group: String,
    #[command(flatten)]
    ordering: Ordering,
}

impl Pause {
    /// Asks and orders.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        self.ordering.order(Command::Pause { group: self.group })
    }
}

/// Take back a pause, the hold of a commit's trailer, or an undo
///
/// After an undo the group goes to what the repository says, with all stages. Exit codes: 0 done, 1 refused, 2 no daemon, no answer
/// or not confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp resume prod/gateways\n  \
    gitamp resume prod/gateways --reason \"the backend is back\" --yes")]
pub(super) struct Resume {
    /// Which group goes on
    #[arg(value_parser = group)]
    group: String,
    #[command(flatten)]
    ordering: Ordering,
}

impl Resume {
    /// Asks and orders.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        self.ordering.order(Command::Resume { group: self.group })
    }
}

/// End a group's running rollout and take its agents back to stable
///
/// Its configuration counts as failed from then on: it is not rolled out again before `gitamp retry` or a commit that changes it. Exit
/// codes: 0 done, 1 refused, 2 no daemon, no answer or not confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp abort prod/gateways --reason \"queues grow since 10:30\"\n  \
    gitamp abort prod/gateways --yes && gitamp rollout prod/gateways --watch")]
pub(super) struct Abort {
    /// Whose rollout
    #[arg(value_parser = group)]
    group: String,
    #[command(flatten)]
    ordering: Ordering,
}

impl Abort {
    /// Asks and orders.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        self.ordering.order(Command::Abort { group: self.group })
    }
}

/// Try once more what failed, was rolled back or was aborted; or one agent that failed, while the rollout went on
///
/// A group's rollout goes through all stages again, also at agents that failed it: for a configuration that was fine, and failed for a
/// reason outside of it. One agent is offered what its group has once more. Exit codes: 0 done, 1 refused, 2 no daemon, no answer or
/// not confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp retry prod/gateways --reason \"the disks were full\"\n  \
    gitamp retry prod/gateways --yes && gitamp rollout prod/gateways --watch\n  \
    gitamp retry 0191a4f2 --reason \"its disk was full\"")]
pub(super) struct Retry {
    /// A group whose rollout failed, or an agent's id (the beginning is enough when it is the only one)
    #[arg(value_name = "AGENT|GROUP", value_parser = group)]
    target: String,
    #[command(flatten)]
    ordering: Ordering,
}

impl Retry {
    /// Asks and orders.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        self.ordering.order(Command::Retry { target: self.target })
    }
}

/// Approve the stage that waits for approval, or a whole commit that is held
///
/// A commit is held by a guard of fleet.yaml or by its own trailer `Gitamp-Rollout: hold`. Exit codes: 0 done, 1 refused, 2 no daemon,
/// no answer or not confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp promote prod/gateways                            the stage with `approval: manual`\n  \
    gitamp promote prod/gateways --now                      also skips the wait that runs: a window, a soak, ...\n  \
    gitamp promote 6dcb09b5 --reason \"the move of 300 agents is meant\"")]
pub(super) struct Promote {
    /// A group, or a commit (at least seven of its hex digits)
    #[arg(value_name = "GROUP|COMMIT", value_parser = group)]
    target: String,
    /// Approve, and skip the one wait that runs, and no other: for the groups of `dependsOn`, for the start of a stage (a window, agents that
    /// are gone or have only just come), a soak, or the bake. Whoever was offered it still has to confirm it
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    ordering: Ordering,
}

impl Promote {
    /// Asks and orders.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        self.ordering.order(Command::Promote { target: self.target, now: self.now })
    }
}

/// Go back to an earlier stable configuration, whatever the repository says
///
/// It works while the repository cannot be reached, and holds until a later commit changes the group, or until `gitamp resume`. Exit
/// codes: 0 done, 1 refused, 2 no daemon, no answer or not confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp undo prod/gateways                               to stable; when all have that, to the one before\n  \
    gitamp undo prod/gateways --to 6dcb09b5                 to the one with this hash, or of this commit\n  \
    gitamp undo --since 2h --reason \"the incident\"          every group that changed in the last two hours\n  \
    gitamp undo --since 2026-11-20T09:30:00Z --yes\n\n\
    `git revert` is the lasting way; this one is for when it has to be quick.")]
pub(super) struct Undo {
    /// Which group
    #[arg(value_parser = group, required_unless_present = "since", conflicts_with = "since")]
    group: Option<String>,
    /// Not the one before, but this retained one: its hash, or the commit that brought it, from seven hex digits
    #[arg(long, value_name = "HASH|COMMIT", conflicts_with = "since", value_parser = digits)]
    to: Option<String>,
    /// Every group that changed since then: a time like 2026-11-20T09:30:00Z, or how long ago, like 2h
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    #[command(flatten)]
    ordering: Ordering,
}

impl Undo {
    /// Asks and orders.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let Ordering { reason, asking } = &self.ordering;
        let task = match (self.group, self.since) {
            (Some(group), _) => Task::Order(Command::Undo { group, to: self.to }),
            (None, Some(Since::At(since))) => Task::Order(Command::UndoSince { since }),
            (None, Some(Since::Ago(length))) => Task::UndoSinceAgo(length),
            (None, None) => return Err("name a group, or --since a time".into()),
        };
        carry_out(&task, reason.as_deref(), asking)
    }
}

/// A point in time as an operator says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    At(Timestamp),
    /// By the daemon's clock, which is the one that its records are in.
    Ago(Duration),
}

fn since(text: &str) -> Result<Since, String> {
    let text = text.trim();
    if let Ok(at) = text.parse() {
        return Ok(Since::At(at));
    }
    match parse_duration(text.strip_suffix("ago").unwrap_or(text).trim()) {
        Ok(Duration::ZERO) | Err(_) => {
            Err("write a time like 2026-11-20T09:30:00Z, or how long ago, like 30m or 2h".to_owned())
        }
        Ok(length) => Ok(Since::Ago(length)),
    }
}

fn digits(text: &str) -> Result<String, &'static str> {
    let is_hex = text.len() >= 7 && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { Ok(text.to_ascii_lowercase()) } else { Err("must be 7 to 64 hex digits of a hash or a commit") }
}

/// Let an agent or a group keep what it has for some time
///
/// Only rollbacks and reverts still reach it. Exit codes: 0 done, 1 refused, 2 no daemon, no answer or not confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp pin 0191a4f2 --for 4h --reason \"a heap dump is being taken\"\n  \
    gitamp pin prod/gateways --for 2d\n\n\
    It ends by itself, or with `gitamp unpin`.")]
pub(super) struct Pin {
    /// An agent's id (the beginning is enough when it is the only one), or a group
    #[arg(value_name = "AGENT|GROUP", value_parser = group)]
    target: String,
    /// How long: 30m, 4h, 2d
    #[arg(long = "for", value_name = "DURATION", value_parser = length)]
    length: Duration,
    #[command(flatten)]
    ordering: Ordering,
}

impl Pin {
    /// Asks and orders.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        self.ordering.order(Command::Pin { target: self.target, length: self.length })
    }
}

fn length(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err("it has to be longer than nothing, like 4h".to_owned()),
        Ok(length) => Ok(length),
        Err(error) => Err(error.to_string()),
    }
}

/// End a pin
///
/// Exit codes: 0 done, 1 refused, 2 no daemon, no answer or not confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp unpin prod/gateways\n  \
    gitamp unpin 0191a4f2 --yes")]
pub(super) struct Unpin {
    /// An agent's id (the beginning is enough when it is the only one), or a group
    #[arg(value_name = "AGENT|GROUP", value_parser = group)]
    target: String,
    #[command(flatten)]
    ordering: Ordering,
}

impl Unpin {
    /// Asks and orders.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        self.ordering.order(Command::Unpin { target: self.target })
    }
}

/// Restart what an agent supervises, or a whole group in waves of its `maxUnavailable`
///
/// Agents that do not take the restart command are left out, and counted. Exit codes: 0 done, 1 refused, 2 no daemon, no answer or
/// not confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp restart 0191a4f2\n  \
    gitamp restart prod/gateways --reason \"a new certificate\" --yes")]
pub(super) struct Restart {
    /// An agent's id (the beginning is enough when it is the only one), or a group
    #[arg(value_name = "AGENT|GROUP", value_parser = group)]
    target: String,
    #[command(flatten)]
    ordering: Ordering,
}

impl Restart {
    /// Asks and orders.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        self.ordering.order(Command::Restart { target: self.target })
    }
}

/// Let no offer of any kind leave, rollbacks included, until `gitamp unfreeze`
///
/// It survives restarts of the daemon. Exit codes: 0 done, 1 refused, 2 no daemon, no answer or not confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp freeze --reason \"incident 4711: nothing moves\"     the whole fleet\n  \
    gitamp freeze prod/gateways --reason \"holidays\" --yes")]
pub(super) struct Freeze {
    /// Which group; without one the whole fleet
    #[arg(value_parser = group)]
    group: Option<String>,
    /// Why; whoever finds the fleet frozen reads this
    #[arg(long, short, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    asking: Asking,
}

impl Freeze {
    /// Asks and orders.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        carry_out(&Task::Order(Command::Freeze { group: self.group }), Some(&self.reason), &self.asking)
    }
}

/// End a freeze
///
/// What waited goes on at once, within the budget. Exit codes: 0 done, 1 refused, 2 no daemon, no answer or not confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp unfreeze                                         the whole fleet\n  \
    gitamp unfreeze prod/gateways --reason \"the holidays are over\"")]
pub(super) struct Unfreeze {
    /// Which group; without one the whole fleet
    #[arg(value_parser = group)]
    group: Option<String>,
    #[command(flatten)]
    ordering: Ordering,
}

impl Unfreeze {
    /// Asks and orders.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        self.ordering.order(Command::Unfreeze { group: self.group })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    enum Orders {
        Undo(Undo),
        Pin(Pin),
        Freeze(Freeze),
    }

    fn parse(line: &str) -> Result<Orders, String> {
        let words = std::iter::once("gitamp").chain(line.split(' '));
        Orders::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn times_are_read_as_people_say_them() {
        let hours = |hours: u64| Since::Ago(Duration::from_secs(hours * 3_600));
        assert_eq!(since("2h"), Ok(hours(2)));
        assert_eq!(since("2h ago"), Ok(hours(2)));
        assert_eq!(since("1970-01-01T00:01:00Z"), Ok(Since::At(Timestamp::from_millis(60_000))));
        assert_eq!(since("1970-01-01T01:01:00+01:00"), Ok(Since::At(Timestamp::from_millis(60_000))));
        for text in ["", "0s", "yesterday", "-2h", "ago", "2026-11-20", "2"] {
            assert!(since(text).expect_err(text).contains("2h"), "{text}");
        }
    }

    #[test]
    fn arguments_that_contradict_each_other_are_refused() {
        for line in ["undo prod/a", "undo prod/a/ --to 6DCB09B", "undo --since 2h --yes", "pin prod/a --for 4h"] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
        for (line, words) in [
            ("undo", "required"),
            ("undo prod/a --since 2h", "cannot be used with"),
            ("undo --since 2h --to 6dcb09b", "cannot be used with"),
            ("undo prod/a --to 6dcb", "7 to 64 hex digits"),
            ("undo /", "prod/gateways"),
            ("pin prod/a", "--for"),
            ("pin prod/a --for 0s", "longer than nothing"),
            ("pin prod/a --for 4", "not a duration"),
            ("freeze", "--reason"),
            ("freeze prod/a", "--reason"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
        }
        let Ok(Orders::Undo(undo)) = parse("undo prod/a/ --to 6DCB09B") else { panic!("an undo") };
        assert_eq!((undo.group.as_deref(), undo.to.as_deref()), (Some("prod/a"), Some("6dcb09b")));
    }
}
