//! Bitbucket's deliveries: Cloud's `repo:push`, and Data Center's (Server's) `repo:refs_changed`.
//!
//! As Atlassian's documentation has them: "Event payloads" (Cloud) and "Event payload" (Data Center); both sign alike, and Data Center
//! may use basic authentication instead.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use serde::Deserialize;

use super::signature::{self, SignatureError};
use super::{Change, Named, Refusal, Sender, Verdict, Watched, json, only, other_event};
use crate::settings::Secret;

/// Where the signature is; in spite of its name it is SHA-256 here.
const SIGNATURE: &str = "x-hub-signature";
const EVENT: &str = "x-event-key";
/// What Data Center sends when a person presses "Test connection"; not signed by every version.
const PING: &str = "diagnostics:ping";

/// What is read of Cloud's push.
#[derive(Deserialize)]
struct CloudPush {
    push: Moves,
    repository: CloudRepository,
}

#[derive(Deserialize)]
struct Moves {
    changes: Vec<Move>,
}

#[derive(Deserialize)]
struct Move {
    /// `None` when it was deleted.
    new: Option<Place>,
    /// `None` when it was created.
    old: Option<Place>,
}

#[derive(Deserialize)]
struct Place {
    /// `branch`, `tag` or `annotated_tag`.
    #[serde(rename = "type")]
    kind: String,
    name: String,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    hash: Option<String>,
}

#[derive(Deserialize)]
struct CloudRepository {
    full_name: Option<String>,
    links: Option<CloudLinks>,
}

#[derive(Deserialize)]
struct CloudLinks {
    html: Option<Link>,
}

#[derive(Deserialize)]
struct Link {
    href: Option<String>,
}

/// What is read of Data Center's push.
#[derive(Deserialize)]
struct ServerPush {
    changes: Vec<ServerMove>,
    repository: ServerRepository,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerMove {
    #[serde(rename = "ref")]
    reference: Option<ServerRef>,
    ref_id: Option<String>,
    to_hash: Option<String>,
}

#[derive(Deserialize)]
struct ServerRef {
    id: Option<String>,
}

#[derive(Deserialize)]
struct ServerRepository {
    slug: Option<String>,
    project: Option<ServerProject>,
    links: Option<ServerLinks>,
}

#[derive(Deserialize)]
struct ServerProject {
    key: Option<String>,
}

#[derive(Deserialize)]
struct ServerLinks {
    #[serde(default)]
    clone: Vec<Link>,
}

/// Whose delivery this is: the two name their events differently.
pub(super) fn sender(headers: &HeaderMap) -> Sender {
    match only(headers, EVENT) {
        Some("repo:refs_changed" | PING) => Sender::BitbucketDataCenter,
        Some(_) | None if headers.contains_key("x-request-id") && !headers.contains_key("x-hook-uuid") => {
            Sender::BitbucketDataCenter
        }
        Some(_) | None => Sender::BitbucketCloud,
    }
}

/// Verifies and reads one delivery.
pub(super) fn read(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    watched: &Watched,
) -> Result<Verdict, Refusal> {
    let event = only(headers, EVENT);
    let authentic = if headers.contains_key(SIGNATURE) {
        signature::verify(headers, SIGNATURE, "sha256=", body, secrets)
    } else if headers.contains_key(AUTHORIZATION) {
        signature::verify_password(headers, secrets)
    } else {
        Err(SignatureError::Missing)
    };
    match (authentic, event) {
        (Err(SignatureError::Missing), Some(PING)) => return Ok(Verdict::UnsignedPing),
        (Err(error), _) => return Err(error.into()),
        (Ok(()), _) => {}
    }
    if !super::is_json(headers) {
        return Err(Refusal::ContentType);
    }
    match event.ok_or(Refusal::Header("X-Event-Key"))? {
        PING => Ok(Verdict::Ping),
        "repo:push" => Ok(cloud(json(headers, body)?, watched)),
        "repo:refs_changed" => Ok(server(json(headers, body)?, watched)),
        other => Ok(other_event(other)),
    }
}

/// One push may move several refs: each of them is looked at.
fn cloud(pushed: CloudPush, watched: &Watched) -> Verdict {
    let page = pushed.repository.links.and_then(|links| links.html).and_then(|html| html.href);
    let repository = Named::new([page], [pushed.repository.full_name]);
    let change = |moved: Move| {
        let head = moved.new.as_ref().and_then(|new| new.target.as_ref()).and_then(|target| target.hash.clone());
        let place = moved.new.or(moved.old)?;
        let folder = if place.kind.ends_with("tag") { "tags" } else { "heads" };
        Some(Change { reference: format!("refs/{folder}/{}", place.name), head })
    };
    let changes: Vec<Change> = pushed.push.changes.into_iter().filter_map(change).collect();
    watched.judge(&repository, &changes)
}

fn server(pushed: ServerPush, watched: &Watched) -> Verdict {
    let ServerRepository { slug, project, links } = pushed.repository;
    let name = project.and_then(|project| project.key).zip(slug).map(|(key, slug)| format!("{key}/{slug}"));
    // Over HTTP it is below /scm.
    let below_scm = name.as_ref().map(|name| format!("scm/{name}"));
    let clones = links.map(|links| links.clone).unwrap_or_default().into_iter().map(|link| link.href);
    let repository = Named::new(clones, [name, below_scm]);
    let change = |moved: ServerMove| {
        let reference = moved.reference.and_then(|reference| reference.id).or(moved.ref_id)?;
        Some(Change { reference, head: moved.to_hash })
    };
    let changes: Vec<Change> = pushed.changes.into_iter().filter_map(change).collect();
    watched.judge(&repository, &changes)
}
