//! Which sections the stub measures for which profile, and their hashes in one pass.

use super::{Bank, BankHashes};
use crate::authenticode::Hasher;
use crate::block::Sink;
use crate::pe::{Head, Profiles, Section};
use crate::sorting::Sort as _;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// The measuring order, never the order in the file; each with the first stub version that knows the section
/// (`fundamental/uki.h`). `.pcrsig` is never measured.
const ORDER: [(&str, u32); 14] = [
    (".linux", 0),
    (".osrel", 0),
    (".cmdline", 0),
    (".initrd", 0),
    (".ucode", 256),
    (".splash", 0),
    (".dtb", 0),
    (".uname", 254),
    (".sbat", 254),
    (".pcrpkey", 0),
    (".profile", 257),
    (".dtbauto", 257),
    (".hwids", 257),
    (".efifw", 258),
];
/// Of these the stub takes the one that matches the hardware.
const BY_HARDWARE: [&str; 2] = [".dtbauto", ".efifw"];
/// Zeros behind a section's data that are hashed at most, over all sections, in bytes.
const MAX_FILL: u64 = 64 * 1024 * 1024;
/// Combinations of hardware-dependent sections that are looked at. Images for all laptops of a maker have a few dozen.
const MAX_ALTERNATIVES: usize = 256;

/// What the stub takes for one profile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MeasuredProfile {
    /// 0 for the first, also when the UKI has no `.profile` at all.
    pub index: usize,
    /// The sections that are measured whatever the hardware, in measuring order: name and index in the section table.
    pub measured: Vec<(String, usize)>,
    /// `.dtbauto` and `.efifw` sections, of each of which the stub takes the first that fits the hardware, or none:
    /// name and index in the section table.
    pub by_hardware: Vec<(String, usize)>,
}

impl MeasuredProfile {
    /// What may be measured, depending on the hardware, each in measuring order; the first is what is measured where
    /// nothing fits. One alternative for an image without `.dtbauto` and `.efifw`; never more than 256.
    #[must_use]
    pub fn alternatives(&self) -> Vec<Vec<(String, usize)>> {
        let choices = |name: &'static str| {
            let fits = self.by_hardware.iter().filter(move |(n, _)| n == name);
            std::iter::once(None).chain(fits.map(Some))
        };
        let pairs = choices(BY_HARDWARE[0]).flat_map(|a| choices(BY_HARDWARE[1]).map(move |b| [a, b]));
        pairs
            .take(MAX_ALTERNATIVES)
            .map(|chosen| {
                let mut all: Vec<_> =
                    self.measured.iter().chain(chosen.into_iter().flatten()).map(|s| (rank(&s.0), s.clone())).collect();
                all.put_in_order_by(|(rank, _)| *rank);
                all.into_iter().map(|(_, section)| section).collect()
            })
            .collect()
    }
}

/// What systemd-measure 257 computes in the place of an alternative: there each of the names `.dtbauto` and `.hwids`
/// stands for the other, and their order is that of the names. `None` where neither is measured.
#[must_use]
pub fn exchanged(alternative: &[(String, usize)]) -> Option<Vec<(String, usize)>> {
    const NAMES: [&str; 2] = [".dtbauto", ".hwids"];
    let other = |name: &str| NAMES.iter().position(|n| *n == name).and_then(|at| NAMES.get(1 - at));
    let mut all: Vec<_> = alternative
        .iter()
        .map(|(name, index)| (other(name).map_or_else(|| name.clone(), |n| (*n).to_owned()), *index))
        .collect();
    all.put_in_order_by(|(name, _)| rank(name));
    (all != alternative).then_some(all)
}

/// The place in the measuring order.
fn rank(name: &str) -> usize {
    ORDER.iter().position(|(n, _)| *n == name).unwrap_or(ORDER.len())
}

/// The major version of a stub from its `.sdmagic` section: `#### LoaderInfo: systemd-stub 257.9 ####`.
#[must_use]
pub fn stub_version(sdmagic: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(sdmagic).ok()?;
    let version = text.split("systemd-stub ").nth(1)?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version.get(..digits)?.parse().ok()
}

