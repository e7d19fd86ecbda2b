//! Somebody who signs JWTs, as an identity provider does.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

/// Its key.
pub(crate) enum Issuer {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
    }

    pub(crate) fn p256() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        Self::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).expect("a key"))
    }

    /// Always the same, because making one takes long.
    pub(crate) fn rsa() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/forge/outbound/tests/tls/app-key.pem");
        let key = PrivateKeyDer::from_pem_file(path).expect("a key");
        let pair = RsaKeyPair::from_pkcs8(key.secret_der()).or_else(|_| RsaKeyPair::from_der(key.secret_der()));
        Self::Rsa(pair.expect("a key"))
    }

    /// What its algorithm is called.
    pub(crate) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    /// Its public key under this name, as a provider publishes it.
    pub(crate) fn key(&self, id: &str) -> Value {
        let mut key = match self {
            Self::Ed25519(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key())}),
            Self::P256(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])})
            }
            Self::Rsa(key) => {
                let parts = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "alg": "RS256", "n": encode(parts.n), "e": encode(parts.e)})
            }
        };
        (key["kid"], key["use"]) = (json!(id), json!("sig"));
        key
    }

    /// The file of its key.
    pub(crate) fn jwks(&self) -> String {
        json!({"keys": [self.key("one")]}).to_string()
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(self.algorithm(), claims)
    }

    /// The same, under a header that names this algorithm.
    pub(crate) fn sign(&self, algorithm: &str, claims: &Value) -> String {
        self.sign_under(&json!({"alg": algorithm, "kid": "one"}), claims)
    }

    /// The same, under this header.
    pub(crate) fn sign_under(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Ed25519(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
            Self::P256(key) => key.sign(&random, signed.as_bytes()).expect("signed").as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).expect("signed");
                signature
            }
        };
        format!("{signed}.{}", encode(signature))
    }
}
