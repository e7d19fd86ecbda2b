//! Revisions as they come out of `fleet::load`; rollouts are told in `tests/rollout/`.

use std::collections::BTreeMap;

use super::content::Written;
use super::record::{
    CommitFile, EarlierFile, FailureFile, FleetFile, GenerationFile, GenerationsFile, GroupFile, NextFile,
};
use super::storage::ORDERS_FILE;
use super::*;
use crate::agent::{AgentReport, Capabilities, ConfigState, ConfigStatus, Health, ReportedHash, Transport};
use crate::config::ComponentNames;
use crate::fleet;
use crate::fleet::Expect;
use crate::fleet::snapshot::{Entry, RolloutTrailer, Snapshot};
use crate::fleet::strategy::{Amount, OnFailure, OnNewCommit, Stage, Strategy};
use crate::labels::{Labels, Operator, Requirement, Selector};
use crate::rollout::record::GroupRecord;
use crate::view::AgentQuery;

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub(super) fn revision(number: u8, files: &[(&str, &str)]) -> Revision {
    let entries: BTreeMap<Arc<str>, Entry> =
        files.iter().map(|(path, text)| (Arc::from(*path), Entry::File(Bytes::from((*text).to_owned())))).collect();
    let info = CommitInfo {
        id: CommitId([number; 20]),
        reference: "main".to_owned(),
        committer: "somebody".to_owned(),
        author: "somebody".to_owned(),
        subject: format!("change {number}"),
        time: NOW,
        trailer: None,
    };
    Revision { info, rewritten: Some(false), fleet: fleet::load(&Snapshot::new(entries), None) }
}

pub(super) fn written(store: Store) -> Written {
    store.written().expect("our own records can be written")
}

pub(super) fn take(controller: &mut Controller, revision: Revision) {
    controller.handle_revision(revision, NOW);
    while let Some(action) = controller.poll_action() {
        if let Action::Store(store) = action {
            controller.handle_stored(store.ticket, NOW);
        }
    }
}

pub(super) const GROUP: &str = "apiVersion: gitamp/v1\nkind: Group\nselector: {matchAll: true}\nvariants:\n  - {name: us, selector: {matchLabels: {region: us}}}\n";
pub(super) const CONFIG: &str = "receivers: {otlp: {}}\nexporters: {debug: {}}\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n";

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
            controller.handle_stored(store.ticket, NOW);
            files.extend(written(store).files.into_iter().filter_map(|(path, file)| Some((path, file?))));
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

/// A group with everything that a definition can say.
fn definition_of_everything() -> GroupDefinition {
    let requirement = |operator: Operator, values: &[&str]| {
        Requirement::new("k/e y", operator, values.iter().map(|value| (*value).to_owned()).collect()).expect("valid")
    };
    let requirements = Operator::ALL.map(|operator| {
        requirement(operator, if operator.is_about_the_key() { &[] } else { &["no", "012", "", "ü*\n"] })
    });
    let stage = |name: &str, agents| Stage {
        name: name.to_owned(),
        agents,
        selector: agents.is_none().then(|| Selector::new(requirements.to_vec())),
        soak: Duration::from_millis(1_500),
        needs_approval: agents.is_none(),
        max_failures: agents,
    };
    GroupDefinition {
        selector: Selector::new(requirements.to_vec()),
        priority: -7,
        variant_of: Some((GroupName::new("prod/a"), 3)),
        suspend: true,
        expect: Some(Expect { min: None, max: Some(60) }),
        strategy: Strategy {
            stages: vec![stage("canary", Some(Amount::Count(1))), stage("ring", None), stage("all", Some(Amount::ALL))],
            bake: Duration::from_secs(86_400),
            max_unavailable: Amount::Share(250),
            progress_deadline: Duration::from_secs(61),
            max_failures: Some(Amount::Count(0)),
            on_failure: OnFailure::Pause,
            on_new_commit: OnNewCommit::Finish,
            spread_by: vec!["os.type".to_owned()],
            spread_proven: true,
            depends_on: vec![GroupName::new("staging")],
            windows: ["allow Mon-Fri 09:00-17:00 Europe/Berlin", "deny 2026-12-24..2027-01-02 UTC"]
                .map(|text| text.parse().expect("a window"))
                .to_vec(),
        },
    }
}

