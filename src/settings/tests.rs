//! Tables of what settings come out of flags, environment and file, and of what is refused with which words.

use super::*;
use crate::settings::layers::Text;

/// Writes a file for its owner alone, as files with secrets have to be.
fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).expect("writing");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
}

struct Case {
    directory: tempfile::TempDir,
    args: ServeArgs,
    environment: Environment,
}

impl Case {
    /// A repository by flag, a home directory, no file.
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = directory.path().to_str().expect("UTF-8").to_owned();
        let environment = Environment {
            variables: BTreeMap::from([("HOME".to_owned(), home)]),
            system_file: directory.path().join("none.yaml"),
        };
        let args = ServeArgs { repo: Some(Text("/srv/fleet.git".to_owned())), ..ServeArgs::default() };
        Self { directory, args, environment }
    }

    fn file(mut self, content: &str) -> Self {
        let path = self.directory.path().join("gitamp.yaml");
        std::fs::write(&path, content).expect("writing the settings file");
        self.args.config = Some(path);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flags(mut self, flags: &[&str]) -> Self {
        use clap::FromArgMatches;
        let command = <ServeArgs as clap::Args>::augment_args(clap::Command::new("serve").no_binary_name(true));
        let config = self.args.config.take();
        let matches = command.try_get_matches_from(flags).expect("flags that clap takes");
        self.args = ServeArgs::from_arg_matches(&matches).expect("flags that fit");
        self.args.config = config;
        self
    }

    fn load(&self) -> Result<Settings, SettingsError> {
        let (given, warnings) = gather(&self.args, &self.environment)?;
        check::check(&given, &self.environment, warnings)
    }

    fn good(&self) -> Settings {
        self.load().unwrap_or_else(|error| panic!("{error}"))
    }

    fn error(&self) -> String {
        self.load().expect_err("must be refused").to_string()
    }
}

#[test]
fn one_origin_never_has_more_than_a_quarter_of_the_room() {
    let in_flight = |flags: &[&str]| Case::new().flags(&[&["--repo=/srv/x"], flags].concat()).good().limits.in_flight;
    assert_eq!(in_flight(&[]), 64 << 20);
    assert_eq!(in_flight(&["--max-message-size=16MiB"]), 64 << 20);
    assert_eq!(in_flight(&["--max-message-size=32MiB"]), 128 << 20, "four of the largest");
    assert_eq!(in_flight(&["--max-bytes-in-flight=4MiB"]), 4 << 20);
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let file = "interval: 3m\ninstance: from-file\nlisten: 127.0.0.1:1\n";
    let case = Case::new().file(file).variable("GITAMP_INTERVAL", "2m").variable("GITAMP_INSTANCE", "from-environment");
    let case = case.flags(&["--repo", "/srv/x", "--interval", "1m"]);
    let settings = case.good();
    assert_eq!(settings.interval, Duration::from_secs(60), "the flag");
    assert_eq!(settings.instance, "from-environment", "the variable");
    assert_eq!(settings.listen.port(), 1, "the file");
    assert_eq!(settings.forget_after, Duration::from_secs(3600), "the default");
    assert_eq!(settings.warnings, Vec::<String>::new());

    let named = Case::new().file("instance: one\n");
    let by_variable =
        Case::new().variable("GITAMP_CONFIG", named.args.config.as_ref().expect("a file").to_str().expect("UTF-8"));
    assert_eq!(by_variable.good().instance, "one", "GITAMP_CONFIG names the file");
    let mut system = Case::new();
    system.environment.system_file = named.args.config.clone().expect("a file");
    assert_eq!(system.good().instance, "one", "the system's file is taken when none is named");
}

#[test]
fn signed_commits_are_set_up_by_one_mapping_or_by_three_keys() {
    let case = Case::new();
    let keys = case.directory.path().join("signers");
    std::fs::write(&keys, "").expect("writing");
    let wanted = |mode| Some(VerifySettings { mode, allowed_signers: Some(keys.clone()), keyring: None });
    let case = case.file("verify: {mode: all, allowedSigners: signers}\n");
    assert_eq!(case.good().verify, wanted(VerifyMode::All), "a relative path is taken from the file's directory");
    let case = case.variable("GITAMP_VERIFY_MODE", "head");
    assert_eq!(case.good().verify, wanted(VerifyMode::Head), "a variable wins over the mapping");
    let case = case.file("verify-mode: head\nverify-allowed-signers: signers\n");
    assert_eq!(case.good().verify, wanted(VerifyMode::Head));
    let case = case.variable("GITAMP_VERIFY_MODE", "off");
    assert_eq!(case.good().verify, None, "switched off for once");
    let twice = Case::new().file("verify: {mode: all}\nverify-mode: head\n");
    assert!(twice.error().contains("`verify-mode` and `verify` say the same"), "{}", twice.error());
    let unknown = Case::new().file("verify: {signers: x}\n");
    assert!(unknown.error().contains("unknown field `signers`"), "{}", unknown.error());
}

#[test]
fn a_stronger_source_replaces_the_choice_of_branch_or_tag() {
    let branch = |name: &str| Reference::Branch(name.to_owned());
    let tags = |pattern: &str| Reference::TagPattern(pattern.to_owned());
    for (file, flags, wanted) in [
        ("", &[][..], Reference::Default),
        ("branch: main\n", &[], branch("main")),
        ("branch: prod\n", &[], branch("prod")),
        ("branch: prod\n", &["--tag", "v*"], tags("v*")),
        ("tag: v*\n", &["--branch", "refs/heads/feature/x"], branch("feature/x")),
        ("tag: refs/tags/v[0-9]*\n", &[], tags("v[0-9]*")),
    ] {
        let flags: Vec<_> = ["--repo", "/srv/x"].iter().chain(flags).copied().collect();
        assert_eq!(Case::new().file(file).flags(&flags).good().reference, wanted, "{file:?} {flags:?}");
    }
    let both = Case::new().flags(&["--repo", "/srv/x", "--branch", "main", "--tag", "v*"]);
    assert!(both.error().contains("--tag: a branch is named as well"), "{}", both.error());
}

