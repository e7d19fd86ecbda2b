//! Typed values out of nodes: every field of our own files is read here, and everything wrong with one is said at its place.
//!
//! A reader returns `None` after it has said what is wrong, so that the caller goes on to the next field: all findings at
//! once, never the first only. An empty value (`vars:` with nothing behind it) is an error, because nobody can tell whether
//! it was meant.

use std::time::Duration;

use crate::fleet::diagnostic::{self, Diagnostic, Severity};
use crate::fleet::strategy::Amount;
use crate::time::parse_duration;
use crate::yaml::{Kind, Node, Place, Style};

/// Most unknown fields of one mapping that are explained; more are no typing errors.
const MOST_UNKNOWN: usize = 20;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<T> Placed<T> {
    pub(super) fn at(node: &Node, value: T) -> Self {
        Self { value, place: node.place.clone() }
    }
}

/// True when something is wrong, not only doubtful.
pub(super) fn any_error(findings: &[Diagnostic]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

/// The fields of one mapping.
pub(super) struct Fields<'n> {
    entries: Vec<(&'n str, &'n Node, &'n Node)>,
    /// Where the mapping starts.
    pub(super) place: Place,
}

impl<'n> Fields<'n> {
    /// Opens a mapping of which only `known` may be there; `what` names it in messages (``a stage``).
    pub(super) fn open(node: &'n Node, what: &str, known: &[&str], findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let fields = Self::open_free(node, what, findings)?;
        let unknown = fields.entries.iter().filter(|(name, _, _)| !known.contains(name));
        for (name, key, _) in unknown.take(MOST_UNKNOWN) {
            let message = format!("{what} has no field `{}`", shorten(name));
            let help = match closest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its fields are {}", known.join(", ")),
            };
            findings.push(Diagnostic::error("unknown-field", Some(key.place.clone()), message).help(help));
        }
        Some(fields)
    }

    /// Opens a mapping whose keys are free, like labels.
    pub(super) fn open_free(node: &'n Node, what: &str, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let Some(mapping) = node.as_mapping() else {
            findings.push(wrong_kind(node, what, "a map"));
            return None;
        };
        let mut entries = Vec::with_capacity(mapping.len());
        for entry in mapping {
            match entry.key.as_str() {
                Some(name) => entries.push((name, &entry.key, &entry.value)),
                None => findings.push(wrong_kind(&entry.key, "a key", "a text")),
            }
        }
        Some(Self { entries, place: node.place.clone() })
    }

    /// The value of a field that may be missing.
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(known, _, _)| *known == name).map(|(_, _, value)| *value)
    }

    /// The value of a field that must be there.
    pub(super) fn require(&self, name: &str, what: &str, findings: &mut Vec<Diagnostic>) -> Option<&'n Node> {
        let found = self.get(name);
        if found.is_none() {
            let message = format!("{what} needs the field `{name}`");
            findings.push(Diagnostic::error("missing-field", Some(self.place.clone()), message));
        }
        found
    }

    /// Keys (as text and as nodes) and values, in the order of the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'n str, &'n Node, &'n Node)> {
        self.entries.iter().copied()
    }
}

/// Any scalar that is not empty, as the text that was written: `no` stays `no`, `012` stays `012`.
pub(super) fn text<'n>(node: &'n Node, what: &str, findings: &mut Vec<Diagnostic>) -> Option<&'n str> {
    match node.as_str() {
        Some(text) if !node.is_null() => Some(text),
        Some(_) | None => {
            findings.push(wrong_kind(node, what, "a text"));
            None
        }
    }
}

/// `true` or `false`, written plainly.
pub(super) fn boolean(node: &Node, what: &str, findings: &mut Vec<Diagnostic>) -> Option<bool> {
    match plain(node) {
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) | None => {
            findings.push(wrong_kind(node, what, "`true` or `false`"));
            None
        }
    }
}

