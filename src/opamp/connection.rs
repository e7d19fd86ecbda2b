//! One connection and the agents that speak over it, told apart by their uid: a proxy may carry many.
//!
//! Bytes of transport messages go in ([`Connection::handle_message`]) together with offers; events for the controller and
//! bytes to send come out. The order of calls: after each `handle_*`, drain [`Connection::poll_event`], then
//! [`Connection::poll_transmit`]. An offer that is put in between goes along with the answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::effective::SharedNames;
use super::inbound::{Digest, Inbound};
use super::proto::server_error_response::Details;
use super::proto::{AgentToServerFlags, RetryInfo, ServerErrorResponse, ServerErrorResponseType, ServerToAgent};
use super::session::{Arrival, Offer, Session, identification};
use super::settings::ConnectionSettings;
use super::wire::{self, Limits, OutMessage, WireError};
use crate::agent::{AgentEvent, AgentId, ConnectionId, Transport};
use crate::labels::Labels;
use crate::time::Timestamp;

/// Rules of every connection of a listener.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What a message may hold.
    pub limits: Limits,
    /// Agents on one connection. Proxies carry hundreds; each costs a session, so a stranger must not make up millions.
    pub most_agents: usize,
    /// Messages in [`FLOOD_WINDOW`] for each agent on a connection; more are not looked into. A collector that starts sends some ten.
    pub most_messages: u32,
    /// Bytes of messages in [`FLOOD_WINDOW`] for each agent on a connection; what is beyond is not looked into.
    pub most_bytes: u64,
    /// Silence after which an agent that promised heartbeats is lost: three of the usual 30 s, with slack.
    pub heartbeat_silence: Duration,
    /// Silence after which any other agent is lost; over a WebSocket it is pinged when half of it is over, and a pong is enough.
    pub silence: Duration,
    /// What agents are offered for their connections; `None`: nothing, and they keep what they were configured with.
    pub settings: Option<Arc<ConnectionSettings>>,
}

impl Rules {
    /// Offers agents this interval for their heartbeats, in whole seconds, and is as patient as it asks for: three intervals and
    /// some slack. Shorter than a second: nothing is offered.
    #[must_use]
    pub fn offering_heartbeat(mut self, interval: Duration) -> Self {
        let patience = interval.saturating_mul(3).saturating_add(Duration::from_secs(30));
        self.settings = ConnectionSettings::heartbeat(interval).map(Arc::new);
        self.heartbeat_silence = self.heartbeat_silence.max(patience);
        self.silence = self.silence.max(patience);
        self
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            most_agents: 1024,
            most_messages: 2_000,
            most_bytes: 64 << 20,
            heartbeat_silence: Duration::from_secs(120),
            silence: Duration::from_secs(300),
            settings: None,
        }
    }
}

/// What comes with a call from outside of the machine.
pub struct Context<'a> {
    /// The time.
    pub now: Timestamp,
    /// The listener's rules.
    pub rules: &'a Rules,
    /// Names of effective configurations that others reported.
    pub names: &'a dyn SharedNames,
    /// Ten random bytes, new for each message: they become the identity of an agent that asks for one.
    pub fresh: [u8; 10],
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was taken.
    From(AgentId),
    /// The agent asked for an identity and gets one; it is not known until it uses it.
    Stranger,
    /// Malformed or over a limit. The answer says so, too.
    Refused(WireError),
    /// Another agent uses the same uid over the same connection, and this one gets another; what it said does not count.
    Duplicate(AgentId),
    /// No such uid can be. The answer says so, too.
    NoIdentity,
    /// The connection carries as many agents as it may.
    Crowded,
    /// Too many messages, or too many bytes of them, came in too short a time: this one was not looked into, and its agent is asked to
    /// come back later.
    Flooded(Flood),
}

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Messages: [`Rules::most_messages`].
    Messages,
    /// Their bytes: [`Rules::most_bytes`].
    Bytes,
}

/// Malformed messages in a row after which a connection is of no use.
const MOST_REFUSALS: u8 = 8;

