//! What the processes may do on their machine: the one for Git transfers, the daemon without any rights, and the example unit.

#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;

use support::http_remote::HttpRemote;
use support::{Daemon, PATIENCE, Process, Repository, children, free_port, get, proc, run, wait_for, write_secret};

const GROUP: &str = "apiVersion: gitamp/v1\nkind: Group\nselector: {matchAll: true}\n";
const COLLECTOR: &str = "\
receivers: {otlp: {protocols: {grpc: {}}}}
exporters: {debug: {}}
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
";

/// Sockets that the daemon holds while it starts the process that must not have them.
const SOCKETS: usize = 300;

/// What a process has open, as its links say.
fn open(process: u32) -> Vec<String> {
    let Ok(all) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return Vec::new() };
    let target = |path: PathBuf| std::fs::read_link(path).map(|link| link.display().to_string());
    all.filter_map(|entry| target(entry.ok()?.path()).ok()).collect()
}

/// The soft and the hard limit of a process by the name that /proc gives it.
fn limits(process: u32, name: &str) -> (String, String) {
    let text = proc(process, "limits");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in\n{text}"));
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().expect("a soft limit"), words.next().expect("a hard limit"))
}

/// Holds the limits of a transfer that may take ten minutes.
fn is_limited(child: u32) {
    for (name, limit) in [
        ("Max core file size", "0"),
        ("Max open files", "1024"),
        ("Max data size", "4294967296"),
        ("Max cpu time", "660"),
        ("Max file size", "4831838208"),
        ("Max processes", "0"),
    ] {
        assert_eq!(limits(child, name), (limit.to_owned(), limit.to_owned()), "{name}");
    }
    assert!(proc(child, "status").contains("NoNewPrivs:\t1"), "{}", proc(child, "status"));
}

#[test]
fn a_transfer_has_nothing_of_the_daemon_but_what_it_needs() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root may look into the daemon and its transfers");
    }
    let repository = Repository::with(&[("all/group.yaml", GROUP), ("all/collector.yaml", COLLECTOR)]);
    let remote = HttpRemote::serve(&repository.remote());
    remote.ask_for("hunter2");
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    write_secret(&token, "hunter2");
    let mut daemon = Daemon::prepared_on(&remote.url(), &["--interval=1h", "--git-timeout=10m"]);
    daemon.also(&format!("--git-token-file={}", token.display()));
    daemon.also_in_environment("AWS_SECRET_ACCESS_KEY", "hunter3");
    daemon.also_in_environment("LD_LIBRARY_PATH", "/nowhere");
    daemon.also_in_environment("NO_PROXY", "127.0.0.1");
    daemon.restart();
    let own = daemon.process().id();
    let sockets: Vec<TcpStream> = (0..SOCKETS)
        .map(|_| {
            let mut stream = TcpStream::connect(daemon.agents()).expect("the daemon listens");
            // Begun and not ended, so that it is waited for.
            stream.write_all(b"POST /v1/opamp HTTP/1.1\r\n").expect("it is read");
            stream
        })
        .collect();
    wait_for("the daemon to hold the sockets", || {
        let count = open(own).iter().filter(|link| link.starts_with("socket:")).count();
        if count >= SOCKETS { Ok(()) } else { Err(count) }
    });
    // The remote takes the next question, and its time.
    let (asked, is_asked) = sync_channel(1);
    let (let_go, is_over) = sync_channel::<()>(1);
    remote.behind_the_next_look(move || {
        asked.send(()).expect("the test waits for it");
        // It ends when the test does, however that ends.
        let _over = is_over.recv();
    });
    daemon.process().signal("HUP");
    is_asked.recv_timeout(PATIENCE).expect("the remote is asked");
    let child = wait_for("the transfer that waits for the remote", || {
        let children = children(own);
        if let [child] = children[..] { Ok(child) } else { Err(children) }
    });
    let command = proc(child, "cmdline");
    assert_eq!(command.split('\0').skip(1).collect::<Vec<_>>(), ["git-transport", ""], "{command:?}");
    let environment = proc(child, "environ");
    let names: BTreeSet<&str> = environment.split('\0').filter_map(|pair| pair.split('=').next()).collect();
    assert!(names.contains("NO_PROXY"), "{environment:?}");
    // The last two are named by the daemon itself, where the system has its certificates.
    let expected = ["", "HOME", "NO_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE"].into();
    assert!(names.is_subset(&expected), "nothing else of the environment: {names:?}");
    is_limited(child);
    let files = open(child);
    let of = |kind: &str| files.iter().filter(|link| link.starts_with(kind)).count();
    assert!(of("pipe:") >= 3, "its three pipes: {files:?}");
    assert_eq!(of("socket:"), 1, "the one to the remote: {files:?}");
    let state = daemon.state().display().to_string();
    let others: Vec<&String> = files
        .iter()
        .filter(|link| {
            !["pipe:", "socket:", "/dev/null", "/dev/urandom", &state].iter().any(|own| link.starts_with(own))
        })
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(files.len() < 12, "{files:?}");
    drop((sockets, let_go));
}

