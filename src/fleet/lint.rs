//! What is wrong with a rendered collector configuration, as far as anybody can tell who has no collector at hand.
//!
//! Errors are only what every collector refuses, or what would cut an agent off; what some distribution may know is a warning.

use std::collections::BTreeMap;

use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::fields::{closest, shorten, wrong_kind};
use crate::fleet::secrets::find_secrets;
use crate::yaml::{Entry, Node, Place};

/// The sections of a collector configuration that define components.
const SECTIONS: [&str; 5] = ["receivers", "processors", "exporters", "connectors", "extensions"];

/// The signals that a pipeline can carry.
const SIGNALS: [&str; 4] = ["traces", "metrics", "logs", "profiles"];

/// Checks the whole configuration. `partial`: the collectors add local parts, so what is used need not be defined here.
pub(super) fn lint(config: &Node, partial: bool) -> Vec<Diagnostic> {
    let Some(entries) = config.as_mapping() else { return vec![wrong_kind(config, "a configuration", "a map")] };
    let mut lint = Lint { config, partial, findings: Vec::new() };
    lint.sections(entries);
    match config.get("service") {
        Some(service) => lint.service(service),
        None if partial => {}
        None => {
            let help = "say in `service.pipelines` what the collector does with what it receives";
            lint.error("no-pipelines", &config.place, "the configuration has no `service`".to_owned(), help);
        }
    }
    lint.findings.extend(find_secrets(config));
    lint.findings
}

struct Lint<'c> {
    config: &'c Node,
    partial: bool,
    findings: Vec<Diagnostic>,
}

/// How pipelines use a connector.
#[derive(Default)]
struct ConnectorUse<'c> {
    receives: Option<&'c Place>,
    exports: Option<&'c Place>,
}

impl<'c> Lint<'c> {
    fn error(&mut self, code: &'static str, place: &Place, message: String, help: &str) {
        self.findings.push(Diagnostic::error(code, Some(place.clone()), message).help(help));
    }

    fn defines(&self, section: &str, id: &str) -> bool {
        let components = self.config.get(section).and_then(Node::as_mapping).unwrap_or_default();
        components.iter().any(|entry| entry.key.as_str().is_some_and(|defined| is_same_component(defined, id)))
    }

    /// The top level: sections are maps of components with well-formed names.
    fn sections(&mut self, entries: &[Entry]) {
        let known: Vec<&str> = SECTIONS.into_iter().chain(["service"]).collect();
        for entry in entries {
            let Some(name) = entry.key.as_str() else { continue };
            if !SECTIONS.contains(&name) {
                if name != "service" {
                    self.unknown_key(entry, name, "a collector configuration", &known);
                }
                continue;
            }
            if entry.value.is_null() {
                continue;
            }
            let Some(components) = entry.value.as_mapping() else {
                self.findings.push(wrong_kind(&entry.value, &format!("`{name}`"), "a map of components"));
                continue;
            };
            for component in components {
                let Some(id) = component.key.as_str() else { continue };
                if !is_component_id(id) {
                    let message = format!("`{}` is no name of a component", shorten(id));
                    self.error("bad-component", &component.key.place, message, "names are `type` or `type/name`");
                } else if name == "extensions" && type_of(id) == "opamp" {
                    self.opamp(&component.key.place, id);
                } else if name == "connectors" && (self.defines("receivers", id) || self.defines("exporters", id)) {
                    let message = format!("`{id}` is a connector and a receiver or exporter at the same time");
                    self.error(
                        "ambiguous-component",
                        &component.key.place,
                        message,
                        "give one of them another name: `type/name`",
                    );
                }
            }
        }
    }

    /// The agent's own connection to us is not ours to configure: with it replaced, no later commit would reach the agent.
    fn opamp(&mut self, place: &Place, id: &str) {
        let message = format!("the extension `{}` is the agent's own connection", shorten(id));
        self.error(
            "opamp-extension",
            place,
            message,
            "remove it: supervisors bring their own, and a collector without one keeps its local part",
        );
    }

