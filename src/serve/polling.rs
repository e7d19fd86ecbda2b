//! Agents that poll over plain HTTP: a session for each uid, kept for as long as the polls come.
//!
//! There is no connection that could end, so silence is the only sign that an agent is gone; and nothing can be pushed, so a
//! request waits a moment for the verdict on what it reported.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::gate::Proof;
use super::links::{Registration, Word, lock};
use super::listener::{NobodyListens, Server};
use super::quota::{Origins, Place};
use super::traffic::Traffic;
use crate::agent::{AgentId, AgentReport, ConnectionId, Transport};
use crate::identity::Denied;
use crate::opamp::connection::{Connection, Heard, uid_of};
use crate::opamp::wire::OutMessage;
use crate::time::Timestamp;

/// The agents that poll, by uid.
#[derive(Debug, Default)]
pub(super) struct Polls(Mutex<BTreeMap<AgentId, Arc<Poll>>>);

/// One agent that polls.
#[derive(Debug)]
struct Poll {
    registration: Registration,
    /// When the last request came, in milliseconds.
    heard: AtomicU64,
    /// What its last request proved. Requests that prove to be somebody else are refused.
    proof: Mutex<Proof>,
    /// Its place among those with the same token, or without one from the same address.
    _place: Option<Arc<Place>>,
    /// One request at a time; `None` once the agent is gone.
    connection: tokio::sync::Mutex<Option<Connection>>,
}

/// An agent whose session is to end, unless it proves itself anew meanwhile.
struct Doubted {
    id: AgentId,
    poll: Arc<Poll>,
    /// What it proved last.
    proof: Proof,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// The answer of the protocol.
    Message(OutMessage),
    /// The request is no message; the answer says so.
    Malformed(OutMessage),
    /// There are as many agents as there may be, or the server stops.
    Unavailable,
    /// The agent is here, and proved to be somebody else.
    Impostor,
    /// What the request proved when it began does not count any more.
    Unproven(Denied),
}

impl Polls {
    /// The agent speaks over another connection now.
    pub(super) fn forget(&self, id: AgentId, connection: ConnectionId, traffic: &Traffic) {
        let mut polls = lock(&self.0);
        if polls.get(&id).is_some_and(|poll| poll.registration.id == connection) {
            polls.remove(&id);
        }
        traffic.polling_agents.set(polls.len());
    }

    fn find_or_open(&self, id: AgentId, proof: &Proof, server: &Server) -> Option<Arc<Poll>> {
        let mut polls = lock(&self.0);
        if let Some(poll) = polls.get(&id) {
            return Some(Arc::clone(poll));
        }
        if polls.len() >= server.options.max_polling_agents {
            server.traffic.crowded_polls.one();
            return None;
        }
        let mut proof = proof.clone();
        if !server.take_place(&mut proof) || !server.take_polling_place(&mut proof) {
            return None;
        }
        // Taken here, whatever becomes of the message, and before what others need too: who makes up identities, or has them refused, uses
        // up what is its own.
        if !server.admits_newcomer(proof.origins()) || !server.admits(&proof) {
            return None;
        }
        let registration = server.links.open();
        let connection = Connection::new(registration.id, Transport::Http).proving(proof.labels.clone());
        let heard = AtomicU64::new(server.clock.now().as_millis());
        let poll = Arc::new(Poll {
            registration,
            heard,
            _place: proof.place.take(),
            proof: proof.into(),
            connection: Some(connection).into(),
        });
        polls.insert(id, Arc::clone(&poll));
        server.traffic.polling_agents.set(polls.len());
        Some(poll)
    }

    fn close(&self, id: AgentId, poll: &Arc<Poll>, server: &Server) {
        let mut polls = lock(&self.0);
        if polls.get(&id).is_some_and(|other| Arc::ptr_eq(other, poll)) {
            polls.remove(&id);
        }
        server.traffic.polling_agents.set(polls.len());
    }

    /// The agents whose last proof is like that. It is asked without a lock, because signatures may have to be verified for the answer.
    fn doubted(&self, is_doubtful: impl Fn(&Proof) -> bool) -> Vec<Doubted> {
        let proven = |(id, poll): (&AgentId, &Arc<Poll>)| {
            let proof = lock(&poll.proof).clone();
            Doubted { id: *id, poll: Arc::clone(poll), proof }
        };
        let mut all: Vec<Doubted> = lock(&self.0).iter().map(proven).collect();
        all.retain(|one| is_doubtful(&one.proof));
        all
    }

