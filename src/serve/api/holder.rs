//! Who an operator is by what a token proved: name, role and e-mail address, and which files can say that.

use std::collections::BTreeMap;

use crate::identity::jwt::IssuerEntry;
use crate::identity::tokens::Entry;
use crate::identity::{Identity, Source};
use crate::serve::gate::Whose;
use crate::view::operator::Role;
use crate::view::text::{clip, is_invisible};

/// Characters of a name, and of an address.
const LONGEST: usize = 254;

/// What operators' files have to say.
pub(super) const OPERATORS: Whose = Whose { name: "operators", token: check_token, issuer: check_issuer };

/// An operator, as a token has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// What tells operators apart, also two of one name of different issuers.
    pub(super) key: String,
    /// The name that stands in records, with where it comes from.
    pub(super) by: String,
    pub(super) role: Role,
    pub(super) email: Option<String>,
}

impl Holder {
    /// Whoever proved this. `None`: that is nobody, which the checks of the files leave no room for.
    pub(super) fn of(identity: &Identity) -> Option<Self> {
        let labels = &identity.labels;
        let role = labels.get_proven("role").and_then(Role::named)?;
        let email = labels.get_proven("email").filter(|mail| is_address(mail)).map(str::to_owned);
        let (name, key, way) = match identity.source {
            Source::Token(_) => {
                let name = labels.get_proven("token.name")?;
                (name, name.to_owned(), "API".to_owned())
            }
            Source::Issuer(_) => {
                let (issuer, subject) =
                    (labels.get_proven("jwt.iss")?, labels.get_proven("jwt.sub").unwrap_or_default());
                let name = labels.get_proven("jwt.name")?;
                (name, format!("{issuer}\n{subject}\n{name}"), format!("API, {issuer}"))
            }
        };
        let name = shown(name);
        let by = match &email {
            Some(email) => format!("{name} <{email}> ({way})"),
            None => format!("{name} ({way})"),
        };
        Some(Self { key, by, role, email })
    }
}

/// A name as it may stand in a record: nothing in it looks like the address or the origin behind it.
pub(super) fn shown(name: &str) -> String {
    let odd = |c: char| c.is_control() || is_invisible(c) || "<>()".contains(c);
    clip(name.chars().map(|c| if odd(c) { '_' } else { c }).collect::<String>().trim(), LONGEST)
}

fn check_token(entry: &Entry) -> Result<(), String> {
    if shown(&entry.name) != entry.name {
        return Err(
            "a name in records has no brackets, no space around it and at most 254 printable characters".to_owned()
        );
    }
    check_labels(&entry.labels)
}

/// What the labels of a token give here.
fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), String> {
    if let Some(other) = labels.keys().find(|key| !["role", "email"].contains(&key.as_str())) {
        return Err(format!("the label `{other}` means nothing for operators: `role` and `email` do"));
    }
    if labels.get("role").and_then(|role| Role::named(role)).is_none() {
        return Err("its label `role` must be view, operate or approve".to_owned());
    }
    match labels.get("email") {
        Some(mail) if !is_address(mail) => Err("its label `email` is no address".to_owned()),
        Some(_) | None => Ok(()),
    }
}

fn check_issuer(entry: &IssuerEntry) -> Result<(), String> {
    if entry.roles.is_empty() {
        return Err("without `roles` its tokens would make nobody an operator".to_owned());
    }
    match entry.roles.iter().find(|rule| Role::named(&rule.role).is_none()) {
        Some(rule) => Err(format!("`{}` is no role: view, operate or approve", shown(&rule.role))),
        None => Ok(()),
    }
}

