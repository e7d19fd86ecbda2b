//! What reads foreign bytes, each as one function of bytes: it must neither panic nor take for good what is not. Shared by the fuzz targets
//! beside it and by `tests/foreign_bytes.rs`, which calls each of them with a bounded number of inputs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use git2::ObjectType;
use gitamp::agent::{AgentEvent, ConnectionId, Transport};
use gitamp::alert::store::Store;
use gitamp::clock::Clock;
use gitamp::config::{ComponentNames, ConfigHash, RenderedConfig};
use gitamp::controller::{Action, Controller, Options, Revision};
use gitamp::fleet::snapshot::{CommitId, CommitInfo, Entry, RolloutTrailer, Snapshot, SnapshotLimits};
use gitamp::fleet::{load, load_after};
use gitamp::forge::hooks::signature::sign;
use gitamp::forge::hooks::{Dialect, Refusal, Verdict, Watched};
use gitamp::forge::outbound::credentials::InstallationToken;
use gitamp::forge::outbound::dialect::{Project, judge};
use gitamp::git::notes::NotesPlace;
use gitamp::git::seal::{Authenticity, JournalKeys};
use gitamp::http::{Answer, pause};
use gitamp::identity::jwt::{Issuer, Issuers, IssuersFile};
use gitamp::identity::tokens::{TokenFile, Tokens};
use gitamp::incident::desk::Desk;
use gitamp::incident::find::Limits;
use gitamp::incident::watch::Watch;
use gitamp::opamp::connection::{Connection, Context, Rules};
use gitamp::opamp::{Digest, Lookup, NameCache, Offer, SharedNames, proto, wire};
use gitamp::serve::frames::{FrameReader, Incoming};
use gitamp::serve::traffic::Traffic;
use gitamp::serve::{AgentServerOptions, serve_agents};
use gitamp::settings::forge::Kind;
use gitamp::settings::{Reference, RepoIdentity, Secret, layers};
use gitamp::time::Timestamp;
use gitamp::trust::{AllowedSigners, Keyring, Signers, verify};
use gitamp::view::command::{Order, OrderRequest};
use gitamp::view::text::is_invisible;
use gitamp::{identity, yaml};
use prost::Message;
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

/// A function of foreign bytes.
pub(crate) type Entrance = fn(&[u8]);

/// All of them, by the name of their fuzz target.
pub(crate) const ALL: [(&str, Entrance); 18] = [
    ("agent_messages", agent_messages),
    ("agent_proofs", agent_proofs),
    ("certificate", certificate),
    ("commit_message", commit_message),
    ("commit_signature", commit_signature),
    ("effective_config", effective_config),
    ("fleet_files", fleet_files),
    ("forge_answers", forge_answers),
    ("frames", frames),
    ("git_objects", git_objects),
    ("hooks", hooks),
    ("http_requests", http_requests),
    ("journal_notes", journal_notes),
    ("journal_records", journal_records),
    ("local_files", local_files),
    ("orders", orders),
    ("signer_files", signer_files),
    ("yaml_documents", yaml_documents),
];

/// Noon on New Year's Day of 2025, when the commits among the examples were made.
const NOON: Timestamp = Timestamp::from_millis(1_735_732_800_000);

/// What separates the parts of an input that is several things: a line with this and a name.
const PART: &str = "=== ";

/// An input as named parts; what stands before the first name has none.
fn parts(input: &[u8]) -> Vec<(&str, &[u8])> {
    let mut parts = vec![("", 0, input.len())];
    let mut at = 0;
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        if let Some(name) = line.strip_prefix(PART.as_bytes()).and_then(|name| std::str::from_utf8(name).ok()) {
            if let Some(last) = parts.last_mut() {
                last.2 = at;
            }
            parts.push((name.trim_end(), at + line.len(), input.len()));
        }
        at += line.len();
    }
    parts.into_iter().map(|(name, from, to)| (name, &input[from..to])).collect()
}

