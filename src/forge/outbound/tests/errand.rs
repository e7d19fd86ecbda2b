//! Comments and reverts: what is asked in which order, made once, and harmless whatever agents say.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::forge::outbound::comment;
use crate::forge::outbound::dialect::{Kind, Project};
use crate::forge::outbound::errands::{Ask, Errands, Next, Reply, branch_of};
use crate::forge::outbound::pulls::NewPull;

fn runs() -> CommitReport {
    report(
        None,
        vec![("prod/gw", running(Some("canary"), Counts { selected: 10, confirmed: 1, ..Counts::default() }, &[]))],
    )
}

fn taken_back() -> CommitReport {
    report(Some(Ending::RolledBack), vec![("prod/gw", failed(Ending::RolledBack, "no such exporter", 2))])
}

/// What is asked next about commit 1, at `now`.
fn ask(errands: &Errands, now: Timestamp) -> Option<Ask> {
    match errands.next(now) {
        Next::Ask(_, ask) => Some(ask),
        Next::At(_) | Next::Idle => None,
    }
}

/// Answers what is asked, by its kind, until nothing is asked any more; the kinds in order.
fn play(errands: &mut Errands, now: Timestamp, answer: impl Fn(&Ask) -> Reply) -> Vec<&'static str> {
    let mut asked = Vec::new();
    while let Some(next) = ask(errands, now) {
        asked.push(match &next {
            Ask::Merged => "merged",
            Ask::Comments { .. } => "comments",
            Ask::Comment { comment: None, .. } => "create",
            Ask::Comment { comment: Some(_), .. } => "update",
            Ask::PullFrom(_) => "pull from",
            Ask::Branch(_) => "branch",
            Ask::Open(_) => "open",
        });
        assert!(asked.len() < 20, "it never ends: {asked:?}");
        let reply = answer(&next);
        errands.answered(commit(1), &next, reply, now);
    }
    asked
}

/// A forge where the commit came from pull request 7, without a comment and without a revert.
fn usual(ask: &Ask) -> Reply {
    match ask {
        Ask::Merged => Reply::Number(Some(7)),
        Ask::Comments { .. } => Reply::Number(None),
        Ask::Comment { .. } => Reply::Number(Some(70)),
        Ask::PullFrom(_) => Reply::Address(None),
        Ask::Branch(_) => Reply::Branch("main".to_owned()),
        Ask::Open(_) => Reply::Address(Some("https://forge.example.com/8".to_owned())),
    }
}

#[test]
fn a_comment_is_made_once_and_updated_in_place() {
    let mut errands = Errands::new("blue", true, false);
    errands.want(commit(1), runs(), true);
    assert_eq!(play(&mut errands, NOW, usual), ["merged", "comments", "create"]);
    errands.want(commit(1), runs(), true);
    assert_eq!(ask(&errands, NOW + Duration::from_secs(3600)), None, "the same is not said twice");
    let more = report(
        None,
        vec![("prod/gw", running(Some("half"), Counts { selected: 10, confirmed: 5, ..Counts::default() }, &[]))],
    );
    errands.want(commit(1), more, true);
    assert_eq!(errands.next(NOW), Next::At(NOW + Duration::from_secs(30)), "people are not flooded");
    assert!(!errands.is_done(commit(1)));
    errands.want(commit(1), taken_back(), false);
    assert_eq!(errands.next(NOW), Next::At(NOW + Duration::from_secs(10)), "the last word comes sooner");
    assert_eq!(play(&mut errands, NOW + Duration::from_secs(10), usual), ["update"]);
    assert!(errands.is_done(commit(1)));

    // The next process finds it.
    let mut errands = Errands::new("blue", true, false);
    errands.want(commit(1), runs(), true);
    let found = |ask: &Ask| if matches!(ask, Ask::Comments { .. }) { Reply::Number(Some(70)) } else { usual(ask) };
    assert_eq!(play(&mut errands, NOW, found), ["merged", "comments", "update"]);
}

