//! `gitamp simulate`: a fleet of agents, good and bad, that connects to a server and shows what it holds.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::agent::Capabilities;
use crate::cli::{Failure, print};
use crate::fleet::strategy::Amount;
use crate::settings::SecretFile;
use crate::simulate::{Attribute, Counts, DelayRange, Endpoint, Fleet, Holding, Options, client_config, parse_amount};
use crate::time::{Timestamp, parse_duration, show_duration};

const EXAMPLES: &str = "Examples:
  gitamp simulate --agents 100
  gitamp simulate --agents 300 --attr region=eu,us --attr host.name=gw-{n} --attr deployment.environment=prod
  gitamp simulate --agents 50 --fail-matching otlphttp/new      a config that holds this text breaks every collector
  gitamp simulate --agents 1000 --fail 1% --crash 1% --deaf 10% --reconnect 5m
  gitamp simulate --agents 50 --server wss://127.0.0.1:4320/v1/opamp --ca-file ca.pem --token-file token
  gitamp simulate --agents 50 --server http://127.0.0.1:4320/v1/opamp --poll-interval 5s

Shares like 1% round up; who misbehaves depends on --seed alone, and so do the instance uids.";

/// Let a fleet of invented agents connect to a server: good ones, slow ones, and ones that fail
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Where to connect: ws://HOST:PORT/PATH, or http://HOST:PORT/PATH for agents that poll; wss:// and https:// with TLS
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:4320/v1/opamp")]
    server: String,
    /// The authorities that the server's certificate is known by [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The certificate that all agents show to the server
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// A file with the bearer token that agents show, or with several, one a line, that connections take turns in
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Allow a server that is not on this machine
    #[arg(long)]
    allow_remote: bool,
    /// How many agents
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    agents: u32,
    /// What they say of themselves; may be repeated. A value is one text, or several with commas that agents take turns in;
    /// an n in braces stands for the agent's number, and {n%3}, {n/100} for what that says
    #[arg(long = "attr", value_name = "KEY=VALUE")]
    attributes: Vec<String>,
    /// The capability bits that they declare
    #[arg(long, value_name = "BITS", default_value = "0x3c47", value_parser = parse_capabilities)]
    capabilities: Capabilities,
    /// From an offer to the verdict on it, one length or a range. Real supervisors take 5s
    #[arg(long, value_name = "DELAY", default_value = "500ms..2s")]
    apply_delay: DelayRange,
    /// Time between the heartbeats of an agent with nothing to say
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    heartbeat: Duration,
    /// Time between the polls of an agent that speaks plain HTTP
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    poll_interval: Duration,
    /// Agents whose collector cannot run any config it is offered: a number, or a share like 1%
    #[arg(long, value_name = "AMOUNT", default_value = "0", value_parser = parse_amount)]
    fail: Amount,
    /// A config that holds this text breaks every collector
    #[arg(long, value_name = "TEXT")]
    fail_matching: Option<String>,
    /// What agents say then
    #[arg(long, value_name = "TEXT")]
    fail_message: Option<String>,
    /// Agents whose collector starts to crash some time after it took a config
    #[arg(long, value_name = "AMOUNT", default_value = "0", value_parser = parse_amount)]
    crash: Amount,
    /// How long after
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    crash_after: Duration,
    /// Agents that read nothing after the first answer, and go on sending
    #[arg(long, value_name = "AMOUNT", default_value = "0", value_parser = parse_amount)]
    deaf: Amount,
    /// Agents that never say what became of an offer; all, if no amount is given
    #[arg(long, value_name = "AMOUNT", default_value = "0", num_args = 0..=1, default_missing_value = "100%", value_parser = parse_amount)]
    silent: Amount,
    /// Agents that fail any second config and go back to the first by themselves
    #[arg(long, value_name = "AMOUNT", default_value = "0", value_parser = parse_amount)]
    rollback: Amount,
    /// Agents that are never well, whatever they run
    #[arg(long, value_name = "AMOUNT", default_value = "0", value_parser = parse_amount)]
    unhealthy: Amount,
    /// Every connection drops without a word about so often, and comes back
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    reconnect: Option<Duration>,
    /// How many agents share a connection
    #[arg(long, value_name = "K", default_value_t = 1)]
    per_connection: u32,
    /// The seed of everything random: the same seed plays the same agents again
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// End after so long; otherwise Ctrl-C does
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// How to print
    #[arg(long, value_name = "FORM", default_value = "human")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines and a table for people, at most one line a second.
    Human,
    /// One JSON object a line, at most ten a second; times in milliseconds since the start.
    Json,
}