/// Longest uid that is repeated in an error, for the reader to recognise it.
const LONGEST_ECHO: usize = 64;

/// See [`Rules::most_messages`].
pub const FLOOD_WINDOW: Duration = Duration::from_secs(10);

/// When an agent may come back that found the connection crowded.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// What waits to be sent.
#[derive(Debug)]
enum Owed {
    Made(OutMessage),
    /// Whatever the agent's session has to say, after a message with this digest (HTTP).
    By(AgentId, Option<Digest>),
}

/// One connection and its agents. See the module for the order of calls.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    transport: Transport,
    refusals: u8,
    /// Messages since the window began, and their bytes.
    heard: u32,
    heard_bytes: u64,
    window: Timestamp,
    /// By id, ascending.
    sessions: Vec<Session>,
    events: VecDeque<AgentEvent>,
    owed: VecDeque<Owed>,
    refused_settings: Option<Box<(AgentId, Arc<str>)>>,
    /// What the other end proved to be.
    proofs: Labels,
    /// Somebody here used the uid of another one.
    refused_uid: bool,
}

impl Connection {
    /// A connection over which nobody spoke yet.
    pub fn new(id: ConnectionId, transport: Transport) -> Self {
        Self {
            id,
            transport,
            refusals: 0,
            heard: 0,
            heard_bytes: 0,
            window: Timestamp::default(),
            sessions: Vec::new(),
            events: VecDeque::new(),
            owed: VecDeque::new(),
            refused_settings: None,
            proofs: Labels::default(),
            refused_uid: false,
        }
    }

    /// The same with an end that proved these labels: its agents have them, whatever they say of themselves.
    #[must_use]
    pub fn proving(mut self, proofs: Labels) -> Self {
        self.proofs = proofs;
        self
    }

    /// Its id.
    pub const fn id(&self) -> ConnectionId {
        self.id
    }

    /// How many agents speak over it.
    pub fn agents(&self) -> usize {
        self.sessions.len()
    }

    /// True when it carries this agent and nobody else.
    pub fn is_only(&self, id: AgentId) -> bool {
        self.sessions.len() == 1 && self.find(id).is_ok()
    }

    /// True after so many malformed messages in a row that it should be closed.
    pub const fn is_hopeless(&self) -> bool {
        self.refusals >= MOST_REFUSALS
    }

    /// True when nobody is left here but who used the uid of another one: it should be closed.
    pub fn is_shunned(&self) -> bool {
        self.refused_uid && self.sessions.is_empty()
    }

    /// Takes one transport message: a WebSocket message with its header, or the body of a request.
    pub fn handle_message(&mut self, message: Bytes, context: &Context<'_>) -> Heard {
        let (mut uid, bytes) = (Bytes::new(), message.len() as u64);
        // Counted before it is looked at: what is malformed costs time as well.
        let heard = match self.flood(bytes, context) {
            Some(flood) => {
                uid = self.uid_in(message).unwrap_or_default();
                Heard::Flooded(flood)
            }
            None => match self.read(message, &context.rules.limits, &mut uid) {
                Ok((inbound, digest)) => self.dispatch(&inbound, digest, context),
                Err(error) => Heard::Refused(error),
            },
        };
        match &heard {
            Heard::From(_) | Heard::Stranger | Heard::Duplicate(_) => self.refusals = 0,
            Heard::Crowded => {
                let words = format!("this connection carries {} agents already", context.rules.most_agents);
                self.put_off(&uid, words);
            }
            Heard::Flooded(_) => self.put_off(&uid, "too many messages in a short time".to_owned()),
            Heard::NoIdentity => {
                self.refusals = self.refusals.saturating_add(1);
                let words = format!("instance_uid has {} bytes, it must be 16 and not all zero", uid.len());
                self.refuse(&uid, ServerErrorResponseType::BadRequest, words, None);
            }
            Heard::Refused(error) => {
                self.refusals = self.refusals.saturating_add(1);
                let words = error.to_string();
                self.refuse(&uid, ServerErrorResponseType::BadRequest, words, None);
            }
        }
        heard
    }

