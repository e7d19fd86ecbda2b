//! `gitamp agents`: the agents that the daemon knows, where each stands and why.

use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::admin_client::{AdminClient, DaemonPlace};
use super::screen::{Rows, Tint, clean, clean_short, json, labels, short_hash, tinted};
use super::status::Output;
use super::{Failure, print};
use crate::view::{AgentList, AgentQuery, AgentStatus};

/// Where an agent may stand.
const STATES: [&str; 11] = [
    "confirmed",
    "offered",
    "pending",
    "failed",
    "held",
    "away",
    "lost",
    "unmanaged",
    "orphaned",
    "conflict",
    "unknown",
];

/// Labels that tell people which agent it is, the best one first.
const NAMES: [&str; 3] = ["host.name", "k8s.pod.name", "service.name"];

/// Show the agents, where each stands and why
///
/// Exit codes: 0 there are some, or nobody in particular was asked for; 1 no agent, or more than one, has the id that was named; 2 no
/// daemon answers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp agents\n  \
    gitamp agents --group prod/gateways --state failed\n  \
    gitamp agents 0191a4f2                                  everything about one agent\n  \
    gitamp agents --state unmanaged --limit 100000 --output json | jq '.agents[].labels'")]
pub(super) struct Arguments {
    /// One agent in detail: its id, or the beginning of it
    #[arg(value_name = "AGENT")]
    agent: Option<String>,
    /// Only of this group
    #[arg(long, short, value_name = "GROUP")]
    group: Option<String>,
    /// Only in this state
    #[arg(long, short, value_name = "STATE", value_parser = PossibleValuesParser::new(STATES))]
    state: Option<String>,
    /// How many are shown at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1_000, value_parser = limit)]
    limit: usize,
    #[command(flatten)]
    place: DaemonPlace,
    /// How the list is written
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..=100_000) => Ok(limit),
        Ok(_) | Err(_) => Err("must be a number from 1 to 100000".to_owned()),
    }
}

impl Arguments {
    /// Asks and prints.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = AdminClient::of(&self.place)?;
        let runtime = super::runtime()?;
        let query = AgentQuery {
            group: self.group.clone(),
            state: self.state.clone(),
            id: self.agent.as_ref().map(|id| id.to_ascii_lowercase()),
            limit: Some(self.limit),
        };
        let list: AgentList = runtime.block_on(client.get(&target(&query)))?;
        match self.output {
            Output::Human => print(&self.human(&list))?,
            Output::Json => print(&json(&list)?)?,
        }
        let Some(id) = &self.agent else { return Ok(ExitCode::SUCCESS) };
        match list.agents.len() + list.more {
            1 => return Ok(ExitCode::SUCCESS),
            0 => anstream::eprintln!("error: no agent's id begins with `{}`: see `gitamp agents`", clean(id)),
            count => anstream::eprintln!("error: {count} agents have an id that begins with `{}`", clean(id)),
        }
        Ok(ExitCode::from(1))
    }

    fn human(&self, list: &AgentList) -> String {
        match list.agents.as_slice() {
            [one] if self.agent.is_some() && list.more == 0 => details(one),
            [] if self.agent.is_some() => String::new(),
            [] if self.group.is_some() || self.state.is_some() => "no agent is like that\n".to_owned(),
            [] => "no agent is known: none has connected yet, or all were forgotten\n".to_owned(),
            _ => table(list),
        }
    }
}

/// The address of the answer to this query.
fn target(query: &AgentQuery) -> String {
    let limit = query.limit.map(|limit| limit.to_string());
    let pairs = [("group", &query.group), ("state", &query.state), ("id", &query.id), ("limit", &limit)];
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs {
        if let Some(value) = value {
            text.append_pair(name, value);
        }
    }
    format!("/api/v1/agents?{}", text.finish())
}

fn tint(agent: &AgentStatus) -> Tint {
    match agent.state.as_str() {
        "failed" | "lost" => Tint::Bad,
        _ if agent.healthy == Some(false) && agent.connected => Tint::Bad,
        "conflict" | "held" => Tint::Warning,
        "offered" | "pending" => Tint::Moving,
        "away" => Tint::Dim,
        _ => Tint::Plain,
    }
}

fn health(agent: &AgentStatus) -> &'static str {
    match agent.healthy {
        Some(true) => "healthy",
        Some(false) => "unhealthy",
        None => "-",
    }
}

fn name(agent: &AgentStatus) -> String {
    NAMES.iter().find_map(|key| agent.labels.get(*key)).map_or_else(|| "-".to_owned(), |name| clean_short(name, 40))
}

