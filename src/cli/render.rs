//! `gitamp render`: the configuration that a group's agents get, or all groups at a glance.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

use crate::cli::directory::read_directory;
use crate::cli::findings::Findings;
use crate::cli::limits::LimitArgs;
use crate::cli::{Failure, print};
use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::snapshot::Snapshot;
use crate::fleet::strategy::{OnFailure, OnNewCommit, Stage, Strategy};
use crate::fleet::{self, GroupName, RenderedFleet, RenderedGroup};
use crate::time::show_duration;

/// Show the configuration that a group gets, or all groups with their hashes
///
/// With a group, prints exactly the YAML that its agents are sent. Without one, lists the groups. The exit code is 1 when what is
/// shown is held back by errors.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp render                           all groups: hash, size, priority, selector\n  \
    gitamp render prod/gateways             the YAML of one group\n  \
    gitamp render prod/gateways@us --dir fleet/\n  \
    gitamp render --all > before.yaml       everything, to compare with what another commit renders\n  \
    gitamp render prod/gateways -o json     with the selector and the rollout as they hold, inherited parts included\n  \
    gitamp render --output json | jq -r '.[] | [.name, .hash] | @tsv'")]
pub(super) struct RenderArgs {
    /// The group, like prod/gateways, or a variant, like prod/gateways@us
    #[arg(value_name = "GROUP")]
    group: Option<String>,

    /// The fleet root: the directory that holds fleet.yaml and the groups
    #[arg(long, short, default_value = ".", value_name = "DIR")]
    dir: PathBuf,

    /// Print the YAML of every group, one document each
    #[arg(long, conflicts_with = "group")]
    all: bool,

    /// How the result is written
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,

    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// YAML for one group or with --all, a table for the list
    Human,
    /// JSON, with the configurations as text for one group or with --all
    Json,
}

/// No group has this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no group `{name}`{hint}")]
struct NoSuchGroup {
    name: String,
    hint: String,
}

/// Runs the command.
pub(super) fn run(arguments: &RenderArgs) -> Result<ExitCode, Failure> {
    let snapshot = read_directory(&arguments.dir, &arguments.limits.limits()?)?;
    let fleet = fleet::load(&snapshot, None);
    let concerns = |diagnostic: &Diagnostic, group: Option<&GroupName>| {
        diagnostic.severity == Severity::Error
            && (group.is_none() || diagnostic.group.is_none() || diagnostic.group.as_ref() == group)
    };
    let chosen = match &arguments.group {
        None => None,
        Some(name) => Some(find(&fleet, name)?),
    };
    let errors: Vec<Diagnostic> =
        fleet.diagnostics.iter().filter(|one| concerns(one, chosen.map(|(name, _)| name))).cloned().collect();
    match (chosen, arguments.output) {
        (Some((_, group)), Output::Human) => {
            let body = group.config.as_ref().map(|config| String::from_utf8_lossy(config.body()));
            print(&body.unwrap_or_default())?;
        }
        (Some((name, group)), Output::Json) => print(&format!("{:#}\n", describe(name, group, true)))?,
        (None, Output::Human) if arguments.all => print(&documents(&fleet))?,
        (None, Output::Human) => print(&table(&fleet))?,
        (None, Output::Json) => {
            let groups: Value = fleet.groups.iter().map(|(name, group)| describe(name, group, arguments.all)).collect();
            print(&format!("{groups:#}\n"))?;
        }
    }
    complain(&errors, &snapshot, arguments)?;
    Ok(ExitCode::from(u8::from(!errors.is_empty())))
}

/// Errors go to standard error, so that what is printed can be piped on.
fn complain(errors: &[Diagnostic], snapshot: &Snapshot, arguments: &RenderArgs) -> Result<(), Failure> {
    let findings = Findings::new(errors, snapshot, &arguments.dir);
    Ok(anstream::stderr().write_all(findings.human().as_bytes())?)
}

