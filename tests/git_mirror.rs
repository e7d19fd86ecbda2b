//! The mirror against real repositories: what is followed, what is read, what is refused, and how it recovers.

mod git_support;

use std::fs;
use std::path::Path;
use std::process::Command;

use git_support::server::{Day, Server};
use git_support::{Author, git, hash_object, open, options, raw_tree, try_git};
use gitamp::fleet::snapshot::{CommitId, Entry, RolloutTrailer, SnapshotLimits};
use gitamp::git::mirror::{Mirror, ReadError, SyncError};
use gitamp::git::{FailureClass, FailureKind, SourceOptions, Tracked};

fn id(text: &str) -> CommitId {
    text.parse().expect("a commit id")
}

#[tokio::test]
async fn commits_arrive_with_their_files_and_words() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    let first = author.commit(
        "First\u{1b}[31m line\n\nand more\n\nSigned-off-by: Ada <ada@example.com>\nGitamp-Rollout: hold",
        &[
            ("fleet/all/group.yaml", "kind: Group\n"),
            ("fleet/all/more.yml", "a: 1\n"),
            ("fleet/all/README.md", "no\n"),
            ("other/x.yaml", "x: 1\n"),
        ],
    );
    let mut options = options(&author.path.to_string_lossy(), &home.path().join("state"));
    options.fleet_root = "fleet".to_owned();
    let mut mirror = open(options.clone()).await;
    assert_eq!(mirror.head(), None, "nothing was synced yet");
    let head = mirror.sync().await.expect("it syncs");
    assert_eq!((head.commit, head.reference.as_str(), head.rewritten), (id(&first), "main", Some(false)));
    let limits = SnapshotLimits::default();
    let reading = mirror.read(head.commit, &head.reference, &limits, None).await.expect("it reads");
    assert_eq!(reading.info.subject, "First [31m line", "control characters are gone, and the rest of the message");
    assert_eq!(reading.info.committer, "Ada <ada@example.com>");
    assert_eq!(reading.info.trailer, Some(RolloutTrailer::Hold));
    assert_eq!(reading.info.revision(), format!("main@sha1:{first}"));
    let snapshot = reading.snapshot.expect("the fleet root is there");
    let paths: Vec<&str> = snapshot.iter().map(|(path, _)| path.as_ref()).collect();
    assert_eq!(paths, ["all/group.yaml", "all/more.yml"], "only YAML below the fleet root");
    assert_eq!(snapshot.get("all/group.yaml"), Some(&Entry::File("kind: Group\n".into())));

    let second = author.commit("Elsewhere", &[("other/x.yaml", "x: 2\n")]);
    let head = mirror.sync().await.expect("it syncs again");
    assert_eq!((head.commit, head.rewritten), (id(&second), Some(false)));
    let again = mirror.read(head.commit, "main", &limits, None).await.expect("it reads").snapshot.expect("a root");
    assert_eq!(again.root().id(), snapshot.root().id(), "nothing below the fleet root changed");
    assert!(snapshot.root().id().is_some() && again == snapshot);
    author.commit("Here", &[("fleet/all/more.yml", "a: 2\n")]);
    let head = mirror.sync().await.expect("it syncs again");
    let changed = mirror.read(head.commit, "main", &limits, None).await.expect("it reads").snapshot.expect("a root");
    assert!(changed.root().id() != snapshot.root().id() && changed != snapshot);
    assert_eq!(mirror.descends(head.commit, id(&first)).await.expect("known"), Some(true));
    assert_eq!(mirror.descends(id(&first), head.commit).await.expect("known"), Some(false));

    let again = open(options.clone()).await;
    assert_eq!(again.head(), Some(head.commit), "the head outlives the process");
    options.fleet_root = "nowhere".to_owned();
    let elsewhere = open(options).await;
    let reading = elsewhere.read(head.commit, "main", &limits, None).await.expect("it reads");
    assert!(reading.snapshot.is_none(), "a missing fleet root is not an empty one");
    let unknown = elsewhere.read(CommitId([7; 20]), "main", &limits, None).await.expect_err("never seen");
    assert!(matches!(unknown, ReadError::Unknown(_)), "{unknown}");
}

