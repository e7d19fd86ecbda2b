//! What groups inherit: the `defaults.yaml` of their directory and of every directory above it.
//!
//! Nothing is copied from level to level: a directory knows its own file and the level above, and what a group inherits is put
//! together when the group is read. So a repository cannot make much out of little by nesting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::fleet::GroupName;
use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::document;
use crate::fleet::fields::any_error;
use crate::fleet::group_file::{self, Common, Layer, Variables};
use crate::fleet::rollout_section::RolloutSection;
use crate::fleet::snapshot::Entry;
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

/// A directory with a `defaults.yaml`, and what that was read from: the same again gives the same again.
#[derive(Debug)]
pub(super) struct Level {
    directory: Arc<str>,
    file: Arc<str>,
    entry: Entry,
    above: Option<Arc<Self>>,
    own: Common,
    /// What is doubtful in a file that can be used.
    warnings: Vec<Diagnostic>,
    /// Errors in the file, and what else was found with them; empty when it can be used.
    broken: Vec<Diagnostic>,
    /// True when this file or one above it cannot be used.
    is_broken: bool,
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
    /// Reads the `defaults.yaml` of a directory below the level `above`.
    fn read(directory: &Arc<str>, file: &Arc<str>, entry: &Entry, above: Option<&Arc<Self>>) -> Self {
        let (own, findings) = match document::parse_entry(file, entry) {
            Ok(Some(node)) => group_file::read_defaults(&node, directory),
            Ok(None) => {
                let message = "an empty `defaults.yaml` says nothing";
                let finding = Diagnostic::warning("empty-file", Some(document::top(file)), message);
                (Common::default(), vec![finding.help("delete it, or say something")])
            }
            Err(findings) => (Common::default(), findings),
        };
        let (warnings, broken) = if any_error(&findings) { (Vec::new(), findings) } else { (findings, Vec::new()) };
        let is_broken = !broken.is_empty() || above.is_some_and(|above| above.is_broken);
        let (directory, file, entry) = (directory.clone(), file.clone(), entry.clone());
        Self { directory, file, entry, above: above.cloned(), own, warnings, broken, is_broken }
    }

    /// True when reading it from these would give the same.
    fn is_of(&self, entry: &Entry, above: Option<&Arc<Self>>) -> bool {
        is_same(self.above.as_ref(), above) && self.entry == *entry
    }

    /// The directory in which the file stands.
    pub(super) fn directory(&self) -> &Arc<str> {
        &self.directory
    }

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

    /// True when nobody can inherit from this level.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The files down to this level that cannot be used, with what is wrong with them.
    pub(super) fn broken(&self) -> impl Iterator<Item = (&Arc<str>, &[Diagnostic])> {
        self.chain()
            .into_iter()
            .filter(|level| !level.broken.is_empty())
            .map(|level| (&level.file, level.broken.as_slice()))
    }
}

/// True when two places inherit from the very same level.
pub(super) fn is_same(one: Option<&Arc<Level>>, other: Option<&Arc<Level>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Every `defaults.yaml` of a snapshot, by directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Levels {
    by_directory: BTreeMap<Arc<str>, Arc<Level>>,
}

impl Levels {
    /// Adds the `defaults.yaml` of a directory, as it was `before` if nothing about it differs.
    pub(super) fn add(
        &mut self,
        directory: &Arc<str>,
        file: &Arc<str>,
        entry: &Entry,
        above: Option<&Arc<Level>>,
        before: Option<&Self>,
    ) -> Arc<Level> {
        let known =
            before.and_then(|before| before.by_directory.get(directory)).filter(|level| level.is_of(entry, above));
        let level = known.cloned().unwrap_or_else(|| Arc::new(Level::read(directory, file, entry, above)));
        self.by_directory.insert(directory.clone(), level.clone());
        level
    }

    /// What is doubtful in those that can be used.
    pub(super) fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.by_directory.values().flat_map(|level| &level.warnings)
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
