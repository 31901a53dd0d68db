//! How much of a medium is read: where the medium is slow, that is how long it takes.

use crate::cli::{put, uki};
use crate::loops::{Loop, turn};
use crate::packed::within_limits;
use crate::support::{Lab, program, run_ok, tools};
use bootsurgeon::block::{FileSource, SurgeryFile, WriteAt};
use bootsurgeon::fat::{Health, ProblemKind, Volume};
use bootsurgeon::pe::Arch;
use bootsurgeon::surgery::recover;
use bootsurgeon::testkit::uki::Builder;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// System calls that read.
const READS: &str = "trace=read,pread64,readv,preadv,preadv2";
/// Bytes in one copy of the allocation table of [`large_esp`].
const TABLE: u64 = 2_093_056;

/// An ESP of 2 GiB in clusters of 4 KiB, as `mkfs.vfat` makes it, with a boot loader and four images.
fn large_esp(lab: &Lab) -> PathBuf {
    esp_of(lab, 2, &[])
}

/// The same, so many GiB long and with options of `mkfs.vfat`.
fn esp_of(lab: &Lab, gib: u64, options: &[&str]) -> PathBuf {
    let esp = lab.path("esp.img");
    File::create(&esp).unwrap().set_len(gib << 30).unwrap();
    run_ok("mkfs.vfat", &[&["-F", "32"], options, &[esp.to_str().unwrap()]].concat());
    for folder in ["::/EFI", "::/EFI/BOOT", "::/EFI/Linux", "::/loader"] {
        run_ok("mmd", &["-i".as_ref(), esp.as_os_str(), folder.as_ref()]);
    }
    let magic = "#### LoaderInfo: systemd-boot 257.9-talos ####\0";
    let loader = Builder::new(Arch::Arm64).section(".text", [0xC3]).section(".sdmagic", magic).build();
    put(&esp, 0, "EFI/BOOT/BOOTAA64.EFI", &loader);
    let image = std::fs::read(uki(lab, "v1.12.3-arm64-installer")).unwrap();
    for end in ["", ".bak.1730000000", ".bak.1720000000", ".bak.1710000000"] {
        put(&esp, 0, &format!("EFI/Linux/Talos-v1.12.3.efi{end}"), &image);
    }
    esp
}

/// Bytes that a command reads of a file, as strace counts them.
fn read_by(lab: &Lab, file: &Path, args: &[&str]) -> u64 {
    let log = lab.path("strace.log");
    let program = program().get_program().to_owned();
    let begin = ["-f", "-qq", "-P", file.to_str().unwrap(), "-e", READS, "-o", log.to_str().unwrap()];
    let all = [&begin[..], &[program.to_str().unwrap()], args].concat();
    run_ok("strace", &all);
    let bytes = |line: &str| line.rsplit_once(" = ")?.1.split(' ').next()?.parse::<u64>().ok();
    std::fs::read_to_string(log).unwrap().lines().filter_map(bytes).sum()
}