#[tokio::test]
async fn rewritten_history_is_flagged_and_a_deleted_branch_changes_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    author.commit("One", &[("a.yaml", "a: 1\n")]);
    let second = author.commit("Two", &[("a.yaml", "a: 2\n")]);
    let mut mirror = open(options(&format!("file://{}", author.path.display()), &home.path().join("state"))).await;
    assert_eq!(mirror.sync().await.expect("it syncs").rewritten, Some(false), "the first head rewrites nothing");
    author.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let head = mirror.sync().await.expect("an older commit is a head like any other");
    assert_eq!(head.rewritten, Some(true), "a reset does not descend from what was there");
    assert_eq!(mirror.sync().await.expect("it syncs").rewritten, Some(false), "told once");
    mirror
        .read(id(&second), "main", &SnapshotLimits::default(), None)
        .await
        .expect("what was synced can still be read");
    let unrelated = author.git(&["commit-tree", "-m", "Other history", "HEAD^{tree}"]);
    author.git(&["reset", "-q", "--hard", &unrelated]);
    let head = mirror.sync().await.expect("unrelated history is a head like any other");
    assert_eq!((head.rewritten, head.commit), (Some(true), id(&unrelated)));

    author.git(&["checkout", "-q", "-b", "trunk"]);
    author.git(&["branch", "-D", "main"]);
    let error = mirror.sync().await.expect_err("the branch is gone");
    let SyncError::Transport(failure) = &error else { panic!("{error}") };
    assert_eq!((failure.kind, error.class()), (FailureKind::NoSuchRef, FailureClass::Stalled));
    assert!(failure.message.contains("refs/heads/main") && failure.message.contains("trunk"), "{failure}");
    assert_eq!(mirror.head(), Some(id(&unrelated)), "the mirror keeps what it has");
    mirror.read(id(&unrelated), "main", &SnapshotLimits::default(), None).await.expect("and still serves it");
}

#[tokio::test]
async fn the_default_branch_and_the_highest_tag_can_be_followed() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
    author.git(&["tag", "v1.9.0"]);
    let second = author.commit("Two", &[("a.yaml", "a: 2\n")]);
    author.git(&["tag", "-a", "-m", "annotated", "v1.10.0"]);
    author.commit("Three", &[("a.yaml", "a: 3\n")]);
    author.git(&["tag", "v2.0.0-rc.1"]);
    author.git(&["checkout", "-q", "-b", "trunk"]);
    let mut tags = options(&author.path.to_string_lossy(), &home.path().join("tags"));
    tags.tracked = Tracked::Tags("v*".to_owned());
    let mut mirror = open(tags).await;
    let head = mirror.sync().await.expect("it syncs");
    assert_eq!((head.commit, head.reference.as_str()), (id(&second), "v1.10.0"), "annotated tags lead to their commit");
    author.git(&["tag", "-d", "v1.10.0"]);
    let head = mirror.sync().await.expect("it syncs");
    assert_eq!((head.commit, head.rewritten), (id(&first), Some(false)), "another tag rewrites nothing");
    author.git(&["tag", "-f", "v1.9.0", &author.git(&["commit-tree", "-m", "Moved", "HEAD^{tree}"])]);
    assert_eq!(mirror.sync().await.expect("it syncs").rewritten, Some(true), "a tag that was moved does");
    author.git(&["tag", "-d", "v1.9.0"]);
    let error = mirror.sync().await.expect_err("none is left").to_string();
    assert!(error.contains("only pre-releases"), "{error}");
    author.git(&["tag", "v3.0.0", "HEAD:a.yaml"]);
    let error = mirror.sync().await.expect_err("a tag of a file");
    assert!(matches!(error, SyncError::NotACommit { .. }), "{error}");

    let mut default = options(&author.path.to_string_lossy(), &home.path().join("default"));
    default.tracked = Tracked::Default;
    assert_eq!(open(default).await.sync().await.expect("it syncs").reference, "trunk");
}

