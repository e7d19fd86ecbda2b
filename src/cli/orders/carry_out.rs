//! How every order is given: the daemon says what it would do, the operator agrees, then it is done.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hyper::StatusCode;
use serde::Serialize;

use crate::cli::admin_client::{AdminClient, AdminError, DaemonPlace};
use crate::cli::screen::{Tint, clean, clean_short, json, tinted};
use crate::cli::status::Output;
use crate::cli::{Failure, print};
use crate::settings::sudo_user;
use crate::time::Timestamp;

use crate::view::command::{Command, Impact, OrderRequest};
use crate::view::{AgentList, FleetStatus};

/// Groups and effects that are listed before the rest is counted.
const MOST_LINES: usize = 20;

/// Characters of an effect.
const LONGEST_EFFECT: usize = 400;

/// Bytes of an answer to the question; whoever types more means no.
const LONGEST_ANSWER: u64 = 64;

/// Where an order is tried without being carried out.
const PREVIEW: &str = "/api/v1/orders/preview";

/// Where a refusal is recorded, and nothing is ever carried out; daemons of before do not know it.
const REFUSED: &str = "/api/v1/orders/refused";

/// What all orders ask.
#[derive(Args, Clone, Debug)]
pub(super) struct Asking {
    /// Do not ask whether it is meant
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    place: DaemonPlace,
    /// How the outcome is written
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,
}

/// What is to be ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// This.
    Order(Command),
    /// An undo of everything that changed within so long before now, by the daemon's clock.
    UndoSinceAgo(Duration),
}

/// The document of `--output json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(flatten)]
    request: &'a OrderRequest,
    /// True when it was done.
    done: bool,
    /// What it did, or would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    impact: Option<&'a Impact>,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a str>,
}

/// Nobody said yes.
#[derive(Debug, thiserror::Error)]
enum NotConfirmed {
    #[error("not done: there is no terminal to ask on; say --yes when this is meant")]
    NoTerminal,
    #[error("not done: it was not confirmed")]
    SaidNo,
}

/// What came of asking the daemon.
enum Answer {
    Impact(Impact),
    /// In its own words.
    Refused(String),
    /// By who commands nothing there, whatever it is; that was told already.
    Forbidden(String),
}

/// Shows what the order will do, asks, gives it, and tells what was done.
pub(super) fn carry_out(task: &Task, reason: Option<&str>, asking: &Asking) -> Result<ExitCode, Failure> {
    let client = AdminClient::of(&asking.place)?;
    let runtime = crate::cli::runtime()?;
    let command = match task {
        Task::Order(command) => command.clone(),
        Task::UndoSinceAgo(length) => {
            let status: FleetStatus = runtime.block_on(client.get("/api/v1/status"))?;
            Command::UndoSince { since: before(status.now, *length) }
        }
    };
    let request = OrderRequest::of(command, reason.map(str::to_owned));
    let request = OrderRequest { sudo_user: sudo_user(), ..request }.checked()?;
    let is_json = asking.output == Output::Json;
    let (request, preview) = match runtime.block_on(previewed(&client, request))? {
        (request, Answer::Impact(impact)) => (request, impact),
        (request, Answer::Forbidden(words)) => return refused(&request, &words, is_json),
        (request, Answer::Refused(words)) => {
            let words = runtime.block_on(recorded(&client, &request)).unwrap_or(words);
            return refused(&request, &words, is_json);
        }
    };
    let told = describe(&request.command, &preview);
    if !is_json {
        print(&told)?;
    }
    if !asking.yes {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            if is_json {
                document(&Document { request: &request, done: false, impact: Some(&preview), refused: None })?;
            }
            return Err(NotConfirmed::NoTerminal.into());
        }
        confirm(if is_json { &told } else { "" }, std::io::stdin().lock(), anstream::stderr().lock())?;
    }
    let outcome = runtime.block_on(send(&client, "/api/v1/orders", &request)).inspect_err(|error| {
        if !error.is_unheard() {
            anstream::eprintln!("it is not known whether the order was carried out: see `gitamp status`");
        }
    })?;
    match outcome {
        Answer::Refused(words) | Answer::Forbidden(words) => refused(&request, &words, is_json),
        Answer::Impact(mut impact) => {
            if is_json {
                document(&Document { request: &request, done: true, impact: Some(&impact), refused: None })?;
            }
            let unstored = impact.unstored.take();
            if !is_json {
                print(&done(&preview, &impact))?;
            }
            let Some(words) = unstored else { return Ok(ExitCode::SUCCESS) };
            anstream::eprintln!("warning: {}", clean_short(&words, LONGEST_EFFECT));
            Ok(ExitCode::from(2))
        }
    }
}

fn before(now: Timestamp, length: Duration) -> Timestamp {
    let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(millis))
}

