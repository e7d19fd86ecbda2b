//! The `rollout:` section of our files: what one file says of it, how sections are inherited, and the strategy they make.

use std::time::Duration;

use crate::fleet::GroupName;
use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::fields::{self, Fields, Placed, any_error};
use crate::fleet::matching::read_selector;
use crate::fleet::strategy::{Amount, OnFailure, OnNewCommit, SOAK, Stage, Strategy};
use crate::fleet::window::{Window, read_windows};
use crate::yaml::Node;

/// Most stages of a rollout, conditions of all their selectors, groups it waits for, and labels it is spread by. More is a mistake, and each costs a look at
/// every agent.
const MOST_STAGES: usize = 20;
const MOST_STAGE_CONDITIONS: usize = 64;
const MOST_DEPENDENCIES: usize = 100;
const MOST_SPREAD_LABELS: usize = 5;

/// What one file says of the rollout; `None` where it says nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct RolloutSection {
    stages: Option<Placed<Vec<Stage>>>,
    bake: Option<Duration>,
    max_unavailable: Option<Amount>,
    progress_deadline: Option<Duration>,
    max_failures: Option<Amount>,
    on_failure: Option<OnFailure>,
    on_new_commit: Option<OnNewCommit>,
    spread_by: Option<Vec<String>>,
    depends_on: Option<Vec<Placed<GroupName>>>,
    windows: Option<Vec<Window>>,
}

impl RolloutSection {
    /// Reads the section whole; what is wrong is said, what is right is kept.
    pub(super) fn read(node: &Node, findings: &mut Vec<Diagnostic>) -> Self {
        let known = [
            "stages",
            "bake",
            "maxUnavailable",
            "progressDeadline",
            "maxFailures",
            "onFailure",
            "onNewCommit",
            "spreadBy",
            "dependsOn",
            "windows",
        ];
        let Some(fields) = Fields::open(node, "`rollout`", &known, findings) else { return Self::default() };
        let on_failure = [("rollback", OnFailure::Rollback), ("pause", OnFailure::Pause)];
        let on_new_commit = [("supersede", OnNewCommit::Supersede), ("finish", OnNewCommit::Finish)];
        Self {
            stages: fields
                .get("stages")
                .and_then(|node| read_stages(node, findings).map(|stages| Placed::at(node, stages))),
            bake: fields.get("bake").and_then(|node| fields::duration(node, "`bake`", findings)),
            max_unavailable: fields.get("maxUnavailable").and_then(|node| read_budget(node, findings)),
            progress_deadline: fields.get("progressDeadline").and_then(|node| read_deadline(node, findings)),
            max_failures: fields.get("maxFailures").and_then(|node| fields::amount(node, "`maxFailures`", findings)),
            on_failure: fields
                .get("onFailure")
                .and_then(|node| fields::choice(node, "`onFailure`", &on_failure, findings)),
            on_new_commit: fields
                .get("onNewCommit")
                .and_then(|node| fields::choice(node, "`onNewCommit`", &on_new_commit, findings)),
            spread_by: fields.get("spreadBy").and_then(|node| read_spread(node, findings)),
            depends_on: fields.get("dependsOn").and_then(|node| read_dependencies(node, findings)),
            windows: fields.get("windows").and_then(|node| read_windows(node, findings)),
        }
    }

    /// What holds when a farther file says this and a nearer one `nearer`: key by key the nearer one, lists whole.
    pub(super) fn overridden_by(&self, nearer: &Self) -> Self {
        fn pick<T: Clone>(farther: &Option<T>, nearer: &Option<T>) -> Option<T> {
            nearer.as_ref().or(farther.as_ref()).cloned()
        }
        Self {
            stages: pick(&self.stages, &nearer.stages),
            bake: pick(&self.bake, &nearer.bake),
            max_unavailable: pick(&self.max_unavailable, &nearer.max_unavailable),
            progress_deadline: pick(&self.progress_deadline, &nearer.progress_deadline),
            max_failures: pick(&self.max_failures, &nearer.max_failures),
            on_failure: pick(&self.on_failure, &nearer.on_failure),
            on_new_commit: pick(&self.on_new_commit, &nearer.on_new_commit),
            spread_by: pick(&self.spread_by, &nearer.spread_by),
            depends_on: pick(&self.depends_on, &nearer.depends_on),
            windows: pick(&self.windows, &nearer.windows),
        }
    }

