//! Which role a JWT gives an operator, and under which name: rules over its claims, of which the first that fits counts.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::jwt::{IssuerEntry, claim_at, scalar};
use super::{Denied, presentable};

/// Most rules of an issuer, most claims of a rule, and most values of a claim.
const MOST: usize = 256;

/// One rule, as the file of issuers has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRule {
    /// What it gives.
    pub role: String,
    /// What has to be there, each by its path with one of these values. A claim that is a list fits when one of its elements does.
    pub claims: BTreeMap<String, Value>,
}

/// A rule, checked.
#[derive(Clone, Debug)]
struct Rule {
    role: String,
    /// Paths of claims, each with the values of which it has to have one.
    claims: Vec<(String, Vec<String>)>,
}

/// The rules of an issuer whose tokens make operators.
#[derive(Clone, Debug)]
pub(super) struct Roles {
    rules: Vec<Rule>,
    /// The path of the claim with the name for the records.
    name: String,
    /// The path of the claim with the address by which the holder is known in commits.
    email: Option<String>,
}

impl Roles {
    /// The rules of an entry; `None` when its tokens make nobody an operator.
    ///
    /// # Errors
    /// When they cannot be used, with the reason.
    pub(super) fn of(entry: &IssuerEntry) -> Result<Option<Self>, String> {
        if entry.roles.is_empty() {
            return match entry.name.is_some() || entry.email.is_some() {
                true => {
                    Err("`name` and `email` are about operators, and mean something beside `roles` only".to_owned())
                }
                false => Ok(None),
            };
        }
        if !entry.labels.is_empty() {
            return Err("`labels` are given to agents and `roles` to operators: an issuer of one file has one of them"
                .to_owned());
        }
        if entry.roles.len() > MOST {
            return Err(format!("more than {MOST} rules in `roles`"));
        }
        let rules = entry.roles.iter().map(rule).collect::<Result<_, _>>()?;
        let name = entry.name.clone().unwrap_or_else(|| "sub".to_owned());
        Ok(Some(Self { rules, name, email: entry.email.clone() }))
    }

    /// What a verified token gives: `role`, `jwt.name`, and `email` when it says one.
    ///
    /// # Errors
    /// When it names nobody, or no rule fits.
    pub(super) fn labels(&self, claims: &Value) -> Result<Vec<(String, String)>, Denied> {
        let text = |path: &str| presentable(&scalar(claim_at(claims, path)?)?).map(str::to_owned);
        let name = text(&self.name).ok_or(Denied::Malformed("it has no claim with the name of its holder"))?;
        let has = |(path, values): &(String, Vec<String>)| {
            claim_at(claims, path).is_some_and(|found| has_one_of(found, values))
        };
        let rule = self.rules.iter().find(|rule| rule.claims.iter().all(has));
        let role = &rule.ok_or_else(|| Denied::Role(name.clone()))?.role;
        // An address that its holder only typed in could be anybody's, and nobody's own commit would be found by it.
        let is_verified = claims.get("email_verified").and_then(scalar).is_none_or(|verified| verified == "true");
        let email = self.email.as_deref().filter(|_| is_verified).and_then(text);
        let given = [("role", Some(role.clone())), ("jwt.name", Some(name)), ("email", email)];
        Ok(given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
    }
}

fn rule(rule: &RoleRule) -> Result<Rule, String> {
    let wrong = |why: &str| format!("the rule for the role `{}` {why}", rule.role);
    if rule.claims.is_empty() {
        return Err(wrong(
            "names no claim, and whoever has a token of this issuer would have it: name one that tells them apart, or `aud` if all shall have it",
        ));
    }
    let wanted = |(path, value): (&String, &Value)| {
        let values: Option<Vec<String>> = match value {
            Value::Array(several) => several.iter().map(scalar).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                scalar(value).map(|one| vec![one])
            }
        };
        match values.filter(|values| !values.is_empty() && values.len() <= MOST) {
            Some(values) => Ok((path.clone(), values)),
            None => Err(wrong(&format!(
                "wants nothing that can be compared of the claim `{path}`: give a value, or a list of them"
            ))),
        }
    };
    if rule.claims.len() > MOST {
        return Err(wrong("has too many claims"));
    }
    Ok(Rule { role: rule.role.clone(), claims: rule.claims.iter().map(wanted).collect::<Result<_, _>>()? })
}

