//! Nothing secret comes out: recognisable secrets are put in wherever they can enter, and everything that comes out is searched.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::sync_channel;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gitamp::opamp::proto;
use gitamp::simulate::Fleet;
use prost::Message;
use support::forge::{ForgeServer, Mood, Plays};
use support::gateways::{self, AT_ONCE, collector, gateways};
use support::http_remote::HttpRemote;
use support::receiver::Receiver;
use support::secrets::{Search, Secrets};
use support::{Daemon, Repository, get, gitamp, post, run, wait_for, write_secret};

/// The pull request that the bad commit comes from.
const COMMENTED: u64 = 7;

/// The place of the secret in the address of a chat.
const CHAT: &str = "the address of a chat";

/// What is asked and ordered once everything has happened.
const COMMANDS: [&str; 12] = [
    "status",
    "rollout gateways",
    "agents",
    "sync",
    "pause gateways --yes --reason maintenance",
    "resume gateways --yes",
    "retry gateways --yes",
    "freeze gateways --yes --reason holidays",
    "unfreeze gateways --yes",
    "promote gateways --yes",
    "abort gateways --yes",
    "undo gateways --yes",
];

/// A daemon with a secret in each place that it has one for: repositories behind tokens, a journal of its own with a key, hooks, a forge.
struct Seeded {
    secrets: Secrets,
    files: tempfile::TempDir,
    repository: Repository,
    fleet: HttpRemote,
    journal: HttpRemote,
    journal_at: PathBuf,
    forge: ForgeServer,
    /// Is told of incidents, in each of the forms that there are.
    receiver: Receiver,
    hook: String,
    daemon: Daemon,
}

fn seeded(format: &str) -> Seeded {
    let mut secrets = Secrets::default();
    let files = tempfile::tempdir().expect("a directory");
    let mut file = |place: &'static str, name: &str| {
        let value = secrets.make(place);
        write_secret(&files.path().join(name), &format!("{value}\n"));
        value
    };
    let git = file("the Git token", "git-token");
    let notes = file("the journal's token", "journal-token");
    let forge_token = file("the forge's token", "forge-token");
    file("the journal's key, 32 characters and more", "journal-key");
    let hook = secrets.make("the older hook secret");
    let newer = secrets.make("the newer hook secret");
    write_secret(&files.path().join("hooks"), &format!("{hook}\n{newer}\n"));

    let repository = gateways(AT_ONCE);
    let journal_at = files.path().join("notes.git");
    assert!(run(Command::new("git").args(["init", "--quiet", "--bare"]).arg(&journal_at)).status.success());
    let (fleet, journal) = (HttpRemote::serve(&repository.remote()), HttpRemote::serve(&journal_at));
    fleet.ask_for(&git);
    journal.ask_for(&notes);
    let forge = ForgeServer::start(Plays::GitHub);
    forge.ask_for(&forge_token);
    let receiver = Receiver::start();
    let chat = secrets.make(CHAT);
    write_secret(&files.path().join("chat"), &receiver.url(&format!("chat/{chat}")));
    write_secret(&files.path().join("receiver-key"), &secrets.make("the key of a receiver"));
    write_secret(&files.path().join("receiver-token"), &secrets.make("the token of a receiver"));
    let (ops, am) = (receiver.url("ops"), receiver.url("am"));
    let receivers = format!(
        "alerts:\n  receivers:\n    - {{name: ops, type: webhook, url: '{ops}', secretFile: receiver-key}}\n    \
         - {{name: chat, type: slack, urlFile: chat}}\n    - {{name: am, type: alertmanager, url: '{am}', tokenFile: receiver-token}}\n"
    );
    write_secret(&files.path().join("gitamp.yaml"), &receivers);
    let named = |flag: &str, name: &str| format!("--{flag}={}", files.path().join(name).display());
    let mut flags = vec![
        named("config", "gitamp.yaml"),
        "--interval=1h".to_owned(),
        "--log=trace".to_owned(),
        format!("--log-format={format}"),
        format!("--journal-repo={}", journal.url()),
        named("git-token-file", "git-token"),
        named("journal-token-file", "journal-token"),
        named("journal-key-file", "journal-key"),
        named("hook-secret-file", "hooks"),
        "--forge-comment".to_owned(),
    ];
    flags.extend(forge.flags(&files.path().join("forge-token")));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut daemon = Daemon::prepared_on(&fleet.url(), &flags);
    for (place, name) in [
        ("a variable of the cloud", "AWS_SECRET_ACCESS_KEY"),
        ("a variable that is no setting", "GITAMP_GIT_TOKEN"),
        ("a variable of somebody else", "DATABASE_URL"),
    ] {
        let value = secrets.make(place);
        daemon.also_in_environment(name, &value);
    }
    Seeded { secrets, files, repository, fleet, journal, journal_at, forge, receiver, hook, daemon }
}