    /// The agents that were not heard since `before`.
    fn silent(&self, before: Timestamp) -> Vec<(AgentId, Arc<Poll>)> {
        let is_silent = |poll: &Poll| poll.heard.load(Ordering::Relaxed) < before.as_millis();
        let polls = lock(&self.0);
        polls.iter().filter(|(_, poll)| is_silent(poll)).map(|(id, poll)| (*id, Arc::clone(poll))).collect()
    }
}

/// Answers one request, whose body is `message`.
pub(super) async fn answer(server: &Server, message: Bytes, proof: Proof) -> Answer {
    let Some(id) = uid_of(&message) else { return answer_stranger(server, message, proof.origins()) };
    loop {
        // Its body may have taken its time.
        if let Err(denied) = server.still_holds(&proof) {
            return Answer::Unproven(denied);
        }
        let Some(poll) = server.polls.find_or_open(id, &proof, server) else { return Answer::Unavailable };
        let mut guard = poll.connection.lock().await;
        // It expired between the two lines above: the next one is new.
        let Some(connection) = guard.as_mut() else { continue };
        // It may have waited for the one before it: who was found out meanwhile is offered nothing, and takes the place of no proof that holds.
        if let Err(denied) = server.still_holds(&proof) {
            close_if_empty(server, id, &poll, &mut guard);
            return Answer::Unproven(denied);
        }
        if lock(&poll.proof).labels != proof.labels {
            server.warn_of_impostor(id, &proof.labels);
            return Answer::Impostor;
        }
        lock(&poll.proof).clone_from(&proof);
        poll.heard.store(server.clock.now().as_millis(), Ordering::Relaxed);
        let heard = server.hear(connection, message);
        let may_offer = match await_verdict(server, connection, &poll).await {
            Ok(may_offer) => may_offer,
            Err(NobodyListens) => return Answer::Unavailable,
        };
        if connection.is_shunned() {
            *guard = None;
            server.polls.close(id, &poll, server);
            return Answer::Impostor;
        }
        if let Err(denied) = server.still_holds(&proof) {
            connection.drop_answers();
            close_if_empty(server, id, &poll, &mut guard);
            return Answer::Unproven(denied);
        }
        if may_offer {
            for (id, word) in poll.registration.link.take() {
                match word {
                    Word::Offer(offer) => connection.handle_offer(id, offer),
                    Word::Withdraw => connection.handle_withdraw(id),
                    Word::Restart => connection.handle_restart(id),
                    Word::Moved => connection.handle_moved(id),
                }
            }
        }
        let answer = connection.poll_transmit(server.clock.now());
        close_if_empty(server, id, &poll, &mut guard);
        return judged(server, &heard, answer);
    }
}

/// A session without its agent is over.
fn close_if_empty(server: &Server, id: AgentId, poll: &Arc<Poll>, connection: &mut Option<Connection>) {
    if connection.as_ref().is_some_and(|connection| connection.agents() == 0) {
        *connection = None;
        server.polls.close(id, poll, server);
    }
}

/// Who has no uid gets an answer and leaves nothing behind.
fn answer_stranger(server: &Server, message: Bytes, origins: Option<Origins>) -> Answer {
    // Nothing else counts them: they have no session that would.
    if !server.admits_newcomer(origins) {
        return Answer::Unavailable;
    }
    let mut connection = Connection::new(ConnectionId(0), Transport::Http);
    let heard = server.hear(&mut connection, message);
    let answer = connection.poll_transmit(server.clock.now());
    judged(server, &heard, answer)
}

fn judged(server: &Server, heard: &Heard, answer: Option<OutMessage>) -> Answer {
    let Some(answer) = answer else { return Answer::Unavailable };
    match heard {
        Heard::From(_) | Heard::Stranger | Heard::Duplicate(_) | Heard::Crowded => Answer::Message(answer),
        Heard::Flooded(_) => {
            server.traffic.messages_refused.one();
            Answer::Unavailable
        }
        Heard::NoIdentity => {
            server.traffic.messages_refused.one();
            Answer::Message(answer)
        }
        Heard::Refused(_) => {
            server.traffic.messages_refused.one();
            Answer::Malformed(answer)
        }
    }
}

