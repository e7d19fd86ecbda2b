//! From the files of one commit to everything it says: [`load`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::fleet::dependencies::check_dependencies;
use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::document;
use crate::fleet::doubtful::{self, meant_name};
use crate::fleet::family::Planned;
use crate::fleet::fields::{any_error, shorten, shorten_to};
use crate::fleet::group_file::{self, Layer};
use crate::fleet::inheritance::SharedErrors;
use crate::fleet::layout::{Change, Layout};
use crate::fleet::overlap::{Overlap, overlaps};
use crate::fleet::policy::{POLICY_FILE, Policy};
use crate::fleet::recipe::Recipe;
use crate::fleet::render::{MOST_FLEET_NODES, Outcome, Renderer, too_much};
use crate::fleet::snapshot::{Entry, Snapshot};
use crate::fleet::{GroupDefinition, GroupName, RenderedFleet, RenderedGroup, tree};

/// How the policy of an earlier revision is called in findings.
const ACCEPTED_POLICY: &str = "fleet.yaml of the last accepted revision";

/// Most files that are named one by one because nobody uses them, or because of their names.
const MOST_LISTED: usize = 20;

/// Most pairs of groups that are named because they select the same agents.
const MOST_OVERLAPS: usize = 20;

/// Most characters of the labels that show it.
const MOST_EXAMPLE: usize = 200;

/// What was made of a revision, for the next one to take over what did not change: one generation, shared with the revision itself.
#[derive(Debug)]
pub struct Memory {
    snapshot: Snapshot,
    judge: Judge,
    layout: Layout,
    dependencies: Vec<Diagnostic>,
    overlaps: Vec<Diagnostic>,
    /// `None`: some group is broken and may use what seems unused.
    unused: Option<Vec<Diagnostic>>,
    outcomes: HashMap<Recipe, Arc<Outcome>>,
}

/// The policy that a revision is judged by, and the bytes that say so.
#[derive(Clone, Debug)]
struct Judge {
    written: Bytes,
    /// True when it is the revision's own.
    is_own: bool,
    policy: Arc<Policy>,
}

/// Reads a whole revision: every group with its definition and its configuration, and every finding.
///
/// `policy` holds the bytes of `fleet.yaml` in the last accepted revision, empty when that had none; this revision is judged by it.
/// `None`: there is no such revision, and this one is judged by its own.
///
/// The same snapshot and policy always give the same result. Errors of one group leave that group without a
/// configuration; an error that names no group (an unreadable `fleet.yaml`, names that no file can have) rejects the whole
/// revision, and the groups are there for those who want to look at them.
pub fn load(snapshot: &Snapshot, policy: Option<&[u8]>) -> RenderedFleet {
    load_after(snapshot, policy, None).0
}

/// The same, with less work: what neither the snapshot nor the policy changed since the revision that `before` is of is taken over
/// from there. What is unchanged is told by what the two snapshots share ([`Snapshot::changed_since`]).
pub fn load_after(snapshot: &Snapshot, policy: Option<&[u8]>, before: Option<&Memory>) -> (RenderedFleet, Memory) {
    let (snapshot, mut diagnostics) = without_evil_names(snapshot);
    let (own, own_policy) = read_own_policy(&snapshot, &mut diagnostics);
    let judge = find_judge(own.as_ref(), own_policy, policy, before, &mut diagnostics);
    // A fleet that was cut off is no measure for the next.
    let before = before.filter(|before| !before.layout.is_cut());
    let known = before.map(|before| (&before.layout, &before.judge.policy));
    let (layout, changes) = Layout::read(&snapshot, &judge.policy, known);
    let before = before.filter(|_| !layout.is_cut());
    let changed = before.map(|before| snapshot.changed_since(&before.snapshot)).unwrap_or_default();
    diagnostics.extend(doubtful::findings(snapshot.root()));
    diagnostics.extend(layout.diagnostics());

    let same_dependencies = before.filter(|_| changes.iter().all(is_as_dependent));
    let dependencies = match same_dependencies {
        Some(before) => before.dependencies.clone(),
        None => check_dependencies(&layout.groups),
    };
    let withdrawn: BTreeSet<&GroupName> = dependencies.iter().filter_map(|finding| finding.group.as_ref()).collect();
    let defined = Defined { groups: &layout.groups, withdrawn: &withdrawn };
    diagnostics.extend(dependencies.iter().cloned());
    if policy.is_none() {
        diagnostics.extend(judge.policy.idle_boundaries(layout.groups.keys()));
    }

    let same_uses = same_dependencies.filter(|before| {
        let is_there = |path: &&Arc<str>| snapshot.get(path).is_some() == before.snapshot.get(path).is_some();
        changes.iter().all(uses_the_same)
            && changed.iter().all(|path| is_there(&path))
            && layout.named_layers() == before.layout.named_layers()
    });
    let unused = match same_uses {
        Some(before) => before.unused.clone(),
        None => unused_layers(&snapshot, &layout, &defined),
    };
    diagnostics.extend(unused.iter().flatten().cloned());
    if layout.groups.is_empty() {
        diagnostics.push(no_groups());
    }

    let overlaps = match same_dependencies.filter(|_| changes.iter().all(selects_the_same)) {
        Some(before) => before.overlaps.clone(),
        None => check_overlaps(&defined),
    };
    diagnostics.extend(overlaps.iter().cloned());

    let known = before.map(|before| Known { outcomes: &before.outcomes, changed: &changed });
    let (groups, outcomes) = render_all(&snapshot, &defined, known, &mut diagnostics);
    let judged_by = judge.policy.clone();
    let fleet = RenderedFleet { groups, policy: own, judged_by, diagnostics: in_order(diagnostics) };
    drop(withdrawn);
    (fleet, Memory { snapshot, judge, layout, dependencies, overlaps, unused, outcomes })
}

