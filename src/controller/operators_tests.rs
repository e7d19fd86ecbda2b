//! Who may give which order, whose commit it is, and how much of what is refused the journal takes in.

use super::*;
use crate::controller::content::Written;
use crate::controller::storage::ORDERS_FILE;
use crate::controller::tests::{CONFIG, GROUP, NOW, revision, take, written};
use crate::controller::{Action, Options, Revision};
use crate::fleet::snapshot::RolloutTrailer;

fn controller() -> Controller {
    Controller::new(Options { observe: false, forget_after: Duration::from_secs(3600) })
}

fn who(role: Role, email: Option<&str>, approves_own: bool) -> Operator {
    Operator { by: "ann (API)".to_owned(), role, email: email.map(str::to_owned), approves_own }
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
        let outcome = controller.handle_order_of(&order(command.clone()), &who(role, None, true), NOW);
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
    controller.handle_order_of(&order(Command::Pause { group: "all".to_owned() }), &operate, NOW).expect("may pause");
    controller.handle_order_of(&order(resume()), &operate, NOW).expect("may take that back");
    assert!(controller.handle_order_of(&order(resume()), &operate, NOW).is_err(), "not what the commit wants");
}

#[test]
fn nobody_approves_an_own_commit_where_that_is_forbidden() {
    for (email, refusal) in [
        (Some("bob@example.org"), Some("wrote or committed what all waits with")),
        (Some("CARL@example.org"), Some("wrote or committed what all waits with")),
        (None, Some("no e-mail address")),
        (Some("ann@example.org"), None),
    ] {
        for command in [promote(), resume()] {
            let mut controller = waiting();
            let outcome = controller.handle_order_of(&order(command.clone()), &who(Role::Approve, email, false), NOW);
            match refusal {
                Some(words) => {
                    let refusal = outcome.expect_err(words);
                    assert!(refusal.is_forbidden && refusal.message.contains(words), "{refusal:?}");
                    assert!(
                        controller.groups[&GroupName::new("all")].machine.waits_for_a_word(),
                        "nothing was changed"
                    );
                    assert!(controller.handle_order_of(&order(command), &who(Role::Approve, email, true), NOW).is_ok());
                }
                None => assert!(outcome.is_ok(), "{outcome:?}"),
            }
        }
    }
    // What approves nothing is nobody's own.
    let pause = Command::Pause { group: "all".to_owned() };
    assert!(waiting().handle_order_of(&order(pause), &who(Role::Operate, Some("bob@example.org"), false), NOW).is_ok());
    let nothing = Command::Promote { target: "nowhere".to_owned(), now: false };
    let refusal = waiting().handle_order_of(&order(nothing), &who(Role::Approve, Some("ann@example.org"), false), NOW);
    assert!(!refusal.expect_err("there is none").is_forbidden);
    // By its id, the commit is the same one.
    let commit = Command::Promote { target: "02".repeat(20), now: false };
    let refusal = waiting().handle_order_of(&order(commit), &who(Role::Approve, Some("bob@example.org"), false), NOW);
    assert!(refusal.expect_err("his own").is_forbidden);
}

#[test]
fn refusals_fill_no_journal() {
    let mut controller = controller();
    take(&mut controller, revision(1, &[("all/group.yaml", GROUP), ("all/collector.yaml", CONFIG)]));
    let view = who(Role::View, None, true);
    let mut lines = Vec::new();
    for _ in 0..500 {
        let refused = controller.handle_order_of(&order(promote()), &view, NOW);
        assert!(refused.is_err());
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
    assert!(controller.handle_order_of(&order(promote()), &view, NOW + WINDOW).is_err());
    assert_eq!(stored(&mut controller, NOW + WINDOW).len(), 1, "the next minute has its own");
    // What is carried out is recorded whatever was refused before.
    let operate = who(Role::Operate, None, true);
    for number in 0..40 {
        let command = if number % 2 == 0 { Command::Freeze { group: None } } else { Command::Unfreeze { group: None } };
        assert!(controller.handle_order_of(&order(command), &operate, NOW + WINDOW).is_ok());
        assert!(!stored(&mut controller, NOW + WINDOW).is_empty(), "order {number}");
    }
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