/// Tells the daemon what changed and waits a moment for what follows. False: the slot must not be used, because what is in it
/// may be meant for other labels.
async fn await_verdict(server: &Server, connection: &mut Connection, poll: &Poll) -> Result<bool, NobodyListens> {
    let any = |_: &AgentReport| true;
    // Who opened the poll brought the agent.
    let Some(verdict) = server.deliver(connection, &poll.registration.link, None, any).await? else {
        return Ok(true);
    };
    let is_settled = tokio::time::timeout(server.options.verdict_wait, verdict.receiver).await.is_ok();
    Ok(is_settled || !verdict.is_about_labels)
}

/// Ends, each time that it is asked to, the sessions of agents whose last proof counts no more by the files about tokens and certificates: their
/// next poll would be refused.
pub(super) async fn end_doubted(server: Arc<Server>, asked: Arc<Notify>) {
    loop {
        asked.notified().await;
        let judging = Arc::clone(&server);
        // Signatures of as many certificates as there are agents: no work for a thread that serves them.
        let judged = tokio::task::spawn_blocking(move || judging.polls.doubted(|proof| is_repudiated(&judging, proof)));
        if let Ok(doubted) = judged.await {
            end(&server, doubted).await;
        }
    }
}

/// True when files took back what somebody proved. What ended by itself is judged elsewhere, later.
fn is_repudiated(server: &Server, proof: &Proof) -> bool {
    let is_over = proof.expires.is_some_and(|end| end <= server.clock.wall());
    !server.believes(proof) || !is_over && proof.shown.as_ref().is_some_and(|shown| !server.still_counts(shown))
}

/// The same of those whose proof ended by itself, and who had the time for another poll since: it is with the next one that an agent shows
/// that it was given another. Meanwhile nothing leaves, because configurations leave with the answers to polls.
async fn end_expired(server: &Server) {
    let patience = server.options.poll_expiry / 3;
    let now = server.clock.wall();
    end(server, server.polls.doubted(|proof| proof.expires.is_some_and(|end| end + patience <= now))).await;
}

async fn end(server: &Server, doubted: Vec<Doubted>) {
    for Doubted { id, poll, proof } in doubted {
        let mut guard = poll.connection.lock().await;
        let is_proven_anew = !lock(&poll.proof).is_same(&proof);
        if is_proven_anew {
            continue;
        }
        let Some(mut connection) = guard.take() else { continue };
        server.polls.close(id, &poll, server);
        server.traffic.gate.revoked.one();
        connection.handle_close();
        if server.deliver(&mut connection, &poll.registration.link, None, |_| false).await.is_err() {
            return;
        }
    }
}

/// How far the wall clock may go from ours before it is taken for one that was set, or for a machine that slept.
const SLEPT: Duration = Duration::from_secs(2);

/// Ends the sessions of agents whose polls stopped, or whose proof ended, for as long as the server runs; and has all connections judge anew
/// what others dated when the wall clock jumped, because their timers stood still.
pub(super) async fn sweep(server: Arc<Server>) {
    let expiry = server.options.poll_expiry;
    let pause = (expiry / 16).clamp(Duration::from_millis(10), Duration::from_secs(5));
    let apart = || i128::from(server.clock.wall().as_millis()) - i128::from(server.clock.now().as_millis());
    let mut before = apart();
    loop {
        tokio::time::sleep(pause).await;
        let after = apart();
        if after.abs_diff(before) >= SLEPT.as_millis() {
            before = after;
            server.links.doubt_all();
        }
        end_expired(&server).await;
        let now = server.clock.now();
        let before = Timestamp::from_millis(now.as_millis().saturating_sub(expiry.as_millis() as u64));
        for (id, poll) in server.polls.silent(before) {
            // A request that is being answered is a sign of life.
            let Ok(mut guard) = poll.connection.try_lock() else { continue };
            let Some(mut connection) = guard.take() else { continue };
            server.polls.close(id, &poll, &server);
            server.traffic.silent.one();
            connection.handle_close();
            if server.deliver(&mut connection, &poll.registration.link, None, |_| false).await.is_err() {
                return;
            }
        }
    }
}
