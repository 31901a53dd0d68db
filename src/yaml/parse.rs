//! Builds nodes from the parser's events.

use super::{Invalid, Limits, Node, Place, Tag, Value};
use granit_parser::{Event, Marker, Parser, ScalarStyle};
use std::collections::HashMap;

/// Reads every document of a text.
///
/// # Errors
/// What breaks the rules of YAML, or goes beyond the limits; with its place, and without any of the text.
pub(crate) fn documents<'a>(text: &'a str, limits: &Limits) -> Result<Vec<Node<'a>>, Invalid> {
    let mut builder = Builder { limits, nodes: 0, text: 0, aliases: 0, open: Vec::new(), anchors: HashMap::new() };
    let mut documents = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| Invalid { at: place(e.marker()), what: e.info() })?;
        let at = place(&span.start);
        let complete = match event {
            Event::DocumentStart(..) => {
                if documents.len() == limits.documents {
                    let documents = if limits.documents == 1 { "one document" } else { "that many documents" };
                    return Err(Invalid { at, what: format!("more than {documents}") });
                }
                builder.aliases = 0;
                builder.anchors.clear();
                None
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tag = builder.tag(tag.as_deref(), NodeKind::Scalar, at)?;
                builder.count(1, text.len(), at)?;
                let (plain, literal) = (style == ScalarStyle::Plain, style == ScalarStyle::Literal);
                let value = Value::Scalar { text, plain, literal };
                builder.complete(Node { at, tag, value }, anchor)?
            }
            Event::SequenceStart(_, anchor, tag) => {
                let tag = builder.tag(tag.as_deref(), NodeKind::List, at)?;
                builder.enter(Open { at, tag, anchor, list: true, items: Vec::new() })?
            }
            Event::MappingStart(_, anchor, tag) => {
                let tag = builder.tag(tag.as_deref(), NodeKind::Map, at)?;
                builder.enter(Open { at, tag, anchor, list: false, items: Vec::new() })?
            }
            Event::SequenceEnd | Event::MappingEnd => builder.leave()?,
            Event::Alias(anchor) => builder.repeat(anchor, at)?,
            _ => None,
        };
        documents.extend(complete);
    }
    Ok(documents)
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

enum NodeKind {
    Scalar,
    List,
    Map,
}

/// A sequence or mapping whose end is still to come.
struct Open<'a> {
    at: Place,
    tag: Tag,
    anchor: usize,
    list: bool,
    /// Of a mapping: key, value, key, value.
    items: Vec<Node<'a>>,
}

/// A node that aliases may repeat, and what that costs.
struct Anchored<'a> {
    node: Node<'a>,
    size: Size,
}

#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    text: usize,
    depth: usize,
}

struct Builder<'a, 'l> {
    limits: &'l Limits,
    nodes: usize,
    text: usize,
    aliases: usize,
    open: Vec<Open<'a>>,
    anchors: HashMap<usize, Anchored<'a>>,
}

