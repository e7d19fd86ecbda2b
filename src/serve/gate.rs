//! Who may speak as an agent, or command as an operator: what a connection's certificate and a request's bearer token prove, by files that may
//! change meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::links::lock;
use super::quota::{Origin, Origins, Place};
use super::traffic::GateTraffic;
use super::unusable::{Unusable, read};
use crate::identity::jwt::{Issuer, IssuerEntry, Issuers, IssuersFile};
use crate::identity::tokens::{self, Entry, TokenFile, Tokens};
use crate::identity::{Denied, Identity, Source, certificate};
use crate::labels::Labels;
use crate::settings::ProofSettings;
use crate::time::Timestamp;

/// Verified JWTs that are remembered, so that a poll costs a hash and no signature. Only what was good is in there.
const MOST_REMEMBERED: usize = 65_536;

/// What is in use.
struct Loaded {
    tokens: Tokens,
    issuers: Issuers,
    digest: [u8; 32],
}

/// Whom the files of one listener let in, and what they have to say of everybody in them.
pub struct Whose {
    /// Whose they are, for messages: `agents`.
    pub name: &'static str,
    /// What is wrong with a token of the file, besides what is wrong for everybody.
    pub token: fn(&Entry) -> Result<(), String>,
    /// What is wrong with an issuer.
    pub issuer: fn(&IssuerEntry) -> Result<(), String>,
}

impl Whose {
    /// Of agents: any labels, and nothing that makes operators.
    pub const AGENTS: Self = Self {
        name: "agents",
        token: |_| Ok(()),
        issuer: |entry| match entry.roles.is_empty() {
            true => Ok(()),
            false => Err("`roles` are for operators (--api-issuers-file), and mean nothing for agents".to_owned()),
        },
    };
}

/// Tokens and issuers of one listener. Shared by its connections.
pub struct Gate {
    files: ProofSettings,
    whose: Whose,
    reload: Duration,
    current: ArcSwap<Loaded>,
    remembered: Mutex<BTreeMap<[u8; 32], Arc<Identity>>>,
    problem: Mutex<Option<String>>,
    traffic: Arc<GateTraffic>,
    /// Rung when something else counts than before.
    pub(super) changed: Notify,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("whose", &self.whose.name).field("files", &self.files).finish_non_exhaustive()
    }
}

/// The certificate that a connection showed, for as long as somebody rests on it.
#[derive(Debug)]
pub(super) struct Shown {
    /// The certificate itself, and those that lead to its authority.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The [`super::tls::Tls::round`] in which it was found to count.
    pub(super) round: AtomicU64,
    /// It was found not to count any more.
    pub(super) is_revoked: AtomicBool,
}

/// What somebody proved.
#[derive(Clone, Debug, Default)]
pub(super) struct Proof {
    /// The labels that follow from it; none when nothing was proved.
    pub(super) labels: Labels,
    /// The certificate of its connection. WebSockets have none here: theirs is kept by TLS for as long as they are open.
    pub(super) shown: Option<Arc<Shown>>,
    /// What a token proved.
    pub(super) bearer: Option<Arc<Identity>>,
    /// When it does not count any more.
    pub(super) expires: Option<Timestamp>,
    /// Where its connection comes from.
    pub(super) address: Option<IpAddr>,
    /// Its place among the connections and agents with the same token.
    pub(super) place: Option<Arc<Place>>,
}

impl Proof {
    /// What a certificate proves that the handshake took in this round. One whose names cannot be read proves nothing.
    pub(super) fn of_connection(chain: &[CertificateDer<'static>], round: u64, address: Option<IpAddr>) -> Self {
        let shown = || Shown { chain: chain.to_vec(), round: round.into(), is_revoked: AtomicBool::new(false) };
        let shown = (!chain.is_empty()).then(shown);
        let nothing = Self { address, shown: shown.map(Arc::new), ..Self::default() };
        let Some(Ok(names)) = chain.first().map(|own| certificate::names(own)) else { return nothing };
        Self { labels: Labels::proven(names.labels), expires: names.expires, ..nothing }
    }

    /// The same with what a token proves. Where both name a label, the certificate's counts.
    fn and(&self, identity: Arc<Identity>) -> Self {
        let expires = self.expires.into_iter().chain(identity.expires).min();
        let labels = identity.labels.with_proofs(&self.labels);
        Self { labels, shown: self.shown.clone(), bearer: Some(identity), expires, address: self.address, place: None }
    }

    /// True when it rests on the same as another one, and not only on something equal.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let shown = |proof: &Self| proof.shown.as_ref().map(Arc::as_ptr);
        let bearer = |proof: &Self| proof.bearer.as_ref().map(Arc::as_ptr);
        shown(self) == shown(other) && bearer(self) == bearer(other)
    }

