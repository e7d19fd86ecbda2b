//! The forms in which receivers take a message: JSON of our own, Slack's, Alertmanager's. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use crate::incident::desk::{Delivery, Event};
use crate::incident::{Incident, Section, Severity, words};
use crate::time::Timestamp;
use crate::view::text::{block, clip, plain};

/// The version of our own form: a reader that knows it can rely on every field that the documentation names.
pub const VERSION: u32 = 1;

/// Groups that a webhook's message names; the others are counted.
const MOST_GROUPS: usize = 100;

/// Groups that a chat's message names.
const MOST_LINES: usize = 10;

/// Clusters of failures that a chat's message quotes.
const MOST_CLUSTERS: usize = 5;

/// Characters of an agent's words in a chat.
const LONGEST_WORDS: usize = 300;

/// An alert that Alertmanager hears nothing more of ends after this. It is told every minute.
pub const LIFE: Duration = Duration::from_secs(300);

/// How often Alertmanager is told of what has not ended.
pub const REPEAT: Duration = Duration::from_secs(60);

/// The message in our own form.
pub fn webhook(delivery: &Delivery, now: Timestamp) -> Value {
    let Delivery { event, incident, sequence, named: _ } = delivery;
    let worst = incident.worst().map(|(_, section)| section);
    let mut message = json!({
        "version": VERSION,
        "event": event.name(),
        "status": if incident.ended.is_some() { "resolved" } else { "firing" },
        "id": incident.id,
        "sequence": sequence,
        "sentAt": now,
        "instance": incident.instance,
        "severity": incident.severity(),
        "topic": incident.topic,
        "situation": worst.map(|section| section.part.situation),
        "title": words::title(incident),
        "message": worst.map(|section| section.part.message.as_str()).unwrap_or_default(),
        "advice": if incident.ended.is_some() { Vec::new() } else { words::advice(incident) },
        "since": incident.since,
    });
    if let Some(ended) = incident.ended {
        message["endedAt"] = json!(ended);
    }
    if let Some(commit) = &incident.commit {
        message["commit"] =
            json!({"id": commit.id(), "revision": commit.revision, "subject": commit.subject, "author": commit.author});
    }
    let named = || incident.sections.iter().filter(|(name, _)| !name.is_empty());
    message["groups"] = named().take(MOST_GROUPS).map(|(name, section)| group(name, section)).collect();
    message["moreGroups"] = json!(named().count().saturating_sub(MOST_GROUPS));
    message
}

fn group(name: &str, section: &Section) -> Value {
    let part = &section.part;
    let mut group = json!({
        "name": name,
        "situation": part.situation,
        "severity": part.severity,
        "message": part.message,
        "counts": part.counts,
        "failures": part.failures,
        "since": section.since,
    });
    if let Some(stage) = &part.stage {
        group["stage"] = json!(stage);
    }
    if let Some(ended) = section.ended {
        group["endedAt"] = json!(ended);
    }
    group
}

/// What asks a receiver whether it hears us, in our own form.
pub fn webhook_test(instance: &str, now: Timestamp) -> Value {
    json!({
        "version": VERSION,
        "event": "test",
        "status": "resolved",
        "id": "test",
        "sequence": 1,
        "sentAt": now,
        "instance": instance,
        "severity": "warning",
        "topic": "test",
        "title": TEST,
        "message": TEST,
        "advice": [],
        "since": now,
        "endedAt": now,
        "groups": [],
        "moreGroups": 0,
    })
}

/// What a test says.
const TEST: &str = "a test of gitamp's alerts: nothing is wrong";

/// The message as Slack's incoming webhooks take it, and what imitates them: text, and one attachment with a colour.
pub fn slack(delivery: &Delivery) -> Value {
    let Delivery { event, incident, .. } = delivery;
    let word = match event {
        Event::Opened => incident.severity().to_string(),
        Event::Updated | Event::Repeated => format!("{}, changed", incident.severity()),
        Event::Resolved => "resolved".to_owned(),
    };
    let title = escaped(&words::title(incident));
    let colour = match (incident.ended, incident.severity()) {
        (Some(_), _) => "#2eb67d",
        (None, Severity::Warning) => "#ecb22e",
        (None, Severity::Critical) => "#e01e5a",
    };
    let attachment = json!({
        "color": colour,
        "fallback": title,
        "text": details(incident),
        "mrkdwn_in": ["text"],
        "footer": escaped(&format!("gitamp {}, incident {}", incident.instance, incident.id)),
        "ts": incident.ended.unwrap_or(incident.since).as_millis() / 1000,
    });
    json!({"text": format!("*[{word}]* {title}"), "attachments": [attachment]})
}

/// What asks whether a channel hears us.
pub fn slack_test(instance: &str) -> Value {
    json!({"text": format!("*[test]* {} ({})", escaped(TEST), escaped(instance))})
}

