//! From the daemon to agents: for each connection a slot in which the latest word for an agent wins.
//!
//! Nothing here waits and nothing queues: an offer replaces the one before it, so an agent that does not read costs one slot,
//! whatever happens meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::agent::{AgentId, ConnectionId, Transport};
use crate::config::RenderedConfig;
use crate::labels::Labels;
use crate::opamp::Offer;
use crate::time::Timestamp;

/// What is said to the task of a connection about one of its agents.
#[derive(Debug)]
pub(super) enum Word {
    /// Offer this.
    Offer(Offer),
    /// Take back what was not sent.
    Withdraw,
    /// Tell it to restart. Beside the other words, not in their place.
    Restart,
    /// The agent speaks over another connection now.
    Moved,
}

/// One connection as others reach it.
#[derive(Debug, Default)]
pub(super) struct Link {
    slot: Mutex<Slot>,
    /// Rung when there is something in the slot.
    pub(super) wake: Notify,
}

#[derive(Debug, Default)]
struct Slot {
    /// One word an agent.
    words: Vec<(AgentId, Word)>,
    /// Who shall restart.
    restarts: Vec<AgentId>,
    /// The server stops.
    is_over: bool,
    /// What the other end proved itself with may not count any more.
    is_in_doubt: bool,
}

impl Link {
    fn put(&self, id: AgentId, word: Word) {
        let mut slot = lock(&self.slot);
        match slot.words.iter_mut().find(|(other, _)| *other == id) {
            // Who moved away is offered nothing here any more.
            Some((_, Word::Moved)) => {}
            Some((_, old)) => *old = word,
            None => slot.words.push((id, word)),
        }
        drop(slot);
        self.wake.notify_one();
    }

    fn put_restart(&self, id: AgentId) {
        let mut slot = lock(&self.slot);
        if !slot.restarts.contains(&id) {
            slot.restarts.push(id);
        }
        drop(slot);
        self.wake.notify_one();
    }

    /// Empties the slot.
    pub(super) fn take(&self) -> Vec<(AgentId, Word)> {
        let mut slot = lock(&self.slot);
        let mut words = std::mem::take(&mut slot.words);
        words.extend(std::mem::take(&mut slot.restarts).into_iter().map(|id| (id, Word::Restart)));
        words
    }

    /// Drops an offer to this agent that nobody took yet: it was made for what the agent no longer is.
    pub(super) fn void(&self, id: AgentId) {
        lock(&self.slot).words.retain(|(other, word)| *other != id || !matches!(word, Word::Offer(_)));
    }

    /// True, once, when the connection has to be judged anew.
    pub(super) fn take_doubt(&self) -> bool {
        std::mem::take(&mut lock(&self.slot).is_in_doubt)
    }

    /// Asks the connection to judge anew whether its other end may be there.
    pub(super) fn doubt(&self) {
        lock(&self.slot).is_in_doubt = true;
        self.wake.notify_one();
    }

    /// True when the server stops.
    pub(super) fn is_over(&self) -> bool {
        lock(&self.slot).is_over
    }

    fn end(&self) {
        lock(&self.slot).is_over = true;
        self.wake.notify_one();
    }
}

#[derive(Debug)]
struct Entry {
    link: Arc<Link>,
    task: Option<AbortHandle>,
}

#[derive(Debug, Default)]
struct Registry {
    connections: Mutex<BTreeMap<ConnectionId, Entry>>,
    /// The connection over which an agent spoke last.
    owners: Mutex<HashMap<AgentId, Owner>>,
    next: AtomicU64,
}

/// Who has an agent, and how often it was taken from somebody lately.
#[derive(Debug)]
struct Owner {
    connection: ConnectionId,
    transport: Transport,
    /// What it proved.
    proofs: Labels,
    /// The connection that had it before.
    before: Option<ConnectionId>,
    takeovers: u8,
    since: Timestamp,
    /// Signs that whoever lost the agent is still there.
    signs: u8,
    signs_since: Timestamp,
}

impl Owner {
    fn new(connection: ConnectionId, transport: Transport, proofs: Labels, now: Timestamp) -> Self {
        Self { connection, transport, proofs, before: None, takeovers: 0, since: now, signs: 0, signs_since: now }
    }

    /// Forgets what is too old to count.
    fn age(&mut self, now: Timestamp) {
        if now.since(self.since) >= CONTEST_WINDOW {
            (self.takeovers, self.since) = (0, now);
        }
        if now.since(self.signs_since) >= SIGNS_WINDOW {
            (self.signs, self.signs_since) = (0, now);
        }
    }
}