    /// The strategy with every default filled in.
    pub(super) fn strategy(&self) -> Strategy {
        let default = Strategy::unspecified();
        Strategy {
            stages: self.stages.as_ref().map_or(default.stages, |stages| stages.value.clone()),
            bake: self.bake.unwrap_or(default.bake),
            max_unavailable: self.max_unavailable.unwrap_or(default.max_unavailable),
            progress_deadline: self.progress_deadline.unwrap_or(default.progress_deadline),
            max_failures: self.max_failures.or(default.max_failures),
            on_failure: self.on_failure.unwrap_or(default.on_failure),
            on_new_commit: self.on_new_commit.unwrap_or(default.on_new_commit),
            spread_by: self.spread_by.clone().unwrap_or(default.spread_by),
            // Boundaries demand it, groups do not.
            spread_proven: default.spread_proven,
            depends_on: self.dependencies().iter().map(|one| one.value.clone()).collect(),
            windows: self.windows.clone().unwrap_or(default.windows),
        }
    }

    /// The groups it waits for, with the places that say so.
    pub(super) fn dependencies(&self) -> &[Placed<GroupName>] {
        self.depends_on.as_deref().unwrap_or_default()
    }

    /// The stages that a file says, with their place; `None`: those of [`Strategy::unspecified`] hold.
    pub(super) fn written_stages(&self) -> Option<&Placed<Vec<Stage>>> {
        self.stages.as_ref()
    }
}

