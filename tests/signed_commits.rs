//! Signed commits against the program: what is not signed by somebody who may is rejected with the reason, while the fleet stays.
//!
//! Keys are made with `ssh-keygen` and `gpg` as the tests run; where these are not installed, the tests say that they are skipped. What
//! signatures are believed is held by fixed ones as well (`src/trust/fixtures`).

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::gateways::collector;
use support::{Daemon, Repository, run, wait_for};

const GROUP: &str = "\
apiVersion: gitamp/v1
kind: Group
selector: {matchAll: true}
rollout: {stages: [{name: all, agents: 100%, soak: 0s}], bake: 0s}
";

const POLICY: &str = "\
apiVersion: gitamp/v1
kind: Fleet
signers:
  - {paths: [\"prod/**\", fleet.yaml], signers: [ann@example.com]}
";

/// True when a program is there; else it is said that a test is skipped.
fn there_is(program: &str, test: &str) -> bool {
    let mut command = Command::new(program);
    let found = command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        // Not by `eprintln!`: the test harness keeps that of a test that passes to itself.
        writeln!(std::io::stderr(), "skipped: {test}: there is no {program} here").expect("standard error is there");
    }
    found.is_ok()
}

/// People with SSH keys, in a directory of their own.
struct People {
    directory: tempfile::TempDir,
}

impl People {
    fn new(names: &[&str]) -> Self {
        let people = Self { directory: tempfile::tempdir().expect("a directory") };
        for name in names {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(people.key(name));
            let output = run(&mut command);
            assert!(output.status.success(), "{output:?}");
        }
        people
    }

    fn key(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn allowed_signers(&self) -> PathBuf {
        self.directory.path().join("allowed_signers")
    }

    fn allow(&self, names: &[&str]) {
        let line = |name: &&str| {
            let key = std::fs::read_to_string(self.key(name).with_extension("pub")).expect("a public key");
            format!("{name}@example.com namespaces=\"git\" {key}")
        };
        std::fs::write(self.allowed_signers(), names.iter().map(line).collect::<String>()).expect("writable");
    }

    /// Commits as one of them, and pushes; `None` signs nothing.
    fn commit(&self, repository: &Repository, name: Option<&str>, files: &[(&str, &str)]) -> String {
        repository.write(files);
        repository.git(&["add", "--all"]);
        let key = format!("user.signingkey={}", self.key(name.unwrap_or_default()).with_extension("pub").display());
        let message = format!("By {}", name.unwrap_or("nobody"));
        let mut arguments = vec!["-c", "gpg.format=ssh", "-c", &key, "commit", "--quiet", "-m", &message];
        arguments.extend(name.map(|_| "-S"));
        repository.git(&arguments);
        push(repository)
    }
}

fn push(repository: &Repository) -> String {
    repository.git(&["push", "--quiet", "--force", "origin", "main"]);
    repository.git(&["rev-parse", "HEAD"])
}

fn fleet() -> Repository {
    Repository::with(&[
        ("fleet.yaml", POLICY),
        ("prod/group.yaml", &GROUP.replace("{matchAll: true}", "{matchLabels: {env: prod}}")),
        ("prod/collector.yaml", &collector("basic")),
        ("test/group.yaml", &GROUP.replace("{matchAll: true}", "{matchLabels: {env: test}}")),
        ("test/collector.yaml", &collector("basic")),
    ])
}

fn wanted(daemon: &Daemon, group: &str) -> serde_json::Value {
    daemon.group(group)["wanted"].clone()
}

fn taken(daemon: &Daemon, commit: &str) {
    wait_for("the commit to be taken", || {
        let sync = daemon.status()["sync"].clone();
        let is_taken = sync["revision"] == format!("main@sha1:{commit}") && sync["stale"] == false;
        if is_taken { Ok(()) } else { Err(sync) }
    });
}

/// Waits until a commit is rejected for this reason, and status says so.
fn rejected(daemon: &Daemon, repository: &Repository, commit: &str, reason: &str) {
    let note = repository.ending(commit, "rejected");
    assert!(note.contains(reason), "`{reason}` is not in\n{note}");
    wait_for("status to say why", || {
        let sync = daemon.status()["sync"].clone();
        let says = sync["error"].as_str().is_some_and(|error| error.contains(reason)) && sync["stale"] == true;
        if says { Ok(()) } else { Err(sync) }
    });
}

#[test]
fn only_commits_of_signers_who_may_reach_the_fleet() {
    if !there_is("ssh-keygen", "only_commits_of_signers_who_may_reach_the_fleet") {
        return;
    }
    let people = People::new(&["ann", "bob", "eve"]);
    people.allow(&["ann", "bob"]);
    let repository = fleet();
    let settings = people.directory.path().join("gitamp.yaml");
    std::fs::write(&settings, "verify: {mode: all, allowedSigners: allowed_signers}\n").expect("writable");
    let settings = format!("--config={}", settings.display());
    let mut daemon = Daemon::start(&repository, &["--interval=1h", &settings]);

    // The very first commit is judged as well.
    let unsigned = repository.git(&["rev-parse", "HEAD"]);
    rejected(&daemon, &repository, &unsigned, &format!("commit {} is not signed", &unsigned[..7]));
    let first = people.commit(&repository, Some("ann"), &[("test/collector.yaml", &collector("normal"))]);
    taken(&daemon, &first);
    assert!(daemon.process().log().contains("only the head was verified"), "the first start says what it did not see");
    let (prod, test) = (wanted(&daemon, "prod"), wanted(&daemon, "test"));
    assert!(prod.is_string() && test.is_string(), "{prod} {test}");

    // Nobody, a stranger, and somebody without the right for production.
    let by_nobody = people.commit(&repository, None, &[("test/collector.yaml", &collector("detailed"))]);
    rejected(&daemon, &repository, &by_nobody, "is not signed");
    let on_top = people.commit(&repository, Some("ann"), &[("README.md", "signed\n")]);
    rejected(&daemon, &repository, &on_top, &format!("commit {} is not signed", &by_nobody[..7]));
    repository.git(&["reset", "--quiet", "--hard", &first]);
    let by_eve = people.commit(&repository, Some("eve"), &[("test/collector.yaml", &collector("detailed"))]);
    rejected(&daemon, &repository, &by_eve, "which is not among the allowed ones");
    repository.git(&["reset", "--quiet", "--hard", &first]);
    let by_bob = people.commit(&repository, Some("bob"), &[("prod/collector.yaml", &collector("detailed"))]);
    let reason = "changes `prod/collector.yaml` and is signed by bob@example.com";
    rejected(&daemon, &repository, &by_bob, reason);
    assert_eq!((wanted(&daemon, "prod"), wanted(&daemon, "test")), (prod.clone(), test.clone()), "the fleet stays");

    // Nor by giving himself the right on the way.
    repository.git(&["reset", "--quiet", "--hard", &first]);
    people.commit(&repository, Some("bob"), &[("fleet.yaml", &POLICY.replace("ann@", "bob@"))]);
    let granted = people.commit(&repository, Some("bob"), &[("prod/collector.yaml", &collector("detailed"))]);
    rejected(&daemon, &repository, &granted, "and is signed by bob@example.com");

    // Where he may, he may; and who may merges what he did.
    repository.git(&["reset", "--quiet", "--hard", &first]);
    let good = people.commit(&repository, Some("bob"), &[("test/collector.yaml", &collector("detailed"))]);
    taken(&daemon, &good);
    assert_ne!(wanted(&daemon, "test"), test);
    assert_eq!(wanted(&daemon, "prod"), prod);
    let better = people.commit(&repository, Some("ann"), &[("prod/collector.yaml", &collector("detailed"))]);
    taken(&daemon, &better);
    assert_ne!(wanted(&daemon, "prod"), prod);

    // Whoever is allowed later is judged again, without a new commit; and nothing that was accepted is judged twice.
    let by_eve = people.commit(&repository, Some("eve"), &[("test/collector.yaml", &collector("basic"))]);
    rejected(&daemon, &repository, &by_eve, "which is not among the allowed ones");
    people.allow(&["ann", "bob", "eve"]);
    daemon.ask(&["sync"]);
    taken(&daemon, &by_eve);
    people.allow(&["bob"]);
    // In good order: what was accepted a moment ago is stored then.
    let process = daemon.take();
    process.signal("TERM");
    assert!(process.ended().success());
    daemon.restart();
    taken(&daemon, &by_eve);
}

#[test]
fn rules_hold_without_verification_and_openpgp_is_believed() {
    if !there_is("gpg", "rules_hold_without_verification_and_openpgp_is_believed") {
        return;
    }
    let home = tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").expect("a short path, for the agent's socket");
    let gpg = |arguments: &[&str]| {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(home.path()).args(["--batch", "--quiet", "--no-tty"]).args(arguments);
        let output = run(&mut command);
        assert!(output.status.success(), "gpg {arguments:?}: {output:?}");
        output.stdout
    };
    let _made = gpg(&["--passphrase", "", "--quick-gen-key", "Ann <ann@example.com>", "ed25519", "sign", "never"]);
    let keyring = home.path().join("keyring.asc");
    std::fs::write(&keyring, gpg(&["--armor", "--export", "ann@example.com"])).expect("writable");
    let program = home.path().join("gpg.sh");
    let script = format!("#!/bin/sh\nexec gpg --homedir '{}' --batch --no-tty \"$@\"\n", home.path().display());
    std::fs::write(&program, script).expect("writable");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");

    // Rules in the fleet's policy, and a daemon that verifies nothing: what they protect cannot be changed.
    let repository = fleet();
    let daemon = Daemon::start(&repository, &["--interval=1h"]);
    let first = repository.git(&["rev-parse", "HEAD"]);
    taken(&daemon, &first);
    let free = repository.commit("Elsewhere", &[("test/collector.yaml", &collector("normal"))]);
    taken(&daemon, &free);
    let signed = |files: &[(&str, &str)]| {
        repository.write(files);
        repository.git(&["add", "--all"]);
        let program = format!("gpg.program={}", program.display());
        repository.git(&[
            "-c",
            &program,
            "-c",
            "user.signingkey=ann@example.com",
            "commit",
            "-q",
            "-S",
            "-m",
            "By Ann",
        ]);
        push(&repository)
    };
    let commit = signed(&[("prod/collector.yaml", &collector("detailed"))]);
    rejected(&daemon, &repository, &commit, "is not verified (--verify-mode is off)");

    // The same commit, once somebody looks at signatures.
    drop(daemon);
    let verify = ["--interval=1h", "--verify-mode=head", "--verify-keyring"];
    let with_keys = [&verify[..], &[keyring.to_str().expect("UTF-8")]].concat();
    let daemon = Daemon::start(&repository, &with_keys);
    taken(&daemon, &commit);
    let unsigned = repository.commit("Unsigned", &[("test/collector.yaml", &collector("basic"))]);
    rejected(&daemon, &repository, &unsigned, "is not signed");
    stop_agent(home.path());
}

/// `gpg` leaves an agent behind, of this home only.
fn stop_agent(home: &Path) {
    let _gone = run(Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "gpg-agent"]));
}
