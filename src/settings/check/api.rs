//! Checks the operators' listener: where it is, who is known there, and that nothing secret goes there unprotected.

use super::access::{existing, secret_file};
use super::{Reader, address, boolean, limits};
use crate::settings::{ApiSettings, ProofSettings, Settings, TlsSettings};

/// To be called when the agents' TLS is known.
pub(super) fn api(settings: &mut Settings, reader: &mut Reader<'_>) {
    let listen = reader.read("api-listen", address);
    let proofs =
        ProofSettings { tokens: existing(reader, "api-token-file"), issuers: existing(reader, "api-issuers-file") };
    let own = tls(reader);
    let (mut is_plain, mut no_self_approval) = (false, false);
    reader.set(&mut is_plain, "api-plain", boolean);
    reader.set(&mut no_self_approval, "no-self-approval", boolean);
    let limits = limits::api(settings, reader);
    if !reader.given.contains_key("api-listen") {
        let files = ["api-token-file", "api-issuers-file", "api-cert-file", "api-key-file"];
        let files = files.into_iter().filter(|key| reader.given.contains_key(*key));
        let words = [("api-plain", is_plain), ("no-self-approval", no_self_approval)];
        let words = words.into_iter().filter(|(_, is_said)| *is_said).map(|(key, _)| key);
        if let Some(key) = files.chain(words).next() {
            settings
                .warnings
                .push(format!("`{key}` means nothing without --api-listen, which makes the operators' listener"));
        }
        return;
    }
    let Some(listen) = listen else { return };
    if !reader.given.contains_key("api-token-file") && !reader.given.contains_key("api-issuers-file") {
        let message = "nobody is known there: give the file of operators' tokens (--api-token-file), or of their issuers (--api-issuers-file), too";
        reader.problem("api-listen", message);
    }
    let of_agents = settings.proofs.as_ref().map(|proofs| (proofs.tokens.as_ref(), proofs.issuers.as_ref()));
    let (agents_tokens, agents_issuers) = of_agents.unwrap_or_default();
    for (key, own, other) in [
        ("api-token-file", proofs.tokens.as_ref(), agents_tokens),
        ("api-issuers-file", proofs.issuers.as_ref(), agents_issuers),
    ] {
        if own.is_some() && own == other {
            reader.problem(key, "is the agents' file as well: whatever lets an agent in commands nothing, so give operators a file of their own");
        }
    }
    // Certificates of agents prove nothing about operators.
    let shared = || Some(TlsSettings { client_ca: None, client_crl: None, ..settings.tls.clone()? });
    let tls = if is_plain { None } else { own.or_else(shared) };
    if is_plain && !listen.ip().is_loopback() {
        let message = format!(
            "{listen} can be reached from other machines, and tokens would be sent there unprotected: listen on 127.0.0.1, or leave this out and \
             give a certificate (--api-cert-file, --api-key-file)"
        );
        reader.problem("api-plain", message);
    } else if !is_plain && tls.is_none() {
        reader.problem(
            "api-listen",
            "tokens are sent there, which TLS has to protect: give a certificate (--api-cert-file, --api-key-file), or listen on 127.0.0.1 and say \
             --api-plain if a proxy on this machine adds TLS",
        );
    }
    if no_self_approval && settings.shallow {
        let message =
            "who wrote what a rollout brings is in the history, which --depth 1 leaves out: say one or the other";
        reader.problem("no-self-approval", message);
    }
    if proofs.tokens.is_some() || proofs.issuers.is_some() {
        settings.api = Some(ApiSettings { listen, tls, proofs, self_approval: !no_self_approval, limits });
    }
}

fn tls(reader: &mut Reader<'_>) -> Option<TlsSettings> {
    let certificate = existing(reader, "api-cert-file");
    let key = secret_file(reader, "api-key-file");
    let given = |key: &str| reader.given.contains_key(key);
    let missing = match (given("api-cert-file"), given("api-key-file")) {
        (true, false) => Some(("api-cert-file", "needs its private key as well: --api-key-file")),
        (false, true) => Some(("api-key-file", "needs its certificate as well: --api-cert-file")),
        (true, true) | (false, false) => None,
    };
    if let Some((key, why)) = missing {
        reader.problem(key, why);
    }
    Some(TlsSettings { certificate: certificate?, key: key?, client_ca: None, client_crl: None })
}
