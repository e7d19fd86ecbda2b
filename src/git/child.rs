//! The process that does one transfer: reads the request from standard input, says on standard output what came of it, and
//! ends when its parent does.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD as BASE64_NO_PAD};
use git2::cert::Cert;
use git2::{
    AutotagOption, CertificateCheckStatus, Cred, CredentialType, Direction, Error, ErrorClass, ErrorCode, FetchOptions,
    Oid, ProxyOptions, PushOptions, RemoteCallbacks, RemoteConnection, RemoteRedirect, Repository,
    RepositoryInitOptions,
};

use super::answers::{Done, Line};
use super::failure::{FailureKind, TransportError, classify};
use super::local::History;
use super::remote::host_of;
use super::transport::{Action, Request};
use super::{RemoteUrl, Tracked, hermetic, local, sandbox, tags};
use crate::settings::SecretFile;

/// The largest pack that is taken: 4 GiB. A fleet's configuration is text; more than that is the wrong repository.
const LARGEST_PACK_BYTES: usize = 4 << 30;
/// What says in a mirror's own configuration that its history was left out by choice. That a repository is shallow says less: the remote
/// may be.
pub(super) const DEPTH_KEY: &str = "gitamp.depth";
/// The longest request: a line of paths and a token.
const LONGEST_REQUEST_BYTES: u64 = 1 << 20;
/// Credentials are offered this often: once what is configured, and once more for servers that ask again.
const CREDENTIAL_ATTEMPTS: u32 = 2;
/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// The hidden subcommand `git-transport`: one request, one answer, exit.
pub fn run() -> ExitCode {
    // Where the system refuses it the transfer goes on: the daemon has said so of itself.
    let _closed = sandbox::close_memory();
    let answer = match receive() {
        Ok(request) => match perform(&request) {
            Ok(done) => Line::Done(done),
            Err(failure) => Line::Failed(without_token(failure, &request)),
        },
        Err(failure) => Line::Failed(failure),
    };
    if say(&answer) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A failure as it may be shown: a remote's words are in it, and a remote knows the token that it was sent.
fn without_token(failure: TransportError, request: &Request) -> TransportError {
    match &request.token {
        Some(token) => {
            let token = crate::settings::Secret::new(token.0.as_str());
            TransportError { message: token.hidden_in(&failure.message), ..failure }
        }
        None => failure,
    }
}

/// Reads the request, and from then on watches standard input: when it closes, whoever asked is gone.
fn receive() -> Result<Request, TransportError> {
    let broken = |why: String| TransportError::new(FailureKind::Child, why);
    let mut input = BufReader::new(std::io::stdin());
    let mut line = String::new();
    (&mut input)
        .take(LONGEST_REQUEST_BYTES)
        .read_line(&mut line)
        .map_err(|error| broken(format!("no request: {error}")))?;
    std::thread::spawn(move || {
        let mut rest = [0; 64];
        while input.read(&mut rest).is_ok_and(|count| count > 0) {}
        std::process::exit(3);
    });
    serde_json::from_str(&line).map_err(|error| {
        broken(format!("this command is for gitamp itself; the request makes no sense ({:?} error)", error.classify()))
    })
}

/// Writes one line; `false` when nobody listens any more.
fn say(line: &Line) -> bool {
    let Ok(mut text) = serde_json::to_vec(line) else { return false };
    text.push(b'\n');
    let mut output = std::io::stdout().lock();
    output.write_all(&text).and_then(|()| output.flush()).is_ok()
}

fn perform(request: &Request) -> Result<Done, TransportError> {
    sandbox::enter(Duration::from_millis(request.total_millis));
    hermetic::prepare();
    let url: RemoteUrl =
        request.url.parse().map_err(|error| TransportError::new(FailureKind::Protocol, format!("{error}")))?;
    let silence = Duration::from_millis(request.silence_millis);
    let local = |error: Error| TransportError::new(FailureKind::Local, error.message());
    hermetic::set_network_timeouts(Duration::from_millis(request.connect_millis), silence).map_err(local)?;
    let transfer = Transfer { request, url, silence, started: now(), state: State::default() };
    match &request.action {
        Action::FetchTracked { repository, tracked, shallow, into } => {
            let repository = transfer.own_repository(repository)?;
            transfer.fetch_one(&repository, into, *shallow, |heads| choose(heads, tracked).map(Some))
        }
        Action::FetchRef { repository, reference, into } => {
            let repository = transfer.own_repository(repository)?;
            transfer.fetch_one(&repository, into, false, |heads| Ok(heads.find(reference).cloned()))
        }
        Action::FetchBelow { repository, prefix } => transfer.fetch_below(repository, prefix),
        Action::Push { repository, from, to } => {
            let own = transfer.own_repository(repository)?;
            match transfer.url.local_path() {
                Some(path) => transfer.push_locally(&own, from, &path, to),
                None => transfer.push(&own, from, to),
            }
        }
    }
}

/// What a remote has: refs in full with what they point to, and where its `HEAD` leads.
struct Heads {
    refs: Vec<(String, Oid)>,
    default: Option<String>,
}

impl Heads {
    fn find(&self, name: &str) -> Option<&(String, Oid)> {
        self.refs.iter().find(|(have, _)| have == name)
    }
}

/// Which of the remote's refs is the tracked one.
fn choose(heads: &Heads, tracked: &Tracked) -> Result<(String, Oid), TransportError> {
    let missing = |why: String| TransportError::new(FailureKind::NoSuchRef, why);
    if heads.refs.is_empty() {
        return Err(missing("the repository is empty: push a first commit to it".to_owned()));
    }
    let name = match tracked {
        Tracked::Default => heads.default.clone().ok_or_else(|| {
            missing("the repository does not say which branch is its default: name one with --branch".to_owned())
        })?,
        Tracked::Branch(name) => format!("refs/heads/{name}"),
        Tracked::Tags(glob) => {
            let tags = heads
                .refs
                .iter()
                .filter_map(|(name, _)| name.strip_prefix("refs/tags/"))
                .filter(|name| !name.ends_with("^{}"));
            format!("refs/tags/{}", tags::highest(tags, glob).map_err(missing)?)
        }
    };
    heads.find(&name).cloned().ok_or_else(|| {
        let mut branches = heads.refs.iter().filter_map(|(name, _)| name.strip_prefix("refs/heads/"));
        let shown: Vec<&str> = branches.by_ref().take(5).collect();
        let more = if branches.next().is_some() { ", ..." } else { "" };
        let has = if shown.is_empty() { "no branches".to_owned() } else { shown.join(", ") + more };
        missing(format!("the repository has no {name} (any more); it has {has}"))
    })
}

/// What the callbacks of one transfer write down.
#[derive(Default)]
struct State {
    attempts: Cell<u32>,
    told: Cell<Option<Instant>>,
    count: Cell<u64>,
    too_large: Cell<bool>,
    /// True once objects of the remote are being taken in.
    receiving: Cell<bool>,
    /// A sentence of our own that is better than what libgit2 makes of it.
    better: RefCell<Option<TransportError>>,
    /// The fingerprint of the host key that the remote showed.
    fingerprint: RefCell<Option<String>>,
    /// What the remote said about the pushed ref.
    refused: RefCell<Option<String>>,
}

struct Transfer<'r> {
    request: &'r Request,
    url: RemoteUrl,
    silence: Duration,
    started: Instant,
    state: State,
}