#[test]
fn an_order_is_kept_once_its_record_is_stored() {
    let mut controller = Controller::new(Options { observe: false, forget_after: Duration::from_secs(3600) });
    take(&mut controller, revision(1, &[("all/group.yaml", GROUP), ("all/collector.yaml", CONFIG)]));
    let stored = |controller: &mut Controller| {
        let mut actions = std::iter::from_fn(|| controller.poll_action());
        actions.find_map(|action| if let Action::Store(store) = action { Some(store) } else { None })
    };
    let freeze = crate::view::command::Command::Freeze { group: None };
    let order = crate::view::command::Order { command: freeze, by: "ann".to_owned(), at: NOW, reason: None };
    controller.handle_order(&order, NOW).expect("nothing is frozen");
    let store = stored(&mut controller).expect("a record");
    assert!(store.files.contains_key(ORDERS_FILE) && store.message.contains("freeze by ann"), "{}", store.message);
    assert_eq!(controller.orders_kept(), OrdersKept { given: 1, tried: 0, stored: 0 });
    controller.handle_store_failed(store.ticket, NOW);
    assert_eq!(controller.orders_kept(), OrdersKept { given: 1, tried: 1, stored: 0 });
    let later = NOW + Duration::from_secs(60);
    controller.handle_timeout(later);
    let again = stored(&mut controller).expect("the record once more");
    assert_eq!(again.message, store.message);
    controller.handle_stored(again.ticket, later);
    assert_eq!(controller.orders_kept(), OrdersKept { given: 1, tried: 1, stored: 1 });
}

