//! `gitamp completions`: what a shell needs to complete our commands and flags.

use std::process::ExitCode;

use clap::Args;
use clap_complete::{Shell, generate};

use crate::cli::{Failure, NAME, command, print};

/// Print completions of commands and flags for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp completions bash > /usr/share/bash-completion/completions/gitamp\n  \
    gitamp completions zsh > /usr/share/zsh/site-functions/_gitamp\n  \
    gitamp completions fish > ~/.config/fish/completions/gitamp.fish\n\n\
    For this shell only:\n  \
    source <(gitamp completions bash)")]
pub(super) struct Arguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Arguments {
    /// Runs the command.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        print(&script(self.shell))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn script(shell: Shell) -> String {
    let mut text = Vec::new();
    generate(shell, &mut command(), NAME, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_learns_every_command_that_is_shown() {
        let command = command();
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for subcommand in command.get_subcommands().filter(|one| !one.is_hide_set()) {
                assert!(script.contains(subcommand.get_name()), "{shell}: no `{}`", subcommand.get_name());
            }
            assert!(script.contains("hook-secret-file"), "{shell}: no flags");
        }
    }
}