#[tokio::test]
async fn nonexistent_and_empty_repositories_say_what_to_do() {
    let home = tempfile::tempdir().expect("a directory");
    let mut mirror = open(options(&home.path().join("nowhere").to_string_lossy(), &home.path().join("state"))).await;
    let error = mirror.sync().await.expect_err("nothing is there");
    assert_eq!(error.class(), FailureClass::Stalled, "{error}");
    assert!(error.to_string().contains("--repo"), "{error}");
    let author = Author::new(home.path().join("fleet"));
    let mut mirror = open(options(&author.path.to_string_lossy(), &home.path().join("state2"))).await;
    let error = mirror.sync().await.expect_err("no commit yet");
    assert!(error.to_string().contains("is empty"), "{error}");
    author.commit("One", &[]);
    mirror.sync().await.expect("it comes to life without a restart");
}

/// Makes a tree object of raw entries, as no honest git would, and a commit of it.
fn raw_commit(repository: &Path, entries: &[(&str, &[u8], &str)]) -> String {
    let mut tree = Vec::new();
    for (mode, name, oid) in entries {
        tree.extend_from_slice(mode.as_bytes());
        tree.push(b' ');
        tree.extend_from_slice(name);
        tree.push(0);
        tree.extend(hex::decode(oid).expect("an object id"));
    }
    let tree = hash_object(repository, "tree", &tree);
    git(repository, &["commit-tree", "-m", "raw", &tree])
}

#[tokio::test]
async fn links_submodules_and_large_files_are_recognised_and_never_followed() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    let large = format!("a: {}\n", "x".repeat(2 << 20));
    author.commit("One", &[("all/group.yaml", "a: 1\n"), ("all/large.yaml", &large), ("all/fits.yaml", "b: 1\n")]);
    std::os::unix::fs::symlink("/etc/passwd", author.path.join("all/link.yaml")).expect("a link");
    std::os::unix::fs::symlink("..", author.path.join("all/loop")).expect("a link");
    let commit = author.git(&["rev-parse", "HEAD"]);
    author.git(&["add", "-A"]);
    author.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},all/module")]);
    author.git(&["commit", "-q", "-m", "Two"]);
    let mut mirror = open(options(&author.path.to_string_lossy(), &home.path().join("state"))).await;
    let head = mirror.sync().await.expect("it syncs");
    let reading = mirror.read(head.commit, "main", &SnapshotLimits::default(), None).await.expect("it reads");
    let snapshot = reading.snapshot.expect("a fleet root");
    assert_eq!(snapshot.get("all/link.yaml"), Some(&Entry::Symlink));
    assert_eq!(snapshot.get("all/loop"), Some(&Entry::Symlink));
    assert_eq!(snapshot.get("all/module"), Some(&Entry::Submodule));
    assert_eq!(snapshot.get("all/large.yaml"), Some(&Entry::TooLarge(large.len() as u64)));
    assert_eq!(snapshot.get("all/fits.yaml"), Some(&Entry::File("b: 1\n".into())));

    for (limits, reason) in [
        (SnapshotLimits { files: 3, ..SnapshotLimits::default() }, "more than 3 files"),
        (SnapshotLimits { depth: 0, ..SnapshotLimits::default() }, "nested deeper"),
        (SnapshotLimits { path_bytes: 8, ..SnapshotLimits::default() }, "longer than 8 bytes"),
        (SnapshotLimits { total_bytes: 6, ..SnapshotLimits::default() }, "of YAML"),
    ] {
        let error = mirror.read(head.commit, "main", &limits, None).await.expect_err(reason);
        assert!(matches!(&error, ReadError::Refused { reason: why, .. } if why.contains(reason)), "{reason}: {error}");
    }
}

