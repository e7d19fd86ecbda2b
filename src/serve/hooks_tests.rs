//! Hooks over HTTP: what rings, what is ignored, and what is turned away before anything is computed.

use axum::http::Request;
use futures_util::FutureExt;
use tower::ServiceExt;

use super::*;
use crate::forge::hooks::signature::sign;
use crate::serve::yielding::SAFE;
use crate::settings::{Reference, SecretFile};

const PUSH: &str = r#"{"ref": "refs/heads/main", "after": "0123456789012345678901234567890123456789", "repository": {"full_name": "ops/fleet"}}"#;

/// The routes, with a file of secrets that stays as long as this does.
struct House {
    router: Router,
    bell: Bell,
    hints: Hints,
    file: tempfile::NamedTempFile,
}

impl House {
    fn new() -> Self {
        Self::within(HookLimits::default())
    }

    fn within(limits: HookLimits) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), format!("{SECRET}\n")).expect("a secret");
        let (bell, hints) = (Bell::default(), Hints::default());
        let hooks = Hooks {
            secrets: HookSecrets::read(SecretFile::new(file.path())).expect("a secret"),
            watched: Watched { repository: None, reference: Reference::Branch("main".to_owned()) },
            bell: bell.clone(),
            hints: hints.clone(),
            clock: Clock::start(),
            metrics: Arc::default(),
            limits,
        };
        Self { router: router(hooks), bell, hints, file }
    }

    async fn status(&self, request: Request<Body>) -> u16 {
        self.router.clone().oneshot(request).await.expect("an answer").status().as_u16()
    }
}

const SECRET: &str = "It's a Secret to Everybody";

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
    let house = House::new();
    let secret = Secret::new(SECRET);
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
        ("/hooks/gitlab", vec![("x-gitlab-event", "Push Hook")], PUSH, 401, false, "GitLab without a token"),
        ("/hooks/nowhere", vec![], PUSH, 404, false, "no such route"),
    ] {
        assert_eq!(house.status(delivery(path, &headers, body.to_owned())).await, code, "{why}");
        assert_eq!(rang(&house.bell).await, rings, "{why}");
    }
}

#[tokio::test]
async fn what_hooks_say_is_kept_for_status_and_follower() {
    let house = House::new();
    let signed = |body: &str| sign(&Secret::new(SECRET), body.as_bytes()).expect("a signature");
    let push = ("x-github-event", "push");
    assert_eq!(house.status(delivery("/hooks/github", &[push], PUSH)).await, 401);
    let ping = [("x-event-key", "diagnostics:ping")];
    assert_eq!(house.status(delivery("/hooks/bitbucket", &ping, "{}")).await, 200);
    assert_eq!((house.hints.last(), house.hints.last_push()), (None, None), "nobody has proved anything yet");

    let ours = signed(PUSH);
    let other = PUSH.replace("heads/main", "heads/feature");
    let others = signed(&other);
    let gitea = ("x-gitea-event", "push");
    let deliveries = [
        (vec![push, ("x-hub-signature-256", others.as_str())], other.as_str(), "GitHub", "ignored: ", false),
        (vec![push, gitea, ("x-hub-signature-256", ours.as_str())], PUSH, "Gitea", "a push to refs/heads/main", true),
    ];
    for (headers, body, forge, about, is_push) in deliveries {
        assert_eq!(house.status(delivery("/hooks/github", &headers, body.to_owned())).await, 202);
        let last = house.hints.last().expect("one came");
        assert_eq!((last.forge.as_str(), last.about.starts_with(about)), (forge, true), "{last:?}");
        assert_eq!(house.hints.last_push().is_some(), is_push, "{forge}");
    }
    let announced = house.hints.take_announced().expect("a head was named");
    let named = (announced.branch.as_str(), announced.commit.to_string());
    assert_eq!(named, ("main", "0123456789012345678901234567890123456789".to_owned()));
}