    /// Whose agents these are, when it is asked how many somebody brings: those of a token's holder, else those of an address. Of a token
    /// that many machines have, those at one address are a part.
    pub(super) fn origins(&self) -> Option<Origins> {
        let whole = match &self.bearer {
            Some(identity) => Origin::Token(identity.holder),
            None => Origin::of(self.address?),
        };
        Some(Origins { whole, part: whole.at(self.address) })
    }
}

impl Gate {
    /// Reads the files.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn open(
        files: ProofSettings,
        whose: Whose,
        reload: Duration,
        traffic: Arc<GateTraffic>,
    ) -> Result<Self, Unusable> {
        let loaded = load(&files, &whose)?;
        Ok(Self {
            files,
            whose,
            reload,
            current: ArcSwap::from_pointee(loaded),
            remembered: Mutex::default(),
            problem: Mutex::default(),
            traffic,
            changed: Notify::new(),
        })
    }

    /// What is wrong with the files since they changed; what was read before is in use.
    pub fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }

    /// What a request proves that came over a connection with this proof.
    ///
    /// # Errors
    /// When it shows a token that proves nothing.
    pub(super) fn judge(&self, headers: &HeaderMap, certified: &Proof, now: Timestamp) -> Result<Proof, Denied> {
        Ok(match self.bearer(headers, now)? {
            Some(identity) => certified.and(identity),
            None => certified.clone(),
        })
    }

    /// What the bearer token of a request proves; `None`: it shows none.
    ///
    /// # Errors
    /// When it proves nothing. Nobody says two things about who they are.
    pub(super) fn bearer(&self, headers: &HeaderMap, now: Timestamp) -> Result<Option<Arc<Identity>>, Denied> {
        let mut all = headers.get_all(AUTHORIZATION).into_iter();
        let Some(value) = all.next() else { return Ok(None) };
        if all.next().is_some() {
            return Err(Denied::Malformed("there are several `Authorization` headers"));
        }
        let bearer = value.to_str().ok().and_then(|text| text.split_once(' '));
        let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        self.verify(token.ok_or(Denied::Malformed("it is no bearer token"))?, now).map(Some)
    }

    fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Identity>, Denied> {
        let current = self.current.load();
        // JWTs have dots, which tokens that were made here have not.
        match current.tokens.verify(token, now) {
            Err(Denied::Unknown) if !current.issuers.0.is_empty() && token.contains('.') => {}
            outcome => return outcome,
        }
        let hash = tokens::hash(token);
        if let Some(known) = lock(&self.remembered).get(&hash)
            && known.expires.is_none_or(|end| end > now)
            // Somebody may have verified by the keys of before while these were read.
            && matches!(&known.source, Source::Issuer(key) if current.issuers.has(key))
        {
            return Ok(Arc::clone(known));
        }
        self.traffic.signatures.one();
        let identity = Arc::new(current.issuers.verify(token, now)?);
        let mut remembered = lock(&self.remembered);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(hash, Arc::clone(&identity));
        Ok(identity)
    }

    /// True when what a token proved would still be believed.
    pub(super) fn still_believes(&self, identity: &Identity) -> bool {
        let current = self.current.load();
        match &identity.source {
            Source::Token(hash) => current.tokens.find(hash).is_some_and(|known| **known == *identity),
            Source::Issuer(key) => current.issuers.has(key),
        }
    }

    /// Looks at the files from time to time, for as long as it is polled.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.reload).await;
            let this = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || this.reload()).await.is_err() {
                tracing::error!(
                    "reading the files of {}' tokens failed; what was read before stays in use",
                    self.whose.name
                );
            }
        }
    }

    fn reload(&self) {
        let outcome = match digest(&self.files) {
            Ok(digest) if digest == self.current.load().digest => Ok(None),
            Ok(_) => load(&self.files, &self.whose).map(Some),
            Err(error) => Err(error),
        };
        let is_changed = matches!(outcome, Ok(Some(_)));
        let problem = match outcome {
            Ok(None) => None,
            Ok(Some(loaded)) => {
                self.current.store(Arc::new(loaded));
                // Emptied afterwards: whoever verified with the old keys meanwhile must not be remembered.
                lock(&self.remembered).clear();
                self.traffic.reloads.one();
                tracing::info!("the files of {}' tokens and issuers changed and are in use", self.whose.name);
                None
            }
            Err(error) => Some(format!("{error}; what was read before stays in use")),
        };
        self.tell(problem);
        // Last, so that whoever sees what follows from the new files sees them reported as usable too.
        if is_changed {
            self.changed.notify_one();
        }
    }

    /// Remembers and reports what is wrong with the files, when that is something else than before.
    fn tell(&self, problem: Option<String>) {
        let mut current = lock(&self.problem);
        if *current != problem {
            let whose = self.whose.name;
            match &problem {
                Some(problem) => {
                    self.traffic.reload_failures.one();
                    tracing::warn!("the files of {whose}' tokens and issuers changed and cannot be used: {problem}");
                }
                None => tracing::info!("the files of {whose}' tokens and issuers can be used again"),
            }
            self.traffic.is_stale.set(usize::from(problem.is_some()));
            *current = problem;
        }
    }
}