#[test]
fn a_comment_whose_fate_nobody_knows_is_looked_for_and_one_that_is_refused_is_given_up() {
    let mut errands = Errands::new("blue", true, false);
    errands.want(commit(1), runs(), false);
    let lost = std::cell::Cell::new(true);
    let once =
        |ask: &Ask| if matches!(ask, Ask::Comment { .. }) && lost.replace(false) { Reply::Lost } else { usual(ask) };
    assert_eq!(play(&mut errands, NOW, once), ["merged", "comments", "create"]);
    assert_eq!(play(&mut errands, NOW + Duration::from_secs(20), once), ["comments", "create"]);
    assert!(errands.is_done(commit(1)));

    let mut pushed = Errands::new("blue", true, false);
    pushed.want(commit(1), runs(), false);
    let nobody = |ask: &Ask| if *ask == Ask::Merged { Reply::Number(None) } else { usual(ask) };
    let mut looks = 0;
    for seconds in (0..60).step_by(10) {
        looks += play(&mut pushed, NOW + Duration::from_secs(seconds), nobody).len();
    }
    assert_eq!(looks, 3, "a commit that was pushed directly has no pull request");
    assert!(pushed.is_done(commit(1)));

    let mut denied = Errands::new("blue", true, false);
    denied.want(commit(1), runs(), false);
    let mut tries = 0;
    for seconds in 0..3600 {
        tries += play(&mut denied, NOW + Duration::from_secs(seconds), |_| Reply::Refused).len();
    }
    assert_eq!(tries, 5, "and then never again");
    assert!(denied.is_done(commit(1)));
}

#[test]
fn whatever_fails_again_and_again_is_given_up() {
    let opens = |of: Reply| {
        let mut errands = Errands::new("blue", false, true);
        errands.want(commit(1), taken_back(), false);
        let mut asked = Vec::new();
        for seconds in 0..3600 {
            let answer = |ask: &Ask| if matches!(ask, Ask::Open(_)) { of.clone() } else { usual(ask) };
            asked.extend(play(&mut errands, NOW + Duration::from_secs(seconds), answer));
        }
        let count = |what: &str| asked.iter().filter(|asked| **asked == what).count();
        (count("open"), count("branch"), errands.is_done(commit(1)))
    };
    assert_eq!(opens(Reply::Refused), (5, 5, true));
    assert_eq!(opens(Reply::Lost), (8, 8, true));

    // Each kind of question, when everything before it goes well.
    for (kind, comments) in [
        ("merged", true),
        ("comments", true),
        ("create", true),
        ("update", true),
        ("pull from", false),
        ("branch", false),
    ] {
        for (reply, most) in [(Reply::Refused, 5), (Reply::Lost, 8)] {
            let mut errands = Errands::new("blue", comments, !comments);
            errands.want(commit(1), taken_back(), false);
            let mut count = 0;
            for seconds in 0..3600 {
                let now = NOW + Duration::from_secs(seconds);
                while let Some(next) = ask(&errands, now) {
                    let is_it = match &next {
                        Ask::Merged => kind == "merged",
                        Ask::Comments { .. } => kind == "comments",
                        Ask::Comment { comment: None, .. } => kind == "create",
                        Ask::Comment { comment: Some(_), .. } => kind == "update",
                        Ask::PullFrom(_) => kind == "pull from",
                        Ask::Branch(_) => kind == "branch",
                        Ask::Open(_) => false,
                    };
                    let there = kind == "update" && matches!(next, Ask::Comments { .. });
                    let usual = if there { Reply::Number(Some(70)) } else { usual(&next) };
                    errands.answered(commit(1), &next, if is_it { reply.clone() } else { usual }, now);
                    count += usize::from(is_it);
                    assert!(count < 20, "{kind}: {reply:?} never ends");
                }
            }
            assert_eq!((count, errands.is_done(commit(1))), (most, true), "{kind}: {reply:?}");
        }
    }

    // A forge that is not there is not one that fails.
    let mut errands = Errands::new("blue", true, true);
    errands.want(commit(1), taken_back(), false);
    for seconds in 0..3600 {
        let now = NOW + Duration::from_secs(seconds);
        let next = ask(&errands, now).expect("it is asked for as long as it takes");
        errands.answered(commit(1), &next, Reply::Unheard, now);
    }
}

