//! What statuses say.

use super::*;
use crate::forge::outbound::statuses::{LONGEST_DESCRIPTION, MOST_CONTEXTS, Naming, State, statuses};
use crate::settings::forge::UrlTemplate;

fn naming() -> Naming {
    Naming { instance: "blue".to_owned(), target: None }
}

fn said(report: &CommitReport, is_open: bool) -> Vec<(String, State, String)> {
    let all = statuses(commit(1), report, is_open, &naming());
    all.into_iter().map(|status| (status.context, status.state, status.description)).collect()
}

#[test]
fn a_group_says_how_it_stands() {
    let confirmed = Counts { selected: 10, confirmed: 3, ..Counts::default() };
    let rejected = GroupReport {
        diagnostics: vec!["collector.yaml:3:1: no".to_owned()],
        ..group(Some(Ending::Rejected), confirmed)
    };
    for (part, is_open, state, words) in [
        (
            running(None, confirmed, &["staging/gw has not finished"]),
            true,
            State::Waiting,
            "staging/gw has not finished",
        ),
        (running(None, confirmed, &[]), true, State::Waiting, "about to start"),
        (
            running(Some("canary"), confirmed, &["2 agents have no room"]),
            true,
            State::Running,
            "stage canary: 3 of 10 confirmed; 2 agents have no room",
        ),
        (
            running(Some("half"), Counts { failed: 2, ..confirmed }, &[]),
            true,
            State::Running,
            "stage half: 3 of 10 confirmed, 2 failed",
        ),
        (group(Some(Ending::Unproven), confirmed), true, State::Waiting, "waits for the first agent that matches"),
        (group(Some(Ending::Unproven), confirmed), false, State::Stopped, "unproven: no agent ever matched"),
        (
            group(Some(Ending::Succeeded), Counts { confirmed: 9, held: 1, away: 2, ..Counts::default() }),
            false,
            State::Success,
            "succeeded: 9 confirmed, 1 held, 2 away",
        ),
        (
            failed(Ending::Failed, "no such exporter", 5),
            true,
            State::Failure,
            "failed: 5 of 100 failed; 5: no such exporter",
        ),
        (
            failed(Ending::RolledBack, "bad \u{202e}x\n@all", 1),
            false,
            State::Failure,
            "rolled-back: 1 of 100 failed; 1: bad x @all",
        ),
        (rejected, true, State::Failure, "rejected: collector.yaml:3:1: no"),
        (group(Some(Ending::Superseded), confirmed), true, State::Stopped, "superseded: a newer commit took its place"),
        (group(None, confirmed), false, State::Stopped, "superseded: a newer commit took its place"),
        (GroupReport::ended(Ending::NoOp, "is gone", NOW), true, State::Success, "no-op: is gone"),
    ] {
        let said = said(&report(None, vec![("prod/gw", part)]), is_open);
        assert_eq!(said[1], ("gitamp/blue/prod/gw".to_owned(), state, words.to_owned()));
    }
    let long = failed(Ending::Failed, &"ä".repeat(500), 5);
    let said = said(&report(None, vec![("a", long)]), true);
    assert_eq!(said[1].2.chars().count(), LONGEST_DESCRIPTION, "{said:?}");
    assert!(said[1].2.ends_with('…'), "{said:?}");
}