    fn unknown_key(&mut self, entry: &Entry, name: &str, what: &str, known: &[&str]) {
        let message = format!("{what} has no `{}`", shorten(name));
        let place = Some(entry.key.place.clone());
        self.findings.push(match closest(name, known) {
            Some(near) => Diagnostic::error("unknown-section", place, message).help(format!("did you mean `{near}`?")),
            None => Diagnostic::warning("unknown-section", place, message).help(format!(
                "the collector knows {}; other keys need a distribution that reads them",
                known.join(", ")
            )),
        });
    }

    fn service(&mut self, service: &'c Node) {
        let known = ["extensions", "pipelines", "telemetry"];
        let Some(entries) = service.as_mapping() else {
            self.findings.push(wrong_kind(service, "`service`", "a map"));
            return;
        };
        for entry in entries {
            if let Some(name) = entry.key.as_str().filter(|name| !known.contains(name)) {
                self.unknown_key(entry, name, "`service`", &known);
            }
        }
        if let Some(extensions) = service.get("extensions").filter(|node| !node.is_null()) {
            for (id, place) in self.references(extensions, "`service.extensions`") {
                if type_of(id) == "opamp" {
                    self.opamp(place, id);
                } else if !self.partial && !self.defines("extensions", id) {
                    self.undefined("extension", "extensions", id, place);
                }
            }
        }
        match service.get("pipelines").filter(|node| !node.is_null()) {
            Some(pipelines) => self.pipelines(pipelines),
            None if self.partial => {}
            None => {
                let help = "say in `service.pipelines` what the collector does with what it receives";
                self.error("no-pipelines", &service.place, "`service` has no `pipelines`".to_owned(), help);
            }
        }
    }