/// A whole number in decimal digits, written plainly.
pub(super) fn integer<T: std::str::FromStr>(
    node: &Node,
    what: &str,
    range: &str,
    findings: &mut Vec<Diagnostic>,
) -> Option<T> {
    let decimal = |text: &&str| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        digits == "0" || (digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0'))
    };
    let number = plain(node).filter(decimal).and_then(|text| text.parse().ok());
    if number.is_none() {
        findings.push(wrong_kind(node, what, &format!("a whole number{range}")));
    }
    number
}

/// A length of time with a unit.
pub(super) fn duration(node: &Node, what: &str, findings: &mut Vec<Diagnostic>) -> Option<Duration> {
    match parse_duration(text(node, what, findings)?) {
        Ok(length) => Some(length),
        Err(error) => {
            findings.push(Diagnostic::error("bad-duration", Some(node.place.clone()), format!("{what}: {error}")));
            None
        }
    }
}

/// A count (`3`) or a percentage with up to two decimals (`2.5%`).
pub(super) fn amount(node: &Node, what: &str, findings: &mut Vec<Diagnostic>) -> Option<Amount> {
    let written = text(node, what, findings)?;
    let parsed = parse_amount(written);
    if parsed.is_none() {
        let message = format!("{what}: `{}` is neither a count like 3 nor a percentage like 2.5%", shorten(written));
        let help = "percentages lie between 0% and 100% and have at most two decimals";
        findings.push(Diagnostic::error("bad-amount", Some(node.place.clone()), message).help(help));
    }
    parsed
}

/// Reads what [`Amount`] shows.
pub(super) fn parse_amount(text: &str) -> Option<Amount> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let Some(number) = text.strip_suffix('%') else {
        return if digits(text) { text.parse().ok().map(Amount::Count) } else { None };
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !digits(whole) || !digits(fraction) || fraction.len() > 2 || whole.len() > 3 {
        return None;
    }
    let hundredths: u16 = format!("{fraction:0<2}").parse().ok()?;
    let share = whole.parse::<u16>().ok()?.checked_mul(100)?.checked_add(hundredths)?;
    (share <= 10_000).then_some(Amount::Share(share))
}

/// A sequence of at most `most` items.
pub(super) fn list<'n>(node: &'n Node, what: &str, most: usize, findings: &mut Vec<Diagnostic>) -> Option<&'n [Node]> {
    let Some(items) = node.as_sequence() else {
        findings.push(wrong_kind(node, what, "a list"));
        return None;
    };
    if items.len() > most {
        let message = format!("{what} has {} entries, and {most} are allowed", items.len());
        findings.push(Diagnostic::error("too-many", Some(node.place.clone()), message));
        return None;
    }
    Some(items)
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    words: &[(&'static str, T)],
    findings: &mut Vec<Diagnostic>,
) -> Option<T> {
    let written = text(node, what, findings)?;
    let found = words.iter().find(|(word, _)| *word == written).map(|(_, value)| *value);
    if found.is_none() {
        let names = words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        let message = format!("{what} cannot be `{}`", shorten(written));
        let help = match closest(written, &names) {
            Some(near) if names.len() > 1 => format!("did you mean `{near}`?"),
            Some(_) | None => format!("write {}", names.join(" or ")),
        };
        findings.push(Diagnostic::error("bad-value", Some(node.place.clone()), message).help(help));
    }
    found
}

/// The error for a node of the wrong kind; it shows scalars, shortened.
pub(super) fn wrong_kind(node: &Node, what: &str, wanted: &str) -> Diagnostic {
    let found = match &node.kind {
        Kind::Scalar { .. } if node.is_null() => "empty".to_owned(),
        Kind::Scalar { text, style } if style.is_quoted() => format!("the text `{}`", shorten(text)),
        Kind::Scalar { text, .. } => format!("`{}`", shorten(text)),
        Kind::Sequence(_) | Kind::Mapping(_) => node.kind_name().to_owned(),
    };
    let diagnostic = Diagnostic::error(
        "wrong-type",
        Some(node.place.clone()),
        format!("{what} must be {wanted}, and it is {found}"),
    );
    if node.is_null() { diagnostic.help("give it a value, or remove it") } else { diagnostic }
}

/// The text of a scalar without quotes; quoting makes a text of a number or a truth value.
fn plain(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar { text, style: Style::Plain } => Some(text),
        Kind::Scalar { .. } | Kind::Sequence(_) | Kind::Mapping(_) => None,
    }
}

