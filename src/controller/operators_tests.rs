//! Who may give which order, whose commit it is, and how much of what is refused the journal takes in.

use super::*;
use crate::agent::{
    AgentEvent, AgentId, AgentReport, Capabilities, ConfigState, ConfigStatus, ConnectionId, Health, ReportedHash,
    Transport,
};
use crate::controller::content::Written;
use crate::controller::storage::ORDERS_FILE;
use crate::controller::tests::{
    CONFIG, GROUP, NOW, connected, kept, revision, take, work_off, work_off_keeping, written,
};
use crate::controller::{Action, Options, Revision};
use crate::fleet::snapshot::RolloutTrailer;
use crate::labels::Labels;

fn controller() -> Controller {
    Controller::new(Options { observe: false, forget_after: Duration::from_secs(3600) })
}

fn who(role: Role, email: Option<&str>, approves_own: bool) -> Operator {
    Operator { by: "ann (API)".to_owned(), role, email: email.map(str::to_owned), approves_own }
}

/// Gives an order of which nothing has to be found out.
fn give(controller: &mut Controller, command: Command, who: &Operator, now: Timestamp) -> Result<Impact, Refusal> {
    controller.handle_order_of(&order(command), who, &Authors::new(), now)
}

/// Gives an order, of whose commits these are the authors.
fn give_of(controller: &mut Controller, command: Command, who: &Operator, authors: &[&str]) -> Result<Impact, Refusal> {
    let mails: std::collections::BTreeSet<String> = authors.iter().map(|mail| (*mail).to_owned()).collect();
    let authors = controller.ranges(&command, who).into_iter().map(|range| (range, Ok(mails.clone()))).collect();
    controller.handle_order_of(&order(command), who, &authors, NOW)
}

fn order(command: Command) -> Order {
    Order { command, by: "ann (API)".to_owned(), at: NOW, reason: Some("a drill".to_owned()) }
}

/// The stores that the controller asks for, each done at once.
fn stored(controller: &mut Controller, now: Timestamp) -> Vec<Written> {
    let mut stores = Vec::new();
    while let Some(action) = controller.poll_action() {
        if let Action::Store(store) = action {
            controller.handle_stored(store.ticket, now);
            stores.push(written(store));
        }
    }
    stores
}

/// Its commit is held by its own trailer; Bob wrote it, and Carl committed it.
fn held(number: u8, config: &str) -> Revision {
    let mut held = revision(number, &[("all/group.yaml", GROUP), ("all/collector.yaml", config)]);
    held.info.trailer = Some(RolloutTrailer::Hold);
    held.info.author = "Bob <bob@example.org>".to_owned();
    held.info.committer = "Carl <carl@example.org>".to_owned();
    held
}

/// A group that waits for a person's word, because its commit wants that.
fn waiting() -> Controller {
    let mut controller = controller();
    take(&mut controller, revision(1, &[("all/group.yaml", GROUP), ("all/collector.yaml", CONFIG)]));
    let held = held(2, &CONFIG.replace("{debug: {}}", "{debug: {verbosity: detailed}}"));
    take(&mut controller, held);
    assert!(controller.groups[&GroupName::new("all")].machine.waits_for_a_word());
    controller
}

fn promote() -> Command {
    Command::Promote { target: "all".to_owned(), now: false }
}

fn resume() -> Command {
    Command::Resume { group: "all".to_owned() }
}

