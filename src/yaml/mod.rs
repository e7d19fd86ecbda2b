//! Documents as nodes that keep their places and the exact text of their scalars.
//!
//! Whatever the fleet repository holds is read into [`Node`]s and never into typed values: a scalar keeps its text and whether
//! it was quoted, so that an agent reads what the author wrote, whichever YAML dialect it speaks. The measure is the collector's
//! own reader (`go.yaml.in/yaml/v3` under `confmap`); where readers differ, a document is refused with its place rather than
//! guessed at.
//!
//! ```text
//! bytes ─ parse ─> Node ─ merge ─> Node ─ substitute ─> Node ─┬─ ambiguous_keys ─> errors
//!                                                             ├─ emit ──────────> the text that agents get
//!                                                             ├─ config_hash ───> what tells configurations apart
//!                                                             └─ component_names
//! ```
//!
//! Invariants of every node that [`parse`] makes, which the other functions keep: keys are scalars and differ in their text;
//! there are no anchors, aliases or merge keys; the style of each scalar can carry its text ([`Style::fitting`]); nothing is
//! nested deeper than [`Limits::depth`], so recursion over nodes is safe.

mod canonical;
mod components;
mod emit;
mod keys;
mod merge;
mod node;
mod parse;
mod source;
mod substitute;
#[cfg(test)]
mod testing;

use std::fmt;
use std::sync::Arc;

pub use canonical::config_hash;
pub use components::component_names;
pub use emit::emit;
pub use keys::ambiguous_keys;
pub use merge::merge;
pub use node::{Entry, Kind, Node, Style, YamlError, is_plain};
pub use parse::{Limits, parse};
pub use substitute::{is_variable_name, substitute};

/// Where something stands: a file (path from the fleet root) and a line and column, both counted from 1, columns in characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file's path from the fleet root.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
