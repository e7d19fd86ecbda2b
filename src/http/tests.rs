//! Requests over real connections: TLS with authorities of one's own, redirects, and answers without an end.

use std::net::SocketAddr;
use std::sync::Mutex;

use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/http/tests").join(name)
}

type Seen = Arc<Mutex<Vec<String>>>;

/// Answers every request with what `answer` makes of its head, and keeps the heads.
async fn serve(is_encrypted: bool, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(file("server.pem")).expect("a file").map(|one| one.expect("PEM")).collect();
    let key = PrivateKeyDer::from_pem_file(file("server-key.pem")).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if is_encrypted {
                if let Ok(stream) = acceptor.accept(stream).await {
                    converse(stream, &answer, &kept).await;
                }
            } else {
                converse(stream, &answer, &kept).await;
            }
        }
    });
    (address, seen)
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &impl Fn(&str) -> Vec<u8>, kept: &Seen) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let bytes = answer(&head);
    kept.lock().expect("not poisoned").push(head);
    // Whoever asked may have had enough.
    let _written = stream.write_all(&bytes).await;
    let _ended = stream.shutdown().await;
}

const DEADLINE: Duration = Duration::from_secs(20);

/// Bytes of an answer.
const LARGEST: usize = 1 << 20;

fn client() -> Client {
    Client::new(Some(&file("ca.pem")), DEADLINE, LARGEST, Proxies::default()).expect("a client")
}

fn get(scheme: &str, address: SocketAddr, path: &str) -> Request {
    Request {
        method: "GET",
        target: Url::parse(&format!("{scheme}://{address}/{path}")).expect("an address"),
        headers: vec![("accept", "application/json".to_owned())],
        secrets: vec![("authorization", Secret::new("Bearer hunter2"))],
        body: None,
    }
}