#[test]
fn issue20_3_each_sector_of_the_table_is_read_once() {
    if !tools(&["strace", "mkfs.vfat", "mmd", "mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let esp = large_esp(&lab);
    let name = esp.to_str().unwrap();
    let status = read_by(&lab, &esp, &["status", name, "--efivars", "none", "--no-hashes"]);
    assert!((TABLE..3_000_000).contains(&status), "status reads {status} bytes");
    let image = uki(&lab, "v1.12.4-arm64-installer");
    let bytes = std::fs::metadata(&image).unwrap().len();
    let args = ["swap", name, image.to_str().unwrap(), "--efivars", "none", "--yes", "--allow-untrusted"];
    let swap = read_by(&lab, &esp, &[&args[..], &["--no-extension-check"]].concat());
    // Of an image of 126 MB this is 0.03.
    assert!((TABLE + bytes..3_700_000 + bytes).contains(&swap), "a swap reads {swap} bytes for an image of {bytes}");
}

/// The same on a block device, as the kernel counts what it reads of it, and with its read-ahead.
#[test]
fn issue20_3_a_device_is_not_read_ahead_for_nothing() {
    if !tools(&["mkfs.vfat", "mmd", "mcopy", "blockdev"]) {
        return;
    }
    let Some(_turn) = turn() else { return };
    let lab = Lab::new();
    let esp = large_esp(&lab);
    let image = uki(&lab, "v1.12.4-arm64-installer");
    let bytes = std::fs::metadata(&image).unwrap().len();
    let device = Loop::attach(&esp, &[]);
    let node = device.node();
    run_ok("blockdev", &["--setra".as_ref(), "5120".as_ref(), node.as_os_str()]);
    let counter = Path::new("/sys/block").join(node.file_name().unwrap()).join("stat");
    // `Documentation/block/stat.rst`: the third field, in units of 512 bytes.
    let read = || {
        let text = std::fs::read_to_string(&counter).unwrap();
        text.split_ascii_whitespace().nth(2).unwrap().parse::<u64>().unwrap() * 512
    };
    let read_by = |command: &mut dyn FnMut()| {
        run_ok("blockdev", &["--flushbufs".as_ref(), node.as_os_str()]);
        let before = read();
        command();
        read() - before
    };
    let status = read_by(&mut || drop(bootsurgeon!("status", node, "--efivars", "none", "--no-hashes").code(0)));
    assert!((TABLE..3_300_000).contains(&status), "status reads {status} bytes");
    let swap = read_by(&mut || {
        let options = ["--efivars", "none", "--yes", "--allow-untrusted", "--no-extension-check"];
        drop(bootsurgeon!("swap", node, image, options[0], options[1], options[2], options[3], options[4]).code(0));
    });
    assert!((TABLE + bytes..4_000_000 + bytes).contains(&swap), "a swap reads {swap} bytes for an image of {bytes}");
}

/// Writes one entry of a copy of the table.
fn set_entry(esp: &Path, copy: u8, cluster: u32, value: u32) {
    let geometry = Volume::open(FileSource::open(esp).unwrap()).unwrap().geometry().clone();
    let file = File::options().write(true).open(esp).unwrap();
    file.write_all_at(&value.to_le_bytes(), geometry.fat_copy_offset(copy) + 4 * u64::from(cluster)).unwrap();
}

fn health(esp: &Path, whole: bool) -> Health {
    let volume = Volume::open(FileSource::open(esp).unwrap()).unwrap();
    if whole { Health::check_whole(&volume).unwrap() } else { Health::check(&volume).unwrap() }
}

#[test]
fn issue20_3_copies_of_a_long_table_are_compared_where_something_depends_on_them() {
    if !tools(&["mkfs.vfat", "mmd", "mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let esp = large_esp(&lab);
    assert!(health(&esp, true).is_healthy());
    // A cluster of a file in the second copy alone.
    let volume = Volume::open(FileSource::open(&esp).unwrap()).unwrap();
    let entry = volume.find("EFI/Linux/Talos-v1.12.3.efi").unwrap().unwrap();
    let link = volume.table().raw(entry.first_cluster);
    set_entry(&esp, 1, entry.first_cluster, 0);
    assert!(health(&esp, false).is_damaged());
    set_entry(&esp, 1, entry.first_cluster, link);
    assert!(health(&esp, false).is_healthy());
    // Free ones beside it, and far away from whatever is in use.
    for (cluster, is_near) in [(16_000, true), (400_000, false)] {
        set_entry(&esp, 1, cluster, 0x0FFF_FFFF);
        let differ = |health: &Health| health.problems.iter().any(|p| p.kind == ProblemKind::TableCopies);
        assert_eq!(differ(&health(&esp, false)), is_near, "cluster {cluster}");
        assert!(differ(&health(&esp, true)), "cluster {cluster}");
        let medium = SurgeryFile::open(&esp, 512).unwrap();
        recover(&medium).unwrap();
        medium.barrier().unwrap();
        drop(medium);
        assert!(health(&esp, true).is_healthy(), "`recover` looks at all of it");
    }
}

/// 64 MiB of table, twice: in memory it is what is in use of it.
#[test]
fn issue20_4_a_table_is_not_kept_whole() {
    if !tools(&["mkfs.vfat", "mmd", "mcopy", "fsck.fat"]) {
        return;
    }
    let lab = Lab::new();
    let esp = esp_of(&lab, 8, &["-s", "1"]);
    let name = esp.to_str().unwrap();
    let image = uki(&lab, "v1.12.4-arm64-installer");
    let status = within_limits(&["status", name, "--efivars", "none"]);
    assert_eq!(status.code, 0, "{}", status.err);
    let swap = ["swap", name, image.to_str().unwrap(), "--efivars", "none", "--yes", "--allow-untrusted"];
    let swap = within_limits(&swap);
    assert_eq!(swap.code, 0, "{}", swap.err);
    assert_eq!(within_limits(&["recover", name]).code, 0);
    run_ok("fsck.fat", &["-n", name]);
    let new = lab.path("new.efi");
    run_ok("mcopy", &["-i", name, "::/EFI/Linux/Talos-v1.12.4.efi", new.to_str().unwrap()]);
    assert!(std::fs::read(new).unwrap() == std::fs::read(image).unwrap());
}

/// A table that cannot be kept in little memory is refused, and nothing that does not help is recommended.
#[test]
fn issue20_4_a_table_that_is_scattered_beyond_reason_is_refused() {
    if !tools(&["mkfs.vfat", "mmd", "mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let esp = esp_of(&lab, 6, &["-s", "1"]);
    let geometry = Volume::open(FileSource::open(&esp).unwrap()).unwrap().geometry().clone();
    // One-cluster files, each with a free cluster behind it.
    let table: Vec<u8> =
        (0..9 << 20).flat_map(|n| (if n % 2 == 0 { 0x0FFF_FFFFu32 } else { 0 }).to_le_bytes()).collect();
    let file = File::options().write(true).open(&esp).unwrap();
    for copy in 0..2 {
        file.write_all_at(&table, geometry.fat_copy_offset(copy) + (4 << 20)).unwrap();
    }
    let name = esp.to_str().unwrap();
    let image = uki(&lab, "v1.12.4-arm64-installer");
    for args in [&["status", name][..], &["swap", name, image.to_str().unwrap(), "--yes"]] {
        let ran = within_limits(args);
        assert_eq!(ran.code, 4, "{args:?}: {}", ran.err);
        assert!(ran.err.contains("scattered") && ran.err.contains("mkfs.fat"), "{args:?}: {}", ran.err);
        assert!(!ran.err.contains("fsck"), "{args:?}: {}", ran.err);
    }
}
