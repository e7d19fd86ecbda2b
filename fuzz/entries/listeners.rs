//! What comes from clients' sockets, behind TCP, at each of the listeners.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use gitamp::agent::AgentEvent;
use gitamp::clock::Clock;
use gitamp::config::{ComponentNames, ConfigHash, RenderedConfig};
use gitamp::forge::hooks::Watched;
use gitamp::opamp::connection::Rules;
use gitamp::opamp::wire;
use gitamp::serve::admin::{self, AdminOptions, AdminRequest};
use gitamp::serve::api::{Api, ApiOptions, ApiRules, Pace};
use gitamp::serve::bell::Bell;
use gitamp::serve::hints::Hints;
use gitamp::serve::hooks::{self, Hooks};
use gitamp::serve::traffic::Traffic;
use gitamp::serve::{AgentServerOptions, serve_agents};
use gitamp::settings::{
    ApiLimits, ApiSettings, HookLimits, HookSecrets, ProofSettings, Reference, RepoIdentity, SecretFile,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::NOON;
use super::house::House;

/// The secret of the hooks, and the tokens of operators of each role, which examples know: what is behind a proof is to be reached as well.
pub const SECRET: &str = "a secret that the examples know";

/// The token of who may do this.
pub fn token(role: &str) -> String {
    format!("token-of-who-may-{role}")
}

/// A listener on a port of this machine, for as long as the process lives, and what it runs on.
struct Listener {
    at: SocketAddr,
    _runtime: Runtime,
    /// Says, while it is there, that nothing ends.
    _stop: watch::Sender<bool>,
    /// What it keeps on disk.
    _directory: tempfile::TempDir,
    /// Who answers what is asked through it, unless it does that itself.
    daemon: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(serve: impl FnOnce(TcpListener, watch::Receiver<bool>, &Path) -> Option<JoinHandle<()>>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let (stop, stopped) = watch::channel(false);
        let (at, daemon) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let at = listener.local_addr().expect("an address");
            (at, serve(listener, stopped, directory.path()))
        });
        Self { at, _runtime: runtime, _stop: stop, _directory: directory, daemon }
    }
}

/// The agents' listener; every agent that comes is offered something.
static AGENTS: LazyLock<Listener> = LazyLock::new(|| {
    Listener::start(|listener, stop, _| {
        let (sender, mut events) = mpsc::channel(64);
        let rules =
            Rules { limits: wire::Limits { message_bytes: 1 << 16, ..wire::Limits::default() }, ..Rules::default() };
        let options =
            AgentServerOptions { rules, max_rate: None, max_new_agents: None, ..AgentServerOptions::default() };
        let (links, _task) =
            serve_agents(listener, options, Clock::start_at(NOON), sender, None, Arc::new(Traffic::default()), stop);
        tokio::spawn(async move {
            let body = Bytes::from_static(b"name: a\n");
            let config = RenderedConfig::new(ConfigHash::new([7; 32]), body, ComponentNames::default());
            while let Some(message) = events.recv().await {
                if let AgentEvent::Connected { id, connection, .. } = message.event {
                    links.offer(connection, id, config.clone(), false);
                }
            }
        });
        None
    })
});

/// The listener of hooks.
static HOOKS: LazyLock<Listener> = LazyLock::new(|| {
    Listener::start(|listener, stop, directory| {
        let path = directory.join("secret");
        kept(&path, SECRET);
        let hooks = Hooks {
            secrets: HookSecrets::read(SecretFile::new(path)).expect("a secret"),
            watched: Watched {
                repository: RepoIdentity::of_url("https://git.example.com/team/fleet.git"),
                reference: Reference::Branch("main".to_owned()),
            },
            bell: Bell::default(),
            hints: Hints::default(),
            clock: Clock::start_at(NOON),
            metrics: Arc::default(),
            limits: HookLimits { a_minute: None, ..HookLimits::default() },
        };
        tokio::spawn(hooks::serve(listener, hooks::router(hooks), Arc::default(), stop));
        None
    })
});

