//! Scenarios of rollouts as scripts with golden output, one file a story: `tests/rollout/*.txt`.
//!
//! In a script, lines that begin with `|` are what the controller made of the command before them; everything else is a command or
//! a `#` comment. `UPDATE_EXPECT=1 cargo test --test rollout` writes the output anew: read the difference before you commit it.
//!
//! ```text
//! commit c1 "subject" [rewritten] [refused=reason]   what the repository says from now on; its groups follow, indented:
//!   group NAME selector=k=v,k=a|b config=A [maxUnavailable=20%] [maxFailures=2] [deadline=10m] [soak=5m] [bake=5m]
//!              [expect=2..5] [priority=1] [suspend] [finish] [rejected]
//! again                                              the newest commit is taken once more
//! unrelated c2                                       a commit that changes nothing below the fleet root
//! agents a1..a5 k=v[,k=v] [http] [nocaps] [noreport] [holds=A] [ill]
//! obey|mute|hang|die a1..a5, fail a1 "words", late|sicken a1 10s, script a1     what they make of an offer from now on
//! connect a1..a5 [unheard], bye a1, drop a1, reconnect a1
//! report a1 applied A | applying A | failed A "words" | healthy | unhealthy "words" | nothing | labels k=v
//! advance 5m, restart, store fails, store works, wipe a1
//! show [agents] [notes]
//! ```

mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gitamp::agent::{Capabilities, ConfigState, ConfigStatus, Transport};
use gitamp::config::ConfigHash;
use gitamp::controller::Options;
use gitamp::time::{parse_duration, show_duration};
use gitamp::view::{AgentQuery, CommitReport, Counts};

use world::agent::{ModelAgent, Nature, Outcome};
use world::repository::{self, ModelCommit, ModelGroup};
use world::{Observer, OfferMade, State, World};

/// Writes down what happens, in the words of the script.
#[derive(Default)]
struct Diary {
    /// The name of every configuration and commit that was mentioned, by what stands in texts.
    words: BTreeMap<String, String>,
    lines: Vec<String>,
    /// Agents of one kind of event, at one time: they become one line.
    run: Option<(String, Vec<String>)>,
    started: Option<gitamp::time::Timestamp>,
}

impl Diary {
    fn at(&self, world: &State) -> String {
        match self.started.map(|started| world.now.since(started)) {
            Some(length) if !length.is_zero() => format!("+{}: ", show_duration(length)),
            Some(_) | None => String::new(),
        }
    }

    fn line(&mut self, line: String) {
        self.end_run();
        self.lines.push(line);
    }

    fn event(&mut self, kind: String, name: &str) {
        if self.run.as_ref().is_some_and(|(running, _)| *running != kind) {
            self.end_run();
        }
        self.run.get_or_insert_with(|| (kind, Vec::new())).1.push(name.to_owned());
    }

    fn end_run(&mut self) {
        if let Some((kind, names)) = self.run.take() {
            let line = format!("{kind} {}", names.join(" "));
            self.lines.push(line);
        }
    }

    fn config(&self, hash: ConfigHash) -> String {
        self.words.get(&hash.to_string()).cloned().unwrap_or_else(|| "?".to_owned())
    }

    /// The text with names in the place of hashes and ids.
    fn plain(&self, text: &str) -> String {
        // Whole hashes come before their short forms.
        let mut words: Vec<_> = self.words.iter().collect();
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        words.into_iter().fold(text.to_owned(), |text, (word, name)| text.replace(word, name))
    }
}

impl Observer for Diary {
    fn offer(&mut self, world: &State, offer: &OfferMade<'_>) {
        let kind = format!("{}offer {} ->", self.at(world), self.config(offer.config.hash()));
        self.event(kind, offer.name);
    }

    fn withdraw(&mut self, world: &State, name: &str) {
        let kind = format!("{}withdraw from", self.at(world));
        self.event(kind, name);
    }

    fn notice(&mut self, world: &State, text: &str) {
        let line = format!("{}{}", self.at(world), self.plain(text));
        self.line(line);
    }

    fn store(&mut self, world: &State, worked: bool) {
        if !worked {
            let line = format!("{}the journal cannot be written", self.at(world));
            self.line(line);
        }
    }
}

struct Script {
    world: World<Diary>,
    head: Option<ModelCommit>,
    commits: Vec<ModelCommit>,
}

impl Script {
    fn new() -> Self {
        let options = Options { observe: false, forget_after: Duration::from_secs(3600) };
        Self { world: World::new(options, 1, Diary::default()), head: None, commits: Vec::new() }
    }

