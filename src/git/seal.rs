//! What shows that notes and records were written by somebody who has the journal's key, and not just by somebody who may push.
//!
//! Every note ends with a line that holds a MAC (HMAC-SHA-256) over the ref, the commit that it is about, and its text. All records
//! together carry one seal: a MAC over the ref, a number that only grows, and the names and contents of them all. So no record can be
//! changed, left out, moved to another group or instance, or be put beside records of another time without the seal breaking.
//! Pure: texts and digests in, texts and judgements out.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::fleet::snapshot::CommitId;
use crate::settings::Secret;

/// How the last line of a note with a MAC begins; a comment to whoever reads the note as YAML.
const NOTE_MARK: &str = "# gitamp-mac: ";
/// What the MAC of a note is about, so that it is never taken for another one's.
const NOTE_DOMAIN: &[u8] = b"gitamp journal note v1";
/// What a seal is about.
const SEAL_DOMAIN: &[u8] = b"gitamp journal records v1";
/// What the name of a key is about.
const KEY_DOMAIN: &[u8] = b"gitamp journal key v1";
/// The version of the seal's format.
const VERSION: u32 = 1;
/// What stands above a seal.
const HEAD: &str =
    "# Shows that the records beside it were written with the journal's key (gitamp serve --journal-key-file).\n";
/// The longest line with a MAC, in bytes.
pub(super) const NOTE_LINE_BYTES: usize = NOTE_MARK.len() + KEY_NAME_DIGITS + 1 + 64 + 1;
/// How many hexadecimal digits name a key.
const KEY_NAME_DIGITS: usize = 16;
/// The largest seal, in bytes.
pub(super) const LARGEST_SEAL_BYTES: usize = 4096;

/// The journal's keys: the first one signs, by each of them what is signed is believed, so that one can replace another.
#[derive(Clone, PartialEq, Eq)]
pub struct JournalKeys {
    keys: Vec<Secret>,
}

impl fmt::Debug for JournalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.keys.len())
    }
}

/// Whether what stands in a repository is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticity {
    /// It was written with one of the keys.
    Genuine,
    /// It carries no MAC.
    Unsigned,
    /// It carries one of another key, or it was changed, or it belongs elsewhere.
    Wrong,
}

/// The seal of all records, as it stands beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seal {
    version: u32,
    /// Grows with every change of the records.
    pub(super) sequence: u64,
    /// The name of the key, for people.
    key: String,
    mac: String,
}

impl JournalKeys {
    /// These keys; `None` when there is none among them.
    pub fn new(keys: Vec<Secret>) -> Option<Self> {
        let keys: Vec<Secret> = keys.into_iter().filter(|key| !key.expose().is_empty()).collect();
        (!keys.is_empty()).then_some(Self { keys })
    }

    /// The note with its MAC behind it. The text must leave room for it.
    pub(super) fn sign_note(&self, reference: &str, commit: CommitId, text: &str) -> String {
        let mut text = text.to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let Some(key) = self.keys.first() else { return text };
        let Some(mac) = note_mac(key, reference, commit, &text).map(digits) else { return text };
        let line = format!("{NOTE_MARK}{} {mac}\n", name_of(key));
        text + &line
    }

    /// Whether the note was written with one of these keys, for this ref and this commit, and nothing was added since.
    pub fn judge_note(&self, reference: &str, commit: CommitId, note: &str) -> Authenticity {
        let at = note.rfind(NOTE_MARK).filter(|at| *at == 0 || note[..*at].ends_with('\n'));
        let Some((text, line)) = at.and_then(|at| note.split_at_checked(at)) else { return Authenticity::Unsigned };
        let digits = line.strip_prefix(NOTE_MARK).and_then(|rest| rest.trim_end().split_once(' ')).map(|(_, mac)| mac);
        let Some(claimed) = digits.and_then(decoded) else { return Authenticity::Wrong };
        self.fits(&claimed, |key| note_mac(key, reference, commit, text))
    }

