//! TLS for a listener: handshakes within limits, and certificates that are replaced without ending a connection.
//!
//! The files are read again every few seconds and taken when their content changed, whole or not at all: a certificate without its key, or
//! a list of revocations that cannot be read, changes nothing but what status and metrics say.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Connection, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::links::lock;
use super::quota::Origin;
use super::room::{Rooms, Share};
use super::socket::Socket;
use super::traffic::TlsTraffic;
use super::unusable::{Unusable, read};
use crate::clock::Clock;
use crate::identity::certificate;
use crate::settings::TlsSettings;
use crate::time::Timestamp;

/// A certificate that ends sooner than this is worth a word: what renews it should have done so.
const ENDS_SOON: Duration = Duration::from_secs(3 * 86_400);

/// The most that a client may show of itself: certificates, and their bytes in all. It is kept for as long as its agents are there, and nobody
/// looks at what stands behind the authority that is known.
const MOST_CERTIFICATES: usize = 8;
const MOST_CERTIFICATE_BYTES: usize = 16 * 1024;

/// Why TLS cannot be spoken with these files.
pub type TlsError = Unusable;

/// Limits of handshakes: they are the one thing that strangers can make us work for.
#[derive(Clone, Copy, Debug)]
pub struct TlsLimits {
    /// Handshakes at a time; others wait before memory is taken for them.
    pub handshakes: usize,
    /// How long a connection waits for its turn, how long its handshake may take, and how long its first byte.
    pub patience: Duration,
    /// How often the files are looked at.
    pub reload: Duration,
}

impl Default for TlsLimits {
    fn default() -> Self {
        Self { handshakes: 512, patience: Duration::from_secs(10), reload: Duration::from_secs(5) }
    }
}

/// Whether clients have to show a certificate, when there is an authority to know them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No handshake succeeds without one.
    Demanded,
    /// Those who show none are told from the others later.
    Welcome,
}

/// What is in use.
struct Loaded {
    config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    digest: [u8; 32],
    /// The digest of whom clients are trusted by alone.
    trust: [u8; 32],
    expires: Option<Timestamp>,
}

/// What is to be said of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsState {
    /// When the server's certificate ends.
    pub expires: Option<Timestamp>,
    /// What is wrong with the files since they changed; what was read before is in use.
    pub problem: Option<String>,
}

/// TLS of one listener. Shared by its connections.
pub struct Tls {
    files: TlsSettings,
    clients: ClientCertificates,
    limits: TlsLimits,
    current: ArcSwap<Loaded>,
    state: Mutex<TlsState>,
    turns: Arc<Rooms>,
    traffic: Arc<TlsTraffic>,
    /// When a client was last warned of.
    warned: Mutex<Option<Instant>>,
    /// How often it changed by whom clients are trusted.
    round: AtomicU64,
    /// Rung when it did.
    pub(super) trust_changed: Notify,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).field("clients", &self.clients).finish_non_exhaustive()
    }
}

/// Why a handshake came to nothing. The connection is closed; the client was told in the words of TLS where it speaks TLS.
#[derive(Debug)]
enum Refusal {
    /// It took too long.
    Slow,
    /// The server had no turn for it in time.
    Crowded,
    /// The client speaks something else, such as HTTP without encryption.
    Foreign,
    /// The client shows no certificate that counts.
    Uncertified(rustls::Error),
    /// It shows one that does, and more beside it than is taken. That it only sees as the end of the connection.
    Excessive,
    /// Anything else that TLS does not allow.
    Broken(std::io::Error),
    /// The client left.
    Left,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn open(
        files: TlsSettings,
        clients: ClientCertificates,
        limits: TlsLimits,
        traffic: Arc<TlsTraffic>,
    ) -> Result<Self, TlsError> {
        let loaded = load(&files, clients)?;
        let state = TlsState { expires: loaded.expires, problem: None };
        traffic.expires.store(loaded.expires);
        Ok(Self {
            files,
            clients,
            turns: Rooms::new(limits.handshakes, Share::MOST),
            limits,
            current: ArcSwap::from_pointee(loaded),
            state: Mutex::new(state),
            traffic,
            warned: Mutex::default(),
            round: AtomicU64::new(0),
            trust_changed: Notify::new(),
        })
    }