impl Seeded {
    /// Agents whose words hold secrets: in attributes, and in what they say when they cannot run a configuration.
    fn agents(&mut self) -> Fleet {
        let said = self.secrets.make("an agent's failure");
        let label = self.secrets.make("an agent's attribute");
        let attributes =
            ["service.name=otelcol-gateway".to_owned(), format!("process.command_line=x --api-token {label}")];
        let mut options = gateways::options(&self.daemon, "ws", 4, &attributes);
        options.fail_message =
            format!("Get \"https://ada:{said}@otlp.example.com\": Authorization: Bearer {said}, password={said}");
        Fleet::start(options).expect("a fleet")
    }

    /// One agent over HTTP that tells secrets in everything that it can tell.
    fn blabber(&mut self) {
        use proto::any_value::Value;
        let mut secret = |place| self.secrets.make(place);
        let attribute = |key: &str, value: String| proto::KeyValue {
            key: key.to_owned(),
            value: Some(proto::AnyValue { value: Some(Value::StringValue(value)) }),
        };
        let words = proto::AnyValue { value: Some(Value::StringValue("--password".to_owned())) };
        let word = proto::AnyValue { value: Some(Value::StringValue(secret("a word of a command line"))) };
        let arguments = Value::ArrayValue(proto::ArrayValue { values: vec![words, word] });
        let description = proto::AgentDescription {
            identifying_attributes: vec![attribute("service.name", "otelcol-gateway".to_owned())],
            non_identifying_attributes: vec![
                attribute("db.password", secret("an attribute with a name that says it")),
                attribute(
                    "endpoint",
                    format!("https://ada:{}@otlp.example.com/", secret("the userinfo of an attribute")),
                ),
                proto::KeyValue {
                    key: "process.command_args".to_owned(),
                    value: Some(proto::AnyValue { value: Some(arguments) }),
                },
            ],
        };
        let body = format!(
            "receivers:\n  otlp:\nexporters:\n  otlphttp:\n    headers: {{Authorization: \"Bearer {}\"}}\nservice:\n  pipelines:\n    \
             traces: {{receivers: [otlp], exporters: [otlphttp]}}\n",
            secret("an effective configuration")
        );
        let file =
            proto::AgentConfigObject { body: body.into(), content_type: "text/yaml".to_owned(), ..Default::default() };
        let map = proto::AgentConfigMap { config_map: [(String::new(), file)].into_iter().collect() };
        let message = proto::AgentToServer {
            instance_uid: vec![0x5a; 16].into(),
            capabilities: 0x3c47,
            agent_description: Some(description),
            effective_config: Some(proto::EffectiveConfig { config_map: Some(map) }),
            health: Some(proto::ComponentHealth {
                healthy: false,
                last_error: format!("cannot dial: Authorization: Basic {}", secret("an agent's health")),
                ..Default::default()
            }),
            remote_config_status: Some(proto::RemoteConfigStatus {
                last_remote_config_hash: vec![7; 32].into(),
                status: 3,
                error_message: format!("client_secret: {} is not accepted", secret("an agent's error")),
            }),
            ..Default::default()
        };
        let bearer = format!("Bearer {}", secret("an agent's token"));
        let headers = [("Content-Type", "application/x-protobuf"), ("Authorization", bearer.as_str())];
        let (status, _) =
            post(self.daemon.agents(), "/v1/opamp", &headers, &message.encode_to_vec()).expect("an answer");
        assert_eq!(status, 200, "the agent is heard");
    }

    /// Deliveries with the right secret, a wrong one that may be somebody's right one elsewhere, and none.
    fn ring(&mut self) {
        let wrong = self.secrets.make("the secret of another hook");
        let body = format!(
            r#"{{"object_kind":"push","ref":"refs/heads/main","project":{{"git_http_url":"{}"}}}}"#,
            self.fleet.url()
        );
        for (token, expected) in [(self.hook.as_str(), 2), (wrong.as_str(), 4), ("", 4)] {
            let headers =
                [("Content-Type", "application/json"), ("X-Gitlab-Event", "Push Hook"), ("X-Gitlab-Token", token)];
            let (status, answer) =
                post(self.daemon.agents(), "/hooks/gitlab", &headers, body.as_bytes()).expect("an answer");
            assert_eq!(status / 100, expected, "{answer}");
        }
    }

