//! Forms of messages, signatures, selection, and what survives a restart.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::alert::payload;
use crate::alert::post::signature;
use crate::alert::store::Store;
use crate::alert::watcher::Concern;
use crate::incident::desk::{self, Delivery, Event};
use crate::incident::{Commit, Incident, Part, Section, Severity, Situation, Topic, watch};
use crate::settings::alerts::{Address, Least, Receiver, ReceiverKind, parse_url};
use crate::settings::{Secret, SecretFile};
use crate::time::Timestamp;
use crate::view::{Counts, FailureCluster};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn section(situation: Situation, ended: Option<Timestamp>) -> Section {
    let failure = FailureCluster {
        message: "cannot <!channel> `start` & stop".to_owned(),
        count: 3,
        example: "a1".to_owned(),
        ..FailureCluster::default()
    };
    let part = Part {
        situation,
        severity: situation.severity(),
        message: "3 agents failed, 0 may (maxFailures)".to_owned(),
        stage: Some("canary".to_owned()),
        counts: Counts { selected: 40, failed: 3, ..Counts::default() },
        failures: vec![failure],
        mark: None,
        ending: None,
    };
    Section { worst: part.severity, part, since: NOW, ended }
}

fn incident(groups: &[&str], situation: Situation, ended: Option<Timestamp>) -> Incident {
    Incident {
        id: "0123456789abcdef".to_owned(),
        instance: "blue".to_owned(),
        topic: Topic::Rollout,
        commit: Some(Commit {
            revision: "main@sha1:1111111111111111111111111111111111111111".to_owned(),
            subject: "Raise <the> limit".to_owned(),
            author: "Ada <ada@example.com>".to_owned(),
        }),
        since: NOW,
        ended,
        sections: groups.iter().map(|name| ((*name).to_owned(), section(situation, ended))).collect(),
    }
}

fn delivery(event: Event, incident: Incident, named: &[(&str, Severity)]) -> Delivery {
    let named = named.iter().map(|(name, severity)| ((*name).to_owned(), *severity)).collect();
    Delivery { event, incident, sequence: 1, named }
}

