//! The collector decides how layers merge: its own library reads them, and what gitamp renders of them, and both must be the
//! same configuration.
//!
//! `tests/interop/build.sh` builds `tests/interop/confmap`, a program over the collector's library. Without it these tests say that they are
//! skipped. `GITAMP_CONFMAP_CASES` sets how many cases are generated, `GITAMP_CONFMAP_SEED` the seed; a difference names the seed that
//! plays its case alone.

#![expect(clippy::disallowed_methods, reason = "the variables are this test's own")]
#![expect(clippy::print_stdout, reason = "the test harness shows it when a test fails")]

#[path = "interop/built.rs"]
mod built;
#[path = "confmap/cases.rs"]
mod cases;
#[path = "confmap/generate.rs"]
mod generate;
#[path = "confmap/scalars.rs"]
mod scalars;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use gitamp::yaml::{self, Limits};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the collector says of one configuration.
#[derive(Debug, Deserialize)]
struct Reading {
    value: Option<Value>,
    error: Option<String>,
}

/// What it says of a case.
#[derive(Debug, Deserialize)]
struct Answer {
    layers: Reading,
    rendered: Option<Reading>,
}

/// What became of a case: the collector's word on the layers, and on what gitamp made of them; or why gitamp refused them.
struct Outcome {
    rendered: Result<String, String>,
    answer: Answer,
}

impl Outcome {
    /// Whether the collector reads the same from both.
    fn is_same(&self) -> bool {
        let Some(rendered) = &self.answer.rendered else { return false };
        rendered.error.is_none() && self.answer.layers.error.is_none() && rendered.value == self.answer.layers.value
    }

    /// Everything about it, for a person.
    fn show(&self, layers: &[String]) -> String {
        let mut text = String::new();
        for layer in layers {
            text.push_str(&format!("--- a layer: {layer:?}\n{layer}\n"));
        }
        match &self.rendered {
            Ok(rendered) => text.push_str(&format!("--- rendered: {rendered:?}\n{rendered}\n")),
            Err(error) => text.push_str(&format!("--- refused: {error}\n")),
        }
        text.push_str(&format!("--- the collector of the layers:  {:?}\n", self.answer.layers));
        text.push_str(&format!("--- the collector of the rendered: {:?}\n", self.answer.rendered));
        text
    }
}

/// Layers to the configuration that an agent gets, step by step as the renderer does it; a layer without content adds nothing.
fn render(layers: &[String]) -> Result<String, String> {
    let listed = |errors: Vec<yaml::YamlError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let mut merged = None;
    for (index, layer) in layers.iter().enumerate() {
        let file: Arc<str> = format!("{index}.yaml").into();
        let Some(node) = yaml::parse(&file, layer.as_bytes(), &Limits::default()).map_err(listed)? else { continue };
        if node.as_mapping().is_none() {
            return Err(format!("{}: a layer must be a map", node.place));
        }
        merged = Some(match merged {
            Some(base) => yaml::merge(base, node),
            None => node,
        });
    }
    let Some(merged) = merged else { return Ok(String::new()) };
    let ambiguous = yaml::ambiguous_keys(&merged);
    if ambiguous.is_empty() { Ok(yaml::emit(&merged)) } else { Err(listed(ambiguous)) }
}

/// Asks the collector's library about all cases, in one process, and hands each outcome on in their order.
fn ask(
    program: &Path,
    cases: impl Iterator<Item = Vec<String>> + Send,
    mut each: impl FnMut(usize, &[String], Outcome),
) {
    let mut child = Command::new(program.join("confmap"))
        // References are resolved on both sides alike: from these variables, and nothing else of this process's.
        .env_clear()
        .envs(scalars::VARIABLES.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = BufWriter::new(child.stdin.take().expect("it has an input"));
    let output = BufReader::new(child.stdout.take().expect("it has an output"));
    // As many as wait for their answers are in memory.
    let (send, asked) = std::sync::mpsc::sync_channel::<(Vec<String>, Result<String, String>)>(1_000);
    thread::scope(|scope| {
        scope.spawn(move || {
            for layers in cases {
                let rendered = render(&layers);
                let question = json!({"layers": layers, "rendered": rendered.as_ref().ok()});
                if send.send((layers, rendered)).is_err() || writeln!(input, "{question}").is_err() {
                    return;
                }
            }
        });
        let mut answers = output.lines();
        for (number, (layers, rendered)) in asked.into_iter().enumerate() {
            let line = answers.next().expect("an answer for each question").expect("text");
            let answer = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            each(number, &layers, Outcome { rendered, answer });
        }
    });
    assert!(child.wait().expect("it is ours to wait for").success());
}

/// What may become of a case without anybody having to change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// The collector reads the same from both.
    Same,
    /// Nobody takes it.
    BothRefuse,
    /// We refuse what the collector takes, for one of the [`STRICTER`] reasons.
    Stricter,
    /// The collector refuses the file, and reads what we make of it.
    MoreLenient,
    /// Anything else.
    Wrong,
}

