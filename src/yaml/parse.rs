//! From bytes to nodes: aliases and merge keys resolved, duplicate keys and everything else that readers disagree on refused.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle, Tag};

use crate::yaml::node::{Entry, Kind, Node, Style, YamlError};
use crate::yaml::{Place, keys, source};

mod flow;
mod scan;
#[cfg(test)]
mod tests;

/// Most errors that are collected of one document; who has more has one cause.
const MOST_ERRORS: usize = 20;

/// What YAML's own tags start with.
const YAML_TAGS: &str = "tag:yaml.org,2002:";

/// Limits on a document, checked before memory is taken for what they limit.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the file. Text that aliases repeat may come to four times as much.
    pub bytes: usize,
    /// Nodes, keys included, each repetition by an alias counted, and what has an anchor counted twice.
    pub nodes: usize,
    /// Collections within collections. At most 255, the scanner's own limit.
    pub depth: usize,
}

impl Default for Limits {
    /// 1 MiB, 100,000 nodes (a hundred times a large collector configuration; a bomb stops there within milliseconds), 64 levels.
    fn default() -> Self {
        Self { bytes: 1 << 20, nodes: 100_000, depth: 64 }
    }
}

/// Reads one document. `None`: there is nothing in it but white space, comments or an explicit null, so as a layer it adds
/// nothing.
///
/// Merge keys (`<<`) are resolved as the collector's reader does it: own keys win, then the earlier of several maps. Merged keys
/// come first, so that the order of what the author wrote in place is kept.
///
/// # Errors
/// Every finding that does not hide the next one, in the order of the file; never empty.
pub fn parse(file: &Arc<str>, bytes: &[u8], limits: &Limits) -> Result<Option<Node>, Vec<YamlError>> {
    let text = source::text(file, bytes, limits).map_err(|error| vec![error])?;
    let mut builder = Builder::new(file, text, limits);
    let depth = limits.depth.min(255);
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: depth,
        block_nesting_limit: depth,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.take(event, &span),
            Err(error) => Err(scan::error(file, text, &error, limits)),
        };
        if let Err(error) = step {
            builder.errors.push(error);
            break;
        }
    }
    builder.finish()
}

/// What stands behind an anchor, and what repeating it costs.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
    depth: usize,
}

/// A collection that is not closed yet.
struct Open {
    kind: OpenKind,
    tag: Option<Box<str>>,
    place: Place,
    anchor: usize,
    is_flow: bool,
}

enum OpenKind {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<(Node, Part)>, key: Option<Node> },
}

/// A finished node. Whether an alias stood for it matters to merge keys only.
struct Part {
    node: Node,
    alias: bool,
}

struct Builder<'a> {
    file: &'a Arc<str>,
    source: &'a str,
    limits: &'a Limits,
    open: Vec<Open>,
    anchored: BTreeMap<usize, Anchored>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    bytes: usize,
    errors: Vec<YamlError>,
}

impl<'a> Builder<'a> {
    fn new(file: &'a Arc<str>, source: &'a str, limits: &'a Limits) -> Self {
        Self {
            file,
            source,
            limits,
            open: Vec::new(),
            anchored: BTreeMap::new(),
            root: None,
            documents: 0,
            nodes: 0,
            bytes: 0,
            errors: Vec::new(),
        }
    }