#[test]
fn an_open_listener_needs_protection_or_a_word() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new();
    let key = case.directory.path().join("key.pem");
    std::fs::write(&key, "hunter2").expect("writing");
    let mode = |mode| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).expect("chmod");
    let pair = ["--tls-cert-file=Cargo.toml".to_owned(), format!("--tls-key-file={}", key.display())];
    let with = |more: &[&str]| {
        let pair = pair.iter().map(String::as_str);
        let flags: Vec<&str> =
            ["--repo=/srv/x", "--listen=0.0.0.0:4320"].into_iter().chain(pair).chain(more.iter().copied()).collect();
        Case::new().flags(&flags)
    };
    mode(0o644);
    let error = with(&[]).error();
    assert!(error.contains("--tls-key-file: ") && error.contains("chmod 600"), "{error}");
    mode(0o640);
    let warnings = with(&[]).good().warnings.join("\n");
    assert!(warnings.contains("asks nobody who they are"), "{warnings}");
    assert_eq!(with(&["--tls-client-ca-file=Cargo.toml"]).good().warnings, Vec::<String>::new());
    let local = Case::new().flags(&["--repo=/srv/x"]).good();
    assert_eq!((local.warnings, local.tls, local.insecure), (Vec::new(), None, false), "loopback needs nothing");
    assert_eq!(local.alarm, None);
}

#[test]
fn operators_are_not_served_unprotected() {
    let case = Case::new();
    let file = case.directory.path().join("secret.pem");
    std::fs::write(&file, "hunter2").expect("writing");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    let flag = |name: &str| format!("--{name}={}", file.display());
    let (tokens, certificate, key) = (flag("api-token-file"), flag("api-cert-file"), flag("api-key-file"));
    let (agents, agents_key) = (flag("tls-cert-file"), flag("tls-key-file"));
    let with = |flags: &[&str]| Case::new().flags(&[&["--repo=/srv/x"], flags].concat());
    let (listen, local) = ("--api-listen=0.0.0.0:4322", "--api-listen=127.0.0.1:4322");
    for (flags, words) in [
        (vec![listen, &certificate, &key], "--api-listen: nobody is known there"),
        (vec![listen, &tokens], "--api-listen: tokens are sent there, which TLS has to protect"),
        (vec![local, &tokens], "say --api-plain if a proxy"),
        (vec![listen, &tokens, "--api-plain"], "--api-plain: 0.0.0.0:4322 can be reached"),
        (vec![listen, &tokens, "--api-plain", "--insecure"], "--api-plain: 0.0.0.0:4322 can be reached"),
        (vec![local, &tokens, &certificate], "--api-cert-file: needs its private key"),
        (vec![local, &tokens, &key], "--api-key-file: needs its certificate"),
        (vec!["--api-listen=127.0.0.1:4321", &tokens, "--api-plain"], "the same address as --admin-listen"),
        (
            vec![local, &tokens, "--api-plain", &flag("agent-token-file")],
            "--api-token-file: is the agents' file as well",
        ),
        (
            vec![local, &flag("api-issuers-file"), "--api-plain", &flag("agent-issuers-file")],
            "--api-issuers-file: is the agents' file as well",
        ),
        (vec![local, &tokens, "--api-plain", "--no-self-approval", "--depth=1"], "--no-self-approval: who wrote what"),
    ] {
        let error = with(&flags).error();
        assert!(error.contains(words), "{flags:?}: {error}");
    }
    let shared =
        with(&[listen, &tokens, &agents, &agents_key, &flag("tls-client-ca-file")]).good().api.expect("an API");
    assert!(
        shared.tls.is_some_and(|tls| tls.certificate == file && tls.client_ca.is_none()),
        "the agents' certificate"
    );
    assert!(shared.self_approval);
    let plain = with(&[local, &tokens, "--api-plain", "--no-self-approval"]).good().api.expect("an API");
    assert_eq!((plain.tls, plain.self_approval), (None, false));
    let proofs = with(&[local, &flag("api-issuers-file"), "--api-plain"]).good().api.expect("an API").proofs;
    assert_eq!((proofs.tokens, proofs.issuers), (None, Some(file.clone())), "issuers are enough");
    let idle = with(&["--no-self-approval"]).good();
    assert_eq!(idle.api, None);
    assert!(idle.warnings.join("").contains("means nothing without --api-listen"), "{:?}", idle.warnings);
    let variables =
        Case::new().flags(&["--repo=/srv/x"]).variable("GITAMP_SERVER", "https://x").variable("GITAMP_TOKEN_FILE", "x");
    assert_eq!(variables.good().warnings, Vec::<String>::new(), "they are meant for commands");
}

/// A value for each setting that is not its default; secrets stand in these files.
fn example<'a>(key: &str, secret: &'a str, journal_key: &'a str) -> &'a str {
    match key {
        "repo" | "journal-repo" => "https://git.example.com/fleet",
        "journal-key-file" => journal_key,
        "journal-adopt" => "0123456789abcdef0123456789abcdef01234567",
        "branch" => "prod",
        "tag" => "v*",
        "depth" => "1",
        "path" => "fleet/root",
        "interval"
        | "git-connect-timeout"
        | "git-silence-timeout"
        | "git-timeout"
        | "forget-after"
        | "heartbeat-interval"
        | "handshake-timeout" => "77s",
        "instance" | "git-user" | "journal-user" | "forge-user" => "blue",
        "observe"
        | "no-push"
        | "insecure"
        | "api-plain"
        | "no-self-approval"
        | "forge-comment"
        | "revert-pull-request" => "true",
        "ssh-agent" | "forge-statuses" => "false",
        "git-token-file"
        | "ssh-key-file"
        | "known-hosts-file"
        | "hook-secret-file"
        | "journal-token-file"
        | "journal-ssh-key-file"
        | "journal-known-hosts-file" => secret,
        "interval-with-hooks" => "7m",
        "forge-token-file" | "forge-app-key-file" | "forge-ca-file" => secret,
        "forge" => "gitlab",
        "forge-api" => "https://git.example.com/api/v3",
        "forge-project" => "other/fleet",
        "forge-app-id" | "forge-app-installation" => "77",
        "forge-status-url" => "https://ops.example.com/{commit}",
        "verify-mode" => "all",
        "verify-allowed-signers" | "verify-keyring" => secret,
        "listen" | "hooks-listen" | "admin-listen" | "api-listen" => "127.0.0.1:7777",
        "opamp-path" => "/opamp",
        "api-token-file" | "api-issuers-file" | "api-cert-file" | "api-key-file" => secret,
        "tls-cert-file" | "tls-key-file" | "tls-client-ca-file" | "tls-client-crl-file" => secret,
        "agent-token-file" | "agent-issuers-file" => secret,
        "admin-hosts" => "Gitamp.Example.com, other",
        "state-dir" => "/srv/state",
        "log" => "debug",
        "log-format" => "json",
        other => limit(other),
    }
}

