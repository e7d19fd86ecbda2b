//! Starts and commands that fail: nothing secret in their words, and no file that is not kept well is used.

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use sha2::{Digest, Sha256};
use support::gateways::{AT_ONCE, gateways};
use support::http_remote::HttpRemote;
use support::issuer::Issuer;
use support::secrets::{Search, Secrets};
use support::{Daemon, Process, gitamp, run, wait_for, write_secret};

/// How a process ended that must end by itself, and everything it said.
fn ended(command: &mut Command, log: &Path) -> (ExitStatus, String) {
    std::fs::write(log, "").expect("an empty log");
    let status = Process::start(command, log).ended();
    (status, std::fs::read_to_string(log).expect("its log"))
}

/// What is wrong with a start: flags, variables, and a settings file.
struct Wrong {
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    settings: String,
}

impl Wrong {
    fn flags<const N: usize>(flags: [(&str, &str); N]) -> Self {
        let flags = flags.map(|(name, value)| format!("--{name}={value}")).to_vec();
        Self { flags, variables: Vec::new(), settings: String::new() }
    }

    fn variable(name: &str, value: &str) -> Self {
        Self { flags: Vec::new(), variables: vec![(name.to_owned(), value.to_owned())], settings: String::new() }
    }

    fn settings(text: impl Into<String>) -> Self {
        Self { flags: Vec::new(), variables: Vec::new(), settings: text.into() }
    }

    fn with_repository(mut self) -> Self {
        self.flags.push("--repo=/srv/none".to_owned());
        self
    }
}

/// Every way to start with this secret in a wrong place; `readable` is a file with it that everybody may read, `kept` one that is not.
fn wrong_starts(secret: &str, readable: &str, kept: &str) -> Vec<Wrong> {
    let url = format!("https://ada:{secret}@git.example.com/fleet.git");
    let mut cases = vec![
        Wrong::flags([("repo", &url)]),
        Wrong::flags([("repo", &format!("https://{secret}@git.example.com/fleet.git"))]),
        Wrong::flags([("repo", &format!("ssh://git:{secret}@git.example.com/fleet.git"))]),
        Wrong::flags([("repo", &format!("ada:{secret}@git.example.com:fleet.git"))]),
        Wrong::variable("GITAMP_REPO", &url),
        Wrong::settings(format!("repo: {url}\n")),
        Wrong::settings(format!("repo: [{url}]\n")),
        // The file of a secret, where that of the settings was asked for.
        Wrong::settings(format!("{secret}\n")),
        Wrong::settings(format!("repo: /srv/none\nverify: {secret}\nalerts: {secret}\n")),
        Wrong::settings(format!("verify: {{mode: head, password: {secret}}}\n")).with_repository(),
        Wrong::settings(format!("repo: /srv/none\n  git-token: {secret}\n")),
    ];
    for (name, value) in [
        ("journal-repo", url.as_str()),
        ("forge-status-url", &format!("https://ada:{secret}@grafana.example.com/{{commit}}")),
        ("forge-api", &format!("https://ada:{secret}@git.example.com/api")),
        ("git-token", secret),
    ] {
        cases.push(Wrong::flags([(name, value)]).with_repository());
    }
    // Behind the flag, with a space where nothing belongs.
    cases.push(Wrong { flags: vec![secret.to_owned()], ..Wrong::settings("") }.with_repository());
    for key in ["git-token", "hook-secret", "password"] {
        cases.push(Wrong::settings(format!("{key}: {secret}\n")).with_repository());
    }
    for name in [
        "git-token-file",
        "hook-secret-file",
        "journal-key-file",
        "journal-token-file",
        "forge-token-file",
        "ssh-key-file",
        "journal-ssh-key-file",
        "forge-app-key-file",
        "tls-key-file",
        "api-key-file",
    ] {
        cases.push(Wrong::flags([(name, readable)]).with_repository());
        // The secret itself, where its file was asked for.
        cases.push(Wrong::settings(format!("{name}: {secret}\n")).with_repository());
        let variable = format!("GITAMP_{}", name.replace('-', "_").to_uppercase());
        cases.push(Wrong::variable(&variable, secret).with_repository());
    }
    // The token itself, in the file that holds the hashes of such.
    for name in ["agent-token-file", "agent-issuers-file"] {
        cases.push(Wrong::flags([(name, kept)]).with_repository());
    }
    for name in ["agent-token-file", "agent-issuers-file", "api-token-file", "tls-cert-file", "verify-keyring"] {
        cases.push(Wrong::settings(format!("{name}: {secret}\n")).with_repository());
    }
    let chat = format!("https://ada:{secret}@hooks.example.com/x");
    for receiver in [
        format!("type: webhook, url: '{chat}'"),
        format!("type: slack, url: 'https://hooks.example.com/{secret}'"),
        format!("type: slack, urlFile: '{secret}'"),
        format!("type: slack, urlFile: '{readable}'"),
        format!("type: webhook, url: 'https://x.example', secretFile: '{secret}'"),
        format!("type: webhook, url: 'https://x.example', secretFile: '{readable}'"),
        format!("type: webhook, url: 'https://x.example', tokenFile: '{readable}'"),
        format!("type: webhook, url: 'https://x.example', tokenFile: '{secret}'"),
        format!("type: webhook, url: 'https://x.example', caFile: '{secret}'"),
        format!("type: webhook, url: 'https://x.example', token: '{secret}'"),
    ] {
        let text = format!("alerts:\n  receivers: [{{name: ops, {receiver}}}]\n");
        cases.push(Wrong::settings(text).with_repository());
    }
    cases
}