/// What the order would do. Where the beginning of an agent's id stands for the agent, the whole id takes its place: nothing but the
/// one agent that was shown is ever touched.
async fn previewed(client: &AdminClient, request: OrderRequest) -> Result<(OrderRequest, Answer), AdminError> {
    let answer = send(client, PREVIEW, &request).await?;
    let (Answer::Refused(_), Some(prefix)) = (&answer, agent_prefix(&request.command)) else {
        return Ok((request, answer));
    };
    let list: AgentList = client.get(&format!("/api/v1/agents?id={prefix}&limit=2")).await?;
    let ([agent], 0) = (list.agents.as_slice(), list.more) else { return Ok((request, answer)) };
    let mut command = request.command.clone();
    if let Command::Pin { target, .. }
    | Command::Unpin { target }
    | Command::Restart { target }
    | Command::Retry { target } = &mut command
    {
        target.clone_from(&agent.id);
    }
    let request = OrderRequest { command, ..request };
    let answer = send(client, PREVIEW, &request).await?;
    Ok((request, answer))
}

/// What may be the beginning of an agent's id.
fn agent_prefix(command: &Command) -> Option<String> {
    let (Command::Pin { target, .. }
    | Command::Unpin { target }
    | Command::Restart { target }
    | Command::Retry { target }) = command
    else {
        return None;
    };
    let is_prefix = target.len() < 36 && target.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_prefix.then(|| target.to_ascii_lowercase())
}

/// A refusal by the state of the fleet, or of whoever asks, is an answer; everything else is trouble.
async fn send(client: &AdminClient, target: &str, request: &OrderRequest) -> Result<Answer, AdminError> {
    match client.send(target, request).await {
        Ok(impact) => Ok(Answer::Impact(impact)),
        Err(AdminError::Refused { status: StatusCode::CONFLICT, message }) => Ok(Answer::Refused(message)),
        Err(AdminError::Refused { status: StatusCode::FORBIDDEN, message }) => Ok(Answer::Forbidden(message)),
        Err(error) => Err(error),
    }
}

/// Has the journal tell of an order that is refused already, and by whom it was given; the reason in its own words, which may be that whoever gave it
/// may not. `None`: nobody could be told, and the first refusal has to do.
async fn recorded(client: &AdminClient, request: &OrderRequest) -> Option<String> {
    match send(client, REFUSED, request).await {
        Ok(Answer::Refused(words) | Answer::Forbidden(words)) => Some(words),
        Ok(Answer::Impact(_)) | Err(_) => None,
    }
}

fn refused(request: &OrderRequest, words: &str, is_json: bool) -> Result<ExitCode, Failure> {
    if is_json {
        document(&Document { request, done: false, impact: None, refused: Some(words) })?;
    } else {
        anstream::eprintln!("refused: {words}");
    }
    Ok(ExitCode::from(1))
}

fn document(document: &Document<'_>) -> Result<(), Failure> {
    print(&json(document)?)
}

/// What the order will do, for people.
fn describe(command: &Command, impact: &Impact) -> String {
    let mut text = String::new();
    for effect in impact.effects.iter().take(MOST_LINES) {
        text.push_str(&format!("  {}\n", clean_short(effect, LONGEST_EFFECT)));
    }
    if impact.effects.len() > MOST_LINES {
        text.push_str(&format!("  … and {} more\n", impact.effects.len() - MOST_LINES));
    }
    let names: Vec<String> = impact.groups.iter().take(MOST_LINES).map(|name| clean(name)).collect();
    let more = match impact.groups.len().saturating_sub(MOST_LINES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let groups = match impact.groups.len() {
        0 => String::new(),
        1 => format!(", the group {}", names.join("")),
        count => format!(", {count} groups: {}{more}", names.join(", ")),
    };
    let agents = match impact.agents {
        0 => "touches no agent".to_owned(),
        1 => "touches 1 agent".to_owned(),
        count => format!("touches {count} agents"),
    };
    let line = format!("{} {agents}{groups}", command.name());
    format!("{}\n{text}", tinted(&line, Tint::Bold))
}

/// Asks on `out` and reads the answer; only a yes is one.
fn confirm(told: &str, answers: impl BufRead, mut out: impl Write) -> Result<(), Failure> {
    write!(out, "{told}Is this meant? [y/N] ").and_then(|()| out.flush())?;
    let mut answer = String::new();
    answers.take(LONGEST_ANSWER).read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(NotConfirmed::SaidNo.into()),
    }
}

