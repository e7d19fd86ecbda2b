//! Failures that are alike become one line, with what the failed have in common and their peers have not.
//!
//! Messages are equal when they are so without numbers, ids, addresses and the agent's own names. Labels are compared by pairs: those
//! that nearly all of the failed have, up to three of them, such that nearly none of the peers has them all.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

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

/// Peers whose labels are looked at. Five thousand tell as much as all of them, in a few milliseconds.
const MOST_PEERS: usize = 5_000;

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
    /// The same without what differs from agent to agent ([`normal_form`]); equal ones share memory.
    pub form: &'a Arc<str>,
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
        form: &failure.form,
    });
    // Of a large group every second, every third, ...: ids tell when agents came, and the first of them may be of one kind.
    let others = || {
        let looked_at = group.members.iter().step_by(group.members.len() / MOST_PEERS + 1);
        looked_at.filter(|id| !group.failures.get(id).is_some_and(is_about)).filter_map(|id| member(*id))
    };
    let labels = |id| member(id).and_then(|member| member.labels.as_ref());
    cluster(failed, labels, || {
        // Who was given it and is well tells most. Who was not is the next best.
        let proven: Vec<&Labels> = others()
            .filter(|one| hashes.iter().any(|hash| has_proven(one, *hash)))
            .filter_map(|one| one.labels.as_ref())
            .collect();
        if proven.len() >= FEWEST_PEERS {
            return proven;
        }
        others().filter_map(|one| one.labels.as_ref()).collect()
    })
}

/// It runs this configuration, or was given a candidate before and had no trouble with it, whatever it was given since.
fn has_proven(member: &Member, hash: ConfigHash) -> bool {
    let runs_it = member.offer.as_ref().is_some_and(|offer| offer.hash == hash && offer.confirmed);
    match member.verdict.standing {
        Standing::Confirmed => runs_it || member.tried,
        Standing::Held(_) | Standing::Pending | Standing::Away => member.tried,
        Standing::Unplaced | Standing::Offered | Standing::Failed | Standing::Lost => false,
    }
}

/// Failures of one form, side by side.
type Alike<'f, 'a> = &'f [Failed<'a>];

/// The clusters of these failures, the largest first, at most [`MOST_CLUSTERS`]. `labels` are asked for of some agents only: they are known
/// after a restart once an agent is back; `peers` when there is something to compare with them.
pub fn cluster<'a>(
    failed: impl Iterator<Item = Failed<'a>>,
    labels: impl Fn(AgentId) -> Option<&'a Labels>,
    peers: impl FnOnce() -> Vec<&'a Labels>,
) -> Vec<Cluster> {
    let mut failed: Vec<Failed<'a>> = failed.collect();
    // Any order will do that brings the same together; within a form that of ids stays.
    failed.sort_by_key(|one| Arc::as_ptr(one.form).addr());
    let all = failed.chunk_by(|one, other| Arc::ptr_eq(one.form, other.form));
    let (mut largest, mut kinds) = (Vec::<Alike<'_, 'a>>::new(), 0);
    for alike in all {
        kinds += 1;
        let rank = |one: Alike<'_, 'a>| (Reverse(one.len()), one.first().map(|first| first.message));
        let place = largest.partition_point(|one| rank(one) <= rank(alike));
        if place < MOST_CLUSTERS {
            largest.insert(place, alike);
            largest.truncate(MOST_CLUSTERS);
        }
    }
    let rest = if kinds > MOST_CLUSTERS { largest.pop() } else { None };
    let known: Vec<Vec<&Labels>> =
        largest.iter().map(|alike| alike.iter().filter_map(|one| labels(one.id)).take(MOST_FAILED).collect()).collect();
    let peers = if known.iter().any(|known| known.len() >= FEWEST_FAILED) { peers() } else { Vec::new() };
    let peers = peers.get(..MOST_PEERS).unwrap_or(&peers);
    let named = largest.iter().zip(&known).filter_map(|(alike, known)| {
        let first = alike.first()?;
        let common = common(known, peers);
        Some(Cluster { message: first.message.to_owned(), count: alike.len(), example: first.id, common })
    });
    let mut clusters: Vec<Cluster> = named.collect();
    if let Some(first) = rest.and_then(|rest| rest.first()) {
        let count = failed.len() - clusters.iter().map(|cluster| cluster.count).sum::<usize>();
        clusters.push(Cluster { message: "other failures".to_owned(), count, example: first.id, common: None });
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
pub fn normal_form(message: &str, labels: Option<&Labels>) -> String {
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
