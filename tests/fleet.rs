//! Golden cases: every directory in `tests/fleet` holds a fleet (`repo/`), optionally the policy it is judged by
//! (`accepted-fleet.yaml`), and what `fleet::load` makes of it (`expected/`).
//!
//! `UPDATE_EXPECT=1 cargo test --test fleet` writes what is expected anew; read the difference before committing it. Hashes in
//! these files are a promise: a release that changes one would restart fleets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use gitamp::cli::directory::read_directory;
use gitamp::fleet::diagnostic::{Diagnostic, Severity};
use gitamp::fleet::snapshot::{Entry, RenderLimits, Snapshot, SnapshotLimits};
use gitamp::fleet::{self, GroupDefinition, GroupName, RenderedFleet};
use gitamp::time::show_duration;
use proptest::prelude::*;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fleet");

#[test]
fn golden_cases() {
    let mut cases: Vec<PathBuf> =
        fs::read_dir(CASES).expect("the cases").map(|entry| entry.expect("a case").path()).collect();
    cases.sort();
    assert!(cases.len() >= 20, "only {} cases were found in {CASES}", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| difference(case)).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases differ (UPDATE_EXPECT=1 accepts):\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_example_is_clean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fleet");
    let snapshot = read_directory(&root, &SnapshotLimits::default()).expect("the example");
    let fleet = fleet::load(&snapshot, None);
    assert_eq!(fleet.diagnostics, [], "the example shows how it is done");
    assert!(fleet.groups.len() >= 6, "six groups at least");
    assert!(fleet.groups.values().all(|group| group.config.is_some()));
}

/// The pieces of YAML below a heading of the documentation of the format.
fn documented(heading: &str) -> Vec<&'static str> {
    const PAGE: &str = include_str!("../docs/fleet-repository.md");
    let (_, section) = PAGE.split_once(&format!("\n{heading}\n")).expect("the heading");
    let section = section.split("\n## ").next().unwrap_or_default();
    section.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_documentation_tells_the_defaults_and_nothing_that_is_wrong() {
    let examples = documented("## Rollout");
    assert!(examples.len() >= 4, "only {} examples of a rollout were found", examples.len());
    for (index, example) in examples.iter().enumerate() {
        let one = format!("{GROUP}{example}").replace("matchAll: true", "matchLabels: {group: one}");
        let other = GROUP.replace("matchAll: true", "matchLabels: {group: other}");
        // `dependsOn` of the examples names it.
        let files = [("a", one.as_str()), ("staging/gateways", other.as_str())];
        let mut entries = BTreeMap::new();
        for (group, text) in files {
            entries.insert(Arc::from(format!("{group}/group.yaml")), file(text));
            entries.insert(Arc::from(format!("{group}/c.yaml")), file(CONFIG));
        }
        let fleet = fleet::load(&Snapshot::new(entries), None);
        let doubts = fleet.diagnostics.iter().filter(|finding| finding.code != "no-soak").collect::<Vec<_>>();
        assert!(doubts.is_empty(), "{example}: {doubts:?}");
        let strategy = |name| fleet.groups[&GroupName::new(name)].definition.as_ref().expect("sound").strategy.clone();
        if index == 0 {
            assert_eq!(strategy("a"), strategy("staging/gateways"), "the defaults, written out");
        } else {
            assert_ne!(strategy("a"), strategy("staging/gateways"), "{example}: an example of nothing");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a switch for people who run the test, no part of the program")]
fn accepts() -> bool {
    std::env::var("UPDATE_EXPECT").is_ok_and(|value| value == "1")
}

/// The first file of a case that is not as expected.
fn difference(case: &Path) -> Option<String> {
    let snapshot = read_directory(&case.join("repo"), &SnapshotLimits::default()).expect("a readable fleet");
    let policy = fs::read(case.join("accepted-fleet.yaml")).ok();
    let found = show(&fleet::load(&snapshot, policy.as_deref()));
    let expected = case.join("expected");
    if accepts() {
        accept(&expected, &found);
    }
    let mut wanted = BTreeMap::new();
    collect(&expected, "", &mut wanted);
    let names: std::collections::BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    let nothing = String::new();
    for name in names {
        let (wanted, found) = (wanted.get(name).unwrap_or(&nothing), found.get(name).unwrap_or(&nothing));
        if wanted != found {
            let case = case.file_name().unwrap_or_default().display();
            return Some(format!("{case}/expected/{name}:\n--- expected\n{wanted}--- found\n{found}"));
        }
    }
    None
}

fn accept(expected: &Path, found: &BTreeMap<String, String>) {
    let _missing = fs::remove_dir_all(expected);
    for (name, content) in found {
        let path = expected.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a written file");
    }
}

fn collect(directory: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read_to_string(entry.path()).expect("text"));
        }
    }
}

