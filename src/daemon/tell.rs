//! Hands what becomes of commits to the task that tells a forge, and never waits for it.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::controller::{Controller, Reported};
use crate::fleet::snapshot::CommitInfo;
use crate::forge::outbound::feed::{Feed, News};
use crate::forge::outbound::statuses;
use crate::forge::outbound::teller::{Reverted, Teller, Wiring, Word};
use crate::git::SourceOptions;
use crate::git::revert::{Made, Reverter};
use crate::serve::metrics::Metrics;
use crate::settings::Settings;
use crate::time::Timestamp;
use crate::view::ForgeStatus;

/// Words of the task that may wait for the loop.
const WORDS: usize = 16;

/// The loop's end of the way to the forge.
pub(super) struct Forge {
    /// `None`: no forge is told.
    feed: Option<Feed>,
    status: watch::Receiver<Option<ForgeStatus>>,
    reverter: Reverter,
}

impl Forge {
    /// The loop's end, what the task says, and the task itself, when a forge is to be told.
    pub(super) fn new(
        settings: &Settings,
        source: &SourceOptions,
        clock: Clock,
        metrics: &Metrics,
        controller: &mut Controller,
    ) -> (Self, mpsc::Receiver<Word>, Option<Teller>) {
        let (words_in, words) = mpsc::channel(WORDS);
        let status = watch::Sender::new(None);
        let seen = status.subscribe();
        let feed = Feed::default();
        let teller = settings.forge.clone().map(|forge| {
            let counts = Arc::clone(&metrics.forge());
            let wiring = Wiring { feed: feed.clone(), words: words_in, status, counts, clock };
            Teller::new(forge, &settings.instance, wiring)
        });
        let feed = teller.is_some().then_some(feed);
        if feed.is_some() {
            controller.keep_until_told();
        }
        (Self { feed, status: seen, reverter: Reverter::new(source) }, words, teller)
    }

    /// What the journal holds of commits now.
    pub(super) fn report(&self, reports: Vec<Reported>) {
        let Some(feed) = &self.feed else { return };
        for Reported { commit, report, is_open } in reports {
            feed.offer(News { commit, report, is_open, is_awaited: true });
        }
    }

    /// A commit that changed nothing below the fleet root: it has no note, but whoever waits for its status is told.
    pub(super) fn report_unrelated(&self, info: &CommitInfo, now: Timestamp) {
        let Some(feed) = &self.feed else { return };
        feed.offer(News { commit: info.id, report: statuses::unrelated(info, now), is_open: false, is_awaited: false });
    }

    /// Does what the task asks for; what takes time is done by a task of its own.
    pub(super) fn heard(&self, word: Word, controller: &mut Controller) {
        let (commit, report, branch, reply) = match word {
            Word::Told(commit) => return controller.handle_told(commit),
            Word::Revert { commit, report, branch, reply } => (commit, report, branch, reply),
        };
        let head = controller.accepted().filter(|_| controller.stands_rolled_back(&report)).cloned();
        let Some(head) = head else {
            // Whoever asked may be gone already; that holds for every answer here.
            let _gone = reply.send(Reverted::Needless(
                "another commit brought it, or a later one or an order has answered it".to_owned(),
            ));
            return;
        };
        let reverter = self.reverter.clone();
        let before = report.after.as_deref().and_then(|before| before.parse().ok());
        tokio::spawn(async move {
            let answer = match reverter.make(commit, before, head.id, &branch).await {
                Ok(Made::Branch) => Reverted::Branch { base: head.reference },
                Ok(Made::Nothing(why)) => Reverted::Needless(why),
                Err(error) => Reverted::Failed(error.to_string()),
            };
            let _gone = reply.send(answer);
        });
    }

    /// How it goes.
    pub(super) fn status(&self) -> Option<ForgeStatus> {
        self.status.borrow().clone()
    }
}
