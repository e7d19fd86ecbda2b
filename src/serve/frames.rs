//! WebSocket frames on memory that a connection owns only while a message is incomplete.
//!
//! Headers are read and written by tungstenite; its sockets are not used, because they keep a read and a write buffer for each
//! connection, as large as the largest message that ever passed: with 19,000 agents most of a gigabyte. An idle connection
//! here has no buffer at all, and what is sent to many is never copied for one.

use std::io::{self, Cursor, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::socket::Socket;

/// Bytes that one look at a socket takes at most, on the stack of the call.
const SCRATCH: usize = 16 * 1024;

/// So much of a message is read without asking for room: heartbeats and most reports are not larger. Whoever wants more has to have sent that.
pub(super) const SMALL_MESSAGE: usize = 8 * 1024;

/// The longest header of a frame.
const LONGEST_HEADER: usize = 14;

/// Why a connection has to be closed, in the words of RFC 6455.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The code of the RFC.
    pub code: CloseCode,
    /// The same in words.
    pub reason: &'static str,
}

impl Close {
    pub(super) const fn new(code: CloseCode, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A whole binary message.
    Message(Bytes),
    /// A ping, to be answered with the same bytes.
    Ping(Bytes),
    /// A pong: a sign of life.
    Pong,
    /// The client closes, with its code if it gave one.
    Close(Option<u16>),
}

/// Collects bytes until a message is complete.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
    header: Option<(FrameHeader, usize)>,
    fragments: Option<BytesMut>,
}

impl FrameReader {
    /// A reader to which these bytes came already, behind the request that was upgraded.
    pub fn new(leftover: &[u8]) -> Self {
        Self { buffer: BytesMut::from(leftover), ..Self::default() }
    }

    /// True while a message has begun and is not complete.
    pub(super) fn is_within_message(&self) -> bool {
        self.fragments.is_some() || self.header.is_some() || !self.buffer.is_empty()
    }

    /// True when the message comes in several frames, of which this may be the first.
    pub(super) fn is_in_fragments(&self) -> bool {
        self.fragments.is_some() || self.header.as_ref().is_some_and(|(header, _)| !header.is_final)
    }

    /// Bytes that the message will take which is being read, as far as it says so.
    pub(super) fn announced(&self) -> usize {
        let fragments = self.fragments.as_ref().map_or(0, BytesMut::len);
        fragments + self.header.as_ref().map_or(0, |(_, length)| *length)
    }

    /// Bytes of that message that are there.
    pub(super) fn arrived(&self) -> usize {
        self.fragments.as_ref().map_or(0, BytesMut::len) + self.buffer.len()
    }

    /// True when more of the message is there than is read without asking for room.
    pub(super) fn is_large(&self) -> bool {
        self.announced().min(self.arrived()) > SMALL_MESSAGE
    }

    /// Takes what the socket has. `Ok(0)` is the end. `has_room`: there is some for all that was announced; without it no more is taken than shows
    /// that some is needed, because nobody counts it.
    pub(super) fn fill(&mut self, stream: &mut Socket, has_room: bool) -> io::Result<usize> {
        if let Some((_, length)) = &self.header
            && has_room
            && *length > SMALL_MESSAGE
        {
            // The rest of a large frame goes straight to its place.
            self.buffer.reserve(length.saturating_sub(self.buffer.len()).max(1));
            return stream.try_read_buf(&mut self.buffer);
        }
        let mut scratch = [0; SCRATCH];
        let uncounted = (SMALL_MESSAGE + LONGEST_HEADER + 1).saturating_sub(self.arrived()).max(1);
        let most = if has_room { SCRATCH } else { uncounted };
        let read = stream.try_read(&mut scratch[..most])?;
        self.buffer.extend_from_slice(&scratch[..read]);
        Ok(read)
    }

