//! A branch on the remote that takes one commit back: made in the mirror, pushed forwards only, the same however often it is made.

use std::path::PathBuf;

use git2::{ErrorCode, Oid, Repository, Signature};

use super::bounded::Scales;
use super::failure::FailureKind;
use super::remote::sanitise;
use super::transport::{Action, Transport};
use super::{SourceOptions, TransportError, hermetic, oid_of};
use crate::fleet::snapshot::CommitId;

/// The line in a commit's message that says whose revert it is. A commit with it is never reverted again by itself.
pub const TRAILER: &str = "Gitamp-Reverts";

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// The remote has the branch.
    Branch,
    /// There is nothing to be made, and why.
    Nothing(String),
}

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
pub enum RevertError {
    /// The mirror cannot be read or written.
    #[error("the mirror: {0}")]
    Mirror(String),
    /// It could not be pushed.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Makes such branches.
#[derive(Clone, Debug)]
pub struct Reverter {
    mirror: PathBuf,
    fleet_root: String,
    transport: Transport,
}

impl Reverter {
    /// In the mirror of this source, for its remote.
    pub fn new(source: &SourceOptions) -> Self {
        Self {
            mirror: source.state_dir.join("mirror.git"),
            fleet_root: source.fleet_root.clone(),
            transport: source.transport(),
        }
    }

