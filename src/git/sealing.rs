//! Seals on the journal's trees: what the records of a commit are worth, and records with their seal beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use git2::{FileMode, ObjectType, Oid, Repository, Tree};
use sha2::{Digest, Sha256};

use super::seal::{Authenticity, JournalKeys, LARGEST_SEAL_BYTES, Seal};
use super::tree::{BYTES_OF_AN_ENTRY, DEEPEST, Edits, LARGEST_STATE_BYTES, Pen, STATE, apply};

/// The seal's name below `state/`: no folder of a fleet begins like that.
pub(super) const SEAL_FILE: &str = "@seal.yaml";
/// Digests that are remembered at most: ten for each of 20,000 groups, some 20 MiB.
const MOST_REMEMBERED: usize = 200_000;
/// How many commits back the newest records with a good seal are looked for.
const FARTHEST_BACK: usize = 10_000;
/// How many records that claim to be newer are judged on the way: each one may have to be read.
const MOST_JUDGED: usize = 1000;
/// How much of such records is read on the way: twice what one may hold, which takes a second or two.
const MOST_READ_BYTES: u64 = 2 * LARGEST_STATE_BYTES;

/// With less than this left of what may be read, records may have been given up although they are good.
const SHORT_OF_BYTES: u64 = 64 << 20;

/// The newest records in a history that are ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Newest {
    /// Their age, and the commit that they stand in.
    pub(super) found: Option<(u64, Oid)>,
    /// True when more claim to be newer than can be judged: there may be others.
    pub(super) is_cut: bool,
}

impl Newest {
    /// How old they are; 0 when there are none.
    pub(super) fn age(self) -> u64 {
        self.found.map_or(0, |(age, _)| age)
    }
}

/// What the records of one commit are worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Belief {
    /// There are none.
    Nothing,
    /// They are ours, and of this age.
    Genuine(u64),
    /// They are not believed, for this reason.
    Not(&'static str),
}

impl Belief {
    /// Their age; 0 without a good seal.
    pub(super) fn sequence(&self) -> u64 {
        match self {
            Self::Genuine(sequence) => *sequence,
            Self::Nothing | Self::Not(_) => 0,
        }
    }
}

/// Seals records and judges them, with the keys of one journal.
#[derive(Clone, Debug)]
pub(super) struct Sealer {
    pub(super) keys: JournalKeys,
    reference: String,
    /// Digests by object: a write changes a few of the many.
    known: Arc<Mutex<BTreeMap<Oid, [u8; 32]>>>,
}

impl Sealer {
    pub(super) fn new(keys: JournalKeys, reference: &str) -> Self {
        Self { keys, reference: reference.to_owned(), known: Arc::default() }
    }

    /// What the records in the tree of a journal's commit are worth.
    pub(super) fn judge(&self, repository: &Repository, tree: &Tree<'_>) -> Result<Belief, git2::Error> {
        let mut left = LARGEST_STATE_BYTES;
        self.judge_within(repository, tree, &mut left)
    }

    /// The same, reading no more than so many bytes; what was read is taken off.
    fn judge_within(&self, repository: &Repository, tree: &Tree<'_>, left: &mut u64) -> Result<Belief, git2::Error> {
        let Some(entry) = tree.get_name(STATE) else { return Ok(Belief::Nothing) };
        if entry.kind() != Some(ObjectType::Tree) {
            return Ok(Belief::Not("what stands in the place of the records is none"));
        }
        let state = repository.find_tree(entry.id())?;
        let Some(seal) = seal_in(repository, &state)? else { return Ok(Belief::Not("they carry no seal")) };
        if !self.keys.knows(&seal) {
            return Ok(Belief::Not("their seal is by another key than those of --journal-key-file"));
        }
        let Some(digest) = self.digest(repository, &state, left)? else {
            return Ok(Belief::Not("there is more in them than any gitamp writes"));
        };
        Ok(match self.keys.judge_seal(&self.reference, &seal, &digest) {
            Authenticity::Genuine => Belief::Genuine(seal.sequence),
            Authenticity::Unsigned | Authenticity::Wrong => {
                Belief::Not("their seal does not fit: they were changed, or belong to another ref")
            }
        })
    }

