//! The file of operators' tokens as it is in use: read again when it changes, whole or not at all.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

use super::tokens::{Denied, Holder, Tokens};
use crate::serve::links::lock;
use crate::time::Timestamp;

/// The largest file: 4 MiB.
const LARGEST_FILE: u64 = 4 << 20;

/// A file of tokens that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", .path.display())]
pub struct UnusableTokens {
    path: PathBuf,
    reason: String,
}

/// Who is known.
pub(super) struct Operators {
    path: PathBuf,
    current: ArcSwap<([u8; 32], Tokens)>,
    problem: Mutex<Option<String>>,
}

impl fmt::Debug for Operators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operators").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Operators {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn open(path: PathBuf) -> Result<Self, UnusableTokens> {
        let loaded = load(&path)?;
        Ok(Self { path, current: ArcSwap::from_pointee(loaded), problem: Mutex::default() })
    }

    /// What is wrong with the file since it changed; what was read before is in use.
    pub(super) fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }

    /// Who sent a request with these headers.
    ///
    /// # Errors
    /// When nothing that counts proves it.
    pub(super) fn judge(&self, headers: &HeaderMap, now: Timestamp) -> Result<Holder, Denied> {
        let mut all = headers.get_all(AUTHORIZATION).into_iter();
        let (Some(one), None) = (all.next(), all.next()) else { return Err(Denied::Missing) };
        let (scheme, token) = one.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Denied::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Denied::Missing);
        }
        self.current.load().1.verify(token.trim(), now).cloned()
    }

    /// Looks at the file from time to time, for as long as it is polled.
    pub(super) async fn watch(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let this = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || this.reload()).await.is_err() {
                tracing::error!("reading the operators' tokens failed; what was read before stays in use");
            }
        }
    }

    fn reload(&self) {
        let problem = match load(&self.path) {
            Ok(loaded) => {
                if loaded.0 != self.current.load().0 {
                    tracing::info!("the operators' tokens changed and are in use");
                    self.current.store(Arc::new(loaded));
                }
                None
            }
            Err(error) => Some(format!("{error}; what was read before stays in use")),
        };
        let mut known = lock(&self.problem);
        if *known != problem {
            if let Some(problem) = &problem {
                tracing::warn!("the operators' tokens changed and cannot be used: {problem}");
            }
            *known = problem;
        }
    }
}

fn load(path: &Path) -> Result<([u8; 32], Tokens), UnusableTokens> {
    let wrong = |reason: String| UnusableTokens { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mode = file.metadata().map_err(|error| wrong(error.to_string()))?.permissions().mode();
    if mode & 0o002 != 0 {
        return Err(wrong(
            "every user of this machine may change it, and so give himself any role: chmod o-w".to_owned(),
        ));
    }
    let mut text = String::new();
    file.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(wrong("it is larger than 4 MiB".to_owned()));
    }
    let tokens = Tokens::parse(&text).map_err(wrong)?;
    Ok((Sha256::digest(&text).into(), tokens))
}
