//! Tables: what is said about which report, in which forge's words, when, and what answers mean.

mod dialects;
mod errand;
mod pacing;
mod words;

use crate::fleet::snapshot::CommitId;
use crate::time::Timestamp;
use crate::view::{CommitReport, Counts, Ending, FailureCluster, GroupReport, WaitingOn};

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub(super) fn commit(number: u8) -> CommitId {
    CommitId([number; 20])
}

pub(super) fn report(ending: Option<Ending>, groups: Vec<(&str, GroupReport)>) -> CommitReport {
    CommitReport {
        revision: "release/v1@sha1:0101".to_owned(),
        ending,
        committer: "Ada <ada@example.com>".to_owned(),
        subject: "Raise the limit".to_owned(),
        synced_at: NOW,
        ended_at: None,
        author: None,
        rewritten_history: false,
        unknown_history: false,
        after: None,
        diagnostics: Vec::new(),
        groups: groups.into_iter().map(|(name, group)| (name.to_owned(), group)).collect(),
        more_groups: std::collections::BTreeMap::new(),
    }
}

pub(super) fn group(ending: Option<Ending>, counts: Counts) -> GroupReport {
    GroupReport { ending, counts, diagnostics: Vec::new(), ..GroupReport::ended(Ending::NoOp, "", NOW) }
}

pub(super) fn running(stage: Option<&str>, counts: Counts, waiting: &[&str]) -> GroupReport {
    let waiting = waiting.iter().map(|message| WaitingOn {
        reason: "x".to_owned(),
        message: (*message).to_owned(),
        agents: None,
        until: None,
    });
    GroupReport { stage: stage.map(str::to_owned), waiting_on: waiting.collect(), ..group(None, counts) }
}

pub(super) fn failed(ending: Ending, message: &str, count: usize) -> GroupReport {
    let cluster =
        FailureCluster { message: message.to_owned(), count, example: "gw-1".to_owned(), ..FailureCluster::default() };
    let counts = Counts { selected: 100, failed: count, ..Counts::default() };
    GroupReport { failures: vec![cluster], ..group(Some(ending), counts) }
}
