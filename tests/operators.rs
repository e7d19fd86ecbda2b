//! Operators on other machines: roles, tokens, whose commit it is, and what the journal keeps of all that.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gitamp::simulate::Fleet;
use sha2::{Digest, Sha256};
use support::gateways::{AT_ONCE, agents, collector, gateways};
use support::issuer::Issuer;
use support::{Daemon, Repository, free_port, get, gitamp, post, run, wait_for};

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
        Self::open_in(tempfile::tempdir().expect("a directory"), is_plain, more, holders)
    }

    /// The same with files that are there already.
    fn open_in(files: tempfile::TempDir, is_plain: bool, more: &[&str], holders: &[Holder<'_>]) -> Self {
        write_private(&files.path().join("operators.yaml"), &tokens(holders));
        for (name, _, _, _) in holders.iter().chain(&[("stranger", "", None, None)]) {
            write_private(&files.path().join(name), &format!("token-of-{name}\n"));
        }
        write_private(
            &files.path().join("key.pem"),
            &std::fs::read_to_string(fixture("server-key.pem")).expect("a key"),
        );
        let repository = gateways(&format!("{AT_ONCE}  maxUnavailable: 100%\n"));
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
            let log = self.repository.try_git(&["log", "--format=%B", "refs/notes/gitamp/default"])?;
            if lines.iter().all(|line| log.contains(line)) { Ok(log) } else { Err(log) }
        })
    }

    fn fleet(&self) -> Fleet {
        let fleet = agents(&self.daemon, 4);
        self.repository.ending(&self.repository.git(&["rev-parse", "HEAD"]), "succeeded");
        fleet
    }

    /// A commit that waits for a person's word.
    fn held(&self, level: &str, author: &str) -> String {
        self.write(author, "Say more\n\nGitamp-Rollout: hold", "gateways/collector.yaml", &collector(level));
        self.take_held()
    }

    /// Somebody's commit, which is not pushed yet.
    fn write(&self, author: &str, message: &str, path: &str, text: &str) {
        self.repository.write(&[(path, text)]);
        self.repository.git(&["add", "--all"]);
        self.repository.git(&["commit", "--quiet", "--author", author, "--message", message]);
    }

    /// Pushes, and waits until the rollout waits for a person's word; the head.
    fn take_held(&self) -> String {
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
        !output.status.success() && errors.contains("cannot reach the daemon") && errors.contains("--ca-file"),
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
    house.may_not("ada", "promote gateways --yes", "wrote or committed a part of what gateways waits with");
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
fn a_push_of_several_is_approved_by_none_of_their_authors() {
    let email = |name: &str| format!("{name}@example.org");
    let (bob, carl, dora, eve, zoe) = (email("bob"), email("carl"), email("dora"), email("eve"), email("zoe"));
    let holders: &[Holder<'_>] = &[
        ("bob", "approve", Some(&bob), None),
        ("carl", "approve", Some(&carl), None),
        ("dora", "approve", Some(&dora), None),
        ("eve", "approve", Some(&eve), None),
        ("zoe", "approve", Some(&zoe), None),
    ];
    let house = House::open(false, &["--no-self-approval"], holders);
    let fleet = house.fleet();
    house.write("Bob <bob@example.org>", "Say more", "gateways/collector.yaml", &collector("normal"));
    house.write("Zoe <zoe@example.org>", "About something else", "elsewhere/notes.yaml", "a: 1\n");
    let message = "Words\n\nCo-authored-by: Eve <Eve@example.org>\nGitamp-Rollout: hold";
    house.write(
        "Carl <carl@example.org>",
        message,
        "gateways/defaults.yaml",
        "apiVersion: gitamp/v1\nkind: Defaults\nvars: {a: b}\n",
    );
    let commit = house.take_held();
    for name in ["bob", "carl", "eve"] {
        house.may_not(name, "promote gateways --yes", "wrote or committed a part of what gateways waits with");
        house.may_not(name, &format!("promote {commit} --yes"), "nobody approves an own commit here");
    }
    // Who wrote something that this rollout does not bring is not asked for it.
    house.may("zoe", "promote gateways --yes");
    house.repository.ending(&commit, "succeeded");
    // What runs for good by now is nobody's concern any more.
    let next = house.held("detailed", "Eve <eve@example.org>");
    house.may_not("eve", "promote gateways --yes", "wrote or committed a part");
    house.may("bob", "promote gateways --yes");
    house.repository.ending(&next, "succeeded");
    drop(fleet);
}

/// Claims of a token of an identity provider that ends in ten minutes.
fn claims(name: &str, more: serde_json::Value) -> serde_json::Value {
    let now = gitamp::clock::Clock::start().now().as_millis() / 1_000;
    let mut claims = serde_json::json!({
        "iss": "https://sso.example.org", "aud": "gitamp-api", "sub": format!("id-of-{name}"), "exp": now + 600, "nbf": now - 1,
        "preferred_username": name, "email": format!("{name}@example.org"), "email_verified": true
    });
    claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    claims
}

const ISSUERS: &str = "\
issuers:
- issuer: https://sso.example.org
  audience: gitamp-api
  jwksFile: sso-keys.json
  name: preferred_username
  email: email
  roles:
  - {role: approve, claims: {groups: [platform-leads]}}
  - {role: operate, claims: {repository: acme/fleet, ref: [refs/heads/main]}}
  - {role: view, claims: {realm_access/roles: [staff]}}
";

/// Tokens of somebody who would be a lead if they were good, and the reasons why they are not.
fn tokens_that_prove_nothing(issuer: &Issuer) -> [(String, &'static str); 6] {
    let leads = || serde_json::json!({"groups": ["platform-leads"]});
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims("lena", leads());
        claims[name] = value;
        claims
    };
    [
        (issuer.token(&with("iss", "https://evil.example.org".into())), "the token's issuer is not trusted here"),
        (issuer.sign("none", &claims("lena", leads())), "the token is signed in a way that is not understood here"),
        (Issuer::new().token(&claims("lena", leads())), "the token's signature is not of a key of its issuer"),
        (issuer.token(&with("aud", "gitamp".into())), "the token was made for another audience"),
        (issuer.token(&with("exp", 1_600_000_000.into())), "the token ended 2020-09-13T12:27:40Z"),
        (issuer.token(&with("nbf", 4_000_000_000_u64.into())), "the token does not hold before 2096-10-02"),
    ]
}

#[test]
fn people_of_an_issuer_are_known_by_their_claims() {
    let files = tempfile::tempdir().expect("a directory");
    let (issuer, path) = (Issuer::new(), files.path().to_owned());
    write_private(&path.join("sso-keys.json"), &issuer.jwks());
    write_private(&path.join("issuers.yaml"), ISSUERS);
    let flag = format!("--api-issuers-file={}", path.join("issuers.yaml").display());
    let house = House::open_in(files, false, &["--no-self-approval", &flag], &[("vera", "view", None, None)]);
    let show = |who: &str, token: &str| write_private(&path.join(who), token);
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    for (name, more) in [
        ("lena", r#"{"groups": ["staff", "platform-leads"]}"#),
        ("lars", r#"{"groups": "platform-leads"}"#),
        ("sam", r#"{"realm_access": {"roles": ["staff"]}}"#),
        ("robot", r#"{"repository": "acme/fleet", "ref": "refs/heads/main"}"#),
        ("fork", r#"{"repository": "acme/fleet", "ref": "refs/pull/7/merge"}"#),
    ] {
        show(name, &issuer.token(&claims(name, json(more))));
    }
    let fleet = house.fleet();
    house.may("sam", "status");
    house.may("vera", "status");
    house.may_not(
        "sam",
        "freeze --reason drill --yes",
        "freeze needs the role operate, and sam <sam@example.org> (API, https://sso.example.org) has the role view",
    );
    house.may("robot", "sync");
    house.may_not("fork", "freeze --reason drill --yes", "no rule of its issuer gives `fork` a role here");
    let commit = house.held("normal", "Lena <Lena@Example.org>");
    house.may_not("robot", "promote gateways --yes", "promote needs the role approve");
    house.may_not("lena", "promote gateways --yes", "nobody approves an own commit here");
    house.may("lars", "promote gateways --reason looked-at --yes");
    house.repository.ending(&commit, "succeeded");

    for (token, words) in tokens_that_prove_nothing(&issuer) {
        show("mallory", &token);
        house.may_not("mallory", "sync", words);
    }
    let log = house.audit(&[
        "freeze by sam <sam@example.org> (API, https://sso.example.org) (drill): refused: freeze needs the role operate",
        "sync by robot <robot@example.org> (API, https://sso.example.org)",
        "promote by lena <lena@example.org> (API, https://sso.example.org): refused: lena <lena@example.org>",
        "promote by lars <lars@example.org> (API, https://sso.example.org) (looked-at): gateways: the stage that waits may start",
        "sync by somebody at 127.0.0.1: refused: the token's issuer is not trusted here",
        "sync by somebody at 127.0.0.1: refused: the token is signed in a way that is not understood here",
        "an order by somebody at 127.0.0.1: refused: the token is good, and no rule of its issuer gives `fork` a role here",
    ]);
    assert_eq!(log.matches("an order by somebody").count(), 1, "asked beforehand, and not given: {log}");
    assert!(!log.contains("another audience"), "what strangers try is told within bounds: {log}");
    // The rules are read again, and so are the keys.
    write_private(&path.join("issuers.yaml"), &ISSUERS.replace("role: view", "role: operate"));
    wait_for("the new rule to count", || {
        let (code, _, errors) = house.ask("sam", "sync");
        if code == Some(0) { Ok(()) } else { Err(errors) }
    });
    write_private(&path.join("sso-keys.json"), &Issuer::new().jwks());
    wait_for("the key to be gone", || {
        let (code, text, _) = house.ask("lars", "status");
        if code == Some(0) { Err(text) } else { Ok(()) }
    });
    house.may("vera", "status");
    let own = house.daemon.process().log();
    let token = std::fs::read_to_string(path.join("lars")).expect("a file");
    assert!(
        !own.contains(&token) && own.contains("the files of operators' tokens and issuers changed and are in use"),
        "{own}"
    );
    drop(fleet);
}

#[test]
fn what_lets_an_agent_in_commands_nothing_and_the_other_way_round() {
    let files = tempfile::tempdir().expect("a directory");
    let (issuer, path) = (Issuer::new(), files.path().to_owned());
    write_private(&path.join("sso-keys.json"), &issuer.jwks());
    write_private(&path.join("issuers.yaml"), ISSUERS);
    // Careless: the same audience, and one token in both files.
    let of_agents = "issuers: [{issuer: https://sso.example.org, audience: gitamp-api, jwksFile: sso-keys.json}]\n";
    write_private(&path.join("agents.yaml"), of_agents);
    let hash = |token: &str| hex::encode(Sha256::digest(token));
    let entry = |name: &str| format!("- {{name: {name}, sha256: {}}}\n", hash(&format!("token-of-{name}")));
    write_private(&path.join("agent-tokens.yaml"), &format!("tokens:\n{}{}", entry("both"), entry("machine")));
    let flags = [
        ("api-issuers-file", "issuers.yaml"),
        ("agent-issuers-file", "agents.yaml"),
        ("agent-token-file", "agent-tokens.yaml"),
    ]
    .map(|(flag, file)| format!("--{flag}={}", path.join(file).display()));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let holders: &[Holder<'_>] = &[("abel", "approve", None, None), ("both", "approve", None, None)];
    let house = House::open_in(files, true, &flags, holders);
    let lena = issuer.token(&claims("lena", serde_json::json!({"groups": ["platform-leads"]})));
    write_private(&path.join("machine"), "token-of-machine");
    write_private(&path.join("lena"), &lena);
    house.may("abel", "status");
    house.may_not("both", "status", "the token lets agents in, and is no operator's");
    house.may_not("lena", "sync", "the token lets agents in, and is no operator's");
    house.may_not("machine", "status", "the token is not known");
    let poll = |token: &str| {
        let headers = [("Content-Type", "application/x-protobuf"), ("Authorization", &*format!("Bearer {token}"))];
        post(house.daemon.agents(), "/v1/opamp", &headers, b"").expect("an answer").0
    };
    assert_eq!((poll("token-of-abel"), poll("token-of-stranger")), (401, 401));
    assert_ne!(poll("token-of-machine"), 401);
    // Once agents have an audience of their own, so have operators.
    write_private(&path.join("agents.yaml"), &of_agents.replace("gitamp-api", "gitamp"));
    wait_for("the files to be taken", || {
        let (code, _, errors) = house.ask("lena", "status");
        if code == Some(0) { Ok(()) } else { Err(errors) }
    });
    assert_eq!(poll(&lena), 401);
    house.audit(&["sync by somebody at 127.0.0.1: refused: the token lets agents in"]);
}

#[test]
fn requests_that_are_made_to_confuse_come_to_nothing() {
    let holders: &[Holder<'_>] = &[("vera", "view", None, None), ("olga", "operate", None, None)];
    let house = House::open(true, &[], holders);
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], house.port));
    let request = |line: &str, headers: &str, body: &str| {
        raw(at, &format!("{line} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{headers}\r\n{body}"))
    };
    let (vera, olga) = ("Authorization: Bearer token-of-vera\r\n", "Authorization: Bearer token-of-olga\r\n");
    for (what, line, headers, body, status) in [
        ("names of headers in capitals", "GET /api/v1/status", "AUTHORIZATION: BEARER token-of-vera\r\n", "", 200),
        ("a token in the address", "GET /api/v1/status?token=token-of-olga&access_token=token-of-olga", "", "", 401),
        ("two tokens", "GET /api/v1/status", &*format!("{vera}{olga}"), "", 401),
        (
            "two tokens in one line",
            "GET /api/v1/status",
            "Authorization: Bearer token-of-vera, Bearer token-of-olga\r\n",
            "",
            401,
        ),
        ("a header that is too large", "GET /api/v1/status", &*format!("{vera}X: {}\r\n", "x".repeat(40_000)), "", 431),
        (
            "another method in a header",
            "GET /api/v1/orders",
            &*format!("{olga}X-HTTP-Method-Override: POST\r\n"),
            "",
            405,
        ),
        ("a path by another name", "POST //api/v1/sync", olga, "", 404),
        ("a path in capitals", "POST /API/v1/sync", olga, "", 404),
        ("a path that is encoded", "POST /api/v1/s%79nc", olga, "", 404),
        ("a path with more behind it", "POST /api/v1/sync/", olga, "", 404),
        ("a length that is none", "POST /api/v1/orders", &*format!("{olga}Content-Length: -1\r\n"), "", 400),
        (
            "two lengths",
            "POST /api/v1/orders",
            &*format!("{olga}Content-Length: 2\r\nContent-Length: 40\r\n"),
            "{}",
            400,
        ),
        (
            "an encoding that is none",
            "POST /api/v1/orders",
            &*format!("{olga}Transfer-Encoding: xchunked\r\n"),
            "0\r\n\r\n",
            400,
        ),
        ("a header in two lines", "GET /api/v1/status", &*format!("{vera}X: a\r\n b\r\n"), "", 400),
        ("no name before the colon", "GET /api/v1/status", &*format!("{vera}: x\r\n"), "", 400),
        ("an order that is none", "POST /api/v1/orders", &*format!("{olga}Content-Length: 5\r\n"), "[\"\u{1b}\"]", 400),
        ("a page of a browser", "POST /api/v1/sync", &*format!("{olga}Origin: https://evil.example\r\n"), "", 403),
    ] {
        assert_eq!(request(line, headers, body), Some(status), "{what}");
    }
    // What is behind a request that two readers would cut differently is no request of its own.
    let behind = format!("POST /api/v1/sync HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{olga}\r\n");
    let smuggled = format!(
        "POST /api/v1/orders/preview HTTP/1.1\r\nHost: {at}\r\n{vera}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{behind}",
        5 + behind.len()
    );
    assert!(raw(at, &smuggled).is_some_and(|status| status == 400), "refused, and the connection is over");
    let log = house.daemon.process().log();
    assert!(!log.contains("token-of"), "{log}");
    let log = house.audit(&[
        "an order by olga (API): refused: this is no order: ",
        "sync by somebody at 127.0.0.1: refused: pages of browsers are not answered here",
    ]);
    assert!(!log.contains("sync by olga"), "{log}");
}

#[test]
fn what_operators_say_forges_no_line_of_the_records() {
    let house = House::open(true, &[], &[("olga", "operate", None, None)]);
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], house.port));
    let order = |reason: &str| {
        let body = serde_json::json!({"command": "pause", "group": "nowhere", "reason": reason}).to_string();
        post(at, "/api/v1/orders", &[("Authorization", "Bearer token-of-olga")], body.as_bytes()).expect("an answer")
    };
    let (status, words) = order("\u{1b}[2J\r\n\ngitamp: freeze by ann (API): done\u{202e}");
    assert_eq!(status, 409, "there is no such group: {words}");
    assert_eq!(order(&"x".repeat(501)).0, 400);
    let log = house.audit(&[
        "pause by olga (API) ([2J   gitamp: freeze by ann (API): done): refused: ",
        "an order by olga (API): refused: this is no order: the reason is longer",
    ]);
    assert!(!log.contains('\u{1b}') && !log.contains('\u{202e}'), "{log}");
    assert!(!log.lines().any(|line| line.starts_with("gitamp: freeze")), "{log}");
}

/// `gitamp` asks what an order would do before it gives it: what is refused there is a refused command like any other.
#[test]
fn what_is_refused_when_it_is_tried_is_told_and_never_carried_out() {
    let holders: &[Holder<'_>] = &[("vera", "view", None, None), ("olga", "operate", Some("olga@example.org"), None)];
    let house = House::open(true, &[], holders);
    house.fleet();
    house.may_not("olga", "resume gateways --reason early", "refused: gateways: no rollout is running");
    house.may_not("vera", "promote gateways --reason mine --yes", "refused: promote needs the role approve");
    house.may_not("stranger", "freeze --reason mine --yes", "the token is not known");
    let log = house.audit(&[
        "resume by olga <olga@example.org> (API) (early): refused: gateways: no rollout is running",
        "promote by vera (API) (mine): refused: promote needs the role approve, and vera (API) has the role view",
        "an order by somebody at 127.0.0.1: refused: the token is not known",
    ]);
    assert_eq!(log.matches("an order by somebody").count(), 1, "{log}");
    // Possible by now, which nobody has been shown.
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], house.port));
    let order = br#"{"command":"freeze","reason":"drill"}"#;
    let (status, body) =
        post(at, "/api/v1/orders/refused", &[("Authorization", "Bearer token-of-olga")], order).expect("an answer");
    assert!(status == 409 && body.contains("it can be done by now"), "{status}: {body}");
    house.audit(&["freeze by olga <olga@example.org> (API) (drill): refused: it can be done by now"]);
    house.may_not("olga", "unfreeze --yes", "refused: ");
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
    let mut answer = Vec::new();
    // Whoever is refused in the middle of a request may see the connection reset behind the answer.
    let _end = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1)?.parse().ok()
}
