use super::*;
use crate::block::{Memory, WriteAt, read_vec};
use crate::fat::{Content, Editor, Stamp};
use crate::image::{ImageKind, SharedSource, choose, locate};
use crate::testkit::media::{self, Files};
use crate::testkit::talos::noise;
use std::io::Cursor;
use std::sync::Arc;

const STAMP: Stamp = Stamp(1_771_000_000);
const UKI: &str = "EFI/Linux/Talos-v1.12.4.efi";

/// A FAT image of 4 MiB with these files.
fn fat(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![0; 4 << 20]);
    fatfs::format_volume(&mut bytes, fatfs::FormatVolumeOptions::new()).unwrap();
    let medium = Memory::new(bytes.into_inner());
    edit(&medium, |editor| {
        for (path, content) in files {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            editor.make_directories(directory, STAMP).unwrap();
            editor.make_file(directory, name, content, STAMP).unwrap();
        }
    });
    medium.into_bytes()
}

fn edit(medium: &Memory, change: impl FnOnce(&mut Editor<'_>)) {
    let mut editor = Editor::open(medium).unwrap();
    change(&mut editor);
    editor.barrier().unwrap();
}

fn volume(bytes: Vec<u8>) -> Volume<Vec<u8>> {
    Volume::open(bytes).unwrap()
}

fn paths(files: &BoardFiles) -> Vec<&str> {
    files.files.iter().map(|f| f.path.as_str()).collect()
}

/// What a Raspberry Pi of Talos's overlay has on its ESP, and what is no file of the board.
fn raspberry() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("EFI/BOOT/BOOTAA64.EFI", b"loader"),
        (UKI, b"uki"),
        ("EFI/Linux/Talos-v1.12.4.efi.bak.1771000000", b"old uki"),
        ("loader/loader.conf", b"timeout 10\n"),
        ("loader/random-seed", b"seed"),
        ("loader/entries/talos.conf", b"title x\n"),
        ("loader/keys/auto/db.auth", b"db"),
        ("bcm2711-rpi-4-b.dtb", b"tree"),
        ("overlays/vc4-kms-v3d.dtbo", b"overlay"),
        ("overlays/README", b"read"),
        ("start4.elf", b"start"),
        ("fixup4.dat", b"fixup"),
        ("bootcode.bin", b"boot code"),
        ("u-boot.bin", b"U-Boot"),
        ("config.txt", b"arm_64bit=1\n"),
        ("LICENCE.broadcom", b"licence"),
        ("ubootefi.var", b"variables"),
        ("BOOTSURG.TXN", b"record"),
        ("start4.elf.bak.1771000000", b"older"),
        ("System Volume Information/WPSettings.dat", b"litter"),
        ("FOUND.000/FILE0000.CHK", b"litter"),
        (".Trashes/x", b"litter"),
    ]
}

#[test]
fn the_files_of_a_board_have_their_sorts_and_images_are_none() {
    let volume = volume(fat(&raspberry()));
    let found = BoardFiles::read(&volume).unwrap();
    let sorts: Vec<(&str, Sort)> = found.files.iter().map(|f| (f.path.as_str(), f.sort)).collect();
    assert_eq!(
        sorts,
        [
            ("bcm2711-rpi-4-b.dtb", Sort::DeviceTree),
            ("bootcode.bin", Sort::Firmware),
            ("config.txt", Sort::Configuration),
            ("EFI/BOOT/BOOTAA64.EFI", Sort::Loader),
            ("fixup4.dat", Sort::Firmware),
            ("LICENCE.broadcom", Sort::Other),
            ("loader/keys/auto/db.auth", Sort::LoaderConfiguration),
            ("loader/loader.conf", Sort::LoaderConfiguration),
            ("overlays/README", Sort::Overlay),
            ("overlays/vc4-kms-v3d.dtbo", Sort::Overlay),
            ("start4.elf", Sort::Firmware),
            ("u-boot.bin", Sort::Firmware),
        ]
    );
    assert!(found.trouble.is_empty(), "{:?}", found.trouble);
    let config = found.find("CONFIG.TXT").unwrap();
    let bytes = config.open(&volume).unwrap();
    assert_eq!(read_vec(&bytes, 0, config.bytes() as usize).unwrap(), b"arm_64bit=1\n");
    assert!(found.find("config.tx").is_none());
}