#[tokio::test]
async fn evil_trees_refuse_the_commit_and_nothing_else() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    let good = author.commit("One", &[("all/group.yaml", "a: 1\n")]);
    let blob = author.git(&["rev-parse", "HEAD:all/group.yaml"]);
    let tree = author.git(&["rev-parse", "HEAD:all"]);
    let mut mirror = open(options(&author.path.to_string_lossy(), &home.path().join("state"))).await;
    mirror.sync().await.expect("it syncs");
    let limits = SnapshotLimits::default();
    for (mode, name, oid) in [
        ("40000", &b".."[..], &tree),
        ("40000", b".git", &tree),
        ("40000", b".GIT", &tree),
        ("100644", b"a/b.yaml", &blob),
        ("100644", b"a\\b.yaml", &blob),
        ("100644", b"a\x1bb.yaml", &blob),
        ("100644", b"\xff\xfe.yaml", &blob),
        ("100644", b"claims.yaml", &tree),
        ("100644", b"twice.yaml", &blob),
        ("40000", b"twice", &tree),
    ] {
        let shown = String::from_utf8_lossy(name).into_owned();
        let entries = [(mode, name, oid.as_str()); 2];
        let count = if name.starts_with(b"twice") { 2 } else { 1 };
        let commit = raw_commit(&author.path, &entries[..count]);
        author.git(&["update-ref", "refs/heads/main", &commit]);
        let head = mirror.sync().await.unwrap_or_else(|error| panic!("{shown}: {error}"));
        let error = mirror.read(head.commit, "main", &limits, None).await.expect_err(&shown);
        assert!(matches!(error, ReadError::Refused { .. }), "{shown}: {error}");
        mirror.read(id(&good), "main", &limits, None).await.expect("the commit before can still be read");
    }
    let odd = raw_commit(&author.path, &[("100644", b"notes\\here.txt", &blob), ("100644", b"ok.yaml", &blob)]);
    author.git(&["update-ref", "refs/heads/main", &odd]);
    let head = mirror.sync().await.expect("it syncs");
    let reading = mirror.read(head.commit, "main", &limits, None).await.expect("what nobody reads does no harm");
    assert_eq!(reading.snapshot.expect("a root").len(), 1);
}

#[tokio::test]
async fn a_tree_that_multiplies_itself_is_stopped_by_the_count() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    author.commit("One", &[("a.yaml", "a: 1\n")]);
    let blob = author.git(&["rev-parse", "HEAD:a.yaml"]);
    let mut tree = hash_object(&author.path, "tree", &raw_tree(&[("100644", "a.yaml", &blob)]));
    for _ in 0..12 {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let entries: Vec<(&str, &str, &str)> = names.iter().map(|name| ("40000", *name, tree.as_str())).collect();
        tree = hash_object(&author.path, "tree", &raw_tree(&entries));
    }
    let commit = author.git(&["commit-tree", "-m", "eight to the power of twelve", &tree]);
    author.git(&["update-ref", "refs/heads/main", &commit]);
    let mut mirror = open(options(&author.path.to_string_lossy(), &home.path().join("state"))).await;
    let head = mirror.sync().await.expect("it syncs");
    let error = mirror.read(head.commit, "main", &SnapshotLimits::default(), None).await.expect_err("too many");
    assert!(matches!(error, ReadError::Refused { .. }), "{error}");
}

/// How often the mirror was set aside.
fn made_anew(state: &Path) -> usize {
    let names = fs::read_dir(state).expect("a directory").flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().contains("damaged")).count()
}

/// What stands in `a.yaml` of a commit.
async fn content(mirror: &Mirror, commit: CommitId) -> Option<Entry> {
    let reading = mirror.read(commit, "main", &SnapshotLimits::default(), None).await.expect("it reads");
    reading.snapshot.expect("a root").get("a.yaml").cloned()
}

