//! The forges' words, and what their answers mean.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::forge::outbound::credentials::{self, InstallationToken};
use crate::forge::outbound::dialect::{Kind, Project, Verdict, judge};
use crate::forge::outbound::statuses::{State, Status};
use crate::http::{Answer, pause};
use crate::settings::SecretFile;

fn project(kind: Kind) -> Project {
    let name = if kind == Kind::GitLab { "team/sub/fleet" } else { "team/fleet" };
    Project { kind, name: name.to_owned() }
}

fn status(state: State) -> Status {
    Status {
        commit: commit(0xab),
        reference: "main".to_owned(),
        context: "gitamp/default/prod/gateways/of-the-whole-company".to_owned(),
        state,
        description: "stage canary".to_owned(),
        target_url: None,
    }
}

#[test]
fn statuses_go_where_each_forge_wants_them() {
    let sha = "ab".repeat(20);
    let context = "gitamp/default/prod/gateways/of-the-whole-company";
    for (kind, path, body) in [
        (
            Kind::GitHub,
            format!("repos/team/fleet/statuses/{sha}"),
            json!({"state": "pending", "context": context, "description": "stage canary"}),
        ),
        (
            Kind::Gitea,
            format!("repos/team/fleet/statuses/{sha}"),
            json!({"state": "pending", "context": context, "description": "stage canary"}),
        ),
        (
            Kind::GitLab,
            format!("projects/team%2Fsub%2Ffleet/statuses/{sha}"),
            json!({"state": "running", "name": context, "description": "stage canary", "ref": "main"}),
        ),
        (
            Kind::Bitbucket,
            format!("repositories/team/fleet/commit/{sha}/statuses/build"),
            json!({
                "state": "INPROGRESS", "key": "gitamp-b6d0e0fffa8b39d3ff6d9f5ac7ee2a6c", "name": context, "description": "stage canary",
                "url": format!("https://bitbucket.org/team/fleet/commits/{sha}")
            }),
        ),
    ] {
        let call = project(kind).post_status(&status(State::Running));
        let mut sent = call.body.expect("a body");
        if kind == Kind::Bitbucket {
            let key = sent["key"].as_str().expect("a key").to_owned();
            assert!(key.len() <= 40 && key.starts_with("gitamp-"), "{key}");
            let other = Status { context: format!("{context}x"), ..status(State::Running) };
            let other = project(kind).post_status(&other).body.expect("a body");
            assert_ne!(other["key"], sent["key"], "long contexts stay different");
            sent["key"] = body["key"].clone();
            let short = Status { context: "gitamp/default".to_owned(), ..status(State::Running) };
            assert_eq!(project(kind).post_status(&short).body.expect("a body")["key"], "gitamp/default");
        }
        assert_eq!((call.path, sent), (path, body), "{kind}");
        let with_url = Status { target_url: Some("https://x/".to_owned()), ..status(State::Running) };
        let sent = project(kind).post_status(&with_url).body.expect("a body");
        assert_eq!(sent[if kind == Kind::Bitbucket { "url" } else { "target_url" }], "https://x/", "{kind}");
    }
    for (kind, words) in [
        (Kind::GitHub, ["pending", "pending", "success", "failure", "error"]),
        (Kind::Gitea, ["pending", "pending", "success", "failure", "warning"]),
        (Kind::GitLab, ["pending", "running", "success", "failed", "canceled"]),
        (Kind::Bitbucket, ["INPROGRESS", "INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"]),
    ] {
        let states = [State::Waiting, State::Running, State::Success, State::Failure, State::Stopped];
        let said = states.map(|state| project(kind).post_status(&status(state)).body.expect("a body")["state"].clone());
        assert_eq!(said, words, "{kind}");
    }
}

