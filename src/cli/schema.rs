//! `gitamp schema`: the JSON Schemas of our files, for editors that complete and check while one types.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::cli::{Failure, print};
use crate::settings;

/// The schema of `group.yaml`, `defaults.yaml` and `fleet.yaml`; which of the three a document is, its `kind` says.
pub const SCHEMA: &str = include_str!("../../docs/schema/gitamp.schema.json");

/// Print the JSON Schema of group.yaml, defaults.yaml and fleet.yaml, or of the daemon's settings
///
/// Editors with a YAML language server complete and check these files with it. What it cannot say (paths that must exist, stages
/// that must grow), `gitamp check` says.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp schema > .gitamp.schema.json\n  \
    gitamp schema settings > settings.schema.json\n\n\
    Then, in the first line of a group.yaml:\n  \
    # yaml-language-server: $schema=../../.gitamp.schema.json")]
pub(super) struct SchemaArgs {
    /// Of which files
    #[arg(value_enum, default_value_t = Which::Fleet, value_name = "FILES")]
    which: Which,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// group.yaml, defaults.yaml and fleet.yaml
    Fleet,
    /// The settings file of `gitamp serve`
    Settings,
}

/// Runs the command.
pub(super) fn run(arguments: &SchemaArgs) -> Result<ExitCode, Failure> {
    match arguments.which {
        Which::Fleet => print(SCHEMA)?,
        Which::Settings => print(&format!("{:#}\n", settings::schema::schema()))?,
    }
    Ok(ExitCode::SUCCESS)
}
