//! `gitamp match`: which group an agent with some labels would get, and why not the others.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

use crate::cli::directory::read_directory;
use crate::cli::limits::LimitArgs;
use crate::cli::{Failure, print};
use crate::fleet::assign::{Assigner, Match, Verdict};
use crate::fleet::{self, GroupName, RenderedFleet};
use crate::labels::Labels;

/// Groups that do not select the agent are listed up to this number, the nearest ones first.
const MOST_OTHERS: usize = 20;

/// Show which group an agent with these labels would get, and why not the others
///
/// Labels are the agent's OpAMP attributes, identifying and non-identifying. The exit code is 1 when no group selects the agent, or
/// several at the same priority: then the agent keeps what it has.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp match service.name=otelcol-gateway host.name=gw-7\n  \
    gitamp match service.name=otelcol env=prod --dir fleet/\n  \
    gitamp match host.name=gw-7 --proven env=prod          what a token gives it counts below `trust: proven`\n  \
    gitamp match env=prod --all                             every group, however far from matching\n  \
    gitamp match env=prod --output json | jq -r .group")]
pub(super) struct MatchArgs {
    /// A label of the agent; repeat it for each one
    #[arg(value_name = "KEY=VALUE", value_parser = read_label)]
    labels: Vec<(String, String)>,

    /// A label that a certificate or a token gives the agent; repeat it for each one
    #[arg(long, value_name = "KEY=VALUE", value_parser = read_label)]
    proven: Vec<(String, String)>,

    /// The fleet root: the directory that holds fleet.yaml and the groups
    #[arg(long, short, default_value = ".", value_name = "DIR")]
    dir: PathBuf,

    /// List every group, not only the nearest ones
    #[arg(long)]
    all: bool,

    /// How the result is written
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,

    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A sentence and a table
    Human,
    /// One JSON document with every group
    Json,
}

/// One label has two values.
#[derive(Debug, thiserror::Error)]
#[error("the label `{0}` is given twice")]
struct GivenTwice(String);

fn read_label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        None => Err("a label is written KEY=VALUE"),
        Some(("", _)) => Err("the key is empty"),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
    }
}

/// Runs the command.
pub(super) fn run(arguments: &MatchArgs) -> Result<ExitCode, Failure> {
    let labels = Labels::new(arguments.labels.iter().cloned());
    if labels.len() < arguments.labels.len() {
        let twice = |key: &&String| arguments.labels.iter().filter(|(other, _)| other == *key).count() > 1;
        let key = arguments.labels.iter().map(|(key, _)| key).find(twice);
        return Err(GivenTwice(key.cloned().unwrap_or_default()).into());
    }
    let labels = labels.with_proofs(&Labels::proven(arguments.proven.iter().cloned()));
    let snapshot = read_directory(&arguments.dir, &arguments.limits.limits()?)?;
    let fleet = fleet::load(&snapshot, None);
    let defined = fleet.groups.iter().filter_map(|(name, group)| Some((name, group.definition.as_deref()?)));
    let matches = Assigner::new(defined).explain(&labels);
    let text = match arguments.output {
        Output::Human => human(&fleet, &labels, &matches, arguments.all),
        Output::Json => format!("{:#}\n", document(&fleet, &labels, &matches)),
    };
    print(&text)?;
    Ok(ExitCode::from(u8::from(chosen(&matches).is_none())))
}

fn chosen(matches: &[Match]) -> Option<&GroupName> {
    matches.iter().find(|one| one.verdict == Verdict::Chosen).map(|one| &one.group)
}

/// Groups whose selectors cannot be told.
fn broken(fleet: &RenderedFleet) -> Vec<&str> {
    fleet.groups.iter().filter(|(_, group)| group.definition.is_none()).map(|(name, _)| name.as_str()).collect()
}