    /// The seal of records with this digest.
    pub(super) fn seal(&self, reference: &str, sequence: u64, digest: &[u8; 32]) -> Option<String> {
        let key = self.keys.first()?;
        let mac = digits(seal_mac(key, reference, sequence, digest)?);
        let seal = Seal { version: VERSION, sequence, key: name_of(key), mac };
        serde_yaml::to_string(&seal).ok().map(|text| format!("{HEAD}{text}"))
    }

    /// Whether this seal is that of records with this digest.
    pub(super) fn judge_seal(&self, reference: &str, seal: &Seal, digest: &[u8; 32]) -> Authenticity {
        match decoded(&seal.mac) {
            Some(claimed) if seal.version == VERSION => {
                self.fits(&claimed, |key| seal_mac(key, reference, seal.sequence, digest))
            }
            Some(_) | None => Authenticity::Wrong,
        }
    }

    /// Whether the key that signs now is the one that this seal names. For tidiness only: a name proves nothing.
    pub(super) fn is_by_first(&self, seal: &Seal) -> bool {
        self.keys.first().is_some_and(|key| name_of(key) == seal.key)
    }

    /// Whether one of the keys is called so.
    pub(super) fn knows(&self, seal: &Seal) -> bool {
        self.keys.iter().any(|key| name_of(key) == seal.key)
    }

    /// Every key is tried, so that the time says nothing about which one fits.
    fn fits(&self, claimed: &[u8; 32], mac: impl Fn(&Secret) -> Option<Hmac<Sha256>>) -> Authenticity {
        let mut fits = false;
        for key in &self.keys {
            fits |= mac(key).is_some_and(|mac| mac.verify_slice(claimed).is_ok());
        }
        if fits { Authenticity::Genuine } else { Authenticity::Wrong }
    }
}

impl Seal {
    /// Reads a seal; `None` for anything that is none.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > LARGEST_SEAL_BYTES {
            return None;
        }
        std::str::from_utf8(bytes).ok().and_then(|text| serde_yaml::from_str(text).ok())
    }
}

fn note_mac(key: &Secret, reference: &str, commit: CommitId, text: &str) -> Option<Hmac<Sha256>> {
    mac(key, NOTE_DOMAIN, &[reference.as_bytes(), &commit.0, text.as_bytes()])
}

fn seal_mac(key: &Secret, reference: &str, sequence: u64, digest: &[u8; 32]) -> Option<Hmac<Sha256>> {
    mac(key, SEAL_DOMAIN, &[reference.as_bytes(), &sequence.to_be_bytes(), digest])
}

/// The MAC over these parts, each with its length before it, so that none can lend bytes to another.
fn mac(key: &Secret, domain: &[u8], parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
    let mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()).ok()?;
    let lengths =
        |mac: Hmac<Sha256>, part: &&[u8]| mac.chain_update((part.len() as u64).to_be_bytes()).chain_update(part);
    Some([domain].iter().chain(parts).fold(mac, lengths))
}

fn digits(mac: Hmac<Sha256>) -> String {
    hex::encode(mac.finalize().into_bytes())
}

/// What a key is called: it says which one it is, and nothing about it.
fn name_of(key: &Secret) -> String {
    let mut name = mac(key, KEY_DOMAIN, &[]).map(digits).unwrap_or_default();
    name.truncate(KEY_NAME_DIGITS);
    name
}