#[test]
fn the_webhooks_form_is_the_one_that_the_documentation_shows() {
    let message = payload::webhook(&delivery(Event::Opened, incident(&["gw"], Situation::RolledBack, None), &[]), NOW);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts.md")).expect("the page");
    let shown = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let shown: Value = serde_json::from_str(shown).expect("the example is JSON");
    fn keys(value: &Value) -> Vec<String> {
        match value {
            Value::Object(object) => object
                .iter()
                .flat_map(|(key, value)| {
                    let inner = keys(value).into_iter().map(move |inner| format!("{key}.{inner}"));
                    std::iter::once(key.clone()).chain(inner)
                })
                .collect(),
            Value::Array(all) => all.first().map(keys).unwrap_or_default(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        }
    }
    assert_eq!(keys(&message), keys(&shown), "{message:#}");
    for (key, value) in [
        ("version", json!(1)),
        ("event", json!("opened")),
        ("status", json!("firing")),
        ("situation", json!("rolled-back")),
        ("severity", json!("critical")),
        ("sentAt", json!("2027-01-15T08:00:00Z")),
    ] {
        assert_eq!(message[key], value, "{key}");
    }
    assert_eq!(message["groups"][0]["failures"][0]["count"], 3);
    let over =
        payload::webhook(&delivery(Event::Resolved, incident(&["gw"], Situation::RolledBack, Some(NOW)), &[]), NOW);
    assert_eq!(
        (&over["status"], &over["endedAt"], &over["advice"]),
        (&json!("resolved"), &json!("2027-01-15T08:00:00Z"), &json!([]))
    );
}

#[test]
fn nobody_is_called_and_nothing_is_linked_in_a_chat() {
    let message =
        payload::slack(&delivery(Event::Opened, incident(&["gw"], Situation::RolledBack, None), &[])).to_string();
    for word in
        ["*[critical]*", "rolled back, 3 agents failed", "&lt;!channel&gt;", "git revert 1111111", "canary", "#e01e5a"]
    {
        assert!(message.contains(word), "`{word}` is missing in {message}");
    }
    for word in ["<!channel>", "<the>", "<ada@"] {
        assert!(!message.contains(word), "`{word}` is in {message}");
    }
    let over = payload::slack(&delivery(Event::Resolved, incident(&["gw"], Situation::RolledBack, Some(NOW)), &[]))
        .to_string();
    assert!(
        over.contains("*[resolved]*") && over.contains("the group moved on") && !over.contains("git revert"),
        "{over}"
    );
    assert!(payload::slack_test("blue").to_string().contains("nothing is wrong"));
}

#[test]
fn alertmanager_gets_an_alert_a_group_and_an_end_for_each() {
    let first = payload::alertmanager(
        &delivery(Event::Opened, incident(&["a", "b"], Situation::AgentsFailing, None), &[]),
        NOW,
    );
    let labels = &first[0]["labels"];
    for (key, value) in [
        ("alertname", "GitampRollout"),
        ("group", "a"),
        ("severity", "warning"),
        ("incident", "0123456789abcdef"),
        ("gitamp_instance", "blue"),
        ("commit", "1111111111111111111111111111111111111111"),
    ] {
        assert_eq!(labels[key], value, "{key}");
    }
    assert_eq!(first.as_array().map(Vec::len), Some(2));
    assert_eq!(first[0]["endsAt"], json!(NOW + payload::LIFE), "it lives until it is told again");
    assert!(payload::REPEAT * 3 < payload::LIFE, "two tries may fail");
    // Another severity is another alert there: the one before is ended.
    let named = [("a", Severity::Warning)];
    let worse =
        payload::alertmanager(&delivery(Event::Updated, incident(&["a"], Situation::RolledBack, None), &named), NOW);
    let ends: Vec<(&Value, &Value)> = worse
        .as_array()
        .expect("alerts")
        .iter()
        .map(|alert| (&alert["labels"]["severity"], &alert["endsAt"]))
        .collect();
    assert_eq!(ends, [(&json!("critical"), &json!(NOW + payload::LIFE)), (&json!("warning"), &json!(NOW))]);
    let named = [("a", Severity::Critical)];
    let over = payload::alertmanager(
        &delivery(Event::Resolved, incident(&["a"], Situation::RolledBack, Some(NOW)), &named),
        NOW,
    );
    assert_eq!(over.as_array().map(Vec::len), Some(1));
    assert_eq!((&over[0]["labels"]["severity"], &over[0]["endsAt"]), (&json!("critical"), &json!(NOW)));
}

#[test]
fn signatures_are_those_of_standard_webhooks() {
    // The example of the specification's libraries.
    let key = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let body = br#"{"test": 2432232314}"#;
    let signed = signature(std::slice::from_ref(&key), "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body);
    assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    let plain = Secret::new(String::from_utf8(STANDARD.decode("aHVudGVyMg==").expect("base64")).expect("text"));
    let both = signature(&[key, plain], "x", "1", body).expect("two signatures");
    assert_eq!(both.split(' ').count(), 2, "one a key, while one replaces another");
    assert_eq!(signature(&[], "x", "1", body), None);
}

fn receiver(least: Least, groups: &[&str], fleet: bool) -> Receiver {
    Receiver {
        name: "ops".to_owned(),
        kind: ReceiverKind::Webhook,
        address: Address::Said(parse_url("https://example.com/s3cret").expect("an address")),
        secret: None,
        token: None,
        ca_file: None,
        least,
        groups: groups.iter().map(|glob| (*glob).to_owned()).collect(),
        fleet,
        proxies: crate::settings::proxy::Proxies::default(),
        largest_answer: 1 << 20,
    }
}

#[test]
fn receivers_hear_of_their_groups_and_of_what_is_bad_enough() {
    let prod = incident(&["prod/a", "prod/a@us", "staging/b"], Situation::RolledBack, None);
    let warning = incident(&["prod/a"], Situation::AgentsFailing, None);
    let mut fleet = incident(&[""], Situation::SyncStale, None);
    fleet.commit = None;
    let all = [prod, warning, fleet];
    for (receiver, heard) in [
        (receiver(Least::Warning, &[], true), vec![3, 1, 1]),
        (receiver(Least::Critical, &[], true), vec![3, 1]),
        (receiver(Least::Warning, &["prod/**"], false), vec![2, 1]),
        (receiver(Least::Critical, &["staging/*"], false), vec![1]),
        (receiver(Least::Critical, &["prod/a"], false), vec![2]),
        (receiver(Least::Warning, &["*"], true), vec![1]),
    ] {
        let own = Concern::of(&receiver).select(&all);
        let sections: Vec<usize> = own.iter().map(|incident| incident.sections.len()).collect();
        assert_eq!(sections, heard, "{receiver:?}");
        assert!(!format!("{receiver:?}").contains("s3cret"));
    }
}

#[test]
fn alertmanager_hears_nothing_of_a_time_that_is_not_there_yet_by_its_clock() {
    // Our clock was ahead when the incident ended.
    let clock = Timestamp::from_millis(NOW.as_millis() - 3_600_000);
    let named = [("a", Severity::Critical)];
    let over = delivery(Event::Resolved, incident(&["a"], Situation::RolledBack, Some(NOW)), &named);
    let over = payload::alertmanager(&over, clock);
    assert_eq!((&over[0]["startsAt"], &over[0]["endsAt"]), (&json!(clock), &json!(clock)), "{over:#}");
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_costs_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, warning) = Store::open(directory.path());
    assert_eq!(warning, None, "there is none at first");
    store.set_told("ops", desk::Memory::default());
    store.set_incidents(watch::Memory::default());
    store.keep().await.expect("it can be written");
    assert!(directory.path().join("alerts.json").is_file());
    let (again, warning) = Store::open(directory.path());
    assert_eq!((warning, again.told("ops")), (None, BTreeMap::new()));
    for (text, words) in
        [("{", "EOF"), (r#"{"version": 99}"#, "newer gitamp"), (r#"{"version": 1, "told": 3}"#, "invalid type")]
    {
        std::fs::write(directory.path().join("alerts.json"), text).expect("writing");
        let (_, warning) = Store::open(directory.path());
        let warning = warning.expect("it is said");
        assert!(warning.contains(words) && warning.contains("alerts.json"), "{warning}");
    }
    let url = directory.path().join("url");
    std::fs::write(&url, "hooks.example.com/s3cret").expect("writing");
    std::fs::set_permissions(&url, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    let error = Address::File(SecretFile::new(&url)).get().expect_err("no address").to_string();
    assert!(error.contains("url") && !error.contains("s3cret"), "{error}");
}