/// The admin listener, which only reads.
static ADMIN: LazyLock<Listener> = LazyLock::new(|| {
    Listener::start(|listener, stop, directory| {
        let (requests, asked) = mpsc::channel(4);
        let socket = directory.join("admin.sock");
        let options = AdminOptions { tcp: Some(listener), socket, hosts: Vec::new(), metrics: Arc::default() };
        let _task = admin::spawn(options, requests, stop).expect("both listeners");
        Some(tokio::spawn(live(asked)))
    })
});

/// The operators' listener, without TLS, which other functions read; everybody may try as often as they like.
static API: LazyLock<Listener> = LazyLock::new(|| {
    Listener::start(|listener, stop, directory| {
        let tokens = directory.join("operators.yaml");
        let entry = |role| {
            let hash = hex::encode(Sha256::digest(token(role)));
            format!("- {{name: {role}, sha256: {hash}, labels: {{role: {role}, email: {role}@example.com}}}}\n")
        };
        kept(&tokens, &format!("tokens:\n{}", ["view", "operate", "approve"].map(entry).concat()));
        let (requests, asked) = mpsc::channel(4);
        let files = ApiSettings {
            listen: listener.local_addr().expect("an address"),
            tls: None,
            proofs: ProofSettings { tokens: Some(tokens), issuers: None },
            self_approval: false,
            limits: ApiLimits::default(),
        };
        let options = ApiOptions {
            files,
            hosts: Vec::new(),
            clock: Clock::start_at(NOON),
            metrics: Arc::default(),
            agents: None,
        };
        let often = Pace { burst: u32::MAX, back: u32::MAX, within: 1 };
        let rules = ApiRules { requests: often, failures: often, ..ApiRules::of(&ApiLimits::default()) };
        let api = Arc::new(Api::open(options, rules, requests).expect("its files can be used"));
        tokio::spawn(api.serve(listener, stop));
        Some(tokio::spawn(live(asked)))
    })
});

/// Answers what is asked; after some hundred questions in a house that nothing happened to.
async fn live(mut asked: mpsc::Receiver<AdminRequest>) {
    const MOST: usize = 500;
    let mut house = House::open();
    let mut answered = 0;
    while let Some(request) = asked.recv().await {
        house.answer(request);
        answered += 1;
        if answered == MOST {
            std::mem::replace(&mut house, House::open()).close();
            answered = 0;
        }
    }
}

/// Writes a file that only its owner may read.
fn kept(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).expect("a new file");
    file.write_all(text.as_bytes()).expect("it takes it");
}

/// Sends this, and says that there is no more: whoever it is gets answers of HTTP or none, and the connection ends with the client's.
fn converse(listener: &Listener, input: &[u8]) {
    /// Longer than an answer takes; then the client says that there is nothing more.
    const PAUSE: Duration = Duration::from_millis(10);
    /// Reached only when the connection stays open for ever.
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut stream = TcpStream::connect(listener.at).expect("somebody listens");
    // A server that has heard enough closes: what is not sent then, or lost behind a reset, is no fault of it.
    let _sent = stream.write_all(input);
    let mut answer = Vec::new();
    stream.set_read_timeout(Some(PAUSE)).expect("a timeout");
    if stream.read_to_end(&mut answer).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
        let _closed = stream.shutdown(std::net::Shutdown::Write);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let end = stream.read_to_end(&mut answer);
        assert!(!end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "the connection stays open");
    }
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
    assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}", String::from_utf8_lossy(&answer));
    let is_over = listener.daemon.as_ref().is_some_and(JoinHandle::is_finished);
    assert!(!is_over, "whoever answers panicked, at this input or the one before");
}

/// What comes to the agents' port.
pub fn http_requests(input: &[u8]) {
    converse(&AGENTS, input);
}

/// What comes to the port of hooks.
pub fn hook_requests(input: &[u8]) {
    converse(&HOOKS, input);
}

/// What comes to the admin port.
pub fn admin_requests(input: &[u8]) {
    converse(&ADMIN, input);
}

/// What comes to the operators' port.
pub fn api_requests(input: &[u8]) {
    converse(&API, input);
}