/// True for one line that steers no terminal and hides nothing.
fn is_harmless(line: &str) -> bool {
    !line.chars().any(|c| c.is_control() || is_invisible(c))
}

/// The same of what `Debug` shows, which escapes what would do harm.
fn was_harmless(shown: &str) -> bool {
    let escaped = |rest: &str| u32::from_str_radix(rest.split_once('}')?.0, 16).ok().and_then(char::from_u32);
    is_harmless(shown) && !shown.split("\\u{").skip(1).filter_map(escaped).any(|c| c.is_control() || is_invisible(c))
}

struct Names(RefCell<NameCache>);

impl SharedNames for Names {
    fn find(&self, digest: Digest) -> Option<Arc<ComponentNames>> {
        self.0.borrow().find(digest)
    }

    fn share(&self, digest: Digest, names: ComponentNames) -> Arc<ComponentNames> {
        self.0.borrow_mut().share(digest, names)
    }

    fn look_up(&self, build: Digest, told: Option<ComponentNames>, ask: Option<Timestamp>) -> Lookup {
        self.0.borrow_mut().look_up(build, told, ask)
    }
}

/// Speaks with an agent that sends these messages: everything that comes of it is drained, what is sent is what a reader reads, and an offer is
/// put in between.
fn converse(transport: Transport, messages: impl IntoIterator<Item = Bytes>) {
    let rules = Rules { most_agents: 4, ..Rules::default() }.offering_heartbeat(Duration::from_secs(20));
    let names = Names(RefCell::new(NameCache::new(16)));
    let mut connection = Connection::new(ConnectionId(1), transport);
    let config =
        RenderedConfig::new(ConfigHash::new([7; 32]), Bytes::from_static(b"name: a\n"), ComponentNames::default());
    let mut now = NOON;
    for message in messages {
        now = now + Duration::from_secs(1);
        let context = Context { now, rules: &rules, names: &names, fresh: [3; 10] };
        let _heard = connection.handle_message(message, &context);
        while let Some(event) = connection.poll_event() {
            let said = format!("{event:?}");
            assert!(was_harmless(&said), "a word that steers the line: {said}");
        }
        if let Some(id) = connection.poll_refused_settings().map(|(id, _)| id) {
            connection.handle_offer(id, Offer { config: config.clone(), retry: false });
        }
        while let Some(out) = connection.poll_transmit(now) {
            let bytes = Bytes::from(out.to_vec());
            let bytes = if transport == Transport::WebSocket { wire::unframe(bytes).expect("framed") } else { bytes };
            proto::ServerToAgent::decode(bytes).expect("what we send can be read");
        }
        connection.handle_timeout(now, &rules);
    }
    connection.handle_close();
    while connection.poll_event().is_some() {}
}

/// Messages of an agent, each behind two bytes with its length, over both transports.
pub(crate) fn agent_messages(mut input: &[u8]) {
    let mut messages = Vec::new();
    while let Some((length, rest)) = input.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        messages.push(Bytes::copy_from_slice(message));
        input = rest;
    }
    for message in &messages {
        let _checked = wire::check(message, &wire::Limits::default());
    }
    converse(Transport::Http, messages.iter().cloned());
    converse(Transport::WebSocket, messages.iter().map(|message| [&[0], &message[..]].concat().into()));
    converse(Transport::WebSocket, messages);
}

/// An effective configuration, as the whole of one, or as views of it.
pub(crate) fn effective_config(input: &[u8]) {
    let of = |key: &str| {
        let file = proto::AgentConfigObject {
            body: Bytes::copy_from_slice(input),
            content_type: "text/yaml".to_owned(),
            ..Default::default()
        };
        let map = proto::AgentConfigMap { config_map: [(key.to_owned(), file)].into_iter().collect() };
        let message = proto::AgentToServer {
            instance_uid: Bytes::from_static(&[5; 16]),
            capabilities: 0x3c47,
            effective_config: Some(proto::EffectiveConfig { config_map: Some(map) }),
            ..Default::default()
        };
        Bytes::from(message.encode_to_vec())
    };
    converse(Transport::Http, [of(""), of("raw")]);
}

