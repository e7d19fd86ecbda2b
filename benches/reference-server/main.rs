//! A comparison that anyone can repeat: gitamp and a server on the OpenTelemetry project's own OpAMP library, in turn, with the same fleet.
//!
//! `compare.sh` beside this file builds both and runs this. Each server gets a fleet of `gitamp simulate`, with WebSocket connections on
//! loopback, and pushes a few configurations to all of it; then it gets one of which a tenth never reads. Memory is the kernel's word on the
//! server's process; times are the agents' own, from the commit or the request that started the push. Linux only.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark reports to a terminal")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

#[allow(dead_code, reason = "the other benchmark uses more of it")]
#[path = "../fleet/agents.rs"]
mod agents;
#[allow(dead_code, reason = "the other benchmark uses more of it")]
#[path = "../fleet/process.rs"]
mod process;
mod pushers;
#[path = "../fleet/repository.rs"]
mod repository;
#[allow(dead_code, reason = "the other benchmark uses more of it")]
#[path = "../fleet/server.rs"]
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use agents::Agents;
use pushers::{Gitamp, Pusher, Reference};

/// What went wrong, in words.
type Failure = Box<dyn std::error::Error>;

/// Longer than anything takes that works.
const BOUND: Duration = Duration::from_secs(180);

/// How long those are waited for that a blocked server does not reach: then that is the result.
const PATIENCE: Duration = Duration::from_secs(30);

/// Attributes of each agent.
const ATTRIBUTES: usize = 20;

