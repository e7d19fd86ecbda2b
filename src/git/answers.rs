//! What the process for a transfer says, line by line: it spoke with a stranger's server, so it is believed in nothing that people see.

use serde::{Deserialize, Serialize};

use super::failure::{FailureKind, TransportError};

/// The longest line that is read, in bytes: a failure's sentence and the name of a ref fit in several times.
pub(super) const LONGEST_LINE: usize = 16 << 10;
/// The longest name of a ref, in bytes; libgit2 takes no longer one.
const LONGEST_NAME: usize = 1024;

/// What came of a transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The remote's ref that was found, in full: at most 1,024 bytes without control characters; `None`: it has none of that name.
    pub reference: Option<String>,
    /// What it points to, 40 hexadecimal digits: a commit or a tag.
    pub object: Option<String>,
}

/// One line of what the process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// It is getting on: a number that grows.
    Progress(u64),
    /// It went well.
    Done(Done),
    /// It did not.
    Failed(TransportError),
}

impl Line {
    /// Reads a line, with or without its end. What a failure says is made fit to be shown here, and not taken for that.
    ///
    /// # Errors
    /// When it is none, or longer than 16 KiB, or names what no ref and no object is called.
    pub fn read(line: &[u8]) -> Result<Self, TransportError> {
        if line.len() > LONGEST_LINE {
            return Err(child_trouble("it says more at once than any answer has"));
        }
        let senseless = |why: &str| child_trouble(&format!("its answer makes no sense: {why}"));
        match serde_json::from_slice(line).map_err(|error| senseless(&error.to_string()))? {
            Self::Progress(at) => Ok(Self::Progress(at)),
            Self::Failed(TransportError { kind, message }) => Ok(Self::Failed(TransportError::new(kind, message))),
            Self::Done(done) if !done.object.as_deref().is_none_or(is_object) => {
                Err(senseless("what it fetched has no name that an object has"))
            }
            Self::Done(done) if !done.reference.as_deref().is_none_or(is_name) => {
                Err(senseless("what it fetched has no name that a ref has"))
            }
            Self::Done(done) => Ok(Self::Done(done)),
        }
    }
}

fn is_object(digits: &str) -> bool {
    digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control)
}

/// The process itself failed, not the transfer.
pub(super) fn child_trouble(why: &str) -> TransportError {
    TransportError::new(FailureKind::Child, format!("the process for Git transfers failed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &Line) -> Vec<u8> {
        serde_json::to_vec(line).expect("it is written")
    }

    fn done(reference: &str, object: &str) -> Line {
        Line::Done(Done { reference: Some(reference.to_owned()), object: Some(object.to_owned()) })
    }

    #[test]
    fn what_the_process_says_is_read_as_it_was_said() {
        let failed = TransportError::new(FailureKind::Forbidden, "x".repeat(1_000));
        for line in [
            Line::Progress(7),
            Line::Done(Done::default()),
            done("refs/heads/main", &"0a".repeat(20)),
            done(&"ä".repeat(LONGEST_NAME / 2), &"0a".repeat(20)),
            Line::Failed(failed),
        ] {
            assert_eq!(Line::read(&written(&line)), Ok(line.clone()));
            assert_eq!(Line::read(&[&written(&line)[..], b"\n"].concat()), Ok(line));
        }
    }

    /// A remote that took the process over says what it wants.
    #[test]
    fn what_the_process_says_cannot_pose_as_our_words() {
        let evil = "gone\n\u{1b}[2Jall is well \u{202e}https://ada:hunter2@git.example.com/x".repeat(50);
        let raw = TransportError { kind: FailureKind::Network, message: evil };
        let Ok(Line::Failed(error)) = Line::read(&written(&Line::Failed(raw))) else { panic!("it is a failure") };
        assert!(error.message.chars().count() <= 501 && !error.message.contains("hunter2"), "{error:?}");
        assert!(!error.message.contains(|c: char| c.is_control() || c == '\u{202e}'), "{error:?}");
        for broken in [
            written(&done("refs/heads/a\nb", &"0a".repeat(20))),
            written(&done("", &"0a".repeat(20))),
            written(&done(&"a".repeat(LONGEST_NAME + 1), &"0a".repeat(20))),
            written(&done("refs/heads/main", "0a")),
            written(&done("refs/heads/main", &"0g".repeat(20))),
            written(&Line::Failed(TransportError::new(FailureKind::Network, "x")))[1..].to_vec(),
            format!("{{\"progress\":{}1}}", " ".repeat(LONGEST_LINE)).into_bytes(),
            b"{\"\xff\":1}".to_vec(),
            Vec::new(),
        ] {
            let error = Line::read(&broken).expect_err("it is none");
            assert_eq!(error.kind, FailureKind::Child, "{error}");
            assert!(error.message.chars().count() <= 501 && !error.message.contains(char::is_control), "{error}");
        }
    }
}
