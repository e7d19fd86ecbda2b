//! Holds the walls of the house: which module may import what, what pure modules never do, and how long a file may grow.
//!
//! The rules are functions over a path and its text, so each of them is proved on a small bad snippet below. When a rule is in
//! the way, the design may be wrong: change the table here, with the reason, in the same commit.

#![expect(clippy::wildcard_enum_match_arm, reason = "syn's enums are not ours, and cannot be matched completely")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use proc_macro2::{Spacing, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// One broken rule.
#[derive(Debug)]
struct Finding {
    file: String,
    line: usize,
    rule: &'static str,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.message)
    }
}

/// A source file as the rules see it: without the items that only exist under `#[cfg(test)]`.
struct Source {
    /// From the root of the repository: `src/fleet/mod.rs`.
    path: String,
    text: String,
    /// `["fleet", "snapshot"]` for `src/fleet/snapshot.rs`; empty for `lib.rs`.
    module: Vec<String>,
    syntax: syn::File,
    /// Every path that the code names, imports applied, with its line.
    paths: Vec<(Vec<String>, usize)>,
}

impl Source {
    fn parse(path: &str, text: &str) -> Self {
        let mut syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{path} is no Rust: {error}"));
        syntax.items.retain(|item| !is_test_only(item));
        let module = module_of(path);
        let mut names = Names { module: module.clone(), ..Names::default() };
        names.visit_file(&syntax);
        let paths = names.resolved();
        Self { path: path.to_owned(), text: text.to_owned(), module, syntax, paths }
    }

    /// The room of the house: `fleet`, `daemon`, `main`, `lib`.
    fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }

    fn finding(&self, line: usize, rule: &'static str, message: impl Into<String>) -> Finding {
        Finding { file: self.path.clone(), line, rule, message: message.into() }
    }
}