    fn pipelines(&mut self, pipelines: &'c Node) {
        let Some(entries) = pipelines.as_mapping() else {
            self.findings.push(wrong_kind(pipelines, "`service.pipelines`", "a map"));
            return;
        };
        if entries.is_empty() && !self.partial {
            let help = "a collector without a pipeline refuses to start";
            self.error("no-pipelines", &pipelines.place, "`service.pipelines` is empty".to_owned(), help);
        }
        let mut connectors = BTreeMap::new();
        for entry in entries {
            let Some(id) = entry.key.as_str() else { continue };
            if !is_component_id(id) || !SIGNALS.contains(&type_of(id)) {
                let message = format!("`{}` is no pipeline", shorten(id));
                let help = match closest(type_of(id), &SIGNALS) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "pipelines are called `traces`, `metrics`, `logs` or `profiles`, with `/name` behind it for more of one kind".to_owned(),
                };
                self.error("unknown-signal", &entry.key.place, message, &help);
            }
            self.pipeline(id, entry, &mut connectors);
        }
        if !self.partial {
            self.connectors(&connectors);
        }
    }

    fn pipeline(&mut self, id: &str, entry: &'c Entry, connectors: &mut BTreeMap<&'c str, ConnectorUse<'c>>) {
        let known = ["receivers", "processors", "exporters"];
        let what = format!("the pipeline `{}`", shorten(id));
        let Some(fields) = entry.value.as_mapping() else {
            self.findings.push(wrong_kind(&entry.value, &what, "a map"));
            return;
        };
        for field in fields {
            if let Some(name) = field.key.as_str().filter(|name| !known.contains(name)) {
                self.unknown_key(field, name, "a pipeline", &known);
            }
        }
        for (role, section) in [("receiver", "receivers"), ("processor", "processors"), ("exporter", "exporters")] {
            let list = entry.value.get(section).filter(|node| !node.is_null());
            let used = list.map(|list| self.references(list, &format!("`{section}` of {what}"))).unwrap_or_default();
            let is_list = list.is_none_or(|list| list.as_sequence().is_some());
            if used.is_empty() && is_list && role != "processor" && !self.partial {
                let help = "a pipeline needs at least one receiver and one exporter";
                self.error("incomplete-pipeline", &entry.key.place, format!("{what} has no {section}"), help);
            }
            for (id, place) in used {
                let is_connector = role != "processor" && self.defines("connectors", id);
                if is_connector {
                    let uses = connectors.entry(id).or_default();
                    let side = if role == "receiver" { &mut uses.receives } else { &mut uses.exports };
                    side.get_or_insert(place);
                } else if !self.partial && !self.defines(section, id) {
                    self.undefined(role, section, id, place);
                }
            }
        }
    }

    /// A connector joins pipelines: it is an exporter of one and a receiver of another.
    fn connectors(&mut self, connectors: &BTreeMap<&str, ConnectorUse<'_>>) {
        for (id, uses) in connectors {
            let (place, is, is_not) = match (uses.receives, uses.exports) {
                (Some(place), None) => (place, "receives", "exports to it"),
                (None, Some(place)) => (place, "exports", "receives from it"),
                (Some(_), Some(_)) | (None, None) => continue,
            };
            let message = format!("the connector `{}` {is} for a pipeline, and no pipeline {is_not}", shorten(id));
            self.error(
                "half-connector",
                place,
                message,
                "a connector is an exporter of one pipeline and a receiver of another",
            );
        }
    }

    fn undefined(&mut self, role: &str, section: &str, id: &str, place: &Place) {
        let defined: Vec<&str> = ["connectors", section]
            .into_iter()
            .filter(|one| *one == section || matches!(section, "receivers" | "exporters"))
            .filter_map(|section| self.config.get(section)?.as_mapping())
            .flatten()
            .filter_map(|entry| entry.key.as_str())
            .collect();
        let message = format!("the {role} `{}` is used and not defined", shorten(id));
        let help = match closest(id, &defined) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "define it under `{section}`; `partial: true` in group.yaml says that collectors bring parts of their own"
            ),
        };
        self.error("undefined-component", place, message, &help);
    }

    /// The names in a list of components.
    fn references(&mut self, list: &'c Node, what: &str) -> Vec<(&'c str, &'c Place)> {
        let Some(items) = list.as_sequence() else {
            self.findings.push(wrong_kind(list, what, "a list of components"));
            return Vec::new();
        };
        let mut found = Vec::<(&str, &Place)>::new();
        for item in items {
            match item.as_str().filter(|_| !item.is_null()) {
                Some(id) if found.iter().any(|(other, _)| *other == id) => {
                    let message = format!("`{}` stands twice in {what}", shorten(id));
                    self.error("duplicate", &item.place, message, "the collector refuses repeated components");
                }
                Some(id) => found.push((id, &item.place)),
                None => self.findings.push(wrong_kind(item, "a component", "a name")),
            }
        }
        found
    }
}

/// The part before the slash.
fn type_of(id: &str) -> &str {
    id.split_once('/').map_or(id, |(kind, _)| kind).trim()
}

/// True when two names mean one component: the collector drops white space around type and name.
fn is_same_component(one: &str, other: &str) -> bool {
    one == other || one.split('/').map(str::trim).eq(other.split('/').map(str::trim))
}

/// `type` or `type/name`, as the collector reads it: the type begins with a letter and has letters, digits and `_`. What a scheme
/// (`${env:NAME}`) will resolve is left to the collector.
fn is_component_id(id: &str) -> bool {
    let (kind, name) = id.split_once('/').map_or((id, None), |(kind, name)| (kind, Some(name)));
    let kind = kind.trim();
    let well_formed = kind.starts_with(|char: char| char.is_ascii_alphabetic())
        && kind.len() <= 63
        && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (well_formed && name.is_none_or(|name| !name.trim().is_empty())) || id.contains("${")
}
