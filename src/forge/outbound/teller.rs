//! The task that tells a forge what becomes of commits: one request at a time, never in anybody's way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::fleet::snapshot::CommitId;
use crate::forge::outbound::board::{self, Board};
use crate::forge::outbound::dialect::Call;
use crate::forge::outbound::errands::{self, Ask, Errands, Reply};
use crate::forge::outbound::feed::Feed;
use crate::forge::outbound::line::{Line, Trouble};
use crate::forge::outbound::statuses::{Naming, Status, statuses};
use crate::http::Answer;
use crate::settings::forge::ForgeSettings;
use crate::time::Timestamp;
use crate::view::{CommitReport, ForgeStatus};

/// Between two requests: what GitHub asks of everybody who writes.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// After the first failure.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// Between two tries while nothing works: a forge that is back is noticed after this at the latest.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// Endings that somebody waits to be told of; far more than the journal keeps.
const MOST_AWAITED: usize = 256;

/// What has been counted so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests that did what they were to do.
    pub succeeded: AtomicU64,
    /// Requests that failed and are tried again.
    pub failed: AtomicU64,
    /// Times that the forge asked to wait.
    pub throttled: AtomicU64,
    /// Statuses that the forge refused for good.
    pub refused: AtomicU64,
    /// Statuses that wait to be posted.
    pub waiting: AtomicU64,
}

/// What the task says to the daemon.
#[derive(Debug)]
pub enum Word {
    /// All that there is to say of this commit has been said.
    Told(CommitId),
    /// Make this branch, with the revert of this commit on top of what is followed.
    Revert {
        /// The commit that was taken back.
        commit: CommitId,
        /// What became of it.
        report: Box<CommitReport>,
        /// The branch, in its short form.
        branch: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Reverted>,
    },
}

/// What came of a branch that was to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reverted {
    /// It is on the remote; the branch that it is for, in its short form.
    Branch {
        /// In its short form.
        base: String,
    },
    /// There is nothing to revert, or it cannot be done; why.
    Needless(String),
    /// It did not work at the moment; why.
    Failed(String),
}

/// The task.
pub struct Teller {
    line: Line,
    naming: Naming,
    posts: bool,
    board: Board,
    errands: Errands,
    /// A branch that is being made, and for what.
    branching: Option<(CommitId, Ask, oneshot::Receiver<Reverted>)>,
    feed: Feed,
    words: mpsc::Sender<Word>,
    status: watch::Sender<Option<ForgeStatus>>,
    counts: Arc<Counts>,
    clock: Clock,
    /// Endings that somebody waits to be told of.
    awaited: BTreeSet<CommitId>,
    not_before: Timestamp,
    failures: u32,
    /// The same for errands alone: what does not work for them may work for statuses.
    errands_not_before: Timestamp,
    errand_failures: u32,
}

/// What to do now.
enum Step {
    Post(Status),
    Branch(CommitId, Ask),
    Ask(CommitId, Ask),
    Wait(Option<Timestamp>),
}

/// What a teller is connected to.
pub struct Wiring {
    /// What there is to tell.
    pub feed: Feed,
    /// What the daemon is told.
    pub words: mpsc::Sender<Word>,
    /// Where everybody sees how it goes.
    pub status: watch::Sender<Option<ForgeStatus>>,
    /// Counters.
    pub counts: Arc<Counts>,
    /// The time.
    pub clock: Clock,
}

impl Teller {
    /// A task that has not begun.
    pub fn new(settings: ForgeSettings, instance: &str, wiring: Wiring) -> Self {
        let Wiring { feed, words, status, counts, clock } = wiring;
        status.send_replace(Some(ForgeStatus {
            kind: settings.kind.to_string(),
            project: settings.project.clone(),
            ..ForgeStatus::default()
        }));
        Self {
            naming: Naming { instance: instance.to_owned(), target: settings.status_url.clone() },
            posts: settings.statuses,
            board: Board::new(settings.kind.takes_new_words()),
            errands: Errands::new(instance, settings.comment, settings.revert_pull_request),
            branching: None,
            line: Line::new(settings, clock),
            feed,
            words,
            status,
            counts,
            clock,
            awaited: BTreeSet::new(),
            not_before: clock.now(),
            failures: 0,
            errands_not_before: clock.now(),
            errand_failures: 0,
        }
    }

