//! JWTs of agents and operators: issuers with their keys, what their tokens must say, and the labels that claims become.
//!
//! RS256, ES256 and EdDSA (Ed25519) are verified with ring; nothing else is, `none` least of all. Keys come from a file in the form of a JWKS
//! (RFC 7517): nothing is fetched, and no token can name where its key is. The file is no secret, so none may stand in it: one that holds the private
//! part of a key, or a symmetric key, is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::roles::{RoleRule, Roles};
use super::{Denied, Identity, MOST_LABELS, Source, check_key, discreet, presentable};
use crate::labels::Labels;
use crate::time::{Timestamp, parse_duration};

/// The longest token that is looked at, in bytes. Kubernetes' have about 1 KiB.
pub const LONGEST_TOKEN: usize = 16 * 1024;

/// What signatures are made with that count here.
const ALGORITHMS: [&str; 3] = ["RS256", "ES256", "EdDSA"];

/// Most issuers, and most keys of one.
const MOST: usize = 64;

/// How far the clocks of an issuer and of this machine may differ when nothing is said.
const LEEWAY: Duration = Duration::from_secs(60);

/// The longest such difference.
const LONGEST_LEEWAY: Duration = Duration::from_secs(600);

/// One issuer, as the file of issuers has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IssuerEntry {
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be, or hold.
    pub audience: String,
    /// The file with its keys; a relative path is taken from the directory of the file of issuers.
    pub jwks_file: String,
    /// How far clocks may differ.
    pub leeway: Option<String>,
    /// The claims that become labels of agents: label to path, in which `/` leads into an object.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Which claims make their holder an operator with which role; the first rule that fits counts. Agents' issuers have none.
    #[serde(default)]
    pub roles: Vec<RoleRule>,
    /// The claim with the operator's name for the records: `sub`, when nothing is said.
    pub name: Option<String>,
    /// The claim with the address by which the operator is known in commits.
    pub email: Option<String>,
}

/// The file of issuers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuersFile {
    /// Each with its keys.
    pub issuers: Vec<IssuerEntry>,
}

impl IssuersFile {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: Self = serde_yaml::from_str(text).map_err(|error| discreet(&error.to_string()))?;
        if file.issuers.len() > MOST {
            return Err(format!("{} issuers, and at most {MOST} fit", file.issuers.len()));
        }
        Ok(file)
    }
}

/// An issuer that is trusted.
#[derive(Debug)]
pub struct Issuer {
    issuer: String,
    audience: String,
    leeway: Duration,
    labels: BTreeMap<String, String>,
    /// Set when its tokens are for operators.
    roles: Option<Roles>,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    public: Public,
    /// The digest of the issuer's rules and this key.
    source: [u8; 32],
}

#[derive(Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Public {
    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            Self::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature).is_ok(),
        }
    }
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    used_for: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

impl Jwk {
    /// The key, when it is one of those that are understood and may be used for signatures.
    fn public(&self) -> Option<Public> {
        let public = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Public::Rsa { n: decode(&self.n)?, e: decode(&self.e)? },
            ("EC", Some("P-256")) => {
                let (x, y) = (decode(&self.x)?, decode(&self.y)?);
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                Public::P256([&[4], &x[..], &y[..]].concat())
            }
            ("OKP", Some("Ed25519")) => Public::Ed25519(decode(&self.x).filter(|x| x.len() == 32)?),
            _ => return None,
        };
        let may = self.used_for.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|uses| uses.iter().any(|purpose| purpose == "verify"))
            && self.alg.as_deref().is_none_or(|algorithm| algorithm == public.algorithm());
        may.then_some(public)
    }
}

