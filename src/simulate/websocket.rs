//! Agents on a WebSocket: frames in, frames out, on buffers that all connections of the thread share.
//!
//! A library's WebSocket keeps a read and a write buffer for each connection, as large as the largest message that ever
//! passed; with 19,000 agents that took one configuration each, that is most of a gigabyte. Here a connection owns memory
//! only while a frame is incomplete in either direction.

use std::future::{Future, poll_fn};
use std::io::{self, Cursor, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::opamp::proto;
use crate::serve::socket::Socket;
use crate::simulate::conversation::Conversation;
use crate::simulate::fleet::{Parting, Shared, Stop};
use crate::time::Timestamp;

/// The longest message from a server, as real clients have it.
const LONGEST_MESSAGE_BYTES: usize = 64 << 20;

/// How long a client that closes waits for the server's word.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// The OpAMP header of a message: a varint of value zero.
const HEADER: u8 = 0;

/// The buffers that all connections of a thread share. Nothing stays in them while a task waits.
pub(super) struct Scratch {
    read: Box<[u8]>,
    write: Vec<u8>,
}

impl Scratch {
    /// Room for one read of 64 KiB, and for any message to write.
    pub(super) fn new() -> Self {
        Self { read: vec![0; 64 << 10].into_boxed_slice(), write: Vec::new() }
    }
}

/// Lets the agents talk until either side ends the connection, or `drop_at` comes.
pub(super) async fn converse(
    stream: Socket,
    leftover: Bytes,
    conversation: &mut Conversation,
    shared: &Shared,
    drop_at: Option<Timestamp>,
) -> Parting {
    let mut link = Link { stream, partial: Vec::new(), unsent: Vec::new(), fragments: Vec::new() };
    let mut stop = shared.stop.clone();
    let mut stopped = pin!(stop.wait_for(|stop| *stop != Stop::No));
    let mut timer = pin!(sleep(Duration::ZERO));
    let now = shared.clock.now();
    conversation.handle_connected(shared, now);
    if !leftover.is_empty()
        && let Err(parting) = link.take(&leftover, conversation, shared, now)
    {
        return parting;
    }
    loop {
        let now = shared.clock.now();
        if drop_at.is_some_and(|at| at <= now) {
            return Parting::Dropped;
        }
        while link.unsent.is_empty()
            && let Some(message) = conversation.poll_message(shared, now)
        {
            if let Err(error) = link.send(&message, shared) {
                return Parting::Failed(error.to_string());
            }
        }
        let due = conversation.poll_timeout().filter(|_| link.unsent.is_empty()).into_iter().chain(drop_at).min();
        let wake = due.map(|due| shared.clock.instant(due));
        arm(timer.as_mut(), wake);
        let deaf = conversation.is_deaf();
        let woken = poll_fn(|cx| {
            if let Poll::Ready(stop) = stopped.as_mut().poll(cx) {
                return Poll::Ready(Woken::Stop(stop.map_or(Stop::AtOnce, |stop| *stop)));
            }
            if let Poll::Ready(written) = link.poll_unsent(cx) {
                return Poll::Ready(Woken::Written(written));
            }
            if !deaf && let Poll::Ready(read) = link.poll_read(cx, shared) {
                return Poll::Ready(Woken::Read(read));
            }
            if wake.is_some() { timer.as_mut().poll(cx).map(|()| Woken::Due) } else { Poll::Pending }
        })
        .await;
        match woken {
            Woken::Due | Woken::Written(Ok(())) => {}
            Woken::Written(Err(error)) | Woken::Read(Err(error)) => return Parting::Failed(error.to_string()),
            Woken::Read(Ok(0)) => return Parting::Failed("the server closed the connection without a word".to_owned()),
            Woken::Read(Ok(length)) => {
                let now = shared.clock.now();
                let scratch = std::mem::take(&mut shared.scratch.borrow_mut().read);
                let taken = link.take(scratch.get(..length).unwrap_or_default(), conversation, shared, now);
                shared.scratch.borrow_mut().read = scratch;
                if let Err(parting) = taken {
                    return parting;
                }
            }
            Woken::Stop(Stop::Goodbye) => {
                timeout(CLOSE_PATIENCE, link.say_goodbye(conversation, shared)).await.ok();
                return Parting::Stopped;
            }
            Woken::Stop(Stop::AtOnce | Stop::No) => return Parting::Stopped,
        }
    }
}

enum Woken {
    Stop(Stop),
    Read(io::Result<usize>),
    Written(io::Result<()>),
    Due,
}

/// Sets the timer only when it would ring too late or has rung: ringing early costs less than setting it for each message.
fn arm(timer: Pin<&mut Sleep>, wake: Option<Instant>) {
    if let Some(wake) = wake
        && (timer.is_elapsed() || wake < timer.deadline())
    {
        timer.reset(wake);
    }
}

struct Link {
    stream: Socket,
    /// The beginning of a frame whose end has not arrived.
    partial: Vec<u8>,
    /// What the socket did not take yet. As long as there is some, the agents are not asked for more.
    unsent: Vec<u8>,
    /// The beginning of a message in several frames.
    fragments: Vec<u8>,
}

impl Link {
    /// Encodes, masks and sends a message, as much of it as the socket takes.
    fn send(&mut self, message: &proto::AgentToServer, shared: &Shared) -> io::Result<()> {
        let mut scratch = shared.scratch.borrow_mut();
        let frame = &mut scratch.write;
        frame.clear();
        let length = 1 + message.encoded_len();
        let start = begin_frame(frame, OpCode::Data(Data::Binary), length, shared)?;
        frame.push(HEADER);
        message.encode(frame).map_err(io::Error::other)?;
        mask(frame, start);
        self.write(frame)
    }

    fn send_control(&mut self, control: Control, payload: &[u8], shared: &Shared) -> io::Result<()> {
        let mut frame = Vec::with_capacity(payload.len() + 6);
        let start = begin_frame(&mut frame, OpCode::Control(control), payload.len(), shared)?;
        frame.extend_from_slice(payload);
        mask(&mut frame, start);
        self.write(&frame)
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.unsent.is_empty() && !bytes.is_empty() {
            match self.stream.try_write_vectored(&[IoSlice::new(bytes)]) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    /// Ready when what had not been sent has been; pending as long as there is nothing to do.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return if self.stream.is_behind() { Pin::new(&mut self.stream).poll_flush(cx) } else { Poll::Pending };
        }
        let mut sent = 0;
        while let Some(rest) = self.unsent.get(sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(written)) => sent += written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.unsent.drain(..sent);
                    return Poll::Pending;
                }
            }
        }
        self.unsent = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Reads into the shared buffer. The caller has to take the bytes before it waits for anything.
    fn poll_read(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<io::Result<usize>> {
        let mut scratch = shared.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch.read);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Takes bytes from the socket and hands the messages in them to the agents.
    fn take(
        &mut self,
        bytes: &[u8],
        conversation: &mut Conversation,
        shared: &Shared,
        now: Timestamp,
    ) -> Result<(), Parting> {
        if self.partial.is_empty() {
            let taken = self.take_frames(bytes, conversation, shared, now)?;
            self.partial.extend_from_slice(bytes.get(taken..).unwrap_or_default());
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let taken = self.take_frames(&all, conversation, shared, now)?;
        if taken < all.len() {
            all.drain(..taken);
            self.partial = all;
        }
        Ok(())
    }

    /// Takes all complete frames; returns how many bytes they had.
    fn take_frames(
        &mut self,
        bytes: &[u8],
        conversation: &mut Conversation,
        shared: &Shared,
        now: Timestamp,
    ) -> Result<usize, Parting> {
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let mut cursor = Cursor::new(rest);
            let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(broken)? else { return Ok(taken) };
            let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST_MESSAGE_BYTES);
            let length = length.ok_or_else(|| broken("a frame of more than 64 MiB"))?;
            let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            let Some(payload) = rest.get(start..).and_then(|rest| rest.get(..length)) else { return Ok(taken) };
            taken += start + length;
            if header.mask.is_some() || header.rsv1 || header.rsv2 || header.rsv3 {
                return Err(broken("a frame that no server may send"));
            }
            match header.opcode {
                OpCode::Data(Data::Binary) if header.is_final && self.fragments.is_empty() => {
                    take_message(payload, conversation, shared, now)?;
                }
                OpCode::Data(Data::Binary | Data::Continue) => {
                    if self.fragments.len() + payload.len() > LONGEST_MESSAGE_BYTES {
                        return Err(broken("a message of more than 64 MiB"));
                    }
                    self.fragments.extend_from_slice(payload);
                    if header.is_final {
                        take_message(&std::mem::take(&mut self.fragments), conversation, shared, now)?;
                    }
                }
                OpCode::Control(Control::Ping) => {
                    self.send_control(Control::Pong, payload, shared)
                        .map_err(|error| Parting::Failed(error.to_string()))?;
                }
                OpCode::Control(Control::Pong) => {}
                OpCode::Control(Control::Close) => {
                    self.send_control(Control::Close, payload, shared).ok(); // the end is the same if it cannot be told
                    return Err(Parting::Closed(close_reason(payload)));
                }
                OpCode::Data(Data::Text | Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                    return Err(broken("a frame that is not binary"));
                }
            }
        }
    }

    /// Says goodbye for every agent, closes, and waits until the server has closed too.
    async fn say_goodbye(&mut self, conversation: &mut Conversation, shared: &Shared) {
        let now = shared.clock.now();
        for message in conversation.goodbyes(now) {
            if self.send(&message, shared).is_err() {
                return;
            }
        }
        let normal: u16 = 1000;
        if self.send_control(Control::Close, &normal.to_be_bytes(), shared).is_err() {
            return;
        }
        poll_fn(|cx| {
            if let Poll::Ready(Err(_)) = self.poll_unsent(cx) {
                return Poll::Ready(());
            }
            loop {
                match ready!(self.poll_read(cx, shared)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {} // answers to the goodbyes, and the server's own close
                }
            }
        })
        .await;
    }
}