#[tokio::test]
async fn by_choice_only_the_newest_commit_comes_and_what_it_cannot_tell_is_unknown() {
    for is_local in [false, true] {
        let home = tempfile::tempdir().expect("a directory");
        let author = Author::new(home.path().join("fleet"));
        let more =
            |number: usize| author.commit("More", &[("a.yaml", &format!("a: {number}\n")), ("b/b.yaml", "b: 1\n")]);
        let text = |number: usize| Some(Entry::File(format!("a: {number}\n").into()));
        let commits: Vec<String> = (0..5).map(&more).collect();
        let bare = home.path().join("fleet.git");
        git(home.path(), &["clone", "-q", "--bare", "fleet", "fleet.git"]);
        let push = || drop(author.git(&["push", "-q", "-f", "../fleet.git", "main"]));
        let server = Server::start(&bare, Day::Good);
        let url = if is_local { bare.to_string_lossy().into_owned() } else { server.url() };
        let path = home.path().join("state/mirror.git");
        let shallow = SourceOptions { shallow: true, ..options(&url, &home.path().join("state")) };
        let whole = SourceOptions { shallow: false, ..shallow.clone() };
        let count = || git(&path, &["rev-list", "--count", "refs/gitamp/head"]);

        let mut mirror = open(shallow.clone()).await;
        let head = mirror.sync().await.expect("it syncs");
        assert_eq!((head.commit, head.rewritten), (id(&commits[4]), Some(false)), "nothing was there before");
        assert_eq!(count(), "1", "what led to it stays where it is");
        assert!(!try_git(&path, &["cat-file", "-e", &commits[3]]).0, "none of it is here");
        assert_eq!(content(&mirror, head.commit).await, text(4));
        let unknown = mirror.descends(head.commit, id(&commits[0])).await.expect("it reads");
        assert_eq!(unknown, None, "it does, and nobody can tell");

        for number in 5..8 {
            // One that names the head before as its parent follows on it; of several nobody can tell.
            let is_one = number == 5;
            if !is_one {
                more(number + 100);
            }
            let next = more(number);
            push();
            // Also over a restart.
            mirror = if number == 6 { open(shallow.clone()).await } else { mirror };
            let head = mirror.sync().await.expect("it syncs");
            assert_eq!((head.commit, head.rewritten), (id(&next), is_one.then_some(false)), "{number}");
            assert_eq!(content(&mirror, head.commit).await, text(number));
            assert_eq!(count(), "1", "{number}");
            let again = mirror.sync().await.expect("it syncs");
            assert_eq!((again.commit, again.rewritten), (id(&next), Some(false)), "the same is no other history");
        }
        author.git(&["reset", "-q", "--hard", &commits[2]]);
        let rewritten = more(20);
        push();
        let head = mirror.sync().await.expect("a force push is a head like any other");
        assert_eq!((head.commit, head.rewritten, count().as_str()), (id(&rewritten), None, "1"));
        assert_eq!(content(&mirror, head.commit).await, text(20));
        git(&path, &["fsck", "--full", "--strict"]);
        assert_eq!(made_anew(&home.path().join("state")), 0, "nothing of that is taken for damage");

        // Who takes the choice back gets the rest, though nothing is new; the other way round what is there stays.
        let mut mirror = open(whole.clone()).await;
        assert_eq!(mirror.head(), Some(id(&rewritten)));
        let head = mirror.sync().await.expect("it syncs");
        assert_eq!((head.commit, count().as_str()), (id(&rewritten), "4"));
        assert_eq!(mirror.descends(head.commit, id(&commits[0])).await.expect("it reads"), Some(true));
        let mut mirror = open(shallow.clone()).await;
        assert_eq!(mirror.sync().await.expect("it syncs").rewritten, Some(false));
        let next = more(21);
        push();
        let head = mirror.sync().await.expect("it syncs");
        assert_eq!(head.commit, id(&next));
        assert_ne!(head.rewritten, Some(true), "what is there may tell that it follows, and nothing else");
        assert_eq!(content(&mirror, head.commit).await, text(21));
        let mut mirror = open(whole).await;
        mirror.sync().await.expect("it syncs");
        assert_eq!(count(), "5");
        assert_eq!(mirror.descends(id(&next), id(&commits[0])).await.expect("it reads"), Some(true));
    }
}

#[tokio::test]
async fn a_remote_that_has_no_history_itself_is_followed_and_tells_what_it_cannot_know() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    for number in 0..3 {
        author.commit("More", &[("a.yaml", &format!("a: {number}\n"))]);
    }
    let from = format!("file://{}", author.path.display());
    git(home.path(), &["clone", "-q", "--bare", "--depth", "1", &from, "copy.git"]);
    let copy = home.path().join("copy.git");
    let url = copy.to_string_lossy().into_owned();
    for shallow in [false, true] {
        let state = tempfile::tempdir().expect("a directory");
        let mut mirror = open(SourceOptions { shallow, ..options(&url, state.path()) }).await;
        let first = mirror.sync().await.expect("it syncs").commit;
        let next = author.commit("More", &[("a.yaml", &format!("a: {first}\n"))]);
        git(&copy, &["fetch", "-q", "--depth", "1", &from, "+main:main"]);
        let head = mirror.sync().await.expect("it syncs");
        assert_eq!((head.commit, head.rewritten), (id(&next), Some(false)), "{url}");
        assert_eq!(content(&mirror, head.commit).await, Some(Entry::File(format!("a: {first}\n").into())), "{url}");
        git(&state.path().join("mirror.git"), &["fsck", "--full", "--strict"]);
        assert_eq!(made_anew(state.path()), 0, "nothing of that is taken for damage");
    }
}

