//! A snapshot's directories as a tree whose unchanged parts two snapshots share, so that a commit costs what it changes.
//!
//! Sharing is what "unchanged" means here: where both snapshots hold the same allocation, nothing below it differs, and nobody has
//! to look. Whoever builds a tree shares what it knows to be equal; what is equal and not shared costs time and nothing else.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::fleet::document::{DEFAULTS_FILE, GROUP_FILE};
use crate::fleet::doubtful::is_doubtful;
use crate::fleet::snapshot::Entry;

/// What an object database calls a directory or a file: equal ids mean equal content. Opaque here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentId(pub [u8; 20]);

/// One directory with everything below it. Immutable; shared between snapshots in which nothing below it differs.
#[derive(Debug)]
pub struct Directory {
    path: Arc<str>,
    /// Where the names of the children begin in their paths.
    prefix: usize,
    id: Option<ContentId>,
    /// In the order of paths: a directory stands where `name/` would.
    children: Vec<Child>,
    census: Census,
}

/// What there is, here and below.
#[derive(Clone, Copy, Debug, Default)]
struct Census {
    files: usize,
    objects: usize,
    bytes: u64,
    /// Files that say something about groups: `group.yaml` and `defaults.yaml`.
    documents: usize,
    /// Links, submodules, and files whose names were probably meant to be others.
    doubtful: usize,
    evil_names: usize,
}

/// What stands in a directory.
#[derive(Clone, Debug)]
pub enum Child {
    /// A file, or something in the place of one.
    File {
        /// From the fleet root.
        path: Arc<str>,
        /// What the object database calls its content.
        id: Option<ContentId>,
        /// What it is.
        entry: Entry,
    },
    /// A directory.
    Directory(Arc<Directory>),
}

impl Child {
    fn path(&self) -> &Arc<str> {
        match self {
            Self::File { path, .. } => path,
            Self::Directory(directory) => &directory.path,
        }
    }

    /// Adds the path of every file that it is or has.
    fn add_files(&self, paths: &mut BTreeSet<Arc<str>>) {
        match self {
            Self::File { path, .. } => drop(paths.insert(path.clone())),
            Self::Directory(directory) => paths.extend(Files::below(directory).map(|(path, _)| path.clone())),
        }
    }

    /// Its name, which begins at `prefix` in its path, and whether it is a directory.
    fn name(&self, prefix: usize) -> (&str, bool) {
        (self.path().get(prefix..).unwrap_or_default(), matches!(self, Self::Directory(_)))
    }
}

impl Directory {
    /// The fleet root. `ignored`: how many more things stand in it that nobody reads.
    pub fn root(id: Option<ContentId>, children: Vec<Child>, ignored: usize) -> Self {
        Self::at(Arc::from(""), 0, id, children, ignored)
    }

    /// The directory at `path` (from the fleet root, no slash at its ends), whose children have the paths that begin with it.
    pub fn new(path: Arc<str>, id: Option<ContentId>, children: Vec<Child>, ignored: usize) -> Self {
        let prefix = path.len() + 1;
        Self::at(path, prefix, id, children, ignored)
    }

    fn at(path: Arc<str>, prefix: usize, id: Option<ContentId>, mut children: Vec<Child>, ignored: usize) -> Self {
        children.sort_by(|one, other| by_name(one.name(prefix), other.name(prefix)));
        let mut census = Census { objects: ignored, ..Census::default() };
        children.iter().for_each(|child| census.count(child, child.name(prefix).0));
        Self { path, prefix, id, children, census }
    }

    /// The tree of these files.
    pub(super) fn of_files(files: BTreeMap<Arc<str>, Entry>) -> Self {
        let files: Vec<(Arc<str>, Entry)> = files.into_iter().collect();
        Self::root(None, children_of(&files, 0), 0)
    }

    /// From the fleet root, without a slash at its ends; empty for the root.
    pub fn path(&self) -> &Arc<str> {
        &self.path
    }

    /// What the object database calls it.
    pub fn id(&self) -> Option<ContentId> {
        self.id
    }

    /// How many files are here and below.
    pub fn files(&self) -> usize {
        self.census.files
    }

    /// How many things are here and below, directories and what nobody reads included.
    pub fn objects(&self) -> usize {
        self.census.objects
    }

    /// The bytes of all files that were read, here and below.
    pub fn bytes(&self) -> u64 {
        self.census.bytes
    }

    /// True when a name here or below is one that no honest repository has.
    pub(super) fn has_evil_names(&self) -> bool {
        self.census.evil_names > 0
    }

    /// True when a `group.yaml` or `defaults.yaml` stands here or below.
    pub(super) fn has_documents(&self) -> bool {
        self.census.documents > 0
    }

