//! A model of everything around the controller: a virtual clock, a journal, sessions that can lose what they carry, and agents.
//!
//! The scenario scripts and the simulation drive the real [`Controller`] through this; only what is around it is a model. The
//! order of things is the daemon's: events, then `handle_timeout`, then every action, as often as something happens.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this module")]

pub mod agent;
pub mod repository;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gitamp::agent::{AgentEvent, AgentId, AgentReport, ConnectionId, Transport};
use gitamp::config::{ConfigHash, RenderedConfig};
use gitamp::controller::{Action, Content, Controller, Options, Revision, Store};
use gitamp::fleet::snapshot::CommitId;
use gitamp::time::Timestamp;
use gitamp::view::CommitReport;
use gitamp::view::command::{Command, Impact, Order, Refusal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use agent::{ModelAgent, Step};

/// Agents that poll do so this often.
pub const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// The daemon's loop turns so often, whatever is due.
const PULSE: Duration = Duration::from_secs(30);

/// Of so many processes that take over from another one, the first reads the journal as text: to write and to read YAML takes longer
/// than everything else that happens in between.
const READ_EVERY: usize = 8;

/// What is left of a file when it is written down and read back: times lose their milliseconds, for example. Through JSON, which is as
/// exact as YAML and much quicker; now and then the text itself is compared ([`READ_EVERY`]).
fn written_down(content: &Content) -> Content {
    fn through_text<T: Serialize + DeserializeOwned>(value: &T) -> Arc<T> {
        let text = serde_json::to_vec(value).expect("a record can be written");
        Arc::new(serde_json::from_slice(&text).expect("a record reads back"))
    }
    match content {
        Content::Group(file) => Content::Group(through_text(&**file)),
        Content::Fleet(file) => Content::Fleet(through_text(&**file)),
        Content::Orders(file) => Content::Orders(through_text(&**file)),
        Content::Commit(report) => Content::Commit(through_text(&**report)),
        Content::Config(config) => Content::Config(config.clone()),
    }
}

/// What is known about an offer when the controller makes it.
#[derive(Debug)]
pub struct OfferMade<'a> {
    /// Who gets it.
    pub name: &'a str,
    /// What.
    pub config: &'a RenderedConfig,
    /// Where.
    pub connection: ConnectionId,
}

