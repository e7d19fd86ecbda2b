//! What is measured, and how.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::agents::Agents;
use crate::repository::FleetRepository;
use crate::server::{CERTIFICATES, Places, Server};
use crate::{Arguments, Failure, Measured, Scenario};

/// Longer than anything takes that works.
const BOUND: Duration = Duration::from_secs(180);

/// A quiet time in which a server that wants to send something has sent it.
const QUIET: Duration = Duration::from_secs(5);

/// Runs all scenarios that were asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<Vec<Measured>, Failure> {
    let wanted = |scenario| arguments.only.is_empty() || arguments.only.contains(&scenario);
    let mut measured = Vec::new();
    let mut site = Site::open(arguments, &[])?;
    measured.extend(site.connect(arguments.agents, arguments.tls)?);
    if wanted(Scenario::Push) {
        // Half of the time over TLS goes into enciphering, most of that for the simulated agents: it has no bound of its own there.
        let quick = if arguments.tls { None } else { Some(0.8) };
        for (share, keys, bounds) in [
            ("100%", PUSH_KEYS[0], [None, quick, Some(2.0), None, Some(90.0), None, None]),
            ("20%", PUSH_KEYS[1], [None, None, None, None, None, None, None]),
        ] {
            measured.extend(site.pushes(arguments, share, keys, bounds)?);
        }
    }
    if wanted(Scenario::Restart) {
        let (restarted, numbers) = site.restart(arguments.agents)?;
        site = restarted;
        measured.extend(numbers);
    }
    site.agents.check()?;
    drop(site);
    if wanted(Scenario::Deaf) {
        measured.extend(deaf(arguments)?);
    }
    Ok(measured)
}

const PUSH_KEYS: [[&str; 7]; 2] = [
    [
        "push100_to_first",
        "push100_first_to_last",
        "push100_to_last_confirmed",
        "push100_to_steady",
        "push100_memory",
        "push100_server_cpu",
        "push100_agents_cpu",
    ],
    [
        "push20_to_first",
        "push20_first_to_last",
        "push20_to_last_confirmed",
        "push20_to_steady",
        "push20_memory",
        "push20_server_cpu",
        "push20_agents_cpu",
    ],
];

/// A repository, a server, and a fleet.
struct Site {
    repository: FleetRepository,
    server: Server,
    agents: Agents,
    /// The server's memory before the first agent.
    empty_kib: u64,
    started: Instant,
    _directory: TempDir,
}

