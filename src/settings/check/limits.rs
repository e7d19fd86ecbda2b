//! Checks what others may take of the daemon at most.

use super::{Reader, size};
use crate::settings::{ApiLimits, ContentLimits, HookLimits, Settings};

/// What one address, token, connection or agent may take. To be called when the largest message is known.
pub(super) fn agents(settings: &mut Settings, reader: &mut Reader<'_>) {
    let limits = &mut settings.limits;
    for (key, slot) in [
        ("max-connections-per-address", &mut limits.per_address),
        ("max-connections-per-token", &mut limits.per_token),
        ("max-new-agents", &mut limits.new_agents),
    ] {
        reader.set(slot, key, number_or_off);
    }
    for (key, slot, most) in [
        ("max-polling-agents", &mut limits.polling, 10_000_000),
        ("max-agents-per-connection", &mut limits.per_connection, 100_000),
        ("max-attributes", &mut limits.attributes, 256),
    ] {
        reader.set(slot, key, |text| number(text, most).map(|number| number as usize));
    }
    reader.set(&mut limits.messages, "max-agent-messages", |text| number(text, 1_000_000));
    reader.set(&mut limits.attribute_bytes, "max-attribute-bytes", |text| within(text, 1 << 10, 1 << 20));
    reader.set(&mut limits.bytes, "max-agent-bytes", size);
    reader.set(&mut limits.in_flight, "max-bytes-in-flight", size);
    let largest = settings.max_message_bytes;
    if limits.bytes < largest {
        reader.problem("max-agent-bytes", "must not be less than the largest message (--max-message-size)");
    }
    // One origin has a quarter of it, but always one message: with less than this, that would be a larger part.
    let least = largest.saturating_mul(4);
    if !reader.given.contains_key("max-bytes-in-flight") {
        limits.in_flight = limits.in_flight.max(least);
    } else if limits.in_flight < least {
        let why = "must be four times the largest message (--max-message-size), or more: one token or address has a quarter of it";
        reader.problem("max-bytes-in-flight", why);
    }
}

/// How much one commit may bring.
pub(super) fn content(limits: &mut ContentLimits, reader: &mut Reader<'_>) {
    let ContentLimits { files, file_bytes, total_bytes, depth, yaml_depth, config_bytes } = limits;
    for (key, slot, most) in [("max-files", files, 2_000_000), ("max-directory-depth", depth, 200)] {
        reader.set(slot, key, |text| number(text, most).map(|number| number as usize));
    }
    // Files of our own are nested some levels deep.
    reader.set(yaml_depth, "max-yaml-depth", |text| match number(text, 255) {
        Ok(depth @ 8..) => Ok(depth as usize),
        Ok(_) | Err(_) => Err("must be a number from 8 to 255".to_owned()),
    });
    for (key, slot, most) in [
        ("max-file-size", file_bytes, 16 << 20),
        ("max-fleet-size", total_bytes, 4 << 30),
        ("max-config-size", config_bytes, 1 << 20),
    ] {
        reader.set(slot, key, |text| within(text, 1 << 10, most));
    }
}

/// What comes back of what was sent. To be called when the largest message of an agent, and the largest configuration, are known.
pub(super) fn answers(settings: &mut Settings, reader: &mut Reader<'_>) {
    let (config, message) = (settings.content.config_bytes, settings.max_message_bytes);
    if config >= message && reader.given.contains_key("max-config-size") {
        let why = "must be less than the largest message (--max-message-size): agents report back what they run";
        reader.problem("max-config-size", why);
    }
    reader.set(&mut settings.largest_answer, "max-answer-size", |text| within(text, 64 << 10, 64 << 20));
}

/// What whoever delivers webhooks may take.
pub(super) fn hooks(reader: &mut Reader<'_>) -> HookLimits {
    let mut limits = HookLimits::default();
    reader.set(&mut limits.body, "max-hook-size", |text| within(text, 4 << 10, 32 << 20));
    reader.set(&mut limits.a_minute, "max-hook-rate", number_or_off);
    limits
}

/// What may be taken of the operators' listener. To be called when the agents' listener is known.
pub(super) fn api(settings: &Settings, reader: &mut Reader<'_>) -> ApiLimits {
    let mut limits = ApiLimits { handshake_timeout: settings.handshake_timeout, ..ApiLimits::default() };
    for (key, slot) in [
        ("api-max-connections", &mut limits.connections),
        ("api-max-connections-per-address", &mut limits.per_address),
        ("api-max-handshakes", &mut limits.handshakes),
    ] {
        reader.set(slot, key, |text| number(text, 100_000).map(|number| number as usize));
    }
    for (key, slot, most) in
        [("api-max-requests", &mut limits.requests, 1_000), ("api-max-unproven", &mut limits.unproven, 60_000)]
    {
        reader.set(slot, key, |text| number(text, most));
    }
    reader.set(&mut limits.body, "api-max-order-size", |text| within(text, 1 << 10, 1 << 20));
    limits
}

fn number(text: &str, most: u32) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(format!("must be a number from 1 to {most}")),
    }
}

fn number_or_off(text: &str) -> Result<Option<u32>, String> {
    const MOST: u32 = 10_000_000;
    match text {
        // YAML readers make `off` a boolean.
        "off" | "false" => Ok(None),
        other => number(other, MOST).map(Some).map_err(|_| format!("must be `off` or a number from 1 to {MOST}")),
    }
}

/// A size from `least` to `most`, both powers of two.
fn within(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let bytes = size(text)?;
    let show = |bytes: usize| match bytes {
        bytes if bytes >= 1 << 20 => format!("{}MiB", bytes >> 20),
        bytes => format!("{}KiB", bytes >> 10),
    };
    let is_fit = (least..=most).contains(&bytes);
    if is_fit { Ok(bytes) } else { Err(format!("must be from {} to {}, not {text}", show(least), show(most))) }
}
