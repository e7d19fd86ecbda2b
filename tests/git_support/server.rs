//! A smart-HTTP remote of one repository on 127.0.0.1: `git http-backend` on good days, and all that goes wrong on bad ones.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the server behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Day {
    /// As it should.
    Good,
    /// As it should, for this user with this password.
    Login(String, String),
    /// Takes requests and says nothing.
    Hang,
    /// Sends its answer byte by byte, one every 100 ms.
    Trickle,
    /// Ends the connection in the middle of answers to POST.
    Cut,
    /// Answers with this status.
    Status(u16),
    /// Sends everybody to this address.
    Redirect(String),
    /// Answers like a web page.
    Page,
    /// Does what a push asks, and closes without a word.
    Forget,
    /// Takes no pushes, as with a token that may only read.
    ReadOnly,
    /// Answers every fetch with this pack, whatever was asked for.
    Pack(Vec<u8>),
    /// Before each of so many pushes somebody else writes a note, so that the push comes too late.
    Rivals(usize),
}

/// The server; ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    day: Arc<Mutex<Day>>,
    /// Requests so far.
    pub(crate) requests: Arc<AtomicUsize>,
    /// Authorization headers seen.
    pub(crate) authorizations: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves the bare repository at `repository` as `/fleet.git`.
    pub(crate) fn start(repository: &Path, day: Day) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let day = Arc::new(Mutex::new(day));
        let requests = Arc::new(AtomicUsize::new(0));
        let authorizations = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let desk = Desk {
            repository: repository.to_owned(),
            day: day.clone(),
            requests: requests.clone(),
            authorizations: authorizations.clone(),
            ended: ended.clone(),
        };
        let thread = std::thread::spawn(move || {
            let mut serving = Vec::new();
            for stream in listener.incoming().flatten() {
                if desk.ended.load(Ordering::SeqCst) {
                    break;
                }
                let desk = desk.clone();
                serving.push(std::thread::spawn(move || drop(desk.serve(stream))));
            }
            for thread in serving {
                drop(thread.join());
            }
        });
        Self { address, day, requests, authorizations, ended, thread: Some(thread) }
    }

    /// The repository's address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/fleet.git", self.address)
    }

    /// From now on it behaves like this.
    pub(crate) fn turn(&self, day: Day) {
        *self.day.lock().expect("no panic") = day;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[derive(Clone)]
struct Desk {
    repository: PathBuf,
    day: Arc<Mutex<Day>>,
    requests: Arc<AtomicUsize>,
    authorizations: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Desk {
    fn note(&self, authorization: Option<&String>) -> Day {
        self.authorizations.lock().expect("no panic").extend(authorization.cloned());
        self.day.lock().expect("no panic").clone()
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(request) = read_request(&mut reader)? {
            self.requests.fetch_add(1, Ordering::SeqCst);
            let authorization = request.headers.get("authorization").cloned();
            match self.note(authorization.as_ref()) {
                Day::Good => (&stream).write_all(&self.backend(&request))?,
                Day::Login(user, password) => {
                    (&stream).write_all(&self.after_login(&user, &password, &request))?;
                }
                Day::Hang => {
                    self.wait_for_the_other_end(&stream);
                    return Ok(());
                }
                Day::Trickle => {
                    for byte in self.backend(&request) {
                        (&stream).write_all(&[byte])?;
                        std::thread::sleep(Duration::from_millis(100));
                        if self.ended.load(Ordering::SeqCst) {
                            return Ok(());
                        }
                    }
                }
                Day::Cut => {
                    let answer = self.backend(&request);
                    let end = if request.method == "POST" { answer.len() * 2 / 3 } else { answer.len() };
                    (&stream).write_all(&answer[..end])?;
                    if request.method == "POST" {
                        return stream.shutdown(Shutdown::Both);
                    }
                }
                Day::Status(status) => {
                    (&stream).write_all(format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
                }
                Day::Redirect(to) => {
                    let to = format!("{to}{}?{}", request.path, request.query);
                    let head = format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
                    (&stream).write_all(head.as_bytes())?;
                }
                Day::Page => (&stream)
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>")?,
                Day::ReadOnly if request.query.contains("receive-pack") || request.path.ends_with("receive-pack") => {
                    (&stream).write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")?;
                }
                Day::Pack(pack) if request.path.ends_with("git-upload-pack") && request.method == "POST" => {
                    (&stream).write_all(&packed(&pack))?;
                }
                Day::Pack(_) => (&stream).write_all(&self.backend(&request))?,
                Day::ReadOnly => (&stream).write_all(&self.backend(&request))?,
                Day::Rivals(left) => {
                    if left > 0 && request.method == "POST" && request.path.ends_with("git-receive-pack") {
                        self.write_first(left);
                    }
                    (&stream).write_all(&self.backend(&request))?;
                }
                Day::Forget => {
                    let answer = self.backend(&request);
                    if request.path.ends_with("git-receive-pack") && request.method == "POST" {
                        return stream.shutdown(Shutdown::Both);
                    }
                    (&stream).write_all(&answer)?;
                }
            }
        }
        Ok(())
    }

    fn after_login(&self, user: &str, password: &str, request: &Request) -> Vec<u8> {
        use base64::Engine;
        let wanted = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        if request.headers.get("authorization") == Some(&format!("Basic {wanted}")) {
            return self.backend(request);
        }
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n".to_vec()
    }

    /// Somebody writes a note on an object of their own.
    fn write_first(&self, left: usize) {
        *self.day.lock().expect("no panic") = Day::Rivals(left - 1);
        let rival = format!("rival {left}");
        let file = self.repository.join("rival");
        std::fs::write(&file, &rival).expect("a file");
        let object = super::git(&self.repository, &["hash-object", "-w", "rival"]);
        super::git(&self.repository, &["notes", "--ref=gitamp/default", "add", "-m", &rival, &object]);
    }

    /// Holds a connection open until the other side closes it or the server ends.
    fn wait_for_the_other_end(&self, stream: &TcpStream) {
        drop(stream.set_read_timeout(Some(Duration::from_millis(50))));
        let mut byte = [0];
        while !self.ended.load(Ordering::SeqCst) {
            match (&mut (&*stream)).read(&mut byte) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                Err(_) => return,
            }
        }
    }

    /// What `git http-backend` answers, as a whole HTTP response.
    fn backend(&self, request: &Request) -> Vec<u8> {
        let inner = request.path.strip_prefix("/fleet.git").unwrap_or("/nowhere");
        let mut child = Command::new("git")
            .arg("http-backend")
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("GIT_PROJECT_ROOT", &self.repository)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("REMOTE_USER", "ada")
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("PATH_INFO", inner)
            .env("QUERY_STRING", &request.query)
            .env("REQUEST_METHOD", &request.method)
            .env("CONTENT_TYPE", request.headers.get("content-type").map_or("", String::as_str))
            .env("CONTENT_LENGTH", request.body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", request.headers.get("content-encoding").map_or("", String::as_str))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("git is installed");
        let mut stdin = child.stdin.take().expect("a pipe");
        let body = request.body.clone();
        let feeding = std::thread::spawn(move || drop(stdin.write_all(&body)));
        let output = child.wait_with_output().expect("it ends");
        drop(feeding.join());
        let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let (head, body) = output.stdout.split_at(end + 4);
        let head = String::from_utf8_lossy(head).into_owned();
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
        let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len()).into_bytes();
        for line in head.lines().filter(|line| !line.is_empty() && !line.starts_with("Status: ")) {
            answer.extend_from_slice(format!("{line}\r\n").as_bytes());
        }
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(body);
        answer
    }
}

/// The answer to a fetch that brings this pack.
fn packed(pack: &[u8]) -> Vec<u8> {
    let mut body = b"0008NAK\n".to_vec();
    for part in pack.chunks(65_000) {
        body.extend(format!("{:04x}\x01", part.len() + 5).bytes());
        body.extend_from_slice(part);
    }
    body.extend(b"0000");
    let kind = "application/x-git-upload-pack-result";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).unwrap_or(0);
            reader.take(size).read_to_end(&mut body)?;
            let mut end = String::new();
            reader.read_line(&mut end)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = headers.get("content-length").and_then(|length| length.parse().ok()) {
        reader.take(length).read_to_end(&mut body)?;
    }
    Ok(Some(Request { method, path: path.to_owned(), query: query.to_owned(), headers, body }))
}
