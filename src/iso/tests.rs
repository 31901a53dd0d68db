use super::*;
use crate::Kind;
use crate::testkit::iso::*;

const NAME: &str = "Talos-v1.12.4.efi";

fn linux(iso: &TinyIso) -> Result<Vec<IsoEntry>> {
    let mut iso = Iso::open(&iso.0)?;
    let dir = iso.find("efi/LINUX")?.unwrap();
    iso.read_dir(&dir)
}

fn at(block: u32, bytes: u64) -> Extent {
    Extent { offset: u64::from(block) * BLOCK as u64, bytes }
}

#[test]
fn a_file_is_found_by_its_long_name_in_any_case() {
    let tiny = TinyIso::new(40).with_file(NAME, DATA, &[7; 3000]);
    assert!(is_iso(&tiny.0).unwrap());
    let mut iso = Iso::open(&tiny.0).unwrap();
    assert_eq!(iso.volume_id(), "TINY");
    for path in ["EFI/Linux/Talos-v1.12.4.efi", "/efi/linux/TALOS-V1.12.4.EFI"] {
        let node = iso.find(path).unwrap().unwrap();
        assert_eq!((node.name.as_str(), node.is_dir, node.bytes), (NAME, false, 3000));
        assert_eq!(node.extents, [at(DATA, 3000)]);
    }
    for path in ["EFI/Linux/other.efi", "EFI/Linux/Talos-v1.12.4.efi/below", "nothing/here"] {
        assert_eq!(iso.find(path).unwrap(), None, "{path}");
    }
    assert!(iso.find("").unwrap().unwrap().is_dir);
    let file = iso.find("EFI/Linux/Talos-v1.12.4.efi").unwrap().unwrap();
    assert_eq!(iso.read_dir(&file).unwrap_err().kind(), Kind::Rejected);
    assert_eq!(iso.efi_images().unwrap(), []);
}

#[test]
fn a_name_goes_on_in_a_continuation_area() {
    let long = format!("{}.efi", "n".repeat(230));
    let mut tiny = TinyIso::new(40);
    let rest = nm(0, &long[100..]);
    tiny.put(CONTINUATION, &[&[0; 64][..], &rest].concat());
    let area = [px(0o100_444, 1), nm(1, &long[..100]), ce(CONTINUATION, 64, rest.len() as u32)].concat();
    tiny.directory(LINUX, EFI, &[record(b"N.EFI;1", 0, DATA, 5, &area)]);
    assert_eq!(linux(&tiny).unwrap()[0].name, long);
}

#[test]
fn a_file_may_have_several_extents() {
    let mut tiny = TinyIso::new(40);
    let part = |flags, block, bytes| record(b"BIG.EFI;1", flags, block, bytes, &entry("big.efi", 0o100_444, 1));
    let records = [
        part(NOT_FINAL, 30, 4096),
        part(NOT_FINAL, 32, 2048), // goes on where the first one ended
        part(0, 36, 10),
        file("next.efi", 33, 1),
    ];
    tiny.directory(LINUX, EFI, &records);
    let nodes = linux(&tiny).unwrap();
    assert_eq!(nodes[0].extents, [at(30, 6144), at(36, 10)]);
    assert_eq!((nodes[0].bytes, nodes[1].name.as_str(), nodes.len()), (6154, "next.efi", 2));
}

#[test]
fn damage_is_refused_and_named() {
    let entry = || entry(NAME, 0o100_444, 1);
    let one = |r: Vec<u8>| {
        let mut tiny = TinyIso::new(40);
        tiny.directory(LINUX, EFI, &[r]);
        tiny
    };
    let mut interleaved = file(NAME, DATA, 5);
    interleaved[26] = 1;
    let mut contradicting = file(NAME, DATA, 5);
    contradicting[2] ^= 1;
    let mut short = file(NAME, DATA, 5);
    short[0] = 20;
    let mut cyclic = one(record(b"N.EFI;1", 0, DATA, 5, &[px(0o100_444, 1), ce(CONTINUATION, 0, 28)].concat()));
    cyclic.put(CONTINUATION, &ce(CONTINUATION, 0, 28));
    let cases = [
        ("an extent past the end", one(record(b"A", 0, 39, 2049, &entry())), "the ISO is truncated"),
        ("an extent far past the end", one(record(b"A", 0, u32::MAX, u32::MAX, &entry())), "the ISO is truncated"),
        ("a directory past the end", one(record(b"A", DIRECTORY, 50, 2048, &entry())), "the ISO is truncated"),
        ("an interleaved file", one(interleaved), "interleaved"),
        ("fields that disagree", one(contradicting), "directory record"),
        ("a record shorter than its header", one(short), "directory record"),
        ("a last extent that is missing", one(record(b"A", NOT_FINAL, DATA, 5, &entry())), "multi-extent"),
        ("a continuation that leads to itself", cyclic, "Rock Ridge"),
        ("a continuation past the end", one(record(b"A", 0, DATA, 5, &ce(999, 0, 28))), "Rock Ridge"),
        ("an entry longer than its area", one(record(b"A", 0, DATA, 5, b"NM\xff\x01\x00abc")), "Rock Ridge"),
    ];
    for (what, tiny, expected) in cases {
        let e = linux(&tiny).expect_err(what);
        assert_eq!(e.kind(), Kind::Rejected, "{what}: {e}");
        assert!(e.to_string().contains(expected), "{what}: {e}");
    }
}

