//! What reads foreign bytes, each as one function of bytes: it must neither panic nor take for good what is not. Shared by the fuzz targets
//! beside it, whose library this is, and by `tests/foreign_bytes.rs`, which calls each of them with a bounded number of inputs.

#![allow(unreachable_pub, reason = "the targets are crates of their own, and the test has this as a module")]

mod agents;
mod fleet;
mod forge;
mod git;
mod house;
mod journal;
mod listeners;
mod local;
mod operators;
mod proofs;

use gitamp::time::Timestamp;
use gitamp::view::text::is_invisible;

pub use agents::{agent_messages, effective_config, frames};
pub use fleet::{commit_message, fleet_files, yaml_documents};
pub use forge::{forge_answers, hooks, http_answers};
pub use git::{git_objects, transfer_answers};
pub use journal::{journal_notes, journal_records};
pub use listeners::{SECRET, admin_requests, api_requests, hook_requests, http_requests, token};
pub use local::local_files;
pub use operators::orders;
pub use proofs::{agent_proofs, certificate, commit_signature, revocations, signer_files};

/// A function of foreign bytes.
pub type Entrance = fn(&[u8]);

/// All of them, by the name of their fuzz target.
pub const ALL: [(&str, Entrance); 24] = [
    ("admin_requests", admin_requests),
    ("agent_messages", agent_messages),
    ("agent_proofs", agent_proofs),
    ("api_requests", api_requests),
    ("certificate", certificate),
    ("commit_message", commit_message),
    ("commit_signature", commit_signature),
    ("effective_config", effective_config),
    ("fleet_files", fleet_files),
    ("forge_answers", forge_answers),
    ("frames", frames),
    ("git_objects", git_objects),
    ("hook_requests", hook_requests),
    ("hooks", hooks),
    ("http_answers", http_answers),
    ("http_requests", http_requests),
    ("journal_notes", journal_notes),
    ("journal_records", journal_records),
    ("local_files", local_files),
    ("orders", orders),
    ("revocations", revocations),
    ("signer_files", signer_files),
    ("transfer_answers", transfer_answers),
    ("yaml_documents", yaml_documents),
];

/// Noon on New Year's Day of 2025, when the commits among the examples were made.
const NOON: Timestamp = Timestamp::from_millis(1_735_732_800_000);

/// What separates the parts of an input that is several things: a line with this and a name.
const PART: &str = "=== ";

/// An input as named parts; what stands before the first name has none.
fn parts(input: &[u8]) -> Vec<(&str, &[u8])> {
    let mut parts = vec![("", 0, input.len())];
    let mut at = 0;
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        if let Some(name) = line.strip_prefix(PART.as_bytes()).and_then(|name| std::str::from_utf8(name).ok()) {
            if let Some(last) = parts.last_mut() {
                last.2 = at;
            }
            parts.push((name.trim_end(), at + line.len(), input.len()));
        }
        at += line.len();
    }
    parts.into_iter().map(|(name, from, to)| (name, &input[from..to])).collect()
}

/// True for one line that steers no terminal and hides nothing.
fn is_harmless(line: &str) -> bool {
    !line.chars().any(|c| c.is_control() || is_invisible(c))
}

/// The same of what `Debug` shows, which escapes what would do harm.
fn was_harmless(shown: &str) -> bool {
    let escaped = |rest: &str| u32::from_str_radix(rest.split_once('}')?.0, 16).ok().and_then(char::from_u32);
    is_harmless(shown) && !shown.split("\\u{").skip(1).filter_map(escaped).any(|c| c.is_control() || is_invisible(c))
}