#[test]
fn a_start_that_fails_repeats_no_secret() {
    let mut secrets = Secrets::default();
    let directory = tempfile::tempdir().expect("a directory");
    let secret = secrets.make("the settings");
    let url = format!("https://ada:{secret}@git.example.com/fleet.git");
    let [state, file, log] = ["state", "gitamp.yaml", "log"].map(|name| directory.path().join(name));
    let readable = directory.path().join("readable");
    std::fs::write(&readable, &secret).expect("a file that everybody may read");
    let kept = directory.path().join("kept");
    write_secret(&kept, &format!("{secret}\n"));
    let mut search = Search::new(&secrets);
    let wrong = wrong_starts(&secret, &readable.display().to_string(), &kept.display().to_string());
    for Wrong { flags, variables, settings } in wrong {
        std::fs::write(&file, &settings).expect("a settings file");
        let mut command = gitamp(["serve"]);
        command
            .args(&flags)
            .arg(format!("--config={}", file.display()))
            .arg(format!("--state-dir={}", state.display()));
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let (status, said) = ended(&mut command, &log);
        assert_eq!(status.code(), Some(2), "{flags:?} {variables:?} {settings}: {said}");
        assert!(!said.is_empty(), "{flags:?}: it says why");
        search.look(&format!("{flags:?} {settings}"), said);
    }
    for arguments in [
        vec!["notes".to_owned(), format!("--repo={url}")],
        vec!["notes".to_owned(), format!("--repo={}", directory.path().display()), format!("--journal-repo={url}")],
        vec!["notes".to_owned(), format!("--journal-key-file={}", readable.display())],
        vec!["notes".to_owned(), format!("--journal-key-file={secret}")],
        vec!["status".to_owned(), "--server=https://x.example".to_owned(), format!("--token-file={secret}")],
        vec!["status".to_owned(), format!("--server=https://ada:{secret}@x.example"), "--token-file=none".to_owned()],
        vec!["simulate".to_owned(), "--agents=1".to_owned(), format!("--token-file={secret}")],
        vec![secret.clone()],
        vec!["status".to_owned(), secret.clone()],
        vec!["status".to_owned(), "--token".to_owned(), secret.clone()],
        vec!["token".to_owned(), "list".to_owned(), format!("--file={}", kept.display())],
        vec!["token".to_owned(), "revoke".to_owned(), "ann".to_owned(), format!("--file={}", kept.display())],
        vec!["alerts".to_owned(), "test".to_owned(), format!("--config={}", kept.display())],
    ] {
        let (status, said) = ended(&mut gitamp(&arguments), &log);
        assert_eq!(status.code(), Some(2), "{arguments:?}: {said}");
        search.look(&format!("{arguments:?}"), said);
    }
    search.clean(55);
}