    /// Waits until the journal's repository says this of a commit.
    fn ended(&self, commit: &str, ending: &str) {
        wait_for(&format!("{commit} to be {ending}"), || {
            let mut show = Command::new("git");
            show.arg("-C").arg(&self.journal_at).args(["notes", "--ref=gitamp/default", "show", commit]);
            let note = String::from_utf8_lossy(&run(&mut show).stdout).into_owned();
            if note.contains(&format!("ending: {ending}")) { Ok(()) } else { Err((note, self.daemon.status())) }
        });
    }

    /// Waits until every receiver has heard of the bad commit, with the words of the agents that could not run it.
    fn told(&self) {
        let chat = format!("chat/{}", self.secrets.values[CHAT]);
        for path in ["ops", &chat, "am/api/v2/alerts"] {
            wait_for("a message to each receiver", || {
                let came = self.receiver.messages(path);
                if came.is_empty() { Err((path, self.daemon.status()["alerts"].clone())) } else { Ok(()) }
            });
        }
    }

    /// The bad days on which errors are told: tokens that are not taken, and a forge that repeats what it was sent.
    fn bad_days(&mut self) {
        let echo: &'static str =
            format!(r#"{{"message":"no such token: {}"}}"#, self.secrets.values["the forge's token"]).leak();
        self.forge.be(Some(Mood::Says(401, "", echo)));
        self.fleet.ask_for("another");
        self.journal.ask_for("another");
        run(&mut self.daemon.command(&["sync"]));
        wait_for("the refused token to be told", || {
            let error = self.daemon.status()["sync"]["error"].clone();
            if error.is_null() { Err(error) } else { Ok(()) }
        });
        self.repository.commit("Nobody hears of it", &[("gateways/collector.yaml", &collector("detailed"))]);
        self.fleet.ask_for(&self.secrets.values["the Git token"]);
        run(&mut self.daemon.command(&["sync"]));
        wait_for("the forge's refusal to be told", || {
            let error = self.daemon.metric("gitamp_forge_error");
            if error == Some(1.0) { Ok(()) } else { Err(error) }
        });
    }

    /// What everybody who looks at the list of processes sees of a transfer that is under way.
    fn transfer(&self) -> Vec<(String, Vec<u8>)> {
        let (asked, is_asked) = sync_channel(1);
        let (let_go, is_over) = sync_channel::<()>(1);
        self.fleet.behind_the_next_look(move || {
            asked.send(()).expect("the test waits for it");
            // It ends when the test does, however that ends.
            let _over = is_over.recv();
        });
        self.daemon.process().signal("HUP");
        is_asked.recv_timeout(support::PATIENCE).expect("the remote is asked");
        let child = wait_for("the transfer", || {
            let children = support::children(self.daemon.process().id());
            children.first().copied().ok_or(children)
        });
        // The environment is root's to see, and of nobody else.
        let files = ["cmdline", "environ"]
            .iter()
            .filter(|file| **file != "environ" || rustix::process::geteuid().is_root())
            .map(|file| {
                let seen = std::fs::read(format!("/proc/{child}/{file}")).expect("it runs");
                assert!(!seen.is_empty(), "{file} of a process that is over");
                (format!("{file} of a transfer"), seen)
            });
        let files = files.collect();
        drop(let_go);
        files
    }

    /// What forges and receivers of alerts were told.
    fn search_elsewhere(&self, search: &mut Search<'_>) {
        for commit in self.repository.git(&["rev-list", "--all"]).lines() {
            search.look("a status on the forge", format!("{:?}", self.forge.shows(commit)));
        }
        let comments = self.forge.comments(COMMENTED);
        assert!(!comments.is_empty(), "the merged pull request has a comment");
        search.look("a comment on the forge", format!("{comments:?}"));
        let heard = self.receiver.bodies();
        assert!(heard.iter().any(|body| body.contains("***")), "no agent's words were told, or not masked: {heard:?}");
        for body in heard {
            search.look("what a receiver of alerts hears", body);
        }
    }

    fn search(&self) {
        let mut search = Search::new(&self.secrets);
        for (name, seen) in self.transfer() {
            search.look(&name, seen);
        }
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.daemon.process().id())).expect("it runs");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "no core file: {core}");
        let agents: serde_json::Value =
            serde_json::from_str(&self.daemon.ask(&["agents", "--output", "json"])).expect("JSON");
        let ids: Vec<String> = agents["agents"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|agent| agent["id"].as_str().expect("an id").to_owned())
            .collect();
        assert!(ids.len() >= 5, "{agents}");
        let pages = [
            "/healthz",
            "/readyz",
            "/metrics",
            "/api/v1/status",
            "/api/v1/groups",
            "/api/v1/rollouts",
            "/api/v1/agents",
            "/x",
        ];
        let pages = pages.map(str::to_owned).into_iter();
        for path in pages.chain(ids.iter().map(|id| format!("/api/v1/agents/{id}/explanation"))) {
            search.look(&path, get(self.daemon.admin(), &path).expect("an answer").1);
        }
        let mut lines: Vec<String> = COMMANDS.map(str::to_owned).to_vec();
        for id in &ids {
            lines.extend(["agents", "explain"].map(|command| format!("{command} {id}")));
        }
        lines.extend(["pin", "unpin"].map(|command| format!("{command} {} --yes", ids[0])));
        for line in &lines {
            for output in ["human", "json"] {
                let words = line.split(' ').chain(["--output", output]);
                search.command(&mut self.daemon.command(&words.collect::<Vec<_>>()));
            }
        }
        let own = self.files.path();
        for output in ["human", "json"] {
            let mut notes = gitamp(["notes", "--output", output]);
            notes.arg(format!("--repo={}", self.repository.work().display()));
            notes.arg(format!("--journal-repo={}", self.journal.url()));
            notes.arg(format!("--journal-token-file={}", own.join("journal-token").display()));
            notes.arg(format!("--journal-key-file={}", own.join("journal-key").display()));
            search.command(&mut notes);
        }
        search.directory(&self.daemon.state());
        search.directory(&self.journal_at);
        search.directory(&self.repository.remote());
        self.search_elsewhere(&mut search);
        let log = self.daemon.process().log();
        for part in ["TRACE", "the environment variable GITAMP_GIT_TOKEN means nothing"] {
            assert!(log.contains(part), "{part:?} is not in the log: was it written at all?");
        }
        assert!(log.contains("***"), "no agent's words are in the log, or they are not masked");
        search.look("the log", &log);
        let of_daemon =
            |file: &str| std::fs::read(format!("/proc/{}/{file}", self.daemon.process().id())).expect("it runs");
        search.look("the process list", of_daemon("cmdline"));
        search.clean(100);
    }
}