/// A fleet as files: the groups, the findings, and one rendered configuration for each group.
fn show(fleet: &RenderedFleet) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut groups = String::new();
    for (name, group) in &fleet.groups {
        let hash = group.config.as_ref().map_or("rejected".to_owned(), |config| config.hash().to_string());
        writeln!(groups, "{name}\n  hash: {hash}").expect("strings grow");
        if let Some(definition) = &group.definition {
            groups.push_str(&show_definition(definition));
        }
        if let Some(config) = &group.config {
            let components: Vec<&str> = config.components().iter().collect();
            writeln!(groups, "  components: {}", components.join(" ")).expect("strings grow");
            let body = String::from_utf8(config.body().to_vec()).expect("UTF-8");
            files.insert(format!("rendered/{name}.yaml"), body);
        }
    }
    let diagnostics: String = fleet.diagnostics.iter().map(show_diagnostic).collect();
    if !diagnostics.is_empty() {
        files.insert("diagnostics.txt".to_owned(), diagnostics);
    }
    if !groups.is_empty() {
        files.insert("groups.txt".to_owned(), groups);
    }
    files
}

fn show_definition(definition: &GroupDefinition) -> String {
    let strategy = &definition.strategy;
    let mut text = format!("  selector: {}\n  priority: {}\n", definition.selector, definition.priority);
    if let Some((group, index)) = &definition.variant_of {
        writeln!(text, "  variant {index} of {group}").expect("strings grow");
    }
    if definition.suspend {
        text.push_str("  suspended\n");
    }
    if let Some(expect) = definition.expect {
        writeln!(text, "  expects {:?} to {:?}", expect.min, expect.max).expect("strings grow");
    }
    for stage in &strategy.stages {
        let who = match (&stage.agents, &stage.selector) {
            (Some(agents), _) => agents.to_string(),
            (None, Some(selector)) => selector.to_string(),
            (None, None) => "nobody".to_owned(),
        };
        let failures = stage.max_failures.map(|most| format!(", maxFailures {most}")).unwrap_or_default();
        let approval = if stage.needs_approval { ", approval" } else { "" };
        writeln!(text, "  stage {}: {who}, soak {}{failures}{approval}", stage.name, show_duration(stage.soak))
            .expect("strings grow");
    }
    let failures = strategy.max_failures.map(|most| most.to_string()).unwrap_or("default".to_owned());
    writeln!(
        text,
        "  bake {}, maxUnavailable {}, progressDeadline {}, maxFailures {failures}, {:?}, {:?}",
        show_duration(strategy.bake),
        strategy.max_unavailable,
        show_duration(strategy.progress_deadline),
        strategy.on_failure,
        strategy.on_new_commit
    )
    .expect("strings grow");
    if !strategy.spread_by.is_empty() {
        let proven = if strategy.spread_proven { "proven " } else { "" };
        writeln!(text, "  spread by {proven}{}", strategy.spread_by.join(", ")).expect("strings grow");
    }
    if !strategy.depends_on.is_empty() {
        writeln!(text, "  depends on {:?}", strategy.depends_on).expect("strings grow");
    }
    for window in &strategy.windows {
        writeln!(text, "  window: {window}").expect("strings grow");
    }
    text
}

fn show_diagnostic(diagnostic: &Diagnostic) -> String {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let group = diagnostic.group.as_ref().map(|group| format!(" ({group})")).unwrap_or_default();
    let place = diagnostic.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
    let help = diagnostic.help.as_ref().map(|help| format!("    {help}\n")).unwrap_or_default();
    format!("{severity}[{}]{group}\n  {place}{}\n{help}", diagnostic.code, diagnostic.message)
}

