//! A bare remote for a journal, journals that go there, and what is written to them.

use std::path::PathBuf;

use bytes::Bytes;
use gitamp::fleet::snapshot::CommitId;
use gitamp::git::journal::{Journal, JournalContents, JournalOptions, JournalWrite};

use super::{Author, git, options};

/// Where the notes of the instance `default` stand.
pub(crate) const REF: &str = "refs/notes/gitamp/default";

/// A bare remote with two commits.
pub(crate) struct Remote {
    /// Everything of the test.
    pub(crate) home: tempfile::TempDir,
    /// The working copy that the commits come from.
    pub(crate) author: Author,
    /// Where it is.
    pub(crate) bare: PathBuf,
    /// Its address.
    pub(crate) url: String,
    /// The first commit.
    pub(crate) first: String,
    /// The second one.
    pub(crate) second: String,
}

impl Remote {
    /// A new one.
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let author = Author::new(home.path().join("author"));
        let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
        let second = author.commit("Two", &[("a.yaml", "a: 2\n")]);
        git(home.path(), &["clone", "-q", "--bare", "author", "fleet.git"]);
        let bare = home.path().join("fleet.git");
        let url = bare.to_string_lossy().into_owned();
        author.git(&["remote", "add", "origin", &url]);
        Self { home, author, bare, url, first, second }
    }

    /// Options of a journal that goes there, on this disk of its own.
    pub(crate) fn options(&self, disk: &str) -> JournalOptions {
        journal_options(Some(&self.url), &self.home.path().join(disk))
    }

    /// A journal that goes there, and what it found.
    pub(crate) async fn opened(&self, disk: &str) -> (Journal, JournalContents) {
        Journal::open(self.options(disk)).await.unwrap_or_else(|error| panic!("{disk}: {error}"))
    }

    /// The journal on the disk `state`.
    pub(crate) async fn journal(&self) -> Journal {
        self.opened("state").await.0
    }

    /// Where that keeps what it has.
    pub(crate) fn disk(&self) -> PathBuf {
        self.home.path().join("state/journal.git")
    }

    /// The note on an object there, as the git command shows it.
    pub(crate) fn note(&self, object: &str) -> String {
        git(&self.bare, &["notes", "--ref=gitamp/default", "show", object])
    }
}

/// The id of a commit.
pub(crate) fn id(text: &str) -> CommitId {
    text.parse().expect("a commit id")
}

/// Journal options of the instance `default`, pushed to `url` if there is one.
pub(crate) fn journal_options(url: Option<&str>, state_dir: &std::path::Path) -> JournalOptions {
    JournalOptions {
        instance: "default".to_owned(),
        state_dir: state_dir.to_owned(),
        remote: url.map(|url| options(url, state_dir).transport()),
        keys: None,
        adopt: None,
    }
}

/// A write of one note and these files of state.
pub(crate) fn write(commit: &str, note: &str, state: &[(&str, Option<&str>)]) -> JournalWrite {
    JournalWrite {
        message: format!("Write {note}"),
        notes: [(id(commit), note.to_owned())].into(),
        state: state
            .iter()
            .map(|(path, text)| ((*path).to_owned(), text.map(|text| Bytes::copy_from_slice(text.as_bytes()))))
            .collect(),
    }
}
