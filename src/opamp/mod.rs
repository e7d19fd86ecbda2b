//! How agents are spoken to: the protobuf messages, their framing, one agent's session and one connection's sessions. No sockets.

pub mod proto;
#[cfg(test)]
mod proto_tests;