const GROUP: &str = "apiVersion: gitamp/v1\nkind: Group\nselector: {matchAll: true}\n";
const CONFIG: &str =
    "receivers: {nop: }\nexporters: {nop: }\nservice: {pipelines: {logs: {receivers: [nop], exporters: [nop]}}}\n";

fn snapshot(entries: &[(&str, Entry)]) -> Snapshot {
    let entries = entries.iter().map(|(path, entry)| (Arc::from(*path), entry.clone()));
    Snapshot::new(entries.collect::<BTreeMap<_, _>>())
}

fn file(text: &str) -> Entry {
    Entry::File(text.to_owned().into())
}

/// `code (group) place` of every error.
fn errors(fleet: &RenderedFleet) -> Vec<String> {
    let errors = fleet.diagnostics.iter().filter(|one| one.severity == Severity::Error);
    let show = |one: &Diagnostic| {
        let group = one.group.as_ref().map_or("-", |group| group.as_str());
        let place = one.place.as_ref().map_or("-".to_owned(), ToString::to_string);
        format!("{} ({group}) {place}", one.code)
    };
    errors.map(show).collect()
}

fn hash_of(fleet: &RenderedFleet, group: &str) -> String {
    let group = fleet.groups.get(&GroupName::new(group)).expect("the group");
    group.config.as_ref().expect("a configuration").hash().to_string()
}

#[test]
fn what_is_no_file_is_named_and_never_followed() {
    let link = "apiVersion: gitamp/v1\nkind: Group\nselector: {matchAll: true}\nlayers: [/shared/a.yaml]\n";
    for (what, entries, expected) in [
        (
            "a layer beside the group is a link",
            vec![("a/group.yaml", file(GROUP)), ("a/collector.yaml", Entry::Symlink)],
            "symlink (a) a/collector.yaml:1:1",
        ),
        ("a group is a link", vec![("a/group.yaml", Entry::Symlink)], "symlink (a) a/group.yaml:1:1"),
        (
            "a layer lies behind a linked directory",
            vec![("a/group.yaml", file(link)), ("shared", Entry::Symlink)],
            "symlink (a) a/group.yaml:4:10",
        ),
        (
            "a layer lies in a submodule",
            vec![("a/group.yaml", file(link)), ("shared", Entry::Submodule)],
            "submodule (a) a/group.yaml:4:10",
        ),
        (
            "defaults are a link",
            vec![("a/group.yaml", file(GROUP)), ("a/c.yaml", file(CONFIG)), ("defaults.yaml", Entry::Symlink)],
            "symlink (a) defaults.yaml:1:1",
        ),
        (
            "a layer is too large",
            vec![("a/group.yaml", file(GROUP)), ("a/c.yaml", Entry::TooLarge(2 << 20))],
            "too-large (a) a/c.yaml:1:1",
        ),
        (
            "the policy is a link: nothing of the commit can be judged",
            vec![("a/group.yaml", file(GROUP)), ("a/c.yaml", file(CONFIG)), ("fleet.yaml", Entry::Symlink)],
            "symlink (-) fleet.yaml:1:1",
        ),
    ] {
        let mut entries = entries;
        entries.extend([("good/group.yaml", file(GROUP)), ("good/c.yaml", file(CONFIG))]);
        if what.starts_with("defaults") {
            entries.retain(|(path, _)| !path.starts_with("good/"));
        }
        let fleet = fleet::load(&snapshot(&entries), None);
        assert_eq!(errors(&fleet), [expected], "{what}");
        if let Some(good) = fleet.groups.get(&GroupName::new("good")) {
            assert!(good.config.is_some(), "{what}: the other group proceeds");
        }
    }
}

#[test]
fn names_that_no_honest_commit_has_refuse_the_whole() {
    for path in
        ["a/../b.yaml", "a/.git/c.yaml", "a/.GIT/c.yaml", "a//b.yaml", "a\\b.yaml", "a\u{1b}[2J.yaml", "./a.yaml"]
    {
        let entries = [("good/group.yaml", file(GROUP)), ("good/c.yaml", file(CONFIG)), (path, file("a: 1\n"))];
        let fleet = fleet::load(&snapshot(&entries), None);
        assert_eq!(errors(&fleet), ["evil-path (-) -"], "{path:?}");
        assert!(fleet.diagnostics.iter().all(|one| !one.message.contains('\u{1b}')), "{path:?} is shown harmlessly");
    }
}

