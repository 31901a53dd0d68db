//! The files of a board beside its image: what a swap leaves as it is, and that somebody is told.

use crate::cli::{ESP, bytes_at, patch, put, truncate, uki};
use crate::support::{Lab, run_ok, sha256, tool};
use serde_json::Value;
use std::path::{Path, PathBuf};

const UKI: &str = "v1.12.4-arm64-uki";

/// Length of the ESP of the fixture.
const ESP_BYTES: usize = 48 << 20;

/// What an overlay of Talos puts on the ESP of a Raspberry Pi, in the state of a release.
fn firmware(disk: &Path, esp: u64, release: &str) {
    let at = format!("{}@@{esp}", disk.display());
    run_ok("mmd", &["-i", &at, "::/overlays"]);
    for (name, text) in [
        ("start4.elf", "start4"),
        ("fixup4.dat", "fixup4"),
        ("u-boot.bin", "U-Boot"),
        ("bcm2711-rpi-4-b.dtb", "tree 4"),
        ("bcm2711-rpi-400.dtb", "tree 400"),
        ("bcm2712-rpi-5-b.dtb", "tree 5"),
        ("overlays/vc4-kms-v3d.dtbo", "overlay"),
    ] {
        put(disk, esp, name, format!("{text} of {release}").as_bytes());
    }
    put(disk, esp, "bootcode.bin", b"the same in every release");
    put(disk, esp, "config.txt", b"arm_64bit=1\nkernel=u-boot.bin\n");
}

/// The ESP of the fixture as the only partition of a disk with an MBR, of the type that Raspberry Pis look for.
fn with_mbr(lab: &Lab, gpt: &Path) -> PathBuf {
    let disk = lab.path("mbr.img");
    std::fs::write(&disk, b"").unwrap();
    truncate(&disk, ESP + ESP_BYTES as u64 + (1 << 20));
    let mut table = vec![0; 66];
    table[..16].copy_from_slice(&[0x80, 0, 0, 0, 0x0C, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0]);
    table[12..16].copy_from_slice(&(ESP_BYTES as u32 / 512).to_le_bytes());
    table[64..].copy_from_slice(&[0x55, 0xAA]);
    patch(&disk, 446, &table);
    patch(&disk, ESP, &bytes_at(gpt, ESP, ESP_BYTES));
    disk
}

