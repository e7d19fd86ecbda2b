//! Who may speak as an agent: what a connection's certificate and a request's bearer token prove, by files that may change meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::links::lock;
use super::quota::{Origin, Place};
use super::traffic::GateTraffic;
use super::unusable::{Unusable, read};
use crate::identity::jwt::{Issuer, Issuers, IssuersFile};
use crate::identity::tokens::{self, TokenFile, Tokens};
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

/// Tokens and issuers of one listener. Shared by its connections.
pub struct Gate {
    files: ProofSettings,
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
        f.debug_struct("Gate").field("files", &self.files).finish_non_exhaustive()
    }
}

/// What somebody proved.
#[derive(Clone, Debug, Default)]
pub(super) struct Proof {
    /// The labels that follow from it; none when nothing was proved.
    pub(super) labels: Labels,
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
    /// What a certificate proves that the handshake took. One whose names cannot be read proves nothing.
    pub(super) fn of_connection(chain: &[CertificateDer<'static>], address: Option<IpAddr>) -> Self {
        let nothing = Self { address, ..Self::default() };
        let Some(Ok(names)) = chain.first().map(|own| certificate::names(own)) else { return nothing };
        Self { labels: Labels::proven(names.labels), expires: names.expires, ..nothing }
    }

    /// The same with what a token proves. Where both name a label, the certificate's counts.
    fn and(&self, identity: Arc<Identity>) -> Self {
        let expires = self.expires.into_iter().chain(identity.expires).min();
        let labels = identity.labels.with_proofs(&self.labels);
        Self { labels, bearer: Some(identity), expires, address: self.address, place: None }
    }

    /// Whose agents these are, when it is asked how many somebody brings: those of a token, else those of an address.
    pub(super) fn origin(&self) -> Option<Origin> {
        match &self.bearer {
            Some(identity) => Some(match identity.source {
                Source::Token(hash) | Source::Issuer(hash) => Origin::Token(hash),
            }),
            None => self.address.map(Origin::of),
        }
    }
}

impl Gate {
    /// Reads the files.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn open(files: ProofSettings, reload: Duration, traffic: Arc<GateTraffic>) -> Result<Self, Unusable> {
        let loaded = load(&files)?;
        Ok(Self {
            files,
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
        let Some(value) = headers.get(AUTHORIZATION) else { return Ok(certified.clone()) };
        let bearer = value.to_str().ok().and_then(|text| text.split_once(' '));
        let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let token = token.ok_or(Denied::Malformed("it is no bearer token"))?;
        Ok(certified.and(self.verify(token, now)?))
    }

    fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Identity>, Denied> {
        let current = self.current.load();
        if token.starts_with(tokens::BEGINNING) || current.issuers.0.is_empty() {
            return current.tokens.verify(token, now);
        }
        let hash = tokens::hash(token);
        if let Some(known) = lock(&self.remembered).get(&hash)
            && known.expires.is_none_or(|end| end > now)
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
                tracing::error!("reading the files of tokens failed; what was read before stays in use");
            }
        }
    }

    fn reload(&self) {
        let outcome = match digest(&self.files) {
            Ok(digest) if digest == self.current.load().digest => Ok(None),
            Ok(_) => load(&self.files).map(Some),
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
                tracing::info!("the files of tokens and issuers changed and are in use");
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
            if let Some(problem) = &problem {
                self.traffic.reload_failures.one();
                tracing::warn!("the files of tokens and issuers changed and cannot be used: {problem}");
            }
            self.traffic.is_stale.set(usize::from(problem.is_some()));
            *current = problem;
        }
    }
}

/// The files of keys that the file of issuers names, as they are read.
type Keys = Vec<(crate::identity::jwt::IssuerEntry, std::path::PathBuf, String)>;

fn text(path: &Path) -> Result<String, Unusable> {
    String::from_utf8(read(path)?).map_err(|_| Unusable::new(path, "it is not text"))
}

fn issuers(path: &Path) -> Result<Keys, Unusable> {
    let file = IssuersFile::parse(&text(path)?).map_err(|reason| Unusable::new(path, reason))?;
    let directory = path.parent().unwrap_or(path);
    let with_keys = |entry: crate::identity::jwt::IssuerEntry| {
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

fn load(files: &ProofSettings) -> Result<Loaded, Unusable> {
    let digest = digest(files)?;
    let tokens = match &files.tokens {
        Some(path) => {
            let file = TokenFile::parse(&text(path)?).map_err(|reason| Unusable::new(path, reason))?;
            Tokens::new(&file)
        }
        None => Tokens::default(),
    };
    let mut trusted = Vec::new();
    if let Some(path) = &files.issuers {
        for (entry, keys, content) in issuers(path)? {
            let issuer = Issuer::new(&entry, &content);
            trusted.push(
                issuer.map_err(|reason| Unusable::new(&keys, format!("for the issuer {}: {reason}", entry.issuer)))?,
            );
        }
    }
    Ok(Loaded { tokens, issuers: Issuers(trusted), digest })
}
