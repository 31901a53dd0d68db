//! A mapping whose keys are names.

use super::{Invalid, Node, Value};
use std::collections::HashSet;

/// What the key `<<` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    /// It brings the entries of another mapping, or of several, for names that are not there otherwise.
    Apply,
    /// It is an error.
    Refuse,
}

/// The entries of a mapping, each name once.
#[derive(Debug)]
pub(crate) struct Fields<'n, 'a> {
    node: &'n Node<'a>,
    entries: Vec<Field<'n, 'a>>,
}

/// One entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'n, 'a> {
    pub(crate) name: &'n str,
    pub(crate) key: &'n Node<'a>,
    pub(crate) value: &'n Node<'a>,
}

impl<'n, 'a> Fields<'n, 'a> {
    pub(super) fn of(node: &'n Node<'a>, merge: Merge) -> Result<Self, Invalid> {
        let mut fields = Self { node, entries: Vec::new() };
        fields.add(node, merge, &mut HashSet::new())?;
        Ok(fields)
    }

    /// The value of a name; `None` where it is absent or nothing.
    pub(crate) fn find(&self, name: &str) -> Option<&'n Node<'a>> {
        self.entries.iter().find(|field| field.name == name).map(|field| field.value).filter(|value| !value.is_null())
    }

    /// The value of a name that must be there.
    pub(crate) fn need(&self, name: &str) -> Result<&'n Node<'a>, Invalid> {
        self.find(name).ok_or_else(|| self.node.invalid(format!("{name} is missing")))
    }

    /// Every entry, in the order of the text.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Field<'n, 'a>> {
        self.entries.iter().copied()
    }

    /// Refuses every name but these.
    pub(crate) fn only(self, names: &[&str]) -> Result<Self, Invalid> {
        match self.entries.iter().find(|field| !names.contains(&field.name)) {
            Some(field) => {
                let known = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                Err(field.key.invalid(format!("unknown field `{}`, expected one of {known}", field.name)))
            }
            None => Ok(self),
        }
    }

    fn add(&mut self, node: &'n Node<'a>, merge: Merge, seen: &mut HashSet<&'n str>) -> Result<(), Invalid> {
        let Value::Map(entries) = &node.value else { return Err(node.invalid("this is not a mapping")) };
        let (mut own, mut merged) = (HashSet::new(), Vec::new());
        for (key, value) in entries {
            if key.is_merge_key() {
                match merge {
                    Merge::Apply => merged.push(value),
                    Merge::Refuse => return Err(key.invalid("the merge key << is not allowed here")),
                }
                continue;
            }
            let name = key.text()?;
            if !own.insert(name) {
                return Err(key.invalid(format!("the field `{name}` is there twice")));
            }
            if seen.insert(name) {
                self.entries.push(Field { name, key, value });
            }
        }
        for value in merged {
            let several = if let Value::List(items) = &value.value { items } else { std::slice::from_ref(value) };
            for one in several.iter().filter(|one| !one.is_null()) {
                self.add(one, merge, seen)?;
            }
        }
        Ok(())
    }
}
