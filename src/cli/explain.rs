//! `gitamp explain`: why one agent has what it has, in sentences.

use std::process::ExitCode;

use clap::Args;
use hyper::StatusCode;

use super::admin_client::{AdminClient, AdminError, DaemonPlace};
use super::screen::{Tint, clean, clean_short, json, labels, tinted};
use super::status::Output;
use super::{Failure, print};
use crate::view::Explanation;

/// Characters of a sentence: messages of collectors are long, and what is wrong often stands at the end.
const LONGEST_SENTENCE: usize = 2_000;

/// Say why an agent has the configuration that it has
///
/// Its labels, its group and why, what it reports, what it should have and why, and what it waits for. Exit codes: 0 it was explained;
/// 1 no agent, or more than one, has the id that was named; 2 no daemon answers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp explain 0191a4f2                                 the beginning of an id is enough when it is the only one\n  \
    gitamp explain 0191a4f2-81f2-772e-b193-011beed33277 --output json | jq -r '.next[]'\n\n\
    `gitamp agents` lists the ids. `gitamp match` tells the same of labels, in a checkout.")]
pub(super) struct Arguments {
    /// The agent's id, or the beginning of it
    #[arg(value_name = "AGENT", value_parser = id)]
    agent: String,
    #[command(flatten)]
    place: DaemonPlace,
    /// How the explanation is written
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,
}

/// It becomes a part of an address, so it holds nothing but what ids are made of.
fn id(text: &str) -> Result<String, &'static str> {
    let is_id = !text.is_empty() && text.len() <= 36 && text.bytes().all(|one| one.is_ascii_hexdigit() || one == b'-');
    if is_id {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("an agent's id is like 019a9c64-81f2-772e-b193-011beed33277; its beginning is enough")
    }
}

impl Arguments {
    /// Asks and prints.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = AdminClient::of(&self.place)?;
        let runtime = super::runtime()?;
        let target = format!("/api/v1/agents/{}/explanation", self.agent);
        let explanation: Explanation = match runtime.block_on(client.get(&target)) {
            Ok(explanation) => explanation,
            Err(AdminError::Refused { status: StatusCode::NOT_FOUND, message }) => {
                anstream::eprintln!("error: {message}");
                return Ok(ExitCode::from(1));
            }
            Err(error) => return Err(error.into()),
        };
        match self.output {
            Output::Human => print(&human(&explanation))?,
            Output::Json => print(&json(&explanation)?)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn human(explanation: &Explanation) -> String {
    let agent = &explanation.agent;
    let mut text = format!("{}  {}\n", tinted(&clean(&agent.id), Tint::Bold), clean(&agent.state));
    for (title, lines) in [
        ("proven", &labels(agent, true).collect()),
        ("labels", &labels(agent, false).collect()),
        ("group", &explanation.belongs),
        ("it says", &explanation.reports),
        ("should have", &explanation.should_have),
        ("and now", &explanation.next),
    ] {
        for (index, line) in lines.iter().enumerate() {
            let title = if index == 0 { title } else { "" };
            text.push_str(&format!(
                "  {} {}\n",
                tinted(&format!("{title:<11}"), Tint::Dim),
                clean_short(line, LONGEST_SENTENCE)
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::AgentStatus;

    #[test]
    fn ids_are_safe_in_an_address() {
        assert_eq!(id("0191A4F2-"), Ok("0191a4f2-".to_owned()));
        for text in ["", "../status", "01/", "01?x", "gw-1", &"0".repeat(37)] {
            assert!(id(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sentences_stand_below_their_titles() {
        let explanation = Explanation {
            agent: AgentStatus {
                id: "0191".to_owned(),
                state: "pending".to_owned(),
                labels: [("host.name".to_owned(), "gw-1\u{1b}[2J".to_owned()), ("region".to_owned(), "eu".to_owned())]
                    .into(),
                proven: vec!["region".to_owned()],
                ..AgentStatus::default()
            },
            belongs: vec!["It belongs to a.".to_owned(), "b wants region In (us), and region is \"eu\".".to_owned()],
            reports: vec!["It polls over HTTP.".to_owned()],
            should_have: Vec::new(),
            next: vec!["It will be offered it when there is room.".to_owned()],
            matches: Vec::new(),
        };
        assert_eq!(
            anstream::adapter::strip_str(&human(&explanation)).to_string(),
            "\
0191  pending
  proven      region=eu
  labels      host.name=gw-1\\u{1b}[2J
  group       It belongs to a.
              b wants region In (us), and region is \"eu\".
  it says     It polls over HTTP.
  and now     It will be offered it when there is room.
"
        );
    }
}