/// The attributes of an item.
fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test_only(item: &syn::Item) -> bool {
    attributes(item).iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

fn module_of(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    if inner == "lib" { Vec::new() } else { inner.split('/').map(str::to_owned).collect() }
}

/// Collects the paths that a file names.
#[derive(Default)]
struct Names {
    module: Vec<String>,
    /// What each imported name stands for.
    imports: BTreeMap<String, Vec<String>>,
    seen: Vec<(Vec<String>, usize)>,
}

impl Names {
    fn flatten(&mut self, tree: &syn::UseTree, prefix: &[String]) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.flatten(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) if name.ident == "self" => self.import(prefix.to_vec(), None, name.ident.span()),
            syn::UseTree::Name(name) => self.import(with(&name.ident), None, name.ident.span()),
            syn::UseTree::Rename(rename) => {
                let full = if rename.ident == "self" { prefix.to_vec() } else { with(&rename.ident) };
                self.import(full, Some(rename.rename.to_string()), rename.ident.span());
            }
            syn::UseTree::Glob(glob) => self.seen.push((prefix.to_vec(), glob.star_token.spans[0].start().line)),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.flatten(item, prefix)),
        }
    }

    fn import(&mut self, full: Vec<String>, renamed: Option<String>, span: Span) {
        if let Some(name) = renamed.or_else(|| full.last().cloned()) {
            self.imports.insert(name, full.clone());
        }
        self.seen.push((full, span.start().line));
    }

    /// Paths inside a macro's arguments are tokens only: identifiers joined by `::`.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut line, mut colons) = (Vec::new(), 0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons < 2 {
                        self.seen.extend((!path.is_empty()).then(|| (std::mem::take(&mut path), line)));
                        line = name.span().start().line;
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.tokens(group.stream());
                    colons = 0;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => colons = 0,
            }
        }
        self.seen.extend((!path.is_empty()).then_some((path, line)));
    }

    /// The paths with `self`, `super` and imported names written out.
    fn resolved(self) -> Vec<(Vec<String>, usize)> {
        let from_root = |path: &[String]| -> Vec<String> {
            let ups = path.iter().take_while(|segment| *segment == "super").count();
            let starts_here = path.first().is_some_and(|first| first == "self");
            if ups == 0 && !starts_here {
                return path.to_vec();
            }
            let kept = &self.module[..self.module.len().saturating_sub(ups)];
            [&["crate".to_owned()][..], kept, &path[ups + usize::from(starts_here)..]].concat()
        };
        let expand = |(path, line): &(Vec<String>, usize)| {
            let imported = path.first().and_then(|first| self.imports.get(first)).filter(|full| *full != path);
            let full = imported.map_or_else(|| path.clone(), |full| [full, &path[1..]].concat());
            (from_root(&full), *line)
        };
        self.seen.iter().map(expand).collect()
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.flatten(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.seen.push((segments, path.segments.first().map_or(0, |first| first.ident.span().start().line)));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------------
// The rules.

/// What of ours each room may import besides itself; a room that is not listed may import everything.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("labels", &[]),
    ("config", &[]),
    // The canonical form of a document is what a configuration's hash is made of, and its components have names: words of `config`.
    ("yaml", &["config"]),
    ("settings", &["time"]),
    ("trust", &["time"]),
    ("identity", &["time", "labels"]),
    ("clock", &["time"]),
    ("fleet", &["time", "labels", "config", "yaml"]),
    ("agent", &["time", "labels", "config"]),
    // A group's name is a word, not the fleet: strategies depend on groups by name.
    ("rollout", &["fleet::strategy", "fleet::GroupName", "labels", "config", "time"]),
    ("roster", &["fleet", "agent", "labels", "config", "time", "rollout"]),
    // `identity`: which labels cannot be claimed is said where they are given.
    ("opamp", &["agent", "labels", "identity", "config", "time", "yaml"]),
    ("view", &["time", "labels", "config", "yaml", "fleet", "agent", "rollout", "roster"]),
    ("controller", &["time", "labels", "config", "yaml", "fleet", "agent", "rollout", "roster", "view"]),
    ("git", &["fleet::snapshot", "view", "time", "settings"]),
    ("incident", &["time", "view"]),
    ("http", &["time", "settings"]),
    ("alert", &["incident", "view", "time", "clock", "settings", "http"]),
    // `clock`: an App's proof is dated, and limits are said as points in time.
    ("forge", &["fleet::snapshot", "view", "time", "clock", "settings", "http"]),
    // `config`: what is offered goes through the hands of the listener, as a value that it does not look into.
    (
        "serve",
        &[
            "opamp", "agent", "config", "labels", "identity", "view", "forge", "alert", "incident", "time", "clock",
            "settings",
        ],
    ),
];

/// Rooms that may import everything: where the house is joined.
const JOINS: &[&str] = &["lib", "main", "daemon", "cli", "simulate"];

fn imports_keep_to_the_table(source: &Source) -> Vec<Finding> {
    let room = source.room();
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == room) else {
        return if JOINS.contains(&room) {
            Vec::new()
        } else {
            vec![source.finding(
                1,
                "imports",
                format!("the room `{room}` is not in the table of tests/tidy.rs; add it"),
            )]
        };
    };
    let mut findings = Vec::new();
    for (path, line) in &source.paths {
        let [first, inner @ ..] = &path[..] else { continue };
        if first != "crate" || inner.is_empty() || inner[0] == room {
            continue;
        }
        let inner = inner.join("::");
        let fits = |allowed: &&str| inner == **allowed || inner.starts_with(&format!("{allowed}::"));
        if !allowed.iter().any(fits) {
            let list = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
            let message =
                format!("`{room}` names `crate::{inner}`, but may import {list}; see src/lib.rs for the walls");
            findings.push(source.finding(*line, "imports", message));
        }
    }
    findings
}

/// Rooms without I/O, clock, async, locks, randomness and environment.
const PURE: &[&str] = &[
    "lib",
    "time",
    "labels",
    "config",
    "yaml",
    "fleet",
    "agent",
    "rollout",
    "roster",
    "controller",
    "view",
    "incident",
    "opamp",
    "trust",
    "identity",
];

/// Modules as pure as those rooms, in rooms that are not.
const PURE_INSIDE: &[&str] = &[
    "alert::payload",
    "forge::outbound::board",
    "forge::outbound::comment",
    "forge::outbound::dialect",
    "forge::outbound::errands",
    "forge::outbound::pulls",
    "forge::outbound::statuses",
    "serve::api::holder",
    "serve::api::pace",
];

