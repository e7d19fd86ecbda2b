//! One group's layers to the one configuration its agents get: merge, substitute, check, emit, hash.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::config::RenderedConfig;
use crate::fleet::GroupName;
use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::document;
use crate::fleet::fields::any_error;
use crate::fleet::group_file::{Layer, Variables};
use crate::fleet::inheritance::SharedErrors;
use crate::fleet::layout::Planned;
use crate::fleet::lint::lint;
use crate::fleet::snapshot::Snapshot;
use crate::yaml::{self, Kind, Node};

/// Most bytes of a rendered configuration: half of the 1 MiB that a message may have by default, because agents report it back
/// with all that they resolved.
pub const MOST_CONFIG_BYTES: usize = 512 << 10;

/// Most nodes of all layers of one group. A large collector configuration has a few thousand.
const MOST_GROUP_NODES: usize = 200_000;

/// Most nodes that rendering a fleet goes through: 5,000 for each of 10,000 groups, a few seconds of work. It stops repositories that
/// are made to take for ever.
const MOST_FLEET_NODES: usize = 50_000_000;

/// Most nodes that are kept for the next group that uses the same layer, some hundred megabytes; beyond, files are parsed
/// again.
const MOST_KEPT_NODES: usize = 2_000_000;

/// Most bytes of all variables of one group, names included.
const MOST_VARIABLE_BYTES: usize = 64 << 10;

/// What a configuration is made of: the layers, a digest of the variables, and whether it is partial. Equal recipes give equal
/// configurations.
type Recipe = (Vec<Arc<str>>, [u8; 32], bool);

/// What came out of a recipe.
type Outcome = (Option<RenderedConfig>, Rc<[Diagnostic]>);

/// A layer that several groups use.
struct Kept {
    node: Option<Node>,
    nodes: usize,
}

/// Renders the groups of one snapshot. Every file is parsed once, every recipe rendered once.
pub(super) struct Renderer<'s> {
    snapshot: &'s Snapshot,
    /// How many more recipes want each layer; the last one takes it instead of copying it.
    uses: BTreeMap<Arc<str>, usize>,
    kept: BTreeMap<Arc<str>, Kept>,
    kept_nodes: usize,
    broken: BTreeMap<Arc<str>, Rc<[Diagnostic]>>,
    shared: SharedErrors,
    outcomes: BTreeMap<Recipe, Outcome>,
    nodes: usize,
}

impl<'s> Renderer<'s> {
    /// A renderer for these groups.
    pub(super) fn new<'p>(snapshot: &'s Snapshot, groups: impl Iterator<Item = &'p Planned>) -> Self {
        let mut uses = BTreeMap::<Arc<str>, usize>::new();
        for layer in groups.flat_map(|planned| &planned.layers) {
            *uses.entry(layer.path.clone()).or_default() += 1;
        }
        Self {
            snapshot,
            uses,
            kept: BTreeMap::new(),
            kept_nodes: 0,
            broken: BTreeMap::new(),
            shared: SharedErrors::default(),
            outcomes: BTreeMap::new(),
            nodes: 0,
        }
    }

    /// Renders one group; `None` when there is an error among the findings.
    pub(super) fn render(&mut self, name: &GroupName, planned: &Planned) -> (Option<RenderedConfig>, Vec<Diagnostic>) {
        let paths = planned.layers.iter().map(|layer| layer.path.clone()).collect();
        let Some(vars) = merge_variables(&planned.vars) else {
            let message = format!("the group's variables have more than {MOST_VARIABLE_BYTES} bytes");
            let error = Diagnostic::error("too-large", Some(planned.place.clone()), message);
            return (None, vec![error.help("put long values into a layer").of(name)]);
        };
        let recipe: Recipe = (paths, digest(&vars), planned.partial);
        if let Some((config, findings)) = self.outcomes.get(&recipe).cloned() {
            // This recipe will not ask for its layers again.
            for layer in &planned.layers {
                self.count_use(&layer.path);
            }
            return (config, findings.iter().cloned().map(|finding| assign(finding, name)).collect());
        }
        let mut findings = Vec::new();
        let Some(merged) = self.merge_layers(name, &planned.layers, &mut findings) else { return (None, findings) };
        let (config, said) = finish(merged, planned, &vars);
        let said = document::bounded(said);
        // Errors of single layers belong to who names them; what is wrong with the whole belongs to the recipe.
        if findings.is_empty() {
            self.outcomes.insert(recipe, (config.clone(), said.clone().into()));
        }
        findings.extend(said.into_iter().map(|finding| assign(finding, name)));
        (config, findings)
    }

    /// Merges the layers in order; `None` when one of them cannot be used.
    fn merge_layers(
        &mut self,
        name: &GroupName,
        layers: &[Layer],
        findings: &mut Vec<Diagnostic>,
    ) -> Option<Option<Node>> {
        let (mut merged, mut nodes): (Option<Node>, usize) = (None, 0);
        for layer in layers {
            let Some((node, count)) = self.take_layer(name, layer, findings) else { continue };
            (nodes, self.nodes) = (nodes + count, self.nodes + count);
            if nodes > MOST_GROUP_NODES || self.nodes > MOST_FLEET_NODES {
                let whose = if nodes > MOST_GROUP_NODES { "of one group" } else { "of the whole fleet" };
                let message = format!("the layers {whose} have too many values to be rendered");
                findings.push(Diagnostic::error("too-large", Some(layer.place.clone()), message).of(name));
                return None;
            }
            merged = match (merged, node) {
                (Some(base), Some(over)) => Some(yaml::merge(base, over)),
                (base, over) => over.or(base),
            };
        }
        (!any_error(findings)).then_some(merged)
    }

    fn count_use(&mut self, path: &Arc<str>) -> usize {
        let uses = self.uses.get_mut(path).map(|uses| {
            *uses = uses.saturating_sub(1);
            *uses
        });
        uses.unwrap_or(0)
    }

    /// The node of a layer and how many nodes it has; says what is wrong when it cannot be used.
    fn take_layer(
        &mut self,
        name: &GroupName,
        layer: &Layer,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<(Option<Node>, usize)> {
        let more_uses = self.count_use(&layer.path);
        if let Some(broken) = self.broken.get(&layer.path) {
            self.shared.tell(&layer.path, broken, name, findings);
            return None;
        }
        if more_uses == 0
            && let Some(last) = self.kept.remove(&layer.path)
        {
            self.kept_nodes -= last.nodes;
            return Some((last.node, last.nodes));
        }
        if let Some(kept) = self.kept.get(&layer.path) {
            return Some((kept.node.clone(), kept.nodes));
        }
        let Some(entry) = self.snapshot.get(&layer.path) else {
            findings.push(document::missing(self.snapshot, &layer.path, &layer.place).of(name));
            return None;
        };
        match document::parse_entry(&layer.path, entry).and_then(|node| check_layer(&layer.path, node, findings)) {
            Ok(node) => {
                let nodes = node.as_ref().map_or(0, count_nodes);
                if more_uses > 0 && self.kept_nodes + nodes <= MOST_KEPT_NODES {
                    self.kept_nodes += nodes;
                    self.kept.insert(layer.path.clone(), Kept { node: node.clone(), nodes });
                }
                Some((node, nodes))
            }
            Err(errors) => {
                self.shared.tell(&layer.path, &errors, name, findings);
                self.broken.insert(layer.path.clone(), errors.into());
                None
            }
        }
    }
}