#[test]
fn roles_bound_what_is_carried_out() {
    let freeze = || Command::Freeze { group: None };
    for (role, command, refusal) in [
        (Role::View, freeze(), Some("freeze needs the role operate, and ann (API) has the role view")),
        (Role::Operate, freeze(), None),
        (Role::Approve, freeze(), None),
        (Role::View, promote(), Some("promote needs the role approve, and ann (API) has the role view")),
        (Role::Operate, promote(), Some("promote needs the role approve, and ann (API) has the role operate")),
        (Role::Approve, promote(), None),
        (Role::Operate, resume(), Some("resume needs the role approve, and ann (API) has the role operate")),
        (Role::Approve, resume(), None),
        (Role::Operate, Command::Pause { group: "all".to_owned() }, None),
    ] {
        let mut controller = waiting();
        let outcome = give(&mut controller, command.clone(), &who(role, None, true), NOW);
        assert_eq!(outcome.as_ref().err().map(|refusal| refusal.message.as_str()), refusal, "{role:?} {command:?}");
        assert_eq!(controller.frozen.is_some(), refusal.is_none() && command == freeze(), "{role:?} {command:?}");
        assert!(outcome.is_ok() || outcome.is_err_and(|refusal| refusal.is_forbidden));
        let stores = stored(&mut controller, NOW);
        let store = stores.iter().find(|store| store.files.contains_key(ORDERS_FILE)).expect("a record");
        let line = format!(
            "{} by ann (API) (a drill): {}",
            command.name(),
            refusal.map(|words| format!("refused: {words}")).unwrap_or_default()
        );
        assert!(store.message.contains(&line), "{} is not in {}", line, store.message);
        let text = String::from_utf8_lossy(store.files[ORDERS_FILE].as_ref().expect("a file")).into_owned();
        assert!(text.contains("ann (API)") && refusal.is_none_or(|_| text.contains("refused: ")), "{text}");
    }
    // A person's pause is taken back by whoever may pause, also where the commit holds as well.
    let mut controller = waiting();
    let operate = who(Role::Operate, None, true);
    give(&mut controller, Command::Pause { group: "all".to_owned() }, &operate, NOW).expect("may pause");
    give(&mut controller, resume(), &operate, NOW).expect("may take that back");
    assert!(give(&mut controller, resume(), &operate, NOW).is_err(), "not what the commit wants");
}

#[test]
fn nobody_approves_an_own_commit_where_that_is_forbidden() {
    for (email, refusal) in [
        (Some("bob@example.org"), Some("wrote or committed a part of what all waits with")),
        (Some("CARL@example.org"), Some("wrote or committed a part of what all waits with")),
        (None, Some("no e-mail address")),
        (Some("ann@example.org"), None),
    ] {
        for command in [promote(), resume()] {
            let mut controller = waiting();
            let authors = ["bob@example.org", "carl@example.org"];
            let outcome = give_of(&mut controller, command.clone(), &who(Role::Approve, email, false), &authors);
            match refusal {
                Some(words) => {
                    let refusal = outcome.expect_err(words);
                    assert!(refusal.is_forbidden && refusal.message.contains(words), "{refusal:?}");
                    assert!(
                        controller.groups[&GroupName::new("all")].machine.waits_for_a_word(),
                        "nothing was changed"
                    );
                    assert!(give(&mut controller, command, &who(Role::Approve, email, true), NOW).is_ok());
                }
                None => assert!(outcome.is_ok(), "{outcome:?}"),
            }
        }
    }
    // What approves nothing is nobody's own.
    let bob = |role| who(role, Some("bob@example.org"), false);
    let pause = Command::Pause { group: "all".to_owned() };
    assert_eq!(waiting().ranges(&pause, &bob(Role::Approve)), []);
    assert!(give(&mut waiting(), pause, &bob(Role::Operate), NOW).is_ok());
    let nothing = Command::Promote { target: "nowhere".to_owned(), now: false };
    let refusal = give_of(&mut waiting(), nothing, &who(Role::Approve, Some("ann@example.org"), false), &[]);
    assert!(!refusal.expect_err("there is none").is_forbidden);
    // By its id, the commit is the same one.
    let commit = Command::Promote { target: "02".repeat(20), now: false };
    let refusal = give_of(&mut waiting(), commit, &bob(Role::Approve), &["bob@example.org"]);
    assert!(refusal.expect_err("his own").is_forbidden);
}

