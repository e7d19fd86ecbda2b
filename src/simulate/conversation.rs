//! The agents that share one connection: who speaks next, and who is spoken to.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use bytes::Bytes;

use crate::agent::AgentId;
use crate::opamp::proto;
use crate::simulate::agent::Heard;
use crate::simulate::fleet::Shared;
use crate::simulate::{Agent, Character};
use crate::time::Timestamp;

/// The agents of one connection. It outlives the connection: agents remember what they hold when they come back.
pub(super) struct Conversation {
    agents: Vec<Agent>,
    /// Where each agent is in `agents`; empty for a single agent, which needs no looking up.
    places: HashMap<AgentId, usize>,
    /// When which agent wants to be asked. May hold times that are no longer meant; `armed` tells.
    wakes: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// The one time in `wakes` that is meant for each agent.
    armed: Vec<Option<Timestamp>>,
    /// Messages that were heard on the present connection.
    heard: u64,
    /// A request that was sent over HTTP and not answered; repeated byte by byte.
    pub(super) unanswered: Option<Bytes>,
}

impl Conversation {
    /// These agents, none of which has spoken yet.
    pub(super) fn new(agents: Vec<Agent>) -> Self {
        let places = match agents.as_slice() {
            [_] => HashMap::new(),
            several => several.iter().enumerate().map(|(place, agent)| (agent.id(), place)).collect(),
        };
        let armed = vec![None; agents.len()];
        Self { agents, places, wakes: BinaryHeap::new(), armed, heard: 0, unanswered: None }
    }

    /// How many agents there are.
    pub(super) fn len(&self) -> usize {
        self.agents.len()
    }

    /// The first agent's number, which stands for the connection.
    pub(super) fn number(&self) -> u32 {
        self.agents.first().map_or(0, Agent::number)
    }

    /// True when the connection is not to be read any more: one of its agents is deaf and has heard one answer.
    pub(super) fn is_deaf(&self) -> bool {
        self.heard > 0 && self.has(|character| character.deaf)
    }

    /// True when some agent has this fault.
    pub(super) fn has(&self, fault: fn(&Character) -> bool) -> bool {
        self.agents.iter().any(|agent| fault(&agent.character()))
    }

    /// A new connection is up.
    pub(super) fn handle_connected(&mut self, shared: &Shared, now: Timestamp) {
        self.heard = 0;
        for place in 0..self.agents.len() {
            if let Some(agent) = self.agents.get_mut(place) {
                agent.handle_connected(now);
                shared.tally.borrow_mut().look_at(agent, now);
            }
            self.arm(place);
        }
    }

    /// Takes a message from the server.
    pub(super) fn handle(&mut self, mut message: proto::ServerToAgent, shared: &Shared, now: Timestamp) {
        self.heard += 1;
        let mut tally = shared.tally.borrow_mut();
        let place = match self.agents.as_slice() {
            [agent] if *message.instance_uid == agent.id().as_bytes()[..] => Some(0),
            [_] => None,
            _ => AgentId::new(&message.instance_uid).and_then(|id| self.places.get(&id).copied()),
        };
        let Some((place, agent)) = place.and_then(|place| Some((place, self.agents.get_mut(place)?))) else {
            let counts = tally.counts();
            counts.received += 1;
            if message.error_response.is_some() {
                counts.errors += 1; // an answer to bytes that did not decode names nobody
            } else {
                counts.malformed += 1;
            }
            return;
        };
        let id = agent.id();
        let offer = message.remote_config.take().map(|offer| shared.bodies.borrow_mut().intern(offer));
        let heard: Heard = agent.handle_message(&message, offer, now);
        tally.heard(&heard, now);
        tally.look_at(agent, now);
        let new_id = agent.id();
        if new_id != id && !self.places.is_empty() {
            self.places.insert(new_id, place); // the old one stays, for what is on its way
        }
        drop(tally);
        self.arm(place);
    }

    /// The next message that some agent has to send now.
    pub(super) fn poll_message(&mut self, shared: &Shared, now: Timestamp) -> Option<proto::AgentToServer> {
        while let Some(Reverse((at, place))) = self.wakes.peek().copied()
            && at <= now
        {
            self.wakes.pop();
            let Some((agent, armed)) = self.agents.get_mut(place).zip(self.armed.get_mut(place)) else { continue };
            if armed.take_if(|meant| *meant == at).is_none() {
                continue;
            }
            let message = agent.poll_message(now);
            let mut tally = shared.tally.borrow_mut();
            tally.look_at(agent, now);
            self.arm(place);
            if message.is_some() {
                tally.counts().sent += 1;
                return message;
            }
        }
        None
    }

    /// When [`Conversation::poll_message`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.wakes.peek().map(|Reverse((at, _))| *at)
    }

    /// The last messages of all.
    pub(super) fn goodbyes(&mut self, now: Timestamp) -> impl Iterator<Item = proto::AgentToServer> {
        self.agents.iter_mut().map(move |agent| agent.goodbye(now))
    }

    /// Notes when an agent wants to be asked next. A later time than the noted one waits until that has come.
    fn arm(&mut self, place: usize) {
        let Some((agent, armed)) = self.agents.get(place).zip(self.armed.get_mut(place)) else { return };
        let wanted = agent.poll_timeout();
        if armed.is_none_or(|meant| wanted < meant) {
            *armed = Some(wanted);
            self.wakes.push(Reverse((wanted, place)));
        }
    }
}