fn skipped(why: &str) {
    // Not by `eprintln!`: the test harness keeps that of a test that passes to itself.
    writeln!(std::io::stderr(), "skipped: {}: {why}", module_path!()).expect("standard error is there");
}

/// `unshare` and `setpriv` around a shell script, which gets `$1` and further arguments: as nobody, without any capability, in a mount
/// namespace of its own where nothing can be written but `$1`.
fn as_nobody(writable: &Path) -> Command {
    const SCRIPT: &str = "\
state=$1; shift
mount --make-rprivate / && mount --bind \"$state\" \"$state\" || exit 90
# Every other mount that can be written: its file system may stay as it is, the way to it must not.
while read -r _ place _ options _; do
  case \"$place\" in \"$state\"|/proc|/proc/*|/sys|/sys/*|/dev/pts|/dev/mqueue) continue;; esac
  case \"$options\" in rw*) mount -o remount,bind,ro \"$place\" 2>/dev/null;; esac
done < /proc/mounts
# Without a terminal, and without HOME: nobody is there to be asked.
run='setsid setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all'
$run sh -c 'for place in / /tmp /var/tmp /dev/shm /run; do touch \"$place/gitamp-was-here\" 2>/dev/null && exit 1; done; exit 0' || exit 91
$run test -w \"$state\" || exit 92
exec $run \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(writable);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command
}

/// A program as nobody, without any capability.
fn of_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]);
    command.args(["--ambient-caps=-all", "--bounding-set=-all", program]).stdin(Stdio::null());
    command
}

/// What nobody reads of a process, or is told instead.
fn read_as_nobody(process: u32, file: &str) -> Result<String, String> {
    let output = run(of_nobody("cat").arg(format!("/proc/{process}/{file}")));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Holds that nobody does not look into a process of nobody's: what needs the right of a debugger is refused, and what everybody sees is not.
fn is_closed(process: u32) {
    for file in ["environ", "maps"] {
        let said = read_as_nobody(process, file);
        assert!(said.as_ref().is_err_and(|said| said.contains("Permission denied")), "{file}: {said:?}");
    }
    assert!(proc(process, "status").contains("Uid:\t65534"), "{}", proc(process, "status"));
    assert!(read_as_nobody(process, "cmdline").is_ok_and(|line| !line.is_empty()), "what `ps` shows");
}

/// Looks into a daemon of nobody's, and into a transfer of it, as nobody.
fn looked_into(directory: &Path, repository: &Repository) {
    // What it is like where nothing is closed: without this the rest would hold on a system that forbids all of it.
    let mut open = of_nobody("sleep").arg("60").env("MARK", "of-the-test").spawn().expect("a process");
    wait_for("an environment that is not closed", || match read_as_nobody(open.id(), "environ") {
        Ok(text) if text.contains("MARK=of-the-test") => Ok(()),
        other => Err(other),
    });
    open.kill().and_then(|()| open.wait()).expect("it ends");
    let remote = HttpRemote::serve(&repository.remote());
    let (asked, is_asked) = sync_channel(1);
    let (let_go, is_over) = sync_channel::<()>(1);
    remote.behind_the_next_look(move || {
        asked.send(()).expect("the test waits for it");
        let _over = is_over.recv();
    });
    let (process, _) = start_as_nobody(directory, &[format!("--repo={}", remote.url()), "--no-push".to_owned()]);
    is_asked.recv_timeout(PATIENCE).expect("the remote is asked");
    let child = wait_for("the transfer that waits for the remote", || {
        let children = children(process.id());
        if let [child] = children[..] { Ok(child) } else { Err(children) }
    });
    is_closed(process.id());
    is_closed(child);
    drop(let_go);
    process.signal("TERM");
    assert!(process.ended().success());
}

/// The copy of the program in this directory, as nobody, on the state directory beside it; and where its admin listener is.
fn start_as_nobody(directory: &Path, arguments: &[String]) -> (Process, SocketAddr) {
    let state = directory.join("state");
    let (agents, admin) = (free_port(), free_port());
    let mut command = as_nobody(&state);
    command.arg(directory.join("gitamp")).arg("serve").args([
        format!("--state-dir={}", state.display()),
        format!("--listen=127.0.0.1:{agents}"),
        format!("--admin-listen=127.0.0.1:{admin}"),
    ]);
    let process = Process::start(command.args(arguments), &directory.join("log"));
    (process, SocketAddr::from(([127, 0, 0, 1], admin)))
}

/// What a daemon says of itself, or why nothing.
fn asked(admin: SocketAddr, process: &Process) -> Result<serde_json::Value, String> {
    let (_, text) = get(admin, "/api/v1/status").map_err(|error| format!("{error}\n{}", process.log()))?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}\n{}", process.log()))
}

