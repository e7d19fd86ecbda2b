//! Diagnostics for people, for scripts and for GitHub: the same finding about many groups is one finding.

use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use crate::fleet::GroupName;
use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::snapshot::{Entry, Snapshot};
use crate::opamp::mask;
use crate::view::text::is_invisible;
use crate::yaml::Place;

/// Most names of groups that one finding shows.
const SHOWN_GROUPS: usize = 3;

/// Lines longer than this are not shown: nobody finds a column in them.
const SHOWN_LINE: usize = 400;

/// True when a line holds what looks like a secret, and not only references to some.
fn has_literal_secret(line: &str) -> bool {
    let mut literal = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, reference)) = rest.split_once("${") {
        literal.push_str(before);
        rest = reference.split_once('}').map_or("", |(_, after)| after);
    }
    literal.push_str(rest);
    mask(&literal) != literal
}

/// Findings, ready to be shown.
pub(crate) struct Findings<'f> {
    merged: Vec<Finding<'f>>,
    snapshot: &'f Snapshot,
    /// What stands before the paths of the fleet, so that they can be opened from where the command runs.
    prefix: String,
}

struct Finding<'f> {
    diagnostic: &'f Diagnostic,
    groups: Vec<&'f GroupName>,
}

impl<'f> Findings<'f> {
    /// Merges what differs in its group only. `root`: the fleet root as it was named on the command line.
    pub(crate) fn new(diagnostics: &'f [Diagnostic], snapshot: &'f Snapshot, root: &Path) -> Self {
        let mut merged = Vec::<Finding<'f>>::new();
        let mut newest_at_place = 0;
        for diagnostic in diagnostics {
            // Findings are in the order of their places, so only those at the same place can be alike.
            if merged.last().is_some_and(|last| last.diagnostic.place != diagnostic.place) {
                newest_at_place = merged.len();
            }
            let alike = |finding: &&mut Finding<'_>| {
                let other = finding.diagnostic;
                (other.severity, other.code) == (diagnostic.severity, diagnostic.code)
                    && other.message == diagnostic.message
                    && other.help == diagnostic.help
                    && other.group.is_some() == diagnostic.group.is_some()
            };
            match merged[newest_at_place..].iter_mut().rev().find(alike) {
                Some(finding) => finding.groups.extend(&diagnostic.group),
                None => merged.push(Finding { diagnostic, groups: diagnostic.group.iter().collect() }),
            }
        }
        let root = root.to_string_lossy();
        let prefix = root.trim_start_matches("./").trim_end_matches('/');
        let prefix = if prefix.is_empty() || prefix == "." { String::new() } else { format!("{prefix}/") };
        Self { merged, snapshot, prefix }
    }

    /// How many errors and how many warnings there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let errors = self.merged.iter().filter(|finding| finding.diagnostic.severity == Severity::Error).count();
        (errors, self.merged.len() - errors)
    }

    /// For a terminal: each finding with the line it is about. The text has colours; whoever prints it takes them away where they
    /// do not belong.
    pub(crate) fn human(&self) -> String {
        let renderer = Renderer::styled();
        self.merged.iter().map(|finding| format!("{}\n\n", self.report(finding, &renderer))).collect()
    }

    fn report(&self, finding: &Finding<'_>, renderer: &Renderer) -> String {
        let diagnostic = finding.diagnostic;
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let (message, help) = (printable(&diagnostic.message), diagnostic.help.as_deref().map(printable));
        let path = diagnostic.place.as_ref().map(|place| self.path(place));
        let source = diagnostic.place.as_ref().and_then(|place| self.line(place, diagnostic.code));
        let mut group = level.primary_title(message).id(diagnostic.code).elements(Vec::<Origin<'_>>::new());
        if let (Some(place), Some(path)) = (&diagnostic.place, &path) {
            group = match &source {
                Some((line, span)) => group.element(
                    Snippet::source(line.as_str())
                        .line_start(place.line as usize)
                        .path(path.as_str())
                        .annotation(AnnotationKind::Primary.span(span.clone())),
                ),
                None => group
                    .element(Origin::path(path.as_str()).line(place.line as usize).char_column(place.column as usize)),
            };
        }
        if let Some(help) = help {
            group = group.element(Level::HELP.message(help));
        }
        if let Some(groups) = finding.show_groups() {
            group = group.element(Level::NOTE.message(groups));
        }
        renderer.render(&[group])
    }

    fn path(&self, place: &Place) -> String {
        printable(&format!("{}{}", self.prefix, place.file))
    }

    /// The line of a place and the bytes of the word that stands there. Never a line with a credential, whatever the finding is about: it
    /// would be printed into the log of every check.
    fn line(&self, place: &Place, code: &str) -> Option<(String, std::ops::Range<usize>)> {
        let Some(Entry::File(bytes)) = self.snapshot.get(&place.file) else { return None };
        if code == "plain-secret" {
            return None;
        }
        let text = String::from_utf8_lossy(bytes);
        let line = printable(text.lines().nth(place.line.saturating_sub(1) as usize)?);
        let is_said = |finding: &Finding<'_>| {
            let at = finding.diagnostic.place.as_ref();
            finding.diagnostic.code == "plain-secret"
                && at.is_some_and(|at| (&at.file, at.line) == (&place.file, place.line))
        };
        // A file that cannot be read was not searched for credentials, and warnings may have been left out.
        if self.merged.iter().any(is_said) || has_literal_secret(&line) {
            return None;
        }
        if line.len() > SHOWN_LINE || line.trim().is_empty() {
            return None;
        }
        let start = line.char_indices().nth(place.column.saturating_sub(1) as usize).map_or(line.len(), |(at, _)| at);
        let end = line[start..].find([' ', ',', ']', '}', '#']).map_or(line.len(), |length| start + length);
        let end = line[start..end].trim_end_matches(':').len() + start;
        let next = line[start..].chars().next().map_or(start, |char| start + char.len_utf8());
        Some((line, start..end.max(next)))
    }

    /// For scripts: one object a finding.
    pub(crate) fn json(&self) -> Value {
        let value = |finding: &Finding<'_>| {
            let diagnostic = finding.diagnostic;
            let mut value = json!({
                "severity": severity(diagnostic.severity),
                "code": diagnostic.code,
                "message": diagnostic.message,
                "groups": finding.groups.iter().map(|group| group.as_str()).collect::<Vec<_>>(),
            });
            if let Some(place) = &diagnostic.place {
                value["file"] = json!(format!("{}{}", self.prefix, place.file));
                value["line"] = json!(place.line);
                value["column"] = json!(place.column);
            }
            if let Some(help) = &diagnostic.help {
                value["help"] = json!(help);
            }
            value
        };
        self.merged.iter().map(value).collect()
    }

    /// For GitHub Actions: workflow commands, which become annotations of the lines in a pull request.
    pub(crate) fn github(&self) -> String {
        let line = |finding: &Finding<'_>| {
            let diagnostic = finding.diagnostic;
            let mut properties = Vec::new();
            if let Some(place) = &diagnostic.place {
                properties.push(format!("file={}", escape_property(&format!("{}{}", self.prefix, place.file))));
                properties.push(format!("line={}", place.line));
                properties.push(format!("col={}", place.column));
            }
            properties.push(format!("title=gitamp {}", escape_property(diagnostic.code)));
            let mut message = diagnostic.message.clone();
            if let Some(help) = &diagnostic.help {
                message.push_str(&format!("\n{help}"));
            }
            if let Some(groups) = finding.show_groups() {
                message.push_str(&format!("\n{groups}"));
            }
            format!("::{} {}::{}\n", severity(diagnostic.severity), properties.join(","), escape_data(&message))
        };
        self.merged.iter().map(line).collect()
    }
}

