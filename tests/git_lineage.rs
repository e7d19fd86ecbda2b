//! What each commit between two revisions changed itself, as its signature is judged by: merges, conflicts, rewritten history.

mod git_support;

use git_support::{Author, open, options};
use gitamp::fleet::snapshot::CommitId;
use gitamp::git::lineage::{Lineage, Question};
use gitamp::git::mirror::Mirror;

fn id(text: &str) -> CommitId {
    text.parse().expect("a commit id")
}

struct Place {
    _home: tempfile::TempDir,
    author: Author,
    mirror: Mirror,
}

impl Place {
    async fn new(fleet_root: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let author = Author::new(home.path().join("fleet"));
        let mut options = options(&author.path.to_string_lossy(), &home.path().join("state"));
        options.fleet_root = fleet_root.to_owned();
        let mirror = open(options).await;
        Self { _home: home, author, mirror }
    }

    async fn ask(&mut self, since: Option<&str>, every: bool, most: usize) -> Lineage {
        let head = self.mirror.sync().await.expect("it syncs").commit;
        let question = Question { head, since: since.map(id), every, paths: true, most };
        self.mirror.lineage(question).await.expect("it reads")
    }

    /// The commits by their subjects, with what each changed.
    fn told(&self, lineage: &Lineage) -> Vec<String> {
        let one = |link: &gitamp::git::lineage::Link| {
            let subject = self.author.git(&["log", "-1", "--format=%s", &link.id.to_string()]);
            assert!(String::from_utf8_lossy(&link.raw).contains(subject.trim()), "the bytes are this commit's");
            format!("{}: {}", subject.trim(), link.touched.join(" "))
        };
        lineage.links.iter().map(one).collect()
    }
}

#[tokio::test]
async fn every_commit_answers_for_what_it_changed_itself() {
    let mut place = Place::new("").await;
    let author = &place.author;
    let first = author.commit("One", &[("prod/a.yaml", "a: 1\n"), ("test/b.yaml", "b: 1\n")]);
    author.git(&["checkout", "-q", "-b", "side"]);
    author.commit("Side", &[("prod/a.yaml", "a: 2\n")]);
    author.git(&["checkout", "-q", "main"]);
    author.commit("Main", &[("test/b.yaml", "b: 2\n"), ("README.md", "x\n")]);
    author.git(&["merge", "-q", "--no-ff", "-m", "Clean merge", "side"]);
    let lineage = place.ask(Some(&first), true, 10).await;
    let mut told = place.told(&lineage);
    assert_eq!(told.remove(0), "Clean merge: ", "a merge that only merges changes nothing itself");
    told.sort();
    assert_eq!(told, ["Main: README.md test/b.yaml", "Side: prod/a.yaml"]);
    assert!(lineage.follows && !lineage.is_cut);

    let lineage = place.ask(Some(&first), false, 10).await;
    assert_eq!(place.told(&lineage), ["Clean merge: README.md prod/a.yaml test/b.yaml"], "the head answers for all");
    assert!(place.ask(Some(&first), true, 2).await.is_cut, "three, and two are told");
    let lineage = place.ask(Some(&"7".repeat(40)), true, 10).await;
    assert_eq!(place.told(&lineage), ["Clean merge: README.md prod/a.yaml test/b.yaml"], "everything there is");
    assert!(!lineage.follows, "an accepted revision that is not here");
}

#[tokio::test]
async fn a_merge_that_says_something_else_than_its_parents_answers_for_it() {
    let mut place = Place::new("").await;
    let author = &place.author;
    let first = author.commit("One", &[("prod/a.yaml", "a: 1\n"), ("prod/c.yaml", "c: 1\n")]);
    author.git(&["checkout", "-q", "-b", "side"]);
    author.commit("Side", &[("test/b.yaml", "b: 1\n")]);
    author.git(&["checkout", "-q", "main"]);
    author.commit("Main", &[("prod/a.yaml", "a: 2\n")]);
    author.git(&["merge", "-q", "--no-ff", "--no-commit", "side"]);
    // The side's older state of a file is taken back, which no commit of either side did.
    author.git(&["checkout", &first, "--", "prod/a.yaml"]);
    std::fs::write(author.path.join("prod/d.yaml"), "d: 1\n").expect("writable");
    author.git(&["add", "--all"]);
    author.git(&["commit", "-q", "-m", "Evil merge"]);
    let lineage = place.ask(Some(&first), true, 10).await;
    assert_eq!(place.told(&lineage)[0], "Evil merge: prod/a.yaml prod/d.yaml");

    // A conflict is solved by whoever merges.
    let second = place.author.git(&["rev-parse", "HEAD"]).trim().to_owned();
    let author = &place.author;
    author.git(&["checkout", "-q", "-b", "other"]);
    author.commit("Other", &[("prod/c.yaml", "c: 2\n")]);
    author.git(&["checkout", "-q", "main"]);
    author.commit("Ours", &[("prod/c.yaml", "c: 3\n")]);
    author.git(&["merge", "-q", "--no-ff", "-s", "ours", "-m", "Ours wins", "other"]);
    let lineage = place.ask(Some(&second), true, 10).await;
    assert_eq!(place.told(&lineage)[0], "Ours wins: prod/c.yaml");
}

#[tokio::test]
async fn what_was_taken_back_belongs_to_the_head() {
    let mut place = Place::new("fleet").await;
    let author = &place.author;
    author.commit("One", &[("fleet/prod/a.yaml", "a: 1\n"), ("fleetwood/x.yaml", "x: 1\n")]);
    let second = author.commit("Two", &[("fleet/prod/a.yaml", "a: 2\n"), ("else/y.yaml", "y: 1\n")]);
    let lineage = place.ask(Some(&second), true, 10).await;
    assert_eq!(place.told(&lineage), ["Two: "], "nothing since");
    place.author.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let lineage = place.ask(Some(&second), true, 10).await;
    assert_eq!(place.told(&lineage), ["One: prod/a.yaml"], "paths are told from the fleet root");
    place.author.commit("Three", &[("fleet/test/b.yaml", "b: 1\n"), ("fleetwood/x.yaml", "x: 2\n")]);
    let lineage = place.ask(Some(&second), true, 10).await;
    assert_eq!(place.told(&lineage), ["Three: prod/a.yaml test/b.yaml"], "what it brings, and what it takes back");
}
