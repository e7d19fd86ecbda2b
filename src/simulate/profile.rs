//! What all agents of a simulated fleet have in common, and how each describes itself.

use std::time::Duration;

use crate::agent::{AgentId, Capabilities, Transport};
use crate::opamp::proto;
use crate::simulate::{Attribute, DelayRange, Options};

/// What all agents of a fleet have in common.
#[derive(Debug)]
pub struct Profile {
    pub(super) capabilities: Capabilities,
    attributes: Vec<Attribute>,
    pub(super) apply_delay: DelayRange,
    pub(super) heartbeat: Duration,
    pub(super) crash_after: Duration,
    pub(super) fail_message: String,
    pub(super) seed: u64,
}

impl Profile {
    /// What `options` say about every agent.
    pub fn new(options: &Options) -> Self {
        Self {
            capabilities: options.capabilities,
            attributes: options.attributes.clone(),
            apply_delay: options.apply_delay,
            heartbeat: match options.server.transport {
                Transport::WebSocket => options.heartbeat,
                Transport::Http => options.poll_interval,
            },
            crash_after: options.crash_after,
            fail_message: options.fail_message.clone(),
            seed: options.seed,
        }
    }

    /// What the agent with this number says of itself: what every collector says, and the fleet's attributes.
    pub(super) fn description(&self, number: u32, id: AgentId) -> proto::AgentDescription {
        let mut identifying = vec![
            ("service.instance.id", id.to_string()),
            ("service.name", "otelcol-contrib".to_owned()),
            ("service.version", "0.161.0".to_owned()),
        ];
        let mut other = vec![
            ("host.arch", "amd64".to_owned()),
            ("host.name", format!("simulated-{number}")),
            ("os.description", "Simulated Linux".to_owned()),
            ("os.type", "linux".to_owned()),
        ];
        for attribute in &self.attributes {
            let key = attribute.key();
            let identifies = key == "service.namespace" || identifying.iter().any(|(known, _)| *known == key);
            let list = if identifies { &mut identifying } else { &mut other };
            list.retain(|(known, _)| *known != key);
            list.push((key, attribute.value(number)));
        }
        identifying.sort_unstable();
        other.sort_unstable();
        proto::AgentDescription {
            identifying_attributes: identifying.into_iter().map(|(key, value)| text(key, value)).collect(),
            non_identifying_attributes: other.into_iter().map(|(key, value)| text(key, value)).collect(),
        }
    }
}

fn text(key: &str, value: String) -> proto::KeyValue {
    let value = proto::AnyValue { value: Some(proto::any_value::Value::StringValue(value)) };
    proto::KeyValue { key: key.to_owned(), value: Some(value) }
}