/// What became of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nobody had the agent, or the claimant did.
    Free,
    /// This connection had it, and was told.
    From(ConnectionId),
    /// Two agents fight for one identity: the claimant shall get another.
    Contested,
    /// The agent is here, and proved to be somebody else than the claimant: that one is refused, and nobody is disturbed.
    Impostor,
}

/// Takeovers within [`CONTEST_WINDOW`] that are still taken for reconnects, when nothing else tells. An agent that lost its network
/// comes back after a second or more and leaves a dead connection behind; two that share an identity throw each other out many times
/// a second, and usually show themselves sooner, by [`MOST_SIGNS`].
const MOST_TAKEOVERS: u8 = 30;

/// Signs within [`SIGNS_WINDOW`] that two agents speak at once: the one that lost its connection answered the last word on it, came
/// back on the same connection, or speaks over the other transport in turn. An agent that only lost its network gives none.
const MOST_SIGNS: u8 = 3;

/// See [`MOST_SIGNS`].
const SIGNS_WINDOW: Duration = Duration::from_secs(600);

/// See [`MOST_TAKEOVERS`].
const CONTEST_WINDOW: Duration = Duration::from_secs(60);

/// The daemon's hand on every connection. Cheap to clone; calls never wait for an agent.
#[derive(Clone, Debug, Default)]
pub struct AgentLinks(Arc<Registry>);

impl AgentLinks {
    /// Offers `config` to an agent, in place of what was offered before and has not left. The session still refuses what must not
    /// leave (the same hash twice in a row, unless `retry`). Connections that ended are ignored: their end was reported.
    pub fn offer(&self, connection: ConnectionId, id: AgentId, config: RenderedConfig, retry: bool) {
        self.say(connection, id, Word::Offer(Offer { config, retry }));
    }

    /// Takes back an offer that has not left. Due whenever nothing is to be offered any more, for example because the labels
    /// changed: the slot keeps the last word.
    pub fn withdraw(&self, connection: ConnectionId, id: AgentId) {
        self.say(connection, id, Word::Withdraw);
    }

    /// Tells an agent to restart: at once over a WebSocket, with the answer to its next poll over HTTP. Agents that did not declare
    /// AcceptsRestartCommand are not told, connections that ended are ignored, and there is no acknowledgement: the caller asks for
    /// the capability first and watches the agent's health afterwards. Several calls before the command leaves are one.
    pub fn restart(&self, connection: ConnectionId, id: AgentId) {
        if let Some(link) = self.link(connection) {
            link.put_restart(id);
        }
    }

    fn say(&self, connection: ConnectionId, id: AgentId, word: Word) {
        if let Some(link) = self.link(connection) {
            link.put(id, word);
        }
    }

    fn link(&self, connection: ConnectionId) -> Option<Arc<Link>> {
        lock(&self.0.connections).get(&connection).map(|entry| Arc::clone(&entry.link))
    }

    /// Registers a new connection until the registration is dropped.
    pub(super) fn open(&self) -> Registration {
        let id = ConnectionId(self.0.next.fetch_add(1, Ordering::Relaxed) + 1);
        let link = Arc::new(Link::default());
        lock(&self.0.connections).insert(id, Entry { link: Arc::clone(&link), task: None });
        Registration { links: self.clone(), id, link }
    }

    /// Says which task serves a connection, so that it can be ended when the server stops.
    pub(super) fn served_by(&self, id: ConnectionId, task: AbortHandle) {
        if let Some(entry) = lock(&self.0.connections).get_mut(&id) {
            entry.task = Some(task);
        }
    }

    /// `connection` has this agent from now on, and the connection that had it before learns so. Unless this happened too often
    /// lately: cloned machines share an identity, and would take it from each other for ever.
    pub(super) fn claim(
        &self,
        id: AgentId,
        connection: ConnectionId,
        transport: Transport,
        proofs: &Labels,
        now: Timestamp,
    ) -> Claim {
        let before = {
            let mut owners = lock(&self.0.owners);
            let owner = owners.entry(id).or_insert_with(|| Owner::new(connection, transport, proofs.clone(), now));
            if owner.connection == connection {
                return Claim::Free;
            }
            if owner.proofs != *proofs {
                return Claim::Impostor;
            }
            owner.age(now);
            if owner.before == Some(connection) || owner.transport != transport {
                owner.signs += 1;
            }
            if owner.signs >= MOST_SIGNS {
                // The claimant becomes somebody else. Should there be a third, it has to show itself, too.
                owner.signs = 0;
                return Claim::Contested;
            }
            if owner.takeovers >= MOST_TAKEOVERS {
                return Claim::Contested;
            }
            owner.takeovers += 1;
            owner.transport = transport;
            owner.before = Some(owner.connection);
            std::mem::replace(&mut owner.connection, connection)
        };
        self.say(before, id, Word::Moved);
        Claim::From(before)
    }