#[test]
fn what_is_approved_is_all_that_lies_between_what_ran_and_what_is_to_run() {
    let ann = who(Role::Approve, Some("ann@example.org"), false);
    let id = |number: u8| CommitId([number; 20]);
    let paths = |paths: &[&str]| paths.iter().map(|path| Arc::from(*path)).collect::<Vec<Arc<str>>>();
    let all = ["all", "defaults.yaml", "base/common.yaml"];
    let files = |config: &str| {
        let group = GROUP.to_owned() + "layers: [./collector.yaml, /base/common.yaml]\n";
        let files = [("all/group.yaml", group.as_str()), ("all/collector.yaml", CONFIG), ("base/common.yaml", config)];
        files.map(|(path, text)| (path.to_owned(), text.to_owned()))
    };
    let at = |number: u8, config: &str| {
        let files = files(config);
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let mut revision = revision(number, &files);
        revision.info.trailer = Some(RolloutTrailer::Hold);
        revision
    };
    let mut controller = controller();
    // Before anything ran, all that was ever written for the group alone, and what came with it.
    take(&mut controller, at(1, "exporters: {debug: {verbosity: basic}}\n"));
    take(&mut controller, at(2, "exporters: {debug: {verbosity: normal}}\n"));
    let ranges = controller.ranges(&promote(), &ann);
    let first = [
        Range { since: None, head: id(2), paths: paths(&["all"]) },
        Range { since: Some(id(1)), head: id(2), paths: paths(&all) },
    ];
    assert_eq!(ranges, first);
    assert_eq!(controller.ranges(&promote(), &who(Role::Approve, None, false)), [], "who cannot be judged by it");
    assert_eq!(controller.ranges(&promote(), &who(Role::Approve, Some("a@b"), true)), []);
    // What was found out was about something else by then.
    let authors = ranges.into_iter().map(|range| (range, Ok(std::collections::BTreeSet::new()))).collect();
    take(&mut controller, at(3, "exporters: {debug: {verbosity: detailed}}\n"));
    let refusal = controller.handle_order_of(&order(promote()), &ann, &authors, NOW).expect_err("another commit");
    assert!(!refusal.is_forbidden && refusal.message.contains("give the order again"), "{refusal:?}");
    // Nobody's is not what nobody knows.
    let unknown = controller.ranges(&promote(), &ann).into_iter().map(|range| (range, Err("why".to_owned()))).collect();
    let refusal = controller.handle_order_of(&order(promote()), &ann, &unknown, NOW).expect_err("unknown");
    assert!(
        refusal.is_forbidden && refusal.message.contains("(why): approve it on the daemon's machine"),
        "{refusal:?}"
    );
    // A variant's files are its group's; without its layers everything counts.
    let name = GroupName::new("prod/eu/gw@us");
    let layers: Vec<Arc<str>> = paths(&["prod/eu/gw/c.yaml", "prod/eu/gw-2/x.yaml", "base/a.yaml"]);
    assert_eq!(
        files_of(&name, Some(&layers)),
        paths(&[
            "prod/eu/gw",
            "defaults.yaml",
            "prod/defaults.yaml",
            "prod/eu/defaults.yaml",
            "prod/eu/gw-2/x.yaml",
            "base/a.yaml"
        ])
    );
    assert_eq!(files_of(&name, None), paths(&[]));
}

/// An agent of this name that has nothing yet.
fn comes(controller: &mut Controller, number: u8, name: &str) {
    let (id, connection) = (AgentId::new(&[number; 16]).expect("a uid"), ConnectionId(u64::from(number)));
    let report = AgentReport {
        capabilities: Some(Capabilities(0x7C47)),
        labels: Some(Labels::new([("name", name)])),
        config: Some(ConfigState { hash: ReportedHash::None, status: ConfigStatus::Unset, message: None }),
        health: Some(Health { healthy: true, message: None }),
        ..AgentReport::default()
    };
    controller.handle_agent(connected(id, connection, Transport::WebSocket), NOW);
    controller.handle_agent(AgentEvent::Report { id, connection, report: Box::new(report) }, NOW);
}

