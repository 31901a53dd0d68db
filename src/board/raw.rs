//! Boot loaders outside of any file system: in sectors of the disk that the ROM of a processor reads. They are
//! recognised and named, and never written.
//!
//! A place is looked at only where no file system can lie: before, between and behind the partitions, or at the first
//! byte of a partition that holds none. What is named has the mark of its format in its place and the fields beside it
//! in order; what is not sure is not named. The version is a text in the loader itself, as it would print it.
//!
//! | what | where | format |
//! | --- | --- | --- |
//! | Rockchip, first stage | sector 64 | U-Boot, `tools/rkcommon.c`: header 0 under RC4, `RK3x` behind it; or `RKNS` |
//! | Rockchip, second stage | sector 16384 | a FIT (devicetree specification; U-Boot, `doc/usage/fit`) |
//! | Allwinner | 8 KiB, 128 KiB | U-Boot, `include/sunxi_image.h`: `eGON.BT0`; `TOC0.GLH` |
//! | Amlogic | sector 1 | the block header `@AML` of BL2, 16 bytes behind it |
//! | NXP i.MX 6, 7, 8M | 1, 32, 33 KiB | i.MX 8M Applications Processor Reference Manual, "Image vector table" |

use crate::Result;
use crate::block::{Extent, ReadAt, Window, read_vec};
use crate::disk::file_system;
use crate::fat;
use serde::Serialize;

/// Bytes of a first stage that are searched for its version. ROMs load it into memory on the chip.
const FIRST_STAGE: u64 = 256 << 10;
/// The same of U-Boot itself.
const U_BOOT: u64 = 1 << 20;
/// Bytes at a place that its header is looked for in.
const HEAD: usize = 4096;
/// Length of a version's text in bytes.
const MAX_VERSION: usize = 64;

/// A boot loader in sectors of the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RawLoader {
    /// What it is: `Rockchip first stage`.
    pub what: &'static str,
    /// Where it begins on the disk, in bytes.
    pub offset: u64,
    /// The version that it holds as a text: `U-Boot SPL 2024.04`; `null` where the part that is looked at holds none.
    pub version: Option<String>,
}

/// A place where a ROM looks for a boot loader.
struct Place {
    offset: u64,
    what: &'static str,
    is: fn(&[u8]) -> bool,
    searched: u64,
}

const PLACES: [Place; 8] = [
    Place { offset: 512, what: "Amlogic first stage", is: is_amlogic, searched: FIRST_STAGE },
    Place { offset: 1 << 10, what: "NXP i.MX first stage", is: is_imx, searched: FIRST_STAGE },
    Place { offset: 8 << 10, what: "Allwinner first stage", is: is_allwinner, searched: FIRST_STAGE },
    Place { offset: 32 << 10, what: "Rockchip first stage", is: is_rockchip, searched: FIRST_STAGE },
    Place { offset: 32 << 10, what: "NXP i.MX first stage", is: is_imx, searched: FIRST_STAGE },
    Place { offset: 33 << 10, what: "NXP i.MX first stage", is: is_imx, searched: FIRST_STAGE },
    Place { offset: 128 << 10, what: "Allwinner first stage", is: is_allwinner, searched: FIRST_STAGE },
    Place { offset: 8 << 20, what: "FIT image", is: is_fit, searched: U_BOOT },
];

/// The boot loaders in sectors of a disk with partitions in these places. At most 3 MB are read, and 28 KiB where there
/// are none.
///
/// # Errors
/// What the source reports.
pub fn raw_loaders(disk: &dyn ReadAt, partitions: &[Extent]) -> Result<Vec<RawLoader>> {
    let mut found = Vec::new();
    for place in &PLACES {
        let Some(bytes) = free_bytes(disk, partitions, place.offset)? else { continue };
        let head = read_vec(disk, place.offset, bytes.min(HEAD as u64) as usize)?;
        if !(place.is)(&head) {
            continue;
        }
        let text = read_vec(disk, place.offset, bytes.min(place.searched) as usize)?;
        found.push(RawLoader { what: place.what, offset: place.offset, version: version(&text) });
    }
    Ok(found)
}

/// How many bytes from `offset` on belong to no file system; `None` where one may have them.
fn free_bytes(disk: &dyn ReadAt, partitions: &[Extent], offset: u64) -> Result<Option<u64>> {
    let mut end = disk.size();
    for partition in partitions {
        let Extent { offset: start, bytes } = *partition;
        let stop = start.saturating_add(bytes);
        if start > offset {
            end = end.min(start);
        } else if offset < stop {
            let is_here = start == offset && stop <= disk.size();
            let content = is_here.then(|| Window::new(disk, *partition)).transpose()?;
            match content {
                Some(content) if !fat::is_fat(&content)? && file_system(&content)?.is_none() => end = end.min(stop),
                _ => return Ok(None),
            }
        }
    }
    Ok(end.checked_sub(offset).filter(|bytes| *bytes >= 512))
}