    /// True when somebody has this agent.
    pub(super) fn has(&self, id: AgentId) -> bool {
        lock(&self.0.owners).contains_key(&id)
    }

    /// Somebody was still there at the end of `connection`, which had lost this agent to another one.
    pub(super) fn still_there(&self, id: AgentId, connection: ConnectionId, now: Timestamp) {
        if let Some(owner) = lock(&self.0.owners).get_mut(&id).filter(|owner| owner.connection != connection) {
            owner.age(now);
            owner.signs = owner.signs.saturating_add(1);
        }
    }

    /// The agent left `connection`.
    pub(super) fn release(&self, id: AgentId, connection: ConnectionId) {
        let mut owners = lock(&self.0.owners);
        if owners.get(&id).is_some_and(|owner| owner.connection == connection) {
            owners.remove(&id);
        }
    }

    /// Asks every connection to judge anew whether its other end may be there.
    pub(super) fn doubt_all(&self) {
        for entry in lock(&self.0.connections).values() {
            entry.link.doubt();
        }
    }

    /// Asks every connection to end.
    pub(super) fn end_all(&self) {
        for entry in lock(&self.0.connections).values() {
            entry.link.end();
        }
    }

    /// Ends the tasks that are still there.
    pub(super) fn abort_all(&self) {
        for task in lock(&self.0.connections).values().filter_map(|entry| entry.task.as_ref()) {
            task.abort();
        }
    }
}

/// A connection's place among the others; dropping it gives the place up.
#[derive(Debug)]
pub(super) struct Registration {
    links: AgentLinks,
    pub(super) id: ConnectionId,
    pub(super) link: Arc<Link>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.links.0.connections).remove(&self.id);
    }
}