    /// Runs one command with the indented lines that belong to it, and returns what is to be shown.
    fn run(&mut self, command: &str, more: &[&str]) -> Vec<String> {
        let words = split(command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.world.observer.started = Some(self.world.state.now);
        match words.as_slice() {
            ["commit", name, subject, flags @ ..] => self.commit(name, subject, flags, more),
            ["again"] => {
                let head = self.head.clone().expect("a commit before");
                self.world.commit(head.revision());
            }
            ["unrelated", name] => {
                let commit = self.model_commit(name, "unrelated");
                self.world.state.controller.handle_unrelated(commit.info());
            }
            ["observe"] => self.world.state.options.observe = true,
            ["agents", names, labels, flags @ ..] => self.agents(names, labels, flags),
            ["advance", length] => self.world.advance(parse_duration(length).expect("a duration")),
            ["restart"] => {
                for problem in self.world.restart() {
                    self.world.observer.line(format!("! {problem}"));
                }
            }
            ["store", "fails"] => self.world.state.weather.store_works = false,
            ["store", "works"] => self.world.state.weather.store_works = true,
            ["show", parts @ ..] => self.show(parts),
            [verb, names, rest @ ..] => {
                for name in expand(names) {
                    self.act(verb, &name, rest);
                }
            }
            [] | [_] => panic!("no such command: {command}"),
        }
        self.world.observer.end_run();
        std::mem::take(&mut self.world.observer.lines)
    }

    fn model_commit(&mut self, name: &str, subject: &str) -> ModelCommit {
        let number = self.commits.len() as u64 + 1;
        let (subject, groups) = (subject.to_owned(), BTreeMap::new());
        let commit = ModelCommit { number, subject, groups, refused: None, rewritten: false };
        self.world.observer.words.insert(commit.id().to_string(), name.to_owned());
        self.commits.push(commit.clone());
        commit
    }

    fn commit(&mut self, name: &str, subject: &str, flags: &[&str], more: &[&str]) {
        let mut commit = self.model_commit(name, subject);
        for flag in flags {
            match flag.split_once('=') {
                Some(("refused", reason)) => commit.refused = Some(reason.replace('_', " ")),
                None if *flag == "rewritten" => commit.rewritten = true,
                Some(_) | None => panic!("a commit has no `{flag}`"),
            }
        }
        for line in more {
            let words = split(line);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let ["group", group, rules @ ..] = words.as_slice() else { panic!("not a group: {line}") };
            let mut model = ModelGroup::new(repository::selector("*"), "A");
            rules.iter().for_each(|word| model.set(word));
            self.name_config(&model.config);
            commit.groups.insert((*group).to_owned(), model);
        }
        self.head = Some(commit.clone());
        self.world.commit(commit.revision());
    }

    fn name_config(&mut self, name: &str) -> ConfigHash {
        let hash = repository::hash(name);
        self.world.observer.words.insert(hash.to_string(), name.to_owned());
        self.world.observer.words.insert(hash.short(), name.to_owned());
        hash
    }

    fn agents(&mut self, names: &str, labels: &str, flags: &[&str]) {
        for name in expand(names) {
            let number = u16::try_from(self.world.state.agents.len() + 1).expect("few agents");
            let transport = if flags.contains(&"http") { Transport::Http } else { Transport::WebSocket };
            let mut agent = ModelAgent::new(number, repository::labels(labels), transport);
            agent.nature = Nature::Always(Outcome::Works(Duration::from_secs(5)));
            for flag in flags {
                match flag.split_once('=') {
                    Some(("holds", config)) => agent.say(self.name_config(config), ConfigStatus::Applied, None),
                    None if *flag == "nocaps" => agent.capabilities = Capabilities(0x2845),
                    None if *flag == "noreport" => agent.capabilities = Capabilities(0x2847),
                    None if *flag == "ill" => agent.is_well = false,
                    None if *flag == "http" => {}
                    Some(_) | None => panic!("an agent has no `{flag}`"),
                }
            }
            self.world.observer.words.insert(agent.id.to_string(), name.clone());
            self.world.state.agents.insert(name, agent);
        }
    }

    fn act(&mut self, verb: &str, name: &str, rest: &[&str]) {
        let works = Duration::from_secs(5);
        let nature = match (verb, rest) {
            ("obey", []) => Some(Nature::Always(Outcome::Works(works))),
            ("mute", []) => Some(Nature::Always(Outcome::Silent)),
            ("hang", []) => Some(Nature::Always(Outcome::Hangs)),
            ("script", []) => Some(Nature::Scripted),
            ("fail", [words]) => Some(Nature::Always(Outcome::Fails(works, (*words).to_owned()))),
            ("late", [after]) => {
                Some(Nature::Always(Outcome::IsLate(works, parse_duration(after).expect("a duration"))))
            }
            ("die", []) => Some(Nature::Always(Outcome::DiesApplying(works))),
            ("sicken", [after]) => {
                Some(Nature::Always(Outcome::FallsIll(works, parse_duration(after).expect("a duration"))))
            }
            _ => None,
        };
        if let Some(nature) = nature {
            self.world.state.agents.get_mut(name).expect("a known agent").nature = nature;
            return;
        }
        match (verb, rest) {
            ("connect", []) => self.world.connect(name, Some(Duration::ZERO)),
            ("connect", ["unheard"]) => self.world.connect(name, None),
            ("bye", []) => self.world.disconnect(name, true),
            ("drop", []) => self.world.disconnect(name, false),
            ("reconnect", []) => {
                self.world.disconnect(name, false);
                self.world.connect(name, Some(Duration::ZERO));
            }
            ("wipe", []) => self.world.change(name, ModelAgent::wipe),
            ("report", what) => self.report(name, what),
            _ => panic!("no such command: {verb} {name} {rest:?}"),
        }
    }

    fn report(&mut self, name: &str, what: &[&str]) {
        let mut hash = |config: &str| self.name_config(config);
        let change: Box<dyn FnOnce(&mut ModelAgent)> = match what {
            ["applied", config] => {
                let hash = hash(config);
                Box::new(move |agent| agent.say(hash, ConfigStatus::Applied, None))
            }
            ["applying", config] => {
                let hash = hash(config);
                Box::new(move |agent| agent.say(hash, ConfigStatus::Applying, None))
            }
            ["failed", config, words] => {
                let (hash, words) = (hash(config), (*words).to_owned());
                Box::new(move |agent| agent.say(hash, ConfigStatus::Failed, Some(&words)))
            }
            ["healthy"] => Box::new(|agent| (agent.is_well, agent.complaint) = (true, None)),
            ["unhealthy", words] => {
                let words = (*words).to_owned();
                Box::new(|agent| (agent.is_well, agent.complaint) = (false, Some(words)))
            }
            ["nothing"] => Box::new(|agent| agent.status = ConfigState::NOTHING),
            ["labels", labels] => {
                let labels = repository::labels(labels);
                Box::new(|agent| agent.labels = labels)
            }
            _ => panic!("no such report: {what:?}"),
        };
        self.world.change(name, change);
    }

    fn show(&mut self, parts: &[&str]) {
        let now = self.world.state.now;
        let status = self.world.state.controller.status("default", now);
        let mut lines = Vec::new();
        if parts.is_empty() {
            for group in &status.groups {
                let hash = |name: &str, hash: &Option<String>| {
                    hash.as_ref().map(|hash| format!(" {name}={hash}")).unwrap_or_default()
                };
                let hashes = [("stable", &group.stable), ("candidate", &group.candidate), ("wanted", &group.wanted)];
                let hashes: String = hashes.iter().map(|(name, value)| hash(name, value)).collect();
                lines.push(format!("{}: {}{hashes}", group.name, group.phase));
                lines.push(format!("  {}", counts(&group.counts)));
                for waiting in &group.waiting_on {
                    let until = waiting.until.map(|until| format!(", until in {}", show_duration(until.since(now))));
                    lines.push(format!(
                        "  waits: {} ({}{})",
                        waiting.reason,
                        waiting.message,
                        until.unwrap_or_default()
                    ));
                }
                for failure in &group.failures {
                    lines.push(format!(
                        "  failed: {} x {} (such as {})",
                        failure.count, failure.message, failure.example
                    ));
                }
                lines.extend(group.diagnostics.iter().map(|text| format!("  wrong: {text}")));
            }
            lines.extend(status.diagnostics.iter().map(|text| format!("wrong: {text}")));
        }
        for part in parts {
            match *part {
                "agents" => lines.extend(self.show_agents()),
                "notes" => lines.extend(self.show_notes()),
                other => panic!("nothing to show: {other}"),
            }
        }
        for line in lines {
            let line = self.world.observer.plain(&line);
            self.world.observer.line(line);
        }
    }

    fn show_agents(&self) -> Vec<String> {
        let list = self.world.state.controller.agents(&AgentQuery::default());
        let line = |agent: &gitamp::view::AgentStatus| {
            let mut line = format!("{}: {}", agent.id, agent.state);
            for (name, value) in [("in", &agent.group), ("has", &agent.hash), ("should", &agent.desired)] {
                if let Some(value) = value {
                    let _ = write!(line, " {name}={value}");
                }
            }
            if let Some(reason) = &agent.reason {
                let _ = write!(line, " ({reason})");
            }
            line
        };
        let mut lines: Vec<String> =
            list.agents.iter().map(line).map(|line| self.world.observer.plain(&line)).collect();
        lines.sort();
        lines
    }

    fn show_notes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for commit in &self.commits {
            let Some(note) = self.world.state.notes.get(&commit.id()) else {
                lines.push(format!("{}: no note", commit.id()));
                continue;
            };
            let report: CommitReport = serde_yaml::from_str(note).expect("a note reads back");
            let ending = report.ending.map_or_else(|| "running".to_owned(), |ending| ending.to_string());
            let flag = if report.rewritten_history { ", history was rewritten" } else { "" };
            lines.push(format!("{}: {ending}{flag}", commit.id()));
            lines.extend(report.diagnostics.iter().map(|text| format!("  {text}")));
            for (name, group) in &report.groups {
                let ending = group.ending.map_or_else(|| "running".to_owned(), |ending| ending.to_string());
                let candidate = group.candidate.clone().unwrap_or_else(|| "nothing".to_owned());
                lines.push(format!("  {name}: {ending} {candidate}, {}", counts(&group.counts)));
                for waiting in &group.waiting_on {
                    lines.push(format!("    waits: {}", waiting.reason));
                }
                for failure in &group.failures {
                    lines.push(format!("    failed: {} x {}", failure.count, failure.message));
                }
                lines.extend(group.diagnostics.iter().map(|text| format!("    wrong: {text}")));
            }
        }
        lines
    }
}