fn is_rockchip(head: &[u8]) -> bool {
    // The same signature in every header: the RC4 key stands in the ROM.
    let encoded = head.starts_with(b"\x3b\x8c\xdc\xfc") && head.get(2048..2051) == Some(b"RK3");
    // Magic, four bytes of zeros, length of what is hashed, number of images.
    let images = head.get(10..12).map(|n| u16::from_le_bytes([n[0], n[1]]));
    encoded || head.starts_with(b"RKNS\0\0\0\0") && matches!(images, Some(1..=4))
}

fn is_allwinner(head: &[u8]) -> bool {
    head.get(4..12) == Some(b"eGON.BT0") || head.starts_with(b"TOC0.GLH")
}

fn is_amlogic(head: &[u8]) -> bool {
    // Magic, length, length of this header (64), version 1.
    head.get(16..20) == Some(b"@AML") && head.get(24..28) == Some(b"\x40\0\x01\0")
}

fn is_imx(head: &[u8]) -> bool {
    let Some((header, _)) = head.split_at_checked(32) else { return false };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    // Tag, length (big-endian), version; entry point; a reserved word; address of the boot data, which lies behind it;
    // its own address; a reserved word.
    header.starts_with(b"\xd1\0\x20")
        && matches!(header[3], 0x40..=0x43)
        && word(8) == 0
        && word(28) == 0
        && word(20) != 0
        && word(16) == word(20).wrapping_add(32)
}

/// A devicetree of version 17 with a node of images in it.
fn is_fit(head: &[u8]) -> bool {
    head.starts_with(b"\xd0\x0d\xfe\xed")
        && head.get(20..28) == Some(b"\0\0\0\x11\0\0\0\x10")
        && memchr::memmem::find(head, b"\0\0\0\x01images\0").is_some()
}

