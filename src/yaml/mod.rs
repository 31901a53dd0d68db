//! YAML as nodes that know their place, tag and quotes, read within limits.
//!
//! `granit-parser` (YAML 1.2) reads the text; this room builds nodes from its events and bounds what a document may ask
//! for: text, nodes, nesting, aliases. What a plain scalar means (a number, a boolean) is the reader's question, asked
//! of [`scalar`] where it matters, because Go's readers of the same documents answer by the type that they expect.
//! Pure: touches nothing.

mod fields;
mod parse;
pub(crate) mod scalar;

pub(crate) use fields::{Field, Fields, Merge};
pub(crate) use parse::documents;

use std::borrow::Cow;
use std::fmt;

/// What a text may ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Documents.
    pub(crate) documents: usize,
    /// Sequences, mappings and scalars of all documents; what an alias repeats counts again.
    pub(crate) nodes: usize,
    /// Bytes of scalars; what an alias repeats counts again.
    pub(crate) text: usize,
    /// Sequences and mappings in one another. At most 255, the parser's own limit.
    pub(crate) depth: usize,
    /// Anchors, and aliases, in a document.
    pub(crate) aliases: usize,
}

/// Where something is in the text; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    /// In characters.
    pub(crate) column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// What is wrong, and where. Never holds text of a scalar: configuration has secrets in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) at: Place,
    pub(crate) what: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// The tag of a node, as far as it decides how the node is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// None was written.
    None,
    /// `!!str`, or the `!` that says the same of a scalar.
    Text,
    /// `!!null`.
    Null,
    /// Another type of YAML's own, such as `!!int` or `!!binary`.
    Typed,
    /// An application's own.
    Foreign,
}

/// A node of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node<'a> {
    /// Where it is written; of a node that an alias repeats, where the anchor is.
    pub(crate) at: Place,
    /// Its tag.
    pub(crate) tag: Tag,
    /// What it holds.
    pub(crate) value: Value<'a>,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    /// A scalar without its quotes; `plain` if it had none and is no block either; `literal` if it is a block that keeps
    /// its lines (`|`).
    Scalar { text: Cow<'a, str>, plain: bool, literal: bool },
    /// A sequence.
    List(Vec<Node<'a>>),
    /// A mapping, as written: with doubled and merge keys.
    Map(Vec<(Node<'a>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// Whether it stands for nothing: `~`, `null`, an empty plain scalar.
    pub(crate) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain, .. } => {
                self.tag == Tag::Null
                    || (*plain
                        && matches!(self.tag, Tag::None | Tag::Foreign)
                        && matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
            }
            _ => false,
        }
    }

    /// The scalar's text, of whatever type it looks.
    pub(crate) fn text(&self) -> Result<&str, Invalid> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => match self.tag {
                Tag::None | Tag::Text | Tag::Foreign => Ok(text),
                Tag::Null | Tag::Typed => Err(self.invalid("this has the tag of another type than text")),
            },
            Value::Scalar { .. } => Err(self.invalid("this is empty where text is expected")),
            _ => Err(self.invalid("this is not text")),
        }
    }

    /// The items of a sequence.
    pub(crate) fn list(&self) -> Result<&[Self], Invalid> {
        match &self.value {
            Value::List(items) => Ok(items),
            _ => Err(self.invalid("this is not a sequence")),
        }
    }

    /// The entries of a mapping by their names.
    pub(crate) fn fields(&self, merge: Merge) -> Result<Fields<'_, 'a>, Invalid> {
        Fields::of(self, merge)
    }

    /// Something is wrong with this node.
    pub(crate) fn invalid(&self, what: impl Into<String>) -> Invalid {
        Invalid { at: self.at, what: what.into() }
    }

    /// The key that merges another mapping into this one.
    fn is_merge_key(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true, .. } if text == "<<") && self.tag == Tag::None
    }
}

#[cfg(test)]
mod tests;
