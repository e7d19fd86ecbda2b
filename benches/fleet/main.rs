//! The load benchmark: a whole fleet of simulated agents against the daemon, each in a process of its own.
//!
//! ```text
//! cargo bench --bench fleet                          19,000 agents, all scenarios, a table
//! cargo bench --bench fleet -- --agents 2000 --only push
//! cargo bench --bench fleet -- --output json
//! cargo bench --bench fleet -- --tls              the same over wss://
//! ```
//!
//! It makes a temporary Git repository with one group, starts `gitamp serve` and `gitamp simulate`, commits, and reads the
//! times from the agents' side. Everything it starts it ends, by process id. Linux only: memory is read from `/proc`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports to a terminal")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

mod agents;
mod process;
mod repository;
mod scenarios;
mod server;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// What went wrong, in words.
type Failure = Box<dyn std::error::Error>;

/// Measures the daemon with a simulated fleet on the same machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many agents.
    #[arg(long, default_value_t = 19_000)]
    agents: usize,
    /// How many attributes each of them reports.
    #[arg(long, default_value_t = 20)]
    attributes: usize,
    /// How large their configuration is, in KiB.
    #[arg(long, default_value_t = 16)]
    config_kib: usize,
    /// How often each push is repeated; the middle one counts.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Which scenarios, all if none is named.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// A table for people, or one JSON object.
    #[arg(long, default_value = "human")]
    output: Output,
    /// Encrypts every connection.
    #[arg(long)]
    tls: bool,
    /// Says that this is a benchmark's run (cargo gives it); without it nothing is measured.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured. Connecting always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// A commit for everybody, with `maxUnavailable: 100%` and with 20 %.
    Push,
    /// The daemon is killed and started again.
    Restart,
    /// A tenth of the agents never reads.
    Deaf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Human,
    Json,
}

/// One measured number.
struct Measured {
    /// Stable, for scripts.
    key: &'static str,
    /// For people.
    name: String,
    value: f64,
    unit: &'static str,
    /// What it must not exceed, at full size.
    bound: Option<f64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("a benchmark: run it with `cargo bench --bench fleet`");
        return ExitCode::SUCCESS;
    }
    match scenarios::run(&arguments) {
        Ok(measured) => {
            report(&arguments, &measured);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn report(arguments: &Arguments, measured: &[Measured]) {
    match arguments.output {
        Output::Human => {
            println!(
                "\n{} agents, {} attributes each, a configuration of {} KiB{}\n",
                arguments.agents,
                arguments.attributes,
                arguments.config_kib,
                if arguments.tls { ", over TLS" } else { "" }
            );
            println!("| what | measured | at most |\n| --- | ---: | ---: |");
            for one in measured {
                let bound = one.bound.map_or_else(String::new, |bound| format!("{bound} {}", one.unit));
                println!("| {} | {} {} | {bound} |", one.name, round(one.value), one.unit);
            }
        }
        Output::Json => {
            let values: serde_json::Map<String, serde_json::Value> = measured
                .iter()
                .map(|one| (one.key.to_owned(), serde_json::json!({"value": one.value, "unit": one.unit})))
                .collect();
            println!(
                "{}",
                serde_json::json!({"agents": arguments.agents, "attributes": arguments.attributes, "configKib": arguments.config_kib, "tls": arguments.tls, "measured": values})
            );
        }
    }
}

/// Three digits are more than such a measurement is worth.
fn round(value: f64) -> String {
    if value.abs() >= 100.0 || value == value.trunc() { format!("{value:.0}") } else { format!("{value:.2}") }
}