/// Frames of a client, as they come in pieces of different sizes: the pieces change nothing, and no limit is passed.
pub(crate) fn frames(input: &[u8]) {
    const MOST: usize = 1 << 12;
    let read = |first: usize| {
        // What came with the request is the one place where bytes enter without a socket: so all of it does, or its beginning.
        let mut reader = FrameReader::new(&input[..first]);
        let mut seen = Vec::new();
        loop {
            match reader.next(MOST) {
                Ok(Some(incoming)) => {
                    if let Incoming::Message(message) = &incoming {
                        assert!(message.len() <= MOST, "a message of {} bytes", message.len());
                    }
                    seen.push(incoming);
                }
                Ok(None) => return (seen, false),
                Err(_) => return (seen, true),
            }
        }
    };
    let (whole, broken) = read(input.len());
    let (half, _) = read(input.len() / 2);
    assert!(whole.starts_with(&half), "what came first does not depend on what follows: {half:?} {whole:?} {broken}");
}

/// Two documents, by `=== `: parsed, merged, substituted, written and read again, which changes nothing.
pub(crate) fn yaml_documents(input: &[u8]) {
    let file: Arc<str> = Arc::from("foreign.yaml");
    let limits = yaml::Limits { bytes: 1 << 16, nodes: 5_000, depth: 64 };
    let mut merged: Option<yaml::Node> = None;
    for (_, part) in parts(input).into_iter().take(4) {
        let Ok(Some(node)) = yaml::parse(&file, part, &limits) else { continue };
        let _ambiguous = yaml::ambiguous_keys(&node);
        let _names = yaml::component_names(&node);
        merged = Some(match merged {
            Some(base) => yaml::merge(base, node),
            None => node,
        });
    }
    let Some(mut node) = merged else { return };
    let vars = BTreeMap::from([("region".to_owned(), "eu: 'x'".to_owned()), ("n".to_owned(), "012".to_owned())]);
    let _problems = yaml::substitute(&mut node, &vars);
    let text = yaml::emit(&node);
    let generous = yaml::Limits { bytes: 16 << 20, nodes: 1 << 20, depth: 200 };
    let again = yaml::parse(&file, text.as_bytes(), &generous)
        .unwrap_or_else(|errors| panic!("what was written cannot be read: {errors:?}\n{text}"))
        .unwrap_or_else(|| panic!("what was written is empty: {text:?}"));
    assert_eq!(yaml::config_hash(&again), yaml::config_hash(&node), "another meaning after writing:\n{text}");
}

/// The files of a commit, each behind a line `=== path`: loaded alone and after another revision, with the same result.
pub(crate) fn fleet_files(input: &[u8]) {
    let limits = SnapshotLimits::default();
    let mut files: BTreeMap<Arc<str>, Entry> = BTreeMap::new();
    for (path, content) in parts(input).into_iter().take(40) {
        let is_path = !path.is_empty()
            && path.len() <= limits.path_bytes
            && path.split('/').count() <= limits.depth
            && path.split('/').all(|part| !part.is_empty());
        if is_path {
            let entry = match content {
                b"-> link\n" => Entry::Symlink,
                b"-> submodule\n" => Entry::Submodule,
                bytes => Entry::File(Bytes::copy_from_slice(bytes)),
            };
            files.insert(path.into(), entry);
        }
    }
    // A tree holds no file and directory of one name.
    let directories: Vec<String> = files.keys().map(|path| format!("{path}/")).collect();
    files.retain(|path, _| !directories.iter().any(|above| path.starts_with(above)));
    let snapshot = Snapshot::new(files.clone());
    let alone = load(&snapshot, None);
    for finding in &alone.diagnostics {
        let line = finding.to_string();
        assert!(is_harmless(&line), "{line:?}");
    }
    let first = files.keys().next().cloned();
    let without = Snapshot::new(files.into_iter().filter(|(path, _)| Some(path) != first.as_ref()).collect());
    let (_, memory) = load_after(&without, None, None);
    let (after, _) = load_after(&snapshot, None, Some(&memory));
    assert_eq!(
        format!("{:?}", alone.diagnostics),
        format!("{:?}", after.diagnostics),
        "the revision before changes what is said"
    );
    let hashes = |fleet: &gitamp::fleet::RenderedFleet| -> Vec<Option<ConfigHash>> {
        fleet.groups.values().map(|group| group.config.as_ref().map(RenderedConfig::hash)).collect()
    };
    assert_eq!(hashes(&alone), hashes(&after), "the revision before changes what is rendered");
}

