//! A forge's API as far as gitamp uses it, on loopback: it keeps what it is told, refuses what the real ones refuse, and has bad days on
//! demand.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use serde_json::{Value, json};

use super::now;

/// The key of the App that is played; of no other use.
const APP_KEY: &str = include_str!("../../src/forge/outbound/tests/tls/app-key.pem");

/// Which forge is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plays {
    GitHub,
    GitLab,
    Gitea,
    Bitbucket,
}

/// An answer instead of the right one.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    /// This status, these headers, this body.
    Says(u16, &'static str, &'static str),
    /// It takes the request and says nothing until the other end gives up.
    Hangs,
}

/// A status as the forge shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) context: String,
    pub(crate) state: String,
    pub(crate) description: String,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) who: String,
}

#[derive(Default)]
struct Memory {
    token: Option<String>,
    /// What the next requests get, one each.
    moods: VecDeque<Mood>,
    /// What every request gets while it is set.
    mood: Option<Mood>,
    seen: Vec<Seen>,
    /// By commit, everything that was ever posted.
    statuses: BTreeMap<String, Vec<Shown>>,
    /// Merged pull requests by their commit.
    merged: BTreeMap<String, u64>,
    /// Comments by pull request: id and text.
    comments: BTreeMap<u64, Vec<(u64, String)>>,
    /// Pull requests that were opened: what was said about them.
    opened: Vec<Value>,
    /// For an App: for how many seconds each of its next tokens is good.
    lives: VecDeque<u64>,
    /// Tokens that an App got itself.
    issued: u64,
    ids: u64,
}

/// A running forge; it ends with the test's process, its threads wait in `accept` until then.
pub(crate) struct ForgeServer {
    address: SocketAddr,
    plays: Plays,
    memory: Arc<Mutex<Memory>>,
    /// A copy of the App's key that only its owner may read, as keys have to be.
    app_key: tempfile::NamedTempFile,
}

impl ForgeServer {
    /// Starts one.
    pub(crate) fn start(plays: Plays) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let memory = Arc::new(Mutex::new(Memory { ids: 100, ..Memory::default() }));
        let served = Arc::clone(&memory);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let memory = Arc::clone(&served);
                // What goes wrong with one connection is seen by whoever asked.
                std::thread::spawn(move || answer(stream, plays, &memory).unwrap_or_default());
            }
        });
        let app_key = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(app_key.path(), APP_KEY).expect("a key");
        Self { address, plays, memory, app_key }
    }

    /// The flags that make a daemon tell this forge; the token is in `file`.
    pub(crate) fn flags(&self, file: &std::path::Path) -> Vec<String> {
        let name = match self.plays {
            Plays::GitHub => "github",
            Plays::GitLab => "gitlab",
            Plays::Gitea => "gitea",
            Plays::Bitbucket => "bitbucket",
        };
        let flags = [
            format!("--forge={name}"),
            format!("--forge-api=http://{}/api", self.address),
            "--forge-project=team/fleet".to_owned(),
            format!("--forge-token-file={}", file.display()),
        ];
        flags.to_vec()
    }

    /// The same for an App, whose tokens are good for so many seconds each.
    pub(crate) fn app_flags(&self, lives: impl IntoIterator<Item = u64>) -> Vec<String> {
        self.memory().lives.extend(lives);
        self.ask_for("none that was issued");
        let flags = [
            "--forge=github".to_owned(),
            format!("--forge-api=http://{}/api", self.address),
            "--forge-project=team/fleet".to_owned(),
            "--forge-app-id=Iv1.abc".to_owned(),
            format!("--forge-app-key-file={}", self.app_key.path().display()),
        ];
        flags.to_vec()
    }

    /// How many tokens an App got itself.
    pub(crate) fn issued(&self) -> u64 {
        self.memory().issued
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no thread panics with it")
    }

    /// Takes only this token from now on.
    pub(crate) fn ask_for(&self, token: &str) {
        self.memory().token = Some(token.to_owned());
    }

    /// The next requests get these answers, one each.
    pub(crate) fn then(&self, moods: impl IntoIterator<Item = Mood>) {
        self.memory().moods.extend(moods);
    }

    /// Every request gets this answer; `None`: the right one again.
    pub(crate) fn be(&self, mood: Option<Mood>) {
        self.memory().mood = mood;
    }

    /// What came so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.memory().seen.clone()
    }

    /// Everything that was ever said of a commit in this context, in order.
    pub(crate) fn told(&self, commit: &str, context: &str) -> Vec<Shown> {
        let memory = self.memory();
        let all = memory.statuses.get(commit).into_iter().flatten();
        all.filter(|shown| shown.context == context).cloned().collect()
    }

    /// What a commit shows now, by context.
    pub(crate) fn shows(&self, commit: &str) -> BTreeMap<String, Shown> {
        let memory = self.memory();
        memory.statuses.get(commit).into_iter().flatten().map(|shown| (shown.context.clone(), shown.clone())).collect()
    }

    /// This commit came from a pull request of this number.
    pub(crate) fn merge(&self, commit: &str, number: u64) {
        self.memory().merged.insert(commit.to_owned(), number);
    }

    /// The comments of a pull request.
    pub(crate) fn comments(&self, number: u64) -> Vec<(u64, String)> {
        self.memory().comments.get(&number).cloned().unwrap_or_default()
    }

    /// The pull requests that were opened.
    pub(crate) fn opened(&self) -> Vec<Value> {
        self.memory().opened.clone()
    }
}

