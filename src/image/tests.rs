use super::*;
use crate::Kind;
use crate::block::FileSource;
use crate::testkit::iso::{BLOCK, DATA, EFI, LINUX, TinyIso, file};
use std::io::{Cursor, Write};
use std::path::Path;

const NAME: &str = "Talos-v1.12.4.efi";

/// A FAT image of 512 KiB with these files in `EFI/Linux`.
fn fat_image(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![0; 512 * 1024]);
    fatfs::format_volume(&mut bytes, fatfs::FormatVolumeOptions::new()).unwrap();
    let volume = fatfs::FileSystem::new(&mut bytes, fatfs::FsOptions::new()).unwrap();
    let folder = volume.root_dir().create_dir("EFI").unwrap().create_dir("Linux").unwrap();
    for (name, content) in files {
        folder.create_file(name).unwrap().write_all(content).unwrap();
    }
    drop(folder);
    volume.unmount().unwrap();
    bytes.into_inner()
}

/// A disk with one ESP of these contents.
fn disk_image(esp: &[u8], sector: ::gpt::disk::LogicalBlockSize) -> Vec<u8> {
    let blank = Cursor::new(vec![0; esp.len() + (4 << 20)]);
    let mut disk =
        ::gpt::GptConfig::new().writable(true).logical_block_size(sector).create_from_device(blank, None).unwrap();
    let id = disk.add_partition("EFI", esp.len() as u64, ::gpt::partition_types::EFI, 0, None).unwrap();
    let start = disk.partitions()[&id].bytes_start(sector).unwrap() as usize;
    let mut bytes = disk.write().unwrap().into_inner();
    bytes[start..start + esp.len()].copy_from_slice(esp);
    bytes
}

/// An ISO whose tree has `tree`, and whose FAT image `fat`, as a UKI of the same name.
fn iso_image(tree: Option<&[u8]>, fat: Option<&[u8]>) -> Vec<u8> {
    let mut iso = TinyIso::new(400);
    if let Some(content) = tree {
        iso.put(DATA, content);
        iso.directory(LINUX, EFI, &[file(NAME, DATA, content.len() as u32)]);
    }
    if let Some(content) = fat {
        iso.el_torito(100, 0);
        // FAT keeps names without regard to case; so does the pairing.
        iso.put(100, &fat_image(&[("TALOS-v1.12.4.EFI", content)]));
    }
    iso.0
}

/// The least that is taken for a PE image.
fn pe() -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3C] = 64;
    bytes[64..68].copy_from_slice(b"PE\0\0");
    bytes
}

fn source(bytes: Vec<u8>) -> SharedSource {
    Arc::new(bytes)
}

fn content(candidate: &Candidate) -> Vec<u8> {
    read_vec(&candidate.bytes, 0, candidate.bytes.size() as usize).unwrap()
}