    /// Makes `branch` (in its short form) on the remote: `head` with what `guilty` changed taken back. `before` is the commit that was
    /// accepted before it: when `guilty` is not all that came since, there is no telling which commit is to go.
    ///
    /// # Errors
    /// When the mirror cannot be used, or the remote does not take it at the moment.
    pub async fn make(
        &self,
        guilty: CommitId,
        before: Option<CommitId>,
        head: CommitId,
        branch: &str,
    ) -> Result<Made, RevertError> {
        let private = format!("refs/gitamp/{branch}");
        let (mirror, into, root) = (self.mirror.clone(), private.clone(), self.fleet_root.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            hermetic::prepare();
            let repository = Repository::open_bare(&mirror)?;
            if repository.is_shallow() {
                let why = "its history was not fetched (--depth 1), so what it changed is not known, and a person has to decide";
                return Ok(Some(why.to_owned()));
            }
            if let Some(nothing) = came_with_others(&repository, guilty, before, &root)? {
                return Ok(Some(nothing));
            }
            prepare(&repository, guilty, head, &into)
        });
        let prepared = prepared.await.map_err(|error| RevertError::Mirror(error.to_string()))?;
        if let Some(nothing) = prepared.map_err(|error| RevertError::Mirror(sanitise(error.message())))? {
            return Ok(Made::Nothing(nothing));
        }
        let to = format!("refs/heads/{branch}");
        match self.transport.run(Action::Push { repository: self.mirror.clone(), from: private, to }).await {
            Ok(_) => Ok(Made::Branch),
            // It was made before, on an older head: that one is as good.
            Err(error) if error.kind == FailureKind::NotFastForward => Ok(Made::Branch),
            Err(error) if error.kind == FailureKind::PushRefused => Ok(Made::Nothing(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}

/// Why nobody can tell that this commit alone is what came after `before`; `None` when it is.
fn came_with_others(
    repository: &Repository,
    guilty: CommitId,
    before: Option<CommitId>,
    fleet_root: &str,
) -> Result<Option<String>, git2::Error> {
    let bad = repository.find_commit(oid_of(guilty)?)?;
    // The first commit of all has a reason of its own.
    let Some(parent) = bad.parent_ids().next() else { return Ok(None) };
    let Some(before) = before else {
        return Ok(Some("it is not known what was accepted before it, and a person has to decide".to_owned()));
    };
    let before = oid_of(before)?;
    if before == parent {
        return Ok(None);
    }
    // Commits between the two that touch nothing of the fleet are no part of what was taken back.
    let is_same = match (tree_at(repository, before, fleet_root)?, tree_at(repository, parent, fleet_root)?) {
        (Some(before), Some(parent)) => before == parent,
        (_, _) => false,
    };
    Ok((!is_same).then(|| "several commits came at once, and a person has to decide".to_owned()))
}

/// The tree at the fleet root of a commit; `None` when the mirror does not know the commit, or the commit no such place.
fn tree_at(repository: &Repository, commit: Oid, fleet_root: &str) -> Result<Option<Oid>, git2::Error> {
    let known = |error: git2::Error| if error.code() == ErrorCode::NotFound { Ok(None) } else { Err(error) };
    let tree = match repository.find_commit(commit).and_then(|commit| commit.tree()) {
        Ok(tree) => tree,
        Err(error) => return known(error),
    };
    let path: PathBuf = fleet_root.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    if path.as_os_str().is_empty() {
        return Ok(Some(tree.id()));
    }
    match tree.get_path(&path) {
        Ok(entry) => Ok(Some(entry.id())),
        Err(error) => known(error),
    }
}

/// Writes the revert into the private ref `into`; or says why there is none.
fn prepare(
    repository: &Repository,
    guilty: CommitId,
    head: CommitId,
    into: &str,
) -> Result<Option<String>, git2::Error> {
    let (guilty, head) = (oid_of(guilty)?, oid_of(head)?);
    if guilty != head && !repository.graph_descendant_of(head, guilty)? {
        return Ok(Some("history was rewritten, and the commit is no longer in it".to_owned()));
    }
    let (bad, top) = (repository.find_commit(guilty)?, repository.find_commit(head)?);
    if bad.parent_count() == 0 {
        return Ok(Some("it is the first commit, and nothing comes before it".to_owned()));
    }
    if is_revert_of_ours(repository, guilty)? {
        return Ok(Some("it is itself such a revert".to_owned()));
    }
    // Reverting walks through all of the three.
    let mut scales = Scales::default();
    for tree in [bad.tree_id(), top.tree_id(), bad.parent(0)?.tree_id()] {
        if scales.is_too_heavy(repository, tree)? {
            return Ok(Some("the repository holds too many files to take a commit back by itself".to_owned()));
        }
    }
    // Of a merge, what came in with it is taken back, and what was there before stays.
    let mainline = u32::from(bad.parent_count() > 1);
    let mut index = repository.revert_commit(&bad, &top, mainline, None)?;
    if index.has_conflicts() {
        return Ok(Some("what it changed was changed again since, and a person has to decide".to_owned()));
    }
    let tree = index.write_tree_to(repository)?;
    if tree == top.tree_id() {
        return Ok(Some("it is taken back already".to_owned()));
    }
    // The same commit whoever makes it, and however often.
    let when = top.time();
    let signature = Signature::new("gitamp", "gitamp@localhost", &when)?;
    let subject = String::from_utf8_lossy(bad.summary_bytes().unwrap_or_default()).into_owned();
    let message = format!(
        "Revert \"{}\"\n\nThis reverts commit {guilty}.\nIts rollout failed, and agents run what was stable before.\n\n{TRAILER}: {guilty}\n",
        sanitise(&subject)
    );
    let commit = repository.commit(None, &signature, &signature, &message, &repository.find_tree(tree)?, &[&top])?;
    repository.reference(into, commit, true, "gitamp: a revert")?;
    Ok(None)
}

/// True for a revert that gitamp made, and for the merge or squash of one.
fn is_revert_of_ours(repository: &Repository, commit: Oid) -> Result<bool, git2::Error> {
    let commit = repository.find_commit(commit)?;
    let says_so = |message: &[u8]| {
        String::from_utf8_lossy(message).lines().any(|line| line.trim().starts_with(&format!("{TRAILER}:")))
    };
    if says_so(commit.message_raw_bytes()) {
        return Ok(true);
    }
    for parent in commit.parent_ids().skip(1) {
        match repository.find_commit(parent) {
            Ok(parent) if says_so(parent.message_raw_bytes()) => return Ok(true),
            Ok(_) => {}
            // A shallow mirror does not know it.
            Err(error) if error.code() == ErrorCode::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::{Index, IndexEntry, IndexTime, RepositoryInitOptions};

    struct Place {
        _directory: tempfile::TempDir,
        repository: Repository,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let mut options = RepositoryInitOptions::new();
            options.bare(true).external_template(false);
            let repository = Repository::init_opts(directory.path(), &options).expect("a repository");
            Self { _directory: directory, repository }
        }

        fn commit(&self, parents: &[CommitId], message: &str, files: &[(&str, &str)]) -> CommitId {
            let mut index = Index::new().expect("an index");
            for (path, text) in files {
                let id = self.repository.blob(text.as_bytes()).expect("a blob");
                let time = IndexTime::new(0, 0);
                let entry = IndexEntry {
                    ctime: time,
                    mtime: time,
                    dev: 0,
                    ino: 0,
                    mode: 0o100_644,
                    uid: 0,
                    gid: 0,
                    file_size: 0,
                    id,
                    flags: 0,
                    flags_extended: 0,
                    path: path.as_bytes().to_vec(),
                };
                index.add(&entry).expect("an entry");
            }
            let tree = index.write_tree_to(&self.repository).expect("a tree");
            let tree = self.repository.find_tree(tree).expect("a tree");
            let who = Signature::new("Ada", "ada@example.com", &git2::Time::new(1, 0)).expect("a signature");
            let parents: Vec<_> = parents
                .iter()
                .map(|id| self.repository.find_commit(oid_of(*id).expect("an id")).expect("a commit"))
                .collect();
            let parents: Vec<_> = parents.iter().collect();
            let id = self.repository.commit(None, &who, &who, message, &tree, &parents).expect("a commit");
            super::super::commit_of(id).expect("SHA-1")
        }

        /// The revert, or why there is none.
        fn revert(&self, guilty: CommitId, head: CommitId) -> (Option<Oid>, String) {
            let into = "refs/gitamp/gitamp/revert-test";
            match prepare(&self.repository, guilty, head, into).expect("the mirror works") {
                Some(why) => (None, why),
                None => (Some(self.repository.refname_to_id(into).expect("a ref")), String::new()),
            }
        }

        fn file(&self, commit: Oid, path: &str) -> Option<String> {
            let tree = self.repository.find_commit(commit).and_then(|commit| commit.tree()).expect("a tree");
            let entry = tree.get_path(std::path::Path::new(path)).ok()?;
            let blob = self.repository.find_blob(entry.id()).expect("a blob");
            Some(String::from_utf8_lossy(blob.content()).into_owned())
        }
    }

    #[test]
    fn a_commit_is_taken_back_on_top_of_what_came_after() {
        let place = Place::new();
        let first = place.commit(&[], "The fleet", &[("a", "1\n"), ("b", "1\n")]);
        let bad = place.commit(
            &[first],
            "Raise \u{1b}[31mthe limit\n\nLong words.",
            &[("a", "2\n"), ("b", "1\n"), ("c", "1\n")],
        );
        let later = place.commit(&[bad], "Elsewhere", &[("a", "2\n"), ("b", "2\n"), ("c", "1\n")]);
        let revert = place.revert(bad, later).0.expect("a revert");
        assert_eq!(place.file(revert, "a").as_deref(), Some("1\n"));
        assert_eq!(place.file(revert, "b").as_deref(), Some("2\n"), "what came after stays");
        assert_eq!(place.file(revert, "c"), None);
        let made = place.repository.find_commit(revert).expect("a commit");
        assert_eq!(made.parent_id(0).expect("a parent"), oid_of(later).expect("an id"));
        let message = made.message().expect("text").to_owned();
        assert!(message.contains(&format!("This reverts commit {bad}.")) && !message.contains('\u{1b}'), "{message}");
        assert_eq!(place.revert(bad, later).0, Some(revert), "made twice it is the same");
    }

    #[test]
    fn of_a_merge_what_came_in_goes_out_again() {
        let place = Place::new();
        let first = place.commit(&[], "The fleet", &[("a", "1\n"), ("b", "1\n")]);
        let side = place.commit(&[first], "On a branch", &[("a", "2\n"), ("b", "1\n")]);
        let main = place.commit(&[first], "On main", &[("a", "1\n"), ("b", "2\n")]);
        let merge = place.commit(&[main, side], "Merge", &[("a", "2\n"), ("b", "2\n")]);
        let revert = place.revert(merge, merge).0.expect("a revert");
        assert_eq!(
            (place.file(revert, "a").as_deref(), place.file(revert, "b").as_deref()),
            (Some("1\n"), Some("2\n"))
        );
    }

    #[test]
    fn of_several_commits_that_came_at_once_none_is_blamed() {
        let place = Place::new();
        let accepted = place.commit(&[], "The fleet", &[("fleet/a", "1\n"), ("b", "1\n")]);
        let words = place.commit(&[accepted], "Elsewhere", &[("fleet/a", "1\n"), ("b", "2\n")]);
        let first = place.commit(&[words], "One of two", &[("fleet/a", "2\n"), ("b", "2\n")]);
        let second = place.commit(&[first], "Two of two", &[("fleet/a", "2\n"), ("fleet/c", "1\n"), ("b", "2\n")]);
        let merge = place.commit(&[accepted, second], "Merge both", &[("fleet/a", "2\n"), ("b", "2\n")]);
        let gone = CommitId([7; 20]);
        for (guilty, before, root, expected) in [
            (first, Some(words), "fleet", None),
            (first, Some(accepted), "fleet", None),
            (first, Some(accepted), "./fleet/", None),
            (first, Some(accepted), "", Some("several commits came at once")),
            (second, Some(first), "", None),
            (second, Some(words), "fleet", Some("several commits came at once")),
            (second, Some(accepted), "fleet", Some("several commits came at once")),
            (second, Some(gone), "fleet", Some("several commits came at once")),
            (second, Some(accepted), "nowhere", Some("several commits came at once")),
            (second, None, "fleet", Some("not known")),
            (merge, Some(accepted), "fleet", None),
            (accepted, None, "fleet", None),
        ] {
            let said = came_with_others(&place.repository, guilty, before, root).expect("the mirror works");
            let is_as_expected = match (&said, expected) {
                (Some(said), Some(words)) => said.contains(words),
                (said, expected) => said.is_none() && expected.is_none(),
            };
            assert!(is_as_expected, "{guilty} after {before:?} below {root:?}: {said:?}");
        }
    }

    #[test]
    fn where_nothing_can_be_reverted_the_reason_is_said() {
        let place = Place::new();
        let first = place.commit(&[], "The fleet", &[("a", "1\n")]);
        let bad = place.commit(&[first], "Bad", &[("a", "2\n")]);
        let fixed = place.commit(&[bad], "Fixed otherwise", &[("a", "3\n")]);
        let back = place.commit(&[bad], "As before", &[("a", "1\n")]);
        let other = place.commit(&[], "Another history", &[("a", "1\n")]);
        let ours = place.commit(&[first], &format!("Revert\n\n{TRAILER}: {first}\n"), &[("a", "0\n")]);
        let merged = place.commit(&[bad, ours], "Merge the revert", &[("a", "0\n")]);
        for (guilty, head, why) in [
            (first, first, "the first commit"),
            (bad, fixed, "changed again since"),
            (bad, back, "taken back already"),
            (bad, other, "history was rewritten"),
            (ours, ours, "itself such a revert"),
            (merged, merged, "itself such a revert"),
        ] {
            let (made, said) = place.revert(guilty, head);
            assert!(made.is_none() && said.contains(why), "{why}: {said}");
        }
    }
}