#[test]
fn the_hash_is_of_the_content_alone() {
    let load = |path: &str, config: &str| {
        let entries = [(format!("{path}/group.yaml"), GROUP), (format!("{path}/c.yaml"), config)];
        let entries: Vec<(&str, Entry)> = entries.iter().map(|(path, text)| (path.as_str(), file(text))).collect();
        hash_of(&fleet::load(&snapshot(&entries), None), path)
    };
    let before = load("old", CONFIG);
    assert_eq!(load("new/name", CONFIG), before, "a renamed directory pushes nothing");
    assert_eq!(load("old", &format!("# why\n{CONFIG}\n\n")), before, "comments push nothing");
    let reordered = "service:\n  pipelines:\n    logs:\n      exporters: [nop]\n      receivers: [nop]\nexporters:\n  nop:\nreceivers:\n  nop:\n";
    assert_eq!(load("old", reordered), before, "neither do key order and layout");
    assert_ne!(load("old", &CONFIG.replace("logs", "traces")), before, "meaning does");
}

/// Also what bounds every message to an agent: whatever is sent is made of one configuration and some bytes.
#[test]
fn a_configuration_that_is_too_large_is_refused() {
    let long = "y".repeat(RenderLimits::default().config_bytes / 2);
    let layer = |name: &str| file(&format!("processors: {{batch/{name}: {{timeout: {long}}}}}\n"));
    let entries = [
        ("all/group.yaml", file(GROUP)),
        ("all/c.yaml", file(CONFIG)),
        ("all/d.yaml", layer("d")),
        ("all/e.yaml", layer("e")),
    ];
    let fleet = fleet::load(&snapshot(&entries), None);
    assert!(fleet.groups.values().all(|group| group.config.is_none()), "it is not offered");
    assert!(errors(&fleet).iter().any(|error| error.starts_with("too-large (all)")), "{:?}", errors(&fleet));
}

#[test]
fn the_accepted_policy_judges_and_not_the_new_one() {
    let bounded = "apiVersion: gitamp/v1\nkind: Fleet\nboundaries:\n  - {path: \"staging/**\", maxPriority: 1, selector: {matchLabels: {env: staging}}}\n";
    let group = format!("{GROUP}priority: 50\n");
    let open = [("staging/a/group.yaml", file(&group)), ("staging/a/c.yaml", file(CONFIG))];
    let mut closed = open.to_vec();
    closed.push(("fleet.yaml", file(bounded)));
    let refused = ["above-boundary (staging/a) staging/a/group.yaml:4:11"];

    let own: Option<&[u8]> = None;
    for (why, entries, policy, expected) in [
        ("without a policy", &open[..], own, &[][..]),
        ("the first revision is judged by its own", &closed, own, &refused),
        ("removing the policy does not help in the same commit", &open, Some(bounded.as_bytes()), &refused),
        ("a new policy does not judge the commit that brings it", &closed, Some(b"".as_slice()), &[]),
        ("the same policy", &closed, Some(bounded.as_bytes()), &refused),
    ] {
        assert_eq!(errors(&fleet::load(&snapshot(entries), policy)), expected, "{why}");
    }
    let broken = fleet::load(&snapshot(&open), Some(b"kind: Nonsense\n"));
    assert!(
        broken.diagnostics.iter().any(|one| one.severity == Severity::Error && one.group.is_none()),
        "an unreadable policy lets nothing through"
    );
    let next = fleet::load(&snapshot(&closed), Some(b""));
    assert_eq!(next.policy.as_deref(), Some(bounded.as_bytes()), "what the next revision is judged by");
}

#[test]
fn a_broken_file_above_many_groups_is_no_flood() {
    let mut entries = vec![("base/broken.yaml".to_owned(), file("a: [\n"))];
    for number in 0..500 {
        let group = format!("{GROUP}layers: [/base/broken.yaml]\n");
        entries.push((format!("groups/g{number}/group.yaml"), file(&group)));
    }
    let entries: Vec<(&str, Entry)> = entries.iter().map(|(path, entry)| (path.as_str(), entry.clone())).collect();
    let fleet = fleet::load(&snapshot(&entries), None);
    assert_eq!(errors(&fleet).len(), 500, "one error for each group");
    assert!(fleet.groups.values().all(|group| group.config.is_none() && group.definition.is_some()));
}