fn details(incident: &Incident) -> String {
    if incident.ended.is_some() {
        return words::ending(incident).to_owned();
    }
    let mut text = String::new();
    let open: Vec<_> = incident.sections.iter().filter(|(_, section)| section.ended.is_none()).collect();
    for (name, section) in open.iter().take(MOST_LINES) {
        let part = &section.part;
        let name = if name.is_empty() { String::new() } else { format!("*{}*: ", escaped(name)) };
        let stage = part.stage.as_ref().map_or_else(String::new, |stage| format!(", stage {}", escaped(stage)));
        let counts = &part.counts;
        let agents = match counts.selected {
            0 => String::new(),
            selected => format!(" ({} of {selected} confirmed, {} failed{stage})", counts.confirmed, counts.failed),
        };
        text.push_str(&format!("{name}{}{agents}\n", escaped(&clip(&part.message, LONGEST_WORDS))));
    }
    if open.len() > MOST_LINES {
        text.push_str(&format!("and {} more groups\n", open.len() - MOST_LINES));
    }
    let quoted = clusters(incident);
    if !quoted.is_empty() {
        // Slack knows no language behind a fence.
        text.push_str(&escaped(&block(&quoted).replacen("```text\n", "```\n", 1)));
    }
    for step in words::advice(incident) {
        text.push_str(&format!("• {}\n", escaped(&step)));
    }
    text
}

/// What agents said, one line a cluster, and what those agents have in common.
fn clusters(incident: &Incident) -> Vec<String> {
    let all = incident.sections.values().flat_map(|section| &section.part.failures);
    all.take(MOST_CLUSTERS)
        .flat_map(|cluster| {
            let said = clip(&cluster.message, LONGEST_WORDS).replace('`', "'");
            let what = format!("{} x {said} (for example {})", cluster.count, clip(&cluster.example, 100));
            [Some(what), cluster.commonality().map(|shared| clip(&shared, LONGEST_WORDS).replace('`', "'"))]
        })
        .flatten()
        .collect()
}

/// Slack's three special characters, so that no word of an agent or a committer mentions anybody or makes a link.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The alerts as Alertmanager's `POST /api/v2/alerts` takes them: one for each group, and an end for each that was named before and is not
/// any more, or now with another severity.
pub fn alertmanager(delivery: &Delivery, now: Timestamp) -> Value {
    let Delivery { incident, named, .. } = delivery;
    let advice = words::advice(incident).join("\n");
    let annotations = |section: &Section| {
        let quoted: Vec<String> = section
            .part
            .failures
            .iter()
            .take(MOST_CLUSTERS)
            .map(|cluster| format!("{} x {}", cluster.count, cluster.message))
            .collect();
        let mut annotations = json!({
            "summary": words::title(incident),
            "description": section.part.message,
            "situation": section.part.situation,
            "runbook": advice,
        });
        if !quoted.is_empty() {
            annotations["failures"] = json!(plain(&quoted.join("; ")));
        }
        if let Some(commit) = &incident.commit {
            annotations["subject"] = json!(commit.subject);
            annotations["author"] = json!(commit.author);
        }
        annotations
    };
    let mut alerts = Vec::new();
    for (name, section) in &incident.sections {
        let severity = section.part.severity;
        let before = named.get(name).copied();
        let mut add = |severity: Severity, ends: Timestamp| {
            alerts.push(json!({
                "labels": labels(incident, name, severity),
                "annotations": annotations(section),
                // By the receiver's clock, which may be behind ours: nothing begins after its end, and what is over is not still to end.
                "startsAt": section.since.min(ends),
                "endsAt": ends,
            }));
        };
        if section.ended.is_none() {
            add(severity, now + LIFE);
        }
        if let Some(before) = before.filter(|before| section.ended.is_some() || *before != severity) {
            add(before, section.ended.map_or(now, |ended| ended.min(now)));
        }
    }
    alerts.into()
}

/// Labels tell one alert from another: they stay the same for as long as its severity does.
fn labels(incident: &Incident, group: &str, severity: Severity) -> Value {
    let topic = incident.topic.name();
    let mut letters = topic.chars();
    let name: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let mut labels = json!({
        "alertname": format!("Gitamp{name}"),
        "gitamp_instance": incident.instance,
        "incident": incident.id,
        "severity": severity,
        "topic": topic,
    });
    if !group.is_empty() {
        labels["group"] = json!(group);
    }
    if let Some(commit) = &incident.commit {
        labels["commit"] = json!(commit.id());
    }
    labels
}

/// What asks whether Alertmanager hears us: an alert that is over already.
pub fn alertmanager_test(instance: &str, now: Timestamp) -> Value {
    json!([{
        "labels": {"alertname": "GitampTest", "gitamp_instance": instance, "severity": "warning"},
        "annotations": {"summary": TEST},
        "startsAt": now,
        "endsAt": now,
    }])
}