fn reply(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn an_authority_of_ones_own_is_believed_and_nobody_else() {
    let (address, seen) = serve(true, |_| reply("201 Created\r\nX-RateLimit-Remaining: 7", "{\"id\":1}")).await;
    let answer = client().send(&get("https", address, "api/v3/repos/team/fleet?page=2")).await.expect("an answer");
    assert_eq!((answer.status, answer.remaining.as_deref(), &answer.body[..]), (201, Some("7"), &b"{\"id\":1}"[..]));
    let heads = seen.lock().expect("not poisoned").clone();
    let head = heads[0].to_ascii_lowercase();
    assert!(head.starts_with("get /api/v3/repos/team/fleet?page=2 http/1.1\r\n"), "{head}");
    for header in
        [format!("host: {address}"), "user-agent: gitamp/".to_owned(), "authorization: bearer hunter2".to_owned()]
    {
        assert!(head.contains(&header), "{header} is missing in {head}");
    }

    let error = Client::new(Some(&file("server-key.pem")), DEADLINE, LARGEST, Proxies::default())
        .err()
        .expect("no certificate in it");
    assert!(error.to_string().contains("server-key.pem"), "{error}");

    let (stranger, asked) = serve(true, |_| reply("200 OK", "{}")).await;
    let system = Client::new(None, DEADLINE, LARGEST, Proxies::default()).expect("a client");
    let error =
        system.send(&get("https", stranger, "secret/path")).await.expect_err("an unknown authority").to_string();
    assert!(error.contains("certificate") && !error.contains("hunter2") && !error.contains("secret"), "{error}");
    assert!(asked.lock().expect("not poisoned").is_empty(), "nothing is said to a stranger");
}

#[tokio::test]
async fn redirects_are_followed_within_the_host_and_nowhere_else() {
    let (elsewhere, theirs) = serve(false, |_| reply("200 OK", "{}")).await;
    let away = format!("301 Moved\r\nLocation: http://{elsewhere}/x");
    let (address, ours) = serve(false, move |head| {
        if head.contains("/renamed") {
            reply("301 Moved\r\nLocation: /api/v3/repositories/7", "")
        } else if head.contains("/away") {
            reply(&away, "")
        } else if head.contains("/round") {
            reply("302 Found\r\nLocation: /api/v3/round", "")
        } else {
            reply("200 OK", "{}")
        }
    })
    .await;
    let client = client();
    let send = async |path: &str| {
        client.send(&get("http", address, &format!("api/v3/{path}"))).await.expect("an answer").status
    };
    assert_eq!(send("renamed").await, 200);
    assert!(ours.lock().expect("not poisoned").iter().any(|head| head.contains("/api/v3/repositories/7")));
    assert_eq!(send("away").await, 301, "another host is an answer, not a place to take a token to");
    assert!(theirs.lock().expect("not poisoned").is_empty());
    assert_eq!(send("round").await, 302, "and circles end");
}

#[tokio::test]
async fn a_forge_that_repeats_what_it_was_sent_is_not_quoted() {
    let said = "{\"message\":\"hunter2 is not ada's, neither is YWRhOmh1bnRlcjI=\"}";
    let head = format!("HTTP/1.1 401 No\r\nLocation: /hunter2\r\nContent-Length: {}\r\n\r\n", said.len());
    let (address, _) = serve(false, move |_| [head.as_bytes(), said.as_bytes()].concat()).await;
    let mut request = get("http", address, "x");
    request.secrets = vec![("authorization", Secret::new("Basic YWRhOmh1bnRlcjI="))];
    let answer = client().send(&request).await.expect("an answer");
    assert_eq!(&answer.body[..], b"{\"message\":\"*** is not ada's, neither is ***\"}");
    assert_eq!(answer.location.as_deref(), Some("/***"));
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let endless = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 9 << 20).into_bytes();
    let (large, _) = serve(false, move |_| [&endless[..], &vec![b'x'; 9 << 20]].concat()).await;
    let (cut, _) = serve(false, |_| b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort".to_vec()).await;
    let (noise, _) = serve(false, |_| b"SSH-2.0-OpenSSH\r\n".to_vec()).await;
    for (what, address) in [("too large", large), ("cut", cut), ("noise", noise)] {
        let outcome = client().send(&get("http", address, "x")).await;
        let error = outcome.expect_err(what).to_string();
        assert!(
            error.contains("127.0.0.1 gave no answer that can be read") && !error.contains("hunter2"),
            "{what}: {error}"
        );
    }
}

#[tokio::test]
async fn who_hangs_is_given_up_on_and_bodies_are_sent_as_json() {
    let (address, seen) = serve(false, |_| Vec::new()).await;
    let request = Request { method: "POST", body: Some(Bytes::from_static(b"{}")), ..get("http", address, "x") };
    let _broken = client().send(&request).await.expect_err("it says nothing");
    let head = seen.lock().expect("not poisoned")[0].to_ascii_lowercase();
    assert!(head.starts_with("post /x http/1.1") && head.contains("content-type: application/json"), "{head}");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let hasty = Client::new(None, Duration::from_millis(50), LARGEST, Proxies::default()).expect("a client");
    let address = silent.local_addr().expect("its address");
    let error = hasty.send(&get("http", address, "x")).await.expect_err("nobody answers");
    assert!(matches!(&error, ClientError::TooSlow { host, .. } if host == "127.0.0.1"), "{error}");
}

#[test]
fn no_time_to_wait_is_too_long_to_be_reckoned_with() {
    let asks = |text: &str| Answer { retry_after: Some(text.to_owned()), ..Answer::default() };
    for (text, seconds) in [("2", 3), ("7200", 3700), ("18446744073709551615", 3700)] {
        assert_eq!(pause(&asks(text), Timestamp::default()), Some(Duration::from_secs(seconds)), "{text}");
    }
    assert_eq!(pause(&asks("soon"), Timestamp::default()), None);
}

/// A client that goes through a proxy at this port of this machine.
fn through(proxy: SocketAddr) -> Client {
    Client::new(
        Some(&file("ca.pem")),
        DEADLINE,
        LARGEST,
        Proxies::through("127.0.0.1", proxy.port(), "Basic aHVudGVyMg=="),
    )
    .expect("a client")
}

fn beyond(scheme: &str) -> Request {
    let target = Url::parse(&format!("{scheme}://forge.example/x?y=1")).expect("an address");
    Request { target, ..get(scheme, SocketAddr::from(([127, 0, 0, 1], 1)), "x") }
}

#[tokio::test]
async fn a_proxy_leads_there_and_hears_no_more_than_it_must() {
    let (proxy, seen) = serve(false, |_| reply("200 OK", "{}")).await;
    let answer = through(proxy).send(&beyond("http")).await.expect("an answer");
    assert_eq!(answer.status, 200);
    let head = seen.lock().expect("not poisoned")[0].to_ascii_lowercase();
    for line in
        ["get http://forge.example/x?y=1 http/1.1", "host: forge.example", "proxy-authorization: basic ahvudgvymg=="]
    {
        assert!(head.contains(line), "{line} is missing in {head}");
    }

    // What is encrypted is so from end to end: behind the proxy is a server that proves to be somebody else.
    let (server, served) = serve(true, |_| reply("200 OK", "{}")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let proxy = listener.local_addr().expect("its address");
    let carries = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(near.read_u8().await.expect("a request"));
        }
        near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("it listens");
        let mut far = TcpStream::connect(server).await.expect("the server");
        // It ends when either does.
        let _carried = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        String::from_utf8(head).expect("text")
    });
    let error = through(proxy).send(&beyond("https")).await.expect_err("a certificate for another name").to_string();
    assert!(error.contains("forge.example") && error.contains("certificate"), "{error}");
    let head = carries.await.expect("the proxy ends");
    assert!(head.starts_with("CONNECT forge.example:443 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic aHVudGVyMg==") && !head.contains("hunter2"), "{head}");
    assert!(served.lock().expect("not poisoned").is_empty(), "nothing is said to a stranger");

    for (answer, words) in [
        ("HTTP/1.1 407 Who?\r\n\r\n", "(407)"),
        ("HTTP/1.1 503 No\r\n\r\n", "does not lead there (503)"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
    ] {
        let (proxy, _) = serve(false, move |_| answer.as_bytes().to_vec()).await;
        let error = through(proxy).send(&beyond("https")).await.expect_err(words).to_string();
        assert!(error.contains(words) && error.contains("through the proxy 127.0.0.1"), "{error}");
        assert!(!error.contains("aHVudGVyMg"), "{error}");
    }
    let (proxy, _) = serve(false, |_| vec![b'x'; 100_000]).await;
    let error = through(proxy).send(&beyond("https")).await.expect_err("no end").to_string();
    assert!(error.contains("has no end"), "{error}");
}
