//! Which groups a snapshot holds, and what each one is once everything above it is inherited.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::document::{self, DEFAULTS_FILE, GROUP_FILE};
use crate::fleet::fields::{Placed, any_error};
use crate::fleet::group_file::{self, GroupFile, Layer, Variables, Variant};
use crate::fleet::inheritance::{Inherited, Levels, SharedErrors};
use crate::fleet::matching::{contradiction, no_selector};
use crate::fleet::policy::{POLICY_FILE, Policy};
use crate::fleet::risks::Risks;
use crate::fleet::snapshot::{Entry, Snapshot};
use crate::fleet::{GroupDefinition, GroupName};
use crate::yaml::Place;

/// Most groups of a fleet, variants included: twice the largest fleet we measure.
const MOST_GROUPS: usize = 20_000;

/// Most layers of one group, inherited ones included.
const MOST_LAYERS: usize = 128;

/// Most conditions of one group's selector, with all that it inherits.
const MOST_CONDITIONS: usize = 128;

/// Most files that are named because of their names or kinds alone.
const MOST_DOUBTFUL: usize = 50;

/// Most bytes of a group's name.
const NAME_BYTES: usize = 255;

/// What the files say of all groups, before anything is rendered.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) groups: BTreeMap<GroupName, Planned>,
    /// Layers of `defaults.yaml` files, used or not.
    pub(super) named_layers: BTreeSet<Arc<str>>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// One group before it is rendered.
#[derive(Debug)]
pub(super) struct Planned {
    /// `None` when its files are too broken to tell.
    pub(super) definition: Option<GroupDefinition>,
    pub(super) layers: Vec<Layer>,
    /// The farthest first: later ones win.
    pub(super) vars: Vec<Arc<Variables>>,
    pub(super) partial: bool,
    /// Whom it waits for, with the places that say so.
    pub(super) depends_on: Vec<Placed<GroupName>>,
    /// Where it is defined.
    pub(super) place: Place,
}

impl Planned {
    fn broken(place: Place) -> Self {
        Self { definition: None, layers: Vec::new(), vars: Vec::new(), partial: false, depends_on: Vec::new(), place }
    }
}

/// Reads every group of the snapshot. `policy` bounds them.
pub(super) fn read_layout(snapshot: &Snapshot, policy: &Policy) -> Layout {
    let mut layout = Layout::default();
    let levels = Levels::read(snapshot, &mut layout.diagnostics);
    layout.diagnostics.extend(doubtful_names(snapshot));
    let mut used_levels = BTreeSet::new();
    let (shared, risks) = (SharedErrors::default(), Risks::default());
    let mut reader = Reader { snapshot, policy, levels: &levels, shared, risks, layout };
    for (path, entry) in snapshot.iter() {
        let (directory, GROUP_FILE) = file_name(path) else { continue };
        used_levels.extend(levels.nearest(directory).map(|(directory, _)| directory.clone()));
        reader.read_group(path, directory, entry);
        if reader.layout.groups.len() > MOST_GROUPS {
            let message = format!("the fleet has more than {MOST_GROUPS} groups");
            let error = Diagnostic::error("too-many", None, message).help("split it over several instances");
            reader.layout.diagnostics.push(error);
            break;
        }
    }
    let mut layout = reader.layout;
    layout.diagnostics.extend(reader.risks.findings());
    layout.diagnostics.extend(levels.unused(&used_levels));
    layout.named_layers = levels.layers().cloned().collect();
    layout
}

