//! The demo's fleet repository: three groups that share a layer, and the commits of the story.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use git2::{DiffFormat, ErrorCode, IndexAddOption, Oid, Repository, RepositoryInitOptions, Signature};

use crate::cli::Failure;

/// How many groups there are.
pub(super) const GROUPS: usize = 3;

/// What the bad commit mistypes; no collector knows it.
pub(super) const TYPING_ERROR: &str = "otlphtp/backend";

const BASE: &str = "\
receivers:
  otlp:
    protocols:
      grpc: {endpoint: 0.0.0.0:4317}
processors:
  batch: {timeout: 1s, send_batch_size: 512}
service:
  pipelines:
    traces:
      receivers: [otlp]
      processors: [batch]
";

const GATEWAYS: &str = "\
exporters:
  otlphttp/backend: {endpoint: https://traces.example.com}
service:
  pipelines:
    traces:
      exporters: [otlphttp/backend]
";

const AGENTS: &str = "\
exporters:
  otlp/gateway: {endpoint: gateways.example.com:4317}
service:
  pipelines:
    traces:
      exporters: [otlp/gateway]
";

const STAGING: &str = "\
exporters:
  debug: {}
service:
  pipelines:
    traces:
      exporters: [debug]
";

/// Seconds where a real fleet has minutes.
const IN_STAGES: &str = "\
rollout:
  spreadBy: [zone]
  stages:
    - {name: canary, agents: 5%, soak: 3s}
    - {name: all, agents: 100%}
  bake: 2s
  maxUnavailable: 25%
";

const AT_ONCE: &str = "\
rollout:
  stages: [{name: all, agents: 100%}]
  bake: 2s
  maxUnavailable: 50%
";

fn group(selector: &str, rollout: &str) -> String {
    format!(
        "apiVersion: gitamp/v1\nkind: Group\nselector:\n  matchLabels: {{{selector}}}\nlayers: [/base/common.yaml, ./collector.yaml]\n{rollout}"
    )
}

/// The repository, with a work tree.
pub(super) struct DemoRepository {
    repository: Repository,
    path: PathBuf,
    files: BTreeMap<String, String>,
}

impl DemoRepository {
    /// Makes it, with one commit.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let mut options = RepositoryInitOptions::new();
        options.initial_head("main").mkpath(true).external_template(false);
        let repository = Repository::init_opts(path, &options)?;
        let files = [
            ("base/common.yaml", BASE.to_owned()),
            ("prod/gateways/group.yaml", group("env: prod, role: gateway", IN_STAGES)),
            ("prod/gateways/collector.yaml", GATEWAYS.to_owned()),
            ("prod/agents/group.yaml", group("env: prod, role: agent", IN_STAGES)),
            ("prod/agents/collector.yaml", AGENTS.to_owned()),
            ("staging/group.yaml", group("env: staging", AT_ONCE)),
            ("staging/collector.yaml", STAGING.to_owned()),
        ];
        let files = files.map(|(path, text)| (path.to_owned(), text)).into_iter().collect();
        let demo = Self { repository, path: path.to_owned(), files };
        demo.commit("The fleet")?;
        Ok(demo)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The paths of its files.
    pub(super) fn files(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }

    /// A file's content, empty for one that is not there.
    pub(super) fn text(&self, path: &str) -> &str {
        self.files.get(path).map_or("", String::as_str)
    }

    /// The commit that `main` is at.
    pub(super) fn head(&self) -> Result<String, Failure> {
        Ok(self.repository.head()?.peel_to_commit()?.id().to_string())
    }

    /// A change that concerns all groups.
    pub(super) fn enlarge_batches(&mut self) -> Result<String, Failure> {
        self.replace("base/common.yaml", "send_batch_size: 512", "send_batch_size: 4096");
        self.commit("Send larger batches")
    }

    /// A change that no collector can run.
    pub(super) fn mistype_exporter(&mut self) -> Result<String, Failure> {
        self.replace("prod/gateways/collector.yaml", "otlphttp/backend", TYPING_ERROR);
        self.commit("Send to the new backend")
    }

    /// What `git revert` of the latest commit makes.
    pub(super) fn revert_head(&mut self) -> Result<String, Failure> {
        let head = self.repository.head()?.peel_to_commit()?;
        let before = head.parent(0)?.tree()?;
        let author = author()?;
        let message =
            format!("Revert \"{}\"\n\nThis reverts commit {}.\n", head.summary()?.unwrap_or_default(), head.id());
        let commit = self.repository.commit(Some("HEAD"), &author, &author, &message, &before, &[&head])?;
        let mut checkout = git2::build::CheckoutBuilder::new();
        self.repository.checkout_head(Some(checkout.force()))?;
        drop((head, before));
        self.replace("prod/gateways/collector.yaml", TYPING_ERROR, "otlphttp/backend");
        Ok(commit.to_string())
    }

    /// The changed lines of the latest commit.
    pub(super) fn difference(&self) -> Result<Vec<String>, Failure> {
        let head = self.repository.head()?.peel_to_commit()?;
        let mut options = git2::DiffOptions::new();
        options.context_lines(0);
        let (old, new) = (head.parent(0)?.tree()?, head.tree()?);
        let diff = self.repository.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options))?;
        let mut lines = Vec::new();
        diff.print(DiffFormat::Patch, |delta, _, line| {
            let text = String::from_utf8_lossy(line.content()).trim_end().to_owned();
            match line.origin() {
                sign @ ('+' | '-') => lines.push(format!("{sign} {text}")),
                'F' => lines.push(delta.new_file().path().map_or_else(String::new, |path| path.display().to_string())),
                _ => {}
            }
            true
        })?;
        Ok(lines)
    }

    /// The daemon's note on a commit.
    pub(super) fn note(&self, commit: &str) -> Result<Option<String>, Failure> {
        match self.repository.find_note(Some("refs/notes/gitamp/default"), Oid::from_str(commit)?) {
            Ok(note) => Ok(Some(String::from_utf8_lossy(note.message_bytes()).into_owned())),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn replace(&mut self, path: &str, old: &str, new: &str) {
        if let Some(text) = self.files.get_mut(path) {
            *text = text.replace(old, new);
        }
    }

    /// Writes all files and commits them.
    fn commit(&self, message: &str) -> Result<String, Failure> {
        for (path, text) in &self.files {
            let path = self.path.join(path);
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            std::fs::write(path, text)?;
        }
        let mut index = self.repository.index()?;
        index.add_all(["*"], IndexAddOption::DEFAULT, None)?;
        index.write()?;
        let tree = self.repository.find_tree(index.write_tree()?)?;
        let parent = match self.repository.head() {
            Ok(head) => Some(head.peel_to_commit()?),
            Err(error) if error.code() == ErrorCode::UnbornBranch => None,
            Err(error) => return Err(error.into()),
        };
        let parents: Vec<_> = parent.iter().collect();
        let author = author()?;
        Ok(self.repository.commit(Some("HEAD"), &author, &author, message, &tree, &parents)?.to_string())
    }
}

fn author() -> Result<Signature<'static>, Failure> {
    Ok(Signature::now("Demo", "demo@example.com")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet;
    use crate::fleet::snapshot::{Entry, Snapshot};

    #[test]
    fn the_fleet_has_nothing_to_complain_of() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut demo = DemoRepository::create(&directory.path().join("fleet")).expect("a repository");
        let load = |demo: &DemoRepository| {
            let entry = |(path, text): (&String, &String)| (path.as_str().into(), Entry::File(text.clone().into()));
            fleet::load(&Snapshot::new(demo.files.iter().map(entry).collect()), None)
        };
        let good = load(&demo);
        assert_eq!(good.diagnostics, []);
        assert!(good.groups.len() == GROUPS && good.groups.values().all(|group| group.config.is_some()));
        demo.mistype_exporter().expect("a commit");
        assert_eq!(load(&demo).diagnostics, [], "only a collector can tell");
    }

    #[test]
    fn the_story_has_four_commits_and_ends_where_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut demo = DemoRepository::create(&directory.path().join("fleet")).expect("a repository");
        assert_eq!(demo.files().iter().filter(|path| path.ends_with("group.yaml")).count(), GROUPS);
        demo.enlarge_batches().expect("a commit");
        assert_eq!(
            demo.difference().expect("a difference"),
            [
                "base/common.yaml",
                "-   batch: {timeout: 1s, send_batch_size: 512}",
                "+   batch: {timeout: 1s, send_batch_size: 4096}"
            ]
        );
        let good = demo.repository.head().and_then(|head| head.peel_to_tree()).expect("a tree").id();
        let bad = demo.mistype_exporter().expect("a commit");
        assert!(demo.difference().expect("a difference").iter().any(|line| line.contains(TYPING_ERROR)));
        assert_eq!(demo.note(&bad).expect("to look for a note"), None);
        demo.revert_head().expect("a revert");
        let tree = demo.repository.head().and_then(|head| head.peel_to_tree()).expect("a tree").id();
        assert_eq!(tree, good, "the revert is the good tree again");
        let on_disk = std::fs::read_to_string(demo.path().join("prod/gateways/collector.yaml")).expect("the file");
        assert_eq!(on_disk, demo.text("prod/gateways/collector.yaml"), "the work tree follows");
    }
}
