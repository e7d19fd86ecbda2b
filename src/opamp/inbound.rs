//! What is read of an agent's message: the parts that matter here, as bytes until it is known that they changed.
//!
//! The types are narrower than the generated ones on purpose. A full report lists some 300 components and the health of
//! as many, which nobody here looks at: fields that are not named are skipped without taking memory. Parts stay slices of the
//! message until their digest differs from the last one, so a report that repeats itself costs a hash and no decoding.

use bytes::Bytes;
use prost::Message;
use sha2::{Digest as _, Sha256};

use super::proto::AgentDisconnect;
use super::wire::WireError;

/// The parts of an `AgentToServer` that matter here, not yet decoded themselves.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Inbound {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) instance_uid: Bytes,
    #[prost(uint64, tag = "2")]
    pub(super) sequence_num: u64,
    /// An `AgentDescription`.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(super) description: Option<Bytes>,
    #[prost(uint64, tag = "4")]
    pub(super) capabilities: u64,
    #[prost(message, optional, tag = "5")]
    pub(super) health: Option<TopHealth>,
    /// An `EffectiveConfig`.
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub(super) effective_config: Option<Bytes>,
    #[prost(message, optional, tag = "7")]
    pub(super) config_status: Option<ConfigOutcome>,
    #[prost(message, optional, tag = "9")]
    pub(super) disconnect: Option<AgentDisconnect>,
    #[prost(uint64, tag = "10")]
    pub(super) flags: u64,
    /// An `AvailableComponents`.
    #[prost(bytes = "bytes", optional, tag = "14")]
    pub(super) available_components: Option<Bytes>,
    #[prost(message, optional, tag = "15")]
    pub(super) settings_status: Option<SettingsOutcome>,
}

/// A `ConnectionSettingsStatus`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SettingsOutcome {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) hash: Bytes,
    #[prost(int32, tag = "2")]
    pub(super) status: i32,
    #[prost(string, tag = "3")]
    pub(super) error_message: String,
}

/// A `ComponentHealth` without its children.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TopHealth {
    #[prost(bool, tag = "1")]
    pub(super) healthy: bool,
    #[prost(string, tag = "3")]
    pub(super) last_error: String,
    #[prost(string, tag = "4")]
    pub(super) status: String,
}

/// A `RemoteConfigStatus`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ConfigOutcome {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) hash: Bytes,
    #[prost(int32, tag = "2")]
    pub(super) status: i32,
    #[prost(string, tag = "3")]
    pub(super) error_message: String,
}

impl Inbound {
    /// Decodes a message that [`super::wire::check`] let pass.
    pub(super) fn read(message: Bytes) -> Result<Self, WireError> {
        Self::decode(message).map_err(|error| match WireError::from(error) {
            // The reader of the answer knows the message by the protocol's name.
            WireError::Malformed(reason) => WireError::Malformed(reason.replace("Inbound.", "AgentToServer.")),
            other @ (WireError::TooLarge { .. }
            | WireError::Header
            | WireError::TooMany { .. }
            | WireError::Attributes(_)
            | WireError::AttributeBytes(_)
            | WireError::TooDeep(_)) => other,
        })
    }
}

/// 128 bits of SHA-256: equal digests mean equal bytes, also when somebody tries to make it otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let whole: [u8; 32] = Sha256::digest(bytes).into();
        let mut half = [0; 16];
        half.copy_from_slice(&whole[..16]);
        Self(half)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::proto::*;
    use super::*;

    /// Every field set, so that a number or type that drifted from the generated message shows.
    #[test]
    fn it_reads_what_the_whole_message_says() {
        let value = AnyValue { value: Some(any_value::Value::StringValue("gw".into())) };
        let description = AgentDescription {
            identifying_attributes: vec![KeyValue { key: "service.name".into(), value: Some(value) }],
            non_identifying_attributes: Vec::new(),
        };
        let effective = EffectiveConfig {
            config_map: Some(AgentConfigMap {
                config_map: BTreeMap::from([(
                    String::new(),
                    AgentConfigObject { body: "a: 1".into(), ..Default::default() },
                )]),
            }),
        };
        let available = AvailableComponents { components: BTreeMap::new(), hash: Bytes::from_static(b"h") };
        let whole = AgentToServer {
            instance_uid: Bytes::from_static(&[9; 16]),
            sequence_num: 7,
            agent_description: Some(description.clone()),
            capabilities: 0x1807,
            health: Some(ComponentHealth {
                healthy: true,
                start_time_unix_nano: 1,
                last_error: "e".into(),
                status: "s".into(),
                status_time_unix_nano: 2,
                component_health_map: BTreeMap::from([("child".into(), ComponentHealth::default())]),
                attributes: Vec::new(),
            }),
            effective_config: Some(effective.clone()),
            remote_config_status: Some(RemoteConfigStatus {
                last_remote_config_hash: Bytes::from_static(&[1; 32]),
                status: RemoteConfigStatuses::Failed.into(),
                error_message: "no".into(),
            }),
            package_statuses: Some(PackageStatuses::default()),
            agent_disconnect: Some(AgentDisconnect {}),
            flags: 1,
            custom_message: Some(CustomMessage::default()),
            available_components: Some(available.clone()),
            connection_settings_status: Some(ConnectionSettingsStatus {
                last_connection_settings_hash: Bytes::from_static(b"s"),
                status: ConnectionSettingsStatuses::Failed.into(),
                error_message: "never".into(),
            }),
            ..Default::default()
        };
        let read = Inbound::read(whole.encode_to_vec().into()).expect("the same protocol");
        let expected = Inbound {
            instance_uid: Bytes::from_static(&[9; 16]),
            sequence_num: 7,
            description: Some(description.encode_to_vec().into()),
            capabilities: 0x1807,
            health: Some(TopHealth { healthy: true, last_error: "e".into(), status: "s".into() }),
            effective_config: Some(effective.encode_to_vec().into()),
            config_status: Some(ConfigOutcome {
                hash: Bytes::from_static(&[1; 32]),
                status: 3,
                error_message: "no".into(),
            }),
            disconnect: Some(AgentDisconnect {}),
            flags: 1,
            available_components: Some(available.encode_to_vec().into()),
            settings_status: Some(SettingsOutcome {
                hash: Bytes::from_static(b"s"),
                status: 3,
                error_message: "never".into(),
            }),
        };
        assert_eq!(read, expected);
    }
}