fn parse_capabilities(text: &str) -> Result<Capabilities, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map(Capabilities).map_err(|_| format!("`{text}` is no set of bits like 0x3c47"))
}

impl Arguments {
    /// Runs the fleet until it is told to end, or its time is over.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let (duration, output) = (self.duration, self.output);
        let options = self.options()?;
        let runtime = super::runtime()?;
        runtime.block_on(async {
            let show = Show { output, agents: options.agents, started: Timestamp::default() };
            show.opening(&options)?;
            let fleet = Fleet::start(options)?;
            watch(fleet, show, duration).await
        })
    }

    fn options(self) -> Result<Options, Failure> {
        let server = Endpoint::resolve(&self.server, self.allow_remote)?;
        let own = self.client_cert.as_deref().zip(self.client_key.as_deref());
        let tls = match &server.tls {
            Some(_) => Some(client_config(self.ca_file.as_deref(), own)?),
            None => None,
        };
        let tokens = match self.token_file {
            Some(path) => SecretFile::new(path).read()?.lines(),
            None => Vec::new(),
        };
        let defaults = Options::new(server, self.agents);
        let options = Options {
            attributes: Attribute::parse_all(&self.attributes)?,
            capabilities: self.capabilities,
            apply_delay: self.apply_delay,
            heartbeat: self.heartbeat,
            poll_interval: self.poll_interval,
            fail: self.fail,
            fail_matching: self.fail_matching,
            fail_message: self.fail_message.unwrap_or(defaults.fail_message),
            crash: self.crash,
            crash_after: self.crash_after,
            deaf: self.deaf,
            silent: self.silent,
            rollback: self.rollback,
            unhealthy: self.unhealthy,
            reconnect: self.reconnect,
            per_connection: self.per_connection,
            tls,
            tokens,
            seed: self.seed,
            ..defaults
        };
        options.check()?;
        Ok(options)
    }
}

