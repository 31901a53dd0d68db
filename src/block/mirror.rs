//! One volume on several media: the members of a mirror that is not assembled.

use super::{Extent, ReadAt, WriteAt, read_vec};
use crate::{Code, Context, Error, Result};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that are copied or compared at once.
const CHUNK: usize = 1 << 20;

/// Media of equal content that are written as one.
///
/// They are written one after the other, barrier by barrier: what was written between two barriers reaches the first
/// one and is flushed there before it goes to the next one. So at most one of them has writes under way at any time,
/// and each of them sees the writes and the barriers of the operation in their order: whatever holds for one medium at
/// a power cut holds for every member. What is read is compared in all of them, except what was not flushed yet.
pub struct Mirror<'m> {
    members: Vec<(String, Box<dyn WriteAt + 'm>)>,
    sector_size: u32,
    /// What the first member has and the others do not have yet, in the order of the writes.
    pending: Mutex<Vec<Extent>>,
}

impl<'m> Mirror<'m> {
    /// A mirror of these media, each with the name by which the user knows it.
    ///
    /// # Errors
    /// [`Code::Bug`] when there is none, or they differ in length.
    pub fn new(members: Vec<(String, Box<dyn WriteAt + 'm>)>) -> Result<Self> {
        let sector_size = members.iter().map(|(_, m)| m.sector_size()).max().unwrap_or(0);
        if members.windows(2).any(|pair| pair[0].1.size() != pair[1].1.size()) || members.is_empty() {
            return Err(Error::new(Code::Bug, "the members of a mirror are of one length"));
        }
        Ok(Self { members, sector_size, pending: Mutex::default() })
    }

    fn pending(&self) -> MutexGuard<'_, Vec<Extent>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first(&self) -> &(dyn WriteAt + 'm) {
        &*self.members[0].1
    }

    fn others(&self) -> impl Iterator<Item = &(String, Box<dyn WriteAt + 'm>)> {
        self.members.iter().skip(1)
    }

    /// Gives the others what the first one has.
    fn follow(&self, pending: &[Extent]) -> Result<()> {
        for (name, member) in self.others() {
            let copy = || -> Result<()> {
                for piece in pending.iter().flat_map(|extent| pieces(*extent)) {
                    let bytes = read_vec(self.first(), piece.offset, piece.bytes as usize)?;
                    member.write_all_at(&bytes, piece.offset)?;
                }
                Ok(member.barrier()?)
            };
            copy().while_doing(|| format!("writing to {name}"))?;
        }
        Ok(())
    }
}

impl ReadAt for Mirror<'_> {
    fn size(&self) -> u64 {
        self.first().size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.first().read_exact_at(buf, offset)?;
        if !self.pending().is_empty() {
            return Ok(());
        }
        for (name, member) in self.others() {
            let mut there = vec![0; buf.len()];
            member.read_exact_at(&mut there, offset)?;
            if let Some(at) = there.iter().zip(buf.iter()).position(|(a, b)| a != b) {
                let what = format!(
                    "{name} does not hold what {} holds at byte {} of the ESP",
                    self.members[0].0,
                    offset + at as u64
                );
                return Err(Error::new(Code::Medium, what).into());
            }
        }
        Ok(())
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        self.members.iter().for_each(|(_, member)| member.will_read(offset, bytes));
    }
}

impl WriteAt for Mirror<'_> {
    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut pending = self.pending();
        match pending.last_mut() {
            Some(last) if last.offset + last.bytes == offset => last.bytes += buf.len() as u64,
            _ => pending.push(Extent { offset, bytes: buf.len() as u64 }),
        }
        self.first().write_all_at(buf, offset)
    }

    fn barrier(&self) -> io::Result<()> {
        let mut pending = self.pending();
        self.first().barrier()?;
        self.follow(&pending)?;
        pending.clear();
        Ok(())
    }

    fn drop_caches(&self) -> io::Result<()> {
        self.members.iter().try_for_each(|(_, member)| member.drop_caches())
    }
}

/// The first byte in which two sources of one length differ.
///
/// # Errors
/// What the sources report.
pub fn first_difference(a: &dyn ReadAt, b: &dyn ReadAt) -> Result<Option<u64>> {
    let whole = Extent { offset: 0, bytes: a.size().min(b.size()) };
    for piece in pieces(whole) {
        let [here, there] = [a, b].map(|source| read_vec(source, piece.offset, piece.bytes as usize));
        let (here, there) = (here?, there?);
        if let Some(at) = here.iter().zip(&there).position(|(a, b)| a != b) {
            return Ok(Some(piece.offset + at as u64));
        }
    }
    Ok((a.size() != b.size()).then_some(whole.bytes))
}

