//! Files that nobody reads although somebody may have meant them to be read: misnamed ones, links, submodules.

use std::sync::Arc;

use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::document::{self, DEFAULTS_FILE, GROUP_FILE};
use crate::fleet::group_file;
use crate::fleet::policy::POLICY_FILE;
use crate::fleet::snapshot::{Child, Directory, Entry};

/// Most files that are named because of their names or kinds alone.
const MOST_DOUBTFUL: usize = 50;

/// The one of our file names that a file was probably meant to have.
pub(super) fn meant_name(path: &str, name: &str) -> Option<&'static str> {
    match name {
        "group.yml" | "Group.yaml" => Some(GROUP_FILE),
        "defaults.yml" | "Defaults.yaml" => Some(DEFAULTS_FILE),
        "fleet.yml" if path == name => Some(POLICY_FILE),
        _ => None,
    }
}

/// True for what [`findings`] tells of.
pub(super) fn is_doubtful(path: &str, name: &str, entry: &Entry) -> bool {
    let is_never_followed = match entry {
        // Whoever uses a link as a layer is told there.
        Entry::Symlink => !group_file::is_yaml(name),
        Entry::Submodule => true,
        Entry::File(_) | Entry::TooLarge(_) => false,
    };
    is_never_followed || meant_name(path, name).is_some()
}

/// A warning for each of the first of them.
pub(super) fn findings(root: &Directory) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut open = vec![root.children().iter()];
    while let Some(children) = open.last_mut() {
        match children.next() {
            None => drop(open.pop()),
            Some(Child::Directory(below)) if below.has_doubtful() => open.push(below.children().iter()),
            Some(Child::Directory(_)) => {}
            Some(Child::File { path, id: _, entry }) => {
                let (_, name) = document::file_name(path);
                if is_doubtful(path, name, entry) {
                    found.push(warning(path, name, entry));
                }
                if found.len() == MOST_DOUBTFUL {
                    break;
                }
            }
        }
    }
    found
}

fn warning(path: &Arc<str>, name: &str, entry: &Entry) -> Diagnostic {
    let place = Some(document::top(path));
    if let Some(meant) = meant_name(path, name) {
        let warning = Diagnostic::warning("misnamed-file", place, format!("`{path}` is not read"));
        return warning.help(format!("did you mean `{meant}`?"));
    }
    let (code, what) =
        if *entry == Entry::Submodule { ("submodule", "submodule") } else { ("symlink", "symbolic link") };
    let help = "groups and layers are read from the directories of this repository only";
    Diagnostic::warning(code, place, format!("`{path}` is a {what} and is not followed")).help(help)
}