/// Records below `state/` of the journal, each behind a line `=== path`: a controller goes on from whatever is left of them.
pub(crate) fn journal_records(input: &[u8]) {
    let files: BTreeMap<String, Bytes> = parts(input)
        .into_iter()
        .take(40)
        .map(|(path, content)| (path.to_owned(), Bytes::copy_from_slice(content)))
        .collect();
    let options = Options { observe: false, forget_after: Duration::from_secs(3600) };
    let Ok((mut controller, _problems)) = Controller::restore(options, &files, NOON) else { return };
    for minutes in [1_u64, 10, 100] {
        controller.handle_timeout(NOON + Duration::from_secs(60 * minutes));
        while controller.poll_action().is_some() {}
    }
    let _status = controller.status("default", NOON + Duration::from_secs(60_000));
}

/// A note: without our MAC it is believed by nobody.
pub(crate) fn journal_notes(input: &[u8]) {
    let Some(keys) = JournalKeys::new(vec![Secret::new("a key that nobody has who writes this")]) else { return };
    let judged = keys.judge_note("refs/notes/gitamp/default", CommitId([1; 20]), &String::from_utf8_lossy(input));
    assert!(judged != Authenticity::Genuine, "believed: {judged:?}");
}

/// A delivery: a line with the dialect's number, headers up to an empty line, and the body; as it is, and with a signature that is good.
pub(crate) fn hooks(input: &[u8]) {
    let Some((number, rest)) = input.split_first() else { return };
    let dialect = Dialect::ALL[usize::from(*number) % Dialect::ALL.len()];
    let end = rest.windows(2).position(|two| two == b"\n\n").unwrap_or(rest.len());
    let (head, body) = rest.split_at(end);
    let body = body.get(2..).unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n').take(40) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(line[..at].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[at + 1..].trim_ascii())) {
            headers.insert(name, value);
        }
    }
    let secret = Secret::new("a secret that nobody has who writes this");
    let watched = Watched {
        repository: RepoIdentity::of_url("https://git.example.com/team/fleet.git"),
        reference: Reference::Branch("main".to_owned()),
    };
    let _sender = dialect.sender(&headers);
    let read = |headers: &HeaderMap| dialect.read(headers, body, std::slice::from_ref(&secret), &watched, NOON);
    let got = read(&headers);
    assert!(matches!(got, Err(Refusal::Signature(_)) | Ok(Verdict::UnsignedPing)), "{dialect:?} believed it: {got:?}");
    let proofs = [
        ("x-hub-signature-256", sign(&secret, body)),
        ("x-hub-signature", sign(&secret, body)),
        ("x-signature", sign(&secret, body)),
        ("x-gitea-signature", sign(&secret, body).and_then(|proof| proof.strip_prefix("sha256=").map(str::to_owned))),
        ("x-gitlab-token", Some(secret.expose().to_owned())),
        ("x-gitamp-secret", Some(secret.expose().to_owned())),
    ];
    for (name, proof) in proofs {
        if let Some(value) = proof.and_then(|proof| HeaderValue::from_str(&proof).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let _verdict = read(&headers);
}

/// Two issuers whose key is known here, one of agents and one of operators, and the key.
static ISSUER: LazyLock<Option<(Issuers, Ed25519KeyPair)>> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).ok()?;
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}]}}"#);
    let file = IssuersFile::parse(
        "issuers:\n- {issuer: https://issuer.example.com, audience: gitamp, jwksFile: keys.json, labels: {env: deploy/env, team: groups}}\n\
         - {issuer: https://issuer.example.com, audience: operators, jwksFile: keys.json, name: sub, email: email, \
         roles: [{role: view, claims: {groups: [a, b], deploy/env: prod}}]}\n",
    );
    let issuers: Result<Vec<Issuer>, String> =
        file.ok()?.issuers.iter().map(|entry| Issuer::new(entry, &jwks)).collect();
    Some((Issuers(issuers.ok()?), pair))
});

