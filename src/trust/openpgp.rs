//! OpenPGP signatures, and the keyring of public keys that may make them.

use pgp::composed::{Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, Tag};

use super::{Signer, Untrusted, shown};
use crate::time::Timestamp;

/// Most keys in a keyring, and most packets in a signature.
const MOST_KEYS: usize = 10_000;

const ARMOUR: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// The public keys that may sign, as `gpg --export` writes them. Whoever is in it counts: there is no web of trust.
#[derive(Debug)]
pub struct Keyring(Vec<SignedPublicKey>);

impl Keyring {
    /// Reads the file: armoured blocks, one behind the other, or binary.
    ///
    /// # Errors
    /// What cannot be read in it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.contains(ARMOUR));
        let mut keys = Vec::new();
        let unreadable = |error: pgp::errors::Error| format!("a key cannot be read: {}", shown(&error.to_string()));
        match text {
            Some(text) => {
                for block in text.split(ARMOUR).skip(1) {
                    let block = format!("{ARMOUR}{block}");
                    let (several, _) = SignedPublicKey::from_armor_many(block.as_bytes()).map_err(unreadable)?;
                    for key in several.take(MOST_KEYS) {
                        keys.push(key.map_err(unreadable)?);
                    }
                }
            }
            None => {
                for key in SignedPublicKey::from_bytes_many(bytes).map_err(unreadable)?.take(MOST_KEYS) {
                    keys.push(key.map_err(unreadable)?);
                }
            }
        }
        if keys.is_empty() { Err("there is no public key in it".to_owned()) } else { Ok(Self(keys)) }
    }

    /// The signer, when one of the keys made this signature and could.
    pub(super) fn verify(&self, armoured: &[u8], payload: &[u8]) -> Result<Signer, Untrusted> {
        let malformed = |reason: String| Untrusted::Malformed { kind: "OpenPGP", reason: shown(&reason) };
        let (mut signatures, _) =
            DetachedSignature::from_armor_many(armoured.trim_ascii()).map_err(|error| malformed(error.to_string()))?;
        let signature = match (signatures.next(), signatures.next()) {
            (Some(Ok(only)), None) => only.signature,
            (Some(Err(error)), _) => return Err(malformed(error.to_string())),
            (None, _) => return Err(malformed("it is empty".to_owned())),
            (Some(Ok(_)), Some(_)) => return Err(malformed("it holds several".to_owned())),
        };
        if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
            return Err(malformed("it is no signature of a document".to_owned()));
        }
        if !signature.hash_alg().is_some_and(is_strong) {
            return Err(malformed("its hash is too weak: set `digest-algo SHA256` or a stronger one".to_owned()));
        }
        let Some(found) = self.0.iter().find_map(|key| Found::of(key, &signature)) else {
            return Err(Untrusted::UnknownKey(issuer(&signature)));
        };
        if !found.fits(&signature, payload) {
            return Err(Untrusted::Wrong);
        }
        found.may_sign(&signature)
    }
}

/// The key that a signature names, in the certificate that it is a part of.
struct Found<'k> {
    certificate: &'k SignedPublicKey,
    subkey: Option<&'k SignedPublicSubKey>,
}

impl<'k> Found<'k> {
    fn of(certificate: &'k SignedPublicKey, signature: &Signature) -> Option<Self> {
        let names = |key: &dyn KeyDetails| {
            let (id, fingerprint) = (key.legacy_key_id(), key.fingerprint());
            let by_fingerprint = signature.issuer_fingerprint();
            by_fingerprint.contains(&&fingerprint)
                || (by_fingerprint.is_empty() && signature.issuer_key_id().contains(&&id))
        };
        if names(&certificate.primary_key) {
            return Some(Self { certificate, subkey: None });
        }
        let subkey = certificate.public_subkeys.iter().find(|subkey| names(&subkey.key))?;
        Some(Self { certificate, subkey: Some(subkey) })
    }

    fn fits(&self, signature: &Signature, payload: &[u8]) -> bool {
        match self.subkey {
            Some(subkey) => signature.verify(&subkey.key, payload).is_ok(),
            None => signature.verify(&self.certificate.primary_key, payload).is_ok(),
        }
    }

