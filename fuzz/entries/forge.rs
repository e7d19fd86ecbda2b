//! What forges and receivers of alerts say: deliveries of hooks, and answers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use gitamp::alert::post::{Post, Taken, Trouble};
use gitamp::fleet::snapshot::CommitId;
use gitamp::forge::hooks::signature::sign;
use gitamp::forge::hooks::{Dialect, Refusal, Verdict, Watched};
use gitamp::forge::outbound::credentials::InstallationToken;
use gitamp::forge::outbound::dialect::{Project, judge};
use gitamp::http::{Answer, pause};
use gitamp::settings::alerts::{Address, Least, Receiver, ReceiverKind, parse_url};
use gitamp::settings::forge::Kind;
use gitamp::settings::proxy::Proxies;
use gitamp::settings::{Reference, RepoIdentity, Secret};
use tokio::runtime::Runtime;

use super::{NOON, is_harmless, was_harmless};

/// A delivery: a line with the dialect's number, headers up to an empty line, and the body; as it is, and with a signature that is good.
pub fn hooks(input: &[u8]) {
    let Some((number, rest)) = input.split_first() else { return };
    let dialect = Dialect::ALL[usize::from(*number) % Dialect::ALL.len()];
    let end = rest.windows(2).position(|two| two == b"\n\n").unwrap_or(rest.len());
    let (head, body) = rest.split_at(end);
    let body = body.get(2..).unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n').take(40) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(line[..at].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[at + 1..].trim_ascii())) {
            headers.insert(name, value);
        }
    }
    let secret = Secret::new("a secret that nobody has who writes this");
    let watched = Watched {
        repository: RepoIdentity::of_url("https://git.example.com/team/fleet.git"),
        reference: Reference::Branch("main".to_owned()),
    };
    let _sender = dialect.sender(&headers);
    let read = |headers: &HeaderMap| dialect.read(headers, body, std::slice::from_ref(&secret), &watched, NOON);
    let got = read(&headers);
    assert!(matches!(got, Err(Refusal::Signature(_)) | Ok(Verdict::UnsignedPing)), "{dialect:?} believed it: {got:?}");
    let proofs = [
        ("x-hub-signature-256", sign(&secret, body)),
        ("x-hub-signature", sign(&secret, body)),
        ("x-signature", sign(&secret, body)),
        ("x-gitea-signature", sign(&secret, body).and_then(|proof| proof.strip_prefix("sha256=").map(str::to_owned))),
        ("x-gitlab-token", Some(secret.expose().to_owned())),
        ("x-gitamp-secret", Some(secret.expose().to_owned())),
    ];
    for (name, proof) in proofs {
        if let Some(value) = proof.and_then(|proof| HeaderValue::from_str(&proof).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let _verdict = read(&headers);
}

/// What a forge answers, to every question that there is: a status, headers a line, an empty line, the body. What is told of it is one line
/// that people can look at, and no wait is without end.
pub fn forge_answers(input: &[u8]) {
    let end = input.windows(2).position(|two| two == b"\n\n").unwrap_or(input.len());
    let (head, body) = input.split_at(end);
    let body = body.get(2..).unwrap_or_default().to_vec();
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.parse().ok()).unwrap_or(200);
    let headers: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once(": ")).collect();
    let header = |name: &str| headers.get(name).map(|value| (*value).to_owned());
    let answer = Answer {
        status,
        retry_after: header("retry-after"),
        remaining: header("remaining"),
        reset: header("reset"),
        location: header("location"),
        body,
    };
    assert!(pause(&answer, NOON).is_none_or(|wait| wait <= Duration::from_secs(86_400)), "{answer:?}");
    let body = &answer.body;
    for kind in [Kind::GitHub, Kind::GitLab, Kind::Gitea, Kind::Bitbucket] {
        let verdict = format!("{:?}", judge(kind, &answer, NOON));
        assert!(was_harmless(&verdict) && verdict.len() < 4_096, "{verdict}");
        let project = Project { kind, name: "team/fleet".to_owned() };
        let _numbers =
            (project.read_merged(CommitId([1; 20]), body), project.read_comment("<!-- a", body), project.read_id(body));
        for address in [project.read_pull_from("revert-1", body), Some(project.read_opened(body))].into_iter().flatten()
        {
            assert!(is_harmless(&address) && address.chars().count() <= 500, "{address:?}");
        }
    }
    let _token = InstallationToken::read(body, NOON).map(|token| token.is_fresh(NOON));
}

/// What the server below says to whoever asks.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// A server on a port of this machine, for as long as the process lives: it reads a request, says the answer, and closes.
static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that has heard enough hangs up.
            let _answered = answer(stream);
        }
    });
    address
});

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(said) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = said.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let said = ANSWER.lock().unwrap_or_else(PoisonError::into_inner).clone();
    stream.write_all(&said)?;
    stream.shutdown(Shutdown::Write)
}

thread_local! {
    /// One receiver of each kind, all of them at that server, and what messages are sent by.
    static RECEIVERS: RefCell<(Runtime, Vec<Post>)> = {
        let url = parse_url(&format!("http://{}/", *SERVER)).expect("an address");
        let post = |kind| {
            Post::new(Receiver {
                name: "ops".to_owned(),
                kind,
                address: Address::Said(url.clone()),
                secret: None,
                token: None,
                ca_file: None,
                least: Least::Warning,
                groups: Vec::new(),
                fleet: true,
                proxies: Proxies::default(),
                largest_answer: 1 << 16,
            })
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        RefCell::new((runtime, ReceiverKind::ALL.map(post).into()))
    };
}

/// What a receiver of alerts answers, byte by byte, behind one byte with its kind: there is an end, and what is told of it is one short line.
pub fn http_answers(input: &[u8]) {
    let Some((kind, said)) = input.split_first() else { return };
    said.clone_into(&mut ANSWER.lock().unwrap_or_else(PoisonError::into_inner));
    let outcome = RECEIVERS.with_borrow_mut(|(runtime, posts)| {
        let number = usize::from(*kind) % posts.len();
        runtime.block_on(posts[number].test("default", NOON))
    });
    match outcome {
        Ok(Taken { status: 200..=299, said }) => assert!(is_harmless(&said) && said.chars().count() <= 201, "{said:?}"),
        Ok(taken) => panic!("{taken:?} was not taken"),
        Err(Trouble::Later(wait)) => assert!(wait <= Duration::from_secs(3_700), "{wait:?}"),
        Err(Trouble::Failed(why) | Trouble::Doubtful(why) | Trouble::Refused(why)) => {
            assert!(is_harmless(&why) && why.chars().count() <= 600, "{why:?}");
        }
    }
}
