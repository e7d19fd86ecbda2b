//! The two servers behind one interface: something that pushes a configuration to its whole fleet.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::process::Process;
use crate::repository::FleetRepository;
use crate::server::{Places, Server};
use crate::{BOUND, Failure};

/// A server with a fleet.
pub(crate) trait Pusher {
    /// Pushes a configuration that nobody has yet to everybody who is there, or will come. Returns when that was, in milliseconds since the
    /// epoch.
    fn push(&mut self) -> Result<f64, Failure>;
    /// Waits until the server itself is done with the last push.
    fn wait_steady(&mut self, agents: usize) -> Result<(), Failure>;
    /// Its process.
    fn process(&self) -> &Process;
    /// Where agents connect.
    fn url(&self) -> String;
}

/// `gitamp serve`, which follows a repository.
pub(crate) struct Gitamp {
    repository: FleetRepository,
    places: Places,
    /// Started with the first push: before it there is nothing to follow.
    server: Server,
    is_fresh: bool,
    _directory: TempDir,
}

impl Gitamp {
    /// Starts it with a first configuration of about so many KiB.
    pub(crate) fn start(config_kib: usize) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let mut repository = FleetRepository::create(&directory.path().join("fleet"), config_kib * 1024)?;
        repository.commit("100%")?;
        let places = Places::choose(directory.path(), repository.path(), false)?;
        let server = Server::start(places.clone())?;
        Ok(Self { repository, places, server, is_fresh: true, _directory: directory })
    }
}

impl Pusher for Gitamp {
    fn push(&mut self) -> Result<f64, Failure> {
        if std::mem::take(&mut self.is_fresh) {
            return now(); // it follows a first commit since its start
        }
        self.repository.commit("100%")
    }

    fn wait_steady(&mut self, agents: usize) -> Result<(), Failure> {
        self.server.wait_steady(None, agents, BOUND)?;
        Ok(())
    }

    fn process(&self) -> &Process {
        &self.server.process
    }

    fn url(&self) -> String {
        self.places.agents_url()
    }
}

/// The server on the OpAMP library.
pub(crate) struct Reference {
    process: Process,
    agents: SocketAddr,
    control: SocketAddr,
    /// It reads configurations as bytes: the repository only makes them.
    config_kib: usize,
    version: usize,
}

impl Reference {
    /// Starts it and waits until it listens.
    pub(crate) fn start(program: &Path, arguments: &[&str], config_kib: usize) -> Result<Self, Failure> {
        let free = || Ok::<_, Failure>(TcpListener::bind("127.0.0.1:0")?.local_addr()?);
        let (agents, control) = (free()?, free()?);
        let mut command = Command::new(program);
        command.args(["-agents", &agents.to_string(), "-control", &control.to_string()]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut reference = Self { process: Process::start(&mut command)?, agents, control, config_kib, version: 0 };
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(agents).is_err() || TcpStream::connect(control).is_err() {
            reference.process.check("reference-server")?;
            if Instant::now() > end {
                return Err("the reference server does not listen after 30 s".into());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(reference)
    }
}

impl Pusher for Reference {
    fn push(&mut self) -> Result<f64, Failure> {
        self.version += 1;
        let config = crate::repository::collector(self.config_kib * 1024, self.version)?;
        let pushed = now()?;
        let mut stream = TcpStream::connect(self.control)?;
        stream.set_read_timeout(Some(BOUND))?;
        write!(stream, "POST /push HTTP/1.0\r\nContent-Length: {}\r\n\r\n{config}", config.len())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.split(' ').nth(1) == Some("200") { Ok(pushed) } else { Err(answer.into()) }
    }

    fn wait_steady(&mut self, _agents: usize) -> Result<(), Failure> {
        self.process.check("reference-server")
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn url(&self) -> String {
        format!("ws://{}/v1/opamp", self.agents)
    }
}

fn now() -> Result<f64, Failure> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1_000.0)
}
