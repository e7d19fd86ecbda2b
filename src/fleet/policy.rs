//! `fleet.yaml`: what the groups of a fleet may do, by where their files stand.

use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};

use crate::fleet::GroupName;
use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::document::{self, open_document};
use crate::fleet::fields::{self, Fields, any_error};
use crate::fleet::matching::read_selector;
use crate::fleet::signers::SignerRules;
use crate::fleet::strategy::Amount;
use crate::labels::Selector;
use crate::yaml::{Node, Place};

/// Where the policy stands in a fleet.
pub(super) const POLICY_FILE: &str = "fleet.yaml";

/// Most boundaries, and most globs of `allowFast`. Every group is compared with each.
const MOST_BOUNDARIES: usize = 200;

/// A checked `fleet.yaml`. The default one bounds nobody.
#[derive(Clone, Debug)]
pub struct Policy {
    boundaries: Vec<Boundary>,
    allow_fast: Vec<PathGlob>,
    /// Whose signature the next revision needs for what it changes.
    pub signers: SignerRules,
    /// When one commit changes more groups than this, it is held until a person promotes it; all of them when nothing is
    /// said.
    pub max_changed_groups: Amount,
    /// When one commit moves more agents than this between groups (and more than 10), it is held until a person promotes it;
    /// 10 % when nothing is said.
    pub max_moved_agents: Amount,
    /// How many agents of the whole fleet may be unavailable at once; only the groups' own limits when nothing is said.
    pub max_unavailable: Option<Amount>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            boundaries: Vec::new(),
            allow_fast: Vec::new(),
            signers: SignerRules::default(),
            max_changed_groups: Amount::ALL,
            max_moved_agents: Amount::Share(1_000),
            max_unavailable: None,
        }
    }
}

#[derive(Clone, Debug)]
struct Boundary {
    path: PathGlob,
    selector: Option<Selector>,
    max_priority: Option<i32>,
    /// Only labels that a credential gave count.
    proven: bool,
    place: Place,
}

/// What all boundaries together leave to one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// ANDed to the group's own selector.
    pub selector: Selector,
    /// The highest priority allowed, and the path of the boundary that says so.
    pub max_priority: Option<(i32, String)>,
    /// The path of a boundary that has the group select on proven labels alone (`trust: proven`).
    pub proven: Option<String>,
}

impl Policy {
    /// Reads the bytes of a `fleet.yaml`; `file` names it in the findings. Findings with an error among them mean that the policy must
    /// not be used.
    pub fn read(file: &Arc<str>, bytes: &[u8]) -> (Self, Vec<Diagnostic>) {
        match document::parse(file, bytes) {
            Ok(Some(node)) => {
                let mut findings = Vec::new();
                let policy = read_policy(&node, &mut findings);
                (policy.unwrap_or_default(), document::bounded(findings))
            }
            Ok(None) => {
                let message = format!("`{file}` is empty");
                let help = "delete the file when the fleet needs no policy";
                (Self::default(), vec![Diagnostic::error("empty-file", Some(document::top(file)), message).help(help)])
            }
            Err(findings) => (Self::default(), findings),
        }
    }

    /// What the boundaries leave to this group: every one whose path matches is ANDed. A variant stands where its group stands.
    pub fn bounds(&self, group: &GroupName) -> Bounds {
        let mut bounds = Bounds { selector: Selector::everybody(), max_priority: None, proven: None };
        let paths = group_paths(group);
        for boundary in self.boundaries.iter().filter(|boundary| boundary.path.covers(&paths)) {
            if let Some(selector) = &boundary.selector {
                bounds.selector = bounds.selector.and(selector);
            }
            if let Some(most) = boundary.max_priority
                && bounds.max_priority.as_ref().is_none_or(|(least, _)| most < *least)
            {
                bounds.max_priority = Some((most, boundary.path.written.clone()));
            }
            if boundary.proven && bounds.proven.is_none() {
                bounds.proven = Some(boundary.path.written.clone());
            }
        }
        bounds
    }

    /// True when commits may ask for a fast rollout of this group (`Gitamp-Rollout: fast`).
    pub fn allows_fast(&self, group: &GroupName) -> bool {
        let paths = group_paths(group);
        self.allow_fast.iter().any(|glob| glob.covers(&paths))
    }