/// Makes every object of a repository a file of its own, and removes these.
fn lose_objects(repository: &Path, objects: &[String]) {
    for file in fs::read_dir(repository.join("objects/pack")).expect("packs").flatten() {
        let (name, away) = (file.path(), repository.join("away.pack"));
        if name.extension().is_some_and(|extension| extension == "pack") {
            fs::rename(&name, &away).expect("renamed");
            let pack = fs::File::open(&away).expect("readable");
            let unpacked =
                Command::new("git").args(["unpack-objects", "-q"]).current_dir(repository).stdin(pack).status();
            assert!(unpacked.expect("git runs").success());
        } else {
            fs::remove_file(&name).expect("removed");
        }
    }
    for object in objects {
        fs::remove_file(repository.join("objects").join(&object[..2]).join(&object[2..])).expect("it was there");
    }
}

#[tokio::test]
async fn what_the_commit_before_had_too_is_not_read_again() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    let file = |directory: &str, name: &str| (format!("{directory}/{name}.yaml"), format!("{directory}: {name}\n"));
    let files: Vec<(String, String)> = ["a", "b/deep", "c"]
        .into_iter()
        .flat_map(|directory| ["one", "two", "three"].map(|name| file(directory, name)))
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    author.commit("One", &files);
    let state = home.path().join("state");
    let mut mirror = open(options(&author.path.to_string_lossy(), &state)).await;
    let limits = SnapshotLimits::default();
    let head = mirror.sync().await.expect("it syncs");
    let before = mirror.read(head.commit, "main", &limits, None).await.expect("it reads").snapshot.expect("a root");

    let second = author.commit("Two", &[("b/deep/two.yaml", "other: 1\n"), ("b/new.yaml", "new: 1\n")]);
    let head = mirror.sync().await.expect("it syncs");
    let whole = mirror.read(head.commit, "main", &limits, None).await.expect("it reads").snapshot.expect("a root");
    // Whoever looked at any of these would find the repository damaged.
    let unchanged = ["a", "c", "a/one.yaml", "c/three.yaml", "b/deep/one.yaml", "b/deep/three.yaml"];
    let lost: Vec<String> =
        unchanged.iter().map(|path| author.git(&["rev-parse", &format!("{second}:{path}")])).collect();
    lose_objects(&state.join("mirror.git"), &lost);
    let shared = mirror
        .read(head.commit, "main", &limits, Some(&before))
        .await
        .expect("they are not needed")
        .snapshot
        .expect("a root");
    assert_eq!(shared, whole);
    assert_eq!(shared.root().id(), whole.root().id());
    let changed: Vec<_> = shared.changed_since(&before).into_iter().collect();
    assert_eq!(changed.iter().map(|path| &**path).collect::<Vec<_>>(), ["b/deep/two.yaml", "b/new.yaml"]);
    for (directory, is_shared) in [("a", true), ("c", true), ("b", false), ("b/deep", false)] {
        let [one, other] = [&before, &shared].map(|snapshot| snapshot.directory(directory).expect("there"));
        assert_eq!(std::sync::Arc::ptr_eq(one, other), is_shared, "{directory}");
    }
    let same = mirror.read(head.commit, "main", &limits, Some(&shared)).await.expect("nothing is needed").snapshot;
    assert!(std::sync::Arc::ptr_eq(same.expect("a root").root(), shared.root()));

    // What is shared counts all the same.
    let (objects, bytes) = (shared.root().objects(), shared.root().bytes());
    for (limits, is_enough) in [
        (SnapshotLimits { files: objects, total_bytes: bytes, ..SnapshotLimits::default() }, true),
        (SnapshotLimits { files: objects - 1, ..SnapshotLimits::default() }, false),
        (SnapshotLimits { total_bytes: bytes - 1, ..SnapshotLimits::default() }, false),
    ] {
        let read = mirror.read(head.commit, "main", &limits, Some(&before)).await;
        assert_eq!(read.is_ok(), is_enough, "{limits:?}: {:?}", read.err());
    }
    let alone = mirror.read(head.commit, "main", &limits, None).await.expect_err("without the snapshot before");
    assert!(matches!(alone, ReadError::Damaged(_)), "{alone}");
}

