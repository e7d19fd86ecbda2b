//! Layers that a person could have written, made from a seed: few keys, so that they meet, and everything that YAML has for values.

use fastrand::Rng;

use crate::scalars;

/// Keys that layers share; some look like something else than text, or are written with quotes by some people.
const KEYS: &[&str] = &[
    "receivers",
    "service",
    "otlp",
    "otlp/2",
    "endpoint",
    "a",
    "b",
    "c",
    "on",
    "y",
    "k8s.pod.ip",
    "10.0.0.1",
    "a b",
    "x-y",
    "é",
    "22:30",
    "${env:WORD}",
    "<",
    "~a",
    "0x",
    "1",
    "200",
    "true",
    "1.5",
];

/// Those of them that are no text to the collector, which therefore refuses them at the top.
const NO_TEXT: &[&str] = &["1", "200", "true", "1.5"];

/// The layers of one case.
pub(crate) fn layers(seed: u64) -> Vec<String> {
    let mut rng = Rng::with_seed(seed);
    let count = 1 + rng.usize(0..4);
    (0..count).map(|_| Layer { rng: &mut rng, anchors: Vec::new(), left: 30 }.write()).collect()
}

/// What an anchor of this layer stands on.
#[derive(Clone, Copy, PartialEq)]
enum Anchored {
    Map,
    Other,
}

struct Layer<'r> {
    rng: &'r mut Rng,
    /// In the order of the document; the index is the name.
    anchors: Vec<Anchored>,
    /// How many more collections it may open.
    left: usize,
}

