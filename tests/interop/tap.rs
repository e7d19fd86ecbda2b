//! A wire between an agent and the daemon that writes down every WebSocket message, in the order in which they pass.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use gitamp::opamp::proto::{AgentToServer, ServerToAgent};
use prost::Message as _;

/// One message, with its OpAMP header.
pub(crate) struct Message {
    pub(crate) from_agent: bool,
    pub(crate) bytes: Vec<u8>,
}

type Recording = Arc<Mutex<Vec<Message>>>;

/// The wire. Its threads end with the connections that they carry.
pub(crate) struct Tap {
    address: SocketAddr,
    recording: Recording,
    connections: Arc<AtomicUsize>,
}

impl Tap {
    /// Takes connections on a port of its own and carries them to `to`.
    pub(crate) fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let tap = Self {
            address: listener.local_addr().expect("an address"),
            recording: Recording::default(),
            connections: Arc::default(),
        };
        let (recording, connections) = (Arc::clone(&tap.recording), Arc::clone(&tap.connections));
        thread::spawn(move || {
            for agent in listener.incoming().flatten() {
                // While the daemon is away its agents are refused, as they would be without a tap.
                if let Ok(daemon) = TcpStream::connect(to) {
                    connections.fetch_add(1, Ordering::Relaxed);
                    let copy = |socket: &TcpStream| socket.try_clone().expect("a second handle");
                    carry(copy(&agent), copy(&daemon), true, Arc::clone(&recording));
                    carry(daemon, agent, false, Arc::clone(&recording));
                }
            }
        });
        tap
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often an agent connected.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many configurations were offered over this wire.
    pub(crate) fn offers(&self) -> usize {
        let is_offer = |message: &&Message| {
            let read = ServerToAgent::decode(&message.bytes[1..]).expect("our own messages are sound");
            read.remote_config.is_some()
        };
        self.messages().iter().filter(|message| !message.from_agent).filter(is_offer).count()
    }

    /// How many of the agent's messages said nothing but that it is there.
    pub(crate) fn heartbeats(&self) -> usize {
        let is_heartbeat = |message: &&Message| {
            let read = AgentToServer::decode(&message.bytes[1..]).expect("a real agent's messages are sound");
            let bare = AgentToServer {
                instance_uid: read.instance_uid.clone(),
                sequence_num: read.sequence_num,
                capabilities: read.capabilities,
                ..Default::default()
            };
            read == bare
        };
        self.messages().iter().filter(|message| message.from_agent).filter(is_heartbeat).count()
    }

    /// Everything so far, a message a line: `>` from the agent, `<` to it.
    pub(crate) fn transcript(&self) -> String {
        let mut text = String::new();
        for Message { from_agent, bytes } in &*self.messages() {
            let direction = if *from_agent { '>' } else { '<' };
            writeln!(text, "{direction} {}", hex::encode(bytes)).expect("a String takes everything");
        }
        text
    }

    fn messages(&self) -> MutexGuard<'_, Vec<Message>> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, from_agent: bool, recording: Recording) {
    thread::spawn(move || {
        let mut seen = Vec::new();
        let mut is_open = false;
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..length]);
            if !is_open && let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                seen.drain(..end + 4);
                is_open = true;
            }
            while is_open && let Some((opcode, bytes)) = take_frame(&mut seen) {
                // 2: a binary message, never in parts here; the others are pings and farewells.
                if opcode == 2 {
                    recording.lock().unwrap_or_else(PoisonError::into_inner).push(Message { from_agent, bytes });
                }
            }
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        // Whoever is left learns of it; it may be gone already.
        to.shutdown(Shutdown::Both).ok();
        from.shutdown(Shutdown::Both).ok();
    });
}

/// Takes one whole WebSocket frame (RFC 6455, 5.2) from the front, unmasked.
fn take_frame(seen: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (first, second) = (*seen.first()?, *seen.get(1)?);
    assert!(first & 0x80 != 0, "a message in parts: the tap does not read that");
    let (length, mut at) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(seen.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(seen.get(2..10)?.try_into().ok()?) as usize, 10),
        short => (usize::from(short), 2),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        mask.copy_from_slice(seen.get(at..at + 4)?);
        at += 4;
    }
    let payload = seen.get(at..at + length)?;
    let bytes = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    seen.drain(..at + length);
    Some((first & 0x0f, bytes))
}