#[test]
fn answers_are_understood() {
    let answer = |status: u16, body: &str| Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() };
    let transition = r#"{"message":"Cannot transition status via :enqueue from :pending (Reason(s): Status cannot transition via \"enqueue\")"}"#;
    let limited = Answer {
        remaining: Some("0".to_owned()),
        reset: Some((NOW.as_millis() / 1000 + 90).to_string()),
        ..answer(403, "{}")
    };
    let asked = Answer { retry_after: Some("30".to_owned()), ..answer(429, "") };
    let dated = Answer { retry_after: Some("Fri, 15 Jan 2027 08:00:20 GMT".to_owned()), ..answer(429, "") };
    let later = |seconds: u64| Verdict::Later(Duration::from_secs(seconds));
    let secondary = r#"{"message":"You have exceeded a secondary rate limit. Please wait a few minutes"}"#;
    for (kind, answer, wanted) in [
        (Kind::GitHub, answer(201, "{}"), Verdict::Done),
        (Kind::GitLab, answer(400, transition), Verdict::Done),
        (Kind::GitHub, limited, later(91)),
        (Kind::GitHub, asked, later(31)),
        (Kind::GitHub, dated, later(21)),
        (Kind::GitHub, answer(403, secondary), later(60)),
        (Kind::GitLab, answer(429, ""), later(60)),
        (Kind::Gitea, Answer { retry_after: Some("99999".to_owned()), ..answer(503, "") }, later(3700)),
    ] {
        assert_eq!(judge(kind, &answer, NOW), wanted, "{kind}: {answer:?}");
    }
}

