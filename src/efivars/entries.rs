//! The variables of a store, whichever format it has.

use super::Variable;
use std::collections::BTreeMap;
use uuid::Uuid;

/// More variables than this no firmware keeps.
const MAX_VARIABLES: usize = 65_536;
/// More warnings say nothing new.
const MAX_WARNINGS: usize = 16;
/// Longer names are none, in UTF-16 units.
const MAX_NAME: usize = 1024;

/// A variable with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) vendor: Uuid,
    pub(super) value: Variable,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) all: BTreeMap<(String, Uuid), Variable>,
    pub(super) warnings: Vec<String>,
}

impl Entries {
    /// Adds a variable, unless there is one of that name: the first one counts.
    pub(super) fn add(&mut self, stored: Stored) {
        if self.all.len() < MAX_VARIABLES {
            self.all.entry((stored.name, stored.vendor)).or_insert(stored.value);
        }
    }

    pub(super) fn get(&self, name: &str, vendor: Uuid) -> Option<&Variable> {
        self.all.get(&(name.to_owned(), vendor))
    }

    pub(super) fn warn(&mut self, what: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(what);
        }
    }
}

/// The NUL-terminated UTF-16LE name at an offset, and where it ends.
pub(super) fn name_at(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let units = bytes.get(at..)?.as_chunks::<2>().0;
    let units: Vec<u16> = units.iter().take(MAX_NAME).map(|u| u16::from_le_bytes(*u)).take_while(|u| *u != 0).collect();
    // The NUL has to be there.
    (units.len() < MAX_NAME && bytes.len() >= at + (units.len() + 1) * 2)
        .then(|| (String::from_utf16_lossy(&units), at + (units.len() + 1) * 2))
}
