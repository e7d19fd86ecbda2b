//! Where `build.sh` put what it built of other people's software, or a word that a test is skipped.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory of what `build.sh` calls `name`. Without it the caller has nothing to test, which is said where a person sees
/// it.
pub(crate) fn find(name: &str, test: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/build.sh");
    let output = Command::new(&script).args(["--where", name]).output().expect("build.sh runs");
    assert!(output.status.success(), "{}: {output:?}", script.display());
    let place = PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end());
    if place.is_dir() {
        return Some(place);
    }
    // Not by `eprintln!`: the test harness keeps that of a test that passes to itself.
    let why = format!("there is no {name} here; tests/interop/build.sh gets it");
    writeln!(std::io::stderr(), "skipped: {test}: {why}").expect("standard error is there");
    None
}