#[test]
fn the_uki_is_found_in_every_kind_of_image() {
    let uki: Vec<u8> = (0..5000u32).map(|i| (i % 251) as u8).collect();
    let fat = || fat_image(&[("notes.txt", b"no"), (NAME, &uki), (".efi", b"no")]);
    let cases = [
        (ImageKind::Iso, iso_image(Some(&uki), None), "EFI/Linux in the ISO's tree"),
        (ImageKind::Iso, iso_image(Some(&uki), Some(&uki)), "EFI/Linux in the ISO's tree"),
        (ImageKind::Iso, iso_image(None, Some(&uki)), "EFI/Linux in the ISO's El Torito FAT image"),
        (ImageKind::Fat, fat(), "EFI/Linux in the FAT image"),
        (ImageKind::Disk, disk_image(&fat(), ::gpt::disk::LogicalBlockSize::Lb512), "EFI/Linux in the EFI System Par"),
        (ImageKind::Disk, disk_image(&fat(), ::gpt::disk::LogicalBlockSize::Lb4096), "EFI/Linux in the EFI System Par"),
    ];
    for (kind, bytes, place) in cases {
        let found = locate(source(bytes)).unwrap();
        assert_eq!(found.kind, kind);
        let chosen = choose(&found, None).unwrap();
        assert!(chosen.place.starts_with(place), "{}", chosen.place);
        assert!(same_name(chosen.name.as_deref().unwrap(), NAME));
        assert_eq!(content(chosen), uki, "{kind} {place}");
    }
    let found = locate(source(pe())).unwrap();
    let chosen = choose(&found, None).unwrap();
    assert_eq!((found.kind, &chosen.name, content(chosen)), (ImageKind::Uki, &None, pe()));
    assert_eq!(choose(&found, Some("x")).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn what_is_no_image_is_refused_with_a_reason() {
    let mut mz_only = pe();
    mz_only[64] = 0;
    let mut far = pe();
    far[0x3C..0x40].fill(0xFF);
    let cases = [
        (Vec::new(), "neither a UKI"),
        (vec![0; 100_000], "neither a UKI"),
        (b"MZ".to_vec(), "neither a UKI"),
        (mz_only, "neither a UKI"),
        (far, "neither a UKI"),
        (b"\x28\xB5\x2F\xFD and so on".to_vec(), "packed (zstd)"),
        (b"\xFD7zXZ\0".to_vec(), "packed (xz)"),
    ];
    for (bytes, expected) in cases {
        let e = locate(source(bytes)).unwrap_err();
        assert_eq!(e.kind(), Kind::Rejected);
        assert!(e.to_string().contains(expected), "{e}");
    }
}

#[test]
fn several_ukis_need_a_name_and_none_is_an_error() {
    let found = locate(source(fat_image(&[("a.efi", b"1"), ("B.EFI", b"2")]))).unwrap();
    let e = choose(&found, None).unwrap_err();
    assert_eq!(e.kind(), Kind::Usage);
    assert!(e.to_string().contains("\"a.efi\"") && e.to_string().contains("\"B.EFI\""), "{e}");
    for name in ["b.efi", "B", "b"] {
        assert_eq!(content(choose(&found, Some(name)).unwrap()), b"2");
    }
    let e = choose(&found, Some("c.efi")).unwrap_err();
    assert_eq!(e.kind(), Kind::Usage);
    assert!(e.advice().unwrap().contains("\"a.efi\""));

    let none = locate(source(iso_image(None, None))).unwrap();
    for uki in [None, Some("a.efi")] {
        let e = choose(&none, uki).unwrap_err();
        assert_eq!(e.kind(), Kind::Rejected);
        assert!(e.to_string().contains("EFI/Linux of the ISO's tree"), "{e}");
    }
}

#[test]
fn the_two_copies_of_an_iso_are_compared() {
    let uki = vec![7; 3_000];
    let mut changed = uki.clone();
    changed[2_500] = 8;
    let different = |at, twin_bytes| TwinVerdict::Different {
        place: "EFI/Linux in the ISO's El Torito FAT image".to_owned(),
        at,
        bytes: 3_000,
        twin_bytes,
    };
    let cases = [
        (Some(&uki[..]), TwinVerdict::Same),
        (Some(&changed[..]), different(2_500, 3_000)),
        (Some(&uki[..2_999]), different(2_999, 2_999)),
        (None, TwinVerdict::Alone),
    ];
    for (fat, expected) in cases {
        let found = locate(source(iso_image(Some(&uki), fat))).unwrap();
        assert_eq!(found.candidates.len(), 1);
        assert_eq!(compare_twins(&found.candidates[0]).unwrap(), expected);
    }
    let bytes = source(iso_image(Some(&uki), Some(&uki)));
    let found = locate_without_twins(Arc::clone(&bytes)).unwrap();
    assert_eq!(compare_twins(&found.candidates[0]).unwrap(), TwinVerdict::Alone);

    // The same extents are the same bytes: nothing is read, so nothing can fail.
    let mut found = locate(bytes).unwrap();
    found.candidates[0].twin = Some(Box::new(found.candidates[0].clone()));
    assert_eq!(compare_twins(&found.candidates[0]).unwrap(), TwinVerdict::Same);
}

#[test]
fn a_broken_fat_image_in_an_iso_is_an_error_with_its_place() {
    let mut bytes = iso_image(Some(b"uki"), Some(b"uki"));
    bytes[100 * BLOCK + 13] = 0; // sectors per cluster
    bytes[100 * BLOCK + 510] = 0;
    let e = locate(source(bytes.clone())).unwrap_err();
    assert_eq!(e.kind(), Kind::Rejected, "{e}");
    assert!(locate_without_twins(source(bytes)).is_ok());
}

#[test]
fn extract_writes_the_bytes_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let listing = || {
        let mut names: Vec<_> =
            folder.path().read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let uki: Vec<u8> = (0..(3 << 20) + 17u32).map(|i| (i % 251) as u8).collect();
    // In two pieces that are not neighbours, and are in the wrong order on the medium.
    let half = uki.len() / 2;
    let image = [&uki[half..], b"between", &uki[..half]].concat();
    std::fs::write(path("image"), &image).unwrap();
    let local = Arc::new(FileSource::open(&path("image")).unwrap());
    let extents = vec![
        Extent { offset: (uki.len() - half + 7) as u64, bytes: half as u64 },
        Extent { offset: 0, bytes: (uki.len() - half) as u64 },
    ];
    let medium: SharedSource = local.clone();
    let uki_in_file = candidate(&medium, None, "here", extents).unwrap();

    for (name, file) in [("kernel", Some(&*local)), ("plain", None)] {
        assert_eq!(extract(&uki_in_file, &path(name), file, false).unwrap(), uki.len() as u64);
        assert!(std::fs::read(path(name)).unwrap() == uki, "{name}");
    }
    assert_eq!(listing(), ["image", "kernel", "plain"]);

    let e = extract(&uki_in_file, &path("kernel"), Some(&*local), false).unwrap_err();
    assert_eq!((e.kind(), e.message()), (Kind::Unsafe, "it exists already"));
    std::fs::write(path("kernel"), b"old").unwrap();
    extract(&uki_in_file, &path("kernel"), Some(&*local), true).unwrap();
    assert!(std::fs::read(path("kernel")).unwrap() == uki);
    for odd in [folder.path(), Path::new("/dev/null")] {
        assert_eq!(extract(&uki_in_file, odd, None, true).unwrap_err().kind(), Kind::Unsafe);
    }
    assert!(extract(&uki_in_file, &path("missing/folder"), None, false).is_err());
    assert_eq!(listing(), ["image", "kernel", "plain"]);
}

#[test]
fn an_extract_that_fails_leaves_nothing_behind() {
    struct Failing;
    impl ReadAt for Failing {
        fn size(&self) -> u64 {
            4 << 20
        }
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
            buf.fill(1);
            if offset < 2 << 20 { Ok(()) } else { Err(std::io::Error::other("the line is dead")) }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let medium: SharedSource = Arc::new(Failing);
    let uki = candidate(&medium, None, "there", vec![Extent { offset: 0, bytes: 4 << 20 }]).unwrap();
    let e = extract(&uki, &folder.path().join("out.efi"), None, false).unwrap_err();
    assert_eq!(e.kind(), Kind::Io);
    assert!(e.to_string().contains("the line is dead"), "{e}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

/// A remote source costs a round trip per read.
#[test]
fn a_uki_is_located_in_few_reads() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    struct Counting(Vec<u8>, AtomicUsize);
    impl ReadAt for Counting {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.read_exact_at(buf, offset)
        }
    }
    for (image, most) in [(iso_image(Some(b"uki"), Some(b"uki")), 16), (iso_image(None, Some(b"uki")), 16)] {
        let counting = Arc::new(Counting(image, AtomicUsize::new(0)));
        let shared: SharedSource = counting.clone();
        assert_eq!(locate(shared).unwrap().candidates.len(), 1);
        let reads = counting.1.load(Ordering::Relaxed);
        assert!(reads <= most, "{reads} reads");
    }
}
