//! `gitamp schema`: the JSON Schema of our files, for editors that complete and check while one types.

use std::process::ExitCode;

use clap::Args;

use crate::cli::{Failure, print};

/// The schema of `group.yaml`, `defaults.yaml` and `fleet.yaml`; which of the three a document is, its `kind` says.
pub const SCHEMA: &str = include_str!("../../docs/schema/gitamp.schema.json");

/// Print the JSON Schema of group.yaml, defaults.yaml and fleet.yaml
///
/// Editors with a YAML language server complete and check these files with it. What it cannot say (paths that must exist, stages
/// that must grow), `gitamp check` says.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp schema > .gitamp.schema.json\n\n\
    Then, in the first line of a group.yaml:\n  \
    # yaml-language-server: $schema=../../.gitamp.schema.json")]
pub(super) struct SchemaArgs {}

/// Runs the command.
pub(super) fn run() -> Result<ExitCode, Failure> {
    print(SCHEMA)?;
    Ok(ExitCode::SUCCESS)
}