impl Layer<'_> {
    fn write(mut self) -> String {
        let mut text = String::new();
        if self.one_in(12) {
            text.push_str("# a comment, with: signs [of] {everything} & 'more'\n");
        }
        if self.one_in(20) {
            text.push_str("---\n");
        }
        if self.one_in(8) {
            text.push_str(&self.flow_map(0));
            text.push('\n');
        } else {
            text.push_str(&self.block_map(0, 0));
        }
        if self.one_in(30) {
            text.push_str("...\n");
        }
        if self.one_in(10) {
            text = text.trim_end_matches('\n').to_owned();
        }
        if self.one_in(10) {
            text = text.replace('\n', "\r\n");
        }
        if self.one_in(20) {
            text.insert(0, '\u{feff}');
        }
        text
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.rng.usize(0..chances) == 0
    }

    /// Lines of a map at this indentation; each ends in a line break.
    fn block_map(&mut self, indent: usize, depth: usize) -> String {
        let mut text = String::new();
        if self.one_in(12) && self.anchors.contains(&Anchored::Map) {
            let alias = self.alias_of_map();
            text.push_str(&format!("{:indent$}<<: {alias}\n", ""));
        }
        for key in self.keys(depth) {
            if self.one_in(25) {
                text.push_str(&format!("{:1$}# said in between\n", "", self.rng.usize(0..8)));
            }
            if self.one_in(40) {
                text.push('\n');
            }
            let space = if self.one_in(20) { "  " } else { "" };
            text.push_str(&format!("{:indent$}{key}{space}:", ""));
            text.push_str(&self.block_value(indent, depth));
        }
        if text.is_empty() { format!("{:indent$}a: 1\n", "") } else { text }
    }

    /// What follows a colon or dash, up to the line break at the end.
    fn block_value(&mut self, indent: usize, depth: usize) -> String {
        let deeper = indent + 1 + self.rng.usize(0..4);
        let is_leaf = depth >= 4 || self.left == 0;
        let choice = self.rng.usize(0..if is_leaf { 12 } else { 22 });
        match choice {
            0 => "\n".to_owned(),
            1 => self.block_scalar(deeper),
            2 => format!(" {}\n", ["{}", "[]", "~", "null", "{ }", "[ ]"][self.rng.usize(0..6)]),
            3 if !self.anchors.is_empty() => format!(" *a{}\n", self.rng.usize(0..self.anchors.len())),
            4 => {
                let anchor = self.anchor(Anchored::Other);
                format!(" {anchor} {}\n", self.scalar(false))
            }
            5 => format!(" {}\n", self.several_lines(deeper)),
            3 | 6..12 => {
                let comment = if self.one_in(10) { " # why" } else { "" };
                format!(" {}{comment}\n", self.scalar(false))
            }
            12 => format!(" {}\n", self.flow_map(depth + 1)),
            13 => format!(" {}\n", self.flow_list(depth + 1)),
            14..16 => {
                self.left -= 1;
                let at = if self.one_in(3) { indent } else { deeper };
                format!("\n{}", self.block_list(at, depth + 1))
            }
            16 => {
                self.left -= 1;
                let lines = self.block_map(deeper, depth + 1);
                format!(" {}\n{lines}", self.anchor(Anchored::Map))
            }
            _ => {
                self.left -= 1;
                let comment = if self.one_in(10) { " # below" } else { "" };
                format!("{comment}\n{}", self.block_map(deeper, depth + 1))
            }
        }
    }

    fn block_list(&mut self, indent: usize, depth: usize) -> String {
        let mut text = String::new();
        for _ in 0..1 + self.rng.usize(0..3) {
            text.push_str(&format!("{:indent$}-", ""));
            if self.one_in(4) && self.left > 0 && depth < 4 {
                // A map that begins behind its dash.
                self.left -= 1;
                let lines = self.block_map(indent + 2, depth + 1);
                text.push(' ');
                text.push_str(lines.trim_start_matches(' '));
            } else {
                text.push_str(&self.block_value(indent, depth + 1));
            }
        }
        text
    }

    fn flow_map(&mut self, depth: usize) -> String {
        let mut parts = Vec::new();
        for key in self.keys(depth) {
            let value = self.flow_value(depth);
            // Without a space behind it, the colon is a part of the key for the collector.
            let space = if value.is_empty() && self.one_in(200) { "" } else { " " };
            parts.push(format!("{key}:{space}{value}"));
        }
        let (open, close) = if self.one_in(4) { ("{ ", " }") } else { ("{", "}") };
        let between = if self.one_in(10) { ",\n      " } else { ", " };
        format!("{open}{}{close}", parts.join(between))
    }

    fn flow_list(&mut self, depth: usize) -> String {
        let items: Vec<String> = (0..self.rng.usize(0..4)).map(|_| self.flow_value(depth)).collect();
        let items: Vec<String> = items.into_iter().filter(|item| !item.is_empty()).collect();
        let end = if !items.is_empty() && self.one_in(10) { "," } else { "" };
        format!("[{}{end}]", items.join(if self.one_in(10) { "," } else { ", " }))
    }

    fn flow_value(&mut self, depth: usize) -> String {
        if depth < 4 && self.left > 0 && self.one_in(5) {
            self.left -= 1;
            return if self.rng.bool() { self.flow_map(depth + 1) } else { self.flow_list(depth + 1) };
        }
        match self.rng.usize(0..15) {
            0 => String::new(),
            1 if !self.anchors.is_empty() => format!("*a{} ", self.rng.usize(0..self.anchors.len())),
            _ => self.scalar(true),
        }
    }

    /// Different keys, in the spelling of a person who quotes some of them.
    fn keys(&mut self, depth: usize) -> Vec<String> {
        let count = 1 + self.rng.usize(0..4);
        let mut keys = self.rng.choose_multiple(KEYS.iter(), count);
        self.rng.shuffle(&mut keys);
        keys.into_iter()
            .map(|key| match self.rng.usize(0..12) {
                0 => format!("'{key}'"),
                1 => format!("\"{key}\""),
                // In flow style, where these belong to the structure, they need the quotes.
                _ if key.contains(['{', ',']) || (depth == 0 && NO_TEXT.contains(key)) => format!("\"{key}\""),
                _ => (*key).to_owned(),
            })
            .collect()
    }

    /// A scalar on one line.
    fn scalar(&mut self, flow: bool) -> String {
        let text = scalars::TEXTS[self.rng.usize(0..scalars::TEXTS.len())];
        let tag = match self.rng.usize(0..60) {
            0 => "!!str ",
            1 => "!x ",
            2 => "! ",
            _ => "",
        };
        let is_plain = scalars::is_plain(text, flow) || self.one_in(150);
        let style = self.rng.usize(0..4);
        if text.contains(['\n', '\r', '\t']) || (style == 0 && !is_plain) || style == 1 {
            return format!("{tag}{}", scalars::double_quoted(text));
        }
        if style == 2 || !is_plain {
            return format!("{tag}{}", scalars::single_quoted(text));
        }
        format!("{tag}{text}")
    }

    /// A plain or quoted scalar over several lines, which readers fold.
    fn several_lines(&mut self, indent: usize) -> String {
        let words = ["one", "two, three", "it is", "1", "no", "a-b", "(x)", "http://h:1/p"];
        let lines: Vec<&str> = (0..1 + self.rng.usize(0..4)).map(|_| words[self.rng.usize(0..words.len())]).collect();
        let between = if self.one_in(4) { format!("\n\n{:indent$}", "") } else { format!("\n{:indent$}", "") };
        let quote = ["", "", "'", "\""][self.rng.usize(0..4)];
        let escaped = if quote == "\"" && self.one_in(3) { " \\\n" } else { "" };
        if escaped.is_empty() {
            format!("{quote}{}{quote}", lines.join(&between))
        } else {
            format!("{quote}{}{escaped}{:indent$}end{quote}", lines.join(&between), "")
        }
    }

    fn block_scalar(&mut self, indent: usize) -> String {
        let style = ["|", ">"][self.rng.usize(0..2)];
        let chomp = ["", "-", "+"][self.rng.usize(0..3)];
        let explicit = self.one_in(10);
        // The indicator counts from the parent, which this does not know well enough for anything but a column of one.
        let header = if explicit { format!("{style}{chomp} # said") } else { format!("{style}{chomp}") };
        let lines =
            ["text", "  further in", "", "a: b # c", "- x", "ends here  ", "\ttab", "${env:WORD}", "'quoted'", "é"];
        let mut text = format!(" {header}\n");
        for number in 0..1 + self.rng.usize(0..4) {
            let line = if number == 0 { "first" } else { lines[self.rng.usize(0..lines.len())] };
            if !line.is_empty() || self.one_in(3) {
                text.push_str(&format!("{:indent$}{line}", ""));
            }
            text.push('\n');
        }
        if self.one_in(6) {
            text.push('\n');
        }
        text
    }

    fn anchor(&mut self, anchored: Anchored) -> String {
        self.anchors.push(anchored);
        format!("&a{}", self.anchors.len() - 1)
    }

    fn alias_of_map(&mut self) -> String {
        let maps: Vec<String> = self
            .anchors
            .iter()
            .enumerate()
            .filter(|(_, anchored)| **anchored == Anchored::Map)
            .map(|(index, _)| format!("*a{index}"))
            .collect();
        if maps.len() > 1 && self.rng.bool() {
            format!("[{}]", maps.join(", "))
        } else {
            maps[self.rng.usize(0..maps.len())].clone()
        }
    }
}