#[tokio::test]
async fn secrets_are_renewed_in_their_file() {
    let house = House::new();
    let send = async |secret: &str| {
        let body = r#"{"ref": "refs/heads/main"}"#;
        let signature = sign(&Secret::new(secret), body.as_bytes()).expect("a signature");
        house.status(delivery("/hooks/generic", &[("x-signature", &signature)], body)).await
    };
    let write = |content: &str| std::fs::write(house.file.path(), content).expect("writing");
    assert_eq!((send(SECRET).await, send("new").await), (202, 401));
    write(&format!("{SECRET}\nnew\n"));
    assert_eq!((send(SECRET).await, send("new").await), (202, 202), "both, while one replaces the other");
    write("new\n");
    assert_eq!((send(SECRET).await, send("new").await), (401, 202));
    for broken in ["", "\n \n", "whsec_!"] {
        write(broken);
        assert_eq!((send("new").await, send("wrong").await), (202, 401), "{broken:?}: those of before hold");
    }
    std::fs::remove_file(house.file.path()).expect("removable");
    assert_eq!(send("new").await, 202, "the file is gone for a moment");
}

#[tokio::test]
async fn bodies_end_at_the_limit() {
    let house = House::new();
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65_536])));
    let request = delivery("/hooks/generic", &[("x-signature", "sha256=00")], Body::from_stream(endless));
    assert_eq!(house.status(request).await, 413, "an endless body is not read to its end");
    assert!(!rang(&house.bell).await);
}

/// A delivery from this address.
fn from(last: u8, signature: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = delivery("/hooks/generic", &[("x-signature", signature)], body);
    request.extensions_mut().insert(Origin::of([192, 0, 2, last].into()));
    request
}

/// One without a signature that counts, whose body never comes.
fn slow(last: u8) -> Request<Body> {
    from(last, "sha256=00", Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>()))
}

const SAID: &str = r#"{"ref": "refs/heads/main"}"#;

/// A forge's, the halves of whose body come after so long each.
fn signed(last: u8, pause: Duration) -> Request<Body> {
    let halves = futures_util::stream::iter([&SAID[..9], &SAID[9..]]);
    let body = futures_util::StreamExt::then(halves, move |half| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, std::io::Error>(half)
    });
    let signature = sign(&Secret::new(SECRET), SAID.as_bytes()).expect("a signature");
    from(last, &signature, Body::from_stream(body))
}

