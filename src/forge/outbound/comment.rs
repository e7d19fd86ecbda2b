//! The text of the comment on a merged pull request: what became of each group, how agents failed, and how to go back. Pure.

use crate::fleet::snapshot::CommitId;
use crate::view::text::{block, clip, code, code_in_cell};
use crate::view::{CommitReport, Ending, GroupReport};

/// Groups that the table names; the others are counted.
const MOST_ROWS: usize = 50;

/// Clusters of failures that are quoted for all groups together.
const MOST_CLUSTERS: usize = 10;

/// Characters of one agent's words.
const LONGEST_WORDS: usize = 300;

/// What makes a comment ours, so that it is found again after a restart. It is invisible on every forge.
pub fn marker(instance: &str, commit: CommitId) -> String {
    format!("<!-- gitamp:{instance}:{commit} -->")
}

/// The whole comment. `revert`: the pull request that reverts, when there is one.
pub fn body(commit: CommitId, report: &CommitReport, is_open: bool, instance: &str, revert: Option<&str>) -> String {
    let mut text = marker(instance, commit);
    text.push_str(&format!("\n**gitamp** {}: {}\n\n", code(instance), headline(report, is_open)));
    text.push_str(&table(report));
    text.push_str(&failures(report));
    if !report.diagnostics.is_empty() {
        text.push_str("\nWhat is wrong with the files:\n\n");
        text.push_str(&block(&clipped(&report.diagnostics)));
    }
    if let Some(address) = revert.filter(|address| is_plain_address(address)) {
        text.push_str(&format!("\nA pull request takes it back: {address}\n"));
    } else if is_bad(report.ending) || report.groups.values().any(|part| is_bad(part.ending)) {
        text.push_str(&format!("\nTo take it back in Git as well: `git revert {}`, and merge that. ", commit.short()));
        text.push_str(
            "What was stable before goes to everybody at once, and agents that have it already are sent nothing.\n",
        );
    }
    text
}

/// A table of the groups; also the evidence of a revert.
pub fn table(report: &CommitReport) -> String {
    if report.groups.is_empty() {
        return String::new();
    }
    let mut text = "| group | | confirmed | failed | waits for |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for (name, part) in report.groups.iter().take(MOST_ROWS) {
        let counts = &part.counts;
        let waits = part.waiting_on.iter().map(|waiting| waiting.message.as_str()).collect::<Vec<_>>().join("; ");
        text.push_str(&format!(
            "| {} | {} | {} of {} | {} | {} |\n",
            code_in_cell(&clip(name, 200)),
            standing(part),
            counts.confirmed,
            counts.selected,
            counts.failed,
            code_in_cell(&clip(&waits, LONGEST_WORDS)),
        ));
    }
    let more = report.groups.len().saturating_sub(MOST_ROWS) + report.more_groups.values().sum::<usize>();
    if more > 0 {
        text.push_str(&format!("\nand {more} more groups\n"));
    }
    text
}

/// How agents failed, quoted so that nothing in it has an effect.
pub fn failures(report: &CommitReport) -> String {
    let clusters =
        report.groups.iter().flat_map(|(name, part)| part.failures.iter().map(move |cluster| (name, cluster)));
    let lines: Vec<String> = clusters
        .take(MOST_CLUSTERS)
        .flat_map(|(name, cluster)| {
            let what = format!("{name}: {} x {}", cluster.count, clip(&cluster.message, LONGEST_WORDS));
            let example = format!("- for example {}", clip(&cluster.example, 100));
            let shared = cluster.commonality().map(|shared| format!("- {}", clip(&shared, LONGEST_WORDS)));
            [Some(what), Some(example), shared].into_iter().flatten()
        })
        .collect();
    let files: Vec<String> = report
        .groups
        .iter()
        .filter(|(_, part)| part.ending == Some(Ending::Rejected))
        .flat_map(|(name, part)| part.diagnostics.iter().map(move |finding| format!("{name}: {finding}")))
        .take(MOST_CLUSTERS)
        .collect();
    let mut text = String::new();
    if !lines.is_empty() {
        text.push_str("\nWhat agents said:\n\n");
        text.push_str(&block(&lines));
    }
    if !files.is_empty() {
        text.push_str("\nWhat was rejected:\n\n");
        text.push_str(&block(&clipped(&files)));
    }
    text
}

fn clipped(lines: &[String]) -> Vec<String> {
    lines.iter().take(MOST_CLUSTERS).map(|line| clip(line, LONGEST_WORDS)).collect()
}

fn is_bad(ending: Option<Ending>) -> bool {
    match ending {
        Some(Ending::Failed | Ending::RolledBack) => true,
        Some(Ending::Succeeded | Ending::Superseded | Ending::NoOp | Ending::Rejected | Ending::Unproven) | None => {
            false
        }
    }
}

fn headline(report: &CommitReport, is_open: bool) -> String {
    let done =
        report.groups.values().filter(|part| part.ending.is_some_and(|ending| ending != Ending::Unproven)).count();
    match report.ending.filter(|ending| !is_open || *ending != Ending::Unproven) {
        Some(ending) => format!("**{ending}**"),
        None if is_open => format!("on its way, {done} of {} groups done", report.groups.len()),
        None => format!("**{}**", Ending::Superseded),
    }
}

fn standing(part: &GroupReport) -> String {
    match (part.ending, &part.stage) {
        (Some(ending), _) => ending.to_string(),
        (None, Some(stage)) => format!("stage {}", code_in_cell(&clip(stage, 100))),
        (None, None) => "waits".to_owned(),
    }
}

/// What a forge said where its pull request is: shown as it is, so it must be an address and nothing else.
fn is_plain_address(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()))
        && !text.contains(|c: char| c.is_control() || c.is_whitespace() || "<>()[]`\"'".contains(c))
}
