//! Failures that are alike become one line: equal messages after numbers, ids and addresses are taken out.

use std::collections::BTreeMap;

use crate::agent::AgentId;
use crate::roster::group::Failure;

/// Clusters that are kept; further ones are summed up in the last.
pub const MOST_CLUSTERS: usize = 5;

/// Failures with the same message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The message as the example said it.
    pub message: String,
    /// How many agents failed so.
    pub count: usize,
    /// One of them.
    pub example: AgentId,
}

/// The clusters of these failures, the largest first, at most [`MOST_CLUSTERS`].
pub fn cluster<'a>(failures: impl Iterator<Item = (AgentId, &'a Failure)>) -> Vec<Cluster> {
    let mut clusters = BTreeMap::<String, Cluster>::new();
    for (example, failure) in failures {
        clusters
            .entry(normal_form(&failure.message))
            .and_modify(|cluster| cluster.count += 1)
            .or_insert_with(|| Cluster { message: failure.message.to_string(), count: 1, example });
    }
    let mut clusters: Vec<Cluster> = clusters.into_values().collect();
    clusters.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.message.cmp(&other.message)));
    if clusters.len() > MOST_CLUSTERS {
        let rest: usize = clusters.drain(MOST_CLUSTERS - 1..).map(|cluster| cluster.count).sum();
        if let Some(example) = clusters.last().map(|cluster| cluster.example) {
            clusters.push(Cluster { message: "other failures".to_owned(), count: rest, example });
        }
    }
    clusters
}

/// The message without what differs from agent to agent: every word that holds a digit becomes `#`.
fn normal_form(message: &str) -> String {
    let mut words = message.split_whitespace().map(|word| {
        let differs = word.chars().any(|character| character.is_ascii_digit());
        if differs { "#" } else { word }
    });
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| text + " " + word)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::ConfigHash;

    #[test]
    fn alike_messages_are_one_cluster() {
        let messages = [
            "Agent process PID=12 exited unexpectedly, exit code=1.",
            "Agent process PID=4711 exited unexpectedly, exit code=1.",
            "unknown receiver \"otpl\"",
            "Agent process PID=9 exited unexpectedly, exit code=1.",
        ];
        let failures: Vec<(AgentId, Failure)> = messages
            .iter()
            .zip(1u8..)
            .map(|(message, index)| {
                let id = AgentId::new(&[index; 16]).expect("a valid id");
                (id, Failure { hash: ConfigHash::new([0; 32]), message: Arc::from(*message) })
            })
            .collect();
        let clusters = cluster(failures.iter().map(|(id, failure)| (*id, failure)));
        let shown: Vec<(usize, &str)> =
            clusters.iter().map(|cluster| (cluster.count, cluster.message.as_str())).collect();
        assert_eq!(shown, [(3, messages[0]), (1, messages[2])]);
    }

    #[test]
    fn many_kinds_are_bounded_and_no_failure_is_lost() {
        let failures: Vec<(AgentId, Failure)> = (1u8..=20)
            .map(|index| {
                let letter = char::from(b'a' + index);
                let id = AgentId::new(&[index; 16]).expect("a valid id");
                (id, Failure { hash: ConfigHash::new([0; 32]), message: format!("kind {letter}").into() })
            })
            .collect();
        let clusters = cluster(failures.iter().map(|(id, failure)| (*id, failure)));
        assert_eq!(clusters.len(), MOST_CLUSTERS);
        assert_eq!(clusters.iter().map(|cluster| cluster.count).sum::<usize>(), 20);
    }
}
