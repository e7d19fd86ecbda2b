//! Objects carried from one repository of this machine to another.
//!
//! libgit2's own transport between directories packs whatever any ref of the source reaches and the target's refs do not. A journal that
//! lives beside the fleet's branches is reached by none of the mirror's, so every fetch would carry all of it, again and again. And it knows
//! no transfers without history.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write};
use std::path::Path;

use git2::{Error, ErrorClass, ErrorCode, ObjectType, OdbLookupFlags, Oid, PackBuilder, Repository};

/// The file that names the commits whose parents a repository does not have: 41 bytes each.
const SHALLOW_FILE: &str = "shallow";
/// More of them are not read.
const LARGEST_SHALLOW_FILE: u64 = 16 << 20;

/// How much of the past comes with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum History {
    /// All that there is.
    Whole,
    /// Nothing but the commit itself.
    Newest,
}

/// Copies `wanted`, a commit or a tag of something, with everything that it needs and `to` does not have: what the refs of `to` reach is
/// taken to be there. `moved` hears how many bytes were written, often, also while there are none yet (objects are counted and compared) and
/// when there are no more (they are indexed); when it says no, the transfer ends with an error.
pub(super) fn carry(
    from: &Repository,
    to: &Repository,
    wanted: Oid,
    history: History,
    moved: impl FnMut(usize) -> bool,
) -> Result<(), Error> {
    let (moved, written) = (RefCell::new(moved), Cell::new(0_usize));
    let go_on = || (*moved.borrow_mut())(written.get());
    let mut pack = from.packbuilder()?;
    pack.set_threads(1);
    pack.set_progress_callback(|_, _, _| go_on())?;
    let mut object = from.find_object(wanted, None)?;
    while object.kind() == Some(ObjectType::Tag) {
        pack.insert_object(object.id(), None)?;
        object = object.into_tag().map_or_else(Ok, |tag| tag.target())?;
    }
    let mut roots = BTreeSet::new();
    match (object.kind(), history) {
        (Some(ObjectType::Commit), History::Whole) => {
            let mut walk = from.revwalk()?;
            walk.push(object.id())?;
            for reference in to.references()? {
                let had = reference?.peel_to_commit().ok().map(|commit| commit.id());
                if let Some(had) = had.filter(|had| from.find_commit(*had).is_ok()) {
                    walk.hide(had)?;
                }
            }
            pack.insert_walk(&mut walk)?;
            if from.is_shallow() {
                roots = shallow_roots(from.path())?;
            }
        }
        (Some(ObjectType::Commit), History::Newest) => {
            let commit = from.find_commit(object.id())?;
            pack.insert_object(commit.id(), None)?;
            insert_tree(&mut pack, from, to, commit.tree_id(), &go_on)?;
            if commit.parent_count() > 0 || shallow_roots(from.path())?.contains(&commit.id()) {
                roots.insert(commit.id());
            }
        }
        (_, _) => pack.insert_recursive(object.id(), None)?,
    }
    // Before a ref can lead there: without their names the repository would look damaged where history ends.
    add_shallow_roots(to, roots)?;
    if pack.object_count() == 0 {
        return Ok(());
    }
    let odb = to.odb()?;
    let mut writer = odb.packwriter()?;
    writer.progress(|_| go_on());
    let mut failed = None;
    let outcome = pack.foreach(|bytes| {
        written.set(written.get().saturating_add(bytes.len()));
        let wrote = if go_on() { writer.write_all(bytes) } else { Err(io::Error::other("it was stopped")) };
        failed = wrote.err();
        failed.is_none()
    });
    if let Some(error) = failed {
        return Err(unwritable(&error));
    }
    outcome?;
    writer.commit().map(drop)
}

/// Adds a tree with everything in it that `to` does not have. Where `to` has a tree it has all below.
fn insert_tree(
    pack: &mut PackBuilder<'_>,
    from: &Repository,
    to: &Repository,
    tree: Oid,
    go_on: &impl Fn() -> bool,
) -> Result<(), Error> {
    let theirs = to.odb()?;
    theirs.refresh()?;
    let has = |oid: Oid| theirs.exists_ext(oid, OdbLookupFlags::NO_REFRESH);
    let (mut open, mut seen) = (vec![tree], HashSet::new());
    while let Some(tree) = open.pop() {
        if has(tree) || !seen.insert(tree) {
            continue;
        }
        if !go_on() {
            return Err(Error::new(ErrorCode::User, ErrorClass::Odb, "it was stopped"));
        }
        pack.insert_object(tree, None)?;
        for entry in &from.find_tree(tree)? {
            match entry.kind() {
                Some(ObjectType::Tree) => open.push(entry.id()),
                Some(ObjectType::Blob) if !has(entry.id()) => pack.insert_object(entry.id(), None)?,
                // What submodules name is in another repository.
                _ => {}
            }
        }
    }
    Ok(())
}

