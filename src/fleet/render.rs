//! One group's layers to the one configuration its agents get: merge, substitute, check, emit, hash.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::RenderedConfig;
use crate::fleet::GroupName;
use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::document;
use crate::fleet::family::Planned;
use crate::fleet::fields::any_error;
use crate::fleet::group_file::{Layer, Variables};
use crate::fleet::inheritance::SharedErrors;
use crate::fleet::lint::lint;
use crate::fleet::recipe::{MOST_VARIABLE_BYTES, merge_variables};
use crate::fleet::snapshot::{Limit, Snapshot};
use crate::yaml::{self, Kind, Node, Place};

/// Most nodes of all layers of one group. A large collector configuration has a few thousand.
const MOST_GROUP_NODES: usize = 200_000;

/// Most nodes of all that a fleet is made of, each recipe once: 5,000 for each of 10,000 groups, a few seconds of work. It stops
/// repositories that are made to take for ever.
pub(super) const MOST_FLEET_NODES: usize = 50_000_000;

/// Most nodes that are kept for the next group that uses the same layer, some hundred megabytes; beyond, files are parsed
/// again.
const MOST_KEPT_NODES: usize = 2_000_000;

/// What a recipe comes to with the files as they are, whoever it is for.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// `None` when anything about it is an error.
    pub(super) config: Option<RenderedConfig>,
    /// What is to be said of the merged whole. Findings without a place concern the group.
    findings: Vec<Diagnostic>,
    /// What is to be said of single layers, by their number.
    troubles: Vec<(usize, Trouble)>,
    /// How many nodes its layers have, a measure of the work.
    pub(super) nodes: usize,
}

/// Why a layer cannot be used, or is not worth it.
#[derive(Clone, Debug)]
enum Trouble {
    /// Something is wrong with the file.
    Broken(Arc<[Diagnostic]>),
    /// There is no such file.
    Missing,
    /// Nothing is in it.
    Empty,
    /// The layers up to here are too much.
    TooMuch,
}

impl Outcome {
    /// Everything that is to be said of a group for which this came out. `shared`: what was said to groups before it.
    pub(super) fn tell(
        &self,
        name: &GroupName,
        planned: &Planned,
        snapshot: &Snapshot,
        shared: &mut SharedErrors,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        for (number, trouble) in &self.troubles {
            let Some(Layer { path, place }) = planned.layers.get(*number) else { continue };
            match trouble {
                Trouble::Broken(findings) => shared.tell(path, findings, name, diagnostics),
                Trouble::Missing => diagnostics.push(document::missing(snapshot, path, place).of(name)),
                Trouble::Empty => diagnostics.push(empty_layer(path)),
                Trouble::TooMuch => diagnostics.push(too_much("of one group", place.clone()).of(name)),
            }
        }
        diagnostics.extend(self.findings.iter().map(|finding| {
            let finding = assign(finding.clone(), name);
            Diagnostic { place: finding.place.or_else(|| Some(planned.place.clone())), ..finding }
        }));
    }
}

/// A layer that several groups use.
struct Kept {
    node: Option<Node>,
    nodes: usize,
}

/// Renders recipes from one snapshot. Every file is parsed once.
pub(super) struct Renderer<'s> {
    snapshot: &'s Snapshot,
    /// How many more recipes want each layer; the last one takes it instead of copying it.
    uses: BTreeMap<Arc<str>, usize>,
    kept: BTreeMap<Arc<str>, Kept>,
    kept_nodes: usize,
    broken: BTreeMap<Arc<str>, Arc<[Diagnostic]>>,
}

