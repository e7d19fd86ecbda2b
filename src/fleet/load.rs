//! From the files of one commit to everything it says: [`load`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::fleet::dependencies::check_dependencies;
use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::document;
use crate::fleet::fields::{any_error, shorten, shorten_to};
use crate::fleet::group_file;
use crate::fleet::layout::{Layout, Planned, read_layout};
use crate::fleet::overlap::{Overlap, overlaps};
use crate::fleet::policy::{POLICY_FILE, Policy};
use crate::fleet::render::Renderer;
use crate::fleet::snapshot::{Entry, Snapshot};
use crate::fleet::{GroupName, RenderedFleet, RenderedGroup};

/// How the policy of an earlier revision is called in findings.
const ACCEPTED_POLICY: &str = "fleet.yaml of the last accepted revision";

/// Most files that are named one by one because nobody uses them, or because of their names.
const MOST_LISTED: usize = 20;

/// Most pairs of groups that are named because they select the same agents.
const MOST_OVERLAPS: usize = 20;

/// Most characters of the labels that show it.
const MOST_EXAMPLE: usize = 200;

/// Reads a whole revision: every group with its definition and its configuration, and every finding.
///
/// `policy` holds the bytes of `fleet.yaml` in the last accepted revision, empty when that had none; this revision is judged by it.
/// `None`: there is no such revision, and this one is judged by its own.
///
/// The same snapshot and policy always give the same result. Errors of one group leave that group without a
/// configuration; an error that names no group (an unreadable `fleet.yaml`, names that no file can have) rejects the whole
/// revision, and the groups are there for those who want to look at them.
pub fn load(snapshot: &Snapshot, policy: Option<&[u8]>) -> RenderedFleet {
    let (honest, mut diagnostics) = without_evil_names(snapshot);
    let snapshot = &honest;
    let (own, own_policy) = read_own_policy(snapshot, &mut diagnostics);
    let judged_by = match policy {
        None => own_policy,
        Some([]) => Policy::default(),
        Some(bytes) => {
            let (accepted, findings) = Policy::read(&ACCEPTED_POLICY.into(), bytes);
            // Its warnings were said when it came.
            diagnostics.extend(findings.into_iter().filter(|finding| finding.severity == Severity::Error));
            accepted
        }
    };
    let Layout { groups: mut planned, named_layers, diagnostics: said } = read_layout(snapshot, &judged_by);
    diagnostics.extend(said);
    diagnostics.extend(check_dependencies(&mut planned));
    if policy.is_none() {
        diagnostics.extend(judged_by.idle_boundaries(planned.keys()));
    }

    let used: BTreeSet<&str> = planned
        .values()
        .flat_map(|planned| &planned.layers)
        .map(|layer| &layer.path)
        .chain(&named_layers)
        .map(|path| &**path)
        .collect();
    // Whoever is broken may use what seems unused.
    if planned.values().all(|planned| planned.definition.is_some()) {
        diagnostics.extend(unused_layers(snapshot, &used));
    }
    if planned.is_empty() {
        let warning = Diagnostic::warning(
            "no-groups",
            None,
            "no directory here has a `group.yaml`, so this is a fleet without groups",
        );
        diagnostics.push(
            warning.help("is this the fleet root? The smallest fleet is `all/group.yaml` and `all/collector.yaml`"),
        );
    }

    diagnostics.extend(check_overlaps(&planned));

    let mut groups = BTreeMap::new();
    let mut renderer = Renderer::new(snapshot, planned.values().filter(|planned| planned.definition.is_some()));
    for (name, planned) in planned {
        let config = if planned.definition.is_some() {
            let (config, findings) = renderer.render(&name, &planned);
            diagnostics.extend(findings);
            config
        } else {
            None
        };
        groups.insert(name, RenderedGroup { definition: planned.definition.map(Arc::new), config });
    }
    RenderedFleet { groups, policy: own, judged_by: Arc::new(judged_by), diagnostics: in_order(diagnostics) }
}

/// Takes out the names that Git allows in a tree object and that no honest commit has, so that nothing is made of them. Any
/// of them refuses the whole revision.
fn without_evil_names(snapshot: &Snapshot) -> (Snapshot, Vec<Diagnostic>) {
    let evil = |part: &str| matches!(part, "" | "." | "..") || part.eq_ignore_ascii_case(".git");
    let is_evil = |path: &str| path.split('/').any(evil) || path.chars().any(|char| char.is_control() || char == '\\');
    if !snapshot.iter().any(|(path, _)| is_evil(path)) {
        return (snapshot.clone(), Vec::new());
    }
    let refuse = |(path, _): (&Arc<str>, &Entry)| {
        let message =
            format!("the path `{}` cannot be in an honest repository", shorten(&path.escape_debug().to_string()));
        let help = "remove it: names have no control characters and backslashes, and are not `.`, `..` or `.git`";
        Diagnostic::error("evil-path", None, message).help(help)
    };
    let refused = snapshot.iter().filter(|(path, _)| is_evil(path)).take(MOST_LISTED).map(refuse).collect();
    let honest = snapshot.iter().filter(|(path, _)| !is_evil(path)).map(|(path, entry)| (path.clone(), entry.clone()));
    (Snapshot::new(honest.collect()), refused)
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
fn check_overlaps(planned: &BTreeMap<GroupName, Planned>) -> Vec<Diagnostic> {
    let defined = planned.iter().filter_map(|(name, planned)| Some((name, planned.definition.as_ref()?)));
    let overlaps = overlaps(defined, MOST_OVERLAPS);
    let warn = |overlap: &Overlap| {
        let Overlap { one, other, priority, example } = overlap;
        let defined = |name| planned.get(name).and_then(|planned| planned.definition.as_ref());
        let is_everybody = |name| defined(name).is_some_and(|one| one.selector.requirements().is_empty());
        let whom = match example.is_empty() {
            true if is_everybody(one) && is_everybody(other) => "every agent".to_owned(),
            true => "an agent without labels".to_owned(),
            false => format!("an agent with {}", shorten_to(&example.to_string(), MOST_EXAMPLE)),
        };
        let message = format!("`{one}` and `{other}` both select {whom}, at priority {priority}");
        let place = planned.get(one).map(|planned| planned.place.clone());
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

/// YAML files that look like layers and that no group uses. Hidden directories belong to other tools.
fn unused_layers(snapshot: &Snapshot, used: &BTreeSet<&str>) -> Vec<Diagnostic> {
    let mut unused: Vec<&Arc<str>> = snapshot
        .iter()
        .map(|(path, _)| path)
        .filter(|path| group_file::is_yaml(path) && !group_file::is_ours(path) && !used.contains(&***path))
        .filter(|path| !path.split('/').any(|part| part.starts_with('.')))
        .filter(|path| !is_misnamed(path))
        .collect();
    let more = unused.len().saturating_sub(MOST_LISTED);
    unused.truncate(MOST_LISTED);
    let warn = |path: &Arc<str>| {
        Diagnostic::warning("unused-file", Some(document::top(path)), format!("no group uses `/{path}`"))
            .help("name it in `layers`, or delete it")
    };
    let rest = (more > 0).then(|| Diagnostic::warning("unused-file", None, format!("no group uses {more} more files")));
    unused.into_iter().map(warn).chain(rest).collect()
}

/// Said already, with a better explanation.
fn is_misnamed(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    crate::fleet::layout::meant_name(path, name).is_some()
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
