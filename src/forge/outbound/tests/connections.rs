//! Requests over real connections: TLS with authorities of one's own, redirects, and answers without an end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use url::Url;

use crate::forge::outbound::client::Client;
use crate::forge::outbound::dialect::{Call, Kind};
use crate::settings::Secret;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/forge/outbound/tests/tls").join(name)
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

fn client(scheme: &str, address: SocketAddr) -> Client {
    let api = Url::parse(&format!("{scheme}://{address}/api/v3/")).expect("an address");
    Client::new(Kind::GitHub, api, Some(&file("ca.pem"))).expect("a client")
}

fn who() -> (&'static str, Secret) {
    ("authorization", Secret::new("Bearer hunter2"))
}

fn reply(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn an_authority_of_ones_own_is_believed_and_nobody_else() {
    let (address, seen) = serve(true, |_| reply("201 Created\r\nX-RateLimit-Remaining: 7", "{\"id\":1}")).await;
    let call = Call::get("repos/team/fleet?page=2".to_owned());
    let answer = client("https", address).send(&call, &who()).await.expect("an answer");
    assert_eq!((answer.status, answer.remaining.as_deref(), &answer.body[..]), (201, Some("7"), &b"{\"id\":1}"[..]));
    let heads = seen.lock().expect("not poisoned").clone();
    let head = heads[0].to_ascii_lowercase();
    assert!(head.starts_with("get /api/v3/repos/team/fleet?page=2 http/1.1\r\n"), "{head}");
    for header in
        [format!("host: {address}"), "user-agent: gitamp/".to_owned(), "authorization: bearer hunter2".to_owned()]
    {
        assert!(head.contains(&header), "{header} is missing in {head}");
    }

    let api = Url::parse(&format!("https://{address}/")).expect("an address");
    let error = Client::new(Kind::GitHub, api, Some(&file("server-key.pem"))).err().expect("no certificate in it");
    assert!(error.to_string().contains("server-key.pem"), "{error}");

    let (stranger, asked) = serve(true, |_| reply("200 OK", "{}")).await;
    let system = Client::new(Kind::GitHub, Url::parse(&format!("https://{stranger}/")).expect("an address"), None);
    // A machine without certificates says so at once.
    if let Ok(system) = system {
        let error = system.send(&call, &who()).await.expect_err("an unknown authority").to_string();
        assert!(error.contains("certificate") && !error.contains("hunter2"), "{error}");
    }
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
    let client = client("http", address);
    let send = async |path: &str| client.send(&Call::get(path.to_owned()), &who()).await.expect("an answer").status;
    assert_eq!(send("renamed").await, 200);
    assert!(ours.lock().expect("not poisoned").iter().any(|head| head.contains("/api/v3/repositories/7")));
    assert_eq!(send("away").await, 301, "another host is an answer, not a place to take a token to");
    assert!(theirs.lock().expect("not poisoned").is_empty());
    assert_eq!(send("round").await, 302, "and circles end");
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let endless = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 9 << 20).into_bytes();
    let (large, _) = serve(false, move |_| [&endless[..], &vec![b'x'; 9 << 20]].concat()).await;
    let (cut, _) = serve(false, |_| b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort".to_vec()).await;
    let (noise, _) = serve(false, |_| b"SSH-2.0-OpenSSH\r\n".to_vec()).await;
    for (what, address) in [("too large", large), ("cut", cut), ("noise", noise)] {
        let outcome = client("http", address).send(&Call::get("x".to_owned()), &who()).await;
        let error = outcome.expect_err(what).to_string();
        assert!(
            error.contains("127.0.0.1 gave no answer that can be read") && !error.contains("hunter2"),
            "{what}: {error}"
        );
    }
}