/// A token that somebody shows, as it is: nobody's, for nobody but us can sign; and the same bytes as claims that the issuer did sign.
pub(crate) fn agent_proofs(input: &[u8]) {
    let Some((issuers, pair)) = &*ISSUER else { return };
    let shown = issuers.verify(&String::from_utf8_lossy(input), NOON);
    assert!(shown.is_err(), "nobody signed it: {shown:?}");
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"a"}"#), URL_SAFE_NO_PAD.encode(input));
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())));
    if let Ok(identity) = issuers.verify(&token, NOON) {
        let role = identity.labels.get("role").map(|role| (role, identity.labels.get("jwt.name").is_some()));
        assert!(role.is_none_or(|role| role == ("view", true)), "{identity:?}");
        let claims = String::from_utf8_lossy(input);
        assert!(claims.contains("exp") && claims.contains("aud") && claims.contains("iss"), "{claims}: {identity:?}");
    }
}

/// The keys of the examples.
static SIGNERS: LazyLock<Signers> = LazyLock::new(|| Signers {
    ssh: AllowedSigners::parse(include_str!("../src/trust/fixtures/allowed_signers")).ok(),
    openpgp: Keyring::parse(include_bytes!("../src/trust/fixtures/keyring.asc")).ok(),
});

/// What is signed in the examples, to tell a forgery from one of them: without the signature and with it.
static GENUINE: LazyLock<Vec<&'static [u8]>> = LazyLock::new(|| {
    vec![
        include_bytes!("../src/trust/fixtures/ssh-ed25519.commit"),
        include_bytes!("../src/trust/fixtures/ssh-ecdsa.commit"),
        include_bytes!("../src/trust/fixtures/ssh-rsa.commit"),
        include_bytes!("../src/trust/fixtures/pgp-ann.commit"),
        include_bytes!("../src/trust/fixtures/pgp-bob.commit"),
        include_bytes!("../src/trust/fixtures/pgp-in-time.commit"),
    ]
});

/// The lines of a commit without its signature.
fn unsigned(raw: &[u8]) -> Vec<&[u8]> {
    let head = raw.windows(2).position(|two| two == b"\n\n").map_or(raw.len(), |at| at + 1);
    let (head, message) = raw.split_at(head);
    let mut is_within = false;
    let mut lines: Vec<&[u8]> = head
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| {
            is_within = line.starts_with(b"gpgsig ")
                || line.starts_with(b"gpgsig-sha256 ")
                || (is_within && line.starts_with(b" "));
            !is_within
        })
        .collect();
    lines.push(message);
    lines
}

/// The bytes of a commit: whoever is named as its signer signed exactly this.
pub(crate) fn commit_signature(input: &[u8]) {
    if let Ok(signer) = verify(input, NOON, &SIGNERS) {
        let is_genuine = GENUINE.iter().any(|genuine| unsigned(genuine).concat() == unsigned(input).concat());
        assert!(is_genuine, "{signer} never signed this");
    }
}

/// Files of keys: those of SSH, and those of OpenPGP with or without armour.
pub(crate) fn signer_files(input: &[u8]) {
    let signers = Signers {
        ssh: AllowedSigners::parse(&String::from_utf8_lossy(input)).ok(),
        openpgp: Keyring::parse(input).ok(),
    };
    let _judged = verify(include_bytes!("../src/trust/fixtures/ssh-ed25519.commit"), NOON, &signers);
}