#[test]
fn a_path_says_what_sort_of_file_it_is() {
    for (path, sort) in [
        ("dtb/rockchip/rk3568-odroid-m1.dtb", Some(Sort::DeviceTree)),
        ("DTB/NVIDIA/TEGRA210-P3450-0000.DTB", Some(Sort::DeviceTree)),
        ("Overlays/x.dtbo", Some(Sort::Overlay)),
        ("efi/systemd/systemd-bootaa64.efi", Some(Sort::Loader)),
        ("EFI/BOOT/grub.cfg", Some(Sort::Loader)),
        ("EFI/debian/grubaa64.efi", Some(Sort::Other)),
        ("RPI_EFI.fd", Some(Sort::Firmware)),
        ("uboot.env", Some(Sort::Configuration)),
        ("extraconfig.txt", Some(Sort::Configuration)),
        ("extlinux/extlinux.conf", Some(Sort::Configuration)),
        ("docs/notes.txt", Some(Sort::Other)),
        ("LOADER/LOADER.CONF", Some(Sort::LoaderConfiguration)),
        ("loader/random-seed", None),
        ("EFI/Linux/Talos.efi.extra.d/console.addon.efi", None),
        ("efi/linux/talos.efi", None),
        ("EFI/LinuxOld", Some(Sort::Other)),
        ("EFI/BOOT/BOOTAA64.EFI.bak.1771000000", None),
        ("x.bak.", Some(Sort::Other)),
        ("x.bak.12a", Some(Sort::Other)),
        ("FOUND.0000/x", Some(Sort::Other)),
        ("ÄÖÜ.0/x", Some(Sort::Other)),
        ("FSCK0000.REC", None),
        ("", Some(Sort::Other)),
        ("/", Some(Sort::Other)),
    ] {
        assert_eq!(Sort::of(path), sort, "{path}");
    }
    let names: BTreeSet<&str> = Sort::ALL.iter().map(|s| s.name()).collect();
    assert_eq!(names.len(), Sort::ALL.len());
    for sort in Sort::ALL {
        assert_eq!(serde_json::to_value(sort).unwrap(), sort.name());
    }
}

#[test]
fn two_volumes_are_compared_by_paths_without_regard_to_case() {
    let long = noise(3, 3 << 20);
    let (mut other, mut cut) = (long.clone(), long.clone());
    other[(2 << 20) + 17] ^= 1;
    cut.pop();
    let source: &[(&str, &[u8])] = &[
        ("EFI/BOOT/BOOTAA64.EFI", b"257"),
        ("START4.ELF", b"same"),
        ("config.txt", b"theirs"),
        ("overlays/new.dtbo", b"new"),
        (UKI, b"another"),
    ];
    let esp: &[(&str, &[u8])] = &[
        ("efi/boot/bootaa64.efi", b"254"),
        ("start4.elf", b"same"),
        ("config.txt", b"the user's"),
        ("fixup4.dat", b"old"),
        (UKI, b"one"),
    ];
    let compared = compared(fat(source), fat(esp));
    let found: Vec<(&str, Relation)> = compared.iter().map(|c| (c.path.as_str(), c.relation)).collect();
    assert_eq!(
        found,
        [
            ("config.txt", Relation::Differs),
            ("efi/boot/bootaa64.efi", Relation::Differs),
            ("fixup4.dat", Relation::OnlyOnEsp),
            ("overlays/new.dtbo", Relation::OnlyInSource),
            ("start4.elf", Relation::Same),
        ]
    );
    assert_eq!((compared[0].source_bytes, compared[0].esp_bytes), (Some(6), Some(10)));
    assert_eq!((compared[2].source_bytes, compared[3].esp_bytes), (None, None));
    // One byte in the third megabyte, and one at the end.
    let one = |bytes: &[u8]| self::compared(fat(&[("u-boot.bin", &long)]), fat(&[("u-boot.bin", bytes)]))[0].relation;
    assert_eq!([one(&long), one(&other), one(&cut)], [Relation::Same, Relation::Differs, Relation::Differs]);
    let empty = self::compared(fat(&[("config.txt", b"")]), fat(&[("config.txt", b"")]));
    assert_eq!(empty[0].relation, Relation::Same);
}

fn compared(source: Vec<u8>, esp: Vec<u8>) -> Vec<Compared> {
    let (source, esp) = (volume(source), volume(esp));
    let (theirs, ours) = (BoardFiles::read(&source).unwrap(), BoardFiles::read(&esp).unwrap());
    compare((&source, &theirs), (&esp, &ours)).unwrap()
}

/// What cannot be read is neither the same nor another, and what cannot be looked at is not missing.
#[test]
fn what_is_damaged_is_not_compared() {
    let medium = Memory::new(fat(&[("start4.elf", &[7; 9000]), ("fixup4.dat", b"x")]));
    edit(&medium, |editor| {
        let entry = editor.volume().find("start4.elf").unwrap().unwrap();
        let cut = Content::new(entry.first_cluster, 90_000, STAMP);
        editor.retarget("", &entry, cut).unwrap();
    });
    let found = compared(fat(&[("start4.elf", &[7; 90_000]), ("fixup4.dat", b"x")]), medium.into_bytes());
    assert_eq!(found[1].relation, Relation::NotCompared);
    assert!(found[1].why.as_ref().unwrap().contains("start4.elf"), "{found:?}");
    assert_eq!(found[0].relation, Relation::Same);
}

