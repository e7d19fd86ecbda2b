//! The fleet that most tests of the program have: one group of gateways, changes to what they run, and agents that are some.

use std::time::Duration;

use gitamp::simulate::{Attribute, DelayRange, Endpoint, Fleet, Options};

use super::{Daemon, Repository};

/// A `group.yaml` for everybody at once: for tests that are not about stages. Lines of `rollout` may follow.
pub(crate) const AT_ONCE: &str = "\
apiVersion: gitamp/v1
kind: Group
selector:
  matchLabels: {service.name: otelcol-gateway}
rollout:
  stages: [{name: all, agents: 100%, soak: 0s}]
  bake: 0s
";

/// A collector configuration. The level tells one from another; [`agents`] cannot run `broken`.
pub(crate) fn collector(level: &str) -> String {
    format!(
        "receivers:\n  otlp:\n    protocols: {{grpc: {{}}}}\nexporters:\n  debug:\n    verbosity: {level}\nservice:\n  \
         pipelines:\n    traces:\n      receivers: [otlp]\n      exporters: [debug]\n"
    )
}

/// A repository with this one group, `gateways`.
pub(crate) fn gateways(group: &str) -> Repository {
    Repository::with(&[("gateways/group.yaml", group), ("gateways/collector.yaml", &collector("basic"))])
}

/// A commit that changes what the gateways run; its id.
pub(crate) fn change(repository: &Repository, message: &str, level: &str) -> String {
    repository.commit(message, &[("gateways/collector.yaml", &collector(level))])
}

/// Agents with these attributes that answer quickly.
pub(crate) fn options<A: AsRef<str>>(daemon: &Daemon, scheme: &str, count: u32, attributes: &[A]) -> Options {
    let server = Endpoint::resolve(&format!("{scheme}://{}/v1/opamp", daemon.agents()), false).expect("loopback");
    let mut options = Options::new(server, count);
    options.attributes = Attribute::parse_all(attributes).expect("attributes");
    options.apply_delay = DelayRange { from: Duration::from_millis(10), to: Duration::from_millis(50) };
    options.poll_interval = Duration::from_millis(200);
    options.fail_matching = Some("broken".to_owned());
    options
}

/// So many gateways.
pub(crate) fn agents(daemon: &Daemon, count: u32) -> Fleet {
    Fleet::start(options(daemon, "ws", count, &["service.name=otelcol-gateway"])).expect("a fleet")
}