/// `U-Boot SPL 2024.04`, as a loader has it for its first line.
fn version(bytes: &[u8]) -> Option<String> {
    memchr::memmem::find_iter(bytes, b"U-Boot ").find_map(|at| {
        let text = bytes.get(at..)?;
        let text = text.get(..text.len().min(MAX_VERSION))?;
        let line = text.split(|b| !matches!(b, 0x20..=0x7e)).next()?;
        let line = std::str::from_utf8(line).ok()?;
        let mut words = line.split(' ');
        let number = |word: &&str| {
            let Some((year, month)) = word.split_once('.') else { return false };
            let digits = |text: &str, n: usize| text.len() >= n && text.bytes().take(n).all(|b| b.is_ascii_digit());
            year.len() == 4 && digits(year, 4) && digits(month, 2)
        };
        words.next()?;
        let stage = words.next()?;
        if number(&stage) {
            return Some(format!("U-Boot {stage}"));
        }
        let is_stage = matches!(stage, "SPL" | "TPL" | "VPL");
        words.next().filter(|word| is_stage && number(word)).map(|release| format!("U-Boot {stage} {release}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::talos::noise;

    const DISK: usize = 12 << 20;
    const ESP: Extent = Extent { offset: 10 << 20, bytes: 1 << 20 };

    /// A disk of noise, without a mark in it, and these bytes at their places.
    fn disk(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut disk = noise(7, DISK);
        for (at, bytes) in parts {
            disk[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        disk
    }

    fn found(parts: &[(usize, &[u8])]) -> Vec<(&'static str, u64, Option<String>)> {
        let found = raw_loaders(&disk(parts), &[ESP]).unwrap();
        found.into_iter().map(|l| (l.what, l.offset, l.version)).collect()
    }

    const FIT: &[u8] = b"\xd0\x0d\xfe\xed\0\0\x0c\0\0\0\0\x38\0\0\x0b\0\0\0\0\x28\0\0\0\x11\0\0\0\x10\0\0\0\0\
        \0\0\0\x01\0\0\0\0\0\0\0\x01images\0\0";

    #[test]
    fn boot_loaders_in_sectors_are_named_with_their_versions() {
        let rkns = b"RKNS\0\0\0\0\x80\x01\x02\0";
        let spl = b"\0U-Boot SPL 2024.04-rk (Apr 02 2024 - 10:58:58 +0000)\n\0";
        let u_boot = b"\0U-Boot fitImage\0U-Boot 2024.04-rk (Apr 02 2024 - 10:58:58 +0000)\0";
        assert_eq!(
            found(&[(32 << 10, rkns), (100 << 10, spl), (8 << 20, FIT), ((8 << 20) + 900_000, u_boot)]),
            [
                ("Rockchip first stage", 32 << 10, Some("U-Boot SPL 2024.04-rk".into())),
                ("FIT image", 8 << 20, Some("U-Boot 2024.04-rk".into())),
            ]
        );
        let encoded: &[(usize, &[u8])] = &[(32 << 10, b"\x3b\x8c\xdc\xfc"), ((32 << 10) + 2048, b"RK33")];
        assert_eq!(found(encoded), [("Rockchip first stage", 32 << 10, None)]);
        for at in [8 << 10, 128 << 10] {
            assert_eq!(found(&[(at + 4, b"eGON.BT0")]), [("Allwinner first stage", at as u64, None)]);
        }
        let amlogic = b"@AML\0\xb0\0\0\x40\0\x01\0";
        assert_eq!(found(&[(528, amlogic)]), [("Amlogic first stage", 512, None)]);
        let mut ivt = b"\xd1\0\x20\x41".to_vec();
        for word in [0x7E_1000_u32, 0, 0, 0x7E_0FE0, 0x7E_0FC0, 0x7E_8000, 0] {
            ivt.extend(word.to_le_bytes());
        }
        for at in [1 << 10, 32 << 10, 33 << 10] {
            assert_eq!(found(&[(at, &ivt)]), [("NXP i.MX first stage", at as u64, None)]);
        }
    }

    /// A mark alone is none: its neighbours have to fit, and nothing of a file system is there.
    #[test]
    fn what_is_not_sure_is_not_named() {
        assert_eq!(found(&[]), []);
        for (at, bytes) in [
            (32 << 10, &b"RKNS"[..]),
            (32 << 10, b"RKNS\0\0\0\0\x80\x01\x09\0"),
            (32 << 10, b"\x3b\x8c\xdc\xfc"),
            ((8 << 10) + 3, b"eGON.BT0"),
            (528, b"@AML\0\xb0\0\0\x20\0\x01\0"),
            (1 << 10, b"\xd1\0\x20\x41"),
            (8 << 20, &FIT[..24]),
            (8 << 20, b"\xd0\x0d\xfe\xed\0\0\0\x01images\0"),
        ] {
            assert_eq!(found(&[(at, bytes)]), [], "{bytes:?}");
        }
        let bytes = disk(&[(8 << 20, FIT)]);
        let named = |partitions: &[Extent]| raw_loaders(&bytes, partitions).unwrap().len();
        // In a partition of its own, or in none.
        assert_eq!(named(&[Extent { offset: 8 << 20, bytes: 1 << 20 }]), 1);
        // Inside of another one, where a file may have these bytes; at the start of one that is cut off.
        assert_eq!(named(&[Extent { offset: 1 << 20, bytes: 8 << 20 }]), 0);
        assert_eq!(named(&[Extent { offset: 8 << 20, bytes: 1 << 40 }]), 0);
        assert_eq!(named(&[Extent { offset: u64::MAX, bytes: u64::MAX }]), 1);
        // A file system that begins there.
        let mut xfs = bytes.clone();
        xfs[(8 << 20) + 1080..][..2].copy_from_slice(b"\x53\xef");
        assert_eq!(raw_loaders(&xfs, &[Extent { offset: 8 << 20, bytes: 1 << 20 }]).unwrap(), []);
        for length in [0, 1, 511, 512, 1024, 33 << 10, 8 << 20, (8 << 20) + 511] {
            assert_eq!(raw_loaders(&bytes[..length].to_vec(), &[]).unwrap(), [], "{length}");
        }
    }

    #[test]
    fn a_version_is_a_release_and_nothing_else() {
        for (text, is) in [
            (&b"U-Boot 2023.01+dfsg-2 (Jan 1 2023)"[..], Some("U-Boot 2023.01+dfsg-2")),
            (b"xxU-Boot TPL 2017.09\0", Some("U-Boot TPL 2017.09")),
            (b"U-Boot 2025.01-rc3\nU-Boot 2026.01", Some("U-Boot 2025.01-rc3")),
            (b"U-Boot SPL board init U-Boot 24.04 U-Boot SPL", None),
            (b"U-Boot 2024", None),
            (b"U-Boot 2024.\xff4", None),
            (b"U-Boot ", None),
        ] {
            assert_eq!(version(text).as_deref(), is, "{}", String::from_utf8_lossy(text));
        }
    }
}
