//! From text to a tree with places.

use std::{collections::HashMap, rc::Rc};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::Fault;
use crate::problem::Place;

/// The largest text. A fleet of 2,000 instances, each with twenty fields, is half of this.
pub const MAX_BYTES: usize = 1 << 20;

/// The deepest nesting. A fleet file needs five; the bound keeps recursion over the tree shallow.
const MAX_DEPTH: usize = 16;

/// The most nodes, with aliases counted at their full size: what keeps a few nested aliases from becoming a
/// million fields.
const MAX_NODES: usize = 200_000;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
    /// Nodes in it, itself included, aliases counted in full.
    size: usize,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A scalar without quotes: its text says what it is.
    Plain(String),
    /// A scalar in quotes, or a block of text.
    Text(String),
    /// A list.
    Sequence(Vec<Rc<Node>>),
    /// Keys and values, in the order of the file.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub place: Place,
    /// The value.
    pub node: Rc<Node>,
}

impl Node {
    fn new(place: Place, value: Value) -> Self {
        let size = 1 + match &value {
            Value::Plain(_) | Value::Text(_) => 0,
            Value::Sequence(items) => items.iter().map(|item| item.size).sum(),
            Value::Mapping(entries) => entries.iter().map(|entry| 1 + entry.node.size).sum(),
        };
        Self { place, value, size }
    }

    /// Whether it stands for "nothing": `~`, `null` or an empty place.
    #[must_use]
    pub fn is_null(&self) -> bool {
        const NULLS: [&str; 5] = ["", "~", "null", "Null", "NULL"];
        matches!(&self.value, Value::Plain(text) if NULLS.contains(&text.as_str()))
    }

    /// Its entries; none if it is null.
    pub fn entries(&self) -> Result<&[Entry], Fault> {
        match &self.value {
            Value::Mapping(entries) => Ok(entries),
            Value::Plain(_) if self.is_null() => Ok(&[]),
            Value::Plain(_) | Value::Text(_) | Value::Sequence(_) => Err(Fault::new(
                self.place,
                "fields are wanted here",
                "write `field: value`, one to a line, indented below this key",
            )),
        }
    }

    /// The entry called `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            Value::Plain(_) | Value::Text(_) | Value::Sequence(_) => None,
        }
    }

    /// Where the field at `path` stands: its value, or its key if the value is a group of fields. Items of
    /// lists are `[n]`. A path that ends nowhere leads to the innermost part of it that is there; `None` if
    /// not even its first key is.
    #[must_use]
    pub fn find<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<Place> {
        let mut node = self;
        let mut place = None;
        for step in path {
            let next = match &node.value {
                Value::Mapping(entries) => entries.iter().find(|entry| entry.key == step).map(|entry| {
                    let group = matches!(entry.node.value, Value::Mapping(_)) || entry.node.is_null();
                    (if group { entry.place } else { entry.node.place }, &entry.node)
                }),
                Value::Sequence(items) => {
                    let index: Option<usize> = step.trim_matches(['[', ']']).parse().ok();
                    index.and_then(|index| items.get(index)).map(|item| (item.place, item))
                }
                Value::Plain(_) | Value::Text(_) => None,
            };
            let Some((found, child)) = next else { break };
            place = Some(found);
            node = child;
        }
        place
    }
}

/// Reads the one document in `text`.
pub fn parse(text: &str) -> Result<Node, Fault> {
    if text.len() > MAX_BYTES {
        return Err(Fault::new(
            Place::START,
            format!("the file has {} bytes, more than the {MAX_BYTES} that are read", text.len()),
            "split the fleet over several supervisors, or move repeated fields into `defaults`",
        ));
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        if let Some(root) = builder.take(&mut parser, event, span)? {
            return Ok(root);
        }
    }
    Ok(Node::new(Place::START, Value::Plain(String::new())))
}

fn place(mark: Marker) -> Place {
    Place { line: mark.line().max(1), column: mark.col() + 1 }
}

fn syntax(error: &ScanError) -> Fault {
    Fault::new(
        place(*error.marker()),
        format!("this is not YAML: {}", error.info()),
        "check the indentation, the colons and the quotes at this place and the line above",
    )
}