fn human(fleet: &RenderedFleet, labels: &Labels, matches: &[Match], all: bool) -> String {
    let mut text = headline(fleet, labels, matches);
    let is_other = |one: &&Match| matches!(one.verdict, Verdict::Unmet { .. });
    let others = matches.iter().filter(is_other).count();
    let hidden = if all { 0 } else { others.saturating_sub(MOST_OTHERS) };
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["GROUP", "PRIORITY", ""]);
    for one in matches.iter().take(matches.len() - hidden) {
        table.add_row([one.group.to_string(), one.priority.to_string(), reason(&one.verdict, labels)]);
    }
    if !matches.is_empty() {
        text.push('\n');
        text.extend(table.lines().map(|line| format!("{}\n", line.trim())));
    }
    if hidden > 0 {
        text.push_str(&format!("\n{hidden} more groups do not select it; --all lists them.\n"));
    }
    let broken = broken(fleet);
    if !broken.is_empty() {
        let names = broken.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        let more = if broken.len() > 5 { ", ..." } else { "" };
        text.push_str(&format!("\nWhom these groups select cannot be told, see `gitamp check`: {names}{more}\n"));
    }
    text
}

fn headline(fleet: &RenderedFleet, labels: &Labels, matches: &[Match]) -> String {
    let whom = if labels.is_empty() { "An agent without labels".to_owned() } else { format!("An agent with {labels}") };
    let conflicting: Vec<String> =
        matches.iter().filter(|one| one.verdict == Verdict::Conflict).map(|one| format!("`{}`", one.group)).collect();
    let Some(name) = chosen(matches) else {
        return match conflicting.as_slice() {
            [] => format!("{whom} is unmanaged: no group selects it, and it keeps what it has.\n"),
            names => format!(
                "{whom} is in conflict: {} select it at the same priority, and it keeps what it has.\n",
                names.join(" and ")
            ),
        };
    };
    let mut text = format!("{whom} belongs to `{name}`");
    let group = fleet.groups.get(name);
    match group.and_then(|group| group.config.as_ref()) {
        Some(config) => text.push_str(&format!(" and gets the configuration {}.\n", config.hash().short())),
        None => text.push_str(", whose configuration is rejected: see `gitamp check`.\n"),
    }
    if group.and_then(|group| group.definition.as_ref()).is_some_and(|definition| definition.suspend) {
        text.push_str("The group is suspended: its agents are left as they are.\n");
    }
    text
}

fn reason(verdict: &Verdict, labels: &Labels) -> String {
    match verdict {
        Verdict::Chosen => "selects it".to_owned(),
        Verdict::Conflict => "selects it, like others of this priority".to_owned(),
        Verdict::Outranked { by } => format!("selects it, but `{by}` has a higher priority"),
        Verdict::Varied { by } => format!("selects it, but its variant `{by}` comes first"),
        Verdict::Unmet { first, unmet } => {
            let more = match unmet - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            format!("wants {first}, {}{more}", first.found_in(labels))
        }
    }
}

fn document(fleet: &RenderedFleet, labels: &Labels, matches: &[Match]) -> Value {
    let conflict: Vec<&str> =
        matches.iter().filter(|one| one.verdict == Verdict::Conflict).map(|one| one.group.as_str()).collect();
    let hash =
        chosen(matches).and_then(|name| fleet.groups.get(name)?.config.as_ref()).map(|one| one.hash().to_string());
    json!({
        "labels": labels.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "group": chosen(matches).map(GroupName::as_str),
        "hash": hash,
        "conflict": conflict,
        "groups": matches.iter().map(describe).collect::<Vec<_>>(),
        "unknown": broken(fleet),
    })
}

