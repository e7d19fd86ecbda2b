//! A Git remote over HTTP: git's own server program behind a listener, with a token and a switch for writing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A running remote; it ends with the test's process, its threads wait in `accept` until then.
pub(crate) struct HttpRemote {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    repository: PathBuf,
    /// The token that is asked for; `None`: everybody may.
    token: Mutex<Option<String>>,
    is_read_only: AtomicBool,
    /// Conversations that began with a look at the refs in order to fetch.
    looks: AtomicUsize,
    /// What happens behind the back of the next of them.
    meanwhile: Mutex<Option<Meanwhile>>,
}

/// Something that is done once.
type Meanwhile = Box<dyn FnOnce() + Send>;

impl HttpRemote {
    /// Serves this bare repository.
    pub(crate) fn serve(repository: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            repository: repository.to_owned(),
            token: Mutex::new(None),
            is_read_only: AtomicBool::new(false),
            looks: AtomicUsize::new(0),
            meanwhile: Mutex::new(None),
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                // What goes wrong with one connection is seen by whoever asked.
                std::thread::spawn(move || shared.answer(stream).unwrap_or_default());
            }
        });
        Self { address, shared }
    }

    /// What `--repo` names.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/fleet.git", self.address)
    }

    /// Asks for this token from now on.
    pub(crate) fn ask_for(&self, token: &str) {
        *self.shared.token.lock().expect("no thread panics with it") = Some(token.to_owned());
    }

    /// Takes no pushes from now on.
    pub(crate) fn make_read_only(&self) {
        self.shared.is_read_only.store(true, Ordering::SeqCst);
    }

    /// Does this between the moment for which the next look is answered and the answer: as a replica that is behind.
    pub(crate) fn behind_the_next_look(&self, done: impl FnOnce() + Send + 'static) {
        *self.shared.meanwhile.lock().expect("no thread panics with it") = Some(Box::new(done));
    }

    /// How often somebody looked whether there is something to fetch.
    pub(crate) fn looks(&self) -> usize {
        self.shared.looks.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = header.trim().split_once(':') {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let header = |name: &str| headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str());
        let body = match header("content-length").and_then(|length| length.parse().ok()) {
            Some(length) => {
                let mut body = vec![0; length];
                reader.read_exact(&mut body)?;
                body
            }
            None if header("transfer-encoding").is_some() => read_chunks(&mut reader)?,
            None => Vec::new(),
        };
        let mut stream = stream;
        let token = self.token.lock().map_err(|_| std::io::Error::other("a thread panicked"))?.clone();
        if let Some(token) = token {
            use base64::Engine;
            let right = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
            if header("authorization") != Some(&format!("Basic {right}")) {
                let ask = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                return stream.write_all(ask.as_bytes());
            }
        }
        if target.contains("receive-pack") && self.is_read_only.load(Ordering::SeqCst) {
            return stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        if target.contains("service=git-upload-pack") {
            self.looks.fetch_add(1, Ordering::SeqCst);
        }
        let answer =
            self.backend(&method, &target, header("content-type").unwrap_or(""), header("content-encoding"), &body)?;
        if target.contains("service=git-upload-pack") {
            let meanwhile = self.meanwhile.lock().map_err(|_| std::io::Error::other("a thread panicked"))?.take();
            meanwhile.into_iter().for_each(|done| done());
        }
        stream.write_all(&answer)
    }

    /// Lets `git http-backend` answer, as a web server does over CGI.
    fn backend(
        &self,
        method: &str,
        target: &str,
        content_type: &str,
        encoding: Option<&str>,
        body: &[u8],
    ) -> std::io::Result<Vec<u8>> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let inner = path.strip_prefix("/fleet.git").unwrap_or(path);
        let mut command = Command::new("git");
        command
            .args(["-c", "http.receivepack=true", "http-backend"])
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("PATH_TRANSLATED", format!("{}{inner}", self.repository.display()))
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", method)
            .env("QUERY_STRING", query)
            .env("CONTENT_TYPE", content_type)
            .env("CONTENT_LENGTH", body.len().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(encoding) = encoding {
            command.env("HTTP_CONTENT_ENCODING", encoding);
        }
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let body = body.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&body));
        let output = child.wait_with_output()?;
        // A backend that has read enough closes its end; that is its affair.
        let _unread = writer.join();
        let split = output.stdout.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0);
        let (head, rest) = output.stdout.split_at(split);
        let content = rest.get(4..).unwrap_or_default();
        let head = String::from_utf8_lossy(head);
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
        let kept: String =
            head.lines().filter(|line| !line.starts_with("Status: ")).map(|line| format!("{line}\r\n")).collect();
        let head = format!("HTTP/1.1 {status}\r\n{kept}Content-Length: {}\r\nConnection: close\r\n\r\n", content.len());
        Ok([head.as_bytes(), content].concat())
    }
}

fn read_chunks(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk)?;
        if size == 0 {
            return Ok(whole);
        }
        chunk.truncate(size);
        whole.extend(chunk);
    }
}