/// Watches what the controller does. The simulation checks its invariants here, the scripts write down what happened.
pub trait Observer {
    /// The controller offers something; `world` is as it was just before.
    fn offer(&mut self, world: &State, offer: &OfferMade<'_>);
    /// A session sends an offer.
    fn sent(&mut self, _world: &State, _name: &str, _hash: ConfigHash) {}
    /// The controller takes an offer back.
    fn withdraw(&mut self, _world: &State, _name: &str) {}
    /// An agent is told to restart what it supervises.
    fn told_to_restart(&mut self, _world: &State, _name: &str) {}
    /// A line for the log.
    fn notice(&mut self, _world: &State, _text: &str) {}
    /// Something was stored, or could not be.
    fn store(&mut self, _world: &State, _worked: bool) {}
    /// An agent's report reaches the controller.
    fn report(&mut self, _world: &State, _name: &str, _report: &AgentReport) {}
    /// The controller took a commit or an order; nothing that this led to was done yet.
    fn decided(&mut self, _world: &State) {}
    /// Another process took over with what the journal holds.
    fn restored(&mut self, _world: &State) {}
    /// The process stood still for so long, and is about to go on.
    fn stood_still(&mut self, _world: &State, _length: Duration) {}
}

/// Something that happens at its time.
#[derive(Clone, Debug)]
enum Event {
    Agent { name: String, life: u64, step: Step },
    Deliver { name: String, connection: ConnectionId, config: RenderedConfig },
    Poll { name: String, connection: ConnectionId },
    Report { name: String, connection: ConnectionId },
    Stored { ticket: u64 },
}

/// How the surroundings behave.
#[derive(Clone, Debug)]
pub struct Weather {
    /// From `Action::Store` to its answer.
    pub store_delay: Duration,
    /// False: every store fails.
    pub store_works: bool,
    /// Of a thousand stores, so many fail although nothing is wrong.
    pub stores_failing: u64,
    /// Files below `state/` that the journal does not take, while it takes all others.
    pub refused: BTreeSet<String>,
    /// From leaving the session to the agent, at most.
    pub latency: Duration,
    /// Of a thousand answers to polls, so many are lost.
    pub answers_lost: u64,
}

impl Default for Weather {
    /// Everything works at once.
    fn default() -> Self {
        Self {
            store_delay: Duration::ZERO,
            store_works: true,
            stores_failing: 0,
            refused: BTreeSet::new(),
            latency: Duration::ZERO,
            answers_lost: 0,
        }
    }
}

/// Everything but the observer.
pub struct State {
    /// The clock.
    pub now: Timestamp,
    /// What is proved.
    pub controller: Controller,
    /// How the controller works.
    pub options: Options,
    /// The files below `state/`.
    pub files: BTreeMap<String, Content>,
    /// Of these: what is left of them when they are written down is found out by the next process that reads them.
    unread: BTreeSet<String>,
    /// The notes.
    pub notes: BTreeMap<CommitId, Arc<CommitReport>>,
    /// The agents, by name.
    pub agents: BTreeMap<String, ModelAgent>,
    /// The weather.
    pub weather: Weather,
    /// The only source of chance.
    pub rng: fastrand::Rng,
    /// Stores that worked.
    pub stores: usize,
    restarts: usize,
    queue: BTreeMap<(Timestamp, u64), Event>,
    events: u64,
    connections: BTreeMap<ConnectionId, String>,
    in_flight: Option<Store>,
}

/// The world.
pub struct World<O> {
    /// All of it.
    pub state: State,
    /// Who watches.
    pub observer: O,
}

impl<O: Observer> World<O> {
    /// An empty world.
    pub fn new(options: Options, seed: u64, observer: O) -> Self {
        let state = State {
            now: "2026-11-20T09:00:00Z".parse().expect("a valid time"),
            controller: Controller::new(options.clone()),
            options,
            files: BTreeMap::new(),
            unread: BTreeSet::new(),
            notes: BTreeMap::new(),
            agents: BTreeMap::new(),
            weather: Weather::default(),
            rng: fastrand::Rng::with_seed(seed),
            stores: 0,
            restarts: 0,
            queue: BTreeMap::new(),
            events: 0,
            connections: BTreeMap::new(),
            in_flight: None,
        };
        Self { state, observer }
    }

    /// The repository has something new.
    pub fn commit(&mut self, revision: Revision) {
        let now = self.state.now;
        self.state.controller.handle_revision(revision, now);
        self.observer.decided(&self.state);
        self.perform();
    }

    /// Lets time pass.
    pub fn advance(&mut self, length: Duration) {
        let end = self.state.now + length;
        let mut steps = 0;
        loop {
            let event = self.state.queue.keys().next().map(|(at, _)| *at);
            let timer = self.state.controller.poll_timeout();
            let Some(next) = event.into_iter().chain(timer).min().filter(|next| *next <= end) else { break };
            let moved = next > self.state.now;
            steps = if moved { 0 } else { steps + 1 };
            assert!(steps < 100_000, "the world stands still at {next}: event {event:?}, timer {timer:?}");
            self.state.now = next.max(self.state.now);
            while let Some(first) = self.state.queue.first_entry().filter(|first| first.key().0 <= self.state.now) {
                let event = first.remove();
                self.happen(event);
            }
            self.perform();
        }
        self.state.now = end;
    }

    /// The process, or the machine that it is on, stands still for so long. What the agents do meanwhile it learns afterwards; `at_once`:
    /// in one batch.
    pub fn stand_still(&mut self, length: Duration, at_once: bool) {
        self.state.controller.expect_back(self.state.now + PULSE);
        self.state.now = self.state.now + length;
        for agent in self.state.agents.values_mut() {
            // The controller waits for a minute more, for what was said meanwhile and is not read yet.
            agent.wait_longer(length + Duration::from_secs(60));
        }
        self.observer.stood_still(&self.state, length);
        while let Some(first) = self.state.queue.first_entry().filter(|first| first.key().0 <= self.state.now) {
            let event = first.remove();
            self.happen(event);
            if !at_once {
                self.perform();
            }
        }
        self.perform();
    }

    /// A person orders something. Returns the answer.
    pub fn order(&mut self, command: Command, by: &str, reason: Option<&str>) -> Result<Impact, Refusal> {
        let now = self.state.now;
        let order = Order { command, by: by.to_owned(), at: now, reason: reason.map(str::to_owned) };
        let answer = self.state.controller.handle_order(&order, now);
        self.observer.decided(&self.state);
        self.perform();
        answer
    }