/// A group whose second layer is elsewhere, and both files that it may be in.
fn layered(number: u8, second: &str, contents: [&str; 2]) -> Revision {
    let group = format!(
        "apiVersion: gitamp/v1\nkind: Group\nselector: {{matchAll: true}}\nlayers: [./collector.yaml, /base/{second}.yaml]\n"
    );
    let [one, two] = contents.map(|verbosity| format!("exporters: {{debug: {{verbosity: {verbosity}}}}}\n"));
    let files = [
        ("all/group.yaml", group.as_str()),
        ("all/collector.yaml", CONFIG),
        ("base/one.yaml", &one),
        ("base/two.yaml", &two),
    ];
    let mut revision = revision(number, &files);
    revision.info.trailer = (number > 1).then_some(RolloutTrailer::Hold);
    revision
}

#[test]
fn what_runs_is_judged_by_the_layers_that_it_was_rendered_from_also_after_a_restart() {
    let ann = who(Role::Approve, Some("ann@example.org"), false);
    let options = Options { observe: false, forget_after: Duration::from_secs(3600) };
    let mut controller = controller();
    let (mut files, mut now) = (std::collections::BTreeMap::new(), NOW);
    controller.handle_revision(layered(1, "one", ["basic", "normal"]), NOW);
    comes(&mut controller, 1, "x");
    work_off_keeping(&mut controller, None, &mut now, &mut files);
    controller.handle_revision(layered(2, "one", ["detailed", "normal"]), now);
    drop(kept(&mut controller, &mut files, now));
    let paths = |controller: &Controller| -> Vec<Vec<String>> {
        let ranges = controller.ranges(&promote(), &ann);
        assert!(!ranges.is_empty(), "it waits for a word");
        ranges.iter().map(|range| range.paths.iter().map(ToString::to_string).collect()).collect()
    };
    assert_eq!(paths(&controller), [["all", "defaults.yaml", "base/one.yaml"]]);
    // The same configuration, now from another file: what waits came from the one, and is in the other.
    let moved = || layered(3, "two", ["basic", "detailed"]);
    controller.handle_revision(moved(), now);
    drop(kept(&mut controller, &mut files, now));
    let both = [["all", "defaults.yaml", "base/one.yaml", "base/two.yaml"]];
    assert_eq!(paths(&controller), both);

    let (mut restored, problems) = Controller::restore(options.clone(), &files, now).expect("our own version");
    assert_eq!(
        (paths(&restored), problems),
        (both.map(|paths| paths.map(str::to_owned).to_vec()).to_vec(), Vec::new())
    );
    restored.handle_revision(moved(), now);
    assert_eq!(paths(&restored), both, "its first look takes nothing away");
    // A record of an earlier release does not say it: then everything counts, until it is over.
    let record = files.get_mut("groups/all/@record.yaml").expect("a record");
    let text = String::from_utf8_lossy(record).into_owned();
    let without: Vec<&str> = text.split("layers:\n").collect();
    let [before, after] = without[..] else { panic!("{text}") };
    let after: String =
        after.lines().skip_while(|line| line.starts_with("- ")).map(|line| format!("{line}\n")).collect();
    *record = bytes::Bytes::from(format!("{before}{after}"));
    let (mut restored, problems) = Controller::restore(options, &files, now).expect("our own version");
    assert_eq!((paths(&restored), problems), (vec![Vec::<String>::new()], Vec::new()));
    restored.handle_revision(moved(), now);
    assert_eq!(paths(&restored), [Vec::<String>::new()]);
}

