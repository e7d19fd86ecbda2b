//! Who we are to a forge: a token from a file, or a GitHub App that gets itself one for an hour.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use crate::settings::forge::Kind;
use crate::settings::{Secret, SecretFile};
use crate::time::Timestamp;

/// How long a JWT of an App is good: GitHub takes ten minutes at most, and clocks differ.
const JWT_LIFE: Duration = Duration::from_secs(480);

/// How far a JWT is dated back, for clocks that are behind ours.
const JWT_SLACK: Duration = Duration::from_secs(60);

/// An installation token is good for an hour; a new one is asked for this much earlier.
pub const RENEWAL: Duration = Duration::from_secs(300);

/// Why we cannot say who we are.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] crate::settings::secret::SecretError),
    /// What a header cannot carry.
    #[error("the token in {0} holds characters that no token has")]
    Token(String),
    /// The App's key is none.
    #[error("{0} holds no RSA private key in PEM form, as GitHub hands it out for an App")]
    Key(String),
}

/// The headers that go with every request of this forge, the secret one among them.
///
/// # Errors
/// When the token's file cannot be used.
pub fn with_token(
    kind: Kind,
    file: &SecretFile,
    user: Option<&str>,
) -> Result<(&'static str, Secret), CredentialError> {
    let token = file.read()?;
    let token = token.expose();
    if !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(CredentialError::Token(file.path().display().to_string()));
    }
    Ok(match (kind, user) {
        (_, Some(user)) => {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{token}"));
            ("authorization", Secret::new(format!("Basic {pair}")))
        }
        (Kind::GitLab, None) => ("private-token", Secret::new(token)),
        (Kind::Gitea, None) => ("authorization", Secret::new(format!("token {token}"))),
        (Kind::GitHub | Kind::Bitbucket, None) => bearer(token),
    })
}

/// The header for a token of this kind.
pub fn bearer(token: &str) -> (&'static str, Secret) {
    ("authorization", Secret::new(format!("Bearer {token}")))
}

/// What proves to GitHub that we are the App, for a few minutes.
///
/// # Errors
/// When the key's file cannot be used.
pub fn app_jwt(app: &str, key: &SecretFile, now: Timestamp) -> Result<Secret, CredentialError> {
    let no_key = || CredentialError::Key(key.path().display().to_string());
    let pem = key.read()?;
    let der = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| no_key())?;
    let pair = if let PrivateKeyDer::Pkcs1(der) = &der {
        ring::signature::RsaKeyPair::from_der(der.secret_pkcs1_der())
    } else {
        ring::signature::RsaKeyPair::from_pkcs8(der.secret_der())
    };
    let pair = pair.map_err(|_| no_key())?;
    let seconds = Duration::from_millis(now.as_millis()).as_secs();
    let claims = json!({
        "iat": seconds.saturating_sub(JWT_SLACK.as_secs()),
        "exp": seconds + JWT_LIFE.as_secs(),
        "iss": app,
    });
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let mut signature = vec![0; pair.public().modulus_len()];
    let randomness = ring::rand::SystemRandom::new();
    pair.sign(&ring::signature::RSA_PKCS1_SHA256, &randomness, signed.as_bytes(), &mut signature)
        .map_err(|_| no_key())?;
    Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

/// An App's token for one installation.
#[derive(Clone, Debug)]
pub struct InstallationToken {
    /// The token.
    pub token: Secret,
    /// When it stops being good.
    pub until: Timestamp,
}

impl InstallationToken {
    /// Reads GitHub's answer; `None` when it is not one.
    pub fn read(body: &[u8], now: Timestamp) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(body).ok()?;
        let token = value["token"].as_str().filter(|token| token.chars().all(|c| c.is_ascii_graphic()))?;
        let until = value["expires_at"].as_str().and_then(|text| text.parse().ok());
        Some(Self { token: Secret::new(token), until: until.unwrap_or(now + Duration::from_secs(3600)) })
    }

    /// True while it can be used.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now + RENEWAL < self.until
    }
}
