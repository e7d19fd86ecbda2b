//! SSH signatures (SSHSIG), and the file of allowed signers in OpenSSH's form.

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use ssh_key::{HashAlg, PublicKey, SshSig};

use super::{Signer, Untrusted, shown};
use crate::time::Timestamp;

/// What Git signs for.
const NAMESPACE: &str = "git";

/// Most lines with keys.
const MOST_KEYS: usize = 10_000;

/// The signers that `allowed_signers` lists, one a line: principals, options, a public key (ssh-keygen(1), "ALLOWED SIGNERS").
#[derive(Debug)]
pub struct AllowedSigners(Vec<Line>);

#[derive(Debug)]
struct Line {
    principals: Vec<String>,
    key: PublicKey,
    /// Empty: all of them.
    namespaces: Vec<String>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
    is_authority: bool,
}

impl AllowedSigners {
    /// Reads the file. Times without a zone are UTC here, where OpenSSH takes its machine's. Certificate authorities may stand in it, and
    /// allow nobody: signatures with certificates are not verified here.
    ///
    /// # Errors
    /// The first line that cannot be used, with its number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if lines.len() == MOST_KEYS {
                return Err(format!("more than {MOST_KEYS} keys"));
            }
            lines.push(Line::parse(line).map_err(|reason| format!("line {}: {reason}", index + 1))?);
        }
        if lines.is_empty() { Err("there is no key in it".to_owned()) } else { Ok(Self(lines)) }
    }

    /// The signer, when one of the lines allows this signature at that time.
    pub(super) fn verify(&self, armoured: &[u8], payload: &[u8], at: Timestamp) -> Result<Signer, Untrusted> {
        let malformed = |error: ssh_key::Error| Untrusted::Malformed { kind: "SSH", reason: shown(&error.to_string()) };
        let signature = SshSig::from_pem(armoured.trim_ascii()).map_err(malformed)?;
        let embedded = PublicKey::new(signature.public_key().clone(), "");
        let key = embedded.fingerprint(HashAlg::Sha256).to_string();
        let lines = || self.0.iter().filter(|line| !line.is_authority && line.key.key_data() == embedded.key_data());
        let Some(first) = lines().next() else { return Err(Untrusted::UnknownKey(key)) };
        let who = first.principals.join(",");
        if signature.namespace() != NAMESPACE {
            let reason =
                format!("its signature was made for `{}`, not for `{NAMESPACE}`", shown(signature.namespace()));
            return Err(Untrusted::NotForThis { key, who, reason });
        }
        // First whether it is good at all: what follows is about whose it is.
        embedded.verify(NAMESPACE, payload, &signature).map_err(|_| Untrusted::Wrong)?;
        let meant = || lines().filter(|line| line.is_for(NAMESPACE));
        if meant().next().is_none() {
            let reason = format!("its `namespaces` do not include `{NAMESPACE}`");
            return Err(Untrusted::NotForThis { key, who, reason });
        }
        match meant().find(|line| line.when_not(at).is_none()) {
            Some(line) => Ok(Signer { key, names: line.principals.clone() }),
            None => {
                let when = meant().find_map(|line| line.when_not(at)).unwrap_or_default();
                Err(Untrusted::NotValidThen { key, who, when })
            }
        }
    }
}

impl Line {
    fn parse(line: &str) -> Result<Self, String> {
        let (principals, rest) = word(line)?;
        let principals: Vec<String> =
            principals.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect();
        if principals.is_empty() {
            return Err("it begins with the principals, like `ann@example.com`".to_owned());
        }
        let mut parsed = Self {
            principals,
            key: PublicKey::new(ssh_key::public::KeyData::Ed25519(ssh_key::public::Ed25519PublicKey([0; 32])), ""),
            namespaces: Vec::new(),
            valid_after: None,
            valid_before: None,
            is_authority: false,
        };
        let mut key = rest;
        let (first, behind) = word(rest)?;
        let is_key = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|kind| first.starts_with(kind));
        if !is_key {
            parsed.options(&first)?;
            key = behind;
        }
        parsed.key = PublicKey::from_openssh(key).map_err(|error| format!("its key cannot be read: {error}"))?;
        Ok(parsed)
    }

    fn options(&mut self, text: &str) -> Result<(), String> {
        for option in split_options(text) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let value = value.trim_matches('"');
            match name.to_ascii_lowercase().as_str() {
                "cert-authority" => self.is_authority = true,
                "namespaces" => {
                    self.namespaces = value.split(',').map(|one| one.trim().to_owned()).collect();
                }
                "valid-after" => self.valid_after = Some(time(value)?),
                "valid-before" => self.valid_before = Some(time(value)?),
                _ => return Err(format!("`{}` is no option of a signer", shown(name))),
            }
        }
        Ok(())
    }

    /// As OpenSSH: a list of patterns with `*` and `?`; one with `!` in front takes back.
    fn is_for(&self, namespace: &str) -> bool {
        let fits =
            |pattern: &str| globset::Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(namespace));
        let taken_back = self.namespaces.iter().filter_map(|one| one.strip_prefix('!')).any(fits);
        self.namespaces.is_empty() || (!taken_back && self.namespaces.iter().any(|one| fits(one)))
    }

    /// Why the key does not count at that time; `None` when it does.
    fn when_not(&self, at: Timestamp) -> Option<String> {
        match (self.valid_after, self.valid_before) {
            (Some(after), _) if at < after => Some(format!("is valid only after {after}, and the commit says {at}")),
            (_, Some(before)) if at >= before => Some(format!("was valid before {before}, and the commit says {at}")),
            (_, _) => None,
        }
    }
}

/// The first word, and what follows it. Spaces between quotes are part of the word, and its outer quotes are not.
fn word(text: &str) -> Result<(String, &str), String> {
    let mut is_quoted = false;
    let end = text.find(|letter: char| {
        is_quoted ^= letter == '"';
        letter.is_ascii_whitespace() && !is_quoted
    });
    let (first, rest) = text.split_at(end.unwrap_or(text.len()));
    if rest.trim().is_empty() && end.is_some() || is_quoted && end.is_none() {
        return Err("a quote is not closed, or nothing follows".to_owned());
    }
    let whole = first.strip_prefix('"').and_then(|first| first.strip_suffix('"')).unwrap_or(first);
    Ok((whole.to_owned(), rest.trim_start()))
}

fn split_options(text: &str) -> Vec<&str> {
    let mut is_quoted = false;
    text.split(|letter: char| {
        is_quoted ^= letter == '"';
        letter == ',' && !is_quoted
    })
    .filter(|option| !option.is_empty())
    .collect()
}

/// `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, with or without `Z`.
fn time(text: &str) -> Result<Timestamp, String> {
    let digits = text.strip_suffix('Z').unwrap_or(text);
    let padded = match digits.len() {
        8 => format!("{digits}000000"),
        12 => format!("{digits}00"),
        _ => digits.to_owned(),
    };
    let parsed = strtime::parse("%Y%m%d%H%M%S", &padded).and_then(|parts| parts.to_datetime());
    let seconds = parsed.and_then(|at: DateTime| at.to_zoned(TimeZone::UTC)).map(|at| at.timestamp().as_second());
    match seconds.ok().and_then(|seconds| u64::try_from(seconds).ok()).filter(|_| padded.len() == 14) {
        Some(seconds) => Ok(Timestamp::from_millis(seconds.saturating_mul(1000))),
        None => Err(format!("`{}` is no time like 20260131 or 202601311200Z", shown(text))),
    }
}
