//! The program as a user runs it: spawned, driven by `git`, HTTP, signals and simulated agents over real sockets.

mod support;

use std::time::Duration;

use gitamp::fleet::strategy::Amount;
use gitamp::simulate::{Counts, Fleet};
use support::gateways::{self, AT_ONCE, agents, collector, gateways, options};
use support::http_remote::HttpRemote;
use support::{Daemon, Process, Repository, get, gitamp, now, post, run, stays, wait_for, write_secret};

fn change(repository: &Repository, level: &str) -> String {
    gateways::change(repository, &format!("Debug at {level}"), level)
}

/// Waits until `holds` is true of the fleet; what it then is.
fn until(fleet: &Fleet, what: &str, holds: impl Fn(&Counts) -> bool) -> Counts {
    wait_for(what, || {
        let counts = fleet.counts();
        if holds(&counts) { Ok((*counts).clone()) } else { Err(counts) }
    })
}

/// The hash that every agent of the fleet runs; waits until that is one.
fn one_for_all(fleet: &Fleet) -> String {
    let counts = until(fleet, "all agents to run one configuration", |counts| {
        counts.configs.iter().any(|config| config.applied == counts.agents)
    });
    counts
        .configs
        .iter()
        .find(|config| config.applied == counts.agents)
        .map(|config| config.hash.to_string())
        .expect("one")
}

fn hash_in(note: &str, key: &str) -> String {
    let line = note.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}: ")));
    line.unwrap_or_else(|| panic!("no `{key}` in\n{note}")).trim_matches('\'').to_owned()
}

#[test]
fn commits_reach_the_agents_bad_ones_go_back_and_a_revert_agrees() {
    let repository = gateways(AT_ONCE);
    let first = repository.git(&["rev-parse", "HEAD"]);
    // Nothing but the watch on the local repository rings here.
    let daemon = Daemon::start(&repository, &["--interval", "1h"]);
    let fleet = agents(&daemon, 10);

    let note = repository.ending(&first, "succeeded");
    let basic = one_for_all(&fleet);
    assert_eq!(hash_in(&note, "candidate"), basic, "the note names what the agents run:\n{note}");
    assert_eq!(fleet.counts().offers, 10, "one offer each");

    let second = change(&repository, "normal");
    let note = repository.ending(&second, "succeeded");
    let normal = one_for_all(&fleet);
    assert_ne!(normal, basic);
    assert_eq!(hash_in(&note, "stable"), normal, "a finished rollout is stable:\n{note}");
    assert_eq!(fleet.counts().offers, 20);

    let third = change(&repository, "broken");
    let note = repository.ending(&third, "rolled-back");
    assert!(note.contains("exited unexpectedly"), "what the agents said is in the note:\n{note}");
    let broken = hash_in(&note, "candidate");
    assert_eq!(one_for_all(&fleet), normal, "whoever was offered it has the stable one again");
    let after = fleet.counts();
    let risked = after.config(&broken).map_or(0, |config| config.offers);
    assert!((1..=2).contains(&risked), "a fifth of ten agents may be unavailable, so two were risked: {after:?}");
    assert_eq!(after.offers, 20 + 2 * risked, "nobody else was offered the stable one: {after:?}");
    let group = daemon.group("gateways");
    assert_eq!(group["phase"], "rolled-back", "Git says one thing, the fleet has another: {group}");
    assert_eq!((&group["stable"], &group["wanted"]), (&normal.clone().into(), &broken.into()), "{group}");
    stays("what failed is not tried again", Duration::from_secs(1), || fleet.counts().offers);

    let fourth = repository.revert();
    repository.ending(&fourth, "no-op");
    assert_eq!(one_for_all(&fleet), normal);
    let counts = fleet.counts();
    assert_eq!(counts.offers, after.offers, "the revert says what the fleet has");
    assert_eq!((counts.repeated_offers, counts.contradictions, counts.errors, counts.malformed), (0, 0, 0, 0));

    let log = repository.git(&["log", "--notes=gitamp/default", "--format=%s%n%N"]);
    for word in ["ending: rolled-back", "ending: succeeded", "Debug at broken"] {
        assert!(log.contains(word), "`git log` tells the story, but not `{word}`:\n{log}");
    }
}

