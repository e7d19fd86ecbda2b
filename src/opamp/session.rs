//! One agent on one connection: what it said so far, whether something was missed, and what it is sent.
//!
//! A session keeps digests instead of what it heard: it only has to know whether a report differs from the last one. What
//! differs goes to the controller, heartbeats end here. Every message is answered with exactly one; an offer that waits goes
//! along with an answer, or alone when there is nothing to answer and the transport allows it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::attributes::{LONGEST_MESSAGE, clean, labels};
use super::components::{self, Build, Lookup, Told};
use super::duplicates::Suspicion;
use super::effective::{SharedNames, names};
use super::inbound::{ConfigOutcome, Digest, Inbound, TopHealth};
use super::masking::mask;
use super::proto::{
    AgentDescription, AgentIdentification, CommandType, ServerCapabilities, ServerToAgent, ServerToAgentCommand,
    ServerToAgentFlags,
};
use super::settings::{ConnectionSettings, Progress};
use super::wire::{OutMessage, WireError};
use crate::agent::{
    AgentEvent, AgentId, AgentReport, Capabilities, ConfigState, ConfigStatus, ConnectionId, Health, ReportedHash,
    Transport,
};
use crate::config::{ComponentNames, ConfigHash, RenderedConfig};
use crate::labels::Labels;
use crate::time::Timestamp;

/// What the server can do whatever its settings are.
const OUR_CAPABILITIES: u64 = ServerCapabilities::AcceptsStatus as u64
    | ServerCapabilities::OffersRemoteConfig as u64
    | ServerCapabilities::AcceptsEffectiveConfig as u64;

/// Full reports that are asked for without an orderly message in between. An agent whose numbers never fit would otherwise
/// report and be asked for ever.
const MOST_ASKS: u8 = 3;

/// How long to wait before asking such an agent again, and an agent that was asked and still did not describe itself.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// How long after an offer over HTTP a poll gets it again when no status names it: the answer that carried it may be lost.
const OFFER_AGAIN: Duration = Duration::from_secs(60);

/// Offers in all of one configuration over HTTP without an echo. A fourth one would be lost or ignored as well.
const MOST_OFFERS: u8 = 3;

/// A configuration that waits to be sent.
#[derive(Clone, Debug)]
pub struct Offer {
    /// What.
    pub config: RenderedConfig,
    /// A person asked for it: it is sent although the agent got it before.
    pub retry: bool,
}

/// The last offer that left on this connection.
#[derive(Debug)]
struct Sent {
    hash: ConfigHash,
    /// When it left, and how often; kept for HTTP only.
    again: Option<Box<(RenderedConfig, Timestamp, u8)>>,
}

/// The last message of an agent that polls, and what it was answered: a repeated request gets the same again.
#[derive(Debug)]
struct LastAnswer {
    sequence: u64,
    message: Digest,
    answer: OutMessage,
}

/// What goes along with an answer, besides an offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extras {
    /// The request for all that the agent knows of itself.
    ask: bool,
    /// The request for the list of its components.
    list: bool,
    /// The settings for its connection.
    settings: bool,
}

/// What is still owed to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Answer(Extras),
    SameAgain,
}

/// What a message was that was taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The agent could not use the settings for its connection, in its words.
    pub(super) refused_settings: Option<Arc<str>>,
    /// Two agents speak with this uid, and this message, of which nothing counts, is of one of them.
    pub(super) is_duplicate: bool,
}

/// What comes with a message from outside of the machine.
pub(super) struct Arrival<'a> {
    pub(super) now: Timestamp,
    pub(super) names: &'a dyn SharedNames,
    /// The digest of the bytes as they came; for HTTP.
    pub(super) message: Option<Digest>,
    /// Bytes that labels may take.
    pub(super) label_bytes: usize,
}