#[test]
fn who_moved_agents_wrote_a_part_of_what_they_are_given() {
    let ann = who(Role::Approve, Some("ann@example.org"), false);
    let group = |names: &str| {
        format!(
            "apiVersion: gitamp/v1\nkind: Group\nselector: {{matchExpressions: [{{key: name, operator: In, values: [{names}]}}]}}\n"
        )
    };
    let other = CONFIG.replace("{debug: {}}", "{debug: {verbosity: detailed}}");
    let fleet = |number: u8, a: &str, b: &str| {
        let (a, b) = (group(a), group(b));
        let files = [
            ("a/group.yaml", a.as_str()),
            ("a/collector.yaml", CONFIG),
            ("b/group.yaml", &b),
            ("b/collector.yaml", &other),
        ];
        let mut revision = revision(number, &files);
        revision.info.trailer = (number > 1).then_some(RolloutTrailer::Hold);
        revision
    };
    let mut controller = controller();
    let mut now = NOW;
    controller.handle_revision(fleet(1, "x, y", "z"), NOW);
    for (number, name) in (1..).zip(["x", "y", "z"]) {
        comes(&mut controller, number, name);
    }
    work_off(&mut controller, None, &mut now);
    controller.handle_revision(fleet(2, "x", "y, z"), now);
    drop(stored(&mut controller, now));
    let b = GroupName::new("b");
    assert_eq!(controller.groups[&b].machine.rollout().map(|rollout| rollout.kind), Some(Kind::Move));
    let command = Command::Promote { target: "b".to_owned(), now: false };
    let id = |number: u8| CommitId([number; 20]);
    let ranges = controller.ranges(&command, &ann);
    assert!(ranges.contains(&Range { since: Some(id(1)), head: id(2), paths: Vec::new() }), "{ranges:?}");
    let refused = give_of(&mut controller, command.clone(), &ann, &["ann@example.org"]).expect_err("her own");
    assert!(refused.message.contains("wrote or committed a part of what b waits with"), "{refused:?}");
    give_of(&mut controller, command, &ann, &["bob@example.org"]).expect("somebody else's");
}

#[test]
fn strangers_fill_no_journal() {
    let mut controller = controller();
    take(&mut controller, revision(1, &[("all/group.yaml", GROUP), ("all/collector.yaml", CONFIG)]));
    let mut lines = Vec::new();
    for number in 0..500 {
        controller.handle_attempt(Attempt::Command, format!("sync by somebody: {number}"), NOW);
        controller.handle_attempt(Attempt::Identity, format!("agent {number}"), NOW);
        lines.extend(stored(&mut controller, NOW));
    }
    assert_eq!(lines.len(), 2 * MOST_ATTEMPTS as usize, "each kind by itself");
    assert!(lines[0].message.contains("sync by somebody: 0") && lines[1].message.contains("agent 0"));
    assert_eq!(controller.poll_timeout(), Some(NOW + WINDOW_OF_ATTEMPTS));
    let later = NOW + WINDOW_OF_ATTEMPTS;
    controller.handle_timeout(later);
    let told = stored(&mut controller, later);
    let told: String = told.iter().map(|store| store.message.as_str()).collect();
    assert!(told.contains("497 more commands that nobody who is known gave since"), "{told}");
    assert!(told.contains("497 more attempts to use the identity of another agent since"), "{told}");
    // Operators' own lines have their own room.
    assert!(controller.handle_sync_of(&who(Role::Operate, None, true), later).is_ok());
    assert!(stored(&mut controller, later)[0].message.contains("sync by ann (API)"));
}

