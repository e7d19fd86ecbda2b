//! Whose changes a rollout brings: the addresses of who wrote and who committed what lies between two commits at some paths.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use git2::{ErrorCode, ObjectType, Oid, Repository};
use sha2::{Digest, Sha256};

use super::reader::{CommitReader, LARGEST_TREE_BYTES};
use super::remote::clean_line;
use super::{commit_of, hermetic, oid_of};
use crate::view::operator::Range;

/// Most commits that are looked at for one question. Between two rollouts of a group lie a few; before its first one, all there are.
const MOST_COMMITS: usize = 20_000;

/// Most addresses of one commit: its author, its committer, and so many who wrote it with them.
const MOST_CO_AUTHORS: usize = 256;

/// Why it is not known whose changes they are. Whoever asks must not take that for nobody's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// They are too many.
    #[error("more than {MOST_COMMITS} commits lie between what ran and what is to run")]
    TooMany,
    /// The remote gives only a part of its history.
    #[error("the remote gives only a part of its history")]
    Torn,
    /// A commit is gone.
    #[error("commit {0} is not in the mirror any more: its history was rewritten")]
    Gone(String),
    /// The mirror cannot be read.
    #[error("the mirror cannot be read: {0}")]
    Unreadable(String),
}

/// The mirror's history, for questions beside what its owner does.
#[derive(Clone, Debug)]
pub struct History {
    pub(super) mirror: PathBuf,
    pub(super) fleet_root: Arc<str>,
}

impl History {
    /// The e-mail addresses of everybody who wrote, wrote with others (`Co-authored-by`) or committed a commit of this range that touches one
    /// of its paths, and of the head's, which answers for all of them. Addresses are told whole, in lower case. Blocks.
    ///
    /// # Errors
    /// When not all of them can be told.
    pub fn authors(&self, range: &Range) -> Result<BTreeSet<String>, Unknown> {
        hermetic::prepare();
        let repository = Repository::open_bare(&self.mirror).map_err(|error| unreadable(&error))?;
        let mut reader = Reader { repository: &repository, history: self, range, known: HashMap::new() };
        reader.authors()
    }
}

/// What stands at the paths of a range in one commit, as a digest.
type Prints = HashMap<Oid, [u8; 32]>;

struct Reader<'r> {
    repository: &'r Repository,
    history: &'r History,
    range: &'r Range,
    /// By the ids of the commits' trees.
    known: Prints,
}

impl<'r> Reader<'r> {
    fn authors(&mut self) -> Result<BTreeSet<String>, Unknown> {
        let damaged = |error: git2::Error| unreadable(&error);
        if self.repository.is_shallow() {
            return Err(Unknown::Torn);
        }
        let odb = self.repository.odb().map_err(damaged)?;
        let mut walk = self.repository.revwalk().map_err(damaged)?;
        let head = oid_of(self.range.head).map_err(damaged)?;
        for commit in [Some(self.range.head), self.range.since].into_iter().flatten() {
            if !odb.exists(oid_of(commit).map_err(damaged)?) {
                return Err(Unknown::Gone(commit.short()));
            }
        }
        walk.push(head).map_err(damaged)?;
        if let Some(since) = self.range.since {
            walk.hide(oid_of(since).map_err(damaged)?).map_err(damaged)?;
        }
        let mut people = BTreeSet::new();
        add_people(&self.commit(head)?, &mut people);
        for (count, oid) in walk.enumerate() {
            if count == MOST_COMMITS {
                return Err(Unknown::TooMany);
            }
            let commit = self.commit(oid.map_err(damaged)?)?;
            if self.touches(&commit)? {
                add_people(&commit, &mut people);
            }
        }
        Ok(people)
    }

