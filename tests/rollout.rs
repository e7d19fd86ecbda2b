//! Scenarios of rollouts as scripts with golden output, one file a story: `tests/rollout/*.txt`.
//!
//! In a script, lines that begin with `|` are what the controller made of the command before them; everything else is a command or
//! a `#` comment. `UPDATE_EXPECT=1 cargo test --test rollout` writes the output anew: read the difference before you commit it.
//!
//! ```text
//! commit c1 "subject" [rewritten] [refused=reason] [hold] [fast]   what the repository says from now on
//!   [maxUnavailable=2] [maxChangedGroups=1] [maxMovedAgents=10%] [allowFast=staging/**]   the policy that it is judged by; its
//!                                                    groups follow, indented:
//!   group NAME selector=k=v,k=a|b config=A [maxUnavailable=20%] [maxFailures=2] [deadline=10m] [soak=5m] [bake=5m]
//!              [expect=2..5] [priority=1] [suspend] [pause] [finish] [rejected] [stages=canary:1:5m,all:100%]
//!              [stages=default] [stages=name:k=v:5m:approval:max=2,all:100%] [spreadBy=k,k] [dependsOn=NAME,NAME]
//!              [window=allow_Mon-Fri_09:00-17:00_UTC;deny_2026-12-24_UTC]
//! again                                              the newest commit is taken once more
//! unrelated c2                                       a commit that changes nothing below the fleet root
//! fidget 200 NAME                                    so many commits, each with another priority of this group; what changes nothing
//!                                                    for any group is not shown
//! agents a1..a5 k=v[,k=v] [http] [nocaps] [noreport] [holds=A] [ill]
//! obey|mute|hang|die|stray a1..a5, fail a1 "words", late|sicken|crash a1 10s, script a1     what they make of an offer from now on
//! ... only B                                         the same of one configuration; of every other they make what is good
//! order pause|resume|abort|retry|unpin|restart|freeze|unfreeze [prod], promote prod|c1 [now], undo prod [A|c1], undo-since 10m,
//!   pin prod|a1 4h; then [by ada] [because "why"]    what a person orders, and what is answered
//! gap 10m                                            the process stands still
//! connect a1..a5 [unheard], bye a1, drop a1, reconnect a1
//! report a1 applied A | applying A | failed A "words" | healthy | unhealthy "words" | nothing | labels k=v
//! advance 5m, restart, store fails|works, store refuses|takes NAME (the record of one group), wipe a1
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
use gitamp::fleet::snapshot::RolloutTrailer;
use gitamp::time::{Timestamp, parse_duration, show_duration};
use gitamp::view::command::Command;
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
    started: Option<Timestamp>,
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

    fn told_to_restart(&mut self, world: &State, name: &str) {
        let kind = format!("{}restart", self.at(world));
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
            ["fidget", times, name] => self.fidget(times.parse().expect("a number"), name),
            ["observe"] => self.world.state.options.observe = true,
            ["agents", names, labels, flags @ ..] => self.agents(names, labels, flags),
            ["advance", length] => self.world.advance(parse_duration(length).expect("a duration")),
            ["gap", length] => self.world.stand_still(parse_duration(length).expect("a duration"), true),
            ["order", rest @ ..] => self.order(rest),
            ["restart"] => {
                for problem in self.world.restart() {
                    self.world.observer.line(format!("! {problem}"));
                }
            }
            ["store", "fails"] => self.world.state.weather.store_works = false,
            ["store", "works"] => self.world.state.weather.store_works = true,
            ["store", "refuses", group] => {
                self.world.state.weather.refused.insert(format!("groups/{group}/@record.yaml"));
            }
            ["store", "takes", group] => {
                self.world.state.weather.refused.remove(&format!("groups/{group}/@record.yaml"));
            }
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
        let commit = ModelCommit::new(self.commits.len() as u64 + 1, subject);
        self.world.observer.words.insert(commit.id().to_string(), name.to_owned());
        self.world.observer.words.insert(commit.id().short(), name.to_owned());
        self.commits.push(commit.clone());
        commit
    }

    fn commit(&mut self, name: &str, subject: &str, flags: &[&str], more: &[&str]) {
        let mut commit = self.model_commit(name, subject);
        for flag in flags {
            match flag.split_once('=') {
                Some(("refused", reason)) => commit.refused = Some(reason.replace('_', " ")),
                Some(("maxUnavailable", value)) => commit.policy.max_unavailable = Some(value.to_owned()),
                Some(("maxChangedGroups", value)) => commit.policy.max_changed_groups = Some(value.to_owned()),
                Some(("maxMovedAgents", value)) => commit.policy.max_moved_agents = Some(value.to_owned()),
                Some(("allowFast", value)) => commit.policy.allow_fast = Some(value.to_owned()),
                None if *flag == "rewritten" => commit.rewritten = true,
                None if *flag == "hold" => commit.trailer = Some(RolloutTrailer::Hold),
                None if *flag == "fast" => commit.trailer = Some(RolloutTrailer::Fast),
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

    /// A repository in which somebody changes whom a group selects, over and over.
    fn fidget(&mut self, times: u64, group: &str) {
        for _ in 0..times {
            let before = self.head.clone().expect("a commit before");
            let number = self.commits.len() as u64 + 1;
            let mut commit = self.model_commit(&format!("c{number}"), "fidget");
            (commit.groups, commit.policy) = (before.groups, before.policy);
            commit.groups.get_mut(group).expect("a known group").definition.priority += 1;
            self.head = Some(commit.clone());
            self.world.commit(commit.revision());
        }
        self.world.observer.end_run();
        self.world.observer.lines.retain(|line| !line.ends_with("(changes nothing for any group)"));
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

    /// What an agent makes of offers; `None`: the verb is about something else.
    fn outcome(verb: &str, rest: &[&str]) -> Option<Outcome> {
        let works = Duration::from_secs(5);
        let length = |text: &str| parse_duration(text).expect("a duration");
        Some(match (verb, rest) {
            ("obey", []) => Outcome::Works(works),
            ("mute", []) => Outcome::Silent,
            ("hang", []) => Outcome::Hangs,
            ("fail", [words]) => Outcome::Fails(works, (*words).to_owned()),
            ("late", [after]) => Outcome::IsLate(works, length(after)),
            ("die", []) => Outcome::DiesApplying(works),
            ("stray", []) => Outcome::RunsElse(works),
            ("sicken", [after]) => Outcome::FallsIll(works, length(after)),
            ("crash", [after]) => Outcome::Crashes(works, length(after)),
            _ => return None,
        })
    }

    fn act(&mut self, verb: &str, name: &str, rest: &[&str]) {
        let (rest, only) = match rest {
            [rest @ .., "only", config] => (rest, Some(self.name_config(config))),
            rest => (rest, None),
        };
        let nature = match (Self::outcome(verb, rest), only) {
            (Some(outcome), None) => Some(Nature::Always(outcome)),
            (Some(outcome), Some(hash)) => {
                Some(Nature::Only(BTreeMap::from([(hash, outcome)]), Outcome::Works(Duration::from_secs(5))))
            }
            (None, _) => (verb == "script" && rest.is_empty()).then_some(Nature::Scripted),
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

    /// The text by which the program knows what the script calls `name`: an agent's id, a commit, or what it is.
    fn formal(&self, name: &str) -> String {
        if let Some(agent) = self.world.state.agents.get(name) {
            return agent.id.to_string();
        }
        let is_it = |commit: &&ModelCommit| {
            self.world.observer.words.get(&commit.id().to_string()).is_some_and(|word| word == name)
        };
        self.commits.iter().find(is_it).map_or_else(|| name.to_owned(), |commit| commit.id().to_string())
    }

    fn order(&mut self, words: &[&str]) {
        let (words, reason) = match words {
            [words @ .., "because", reason] => (words, Some(*reason)),
            words => (words, None),
        };
        let (words, by) = match words {
            [words @ .., "by", by] => (words, *by),
            words => (words, "ada"),
        };
        let length = |text: &str| parse_duration(text).expect("a duration");
        let group = |name: &str| name.to_owned();
        let command = match words {
            ["pause", name] => Command::Pause { group: group(name) },
            ["resume", name] => Command::Resume { group: group(name) },
            ["abort", name] => Command::Abort { group: group(name) },
            ["retry", name] => Command::Retry { target: self.formal(name) },
            ["restart", name] => Command::Restart { target: self.formal(name) },
            ["promote", name] => Command::Promote { target: self.formal(name), now: false },
            ["promote", name, "now"] => Command::Promote { target: self.formal(name), now: true },
            ["undo", name] => Command::Undo { group: group(name), to: None },
            ["undo", name, to] => {
                let formal = self.formal(to);
                let to = if formal == *to { self.name_config(to).to_string() } else { formal };
                Command::Undo { group: group(name), to: Some(to) }
            }
            ["undo-since", ago] => {
                let now = self.world.state.now.as_millis();
                let ago = u64::try_from(length(ago).as_millis()).expect("short");
                Command::UndoSince { since: Timestamp::from_millis(now - ago) }
            }
            ["pin", name, long] => Command::Pin { target: self.formal(name), length: length(long) },
            ["unpin", name] => Command::Unpin { target: self.formal(name) },
            ["freeze"] => Command::Freeze { group: None },
            ["freeze", name] => Command::Freeze { group: Some(group(name)) },
            ["unfreeze"] => Command::Unfreeze { group: None },
            ["unfreeze", name] => Command::Unfreeze { group: Some(group(name)) },
            _ => panic!("no such order: {words:?}"),
        };
        let line = match self.world.order(command, by, reason) {
            Ok(impact) => impact.unstored.map(|words| format!("but: {words}")),
            Err(refusal) => Some(format!("no: {refusal}")),
        };
        if let Some(line) = line {
            let line = self.world.observer.plain(&line);
            self.world.observer.line(line);
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
                let stage = group.stage.as_ref().map(|stage| format!(" ({stage})")).unwrap_or_default();
                lines.push(format!("{}: {}{stage}{hashes}", group.name, group.phase));
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
                if let Some(restarts) = &group.restarts {
                    lines.push(format!("  restarts: {restarts}"));
                    for waiting in &restarts.waiting_on {
                        let until =
                            waiting.until.map(|until| format!(", until in {}", show_duration(until.since(now))));
                        lines.push(format!(
                            "    waits: {} ({}{})",
                            waiting.reason,
                            waiting.message,
                            until.unwrap_or_default()
                        ));
                    }
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
            let text = serde_yaml::to_string(&note.summarised()).expect("a note can be written");
            let report: CommitReport = serde_yaml::from_str(&text).expect("a note reads back");
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