fn answer(mut stream: TcpStream, plays: Plays, memory: &Mutex<Memory>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let (mut length, mut who) = (0, String::new());
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        let Some((name, value)) = header.trim().split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "authorization" | "private-token" => value.trim().clone_into(&mut who),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = target.strip_prefix("/api/").unwrap_or(&target).to_owned();
    let locked = || memory.lock().map_err(|_| std::io::Error::other("a thread panicked"));
    let mood = {
        let mut memory = locked()?;
        memory.seen.push(Seen { at: now(), method: method.clone(), path: path.clone(), who: who.clone() });
        memory.moods.pop_front().or_else(|| memory.mood.clone())
    };
    let (status, headers, text) = match mood {
        Some(Mood::Hangs) => {
            // Until the other end gives up.
            let _ended = reader.read(&mut [0]);
            return Ok(());
        }
        Some(Mood::Says(status, headers, text)) => (status, headers, text.to_owned()),
        None => {
            let mut memory = locked()?;
            let for_apps = if plays == Plays::GitHub { memory.for_apps(&method, &path, &who) } else { None };
            let is_known =
                for_apps.is_some() || memory.token.as_ref().is_none_or(|token| who.ends_with(token.as_str()));
            let (status, value) = if let Some(answer) = for_apps {
                answer
            } else if is_known {
                memory.handle(plays, &method, &path, &body)
            } else {
                (401, json!({"message": "Bad credentials"}))
            };
            (status, "", value.to_string())
        }
    };
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", text.len());
    stream.write_all(&[head.as_bytes(), text.as_bytes()].concat())
}

impl Memory {
    /// What is asked by an App itself, with its JWT, and not with a token.
    fn for_apps(&mut self, method: &str, path: &str, who: &str) -> Option<(u16, Value)> {
        let is_theirs = matches!(
            (method, path),
            ("GET", "repos/team/fleet/installation") | ("POST", "app/installations/77/access_tokens")
        );
        if !is_theirs {
            return None;
        }
        if let Err(why) = check_jwt(who) {
            return Some((401, json!({"message": format!("A JSON web token could not be decoded: {why}")})));
        }
        if method == "GET" {
            return Some((200, json!({"id": 77})));
        }
        let Some(life) = self.lives.pop_front() else { return Some((403, json!({"message": "no more of them"}))) };
        self.issued += 1;
        let token = format!("ghs_{}", self.issued);
        self.token = Some(token.clone());
        let until = (jiff::Timestamp::now() + std::time::Duration::from_secs(life)).to_string();
        Some((201, json!({"token": token, "expires_at": until, "permissions": {"statuses": "write"}})))
    }

    fn handle(&mut self, plays: Plays, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let base = match plays {
            Plays::GitHub | Plays::Gitea => "repos/team/fleet/",
            Plays::GitLab => "projects/team%2Ffleet/",
            Plays::Bitbucket => "repositories/team/fleet/",
        };
        let missing = (404, json!({"message": "Not Found"}));
        let Some(rest) = path.strip_prefix(base) else { return missing };
        let parts: Vec<&str> = rest.split('/').collect();
        match (plays, method, &parts[..]) {
            (Plays::Bitbucket, "POST", ["commit", sha, "statuses", "build"]) | (_, "POST", ["statuses", sha]) => {
                self.status(plays, sha, body)
            }
            (Plays::GitHub, "GET", ["commits", sha, "pulls"])
            | (Plays::GitLab, "GET", ["repository", "commits", sha, "merge_requests"]) => {
                let merged = self.merged.get(*sha).map(|number| {
                    json!({"number": number, "iid": number, "merge_commit_sha": sha, "merged_at": "2026-01-01T00:00:00Z", "state": "merged"})
                });
                (200, merged.into_iter().collect())
            }
            (Plays::Gitea, "GET", ["commits", sha, "pull"]) => match self.merged.get(*sha) {
                Some(number) => (200, json!({"number": number, "merged": true})),
                None => missing,
            },
            (Plays::GitHub | Plays::Gitea, _, ["issues", number, "comments"])
            | (Plays::GitLab, _, ["merge_requests", number, "notes"]) => {
                self.comment(method, number.parse().unwrap_or(0), body)
            }
            (Plays::GitHub | Plays::Gitea, "PATCH", ["issues", "comments", id])
            | (Plays::GitLab, "PUT", ["merge_requests", _, "notes", id]) => {
                let id: u64 = id.parse().unwrap_or(0);
                let text = body["body"].as_str().unwrap_or_default();
                match self.comments.values_mut().flatten().find(|(one, _)| *one == id) {
                    Some((_, have)) => {
                        text.clone_into(have);
                        (200, json!({"id": id}))
                    }
                    None => missing,
                }
            }
            (_, "GET", ["pulls" | "merge_requests" | "pullrequests"]) => {
                let found: Vec<Value> =
                    self.opened.iter().filter(|pull| plays == Plays::Gitea || is_asked(pull, query)).cloned().collect();
                (200, if plays == Plays::Bitbucket { json!({"values": found}) } else { found.into() })
            }
            (_, "POST", ["pulls" | "merge_requests" | "pullrequests"]) => {
                self.ids += 1;
                let mut pull = body.clone();
                let url = format!("https://forge.example.com/{}", self.ids);
                // Each forge reads back what it was given in a form of its own.
                pull["number"] = self.ids.into();
                pull["html_url"] = url.clone().into();
                pull["web_url"] = url.clone().into();
                pull["links"] = json!({"html": {"href": url}});
                if plays == Plays::Gitea {
                    pull["head"] = json!({"ref": body["head"]});
                }
                self.opened.push(pull.clone());
                (201, pull)
            }
            (_, _, _) => missing,
        }
    }

