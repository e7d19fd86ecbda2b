//! Tests of the generated messages: every field against a table of the specification, and bytes that others made.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use super::proto::server_error_response::Details;
use super::proto::*;

const UID: &str = "019a9c6481f2772eb193011beed33277";

fn descriptors() -> FileDescriptorSet {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/opamp.descriptors"));
    FileDescriptorSet::decode(bytes).expect("build.rs wrote them")
}

/// The type as the table writes it.
#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum, most of which OpAMP does not use")]
fn show_type(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let scalar = match field.r#type() {
        Type::Bytes => "bytes",
        Type::String => "string",
        Type::Uint64 => "uint64",
        Type::Int64 => "int64",
        Type::Fixed64 => "fixed64",
        Type::Bool => "bool",
        Type::Double => "double",
        Type::Message | Type::Enum => {
            let name = field.type_name().rsplit('.').next().expect("a name");
            if let Some(entry) = message.nested_type.iter().find(|nested| nested.name() == name) {
                let [key, value] = entry.field.as_slice() else { panic!("{name} is no map entry") };
                return format!("<{}, {}>", show_type(key, entry), show_type(value, entry));
            }
            name
        }
        other => panic!("{}: {other:?} is not used by OpAMP", field.name()),
    };
    let star = if field.label() == Label::Repeated { "*" } else { "" };
    format!("{scalar}{star}")
}

#[test]
fn every_field_is_the_specifications() {
    let mut ours = BTreeMap::<String, Vec<String>>::new();
    for file in descriptors().file {
        assert_eq!(file.package(), "opamp.proto.v1");
        for message in &file.message_type {
            let fields = message.field.iter().map(|field| {
                let arm = field.oneof_index.map(|index| format!(" ?{}", message.oneof_decl[index as usize].name()));
                format!("{} {} {}{}", field.number(), field.name(), show_type(field, message), arm.unwrap_or_default())
            });
            ours.insert(message.name().to_owned(), fields.collect());
        }
        for group in &file.enum_type {
            let values = group.value.iter().map(|value| {
                let name = value.name().strip_prefix(group.name()).unwrap_or(value.name());
                format!("{} {name}", value.number())
            });
            ours.insert(format!("enum {}", group.name()), values.collect());
        }
    }

    let mut table = BTreeMap::<String, Vec<String>>::new();
    let mut current = String::new();
    for line in include_str!("proto_fields.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(field) => table.entry(current.clone()).or_default().push(field.to_owned()),
            None => {
                current = line.to_owned();
                table.insert(current.clone(), Vec::new());
            }
        }
    }
    assert_eq!(
        table.keys().filter(|name| !name.starts_with("enum ")).count(),
        37 + 4,
        "opamp.proto and anyvalue.proto"
    );
    assert_eq!(table.keys().filter(|name| name.starts_with("enum ")).count(), 10);
    for (name, fields) in &table {
        assert_eq!(ours.get(name), Some(fields), "{name}");
    }
    assert_eq!(ours.len(), table.len(), "nothing but what the table names");
}

fn uid() -> Bytes {
    Bytes::from(hex::decode(UID).expect("hexadecimal"))
}

/// A vector without the framing: the bytes of `UID` stand for `uid`.
fn vector(hexadecimal: &str) -> Vec<u8> {
    hex::decode(hexadecimal.replace("uid", UID).replace(' ', "")).expect("hexadecimal")
}

#[test]
fn server_messages_have_the_known_bytes() {
    let error = |r#type: ServerErrorResponseType, error_message: &str, details| ServerErrorResponse {
        r#type: r#type.into(),
        error_message: error_message.to_owned(),
        details,
    };
    let config = AgentConfigObject { body: "a: 1\n".into(), content_type: "text/yaml".into(), role: String::new() };
    let remote_config = AgentRemoteConfig {
        config: Some(AgentConfigMap { config_map: BTreeMap::from([(String::new(), config)]) }),
        config_hash: Bytes::from_static(&[0xde, 0xad, 0xbe, 0xef]),
    };
    let base = || ServerToAgent { instance_uid: uid(), ..Default::default() };
    let retry = Details::RetryInfo(RetryInfo { retry_after_nanoseconds: 30_000_000_000 });
    for (what, message, bytes) in [
        ("acknowledgement", base(), "0a10 uid"),
        ("full state asked", ServerToAgent { flags: 1, capabilities: 7, ..base() }, "0a10 uid 3001 3807"),
        (
            "bad request",
            ServerToAgent { error_response: Some(error(ServerErrorResponseType::BadRequest, "bad", None)), ..base() },
            "0a10 uid 1207 0801 1203 626164",
        ),
        (
            "unavailable",
            ServerToAgent {
                error_response: Some(error(ServerErrorResponseType::Unavailable, "", Some(retry))),
                ..base()
            },
            "0a10 uid 120a 0802 1a06 0880d88ee16f",
        ),
        (
            "an offer",
            ServerToAgent { remote_config: Some(remote_config), ..base() },
            "0a10 uid 1a20 0a18 0a16 0a00 1212 0a05613a20310a 1209746578742f79616d6c 1204deadbeef",
        ),
    ] {
        let read = ServerToAgent::decode(Bytes::from(vector(bytes))).expect(what);
        assert_eq!(read, message, "{what}");
        // prost leaves the empty key of a map entry out where the vector writes it (0a00): the same meaning in fewer bytes.
        let again = ServerToAgent::decode(Bytes::from(message.encode_to_vec())).expect(what);
        assert_eq!(again, message, "{what}");
        if what != "an offer" {
            assert_eq!(message.encode_to_vec(), vector(bytes), "{what}");
        }
    }
}

#[test]
fn agent_messages_have_the_known_bytes() {
    let heartbeat = AgentToServer { instance_uid: uid(), sequence_num: 5, capabilities: 0x3847, ..Default::default() };
    let goodbye = AgentToServer { sequence_num: 6, agent_disconnect: Some(AgentDisconnect {}), ..heartbeat.clone() };
    for (what, message, bytes) in
        [("heartbeat", heartbeat, "0a10 uid 1005 20c770"), ("goodbye", goodbye, "0a10 uid 1006 20c770 4a00")]
    {
        assert_eq!(message.encode_to_vec(), vector(bytes), "{what}");
        assert_eq!(AgentToServer::decode(Bytes::from(vector(bytes))).expect(what), message, "{what}");
    }
}

#[test]
fn unknown_fields_are_ignored() {
    // Field 99, a string, then field 2.
    let bytes = vector("0a10 uid 9a0603616263 1005");
    let read = AgentToServer::decode(Bytes::from(bytes)).expect("unknown fields do no harm");
    assert_eq!(read.sequence_num, 5);
}
