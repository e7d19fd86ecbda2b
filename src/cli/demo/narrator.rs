//! Tells the demo: headings, files, and how far a change has come; with colours and motion on a terminal, as plain lines
//! elsewhere.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::Duration;

use owo_colors::OwoColorize;

use crate::cli::{Failure, print};
use crate::view::{FleetStatus, GroupStatus, Phase};

/// Lines of a note that are shown.
const NOTE_LINES: usize = 40;

/// How wide a bar is, in characters.
const BAR: usize = 30;

/// Tells the demo.
pub(super) struct Narrator {
    fast: bool,
    moving: bool,
    chapter: Cell<u32>,
}

impl Narrator {
    /// Reads off whether somebody watches on a terminal.
    pub(super) fn new(fast: bool) -> Self {
        Self { fast, moving: std::io::stdout().is_terminal(), chapter: Cell::new(1) }
    }

    /// The next chapter begins.
    pub(super) fn heading(&self, text: &str) -> Result<(), Failure> {
        let chapter = self.chapter.replace(self.chapter.get() + 1);
        print(&format!("\n{}\n\n", format!("{chapter}. {text}").bold().cyan()))
    }

    /// A line of prose.
    pub(super) fn say(&self, text: &str) -> Result<(), Failure> {
        print(&format!("{text}\n"))
    }

    /// It went as it should.
    pub(super) fn good(&self, text: &str) -> Result<(), Failure> {
        print(&format!("\n{}\n", text.green()))
    }

    /// It went as it should not have.
    pub(super) fn bad(&self, text: &str) -> Result<(), Failure> {
        print(&format!("\n{}\n", text.red()))
    }

    /// What a person would have typed.
    pub(super) fn command(&self, text: &str) -> Result<(), Failure> {
        print(&format!("  {} {}\n", "$".dimmed(), text.bold()))
    }

    /// A list of files.
    pub(super) fn files(&self, paths: &[&str]) -> Result<(), Failure> {
        let list: String = paths.iter().map(|path| format!("  {path}\n")).collect();
        print(&list)
    }

    /// A file's content.
    pub(super) fn file(&self, path: &str, text: &str) -> Result<(), Failure> {
        let lines: String = text.lines().map(|line| format!("  {} {line}\n", "|".dimmed())).collect();
        print(&format!("\n  {}\n{lines}", path.bold()))
    }

    /// The changed lines of a commit.
    pub(super) fn difference(&self, lines: &[String]) -> Result<(), Failure> {
        let shown: String = lines
            .iter()
            .map(|line| match line.as_bytes().first() {
                Some(b'+') => format!("  {}\n", line.green()),
                Some(b'-') => format!("  {}\n", line.red()),
                Some(_) | None => format!("  {line}\n"),
            })
            .collect();
        print(&format!("{shown}\n"))
    }

    /// A note, cut when it is long.
    pub(super) fn note(&self, note: &str) -> Result<(), Failure> {
        let mut shown: String =
            note.lines().take(NOTE_LINES).map(|line| format!("  {} {line}\n", "|".dimmed())).collect();
        let more = note.lines().count().saturating_sub(NOTE_LINES);
        if more > 0 {
            shown.push_str(&format!("  {} {more} more lines\n", "|".dimmed()));
        }
        print(&shown)
    }

    /// Time to read what stands there.
    pub(super) async fn pause(&self, seconds: u64) {
        if !self.fast {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }
}

/// How far a change has come, one line a group: redrawn in place on a terminal, else a new set of lines now and then.
pub(super) struct Progress<'a> {
    narrator: &'a Narrator,
    drawn: Vec<String>,
}

impl<'a> Progress<'a> {
    /// Nothing is drawn yet.
    pub(super) fn new(narrator: &'a Narrator) -> Self {
        Self { narrator, drawn: Vec::new() }
    }

    /// How often something may be drawn.
    pub(super) fn pace(&self) -> Duration {
        Duration::from_millis(if self.narrator.moving { 100 } else { 2_000 })
    }

    /// Draws what changed.
    pub(super) fn draw(&mut self, status: &FleetStatus) -> Result<(), Failure> {
        let lines: Vec<String> = status.groups.iter().map(line).collect();
        if lines == self.drawn {
            return Ok(());
        }
        let mut text = String::new();
        if self.narrator.moving && !self.drawn.is_empty() {
            text.push_str(&format!("\x1b[{}A", self.drawn.len()));
        }
        for line in &lines {
            text.push_str(if self.narrator.moving { "\x1b[2K" } else { "" });
            text.push_str(line);
            text.push('\n');
        }
        if !self.narrator.moving && lines.len() > 1 && !self.drawn.is_empty() {
            text.insert(0, '\n');
        }
        self.drawn = lines;
        print(&text)
    }
}

fn line(group: &GroupStatus) -> String {
    let counts = group.counts;
    let cells = |agents: usize| (agents * BAR).div_ceil(counts.selected.max(1)).min(BAR);
    let failed = cells(counts.failed);
    let done = cells(counts.confirmed).min(BAR - failed);
    let trying = cells(counts.offered).min(BAR - failed - done);
    let rest = BAR - failed - done - trying;
    let bar = format!(
        "{}{}{}{}",
        "█".repeat(done).green(),
        "▒".repeat(trying).yellow(),
        "█".repeat(failed).red(),
        "░".repeat(rest).dimmed()
    );
    let mut text = format!("  {:<16} {bar} {:>4}/{} run it", group.name, counts.confirmed, counts.selected);
    for (agents, what) in [(counts.offered, "trying"), (counts.failed, "failed"), (counts.pending, "to come")] {
        if agents > 0 {
            text.push_str(&format!(", {agents} {what}"));
        }
    }
    match &group.stage {
        Some(stage) if group.phase != Phase::Steady => text.push_str(&format!("  ({}, stage {stage})", group.phase)),
        None if group.phase != Phase::Steady => text.push_str(&format!("  ({})", group.phase)),
        Some(_) | None => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Counts;

    #[test]
    fn bars_are_always_of_one_width() {
        for (selected, confirmed, offered, failed) in [
            (0, 0, 0, 0),
            (20, 0, 0, 0),
            (20, 20, 0, 0),
            (20, 7, 4, 1),
            (3, 1, 1, 1),
            (5_000, 4_999, 1, 0),
            (7, 7, 7, 7),
        ] {
            let counts = Counts { selected, confirmed, offered, failed, ..Counts::default() };
            let group = GroupStatus {
                name: "prod/gateways".to_owned(),
                phase: Phase::Rolling,
                counts,
                ..GroupStatus::default()
            };
            let text = anstream::adapter::strip_str(&line(&group)).to_string();
            let cells = text.chars().filter(|letter| "█▒░".contains(*letter)).count();
            assert_eq!(cells, BAR, "{counts:?}: {text}");
        }
    }
}