/// The members of a key with which tokens could be made: of RSA, of curves, of symmetric keys (RFC 7518, 6), and of newer kinds.
const SECRET_PARTS: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// Refuses a file in which something secret stands: issuers publish none, so somebody exported the wrong half. Of what stands there, its place
/// alone is told.
fn refuse_secrets(keys: &[Value]) -> Result<(), String> {
    // Some programs write what a public key has not as nothing.
    let says_something = |value: &Value| !value.is_null() && value != "";
    let is_secret = |key: &Value| SECRET_PARTS.iter().any(|part| key.get(part).is_some_and(says_something));
    match keys.iter().position(is_secret) {
        Some(at) => Err(format!(
            "key {} in it has its private part, or is symmetric (one of {}), and whoever reads it can make tokens: leave public keys there \
             alone, and if others could read the file, let the issuer replace that one",
            at + 1,
            SECRET_PARTS.map(|part| format!("`{part}`")).join(", ")
        )),
        None => Ok(()),
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

impl Issuer {
    /// An issuer of the file, with the content of its file of keys.
    ///
    /// # Errors
    /// When one of them cannot be used, with the reason.
    pub fn new(entry: &IssuerEntry, jwks: &str) -> Result<Self, String> {
        if entry.issuer.is_empty() || entry.audience.is_empty() {
            return Err(
                "`issuer` and `audience` must say something: a token that is meant for others proves nothing here"
                    .to_owned(),
            );
        }
        let leeway = match &entry.leeway {
            Some(text) => parse_duration(text).map_err(|error| error.to_string())?,
            None => LEEWAY,
        };
        if leeway > LONGEST_LEEWAY {
            return Err("`leeway` is 10m at most".to_owned());
        }
        if entry.labels.len() > MOST_LABELS - 2 {
            return Err(format!("more than {} labels", MOST_LABELS - 2));
        }
        entry.labels.keys().try_for_each(|key| check_key(key))?;
        let read: Jwks =
            serde_json::from_str(jwks).map_err(|error| format!("no JWKS: {}", discreet(&error.to_string())))?;
        refuse_secrets(&read.keys)?;
        let roles = Roles::of(entry)?;
        let rules = format!("{:?}", (&entry.issuer, &entry.audience, &entry.labels, &roles));
        let keys: Vec<Key> = read
            .keys
            .into_iter()
            // Keys of kinds that are not known, or that lack something, are passed over (RFC 7517, 5).
            .filter_map(|jwk| {
                let jwk: Jwk = serde_json::from_value(jwk).ok()?;
                let public = jwk.public()?;
                let source = Sha256::digest(format!("{rules}{public:?}")).into();
                Some(Key { id: jwk.kid, public, source })
            })
            .take(MOST + 1)
            .collect();
        if keys.is_empty() {
            return Err(
                "no key for signatures in it: RSA (RS256), P-256 (ES256) and Ed25519 (EdDSA) are understood".to_owned()
            );
        }
        if keys.len() > MOST {
            return Err(format!("more than {MOST} keys"));
        }
        let (issuer, audience) = (entry.issuer.clone(), entry.audience.clone());
        Ok(Self { issuer, audience, leeway, labels: entry.labels.clone(), roles, keys })
    }

    /// True when its tokens make operators, and not agents.
    pub fn makes_operators(&self) -> bool {
        self.roles.is_some()
    }

    /// True when a token that one of these keys signed would still be believed.
    pub fn has(&self, source: &[u8; 32]) -> bool {
        self.keys.iter().any(|key| key.source == *source)
    }

    fn judge(&self, token: &Parts<'_>, now: Timestamp) -> Result<Identity, Denied> {
        // What is cheap to refuse is refused before anything is computed.
        if !names(token.claims.get("aud"), &self.audience) {
            return Err(Denied::Audience);
        }
        let expires = token.time("exp")?.ok_or(Denied::Malformed("it has no `exp`"))? + self.leeway;
        if expires <= now {
            return Err(Denied::Expired(expires));
        }
        if let Some(begins) = token.time("nbf")?
            && begins > now + self.leeway
        {
            return Err(Denied::NotYet(begins));
        }
        let fits = |key: &&Key| {
            key.public.algorithm() == token.algorithm
                && (key.id.is_none() || token.key.is_none() || key.id.as_deref() == token.key)
        };
        if !ALGORITHMS.contains(&token.algorithm.as_str()) {
            return Err(Denied::Algorithm);
        }
        let mut candidates = self.keys.iter().filter(fits).peekable();
        candidates.peek().ok_or(Denied::Key)?;
        let signer = candidates.find(|key| key.public.verifies(token.signed, &token.signature));
        let signer = signer.ok_or(Denied::Signature)?;
        let own =
            [("jwt.iss", Some(self.issuer.as_str())), ("jwt.sub", token.claims.get("sub").and_then(Value::as_str))];
        let own = own.into_iter().filter_map(|(key, value)| Some((key.to_owned(), presentable(value?)?.to_owned())));
        let given = self.labels.iter().filter_map(|(key, path)| Some((key.clone(), claim(&token.claims, path)?)));
        let of_operator = self.roles.as_ref().map(|roles| roles.labels(&token.claims)).transpose()?.unwrap_or_default();
        Ok(Identity {
            labels: Labels::proven(own.chain(given).chain(of_operator)),
            expires: Some(expires),
            source: Source::Issuer(signer.source),
            holder: holder(token),
        })
    }
}

/// What tells the holder of a token from others of its issuer: the subject, or the token itself where it names none.
fn holder(token: &Parts<'_>) -> [u8; 32] {
    let text = |name: &str| token.claims.get(name).and_then(Value::as_str);
    match text("sub").filter(|subject| !subject.is_empty()) {
        Some(subject) => Sha256::digest(format!("{:?}", (text("iss"), subject))).into(),
        None => Sha256::digest(token.signed).into(),
    }
}

/// True when an `aud` is this one, or a list that holds it.
fn names(audience: Option<&Value>, wanted: &str) -> bool {
    match audience {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(wanted)),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => false,
    }
}

/// The claim at a path, as the value of a label.
fn claim(claims: &Value, path: &str) -> Option<String> {
    presentable(&scalar(claim_at(claims, path)?)?).map(str::to_owned)
}

/// The claim at a path. `/` leads into an object; a claim whose own name has slashes is found by its whole name.
pub(super) fn claim_at<'c>(claims: &'c Value, path: &str) -> Option<&'c Value> {
    claims.get(path).or_else(|| path.split('/').try_fold(claims, |inside, name| inside.get(name)))
}

