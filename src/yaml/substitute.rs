//! `${fleet:NAME}` in scalars: the variables of a group.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::yaml::Place;
use crate::yaml::node::{Kind, Node, Style, YamlError};

const OPENING: &str = "${fleet:";

/// True for what a variable may be called: letters, digits, `_`, `-` and `.`, not starting with a digit, `-` or `.`.
pub fn is_variable_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|one| one.is_ascii_alphanumeric() || matches!(one, '_' | '-' | '.'))
}

/// Replaces `${fleet:NAME}` in every scalar and key; what else has the form `${...}` stays as it is for the collector.
///
/// A quoted or block scalar stays a string. A plain scalar becomes what it would be if the author had written the value there
/// (`${fleet:port}` with `4317` is a number), unless that would not be one plain scalar: then it is double-quoted. So is an
/// empty value. A value can therefore never become structure, a comment, an alias or a merge key. Values are not searched for
/// variables again.
///
/// As in the collector, an odd number of further `$` before it makes a reference text: `$${fleet:x}` stays.
///
/// # Errors
/// Every reference that cannot be replaced; the scalars with errors are left as they are.
pub fn substitute(node: &mut Node, vars: &BTreeMap<String, String>) -> Vec<YamlError> {
    let mut errors = Vec::new();
    visit(node, vars, &mut errors);
    errors
}

fn visit(node: &mut Node, vars: &BTreeMap<String, String>, errors: &mut Vec<YamlError>) {
    match &mut node.kind {
        Kind::Scalar { text, style } => replace_scalar(text, style, &node.place, vars, errors),
        Kind::Sequence(items) => items.iter_mut().for_each(|item| visit(item, vars, errors)),
        Kind::Mapping(entries) => {
            let mut changed = false;
            for entry in entries.iter_mut() {
                if entry.key.as_str().is_some_and(|key| key.contains(OPENING)) {
                    visit(&mut entry.key, vars, errors);
                    changed = true;
                }
                visit(&mut entry.value, vars, errors);
            }
            if changed {
                errors.extend(super::parse::duplicates(entries));
            }
        }
    }
}

fn replace_scalar(
    text: &mut Box<str>,
    style: &mut Style,
    place: &Place,
    vars: &BTreeMap<String, String>,
    errors: &mut Vec<YamlError>,
) {
    match replaced(text, vars) {
        Ok(Cow::Borrowed(_)) => {}
        Ok(Cow::Owned(new)) => {
            *style = style.fitting(&new);
            if *style == Style::Plain && matches!(&*new, "" | "<<") {
                *style = Style::DoubleQuoted;
            }
            *text = new.into();
        }
        Err((message, help)) => errors.push(YamlError::new(place.clone(), message).help(help)),
    }
}

/// The text with its references replaced; borrowed when it has none.
fn replaced<'t>(text: &'t str, vars: &BTreeMap<String, String>) -> Result<Cow<'t, str>, (String, String)> {
    let mut new = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(OPENING) {
        let before = &rest[..at];
        let after = &rest[at + OPENING.len()..];
        if (before.len() - before.trim_end_matches('$').len()) % 2 == 1 {
            new.push_str(&rest[..at + OPENING.len()]);
            rest = after;
            continue;
        }
        let Some((name, after)) = after.split_once('}') else {
            return Err(("`${fleet:` without a closing `}`".to_owned(), "write ${fleet:NAME}".to_owned()));
        };
        new.push_str(before);
        new.push_str(value_of(name, vars)?);
        rest = after;
    }
    if rest.len() == text.len() {
        return Ok(Cow::Borrowed(text));
    }
    new.push_str(rest);
    Ok(Cow::Owned(new))
}

