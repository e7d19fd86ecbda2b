//! Loading after another revision gives what loading alone gives, whatever happened between the two; and takes over what did not change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;

use crate::fleet::assign::Assigner;
use crate::fleet::snapshot::{Child, Directory, Entry, Snapshot};
use crate::fleet::{GroupName, Memory, RenderedFleet, load, load_after};
use crate::labels::Labels;

type Files = BTreeMap<Arc<str>, Entry>;

/// The same files as a snapshot that shares with `before` what is equal, as the mirror's reader does.
fn sharing(files: &Files, before: &Snapshot) -> Snapshot {
    fn equal(one: &Arc<Directory>, other: &Arc<Directory>) -> bool {
        one.children().len() == other.children().len()
            && one.children().iter().zip(other.children()).all(|pair| match pair {
                (Child::File { path, entry, .. }, Child::File { path: other_path, entry: other, .. }) => {
                    (path, entry) == (other_path, other)
                }
                (Child::Directory(one), Child::Directory(other)) => one.path() == other.path() && equal(one, other),
                (Child::File { .. }, Child::Directory(_)) | (Child::Directory(_), Child::File { .. }) => false,
            })
    }
    fn children(now: &Arc<Directory>, before: Option<&Arc<Directory>>) -> Vec<Child> {
        let share = |child: &Child| match child {
            Child::File { .. } => child.clone(),
            Child::Directory(now) => {
                let name = now.path().rsplit('/').next().unwrap_or_default();
                let before = before.and_then(|before| before.directory(name));
                Child::Directory(match before.filter(|before| equal(before, now)) {
                    Some(same) => same.clone(),
                    None => Arc::new(Directory::new(now.path().clone(), None, children(now, before), 0)),
                })
            }
        };
        now.children().iter().map(share).collect()
    }
    let now = Snapshot::new(files.clone());
    if equal(now.root(), before.root()) {
        return before.clone();
    }
    Snapshot::of(Directory::root(None, children(now.root(), Some(before.root())), 0))
}

fn text(content: impl Into<String>) -> Entry {
    Entry::File(content.into().into())
}

