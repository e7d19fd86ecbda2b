//! The commits between two revisions as their signatures are judged by: raw bytes, and the paths that each of them changed.

use std::collections::BTreeSet;
use std::path::Path;

use git2::{DiffDelta, DiffOptions, MergeOptions, ObjectType, Oid, Repository, Sort, Tree};

use super::bounded::{self, Scales, Unbounded};
use super::reader::{CommitReader, ReadError};
use super::remote::clean_line;
use super::{commit_of, oid_of};
use crate::fleet::snapshot::CommitId;
use crate::time::Timestamp;

/// Most paths that are told of all commits together.
const MOST_PATHS: usize = 200_000;

/// One commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: CommitId,
    /// When it was committed, as it says.
    pub committed: Timestamp,
    /// The bytes of its object.
    pub raw: Vec<u8>,
    /// The files below the fleet root, by their paths from there, that it changed itself. Of a merge of two: where it differs from what
    /// merging them gives.
    pub touched: Vec<String>,
}

/// What is wanted to know.
#[derive(Clone, Debug)]
pub struct Question {
    /// The head.
    pub head: CommitId,
    /// Commits up to this one are known; `None`, or one that the mirror does not have: only the head is told.
    pub since: Option<CommitId>,
    /// True for all commits behind `since`, false for the head alone, which then has changed everything that differs from `since`.
    pub every: bool,
    /// Whether the paths are wanted.
    pub paths: bool,
    /// More commits than this are not told.
    pub most: usize,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The head first, each commit before its parents.
    pub links: Vec<Link>,
    /// True when there are more than were asked for.
    pub is_cut: bool,
    /// True when history was left out of the repository, so that only the head is told: nothing is known of others.
    pub is_torn: bool,
    /// True when they follow on `since`; false when only the head is told because `since` is not known here.
    pub follows: bool,
}

/// Finds the answer. `fleet_root` has no slash at its ends.
pub(super) fn lineage(repository: &Repository, fleet_root: &str, question: &Question) -> Result<Lineage, ReadError> {
    let odb = repository.odb().map_err(damaged)?;
    let since = match question.since {
        Some(since) => Some(oid_of(since).map_err(damaged)?).filter(|oid| odb.exists(*oid)),
        None => None,
    };
    let head = oid_of(question.head).map_err(damaged)?;
    let mut reader = Reader {
        repository,
        fleet_root,
        paths: question.paths,
        seen: 0,
        head: question.head,
        scales: Scales::default(),
    };
    let (Some(since), true) = (since, question.every) else {
        let mut link = reader.link(head, false)?;
        if question.paths {
            let before = since.map(|since| reader.tree(since)).transpose()?;
            let after = reader.tree(head)?;
            link.touched = reader.differences(before.as_ref(), &after)?;
        }
        return Ok(Lineage { links: vec![link], is_cut: false, is_torn: false, follows: since.is_some() });
    };
    if repository.is_shallow() {
        let links = vec![reader.link(head, true)?];
        return Ok(Lineage { links, is_cut: false, is_torn: true, follows: true });
    }
    let mut walk = repository.revwalk().map_err(damaged)?;
    walk.set_sorting(Sort::TOPOLOGICAL)
        .and_then(|()| walk.push(head))
        .and_then(|()| walk.hide(since))
        .map_err(damaged)?;
    let mut links = Vec::new();
    for oid in walk {
        if links.len() == question.most {
            return Ok(Lineage { links, is_cut: true, is_torn: false, follows: true });
        }
        links.push(reader.link(oid.map_err(damaged)?, question.paths)?);
    }
    if links.is_empty() {
        // History went back: the old head is what there is to judge.
        links.push(reader.link(head, false)?);
    }
    let is_rewritten = head != since && !repository.graph_descendant_of(head, since).map_err(damaged)?;
    if question.paths
        && is_rewritten
        && let Some(first) = links.first_mut()
    {
        // What was taken back belongs to no commit: whoever signed the head answers for it.
        let (before, after) = (reader.tree(since)?, reader.tree(head)?);
        let differences = reader.differences(Some(&before), &after)?;
        let all: BTreeSet<String> = first.touched.drain(..).chain(differences).collect();
        first.touched.extend(all);
    }
    Ok(Lineage { links, is_cut: false, is_torn: false, follows: true })
}

struct Reader<'r> {
    repository: &'r Repository,
    fleet_root: &'r str,
    paths: bool,
    seen: usize,
    head: CommitId,
    scales: Scales,
}

impl<'r> Reader<'r> {
    fn link(&mut self, oid: Oid, with_paths: bool) -> Result<Link, ReadError> {
        let id = commit_of(oid).ok_or(ReadError::Unknown(self.head))?;
        // Its size is looked at before it is read.
        let commit = CommitReader::new(self.repository, id)?.commit()?;
        let raw = self
            .repository
            .odb()
            .and_then(|odb| odb.read(oid).map(|object| object.data().to_vec()))
            .map_err(damaged)?;
        let seconds = u64::try_from(commit.time().seconds()).unwrap_or(0);
        let touched = if with_paths && self.paths { self.touched(&commit)? } else { Vec::new() };
        Ok(Link { id, committed: Timestamp::from_millis(seconds.saturating_mul(1000)), raw, touched })
    }

