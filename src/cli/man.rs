//! `gitamp man`: the manual pages, from the same words as `--help`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man;

use crate::cli::{Failure, command, print};

/// Print the manual page, or write those of all commands into a directory
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp man | man -l -\n  \
    gitamp man --directory /usr/local/share/man/man1")]
pub(super) struct Arguments {
    /// Write gitamp.1 and a page for each command into this directory, which is made if need be
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Arguments {
    /// Runs the command.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let pages = pages()?;
        match (&self.directory, pages.first()) {
            (Some(directory), _) => write(directory, &pages)?,
            (None, Some((_, program))) => print(&String::from_utf8_lossy(program))?,
            (None, None) => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write(directory: &Path, pages: &[(String, Vec<u8>)]) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| format!("cannot write {}: {error}", path.display());
    fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    for (name, text) in pages {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|error| failed(&path, error))?;
    }
    print(&format!("{} pages in {}\n", pages.len(), directory.display()))
}

/// The file names and texts of all pages, that of the program first.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    // Only the program's own arguments have their values filled in after this.
    let mut program = command().disable_help_subcommand(true);
    program.build();
    let mut pages = vec![page(&program, program.get_name())?];
    for subcommand in program.get_subcommands().filter(|one| !one.is_hide_set()) {
        pages.push(page(subcommand, &format!("{}-{}", program.get_name(), subcommand.get_name()))?);
    }
    Ok(pages)
}

fn page(command: &Command, name: &str) -> Result<(String, Vec<u8>), Failure> {
    let mut text = Vec::new();
    Man::new(command.clone()).title(name).render(&mut text)?;
    Ok((format!("{name}.1"), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_the_program_and_for_every_command_that_is_shown() {
        let pages = pages().expect("the pages");
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.first(), Some(&"gitamp.1"));
        assert!(names.contains(&"gitamp-serve.1") && names.contains(&"gitamp-rollout.1"), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("git-transport")), "hidden: {names:?}");
        let serve = pages.iter().find(|(name, _)| name == "gitamp-serve.1").expect("a page");
        let text = String::from_utf8_lossy(&serve.1);
        assert!(text.contains(".TH gitamp-serve 1") && text.contains("state\\-dir"), "{text}");
    }

    #[test]
    fn pages_are_written_into_a_directory_that_is_made() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("share/man1");
        let all = pages().expect("the pages");
        write(&directory, &all).expect("they are written");
        assert_eq!(fs::read_dir(&directory).expect("a list").count(), all.len());
        let file = home.path().join("file");
        fs::write(&file, "").expect("a file");
        let failure = write(&file.join("below"), &all).expect_err("no directory");
        assert!(failure.to_string().contains("cannot write"), "{failure}");
    }
}