    /// True when this folder of records should be sealed again although its seal is good: another key signs now.
    pub(super) fn is_outdated(&self, repository: &Repository, state: Oid) -> Result<bool, git2::Error> {
        let seal = seal_in(repository, &repository.find_tree(state)?)?;
        Ok(seal.is_some_and(|seal| !self.keys.is_by_first(&seal)))
    }

    /// The age that the seal in this tree of a commit claims; 0 without one.
    pub(super) fn claimed_sequence(repository: &Repository, tree: &Tree<'_>) -> Result<u64, git2::Error> {
        let Some(state) = state_of(repository, tree)? else { return Ok(0) };
        Ok(seal_in(repository, &state)?.map_or(0, |seal| seal.sequence))
    }

    /// The tree of a commit with a new seal on its records; as it is, when it has none.
    pub(super) fn seal(&self, pen: &Pen<'_>, tree: Oid, sequence: u64) -> Result<Oid, git2::Error> {
        let repository = pen.repository();
        let whole = repository.find_tree(tree)?;
        let Some(state) = state_of(repository, &whole)? else { return Ok(tree) };
        let mut left = LARGEST_STATE_BYTES;
        let digest = self.digest(repository, &state, &mut left)?;
        let seal = digest.and_then(|digest| self.keys.seal(&self.reference, sequence, &digest));
        let seal = seal.ok_or_else(|| git2::Error::from_str("the records cannot be sealed"))?;
        let edits = Edits::from([(format!("{STATE}/{SEAL_FILE}"), Some(pen.blob(seal.as_bytes())?))]);
        let sealed = apply(pen, Some(&whole), &edits)?.unwrap_or(tree);
        // These two were steps on the way only.
        pen.forget(tree);
        pen.forget(state.id());
        Ok(sealed)
    }

    /// The newest records that are ours, in this commit or before it, with their age.
    pub(super) fn newest_genuine(&self, repository: &Repository, from: Oid) -> Result<Newest, git2::Error> {
        self.newest_genuine_within(repository, from, MOST_READ_BYTES)
    }

    /// The same, reading no more than so many bytes of records: whoever may push can put any number of large ones there.
    fn newest_genuine_within(&self, repository: &Repository, from: Oid, mut left: u64) -> Result<Newest, git2::Error> {
        let mut walk = repository.revwalk()?;
        // By topology too would mean to read all of a long history first.
        walk.set_sorting(git2::Sort::TIME)?;
        walk.push(from)?;
        let mut newest = Newest::default();
        let mut judged = BTreeSet::new();
        for oid in walk.take(FARTHEST_BACK) {
            let oid = oid?;
            let tree = repository.find_commit(oid)?.tree()?;
            let Some(state) = state_of(repository, &tree)? else { continue };
            // What claims no more than is known need not be read.
            let claimed = seal_in(repository, &state)?.map_or(0, |seal| seal.sequence);
            if claimed <= newest.age() || judged.contains(&state.id()) {
                continue;
            }
            if judged.len() >= MOST_JUDGED || left == 0 {
                newest.is_cut = true;
                break;
            }
            judged.insert(state.id());
            let given = left.min(LARGEST_STATE_BYTES);
            let mut here = given;
            match self.judge_within(repository, &tree, &mut here)? {
                Belief::Genuine(sequence) => newest.found = Some((sequence, oid)),
                Belief::Nothing | Belief::Not(_) => {}
            }
            left -= given - here;
            // What did not fit in may have been good.
            newest.is_cut |= given < LARGEST_STATE_BYTES && here < SHORT_OF_BYTES;
        }
        Ok(newest)
    }

