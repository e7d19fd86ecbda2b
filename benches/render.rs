//! What a commit costs before anybody is offered anything: reading and rendering a large fleet, whole and after another commit,
//! planning what to do about it, deciding who belongs where, and the single steps for one configuration of 10 KB.
//!
//! ```text
//! cargo bench --bench render
//! cargo bench --bench render -- 'first render'
//! cargo bench --bench render -- 'commit'
//! ```
//!
//! The first render of 10,000 groups in 50,000 files is what a fresh process does once, and may take 6 s at most. A commit that
//! touches one directory of them is read, rendered and planned in at most 100 ms.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use gitamp::agent::{
    AgentEvent, AgentId, AgentReport, Capabilities, ConfigState, ConfigStatus, ConnectionId, Health, ReportedHash,
    Transport,
};
use gitamp::cli::directory::read_directory;
use gitamp::controller::{Action, Controller, Options as ControllerOptions, Revision};
use gitamp::fleet::assign::{Assigner, Assignment};
use gitamp::fleet::overlap::overlaps;
use gitamp::fleet::snapshot::{CommitId, CommitInfo, Entry, Snapshot, SnapshotLimits};
use gitamp::fleet::{self, GroupDefinition, GroupName, RenderedFleet};
use gitamp::git::mirror::Mirror;
use gitamp::git::{Access, Deadlines, SourceOptions, Tracked};
use gitamp::labels::Labels;
use gitamp::time::Timestamp;
use gitamp::yaml::{self, Limits, Node};

const GROUPS: usize = 10_000;
const AGENTS: usize = 20_000;
const ENVIRONMENTS: [&str; 4] = ["dev", "test", "staging", "prod"];

/// Five files a group: its definition and four layers; and above them the defaults of each environment and a common layer. Two areas
/// of fifty groups have one more layer in common.
fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::<String, String>::new();
    files.insert("base/hundred.yaml".to_owned(), HUNDRED.to_owned());
    for area in ["prod/area00", "prod/area01"] {
        let defaults = "apiVersion: gitamp/v1\nkind: Defaults\nlayers: [/base/hundred.yaml]\n";
        files.insert(format!("{area}/defaults.yaml"), defaults.to_owned());
    }
    files.insert("base/common.yaml".to_owned(), common_layer());
    for environment in ENVIRONMENTS {
        files.insert(
            format!("{environment}/defaults.yaml"),
            format!(
                "apiVersion: gitamp/v1\nkind: Defaults\nselector: {{matchLabels: {{env: {environment}}}}}\n\
                 layers: [/base/common.yaml]\nvars: {{environment: {environment}}}\n"
            ),
        );
    }
    for index in 0..GROUPS {
        let directory = format!("{}/area{:02}/service-{index:05}", ENVIRONMENTS[index % 4], index / 4 % 50);
        let definition = format!(
            "apiVersion: gitamp/v1\nkind: Group\nselector:\n  matchLabels: {{service.name: service-{index:05}}}\n\
             vars: {{service: service-{index:05}, port: \"{}\"}}\n",
            10_000 + index
        );
        files.insert(format!("{directory}/group.yaml"), definition);
        for (name, text) in own_layers() {
            files.insert(format!("{directory}/{name}.yaml"), text);
        }
    }
    files
}

const HUNDRED: &str = "extensions:\n  zpages:\n    endpoint: 0.0.0.0:55679\n";

fn repository() -> Snapshot {
    let entry = |(path, text): (String, String)| (Arc::from(path), Entry::File(Bytes::from(text)));
    Snapshot::new(files().into_iter().map(entry).collect())
}

/// What every collector of the fleet has.
fn common_layer() -> String {
    let mut text =
        String::from("# Everybody has this.\nprocessors:\n  batch: {send_batch_size: 8192, timeout: 200ms}\n");
    text.push_str(
        "  memory_limiter:\n    check_interval: 1s\n    limit_percentage: 80\n  attributes/tidy:\n    actions:\n",
    );
    for index in 0..25 {
        writeln!(text, "      - {{key: 'http.request.header.{index}', action: delete}}").expect("strings grow");
    }
    text.push_str("extensions:\n  health_check:\n    endpoint: 0.0.0.0:13133\nexporters:\n  otlp:\n");
    text.push_str("    endpoint: \"gateway.${fleet:environment}.example.com:4317\"\n    headers:\n      authorization: ${env:TOKEN}\n");
    text
}

