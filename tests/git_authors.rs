//! Whose changes lie between two commits: authors, committers and co-authors of what touches some paths, merges, and what is not known.

mod git_support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use git_support::{Author, open, options};
use gitamp::fleet::snapshot::CommitId;
use gitamp::git::authors::{History, Unknown};
use gitamp::view::operator::Range;

fn id(text: &str) -> CommitId {
    text.parse().expect("a commit id")
}

struct Place {
    home: tempfile::TempDir,
    author: Author,
    fleet_root: String,
}

impl Place {
    fn new(fleet_root: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let author = Author::new(home.path().join("fleet"));
        Self { home, author, fleet_root: fleet_root.to_owned() }
    }

    /// A commit of this person, committed by Ada.
    fn commit(&self, who: &str, message: &str, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let path = self.author.path.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        let author = format!("{who} <{who}@example.org>");
        self.author.git(&["add", "-A"]);
        self.author.git(&["commit", "-q", "--allow-empty", "--author", &author, "-m", message]);
        self.author.git(&["rev-parse", "HEAD"])
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    async fn history(&self) -> History {
        let mut options = options(&self.author.path.to_string_lossy(), &self.state());
        options.fleet_root = self.fleet_root.clone();
        let mut mirror = open(options).await;
        mirror.sync().await.expect("it syncs");
        mirror.history()
    }

    /// The people of a range, without what all addresses have in common; Ada commits everything, so she is left out.
    async fn people(&self, since: Option<&str>, head: &str, paths: &[&str]) -> Vec<String> {
        let paths = paths.iter().map(|path| Arc::from(*path)).collect();
        let range = Range { since: since.map(id), head: id(head), paths };
        let people = self.history().await.authors(&range).expect("it reads");
        let people: BTreeSet<String> = people.iter().map(|mail| mail.replace("@example.org", "")).collect();
        assert!(people.contains("ada@example.com"), "who committed counts as well: {people:?}");
        people.into_iter().filter(|mail| mail != "ada@example.com").collect()
    }
}

#[tokio::test]
async fn all_who_touched_it_are_told_and_nobody_else() {
    let place = Place::new("fleet");
    let first =
        place.commit("zoe", "One", &[("fleet/prod/a/group.yaml", "a"), ("fleet/base/x.yaml", "x"), ("other", "o")]);
    place.commit("bob", "The group", &[("fleet/prod/a/group.yaml", "b")]);
    place.commit("carl", "Another group", &[("fleet/prod/b/group.yaml", "b")]);
    place.commit(
        "dora",
        "A layer\n\nCo-authored-by: Eve <Eve@Example.ORG>\nco-Authored-By:  F <f@x> <frank@example.org>",
        &[("fleet/base/x.yaml", "y")],
    );
    place.commit("greg", "Beside the fleet", &[("other", "p"), ("prod/a/group.yaml", "x"), ("fleet/prod/a-2/x", "x")]);
    let head = place.commit("hugo", "Defaults", &[("fleet/prod/defaults.yaml", "d")]);
    let of = |paths: &'static [&'static str]| place.people(Some(&first), &head, paths);
    assert_eq!(of(&["prod/a"]).await, ["bob", "hugo"], "the head answers for all");
    assert_eq!(of(&["prod/a", "base/x.yaml"]).await, ["bob", "dora", "eve", "frank", "hugo"]);
    assert_eq!(of(&["prod/a", "prod/defaults.yaml", "nowhere"]).await, ["bob", "hugo"]);
    assert_eq!(
        of(&[]).await,
        ["bob", "carl", "dora", "eve", "frank", "greg", "hugo"],
        "everything below the fleet root"
    );
    assert_eq!(place.people(None, &head, &["prod/a"]).await, ["bob", "hugo", "zoe"], "since the beginning");
    assert_eq!(place.people(Some(&head), &head, &["prod/a"]).await, ["hugo"]);
    // What is taken away was touched as well.
    place.author.git(&["rm", "-q", "fleet/base/x.yaml"]);
    let gone = place.commit("ivan", "Away", &[]);
    let last = place.commit("jane", "Words", &[("other", "q")]);
    assert_eq!(place.people(Some(&head), &last, &["base/x.yaml"]).await, ["ivan", "jane"]);
    assert_eq!(place.people(Some(&gone), &last, &["base/x.yaml"]).await, ["jane"]);
}