    /// A warning for each boundary that none of these groups stands under: most likely its path has a typing error, and it
    /// bounds nothing.
    pub(super) fn idle_boundaries<'g>(&self, groups: impl Iterator<Item = &'g GroupName>) -> Vec<Diagnostic> {
        let paths: Vec<[String; 2]> = groups.map(group_paths).collect();
        let idle = |boundary: &&Boundary| !paths.iter().any(|paths| boundary.path.covers(paths));
        self.boundaries
            .iter()
            .filter(idle)
            .map(|boundary| {
                let message = format!("no group stands under the boundary `{}`", boundary.path.written);
                Diagnostic::warning("idle-boundary", Some(boundary.place.clone()), message)
                    .help("paths are written from the fleet root, like `staging/**`")
            })
            .collect()
    }
}

/// A glob over paths below the fleet root, in which `*` stops at a slash and `**` does not.
#[derive(Clone, Debug)]
pub(super) struct PathGlob {
    written: String,
    glob: GlobMatcher,
}

impl PathGlob {
    pub(super) fn read(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let written = fields::text(node, "a path", findings)?;
        let mut refuse = |message: String, help: &str| {
            findings.push(Diagnostic::error("bad-path", Some(node.place.clone()), message).help(help));
        };
        if written.starts_with('/') || written.starts_with("./") || written.ends_with('/') || written.contains("..") {
            let message = format!("`{}` is no path below the fleet root", fields::shorten(written));
            refuse(message, "write it without a slash or dots at its ends, like `staging/**`");
            return None;
        }
        match GlobBuilder::new(written).literal_separator(true).backslash_escape(true).build() {
            Ok(glob) => Some(Self { written: written.to_owned(), glob: glob.compile_matcher() }),
            Err(error) => {
                let message = format!("`{}` is no valid glob: {}", fields::shorten(written), error.kind());
                refuse(message, "`*` stands for a part of a name, `**` for any number of directories");
                None
            }
        }
    }

    /// True when the path of a file matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        self.glob.is_match(path)
    }

    /// True when one of the paths matches.
    fn covers(&self, paths: &[String; 2]) -> bool {
        paths.iter().any(|path| self.glob.is_match(path))
    }
}

/// What a glob may match to cover a group: its directory, or its `group.yaml`, because who may write only below `staging/` may
/// write `staging/group.yaml` too.
fn group_paths(group: &GroupName) -> [String; 2] {
    let path = group.as_str().split_once('@').map_or(group.as_str(), |(path, _)| path);
    [path.to_owned(), format!("{path}/{}", document::GROUP_FILE)]
}