/// A list or a mapping that is not complete yet.
enum Open {
    Sequence(Vec<Rc<Node>>),
    Mapping { entries: Vec<Entry>, lines: HashMap<String, usize>, key: Option<(String, Place)> },
}

struct Frame {
    place: Place,
    anchor: usize,
    open: Open,
}

#[derive(Default)]
struct Builder {
    open: Vec<Frame>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Node>,
}

impl Builder {
    /// Takes one event; answers the root at the end of the stream.
    fn take(
        &mut self,
        parser: &mut Parser<'_, StrInput<'_>>,
        event: Event<'_>,
        span: Span,
    ) -> Result<Option<Node>, Fault> {
        let place = place(span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
            Event::DocumentStart(_) if self.root.is_some() => {
                return Err(Fault::new(
                    place,
                    "a second document begins here",
                    "remove the `---` and merge the two",
                ));
            }
            Event::DocumentStart(_) => {}
            Event::StreamEnd => {
                return Ok(Some(
                    self.root.take().unwrap_or_else(|| Node::new(Place::START, Value::Plain(String::new()))),
                ));
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or_else(|| {
                    Fault::new(place, "this alias stands inside its own anchor", "write the fields out")
                })?;
                self.add(place, node)?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(place, tag.is_some())?;
                let value = match style {
                    ScalarStyle::Plain => Value::Plain(text.into_owned()),
                    ScalarStyle::SingleQuoted
                    | ScalarStyle::DoubleQuoted
                    | ScalarStyle::Literal
                    | ScalarStyle::Folded => Value::Text(text.into_owned()),
                };
                self.complete(place, anchor, value)?;
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(place, tag.is_some())?;
                self.open(place, anchor, Open::Sequence(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(place, tag.is_some())?;
                // A block mapping is announced at the colon after its first key; the key is where it begins.
                let place = match parser.peek() {
                    Some(Ok((_, first))) => place.min(self::place(first.start)),
                    Some(Err(_)) | None => place,
                };
                self.open(
                    place,
                    anchor,
                    Open::Mapping { entries: Vec::new(), lines: HashMap::new(), key: None },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.open.pop() {
                    let value = match frame.open {
                        Open::Sequence(items) => Value::Sequence(items),
                        Open::Mapping { entries, .. } => Value::Mapping(entries),
                    };
                    self.complete(frame.place, frame.anchor, value)?;
                }
            }
        }
        Ok(None)
    }

    fn open(&mut self, place: Place, anchor: usize, open: Open) -> Result<(), Fault> {
        if self.open.len() == MAX_DEPTH {
            return Err(Fault::new(
                place,
                format!("nested deeper than {MAX_DEPTH} levels"),
                "nothing in this file needs that depth; check the brackets and the indentation",
            ));
        }
        if matches!(self.open.last(), Some(Frame { open: Open::Mapping { key: None, .. }, .. })) {
            return Err(compound_key(place));
        }
        self.open.push(Frame { place, anchor, open });
        Ok(())
    }

    fn complete(&mut self, place: Place, anchor: usize, value: Value) -> Result<(), Fault> {
        let node = Node::new(place, value);
        if node.size > MAX_NODES {
            return Err(Fault::new(
                place,
                format!("what begins here stands for more than {MAX_NODES} fields"),
                "write aliases out, or move repeated fields into `defaults`",
            ));
        }
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.add(place, node)
    }

    /// Puts a complete node where it belongs: a key, a value, an item, or the root.
    fn add(&mut self, place: Place, node: Rc<Node>) -> Result<(), Fault> {
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(Rc::unwrap_or_clone(node));
            return Ok(());
        };
        match &mut frame.open {
            Open::Sequence(items) => items.push(node),
            Open::Mapping { key: pending @ None, lines, .. } => {
                let (Value::Plain(key) | Value::Text(key)) = &node.value else {
                    return Err(compound_key(place));
                };
                refuse_key(lines, key, place)?;
                *pending = Some((key.clone(), place));
            }
            Open::Mapping { key, entries, .. } => {
                if let Some((key, place)) = key.take() {
                    entries.push(Entry { key, place, node });
                }
            }
        }
        Ok(())
    }
}

fn compound_key(place: Place) -> Fault {
    Fault::new(place, "a key must be a single word or text", "write `name: value`")
}

fn refuse_tag(place: Place, tagged: bool) -> Result<(), Fault> {
    match tagged {
        true => Err(Fault::new(place, "tags mean nothing here", "remove the word that begins with `!`")),
        false => Ok(()),
    }
}

fn refuse_key(lines: &mut HashMap<String, usize>, key: &str, place: Place) -> Result<(), Fault> {
    if key == "<<" {
        return Err(Fault::new(place, "merge keys are not read", "put shared fields into `defaults`"));
    }
    match lines.insert(key.to_owned(), place.line) {
        None => Ok(()),
        Some(line) => Err(Fault::new(
            place,
            format!("`{key}` stands here for the second time; the first is on line {line}"),
            "keep one of the two",
        )
        .within(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        parse(text).unwrap_err()
    }

    #[test]
    fn every_node_knows_where_it_begins() {
        let tree = parse("a: 1\nb:\n  c: [x, {d: 2}]\n").unwrap();
        assert_eq!(tree.place, Place::START);
        assert_eq!(tree.find(["a"]), Some(Place { line: 1, column: 4 }));
        assert_eq!(tree.find(["b"]), Some(Place { line: 2, column: 1 }), "a group is found by its key");
        assert_eq!(tree.find(["b", "c", "[1]", "d"]), Some(Place { line: 3, column: 14 }));
        assert_eq!(tree.find(["b", "nowhere"]), Some(Place { line: 2, column: 1 }), "else what is around it");
        assert_eq!(tree.find(["nowhere"]), None);
        let Value::Mapping(entries) = &tree.value else { panic!("{tree:?}") };
        assert_eq!(entries[1].node.place, Place { line: 3, column: 3 });
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_at_the_second() {
        let fault = fault("a: 1\nb:\n  c: 1\n  c: 2\n");
        assert_eq!(fault.place, Some(Place { line: 4, column: 3 }));
        assert!(fault.message.contains("line 3"), "{fault:?}");
    }

    #[test]
    fn broken_yaml_is_refused_with_its_place() {
        for (text, line) in
            [("a: [1\nb: 2\n", 2), ("a: 1\n b: 2\n", 2), ("b: 1\na: \"x\n", 2), ("a: *x\n", 1)]
        {
            let fault = fault(text);
            assert_eq!(fault.place.unwrap().line, line, "{text:?}: {fault:?}");
        }
    }

    #[test]
    fn tags_merge_keys_second_documents_and_compound_keys_are_refused() {
        for text in ["a: !!str 1", "a: &x {b: 1}\nc:\n  <<: *x", "a: 1\n---\nb: 1", "[a]: 1", "? {a: 1}\n: 2"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn anchors_are_followed_and_bombs_are_not() {
        let tree = parse("a: &x {b: 1}\nc: *x\n").unwrap();
        assert_eq!(tree.get("a").unwrap().node, tree.get("c").unwrap().node);
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..9 {
            let below = vec![format!("*a{}", level - 1); 10].join(",");
            bomb += &format!("a{level}: &a{level} [{below}]\n");
        }
        assert!(fault(&bomb).message.contains("stands for more than"));
        assert!(parse("a: &x [*x]").is_err());
    }

    #[test]
    fn depth_and_size_are_bounded() {
        assert!(fault(&"[".repeat(20)).message.contains("nested deeper"), "{:?}", fault(&"[".repeat(20)));
        let deep: String = (0..20).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(fault(&deep).message.contains("nested deeper"));
        for bracket in ["[", "{a: ", "- ", "? "] {
            assert!(parse(&bracket.repeat(MAX_BYTES / bracket.len())).is_err(), "and at once");
        }
        assert!(fault(&"a".repeat(MAX_BYTES + 1)).message.contains("bytes"));
    }

    #[test]
    fn an_empty_file_is_nothing() {
        for text in ["", "\n# only a comment\n", "---\n"] {
            assert!(parse(text).unwrap().is_null(), "{text:?}");
        }
    }
}
