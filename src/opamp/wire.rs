//! Bytes of messages: the WebSocket header, limits that hold before memory is taken, and what is sent.
//!
//! An offer's configuration is encoded once and shared by everybody who gets it. Fields of a protobuf
//! message may come in any order, so an agent's message is a few bytes of its own followed by the shared ones.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint};

use super::proto::ServerToAgent;
use crate::config::RenderedConfig;
use crate::labels::MOST_LABELS;

/// What one message of an agent may hold. Everything is counted on the bytes, before anything is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message, framing included. A supervisor's full report has some 50 KiB (a large effective configuration and
    /// the list of 300 components), so 1 MiB leaves room and still bounds what a connection can make the process hold.
    pub message_bytes: usize,
    /// Attributes in the description, identifying or not.
    pub attributes: usize,
    /// Bytes that the labels of one agent may take, each key and value cut to its length. Twenty usual ones take about 800; labels are
    /// kept for as long as the agent is known.
    pub attribute_bytes: usize,
    /// Entries of the effective configuration. Supervisors send one or two.
    pub entries: usize,
    /// Messages within the message, on all levels: health and components of a large collector come to some 3,000.
    pub parts: usize,
    /// Levels of messages within messages. A collector's health has eight; an attribute that is a list takes two a level.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 1 << 20,
            attributes: MOST_LABELS,
            attribute_bytes: 32 << 10,
            entries: 64,
            parts: 20_000,
            depth: 48,
        }
    }
}

/// Why a message was refused. The text goes back to the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// More bytes than a message may have.
    #[error("the message has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A WebSocket message starts with the varint 0.
    #[error("the message does not start with the header 0x00 of OpAMP over WebSocket")]
    Header,
    /// No protobuf message, or not this one. The reason is the decoder's, bounded.
    #[error("the message is no AgentToServer: {0}")]
    Malformed(String),
    /// More of something than there may be.
    #[error("the message has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// More attributes than a description may have.
    #[error("the message has more than {0} attributes in its description")]
    Attributes(usize),
    /// Attributes of more bytes than a description may have.
    #[error("the attributes of the description have more than {0} bytes")]
    AttributeBytes(usize),
    /// Nested too deeply.
    #[error("the message is nested more than {0} levels deep")]
    TooDeep(usize),
}

/// Characters of a decoder's reason that are kept: it names a path of fields, which can be as deep as the limit.
const LONGEST_REASON: usize = 200;

impl From<prost::DecodeError> for WireError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string().chars().take(LONGEST_REASON).collect())
    }
}

/// Takes the header off a WebSocket message. Any encoding of the number 0 is the header, as it is for a protobuf reader.
pub fn unframe(mut message: Bytes) -> Result<Bytes, WireError> {
    match decode_varint(&mut message) {
        Ok(0) => Ok(message),
        Ok(_) | Err(_) => Err(WireError::Header),
    }
}

/// Checks a message without its header against the limits. Looks at each byte at most once a level and takes no memory.
pub fn check(message: &[u8], limits: &Limits) -> Result<(), WireError> {
    if message.len() > limits.message_bytes {
        return Err(WireError::TooLarge { bytes: message.len(), limit: limits.message_bytes });
    }
    Scan { limits, attributes: 0, entries: 0, parts: 0 }.message(Shape::AgentToServer, message, 0)
}

/// The messages within an `AgentToServer` that repeat or nest. What is not among them is flat and bounded by its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    AgentToServer,
    Description,
    Attribute,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
    Health,
    HealthEntry,
    EffectiveConfig,
    ConfigMap,
    ConfigEntry,
    PackageStatuses,
    CustomCapabilities,
    Components,
    ComponentEntry,
    ComponentDetails,
    Leaf,
}

/// What field `number` of a message of this shape holds; `None` for fields that neither repeat nor nest.
fn within(shape: Shape, number: u32) -> Option<Shape> {
    match (shape, number) {
        (Shape::AgentToServer, 3) => Some(Shape::Description),
        (Shape::AgentToServer, 5) | (Shape::HealthEntry, 2) => Some(Shape::Health),
        (Shape::AgentToServer, 6) => Some(Shape::EffectiveConfig),
        (Shape::AgentToServer, 8) => Some(Shape::PackageStatuses),
        (Shape::AgentToServer, 12) => Some(Shape::CustomCapabilities),
        (Shape::AgentToServer, 14) => Some(Shape::Components),
        (Shape::AgentToServer, _) => Some(Shape::Leaf),
        (Shape::Description, 1 | 2) => Some(Shape::Attribute),
        (Shape::Attribute | Shape::KeyValue, 2) | (Shape::ArrayValue, 1) => Some(Shape::AnyValue),
        (Shape::AnyValue, 5) => Some(Shape::ArrayValue),
        (Shape::AnyValue, 6) => Some(Shape::KeyValueList),
        (Shape::KeyValueList | Shape::ComponentDetails, 1) | (Shape::Health, 7) => Some(Shape::KeyValue),
        (Shape::Health, 6) => Some(Shape::HealthEntry),
        (Shape::EffectiveConfig, 1) => Some(Shape::ConfigMap),
        (Shape::ConfigMap, 1) => Some(Shape::ConfigEntry),
        (Shape::PackageStatuses | Shape::CustomCapabilities, 1) => Some(Shape::Leaf),
        (Shape::Components, 1) | (Shape::ComponentDetails, 2) => Some(Shape::ComponentEntry),
        (Shape::ComponentEntry, 2) => Some(Shape::ComponentDetails),
        _ => None,
    }
}