    /// The agent opens a connection; it is heard after `silence`.
    pub fn connect(&mut self, name: &str, silence: Option<Duration>) {
        if self.state.agents[name].connection.is_some() {
            return;
        }
        self.state.events += 1;
        let connection = ConnectionId(self.state.events);
        let now = self.state.now;
        self.state.connections.insert(connection, name.to_owned());
        let agent = self.state.agents.get_mut(name).expect("a known agent");
        agent.open(connection);
        let (id, transport) = (agent.id, agent.transport);
        self.state.controller.handle_agent(
            AgentEvent::Connected { id, connection, transport, proofs: gitamp::labels::Labels::default() },
            now,
        );
        self.perform();
        match silence {
            Some(Duration::ZERO) => self.report(name),
            Some(silence) => {
                self.state.schedule(now + silence, Event::Report { name: name.to_owned(), connection });
            }
            None => {}
        }
        if transport == Transport::Http {
            let first = Duration::from_millis(self.state.rng.u64(1000..30_000));
            self.state.schedule(now + first, Event::Poll { name: name.to_owned(), connection });
        }
        self.perform();
    }

    /// The agent's connection ends; what was on its way to it is lost.
    pub fn disconnect(&mut self, name: &str, goodbye: bool) {
        let now = self.state.now;
        let agent = self.state.agents.get_mut(name).expect("a known agent");
        let Some(connection) = agent.close(goodbye) else { return };
        let id = agent.id;
        self.state.connections.remove(&connection);
        self.state.controller.handle_agent(AgentEvent::Gone { id, connection, goodbye }, now);
        self.perform();
    }

    /// The agent changes by itself, and tells if it can.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut ModelAgent)) {
        change(self.state.agents.get_mut(name).expect("a known agent"));
        self.speak(name);
        self.perform();
    }

