//! Webhooks that GitHub really sent, against our reading of them.
//!
//! `tests/interop/build.sh` fetches the package that has them. Without it this test says that it is skipped.

#[path = "interop/built.rs"]
mod built;

use gitamp::forge::hooks::signature::sign;
use gitamp::forge::hooks::{Dialect, Push, Refusal, Verdict, Watched};
use gitamp::settings::{Reference, RepoIdentity, Secret};
use gitamp::time::Timestamp;
use serde_json::Value;

const SERVERS: [&str; 6] = ["api.github.com", "ghes-31", "ghes-32", "ghes-33", "ghes-34", "ghes-35"];

fn headers(secret: &Secret, event: &str, body: &[u8]) -> axum::http::HeaderMap {
    let signature = sign(secret, body).expect("a signature");
    let mut headers = axum::http::HeaderMap::new();
    for (name, value) in
        [("content-type", "application/json"), ("x-github-event", event), ("x-hub-signature-256", &signature)]
    {
        headers.insert(name, value.parse().expect("a header"));
    }
    headers
}

fn read(event: &str, body: &[u8], watched: &Watched) -> Result<Verdict, Refusal> {
    let secret = Secret::new("hunter2");
    let headers = headers(&secret, event, body);
    Dialect::GitHub.read(&headers, body, &[secret], watched, Timestamp::from_millis(0))
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A push rings for its own repository and ref, and for no other.
fn push(server: &str, example: &Value) {
    let (body, full) = (example.to_string(), text(example, "/ref"));
    let reference = match full.strip_prefix("refs/tags/") {
        Some(tag) => Reference::TagPattern(tag.to_owned()),
        None => Reference::Branch(full.trim_start_matches("refs/heads/").to_owned()),
    };
    for address in ["/repository/clone_url", "/repository/ssh_url"] {
        let repository = RepoIdentity::of_url(text(example, address));
        assert!(repository.is_some(), "{server}: {address} of {body}");
        let watched = Watched { repository, reference: reference.clone() };
        let Ok(Verdict::Ring(Push { what, announced })) = read("push", body.as_bytes(), &watched) else {
            panic!("{server}: does not ring: {body}")
        };
        assert_eq!(what, full);
        let is_head = full.starts_with("refs/heads/") && example["deleted"] == false;
        let commit = announced.map(|head| head.commit.to_string());
        assert_eq!(commit.as_deref(), is_head.then(|| text(example, "/after")), "{server}: {full}");
        let other = Watched { reference: Reference::Branch("other".to_owned()), ..watched.clone() };
        assert!(matches!(read("push", body.as_bytes(), &other), Ok(Verdict::Ignored(_))), "{server}: another ref");
    }
    let elsewhere = Watched { repository: RepoIdentity::of_url("https://git.example.com/team/fleet"), reference };
    assert!(matches!(read("push", body.as_bytes(), &elsewhere), Ok(Verdict::Ignored(_))), "{server}: not ours");
}

#[test]
fn what_github_really_sent() {
    let Some(place) = built::find("payloads", "what_github_really_sent") else { return };
    let watched = Watched { repository: None, reference: Reference::Default };
    let (mut pushes, mut pings, mut others) = (0, 0, 0);
    for server in SERVERS {
        let index = std::fs::read(place.join(server).join("index.json")).expect("an index");
        let events: Vec<Value> = serde_json::from_slice(&index).expect("JSON");
        for event in &events {
            let name = text(event, "/name");
            for example in event["examples"].as_array().expect("examples") {
                let body = example.to_string();
                match name {
                    "push" => {
                        push(server, example);
                        pushes += 1;
                    }
                    "ping" => {
                        assert_eq!(read(name, body.as_bytes(), &watched), Ok(Verdict::Ping), "{server}");
                        pings += 1;
                    }
                    _ => {
                        let got = read(name, body.as_bytes(), &watched);
                        assert!(matches!(got, Ok(Verdict::Ignored(_))), "{server}: {name}: {got:?}");
                        others += 1;
                    }
                }
            }
        }
    }
    assert!(pushes >= 7 && pings >= 4 && others >= 100, "{pushes} pushes, {pings} pings, {others} others");
}
