//! The journal over ssh, against OpenSSH's own server where there is one: host keys, user keys, pushes and the way back.

mod git_support;

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use git_support::journal::{journal_options, write};
use git_support::{Author, git};
use gitamp::git::journal::{Journal, JournalError, JournalOptions, PushOutcome};
use gitamp::git::{Access, FailureKind};

/// Where packages put the server; it wants to be called by its whole path.
const PLACES: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"];

/// A server on 127.0.0.1 that runs one `sshd` for each connection; ends when it is dropped.
struct Server {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(program: PathBuf, settings: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let input = OwnedFd::from(stream.try_clone().expect("a second handle"));
                let mut serving = Command::new(&program)
                    .args(["-i", "-e", "-f"])
                    .arg(&settings)
                    .stdin(input)
                    .stdout(OwnedFd::from(stream))
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("sshd starts");
                // Its end is the end of the connection, which the client brings about.
                std::thread::spawn(move || serving.wait());
            }
        });
        Self { address, ended, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(std::net::TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A new key pair at this path.
fn key(path: &Path) -> PathBuf {
    printed("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", &path.to_string_lossy()]);
    path.to_owned()
}

fn public(path: &Path) -> String {
    fs::read_to_string(path.with_extension("pub")).expect("a public key")
}

/// A server, if there is one here that can run; otherwise says why there is nothing to test.
fn server(home: &Path) -> Option<Server> {
    let skipped = |why: &str| {
        // Not by `eprintln!`: the test harness keeps that of a test that passes to itself.
        writeln!(std::io::stderr(), "skipped: {}: {why}", module_path!()).expect("standard error is there");
    };
    let Some(program) = PLACES.iter().map(PathBuf::from).find(|path| path.exists()) else {
        skipped("there is no sshd here");
        return None;
    };
    let (host_key, user_key) = (key(&home.join("host")), key(&home.join("user")));
    fs::write(home.join("authorized"), public(&user_key)).expect("a file");
    fs::set_permissions(home.join("authorized"), Permissions::from_mode(0o600)).expect("ours");
    let settings = home.join("sshd_config");
    let text = format!(
        "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n\
         PidFile none\nPermitRootLogin prohibit-password\n",
        host_key.display(),
        home.join("authorized").display()
    );
    fs::write(&settings, text).expect("a file");
    let check = Command::new(&program).args(["-t", "-f"]).arg(&settings).output().expect("sshd runs");
    if !check.status.success() {
        skipped(&format!("sshd cannot run here: {}", String::from_utf8_lossy(&check.stderr).trim()));
        return None;
    }
    Some(Server::start(program, settings))
}

fn kind(error: &JournalError) -> FailureKind {
    assert!(matches!(error, JournalError::Transport(_)), "{error}");
    error.kind()
}

#[tokio::test]
async fn the_journal_is_pushed_over_ssh_to_a_host_that_is_known_with_a_key_that_is_allowed() {
    let home = tempfile::tempdir().expect("a directory");
    let Some(server) = server(home.path()) else { return };
    let author = Author::new(home.path().join("author"));
    let first = author.commit("One", &[("a.yaml", "a: 1\n")]);
    git(home.path(), &["clone", "-q", "--bare", "author", "fleet.git"]);
    let bare = home.path().join("fleet.git");
    let (user, port) = (printed("id", &["-un"]), server.address.port());
    let url = format!("ssh://{user}@127.0.0.1:{port}{}", bare.display());
    let known = home.path().join("known_hosts");
    let trust = |key: &Path| fs::write(&known, format!("[127.0.0.1]:{port} {}", public(key))).expect("a file");
    let (stranger, impostor) = (key(&home.path().join("stranger")), key(&home.path().join("impostor")));
    let options = |user_key: &Path| {
        let mut options: JournalOptions = journal_options(Some(&url), &home.path().join("state"));
        let access = Access {
            ssh_key_file: Some(user_key.to_owned()),
            known_hosts_file: Some(known.clone()),
            ssh_agent: false,
            ..Access::default()
        };
        options.remote = options.remote.map(|remote| gitamp::git::transport::Transport { access, ..remote });
        options
    };
    let user_key = home.path().join("user");

    fs::write(&known, "").expect("a file");
    let error = Journal::open(options(&user_key)).await.expect_err("nobody vouches for the host");
    assert_eq!(kind(&error), FailureKind::HostKey, "{error:?}");
    trust(&impostor);
    let error = Journal::open(options(&user_key)).await.expect_err("it is another host than it was");
    assert_eq!(kind(&error), FailureKind::HostKey, "{error:?}");
    trust(&home.path().join("host"));
    let error = Journal::open(options(&stranger)).await.expect_err("the key is not allowed");
    assert_eq!(kind(&error), FailureKind::Credentials, "{error:?}");

    let (journal, _) = Journal::open(options(&user_key)).await.expect("it opens");
    journal.store(write(&first, "over ssh", &[("a", Some("1"))])).await.expect("it stores");
    assert_eq!(journal.push().await.expect("it pushes"), PushOutcome::Pushed);
    assert_eq!(git(&bare, &["notes", "--ref=gitamp/default", "show", &first]), "over ssh");
    // Somebody else was first, and the host's key changes in between: it stops there, and goes on when that is put right.
    let tree = git(&bare, &["rev-parse", "HEAD^{tree}"]);
    git(&bare, &["notes", "--ref=gitamp/default", "add", "-m", "theirs", &tree]);
    journal.store(write(&first, "over ssh, later", &[])).await.expect("it stores");
    trust(&impostor);
    let error = journal.push().await.expect_err("not to somebody else");
    assert_eq!(kind(&error), FailureKind::HostKey, "{error:?}");
    trust(&home.path().join("host"));
    assert_eq!(journal.push().await.expect("it merges and pushes"), PushOutcome::Pushed);
    for (object, note) in [(&first, "over ssh, later"), (&tree, "theirs")] {
        assert_eq!(git(&bare, &["notes", "--ref=gitamp/default", "show", object]), note);
    }
    drop(journal);
    fs::remove_dir_all(home.path().join("state")).expect("removable");
    let (_, contents) = Journal::open(options(&user_key)).await.expect("an empty disk");
    assert_eq!(contents.state.get("a").map(|bytes| bytes.to_vec()), Some(b"1".to_vec()));
}