#[test]
fn a_commit_that_was_taken_back_gets_one_pull_request() {
    let mut errands = Errands::new("blue", true, true);
    errands.want(commit(1), runs(), true);
    assert_eq!(play(&mut errands, NOW, usual), ["merged", "comments", "create"], "it runs yet");
    errands.want(commit(1), taken_back(), false);
    assert_eq!(play(&mut errands, NOW, usual), ["pull from", "branch", "open"]);
    let Some(Ask::Comment { text, .. }) = ask(&errands, NOW + Duration::from_secs(10)) else {
        panic!("the comment tells of it")
    };
    assert!(text.contains("takes it back: https://forge.example.com/8"), "{text}");

    let of = |reply: Reply| {
        let mut errands = Errands::new("blue", false, true);
        errands.want(commit(1), taken_back(), false);
        let asked =
            play(&mut errands, NOW, move |ask| if matches!(ask, Ask::Branch(_)) { reply.clone() } else { usual(ask) });
        (asked, errands.is_done(commit(1)))
    };
    assert_eq!(of(Reply::Needless("it is fixed".to_owned())), (vec!["pull from", "branch"], true));
    assert_eq!(of(Reply::Refused), (vec!["pull from", "branch"], false), "it is tried again later");

    let mut again = Errands::new("blue", false, true);
    again.want(commit(1), taken_back(), false);
    let there =
        |ask: &Ask| if matches!(ask, Ask::PullFrom(_)) { Reply::Address(Some("x".to_owned())) } else { usual(ask) };
    assert_eq!(play(&mut again, NOW, there), ["pull from"], "open or closed: it is there, and not made again");
    assert!(again.is_done(commit(1)));

    for (ending, part) in [
        (Ending::Failed, failed(Ending::Failed, "no", 1)),
        (Ending::Rejected, group(Some(Ending::Rejected), Counts::default())),
        (Ending::Superseded, group(Some(Ending::Superseded), Counts::default())),
    ] {
        let mut errands = Errands::new("blue", false, true);
        errands.want(commit(1), report(Some(ending), vec![("a", part)]), false);
        assert_eq!(errands.next(NOW), Next::Idle, "{ending}: nothing was taken back");
    }
    let mut off = Errands::new("blue", false, false);
    off.want(commit(1), taken_back(), false);
    assert_eq!(off.next(NOW), Next::Idle);
    assert!(off.is_done(commit(1)));
}

#[test]
fn what_agents_say_has_no_effect_on_the_page() {
    let hostile = "``` @team <img src=x onerror=alert(1)> | [click](https://evil.example.com) <!-- \n# Title \u{202e}";
    let mut part = failed(Ending::RolledBack, hostile, 2);
    part.failures[0].example = "`@admin`".to_owned();
    let report = report(Some(Ending::RolledBack), vec![("prod/`|x", part)]);
    let text = comment::body(commit(1), &report, false, "blue", None);
    let expected = format!(
        "<!-- gitamp:blue:{id} -->\n**gitamp** ` blue `: **rolled-back**\n\n\
         | group | | confirmed | failed | waits for |\n| --- | --- | --- | --- | --- |\n\
         | `` prod/`¦x `` | rolled-back | 0 of 100 | 2 |  |\n\
         \nWhat agents said:\n\n\
         ````text\nprod/`|x: 2 x ``` @team <img src=x onerror=alert(1)> | [click](https://evil.example.com) <!-- # Title\n\
         - for example `@admin`\n````\n\
         \nTo take it back in Git as well: `git revert {short}`, and merge that. What was stable before goes to everybody at once, and \
         agents that have it already are sent nothing.\n",
        id = commit(1),
        short = commit(1).short(),
    );
    assert_eq!(text, expected);
    let evil = comment::body(commit(1), &report, false, "blue", Some("https://x/) <b>"));
    assert!(!evil.contains("<b>"), "{evil}");
}