/// The directory and the name of a path.
pub(super) fn file_name(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Names that were probably meant to be one of ours, and links that nobody follows; the first of them.
fn doubtful_names(snapshot: &Snapshot) -> Vec<Diagnostic> {
    let warning = |(path, entry): (&Arc<str>, &Entry)| {
        let (_, name) = file_name(path);
        let place = Some(document::top(path));
        if let Some(meant) = meant_name(path, name) {
            let warning = Diagnostic::warning("misnamed-file", place, format!("`{path}` is not read"));
            return Some(warning.help(format!("did you mean `{meant}`?")));
        }
        let (code, what) = match entry {
            Entry::Symlink if !group_file::is_yaml(name) => ("symlink", "symbolic link"),
            Entry::Submodule => ("submodule", "submodule"),
            Entry::Symlink | Entry::File(_) | Entry::TooLarge(_) => return None,
        };
        let help = "groups and layers are read from the directories of this repository only";
        Some(Diagnostic::warning(code, place, format!("`{path}` is a {what} and is not followed")).help(help))
    };
    snapshot.iter().filter_map(warning).take(MOST_DOUBTFUL).collect()
}

struct Reader<'s> {
    snapshot: &'s Snapshot,
    policy: &'s Policy,
    levels: &'s Levels,
    shared: SharedErrors,
    risks: Risks,
    layout: Layout,
}

