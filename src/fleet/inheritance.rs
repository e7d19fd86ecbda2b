//! What groups inherit: the `defaults.yaml` of their directory and of every directory above it.
//!
//! Nothing is copied from level to level: a directory knows its own file and the level above, and what a group inherits is put
//! together when the group is read. So a repository cannot make much out of little by nesting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::fleet::GroupName;
use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::document::{self, DEFAULTS_FILE};
use crate::fleet::fields::any_error;
use crate::fleet::group_file::{self, Common, Layer, Variables};
use crate::fleet::layout::file_name;
use crate::fleet::rollout_section::RolloutSection;
use crate::fleet::snapshot::{Entry, Snapshot};
use crate::labels::Selector;

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

/// A directory with a `defaults.yaml`.
#[derive(Debug)]
pub(super) struct Level {
    file: Arc<str>,
    above: Option<Arc<Self>>,
    own: Common,
    /// Errors in the file, and what else was found with them; empty when it can be used.
    broken: Vec<Diagnostic>,
}

/// What holds for a group before its own file is looked at; or, with it, altogether.
#[derive(Clone, Debug, Default)]
pub(super) struct Inherited {
    pub(super) selector: Option<Selector>,
    pub(super) layers: Vec<Layer>,
    /// The farthest first: later ones win.
    pub(super) vars: Vec<Arc<Variables>>,
    pub(super) suspend: bool,
    pub(super) partial: Option<bool>,
    pub(super) rollout: RolloutSection,
}

impl Inherited {
    /// The same with a nearer file on top.
    #[must_use]
    pub(super) fn with(mut self, nearer: &Common) -> Self {
        if let Some(selector) = &nearer.selector {
            self.selector = Some(self.selector.map_or(selector.value.clone(), |farther| farther.and(&selector.value)));
        }
        self.layers.extend(nearer.layers.iter().flatten().cloned());
        if !nearer.vars.is_empty() {
            self.vars.push(nearer.vars.clone());
        }
        self.suspend |= nearer.suspend;
        self.partial = nearer.partial.or(self.partial);
        self.rollout = self.rollout.overridden_by(&nearer.rollout);
        self
    }
}

impl Level {
    /// From the fleet root down to this level.
    fn chain(&self) -> Vec<&Self> {
        let mut levels = vec![self];
        while let Some(above) = levels.last().and_then(|level| level.above.as_deref()) {
            levels.push(above);
        }
        levels.reverse();
        levels
    }

    /// What all levels down to this one say together.
    pub(super) fn inherited(&self) -> Inherited {
        self.chain().into_iter().fold(Inherited::default(), |inherited, level| inherited.with(&level.own))
    }

    /// The files down to this level that cannot be used, with what is wrong with them.
    pub(super) fn broken(&self) -> impl Iterator<Item = (&Arc<str>, &[Diagnostic])> {
        self.chain()
            .into_iter()
            .filter(|level| !level.broken.is_empty())
            .map(|level| (&level.file, level.broken.as_slice()))
    }
}

/// Every `defaults.yaml` of a snapshot, by directory.
#[derive(Debug, Default)]
pub(super) struct Levels {
    by_directory: BTreeMap<Arc<str>, Arc<Level>>,
}

impl Levels {
    /// Reads them all. Warnings go to `diagnostics`, errors to the groups that inherit them.
    pub(super) fn read(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut files: Vec<(&str, &Arc<str>, &Entry)> = snapshot
            .iter()
            .map(|(path, entry)| (file_name(path), path, entry))
            .filter(|((_, name), _, _)| *name == DEFAULTS_FILE)
            .map(|((directory, _), path, entry)| (directory, path, entry))
            .collect();
        // A directory sorts before everything below it.
        files.sort_unstable_by_key(|(directory, _, _)| *directory);
        let mut levels = Self::default();
        for (directory, path, entry) in files {
            let level = levels.read_level(directory, path, entry, diagnostics);
            levels.by_directory.insert(directory.into(), Arc::new(level));
        }
        levels
    }

    fn read_level(&self, directory: &str, path: &Arc<str>, entry: &Entry, diagnostics: &mut Vec<Diagnostic>) -> Level {
        let (own, findings) = match document::parse_entry(path, entry) {
            Ok(Some(node)) => group_file::read_defaults(&node, directory),
            Ok(None) => {
                let message = "an empty `defaults.yaml` says nothing";
                let finding = Diagnostic::warning("empty-file", Some(document::top(path)), message);
                (Common::default(), vec![finding.help("delete it, or say something")])
            }
            Err(findings) => (Common::default(), findings),
        };
        let mut broken = Vec::new();
        if any_error(&findings) {
            broken = findings;
        } else {
            diagnostics.extend(findings);
        }
        Level { file: path.clone(), above: self.nearest(directory).map(|(_, level)| level.clone()), own, broken }
    }

    /// The nearest directory with a `defaults.yaml`: this one or one above it.
    pub(super) fn nearest(&self, directory: &str) -> Option<(&Arc<str>, &Arc<Level>)> {
        let mut here = directory;
        loop {
            if let Some(found) = self.by_directory.get_key_value(here) {
                return Some(found);
            }
            if here.is_empty() {
                return None;
            }
            here = file_name(here).0;
        }
    }

    /// The layers that they name.
    pub(super) fn layers(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_directory.values().flat_map(|level| level.own.layers.iter().flatten()).map(|layer| &layer.path)
    }

    /// Warnings for those that no group inherits; `used` are the directories that are somebody's nearest. Errors in them hold nobody
    /// back, and still concern whoever writes the next group.
    pub(super) fn unused(&self, used: &BTreeSet<Arc<str>>) -> Vec<Diagnostic> {
        let is_used = |directory: &Arc<str>| {
            let below: Arc<str> = if directory.is_empty() { "".into() } else { format!("{directory}/").into() };
            used.contains(directory) || used.range(below.clone()..).next().is_some_and(|one| one.starts_with(&*below))
        };
        let mut warnings = Vec::new();
        for (_, level) in self.by_directory.iter().filter(|(directory, _)| !is_used(directory)) {
            let message = format!("no group stands below `{}`", level.file);
            warnings.push(Diagnostic::warning("unused-file", Some(document::top(&level.file)), message));
            let soften = |finding: &Diagnostic| Diagnostic { severity: Severity::Warning, ..finding.clone() };
            warnings.extend(level.broken.iter().map(soften));
        }
        warnings
    }
}
