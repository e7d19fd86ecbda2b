//! What comes out of somebody else's repository, as it stands in ours when a transfer has brought it, and what a transfer's process says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use git2::{ObjectType, Oid, Repository};
use gitamp::fleet::load;
use gitamp::fleet::snapshot::{CommitId, Entry, SnapshotLimits};
use gitamp::git::answers::Line;
use gitamp::git::lineage::Question;
use gitamp::git::mirror::{Mirror, ReadError};
use gitamp::git::notes::NotesPlace;
use gitamp::git::{Access, Deadlines, SourceOptions, Tracked};
use gitamp::trust::{Signers, verify};
use gitamp::view::operator::Range;
use tokio::runtime::Runtime;

use super::{NOON, is_harmless, parts};

/// Objects of one input.
const MOST_OBJECTS: usize = 40;

/// A mirror that is used again and again, because making one takes longer than all that is read from it.
struct Workshop {
    directory: tempfile::TempDir,
    mirror: Mirror,
    repository: Repository,
    runtime: Runtime,
}

thread_local! {
    static WORKSHOP: RefCell<Workshop> = RefCell::new(Workshop::new());
}

impl Workshop {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).external_template(false).initial_head("main");
        let repository = Repository::init_opts(directory.path().join("mirror.git"), &options).expect("a repository");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let options = SourceOptions {
            url: "/nonexistent".parse().expect("a path"),
            tracked: Tracked::Default,
            shallow: false,
            fleet_root: String::new(),
            state_dir: directory.path().to_owned(),
            access: Access::default(),
            deadlines: Deadlines::default(),
            transport_program: "/nonexistent".into(),
        };
        let mirror = runtime.block_on(Mirror::open(options)).expect("a mirror");
        Self { directory, mirror, repository, runtime }
    }

    fn objects(&self) -> std::path::PathBuf {
        self.directory.path().join("mirror.git/objects")
    }

    /// Writes an object as it is; libgit2 looks at none of it.
    fn write(&self, kind: ObjectType, bytes: &[u8]) -> Option<Oid> {
        self.repository.odb().and_then(|odb| odb.write(kind, bytes)).ok()
    }

    /// The notes on these commits: a tree of a blob each, and a commit of that; the last of them is where history begins.
    fn note(&self, commits: &[Oid], text: &[u8]) -> Result<(), git2::Error> {
        if let Some(last) = commits.last() {
            self.repository.reference("refs/heads/main", *last, true, "")?;
        }
        let note = self.repository.blob(text)?;
        let mut tree = self.repository.treebuilder(None)?;
        for commit in commits {
            tree.insert(commit.to_string(), note, 0o100_644)?;
        }
        let who = git2::Signature::new("a", "a", &git2::Time::new(0, 0))?;
        let tree = self.repository.find_tree(tree.write()?)?;
        let notes = self.repository.commit(None, &who, &who, "", &tree, &[])?;
        self.repository.reference("refs/notes/gitamp/default", notes, true, "").map(drop)
    }

    /// Reads a commit in every way that the daemon does.
    fn read(&self, commit: CommitId, first: CommitId) {
        let Self { mirror, runtime, .. } = self;
        let limits = SnapshotLimits { files: 200, depth: 8, ..SnapshotLimits::default() };
        match runtime.block_on(mirror.read(commit, "main", &limits, None)) {
            Ok(reading) => {
                let info = &reading.info;
                for line in [&info.author, &info.committer, &info.subject, &info.reference] {
                    assert!(is_harmless(line) && line.chars().count() <= 1_024, "{line:?}");
                }
                if let Some(snapshot) = &reading.snapshot {
                    for (path, entry) in snapshot.iter() {
                        let is_path = path.split('/').all(|part| !["", ".", "..", ".git"].contains(&part));
                        assert!(is_path && !path.contains(char::is_control), "{path:?}");
                        assert!(!matches!(entry, Entry::File(bytes) if bytes.len() as u64 > limits.file_bytes));
                    }
                    let again = runtime.block_on(mirror.read(commit, "main", &limits, Some(snapshot)));
                    let again = again.expect("what was read can be read").snapshot.expect("it had files");
                    assert_eq!(again.iter().count(), snapshot.iter().count(), "what was read before changes nothing");
                    let _fleet = load(snapshot, None);
                }
            }
            Err(ReadError::Refused { reason, .. } | ReadError::Damaged(reason)) => {
                assert!(is_harmless(&reason), "{reason:?}");
            }
            Err(ReadError::Unknown(_)) => {}
        }
        for since in [Some(first), None] {
            let question = Question { head: commit, since, every: true, paths: true, most: 50 };
            if let Ok(lineage) = runtime.block_on(mirror.lineage(question)) {
                for link in &lineage.links {
                    let by = verify(&link.raw, NOON, &Signers { ssh: None, openpgp: None });
                    assert!(by.is_err(), "nobody's key counts");
                }
            }
            let range = Range { since, head: commit, paths: vec!["a".into()] };
            // Addresses are compared, and shown to nobody.
            let _people = mirror.history().authors(&range);
        }
        let _known = runtime.block_on(mirror.descends(commit, first));
    }

    /// Removes everything that was written.
    fn clear(&self) {
        for entry in std::fs::read_dir(self.objects()).expect("it is there").flatten() {
            if entry.file_name().len() == 2 {
                std::fs::remove_dir_all(entry.path()).expect("ours");
            }
        }
        for name in ["refs/notes/gitamp/default", "refs/heads/main"] {
            let reference = self.repository.find_reference(name);
            let _gone = reference.and_then(|mut reference| reference.delete());
        }
    }
}

