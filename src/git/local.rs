//! Objects carried from one repository of this machine to another.
//!
//! libgit2's own transport between directories packs whatever any ref of the source reaches and the target's refs do not. A journal that
//! lives beside the fleet's branches is reached by none of the mirror's, so every fetch would carry all of it, again and again.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};

use git2::{Error, ErrorCode, ObjectType, Oid, Repository};

/// Copies `wanted`, a commit or a tag of something, with everything that it needs and `to` does not have: what the refs of `to` reach is
/// taken to be there. `moved` hears how many bytes were written, often, also while there are none yet (objects are counted and compared) and
/// when there are no more (they are indexed); when it says no, the transfer ends with an error.
pub(super) fn carry(
    from: &Repository,
    to: &Repository,
    wanted: Oid,
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
    if object.kind() == Some(ObjectType::Commit) {
        let mut walk = from.revwalk()?;
        walk.push(object.id())?;
        for reference in to.references()? {
            let had = reference?.peel_to_commit().ok().map(|commit| commit.id());
            if let Some(had) = had.filter(|had| from.find_commit(*had).is_ok()) {
                walk.hide(had)?;
            }
        }
        pack.insert_walk(&mut walk)?;
    } else {
        pack.insert_recursive(object.id(), None)?;
    }
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
        return Err(Error::new(ErrorCode::GenericError, git2::ErrorClass::Odb, error.to_string()));
    }
    outcome?;
    writer.commit().map(drop)
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
        carry(from, to, wanted, |written| {
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
        carry(&from, &to, head, |written| {
            heard.push(written);
            true
        })
        .expect("it is carried");
        assert_eq!(heard.first(), Some(&0), "counting and comparing may take long: {heard:?}");
        let all = heard.last().copied().unwrap_or_default();
        assert!(heard.iter().filter(|written| **written == all).count() > 1, "so may indexing: {heard:?}");
        let elsewhere = repository(&directory, "elsewhere");
        assert!(carry(&from, &elsewhere, head, |written| written > 0).is_err(), "it can be stopped there too");
        assert!(elsewhere.find_commit(head).is_err());
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, to) = (repository(&directory, "from"), repository(&directory, "to"));
        let head = commit(&from, "refs/heads/main", "first");
        assert!(carry(&from, &to, head, |_| false).is_err());
        assert!(to.find_commit(head).is_err());
    }
}
