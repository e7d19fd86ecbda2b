//! What reads foreign bytes, each as one function of bytes: it must neither panic nor take for good what is not. Shared by the fuzz targets
//! beside it and by `tests/foreign_bytes.rs`, which calls each of them with a bounded number of inputs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use gitamp::agent::{ConnectionId, Transport};
use gitamp::config::{ComponentNames, ConfigHash, RenderedConfig};
use gitamp::controller::{Controller, Options};
use gitamp::fleet::snapshot::{CommitId, Entry, RolloutTrailer, Snapshot, SnapshotLimits};
use gitamp::fleet::{load, load_after};
use gitamp::forge::hooks::signature::sign;
use gitamp::forge::hooks::{Dialect, Refusal, Verdict, Watched};
use gitamp::git::seal::{Authenticity, JournalKeys};
use gitamp::identity::jwt::{Issuer, Issuers, IssuersFile};
use gitamp::opamp::connection::{Connection, Context, Rules};
use gitamp::opamp::{Digest, Lookup, NameCache, Offer, SharedNames, proto, wire};
use gitamp::serve::frames::{FrameReader, Incoming};
use gitamp::settings::{Reference, RepoIdentity, Secret};
use gitamp::time::Timestamp;
use gitamp::trust::{AllowedSigners, Keyring, Signers, verify};
use gitamp::{identity, yaml};
use prost::Message;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// A function of foreign bytes.
pub(crate) type Entrance = fn(&[u8]);

/// All of them, by the name of their fuzz target.
pub(crate) const ALL: [(&str, Entrance); 13] = [
    ("agent_messages", agent_messages),
    ("agent_proofs", agent_proofs),
    ("certificate", certificate),
    ("commit_message", commit_message),
    ("commit_signature", commit_signature),
    ("effective_config", effective_config),
    ("fleet_files", fleet_files),
    ("frames", frames),
    ("hooks", hooks),
    ("journal_notes", journal_notes),
    ("journal_records", journal_records),
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
            assert!(!said.contains('\u{202e}') && !said.contains("\\u{202e}"), "a word that turns the line: {said}");
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
    if let Some(trailer) = RolloutTrailer::read(&String::from_utf8_lossy(input)) {
        let _finding = trailer.finding();
    }
}
