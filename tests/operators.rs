//! Operators on other machines: roles, tokens, whose commit it is, and what the journal keeps of all that.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gitamp::simulate::{Attribute, DelayRange, Endpoint, Fleet, Options};
use sha2::{Digest, Sha256};
use support::{Daemon, Repository, free_port, get, gitamp, post, run, wait_for};

/// Everybody at once: this is about who may say so.
const GROUP: &str = "\
apiVersion: gitamp/v1
kind: Group
selector:
  matchLabels: {service.name: otelcol-gateway}
rollout:
  stages: [{name: all, agents: 100%, soak: 0s}]
  bake: 0s
  maxUnavailable: 100%
";

fn collector(level: &str) -> String {
    format!(
        "receivers:\n  otlp:\n    protocols: {{grpc: {{}}}}\nexporters:\n  debug:\n    verbosity: {level}\nservice:\n  \
         pipelines:\n    traces:\n      receivers: [otlp]\n      exporters: [debug]\n"
    )
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// A daemon with an operators' listener, and the files of operators.
struct House {
    repository: Repository,
    daemon: Daemon,
    files: tempfile::TempDir,
    port: u16,
    is_plain: bool,
}

/// Name, role, address, and when it ends. The token of `ann` is `token-of-ann`.
type Holder<'a> = (&'a str, &'a str, Option<&'a str>, Option<&'a str>);

impl House {
    fn open(is_plain: bool, more: &[&str], holders: &[Holder<'_>]) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        write_private(&files.path().join("operators.yaml"), &tokens(holders));
        for (name, _, _, _) in holders.iter().chain(&[("stranger", "", None, None)]) {
            write_private(&files.path().join(name), &format!("token-of-{name}\n"));
        }
        write_private(
            &files.path().join("key.pem"),
            &std::fs::read_to_string(fixture("server-key.pem")).expect("a key"),
        );
        let repository =
            Repository::with(&[("gateways/group.yaml", GROUP), ("gateways/collector.yaml", &collector("basic"))]);
        let port = free_port();
        let path = |name: &str| files.path().join(name).display().to_string();
        let mut arguments =
            vec![format!("--api-listen=127.0.0.1:{port}"), format!("--api-token-file={}", path("operators.yaml"))];
        if is_plain {
            arguments.push("--api-plain".to_owned());
        } else {
            arguments.push(format!("--api-cert-file={}", fixture("server.pem").display()));
            arguments.push(format!("--api-key-file={}", path("key.pem")));
        }
        arguments.extend(["--interval=1h"].iter().chain(more).map(|argument| (*argument).to_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let daemon = Daemon::start(&repository, &arguments);
        Self { repository, daemon, files, port, is_plain }
    }

    /// What a command of this operator comes to: exit code, output, errors.
    fn ask(&self, who: &str, line: &str) -> (Option<i32>, String, String) {
        let mut command = gitamp(line.split(' '));
        let scheme = if self.is_plain { "http" } else { "https" };
        command.arg(format!("--server={scheme}://127.0.0.1:{}", self.port));
        command.arg("--token-file").arg(self.files.path().join(who)).arg("--ca-file").arg(fixture("ca.pem"));
        let output = run(&mut command);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    fn may(&self, who: &str, line: &str) -> String {
        let (code, text, errors) = self.ask(who, line);
        assert_eq!(code, Some(0), "{who}: {line}: {text} {errors}");
        text
    }

    fn may_not(&self, who: &str, line: &str, words: &str) {
        let (code, text, errors) = self.ask(who, line);
        assert_ne!(code, Some(0), "{who}: {line}: {text}");
        assert!(errors.contains(words), "{who}: {line}: {words:?} is not in: {errors}");
        assert!(!errors.contains("it is not known whether"), "{who}: {line}: {errors}");
    }

    /// Waits until the journal's history, as anybody reads it from the remote, has these lines.
    fn audit(&self, lines: &[&str]) -> String {
        wait_for("the journal to tell of it", || {
            let fetch = ["fetch", "--quiet", "origin", "+refs/notes/gitamp/*:refs/notes/gitamp/*"];
            self.repository.git(&fetch);
            let log = self.repository.git(&["log", "--format=%B", "refs/notes/gitamp/default"]);
            if lines.iter().all(|line| log.contains(line)) { Ok(log) } else { Err(log) }
        })
    }

    fn fleet(&self) -> Fleet {
        let server = Endpoint::resolve(&format!("ws://{}/v1/opamp", self.daemon.agents()), false).expect("loopback");
        let mut options = Options::new(server, 4);
        options.attributes = Attribute::parse_all(&["service.name=otelcol-gateway"]).expect("an attribute");
        options.apply_delay = DelayRange { from: Duration::from_millis(10), to: Duration::from_millis(50) };
        let fleet = Fleet::start(options).expect("a fleet");
        self.repository.ending(&self.repository.git(&["rev-parse", "HEAD"]), "succeeded");
        fleet
    }

    /// A commit that waits for a person's word.
    fn held(&self, level: &str, author: &str) -> String {
        self.repository.write(&[("gateways/collector.yaml", &collector(level))]);
        self.repository.git(&["add", "--all"]);
        let message = "Say more\n\nGitamp-Rollout: hold";
        self.repository.git(&["commit", "--quiet", "--author", author, "--message", message]);
        self.repository.git(&["push", "--quiet", "origin", "main"]);
        self.daemon.ask(&["sync"]);
        wait_for("the rollout to be held", || {
            let text = self.daemon.ask(&["rollout", "gateways"]);
            if text.contains("hold") { Ok(()) } else { Err(text) }
        });
        self.repository.git(&["rev-parse", "HEAD"])
    }
}

fn write_private(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    std::fs::rename(new, path).expect("renamed");
}

fn tokens(holders: &[Holder<'_>]) -> String {
    let mut text = "tokens:\n".to_owned();
    for (name, role, email, expires) in holders {
        let hash = hex::encode(Sha256::digest(format!("token-of-{name}")));
        let email = email.map(|mail| format!(", email: {mail}")).unwrap_or_default();
        let expires = expires.map(|end| format!(", expires: {end}")).unwrap_or_default();
        text += &format!("- {{name: {name}, sha256: {hash}, labels: {{role: {role}{email}}}{expires}}}\n");
    }
    text
}

#[test]
fn each_role_does_what_it_may_and_the_journal_tells() {
    let holders: &[Holder<'_>] = &[
        ("vera", "view", None, None),
        ("olga", "operate", Some("olga@example.org"), None),
        ("abel", "approve", None, Some("2120-01-01T00:00:00Z")),
        ("late", "approve", None, Some("2020-01-01T00:00:00Z")),
    ];
    let house = House::open(false, &[], holders);
    let fleet = house.fleet();
    for line in ["status", "agents", "rollout gateways", "agents --output json", "status --output json"] {
        house.may("vera", line);
    }
    let agents: serde_json::Value = serde_json::from_str(&house.may("vera", "agents --output json")).expect("JSON");
    let id = agents["agents"][0]["id"].as_str().expect("an id").to_owned();
    assert!(house.may("vera", &format!("explain {id}")).contains("gateways"));
    house.may_not(
        "vera",
        "freeze --reason drill --yes",
        "refused: freeze needs the role operate, and vera (API) has the role view",
    );
    house.may_not("vera", "sync", "sync needs the role operate");
    house.may("olga", "freeze --reason drill --yes");
    house.may("olga", "unfreeze --yes");
    house.may("olga", "sync");
    let commit = house.held("normal", "Ada Platform <ada@example.com>");
    house.may_not("olga", "promote gateways --yes", "promote needs the role approve");
    house.may_not("olga", "resume gateways --yes", "resume needs the role approve");
    house.may("abel", "promote gateways --reason looked-at --yes");
    house.repository.ending(&commit, "succeeded");
    let log = house.audit(&[
        "freeze by vera (API) (drill): refused: freeze needs the role operate",
        "sync by vera (API): refused: sync needs the role operate",
        "freeze by olga <olga@example.org> (API) (drill): the whole fleet: no offer of any kind leaves",
        "sync by olga <olga@example.org> (API)",
        "promote by olga <olga@example.org> (API): refused: promote needs the role approve",
        "promote by abel (API) (looked-at): gateways: the stage that waits may start",
    ]);
    assert!(!log.contains("token-of"), "{log}");

    house.may_not("late", "status", "the token ended 2020-01-01T00:00:00Z");
    house.may_not("stranger", "status", "the token is not known");
    write_private(&house.files.path().join("operators.yaml"), &tokens(&holders[..2]));
    wait_for("the revocation to count", || {
        let (code, _, errors) = house.ask("abel", "status");
        if code != Some(0) && errors.contains("the token is not known") { Ok(()) } else { Err(errors) }
    });
    house.may("vera", "status");
    write_private(&house.files.path().join("operators.yaml"), "tokens: [{name: vera}]\n");
    wait_for("the broken file to be told of", || {
        let status = house.may("vera", "status");
        if status.contains("the operators' listener: ") && status.contains("stays in use") {
            Ok(())
        } else {
            Err(status)
        }
    });
    let own = house.daemon.process().log();
    assert!(!own.contains("token-of"), "{own}");
    assert!(house.daemon.metric("gitamp_api_requests_total{result=\"ok\"}").is_some_and(|count| count >= 10.0));
    // The socket is what it was.
    house.daemon.ask(&["freeze", "--reason", "drill", "--yes"]);
    let mut wrong = gitamp(["status", &format!("--server=https://127.0.0.1:{}", house.port)]);
    wrong.arg("--token-file").arg(house.files.path().join("vera")).arg("--ca-file").arg(fixture("foreign-ca.pem"));
    let output = run(&mut wrong);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && errors.contains("cannot reach the daemon"),
        "nobody else is sent a token: {errors}"
    );
    drop(fleet);
}

#[test]
fn nobody_approves_an_own_commit() {
    let holders: &[Holder<'_>] = &[
        ("ada", "approve", Some("Ada@example.com"), None),
        ("bob", "approve", Some("bob@example.com"), None),
        ("carl", "approve", Some("carl@example.com"), None),
        ("robot", "approve", None, None),
    ];
    let house = House::open(false, &["--no-self-approval"], holders);
    let fleet = house.fleet();
    let commit = house.held("normal", "Bob <bob@example.com>");
    house.may_not("ada", "promote gateways --yes", "wrote or committed what gateways waits with");
    house.may_not("bob", "promote gateways --yes", "nobody approves an own commit here");
    house.may_not("bob", &format!("promote {commit} --yes"), "nobody approves an own commit here");
    house.may_not("bob", "resume gateways --yes", "nobody approves an own commit here");
    house.may_not("robot", "promote gateways --yes", "no e-mail address");
    house.may("carl", "promote gateways --yes");
    house.repository.ending(&commit, "succeeded");
    house.audit(&["promote by bob <bob@example.com> (API): refused: bob <bob@example.com> (API) wrote or committed"]);
    // Whoever may open the socket may do everything.
    let second = house.held("detailed", "Bob <bob@example.com>");
    house.daemon.ask(&["promote", "gateways", "--yes"]);
    house.repository.ending(&second, "succeeded");
    drop(fleet);
}

#[test]
fn strangers_are_slowed_and_nobody_else() {
    let house = House::open(true, &[], &[("vera", "view", None, None)]);
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], house.port));
    let bearer = |token: &str| format!("Bearer {token}");
    let send = |headers: &[(&str, &str)]| post(at, "/api/v1/sync", headers, b"").expect("an answer");
    assert_eq!(get(at, "/healthz").expect("an answer").0, 401, "nothing is told to who proves nothing");
    let good = bearer("token-of-vera");
    for (headers, code) in [
        (vec![("Authorization", good.as_str())], 403),
        (vec![("Authorization", good.as_str()), ("Origin", "https://evil.example")], 403),
        (vec![("Authorization", good.as_str()), ("Authorization", good.as_str())], 401),
        (vec![("Authorization", "Basic dmVyYTp4")], 401),
        (vec![("Cookie", "token=token-of-vera")], 401),
        (vec![("Authorization", "Bearer ")], 401),
    ] {
        let (status, body) = send(&headers);
        assert_eq!(status, code, "{headers:?}: {body}");
        assert_eq!(body.contains("browsers"), headers.iter().any(|(name, _)| *name == "Origin"), "{body}");
    }
    let evil = "GET /api/v1/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\nAuthorization: Bearer token-of-vera\r\n\r\n";
    assert_eq!(raw(at, evil), Some(421), "a name that somebody's DNS leads here");
    let large = format!("{{\"command\":\"pause\",\"group\":\"{}\"}}", "x".repeat(20_000));
    let (status, body) =
        post(at, "/api/v1/orders", &[("Authorization", good.as_str())], large.as_bytes()).expect("an answer");
    assert_eq!(status, 413, "{body}");

    let codes: Vec<u16> = std::thread::scope(|scope| {
        let guesses: Vec<_> =
            (0..30).map(|number| scope.spawn(move || send_guess(at, &format!("Bearer guess-{number}")))).collect();
        let known = house.ask("vera", "status");
        assert_eq!(known.0, Some(0), "whoever is known is not slowed: {known:?}");
        guesses.into_iter().map(|guess| guess.join().expect("an answer")).collect()
    });
    assert!(codes.iter().all(|code| [401, 429].contains(code)), "{codes:?}");
    assert!(codes.contains(&429), "{codes:?}");
    let slowed = house.daemon.metric("gitamp_api_requests_total{result=\"slowed\"}");
    assert!(slowed.is_some_and(|count| count >= 1.0), "{slowed:?}");
    let log = house.daemon.process().log();
    assert!(!log.contains("guess-") && !log.contains("token-of"), "{log}");
    let told = log.matches("a request of an operator was refused").count();
    assert!((1..=30).contains(&told), "strangers do not fill the log: {told}");
}

fn send_guess(at: std::net::SocketAddr, bearer: &str) -> u16 {
    post(at, "/api/v1/sync", &[("Authorization", bearer)], b"").expect("an answer").0
}

/// The status of the answer to a request as it stands.
fn raw(at: std::net::SocketAddr, request: &str) -> Option<u16> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(at).expect("a connection");
    stream.set_read_timeout(Some(support::PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1)?.parse().ok()
}