#[tokio::test(start_paused = true)]
async fn slow_bodies_keep_nobody_out_not_even_behind_the_same_address() {
    let house = House::new();
    let mut held: Vec<_> = (0..4).map(|_| Box::pin(house.status(slow(1)))).collect();
    assert!(held.iter_mut().all(|one| one.as_mut().now_or_never().is_none()), "four are read");
    assert_eq!(house.status(slow(1)).await, 503, "the others came just now");
    assert_eq!(house.status(from(2, "sha256=00", "{}")).await, 401, "another address is heard");
    tokio::time::advance(SAFE).await;
    assert_eq!(house.status(signed(1, Duration::ZERO)).await, 202, "as is a forge behind the same proxy");
    assert_eq!(held[0].as_mut().now_or_never(), Some(503), "the one that had taken longest made way for it");
    assert!(held[1..].iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_forge_that_takes_a_while_is_heard_beside_quick_ones_at_its_address() {
    let house = House::new();
    let forge = house.status(signed(1, Duration::from_millis(450)));
    let strangers = futures_util::future::join_all((0..90).map(|number| {
        let house = &house;
        async move {
            tokio::time::sleep(Duration::from_millis(10 * number)).await;
            house.status(slow(1)).await
        }
    }));
    let (status, strangers) = tokio::join!(forge, strangers);
    assert_eq!(status, 202, "{strangers:?}");
    assert!(strangers[3..].iter().all(|status| *status == 503), "nobody makes way for them: {strangers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_forge_does_not_drive_out_itself() {
    let house = House::new();
    let pushes = (0..50).map(|_| house.status(signed(1, Duration::from_millis(100))));
    let statuses = futures_util::future::join_all(pushes).await;
    assert_eq!(statuses, [vec![202; 4], vec![503; 46]].concat());
    assert_eq!(house.status(signed(1, Duration::from_secs(3))).await, 202, "who is alone may take its time");
}

#[tokio::test(start_paused = true)]
async fn who_made_way_proved_nothing_and_who_proved_nothing_drives_out_nobody() {
    let house = House::within(HookLimits { body: 4 << 10, a_minute: Some(1) });
    let mut held: Vec<_> = (0..4).map(|_| Box::pin(house.status(slow(1)))).collect();
    assert!(held.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
    tokio::time::advance(SAFE).await;
    assert_eq!(house.status(signed(1, Duration::ZERO)).await, 202);
    assert_eq!(held.remove(0).await, 503, "it is not counted");
    assert_eq!(house.status(from(1, "sha256=00", "{}")).await, 401, "this one is, and it is the only one in a minute");
    held.push(Box::pin(house.status(slow(1))));
    assert_eq!(held[3].as_mut().now_or_never(), None, "there is a place");
    tokio::time::advance(SAFE).await;
    assert_eq!(house.status(signed(1, Duration::ZERO)).await, 503, "nobody there makes way any more");
    assert!(held.iter_mut().all(|one| one.as_mut().now_or_never().is_none()), "they are still read");
    let mut others: Vec<_> = (0..12).map(|last| Box::pin(house.status(slow(10 + last)))).collect();
    assert!(others.iter_mut().all(|one| one.as_mut().now_or_never().is_none()), "all places are taken");
    assert_eq!(
        house.status(signed(2, Duration::ZERO)).await,
        202,
        "of those who have the most one makes way for others"
    );
    assert_eq!(held[0].as_mut().now_or_never(), Some(503));
}

#[test]
fn who_is_whole_keeps_its_place_until_the_answer() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let house = House::new();
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || released.blocking_recv().is_err());
        let signature = sign(&Secret::new(SECRET), SAID.as_bytes()).expect("a signature");
        let mut whole: Vec<_> = (0..4).map(|_| Box::pin(house.status(from(1, &signature, SAID)))).collect();
        assert!(whole.iter_mut().all(|one| one.as_mut().now_or_never().is_none()), "the secrets cannot be read now");
        tokio::time::advance(SAFE).await;
        let another = Box::pin(house.status(from(1, &signature, SAID))).now_or_never();
        assert_eq!(another, Some(503), "four bodies are held, and nobody makes way");
        drop(release);
        assert!(busy.await.expect("an end"));
        for one in whole {
            assert_eq!(one.await, 202);
        }
        assert_eq!(house.status(from(1, &signature, SAID)).await, 202, "the places are given back");
    });
}

#[tokio::test]
async fn deliveries_that_prove_nothing_are_counted_by_the_minute_and_a_forge_beside_them_is_heard() {
    let house = House::within(HookLimits { body: 4 << 10, a_minute: Some(1) });
    let from = async |last: u8, path: &str, headers: &[(&str, &str)], body: &str| {
        let mut request = delivery(path, headers, body.to_owned());
        request.extensions_mut().insert(Origin::of([192, 0, 2, last].into()));
        house.status(request).await
    };
    let said = r#"{"ref": "refs/heads/main"}"#;
    let signature = sign(&Secret::new(SECRET), said.as_bytes()).expect("a signature");
    let (signed, unsigned) = ([("x-signature", signature.as_str())], [("x-signature", "sha256=00")]);
    for _ in 0..3 {
        assert_eq!(from(1, "/hooks/generic", &signed, said).await, 202, "what is signed uses up nothing");
    }
    assert_eq!(from(1, "/hooks/generic", &unsigned, said).await, 401);
    let ping = [("x-event-key", "diagnostics:ping")];
    for (path, headers, body, why) in [
        ("/hooks/generic", unsigned.as_slice(), said, "another one that is not signed"),
        ("/hooks/bitbucket", &ping, "{}", "a ping that proves nothing"),
        ("/hooks/generic", &signed, " ".repeat(5 << 10).as_str(), "a body that is not read"),
    ] {
        assert_eq!(from(1, path, headers, body).await, 429, "{why}");
    }
    assert_eq!(from(1, "/hooks/generic", &signed, said).await, 202, "a forge that has the same address is heard");
    assert_eq!(from(2, "/hooks/generic", &unsigned, said).await, 401, "another address has its own");
}