#[test]
fn the_daemon_needs_no_rights_and_writes_to_its_state_directory_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let chmod =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    chmod(directory.path(), 0o755);
    std::fs::create_dir(path("state")).expect("a directory");
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can become nobody");
    }
    std::os::unix::fs::chown(path("state"), Some(65534), Some(65534)).expect("root may");
    chmod(&path("state"), 0o700);
    let tried = as_nobody(&path("state")).arg("true").output();
    match tried {
        Ok(output) if output.status.success() => {}
        other => return skipped(&format!("no namespace of its own can be had here: {other:?}")),
    }
    // Where nobody may go.
    let program = path("gitamp");
    std::fs::copy(env!("CARGO_BIN_EXE_gitamp"), &program).expect("a copy");
    chmod(&program, 0o755);
    let repository = Repository::with(&[("all/group.yaml", GROUP), ("all/collector.yaml", COLLECTOR)]);
    let fleet = path("fleet.git");
    let clone = run(Command::new("git").args(["clone", "--quiet", "--bare"]).arg(repository.remote()).arg(&fleet));
    assert!(clone.status.success(), "{clone:?}");
    let (key, known) = (path("key"), path("known_hosts"));
    write_secret(&key, "no key, and nobody asks for it\n");
    std::os::unix::fs::chown(&key, Some(65534), Some(65534)).expect("root may");
    let host = "[127.0.0.1]:1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
    std::fs::write(&known, host).expect("known hosts");
    let start = |arguments: &[String]| start_as_nobody(directory.path(), arguments);
    // Over ssh there are known hosts to write down before the host is spoken to; nobody listens there.
    let (process, admin) = start(&[
        format!("--repo=ssh://git@127.0.0.1:{}/fleet.git", free_port()),
        format!("--ssh-key-file={}", key.display()),
        format!("--known-hosts-file={}", known.display()),
        "--no-push".to_owned(),
    ]);
    let error = wait_for("the remote to be asked for over ssh", || {
        let status = asked(admin, &process)?;
        status["sync"]["error"].as_str().map(str::to_owned).ok_or_else(|| format!("{status:#}"))
    });
    assert!(error.contains("failed to connect"), "it came as far as that: {error}");
    assert!(proc(process.id(), "status").contains("Uid:\t65534"), "{}", proc(process.id(), "status"));
    process.signal("TERM");
    assert!(process.ended().success());
    let kept = std::fs::read_dir(path("state/transfers")).expect("it was made").count();
    assert_eq!(kept, 0, "what a transfer needs is gone with it");

    looked_into(directory.path(), &repository);

    let (process, admin) = start(&[format!("--repo={}", fleet.display()), "--no-push".to_owned()]);
    wait_for("the commit to be taken and stored", || {
        let status = asked(admin, &process)?;
        let is_done = !status["journal"]["lastStored"].is_null() && !status["sync"]["revision"].is_null();
        if is_done { Ok(()) } else { Err(format!("{status:#}\n{}", process.log())) }
    });
    let socket = std::fs::symlink_metadata(path("state/admin.sock")).expect("the admin socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    process.signal("TERM");
    let log = process.log();
    assert!(process.ended().success(), "{log}");
}

/// What has to stand in the unit: without one of these it is weaker than it says in docs/security.md.
const HARDENING: [&str; 34] = [
    "AmbientCapabilities=",
    "CapabilityBoundingSet=",
    "DevicePolicy=closed",
    "DynamicUser=yes",
    "KeyringMode=private",
    "LimitCORE=0",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "NoNewPrivileges=yes",
    "PrivateDevices=yes",
    "PrivateIPC=yes",
    "PrivateMounts=yes",
    "PrivateTmp=yes",
    "PrivateUsers=yes",
    "ProcSubset=pid",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHome=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "ProtectSystem=strict",
    "RemoveIPC=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "StateDirectoryMode=0700",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged",
    "UMask=0077",
];

#[test]
fn the_example_unit_keeps_its_hardening_and_systemd_understands_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("examples/gitamp.service")).expect("the unit");
    let missing: Vec<_> = HARDENING.iter().filter(|option| !text.lines().any(|line| line == **option)).collect();
    assert!(missing.is_empty(), "examples/gitamp.service has lost {missing:?}");
    let directory = tempfile::tempdir().expect("a directory");
    let unit = directory.path().join("gitamp.service");
    // A program that is there: the unit's own is not, where it is not installed.
    std::fs::write(&unit, text.replace("/usr/local/bin/gitamp", env!("CARGO_BIN_EXE_gitamp"))).expect("a copy");
    let analyze = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).arg(&unit).output();
    match analyze(&["verify", "--man=no"]) {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let of_ours: Vec<&str> = said.lines().filter(|line| line.contains("gitamp.service")).collect();
            assert!(of_ours.is_empty(), "{of_ours:#?}");
        }
        Err(error) => return skipped(&format!("systemd-analyze: {error}")),
    }
    // In tenths; 0 is nothing to attack, 100 everything.
    let output = analyze(&["security", "--offline=true", "--threshold=20"]).expect("it was there a moment ago");
    let said = String::from_utf8_lossy(&output.stdout);
    if !said.contains("Overall exposure level") {
        return skipped(&format!("this systemd-analyze cannot judge a file: {output:?}"));
    }
    assert!(output.status.success(), "{said}");
}
