//! Whether a new head may be taken: reads the files of keys, asks the mirror for the commits, and lets `trust` and the fleet's policy judge.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::fleet::snapshot::CommitId;
use crate::fleet::{Policy, SignerRules};
use crate::git::lineage::{Lineage, Link, Question};
use crate::git::mirror::{Head, Mirror, ReadError};
use crate::settings::{VerifyMode, VerifySettings};
use crate::trust::{self, AllowedSigners, Keyring, Signer, Signers};

/// Most commits that are verified for one head.
const MOST_COMMITS: usize = 1_000;

/// Judges heads.
#[derive(Debug)]
pub(super) struct Verifier {
    settings: Option<VerifySettings>,
    /// The head that was refused last, while that is the head.
    pub(super) refused: Option<Refused>,
}

/// A head that is not taken because of its signatures.
#[derive(Debug)]
pub(super) struct Refused {
    /// Why not.
    pub(super) reason: String,
    /// The keys that it was judged by: with others it is judged again.
    keys: Option<[u8; 32]>,
}

/// What a head is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// To be taken; something to tell, perhaps.
    Given(Option<String>),
    /// Not to be taken, and why.
    Refused(String),
}

/// Why a head cannot be judged.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerifyError {
    /// The keys cannot be had. Nothing is taken without them, and nothing is rejected.
    #[error("commits cannot be verified: the file of keys {}: {reason}", .path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The mirror failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The keys, and what tells them from those of another time.
struct Keys {
    signers: Signers,
    digest: [u8; 32],
}

impl Verifier {
    pub(super) fn new(settings: Option<VerifySettings>) -> Self {
        Self { settings, refused: None }
    }

    /// Tells the keys of one time from those of another; `None` when they cannot be read.
    fn digest(&self) -> Option<[u8; 32]> {
        self.keys().ok().map(|keys| keys.digest)
    }

    /// Remembers why the head is not taken, and the keys that it was judged by.
    pub(super) fn refuse(&mut self, reason: String) {
        self.refused = Some(Refused { reason, keys: self.digest() });
    }

    /// True when the head was refused, and the keys are others now.
    pub(super) fn has_new_keys(&self) -> bool {
        self.refused.as_ref().is_some_and(|refused| refused.keys != self.digest())
    }

    /// Judges a head by the last accepted revision: its commit, when there is one, and its policy.
    pub(super) async fn judge(
        &self,
        mirror: &Mirror,
        head: &Head,
        accepted: Option<CommitId>,
        policy: Option<&[u8]>,
    ) -> Result<Trust, VerifyError> {
        let rules = rules(policy);
        if accepted == Some(head.commit) || (self.settings.is_none() && rules.is_empty()) {
            return Ok(Trust::Given(None));
        }
        let keys = self.keys()?;
        let mode = self.settings.as_ref().map(|settings| settings.mode);
        let question = Question {
            head: head.commit,
            since: accepted,
            every: mode == Some(VerifyMode::All),
            paths: !rules.is_empty(),
            most: MOST_COMMITS,
        };
        let lineage = match mirror.lineage(question).await {
            Ok(lineage) => lineage,
            Err(ReadError::Refused { reason, .. }) => return Ok(Trust::Refused(reason)),
            Err(error) => return Err(error.into()),
        };
        Ok(decide(mode, &lineage, &rules, |link| trust::verify(&link.raw, link.committed, &keys.signers)))
    }

