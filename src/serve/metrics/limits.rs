//! What was refused because of a limit, by the setting that says how much there may be.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::LimitLabel;
use crate::serve::traffic::Traffic;
use crate::settings::ContentLimits;

/// Registers one counter with a label for each setting, so that who is refused nothing shows as 0. `commits`: of what commits brought.
pub(super) fn register(registry: &mut Registry, traffic: &Traffic, commits: &Family<LimitLabel, Counter>) {
    let limits = Family::<LimitLabel, Counter>::default();
    let (tls, api) = (&traffic.tls, &traffic.api);
    for (limit, count) in [
        ("max-connections", &traffic.crowded),
        ("max-connection-rate", &traffic.throttled),
        ("max-connections-per-address", &traffic.crowded_address),
        ("max-connections-per-token", &traffic.crowded_token),
        ("max-polling-agents", &traffic.crowded_polls),
        ("max-new-agents", &traffic.new_agents_refused),
        ("max-agents-per-connection", &traffic.crowded_connection),
        ("max-agent-messages", &traffic.flooded),
        ("max-agent-bytes", &traffic.flooded_bytes),
        ("max-message-size", &traffic.oversized),
        ("max-bytes-in-flight", &traffic.waited_for_room),
        ("max-attributes", &traffic.too_many_attributes),
        ("max-attribute-bytes", &traffic.too_long_attributes),
        ("max-handshakes", &tls.crowded),
        ("max-hook-size", &traffic.hooks.oversized),
        ("max-hook-rate", &traffic.hooks.paced),
        ("api-max-connections", &api.crowded),
        ("api-max-connections-per-address", &api.crowded_address),
        ("api-max-handshakes", &api.tls.crowded),
        ("api-max-requests", &api.paced),
        ("api-max-unproven", &api.slowed),
        ("api-max-order-size", &api.oversized),
    ] {
        limits.get_or_create(&LimitLabel { limit }).inc_by(count.get());
    }
    let slow = tls.slow.get() + api.tls.slow.get();
    limits.get_or_create(&LimitLabel { limit: "handshake-timeout" }).inc_by(slow);
    for limit in ContentLimits::NAMES {
        let label = LimitLabel { limit };
        let count = commits.get_or_create(&label).get();
        limits.get_or_create(&label).inc_by(count);
    }
    registry.register("limits_exceeded", "Refusals, and waits, by the setting that is the limit", limits);
    for (name, help, count) in [
        (
            "hooks_turned_away",
            "Connections to the webhooks' own listener for which there was no place",
            &traffic.hooks.turned_away,
        ),
        (
            "admin_turned_away",
            "Connections to the admin listener for which there was no place",
            &traffic.admin_turned_away,
        ),
    ] {
        let counter: Counter = Counter::default();
        counter.inc_by(count.get());
        registry.register(name, help, counter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_one_after_the_other_never_makes_a_counter_go_down() {
        let traffic = Traffic::default();
        // As a scrape sees it that comes between this and the counter of the reason.
        traffic.api.turned_away.one();
        let mut registry = Registry::default();
        register(&mut registry, &traffic, &Family::default());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a string");
        for limit in ["api-max-connections", "api-max-connections-per-address"] {
            assert!(text.contains(&format!("limits_exceeded_total{{limit=\"{limit}\"}} 0\n")), "{text}");
        }
    }
}