#[test]
fn refusals_fill_no_journal() {
    let mut controller = controller();
    take(&mut controller, revision(1, &[("all/group.yaml", GROUP), ("all/collector.yaml", CONFIG)]));
    let view = who(Role::View, None, true);
    let mut lines = Vec::new();
    for _ in 0..500 {
        assert!(give(&mut controller, promote(), &view, NOW).is_err());
        assert!(controller.handle_sync_of(&view, NOW).is_err());
        lines.extend(stored(&mut controller, NOW));
    }
    assert_eq!(lines.len(), MOST_LINES as usize, "syncs that are refused count as well");
    let kept = &controller.orders;
    assert_eq!((kept.orders.len(), kept.remarks.len()), (MOST_LINES as usize / 2, MOST_LINES as usize / 2));
    assert_eq!(controller.poll_timeout(), Some(NOW + WINDOW));
    controller.handle_timeout(NOW + WINDOW);
    let told = stored(&mut controller, NOW + WINDOW);
    assert!(told[0].message.contains("990 more refused commands since 2027-01-15T08:00:00Z"), "{}", told[0].message);
    assert_eq!(controller.audit_timeout(), None);
    assert!(give(&mut controller, promote(), &view, NOW + WINDOW).is_err());
    assert_eq!(stored(&mut controller, NOW + WINDOW).len(), 1, "the next minute has its own");
    // What is carried out is recorded whatever was refused before.
    let operate = who(Role::Operate, None, true);
    for number in 0..40 {
        let command = if number % 2 == 0 { Command::Freeze { group: None } } else { Command::Unfreeze { group: None } };
        assert!(give(&mut controller, command, &operate, NOW + WINDOW).is_ok());
        assert!(!stored(&mut controller, NOW + WINDOW).is_empty(), "order {number}");
    }
}

#[test]
fn what_was_refused_is_recorded_and_never_carried_out() {
    let mut controller = waiting();
    stored(&mut controller, NOW);
    let (view, approve) = (who(Role::View, None, true), who(Role::Approve, None, true));
    let unfreeze = Command::Unfreeze { group: None };
    for (command, who, forbidden, words) in [
        (promote(), &view, true, "promote needs the role approve, and ann (API) has the role view"),
        (promote(), &approve, false, "it can be done by now: look, and give the order again"),
        (Command::Freeze { group: None }, &approve, false, "it can be done by now: look, and give the order again"),
        (unfreeze.clone(), &approve, false, ""),
    ] {
        let refusal = controller.handle_refused_of(&order(command.clone()), who, NOW);
        assert_eq!(refusal.is_forbidden, forbidden, "{command:?}: {refusal}");
        let line = format!("{} by ann (API) (a drill): refused: {words}", command.name());
        let stores = stored(&mut controller, NOW);
        assert!(
            refusal.message.starts_with(words) && stores[0].message.contains(&line),
            "{line}: {}",
            stores[0].message
        );
    }
    assert!(controller.groups[&GroupName::new("all")].machine.waits_for_a_word(), "nobody promoted it");
    assert!(give(&mut controller, unfreeze, &approve, NOW).is_err(), "nobody froze it");
}

#[test]
fn syncs_of_operators_stand_in_the_history() {
    let mut controller = controller();
    take(&mut controller, revision(1, &[("all/group.yaml", GROUP), ("all/collector.yaml", CONFIG)]));
    assert!(controller.handle_sync_of(&who(Role::Operate, None, true), NOW).is_ok());
    let stores = stored(&mut controller, NOW);
    assert!(stores[0].message.contains("sync by ann (API)"), "{}", stores[0].message);
    let file =
        |store: &Written| String::from_utf8_lossy(store.files[ORDERS_FILE].as_ref().expect("a file")).into_owned();
    let before = file(&stores[0]);
    assert!(before.contains("what: sync by ann (API)") && before.contains("at: 2027-01-15T08:00:00Z"), "{before}");
    for second in 1..=200 {
        let later = NOW + Duration::from_secs(second * 60);
        assert!(controller.handle_sync_of(&who(Role::Operate, None, true), later).is_ok());
        let stores = stored(&mut controller, later);
        assert_ne!(file(&stores[0]), before, "without a change there would be no commit, and no trace");
    }
    assert_eq!(controller.orders.remarks.len(), MOST_REMARKS);
    let refusal = controller.handle_sync_of(&who(Role::View, None, true), NOW).expect_err("who only looks");
    assert_eq!(refusal.message, "sync needs the role operate, and ann (API) has the role view");
    let stores = stored(&mut controller, NOW);
    assert!(stores[0].message.contains("sync by ann (API): refused: sync needs"), "{}", stores[0].message);
}
