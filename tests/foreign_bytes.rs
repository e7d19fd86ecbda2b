//! Everything that reads foreign bytes, with a bounded number of inputs: arbitrary ones, and real examples that were changed. The functions are
//! those of the fuzz targets in `fuzz/`, which go on from here without a bound.

#[path = "../fuzz/entries.rs"]
mod entries;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use gitamp::cli::directory::read_directory;
use gitamp::controller::{Action, Content, Controller, Options, Revision};
use gitamp::fleet;
use gitamp::fleet::snapshot::{CommitId, CommitInfo, Entry, SnapshotLimits};
use gitamp::opamp::proto;
use gitamp::time::Timestamp;
use proptest::prelude::*;
use prost::Message;

/// Inputs for each function: a few hundred of them find what is broken for everybody; the rest is for the fuzzer.
const CASES: u32 = 400;

/// Longest input: enough for several files, little enough for a slow machine.
const LONGEST: usize = 16 * 1024;

fn root() -> PathBuf {
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

/// Real inputs of a function.
fn examples(of: &str) -> Vec<Vec<u8>> {
    match of {
        "agent_messages" => vec![conversation()],
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
        "frames" => vec![client_frames()],
        "hooks" => deliveries(),
        "journal_notes" => vec![
            format!("ending: succeeded\n# gitamp-mac: 00112233 {}\n", "0".repeat(64)).into_bytes(),
            b"revision: main@sha1:00\nending: failed\n".to_vec(),
        ],
        "journal_records" => vec![records()],
        "signer_files" => [
            files("src/trust/fixtures", "allowed_signers"),
            files("src/trust/fixtures", ".asc"),
            files("src/trust/fixtures", ".gpg"),
        ]
        .concat(),
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

/// A change to an example.
#[derive(Clone, Debug)]
enum Edit {
    Set(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Repeat(usize),
}

/// What makes readers stumble: structure of the formats, numbers at their ends, odd letters.
const PIECES: [&[u8]; 28] = [
    b"\n",
    b"\n\n",
    b"=== ",
    b"=== fleet.yaml\n",
    b": ",
    b"- ",
    b"{",
    b"[",
    b"}",
    b"]",
    b"'",
    b"\"",
    b"&a ",
    b"*a",
    b"<<: ",
    b"|\n",
    b"!!x ",
    b"\t",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xae",
    b"${fleet:",
    b"\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"gpgsig ",
    b"18446744073709551616",
    b"-1",
];

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        any::<u8>().prop_map(Edit::Set),
        prop::collection::vec(any::<u8>(), 1..8).prop_map(Edit::Insert),
        prop::sample::select(&PIECES[..]).prop_map(|piece| Edit::Insert(piece.to_vec())),
        (1_usize..40).prop_map(Edit::Remove),
        (1_usize..200).prop_map(Edit::Repeat),
    ]
}

fn edited(mut bytes: Vec<u8>, edits: &[(prop::sample::Index, Edit)]) -> Vec<u8> {
    for (place, edit) in edits {
        let at = place.index(bytes.len() + 1);
        match edit {
            Edit::Set(byte) => {
                if let Some(slot) = bytes.get_mut(at) {
                    *slot = *byte;
                }
            }
            Edit::Insert(piece) => drop(bytes.splice(at..at, piece.iter().copied())),
            Edit::Remove(count) => drop(bytes.drain(at..(at + count).min(bytes.len()))),
            Edit::Repeat(count) => {
                let piece = bytes[at..(at + count).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
        }
    }
    bytes
}

/// Examples as they are, examples with a few changes, and arbitrary bytes, the same ones in every run but for the seed of proptest.
fn survives(of: &str) {
    let (_, entrance) = entries::ALL.into_iter().find(|(name, _)| *name == of).expect("it is one of them");
    let examples = examples(of);
    for example in &examples {
        entrance(example);
    }
    let foreign = prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..600),
        4 => (prop::sample::select(examples), prop::collection::vec((any::<prop::sample::Index>(), edit()), 1..7))
            .prop_map(|(example, edits)| edited(example, &edits)),
    ];
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    proptest::test_runner::TestRunner::new(config)
        .run(&foreign, |input| {
            entrance(&input);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{of}: {failure}"));
}

macro_rules! survive {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                survives(stringify!($name));
            }
        )*

        /// Every function has a test here and a fuzz target, and every target is one of them.
        #[test]
        fn tests_and_targets_are_the_same() {
            let tests: BTreeSet<&str> = [$(stringify!($name)),*].into();
            let functions: BTreeSet<&str> = entries::ALL.iter().map(|(name, _)| *name).collect();
            assert_eq!(tests, functions);
            let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("the manifest");
            for name in &functions {
                let target = root().join("fuzz/fuzz_targets").join(format!("{name}.rs"));
                let text = std::fs::read_to_string(&target).unwrap_or_else(|error| panic!("{}: {error}", target.display()));
                assert!(text.contains(&format!("entries::{name}(input)")), "{name}");
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no target in fuzz/Cargo.toml");
            }
            let targets = std::fs::read_dir(root().join("fuzz/fuzz_targets")).expect("targets").count();
            assert_eq!(targets, functions.len());
        }
    };
}

survive!(
    agent_messages,
    agent_proofs,
    certificate,
    commit_message,
    commit_signature,
    effective_config,
    fleet_files,
    frames,
    hooks,
    journal_notes,
    journal_records,
    signer_files,
    yaml_documents,
);

#[test]
#[ignore = "writes the examples to fuzz/corpus, for the fuzzer to begin with"]
fn write_the_corpus() {
    for (name, _) in entries::ALL {
        let directory = root().join("fuzz/corpus").join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        for (number, example) in examples(name).iter().enumerate() {
            std::fs::write(directory.join(format!("example-{number}")), example).expect("an example");
        }
    }
}