impl Reader<'_> {
    fn read_group(&mut self, path: &Arc<str>, directory: &str, entry: &Entry) {
        let place = document::top(path);
        let name = GroupName::new(if directory.is_empty() { "." } else { directory });
        if let Err((message, help)) = check_name(directory) {
            let error = Diagnostic::error("bad-name", Some(place.clone()), message).help(help);
            self.layout.diagnostics.push(error.of(&name));
            self.layout.groups.entry(name).or_insert_with(|| Planned::broken(place));
            return;
        }
        let level = self.levels.nearest(directory).map(|(_, level)| level.clone());
        let (group, mut names, findings) = match document::parse_entry(path, entry) {
            Ok(Some(node)) => {
                let (group, findings) = group_file::read_group(&node, directory);
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
        let mut sound = !any_error(&findings);
        // What is wrong with the file is said of the group; its variants, which it takes with it, are told the first error.
        let first = findings.iter().find(|finding| finding.severity == Severity::Error).cloned();
        let told = everybody.iter().skip(1).filter_map(|variant| first.clone().map(|finding| finding.of(variant)));
        self.layout.diagnostics.extend(told);
        self.layout.diagnostics.extend(findings.into_iter().map(|finding| finding.of(&name)));
        for (file, broken) in level.iter().flat_map(|level| level.broken()) {
            sound = false;
            for group in &everybody {
                self.shared.tell(file, broken, group, &mut self.layout.diagnostics);
            }
        }
        match group {
            Some(group) if sound => {
                let inherited = level.map(|level| level.inherited()).unwrap_or_default();
                self.plan(&name, path, directory, &group, inherited);
            }
            Some(_) | None => {
                let broken = everybody.into_iter().map(|group| (group, Planned::broken(place.clone())));
                self.layout.groups.extend(broken);
            }
        }
    }

    /// Adds a group and its variants.
    fn plan(&mut self, name: &GroupName, path: &Arc<str>, directory: &str, group: &GroupFile, inherited: Inherited) {
        let place = document::top(path);
        let own_layers = group.common.layers.clone().unwrap_or_else(|| self.default_layers(directory));
        let inherited_layers = if group.inherit_layers { inherited.layers.clone() } else { Vec::new() };
        let layers: Vec<Layer> = inherited_layers.into_iter().chain(own_layers).collect();
        let with_group = inherited.with(&group.common);
        let Some(selector) = &with_group.selector else {
            let error = no_selector(Some(place.clone()), "the group has no selector, and inherits none");
            self.layout.diagnostics.push(error.of(name));
            self.layout.groups.insert(name.clone(), Planned::broken(place));
            for variant in &group.variants {
                self.layout.groups.insert(variant_name(name, variant), Planned::broken(document::top(path)));
            }
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
        self.risks.look_at(name, &definition, with_group.rollout.written_stages(), self.policy);
        let base = Planned {
            definition: Some(definition),
            layers,
            vars: with_group.vars,
            partial: with_group.partial.unwrap_or(false),
            depends_on: with_group.rollout.dependencies().to_vec(),
            place: group.common.selector.as_ref().map_or(place, |selector| selector.place.clone()),
        };
        let variants: Vec<(GroupName, Planned)> = (0..)
            .zip(&group.variants)
            .map(|(index, variant)| (variant_name(name, variant), self.vary(name, &base, index, variant)))
            .collect();
        for (name, planned) in std::iter::once((name.clone(), base)).chain(variants) {
            self.add(name, planned, &group.priority);
        }
    }

    /// A variant of a planned group.
    fn vary(&mut self, name: &GroupName, base: &Planned, index: u32, variant: &Variant) -> Planned {
        let shared = variant.layers.iter().find(|layer| base.layers.iter().any(|other| other.path == layer.path));
        if let Some(layer) = shared {
            let message = format!("`/{}` is a layer of the whole group already", layer.path);
            let help = "list the group's own layers in `layers`, without those of its variants";
            let warning = Diagnostic::warning("variant-layer", Some(layer.place.clone()), message).help(help);
            self.layout.diagnostics.push(warning.of(&variant_name(name, variant)));
        }
        let definition = base.definition.clone().map(|definition| GroupDefinition {
            selector: definition.selector.and(&variant.selector.value),
            variant_of: Some((name.clone(), index)),
            // What the group expects is counted without those that a variant takes.
            expect: None,
            ..definition
        });
        let mut vars = base.vars.clone();
        vars.push(variant.vars.clone());
        Planned {
            definition,
            layers: base.layers.iter().chain(&variant.layers).cloned().collect(),
            vars,
            partial: base.partial,
            depends_on: base.depends_on.clone(),
            place: variant.selector.place.clone(),
        }
    }

    /// Bounds a planned group by the policy, says what is doubtful about it, and adds it.
    fn add(&mut self, name: GroupName, mut planned: Planned, priority: &Placed<i32>) {
        let bounds = self.policy.bounds(&name);
        let mut findings = Vec::new();
        if let Some((most, path)) = bounds.max_priority.filter(|(most, _)| priority.value > *most) {
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
        if let Some(definition) = &mut planned.definition {
            definition.selector = definition.selector.and(&bounds.selector);
            if definition.selector.requirements().len() > MOST_CONDITIONS {
                let message = format!("the group's selector has more than {MOST_CONDITIONS} conditions");
                let help = "what is inherited counts too";
                findings.push(Diagnostic::error("too-many", Some(planned.place.clone()), message).help(help));
            }
            if let Some(message) = contradiction(&definition.selector) {
                let warning = Diagnostic::warning("never-matches", Some(planned.place.clone()), message);
                findings.push(warning.help("conditions of the directories above and of the boundaries count too"));
            }
        }
        if any_error(&findings) {
            planned.definition = None;
        }
        self.layout.diagnostics.extend(findings.into_iter().map(|finding| finding.of(&name)));
        self.layout.groups.insert(name, planned);
    }

    /// Every `*.yaml` that stands directly in the directory but our own, by name.
    fn default_layers(&self, directory: &str) -> Vec<Layer> {
        document::files_in(self.snapshot, directory)
            .filter(|(path, _)| path.ends_with(".yaml") && !group_file::is_ours(path))
            .map(|(path, _)| Layer { path: path.clone(), place: document::top(path) })
            .collect()
    }
}

fn variant_name(group: &GroupName, variant: &Variant) -> GroupName {
    GroupName::new(format!("{group}@{}", variant.name))
}

/// The one of our file names that a file was probably meant to have.
pub(super) fn meant_name(path: &str, name: &str) -> Option<&'static str> {
    match name {
        "group.yml" | "Group.yaml" => Some(GROUP_FILE),
        "defaults.yml" | "Defaults.yaml" => Some(DEFAULTS_FILE),
        "fleet.yml" if path == name => Some(POLICY_FILE),
        _ => None,
    }
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