    /// Counts a message of so many bytes, and says whether there were too many lately for those who speak here.
    fn flood(&mut self, bytes: u64, context: &Context<'_>) -> Option<Flood> {
        if context.now.since(self.window) >= FLOOD_WINDOW {
            (self.heard, self.heard_bytes, self.window) = (0, 0, context.now);
        }
        self.heard = self.heard.saturating_add(1);
        self.heard_bytes = self.heard_bytes.saturating_add(bytes);
        let agents = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX).max(1);
        if self.heard > context.rules.most_messages.saturating_mul(agents) {
            return Some(Flood::Messages);
        }
        (self.heard_bytes > context.rules.most_bytes.saturating_mul(agents.into())).then_some(Flood::Bytes)
    }

    /// Who sent a message, as far as that can be told without looking into it.
    fn uid_in(&self, message: Bytes) -> Option<Bytes> {
        let message = match self.transport {
            Transport::WebSocket => wire::unframe(message).ok()?,
            Transport::Http => message,
        };
        Inbound::read(message).ok().map(|inbound| inbound.instance_uid)
    }

    /// Decodes the outer message; `uid` is set as soon as it is known, for the answer to what is refused.
    fn read(&self, message: Bytes, limits: &Limits, uid: &mut Bytes) -> Result<(Inbound, Option<Digest>), WireError> {
        if message.len() > limits.message_bytes {
            return Err(WireError::TooLarge { bytes: message.len(), limit: limits.message_bytes });
        }
        let (message, digest) = match self.transport {
            Transport::WebSocket => (wire::unframe(message)?, None),
            Transport::Http => {
                let digest = Digest::of(&message);
                (message, Some(digest))
            }
        };
        // The outer parts are slices of the message, so reading them before the limits are checked takes no memory.
        let inbound = Inbound::read(message.clone())?;
        *uid = inbound.instance_uid.clone();
        wire::check(&message, limits)?;
        Ok((inbound, digest))
    }

    fn dispatch(&mut self, inbound: &Inbound, digest: Option<Digest>, context: &Context<'_>) -> Heard {
        let Some(id) = AgentId::new(&inbound.instance_uid) else { return Heard::NoIdentity };
        if inbound.flags & AgentToServerFlags::RequestInstanceUid as u64 != 0 {
            self.rename(id, context);
            return Heard::Stranger;
        }
        let place = match self.find(id) {
            Ok(place) => place,
            Err(_) if self.sessions.len() >= context.rules.most_agents => return Heard::Crowded,
            Err(place) => {
                // Most connections carry one agent: room for exactly that one.
                self.sessions.reserve_exact(usize::from(self.sessions.is_empty()));
                let (settings, proofs) = (context.rules.settings.clone(), self.proofs.clone());
                self.sessions.insert(place, Session::new(id, self.id, self.transport, settings, proofs));
                place
            }
        };
        let label_bytes = context.rules.limits.attribute_bytes;
        let arrival = Arrival { now: context.now, names: context.names, message: digest, label_bytes };
        let mut events = Vec::new();
        match self.sessions[place].handle_message(inbound, &arrival, &mut events) {
            Ok(taken) if taken.is_duplicate => {
                self.identify(id, context);
                return Heard::Duplicate(id);
            }
            Ok(taken) => {
                if let Some(words) = taken.refused_settings {
                    self.refused_settings = Some(Box::new((id, words)));
                }
            }
            Err(error) => {
                if !self.sessions[place].is_greeted() {
                    self.sessions.remove(place);
                }
                return Heard::Refused(error);
            }
        }
        self.events.extend(events);
        self.owed.push_back(Owed::By(id, digest));
        Heard::From(id)
    }

    /// Gives a new identity to an agent whose own is in use by another one: what it said does not count. To be called before
    /// the controller learns that it is here.
    pub fn handle_duplicate(&mut self, id: AgentId, context: &Context<'_>) {
        self.drop_session(id);
        self.identify(id, context);
    }

    /// Refuses an agent whose uid belongs to one that proved to be somebody else: what it said does not count. To be called before the
    /// controller learns that it is here.
    pub fn handle_impostor(&mut self, id: AgentId) {
        self.drop_session(id);
        self.refused_uid = true;
        let words = "this instance_uid belongs to an agent that proved to be somebody else".to_owned();
        self.refuse(id.as_bytes(), ServerErrorResponseType::BadRequest, words, None);
    }

    /// Puts off an agent for which there is no room now. To be called before the controller learns that it is here.
    pub fn handle_flood(&mut self, id: AgentId) {
        self.drop_session(id);
        self.put_off(id.as_bytes(), "too many new agents came from there".to_owned());
    }

    /// Forgets an agent that the controller knows nothing of yet.
    fn drop_session(&mut self, id: AgentId) {
        if let Ok(place) = self.find(id) {
            self.sessions.remove(place);
        }
        self.events.retain(|event| match event {
            AgentEvent::Connected { id: other, .. }
            | AgentEvent::Report { id: other, .. }
            | AgentEvent::Gone { id: other, .. } => *other != id,
        });
        self.owed.retain(|owed| !matches!(owed, Owed::By(other, _) if *other == id));
    }

    /// Gives a new identity to an agent whose uid is a temporary one.
    fn rename(&mut self, temporary: AgentId, context: &Context<'_>) {
        if let Ok(place) = self.find(temporary) {
            // It spoke with this uid as if it were its own; the controller shall not wait for it.
            self.sessions.remove(place);
            self.events.push_back(AgentEvent::Gone { id: temporary, connection: self.id, goodbye: true });
        }
        self.identify(temporary, context);
    }

    fn identify(&mut self, old: AgentId, context: &Context<'_>) {
        let new = uuid::Builder::from_unix_timestamp_millis(context.now.as_millis(), &context.fresh).into_uuid();
        // A UUID of version 7 has its version bits set, so it is never all zero.
        if let Some(new) = AgentId::new(new.as_bytes()) {
            let settings = context.rules.settings.as_deref();
            self.owed.push_back(Owed::Made(identification(old.as_bytes(), new, self.transport, settings)));
        }
    }

    /// There is no room for it now; it may come back.
    fn put_off(&mut self, uid: &[u8], words: String) {
        let retry = RetryInfo { retry_after_nanoseconds: RETRY_AFTER.as_nanos() as u64 };
        self.refuse(uid, ServerErrorResponseType::Unavailable, words, Some(retry));
    }

    fn refuse(&mut self, uid: &[u8], kind: ServerErrorResponseType, words: String, retry: Option<RetryInfo>) {
        let error =
            ServerErrorResponse { r#type: kind.into(), error_message: words, details: retry.map(Details::RetryInfo) };
        let message = ServerToAgent {
            instance_uid: Bytes::copy_from_slice(&uid[..uid.len().min(LONGEST_ECHO)]),
            error_response: Some(error),
            ..Default::default()
        };
        let framed = self.transport == Transport::WebSocket;
        self.owed.push_back(Owed::Made(OutMessage::new(&message, None, framed)));
    }

    /// Offers a configuration to an agent; what waited for it before is dropped. Agents that are not here are ignored.
    pub fn handle_offer(&mut self, id: AgentId, offer: Offer) {
        if let Ok(place) = self.find(id) {
            self.sessions[place].handle_offer(offer);
            self.owe(id);
        }
    }

    /// Takes back an offer that did not leave yet.
    pub fn handle_withdraw(&mut self, id: AgentId) {
        if let Ok(place) = self.find(id) {
            self.sessions[place].handle_withdraw();
        }
    }

    /// Tells an agent to restart, in a message of its own: at once over a WebSocket, in the answer to the next poll over HTTP, after a
    /// question that is owed and before an offer that waits. Agents that did not declare AcceptsRestartCommand are not told. There is
    /// no acknowledgement in the protocol: what came of it shows in the agent's health.
    pub fn handle_restart(&mut self, id: AgentId) {
        if let Ok(place) = self.find(id) {
            self.sessions[place].handle_restart();
            self.owe(id);
        }
    }

    /// Over a WebSocket what waits for an agent leaves now, unless an answer is under way that comes before it.
    fn owe(&mut self, id: AgentId) {
        let is_owed = self.owed.iter().any(|owed| matches!(owed, Owed::By(other, _) if *other == id));
        if self.transport == Transport::WebSocket && !is_owed {
            self.owed.push_back(Owed::By(id, None));
        }
    }

    /// Another connection has this agent now. The controller learned so by that connection's own event.
    pub fn handle_moved(&mut self, id: AgentId) {
        if let Ok(place) = self.find(id) {
            self.sessions.remove(place);
        }
    }

    /// What is owed to those who wait for an answer is not said: they may not be told anything any more.
    pub fn drop_answers(&mut self) {
        self.owed.clear();
    }

    /// The transport is gone, and everybody on it.
    pub fn handle_close(&mut self) {
        for session in self.sessions.drain(..).filter(|session| session.is_greeted()) {
            self.events.push_back(AgentEvent::Gone { id: session.id(), connection: self.id, goodbye: false });
        }
        self.owed.clear();
    }

    /// The transport itself showed life, without a message: a pong. Agents that promised heartbeats still have to keep their word.
    pub fn handle_sign_of_life(&mut self, now: Timestamp) {
        for session in &mut self.sessions {
            session.handle_sign_of_life(now);
        }
    }

    /// When the transport is to be asked for a sign of life: agents that promised no heartbeats may be silent for as long as they like,
    /// so half of the patience with one of them is over.
    pub fn poll_ping(&self, rules: &Rules) -> Option<Timestamp> {
        let quiet = self.sessions.iter().filter(|session| !session.promised_heartbeats());
        quiet.map(|session| session.heard_at() + rules.silence / 2).min()
    }

    /// Drops the agents that were silent for too long; see [`Connection::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Timestamp, rules: &Rules) {
        let (here, events) = (self.id, &mut self.events);
        self.sessions.retain(|session| {
            let lost = now >= patience_ends(session, rules);
            if lost {
                events.push_back(AgentEvent::Gone { id: session.id(), connection: here, goodbye: false });
            }
            !lost
        });
    }

    /// When the next agent will have been silent for too long; `None` when nobody is here.
    pub fn poll_timeout(&self, rules: &Rules) -> Option<Timestamp> {
        self.sessions.iter().map(|session| patience_ends(session, rules)).min()
    }

    /// The next event for the controller.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        let event = self.events.pop_front();
        if event.is_none() {
            // Most connections are idle most of the time: no room is kept for the next event.
            self.events = VecDeque::new();
        }
        event
    }

    /// The agent that just said that it could not use the settings for its connection, and its words: one printable line. To be asked
    /// after each message; only the latest is kept.
    pub fn poll_refused_settings(&mut self) -> Option<(AgentId, Arc<str>)> {
        self.refused_settings.take().map(|refused| *refused)
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self, now: Timestamp) -> Option<OutMessage> {
        loop {
            let Some(owed) = self.owed.pop_front() else {
                self.owed = VecDeque::new();
                return None;
            };
            match owed {
                Owed::Made(message) => return Some(message),
                Owed::By(id, digest) => {
                    let Ok(place) = self.find(id) else { continue };
                    let message = self.sessions[place].poll_transmit(digest, now);
                    if self.sessions[place].is_over() {
                        self.sessions.remove(place);
                    } else if self.sessions[place].has_more() {
                        self.owe(id);
                    }
                    if message.is_some() {
                        return message;
                    }
                }
            }
        }
    }

    fn find(&self, id: AgentId) -> Result<usize, usize> {
        self.sessions.binary_search_by_key(&id, Session::id)
    }
}

fn patience_ends(session: &Session, rules: &Rules) -> Timestamp {
    session.heard_at() + if session.promised_heartbeats() { rules.heartbeat_silence } else { rules.silence }
}

/// The uid in an `AgentToServer` without a header, before anything else of it is looked at: a request finds its agent by it.
pub fn uid_of(message: &Bytes) -> Option<AgentId> {
    Inbound::read(message.clone()).ok().and_then(|inbound| AgentId::new(&inbound.instance_uid))
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