/// Measures gitamp beside a server on the OpenTelemetry project's OpAMP library.
#[derive(Debug, Parser)]
struct Arguments {
    /// The other server's program; compare.sh names it.
    #[arg(long)]
    program: Option<PathBuf>,
    /// How many agents; each needs a file in the server and one in the simulator.
    #[arg(long, default_value_t = 9_000)]
    agents: usize,
    /// How large their configuration is, in KiB.
    #[arg(long, default_value_t = 16)]
    config_kib: usize,
    /// How often each push is repeated; the middle one counts.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Says that this is a benchmark's run (cargo gives it); without it nothing is measured.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one server needed; times in seconds, memory in KiB.
#[derive(Default)]
struct Measured {
    empty: f64,
    per_agent: f64,
    connect: f64,
    push_memory: f64,
    first_receipt: f64,
    last_applied: f64,
    processor: f64,
    large: Large,
    large_with_deaf: Large,
}

/// What [`LARGE_PUSHES`] pushes of a large configuration needed; in the same units.
#[derive(Default)]
struct Large {
    memory: f64,
    /// Until the last of those who read had it; `None`: not within [`PATIENCE`].
    middle: Option<f64>,
    slowest: Option<f64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(program) = arguments.program.as_ref().filter(|_| arguments.bench) else {
        println!("a benchmark: run it with benches/reference-server/compare.sh");
        return ExitCode::SUCCESS;
    };
    let run = || {
        Ok::<_, Failure>([
            measure(&arguments, "gitamp", &|kib| Ok(Box::new(Gitamp::start(kib)?)))?,
            measure(&arguments, "reference", &|kib| Ok(Box::new(Reference::start(program, &[], kib)?)))?,
            measure(&arguments, "reference, in turn", &|kib| {
                Ok(Box::new(Reference::start(program, &["-in-turn"], kib)?))
            })?,
        ])
    };
    match run() {
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

/// Starts a server with configurations of so many KiB.
type Start<'s> = dyn Fn(usize) -> Result<Box<dyn Pusher>, Failure> + 's;

/// Everything about one server.
fn measure(arguments: &Arguments, name: &str, start: &Start<'_>) -> Result<Measured, Failure> {
    let mut measured = Measured::default();
    eprintln!("{name}: a fleet that reads");
    hearing(arguments, start, &mut measured)?;
    eprintln!("{name}: large configurations");
    measured.large = large(arguments, start, 0)?;
    eprintln!("{name}: large configurations, and a tenth that never reads");
    measured.large_with_deaf = large(arguments, start, 10)?;
    Ok(measured)
}

fn hearing(arguments: &Arguments, start: &Start<'_>, measured: &mut Measured) -> Result<(), Failure> {
    let mut pusher = start(arguments.config_kib)?;
    let count = arguments.agents;
    pusher.push()?;
    let empty = pusher.process().settled_kib()?;
    let clock = Instant::now();
    let mut agents = Agents::start(&pusher.url(), count, ATTRIBUTES, &[])?;
    agents.wait("all run the first configuration", BOUND, |told| told.run_newest() == count)?;
    measured.connect = clock.elapsed().as_secs_f64();
    pusher.wait_steady(count)?;
    let full = pusher.process().settled_kib()?;
    measured.empty = empty as f64;
    measured.per_agent = (full as f64 - empty as f64) / count as f64;
    let mut runs: [Vec<f64>; 4] = Default::default();
    for _ in 0..arguments.repeat.max(1) {
        let before = pusher.process().settled_kib()?;
        pusher.process().forget_peak()?;
        let processor = pusher.process().cpu_seconds()?;
        let last = agents.told().newest().map(|config| config.hash.clone());
        let pushed = pusher.push()?;
        let told = agents.wait("all run the new configuration", BOUND, |told| {
            told.newest().is_some_and(|config| Some(&config.hash) != last.as_ref() && config.applied == count)
        })?;
        pusher.wait_steady(count)?;
        let arrival = told.arrival().ok_or("the fleet told no times")?;
        let extra = pusher.process().peak_kib()?.saturating_sub(before) as f64;
        let numbers = [
            extra,
            ((arrival.first_receipt - pushed) / 1_000.0).max(0.001),
            (arrival.last_applied - pushed) / 1_000.0,
            pusher.process().cpu_seconds()? - processor,
        ];
        runs.iter_mut().zip(numbers).for_each(|(run, number)| run.push(number));
    }
    let [memory, first, last, processor] = runs.map(middle);
    (measured.push_memory, measured.first_receipt) = (memory, first);
    (measured.last_applied, measured.processor) = (last, processor);
    Ok(())
}

/// Pushes large configurations while so many percent of the agents read nothing but the first answer.
fn large(arguments: &Arguments, start: &Start<'_>, deaf: usize) -> Result<Large, Failure> {
    let mut pusher = start(large_kib(arguments))?;
    let count = large_fleet(arguments);
    let hearing = count - (count * deaf).div_ceil(100);
    pusher.push()?;
    let mut agents = Agents::start(&pusher.url(), count, ATTRIBUTES, &["--deaf", &format!("{deaf}%")])?;
    agents.wait("all are connected", BOUND, |told| told.connected == count)?;
    agents.wait("those who read run the first configuration", BOUND, |told| told.run_newest() >= hearing)?;
    let before = pusher.process().settled_kib()?;
    pusher.process().forget_peak()?;
    let mut times = Vec::new();
    // More than the sockets hold that nobody reads: what a server cannot send, it has to keep, or to wait for.
    for _ in 0..LARGE_PUSHES {
        std::thread::sleep(BETWEEN_LARGE_PUSHES);
        let last = agents.told().newest().map(|config| config.hash.clone());
        let pushed = pusher.push()?;
        let told = agents.wait("those who read run the new configuration", PATIENCE, |told| {
            told.newest().is_some_and(|config| Some(&config.hash) != last.as_ref() && config.applied >= hearing)
        });
        let Ok(told) = told else { break };
        let arrival = told.arrival().ok_or("the fleet told no times")?;
        times.push((arrival.last_applied - pushed) / 1_000.0);
    }
    let memory = pusher.process().peak_kib()?.saturating_sub(before) as f64;
    if times.len() < LARGE_PUSHES {
        return Ok(Large { memory, ..Large::default() });
    }
    let slowest = times.iter().copied().reduce(f64::max);
    Ok(Large { memory, middle: Some(middle(times)), slowest })
}

/// Of sixteen times the usual size these are more than the buffers of a connection take that nobody reads.
const LARGE_PUSHES: usize = 30;

/// Longer than gitamp pauses between two looks at its repository, which is not what is measured here.
const BETWEEN_LARGE_PUSHES: Duration = Duration::from_millis(1_200);

/// What the kernel's buffers take, some megabytes a connection, has to be filled by large configurations...
fn large_kib(arguments: &Arguments) -> usize {
    (arguments.config_kib * 16).min(400)
}

/// ... and so the fleet has to be small.
fn large_fleet(arguments: &Arguments) -> usize {
    (arguments.agents / 10).max(20)
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Which of the fleets of a measurement is meant.
type Pick = fn(&Measured) -> &Large;

fn report(arguments: &Arguments, [ours, all, turn]: &[Measured; 3]) {
    println!(
        "\n{} agents, {ATTRIBUTES} attributes each, a configuration of {} KiB\n",
        arguments.agents, arguments.config_kib
    );
    println!("| what | gitamp | reference, all at the same time | ratio | reference, in turn | ratio |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let row = |what: &str, unit: &str, of: &dyn Fn(&Measured) -> Option<f64>| {
        let text = |value: Option<f64>| {
            value.map_or(format!("not in {} s", PATIENCE.as_secs()), |value| format!("{value:.3} {unit}"))
        };
        let ratio = |other: Option<f64>| match (of(ours), other) {
            (Some(ours), Some(other)) if other > 0.0 => format!("{:.2}", ours / other),
            (Some(_) | None, Some(_) | None) => String::new(),
        };
        let (all, turn) = (of(all), of(turn));
        println!("| {what} | {} | {} | {} | {} | {} |", text(of(ours)), text(all), ratio(all), text(turn), ratio(turn));
    };
    row("server without agents", "MiB", &|measured| Some(measured.empty / 1_024.0));
    row("memory per agent", "KiB", &|measured| Some(measured.per_agent));
    row("start of the fleet to all run their first configuration", "s", &|measured| Some(measured.connect));
    row("a push: extra memory", "MiB", &|measured| Some(measured.push_memory / 1_024.0));
    row("a push: until the first has it", "s", &|measured| Some(measured.first_receipt));
    row("a push: until the last APPLIED", "s", &|measured| Some(measured.last_applied));
    row("a push: processor time of the server", "s", &|measured| Some(measured.processor));
    let pushes = format!("{LARGE_PUSHES} pushes of {} KiB to {}", large_kib(arguments), large_fleet(arguments));
    let cases: [(&str, Pick); 2] =
        [("", |measured| &measured.large), (", a tenth deaf", |measured| &measured.large_with_deaf)];
    for (whom, large) in cases {
        let last = format!("{pushes}{whom}: until the last reader's APPLIED");
        row(&format!("{last}, median"), "s", &|measured| large(measured).middle);
        row(&format!("{last}, slowest"), "s", &|measured| large(measured).slowest);
        row(&format!("{pushes}{whom}: extra memory"), "MiB", &|measured| Some(large(measured).memory / 1_024.0));
    }
}