impl Finding<'_> {
    /// Whom an error holds back.
    fn show_groups(&self) -> Option<String> {
        let names: Vec<&str> = self.groups.iter().take(SHOWN_GROUPS).map(|group| group.as_str()).collect();
        let more = self.groups.len().checked_sub(names.len()).filter(|more| *more > 0);
        let what = match (self.diagnostic.severity, names.as_slice()) {
            (Severity::Error, []) => return Some("no group of this commit would be taken".to_owned()),
            (Severity::Warning, []) => return None,
            (Severity::Error, [_]) if more.is_none() => "this holds back the group ",
            (Severity::Error, _) => "this holds back the groups ",
            (Severity::Warning, [_]) if more.is_none() => "this concerns the group ",
            (Severity::Warning, _) => "this concerns the groups ",
        };
        let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
        Some(printable(&format!("{what}{}{more}", names.join(", "))))
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// The text without anything that a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .map(|char| match char {
            '\t' => ' ',
            char if char.is_control() || is_invisible(char) => '\u{fffd}',
            char => char,
        })
        .collect()
}

fn escape_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn snapshot() -> Snapshot {
        let content = "kind: Group\npriorty: 5   # \u{1b}[31m\npassword: hunter2\n";
        Snapshot::new(BTreeMap::from([("a,b/group.yaml".into(), Entry::File(content.into()))]))
    }

    fn place(line: u32, column: u32) -> Option<Place> {
        Some(Place { file: "a,b/group.yaml".into(), line, column })
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn findings_show_their_line_and_fold_their_groups() {
        let error = Diagnostic::error("unknown-field", place(2, 1), "a group has no field `priorty`")
            .help("did you mean `priority`?");
        let groups: Vec<_> =
            ["a", "b", "c", "d", "e"].iter().map(|name| error.clone().of(&GroupName::new(*name))).collect();
        let snapshot = snapshot();
        let findings = Findings::new(&groups, &snapshot, Path::new("./fleet/"));
        assert_eq!(findings.counts(), (1, 0), "the same about five groups is one finding");
        let shown = plain(&findings.human());
        for expected in [
            "error[unknown-field]: a group",
            "fleet/a,b/group.yaml:2:1",
            "^^^^^^^",
            "did you mean",
            "a, b, c and 2 more",
        ] {
            assert!(shown.contains(expected), "{expected} is missing:\n{shown}");
        }
        assert!(!shown.contains('\u{1b}'), "what the file holds cannot steer a terminal");
    }

    #[test]
    fn credentials_are_not_printed() {
        let warning = [Diagnostic::warning("plain-secret", place(3, 11), "looks like a credential")];
        let snapshot = snapshot();
        let findings = Findings::new(&warning, &snapshot, Path::new("."));
        let shown = plain(&findings.human());
        assert!(shown.contains("a,b/group.yaml:3:11") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn workflow_commands_are_escaped() {
        let error = [Diagnostic::error("yaml", place(2, 1), "100% wrong::warning::\nreally").help("a, b: c")];
        let snapshot = snapshot();
        let findings = Findings::new(&error, &snapshot, Path::new("."));
        let expected = "::error file=a%2Cb/group.yaml,line=2,col=1,title=gitamp yaml::100%25 wrong::warning::\u{fffd}really%0Aa, b: c%0Ano group of this commit would be taken\n";
        assert_eq!(findings.github(), expected);
    }
}
