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
    take(&mut controller, revision(3, &[("other/group.yaml", GROUP), ("other/collector.yaml", CONFIG)]));
    assert_eq!(names(&controller), ["other", "other@us"], "a removed one does");
}

#[test]
fn a_repository_without_any_group_is_refused_and_said_once() {
    let mut controller = Controller::new(Options { observe: false, forget_after: Duration::from_secs(3600) });
    take(&mut controller, revision(1, &[("all/group.yaml", GROUP), ("all/collector.yaml", CONFIG)]));
    take(&mut controller, revision(2, &[("base/common.yaml", CONFIG)]));
    let status = controller.status("default", NOW);
    assert_eq!(status.groups.len(), 2, "nobody loses anything");
    assert_eq!(status.commits[0].ending, Some(Ending::Rejected));
    assert!(status.diagnostics[0].contains("no group is left"), "{:?}", status.diagnostics);
    controller.handle_revision(revision(2, &[("base/common.yaml", CONFIG)]), NOW);
    let stores = std::iter::from_fn(|| controller.poll_action()).filter(|action| matches!(action, Action::Store(_)));
    assert_eq!(stores.count(), 0, "a refused commit is noted once");
}

#[test]
fn a_body_that_is_not_what_its_name_says_is_not_restored() {
    let options = Options { observe: false, forget_after: Duration::from_secs(3600) };
    let mut controller = Controller::new(options.clone());
    controller.handle_revision(revision(1, &[("all/group.yaml", GROUP), ("all/collector.yaml", CONFIG)]), NOW);
    let mut files = BTreeMap::new();
    while let Some(action) = controller.poll_action() {
        if let Action::Store(store) = action {
            files.extend(store.files.into_iter().filter_map(|(path, file)| Some((path, file?))));
            controller.handle_stored(store.ticket, NOW);
        }
    }
    let (restored, problems) = Controller::restore(options.clone(), &files, NOW).expect("our own version");
    assert_eq!((restored.configs.len(), problems), (1, Vec::new()));
    for (path, body) in &mut files {
        if path.starts_with("configs/") {
            *body = Bytes::from(CONFIG.replace("debug", "evil"));
        }
    }
    let (restored, problems) = Controller::restore(options.clone(), &files, NOW).expect("our own version");
    assert_eq!(restored.configs.len(), 0);
    assert!(problems.iter().any(|problem| problem.contains("not the one with this hash")), "{problems:?}");
    for (path, record) in &mut files {
        if path.starts_with("groups/") {
            *record = Bytes::from(String::from_utf8_lossy(record).replace("version: 1", "version: 2"));
        }
    }
    let newer = Controller::restore(options, &files, NOW).expect_err("a newer record is not replaced");
    assert!(matches!(newer, record::RecordError::Version(2)), "{newer}");
}