/// Nothing panics while it holds one of these locks, and if it did, what they guard is whole after each step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ComponentNames, ConfigHash};

    fn agent(byte: u8) -> AgentId {
        AgentId::new(&[byte; 16]).expect("a uid")
    }

    fn config(byte: u8) -> RenderedConfig {
        RenderedConfig::new(ConfigHash::new([byte; 32]), "a: 1\n".into(), ComponentNames::default())
    }

    #[test]
    fn the_latest_word_wins() {
        let links = AgentLinks::default();
        let place = links.open();
        for byte in 1..100 {
            links.offer(place.id, agent(1), config(byte), false);
        }
        links.offer(place.id, agent(2), config(7), true);
        let words = place.link.take();
        assert!(
            matches!(&words[..], [(_, Word::Offer(last)), (_, Word::Offer(other))]
                if last.config == config(99) && other.config == config(7) && other.retry),
            "{words:?}"
        );
        assert!(place.link.take().is_empty());

        links.offer(place.id, agent(1), config(1), false);
        place.link.void(agent(1));
        assert!(place.link.take().is_empty(), "voided");
        links.withdraw(place.id, agent(1));
        place.link.void(agent(1));
        assert!(matches!(&place.link.take()[..], [(_, Word::Withdraw)]));
        links.offer(ConnectionId(999), agent(1), config(1), false);
        links.restart(ConnectionId(999), agent(1));

        links.restart(place.id, agent(1));
        links.offer(place.id, agent(1), config(1), false);
        links.restart(place.id, agent(1));
        let words = place.link.take();
        assert!(
            matches!(&words[..], [(_, Word::Offer(_)), (_, Word::Restart)]),
            "a restart takes no offer's place, and two are one: {words:?}"
        );
        assert!(place.link.take().is_empty());
    }

    #[test]
    fn the_newest_connection_has_the_agent() {
        let links = AgentLinks::default();
        let (old, new) = (links.open(), links.open());
        let now = Timestamp::default();
        assert_eq!(links.claim(agent(1), old.id, Transport::WebSocket, &Labels::default(), now), Claim::Free);
        assert_eq!(links.claim(agent(1), old.id, Transport::WebSocket, &Labels::default(), now), Claim::Free);
        assert_eq!(links.claim(agent(1), new.id, Transport::WebSocket, &Labels::default(), now), Claim::From(old.id));
        links.offer(old.id, agent(1), config(1), false);
        assert!(matches!(&old.link.take()[..], [(_, Word::Moved)]), "and the old one gets no offers");
        links.release(agent(1), old.id);
        assert_eq!(
            links.claim(agent(1), old.id, Transport::WebSocket, &Labels::default(), now),
            Claim::From(new.id),
            "only the owner can give it up"
        );
        drop(new);
        links.offer(old.id, agent(1), config(2), false);
        assert_eq!(old.link.take().len(), 1);
    }

    #[test]
    fn two_that_both_keep_talking_are_told_apart_and_a_reconnect_is_not() {
        let links = AgentLinks::default();
        let places: Vec<_> = (0..40).map(|_| links.open().id).collect();
        let minutes = |count: u64| Timestamp::from_millis(1_000_000 + count * 60_000);
        let claim = |at: usize, transport, now| links.claim(agent(1), places[at], transport, &Labels::default(), now);
        use Transport::{Http, WebSocket};
        // An agent whose network drops once a minute leaves dead connections behind.
        for number in 0..30 {
            assert_ne!(claim(number, WebSocket, minutes(number as u64)), Claim::Contested, "{number}");
        }
        // Connections that answer when they lose the agent belong to somebody.
        links.still_there(agent(1), places[29], minutes(30));
        for number in [30, 31, 32] {
            assert_ne!(
                claim(number, WebSocket, minutes(30)),
                Claim::Contested,
                "the owner's own end is no sign: {number}"
            );
            links.still_there(agent(1), places[number - 1], minutes(30));
        }
        assert_eq!(claim(33, WebSocket, minutes(31)), Claim::Contested);
        assert_eq!(claim(34, WebSocket, minutes(31)), Claim::From(places[32]), "signs are used up");
        // One over each transport, in turn; a single change of the transport is nobody else.
        let moves = [(35, Http), (36, WebSocket), (37, Http)].map(|(at, transport)| claim(at, transport, minutes(32)));
        assert_eq!(moves[2], Claim::Contested, "{moves:?}");
        assert!(!moves[..2].contains(&Claim::Contested), "{moves:?}");
        // Old signs do not count.
        assert_ne!(claim(37, Http, minutes(33)), Claim::Contested);
        assert_ne!(claim(38, WebSocket, minutes(50)), Claim::Contested);
        assert_ne!(claim(39, Http, minutes(50)), Claim::Contested);
        // Two connections that stay open and are both used, as through two proxies.
        let turns =
            [0, 1, 0, 1, 0].map(|at| links.claim(agent(2), places[at], WebSocket, &Labels::default(), minutes(60)));
        assert_eq!(turns.iter().position(|claim| *claim == Claim::Contested), Some(4), "{turns:?}");
    }

    #[test]
    fn somebody_who_proved_something_else_takes_nothing() {
        let links = AgentLinks::default();
        let (owner, other) = (links.open(), links.open());
        let (prod, staging) = (Labels::proven([("env", "prod")]), Labels::proven([("env", "staging")]));
        let claim = |place: &Registration, proofs: &Labels| {
            links.claim(agent(1), place.id, Transport::WebSocket, proofs, Timestamp::default())
        };
        assert_eq!(claim(&owner, &prod), Claim::Free);
        for proofs in [&staging, &Labels::default(), &Labels::new([("env", "prod")])] {
            assert_eq!(claim(&other, proofs), Claim::Impostor, "{proofs}");
        }
        links.offer(owner.id, agent(1), config(1), false);
        assert!(matches!(&owner.link.take()[..], [(_, Word::Offer(_))]), "who has it notices nothing");
        assert_eq!(claim(&other, &prod), Claim::From(owner.id), "with the same proof it is a reconnect");
        links.release(agent(1), other.id);
        assert_eq!(claim(&owner, &staging), Claim::Free, "nobody is there");
    }

    #[test]
    fn an_identity_that_two_fight_for_stays_where_it_is() {
        let links = AgentLinks::default();
        let now = Timestamp::from_millis(1_000);
        let places: Vec<_> = (0..80).map(|_| links.open()).collect();
        let claims = |from: usize, to: usize, at| {
            places[from..to]
                .iter()
                .map(|place| links.claim(agent(1), place.id, Transport::WebSocket, &Labels::default(), at))
                .collect::<Vec<_>>()
        };
        assert!(!claims(0, 31, now).contains(&Claim::Contested), "the first and thirty takeovers");
        assert_eq!(claims(31, 40, now), [const { Claim::Contested }; 9]);
        let later = now + CONTEST_WINDOW;
        assert_eq!(
            links.claim(agent(1), places[40].id, Transport::WebSocket, &Labels::default(), later),
            Claim::From(places[30].id),
            "who had it kept it till then"
        );
        links.release(agent(1), places[40].id);
        assert!(!claims(41, 72, later).contains(&Claim::Contested), "given up, so nobody fights");
    }
}
