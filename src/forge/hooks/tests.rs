//! Deliveries good and bad against the readers of each dialect.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::settings::Secret;

const KEY: &str = "It's a Secret to Everybody";

fn secrets() -> Vec<Secret> {
    vec![Secret::new("an older one"), Secret::new(KEY)]
}

fn watched() -> Watched {
    Watched {
        repository: RepoIdentity::of_url("https://git.example.com/team/fleet.git"),
        reference: Reference::Branch("main".to_owned()),
    }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.parse().expect("a header name");
        headers.append(name, HeaderValue::from_str(value).expect("a header value"));
    }
    headers
}

fn signed(body: &str) -> String {
    signature::sign(&Secret::new(KEY), body.as_bytes()).expect("a signature")
}

fn github(event: &str, body: &str) -> Result<Verdict, Refusal> {
    let signature = signed(body);
    let headers = headers(&[
        ("X-Hub-Signature-256", &signature),
        ("X-GitHub-Event", event),
        ("Content-Type", "application/json; charset=utf-8"),
    ]);
    github::read(&headers, body.as_bytes(), &secrets(), &watched())
}

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn push(reference: &str, repository: &str) -> String {
    format!(r#"{{"ref":"{reference}","before":"0","after":"1","repository":{repository},"commits":[{{"id":null}}]}}"#)
}

const OURS: &str = r#"{"id":1,"full_name":"Team/Fleet","clone_url":"https://git.example.com/Team/Fleet.git"}"#;

#[test]
fn the_published_vector() {
    let wanted = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(signed("Hello, World!"), wanted);
    let headers = headers(&[("X-Hub-Signature-256", wanted)]);
    assert_eq!(signature::verify(&headers, "x-hub-signature-256", "sha256=", b"Hello, World!", &secrets()), Ok(()));
    assert_eq!(signature::sign(&Secret::new(""), b""), None, "an empty secret signs nothing");
}

#[test]
fn signatures_that_are_refused() {
    let body = "Hello, World!";
    let good = signed(body);
    let by_other = signature::sign(&Secret::new("other"), body.as_bytes()).expect("a signature");
    let by_nothing = {
        // What somebody would send who hopes for an empty secret.
        let mac = <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(b"").expect("any length");
        let mac = hmac::Mac::chain_update(mac, body.as_bytes());
        format!("sha256={}", hex::encode(hmac::Mac::finalize(mac).into_bytes()))
    };
    let truncated = &good[..good.len() - 2];
    for (name, pairs, wanted) in [
        ("missing", vec![], SignatureError::Missing),
        ("in the SHA-1 header", vec![("x-hub-signature", good.as_str())], SignatureError::Missing),
        ("twice", vec![("x-signature", good.as_str()), ("x-signature", &good)], SignatureError::Missing),
        ("empty header", vec![("x-signature", "")], SignatureError::Malformed),
        ("nothing behind it", vec![("x-signature", "sha256=")], SignatureError::Malformed),
        ("truncated", vec![("x-signature", truncated)], SignatureError::Malformed),
        ("odd digits", vec![("x-signature", &good[..good.len() - 1])], SignatureError::Malformed),
        ("too long", vec![("x-signature", &format!("{good}00"))], SignatureError::Malformed),
        ("another algorithm", vec![("x-signature", &good.replace("sha256", "sha1"))], SignatureError::Malformed),
        ("bare digits", vec![("x-signature", &good["sha256=".len()..])], SignatureError::Malformed),
        ("not hexadecimal", vec![("x-signature", &format!("sha256={}", "g".repeat(64)))], SignatureError::Malformed),
        ("by another secret", vec![("x-signature", by_other.as_str())], SignatureError::Wrong),
        ("by an empty secret", vec![("x-signature", by_nothing.as_str())], SignatureError::Wrong),
        ("zeros", vec![("x-signature", &format!("sha256={}", "0".repeat(64)))], SignatureError::Wrong),
    ] {
        let all = [secrets(), vec![Secret::new("")]].concat();
        let got = signature::verify(&headers(&pairs), "x-signature", "sha256=", body.as_bytes(), &all);
        assert_eq!(got, Err(wanted), "{name}");
    }
    let of_other_body = headers(&[("x-signature", &good)]);
    let got = signature::verify(&of_other_body, "x-signature", "sha256=", b"Hello, World?", &secrets());
    assert_eq!(got, Err(SignatureError::Wrong), "the signature of another body");
    assert_eq!(
        signature::verify(&of_other_body, "x-signature", "sha256=", body.as_bytes(), &[]),
        Err(SignatureError::Wrong),
        "without a secret nothing is authentic"
    );
}

#[test]
fn pushes_ring_only_for_what_is_followed() {
    let ssh = r#"{"ssh_url":"git@git.example.com:team/fleet.git"}"#;
    let page = r#"{"html_url":"https://git.example.com/team/fleet"}"#;
    let alias = r#"{"full_name":"team/fleet","clone_url":"https://public.example.net/team/fleet.git"}"#;
    let fork = r#"{"full_name":"mallory/fleet","clone_url":"https://git.example.com/mallory/fleet.git"}"#;
    for (body, rings, words) in [
        (push("refs/heads/main", OURS), true, "refs/heads/main"),
        (push("refs/heads/main", ssh), true, ""),
        (push("refs/heads/main", page), true, ""),
        (push("refs/heads/main", alias), true, ""),
        (push("refs/heads/main", fork), false, "another repository (mallory/fleet)"),
        (push("refs/heads/main", "{}"), false, "without a name"),
        (push("refs/heads/feature", OURS), false, "refs/heads/feature, which is not followed (branch main is)"),
        (push("refs/tags/main", OURS), false, "not followed"),
        (push("refs/notes/gitamp/default", OURS), false, "not followed"),
        (push(r"\u001b[31mx", OURS), false, r"\u{1b}[31mx"),
    ] {
        match (github("push", &body), rings) {
            (Ok(Verdict::Ring(Push { what: shown, .. })), true) | (Ok(Verdict::Ignored(shown)), false) => {
                assert!(shown.contains(words), "{body}: {shown}");
            }
            (other, _) => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn other_events_are_acknowledged() {
    assert_eq!(github("ping", r#"{"zen":"Keep it logically awesome.","hook_id":1}"#), Ok(Verdict::Ping));
    for event in ["pull_request", "create", "push\u{7f}"] {
        let headers_ok = event.chars().all(|c| !c.is_control());
        if headers_ok {
            assert!(matches!(github(event, "not even JSON"), Ok(Verdict::Ignored(_))), "{event}");
        }
    }
}

#[test]
fn authentic_nonsense_is_refused_without_a_panic() {
    for body in [
        "",
        "{",
        "null",
        "[]",
        "7",
        r#""push""#,
        "{}",
        r#"{"ref":"refs/heads/main"}"#,
        r#"{"ref":"refs/heads/main","repository":null}"#,
        r#"{"ref":null,"repository":{}}"#,
        r#"{"ref":["refs/heads/main"],"repository":{}}"#,
        r#"{"ref":"refs/heads/main","repository":{"clone_url":7}}"#,
        &"[".repeat(100_000),
    ] {
        let short: String = body.chars().take(40).collect();
        assert!(matches!(github("push", body), Err(Refusal::Body(_))), "{short}");
    }
    let body = push("refs/heads/main", OURS);
    let signature = signed(&body);
    let form = headers(&[
        ("X-Hub-Signature-256", &signature),
        ("X-GitHub-Event", "push"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ]);
    let read = |headers: &HeaderMap| github::read(headers, body.as_bytes(), &secrets(), &watched());
    assert_eq!(read(&form), Err(Refusal::ContentType));
    let without_event = headers(&[("X-Hub-Signature-256", &signature), ("Content-Type", "application/json")]);
    assert_eq!(read(&without_event), Err(Refusal::Header("X-GitHub-Event")));
    let unsigned = headers(&[("X-GitHub-Event", "push"), ("Content-Type", "text/plain")]);
    assert_eq!(read(&unsigned), Err(Refusal::Signature(SignatureError::Missing)), "the signature is looked at first");
}

#[test]
fn forges_that_speak_githubs_dialect() {
    let body = push("refs/heads/main", OURS);
    for (own, name) in
        [("X-Gitea-Event", "gitea"), ("X-Forgejo-Event", "forgejo"), ("X-Gogs-Event", "gogs"), ("X-Other", "github")]
    {
        let mut with = headers(&[
            ("X-GitHub-Event", "push"),
            ("X-Hub-Signature-256", &signed(&body)),
            ("Content-Type", "application/json"),
            (own, "push"),
        ]);
        assert!(matches!(github::read(&with, body.as_bytes(), &secrets(), &watched()), Ok(Verdict::Ring(_))), "{name}");
        with.insert("X-Hub-Signature-256", HeaderValue::from_static("sha256="));
        let got = github::read(&with, body.as_bytes(), &secrets(), &watched());
        assert_eq!(got, Err(Refusal::Signature(SignatureError::Malformed)), "{name} without a secret");
    }
}

/// The headers that prove to a dialect that the sender knows `KEY`, with its event.
fn proven(dialect: Dialect, event: Option<&str>, body: &str) -> HeaderMap {
    let signed = signed(body);
    let bare = signed.trim_start_matches("sha256=").to_owned();
    let basic = format!("Basic {}", STANDARD.encode(format!("gitamp:{KEY}")));
    let (proof, event_header) = match dialect {
        Dialect::GitHub => (("X-Hub-Signature-256", signed), "X-GitHub-Event"),
        Dialect::GitLab => (("X-Gitlab-Token", KEY.to_owned()), "X-Gitlab-Event"),
        Dialect::Gitea => (("X-Gitea-Signature", bare), "X-Gitea-Event"),
        Dialect::Bitbucket => (("X-Hub-Signature", signed), "X-Event-Key"),
        Dialect::Azure => (("Authorization", basic), "X-None"),
        Dialect::Generic => (("X-Signature", signed), "X-None"),
    };
    let mut all = headers(&[(proof.0, &proof.1), ("Content-Type", "application/json; charset=utf-8")]);
    if let Some(event) = event {
        all.extend(headers(&[(event_header, event)]));
    }
    all
}

fn read(dialect: Dialect, event: Option<&str>, body: &str) -> Result<Verdict, Refusal> {
    dialect.read(&proven(dialect, event, body), body.as_bytes(), &secrets(), &watched(), NOW)
}

/// A payload, whose repository and branch are ours, with the two that are no longer.
struct Recorded {
    dialect: Dialect,
    event: Option<&'static str>,
    body: &'static str,
    /// The words to replace for another branch, and for another repository.
    branch: &'static str,
    repository: &'static str,
}

/// Written by hand after the documentation that each file names in its `_` and after payloads that forges sent.
fn recorded() -> Vec<Recorded> {
    let one = |dialect, event, body, branch, repository| Recorded { dialect, event, body, branch, repository };
    vec![
        one(Dialect::GitHub, Some("push"), include_str!("payloads/github-push.json"), "refs/heads/main", "eam/fleet"),
        one(
            Dialect::GitLab,
            Some("Push Hook"),
            include_str!("payloads/gitlab-push.json"),
            "refs/heads/main",
            "eam/fleet",
        ),
        one(
            Dialect::GitLab,
            Some("System Hook"),
            include_str!("payloads/gitlab-push.json"),
            "refs/heads/main",
            "eam/fleet",
        ),
        one(
            Dialect::GitLab,
            Some("System Hook"),
            include_str!("payloads/gitlab-repository-update.json"),
            "refs/heads/main",
            "eam/fleet",
        ),
        one(Dialect::Gitea, Some("push"), include_str!("payloads/gitea-push.json"), "refs/heads/main", "eam/fleet"),
        one(
            Dialect::Bitbucket,
            Some("repo:push"),
            include_str!("payloads/bitbucket-cloud-push.json"),
            "\"main\"",
            "eam/fleet",
        ),
        one(
            Dialect::Bitbucket,
            Some("repo:refs_changed"),
            include_str!("payloads/bitbucket-data-center-push.json"),
            "refs/heads/main",
            "fleet",
        ),
    ]
}

#[test]
fn pushes_of_every_forge_ring_for_what_is_followed_and_for_nothing_else() {
    for one in recorded() {
        let Recorded { dialect, event, body, branch, repository } = one;
        let announced = Announced { branch: "main".to_owned(), commit: CommitId([0xab; 20]) };
        let rings = Ok(Verdict::Ring(Push { what: "refs/heads/main".to_owned(), announced: Some(announced) }));
        assert_eq!(read(dialect, event, body), rings, "{dialect:?} {event:?}");

        let elsewhere = body.replace(branch, &branch.replace("main", "feature"));
        assert_ne!(elsewhere, body, "{dialect:?}");
        let got = read(dialect, event, &elsewhere);
        let is_ignored = |got: &Result<Verdict, Refusal>, words: &str| matches!(got, Ok(Verdict::Ignored(why)) if why.contains(words));
        assert!(is_ignored(&got, "not followed"), "{dialect:?}, another branch: {got:?}");

        let of_others = body.replace(repository, &repository.replace("fleet", "other"));
        let got = read(dialect, event, &of_others);
        assert!(is_ignored(&got, "another repository"), "{dialect:?}, another repository: {got:?}");

        let gone = body.replace(&"ab".repeat(20), &"00".repeat(20));
        let rings = Ok(Verdict::Ring(Push { what: "refs/heads/main".to_owned(), announced: None }));
        assert_eq!(read(dialect, event, &gone), rings, "{dialect:?}: of a deleted branch no head is expected");

        let (secrets, watched) = ([Secret::new("another")], watched());
        let got = dialect.read(&proven(dialect, event, body), body.as_bytes(), &secrets, &watched, NOW);
        assert_eq!(got, Err(Refusal::Signature(SignatureError::Wrong)), "{dialect:?}: another secret");
        for nonsense in ["null", "{", "[]", "{}", r#"{"repository":null}"#, r#"{"push":{"changes":7}}"#] {
            let got = read(dialect, event, nonsense);
            assert!(matches!(got, Err(Refusal::Body(_)) | Ok(Verdict::Ignored(_))), "{dialect:?}: {nonsense}: {got:?}");
        }
        let mut form = proven(dialect, event, body);
        form.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        let got = dialect.read(&form, body.as_bytes(), &self::secrets(), &watched, NOW);
        assert_eq!(got, Err(Refusal::ContentType), "{dialect:?}");
    }
}

#[test]
fn events_that_are_no_push_are_acknowledged() {
    for (dialect, event) in [
        (Dialect::GitLab, "Merge Request Hook"),
        (Dialect::GitLab, "Emoji Hook"),
        (Dialect::Gitea, "issues"),
        (Dialect::Bitbucket, "pullrequest:fulfilled"),
        (Dialect::Bitbucket, "pr:merged"),
    ] {
        let got = read(dialect, Some(event), "not even JSON");
        assert!(matches!(&got, Ok(Verdict::Ignored(why)) if why.contains(event)), "{dialect:?} {event}: {got:?}");
    }
    let got = read(Dialect::GitLab, Some("System Hook"), r#"{"event_name":"user_create"}"#);
    assert!(matches!(&got, Ok(Verdict::Ignored(why)) if why.contains("user_create")), "{got:?}");
    let got = read(Dialect::Azure, None, r#"{"eventType":"git.pullrequest.merged","resource":null}"#);
    assert!(matches!(&got, Ok(Verdict::Ignored(why)) if why.contains("git.pullrequest.merged")), "{got:?}");
    for (dialect, header) in
        [(Dialect::GitLab, "X-Gitlab-Event"), (Dialect::Gitea, "X-Gitea-Event"), (Dialect::Bitbucket, "X-Event-Key")]
    {
        assert_eq!(read(dialect, None, "{}"), Err(Refusal::Header(header)));
    }
}

/// The secret of the published example of Standard Webhooks.
const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn the_published_example_of_standard_webhooks() {
    let body = r#"{"test": 2432232314}"#;
    let all = headers(&[
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]);
    let verified =
        |secret: &str| signature::verify_standard(&all, body.as_bytes(), &[Secret::new("old"), Secret::new(secret)]);
    assert_eq!(verified(SIGNING), Ok(Some(Timestamp::from_millis(1_614_265_330_000))));
    assert_eq!(verified("whsec_AAAA"), Err(SignatureError::Wrong));
    assert_eq!(verified("plain"), Ok(None), "no secret of this form: nothing to compare with");
}

#[test]
fn gitlab_signs_with_a_token_of_its_own() {
    let body = include_str!("payloads/gitlab-push.json");
    let secrets = [Secret::new("the plain one"), Secret::new(SIGNING)];
    let sign = |at: &str| signature::sign_standard(&secrets[1], "id-1", at, body.as_bytes()).expect("a signature");
    let read = |time: &str, signatures: &str, token: Option<&str>| {
        let mut all = headers(&[
            ("X-Gitlab-Event", "Push Hook"),
            ("Content-Type", "application/json"),
            ("webhook-id", "id-1"),
            ("webhook-timestamp", time),
            ("webhook-signature", signatures),
        ]);
        if let Some(token) = token {
            all.extend(headers(&[("X-Gitlab-Token", token)]));
        }
        gitlab::read(&all, body.as_bytes(), &secrets, &watched(), NOW)
    };
    let now = "1800000000";
    let good = sign(now);
    assert!(matches!(read(now, &good, None), Ok(Verdict::Ring(_))));
    assert!(matches!(read(now, &format!("v1,AAAA v2,x {good}"), None), Ok(Verdict::Ring(_))), "one of several");
    let late = read("1799999000", &sign("1799999000"), None);
    assert!(
        matches!(&late, Ok(Verdict::Ignored(why)) if why.contains("1000 s away")),
        "acknowledged, not refused: {late:?}"
    );
    for (time, signatures, wanted) in [
        ("1800000001", good.as_str(), SignatureError::Wrong),
        ("soon", &good, SignatureError::Malformed),
        (now, "", SignatureError::Malformed),
        (now, "v1,!", SignatureError::Malformed),
        (now, "v1,AAAA", SignatureError::Wrong),
        (now, &good.replace("v1,", "v1a,"), SignatureError::Malformed),
    ] {
        let got = read(time, signatures, Some("the plain one"));
        assert_eq!(got, Err(wanted.into()), "{time} {signatures}: a good token does not make up for it");
    }
    let plain = [Secret::new("the plain one")];
    let with_both = headers(&[
        ("X-Gitlab-Event", "Push Hook"),
        ("Content-Type", "application/json"),
        ("webhook-id", "id-1"),
        ("webhook-timestamp", now),
        ("webhook-signature", &good),
        ("X-Gitlab-Token", "the plain one"),
    ]);
    let got = gitlab::read(&with_both, body.as_bytes(), &plain, &watched(), NOW);
    assert!(matches!(got, Ok(Verdict::Ring(_))), "who set both up there and gave us one: {got:?}");
}

#[test]
fn tokens_and_passwords_that_are_refused() {
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    for (dialect, header, value, wanted) in [
        (Dialect::GitLab, "X-Gitlab-Token", String::new(), SignatureError::Malformed),
        (Dialect::GitLab, "X-Gitlab-Token", KEY.to_lowercase(), SignatureError::Wrong),
        (Dialect::GitLab, "X-Gitlab-Token", KEY[..KEY.len() - 1].to_owned(), SignatureError::Wrong),
        (Dialect::GitLab, "X-Hub-Signature-256", signed("{}"), SignatureError::Missing),
        (Dialect::Azure, "Authorization", basic("x:"), SignatureError::Malformed),
        (Dialect::Azure, "Authorization", basic("no colon"), SignatureError::Malformed),
        (Dialect::Azure, "Authorization", basic(&format!("{KEY}:wrong")), SignatureError::Wrong),
        (Dialect::Azure, "Authorization", format!("Bearer {KEY}"), SignatureError::Malformed),
        (Dialect::Azure, "Authorization", "Basic !".to_owned(), SignatureError::Malformed),
        (Dialect::Azure, "X-Gitamp-Secret", "wrong".to_owned(), SignatureError::Wrong),
        (Dialect::Azure, "X-Other", KEY.to_owned(), SignatureError::Missing),
        (Dialect::Gitea, "X-Gitea-Signature", String::new(), SignatureError::Malformed),
        (Dialect::Gitea, "X-Forgejo-Signature", signed("{}"), SignatureError::Malformed),
        (Dialect::Bitbucket, "X-Hub-Signature", String::new(), SignatureError::Malformed),
        (Dialect::Bitbucket, "X-Hub-Signature-256", signed("{}"), SignatureError::Missing),
    ] {
        let all = headers(&[(header, &value), ("X-Event-Key", "repo:push")]);
        let with_empty = [secrets(), vec![Secret::new("")]].concat();
        let got = dialect.read(&all, b"{}", &with_empty, &watched(), NOW);
        assert_eq!(got, Err(wanted.into()), "{dialect:?} {header}: {value}");
    }
    // The relatives of Gitea send every header; the first of their own decides.
    let body = include_str!("payloads/gitea-push.json");
    let mut all = proven(Dialect::Gitea, Some("push"), body);
    all.insert("x-forgejo-signature", HeaderValue::from_static(""));
    let got = Dialect::Gitea.read(&all, body.as_bytes(), &secrets(), &watched(), NOW);
    assert_eq!(got, Err(Refusal::Signature(SignatureError::Malformed)), "no secret set there");
}

#[test]
fn data_center_tries_out_whether_we_are_there() {
    let ping = r#"{"test":true}"#;
    assert_eq!(read(Dialect::Bitbucket, Some("diagnostics:ping"), ping), Ok(Verdict::Ping));
    let unsigned = headers(&[("X-Event-Key", "diagnostics:ping"), ("Content-Type", "application/json")]);
    let got = Dialect::Bitbucket.read(&unsigned, ping.as_bytes(), &secrets(), &watched(), NOW);
    assert_eq!(got, Ok(Verdict::UnsignedPing));
    let mut wrong = unsigned.clone();
    wrong.insert("x-hub-signature", HeaderValue::from_str(&signed("another body")).expect("text"));
    let got = Dialect::Bitbucket.read(&wrong, ping.as_bytes(), &secrets(), &watched(), NOW);
    assert_eq!(got, Err(Refusal::Signature(SignatureError::Wrong)));
    let basic = format!("Basic {}", STANDARD.encode(format!("bitbucket:{KEY}")));
    let all = headers(&[
        ("X-Event-Key", "repo:refs_changed"),
        ("Content-Type", "application/json"),
        ("Authorization", &basic),
    ]);
    let body = include_str!("payloads/bitbucket-data-center-push.json");
    let got = Dialect::Bitbucket.read(&all, body.as_bytes(), &secrets(), &watched(), NOW);
    assert!(matches!(got, Ok(Verdict::Ring(_))), "basic authentication: {got:?}");
}

#[test]
fn every_ref_of_a_push_of_bitbucket_is_looked_at() {
    let change = |new: &str| format!(r#"{{"old":{{"type":"branch","name":"gone","target":{{}}}},"new":{new}}}"#);
    let body = |changes: &[String]| {
        format!(r#"{{"push":{{"changes":[{}]}},"repository":{{"full_name":"team/fleet"}}}}"#, changes.join(","))
    };
    let main = change(r#"{"type":"branch","name":"main","target":null}"#);
    let tag = change(r#"{"type":"annotated_tag","name":"main","target":{"hash":null}}"#);
    for (changes, rings) in
        [(vec![tag.clone(), change("null"), main], true), (vec![tag, change("null")], false), (Vec::new(), false)]
    {
        let got = read(Dialect::Bitbucket, Some("repo:push"), &body(&changes));
        assert_eq!(matches!(got, Ok(Verdict::Ring(_))), rings, "{changes:?}: {got:?}");
    }
}

#[test]
fn azure_names_a_repository_in_several_forms() {
    let body = include_str!("payloads/azure-push.json");
    let all = proven(Dialect::Azure, None, body);
    for (url, rings) in [
        ("https://dev.azure.com/example/Platform/_git/Fleet", true),
        ("https://example@dev.azure.com/example/Platform/_git/Fleet", true),
        ("git@ssh.dev.azure.com:v3/example/Platform/Fleet", true),
        ("example@vs-ssh.visualstudio.com:v3/example/Platform/Fleet", true),
        ("https://example.visualstudio.com/Platform/_git/Fleet", true),
        ("https://dev.azure.com/example/Other/_git/Fleet", false),
        ("https://dev.azure.com/other/Platform/_git/Fleet", false),
        ("https://dev.azure.com/example/_git/Fleet", false),
    ] {
        let repository = RepoIdentity::of_url(&url.replace("example@dev", "dev"));
        assert!(repository.is_some(), "{url}");
        let watched = Watched { repository, ..watched() };
        let got = Dialect::Azure.read(&all, body.as_bytes(), &secrets(), &watched, NOW);
        assert_eq!(matches!(got, Ok(Verdict::Ring(Push { announced: Some(_), .. }))), rings, "{url}: {got:?}");
        assert!(got.is_ok(), "{url}: {got:?}");
    }
    let same = body.replace("/Platform/", "/Fleet/");
    let short = Watched { repository: RepoIdentity::of_url("https://dev.azure.com/example/_git/Fleet"), ..watched() };
    let got = Dialect::Azure.read(&all, same.as_bytes(), &secrets(), &short, NOW);
    assert!(matches!(got, Ok(Verdict::Ring(_))), "a project of the same name is left out: {got:?}");
    for few in [
        r#"{"eventType":"git.push"}"#,
        r#"{"eventType":"git.push","resource":null}"#,
        r#"{"eventType":"git.push","resource":{"url":"x"}}"#,
        r#"{"eventType":"git.push","resource":{"repository":{"id":"1"},"refUpdates":[]}}"#,
    ] {
        assert_eq!(read(Dialect::Azure, None, few), Ok(Verdict::Ring(Push::somewhere())), "few details: {few}");
    }
    let header = headers(&[("X-Gitamp-Secret", KEY), ("Content-Type", "application/json")]);
    let got = Dialect::Azure.read(&header, br#"{"eventType":"git.push"}"#, &secrets(), &watched(), NOW);
    assert!(matches!(got, Ok(Verdict::Ring(_))), "the secret in a header: {got:?}");
}

#[test]
fn the_sender_is_known_behind_its_disguise() {
    for (dialect, pairs, sender) in [
        (Dialect::GitHub, vec!["X-GitHub-Event"], Sender::GitHub),
        (Dialect::GitHub, vec!["X-GitHub-Event", "X-Gogs-Event", "X-Gitea-Event"], Sender::Gitea),
        (Dialect::Gitea, vec!["X-GitHub-Event", "X-Gogs-Event", "X-Gitea-Event", "X-Forgejo-Event"], Sender::Forgejo),
        (Dialect::Gitea, vec!["X-GitHub-Event", "X-Gogs-Event"], Sender::Gogs),
        (Dialect::GitLab, vec![], Sender::GitLab),
        (Dialect::Azure, vec![], Sender::AzureDevOps),
        (Dialect::Generic, vec![], Sender::Generic),
        (Dialect::Bitbucket, vec!["X-Request-Id"], Sender::BitbucketDataCenter),
        (Dialect::Bitbucket, vec!["X-Hook-UUID", "X-Request-UUID"], Sender::BitbucketCloud),
    ] {
        let pairs: Vec<(&str, &str)> = pairs.into_iter().map(|name| (name, "push")).collect();
        assert_eq!(dialect.sender(&headers(&pairs)), sender, "{pairs:?}");
    }
}

fn generic(body: &str, watched: &Watched) -> Result<Verdict, Refusal> {
    let headers = headers(&[("X-Signature", &signed(body)), ("Content-Type", "application/json")]);
    generic::read(&headers, body.as_bytes(), &secrets(), watched, NOW)
}

#[test]
fn generic_deliveries() {
    let tags = Watched { reference: Reference::TagPattern("v*".to_owned()), ..watched() };
    let directory = Watched { repository: None, ..watched() };
    for (body, watched, rings) in [
        ("", &watched(), true),
        ("{}", &watched(), true),
        (r#"{"ref":"refs/heads/main"}"#, &watched(), true),
        (r#"{"ref":"main"}"#, &watched(), true),
        (r#"{"ref":"v1.2"}"#, &tags, true),
        (r#"{"ref":"refs/heads/v1.2"}"#, &tags, false),
        (r#"{"ref":"feature","repository":null}"#, &watched(), false),
        (r#"{"repository":"team/fleet"}"#, &watched(), true),
        (r#"{"repository":"git@git.example.com:team/fleet.git","ref":"main"}"#, &watched(), true),
        (r#"{"repository":"team/other"}"#, &watched(), false),
        (r#"{"repository":"team/other","ref":"main"}"#, &watched(), false),
        (r#"{"repository":"whatever/it-is","ref":"main","after":"1"}"#, &directory, true),
    ] {
        let got = generic(body, watched);
        assert_eq!(matches!(got, Ok(Verdict::Ring(_))), rings, "{body}: {got:?}");
        assert!(got.is_ok(), "{body}: authentic and well-formed: {got:?}");
    }
    for body in ["null", "[1]", "{", r#"{"ref":7}"#, r#"{"repository":{"full_name":"x"}}"#] {
        assert!(matches!(generic(body, &watched()), Err(Refusal::Body(_))), "{body}");
    }
    let headers = headers(&[("X-Signature", &signed("{}")), ("Content-Type", "text/plain")]);
    assert_eq!(generic::read(&headers, b"{}", &secrets(), &watched(), NOW), Err(Refusal::ContentType));
}

proptest! {
    #[test]
    fn nothing_unsigned_is_believed_and_nothing_panics(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..400),
            Just(include_bytes!("payloads/gitlab-push.json").to_vec()),
            Just(include_bytes!("payloads/bitbucket-cloud-push.json").to_vec()),
            Just(include_bytes!("payloads/azure-push.json").to_vec()),
        ],
        proof in prop::collection::vec(32u8..127, 0..120),
        event in prop_oneof![Just("push"), Just("Push Hook"), Just("repo:push"), Just("diagnostics:ping"), Just("System Hook")],
        left_out in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        json in any::<bool>(),
    ) {
        let proofs = [
            "x-signature", "x-hub-signature", "x-hub-signature-256", "x-gitea-signature", "x-forgejo-signature", "x-gogs-signature",
            "x-gitlab-token", "webhook-signature", "webhook-id", "webhook-timestamp", "authorization", "x-gitamp-secret",
        ];
        let mut all = HeaderMap::new();
        for name in proofs {
            all.insert(name, HeaderValue::from_bytes(&proof).expect("visible characters"));
        }
        for name in ["x-github-event", "x-gitlab-event", "x-gitea-event", "x-event-key"] {
            all.insert(name, HeaderValue::from_static(event));
        }
        for index in left_out {
            all.remove(proofs[index.index(proofs.len())]);
        }
        if json {
            all.insert("content-type", HeaderValue::from_static("application/json"));
        }
        for dialect in Dialect::ALL {
            let got = dialect.read(&all, &body, &secrets(), &watched(), NOW);
            prop_assert!(
                matches!(got, Err(Refusal::Signature(_)) | Ok(Verdict::UnsignedPing)), "{dialect:?} believed it: {got:?}"
            );
            let _somebody = dialect.sender(&all);
        }
        // Authentic rubbish is refused or understood, whatever it holds.
        for dialect in Dialect::ALL {
            let got = read(dialect, Some(event), &String::from_utf8_lossy(&body));
            prop_assert!(!matches!(got, Err(Refusal::Signature(_))), "{dialect:?}: {got:?}");
        }
    }
}