#[test]
fn a_truncated_iso_says_how_much_is_missing() {
    let mut tiny = TinyIso::new(40).with_file(NAME, DATA, &[7; 3000]);
    tiny.0.truncate(31 * BLOCK);
    let e = linux(&tiny).unwrap_err();
    assert!(e.to_string().contains("ends at byte 64440, and the file at byte 63488"), "{e}");
    assert!(e.to_string().contains("says 80.0 KiB (81920 bytes)"), "{e}");
    assert_eq!(e.advice(), Some("download it again"));
}

#[test]
fn a_directory_loop_ends() {
    let mut tiny = TinyIso::new(40);
    let root = record(b"UP", DIRECTORY, ROOT, BLOCK as u32, &entry("Up", 0o040_555, 2));
    tiny.directory(LINUX, EFI, &[root]);
    let mut iso = Iso::open(&tiny.0).unwrap();
    let e = iso.find("EFI/Linux/Up/EFI/Linux/Up").unwrap_err();
    assert!(e.to_string().contains("directory loop"), "{e}");
}

#[test]
fn a_directory_of_more_entries_than_any_iso_has_is_refused() {
    let records: Vec<_> = (0..=MAX_ENTRIES).map(|i| file(&format!("{i}"), DATA, 0)).collect();
    for (count, ok) in [(MAX_ENTRIES, true), (records.len(), false)] {
        let mut tiny = TinyIso::new(10_000);
        let bytes = tiny.directory(40, EFI, &records[..count]);
        let sub = record(b"LINUX", DIRECTORY, 40, bytes, &entry("Linux", 0o040_555, 2));
        tiny.directory(EFI, ROOT, &[sub]);
        match linux(&tiny) {
            Ok(nodes) => assert!(ok && nodes.len() == count),
            Err(e) => assert!(!ok && e.to_string().contains("131072 entries"), "{e}"),
        }
    }
}

#[test]
fn hard_links_cannot_make_a_listing_quadratic() {
    // Every file claims another name elsewhere, and the path table to look for it in lists the directory 30,000 times.
    let mut tiny = TinyIso::new(1000);
    let records: Vec<_> = (0..4000).map(|i| record(b"F", 0, 900, 1, &entry(&format!("{i}"), 0o100_444, 2))).collect();
    let bytes = tiny.directory(100, EFI, &records);
    let plain = record(b"F", 0, 901, 1, &entry("x", 0o100_444, 2));
    tiny.directory(LINUX, EFI, &[plain]);
    let mut table = Vec::new();
    for _ in 0..30_000 {
        table.extend([1, 0]);
        table.extend(100u32.to_le_bytes());
        table.extend([1, 0, 0, 0]);
    }
    tiny.put(500, &table);
    tiny.0[16 * BLOCK + 132..][..8].copy_from_slice(&both32(table.len() as u32));
    tiny.0[16 * BLOCK + 140..][..4].copy_from_slice(&500u32.to_le_bytes());
    assert!(bytes > 100_000);
    let e = linux(&tiny).unwrap_err();
    assert!(e.to_string().contains("go round in circles"), "{e}");
}