    /// Takes one event; an error ends the document.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the scanner's enum may grow; we name what we take")]
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), YamlError> {
        let place = self.place(span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(YamlError::new(place, "a second document starts here").help(
                        "a file holds one document: split it into files, which are merged in the order of the layers",
                    ));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                // The scanner writes `~` for what is not there at all.
                let text = if style == ScalarStyle::Plain && span.is_empty() { Cow::Borrowed("") } else { text };
                let text = self.without_added_break(text, style, span);
                self.charge(1, text.len(), &place)?;
                if style == ScalarStyle::Plain && self.open.last().is_some_and(|open| open.is_flow) {
                    self.check_in_flow(&text, tag.is_some(), span)?;
                }
                let tag = tag.map(|tag| tag_text(&tag));
                let mut node = Node::scalar(&text, style_of(style), place);
                node.tag = tag;
                self.anchor(anchor, &node)?;
                self.add(Part { node, alias: false })?;
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.start(OpenKind::Sequence(Vec::new()), style, anchor, tag, place)?;
            }
            Event::MappingStart(style, anchor, tag) => {
                self.start(OpenKind::Mapping { entries: Vec::new(), key: None }, style, anchor, tag, place)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => self.alias(anchor, place)?,
            // Comments and anchor names are not asked for; unknown anchors stop the scanner; the rest has no content.
            _ => {}
        }
        Ok(())
    }

    /// A block scalar that the file ends in without a line break: the scanner adds a break, the collector's reader does not.
    fn without_added_break<'t>(&self, text: Cow<'t, str>, style: ScalarStyle, span: &Span) -> Cow<'t, str> {
        let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
        if !is_block || self.source.ends_with(['\n', '\r']) || span.end.byte_offset() != Some(self.source.len()) {
            return text;
        }
        let Some(content) = text.strip_suffix('\n') else { return text };
        if content.chars().all(|one| one == '\n') {
            // Nothing but kept breaks: those behind the header's line.
            let written = span.start.byte_offset().and_then(|start| self.source.get(start..)).unwrap_or_default();
            return Cow::Owned("\n".repeat(written.matches('\n').count().saturating_sub(1)));
        }
        // A last line of spaces belongs to the text only if it is longer than the indentation.
        let last = |text: &str| text.rsplit(['\n', '\r']).next().is_some_and(|line| line.contains(|one| one != ' '));
        let ends_in_spaces = content.ends_with(' ') && !last(content);
        if last(self.source) || ends_in_spaces { Cow::Owned(content.to_owned()) } else { text }
    }

    fn start(
        &mut self,
        kind: OpenKind,
        style: StructureStyle,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        place: Place,
    ) -> Result<(), YamlError> {
        self.charge(1, 0, &place)?;
        if self.open.len() >= self.limits.depth {
            return Err(too_deep(place, self.limits));
        }
        let is_flow = style == StructureStyle::Flow;
        self.open.push(Open { kind, tag: tag.map(|tag| tag_text(&tag)), place, anchor, is_flow });
        Ok(())
    }

    fn check_in_flow(&mut self, text: &str, has_tag: bool, span: &Span) -> Result<(), YamlError> {
        let Some((message, help)) = flow::refuse(self.source, text, has_tag, span) else { return Ok(()) };
        self.report(YamlError::new(self.place(span), message).help(help))
    }

    fn end(&mut self) -> Result<(), YamlError> {
        let Some(Open { kind, tag, place, anchor, is_flow: _ }) = self.open.pop() else { return Ok(()) };
        let kind = match kind {
            OpenKind::Sequence(items) => Kind::Sequence(items),
            OpenKind::Mapping { entries, key: _ } => Kind::Mapping(self.close_mapping(entries)),
        };
        let node = Node { kind, tag, place };
        self.anchor(anchor, &node)?;
        self.add(Part { node, alias: false })
    }

    /// Remembers what has an anchor. The copy is charged for: nested anchors would otherwise multiply memory.
    fn anchor(&mut self, anchor: usize, node: &Node) -> Result<(), YamlError> {
        if anchor == 0 {
            return Ok(());
        }
        let (nodes, bytes, depth) = measure(node);
        self.charge(nodes, bytes, &node.place)?;
        self.anchored.insert(anchor, Anchored { node: node.clone(), nodes, bytes, depth });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), YamlError> {
        let Some(anchored) = self.anchored.get(&anchor) else {
            return Err(YamlError::new(place, "this alias stands inside what it names"));
        };
        let (nodes, bytes, depth) = (anchored.nodes, anchored.bytes, anchored.depth);
        if self.open.len() + depth > self.limits.depth {
            return Err(too_deep(place, self.limits));
        }
        self.charge(nodes, bytes, &place)?;
        let node = self.anchored.get(&anchor).map(|anchored| anchored.node.clone());
        match node {
            Some(node) => self.add(Part { node, alias: true }),
            None => Ok(()),
        }
    }

    /// Hands a finished node to the collection around it.
    fn add(&mut self, part: Part) -> Result<(), YamlError> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(part.node);
            return Ok(());
        };
        let refused = match &mut open.kind {
            OpenKind::Sequence(items) => {
                items.push(part.node);
                None
            }
            OpenKind::Mapping { entries, key } => match key.take() {
                Some(name) => {
                    entries.push((name, part));
                    None
                }
                None => {
                    let refused = refuse_key(&part.node);
                    *key = Some(part.node);
                    refused
                }
            },
        };
        refused.map_or(Ok(()), |error| self.report(error))
    }

    /// Resolves merge keys and finds keys that come twice.
    fn close_mapping(&mut self, parts: Vec<(Node, Part)>) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(parts.len());
        let mut merged = None;
        let mut merge_key_place = None;
        for (key, part) in parts {
            if key.as_str().is_none() {
                continue; // reported when the key was read
            }
            if !is_merge_key(&key) {
                entries.push(Entry { key, value: part.node });
            } else if let Some(first) = &merge_key_place {
                let error = duplicate(&key, first);
                self.remember(error);
            } else {
                merge_key_place = Some(key.place.clone());
                match merged_entries(part) {
                    Ok(maps) => merged = Some(maps),
                    Err(error) => self.remember(error),
                }
            }
        }
        for error in duplicates(&entries) {
            self.remember(error);
        }
        for error in merged.iter().filter_map(|maps| keys::mixed(maps, &entries)) {
            self.remember(error);
        }
        match merged {
            Some(maps) => join(maps, entries),
            None => entries,
        }
    }

    fn charge(&mut self, nodes: usize, bytes: usize, place: &Place) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        let (most_nodes, most_bytes) = (self.limits.nodes, self.limits.bytes.saturating_mul(4));
        let message = if self.nodes > most_nodes {
            format!("the document has more than {most_nodes} values once its aliases are expanded")
        } else if self.bytes > most_bytes {
            format!("the document has more than {most_bytes} bytes of text once its aliases are expanded")
        } else {
            return Ok(());
        };
        Err(YamlError::new(place.clone(), message).help("split the file, or use fewer aliases"))
    }

    /// Keeps an error that does not hide the next ones.
    fn remember(&mut self, error: YamlError) {
        if self.errors.len() < MOST_ERRORS {
            self.errors.push(error);
        }
    }

    /// The same, ending the document when there are enough.
    fn report(&mut self, error: YamlError) -> Result<(), YamlError> {
        if self.errors.len() + 1 >= MOST_ERRORS {
            return Err(error);
        }
        self.errors.push(error);
        Ok(())
    }

    fn place(&self, span: &Span) -> Place {
        place_of(self.file, span.start.line(), span.start.col())
    }

    fn finish(mut self) -> Result<Option<Node>, Vec<YamlError>> {
        if !self.errors.is_empty() {
            self.errors.sort_by(|one, other| one.place.cmp(&other.place));
            return Err(self.errors);
        }
        Ok(self.root.filter(|root| !root.is_null()))
    }
}