/// Pieces that tend to break readers of YAML and of our files.
const PIECES: [&str; 16] = [
    "",
    ":",
    "- ",
    "{",
    "[",
    "&a ",
    "*a",
    "\n  ",
    "\t",
    "\u{0}",
    "selector: {matchAll: true}\n",
    "${fleet:",
    "dependsOn: [a]",
    "'",
    "layers: [/",
    "%",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_repository_brings_it_down(
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        remove in 0_usize..20,
        piece in prop::sample::select(&PIECES[..]),
    ) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fleet");
        let whole = read_directory(&root, &SnapshotLimits::default()).expect("the example");
        let mut entries: BTreeMap<Arc<str>, Entry> = whole.iter().map(|(path, entry)| (path.clone(), entry.clone())).collect();
        let path = file.get(&entries.keys().cloned().collect::<Vec<_>>()).clone();
        let Some(Entry::File(content)) = entries.get(&path) else { panic!("the example has files only") };
        let mut content = content.to_vec();
        let from = at.index(content.len());
        let until = (from + remove).min(content.len());
        content.splice(from..until, piece.bytes());
        entries.insert(path.clone(), Entry::File(content.into()));

        let snapshot = Snapshot::new(entries);
        let fleet = fleet::load(&snapshot, None);
        let names: Vec<_> = fleet.groups.keys().collect();
        prop_assert!(names.len() >= 6, "{path}: {names:?}");
        let commit_wide = errors(&fleet).iter().any(|error| error.contains("(-)"));
        prop_assert!(!commit_wide || &*path == "fleet.yaml", "{path}: only the policy concerns everybody");
        for (name, group) in &fleet.groups {
            let is_told = fleet.diagnostics.iter().any(|one| one.severity == Severity::Error && one.group.as_ref() == Some(name));
            prop_assert_eq!(group.config.is_none(), is_told, "{}: who is rejected is told, who is told is rejected", name);
        }
        let again = fleet::load(&snapshot, None);
        prop_assert_eq!(&again.diagnostics, &fleet.diagnostics, "the same files say the same");
    }
}

/// Runs the program as a user would.
fn gitamp(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gitamp"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .output()
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

#[test]
fn check_says_it_for_people_scripts_and_forges() {
    let (code, out, _) = gitamp(&["check", "examples/fleet"]);
    assert_eq!((code, out.as_str()), (0, "7 groups: no errors, 0 warnings\n"));

    let (code, out, _) = gitamp(&["check", "tests/fleet/duplicate-key/repo"]);
    assert_eq!(code, 1, "{out}");
    for part in [
        "error[yaml]: the key `priority`",
        "tests/fleet/duplicate-key/repo/a/group.yaml:5:1",
        "5 | priority: 2",
        "2 errors",
    ] {
        assert!(out.contains(part), "{part} is missing:\n{out}");
    }
    assert!(!out.contains('\u{1b}'), "no colours where no terminal is:\n{out}");

    let (code, out, _) = gitamp(&["check", "tests/fleet/duplicate-key/repo", "--output", "json"]);
    let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &document["errors"], &document["rejected"]), (1, &2.into(), &serde_json::json!(["a", "b"])));
    assert_eq!(document["diagnostics"][0]["line"], 5);

    let (code, out, _) = gitamp(&["check", "tests/fleet/duplicate-key/repo", "--output", "github"]);
    assert_eq!(code, 1);
    let first =
        "::error file=tests/fleet/duplicate-key/repo/a/group.yaml,line=5,col=1,title=gitamp yaml::the key `priority`";
    assert!(out.starts_with(first), "{out}");

    let (code, out, err) = gitamp(&["check", "no/such/place"]);
    assert_eq!((code, out.as_str(), err.as_str()), (2, "", "error: no/such/place is not a directory\n"));
    assert_eq!(gitamp(&["check", "--output", "xml"]).0, 2, "usage");
}

