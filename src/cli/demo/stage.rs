//! What the demo plays on: the daemon in this process, a simulated fleet around it, and a look at the daemon's status.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::Failure;
use crate::cli::demo::narrator::{Narrator, Progress};
use crate::cli::demo::repository::{DemoRepository, TYPING_ERROR};
use crate::settings::{RepoUrl, Settings};
use crate::simulate::{Attribute, DelayRange, Endpoint, Fleet, Options};
use crate::view::FleetStatus;

/// The longest status; 5,000 agents in three groups need a few kilobytes.
const LONGEST_STATUS_BYTES: usize = 4 << 20;

/// How often the status is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The daemon and the fleet.
pub(super) struct Stage {
    daemon: JoinHandle<Result<(), String>>,
    stop: oneshot::Sender<()>,
    fleet: Fleet,
    agents: usize,
    admin: SocketAddr,
}

impl Stage {
    /// Starts both, on free ports.
    pub(super) async fn open(
        repository: &DemoRepository,
        directory: &Path,
        agents: u32,
        fast: bool,
    ) -> Result<Self, Failure> {
        let (listen, admin) = (free_port().await?, free_port().await?);
        let repo = RepoUrl::parse(&repository.path().to_string_lossy())?;
        let settings = Settings {
            listen,
            admin_listen: Some(admin),
            interval: Duration::from_secs(1),
            ..Settings::new(repo, directory.join("state"))
        };
        let (stop, stopped) = oneshot::channel();
        let daemon = tokio::spawn(async move {
            crate::daemon::run_until(settings, async {
                stopped.await.ok();
            })
            .await
            .map_err(|error| error.to_string())
        });
        let server = Endpoint::resolve(&format!("ws://{listen}/v1/opamp"), false)?;
        // Of thirty agents, 24 are in production: twelve gateways and twelve agents, four of each in every zone.
        let attributes = ["env=prod,prod,prod,prod,staging", "role=gateway,agent", "zone=a,b,c"];
        let mut options = Options {
            attributes: Attribute::parse_all(&attributes)?,
            apply_delay: delay(fast),
            fail_matching: Some(TYPING_ERROR.to_owned()),
            fail_message: format!(
                "Agent exited unexpectedly with exit code 1 while applying configuration: unknown exporter type in \"{TYPING_ERROR}\""
            ),
            ..Options::new(server, agents)
        };
        options.heartbeat = Duration::from_secs(10);
        let mut stage = Self { daemon, stop, fleet: Fleet::start(options)?, agents: agents as usize, admin };
        stage.wait_until_it_answers().await?;
        Ok(stage)
    }

    /// How many agents there are.
    pub(super) fn agents(&self) -> usize {
        self.agents
    }

    /// How many offers the agents got so far.
    pub(super) fn offers(&self) -> u64 {
        self.fleet.counts().offers
    }

    /// What `gitamp status` would show.
    pub(super) async fn status(&self) -> Result<FleetStatus, Failure> {
        let stream = TcpStream::connect(self.admin).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get("/api/v1/status").header(HOST, self.admin.to_string()).body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_STATUS_BYTES).collect().await?.to_bytes();
            if status != StatusCode::OK {
                return Err(format!("the daemon answered {status}").into());
            }
            Ok(serde_json::from_slice(&body)?)
        };
        tokio::select! {
            answer = answer => answer,
            _ = connection => Err("the daemon closed the connection".into()),
        }
    }

    /// Draws how the groups are doing until the fleet is as `wanted`, at most for `bound`.
    pub(super) async fn watch(
        &self,
        narrator: &Narrator,
        bound: Duration,
        wanted: impl Fn(&FleetStatus) -> bool,
    ) -> Result<FleetStatus, Failure> {
        let end = Instant::now() + bound;
        let mut progress = Progress::new(narrator);
        let mut drawn: Option<Instant> = None;
        loop {
            let status = self.status().await?;
            let done = wanted(&status);
            if done || drawn.is_none_or(|at| at.elapsed() >= progress.pace()) {
                progress.draw(&status)?;
                drawn = Some(Instant::now());
            }
            if done {
                return Ok(status);
            }
            if Instant::now() > end {
                let text = serde_json::to_string_pretty(&status)?;
                return Err(
                    format!("the demo did not go on for {} s; the daemon's status:\n{text}", bound.as_secs()).into()
                );
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends the agents, then the daemon.
    pub(super) async fn close(self) -> Result<(), Failure> {
        self.fleet.stop().await;
        self.stop.send(()).ok(); // it may have ended by itself, which the next line tells
        timeout(Duration::from_secs(10), self.daemon).await.map_err(|_| "the daemon did not stop within 10 s")???;
        Ok(())
    }

    async fn wait_until_it_answers(&mut self) -> Result<(), Failure> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let Err(failure) = self.status().await else { return Ok(()) };
            if self.daemon.is_finished() {
                return match (&mut self.daemon).await? {
                    Ok(()) => Err("the daemon ended by itself".into()),
                    Err(error) => Err(error.into()),
                };
            }
            if Instant::now() > end {
                return Err(format!("the daemon does not answer: {failure}").into());
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

fn delay(fast: bool) -> DelayRange {
    let millis = Duration::from_millis;
    if fast {
        DelayRange { from: millis(50), to: millis(200) }
    } else {
        DelayRange { from: millis(800), to: millis(2_000) }
    }
}

/// A port that nobody has at the moment.
async fn free_port() -> Result<SocketAddr, Failure> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Ok(listener.local_addr()?)
}