/// The same for a setting that is a limit.
fn limit(key: &str) -> &'static str {
    match key {
        "max-message-size" => "2MiB",
        "max-agent-bytes" | "max-bytes-in-flight" | "max-file-size" | "max-fleet-size" | "max-hook-size" => "7MiB",
        "max-answer-size" => "7MiB",
        "max-attribute-bytes" | "max-config-size" | "api-max-order-size" => "77KiB",
        other if other.starts_with("max-") || other.starts_with("api-max-") => "77",
        other => panic!("a setting without a test: {other}"),
    }
}

/// The settings that one of this name makes no sense without.
fn with_what_it_needs(mut case: Case, key: &str, secret: &str, journal_key: &str) -> Case {
    if key == "verify-mode" {
        case = case.variable("GITAMP_VERIFY_KEYRING", secret);
    }
    let others =
        [("verify-allowed-signers", "GITAMP_VERIFY_KEYRING"), ("verify-keyring", "GITAMP_VERIFY_ALLOWED_SIGNERS")];
    for (_, other) in others.into_iter().filter(|(one, _)| *one == key) {
        case = case.variable("GITAMP_VERIFY_MODE", "head").variable(other, secret);
    }
    if ["hooks-listen", "interval-with-hooks", "max-hook-size", "max-hook-rate"].contains(&key) {
        case = case.variable("GITAMP_HOOK_SECRET_FILE", secret);
    }
    for other in ["tls-cert-file", "tls-key-file", "tls-client-ca-file"] {
        if key.starts_with("tls-") && key != other && (key.contains("client") || other != "tls-client-ca-file") {
            case = case.variable(&layers::variable(other), secret);
        }
    }
    if key.starts_with("api-") || key == "no-self-approval" {
        case = case.variable("GITAMP_API_LISTEN", "127.0.0.1:7777").variable("GITAMP_API_TOKEN_FILE", secret);
        for other in ["GITAMP_API_CERT_FILE", "GITAMP_API_KEY_FILE"] {
            case = case.variable(other, secret);
        }
    }
    if key == "journal-adopt" {
        case = case.variable("GITAMP_JOURNAL_KEY_FILE", journal_key);
    }
    if key.starts_with("forge-app") {
        let key = case.directory.path().join("app.pem");
        write_secret(&key, "hunter2");
        let key = key.display().to_string();
        case = case.variable("GITAMP_FORGE_APP_ID", "1").variable("GITAMP_FORGE_APP_KEY_FILE", &key);
    } else if key.starts_with("forge") && key != "forge-token-file" || key == "revert-pull-request" {
        case = case.variable("GITAMP_FORGE_TOKEN_FILE", secret);
    }
    let is_about_forge = key.starts_with("forge") || key == "revert-pull-request";
    let repo = if is_about_forge { "https://github.com/team/fleet" } else { "/srv/x" };
    case.variable("SSH_AUTH_SOCK", "/run/agent").variable("GITAMP_REPO", repo)
}

#[test]
fn every_setting_has_a_flag_a_variable_and_a_key_that_work() {
    let secret = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(secret.path(), "hunter2\n").expect("writing");
    let secret = secret.path().to_str().expect("UTF-8").to_owned();
    let key_file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(key_file.path(), "hunter2".repeat(6)).expect("writing");
    let journal_key = key_file.path().to_str().expect("UTF-8").to_owned();
    let value = |key: &str| example(key, &secret, &journal_key);
    for key in layers::keys() {
        let base = |case: Case| with_what_it_needs(case, &key, &secret, &journal_key);
        let shown = |mut settings: Settings| {
            settings.warnings.clear();
            format!("{settings:?}")
        };
        let home_differs =
            |text: String, case: &Case| text.replace(case.directory.path().to_str().expect("UTF-8"), "HOME");
        let mut outcomes = Vec::new();
        let flag = format!("--{key}={}", value(&key));
        let mut without = Case::new();
        without.args = ServeArgs::default();
        let mut by_variable = Case::new().variable(&layers::variable(&key), "");
        by_variable.args = ServeArgs::default();
        let by_variable = base(by_variable).variable(&layers::variable(&key), value(&key));
        let mut by_file = Case::new().file(&format!("{key}: '{}'\n", value(&key)));
        by_file.args.repo = None;
        let mut by_file = base(by_file);
        by_file.environment.variables.remove(&layers::variable(&key));
        for case in [base(Case::new().flags(&[&flag])), by_variable, by_file] {
            outcomes.push(home_differs(shown(case.good()), &case));
        }
        let mut without = base(without);
        if key == "verify-mode" {
            // Keys alone are refused.
            without = without.variable("GITAMP_VERIFY_MODE", "off");
        }
        if key == "tls-cert-file" || key == "tls-key-file" {
            // So is half a pair.
            without.environment.variables.retain(|name, _| !name.contains("TLS"));
        }
        if key.starts_with("api-") && key != "api-plain" {
            // None of these does without the others.
            without.environment.variables.retain(|name, _| !name.contains("_API_"));
        }
        if key == "tls-client-ca-file" {
            without.environment.variables.remove("GITAMP_TLS_CLIENT_CRL_FILE");
        }
        let default = home_differs(shown(without.good()), &without);
        assert_eq!(outcomes[0], outcomes[1], "{key}: flag and variable");
        assert_eq!(outcomes[0], outcomes[2], "{key}: flag and file");
        assert_ne!(outcomes[0], default, "{key}: changes nothing");
        assert!(!outcomes[0].contains("hunter2"), "{key}: a secret is shown");
    }
}

