//! What one `group.yaml` comes to once everything above it is inherited: a group, and its variants.

use std::sync::Arc;

use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::document;
use crate::fleet::fields::{Placed, any_error};
use crate::fleet::group_file::{self, GroupFile, Layer, Variables, Variant};
use crate::fleet::inheritance::{self, Inherited, Level};
use crate::fleet::matching::{contradiction, no_selector};
use crate::fleet::policy::{Bounds, Policy};
use crate::fleet::recipe::Recipe;
use crate::fleet::risks::{Risk, risks};
use crate::fleet::snapshot::{Child, Directory, Entry};
use crate::fleet::{GroupDefinition, GroupName};
use crate::yaml::Place;

/// Most layers of one group, inherited ones included.
const MOST_LAYERS: usize = 128;

/// Most conditions of one group's selector, with all that it inherits.
const MOST_CONDITIONS: usize = 128;

/// Most bytes of a group's name.
const NAME_BYTES: usize = 255;

/// One group before it is rendered.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    /// `None` when its files are too broken to tell.
    pub(super) definition: Option<Arc<GroupDefinition>>,
    pub(super) layers: Vec<Layer>,
    /// The paths of the layers, for whoever asks afterwards.
    pub(super) sources: Arc<[Arc<str>]>,
    /// The farthest first: later ones win.
    pub(super) vars: Vec<Arc<Variables>>,
    pub(super) partial: bool,
    /// Whom it waits for, with the places that say so.
    pub(super) depends_on: Vec<Placed<GroupName>>,
    /// Where it is defined.
    pub(super) place: Place,
    /// What its configuration is made of.
    pub(super) recipe: Recipe,
}

impl Planned {
    fn broken(place: Place) -> Self {
        let (layers, vars, depends_on) = (Vec::new(), Vec::new(), Vec::new());
        let sources = Arc::default();
        Self { definition: None, layers, sources, vars, partial: false, depends_on, place, recipe: Recipe::default() }
    }
}

/// A group and its variants, and what they were read from: the same again gives the same again.
#[derive(Debug)]
pub(super) struct Family {
    /// Of its `group.yaml`.
    pub(super) path: Arc<str>,
    directory: Arc<Directory>,
    /// The nearest directory with a `defaults.yaml`.
    pub(super) level: Option<Arc<Level>>,
    /// What the policy left to each when they were planned, and whether it allows fast rollouts.
    judged: Vec<(GroupName, Bounds, bool)>,
    pub(super) groups: Vec<(GroupName, Arc<Planned>)>,
    /// True when a group that has the name by right keeps it.
    pub(super) yields: bool,
    pub(super) findings: Vec<Diagnostic>,
    pub(super) risks: Vec<(Place, Risk)>,
}

impl Family {
    /// Reads a `group.yaml` (`path`, `entry`) that stands in `directory`.
    pub(super) fn read(
        path: &Arc<str>,
        entry: &Entry,
        directory: &Arc<Directory>,
        level: Option<&Arc<Level>>,
        policy: &Policy,
    ) -> Self {
        let mut family = Self {
            path: path.clone(),
            directory: directory.clone(),
            level: level.cloned(),
            judged: Vec::new(),
            groups: Vec::new(),
            yields: false,
            findings: Vec::new(),
            risks: Vec::new(),
        };
        family.fill(entry, policy);
        family
    }

    /// True when reading it from these would give the same.
    pub(super) fn is_of(&self, directory: &Arc<Directory>, level: Option<&Arc<Level>>) -> bool {
        inheritance::is_same(self.level.as_ref(), level) && Arc::ptr_eq(&self.directory, directory)
    }

    /// True when this policy leaves to it what that did under which it was read.
    pub(super) fn is_judged_the_same(&self, policy: &Policy) -> bool {
        let is_same = |(name, bounds, fast): &(GroupName, Bounds, bool)| {
            policy.bounds(name) == *bounds && policy.allows_fast(name) == *fast
        };
        self.judged.iter().all(is_same)
    }

