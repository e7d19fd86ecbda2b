//! The bell for repositories of this machine: rings for branches, tags and packed refs, in bare ones, clones and worktrees.

mod git_support;

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use git_support::{Author, git};
use gitamp::git::watch::{Watcher, watch};

/// Far above what a busy machine needs to pass an event on.
const BOUND: Duration = Duration::from_secs(20);

fn bell(path: &Path) -> (Watcher, Receiver<()>) {
    let (sender, receiver) = sync_channel(1000);
    let watcher = watch(path, move || {
        let _full_is_fine = sender.try_send(());
    })
    .expect("it can be watched");
    (watcher, receiver)
}

/// Waits for a ring, then lets those that belong to the same change pass.
fn rang(receiver: &Receiver<()>, why: &str) {
    receiver.recv_timeout(BOUND).unwrap_or_else(|_| panic!("no ring: {why}"));
    while receiver.recv_timeout(Duration::from_millis(200)).is_ok() {}
}

#[test]
fn what_moves_a_ref_rings() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("author"));
    author.commit("One", &[("a.yaml", "a: 1\n")]);
    git(home.path(), &["clone", "-q", "--bare", "author", "fleet.git"]);
    author.git(&["remote", "add", "origin", "../fleet.git"]);
    author.git(&["worktree", "add", "-q", "../worktree"]);
    let bare = home.path().join("fleet.git");

    let (_watcher, rings) = bell(&bare);
    author.commit("Two", &[("a.yaml", "a: 2\n")]);
    author.git(&["push", "-q", "origin", "main"]);
    rang(&rings, "a push to a bare repository");
    author.git(&["push", "-q", "origin", "main:refs/heads/team/a/new"]);
    rang(&rings, "a branch in new directories");
    author.git(&["push", "-q", "origin", "main~1:refs/heads/team/a/new", "--force"]);
    rang(&rings, "a branch in directories that are younger than the watch");
    git(&bare, &["pack-refs", "--all"]);
    rang(&rings, "packed refs");
    git(&bare, &["tag", "v1"]);
    rang(&rings, "a tag");
    git(&bare, &["symbolic-ref", "HEAD", "refs/heads/other"]);
    rang(&rings, "another default branch");

    let (_clone, rings) = bell(&author.path);
    author.commit("Three", &[("a.yaml", "a: 3\n")]);
    rang(&rings, "a commit in a working copy");
    let (_worktree, rings) = bell(&home.path().join("worktree"));
    author.commit("Four", &[("a.yaml", "a: 4\n")]);
    rang(&rings, "a commit seen from a worktree");
}

#[test]
fn our_own_notes_do_not_ring_and_nothing_is_no_repository() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("author"));
    author.commit("One", &[("a.yaml", "a: 1\n")]);
    author.git(&["notes", "--ref=gitamp/default", "add", "-m", "before", "HEAD"]);
    let (_watcher, rings) = bell(&author.path);
    author.git(&["notes", "--ref=gitamp/default", "add", "-f", "-m", "note", "HEAD"]);
    // The commit comes after the note, so a ring for the note would come before the branch's.
    let before = rings.recv_timeout(Duration::from_millis(500)).is_ok();
    assert!(!before, "a note rang");
    author.commit("Two", &[("a.yaml", "a: 2\n")]);
    rang(&rings, "the commit");
    watch(&home.path().join("nowhere"), || {}).expect_err("nothing is there");
    watch(home.path(), || {}).expect_err("no repository");
}
