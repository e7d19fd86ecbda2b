//! Agents that poll over plain HTTP: one request at a time, repeated byte by byte until it is answered.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use prost::Message;
use tokio::time::{sleep, sleep_until, timeout};

use crate::agent::AgentId;
use crate::opamp::proto;
use crate::simulate::connect::{Backoff, bearer, refused, retry_after};
use crate::simulate::conversation::Conversation;
use crate::simulate::fleet::{Parting, Shared, Stop};
use crate::time::Timestamp;

/// The longest answer, as real clients have it.
const LONGEST_ANSWER_BYTES: usize = 64 << 20;

/// How long an answer may take before the connection counts as dead.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Lets the agents poll until the connection ends, `drop_at` comes, or the fleet stops. Nobody says goodbye: clients that
/// poll do not.
pub(super) async fn converse(
    mut sender: SendRequest<Full<Bytes>>,
    conversation: &mut Conversation,
    shared: &Shared,
    drop_at: Option<Timestamp>,
) -> Parting {
    let mut stop = shared.stop.clone();
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop != Stop::No) => Parting::Stopped,
        parting = poll(&mut sender, conversation, shared, drop_at) => parting,
    }
}

async fn poll(
    sender: &mut SendRequest<Full<Bytes>>,
    conversation: &mut Conversation,
    shared: &Shared,
    drop_at: Option<Timestamp>,
) -> Parting {
    conversation.handle_connected(shared, shared.clock.now());
    let number = conversation.number() / shared.options.per_connection;
    let mut backoff = Backoff::new();
    loop {
        let now = shared.clock.now();
        if drop_at.is_some_and(|at| at <= now) {
            return Parting::Dropped;
        }
        let body = match conversation.unanswered.clone() {
            Some(body) => body,
            None => match conversation.poll_message(shared, now) {
                Some(message) => Bytes::from(message.encode_to_vec()),
                None => {
                    let due = conversation.poll_timeout().into_iter().chain(drop_at).min();
                    sleep_until(shared.clock.instant(due.unwrap_or(now + ANSWER_PATIENCE))).await;
                    continue;
                }
            },
        };
        conversation.unanswered = Some(body.clone());
        let answer = match timeout(ANSWER_PATIENCE, ask(sender, number, shared, body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => return Parting::Failed(reason),
            Err(_) => return Parting::Failed("the server did not answer for 30 s".to_owned()),
        };
        match answer {
            Answer::Message(message) => {
                conversation.unanswered = None;
                backoff = Backoff::new();
                conversation.handle(*message, shared, shared.clock.now());
            }
            Answer::Later(wanted) => {
                shared.tally.borrow_mut().counts().refused += 1;
                let wait = backoff.after_failure(&mut shared.random.borrow_mut());
                sleep(wait.max(wanted.unwrap_or_default())).await;
            }
            Answer::Refused(reason) => {
                conversation.unanswered = None; // clients forget a message that was refused for good
                return Parting::Refused(reason);
            }
            Answer::Lost(reason) => {
                conversation.unanswered = None;
                let mut tally = shared.tally.borrow_mut();
                let counts = tally.counts();
                counts.malformed += 1;
                counts.trouble = Some(reason.into());
            }
        }
    }
}

enum Answer {
    Message(Box<proto::ServerToAgent>),
    /// 429 or 503, with what `Retry-After` said.
    Later(Option<Duration>),
    /// Any other status.
    Refused(String),
    Lost(String),
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    number: u32,
    shared: &Shared,
    body: Bytes,
) -> Result<Answer, String> {
    let id = proto::AgentToServer::decode(body.clone()).ok().and_then(|message| AgentId::new(&message.instance_uid));
    let endpoint = &shared.options.server;
    let mut request = Request::post(&endpoint.path)
        .header(HOST, &endpoint.authority)
        .header(CONTENT_TYPE, "application/x-protobuf")
        .header("OpAMP-Instance-UID", id.map(|id| id.to_string()).unwrap_or_default());
    if let Some(bearer) = bearer(&shared.options, number) {
        request = request.header(AUTHORIZATION, bearer);
    }
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    sender.ready().await.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = Limited::new(response.into_body(), LONGEST_ANSWER_BYTES);
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        return Ok(Answer::Later(retry_after(status, &headers)));
    }
    if status != StatusCode::OK {
        return Ok(Answer::Refused(refused(status, &body)));
    }
    if headers.get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes() != b"application/x-protobuf") {
        return Ok(Answer::Lost("the server's answer is not application/x-protobuf".to_owned()));
    }
    match proto::ServerToAgent::decode(body) {
        Ok(message) => Ok(Answer::Message(Box::new(message))),
        Err(_) => Ok(Answer::Lost("the server's answer does not decode".to_owned())),
    }
}
