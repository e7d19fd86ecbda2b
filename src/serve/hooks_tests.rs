//! Hooks over HTTP: what rings, what is ignored, and what is turned away before anything is computed.

use axum::http::Request;
use tower::ServiceExt;

use super::*;
use crate::forge::signature::sign;
use crate::settings::Reference;

const PUSH: &str = r#"{"ref": "refs/heads/main", "after": "0123456789012345678901234567890123456789", "repository": {"full_name": "ops/fleet"}}"#;

fn hooks() -> (Router, Bell, Secret) {
    let (bell, secret) = (Bell::default(), Secret::new("It's a Secret to Everybody"));
    let watched = Watched { repository: None, reference: Reference::Branch("main".to_owned()) };
    let hooks = Hooks { secrets: vec![secret.clone()], watched, bell: bell.clone(), metrics: Arc::default() };
    (router(hooks), bell, secret)
}

fn delivery(path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::post(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).expect("a request")
}

async fn rang(bell: &Bell) -> bool {
    tokio::time::timeout(Duration::from_millis(20), bell.wait()).await.is_ok()
}

#[tokio::test]
async fn only_signed_pushes_to_what_is_followed_ring() {
    let (router, bell, secret) = hooks();
    let good = sign(&secret, PUSH.as_bytes()).expect("a signature");
    let other = PUSH.replace("heads/main", "heads/feature");
    let other_signature = sign(&secret, other.as_bytes()).expect("a signature");
    let push = ("x-github-event", "push");
    let said = r#"{"ref": "refs/heads/main"}"#;
    let said_signature = sign(&secret, said.as_bytes()).expect("a signature");
    for (path, headers, body, code, rings, why) in [
        ("/hooks/github", vec![push, ("x-hub-signature-256", good.as_str())], PUSH, 202, true, "a signed push"),
        ("/hooks/generic", vec![("x-signature", said_signature.as_str())], said, 202, true, "the generic form"),
        (
            "/hooks/github",
            vec![push, ("x-hub-signature-256", other_signature.as_str())],
            &other,
            202,
            false,
            "a branch",
        ),
        ("/hooks/github", vec![push, ("x-hub-signature-256", good.as_str())], &other, 401, false, "signed for another"),
        ("/hooks/github", vec![push, ("x-hub-signature-256", "sha256=")], PUSH, 401, false, "an empty signature"),
        ("/hooks/github", vec![push], PUSH, 401, false, "no signature"),
        ("/hooks/gitea", vec![], PUSH, 404, false, "no such route"),
    ] {
        let response = router.clone().oneshot(delivery(path, &headers, body.to_owned())).await.expect("an answer");
        assert_eq!(response.status().as_u16(), code, "{why}");
        assert_eq!(rang(&bell).await, rings, "{why}");
    }
}

#[tokio::test]
async fn bodies_end_at_the_limit() {
    let (router, bell, _) = hooks();
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65_536])));
    let response = router
        .oneshot(delivery("/hooks/generic", &[("x-signature", "sha256=00")], Body::from_stream(endless)))
        .await
        .expect("an answer");
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE, "an endless body is not read to its end");
    assert!(!rang(&bell).await);
}