    /// What is to be said of it at this time.
    pub fn state(&self, now: Timestamp) -> TlsState {
        let mut state = lock(&self.state).clone();
        if state.problem.is_none() {
            state.problem = state.expires.and_then(|end| judge_end(end, now));
        }
        state
    }

    /// True when certificates of clients mean something here.
    pub fn knows_clients(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// Tells times apart between which it changed by whom clients are trusted.
    pub(super) fn round(&self) -> u64 {
        self.round.load(Ordering::Acquire)
    }

    /// True when a certificate that counted at its handshake would count now. Without an authority there is none that would.
    pub fn still_trusts(&self, chain: &[CertificateDer<'static>], now: Timestamp) -> bool {
        let Some((own, others)) = chain.split_first() else { return true };
        let at = UnixTime::since_unix_epoch(Duration::from_millis(now.as_millis()));
        let current = self.current.load();
        current.verifier.as_ref().is_some_and(|verifier| verifier.verify_client_cert(own, others, at).is_ok())
    }

    /// Makes a connection from this address secure, within the limits. `None` when that came to nothing, which is counted.
    pub(crate) async fn accept(&self, tcp: TcpStream, from: IpAddr) -> Option<Socket> {
        let outcome = self.shake_hands(tcp, from).await;
        let traffic = &self.traffic;
        match outcome {
            Ok(socket) => {
                traffic.handshakes.one();
                return Some(socket);
            }
            Err(Refusal::Slow) => traffic.slow.one(),
            Err(Refusal::Crowded) => traffic.crowded.one(),
            Err(Refusal::Foreign) => {
                traffic.foreign.one();
                tracing::debug!(
                    "a client speaks no TLS to a port that does: its address must begin with wss:// or https://"
                );
            }
            Err(Refusal::Uncertified(error)) => {
                traffic.uncertified.one();
                tracing::debug!(%error, "a client shows no certificate that counts");
            }
            Err(Refusal::Excessive) => {
                traffic.uncertified.one();
                if self.may_warn() {
                    tracing::warn!(
                        "a client at {from} shows more than {MOST_CERTIFICATES} certificates, or more than {MOST_CERTIFICATE_BYTES} bytes of them, \
                         and is not let in: it should send its own and those that lead to the authority"
                    );
                }
            }
            Err(Refusal::Broken(error)) => {
                traffic.broken.one();
                tracing::debug!(%error, "a TLS handshake failed");
            }
            Err(Refusal::Left) => {}
        }
        None
    }

    async fn shake_hands(&self, mut tcp: TcpStream, from: IpAddr) -> Result<Socket, Refusal> {
        // Who only connects has no turn to wait for, and costs nothing but its socket.
        let mut first = [0];
        let peeked = timeout(self.limits.patience, tcp.peek(&mut first)).await.map_err(|_| Refusal::Slow)?;
        match peeked {
            Ok(0) | Err(_) => return Err(Refusal::Left),
            Ok(_) if first == [HANDSHAKE] => {}
            Ok(_) => {
                say_what_is_spoken_here(&mut tcp).await;
                return Err(Refusal::Foreign);
            }
        }
        // Slow ones of one address leave turns for others.
        let waiting = self.turns.take(Some(Origin::of(from)), 1, &self.traffic.waited);
        let Ok(Some(_turn)) = timeout(self.limits.patience, waiting).await else { return Err(Refusal::Crowded) };
        let _held = self.traffic.in_flight.hold();
        let config = Arc::clone(&self.current.load().config);
        // In a box of its own, which goes when the handshake is over.
        let handshake = Box::pin(tokio_rustls::TlsAcceptor::from(config).accept(tcp));
        match timeout(self.limits.patience, handshake).await {
            Ok(Ok(stream)) => {
                let (tcp, tls) = stream.into_inner();
                if tls.peer_certificates().is_some_and(is_too_much) {
                    return Err(Refusal::Excessive);
                }
                Ok(Socket::secure(tcp, Connection::Server(tls)))
            }
            Ok(Err(error)) => Err(classify(error)),
            Err(_) => Err(Refusal::Slow),
        }
    }

    /// Once a minute: clients decide how often there is something.
    fn may_warn(&self) -> bool {
        let (mut warned, now) = (lock(&self.warned), Instant::now());
        let is_due = warned.is_none_or(|before| now.duration_since(before) >= Duration::from_secs(60));
        if is_due {
            *warned = Some(now);
        }
        is_due
    }

    /// Looks at the files from time to time, for as long as it is polled.
    pub async fn watch(self: Arc<Self>, clock: Clock) {
        let mut said = None;
        loop {
            self.warn_of_end(clock.wall(), &mut said);
            tokio::time::sleep(self.limits.reload).await;
            let this = Arc::clone(&self);
            // Reading and checking megabytes of revocations is no work for a thread that serves agents.
            if tokio::task::spawn_blocking(move || this.reload()).await.is_err() {
                tracing::error!("reading the files of TLS failed; what was read before stays in use");
            }
        }
    }

    /// Says in the log that the certificate ends soon, or ended, when that was not said yet.
    fn warn_of_end(&self, now: Timestamp, said: &mut Option<String>) {
        let words = lock(&self.state).expires.and_then(|end| judge_end(end, now));
        if let Some(words) = words.as_ref().filter(|words| said.as_ref() != Some(words)) {
            tracing::warn!("TLS: {words}");
        }
        *said = words;
    }

    fn reload(&self) {
        let before = self.current.load_full();
        let outcome = match digest(&self.files) {
            Ok((whole, _)) if whole == before.digest => Ok(None),
            Ok(_) => load(&self.files, self.clients).map(Some),
            Err(error) => Err(error),
        };
        let mut is_other_trust = false;
        let problem = match outcome {
            Ok(None) => None,
            Ok(Some(loaded)) => {
                is_other_trust = loaded.trust != before.trust;
                lock(&self.state).expires = loaded.expires;
                self.traffic.expires.store(loaded.expires);
                match loaded.expires {
                    Some(end) => tracing::info!(expires = %end, "the files of TLS changed and are in use"),
                    None => tracing::info!("the files of TLS changed and are in use"),
                }
                self.current.store(Arc::new(loaded));
                self.round.fetch_add(u64::from(is_other_trust), Ordering::Release);
                self.traffic.reloads.one();
                None
            }
            Err(error) => Some(format!("{error}; what was read before stays in use")),
        };
        self.tell(problem);
        // Last, so that whoever sees what follows from the new files sees them in use and reported as usable.
        if is_other_trust {
            self.trust_changed.notify_one();
        }
    }

    /// Remembers and reports what is wrong with the files, when that is something else than before.
    fn tell(&self, problem: Option<String>) {
        let mut state = lock(&self.state);
        if state.problem != problem {
            match &problem {
                Some(problem) => {
                    self.traffic.reload_failures.one();
                    tracing::warn!("the files of TLS changed and cannot be used: {problem}");
                }
                None => tracing::info!("the files of TLS can be used again"),
            }
            self.traffic.is_stale.set(usize::from(problem.is_some()));
            state.problem = problem;
        }
    }
}

fn is_too_much(chain: &[CertificateDer<'_>]) -> bool {
    chain.len() > MOST_CERTIFICATES || chain.iter().map(|one| one.len()).sum::<usize>() > MOST_CERTIFICATE_BYTES
}

/// The first byte of every connection that speaks TLS.
const HANDSHAKE: u8 = 22;

/// Says a word that an HTTP client shows its user.
async fn say_what_is_spoken_here(tcp: &mut TcpStream) {
    const PATIENCE: Duration = Duration::from_secs(2);
    const ANSWER: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 66\r\nConnection: close\r\n\r\n\
        this port speaks TLS: the address must begin with wss:// or https\n";
    let told = async {
        // Somebody who is still writing the request would see a reset instead of the answer.
        let _request = tcp.try_read(&mut [0; 4096]);
        tcp.write_all(ANSWER).await?;
        tcp.shutdown().await
    };
    // Whether it was heard makes no difference to this server.
    let _outcome = timeout(PATIENCE, told).await;
}

fn classify(error: std::io::Error) -> Refusal {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(
            reason @ (rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::InvalidCertRevocationList(_)),
        ) => Refusal::Uncertified(reason.clone()),
        Some(_) => Refusal::Broken(error),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => Refusal::Left,
        None => Refusal::Broken(error),
    }
}

fn judge_end(end: Timestamp, now: Timestamp) -> Option<String> {
    if end <= now {
        return Some(format!("the certificate ended {end}: agents refuse it"));
    }
    (end.since(now) < ENDS_SOON).then(|| format!("the certificate ends {end}, and nothing has renewed it yet"))
}

fn wrong(path: &Path, reason: impl fmt::Display) -> TlsError {
    Unusable::new(path, reason)
}

/// What tells the files of one time from those of another: all of them, and those that say whom clients are trusted by.
fn digest(files: &TlsSettings) -> Result<([u8; 32], [u8; 32]), TlsError> {
    let key = files.key.read()?;
    // Whoever may change these decides who comes in, and who may stay.
    let of = |path: Option<&PathBuf>| -> Result<[u8; 32], TlsError> {
        path.map_or(Ok([0; 32]), |path| Ok(Sha256::digest(read(path)?).into()))
    };
    let trust: [u8; 32] = Sha256::new()
        .chain_update(of(files.client_ca.as_ref())?)
        .chain_update(of(files.client_crl.as_ref())?)
        .finalize()
        .into();
    let whole = Sha256::new()
        .chain_update(Sha256::digest(read(&files.certificate)?))
        .chain_update(Sha256::digest(key.expose()))
        .chain_update(trust);
    Ok((whole.finalize().into(), trust))
}

/// Reads everything and puts it together.
fn load(files: &TlsSettings, clients: ClientCertificates) -> Result<Loaded, TlsError> {
    let (digest, trust) = digest(files)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&files.certificate, read(&files.certificate)?)?;
    let expires = chain.first().and_then(|own| certificate::names(own).ok()).and_then(|names| names.expires);
    let secret = files.key.read()?;
    let no_key =
        || wrong(files.key.path(), "it holds no private key in PEM form (PKCS#8, PKCS#1 or SEC1) without a passphrase");
    let key = PrivateKeyDer::from_pem_slice(secret.expose().as_bytes()).map_err(|_| no_key())?;
    let pair = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
        if let rustls::Error::InvalidCertificate(_) = error {
            return wrong(
                &files.certificate,
                format!("TLS cannot use its certificate, which must be one of version 3 ({error})"),
            );
        }
        let reason = format!("it does not belong to the certificate in {} ({error})", files.certificate.display());
        wrong(files.key.path(), reason)
    })?;
    let verifier = client_verifier(files, clients, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&files.certificate, error))?;
    let builder = match &verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A session that is resumed would not be asked for its certificate again, revoked or not. Agents come seldom enough.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded { config: Arc::new(config), verifier, digest, trust, expires })
}

fn certificates(path: &Path, bytes: Vec<u8>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(wrong(path, "it holds no certificate in PEM form")),
        Err(error) => Err(wrong(path, error)),
    }
}

fn client_verifier(
    files: &TlsSettings,
    clients: ClientCertificates,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(path) = &files.client_ca else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for authority in certificates(path, read(path)?)? {
        roots.add(authority).map_err(|error| wrong(path, error))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some(path) = &files.client_crl {
        let bytes = read(path)?;
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        let lists = lists.map_err(|error| wrong(path, error))?;
        if lists.is_empty() {
            return Err(wrong(path, "it holds no list of revocations in PEM form"));
        }
        // A certificate whose issuer has no list in the file is refused: nobody could revoke it.
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    if clients == ClientCertificates::Welcome {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(Some).map_err(|error| wrong(files.client_crl.as_ref().unwrap_or(path), error))
}