#[test]
fn who_belonged_where_reads_back_as_it_was_written() {
    let definition = definition_of_everything();
    let belonging = Some((&definition).into());
    let groups = BTreeMap::from([("all".to_owned(), belonging), ("new".to_owned(), None)]);
    let older = |since: Timestamp| GenerationFile { since, groups: groups.clone() };
    let generations = vec![older(NOW), older(NOW + Duration::from_secs(1))];
    let file = GenerationsFile { evicted: Some(NOW), generations };
    let text = serde_yaml::to_string(&file).expect("a record can be written");
    let read: GenerationsFile = serde_yaml::from_str(&text).expect("our own record");
    assert_eq!(read, file);
    let earlier = Earlier::read(Some(read), None).expect("our own definitions");
    assert_eq!(earlier.file(), Some(file));

    // What an earlier release wrote is one generation.
    let before = EarlierFile { since: NOW, groups: groups.clone() };
    let text = format!("version: 1\nearlier:\n{}", indented(&serde_yaml::to_string(&before).expect("a record")));
    let read = FleetFile::read(text.as_bytes()).expect("the record of an earlier release");
    assert_eq!(read.earlier, Some(before));
    let earlier = Earlier::read(read.generations, read.earlier).expect("its definitions");
    assert_eq!(earlier.file(), Some(GenerationsFile { evicted: None, generations: vec![older(NOW)] }));
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[test]
fn what_people_ordered_holds_although_who_belonged_where_cannot_be_read() {
    let pin = |who: &str| Pin { until: NOW, said: Said { by: who.to_owned(), at: NOW, reason: None } };
    let id = AgentId::new(&[7; 16]).expect("a uid");
    let groups = BTreeMap::from([("all".to_owned(), Some((&definition_of_everything()).into()))]);
    let file = FleetFile {
        version: record::VERSION,
        commit: None,
        refused: None,
        policy: None,
        frozen: None,
        pins: BTreeMap::from([(id.to_string(), pin("ann"))]),
        rejected: vec!["odd".to_owned()],
        promoted: None,
        generations: Some(GenerationsFile { evicted: None, generations: vec![GenerationFile { since: NOW, groups }] }),
        earlier: None,
        outsiders: None,
    };
    let text = serde_yaml::to_string(&file).expect("a record").replace("operator: ", "operator: not-");
    let files = BTreeMap::from([("fleet.yaml".to_owned(), Bytes::from(text))]);
    let options = Options { observe: false, forget_after: Duration::from_secs(3_600) };
    let (controller, problems) = Controller::restore(options, &files, NOW).expect("no newer version");
    assert!(problems.len() == 1 && problems[0].starts_with("fleet.yaml: "), "{problems:?}");
    assert_eq!(controller.pins.get(&id), Some(&pin("ann")));
    assert!(controller.rejected.contains(&GroupName::new("odd")));
}

#[test]
fn records_read_back_as_they_were_written() {
    for definition in [
        definition_of_everything(),
        GroupDefinition {
            selector: Selector::everybody(),
            priority: 0,
            variant_of: None,
            suspend: false,
            expect: None,
            strategy: Strategy::default(),
        },
    ] {
        let hash = ConfigHash::new([0xab; 32]);
        let mut file = GroupFile::new("main@sha1:0", &definition, GroupRecord::default());
        file.rollouts.stables = vec![hash];
        file.rollouts.wanted = Some(hash);
        let message = "line 1\nline 2: \u{1b} `no`".to_owned();
        file.failures.insert(
            "5e5e5e5e-5e5e-5e5e-5e5e-5e5e5e5e0001".to_owned(),
            FailureFile { hash, message, is_absent: true, at: NOW },
        );
        file.restarts = vec!["5e5e5e5e-5e5e-5e5e-5e5e-5e5e5e5e0002".to_owned()];
        file.restarting.insert("5e5e5e5e-5e5e-5e5e-5e5e-5e5e5e5e0003".to_owned(), NOW);
        file.next =
            Some(NextFile { wanted: hash, revision: "main@sha1:1".to_owned(), moved_in: true, hold: None, fast: true });
        let bytes = Content::Group(Arc::new(file.clone())).encode().expect("a record can be written");
        let read = GroupFile::read(&bytes).expect("our own record");
        assert_eq!(read, file);
        assert_eq!(*read.definition().expect("our own definition"), definition);
    }
}

#[test]
fn a_commit_keeps_what_its_trailer_asks() {
    for trailer in
        [None, Some(RolloutTrailer::Hold), Some(RolloutTrailer::Fast), Some(RolloutTrailer::Unknown("soon".to_owned()))]
    {
        let info = CommitInfo { trailer, ..revision(1, &[]).info };
        let fleet = FleetFile {
            version: record::VERSION,
            commit: Some(CommitFile::from(&info)),
            refused: None,
            policy: None,
            frozen: None,
            pins: BTreeMap::new(),
            rejected: Vec::new(),
            promoted: None,
            generations: None,
            earlier: None,
            outsiders: None,
        };
        let bytes = Content::Fleet(Arc::new(fleet)).encode().expect("a record can be written");
        let read = FleetFile::read(&bytes).expect("our own record");
        assert_eq!(CommitInfo::try_from(read.commit.expect("the commit")).expect("our own commit"), info);
    }
}

#[test]
fn what_was_damaged_in_the_journal_is_told_and_left_out() {
    let options = Options { observe: false, forget_after: Duration::from_secs(3600) };
    let mut controller = Controller::new(options.clone());
    controller.handle_revision(revision(1, &[("all/group.yaml", GROUP), ("all/collector.yaml", CONFIG)]), NOW);
    let mut files = BTreeMap::new();
    while let Some(action) = controller.poll_action() {
        if let Action::Store(store) = action {
            controller.handle_stored(store.ticket, NOW);
            files.extend(written(store).files.into_iter().filter_map(|(path, file)| Some((path, file?))));
        }
    }
    let paths: Vec<String> = files.keys().cloned().collect();
    assert!(paths.len() >= 4, "the fleet, two groups, a body, a commit: {paths:?}");
    for path in &paths {
        for (how, damage) in [
            ("empty", Bytes::new()),
            ("no YAML", Bytes::from_static(b"{[")),
            ("no text", Bytes::from_static(&[0xff, 0xfe, 0x00])),
            ("another shape", Bytes::from_static(b"- 1\n- 2\n")),
            ("cut off", files[path].slice(..files[path].len() * 2 / 5)),
        ] {
            let mut damaged = files.clone();
            damaged.insert(path.clone(), damage);
            let (mut restored, problems) = Controller::restore(options.clone(), &damaged, NOW).expect("our version");
            assert!(!problems.is_empty(), "{path}, {how}: nobody is told");
            // The repository says it again, and nothing is worse than for a fleet that was never seen.
            restored.handle_revision(revision(1, &[("all/group.yaml", GROUP), ("all/collector.yaml", CONFIG)]), NOW);
            assert_eq!(restored.status("default", NOW).groups.len(), 2, "{path}, {how}");
        }
        let mut without = files.clone();
        without.remove(path);
        let (restored, _) = Controller::restore(options.clone(), &without, NOW).expect("our version");
        assert!(restored.groups.len() <= 2, "{path} is missing");
    }
}

/// An agent comes that proved nothing.
pub(super) fn connected(id: AgentId, connection: ConnectionId, transport: Transport) -> AgentEvent {
    AgentEvent::Connected { id, connection, transport, proofs: Labels::default() }
}

#[test]
fn what_a_build_could_run_is_shown_for_one_agent_only() {
    let mut controller = Controller::new(Options { observe: false, forget_after: Duration::from_secs(60) });
    let (id, connection) = (AgentId::new(&[7; 16]).expect("a uid"), ConnectionId(1));
    let names: ComponentNames = ["receivers/otlp".to_owned()].into_iter().collect();
    let report = AgentReport { available: Some(Arc::new(names)), ..AgentReport::default() };
    let now = Timestamp::default();
    controller.handle_agent(connected(id, connection, Transport::Http), now);
    controller.handle_agent(AgentEvent::Report { id, connection, report: Box::new(report) }, now);
    for (asked, shown) in [(None, &[][..]), (Some("0707"), &["receivers/otlp"])] {
        let list = controller.agents(&AgentQuery { id: asked.map(str::to_owned), ..AgentQuery::default() });
        assert_eq!(list.agents[0].available_components, shown, "{asked:?}");
    }
}

#[test]
fn open_commits_are_bounded() {
    let mut controller = Controller::new(Options { observe: false, forget_after: Duration::from_secs(3600) });
    // Nobody is there to prove anything, so every commit of a new group stays open.
    let mut files: Vec<(String, String)> = Vec::new();
    let mut notes = BTreeMap::new();
    for number in 1..=100u8 {
        let only = GROUP.replace("matchAll: true", &format!("matchLabels: {{group: g{number}}}"));
        let only = only.split("variants").next().unwrap_or_default().to_owned();
        files.push((format!("g{number}/group.yaml"), only));
        files.push((format!("g{number}/collector.yaml"), CONFIG.replace("debug", &format!("debug/{number}"))));
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        controller.handle_revision(revision(number, &files), NOW);
        while let Some(action) = controller.poll_action() {
            if let Action::Store(store) = action {
                controller.handle_stored(store.ticket, NOW);
                notes.extend(written(store).notes);
            }
        }
    }
    assert_eq!(controller.status("default", NOW).groups.len(), 100);
    assert!(controller.status("default", NOW).commits.len() <= 65, "the oldest were closed as they stood");
    assert_eq!(notes.len(), 100, "and every one has its note");
    assert!(notes.values().all(|note| note.len() < 64 * 1024), "none of them beyond what a note may hold");
}

fn keep(files: &mut BTreeMap<String, Bytes>, written: Written) {
    for (path, file) in written.files {
        match file {
            Some(file) => drop(files.insert(path, file)),
            None => drop(files.remove(&path)),
        }
    }
}

/// The files that the journal holds after these actions.
pub(super) fn kept(controller: &mut Controller, files: &mut BTreeMap<String, Bytes>, now: Timestamp) -> Vec<Reported> {
    let mut reports = Vec::new();
    while let Some(action) = controller.poll_action() {
        match action {
            Action::Store(store) => {
                controller.handle_stored(store.ticket, now);
                keep(files, written(store));
            }
            Action::Report(reported) => reports.extend(reported),
            Action::Offer { .. } | Action::Restart { .. } | Action::Withdraw { .. } | Action::Notice(_) => {}
        }
    }
    reports
}

#[test]
fn an_ending_is_kept_over_restarts_until_it_was_told() {
    let options = Options { observe: false, forget_after: Duration::from_secs(3600) };
    let mut files = BTreeMap::new();
    let commits = |files: &BTreeMap<String, Bytes>| files.keys().filter(|path| path.starts_with("commits/")).count();
    let mut controller = Controller::new(options.clone());
    controller.keep_until_told();
    controller.handle_revision(revision(1, &[("base/common.yaml", "a: [")]), NOW);
    let reports = kept(&mut controller, &mut files, NOW);
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!((reports[0].report.ending, reports[0].is_open), (Some(Ending::NoOp), false), "{reports:?}");
    assert_eq!(commits(&files), 1, "nobody was told yet");

    for process in ["the next process", "and the one after that"] {
        (controller, _) = Controller::restore(options.clone(), &files, NOW).expect("our own version");
        controller.keep_until_told();
        controller.handle_timeout(NOW);
        assert_eq!(kept(&mut controller, &mut files, NOW), reports, "{process} tells the same");
    }
    controller.handle_told(reports[0].commit);
    let later = NOW + Duration::from_secs(60);
    controller.handle_timeout(NOW);
    controller.handle_timeout(later);
    assert_eq!(kept(&mut controller, &mut files, later), [], "there is nothing new");
    assert_eq!(commits(&files), 0, "what was told need not be kept");

    let (mut quiet, _) = Controller::restore(options, &files, NOW).expect("our own version");
    quiet.handle_revision(revision(2, &[("base/common.yaml", "a: {}")]), NOW);
    assert_eq!(kept(&mut quiet, &mut files, NOW), [], "nobody asked");
    assert_eq!(commits(&files), 0, "and then nothing is kept");
}

#[test]
fn what_a_revision_leaves_as_it_is_is_not_planned() {
    let group = |name: &str, rollout: &str| {
        format!("apiVersion: gitamp/v1\nkind: Group\nselector: {{matchLabels: {{name: {name}}}}}\n{rollout}")
    };
    let other = CONFIG.replace("otlp: {}", "otlp: {protocols: {grpc: {}}}");
    let fleet = |number: u8, config: &str| {
        let (one, two, three) = (group("a", ""), group("b", ""), group("c", "rollout: {dependsOn: [a]}\n"));
        revision(
            number,
            &[
                ("a/group.yaml", one.as_str()),
                ("a/collector.yaml", CONFIG),
                ("b/group.yaml", &two),
                ("b/collector.yaml", config),
                ("c/group.yaml", &three),
                ("c/collector.yaml", CONFIG),
            ],
        )
    };
    let mut controller = Controller::new(Options { observe: false, forget_after: Duration::from_secs(36_000) });
    let first = fleet(1, CONFIG);
    let config = first.fleet.groups.values().next().and_then(|group| group.config.clone()).expect("it renders");
    take(&mut controller, first);
    let mut now = NOW;
    for (number, name) in (1..).zip(["a", "b", "c"]) {
        let (id, connection) = (AgentId::new(&[number; 16]).expect("a uid"), ConnectionId(u64::from(number)));
        let report = AgentReport {
            capabilities: Some(Capabilities(0x7C47)),
            labels: Some(Labels::new([("name", name)])),
            config: Some(ConfigState {
                hash: ReportedHash::Known(config.hash()),
                status: ConfigStatus::Applied,
                message: None,
            }),
            health: Some(Health { healthy: true, message: None }),
            ..AgentReport::default()
        };
        controller.handle_agent(connected(id, connection, Transport::WebSocket), now);
        controller.handle_agent(AgentEvent::Report { id, connection, report: Box::new(report) }, now);
    }
    let all: Vec<GroupName> = controller.groups.keys().cloned().collect();
    let nobody = BTreeSet::new();
    let coming = fleet(2, &other);
    assert_eq!(controller.concerned(all.clone(), &nobody, &nobody, &coming.fleet), all, "nothing is settled yet");
    for _ in 0..10_000 {
        while let Some(action) = controller.poll_action() {
            if let Action::Store(store) = action {
                controller.handle_stored(store.ticket, now);
            }
        }
        if controller.groups.values().all(|state| state.machine.is_settled_on(config.hash())) {
            break;
        }
        now = controller.poll_timeout().expect("something is to come").max(now);
        controller.handle_timeout(now);
    }
    let names = |names: &[&str]| names.iter().map(|name| GroupName::new(*name)).collect::<Vec<_>>();
    let moved: BTreeSet<_> = names(&["a"]).into_iter().collect();
    for (renewed, receivers, expected, why) in [
        (&nobody, &nobody, &["b", "c"][..], "one has another configuration, and one depends on others"),
        (&moved, &nobody, &["a", "b", "c"], "another definition"),
        (&nobody, &moved, &["a", "b", "c"], "agents move in"),
    ] {
        let found = controller.concerned(all.clone(), renewed, receivers, &coming.fleet);
        assert_eq!(found, names(expected), "{why}");
    }
    assert!(controller.handle_revision(coming, now));
    let state = |name: &str| controller.groups.get(&GroupName::new(name)).expect("it is there");
    assert!(state("a").revision.contains(&"02".repeat(20)), "and it is of the new revision all the same");
    assert!(state("b").machine.rollout().is_some() && state("a").machine.rollout().is_none());
}

/// Lets agents take what they are offered, and time pass, until nothing is under way in any group; who is offered `bad` fails.
pub(super) fn work_off(controller: &mut Controller, bad: Option<ConfigHash>, now: &mut Timestamp) {
    work_off_keeping(controller, bad, now, &mut BTreeMap::new());
}

/// The same, with the files that the journal holds.
pub(super) fn work_off_keeping(
    controller: &mut Controller,
    bad: Option<ConfigHash>,
    now: &mut Timestamp,
    files: &mut BTreeMap<String, Bytes>,
) {
    for _ in 0..10_000 {
        while let Some(action) = controller.poll_action() {
            match action {
                Action::Store(store) => {
                    controller.handle_stored(store.ticket, *now);
                    keep(files, written(store));
                }
                Action::Offer { connection, id, config, .. } => {
                    let is_bad = bad == Some(config.hash());
                    let status = if is_bad { ConfigStatus::Failed } else { ConfigStatus::Applied };
                    let message = is_bad.then(|| Arc::from("no such exporter"));
                    let state = ConfigState { hash: ReportedHash::Known(config.hash()), status, message };
                    let report = AgentReport { config: Some(state), ..AgentReport::default() };
                    controller.handle_agent(AgentEvent::Report { id, connection, report: Box::new(report) }, *now);
                }
                Action::Restart { .. } | Action::Withdraw { .. } | Action::Report(_) | Action::Notice(_) => {}
            }
        }
        let has_ended = |state: &GroupState| state.machine.is_rolled_back() || state.machine.rollout().is_none();
        if controller.groups.values().all(has_ended) {
            return;
        }
        *now = controller.poll_timeout().unwrap_or(*now).max(*now);
        controller.handle_timeout(*now);
    }
    panic!("it never ends: {:?}", controller.status("default", *now));
}

#[test]
fn a_commit_that_leaves_what_was_taken_back_as_it_is_did_not_bring_it() {
    let group =
        |name: &str| format!("apiVersion: gitamp/v1\nkind: Group\nselector: {{matchLabels: {{name: {name}}}}}\n");
    let (other, worse) = (CONFIG.replace("debug", "debug/other"), CONFIG.replace("debug", "debug/worse"));
    let fleet = |number: u8, g: &str, h: &str| {
        let (one, two) = (group("g"), group("h"));
        let files =
            [("g/group.yaml", one.as_str()), ("g/collector.yaml", g), ("h/group.yaml", &two), ("h/collector.yaml", h)];
        revision(number, &files)
    };
    let mut controller = Controller::new(Options { observe: false, forget_after: Duration::from_secs(36_000) });
    let mut now = NOW;
    controller.handle_revision(fleet(1, CONFIG, CONFIG), now);
    for (number, name) in (1..).zip(["g", "h"]) {
        let (id, connection) = (AgentId::new(&[number; 16]).expect("a uid"), ConnectionId(u64::from(number)));
        let report = AgentReport {
            capabilities: Some(Capabilities(0x7C47)),
            labels: Some(Labels::new([("name", name)])),
            config: Some(ConfigState { hash: ReportedHash::None, status: ConfigStatus::Unset, message: None }),
            health: Some(Health { healthy: true, message: None }),
            ..AgentReport::default()
        };
        controller.handle_agent(connected(id, connection, Transport::WebSocket), now);
        controller.handle_agent(AgentEvent::Report { id, connection, report: Box::new(report) }, now);
    }
    work_off(&mut controller, None, &mut now);
    let guilty = fleet(2, &worse, CONFIG);
    let bad = guilty.fleet.groups[&GroupName::new("g")].config.as_ref().map(|config| config.hash());
    controller.handle_revision(guilty, now);
    let of = |controller: &Controller, number: u8| {
        let is_it = |report: &CommitReport| report.revision.ends_with(&format!("{number:02x}").repeat(20));
        controller.status("default", NOW).commits.into_iter().find(is_it).expect("it is the newest")
    };
    assert_eq!(of(&controller, 2).after, Some("01".repeat(20)), "what it came after is kept with it");
    work_off(&mut controller, bad, &mut now);
    let guilty = of(&controller, 2);
    assert_eq!(guilty.ending, Some(Ending::RolledBack));
    assert!(controller.stands_rolled_back(&guilty));

    controller.handle_revision(fleet(3, &worse, &other), now);
    work_off(&mut controller, bad, &mut now);
    let innocent = of(&controller, 3);
    assert_eq!(innocent.groups["g"].ending, Some(Ending::RolledBack), "{innocent:?}");
    assert!(!controller.stands_rolled_back(&innocent), "it brought another change: {innocent:?}");
    assert!(controller.stands_rolled_back(&guilty), "and nothing has answered the one that did");

    controller.handle_revision(fleet(4, CONFIG, &other), now);
    assert!(!controller.stands_rolled_back(&guilty), "now something has");
}
