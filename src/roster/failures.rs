//! Failures that are alike become one line, with what the failed have in common and their peers have not.
//!
//! Messages are equal when they are so without numbers, ids, addresses and the agent's own names. Labels are compared by pairs: those
//! that nearly all of the failed have, up to three of them, such that nearly none of the peers has them all.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::agent::AgentId;
use crate::config::ConfigHash;
use crate::labels::Labels;
use crate::roster::group::{Failure, Group};
use crate::roster::member::Member;
use crate::roster::standing::Standing;
use crate::time::Timestamp;

/// Clusters that are kept; further ones are summed up in the last.
pub const MOST_CLUSTERS: usize = 5;

/// Pairs of labels that are named.
pub const MOST_PAIRS: usize = 3;

/// Peers whose labels are looked at. Ten thousand tell as much as all of them, in a few milliseconds.
const MOST_PEERS: usize = 10_000;

/// Failed agents of one cluster whose labels are looked at.
const MOST_FAILED: usize = 1_000;

/// Labels of one agent that are looked at.
const MOST_LABELS: usize = 64;

/// With fewer failed agents everything that they have would be in common.
const FEWEST_FAILED: usize = 2;

/// With fewer peers anything would be missing there.
const FEWEST_PEERS: usize = 3;

/// Labels by which an agent is called: they differ from agent to agent, and stand in messages.
const OWN_NAMES: [&str; 6] =
    ["host.name", "host.id", "k8s.pod.name", "k8s.node.name", "container.id", "service.instance.id"];

/// Failures with the same message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The message as the example said it.
    pub message: String,
    /// How many agents failed so.
    pub count: usize,
    /// One of them.
    pub example: AgentId,
    /// What they have in common and their peers have not; `None`: nothing, or there are too few to tell.
    pub common: Option<Common>,
}

/// Labels that tell the failed from their peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// The labels, at most [`MOST_PAIRS`]; the most telling one first.
    pub pairs: Vec<(String, String)>,
    /// How many of the failed have all of them: nine in ten of those whose labels are known, at least.
    pub sharing: usize,
    /// How many peers were looked at.
    pub peers: usize,
    /// How many of these have all of them as well: one in ten at most.
    pub peers_sharing: usize,
}

/// An agent that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    /// Who.
    pub id: AgentId,
    /// What it said.
    pub message: &'a str,
    /// Its labels, when they are known: after a restart only once it is back.
    pub labels: Option<&'a Labels>,
}

/// Agents that could not use `stable` when it went back to them since `started`, or had failed it before and have `candidate` now: what is
/// taken back from all others they may still run.
pub fn not_back<'a>(
    group: &Group,
    candidate: ConfigHash,
    stable: ConfigHash,
    started: Timestamp,
    member: impl Fn(AgentId) -> Option<&'a Member>,
) -> Vec<AgentId> {
    let holds = |id| member(id).and_then(|member| member.state()?.known()) == Some(candidate);
    let failed = group.failures.iter().filter(|(_, failure)| failure.hash == stable);
    failed.filter(|(id, failure)| failure.at >= started || holds(**id)).map(|(id, _)| *id).collect()
}

/// The clusters of the group's failures with this configuration.
pub fn of_group<'a>(
    group: &'a Group,
    hashes: &[ConfigHash],
    member: impl Fn(AgentId) -> Option<&'a Member>,
) -> Vec<Cluster> {
    let is_about = |failure: &Failure| hashes.contains(&failure.hash);
    let failed = group.failures.iter().filter(|(_, failure)| is_about(failure)).map(|(id, failure)| Failed {
        id: *id,
        message: &failure.message,
        labels: member(*id).and_then(|member| member.labels.as_ref()),
    });
    let others = || {
        let others = group.members.iter().filter(|id| !group.failures.get(id).is_some_and(is_about));
        others.filter_map(|id| member(*id))
    };
    cluster(failed, || {
        // Who was given it and is well tells most. Who was not is the next best.
        let proven: Vec<&Labels> = others()
            .filter(|one| hashes.iter().any(|hash| has_proven(one, *hash)))
            .filter_map(|one| one.labels.as_ref())
            .take(MOST_PEERS)
            .collect();
        if proven.len() >= FEWEST_PEERS {
            return proven;
        }
        others().filter_map(|one| one.labels.as_ref()).take(MOST_PEERS).collect()
    })
}

/// It runs this configuration, or was given a candidate before and had no trouble with it, whatever it was given since.
fn has_proven(member: &Member, hash: ConfigHash) -> bool {
    let runs_it = member.offer.is_some_and(|offer| offer.hash == hash && offer.confirmed);
    match member.verdict.standing {
        Standing::Confirmed => runs_it || member.tried,
        Standing::Held(_) | Standing::Pending | Standing::Away => member.tried,
        Standing::Unplaced | Standing::Offered | Standing::Failed | Standing::Lost => false,
    }
}

