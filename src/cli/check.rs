//! `gitamp check`: what is wrong with a fleet repository, before it is merged.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::directory::read_directory;
use crate::cli::findings::Findings;
use crate::cli::limits::LimitArgs;
use crate::cli::{Failure, print};
use crate::fleet::{self, RenderedFleet};

/// Check a fleet repository and say everything that is wrong with it
///
/// Reads the files as they are on disk, committed or not, renders every group, and shows each finding with its place and what to do.
/// The exit code is 1 when there is an error.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp check                      the fleet in this directory\n  \
    gitamp check fleet/               a fleet in a directory of a larger repository\n  \
    gitamp check --output github      annotations for a pull request, in a GitHub workflow\n  \
    gitamp check --output json | jq '.diagnostics[].message'")]
pub(super) struct CheckArgs {
    /// The fleet root: the directory that holds fleet.yaml and the groups
    #[arg(default_value = ".", value_name = "DIR")]
    directory: PathBuf,

    /// How findings are written
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,

    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// With excerpts of the files, for people
    Human,
    /// One JSON document, for scripts
    Json,
    /// Workflow commands, for GitHub Actions
    Github,
}

/// Runs the command.
pub(super) fn run(arguments: &CheckArgs) -> Result<ExitCode, Failure> {
    let snapshot = read_directory(&arguments.directory, &arguments.limits.limits()?)?;
    let fleet = fleet::load(&snapshot, None);
    let findings = Findings::new(&fleet.diagnostics, &snapshot, &arguments.directory);
    let (errors, warnings) = findings.counts();
    match arguments.output {
        Output::Human => print(&format!("{}{}\n", findings.human(), summary(&fleet, errors, warnings)))?,
        Output::Github => print(&format!("{}{}\n", findings.github(), summary(&fleet, errors, warnings)))?,
        Output::Json => {
            let document = json!({
                "groups": fleet.groups.len(),
                "rejected": rejected(&fleet),
                "errors": errors,
                "warnings": warnings,
                "diagnostics": findings.json(),
            });
            print(&format!("{document:#}\n"))?;
        }
    }
    Ok(ExitCode::from(u8::from(errors > 0)))
}

fn rejected(fleet: &RenderedFleet) -> Vec<&str> {
    fleet.groups.iter().filter(|(_, group)| group.config.is_none()).map(|(name, _)| name.as_str()).collect()
}

/// `14 groups: 2 errors hold back 3 of them, 1 warning`.
fn summary(fleet: &RenderedFleet, errors: usize, warnings: usize) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let rejected = rejected(fleet).len();
    let errors = match (errors, rejected) {
        (0, _) => "no errors".to_owned(),
        (errors, 0) => count(errors, "error"),
        (errors, rejected) => format!("{} hold back {rejected} of them", count(errors, "error")),
    };
    format!("{}: {errors}, {}", count(fleet.groups.len(), "group"), count(warnings, "warning"))
}