fn related(board: &Value, relation: &str) -> Vec<String> {
    let files = board["files"].as_array().unwrap().iter().filter(|file| file["relation"] == relation);
    files.map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

/// The words of a report on one line.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A raw image of the new release, packed with xz, on disks with both kinds of tables: what differs, and what only the
/// image has, is said in a dry run and in the run, and none of it is touched.
#[test]
fn issue19_1_a_swap_says_what_of_a_raspberry_pi_stays_old() {
    if !crate::support::tools(&["mcopy", "mmd", "xz"]) {
        return;
    }
    let lab = Lab::new();
    let source = lab.fixture_as("disk-512.img.zst", "metal-arm64.raw");
    firmware(&source, ESP, "v1.12");
    put(&source, ESP, "overlays/new.dtbo", b"new");
    for name in ["EFI/Linux/Talos-v1.12.4.efi", "EFI/Linux/Talos-v1.12.4~1.efi"] {
        run_ok("mdel", &["-i", &format!("{}@@{ESP}", source.display()), &format!("::/{name}")]);
    }
    put(&source, ESP, "EFI/Linux/Talos-v1.12.4.efi", &std::fs::read(uki(&lab, UKI)).unwrap());
    run_ok("xz", &["-0", "-q", source.to_str().unwrap()]);
    let source = lab.path("metal-arm64.raw.xz");

    let gpt = lab.fixture("disk-512.img.zst");
    firmware(&gpt, ESP, "v1.9");
    put(&gpt, ESP, "config.txt", b"arm_64bit=1\nkernel=u-boot.bin\ndtoverlay=disable-bt\n");
    put(&gpt, ESP, "usercfg.txt", b"gpu_mem=16\n");
    let differing = [
        "bcm2711-rpi-4-b.dtb",
        "bcm2711-rpi-400.dtb",
        "bcm2712-rpi-5-b.dtb",
        "config.txt",
        "fixup4.dat",
        "overlays/vc4-kms-v3d.dtbo",
        "start4.elf",
        "u-boot.bin",
    ];
    for disk in [with_mbr(&lab, &gpt), gpt] {
        let before = sha256(&disk);
        let dry = bootsurgeon!("swap", disk, source, "--efivars", "none", "--dry-run", "--json").code(0).json();
        assert_eq!(sha256(&disk), before);
        assert_eq!(related(&dry["board"], "differs"), differing, "{:#}", dry["board"]);
        assert_eq!(related(&dry["board"], "only-in-source"), ["overlays/new.dtbo"]);
        assert_eq!(related(&dry["board"], "only-on-esp"), ["usercfg.txt"]);
        let same = related(&dry["board"], "same");
        assert!(same.contains(&"bootcode.bin".to_owned()) && same.iter().any(|path| path.contains("BOOTAA64")));
        assert!(!dry["board"].to_string().contains("EFI/Linux"), "{:#}", dry["board"]);
        let said = bootsurgeon!("swap", disk, source, "--efivars", "none", "--dry-run").code(0).out;
        for words in [
            "3 firmware files, 3 device trees, overlays/vc4-kms-v3d.dtbo, config.txt: other bytes in the EFI System",
            "left out overlays/new.dtbo: in the EFI System Partition",
        ] {
            assert!(flat(&said).contains(words), "{words}: {said}");
        }
        let names = ["start4.elf", "u-boot.bin", "config.txt", "overlays/vc4-kms-v3d.dtbo", "EFI/BOOT/BOOTAA64.EFI"];
        let content = |name: &str| crate::support::mtools_read(&disk, ESP, name);
        let old: Vec<_> = names.iter().map(|name| content(name)).collect();
        let done = bootsurgeon!("swap", disk, source, "--efivars", "none", "--yes", "--json").code(0).json();
        assert_eq!(done["committed"], true);
        assert_eq!(done["board"]["files"], dry["board"]["files"]);
        assert_eq!(names.iter().map(|name| content(name)).collect::<Vec<_>>(), old);
        // Nothing to do is no reason to be silent about the rest.
        let again = bootsurgeon!("swap", disk, source, "--efivars", "none", "--yes", "--json").code(0).json();
        assert_eq!(again["already_in_place"], true, "{again:#}");
        assert_eq!(related(&again["board"], "differs"), differing);
        let status = bootsurgeon!("status", disk, "--efivars", "none").code(0).out;
        assert!(
            flat(&status).contains("4 firmware files, 3 device trees, overlays/vc4-kms-v3d.dtbo, config.txt"),
            "{status}"
        );
    }
}

/// A UKI brings nothing along: what the board has stays, and whether it fits is not known.
#[test]
fn issue19_1_a_uki_alone_does_not_tell_whether_the_rest_fits() {
    if !tool("mcopy") {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let swap = |disk: &Path| bootsurgeon!("swap", disk, uki(&lab, UKI), "--efivars", "none", "--dry-run").code(0).out;
    // Where there is what every ESP has there is nothing to say.
    let plain = swap(&disk);
    assert!(!plain.contains("stays"), "{plain}");
    firmware(&disk, ESP, "v1.9");
    let said = flat(&swap(&disk));
    let words = "whether it fits the image is not known (the image is a UKI and brings none)";
    assert!(said.contains(words) && said.contains("3 device trees"), "{said}");
}

/// A systemd-boot that is older than the stub of the image, and one of another version in the source.
#[test]
fn issue19_1_an_old_boot_loader_is_named() {
    if !tool("mcopy") {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let old = crate::board::systemd_boot("255.4-1", bootsurgeon::pe::Arch::Arm64);
    put(&disk, ESP, "EFI/BOOT/BOOTAA64.EFI", &old);
    let report = bootsurgeon!("swap", disk, uki(&lab, UKI), "--efivars", "none", "--dry-run", "--json").code(0).json();
    let loader = &report["board"]["loaders"][0];
    assert_eq!(loader["version"], "255.4-1", "{:#}", report["board"]);
    assert_eq!(loader["is_older_than_stub"], true);
    let said = bootsurgeon!("swap", disk, uki(&lab, UKI), "--efivars", "none", "--dry-run").code(0).out;
    let words = "stays EFI/BOOT/BOOTAA64.EFI, systemd-boot 255.4-1; older than the stub of the image, systemd 257";
    assert!(flat(&said).contains(words), "{said}");
    let iso = lab.fixture("secureboot-arm64.iso.zst");
    let flags = ["--efivars", "none", "--dry-run", "--allow-halt-if-installed"];
    let said =
        crate::cli::run(&[&["swap", disk.to_str().unwrap(), iso.to_str().unwrap()][..], &flags].concat()).code(0);
    assert!(flat(&said.out).contains("systemd-boot 255.4-1; 257"), "{}", said.out);
    let status = bootsurgeon!("status", disk, "--efivars", "none").code(0).out;
    let words = "EFI/BOOT/BOOTAA64.EFI systemd-boot 255.4-1, older than the stub of the image that starts";
    assert!(flat(&status).contains(words), "{status}");
}

/// U-Boot in sectors of the disk is named, stays, and is not written.
#[test]
fn issue19_4_boot_loaders_outside_of_file_systems_are_named() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    patch(&disk, 32 << 10, b"RKNS\0\0\0\0\x80\x01\x02\0");
    patch(&disk, 200 << 10, b"U-Boot SPL 2024.04 (Apr 02 2024 - 10:58:58 +0000)\0");
    let head = |disk: &Path| bytes_at(disk, 0, ESP as usize);
    let before = head(&disk);
    let status = bootsurgeon!("status", disk, "--efivars", "none", "--json").code(0).json();
    let raw = &status["board"]["raw_loaders"];
    assert_eq!(raw.as_array().map(Vec::len), Some(1), "{raw}");
    assert_eq!(raw[0]["what"], "Rockchip first stage");
    assert_eq!(raw[0]["offset"], 32 << 10);
    assert_eq!(raw[0]["version"], "U-Boot SPL 2024.04");
    let words = "Rockchip first stage (U-Boot SPL 2024.04) at byte 32768 of the disk, outside of any file system";
    let status = bootsurgeon!("status", disk, "--efivars", "none").code(0).out;
    assert!(flat(&status).contains(words), "{status}");
    let swapped = bootsurgeon!("swap", disk, uki(&lab, UKI), "--efivars", "none", "--yes").code(0).out;
    assert!(flat(&swapped).contains(&format!("stays {words}")), "{swapped}");
    assert!(head(&disk) == before, "sectors outside of the ESP were written");
    // The same bytes inside of the ESP are a file's.
    let other = lab.fixture_as("disk-512.img.zst", "other.img");
    let status = bootsurgeon!("status", other, "--efivars", "none", "--json").code(0).json();
    assert_eq!(status["board"]["raw_loaders"], serde_json::json!([]));
}

/// Two images that lie on volumes: the files beside them, too.
#[test]
fn issue19_1_diff_shows_the_files_beside_two_images() {
    if !tool("mcopy") {
        return;
    }
    let lab = Lab::new();
    let [old, new] = ["old.img", "new.img"].map(|name| {
        let disk = lab.fixture_as("disk-512.img.zst", name);
        run_ok("mdel", &["-i", &format!("{}@@{ESP}", disk.display()), "::/EFI/Linux/Talos-v1.12.4~1.efi"]);
        disk
    });
    put(&old, ESP, "u-boot.bin", b"old");
    put(&new, ESP, "u-boot.bin", b"new");
    put(&new, ESP, "x.dtb", b"tree");
    let said = flat(&bootsurgeon!("diff", old, new).code(0).out);
    for words in ["u-boot.bin: other bytes in the new one", "x.dtb: only in the new one"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let report = bootsurgeon!("diff", new, old, "--json").code(0).json();
    assert_eq!(related(&report["board"], "only-on-esp"), ["x.dtb"]);
    assert_eq!(related(&report["board"], "differs"), ["u-boot.bin"]);
    let alone = bootsurgeon!("diff", old, uki(&lab, UKI), "--json").code(0).json();
    assert!(alone["board"]["not_compared"].is_string(), "{:#}", alone["board"]);
}