/// True when a claim is one of the values, or a list that holds one.
fn has_one_of(found: &Value, values: &[String]) -> bool {
    let is_one = |found: &Value| scalar(found).is_some_and(|found| values.contains(&found));
    match found {
        Value::Array(several) => several.iter().any(is_one),
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null | Value::Object(_) => is_one(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::jwt::IssuersFile;
    use serde_json::json;

    fn roles(rules: &str) -> Result<Option<Roles>, String> {
        let text = format!("issuers: [{{issuer: a, audience: b, jwksFile: k{rules}}}]");
        Roles::of(&IssuersFile::parse(&text)?.issuers[0])
    }

    #[test]
    fn the_first_rule_that_fits_gives_the_role() {
        let rules = roles(
            ", name: preferred_username, email: email, roles: [\
             {role: approve, claims: {groups: [platform-leads, owners]}}, \
             {role: operate, claims: {repository: acme/fleet, ref: [refs/heads/main], run/attempt: 1}}, \
             {role: view, claims: {realm_access/roles: staff}}, {role: view, claims: {is_staff: true}}]",
        )
        .expect("rules")
        .expect("some");
        let person = |more: Value| {
            let mut claims = json!({"sub": "1", "preferred_username": "ann", "email": "ann@example.org"});
            claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            rules.labels(&claims).map(|labels| {
                labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
            })
        };
        let ann = |role: &str| Ok(format!("role={role} jwt.name=ann email=ann@example.org"));
        let none = || Err(Denied::Role("ann".to_owned()));
        for (claims, wanted) in [
            (json!({"groups": ["staff", "owners"]}), ann("approve")),
            (json!({"groups": "owners"}), ann("approve")),
            (json!({"groups": ["Owners", "owners ", "own"]}), none()),
            (json!({"groups": {"owners": true}}), none()),
            (json!({"groups": [["owners"]]}), none()),
            (json!({"groups": null}), none()),
            (json!({"repository": "acme/fleet", "ref": "refs/heads/main", "run": {"attempt": 1}}), ann("operate")),
            (json!({"repository": "acme/fleet", "ref": "refs/heads/main", "run": {"attempt": 2}}), none()),
            (json!({"repository": "acme/fleet", "ref": "refs/pull/7/merge", "run": {"attempt": 1}}), none()),
            (json!({"realm_access": {"roles": ["staff"]}}), ann("view")),
            (json!({"realm_access/roles": ["staff"]}), ann("view")),
            (json!({"is_staff": true}), ann("view")),
            (json!({"is_staff": "yes"}), none()),
            (json!({}), none()),
            (json!({"groups": ["owners"], "email_verified": false}), Ok("role=approve jwt.name=ann".to_owned())),
            (json!({"groups": ["owners"], "email_verified": "false"}), Ok("role=approve jwt.name=ann".to_owned())),
            (json!({"groups": ["owners"], "email_verified": true}), ann("approve")),
            (
                json!({"groups": ["owners"], "preferred_username": "a\u{1b}[2J"}),
                Err(Denied::Malformed("it has no claim with the name of its holder")),
            ),
        ] {
            assert_eq!(person(claims.clone()), wanted, "{claims}");
        }
    }

    #[test]
    fn rules_that_would_let_everybody_in_are_refused() {
        assert!(roles("").expect("an issuer of agents").is_none());
        for (rules, words) in [
            (", roles: [{role: view, claims: {}}]", "names no claim"),
            (", roles: [{role: view, claims: {groups: []}}]", "nothing that can be compared of the claim `groups`"),
            (", roles: [{role: view, claims: {groups: null}}]", "nothing that can be compared"),
            (", roles: [{role: view, claims: {groups: [[a]]}}]", "nothing that can be compared"),
            (", roles: [{role: view, claims: {a: b}}], labels: {env: env}", "has one of them"),
            (", name: sub", "beside `roles` only"),
        ] {
            let error = roles(rules).expect_err(words);
            assert!(error.contains(words), "{rules}: {error}");
        }
    }
}