/// Why we refuse what the collector takes: what is written would mean something else to other readers, or to people. docs/fleet-repository.md
/// has the list.
const STRICTER: &[&str] = &[
    "a key is missing before this `:`",
    "a map cannot be a key",
    "a second document starts here",
    "a space is missing behind the `:` of this key",
    "a space is missing behind this tag",
    "needs quotes inside",
    "is a path to the collector",
    "is no text to the collector",
    "no text in another",
    "is a line break for some YAML readers",
    // YAML's own rules, which the collector's reader does not hold.
    "plain scalar cannot start with '-'",
    "mapping values are not allowed in this context",
    "is not indented enough for it",
    "misplaced bracket",
    "did not find expected <document start>",
];

fn verdict(outcome: &Outcome) -> Verdict {
    let is_read = outcome.answer.rendered.as_ref().is_some_and(|reading| reading.error.is_none());
    match (&outcome.rendered, &outcome.answer.layers.error) {
        (Ok(_), None) if outcome.is_same() => Verdict::Same,
        (Err(_), Some(_)) => Verdict::BothRefuse,
        (Err(error), None) if STRICTER.iter().any(|reason| error.contains(reason)) => Verdict::Stricter,
        (Ok(_), Some(_)) if is_read => Verdict::MoreLenient,
        (Ok(_) | Err(_), _) => Verdict::Wrong,
    }
}

/// The cases of a table, as the collector's program takes them.
fn owned(layers: &[&str]) -> Vec<String> {
    layers.iter().map(|layer| (*layer).to_owned()).collect()
}

#[test]
fn written_cases_are_what_the_collector_makes_of_them() {
    let Some(program) = built::find("confmap", "written_cases_are_what_the_collector_makes_of_them") else { return };
    assert!(cases::SAME.len() >= 60, "many of them");
    ask(&program, cases::SAME.iter().map(|(_, layers, _)| owned(layers)), |number, layers, outcome| {
        let (why, _, expected) = cases::SAME[number];
        assert!(outcome.is_same(), "{why}\n{}", outcome.show(layers));
        let expected: Value = serde_json::from_str(expected).unwrap_or_else(|error| panic!("{why}: {error}"));
        assert_eq!(outcome.answer.layers.value, Some(expected), "{why}");
    });
    let long = [
        format!("a: {}\nb: [{}]", "x ".repeat(50_000), vec!["item"; 5_000].join(", ")),
        format!("a: {{? {} : 1}}", "k".repeat(2_000)),
    ];
    ask(&program, long.into_iter().map(|layer| vec![layer, "a: {b: 1}".to_owned()]), |_, layers, outcome| {
        assert!(outcome.is_same(), "{}", outcome.show(layers));
    });
}

#[test]
fn what_the_collector_refuses_is_refused() {
    let Some(program) = built::find("confmap", "what_the_collector_refuses_is_refused") else { return };
    ask(&program, cases::REFUSED_BY_BOTH.iter().map(|(_, layers)| owned(layers)), |number, layers, outcome| {
        assert_eq!(
            verdict(&outcome),
            Verdict::BothRefuse,
            "{}\n{}",
            cases::REFUSED_BY_BOTH[number].0,
            outcome.show(layers)
        );
    });
    ask(&program, cases::REFUSED_HERE.iter().map(|(_, layers, _)| owned(layers)), |number, layers, outcome| {
        let (why, _, message) = cases::REFUSED_HERE[number];
        let refused = outcome.rendered.as_ref().is_err_and(|error| error.contains(message));
        assert!(refused && verdict(&outcome) != Verdict::Wrong, "{why}\n{}", outcome.show(layers));
    });
    ask(&program, cases::TAKEN_HERE.iter().map(|(_, layers, _)| owned(layers)), |number, layers, outcome| {
        let (why, _, expected) = cases::TAKEN_HERE[number];
        assert_eq!(verdict(&outcome), Verdict::MoreLenient, "{why}\n{}", outcome.show(layers));
        let read = outcome.answer.rendered.and_then(|reading| reading.value);
        assert_eq!(read, serde_json::from_str(expected).ok(), "{why}");
    });
}

