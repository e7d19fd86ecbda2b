//! The `selector:` of our files, and whether it can match anybody at all.

use std::collections::BTreeMap;

use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::fields::{self, Fields, Placed, any_error};
use crate::labels::{Labels, Operator, Requirement, RequirementError, Selector};
use crate::yaml::Node;

/// Most conditions of one selector, and most values of one condition. A list of hosts that long wants a label.
const MOST_CONDITIONS: usize = 64;
const MOST_VALUES: usize = 1_000;

/// Reads a selector. One that says nothing is an error: a group of everybody says `matchAll: true`.
pub(super) fn read_selector(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Placed<Selector>> {
    let mut here = Vec::new();
    let selector = read(node, &mut here);
    let sound = !any_error(&here);
    findings.append(&mut here);
    selector.filter(|_| sound).map(|selector| Placed::at(node, selector))
}

fn read(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Selector> {
    let known = ["matchLabels", "matchExpressions", "matchAll"];
    let fields = Fields::open(node, "a selector", &known, findings)?;
    let mut requirements = Vec::new();
    if let Some(labels) = fields.get("matchLabels") {
        read_labels(labels, &mut requirements, findings);
    }
    if let Some(expressions) = fields.get("matchExpressions") {
        for one in fields::list(expressions, "`matchExpressions`", MOST_CONDITIONS, findings)? {
            requirements.extend(read_expression(one, findings));
        }
    }
    if requirements.len() > MOST_CONDITIONS {
        let message = format!("a selector has at most {MOST_CONDITIONS} conditions");
        findings.push(Diagnostic::error("too-many", Some(node.place.clone()), message));
        return None;
    }
    let everybody = match fields.get("matchAll") {
        None => false,
        Some(value) => {
            let said = fields::boolean(value, "`matchAll`", findings)?;
            if !said {
                let message = "`matchAll: false` says nothing";
                let place = Some(value.place.clone());
                findings
                    .push(Diagnostic::error("bad-selector", place, message).help("remove it, and say who is meant"));
            }
            said
        }
    };
    if everybody && !requirements.is_empty() {
        let message = "`matchAll: true` stands beside conditions";
        let help = "keep one of the two: everybody, or those who meet the conditions";
        findings.push(Diagnostic::error("bad-selector", Some(node.place.clone()), message).help(help));
    } else if !everybody && requirements.is_empty() && !any_error(findings) {
        findings.push(no_selector(Some(node.place.clone()), "an empty selector is refused"));
    }
    Some(Selector::new(requirements))
}

/// The error for a group that does not say whom it is for.
pub(super) fn no_selector(place: Option<crate::yaml::Place>, message: &str) -> Diagnostic {
    Diagnostic::error("no-selector", place, message)
        .help("say whom it is for with `matchLabels` or `matchExpressions`; a group for everybody says `selector: {matchAll: true}`")
}

fn read_labels(node: &Node, requirements: &mut Vec<Requirement>, findings: &mut Vec<Diagnostic>) {
    let Some(labels) = Fields::open_free(node, "`matchLabels`", findings) else { return };
    for (key, key_node, value) in labels.iter() {
        let Some(value) = fields::text(value, &format!("the label `{}`", fields::shorten(key)), findings) else {
            continue;
        };
        match Requirement::new(key, Operator::In, vec![value.to_owned()]) {
            Ok(requirement) => requirements.push(requirement),
            Err(error) => findings.push(bad_requirement(key_node, &error)),
        }
    }
}

fn read_expression(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Requirement> {
    let fields = Fields::open(node, "a match expression", &["key", "operator", "values"], findings)?;
    let key = fields.require("key", "a match expression", findings);
    let operator = fields.require("operator", "a match expression", findings);
    let names = Operator::ALL.map(|operator| (operator.name(), operator));
    let key = key.and_then(|key| fields::text(key, "`key`", findings));
    let operator = operator.and_then(|operator| fields::choice(operator, "`operator`", &names, findings));
    let values = match fields.get("values") {
        None => Vec::new(),
        Some(list) => fields::list(list, "`values`", MOST_VALUES, findings)?
            .iter()
            .filter_map(|value| fields::text(value, "a value", findings))
            .map(str::to_owned)
            .collect(),
    };
    match Requirement::new(key?, operator?, values) {
        Ok(requirement) => Some(requirement),
        Err(error) => {
            findings.push(bad_requirement(node, &error));
            None
        }
    }
}

fn bad_requirement(node: &Node, error: &RequirementError) -> Diagnostic {
    Diagnostic::error("bad-selector", Some(node.place.clone()), error.to_string())
}

/// The conditions of one label that exclude each other, as a sentence; `None` when labels can exist that meet them all (or
/// when that cannot be told from the patterns).
pub(super) fn contradiction(selector: &Selector) -> Option<String> {
    let mut by_key = BTreeMap::<&str, Vec<&Requirement>>::new();
    for requirement in selector.requirements() {
        by_key.entry(requirement.key()).or_default().push(requirement);
    }
    by_key.into_iter().find(|(key, requirements)| !can_be_met(key, requirements)).map(|(key, requirements)| {
        let shown = requirements.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(" and ");
        format!("no agent's `{key}` can meet {shown}")
    })
}

fn can_be_met(key: &str, requirements: &[&Requirement]) -> bool {
    let all_met = |labels: &Labels| requirements.iter().all(|requirement| requirement.matches(labels));
    if all_met(&Labels::new::<String, String>([])) {
        return true;
    }
    // The value must be one of those that an `In` lists: try them all.
    if let Some(among) = requirements.iter().find(|one| one.operator() == Operator::In) {
        return among.values().iter().any(|value| all_met(&Labels::new([(key, value.as_str())])));
    }
    if requirements.iter().any(|one| one.operator() == Operator::DoesNotExist) {
        return false;
    }
    // Patterns alone: only what is wanted and excluded in the same words, or excluded altogether, is certain.
    let excluded = |glob: &String| {
        requirements
            .iter()
            .filter(|one| one.operator() == Operator::NotGlob)
            .any(|one| one.values().contains(glob) || one.values().iter().any(|value| value == "*" || value == "**"))
    };
    let needs_value = |one: &&&Requirement| matches!(one.operator(), Operator::Exists | Operator::Glob);
    !requirements.iter().filter(needs_value).any(|one| match one.operator() {
        Operator::Glob => one.values().iter().all(excluded),
        Operator::Exists => excluded(&"*".to_owned()),
        Operator::In | Operator::NotIn | Operator::DoesNotExist | Operator::NotGlob => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_found_and_nothing_else() {
        use Operator::{DoesNotExist, Exists, Glob, In, NotGlob, NotIn};
        for (conditions, contradicts, why) in [
            (&[][..], false, "everybody"),
            (&[("env", In, &["prod"][..])], false, "one condition"),
            (&[("env", In, &["prod"]), ("env", In, &["dev"])], true, "no common value"),
            (&[("env", In, &["prod", "dev"]), ("env", In, &["dev", "test"])], false, "a common value"),
            (&[("env", In, &["prod"]), ("env", NotIn, &["prod"])], true, "wanted and excluded"),
            (&[("env", In, &["prod"]), ("env", DoesNotExist, &[])], true, "a value of an absent label"),
            (&[("env", Exists, &[]), ("env", DoesNotExist, &[])], true, "there and absent"),
            (&[("env", NotIn, &["a"]), ("env", DoesNotExist, &[])], false, "absent is not in"),
            (&[("host", In, &["gw-1"]), ("host", Glob, &["db-*"])], true, "the value does not match the glob"),
            (&[("host", In, &["gw-1", "db-1"]), ("host", Glob, &["db-*"])], false, "one value matches"),
            (&[("host", In, &["gw-1"]), ("host", NotGlob, &["gw-*"])], true, "the value is excluded by a glob"),
            (&[("host", Glob, &["gw-*"]), ("host", NotGlob, &["gw-*"])], true, "the same glob"),
            (&[("host", Glob, &["gw-*"]), ("host", NotGlob, &["*"])], true, "everything is excluded"),
            (&[("host", Exists, &[]), ("host", NotGlob, &["*"])], true, "everything is excluded"),
            (&[("host", Exists, &[]), ("host", NotGlob, &["a*"])], false, "something is left"),
            (&[("host", Glob, &["a*"]), ("host", Glob, &["b*"])], false, "cannot be told"),
            (&[("a", In, &["x"]), ("b", NotIn, &["x"])], false, "different labels"),
        ] {
            let requirements = conditions
                .iter()
                .map(|(key, operator, values)| {
                    Requirement::new(key, *operator, values.iter().map(|value| (*value).to_owned()).collect())
                        .unwrap_or_else(|error| panic!("{why}: {error}"))
                })
                .collect();
            assert_eq!(contradiction(&Selector::new(requirements)).is_some(), contradicts, "{why}: {conditions:?}");
        }
    }
}
