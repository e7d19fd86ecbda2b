//! Who waits for whom: `dependsOn` must name groups of the same commit, and nobody may wait for itself in the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fleet::GroupName;
use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::family::Planned;
use crate::fleet::fields::{Placed, closest, shorten};

/// Most names that are looked at to find the one that a wrong name meant, and how often that is done.
const COMPARED_NAMES: usize = 2_000;
const MOST_SUGGESTIONS: usize = 50;

/// Most names of a cycle that a message shows, and most wrong names of one group.
const SHOWN_NAMES: usize = 6;

/// Errors for the groups that wait for somebody who is not there, or for themselves. They cannot be used.
pub(super) fn check_dependencies(groups: &BTreeMap<GroupName, Arc<Planned>>) -> Vec<Diagnostic> {
    if groups.values().all(|planned| planned.depends_on.is_empty()) {
        return Vec::new();
    }
    let mut findings = unknown_dependencies(groups);
    findings.extend(cycles(groups));
    findings
}

fn unknown_dependencies(groups: &BTreeMap<GroupName, Arc<Planned>>) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let unknown = |wanted: &&Placed<GroupName>| !groups.contains_key(&wanted.value);
    let names: Vec<&str> = groups.keys().take(COMPARED_NAMES).map(GroupName::as_str).collect();
    for (name, planned) in groups {
        for wanted in planned.depends_on.iter().filter(unknown).take(SHOWN_NAMES) {
            let message = format!("`dependsOn` names `{}`, and there is no such group", shorten(wanted.value.as_str()));
            let error = Diagnostic::error("unknown-group", Some(wanted.place.clone()), message).of(name);
            let near = if findings.len() < MOST_SUGGESTIONS { closest(wanted.value.as_str(), &names) } else { None };
            findings.push(match near {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help("a group's name is the path of its directory from the fleet root"),
            });
        }
    }
    findings
}

fn cycles(groups: &BTreeMap<GroupName, Arc<Planned>>) -> Vec<Diagnostic> {
    let names: Vec<&GroupName> = groups.keys().collect();
    let index_of = |name: &GroupName| names.binary_search(&name).ok();
    let edges: Vec<Vec<usize>> = groups
        .values()
        .map(|planned| planned.depends_on.iter().filter_map(|wanted| index_of(&wanted.value)).collect())
        .collect();
    let mut findings = Vec::new();
    for mut members in knots(&edges) {
        members.sort_unstable();
        let shown: Vec<&str> = members.iter().take(SHOWN_NAMES).map(|member| names[*member].as_str()).collect();
        let message = match shown.as_slice() {
            [alone] => format!("`{alone}` waits for itself"),
            _ if members.len() > SHOWN_NAMES => {
                format!("{} groups wait for each other: {}, ...", members.len(), shown.join(", "))
            }
            _ => format!("these groups wait for each other: {}", shown.join(", ")),
        };
        for member in &members {
            let inside = groups[names[*member]]
                .depends_on
                .iter()
                .find(|wanted| index_of(&wanted.value).is_some_and(|index| members.binary_search(&index).is_ok()));
            let place = inside.map(|wanted| wanted.place.clone());
            let help = "take one of them out of `dependsOn`; a group that inherits it can say `dependsOn: []`";
            findings.push(Diagnostic::error("dependency-cycle", place, message.clone()).help(help).of(names[*member]));
        }
    }
    findings
}

/// The sets of nodes that reach each other, and single nodes that reach themselves (Tarjan's algorithm, without recursion).
fn knots(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut order = vec![UNSEEN; edges.len()];
    let mut low = vec![UNSEEN; edges.len()];
    let mut open = vec![false; edges.len()];
    let (mut path, mut found, mut next) = (Vec::new(), Vec::new(), 0);
    for start in 0..edges.len() {
        if order[start] != UNSEEN {
            continue;
        }
        let mut calls = vec![(start, 0)];
        while let Some((node, edge)) = calls.pop() {
            if edge == 0 {
                (order[node], low[node], open[node]) = (next, next, true);
                next += 1;
                path.push(node);
            } else {
                let child = edges[node][edge - 1];
                if open[child] {
                    low[node] = low[node].min(low[child]);
                }
            }
            if let Some(&child) = edges[node].get(edge) {
                calls.push((node, edge + 1));
                if order[child] == UNSEEN {
                    calls.push((child, 0));
                }
            } else if low[node] == order[node] {
                let from = path.iter().rposition(|one| *one == node).unwrap_or(0);
                let members = path.split_off(from);
                members.iter().for_each(|member| open[*member] = false);
                if members.len() > 1 || edges[node].contains(&node) {
                    found.push(members);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knots_are_found_and_nothing_that_only_leads_to_one() {
        for (edges, expected, why) in [
            (vec![], vec![], "nobody"),
            (vec![vec![1], vec![]], vec![], "one waits for another"),
            (vec![vec![0]], vec![vec![0]], "waits for itself"),
            (vec![vec![1], vec![0]], vec![vec![0, 1]], "two wait for each other"),
            (vec![vec![1], vec![2], vec![1]], vec![vec![1, 2]], "the first only leads to the cycle"),
            (vec![vec![1, 2], vec![3], vec![3], vec![]], vec![], "a diamond is no cycle"),
            (
                vec![vec![1], vec![2], vec![0, 3], vec![4], vec![3]],
                vec![vec![0, 1, 2], vec![3, 4]],
                "two cycles, joined",
            ),
        ] {
            let mut found = knots(&edges);
            found.iter_mut().for_each(|members| members.sort_unstable());
            found.sort();
            assert_eq!(found, expected, "{why}");
        }
        let long: Vec<Vec<usize>> = (0..100_000).map(|node| vec![(node + 1) % 100_000]).collect();
        assert_eq!(knots(&long).len(), 1, "a long cycle needs no deep stack");
    }
}