fn nothing_comes_out(format: &str) {
    let mut seeded = seeded(format);
    seeded.daemon.restart();
    let agents = seeded.agents();
    let first = seeded.repository.git(&["rev-parse", "HEAD"]);
    seeded.ended(&first, "succeeded");
    let bad = seeded.repository.commit("It does not run", &[("gateways/collector.yaml", &collector("broken"))]);
    seeded.forge.merge(&bad, COMMENTED);
    seeded.ring();
    seeded.ended(&bad, "rolled-back");
    seeded.told();
    wait_for("the comment to say so", || {
        let comments = seeded.forge.comments(COMMENTED);
        if comments.iter().any(|(_, text)| text.contains("rolled")) { Ok(()) } else { Err(comments) }
    });
    seeded.blabber();
    seeded.bad_days();
    seeded.search();
    drop(agents);
}

#[test]
fn nothing_secret_comes_out_of_a_daemon_that_logs_for_people() {
    nothing_comes_out("human");
}

#[test]
fn nothing_secret_comes_out_of_a_daemon_that_logs_json() {
    nothing_comes_out("json");
}

#[test]
fn an_app_and_its_key_are_not_told() {
    let mut secrets = Secrets::default();
    let files = tempfile::tempdir().expect("a directory");
    let (key, ssh) = (files.path().join("app.pem"), files.path().join("ssh"));
    let pem = include_str!("../src/forge/outbound/tests/tls/app-key.pem");
    write_secret(&key, pem);
    for line in pem.lines().filter(|line| line.len() > 40) {
        secrets.watch("the App's key", line);
    }
    write_secret(&ssh, &format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n", secrets.make("a broken ssh key")));
    let installation = secrets.make("the token of an installation");
    let proxy = secrets.make("the password of a proxy");
    // How every proof of an App begins: {"alg":"RS256","typ":"JWT"}.
    secrets.forms.push(("the App's proof", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"#)));
    let forge = ForgeServer::start(Plays::GitHub);
    let token: &'static str =
        format!(r#"{{"token":"{installation}","expires_at":"2099-01-01T00:00:00Z","permissions":{{}}}}"#).leak();
    forge.then([Mood::Says(200, "", r#"{"id": 7}"#), Mood::Says(201, "", token)]);
    let repository = gateways(AT_ONCE);
    let mut flags: Vec<String> =
        forge.flags(Path::new("none")).into_iter().filter(|flag| !flag.starts_with("--forge-token")).collect();
    flags.extend(["--log=trace".to_owned(), "--forge-app-id=12345".to_owned()]);
    flags.push(format!("--forge-app-key-file={}", key.display()));
    let on = repository.remote().display().to_string();
    let mut daemon = Daemon::prepared_on(&on, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    daemon.also_in_environment("HTTPS_PROXY", &format!("http://ada:{proxy}@127.0.0.1:{}", support::free_port()));
    daemon.spawn();
    wait_for("the App to be who it says", || {
        let seen = forge.seen();
        if seen.iter().any(|seen| seen.who.contains(&installation)) { Ok(()) } else { Err((seen, daemon.status())) }
    });
    // Nobody listens there: what is tried with the key fails, and is told.
    let mut keyed = Daemon::prepared_on(
        &on,
        &[
            "--log=trace",
            &format!("--journal-ssh-key-file={}", ssh.display()),
            &format!("--journal-repo=ssh://git@127.0.0.1:{}/notes.git", support::free_port()),
        ],
    );
    keyed.spawn();
    wait_for("the journal to be told unreachable", || {
        let error = keyed.status()["journal"]["error"].clone();
        if error.is_null() { Err(keyed.status()) } else { Ok(()) }
    });
    let mut search = Search::new(&secrets);
    for path in ["/readyz", "/metrics", "/api/v1/status"] {
        search.look(path, get(daemon.admin(), path).expect("an answer").1);
    }
    search.look("the log", daemon.process().log());
    search.directory(&daemon.state());
    search.look("the log of the one with a key", keyed.process().log());
    search.look("its status", keyed.status().to_string());
    search.directory(&keyed.state());
    search.clean(10);
}

#[test]
fn a_proxy_s_password_is_not_told() {
    let mut secrets = Secrets::default();
    let password = secrets.make("the password of a proxy");
    // Nobody listens there, and no name has to be looked up.
    let proxy = format!("http://ada:{password}@127.0.0.1:{}", support::free_port());
    let mut daemon = Daemon::prepared_on("https://git.invalid/fleet.git", &["--log=trace", "--interval=1h"]);
    for name in ["HTTPS_PROXY", "https_proxy"] {
        daemon.also_in_environment(name, &proxy);
    }
    daemon.spawn();
    let error = wait_for("the failure to be told", || {
        let error = daemon.status()["sync"]["error"].clone();
        if error.is_null() { Err(error) } else { Ok(error.to_string()) }
    });
    let mut search = Search::new(&secrets);
    search.look("status", error);
    search.look("the log", daemon.process().log());
    search.directory(&daemon.state());
    search.clean(4);
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let mut secrets = Secrets::default();
    let value = secrets.make("here");
    for (text, finds) in [
        (format!("token={value},"), true),
        (format!("Basic {}", STANDARD.encode(format!("x-access-token:{value}"))), true),
        (format!("Basic {}", STANDARD.encode(format!("ada:{value}"))), true),
        (format!("Basic {}", STANDARD.encode(format!("adam:{value}:"))), true),
        (format!("{}0a", hex::encode(&value)), true),
        ("token=***".to_owned(), false),
    ] {
        assert_eq!(!secrets.found_in("a text", text.as_bytes()).is_empty(), finds, "{text}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path().join("x.git");
    let git = |arguments: &[&str]| {
        let output = run(Command::new("git").arg("-C").arg(directory.path()).args(arguments));
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "--quiet", "--bare", "x.git"]);
    std::fs::write(directory.path().join("file"), &value).expect("a file");
    git(&["--git-dir=x.git", "hash-object", "-w", "file"]);
    let mut search = Search::new(&secrets);
    search.directory(&at);
    assert!(search.found.iter().any(|found| found.contains("objects in")), "what Git compressed: {:?}", search.found);
}
