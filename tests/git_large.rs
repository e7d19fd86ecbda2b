//! Large repositories, and small ones made to be large: what is fetched of them, and how each ends in a clear word in bounded memory.

mod git_support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use git_support::journal::{journal_options, write};
use git_support::server::{Day, Server};
use git_support::{Author, git, hash_object, open, options, raw_tree, try_git};
use gitamp::fleet::snapshot::{Entry, SnapshotLimits};
use gitamp::git::journal::{Journal, PushOutcome};
use gitamp::git::lineage::Question;
use gitamp::git::mirror::{Mirror, ReadError, SyncError};
use gitamp::git::{FailureKind, Tracked};

/// What this process holds at most, so far, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}

/// Why the head of `author` is refused.
async fn refused(author: &Author, state: &Path) -> String {
    let mut mirror = open(options(&author.path.to_string_lossy(), state)).await;
    let head = mirror.sync().await.expect("it syncs").commit;
    match mirror.read(head, "main", &SnapshotLimits::default(), None).await {
        Err(ReadError::Refused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn commit_tree(author: &Author, tree: &str) -> String {
    let commit = author.git(&["commit-tree", "-m", "large", "-p", "HEAD", tree]);
    author.git(&["update-ref", "refs/heads/main", &commit]);
    commit
}

#[tokio::test]
async fn nothing_but_the_tracked_ref_and_the_notes_is_fetched() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
    let mut others = Vec::new();
    for name in ["feature", "release/1"] {
        author.git(&["checkout", "-q", "-b", name, &first]);
        others.push(author.commit(name, &[("b.yaml", name)]));
    }
    author.git(&["checkout", "-q", "--detach", &first]);
    others.push(author.commit("A pull request", &[("c.yaml", "c: 1\n")]));
    author.git(&["update-ref", "refs/pull/1/head", "HEAD"]);
    author.git(&["tag", "-a", "-m", "of nothing that is followed", "v1"]);
    author.git(&["checkout", "-q", "main"]);
    let head = author.commit("Two", &[("a.yaml", "a: 2\n")]);
    git(home.path(), &["clone", "-q", "--mirror", "fleet", "fleet.git"]);
    let bare = home.path().join("fleet.git");
    git(&bare, &["config", "http.receivepack", "true"]);
    let server = Server::start(&bare, Day::Good);
    for url in [bare.to_string_lossy().into_owned(), server.url()] {
        for tracked in [Tracked::Branch("main".to_owned()), Tracked::Default] {
            let state = tempfile::tempdir().expect("a directory");
            let mut options = options(&url, state.path());
            options.tracked = tracked;
            let mut mirror = open(options).await;
            assert_eq!(mirror.sync().await.expect("it syncs").commit.to_string(), head);
            let path = state.path().join("mirror.git");
            assert!(others.iter().all(|other| !try_git(&path, &["cat-file", "-e", other]).0), "{url}");
            let refs = git(&path, &["for-each-ref", "--format=%(refname)"]);
            assert_eq!(refs, "refs/gitamp/fetched\nrefs/gitamp/head", "{url}");
            // The journal takes the notes and nothing else.
            let (journal, _) = Journal::open(journal_options(Some(&url), state.path())).await.expect("it opens");
            journal.store(write(&head, "ours", &[("a", Some("1"))])).await.expect("it stores");
            assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed, "{url}");
            drop(journal);
            std::fs::remove_dir_all(state.path().join("journal.git")).expect("removable");
            let (journal, contents) = Journal::open(journal_options(Some(&url), state.path())).await.expect("it opens");
            assert_eq!(contents.state.len(), 1);
            drop(journal);
            let path = state.path().join("journal.git");
            assert!(others.iter().chain([&head]).all(|other| !try_git(&path, &["cat-file", "-e", other]).0), "{url}");
            git(&bare, &["update-ref", "-d", "refs/notes/gitamp/default"]);
        }
    }
}

#[tokio::test]
async fn a_million_files_are_refused_by_their_number() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    author.commit("One", &[("a.yaml", "a: 1\n")]);
    let blob = author.git(&["rev-parse", "HEAD:a.yaml"]);
    // One tree of a thousand files, a thousand times.
    let names: Vec<String> = (0..1000).map(|number| format!("{number:03}.yaml")).collect();
    let files: Vec<_> = names.iter().map(|name| ("100644", name.as_str(), blob.as_str())).collect();
    let tree = hash_object(&author.path, "tree", &raw_tree(&files));
    let shared: Vec<_> = names.iter().map(|name| ("40000", &name[..3], tree.as_str())).collect();
    let shared = hash_object(&author.path, "tree", &raw_tree(&shared));
    commit_tree(&author, &shared);
    let reason = refused(&author, &home.path().join("shared")).await;
    assert!(reason.contains("more than 200000 files") && reason.contains("--path"), "{reason}");
    // A million in one directory, 41 MB of names.
    let id = hex::decode(&blob).expect("an id");
    let mut flat = Vec::with_capacity(45_000_000);
    for number in 0..1_000_000 {
        write!(flat, "100644 {number:07}.yaml\0").expect("memory");
        flat.extend_from_slice(&id);
    }
    let flat = hash_object(&author.path, "tree", &flat);
    commit_tree(&author, &flat);
    let reason = refused(&author, &home.path().join("flat")).await;
    assert!(reason.contains("more than 200000 files"), "{reason}");
    assert!(peak_memory() < 2 << 30, "{} MiB", peak_memory() >> 20);
}

