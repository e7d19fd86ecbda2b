//! `signers` of `fleet.yaml`: whose signature a change needs, by the paths that it touches.

use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::fields::{self, Fields, any_error};
use crate::fleet::policy::{POLICY_FILE, PathGlob};
use crate::yaml::{Node, Place};

/// Most rules, and most paths and signers in each.
const MOST: usize = 200;

/// Rules over the paths of files below the fleet root. Those of the revision that was accepted last judge the next one, so that no
/// commit grants a right that it uses.
#[derive(Clone, Debug, Default)]
pub struct SignerRules(Vec<SignerRule>);

#[derive(Clone, Debug)]
struct SignerRule {
    paths: Vec<PathGlob>,
    signers: Vec<String>,
}

/// A path that somebody changed without the right to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// The path.
    pub path: String,
    /// Who may.
    pub signers: Vec<String>,
}

impl SignerRules {
    /// True when nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first of these paths that the signer must not change; `is` says whether they are who a rule names. Every rule that covers a path
    /// has to name them.
    pub fn forbid(&self, paths: &[String], is: impl Fn(&str) -> bool) -> Option<Forbidden> {
        let may = |rule: &SignerRule| rule.signers.iter().any(|signer| is(signer));
        let strict: Vec<&SignerRule> = self.0.iter().filter(|rule| !may(rule)).collect();
        paths.iter().find_map(|path| {
            let rule = strict.iter().find(|rule| rule.covers(path))?;
            Some(Forbidden { path: path.clone(), signers: rule.signers.clone() })
        })
    }

    /// Reads the list. Rules that do not cover `fleet.yaml` would hold nobody back for longer than one commit, so one has to.
    pub(super) fn read(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let mut rules = Vec::new();
        for item in fields::list(node, "`signers`", MOST, findings)? {
            rules.push(SignerRule::read(item, findings)?);
        }
        let rules = Self(rules);
        if !rules.is_empty() && !rules.0.iter().any(|rule| rule.covers(POLICY_FILE)) {
            let message =
                format!("no rule of `signers` covers `{POLICY_FILE}`: whoever may change it could remove them");
            let help = format!("name the file in the `paths` of one, like `paths: [\"prod/**\", {POLICY_FILE}]`");
            findings.push(Diagnostic::error("unguarded-policy", Some(node.place.clone()), message).help(help));
        }
        Some(rules)
    }
}

impl SignerRule {
    fn read(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let mut here = Vec::new();
        let what = "a rule of `signers`";
        let fields = Fields::open(node, what, &["paths", "signers"], findings)?;
        let paths = fields.require("paths", what, &mut here);
        let paths = paths.and_then(|paths| fields::list(paths, "`paths`", MOST, &mut here)).unwrap_or_default();
        let paths: Vec<PathGlob> = paths.iter().filter_map(|path| PathGlob::read(path, &mut here)).collect();
        let signers = fields.require("signers", what, &mut here);
        let signers =
            signers.and_then(|signers| fields::list(signers, "`signers`", MOST, &mut here)).unwrap_or_default();
        let name = |signer: &Node| fields::text(signer, "a signer", &mut here).map(|text| text.trim().to_owned());
        let signers: Vec<String> = signers.iter().filter_map(name).collect();
        if !any_error(&here) && (paths.is_empty() || signers.is_empty()) {
            here.push(nothing(what, &node.place));
        }
        let sound = !any_error(&here);
        findings.append(&mut here);
        sound.then_some(Self { paths, signers })
    }

    fn covers(&self, path: &str) -> bool {
        self.paths.iter().any(|glob| glob.matches(path))
    }
}

fn nothing(what: &str, place: &Place) -> Diagnostic {
    let message = format!("{what} needs at least one path and one signer");
    Diagnostic::error("missing-field", Some(place.clone()), message)
        .help("signers are named as in the file of allowed signers: `ann@example.com`, or a key's fingerprint")
}

#[cfg(test)]
mod tests {
    use crate::fleet::policy::Policy;

    fn policy(signers: &str) -> (Policy, Vec<String>) {
        let text = format!("apiVersion: gitamp/v1\nkind: Fleet\nsigners:\n{signers}");
        let (policy, findings) = Policy::read(&"fleet.yaml".into(), text.as_bytes());
        (policy, findings.iter().map(|one| format!("{}: {}", one.code, one.message)).collect())
    }

    #[test]
    fn every_rule_that_covers_a_path_has_to_name_the_signer() {
        let (policy, findings) = policy(
            "- {paths: [\"prod/**\", fleet.yaml], signers: [ann, bob]}\n- {paths: [\"prod/pay/*\"], signers: [ann]}\n",
        );
        assert_eq!(findings, Vec::<String>::new());
        for (who, path, wanted) in [
            ("ann", "prod/pay/collector.yaml", None),
            ("bob", "prod/pay/collector.yaml", Some("ann")),
            ("bob", "prod/pay/deep/collector.yaml", None),
            ("bob", "prod/gateways/group.yaml", None),
            ("eve", "prod/gateways/group.yaml", Some("ann bob")),
            ("eve", "fleet.yaml", Some("ann bob")),
            ("eve", "staging/group.yaml", None),
            ("eve", "products/group.yaml", None),
            ("", "prod/group.yaml", Some("ann bob")),
        ] {
            let paths = ["README.md".to_owned(), path.to_owned()];
            let got = policy.signers.forbid(&paths, |named| named == who);
            let shown = got.as_ref().map(|forbidden| forbidden.signers.join(" "));
            assert_eq!(shown.as_deref(), wanted, "{who} and {path}");
            assert!(got.is_none_or(|forbidden| forbidden.path == path), "{who} and {path}");
        }
    }

    #[test]
    fn rules_that_guard_nothing_are_errors() {
        for (signers, words) in [
            ("- {paths: [\"prod/**\"], signers: [ann]}\n", "unguarded-policy"),
            ("- {paths: [], signers: [ann]}\n", "at least one path"),
            ("- {paths: [fleet.yaml], signers: []}\n", "one signer"),
            ("- {paths: [fleet.yaml]}\n", "needs the field `signers`"),
            ("- {signers: [ann]}\n", "needs the field `paths`"),
            ("- {paths: [/prod], signers: [ann]}\n", "bad-path"),
            ("- {paths: [fleet.yaml], signers: [ann], by: 1}\n", "unknown-field"),
            ("- ann\n", "must be a map"),
        ] {
            let (policy, findings) = policy(signers);
            assert!(findings.iter().any(|one| one.contains(words)), "{signers}: {findings:?}");
            assert!(!findings.is_empty() && policy.signers.forbid(&["x".to_owned()], |_| false).is_none(), "{signers}");
        }
        assert_eq!(policy("  []\n").1, Vec::<String>::new());
    }
}