/// The files of keys that the file of issuers names, as they are read.
type Keys = Vec<(IssuerEntry, PathBuf, String)>;

fn text(path: &Path) -> Result<String, Unusable> {
    String::from_utf8(read(path)?).map_err(|_| Unusable::new(path, "it is not text"))
}

fn issuers(path: &Path) -> Result<Keys, Unusable> {
    let file = IssuersFile::parse(&text(path)?).map_err(|reason| Unusable::new(path, reason))?;
    let directory = path.parent().unwrap_or(path);
    let with_keys = |entry: IssuerEntry| {
        let keys = directory.join(&entry.jwks_file);
        let content = text(&keys)?;
        Ok((entry, keys, content))
    };
    file.issuers.into_iter().map(with_keys).collect()
}

fn digest(files: &ProofSettings) -> Result<[u8; 32], Unusable> {
    let mut digest = Sha256::new();
    for path in files.tokens.iter().chain(&files.issuers) {
        digest.update(Sha256::digest(read(path)?));
    }
    if let Some(path) = &files.issuers {
        for (_, _, keys) in issuers(path)? {
            digest.update(Sha256::digest(keys));
        }
    }
    Ok(digest.finalize().into())
}

fn load(files: &ProofSettings, whose: &Whose) -> Result<Loaded, Unusable> {
    let digest = digest(files)?;
    let tokens = match &files.tokens {
        Some(path) => {
            let file = TokenFile::parse(&text(path)?).map_err(|reason| Unusable::new(path, reason))?;
            let wrong =
                |entry: &Entry, reason: String| Unusable::new(path, format!("the token `{}`: {reason}", entry.name));
            file.tokens.iter().try_for_each(|entry| (whose.token)(entry).map_err(|reason| wrong(entry, reason)))?;
            Tokens::new(&file)
        }
        None => Tokens::default(),
    };
    let mut trusted = Vec::new();
    if let Some(path) = &files.issuers {
        for (entry, keys, content) in issuers(path)? {
            let wrong = |reason: String| {
                let keys = keys.display();
                Unusable::new(path, format!("the issuer {} (keys: {keys}): {reason}", entry.issuer))
            };
            (whose.issuer)(&entry).map_err(wrong)?;
            trusted.push(Issuer::new(&entry, &content).map_err(wrong)?);
        }
    }
    Ok(Loaded { tokens, issuers: Issuers(trusted), digest })
}