/// The policy that judges, the very same as before if nothing about it differs.
fn find_judge(
    own: Option<&Bytes>,
    own_policy: Policy,
    accepted: Option<&[u8]>,
    before: Option<&Memory>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Judge {
    let written = accepted.map_or_else(|| own.cloned().unwrap_or_default(), Bytes::copy_from_slice);
    let policy = match accepted {
        None => own_policy,
        Some([]) => Policy::default(),
        Some(bytes) => {
            let (accepted, findings) = Policy::read(&ACCEPTED_POLICY.into(), bytes);
            // Its warnings were said when it came.
            diagnostics.extend(findings.into_iter().filter(|finding| finding.severity == Severity::Error));
            accepted
        }
    };
    // Findings name the file that the policy came from.
    let is_own = accepted.is_none();
    let same = before.map(|before| &before.judge).filter(|judge| judge.written == written && judge.is_own == is_own);
    let policy = same.map_or_else(|| Arc::new(policy), |judge| judge.policy.clone());
    Judge { written, is_own, policy }
}

/// The groups of a revision; those that wait for nobody or for themselves are not defined.
struct Defined<'l> {
    groups: &'l BTreeMap<GroupName, Arc<Planned>>,
    withdrawn: &'l BTreeSet<&'l GroupName>,
}

impl<'l> Defined<'l> {
    fn definition(&self, name: &GroupName, planned: &'l Planned) -> Option<&'l Arc<GroupDefinition>> {
        planned.definition.as_ref().filter(|_| !self.withdrawn.contains(name))
    }

    /// Those that are defined.
    fn iter(&self) -> impl Iterator<Item = (&'l GroupName, &'l Arc<Planned>, &'l Arc<GroupDefinition>)> {
        self.groups.iter().filter_map(|(name, planned)| Some((name, planned, self.definition(name, planned)?)))
    }
}

/// True when both sides of a change have the same groups, and these agree in what `is_same` compares.
fn agree((before, now): &Change, is_same: impl Fn(&Planned, &Planned) -> bool) -> bool {
    let (Some(before), Some(now)) = (before, now) else { return false };
    before.groups.len() == now.groups.len()
        && before
            .groups
            .iter()
            .zip(&now.groups)
            .all(|((name, one), (other_name, other))| name == other_name && is_same(one, other))
}

fn is_as_dependent(change: &Change) -> bool {
    agree(change, |one, other| one.depends_on == other.depends_on)
}

fn uses_the_same(change: &Change) -> bool {
    agree(change, |one, other| {
        one.definition.is_some() == other.definition.is_some()
            && one.layers.iter().map(|layer| &layer.path).eq(other.layers.iter().map(|layer| &layer.path))
    })
}

fn selects_the_same(change: &Change) -> bool {
    let selects = |planned: &Planned| {
        let definition = planned.definition.clone();
        definition.map(|one| (one.selector.clone(), one.priority, one.variant_of.clone()))
    };
    agree(change, |one, other| one.place == other.place && selects(one) == selects(other))
}

/// What came out of the recipes of the revision before, and the paths of the files that differ since.
#[derive(Clone, Copy)]
struct Known<'m> {
    outcomes: &'m HashMap<Recipe, Arc<Outcome>>,
    changed: &'m BTreeSet<Arc<str>>,
}

