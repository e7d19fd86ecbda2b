//! Who somebody proved to be, whatever they say of themselves: client certificates and the names in them.
//!
//! Whether a certificate was issued by whom we trust is judged by the TLS handshake; here its names become labels.

pub mod certificate;

/// Longest value of a label that a credential gives, in bytes. What is longer is left out, because a cut name is another name.
pub const LONGEST_VALUE: usize = 1024;

/// Most labels that one credential gives.
pub const MOST_LABELS: usize = 64;

/// `text`, when it may be the value of a label: not empty, printable, and not too long.
fn presentable(text: &str) -> Option<&str> {
    let fine = !text.is_empty() && text.len() <= LONGEST_VALUE && !text.chars().any(char::is_control);
    fine.then_some(text)
}