#[test]
fn the_defaults_in_the_help_are_the_defaults() {
    let command = <ServeArgs as clap::Args>::augment_args(clap::Command::new("serve"));
    let mut given = Vec::new();
    for argument in command.get_arguments() {
        let Some(key) = argument.get_long() else { continue };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        assert!(!help.is_empty(), "--{key} has no help");
        let Some(default) = help.split("[default: ").nth(1).and_then(|rest| rest.strip_suffix(']')) else { continue };
        if default.contains(' ') || ["config", "state-dir", "known-hosts-file"].contains(&key) {
            continue; // said in words
        }
        given.push(format!("--{key}={default}"));
    }
    assert!(given.len() >= 14, "too few defaults are shown: {given:?}");
    let flags: Vec<_> = ["--repo=/srv/x"].into_iter().chain(given.iter().map(String::as_str)).collect();
    let with = Case::new().flags(&flags).variable("SSH_AUTH_SOCK", "/run/agent");
    let mut with_nothing = Case::new().flags(&["--repo=/srv/x"]).variable("SSH_AUTH_SOCK", "/run/agent");
    with_nothing.environment.variables.insert("HOME".to_owned(), with.environment.variables["HOME"].clone());
    assert_eq!(with.good(), with_nothing.good());
}

#[test]
fn values_that_are_refused() {
    for (flags, words) in [
        ("--interval=5", "--interval: `5` is not a duration"),
        ("--interval=0s", "--interval: must be from 1s to 1d"),
        ("--git-timeout=2d", "--git-timeout: must be from 1s to 1d"),
        ("--instance=a/b", "--instance: must be a name of letters"),
        ("--instance=x.lock", "--instance: must be a name"),
        ("--instance=..", "--instance: must be a name"),
        ("--branch=a..b", "--branch: `a..b` is no name of a branch"),
        ("--branch=release/*", "patterns are for --tag"),
        ("--branch=refs/tags/v1", "use --tag v1"),
        ("--tag=", "--tag: `` can match no tag"),
        ("--tag=v[", "--tag: not a pattern like 'v*'"),
        ("--tag=a b", "can match no tag"),
        ("--depth=2", "--depth: must be 1"),
        ("--path=../x", "--path: must stay inside the repository"),
        ("--path=a/.git", "--path: cannot be inside .git"),
        ("--listen=:4320", "all addresses are 0.0.0.0:4320"),
        ("--listen=4320", "--listen: must be an address and a port"),
        ("--admin-listen=127.0.0.1:4320", "--admin-listen: the same address as --listen"),
        ("--listen=0.0.0.0:4320", "--listen: 0.0.0.0:4320 can be reached from other machines"),
        ("--listen=[::]:4320", "or say --insecure if something else protects it"),
        ("--tls-cert-file=Cargo.toml", "--tls-cert-file: needs its private key as well"),
        ("--tls-key-file=/does/not/exist", "--tls-key-file: cannot read /does/not/exist"),
        ("--tls-client-ca-file=Cargo.toml", "--tls-client-ca-file: clients show certificates to TLS only"),
        ("--tls-client-crl-file=Cargo.toml", "--tls-client-crl-file: revokes certificates of nobody"),
        ("--handshake-timeout=10ms", "--handshake-timeout: must be from 1s to 2m"),
        ("--max-new-agents=0", "--max-new-agents: must be `off` or a number from 1 to 10000000"),
        ("--max-attributes=257", "--max-attributes: must be a number from 1 to 256"),
        ("--max-bytes-in-flight=3MiB", "--max-bytes-in-flight: must be four times the largest message"),
        ("--max-attribute-bytes=2MiB", "--max-attribute-bytes: must be from 1KiB to 1MiB, not 2MiB"),
        ("--max-polling-agents=0", "--max-polling-agents: must be a number from 1 to 10000000"),
        ("--max-files=many", "--max-files: must be a number from 1 to 2000000"),
        ("--max-directory-depth=201", "--max-directory-depth: must be a number from 1 to 200"),
        ("--max-yaml-depth=7", "--max-yaml-depth: must be a number from 8 to 255"),
        ("--max-file-size=17MiB", "--max-file-size: must be from 1KiB to 16MiB"),
        ("--max-config-size=1MiB", "--max-config-size: must be less than the largest message"),
        ("--max-hook-size=1KiB", "--max-hook-size: must be from 4KiB to 32MiB"),
        ("--max-hook-rate=0", "--max-hook-rate: must be `off` or a number from 1 to 10000000"),
        ("--max-answer-size=1GiB", "--max-answer-size: must be a size"),
        ("--api-max-connections=0", "--api-max-connections: must be a number from 1 to 100000"),
        ("--api-max-requests=1001", "--api-max-requests: must be a number from 1 to 1000"),
        ("--api-max-order-size=2MiB", "--api-max-order-size: must be from 1KiB to 1MiB"),
        ("--max-handshakes=0", "--max-handshakes: must be a number from 1 to 100000"),
        ("--opamp-path=v1", "--opamp-path: must be a path"),
        ("--opamp-path=/hooks/x", "not below /hooks"),
        ("--max-message-size=1GB", "--max-message-size: must be a size like 1MiB"),
        ("--max-message-size=1KiB", "from 4KiB to 64MiB"),
        ("--max-message-size=99999999999999999999MiB", "must be a size"),
        ("--max-connection-rate=0", "--max-connection-rate: must be `off` or a number from 1 to 1000000"),
        ("--heartbeat-interval=0s", "--heartbeat-interval: must be `off`, or whole seconds from 1s to 10m, not 0s"),
        ("--heartbeat-interval=1500ms", "--heartbeat-interval: must be `off`, or whole seconds from 1s to 10m"),
        ("--heartbeat-interval=11m", "--heartbeat-interval: must be `off`, or whole seconds from 1s to 10m, not 11m"),
        ("--max-connections=0", "--max-connections: must be `auto` or a number"),
        ("--observe=maybe", "--observe: must be true or false"),
        ("--hook-secret-file=/does/not/exist", "--hook-secret-file: cannot read /does/not/exist"),
        ("--ssh-key-file=/does/not/exist", "--ssh-key-file: cannot read"),
        ("--hooks-listen=127.0.0.1:1", "--hooks-listen: without --hook-secret-file"),
        ("--verify-mode=head", "--verify-mode: nobody could sign"),
        ("--verify-mode=some", "--verify-mode: must be head, all or off"),
        ("--verify-keyring=/does/not/exist", "--verify-keyring: cannot read /does/not/exist"),
        ("--verify-keyring=Cargo.toml", "--verify-keyring: without --verify-mode nothing is verified"),
        ("--interval-with-hooks=10m", "--interval-with-hooks: without --hook-secret-file"),
        ("--interval-with-hooks=10s", "--interval-with-hooks: must be from 1m to 1d"),
        ("--admin-hosts=a:1", "`a:1` is no host name"),
        ("--log=gitamp=loud", "--log: "),
        ("--log-format=xml", "--log-format: must be auto, human or json"),
        ("--state-dir=~/x", "--state-dir: `~` is a matter of the shell"),
        ("--state-dir=", "--state-dir: is empty"),
        ("--git-user=a:b", "--git-user: must be a name"),
        ("--journal-user=a:b", "--journal-user: must be a name"),
        ("--journal-repo=https://u:p@host/x", "--journal-repo: it holds credentials"),
        ("--journal-key-file=/does/not/exist", "--journal-key-file: cannot read"),
        ("--journal-key-file=/dev/null", "--journal-key-file: /dev/null is empty"),
        ("--journal-token-file=/does/not/exist", "--journal-token-file: cannot read"),
        ("--journal-ssh-key-file=/does/not/exist", "--journal-ssh-key-file: cannot read"),
        ("--journal-adopt=HEAD", "--journal-adopt: must be a commit of the journal in full"),
        ("--journal-adopt=0123456789abcdef0123456789abcdef01234567", "--journal-adopt: without --journal-key-file"),
        ("--forge=sourcehut", "--forge: must be github, gitlab, gitea, bitbucket or off"),
        ("--forge-token-file=/does/not/exist", "--forge-token-file: cannot read"),
        ("--forge-api=http://git.example.com/api", "--forge-api: would show the token to everybody"),
        ("--forge-api=https://bob:hunter2@git.example.com", "--forge-api: must be an address alone"),
        ("--forge-api=ftp://git.example.com", "--forge-api: must begin with https://"),
        ("--forge-project=fleet", "--forge-project: must be the full name"),
        ("--forge-project=team/../x", "--forge-project: must be the full name"),
        ("--forge-comment", "--forge-comment: the forge is told nothing without --forge-token-file"),
        ("--revert-pull-request", "--revert-pull-request: the forge is told nothing without"),
        ("--forge-status-url=ops", "--forge-status-url: must be an http(s) address"),
        ("--forge-app-id=1", "--forge-app-id: an App needs its private key"),
        ("--forge-app-id=a b", "--forge-app-id: must be the number or the client id"),
        ("--forge-app-installation=x", "--forge-app-installation: must be the number"),
    ] {
        let error = Case::new().flags(&["--repo=/srv/x", flags]).error();
        assert!(error.contains(words), "{flags}: {error}");
    }
    let longest = format!("--state-dir=/{}", "d".repeat(107 - "//admin.sock".len()));
    Case::new().flags(&["--repo=/srv/x", &longest]).good();
    let error = Case::new().flags(&["--repo=/srv/x", &format!("{longest}d")]).error();
    assert!(error.contains("--state-dir: is too long") && error.contains("d/admin.sock"), "{error}");
    let mut none = Case::new();
    none.args.repo = None;
    assert!(none.error().contains("--repo: no repository is named"), "{}", none.error());
    none.environment.variables.clear();
    assert!(none.error().contains("--state-dir: there is no home directory"), "all at once: {}", none.error());
}

