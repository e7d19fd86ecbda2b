//! What a journal says that others may write to: records and notes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use gitamp::controller::{Controller, Options};
use gitamp::fleet::snapshot::CommitId;
use gitamp::git::seal::{Authenticity, JournalKeys};
use gitamp::settings::Secret;

use super::{NOON, parts};

/// Records below `state/` of the journal, each behind a line `=== path`: a controller goes on from whatever is left of them.
pub fn journal_records(input: &[u8]) {
    let files: BTreeMap<String, Bytes> = parts(input)
        .into_iter()
        .take(40)
        .map(|(path, content)| (path.to_owned(), Bytes::copy_from_slice(content)))
        .collect();
    let options = Options { observe: false, forget_after: Duration::from_secs(3600) };
    let Ok((mut controller, _problems)) = Controller::restore(options, &files, NOON) else { return };
    for minutes in [1_u64, 10, 100] {
        controller.handle_timeout(NOON + Duration::from_secs(60 * minutes));
        while controller.poll_action().is_some() {}
    }
    let _status = controller.status("default", NOON + Duration::from_secs(60_000));
}

/// A note: without our MAC it is believed by nobody.
pub fn journal_notes(input: &[u8]) {
    let Some(keys) = JournalKeys::new(vec![Secret::new("a key that nobody has who writes this")]) else { return };
    let judged = keys.judge_note("refs/notes/gitamp/default", CommitId([1; 20]), &String::from_utf8_lossy(input));
    assert!(judged != Authenticity::Genuine, "believed: {judged:?}");
}
