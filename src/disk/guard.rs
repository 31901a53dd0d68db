//! The last look at a write before it is made: it lies inside the ESP, inside no other partition, and in a file that
//! is still the one that the user named.
//!
//! Everything above computes where it writes from what stands on the disk. This knows nothing of FAT; it knows the
//! partition table, and refuses what a mistake above, or a table that contradicts itself, would let through.

use super::layout::overlap;
use crate::block::{Extent, ReadAt, SurgeryFile, WriteAt};
use crate::{Code, Error};
use std::io;

/// Where writes may go, in bytes from the start of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Where the node that is written begins on the disk: 0 for the whole disk, else the start of the partition.
    pub(super) node_offset: u64,
    /// The ESP. `None` when the node has no partition table above it: then all of it.
    pub(super) esp: Option<Extent>,
    /// Other partitions and the tables themselves.
    pub(super) others: Vec<Extent>,
}

impl Bounds {
    /// All of the node.
    pub(super) fn whole() -> Self {
        Self { node_offset: 0, esp: None, others: Vec::new() }
    }

    fn check(&self, offset: u64, bytes: usize) -> Result<(), Error> {
        let place = Extent { offset: self.node_offset.saturating_add(offset), bytes: bytes as u64 };
        let end = place.offset.checked_add(place.bytes);
        let outside = self.esp.is_some_and(|esp| {
            place.offset < esp.offset || end.is_none_or(|end| end > esp.offset.saturating_add(esp.bytes))
        });
        if !outside && !self.others.iter().any(|other| overlap(*other, place)) {
            return Ok(());
        }
        Err(Error::new(
            Code::Bug,
            format!(
                "a write of {bytes} bytes at byte {} of the disk does not lie inside the ESP alone: not made",
                place.offset
            ),
        )
        .advise("please report it, with the output of `bootsurgeon inspect` for this disk"))
    }
}

/// A medium that is written inside its bounds only.
#[derive(Debug)]
pub(super) struct Guard<M> {
    medium: M,
    bounds: Bounds,
}

impl<M> Guard<M> {
    pub(super) fn new(medium: M, bounds: Bounds) -> Self {
        Self { medium, bounds }
    }
}

/// Media that have a name by which a user knows them.
pub(super) trait Named {
    /// Fails when the name stands for something else by now.
    ///
    /// # Errors
    /// [`Code::Medium`].
    fn check_name(&self) -> Result<(), Error>;
}

impl Named for SurgeryFile {
    fn check_name(&self) -> Result<(), Error> {
        Self::check_name(self)
    }
}

impl<M: ReadAt> ReadAt for Guard<M> {
    fn size(&self) -> u64 {
        self.medium.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.medium.read_exact_at(buf, offset)
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        self.medium.will_read(offset, bytes);
    }
}

impl<M: WriteAt + Named> WriteAt for Guard<M> {
    fn sector_size(&self) -> u32 {
        self.medium.sector_size()
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.bounds.check(offset, buf.len())?;
        self.medium.write_all_at(buf, offset)
    }

    /// Every step of an operation ends with a barrier, the commit too: that is where the name is looked at. In front
    /// of the barrier, so that a commit is not made to a file that nobody finds any more.
    fn barrier(&self) -> io::Result<()> {
        self.medium.check_name()?;
        self.medium.barrier()
    }

    /// What follows is read to be shown to the user as the state of what was named.
    fn drop_caches(&self) -> io::Result<()> {
        self.medium.check_name()?;
        self.medium.drop_caches()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Memory, Window};

    impl Named for Memory {
        fn check_name(&self) -> Result<(), Error> {
            Ok(())
        }
    }

    fn extent(offset: u64, bytes: u64) -> Extent {
        Extent { offset, bytes }
    }

    #[test]
    fn writes_inside_the_esp_are_made_and_all_others_are_not() {
        let bounds = Bounds {
            node_offset: 0,
            esp: Some(extent(2048, 2048)),
            others: vec![extent(0, 1024), extent(3584, 512), extent(4096, 1 << 20)],
        };
        let guard = Guard::new(Memory::new(vec![0; 16384]), bounds);
        for (offset, bytes, allowed) in [
            (2048, 512, true),
            (3072, 512, true),
            (3072, 1024, false),
            (3584, 512, false),
            (1536, 512, false),
            (1536, 1024, false),
            (4096, 512, false),
            (0, 512, false),
        ] {
            let wrote = guard.write_all_at(&vec![1; bytes], offset);
            assert_eq!(wrote.is_ok(), allowed, "{bytes} bytes at {offset}");
            if let Err(e) = wrote {
                assert_eq!(Error::from(e).code(), Code::Bug);
            }
            let mut now = vec![0; bytes];
            guard.read_exact_at(&mut now, offset).unwrap();
            assert_eq!(now.iter().all(|b| *b == 1), allowed, "{bytes} bytes at {offset}");
        }
    }

    #[test]
    fn the_place_of_a_partition_node_counts() {
        let bounds =
            Bounds { node_offset: 1 << 20, esp: Some(extent(1 << 20, 1024)), others: vec![extent(0, 1 << 20)] };
        let guard = Guard::new(Memory::new(vec![0; 4096]), bounds);
        assert!(guard.write_all_at(&[1; 512], 512).is_ok());
        assert!(guard.write_all_at(&[1; 512], 1024).is_err(), "the node is longer than the partition");
    }

    #[test]
    fn below_a_window_the_guard_sees_the_disk() {
        let bounds = Bounds { node_offset: 0, esp: Some(extent(1024, 1024)), others: Vec::new() };
        let guard = Guard::new(Memory::new(vec![0; 8192]), bounds);
        let wrong = Window::new(&guard, extent(512, 2048)).unwrap();
        assert!(wrong.write_all_at(&[1; 512], 0).is_err());
        assert!(wrong.write_all_at(&[1; 512], 512).is_ok());
    }
}