fn read_budget(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Amount> {
    let amount = fields::amount(node, "`maxUnavailable`", findings)?;
    if matches!(amount, Amount::Count(0) | Amount::Share(0)) {
        let message = "`maxUnavailable` of nothing would never let a change start";
        let help = "write at least 1 or 1%; `suspend: true` leaves a group as it is";
        findings.push(Diagnostic::error("bad-amount", Some(node.place.clone()), message).help(help));
        return None;
    }
    Some(amount)
}

fn read_deadline(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Duration> {
    let length = fields::duration(node, "`progressDeadline`", findings)?;
    if length.is_zero() {
        let message = "with a `progressDeadline` of zero every agent would fail at once";
        findings.push(Diagnostic::error("bad-duration", Some(node.place.clone()), message).help("the default is 10m"));
        return None;
    }
    Some(length)
}

fn read_spread(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Vec<String>> {
    let mut keys = Vec::<String>::new();
    for item in fields::list(node, "`spreadBy`", MOST_SPREAD_LABELS, findings)? {
        let Some(key) = fields::text(item, "a label's key", findings) else { continue };
        if keys.iter().any(|known| known == key) {
            let message = format!("`{}` stands twice in `spreadBy`", fields::shorten(key));
            findings.push(Diagnostic::error("duplicate", Some(item.place.clone()), message));
        } else {
            keys.push(key.to_owned());
        }
    }
    Some(keys)
}

fn read_dependencies(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Vec<Placed<GroupName>>> {
    let mut groups = Vec::<Placed<GroupName>>::new();
    for item in fields::list(node, "`dependsOn`", MOST_DEPENDENCIES, findings)? {
        let Some(name) = fields::text(item, "a group's name", findings) else { continue };
        if groups.iter().any(|known| known.value.as_str() == name) {
            let message = format!("`{}` stands twice in `dependsOn`", fields::shorten(name));
            findings.push(Diagnostic::error("duplicate", Some(item.place.clone()), message));
        } else {
            groups.push(Placed::at(item, GroupName::new(name)));
        }
    }
    Some(groups)
}

/// `stages`, each by itself and all together: unique names, growing, everybody at the end.
fn read_stages(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Vec<Stage>> {
    let mut here = Vec::new();
    let items = fields::list(node, "`stages`", MOST_STAGES, findings)?;
    let stages: Vec<_> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| {
            // The last stage is watched by the bake.
            let soak = if index + 1 < items.len() { SOAK } else { Duration::ZERO };
            read_stage(item, soak, &mut here).map(|stage| (stage, &item.place))
        })
        .collect();
    if items.is_empty() {
        let help = "remove it for the default stages, or write `[{name: all, agents: 100%}]` for everybody at once";
        here.push(Diagnostic::error("bad-stages", Some(node.place.clone()), "`stages` is empty").help(help));
    }
    for (index, (stage, place)) in stages.iter().enumerate() {
        let before = &stages[..index];
        if before.iter().any(|(other, _)| other.name == stage.name) {
            let message = format!("two stages are called `{}`", fields::shorten(&stage.name));
            here.push(
                Diagnostic::error("duplicate", Some((*place).clone()), message).help("give each a name of its own"),
            );
        }
        if let Some(amount) = stage.agents
            && let Some(earlier) = before.iter().filter_map(|(other, _)| other.agents).find(|one| !grows(*one, amount))
        {
            let message =
                format!("stage `{}` has {amount}, and a stage before it {earlier}", fields::shorten(&stage.name));
            let help = "sizes are cumulative: each stage has more agents than the one before";
            here.push(Diagnostic::error("bad-stages", Some((*place).clone()), message).help(help));
        }
    }
    if let Some((last, place)) = stages.last()
        && last.agents != Some(Amount::ALL)
        && !any_error(&here)
    {
        let message = format!("the last stage, `{}`, is not everybody", fields::shorten(&last.name));
        let help = "add `{name: all, agents: 100%}` at the end";
        here.push(Diagnostic::error("bad-stages", Some((*place).clone()), message).help(help));
    }
    let conditions: usize = stages
        .iter()
        .filter_map(|(stage, _)| stage.selector.as_ref())
        .map(|selector| selector.requirements().len())
        .sum();
    if conditions > MOST_STAGE_CONDITIONS {
        let message = format!("the selectors of the stages have more than {MOST_STAGE_CONDITIONS} conditions");
        here.push(Diagnostic::error("too-many", Some(node.place.clone()), message));
    }
    let sound = !any_error(&here);
    findings.append(&mut here);
    sound.then(|| stages.into_iter().map(|(stage, _)| stage).collect())
}

/// True when `later` is more than `earlier`, or when that depends on the size of the group.
fn grows(earlier: Amount, later: Amount) -> bool {
    match (earlier, later) {
        (Amount::Count(earlier), Amount::Count(later)) => earlier < later,
        (Amount::Share(earlier), Amount::Share(later)) => earlier < later,
        (Amount::Share(earlier), Amount::Count(_)) => earlier < 10_000,
        (Amount::Count(_), Amount::Share(_)) => true,
    }
}

/// One stage, of which `soak` holds when it says nothing about it; fields that are wrong are left out, so that the others can still be
/// compared.
fn read_stage(node: &Node, soak: Duration, findings: &mut Vec<Diagnostic>) -> Option<Stage> {
    let known = ["name", "agents", "selector", "soak", "approval", "maxFailures"];
    let fields = Fields::open(node, "a stage", &known, findings)?;
    let name = fields.require("name", "a stage", findings).and_then(|name| fields::text(name, "`name`", findings));
    let agents = fields.get("agents").and_then(|amount| read_size(amount, findings));
    let selector = fields.get("selector").and_then(|selector| read_selector(selector, findings));
    match (fields.get("agents"), fields.get("selector")) {
        (Some(_), Some(_)) => {
            let message = "a stage says either `agents` or `selector`";
            findings
                .push(Diagnostic::error("bad-stages", Some(node.place.clone()), message).help("make two stages of it"));
        }
        (None, None) => {
            let message = "a stage needs `agents` or `selector`";
            let help = "how many of the group (`agents: 10%`), or which (`selector`)";
            findings.push(Diagnostic::error("bad-stages", Some(node.place.clone()), message).help(help));
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
    let written_soak = fields.get("soak").and_then(|node| fields::duration(node, "`soak`", findings));
    let approval =
        fields.get("approval").and_then(|node| fields::choice(node, "`approval`", &[("manual", ())], findings));
    let max_failures = fields.get("maxFailures").and_then(|node| fields::amount(node, "`maxFailures`", findings));
    Some(Stage {
        name: name?.to_owned(),
        agents,
        selector: selector.map(|selector| selector.value),
        soak: written_soak.unwrap_or(soak),
        needs_approval: approval.is_some(),
        max_failures,
    })
}

fn read_size(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Amount> {
    let amount = fields::amount(node, "`agents`", findings)?;
    if matches!(amount, Amount::Count(0) | Amount::Share(0)) {
        let message = "a stage of nobody proves nothing";
        findings
            .push(Diagnostic::error("bad-amount", Some(node.place.clone()), message).help("write at least 1 or 1%"));
        return None;
    }
    Some(amount)
}