/// What a message shows of a text from the repository: one printable line of at most 60 characters.
pub(super) fn shorten(text: &str) -> String {
    shorten_to(text, 60)
}

/// The same, of at most `most` characters.
pub(super) fn shorten_to(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).map(diagnostic::show).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

/// The candidate that `written` most likely meant: the same but for case, `-` and `_`, or few typing errors away.
pub(super) fn closest<'c>(written: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let fold =
        |text: &str| text.chars().filter(|char| !matches!(char, '-' | '_')).flat_map(char::to_lowercase).collect();
    let folded: Vec<char> = fold(written);
    if folded.len() > 60 {
        return None;
    }
    candidates
        .iter()
        .map(|candidate| (distance(&folded, &fold(candidate)), *candidate))
        .filter(|(steps, candidate)| *steps <= (candidate.chars().count() / 3).clamp(1, 3))
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, candidate)| candidate)
}

/// The number of single-character edits (insert, remove, replace, swap neighbours) between two words.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for row in 1..=from.len() {
        let mut current = vec![row];
        for column in 1..=to.len() {
            let replaced = last[column - 1] + usize::from(from[row - 1] != to[column - 1]);
            let mut steps = replaced.min(last[column] + 1).min(current[column - 1] + 1);
            if row > 1 && column > 1 && from[row - 1] == to[column - 2] && from[row - 2] == to[column - 1] {
                steps = steps.min(before[column - 2] + 1);
            }
            current.push(steps);
        }
        before = std::mem::replace(&mut last, current);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_counts_or_percentages() {
        for (written, expected) in [
            ("0", Some(Amount::Count(0))),
            ("12", Some(Amount::Count(12))),
            ("0%", Some(Amount::Share(0))),
            ("1%", Some(Amount::Share(100))),
            ("2.5%", Some(Amount::Share(250))),
            ("0.01%", Some(Amount::Share(1))),
            ("33.33%", Some(Amount::Share(3333))),
            ("100%", Some(Amount::ALL)),
            ("100.01%", None),
            ("101%", None),
            ("-1%", None),
            ("-1", None),
            ("1.5", None),
            ("0.001%", None),
            ("%", None),
            (".5%", None),
            ("5 %", None),
            ("1e2%", None),
            ("+5", None),
            ("99999999999", None),
            ("65536%", None),
            ("", None),
        ] {
            assert_eq!(parse_amount(written), expected, "{written}");
        }
    }

    #[test]
    fn near_misses_are_recognised() {
        let known = ["matchLabels", "matchExpressions", "matchAll", "suspend", "vars"];
        for (written, expected) in [
            ("matchlabels", Some("matchLabels")),
            ("match_labels", Some("matchLabels")),
            ("matchLabel", Some("matchLabels")),
            ("supsend", Some("suspend")),
            ("suspended", Some("suspend")),
            ("var", Some("vars")),
            ("replicas", None),
            ("", None),
        ] {
            assert_eq!(closest(written, &known), expected, "{written}");
        }
        assert_eq!(closest(&"x".repeat(100_000), &known), None, "long words are not compared");
    }

    #[test]
    fn shown_texts_are_short_and_printable() {
        assert_eq!(shorten("a\u{1b}[31m\nb"), "a\u{fffd}[31m\u{fffd}b");
        assert_eq!(shorten(&"é".repeat(61)).chars().count(), 61, "sixty characters and an ellipsis");
    }
}
