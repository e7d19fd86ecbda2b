//! What a forge is told, by the program as a user runs it: statuses through good and bad rollouts, restarts, and bad days of the forge.

mod support;

use std::path::Path;
use std::time::Duration;

use support::forge::{ForgeServer, Mood, Plays, Shown};
use support::gateways::{AT_ONCE, agents, change, gateways};
use support::{Daemon, Repository, stays, wait_for};

/// The context of all groups, and the one of the only group.
const ALL: &str = "gitamp/default";
const GATEWAYS: &str = "gitamp/default/gateways";

/// A forge, and a file with a token for it.
fn forge(plays: Plays) -> (ForgeServer, tempfile::NamedTempFile) {
    let token = tempfile::NamedTempFile::new().expect("a file");
    write(token.path(), "t0ken");
    (ForgeServer::start(plays), token)
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file is written");
}

fn start(repository: &Repository, forge: &ForgeServer, token: &Path, more: &[&str]) -> Daemon {
    let flags = forge.flags(token);
    let flags: Vec<&str> =
        ["--interval", "1h"].into_iter().chain(flags.iter().map(String::as_str)).chain(more.iter().copied()).collect();
    Daemon::start(repository, &flags)
}

/// Waits until a commit shows this state in this context.
fn shows(forge: &ForgeServer, commit: &str, context: &str, state: &str) -> Shown {
    wait_for(&format!("{context} of {commit} to show `{state}`"), || {
        let shown = forge.shows(commit);
        shown.get(context).filter(|shown| shown.state == state).cloned().ok_or(shown)
    })
}

fn states(told: &[Shown]) -> Vec<&str> {
    let mut states: Vec<&str> = told.iter().map(|shown| shown.state.as_str()).collect();
    states.dedup();
    states
}

fn head(repository: &Repository) -> String {
    repository.git(&["rev-parse", "HEAD"])
}

#[test]
fn a_commit_goes_from_pending_to_success_and_a_bad_one_fails() {
    let repository = gateways(AT_ONCE);
    let (forge, token) = forge(Plays::GitHub);
    forge.ask_for("t0ken");
    let daemon = start(&repository, &forge, token.path(), &["--forge-status-url=https://ops.example.com/{commit}"]);
    let first = head(&repository);
    let waits = shows(&forge, &first, GATEWAYS, "pending");
    assert_eq!(waits.description, "waits for the first agent that matches");
    shows(&forge, &first, ALL, "pending");
    let agents = agents(&daemon, 10);
    let done = shows(&forge, &first, GATEWAYS, "success");
    assert_eq!(done.description, "succeeded: 10 confirmed");
    shows(&forge, &first, ALL, "success");
    assert_eq!(states(&forge.told(&first, ALL)), ["pending", "success"]);

    let elsewhere = repository.commit("A word on it", &[("gateways/README.md", "# Gateways\n")]);
    let same = shows(&forge, &elsewhere, ALL, "success");
    assert_eq!(same.description, "no-op: it changes nothing for any group");
    assert_eq!(forge.shows(&elsewhere).len(), 1, "no group changed");

    let bad = change(&repository, "Debug at a level that there is not", "broken");
    let failed = shows(&forge, &bad, ALL, "failure");
    assert!(failed.description.contains("rolled-back") && failed.description.contains("failed"), "{failed:?}");
    shows(&forge, &bad, GATEWAYS, "failure");

    let seen = forge.seen();
    assert!(seen.iter().all(|seen| seen.who == "Bearer t0ken"), "{seen:?}");
    for (one, next) in seen.iter().zip(seen.iter().skip(1)) {
        assert!(next.at.duration_since(one.at) >= Duration::from_millis(900), "a second between requests");
    }
    assert!(daemon.metric("gitamp_forge_requests_total{result=\"ok\"}").is_some_and(|count| count >= 5.0));
    assert_eq!(daemon.metric("gitamp_forge_error"), Some(0.0));
    let status = daemon.status();
    assert_eq!((&status["forge"]["kind"], &status["forge"]["project"]), (&"GitHub".into(), &"team/fleet".into()));
    drop(agents);
}