/// The scanner counts lines from 1 and columns from 0.
fn place_of(file: &Arc<str>, line: usize, column: usize) -> Place {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Place { file: Arc::clone(file), line: number(line.max(1)), column: number(column.saturating_add(1)) }
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::SingleQuoted,
        ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
    }
}

/// A tag in its one spelling here, however the file abbreviated it.
fn tag_text(tag: &Tag) -> Box<str> {
    let (handle, suffix) = tag.parts();
    if handle.is_empty() && suffix == "!" {
        return "!".into();
    }
    let whole = format!("{handle}{suffix}");
    if let Some(name) = whole.strip_prefix(YAML_TAGS) {
        return format!("!!{name}").into();
    }
    if whole.starts_with('!') {
        return whole.into();
    }
    format!("!<{whole}>").into()
}

/// Nodes, bytes of text and levels of collections.
fn measure(node: &Node) -> (usize, usize, usize) {
    let add = |(nodes, bytes, depth): (usize, usize, usize), child: &Node| {
        let (more, longer, deeper) = measure(child);
        (nodes + more, bytes + longer, depth.max(deeper))
    };
    match &node.kind {
        Kind::Scalar { text, style: _ } => (1, text.len(), 0),
        Kind::Sequence(items) => {
            let (nodes, bytes, depth) = items.iter().fold((1, 0, 0), add);
            (nodes, bytes, depth + 1)
        }
        Kind::Mapping(entries) => {
            let (nodes, bytes, depth) =
                entries.iter().flat_map(|entry| [&entry.key, &entry.value]).fold((1, 0, 0), add);
            (nodes, bytes, depth + 1)
        }
    }
}

