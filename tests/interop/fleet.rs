//! A fleet repository that a person works on, with Git as it is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gitamp::view::{CommitReport, Ending};

use super::wait;

/// A repository with a work tree.
pub(crate) struct FleetRepository {
    path: PathBuf,
}

impl FleetRepository {
    pub(crate) fn create(path: &Path) -> Self {
        fs::create_dir(path).expect("a new directory");
        let repository = Self { path: path.to_owned() };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a group that selects the agents with this label, with its whole configuration; changes go to everybody at once, and what
    /// fails stays as it is.
    pub(crate) fn write_group(&self, name: &str, selector: &str, collector: &str) {
        let rollout = "{stages: [{name: all, agents: 100%, soak: 0s}], bake: 0s, onFailure: pause}";
        self.write_group_with(name, selector, rollout, collector);
    }

    /// The same with rules of its own for its rollouts.
    pub(crate) fn write_group_with(&self, name: &str, selector: &str, rollout: &str, collector: &str) {
        let directory = self.path.join(name);
        fs::create_dir_all(&directory).expect("a directory");
        let group = format!("apiVersion: gitamp/v1\nkind: Group\nselector: {selector}\nrollout: {rollout}\n");
        fs::write(directory.join("group.yaml"), group).expect("written");
        fs::write(directory.join("collector.yaml"), collector).expect("written");
    }

    /// Writes the policy of the whole fleet.
    pub(crate) fn write_policy(&self, policy: &str) {
        let text = format!("apiVersion: gitamp/v1\nkind: Fleet\n{policy}\n");
        fs::write(self.path.join("fleet.yaml"), text).expect("written");
    }

    /// Commits everything. Returns the commit.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
        self.head()
    }

    /// Takes the newest commit back. Returns the commit that does so.
    pub(crate) fn revert(&self) -> String {
        self.git(&["revert", "--no-edit", "HEAD"]);
        self.head()
    }

    /// Waits until the note on a commit tells its ending.
    pub(crate) fn wait_ending(&self, commit: &str, ending: Ending) -> CommitReport {
        wait(&format!("the note on {commit} says {ending}"), || {
            let shown = self.run(&["notes", "--ref", "gitamp/default", "show", commit]);
            if !shown.status.success() {
                return Err(String::from_utf8_lossy(&shown.stderr).into_owned());
            }
            let text = String::from_utf8(shown.stdout).map_err(|error| error.to_string())?;
            let note: CommitReport = serde_yaml::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
            if note.ending == Some(ending) { Ok(note) } else { Err(text) }
        })
    }

    fn head(&self) -> String {
        let output = self.git(&["rev-parse", "HEAD"]);
        String::from_utf8(output.stdout).expect("a commit's id").trim_end().to_owned()
    }

    fn git(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments);
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new("git")
            .arg("-C")
            .arg(&self.path)
            .args(["-c", "user.name=Ops", "-c", "user.email=ops@example.com"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .output()
            .expect("git is installed")
    }
}