/// The profiles of a UKI in order, as a stub of version `stub` takes them; without a version as the newest does.
#[must_use]
pub fn profiles(sections: &[Section], stub: Option<u32>) -> Vec<MeasuredProfile> {
    let stub = stub.unwrap_or(u32::MAX);
    let layout = if stub < 257 { Profiles::none(sections) } else { Profiles::of(sections) };
    let find = |index: usize, name: &str| {
        if stub < 256 {
            // The last one of several wins.
            return sections.iter().rposition(|s| s.name == name && s.virtual_bytes > 0);
        }
        layout.find(sections, index, name)
    };
    let all_of = |index: usize, name: &'static str| {
        let places = layout.base().chain(layout.own(index));
        let fits = places.filter(move |&i| sections.get(i).is_some_and(|s| s.name == name && s.virtual_bytes > 0));
        fits.map(move |i| (name.to_owned(), i))
    };
    let known = |name: &'static str| ORDER.iter().any(|(n, since)| *n == name && stub >= *since);
    (0..layout.count())
        .map(|index| MeasuredProfile {
            index,
            measured: ORDER
                .iter()
                .filter(|(name, _)| known(name) && !BY_HARDWARE.contains(name))
                .filter_map(|(name, _)| Some(((*name).to_owned(), find(index, name)?)))
                .collect(),
            by_hardware: BY_HARDWARE.into_iter().filter(|name| known(name)).flat_map(|n| all_of(index, n)).collect(),
        })
        .collect()
}

/// One section on its way past.
#[derive(Debug)]
struct Running {
    index: usize,
    start: u64,
    end: u64,
    /// Zeros that the loader puts behind the data.
    fill: u64,
    hashes: Vec<(Bank, Hasher)>,
}

/// Takes the whole file once, in order, and hashes the data of every section that any stub may measure: exactly
/// `VirtualSize` bytes, filled up with zeros where the file has fewer.
#[derive(Debug)]
pub struct SectionHashes {
    running: Vec<Running>,
    at: u64,
}

impl SectionHashes {
    /// A sink for the file with this head. Each bank costs its hash over nearly the whole file; give them to sinks of
    /// their own to use several processors.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when sections overlap so that hashing them would take longer than hashing the file, or
    /// want more than 64 MiB of zeros.
    pub fn new(head: &Head, banks: &[Bank]) -> Result<Self> {
        let mut running = Vec::new();
        let (mut data_bytes, mut fill_bytes) = (0u64, 0u64);
        for (index, section) in head.sections.iter().enumerate() {
            if section.virtual_bytes == 0 || !ORDER.iter().any(|(name, _)| *name == section.name) {
                continue;
            }
            let data = section.data();
            let fill = u64::from(section.virtual_bytes).saturating_sub(data.bytes);
            data_bytes = data_bytes.saturating_add(data.bytes);
            fill_bytes = fill_bytes.saturating_add(fill);
            running.push(Running {
                index,
                start: data.offset,
                end: data.offset.saturating_add(data.bytes),
                fill,
                hashes: banks.iter().map(|bank| (*bank, bank.hasher())).collect(),
            });
        }
        if data_bytes > head.file_bytes {
            return Err(Error::rejected(format!(
                "measured sections of {data_bytes} bytes in a file of {}: they lie over each other",
                head.file_bytes
            )));
        }
        if fill_bytes > MAX_FILL {
            return Err(Error::rejected(format!(
                "measured sections want {fill_bytes} bytes of zeros behind their data"
            )));
        }
        Ok(Self { running, at: 0 })
    }

    /// The hashes by index in the section table, after the whole file has gone by.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when the stream ended before a section did.
    pub fn finish(self) -> Result<BTreeMap<usize, BankHashes>> {
        let zeros = [0; 4096];
        let mut all = BTreeMap::new();
        for section in self.running {
            if section.end > self.at && section.end > section.start {
                return Err(Error::rejected(format!("the file ended at byte {} inside a section", self.at)));
            }
            let mut hashes = BankHashes::default();
            for (bank, mut hasher) in section.hashes {
                let mut left = section.fill;
                while left > 0 {
                    let n = left.min(zeros.len() as u64);
                    hasher.update(zeros.get(..n as usize).unwrap_or_default());
                    left -= n;
                }
                hashes.add(bank, hasher.finish());
            }
            all.insert(section.index, hashes);
        }
        Ok(all)
    }
}

impl Sink for SectionHashes {
    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        let from = self.at;
        self.at = from.saturating_add(bytes.len() as u64);
        let clip = |at: u64| usize::try_from(at.saturating_sub(from)).unwrap_or(usize::MAX).min(bytes.len());
        for section in &mut self.running {
            let part = bytes.get(clip(section.start)..clip(section.end)).unwrap_or_default();
            if !part.is_empty() {
                for (_, hasher) in &mut section.hashes {
                    hasher.update(part);
                }
            }
        }
        Ok(())
    }
}
