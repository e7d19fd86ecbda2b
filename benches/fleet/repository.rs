//! The temporary fleet repository: one group of everybody, and a configuration of a certain size.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use git2::{IndexAddOption, Repository, RepositoryInitOptions, Signature};

use crate::Failure;

/// A repository with a work tree.
pub(crate) struct FleetRepository {
    repository: Repository,
    path: PathBuf,
    config_bytes: usize,
    version: usize,
}

impl FleetRepository {
    /// An empty one at `path`, whose configurations will have about `config_bytes` bytes.
    pub(crate) fn create(path: &Path, config_bytes: usize) -> Result<Self, Failure> {
        let mut options = RepositoryInitOptions::new();
        options.initial_head("main").mkpath(true);
        let repository = Repository::init_opts(path, &options)?;
        Ok(Self { repository, path: path.to_owned(), config_bytes, version: 0 })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Commits a configuration that no agent has yet, for everybody at once. Returns when that was, in milliseconds since the epoch.
    pub(crate) fn commit(&mut self, max_unavailable: &str) -> Result<f64, Failure> {
        self.version += 1;
        let group = self.path.join("all");
        fs::create_dir_all(&group)?;
        let at_once = "stages: [{name: all, agents: 100%, soak: 0s}], bake: 0s";
        let strategy = format!("rollout: {{{at_once}, maxUnavailable: {max_unavailable}, maxFailures: 100%}}\n");
        let head = "apiVersion: gitamp/v1\nkind: Group\nselector: {matchAll: true}\n";
        fs::write(group.join("group.yaml"), format!("{head}{strategy}"))?;
        fs::write(group.join("collector.yaml"), collector(self.config_bytes, self.version)?)?;
        let mut index = self.repository.index()?;
        index.add_all(["*"], IndexAddOption::DEFAULT, None)?;
        index.write()?;
        let tree = self.repository.find_tree(index.write_tree()?)?;
        let author = Signature::now("Bench", "bench@example.com")?;
        let parent = self.repository.head().ok().map(|head| head.peel_to_commit()).transpose()?;
        let parents: Vec<_> = parent.iter().collect();
        let message = format!("Version {}", self.version);
        let before = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1_000.0;
        self.repository.commit(Some("HEAD"), &author, &author, &message, &tree, &parents)?;
        Ok(before)
    }
}

/// A collector's configuration, padded with attributes rather than comments: those are not sent.
pub(crate) fn collector(bytes: usize, version: usize) -> Result<String, Failure> {
    let mut text = String::from(
        "receivers:\n  otlp:\n    protocols:\n      grpc: {endpoint: 127.0.0.1:4317}\nexporters:\n  debug: {}\nservice:\n  pipelines:\n    traces:\n      receivers: [otlp]\n      processors: [resource]\n      exporters: [debug]\nprocessors:\n  resource:\n    attributes:\n",
    );
    let mut line = 0;
    while text.len() < bytes {
        writeln!(text, "      - {{action: upsert, key: padding.{line}, value: version {} of the fleet}}", version)?;
        line += 1;
    }
    Ok(text)
}
