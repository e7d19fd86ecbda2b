//! The daemon as a child process, and what its read-only listener says.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gitamp::view::{FleetStatus, Phase};

use crate::Failure;
use crate::process::Process;

/// `gitamp serve`.
pub(crate) struct Server {
    /// The process.
    pub(crate) process: Process,
    places: Places,
}

/// Where it listens and keeps its things; the same after a restart.
#[derive(Clone)]
pub(crate) struct Places {
    repository: PathBuf,
    state: PathBuf,
    log: PathBuf,
    agents: SocketAddr,
    admin: SocketAddr,
    /// The certificate and its key, where TLS is spoken.
    tls: Option<[PathBuf; 2]>,
}

/// What the tests have as well: an authority, a certificate of it for this machine, and its key.
pub(crate) const CERTIFICATES: [&str; 3] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/ca.pem"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/server.pem"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/server-key.pem"),
];

impl Places {
    /// Free ports, and directories below `directory`.
    pub(crate) fn choose(directory: &Path, repository: &Path, tls: bool) -> Result<Self, Failure> {
        let free = || Ok::<_, Failure>(TcpListener::bind("127.0.0.1:0")?.local_addr()?);
        Ok(Self {
            repository: repository.to_owned(),
            state: directory.join("state"),
            log: directory.join("serve.log"),
            agents: free()?,
            admin: free()?,
            tls: if tls { Some(pair(directory)?) } else { None },
        })
    }

    /// Where agents connect.
    pub(crate) fn agents_url(&self) -> String {
        format!("{}://{}/v1/opamp", if self.tls.is_some() { "wss" } else { "ws" }, self.agents)
    }
}

/// The certificate and a copy of its key that nobody else may read: another one is refused.
fn pair(directory: &Path) -> Result<[PathBuf; 2], Failure> {
    use std::os::unix::fs::PermissionsExt;
    let key = directory.join("key.pem");
    std::fs::copy(CERTIFICATES[2], &key)?;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
    Ok([PathBuf::from(CERTIFICATES[1]), key])
}

impl Server {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(places: Places) -> Result<Self, Failure> {
        let log = File::options().create(true).append(true).open(&places.log)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_gitamp"));
        command.arg("serve").arg("--repo").arg(&places.repository).arg("--state-dir").arg(&places.state);
        command.args(["--listen", &places.agents.to_string(), "--admin-listen", &places.admin.to_string()]);
        if let Some([certificate, key]) = &places.tls {
            command.arg("--tls-cert-file").arg(certificate).arg("--tls-key-file").arg(key);
        }
        command.args(["--log", "info"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Self { process: Process::start(&mut command)?, places };
        let end = Instant::now() + Duration::from_secs(30);
        while server.get("/readyz").is_err() {
            server.check()?;
            if Instant::now() > end {
                return Err(server.explain("the server is not ready after 30 s"));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Kills it and starts it again in the same place.
    pub(crate) fn restart(mut self) -> Result<Self, Failure> {
        self.process.kill();
        Self::start(self.places.clone())
    }

    /// What `gitamp status` would show.
    pub(crate) fn status(&self) -> Result<FleetStatus, Failure> {
        Ok(serde_json::from_slice(&self.get("/api/v1/status")?)?)
    }

    /// Waits until the only group is steady with so many confirmed agents; returns how long that took from now on.
    pub(crate) fn wait_steady(
        &mut self,
        hash: Option<&str>,
        confirmed: usize,
        bound: Duration,
    ) -> Result<Duration, Failure> {
        let start = Instant::now();
        loop {
            let status = self.status()?;
            let there = status.groups.first().is_some_and(|group| {
                group.phase == Phase::Steady
                    && group.counts.confirmed >= confirmed
                    && hash.is_none_or(|hash| group.stable.as_deref() == Some(hash))
            });
            if there {
                return Ok(start.elapsed());
            }
            self.check()?;
            if start.elapsed() > bound {
                let text = serde_json::to_string_pretty(&status)?;
                return Err(self.explain(&format!("not steady after {bound:?}: {text}")));
            }
            sleep(Duration::from_millis(25));
        }
    }

    /// Fails, with the end of its log, when it has ended.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        self.process.check("gitamp serve").map_err(|failure| self.explain(&failure.to_string()))
    }

    fn explain(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(&self.places.log).unwrap_or_default();
        let end: Vec<&str> = log.lines().rev().take(20).collect();
        format!("{what}\nits log ends with:\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n")).into()
    }

    /// The body of a successful answer.
    fn get(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let mut stream = TcpStream::connect(self.places.admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.places.admin)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("not an HTTP answer")?;
        let status = String::from_utf8_lossy(answer.get(..head).unwrap_or_default())
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        if !status.contains(" 200") {
            return Err(format!("{path}: {status}").into());
        }
        Ok(answer.split_off(head + 4))
    }
}
