//! A YAML (or JSON) text as a value that remembers where each of its parts stands.
//!
//! The parser's events are read directly instead of its ready-made tree, because that is where a key given twice is still
//! visible, and where aliases can be kept shared: a "billion laughs" file is refused by its size before it is expanded.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use saphyr::{Scalar, ScalarStyle};
use saphyr_parser::{Event, Marker, Parser, Span, Tag};
use serde_json::{Map, Value};

use super::interpolate::{Lookup, interpolate};

/// The largest text that is read: 16 MiB, which is some 20,000 services written out in full.
pub const MAX_BYTES: usize = 16 << 20;
/// The largest document, its aliases and variables expanded, in bytes (each node counts as 16).
const MAX_EXPANDED: usize = 96 << 20;
/// The deepest nesting.
const MAX_DEPTH: usize = 64;
/// The longest key, in bytes.
const MAX_KEY: usize = 512;
/// What a node counts beside its text.
const NODE: usize = 16;

/// A place in a text: line and column (in characters), both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl From<&Marker> for Position {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// Something that makes a text not a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub position: Position,
    /// What is wrong, in a clause that starts in lower case.
    pub detail: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Fault {
    fn new(position: Position, detail: impl Into<String>) -> Self {
        Self { position, detail: detail.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[derive(Debug)]
struct Node {
    data: Data,
    /// How deep its own children go; 0 for a scalar.
    height: usize,
    /// Its size when written out in full.
    size: usize,
}

impl Node {
    /// The child that a token of a JSON pointer names, and where it stands.
    fn child(&self, token: &str) -> Option<(Position, &Arc<Self>)> {
        match &self.data {
            Data::Map(entries) => {
                let key = token.replace("~1", "/").replace("~0", "~");
                entries.iter().find(|entry| entry.key == key).map(|entry| (entry.at, &entry.value))
            }
            Data::List(items) => token.parse().ok().and_then(|i: usize| items.get(i)).map(|(at, value)| (*at, value)),
            Data::Scalar(_) => None,
        }
    }
}

#[derive(Debug)]
enum Data {
    Scalar(Value),
    List(Vec<(Position, Arc<Node>)>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
struct Entry {
    key: String,
    at: Position,
    value: Arc<Node>,
}

/// A document that was read.
#[derive(Debug, Clone)]
pub struct Document {
    root: Arc<Node>,
}

impl Document {
    /// Reads one YAML document; JSON is YAML too. Variables in texts are replaced by what `lookup` answers.
    ///
    /// Anchors, aliases and merge keys (`<<`) work; keys given twice, tags of one's own and further documents are faults.
    ///
    /// # Errors
    /// All faults that can be told at once. A text that is no YAML has one: the first.
    pub fn parse(text: &str, lookup: &Lookup<'_>) -> Result<Self, Vec<Fault>> {
        Self::parse_with(text, Some(lookup))
    }

    /// The same of a text in which dollar signs are dollar signs.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_plain(text: &str) -> Result<Self, Vec<Fault>> {
        Self::parse_with(text, None)
    }

    fn parse_with(text: &str, lookup: Option<&Lookup<'_>>) -> Result<Self, Vec<Fault>> {
        if text.len() > MAX_BYTES {
            let detail = format!("the text has {} bytes; at most {MAX_BYTES} are read", text.len());
            return Err(vec![Fault::new(Position { line: 1, column: 1 }, detail)]);
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut builder =
            Builder { lookup, stack: Vec::new(), anchors: HashMap::new(), root: None, faults: Vec::new(), size: 0 };
        let mut parser = Parser::new_from_str(text);
        while let Some(next) = parser.next_event() {
            let step = match next {
                Ok((event, span)) => builder.event(event, span),
                Err(error) => Err(scan_fault(text, &error)),
            };
            if let Err(fault) = step {
                builder.faults.push(fault);
                break;
            }
        }
        match builder.root {
            Some(root) if builder.faults.is_empty() => Ok(Self { root }),
            _ if !builder.faults.is_empty() => Err(builder.faults),
            _ => Ok(Self { root: Arc::new(Node { data: Data::Scalar(Value::Null), height: 0, size: NODE }) }),
        }
    }

    /// The document as JSON.
    #[must_use]
    pub fn value(&self) -> Value {
        expand(&self.root)
    }

    /// Whether the document holds a value at a JSON pointer, or says it in one word at an ancestor of it (as a command
    /// written as one text says each of its words).
    #[must_use]
    pub fn says(&self, pointer: &str) -> bool {
        let mut node = &self.root;
        for token in pointer.split('/').skip(1) {
            match (node.child(token), &node.data) {
                (Some((_, next)), _) => node = next,
                (None, Data::Scalar(value)) => return !value.is_null(),
                (None, _) => return false,
            }
        }
        !matches!(node.data, Data::Scalar(Value::Null))
    }

    /// Where the value at a JSON pointer stands: its key, or the element itself in a list. A pointer to what is not there
    /// answers for its nearest ancestor that is.
    #[must_use]
    pub fn position(&self, pointer: &str) -> Option<Position> {
        let mut node = &self.root;
        let mut position = None;
        for token in pointer.split('/').skip(1) {
            let Some((at, next)) = node.child(token) else { break };
            position = Some(at);
            node = next;
        }
        position
    }
}

/// Writes a tree out; its depth and size were checked when it was built.
fn expand(node: &Node) -> Value {
    match &node.data {
        Data::Scalar(value) => value.clone(),
        Data::List(items) => Value::Array(items.iter().map(|(_, item)| expand(item)).collect()),
        Data::Map(entries) => {
            Value::Object(entries.iter().map(|e| (e.key.clone(), expand(&e.value))).collect::<Map<_, _>>())
        }
    }
}

/// A collection whose end has not come yet.
struct Open {
    at: Position,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<(Position, Arc<Node>)>),
    Map {
        entries: Vec<Entry>,
        seen: BTreeMap<String, Position>,
        merged: Vec<Arc<Node>>,
        /// The key whose value comes next, and whether it is the one that merges.
        key: Option<(String, bool, Position)>,
    },
}

struct Builder<'a> {
    /// `None`: there are no variables.
    lookup: Option<&'a Lookup<'a>>,
    stack: Vec<Open>,
    anchors: HashMap<usize, Arc<Node>>,
    root: Option<Arc<Node>>,
    /// What is wrong but does not keep the rest from being read.
    faults: Vec<Fault>,
    size: usize,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let at = Position::from(&span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Fault::new(at, "a second document begins here; a file holds one"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.place(at, node),
                None => Err(Fault::new(at, "an alias to something that is not complete yet")),
            },
            Event::Scalar(text, style, anchor, tag) => {
                if self.wants_key() {
                    let merges = style == ScalarStyle::Plain && text == "<<";
                    return self.key(text.into_owned(), merges, at);
                }
                let value = self.scalar(&text, style, tag.as_deref(), at)?;
                let node = Arc::new(Node { size: NODE + text_len(&value), data: Data::Scalar(value), height: 0 });
                self.size += node.size;
                if self.size > MAX_EXPANDED {
                    return Err(too_large(at));
                }
                self.finish(at, anchor, node)
            }
            Event::SequenceStart(anchor, tag) => self.open(at, anchor, tag.as_deref(), OpenKind::List(Vec::new())),
            Event::MappingStart(anchor, tag) => {
                let kind = OpenKind::Map { entries: Vec::new(), seen: BTreeMap::new(), merged: Vec::new(), key: None };
                self.open(at, anchor, tag.as_deref(), kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at),
        }
    }

    fn wants_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { kind: OpenKind::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, text: String, merges: bool, at: Position) -> Result<(), Fault> {
        if text.len() > MAX_KEY {
            return Err(Fault::new(at, format!("a key of {} bytes; at most {MAX_KEY} are read", text.len())));
        }
        if let Some(Open { kind: OpenKind::Map { seen, key, .. }, .. }) = self.stack.last_mut() {
            if let Some(first) = seen.get(&text).filter(|_| !merges) {
                self.faults.push(Fault::new(at, format!("key {text:?} is given twice, first in line {}", first.line)));
            } else if !merges {
                seen.insert(text.clone(), at);
            }
            *key = Some((text, merges, at));
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Value, Fault> {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            return Err(Fault::new(at, format!("the tag {tag} means nothing here")));
        }
        let replaced = self.lookup.map_or_else(|| Ok(text.into()), |lookup| interpolate(text, lookup));
        let replaced = replaced.unwrap_or_else(|error| {
            let mut fault = Fault::new(at, error.to_string());
            fault.hint = error.hint();
            self.faults.push(fault);
            text.into()
        });
        let tag = tag.cloned().map(std::borrow::Cow::Owned);
        match Scalar::parse_from_cow_and_metadata(replaced, style, tag.as_ref()) {
            Some(Scalar::Null) => Ok(Value::Null),
            Some(Scalar::Boolean(flag)) => Ok(Value::Bool(flag)),
            Some(Scalar::Integer(number)) => Ok(number.into()),
            Some(Scalar::FloatingPoint(number)) => serde_json::Number::from_f64(*number)
                .map(Value::Number)
                .ok_or_else(|| Fault::new(at, "not a finite number")),
            Some(Scalar::String(text)) => Ok(Value::String(text.into_owned())),
            None => Err(Fault::new(at, "the value is not of the type that its tag says")),
        }
    }

    fn open(&mut self, at: Position, anchor: usize, tag: Option<&Tag>, kind: OpenKind) -> Result<(), Fault> {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            return Err(Fault::new(at, format!("the tag {tag} means nothing here")));
        }
        if self.wants_key() {
            return Err(Fault::new(at, "a key must be a text").hint("quote it if it starts with one of [ { & * ?"));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.stack.push(Open { at, anchor, kind });
        Ok(())
    }

    fn close(&mut self, at: Position) -> Result<(), Fault> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let data = match open.kind {
            OpenKind::List(items) => Data::List(items),
            OpenKind::Map { mut entries, seen, merged, .. } => {
                let mut seen: BTreeSet<String> = seen.into_keys().collect();
                for from in &merged {
                    let Data::Map(more) = &from.data else { continue };
                    for entry in more {
                        if seen.insert(entry.key.clone()) {
                            entries.push(entry.clone());
                        }
                    }
                }
                Data::Map(entries)
            }
        };
        let (height, size) = match &data {
            Data::Scalar(_) => (0, 0),
            Data::List(items) => measure(items.iter().map(|(_, node)| (0, node))),
            Data::Map(entries) => measure(entries.iter().map(|entry| (entry.key.len(), &entry.value))),
        };
        if height > MAX_DEPTH {
            return Err(too_deep(at));
        }
        if size > MAX_EXPANDED {
            return Err(too_large(at));
        }
        self.finish(open.at, open.anchor, Arc::new(Node { data, height, size }))
    }

    fn finish(&mut self, at: Position, anchor: usize, node: Arc<Node>) -> Result<(), Fault> {
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        self.place(at, node)
    }

    /// Puts a complete node where it belongs.
    fn place(&mut self, at: Position, node: Arc<Node>) -> Result<(), Fault> {
        match self.stack.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::List(items)) => items.push((at, node)),
            Some(OpenKind::Map { entries, merged, key, .. }) => match key.take() {
                None => return Err(Fault::new(at, "a key must be a text")),
                Some((_, true, _)) => merged.extend(to_merge(at, node)?),
                Some((key, false, at)) => entries.push(Entry { key, at, value: node }),
            },
        }
        Ok(())
    }
}

fn to_merge(at: Position, node: Arc<Node>) -> Result<Vec<Arc<Node>>, Fault> {
    let maps = match &node.data {
        Data::Map(_) => vec![node],
        Data::List(items) => items.iter().map(|(_, item)| Arc::clone(item)).collect(),
        Data::Scalar(_) => Vec::new(),
    };
    if maps.is_empty() || maps.iter().any(|map| !matches!(map.data, Data::Map(_))) {
        return Err(Fault::new(at, "only maps can be merged by \"<<\""));
    }
    Ok(maps)
}

fn measure<'n>(children: impl Iterator<Item = (usize, &'n Arc<Node>)>) -> (usize, usize) {
    children.fold((1, NODE), |(height, size), (key, child)| {
        (height.max(child.height + 1), size.saturating_add(child.size).saturating_add(key + NODE))
    })
}

fn text_len(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

fn too_deep(at: Position) -> Fault {
    Fault::new(at, format!("nested more than {MAX_DEPTH} deep"))
}

fn too_large(at: Position) -> Fault {
    Fault::new(at, format!("the document, written out in full, has more than {MAX_EXPANDED} bytes"))
}

fn scan_fault(text: &str, error: &saphyr::ScanError) -> Fault {
    let position = Position::from(error.marker());
    let fault = Fault::new(position, format!("not valid YAML: {}", error.info()));
    // The scanner tells a tab where it first makes no sense, which can be the line after it.
    let near: Vec<&str> = text.lines().skip(position.line.saturating_sub(2)).take(2).collect();
    let indented_by_tab = |line: &&str| line[..line.len() - line.trim_start().len()].contains('\t');
    if near.iter().any(indented_by_tab) {
        fault.hint("indent with spaces, not tabs")
    } else if near.last().is_some_and(|line| line.contains("${") && line.replace("${", "").contains(['{', '['])) {
        fault.hint("inside { } and [ ], quote a text that holds ${…}")
    } else {
        fault
    }
}
