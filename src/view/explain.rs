//! Why one agent has what it has, in sentences: its group, what it reports, what it should have, and what comes next.

use std::time::Duration;

use crate::agent::{AgentId, Capabilities, ConfigState, ConfigStatus, ReportedHash, Transport};
use crate::fleet::assign::{Match, Verdict};
use crate::labels::{Labels, Selector};
use crate::roster::group::Group;
use crate::roster::member::{Member, Placement};
use crate::roster::standing::Standing;
use crate::time::{Timestamp, show_duration};
use crate::view::{Explanation, GroupMatch, WaitingOn, present};

/// Groups that are named beside the agent's own.
const MOST_GROUPS: usize = 5;

/// Everything that is known of one agent.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Who.
    pub id: AgentId,
    /// What it said, and where it is.
    pub member: &'a Member,
    /// The agents of its group.
    pub group: Option<&'a Group>,
    /// Its group's selector.
    pub selector: Option<&'a Selector>,
    /// The revision that the group last accepted.
    pub revision: Option<&'a str>,
    /// The running stage of the group's rollout.
    pub stage: Option<&'a str>,
    /// True when the group's rollout stopped, so that a person may have it tried again.
    pub can_retry: bool,
    /// Why the group waits.
    pub waiting: Vec<WaitingOn>,
    /// What operators ordered for the group or the agent that still holds, a sentence each.
    pub orders: Vec<String>,
    /// What every group has to do with it, the nearest ones first.
    pub matches: Vec<Match>,
    /// Now.
    pub now: Timestamp,
}

/// Tells it.
pub fn explain(facts: &Facts<'_>) -> Explanation {
    let agent = present::agent(facts.id, facts.member, facts.group);
    let (belongs, matches) = (belongs(facts), shown_matches(facts));
    let should_have = should_have(facts, agent.desired.as_deref());
    let next = next(facts, agent.reason.as_deref());
    Explanation { agent, belongs, reports: reports(facts), should_have, next, matches }
}

