//! An agent's WebSocket: one task that reads, hands on, and writes, one after the other.
//!
//! The task waits for its own socket only. While an agent does not read, its task hangs in a write with a deadline, and what is
//! meant for it waits in a slot where the latest wins; nobody else notices. A task that waits for its agent, for the
//! daemon or for room does not read on: that is the back-pressure.

use std::io;
use std::pin::pin;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::frames::{Close, FrameReader, Incoming, OutFrame};
use super::gate::Proof;
use super::links::{Registration, Word};
use super::listener::{NobodyListens, Server};
use super::room::Room;
use super::socket::Socket;
use crate::agent::{AgentId, Transport};
use crate::opamp::connection::{Connection, Heard};
use crate::time::Timestamp;

/// How a WebSocket ends.
enum Ending {
    /// By this server.
    Close(Close),
    /// By this server, because its only agent speaks over another connection.
    Moved(AgentId),
    /// By the client, in order: its close frame is answered.
    Answered(Close),
    /// The socket is gone or of no use.
    Lost,
    /// The server stops: nobody is to be told that agents are gone, because they are not.
    Stopped,
}

impl From<Close> for Ending {
    fn from(close: Close) -> Self {
        Self::Close(close)
    }
}

impl From<NobodyListens> for Ending {
    fn from(_: NobodyListens) -> Self {
        Self::Stopped
    }
}

struct Conversation<'a> {
    server: &'a Server,
    registration: &'a Registration,
    stream: Socket,
    reader: FrameReader,
    connection: Connection,
    /// What the other end proved when it came in.
    proof: Box<Proof>,
    /// Room for the message that is being read, when it is not small, and since when; a wait of ours is not counted.
    room: Option<Box<(Room, Instant)>>,
    /// When the message that is being read has to be complete.
    complete_by: Option<Instant>,
    /// When somebody was here last: the upgrade, then each message.
    quiet_since: Timestamp,
    /// A ping went out, and nothing came since.
    is_pinged: bool,
}

/// Serves an upgraded connection to its end.
pub(super) async fn serve(
    server: &Server,
    stream: Socket,
    reader: FrameReader,
    proof: Box<Proof>,
    registration: &Registration,
) {
    let _open = server.traffic.websockets.hold();
    let mut conversation = Conversation {
        server,
        registration,
        stream,
        reader,
        connection: Connection::new(registration.id, Transport::WebSocket).proving(proof.labels.clone()),
        proof,
        room: None,
        complete_by: None,
        quiet_since: server.clock.now(),
        is_pinged: false,
    };
    let Err(ending) = conversation.talk().await;
    conversation.room = None;
    if !matches!(ending, Ending::Stopped) {
        conversation.connection.handle_close();
        // When nobody listens any more, nobody has to know.
        let _told = server.deliver(&mut conversation.connection, &registration.link, None, |_| false).await;
    }
    match ending {
        Ending::Close(close) | Ending::Answered(close) => drop(part(conversation.stream, &close).await),
        Ending::Stopped => drop(part(conversation.stream, &Close::new(CloseCode::Away, "the server stops")).await),
        Ending::Moved(id) => {
            let close = Close::new(CloseCode::Policy, "the agent speaks over another connection");
            if part(conversation.stream, &close).await {
                server.links.still_there(id, registration.id, server.clock.now());
            }
        }
        Ending::Lost => {}
    }
}

/// Says the last word and waits a moment for the client's, so that it reads ours instead of a reset. True when there was one: somebody
/// is at the other end.
async fn part(mut stream: Socket, close: &Close) -> bool {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
    const MOST_READ: usize = 256 * 1024;
    let mut frame = OutFrame::close(close);
    let mut read = 0;
    let parting = async {
        while would_block(frame.write(&mut stream))? != Some(true) {
            stream.writable().await?;
        }
        stream.shutdown().await?;
        while read < MOST_READ {
            stream.readable().await?;
            let more = discard(&mut stream)?;
            if more == Some(0) {
                break;
            }
            read += more.unwrap_or_default();
        }
        Ok::<_, io::Error>(())
    };
    // The connection is over either way.
    let _outcome = timeout(PATIENCE, parting).await;
    read > 0
}

fn discard(stream: &mut Socket) -> io::Result<Option<usize>> {
    would_block(stream.try_read(&mut [0; 4096]))
}

