//! The command line: one file a subcommand, and what they share: how they print, and how they end.
//!
//! Exit codes: 0 it went well, 1 it did what was asked and the answer is bad (errors in a fleet repository, a failed
//! rollout, an order that is refused), 2 it could not be done (wrong arguments, unreadable files, nobody listening, not confirmed).

mod admin_client;
mod agents;
mod alerts;
mod api_server;
mod check;
mod completions;
mod demo;
pub mod directory;
mod explain;
mod findings;
mod git_transport;
mod limits;
mod man;
mod matching;
mod notes;
mod orders;
mod panics;
mod render;
mod rollout;
pub mod schema;
mod screen;
mod serve;
mod simulate;
mod status;
mod sync;
mod token;
mod watch;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};

use crate::settings::secret::may_be_secret;

/// What a command that could not do its work returns; the whole chain of causes is printed once, here at the edge.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The program's name.
const NAME: &str = "gitamp";

/// GitOps for OpenTelemetry Collector fleets: a Git repository drives thousands of agents over OpAMP.
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 120, arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Start with `gitamp demo`, or with `gitamp check` in a fleet repository.\n\
                        Every command has examples: `gitamp help check`.")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

/// The subcommands, in the order in which `gitamp help` lists them.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a process")]
enum Command {
    Serve(serve::Arguments),
    Status(status::Arguments),
    Rollout(rollout::Arguments),
    Agents(agents::Arguments),
    Explain(explain::Arguments),
    Sync(sync::Arguments),
    Alerts(alerts::Arguments),
    Pause(orders::Pause),
    Resume(orders::Resume),
    Abort(orders::Abort),
    Retry(orders::Retry),
    Promote(orders::Promote),
    Undo(orders::Undo),
    Pin(orders::Pin),
    Unpin(orders::Unpin),
    Restart(orders::Restart),
    Freeze(orders::Freeze),
    Unfreeze(orders::Unfreeze),
    Token(token::Arguments),
    Check(check::CheckArgs),
    Render(render::RenderArgs),
    Schema(schema::SchemaArgs),
    Notes(notes::Arguments),
    Match(matching::MatchArgs),
    Demo(demo::Arguments),
    Simulate(simulate::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
    #[command(name = "git-transport", hide = true)]
    GitTransport(git_transport::Arguments),
}

impl Command {
    fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Serve(arguments) => arguments.run(),
            Self::Status(arguments) => arguments.run(),
            Self::Rollout(arguments) => arguments.run(),
            Self::Explain(arguments) => arguments.run(),
            Self::Agents(arguments) => arguments.run(),
            Self::Sync(arguments) => arguments.run(),
            Self::Alerts(arguments) => arguments.run(),
            Self::Pause(arguments) => arguments.run(),
            Self::Resume(arguments) => arguments.run(),
            Self::Abort(arguments) => arguments.run(),
            Self::Retry(arguments) => arguments.run(),
            Self::Promote(arguments) => arguments.run(),
            Self::Undo(arguments) => arguments.run(),
            Self::Pin(arguments) => arguments.run(),
            Self::Unpin(arguments) => arguments.run(),
            Self::Restart(arguments) => arguments.run(),
            Self::Freeze(arguments) => arguments.run(),
            Self::Unfreeze(arguments) => arguments.run(),
            Self::Token(arguments) => arguments.run(),
            Self::Check(arguments) => check::run(&arguments),
            Self::Render(arguments) => render::run(&arguments),
            Self::Schema(arguments) => schema::run(&arguments),
            Self::Notes(arguments) => arguments.run(),
            Self::Match(arguments) => matching::run(&arguments),
            Self::Demo(arguments) => arguments.run(),
            Self::Simulate(arguments) => arguments.run(),
            Self::Completions(arguments) => arguments.run(),
            Self::Man(arguments) => arguments.run(),
            Self::GitTransport(arguments) => Ok(arguments.run()),
        }
    }
}

/// The whole command line, as it describes itself.
fn command() -> clap::Command {
    Arguments::command()
}

/// The program: reads the arguments, runs the command, prints what went wrong.
pub fn main() -> ExitCode {
    panics::be_discreet();
    let arguments = Arguments::try_parse().unwrap_or_else(|error| discreet(error).exit());
    let outcome = match arguments.command {
        Some(command) => command.run(),
        None => return ExitCode::from(2),
    };
    outcome.unwrap_or_else(|failure| {
        complain(failure.as_ref());
        ExitCode::from(2)
    })
}

/// The same error without a word that stands where none should, when it looks like a secret: somebody wrote it behind the flag for its file.
fn discreet(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
        // Names of commands and flags have small letters only.
        let is_odd = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase() || c == '_';
        let is_secret = |word: &str| !word.starts_with('-') && may_be_secret(word) && word.contains(is_odd);
        if matches!(error.get(kind), Some(ContextValue::String(word)) if is_secret(word)) {
            error.insert(kind, ContextValue::String("***".to_owned()));
        }
    }
    error
}

/// What a command waits with: one thread is enough for it.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Writes to standard output, without colours when it is no terminal. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints an error and its causes to standard error, one line each.
fn complain(failure: &dyn Error) {
    let mut text = format!("error: {failure}\n");
    let mut cause = failure.source();
    while let Some(error) = cause {
        text.push_str(&format!("  because: {error}\n"));
        cause = error.source();
    }
    // Nobody is left to tell when standard error itself is gone.
    let _gone = anstream::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_word_that_may_be_a_secret_is_not_repeated() {
        for (line, shown) in [
            ("gitamp serve ghp_16C7e42F292c6912E7", "***"),
            ("gitamp ghp_16C7e42F292c6912E7", "***"),
            ("gitamp serve --git-token=ghp_16C7e42F292c6912E7", "--git-token"),
            ("gitamp status gateways", "'gateways'"),
            ("gitamp completion-scripts", "'completion-scripts'"),
            ("gitamp status fleets/production-2", "'fleets/production-2'"),
        ] {
            let error = Arguments::try_parse_from(line.split(' ')).expect_err(line);
            let said = discreet(error).to_string();
            assert!(said.contains(shown) && !said.contains("16C7e42F292c6912E7"), "{said}");
        }
    }

    /// What a variable holds is shown by no help: it may be an address with a token in it.
    #[test]
    fn no_help_shows_what_the_environment_holds() {
        let whole = command();
        let mut open = vec![&whole];
        let mut seen = 0;
        while let Some(command) = open.pop() {
            open.extend(command.get_subcommands());
            for argument in command.get_arguments().filter(|argument| argument.get_env().is_some()) {
                seen += 1;
                assert!(argument.is_hide_env_values_set(), "{} {argument}", command.get_name());
            }
        }
        assert!(seen >= 8, "only {seen} arguments come from the environment");
    }

    #[test]
    fn arguments_are_well_formed_and_every_command_has_examples() {
        let mut command = command();
        command.build();
        command.clone().debug_assert();
        for subcommand in command.get_subcommands().filter(|one| one.get_name() != "help" && !one.is_hide_set()) {
            let examples = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains("gitamp "), "`{}` shows no example in its help", subcommand.get_name());
        }
    }
}