#[test]
fn the_size_of_a_boot_image_comes_from_whoever_knows_it() {
    let image = |origin, bytes| EfiImage { origin, extent: at(DATA, bytes) };
    // (sectors in the catalog, sectors of the MBR entry, sectors of the FAT boot sector, expected)
    let cases = [
        (0, Some(20), Some(16), Ok(20 * 512)),
        (0, None, Some(16), Ok(16 * 512)),
        (1, None, Some(16), Ok(16 * 512)),
        (0xFFFF, None, Some(16), Ok(16 * 512)),
        (8, None, None, Ok(8 * 512)),
        (0, None, None, Err("nothing tells how long it is")),
        (1, None, None, Err("nothing tells how long it is")),
        (0, Some(100), None, Err("the ISO is truncated")),
        (0, None, Some(100), Err("the ISO is truncated")),
        (0xFFFF, None, None, Err("the ISO is truncated")),
    ];
    for (catalog, mbr, fat, expected) in cases {
        let mut tiny = TinyIso::new(40);
        tiny.el_torito(DATA, catalog);
        if let Some(sectors) = mbr {
            tiny.mbr_esp(DATA * 4, sectors);
        }
        if let Some(sectors) = fat {
            tiny.put(DATA, &fat_boot_sector(sectors));
        }
        let found = Iso::open(&tiny.0).unwrap().efi_images();
        match (found, expected) {
            (Ok(found), Ok(bytes)) => {
                assert_eq!(found, [image(EfiImageOrigin::ElTorito, bytes)], "{catalog} {mbr:?} {fat:?}");
            }
            (Err(e), Err(why)) => assert!(e.to_string().contains(why), "{e}"),
            (found, expected) => panic!("{catalog} {mbr:?} {fat:?}: {found:?}, {expected:?} expected"),
        }
    }
}

#[test]
fn boot_images_come_from_the_catalog_the_mbr_and_the_tree() {
    let mut tiny = TinyIso::new(60);
    tiny.el_torito(30, 8);
    tiny.mbr_esp(40 * 4, 12);
    tiny.directory(ROOT, ROOT, &[file("EFIBOOT.img", 50, 5000)]);
    let found = Iso::open(&tiny.0).unwrap().efi_images().unwrap();
    let expected = [
        (EfiImageOrigin::ElTorito, at(30, 4096)),
        (EfiImageOrigin::AppendedPartition, at(40, 6144)),
        (EfiImageOrigin::TreeFile("efiboot.img".to_owned()), at(50, 5000)),
    ];
    assert_eq!(found, expected.map(|(origin, extent)| EfiImage { origin, extent }));

    tiny.0[CATALOG as usize * BLOCK + 28] ^= 1;
    let e = Iso::open(&tiny.0).unwrap().efi_images().unwrap_err();
    assert!(e.to_string().contains("boot catalog"), "{e}");
}

#[test]
fn what_is_no_iso_is_refused() {
    for bytes in [0, 1, 0x8001, 0x8005, 0x8006, 40_000] {
        let source = vec![0u8; bytes];
        assert!(!is_iso(&source).unwrap());
        assert!(Iso::open(&source).is_err());
    }
    let mut only_magic = vec![0; 0x8006];
    only_magic[0x8001..].copy_from_slice(b"CD001");
    assert!(is_iso(&only_magic).unwrap());
    assert_eq!(Iso::open(&only_magic).err().map(|e| e.kind()), Some(Kind::Rejected));
}

/// Any bytes in the structures: an answer or an error, and never an extent outside the source.
#[test]
fn changed_bytes_neither_panic_nor_escape() {
    let mut good = TinyIso::new(40).with_file(NAME, DATA, &[7; 3000]);
    good.el_torito(36, 0);
    good.mbr_esp(36 * 4, 8);
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let used: Vec<usize> = good.0.iter().enumerate().filter(|(_, b)| **b != 0).map(|(i, _)| i).collect();
    for _ in 0..3000 {
        let mut bytes = good.0.clone();
        for _ in 0..=random(6) {
            let at = used[random(used.len())] + random(3);
            bytes[at] = random(256) as u8;
        }
        let Ok(mut iso) = Iso::open(&bytes) else { continue };
        let mut extents: Vec<Extent> = iso.efi_images().unwrap_or_default().iter().map(|i| i.extent).collect();
        if let Ok(Some(dir)) = iso.find("EFI/Linux") {
            extents.extend(iso.read_dir(&dir).unwrap_or_default().into_iter().flat_map(|n| n.extents));
        }
        assert!(extents.iter().all(|e| e.offset + e.bytes <= bytes.len() as u64));
    }
}