/// `None` when the socket was not ready after all.
fn would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(outcome) => Ok(Some(outcome)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

impl Conversation<'_> {
    /// Reads, hands on and writes until something ends it.
    async fn talk(&mut self) -> Result<std::convert::Infallible, Ending> {
        loop {
            loop {
                match self.reader.next(self.server.options.rules.limits.message_bytes) {
                    Ok(Some(incoming)) => self.take(incoming).await?,
                    Ok(None) => break,
                    Err(close) => {
                        if close.code == CloseCode::Size {
                            self.server.traffic.oversized.one();
                        }
                        return Err(close.into());
                    }
                }
            }
            self.make_room().await?;
            self.listen()?;
            self.send().await?;
            self.wait().await?;
        }
    }

    /// One frame or message of the client.
    async fn take(&mut self, incoming: Incoming) -> Result<(), Ending> {
        self.is_pinged = false;
        match incoming {
            Incoming::Message(message) => self.take_message(message).await,
            Incoming::Ping(payload) => {
                self.connection.handle_sign_of_life(self.server.clock.now());
                self.write(OutFrame::pong(payload)).await
            }
            Incoming::Pong => {
                self.connection.handle_sign_of_life(self.server.clock.now());
                Ok(())
            }
            Incoming::Close(code) => {
                let code = code.map(CloseCode::from).filter(|code| code.is_allowed()).unwrap_or(CloseCode::Normal);
                Err(Ending::Answered(Close::new(code, "")))
            }
        }
    }

    async fn take_message(&mut self, message: Bytes) -> Result<(), Ending> {
        let traffic = &self.server.traffic;
        traffic.messages_in.one();
        traffic.bytes_in.add(message.len());
        match self.server.hear(&mut self.connection, message) {
            Heard::From(_) | Heard::Stranger | Heard::Duplicate(_) => self.quiet_since = self.server.clock.now(),
            Heard::Crowded | Heard::Flooded(_) | Heard::NoIdentity | Heard::Refused(_) => {
                traffic.messages_refused.one();
            }
        }
        self.room = None;
        self.complete_by = None;
        // What is offered depends on the labels: until the daemon has seen the new ones, the slot must not be used.
        let link = &self.registration.link;
        let verdict = self
            .server
            .deliver(&mut self.connection, link, self.proof.origins(), |report| report.labels.is_some())
            .await?;
        if let Some(verdict) = verdict {
            // Fired or dropped: in both cases nothing more will follow.
            let _settled = verdict.receiver.await;
        }
        self.listen()?;
        self.send().await?;
        if self.connection.is_shunned() {
            return Err(Close::new(CloseCode::Policy, "this instance_uid belongs to somebody else").into());
        }
        if self.connection.is_hopeless() {
            self.server.traffic.broken.one();
            return Err(Close::new(CloseCode::Protocol, "too many malformed messages").into());
        }
        Ok(())
    }

    /// Takes what the daemon put into the slot.
    fn listen(&mut self) -> Result<(), Ending> {
        for (id, word) in self.registration.link.take() {
            match word {
                Word::Offer(offer) => self.connection.handle_offer(id, offer),
                Word::Withdraw => self.connection.handle_withdraw(id),
                Word::Restart => self.connection.handle_restart(id),
                Word::Moved => {
                    let was_all = self.connection.is_only(id);
                    self.connection.handle_moved(id);
                    if was_all {
                        return Err(Ending::Moved(id));
                    }
                }
            }
        }
        let is_over = self.proof.expires.is_some_and(|end| end <= self.server.clock.wall());
        if (is_over || self.registration.link.take_doubt())
            && !self.server.trusts(self.stream.peer_certificates(), &self.proof)
        {
            self.server.traffic.gate.revoked.one();
            return Err(Close::new(CloseCode::Policy, "what was proved does not count any more").into());
        }
        if self.registration.link.is_over() { Err(Ending::Stopped) } else { Ok(()) }
    }

    /// Sends what is owed.
    async fn send(&mut self) -> Result<(), Ending> {
        while let Some(out) = self.connection.poll_transmit(self.server.clock.now()) {
            let traffic = &self.server.traffic;
            traffic.messages_out.one();
            traffic.bytes_out.add(out.len());
            if out.shared.is_some() {
                traffic.offers_out.one();
            }
            self.write(OutFrame::message(out.head, out.shared)).await?;
        }
        Ok(())
    }

    async fn write(&mut self, mut frame: OutFrame) -> Result<(), Ending> {
        let mut waits_since = None;
        loop {
            match would_block(frame.write(&mut self.stream)) {
                Ok(Some(true)) => {
                    // Nothing was read meanwhile, which is not the fault of who sends.
                    if let (Some(waits_since), Some(room)) = (waits_since, &mut self.room) {
                        room.1 += Instant::now().duration_since(waits_since);
                    }
                    return Ok(());
                }
                Ok(Some(false)) => {}
                Ok(None) => {
                    let deadline = *waits_since.get_or_insert_with(Instant::now) + self.server.options.write_timeout;
                    // Whoever has room, or is given some meanwhile, keeps it no longer by not reading.
                    let ends = self.complete_by.filter(|_| self.reader.is_large());
                    let deadline = ends.map_or(deadline, |ends| ends.min(deadline));
                    match timeout_at(deadline, self.stream.writable()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Err(Ending::Lost),
                        Err(_) => {
                            self.server.traffic.deaf.one();
                            return Err(Ending::Lost);
                        }
                    }
                }
                Err(_) => return Err(Ending::Lost),
            }
        }
    }

    /// Finds room for the message that is being read, before memory is taken for more than the first of it.
    async fn make_room(&mut self) -> Result<(), Ending> {
        if !self.reader.is_within_message() {
            self.complete_by = None;
            return Ok(());
        }
        let complete_by = *self.complete_by.get_or_insert_with(|| Instant::now() + self.server.options.message_timeout);
        if self.room.is_some() || !self.reader.is_large() {
            return Ok(());
        }
        // In a box of its own: most connections never ask.
        Box::pin(self.await_room(complete_by)).await
    }

    /// Waits for that room no longer than for the message, and says meanwhile what there is to say: others of its origin decide when there
    /// is some.
    async fn await_room(&mut self, complete_by: Instant) -> Result<(), Ending> {
        // Fragments do not tell how many will follow: room for as much as they may come to.
        let needed = self.server.options.rules.limits.message_bytes.max(self.reader.announced());
        let needed = if self.reader.is_in_fragments() { needed } else { self.reader.announced() };
        let mut room = pin!(self.server.room_for(needed, self.proof.origins()));
        loop {
            tokio::select! {
                biased;
                room = room.as_mut() => {
                    self.room = room.map(|room| Box::new((room, Instant::now())));
                    return Ok(());
                }
                () = self.registration.link.wake.notified() => {
                    self.listen()?;
                    self.send().await?;
                }
                () = sleep_until(complete_by) => return Err(self.too_slow()),
            }
        }
    }

    fn too_slow(&self) -> Ending {
        let traffic = &self.server.traffic;
        let count = if self.room.is_some() { &traffic.slow } else { &traffic.broken };
        count.one();
        Close::new(CloseCode::Policy, "the message came too slowly").into()
    }

    /// When the message that is being read is too slow, if nothing more of it comes.
    fn slow_at(&self) -> Option<Instant> {
        let complete_by = self.complete_by?;
        let Some((_, since)) = self.room.as_deref() else { return Some(complete_by) };
        // Of fragments nobody knows how many follow.
        let total = Some(self.reader.announced()).filter(|_| !self.reader.is_in_fragments());
        let time = complete_by.saturating_duration_since(*since);
        Some(*since + self.server.options.pace.suffices(self.reader.arrived(), total, time))
    }

    /// Waits until there is something to read, something to say, or nothing for too long.
    async fn wait(&mut self) -> Result<(), Ending> {
        let patience_ends = self.slow_at().unwrap_or_else(|| self.server.clock.instant(self.silent_at()));
        let ping = self.connection.poll_ping(&self.server.options.rules).filter(|_| !self.is_pinged);
        let ping = ping.map(|at| self.server.clock.instant(at)).filter(|at| *at < patience_ends);
        // What was proved ends meanwhile; the next turn says so.
        let ends = self.proof.expires.map(|end| self.server.clock.instant_of_wall(end));
        let ends = ends.filter(|end| *end < ping.unwrap_or(patience_ends));
        tokio::select! {
            biased;
            () = self.registration.link.wake.notified() => Ok(()),
            readable = self.stream.readable() => match readable.and_then(|()| would_block(self.reader.fill(&mut self.stream, self.room.is_some()))) {
                Ok(Some(0)) | Err(_) => Err(Ending::Lost),
                Ok(Some(_) | None) => Ok(()),
            },
            () = sleep_until(ends.or(ping).unwrap_or(patience_ends)) => match ping {
                _ if ends.is_some() => Ok(()),
                Some(_) => {
                    self.is_pinged = true;
                    self.write(OutFrame::ping()).await
                }
                None => self.judge_silence().await,
            },
        }
    }

    /// When the next agent, or a connection without agents, has been silent for too long.
    fn silent_at(&self) -> Timestamp {
        let options = &self.server.options;
        self.connection.poll_timeout(&options.rules).unwrap_or(self.quiet_since + options.first_message_timeout)
    }

    async fn judge_silence(&mut self) -> Result<(), Ending> {
        if self.complete_by.is_some() {
            return Err(self.too_slow());
        }
        let (now, before) = (self.server.clock.now(), self.connection.agents());
        self.connection.handle_timeout(now, &self.server.options.rules);
        // A verdict is never awaited for somebody who left.
        let _no_verdict = self.server.deliver(&mut self.connection, &self.registration.link, None, |_| false).await?;
        if self.connection.agents() > 0 || (before == 0 && now < self.silent_at()) {
            return Ok(());
        }
        self.server.traffic.silent.one();
        Err(Close::new(CloseCode::Policy, "nothing was heard for too long").into())
    }
}