    /// The next thing that is complete. Call until it returns `None`, then fill again.
    ///
    /// # Errors
    /// When the client breaks the protocol or a limit: the connection is to be closed so.
    pub fn next(&mut self, most_bytes: usize) -> Result<Option<Incoming>, Close> {
        loop {
            let Some(length) = self.header(most_bytes)? else { return Ok(None) };
            if self.buffer.len() < length {
                return Ok(None);
            }
            let Some((header, _)) = self.header.take() else { return Ok(None) };
            let mut payload = self.buffer.split_to(length);
            // What is left of the buffer must not keep the memory of the message that was in it.
            self.buffer = if self.buffer.is_empty() { BytesMut::new() } else { BytesMut::from(&self.buffer[..]) };
            unmask(&mut payload, header.mask.unwrap_or_default());
            if let Some(incoming) = self.take(&header, payload)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// The length of the frame at the front of the buffer, once its header is there and allowed.
    fn header(&mut self, most_bytes: usize) -> Result<Option<usize>, Close> {
        if let Some((_, length)) = &self.header {
            return Ok(Some(*length));
        }
        let mut cursor = Cursor::new(&self.buffer[..]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| protocol("a frame of a kind that does not exist"))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let taken = cursor.position() as usize;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(protocol("an extension is used that was not negotiated"));
        }
        if header.mask.is_none() {
            return Err(protocol("a frame of a client is not masked"));
        }
        let before = self.fragments.as_ref().map_or(0, BytesMut::len);
        let length = usize::try_from(length).ok().filter(|length| before.saturating_add(*length) <= most_bytes);
        let Some(length) = length else {
            return Err(Close::new(CloseCode::Size, "the message is larger than this server takes"));
        };
        match header.opcode {
            OpCode::Control(_) if length > 125 || !header.is_final => {
                return Err(protocol("a control frame is too large"));
            }
            OpCode::Control(_) | OpCode::Data(_) => {}
        }
        self.buffer.advance(taken);
        self.header = Some((header, length));
        Ok(Some(length))
    }

    fn take(&mut self, header: &FrameHeader, payload: BytesMut) -> Result<Option<Incoming>, Close> {
        match header.opcode {
            OpCode::Control(Control::Ping) => Ok(Some(Incoming::Ping(payload.freeze()))),
            OpCode::Control(Control::Pong) => Ok(Some(Incoming::Pong)),
            OpCode::Control(Control::Close) => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                Ok(Some(Incoming::Close(code)))
            }
            OpCode::Data(Data::Text) => {
                Err(Close::new(CloseCode::Unsupported, "OpAMP speaks in binary messages, not in text"))
            }
            OpCode::Data(Data::Binary) => match (self.fragments.is_some(), header.is_final) {
                (true, _) => Err(protocol("a message begins within another")),
                (false, true) => Ok(Some(Incoming::Message(payload.freeze()))),
                (false, false) => {
                    self.fragments = Some(payload);
                    Ok(None)
                }
            },
            OpCode::Data(Data::Continue) => {
                let Some(mut whole) = self.fragments.take() else {
                    return Err(protocol("a message continues that never began"));
                };
                whole.unsplit(payload);
                if header.is_final {
                    return Ok(Some(Incoming::Message(whole.freeze())));
                }
                self.fragments = Some(whole);
                Ok(None)
            }
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                Err(protocol("a frame of a kind that does not exist"))
            }
        }
    }
}

const fn protocol(reason: &'static str) -> Close {
    Close::new(CloseCode::Protocol, reason)
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let mut words = payload.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// A frame on its way to a client: a header and two parts, none of them copied.
#[derive(Debug)]
pub(super) struct OutFrame {
    header: Bytes,
    head: Bytes,
    shared: Bytes,
}

impl OutFrame {
    /// A binary message in one frame. Frames of a server are not masked.
    pub(super) fn message(head: Bytes, shared: Option<Bytes>) -> Self {
        Self::new(OpCode::Data(Data::Binary), head, shared.unwrap_or_default())
    }

    /// A question for a sign of life.
    pub(super) fn ping() -> Self {
        Self::new(OpCode::Control(Control::Ping), Bytes::new(), Bytes::new())
    }

    /// The answer to a ping.
    pub(super) fn pong(payload: Bytes) -> Self {
        Self::new(OpCode::Control(Control::Pong), payload, Bytes::new())
    }

    /// The end of the connection.
    pub(super) fn close(close: &Close) -> Self {
        let code = u16::from(close.code).to_be_bytes();
        let payload = [&code[..], close.reason.as_bytes()].concat();
        Self::new(OpCode::Control(Control::Close), payload.into(), Bytes::new())
    }

    fn new(opcode: OpCode, head: Bytes, shared: Bytes) -> Self {
        let header = FrameHeader { is_final: true, rsv1: false, rsv2: false, rsv3: false, opcode, mask: None };
        let mut bytes = Vec::with_capacity(10);
        // Writing to a vector cannot fail.
        let _written = header.format((head.len() + shared.len()) as u64, &mut bytes);
        Self { header: bytes.into(), head, shared }
    }

    fn is_taken(&self) -> bool {
        self.header.is_empty() && self.head.is_empty() && self.shared.is_empty()
    }

    /// Writes as much as the socket takes now. True when all of it has left.
    pub(super) fn write(&mut self, stream: &mut Socket) -> io::Result<bool> {
        if !self.is_taken() {
            self.write_some(stream)?;
        }
        if self.is_taken() {
            stream.try_flush()?;
        }
        Ok(self.is_taken())
    }

    fn write_some(&mut self, stream: &mut Socket) -> io::Result<()> {
        let slices = [IoSlice::new(&self.header), IoSlice::new(&self.head), IoSlice::new(&self.shared)];
        let mut rest = stream.try_write_vectored(&slices)?;
        for part in [&mut self.header, &mut self.head, &mut self.shared] {
            let here = rest.min(part.len());
            part.advance(here);
            rest -= here;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