    /// Tells for ever; ends when nobody listens any more.
    pub async fn run(mut self) {
        loop {
            self.take_in();
            if self.say_told().await.is_err() {
                return;
            }
            match self.next() {
                Step::Post(status) => self.post(&status).await,
                Step::Branch(commit, ask) => {
                    if self.ask_for_branch(commit, ask).await.is_err() {
                        return;
                    }
                }
                Step::Ask(commit, ask) => self.run_errand(commit, &ask).await,
                Step::Wait(until) => {
                    let until = async {
                        match until {
                            Some(at) => tokio::time::sleep_until(self.clock.instant(at)).await,
                            None => std::future::pending().await,
                        }
                    };
                    let made = async {
                        match &mut self.branching {
                            Some((_, _, reply)) => reply.await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = self.feed.changed() => {}
                        () = until => {}
                        made = made => self.branch_made(made.ok()),
                    }
                }
            }
        }
    }

    /// What to do now: statuses first, they are what others wait for.
    fn next(&self) -> Step {
        let now = self.clock.now();
        if self.not_before > now {
            return Step::Wait(Some(self.not_before));
        }
        let of_board = match self.board.next(now) {
            board::Next::Post(status) => return Step::Post(status),
            board::Next::At(at) => Some(at),
            board::Next::Idle => None,
        };
        let of_errands = match self.errands.next(now) {
            // One branch at a time; everything else about it waits.
            errands::Next::Ask(..) if self.branching.is_some() => None,
            errands::Next::Ask(..) if self.errands_not_before > now => Some(self.errands_not_before),
            errands::Next::Ask(commit, ask @ Ask::Branch(_)) => return Step::Branch(commit, ask),
            errands::Next::Ask(commit, ask) => return Step::Ask(commit, ask),
            errands::Next::At(at) => Some(at),
            errands::Next::Idle => None,
        };
        Step::Wait(of_board.into_iter().chain(of_errands).min())
    }

    fn take_in(&mut self) {
        let now = self.clock.now();
        for news in self.feed.take() {
            if self.posts {
                let wanted = statuses(news.commit, &news.report, news.is_open, &self.naming);
                self.board.want(news.commit, wanted, news.is_open, now);
            }
            self.errands.want(news.commit, news.report, news.is_open);
            if !news.is_open && news.is_awaited {
                self.awaited.insert(news.commit);
            }
            while self.awaited.len() > MOST_AWAITED {
                self.awaited.pop_first();
            }
        }
        self.counts.waiting.store(u64::try_from(self.board.waiting()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    async fn say_told(&mut self) -> Result<(), mpsc::error::SendError<Word>> {
        let is_told = |commit: &CommitId| self.board.is_told(*commit) && self.errands.is_done(*commit);
        let told: Vec<CommitId> = self.awaited.iter().copied().filter(is_told).collect();
        for commit in told {
            self.awaited.remove(&commit);
            self.words.send(Word::Told(commit)).await?;
        }
        Ok(())
    }

    async fn post(&mut self, status: &Status) {
        let call = self.line.project().post_status(status);
        let outcome = self.line.ask(&call).await;
        let now = self.clock.now();
        match &outcome {
            Ok(_) => {
                tracing::debug!(commit = %status.commit.short(), context = status.context, state = %status.state, "told the forge");
                self.board.posted(status, now);
            }
            Err(Trouble::Refused(why)) => {
                if self.board.refused(status, now) {
                    self.counts.refused.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(commit = %status.commit.short(), context = status.context, "the forge refuses this status for good: {why}");
                }
            }
            Err(Trouble::Later(_) | Trouble::Unreachable(_) | Trouble::Transient(_) | Trouble::Denied(_)) => {}
        }
        self.after(outcome.err());
    }

    /// Asks the daemon for a branch; the answer comes while other things are said.
    async fn ask_for_branch(&mut self, commit: CommitId, ask: Ask) -> Result<(), mpsc::error::SendError<Word>> {
        let (Some(report), Ask::Branch(branch)) = (self.errands.report(commit), &ask) else { return Ok(()) };
        let (reply, answer) = oneshot::channel();
        let word = Word::Revert { commit, report: Box::new(report.clone()), branch: branch.clone(), reply };
        self.words.send(word).await?;
        self.branching = Some((commit, ask, answer));
        Ok(())
    }

    fn branch_made(&mut self, made: Option<Reverted>) {
        let Some((commit, ask, _)) = self.branching.take() else { return };
        let reply = match made {
            Some(Reverted::Branch { base }) => Reply::Branch(base),
            Some(Reverted::Needless(why)) => {
                tracing::info!(commit = %commit.short(), "no revert pull request: {why}");
                Reply::Needless(why)
            }
            Some(Reverted::Failed(why)) => {
                tracing::warn!(commit = %commit.short(), "the branch with the revert could not be made: {why}");
                Reply::Refused
            }
            None => Reply::Refused,
        };
        self.errands.answered(commit, &ask, reply, self.clock.now());
    }

    /// Runs one request of an errand. What the forge does not allow here it may allow for statuses, and what fails here may work
    /// there: statuses wait only when nobody hears us, or fewer requests are wanted.
    async fn run_errand(&mut self, commit: CommitId, ask: &Ask) {
        let project = self.line.project().clone();
        let call: Call = match ask {
            Ask::Merged => project.find_merged(commit),
            Ask::Comments { pull, since, .. } => project.list_comments(*pull, *since),
            Ask::Comment { pull, comment: Some(comment), text } => project.update_comment(*pull, *comment, text),
            Ask::Comment { pull, comment: None, text } => project.create_comment(*pull, text),
            Ask::PullFrom(branch) => project.find_pulls_from(branch),
            Ask::Open(new) => project.open_pull(new),
            Ask::Branch(_) => return,
        };
        let mut outcome = self.line.ask(&call).await;
        if let (Ask::Merged, Err(Trouble::Denied(why) | Trouble::Refused(why))) = (ask, &outcome)
            && why.contains("(404)")
        {
            // Gitea's way to say that there is none.
            outcome = Ok(Answer::default());
        }
        let reply = match &outcome {
            Ok(answer) => match ask {
                Ask::Merged => Reply::Number(project.read_merged(commit, &answer.body)),
                Ask::Comments { marker, .. } => Reply::Number(project.read_comment(marker, &answer.body)),
                Ask::Comment { comment, .. } => Reply::Number(comment.or_else(|| project.read_id(&answer.body))),
                Ask::PullFrom(branch) => Reply::Address(project.read_pull_from(branch, &answer.body)),
                Ask::Open(new) => {
                    let address = project.read_opened(&answer.body);
                    tracing::info!(commit = %commit.short(), "opened a pull request that reverts it, from {}: {address}", new.branch);
                    Reply::Address(Some(address))
                }
                Ask::Branch(_) => return,
            },
            Err(Trouble::Denied(_) | Trouble::Refused(_)) => Reply::Refused,
            Err(Trouble::Transient(_)) => Reply::Lost,
            // It was not even looked at.
            Err(Trouble::Later(_) | Trouble::Unreachable(_)) => Reply::Unheard,
        };
        let now = self.clock.now();
        self.errands.answered(commit, ask, reply, now);
        let trouble = outcome.err();
        if let Some(Trouble::Transient(_)) = trouble {
            self.errands_not_before = now + backoff(&mut self.errand_failures);
        } else {
            self.errand_failures = 0;
        }
        self.after(match trouble {
            Some(Trouble::Denied(why) | Trouble::Transient(why)) => Some(Trouble::Refused(why)),
            other => other,
        });
    }

    /// When the next request may go, and what people see.
    fn after(&mut self, trouble: Option<Trouble>) {
        let now = self.clock.now();
        let exhausted = self.line.take_exhausted();
        let (pause, error) = match trouble {
            None => {
                self.counts.succeeded.fetch_add(1, Ordering::Relaxed);
                self.failures = 0;
                (exhausted.unwrap_or(LEAST_PAUSE), None)
            }
            Some(Trouble::Refused(why)) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                self.failures = 0;
                (exhausted.unwrap_or(LEAST_PAUSE), Some(why))
            }
            Some(Trouble::Later(pause)) => {
                self.counts.throttled.fetch_add(1, Ordering::Relaxed);
                tracing::info!(retry_in = ?pause, "the forge wants fewer requests");
                (pause, Some("the forge wants fewer requests".to_owned()))
            }
            Some(Trouble::Unreachable(why) | Trouble::Transient(why) | Trouble::Denied(why)) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                (backoff(&mut self.failures), Some(why))
            }
        };
        self.not_before = now + pause.max(LEAST_PAUSE);
        let is_other = self.status.borrow().as_ref().is_some_and(|status| status.error != error);
        if let Some(error) = error.as_ref().filter(|_| is_other) {
            tracing::warn!(retry_in = ?pause, "the forge cannot be told: {error}");
        }
        self.status.send_modify(|status| {
            if let Some(status) = status {
                if error.is_none() {
                    status.last_told = Some(now);
                }
                status.error = error;
            }
        });
    }
}

/// The pause after so many failures and one more: doubled each time, and spread over its upper half so that many daemons do not come
/// back together.
fn backoff(failures: &mut u32) -> Duration {
    let full = FIRST_RETRY.saturating_mul(1 << (*failures).min(6)).min(LONGEST_RETRY);
    *failures = failures.saturating_add(1);
    full.mul_f64(0.5 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::forge::outbound::tests::report;
    use crate::settings::SecretFile;
    use crate::settings::forge::{Access, Kind};

    /// A teller of a forge at this port of this machine, with a token in this file.
    fn teller(port: u16, token: &std::path::Path) -> Teller {
        let settings = ForgeSettings {
            kind: Kind::GitHub,
            api: format!("http://127.0.0.1:{port}").parse().expect("an address"),
            project: "team/fleet".to_owned(),
            access: Access::Token { file: SecretFile::new(token.to_owned()), user: None },
            ca_file: None,
            proxies: crate::settings::proxy::Proxies::default(),
            largest_answer: 1 << 20,
            statuses: true,
            comment: true,
            revert_pull_request: true,
            status_url: None,
        };
        let wiring = Wiring {
            feed: Feed::default(),
            words: mpsc::channel(1).0,
            status: watch::Sender::new(None),
            counts: Arc::default(),
            clock: Clock::start(),
        };
        Teller::new(settings, "blue", wiring)
    }

    #[tokio::test]
    async fn an_errand_that_fails_holds_errands_and_one_that_nobody_hears_holds_everything() {
        let token = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(token.path(), "t0ken\n").expect("writing");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let answers = ["500 Oops", "502 Oops", "200 OK"];
        let server = tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a request"));
                }
                let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]");
                stream.write_all(answer.as_bytes()).await.expect("it is read");
            }
        });
        let mut teller = teller(port, token.path());
        let commit = CommitId([1; 20]);
        for number in 1..=2 {
            teller.errands.want(CommitId([number; 20]), report(None, Vec::new()), true);
        }
        for tried in 1..=2 {
            let before = teller.clock.now();
            teller.run_errand(commit, &Ask::Merged).await;
            assert_eq!((teller.failures, teller.errand_failures), (0, tried), "statuses do not wait for that");
            assert!(teller.errands_not_before >= before + FIRST_RETRY / 2, "errands do");
            // Of another commit nothing was asked yet.
            (teller.not_before, teller.errands_not_before) = (before, teller.clock.now() + LONGEST_RETRY);
            let held = Some(teller.errands_not_before);
            assert!(
                matches!(teller.next(), Step::Wait(until) if until.is_some() && until <= held),
                "and those of others"
            );
        }
        let said = teller.status.borrow().clone().and_then(|status| status.error).expect("it is said");
        assert!(said.contains("502"), "{said}");
        teller.run_errand(commit, &Ask::Merged).await;
        assert_eq!((teller.failures, teller.errand_failures), (0, 0), "it works again");
        server.await.expect("all were asked");
        teller.run_errand(commit, &Ask::Merged).await;
        assert_eq!((teller.failures, teller.errand_failures), (1, 0), "nobody is there: nothing else works either");
    }
}