/// A directory that is its own child, one behind the limits: the walk ends, and says that it did not see everything.
#[test]
fn a_walk_ends_on_a_volume_that_leads_round_in_circles() {
    let medium = Memory::new(fat(&[("dtb/a/x.dtb", b"x")]));
    edit(&medium, |editor| {
        let volume = editor.volume();
        let (dtb, a) = (volume.find("dtb").unwrap().unwrap(), volume.find("dtb/a").unwrap().unwrap());
        editor.retarget("dtb", &a, Content::new(dtb.first_cluster, 0, STAMP)).unwrap();
    });
    let volume = volume(medium.into_bytes());
    let found = BoardFiles::read(&volume).unwrap();
    assert!(found.files.is_empty());
    assert!(found.trouble.iter().any(|t| t.contains("dtb/a")), "{:?}", found.trouble);
    // Nobody knows then what is missing.
    let source = self::volume(fat(&[("dtb/a/x.dtb", b"x")]));
    let theirs = BoardFiles::read(&source).unwrap();
    let found = compare((&source, &theirs), (&volume, &found)).unwrap();
    assert_eq!(found[0].relation, Relation::NotCompared);

    let deep = (0..9).map(|n| n.to_string()).collect::<Vec<_>>().join("/");
    let volume = self::volume(fat(&[(&format!("{deep}/x.dtb"), b"x"), ("1/x.dtb", b"x")]));
    let found = BoardFiles::read(&volume).unwrap();
    assert_eq!(paths(&found), ["1/x.dtb"]);
    assert_eq!(found.trouble, ["0/1/2/3/4/5/6/7/8 lies too deep"]);
}

#[test]
fn more_files_than_any_board_has_are_not_all_kept() {
    let medium = Memory::new(fat(&[("overlays/0.dtbo", b"x")]));
    let mut names = Vec::new();
    for n in 0..MAX_FILES {
        names.push(format!("overlays/{n:05}.dtbo"));
    }
    edit(&medium, |editor| {
        for name in &names {
            editor.make_file("overlays", name.rsplit('/').next().unwrap(), b"", STAMP).unwrap();
        }
    });
    let found = BoardFiles::read(&volume(medium.into_bytes())).unwrap();
    assert_eq!(found.files.len(), MAX_FILES);
    assert_eq!(found.trouble.len(), 1, "{:?}", found.trouble);
}

/// The volume that is meant: the one with the UKI, in an ISO the one that firmware boots.
#[test]
fn the_source_is_the_volume_of_the_uki() {
    let uki = crate::testkit::uki::Builder::new(crate::pe::Arch::Arm64).section(".linux", vec![1; 5000]).build();
    let files: Files = vec![("EFI/BOOT/BOOTAA64.EFI".to_owned(), b"loader".to_vec()), (UKI.to_owned(), uki.clone())];
    let open = |bytes: Vec<u8>| {
        let source: SharedSource = Arc::new(bytes);
        let found = locate(Arc::clone(&source)).unwrap();
        BoardSource::open(&source, &found, Some(choose(&found, None).unwrap())).unwrap()
    };
    let iso = open(media::iso(&files, STAMP).unwrap()).unwrap();
    assert_eq!(paths(&iso.files), ["EFI/BOOT/BOOTAA64.EFI"]);
    assert!(iso.place.contains("ISO"), "{}", iso.place);
    let bytes = iso.files.files[0].open(&iso.volume).unwrap();
    assert_eq!(read_vec(&bytes, 0, 6).unwrap(), b"loader");
    let plain = open(fat(&[("u-boot.bin", b"U-Boot"), (UKI, &uki)])).unwrap();
    assert_eq!((paths(&plain.files), plain.place.as_str()), (vec!["u-boot.bin"], "the FAT image"));
    assert!(open(uki).is_none());
}

/// Every sector of the listing read as noise: an answer or an error, and no panic.
#[test]
fn noise_in_the_directories_is_survived() {
    let sound = fat(&raspberry());
    let clusters = Volume::open(sound.clone()).unwrap().geometry().cluster_offset(2) as usize;
    let esp = volume(sound.clone());
    let ours = BoardFiles::read(&esp).unwrap();
    for seed in 0..200u64 {
        let mut bytes = sound.clone();
        let at = clusters.saturating_sub(4096) + noise(seed, 2)[0] as usize * 512;
        bytes[at..at + 64].copy_from_slice(&noise(seed, 64));
        let Ok(volume) = Volume::open(bytes) else { continue };
        if let Ok(theirs) = BoardFiles::read(&volume) {
            assert!(theirs.files.len() <= MAX_FILES);
            let _ = compare((&volume, &theirs), (&esp, &ours));
        }
    }
    let medium = Memory::new(sound);
    assert_eq!(medium.sector_size(), 512);
    assert_eq!(ImageKind::detect(&medium).unwrap(), Some(ImageKind::Fat));
}