#[test]
fn pull_requests_in_each_dialect() {
    let project = |kind| Project { kind, name: "team/fleet".to_owned() };
    let id = commit(1).to_string();
    for (kind, path, body, wanted) in [
        (
            Kind::GitHub,
            format!("repos/team/fleet/commits/{id}/pulls?per_page=100"),
            json!([{"number": 1, "merged_at": null}, {"number": 2, "merged_at": "x"}, {"number": 3, "merged_at": "x", "merge_commit_sha": id}]),
            Some(3),
        ),
        (
            Kind::GitLab,
            format!("projects/team%2Ffleet/repository/commits/{id}/merge_requests?per_page=100"),
            json!([{"iid": 4, "id": 400, "state": "merged"}, {"iid": 5, "state": "opened", "squash_commit_sha": id}]),
            Some(4),
        ),
        (Kind::Gitea, format!("repos/team/fleet/commits/{id}/pull"), json!({"number": 6, "merged": true}), Some(6)),
        (Kind::Gitea, format!("repos/team/fleet/commits/{id}/pull"), json!({"number": 6, "merged": false}), None),
        (Kind::GitHub, format!("repos/team/fleet/commits/{id}/pulls?per_page=100"), json!([]), None),
    ] {
        assert_eq!(project(kind).find_merged(commit(1)).path, path);
        assert_eq!(project(kind).read_merged(commit(1), body.to_string().as_bytes()), wanted, "{kind}");
    }
    let marker = comment::marker("blue", commit(1));
    let comments = json!([
        {"id": 1, "body": format!("> {marker}")}, {"id": 2, "body": format!("{marker}\nold")}, {"id": 3, "body": comment::marker("green", commit(1))}
    ]);
    for (kind, list, update) in [
        (
            Kind::GitHub,
            "repos/team/fleet/issues/7/comments?per_page=100&since=2027-01-15T08:00:00Z",
            "PATCH repos/team/fleet/issues/comments/2",
        ),
        (
            Kind::Gitea,
            "repos/team/fleet/issues/7/comments?since=2027-01-15T08:00:00Z",
            "PATCH repos/team/fleet/issues/comments/2",
        ),
        (
            Kind::GitLab,
            "projects/team%2Ffleet/merge_requests/7/notes?per_page=100&sort=desc&order_by=created_at",
            "PUT projects/team%2Ffleet/merge_requests/7/notes/2",
        ),
    ] {
        assert_eq!(project(kind).list_comments(7, NOW).path, list);
        assert_eq!(project(kind).read_comment(&marker, comments.to_string().as_bytes()), Some(2), "{kind}");
        let call = project(kind).update_comment(7, 2, "text");
        assert_eq!(format!("{} {}", call.method.name(), call.path), update);
    }
}

#[test]
fn reverts_in_each_dialect() {
    let project = |kind| Project { kind, name: "team/fleet".to_owned() };
    let branch = branch_of(commit(1));
    let new =
        NewPull { branch: branch.clone(), base: "main".to_owned(), title: "Revert".to_owned(), text: "Why".to_owned() };
    for (kind, find, opened, body) in [
        (
            Kind::GitHub,
            "repos/team/fleet/pulls?state=all&head=team:gitamp%2Frevert-0101010",
            json!({"html_url": "https://f/1"}),
            json!({"title": "Revert", "head": branch, "base": "main", "body": "Why"}),
        ),
        (
            Kind::GitLab,
            "projects/team%2Ffleet/merge_requests?state=all&source_branch=gitamp%2Frevert-0101010",
            json!({"web_url": "https://f/1"}),
            json!({"title": "Revert", "source_branch": branch, "target_branch": "main", "description": "Why", "remove_source_branch": true}),
        ),
        (
            Kind::Bitbucket,
            "repositories/team/fleet/pullrequests?q=source.branch.name%3D%22gitamp%2Frevert-0101010%22&state=OPEN&state=MERGED&state=DECLINED&state=SUPERSEDED",
            json!({"links": {"html": {"href": "https://f/1"}}}),
            json!({
                "title": "Revert", "source": {"branch": {"name": branch}}, "destination": {"branch": {"name": "main"}},
                "description": "Why", "close_source_branch": true
            }),
        ),
    ] {
        assert_eq!(project(kind).find_pulls_from(&branch).path, find);
        assert_eq!(project(kind).open_pull(&new).body, Some(body), "{kind}");
        assert_eq!(project(kind).read_opened(opened.to_string().as_bytes()), "https://f/1", "{kind}");
        let list = if kind == Kind::Bitbucket { json!({"values": [opened]}) } else { json!([opened]) };
        assert_eq!(
            project(kind).read_pull_from(&branch, list.to_string().as_bytes()).as_deref(),
            Some("https://f/1"),
            "{kind}"
        );
        let none = if kind == Kind::Bitbucket { json!({"values": []}) } else { json!([]) };
        assert_eq!(project(kind).read_pull_from(&branch, none.to_string().as_bytes()), None, "{kind}");
    }
    let others = json!([{"head": {"ref": "feature"}, "html_url": "https://f/1"}, {"head": {"ref": branch}, "html_url": "https://f/2"}]);
    let found = project(Kind::Gitea).read_pull_from(&branch, others.to_string().as_bytes());
    assert_eq!(found.as_deref(), Some("https://f/2"), "Gitea's list is of all of them");
}
