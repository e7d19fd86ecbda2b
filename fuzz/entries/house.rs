//! A daemon without sockets, clock and disk, for what reads orders and questions: a controller with a small fleet, agents that do as the input
//! says, and a journal in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use gitamp::agent::{
    AgentEvent, AgentId, AgentReport, Capabilities, ConfigState, ConfigStatus, ConnectionId, Health, ReportedHash,
    Transport,
};
use gitamp::config::ConfigHash;
use gitamp::controller::{Action, Content, Controller, Options, Revision, Store};
use gitamp::fleet::snapshot::{CommitId, CommitInfo, Entry, RolloutTrailer, Snapshot};
use gitamp::fleet::{RenderedFleet, load};
use gitamp::labels::Labels;
use gitamp::serve::admin::AdminRequest;
use gitamp::time::Timestamp;
use gitamp::view::command::{Command, Impact, Order, OrderRequest, Refusal};
use gitamp::view::operator::{Attempt, Authors, Operator, Role};
use gitamp::view::{AgentQuery, SyncStatus};

use super::{NOON, is_harmless};

/// What is in every revision: one group in stages that ask for a word, one without any.
const GROUPS: [(&str, &str); 3] = [
    ("fleet.yaml", "apiVersion: gitamp/v1\nkind: Fleet\nguards: {maxMovedAgents: 50%}\nallowFast: ['**']\n"),
    (
        "a/group.yaml",
        "apiVersion: gitamp/v1\nkind: Group\nselector: {matchLabels: {group: a}}\nrollout:\n  stages:\n    - {name: canary, agents: 1, soak: 20s}\n    \
         - {name: half, agents: 50%, approval: manual}\n    - {name: all, agents: 100%}\n  bake: 40s\n",
    ),
    ("b/group.yaml", "apiVersion: gitamp/v1\nkind: Group\nselector: {matchLabels: {group: b}}\nrollout: {bake: 20s}\n"),
];

/// Agents of each group.
const AGENTS: u8 = 4;

/// The fleets of the revisions, which differ in what both groups run. They are loaded once: reading files is another function's part.
static FLEETS: LazyLock<Vec<RenderedFleet>> = LazyLock::new(|| {
    let fleet = |level: &str| {
        let collector = format!(
            "receivers: {{otlp: }}\nexporters: {{debug: {{verbosity: {level}}}}}\nservice: {{pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}}}\n"
        );
        let file = |text: &str| Entry::File(Bytes::copy_from_slice(text.as_bytes()));
        let mut files: BTreeMap<_, _> = GROUPS.iter().map(|(path, text)| ((*path).into(), file(text))).collect();
        files.extend(["a/collector.yaml", "b/collector.yaml"].map(|path| (path.into(), file(&collector))));
        let fleet = load(&Snapshot::new(files), None);
        assert!(fleet.groups.values().all(|group| group.config.is_some()), "{:?}", fleet.diagnostics);
        fleet
    };
    ["basic", "normal", "detailed"].map(fleet).into()
});

/// An agent, as far as it matters here.
struct Agent {
    id: AgentId,
    connection: ConnectionId,
    offered: Option<ConfigHash>,
}

/// The daemon.
pub(super) struct House {
    controller: Controller,
    agents: Vec<Agent>,
    kept: BTreeMap<String, Content>,
    now: Timestamp,
    revisions: u8,
    /// How many stores fail from now on.
    broken: u8,
}

fn options() -> Options {
    Options { observe: false, forget_after: Duration::from_secs(3600) }
}

impl House {
    /// Everybody is there, and the first revision was given to them.
    pub(super) fn open() -> Self {
        let agent = |number: u8| Agent {
            id: AgentId::new(&[number + 1; 16]).expect("sixteen bytes"),
            connection: ConnectionId(u64::from(number) + 1),
            offered: None,
        };
        let mut house = Self {
            controller: Controller::new(options()),
            agents: (0..2 * AGENTS).map(agent).collect(),
            kept: BTreeMap::new(),
            now: NOON,
            revisions: 0,
            broken: 0,
        };
        for number in 0..house.agents.len() {
            house.connect(number);
        }
        house.revision(None);
        for _ in 0..2 {
            house.all_say(ConfigStatus::Applied, true);
        }
        house
    }