#[test]
fn what_goes_wrong_is_told_apart() {
    let answer = |status: u16, body: &str| Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() };
    let moved = Answer { location: Some("https://evil.example.com/\u{1b}[2J".to_owned()), ..answer(301, "") };
    for (kind, answer, wanted, words) in [
        (
            Kind::GitHub,
            answer(401, r#"{"message":"Bad credentials"}"#),
            "Denied",
            "does not accept the token (401): Bad credentials",
        ),
        (Kind::GitHub, answer(403, r#"{"message":"Resource not accessible by integration"}"#), "Denied", "not allowed"),
        (Kind::GitHub, answer(404, r#"{"message":"Not Found"}"#), "Denied", "no such repository"),
        (Kind::GitLab, answer(404, r#"{"message":"404 Project Not Found"}"#), "Denied", "404 Project Not Found"),
        (Kind::GitLab, answer(404, r#"{"message":"404 Commit Not Found"}"#), "Refused", "404 Commit Not Found"),
        (Kind::GitHub, answer(422, r#"{"message":"No commit found for SHA: abab"}"#), "Refused", "No commit found"),
        (
            Kind::GitHub,
            answer(422, r#"{"message":"Validation Failed","errors":[{"message":"too many statuses"}]}"#),
            "Refused",
            "too many statuses",
        ),
        (
            Kind::Bitbucket,
            answer(400, r#"{"type":"error","error":{"message":"Bad request"}}"#),
            "Refused",
            "Bad request",
        ),
        (Kind::GitLab, answer(400, r#"{"message":{"name":["is too long"]}}"#), "Refused", "is too long"),
        (
            Kind::GitLab,
            answer(409, r#"{"message":"Another update to this commit status is in progress"}"#),
            "Transient",
            "in progress",
        ),
        (Kind::Gitea, answer(502, "<html>"), "Transient", "(502)"),
        (Kind::GitHub, moved, "Denied", "sends us to https://evil.example.com/ [2J:"),
    ] {
        let said = format!("{:?}", judge(kind, &answer, NOW));
        assert!(said.starts_with(wanted) && said.contains(words), "{kind}: {said}");
    }
    let last = Answer {
        remaining: Some("0".to_owned()),
        reset: Some((NOW.as_millis() / 1000 + 5).to_string()),
        ..answer(201, "")
    };
    assert_eq!(
        pause(&last, NOW),
        Some(Duration::from_secs(6)),
        "the last one that went well says when the next may go"
    );
    assert_eq!(pause(&Answer { remaining: Some("10".to_owned()), ..last }, NOW), None);
}

/// Makes a file that is for its owner alone.
fn own(file: &SecretFile) {
    use std::os::unix::fs::OpenOptionsExt;
    let made = std::fs::File::options().create_new(true).write(true).mode(0o600).open(file.path());
    made.map(drop).expect("a file");
}

#[test]
fn each_forge_has_its_header() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = SecretFile::new(directory.path().join("token"));
    own(&file);
    std::fs::write(file.path(), "t0k\n").expect("written");
    let header = |kind, user| {
        let (name, value) = credentials::with_token(kind, &file, user).expect("a header");
        format!("{name}: {}", value.expose())
    };
    assert_eq!(header(Kind::GitHub, None), "authorization: Bearer t0k");
    assert_eq!(header(Kind::GitLab, None), "private-token: t0k");
    assert_eq!(header(Kind::Gitea, None), "authorization: token t0k");
    assert_eq!(header(Kind::Bitbucket, None), "authorization: Bearer t0k");
    assert_eq!(header(Kind::Bitbucket, Some("ada")), "authorization: Basic YWRhOnQwaw==");
    std::fs::write(file.path(), "new\n").expect("written");
    assert_eq!(header(Kind::GitHub, None), "authorization: Bearer new", "it is read at each use");
    std::fs::write(file.path(), "a\r\nX-Evil: 1").expect("written");
    let error = credentials::with_token(Kind::GitHub, &file, None).expect_err("two lines").to_string();
    assert!(error.contains("characters that no token has") && !error.contains("Evil"), "{error}");
}

/// A key that exists for this test alone (PKCS#1, 2048 bits), as GitHub hands them out.
const KEY: &str = include_str!("tls/app-key.pem");

#[test]
fn an_app_proves_who_it_is() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use rustls::pki_types::PrivatePkcs1KeyDer;
    use rustls::pki_types::pem::PemObject;

    let directory = tempfile::tempdir().expect("a directory");
    let file = SecretFile::new(directory.path().join("key.pem"));
    own(&file);
    std::fs::write(file.path(), KEY).expect("written");
    let jwt = credentials::app_jwt("12345", &file, NOW).expect("a proof");
    let parts: Vec<&str> = jwt.expose().split('.').collect();
    let json = |part: &str| -> serde_json::Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
    };
    assert_eq!(json(parts[0]), json!({"alg": "RS256", "typ": "JWT"}));
    let now = NOW.as_millis() / 1000;
    assert_eq!(json(parts[1]), json!({"iss": "12345", "iat": now - 60, "exp": now + 480}), "at most ten minutes");
    let der = PrivatePkcs1KeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
    let pair = ring::signature::RsaKeyPair::from_der(der.secret_pkcs1_der()).expect("a key");
    let public: ring::signature::RsaPublicKeyComponents<Vec<u8>> = pair.public().into();
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).expect("base64");
    let signed = format!("{}.{}", parts[0], parts[1]);
    let algorithm = &ring::signature::RSA_PKCS1_2048_8192_SHA256;
    public.verify(algorithm, signed.as_bytes(), &signature).expect("its public key agrees");

    std::fs::write(file.path(), "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n")
        .expect("written");
    let error = credentials::app_jwt("1", &file, NOW).expect_err("no key").to_string();
    assert!(error.contains("no RSA private key"), "{error}");

    let token =
        InstallationToken::read(br#"{"token":"ghs_x","expires_at":"2027-01-15T09:00:00Z"}"#, NOW).expect("a token");
    assert!(token.is_fresh(NOW) && token.is_fresh(NOW + Duration::from_secs(54 * 60)));
    assert!(!token.is_fresh(NOW + Duration::from_secs(56 * 60)), "a new one is asked for in time");
    assert!(InstallationToken::read(b"{}", NOW).is_none());
}
