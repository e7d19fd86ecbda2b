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

/// Where Alertmanager takes alerts; no secret.
const ALERTS_PATH: &str = "/api/v2/alerts";

/// Bytes of a part of an address that may be a secret.
const SHORTEST_SECRET: usize = 8;

/// Characters of an answer that people see.
const LONGEST_ANSWER: usize = 200;

/// Why a message did not get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The receiver wants nothing before this time has passed.
    Later(Duration),
    /// It does not work, at the moment or before a person did something; the reason. The message was not taken.
    Failed(String),
    /// The same, but it may have been taken.
    Doubtful(String),
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

    /// Sends a message; `now` is the time that others have ([`Clock::wall`](crate::clock::Clock::wall)).
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
                let largest = self.receiver.largest_answer;
                let make = move || Client::new(ca_file.as_deref(), DEADLINE, largest, proxies);
                let made = tokio::task::spawn_blocking(make).await;
                let made = made.map_err(|error| Trouble::Failed(error.to_string()))?;
                self.client.insert(made.map_err(|error| Trouble::Failed(error.to_string()))?).clone()
            }
        };
        let answer = client.send(&request).await.map_err(unanswered)?;
        judge(&answer, &request, now)
    }
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
            if !base.ends_with(ALERTS_PATH) {
                target.set_path(&format!("{base}{ALERTS_PATH}"));
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

/// What it means that there is no answer.
fn unanswered(error: ClientError) -> Trouble {
    let why = error.to_string();
    match error {
        ClientError::Broken { .. } | ClientError::TooSlow { .. } => Trouble::Doubtful(why),
        ClientError::Certificates { .. }
        | ClientError::NoCertificates
        | ClientError::Unreachable { .. }
        | ClientError::Request(_) => Trouble::Failed(why),
    }
}

/// True when these words hold a part of the address that may be what makes it a secret, or who we are: servers like to quote what they
/// were asked for.
fn discloses(said: &str, request: &Request) -> bool {
    let said = said.to_lowercase();
    let target = &request.target;
    let path = target.path().trim_end_matches(ALERTS_PATH).trim_end_matches('/');
    let long = |part: &str| part.len() >= SHORTEST_SECRET;
    let pairs: Vec<String> =
        target.query_pairs().flat_map(|(key, value)| [key.into_owned(), value.into_owned()]).collect();
    let tokens = request.secrets.iter().flat_map(|(_, secret)| secret.expose().split_whitespace());
    let whole = [path, target.query().unwrap_or_default()].into_iter().filter(|part| !part.is_empty());
    let parts = path.split('/').chain(pairs.iter().map(String::as_str)).chain(target.password()).chain(tokens);
    whole.chain(parts.filter(|part| long(part))).any(|part| said.contains(&part.to_lowercase()))
}

/// What an answer means.
fn judge(answer: &Answer, request: &Request, now: Timestamp) -> Result<Taken, Trouble> {
    let said = plain(&String::from_utf8_lossy(answer.body.get(..4096).unwrap_or(&answer.body)));
    let said = if discloses(&said, request) { String::new() } else { clip(&said, LONGEST_ANSWER) };
    let status = answer.status;
    let told = |what: &str| {
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        format!("{what} ({status}){said}")
    };
    match status {
        200..=299 => Ok(Taken { status, said }),
        429 => Err(Trouble::Later(pause(answer, now).unwrap_or(UNTOLD_PAUSE))),
        503 if answer.retry_after.is_some() => Err(Trouble::Later(pause(answer, now).unwrap_or(UNTOLD_PAUSE))),
        408 | 425 => Err(Trouble::Failed(told("the receiver has trouble"))),
        // Whoever stands before it may have given up on an answer that comes.
        500..=599 => Err(Trouble::Doubtful(told("the receiver has trouble"))),
        300..=399 => {
            Err(Trouble::Failed(format!("the receiver sends us elsewhere ({status}): name the right address")))
        }
        401 | 403 => Err(Trouble::Failed(told("the receiver does not accept who we are"))),
        // Slack says so when the webhook was removed.
        404 | 410 => Err(Trouble::Failed(told("there is no such receiver"))),
        _ => Err(Trouble::Refused(told("the receiver refuses it"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> url::Url {
        text.parse().expect("an address")
    }

    fn judged(target: url::Url, status: u16, body: &str) -> Result<Taken, Trouble> {
        let request = Request {
            method: "POST",
            target,
            headers: Vec::new(),
            secrets: vec![("authorization", Secret::new("Bearer t0ken-of-ops"))],
            body: None,
        };
        judge(&Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() }, &request, Timestamp::default())
    }

    #[test]
    fn no_answer_puts_a_secret_into_words() {
        let chat = "https://hooks.example.com/services/T0/B0/s3cretword?key=an0ther-secret";
        for body in [
            "no route for /services/T0/B0/s3cretword",
            r#"{"path": "\/services\/T0\/B0\/S3cretWord"}"#,
            "what is an0ther-secret?",
            "you said Bearer t0ken-of-ops",
        ] {
            let Err(Trouble::Failed(why)) = judged(url(chat), 404, body) else { panic!("{body}") };
            assert_eq!(why, "there is no such receiver (404)", "{body}");
            assert_eq!(judged(url(chat), 200, body).map(|taken| taken.said), Ok(String::new()));
        }
        let Err(Trouble::Failed(why)) = judged(url(chat), 404, "no_service") else { panic!("it failed") };
        assert_eq!(why, "there is no such receiver (404): no_service");
        let Err(Trouble::Refused(why)) = judged(url("http://am/api/v2/alerts"), 400, "not at /api/v2/alerts") else {
            panic!("it refused")
        };
        assert!(why.ends_with("not at /api/v2/alerts"), "this is no secret: {why}");
    }

    #[test]
    fn what_may_have_been_taken_is_told_from_what_was_not() {
        let trouble = |error: ClientError| unanswered(error);
        let host = || "ops".to_owned();
        assert!(matches!(trouble(ClientError::TooSlow { host: host(), deadline: DEADLINE }), Trouble::Doubtful(_)));
        let broken = ClientError::Broken { host: host(), reason: String::new() };
        assert!(matches!(trouble(broken), Trouble::Doubtful(_)));
        let unreachable = ClientError::Unreachable { host: host(), reason: String::new() };
        assert!(matches!(trouble(unreachable), Trouble::Failed(_)));
        assert!(matches!(judged(url("http://ops/"), 502, ""), Err(Trouble::Doubtful(_))));
        assert!(matches!(judged(url("http://ops/"), 404, ""), Err(Trouble::Failed(_))));
    }
}