    /// An agent comes, and tells everything about itself.
    fn connect(&mut self, number: usize) {
        let Agent { id, connection, offered } = self.agents[number];
        let group = if number < usize::from(AGENTS) { "a" } else { "b" };
        let proofs = Labels::proven([("env", "prod")]);
        self.controller
            .handle_agent(AgentEvent::Connected { id, connection, transport: Transport::WebSocket, proofs }, self.now);
        let report = AgentReport {
            capabilities: Some(Capabilities(0x7fff)),
            labels: Some(Labels::new([("group", group), ("service.name", "otelcol")])),
            config: Some(match offered {
                Some(hash) => {
                    ConfigState { hash: ReportedHash::Known(hash), status: ConfigStatus::Applied, message: None }
                }
                None => ConfigState::NOTHING,
            }),
            health: Some(Health { healthy: true, message: None }),
            effective: None,
            available: None,
        };
        self.controller.handle_agent(AgentEvent::Report { id, connection, report: Box::new(report) }, self.now);
    }

    /// The next revision comes, perhaps with a word of its own about its rollout.
    fn revision(&mut self, message: Option<&str>) {
        let person = || "Ada <ada@example.com>".to_owned();
        let info = CommitInfo {
            id: CommitId([7 + self.revisions; 20]),
            reference: "main".to_owned(),
            committer: person(),
            author: person(),
            subject: "The fleet".to_owned(),
            time: self.now,
            trailer: message.and_then(RolloutTrailer::read),
        };
        let fleet = FLEETS[usize::from(self.revisions) % FLEETS.len()].clone();
        self.revisions = self.revisions.wrapping_add(1);
        self.controller.handle_revision(Revision { info, fleet, rewritten: Some(false) }, self.now);
        self.drain();
    }

    /// Everybody who was offered something says what became of it.
    fn all_say(&mut self, status: ConfigStatus, healthy: bool) {
        for number in 0..self.agents.len() {
            self.says(number, status, healthy);
        }
        self.wait(1);
    }

    fn says(&mut self, number: usize, status: ConfigStatus, healthy: bool) {
        let Agent { id, connection, offered: Some(hash) } = self.agents[number] else { return };
        let message = || (status == ConfigStatus::Failed || !healthy).then(|| "it does not run".into());
        let report = AgentReport {
            config: Some(ConfigState { hash: ReportedHash::Known(hash), status, message: message() }),
            health: Some(Health { healthy, message: message() }),
            ..AgentReport::default()
        };
        self.controller.handle_agent(AgentEvent::Report { id, connection, report: Box::new(report) }, self.now);
    }