fn describe(one: &Match) -> Value {
    let mut value = json!({"group": one.group.as_str(), "priority": one.priority});
    let (verdict, by) = match &one.verdict {
        Verdict::Chosen => ("chosen", None),
        Verdict::Conflict => ("conflict", None),
        Verdict::Outranked { by } => ("outranked", Some(by)),
        Verdict::Varied { by } => ("varied", Some(by)),
        Verdict::Unmet { first, unmet } => {
            value["firstUnmet"] = json!(first.to_string());
            value["unmet"] = json!(unmet);
            ("unmet", None)
        }
    };
    value["verdict"] = json!(verdict);
    if let Some(by) = by {
        value["by"] = json!(by.as_str());
    }
    value
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::fleet::snapshot::{Entry, Snapshot};

    fn fleet() -> RenderedFleet {
        let group = |rest: &str| format!("apiVersion: gitamp/v1\nkind: Group\n{rest}");
        let collector = "receivers: {otlp: }\nexporters: {debug: }\n\
                         service: {pipelines: {logs: {receivers: [otlp], exporters: [debug]}}}\n";
        let variants = "selector: {matchLabels: {service.name: gw}}\npriority: 10\n\
                        variants: [{name: us, selector: {matchLabels: {region: us}}}]\n";
        let entries: BTreeMap<Arc<str>, Entry> = [
            ("all/group.yaml", group("selector: {matchAll: true}\npriority: -1\n")),
            ("all/collector.yaml", collector.to_owned()),
            ("prod/gw/group.yaml", group(variants)),
            ("prod/gw/collector.yaml", collector.to_owned()),
            ("prod/db/group.yaml", group("selector: {matchLabels: {service.name: db, env: prod}}\nsuspend: true\n")),
            ("prod/db/collector.yaml", "service: {}\n".to_owned()),
            (
                "prod/db2/group.yaml",
                group("selector: {matchLabels: {service.name: db}}\nlayers: [/all/collector.yaml]\n"),
            ),
            ("odd/group.yaml", group("selector: {matchAll: 7}\n")),
        ]
        .into_iter()
        .map(|(path, text)| (Arc::from(path), Entry::File(Bytes::from(text))))
        .collect();
        fleet::load(&Snapshot::new(entries), None)
    }

    fn explain(fleet: &RenderedFleet, labels: &[(&str, &str)]) -> (Labels, Vec<Match>) {
        let labels = Labels::new(labels.iter().copied());
        let defined = fleet.groups.iter().filter_map(|(name, group)| Some((name, group.definition.as_deref()?)));
        let matches = Assigner::new(defined).explain(&labels);
        (labels, matches)
    }

    #[test]
    fn the_answer_names_the_group_and_why_not_the_others() {
        let fleet = fleet();
        let (labels, matches) = explain(&fleet, &[("service.name", "gw"), ("region", "us")]);
        let text = human(&fleet, &labels, &matches, false);
        for line in [
            "An agent with region=us, service.name=gw belongs to `prod/gw@us` and gets the configuration ",
            "selects it, but its variant `prod/gw@us` comes first",
            "selects it, but `prod/gw@us` has a higher priority",
            "wants service.name=db, and service.name is \"gw\" (and 1 more)",
            "cannot be told, see `gitamp check`: odd",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let json = document(&fleet, &labels, &matches);
        assert_eq!(json["group"], "prod/gw@us");
        assert_eq!(json["groups"][0]["verdict"], "chosen");
        assert_eq!(json["unknown"], json!(["odd"]));
        assert_eq!(json["hash"].as_str().map(str::len), Some(64));
    }

    #[test]
    fn conflicts_and_rejected_groups_are_said() {
        let fleet = fleet();
        let (labels, matches) = explain(&fleet, &[("service.name", "db"), ("env", "prod")]);
        let text = human(&fleet, &labels, &matches, true);
        assert!(text.contains("is in conflict: `prod/db` and `prod/db2` select it at the same priority"), "{text}");
        assert_eq!(document(&fleet, &labels, &matches)["conflict"], json!(["prod/db", "prod/db2"]));

        let alone = RenderedFleet {
            groups: fleet
                .groups
                .iter()
                .filter(|(name, _)| name.as_str() == "prod/db")
                .map(|(name, group)| (name.clone(), group.clone()))
                .collect(),
            ..RenderedFleet::default()
        };
        let (labels, matches) = explain(&alone, &[("service.name", "db"), ("env", "prod")]);
        let text = human(&alone, &labels, &matches, false);
        assert!(text.contains("belongs to `prod/db`, whose configuration is rejected"), "{text}");
        assert!(text.contains("The group is suspended"), "{text}");
        let (labels, matches) = explain(&alone, &[]);
        let text = human(&alone, &labels, &matches, false);
        assert!(text.starts_with("An agent without labels is unmanaged"), "{text}");
        assert!(text.contains("wants service.name=db, and there is no service.name (and 1 more)"), "{text}");
    }

    #[test]
    fn labels_are_read_as_they_are_written() {
        assert_eq!(read_label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())), "the first `=` separates");
        assert_eq!(read_label("a="), Ok(("a".to_owned(), String::new())), "empty values exist");
        assert!(read_label("=b").is_err());
        assert!(read_label("ab").is_err());
    }
}