#[test]
fn problems_carry_the_name_that_their_author_used_and_come_all_at_once() {
    let case = Case::new()
        .file("interval: soon\nmax-connections: -1\n")
        .variable("GITAMP_LISTEN", "everywhere")
        .flags(&["--repo=https://bob:hunter2@example.com/x"]);
    let error = case.error();
    let file = case.args.config.as_ref().expect("a file").display();
    for words in [
        "4 settings cannot be used",
        "--repo: it holds credentials",
        "GITAMP_LISTEN: must be an address",
        &format!("`interval` in {file}:1: `soon` is not a duration"),
        &format!("`max-connections` in {file}:2: must be `auto`"),
    ] {
        assert!(error.contains(words), "{words:?} is missing in: {error}");
    }
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn files_that_are_refused_with_line_and_column() {
    for (content, words) in [
        ("interval: 1m\nintervall: 2m\n", &["unknown field `intervall`", "line 2 column 1"][..]),
        ("interval: 1m\ninterval: 2m\n", &["duplicate field `interval`", "line 2 column 1"]),
        ("interval: [1m]\n", &["one value", "line 1 column 11"]),
        ("- a\n", &["expected settings, one `name: value` a line"]),
        ("a: 1m\n", &["unknown field `a`", "line 1 column 1"]),
        ("repo: b: c\n", &["line 1 column"]),
        ("interval: \"1m\n", &["line "]),
    ] {
        let error = Case::new().file(content).error();
        for word in words.iter().chain(&["gitamp.yaml"]) {
            assert!(error.contains(word), "{content:?}: {word:?} is missing in: {error}");
        }
    }
    let mut missing = Case::new();
    missing.args.config = Some(missing.directory.path().join("missing.yaml"));
    assert!(missing.error().contains("cannot read the settings file"), "{}", missing.error());
    let not_text = Case::new().file("");
    std::fs::write(not_text.args.config.as_ref().expect("a file"), b"a: \xff").expect("writing");
    assert!(not_text.error().contains("not UTF-8"), "{}", not_text.error());
    for empty in ["", "# nothing yet\n", "---\n"] {
        assert_eq!(Case::new().file(empty).good().instance, "default", "{empty:?}");
    }
}

#[test]
fn relative_paths_of_the_file_start_at_the_file() {
    let case = Case::new().file("repo: ./fleet.git\nstate-dir: state\n");
    let mut case = Case { args: ServeArgs { repo: None, ..case.args.clone() }, ..case };
    let settings = case.good();
    assert_eq!(settings.repo.local_path(), Some(case.directory.path().join("fleet.git").as_path()), "{settings:?}");
    assert_eq!(settings.state_dir, case.directory.path().join("state"));
    case.args.state_dir = Some(Text("/elsewhere".to_owned()));
    assert_eq!(case.good().state_dir, Path::new("/elsewhere"));
}

#[test]
fn the_state_directory_when_nobody_names_one() {
    for (variables, wanted) in [
        (&[("STATE_DIRECTORY", "/var/lib/gitamp:/var/lib/other"), ("HOME", "/home/a")][..], "/var/lib/gitamp"),
        (&[("XDG_STATE_HOME", "/home/a/state"), ("HOME", "/home/a")], "/home/a/state/gitamp"),
        (&[("XDG_STATE_HOME", "relative"), ("HOME", "/home/a")], "/home/a/.local/state/gitamp"),
        (&[("HOME", "/root")], "/root/.local/state/gitamp"),
    ] {
        let mut case = Case::new();
        case.environment.variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(case.good().state_dir, Path::new(wanted), "{variables:?}");
    }
}

#[test]
fn what_deserves_a_look_is_warned_about() {
    let case = Case::new().variable("GITAMP_INTERVALL", "5m").variable("GITAMP_INSTANCE", "");
    let open = ["--repo=http://git.example.com/x", "--listen=0.0.0.0:4320", "--admin-listen=[::]:4321", "--insecure"];
    let case = case.flags(&open);
    let warnings = case.good().warnings.join("\n");
    let alarm = case.good().alarm.expect("strangers may act as agents");
    assert!(alarm.contains("--insecure: the listener of agents (0.0.0.0:4320)"), "{alarm}");
    for words in ["GITAMP_INTERVALL means nothing", "admin interface ([::]:4321)", "over http://"] {
        assert!(warnings.contains(words), "{words:?} is missing in: {warnings}");
    }
    assert!(!warnings.contains("GITAMP_INSTANCE"), "an empty variable is not set: {warnings}");
    let token = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(token.path(), "t").expect("writing");
    let exposed = Case::new()
        .flags(&["--repo=http://git.example.com/x", &format!("--git-token-file={}", token.path().display())]);
    assert!(exposed.error().contains("use https://"), "{}", exposed.error());
}

#[test]
fn the_journal_is_reached_like_the_fleet_unless_it_says_otherwise() {
    let file = |text: &str| {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("writing");
        file
    };
    let (fleet, own, short) = (file("fleet"), file("own"), file("too short\n"));
    let flag = |name: &str, file: &tempfile::NamedTempFile| format!("--{name}={}", file.path().display());
    let token = flag("git-token-file", &fleet);
    let of = |more: &[&str]| {
        let flags: Vec<_> =
            ["--repo=https://git.example.com/x", &token].into_iter().chain(more.iter().copied()).collect();
        Case::new().flags(&flags).good()
    };
    let path = |settings: &Settings| settings.journal_access().token.map(|file| file.path().to_owned());
    let (fleet_path, own_path) = (Some(fleet.path().to_owned()), Some(own.path().to_owned()));
    assert_eq!(path(&of(&[])), fleet_path, "the same repository");
    assert_eq!(path(&of(&["--journal-repo=https://git.example.com/notes"])), fleet_path, "the same server");
    assert_eq!(path(&of(&["--journal-repo=https://other.example.com/notes"])), None, "a token never goes elsewhere");
    let own_token = flag("journal-token-file", &own);
    let settings = of(&["--journal-repo=https://other.example.com/notes", &own_token, "--journal-user=bot"]);
    assert_eq!((path(&settings), settings.journal_access().user.as_str()), (own_path.clone(), "bot"));
    assert_eq!(settings.journal_repo().as_str(), "https://other.example.com/notes");
    let settings = of(&[&own_token, &flag("journal-ssh-key-file", &own), &flag("journal-known-hosts-file", &own)]);
    let access = settings.journal_access();
    assert_eq!((path(&settings), access.ssh_key, access.known_hosts), (own_path.clone(), own_path.clone(), own_path));
    assert_eq!(settings.journal_repo(), &settings.repo, "a token for writing, beside one for reading");
    let settings = of(&["--journal-repo=https://other.example.com/notes", "--no-push"]);
    assert!(settings.warnings.iter().any(|warning| warning.contains("nothing is pushed to it")));
    let exposed = ["--repo=/srv/x", "--journal-repo=http://other.example.com/x", &own_token];
    assert!(Case::new().flags(&exposed).error().contains("use https://"), "a token in clear");
    let error = Case::new().flags(&["--repo=/srv/x", &flag("journal-key-file", &short)]).error();
    assert!(error.contains("at least 32 characters") && !error.contains("too short"), "{error}");
}

#[test]
fn the_forge_is_known_from_the_repository_where_it_can_be() {
    let secret = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(secret.path(), "hunter2\n").expect("writing");
    let token = format!("--forge-token-file={}", secret.path().display());
    let key = format!("--forge-app-key-file={}", secret.path().display());
    for (repo, flags, kind, api, project) in [
        ("https://github.com/Team/Fleet.git", &[][..], "GitHub", "https://api.github.com/", "Team/Fleet"),
        ("git@github.com:Team/fleet.git", &[], "GitHub", "https://api.github.com/", "Team/fleet"),
        ("https://gitlab.com/team/sub/fleet", &[], "GitLab", "https://gitlab.com/api/v4", "team/sub/fleet"),
        ("ssh://git@codeberg.org/team/fleet.git", &[], "Gitea", "https://codeberg.org/api/v1", "team/fleet"),
        ("git@bitbucket.org:team/fleet.git", &[], "Bitbucket", "https://api.bitbucket.org/2.0", "team/fleet"),
        ("ssh://git@altssh.bitbucket.org:443/t/f", &[], "Bitbucket", "https://api.bitbucket.org/2.0", "t/f"),
        (
            "https://git.example.com/t/f",
            &["--forge=bitbucket", "--forge-api=https://api.bitbucket.org/2.0"],
            "Bitbucket",
            "https://api.bitbucket.org/2.0",
            "t/f",
        ),
        ("https://git.example.com/t/f", &["--forge=github"], "GitHub", "https://git.example.com/api/v3", "t/f"),
        ("https://git.example.com:8443/t/f", &["--forge=gitea"], "Gitea", "https://git.example.com:8443/api/v1", "t/f"),
        (
            "/srv/fleet.git",
            &["--forge=gitlab", "--forge-api=http://127.0.0.1:8080/gitlab/api/v4", "--forge-project=/t/f/"],
            "GitLab",
            "http://127.0.0.1:8080/gitlab/api/v4",
            "t/f",
        ),
    ] {
        let repo_flag = format!("--repo={repo}");
        let flags: Vec<_> = [repo_flag.as_str(), &token].into_iter().chain(flags.iter().copied()).collect();
        let forge = Case::new().flags(&flags).good().forge.expect("a forge");
        let seen = (forge.kind.to_string(), forge.api.to_string(), forge.project.clone());
        assert_eq!(seen, (kind.to_owned(), api.to_owned(), project.to_owned()), "{repo}");
        assert!(forge.statuses && !forge.comment && !forge.revert_pull_request, "{repo}: what is on by itself");
    }
    let signers = token.replace("--forge-token-file", "--verify-allowed-signers");
    for (flags, words) in [
        (&["--repo=/srv/x", &token][..], "which forge it is for cannot be told"),
        (&["--repo=https://git.example.com/x/y", &token], "which forge it is for cannot be told"),
        (&["--repo=/srv/x", &token, "--forge=gitlab", "--forge-project=a/b"], "say --forge-api"),
        (&["--repo=https://bitbucket.org/x", &token, "--forge=bitbucket"], "say --forge-project"),
        (&["--repo=https://git.example.com/scm/t/f", &token, "--forge=bitbucket"], "only Bitbucket Cloud is told"),
        (&["--repo=/srv/x", &token, "--forge=bitbucket", "--forge-project=a/b"], "say --forge-api"),
        (&["--repo=https://gitlab.com/a/b", "--forge-app-id=1", &key], "only GitHub has Apps"),
        (&["--repo=https://github.com/a/b", "--forge-app-id=1", &key, &token], "an App is named as well"),
        (&["--repo=https://github.com/a/b", &key], "does not say whose it is"),
        (&["--repo=https://bitbucket.org/a/b", &token, "--forge-comment"], "leave it out"),
        (&["--repo=https://github.com/a/b", "--tag=v*", &token, "--revert-pull-request"], "needs a branch"),
        (&["--repo=https://github.com/a/b", "--depth=1", &token, "--revert-pull-request"], "--depth: a revert is made"),
        (
            &["--repo=/srv/x", "--depth=1", "--verify-mode=all", &signers],
            "--depth: only the newest commit would be there to be verified",
        ),
    ] {
        let error = Case::new().flags(flags).error();
        assert!(error.contains(words) && !error.contains("hunter2"), "{flags:?}: {error}");
    }
    for off in [&["--repo=https://github.com/a/b", &token, "--forge=off"][..], &["--repo=https://github.com/a/b"]] {
        assert_eq!(Case::new().flags(off).good().forge, None, "{off:?}");
    }
    let observing = Case::new().flags(&["--repo=https://github.com/a/b", &token, "--observe"]).good();
    assert!(
        observing.forge.is_none() && observing.warnings.iter().any(|one| one.contains("--observe")),
        "{observing:?}"
    );
    let named = Case::new().file("revertPullRequest: true\n").flags(&["--repo=https://github.com/a/b", &token]);
    assert!(named.good().forge.expect("a forge").revert_pull_request, "as it is written in other files of ours");
}

#[test]
fn observing_never_pushes() {
    for (flags, observe, push) in [
        (&[][..], false, true),
        (&["--no-push"], false, false),
        (&["--observe"], true, false),
        (&["--observe=false"], false, true),
    ] {
        let flags: Vec<_> = ["--repo=/srv/x"].iter().chain(flags).copied().collect();
        let settings = Case::new().flags(&flags).good();
        assert_eq!((settings.observe, settings.push), (observe, push), "{flags:?}");
    }
}

#[test]
fn references_know_which_pushes_concern_them() {
    let branch = Reference::Branch("main".to_owned());
    let tags = Reference::TagPattern("v*".to_owned());
    for (name, for_default, for_branch, for_tags) in [
        ("refs/heads/main", true, true, false),
        ("refs/heads/mainline", true, false, false),
        ("refs/tags/main", false, false, false),
        ("refs/tags/v1.2", false, false, true),
        ("refs/tags/v1/rc", false, false, true),
        ("refs/heads/v1.2", true, false, false),
        ("refs/heads/", false, false, false),
        ("refs/notes/gitamp/default", false, false, false),
        ("main", false, false, false),
        ("", false, false, false),
    ] {
        let concerned = (Reference::Default.concerns(name), branch.concerns(name), tags.concerns(name));
        assert_eq!(concerned, (for_default, for_branch, for_tags), "{name}");
    }
}

#[test]
fn the_example_of_a_settings_file_can_be_used() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitamp.yaml");
    let text = std::fs::read_to_string(&example).expect("the example");
    let mut case = Case::new().file(&text);
    case.args.repo = None;
    let settings = case.good();
    assert_eq!(settings.repo.as_str(), "https://git.example.com/platform/fleet.git");
    assert_eq!(settings.warnings, Vec::<String>::new());

    // What is commented out must be right as well: each key once, with a value that is taken.
    let secret = case.directory.path().join("secret");
    write_secret(&secret, &"s3cret".repeat(6));
    let whole: String = text
        .lines()
        .filter_map(|line| {
            // A setting, or a line that belongs to one: comments stand one space behind their mark.
            let is_setting = |rest: &&str| rest.starts_with("  ") || !rest.starts_with([' ', '#']);
            line.strip_prefix('#').filter(is_setting).or(Some(line))
        })
        .filter(|line| !["tag:", "forge-app", "depth:"].iter().any(|other| line.starts_with(other)))
        .map(|line| line.replace("/etc/gitamp/", &format!("{}/", case.directory.path().display())) + "\n")
        .collect();
    for file in [
        "git-token",
        "ssh-key",
        "known_hosts",
        "hook-secret",
        "journal-token",
        "journal-ssh-key",
        "journal-key",
        "forge-token",
        "forge-ca.pem",
        "allowed_signers",
        "keyring.asc",
        "tls.pem",
        "tls-key.pem",
        "agents-ca.pem",
        "agents-crl.pem",
        "alerts-secret",
        "agent-tokens.yaml",
        "agent-issuers.yaml",
        "operators.yaml",
        "api-issuers.yaml",
        "api.pem",
        "api-key.pem",
    ] {
        std::fs::copy(&secret, case.directory.path().join(file)).expect("a copy");
    }
    write_secret(&case.directory.path().join("slack-url"), "https://hooks.slack.com/services/x");
    let mut case = case.file(&whole);
    case.args.repo = None;
    let settings = case.good();
    assert_eq!(settings.alerts.expect("alerts").receivers.len(), 3, "{whole}");
    assert_eq!(settings.reference, Reference::Branch("main".to_owned()), "{whole}");
    for key in layers::keys() {
        let is_there = text.lines().any(|line| line.trim_start_matches('#').starts_with(&format!("{key}:")));
        assert!(is_there, "`{key}` is missing in the example");
    }
}

