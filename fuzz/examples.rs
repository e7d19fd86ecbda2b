//! Real inputs of the functions of `entries/`, to be changed by the property tests and to begin with for the fuzzer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use gitamp::cli::directory::read_directory;
use gitamp::controller::{Action, Content, Controller, Options, Revision};
use gitamp::fleet;
use gitamp::fleet::snapshot::{CommitId, CommitInfo, Entry, SnapshotLimits};
use gitamp::forge::hooks::signature::sign;
use gitamp::opamp::proto;
use gitamp::settings::Secret;
use gitamp::time::Timestamp;
use prost::Message;

use crate::entries::{SECRET, token};

/// Longest input: enough for several files, little enough for a slow machine.
const LONGEST: usize = 16 * 1024;

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The contents of the files in a directory whose names end so.
fn files(directory: &str, end: &str) -> Vec<Vec<u8>> {
    let directory = root().join(directory);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{}/*{end}", directory.display());
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

/// Several things as one input.
fn joined<N: AsRef<str>, C: AsRef<[u8]>>(parts: impl IntoIterator<Item = (N, C)>) -> Vec<u8> {
    let part = |(name, content): (N, C)| [format!("=== {}\n", name.as_ref()).as_bytes(), content.as_ref()].concat();
    parts.into_iter().map(part).collect::<Vec<_>>().concat()
}

/// A fleet repository as one input.
fn fleet_at(directory: &Path) -> Option<Vec<u8>> {
    let snapshot = read_directory(directory, &SnapshotLimits::default()).ok()?;
    let content = |entry: &Entry| match entry {
        Entry::File(bytes) => bytes.to_vec(),
        Entry::Symlink => b"-> link\n".to_vec(),
        Entry::TooLarge(_) | Entry::Submodule => b"-> submodule\n".to_vec(),
    };
    Some(joined(snapshot.iter().map(|(path, entry)| (path.to_string(), content(entry)))))
}

/// What a controller stores when it takes the example fleet, and when an order is given.
fn records() -> Vec<u8> {
    let snapshot = read_directory(&root().join("examples/fleet"), &SnapshotLimits::default()).expect("the example");
    let now = Timestamp::from_millis(1_735_732_800_000);
    let info = CommitInfo {
        id: CommitId([7; 20]),
        reference: "main".to_owned(),
        committer: "Ada <ada@example.com>".to_owned(),
        author: "Ada <ada@example.com>".to_owned(),
        subject: "The fleet".to_owned(),
        time: now,
        trailer: None,
    };
    let mut controller = Controller::new(Options { observe: false, forget_after: Duration::from_secs(3600) });
    let fleet = fleet::load(&snapshot, None);
    controller.handle_revision(Revision { info, fleet, rewritten: Some(false) }, now);
    let mut stored: Vec<(String, Bytes)> = Vec::new();
    for minute in 0..3 {
        controller.handle_timeout(now + Duration::from_secs(60 * minute));
        while let Some(action) = controller.poll_action() {
            if let Action::Store(store) = action {
                let written = |content: Content| content.encode().expect("what the controller makes can be written");
                stored.extend(store.files.into_iter().filter_map(|(path, content)| Some((path, written(content?)))));
                controller.handle_stored(store.ticket, now);
            }
        }
    }
    assert!(stored.iter().any(|(path, _)| path.starts_with("groups/")), "{stored:?}");
    joined(stored)
}

/// A message behind its length.
fn message(message: &proto::AgentToServer) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&u16::try_from(bytes.len()).expect("it is short").to_be_bytes()[..], &bytes].concat()
}

/// An agent that tells everything, then that it failed, then goodbye.
fn conversation() -> Vec<u8> {
    use proto::any_value::Value;
    let text = |key: &str, value: Value| proto::KeyValue {
        key: key.to_owned(),
        value: Some(proto::AnyValue { value: Some(value) }),
    };
    let list = proto::ArrayValue { values: vec![proto::AnyValue { value: Some(Value::IntValue(7)) }] };
    let first = proto::AgentToServer {
        instance_uid: vec![5; 16].into(),
        capabilities: 0x7fff,
        agent_description: Some(proto::AgentDescription {
            identifying_attributes: vec![text("service.name", Value::StringValue("otelcol".to_owned()))],
            non_identifying_attributes: vec![
                text("args", Value::ArrayValue(list)),
                text("b", Value::BytesValue(vec![1].into())),
            ],
        }),
        health: Some(proto::ComponentHealth { last_error: "password=x".to_owned(), ..Default::default() }),
        available_components: Some(proto::AvailableComponents { hash: vec![1; 32].into(), ..Default::default() }),
        ..Default::default()
    };
    let second = proto::AgentToServer {
        instance_uid: vec![5; 16].into(),
        sequence_num: 1,
        capabilities: 0x7fff,
        remote_config_status: Some(proto::RemoteConfigStatus {
            last_remote_config_hash: vec![7; 32].into(),
            status: 3,
            error_message: "no".to_owned(),
        }),
        ..Default::default()
    };
    let last = proto::AgentToServer {
        instance_uid: vec![5; 16].into(),
        sequence_num: 2,
        agent_disconnect: Some(proto::AgentDisconnect {}),
        ..Default::default()
    };
    [first, second, last].iter().flat_map(message).collect()
}

/// Frames of a client: a message, a ping, a message in two pieces, a goodbye. The mask is all zeros, so that what they hold can be read.
fn client_frames() -> Vec<u8> {
    let frame = |first: u8, payload: &[u8]| {
        [&[first, 0x80 | u8::try_from(payload.len()).expect("it is short"), 0, 0, 0, 0], payload].concat()
    };
    [frame(0x82, b"hello"), frame(0x89, b"?"), frame(0x02, b"two"), frame(0x80, b"pieces"), frame(0x88, &[3, 0xe8])]
        .concat()
}

fn delivery(dialect: u8, headers: &str, body: &[u8]) -> Vec<u8> {
    [&[dialect], headers.as_bytes(), b"\n\n", body].concat()
}

/// Deliveries of every forge, none of them with a proof that counts.
fn deliveries() -> Vec<Vec<u8>> {
    let json = "content-type: application/json\n";
    let read = |name: &str| files("src/forge/hooks/payloads", name).remove(0);
    vec![
        delivery(0, &format!("{json}x-github-event: push\nx-hub-signature-256: sha256=00"), &read("github-push.json")),
        delivery(1, &format!("{json}x-gitlab-event: Push Hook\nx-gitlab-token: x"), &read("gitlab-push.json")),
        delivery(2, &format!("{json}x-gitea-event: push"), &read("gitea-push.json")),
        delivery(3, &format!("{json}x-event-key: repo:push"), &read("bitbucket-cloud-push.json")),
        delivery(4, &format!("{json}authorization: Basic eDp5"), &read("azure-push.json")),
        delivery(5, json, br#"{"repository":"team/fleet","ref":"main"}"#),
    ]
}

/// Orders that are carried out, and some that are refused, while agents do this and that.
const ORDERS: [&str; 5] = [
    r#"!r
!a0
!w1
3{"command":"promote","target":"a"}
{"command":"promote","target":"a","reason":"fine"}
!A
!w1
!r
!F
{"command":"retry","group":"a"}
{"command":"undo","group":"b"}"#,
    r#"!r
!f0
!w2
2{"command":"retry","group":"a","reason":"once more"}
!b2
{"command":"pause","group":"a"}
!g3
!w9
!c3
1{"command":"resume","group":"a"}
2{"command":"resume","group":"a"}
!A
{"command":"undo-since","since":"2025-01-01T11:00:00Z"}"#,
    r#"!rChange\n\nGitamp-Rollout: fast
!i4
{"command":"pin","target":"01010101-0101-0101-0101-010101010101","length":60000}
!r
{"command":"abort","group":"b"}
{"command":"restart","target":"b"}
!w3
3{"command":"undo","group":"a"}"#,
    r#"{"command":"freeze","reason":"holidays"}
{"command":"unfreeze"}
{"command":"pause","group":"a","reason":"look"}
{"command":"resume","group":"a"}
{"command":"promote","target":"a","now":true}
{"command":"pin","target":"a","length":3600000}
{"command":"unpin","target":"a"}
{"command":"undo-since","since":"2025-01-01T00:00:00Z"}"#,
    r#"{"command":"undo","group":"a","to":"0707070"}
{"command":"retry","target":"05050505-0505-0505-0505-050505050505"}
{"command":"restart","target":"a","sudoUser":"ann"}
{"command":"abort","group":"a"}
{"command":"promote","target":"07070707"}"#,
];

/// What forges answer: that all is well, with pull requests, comments and a token, and that it is not.
fn answers() -> Vec<Vec<u8>> {
    [
        r#"200

[{"number":7,"iid":7,"id":70,"merged_at":"2025-01-01T00:00:00Z","state":"merged","body":"<!-- a -->","html_url":"https://x/7","web_url":"https://x/7","head":{"ref":"revert-1"},"merge_commit_sha":"0101010101010101010101010101010101010101"}]"#,
        r#"201

{"id":5,"html_url":"https://x/5","links":{"html":{"href":"https://x/5"}},"token":"ghs_x","expires_at":"2025-01-01T13:00:00Z"}"#,
        r#"200

{"values":[{"links":{"html":{"href":"https://x/5"}}}]}"#,
        "429\nretry-after: 17\nremaining: 0\nreset: 1735732860\n\n{\"message\":\"API rate limit exceeded\"}",
        "403\nretry-after: Wed, 01 Jan 2025 12:00:30 GMT\n\n{\"error\":{\"message\":\"no\"},\"errors\":[{\"message\":\"a\"},\"b\"]}",
        "302\nlocation: https://elsewhere.example.com/\n\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Requests to the agents' port: a poll, a compressed one, one in chunks, a WebSocket with a message, and two behind each other.
fn requests() -> Vec<Vec<u8>> {
    use std::io::Write;
    let all = conversation();
    let body = &all[2..2 + usize::from(u16::from_be_bytes([all[0], all[1]]))];
    let post = |headers: &str, body: &[u8]| {
        let head = "POST /v1/opamp HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\n";
        [head.as_bytes(), headers.as_bytes(), b"\r\n", body].concat()
    };
    let sized = |more: &str, body: &[u8]| post(&format!("Content-Length: {}\r\n{more}", body.len()), body);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body).expect("memory takes it");
    let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
    let upgrade = b"GET /v1/opamp HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let length = u16::try_from(body.len() + 1).expect("it is short").to_be_bytes();
    let framed = [&[0x82, 0x80 | 126], &length[..], &[0; 5], body].concat();
    vec![
        sized("", body),
        sized("Content-Encoding: gzip\r\nAccept-Encoding: gzip\r\n", &gzip.finish().expect("it is whole")),
        post("Transfer-Encoding: chunked\r\n", &chunk),
        [&upgrade[..], &framed, &client_frames()].concat(),
        [sized("", body), sized("Connection: close\r\n", body)].concat(),
        b"GET /healthz HTTP/1.0\r\n\r\n".to_vec(),
    ]
}

/// Answers of a receiver of alerts, behind the number of its kind.
fn receivers() -> Vec<Vec<u8>> {
    [
        "\0HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "\x01HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nno_service",
        "\x02HTTP/1.1 429 Too Many Requests\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n",
        "\0HTTP/1.0 503 No\r\nRetry-After: Wed, 01 Jan 2025 12:00:30 GMT\r\n\r\n",
        "\x01HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
        "\x02HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "\0HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A request with a body.
fn posted(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Requests to the port of hooks: pushes that prove to know the secret, one that does not, and others.
fn hook_deliveries() -> Vec<Vec<u8>> {
    let json = "Content-Type: application/json\r\n";
    let read = |name: &str| files("src/forge/hooks/payloads", name).remove(0);
    let (github, gitlab) = (read("github-push.json"), read("gitlab-push.json"));
    let proof = sign(&Secret::new(SECRET), &github).expect("a signature");
    let chunked = [
        format!("POST /hooks/generic HTTP/1.1\r\nHost: a\r\n{json}X-Gitamp-Secret: {SECRET}\r\nTransfer-Encoding: chunked\r\n\r\n2c\r\n").as_bytes(),
        br#"{"repository":"team/fleet","ref":"main"}    "#,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let small = br#"{"zen":"a"}"#;
    let small_proof = sign(&Secret::new(SECRET), small).expect("a signature");
    vec![
        posted("/hooks/github", &format!("{json}X-GitHub-Event: push\r\nX-Hub-Signature-256: {proof}\r\n"), &github),
        posted(
            "/hooks/github",
            &format!("{json}X-GitHub-Event: ping\r\nX-Hub-Signature-256: {small_proof}\r\n"),
            small,
        ),
        posted("/hooks/gitlab", &format!("{json}X-Gitlab-Event: Push Hook\r\nX-Gitlab-Token: {SECRET}\r\n"), &gitlab),
        posted("/hooks/gitea", &format!("{json}X-Gitea-Event: push\r\n"), b"{}"),
        chunked,
        b"GET /hooks/github HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ]
}

/// Requests that only read.
fn questions(headers: &str) -> Vec<Vec<u8>> {
    [
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/status",
        "/api/v1/groups",
        "/api/v1/rollouts",
        "/api/v1/agents?group=a&state=confirmed&limit=3",
        "/api/v1/agents/01010101-0101-0101-0101-010101010101/explanation",
        "/api/v1/agents/%30%31/explanation",
    ]
    .map(|path| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n{headers}\r\n")
            .into_bytes()
    })
    .to_vec()
}

/// Requests of operators who may do what they ask for, and of some who may not.
fn requests_of_operators() -> Vec<Vec<u8>> {
    let who = |role: &str| format!("Authorization: Bearer {}\r\n", token(role));
    let order = |role: &str, path: &str, text: &str| {
        posted(path, &format!("{}Content-Type: application/json\r\n", who(role)), text.as_bytes())
    };
    let mut all = questions(&who("view"));
    all.extend([
        order("operate", "/api/v1/orders", r#"{"command":"pause","group":"a","reason":"look"}"#),
        order("operate", "/api/v1/orders", r#"{"command":"promote","target":"a"}"#),
        order("approve", "/api/v1/orders", r#"{"command":"freeze","reason":"holidays"}"#),
        order("operate", "/api/v1/orders/refused", r#"{"command":"freeze","reason":"a drill"}"#),
        order("approve", "/api/v1/orders/preview", r#"{"command":"undo-since","since":"2025-01-01T00:00:00Z"}"#),
        order("view", "/api/v1/sync", ""),
        order("operate", "/api/v1/sync", ""),
        posted("/api/v1/orders", "Authorization: Bearer nobody\r\n", b"{}"),
        posted("/api/v1/orders", &format!("{}Origin: https://evil.example\r\n", who("approve")), b"{}"),
    ]);
    all
}

/// What a transfer's process says.
fn transfers() -> Vec<Vec<u8>> {
    [
        "{\"progress\":1}\n{\"progress\":20}\n{\"done\":{\"reference\":\"refs/heads/main\",\"object\":\"0101010101010101010101010101010101010101\"}}\n",
        "{\"done\":{\"reference\":null,\"object\":null}}\n",
        "{\"failed\":{\"kind\":\"network\",\"message\":\"https://***@git.example.com/x: \\u001b[2Jgone\"}}\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Commits as they were signed, and small histories with trees, a tag and notes.
fn objects() -> Vec<Vec<u8>> {
    let note = format!("=== note\nending: succeeded\n# gitamp-mac: 00112233 {}\n", "0".repeat(64));
    let mut all: Vec<Vec<u8>> =
        files("src/trust/fixtures", ".commit").into_iter().map(|commit| [&commit, note.as_bytes()].concat()).collect();
    let who = "Ada <ada@example.com> 1735732800 +0000";
    let commit = |tree: &str, more: &str| {
        format!(
            "tree @{tree}@\n{more}author {who}\ncommitter {who}\n\nA change\n\nCo-authored-by: Bob <bob@example.com>\n"
        )
    };
    let history = joined([
        ("blob g", "apiVersion: gitamp/v1\nkind: Group\nselector: {matchAll: true}\n\n".to_owned()),
        ("blob c", "receivers: {otlp: }\nexporters: {debug: }\n\n".to_owned()),
        ("tree a", "100644 collector.yaml\0@c@100644 group.yaml\0@g@\n".to_owned()),
        ("tree one", "40000 a\0@a@\n".to_owned()),
        ("tree two", "40000 a\0@a@40000 b\0@a@120000 link.yaml\0@c@160000 sub\0@c@\n".to_owned()),
        ("commit first", commit("one", "") + "\n"),
        ("commit second", commit("two", "parent @first@\n") + "\n"),
        ("tag v1", format!("object @second@\ntype commit\ntag v1\ntagger {who}\n\nNew\n\n")),
        ("commit third", commit("one", "parent @second@\nparent @first@\nencoding ISO-8859-1\n") + "\n"),
    ]);
    all.push([&history, note.as_bytes()].concat());
    all.push(history);
    all
}

/// Lists of revocations, in PEM and as the bytes of one.
fn lists() -> Vec<Vec<u8>> {
    use rustls::pki_types::CertificateRevocationListDer;
    use rustls::pki_types::pem::PemObject;
    let pem = files("tests/tls", ".crl");
    let der = pem.iter().map(|text| CertificateRevocationListDer::from_pem_slice(text).expect("a list").to_vec());
    der.chain(pem.iter().cloned()).chain([pem.concat()]).collect()
}

/// Files as operators write them, and one that the alerts wrote.
fn written_here() -> Vec<Vec<u8>> {
    let hash = "ab".repeat(32);
    vec![
        joined([(
            "tokens",
            format!("tokens:\n- {{name: a, sha256: {hash}, expires: 2025-01-02T00:00:00Z, labels: {{env: prod}}}}\n"),
        )]),
        joined([
            (
                "issuers",
                "issuers:\n- {issuer: https://a, audience: b, jwksFile: k, leeway: 30s, labels: {env: deploy/env}}\n\
                 - {issuer: https://a, audience: c, jwksFile: k, name: sub, roles: [{role: view, claims: {groups: [a, 7]}}]}\n",
            ),
            (
                "jwks",
                r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
                {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
                {"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256","use":"sig"}]}"#,
            ),
        ]),
        joined([
            (
                "operators",
                format!("tokens:\n- {{name: ann, sha256: {hash}, labels: {{role: approve, email: ann@example.com}}}}\n"),
            ),
            (
                "operator-issuers",
                "issuers:\n- {issuer: https://a, audience: c, jwksFile: keys.json, name: sub, email: mail, roles: [{role: view, claims: {groups: [a, 7]}}]}\n"
                    .to_owned(),
            ),
        ]),
        joined([
            ("environment", "GITAMP_REPO=https://git.example.com/x\nGITAMP_INTERVAL=30s\nHTTPS_PROXY=http://ada:x@proxy:3128\nNO_PROXY=*.a, b:443\nSTATE_DIRECTORY=/var/lib/gitamp:/x\n"),
            ("settings", "listen: 127.0.0.1:0\nalerts: {receivers: [{name: ops, type: webhook, url: 'https://x.example/a', groups: ['a/**']}]}\n"),
        ]),
        joined([("settings", std::fs::read(root().join("examples/gitamp.yaml")).expect("the example"))]),
        joined([(
            "alerts",
            r#"{"version":1,"incidents":[{"topic":"rollout","subject":"7","id":"a","commit":{"revision":"main@sha1:07"},"parts":{"gateways":
            {"part":{"situation":"waits-too-long","severity":"warning","message":"it waits","mark":{"candidate":"07","stage":"all","confirmed":2}},
            "worst":"critical","since":"2025-01-01T11:00:00Z","stands":true,"ended":"2025-01-01T11:30:00Z"}}}],"told":{"ops":{}}}"#,
        )]),
    ]
}

/// Real inputs of a function.
pub(crate) fn examples(of: &str) -> Vec<Vec<u8>> {
    match of {
        "admin_requests" => questions(""),
        "agent_messages" => vec![conversation()],
        "api_requests" => requests_of_operators(),
        "agent_proofs" => vec![
            br#"{"iss":"https://issuer.example.com","aud":"operators","sub":"ann","exp":1735740000,"groups":["x","a"],"deploy":{"env":"prod"},"email":"a@b","email_verified":true}"#.to_vec(),
            br#"{"iss":"https://issuer.example.com","aud":["x","gitamp"],"sub":"a","exp":1735740000,"nbf":1735732000.5,"deploy":{"env":"prod"},"groups":["a"]}"#.to_vec(),
            b"eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLmNvbSIsImF1ZCI6ImdpdGFtcCIsImV4cCI6MTczNTc0MDAwMH0.AAAA".to_vec(),
        ],
        "certificate" => {
            use rustls::pki_types::CertificateDer;
            use rustls::pki_types::pem::PemObject;
            let names = ["client.pem", "server.pem", "ca.pem"].map(|name| root().join("tests/tls").join(name));
            names.iter().map(|path| CertificateDer::from_pem_file(path).expect("a certificate").to_vec()).collect()
        }
        "commit_message" => [
            "Change\n\nGitamp-Rollout: fast\n",
            "Change\n\nGitamp-Rollout: now; reason=outage\nSigned-off-by: Ada <ada@example.com>\n",
            "Revert \"Change\"\n\nThis reverts commit 0123456789abcdef0123456789abcdef01234567.\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec(),
        "commit_signature" => files("src/trust/fixtures", ".commit"),
        "effective_config" => files("examples/fleet/base", ".yaml"),
        "fleet_files" => {
            let cases = std::fs::read_dir(root().join("tests/fleet")).expect("the cases");
            let mut repositories: Vec<PathBuf> =
                cases.map(|case| case.expect("an entry").path().join("repo")).filter(|path| path.is_dir()).collect();
            repositories.push(root().join("examples/fleet"));
            repositories.sort();
            repositories.iter().filter_map(|path| fleet_at(path)).filter(|bytes| bytes.len() <= LONGEST).collect()
        }
        "forge_answers" => answers(),
        "frames" => vec![client_frames()],
        "git_objects" => objects(),
        "hook_requests" => hook_deliveries(),
        "hooks" => deliveries(),
        "http_answers" => receivers(),
        "http_requests" => requests(),
        "journal_notes" => vec![
            format!("ending: succeeded\n# gitamp-mac: 00112233 {}\n", "0".repeat(64)).into_bytes(),
            b"revision: main@sha1:00\nending: failed\n".to_vec(),
        ],
        "journal_records" => vec![records()],
        "local_files" => written_here(),
        "orders" => ORDERS.iter().map(|lines| lines.as_bytes().to_vec()).collect(),
        "revocations" => lists(),
        "signer_files" => [
            files("src/trust/fixtures", "allowed_signers"),
            files("src/trust/fixtures", ".asc"),
            files("src/trust/fixtures", ".gpg"),
        ]
        .concat(),
        "transfer_answers" => transfers(),
        "yaml_documents" => {
            let layers = files("examples/fleet/base", ".yaml");
            let first = layers.first().cloned().unwrap_or_default();
            let anchors =
                b"a: &x {k: [1, 'two', \"three\"], <<: {z: ~}}\nb: *x\nc: |-\n  text\n   more\nd: >+\n  folded\n\n"
                    .to_vec();
            vec![joined([("base", first.clone()), ("over", anchors.clone())]), anchors, first]
        }
        other => panic!("there are no examples of {other}"),
    }
}