fn own_layers() -> [(&'static str, String); 4] {
    let receivers = "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint: 0.0.0.0:${fleet:port}\n      http:\n\
                     \x20       endpoint: 0.0.0.0:4318\n        cors: {allowed_origins: [\"https://*.example.com\"]}\n";
    let scrape = "receivers:\n  prometheus:\n    config:\n      scrape_configs:\n        - job_name: '${fleet:service}'\n\
                  \x20         scrape_interval: 15s\n          static_configs: [{targets: ['localhost:9090']}]\n";
    let resource = "processors:\n  resource:\n    attributes:\n      - key: service.owner\n        value: |\n\
                    \x20         the team of ${fleet:service}\n          in ${fleet:environment}\n        action: upsert\n";
    let service = "service:\n  extensions: [health_check]\n  telemetry: {logs: {level: info}}\n  pipelines:\n    traces:\n\
                   \x20     receivers: [otlp]\n      processors: [memory_limiter, resource, attributes/tidy, batch]\n\
                   \x20     exporters: [otlp]\n    metrics:\n      receivers: [otlp, prometheus]\n\
                   \x20     processors: [memory_limiter, resource, batch]\n      exporters: [otlp]\n";
    [
        ("10-otlp", receivers.into()),
        ("20-scrape", scrape.into()),
        ("30-resource", resource.into()),
        ("40-service", service.into()),
    ]
}

fn definitions(fleet: &RenderedFleet) -> impl Iterator<Item = (&GroupName, &GroupDefinition)> {
    fleet.groups.iter().filter_map(|(name, group)| Some((name, group.definition.as_deref()?)))
}

/// Agents with twenty labels each, two to a group.
fn agents() -> Vec<Labels> {
    (0..AGENTS)
        .map(|index| {
            let group = index % GROUPS;
            let own = [
                ("service.name".to_owned(), format!("service-{group:05}")),
                ("env".to_owned(), ENVIRONMENTS[group % 4].to_owned()),
                ("host.name".to_owned(), format!("host-{index}")),
            ];
            let others =
                (0..17).map(|label| (format!("label.number.{label}"), format!("value-{}", index % (label + 2))));
            Labels::new(own.into_iter().chain(others))
        })
        .collect()
}

fn example(bench: &mut Criterion) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fleet");
    let snapshot = read_directory(&root, &SnapshotLimits::default()).expect("the example");
    bench.bench_function("render of the example", |bench| bench.iter(|| fleet::load(black_box(&snapshot), None)));
}

fn whole_fleet(bench: &mut Criterion) {
    let snapshot = repository();
    let rendered = fleet::load(&snapshot, None);
    assert_eq!(rendered.diagnostics, [], "the fleet of the benchmark is sound");
    assert_eq!(rendered.groups.values().filter(|group| group.config.is_some()).count(), GROUPS);

    let mut group = bench.benchmark_group("fleet");
    group.sample_size(10);
    group.throughput(Throughput::Elements(GROUPS as u64));
    group.bench_function(format!("first render of {GROUPS} groups, {} files", snapshot.len()), |bench| {
        bench.iter_with_large_drop(|| fleet::load(black_box(&snapshot), None));
    });
    group.bench_function(format!("overlaps among {GROUPS} groups"), |bench| {
        bench.iter(|| overlaps(definitions(black_box(&rendered)), 20));
    });
    group.bench_function(format!("index of {GROUPS} selectors"), |bench| {
        bench.iter_with_large_drop(|| Assigner::new(definitions(black_box(&rendered))));
    });
    let (assigner, agents) = (Assigner::new(definitions(&rendered)), agents());
    assert!(agents.iter().all(|labels| matches!(assigner.assign(labels), Assignment::Group(_))));
    group.throughput(Throughput::Elements(AGENTS as u64));
    group.bench_function(format!("assignment of {AGENTS} agents among {GROUPS} groups"), |bench| {
        bench.iter(|| agents.iter().filter(|labels| assigner.assign(labels) == Assignment::Unmanaged).count());
    });
    group.finish();
}