fn decoded(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).ok().map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REF: &str = "refs/notes/gitamp/default";

    fn keys(all: &[&str]) -> JournalKeys {
        JournalKeys::new(all.iter().map(|key| Secret::new(*key)).collect()).expect("keys")
    }

    #[test]
    fn notes_are_believed_where_they_belong_and_as_they_were_written() {
        let (ours, commit) = (keys(&["one"]), CommitId([7; 20]));
        let note = ours.sign_note(REF, commit, "ending: succeeded");
        let last = note.lines().last().expect("a line");
        assert!(note.starts_with("ending: succeeded\n# gitamp-mac: ") && last.len() + 1 == NOTE_LINE_BYTES, "{note}");
        assert_eq!(ours.sign_note(REF, commit, "ending: succeeded"), note, "the same note is the same blob");
        let other = CommitId([8; 20]);
        let twice = format!("forged\n{note}");
        let flipped = note.replace("succeeded", "succeedee");
        for (what, keys, reference, commit, note, wanted) in [
            ("as written", keys(&["one"]), REF, commit, note.as_str(), Authenticity::Genuine),
            ("by the older of two keys", keys(&["two", "one"]), REF, commit, &note, Authenticity::Genuine),
            ("by another key", keys(&["two"]), REF, commit, &note, Authenticity::Wrong),
            ("on another commit", keys(&["one"]), REF, other, &note, Authenticity::Wrong),
            ("of another instance", keys(&["one"]), "refs/notes/gitamp/eu", commit, &note, Authenticity::Wrong),
            ("changed", keys(&["one"]), REF, commit, &flipped, Authenticity::Wrong),
            ("something before it", keys(&["one"]), REF, commit, &twice, Authenticity::Wrong),
            ("something behind it", keys(&["one"]), REF, commit, &format!("{note}more"), Authenticity::Wrong),
            ("without", keys(&["one"]), REF, commit, "ending: succeeded\n", Authenticity::Unsigned),
            ("a broken mark", keys(&["one"]), REF, commit, "x\n# gitamp-mac: ä", Authenticity::Wrong),
            ("empty", keys(&["one"]), REF, commit, "", Authenticity::Unsigned),
        ] {
            assert_eq!(keys.judge_note(reference, commit, note), wanted, "{what}");
        }
    }

    #[test]
    fn seals_are_bound_to_ref_sequence_and_content() {
        let ours = keys(&["one"]);
        let text = ours.seal(REF, 5, &[1; 32]).expect("a seal");
        let seal = Seal::read(text.as_bytes()).expect("it is read");
        assert!(seal.sequence == 5 && ours.is_by_first(&seal) && !keys(&["two", "one"]).is_by_first(&seal), "{text}");
        assert!(!text.contains("one") || text.contains("# Shows"), "{text}");
        let later = Seal { sequence: 6, ..seal.clone() };
        let newer = Seal { version: 2, ..seal.clone() };
        for (what, keys, reference, seal, digest, wanted) in [
            ("as made", keys(&["one"]), REF, &seal, [1; 32], Authenticity::Genuine),
            ("while keys change", keys(&["two", "one"]), REF, &seal, [1; 32], Authenticity::Genuine),
            ("by another key", keys(&["two"]), REF, &seal, [1; 32], Authenticity::Wrong),
            ("of another instance", keys(&["one"]), "refs/notes/gitamp/eu", &seal, [1; 32], Authenticity::Wrong),
            ("of other records", keys(&["one"]), REF, &seal, [2; 32], Authenticity::Wrong),
            ("made newer", keys(&["one"]), REF, &later, [1; 32], Authenticity::Wrong),
            ("of another version", keys(&["one"]), REF, &newer, [1; 32], Authenticity::Wrong),
        ] {
            assert_eq!(keys.judge_seal(reference, seal, &digest), wanted, "{what}");
        }
        for broken in ["", "version: 1\n", "[]", "sequence: -1", &"x".repeat(5000)] {
            assert!(Seal::read(broken.as_bytes()).is_none(), "{broken}");
        }
    }

    #[test]
    fn parts_lend_each_other_no_bytes_and_domains_are_apart() {
        let key = Secret::new("one");
        let hex = |domain: &[u8], parts: &[&[u8]]| mac(&key, domain, parts).map(digits);
        assert_ne!(hex(b"d", &[b"ab", b"c"]), hex(b"d", &[b"a", b"bc"]));
        assert_ne!(hex(b"d", &[b"a"]), hex(b"da", &[]));
        // Frozen: another value would make every journal with a key unbelieved.
        assert_eq!(name_of(&key).len(), KEY_NAME_DIGITS);
        assert!(JournalKeys::new(vec![Secret::new("")]).is_none(), "nothing is signed by an empty key");
        assert_eq!(format!("{:?}", keys(&["hunter2"])), "1 keys");
    }
}
