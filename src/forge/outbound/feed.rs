//! What the daemon has to tell, handed over without ever waiting: of each commit only the latest is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::fleet::snapshot::CommitId;
use crate::view::CommitReport;

/// Commits that may wait to be taken; the oldest are left out. They are taken within milliseconds unless a request is under way.
const MOST_WAITING: usize = 256;

/// What is known of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The commit.
    pub commit: CommitId,
    /// Its report.
    pub report: CommitReport,
    /// True while the report may still change.
    pub is_open: bool,
    /// True when somebody waits to hear that this ending was told.
    pub is_awaited: bool,
}

/// Both ends of the way from the daemon; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    waiting: Arc<Mutex<BTreeMap<CommitId, News>>>,
    rung: Arc<Notify>,
}

impl Feed {
    /// Hands something over. Never waits.
    pub fn offer(&self, news: News) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(news.commit, news);
        if waiting.len() > MOST_WAITING
            && let Some(oldest) = waiting.values().min_by_key(|news| news.report.synced_at).map(|news| news.commit)
        {
            waiting.remove(&oldest);
        }
        drop(waiting);
        self.rung.notify_one();
    }

    /// Takes everything that waits, oldest commit first.
    pub fn take(&self) -> Vec<News> {
        let taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut news: Vec<News> = taken.into_values().collect();
        news.sort_by_key(|news| news.report.synced_at);
        news
    }

    /// Waits until there may be something to take.
    pub async fn changed(&self) {
        self.rung.notified().await;
    }
}