    /// The signatures by which the certificate vouches for itself, newest first: of its user ids, or on its key directly.
    fn own_signatures(&self) -> Vec<&'k Signature> {
        let primary = &self.certificate.primary_key;
        let details = &self.certificate.details;
        let of_users = details.users.iter().flat_map(|user| {
            let certifies = |one: &&Signature| {
                one.typ() != Some(SignatureType::CertRevocation)
                    && one.verify_certification(primary, Tag::UserId, &user.id).is_ok()
            };
            user.signatures.iter().filter(certifies).collect::<Vec<_>>()
        });
        let direct = details.direct_signatures.iter().filter(|one| one.verify_key(primary).is_ok());
        newest_first(of_users.chain(direct).collect())
    }

    /// The signer, when the key could sign at the time that the signature says.
    fn may_sign(&self, signature: &Signature) -> Result<Signer, Untrusted> {
        let names = self.names();
        let primary = &self.certificate.primary_key;
        let key = match self.subkey {
            Some(subkey) => format!("{:X}", subkey.key.fingerprint()),
            None => format!("{:X}", primary.fingerprint()),
        };
        let who = names.first().cloned().unwrap_or_else(|| "nobody by name".to_owned());
        let is_revoked = !self.certificate.details.revocation_signatures.is_empty()
            || self.subkey.is_some_and(|subkey| {
                subkey.signatures.iter().any(|one| one.typ() == Some(SignatureType::SubkeyRevocation))
            });
        // Whoever put a revocation into the keyring means it, whether or not it can be verified.
        if is_revoked {
            return Err(Untrusted::Revoked { key, who });
        }
        let not_for =
            |reason: &str| Untrusted::NotForThis { key: key.clone(), who: who.clone(), reason: reason.to_owned() };
        let own = self.own_signatures();
        let vouches = own.first().ok_or_else(|| not_for("no user id of it is bound to it"))?;
        let made = signature.created().map_or(0, |at| at.as_secs());
        let mut limits = vec![(primary.created_at().as_secs(), expiry(own.iter().copied()))];
        match self.subkey {
            Some(subkey) => {
                let bindings = newest_first(
                    subkey
                        .signatures
                        .iter()
                        .filter(|one| one.verify_subkey_binding(primary, &subkey.key).is_ok())
                        .collect(),
                );
                let binding = bindings.first().ok_or_else(|| not_for("it is not bound to its primary key"))?;
                let agrees = binding
                    .embedded_signature()
                    .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
                if !binding.key_flags().sign() || !agrees {
                    return Err(not_for("it is no key for signing"));
                }
                limits.push((subkey.key.created_at().as_secs(), expiry(bindings.first().copied().into_iter())));
            }
            None if has_flags(vouches) && !vouches.key_flags().sign() => {
                return Err(not_for("it is no key for signing"));
            }
            None => {}
        }
        if let Some(life) = signature.signature_expiration_time() {
            limits.push((made, Some(life.as_secs())));
        }
        for (born, life) in limits {
            if let Some(when) = when_not(made, born, life) {
                return Err(Untrusted::NotValidThen { key, who, when });
            }
        }
        let primary = format!("{:X}", primary.fingerprint());
        // A rule may name the certificate by its fingerprint; the subkeys change.
        let names = names.into_iter().chain((primary != key).then_some(primary)).collect();
        Ok(Signer { key, names })
    }

    /// The mail addresses of its user ids that it vouches for; whole user ids where there is none in them.
    fn names(&self) -> Vec<String> {
        let primary = &self.certificate.primary_key;
        let bound = self.certificate.details.users.iter().filter(|user| {
            let signatures = || {
                user.signatures.iter().filter(|one| one.verify_certification(primary, Tag::UserId, &user.id).is_ok())
            };
            signatures().next().is_some() && signatures().all(|one| one.typ() != Some(SignatureType::CertRevocation))
        });
        let name = |id: &[u8]| {
            let id = String::from_utf8_lossy(id).into_owned();
            let mail = id.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(mail, _)| mail.to_owned());
            shown(&mail.unwrap_or(id))
        };
        bound.map(|user| name(user.id.id())).collect()
    }
}

fn newest_first(mut signatures: Vec<&Signature>) -> Vec<&Signature> {
    signatures.sort_by_key(|one| std::cmp::Reverse(one.created()));
    signatures
}

/// How long the key lives, in seconds from its making, as the newest of these says; `None`: for ever.
fn expiry<'s>(mut newest_first: impl Iterator<Item = &'s Signature>) -> Option<u32> {
    let life = newest_first.next()?.key_expiration_time()?;
    Some(life.as_secs()).filter(|seconds| *seconds > 0)
}

fn has_flags(signature: &Signature) -> bool {
    let is_flags = |data: &SubpacketData| matches!(data, SubpacketData::KeyFlags(_));
    signature.config().is_some_and(|config| config.hashed_subpackets().any(|one| is_flags(&one.data)))
}

fn when_not(made: u32, born: u32, life: Option<u32>) -> Option<String> {
    let shown = |seconds: u64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let ends = life.map(|life| u64::from(born).saturating_add(u64::from(life)));
    if made < born {
        return Some(format!("was made at {}, after the signature", shown(u64::from(born))));
    }
    let ended = ends.filter(|ends| u64::from(made) >= *ends)?;
    Some(format!("expired at {}, before the signature", shown(ended)))
}

fn is_strong(hash: HashAlgorithm) -> bool {
    [
        HashAlgorithm::Sha256,
        HashAlgorithm::Sha384,
        HashAlgorithm::Sha512,
        HashAlgorithm::Sha3_256,
        HashAlgorithm::Sha3_512,
    ]
    .contains(&hash)
}

/// What a signature says of the key that made it.
fn issuer(signature: &Signature) -> String {
    let fingerprint = signature.issuer_fingerprint().first().map(|one| format!("{one:X}"));
    let id = || signature.issuer_key_id().first().map(|id| shown(&id.to_string()).to_uppercase());
    fingerprint.or_else(id).unwrap_or_else(|| "of nobody".to_owned())
}
