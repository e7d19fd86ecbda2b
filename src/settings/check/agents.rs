//! Checks the agents' listener: where it is, what it takes, and who may speak there.

use std::time::Duration;

use super::access::{existing, secret_file};
use super::limits;
use super::{Reader, address, boolean, size, url_path};
use crate::settings::{ProofSettings, Settings, TlsSettings};
use crate::time::parse_duration;

pub(super) fn agents(settings: &mut Settings, reader: &mut Reader<'_>) {
    reader.set(&mut settings.listen, "listen", address);
    reader.set(&mut settings.opamp_path, "opamp-path", url_path);
    reader.set(&mut settings.max_message_bytes, "max-message-size", |text| {
        let bytes = size(text)?;
        if (4 << 10..=64 << 20).contains(&bytes) {
            Ok(bytes)
        } else {
            Err(format!("must be from 4KiB to 64MiB, not {text}"))
        }
    });
    reader.set(&mut settings.max_connections, "max-connections", |text| match text {
        "auto" => Ok(None),
        number => match number.parse::<usize>() {
            Ok(number @ 1..=10_000_000) => Ok(Some(number)),
            Ok(_) | Err(_) => Err("must be `auto` or a number from 1 to 10000000"),
        },
    });
    reader.set(&mut settings.max_connection_rate, "max-connection-rate", |text| match text {
        // YAML readers make `off` a boolean.
        "off" | "false" => Ok(None),
        number => match number.parse::<u32>() {
            Ok(number @ 1..=1_000_000) => Ok(Some(number)),
            Ok(_) | Err(_) => Err("must be `off` or a number from 1 to 1000000"),
        },
    });
    reader.set(&mut settings.heartbeat_interval, "heartbeat-interval", heartbeat_interval);
    reader.duration(
        &mut settings.forget_after,
        "forget-after",
        Duration::from_secs(60),
        Duration::from_secs(30 * 86_400),
    );
}

/// Whole seconds, because that is what is sent; never 0, because that would switch heartbeats off.
fn heartbeat_interval(text: &str) -> Result<Option<Duration>, String> {
    // YAML readers make `off` a boolean.
    if text == "off" || text == "false" {
        return Ok(None);
    }
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    let is_fit =
        (Duration::from_secs(1)..=Duration::from_secs(600)).contains(&interval) && interval.subsec_nanos() == 0;
    if is_fit { Ok(Some(interval)) } else { Err(format!("must be `off`, or whole seconds from 1s to 10m, not {text}")) }
}

/// Who may speak. To be called when the hooks are known, because they may come in on the same port.
pub(super) fn access(settings: &mut Settings, reader: &mut Reader<'_>) {
    settings.tls = tls(reader);
    let (tokens, issuers) = (existing(reader, "agent-token-file"), existing(reader, "agent-issuers-file"));
    settings.proofs = (tokens.is_some() || issuers.is_some()).then_some(ProofSettings { tokens, issuers });
    reader.duration(
        &mut settings.handshake_timeout,
        "handshake-timeout",
        Duration::from_secs(1),
        Duration::from_secs(120),
    );
    reader.set(&mut settings.max_handshakes, "max-handshakes", |text| match text.parse::<usize>() {
        Ok(number @ 1..=100_000) => Ok(number),
        Ok(_) | Err(_) => Err("must be a number from 1 to 100000"),
    });
    limits::agents(settings, reader);
    reader.set(&mut settings.insecure, "insecure", boolean);
    if is_open(settings) && !settings.insecure {
        let message = format!(
            "{} can be reached from other machines, and whoever reaches it could act as an agent and read configurations: give it a certificate \
             (--tls-cert-file, --tls-key-file) or ask agents who they are (--agent-token-file, --tls-client-ca-file), listen on 127.0.0.1, or say --insecure if \
             something else protects it",
            settings.listen
        );
        reader.problem("listen", message);
    }
}

/// True when strangers could reach the listener and would not be asked for anything.
fn is_open(settings: &Settings) -> bool {
    !settings.listen.ip().is_loopback() && settings.tls.is_none() && !settings.asks_agents()
}

/// What nobody may overlook, although it is allowed.
pub(super) fn alarm(settings: &Settings) -> Option<String> {
    is_open(settings).then(|| {
        format!(
            "--insecure: the listener of agents ({}) is open to other machines and has neither encryption nor authentication: whoever reaches \
             it can act as an agent",
            settings.listen
        )
    })
}

/// What should be looked at, although it is allowed.
pub(super) fn exposure(settings: &Settings) -> Option<String> {
    let address = settings.listen;
    if address.ip().is_loopback() || is_open(settings) {
        return None;
    }
    if settings.tls.is_none() {
        return Some(format!(
            "the listener of agents ({address}) is open to other machines without encryption: what agents prove themselves with can be read on \
             the way, unless a proxy in front of it speaks TLS"
        ));
    }
    (!settings.asks_agents()).then(|| {
        format!(
            "the listener of agents ({address}) is open to other machines and asks nobody who they are: whoever reaches it can act as an agent"
        )
    })
}

fn tls(reader: &mut Reader<'_>) -> Option<TlsSettings> {
    let certificate = existing(reader, "tls-cert-file");
    let key = secret_file(reader, "tls-key-file");
    let client_ca = existing(reader, "tls-client-ca-file");
    let client_crl = existing(reader, "tls-client-crl-file");
    let given = |key: &str| reader.given.contains_key(key);
    let missing = match (given("tls-cert-file"), given("tls-key-file")) {
        (true, false) => Some(("tls-cert-file", "needs its private key as well: --tls-key-file")),
        (false, true) => Some(("tls-key-file", "needs its certificate as well: --tls-cert-file")),
        (false, false) if given("tls-client-ca-file") => Some((
            "tls-client-ca-file",
            "clients show certificates to TLS only: give --tls-cert-file and --tls-key-file too",
        )),
        (_, _) if given("tls-client-crl-file") && !given("tls-client-ca-file") => Some((
            "tls-client-crl-file",
            "revokes certificates of nobody: name their authority with --tls-client-ca-file",
        )),
        (_, _) => None,
    };
    if let Some((key, why)) = missing {
        reader.problem(key, why);
    }
    Some(TlsSettings { certificate: certificate?, key: key?, client_ca, client_crl })
}