struct Scan<'l> {
    limits: &'l Limits,
    attributes: usize,
    entries: usize,
    parts: usize,
}

impl Scan<'_> {
    fn message(&mut self, shape: Shape, mut bytes: &[u8], depth: usize) -> Result<(), WireError> {
        if depth > self.limits.depth {
            return Err(WireError::TooDeep(self.limits.depth));
        }
        while !bytes.is_empty() {
            let (number, wire_type) = decode_key(&mut bytes)?;
            if wire_type != WireType::LengthDelimited {
                prost::encoding::skip_field(wire_type, number, &mut bytes, Default::default())?;
                continue;
            }
            let length = decode_varint(&mut bytes)?;
            let length = usize::try_from(length).ok().filter(|length| *length <= bytes.len());
            let Some((field, rest)) = length.and_then(|length| bytes.split_at_checked(length)) else {
                return Err(WireError::Malformed(format!("field {number} is longer than the message")));
            };
            bytes = rest;
            if let Some(inner) = within(shape, number) {
                self.count(inner)?;
                if inner != Shape::Leaf {
                    self.message(inner, field, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, shape: Shape) -> Result<(), WireError> {
        if shape == Shape::Attribute {
            self.attributes += 1;
            let most = self.limits.attributes;
            return if self.attributes > most { Err(WireError::Attributes(most)) } else { Ok(()) };
        }
        let (count, limit, what) = if shape == Shape::ConfigEntry {
            (&mut self.entries, self.limits.entries, "entries in its effective configuration")
        } else {
            (&mut self.parts, self.limits.parts, "parts")
        };
        *count += 1;
        if *count > limit { Err(WireError::TooMany { what, limit }) } else { Ok(()) }
    }
}

/// A message on its way to an agent: its own bytes, then bytes that others share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutMessage {
    /// The agent's own part, with the header when it goes over a WebSocket.
    pub head: Bytes,
    /// The offered configuration, encoded.
    pub shared: Option<Bytes>,
}

impl OutMessage {
    /// Encodes `message`, which holds no offer; the offer's bytes come behind it.
    pub fn new(message: &ServerToAgent, offer: Option<&RenderedConfig>, framed: bool) -> Self {
        debug_assert!(message.remote_config.is_none(), "offers are shared, never encoded for one agent");
        let mut head = BytesMut::with_capacity(message.encoded_len() + usize::from(framed));
        if framed {
            head.put_u8(0);
        }
        message.encode_raw(&mut head);
        Self { head: head.freeze(), shared: offer.map(shared_offer) }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.head.len() + self.shared.as_ref().map_or(0, Bytes::len)
    }

    /// True when there is nothing to send: an acknowledgement to an agent that has no uid yet, over HTTP.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole as one piece, for transports that want it so.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.len());
        whole.extend_from_slice(&self.head);
        whole.extend_from_slice(self.shared.as_deref().unwrap_or_default());
        whole
    }
}

/// The field `remote_config` of a `ServerToAgent` with its key and length: made at the first call for this configuration.
fn shared_offer(config: &RenderedConfig) -> Bytes {
    config.encoded(|config| encode_offer(config.body(), config.hash().as_bytes())).clone()
}

/// One entry with the empty name: agents merge several entries by rules of their own, and one has nothing to merge.
fn encode_offer(body: &[u8], hash: &[u8]) -> Bytes {
    const CONTENT_TYPE: &[u8] = b"text/yaml";
    let field_len = |bytes: usize| 1 + encoded_len_varint(bytes as u64) + bytes;
    let object = field_len(body.len()) + field_len(CONTENT_TYPE.len());
    let entry = field_len(0) + field_len(object);
    let map = field_len(entry);
    let offer = field_len(map) + field_len(hash.len());

    let mut out = BytesMut::with_capacity(field_len(offer));
    let mut open = |number: u32, length: usize, content: &[u8]| {
        encode_key(number, WireType::LengthDelimited, &mut out);
        encode_varint(length as u64, &mut out);
        out.put_slice(content);
    };
    open(3, offer, &[]); // ServerToAgent.remote_config
    open(1, map, &[]); // AgentRemoteConfig.config
    open(1, entry, &[]); // AgentConfigMap.config_map
    open(1, 0, &[]); // the entry's key, written out although it is empty: readers written by hand may look for it
    open(2, object, &[]); // the entry's value
    open(1, body.len(), body); // AgentConfigObject.body
    open(2, CONTENT_TYPE.len(), CONTENT_TYPE); // AgentConfigObject.content_type
    open(2, hash.len(), hash); // AgentRemoteConfig.config_hash
    out.freeze()
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