impl<'a> Builder<'a, '_> {
    fn tag(&self, tag: Option<&granit_parser::Tag>, kind: NodeKind, at: Place) -> Result<Tag, Invalid> {
        let Some(tag) = tag else { return Ok(Tag::None) };
        let fits = |fits: bool, tag| match fits {
            true => Ok(tag),
            false => Err(Invalid { at, what: "a tag of another kind of node than this is".into() }),
        };
        match tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() {
            Some("map") => fits(matches!(kind, NodeKind::Map), Tag::Typed),
            Some("seq") => fits(matches!(kind, NodeKind::List), Tag::Typed),
            Some("str") => fits(matches!(kind, NodeKind::Scalar), Tag::Text),
            Some("null") => fits(matches!(kind, NodeKind::Scalar), Tag::Null),
            Some("int" | "float" | "bool" | "binary" | "timestamp" | "merge" | "value") => {
                fits(matches!(kind, NodeKind::Scalar), Tag::Typed)
            }
            Some(_) => Ok(Tag::Foreign),
            None if matches!(tag.suffix_in_namespace("!").as_deref(), Some("" | "!")) => Ok(match kind {
                NodeKind::Scalar => Tag::Text,
                NodeKind::List | NodeKind::Map => Tag::None,
            }),
            None => Ok(Tag::Foreign),
        }
    }

    fn count(&mut self, nodes: usize, text: usize, at: Place) -> Result<(), Invalid> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.text = self.text.saturating_add(text);
        if self.nodes > self.limits.nodes {
            return Err(Invalid { at, what: format!("more than {} values", self.limits.nodes) });
        }
        if self.text > self.limits.text {
            return Err(Invalid { at, what: format!("more than {} bytes of text", self.limits.text) });
        }
        Ok(())
    }

    fn enter(&mut self, open: Open<'a>) -> Result<Option<Node<'a>>, Invalid> {
        self.count(1, 0, open.at)?;
        self.refuse_deeper_than_allowed(1, open.at)?;
        self.open.push(open);
        Ok(None)
    }

    fn refuse_deeper_than_allowed(&self, more: usize, at: Place) -> Result<(), Invalid> {
        match self.open.len().saturating_add(more) > self.limits.depth {
            true => Err(Invalid { at, what: format!("nested more than {} deep", self.limits.depth) }),
            false => Ok(()),
        }
    }

    /// The innermost open node is complete.
    fn leave(&mut self) -> Result<Option<Node<'a>>, Invalid> {
        let Some(Open { at, tag, anchor, list, items }) = self.open.pop() else { return Ok(None) };
        let value = if list {
            Value::List(items)
        } else {
            let mut entries = Vec::with_capacity(items.len() / 2);
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                entries.push((key, value));
            }
            Value::Map(entries)
        };
        self.complete(Node { at, tag, value }, anchor)
    }

    /// Puts a complete node into the one around it; a document's root is returned.
    fn complete(&mut self, node: Node<'a>, anchor: usize) -> Result<Option<Node<'a>>, Invalid> {
        if anchor != 0 {
            self.count_alias(node.at)?;
            let size = size(&node);
            // The copy that aliases repeat takes memory too.
            self.count(size.nodes, size.text, node.at)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), size });
        }
        match self.open.last_mut() {
            Some(open) => {
                open.items.push(node);
                Ok(None)
            }
            None => Ok(Some(node)),
        }
    }

    fn repeat(&mut self, anchor: usize, at: Place) -> Result<Option<Node<'a>>, Invalid> {
        self.count_alias(at)?;
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(Invalid { at, what: "an alias for the node that it stands in".into() });
        };
        let size = anchored.size;
        self.count(size.nodes, size.text, at)?;
        self.refuse_deeper_than_allowed(size.depth, at)?;
        match (self.anchors.get(&anchor), self.open.last_mut()) {
            (Some(anchored), Some(open)) => {
                open.items.push(anchored.node.clone());
                Ok(None)
            }
            (anchored, _) => Ok(anchored.map(|anchored| anchored.node.clone())),
        }
    }

    fn count_alias(&mut self, at: Place) -> Result<(), Invalid> {
        self.aliases += 1;
        match self.aliases > self.limits.aliases {
            true if self.limits.aliases == 0 => {
                Err(Invalid { at, what: "an anchor or alias, which have no place here".into() })
            }
            true => Err(Invalid { at, what: format!("more than {} anchors and aliases", self.limits.aliases) }),
            false => Ok(()),
        }
    }
}

/// What a copy of this node takes. The depth of a node is bounded when this is called.
fn size(node: &Node<'_>) -> Size {
    let around = |inner: Size, next: Size| Size {
        nodes: inner.nodes + next.nodes,
        text: inner.text + next.text,
        depth: inner.depth.max(next.depth),
    };
    let nested = |inner: Size| Size { nodes: inner.nodes + 1, text: inner.text, depth: inner.depth + 1 };
    match &node.value {
        Value::Scalar { text, .. } => Size { nodes: 1, text: text.len(), depth: 0 },
        Value::List(items) => nested(items.iter().map(size).fold(Size::default(), around)),
        Value::Map(entries) => {
            nested(entries.iter().flat_map(|(key, value)| [size(key), size(value)]).fold(Size::default(), around))
        }
    }
}
