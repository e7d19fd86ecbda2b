//! `gitamp alerts`: asks the receivers of alerts whether they hear us.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::screen::{clean, clean_short};
use super::{Failure, print};
use crate::alert::post::{Post, Trouble};
use crate::clock::Clock;
use crate::settings::alerts::{AlertSettings, Receiver};
use crate::settings::{ServeArgs, alerts_of_daemon};
use crate::time::show_duration;

/// Characters of an answer that are shown.
const LONGEST_ANSWER: usize = 200;

/// Try the receivers of alerts
///
/// Alerts tell people of agents that fail, rollouts that stop or wait for too long, and a repository that cannot be followed. Who is told
/// stands under `alerts` in the daemon's settings file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp alerts test                      every receiver\n  \
    gitamp alerts test ops                  one of them\n  \
    gitamp alerts test --config gitamp.yaml settings that are not installed yet")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Test(TestArguments),
}

/// Send a message that says it is a test, and show what came back
///
/// The message goes out from here, not from the daemon: run it as the daemon's user, who may read the files with addresses and secrets.
///
/// Exit codes: 0 every receiver took it, 1 one did not, 2 there is no such receiver, or the settings cannot be used.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    gitamp alerts test\n  \
    gitamp alerts test ops\n  \
    sudo -u gitamp gitamp alerts test --config /etc/gitamp/gitamp.yaml")]
struct TestArguments {
    /// The receiver, by its name in the settings [default: all of them]
    #[arg(value_name = "RECEIVER")]
    receiver: Option<String>,
    /// The daemon's settings file [default: /etc/gitamp/gitamp.yaml, when there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why nothing is tried.
#[derive(Debug, thiserror::Error)]
enum Nobody {
    /// No alerts.
    #[error(
        "the settings tell nobody: name receivers under `alerts` in the settings file (--config, see docs/alerts.md)"
    )]
    AtAll,
    /// Not this one.
    #[error("there is no receiver `{name}`, but {known}")]
    Of {
        /// The one that was meant.
        name: String,
        /// Those that there are.
        known: String,
    },
}

impl Arguments {
    /// Runs the command.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        match &self.command {
            What::Test(arguments) => arguments.run(),
        }
    }
}

impl TestArguments {
    fn run(&self) -> Result<ExitCode, Failure> {
        let args = ServeArgs { config: self.config.clone(), ..ServeArgs::default() };
        let (instance, settings) = alerts_of_daemon(&args)?;
        let chosen = self.chosen(&settings.ok_or(Nobody::AtAll)?)?;
        let runtime = super::runtime()?;
        let is_good = runtime.block_on(async {
            let mut is_good = true;
            for receiver in chosen {
                is_good &= test(receiver, &instance).await?;
            }
            Ok::<bool, Failure>(is_good)
        })?;
        Ok(ExitCode::from(u8::from(!is_good)))
    }

    fn chosen(&self, settings: &AlertSettings) -> Result<Vec<Receiver>, Nobody> {
        let all = settings.receivers.iter();
        let Some(name) = &self.receiver else { return Ok(all.cloned().collect()) };
        let chosen: Vec<Receiver> = all.clone().filter(|receiver| receiver.name == *name).cloned().collect();
        if chosen.is_empty() {
            let known = all.map(|receiver| format!("`{}`", receiver.name)).collect::<Vec<_>>().join(", ");
            return Err(Nobody::Of { name: clean(name), known });
        }
        Ok(chosen)
    }
}

/// Tries one receiver, and prints what came of it; true when it took the message.
async fn test(receiver: Receiver, instance: &str) -> Result<bool, Failure> {
    let (name, kind) = (receiver.name.clone(), receiver.kind);
    let host = receiver.address.get().map(|url| format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()));
    let host = host.unwrap_or_else(|error| error.to_string());
    let clock = Clock::start();
    let begun = clock.now();
    let outcome = Post::new(receiver).test(instance, begun).await;
    let took = clock.now().since(begun).as_millis();
    let is_good = outcome.is_ok();
    let what = match outcome {
        Ok(taken) => {
            let said = if taken.said.is_empty() {
                String::new()
            } else {
                format!(": {}", clean_short(&taken.said, LONGEST_ANSWER))
            };
            format!("taken after {took} ms, HTTP {}{said}", taken.status)
        }
        Err(Trouble::Later(pause)) => format!("not taken: it wants no message for the next {}", show_duration(pause)),
        Err(Trouble::Failed(why) | Trouble::Doubtful(why) | Trouble::Refused(why)) => {
            format!("not taken: {}", clean_short(&why, 400))
        }
    };
    print(&format!("{} ({kind}, {}): {what}\n", clean(&name), clean(&host)))?;
    Ok(is_good)
}
