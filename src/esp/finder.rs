//! Many files of one volume, looked up one after the other: the targets of a thousand entries. The directories on the way
//! to the last one are kept, and what they list is found by name without going through it again.

use crate::Result;
use crate::block::ReadAt;
use crate::fat::{Directory, Entry, Volume, folded};
use std::collections::HashMap;

/// Deeper than any path that is looked up often; each level holds a directory in memory.
const MAX_DEPTH: usize = 8;

/// A directory, and where in it a name stands.
pub(super) struct Listing {
    pub(super) directory: Directory,
    places: HashMap<String, usize>,
}

impl Listing {
    pub(super) fn of(directory: Directory) -> Self {
        let mut places = HashMap::new();
        for (place, entry) in directory.entries.iter().enumerate() {
            places.entry(folded(&entry.name)).or_insert(place);
        }
        Self { directory, places }
    }

    /// As [`Directory::find`].
    pub(super) fn find(&self, name: &str) -> Option<&Entry> {
        match self.places.get(&folded(name)) {
            Some(place) => self.directory.entries.get(*place),
            None => self.directory.find(name),
        }
    }
}

/// Looks files up.
pub(super) struct Finder<'v, S> {
    volume: &'v Volume<S>,
    /// The directories on the way to the last file, by their names; the root first.
    way: Vec<(String, Listing)>,
}

impl<'v, S: ReadAt> Finder<'v, S> {
    pub(super) fn new(volume: &'v Volume<S>) -> Self {
        Self { volume, way: Vec::new() }
    }

    /// As [`Volume::find`].
    pub(super) fn find(&mut self, path: &str) -> Result<Option<Entry>> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folders: Vec<&str> = parent.split('/').filter(|c| !c.is_empty()).collect();
        if folders.len() > MAX_DEPTH {
            return self.volume.find(path);
        }
        if self.way.is_empty() {
            self.way.push((String::new(), Listing::of(self.volume.root()?)));
        }
        let known = self.way.iter().skip(1).zip(&folders).take_while(|((known, _), folder)| known == *folder).count();
        self.way.truncate(known + 1);
        for folder in &folders[known..] {
            let Some((_, at)) = self.way.last() else { return Ok(None) };
            let Some(entry) = at.find(folder).filter(|e| e.is_dir()) else { return Ok(None) };
            let directory = self.volume.directory(entry)?;
            self.way.push(((*folder).to_owned(), Listing::of(directory)));
        }
        Ok(self.way.last().and_then(|(_, at)| at.find(name)).cloned())
    }
}
