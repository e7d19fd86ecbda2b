//! Nothing secret comes out of what agents, operators and receivers of alerts prove themselves with, nor out of a fleet's files.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};
use support::issuer::Issuer;
use support::secrets::{Search, Secrets};
use support::{Daemon, Repository, free_port, get, gitamp, run, wait_for, write_secret};

const GROUP: &str = "apiVersion: gitamp/v1\nkind: Group\nselector: {matchLabels: {service.name: gateway}}\n";

const COLLECTOR: &str = "\
receivers:
  otlp:
    protocols: {grpc: {}}
exporters:
  debug:
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [debug]}
";

/// Answers every request with an error that repeats all of it; ends with the test's process.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // What goes wrong with one connection is seen by whoever asked.
            std::thread::spawn(move || repeat(stream).unwrap_or_default());
        }
    });
    address
}

fn repeat(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut whole, mut length) = (String::new(), 0);
    loop {
        let begin = whole.len();
        reader.read_line(&mut whole)?;
        let line = whole[begin..].to_ascii_lowercase();
        length = line.strip_prefix("content-length:").and_then(|rest| rest.trim().parse().ok()).unwrap_or(length);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let said = format!("{whole}{}", String::from_utf8_lossy(&body));
    write!(stream, "HTTP/1.1 500 No\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{said}", said.len())
}

fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

/// `GET` or `POST` with headers over plain HTTP; whatever comes back.
fn ask(at: SocketAddr, line: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(at).expect("accepted");
    stream.set_read_timeout(Some(support::PATIENCE)).expect("a timeout");
    let request =
        format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Settings with receivers whose addresses, tokens and keys are secrets.
fn settings(secrets: &mut Secrets, directory: &Path, receiver: SocketAddr) -> String {
    let mut file = |place: &'static str, name: &str, text: &dyn Fn(&str) -> String| {
        let value = secrets.make(place);
        write_secret(&directory.join(name), &format!("{}\n", text(&value)));
    };
    file("the path of a receiver", "chat", &|secret| format!("http://{receiver}/services/{secret}?key=1"));
    file("the query of a receiver", "hook", &|secret| format!("http://{receiver}/in?token={secret}"));
    file("the key of a receiver", "hook-key", &|secret| secret.to_owned());
    file("the token of a receiver", "am-token", &|secret| secret.to_owned());
    let said = secrets.make("an address in the settings");
    let text = format!(
        "alerts:\n  staleAfter: 1s\n  receivers:\n    - {{name: chat, type: slack, urlFile: chat}}\n    - {{name: hook, type: webhook, urlFile: \
         hook, secretFile: hook-key}}\n    - {{name: am, type: alertmanager, url: 'http://{receiver}', tokenFile: am-token}}\n    - {{name: said, \
         type: webhook, url: 'http://{receiver}/{said}'}}\n"
    );
    write_secret(&directory.join("gitamp.yaml"), &text);
    format!("--config={}", directory.join("gitamp.yaml").display())
}

/// A daemon that knows agents, operators and receivers by secrets, its repository, and where operators are served.
struct House {
    directory: tempfile::TempDir,
    repository: Repository,
    daemon: Daemon,
    api: u16,
}

