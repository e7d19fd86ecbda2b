//! A receiver of alerts that keeps what it was told, and answers as the test wants.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use serde_json::Value;

use super::wait_for;

/// An answer instead of `200 ok`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mood {
    /// This status, and these headers.
    Says(u16, &'static str),
    /// It takes the request and says nothing until the other end gives up.
    Hangs,
}

/// A message that came.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) at: Instant,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub(crate) fn event(&self) -> String {
        self.json()["event"].as_str().unwrap_or_default().to_owned()
    }
}

#[derive(Default)]
struct Memory {
    moods: VecDeque<Mood>,
    messages: Vec<Message>,
}

/// A receiver on loopback; it ends with the test's process, its threads wait in `accept` until then.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let memory = Arc::new(Mutex::new(Memory::default()));
        let served = Arc::clone(&memory);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let memory = Arc::clone(&served);
                // What goes wrong with one connection is seen by whoever wrote.
                std::thread::spawn(move || answer(stream, &memory).unwrap_or_default());
            }
        });
        Self { address, memory }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no thread panics with it")
    }

    /// The next messages get these answers, one each.
    pub(crate) fn then(&self, moods: impl IntoIterator<Item = Mood>) {
        self.memory().moods.extend(moods);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// What came to this path.
    pub(crate) fn messages(&self, path: &str) -> Vec<Message> {
        let path = format!("/{path}");
        self.memory().messages.iter().filter(|message| message.path == path).cloned().collect()
    }

    /// The bodies of all that came, wherever to.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.memory().messages.iter().map(|message| message.body.clone()).collect()
    }

    pub(crate) fn events(&self, path: &str) -> Vec<String> {
        self.messages(path).iter().map(Message::event).collect()
    }

    /// Waits until so many messages have come to this path; the last one.
    pub(crate) fn wait(&self, path: &str, count: usize) -> Message {
        wait_for(&format!("message {count} to {path}"), || {
            let messages = self.messages(path);
            if messages.len() >= count { Ok(messages[count - 1].clone()) } else { Err(messages) }
        })
    }
}

fn answer(mut stream: TcpStream, memory: &Mutex<Memory>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.trim().split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let mood = {
        let mut memory = memory.lock().map_err(|_| std::io::Error::other("a thread panicked"))?;
        memory.messages.push(Message { at: super::now(), path, headers, body });
        memory.moods.pop_front()
    };
    let (status, headers) = match mood {
        Some(Mood::Hangs) => {
            // Until the other end gives up.
            let _ended = reader.read(&mut [0]);
            return Ok(());
        }
        Some(Mood::Says(status, headers)) => (status, headers),
        None => (200, ""),
    };
    stream.write_all(
        format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: 2\r\nConnection: close\r\n\r\nok").as_bytes(),
    )
}