#[test]
fn gitlab_is_not_told_what_it_would_refuse() {
    let repository = gateways(AT_ONCE);
    let (forge, token) = forge(Plays::GitLab);
    let mut daemon = start(&repository, &forge, token.path(), &[]);
    let first = head(&repository);
    shows(&forge, &first, ALL, "pending");
    shows(&forge, &first, GATEWAYS, "pending");
    daemon.kill();
    daemon.restart();
    // What it has already is refused, and that is as good as taken.
    wait_for("the same to be said again", || {
        let told = forge.seen().iter().filter(|seen| seen.method == "POST").count();
        if told >= 4 { Ok(()) } else { Err(told) }
    });
    let _agents = agents(&daemon, 5);
    shows(&forge, &first, ALL, "success");
    shows(&forge, &first, GATEWAYS, "success");
    assert!(states(&forge.told(&first, ALL)).ends_with(&["success"]));
    assert_eq!(daemon.metric("gitamp_forge_requests_total{result=\"refused\"}"), Some(0.0));
    assert!(forge.seen().iter().all(|seen| seen.who == "t0ken" && seen.path.contains("team%2Ffleet/statuses/")));
}

#[test]
fn gitea_and_bitbucket_are_told_too() {
    let repository = gateways(AT_ONCE);
    let (gitea, token) = forge(Plays::Gitea);
    let bitbucket = ForgeServer::start(Plays::Bitbucket);
    let first = start(&repository, &gitea, token.path(), &[]);
    let second = start(&repository, &bitbucket, token.path(), &["--instance=other", "--no-push", "--forge-user=ada"]);
    let (_agents, _others) = (agents(&first, 3), agents(&second, 3));
    let commit = head(&repository);
    shows(&gitea, &commit, ALL, "success");
    assert_eq!(shows(&gitea, &commit, GATEWAYS, "success").description, "succeeded: 3 confirmed");
    shows(&bitbucket, &commit, "gitamp/other", "SUCCESSFUL");
    shows(&bitbucket, &commit, "gitamp/other/gateways", "SUCCESSFUL");
    assert!(gitea.seen().iter().all(|seen| seen.who == "token t0ken"));
    assert!(bitbucket.seen().iter().all(|seen| seen.who == "Basic YWRhOnQwa2Vu"), "user and password");
}

#[test]
fn a_forge_that_is_gone_holds_nobody_up_and_hears_the_ending_later_even_from_a_successor() {
    let repository = gateways(AT_ONCE);
    let (forge, token) = forge(Plays::GitHub);
    forge.be(Some(Mood::Hangs));
    let mut daemon = start(&repository, &forge, token.path(), &[]);
    let agents = agents(&daemon, 10);
    let first = head(&repository);
    repository.ending(&first, "succeeded");
    let bad = change(&repository, "Debug at a level that there is not", "broken");
    repository.ending(&bad, "rolled-back");
    wait_for("the forge to be asked", || if forge.seen().is_empty() { Err("nothing came") } else { Ok(()) });
    assert!(forge.shows(&bad).is_empty());

    // Ended, noted, and nobody was told: the successor does it, from the journal alone.
    daemon.kill();
    std::fs::remove_dir_all(daemon.state()).expect("an empty disk");
    forge.be(None);
    daemon.restart();
    shows(&forge, &first, ALL, "success");
    shows(&forge, &bad, ALL, "failure");
    shows(&forge, &bad, GATEWAYS, "failure");
    let kept = || {
        let names = repository.git(&["ls-tree", "-r", "--name-only", "refs/notes/gitamp/default"]);
        names.lines().filter(|name| name.starts_with("state/commits/")).count()
    };
    wait_for("the journal to keep no ending any more", || {
        repository.note(&bad).expect("a note");
        if kept() == 0 { Ok(()) } else { Err(kept()) }
    });
    let told = forge.seen().len();
    daemon.kill();
    daemon.restart();
    stays("what was told is not told again", Duration::from_secs(3), || forge.seen().len());
    assert_eq!(forge.seen().len(), told);
    drop(agents);
}

#[test]
fn a_superseded_commit_is_said_to_be_so() {
    let repository = gateways(&AT_ONCE.replace("soak: 0s", "soak: 1h"));
    let (forge, token) = forge(Plays::GitHub);
    let daemon = start(&repository, &forge, token.path(), &[]);
    let _agents = agents(&daemon, 4);
    let first = head(&repository);
    let runs = wait_for("the soak to be told", || {
        let shown = forge.shows(&first).remove(GATEWAYS);
        shown
            .filter(|shown| shown.description.starts_with("stage all: 4 of 4 confirmed"))
            .ok_or_else(|| forge.told(&first, GATEWAYS))
    });
    assert_eq!(runs.state, "pending");
    let second = change(&repository, "Debug normally", "normal");
    assert_eq!(shows(&forge, &first, ALL, "error").description, "superseded: a newer commit took its place");
    shows(&forge, &first, GATEWAYS, "error");
    shows(&forge, &second, ALL, "pending");
}