    /// Time goes by.
    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.controller.handle_timeout(self.now);
        self.drain();
    }

    /// Does what is to be done.
    fn drain(&mut self) {
        while let Some(action) = self.controller.poll_action() {
            match action {
                Action::Notice(notice) => assert!(is_harmless(&notice.message), "{notice:?}"),
                Action::Store(store) => self.store(store),
                Action::Offer { connection, id: _, config, retry: _ } => {
                    if let Some(agent) = self.agents.iter_mut().find(|agent| agent.connection == connection) {
                        agent.offered = Some(config.hash());
                    }
                }
                Action::Restart { .. } | Action::Withdraw { .. } | Action::Report(_) => {}
            }
        }
    }

    fn store(&mut self, store: Store) {
        assert!(is_harmless(&store.message), "{:?}", store.message);
        if self.broken > 0 {
            self.broken -= 1;
            self.controller.handle_store_failed(store.ticket, self.now);
            return;
        }
        for (path, content) in store.files {
            match content {
                Some(content) => drop(self.kept.insert(path, content)),
                None => drop(self.kept.remove(&path)),
            }
        }
        self.controller.handle_stored(store.ticket, self.now);
    }

    /// What happens in the world: a letter, and for some a digit.
    pub(super) fn happens(&mut self, what: &[u8]) {
        let digit = what.get(1).map_or(0, |byte| byte.wrapping_sub(b'0'));
        let one = usize::from(digit) % self.agents.len();
        match what.first() {
            Some(b'a') => self.says(one, ConfigStatus::Applied, true),
            Some(b'f') => self.says(one, ConfigStatus::Failed, true),
            Some(b'i') => self.says(one, ConfigStatus::Applied, false),
            Some(b'A') => self.all_say(ConfigStatus::Applied, true),
            Some(b'F') => self.all_say(ConfigStatus::Failed, true),
            Some(b'g') => {
                let Agent { id, connection, .. } = self.agents[one];
                self.controller.handle_agent(AgentEvent::Gone { id, connection, goodbye: digit > 8 }, self.now);
            }
            Some(b'c') => {
                self.agents[one].connection.0 += 100;
                self.connect(one);
            }
            Some(b'r') => self.revision(std::str::from_utf8(what.get(1..).unwrap_or_default()).ok()),
            Some(b'b') => self.broken = digit.min(9),
            Some(b'w') => self.wait(u64::from(digit.min(9)) * 60),
            Some(_) | None => {}
        }
        self.drain();
    }

    /// An order: what is said before is what happens, and who may not give it changes nothing by it.
    pub(super) fn order(&mut self, request: OrderRequest, who: &Operator) -> Result<Impact, Refusal> {
        let OrderRequest { command, reason, sudo_user: _ } = request;
        self.controller.handle_timeout(self.now);
        self.drain();
        let foretold = self.controller.preview(&command, self.now);
        let is_theirs = who.role >= command.needs();
        let authors: Authors = self
            .controller
            .ranges(&command, who)
            .into_iter()
            .map(|range| (range, Ok(BTreeSet::from(["ada@example.com".to_owned()]))))
            .collect();
        let order = Order { command, by: who.by.clone(), at: self.now, reason };
        let outcome = self.controller.handle_order_of(&order, who, &authors, self.now);
        assert!(outcome.is_err() || is_theirs, "{order:?} by {who:?}: {outcome:?}");
        // Others may be refused for what they are, which a look ahead does not ask.
        if outcome.is_ok() || (who.role == Role::Approve && who.approves_own) {
            let told = foretold.map(|impact| Impact { unstored: None, ..impact });
            let done = outcome.clone().map(|impact| Impact { unstored: None, ..impact });
            assert_eq!(done, told, "what was said before is what happens");
        }
        for line in
            outcome.iter().flat_map(|impact| impact.effects.iter()).chain(outcome.as_ref().err().map(|no| &no.message))
        {
            assert!(is_harmless(line), "{line:?}");
        }
        self.drain();
        outcome
    }

    /// An order that was refused when it was tried: nothing comes of it, whatever is possible by now.
    fn refused(&mut self, request: OrderRequest, who: &Operator) -> Refusal {
        let OrderRequest { command, reason, sudo_user: _ } = request;
        self.controller.handle_timeout(self.now);
        self.drain();
        let before = self.controller.preview(&command, self.now);
        let order = Order { command, by: who.by.clone(), at: self.now, reason };
        let refusal = self.controller.handle_refused_of(&order, who, self.now);
        assert!(is_harmless(&refusal.message), "{:?}", refusal.message);
        assert_eq!(self.controller.preview(&order.command, self.now), before, "it is as possible as it was");
        refusal
    }

    /// What the daemon answers to whoever asks over HTTP.
    pub(super) fn answer(&mut self, request: AdminRequest) {
        // Whoever asked may be gone, which is nobody's concern.
        match request {
            AdminRequest::Status(reply) => drop(reply.send(self.controller.status("default", self.now))),
            AdminRequest::Agents(query, reply) => drop(reply.send(self.controller.agents(&query))),
            AdminRequest::Explain(id, reply) => drop(reply.send(self.controller.explain(&id, self.now))),
            AdminRequest::Sync { by, reply } => {
                let outcome = by.map_or(Ok(()), |by| self.controller.handle_sync_of(&by, self.now));
                drop(reply.send(outcome.map(|()| SyncStatus::default())));
            }
            AdminRequest::Preview(command, reply) => drop(reply.send(self.preview(&command))),
            AdminRequest::Order { order, by, reply } => drop(reply.send(self.order(order, &by))),
            AdminRequest::Refused { order, by, reply } => drop(reply.send(self.refused(order, &by))),
            AdminRequest::Attempt(kind, line) => self.attempt(kind, line),
        }
        self.drain();
    }

    fn preview(&self, command: &Command) -> Result<Impact, Refusal> {
        self.controller.preview(command, self.now)
    }

    fn attempt(&mut self, kind: Attempt, line: String) {
        assert!(is_harmless(&line), "{line:?}");
        self.controller.handle_attempt(kind, line, self.now);
    }

    /// A successor goes on from what was stored, written out and read again.
    pub(super) fn close(self) {
        let status = self.controller.status("default", self.now);
        let _asked =
            (self.controller.agents(&AgentQuery::default()), serde_json::to_string(&status).expect("it is told"));
        let written = |(path, content): (&String, &Content)| {
            let bytes = content.encode().unwrap_or_else(|error| panic!("{path} cannot be written: {error}"));
            (path.clone(), bytes)
        };
        let files: BTreeMap<String, Bytes> = self.kept.iter().map(written).collect();
        let (successor, problems) = Controller::restore(options(), &files, self.now).expect("a successor can go on");
        assert!(problems.is_empty(), "{problems:?}");
        let (_, problems) = Controller::resume(options(), &self.kept, self.now);
        assert!(problems.is_empty(), "{problems:?}");
        drop(successor);
    }
}