/// A bare repository with a commit of the whole fleet, and one more for each of [`CHANGES`], all on the first.
fn commits(state_dir: &Path) -> (Mirror, Vec<CommitId>) {
    let mirror = state_dir.join("mirror.git");
    let run = |arguments: &[&str], input: &[u8]| -> String {
        let mut git = Command::new("git");
        let mut child =
            git.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("git is installed");
        child.stdin.take().expect("piped").write_all(input).expect("git reads");
        let output = child.wait_with_output().expect("git ends");
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let path = mirror.to_str().expect("a path");
    run(&["init", "-q", "--bare", path], b"");
    let mut stream = String::new();
    let mut commit = |branch: &str, from: &str, files: &mut dyn Iterator<Item = (String, String)>| {
        write!(
            stream,
            "commit refs/heads/{branch}\ncommitter Ada <ada@example.com> 1700000000 +0000\ndata 1\nx\n{from}"
        )
        .expect("strings grow");
        for (path, text) in files {
            write!(stream, "M 100644 inline {path}\ndata {}\n{text}\n", text.len()).expect("strings grow");
        }
    };
    commit("main", "", &mut files().into_iter());
    for (number, (_, path, change)) in CHANGES.into_iter().enumerate() {
        let text = files().get(path).cloned().unwrap_or_default();
        commit(&number.to_string(), "from refs/heads/main\n", &mut std::iter::once((path.to_owned(), change(&text))));
    }
    run(&["-C", path, "fast-import", "--quiet"], stream.as_bytes());
    let branches = std::iter::once("main".to_owned()).chain((0..CHANGES.len()).map(|number| number.to_string()));
    let ids = branches.map(|branch| run(&["-C", path, "rev-parse", &format!("refs/heads/{branch}")], b""));
    let ids = ids.map(|id| id.parse().expect("a commit")).collect();
    let options = SourceOptions {
        url: "file:///nowhere".parse().expect("an address"),
        tracked: Tracked::Default,
        shallow: false,
        fleet_root: String::new(),
        state_dir: state_dir.to_owned(),
        access: Access::default(),
        deadlines: Deadlines::default(),
        transport_program: "unused".into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    (runtime.block_on(Mirror::open(options)).expect("a mirror"), ids)
}

/// What a commit changes: what it is called, a file, and its new text.
type Change = (&'static str, &'static str, fn(&str) -> String);

const CHANGES: [Change; 3] = [
    ("one directory changed", "prod/area00/service-00003/10-otlp.yaml", |text| text.replace("4318", "14318")),
    ("one group added", "prod/area00/another/group.yaml", |_| {
        "apiVersion: gitamp/v1\nkind: Group\nselector: {matchLabels: {service.name: another}}\n\
         layers: [/prod/area00/service-00003/40-service.yaml, /prod/area00/service-00003/10-otlp.yaml, \
         /prod/area00/service-00003/20-scrape.yaml, /prod/area00/service-00003/30-resource.yaml]\n\
         vars: {service: another, port: \"1\"}\n"
            .to_owned()
    }),
    ("a base layer of 100 groups changed", "base/hundred.yaml", |_| HUNDRED.replace("55679", "55680")),
];

/// One agent in each group that runs what the group wants, until nothing is left to be done.
fn settled(fleet: &RenderedFleet) -> (Controller, Timestamp) {
    let mut now = Timestamp::from_millis(1_800_000_000_000);
    let mut controller = Controller::new(ControllerOptions { observe: false, forget_after: Duration::from_secs(3600) });
    plan(&mut controller, 0, fleet.clone(), now);
    for (index, group) in (0_u64..).zip(fleet.groups.values()) {
        let (definition, config) =
            (group.definition.as_ref().expect("defined"), group.config.as_ref().expect("rendered"));
        let labels =
            definition.selector.requirements().iter().map(|one| (one.key().to_owned(), one.values()[0].clone()));
        let id = AgentId::new(&(u128::from(index) + 1).to_be_bytes()).expect("an id");
        let connection = ConnectionId(index);
        let report = AgentReport {
            capabilities: Some(Capabilities(0x7C47)),
            labels: Some(Labels::new(labels)),
            config: Some(ConfigState {
                hash: ReportedHash::Known(config.hash()),
                status: ConfigStatus::Applied,
                message: None,
            }),
            health: Some(Health { healthy: true, message: None }),
            ..AgentReport::default()
        };
        controller.handle_agent(
            AgentEvent::Connected { id, connection, transport: Transport::WebSocket, proofs: Labels::default() },
            now,
        );
        controller.handle_agent(AgentEvent::Report { id, connection, report: Box::new(report) }, now);
    }
    perform(&mut controller, now);
    while let Some(due) = controller.poll_timeout().filter(|due| *due < now + Duration::from_secs(7200)) {
        now = now.max(due);
        controller.handle_timeout(now);
        perform(&mut controller, now);
        if controller.status("default", now).commits.iter().all(|commit| commit.ending.is_some()) {
            break;
        }
    }
    (controller, now)
}

fn perform(controller: &mut Controller, now: Timestamp) {
    while let Some(action) = controller.poll_action() {
        if let Action::Store(store) = action {
            controller.handle_stored(store.ticket, now);
        }
    }
}

fn plan(controller: &mut Controller, number: u32, fleet: RenderedFleet, now: Timestamp) {
    let mut id = [0; 20];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let info = CommitInfo {
        id: CommitId(id),
        reference: "main".to_owned(),
        committer: "Ada".to_owned(),
        author: "Ada".to_owned(),
        subject: "x".to_owned(),
        time: now,
        trailer: None,
    };
    assert!(controller.handle_revision(Revision { info, rewritten: Some(false), fleet }, now));
    perform(controller, now);
}

/// From a commit in the mirror to what is to be done about it, each step by itself.
fn one_commit(bench: &mut Criterion) {
    let state_dir = tempfile::tempdir().expect("a directory");
    let (mirror, ids) = commits(state_dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let read = |id: CommitId, before: Option<&Snapshot>| {
        let reading = runtime.block_on(mirror.read(id, "main", &SnapshotLimits::default(), before));
        reading.expect("a commit").snapshot.expect("a fleet root")
    };
    let whole = read(ids[0], None);
    let (fleet, memory) = fleet::load_after(&whole, Some(b""), None);
    let (mut controller, now) = settled(&fleet);
    let mut number = 0;

    let mut group = bench.benchmark_group(format!("a commit to {GROUPS} groups in {} files", whole.len()));
    group.sample_size(10);
    group.bench_function("whole: read", |bench| bench.iter_with_large_drop(|| read(ids[0], None)));
    group.bench_function("whole: render", |bench| {
        bench.iter_with_large_drop(|| fleet::load_after(black_box(&whole), Some(b""), None));
    });
    for ((what, _, _), id) in CHANGES.into_iter().zip(ids.into_iter().skip(1)) {
        let snapshot = read(id, Some(&whole));
        let (changed, _) = fleet::load_after(&snapshot, Some(b""), Some(&memory));
        assert_eq!(changed.diagnostics, [], "{what}");
        group.bench_function(format!("{what}: read"), |bench| bench.iter(|| read(id, Some(black_box(&whole)))));
        group.bench_function(format!("{what}: render"), |bench| {
            bench.iter_with_large_drop(|| fleet::load_after(black_box(&snapshot), Some(b""), Some(&memory)));
        });
        group.bench_function(format!("{what}: plan, there and back"), |bench| {
            bench.iter_batched(
                || (changed.clone(), fleet.clone()),
                |(there, back)| {
                    number += 2;
                    plan(&mut controller, number, there, now);
                    plan(&mut controller, number + 1, back, now);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// A collector configuration of 10 KB as people write them: comments, short values, some quotes and blocks.
fn configuration() -> String {
    let mut text = common_layer();
    text.push_str("receivers:\n");
    let mut index = 0;
    while text.len() < 10_000 {
        index += 1;
        write!(
            text,
            "  # Number {index}\n  otlp/{index}:\n    protocols:\n      grpc: {{endpoint: \"0.0.0.0:{}\", max_recv_msg_size_mib: 16}}\n\
             \x20   note: |\n      several\n      lines\n    tags: [a, 'b', c-{index}]\n",
            4000 + index
        )
        .expect("strings grow");
    }
    text
}

fn one_configuration(bench: &mut Criterion) {
    let (file, limits, text) = (Arc::from("collector.yaml"), Limits::default(), configuration());
    let read =
        |text: &str| -> Node { yaml::parse(&file, text.as_bytes(), &limits).expect("valid").expect("not empty") };
    let node = read(&text);
    let over = read("receivers:\n  otlp/7:\n    tags: [x]\n  otlp/new: {}\nprocessors:\n  batch:\n    timeout: 1s\n");
    let vars = BTreeMap::from([("environment".to_owned(), "prod".to_owned())]);

    let mut group = bench.benchmark_group(format!("configuration of {} bytes", text.len()));
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("parse", |bench| bench.iter_with_large_drop(|| read(black_box(&text))));
    group.bench_function("clone", |bench| bench.iter_with_large_drop(|| black_box(&node).clone()));
    group.bench_function("merge", |bench| {
        bench.iter_batched(
            || (node.clone(), over.clone()),
            |(base, over)| yaml::merge(base, over),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("substitute", |bench| {
        bench.iter_batched_ref(|| node.clone(), |node| yaml::substitute(node, &vars), BatchSize::SmallInput);
    });
    group.bench_function("emit", |bench| bench.iter(|| yaml::emit(black_box(&node))));
    group.bench_function("hash", |bench| bench.iter(|| yaml::config_hash(black_box(&node))));
    group.bench_function("component names", |bench| bench.iter(|| yaml::component_names(black_box(&node))));
    group.finish();
}

criterion_group!(benches, example, whole_fleet, one_commit, one_configuration);
criterion_main!(benches);
