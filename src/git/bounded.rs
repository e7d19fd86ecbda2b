//! What two trees differ in, and how much is in one, within limits: a few small objects can hold each other so often that walking through
//! all of it would never end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use git2::{Error, ObjectType, Oid, Repository, Tree};

/// Entries that are looked at, or counted, at most.
const MOST_ENTRIES: usize = 2_000_000;
/// How deep directories may be nested.
const DEEPEST: usize = 200;
/// How long all paths that are looked into or found may be together: 64 MiB.
const LONGEST_PATHS: usize = 64 << 20;
/// The largest tree object that is parsed: over a million entries.
const LARGEST_TREE_BYTES: usize = 64 << 20;

/// Why trees are not compared.
#[derive(Debug)]
pub(super) enum Unbounded {
    /// The repository cannot be read.
    Unreadable(Error),
    /// There is more than anybody looks at; what.
    TooMuch(String),
}

impl From<Error> for Unbounded {
    fn from(error: Error) -> Self {
        Self::Unreadable(error)
    }
}

/// The two sides of a name: what stands there, and its mode.
type Sides = [Option<(Oid, i32)>; 2];

const DIRECTORY: i32 = 0o040_000;

/// The paths of all files that differ between two trees, at most so many. Work is done for what differs only. `None` on a side: nothing is
/// there.
pub(super) fn differences(
    repository: &Repository,
    before: Option<Oid>,
    after: Option<Oid>,
    most: usize,
) -> Result<BTreeSet<String>, Unbounded> {
    let mut found = BTreeSet::new();
    let (mut looked_at, mut length) = (0, 0_usize);
    let mut open = vec![(String::new(), [before, after], 0_usize)];
    while let Some((prefix, sides, depth)) = open.pop() {
        if sides[0] == sides[1] {
            continue;
        }
        if depth > DEEPEST {
            return Err(Unbounded::TooMuch(format!("directories are nested deeper than {DEEPEST}")));
        }
        for (name, sides) in both(repository, &prefix, sides, &mut looked_at)? {
            if sides[0] == sides[1] {
                continue;
            }
            let path = format!("{prefix}{}", String::from_utf8_lossy(&name));
            length += path.len();
            if length > LONGEST_PATHS {
                return Err(Unbounded::TooMuch("the paths that differ are too long".to_owned()));
            }
            let is_directory = |side: &Option<(Oid, i32)>| side.is_some_and(|(_, mode)| mode == DIRECTORY);
            if sides.iter().any(|side| side.is_some() && !is_directory(side)) {
                if found.len() >= most {
                    return Err(Unbounded::TooMuch(format!("more than {most} paths differ")));
                }
                found.insert(path.clone());
            }
            if sides.iter().any(is_directory) {
                let below = sides.map(|side| side.filter(|side| is_directory(&Some(*side))).map(|(id, _)| id));
                open.push((format!("{path}/"), below, depth + 1));
            }
        }
    }
    Ok(found)
}

/// The entries of two directories by name.
fn both(
    repository: &Repository,
    shown: &str,
    trees: [Option<Oid>; 2],
    looked_at: &mut usize,
) -> Result<BTreeMap<Vec<u8>, Sides>, Unbounded> {
    let mut entries = BTreeMap::<Vec<u8>, Sides>::new();
    for (side, tree) in trees.into_iter().enumerate() {
        let Some(tree) = tree else { continue };
        let tree = read(repository, tree)?.ok_or_else(too_many)?;
        *looked_at += tree.len();
        if *looked_at > MOST_ENTRIES {
            return Err(too_many());
        }
        for entry in &tree {
            let slot = &mut entries.entry(entry.name_bytes().to_owned()).or_default()[side];
            if slot.replace((entry.id(), entry.filemode_raw())).is_some() {
                // Which of the two counts is told by nobody.
                return Err(Unbounded::TooMuch(format!("a name stands twice in `/{shown}`")));
            }
        }
    }
    Ok(entries)
}

fn too_many() -> Unbounded {
    Unbounded::TooMuch(format!("more than {MOST_ENTRIES} files"))
}

/// A tree; `None` when it is larger than any that is parsed.
fn read(repository: &Repository, tree: Oid) -> Result<Option<Tree<'_>>, Error> {
    let (size, _) = repository.odb()?.read_header(tree)?;
    if size > LARGEST_TREE_BYTES { Ok(None) } else { repository.find_tree(tree).map(Some) }
}

/// Weighs trees before they are given to what walks through all of them.
#[derive(Debug, Default)]
pub(super) struct Scales {
    known: HashMap<Oid, usize>,
}

impl Scales {
    /// True when a tree holds more than anybody walks through, everything counted as often as it stands there.
    pub(super) fn is_too_heavy(&mut self, repository: &Repository, tree: Oid) -> Result<bool, Error> {
        Ok(self.weigh(repository, tree, 0)?.is_none())
    }