fn is_address(text: &str) -> bool {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || is_invisible(c) || "<>()".contains(c);
    text.chars().count() <= LONGEST
        && !text.contains(is_odd)
        && text.split_once('@').is_some_and(|(local, host)| !local.is_empty() && !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tokens::{TokenFile, Tokens, hash};
    use crate::labels::Labels;
    use crate::time::Timestamp;

    fn of(source: Source, labels: &[(&str, &str)]) -> Option<Holder> {
        Holder::of(&Identity { labels: Labels::proven(labels.iter().copied()), expires: None, source, holder: [0; 32] })
    }

    #[test]
    fn a_token_says_who_somebody_is() {
        let text = format!(
            "tokens: [{{name: ann, sha256: {}, labels: {{role: approve, email: ann@example.org}}}}]",
            hex::encode(hash("one"))
        );
        let file = TokenFile::parse(&text).expect("a file");
        assert_eq!(file.tokens.iter().map(check_token).collect::<Vec<_>>(), [Ok(())]);
        let identity = Tokens::new(&file).verify("one", Timestamp::from_millis(0)).expect("known");
        let holder = Holder::of(&identity).expect("an operator");
        assert_eq!((holder.by.as_str(), holder.role), ("ann <ann@example.org> (API)", Role::Approve));
        assert_eq!(of(Source::Token([0; 32]), &[("token.name", "ann")]), None, "an agent's");
        assert_eq!(of(Source::Token([0; 32]), &[("token.name", "ann"), ("role", "admin")]), None);
    }

    #[test]
    fn a_name_that_somebody_chose_looks_like_nobody_else_in_records() {
        let issuer = Source::Issuer([0; 32]);
        let jwt = |name: &str, email: &str| {
            let labels =
                [("jwt.iss", "https://sso"), ("jwt.sub", "7"), ("jwt.name", name), ("role", "view"), ("email", email)];
            of(issuer, &labels).expect("an operator")
        };
        let by = |name: &str, email: &str| jwt(name, email).by;
        assert_eq!(by("ann", "ann@example.org"), "ann <ann@example.org> (API, https://sso)");
        assert_eq!(by("ann <ann@example.org> (API)\u{202e}", ""), "ann _ann@example.org_ _API__ (API, https://sso)");
        assert_eq!(by("ann", "bob> (API) <x@y"), "ann (API, https://sso)", "that is no address");
        assert_eq!(by(&"x".repeat(2_000), "").chars().count(), LONGEST + " (API, https://sso)".len());
        let token = of(Source::Token([0; 32]), &[("token.name", "ann"), ("role", "view")]).expect("an operator");
        assert_ne!(token.key, jwt("ann", "").key, "each has a pace of its own");
    }

    #[test]
    fn files_that_make_no_operators_are_refused() {
        let with = |name: &str, labels: &str| {
            let text =
                format!("tokens: [{{name: {name}, sha256: {}, labels: {{{labels}}}}}]", hex::encode(hash("one")));
            let file = TokenFile::parse(&text).expect("a file");
            check_token(&file.tokens[0]).expect_err(labels)
        };
        for (name, labels, words) in [
            ("'ann (API)'", "role: view", "no brackets"),
            ("' ann'", "role: view", "no space around"),
            ("ann", "", "its label `role` must be view, operate or approve"),
            ("ann", "role: admin", "must be view, operate or approve"),
            ("ann", "role: view, env: prod", "the label `env` means nothing"),
            ("ann", "role: view, email: ann", "`email` is no address"),
            ("ann", "role: view, email: 'Ann <a@b>'", "`email` is no address"),
        ] {
            let error = with(name, labels);
            assert!(error.contains(words), "{error}");
        }
        let issuer = |more: &str| {
            let text = format!("issuers: [{{issuer: a, audience: b, jwksFile: k{more}}}]");
            let entry = crate::identity::jwt::IssuersFile::parse(&text).expect("a file").issuers.remove(0);
            (check_issuer(&entry), (Whose::AGENTS.issuer)(&entry))
        };
        assert!(matches!(issuer(""), (Err(error), Ok(())) if error.contains("without `roles`")));
        assert!(matches!(issuer(", roles: [{role: view, claims: {a: b}}]"), (Ok(()), Err(_))));
        assert!(
            matches!(issuer(", roles: [{role: root, claims: {a: b}}]"), (Err(error), Err(_)) if error.contains("`root` is no role"))
        );
    }
}