/// A client's certificate, as TLS hands it on.
pub(crate) fn certificate(input: &[u8]) {
    if let Ok(names) = identity::certificate::names(input) {
        for (key, value) in names.labels.iter() {
            assert!(!key.is_empty() && !value.chars().any(char::is_control), "{key:?}: {value:?}");
        }
    }
}

/// The message of a commit, for what it asks for.
pub(crate) fn commit_message(input: &[u8]) {
    if let Some(finding) = RolloutTrailer::read(&String::from_utf8_lossy(input)).and_then(|trailer| trailer.finding()) {
        let line = finding.to_string();
        assert!(is_harmless(&line), "{line:?}");
    }
}

/// What a forge answers, to every question that there is: a status, headers a line, an empty line, the body. What is told of it is one line
/// that people can look at, and no wait is without end.
pub(crate) fn forge_answers(input: &[u8]) {
    let end = input.windows(2).position(|two| two == b"\n\n").unwrap_or(input.len());
    let (head, body) = input.split_at(end);
    let body = body.get(2..).unwrap_or_default().to_vec();
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.parse().ok()).unwrap_or(200);
    let headers: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once(": ")).collect();
    let header = |name: &str| headers.get(name).map(|value| (*value).to_owned());
    let answer = Answer {
        status,
        retry_after: header("retry-after"),
        remaining: header("remaining"),
        reset: header("reset"),
        location: header("location"),
        body,
    };
    assert!(pause(&answer, NOON).is_none_or(|wait| wait <= Duration::from_secs(86_400)), "{answer:?}");
    let body = &answer.body;
    for kind in [Kind::GitHub, Kind::GitLab, Kind::Gitea, Kind::Bitbucket] {
        let verdict = format!("{:?}", judge(kind, &answer, NOON));
        assert!(was_harmless(&verdict) && verdict.len() < 4_096, "{verdict}");
        let project = Project { kind, name: "team/fleet".to_owned() };
        let _numbers =
            (project.read_merged(CommitId([1; 20]), body), project.read_comment("<!-- a", body), project.read_id(body));
        for address in [project.read_pull_from("revert-1", body), Some(project.read_opened(body))].into_iter().flatten()
        {
            assert!(is_harmless(&address) && address.chars().count() <= 500, "{address:?}");
        }
    }
    let _token = InstallationToken::read(body, NOON).map(|token| token.is_fresh(NOON));
}