    fn tree(&self, commit: Oid) -> Result<Tree<'r>, ReadError> {
        self.repository.find_commit(commit).and_then(|commit| commit.tree()).map_err(damaged)
    }

    fn options(&self) -> DiffOptions {
        let mut options = DiffOptions::new();
        options.include_typechange(true).disable_pathspec_match(true);
        if !self.fleet_root.is_empty() {
            options.pathspec(self.fleet_root);
        }
        options
    }

    /// The paths below the fleet root that differ.
    fn differences(&mut self, before: Option<&Tree<'_>>, after: &Tree<'_>) -> Result<Vec<String>, ReadError> {
        let (before, after) = (before.and_then(|before| self.root(before)), self.root(after));
        match bounded::differences(self.repository, before, after, MOST_PATHS) {
            Ok(found) => self.count(found),
            Err(Unbounded::Unreadable(error)) => Err(damaged(error)),
            Err(Unbounded::TooMuch(why)) => Err(ReadError::Refused {
                commit: self.head,
                reason: format!("{why}, which cannot be judged by their signers"),
                limit: None,
            }),
        }
    }

    /// The tree at the fleet root.
    fn root(&self, tree: &Tree<'_>) -> Option<Oid> {
        if self.fleet_root.is_empty() {
            return Some(tree.id());
        }
        let entry = tree.get_path(Path::new(self.fleet_root)).ok()?;
        (entry.kind() == Some(ObjectType::Tree)).then(|| entry.id())
    }

    fn count(&mut self, touched: BTreeSet<String>) -> Result<Vec<String>, ReadError> {
        self.seen += touched.len();
        if self.seen > MOST_PATHS {
            let reason =
                format!("more than {MOST_PATHS} changed paths at once, which cannot be judged by their signers");
            return Err(ReadError::Refused { commit: self.head, reason, limit: None });
        }
        Ok(touched.into_iter().collect())
    }

    fn touched(&mut self, commit: &git2::Commit<'r>) -> Result<Vec<String>, ReadError> {
        let after = commit.tree().map_err(damaged)?;
        let parents: Vec<git2::Commit<'r>> = commit.parents().collect();
        match &parents[..] {
            [] => self.differences(None, &after),
            [one, other] => match self.merged(one, other, &after)? {
                Some(touched) => Ok(touched),
                None => self.differences(Some(&one.tree().map_err(damaged)?), &after),
            },
            // Of more than two it cannot be told what merging them gives: everything counts.
            [first, ..] => self.differences(Some(&first.tree().map_err(damaged)?), &after),
        }
    }

    /// Where a merge differs from what merging its two parents gives, conflicts included; `None` when they cannot be merged here.
    fn merged(
        &mut self,
        one: &git2::Commit<'r>,
        other: &git2::Commit<'r>,
        after: &Tree<'r>,
    ) -> Result<Option<Vec<String>>, ReadError> {
        // Merging walks through all of everything.
        let bases = self.repository.merge_bases(one.id(), other.id());
        let bases: Vec<Oid> = bases.map(|bases| bases.iter().copied().collect()).unwrap_or_default();
        for commit in bases.into_iter().chain([one.id(), other.id()]) {
            let tree = self.tree(commit)?.id();
            if self.scales.is_too_heavy(self.repository, tree).map_err(damaged)? {
                return Ok(None);
            }
        }
        if self.scales.is_too_heavy(self.repository, after.id()).map_err(damaged)? {
            return Ok(None);
        }
        let mut options = MergeOptions::new();
        options.find_renames(false);
        let Ok(index) = self.repository.merge_commits(one, other, Some(&options)) else { return Ok(None) };
        let differences = self
            .repository
            .diff_tree_to_index(Some(after), Some(&index), Some(&mut self.options()))
            .map_err(damaged)?;
        let sides = |delta: DiffDelta<'_>| {
            let sides = [delta.old_file().path_bytes(), delta.new_file().path_bytes()];
            sides.into_iter().flatten().filter_map(|path| self.path(path)).collect::<Vec<_>>()
        };
        let mut touched: BTreeSet<String> = differences.deltas().flat_map(sides).collect();
        for conflict in index.conflicts().map_err(damaged)? {
            let conflict = conflict.map_err(damaged)?;
            let sides = [conflict.ancestor, conflict.our, conflict.their];
            touched.extend(sides.into_iter().flatten().filter_map(|entry| self.path(&entry.path)));
        }
        self.count(touched).map(Some)
    }

    /// A path from the fleet root; `None` for what is not below it.
    fn path(&self, path: &[u8]) -> Option<String> {
        let path = String::from_utf8_lossy(path);
        match self.fleet_root {
            "" => Some(path.into_owned()),
            root => path.strip_prefix(root)?.strip_prefix('/').map(str::to_owned),
        }
    }
}

fn damaged(error: git2::Error) -> ReadError {
    ReadError::Damaged(clean_line(error.message(), 200))
}