fn find<'f>(fleet: &'f RenderedFleet, name: &str) -> Result<(&'f GroupName, &'f RenderedGroup), NoSuchGroup> {
    let wanted = GroupName::new(name.trim_end_matches('/'));
    fleet.groups.get_key_value(&wanted).ok_or_else(|| {
        let ending = |known: &&GroupName| known.as_str().contains(wanted.as_str());
        let near: Vec<&str> = fleet.groups.keys().filter(ending).take(5).map(GroupName::as_str).collect();
        let hint = match near.as_slice() {
            [] => "; `gitamp render` lists the groups".to_owned(),
            near => format!("; did you mean {}?", near.join(" or ")),
        };
        NoSuchGroup { name: wanted.to_string(), hint }
    })
}

fn describe(name: &GroupName, group: &RenderedGroup, with_config: bool) -> Value {
    let mut value = json!({"name": name.as_str(), "rejected": group.config.is_none()});
    if let Some(definition) = &group.definition {
        value["selector"] = json!(definition.selector.to_string());
        value["priority"] = json!(definition.priority);
        value["suspend"] = json!(definition.suspend);
        value["rollout"] = rollout(&definition.strategy);
    }
    if let Some(config) = &group.config {
        value["hash"] = json!(config.hash().to_string());
        value["bytes"] = json!(config.body().len());
        value["components"] = json!(config.components().iter().collect::<Vec<_>>());
        if with_config {
            value["config"] = json!(String::from_utf8_lossy(config.body()));
        }
    }
    value
}

/// The strategy in the words of `group.yaml`, with what is inherited and every default.
fn rollout(strategy: &Strategy) -> Value {
    let stage = |stage: &Stage| {
        let mut value = json!({"name": stage.name, "soak": show_duration(stage.soak)});
        if let Some(agents) = stage.agents {
            value["agents"] = json!(agents.to_string());
        }
        if let Some(selector) = &stage.selector {
            value["selector"] = json!(selector.to_string());
        }
        if stage.needs_approval {
            value["approval"] = json!("manual");
        }
        if let Some(most) = stage.max_failures {
            value["maxFailures"] = json!(most.to_string());
        }
        value
    };
    let mut value = json!({
        "stages": strategy.stages.iter().map(stage).collect::<Vec<_>>(),
        "bake": show_duration(strategy.bake),
        "maxUnavailable": strategy.max_unavailable.to_string(),
        "progressDeadline": show_duration(strategy.progress_deadline),
        "onFailure": match strategy.on_failure {
            OnFailure::Rollback => "rollback",
            OnFailure::Pause => "pause",
        },
        "onNewCommit": match strategy.on_new_commit {
            OnNewCommit::Supersede => "supersede",
            OnNewCommit::Finish => "finish",
        },
        "spreadBy": strategy.spread_by,
        "dependsOn": strategy.depends_on.iter().map(GroupName::as_str).collect::<Vec<_>>(),
        "windows": strategy.windows.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    if let Some(most) = strategy.max_failures {
        value["maxFailures"] = json!(most.to_string());
    }
    value
}

fn documents(fleet: &RenderedFleet) -> String {
    let document = |(name, group): (&GroupName, &RenderedGroup)| {
        let config = group.config.as_ref()?;
        Some(format!("---\n# {name} {}\n{}", config.hash(), String::from_utf8_lossy(config.body())))
    };
    fleet.groups.iter().filter_map(document).collect()
}

fn table(fleet: &RenderedFleet) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["GROUP", "HASH", "BYTES", "PRIORITY", "SELECTOR"]);
    for (name, group) in &fleet.groups {
        let (hash, bytes) = match &group.config {
            Some(config) => (config.hash().short(), config.body().len().to_string()),
            None => ("rejected".to_owned(), "-".to_owned()),
        };
        let (priority, selector) = match &group.definition {
            Some(definition) => (definition.priority.to_string(), definition.selector.to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        table.add_row([name.to_string(), hash, bytes, priority, selector]);
    }
    table.lines().map(|line| format!("{}\n", line.trim())).collect()
}