/// What a pure room never names: the beginning of a path, and why.
const IMPURE: &[(&str, &str)] = &[
    ("std::time::Instant", "time is an argument"),
    ("std::time::SystemTime", "time is an argument"),
    ("jiff::Timestamp::now", "time is an argument"),
    ("jiff::Zoned::now", "time is an argument"),
    ("uuid::Uuid::now_v7", "it reads the clock and randomness"),
    ("uuid::Uuid::new_v4", "randomness is an argument"),
    ("std::env", "settings.rs alone reads the environment"),
    ("std::fs", "files are read by shells"),
    ("std::net::Tcp", "sockets belong to shells"),
    ("std::thread", "a pure machine runs where it is called"),
    ("std::process", "processes belong to shells"),
    ("std::io::stdin", "only cli/ talks to the terminal"),
    ("std::io::stdout", "only cli/ talks to the terminal"),
    ("std::io::stderr", "only cli/ talks to the terminal"),
    ("std::sync::Mutex", "a pure machine has one owner"),
    ("std::sync::RwLock", "a pure machine has one owner"),
    ("std::sync::Condvar", "a pure machine has one owner"),
    ("std::sync::Once", "nothing is initialised behind the caller's back"),
    ("std::sync::OnceLock", "nothing is initialised behind the caller's back"),
    ("std::sync::LazyLock", "nothing is initialised behind the caller's back"),
    ("std::sync::mpsc", "queues belong to shells"),
    ("std::sync::atomic", "a pure machine has one owner"),
    ("std::cell::OnceCell", "nothing is initialised behind the caller's back"),
    ("thread_local", "a pure machine runs where it is called"),
    ("tokio", "async belongs to shells"),
    ("futures_util", "async belongs to shells"),
    ("rand", "randomness is an argument"),
    ("fastrand", "randomness is an argument"),
    ("getrandom", "randomness is an argument"),
    ("tempfile", "files are read by shells"),
    ("notify", "files are watched by shells"),
    ("git2", "git belongs to git/"),
    ("axum", "HTTP belongs to serve/"),
    ("hyper", "HTTP belongs to serve/"),
    ("hyper_util", "HTTP belongs to serve/"),
    ("tokio_tungstenite", "sockets belong to serve/"),
    ("tracing", "what is worth a line in the log is a value; the shell writes it"),
    ("println", "only cli/ prints"),
    ("print", "only cli/ prints"),
    ("eprintln", "only cli/ prints"),
    ("eprint", "only cli/ prints"),
    ("dbg", "only cli/ prints"),
];

/// Exceptions to `IMPURE`, each with its reason.
const IMPURE_HERE: &[(&str, &str, &str)] = &[(
    "config",
    "std::sync::OnceLock",
    "the encoded form of a body is a pure function of it, kept once for 20,000 agents; nobody can observe when it is made",
)];

fn pure_rooms_stay_pure(source: &Source) -> Vec<Finding> {
    let module = source.module.join("::");
    if !PURE.contains(&source.room()) && !PURE_INSIDE.contains(&module.as_str()) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (path, line) in &source.paths {
        let path = path.join("::").replacen("core::", "std::", 1);
        let Some((what, why)) = IMPURE.iter().find(|(what, _)| path == *what || path.starts_with(&format!("{what}::")))
        else {
            continue;
        };
        if !IMPURE_HERE.iter().any(|(here, this, _)| *here == module && this == what) {
            let message = format!("`{}` is pure and must not name `{path}`: {why}", source.room());
            findings.push(source.finding(*line, "purity", message));
        }
    }
    let mut waits = Waits::default();
    waits.visit_file(&source.syntax);
    findings.extend(waits.0.into_iter().map(|line| {
        source.finding(line, "purity", format!("`{}` is pure and must not wait: no async, no await", source.room()))
    }));
    findings
}

/// The lines where something is async.
#[derive(Default)]
struct Waits(Vec<usize>);

impl<'ast> Visit<'ast> for Waits {
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.0.extend(signature.asyncness.map(|token| token.span.start().line));
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.0.push(block.async_token.span.start().line);
        visit::visit_expr_async(self, block);
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        self.0.extend(closure.asyncness.map(|token| token.span.start().line));
        visit::visit_expr_closure(self, closure);
    }

    fn visit_expr_await(&mut self, wait: &'ast syn::ExprAwait) {
        self.0.push(wait.await_token.span.start().line);
        visit::visit_expr_await(self, wait);
    }
}