/// The bytes of an object with the names of others in the place of `@name@`: as they stand in trees, or in hexadecimal digits.
fn named(bytes: &[u8], known: &BTreeMap<&str, Oid>, kind: ObjectType) -> Vec<u8> {
    let mut whole = Vec::new();
    let mut pieces = bytes.split(|byte| *byte == b'@').peekable();
    let mut is_name = false;
    while let Some(piece) = pieces.next() {
        let oid = std::str::from_utf8(piece).ok().and_then(|name| known.get(name)).filter(|_| is_name);
        match oid {
            Some(oid) if pieces.peek().is_some() => {
                // The sign before the name went with it.
                whole.pop();
                if kind == ObjectType::Tree {
                    whole.extend_from_slice(oid.as_bytes());
                } else {
                    whole.extend_from_slice(oid.to_string().as_bytes());
                }
                is_name = false;
                continue;
            }
            Some(_) | None => whole.extend_from_slice(piece),
        }
        if pieces.peek().is_some() {
            whole.push(b'@');
            is_name = true;
        }
    }
    whole
}

/// Objects as a remote sends them, each behind a line `=== kind name` (blob, tree, commit, tag), with `@name@` for the id of one before; what
/// stands before the first is a commit, and `=== note` is on every commit. They are read by whatever reads a mirror, and their notes by whoever
/// looks for them.
pub fn git_objects(input: &[u8]) {
    WORKSHOP.with_borrow(|workshop| {
        let (mut known, mut commits, mut note) = (BTreeMap::new(), Vec::new(), &b""[..]);
        for (head, content) in parts(input).into_iter().take(MOST_OBJECTS) {
            let (kind, name) = head.split_once(' ').unwrap_or((head, ""));
            let kind = match kind {
                "blob" => ObjectType::Blob,
                "tree" => ObjectType::Tree,
                "tag" => ObjectType::Tag,
                "" | "commit" => ObjectType::Commit,
                "note" => {
                    note = content;
                    continue;
                }
                _ => continue,
            };
            // The line that ends a part is not the object's.
            let content = if head.is_empty() { content } else { content.strip_suffix(b"\n").unwrap_or(content) };
            let Some(oid) = workshop.write(kind, &named(content, &known, kind)) else { continue };
            known.insert(name, oid);
            if kind == ObjectType::Commit || kind == ObjectType::Tag {
                commits.push(oid);
            }
        }
        workshop.note(&commits, note).expect("notes are written");
        let ids: Vec<CommitId> =
            commits.iter().filter_map(|oid| Some(CommitId(oid.as_bytes().try_into().ok()?))).collect();
        for id in ids.iter().rev().take(3) {
            workshop.read(*id, ids[0]);
        }
        noted(&workshop.directory.path().join("mirror.git"), &commits, note);
        workshop.clear();
    });
}

fn noted(mirror: &Path, commits: &[Oid], note: &[u8]) {
    let place = NotesPlace::clone_at(mirror).expect("a repository");
    let _newest = place.newest(5, None);
    for commit in commits.iter().take(3) {
        if let Ok(read) = place.on(&commit.to_string(), None)
            && read.commit.id.0[..] == *commit.as_bytes()
        {
            let whole = read.notes.get("default").map(|found| found.text.as_bytes());
            assert_eq!(whole, Some(String::from_utf8_lossy(note).as_bytes()));
        }
    }
}

/// What a transfer's process says, line by line: it may have been taken over by whom it spoke with, and its words are shown to people.
pub fn transfer_answers(input: &[u8]) {
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        match Line::read(line) {
            Ok(Line::Progress(_)) => {}
            Ok(Line::Done(done)) => {
                assert!(done.object.is_none_or(|object| object.parse::<Oid>().is_ok()));
                assert!(done.reference.is_none_or(|name| name.len() <= 1_024 && !name.contains(char::is_control)));
            }
            Ok(Line::Failed(error)) | Err(error) => {
                let said = error.to_string();
                assert!(is_harmless(&said) && said.chars().count() <= 501, "{said:?}");
            }
        }
    }
}