/// Something that a commit does.
#[derive(Clone, Debug)]
enum Edit {
    Write(String, Entry),
    Remove(String),
    RemoveBelow(String),
    Rename(String, String),
    /// The accepted revision's policy from here on.
    Judge(Option<&'static str>),
}

const DIRECTORIES: [&str; 9] = ["all", "a", "a/b", "a/b/c", "a-b", "a/d", "e/f", "e", "x@y"];
const LEVELS: [&str; 4] = ["", "a/", "a/b/", "e/"];
const LAYERS: [&str; 6] =
    ["base/one.yaml", "base/two.yaml", "a/own.yaml", "a/b/own.yaml", "e/f/own.yaml", "all/own.yaml"];

fn layer() -> impl Strategy<Value = Entry> {
    let service = "service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n";
    let whole = format!("receivers: {{otlp: {{}}}}\nexporters: {{debug: {{}}}}\n{service}");
    prop_oneof![
        6 => (0..3_u8).prop_map(move |number| text(format!("{whole}extensions: {{zpages: {{number: {number}}}}}\n"))),
        1 => Just(text("exporters: {debug: {endpoint: '${fleet:region}'}}\n")),
        1 => Just(text("exporters: {otlp: {headers: {authorization: Bearer abcdefghijklmnop}}}\n")),
        1 => Just(text("# nothing\n")),
        1 => Just(text("receivers: [broken\n")),
        1 => Just(text("- a list\n")),
        1 => Just(Entry::Symlink),
        1 => Just(Entry::TooLarge(2 << 20)),
    ]
}

fn common() -> impl Strategy<Value = String> {
    let selector = prop_oneof![
        4 => (0..4_u8).prop_map(|number| format!("selector: {{matchLabels: {{name: n{number}}}}}\n")),
        1 => Just("selector: {matchAll: true}\n".to_owned()),
        1 => Just("selector: {matchExpressions: [{key: host, operator: Glob, values: ['gw-*']}]}\n".to_owned()),
        1 => Just(String::new()),
    ];
    let layers = prop_oneof![
        3 => Just(String::new()),
        2 => (0..LAYERS.len(), 0..LAYERS.len()).prop_map(|(one, other)| {
            if one == other { format!("layers: [/{}]\n", LAYERS[one]) } else { format!("layers: [/{}, /{}]\n", LAYERS[one], LAYERS[other]) }
        }),
        1 => Just("layers: [/base/nowhere.yaml]\n".to_owned()),
    ];
    let vars =
        prop_oneof![3 => Just(""), 1 => Just("vars: {region: eu}\n"), 1 => Just("vars: {region: us, more: x}\n")];
    let rollout = prop_oneof![
        5 => Just(""),
        1 => Just("rollout: {dependsOn: [a/b]}\n"),
        1 => Just("rollout: {dependsOn: [all, a]}\n"),
        1 => Just("rollout: {dependsOn: [nobody]}\n"),
        1 => Just("rollout: {bake: 0s, stages: [{name: all, agents: 100%, soak: 0s}]}\n"),
    ];
    (selector, layers, vars, rollout, prop::bool::weighted(0.1)).prop_map(
        |(selector, layers, vars, rollout, broken)| {
            format!("{selector}{layers}{vars}{rollout}{}", if broken { "unknown: {\n" } else { "" })
        },
    )
}

fn group() -> impl Strategy<Value = Entry> {
    let variants = prop_oneof![
        4 => Just(""),
        1 => Just("variants: [{name: us, selector: {matchLabels: {region: us}}, vars: {region: us}}]\n"),
        1 => Just("variants: [{name: y, selector: {matchLabels: {r: y}}}, {name: z, selector: {matchLabels: {r: z}}, layers: [/base/two.yaml]}]\n"),
        1 => Just("variants: [{name: us, selector: 7}]\n"),
    ];
    let priority =
        prop_oneof![3 => Just(""), 1 => Just("priority: 5\n"), 1 => Just("priority: 50\nexpect: {min: 60}\n")];
    prop_oneof![
        12 => (common(), variants, priority).prop_map(|(common, variants, priority)| {
            text(format!("apiVersion: gitamp/v1\nkind: Group\n{common}{variants}{priority}"))
        }),
        1 => Just(text("")),
        1 => Just(Entry::Symlink),
    ]
}

const POLICIES: [&str; 4] = [
    "",
    "apiVersion: gitamp/v1\nkind: Fleet\nboundaries: [{path: 'a/**', selector: {matchLabels: {env: a}}, maxPriority: 10}]\n",
    "apiVersion: gitamp/v1\nkind: Fleet\nallowFast: ['e/**']\nguards: {maxChangedGroups: 10%}\nmaxUnavailable: 30%\n",
    "apiVersion: gitamp/v1\nkind: Fleet\nboundaries: broken\n",
];

fn edit() -> impl Strategy<Value = Edit> {
    let directory = || prop::sample::select(DIRECTORIES.to_vec());
    let defaults = common().prop_map(|common| text(format!("apiVersion: gitamp/v1\nkind: Defaults\n{common}")));
    let defaults = prop_oneof![5 => defaults, 1 => Just(text("# empty\n"))];
    let odd = prop_oneof![
        Just(("all/group.yml", text("x"))),
        Just(("e/link", Entry::Symlink)),
        Just(("e/module", Entry::Submodule)),
        Just(("fleet.yml", text("x"))),
        Just(("a/b/.hidden/more.yaml", text("a: 1\n"))),
        Just(("a\u{1b}b.yaml", text("a: 1\n"))),
        Just(("group.yaml", text("a: 1\n"))),
    ];
    prop_oneof![
        6 => (directory(), group()).prop_map(|(directory, entry)| Edit::Write(format!("{directory}/group.yaml"), entry)),
        5 => (prop::sample::select(LAYERS.to_vec()), layer()).prop_map(|(path, entry)| Edit::Write(path.to_owned(), entry)),
        2 => (directory(), layer()).prop_map(|(directory, entry)| Edit::Write(format!("{directory}/more.yaml"), entry)),
        3 => (prop::sample::select(LEVELS.to_vec()), defaults)
            .prop_map(|(level, entry)| Edit::Write(format!("{level}defaults.yaml"), entry)),
        1 => prop::sample::select(LEVELS.to_vec()).prop_map(|level| Edit::Remove(format!("{level}defaults.yaml"))),
        2 => prop::sample::select(LAYERS.to_vec()).prop_map(|path| Edit::Remove(path.to_owned())),
        1 => directory().prop_map(|directory| Edit::RemoveBelow(directory.to_owned())),
        2 => (directory(), directory()).prop_map(|(from, to)| Edit::Rename(from.to_owned(), to.to_owned())),
        1 => prop::sample::select(POLICIES.to_vec()).prop_map(|policy| Edit::Write("fleet.yaml".to_owned(), text(policy))),
        1 => Just(Edit::Remove("fleet.yaml".to_owned())),
        1 => prop::option::of(prop::sample::select(POLICIES.to_vec())).prop_map(Edit::Judge),
        1 => odd.clone().prop_map(|(path, entry)| Edit::Write(path.to_owned(), entry)),
        2 => odd.prop_map(|(path, _)| Edit::Remove(path.to_owned())),
    ]
}

impl Edit {
    fn make(&self, files: &mut Files, policy: &mut Option<&'static str>) {
        match self {
            Self::Write(path, entry) => drop(files.insert(path.as_str().into(), entry.clone())),
            Self::Remove(path) => drop(files.remove(path.as_str())),
            Self::RemoveBelow(directory) => files.retain(|path, _| !path.starts_with(&format!("{directory}/"))),
            Self::Rename(from, to) => {
                let from = format!("{from}/");
                let moved: Vec<(Arc<str>, Entry)> = files
                    .iter()
                    .filter_map(|(path, entry)| {
                        Some((format!("{to}/{}", path.strip_prefix(&*from)?).into(), entry.clone()))
                    })
                    .collect();
                files.retain(|path, _| !path.starts_with(&from));
                files.extend(moved);
            }
            Self::Judge(accepted) => *policy = *accepted,
        }
    }
}

/// Everything that a fleet says, in full.
fn show(fleet: &RenderedFleet) -> String {
    let mut shown = String::new();
    for (name, group) in &fleet.groups {
        let config = group.config.as_ref().map(|config| (config.hash(), config.body(), config.components()));
        writeln!(shown, "{name}: {:?} {config:?}", group.definition).expect("strings grow");
    }
    for finding in &fleet.diagnostics {
        writeln!(shown, "{finding:?}").expect("strings grow");
    }
    let judge = &fleet.judged_by;
    writeln!(
        shown,
        "{:?} {:?}",
        fleet.policy,
        (judge.max_changed_groups, judge.max_moved_agents, judge.max_unavailable)
    )
    .expect("strings grow");
    let defined = fleet.groups.iter().filter_map(|(name, group)| Some((name, group.definition.as_deref()?)));
    let assigner = Assigner::new(defined);
    for labels in [&[("name", "n1")][..], &[("name", "n2"), ("region", "us")], &[("host", "gw-1"), ("env", "a")], &[]] {
        writeln!(shown, "{:?}", assigner.assign(&Labels::new(labels.iter().copied()))).expect("strings grow");
    }
    shown
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 2_000 }))]

    #[test]
    fn after_another_revision_a_fleet_is_what_it_is_alone(
        start in prop::collection::vec(edit(), 10..40),
        commits in prop::collection::vec((prop::collection::vec(edit(), 0..4), prop::bool::weighted(0.9)), 1..8),
    ) {
        let (mut files, mut policy) = (Files::new(), Some(""));
        start.iter().for_each(|edit| edit.make(&mut files, &mut policy));
        let mut snapshot = Snapshot::new(files.clone());
        let (_, mut memory) = load_after(&snapshot, policy.map(str::as_bytes), None);
        for (edits, is_shared) in commits {
            edits.iter().for_each(|edit| edit.make(&mut files, &mut policy));
            snapshot = if is_shared { sharing(&files, &snapshot) } else { Snapshot::new(files.clone()) };
            let (fleet, next) = load_after(&snapshot, policy.map(str::as_bytes), Some(&memory));
            let alone = load(&Snapshot::new(files.clone()), policy.map(str::as_bytes));
            prop_assert_eq!(show(&fleet), show(&alone), "after {:?}", edits);
            memory = next;
        }
    }
}

