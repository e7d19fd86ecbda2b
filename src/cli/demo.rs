//! `gitamp demo`: a commit in stages, a bad one that goes back by itself, and its revert, on a temporary repository with a simulated
//! fleet, told to a person.

mod narrator;
mod repository;
mod stage;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Failure;
use crate::view::{FleetStatus, GroupStatus, Phase};
use narrator::Narrator;
use repository::DemoRepository;
use stage::Stage;

const EXAMPLES: &str = "Examples:
  gitamp demo                  about a minute; nothing on this machine is touched
  gitamp demo --fast           without the pauses for reading
  gitamp demo --keep           keeps the repository, to look into it with Git afterwards";

/// Watch a fleet follow a Git repository: a commit in stages, a bad one, and git revert
///
/// Everything happens in a temporary directory, with simulated agents, on ports of this machine that are free.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Do not wait for a reader
    #[arg(long)]
    fast: bool,
    /// Keep the directory with the repository and the daemon's state
    #[arg(long)]
    keep: bool,
    /// How many agents: 12 to 5000
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(12..=5_000))]
    agents: u32,
}

/// Nothing in the demo takes longer, unless it went wrong.
const BOUND: Duration = Duration::from_secs(120);

/// The group that gets the bad configuration.
const VICTIM: &str = "prod/gateways";

impl Arguments {
    /// Plays the demo.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let directory = tempfile::Builder::new().prefix("gitamp-demo-").tempdir()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let played = runtime.block_on(self.play(directory.path()));
        runtime.shutdown_timeout(Duration::from_secs(5));
        self.clean_up(directory)?;
        played
    }

    fn clean_up(&self, directory: TempDir) -> Result<(), Failure> {
        if self.keep {
            let path = directory.keep();
            return crate::cli::print(&format!("kept: {}\n", path.display()));
        }
        directory.close().map_err(|error| format!("cannot remove the demo's directory: {error}").into())
    }

    /// Whatever happens, what was started is ended.
    async fn play(&self, directory: &Path) -> Result<ExitCode, Failure> {
        let narrator = Narrator::new(self.fast);
        let mut repository = DemoRepository::create(&directory.join("fleet"))?;
        let interrupted = interrupted()?;
        tokio::pin!(interrupted);
        tokio::select! {
            introduced = introduce(&narrator, &repository) => introduced?,
            code = &mut interrupted => return Ok(code),
        }
        let stage = Stage::open(&repository, directory, self.agents, self.fast).await?;
        let told = tokio::select! {
            told = story(&narrator, &mut repository, &stage) => told.map(|()| ExitCode::SUCCESS),
            code = &mut interrupted => Ok(code),
        };
        let closed = stage.close().await;
        let code = told?;
        closed?;
        if code == ExitCode::SUCCESS {
            farewell(&narrator)?;
        }
        Ok(code)
    }
}

/// The exit code for the signal that ends the demo early.
fn interrupted() -> std::io::Result<impl Future<Output = ExitCode>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => ExitCode::from(130),
            _ = terminate.recv() => ExitCode::from(143),
        }
    })
}

async fn introduce(narrator: &Narrator, repository: &DemoRepository) -> Result<(), Failure> {
    narrator.heading("A fleet repository")?;
    narrator
        .say("A directory with a group.yaml is a group: it says which agents belong to it, and how changes arrive.")?;
    narrator.say("The other YAML files are ordinary collector configuration, merged in order.\n")?;
    narrator.files(&repository.files())?;
    narrator.file(&format!("{VICTIM}/group.yaml"), repository.text(&format!("{VICTIM}/group.yaml")))?;
    narrator.pause(6).await;
    Ok(())
}

async fn story(narrator: &Narrator, repository: &mut DemoRepository, stage: &Stage) -> Result<(), Failure> {
    arrive(narrator, repository, stage).await?;
    good_commit(narrator, repository, stage).await?;
    let bad = bad_commit(narrator, repository, stage).await?;
    revert(narrator, repository, stage, &bad).await?;
    note(narrator, repository, &bad).await
}

/// The fleet connects and takes its first configuration.
async fn arrive(narrator: &Narrator, repository: &DemoRepository, stage: &Stage) -> Result<(), Failure> {
    narrator.heading("The daemon follows it, and agents connect")?;
    narrator.command(&format!("gitamp serve --repo {}", repository.path().display()))?;
    narrator.say(&format!(
        "{} simulated agents speak OpAMP to it, in three zones. They have no configuration yet; each group rolls out its first.\n",
        stage.agents()
    ))?;
    let head = repository.head()?;
    let everybody = stage.agents();
    stage
        .watch(narrator, BOUND, |status| follows(status, &head) && all_steady(status) && confirmed(status) == everybody)
        .await?;
    narrator.good("Every agent runs what the repository says.")?;
    narrator.pause(3).await;
    Ok(())
}

/// A change of a layer that all groups share.
async fn good_commit(narrator: &Narrator, repository: &mut DemoRepository, stage: &Stage) -> Result<(), Failure> {
    narrator.heading("A commit reaches the fleet")?;
    narrator.say("All groups share one layer. Somebody makes its batches larger:\n")?;
    let before = stage.status().await?;
    let commit = repository.enlarge_batches()?;
    narrator.difference(&repository.difference()?)?;
    narrator.command("git commit -am 'Send larger batches'")?;
    narrator.say("\nIn production one agent of each zone is first: the canaries (spreadBy, stages). They are watched for a while (soak);")?;
    narrator.say("then the others follow, at most 25 % of them at a time (maxUnavailable):\n")?;
    stage
        .watch(narrator, BOUND, |status| {
            follows(status, &commit)
                && all_steady(status)
                && status.groups.iter().all(|group| group.wanted != wanted(&before, &group.name))
        })
        .await?;
    narrator.good("Every agent runs the new configuration.")?;
    narrator.pause(3).await;
    Ok(())
}

