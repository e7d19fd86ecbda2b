//! Which groups a snapshot holds, and what each one is once everything above it is inherited.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::fleet::GroupName;
use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::document::{self, DEFAULTS_FILE, GROUP_FILE};
use crate::fleet::family::{Family, Planned};
use crate::fleet::inheritance::{Level, Levels, SharedErrors};
use crate::fleet::policy::Policy;
use crate::fleet::risks::Risks;
use crate::fleet::snapshot::{Child, Directory, Snapshot};

/// Most groups of a fleet, variants included: twice the largest fleet we measure.
const MOST_GROUPS: usize = 20_000;

/// What the files say of all groups, before anything is rendered.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// One for each `group.yaml`, by path.
    families: Vec<Arc<Family>>,
    levels: Levels,
    pub(super) groups: BTreeMap<GroupName, Arc<Planned>>,
    /// True when there are more groups than a fleet may have, and not all were read.
    is_cut: bool,
}

/// A family before and now; only one of them where it is new or gone.
pub(super) type Change = (Option<Arc<Family>>, Option<Arc<Family>>);

impl Layout {
    /// Reads every group of the snapshot. `policy` bounds them. What nothing differs about is taken over from `before`; the rest is
    /// returned beside it.
    pub(super) fn read(
        snapshot: &Snapshot,
        policy: &Arc<Policy>,
        before: Option<(&Self, &Arc<Policy>)>,
    ) -> (Self, Vec<Change>) {
        let mut walk = Walk {
            policy,
            is_judged_the_same: before.is_some_and(|(_, judge)| Arc::ptr_eq(judge, policy)),
            known: before.map(|(layout, _)| layout.families.as_slice()).unwrap_or_default(),
            before: before.map(|(layout, _)| layout),
            layout: Self::default(),
            changes: Vec::new(),
            groups: 0,
        };
        walk.directory(snapshot.root(), None);
        let Walk { mut layout, mut changes, known, .. } = walk;
        changes.extend(known.iter().map(|family| (Some(family.clone()), None)));
        let everybody = layout.families.iter().filter(|family| !family.yields).flat_map(|family| &family.groups);
        layout.groups = everybody.cloned().collect();
        for (name, planned) in layout.families.iter().filter(|family| family.yields).flat_map(|family| &family.groups) {
            layout.groups.entry(name.clone()).or_insert_with(|| planned.clone());
        }
        (layout, changes)
    }

    /// Every finding.
    pub(super) fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut diagnostics: Vec<Diagnostic> = self.levels.warnings().cloned().collect();
        let (mut shared, mut risks, mut used_levels) = (SharedErrors::default(), Risks::default(), BTreeSet::new());
        let mut last: Option<&Arc<Level>> = None;
        for family in &self.families {
            diagnostics.extend(family.findings.iter().cloned());
            let Some((name, _)) = family.groups.first() else { continue };
            risks.add(name, &family.risks);
            let Some(level) = &family.level else { continue };
            if last.is_none_or(|last| !Arc::ptr_eq(last, level)) {
                used_levels.insert(level.directory().clone());
                last = Some(level);
            }
            if family.yields || !level.is_broken() {
                continue;
            }
            for (file, broken) in level.broken() {
                family.names().for_each(|group| shared.tell(file, broken, group, &mut diagnostics));
            }
        }
        diagnostics.extend(risks.findings());
        diagnostics.extend(self.levels.unused(&used_levels));
        if self.is_cut {
            let message = format!("the fleet has more than {MOST_GROUPS} groups");
            diagnostics.push(Diagnostic::error("too-many", None, message).help("split it over several instances"));
        }
        diagnostics
    }

    /// Layers of `defaults.yaml` files, used or not.
    pub(super) fn named_layers(&self) -> BTreeSet<&Arc<str>> {
        self.levels.layers().collect()
    }

    /// True when not all groups were read.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }
}

struct Walk<'w> {
    policy: &'w Policy,
    /// True when the policy is that of before.
    is_judged_the_same: bool,
    before: Option<&'w Layout>,
    /// The families of before that have not been reached, by path.
    known: &'w [Arc<Family>],
    layout: Layout,
    changes: Vec<Change>,
    groups: usize,
}

impl Walk<'_> {
    /// Goes through a directory in the order of paths.
    fn directory(&mut self, directory: &Arc<Directory>, above: Option<&Arc<Level>>) {
        let own = directory.file(DEFAULTS_FILE).map(|(file, _, entry)| {
            self.layout.levels.add(directory.path(), file, entry, above, self.before.map(|before| &before.levels))
        });
        let level = own.as_ref().or(above);
        for child in directory.children() {
            match child {
                Child::Directory(below) if below.has_documents() => self.directory(below, level),
                Child::Directory(_) => {}
                Child::File { path, id: _, entry } => {
                    if document::file_name(path).1 == GROUP_FILE && !self.layout.is_cut {
                        let known = self.known(path);
                        let same = known.as_ref().filter(|known| self.is_same(known, directory, level));
                        let family = same
                            .cloned()
                            .unwrap_or_else(|| Arc::new(Family::read(path, entry, directory, level, self.policy)));
                        if same.is_none() {
                            self.changes.push((known, Some(family.clone())));
                        }
                        self.groups += family.groups.len();
                        self.layout.families.push(family);
                        self.layout.is_cut = self.groups > MOST_GROUPS;
                    }
                }
            }
        }
    }

    fn is_same(&self, known: &Family, directory: &Arc<Directory>, level: Option<&Arc<Level>>) -> bool {
        known.is_of(directory, level) && (self.is_judged_the_same || known.is_judged_the_same(self.policy))
    }

    /// The family of before at this path. Those at paths before it are gone.
    fn known(&mut self, path: &Arc<str>) -> Option<Arc<Family>> {
        while let [first, others @ ..] = self.known {
            if first.path > *path {
                return None;
            }
            self.known = others;
            if first.path == *path {
                return Some(first.clone());
            }
            self.changes.push((Some(first.clone()), None));
        }
        None
    }
}
