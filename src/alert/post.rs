//! One message to one receiver: what is sent, signed and addressed, and what the answer means.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::alert::payload;
use crate::http::{Answer, Client, ClientError, Request, pause};
use crate::incident::desk::Delivery;
use crate::settings::Secret;
use crate::settings::alerts::{Receiver, ReceiverKind, is_exposed};
use crate::time::Timestamp;
use crate::view::text::{clip, plain};

/// From the first packet to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// When a receiver says that it is too much, and not until when.
const UNTOLD_PAUSE: Duration = Duration::from_secs(60);

/// Characters of an answer that people see.
const LONGEST_ANSWER: usize = 200;

/// Why a message did not get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The receiver wants nothing before this time has passed.
    Later(Duration),
    /// It does not work, at the moment or before a person did something; the reason.
    Failed(String),
    /// Not this message; the reason.
    Refused(String),
}

/// What came back of a message that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The HTTP status.
    pub status: u16,
    /// What was said, in one line.
    pub said: String,
}

/// Writes to one receiver.
pub struct Post {
    receiver: Receiver,
    client: Option<Client>,
}

impl Post {
    /// Nothing sent yet.
    pub fn new(receiver: Receiver) -> Self {
        Self { receiver, client: None }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn send(&mut self, delivery: &Delivery, now: Timestamp) -> Result<Taken, Trouble> {
        let body = match self.receiver.kind {
            ReceiverKind::Webhook => payload::webhook(delivery, now),
            ReceiverKind::Slack => payload::slack(delivery),
            ReceiverKind::Alertmanager => payload::alertmanager(delivery, now),
        };
        // The same for every try of one message, and another when an incident comes back after its end.
        let since = Duration::from_millis(delivery.incident.since.as_millis()).as_secs();
        let id = format!("{}-{since}-{}", delivery.incident.id, delivery.sequence);
        self.deliver(&id, &body, now).await
    }

    /// Sends a message that says that nothing is wrong.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn test(&mut self, instance: &str, now: Timestamp) -> Result<Taken, Trouble> {
        let body = match self.receiver.kind {
            ReceiverKind::Webhook => payload::webhook_test(instance, now),
            ReceiverKind::Slack => payload::slack_test(instance),
            ReceiverKind::Alertmanager => payload::alertmanager_test(instance, now),
        };
        self.deliver(&format!("test-{}", now.as_millis()), &body, now).await
    }

    async fn deliver(&mut self, id: &str, body: &Value, now: Timestamp) -> Result<Taken, Trouble> {
        let request = request(&self.receiver, id, Bytes::from(body.to_string()), now)?;
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                let (ca_file, proxies) = (self.receiver.ca_file.clone(), self.receiver.proxies.clone());
                let make = move || Client::new(ca_file.as_deref(), DEADLINE, proxies);
                let made = tokio::task::spawn_blocking(make).await;
                let made = made.map_err(|error| Trouble::Failed(error.to_string()))?;
                self.client.insert(made.map_err(|error| Trouble::Failed(error.to_string()))?).clone()
            }
        };
        let answer = client.send(&request).await.map_err(|error: ClientError| Trouble::Failed(error.to_string()))?;
        judge(&unrepeated(answer, &request), now)
    }
}

/// The shortest path of an address that is taken for a secret: `/services/T0/B0/...` is one, `/alerts` is none.
const SHORTEST_SECRET_PATH: usize = 12;

/// An answer without the address and the token that it was sent to: what it says is shown, and it may repeat them.
fn unrepeated(mut answer: Answer, request: &Request) -> Answer {
    let path = request.target.path();
    let place = Some(path).filter(|path| path.len() >= SHORTEST_SECRET_PATH && !path.ends_with("/api/v2/alerts"));
    let tokens = request.secrets.iter().filter_map(|(_, secret)| secret.expose().rsplit(' ').next());
    for secret in place.into_iter().chain(request.target.query()).chain(tokens).map(Secret::new) {
        answer.body = secret.hidden_in(&String::from_utf8_lossy(&answer.body)).into();
    }
    answer
}