fn refuse_key(key: &Node) -> Option<YamlError> {
    let place = key.place.clone();
    match &key.kind {
        Kind::Scalar { text, style: Style::Plain } if text.is_empty() => {
            Some(YamlError::new(place, "a key is missing before this `:`"))
        }
        Kind::Scalar { .. } => None,
        Kind::Sequence(_) | Kind::Mapping(_) => Some(
            YamlError::new(place, format!("{} cannot be a key", key.kind_name()))
                .help("if `{...}` or `[...]` is meant as text, quote it"),
        ),
    }
}

/// `<<`, unless it is quoted or tagged as something else.
fn is_merge_key(key: &Node) -> bool {
    let Kind::Scalar { text, style } = &key.kind else { return false };
    &**text == "<<"
        && match key.tag.as_deref() {
            Some("!!merge") => true,
            None | Some("!") => *style == Style::Plain,
            Some(_) => false,
        }
}

/// The maps that a merge key names, the strongest first.
fn merged_entries(part: Part) -> Result<Vec<Vec<Entry>>, YamlError> {
    let Part { node: Node { kind, tag: _, place }, alias } = part;
    let wrong = |place: Place| {
        YamlError::new(place, "`<<` takes a map, an alias of a map, or a list of these")
            .help("quote it (\"<<\") if a key of that name is meant")
    };
    match kind {
        Kind::Mapping(entries) => Ok(vec![entries]),
        Kind::Sequence(maps) if !alias => maps
            .into_iter()
            .map(|map| match map.kind {
                Kind::Mapping(entries) => Ok(entries),
                Kind::Scalar { .. } | Kind::Sequence(_) => Err(wrong(map.place)),
            })
            .collect(),
        Kind::Scalar { .. } | Kind::Sequence(_) => Err(wrong(place)),
    }
}

/// Merged keys first, the weakest map first, each only where nothing stronger has it; then the map's own keys. In a map whose own keys are all
/// text the collector's reader makes text of the merged ones, too.
fn join(maps: Vec<Vec<Entry>>, own: Vec<Entry>) -> Vec<Entry> {
    let is_text_only = own.iter().all(|entry| keys::is_text(&entry.key));
    let mut taken: std::collections::BTreeSet<Box<str>> =
        own.iter().filter_map(|entry| entry.key.as_str()).map(Into::into).collect();
    let mut kept = Vec::with_capacity(maps.len());
    for map in maps {
        let fresh: Vec<Entry> = map
            .into_iter()
            .filter(|entry| entry.key.as_str().is_some_and(|key| taken.insert(key.into())))
            .map(|entry| if is_text_only { Entry { key: keys::as_text(entry.key), ..entry } } else { entry })
            .collect();
        kept.push(fresh);
    }
    kept.into_iter().rev().flatten().chain(own).collect()
}

/// An error for each key whose text an earlier key of the same map has, too: the collector's reader compares texts alone.
pub(super) fn duplicates(entries: &[Entry]) -> Vec<YamlError> {
    let mut sorted: Vec<&Node> = entries.iter().map(|entry| &entry.key).collect();
    sorted.sort_by(|one, other| one.as_str().cmp(&other.as_str())); // stable: equal texts stay in the order of the file
    sorted
        .chunk_by(|one, other| one.as_str() == other.as_str())
        .flat_map(|equal| equal.iter().skip(1).filter_map(|key| Some(duplicate(key, &equal.first()?.place))))
        .collect()
}

fn duplicate(key: &Node, first: &Place) -> YamlError {
    let message = format!(
        "the key `{}` is here twice, first at {}:{}",
        key.as_str().unwrap_or_default(),
        first.line,
        first.column
    );
    YamlError::new(key.place.clone(), message).help("remove one of them")
}

fn too_deep(place: Place, limits: &Limits) -> YamlError {
    YamlError { is_too_deep: true, ..YamlError::new(place, format!("nested deeper than {} levels", limits.depth)) }
}
