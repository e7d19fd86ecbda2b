//! `group.yaml` and `defaults.yaml` as checked values: what one file says, before anything is inherited.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fleet::Expect;
use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::document::{DEFAULTS_FILE, GROUP_FILE, bounded, open_document};
use crate::fleet::fields::{self, Fields, Placed, any_error};
use crate::fleet::matching::read_selector;
use crate::fleet::policy::POLICY_FILE;
use crate::fleet::rollout_section::RolloutSection;
use crate::labels::Selector;
use crate::yaml::{Node, Place, is_variable_name};

/// Most layers of one list, variables of one file, variants of one group.
const MOST_LAYERS: usize = 64;
const MOST_VARIABLES: usize = 1_000;
const MOST_VARIANTS: usize = 100;

/// Most bytes of a variable's value; longer ones are a layer.
const VARIABLE_BYTES: usize = 4_096;

/// Most bytes of a variant's name.
const NAME_BYTES: usize = 63;

/// A layer by its path from the fleet root, and who names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) path: Arc<str>,
    pub(super) place: Place,
}

/// Values of `${fleet:NAME}`.
pub(super) type Variables = BTreeMap<String, String>;

/// What `group.yaml` and `defaults.yaml` both may say.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    pub(super) selector: Option<Placed<Selector>>,
    pub(super) layers: Option<Vec<Layer>>,
    pub(super) vars: Arc<Variables>,
    pub(super) suspend: bool,
    pub(super) partial: Option<bool>,
    pub(super) rollout: RolloutSection,
}

/// One `group.yaml`.
#[derive(Clone, Debug)]
pub(super) struct GroupFile {
    pub(super) common: Common,
    pub(super) priority: Placed<i32>,
    pub(super) inherit_layers: bool,
    pub(super) expect: Option<Expect>,
    pub(super) variants: Vec<Variant>,
}

/// One entry of `variants`.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) selector: Placed<Selector>,
    pub(super) vars: Arc<Variables>,
    pub(super) layers: Vec<Layer>,
}

/// The fields of [`Common`].
const COMMON_FIELDS: [&str; 6] = ["selector", "layers", "vars", "suspend", "partial", "rollout"];

/// Reads a `defaults.yaml` that stands in `directory`.
pub(super) fn read_defaults(node: &Node, directory: &str) -> (Common, Vec<Diagnostic>) {
    let mut findings = Vec::new();
    let common = match open_document(node, "Defaults", &COMMON_FIELDS, &mut findings) {
        Some(fields) => read_common(&fields, directory, &mut findings),
        None => Common::default(),
    };
    (common, bounded(findings))
}

/// Reads a `group.yaml` that stands in `directory`. `None`, or an error among the findings: it must not be used.
pub(super) fn read_group(node: &Node, directory: &str) -> (Option<GroupFile>, Vec<Diagnostic>) {
    let mut findings = Vec::new();
    let known: Vec<&str> =
        COMMON_FIELDS.into_iter().chain(["priority", "inheritLayers", "expect", "variants"]).collect();
    let Some(fields) = open_document(node, "Group", &known, &mut findings) else { return (None, bounded(findings)) };
    let common = read_common(&fields, directory, &mut findings);
    let priority = match fields.get("priority") {
        None => Some(Placed::at(node, 0)),
        Some(value) => fields::integer(value, "`priority`", " of 32 bits", &mut findings)
            .map(|priority| Placed::at(value, priority)),
    };
    let inherit_layers =
        fields.get("inheritLayers").map_or(Some(true), |node| fields::boolean(node, "`inheritLayers`", &mut findings));
    let expect = fields.get("expect").and_then(|node| read_expect(node, &mut findings));
    let variants = fields.get("variants").map_or(Vec::new(), |node| read_variants(node, directory, &mut findings));
    let group = match (priority, inherit_layers) {
        (Some(priority), Some(inherit_layers)) => {
            Some(GroupFile { common, priority, inherit_layers, expect, variants })
        }
        (None, _) | (_, None) => None,
    };
    (group, bounded(findings))
}

/// The names of the variants in a file that may be broken otherwise, so that they are not taken for removed.
pub(super) fn variant_names(node: &Node) -> Vec<String> {
    let named = |variant: &Node| {
        variant.get("name").and_then(Node::as_str).filter(|name| is_variant_name(name)).map(str::to_owned)
    };
    node.get("variants")
        .and_then(Node::as_sequence)
        .unwrap_or_default()
        .iter()
        .take(MOST_VARIANTS)
        .filter_map(named)
        .collect()
}