/// A change that no collector can run.
async fn bad_commit(narrator: &Narrator, repository: &mut DemoRepository, stage: &Stage) -> Result<String, Failure> {
    narrator.heading("A bad commit is stopped at the canaries, and goes back by itself")?;
    narrator
        .say(&format!("Somebody mistypes the exporter of {VICTIM}. The YAML is fine; only a collector can tell:\n"))?;
    let commit = repository.mistype_exporter()?;
    narrator.difference(&repository.difference()?)?;
    narrator.command("git commit -am 'Send to the new backend'")?;
    narrator.say("")?;
    let status = stage
        .watch(narrator, BOUND, |status| {
            follows(status, &commit) && victim(status).is_some_and(|group| group.phase == Phase::RolledBack)
        })
        .await?;
    let group = victim(&status).ok_or("the group is gone")?;
    let failed: usize = group.failures.iter().map(|failure| failure.count).sum();
    narrator.bad(&format!(
        "{failed} of {} could not use it. Nobody but the canaries was offered it, and they have what they had before.",
        group.counts.selected
    ))?;
    for failure in &group.failures {
        narrator.say(&format!("  {} x {}", failure.count, failure.message))?;
        narrator.say(&format!("      for example {}", failure.example))?;
    }
    for waiting in &group.waiting_on {
        narrator.say(&format!("  {}: {}", waiting.reason, waiting.message))?;
    }
    narrator.pause(8).await;
    Ok(commit)
}

/// Git follows the fleet.
async fn revert(narrator: &Narrator, repository: &mut DemoRepository, stage: &Stage, bad: &str) -> Result<(), Failure> {
    narrator.heading("git revert brings Git into line")?;
    narrator.say("Git still says what the fleet cannot run, and the status says so until somebody decides:\n")?;
    narrator.command(&format!("git revert --no-edit {}", bad.get(..10).unwrap_or(bad)))?;
    narrator.say("")?;
    let before = stage.offers();
    let commit = repository.revert_head()?;
    let everybody = stage.agents();
    stage
        .watch(narrator, BOUND, |status| {
            follows(status, &commit) && all_steady(status) && confirmed(status) == everybody
        })
        .await?;
    narrator.good(&match stage.offers() - before {
        0 => "Git and the fleet say the same again, and nobody had to be sent anything.".to_owned(),
        offers => format!("Git and the fleet say the same again; {offers} offers were sent."),
    })?;
    narrator.pause(3).await;
    Ok(())
}

/// What the journal says about the bad commit.
async fn note(narrator: &Narrator, repository: &DemoRepository, bad: &str) -> Result<(), Failure> {
    narrator.heading("Git remembers what became of it")?;
    narrator.say("The daemon wrote a note on each commit, and pushed it to the repository:\n")?;
    narrator.command(&format!("git notes --ref gitamp/default show {}", bad.get(..10).unwrap_or(bad)))?;
    let end = tokio::time::Instant::now() + BOUND;
    let note = loop {
        match repository.note(bad)? {
            Some(note) if note.contains("ending: rolled-back") => break note,
            Some(_) | None if tokio::time::Instant::now() < end => tokio::time::sleep(Duration::from_millis(100)).await,
            Some(note) => {
                return Err(format!("the note on the bad commit does not say that it was rolled back:\n{note}").into());
            }
            None => return Err("no note on the bad commit was pushed".into()),
        }
    };
    narrator.note(&note)?;
    narrator.pause(6).await;
    Ok(())
}

fn farewell(narrator: &Narrator) -> Result<(), Failure> {
    narrator.heading("On your own repository")?;
    for line in [
        "  gitamp check DIR                              what is wrong with a fleet repository, with the lines",
        "  gitamp serve --repo DIR-OR-URL                follow it; agents connect to port 4320, path /v1/opamp",
        "  gitamp serve --repo DIR-OR-URL --observe      the same, but nothing is offered to anybody",
        "  gitamp simulate --agents 20 --attr env=prod   agents to try it with",
        "  gitamp status --watch                         what the groups are doing, and what they wait for",
    ] {
        narrator.say(line)?;
    }
    narrator.say("\nThe README walks through examples/fleet, a fleet with three environments.")
}

/// True when the daemon has read this commit.
fn follows(status: &FleetStatus, commit: &str) -> bool {
    status.sync.revision.as_ref().is_some_and(|revision| revision.ends_with(commit))
        && status.groups.iter().all(|group| group.revision.as_ref().is_some_and(|revision| revision.ends_with(commit)))
}

fn all_steady(status: &FleetStatus) -> bool {
    status.groups.len() == repository::GROUPS && status.groups.iter().all(|group| group.phase == Phase::Steady)
}

fn confirmed(status: &FleetStatus) -> usize {
    status.groups.iter().map(|group| group.counts.confirmed).sum()
}

fn victim(status: &FleetStatus) -> Option<&GroupStatus> {
    status.groups.iter().find(|group| group.name == VICTIM)
}

fn wanted(status: &FleetStatus, name: &str) -> Option<String> {
    status.groups.iter().find(|group| group.name == name)?.wanted.clone()
}