#[test]
fn the_aggregate_adds_up() {
    let good = || group(Some(Ending::Succeeded), Counts { confirmed: 5, ..Counts::default() });
    let runs = || running(Some("canary"), Counts { selected: 10, confirmed: 3, ..Counts::default() }, &[]);
    let waits = || running(None, Counts::default(), &["the window opens at 22:00"]);
    let bad = || failed(Ending::RolledBack, "no", 2);
    for (ending, groups, is_open, state, words) in [
        (None, vec![("a", waits())], true, State::Waiting, "a the window opens at 22:00"),
        (
            Some(Ending::Unproven),
            vec![("a", GroupReport { ending: Some(Ending::Unproven), ..runs() })],
            true,
            State::Waiting,
            "a waits for the first agent that matches",
        ),
        (None, vec![("a", runs())], true, State::Running, "a stage canary: 3 of 10 confirmed"),
        (
            None,
            vec![("a", good()), ("b", waits())],
            true,
            State::Running,
            "1 of 2 groups done; b the window opens at 22:00",
        ),
        (
            None,
            vec![("a", bad()), ("b", runs())],
            true,
            State::Failure,
            "a rolled-back: 2 of 100 failed; 2: no; 1 of 2 groups done; b stage canary: 3 of 10 confirmed",
        ),
        (Some(Ending::Succeeded), vec![("a", good())], false, State::Success, "a succeeded: 5 confirmed"),
        (Some(Ending::Succeeded), vec![("a", good()), ("b", good())], false, State::Success, "succeeded: 2 groups"),
        (
            Some(Ending::RolledBack),
            vec![("a", bad()), ("b", good())],
            false,
            State::Failure,
            "rolled-back: a rolled-back: 2 of 100 failed; 2: no",
        ),
        (
            Some(Ending::Superseded),
            vec![("a", waits())],
            false,
            State::Stopped,
            "superseded: a newer commit took its place",
        ),
        (
            Some(Ending::Unproven),
            vec![("a", group(Some(Ending::Unproven), Counts::default()))],
            true,
            State::Waiting,
            "a waits for the first agent that matches",
        ),
        (Some(Ending::NoOp), vec![], false, State::Success, "no-op: it changes nothing for any group"),
    ] {
        let said = said(&report(ending, groups), is_open);
        assert_eq!(said[0], ("gitamp/blue".to_owned(), state, words.to_owned()));
    }
    let refused =
        CommitReport { diagnostics: vec!["no group is left".to_owned()], ..report(Some(Ending::Rejected), vec![]) };
    assert_eq!(
        said(&refused, false),
        [("gitamp/blue".to_owned(), State::Failure, "rejected: no group is left".to_owned())]
    );
}

#[test]
fn many_groups_share_one_context_and_long_names_stay_different() {
    let names: Vec<String> = (0..=MOST_CONTEXTS).map(|number| format!("group-{number}")).collect();
    let part = || group(Some(Ending::Succeeded), Counts::default());
    let of = |count: usize| {
        report(Some(Ending::Succeeded), names.iter().take(count).map(|name| (name.as_str(), part())).collect())
    };
    assert_eq!(said(&of(MOST_CONTEXTS), false).len(), MOST_CONTEXTS + 1);
    let many = said(&of(MOST_CONTEXTS + 1), false);
    assert_eq!(many, [("gitamp/blue".to_owned(), State::Success, "succeeded: 21 groups".to_owned())]);

    let (one, other) = (format!("{}/a", "x".repeat(300)), format!("{}/b", "x".repeat(300)));
    let said = said(&report(None, vec![(&one, part()), (&other, part())]), true);
    assert!(said.iter().all(|(context, _, _)| context.chars().count() <= 200), "{said:?}");
    assert_ne!(said[1].0, said[2].0);
}

#[test]
fn a_click_leads_where_the_template_says() {
    let template = UrlTemplate::new("https://ops.example.com/{instance}/{commit}?group={group}").expect("a template");
    let naming = Naming { target: Some(template), ..naming() };
    let part = group(Some(Ending::Succeeded), Counts::default());
    let urls: Vec<_> = statuses(commit(1), &report(None, vec![("a&b/c", part)]), true, &naming)
        .into_iter()
        .map(|status| (status.reference, status.target_url.expect("an address")))
        .collect();
    let id = commit(1).to_string();
    assert_eq!(
        urls,
        [
            ("release/v1".to_owned(), format!("https://ops.example.com/blue/{id}?group=")),
            ("release/v1".to_owned(), format!("https://ops.example.com/blue/{id}?group=a%26b%2Fc")),
        ]
    );
    for bad in ["", "ops.example.com", "javascript:alert(1)", "https://x/{sha}"] {
        assert!(UrlTemplate::new(bad).is_err(), "{bad}");
    }
}