    /// True when something stands here or below that people should hear of, because nobody reads or follows it.
    pub(super) fn has_doubtful(&self) -> bool {
        self.census.doubtful > 0
    }

    /// Everything that stands directly here, in the order of paths.
    pub fn children(&self) -> &[Child] {
        &self.children
    }

    fn find(&self, name: &str, is_directory: bool) -> Option<&Child> {
        let order = |child: &Child| by_name(child.name(self.prefix), (name, is_directory));
        self.children.binary_search_by(order).ok().and_then(|at| self.children.get(at))
    }

    /// The file of this name that stands directly here: its path, what the object database calls it, and what it is.
    pub fn file(&self, name: &str) -> Option<(&Arc<str>, Option<ContentId>, &Entry)> {
        match self.find(name, false)? {
            Child::File { path, id, entry } => Some((path, *id, entry)),
            Child::Directory(_) => None,
        }
    }

    /// The directory of this name that stands directly here.
    pub fn directory(&self, name: &str) -> Option<&Arc<Self>> {
        match self.find(name, true)? {
            Child::Directory(directory) => Some(directory),
            Child::File { .. } => None,
        }
    }

    /// The directory at a path from this one; `""` is this one.
    pub(super) fn descend<'d>(self: &'d Arc<Self>, path: &str) -> Option<&'d Arc<Self>> {
        if path.is_empty() {
            return Some(self);
        }
        path.split('/').try_fold(self, |here, name| here.directory(name))
    }
}

impl Census {
    fn count(&mut self, child: &Child, name: &str) {
        self.objects += 1;
        self.evil_names += usize::from(is_evil(name));
        match child {
            Child::File { path, id: _, entry } => {
                self.files += 1;
                self.bytes += entry.bytes();
                self.documents += usize::from(matches!(name, GROUP_FILE | DEFAULTS_FILE));
                self.doubtful += usize::from(is_doubtful(path, name, entry));
            }
            Child::Directory(below) => {
                self.files += below.census.files;
                self.objects += below.census.objects;
                self.bytes += below.census.bytes;
                self.documents += below.census.documents;
                self.doubtful += below.census.doubtful;
                self.evil_names += below.census.evil_names;
            }
        }
    }
}

/// The children of the directory whose files these are, sorted; their names begin at `prefix`.
fn children_of(files: &[(Arc<str>, Entry)], prefix: usize) -> Vec<Child> {
    let mut children = Vec::new();
    let mut rest = files;
    while let [(path, entry), others @ ..] = rest {
        match path[prefix..].find('/') {
            None => {
                children.push(Child::File { path: path.clone(), id: None, entry: entry.clone() });
                rest = others;
            }
            Some(length) => {
                // Paths are sorted, so whoever is below one directory stands together.
                let below = prefix + length + 1;
                let is_inside = |(other, _): &&(Arc<str>, Entry)| other.starts_with(&path[..below]);
                let (inside, behind) = rest.split_at(rest.iter().take_while(is_inside).count());
                let directory = Arc::from(&path[..below - 1]);
                let directory = Directory::at(directory, below, None, children_of(inside, below), 0);
                children.push(Child::Directory(Arc::new(directory)));
                rest = behind;
            }
        }
    }
    children
}

/// The order of names in which walking through a tree gives paths in their order: a directory's path goes on with a slash.
fn by_name((one, is_one): (&str, bool), (other, is_other): (&str, bool)) -> Ordering {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let common = one.len().min(other.len());
    let rest = |name: &[u8], is_directory: bool| name.get(common).copied().or(is_directory.then_some(b'/'));
    one[..common].cmp(&other[..common]).then_with(|| rest(one, is_one).cmp(&rest(other, is_other)))
}

/// True for names that Git allows in a tree object and that no honest commit has.
pub(super) fn is_evil(name: &str) -> bool {
    let leads_elsewhere = matches!(name, "" | "." | "..") || name.eq_ignore_ascii_case(".git");
    leads_elsewhere || name.chars().any(|char| char.is_control() || char == '\\')
}

