//! Everything of the core joined, driven by chance from a seed, with invariants after each step.
//!
//! A failing seed is printed with the last lines of its story and replays, with all of it, by
//! `GITAMP_SEED=<seed> cargo test --test simulation`. `GITAMP_SEEDS=<count>` runs more of them, `GITAMP_FIRST_SEED=<seed>` begins
//! elsewhere, `GITAMP_STEPS=<count>` makes the stories shorter or longer, `GITAMP_UNTIL_FAILURE=1` stops at the first that fails.
//! docs/proof.md tells what is proven, and how.

mod budget;
mod changes;
mod judge;
mod orders;
mod outcomes;
mod recall;
mod settle;
mod stages;
mod story;
mod surprises;
#[path = "../world/mod.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use story::Story;

/// Seeds of an ordinary run.
const SEEDS: u64 = 30;

/// Steps of a story.
const STEPS: u64 = 200;

/// Lines that are shown of the story of a failing seed.
const STORY: usize = 120;

/// Seeds that fail and are told about one by one.
const MOST_TOLD: usize = 40;

/// What happened in the stories of several seeds.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    steps: u64,
    offers: usize,
    /// Of these: their budget was judged to the agent.
    exact: usize,
    restarts: usize,
}

/// Lives one seed's story to its end. `keeps_story`: a failure is told with every line of it.
fn run(seed: u64, steps: u64, keeps_story: bool) -> Result<Extent, String> {
    let mut story = Story::new(seed, keeps_story);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        story.live(steps);
        story.settle();
    }));
    let judge = &story.world.observer;
    match outcome {
        Ok(()) => Ok(Extent { steps, offers: judge.offers, exact: judge.exact, restarts: story.restarts }),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            let lines = judge.story.as_ref().map(|lines| lines.join("\n")).unwrap_or_default();
            Err(format!("seed {seed}: {}\n{lines}", words.unwrap_or_default()))
        }
    }
}

/// The failing seeds in their order, each with its first line, and what happened in all the others.
fn run_all(first: u64, count: u64, steps: u64, until_failure: bool) -> (Vec<(u64, String)>, Extent) {
    let next = AtomicU64::new(first);
    let (failed, extent) = (Mutex::new(Vec::new()), Mutex::new(Extent::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_enough = until_failure && !failed.lock().expect("no panic while it is locked").is_empty();
            if seed >= first + count || is_enough {
                return;
            }
            match run(seed, steps, false) {
                Ok(one) => {
                    let mut all = extent.lock().expect("no panic while it is locked");
                    all.steps += one.steps;
                    all.offers += one.offers;
                    all.exact += one.exact;
                    all.restarts += one.restarts;
                }
                Err(story) => failed.lock().expect("no panic while it is locked").push((seed, story)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().expect("no panic while it was locked");
    failed.sort();
    (failed, extent.into_inner().expect("no panic while it was locked"))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a person who looks for a bug chooses the seeds")]
fn invariants_hold_in_every_story() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let steps = number("GITAMP_STEPS").unwrap_or(STEPS);
    let (first, count) = match number("GITAMP_SEED") {
        Some(seed) => (seed, 1),
        None => (number("GITAMP_FIRST_SEED").unwrap_or(1), number("GITAMP_SEEDS").unwrap_or(SEEDS)),
    };
    // What a failing story says is told once, at the end.
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (failed, extent) = run_all(first, count, steps, number("GITAMP_UNTIL_FAILURE").is_some());
    let first_story = failed.first().map(|(seed, _)| run(*seed, steps, true).err().unwrap_or_default());
    std::panic::set_hook(loud);
    println!("{first}..{}: {extent:?}, {} fail", first + count, failed.len());
    let story = first_story.unwrap_or_default();
    let lines: Vec<&str> = story.lines().collect();
    let shown = if count == 1 { 0 } else { lines.len().saturating_sub(STORY) };
    assert!(
        failed.is_empty(),
        "{} of the seeds fail:\n{}\nThe story of the first:\n{}\nReplay it with GITAMP_SEED",
        failed.len(),
        failed.iter().filter_map(|(_, story)| story.lines().next()).take(MOST_TOLD).collect::<Vec<_>>().join("\n"),
        lines[shown..].join("\n"),
    );
    assert!(extent.offers > 0, "nothing happened");
}