#[test]
fn bad_days_of_the_forge_are_waited_out_and_said() {
    let repository = gateways(AT_ONCE);
    let (forge, token) = forge(Plays::GitHub);
    forge.ask_for("another");
    let limited = "Retry-After: 2\r\n";
    forge.then([Mood::Says(500, "", "<html>"), Mood::Says(429, limited, ""), Mood::Says(403, limited, "{}")]);
    let daemon = start(&repository, &forge, token.path(), &[]);
    let _agents = agents(&daemon, 5);
    let first = head(&repository);
    repository.ending(&first, "succeeded");
    let error = wait_for("the status to say what is wrong", || {
        let error = daemon.status()["forge"]["error"].as_str().unwrap_or_default().to_owned();
        if error.contains("401") { Ok(error) } else { Err(error) }
    });
    for word in ["does not accept the token", "Bad credentials", "repo:status"] {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
    assert!(daemon.ask(&["status"]).contains("does not accept the token"), "people see it");
    assert_eq!(daemon.metric("gitamp_forge_error"), Some(1.0));
    let seen = forge.seen();
    for index in [1, 2] {
        let waited = seen[index + 1].at.duration_since(seen[index].at);
        assert!(waited >= Duration::from_millis(1900), "it asked for two seconds, and got {waited:?}");
    }
    // Renewed in place: nothing is restarted.
    write(token.path(), "another");
    shows(&forge, &first, ALL, "success");
    assert!(!daemon.process().log().contains("t0ken"), "no secret in the log");

    // And now for good: whatever the forge does, the end of the process does not wait for it.
    forge.be(Some(Mood::Hangs));
    let before = forge.seen().len();
    change(&repository, "Debug normally", "normal");
    wait_for("a request to hang", || if forge.seen().len() > before { Ok(()) } else { Err("none") });
    let mut daemon = daemon;
    daemon.process().signal("TERM");
    let ending = support::now();
    assert!(daemon.take().ended().success());
    assert!(ending.elapsed() < Duration::from_secs(5), "it took {:?}", ending.elapsed());
}

#[test]
fn the_merged_pull_request_gets_one_comment_also_over_a_restart() {
    let repository = gateways(AT_ONCE);
    let first = head(&repository);
    for plays in [Plays::GitHub, Plays::GitLab, Plays::Gitea] {
        let (forge, token) = forge(plays);
        forge.merge(&first, 7);
        let mut daemon =
            start(&repository, &forge, token.path(), &["--forge-comment", "--forge-statuses=false", "--no-push"]);
        let comment = |what: &str, holds: &dyn Fn(&str) -> bool| {
            wait_for(what, || {
                let comments = forge.comments(7);
                match &comments[..] {
                    [(_, text)] if holds(text) => Ok(text.clone()),
                    _ => Err(comments),
                }
            })
        };
        let text = comment("a comment", &|_| true);
        assert!(text.starts_with(&format!("<!-- gitamp:default:{first} -->\n")), "{text}");
        assert!(text.contains("on its way, 0 of 1 groups done"), "{text}");
        daemon.kill();
        daemon.restart();
        let _agents = agents(&daemon, 3);
        comment("the same comment with the ending", &|text| text.contains("**succeeded**") && text.contains("3 of 3"));
        assert!(forge.shows(&first).is_empty(), "statuses are off");
    }
}

#[test]
fn an_app_gets_itself_tokens_keeps_them_and_renews_them_in_time() {
    let repository = gateways(AT_ONCE);
    let (forge, _) = forge(Plays::GitHub);
    // The first is too old for a second request already.
    let flags = forge.app_flags([200, 3600, 3600]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&repository, &[&["--interval", "1h"], &flags[..]].concat());
    let agents = agents(&daemon, 3);
    let first = head(&repository);
    shows(&forge, &first, ALL, "success");
    shows(&forge, &first, GATEWAYS, "success");
    assert_eq!(forge.issued(), 2, "the second one is kept");
    let by = |who: &str| forge.seen().iter().filter(|seen| seen.who == format!("Bearer {who}")).count();
    assert!(by("ghs_1") == 1 && by("ghs_2") >= 2, "{:?}", forge.seen());
    // Taken back before its time: a new one is asked for at once, and nobody sees anything of it.
    forge.ask_for("none that was issued");
    let elsewhere = repository.commit("A word on it", &[("gateways/README.md", "# Gateways\n")]);
    shows(&forge, &elsewhere, ALL, "success");
    assert_eq!((forge.issued(), by("ghs_3")), (3, 1));
    assert_eq!(daemon.metric("gitamp_forge_requests_total{result=\"failed\"}").unwrap_or(0.0), 0.0);
    // And for good: one try with what is there, one with a new one if there is any, and then it waits.
    forge.ask_for("none that was issued");
    let last = change(&repository, "Debug normally", "normal");
    wait_for("the status to say what is wrong", || {
        let error = daemon.status()["forge"]["error"].as_str().unwrap_or_default().to_owned();
        if error.contains("no more of them") { Ok(()) } else { Err(error) }
    });
    repository.ending(&last, "succeeded");
    assert!(by("ghs_3") <= 2, "no storm: {:?}", forge.seen());
    let log = daemon.process().log();
    assert!(!log.contains("ghs_") && !log.contains("eyJ"), "no secret in the log: {log}");
    drop(agents);
}

#[test]
fn what_was_taken_back_gets_a_pull_request_whose_merge_changes_nothing() {
    revert_pull_request(Plays::GitHub);
}

#[test]
fn what_was_taken_back_gets_a_merge_request_on_gitlab() {
    revert_pull_request(Plays::GitLab);
}

#[test]
fn what_was_taken_back_gets_a_pull_request_on_gitea() {
    revert_pull_request(Plays::Gitea);
}

fn revert_pull_request(plays: Plays) {
    let repository = gateways(AT_ONCE);
    let (forge, token) = forge(plays);
    let mut daemon = start(&repository, &forge, token.path(), &["--revert-pull-request", "--forge-comment"]);
    let agents = agents(&daemon, 10);
    let first = head(&repository);
    repository.ending(&first, "succeeded");
    let bad = change(&repository, "Debug at a level that there is not", "broken");
    forge.merge(&bad, 9);
    let opened = wait_for("a pull request", || match &forge.opened()[..] {
        [one] => Ok(one.clone()),
        other => Err(other.to_vec()),
    });
    let branch = format!("gitamp/revert-{}", &bad[..7]);
    let (from, to, text, address, failure) = match plays {
        Plays::GitLab => (&opened["source_branch"], &opened["target_branch"], "description", "web_url", "failed"),
        Plays::Gitea => (&opened["head"]["ref"], &opened["base"], "body", "html_url", "failure"),
        Plays::GitHub | Plays::Bitbucket => (&opened["head"], &opened["base"], "body", "html_url", "failure"),
    };
    assert_eq!((from, to), (&branch.clone().into(), &"main".into()), "{opened}");
    assert_eq!(opened["title"], "Revert \"Debug at a level that there is not\"");
    let text = opened[text].as_str().expect("a text");
    for word in ["gateways", "rolled-back", "exited unexpectedly", "```text", &bad] {
        assert!(text.contains(word), "`{word}` is missing in {text}");
    }
    wait_for("the comment to name it", || {
        let comments = forge.comments(9);
        let named = comments.iter().any(|(_, text)| text.contains(opened[address].as_str().expect("an address")));
        if named && comments.len() == 1 { Ok(()) } else { Err(comments) }
    });
    shows(&forge, &bad, ALL, failure);

    // Made once, whatever is started again.
    daemon.kill();
    daemon.restart();
    stays("no other pull request", Duration::from_secs(3), || forge.opened().len());

    let offers = agents.counts().offers;
    repository.git(&["fetch", "--quiet", "origin", &branch]);
    repository.git(&["merge", "--quiet", "--no-ff", "--message", "Merge the revert", "FETCH_HEAD"]);
    repository.git(&["push", "--quiet", "origin", "main"]);
    let merge = head(&repository);
    assert_eq!(repository.git(&["diff", &first, &merge]), "", "everything is as it was");
    repository.ending(&merge, "no-op");
    assert_eq!(shows(&forge, &merge, ALL, "success").description, "no-op: it changes nothing for any group");
    assert_eq!(agents.counts().offers, offers, "nobody was sent anything");
    assert_eq!(forge.opened().len(), 1);
}