#[tokio::test]
async fn long_paths_and_deep_directories_are_refused_by_name() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    author.commit("One", &[("a.yaml", "a: 1\n")]);
    let blob = author.git(&["rev-parse", "HEAD:a.yaml"]);
    let nest = |name: &str, depth: usize| {
        let leaf = hash_object(&author.path, "tree", &raw_tree(&[("100644", "a.yaml", &blob)]));
        (0..depth).fold(leaf, |tree, _| hash_object(&author.path, "tree", &raw_tree(&[("40000", name, &tree)])))
    };
    for (what, name, depth, words) in [
        ("path", "p".repeat(250), 16, "is longer than 1024 bytes"),
        ("name", "n".repeat(4096), 1, "is longer than 1024 bytes"),
        ("depth", "d".to_owned(), 500, "is nested deeper than 32 directories"),
    ] {
        commit_tree(&author, &nest(&name, depth));
        let reason = refused(&author, &home.path().join(what)).await;
        assert!(reason.contains(words) && reason.len() < 2000, "{what}: {reason}");
    }
}

#[tokio::test]
async fn what_multiplies_itself_is_not_judged_by_its_signers_either() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
    let blob = author.git(&["rev-parse", "HEAD:a.yaml"]);
    let mut tree = hash_object(&author.path, "tree", &raw_tree(&[("100644", "a.yaml", &blob)]));
    for _ in 0..12 {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        tree = hash_object(&author.path, "tree", &raw_tree(&names.map(|name| ("40000", name, tree.as_str()))));
    }
    let bomb = commit_tree(&author, &tree);
    // And as one side of a merge that changes nothing itself.
    let merge = author.git(&["commit-tree", "-m", "merge", "-p", &first, "-p", &bomb, &tree]);
    for head in [bomb, merge] {
        author.git(&["update-ref", "refs/heads/main", &head]);
        for every in [false, true] {
            let mut mirror = open(options(&author.path.to_string_lossy(), &home.path().join("state"))).await;
            let head = mirror.sync().await.expect("it syncs").commit;
            let since = Some(first.parse().expect("a commit"));
            let question = Question { head, since, every, paths: true, most: 10 };
            match mirror.lineage(question).await {
                Err(ReadError::Refused { reason, .. }) => assert!(reason.contains("signers"), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(peak_memory() < 2 << 30, "{} MiB", peak_memory() >> 20);
}

#[tokio::test]
async fn a_huge_file_is_named_and_its_content_never_read() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    author.commit("One", &[("all/a.yaml", "a: 1\n")]);
    let size: u64 = 200 << 20;
    let script = format!("head -c {size} /dev/zero | git -c core.compression=1 hash-object -w --stdin");
    let output = Command::new("sh").args(["-ec", &script]).current_dir(&author.path).output().expect("a shell");
    let huge = String::from_utf8(output.stdout).expect("an id").trim().to_owned();
    author.git(&["update-index", "--add", "--cacheinfo", &format!("100644,{huge},all/huge.yaml")]);
    author.git(&["commit", "-q", "-m", "Two"]);
    git(home.path(), &["clone", "-q", "--bare", "fleet", "fleet.git"]);
    let server = Server::start(&home.path().join("fleet.git"), Day::Good);
    let mut mirror = open(options(&server.url(), &home.path().join("state"))).await;
    let head = mirror.sync().await.expect("it syncs").commit;
    let read = mirror.read(head, "main", &SnapshotLimits::default(), None).await.expect("it reads");
    let snapshot = read.snapshot.expect("a root");
    assert_eq!(snapshot.get("all/huge.yaml"), Some(&Entry::TooLarge(size)));
    assert_eq!(snapshot.get("all/a.yaml"), Some(&Entry::File("a: 1\n".into())));
}

/// `bytes` as zlib has them, not compressed.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut chunks = bytes.chunks(65_535).peekable();
    while let Some(chunk) = chunks.next() {
        let length = u16::try_from(chunk.len()).expect("a chunk");
        out.push(u8::from(chunks.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend_from_slice(chunk);
    }
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in bytes {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    out.extend(((high << 16) | low).to_be_bytes());
    out
}

/// A number in sevens of bits, the lowest first, as deltas have their sizes.
fn sevens(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// The head of an object in a pack.
fn object(kind: u8, size: usize) -> Vec<u8> {
    let mut out = vec![(kind << 4) | (size & 0xf) as u8];
    let rest = size >> 4;
    if rest > 0 {
        out[0] |= 0x80;
        out.extend(sevens(rest as u64));
    }
    out
}

/// A delta that says its base of this size so many times.
fn repeated(base: u64, times: u64) -> Vec<u8> {
    let mut delta = [sevens(base), sevens(base * times)].concat();
    for _ in 0..times {
        // From the beginning, three bytes of length.
        delta.push(0x80 | 0x70);
        delta.extend(&base.to_le_bytes()[..3]);
    }
    delta
}

/// A pack of a small file, a file that is that many times, and one that is that many times: two hundred kilobytes that say 17 GB.
fn bomb() -> Vec<u8> {
    let base = vec![b'x'; 60_000];
    let mut pack = b"PACK\0\0\0\x02\0\0\0\x03".to_vec();
    let mut before = pack.len();
    pack.extend(object(3, base.len()));
    pack.extend(stored(&base));
    let mut size = base.len() as u64;
    for times in [270, 1100] {
        let delta = repeated(size, times);
        let at = pack.len();
        pack.extend(object(6, delta.len()));
        let mut distance = at - before;
        let mut offset = vec![(distance & 0x7f) as u8];
        while distance > 0x7f {
            distance = (distance >> 7) - 1;
            offset.insert(0, 0x80 | (distance & 0x7f) as u8);
        }
        pack.extend(offset);
        pack.extend(stored(&delta));
        (before, size) = (at, size * times);
    }
    let mut child = Command::new("sha1sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("coreutils");
    child.stdin.take().expect("a pipe").write_all(&pack).expect("it is written");
    let sum = String::from_utf8(child.wait_with_output().expect("it ends").stdout).expect("text");
    pack.extend(hex::decode(&sum[..40]).expect("a sum"));
    pack
}

/// What a remote sends builds on what it takes for granted here: when that is damaged, the remote is not to blame.
#[tokio::test]
async fn a_change_to_a_file_that_is_damaged_here_is_taken_in_by_a_new_mirror() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    let line = |number: u64| format!("{:016x}\n", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let large: String = (1..20_000).map(line).collect();
    author.commit("One", &[("a.yaml", &large)]);
    git(home.path(), &["clone", "-q", "--bare", "fleet", "fleet.git"]);
    let server = Server::start(&home.path().join("fleet.git"), Day::Good);
    let mut mirror = open(options(&server.url(), &home.path().join("state"))).await;
    mirror.sync().await.expect("a good day");
    let packs = std::fs::read_dir(home.path().join("state/mirror.git/objects/pack")).expect("a directory").flatten();
    let pack = packs.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|kind| kind == "pack"));
    let pack = pack.expect("what was fetched");
    let mut bytes = std::fs::read(&pack).expect("a pack");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0x55);
    std::fs::remove_file(&pack).expect("it may be read-only");
    std::fs::write(&pack, bytes).expect("room");
    author.commit("Two", &[("a.yaml", &format!("{large}more\n"))]);
    author.git(&["push", "-q", "../fleet.git", "main"]);
    mirror.sync().await.expect("made anew");
}

#[tokio::test]
async fn a_pack_that_explodes_ends_its_transfer_and_nothing_else() {
    let home = tempfile::tempdir().expect("a directory");
    let author = Author::new(home.path().join("fleet"));
    let good = author.commit("One", &[("a.yaml", "a: 1\n")]);
    git(home.path(), &["clone", "-q", "--bare", "fleet", "fleet.git"]);
    let server = Server::start(&home.path().join("fleet.git"), Day::Good);
    let mut mirror = open(options(&server.url(), &home.path().join("state"))).await;
    mirror.sync().await.expect("a good day");
    author.commit("Two", &[("a.yaml", "a: 2\n")]);
    author.git(&["push", "-q", "../fleet.git", "main"]);
    server.turn(Day::Pack(bomb()));
    for _ in 0..2 {
        let error = mirror.sync().await.expect_err("17 GB");
        let SyncError::Transport(failure) = &error else { panic!("{error}") };
        assert_eq!(failure.kind, FailureKind::Content, "{failure}");
        assert!(failure.message.contains("beyond all memory") && failure.message.contains("git fsck"), "{failure}");
    }
    let read = |mirror: Mirror| async move {
        mirror.read(good.parse().expect("a commit"), "main", &SnapshotLimits::default(), None).await.map(|_| mirror)
    };
    let mut mirror = read(mirror).await.expect("what was there is there");
    let left = std::fs::read_dir(home.path().join("state")).expect("a directory").flatten();
    let names = left.fold(String::new(), |mut names, entry| {
        write!(names, "{} ", entry.file_name().to_string_lossy()).expect("memory");
        names
    });
    assert!(!names.contains("damaged") && !names.contains("new"), "nothing was made anew: {names}");
    server.turn(Day::Good);
    mirror.sync().await.expect("well again");
    assert!(peak_memory() < 2 << 30, "{} MiB", peak_memory() >> 20);
}