/// One agent on one connection. Calls in any order; after each `handle_*`, drain [`Session::poll_transmit`].
#[derive(Debug)]
pub(super) struct Session {
    id: AgentId,
    connection: ConnectionId,
    transport: Transport,
    /// True once a first message was taken.
    greeted: bool,
    /// True after a goodbye: the answer still goes out, then the session is dropped.
    ended: bool,
    /// An offer left and no status came since.
    offered: bool,
    /// A full report was asked for and none came yet.
    asked: bool,
    /// What is known may be of another agent that used this uid, too.
    mixed: bool,
    /// The agent shall be told to restart.
    restart: bool,
    /// Asked this often without an orderly message since.
    asks: u8,
    suspicion: Suspicion,
    progress: Progress,
    due: Due,
    asked_at: Timestamp,
    heard_at: Timestamp,
    sequence: u64,
    capabilities: Capabilities,
    description: Option<Digest>,
    effective: Option<Digest>,
    build: Build,
    health: Option<Health>,
    config: Option<ConfigState>,
    slot: Option<Offer>,
    sent: Option<Sent>,
    last: Option<Box<LastAnswer>>,
    /// What all agents are offered for their connections.
    settings: Option<Arc<ConnectionSettings>>,
    /// What whoever speaks here proved to be.
    proofs: Labels,
}

impl Session {
    /// A session that heard nothing yet.
    pub(super) fn new(
        id: AgentId,
        connection: ConnectionId,
        transport: Transport,
        settings: Option<Arc<ConnectionSettings>>,
        proofs: Labels,
    ) -> Self {
        Self {
            id,
            connection,
            transport,
            greeted: false,
            ended: false,
            offered: false,
            asked: false,
            mixed: false,
            restart: false,
            asks: 0,
            suspicion: Suspicion::default(),
            progress: Progress::Fresh,
            due: Due::Nothing,
            asked_at: Timestamp::default(),
            heard_at: Timestamp::default(),
            sequence: 0,
            capabilities: Capabilities::default(),
            description: None,
            effective: None,
            build: Build::Unknown,
            health: None,
            config: None,
            slot: None,
            sent: None,
            last: None,
            settings,
            proofs,
        }
    }

    pub(super) const fn id(&self) -> AgentId {
        self.id
    }

    /// When the agent was last heard.
    pub(super) const fn heard_at(&self) -> Timestamp {
        self.heard_at
    }

    /// A sign of life of the connection, which is no message. It says something of agents that promised no messages.
    pub(super) fn handle_sign_of_life(&mut self, now: Timestamp) {
        if !self.promised_heartbeats() {
            self.heard_at = now;
        }
    }

    /// True when silence is a bad sign.
    pub(super) const fn promised_heartbeats(&self) -> bool {
        self.capabilities.contains(Capabilities::REPORTS_HEARTBEAT)
    }

