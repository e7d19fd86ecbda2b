//! Files of a snapshot as YAML documents, with an explanation for every file that is none.

use std::sync::Arc;

use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::fields::{self, Fields, closest, shorten};
use crate::fleet::snapshot::{Child, Entry, Limit, RenderLimits, Snapshot};
use crate::yaml::{self, Limits, Node, Place, YamlError};

/// The file that makes a directory a group.
pub(super) const GROUP_FILE: &str = "group.yaml";

/// The file that the groups below a directory inherit from.
pub(super) const DEFAULTS_FILE: &str = "defaults.yaml";

/// The version of our own files.
const API_VERSION: &str = "gitamp/v1";

/// Most findings on one file or configuration; whoever has more has one cause for them.
const MOST_FINDINGS: usize = 20;

/// The beginning of a file, for findings about the whole of it.
pub(super) fn top(file: &Arc<str>) -> Place {
    Place { file: file.clone(), line: 1, column: 1 }
}

/// The directory and the name of a path.
pub(super) fn file_name(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Parses a file; `None` when nothing is in it.
pub(super) fn parse(file: &Arc<str>, bytes: &[u8]) -> Result<Option<Node>, Vec<Diagnostic>> {
    parse_within(file, bytes, &Limits::default())
}

fn parse_within(file: &Arc<str>, bytes: &[u8], limits: &Limits) -> Result<Option<Node>, Vec<Diagnostic>> {
    let errors = |errors: Vec<YamlError>| bounded(errors.into_iter().map(explain).collect());
    yaml::parse(file, bytes, limits).map_err(errors)
}

/// At most a screenful of findings, errors before warnings, with a word on how many more there are.
pub(super) fn bounded(mut findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let more = findings.len().saturating_sub(MOST_FINDINGS);
    if more == 0 {
        return findings;
    }
    findings.sort_by(|one, other| other.severity.cmp(&one.severity).then_with(|| one.place.cmp(&other.place)));
    findings.truncate(MOST_FINDINGS);
    let place = findings.last().and_then(|finding| finding.place.clone());
    findings.push(Diagnostic::warning("more-findings", place, format!("{more} more are not listed")));
    findings
}

/// What the YAML layer says, as a finding.
pub(super) fn explain(error: YamlError) -> Diagnostic {
    let diagnostic = Diagnostic::error("yaml", Some(error.place), error.message);
    let diagnostic = if error.is_too_deep { diagnostic.over(Limit::YamlDepth) } else { diagnostic };
    match error.help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

/// Parses a layer, which may be as large and as deep as the settings say.
pub(super) fn parse_layer(
    file: &Arc<str>,
    entry: &Entry,
    limits: &RenderLimits,
) -> Result<Option<Node>, Vec<Diagnostic>> {
    let Entry::File(bytes) = entry else { return parse_entry(file, entry) };
    let limits = Limits { bytes: limits.layer_bytes, depth: limits.yaml_depth, ..Limits::default() };
    parse_within(file, bytes, &limits)
}

/// Parses what stands at a path of the snapshot, when it is a file.
pub(super) fn parse_entry(file: &Arc<str>, entry: &Entry) -> Result<Option<Node>, Vec<Diagnostic>> {
    match entry {
        Entry::File(bytes) => parse(file, bytes),
        Entry::TooLarge(_) | Entry::Symlink | Entry::Submodule => Err(vec![not_a_file(file, entry, Some(top(file)))]),
    }
}

/// Why what stands at `path` cannot be read. `place`: who wants to read it.
fn not_a_file(path: &str, entry: &Entry, place: Option<Place>) -> Diagnostic {
    match entry {
        Entry::TooLarge(size) => {
            Diagnostic::error("too-large", place, format!("`{path}` is too large to be read: {size} bytes"))
                .over(Limit::FileBytes)
                .help(
                    "a file of a fleet has at most 1 MiB, unless the daemon's settings say otherwise (`max-file-size`)",
                )
        }
        Entry::Symlink => {
            Diagnostic::error("symlink", place, format!("`{path}` is a symbolic link, and links are never followed"))
                .help("name the file itself")
        }
        Entry::Submodule => {
            Diagnostic::error("submodule", place, format!("`{path}` is a submodule, and submodules are never followed"))
                .help("keep what the fleet needs in its own repository")
        }
        Entry::File(_) => Diagnostic::error("missing-file", place, format!("`{path}` cannot be read")),
    }
}

/// Why nothing can be read at `path`: a link or submodule stands in the way, or nothing is there.
pub(super) fn missing(snapshot: &Snapshot, path: &str, place: &Place) -> Diagnostic {
    let ancestors = path.match_indices('/').map(|(end, _)| &path[..end]);
    for above in ancestors {
        if let Some(entry @ (Entry::Symlink | Entry::Submodule)) = snapshot.get(above) {
            return not_a_file(above, entry, Some(place.clone()));
        }
    }
    let diagnostic =
        Diagnostic::error("missing-file", Some(place.clone()), format!("there is no file `/{}`", shorten(path)));
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let beside: Vec<&str> = files_in(snapshot, directory).map(|path| &**path).collect();
    match closest(path, &beside) {
        Some(near) => diagnostic.help(format!("did you mean `/{near}`?")),
        None => diagnostic.help(
            "layers are written from the fleet root (`/base/common.yaml`) or from this directory (`./collector.yaml`)",
        ),
    }
}

/// The files that stand directly in a directory (`""`: the fleet root), in order of names.
pub(super) fn files_in<'s>(snapshot: &'s Snapshot, directory: &str) -> impl Iterator<Item = &'s Arc<str>> {
    let children = snapshot.directory(directory).map(|directory| directory.children()).unwrap_or_default();
    children.iter().filter_map(|child| match child {
        Child::File { path, .. } => Some(path),
        Child::Directory(_) => None,
    })
}

/// Opens one of our own documents: `apiVersion` and `kind` first, then the fields of this kind.
pub(super) fn open_document<'n>(
    node: &'n Node,
    kind: &'static str,
    known: &[&str],
    findings: &mut Vec<Diagnostic>,
) -> Option<Fields<'n>> {
    let what = format!("a document of kind {kind}");
    let all: Vec<&str> = ["apiVersion", "kind"].iter().chain(known).copied().collect();
    let fields = Fields::open(node, &what, &all, findings)?;
    for (name, value) in [("apiVersion", API_VERSION), ("kind", kind)] {
        match fields.get(name) {
            Some(node) => {
                fields::choice(node, &format!("`{name}`"), &[(value, ())], findings);
            }
            None => {
                let message = format!("`{name}: {value}` is missing");
                let help = format!("begin the file with `apiVersion: {API_VERSION}` and `kind: {kind}`");
                findings.push(Diagnostic::error("missing-field", Some(fields.place.clone()), message).help(help));
            }
        }
    }
    Some(fields)
}
