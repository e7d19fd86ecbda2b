//! Orders over the admin socket and the operators' listener: reading them within bounds, naming who gave them, and answering with what they do.

use std::error::Error;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use http_body_util::LengthLimitError;

use crate::serve::admin::{Admin, AdminRequest, PATIENCE, Refused, ask};
use crate::view::command::{Impact, OrderRequest, Refusal};
use crate::view::operator::{Attempt, Operator};
use crate::view::text::{clip, plain};

/// For the daemon to carry an order out: it may have to read history before, and stores a record afterwards.
const ORDER_PATIENCE: Duration = Duration::from_secs(15);

/// Characters of what is told in the journal of an order that is none.
const LONGEST_TOLD: usize = 200;

/// What the order would do; nothing is changed.
pub(super) async fn preview(admin: &Admin, request: Request) -> Result<Json<Impact>, Refused> {
    let OrderRequest { command, .. } = read(admin, request.into_body()).await?;
    answer(ask(admin, |reply| AdminRequest::Preview(command, reply), PATIENCE).await?)
}

/// Who gives an order.
pub(super) enum Asker {
    /// The user id that the operating system vouches for.
    Peer(Option<u32>),
    /// Whoever proved to be this.
    Operator(Operator),
}

/// Carries the order out.
pub(super) async fn give(admin: &Admin, asker: Asker, request: Request) -> Result<Json<Impact>, Refused> {
    let (order, by) = signed(admin, asker, request).await?;
    // The controller tells of it in the log and in the journal, refused or not.
    let outcome = ask(admin, |reply| AdminRequest::Order { order, by, reply }, ORDER_PATIENCE).await?;
    answer(outcome)
}

/// Has the journal tell of an order that was refused when it was tried. This has an address of its own, so that a daemon that does not know it does
/// nothing; the answer is a refusal always.
pub(super) async fn record(admin: &Admin, asker: Asker, request: Request) -> Result<Json<Impact>, Refused> {
    let (order, by) = signed(admin, asker, request).await?;
    answer(Err(ask(admin, |reply| AdminRequest::Refused { order, by, reply }, PATIENCE).await?))
}

/// An order, and who gives it. What an operator says that is no order stands in the journal as that.
async fn signed(admin: &Admin, asker: Asker, request: Request) -> Result<(OrderRequest, Operator), Refused> {
    let order = match (read(admin, request.into_body()).await, &asker) {
        (Err((status, words)), Asker::Operator(operator)) => {
            let line = format!("an order by {}: refused: {}", operator.by, clip(&plain(&words), LONGEST_TOLD));
            // Without room the daemon has other troubles than what it cannot read.
            let _full = admin.requests.try_send(AdminRequest::Attempt(Attempt::Command, line));
            return Err((status, words));
        }
        (order, _) => order?,
    };
    let by = match asker {
        Asker::Peer(peer) => Operator::local(name_peer(peer, order.sudo_user.as_deref()).await),
        Asker::Operator(operator) => operator,
    };
    Ok((order, by))
}

/// A refusal is no failure of the interface: the state of the fleet forbids it, or whoever asks may not.
pub(super) fn answer<T>(outcome: Result<T, Refusal>) -> Result<Json<T>, Refused> {
    outcome.map(Json).map_err(|refusal| {
        let status = if refusal.is_forbidden { StatusCode::FORBIDDEN } else { StatusCode::CONFLICT };
        (status, format!("{refusal}\n"))
    })
}

/// An order is a few names and a reason of at most 500 characters; escaped in JSON that is some KiB.
async fn read(admin: &Admin, body: Body) -> Result<OrderRequest, Refused> {
    let most = admin.order_bytes;
    let slow = |_| (StatusCode::REQUEST_TIMEOUT, "the order did not come in time\n".to_owned());
    let body: Bytes = tokio::time::timeout(PATIENCE, to_bytes(body, most)).await.map_err(slow)?.map_err(|error| {
        match error.source() {
            Some(source) if source.is::<LengthLimitError>() => {
                admin.metrics.traffic().api.oversized.one();
                (StatusCode::PAYLOAD_TOO_LARGE, format!("an order has at most {most} bytes\n"))
            }
            Some(_) | None => (StatusCode::BAD_REQUEST, "the order is cut off\n".to_owned()),
        }
    })?;
    let bad = |why: String| (StatusCode::BAD_REQUEST, format!("this is no order: {why}\n"));
    let order: OrderRequest = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    order.checked().map_err(|refusal| bad(refusal.message))
}

/// `ada (uid 1000)`; the id is what counts, since names are given anew. Of root alone it is believed who became root: `ada (sudo)`.
async fn name_peer(peer: Option<u32>, sudo_user: Option<&str>) -> String {
    let Some(uid) = peer else { return "somebody unknown".to_owned() };
    if let Some(user) = sudo_user.filter(|user| uid == 0 && *user != "root") {
        return format!("{user} (sudo)");
    }
    match tokio::task::spawn_blocking(move || user_name(uid)).await.ok().flatten() {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("uid {uid}"),
    }
}

/// The name of a user of this machine, as `/etc/passwd` has it; users of directories on the network have none there.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(uid, &users).map(|name| name.chars().filter(|c| !c.is_control()).take(64).collect())
}

fn name_of(uid: u32, passwd: &str) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\ngitamp:x:990:990::/:/bin/false\n";
        assert_eq!(name_of(990, passwd), Some("gitamp"));
        assert_eq!(name_of(0, passwd), Some("root"));
        assert_eq!(name_of(7, passwd), None);
    }

    #[tokio::test]
    async fn whoever_asks_has_a_name_in_the_records() {
        assert_eq!(name_peer(None, None).await, "somebody unknown");
        assert_eq!(name_peer(None, Some("ann")).await, "somebody unknown");
        assert_eq!(name_peer(Some(4_000_000_001), None).await, "uid 4000000001");
        assert_eq!(name_peer(Some(4_000_000_001), Some("ann")).await, "uid 4000000001", "anybody can say so");
        assert_eq!(name_peer(Some(0), Some("ann")).await, "ann (sudo)");
        assert_eq!(name_peer(Some(0), Some("root")).await, name_peer(Some(0), None).await);
    }
}