    /// The process dies and another one takes its place: it knows what was stored, and no connection lives on. A store that was
    /// under way was done or not.
    pub fn restart(&mut self) -> Vec<String> {
        if let Some(store) = self.state.in_flight.take()
            && self.state.rng.bool()
        {
            self.state.apply(&store);
        }
        for agent in self.state.agents.values_mut() {
            agent.close(false);
            agent.forget_told();
        }
        self.state.connections.clear();
        self.state.queue.retain(|_, event| match event {
            Event::Agent { .. } => true,
            Event::Deliver { .. } | Event::Poll { .. } | Event::Report { .. } | Event::Stored { .. } => false,
        });
        let problems = self.state.take_over();
        self.observer.restored(&self.state);
        self.perform();
        problems
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Agent { name, life, step } => {
                let agent = self.state.agents.get_mut(&name).expect("a known agent");
                if agent.life != life {
                    return;
                }
                if step == Step::Dies {
                    // The supervisor is gone; its collector runs on with what it has.
                    (agent.life, agent.given) = (agent.life + 1, None);
                    return self.disconnect(&name, false);
                }
                agent.step(step);
                self.speak(&name);
            }
            Event::Deliver { name, connection, config } => {
                if self.state.agents[&name].connection == Some(connection) {
                    self.receive(&name, &config);
                }
            }
            Event::Poll { name, connection } => {
                if self.state.agents[&name].connection == Some(connection) {
                    self.poll(&name, connection);
                }
            }
            Event::Report { name, connection } => {
                if self.state.agents[&name].connection == Some(connection) {
                    self.report(&name);
                }
            }
            Event::Stored { ticket } => self.stored(ticket),
        }
    }

    fn stored(&mut self, ticket: u64) {
        let Some(store) = self.state.in_flight.take_if(|store| store.ticket == ticket) else { return };
        let now = self.state.now;
        let is_refused = |path: &&String| self.state.weather.refused.contains(*path) && store.files[*path].is_some();
        let refused: Vec<String> = store.files.keys().filter(is_refused).cloned().collect();
        if !refused.is_empty() {
            return self.state.controller.handle_store_refused(ticket, &refused, "an odd name", now);
        }
        let is_bad_luck = self.state.rng.u64(0..1000) < self.state.weather.stores_failing;
        let worked = self.state.weather.store_works && !is_bad_luck;
        // A write may have been done although its answer was an error.
        if worked || (is_bad_luck && self.state.rng.bool()) {
            self.state.apply(&store);
        }
        self.observer.store(&self.state, worked);
        if worked {
            self.state.controller.handle_stored(ticket, now);
        } else {
            self.state.controller.handle_store_failed(ticket, now);
        }
    }

    /// Performs the controller's actions until there are none.
    fn perform(&mut self) {
        let now = self.state.now;
        let mut actions = 0;
        for round in 0.. {
            assert!(round < 10_000, "actions without an end");
            self.state.controller.handle_timeout(now);
            let due = self.state.controller.poll_timeout();
            assert!(due.is_none_or(|due| due > now), "a timer that was just handled is due again: {due:?} at {now}");
            let mut is_quiet = true;
            while let Some(action) = self.state.controller.poll_action() {
                is_quiet = false;
                actions += 1;
                assert!(actions < 20_000, "one action leads to another without an end: {action:?}");
                self.act(action);
            }
            if is_quiet {
                break;
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Offer { connection, id, config, retry } => {
                let Some(name) = self.state.connections.get(&connection).cloned() else {
                    panic!("an offer to {id} on a connection that is gone");
                };
                assert_eq!(self.state.agents[&name].id, id, "the connection is another agent's");
                self.observer.offer(&self.state, &OfferMade { name: &name, config: &config, connection });
                let now = self.state.now;
                let agent = self.state.agents.get_mut(&name).expect("a known agent");
                agent.put(config, retry, now);
                if agent.transport == Transport::WebSocket {
                    self.transmit(&name);
                }
            }
            Action::Restart { connection, id: _ } => {
                if let Some(name) = self.state.connections.get(&connection).cloned() {
                    self.observer.told_to_restart(&self.state, &name);
                    self.restart_agent(&name);
                }
            }
            Action::Withdraw { connection, id: _ } => {
                if let Some(name) = self.state.connections.get(&connection).cloned() {
                    self.observer.withdraw(&self.state, &name);
                    self.state.agents.get_mut(&name).expect("a known agent").withdraw();
                }
            }
            Action::Store(store) => {
                assert!(self.state.in_flight.is_none(), "two stores at once");
                let ticket = store.ticket;
                self.state.in_flight = Some(store);
                if self.state.weather.store_delay.is_zero() {
                    self.stored(ticket);
                } else {
                    let most = u64::try_from(self.state.weather.store_delay.as_millis()).expect("short");
                    let delay = Duration::from_millis(self.state.rng.u64(1..=most));
                    let at = self.state.now + delay;
                    self.state.schedule(at, Event::Stored { ticket });
                }
            }
            Action::Report(reports) => panic!("nobody asked for reports: {reports:?}"),
            Action::Notice(notice) => {
                let group = notice.group.map(|group| format!("{group}: ")).unwrap_or_default();
                let mark = if notice.is_warning { "! " } else { "" };
                self.observer.notice(&self.state, &format!("{mark}{group}{}", notice.message));
            }
        }
    }

    /// Sends what waits in the agent's slot, as a session does.
    fn transmit(&mut self, name: &str) {
        let now = self.state.now;
        let agent = self.state.agents.get_mut(name).expect("a known agent");
        let (Some(connection), Some(config)) = (agent.connection, agent.take_offer(now)) else { return };
        let is_http = agent.transport == Transport::Http;
        self.observer.sent(&self.state, name, config.hash());
        if is_http && self.state.rng.u64(0..1000) < self.state.weather.answers_lost {
            return;
        }
        let most = u64::try_from(self.state.weather.latency.as_millis()).expect("short");
        if most == 0 {
            return self.receive(name, &config);
        }
        let at = self.state.now + Duration::from_millis(self.state.rng.u64(1..=most));
        self.state.schedule(at, Event::Deliver { name: name.to_owned(), connection, config });
    }

    fn receive(&mut self, name: &str, config: &RenderedConfig) {
        let now = self.state.now;
        let agent = self.state.agents.get_mut(name).expect("a known agent");
        let follows = agent.receive(config, &mut self.state.rng);
        let life = agent.life;
        for (after, step) in follows {
            self.state.schedule(now + after, Event::Agent { name: name.to_owned(), life, step });
        }
        self.speak(name);
    }

    /// The collector of an agent that decides for itself is down for a moment.
    fn restart_agent(&mut self, name: &str) {
        let now = self.state.now;
        let agent = self.state.agents.get_mut(name).expect("a known agent");
        agent.restarted = Some(now);
        if !matches!(agent.nature, agent::Nature::Drawn { .. }) || !agent.is_well {
            return;
        }
        let Some(runs) = agent.effective.clone() else { return };
        let life = agent.life;
        let takes = Duration::from_millis(self.state.rng.u64(500..20_000));
        let down = Step::FallsIll("restarting".to_owned());
        for (after, step) in [(Duration::ZERO, down), (takes, Step::Well(runs))] {
            self.state.schedule(now + after, Event::Agent { name: name.to_owned(), life, step });
        }
    }

    /// Over a WebSocket an agent tells at once, over HTTP with the next poll.
    fn speak(&mut self, name: &str) {
        let agent = &self.state.agents[name];
        if agent.connection.is_some() && agent.is_greeted && agent.transport == Transport::WebSocket {
            self.report(name);
        }
    }

    fn poll(&mut self, name: &str, connection: ConnectionId) {
        self.report(name);
        self.perform();
        self.transmit(name);
        let next = self.state.now + POLL_INTERVAL;
        self.state.schedule(next, Event::Poll { name: name.to_owned(), connection });
    }

    /// What differs from what was last told on this connection goes to the controller.
    fn report(&mut self, name: &str) {
        let now = self.state.now;
        let agent = self.state.agents.get_mut(name).expect("a known agent");
        let Some(connection) = agent.connection else { return };
        let report = agent.tell();
        if report.is_empty() {
            return;
        }
        self.observer.report(&self.state, name, &report);
        let id = self.state.agents[name].id;
        self.state.controller.handle_agent(AgentEvent::Report { id, connection, report: Box::new(report) }, now);
    }
}