/// Writes a frame's header with a fresh mask; returns where the payload starts.
fn begin_frame(frame: &mut Vec<u8>, opcode: OpCode, length: usize, shared: &Shared) -> io::Result<usize> {
    let mask = shared.random.borrow_mut().u32(..).to_ne_bytes();
    let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
    header.format(length as u64, frame).map_err(io::Error::other)?;
    Ok(frame.len())
}

/// Masks the payload with the key that stands before it: eight bytes at a time, because agents report whole configurations.
fn mask(frame: &mut [u8], start: usize) {
    let (header, payload) = frame.split_at_mut(start);
    let Some([a, b, c, d]) = header.last_chunk::<4>().copied() else { return };
    let key = [a, b, c, d, a, b, c, d];
    let wide = u64::from_ne_bytes(key);
    let (blocks, rest) = payload.as_chunks_mut::<8>();
    for block in blocks {
        *block = (u64::from_ne_bytes(*block) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

fn take_message(
    payload: &[u8],
    conversation: &mut Conversation,
    shared: &Shared,
    now: Timestamp,
) -> Result<(), Parting> {
    let message = match payload.split_first() {
        Some((&HEADER, data)) => {
            proto::ServerToAgent::decode(data).map_err(|_| broken("a message that does not decode"))
        }
        Some(_) | None => Err(broken("a message without the zero header")),
    };
    match message {
        Ok(message) => {
            conversation.handle(message, shared, now);
            Ok(())
        }
        Err(parting) => {
            shared.tally.borrow_mut().counts().malformed += 1;
            Err(parting)
        }
    }
}

fn broken(what: impl std::fmt::Display) -> Parting {
    Parting::Failed(format!("the server sent {what}"))
}

fn close_reason(payload: &[u8]) -> String {
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => {
            let reason: String =
                String::from_utf8_lossy(reason).chars().filter(|letter| !letter.is_control()).take(100).collect();
            format!("the server closed with {} {reason}", u16::from_be_bytes(*code)).trim_end().to_owned()
        }
        None => "the server closed".to_owned(),
    }
}
