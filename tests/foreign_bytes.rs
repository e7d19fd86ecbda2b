//! Everything that reads foreign bytes, with a bounded number of inputs: arbitrary ones, and real examples that were changed. The functions are
//! those of the fuzz targets in `fuzz/`, which go on from here without a bound.

#[path = "../fuzz/entries/mod.rs"]
mod entries;

#[path = "../fuzz/examples.rs"]
mod examples;

use std::collections::BTreeSet;

use examples::{examples, root};
use proptest::prelude::*;

/// Inputs for each function: a few hundred of them find what is broken for everybody; the rest is for the fuzzer.
const CASES: u32 = 400;

/// A change to an example.
#[derive(Clone, Debug)]
enum Edit {
    Set(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Repeat(usize),
}

/// What makes readers stumble: structure of the formats, numbers at their ends, odd letters.
const PIECES: [&[u8]; 30] = [
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
    b"\xd8\x9c",
    b"\xf3\xa0\x81\x81",
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
            let page = std::fs::read_to_string(root().join("fuzz/README.md")).expect("the page");
            let rows = page.lines().filter_map(|line| line.strip_suffix("` |")?.rsplit_once("| `").map(|(_, name)| name));
            assert_eq!(rows.collect::<BTreeSet<&str>>(), functions, "the table says what each of them reads");
            let targets = std::fs::read_dir(root().join("fuzz/fuzz_targets")).expect("targets").count();
            assert_eq!(targets, functions.len());
        }
    };
}

survive!(
    admin_requests,
    agent_messages,
    agent_proofs,
    api_requests,
    certificate,
    commit_message,
    commit_signature,
    effective_config,
    fleet_files,
    forge_answers,
    frames,
    git_objects,
    hook_requests,
    hooks,
    http_answers,
    http_requests,
    journal_notes,
    journal_records,
    local_files,
    orders,
    revocations,
    signer_files,
    transfer_answers,
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