fn read_common(fields: &Fields<'_>, directory: &str, findings: &mut Vec<Diagnostic>) -> Common {
    Common {
        selector: fields.get("selector").and_then(|node| read_selector(node, findings)),
        layers: fields.get("layers").and_then(|node| read_layers(node, directory, findings)),
        vars: fields.get("vars").map(|node| read_vars(node, findings)).unwrap_or_default().into(),
        suspend: fields.get("suspend").and_then(|node| fields::boolean(node, "`suspend`", findings)).unwrap_or(false),
        partial: fields.get("partial").and_then(|node| fields::boolean(node, "`partial`", findings)),
        rollout: fields.get("rollout").map(|node| RolloutSection::read(node, findings)).unwrap_or_default(),
    }
}

fn read_expect(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Expect> {
    let fields = Fields::open(node, "`expect`", &["min", "max"], findings)?;
    let mut bound = |name: &str| match fields.get(name) {
        None => Some(None),
        Some(value) => fields::integer::<u32>(value, &format!("`{name}`"), ", zero or more", findings).map(Some),
    };
    let (min, max) = (bound("min"), bound("max"));
    let expect = Expect { min: min?, max: max? };
    let problem = match (expect.min, expect.max) {
        (None, None) => "`expect` says neither `min` nor `max`".to_owned(),
        (Some(min), Some(max)) if min > max => format!("no number of agents is at least {min} and at most {max}"),
        (Some(_), _) | (_, Some(_)) => return Some(expect),
    };
    findings.push(Diagnostic::error("bad-value", Some(node.place.clone()), problem));
    None
}

fn read_vars(node: &Node, findings: &mut Vec<Diagnostic>) -> Variables {
    let mut vars = Variables::new();
    let Some(fields) = Fields::open_free(node, "`vars`", findings) else { return vars };
    if fields.iter().count() > MOST_VARIABLES {
        let message = format!("`vars` has more than {MOST_VARIABLES} entries");
        findings.push(Diagnostic::error("too-many", Some(node.place.clone()), message));
        return vars;
    }
    for (name, key, value) in fields.iter() {
        if !is_variable_name(name) {
            let message = format!("`{}` cannot be the name of a variable", fields::shorten(name));
            let help = "names have letters, digits, `_`, `-` and `.`, and start with a letter";
            findings.push(Diagnostic::error("bad-name", Some(key.place.clone()), message).help(help));
            continue;
        }
        match fields::text(value, &format!("the variable `{name}`"), findings) {
            Some(text) if text.len() > VARIABLE_BYTES => {
                let message =
                    format!("the variable `{name}` has {} bytes, and {VARIABLE_BYTES} are allowed", text.len());
                let help = "put long values into a layer";
                findings.push(Diagnostic::error("too-large", Some(value.place.clone()), message).help(help));
            }
            Some(text) => {
                vars.insert(name.to_owned(), text.to_owned());
            }
            None => {}
        }
    }
    vars
}

fn read_variants(node: &Node, directory: &str, findings: &mut Vec<Diagnostic>) -> Vec<Variant> {
    let mut variants = Vec::<Variant>::new();
    for item in fields::list(node, "`variants`", MOST_VARIANTS, findings).unwrap_or_default() {
        let Some(variant) = read_variant(item, directory, findings) else { continue };
        if variants.iter().any(|other| other.name == variant.name) {
            let message = format!("two variants are called `{}`", variant.name);
            findings.push(
                Diagnostic::error("duplicate", Some(item.place.clone()), message).help("give each a name of its own"),
            );
        } else {
            variants.push(variant);
        }
    }
    variants
}

fn read_variant(node: &Node, directory: &str, findings: &mut Vec<Diagnostic>) -> Option<Variant> {
    let fields = Fields::open(node, "a variant", &["name", "selector", "vars", "layers"], findings)?;
    let name = fields.require("name", "a variant", findings).and_then(|node| {
        let name = fields::text(node, "`name`", findings)?;
        if is_variant_name(name) {
            return Some(name.to_owned());
        }
        let message = format!("`{}` cannot be the name of a variant", fields::shorten(name));
        let help = format!("names have at most {NAME_BYTES} of letters, digits, `-`, `_` and `.`");
        findings.push(Diagnostic::error("bad-name", Some(node.place.clone()), message).help(help));
        None
    });
    let selector = fields.require("selector", "a variant", findings).and_then(|node| read_selector(node, findings));
    let vars = fields.get("vars").map(|node| read_vars(node, findings)).unwrap_or_default().into();
    let layers = fields.get("layers").and_then(|node| read_layers(node, directory, findings)).unwrap_or_default();
    Some(Variant { name: name?, selector: selector?, vars, layers })
}

fn is_variant_name(name: &str) -> bool {
    let allowed = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    !name.is_empty() && name.len() <= NAME_BYTES && name.chars().all(allowed)
}

fn read_layers(node: &Node, directory: &str, findings: &mut Vec<Diagnostic>) -> Option<Vec<Layer>> {
    let mut layers = Vec::<Layer>::new();
    for item in fields::list(node, "`layers`", MOST_LAYERS, findings)? {
        let Some(written) = fields::text(item, "a layer", findings) else { continue };
        let place = Some(item.place.clone());
        match resolve_layer(written, directory) {
            Err((message, help)) => {
                let message = format!("the layer `{}` {message}", fields::shorten(written));
                findings.push(Diagnostic::error("bad-layer", place, message).help(help));
            }
            Ok(path) if layers.iter().any(|layer| *layer.path == *path) => {
                let message = format!("the layer `{}` stands twice in this list", fields::shorten(written));
                findings.push(Diagnostic::error("duplicate", place, message).help("keep the one whose place is meant"));
            }
            Ok(path) => layers.push(Layer { path: path.into(), place: item.place.clone() }),
        }
    }
    (!any_error(findings)).then_some(layers)
}

/// The path from the fleet root that a layer means: `/base/a.yaml` from the root, `./a.yaml` from the directory of the file
/// that names it. Taken literally: nothing is decoded, and nothing leads upwards.
fn resolve_layer(written: &str, directory: &str) -> Result<String, (&'static str, String)> {
    let (from, below) = match (written.strip_prefix('/'), written.strip_prefix("./")) {
        (Some(below), _) => ("", below),
        (None, Some(below)) => (directory, below),
        (None, None) if written.starts_with("../") => {
            return Err((
                "leads out of its directory",
                "write it from the fleet root, like `/base/common.yaml`".to_owned(),
            ));
        }
        (None, None) => {
            let help = format!("write `./{}` for a file beside this one", fields::shorten(written));
            return Err(("begins with neither `/` nor `./`", help));
        }
    };
    if below.split('/').any(|part| part == "..") {
        return Err(("contains `..`", "write it from the fleet root, like `/base/common.yaml`".to_owned()));
    }
    if below.split('/').any(|part| part.is_empty() || part == ".") {
        return Err(("is no plain path", "write each directory once, without `//` and `/./`".to_owned()));
    }
    if !is_yaml(below) {
        return Err(("is no YAML file", "layers end in `.yaml` or `.yml`".to_owned()));
    }
    let path = if from.is_empty() { below.to_owned() } else { format!("{from}/{below}") };
    if is_ours(&path) {
        return Err(("is one of our own files", "a layer is a collector configuration".to_owned()));
    }
    Ok(path)
}

/// True for the name of a file that can be a layer.
pub(super) fn is_yaml(path: &str) -> bool {
    path.ends_with(".yaml") || path.ends_with(".yml")
}

/// True for the files that say something about groups, which no layer can be.
pub(super) fn is_ours(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name == GROUP_FILE || name == DEFAULTS_FILE || path == POLICY_FILE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_stay_below_the_fleet_root() {
        for (written, expected) in [
            ("/base/common.yaml", Some("base/common.yaml")),
            ("./collector.yaml", Some("prod/gateways/collector.yaml")),
            ("./parts/a.yml", Some("prod/gateways/parts/a.yml")),
            ("/a b.yaml", Some("a b.yaml")),
            ("/%2e%2e/secret.yaml", Some("%2e%2e/secret.yaml")),
            ("/...yaml", Some("...yaml")),
            ("collector.yaml", None),
            ("../other.yaml", None),
            ("./../other.yaml", None),
            ("/base/../../etc/passwd.yaml", None),
            ("/..", None),
            ("//etc/a.yaml", None),
            ("/./a.yaml", None),
            ("/", None),
            ("./", None),
            ("", None),
            ("/base", None),
            ("/base/readme.md", None),
            ("https://example.com/a.yaml", None),
            ("./group.yaml", None),
            ("/prod/defaults.yaml", None),
            ("/fleet.yaml", None),
            ("..\\a.yaml", None),
        ] {
            let resolved = resolve_layer(written, "prod/gateways").ok();
            assert_eq!(resolved.as_deref(), expected, "{written}");
        }
        assert_eq!(resolve_layer("./a.yaml", "").as_deref(), Ok("a.yaml"), "at the fleet root");
    }
}
