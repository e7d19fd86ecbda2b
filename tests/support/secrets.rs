//! Recognisable secrets, and the search for them in everything that comes out.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::run;

/// All secrets of a test, by the place where they enter, and the forms in which they would still be recognised.
#[derive(Default)]
pub(crate) struct Secrets {
    pub(crate) values: BTreeMap<&'static str, String>,
    pub(crate) forms: Vec<(&'static str, String)>,
}

impl Secrets {
    /// A new secret for this place: letters and digits, so that nothing quotes or escapes it.
    pub(crate) fn make(&mut self, place: &'static str) -> String {
        let letters: String = place.chars().filter(char::is_ascii_alphanumeric).collect();
        let value = format!("q7{letters}Xk93wTzP{}jm5", self.values.len());
        self.watch(place, &value);
        self.values.insert(place, value.clone());
        value
    }

    /// Looks for this text as well.
    pub(crate) fn watch(&mut self, place: &'static str, value: &str) {
        self.forms.push((place, value.to_owned()));
        self.forms.push((place, hex::encode(value)));
        // At each of the three places that it can begin at in a longer text; the ends depend on the neighbours.
        for before in 0..3 {
            let text = [&vec![b'.'; before][..], value.as_bytes()].concat();
            for engine in [&STANDARD, &URL_SAFE_NO_PAD] {
                let encoded = engine.encode(&text);
                let inner = &encoded[4..encoded.len() - 4];
                self.forms.push((place, inner.to_owned()));
            }
        }
    }

    /// What of them stands in an output, with what is around it.
    pub(crate) fn found_in(&self, output: &str, bytes: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(bytes);
        let hit = |(place, form): &(&str, String)| {
            let at = text.find(form.as_str())?;
            let start = (0..=at.saturating_sub(120)).rev().find(|start| text.is_char_boundary(*start)).unwrap_or(0);
            Some(format!("{output} shows the secret of {place}: ...{}", &text[start..at + form.len()]))
        };
        self.forms.iter().filter_map(hit).collect()
    }
}

/// Everything that came out, and what was found in it.
pub(crate) struct Search<'s> {
    secrets: &'s Secrets,
    outputs: usize,
    pub(crate) found: Vec<String>,
}

impl<'s> Search<'s> {
    pub(crate) fn new(secrets: &'s Secrets) -> Self {
        Self { secrets, outputs: 0, found: Vec::new() }
    }

    pub(crate) fn look(&mut self, output: &str, bytes: impl AsRef<[u8]>) {
        self.outputs += 1;
        self.found.extend(self.secrets.found_in(output, bytes.as_ref()));
    }

    pub(crate) fn command(&mut self, command: &mut Command) -> Output {
        let name = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let output = run(command);
        self.look(&name, &output.stdout);
        self.look(&format!("{name}, its errors"), &output.stderr);
        output
    }

    /// All files below a directory, by name and content, and what Git keeps compressed in them.
    pub(crate) fn directory(&mut self, directory: &Path) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let (path, kind) = (entry.path(), entry.file_type().expect("its kind"));
            self.look("a file's name", path.display().to_string());
            if kind.is_dir() {
                self.directory(&path);
            } else if kind.is_file() {
                // Locks and packs come and go meanwhile.
                self.look(&path.display().to_string(), std::fs::read(&path).unwrap_or_default());
            }
        }
        if directory.extension().is_some_and(|extension| extension == "git") {
            let mut command = Command::new("git");
            command.arg("-C").arg(directory).args(["cat-file", "--batch", "--batch-all-objects"]);
            let objects = run(&mut command);
            assert!(objects.status.success(), "{objects:?}");
            self.look(&format!("the objects in {}", directory.display()), objects.stdout);
        }
    }

    pub(crate) fn clean(self, at_least: usize) {
        assert!(self.outputs >= at_least, "only {} outputs were looked at", self.outputs);
        assert!(self.found.is_empty(), "{}", self.found.join("\n"));
    }
}
