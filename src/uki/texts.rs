//! The small sections of a UKI, which are kept whole in memory: names, command lines, keys.

use crate::block::{Extent, Load, ReadAt, Sink, read_vec};
use crate::pe::Head;
use crate::{Context, Error, Result};

/// The sections this reads.
const TEXTS: [&str; 8] = [".osrel", ".cmdline", ".uname", ".profile", ".pcrsig", ".pcrpkey", ".sbat", ".sdmagic"];
/// The most that one of them may have. Real ones have less than 16 KiB.
const MAX_BYTES: u64 = 1 << 20;
/// The most that all of them together may have: a thousand profiles of 1 MiB each would be a way to fill the memory.
const MAX_TOTAL: u64 = 4 << 20;

/// The content of the small sections, with their places in [`Head::sections`], in that order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts(Box<[(usize, Box<[u8]>)]>);

impl Texts {
    /// Reads them one by one.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when one has more than 1 MiB, or all together more than 4 MiB; else what the source
    /// reports.
    pub fn read(source: &dyn ReadAt, head: &Head) -> Result<Self> {
        let mut found = Vec::new();
        for (i, extent) in wanted(head)? {
            // Without data in the file, the place may be anywhere, also behind its end.
            let content = match extent.bytes {
                0 => Vec::new(),
                bytes => read_vec(source, extent.offset, bytes as usize)
                    .while_doing(|| format!("reading section {}", head.sections[i].name))?,
            };
            found.push((i, content.into()));
        }
        Ok(Self(found.into()))
    }

    /// The content of the section at a place in [`Head::sections`], without padding.
    #[must_use]
    pub fn get(&self, section: usize) -> Option<&[u8]> {
        let at = self.0.binary_search_by_key(&section, |(i, _)| *i).ok()?;
        Some(&self.0[at].1)
    }
}

/// Where they lie, if their sizes are bearable.
fn wanted(head: &Head) -> Result<Vec<(usize, Extent)>> {
    let mut found = Vec::new();
    let mut total = 0;
    for (i, section) in head.sections.iter().enumerate().filter(|(_, s)| TEXTS.contains(&&*s.name)) {
        let extent = section.data();
        total += extent.bytes;
        if extent.bytes > MAX_BYTES || total > MAX_TOTAL {
            return Err(Error::malformed(
                &format!("PE section {}", section.name),
                extent.offset,
                format!("{} bytes of text ({total} with those before it) are too many to be true", extent.bytes),
            ));
        }
        found.push((i, extent));
    }
    Ok(found)
}

/// Collects [`Texts`] from a stream of the whole file.
#[derive(Debug)]
pub struct TextSink {
    at: u64,
    parts: Vec<(usize, Extent, Vec<u8>)>,
}

impl TextSink {
    /// For the file that `head` was read from.
    ///
    /// # Errors
    /// As [`Texts::read`].
    pub fn new(head: &Head) -> Result<Self> {
        let parts = wanted(head)?.into_iter().map(|(i, extent)| (i, extent, Vec::new())).collect();
        Ok(Self { at: 0, parts })
    }

    /// What was collected.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when the stream ended before the last of them.
    pub fn finish(self) -> Result<Texts> {
        if self.parts.iter().any(|(_, extent, content)| content.len() as u64 != extent.bytes) {
            return Err(Error::io("the image ended before its last section"));
        }
        Ok(Texts(self.parts.into_iter().map(|(i, _, content)| (i, content.into())).collect()))
    }
}

impl Sink for TextSink {
    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        for (_, extent, content) in &mut self.parts {
            content.extend_from_slice(slice_of(bytes, self.at, *extent));
        }
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn load(&self) -> Load {
        Load::Light
    }
}

/// The part of `extent` that is in `bytes`, a piece of the file that starts at `at`.
pub(super) fn slice_of(bytes: &[u8], at: u64, extent: Extent) -> &[u8] {
    let inside = |offset: u64| offset.saturating_sub(at).min(bytes.len() as u64) as usize;
    &bytes[inside(extent.offset)..inside(extent.offset.saturating_add(extent.bytes))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pe::Arch;
    use crate::testkit::uki::Builder;

    #[test]
    fn a_stream_in_any_pieces_gives_what_reading_gives() {
        let pe = Builder::new(Arch::Arm64)
            .section(".osrel", *b"ID=talos")
            .section(".linux", vec![1; 3000])
            .section(".profile", *b"ID=main")
            .section(".profile", Vec::new())
            .section(".sbat", vec![b'x'; 700])
            .build();
        let head = Head::read(&pe).unwrap();
        let read = Texts::read(&pe, &head).unwrap();
        assert_eq!(read.get(0), Some(&b"ID=talos"[..]));
        assert_eq!((read.get(1), read.get(3), read.get(9)), (None, Some(&b""[..]), None));
        for piece in [1, 7, 512, 100_000] {
            let mut sink = TextSink::new(&head).unwrap();
            pe.chunks(piece).for_each(|c| sink.chunk(c).unwrap());
            assert_eq!(sink.finish().unwrap(), read);
        }
        let mut cut = TextSink::new(&head).unwrap();
        cut.chunk(&pe[..pe.len() - 600]).unwrap();
        assert!(cut.finish().is_err());
    }

    #[test]
    fn a_section_without_data_is_empty_wherever_it_says_it_is() {
        let mut pe = Builder::new(Arch::Arm64).section(".sdmagic", Vec::new()).build();
        // PointerToRawData of the first section.
        pe[64 + 24 + 112 + 128 + 20..][..4].copy_from_slice(&(40u32 << 20).to_le_bytes());
        let head = Head::read(&pe).unwrap();
        assert_eq!(Texts::read(&pe, &head).unwrap().get(0), Some(&b""[..]));
    }

    #[test]
    fn huge_texts_are_refused_before_they_are_read() {
        let one = Builder::new(Arch::Arm64).section(".osrel", vec![b' '; (1 << 20) + 1]).build();
        assert!(TextSink::new(&Head::read(&one).unwrap()).is_err());
        let many = (0..5).fold(Builder::new(Arch::Arm64), |b, _| b.section(".profile", vec![b' '; 1 << 20])).build();
        let e = Texts::read(&many, &Head::read(&many).unwrap()).unwrap_err();
        assert_eq!(e.kind(), crate::Kind::Rejected);
    }
}