fn lasted(at: Timestamp, now: Timestamp) -> String {
    show_duration(Duration::from_secs(now.since(at).as_secs()))
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", lasted(at, now))
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// The groups that select it, and the nearest of the others.
fn shown_matches(facts: &Facts<'_>) -> Vec<GroupMatch> {
    let no_labels = Labels::new::<String, String>([]);
    let labels = facts.member.labels.as_ref().unwrap_or(&no_labels);
    let shown = facts.matches.iter().take(MOST_GROUPS + 1).map(|one| {
        let (verdict, why) = match &one.verdict {
            Verdict::Chosen => ("chosen", "selects it".to_owned()),
            Verdict::Conflict => ("conflict", "selects it, like others of this priority".to_owned()),
            Verdict::Outranked { by } => ("outranked", format!("selects it, but {by} has a higher priority")),
            Verdict::Varied { by } => ("varied", format!("selects it, but its variant {by} comes first")),
            Verdict::Unmet { first, unmet } => {
                let more = match unmet.saturating_sub(1) {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                ("unmet", format!("wants {first}, {}{more}", first.found_in(labels)))
            }
        };
        GroupMatch { group: one.group.to_string(), priority: one.priority, verdict: verdict.to_owned(), why }
    });
    shown.collect()
}

fn belongs(facts: &Facts<'_>) -> Vec<String> {
    let mut text = match &facts.member.placement {
        Placement::Group(name) => {
            let priority = facts.matches.iter().find(|one| one.group == *name).map_or(0, |one| one.priority);
            let selector = facts.selector.map_or_else(String::new, |selector| format!(": {selector}"));
            vec![format!("It belongs to {name}, which selects it (priority {priority}){selector}.")]
        }
        Placement::Unknown => vec!["It has not described itself yet, so no group can be found for it.".to_owned()],
        Placement::Unmanaged => vec!["No group selects it, so it keeps what it has.".to_owned()],
        Placement::Orphaned(name) => {
            vec![format!(
                "Its group {name} is no longer in the repository and no other selects it; it keeps what it has."
            )]
        }
        Placement::Conflict(names) => {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            vec![format!(
                "{} select it at the same priority, so none of them gets it and it keeps what it has: give one a higher \
                 priority, or narrow a selector.",
                names.join(" and ")
            )]
        }
    };
    if facts.member.labels.is_some() {
        let own = facts.member.placement.group().map(|name| name.as_str());
        let others = shown_matches(facts).into_iter().filter(|one| Some(one.group.as_str()) != own);
        text.extend(
            others.take(MOST_GROUPS).map(|one| format!("{} (priority {}) {}.", one.group, one.priority, one.why)),
        );
    }
    text
}

fn reports(facts: &Facts<'_>) -> Vec<String> {
    let (member, now) = (facts.member, facts.now);
    let mut text = vec![match (member.link, member.gone) {
        (Some(link), _) => match link.transport {
            Transport::WebSocket => "It is connected over a WebSocket.".to_owned(),
            Transport::Http => "It polls over HTTP.".to_owned(),
        },
        (None, Some(gone)) if gone.goodbye => format!("It said goodbye {}.", ago(gone.left, now)),
        (None, Some(gone)) => format!("It vanished {}, without a goodbye.", ago(gone.left, now)),
        (None, None) => "It is not connected.".to_owned(),
    }];
    text.push(match &member.config {
        None => "It has not told the state of its configuration yet.".to_owned(),
        Some((state, since)) => configuration(facts, state, *since),
    });
    if member.capabilities.contains(Capabilities::REPORTS_HEALTH) {
        text.extend(member.health.as_ref().map(|health| match (health.healthy, &health.message, member.fell_ill) {
            (true, _, _) => "It says that it is healthy.".to_owned(),
            (false, message, since) => {
                let since = since.map_or_else(String::new, |at| format!(", for {} now", lasted(at, now)));
                let words = message.as_ref().filter(|text| !text.is_empty());
                format!(
                    "It says that it is unhealthy{since}{}",
                    words.map_or(".".to_owned(), |text| format!(": {text}"))
                )
            }
        }));
    } else if member.labels.is_some() {
        text.push("It does not report its health.".to_owned());
    }
    text
}

fn configuration(facts: &Facts<'_>, state: &ConfigState, since: Timestamp) -> String {
    let ReportedHash::Known(hash) = state.hash else {
        return match state.hash {
            ReportedHash::Foreign => "It runs a configuration that another server gave it.".to_owned(),
            ReportedHash::None | ReportedHash::Known(_) => "It has no remote configuration yet.".to_owned(),
        };
    };
    let what = facts.group.map_or("", |group| {
        let desired = &group.desired;
        if desired.candidate == Some(hash) {
            ", the one that is rolled out"
        } else if desired.stable == Some(hash) {
            ", the stable one"
        } else if desired.wanted == Some(hash) {
            ", the one that the repository says"
        } else if desired.kept.contains(&hash) {
            ", one that was superseded or that failed"
        } else {
            ", which is none of its group's"
        }
    });
    let (did, words) = match state.status {
        ConfigStatus::Applied => ("has applied", None),
        ConfigStatus::Applying => ("is applying", None),
        ConfigStatus::Failed => ("could not apply", state.message.as_ref()),
        ConfigStatus::Unset => ("names, without saying what became of it,", None),
    };
    let words = words.map_or_else(String::new, |text| format!(": {text}"));
    format!("It {did} {}{what} ({}){words}", hash.short(), ago(since, facts.now))
}

fn should_have(facts: &Facts<'_>, desired: Option<&str>) -> Vec<String> {
    let Some(group) = facts.group else { return vec!["It keeps what it has.".to_owned()] };
    let is = |hash: Option<crate::config::ConfigHash>| hash.map(|hash| hash.to_string());
    let (candidate, stable, wanted) = (is(group.desired.candidate), is(group.desired.stable), is(group.desired.wanted));
    let mut text = Vec::new();
    match desired {
        Some(hash) if candidate.as_deref() == Some(hash) => {
            let stage = facts.stage.map_or_else(String::new, |stage| format!(", stage {stage}"));
            text.push(format!("It should have {}: the running rollout's{stage}.", short(hash)));
        }
        Some(hash) if stable.as_deref() == Some(hash) => {
            text.push(format!("It should have {}: what its group last finished a rollout of (stable).", short(hash)));
        }
        Some(hash) => text.push(format!("It should have {}.", short(hash))),
        None if stable.is_none() => {
            text.push("It keeps what it has: its group has finished no rollout yet, so nothing is stable.".to_owned());
        }
        None => text.push("It keeps what it has.".to_owned()),
    }
    if let Some(candidate) = candidate.as_deref().filter(|_| facts.member.verdict.outside) {
        let stage = facts.stage.map_or_else(String::new, |stage| format!(" (stage {stage})"));
        text.push(format!("A rollout of {} runs{stage}; this agent's turn has not come.", short(candidate)));
    }
    // Who holds it already, while nothing may be offered, has been told that above.
    let has_it = facts.member.state().and_then(ConfigState::known) == group.desired.wanted;
    if let Some(wanted) = wanted.filter(|wanted| desired != Some(wanted.as_str()) && !has_it) {
        let revision = facts.revision.map_or_else(String::new, |revision| format!(" ({revision})"));
        text.push(format!("The repository says {}{revision}.", short(&wanted)));
    }
    text
}

fn next(facts: &Facts<'_>, reason: Option<&str>) -> Vec<String> {
    let (member, now) = (facts.member, facts.now);
    let mut text = Vec::new();
    let offered = member
        .offer
        .as_ref()
        .map_or_else(String::new, |offer| format!("gitamp offered it {} {}", offer.hash.short(), ago(offer.made, now)));
    let until = member.verdict.until.filter(|until| *until > now);
    let within = |what: &str| until.map_or_else(String::new, |until| format!("{what}{}", lasted(now, until)));
    match member.verdict.standing {
        Standing::Unplaced => {}
        Standing::Confirmed => text.push("It has what it should have, and is well.".to_owned()),
        Standing::Pending if member.verdict.unready => {
            text.push(format!("It fell ill only just now, and is offered it{}.", within(" in at most ")));
        }
        Standing::Pending => text.push("It will be offered it when there is room.".to_owned()),
        Standing::Offered | Standing::Lost if member.verdict.excused => {
            text.push(format!("{offered}, and {}.", present::EXCUSED));
        }
        Standing::Offered => {
            text.push(format!("{offered}; the outcome is awaited{}.", within(", for at most ")));
        }
        Standing::Lost => {
            text.push(format!(
                "{offered}, and it vanished then; it counts as failed{}.",
                within(" unless it is back in ")
            ));
        }
        Standing::Away => text.push("Nothing is expected of it while it is away.".to_owned()),
        Standing::Held(_) => text.push(format!("It is held: {}.", reason.unwrap_or("its group says why"))),
        Standing::Failed => {
            let name = member.placement.group().map_or("GROUP", |name| name.as_str());
            let failure = facts.group.and_then(|group| group.failures.get(&facts.id));
            let what = failure.map_or_else(String::new, |one| format!(" {}: {}", one.hash.short(), one.message));
            text.push(format!("It failed{what}"));
            let gives = |hash| {
                facts.group.is_some_and(|group| {
                    group.desired.candidate == Some(hash) || group.desired_for(facts.id, member) == Some(hash)
                })
            };
            let retry = if facts.can_retry {
                format!(", or somebody says `gitamp retry {name}`")
            } else if failure.is_some_and(|failure| gives(failure.hash)) {
                format!(", or somebody says `gitamp retry {}`", facts.id)
            } else {
                String::new()
            };
            text.push(format!("It is not offered that again until the group is to have another configuration{retry}."));
        }
    }
    let is_open = matches!(member.verdict.standing, Standing::Pending | Standing::Held(_) | Standing::Offered);
    let is_open = is_open && member.is_connected();
    let is_told = |order: &&String| is_open && facts.waiting.iter().any(|waiting| waiting.message.contains(*order));
    text.extend(facts.orders.iter().filter(|order| !is_told(order)).map(|order| format!("An order holds: {order}.")));
    if is_open {
        text.extend(facts.waiting.iter().map(|waiting| format!("Its group waits: {}.", waiting.message)));
    }
    text
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