fn table(list: &AgentList) -> String {
    let mut rows = Rows::new(&["ID", "GROUP", "STATE", "CONFIG", "STATUS", "HEALTH", "TRANSPORT", "NAME", "WHY"], 0..0);
    for agent in &list.agents {
        let why = agent.reason.as_deref().or(agent.config_message.as_deref()).or(agent.health_message.as_deref());
        rows.add(
            vec![
                clean(&agent.id),
                agent.group.as_deref().map_or_else(|| "-".to_owned(), clean),
                clean(&agent.state),
                short_hash(agent.hash.as_deref()),
                clean(&agent.config_status),
                health(agent).to_owned(),
                clean(&agent.transport),
                name(agent),
                why.map_or_else(String::new, |why| clean_short(why, 80)),
            ],
            tint(agent),
        );
    }
    let mut text = rows.to_string();
    if list.more > 0 {
        text.push_str(&tinted(&format!("… and {} more: --group, --state or --limit\n", list.more), Tint::Dim));
    }
    text
}

fn details(agent: &AgentStatus) -> String {
    let mut text = format!("{}\n", tinted(&clean(&agent.id), Tint::Bold));
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<12}{}\n", clean(value)));
    line("group", agent.group.as_deref().unwrap_or("-"));
    line("state", &agent.state);
    if let Some(reason) = &agent.reason {
        line("why", reason);
    }
    line("connected", if agent.connected { &agent.transport } else { "no" });
    line("reports", &format!("{}, {}", agent.hash.as_deref().unwrap_or("no hash"), agent.config_status));
    line("should have", agent.desired.as_deref().unwrap_or("what it has"));
    if let Some(message) = agent.config_message.as_ref().filter(|message| !message.is_empty()) {
        line("it said", message);
    }
    let health = match (agent.healthy, &agent.health_message) {
        (None, _) => "not reported".to_owned(),
        (Some(_), Some(message)) if !message.is_empty() => format!("{}: {message}", health(agent)),
        (Some(_), _) => health(agent).to_owned(),
    };
    line("health", &health);
    if !agent.available_components.is_empty() {
        line("could run", &format!("{} components, listed with --output json", agent.available_components.len()));
    }
    list(&mut text, "proven", labels(agent, true));
    list(&mut text, "labels", labels(agent, false));
    list(&mut text, "components", agent.components.iter().cloned());
    text
}

fn list(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    for (index, line) in lines.enumerate() {
        if index == 0 {
            text.push_str(&format!("  {title}\n"));
        }
        text.push_str(&format!("    {}\n", clean(&line)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> AgentStatus {
        AgentStatus {
            id: "0191a4f2-0000-7000-8000-000000000001".to_owned(),
            group: Some("prod/gateways".to_owned()),
            state: "failed".to_owned(),
            reason: Some("cannot start: \u{1b}[2Jport in use".to_owned()),
            transport: "websocket".to_owned(),
            connected: true,
            hash: Some("0123456789abcdef0123".to_owned()),
            config_status: "failed".to_owned(),
            config_message: Some("port in use\nreally".to_owned()),
            desired: Some("ffff56789abcdef0123".to_owned()),
            healthy: Some(false),
            health_message: Some("down".to_owned()),
            labels: [("host.name".to_owned(), "gw-1".to_owned()), ("region".to_owned(), "eu".to_owned())].into(),
            proven: vec!["region".to_owned()],
            components: vec!["receivers otlp".to_owned()],
            available_components: Vec::new(),
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn queries_are_encoded() {
        let query =
            AgentQuery { group: Some("prod/a b&c".to_owned()), state: None, id: Some("01".to_owned()), limit: Some(7) };
        assert_eq!(target(&query), "/api/v1/agents?group=prod%2Fa+b%26c&id=01&limit=7");
    }

    #[test]
    fn the_list_is_a_table() {
        let away = AgentStatus {
            id: "0291".to_owned(),
            group: None,
            state: "away".to_owned(),
            reason: None,
            connected: false,
            hash: None,
            config_status: "unset".to_owned(),
            config_message: None,
            healthy: None,
            health_message: None,
            transport: "none".to_owned(),
            labels: [("service.name".to_owned(), "collector".to_owned())].into(),
            ..agent()
        };
        let list = AgentList { agents: vec![agent(), away], more: 3 };
        assert_eq!(
            plain(&table(&list)),
            "\
ID                                    GROUP          STATE   CONFIG        STATUS  HEALTH     TRANSPORT  NAME       WHY
0191a4f2-0000-7000-8000-000000000001  prod/gateways  failed  0123456789ab  failed  unhealthy  websocket  gw-1       cannot start: \\u{1b}[2Jport in use
0291                                  -              away    -             unset   -          none       collector
… and 3 more: --group, --state or --limit
"
        );
    }

    #[test]
    fn one_agent_is_told_in_detail() {
        assert_eq!(
            plain(&details(&agent())),
            "\
0191a4f2-0000-7000-8000-000000000001
  group       prod/gateways
  state       failed
  why         cannot start: \\u{1b}[2Jport in use
  connected   websocket
  reports     0123456789abcdef0123, failed
  should have ffff56789abcdef0123
  it said     port in use\\nreally
  health      unhealthy: down
  proven
    region=eu
  labels
    host.name=gw-1
  components
    receivers otlp
"
        );
    }
}
