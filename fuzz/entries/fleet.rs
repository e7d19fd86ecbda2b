//! What a fleet's repository says: YAML, the files of a commit, its message.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gitamp::config::{ConfigHash, RenderedConfig};
use gitamp::fleet::snapshot::{Entry, RolloutTrailer, Snapshot, SnapshotLimits};
use gitamp::fleet::{load, load_after};
use gitamp::yaml;

use super::{is_harmless, parts};

/// Two documents, by `=== `: parsed, merged, substituted, written and read again, which changes nothing.
pub fn yaml_documents(input: &[u8]) {
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
pub fn fleet_files(input: &[u8]) {
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

/// The message of a commit, for what it asks for.
pub fn commit_message(input: &[u8]) {
    if let Some(finding) = RolloutTrailer::read(&String::from_utf8_lossy(input)).and_then(|trailer| trailer.finding()) {
        let line = finding.to_string();
        assert!(is_harmless(&line), "{line:?}");
    }
}
