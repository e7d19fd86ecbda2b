//! Real repositories in temporary directories, driven by the git command, for the tests of `gitamp::git`.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod journal;
pub(crate) mod server;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use gitamp::git::mirror::Mirror;
use gitamp::git::{Access, Deadlines, RemoteUrl, SourceOptions, Tracked};

/// A repository with a working copy, as an author has it.
pub(crate) struct Author {
    /// The working copy.
    pub(crate) path: PathBuf,
}

impl Author {
    /// A new repository at `path` on branch `main`, still empty.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        std::fs::create_dir_all(&path).expect("a directory");
        let author = Self { path };
        author.git(&["init", "-q", "-b", "main"]);
        author
    }

    /// Runs git in it and returns what it printed.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        git(&self.path, arguments)
    }

    /// Writes files and commits them; returns the commit.
    pub(crate) fn commit(&self, message: &str, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let path = self.path.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// Runs git without any configuration of the machine; panics with its words when it fails.
pub(crate) fn git(directory: &Path, arguments: &[&str]) -> String {
    let (ok, out, err) = try_git(directory, arguments);
    assert!(ok, "git {arguments:?}: {err}");
    out
}

/// Runs git and says whether it went well, and what it printed.
pub(crate) fn try_git(directory: &Path, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .expect("git is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Writes an object as it is, however odd; its id.
pub(crate) fn hash_object(repository: &Path, kind: &str, content: &[u8]) -> String {
    let mut child = Command::new("git")
        .args(["hash-object", "-w", "--literally", "--stdin", "-t", kind])
        .current_dir(repository)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git is installed");
    child.stdin.take().expect("a pipe").write_all(content).expect("it is written");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("hexadecimal").trim().to_owned()
}

/// The bytes of a tree object with these modes, names and ids.
pub(crate) fn raw_tree(entries: &[(&str, &str, &str)]) -> Vec<u8> {
    let mut tree = Vec::new();
    for (mode, name, oid) in entries {
        tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        tree.extend(hex::decode(oid).expect("an object id"));
    }
    tree
}

/// Deadlines for tests: long enough for a busy machine.
pub(crate) fn patient() -> Deadlines {
    Deadlines { connect: Duration::from_secs(20), silence: Duration::from_secs(20), total: Duration::from_secs(60) }
}

/// Options that follow `main` of the repository at `url`.
pub(crate) fn options(url: &str, state_dir: &Path) -> SourceOptions {
    SourceOptions {
        url: url.parse::<RemoteUrl>().expect("an address"),
        tracked: Tracked::Branch("main".to_owned()),
        shallow: false,
        fleet_root: String::new(),
        state_dir: state_dir.to_owned(),
        access: Access::default(),
        deadlines: patient(),
        transport_program: PathBuf::from(env!("CARGO_BIN_EXE_gitamp")),
    }
}

/// The mirror of these options.
pub(crate) async fn open(options: SourceOptions) -> Mirror {
    Mirror::open(options).await.expect("the mirror opens")
}

/// Writes a file for its owner alone, as files with secrets have to be.
pub(crate) fn write_secret(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a secret is written");
}