fn read_policy(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Policy> {
    let known = ["boundaries", "guards", "maxUnavailable", "allowFast", "signers"];
    let fields = open_document(node, "Fleet", &known, findings)?;
    let mut policy = Policy::default();
    if let Some(boundaries) = fields.get("boundaries") {
        for item in fields::list(boundaries, "`boundaries`", MOST_BOUNDARIES, findings)? {
            policy.boundaries.extend(read_boundary(item, findings));
        }
    }
    if let Some(guards) = fields.get("guards") {
        let guards = Fields::open(guards, "`guards`", &["maxChangedGroups", "maxMovedAgents"], findings)?;
        let mut guard =
            |name: &str| guards.get(name).and_then(|node| fields::amount(node, &format!("`{name}`"), findings));
        policy.max_changed_groups = guard("maxChangedGroups").unwrap_or(policy.max_changed_groups);
        policy.max_moved_agents = guard("maxMovedAgents").unwrap_or(policy.max_moved_agents);
    }
    if let Some(most) = fields.get("maxUnavailable") {
        policy.max_unavailable = fields::amount(most, "`maxUnavailable`", findings);
    }
    if let Some(paths) = fields.get("allowFast") {
        let paths = fields::list(paths, "`allowFast`", MOST_BOUNDARIES, findings)?;
        policy.allow_fast = paths.iter().filter_map(|path| PathGlob::read(path, findings)).collect();
    }
    if let Some(signers) = fields.get("signers") {
        policy.signers = SignerRules::read(signers, findings).unwrap_or_default();
    }
    Some(policy)
}

fn read_boundary(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Boundary> {
    let mut here = Vec::new();
    let fields = Fields::open(node, "a boundary", &["path", "selector", "maxPriority", "trust"], findings)?;
    let path = fields.require("path", "a boundary", &mut here).and_then(|path| PathGlob::read(path, &mut here));
    let selector = fields.get("selector").and_then(|selector| read_selector(selector, &mut here));
    let max_priority = fields.get("maxPriority").and_then(|most| fields::integer(most, "`maxPriority`", "", &mut here));
    let trust = fields.get("trust").map(|trust| read_trust(trust, &mut here));
    if fields.get("selector").is_none() && fields.get("maxPriority").is_none() && trust.is_none() {
        let message = "a boundary without `selector`, `maxPriority` and `trust` bounds nothing";
        here.push(Diagnostic::error("missing-field", Some(node.place.clone()), message));
    }
    let sound = !any_error(&here);
    findings.append(&mut here);
    let boundary = Boundary {
        path: path?,
        selector: selector.map(|selector| selector.value),
        max_priority,
        proven: trust.unwrap_or_default(),
        place: node.place.clone(),
    };
    sound.then_some(boundary)
}

/// True for `proven`; `claimed` is what holds when nothing is said.
fn read_trust(node: &Node, findings: &mut Vec<Diagnostic>) -> bool {
    match fields::text(node, "`trust`", findings) {
        Some("proven") => true,
        Some("claimed") | None => false,
        Some(other) => {
            let message = format!("`trust` is `proven` or `claimed`, not `{}`", fields::shorten(other));
            let help = "`proven`: groups select on labels that certificates and tokens gave, and on nothing else";
            findings.push(Diagnostic::error("bad-value", Some(node.place.clone()), message).help(help));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Policy {
        let text = format!("apiVersion: gitamp/v1\nkind: Fleet\n{text}");
        let (policy, findings) = Policy::read(&"fleet.yaml".into(), text.as_bytes());
        assert_eq!(findings, [], "{text}");
        policy
    }

    #[test]
    fn a_boundary_may_demand_proofs() {
        let policy =
            read("boundaries:\n- {path: 'prod/**', trust: proven}\n- {path: '**', maxPriority: 5, trust: claimed}\n");
        assert_eq!(policy.bounds(&GroupName::new("prod/a@b")).proven.as_deref(), Some("prod/**"));
        assert_eq!(policy.bounds(&GroupName::new("staging/a")).proven, None);
        for (text, code) in [("{path: a, trust: claims}", "bad-value"), ("{path: a}", "missing-field")] {
            let text = format!("apiVersion: gitamp/v1\nkind: Fleet\nboundaries: [{text}]\n");
            let (_, findings) = Policy::read(&"fleet.yaml".into(), text.as_bytes());
            assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), [code], "{text}");
        }
    }

    #[test]
    fn fast_rollouts_are_allowed_by_path() {
        for (globs, group, expected) in [
            (r#"["staging/**"]"#, "staging/gateways", true),
            (r#"["staging/**"]"#, "staging/eu/gateways", true),
            (r#"["staging/**"]"#, "staging/gateways@us", true),
            (r#"["staging/**"]"#, "staging", true),
            (r#"["staging/**"]"#, "prod/gateways", false),
            (r#"["staging/**"]"#, "prod/staging/gateways", false),
            (r#"["staging/**"]"#, "staging-eu/gateways", false),
            (r#"["staging/*"]"#, "staging/gateways", true),
            (r#"["staging/*"]"#, "staging/eu/gateways", false),
            (r#"["dev/**", "staging/**"]"#, "staging/gateways", true),
            (r#"["**"]"#, "prod/gateways", true),
            ("[]", "staging/gateways", false),
        ] {
            let policy = read(&format!("allowFast: {globs}\n"));
            assert_eq!(policy.allows_fast(&GroupName::new(group)), expected, "{globs} and {group}");
        }
        assert!(
            !read("maxUnavailable: 30%\n").allows_fast(&GroupName::new("staging")),
            "nothing said, nothing allowed"
        );
    }
}