fn counts(counts: &Counts) -> String {
    let all = [
        ("selected", counts.selected),
        ("eligible", counts.eligible),
        ("pending", counts.pending),
        ("offered", counts.offered),
        ("confirmed", counts.confirmed),
        ("failed", counts.failed),
        ("held", counts.held),
        ("away", counts.away),
        ("lost", counts.lost),
        ("unavailable", counts.unavailable),
    ];
    let parts: Vec<String> =
        all.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}")).collect();
    if parts.is_empty() { "nobody".to_owned() } else { parts.join(", ") }
}

/// `a1..a3,b7` as names.
fn expand(names: &str) -> Vec<String> {
    let mut all = Vec::new();
    for part in names.split(',') {
        let Some((first, last)) = part.split_once("..") else {
            all.push(part.to_owned());
            continue;
        };
        let stem = first.trim_end_matches(|character: char| character.is_ascii_digit());
        let number = |name: &str| name.strip_prefix(stem).and_then(|rest| rest.parse::<usize>().ok());
        let (from, to) = (number(first).expect("a number"), number(last).expect("a number"));
        let digits = first.len() - stem.len();
        all.extend((from..=to).map(|number| format!("{stem}{number:0digits$}")));
    }
    all
}

/// Words, of which some stand between quotes.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Plays a script and returns it with the output as it is now.
fn play(text: &str) -> String {
    let mut script = Script::new();
    let mut played = String::new();
    let mut lines = text.lines().filter(|line| !line.starts_with('|')).peekable();
    while let Some(line) = lines.next() {
        let _ = writeln!(played, "{line}");
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut more = Vec::new();
        while let Some(indented) = lines.next_if(|line| line.starts_with(' ')) {
            let _ = writeln!(played, "{indented}");
            more.push(indented);
        }
        for shown in script.run(line, &more) {
            let _ = writeln!(played, "| {shown}");
        }
    }
    played
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rollout");
    let entries = std::fs::read_dir(folder).expect("the scripts");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths
}

#[test]
#[expect(clippy::disallowed_methods, reason = "UPDATE_EXPECT is for the person who runs the tests")]
fn scenarios_end_as_written() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let paths = scripts();
    assert!(paths.len() > 10, "the scripts are missing: {paths:?}");
    let mut wrong = Vec::new();
    for path in paths {
        let expected = std::fs::read_to_string(&path).expect("a script");
        let played = play(&expected);
        if played == expected {
            continue;
        }
        if update {
            std::fs::write(&path, &played).expect("the script can be written");
            continue;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let difference = expected.lines().zip(played.lines()).enumerate().find(|(_, (one, other))| one != other);
        let (line, (before, after)) = difference.unwrap_or((expected.lines().count(), ("(the end)", "(more)")));
        wrong.push(format!("{name}:{}: expected `{before}`, but it is `{after}`", line + 1));
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_EXPECT=1 writes them anew", wrong.join("\n"));
}