    fn status(&mut self, plays: Plays, sha: &str, body: &Value) -> (u16, Value) {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let context = match plays {
            Plays::GitHub | Plays::Gitea => text("context"),
            Plays::GitLab | Plays::Bitbucket => text("name"),
        };
        let shown = Shown { context, state: text("state"), description: text("description") };
        if plays == Plays::GitHub && shown.description.chars().count() > 140 {
            return (422, json!({"message": "Validation Failed"}));
        }
        if plays == Plays::Bitbucket && (text("url").is_empty() || text("key").len() > 40) {
            return (400, json!({"type": "error", "error": {"message": "Bad request"}}));
        }
        let known = self.statuses.entry(sha.to_owned()).or_default();
        let last = known.iter().rev().find(|one| one.context == shown.context);
        let is_moving = |state: &str| state == "pending" || state == "running";
        if plays == Plays::GitLab
            && last
                .is_some_and(|last| is_moving(&last.state) && (last.state == shown.state || shown.state == "pending"))
        {
            return (
                400,
                json!({"message": "Cannot transition status via :enqueue from :pending (Reason(s): Status cannot transition via \"enqueue\")"}),
            );
        }
        known.push(shown);
        (201, json!({}))
    }

    fn comment(&mut self, method: &str, number: u64, body: &Value) -> (u16, Value) {
        let comments = self.comments.entry(number).or_default();
        if method == "GET" {
            return (200, comments.iter().map(|(id, text)| json!({"id": id, "body": text})).collect());
        }
        self.ids += 1;
        comments.push((self.ids, body["body"].as_str().unwrap_or_default().to_owned()));
        (201, json!({"id": self.ids}))
    }
}

/// As GitHub checks what an App shows: signed with its key by RS256, its own, and good for no more than ten minutes around now.
fn check_jwt(who: &str) -> Result<(), String> {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use rustls::pki_types::PrivatePkcs1KeyDer;
    use rustls::pki_types::pem::PemObject;
    let token = who.strip_prefix("Bearer ").ok_or("no bearer")?;
    let (signed, signature) = token.rsplit_once('.').ok_or("no signature")?;
    let (head, claims) = signed.split_once('.').ok_or("no claims")?;
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|error| error.to_string());
    let read = |text: &str| {
        decode(text).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).map_err(|error| error.to_string()))
    };
    let (head, claims) = (read(head)?, read(claims)?);
    let der = PrivatePkcs1KeyDer::from_pem_slice(APP_KEY.as_bytes()).map_err(|error| error.to_string())?;
    let pair = ring::signature::RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(|error| error.to_string())?;
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::RSA_PKCS1_2048_8192_SHA256, pair.public());
    key.verify(signed.as_bytes(), &decode(signature)?).map_err(|error| error.to_string())?;
    let second = jiff::Timestamp::now().as_second();
    let (from, until) = (claims["iat"].as_i64().unwrap_or(0), claims["exp"].as_i64().unwrap_or(0));
    let is_good = head["alg"] == "RS256" && claims["iss"] == "Iv1.abc" && from <= second && until > second;
    if is_good && until - from <= 600 { Ok(()) } else { Err(format!("{head} {claims}")) }
}

/// True when a pull request comes from the branch that a question is about.
fn is_asked(pull: &Value, query: &str) -> bool {
    let branches = [&pull["head"], &pull["source_branch"], &pull["source"]["branch"]["name"]];
    branches.iter().filter_map(|branch| branch.as_str()).any(|branch| query.contains(&branch.replace('/', "%2F")))
}
