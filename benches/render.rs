//! How long it takes to read a whole fleet: 10,000 groups in 50,000 files, and the example that comes with the program.
//!
//! ```text
//! cargo bench --bench render
//! ```
//!
//! The first is what a fresh process does once, and may take 6 s at most.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use gitamp::cli::directory::read_directory;
use gitamp::fleet;
use gitamp::fleet::snapshot::{Entry, Snapshot, SnapshotLimits};

/// A fleet of `groups` groups: five files each, on top of the example's foundation.
fn large_fleet(groups: usize) -> Snapshot {
    let mut entries = BTreeMap::<Arc<str>, Entry>::new();
    let mut add = |path: String, text: String| entries.insert(path.into(), Entry::File(text.into()));
    add("base/common.yaml".to_owned(), include_str!("../examples/fleet/base/common.yaml").to_owned());
    add("base/gateway.yaml".to_owned(), include_str!("../examples/fleet/base/gateway.yaml").to_owned());
    let defaults = "apiVersion: gitamp/v1\nkind: Defaults\nlayers: [/base/common.yaml, /base/gateway.yaml]\n\
                    vars: {log_level: info, region: eu, environment: prod}\n";
    add("defaults.yaml".to_owned(), defaults.to_owned());
    for number in 0..groups {
        let directory = format!("tenants/{}/{number}", number % 100);
        let group = format!(
            "apiVersion: gitamp/v1\nkind: Group\nselector:\n  matchLabels: {{service.name: otelcol, tenant: t{number}}}\n\
             vars: {{region: r{}}}\n",
            number % 7
        );
        let debug = "exporters:\n  debug:\nservice:\n  pipelines:\n    traces:\n      exporters: [otlp, debug]\n";
        for (name, text) in [
            ("group.yaml", group),
            ("1-batch.yaml", format!("processors:\n  batch:\n    timeout: {}s\n", number % 50 + 1)),
            ("2-tenant.yaml", format!("exporters:\n  otlp:\n    headers: {{x-tenant: t{number}}}\n")),
            ("3-logs.yaml", "service:\n  telemetry:\n    logs: {level: warn}\n".to_owned()),
            ("4-debug.yaml", debug.to_owned()),
        ] {
            add(format!("{directory}/{name}"), text);
        }
    }
    Snapshot::new(entries)
}

fn render(criterion: &mut Criterion) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fleet");
    let example = read_directory(&example, &SnapshotLimits::default()).expect("the example");
    criterion.bench_function("load the example", |bencher| bencher.iter(|| fleet::load(black_box(&example), None)));

    let large = large_fleet(10_000);
    let loaded = fleet::load(&large, None);
    assert_eq!(loaded.groups.values().filter(|group| group.config.is_some()).count(), 10_000);
    let mut group = criterion.benchmark_group("large");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    group.bench_function("load 10,000 groups in 50,000 files", |bencher| {
        bencher.iter(|| fleet::load(black_box(&large), None));
    });
    group.finish();
}

criterion_group!(benches, render);
criterion_main!(benches);
