//! Holds the Prometheus rules in `examples/alerts.yml` against the metrics that there are: every name, label and value that a rule uses.

use std::collections::{BTreeMap, BTreeSet};

use gitamp::serve::metrics::{Metrics, classic};
use gitamp::time::Timestamp;
use gitamp::view::{FleetStatus, Phase};
use serde_json::{Value, json};

/// Functions and words of PromQL that the rules use.
const WORDS: [&str; 13] =
    ["absent", "max", "sum", "by", "rate", "increase", "time", "and", "or", "unless", "on", "without", "min"];

/// Labels that Prometheus itself adds.
const ADDED: [&str; 2] = ["instance", "job"];

/// What is scraped from a daemon with one group in each phase, and everything configured.
fn scraped() -> String {
    let phases = [
        Phase::Steady,
        Phase::Unproven,
        Phase::Rolling,
        Phase::Soaking,
        Phase::RollingBack,
        Phase::RolledBack,
        Phase::Undone,
        Phase::Failed,
        Phase::Held,
    ];
    let group = |phase: &Phase| json!({"name": format!("in-{phase}"), "phase": phase, "counts": {}, "waitingOn": [], "failures": [], "diagnostics": []});
    let groups: Vec<Value> = phases.iter().map(group).collect();
    let status: FleetStatus = serde_json::from_value(json!({
        "instance": "default", "version": "0", "now": "2026-11-20T09:30:00Z", "observe": false,
        "sync": {"repository": "x", "stale": true}, "journal": {"localOnly": false}, "forge": {}, "alerts": {},
        "agents": {}, "groups": groups, "commits": [], "diagnostics": []
    }))
    .expect("a status");
    let metrics = Metrics::new();
    metrics.sync_failed(0.5);
    metrics.sync_succeeded(0.5, Timestamp::from_millis(1500));
    for is_good in [true, false] {
        metrics.journal_stored(is_good);
        metrics.journal_pushed(is_good);
    }
    classic(&metrics.open_metrics(&status))
}

/// The values of each label of each metric.
type Known = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn known(text: &str) -> Known {
    let mut known = Known::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name: String = line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let labels = known.entry(name.clone()).or_default();
        let Some(inner) = line[name.len()..].strip_prefix('{').and_then(|rest| rest.split('}').next()) else {
            continue;
        };
        for (label, _, value) in matchers(inner) {
            labels.entry(label).or_default().insert(value);
        }
    }
    known
}

/// `a="b",c=~"d"`: name, operator, value.
fn matchers(inner: &str) -> Vec<(String, String, String)> {
    let parts: Vec<&str> = inner.split('"').collect();
    let pairs = parts.chunks(2).filter(|pair| pair.len() == 2);
    pairs
        .map(|pair| {
            let label: String = pair[0].trim_start_matches([',', ' ']).to_owned();
            let name: String = label.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            (name.clone(), label[name.len()..].trim().to_owned(), pair[1].to_owned())
        })
        .collect()
}