/// Makes `to` hold what `from` holds in an extent of whole sectors: the sectors that differ are written. Returns how
/// many bytes they were. There is no barrier behind it.
///
/// # Errors
/// What the media report.
pub fn copy_differences(from: &dyn ReadAt, to: &dyn WriteAt, extent: Extent) -> Result<u64> {
    let unit = to.sector_size() as usize;
    let mut copied = 0;
    for piece in pieces(extent) {
        let ours = read_vec(from, piece.offset, piece.bytes as usize)?;
        let theirs = read_vec(to, piece.offset, piece.bytes as usize)?;
        let differs = |at: usize| ours[at..].iter().take(unit).ne(theirs[at..].iter().take(unit));
        let mut at = 0;
        while at < ours.len() {
            let begin = at;
            while at < ours.len() && differs(at) {
                at += unit;
            }
            if at > begin {
                let end = at.min(ours.len());
                to.write_all_at(&ours[begin..end], piece.offset + begin as u64)?;
                copied += (end - begin) as u64;
            }
            at += unit;
        }
    }
    Ok(copied)
}

/// An extent in parts that fit into memory.
fn pieces(extent: Extent) -> impl Iterator<Item = Extent> {
    (0..extent.bytes)
        .step_by(CHUNK)
        .map(move |at| Extent { offset: extent.offset + at, bytes: (extent.bytes - at).min(CHUNK as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Memory;

    fn mirror<'m>(a: &'m Memory, b: &'m Memory) -> Mirror<'m> {
        Mirror::new(vec![("a".into(), Box::new(a)), ("b".into(), Box::new(b))]).unwrap()
    }

    #[test]
    fn the_second_member_is_written_when_the_first_one_is_flushed() {
        let [a, b] = [(); 2].map(|()| Memory::new(vec![0; 4096]));
        let both = mirror(&a, &b);
        both.write_all_at(&[1; 512], 512).unwrap();
        both.write_all_at(&[2; 512], 1024).unwrap();
        assert_eq!(first_difference(&a, &b).unwrap(), Some(512));
        assert_eq!(read_vec(&both, 1024, 1).unwrap(), [2], "before the barrier the first one counts");
        both.barrier().unwrap();
        assert_eq!(first_difference(&a, &b).unwrap(), None);
        assert_eq!(read_vec(&b, 1024, 512).unwrap(), [2; 512]);
    }

    /// Writes down what it is told.
    struct Told<'a>(char, &'a Memory, &'a Mutex<String>);

    impl Told<'_> {
        fn tell(&self, what: char) {
            self.2.lock().unwrap().extend([self.0, what, ' ']);
        }
    }

    impl ReadAt for Told<'_> {
        fn size(&self) -> u64 {
            self.1.size()
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            self.1.read_exact_at(buf, offset)
        }
    }

    impl WriteAt for Told<'_> {
        fn sector_size(&self) -> u32 {
            512
        }

        fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
            self.tell('w');
            self.1.write_all_at(buf, offset)
        }

        fn barrier(&self) -> io::Result<()> {
            self.tell('b');
            Ok(())
        }
    }

    /// The power-cut harness has one barrier for all members, so it cannot see whose cache was flushed.
    #[test]
    fn each_member_is_flushed_before_the_next_one_is_written() {
        let [a, b] = [(); 2].map(|()| Memory::new(vec![0; 4096]));
        let told = Mutex::default();
        let member = |name: char, medium| -> (String, Box<dyn WriteAt + '_>) {
            (name.to_string(), Box::new(Told(name, medium, &told)))
        };
        let both = Mirror::new(vec![member('a', &a), member('b', &b)]).unwrap();
        for step in 1..3_u8 {
            both.write_all_at(&[step; 512], 512).unwrap();
            both.write_all_at(&[step; 512], 2048).unwrap();
            both.barrier().unwrap();
        }
        assert_eq!(*told.lock().unwrap(), "aw aw ab bw bw bb ".repeat(2));
    }

    #[test]
    fn members_that_differ_are_found_when_they_are_read() {
        let [a, b] = [(); 2].map(|()| Memory::new(vec![0; 4096]));
        b.write_all_at(&[0, 7].repeat(256), 1024).unwrap();
        let both = mirror(&a, &b);
        assert!(read_vec(&both, 0, 1024).is_ok());
        let e = Error::from(read_vec(&both, 512, 1024).unwrap_err());
        assert_eq!(e.code(), Code::Medium);
        assert!(e.to_string().contains("at byte 1025 of the ESP"), "{e}");
    }

    #[test]
    fn only_sectors_that_differ_are_copied() {
        let [a, b] = [(); 2].map(|()| Memory::new(vec![0; 3 << 20]));
        for at in [0, 512, 1 << 20, (3 << 20) - 512] {
            a.write_all_at(&[9; 512], at).unwrap();
        }
        let all = Extent { offset: 0, bytes: a.size() };
        assert_eq!(copy_differences(&a, &b, all).unwrap(), 4 * 512);
        assert_eq!(first_difference(&a, &b).unwrap(), None);
        assert_eq!(copy_differences(&a, &b, all).unwrap(), 0);
    }

    #[test]
    fn media_of_two_lengths_are_no_mirror() {
        let (a, b) = (Memory::new(vec![0; 512]), Memory::new(vec![0; 1024]));
        assert!(Mirror::new(vec![("a".into(), Box::new(&a)), ("b".into(), Box::new(&b))]).is_err());
    }
}