/// What was done; said again only as far as it is something else than was announced.
fn done(announced: &Impact, impact: &Impact) -> String {
    if announced == impact {
        return "done\n".to_owned();
    }
    let effects: String = impact
        .effects
        .iter()
        .take(MOST_LINES)
        .map(|effect| format!("  {}\n", clean_short(effect, LONGEST_EFFECT)))
        .collect();
    let agents = if impact.agents == 1 { "1 agent".to_owned() } else { format!("{} agents", impact.agents) };
    format!("done, meanwhile something changed: {agents}\n{effects}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::admin_client::tests::{answer, daemon};

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn impact(groups: usize) -> Impact {
        Impact {
            groups: (0..groups).map(|number| format!("prod/g{number}")).collect(),
            agents: groups * 10,
            effects: (0..groups).map(|number| format!("prod/g{number} goes back to 0123\u{1b}[2J")).collect(),
            unstored: None,
        }
    }

    #[test]
    fn what_will_be_done_is_told() {
        let undo = Command::Undo { group: "prod/g0".to_owned(), to: None };
        assert_eq!(
            plain(&describe(&undo, &impact(1))),
            "undo touches 10 agents, the group prod/g0\n  prod/g0 goes back to 0123\\u{1b}[2J\n"
        );
        let since = Command::UndoSince { since: Timestamp::from_millis(0) };
        let many = plain(&describe(&since, &impact(25)));
        assert!(many.starts_with("undo touches 250 agents, 25 groups: prod/g0, prod/g1, "), "{many}");
        assert!(many.contains("prod/g19 and 5 more\n") && many.ends_with("  … and 5 more\n"), "{many}");
        let freeze = Command::Freeze { group: None };
        assert_eq!(plain(&describe(&freeze, &Impact::default())), "freeze touches no agent\n");
    }

    #[test]
    fn only_a_yes_is_one() {
        for (typed, is_yes) in
            [("y\n", true), (" YES \n", true), ("\n", false), ("", false), ("n\n", false), ("yesterday\n", false)]
        {
            let mut asked = Vec::new();
            let outcome = confirm("told\n", typed.as_bytes(), &mut asked);
            assert_eq!(outcome.is_ok(), is_yes, "{typed:?}");
            assert_eq!(String::from_utf8_lossy(&asked), "told\nIs this meant? [y/N] ");
        }
        let endless = "y".repeat(100_000);
        assert!(confirm("", endless.as_bytes(), Vec::new()).is_err());
    }

    #[test]
    fn what_was_done_is_said_again_only_when_it_differs() {
        assert_eq!(done(&impact(1), &impact(1)), "done\n");
        let text = done(&impact(1), &Impact { agents: 1, ..impact(1) });
        assert_eq!(text, "done, meanwhile something changed: 1 agent\n  prod/g0 goes back to 0123\\u{1b}[2J\n");
    }

    #[test]
    fn a_time_before_is_by_the_clock_of_the_daemon() {
        let now = Timestamp::from_millis(7_200_000);
        assert_eq!(before(now, Duration::from_secs(3_600)), Timestamp::from_millis(3_600_000));
        assert_eq!(before(now, Duration::MAX), Timestamp::from_millis(0));
    }

    #[test]
    fn only_what_can_be_an_id_is_looked_for_among_the_agents() {
        let pin = |target: &str| Command::Pin { target: target.to_owned(), length: Duration::from_secs(1) };
        let whole = "0191a4f2-81f2-772e-b193-011beed33277";
        for (command, prefix) in [
            (pin("0191A4F2"), Some("0191a4f2")),
            (Command::Unpin { target: "0191-".to_owned() }, Some("0191-")),
            (pin(whole), None),
            (Command::Retry { target: "0191a4f2".to_owned() }, Some("0191a4f2")),
            (pin("prod/gateways"), None),
            (Command::Pause { group: "cafe".to_owned() }, None),
        ] {
            assert_eq!(agent_prefix(&command).as_deref(), prefix, "{command:?}");
        }
    }

    #[tokio::test]
    async fn what_was_refused_is_recorded_at_an_address_that_carries_nothing_out() {
        let request = OrderRequest::of(Command::Freeze { group: None }, None);
        for (code, body, words) in [
            ("409 Conflict", "it is frozen already\n", Some("it is frozen already")),
            ("403 Forbidden", "freeze needs the role operate\n", Some("freeze needs the role operate")),
            // A daemon of before.
            ("404 Not Found", "not here; see /healthz\n", None),
            ("200 OK", r#"{"groups":[],"agents":3,"effects":[]}"#, None),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let (client, asked) = daemon(directory.path(), answer(code, body));
            assert_eq!(recorded(&client, &request).await.as_deref(), words, "{code}");
            let asked = asked.await.expect("a request");
            assert!(asked.starts_with("POST /api/v1/orders/refused HTTP/1.1\r\n"), "{asked}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer_and_a_failure_is_none() {
        let request = OrderRequest::of(Command::Freeze { group: None }, None);
        for (code, body, is_refusal) in [
            ("200 OK", r#"{"groups":[],"agents":3,"effects":[]}"#, Some(false)),
            ("409 Conflict", "it is frozen already\n", Some(true)),
            ("503 Service Unavailable", "busy", None),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let (client, _asked) = daemon(directory.path(), answer(code, body));
            let outcome = send(&client, "/api/v1/orders", &request).await;
            let was_refused = match &outcome {
                Ok(Answer::Impact(impact)) => Some(impact.agents != 3),
                Ok(Answer::Refused(words) | Answer::Forbidden(words)) => Some(words == "it is frozen already"),
                Err(_) => None,
            };
            assert_eq!(was_refused, is_refusal, "{code}");
        }
    }
}