/// Everything that is wrong with a rule.
fn complaints(known: &Known, rule: &Value) -> Vec<String> {
    let name = rule["alert"].as_str().unwrap_or_default();
    let expr = rule["expr"].as_str().unwrap_or_default();
    let mut wrong = Vec::new();
    let mut complain = |what: String| wrong.push(format!("{name}: {what}"));
    if name.is_empty() || expr.is_empty() {
        complain(format!("a rule without `alert` or `expr`: {rule}"));
    }
    for key in ["summary", "description", "runbook"] {
        if rule["annotations"][key].as_str().is_none_or(str::is_empty) {
            complain(format!("no {key}"));
        }
    }
    if !["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap_or_default()) {
        complain("no severity".to_owned());
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = expr;
    // Labels that the result has: those of the last `by (...)`, when there is one.
    let mut left: Option<Vec<String>> = None;
    let mut of_metrics = BTreeSet::new();
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '[') {
        let before = rest[..at].chars().next_back();
        rest = &rest[at..];
        if let Some(range) = rest.strip_prefix('[') {
            rest = range.split_once(']').map_or("", |(_, rest)| rest);
            continue;
        }
        let word: String = rest.chars().take_while(|c| is_word(*c)).collect();
        rest = &rest[word.len()..];
        if before.is_some_and(|c| c.is_ascii_digit()) {
            continue;
        }
        if ["by", "on", "without"].contains(&word.as_str()) {
            let (list, after) =
                rest.trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')')).unwrap_or(("", ""));
            left = Some(list.split(',').map(|label| label.trim().to_owned()).collect());
            rest = after;
        } else if !WORDS.contains(&word.as_str()) {
            let Some(labels) = known.get(&word) else {
                complain(format!("there is no metric `{word}`"));
                continue;
            };
            of_metrics.extend(labels.keys().cloned());
            let inner = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            for (label, operator, value) in inner.map(|(inner, _)| matchers(inner)).unwrap_or_default() {
                let values: Vec<&str> = if operator.contains('~') { value.split('|').collect() } else { vec![&value] };
                match labels.get(&label) {
                    None => complain(format!("`{word}` has no label `{label}`")),
                    Some(there) => {
                        for value in values.iter().filter(|value| !there.contains(**value)) {
                            complain(format!("`{word}` is never `{label}={value}`, but one of {there:?}"));
                        }
                    }
                }
            }
            rest = inner.map_or(rest, |(_, rest)| rest);
        }
    }
    let is_label = |label: &String| ADDED.contains(&label.as_str()) || of_metrics.contains(label);
    for label in left.iter().flatten().filter(|label| !is_label(label)) {
        complain(format!("no metric has the label `{label}` that it is grouped by"));
    }
    for used in rule["annotations"].to_string().split("$labels.").skip(1) {
        let used: String = used.chars().take_while(|c| is_word(*c)).collect();
        if !left.as_ref().is_some_and(|left| left.contains(&used)) {
            complain(format!("its words use the label `{used}`, which the result has not"));
        }
    }
    wrong
}

#[test]
fn every_rule_is_about_metrics_that_there_are() {
    let known = known(&scraped());
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/alerts.yml")).expect("the file");
    let file: Value = serde_yaml::from_str(&file).expect("it is YAML");
    let rules: Vec<&Value> = file["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"))
        .collect();
    assert!(rules.len() >= 10, "only {} rules: does this test still read the file?", rules.len());
    let names: BTreeSet<&str> = rules.iter().filter_map(|rule| rule["alert"].as_str()).collect();
    assert_eq!(names.len(), rules.len(), "names are given once");
    let wrong: Vec<String> = rules.iter().flat_map(|rule| complaints(&known, rule)).collect();
    assert!(wrong.is_empty(), "{}\nof {:#?}", wrong.join("\n"), known.keys());
}

#[test]
fn what_is_wrong_with_a_rule_is_found() {
    let known = known("a_total{result=\"ok\"} 1\na_total{result=\"failed\",kind=\"x\"} 2\nb 3\n");
    let rule = |expr: &str, words: &str| {
        let annotations = json!({"summary": words, "description": "x", "runbook": "x"});
        json!({"alert": "A", "expr": expr, "labels": {"severity": "warning"}, "annotations": annotations})
    };
    for (expr, words, wrong) in [
        (
            "sum by (instance, kind) (rate(a_total{result=~\"ok|failed\"}[15m])) > 0 unless b == 1e3",
            "{{ $labels.kind }}",
            "",
        ),
        ("a > 0", "x", "no metric `a`"),
        ("a_total{result=\"oh\"} > 0", "x", "never `result=oh`"),
        ("a_total{result=~\"ok|no\"} > 0", "x", "never `result=no`"),
        ("a_total{what=\"ok\"} > 0", "x", "no label `what`"),
        ("sum by (what) (b)", "x", "no metric has the label `what`"),
        ("sum by (kind) (a_total)", "{{ $labels.result }}", "use the label `result`"),
        ("b", "", "no summary"),
    ] {
        let found = complaints(&known, &rule(expr, words)).join("\n");
        assert!(if wrong.is_empty() { found.is_empty() } else { found.contains(wrong) }, "{expr}: {found}");
    }
}