/// Orders of an operator, one a line: whatever is taken of them is told in harmless lines, and a successor goes on from what was stored.
pub(crate) fn orders(input: &[u8]) {
    let file = |text: &'static str| Entry::File(Bytes::from_static(text.as_bytes()));
    let group = file("apiVersion: gitamp/v1\nkind: Group\nselector: {matchAll: true}\n");
    let collector = file(
        "receivers: {otlp: }\nexporters: {debug: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n",
    );
    let files = [("a/group.yaml".into(), group), ("a/collector.yaml".into(), collector)];
    let person = || "Ada <ada@example.com>".to_owned();
    let info = CommitInfo {
        id: CommitId([7; 20]),
        reference: "main".to_owned(),
        committer: person(),
        author: person(),
        subject: "The fleet".to_owned(),
        time: NOON,
        trailer: None,
    };
    let options = || Options { observe: false, forget_after: Duration::from_secs(3600) };
    let fleet = load(&Snapshot::new(files.into()), None);
    let (mut controller, mut kept, mut now) = (Controller::new(options()), BTreeMap::new(), NOON);
    controller.handle_revision(Revision { info, fleet, rewritten: Some(false) }, now);
    let agent = proto::AgentToServer {
        instance_uid: Bytes::from_static(&[5; 16]),
        capabilities: 0x7fff,
        agent_description: Some(proto::AgentDescription::default()),
        remote_config_status: Some(proto::RemoteConfigStatus::default()),
        ..Default::default()
    };
    let mut connection = Connection::new(ConnectionId(1), Transport::Http);
    let (rules, names) = (Rules::default(), Names(RefCell::new(NameCache::new(16))));
    let context = Context { now, rules: &rules, names: &names, fresh: [3; 10] };
    let _heard = connection.handle_message(agent.encode_to_vec().into(), &context);
    while let Some(event) = connection.poll_event() {
        controller.handle_agent(event, now);
    }
    for line in input.split(|byte| *byte == b'\n').take(20) {
        now = now + Duration::from_secs(20);
        let order = serde_json::from_slice::<OrderRequest>(line).ok().and_then(|request| request.checked().ok());
        if let Some(OrderRequest { command, reason, .. }) = order {
            let foretold = controller.preview(&command, now);
            let outcome = controller.handle_order(&Order { command, by: "ann".to_owned(), at: now, reason }, now);
            assert_eq!(outcome, foretold, "what was said before is what happens");
        }
        controller.handle_timeout(now);
        while let Some(action) = controller.poll_action() {
            match action {
                Action::Notice(notice) => assert!(is_harmless(&notice.message), "{notice:?}"),
                Action::Store(store) => {
                    let ticket = store.ticket;
                    let written =
                        store.written().unwrap_or_else(|_| panic!("what the controller makes can be written"));
                    assert!(is_harmless(&written.message), "{:?}", written.message);
                    for (path, content) in written.files {
                        match content {
                            Some(content) => drop(kept.insert(path, content)),
                            None => drop(kept.remove(&path)),
                        }
                    }
                    controller.handle_stored(ticket, now);
                }
                Action::Offer { .. } | Action::Restart { .. } | Action::Withdraw { .. } | Action::Report(_) => {}
            }
        }
        let _status = controller.status("default", now);
    }
    let (_, problems) = Controller::restore(options(), &kept, now).expect("a successor can go on");
    assert!(problems.is_empty(), "{problems:?}");
}

/// The bytes of a commit, and of the note on it behind a line `=== note`: read from a repository, where nobody checked what came.
pub(crate) fn git_objects(input: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = git2::RepositoryInitOptions::new();
    options.bare(true).external_template(false);
    let repository = git2::Repository::init_opts(directory.path(), &options).expect("a repository");
    let parts = parts(input);
    let note = parts.iter().find(|(name, _)| *name == "note").map_or(&[][..], |(_, note)| note);
    let write = || {
        let commit = repository.odb()?.write(ObjectType::Commit, parts[0].1)?;
        let mut tree = repository.treebuilder(None)?;
        tree.insert(commit.to_string(), repository.blob(note)?, 0o100_644)?;
        let (tree, who) =
            (repository.find_tree(tree.write()?)?, git2::Signature::new("a", "a", &git2::Time::new(0, 0))?);
        let notes = repository.commit(None, &who, &who, "", &tree, &[])?;
        repository.reference("refs/notes/gitamp/default", notes, true, "")?;
        Ok::<_, git2::Error>(commit)
    };
    let commit = write().expect("objects are written as they are");
    let place = NotesPlace::clone_at(directory.path()).expect("a repository");
    if let Ok(read) = place.on(&commit.to_string(), None) {
        let info = &read.commit;
        for line in [&info.author, &info.committer, &info.subject, &info.reference] {
            assert!(is_harmless(line) && line.chars().count() <= 1_024, "{line:?}");
        }
        let whole = read.notes.get("default").map(|found| found.text.as_bytes());
        assert_eq!(whole, Some(String::from_utf8_lossy(note).as_bytes()));
    }
}