/// Names that may only be used in some rooms: the beginning of a path, the modules where it is at home, and why.
const AT_HOME: &[(&[&str], &[&str], &str)] = &[
    (&["crate::opamp::proto", "prost"], &["opamp", "simulate"], "protobuf stops at the border: only opamp/ speaks it"),
    (
        &["serde", "serde_json", "serde_yaml"],
        &[
            "view",
            "config",              // a hash is text wherever it is written
            "time",                // so is a point in time
            "rollout::record",     // the journal's records: what they hold,
            "controller::record",  //   and as a whole,
            "controller::storage", //   to the files of the journal,
            "controller::restore", //   and back from them
            "identity",            // tokens and claims are JSON and YAML
            "settings",
            "git",
            "serve",
            "forge",
            "incident", // what is remembered of them over a restart
            "alert",
            "cli",
            "simulate",
        ],
        "serde is for what is written down or shown: settings, records, reports, interfaces",
    ),
    (&["git2", "libgit2_sys"], &["git", "simulate", "cli::demo"], "libgit2 stays behind git/"),
];

fn border_names_stay_at_home(source: &Source) -> Vec<Finding> {
    let module = source.module.join("::");
    let mut findings = Vec::new();
    for (names, homes, why) in AT_HOME {
        if homes.iter().any(|home| module == *home || module.starts_with(&format!("{home}::"))) {
            continue;
        }
        for (path, line) in &source.paths {
            let path = path.join("::");
            if names.iter().any(|name| path == *name || path.starts_with(&format!("{name}::"))) {
                findings.push(source.finding(*line, "borders", format!("`{path}` has no business here: {why}")));
            }
        }
    }
    findings
}

fn starts_with_its_purpose(source: &Source) -> Vec<Finding> {
    let first = source.text.lines().next().unwrap_or_default();
    match first.strip_prefix("//! ") {
        Some(purpose) if !purpose.trim().is_empty() => Vec::new(),
        _ => vec![source.finding(1, "purpose", "a file starts with `//!` and one sentence that says what it is for")],
    }
}

/// Lines of code that a file may have, without tests, comments and blank lines.
const LONGEST_FILE: usize = 500;

fn files_fit_one_head(source: &Source) -> Vec<Finding> {
    let mut lines = BTreeSet::new();
    for item in &source.syntax.items {
        code_lines(quote(item), &mut lines);
    }
    if lines.len() <= LONGEST_FILE {
        return Vec::new();
    }
    let message = format!("{} lines of code, more than {LONGEST_FILE}: split it along its nouns", lines.len());
    vec![source.finding(1, "length", message)]
}

fn quote(item: &syn::Item) -> TokenStream {
    use quote::ToTokens;
    item.to_token_stream()
}

/// The lines on which tokens stand; a documentation comment is an attribute to the parser, and none to us.
fn code_lines(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        if let TokenTree::Punct(mark) = &token
            && mark.as_char() == '#'
            && mark.spacing() == Spacing::Alone
            && matches!(tokens.peek(), Some(TokenTree::Group(group)) if group.stream().to_string().starts_with("doc ="))
        {
            tokens.next();
            continue;
        }
        if let TokenTree::Group(group) = &token {
            lines.insert(group.span_open().start().line);
            lines.insert(group.span_close().end().line);
            code_lines(group.stream(), lines);
        } else {
            lines.extend(token.span().start().line..=token.span().end().line);
        }
    }
}

fn names_say_something(source: &Source) -> Vec<Finding> {
    const NOTHING: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "types", "models"];
    let empty = source.module.iter().find(|name| NOTHING.contains(&name.as_str()));
    empty
        .map(|name| {
            source.finding(1, "names", format!("`{name}` says nothing: a thing lives with the noun it belongs to"))
        })
        .into_iter()
        .collect()
}

const RULES: &[fn(&Source) -> Vec<Finding>] = &[
    starts_with_its_purpose,
    imports_keep_to_the_table,
    pure_rooms_stay_pure,
    border_names_stay_at_home,
    files_fit_one_head,
    names_say_something,
];