/// A file of the tests' certificates.
fn fixture(name: &str) -> String {
    format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// One token in a file of such.
fn tokens(token: &str, labels: &str) -> String {
    format!("tokens:\n- {{name: one, sha256: {}, labels: {{{labels}}}}}\n", hash(token))
}

/// A JWT that counts for this audience, with a claim that is nobody's business.
fn jwt(secrets: &mut Secrets, issuer: &Issuer, audience: &'static str) -> String {
    let claim = secrets.make(audience);
    let token = issuer.token(&json!({
        "iss": "https://sso.example.com", "aud": audience, "sub": "ann", "exp": 4_102_444_800_u64, "team": "ops", "session": claim,
    }));
    // Without it the rest proves nothing, which anybody may read.
    secrets.watch("the signature of a JWT that counts", token.rsplit('.').next().unwrap_or_default());
    token
}

impl House {
    fn open(secrets: &mut Secrets, format: &str, agent: &str, operator: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let config = settings(secrets, directory.path(), echo());
        write_secret(&path("agents.yaml"), &tokens(agent, "env: prod"));
        write_secret(&path("operators.yaml"), &tokens(operator, "role: operate"));
        write_secret(&path("token"), operator);
        let issuer = Issuer::new();
        write_secret(&path("keys.json"), &issuer.jwks());
        let from = |audience: &str, gives: &str| {
            format!(
                "issuers: [{{issuer: https://sso.example.com, audience: {audience}, jwksFile: keys.json, {gives}}}]\n"
            )
        };
        write_secret(&path("agent-issuers.yaml"), &from("agents", "labels: {team: team}"));
        let roles = "name: sub, roles: [{role: operate, claims: {team: ops}}]";
        write_secret(&path("operator-issuers.yaml"), &from("operators", roles));
        write_secret(&path("agent-jwt"), &jwt(secrets, &issuer, "agents"));
        write_secret(&path("jwt"), &jwt(secrets, &issuer, "operators"));
        let key = std::fs::read_to_string(fixture("server-key.pem")).expect("a key");
        for line in key.lines().filter(|line| line.len() > 30) {
            secrets.watch("the private key", line);
        }
        write_secret(&path("key.pem"), &key);
        let repository = Repository::with(&[("a/group.yaml", GROUP), ("a/collector.yaml", COLLECTOR)]);
        let api = free_port();
        let named = |flag: &str, name: &str| format!("--{flag}={}", path(name).display());
        let flags = [
            config,
            named("agent-token-file", "agents.yaml"),
            named("api-token-file", "operators.yaml"),
            named("agent-issuers-file", "agent-issuers.yaml"),
            named("api-issuers-file", "operator-issuers.yaml"),
            format!("--log-format={format}"),
            format!("--api-listen=127.0.0.1:{api}"),
            format!("--api-cert-file={}", fixture("server.pem")),
            named("api-key-file", "key.pem"),
            "--log=trace".to_owned(),
            "--interval=1s".to_owned(),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let daemon = Daemon::start(&repository, &flags);
        Self { directory, repository, daemon, api }
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The repository goes away, which the receivers hear of, and they refuse it.
    fn bad_days(&self) -> String {
        let remote = self.repository.remote();
        std::fs::rename(&remote, remote.with_extension("away")).expect("it goes away");
        wait_for("all receivers to refuse", || {
            let receivers = self.daemon.status()["alerts"]["receivers"].clone();
            let all = receivers.as_array().cloned().unwrap_or_default();
            let have_all = all.len() == 4 && all.iter().all(|one| one["error"].is_string());
            if have_all { Ok(receivers.to_string()) } else { Err(receivers) }
        })
    }

    /// What operators are told, with a token that counts and with one of nobody.
    fn operators(&self, search: &mut Search<'_>) {
        let (server, ca) =
            (format!("--server=https://localhost:{}", self.api), format!("--ca-file={}", fixture("ca.pem")));
        for (token, line) in [
            ("token", "status"),
            ("token", "pause a --yes --reason x"),
            ("token", "sync"),
            ("token", "promote a --yes"),
            ("jwt", "status --output json"),
            ("jwt", "agents"),
            ("jwt", "resume a --yes"),
            ("jwt", "pause a --yes --reason y"),
            ("agent-jwt", "status"),
            ("wrong", "status"),
        ] {
            let words = line.split(' ').chain([server.as_str(), ca.as_str()]);
            let output = search.command(gitamp(words).arg(format!("--token-file={}", self.file(token))));
            // The repository is away, and promoting needs another role: what matters of these two is what they say.
            let is_told = line.starts_with("status") || line.starts_with("pause");
            assert!(!is_told || output.status.success() == ["token", "jwt"].contains(&token), "{line}: {output:?}");
        }
    }

    fn search(&self, search: &mut Search<'_>) {
        for name in [Some("chat"), Some("hook"), Some("am"), Some("said"), None] {
            search.command(
                gitamp(["alerts", "test"].into_iter().chain(name)).args(["--config", &self.file("gitamp.yaml")]),
            );
        }
        search.command(&mut gitamp(["token", "list", "--file", &self.file("agents.yaml")]));
        for page in ["/metrics", "/api/v1/status", "/api/v1/groups", "/api/v1/agents"] {
            search.look(page, get(self.daemon.admin(), page).expect("an answer").1);
        }
        for output in ["human", "json"] {
            search.command(&mut self.daemon.command(&["status", "--output", output]));
        }
        search.directory(&self.daemon.state());
        let log = self.daemon.process().log();
        for part in ["TRACE", "a request of an operator was refused", "an agent is not let in"] {
            assert!(log.contains(part), "{part:?} is not in the log: was it written at all?");
        }
        search.look("the log", &log);
        let process = std::fs::read(format!("/proc/{}/cmdline", self.daemon.process().id())).expect("it runs");
        search.look("the process list", process);
    }
}

#[test]
fn proofs_of_agents_operators_and_receivers_are_not_told() {
    nothing_is_told("json");
}

#[test]
fn proofs_are_not_told_in_lines_for_people_either() {
    nothing_is_told("human");
}

fn nothing_is_told(format: &str) {
    let mut secrets = Secrets::default();
    let (agent, operator) = (secrets.make("an agent's token"), secrets.make("an operator's token"));
    let house = House::open(&mut secrets, format, &agent, &operator);
    write_secret(&house.directory.path().join("wrong"), &secrets.make("a token of nobody"));
    let (guess, query) = (secrets.make("a guessed token"), secrets.make("a token in a query"));
    let jwt = format!("eyJhbGciOiJFUzI1NiJ9.e30.{}", secrets.make("the signature of a JWT"));
    let refused = house.bad_days();

    let mut search = Search::new(&secrets);
    search.look("what became of messages", refused);
    let counts = std::fs::read_to_string(house.file("agent-jwt")).expect("a token");
    for bearer in [&agent, &counts, &guess, &jwt] {
        let authorization = format!("Authorization: Bearer {bearer}\r\n");
        let message = format!("Content-Type: application/x-protobuf\r\n{authorization}");
        search.look("an answer to an agent", ask(house.daemon.agents(), "POST /v1/opamp", &message));
        let line = format!("GET /v1/opamp?access_token={query}");
        search.look("an answer to a query", ask(house.daemon.agents(), &line, &authorization));
    }
    house.operators(&mut search);
    house.search(&mut search);
    search.clean(60);
}

#[test]
fn a_key_with_a_passphrase_is_refused_without_a_word_of_it() {
    let mut secrets = Secrets::default();
    let directory = tempfile::tempdir().expect("a directory");
    let key = directory.path().join("key.pem");
    let body = secrets.make("a key with a passphrase");
    write_secret(
        &key,
        &format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{body}\n-----END ENCRYPTED PRIVATE KEY-----\n"),
    );
    let mut search = Search::new(&secrets);
    let output = search.command(
        gitamp(["serve", "--repo=/srv/none", "--log=trace", "--listen=127.0.0.1:0", "--admin-listen=off"])
            .arg(format!("--state-dir={}", directory.path().join("state").display()))
            .arg(format!("--tls-cert-file={}", fixture("server.pem")))
            .arg(format!("--tls-key-file={}", key.display())),
    );
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success() && said.contains("without a passphrase"), "{said}");
    search.clean(2);
}

/// `gitamp check` runs in pipelines, whose logs more people read than the repository.
#[test]
fn findings_never_show_the_line_of_a_credential() {
    let mut secrets = Secrets::default();
    let repository = Repository::with(&[("a/group.yaml", GROUP), ("b/group.yaml", GROUP), ("c/group.yaml", GROUP)]);
    let (whole, beside, broken) =
        (secrets.make("a credential"), secrets.make("one beside an error"), secrets.make("one in a broken line"));
    let exporter = |text: &str| COLLECTOR.replace("  debug:\n", &format!("  debug:\n{text}\n"));
    repository.write(&[
        ("a/collector.yaml", &exporter(&format!("  otlphttp:\n    headers: {{Authorization: 'Bearer {whole}'}}"))),
        (
            "b/collector.yaml",
            &exporter(&format!("  x: {{password: {beside}, a::b: 1, region: \"${{fleet:nowhere}}\"}}")),
        ),
        ("c/collector.yaml", &exporter(&format!("  x: {{password: {broken}, y: [}}"))),
    ]);
    let mut search = Search::new(&secrets);
    let mut said = String::new();
    for output in ["human", "json", "github"] {
        let output = search.command(gitamp(["check", "--output", output]).current_dir(repository.work()));
        said.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    for words in ["plain-secret", "nowhere", "c/collector.yaml"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    search.command(gitamp(["render"]).current_dir(repository.work()));
    search.command(gitamp(["match", "service.name=gateway"]).current_dir(repository.work()));
    // The note is pushed, and a rejected group's findings stand in it.
    let daemon = Daemon::start(&repository, &["--log=trace"]);
    let head = repository.commit("Credentials in the clear", &[]);
    let note = wait_for("the note to tell", || {
        let note = repository.note(&head).unwrap_or_default();
        if note.contains("rejected") { Ok(note) } else { Err(note) }
    });
    search.look("the note", note);
    search.look("status", daemon.status().to_string());
    search.look("the log", daemon.process().log());
    search.look("metrics", get(daemon.admin(), "/metrics").expect("metrics").1);
    search.clean(14);
    let shown = run(gitamp(["render", "a"]).current_dir(repository.work()));
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&whole), "what is asked for is shown");
}