/// A receiver that is fine, and files beside the settings.
fn with_alerts(case: Case, alerts: &str) -> Case {
    for (name, text) in
        [("secret", "hunter2"), ("chat", "https://hooks.example.com/s3cret"), ("no-url", "hooks.example.com/s3cret")]
    {
        write_secret(&case.directory.path().join(name), text);
    }
    case.file(&format!("alerts:\n{alerts}"))
}

#[test]
fn receivers_of_alerts_come_from_the_file() {
    use crate::settings::alerts::{Address, Least, ReceiverKind};
    assert_eq!(Case::new().good().alerts, None);
    let text = "  staleAfter: 5m
  receivers:
    - {name: ops, type: webhook, url: 'http://ops.example.com/x', secretFile: secret}
    - {name: chat, type: slack, urlFile: chat, severity: critical, groups: [prod/**, '*'], fleet: false}
    - {name: am, type: alertmanager, url: 'https://am.example.com/base', tokenFile: secret}
";
    let case = with_alerts(Case::new(), text);
    let alerts = case.good().alerts.expect("alerts");
    assert_eq!((alerts.waits_too_long.as_secs(), alerts.stale_after.as_secs()), (4 * 3600, 300));
    let [ops, chat, am] = &alerts.receivers[..] else { panic!("three of them") };
    assert_eq!(
        (ops.name.as_str(), ops.kind, ops.least, ops.fleet),
        ("ops", ReceiverKind::Webhook, Least::Warning, true)
    );
    assert_eq!(ops.secrets().expect("a secret").len(), 1);
    assert_eq!((chat.least, chat.fleet, chat.groups.len()), (Least::Critical, false, 2));
    assert!(matches!(&chat.address, Address::File(_)) && am.token.is_some());
    assert_eq!(chat.address.get().expect("an address").host_str(), Some("hooks.example.com"));
    assert!(!format!("{alerts:?}").contains("s3cret"));
    let unsigned =
        with_alerts(Case::new(), "  receivers: [{name: ops, type: webhook, url: 'https://x.example.com'}]\n").good();
    assert!(
        unsigned.warnings.iter().any(|warning| warning.contains("`ops` are not signed")),
        "{:?}",
        unsigned.warnings
    );
}

#[test]
fn what_is_wrong_with_alerts_is_said_with_its_place() {
    let one = |receiver: &str| format!("  receivers: [{{{receiver}}}]\n");
    for (text, words) in [
        ("  receivers: []\n".to_owned(), "`alerts.receivers` in "),
        (
            "  waitsTooLong: 5s\n  receivers: [{name: a, type: slack, urlFile: chat}]\n".to_owned(),
            "`alerts.waitsTooLong` in ",
        ),
        ("  staleAfter: soon\n  receivers: [{name: a, type: slack, urlFile: chat}]\n".to_owned(), "is not a duration"),
        (one("type: slack, urlFile: chat"), "`alerts.receivers[0].name` in "),
        (one("name: a, urlFile: chat"), "missing: webhook, slack or alertmanager"),
        (one("name: a, type: pigeon, urlFile: chat"), "not pigeon"),
        (one("name: a, type: slack, url: 'https://hooks.example.com/s3cret'"), "urlFile"),
        (one("name: a, type: webhook"), "it is not said where it is"),
        (one("name: a, type: webhook, url: 'https://x.example', urlFile: chat"), "say the same"),
        (one("name: a, type: webhook, url: 'ftp://x.example/s3cret'"), "https://"),
        (one("name: a, type: webhook, url: 'https://u:s3cret@x.example'"), "without user"),
        (one("name: a, type: webhook, urlFile: no-url"), "no-url"),
        (one("name: a, type: webhook, urlFile: nowhere"), "cannot read"),
        (
            one("name: a, type: slack, urlFile: chat, secretFile: secret"),
            "only messages of the type `webhook` are signed",
        ),
        (one("name: a, type: alertmanager, url: 'http://am.example', tokenFile: secret"), "would show the token"),
        (one("name: a, type: slack, urlFile: chat, severity: info"), "must be warning"),
        (one("name: a, type: slack, urlFile: chat, groups: ['a[']"), "not a pattern"),
        (one("name: a, type: slack, urlFile: chat, colour: red"), "colour"),
        (one("name: a b, type: slack, urlFile: chat"), "must be letters"),
        (
            "  receivers: [{name: a, type: slack, urlFile: chat}, {name: a, type: slack, urlFile: chat}]\n".to_owned(),
            "`alerts.receivers[1].name` in ",
        ),
    ] {
        let error = with_alerts(Case::new(), &text).error();
        assert!(error.contains(words) && !error.contains("s3cret"), "{text}: {error}");
    }
    let two = "  receivers:\n    - {name: a, type: slack, urlFile: chat}\n    - name: b\n      type: webhook\n      severity: loud\n";
    let error = with_alerts(Case::new(), two).error();
    for place in ["`alerts.receivers[1]` in ", "gitamp.yaml:4: it is not said where", "gitamp.yaml:6: must be warning"]
    {
        assert!(error.contains(place), "{place}: {error}");
    }
    let nested = Case::new().file("repo: x\nverify:\n  mode: some\n").error();
    assert!(nested.contains("`verify-mode` in ") && nested.contains("gitamp.yaml:3: must be head"), "{nested}");
}