/// Three hundred groups; each third of them has a base layer of its own.
fn large() -> Files {
    let mut files = Files::new();
    for base in 0..3 {
        let content = "receivers: {otlp: {}}\nexporters: {debug: {}}\n";
        files.insert(format!("base/{base}.yaml").into(), text(content));
    }
    for number in 0..300 {
        let group = format!(
            "apiVersion: gitamp/v1\nkind: Group\nselector: {{matchLabels: {{name: n{number}}}}}\n\
             layers: [/base/{}.yaml, ./own.yaml]\n",
            number % 3
        );
        files.insert(format!("g/{number}/group.yaml").into(), text(group));
        let own = format!(
            "extensions: {{zpages: {{number: {number}}}}}\nservice: {{pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}}}\n"
        );
        files.insert(format!("g/{number}/own.yaml").into(), text(own));
    }
    files
}

/// Who is not the very same as before: in its definition, in its configuration.
fn renewed(before: &RenderedFleet, now: &RenderedFleet) -> (Vec<GroupName>, Vec<GroupName>) {
    let (mut definitions, mut configs) = (Vec::new(), Vec::new());
    for (name, group) in &now.groups {
        let before = before.groups.get(name);
        let is_same = |one: &Arc<_>, other: &Arc<_>| Arc::ptr_eq(one, other);
        if !before
            .and_then(|before| before.definition.as_ref())
            .zip(group.definition.as_ref())
            .is_some_and(|(one, other)| is_same(one, other))
        {
            definitions.push(name.clone());
        }
        let bodies = before.and_then(|before| before.config.as_ref()).zip(group.config.as_ref());
        if bodies.is_none_or(|(one, other)| one.body().as_ptr() != other.body().as_ptr()) {
            configs.push(name.clone());
        }
    }
    (definitions, configs)
}

