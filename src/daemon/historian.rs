//! Finds out whose commits an order would let through, beside the loop: reading history takes time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::git::authors::History;
use crate::view::command::{Impact, OrderRequest, Refusal};
use crate::view::operator::{Authors, Operator, Range};

/// For all ranges of an order to be read. Whoever asked waits for 15 s at most.
const PATIENCE: Duration = Duration::from_secs(8);

/// Orders whose commits are looked at, at a time; each reads a part of the history on a thread of its own.
const AT_A_TIME: usize = 2;

/// Orders that were looked up and wait for the loop.
const QUEUE: usize = 64;

/// An order that waits for an answer.
pub(super) struct Asked {
    pub(super) order: OrderRequest,
    pub(super) by: Operator,
    pub(super) reply: oneshot::Sender<Result<Impact, Refusal>>,
}

/// An order, and what was found out for it.
pub(super) type Told = (Asked, Authors);

/// Reads history for the loop.
pub(super) struct Historian {
    history: History,
    turns: Arc<Semaphore>,
    told: mpsc::Sender<Told>,
}

impl Historian {
    /// What it finds comes out of the channel.
    pub(super) fn new(history: History) -> (Self, mpsc::Receiver<Told>) {
        let (told, found) = mpsc::channel(QUEUE);
        (Self { history, turns: Arc::new(Semaphore::new(AT_A_TIME)), told }, found)
    }

    /// Finds out who wrote and who committed these. Whatever comes of it, the order goes on.
    pub(super) fn look_up(&self, ranges: Vec<Range>, asked: Asked) {
        let (history, turns, told) = (self.history.clone(), Arc::clone(&self.turns), self.told.clone());
        tokio::spawn(async move {
            let looked_up = tokio::time::timeout(PATIENCE, look_up(history, turns, ranges.clone())).await;
            let authors = match looked_up {
                Ok(Some(authors)) => authors,
                // Nobody's is not what it is taken for then.
                Ok(None) | Err(_) => {
                    let why = "its history could not be read in time: try again";
                    ranges.into_iter().map(|range| (range, Err(why.to_owned()))).collect()
                }
            };
            // When nobody listens any more, the daemon is ending.
            let _gone = told.send((asked, authors)).await;
        });
    }
}

async fn look_up(history: History, turns: Arc<Semaphore>, ranges: Vec<Range>) -> Option<Authors> {
    let turn = turns.acquire_owned().await.ok()?;
    let job = move || {
        // Held by whoever reads, who goes on when nobody waits any more.
        let _turn = turn;
        let one = |range: Range| {
            let authors = history.authors(&range).map_err(|unknown| unknown.to_string());
            (range, authors)
        };
        ranges.into_iter().map(one).collect()
    };
    tokio::task::spawn_blocking(job).await.ok()
}
