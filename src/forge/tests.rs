//! Deliveries good and bad against the readers of each dialect.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
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

fn push(reference: &str, repository: &str) -> String {
    format!(r#"{{"ref":"{reference}","before":"0","after":"1","repository":{repository},"commits":[{{"id":null}}]}}"#)
}

const OURS: &str = r#"{"id":1,"full_name":"Team/Fleet","clone_url":"https://git.example.com/Team/Fleet.git"}"#;

#[test]
fn the_published_vector() {
    let wanted = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(signed("Hello, World!"), wanted);
    let headers = headers(&[("X-Hub-Signature-256", wanted)]);
    assert_eq!(signature::verify(&headers, "x-hub-signature-256", b"Hello, World!", &secrets()), Ok(()));
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
        let got = signature::verify(&headers(&pairs), "x-signature", body.as_bytes(), &all);
        assert_eq!(got, Err(wanted), "{name}");
    }
    let of_other_body = headers(&[("x-signature", &good)]);
    let got = signature::verify(&of_other_body, "x-signature", b"Hello, World?", &secrets());
    assert_eq!(got, Err(SignatureError::Wrong), "the signature of another body");
    assert_eq!(
        signature::verify(&of_other_body, "x-signature", body.as_bytes(), &[]),
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
            (Ok(Verdict::Ring(shown)), true) | (Ok(Verdict::Ignored(shown)), false) => {
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

fn generic(body: &str, watched: &Watched) -> Result<Verdict, Refusal> {
    let headers = headers(&[("X-Signature", &signed(body)), ("Content-Type", "application/json")]);
    generic::read(&headers, body.as_bytes(), &secrets(), watched)
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
    assert_eq!(generic::read(&headers, b"{}", &secrets(), &watched()), Err(Refusal::ContentType));
}

proptest! {
    #[test]
    fn nothing_unsigned_is_believed_and_nothing_panics(
        body in prop::collection::vec(any::<u8>(), 0..400),
        signature in prop::collection::vec(32u8..127, 0..90),
        json in any::<bool>(),
    ) {
        let mut all = HeaderMap::new();
        for name in ["x-signature", "x-hub-signature-256"] {
            all.insert(name, HeaderValue::from_bytes(&signature).expect("visible characters"));
        }
        all.insert("x-github-event", HeaderValue::from_static("push"));
        if json {
            all.insert("content-type", HeaderValue::from_static("application/json"));
        }
        prop_assert!(matches!(github::read(&all, &body, &secrets(), &watched()), Err(Refusal::Signature(_))));
        prop_assert!(matches!(generic::read(&all, &body, &secrets(), &watched()), Err(Refusal::Signature(_))));
        // Signed rubbish is refused or understood, whatever it holds.
        let good = signature::sign(&Secret::new(KEY), &body).expect("a signature");
        for name in ["x-signature", "x-hub-signature-256"] {
            all.insert(name, HeaderValue::from_str(&good).expect("hexadecimal"));
        }
        let _github = github::read(&all, &body, &secrets(), &watched());
        let _generic = generic::read(&all, &body, &secrets(), &watched());
    }
}