#[tokio::test]
async fn a_damaged_mirror_is_set_aside_and_cloned_anew() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    let state = home.path().join("state");
    let path = state.join("mirror.git");
    let mut commit = author.commit("One", &[("a.yaml", "a: 1\n")]);
    let damages: [(&str, &dyn Fn()); 5] = [
        ("truncated packs", &|| {
            for file in fs::read_dir(path.join("objects/pack")).expect("packs").flatten() {
                fs::remove_file(file.path()).expect("removable");
                fs::write(file.path(), b"PACK").expect("writable");
            }
        }),
        ("no objects", &|| fs::remove_dir_all(path.join("objects")).expect("removable")),
        ("a stale lock", &|| fs::write(path.join("refs/gitamp/fetched.lock"), b"").expect("writable")),
        ("a ref of garbage", &|| fs::write(path.join("refs/gitamp/head"), b"\0\0garbage").expect("writable")),
        ("no HEAD", &|| fs::remove_file(path.join("HEAD")).expect("removable")),
    ];
    let mut mirror = open(options(&author.path.to_string_lossy(), &state)).await;
    mirror.sync().await.expect("it syncs");
    for (number, (what, damage)) in damages.into_iter().enumerate() {
        damage();
        commit = author.commit(what, &[("a.yaml", &format!("a: {number}\n"))]);
        let head = mirror.sync().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(head.commit, id(&commit), "{what}");
        let reading = mirror.read(head.commit, "main", &SnapshotLimits::default(), None).await;
        let reading = match reading {
            // Damage that only a reader notices is repaired by the next sync.
            Err(ReadError::Damaged(_)) => {
                let head = mirror.sync().await.unwrap_or_else(|error| panic!("{what}: {error}"));
                mirror
                    .read(head.commit, "main", &SnapshotLimits::default(), None)
                    .await
                    .unwrap_or_else(|error| panic!("{what}: {error}"))
            }
            reading => reading.unwrap_or_else(|error| panic!("{what}: {error}")),
        };
        assert_eq!(reading.snapshot.expect("a root").len(), 1, "{what}");
    }
    let aside = fs::read_dir(&state)
        .expect("a list")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("mirror.git.damaged-"));
    assert_eq!(aside.count(), 1, "one damaged mirror is kept to look at");
    damage_and_lose(&author, &mut mirror, &path, &commit).await;
}

/// When the remote is gone too, the damaged mirror stays where it is and comes back with the remote.
async fn damage_and_lose(author: &Author, mirror: &mut Mirror, path: &Path, commit: &str) {
    let hidden = author.path.with_extension("hidden");
    fs::rename(&author.path, &hidden).expect("movable");
    fs::remove_file(path.join("HEAD")).expect("removable");
    mirror.sync().await.expect_err("neither mirror nor remote");
    assert_eq!(mirror.head(), Some(id(commit)), "what is known stays known");
    fs::rename(&hidden, &author.path).expect("movable");
    assert_eq!(mirror.sync().await.expect("it recovers without a restart").commit, id(commit));
}

#[tokio::test]
async fn a_mirror_that_fetched_often_is_packed_and_stays_readable() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    let state = home.path().join("state");
    let mut mirror = open(options(&author.path.to_string_lossy(), &state)).await;
    let mut head = None;
    for number in 0..60 {
        author.commit("More", &[("a.yaml", &format!("a: {number}\n"))]);
        head = Some(mirror.sync().await.expect("it syncs"));
    }
    let packs = fs::read_dir(state.join("mirror.git/objects/pack")).expect("packs").flatten();
    let packs = packs.filter(|file| file.path().extension().is_some_and(|extension| extension == "pack")).count();
    assert!(packs < 52, "{packs} packs");
    let head = head.expect("a head");
    let reading = mirror.read(head.commit, "main", &SnapshotLimits::default(), None).await.expect("it reads");
    assert_eq!(reading.snapshot.expect("a root").get("a.yaml"), Some(&Entry::File("a: 59\n".into())));
    git(&state.join("mirror.git"), &["fsck", "--full", "--strict"]);
}