#[tokio::test]
async fn a_merge_brings_what_its_branch_brought_and_what_it_changed_itself() {
    let place = Place::new("");
    let author = &place.author;
    let first = place.commit("zoe", "One", &[("a/x", "1\n"), ("b/x", "1\n")]);
    author.git(&["checkout", "-q", "-b", "side"]);
    place.commit("bob", "Side", &[("a/x", "2\n")]);
    author.git(&["checkout", "-q", "main"]);
    place.commit("carl", "Main", &[("b/x", "2\n")]);
    let merge = |who: &str| {
        let person = format!("{who} <{who}@example.org>");
        author.git(&["commit", "-q", "--amend", "--no-edit", "--author", &person]);
        author.git(&["rev-parse", "HEAD"])
    };
    author.git(&["merge", "-q", "--no-ff", "-m", "Clean", "side"]);
    merge("mia");
    let head = place.commit("nils", "Words", &[("c", "1")]);
    assert_eq!(
        place.people(Some(&first), &head, &["a"]).await,
        ["bob", "nils"],
        "who merges what others wrote wrote nothing"
    );
    // One that says something else than both of its sides.
    author.git(&["checkout", "-q", "-b", "other", &first]);
    place.commit("otto", "Other", &[("a/y", "1\n")]);
    author.git(&["merge", "-q", "--no-ff", "--no-commit", &head]);
    std::fs::write(author.path.join("a/z"), "smuggled").expect("written");
    author.git(&["add", "-A"]);
    author.git(&["commit", "-q", "-m", "Evil"]);
    merge("evil");
    author.git(&["branch", "-q", "-f", "main", "HEAD"]);
    author.git(&["checkout", "-q", "main"]);
    let last = place.commit("paul", "Words", &[("c", "2")]);
    assert_eq!(place.people(Some(&head), &last, &["a"]).await, ["evil", "otto", "paul"]);
}

#[tokio::test]
async fn an_address_is_told_whole_however_long_the_name_before_it_is() {
    let place = Place::new("");
    let long = "x".repeat(300);
    let first = place.commit("zoe", "One", &[("a/x", "1")]);
    std::fs::write(place.author.path.join("a/x"), "2").expect("written");
    let author = format!("{long} <Mallory@Example.org>");
    place.author.git(&["commit", "-q", "-a", "--author", &author, "-m", "Two"]);
    let head = place.author.git(&["rev-parse", "HEAD"]);
    assert_eq!(place.people(Some(&first), &head, &["a"]).await, ["mallory"]);
}

#[tokio::test]
async fn what_is_not_known_is_not_taken_for_nobody_s() {
    let place = Place::new("");
    place.commit("zoe", "One", &[("a/x", "1")]);
    let head = place.commit("bob", "Two", &[("a/x", "2")]);
    let range = |since: Option<CommitId>, head: CommitId| Range { since, head, paths: Vec::new() };
    let history = place.history().await;
    let lost = CommitId([7; 20]);
    assert_eq!(history.authors(&range(Some(lost), id(&head))), Err(Unknown::Gone(lost.short())));
    assert_eq!(history.authors(&range(None, lost)), Err(Unknown::Gone(lost.short())));
    // Where history was left out, whoever wrote that is left out, too.
    std::fs::write(place.state().join("mirror.git/shallow"), format!("{head}\n")).expect("written");
    assert_eq!(history.authors(&range(None, id(&head))), Err(Unknown::Torn));
    std::fs::remove_dir_all(place.state()).expect("removed");
    assert!(matches!(history.authors(&range(None, id(&head))), Err(Unknown::Unreadable(_))));
}