impl<'m> Known<'m> {
    fn outcome(&self, planned: &Planned) -> Option<&'m Arc<Outcome>> {
        let is_changed = |layer: &Layer| self.changed.contains(&layer.path);
        self.outcomes.get(&planned.recipe).filter(|_| self.changed.is_empty() || !planned.layers.iter().any(is_changed))
    }
}

/// All groups with their configurations, and what came out of each recipe.
fn render_all(
    snapshot: &Snapshot,
    defined: &Defined<'_>,
    known: Option<Known<'_>>,
    diagnostics: &mut Vec<Diagnostic>,
) -> (BTreeMap<GroupName, RenderedGroup>, HashMap<Recipe, Arc<Outcome>>) {
    let mut outcomes = HashMap::<Recipe, Arc<Outcome>>::with_capacity(defined.groups.len());
    let mut fresh = HashSet::new();
    let unknown = defined
        .iter()
        .map(|(_, planned, _)| &**planned)
        .filter(|planned| known.and_then(|known| known.outcome(planned)).is_none() && fresh.insert(planned.recipe));
    let mut renderer = Renderer::new(snapshot, unknown);
    let (mut shared, mut nodes) = (SharedErrors::default(), 0_usize);
    let mut render = |name: &GroupName, planned: &Planned| {
        if let Some(outcome) = outcomes.get(&planned.recipe) {
            outcome.tell(name, planned, snapshot, &mut shared, diagnostics);
            return outcome.config.clone();
        }
        let left = MOST_FLEET_NODES.saturating_sub(nodes);
        let outcome = match known.and_then(|known| known.outcome(planned)) {
            Some(outcome) => Some(outcome.clone()),
            None if left > 0 => renderer.render(planned, left).map(Arc::new),
            None => None,
        };
        let Some(outcome) = outcome.filter(|outcome| outcome.nodes <= left) else {
            nodes = MOST_FLEET_NODES;
            diagnostics.push(too_much("of the whole fleet", planned.place.clone()).of(name));
            return None;
        };
        nodes += outcome.nodes;
        outcome.tell(name, planned, snapshot, &mut shared, diagnostics);
        let config = outcome.config.clone();
        outcomes.insert(planned.recipe, outcome);
        config
    };
    let mut groups = Vec::with_capacity(defined.groups.len());
    for (name, planned) in defined.groups {
        let definition = defined.definition(name, planned).cloned();
        let config = definition.as_ref().and_then(|_| render(name, planned));
        groups.push((name.clone(), RenderedGroup { definition, config, layers: planned.sources.clone() }));
    }
    (groups.into_iter().collect(), outcomes)
}

fn no_groups() -> Diagnostic {
    let message = "no directory here has a `group.yaml`, so this is a fleet without groups";
    Diagnostic::warning("no-groups", None, message)
        .help("is this the fleet root? The smallest fleet is `all/group.yaml` and `all/collector.yaml`")
}

/// Takes out the names that Git allows in a tree object and that no honest commit has, so that nothing is made of them. Any
/// of them refuses the whole revision.
fn without_evil_names(snapshot: &Snapshot) -> (Snapshot, Vec<Diagnostic>) {
    if !snapshot.root().has_evil_names() {
        return (snapshot.clone(), Vec::new());
    }
    let is_evil = |path: &str| path.split('/').any(tree::is_evil);
    let refuse = |(path, _): (&Arc<str>, &Entry)| {
        let message =
            format!("the path `{}` cannot be in an honest repository", shorten(&path.escape_debug().to_string()));
        let help = "remove it: names have no control characters and backslashes, and are not `.`, `..` or `.git`";
        Diagnostic::error("evil-path", None, message).help(help)
    };
    let refused = snapshot.iter().filter(|(path, _)| is_evil(path)).take(MOST_LISTED).map(refuse).collect();
    let honest = snapshot.iter().filter(|(path, _)| !is_evil(path)).map(|(path, entry)| (path.clone(), entry.clone()));
    (Snapshot::new(honest.collect()).within(*snapshot.limits()), refused)
}