/// The clusters of these failures, the largest first, at most [`MOST_CLUSTERS`]. `peers` are asked for only when there is something to
/// compare with them.
pub fn cluster<'a>(failed: impl Iterator<Item = Failed<'a>>, peers: impl FnOnce() -> Vec<&'a Labels>) -> Vec<Cluster> {
    let mut clusters = BTreeMap::<String, (Cluster, Vec<&Labels>)>::new();
    for Failed { id, message, labels } in failed {
        let fresh = || (Cluster { message: message.to_owned(), count: 0, example: id, common: None }, Vec::new());
        let (cluster, known) = clusters.entry(normal_form(message, labels)).or_insert_with(fresh);
        cluster.count += 1;
        if known.len() < MOST_FAILED {
            known.extend(labels);
        }
    }
    let mut clusters: Vec<(Cluster, Vec<&Labels>)> = clusters.into_values().collect();
    clusters.sort_by(|(one, _), (other, _)| other.count.cmp(&one.count).then_with(|| one.message.cmp(&other.message)));
    let rest = if clusters.len() > MOST_CLUSTERS { clusters.split_off(MOST_CLUSTERS - 1) } else { Vec::new() };
    if clusters.iter().any(|(_, known)| known.len() >= FEWEST_FAILED) {
        let mut peers = peers();
        peers.truncate(MOST_PEERS);
        for (cluster, known) in &mut clusters {
            cluster.common = common(known, &peers);
        }
    }
    let mut clusters: Vec<Cluster> = clusters.into_iter().map(|(cluster, _)| cluster).collect();
    if let Some((first, _)) = rest.first() {
        let count = rest.iter().map(|(cluster, _)| cluster.count).sum();
        clusters.push(Cluster { message: "other failures".to_owned(), count, example: first.example, common: None });
    }
    clusters
}

/// A set of candidates: which of them an agent has.
type Pairs = u64;

/// What the failed have in common and their peers have not.
fn common(failed: &[&Labels], peers: &[&Labels]) -> Option<Common> {
    if failed.len() < FEWEST_FAILED || peers.len() < FEWEST_PEERS {
        return None;
    }
    let candidates = shared(failed);
    let of = |labels: &&Labels| {
        let has = |(index, (key, value)): (usize, &(&str, &str))| Pairs::from(labels.get(key) == Some(*value)) << index;
        candidates.iter().enumerate().map(has).fold(0, |pairs, pair| pairs | pair)
    };
    let (failed, peers): (Vec<Pairs>, Vec<Pairs>) = (failed.iter().map(of).collect(), peers.iter().map(of).collect());
    let with = |agents: &[Pairs], pairs: Pairs| agents.iter().filter(|has| *has & pairs == pairs).count();
    let few = |pairs: Pairs| with(&peers, pairs) * 10 <= peers.len();
    let mut chosen: Pairs = 0;
    let mut order = Vec::new();
    while order.len() < MOST_PAIRS {
        let before = with(&peers, chosen);
        let next = (0..candidates.len())
            .filter(|index| chosen & 1 << index == 0)
            .map(|index| (index, chosen | 1 << index))
            .filter(|(_, pairs)| is_most(with(&failed, *pairs), failed.len()))
            // A pair has to tell something: of its own, or together with those before.
            .filter(|(index, pairs)| few(1 << index) || with(&peers, *pairs) < before)
            .min_by_key(|(index, pairs)| {
                (with(&peers, *pairs), Reverse(with(&failed, *pairs)), with(&peers, 1 << index))
            });
        let Some((index, pairs)) = next else { break };
        chosen = pairs;
        order.push(index);
    }
    if order.is_empty() || !few(chosen) {
        return None;
    }
    let named = order.iter().filter_map(|index| candidates.get(*index));
    Some(Common {
        pairs: named.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        sharing: with(&failed, chosen),
        peers: peers.len(),
        peers_sharing: with(&peers, chosen),
    })
}

/// Nine in ten.
fn is_most(count: usize, of: usize) -> bool {
    count * 10 >= of * 9
}

/// The pairs that most of the agents have, as many as fit into a set.
fn shared<'a>(agents: &[&'a Labels]) -> Vec<(&'a str, &'a str)> {
    let mut counts = BTreeMap::<(&str, &str), usize>::new();
    for labels in agents {
        for pair in labels.iter().take(MOST_LABELS) {
            *counts.entry(pair).or_default() += 1;
        }
    }
    let most = counts.into_iter().filter(|(_, count)| is_most(*count, agents.len())).map(|(pair, _)| pair);
    most.take(Pairs::BITS as usize).collect()
}

/// The message without what differs from agent to agent: its own names, and every part that holds a digit or is a long hexadecimal
/// number, become `#`. Parts end at blanks, quotes, brackets, `=`, `,`, `;`, `/` and `:`, so that what stands around a number is still
/// told apart; an IPv6 address is one part.
fn normal_form(message: &str, labels: Option<&Labels>) -> String {
    let mut text = message.split_whitespace().collect::<Vec<_>>().join(" ");
    for own in OWN_NAMES.iter().filter_map(|key| labels?.get(key)).filter(|name| name.len() >= 4) {
        text = text.replace(own, "#");
    }
    let is_outer = |c: char| c.is_whitespace() || "\"'`()[]{}<>|=,;".contains(c);
    let mut form = String::with_capacity(text.len());
    for token in text.split_inclusive(is_outer) {
        let body = token.trim_end_matches(is_outer);
        let (body, end) = token.split_at(body.len());
        if is_ipv6(body) {
            form.push('#');
        } else {
            for part in body.split_inclusive(['/', ':']) {
                let inner = part.trim_end_matches(['/', ':']);
                form.push_str(if differs(inner) { "#" } else { inner });
                form.push_str(part.get(inner.len()..).unwrap_or_default());
            }
        }
        form.push_str(end);
    }
    form
}

fn differs(part: &str) -> bool {
    part.bytes().any(|byte| byte.is_ascii_digit())
        || part.len() >= 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Two colons at least, and nothing but what an address is made of; a zone may follow.
fn is_ipv6(body: &str) -> bool {
    let address = body.trim_end_matches([':', '.']).split('%').next().unwrap_or_default();
    address.matches(':').count() >= 2 && address.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
}

#[cfg(test)]
#[path = "failures_tests.rs"]
mod tests;