#[test]
fn a_file_that_everybody_may_read_is_refused_when_it_is_used_as_well() {
    let repository = gateways(AT_ONCE);
    let remote = HttpRemote::serve(&repository.remote());
    remote.ask_for("hunter2");
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    write_secret(&token, "hunter2");
    let daemon = Daemon::start_on(&remote.url(), &["--interval=1h", &format!("--git-token-file={}", token.display())]);
    let chmod = |mode| std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).expect("ours");
    chmod(0o644);
    run(&mut daemon.command(&["sync"]));
    let error = daemon.status()["sync"]["error"].to_string();
    assert!(error.contains(&format!("chmod 600 {}", token.display())), "{error}");
    chmod(0o640);
    daemon.ask(&["sync"]);
    assert!(daemon.status()["sync"]["error"].is_null());
}

#[test]
fn a_state_directory_that_is_open_to_everybody_is_warned_of_and_a_new_one_is_not() {
    let repository = gateways(AT_ONCE);
    for (mode, words) in [
        (None, None),
        (Some(0o755), Some("can be read by every user")),
        (Some(0o777), Some("can be changed by every user")),
    ] {
        let mut daemon = Daemon::prepared_on(&repository.remote().display().to_string(), &[]);
        if let Some(mode) = mode {
            std::fs::create_dir_all(daemon.state()).expect("a directory");
            std::fs::set_permissions(daemon.state(), std::fs::Permissions::from_mode(mode)).expect("ours");
        }
        daemon.restart();
        wait_for("the warning that is due, and no other", || {
            let log = daemon.process().log();
            let warned = log.lines().find(|line| line.contains("of this machine"));
            let is_it = |line: &str| words.is_some_and(|words| line.contains(words)) && line.contains("chmod 700");
            if warned.map(is_it) == words.map(|_| true) { Ok(()) } else { Err(log.clone()) }
        });
        let found = std::fs::metadata(daemon.state()).expect("a directory").permissions().mode() & 0o777;
        assert_eq!(found, mode.unwrap_or(0o700), "nobody's decision is changed");
    }
}

/// Flags of `gitamp serve` whose file holds a secret.
const SECRETS: [&str; 10] = [
    "api-key-file",
    "forge-app-key-file",
    "forge-token-file",
    "git-token-file",
    "hook-secret-file",
    "journal-key-file",
    "journal-ssh-key-file",
    "journal-token-file",
    "ssh-key-file",
    "tls-key-file",
];

/// Those whose file says who is let in, or what this machine shows of itself: anybody may read it, and nobody else may write it.
const DOORS: [&str; 10] = [
    "agent-issuers-file",
    "agent-token-file",
    "api-cert-file",
    "api-issuers-file",
    "api-token-file",
    "tls-cert-file",
    "tls-client-ca-file",
    "tls-client-crl-file",
    "verify-allowed-signers",
    "verify-keyring",
];

/// Those whose file says whom we speak with.
const KNOWN: [&str; 3] = ["forge-ca-file", "journal-known-hosts-file", "known-hosts-file"];

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
}

/// A start with these flags, which must fail; what it said.
fn refused(flags: &[String], directory: &Path) -> String {
    let mut command = gitamp(["serve", "--repo=/srv/none", "--listen=127.0.0.1:0", "--admin-listen=off"]);
    command.arg(format!("--state-dir={}", directory.join("state").display())).args(flags);
    let (status, said) = ended(&mut command, &directory.join("log"));
    assert_eq!(status.code(), Some(2), "{flags:?}: {said}");
    said
}

/// Whoever adds a setting that names a file has to say here what others may do with it.
#[test]
fn every_setting_that_names_a_file_is_known_here() {
    let help = run(&mut gitamp(["serve", "--help"])).stdout;
    let help = String::from_utf8_lossy(&help).into_owned();
    let flags = help.lines().filter_map(|line| line.trim().strip_prefix("--")?.split([' ', '[']).next());
    let is_file = |flag: &&str| flag.ends_with("-file") || flag.ends_with("-signers") || flag.ends_with("-keyring");
    let found: BTreeSet<&str> = flags.filter(is_file).collect();
    let known: BTreeSet<&str> = SECRETS.into_iter().chain(DOORS).chain(KNOWN).collect();
    assert_eq!(found, known);
}