    /// Its groups by their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.iter().map(|(name, _)| name)
    }

    fn fill(&mut self, entry: &Entry, policy: &Policy) {
        let (path, directory) = (self.path.clone(), self.directory.path().clone());
        let place = document::top(&path);
        let name = GroupName::new(if directory.is_empty() { Arc::from(".") } else { directory.clone() });
        if let Err((message, help)) = check_name(&directory) {
            self.findings.push(Diagnostic::error("bad-name", Some(place.clone()), message).help(help).of(&name));
            self.groups.push((name, Arc::new(Planned::broken(place))));
            self.yields = true;
            return;
        }
        let (group, mut names, findings) = match document::parse_entry(&path, entry) {
            Ok(Some(node)) => {
                let (group, findings) = group_file::read_group(&node, &directory);
                (group, group_file::variant_names(&node), findings)
            }
            Ok(None) => {
                let error = Diagnostic::error("empty-file", Some(place.clone()), format!("`{path}` is empty"));
                (None, Vec::new(), vec![error.help("delete it when this is no group any more")])
            }
            Err(findings) => (None, Vec::new(), findings),
        };
        names.dedup();
        let variants = names.iter().map(|variant| GroupName::new(format!("{directory}@{variant}")));
        let everybody: Vec<GroupName> = [name.clone()].into_iter().chain(variants).collect();
        let is_inheritable = self.level.as_ref().is_none_or(|level| !level.is_broken());
        let sound = !any_error(&findings) && is_inheritable;
        // What is wrong with the file is said of the group; its variants, which it takes with it, are told the first error.
        let first = findings.iter().find(|finding| finding.severity == Severity::Error).cloned();
        let told = everybody.iter().skip(1).filter_map(|variant| first.clone().map(|finding| finding.of(variant)));
        self.findings.extend(told);
        self.findings.extend(findings.into_iter().map(|finding| finding.of(&name)));
        match group {
            Some(group) if sound => {
                let inherited = self.level.as_ref().map(|level| level.inherited()).unwrap_or_default();
                self.plan(&name, place, &group, inherited, policy);
            }
            Some(_) | None => {
                let broken = everybody.into_iter().map(|group| (group, Arc::new(Planned::broken(place.clone()))));
                self.groups.extend(broken);
            }
        }
    }

    /// Adds a group and its variants.
    fn plan(&mut self, name: &GroupName, top: Place, group: &GroupFile, inherited: Inherited, policy: &Policy) {
        let own_layers = group.common.layers.clone().unwrap_or_else(|| self.default_layers());
        let inherited_layers = if group.inherit_layers { inherited.layers.clone() } else { Vec::new() };
        let layers: Vec<Layer> = inherited_layers.into_iter().chain(own_layers).collect();
        let with_group = inherited.with(&group.common);
        let Some(selector) = &with_group.selector else {
            let error = no_selector(Some(top.clone()), "the group has no selector, and inherits none");
            self.findings.push(error.of(name));
            let variants = group.variants.iter().map(|variant| variant_name(name, variant));
            let everybody = std::iter::once(name.clone()).chain(variants);
            self.groups.extend(everybody.map(|name| (name, Arc::new(Planned::broken(top.clone())))));
            return;
        };
        let definition = GroupDefinition {
            selector: selector.clone(),
            priority: group.priority.value,
            variant_of: None,
            suspend: with_group.suspend,
            expect: group.expect,
            strategy: with_group.rollout.strategy(),
        };
        if !policy.allows_fast(name) {
            self.risks = risks(&definition, with_group.rollout.written_stages());
        }
        let base = Planned {
            definition: Some(Arc::new(definition)),
            layers,
            sources: Arc::default(),
            vars: with_group.vars,
            partial: with_group.partial.unwrap_or(false),
            depends_on: with_group.rollout.dependencies().to_vec(),
            place: group.common.selector.as_ref().map_or(top, |selector| selector.place.clone()),
            recipe: Recipe::default(),
        };
        let variants: Vec<(GroupName, Planned)> = (0..)
            .zip(&group.variants)
            .map(|(index, variant)| (variant_name(name, variant), self.vary(name, &base, index, variant)))
            .collect();
        for (name, planned) in std::iter::once((name.clone(), base)).chain(variants) {
            self.add(name, planned, &group.priority, policy);
        }
    }

    /// A variant of a planned group.
    fn vary(&mut self, name: &GroupName, base: &Planned, index: u32, variant: &Variant) -> Planned {
        let shared = variant.layers.iter().find(|layer| base.layers.iter().any(|other| other.path == layer.path));
        if let Some(layer) = shared {
            let message = format!("`/{}` is a layer of the whole group already", layer.path);
            let help = "list the group's own layers in `layers`, without those of its variants";
            let warning = Diagnostic::warning("variant-layer", Some(layer.place.clone()), message).help(help);
            self.findings.push(warning.of(&variant_name(name, variant)));
        }
        let definition = base.definition.as_deref().map(|definition| GroupDefinition {
            selector: definition.selector.and(&variant.selector.value),
            variant_of: Some((name.clone(), index)),
            // What the group expects is counted without those that a variant takes.
            expect: None,
            ..definition.clone()
        });
        let mut vars = base.vars.clone();
        vars.push(variant.vars.clone());
        Planned {
            definition: definition.map(Arc::new),
            layers: base.layers.iter().chain(&variant.layers).cloned().collect(),
            vars,
            place: variant.selector.place.clone(),
            ..base.clone()
        }
    }

    /// Bounds a planned group by the policy, says what is doubtful about it, and adds it.
    fn add(&mut self, name: GroupName, mut planned: Planned, priority: &Placed<i32>, policy: &Policy) {
        let bounds = policy.bounds(&name);
        let mut findings = Vec::new();
        if let Some((most, path)) = bounds.max_priority.as_ref().filter(|(most, _)| priority.value > *most) {
            let message =
                format!("priority {} is above {most}, the most that the boundary `{path}` allows", priority.value);
            findings.push(
                Diagnostic::error("above-boundary", Some(priority.place.clone()), message)
                    .help("lower it, or have the boundary in `fleet.yaml` changed first, in a commit of its own"),
            );
        }
        if planned.layers.is_empty() {
            let message = "the group has no layers, and an empty configuration is never sent";
            let help = "put a collector configuration beside `group.yaml`, or name one in `layers`";
            findings.push(Diagnostic::error("no-layers", Some(planned.place.clone()), message).help(help));
        }
        if planned.layers.len() > MOST_LAYERS {
            let message = format!("the group has {} layers, and {MOST_LAYERS} are allowed", planned.layers.len());
            findings.push(Diagnostic::error("too-many", Some(planned.place.clone()), message));
        }
        if let Some(definition) = planned.definition.as_deref() {
            let selector = definition.selector.and(&bounds.selector);
            // Proven or claimed, the same conditions exclude each other.
            let excluded = contradiction(&selector);
            let (selector, strategy) = match &bounds.proven {
                Some(_) => (selector.demanding_proof(), definition.strategy.demanding_proof()),
                None => (selector, definition.strategy.clone()),
            };
            if let Some(path) = bounds.proven.as_ref().filter(|_| selector.requirements().is_empty()) {
                let message =
                    format!("the boundary `{path}` has groups select on proven labels, and this one selects everybody");
                let help = "select on a label that certificates or tokens give: who proved nothing gets nothing here";
                findings.push(Diagnostic::error("selects-unproven", Some(planned.place.clone()), message).help(help));
            }
            if selector.requirements().len() > MOST_CONDITIONS {
                let message = format!("the group's selector has more than {MOST_CONDITIONS} conditions");
                let help = "what is inherited counts too";
                findings.push(Diagnostic::error("too-many", Some(planned.place.clone()), message).help(help));
            }
            if let Some(message) = excluded {
                let warning = Diagnostic::warning("never-matches", Some(planned.place.clone()), message);
                findings.push(warning.help("conditions of the directories above and of the boundaries count too"));
            }
            planned.definition = Some(Arc::new(GroupDefinition { selector, strategy, ..definition.clone() }));
        }
        if any_error(&findings) {
            planned.definition = None;
        }
        planned.recipe = Recipe::new(&planned.layers, &planned.vars, planned.partial);
        planned.sources = planned.layers.iter().map(|layer| layer.path.clone()).collect();
        self.findings.extend(findings.into_iter().map(|finding| finding.of(&name)));
        self.judged.push((name.clone(), bounds, policy.allows_fast(&name)));
        self.groups.push((name, Arc::new(planned)));
    }

    /// Every `*.yaml` that stands directly in the directory but our own, by name.
    fn default_layers(&self) -> Vec<Layer> {
        let layer = |child: &Child| match child {
            Child::File { path, .. } if path.ends_with(".yaml") && !group_file::is_ours(path) => {
                Some(Layer { path: path.clone(), place: document::top(path) })
            }
            Child::File { .. } | Child::Directory(_) => None,
        };
        self.directory.children().iter().filter_map(layer).collect()
    }
}