    fn commit(&self, oid: Oid) -> Result<git2::Commit<'r>, Unknown> {
        let id = commit_of(oid).ok_or_else(|| Unknown::Unreadable("a commit without an id".to_owned()))?;
        let commit = CommitReader::new(self.repository, id).and_then(|reader| reader.commit());
        commit.map_err(|error| Unknown::Unreadable(error.to_string()))
    }

    /// True when it differs from all its parents at these paths: a merge that takes one side as it is brings nothing of its own.
    fn touches(&mut self, commit: &git2::Commit<'_>) -> Result<bool, Unknown> {
        let own = self.print(commit.tree_id())?;
        if commit.parent_count() == 0 {
            return Ok(own != nothing(self.paths().count()));
        }
        for parent in commit.parent_ids() {
            let parent = self.commit(parent)?.tree_id();
            if self.print(parent)? == own {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The paths from the root of the repository.
    fn paths(&self) -> impl Iterator<Item = String> {
        let root = &*self.history.fleet_root;
        let everything = self.range.paths.is_empty().then_some("");
        everything
            .into_iter()
            .chain(self.range.paths.iter().map(|path| &**path))
            .map(move |path| format!("{root}/{path}"))
    }

    fn print(&mut self, tree: Oid) -> Result<[u8; 32], Unknown> {
        if let Some(known) = self.known.get(&tree) {
            return Ok(*known);
        }
        let mut digest = Sha256::new();
        for path in self.paths() {
            digest.update(self.find(tree, &path)?.unwrap_or(Oid::ZERO_SHA1).as_bytes());
        }
        let print = digest.finalize().into();
        self.known.insert(tree, print);
        Ok(print)
    }

    /// What stands at a path, if anything does.
    fn find(&self, tree: Oid, path: &str) -> Result<Option<Oid>, Unknown> {
        let mut found = tree;
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            let header =
                self.repository.odb().and_then(|odb| odb.read_header(found)).map_err(|error| unreadable(&error))?;
            match header {
                (size, ObjectType::Tree) if size <= LARGEST_TREE_BYTES => {}
                (_, ObjectType::Tree) => {
                    return Err(Unknown::Unreadable("a directory has too many entries".to_owned()));
                }
                (_, _) => return Ok(None),
            }
            let tree = self.repository.find_tree(found).map_err(|error| unreadable(&error))?;
            match tree.get_name(name) {
                // What a submodule holds is nowhere here.
                Some(entry) => found = entry.id(),
                None => return Ok(None),
            }
            if self.repository.odb().is_ok_and(|odb| !odb.exists(found)) {
                return Ok(Some(found));
            }
        }
        Ok(Some(found))
    }
}

/// The print of a commit that has nothing at so many paths.
fn nothing(paths: usize) -> [u8; 32] {
    let mut digest = Sha256::new();
    (0..paths).for_each(|_| digest.update(Oid::ZERO_SHA1.as_bytes()));
    digest.finalize().into()
}

fn add_people(commit: &git2::Commit<'_>, people: &mut BTreeSet<String>) {
    let mut add = |mail: &[u8]| {
        let mail = String::from_utf8_lossy(mail).trim().to_ascii_lowercase();
        if !mail.is_empty() {
            people.insert(mail);
        }
    };
    add(commit.author().email_bytes());
    add(commit.committer().email_bytes());
    let message = String::from_utf8_lossy(commit.message_raw_bytes());
    let co_authors = message.lines().filter_map(|line| {
        let (name, person) = line.split_once(':')?;
        let mail = person.trim().strip_suffix('>')?.rsplit_once('<')?.1;
        name.trim().eq_ignore_ascii_case("co-authored-by").then_some(mail)
    });
    co_authors.take(MOST_CO_AUTHORS).for_each(|mail| add(mail.as_bytes()));
}

fn unreadable(error: &git2::Error) -> Unknown {
    if error.code() == ErrorCode::NotFound {
        return Unknown::Unreadable("something of its history is missing".to_owned());
    }
    Unknown::Unreadable(clean_line(error.message(), 200))
}
