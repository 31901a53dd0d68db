//! Room on an ESP: what takes it, and what would make it.

use crate::fat::Usage;
use crate::units::{count, size};
use serde::Serialize;

/// So many of the largest things are named.
const NAMED: usize = 5;

/// Room on an ESP: how much is wanted, and what a command of this program would free, by its own plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Room {
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Bytes that are wanted.
    pub needed_bytes: u64,
    /// What takes the room, the largest first.
    pub largest: Vec<Usage>,
    /// The mildest command that frees enough, or else the one that frees most; `None` where none frees anything.
    pub way: Option<WayToRoom>,
}

/// A command and the room that it makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WayToRoom {
    /// `prune` or `recover`.
    pub command: &'static str,
    /// Its options.
    pub options: &'static str,
    /// Bytes that it frees.
    pub frees_bytes: u64,
    /// What is lost beyond duplicates, files that were disabled, and versions that nothing starts.
    pub loses: Option<String>,
}

impl Room {
    /// Whether [`Self::way`] frees enough.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        let freed = self.way.as_ref().map_or(0, |way| way.frees_bytes);
        self.free_bytes.saturating_add(freed) >= self.needed_bytes
    }

    /// What to do. `command`: how a command of this program, with these options, is written for this disk.
    #[must_use]
    pub fn advice(&self, command: impl Fn(&str, &str) -> String) -> String {
        match &self.way {
            Some(way) if self.is_enough() => format!("{} frees {}", in_words(way, command), size(way.frees_bytes)),
            Some(way) => format!(
                "{} frees {}, {} too little; {}",
                in_words(way, command),
                size(way.frees_bytes),
                size(self.needed_bytes - self.free_bytes - way.frees_bytes),
                self.others()
            ),
            None => format!("no command of this program frees anything; {}", self.others()),
        }
    }

    /// What the room is taken by, which this program does not delete.
    fn others(&self) -> String {
        format!("what takes the room: {}. Move away what the board does not need", self.largest_in_words())
    }

    /// `/EFI/UpdateCapsule 300.0 MiB (3 files), /EFI/Linux/old.efi 100.0 MiB`.
    #[must_use]
    pub fn largest_in_words(&self) -> String {
        let item = |item: &Usage| {
            let files = item.files.map_or(String::new(), |n| format!(" ({})", count(n, "file")));
            format!("{} {}{files}", item.path, size(item.bytes))
        };
        self.largest.iter().take(NAMED).map(item).collect::<Vec<_>>().join(", ")
    }
}

fn in_words(way: &WayToRoom, command: impl Fn(&str, &str) -> String) -> String {
    let loses = way.loses.as_ref().map_or(String::new(), |what| format!(" ({what})"));
    format!("{}{loses}", command(way.command, way.options))
}