fn variant_name(group: &GroupName, variant: &Variant) -> GroupName {
    GroupName::new(format!("{group}@{}", variant.name))
}

/// Names go into commands, notes, paths and metrics: no spaces, nothing that a shell or a terminal would take for its own, and
/// no `@`, which stands between a group and its variant.
fn check_name(directory: &str) -> Result<(), (String, &'static str)> {
    if directory.is_empty() {
        let help = "move it into a directory, whose path becomes the group's name: `all/group.yaml`";
        return Err(("a `group.yaml` at the fleet root would be a group without a name".to_owned(), help));
    }
    let allowed = |char: char| char.is_alphanumeric() || matches!(char, '-' | '_' | '.' | '+' | '=' | '/');
    let help = "names have letters, digits, `-`, `_`, `.`, `+` and `=` between their slashes";
    if let Some(char) = directory.chars().find(|char| !allowed(*char)) {
        return Err((format!("a group's path cannot contain `{}`", char.escape_default()), help));
    }
    if directory.split('/').any(|part| part.starts_with('-')) {
        return Err(("a directory of a group's path cannot begin with `-`".to_owned(), help));
    }
    if directory.len() > NAME_BYTES {
        return Err((
            format!("a group's path has {} bytes, and {NAME_BYTES} are allowed", directory.len()),
            "use shorter names",
        ));
    }
    Ok(())
}