/// Adds the paths at which two directories of one path differ.
pub(super) fn differences(before: &Arc<Directory>, now: &Arc<Directory>, changed: &mut BTreeSet<Arc<str>>) {
    if Arc::ptr_eq(before, now) {
        return;
    }
    let (mut left, mut right) = (before.children.as_slice(), now.children.as_slice());
    loop {
        let order = match (left, right) {
            ([], []) => return,
            ([_, ..], []) => Ordering::Less,
            ([], [_, ..]) => Ordering::Greater,
            ([one, ..], [other, ..]) => by_name(one.name(before.prefix), other.name(now.prefix)),
        };
        match (order, left, right) {
            (Ordering::Equal, [one, ones @ ..], [other, others @ ..]) => {
                match (one, other) {
                    (Child::Directory(one), Child::Directory(other)) => differences(one, other, changed),
                    (Child::File { entry: one, .. }, Child::File { entry: other, .. }) if one == other => {}
                    (Child::File { path, .. }, Child::File { .. }) => drop(changed.insert(path.clone())),
                    // Names of one kind only are equal.
                    (Child::Directory(_), Child::File { .. }) | (Child::File { .. }, Child::Directory(_)) => {}
                }
                (left, right) = (ones, others);
            }
            (Ordering::Less, [one, ones @ ..], _) => {
                one.add_files(changed);
                left = ones;
            }
            (_, _, [other, others @ ..]) => {
                other.add_files(changed);
                right = others;
            }
            (_, _, []) => return,
        }
    }
}

/// All files below a directory, by path.
#[derive(Debug)]
pub struct Files<'d> {
    open: Vec<std::slice::Iter<'d, Child>>,
}

impl<'d> Files<'d> {
    pub(super) fn below(directory: &'d Directory) -> Self {
        Self { open: vec![directory.children.iter()] }
    }
}

impl<'d> Iterator for Files<'d> {
    type Item = (&'d Arc<str>, &'d Entry);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.open.last_mut()?.next() {
                Some(Child::File { path, id: _, entry }) => return Some((path, entry)),
                Some(Child::Directory(below)) => self.open.push(below.children.iter()),
                None => drop(self.open.pop()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::snapshot::Snapshot;

    fn files(paths: &[&str]) -> BTreeMap<Arc<str>, Entry> {
        paths.iter().map(|path| (Arc::from(*path), Entry::File(Bytes::copy_from_slice(path.as_bytes())))).collect()
    }

    #[test]
    fn a_tree_has_its_files_in_the_order_of_their_paths() {
        let odd = ["a", "a-b/x", "a.yaml", "a/x", "a/x/y", "a0", "b//c", "/d", "e/", "ä/ö/ü", "a/.", "a\n"];
        let files = files(&odd);
        let tree = Arc::new(Directory::of_files(files.clone()));
        let found: BTreeMap<_, _> = Files::below(&tree).map(|(path, entry)| (path.clone(), entry.clone())).collect();
        assert_eq!(found, files);
        assert!(Files::below(&tree).is_sorted_by(|one, other| one.0 < other.0));
        assert_eq!((tree.files(), tree.has_evil_names()), (odd.len(), true));
        for path in odd {
            let (directory, name) =
                path.rsplit_once('/').map_or((None, path), |(directory, name)| (Some(directory), name));
            let here = directory.map_or(Some(&tree), |directory| {
                directory.split('/').try_fold(&tree, |here, name| here.directory(name))
            });
            assert_eq!(here.and_then(|here| here.file(name)).map(|found| &**found.0), Some(path));
        }
        assert!(tree.descend("a/b").is_none());
        assert_eq!(tree.descend("a").map(|directory| directory.files()), Some(3), "`a/.`, `a/x` and `a/x/y`");
        assert_eq!(tree.descend("ä/ö").map(|directory| &**directory.path()), Some("ä/ö"));
    }

    #[test]
    fn names_are_evil_wherever_they_stand() {
        for (path, expected) in [
            ("a/b.yaml", false),
            ("a/.github/b.yaml", false),
            ("a/.GIT/b.yaml", true),
            ("a/../b.yaml", true),
            ("a//b.yaml", true),
            ("a/b\tc.yaml", true),
            ("a\\b.yaml", true),
        ] {
            assert_eq!(Directory::of_files(files(&[path])).has_evil_names(), expected, "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn what_changed_is_what_differs(
            before in prop::collection::btree_map("[a-c/.-]{1,6}", 0..3_u8, 0..12),
            after in prop::collection::btree_map("[a-c/.-]{1,6}", 0..3_u8, 0..12),
        ) {
            let files = |contents: &BTreeMap<String, u8>| -> BTreeMap<Arc<str>, Entry> {
                contents.iter().map(|(path, byte)| (Arc::from(path.as_str()), Entry::File(vec![*byte].into()))).collect()
            };
            let (before, after) = (files(&before), files(&after));
            let expected: Vec<&Arc<str>> = before
                .keys()
                .chain(after.keys())
                .filter(|path| before.get(*path) != after.get(*path))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect();
            let (one, other) = (Snapshot::new(before.clone()), Snapshot::new(after.clone()));
            let changed = other.changed_since(&one);
            prop_assert_eq!(changed.iter().collect::<Vec<_>>(), expected);
            prop_assert_eq!(one == other, before == after);
            for (path, entry) in &after {
                prop_assert_eq!(other.get(path), Some(entry));
            }
        }
    }
}