impl Transfer<'_> {
    fn failure(&self, error: &Error) -> TransportError {
        if self.state.too_large.get() {
            return TransportError::new(
                FailureKind::Protocol,
                format!("{}: more than 4 GiB; is this the fleet's repository?", self.url),
            );
        }
        if let Some(better) = self.state.better.take() {
            return better;
        }
        let failure = classify(error, &self.url.to_string(), self.started.elapsed(), self.silence);
        let is_about_content = matches!(
            error.class(),
            ErrorClass::Invalid | ErrorClass::NoMemory | ErrorClass::Indexer | ErrorClass::Zlib | ErrorClass::Odb
        );
        if failure.kind == FailureKind::Local && is_about_content && self.state.receiving.get() {
            let said = error.message();
            return TransportError::new(
                FailureKind::Content,
                format!(
                    "{}: what it sends cannot be taken in: {said} (objects that are broken, or that grow beyond all memory: see what \
                     `git fsck` says there)",
                    self.url
                ),
            );
        }
        match self.state.fingerprint.take() {
            Some(shown) if failure.kind == FailureKind::HostKey => {
                TransportError::new(failure.kind, format!("{failure}; it showed SHA256:{shown}"))
            }
            Some(_) | None => failure,
        }
    }

    /// Our own repository at this path, made if there is none.
    fn own_repository(&self, path: &Path) -> Result<Repository, TransportError> {
        let local =
            |error: Error| TransportError::new(FailureKind::Local, format!("{}: {}", path.display(), error.message()));
        let repository = if path.exists() {
            Repository::open_bare(path).map_err(local)?
        } else {
            let mut options = RepositoryInitOptions::new();
            options.bare(true).mkpath(true).external_template(false);
            Repository::init_opts(path, &options).map_err(local)?
        };
        // The first request of a connection would otherwise follow a redirect to another host, credentials and all.
        let mut config = repository.config().map_err(local)?;
        if config.get_bool("http.followRedirects").ok() != Some(false) {
            config.set_bool("http.followRedirects", false).map_err(local)?;
        }
        Ok(repository)
    }

    fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks.credentials(|url, user, allowed| self.credentials(url, user, allowed));
        callbacks.certificate_check(|certificate, host| self.check_certificate(certificate, host));
        callbacks.transfer_progress(|progress| {
            let grown = progress.received_bytes() + progress.indexed_objects() + progress.indexed_deltas();
            self.progressed(grown as u64);
            self.state.receiving.set(progress.received_objects() > 0);
            if progress.received_bytes() > LARGEST_PACK_BYTES {
                self.state.too_large.set(true);
            }
            !self.state.too_large.get()
        });
        callbacks.sideband_progress(|_| {
            self.progressed(0);
            true
        });
        callbacks.pack_progress(|_, current, _| self.progressed(current as u64));
        callbacks.push_transfer_progress(|current, _, bytes| self.progressed((current + bytes) as u64));
        callbacks.push_update_reference(|_, refused| {
            *self.state.refused.borrow_mut() = refused.map(str::to_owned);
            Ok(())
        });
        callbacks
    }

    /// Tells the parent that something happened, a few times a second at most. The number only has to grow.
    fn progressed(&self, at_least: u64) {
        self.state.count.set((self.state.count.get() + 1).max(at_least));
        if self.state.told.get().is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL) {
            self.state.told.set(Some(now()));
            say(&Line::Progress(self.state.count.get()));
        }
    }

    /// Never asks anybody: what is configured is offered, at most twice, and only to the host of the URL.
    fn credentials(&self, url: &str, user: Option<&str>, allowed: CredentialType) -> Result<Cred, Error> {
        let user = user.unwrap_or("git");
        if host_of(url) != self.url.host() {
            return Err(self.deny("another host than the configured one asked for credentials; nothing was sent"));
        }
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(user);
        }
        self.state.attempts.set(self.state.attempts.get() + 1);
        let attempt = self.state.attempts.get();
        if attempt > CREDENTIAL_ATTEMPTS {
            return Err(
                self.deny("the credentials were refused: check --git-token-file, --ssh-key-file or the SSH agent")
            );
        }
        if allowed.contains(CredentialType::SSH_KEY) {
            return match &self.request.ssh_key_file {
                Some(path) => {
                    let key = SecretFile::new(path).read();
                    let key = key.map_err(|error| self.deny(&format!("no key: {error}; check --ssh-key-file")))?;
                    // libssh2 reads lines, and the last one is one as well.
                    let key = format!("{}\n", key.expose());
                    if needs_passphrase(&key) {
                        let why =
                            "needs a passphrase, and nobody is asked for one: use the SSH agent, or a key without one";
                        return Err(self.deny(&format!("the key {} {why}", path.display())));
                    }
                    Cred::ssh_key_from_memory(user, None, &key, None)
                }
                None if self.request.ssh_agent => Cred::ssh_key_from_agent(user),
                None => Err(self.deny(
                    "the remote wants an ssh key, and there is neither a key file nor an SSH agent to ask: give one with \
                     --ssh-key-file, or start with SSH_AUTH_SOCK set and without --ssh-agent=false",
                )),
            };
        }
        match &self.request.token {
            Some(token) if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) && attempt == 1 => {
                Cred::userpass_plaintext(&self.request.token_user, &token.0)
            }
            Some(_) => Err(self.deny("the token was refused: check that it is valid and may read this repository")),
            None => Err(self.deny(
                "the remote wants credentials, or there is no such repository: give a token with --git-token-file",
            )),
        }
    }

    fn deny(&self, why: &str) -> Error {
        let shown = format!("{}: {why}", self.url);
        self.state.better.replace(Some(TransportError::new(FailureKind::Credentials, shown)));
        Error::new(ErrorCode::Auth, ErrorClass::Callback, why)
    }

    /// Leaves the decision to OpenSSL and libssh2 (the certificate authorities, `known_hosts`), but for revoked host keys.
    fn check_certificate(&self, certificate: &Cert<'_>, host: &str) -> Result<CertificateCheckStatus, Error> {
        let host_key = certificate.as_hostkey();
        // As `ssh-keygen -l` shows it, to compare.
        let fingerprint = host_key.and_then(|key| key.hash_sha256()).map(|hash| BASE64_NO_PAD.encode(hash));
        self.state.fingerprint.replace(fingerprint);
        let key = host_key.and_then(|key| key.hostkey()).map(|key| BASE64.encode(key));
        match key {
            Some(key) if self.request.revoked_host_keys.contains(&key) => {
                let why = format!("the host key of {host} is marked as revoked: do not trust this connection");
                self.state.better.replace(Some(TransportError::new(FailureKind::HostKey, &why)));
                Err(Error::new(ErrorCode::Certificate, ErrorClass::Ssh, why))
            }
            Some(_) | None => Ok(CertificateCheckStatus::CertificatePassthrough),
        }
    }

    fn heads(&self, connection: &RemoteConnection<'_, '_, '_>) -> Result<Heads, TransportError> {
        let list = connection.list().map_err(|error| self.failure(&error))?;
        let default = list
            .iter()
            .find(|head| head.name() == "HEAD")
            .and_then(|head| head.symref_target().map(str::to_owned))
            .filter(|name| name.starts_with("refs/"));
        Ok(Heads { refs: list.iter().map(|head| (head.name().to_owned(), head.oid())).collect(), default })
    }

    /// Says clearly what libgit2 words badly: the local directory is no repository.
    fn check_local_remote(&self) -> Result<(), TransportError> {
        let Some(path) = self.url.local_path() else { return Ok(()) };
        Repository::open(&path).map(drop).map_err(|error| {
            let kind = if error.code() == ErrorCode::NotFound { FailureKind::NotFound } else { FailureKind::Network };
            TransportError::new(kind, format!("{}: {} (check --repo)", path.display(), error.message()))
        })
    }

    /// Fetches the one ref that `choose` picks into the private ref `into`; nothing is downloaded when that is there already. `shallow`:
    /// without what led to it.
    fn fetch_one(
        &self,
        repository: &Repository,
        into: &str,
        shallow: bool,
        choose: impl Fn(&Heads) -> Result<Option<(String, Oid)>, TransportError>,
    ) -> Result<Done, TransportError> {
        self.check_local_remote()?;
        let failed = |error: Error| self.failure(&error);
        let mut remote = repository.remote_anonymous(self.url.reveal()).map_err(failed)?;
        let mut connection =
            remote.connect_auth(Direction::Fetch, Some(self.callbacks()), Some(proxies())).map_err(failed)?;
        self.progressed(0);
        let heads = self.heads(&connection)?;
        let Some((name, oid)) =
            choose(&heads).map_err(|failure| TransportError::new(failure.kind, format!("{}: {failure}", self.url)))?
        else {
            return Ok(Done::default());
        };
        let done = Done { reference: Some(name.clone()), object: Some(oid.to_string()) };
        let have = repository.refname_to_id(into).ok();
        if have == Some(oid) && repository.odb().is_ok_and(|odb| odb.exists(oid)) {
            return Ok(done);
        }
        if shallow {
            // First, so that no mirror without its history is ever taken for a whole one.
            mark_shallow(repository).map_err(failed)?;
        }
        if let Some(path) = self.url.local_path() {
            let history = if shallow { History::Newest } else { History::Whole };
            self.carry(&Repository::open(path).map_err(failed)?, repository, oid, history).map_err(failed)?;
            repository.reference(into, oid, true, "gitamp: fetched").map_err(failed)?;
            return Ok(done);
        }
        let spec = format!("+{name}:{into}");
        let mut options = self.fetch_options();
        if shallow {
            options.depth(1);
        }
        connection.remote().fetch(&[&spec], Some(&mut options), None).map_err(failed)?;
        match repository.refname_to_id(into) {
            Ok(fetched) => Ok(Done { reference: Some(name), object: Some(fetched.to_string()) }),
            Err(error) => Err(TransportError::new(FailureKind::Local, error.message())),
        }
    }

    /// Brings objects from one repository of this machine into another, as closely watched as a download.
    fn carry(&self, from: &Repository, to: &Repository, wanted: Oid, history: History) -> Result<(), Error> {
        local::carry(from, to, wanted, history, |written| {
            self.progressed(written as u64);
            self.state.too_large.set(written > LARGEST_PACK_BYTES);
            !self.state.too_large.get()
        })
    }

    fn fetch_below(&self, repository: &Path, prefix: &str) -> Result<Done, TransportError> {
        self.check_local_remote()?;
        let failed = |error: Error| self.failure(&error);
        let repository = Repository::open(repository).map_err(failed)?;
        let mut remote = repository.remote_anonymous(self.url.reveal()).map_err(failed)?;
        let spec = format!("{prefix}*:{prefix}*");
        remote.fetch(&[&spec], Some(&mut self.fetch_options()), None).map_err(failed)?;
        Ok(Done::default())
    }

    fn fetch_options(&self) -> FetchOptions<'_> {
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(self.callbacks())
            .proxy_options(proxies())
            .download_tags(AutotagOption::None)
            .update_fetchhead(false)
            .follow_redirects(RemoteRedirect::None);
        options
    }

    fn push(&self, repository: &Repository, from: &str, to: &str) -> Result<Done, TransportError> {
        let failed = |error: Error| self.failure(&error);
        let object = repository.refname_to_id(from).map_err(failed)?;
        let mut remote = repository.remote_anonymous(self.url.reveal()).map_err(failed)?;
        let mut options = PushOptions::new();
        options
            .remote_callbacks(self.callbacks())
            .proxy_options(proxies())
            .packbuilder_parallelism(1)
            .follow_redirects(RemoteRedirect::None);
        let spec = format!("{from}:{to}");
        remote.push(&[&spec], Some(&mut options)).map_err(failed)?;
        match self.state.refused.take() {
            None => Ok(Done { reference: Some(to.to_owned()), object: Some(object.to_string()) }),
            Some(said) => Err(self.refusal(to, &said)),
        }
    }

    /// What a server means by refusing one ref: somebody was first, or it never allows it.
    fn refusal(&self, to: &str, said: &str) -> TransportError {
        let first = [
            "fetch first",
            "non-fast-forward",
            "stale info",
            "failed to update ref",
            "cannot lock ref",
            "reference already exists",
        ];
        let kind = if first.iter().any(|sign| said.contains(sign)) {
            FailureKind::NotFastForward
        } else {
            FailureKind::PushRefused
        };
        TransportError::new(kind, format!("{}: {to} was refused: {said}", self.url))
    }

    /// Into a repository of this machine, with a work tree or without: the objects first, then a compare-and-swap of the ref.
    fn push_locally(&self, own: &Repository, from: &str, path: &Path, to: &str) -> Result<Done, TransportError> {
        self.check_local_remote()?;
        let failed = |error: Error| self.local_push_failure(&error);
        let moved = |how: &str| TransportError::new(FailureKind::NotFastForward, format!("{}: {to} {how}", self.url));
        let object = own.refname_to_id(from).map_err(failed)?;
        let done = Done { reference: Some(to.to_owned()), object: Some(object.to_string()) };
        let theirs = Repository::open(path).map_err(failed)?;
        let expected = match theirs.refname_to_id(to) {
            Ok(oid) if oid == object => return Ok(done),
            Ok(oid) => oid,
            Err(error) if error.code() == ErrorCode::NotFound => Oid::ZERO_SHA1,
            Err(error) => return Err(failed(error)),
        };
        self.carry(own, &theirs, object, History::Whole).map_err(failed)?;
        if !expected.is_zero() && !theirs.graph_descendant_of(object, expected).map_err(failed)? {
            return Err(moved("has moved on"));
        }
        match theirs.reference_matching(to, object, true, expected, "gitamp: notes") {
            Ok(_) => Ok(done),
            Err(error) if matches!(error.code(), ErrorCode::Modified | ErrorCode::Locked | ErrorCode::NotFound) => {
                Err(moved("moved just now"))
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn local_push_failure(&self, error: &Error) -> TransportError {
        let said = error.message();
        if said.contains("Permission denied") || said.contains("Read-only") {
            return TransportError::new(FailureKind::PushRefused, format!("{}: {said}", self.url));
        }
        self.failure(error)
    }
}

/// Says of a mirror that it was fetched without history.
fn mark_shallow(repository: &Repository) -> Result<(), Error> {
    repository.config()?.set_i32(DEPTH_KEY, 1)
}

/// Whether a private key is encrypted: by its PEM header, or by the cipher that OpenSSH's own format names first.
fn needs_passphrase(key: &str) -> bool {
    if key.contains("ENCRYPTED") {
        return true;
    }
    let body: String =
        key.lines().filter(|line| !line.starts_with("-----")).flat_map(|line| line.trim().chars()).collect();
    let decoded = BASE64.decode(body).unwrap_or_default();
    decoded.strip_prefix(b"openssh-key-v1\0").is_some_and(|rest| !rest.starts_with(b"\0\0\0\x04none"))
}

/// Proxies as the environment names them.
fn proxies() -> ProxyOptions<'static> {
    let mut options = ProxyOptions::new();
    options.auto();
    options
}

#[expect(
    clippy::disallowed_methods,
    reason = "this process is a shell of its own, with one stopwatch for one transfer"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_nobody_can_unlock_are_told_from_usable_ones() {
        let openssh = |cipher: &str| {
            let mut key = b"openssh-key-v1\0".to_vec();
            key.extend(u32::try_from(cipher.len()).unwrap_or(0).to_be_bytes());
            key.extend_from_slice(cipher.as_bytes());
            key.extend_from_slice(b"and so on");
            let kind = "OPENSSH PRIVATE KEY";
            format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64.encode(key))
        };
        for (key, locked) in [
            (openssh("none"), false),
            (openssh("aes256-ctr"), true),
            ("Proc-Type: 4,ENCRYPTED\n".to_owned(), true),
            ("no key at all".to_owned(), false),
        ] {
            assert_eq!(needs_passphrase(&key), locked, "{key}");
        }
    }

    #[test]
    fn the_tracked_ref_is_chosen_from_what_the_remote_has() {
        let at = |byte: u8| Oid::from_bytes(&[byte; 20]).expect("an id");
        let names =
            ["refs/heads/main", "refs/heads/release/1", "refs/tags/v1.0.0", "refs/tags/v1.0.0^{}", "refs/tags/v1.1.0"];
        let refs = names.iter().zip(1..).map(|(name, byte)| ((*name).to_owned(), at(byte))).collect();
        let heads = Heads { refs, default: Some("refs/heads/main".to_owned()) };
        for (tracked, wanted) in [
            (Tracked::Default, Ok("refs/heads/main")),
            (Tracked::Branch("release/1".to_owned()), Ok("refs/heads/release/1")),
            (Tracked::Branch("gone".to_owned()), Err("it has main, release/1")),
            (Tracked::Tags("v*".to_owned()), Ok("refs/tags/v1.1.0")),
            (Tracked::Tags("w*".to_owned()), Err("no tag matches")),
        ] {
            let chosen = choose(&heads, &tracked);
            match wanted {
                Ok(name) => assert_eq!(chosen.map(|(name, _)| name).as_deref(), Ok(name), "{tracked}"),
                Err(part) => {
                    let error = chosen.expect_err(part);
                    assert!(error.kind == FailureKind::NoSuchRef && error.message.contains(part), "{error}");
                }
            }
        }
        let only_tags = heads.refs.iter().filter(|(name, _)| name.starts_with("refs/tags/")).cloned().collect();
        let error = choose(&Heads { refs: only_tags, default: None }, &Tracked::Branch("main".to_owned()));
        assert!(error.is_err_and(|error| error.message.ends_with("it has no branches")));
        let unborn = Heads { refs: heads.refs, default: None };
        assert!(choose(&unborn, &Tracked::Default).is_err_and(|error| error.message.contains("--branch")));
    }
}
