//! What somebody proves themselves with: JWTs, certificates, lists of revocations, signatures of commits and the files of their keys.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gitamp::identity;
use gitamp::identity::jwt::{Issuer, Issuers, IssuersFile};
use gitamp::serve::tls::{ClientCertificates, Tls, TlsLimits};
use gitamp::serve::traffic::TlsTraffic;
use gitamp::settings::{SecretFile, TlsSettings};
use gitamp::trust::{AllowedSigners, Keyring, Signers, verify};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::{NOON, is_harmless};

/// Two issuers whose key is known here, one of agents and one of operators, and the key.
static ISSUER: LazyLock<Option<(Issuers, Ed25519KeyPair)>> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).ok()?;
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}]}}"#);
    let file = IssuersFile::parse(
        "issuers:\n- {issuer: https://issuer.example.com, audience: gitamp, jwksFile: keys.json, labels: {env: deploy/env, team: groups}}\n\
         - {issuer: https://issuer.example.com, audience: operators, jwksFile: keys.json, name: sub, email: email, \
         roles: [{role: view, claims: {groups: [a, b], deploy/env: prod}}]}\n",
    );
    let issuers: Result<Vec<Issuer>, String> =
        file.ok()?.issuers.iter().map(|entry| Issuer::new(entry, &jwks)).collect();
    Some((Issuers(issuers.ok()?), pair))
});

/// A token that somebody shows, as it is: nobody's, for nobody but us can sign; and the same bytes as claims that the issuer did sign.
pub fn agent_proofs(input: &[u8]) {
    let Some((issuers, pair)) = &*ISSUER else { return };
    let shown = issuers.verify(&String::from_utf8_lossy(input), NOON);
    assert!(shown.is_err(), "nobody signed it: {shown:?}");
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"a"}"#), URL_SAFE_NO_PAD.encode(input));
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())));
    if let Ok(identity) = issuers.verify(&token, NOON) {
        let role = identity.labels.get("role").map(|role| (role, identity.labels.get("jwt.name").is_some()));
        assert!(role.is_none_or(|role| role == ("view", true)), "{identity:?}");
        let claims = String::from_utf8_lossy(input);
        assert!(claims.contains("exp") && claims.contains("aud") && claims.contains("iss"), "{claims}: {identity:?}");
    }
}

/// A client's certificate, as TLS hands it on.
pub fn certificate(input: &[u8]) {
    if let Ok(names) = identity::certificate::names(input) {
        for (key, value) in names.labels.iter() {
            assert!(!key.is_empty() && !value.chars().any(char::is_control), "{key:?}: {value:?}");
        }
    }
}

/// The keys of the examples.
static SIGNERS: LazyLock<Signers> = LazyLock::new(|| Signers {
    ssh: AllowedSigners::parse(include_str!("../../src/trust/fixtures/allowed_signers")).ok(),
    openpgp: Keyring::parse(include_bytes!("../../src/trust/fixtures/keyring.asc")).ok(),
});

/// What is signed in the examples, to tell a forgery from one of them: without the signature and with it.
static GENUINE: LazyLock<Vec<&'static [u8]>> = LazyLock::new(|| {
    vec![
        include_bytes!("../../src/trust/fixtures/ssh-ed25519.commit"),
        include_bytes!("../../src/trust/fixtures/ssh-ecdsa.commit"),
        include_bytes!("../../src/trust/fixtures/ssh-rsa.commit"),
        include_bytes!("../../src/trust/fixtures/pgp-ann.commit"),
        include_bytes!("../../src/trust/fixtures/pgp-bob.commit"),
        include_bytes!("../../src/trust/fixtures/pgp-in-time.commit"),
    ]
});

/// The lines of a commit without its signature.
fn unsigned(raw: &[u8]) -> Vec<&[u8]> {
    let head = raw.windows(2).position(|two| two == b"\n\n").map_or(raw.len(), |at| at + 1);
    let (head, message) = raw.split_at(head);
    let mut is_within = false;
    let mut lines: Vec<&[u8]> = head
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| {
            is_within = line.starts_with(b"gpgsig ")
                || line.starts_with(b"gpgsig-sha256 ")
                || (is_within && line.starts_with(b" "));
            !is_within
        })
        .collect();
    lines.push(message);
    lines
}

