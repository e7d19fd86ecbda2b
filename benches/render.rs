//! What a commit costs before anybody is offered anything: reading and rendering a large fleet, deciding who belongs where, and
//! the single steps for one configuration of 10 KB.
//!
//! ```text
//! cargo bench --bench render
//! cargo bench --bench render -- 'first render'
//! ```
//!
//! The first render of 10,000 groups in 50,000 files is what a fresh process does once, and may take 6 s at most.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use gitamp::cli::directory::read_directory;
use gitamp::fleet::assign::{Assigner, Assignment};
use gitamp::fleet::overlap::overlaps;
use gitamp::fleet::snapshot::{Entry, Snapshot, SnapshotLimits};
use gitamp::fleet::{self, GroupDefinition, GroupName, RenderedFleet};
use gitamp::labels::Labels;
use gitamp::yaml::{self, Limits, Node};

const GROUPS: usize = 10_000;
const AGENTS: usize = 20_000;
const ENVIRONMENTS: [&str; 4] = ["dev", "test", "staging", "prod"];

/// Five files a group: its definition and four layers; and above them the defaults of each environment and a common layer.
fn repository() -> Snapshot {
    let mut files = BTreeMap::<String, String>::new();
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
    let entry = |(path, text): (String, String)| (Arc::from(path), Entry::File(Bytes::from(text)));
    Snapshot::new(files.into_iter().map(entry).collect())
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

criterion_group!(benches, example, whole_fleet, one_configuration);
criterion_main!(benches);
