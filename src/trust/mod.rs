//! Who signed a commit: a commit's raw bytes and the keys that are allowed, to a signer or the reason why there is none.
//!
//! SSH signatures are judged as `git verify-commit` judges them with `gpg.ssh.allowedSignersFile`, OpenPGP ones by a keyring of public
//! keys. Nothing is fetched, no agent or key server is asked, and no program is run. What a signer may change is the fleet's policy.

mod commit;
mod openpgp;
mod ssh;

use std::fmt;

use crate::time::Timestamp;

pub use openpgp::Keyring;
pub use ssh::AllowedSigners;

/// The largest signature that is read: 64 KiB. Real ones have a few hundred bytes, or some kilobytes with certificates.
const LARGEST_SIGNATURE: usize = 64 << 10;

/// The largest file of keys: 1 MiB.
pub const LARGEST_KEY_FILE: usize = 1 << 20;

/// Everybody whose signature counts.
#[derive(Debug, Default)]
pub struct Signers {
    /// By SSH keys; `None` when no such file is set.
    pub ssh: Option<AllowedSigners>,
    /// By OpenPGP keys; `None` when no such file is set.
    pub openpgp: Option<Keyring>,
}

/// Who made a good signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The key: `SHA256:<base64>` for SSH, hexadecimal digits for OpenPGP.
    pub key: String,
    /// The principals or mail addresses that the key stands for.
    pub names: Vec<String>,
}

impl Signer {
    /// True when this is what a rule calls a signer: by one of the names, whatever the case of its letters, or by the key.
    pub fn is(&self, written: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(written))
            || self.key == written
            || (!written.contains(':') && self.key.eq_ignore_ascii_case(&written.replace(' ', "")))
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names.first() {
            Some(name) => f.write_str(name),
            None => f.write_str(&self.key),
        }
    }
}

/// Why a commit is nobody's, in words that go on after "commit ...".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// No signature at all.
    #[error("is not signed")]
    Unsigned,
    /// It cannot be told what was signed.
    #[error("is not to be read as a commit: {0}")]
    Odd(&'static str),
    /// More than anybody signs with.
    #[error("carries a signature of {0} bytes, more than 64 KiB")]
    TooLarge(usize),
    /// Neither SSH nor OpenPGP.
    #[error("is signed with {0}, which is not supported: sign with an SSH or an OpenPGP key")]
    Unsupported(&'static str),
    /// Not what such a signature looks like.
    #[error("carries a broken {kind} signature: {reason}")]
    Malformed {
        /// SSH or OpenPGP.
        kind: &'static str,
        /// What the reader says.
        reason: String,
    },
    /// There is no list to look the key up in.
    #[error("is signed with an {kind} key, and no {kind} keys are set ({setting})")]
    NoKeys {
        /// SSH or OpenPGP.
        kind: &'static str,
        /// The setting that names the file.
        setting: &'static str,
    },
    /// By somebody else.
    #[error("is signed with the key {0}, which is not among the allowed ones")]
    UnknownKey(String),
    /// Made for something else than Git, or with a key that is not for that.
    #[error("is signed with the key {key} of {who}, which is not meant for that: {reason}")]
    NotForThis {
        /// The key.
        key: String,
        /// Whose it is.
        who: String,
        /// What it is meant for.
        reason: String,
    },
    /// Outside of the time in which the key counts.
    #[error("is signed with the key {key} of {who}, which {when}")]
    NotValidThen {
        /// The key.
        key: String,
        /// Whose it is.
        who: String,
        /// From when, or until when, it is valid.
        when: String,
    },
    /// Taken back by its owner.
    #[error("is signed with the key {key} of {who}, which was revoked")]
    Revoked {
        /// The key.
        key: String,
        /// Whose it is.
        who: String,
    },
    /// The content is another one than was signed.
    #[error("was changed after it was signed, or its signature is another commit's")]
    Wrong,
}

/// Verifies a commit, given as the bytes of its object. Keys count that were valid when it was committed (`committed`), or, with OpenPGP,
/// when the signature says that it was made: as Git has it. Both are the signer's word; who must not sign any more has to be taken
/// out of the files.
///
/// # Errors
/// When it is not signed by one of `signers`; the reason is for its author.
pub fn verify(raw: &[u8], committed: Timestamp, signers: &Signers) -> Result<Signer, Untrusted> {
    let signed = commit::split(raw)?.ok_or(Untrusted::Unsigned)?;
    let signature = &signed.signature;
    if signature.len() > LARGEST_SIGNATURE {
        return Err(Untrusted::TooLarge(signature.len()));
    }
    let starts = |text: &str| signature.trim_ascii_start().starts_with(text.as_bytes());
    if starts("-----BEGIN SSH SIGNATURE-----") {
        let setting = "--verify-allowed-signers";
        let allowed = signers.ssh.as_ref().ok_or(Untrusted::NoKeys { kind: "SSH", setting })?;
        allowed.verify(signature, &signed.payload, committed)
    } else if starts("-----BEGIN PGP SIGNATURE-----") || starts("-----BEGIN PGP MESSAGE-----") {
        let keyring =
            signers.openpgp.as_ref().ok_or(Untrusted::NoKeys { kind: "OpenPGP", setting: "--verify-keyring" })?;
        keyring.verify(signature, &signed.payload)
    } else if starts("-----BEGIN SIGNED MESSAGE-----") || starts("-----BEGIN CERTIFICATE-----") {
        Err(Untrusted::Unsupported("X.509 (S/MIME, gitsign)"))
    } else {
        Err(Untrusted::Unsupported("something unknown"))
    }
}

/// Text of a library or of a key as it may stand in notes: one short line without control characters.
fn shown(text: &str) -> String {
    text.chars().take(160).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests;