/// Prints what changes until the end, then lets the agents say goodbye. A second signal does not wait for that.
async fn watch(fleet: Fleet, mut show: Show, duration: Option<Duration>) -> Result<ExitCode, Failure> {
    show.started = fleet.started();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut pace = interval(show.pace());
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = async {
        match duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut shown = Counts::default();
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = pace.tick() => {
                let counts = fleet.counts();
                if !fleet.is_running() {
                    return Err("the simulated fleet ended by itself, which is an error in it".into());
                }
                show.change(fleet.now(), &shown, &counts)?;
                shown.clone_from(&counts);
            }
        }
    }
    show.closing()?;
    let holding = fleet.counts(); // before the goodbyes
    tokio::select! {
        counts = fleet.stop() => show.end(&holding, &counts)?,
        _ = interrupt.recv() => show.end(&holding, &holding)?,
        _ = terminate.recv() => show.end(&holding, &holding)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How a fleet is shown.
struct Show {
    output: Output,
    agents: u32,
    started: Timestamp,
}

impl Show {
    fn pace(&self) -> Duration {
        match self.output {
            Output::Human => Duration::from_secs(1),
            Output::Json => Duration::from_millis(100),
        }
    }

    fn opening(&self, options: &Options) -> Result<(), Failure> {
        let faults: String = [
            (options.fail, "fail"),
            (options.crash, "crash"),
            (options.deaf, "are deaf"),
            (options.silent, "are silent"),
            (options.rollback, "roll back"),
            (options.unhealthy, "are not well"),
        ]
        .iter()
        .map(|(amount, what)| (amount.round_up(options.agents as usize).min(options.agents as usize), what))
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!(", {count} {what}"))
        .collect();
        match self.output {
            Output::Human => print(&format!(
                "{} simulated agents at {}{} (seed {}{faults}); Ctrl-C ends them\n",
                options.agents, options.server.authority, options.server.path, options.seed
            )),
            Output::Json => Ok(()),
        }
    }

    /// One line, if something changed that a person wants to see.
    fn change(&self, at: Timestamp, before: &Counts, now: &Counts) -> Result<(), Failure> {
        match self.output {
            Output::Json => {
                let quiet = |counts: &Counts| Counts { sent: 0, received: 0, ..counts.clone() };
                if quiet(before) == quiet(now) { Ok(()) } else { self.json("holding", now) }
            }
            Output::Human => {
                let line = self.line(now);
                if line == self.line(before) && now.trouble == before.trouble {
                    return Ok(());
                }
                let trouble = match &now.trouble {
                    Some(trouble) if (before.refused, before.lost) != (now.refused, now.lost) => {
                        format!(" ({trouble})")
                    }
                    Some(_) | None => String::new(),
                };
                print(&format!("{:7.1}s  {line}{trouble}\n", at.since(self.started).as_secs_f64()))
            }
        }
    }

    /// What the fleet holds, in one line.
    fn line(&self, counts: &Counts) -> String {
        let mut line = format!("{}/{} connected", counts.connected, self.agents);
        for holding in &counts.configs {
            let parts: Vec<_> =
                [(holding.applied, "applied"), (holding.applying, "applying"), (holding.failed, "failed")]
                    .iter()
                    .filter(|(count, _)| *count > 0)
                    .map(|(count, what)| format!("{count} {what}"))
                    .collect();
            if !parts.is_empty() {
                line.push_str(&format!("  {} {}", holding.short(), parts.join(", ")));
            }
        }
        line
    }

    fn closing(&self) -> Result<(), Failure> {
        match self.output {
            Output::Human => print("saying goodbye\n"),
            Output::Json => Ok(()),
        }
    }

    fn end(&self, holding: &Counts, last: &Counts) -> Result<(), Failure> {
        match self.output {
            Output::Human => print(&format!("{}\n", self.table(holding, last))),
            Output::Json => self.json("end", &Counts { connected: last.connected, ..holding.clone() }),
        }
    }

    fn table(&self, holding: &Counts, last: &Counts) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "CONFIG",
            "APPLIED",
            "APPLYING",
            "FAILED",
            "OFFERS",
            "FIRST TO LAST RECEIPT",
            "TO LAST APPLIED",
        ]);
        for column in 1..7 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for config in &holding.configs {
            let span = |to: Option<Timestamp>| match (config.first_receipt, to) {
                (Some(from), Some(to)) => show_duration(to.since(from)),
                _ => "-".to_owned(),
            };
            table.add_row([
                config.short().to_owned(),
                config.applied.to_string(),
                config.applying.to_string(),
                config.failed.to_string(),
                config.offers.to_string(),
                span(config.last_receipt),
                span(config.last_applied),
            ]);
        }
        let mut text =
            if holding.configs.is_empty() { "no agent was offered anything".to_owned() } else { table.trim_fmt() };
        text.push_str(&format!(
            "\n{} connected, {} healthy, {} without a config; {} offers, {} of them repeated; {} connections, {} refused, {} lost; {} messages sent, {} received",
            holding.connected, holding.healthy, holding.without_config, last.offers, last.repeated_offers, last.connects,
            last.refused, last.lost, last.sent, last.received,
        ));
        for (count, what) in [
            (last.errors, "error responses"),
            (last.malformed, "messages that were none"),
            (last.contradictions, "offers of a known hash with another content"),
        ] {
            if count > 0 {
                text.push_str(&format!("\n{count} {what}"));
            }
        }
        if let Some(trouble) = last.trouble.as_ref().filter(|_| last.refused + last.lost > 0) {
            text.push_str(&format!("\nlast refused or lost: {trouble}"));
        }
        text
    }

    fn json(&self, event: &'static str, counts: &Counts) -> Result<(), Failure> {
        let mut line = serde_json::to_string(&Event::new(event, self.started, counts))?;
        line.push('\n');
        print(&line)
    }
}

/// One line of `--output json`. Its field names are a promise to scripts; times are milliseconds since `startedEpochMs`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    event: &'static str,
    started_epoch_ms: u64,
    agents: usize,
    connected: usize,
    healthy: usize,
    without_config: usize,
    applied: usize,
    applying: usize,
    failed: usize,
    connects: u64,
    refused: u64,
    lost: u64,
    offers: u64,
    repeated_offers: u64,
    contradictions: u64,
    errors: u64,
    malformed: u64,
    sent: u64,
    received: u64,
    trouble: Option<&'a str>,
    configs: Vec<ConfigEvent<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigEvent<'a> {
    hash: &'a str,
    applied: usize,
    applying: usize,
    failed: usize,
    offers: u64,
    first_receipt_ms: Option<u64>,
    last_receipt_ms: Option<u64>,
    first_applied_ms: Option<u64>,
    last_applied_ms: Option<u64>,
}

