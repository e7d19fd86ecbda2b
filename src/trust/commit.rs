//! A commit object's bytes, taken apart into its signature and what was signed.
//!
//! Own work instead of libgit2's extraction, which looks for the header in the message as well and drops letters of others that
//! begin alike, so that a commit could be read with other parents than were signed.

use super::Untrusted;

/// A signed commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// The signature, armoured.
    pub(super) signature: Vec<u8>,
    /// What it is over: the object without the headers of signatures.
    pub(super) payload: Vec<u8>,
}

/// Takes a commit apart; `None` when it carries no signature. The headers of both of Git's hashes are left out of the payload, as Git does; in
/// a repository of SHA-1 the one for SHA-256 says nothing.
pub(super) fn split(raw: &[u8]) -> Result<Option<Signed>, Untrusted> {
    let end = raw.windows(2).position(|two| two == b"\n\n").map_or(raw.len(), |at| at + 1);
    let (head, message) = raw.split_at(end);
    if head.contains(&0) {
        return Err(Untrusted::Odd("its head contains a zero byte"));
    }
    let mut signature: Option<Vec<u8>> = None;
    let mut payload = Vec::with_capacity(raw.len());
    let mut lines = head.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let (name, value) = split_name(line);
        if name != b"gpgsig" && name != b"gpgsig-sha256" {
            payload.extend_from_slice(line);
            continue;
        }
        let mut whole = value.to_vec();
        // What goes on begins with a space, which is no part of it.
        while let Some(next) = lines.next_if(|next| next.starts_with(b" ")) {
            whole.extend_from_slice(next.get(1..).unwrap_or_default());
        }
        if name == b"gpgsig" && signature.replace(whole).is_some() {
            return Err(Untrusted::Odd("it carries several signatures"));
        }
    }
    payload.extend_from_slice(message);
    Ok(signature.map(|signature| Signed { signature, payload }))
}

fn split_name(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b' ') {
        Some(at) => (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default()),
        None => (line, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_only_and_exactly_one() {
        let split = |text: &str| split(text.as_bytes());
        let signed = |signature: &str, payload: &str| {
            Ok(Some(Signed { signature: signature.as_bytes().to_vec(), payload: payload.as_bytes().to_vec() }))
        };
        for (raw, wanted, why) in [
            ("tree 1\nauthor a\n\nm\n", Ok(None), "unsigned"),
            ("tree 1\ngpgsig A\n B\n \n C\nx-y z\n\nm\n", signed("A\nB\n\nC\n", "tree 1\nx-y z\n\nm\n"), "with lines"),
            ("tree 1\n\ngpgsig A\n\nm\n", Ok(None), "in the message it is text"),
            ("tree 1\ngpgsigparent 2\n\nm\n", Ok(None), "another header that begins alike"),
            (
                "tree 1\ngpgsigparent 2\ngpgsig A\n\nm\n",
                signed("A\n", "tree 1\ngpgsigparent 2\n\nm\n"),
                "which stays in what was signed",
            ),
            ("tree 1\ngpgsig-sha256 B\n C\ngpgsig A\n\nm", signed("A\n", "tree 1\n\nm"), "as Git does"),
            ("gpgsig A\ngpgsig B\n\nm", Err(Untrusted::Odd("it carries several signatures")), "twice"),
            ("tree 1\ngpgsig A\n\n", signed("A\n", "tree 1\n\n"), "an empty message"),
            ("gpgsig", Ok(Some(Signed { signature: Vec::new(), payload: Vec::new() })), "nothing else"),
            ("tree\0\ngpgsig A\n\nm", Err(Untrusted::Odd("its head contains a zero byte")), "a zero"),
        ] {
            assert_eq!(split(raw), wanted, "{why}");
        }
    }
}