/// The request for a body.
fn request(receiver: &Receiver, id: &str, body: Bytes, now: Timestamp) -> Result<Request, Trouble> {
    let failed = |error: &dyn std::fmt::Display| Trouble::Failed(error.to_string());
    let mut target = receiver.address.get().map_err(|error| failed(&error))?;
    let mut headers = Vec::new();
    let mut secrets = Vec::new();
    match receiver.kind {
        ReceiverKind::Webhook => {
            let seconds = Duration::from_millis(now.as_millis()).as_secs().to_string();
            let keys = receiver.secrets().map_err(|error| failed(&error))?;
            if let Some(signature) = signature(&keys, id, &seconds, &body) {
                headers.push(("webhook-signature", signature));
            }
            headers.push(("webhook-id", id.to_owned()));
            headers.push(("webhook-timestamp", seconds));
        }
        ReceiverKind::Slack => {}
        ReceiverKind::Alertmanager => {
            let base = target.path().trim_end_matches('/').to_owned();
            if !base.ends_with("/api/v2/alerts") {
                target.set_path(&format!("{base}/api/v2/alerts"));
            }
        }
    }
    if let Some(file) = &receiver.token {
        if is_exposed(&target) {
            return Err(Trouble::Failed(
                "the address begins with http://, which would show the token: use https://".to_owned(),
            ));
        }
        let token = file.read().map_err(|error| failed(&error))?;
        secrets.push(("authorization", Secret::new(format!("Bearer {}", token.expose()))));
    }
    Ok(Request { method: "POST", target, headers, secrets, body: Some(body) })
}

/// The signature in the form of Standard Webhooks, by each key, in the order of the file: `v1,<base64> v1,<base64>`. What is signed is the
/// id, the time in seconds and the body, with dots between them. A key is what stands behind `whsec_` in base64, or else the line as it is.
/// `None`: there is no key.
pub fn signature(keys: &[Secret], id: &str, seconds: &str, body: &[u8]) -> Option<String> {
    let sign = |key: &Secret| {
        let key = match key.expose().strip_prefix("whsec_").map(|key| STANDARD.decode(key)) {
            Some(Ok(key)) => key,
            Some(Err(_)) | None => key.expose().as_bytes().to_vec(),
        };
        let mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        let mac = [id.as_bytes(), b".", seconds.as_bytes(), b".", body]
            .into_iter()
            .fold(mac, |mac, part| mac.chain_update(part));
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    };
    let all: Vec<String> = keys.iter().filter_map(sign).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// What an answer means.
fn judge(answer: &Answer, now: Timestamp) -> Result<Taken, Trouble> {
    let said = clip(&plain(&String::from_utf8_lossy(answer.body.get(..4096).unwrap_or(&answer.body))), LONGEST_ANSWER);
    let status = answer.status;
    let told = |what: &str| {
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        format!("{what} ({status}){said}")
    };
    match status {
        200..=299 => Ok(Taken { status, said }),
        429 => Err(Trouble::Later(pause(answer, now).unwrap_or(UNTOLD_PAUSE))),
        503 if answer.retry_after.is_some() => Err(Trouble::Later(pause(answer, now).unwrap_or(UNTOLD_PAUSE))),
        408 | 425 | 500..=599 => Err(Trouble::Failed(told("the receiver has trouble"))),
        300..=399 => {
            Err(Trouble::Failed(format!("the receiver sends us elsewhere ({status}): name the right address")))
        }
        401 | 403 => Err(Trouble::Failed(told("the receiver does not accept who we are"))),
        // Slack says so when the webhook was removed.
        404 | 410 => Err(Trouble::Failed(told("there is no such receiver"))),
        _ => Err(Trouble::Refused(told("the receiver refuses it"))),
    }
}