#[test]
fn a_kill_and_an_empty_disk_cost_no_agent_an_offer() {
    let repository = gateways(AT_ONCE);
    let mut daemon = Daemon::start(&repository, &["--interval", "1h"]);
    let fleet = agents(&daemon, 12);
    repository.ending(&repository.git(&["rev-parse", "HEAD"]), "succeeded");
    let bad = change(&repository, "broken");
    repository.ending(&bad, "rolled-back");
    let good = change(&repository, "normal");
    repository.ending(&good, "succeeded");
    let held = one_for_all(&fleet);
    let before = fleet.counts();

    daemon.kill();
    std::fs::remove_dir_all(daemon.state()).expect("the state directory goes");
    daemon.restart();
    until(&fleet, "all agents to be back", |counts| counts.connected == 12 && counts.connects >= before.connects + 12);
    wait_for("all agents to be known as confirmed", || {
        let group = daemon.group("gateways");
        if group["counts"]["confirmed"] == 12 && group["phase"] == "steady" { Ok(()) } else { Err(group) }
    });
    assert_eq!(daemon.group("gateways")["stable"], held, "stable was read from the journal");
    stays("nobody is offered anything again", Duration::from_secs(1), || fleet.counts().offers);
    assert_eq!(fleet.counts().offers, before.offers);

    // What was written before the kill is still there, and what comes goes on from it.
    repository.ending(&bad, "rolled-back");
    let revert = change(&repository, "basic");
    repository.ending(&revert, "succeeded");
    assert_ne!(one_for_all(&fleet), held);
}

#[test]
fn a_commit_that_came_while_nobody_ran_is_taken_at_the_start() {
    let repository = gateways(AT_ONCE);
    let mut daemon = Daemon::start(&repository, &["--interval", "1h"]);
    let fleet = agents(&daemon, 3);
    let basic = one_for_all(&fleet);
    daemon.kill();
    let commit = change(&repository, "normal");
    daemon.restart();
    repository.ending(&commit, "succeeded");
    assert_ne!(one_for_all(&fleet), basic);
    assert_eq!(fleet.counts().offers, 6);
}

#[test]
fn sigterm_ends_it_within_five_seconds() {
    let repository = gateways(AT_ONCE);
    let mut daemon = Daemon::start(&repository, &[]);
    let fleet = agents(&daemon, 5);
    one_for_all(&fleet);
    let process = daemon.take();
    let asked = now();
    process.signal("TERM");
    let status = process.ended();
    let took = now().duration_since(asked);
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "it took {took:?}");
}