    fn keys(&self) -> Result<Keys, VerifyError> {
        let mut digest = Sha256::new();
        let mut signers = Signers::default();
        let Some(settings) = &self.settings else { return Ok(Keys { signers, digest: digest.finalize().into() }) };
        if let Some(path) = &settings.allowed_signers {
            let bytes = read(path)?;
            let bad = |reason: String| VerifyError::Keys { path: path.clone(), reason };
            let text = std::str::from_utf8(&bytes).map_err(|_| bad("it is not text".to_owned()))?;
            signers.ssh = Some(AllowedSigners::parse(text).map_err(bad)?);
            digest.update(Sha256::digest(&bytes));
        }
        if let Some(path) = &settings.keyring {
            let bytes = read(path)?;
            let bad = |reason: String| VerifyError::Keys { path: path.clone(), reason };
            signers.openpgp = Some(Keyring::parse(&bytes).map_err(bad)?);
            digest.update(Sha256::digest(&bytes));
        }
        Ok(Keys { signers, digest: digest.finalize().into() })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, VerifyError> {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    let bad = |reason: String| VerifyError::Keys { path: path.to_owned(), reason };
    let unreadable = |error: std::io::Error| bad(error.to_string());
    let mut bytes = Vec::new();
    let limit = trust::LARGEST_KEY_FILE as u64 + 1;
    let file = std::fs::File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.permissions().mode() & 0o002 != 0 {
        return Err(bad("every user of this machine may change it, and so sign: chmod o-w".to_owned()));
    }
    file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > trust::LARGEST_KEY_FILE {
        return Err(bad("it is larger than 1 MiB".to_owned()));
    }
    Ok(bytes)
}

/// The rules of the last accepted revision. Of a policy that is none any more, nothing holds; it was checked when it was accepted.
fn rules(policy: Option<&[u8]>) -> SignerRules {
    let Some(bytes) = policy.filter(|bytes| !bytes.is_empty()) else { return SignerRules::default() };
    Policy::read(&Arc::from("fleet.yaml"), bytes).0.signers
}

/// The decision, from what the mirror told: pure. Without a mode signatures are not asked for, and nobody is a signer.
fn decide(
    mode: Option<VerifyMode>,
    lineage: &Lineage,
    rules: &SignerRules,
    verify: impl Fn(&Link) -> Result<Signer, trust::Untrusted>,
) -> Trust {
    if lineage.is_cut {
        return Trust::Refused(format!(
            "more than {MOST_COMMITS} commits since the last accepted revision, and each has to be verified: start once with --verify-mode head"
        ));
    }
    if lineage.is_torn && mode == Some(VerifyMode::All) {
        return Trust::Refused(
            "the remote gives only part of its history, so the commits since the last accepted revision cannot all be verified: \
             start once with --verify-mode head"
                .to_owned(),
        );
    }
    for link in &lineage.links {
        let signer = match mode {
            Some(_) => match verify(link) {
                Ok(signer) => Some(signer),
                Err(reason) => return Trust::Refused(format!("commit {} {reason}", link.id.short())),
            },
            None => None,
        };
        let is = |written: &str| signer.as_ref().is_some_and(|signer| signer.is(written));
        if let Some(forbidden) = rules.forbid(&link.touched, is) {
            let path = forbidden.path.chars().take(200).flat_map(char::escape_debug).collect::<String>();
            let who = match &signer {
                Some(signer) => format!("is signed by {signer}"),
                None => "is not verified (--verify-mode is off)".to_owned(),
            };
            let unknown = if lineage.follows {
                ""
            } else {
                "; what was accepted before it is not in the mirror, so all of it counts as changed"
            };
            return Trust::Refused(format!(
                "commit {} changes `{path}` and {who}; `signers` in fleet.yaml allow that to {}{unknown}",
                link.id.short(),
                forbidden.signers.join(", ")
            ));
        }
    }
    let is_alone = mode == Some(VerifyMode::All) && !lineage.follows;
    Trust::Given(is_alone.then(|| {
        "only the head was verified: no accepted revision is known that the others would follow on".to_owned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::trust::Untrusted;

    fn link(number: u8, touched: &[&str]) -> Link {
        let touched = touched.iter().map(|path| (*path).to_owned()).collect();
        Link { id: CommitId([number; 20]), committed: Timestamp::from_millis(0), raw: vec![number], touched }
    }

    /// Commit 1 is Ann's, 2 is Bob's, the others are nobody's.
    fn verify(link: &Link) -> Result<Signer, Untrusted> {
        match link.raw[0] {
            1 => Ok(Signer { key: "A".to_owned(), names: vec!["ann".to_owned()] }),
            2 => Ok(Signer { key: "B".to_owned(), names: vec!["bob".to_owned()] }),
            _ => Err(Untrusted::Unsigned),
        }
    }

    #[test]
    fn one_bad_commit_is_enough() {
        let policy =
            "apiVersion: gitamp/v1\nkind: Fleet\nsigners: [{paths: [\"prod/**\", fleet.yaml], signers: [ann]}]\n";
        let strict = rules(Some(policy.as_bytes()));
        let none = rules(None);
        assert!(!strict.is_empty() && none.is_empty() && rules(Some(b"")).is_empty() && rules(Some(b"{")).is_empty());
        let (head, all) = (Some(VerifyMode::Head), Some(VerifyMode::All));
        for (mode, rules, links, cut, words) in [
            (all, &none, vec![link(1, &[]), link(2, &[])], false, ""),
            (all, &none, vec![link(1, &[]), link(3, &[])], false, "commit 0303030 is not signed"),
            (all, &none, vec![link(1, &[])], true, "more than 1000 commits"),
            (head, &none, vec![link(3, &[])], false, "commit 0303030 is not signed"),
            (all, &strict, vec![link(1, &["prod/a"]), link(2, &["test/a"])], false, ""),
            (
                all,
                &strict,
                vec![link(1, &["test/a"]), link(2, &["prod/a"])],
                false,
                "commit 0202020 changes `prod/a` and is signed by bob",
            ),
            (head, &strict, vec![link(2, &["test/a", "fleet.yaml"])], false, "allow that to ann"),
            (None, &strict, vec![link(3, &["test/a"])], false, ""),
            (None, &strict, vec![link(1, &["prod/\u{1b}"])], false, "changes `prod/\\u{1b}` and is not verified"),
        ] {
            let lineage = Lineage { links, is_cut: cut, is_torn: false, follows: true };
            match decide(mode, &lineage, rules, verify) {
                Trust::Given(told) => assert_eq!((words, told), ("", None), "{lineage:?}"),
                Trust::Refused(reason) => {
                    assert!(!words.is_empty() && reason.contains(words), "{lineage:?}: {reason}");
                }
            }
        }
        let torn = Lineage { links: vec![link(1, &[])], is_cut: false, is_torn: true, follows: true };
        assert!(
            matches!(decide(all, &torn, &none, verify), Trust::Refused(reason) if reason.contains("part of its history"))
        );
        assert_eq!(decide(head, &torn, &none, verify), Trust::Given(None), "the head is all that was asked for");
        let mut lost = Lineage { links: vec![link(2, &["prod/a"])], is_cut: false, is_torn: false, follows: false };
        assert!(
            matches!(decide(head, &lost, &strict, verify), Trust::Refused(reason) if reason.contains("counts as changed"))
        );
        lost.follows = true;
        assert!(
            matches!(decide(head, &lost, &strict, verify), Trust::Refused(reason) if !reason.contains("counts as changed"))
        );
        let alone = Lineage { links: vec![link(1, &[])], is_cut: false, is_torn: false, follows: false };
        assert!(
            matches!(decide(all, &alone, &none, verify), Trust::Given(Some(told)) if told.contains("only the head"))
        );
        assert_eq!(decide(head, &alone, &none, verify), Trust::Given(None), "which is all that was asked for");
    }
}
