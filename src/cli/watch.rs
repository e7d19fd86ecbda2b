//! `gitamp status --watch`: the status again and again, on a terminal in place, elsewhere whenever something has changed.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anstream::ColorChoice;
use tokio::signal::unix::{SignalKind, signal};

use super::admin_client::{AdminClient, AdminError};
use super::screen::{Tint, tinted};
use super::{Failure, print};
use crate::view::FleetStatus;

/// Between two questions.
const PERIOD: Duration = Duration::from_secs(1);

/// A screen of its own, without a cursor, where long lines end at the edge instead of moving everything.
const ENTER: &str = "\x1b[?1049h\x1b[?7l\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?7h\x1b[?1049l";

/// Shows the status until a signal ends it. A daemon that is not there at first is an error; one that goes later is waited for.
/// Elsewhere than on a terminal it is shown anew when something changes of what `narrow` leaves of it.
pub(super) async fn watch(
    client: &AdminClient,
    is_json: bool,
    narrow: impl Fn(&mut FleetStatus),
    text: impl Fn(&FleetStatus) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let mut latest: FleetStatus = client.get("/api/v1/status").await?;
    let mut ended = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<Result<Vec<_>, _>>()?;
    let screen = (!is_json && std::io::stdout().is_terminal()).then(Screen::enter);
    let mut trouble: Option<AdminError> = None;
    let mut printed: Option<(FleetStatus, bool)> = None;
    loop {
        let mut shown = text(&latest)?;
        match &screen {
            Some(screen) => {
                if let Some(error) = &trouble {
                    shown = format!("{}\n\n{shown}", tinted(&format!("{error}; trying again"), Tint::Bad));
                }
                screen.draw(&shown)?;
            }
            None => {
                let mut essence = essence(&latest);
                narrow(&mut essence);
                let now = (essence, trouble.is_some());
                if printed.as_ref().is_none_or(|(before, _)| *before != now.0) {
                    let gap = if printed.is_some() && !is_json { "\n" } else { "" };
                    print(&format!("{gap}{shown}"))?;
                }
                if let (Some(error), true) = (&trouble, printed.as_ref().is_some_and(|(_, was)| !was)) {
                    anstream::eprintln!("{error}; trying again");
                }
                printed = Some(now);
            }
        }
        tokio::select! {
            () = any(&mut ended) => break,
            answer = next(client) => match answer {
                Ok(status) => (latest, trouble) = (status, None),
                Err(error) => trouble = Some(error),
            },
        }
    }
    if let Some(screen) = screen {
        drop(screen);
        // What was seen last stays.
        print(&text(&latest)?)?;
    }
    Ok(())
}

async fn next(client: &AdminClient) -> Result<FleetStatus, AdminError> {
    tokio::time::sleep(PERIOD).await;
    client.get("/api/v1/status").await
}

async fn any(signals: &mut [tokio::signal::unix::Signal]) {
    std::future::poll_fn(|context| {
        if signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// The status without what changes by itself.
fn essence(status: &FleetStatus) -> FleetStatus {
    let mut essence = status.clone();
    essence.now = crate::time::Timestamp::default();
    essence.sync.last_success = None;
    essence.sync.next_attempt = None;
    essence.journal.last_stored = None;
    essence.journal.last_pushed = None;
    essence
}

/// The terminal while it shows the status; as it was, when this is dropped.
struct Screen {
    has_colours: bool,
}

impl Screen {
    fn enter() -> Self {
        let has_colours = anstream::AutoStream::choice(&std::io::stdout()) != ColorChoice::Never;
        write(ENTER);
        Self { has_colours }
    }

    fn draw(&self, text: &str) -> Result<(), Failure> {
        let height = terminal_size::terminal_size().map_or(usize::MAX, |(_, height)| usize::from(height.0));
        let text = if self.has_colours { text.to_owned() } else { anstream::adapter::strip_str(text).to_string() };
        let mut out = std::io::stdout().lock();
        out.write_all(frame(&text, height).as_bytes()).and_then(|()| out.flush())?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write(LEAVE);
    }
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // A terminal that is gone needs no restoring.
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Draws over what is there, line by line, so that nothing flickers; what does not fit is counted.
fn frame(text: &str, height: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let fits = lines.len() <= height;
    let shown = if fits { lines.len() } else { height.saturating_sub(1) };
    let mut frame = "\x1b[H".to_owned();
    for (index, line) in lines.iter().take(shown).enumerate() {
        frame.push_str(if index == 0 { "" } else { "\r\n" });
        frame.push_str(&format!("{line}\x1b[K"));
    }
    if !fits {
        frame.push_str(if shown == 0 { "" } else { "\r\n" });
        frame.push_str(&format!("… {} more lines do not fit\x1b[K", lines.len() - shown));
    }
    frame.push_str("\x1b[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_never_higher_than_the_terminal() {
        assert_eq!(frame("a\nb\n", 2), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(frame("a\nb\nc\n", 2), "\x1b[Ha\x1b[K\r\n… 2 more lines do not fit\x1b[K\x1b[J");
        assert_eq!(frame("a\nb\n", 1), "\x1b[H… 2 more lines do not fit\x1b[K\x1b[J");
    }

    #[test]
    fn the_time_alone_is_no_change() {
        let status: FleetStatus = serde_json::from_value(serde_json::json!({
            "instance": "default", "version": "1", "now": "2026-11-20T09:30:00Z", "observe": false,
            "sync": {"repository": "/x", "stale": false, "lastSuccess": "2026-11-20T09:29:00Z"},
            "journal": {"localOnly": false}, "agents": {}, "groups": [], "commits": [], "diagnostics": [],
        }))
        .expect("a status");
        let mut later = status.clone();
        later.now = status.now + PERIOD;
        later.sync.last_success = Some(later.now);
        assert_eq!(essence(&status), essence(&later));
        later.agents.connected = 1;
        assert_ne!(essence(&status), essence(&later));
    }
}