#[test]
fn only_what_a_commit_concerns_is_made_again() {
    let files = large();
    let snapshot = Snapshot::new(files.clone());
    let (fleet, memory): (RenderedFleet, Memory) = load_after(&snapshot, Some(b""), None);
    assert_eq!(fleet.diagnostics, []);
    let seventh = GroupName::new("g/7");
    let edit = |path: &str, from: &str, to: &str| {
        let mut files = files.clone();
        let Some(Entry::File(content)) = files.get(path) else { panic!("no {path}") };
        let content = String::from_utf8_lossy(content).replace(from, to);
        files.insert(path.into(), text(content));
        files
    };
    for (files, definitions, configs, why) in [
        (files.clone(), 0, 0, "nothing"),
        (edit("g/7/own.yaml", "number: 7", "number: 8"), 1, 1, "a layer of its own: its files are read again"),
        (edit("g/7/group.yaml", "n7", "other"), 1, 0, "its selector: the configuration stays"),
        (edit("base/1.yaml", "debug: {}", "debug: {verbosity: basic}"), 0, 100, "a base layer of a hundred"),
    ] {
        let (next, _) = load_after(&sharing(&files, &snapshot), Some(b""), Some(&memory));
        let (new_definitions, new_configs) = renewed(&fleet, &next);
        assert_eq!((new_definitions.len(), new_configs.len()), (definitions, configs), "{why}");
        assert!(configs != 1 || new_configs == [seventh.clone()], "{why}: {new_configs:?}");
    }
    let own_policy = Some(
        &b"apiVersion: gitamp/v1\nkind: Fleet\nboundaries: [{path: 'g/7', selector: {matchLabels: {a: b}}}]\n"[..],
    );
    let (next, _) = load_after(&snapshot, own_policy, Some(&memory));
    assert_eq!(renewed(&fleet, &next), (vec![seventh], vec![]), "another policy: whom it bounds otherwise");
}
