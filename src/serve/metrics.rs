//! Metrics in Prometheus' text form: counters that the shell raises as things happen, and gauges made from a [`FleetStatus`] when
//! somebody asks.

mod limits;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::alert;
use crate::forge::outbound::teller;
use crate::incident::Severity;
use crate::serve::traffic::{ApiTraffic, TlsTraffic, Traffic};
use crate::settings::alerts::ReceiverKind;
use crate::time::Timestamp;
use crate::view::{Counts, FleetStatus};

type Real = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    forge: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForgeLabel {
    forge: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupState {
    group: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupPhase {
    group: String,
    phase: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindResult {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SeverityLabel {
    severity: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Info {
    version: String,
    instance: String,
}

/// What the process has counted so far. Raising a counter never waits.
#[derive(Debug, Default)]
pub struct Metrics {
    syncs: Family<ResultLabel, Counter>,
    sync_last_success: Real,
    sync_seconds: Real,
    stores: Family<ResultLabel, Counter>,
    pushes: Family<ResultLabel, Counter>,
    offers: Counter,
    hooks: Family<HookLabels, Counter>,
    hook_last: Family<ForgeLabel, Real>,
    queue: Gauge,
    turns: Turns,
    over: Family<LimitLabel, Counter>,
    traffic: Arc<Traffic>,
    forge: Arc<teller::Counts>,
    alerts: Arc<alert::Counts>,
}

/// The loop's turns, in seconds.
#[derive(Debug)]
struct Turns(Histogram);

impl Default for Turns {
    fn default() -> Self {
        Self(Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]))
    }
}

fn result(is_good: bool) -> ResultLabel {
    ResultLabel { result: if is_good { "ok" } else { "failed" } }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the agents' listener counts.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// What is counted of telling a forge.
    pub fn forge(&self) -> Arc<teller::Counts> {
        Arc::clone(&self.forge)
    }

    /// What is counted of alerts.
    pub fn alerts(&self) -> Arc<alert::Counts> {
        Arc::clone(&self.alerts)
    }

    /// The remote answered.
    pub fn sync_succeeded(&self, seconds: f64, now: Timestamp) {
        self.syncs.get_or_create(&result(true)).inc();
        self.sync_seconds.set(seconds);
        self.sync_last_success.set(now.as_millis() as f64 / 1000.0);
    }

    /// The remote did not answer, or not well.
    pub fn sync_failed(&self, seconds: f64) {
        self.syncs.get_or_create(&result(false)).inc();
        self.sync_seconds.set(seconds);
    }

    /// The journal was stored here, or not.
    pub fn journal_stored(&self, is_good: bool) {
        self.stores.get_or_create(&result(is_good)).inc();
    }

    /// The journal reached the remote, or not.
    pub fn journal_pushed(&self, is_good: bool) {
        self.pushes.get_or_create(&result(is_good)).inc();
    }

    /// An offer was put into an agent's slot.
    pub fn offered(&self) {
        self.offers.inc();
    }

    /// A webhook came: from which forge, and what was done with it (`ring`, `ignored`, `ping`, `refused`, `busy`).
    pub fn hook(&self, forge: &'static str, result: &'static str) {
        self.hooks.get_or_create(&HookLabels { forge, result }).inc();
    }

    /// A webhook came from somebody who knows the secret.
    pub fn hook_came(&self, forge: &'static str, now: Timestamp) {
        self.hook_last.get_or_create(&ForgeLabel { forge }).set(now.as_millis() as f64 / 1000.0);
    }

    /// A commit brought more than there may be: which of [`ContentLimits::NAMES`].
    ///
    /// [`ContentLimits::NAMES`]: crate::settings::ContentLimits::NAMES
    pub fn commit_exceeded(&self, limit: &'static str) {
        self.over.get_or_create(&LimitLabel { limit }).inc();
    }

    /// How many events of agents wait for the loop.
    pub fn event_queue(&self, length: usize) {
        self.queue.set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// One turn of the loop took so long.
    pub fn loop_took(&self, length: Duration) {
        self.turns.0.observe(length.as_secs_f64());
    }

    /// Everything, in OpenMetrics' form.
    pub fn open_metrics(&self, status: &FleetStatus) -> String {
        let mut registry = Registry::with_prefix("gitamp");
        self.register(&mut registry);
        register_traffic(&mut registry, &self.traffic);
        limits::register(&mut registry, &self.traffic, &self.over);
        if status.forge.is_some() {
            register_forge(&mut registry, &self.forge);
        }
        if status.alerts.is_some() {
            register_alerts(&mut registry, &self.alerts);
        }
        register_status(&mut registry, status);
        let mut text = String::new();
        // Writing to a string does not fail.
        if encode(&mut text, &registry).is_err() {
            text.clear();
        }
        text
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("sync", "Attempts to bring the mirror up to date", self.syncs.clone());
        registry.register(
            "sync_last_success_timestamp_seconds",
            "When the remote last answered",
            self.sync_last_success.clone(),
        );
        registry.register("sync_duration_seconds", "How long the last attempt took", self.sync_seconds.clone());
        registry.register("journal_stores", "Records written to the journal here", self.stores.clone());
        registry.register("journal_pushes", "Attempts to push the journal", self.pushes.clone());
        registry.register("offers", "Configurations put into agents' slots", self.offers.clone());
        registry.register("hooks", "Webhooks received", self.hooks.clone());
        registry.register(
            "hook_last_timestamp_seconds",
            "When a forge's last authentic webhook came",
            self.hook_last.clone(),
        );
        registry.register("event_queue_length", "Events of agents that wait for the controller", self.queue.clone());
        registry.register("loop_turn_seconds", "How long the controller's turns take", self.turns.0.clone());
    }
}

fn register_forge(registry: &mut Registry, counts: &teller::Counts) {
    let requests = Family::<ResultLabel, Counter>::default();
    for (result, count) in [
        ("ok", &counts.succeeded),
        ("failed", &counts.failed),
        ("throttled", &counts.throttled),
        ("refused", &counts.refused),
    ] {
        requests.get_or_create(&ResultLabel { result }).inc_by(count.load(Ordering::Relaxed));
    }
    registry.register("forge_requests", "Requests to the forge by what came of them; refused: given up", requests);
    let waiting: Gauge = Gauge::default();
    waiting.set(i64::try_from(counts.waiting.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
    registry.register("forge_statuses_waiting", "Statuses that wait to be posted", waiting);
}

fn register_alerts(registry: &mut Registry, counts: &alert::Counts) {
    let sent = Family::<KindResult, Counter>::default();
    for kind in ReceiverKind::ALL {
        let of = counts.of(kind);
        for (result, count) in
            [("ok", &of.ok), ("failed", &of.failed), ("throttled", &of.throttled), ("refused", &of.refused)]
        {
            let labels = KindResult { kind: kind.name(), result };
            sent.get_or_create(&labels).inc_by(count.load(Ordering::Relaxed));
        }
    }
    registry.register("alerts_sent", "Messages to receivers of alerts by what came of them; refused: given up", sent);
    let open = Family::<SeverityLabel, Gauge>::default();
    for severity in Severity::ALL {
        let count = i64::try_from(counts.open(severity)).unwrap_or(i64::MAX);
        open.get_or_create(&SeverityLabel { severity: severity.name() }).set(count);
    }
    registry.register("incidents", "Incidents that have not ended", open);
}

fn register_traffic(registry: &mut Registry, traffic: &Traffic) {
    let gauges = [
        ("websockets", "Open WebSocket connections", &traffic.websockets),
        ("polling_agents", "Agents that poll over HTTP", &traffic.polling_agents),
        (
            "proof_files_unusable",
            "1 while the files of tokens and issuers cannot be used, and what was read before is",
            &traffic.gate.is_stale,
        ),
    ];
    for (name, help, value) in gauges {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value.get()).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
    let counters = [
        ("connections_accepted", "TCP connections of agents that were accepted", &traffic.accepted),
        (
            "connections_turned_away",
            "Connections turned away because there are as many as there may be",
            &traffic.turned_away,
        ),
        ("connections_throttled", "Agents told to come back later because too many came at once", &traffic.throttled),
        (
            "connections_throttled_by_share",
            "Of these, those whose own token or address brought more than its share",
            &traffic.throttled_origin,
        ),
        ("connections_deaf", "Connections closed because the agent did not read", &traffic.deaf),
        ("connections_silent", "Connections closed because the agent was silent", &traffic.silent),
        ("messages_too_slow", "Messages that held room and came too slowly to keep it", &traffic.slow),
        ("connections_broken", "Connections closed because the agent broke the protocol", &traffic.broken),
        ("requests_unproven", "Requests of agents that proved nothing, or nothing that counts", &traffic.gate.unproven),
        (
            "connections_revoked",
            "Connections ended because what the agent proved itself with does not count any more",
            &traffic.gate.revoked,
        ),
        (
            "agents_impostors",
            "Refusals of agents whose uid belongs to one that proved to be somebody else",
            &traffic.gate.impostors,
        ),
        ("jwt_signatures_verified", "Signatures of JWTs that were verified", &traffic.gate.signatures),
        ("proof_files_taken", "Changes of the files of tokens and issuers that were taken", &traffic.gate.reloads),
        (
            "proof_files_refused",
            "Changes of the files of tokens and issuers that were not",
            &traffic.gate.reload_failures,
        ),
        ("accept_errors", "Failures to accept a connection", &traffic.accept_errors),
        ("messages_received", "Messages of agents", &traffic.messages_in),
        ("messages_received_bytes", "Bytes of messages of agents", &traffic.bytes_in),
        ("messages_refused", "Messages of agents that were malformed or over a limit", &traffic.messages_refused),
        ("agents_renamed", "Agents that were given another identity", &traffic.renamed),
        ("settings_refused", "Refusals of the heartbeat interval that agents are offered", &traffic.settings_refused),
        ("messages_sent", "Messages to agents", &traffic.messages_out),
        ("messages_sent_bytes", "Bytes of messages to agents", &traffic.bytes_out),
        ("offers_sent", "Messages to agents that carried a configuration", &traffic.offers_out),
    ];
    for (name, help, value) in counters {
        let counter: Counter = Counter::default();
        counter.inc_by(value.get());
        registry.register(name, help, counter);
    }
    register_api(registry, &traffic.api);
    // Without TLS there is no certificate, and nothing to tell.
    for (whose, tls) in [("", &traffic.tls), ("api_", &traffic.api.tls)] {
        if tls.handshakes.get() > 0 || tls.expires.get().is_some() {
            register_tls(registry, whose, tls);
        }
    }
}

fn register_api(registry: &mut Registry, api: &ApiTraffic) {
    let requests = Family::<ResultLabel, Counter>::default();
    for (result, count) in
        [("ok", &api.answered), ("unproven", &api.unproven), ("slowed", &api.slowed), ("paced", &api.paced)]
    {
        requests.get_or_create(&ResultLabel { result }).inc_by(count.get());
    }
    let help = "Requests to the operators' listener; unproven: no token that counts; slowed: the same, answered late because \
                there were many; paced: too often by one operator";
    registry.register("api_requests", help, requests);
    let counter: Counter = Counter::default();
    counter.inc_by(api.turned_away.get());
    registry.register("api_connections_turned_away", "Connections of operators for which there was no place", counter);
}

/// `whose`: what the names begin with.
fn register_tls(registry: &mut Registry, whose: &str, tls: &TlsTraffic) {
    let handshakes = Family::<ResultLabel, Counter>::default();
    for (result, count) in [
        ("ok", &tls.handshakes),
        ("slow", &tls.slow),
        ("crowded", &tls.crowded),
        ("foreign", &tls.foreign),
        ("uncertified", &tls.uncertified),
        ("broken", &tls.broken),
    ] {
        handshakes.get_or_create(&ResultLabel { result }).inc_by(count.get());
    }
    let help =
        "TLS handshakes by what came of them; crowded: no turn in time; foreign: something else than TLS was spoken";
    registry.register(format!("{whose}tls_handshakes"), help, handshakes);
    let waited: Counter = Counter::default();
    waited.inc_by(tls.waited.get());
    registry.register(format!("{whose}tls_handshakes_waited"), "TLS handshakes that had to wait for a turn", waited);
    let reloads = Family::<ResultLabel, Counter>::default();
    for (is_good, count) in [(true, &tls.reloads), (false, &tls.reload_failures)] {
        reloads.get_or_create(&result(is_good)).inc_by(count.get());
    }
    registry.register(
        format!("{whose}tls_reloads"),
        "Changes of certificates, keys or revocations by whether they were taken",
        reloads,
    );
    for (name, help, value) in [
        ("tls_handshakes_in_flight", "TLS handshakes at this moment", &tls.in_flight),
        ("tls_files_unusable", "1 while the files of TLS cannot be used, and what was read before is", &tls.is_stale),
    ] {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value.get()).unwrap_or(i64::MAX));
        registry.register(format!("{whose}{name}"), help, gauge);
    }
    if let Some(expires) = tls.expires.get() {
        let gauge = Real::default();
        gauge.set(expires.as_millis() as f64 / 1000.0);
        registry.register(
            format!("{whose}tls_certificate_expiry_timestamp_seconds"),
            "When the certificate of this port ends",
            gauge,
        );
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn states(counts: &Counts) -> [(&'static str, usize); 10] {
    let Counts { selected, eligible, offered, confirmed, failed, held, pending, away, lost, later, unavailable: _ } =
        *counts;
    [
        ("selected", selected),
        ("eligible", eligible),
        ("offered", offered),
        ("confirmed", confirmed),
        ("failed", failed),
        ("held", held),
        ("pending", pending),
        ("away", away),
        ("lost", lost),
        ("later", later),
    ]
}

/// Gauges of the moment: a group that is gone is gone from here as well.
fn register_status(registry: &mut Registry, status: &FleetStatus) {
    let info = Family::<Info, Gauge>::default();
    info.get_or_create(&Info { version: status.version.clone(), instance: status.instance.clone() }).set(1);
    registry.register("build", "Which gitamp this is", info);
    let agents = Family::<GroupState, Gauge>::default();
    let unavailable = Family::<GroupState, Gauge>::default();
    let phases = Family::<GroupPhase, Gauge>::default();
    for group in &status.groups {
        for (state, count) in states(&group.counts) {
            agents.get_or_create(&GroupState { group: group.name.clone(), state }).set(number(count));
        }
        unavailable
            .get_or_create(&GroupState { group: group.name.clone(), state: "unavailable" })
            .set(number(group.counts.unavailable));
        phases.get_or_create(&GroupPhase { group: group.name.clone(), phase: group.phase.to_string() }).set(1);
    }
    registry.register("group_agents", "Agents of a group by what they are to its rollout", agents);
    registry.register("group_unavailable", "Agents of a group that count against its budget", unavailable);
    registry.register("group_phase", "What a group is doing: 1 for its phase", phases);
    let fleet = Family::<StateLabel, Gauge>::default();
    let counts = &status.agents;
    for (state, count) in [
        ("connected", counts.connected),
        ("managed", counts.managed),
        ("unmanaged", counts.unmanaged),
        ("conflict", counts.conflict),
        ("unknown", counts.unknown),
        ("away", counts.away),
    ] {
        fleet.get_or_create(&StateLabel { state }).set(number(count));
    }
    registry.register("agents", "Agents of the whole fleet", fleet);
    let flags = [
        ("sync_stale", "1 when the repository is not followed", status.sync.stale),
        ("journal_local_only", "1 when the remote takes no notes, or none are sent", status.journal.local_only),
        ("journal_foreign", "1 when the remote's ref holds something that is no journal", status.journal.foreign),
        (
            "journal_disbelieved",
            "1 when records of others were found in the remote's ref and not believed",
            status.journal.disbelieved.is_some(),
        ),
        (
            "forge_error",
            "1 when the forge did not take what it was told last",
            status.forge.as_ref().is_some_and(|forge| forge.error.is_some()),
        ),
        ("journal_error", "1 when the journal could not be stored or pushed last", status.journal.error.is_some()),
    ];
    for (name, help, is_set) in flags {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::from(is_set));
        registry.register(name, help, gauge);
    }
    let rejected = status.groups.iter().filter(|group| !group.diagnostics.is_empty()).count();
    let gauge: Gauge = Gauge::default();
    gauge.set(number(rejected));
    registry.register("groups_rejected", "Groups whose files are wrong in the newest revision", gauge);
}

/// OpenMetrics rewritten so that the classic parser takes it: its comments name a counter with `_total`, and it knows neither
/// units nor an end mark.
pub fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let counters: std::collections::BTreeSet<&str> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let comment = ["# HELP ", "# TYPE "].into_iter().find_map(|mark| Some((mark, line.strip_prefix(mark)?)));
        let renamed = comment.and_then(|(mark, rest)| {
            let (name, rest) = rest.split_once(' ')?;
            counters.contains(name).then(|| format!("{mark}{name}_total {rest}"))
        });
        // Writing to a string does not fail.
        let _written = writeln!(text, "{}", renamed.as_deref().unwrap_or(line));
    }
    text
}

/// What an `Accept` header asks for: OpenMetrics when it is named, the classic form otherwise.
pub fn wants_open_metrics(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| accept.contains("application/openmetrics-text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> FleetStatus {
        let group = serde_json::json!({
            "name": "prod/\"odd\"", "phase": "rolling", "counts": {"selected": 3}, "waitingOn": [], "failures": [], "diagnostics": []
        });
        serde_json::from_value(serde_json::json!({
            "instance": "default", "version": "0", "now": "2026-11-20T09:30:00Z", "observe": false,
            "sync": {"repository": "x", "stale": true}, "journal": {"localOnly": false},
            "agents": {"connected": 3}, "groups": [group], "commits": [], "diagnostics": []
        }))
        .expect("a status")
    }

    #[test]
    fn both_forms_name_counters_as_their_parsers_expect() {
        let metrics = Metrics::new();
        metrics.sync_failed(0.5);
        metrics.hook("github", "refused");
        metrics.hook_came("gitlab", Timestamp::from_millis(1500));
        let open = metrics.open_metrics(&status());
        assert!(open.contains("# TYPE gitamp_sync counter\n"), "{open}");
        assert!(open.ends_with("# EOF\n"));
        let classic = classic(&open);
        for line in [
            "# TYPE gitamp_sync_total counter",
            "gitamp_sync_total{result=\"failed\"} 1",
            "gitamp_hooks_total{forge=\"github\",result=\"refused\"} 1",
            "gitamp_group_agents{group=\"prod/\\\"odd\\\"\",state=\"selected\"} 3",
            "gitamp_hook_last_timestamp_seconds{forge=\"gitlab\"} 1.5",
            "gitamp_sync_stale 1",
        ] {
            assert!(classic.lines().any(|one| one == line), "{line} is missing in\n{classic}");
        }
        assert!(!classic.contains("# EOF"));
    }

    #[test]
    fn a_group_that_is_gone_is_not_shown() {
        let metrics = Metrics::new();
        assert!(metrics.open_metrics(&status()).contains("odd"));
        let empty = FleetStatus { groups: Vec::new(), ..status() };
        assert!(!metrics.open_metrics(&empty).contains("odd"));
    }
}