fn value_of<'v>(name: &str, vars: &'v BTreeMap<String, String>) -> Result<&'v str, (String, String)> {
    if !is_variable_name(name) {
        let message = format!("`{name}` is no name of a variable");
        return Err((message, "a name has letters, digits, `_`, `-` and `.`, and starts with a letter".to_owned()));
    }
    let Some(value) = vars.get(name) else {
        let known: Vec<&str> = vars.keys().map(String::as_str).take(20).collect();
        let help = match (known.is_empty(), vars.len() - known.len()) {
            (true, _) => "the group has no `vars`; add them to its group.yaml or to a defaults.yaml above".to_owned(),
            (false, 0) => format!("the group's variables are {}", known.join(", ")),
            (false, more) => format!("the group's variables are {} and {more} more", known.join(", ")),
        };
        return Err((format!("the group has no variable `{name}`"), help));
    };
    if value.contains(OPENING) {
        let message = format!("the value of the variable `{name}` holds `{OPENING}...}}`, which is not replaced again");
        return Err((message, "write the value out".to_owned()));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::emit;
    use crate::yaml::testing::read;

    fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn references_become_what_the_author_would_have_written() {
        let vars = vars(&[
            ("region", "eu"),
            ("port", "4317"),
            ("old", "012"),
            ("none", ""),
            ("env", "${env:TOKEN}"),
            ("map", "a: b"),
            ("flow", "[1, 2]"),
            ("comment", "a #b"),
            ("lines", "one\ntwo\n"),
            ("merge", "<<"),
            ("alias", "*x"),
            ("quote", "it's \"so\""),
            ("space", " x "),
        ]);
        for (text, expected, why) in [
            ("a: ${fleet:region}", "a: eu\n", "a whole plain scalar"),
            ("a: ${fleet:port}", "a: 4317\n", "stays a number"),
            ("a: ${fleet:old}", "a: 012\n", "of any dialect"),
            ("a: \"${fleet:port}\"", "a: \"4317\"\n", "a quoted one stays a string"),
            ("a: '${fleet:quote}'", "a: 'it''s \"so\"'\n", "quotes in it are escaped"),
            ("a: x-${fleet:region}-${fleet:port}", "a: x-eu-4317\n", "several within a text"),
            ("a: ${fleet:none}", "a: \"\"\n", "an empty value is an empty string, never null"),
            ("a: x${fleet:none}", "a: x\n", "unless something is left"),
            ("a: ${fleet:env}", "a: ${env:TOKEN}\n", "a value may hold what the collector resolves"),
            ("a: ${fleet:map}", "a: \"a: b\"\n", "no map from a value"),
            ("a: ${fleet:flow}", "a: \"[1, 2]\"\n", "no list"),
            ("a: ${fleet:comment}", "a: \"a #b\"\n", "no comment"),
            ("a: ${fleet:alias}", "a: \"*x\"\n", "no alias"),
            ("a: ${fleet:space}", "a: \" x \"\n", "spaces are kept"),
            ("a: ${fleet:lines}", "a: \"one\\ntwo\\n\"\n", "nor are lines lost"),
            ("a: |\n  x\n  ${fleet:lines}\n", "a: |+\n  x\n  one\n  two\n\n", "block scalars go on"),
            ("${fleet:merge}: {a: 1}", "\"<<\":\n  a: 1\n", "no merge key"),
            ("otlp/${fleet:region}: 1", "otlp/eu: 1\n", "keys too"),
            ("a: [\"${fleet:region}\"]", "a:\n  - \"eu\"\n", "lists too"),
            ("a: $${fleet:region}", "a: $${fleet:region}\n", "escaped, as the collector reads it"),
            ("a: $$${fleet:region}", "a: $$eu\n", "two are an escaped dollar of the collector's, then a reference"),
            ("a: ${env:X} $${env:Y} ${file:/f}", "a: ${env:X} $${env:Y} ${file:/f}\n", "everything else stays"),
            ("a: ${env:${fleet:region}}", "a: ${env:eu}\n", "within another reference"),
            ("a: $${fleet:x} ${fleet:region}", "a: $${fleet:x} eu\n", "an escaped one before a real one"),
        ] {
            let mut node = read(text);
            let errors = substitute(&mut node, &vars);
            assert!(errors.is_empty(), "{why}: {errors:?}");
            assert_eq!(emit(&node), expected, "{why}");
            assert!(read(&emit(&node)).is_same(&node), "{why}");
        }
    }

    #[test]
    fn references_to_nothing_are_errors_with_their_places() {
        let vars = vars(&[("a", "1"), ("b", "${fleet:a}"), ("region", "eu")]);
        for (text, line, column, message, help) in [
            ("x:\n  y: ${fleet:zone}\n", 2, 6, "no variable `zone`", "are a, b, region"),
            ("x: ${fleet:zone", 1, 4, "without a closing", "${fleet:NAME}"),
            ("x: ${fleet:}", 1, 4, "is no name", "letters"),
            ("x: ${fleet:${env:A}}", 1, 4, "is no name", "letters"),
            ("x: ${fleet:b}", 1, 4, "not replaced again", "write the value out"),
            ("${fleet:zone}: 1", 1, 1, "no variable `zone`", "are a, b, region"),
            ("eu: 1\n${fleet:region}: 2", 2, 1, "is here twice, first at 1:1", "remove one"),
        ] {
            let errors = substitute(&mut read(text), &vars);
            assert_eq!(errors.len(), 1, "{text}");
            assert_eq!((errors[0].place.line, errors[0].place.column), (line, column), "{text}");
            assert!(errors[0].message.contains(message), "{text}: {}", errors[0]);
            assert!(errors[0].help.as_deref().unwrap_or_default().contains(help), "{text}: {}", errors[0]);
        }
        let errors = substitute(&mut read("a: ${fleet:x}\nb: ${fleet:y}"), &BTreeMap::new());
        assert_eq!(errors.len(), 2, "all of them at once");
        assert!(errors[0].to_string().contains("has no `vars`"), "{}", errors[0]);
    }

    proptest! {
        #[test]
        fn a_value_never_becomes_structure(value in "[\\PC\\n\\t:#\\[{*&!<>|'\"-]{0,12}", quoted in any::<bool>()) {
            prop_assume!(!value.contains(OPENING));
            let mut node = read(if quoted { "k: \"${fleet:v}\"\nz: 1" } else { "k: ${fleet:v}\nz: 1" });
            prop_assert!(substitute(&mut node, &vars(&[("v", &value)])).is_empty());
            let again = read(&emit(&node));
            prop_assert!(again.is_same(&node));
            prop_assert_eq!(again.get("k").and_then(Node::as_str), Some(&*value));
            prop_assert_eq!(again.as_mapping().map(<[_]>::len), Some(2));
        }
    }
}
