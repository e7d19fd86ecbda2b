//! Revisions as they come out of `fleet::load`; rollouts are told in `tests/rollout/`.

use std::collections::BTreeMap;

use super::*;
use crate::fleet;
use crate::fleet::snapshot::{Entry, Snapshot};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn revision(number: u8, files: &[(&str, &str)]) -> Revision {
    let entries: BTreeMap<Arc<str>, Entry> =
        files.iter().map(|(path, text)| (Arc::from(*path), Entry::File(Bytes::from((*text).to_owned())))).collect();
    let info = CommitInfo {
        id: CommitId([number; 20]),
        reference: "main".to_owned(),
        committer: "somebody".to_owned(),
        author: "somebody".to_owned(),
        subject: format!("change {number}"),
        time: NOW,
    };
    Revision { info, rewritten: false, fleet: fleet::load(&Snapshot::new(entries), None) }
}

fn take(controller: &mut Controller, revision: Revision) {
    controller.handle_revision(revision, NOW);
    while let Some(action) = controller.poll_action() {
        if let Action::Store(store) = action {
            controller.handle_stored(store.ticket, NOW);
        }
    }
}

const GROUP: &str = "apiVersion: gitamp/v1\nkind: Group\nselector: {matchAll: true}\nvariants:\n  - {name: us, selector: {matchLabels: {region: us}}}\n";
const CONFIG: &str = "receivers: {otlp: {}}\nexporters: {debug: {}}\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n";

#[test]
fn variants_of_a_group_that_cannot_be_read_are_kept() {
    let mut controller = Controller::new(Options { observe: false, forget_after: Duration::from_secs(3600) });
    take(&mut controller, revision(1, &[("all/group.yaml", GROUP), ("all/collector.yaml", CONFIG)]));
    let names = |controller: &Controller| -> Vec<String> {
        controller.status("default", NOW).groups.into_iter().map(|group| group.name).collect()
    };
    assert_eq!(names(&controller), ["all", "all@us"]);
    take(&mut controller, revision(2, &[("all/group.yaml", "selector: [broken"), ("all/collector.yaml", CONFIG)]));
    assert_eq!(names(&controller), ["all", "all@us"], "a broken file takes no group away");
    take(&mut controller, revision(3, &[("all/collector.yaml", CONFIG)]));
    assert_eq!(names(&controller), Vec::<String>::new(), "a removed one does");
}
