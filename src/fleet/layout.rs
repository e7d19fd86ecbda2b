//! Which groups a snapshot holds, and what each one is once everything above it is inherited.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::document::{self, DEFAULTS_FILE, GROUP_FILE};
use crate::fleet::fields::{Placed, any_error};
use crate::fleet::group_file::{self, Common, GroupFile, Layer, Variables, Variant};
use crate::fleet::matching::{contradiction, no_selector};
use crate::fleet::policy::{POLICY_FILE, Policy};
use crate::fleet::rollout_section::RolloutSection;
use crate::fleet::snapshot::{Entry, Snapshot};
use crate::fleet::{GroupDefinition, GroupName};
use crate::labels::Selector;
use crate::yaml::Place;

/// Most groups of a fleet, variants included: twice the largest fleet we measure.
const MOST_GROUPS: usize = 20_000;

/// Most layers of one group, inherited ones included.
const MOST_LAYERS: usize = 128;

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
    pub(super) vars: Variables,
    pub(super) partial: bool,
    /// Whom it waits for, with the places that say so.
    pub(super) depends_on: Vec<Placed<GroupName>>,
    /// Where it is defined.
    pub(super) place: Place,
}

impl Planned {
    fn broken(place: Place) -> Self {
        Self {
            definition: None,
            layers: Vec::new(),
            vars: Variables::new(),
            partial: false,
            depends_on: Vec::new(),
            place,
        }
    }
}

/// Errors of files that several groups use. Each of these groups is told the first one; only the first group gets all of
/// them, so that a broken file above 10,000 groups is no flood.
#[derive(Debug, Default)]
pub(super) struct SharedErrors {
    told: BTreeSet<Arc<str>>,
}

impl SharedErrors {
    /// Adds the findings on `file` to `diagnostics`, for this group.
    pub(super) fn tell(
        &mut self,
        file: &Arc<str>,
        findings: &[Diagnostic],
        group: &GroupName,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let number = if self.told.insert(file.clone()) { findings.len() } else { 1 };
        diagnostics.extend(findings.iter().take(number).map(|finding| finding.clone().of(group)));
    }
}

/// What the `defaults.yaml` files of a directory and of those above it say together.
#[derive(Clone, Debug, Default)]
struct Inherited {
    selector: Option<Selector>,
    layers: Vec<Layer>,
    vars: Variables,
    suspend: bool,
    partial: Option<bool>,
    rollout: RolloutSection,
    /// What is wrong with them, by file.
    broken: Vec<(Arc<str>, Arc<[Diagnostic]>)>,
}

impl Inherited {
    fn with(&self, nearer: &Common) -> Self {
        let selector = match (&self.selector, &nearer.selector) {
            (Some(farther), Some(nearer)) => Some(farther.and(&nearer.value)),
            (farther, nearer) => farther.clone().or_else(|| nearer.as_ref().map(|selector| selector.value.clone())),
        };
        let mut vars = self.vars.clone();
        vars.extend(nearer.vars.clone());
        Self {
            selector,
            layers: self.layers.iter().chain(nearer.layers.iter().flatten()).cloned().collect(),
            vars,
            suspend: self.suspend || nearer.suspend,
            partial: nearer.partial.or(self.partial),
            rollout: self.rollout.overridden_by(&nearer.rollout),
            broken: self.broken.clone(),
        }
    }
}

/// Reads every group of the snapshot. `policy` bounds them.
pub(super) fn read_layout(snapshot: &Snapshot, policy: &Policy) -> Layout {
    let mut reader = Reader {
        snapshot,
        policy,
        inherited: BTreeMap::new(),
        shared: SharedErrors::default(),
        layout: Layout::default(),
    };
    let mut used_defaults = BTreeSet::new();
    for (path, entry) in snapshot.iter() {
        match file_name(path) {
            (directory, DEFAULTS_FILE) => reader.read_defaults(path, directory, entry),
            (_, name) => reader.warn_about(path, name, entry),
        }
    }
    for (path, entry) in snapshot.iter() {
        if let (directory, GROUP_FILE) = file_name(path) {
            used_defaults.extend(reader.nearest(directory).map(|(directory, _)| directory.clone()));
            reader.read_group(path, directory, entry);
        }
    }
    reader.warn_about_lonely_defaults(&used_defaults);
    let mut layout = reader.layout;
    if layout.groups.len() > MOST_GROUPS {
        let message = format!("the fleet has {} groups, and {MOST_GROUPS} are allowed", layout.groups.len());
        layout.diagnostics.push(Diagnostic::error("too-many", None, message).help("split it over several instances"));
    }
    layout
}