impl State {
    fn schedule(&mut self, at: Timestamp, event: Event) {
        self.events += 1;
        self.queue.insert((at, self.events), event);
    }

    /// Another process begins with what the journal holds: now and then with the text of it, which has to say what the values say.
    fn take_over(&mut self) -> Vec<String> {
        let is_read = self.restarts.is_multiple_of(READ_EVERY);
        self.restarts += 1;
        for path in std::mem::take(&mut self.unread) {
            if let Some(content) = self.files.get_mut(&path) {
                *content = written_down(content);
            }
        }
        let (controller, problems) = if is_read {
            let text = |content: &Content| content.encode().expect("a record can be written");
            let files: BTreeMap<String, Bytes> =
                self.files.iter().map(|(path, content)| (path.clone(), text(content))).collect();
            for (path, content) in &self.files {
                let read = Content::read(path, &files[path]).expect("a record reads back");
                assert_eq!(read.as_ref(), Some(content), "{path} reads back as something else");
            }
            Controller::restore(self.options.clone(), &files, self.now).expect("records of this version")
        } else {
            Controller::resume(self.options.clone(), &self.files, self.now)
        };
        self.controller = controller;
        problems
    }

    fn apply(&mut self, store: &Store) {
        self.stores += 1;
        for (path, content) in &store.files {
            match content {
                // The records are looked at all the time, and have to be what a successor would read.
                Some(content @ Content::Group(_)) => self.files.insert(path.clone(), written_down(content)),
                Some(content) => {
                    self.unread.insert(path.clone());
                    self.files.insert(path.clone(), content.clone())
                }
                None => self.files.remove(path),
            };
        }
        self.notes.extend(store.notes.iter().map(|(id, note)| (*id, note.clone())));
    }

    /// The name of the agent with this id.
    pub fn name_of(&self, id: AgentId) -> Option<&str> {
        self.agents.iter().find(|(_, agent)| agent.id == id).map(|(name, _)| name.as_str())
    }

    /// True when nothing will ever happen again by itself: the controller waits for no time, and no agent has anything to tell.
    pub fn is_quiet(&self) -> bool {
        let is_idle = |event: &Event| matches!(event, Event::Poll { .. });
        self.in_flight.is_none() && self.controller.poll_timeout().is_none() && self.queue.values().all(is_idle)
    }

    /// True while a store is under way.
    pub fn is_storing(&self) -> bool {
        self.in_flight.is_some()
    }
}