/// `sha256=<hex>` of the body under the secret, as GitHub signs.
fn signature(secret: &str, body: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any key will do");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

#[test]
fn every_bell_rings() {
    let repository = gateways(AT_ONCE);
    let remote = HttpRemote::serve(&repository.remote());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let secret = directory.path().join("secret");
    write_secret(&secret, "hunter2\n");
    // An hour between looks, and a remote that cannot be watched: only bells are left.
    let secret = format!("--hook-secret-file={}", secret.display());
    let daemon = Daemon::start_on(&remote.url(), &["--interval=1h", &secret]);
    let taken = |commit: &str| {
        wait_for("the commit to be taken", || {
            let revision = daemon.status()["sync"]["revision"].clone();
            if revision == format!("main@sha1:{commit}") { Ok(()) } else { Err(revision) }
        });
    };
    taken(&repository.git(&["rev-parse", "HEAD"]));

    let commit = change(&repository, "normal");
    stays("without a bell nobody looks", Duration::from_millis(500), || remote.looks());
    daemon.ask(&["sync"]);
    taken(&commit);

    let commit = change(&repository, "detailed");
    daemon.process().signal("HUP");
    taken(&commit);

    let commit = change(&repository, "basic");
    let body = format!(r#"{{"ref":"refs/heads/main","repository":{{"clone_url":"{}"}}}}"#, remote.url());
    let hook = |event: &str, signature: &str, body: &str| {
        let headers =
            [("Content-Type", "application/json"), ("X-GitHub-Event", event), ("X-Hub-Signature-256", signature)];
        post(daemon.agents(), "/hooks/github", &headers, body.as_bytes()).expect("an answer").0
    };
    let looks = remote.looks();
    assert_eq!(hook("push", &signature("another", body.as_bytes()), &body), 401, "a wrong signature");
    assert_eq!(hook("push", "", &body), 401, "no signature");
    let other = body.replace("heads/main", "heads/other");
    assert!(
        (200..300).contains(&hook("push", &signature("hunter2", other.as_bytes()), &other)),
        "another branch is acknowledged"
    );
    assert!((200..300).contains(&hook("ping", &signature("hunter2", b"{}"), "{}")), "a ping is acknowledged");
    stays("none of these rings", Duration::from_millis(500), || remote.looks());
    assert_eq!(remote.looks(), looks);
    assert!((200..300).contains(&hook("push", &signature("hunter2", body.as_bytes()), &body)), "a push to our branch");
    taken(&commit);
}

#[test]
fn a_hook_that_is_ahead_of_the_remote_leads_to_one_second_look() {
    let repository = gateways(AT_ONCE);
    let remote = HttpRemote::serve(&repository.remote());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let secret = directory.path().join("secret");
    write_secret(&secret, "an older one\nhunter2\n");
    let secret = format!("--hook-secret-file={}", secret.display());
    let daemon = Daemon::start_on(&remote.url(), &["--interval=1h", "--interval-with-hooks=20h", &secret]);
    let taken = |commit: &str| {
        wait_for("the commit to be taken", || {
            let revision = daemon.status()["sync"]["revision"].clone();
            if revision == format!("main@sha1:{commit}") { Ok(()) } else { Err(revision) }
        });
    };
    let hours_to_next = || {
        let sync = daemon.status()["sync"].clone();
        let at = |key: &str| sync[key].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let (last, next) = (at("lastSuccess").expect("a look"), at("nextAttempt").expect("another"));
        next.duration_since(last).as_hours()
    };
    let before = repository.git(&["rev-parse", "HEAD"]);
    taken(&before);
    assert!(hours_to_next() <= 1, "no hook has come yet");
    assert_eq!(daemon.metric("gitamp_hook_last_timestamp_seconds{forge=\"gitlab\"}"), None);

    // The forge tells of a commit, and answers the look that follows as it was before.
    let commit = change(&repository, "normal");
    let move_main = |to: &str| {
        let mut git = std::process::Command::new("git");
        git.arg("--git-dir").arg(repository.remote()).args(["update-ref", "refs/heads/main", to]);
        git
    };
    assert!(run(&mut move_main(&before)).status.success());
    let mut catch_up = move_main(&commit);
    remote.behind_the_next_look(move || assert!(run(&mut catch_up).status.success()));
    let looks = remote.looks();
    let hook = |after: &str| {
        let body = format!(
            r#"{{"object_kind":"push","ref":"refs/heads/main","after":"{after}","project":{{"git_http_url":"{}"}}}}"#,
            remote.url()
        );
        let headers =
            [("Content-Type", "application/json"), ("X-Gitlab-Event", "Push Hook"), ("X-Gitlab-Token", "hunter2")];
        assert_eq!(post(daemon.agents(), "/hooks/gitlab", &headers, body.as_bytes()).expect("an answer").0, 202);
    };
    hook(&commit);
    taken(&commit);
    assert_eq!(remote.looks(), looks + 2, "the second look found it");
    wait_for("the pace to be that with hooks", || {
        let hours = hours_to_next();
        if hours >= 17 { Ok(()) } else { Err(hours) }
    });
    let last = daemon.status()["sync"]["lastHook"].clone();
    assert_eq!((&last["forge"], &last["about"]), (&"GitLab".into(), &"a push to refs/heads/main".into()), "{last}");
    assert!(daemon.metric("gitamp_hook_last_timestamp_seconds{forge=\"gitlab\"}").is_some_and(|at| at > 1.7e9));
    assert!(daemon.ask(&["status"]).contains("from GitLab: a push to refs/heads/main"));

    // One that lies costs a second look as well, and no third.
    hook("0123456789012345678901234567890123456789");
    wait_for("two looks more", || if remote.looks() >= looks + 4 { Ok(()) } else { Err(remote.looks()) });
    stays("a third look", Duration::from_secs(6), || remote.looks());
    // What is there already is not looked for again.
    hook(&commit);
    wait_for("one look more", || if remote.looks() >= looks + 5 { Ok(()) } else { Err(remote.looks()) });
    stays("a second look", Duration::from_secs(6), || remote.looks());
    assert_eq!(remote.looks(), looks + 5);
}

#[test]
fn without_a_secret_there_are_no_hooks() {
    let daemon = Daemon::start(&gateways(AT_ONCE), &[]);
    let headers = [("Content-Type", "application/json"), ("X-GitHub-Event", "push")];
    assert_eq!(post(daemon.agents(), "/hooks/github", &headers, b"{}").expect("an answer").0, 404);
}

#[test]
fn observing_offers_and_writes_nothing() {
    let repository = gateways(AT_ONCE);
    let daemon = Daemon::start(&repository, &["--observe"]);
    let fleet = agents(&daemon, 4);
    wait_for("the agents to be known", || {
        let group = daemon.group("gateways");
        if group["counts"]["selected"] == 4 && group["wanted"].is_string() { Ok(()) } else { Err(group) }
    });
    assert_eq!(daemon.status()["observe"], true);
    stays("nobody is offered anything", Duration::from_secs(2), || fleet.counts().offers);
    assert_eq!(fleet.counts().offers, 0);
    let refs = repository.git(&["ls-remote", "origin", "refs/notes/*"]);
    assert_eq!(refs, "", "nothing is written to the remote");
}

#[test]
fn agents_that_poll_over_http_follow_too() {
    let repository = gateways(AT_ONCE);
    let daemon = Daemon::start(&repository, &[]);
    let fleet = Fleet::start(options(&daemon, "http", 6, &["service.name=otelcol-gateway"])).expect("a fleet");
    repository.ending(&repository.git(&["rev-parse", "HEAD"]), "succeeded");
    let basic = one_for_all(&fleet);
    let commit = change(&repository, "normal");
    repository.ending(&commit, "succeeded");
    assert_ne!(one_for_all(&fleet), basic);
    let counts = fleet.counts();
    assert_eq!((counts.offers, counts.repeated_offers, counts.errors), (12, 0, 0), "{counts:?}");
}

/// Automatic rollback of a supervisor: FAILED for the new configuration, then APPLIED for the one before. A server that compares
/// hashes alone would send the new one again, and both would do so for ever.
#[test]
fn agents_that_roll_back_by_themselves_are_left_alone() {
    let tolerant = format!("{AT_ONCE}  maxFailures: 1\n  maxUnavailable: 100%\n");
    let repository =
        Repository::with(&[("gateways/group.yaml", &tolerant), ("gateways/collector.yaml", &collector("basic"))]);
    let daemon = Daemon::start(&repository, &["--interval", "1h"]);
    let mut played = options(&daemon, "ws", 5, &["service.name=otelcol-gateway"]);
    played.rollback = Amount::Count(1);
    let fleet = Fleet::start(played).expect("a fleet");
    repository.ending(&repository.git(&["rev-parse", "HEAD"]), "succeeded");
    let basic = one_for_all(&fleet);

    repository.ending(&change(&repository, "normal"), "succeeded");
    let counts = until(&fleet, "one of them to go back by itself", |counts| {
        counts.configs.iter().any(|config| *config.hash == *basic && config.applied == 1)
            && counts.configs.iter().any(|config| *config.hash != *basic && config.applied == 4)
    });
    assert_eq!(counts.offers, 10, "two for each");
    stays("nothing is offered to it again", Duration::from_secs(2), || fleet.counts().offers);
    let counts = fleet.counts();
    assert_eq!((counts.repeated_offers, counts.errors, counts.malformed), (0, 0, 0));
    let group = daemon.group("gateways");
    assert_eq!((&group["counts"]["confirmed"], &group["counts"]["failed"]), (&4.into(), &1.into()), "{group}");
}

#[test]
fn several_agents_on_one_connection_are_told_apart() {
    let repository = gateways(AT_ONCE);
    let daemon = Daemon::start(&repository, &[]);
    let mut shared = options(&daemon, "ws", 9, &["service.name=otelcol-gateway,otelcol-gateway,otelcol-edge"]);
    shared.per_connection = 3;
    let fleet = Fleet::start(shared).expect("a fleet");
    repository.ending(&repository.git(&["rev-parse", "HEAD"]), "succeeded");
    let counts = until(&fleet, "two thirds to run it", |counts| counts.applied == 6);
    assert_eq!((counts.offers, counts.without_config, counts.connects, counts.malformed), (6, 3, 3, 0), "{counts:?}");
}

#[test]
fn agents_of_no_group_and_of_a_removed_group_keep_what_they_have() {
    let repository = gateways(AT_ONCE);
    let daemon = Daemon::start(&repository, &[]);
    let strangers = Fleet::start(options(&daemon, "ws", 3, &["service.name=somebody-else"])).expect("a fleet");
    let fleet = agents(&daemon, 3);
    repository.ending(&repository.git(&["rev-parse", "HEAD"]), "succeeded");
    let held = one_for_all(&fleet);
    wait_for("strangers to be counted", || {
        let agents = daemon.status()["agents"].clone();
        if agents["unmanaged"] == 3 && agents["managed"] == 3 { Ok(()) } else { Err(agents) }
    });
    assert_eq!(strangers.counts().offers, 0, "they are never sent anything");

    repository.git(&["rm", "--quiet", "-r", "gateways"]);
    let other = "apiVersion: gitamp/v1\nkind: Group\nselector: {matchLabels: {service.name: nobody}}\n";
    let files = [("other/group.yaml", other.to_owned()), ("other/collector.yaml", collector("basic"))];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let commit = repository.commit("Put another group in the place of the gateways", &files);
    wait_for("the removal to be taken", || {
        let revision = daemon.status()["sync"]["revision"].clone();
        if revision == format!("main@sha1:{commit}") { Ok(()) } else { Err(revision) }
    });
    stays("the agents of a removed group keep what they have", Duration::from_secs(1), || fleet.counts().offers);
    assert_eq!((one_for_all(&fleet), fleet.counts().offers), (held, 3));
    let orphans = daemon.ask(&["agents", "--state", "orphaned"]);
    assert_eq!(orphans.matches("gateways is no longer in the repository").count(), 3, "{orphans}");
}

#[test]
fn a_group_with_errors_keeps_what_it_has_and_the_others_proceed() {
    let repository = gateways(AT_ONCE);
    let edge = AT_ONCE.replace("gateway", "edge");
    let commit =
        repository.commit("Edges", &[("edges/group.yaml", &edge), ("edges/collector.yaml", &collector("basic"))]);
    let daemon = Daemon::start(&repository, &[]);
    let (fleet, edges) =
        (agents(&daemon, 2), Fleet::start(options(&daemon, "ws", 2, &["service.name=otelcol-edge"])).expect("a fleet"));
    repository.ending(&commit, "succeeded");
    let held = one_for_all(&fleet);

    let broken = collector("normal").replace("[otlp]", "[oltp]");
    let commit = repository.commit(
        "A typing error",
        &[("gateways/collector.yaml", &broken), ("edges/collector.yaml", &collector("normal"))],
    );
    let note = repository.ending(&commit, "rejected");
    assert!(note.contains("gateways/collector.yaml:") && note.contains("oltp"), "the note has the place:\n{note}");
    until(&edges, "the others to proceed", |counts| counts.offers == 4 && counts.applied == 2);
    assert_eq!((one_for_all(&fleet), fleet.counts().offers), (held, 2), "the group with the error keeps what it has");
}

#[test]
fn comments_change_nothing_and_files_elsewhere_are_not_ours() {
    let repository = gateways(AT_ONCE);
    let daemon = Daemon::start(&repository, &[]);
    let fleet = agents(&daemon, 2);
    repository.ending(&repository.git(&["rev-parse", "HEAD"]), "succeeded");
    let commented = format!("# A remark.\n{}", collector("basic"));
    let commit = repository.commit("A remark", &[("gateways/collector.yaml", &commented)]);
    repository.ending(&commit, "no-op");
    assert_eq!(fleet.counts().offers, 2);

    let elsewhere = Repository::with(&[("README.md", "Hello\n"), ("fleet/all/group.yaml", AT_ONCE)]);
    elsewhere.commit("Its layer", &[("fleet/all/collector.yaml", &collector("basic"))]);
    let daemon = Daemon::start(&elsewhere, &["--path=fleet"]);
    let fleet = agents(&daemon, 1);
    one_for_all(&fleet);
    let ours = elsewhere.git(&["rev-parse", "HEAD"]);
    elsewhere.ending(&ours, "succeeded");
    let not_ours = elsewhere.commit("Say more", &[("README.md", "Hello, fleet\n")]);
    wait_for("the commit to be seen", || {
        let revision = daemon.status()["sync"]["revision"].clone();
        if revision == format!("main@sha1:{not_ours}") { Ok(()) } else { Err(revision) }
    });
    stays("a commit that is not ours gets no note", Duration::from_secs(1), || elsewhere.note(&not_ours));
    assert_eq!(elsewhere.note(&not_ours), None);
}

#[test]
fn a_remote_that_takes_no_notes_is_followed_all_the_same() {
    let repository = gateways(AT_ONCE);
    let remote = HttpRemote::serve(&repository.remote());
    remote.make_read_only();
    let mut daemon = Daemon::start_on(&remote.url(), &["--interval=1h"]);
    let fleet = agents(&daemon, 3);
    one_for_all(&fleet);
    wait_for("status to say that notes stay here", || {
        let status = daemon.status();
        if status["journal"]["localOnly"] == true && status["groups"][0]["phase"] == "steady" {
            Ok(())
        } else {
            Err(status)
        }
    });
    // A group is steady a moment before the note that says so is stored.
    wait_for("the notes to be readable here", || {
        let notes = daemon.ask(&["notes"]);
        if notes.contains("ending: succeeded") { Ok(()) } else { Err(notes) }
    });
    daemon.kill();
    daemon.restart();
    until(&fleet, "the agents to be back", |counts| counts.connected == 3 && counts.connects >= 6);
    stays("the local journal is enough to go on", Duration::from_secs(1), || fleet.counts().offers);
    assert_eq!(fleet.counts().offers, 3);
}

#[test]
fn a_token_that_is_wrong_at_first_needs_no_restart() {
    let repository = gateways(AT_ONCE);
    let remote = HttpRemote::serve(&repository.remote());
    remote.ask_for("hunter2");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let token = directory.path().join("token");
    write_secret(&token, "wrong");
    let file = format!("--git-token-file={}", token.display());
    let mut daemon = Daemon::prepared_on(&remote.url(), &["--interval=1h", &file]);
    daemon.spawn();
    wait_for("the refusal to be shown", || {
        let sync = daemon.status()["sync"].clone();
        let error = sync["error"].as_str().unwrap_or_default().to_owned();
        assert!(!error.contains("wrong"), "a token is never shown: {error}");
        if error.is_empty() { Err(sync) } else { Ok(()) }
    });
    assert_eq!(get(daemon.admin(), "/readyz").expect("an answer").0, 503, "not ready before the first sync");
    assert_eq!(get(daemon.admin(), "/healthz").expect("an answer").0, 200);
    write_secret(&token, "hunter2\n");
    daemon.ask(&["sync"]);
    daemon.ready();
}

#[test]
fn what_it_tells_about_itself_can_be_read() {
    let repository = gateways(AT_ONCE);
    let daemon = Daemon::start(&repository, &[]);
    let fleet = agents(&daemon, 3);
    repository.ending(&repository.git(&["rev-parse", "HEAD"]), "succeeded");
    let hash = one_for_all(&fleet);

    assert_eq!(get(daemon.admin(), "/healthz").expect("an answer").0, 200);
    for path in ["/api/v1/groups", "/api/v1/agents", "/api/v1/rollouts"] {
        let (status, body) = get(daemon.admin(), path).expect("an answer");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str::<serde_json::Value>(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
    }
    let (_, metrics) = get(daemon.admin(), "/metrics").expect("an answer");
    for name in ["gitamp_agents", "gitamp_offers", "gitamp_sync"] {
        assert!(metrics.contains(name), "no {name} in\n{metrics}");
    }
    assert_eq!(
        post(daemon.admin(), "/api/v1/groups", &[], b"{}").expect("an answer").0,
        405,
        "this listener only reads"
    );

    let status = daemon.ask(&["status"]);
    assert!(status.contains("gateways") && status.contains("steady"), "{status}");
    let list = daemon.ask(&["agents", "--group", "gateways"]);
    assert_eq!(list.matches("confirmed").count(), 3, "{list}");
    assert!(daemon.ask(&["notes", "HEAD"]).contains(&hash));
}

#[test]
fn check_says_what_is_wrong_and_its_exit_code_tells() {
    let repository = gateways(AT_ONCE);
    let work = repository.work().display().to_string();
    let check = |arguments: &[&str]| {
        let output = run(gitamp(["check"]).args(arguments));
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, said) = check(&[&work]);
    assert_eq!(code, Some(0), "{said}");
    repository.write(&[("gateways/collector.yaml", &collector("basic").replace("[otlp]", "[oltp]"))]);
    let (code, said) = check(&[&work]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("gateways/collector.yaml:10:") && said.contains("oltp"), "the place and the name:\n{said}");
    let (code, said) = check(&[&work, "--output", "github"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("::error file=") && said.contains("gateways/collector.yaml,line=10"), "{said}");
    let (code, said) = check(&[&work, "--output", "json"]);
    assert_eq!(code, Some(1), "{said}");
    serde_json::from_str::<serde_json::Value>(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let (code, said) = check(&["no/such/directory"]);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn simulate_plays_a_fleet_from_the_command_line() {
    let repository = gateways(AT_ONCE);
    let daemon = Daemon::start(&repository, &[]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = format!("ws://{}/v1/opamp", daemon.agents());
    let arguments = ["simulate", "--agents=5", "--attr=service.name=otelcol-gateway", "--server", &server];
    let fleet = Process::start(&mut gitamp(arguments), &directory.path().join("log"));
    let note = repository.ending(&repository.git(&["rev-parse", "HEAD"]), "succeeded");
    let hash = hash_in(&note, "candidate");
    wait_for("the simulator to say what its agents hold", || {
        let log = fleet.log();
        if log.contains(&hash[..12]) { Ok(()) } else { Err(log) }
    });
    fleet.signal("TERM");
    assert!(fleet.ended().success());
    wait_for("the agents to have said goodbye", || {
        let counts = daemon.group("gateways")["counts"].clone();
        if counts["away"] == 5 && counts["lost"] == 0 { Ok(()) } else { Err(counts) }
    });
}

#[test]
fn what_cannot_start_says_why() {
    let serve = |arguments: &[&str]| {
        let output = run(gitamp(["serve"]).args(arguments));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = serve(&[]);
    assert!(code == Some(2) && said.contains("--repo"), "no repository: {said}");
    let (code, said) = serve(&["--repo", "https://bob:hunter2@git.example.com/x"]);
    assert!(code == Some(2) && said.contains("--git-token-file") && !said.contains("hunter2"), "a password: {said}");

    let repository = gateways(AT_ONCE);
    let daemon = Daemon::start(&repository, &[]);
    let (repo, state) = (repository.remote().display().to_string(), daemon.state().display().to_string());
    let (code, said) = serve(&["--repo", &repo, "--state-dir", &state, "--listen=127.0.0.1:0", "--admin-listen=off"]);
    assert!(code == Some(2) && said.contains(&state), "a second daemon on one state directory: {said}");
    let taken = format!("--listen={}", daemon.agents());
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let state = elsewhere.path().display().to_string();
    let (code, said) = serve(&["--repo", &repo, "--state-dir", &state, &taken, "--admin-listen=off"]);
    assert!(code == Some(2) && said.contains(&daemon.agents().to_string()), "a port that is taken: {said}");
}

/// What the tests above stand on: the HTTP remote takes clones and pushes, and refuses them when it is told to.
#[test]
fn the_http_remote_is_a_git_remote() {
    let repository = gateways(AT_ONCE);
    let remote = HttpRemote::serve(&repository.remote());
    let url = remote.url();
    let heads = repository.git(&["ls-remote", &url, "refs/heads/main"]);
    assert!(heads.starts_with(&repository.git(&["rev-parse", "HEAD"])), "{heads}");
    assert_eq!(remote.looks(), 1);
    repository.git(&["commit", "--quiet", "--allow-empty", "--message", "Over HTTP"]);
    repository.git(&["push", "--quiet", &url, "main"]);
    assert!(repository.git(&["ls-remote", &url, "main"]).starts_with(&repository.git(&["rev-parse", "HEAD"])));
    remote.make_read_only();
    repository.git(&["commit", "--quiet", "--allow-empty", "--message", "Refused"]);
    assert!(repository.try_git(&["push", "--quiet", &url, "main"]).is_err(), "a push to a read-only remote");
    remote.ask_for("hunter2");
    assert!(repository.try_git(&["ls-remote", &url]).is_err(), "a look without the token");
    let with_token = url.replace("http://", "http://x-access-token:hunter2@");
    assert!(repository.try_git(&["ls-remote", &with_token]).is_ok(), "a look with the token");
}