/// The bytes of a commit: whoever is named as its signer signed exactly this.
pub fn commit_signature(input: &[u8]) {
    if let Ok(signer) = verify(input, NOON, &SIGNERS) {
        let is_genuine = GENUINE.iter().any(|genuine| unsigned(genuine).concat() == unsigned(input).concat());
        assert!(is_genuine, "{signer} never signed this");
    }
}

/// Files of keys: those of SSH, and those of OpenPGP with or without armour.
pub fn signer_files(input: &[u8]) {
    let signers = Signers {
        ssh: AllowedSigners::parse(&String::from_utf8_lossy(input)).ok(),
        openpgp: Keyring::parse(input).ok(),
    };
    let _judged = verify(include_bytes!("../../src/trust/fixtures/ssh-ed25519.commit"), NOON, &signers);
}

thread_local! {
    /// A server's files, made once; who may read them matters.
    static FILES: tempfile::TempDir = {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, content) in [
            ("server.pem", &include_bytes!("../../tests/tls/server.pem")[..]),
            ("server-key.pem", include_bytes!("../../tests/tls/server-key.pem")),
            ("ca.pem", include_bytes!("../../tests/tls/ca.pem")),
        ] {
            let path = directory.path().join(name);
            std::fs::write(&path, content).expect("a file");
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        }
        directory
    };
}

/// A certificate of the tests' authority, and one that it revoked.
static CLIENTS: LazyLock<[CertificateDer<'static>; 2]> = LazyLock::new(|| {
    [&include_bytes!("../../tests/tls/client.pem")[..], include_bytes!("../../tests/tls/revoked.pem")]
        .map(|pem| CertificateDer::from_pem_slice(pem).expect("a certificate"))
});

/// What the authority signed in its lists: first the one in which nobody is revoked.
static LISTS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let lists: [&[u8]; 3] = [
        include_bytes!("../../tests/tls/empty.crl"),
        include_bytes!("../../tests/tls/revoked.crl"),
        include_bytes!("../../tests/tls/stale.crl"),
    ];
    lists.map(|pem| {
        let list = CertificateRevocationListDer::from_pem_slice(pem).expect("a list");
        inner(&inner(&list).expect("DER").1).map(|(whole, _)| whole).expect("DER")
    })
});

/// A DER element as a whole, and what is in it.
fn inner(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (head, length) = match *der.get(1)? {
        short @ 0..=0x7f => (2, usize::from(short)),
        0x81 => (3, usize::from(*der.get(2)?)),
        0x82 => (4, usize::from(u16::from_be_bytes([*der.get(2)?, *der.get(3)?]))),
        _ => return None,
    };
    Some((der.get(..head + length)?.to_vec(), der.get(head..head + length)?.to_vec()))
}

/// A list of revocations, as the file of one or as the bytes of one: only what the authority signed lets anybody in.
pub fn revocations(input: &[u8]) {
    let wrapped = format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", STANDARD.encode(input));
    for file in [input, wrapped.as_bytes()] {
        let files = FILES.with(|directory| {
            let own = |name: &str| directory.path().join(name);
            std::fs::write(own("list.pem"), file).expect("a file");
            TlsSettings {
                certificate: own("server.pem"),
                key: SecretFile::new(own("server-key.pem")),
                client_ca: Some(own("ca.pem")),
                client_crl: Some(own("list.pem")),
            }
        });
        let traffic = Arc::new(TlsTraffic::default());
        let tls = match Tls::open(files, ClientCertificates::Demanded, TlsLimits::default(), traffic) {
            Ok(tls) => tls,
            Err(error) => {
                assert!(is_harmless(&error.to_string()), "{error:?}");
                continue;
            }
        };
        let lists: Vec<Vec<u8>> =
            CertificateRevocationListDer::pem_slice_iter(file).flatten().map(|list| list.to_vec()).collect();
        let has = |signed: &[u8]| lists.iter().any(|list| list.windows(signed.len()).any(|part| part == signed));
        let [good, gone] = CLIENTS.each_ref().map(|client| tls.still_trusts(std::slice::from_ref(client), NOON));
        assert!(!good || LISTS.iter().any(|list| has(list)), "a list that nobody signed lets somebody in");
        assert!(!gone || has(&LISTS[0]), "a list that nobody signed lets in who was revoked");
    }
}
