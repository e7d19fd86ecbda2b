//! The names of what a collector configuration really runs.

use crate::config::ComponentNames;
use crate::yaml::node::{Entry, Node};

/// The components that `service` names and its pipelines: `receivers/otlp`, `processors/batch`, `exporters/otlp/eu`,
/// `connectors/forward` (defined below `connectors`, so not also a receiver or an exporter), `extensions/health_check`,
/// `pipelines/traces/2`. What is defined but not used is left out: the collector never starts it.
pub fn component_names(node: &Node) -> ComponentNames {
    let mut names = Vec::new();
    let connectors: Vec<String> = entries(node.get("connectors")).filter_map(|entry| name(&entry.key)).collect();
    let service = node.get("service");
    for extension in items(service.and_then(|service| service.get("extensions"))) {
        names.push(format!("extensions/{extension}"));
    }
    for Entry { key, value } in entries(service.and_then(|service| service.get("pipelines"))) {
        names.extend(name(key).map(|pipeline| format!("pipelines/{pipeline}")));
        for class in ["receivers", "processors", "exporters"] {
            for component in items(value.get(class)) {
                let joins = class != "processors" && connectors.contains(&component);
                names.push(format!("{}/{component}", if joins { "connectors" } else { class }));
            }
        }
    }
    names.into_iter().collect()
}

fn entries(node: Option<&Node>) -> impl Iterator<Item = &Entry> {
    node.and_then(Node::as_mapping).unwrap_or_default().iter()
}

fn items(node: Option<&Node>) -> impl Iterator<Item = String> {
    node.and_then(Node::as_sequence).unwrap_or_default().iter().filter_map(name)
}

/// A component's name as the collector reads it: `type` or `type/name`, white space around either dropped.
fn name(node: &Node) -> Option<String> {
    let text = node.as_str()?;
    let name = match text.split_once('/') {
        Some((kind, name)) => format!("{}/{}", kind.trim(), name.trim()),
        None => text.trim().to_owned(),
    };
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::testing::read;

    #[test]
    fn names_are_those_that_the_service_runs() {
        let text = "
receivers: {otlp: , unused: }
exporters: {otlp/eu: , debug: }
processors: {batch: }
connectors: {forward: , spanmetrics: }
extensions: {health_check: , zpages: }
service:
  extensions: [health_check]
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [\"otlp / eu\", forward]}
    traces/2: {receivers: [forward], exporters: [debug]}
    logs:
";
        let names = component_names(&read(text));
        let names: Vec<&str> = names.iter().collect();
        assert_eq!(
            names,
            [
                "connectors/forward",
                "exporters/debug",
                "exporters/otlp/eu",
                "extensions/health_check",
                "pipelines/logs",
                "pipelines/traces",
                "pipelines/traces/2",
                "processors/batch",
                "receivers/otlp",
            ]
        );
    }

    #[test]
    fn odd_shapes_have_no_names() {
        for text in [
            "{}",
            "service: 1",
            "service: {pipelines: [a], extensions: {a: 1}}",
            "service: {extensions: ['', [a]]}",
            "[]",
        ] {
            assert!(component_names(&read(text)).is_empty(), "{text}");
        }
    }
}