    /// How many entries a tree has, with all below; `None`: too many. Every tree is read once, so an end is reached after as many entries.
    fn weigh(&mut self, repository: &Repository, tree: Oid, depth: usize) -> Result<Option<usize>, Error> {
        if let Some(known) = self.known.get(&tree) {
            return Ok(Some(*known));
        }
        let Some(entries) = read(repository, tree)?.filter(|_| depth <= DEEPEST) else { return Ok(None) };
        let mut total = entries.len();
        for entry in entries.iter().filter(|entry| entry.kind() == Some(ObjectType::Tree)) {
            let Some(below) = self.weigh(repository, entry.id(), depth + 1)? else { return Ok(None) };
            total = total.saturating_add(below);
            if total > MOST_ENTRIES {
                return Ok(None);
            }
        }
        self.known.insert(tree, total);
        Ok(Some(total).filter(|total| *total <= MOST_ENTRIES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> (tempfile::TempDir, Repository) {
        let directory = tempfile::tempdir().expect("a directory");
        let repository = Repository::init_bare(directory.path()).expect("a repository");
        (directory, repository)
    }

    /// A tree of these files, by their paths.
    fn tree(repository: &Repository, files: &[(&str, &str)]) -> Oid {
        let mut builder = git2::build::TreeUpdateBuilder::new();
        for (path, text) in files {
            builder.upsert(*path, repository.blob(text.as_bytes()).expect("a blob"), git2::FileMode::Blob);
        }
        let empty = repository.find_tree(repository.treebuilder(None).expect("a tree").write().expect("a tree"));
        builder.create_updated(repository, &empty.expect("the empty tree")).expect("a tree")
    }

    /// A tree that holds `tree` under so many names.
    fn many(repository: &Repository, tree: Oid, names: usize) -> Oid {
        let mut builder = repository.treebuilder(None).expect("a tree");
        for name in 0..names {
            builder.insert(format!("{name}"), tree, DIRECTORY).expect("an entry");
        }
        builder.write().expect("a tree")
    }

    #[test]
    fn differences_are_those_that_libgit2_finds() {
        let (_directory, repository) = repository();
        let trees = [
            tree(&repository, &[("a", "1"), ("b/c", "1"), ("b/d/e", "1"), ("x/y", "1")]),
            tree(&repository, &[("a", "1"), ("b/c", "2"), ("b/d/e", "1"), ("x", "1")]),
            tree(&repository, &[("a/b", "1"), ("b/d", "1"), ("x/y", "1"), ("x/z", "1")]),
            tree(&repository, &[]),
        ];
        for before in trees.iter().map(|tree| Some(*tree)).chain([None]) {
            for after in trees {
                let found = differences(&repository, before, Some(after), 100).expect("they are few");
                let read = |tree: Oid| repository.find_tree(tree).expect("a tree");
                let mut options = git2::DiffOptions::new();
                options.include_typechange(true);
                let (old, new) = (before.map(read), read(after));
                let diff = repository.diff_tree_to_tree(old.as_ref(), Some(&new), Some(&mut options)).expect("a diff");
                let sides = |delta: git2::DiffDelta<'_>| {
                    [delta.old_file().path(), delta.new_file().path()].map(|path| path.map(|path| path.to_path_buf()))
                };
                let wanted: BTreeSet<String> =
                    diff.deltas().flat_map(sides).flatten().map(|path| path.to_string_lossy().into_owned()).collect();
                assert_eq!(found, wanted, "{before:?} {after}");
            }
        }
        let error = differences(&repository, None, Some(trees[0]), 3).expect_err("four differ");
        assert!(matches!(&error, Unbounded::TooMuch(why) if why.contains("more than 3 paths")), "{error:?}");
    }

    #[test]
    fn what_multiplies_itself_is_neither_compared_nor_light() {
        let (_directory, repository) = repository();
        let empty = tree(&repository, &[]);
        let mut scales = Scales::default();
        // Ten to the power of twelve files, and as many empty directories; and one below the other.
        for leaf in [tree(&repository, &[("a", "1")]), empty] {
            let bomb = (0..12).fold(leaf, |tree, _| many(&repository, tree, 10));
            assert!(scales.is_too_heavy(&repository, bomb).expect("it is read"));
            let error = differences(&repository, None, Some(bomb), 1000).expect_err("too much");
            assert!(matches!(error, Unbounded::TooMuch(_)), "{error:?}");
            let beside = many(&repository, bomb, 2);
            let same = differences(&repository, Some(beside), Some(beside), 1000).expect("nothing differs");
            assert!(same.is_empty());
        }
        let deep = (0..=DEEPEST + 1).fold(tree(&repository, &[("a", "1")]), |tree, _| many(&repository, tree, 1));
        assert!(scales.is_too_heavy(&repository, deep).expect("it is read"));
        assert!(differences(&repository, None, Some(deep), 10).is_err());
        let honest = many(&repository, tree(&repository, &[("a", "1"), ("b/c", "1")]), 1000);
        assert!(!scales.is_too_heavy(&repository, honest).expect("it is read"));
    }
}
