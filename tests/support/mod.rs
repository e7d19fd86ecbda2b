//! What the tests of the binary share: a fleet repository driven by `git`, the daemon as a child process, HTTP, and waiting.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod forge;
pub(crate) mod gateways;
pub(crate) mod http_remote;
pub(crate) mod issuer;
pub(crate) mod receiver;
pub(crate) mod secrets;

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything is waited for; reached only when a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a level is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// The clock of the tests.
#[expect(clippy::disallowed_methods, reason = "a bound on waiting needs the real clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until `level` has something, at most [`PATIENCE`]; then fails with what it last said it saw.
pub(crate) fn wait_for<T, S: Debug>(what: &str, mut level: impl FnMut() -> Result<T, S>) -> T {
    let until = now() + PATIENCE;
    loop {
        match level() {
            Ok(value) => return value,
            Err(seen) if now() > until => panic!("waited {PATIENCE:?} for {what}; last seen: {seen:#?}"),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// Holds that `level` stays as it is for a while: for what must NOT happen, where there is no event to wait for.
pub(crate) fn stays<S: Debug + PartialEq>(what: &str, length: Duration, mut level: impl FnMut() -> S) {
    let (first, until) = (level(), now() + length);
    while now() < until {
        assert_eq!(level(), first, "{what}");
        std::thread::sleep(LOOK);
    }
}

/// A command that sees nothing of the configuration of whoever runs the tests.
fn isolated(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .env_clear()
        .envs(["PATH", "HOME", "TMPDIR"].into_iter().filter_map(|name| Some((name, inherited(name)?))))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Ada Platform").env(format!("GIT_{who}_EMAIL"), "ada@example.com");
    }
    command
}

#[expect(clippy::disallowed_methods, reason = "the tests pass on what programs need to be found")]
fn inherited(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

/// Runs a command to its end; its output, whatever its status.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"))
}

/// What a command printed; fails when it failed.
fn printed(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// The program, as a user calls it.
pub(crate) fn gitamp<A: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = isolated(env!("CARGO_BIN_EXE_gitamp"));
    command.args(arguments);
    command
}

/// A fleet repository: a bare remote, and the clone that a person works in.
pub(crate) struct Repository {
    directory: tempfile::TempDir,
}

impl Repository {
    /// A remote with these files in its first commit on `main`.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let repository = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        let remote = repository.remote();
        printed(isolated("git").args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(&remote));
        printed(isolated("git").args(["clone", "--quiet"]).arg(&remote).arg(repository.work()));
        repository.git(&["checkout", "--quiet", "-B", "main"]);
        repository.commit("The fleet", files);
        repository
    }

    /// Where the daemon fetches from.
    pub(crate) fn remote(&self) -> PathBuf {
        self.directory.path().join("fleet.git")
    }

    /// The person's clone.
    pub(crate) fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// `git` in the person's clone; what it printed, trimmed.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        printed(isolated("git").current_dir(self.work()).args(arguments)).trim().to_owned()
    }

    /// The same, when it may fail; then what it complained of.
    pub(crate) fn try_git(&self, arguments: &[&str]) -> Result<String, String> {
        let output = run(isolated("git").current_dir(self.work()).args(arguments));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Writes files without committing them.
    pub(crate) fn write(&self, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = self.work().join(path);
            std::fs::create_dir_all(path.parent().expect("a directory above")).expect("directories");
            std::fs::write(&path, text).expect("a file is written");
        }
    }

    /// Writes files, commits and pushes; the commit's id.
    pub(crate) fn commit(&self, message: &str, files: &[(&str, &str)]) -> String {
        self.write(files);
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.push()
    }

    /// `git revert` of the newest commit, pushed; the new commit's id.
    pub(crate) fn revert(&self) -> String {
        self.git(&["revert", "--no-edit", "HEAD"]);
        self.push()
    }

    fn push(&self) -> String {
        self.git(&["push", "--quiet", "origin", "main"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// The note on a commit as plain git reads it from the remote, when there is one.
    pub(crate) fn note(&self, commit: &str) -> Option<String> {
        let fetch = ["fetch", "--quiet", "origin", "+refs/notes/gitamp/*:refs/notes/gitamp/*"];
        printed(isolated("git").current_dir(self.work()).args(fetch));
        let mut show = isolated("git");
        show.current_dir(self.work()).args(["notes", "--ref", "gitamp/default", "show", commit]);
        let output = run(&mut show);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until the note on a commit has this ending; the note.
    pub(crate) fn ending(&self, commit: &str, ending: &str) -> String {
        wait_for(&format!("the note on {commit} to say `{ending}`"), || {
            let note = self.note(commit).unwrap_or_default();
            let line = format!("ending: {ending}");
            if note.lines().any(|one| one == line) { Ok(note) } else { Err(note) }
        })
    }
}

/// Writes a file for its owner alone, as files with secrets have to be.
pub(crate) fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a secret is written");
}

/// A port of this machine that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// A child process that ends with the test, and whose log is shown when the test fails.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command with both its outputs in the file `log`, behind what is there.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).expect("a log file");
        let child = command
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name (`TERM`, `HUP`).
    pub(crate) fn signal(&self, name: &str) {
        printed(isolated("kill").args([&format!("-{name}"), &self.id().to_string()]));
    }

    /// Ends it at once, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().expect("a child can be killed");
            self.child.wait().expect("a child can be waited for");
        }
    }

    /// Waits for its end; how it ended.
    pub(crate) fn ended(mut self) -> ExitStatus {
        wait_for("the end of a process", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it still runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }
}

impl Drop for Process {
    #[expect(clippy::print_stdout, reason = "the harness shows it with the failure")]
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            println!("---- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// The daemon as a user runs it, with a state directory and two ports of its own.
pub(crate) struct Daemon {
    directory: tempfile::TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    agents_port: u16,
    admin_port: u16,
    process: Option<Process>,
}

impl Daemon {
    /// Starts `gitamp serve` on the repository with further arguments, and waits until it is ready.
    pub(crate) fn start(repository: &Repository, arguments: &[&str]) -> Self {
        Self::start_on(&repository.remote().display().to_string(), arguments)
    }

    /// The same on any `--repo`.
    pub(crate) fn start_on(repo: &str, arguments: &[&str]) -> Self {
        let mut daemon = Self::prepared_on(repo, arguments);
        daemon.restart();
        daemon
    }

    /// The same, not started yet.
    pub(crate) fn prepared_on(repo: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (agents_port, admin_port) = (free_port(), free_port());
        let mut all = vec!["serve".to_owned(), format!("--repo={repo}")];
        all.push(format!("--state-dir={}", directory.path().join("state").display()));
        all.push(format!("--listen=127.0.0.1:{agents_port}"));
        all.push(format!("--admin-listen=127.0.0.1:{admin_port}"));
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Self { directory, arguments: all, environment: Vec::new(), agents_port, admin_port, process: None }
    }

    /// From the next start on it is told this as well.
    pub(crate) fn also(&mut self, argument: &str) {
        self.arguments.push(argument.to_owned());
    }

    /// From the next start on this stands in its environment.
    pub(crate) fn also_in_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it.
    pub(crate) fn spawn(&mut self) {
        assert!(self.process.is_none(), "the daemon runs already");
        let mut command = gitamp(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(&mut command, &self.directory.path().join("log")));
        wait_for("the daemon to listen", || match get(self.admin(), "/healthz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}\n{}", self.process().log())),
        });
    }

    /// Waits until it has read the repository.
    pub(crate) fn ready(&self) {
        wait_for("the daemon to be ready", || match get(self.admin(), "/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}\n{}", self.process().log())),
        });
    }

    /// Starts it (again), and waits until it is ready.
    pub(crate) fn restart(&mut self) {
        self.spawn();
        self.ready();
    }

    /// The running process.
    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().expect("the daemon runs")
    }

    /// Takes the running process, to end it.
    pub(crate) fn take(&mut self) -> Process {
        self.process.take().expect("the daemon runs")
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.take().kill();
    }

    /// Its state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Where it tells how it is.
    pub(crate) fn admin(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.admin_port))
    }

    /// Where agents connect.
    pub(crate) fn agents(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.agents_port))
    }

    /// A subcommand that speaks to this daemon.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = gitamp(arguments);
        command.arg("--state-dir").arg(self.state());
        command
    }

    /// What such a subcommand prints; fails when it fails.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        printed(&mut self.command(arguments))
    }

    /// `gitamp status --output json`.
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.ask(&["status", "--output", "json"])).expect("status is JSON")
    }

    /// One group of the status.
    pub(crate) fn group(&self, name: &str) -> serde_json::Value {
        let status = self.status();
        let groups = status["groups"].as_array().cloned().unwrap_or_default();
        groups.into_iter().find(|group| group["name"] == name).unwrap_or_default()
    }

    /// The value of a metric, by its whole name with labels; `None` when it is not there.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let (status, body) = get(self.admin(), "/metrics").expect("metrics can be read");
        assert_eq!(status, 200, "{body}");
        let of = |line: &str| {
            line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).and_then(|value| value.parse().ok())
        };
        body.lines().find_map(of)
    }

    /// The sum of a metric over all its labels.
    pub(crate) fn metric_sum(&self, name: &str) -> f64 {
        let (status, body) = get(self.admin(), "/metrics").expect("metrics can be read");
        assert_eq!(status, 200, "{body}");
        let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        body.lines().filter(is_it).filter_map(value).sum()
    }
}

/// A file of a process below `/proc`; empty when the process is over.
pub(crate) fn proc(process: u32, file: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{process}/{file}")).unwrap_or_default()).into_owned()
}

/// The processes for transfers that a daemon runs.
pub(crate) fn children(daemon: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").expect("/proc is there");
    let ids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // Behind the name in brackets: the state, and the parent.
    let parent = |id: u32| {
        let stat = proc(id, "stat");
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.split(' ').nth(1)?.parse::<u32>().ok()
    };
    ids.filter(|id| parent(*id) == Some(daemon) && proc(*id, "cmdline").contains("git-transport")).collect()
}

/// `GET path`: the status and the body.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    exchange(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
}

/// `POST path` with headers: the status and the body.
pub(crate) fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<(u16, String)> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    exchange(address, &[request.as_bytes(), body].concat())
}

fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let malformed = || std::io::Error::other(format!("no HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if is_chunked { unchunked(body) } else { body.to_owned() }))
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|_| size > 0) else { break };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}
