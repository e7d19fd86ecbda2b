//! What an incident is in words: a title, and what to do about it.

use crate::incident::{Incident, Section, Situation, Topic};

/// What it is about, in one line: `prod/gateways: rolled back, 3 agents failed; abc1234 "Raise the limit" by Ada`.
pub fn title(incident: &Incident) -> String {
    let Some((name, worst)) = incident.worst() else { return String::new() };
    let others = incident.sections.len() - 1;
    let place = match (name, others) {
        ("", _) => String::new(),
        (name, 0) => format!("{name}: "),
        (name, 1) => format!("{name} and another group: "),
        (name, others) => format!("{name} and {others} other groups: "),
    };
    format!("{place}{}{}", what(incident, worst), with(incident))
}

fn what(incident: &Incident, section: &Section) -> String {
    let failed: usize = incident.sections.values().map(failed).sum();
    let agents = if failed == 1 { "1 agent".to_owned() } else { format!("{failed} agents") };
    let counted = |text: &str| if failed == 0 { text.to_owned() } else { format!("{text}, {agents} failed") };
    match section.part.situation {
        Situation::AgentsFailing => format!("{agents} failed"),
        Situation::UnexpectedAgents => "the rollout is held, the number of agents is not as expected".to_owned(),
        Situation::WaitsTooLong => "the rollout waits for too long".to_owned(),
        Situation::Outage => {
            "the rollout stands still, agents are sick and the commit seems not to be the reason".to_owned()
        }
        Situation::RollingBack => counted("rolling back"),
        Situation::RolledBack => counted("rolled back"),
        Situation::RolloutFailed => counted("the rollout failed"),
        Situation::Paused => "the rollout is paused".to_owned(),
        Situation::Frozen => "the rollout is frozen".to_owned(),
        Situation::Guarded => "the commit is held by a guard".to_owned(),
        Situation::Rejected => "the files are refused".to_owned(),
        Situation::HeadRefused => "the head of the repository is refused, the fleet stays as it is".to_owned(),
        Situation::SyncStale => "the repository cannot be followed, the fleet stays as it is".to_owned(),
        Situation::JournalNotStored => "the journal cannot be stored, nothing new is offered".to_owned(),
        Situation::JournalNotPushed => "the journal does not reach the remote".to_owned(),
    }
}

/// How many agents failed there.
pub fn failed(section: &Section) -> usize {
    section.part.counts.failed.max(section.part.failures.iter().map(|cluster| cluster.count).sum())
}

fn with(incident: &Incident) -> String {
    let Some(commit) = &incident.commit else { return String::new() };
    let subject = if commit.subject.is_empty() { String::new() } else { format!(" \"{}\"", commit.subject) };
    let author = if commit.author.is_empty() { String::new() } else { format!(" by {}", commit.author) };
    format!("; {}{subject}{author}", commit.short())
}

/// What a person can do, one step a line.
pub fn advice(incident: &Incident) -> Vec<String> {
    let Some((group, section)) = incident.worst() else { return Vec::new() };
    let group = if group.is_empty() || group.contains(|c: char| c.is_whitespace()) { "GROUP" } else { group };
    let commit = incident.commit.as_ref().map_or_else(|| "COMMIT".to_owned(), super::Commit::short);
    let look = format!(
        "`gitamp rollout {group}` shows the stages and how agents failed, `gitamp explain AGENT` what one agent says"
    );
    let revert = format!("correct the configuration, or take it back: `git revert {commit}`, and merge that");
    let steps: Vec<String> = match section.part.situation {
        Situation::AgentsFailing => {
            vec![look, format!("{revert}; `gitamp pause {group}` stops the rollout meanwhile")]
        }
        Situation::UnexpectedAgents => vec![
            "see whether agents are missing, or whether the selector matches others than it should (`gitamp agents`)"
                .to_owned(),
            format!("correct the selector or `expect` in the group's file, or merge `git revert {commit}`"),
        ],
        Situation::WaitsTooLong => vec![
            look,
            "bring back the agents that it waits for, make room (maxUnavailable), or abort it: `gitamp abort`"
                .to_owned(),
        ],
        Situation::Outage => vec![
            "look for what the agents have in common: a backend, a network".to_owned(),
            "the rollout goes on by itself once they are well again".to_owned(),
            format!("if it is this commit all the same: `gitamp abort {group}` takes it back"),
        ],
        Situation::RollingBack => vec![
            "agents go back to what was stable by themselves: nothing has to be done for that".to_owned(),
            look,
            revert,
        ],
        Situation::RolledBack => {
            vec!["agents have again what was stable; the repository still says otherwise".to_owned(), look, revert]
        }
        Situation::RolloutFailed => vec![look, revert],
        Situation::Paused => vec![format!("`gitamp resume {group}` lets it go on, `gitamp abort {group}` ends it")],
        Situation::Frozen => vec!["`gitamp unfreeze` lets it go on".to_owned()],
        Situation::Guarded => vec![
            "look at what the commit changes: it is more than the guards in fleet.yaml let pass".to_owned(),
            format!("`gitamp promote {commit}` lets it go on, `git revert {commit}` takes it back"),
        ],
        Situation::Rejected => vec![
            "`gitamp check` in the repository shows each finding with its place".to_owned(),
            format!("commit a correction, or merge `git revert {commit}`; until then the groups keep what they have"),
        ],
        Situation::HeadRefused => vec![
            "sign the commit with an allowed key, or add the key to the allowed ones; then `gitamp sync`".to_owned(),
        ],
        Situation::SyncStale => vec![
            "`gitamp status` shows when the remote last answered; look at the network, the token and the remote"
                .to_owned(),
            "`gitamp sync` tries again at once".to_owned(),
        ],
        Situation::JournalNotStored => {
            vec![
                "make room on the disk of the state directory, or repair its permissions; it goes on by itself"
                    .to_owned(),
            ]
        }
        Situation::JournalNotPushed => vec![
            "give gitamp's token or key write access to its notes (refs/notes/gitamp/*), or see why the remote refuses"
                .to_owned(),
            "until then, what is remembered of rollouts is on this disk alone".to_owned(),
        ],
    };
    steps
}

/// What it was, once it is over.
pub fn ending(incident: &Incident) -> &str {
    if let Some(ending) = incident.worst().and_then(|(_, section)| section.part.ending.as_deref()) {
        return ending;
    }
    match incident.topic {
        Topic::Rollout => "over: the group moved on",
        Topic::Order => "over: the order does not hold a rollout any more",
        Topic::Guard => "over: the commit is not held any more",
        Topic::Files => "over: the files are fine again",
        Topic::Head => "over: the head is taken",
        Topic::Sync => "over: the repository is followed again",
        Topic::Journal => "over: the journal is stored again",
        Topic::Push => "over: the journal is pushed again",
    }
}