/// How many cases ended how, and the first that are wrong.
#[derive(Default)]
struct Tally {
    verdicts: BTreeMap<Verdict, usize>,
    wrong: Vec<String>,
}

impl Tally {
    /// `name`: how a person finds the case again.
    fn count(&mut self, name: impl FnOnce() -> String, layers: &[String], outcome: &Outcome) {
        let verdict = verdict(outcome);
        *self.verdicts.entry(verdict).or_default() += 1;
        if verdict == Verdict::Wrong && self.wrong.len() < 10 {
            self.wrong.push(format!("{}\n{}", name(), outcome.show(layers)));
        }
    }

    /// Nothing is wrong, and the cases are worth something: so many of a hundred were compared.
    fn check(&self, least_percent: usize) {
        println!("{:?}", self.verdicts);
        assert!(self.wrong.is_empty(), "{:?}\n{}", self.verdicts, self.wrong.join("\n\n"));
        let count: usize = self.verdicts.values().sum();
        let same = self.verdicts.get(&Verdict::Same).copied().unwrap_or_default();
        assert!(same * 100 >= count * least_percent, "too many cases compare nothing: {:?}", self.verdicts);
    }
}

#[test]
fn every_scalar_means_the_same_in_every_position() {
    let Some(program) = built::find("confmap", "every_scalar_means_the_same_in_every_position") else { return };
    let mut tally = Tally::default();
    ask(&program, scalars::documents().into_iter(), |_, layers, outcome| tally.count(String::new, layers, &outcome));
    tally.check(65);
}

#[test]
fn generated_layers_merge_as_the_collector_merges_them() {
    let Some(program) = built::find("confmap", "generated_layers_merge_as_the_collector_merges_them") else { return };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("GITAMP_CONFMAP_SEED").unwrap_or(1);
    let count = number("GITAMP_CONFMAP_CASES").unwrap_or(8_000);
    println!("{count} cases from seed {seed}");
    let mut tally = Tally::default();
    let cases = (0..count).map(|number| generate::layers(seed.wrapping_add(number)));
    ask(&program, cases, |number, layers, outcome| {
        let replay = || format!("GITAMP_CONFMAP_CASES=1 GITAMP_CONFMAP_SEED={}", seed.wrapping_add(number as u64));
        tally.count(replay, layers, &outcome);
    });
    tally.check(if count < 100 { 0 } else { 90 });
}

/// Every group of the example fleet, rendered as a person renders it, is a configuration to a collector that has its components.
#[test]
fn the_example_fleet_is_valid() {
    let Some(program) = built::find("agents", "the_example_fleet_is_valid") else { return };
    let fleet = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fleet");
    let run = |command: &mut Command| {
        let output = command.output().expect("it starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {error}");
        output.stdout
    };
    let directory = tempfile::tempdir().expect("a directory");
    let groups = [
        "dev/gateways",
        "dev/hosts",
        "staging/gateways",
        "staging/hosts",
        "prod/gateways",
        "prod/gateways@us",
        "prod/hosts",
    ];
    let checked = run(Command::new(env!("CARGO_BIN_EXE_gitamp")).arg("check").arg(&fleet));
    assert!(
        String::from_utf8_lossy(&checked).contains(&format!("{} groups", groups.len())),
        "all groups are named here"
    );
    for group in groups {
        let rendered = run(Command::new(env!("CARGO_BIN_EXE_gitamp")).args(["render", group]).current_dir(&fleet));
        let path = directory.path().join("collector.yaml");
        std::fs::write(&path, rendered).expect("written");
        run(Command::new(program.join("otelcol")).arg("validate").arg("--config").arg(&path));
    }
    // That it can say no.
    let path = directory.path().join("broken.yaml");
    std::fs::write(&path, "receivers: {nop: }\nexporters: {unheard: }\nservice: {pipelines: {logs: {receivers: [nop], exporters: [unheard]}}}").expect("written");
    let output =
        Command::new(program.join("otelcol")).arg("validate").arg("--config").arg(&path).output().expect("it starts");
    assert!(!output.status.success());
}
