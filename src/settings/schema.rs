//! The JSON Schema of the settings file, made of the flags of `gitamp serve`: for editors that complete and check while one types.

use clap::{Arg, Args, Command};
use serde_json::{Map, Value, json};

use super::layers::ServeArgs;

/// How a length of time is written.
const DURATION: &str = "^([0-9]+(ms|s|m|h|d))+$";

/// How a number of bytes is written.
const SIZE: &str = "^[0-9]+ ?(B|KiB|MiB)?$";

/// Settings that are one of a few words.
const WORDS: [(&str, &[&str]); 3] = [
    ("verify-mode", &["head", "all", "off"]),
    ("forge", &["github", "gitlab", "gitea", "bitbucket", "off"]),
    ("log-format", &["auto", "human", "json"]),
];

/// Settings that may be switched off, or left to the machine, by a word.
const OR_WORD: [(&str, &str); 7] = [
    ("max-connections", "auto"),
    ("max-connection-rate", "off"),
    ("max-connections-per-address", "off"),
    ("max-connections-per-token", "off"),
    ("max-new-agents", "off"),
    ("max-hook-rate", "off"),
    ("heartbeat-interval", "off"),
];

/// The schema.
pub fn schema() -> Value {
    let command = ServeArgs::augment_args(Command::new("serve"));
    let mut properties = Map::new();
    for argument in command.get_arguments() {
        if let Some(key) = argument.get_long().filter(|key| *key != "config") {
            properties.insert(key.to_owned(), property(key, argument));
        }
    }
    let again = json!({"description": "The same as `revert-pull-request`", "type": "boolean"});
    properties.insert("revertPullRequest".to_owned(), again);
    properties.insert("verify".to_owned(), verify(&properties));
    properties.insert("alerts".to_owned(), alerts());
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of gitamp serve",
        "description": "gitamp.yaml; every key is also a flag and a variable. See docs/running.md",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn property(key: &str, argument: &Arg) -> Value {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let (text, default) = match help.split_once(" [default: ") {
        Some((text, default)) => (text.to_owned(), default.strip_suffix(']')),
        None => (help, None),
    };
    let kind = argument.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    let mut property = match kind {
        Some("BOOL") => json!({"type": "boolean"}),
        Some("NUMBER") if key != "forge-app-installation" => json!({"type": "integer", "minimum": 1}),
        Some("DURATION") => json!({"type": "string", "pattern": DURATION}),
        Some("SIZE") => json!({"type": ["string", "integer"], "pattern": SIZE}),
        Some("1") => json!({"const": 1}),
        Some("ID" | "NUMBER") => json!({"type": ["string", "integer"]}),
        _ => json!({"type": "string"}),
    };
    if let Some((_, words)) = WORDS.iter().find(|(one, _)| *one == key) {
        property = json!({"enum": words});
    }
    if let Some((_, word)) = OR_WORD.iter().find(|(one, _)| *one == key) {
        property = json!({"anyOf": [property, {"const": word}]});
    }
    property["description"] = text.into();
    // What is said in words is part of no value.
    if let Some(default) = default.filter(|default| !default.contains(' ') && !default.starts_with(['$', '~', '/'])) {
        property["default"] = serde_json::from_str(default).unwrap_or_else(|_| default.into());
    }
    property
}

fn verify(flat: &Map<String, Value>) -> Value {
    let same = |key: &str| flat.get(key).cloned().unwrap_or_default();
    json!({
        "description": "Take only commits that are signed: `verify-mode` and so on as one mapping",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "mode": same("verify-mode"),
            "allowedSigners": same("verify-allowed-signers"),
            "keyring": same("verify-keyring"),
        },
    })
}

fn alerts() -> Value {
    let text = |description: &str| json!({"description": description, "type": "string"});
    let one_of = |description: &str, words: &[&str]| json!({"description": description, "enum": words});
    let length = |description: &str, default: &str| json!({"description": description, "type": "string", "pattern": DURATION, "default": default});
    let receiver = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "type"],
        "oneOf": [{"required": ["url"]}, {"required": ["urlFile"]}],
        "properties": {
            "name": {"description": "What it is called in logs, metrics and commands", "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"},
            "type": one_of("What is said to it, and in which form", &["webhook", "slack", "alertmanager"]),
            "url": text("Where it is"),
            "urlFile": text("A file that says where it is, for addresses that are secret"),
            "secretFile": text("A file with what messages are signed with, one a line; webhooks only"),
            "tokenFile": text("A file with a token that goes along"),
            "caFile": text("Certificates that it is known by"),
            "severity": one_of("What is bad enough; warning means both", &["warning", "critical"]),
            "groups": {"description": "Of which groups it hears, like prod/**; nothing: of all", "type": "array", "maxItems": 100, "items": {"type": "string"}},
            "fleet": {"description": "Whether it hears of what concerns no group in particular", "type": "boolean", "default": true},
        },
    });
    json!({
        "description": "Who is told of incidents; see docs/alerts.md",
        "type": "object",
        "additionalProperties": false,
        "required": ["receivers"],
        "properties": {
            "waitsTooLong": length("How long a rollout may stand still", "4h"),
            "staleAfter": length("How long the repository may be out of reach", "15m"),
            "receivers": {"type": "array", "minItems": 1, "maxItems": 32, "items": receiver},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::layers::{self, AlertsArgs, ReceiverArgs, VerifyArgs};
    use super::*;

    fn fields(of: &Value) -> Vec<&str> {
        of.as_object().expect("an object").keys().map(String::as_str).collect()
    }

    #[test]
    fn every_setting_is_known_with_what_stands_in_it() {
        let schema = schema();
        let properties = &schema["properties"];
        let mut known = layers::keys();
        known.extend(["alerts", "revertPullRequest", "verify"].map(str::to_owned));
        known.sort_unstable();
        let mut promised = fields(properties);
        promised.sort_unstable();
        assert_eq!(promised, known);
        let same = |at: &Value, args: Value| assert_eq!(fields(&at["properties"]), fields(&args));
        same(&properties["verify"], serde_json::to_value(VerifyArgs::default()).expect("JSON"));
        same(&properties["alerts"], serde_json::to_value(AlertsArgs::default()).expect("JSON"));
        let receiver = serde_json::to_value(ReceiverArgs::default()).expect("JSON");
        same(&properties["alerts"]["properties"]["receivers"]["items"], receiver);
        for (key, words) in
            WORDS.iter().map(|(key, words)| (*key, *words)).chain(OR_WORD.iter().map(|(key, _)| (*key, &[][..])))
        {
            assert!(properties[key].is_object(), "{key}");
            assert!(words.iter().all(|word| !word.is_empty()));
        }
        for (key, description) in [("repo", "The fleet repository"), ("max-files", "Files below the fleet root")] {
            let said = properties[key]["description"].as_str().unwrap_or_default();
            assert!(said.starts_with(description) && !said.contains("[default"), "{said}");
        }
        assert_eq!(
            (&properties["interval"]["default"], &properties["max-files"]["default"]),
            (&json!("60s"), &json!(200_000))
        );
        assert_eq!(properties["max-connection-rate"]["anyOf"][1], json!({"const": "off"}));
    }

    /// After a change of the settings: `gitamp schema settings > docs/schema/settings.schema.json`.
    #[test]
    fn the_schema_among_the_documentation_is_this_one() {
        let kept: Value = serde_json::from_str(include_str!("../../docs/schema/settings.schema.json")).expect("JSON");
        assert_eq!(kept, schema(), "`gitamp schema settings > docs/schema/settings.schema.json`");
    }
}