#[test]
fn render_prints_what_agents_get() {
    let expected = Path::new(CASES).join("variants/expected/rendered/gateways@us.yaml");
    let (code, out, err) = gitamp(&["render", "gateways@us", "--dir", "tests/fleet/variants/repo"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, fs::read_to_string(expected).expect("the golden file"));

    let (code, out, _) = gitamp(&["render", "--dir", "examples/fleet"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("GROUP") && out.lines().count() == 8, "{out}");

    let (code, out, err) = gitamp(&["render", "a", "--dir", "tests/fleet/duplicate-key/repo"]);
    assert_eq!((code, out.as_str()), (1, ""), "nothing is printed of what is held back");
    assert!(err.contains("the key `priority`") && !err.contains("exporters"), "only the errors of this group:\n{err}");

    let (code, _, err) = gitamp(&["render", "gateway", "--dir", "examples/fleet"]);
    assert_eq!(code, 2);
    assert!(err.contains("did you mean dev/gateways or"), "{err}");

    let (code, out, _) = gitamp(&["render", "prod/hosts", "--dir", "examples/fleet", "--output", "json"]);
    let rollout = serde_json::from_str::<serde_json::Value>(&out).expect("JSON")["rollout"].clone();
    assert_eq!(code, 0);
    assert_eq!(rollout["stages"][0], serde_json::json!({"name": "canary", "agents": "1%", "soak": "15m"}));
    assert_eq!(
        rollout["stages"][2],
        serde_json::json!({"name": "all", "agents": "100%", "soak": "0s", "approval": "manual"})
    );
    assert_eq!(rollout["windows"][0], "allow Mon-Thu 09:00-16:00 Europe/Berlin", "its own");
    assert_eq!((&rollout["maxFailures"], &rollout["maxUnavailable"]), (&"1%".into(), &"10%".into()), "inherited");
    assert_eq!((&rollout["bake"], &rollout["onFailure"]), (&"10m".into(), &"rollback".into()), "said by nobody");

    let (code, out, _) = gitamp(&["render", "--dir", "examples/fleet", "--all", "--output", "json"]);
    let groups: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, 0);
    assert!(groups.as_array().is_some_and(|groups| groups.iter().all(|group| group["config"].as_str().is_some())));
}

#[test]
fn the_schema_for_editors_knows_the_fields_that_the_reader_knows() {
    let schema: serde_json::Value = serde_json::from_str(gitamp::cli::schema::SCHEMA).expect("JSON");
    let group = "apiVersion: gitamp/v1\nkind: Group\nzzzzzzzz: 1\nselector: {zzzzzzzz: 1, matchExpressions: [{zzzzzzzz: 1}]}\n\
                 rollout: {zzzzzzzz: 1, stages: [{zzzzzzzz: 1}], windows: [{zzzzzzzz: 1}]}\nexpect: {zzzzzzzz: 1}\n\
                 variants: [{zzzzzzzz: 1}]\n";
    let defaults = "apiVersion: gitamp/v1\nkind: Defaults\nzzzzzzzz: 1\n";
    let fleet = "apiVersion: gitamp/v1\nkind: Fleet\nzzzzzzzz: 1\nboundaries: [{zzzzzzzz: 1}]\nguards: {zzzzzzzz: 1}\n\
                 signers: [{zzzzzzzz: 1}]\n";
    let files = [("a/group.yaml", file(group)), ("a/defaults.yaml", file(defaults)), ("fleet.yaml", file(fleet))];
    let mut seen = 0;
    for finding in fleet::load(&snapshot(&files), None).diagnostics.iter().filter(|one| one.code == "unknown-field") {
        let (what, _) = finding.message.split_once(" has no field").expect("what has no such field");
        let definition = match what {
            "a selector" => "selector",
            "a match expression" => "matchExpression",
            "a stage" => "stage",
            "a window" => "window",
            "a variant" => "variant",
            "a boundary" => "boundary",
            "a rule of `signers`" => "signerRule",
            other => other.trim_start_matches("a document of kind ").trim_matches('`'),
        };
        let help = finding.help.as_deref().and_then(|help| help.strip_prefix("its fields are ")).expect("the fields");
        let mut known: Vec<&str> = help.split(", ").collect();
        known.sort_unstable();
        let properties = schema["definitions"][definition]["properties"].as_object().expect("a definition");
        let mut promised: Vec<&str> = properties.keys().map(String::as_str).collect();
        promised.sort_unstable();
        assert_eq!(promised, known, "{definition}");
        seen += 1;
    }
    assert_eq!(seen, 13, "every kind of mapping was compared");
}