/// Files of this machine, each behind a line `=== kind`: of tokens, of issuers, of an issuer's keys, of settings, of what alerts remember.
pub(crate) fn local_files(input: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    for (kind, content) in parts(input).into_iter().take(8) {
        let text = String::from_utf8_lossy(content);
        match kind {
            "tokens" => {
                if let Ok(file) = TokenFile::parse(&text) {
                    let _known = Tokens::new(&file).find(&[7; 32]);
                    let written = file.render().expect("what was read can be written");
                    assert_eq!(TokenFile::parse(&written), Ok(file), "{written}");
                }
            }
            "issuers" => {
                let jwks =
                    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
                for entry in IssuersFile::parse(&text).map(|file| file.issuers).unwrap_or_default() {
                    let _issuer = Issuer::new(&entry, jwks);
                }
            }
            "jwks" => {
                let file = IssuersFile::parse("issuers: [{issuer: a, audience: b, jwksFile: c}]").expect("a file");
                if let Ok(issuer) = Issuer::new(&file.issuers[0], &text) {
                    let claims = URL_SAFE_NO_PAD.encode(r#"{"iss":"a","aud":"b","exp":1735740000}"#);
                    for algorithm in ["RS256", "ES256", "EdDSA"] {
                        let head = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}"}}"#));
                        let token = format!("{head}.{claims}.{}", URL_SAFE_NO_PAD.encode([1; 64]));
                        // Its keys are foreign here, and nobody signed this with any of them.
                        assert!(
                            Issuers(vec![Issuer::new(&file.issuers[0], &text).expect("the same")])
                                .verify(&token, NOON)
                                .is_err()
                        );
                    }
                    let _is_known = issuer.has(&[7; 32]);
                }
            }
            "settings" => {
                let path = directory.path().join("gitamp.yaml");
                std::fs::write(&path, content).expect("a file");
                let _read = layers::read_file(&path);
            }
            "alerts" => {
                std::fs::write(directory.path().join("alerts.json"), content).expect("a file");
                let (store, _warning) = Store::open(directory.path());
                let limits = Limits { waits_too_long: Duration::from_secs(60), stale_after: Duration::from_secs(60) };
                let watch = Watch::new("default", limits, store.incidents(), NOON);
                let desk = Desk::new(Some(Duration::from_secs(60)), store.told("ops"), NOON);
                let _next = (desk.next(&watch.incidents(), NOON), watch.outdated(NOON), watch.memory());
            }
            _ => {}
        }
    }
}

/// The agents' listener on a port of this machine, for as long as the process lives; every agent that comes is offered something.
static LISTENER: LazyLock<(SocketAddr, Runtime)> = LazyLock::new(|| {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let address = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, mut events) = mpsc::channel(64);
        let (stop, stopped) = watch::channel(false);
        let rules =
            Rules { limits: wire::Limits { message_bytes: 1 << 16, ..wire::Limits::default() }, ..Rules::default() };
        let options =
            AgentServerOptions { rules, max_rate: None, max_new_agents: None, ..AgentServerOptions::default() };
        let (links, _task) =
            serve_agents(listener, options, Clock::start_at(NOON), sender, None, Arc::new(Traffic::default()), stopped);
        tokio::spawn(async move {
            let body = Bytes::from_static(b"name: a\n");
            let config = RenderedConfig::new(ConfigHash::new([7; 32]), body, ComponentNames::default());
            while let Some(message) = events.recv().await {
                if let AgentEvent::Connected { id, connection, .. } = message.event {
                    links.offer(connection, id, config.clone(), false);
                }
            }
            drop(stop);
        });
        address
    });
    (address, runtime)
});

/// What comes from a client's socket, behind TCP: whoever it is gets answers of HTTP or none, and the connection ends with the client's.
pub(crate) fn http_requests(input: &[u8]) {
    /// Longer than an answer takes; then the client says that there is nothing more.
    const PAUSE: Duration = Duration::from_millis(10);
    /// Reached only when the connection stays open for ever.
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut stream = TcpStream::connect(LISTENER.0).expect("somebody listens");
    // A server that has heard enough closes: what is not sent then, or lost behind a reset, is no fault of it.
    let _sent = stream.write_all(input);
    let mut answer = Vec::new();
    stream.set_read_timeout(Some(PAUSE)).expect("a timeout");
    if stream.read_to_end(&mut answer).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
        let _closed = stream.shutdown(std::net::Shutdown::Write);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let end = stream.read_to_end(&mut answer);
        assert!(!end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "the connection stays open");
    }
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
}