fn check(path: &str, text: &str) -> Vec<Finding> {
    let source = Source::parse(path, text);
    RULES.iter().flat_map(|rule| rule(&source)).collect()
}

// ---------------------------------------------------------------------------------------------------------------------------
// The house itself.

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("an entry of a directory").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

/// The modules of a file that are declared elsewhere and only for tests: `#[cfg(test)] mod scenarios;`.
fn test_only_modules(path: &str, text: &str) -> Vec<String> {
    let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{path} is no Rust: {error}"));
    let here = module_of(path);
    let declared = |item: &syn::Item| match item {
        syn::Item::Mod(module) if module.content.is_none() && is_test_only(item) => {
            Some([&here[..], &[module.ident.to_string()]].concat().join("::"))
        }
        _ => None,
    };
    syntax.items.iter().filter_map(declared).collect()
}

#[test]
fn the_house_keeps_its_walls() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path.strip_prefix(root).expect("a path below the root").to_string_lossy().into_owned(), text)
    };
    let sources: Vec<(String, String)> = files.iter().map(read).collect();
    assert!(sources.len() >= 20, "only {} files found: is this the right directory?", sources.len());
    let for_tests: Vec<String> = sources.iter().flat_map(|(path, text)| test_only_modules(path, text)).collect();
    let is_for_tests = |path: &str| {
        let module = module_of(path).join("::");
        for_tests.iter().any(|one| module == *one || module.starts_with(&format!("{one}::")))
    };
    let findings: Vec<String> = sources
        .iter()
        .flat_map(|(path, text)| {
            if is_for_tests(path) { starts_with_its_purpose(&Source::parse(path, text)) } else { check(path, text) }
        })
        .map(|finding| finding.to_string())
        .collect();
    assert!(findings.is_empty(), "{} broken rules:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn every_file_of_the_tests_says_what_it_is_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["tests", "benches"] {
        if root.join(directory).is_dir() {
            rust_files(&root.join(directory), &mut files);
        }
    }
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.starts_with("//! "), "{}:1: a file starts with `//!` and what it is for", path.display());
    }
}

// ---------------------------------------------------------------------------------------------------------------------------
// The rules on small snippets: what each refuses, where, and what it lets pass.

#[test]
fn bad_snippets_are_refused_where_they_are_bad() {
    for (path, code, line, rule, why) in [
        ("src/labels.rs", "use crate::time::Timestamp;", 2, "imports", "labels import nothing of ours"),
        ("src/fleet/render.rs", "\nuse crate::{config::ConfigHash, agent::AgentId};", 3, "imports", "inside a group"),
        ("src/fleet/render.rs", "fn f() -> crate::opamp::Session { g() }", 2, "imports", "a path without `use`"),
        ("src/fleet/render.rs", "use super::super::agent::AgentId;", 2, "imports", "over `super`"),
        ("src/fleet/render.rs", "fn f() {\n    let x = vec![crate::agent::NONE];\n}", 3, "imports", "inside a macro"),
        ("src/rollout/gates.rs", "use crate::fleet::snapshot::Snapshot;", 2, "imports", "a part that is not allowed"),
        ("src/rollout/gates.rs", "use crate::agent::*;", 2, "imports", "a glob"),
        ("src/view.rs", "use crate::controller::Controller;", 2, "imports", "view is shown by, never joined with"),
        ("src/git/mirror.rs", "use crate::controller::Controller;", 2, "imports", "a shell reaches into the core"),
        ("src/attic.rs", "fn f() {}", 1, "imports", "a room nobody has thought about"),
        ("src/controller.rs", "use std::time::{Duration, Instant};", 2, "purity", "the clock"),
        (
            "src/controller.rs",
            "use std::time;\nfn f() { time::SystemTime::now(); }",
            3,
            "purity",
            "the clock, by module",
        ),
        ("src/controller.rs", "fn f() { std::env::var(\"X\"); }", 2, "purity", "the environment"),
        ("src/yaml/parse.rs", "use std::fs::File;", 2, "purity", "files"),
        ("src/rollout/mod.rs", "use std::sync::{Arc, Mutex};", 2, "purity", "a lock"),
        ("src/rollout/mod.rs", "use std::sync::atomic::AtomicU64;", 2, "purity", "an atomic"),
        ("src/yaml/parse.rs", "use std::sync::OnceLock;", 2, "purity", "config.rs alone has a reason for it"),
        ("src/roster.rs", "fn f() { tokio::spawn(g()); }", 2, "purity", "a runtime"),
        ("src/roster.rs", "async fn f() {}", 2, "purity", "an async function"),
        ("src/roster.rs", "fn f() { let x = async { 1 }; }", 2, "purity", "an async block"),
        ("src/roster.rs", "fn f() -> u64 { fastrand::u64(..) }", 2, "purity", "randomness"),
        ("src/opamp/session.rs", "fn f() { println!(\"x\"); }", 2, "purity", "printing"),
        ("src/daemon.rs", "use crate::opamp::proto::AgentToServer;", 2, "borders", "protobuf outside"),
        ("src/serve/http.rs", "use prost::Message;", 2, "borders", "protobuf outside"),
        ("src/agent.rs", "#[derive(Clone, serde::Serialize)]\nstruct A;", 2, "borders", "serde in a derive"),
        ("src/rollout/machine.rs", "use serde::Serialize;", 2, "borders", "serde beside the record"),
        ("src/daemon.rs", "fn f() { git2::Repository::open(\"x\"); }", 2, "borders", "libgit2 outside"),
        ("src/fleet/utils.rs", "fn f() {}", 1, "names", "a name that says nothing"),
    ] {
        let findings = check(path, &format!("//! A snippet.\n{code}"));
        let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(findings.iter().any(|one| (one.line, one.rule) == (line, rule)), "{path}, {why}: {code}\n{shown:?}");
    }
    assert!(!check("src/agent.rs", "// A remark.\nfn f() {}").is_empty(), "no purpose");
    assert!(!check("src/agent.rs", "//!\nfn f() {}").is_empty(), "an empty purpose");
}

