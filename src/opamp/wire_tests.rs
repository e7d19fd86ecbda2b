//! Tests of framing, limits and the encoding of offers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::{ComponentNames, ConfigHash};
use crate::opamp::proto::*;

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value) }
}

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }
}

fn described(attributes: Vec<KeyValue>) -> Vec<u8> {
    let agent_description =
        Some(AgentDescription { identifying_attributes: attributes, non_identifying_attributes: Vec::new() });
    AgentToServer { agent_description, ..Default::default() }.encode_to_vec()
}

#[test]
fn the_header_is_the_number_zero() {
    for (bytes, rest) in [
        (&[0x00, 0x0a][..], Some(&[0x0a][..])),
        (&[0x00], Some(&[])),
        (&[0x80, 0x00, 0x0a], Some(&[0x0a])),
        (&[], None),
        (&[0x0a, 0x10], None),
        (&[0x01], None),
        (&[0x80], None),
        (&[0xff; 11], None),
    ] {
        let read = unframe(Bytes::copy_from_slice(bytes));
        assert_eq!(read.ok().as_deref(), rest, "{bytes:02x?}");
    }
}

#[test]
fn an_offer_has_the_known_bytes() {
    let expected = hex::decode("1a200a180a160a0012120a05613a20310a1209746578742f79616d6c1204deadbeef").expect("hex");
    assert_eq!(encode_offer(b"a: 1\n", &[0xde, 0xad, 0xbe, 0xef]), expected);
}

#[test]
fn what_is_sent_is_what_a_reader_reads() {
    for size in [1, 127, 128, 200, 16_383, 16_384, 70_000] {
        let body = Bytes::from(vec![b'y'; size]);
        let config = RenderedConfig::new(ConfigHash::new([7; 32]), body.clone(), ComponentNames::default());
        let message =
            ServerToAgent { instance_uid: Bytes::from_static(&[1; 16]), capabilities: 7, ..Default::default() };
        let out = OutMessage::new(&message, Some(&config), true);
        let read = ServerToAgent::decode(unframe(out.to_vec().into()).expect("framed")).expect("a message");
        let offer = read.remote_config.expect("an offer");
        assert_eq!(offer.config_hash, Bytes::from_static(&[7; 32]));
        let map = offer.config.expect("a map").config_map;
        let entry = AgentConfigObject { body, content_type: "text/yaml".into(), role: String::new() };
        assert_eq!(map, BTreeMap::from([(String::new(), entry)]), "{size}");
        assert_eq!((read.instance_uid, read.capabilities), (Bytes::from_static(&[1; 16]), 7));
    }
}

#[test]
fn the_configuration_is_encoded_once() {
    let config = RenderedConfig::new(ConfigHash::new([7; 32]), "a: 1\n".into(), ComponentNames::default());
    let message = ServerToAgent::default();
    let (first, second) =
        (OutMessage::new(&message, Some(&config), false), OutMessage::new(&message, Some(&config), true));
    let place = |out: &OutMessage| out.shared.as_ref().map(|bytes| bytes.as_ptr());
    assert_eq!(place(&first), place(&second), "both point at the same bytes");
    assert!(OutMessage::new(&message, None, false).is_empty());
}

#[test]
fn limits_hold_before_anything_is_decoded() {
    let limits = Limits { message_bytes: 1 << 16, attributes: 3, attribute_bytes: 99, entries: 2, parts: 10, depth: 8 };
    let attributes = |count: usize| (0..count).map(|at| attribute(&format!("k{at}"), text("v"))).collect::<Vec<_>>();
    let nested = |levels: usize| {
        (0..levels).fold(text("v"), |inner, _| AnyValue {
            value: Some(any_value::Value::ArrayValue(ArrayValue { values: vec![inner] })),
        })
    };
    let effective = |count: usize| {
        let config_map = (0..count).map(|at| (at.to_string(), AgentConfigObject::default())).collect();
        let effective_config = Some(EffectiveConfig { config_map: Some(AgentConfigMap { config_map }) });
        AgentToServer { effective_config, ..Default::default() }.encode_to_vec()
    };
    let health = |levels: usize, wide: usize| {
        let component_health_map = (0..wide).map(|at| (at.to_string(), ComponentHealth::default())).collect();
        let bottom = ComponentHealth { component_health_map, ..Default::default() };
        let health = (0..levels).fold(bottom, |inner, _| ComponentHealth {
            component_health_map: BTreeMap::from([("part".to_owned(), inner)]),
            ..Default::default()
        });
        AgentToServer { health: Some(health), ..Default::default() }.encode_to_vec()
    };
    let many = |what, limit| Err(WireError::TooMany { what, limit });
    for (what, bytes, expected) in [
        ("nothing", Vec::new(), Ok(())),
        ("three attributes", described(attributes(3)), Ok(())),
        ("four attributes", described(attributes(4)), Err(WireError::Attributes(3))),
        ("two entries", effective(2), Ok(())),
        ("three entries", effective(3), many("entries in its effective configuration", 2)),
        ("a flat attribute", described(vec![attribute("k", nested(2))]), Ok(())),
        ("a deep attribute", described(vec![attribute("k", nested(3))]), Err(WireError::TooDeep(8))),
        ("some health", health(2, 2), Ok(())),
        ("deep health", health(5, 0), Err(WireError::TooDeep(8))),
        ("much health", health(0, 10), many("parts", 10)),
        ("too large", vec![0x0a; (1 << 16) + 1], Err(WireError::TooLarge { bytes: (1 << 16) + 1, limit: 1 << 16 })),
    ] {
        assert_eq!(check(&bytes, &limits), expected, "{what}");
    }
}

#[test]
fn a_million_attributes_are_refused_and_errors_stay_short() {
    let one = attribute("k", text("v"));
    let limits = Limits { message_bytes: 1 << 26, ..Limits::default() };
    let bytes = described(vec![one; 1_000_000]);
    assert_eq!(check(&bytes, &limits), Err(WireError::Attributes(MOST_LABELS)));
    for (what, bytes) in [
        ("a field longer than the message", &[0x1a, 0xff, 0xff, 0x03][..]),
        ("an endless length", &[0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("field number zero", &[0x02, 0x00]),
        ("an end without a start", &[0x0c]),
    ] {
        let error = check(bytes, &limits).expect_err(what);
        assert!(matches!(error, WireError::Malformed(_)), "{what}: {error}");
        assert!(error.to_string().len() < 300, "{what}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _verdict = check(&bytes, &Limits::default());
        let _rest = unframe(bytes.into());
    }

    /// What the generated decoder takes is never malformed for the scan: it only ever adds limits.
    #[test]
    fn the_scan_is_no_stricter_than_the_decoder(bytes in proptest::collection::vec(0_u8..48, 0..64)) {
        if AgentToServer::decode(&bytes[..]).is_ok() {
            let verdict = check(&bytes, &Limits::default());
            prop_assert!(!matches!(verdict, Err(WireError::Malformed(_))), "{:?}", verdict);
        }
    }
}