    /// The digest of all records but their seal; `None` when they are deeper or larger than any that we write.
    fn digest(
        &self,
        repository: &Repository,
        state: &Tree<'_>,
        left: &mut u64,
    ) -> Result<Option<[u8; 32]>, git2::Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > MOST_REMEMBERED {
            known.clear();
        }
        let mut work = Work { repository, known: &mut known, left: *left };
        let digest = work.tree(state, 0);
        *left = work.left;
        digest
    }
}

/// One computation of a digest: a hash of names and of the hashes of what they name, and of contents at the leaves. Git's own ids
/// would do but for SHA-1.
struct Work<'w> {
    repository: &'w Repository,
    known: &'w mut BTreeMap<Oid, [u8; 32]>,
    /// Bytes that may still be read.
    left: u64,
}

impl Work<'_> {
    fn tree(&mut self, tree: &Tree<'_>, depth: usize) -> Result<Option<[u8; 32]>, git2::Error> {
        let mut hash = Sha256::new_with_prefix(b"tree");
        for entry in tree {
            let name = entry.name_bytes();
            if depth == 0 && name == SEAL_FILE.as_bytes() {
                continue;
            }
            let child = match (entry.kind(), self.known.get(&entry.id())) {
                (_, Some(digest)) => Some(*digest),
                (Some(ObjectType::Tree), None) if depth < DEEPEST => {
                    let child = self.repository.find_tree(entry.id())?;
                    self.tree(&child, depth + 1)?
                }
                (Some(ObjectType::Blob), None) => self.blob(entry.id())?,
                (_, None) => None,
            };
            let left = self.left.checked_sub(BYTES_OF_AN_ENTRY);
            let (Some(child), Some(left)) = (child, left) else { return Ok(None) };
            self.left = left;
            self.known.insert(entry.id(), child);
            hash.update((name.len() as u64).to_be_bytes());
            hash.update(name);
            hash.update(child);
        }
        Ok(Some(hash.finalize().into()))
    }

    fn blob(&mut self, oid: Oid) -> Result<Option<[u8; 32]>, git2::Error> {
        let odb = self.repository.odb()?;
        let (size, _) = odb.read_header(oid)?;
        let Some(left) = self.left.checked_sub(size as u64) else { return Ok(None) };
        self.left = left;
        Ok(Some(Sha256::new_with_prefix(b"blob").chain_update(odb.read(oid)?.data()).finalize().into()))
    }
}

/// The folder of records in the tree of a journal's commit.
pub(super) fn state_of<'r>(repository: &'r Repository, tree: &Tree<'_>) -> Result<Option<Tree<'r>>, git2::Error> {
    match tree.get_name(STATE) {
        Some(entry) if entry.kind() == Some(ObjectType::Tree) => repository.find_tree(entry.id()).map(Some),
        Some(_) | None => Ok(None),
    }
}

/// The tree of a commit with this folder of records instead of its own.
pub(super) fn with_state(pen: &Pen<'_>, tree: &Tree<'_>, state: Option<Oid>) -> Result<Oid, git2::Error> {
    let mut builder = pen.repository().treebuilder(Some(tree))?;
    match state {
        Some(state) => drop(builder.insert(STATE, state, FileMode::Tree.into())?),
        None if builder.get(STATE)?.is_some() => builder.remove(STATE)?,
        None => {}
    }
    builder.write().map(|oid| pen.note(oid))
}

fn seal_in(repository: &Repository, state: &Tree<'_>) -> Result<Option<Seal>, git2::Error> {
    let Some(entry) = state.get_name(SEAL_FILE) else { return Ok(None) };
    if entry.kind() != Some(ObjectType::Blob) {
        return Ok(None);
    }
    let odb = repository.odb()?;
    let (size, _) = odb.read_header(entry.id())?;
    if size > LARGEST_SEAL_BYTES {
        return Ok(None);
    }
    Ok(Seal::read(odb.read(entry.id())?.data()))
}