impl<'a> Event<'a> {
    fn new(event: &'static str, started: Timestamp, counts: &'a Counts) -> Self {
        Self {
            event,
            started_epoch_ms: started.as_millis(),
            agents: counts.agents,
            connected: counts.connected,
            healthy: counts.healthy,
            without_config: counts.without_config,
            applied: counts.applied,
            applying: counts.applying,
            failed: counts.failed,
            connects: counts.connects,
            refused: counts.refused,
            lost: counts.lost,
            offers: counts.offers,
            repeated_offers: counts.repeated_offers,
            contradictions: counts.contradictions,
            errors: counts.errors,
            malformed: counts.malformed,
            sent: counts.sent,
            received: counts.received,
            trouble: counts.trouble.as_deref(),
            configs: counts.configs.iter().map(|holding| ConfigEvent::new(started, holding)).collect(),
        }
    }
}

impl<'a> ConfigEvent<'a> {
    fn new(started: Timestamp, holding: &'a Holding) -> Self {
        let since = |at: Option<Timestamp>| at.map(|at| at.as_millis().saturating_sub(started.as_millis()));
        Self {
            hash: &holding.hash,
            applied: holding.applied,
            applying: holding.applying,
            failed: holding.failed,
            offers: holding.offers,
            first_receipt_ms: since(holding.first_receipt),
            last_receipt_ms: since(holding.last_receipt),
            first_applied_ms: since(holding.first_applied),
            last_applied_ms: since(holding.last_applied),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn options(arguments: &[&str]) -> Result<Options, String> {
        let program =
            Program::try_parse_from([&["simulate"], arguments].concat()).map_err(|error| error.to_string())?;
        program.arguments.options().map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_become_options() {
        let options = options(&[
            "--agents=30",
            "--attr",
            "region=eu,us",
            "--apply-delay=100ms..500ms",
            "--fail=1%",
            "--silent",
            "--deaf",
            "3",
            "--capabilities=0x2845",
            "--reconnect=30s",
        ])
        .expect("good arguments");
        assert_eq!(options.agents, 30);
        assert_eq!(options.attributes[0].value(1), "us");
        assert_eq!((options.fail, options.silent, options.deaf), (Amount::Share(100), Amount::ALL, Amount::Count(3)));
        assert_eq!(options.capabilities, Capabilities(0x2845));
        assert_eq!(options.reconnect, Some(Duration::from_secs(30)));
    }

    #[test]
    fn mistakes_are_explained() {
        for (arguments, expected) in [
            (&["--agents=0"] as &[_], "from 1 to 1000000"),
            (&["--attr=region"], "key=value"),
            (&["--fail=lots"], "a share of them like 2.5%"),
            (&["--apply-delay=5"], "write a number with a unit"),
            (&["--server=wss://127.0.0.1/", "--ca-file=/nowhere.pem"], "/nowhere.pem"),
            (&["--client-cert=/nowhere.pem"], "--client-key"),
            (&["--server=ws://192.0.2.7:4320/"], "--allow-remote"),
            (&["--capabilities=many"], "no set of bits"),
        ] {
            let error = options(arguments).expect_err("a mistake");
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn what_the_fleet_holds_fits_a_line_and_a_table() {
        let at = Timestamp::from_millis;
        let holding = Holding {
            hash: "ab".repeat(32).into(),
            applied: 7,
            applying: 0,
            failed: 3,
            offers: 10,
            first_receipt: Some(at(5_000)),
            last_receipt: Some(at(5_250)),
            first_applied: Some(at(5_100)),
            last_applied: Some(at(7_000)),
        };
        let counts = Counts {
            agents: 12,
            connected: 11,
            without_config: 2,
            offers: 10,
            configs: vec![holding],
            ..Counts::default()
        };
        let show = Show { output: Output::Human, agents: 12, started: at(4_000) };
        assert_eq!(show.line(&counts), "11/12 connected  abababababab 7 applied, 3 failed");
        let table = show.table(&counts, &counts);
        assert!(table.contains("250ms") && table.contains("2s") && table.contains("2 without a config"), "{table}");
        let event = serde_json::to_value(Event::new("end", show.started, &counts)).expect("JSON");
        assert_eq!(event["configs"][0]["firstReceiptMs"], 1_000);
        assert_eq!(event["repeatedOffers"], 0);
    }
}