impl<'s> Renderer<'s> {
    /// A renderer for what is made of these groups, each recipe once.
    pub(super) fn new<'p>(snapshot: &'s Snapshot, groups: impl Iterator<Item = &'p Planned>) -> Self {
        let mut uses = BTreeMap::<Arc<str>, usize>::new();
        for layer in groups.flat_map(|planned| &planned.layers) {
            *uses.entry(layer.path.clone()).or_default() += 1;
        }
        Self { snapshot, uses, kept: BTreeMap::new(), kept_nodes: 0, broken: BTreeMap::new() }
    }

    /// Renders what this group is made of; `None` when that has more than `most` nodes.
    pub(super) fn render(&mut self, planned: &Planned, most: usize) -> Option<Outcome> {
        let Some(vars) = merge_variables(&planned.vars) else {
            let message = format!("the group's variables have more than {MOST_VARIABLE_BYTES} bytes");
            let error = Diagnostic::error("too-large", None, message).help("put long values into a layer");
            return Some(Outcome { findings: vec![error], ..Outcome::default() });
        };
        let mut outcome = Outcome::default();
        let mut merged = None;
        for (number, layer) in planned.layers.iter().enumerate() {
            let (node, nodes) = match self.take_layer(layer) {
                Ok(taken) => taken,
                Err(trouble) => {
                    outcome.troubles.push((number, trouble));
                    continue;
                }
            };
            outcome.nodes += nodes;
            if outcome.nodes > MOST_GROUP_NODES {
                outcome.troubles.push((number, Trouble::TooMuch));
                return Some(outcome);
            }
            if outcome.nodes > most {
                return None;
            }
            merged = match (merged, node) {
                (Some(base), Some(over)) => Some(yaml::merge(base, over)),
                (base, Some(over)) => base.or(Some(over)),
                (base, None) => {
                    outcome.troubles.push((number, Trouble::Empty));
                    base
                }
            };
        }
        if outcome.troubles.iter().all(|(_, trouble)| matches!(trouble, Trouble::Empty)) {
            let most = self.snapshot.limits().config_bytes;
            let (config, findings) = finish(merged, planned.partial, &vars, most);
            (outcome.config, outcome.findings) = (config, document::bounded(findings));
        }
        Some(outcome)
    }

    fn count_use(&mut self, path: &Arc<str>) -> usize {
        let uses = self.uses.get_mut(path).map(|uses| {
            *uses = uses.saturating_sub(1);
            *uses
        });
        uses.unwrap_or(0)
    }

    /// The node of a layer and how many nodes it has.
    fn take_layer(&mut self, layer: &Layer) -> Result<(Option<Node>, usize), Trouble> {
        let more_uses = self.count_use(&layer.path);
        if let Some(broken) = self.broken.get(&layer.path) {
            return Err(Trouble::Broken(broken.clone()));
        }
        if more_uses == 0
            && let Some(last) = self.kept.remove(&layer.path)
        {
            self.kept_nodes -= last.nodes;
            return Ok((last.node, last.nodes));
        }
        if let Some(kept) = self.kept.get(&layer.path) {
            return Ok((kept.node.clone(), kept.nodes));
        }
        let Some(entry) = self.snapshot.get(&layer.path) else { return Err(Trouble::Missing) };
        match document::parse_layer(&layer.path, entry, self.snapshot.limits()).and_then(check_layer) {
            Ok(node) => {
                let nodes = node.as_ref().map_or(0, count_nodes);
                if more_uses > 0 && self.kept_nodes + nodes <= MOST_KEPT_NODES {
                    self.kept_nodes += nodes;
                    self.kept.insert(layer.path.clone(), Kept { node: node.clone(), nodes });
                }
                Ok((node, nodes))
            }
            Err(errors) => {
                let errors: Arc<[Diagnostic]> = errors.into();
                self.broken.insert(layer.path.clone(), errors.clone());
                Err(Trouble::Broken(errors))
            }
        }
    }
}

/// The error of a group with which there is more to render than may be; `whose`: in what.
pub(super) fn too_much(whose: &str, place: Place) -> Diagnostic {
    let message = format!("the layers {whose} have too many values to be rendered");
    Diagnostic::error("too-large", Some(place), message)
}

/// Errors hold back the group; warnings on shared layers concern nobody in particular.
fn assign(finding: Diagnostic, group: &GroupName) -> Diagnostic {
    match finding.severity {
        Severity::Error => finding.of(group),
        Severity::Warning => finding,
    }
}

/// A layer is a map or nothing at all; nothing is allowed, and doubtful.
fn check_layer(node: Option<Node>) -> Result<Option<Node>, Vec<Diagnostic>> {
    let Some(node) = node else { return Ok(None) };
    if node.as_mapping().is_some() {
        return Ok(Some(node));
    }
    let message = format!("a layer must be a map, and this is {}", node.kind_name());
    let help = "a collector configuration begins with `receivers:`, `exporters:` or `service:`";
    Err(vec![Diagnostic::error("wrong-type", Some(node.place), message).help(help)])
}

fn empty_layer(file: &Arc<str>) -> Diagnostic {
    Diagnostic::warning("empty-file", Some(document::top(file)), format!("the layer `/{file}` is empty"))
        .help("an empty layer adds nothing and removes nothing")
}

/// From merged layers to a configuration of at most so many bytes.
fn finish(
    merged: Option<Node>,
    partial: bool,
    vars: &Variables,
    most_bytes: usize,
) -> (Option<RenderedConfig>, Vec<Diagnostic>) {
    let Some(mut node) = merged.filter(|node| node.as_mapping().is_some_and(|entries| !entries.is_empty())) else {
        let message = "the layers of the group say nothing, and an empty configuration is never sent";
        return (None, vec![Diagnostic::error("empty-config", None, message)]);
    };
    let unknown = yaml::substitute(&mut node, vars);
    let ambiguous = yaml::ambiguous_keys(&node);
    let mut findings: Vec<_> = unknown.into_iter().chain(ambiguous).map(document::explain).collect();
    findings.extend(lint(&node, partial));
    if any_error(&findings) {
        return (None, findings);
    }
    let body = yaml::emit(&node);
    if body.len() > most_bytes {
        let message = format!("the configuration has {} bytes, and {most_bytes} are allowed", body.len());
        findings.push(Diagnostic::error("too-large", None, message).over(Limit::ConfigBytes));
        return (None, findings);
    }
    let config = RenderedConfig::new(yaml::config_hash(&node), Bytes::from(body), yaml::component_names(&node));
    (Some(config), findings)
}

fn count_nodes(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 1,
        Kind::Sequence(items) => 1 + items.iter().map(count_nodes).sum::<usize>(),
        Kind::Mapping(entries) => 1 + entries.iter().map(|entry| 1 + count_nodes(&entry.value)).sum::<usize>(),
    }
}