#[test]
fn good_snippets_pass() {
    for (path, code, why) in [
        ("src/fleet/render.rs", "use super::diagnostic::Diagnostic;\nuse crate::fleet::GroupName;", "its own room"),
        ("src/fleet/mod.rs", "use std::time::Duration;\nuse std::sync::Arc;", "lengths of time and shared values"),
        ("src/config.rs", "use std::sync::OnceLock;", "the exception, with its reason"),
        ("src/rollout/mod.rs", "use crate::fleet::strategy::Amount;\nuse crate::fleet::GroupName;", "allowed parts"),
        ("src/daemon.rs", "use crate::opamp::Session;\nuse std::time::Instant;\nasync fn f() {}", "a shell"),
        ("src/roster.rs", "#[cfg(test)]\nmod tests { use std::sync::Mutex; use crate::opamp::x; }", "tests may"),
        ("src/view.rs", "use serde::Serialize;", "what a person sees is written with serde"),
        ("src/opamp/wire.rs", "use prost::Message;\nuse super::proto::AgentToServer;", "protobuf at home"),
        (
            "src/labels.rs",
            "/// See [`crate::time`] and `std::fs`.\nfn f() { let println = 1; }",
            "comments are no code",
        ),
    ] {
        let shown: Vec<String> =
            check(path, &format!("//! A snippet.\n{code}")).iter().map(ToString::to_string).collect();
        assert!(shown.is_empty(), "{path}, {why}: {shown:?}");
    }
}

#[test]
fn length_counts_code_only() {
    let function = "/// Says something.\n\n// A remark.\nfn f() {\n    g(\"one\n    two\");\n}\n";
    let counted = |functions: usize, tests: &str| {
        files_fit_one_head(&Source::parse("src/agent.rs", &format!("//! A.\n{}{tests}", function.repeat(functions))))
    };
    assert!(counted(125, "").is_empty(), "500 lines of code are allowed, whatever comments there are");
    assert!(!counted(126, "").is_empty(), "504 are too many");
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function.repeat(200));
    assert!(counted(10, &tests).is_empty(), "tests do not count");
}

#[test]
fn files_of_tests_are_known_by_their_declaration() {
    let found = test_only_modules(
        "src/rollout/mod.rs",
        "mod gates;\n#[cfg(test)]\nmod scenarios;\n#[cfg(test)]\nmod tests {}\n",
    );
    assert_eq!(found, ["rollout::scenarios"]);
}