/// All variables of a group, the nearest winning; `None` when there are too many.
fn merge_variables(levels: &[Arc<Variables>]) -> Option<Variables> {
    let mut merged = Variables::new();
    let mut bytes = 0;
    for (name, value) in levels.iter().flat_map(|level| level.iter()) {
        bytes += name.len() + value.len();
        if bytes > MOST_VARIABLE_BYTES {
            return None;
        }
        merged.insert(name.clone(), value.clone());
    }
    Some(merged)
}

fn digest(vars: &Variables) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in vars.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().into()
}

/// Errors hold back the group; warnings on shared layers concern nobody in particular.
fn assign(finding: Diagnostic, group: &GroupName) -> Diagnostic {
    match finding.severity {
        Severity::Error => finding.of(group),
        Severity::Warning => finding,
    }
}

/// A layer is a map or nothing at all; nothing is allowed, and doubtful.
fn check_layer(
    file: &Arc<str>,
    node: Option<Node>,
    findings: &mut Vec<Diagnostic>,
) -> Result<Option<Node>, Vec<Diagnostic>> {
    let Some(node) = node else {
        let warning =
            Diagnostic::warning("empty-file", Some(document::top(file)), format!("the layer `/{file}` is empty"));
        findings.push(warning.help("an empty layer adds nothing and removes nothing"));
        return Ok(None);
    };
    if node.as_mapping().is_some() {
        return Ok(Some(node));
    }
    let message = format!("a layer must be a map, and this is {}", node.kind_name());
    let help = "a collector configuration begins with `receivers:`, `exporters:` or `service:`";
    Err(vec![Diagnostic::error("wrong-type", Some(node.place), message).help(help)])
}

/// From merged layers to a configuration.
fn finish(merged: Option<Node>, planned: &Planned, vars: &Variables) -> (Option<RenderedConfig>, Vec<Diagnostic>) {
    let Some(mut node) = merged.filter(|node| node.as_mapping().is_some_and(|entries| !entries.is_empty())) else {
        let message = "the layers of the group say nothing, and an empty configuration is never sent";
        return (None, vec![Diagnostic::error("empty-config", Some(planned.place.clone()), message)]);
    };
    let unknown = yaml::substitute(&mut node, vars);
    let ambiguous = yaml::ambiguous_keys(&node);
    let mut findings: Vec<_> = unknown.into_iter().chain(ambiguous).map(document::explain).collect();
    findings.extend(lint(&node, planned.partial));
    if any_error(&findings) {
        return (None, findings);
    }
    let body = yaml::emit(&node);
    if body.len() > MOST_CONFIG_BYTES {
        let message = format!("the configuration has {} bytes, and {MOST_CONFIG_BYTES} are allowed", body.len());
        findings.push(Diagnostic::error("too-large", Some(planned.place.clone()), message));
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