impl Site {
    fn open(arguments: &Arguments, more: &[&str]) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let mut repository = FleetRepository::create(&directory.path().join("fleet"), arguments.config_kib * 1024)?;
        repository.commit("100%")?;
        let places = Places::choose(directory.path(), repository.path(), arguments.tls)?;
        let url = places.agents_url();
        let server = Server::start(places)?;
        let empty_kib = server.process.settled_kib()?;
        let started = Instant::now();
        let known_by: &[&str] = if arguments.tls { &["--ca-file", CERTIFICATES[0]] } else { &[] };
        let agents = Agents::start(&url, arguments.agents, arguments.attributes, &[more, known_by].concat())?;
        Ok(Self { repository, server, agents, empty_kib, started, _directory: directory })
    }

    /// Waits until everybody is there and has the first configuration.
    fn connect(&mut self, count: usize, is_encrypted: bool) -> Result<Vec<Measured>, Failure> {
        self.agents.wait("all are connected", BOUND, |told| told.connected == count)?;
        let connected = self.started.elapsed().as_secs_f64();
        self.agents.wait("all run the first configuration", BOUND, |told| told.applied == count)?;
        let applied = self.started.elapsed().as_secs_f64();
        self.server.wait_steady(None, count, BOUND)?;
        let resident = self.server.process.settled_kib()?;
        let peak = self.server.process.peak_kib()?;
        let agent_kib = self.agents.process.resident_kib()? as f64 / count as f64;
        eprintln!("{count} agents are there");
        Ok(vec![
            number("connect", "start of the fleet to all connected", connected, "s", None),
            number("connect_applied", "... to all run their first configuration", applied, "s", None),
            number("memory_empty", "server without agents", self.empty_kib as f64 / 1024.0, "MiB", None),
            number("memory_full", "server with all agents", resident as f64 / 1024.0, "MiB", None),
            number("memory_peak", "most while they connected", peak as f64 / 1024.0, "MiB", None),
            number(
                "memory_agent",
                "server's memory per agent",
                (resident as f64 - self.empty_kib as f64) / count as f64,
                "KiB",
                Some(if is_encrypted { 24.0 } else { 15.0 }),
            ),
            number("memory_simulated", "simulator's memory per agent", agent_kib, "KiB", None),
        ])
    }

    /// Commits a few times and takes the middle of each number.
    fn pushes(
        &mut self,
        arguments: &Arguments,
        share: &str,
        keys: [&'static str; 7],
        bounds: [Option<f64>; 7],
    ) -> Result<Vec<Measured>, Failure> {
        let mut runs: Vec<[f64; 7]> = Vec::new();
        for _ in 0..arguments.repeat.max(1) {
            runs.push(self.push(arguments.agents, share)?);
        }
        let names = [
            "commit to first receipt",
            "first to last receipt",
            "commit to last confirmed",
            "commit to steady, as the server shows it",
            "server's extra memory meanwhile",
            "server's processor time",
            "simulator's processor time",
        ];
        let units = ["s", "s", "s", "s", "MiB", "s", "s"];
        Ok((0..keys.len())
            .map(|index| {
                let mut values: Vec<f64> = runs.iter().map(|run| run[index]).collect();
                values.sort_by(f64::total_cmp);
                let middle = values[values.len() / 2];
                let spread = match (values.first(), values.last()) {
                    (Some(least), Some(most)) if values.len() > 1 => {
                        format!(" ({} to {})", crate::round(*least), crate::round(*most))
                    }
                    _ => String::new(),
                };
                number(
                    keys[index],
                    &format!("maxUnavailable {share}: {}{spread}", names[index]),
                    middle,
                    units[index],
                    bounds[index],
                )
            })
            .collect())
    }

    fn push(&mut self, count: usize, share: &str) -> Result<[f64; 7], Failure> {
        let before = self.server.process.settled_kib()?;
        self.server.process.forget_peak()?;
        let (server_cpu, agents_cpu) = (self.server.process.cpu_seconds()?, self.agents.process.cpu_seconds()?);
        let last = self.agents.told().newest().map(|config| config.hash.clone());
        let committed = self.repository.commit(share)?;
        let clock = Instant::now();
        let told = self.agents.wait("all run the new configuration", BOUND, |told| {
            told.newest().is_some_and(|config| Some(&config.hash) != last.as_ref() && config.applied == count)
        })?;
        let hash = told.newest().map(|config| config.hash.clone());
        self.server.wait_steady(hash.as_deref(), count, BOUND)?;
        let steady = clock.elapsed().as_secs_f64();
        let peak = self.server.process.peak_kib()?;
        let arrival = told.arrival().ok_or("the fleet told no times")?;
        let extra = peak.saturating_sub(before) as f64 / 1024.0;
        eprintln!(
            "a push with {share}: {:.3} s from first to last",
            (arrival.last_receipt - arrival.first_receipt) / 1_000.0
        );
        Ok([
            (arrival.first_receipt - committed) / 1_000.0,
            (arrival.last_receipt - arrival.first_receipt) / 1_000.0,
            (arrival.last_applied - committed) / 1_000.0,
            steady,
            extra,
            self.server.process.cpu_seconds()? - server_cpu,
            self.agents.process.cpu_seconds()? - agents_cpu,
        ])
    }

    /// Kills the server, starts it again, and counts what the agents are offered: nothing.
    fn restart(self, count: usize) -> Result<(Self, Vec<Measured>), Failure> {
        let Self { repository, server, mut agents, empty_kib, started, _directory } = self;
        let before = agents.told();
        let clock = Instant::now();
        let mut server = server.restart()?;
        let ready = clock.elapsed().as_secs_f64();
        let back = before.connects + count as u64;
        agents.wait("all are back", BOUND, |told| told.connected == count && told.connects >= back)?;
        let connected = clock.elapsed().as_secs_f64();
        server.wait_steady(None, count, BOUND)?;
        let steady = clock.elapsed().as_secs_f64();
        std::thread::sleep(QUIET);
        let after = agents.told();
        let offers = after.offers.saturating_sub(before.offers);
        eprintln!(
            "restarted: {offers} offers, {} turned away while it was gone, {} lost",
            after.refused - before.refused,
            after.lost - before.lost
        );
        let numbers = vec![
            number("restart_ready", "kill -9 to ready", ready, "s", None),
            number("restart_connected", "kill -9 to all connected again", connected, "s", None),
            number("restart_steady", "kill -9 to steady, as the server shows it", steady, "s", None),
            number("restart_offers", "offers after the restart", offers as f64, "", Some(0.0)),
        ];
        Ok((Self { repository, server, agents, empty_kib, started, _directory }, numbers))
    }
}

/// A push while a tenth of the agents does not read.
fn deaf(arguments: &Arguments) -> Result<Vec<Measured>, Failure> {
    let mut site = Site::open(arguments, &["--deaf", "10%"])?;
    let count = arguments.agents;
    let hearing = count - count.div_ceil(10);
    site.agents.wait("all are connected", BOUND, |told| told.connected == count)?;
    site.agents.wait("those who read run the first configuration", BOUND, |told| told.run_newest() >= hearing)?;
    let mut slowest = [0.0_f64; 2];
    let before = site.server.process.settled_kib()?;
    site.server.process.forget_peak()?;
    for _ in 0..arguments.repeat.max(1) {
        let last = site.agents.told().newest().map(|config| config.hash.clone());
        let committed = site.repository.commit("100%")?;
        let told = site.agents.wait("those who read run the new configuration", BOUND, |told| {
            told.newest().is_some_and(|config| Some(&config.hash) != last.as_ref() && config.applied >= hearing)
        })?;
        site.server.check()?;
        let arrival = told.arrival().ok_or("the fleet told no times")?;
        slowest[0] = slowest[0].max((arrival.last_receipt - arrival.first_receipt) / 1_000.0);
        slowest[1] = slowest[1].max((arrival.last_applied - committed) / 1_000.0);
        std::thread::sleep(QUIET);
    }
    let peak = site.server.process.peak_kib()?;
    site.agents.check()?;
    eprintln!("deaf agents held nobody up");
    Ok(vec![
        number(
            "deaf_first_to_last",
            "a tenth deaf: first to last receipt of the others, slowest",
            slowest[0],
            "s",
            None,
        ),
        number(
            "deaf_to_last_confirmed",
            "a tenth deaf: commit to last confirmed of the others, slowest",
            slowest[1],
            "s",
            None,
        ),
        number(
            "deaf_memory",
            "a tenth deaf: server's extra memory",
            peak.saturating_sub(before) as f64 / 1024.0,
            "MiB",
            None,
        ),
    ])
}

fn number(key: &'static str, name: &str, value: f64, unit: &'static str, bound: Option<f64>) -> Measured {
    Measured { key, name: name.to_owned(), value, unit, bound }
}