    /// True once a message of the agent was taken: it is known to the controller.
    pub(super) const fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// True when the agent said goodbye and has its answer.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.due == Due::Nothing
    }

    /// Takes one message of this agent. What follows for the controller is appended to `events`.
    ///
    /// # Errors
    /// When a part of the message is malformed or over its limit; nothing of the message has counted then.
    pub(super) fn handle_message(
        &mut self,
        inbound: &Inbound,
        arrival: &Arrival<'_>,
        events: &mut Vec<AgentEvent>,
    ) -> Result<Taken, WireError> {
        if self.is_repeated(inbound, arrival) {
            self.heard_at = arrival.now;
            self.due = Due::SameAgain;
            return Ok(Taken::default());
        }
        // Everything that can fail comes before everything that changes.
        let described = described(inbound.description.as_ref(), self.description, &self.proofs, arrival.label_bytes)?;
        let effective = ran(inbound.effective_config.as_ref(), self.effective, arrival.names)?;
        let told = components::told(inbound.available_components.as_ref())?;

        self.heard_at = arrival.now;
        if self.is_somebody_else(inbound) {
            return Ok(Taken { is_duplicate: true, ..Taken::default() });
        }
        let ask = self.must_ask(inbound, arrival.now);
        let first = !self.greeted;
        self.greeted = true;
        self.sequence = inbound.sequence_num;
        if first {
            let (id, connection, transport) = (self.id, self.connection, self.transport);
            events.push(AgentEvent::Connected { id, connection, transport, proofs: self.proofs.clone() });
        }

        let capabilities = self.declared(inbound.capabilities);
        let (available, list) =
            self.could_run(told, inbound.disconnect.is_none().then_some(arrival.now), arrival.names);
        let report = AgentReport {
            capabilities,
            labels: described.map(|(digest, labels)| {
                self.description = Some(digest);
                labels
            }),
            config: self.status_of(inbound),
            health: inbound.health.as_ref().and_then(|health| self.felt(health)),
            effective: effective.map(|(digest, names)| {
                self.effective = Some(digest);
                names
            }),
            available,
        };
        if ask {
            // What this message lacks is still to come; only the answer to this question may conclude that there is nothing.
            self.asked = true;
            self.asks = self.asks.saturating_add(1);
            self.asked_at = arrival.now;
        }
        if report.labels.is_some() {
            self.slot = None;
        }
        if !report.is_empty() {
            events.push(AgentEvent::Report { id: self.id, connection: self.connection, report: Box::new(report) });
        }
        if inbound.disconnect.is_some() {
            self.ended = true;
            self.restart = false;
            self.slot = None;
            self.sent = None;
            events.push(AgentEvent::Gone { id: self.id, connection: self.connection, goodbye: true });
        }
        let (settings, refused_settings) = self.settle(inbound);
        self.due = Due::Answer(if self.ended { Extras::default() } else { Extras { ask, list, settings } });
        Ok(Taken { refused_settings, is_duplicate: false })
    }

    /// Puts an offer in the place of one that did not leave yet.
    pub(super) fn handle_offer(&mut self, offer: Offer) {
        if !self.ended {
            self.slot = Some(offer);
        }
    }

    /// Takes back an offer that did not leave yet, and the repetition of one that did.
    pub(super) fn handle_withdraw(&mut self) {
        self.slot = None;
        if let Some(sent) = &mut self.sent {
            sent.again = None;
        }
    }

    /// Tells the agent to restart, once, in a message of its own. One that did not declare that it can is not told.
    pub(super) fn handle_restart(&mut self) {
        self.restart = !self.ended;
    }

    /// True when something waits that the agent may be sent without a message of its own.
    pub(super) fn has_more(&self) -> bool {
        self.transport == Transport::WebSocket && (self.restart || self.slot.is_some())
    }

    /// What is to be sent now, if anything.
    pub(super) fn poll_transmit(&mut self, message: Option<Digest>, now: Timestamp) -> Option<OutMessage> {
        let due = std::mem::replace(&mut self.due, Due::Nothing);
        let extras = match due {
            Due::Nothing if self.transport == Transport::Http => return None,
            Due::Nothing if self.take_restart() => return Some(self.command()),
            Due::Nothing => return self.take_offer(now).map(|config| self.compose(Extras::default(), Some(&config))),
            Due::SameAgain => {
                if let Some(same) = self.same_again(now) {
                    return Some(same);
                }
                Extras::default()
            }
            Due::Answer(extras) => extras,
        };
        // A poll has one answer, and a command is alone in its message; a question that is owed goes first.
        if self.transport == Transport::Http && extras == Extras::default() && self.take_restart() {
            self.remember(message, self.compose(extras, None));
            return Some(self.command());
        }
        let config = self.take_offer(now);
        let answer = self.compose(extras, config.as_ref());
        self.remember(message, answer.clone());
        Some(answer)
    }

    /// Keeps what a request of this digest is answered when it comes again. A command is not repeated: who sends the same for
    /// ever would restart for ever, and a restart that was lost shows in what did not happen.
    fn remember(&mut self, message: Option<Digest>, answer: OutMessage) {
        if let Some(message) = message.filter(|_| self.transport == Transport::Http) {
            self.last = Some(Box::new(LastAnswer { sequence: self.sequence, message, answer }));
        }
    }

    /// True when the command is to leave now. What the agent cannot do is not kept for later.
    fn take_restart(&mut self) -> bool {
        std::mem::take(&mut self.restart) && self.capabilities.contains(Capabilities::ACCEPTS_RESTART_COMMAND)
    }

    /// The restart command: whatever else stood in its message, the agent would ignore.
    fn command(&self) -> OutMessage {
        let message = ServerToAgent {
            instance_uid: Bytes::copy_from_slice(self.id.as_bytes()),
            capabilities: our_capabilities(self.settings.as_deref()),
            command: Some(ServerToAgentCommand { r#type: CommandType::Restart.into() }),
            ..Default::default()
        };
        OutMessage::new(&message, None, self.transport == Transport::WebSocket)
    }

    fn compose(&self, extras: Extras, offer: Option<&RenderedConfig>) -> OutMessage {
        let flag = |is_set: bool, flag: ServerToAgentFlags| if is_set { flag as u64 } else { 0 };
        let message = ServerToAgent {
            instance_uid: Bytes::copy_from_slice(self.id.as_bytes()),
            flags: flag(extras.ask, ServerToAgentFlags::ReportFullState)
                | flag(extras.list, ServerToAgentFlags::ReportAvailableComponents),
            capabilities: our_capabilities(self.settings.as_deref()),
            connection_settings: self.settings.as_ref().filter(|_| extras.settings).map(|settings| settings.offer()),
            ..Default::default()
        };
        OutMessage::new(&message, offer, self.transport == Transport::WebSocket)
    }

    /// The offer that may leave now, if there is one.
    fn take_offer(&mut self, now: Timestamp) -> Option<RenderedConfig> {
        if let Some(Offer { config, retry }) = self.slot.take() {
            let reported = self.config.as_ref().is_some_and(|state| state.is_about(config.hash()));
            let repeated = self.sent.as_ref().is_some_and(|sent| sent.hash == config.hash());
            let allowed = self.capabilities.contains(Capabilities::ACCEPTS_REMOTE_CONFIG);
            if allowed && (retry || !(reported || repeated)) {
                let again = (self.transport == Transport::Http).then(|| Box::new((config.clone(), now, 1)));
                self.offered = true;
                // What it says it runs from now on is told even when that is what it ran before: it may be what it fell back to.
                self.effective = None;
                self.sent = Some(Sent { hash: config.hash(), again });
                return Some(config);
            }
        }
        // Over HTTP an answer can be lost without a sign; over a WebSocket the connection ends then.
        let Sent { hash, again } = self.sent.as_mut()?;
        if self.config.as_ref().is_some_and(|state| state.is_about(*hash)) {
            *again = None;
        }
        let (config, at, times) = again.as_deref_mut()?;
        if *times >= MOST_OFFERS || now.since(*at) < OFFER_AGAIN {
            return None;
        }
        *at = now;
        *times += 1;
        Some(config.clone())
    }

    /// True when these are the bytes of the last message once more, over HTTP.
    fn is_repeated(&self, inbound: &Inbound, arrival: &Arrival<'_>) -> bool {
        self.last
            .as_ref()
            .is_some_and(|last| last.sequence == inbound.sequence_num && arrival.message == Some(last.message))
    }

    /// The answer to a repeated request: the same as before. `None` when it has to be made anew: the old one has no offer
    /// and one has come since, or the old one has an offer and went out often enough.
    fn same_again(&mut self, now: Timestamp) -> Option<OutMessage> {
        let last = self.last.as_ref()?;
        if last.answer.shared.is_none() {
            return self.slot.is_none().then(|| last.answer.clone());
        }
        let (_, at, times) = self.sent.as_mut()?.again.as_deref_mut()?;
        if self.slot.is_some() || *times >= MOST_OFFERS {
            return None;
        }
        *at = now;
        *times += 1;
        Some(last.answer.clone())
    }

    /// True when it is certain that two agents speak with this uid, and this message is of the one that gets another.
    fn is_somebody_else(&mut self, inbound: &Inbound) -> bool {
        let may_be = self.greeted && inbound.disconnect.is_none();
        if !may_be || !self.suspicion.is_somebody_else(self.sequence, inbound.sequence_num) {
            return false;
        }
        // The other one keeps the uid, and the number that it is at. Which of them said what, only it can tell.
        (self.sent, self.config, self.mixed) = (None, None, true);
        true
    }

    /// Whether something was missed, so that the agent has to report everything.
    fn must_ask(&mut self, inbound: &Inbound, now: Timestamp) -> bool {
        if !self.greeted {
            return !is_complete(inbound);
        }
        if std::mem::take(&mut self.mixed) {
            return true;
        }
        if inbound.sequence_num == self.sequence.wrapping_add(1) {
            self.asks = 0;
            // It was asked, and the answer may have been lost on the way or ignored.
            return self.description.is_none()
                && inbound.description.is_none()
                && now.since(self.asked_at) >= ASK_AGAIN
                && inbound.disconnect.is_none();
        }
        if inbound.sequence_num <= 1 && inbound.description.is_some() {
            // The agent was started anew, perhaps with an empty disk: what it had or was offered may be lost to it.
            self.sent = None;
            self.config = None;
            self.progress = Progress::Fresh;
        }
        self.asks < MOST_ASKS || now.since(self.asked_at) >= ASK_AGAIN
    }

    /// The capabilities, when they are stated (an agent has at least one) and differ.
    fn declared(&mut self, bits: u64) -> Option<Capabilities> {
        let stated = Capabilities(bits);
        if bits == 0 || stated == self.capabilities {
            return None;
        }
        self.capabilities = stated;
        Some(stated)
    }

    /// What the agent's build could run, when that is news; and whether the agent is to be asked for it. `ask` is the time, when it
    /// may be.
    fn could_run(
        &mut self,
        told: Option<Told>,
        ask: Option<Timestamp>,
        shared: &dyn SharedNames,
    ) -> (Option<Arc<ComponentNames>>, bool) {
        let mut names = None;
        if let Some(told) = told {
            if self.build == Build::Known(told.build) {
                return (None, false);
            }
            self.build = Build::Named(told.build);
            names = told.names;
        }
        let Build::Named(build) = self.build else { return (None, false) };
        let can_list = self.capabilities.contains(Capabilities::REPORTS_AVAILABLE_COMPONENTS);
        match shared.look_up(build, names, ask.filter(|_| can_list)) {
            Lookup::Known(names) => {
                self.build = Build::Known(build);
                (Some(names), false)
            }
            Lookup::Ask => (None, true),
            Lookup::Unknown => (None, false),
        }
    }

    /// Whether settings for the connection are to go along with the answer, and the agent's words when it just refused them.
    fn settle(&mut self, inbound: &Inbound) -> (bool, Option<Arc<str>>) {
        let Some(settings) = &self.settings else { return (false, None) };
        let (status, before) = (inbound.settings_status.as_ref(), self.progress);
        let is_due = self.progress.step(settings, self.capabilities, status, inbound.description.is_some());
        let is_news = before != self.progress && self.progress == Progress::Reported;
        let refusal = status.filter(|status| is_news && status.is_failure());
        (is_due, refusal.map(|status| kept(&status.error_message).unwrap_or_else(|| Arc::from("without a reason"))))
    }

    /// The state of the configuration, when the message tells of it or is the full report that would have, and it differs.
    fn status_of(&mut self, inbound: &Inbound) -> Option<ConfigState> {
        let is_full = self.asked && inbound.description.is_some();
        self.asked &= !is_full;
        let state = match &inbound.config_status {
            Some(outcome) => config_state(outcome),
            None if is_full && self.config.is_none() => ConfigState::NOTHING,
            None => return None,
        };
        // A second failure can have the words of the first: after an offer the same state is news.
        let is_news = std::mem::take(&mut self.offered) || self.config.as_ref() != Some(&state);
        self.config = Some(state.clone());
        is_news.then_some(state)
    }

    /// The health, when it differs.
    fn felt(&mut self, reported: &TopHealth) -> Option<Health> {
        let words = if reported.last_error.is_empty() { &reported.status } else { &reported.last_error };
        let message = if reported.healthy { None } else { kept(words) };
        let health = Health { healthy: reported.healthy, message };
        if self.health.as_ref() == Some(&health) {
            return None;
        }
        self.health = Some(health.clone());
        Some(health)
    }
}

/// What the server can do, stated in every answer: take reports and effective configurations, offer configurations, and settings
/// for connections when it has some.
const fn our_capabilities(settings: Option<&ConnectionSettings>) -> u64 {
    OUR_CAPABILITIES | if settings.is_some() { ServerCapabilities::OffersConnectionSettings as u64 } else { 0 }
}

/// True when a first message needs no question: a client that just started (they count from 0 or from 1), described itself
/// and told of its configuration, or cannot tell.
fn is_complete(inbound: &Inbound) -> bool {
    let cannot_tell =
        inbound.capabilities != 0 && !Capabilities(inbound.capabilities).contains(Capabilities::REPORTS_REMOTE_CONFIG);
    let told = inbound.config_status.is_some() || cannot_tell;
    inbound.disconnect.is_some() || (inbound.sequence_num <= 1 && inbound.description.is_some() && told)
}

/// The labels and their digest, when there is a description and it differs from the one with the digest `before`.
fn described(
    description: Option<&Bytes>,
    before: Option<Digest>,
    proofs: &Labels,
    most_bytes: usize,
) -> Result<Option<(Digest, Labels)>, WireError> {
    let Some(description) = description else { return Ok(None) };
    let digest = Digest::of(description);
    if before == Some(digest) {
        return Ok(None);
    }
    let decoded = AgentDescription::decode(description.clone())?;
    let labels = labels(&decoded, most_bytes)?;
    Ok(Some((digest, labels.with_proofs(proofs))))
}

/// The names of what runs, when an effective configuration came and differs from the one with the digest `before`.
fn ran(
    effective: Option<&Bytes>,
    before: Option<Digest>,
    shared: &dyn SharedNames,
) -> Result<Option<(Digest, Arc<ComponentNames>)>, WireError> {
    let Some(effective) = effective else { return Ok(None) };
    let digest = Digest::of(effective);
    if before == Some(digest) {
        return Ok(None);
    }
    Ok(Some((digest, names(effective, digest, shared)?)))
}

fn config_state(outcome: &ConfigOutcome) -> ConfigState {
    let hash = match <[u8; 32]>::try_from(&outcome.hash[..]) {
        Ok(bytes) => ReportedHash::Known(ConfigHash::new(bytes)),
        Err(_) if outcome.hash.is_empty() => ReportedHash::None,
        Err(_) => ReportedHash::Foreign,
    };
    let status = match outcome.status {
        1 => ConfigStatus::Applied,
        2 => ConfigStatus::Applying,
        3 => ConfigStatus::Failed,
        _ => ConfigStatus::Unset,
    };
    let message = if status == ConfigStatus::Failed { kept(&outcome.error_message) } else { None };
    ConfigState { hash, status, message }
}

/// An agent's words as they are kept: one printable, bounded line without secrets, because it goes into notes that are pushed.
fn kept(words: &str) -> Option<Arc<str>> {
    // Masked before it is cut to its length: of a URL that ends before its `@` nobody could tell what is secret.
    let words = clean(&mask(&clean(words, 4 * LONGEST_MESSAGE)), LONGEST_MESSAGE);
    (!words.is_empty()).then(|| Arc::from(words))
}

/// The answer that gives a new identity to an agent that asked for one.
pub(super) fn identification(
    asked_by: &[u8],
    new: AgentId,
    transport: Transport,
    settings: Option<&ConnectionSettings>,
) -> OutMessage {
    let message = ServerToAgent {
        instance_uid: Bytes::copy_from_slice(asked_by),
        capabilities: our_capabilities(settings),
        agent_identification: Some(AgentIdentification { new_instance_uid: Bytes::copy_from_slice(new.as_bytes()) }),
        ..Default::default()
    };
    OutMessage::new(&message, None, transport == Transport::WebSocket)
}