/// The directory and the name of a path.
fn file_name(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

struct Reader<'s> {
    snapshot: &'s Snapshot,
    policy: &'s Policy,
    /// By directory: those that have a `defaults.yaml`.
    inherited: BTreeMap<Arc<str>, Arc<Inherited>>,
    shared: SharedErrors,
    layout: Layout,
}

impl Reader<'_> {
    /// The nearest directory with a `defaults.yaml`: this one or one above it.
    fn nearest(&self, directory: &str) -> Option<(&Arc<str>, &Arc<Inherited>)> {
        let mut here = directory;
        loop {
            if let Some(found) = self.inherited.get_key_value(here) {
                return Some(found);
            }
            if here.is_empty() {
                return None;
            }
            here = file_name(here).0;
        }
    }

    /// Takes one `defaults.yaml`. Those above it were taken before: a snapshot is in the order of paths, but for names that
    /// sort before `defaults.yaml`, so that the chain above is read here on demand.
    fn read_defaults(&mut self, path: &Arc<str>, directory: &str, entry: &Entry) {
        if self.inherited.contains_key(directory) {
            return;
        }
        let above = if directory.is_empty() { None } else { self.take_above(file_name(directory).0) };
        let above = above.unwrap_or_default();
        let (common, findings) = match document::parse_entry(path, entry) {
            Ok(Some(node)) => group_file::read_defaults(&node, directory),
            Ok(None) => {
                let message = "an empty `defaults.yaml` says nothing";
                let finding = Diagnostic::warning("empty-file", Some(document::top(path)), message);
                (Common::default(), vec![finding.help("delete it, or say something")])
            }
            Err(findings) => (Common::default(), findings),
        };
        let mut inherited = above.with(&common);
        self.layout.named_layers.extend(common.layers.iter().flatten().map(|layer| layer.path.clone()));
        if any_error(&findings) {
            inherited.broken.push((path.clone(), findings.into()));
        } else {
            self.layout.diagnostics.extend(findings);
        }
        self.inherited.insert(directory.into(), Arc::new(inherited));
    }

    /// What holds in `directory`, after reading any `defaults.yaml` from there upwards that was not read yet.
    fn take_above(&mut self, directory: &str) -> Option<Arc<Inherited>> {
        let mut here = directory;
        loop {
            let path = if here.is_empty() { DEFAULTS_FILE.to_owned() } else { format!("{here}/{DEFAULTS_FILE}") };
            let snapshot = self.snapshot;
            if let Some((path, entry)) = snapshot.get_entry(&path) {
                self.read_defaults(path, here, entry);
                return self.inherited.get(here).cloned();
            }
            if here.is_empty() {
                return None;
            }
            here = file_name(here).0;
        }
    }

    /// Names that were probably meant to be one of ours, and links that nobody follows.
    fn warn_about(&mut self, path: &Arc<str>, name: &str, entry: &Entry) {
        let place = Some(document::top(path));
        if let Some(meant) = meant_name(path, name) {
            let message = format!("`{path}` is not read");
            let warning = Diagnostic::warning("misnamed-file", place, message).help(format!("did you mean `{meant}`?"));
            self.layout.diagnostics.push(warning);
        } else if matches!(entry, Entry::Symlink | Entry::Submodule) && !group_file::is_yaml(name) {
            let (code, what) =
                if *entry == Entry::Symlink { ("symlink", "symbolic link") } else { ("submodule", "submodule") };
            let message = format!("`{path}` is a {what} and is not followed");
            let help = "groups and layers are read from the directories of this repository only";
            self.layout.diagnostics.push(Diagnostic::warning(code, place, message).help(help));
        }
    }

    /// Errors in defaults that no group inherits hold nobody back, and still are errors of whoever writes the next group.
    fn warn_about_lonely_defaults(&mut self, used: &BTreeSet<Arc<str>>) {
        for (directory, inherited) in &self.inherited {
            let below: Arc<str> = format!("{directory}/").into();
            let is_above_one = used.range(below.clone()..).next().is_some_and(|one| one.starts_with(&*below));
            if used.contains(directory) || is_above_one || (directory.is_empty() && !used.is_empty()) {
                continue;
            }
            let place =
                if directory.is_empty() { DEFAULTS_FILE.into() } else { format!("{directory}/{DEFAULTS_FILE}").into() };
            let message = format!("no group stands below `{place}`");
            self.layout.diagnostics.push(Diagnostic::warning("unused-file", Some(document::top(&place)), message));
            for (_, findings) in inherited.broken.iter().filter(|(file, _)| *file == place) {
                let softened = findings
                    .iter()
                    .cloned()
                    .map(|finding| Diagnostic { severity: crate::fleet::diagnostic::Severity::Warning, ..finding });
                self.layout.diagnostics.extend(softened);
            }
        }
    }

    fn read_group(&mut self, path: &Arc<str>, directory: &str, entry: &Entry) {
        let place = document::top(path);
        let name = GroupName::new(if directory.is_empty() { "." } else { directory });
        if let Err((message, help)) = check_name(directory) {
            let error = Diagnostic::error("bad-name", Some(place.clone()), message).help(help);
            self.layout.diagnostics.push(error.of(&name));
            self.layout.groups.entry(name).or_insert_with(|| Planned::broken(place));
            return;
        }
        let inherited = self.nearest(directory).map(|(_, inherited)| inherited.clone()).unwrap_or_default();
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
        let sound = !any_error(&findings) && inherited.broken.is_empty();
        self.layout.diagnostics.extend(findings.into_iter().map(|finding| finding.of(&name)));
        names.dedup();
        let variants = names.iter().map(|variant| GroupName::new(format!("{directory}@{variant}")));
        for (file, broken) in &inherited.broken {
            for group in [name.clone()].into_iter().chain(variants.clone()) {
                self.shared.tell(file, broken, &group, &mut self.layout.diagnostics);
            }
        }
        match group {
            Some(group) if sound => self.plan(&name, path, directory, &group, &inherited),
            Some(_) | None => {
                for group in [name.clone()].into_iter().chain(variants) {
                    self.layout.groups.insert(group, Planned::broken(place.clone()));
                }
            }
        }
    }

    /// Adds a group and its variants.
    fn plan(&mut self, name: &GroupName, path: &Arc<str>, directory: &str, group: &GroupFile, inherited: &Inherited) {
        let place = document::top(path);
        let own_layers = group.common.layers.clone().unwrap_or_else(|| self.default_layers(directory));
        let with_group = inherited.with(&Common { layers: None, ..group.common.clone() });
        let Some(selector) = &with_group.selector else {
            let error = no_selector(Some(place.clone()), "the group has no selector, and inherits none");
            self.layout.diagnostics.push(error.of(name));
            self.layout.groups.insert(name.clone(), Planned::broken(place));
            for variant in &group.variants {
                self.layout.groups.insert(variant_name(name, variant), Planned::broken(document::top(path)));
            }
            return;
        };
        let inherited_layers = if group.inherit_layers { inherited.layers.as_slice() } else { &[] };
        let layers: Vec<Layer> = inherited_layers.iter().chain(&own_layers).cloned().collect();
        let held = with_group.rollout.held();
        let definition = GroupDefinition {
            selector: selector.clone(),
            priority: group.priority.value,
            variant_of: None,
            suspend: with_group.suspend,
            expect: group.expect,
            strategy: with_group.rollout.strategy(),
            held: held.as_ref().map(|held| held.value.clone()),
        };
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
            self.add(name, planned, held.as_ref(), &group.priority);
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
        vars.extend(variant.vars.clone());
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
    fn add(&mut self, name: GroupName, mut planned: Planned, held: Option<&Placed<String>>, priority: &Placed<i32>) {
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
        if let Some(held) = held {
            let warning = Diagnostic::warning("stages-not-yet", Some(held.place.clone()), held.value.clone());
            findings.push(warning.help(
                "the group is held: it gets no new configuration until this is removed, or a later release is used",
            ));
        }
        if let Some(definition) = &mut planned.definition {
            definition.selector = definition.selector.and(&bounds.selector);
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
