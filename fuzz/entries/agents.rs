//! What agents send: messages, frames, effective configurations.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gitamp::agent::{ConnectionId, Transport};
use gitamp::config::{ComponentNames, ConfigHash, RenderedConfig};
use gitamp::opamp::connection::{Connection, Context, Rules};
use gitamp::opamp::{Digest, Lookup, NameCache, Offer, SharedNames, proto, wire};
use gitamp::serve::frames::{FrameReader, Incoming};
use gitamp::time::Timestamp;
use prost::Message;

use super::{NOON, was_harmless};

struct Names(RefCell<NameCache>);

impl SharedNames for Names {
    fn find(&self, digest: Digest) -> Option<Arc<ComponentNames>> {
        self.0.borrow().find(digest)
    }

    fn share(&self, digest: Digest, names: ComponentNames) -> Arc<ComponentNames> {
        self.0.borrow_mut().share(digest, names)
    }

    fn look_up(&self, build: Digest, told: Option<ComponentNames>, ask: Option<Timestamp>) -> Lookup {
        self.0.borrow_mut().look_up(build, told, ask)
    }
}

/// Speaks with an agent that sends these messages: everything that comes of it is drained, what is sent is what a reader reads, and an offer is
/// put in between.
fn converse(transport: Transport, messages: impl IntoIterator<Item = Bytes>) {
    let rules = Rules { most_agents: 4, ..Rules::default() }.offering_heartbeat(Duration::from_secs(20));
    let names = Names(RefCell::new(NameCache::new(16)));
    let mut connection = Connection::new(ConnectionId(1), transport);
    let config =
        RenderedConfig::new(ConfigHash::new([7; 32]), Bytes::from_static(b"name: a\n"), ComponentNames::default());
    let mut now = NOON;
    for message in messages {
        now = now + Duration::from_secs(1);
        let context = Context { now, rules: &rules, names: &names, fresh: [3; 10] };
        let _heard = connection.handle_message(message, &context);
        while let Some(event) = connection.poll_event() {
            let said = format!("{event:?}");
            assert!(was_harmless(&said), "a word that steers the line: {said}");
        }
        if let Some(id) = connection.poll_refused_settings().map(|(id, _)| id) {
            connection.handle_offer(id, Offer { config: config.clone(), retry: false });
        }
        while let Some(out) = connection.poll_transmit(now) {
            let bytes = Bytes::from(out.to_vec());
            let bytes = if transport == Transport::WebSocket { wire::unframe(bytes).expect("framed") } else { bytes };
            proto::ServerToAgent::decode(bytes).expect("what we send can be read");
        }
        connection.handle_timeout(now, &rules);
    }
    connection.handle_close();
    while connection.poll_event().is_some() {}
}

/// Messages of an agent, each behind two bytes with its length, over both transports.
pub fn agent_messages(mut input: &[u8]) {
    let mut messages = Vec::new();
    while let Some((length, rest)) = input.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        messages.push(Bytes::copy_from_slice(message));
        input = rest;
    }
    for message in &messages {
        let _checked = wire::check(message, &wire::Limits::default());
    }
    converse(Transport::Http, messages.iter().cloned());
    converse(Transport::WebSocket, messages.iter().map(|message| [&[0], &message[..]].concat().into()));
    converse(Transport::WebSocket, messages);
}

/// An effective configuration, as the whole of one, or as views of it.
pub fn effective_config(input: &[u8]) {
    let of = |key: &str| {
        let file = proto::AgentConfigObject {
            body: Bytes::copy_from_slice(input),
            content_type: "text/yaml".to_owned(),
            ..Default::default()
        };
        let map = proto::AgentConfigMap { config_map: [(key.to_owned(), file)].into_iter().collect() };
        let message = proto::AgentToServer {
            instance_uid: Bytes::from_static(&[5; 16]),
            capabilities: 0x3c47,
            effective_config: Some(proto::EffectiveConfig { config_map: Some(map) }),
            ..Default::default()
        };
        Bytes::from(message.encode_to_vec())
    };
    converse(Transport::Http, [of(""), of("raw")]);
}

/// Frames of a client, as they come in pieces of different sizes: the pieces change nothing, and no limit is passed.
pub fn frames(input: &[u8]) {
    const MOST: usize = 1 << 12;
    let read = |first: usize| {
        // What came with the request is the one place where bytes enter without a socket: so all of it does, or its beginning.
        let mut reader = FrameReader::new(&input[..first]);
        let mut seen = Vec::new();
        loop {
            match reader.next(MOST) {
                Ok(Some(incoming)) => {
                    if let Incoming::Message(message) = &incoming {
                        assert!(message.len() <= MOST, "a message of {} bytes", message.len());
                    }
                    seen.push(incoming);
                }
                Ok(None) => return (seen, false),
                Err(_) => return (seen, true),
            }
        }
    };
    let (whole, broken) = read(input.len());
    let (half, _) = read(input.len() / 2);
    assert!(whole.starts_with(&half), "what came first does not depend on what follows: {half:?} {whole:?} {broken}");
}