/// The commits of this repository whose parents it does not have.
fn shallow_roots(repository: &Path) -> Result<BTreeSet<Oid>, Error> {
    use std::io::Read;
    let mut text = String::new();
    match std::fs::File::open(repository.join(SHALLOW_FILE)) {
        Ok(file) => file.take(LARGEST_SHALLOW_FILE).read_to_string(&mut text).map_err(|error| unwritable(&error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(unwritable(&error)),
    };
    Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
}

/// Says of commits that `to` does not have their parents.
fn add_shallow_roots(to: &Repository, roots: BTreeSet<Oid>) -> Result<(), Error> {
    let known = shallow_roots(to.path())?;
    if roots.is_subset(&known) {
        return Ok(());
    }
    let text: String = known.union(&roots).map(|oid| format!("{oid}\n")).collect();
    let path = to.path().join(SHALLOW_FILE);
    // As Git does: whoever reads sees the one file or the other.
    let fresh = path.with_extension("lock");
    std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path)).map_err(|error| unwritable(&error))
}

fn unwritable(error: &io::Error) -> Error {
    Error::new(ErrorCode::GenericError, ErrorClass::Odb, error.to_string())
}

#[cfg(test)]
mod tests {
    use git2::Signature;

    use super::*;

    /// A commit with one file, on top of what `reference` names.
    fn commit(repository: &Repository, reference: &str, text: &str) -> Oid {
        let mut tree = repository.treebuilder(None).expect("a tree");
        let blob = repository.blob(text.as_bytes()).expect("a blob");
        tree.insert("file", blob, 0o100_644).expect("an entry");
        let tree = repository.find_tree(tree.write().expect("a tree")).expect("the tree");
        let who = Signature::now("ann", "ann@example.com").expect("a signature");
        let parent = repository.find_reference(reference).ok().and_then(|parent| parent.peel_to_commit().ok());
        let parents: Vec<_> = parent.iter().collect();
        repository.commit(Some(reference), &who, &who, text, &tree, &parents).expect("a commit")
    }

    fn repository(directory: &tempfile::TempDir, name: &str) -> Repository {
        Repository::init_bare(directory.path().join(name)).expect("a repository")
    }

    /// Carries, remembers it under a ref, and says how many bytes that took.
    fn carried(from: &Repository, to: &Repository, wanted: Oid) -> usize {
        let mut bytes = 0;
        carry(from, to, wanted, History::Whole, |written| {
            bytes = written;
            true
        })
        .expect("it is carried");
        to.reference("refs/ours", wanted, true, "test").expect("a ref");
        bytes
    }

    #[test]
    fn only_what_is_new_of_what_is_wanted_is_carried() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, to) = (repository(&directory, "from"), repository(&directory, "to"));
        let noise: String =
            (0..200_000_u32).map(|at| char::from(b'a' + (at.wrapping_mul(at) % 251 % 26) as u8)).collect();
        commit(&from, "refs/heads/main", &noise);
        let large: String = (0..30_000_u32).map(|at| format!("{:x}", at.wrapping_mul(2_654_435_761))).collect();
        commit(&from, "refs/notes/gitamp/prod", &large);
        let second = commit(&from, "refs/heads/main", "second");
        let all = carried(&from, &to, second);
        assert!(to.find_commit(second).is_ok_and(|commit| commit.parent(0).is_ok_and(|first| first.tree().is_ok())));
        let foreign = from.refname_to_id("refs/notes/gitamp/prod").expect("the notes");
        assert!(to.find_commit(foreign).is_err(), "nobody wanted the notes");
        let third = commit(&from, "refs/heads/main", "third");
        let news = carried(&from, &to, third);
        assert!(news * 3 < all, "{news} bytes for one small file, {all} for all");
        assert_eq!(carried(&from, &to, third), 0, "it is there");
    }

    #[test]
    fn a_tag_comes_with_its_commit_and_one_of_a_file_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, to) = (repository(&directory, "from"), repository(&directory, "to"));
        let head = commit(&from, "refs/heads/main", "first");
        let who = Signature::now("ann", "ann@example.com").expect("a signature");
        let target = from.find_object(head, None).expect("the commit");
        let tag = from.tag("v1", &target, &who, "a release", false).expect("a tag");
        carried(&from, &to, tag);
        assert!(to.find_tag(tag).is_ok() && to.find_commit(head).is_ok());
        let blob = from.blob(b"text").expect("a blob");
        carried(&from, &to, blob);
        assert!(to.find_blob(blob).is_ok());
    }

    #[test]
    fn whoever_waits_hears_of_it_before_the_first_byte_and_after_the_last() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, to) = (repository(&directory, "from"), repository(&directory, "to"));
        let head = commit(&from, "refs/heads/main", "first");
        let mut heard = Vec::new();
        carry(&from, &to, head, History::Whole, |written| {
            heard.push(written);
            true
        })
        .expect("it is carried");
        assert_eq!(heard.first(), Some(&0), "counting and comparing may take long: {heard:?}");
        let all = heard.last().copied().unwrap_or_default();
        assert!(heard.iter().filter(|written| **written == all).count() > 1, "so may indexing: {heard:?}");
        let elsewhere = repository(&directory, "elsewhere");
        assert!(
            carry(&from, &elsewhere, head, History::Whole, |written| written > 0).is_err(),
            "it can be stopped there too"
        );
        assert!(elsewhere.find_commit(head).is_err());
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, to) = (repository(&directory, "from"), repository(&directory, "to"));
        let head = commit(&from, "refs/heads/main", "first");
        assert!(carry(&from, &to, head, History::Whole, |_| false).is_err());
        assert!(to.find_commit(head).is_err());
    }
}