/// `fleet.yaml` of this revision: its bytes, and what they say. Every error in it concerns the whole revision.
fn read_own_policy(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) -> (Option<Bytes>, Policy) {
    let Some((path, entry)) = snapshot.get_entry(POLICY_FILE) else { return (None, Policy::default()) };
    let Entry::File(bytes) = entry else {
        diagnostics.extend(document::parse_entry(path, entry).err().unwrap_or_default());
        return (None, Policy::default());
    };
    let (policy, findings) = Policy::read(path, bytes);
    let sound = !any_error(&findings);
    diagnostics.extend(findings);
    (Some(bytes.clone()), if sound { policy } else { Policy::default() })
}

/// Groups that would conflict over an agent. It is a warning: such an agent may never come, and if it does it keeps what it has.
fn check_overlaps(defined: &Defined<'_>) -> Vec<Diagnostic> {
    let overlaps = overlaps(defined.iter().map(|(name, _, definition)| (name, &**definition)), MOST_OVERLAPS);
    let warn = |overlap: &Overlap| {
        let Overlap { one, other, priority, example } = overlap;
        let definition = |name| defined.groups.get(name).and_then(|planned| planned.definition.as_ref());
        let is_everybody = |name| definition(name).is_some_and(|one| one.selector.requirements().is_empty());
        let whom = match example.is_empty() {
            true if is_everybody(one) && is_everybody(other) => "every agent".to_owned(),
            true => "an agent without labels".to_owned(),
            false => format!("an agent with {}", shorten_to(&example.to_string(), MOST_EXAMPLE)),
        };
        let message = format!("`{one}` and `{other}` both select {whom}, at priority {priority}");
        let place = defined.groups.get(one).map(|planned| planned.place.clone());
        Diagnostic::warning("overlap", place, message)
            .help("such an agent keeps what it has: narrow a selector, or give one of the two another `priority`")
    };
    let more = (overlaps.more > 0 || overlaps.is_cut).then(|| {
        let least = if overlaps.is_cut { "at least " } else { "" };
        let message = format!("{least}{} more pairs of groups select the same agents", overlaps.more);
        Diagnostic::warning("overlap", None, message)
    });
    overlaps.found.iter().map(warn).chain(more).collect()
}

/// YAML files that look like layers and that no group uses; `None` when some group is broken, which may use what seems unused.
/// Hidden directories belong to other tools.
fn unused_layers(snapshot: &Snapshot, layout: &Layout, defined: &Defined<'_>) -> Option<Vec<Diagnostic>> {
    if defined.groups.iter().any(|(name, planned)| defined.definition(name, planned).is_none()) {
        return None;
    }
    let layers = defined.groups.values().flat_map(|planned| &planned.layers).map(|layer| &*layer.path);
    let used: HashSet<&str> = layers.chain(layout.named_layers().into_iter().map(|path| &**path)).collect();
    let is_hidden = |path: &str| path.starts_with('.') || path.contains("/.");
    let mut unused: Vec<&Arc<str>> = snapshot
        .iter()
        .map(|(path, _)| path)
        .filter(|path| !used.contains(&***path) && group_file::is_yaml(path) && !group_file::is_ours(path))
        .filter(|path| !is_hidden(path) && !is_misnamed(path))
        .collect();
    let more = unused.len().saturating_sub(MOST_LISTED);
    unused.truncate(MOST_LISTED);
    let warn = |path: &Arc<str>| {
        Diagnostic::warning("unused-file", Some(document::top(path)), format!("no group uses `/{path}`"))
            .help("name it in `layers`, or delete it")
    };
    let rest = (more > 0).then(|| Diagnostic::warning("unused-file", None, format!("no group uses {more} more files")));
    Some(unused.into_iter().map(warn).chain(rest).collect())
}

/// Said already, with a better explanation.
fn is_misnamed(path: &str) -> bool {
    meant_name(path, document::file_name(path).1).is_some()
}

/// By place, what concerns the whole first; the same thing about the same group once.
fn in_order(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort_by(|one, other| {
        let by_place = one.place.cmp(&other.place).then(other.severity.cmp(&one.severity));
        by_place
            .then(one.code.cmp(other.code))
            .then_with(|| (&one.group, &one.message).cmp(&(&other.group, &other.message)))
    });
    diagnostics.dedup();
    diagnostics
}