#[test]
fn a_file_with_a_secret_that_others_may_read_or_write_is_refused_wherever_it_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("secret");
    write_secret(&file, "hunter2-hunter2-hunter2-hunter2-hunter2");
    let remedy = format!("chmod 600 {}", file.display());
    for flag in SECRETS {
        // With a setting that cannot be, so that nothing starts where the file is fine.
        let flags = ["--interval=never".to_owned(), format!("--{flag}={}", file.display())];
        for (mode, is_refused) in
            [(0o600, false), (0o440, false), (0o640, false), (0o604, true), (0o602, true), (0o644, true), (0o666, true)]
        {
            chmod(&file, mode);
            let said = refused(&flags, directory.path());
            let is_told = said.lines().any(|line| line.contains(&format!("--{flag}")) && line.contains(&remedy));
            assert_eq!(is_told, is_refused, "{flag} {mode:o}: {said}");
            assert!(!said.contains("hunter2") && said.contains("--interval"), "{said}");
        }
    }
    chmod(&file, 0o644);
    for key in ["urlFile", "secretFile", "tokenFile"] {
        let url = if key == "urlFile" { String::new() } else { "url: 'https://x.example', ".to_owned() };
        let kind = if key == "tokenFile" { "alertmanager" } else { "webhook" };
        let settings = directory.path().join("gitamp.yaml");
        let receiver = format!("{{name: ops, type: {kind}, {url}{key}: '{}'}}", file.display());
        std::fs::write(&settings, format!("alerts:\n  receivers: [{receiver}]\n")).expect("settings");
        let said = refused(&[format!("--config={}", settings.display())], directory.path());
        assert!(said.contains(&remedy) && !said.contains("hunter2"), "{key}: {said}");
        let (status, said) = ended(
            gitamp(["alerts", "test"]).arg(format!("--config={}", settings.display())),
            &directory.path().join("log"),
        );
        assert!(!status.success() && said.contains(&remedy) && !said.contains("hunter2"), "{key}: {said}");
    }
    let of_client = |command: &str, more: &str, flag: &str| {
        let words = command.split(' ').chain(more.split(' ').filter(|word| !word.is_empty()));
        let mut command = gitamp(words);
        command.arg(format!("--{flag}={}", file.display()));
        ended(&mut command, &directory.path().join("log"))
    };
    for (command, more, flag) in [
        ("status", "--server=https://127.0.0.1:9", "token-file"),
        ("pause a", "--yes --reason x --server=https://127.0.0.1:9", "token-file"),
        ("simulate", "--agents=1", "token-file"),
        ("notes", "--repo=https://127.0.0.1:9/x.git", "git-token-file"),
        ("notes", "--repo=https://127.0.0.1:9/x.git", "journal-key-file"),
    ] {
        let (status, said) = of_client(command, more, flag);
        assert!(!status.success() && said.contains(&remedy), "{command} --{flag}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_file_that_says_who_is_let_in_is_refused_when_others_may_write_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let copy = |from: &str, to: &str| write_secret(&path(to), &std::fs::read_to_string(fixture(from)).expect(from));
    for (from, to) in [
        ("tests/tls/server.pem", "cert"),
        ("tests/tls/server-key.pem", "key"),
        ("tests/tls/ca.pem", "ca"),
        ("tests/tls/empty.crl", "crl"),
        ("src/trust/fixtures/allowed_signers", "signers"),
        ("src/trust/fixtures/keyring.asc", "keyring"),
    ] {
        copy(from, to);
    }
    let hash = hex::encode(Sha256::digest("a token"));
    write_secret(&path("agents"), &format!("tokens: [{{name: a, sha256: {hash}, labels: {{env: prod}}}}]\n"));
    write_secret(&path("operators"), &format!("tokens: [{{name: a, sha256: {hash}, labels: {{role: view}}}}]\n"));
    write_secret(&path("keys.json"), &Issuer::new().jwks());
    let issuer = "issuer: https://a.example, audience: b, jwksFile: keys.json";
    write_secret(&path("agent-issuers"), &format!("issuers: [{{{issuer}, labels: {{team: team}}}}]\n"));
    let rule = "name: sub, roles: [{role: view, claims: {team: a}}]";
    write_secret(&path("operator-issuers"), &format!("issuers: [{{{issuer}, {rule}}}]\n"));
    let named = |flag: &str, name: &str| format!("--{flag}={}", path(name).display());
    let tls = || vec![named("tls-cert-file", "cert"), named("tls-key-file", "key")];
    let tls_api = || vec!["--api-listen=127.0.0.1:0".to_owned()];
    let api = || [tls_api(), vec!["--api-plain".to_owned()]].concat();
    let with = |mut flags: Vec<String>, more: &[(&str, &str)]| {
        flags.extend(more.iter().map(|(flag, name)| named(flag, name)));
        flags
    };
    let mut tried = BTreeSet::new();
    for (flag, file, flags) in [
        ("tls-cert-file", "cert", tls()),
        ("tls-client-ca-file", "ca", with(tls(), &[("tls-client-ca-file", "ca")])),
        ("tls-client-crl-file", "crl", with(tls(), &[("tls-client-ca-file", "ca"), ("tls-client-crl-file", "crl")])),
        ("agent-token-file", "agents", with(Vec::new(), &[("agent-token-file", "agents")])),
        ("agent-issuers-file", "agent-issuers", with(Vec::new(), &[("agent-issuers-file", "agent-issuers")])),
        ("agent-issuers-file", "keys.json", with(Vec::new(), &[("agent-issuers-file", "agent-issuers")])),
        ("api-token-file", "operators", with(api(), &[("api-token-file", "operators")])),
        ("api-issuers-file", "operator-issuers", with(api(), &[("api-issuers-file", "operator-issuers")])),
        (
            "api-cert-file",
            "cert",
            with(tls_api(), &[("api-token-file", "operators"), ("api-cert-file", "cert"), ("api-key-file", "key")]),
        ),
    ] {
        tried.insert(flag);
        chmod(&path(file), 0o606);
        let said = refused(&flags, directory.path());
        assert!(said.contains("chmod o-w") && said.contains(&path(file).display().to_string()), "{flag}: {said}");
        chmod(&path(file), 0o644);
    }
    // What counts as a signature is looked up when there is something to judge.
    let repository = gateways(AT_ONCE);
    for (flag, file) in [("verify-allowed-signers", "signers"), ("verify-keyring", "keyring")] {
        tried.insert(flag);
        chmod(&path(file), 0o606);
        let flags = ["--verify-mode=head".to_owned(), named(flag, file)];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut daemon = Daemon::prepared_on(&repository.remote().display().to_string(), &flags);
        daemon.spawn();
        wait_for("the file to be refused", || {
            let error = daemon.status()["sync"]["error"].to_string();
            if error.contains("chmod o-w") { Ok(()) } else { Err(daemon.status()) }
        });
    }
    assert_eq!(tried, BTreeSet::from(DOORS), "each of them is tried");
}

/// Help, pages and completions are made beside the daemon, in its environment, and are shown to others.
#[test]
fn nothing_that_describes_the_program_shows_what_its_environment_holds() {
    let mut secrets = Secrets::default();
    let secret = secrets.make("the environment");
    let help = run(&mut gitamp(["serve", "--help"])).stdout;
    let help = String::from_utf8_lossy(&help).into_owned();
    let settings: Vec<String> = help
        .lines()
        .filter_map(|line| line.trim().strip_prefix("--")?.split([' ', '[']).next())
        .map(|flag| format!("GITAMP_{}", flag.replace('-', "_").to_uppercase()))
        .collect();
    assert!(settings.len() > 60, "{settings:?}");
    let whole = String::from_utf8_lossy(&run(&mut gitamp(["help"])).stdout).into_owned();
    let listed = whole.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = listed
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|one| *one != "help")
        .collect();
    assert!(commands.len() > 20 && commands.contains(&"notes"), "{commands:?}");
    let pages = tempfile::tempdir().expect("a directory");
    let mut lines: Vec<Vec<String>> = commands.iter().map(|one| vec![(*one).to_owned(), "--help".to_owned()]).collect();
    lines.extend(
        ["-h", "man", "completions bash", "schema settings"].map(|line| line.split(' ').map(str::to_owned).collect()),
    );
    lines.push(vec!["man".to_owned(), format!("--directory={}", pages.path().display())]);
    let mut search = Search::new(&secrets);
    for line in &lines {
        let mut command = gitamp(line);
        command.envs(settings.iter().map(|name| (name, format!("https://ada:{secret}@git.example.com/x"))));
        let output = search.command(&mut command);
        assert!(output.status.success(), "{line:?}: {output:?}");
    }
    search.directory(pages.path());
    search.clean(60);
}