/// Text, numbers and truths as text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A token in its parts, nothing of which is verified.
struct Parts<'a> {
    algorithm: String,
    key: Option<&'a str>,
    claims: Value,
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl Parts<'_> {
    /// A time in whole seconds; fractions, which the form allows, are cut off.
    fn time(&self, name: &str) -> Result<Option<Timestamp>, Denied> {
        let Some(value) = self.claims.get(name) else { return Ok(None) };
        let seconds =
            value.as_u64().or_else(|| value.as_f64().filter(|time| (0.0..1e15).contains(time)).map(|time| time as u64));
        let seconds = seconds.ok_or(Denied::Malformed("a time in it is none"))?;
        Ok(Some(Timestamp::from_millis(seconds.saturating_mul(1_000))))
    }
}

/// The issuers that are trusted.
#[derive(Debug, Default)]
pub struct Issuers(pub Vec<Issuer>);

impl Issuers {
    /// What a token proves at this time.
    ///
    /// # Errors
    /// With the reason why it proves nothing.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Identity, Denied> {
        if token.len() > LONGEST_TOKEN {
            return Err(Denied::Malformed("it is longer than 16 KiB"));
        }
        let no_jwt = Denied::Malformed("it is no JWT");
        let (signed, signature) = token.rsplit_once('.').ok_or(no_jwt.clone())?;
        let (header, claims) = signed.split_once('.').ok_or(no_jwt.clone())?;
        let json = |part: &str| {
            decode(part).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()).filter(Value::is_object)
        };
        let (header, claims) = json(header).zip(json(claims)).ok_or(no_jwt.clone())?;
        let signature = decode(signature).ok_or(no_jwt)?;
        let text = |name: &str| header.get(name).and_then(Value::as_str);
        if header.get("crit").is_some() {
            return Err(Denied::Malformed("it has critical headers"));
        }
        let algorithm = text("alg").ok_or(Denied::Malformed("it has no `alg`"))?.to_owned();
        let parts = Parts { algorithm, key: text("kid"), claims, signed: signed.as_bytes(), signature };
        let issuer = parts.claims.get("iss").and_then(Value::as_str);
        let mut reason = Denied::Issuer;
        // One issuer may stand there several times, with another audience each.
        for candidate in self.0.iter().filter(|one| Some(one.issuer.as_str()) == issuer) {
            match candidate.judge(&parts, now) {
                Ok(identity) => return Ok(identity),
                Err(denied) => reason = denied,
            }
        }
        Err(reason)
    }

    /// True when a token of this source would still be believed.
    pub fn has(&self, source: &[u8; 32]) -> bool {
        self.0.iter().any(|issuer| issuer.has(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    };
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use serde_json::json;

    /// Somebody who signs tokens.
    enum Signer {
        Ec(EcdsaKeyPair),
        Ed(Ed25519KeyPair),
        Rsa(RsaKeyPair),
    }

    fn encode(bytes: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    impl Signer {
        fn ec() -> Self {
            let random = SystemRandom::new();
            let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
            Self::Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).expect("a key"))
        }

        fn ed() -> Self {
            let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
            Self::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
        }

        fn rsa() -> Self {
            let path = format!("{}/src/forge/outbound/tests/tls/app-key.pem", env!("CARGO_MANIFEST_DIR"));
            let key = PrivateKeyDer::from_pem_file(path).expect("a key");
            let pair = RsaKeyPair::from_pkcs8(key.secret_der()).or_else(|_| RsaKeyPair::from_der(key.secret_der()));
            Self::Rsa(pair.expect("a key"))
        }

        fn jwk(&self, id: &str) -> Value {
            match self {
                Self::Ec(key) => {
                    let point = key.public_key().as_ref();
                    json!({"kty": "EC", "crv": "P-256", "kid": id, "x": encode(&point[1..33]), "y": encode(&point[33..])})
                }
                Self::Ed(key) => {
                    json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "use": "sig", "x": encode(key.public_key())})
                }
                Self::Rsa(key) => {
                    let parts = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                    json!({"kty": "RSA", "alg": "RS256", "kid": id, "n": encode(parts.n), "e": encode(parts.e)})
                }
            }
        }

        fn algorithm(&self) -> &'static str {
            match self {
                Self::Ec(_) => "ES256",
                Self::Ed(_) => "EdDSA",
                Self::Rsa(_) => "RS256",
            }
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
            let random = SystemRandom::new();
            let signature = match self {
                Self::Ec(key) => key.sign(&random, signed.as_bytes()).expect("signed").as_ref().to_vec(),
                Self::Ed(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
                Self::Rsa(key) => {
                    let mut signature = vec![0; key.public().modulus_len()];
                    key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).expect("signed");
                    signature
                }
            };
            format!("{signed}.{}", encode(signature))
        }

        fn token(&self, id: &str, claims: &Value) -> String {
            self.sign(&json!({"alg": self.algorithm(), "kid": id, "typ": "JWT"}), claims)
        }
    }

    fn issuer(keys: &[Value]) -> Issuer {
        let text = "issuers:\n- issuer: https://kubernetes.default.svc\n  audience: gitamp\n  jwksFile: keys.json\n  labels:\n    \
                    k8s.namespace.name: kubernetes.io/namespace\n    k8s.serviceaccount.name: kubernetes.io/serviceaccount/name\n    team: example.com/team\n";
        let file = IssuersFile::parse(text).expect("a file");
        Issuer::new(&file.issuers[0], &json!({"keys": keys}).to_string()).expect("an issuer")
    }

    /// What Kubernetes puts into the token of a service account.
    fn claims() -> Value {
        json!({
            "iss": "https://kubernetes.default.svc", "aud": ["gitamp"], "exp": 2_000, "nbf": 1_000, "iat": 1_000,
            "sub": "system:serviceaccount:shop:gateway", "example.com/team": "a",
            "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "gateway", "uid": "1"}, "pod": {"name": "gw-1"}}
        })
    }

    const NOON: Timestamp = Timestamp::from_millis(1_500_000);

    #[test]
    fn claims_of_a_verified_token_become_labels() {
        for signer in [Signer::ec(), Signer::ed(), Signer::rsa()] {
            let other = Signer::ed().jwk("other");
            let unknown = json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"});
            let issuers = Issuers(vec![issuer(&[other, unknown, signer.jwk("one")])]);
            let identity = issuers.verify(&signer.token("one", &claims()), NOON).expect("a good token");
            assert_eq!(
                identity.labels.to_string(),
                "jwt.iss=https://kubernetes.default.svc, jwt.sub=system:serviceaccount:shop:gateway, k8s.namespace.name=shop, \
                 k8s.serviceaccount.name=gateway, team=a"
            );
            assert!(identity.labels.is_proven("k8s.namespace.name"));
            assert_eq!(identity.expires, Some(Timestamp::from_millis(2_060_000)), "with the leeway");
            let Source::Issuer(source) = identity.source else { panic!("{identity:?}") };
            assert!(issuers.has(&source));
            assert!(!Issuers(vec![issuer(&[Signer::ec().jwk("one")])]).has(&source), "the key is gone");
        }
    }

    #[test]
    fn what_proves_nothing_is_refused_with_the_reason() {
        let signer = Signer::ec();
        let issuers = Issuers(vec![issuer(&[signer.jwk("one")])]);
        let at = Timestamp::from_millis;
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            signer.token("one", &claims)
        };
        let good = signer.token("one", &claims());
        let bare = |header: Value| signer.sign(&header, &claims());
        let without_signature = format!("{}.", good.rsplit_once('.').expect("parts").0);
        for (what, token, now, wanted) in [
            ("another issuer", with("iss", json!("https://evil")), NOON, Denied::Issuer),
            ("no issuer", with("iss", json!(["https://kubernetes.default.svc"])), NOON, Denied::Issuer),
            ("another audience", with("aud", json!("vault")), NOON, Denied::Audience),
            ("no audience", with("aud", json!(null)), NOON, Denied::Audience),
            ("no end", with("exp", json!(null)), NOON, Denied::Malformed("a time in it is none")),
            ("an end that is none", with("exp", json!("2000")), NOON, Denied::Malformed("a time in it is none")),
            ("ended", good.clone(), at(2_060_000), Denied::Expired(at(2_060_000))),
            ("not yet", good.clone(), at(939_999), Denied::NotYet(at(1_000_000))),
            ("another key id", signer.token("two", &claims()), NOON, Denied::Key),
            ("another key", Signer::ec().token("one", &claims()), NOON, Denied::Signature),
            ("no algorithm", bare(json!({"kid": "one"})), NOON, Denied::Malformed("it has no `alg`")),
            ("the algorithm `none`", bare(json!({"alg": "none"})), NOON, Denied::Algorithm),
            ("an algorithm of another key", bare(json!({"alg": "RS256"})), NOON, Denied::Key),
            ("a symmetric algorithm", bare(json!({"alg": "HS256", "kid": "one"})), NOON, Denied::Algorithm),
            (
                "critical headers",
                bare(json!({"alg": "ES256", "crit": ["exp"]})),
                NOON,
                Denied::Malformed("it has critical headers"),
            ),
            ("no signature", without_signature, NOON, Denied::Signature),
            ("other claims", good.replacen('.', ".e30", 1), NOON, Denied::Malformed("it is no JWT")),
            ("no JWT", "gitamp_abc".to_owned(), NOON, Denied::Malformed("it is no JWT")),
            ("too long", "a".repeat(LONGEST_TOKEN + 1), NOON, Denied::Malformed("it is longer than 16 KiB")),
        ] {
            assert_eq!(issuers.verify(&token, now), Err(wanted), "{what}");
        }
        assert!(
            issuers.verify(&good, at(2_059_999)).is_ok() && issuers.verify(&good, at(940_000)).is_ok(),
            "within the leeway"
        );
        assert!(issuers.verify(&bare(json!({"alg": "ES256"})), NOON).is_ok(), "a token that names no key");
    }

    #[test]
    fn holders_are_told_apart_by_issuer_and_subject() {
        let signer = Signer::ed();
        let issuers = Issuers(vec![issuer(&[signer.jwk("one")])]);
        let holder = |changes: Value| {
            let mut claims = claims();
            claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
            issuers.verify(&signer.token("one", &claims), NOON).expect("a good token").holder
        };
        let own = holder(json!({}));
        assert_eq!(holder(json!({"iat": 1_001, "jti": "renewed"})), own, "the next token of the same one");
        assert_ne!(holder(json!({"sub": "system:serviceaccount:shop:other"})), own);
        assert_ne!(holder(json!({"sub": ""})), holder(json!({"sub": "", "jti": "2"})), "nobody: each token for itself");
    }

    #[test]
    fn issuers_that_cannot_be_used_say_why() {
        let entry = |more: &str| {
            let text = format!("issuers: [{{issuer: a, audience: b, jwksFile: k{more}}}]");
            IssuersFile::parse(&text).expect("a file").issuers.remove(0)
        };
        let keys = json!({"keys": [Signer::ed().jwk("one")]}).to_string();
        for (entry, keys, words) in [
            (entry(""), "{}", "no JWKS"),
            (entry(""), "\"gitamp_the-token\"", "no JWKS: invalid type: string \"***\", expected"),
            (entry(""), "{\"keys\": \"gitamp_the-token\"}", "no JWKS: invalid type: string \"***\", expected"),
            (
                entry(""),
                r#"{"keys": [{"kty": "oct"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}"#,
                "no key for signatures",
            ),
            (entry(", leeway: 1h"), &keys, "10m at most"),
            (entry(", leeway: soon"), &keys, "not a duration"),
            (entry(", labels: {jwt.iss: x}"), &keys, "given by gitamp itself"),
        ] {
            let error = Issuer::new(&entry, keys).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
        let no_audience =
            IssuersFile::parse("issuers: [{issuer: a, audience: '', jwksFile: k}]").expect("a file").issuers.remove(0);
        assert!(Issuer::new(&no_audience, &keys).expect_err("no audience").contains("`audience`"));
        assert!(IssuersFile::parse("issuers: [{issuer: a, jwksFile: k}]").expect_err("none").contains("audience"));
    }

    #[test]
    fn a_file_of_keys_with_a_secret_in_it_is_refused_and_the_secret_not_repeated() {
        let entry =
            IssuersFile::parse("issuers: [{issuer: a, audience: b, jwksFile: k}]").expect("a file").issuers.remove(0);
        let open = |keys: &[Value]| Issuer::new(&entry, &json!({"keys": keys}).to_string()).map(drop);
        for signer in [Signer::ec(), Signer::ed(), Signer::rsa()] {
            let good = signer.jwk("one");
            assert_eq!(open(std::slice::from_ref(&good)), Ok(()));
            for part in SECRET_PARTS {
                for nothing in [json!(null), json!("")] {
                    let mut fine = good.clone();
                    fine[part] = nothing;
                    assert_eq!(open(&[fine]), Ok(()), "{part}");
                }
                for value in [json!("hunter2"), json!(["hunter2"])] {
                    let mut bad = good.clone();
                    bad[part] = value;
                    let error = open(&[good.clone(), bad]).expect_err(part);
                    assert!(
                        error.contains("key 2 in it has its private part") && !error.contains("hunter2"),
                        "{error}"
                    );
                }
            }
        }
        let symmetric = json!({"kty": "oct", "k": "hunter2", "kid": "hunter2"});
        let error = open(&[symmetric, Signer::ed().jwk("one")]).expect_err("a symmetric key");
        assert!(
            error.contains("key 1 in it") && error.contains("is symmetric") && !error.contains("hunter2"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_without_a_panic(token in "[A-Za-z0-9_.-]{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let issuers = Issuers(vec![issuer(&[json!({"kty": "OKP", "crv": "Ed25519", "x": encode([7; 32])})])]);
            prop_assert!(issuers.verify(&token, NOON).is_err());
            let made = format!("{}.{}.{}", encode(&bytes), encode(claims().to_string()), encode(&bytes));
            prop_assert!(issuers.verify(&made, NOON).is_err());
        }
    }
}
