//! Which volume of a disk is meant, and which disks are not written.

use crate::board::systemd_boot;
use crate::cli::{ESP, around_esp, esp_bytes, patch, put, truncate, uki};
use crate::loops::Loop;
use crate::support::{Lab, run, run_ok, sha256, tool, tools};
use crate::table::{Gpt, md_superblock};
use bootsurgeon::pe::Arch;
use std::path::Path;

pub(super) const INSTALLER: &str = "v1.12.4-arm64-installer";
pub(super) const PLAIN: &str = "v1.12.4-arm64-plain";
/// Where the second ESP of `disk-two-esps` begins.
pub(super) const SECOND: u64 = 38 << 20;

/// `status` reads it; every command that would write refuses with these words and the code `layout`, rehearsed and
/// for real, and nothing is written.
#[track_caller]
pub(super) fn read_and_not_written(lab: &Lab, disk: &Path, options: &[&str], words: &[&str]) {
    let hash = sha256(disk);
    let image = uki(lab, INSTALLER);
    let with = |args: &[std::ffi::OsString]| {
        let options = options.iter().map(|o| std::ffi::OsString::from(*o));
        crate::cli::run(&args.iter().cloned().chain(options).collect::<Vec<_>>())
    };
    let status = with(&args!["status", disk, "--json"]).code(0).json();
    assert!(status["warnings"].as_array().is_some_and(|w| !w.is_empty()), "no warning: {status:#}");
    for how in ["--dry-run", "--yes"] {
        with(&args!["swap", disk, image, how]).fails(4, words).fails(4, &["the ESP was not changed"]);
        with(&args!["prune", disk, how]).fails(4, words);
        with(&args!["recover", disk, how]).fails(4, words);
    }
    let error = with(&args!["swap", disk, image, "--yes", "--json"]).code(4).json();
    assert_eq!(error["error"]["code"], "layout", "{error:#}");
    assert_eq!(sha256(disk), hash, "something was written");
}

/// A FAT over the beginning of a disk, with an image in it; as long as the disk, or of so many KiB.
fn superfloppy(lab: &Lab, disk: &Path, options: &[&str], kib: Option<&str>) {
    let path = disk.display().to_string();
    let ends: Vec<&str> = std::iter::once(path.as_str()).chain(kib).collect();
    run_ok("mkfs.vfat", &[&["-I", "-n", "NEW"], options, &ends].concat());
    for folder in ["::/EFI", "::/EFI/Linux"] {
        run_ok("mmd", &["-i", &path, folder]);
    }
    put(disk, 0, "EFI/Linux/Talos-v1.12.4.efi", &std::fs::read(uki(lab, PLAIN)).unwrap());
}

#[test]
fn issue11_5_a_fat_over_the_beginning_wins_over_an_old_backup_table() {
    if !tools(&["mkfs.vfat", "mmd", "mcopy"]) {
        return;
    }
    let cases: [(&[&str], Option<&str>); 5] = [
        (&["-F", "32", "-s", "1"], None),
        (&["-F", "32", "-s", "1", "--mbr=yes"], None),
        (&["-F", "16"], None),
        // Smaller than the disk: half of the old ESP lies behind the end of the new volume, and the backup table does.
        (&["-F", "32", "-s", "1"], Some("40960")),
        (&["-F", "16"], Some("20480")),
    ];
    for (options, kib) in cases {
        let lab = Lab::new();
        let disk = lab.fixture("disk-512.img.zst");
        superfloppy(&lab, &disk, options, kib);
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert_eq!(status["disk"]["partition"], serde_json::Value::Null, "{options:?}: {status:#}");
        assert!(status["warnings"].to_string().contains("earlier use"), "{options:?}: {status:#}");
        assert_eq!(status["files"].as_array().map(Vec::len), Some(1), "{options:?}: {status:#}");
        let behind = |disk: &Path| {
            let end = kib.map_or(usize::MAX, |kib| 1024 * kib.parse::<usize>().unwrap());
            std::fs::read(disk).unwrap().get(end..).map(<[u8]>::to_vec)
        };
        let before = behind(&disk);
        bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes").code(0);
        let new = crate::support::mtools_read(&disk, 0, "EFI/Linux/Talos-v1.12.4.efi");
        assert!(new == Some(std::fs::read(uki(&lab, INSTALLER)).unwrap()), "{options:?}: not in the new volume");
        crate::support::fsck_clean(&disk, 0);
        assert!(behind(&disk) == before, "{options:?}: something behind the new volume has changed");
    }
}

#[test]
fn issue11_5_another_file_system_at_the_beginning_wins_over_an_old_backup_table() {
    let cases: [(&str, u64, &[u8]); 7] = [
        ("XFS", 0, b"XFSB"),
        ("btrfs", 65600, b"_BHRfS_M"),
        ("ext4", 1080, b"\x53\xef"),
        ("SquashFS", 0, b"hsqs"),
        ("LUKS", 0, b"LUKS\xba\xbe"),
        ("ISO 9660", 32769, b"CD001"),
        ("swap", 4086, b"SWAPSPACE2"),
    ];
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    for (name, at, magic) in cases {
        let disk = lab.fixture_as("disk-512.img.zst", "disk.img");
        patch(&disk, 0, &vec![0; 1 << 20]);
        patch(&disk, at, magic);
        let hash = sha256(&disk);
        bootsurgeon!("status", disk).fails(3, &[name, "earlier use"]);
        for how in ["--dry-run", "--yes"] {
            bootsurgeon!("swap", disk, image, how).fails(3, &[name]);
        }
        assert_eq!(sha256(&disk), hash);
    }
    if tool("mkfs.ext4") {
        let disk = lab.fixture_as("disk-512.img.zst", "disk.img");
        run_ok("mkfs.ext4", &["-q", "-F", &disk.display().to_string()]);
        bootsurgeon!("status", disk).fails(3, &["ext4"]);
    }
}

#[test]
fn issue11_5_a_beginning_of_zeros_or_noise_is_read_and_not_written() {
    for fill in [0u8, 0xA5] {
        let lab = Lab::new();
        let disk = lab.fixture("disk-512.img.zst");
        patch(&disk, 0, &vec![fill; 34 * 512]);
        read_and_not_written(&lab, &disk, &[], &["nothing that belongs to it at the beginning", "gdisk"]);
    }
}

#[test]
fn issue11_5_a_table_of_another_disk_size() {
    let lab = Lab::new();
    // Copied to a larger disk: the backup stands where the primary says.
    let disk = lab.fixture("disk-512.img.zst");
    let length = disk.metadata().unwrap().len();
    truncate(&disk, length + (9 << 20));
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert!(status["warnings"].to_string().contains("where the primary says"), "{status:#}");
    assert!(!status["warnings"].to_string().contains("missing"), "{status:#}");
    let around = around_esp(&disk, esp_bytes(&disk));
    bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes").code(0);
    assert_eq!(around_esp(&disk, esp_bytes(&disk)), around);
    // With a damaged primary the backup there still counts.
    patch(&disk, 512 + 56, &[0xee]);
    bootsurgeon!("status", disk).code(0);
    // Cut off.
    let disk = lab.fixture_as("disk-512.img.zst", "cut.img");
    truncate(&disk, length - (2 << 20));
    read_and_not_written(&lab, &disk, &[], &["is that of a disk of", "copy the image again"]);
}

#[test]
fn issue11_5_a_table_of_other_sectors_is_read_and_not_written() {
    let Some(_turn) = crate::loops::turn() else { return };
    for (fixture, options) in [("disk-512.img.zst", &["--sector-size", "4096"][..]), ("disk-4096.img.zst", &[])] {
        let lab = Lab::new();
        let disk = lab.fixture(fixture);
        let device = Loop::attach(&disk, options);
        read_and_not_written(&lab, device.node(), &[], &["counts in sectors of", "the device has sectors of"]);
    }
}

#[test]
fn issue11_8_an_esp_that_overlaps_is_not_written() {
    let lab = Lab::new();
    // Another partition begins inside the ESP, ends inside it, lies in it, and holds it.
    let esp = (2048, 2048 + 48 * 2048 - 1);
    for (first, last) in
        [(esp.1 - 100, esp.1 + 100), (esp.0 - 100, esp.0 + 1), (esp.0 + 100, esp.0 + 107), (40, esp.1 + 9)]
    {
        let disk = lab.fixture_as("disk-512.img.zst", "disk.img");
        Gpt::edit(&disk, |entries| entries.set(4, first, last));
        read_and_not_written(&lab, &disk, &[], &["overlaps", "partition 4"]);
    }
    // The ESP reaches into the backup of the table.
    let sectors = disk_sectors(&lab);
    for last in [sectors - 33, sectors - 2, sectors - 1] {
        let disk = lab.fixture_as("disk-512.img.zst", "disk.img");
        Gpt::edit(&disk, |entries| {
            for n in [4, 5, 6] {
                entries.clear(n);
            }
            entries.set(1, 2048, last);
        });
        read_and_not_written(&lab, &disk, &[], &["overlaps the partition table itself"]);
    }
}

fn disk_sectors(lab: &Lab) -> u64 {
    lab.fixture("disk-512.img.zst").metadata().unwrap().len() / 512
}

#[test]
fn issue11_8_no_command_writes_outside_the_esp() {
    let lab = Lab::new();
    for fixture in ["disk-512.img.zst", "disk-4096.img.zst"] {
        let disk = lab.fixture_as(fixture, "disk.img");
        let bytes = esp_bytes(&disk);
        let around = around_esp(&disk, bytes);
        let check =
            |what: &str| assert_eq!(around_esp(&disk, bytes), around, "{fixture}: {what} wrote outside the ESP");
        bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes", "--keep-duplicates").code(0);
        check("swap");
        bootsurgeon!("restore", disk, "--yes").code(0);
        check("restore");
        bootsurgeon!("prune", disk, "--yes", "--delete", "--keep-backups", "0").code(0);
        check("prune");
        // Killed after the record is written, and recovered.
        let mut swap = crate::cli::command(&args!["swap", disk, uki(&lab, INSTALLER), "--yes"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let _ = swap.kill();
        let _ = swap.wait();
        bootsurgeon!("recover", disk, "--yes").code(0);
        check("recover");
    }
}

#[test]
fn issue11_a_loop_device_over_the_same_file_by_another_name_is_seen() {
    let Some(_turn) = crate::loops::turn() else { return };
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    // Other tests work on copies of this disk at the same time, and without its name only the beginning tells it from
    // them.
    let file = std::fs::File::options().write(true).open(&disk).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"another beginning", 0).unwrap();
    let other = lab.path("other-name.img");
    std::fs::hard_link(&disk, &other).unwrap();
    let device = Loop::attach(&disk, &[]);
    let under = device.node().display().to_string();
    let hash = sha256(&disk);
    bootsurgeon!("swap", other, uki(&lab, INSTALLER), "--yes").fails(4, &[&under, "losetup -d"]);
    let mounted = lab.path("mounted");
    std::fs::create_dir(&mounted).unwrap();
    let folder = lab.path("").display().to_string();
    let at = mounted.display().to_string();
    if run("mount", &["--bind", &folder, &at]).status.success() {
        let ran = bootsurgeon!("swap", mounted.join("disk-512.img"), uki(&lab, INSTALLER), "--yes");
        run_ok("umount", &[&at]);
        let _ = ran.fails(4, &[&under]);
    }
    // The file has lost the name by which it was attached.
    std::fs::remove_file(&disk).unwrap();
    bootsurgeon!("swap", other, uki(&lab, INSTALLER), "--yes").fails(4, &[&under]);
    assert_eq!(sha256(&other), hash);
}

#[test]
fn issue11_what_is_neither_file_nor_block_device_is_refused_at_once() {
    let lab = Lab::new();
    let fifo = lab.path("fifo");
    run_ok("mkfifo", &[&fifo.display().to_string()]);
    let socket = lab.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let disk = lab.fixture("disk-512.img.zst");
    let image = uki(&lab, INSTALLER);
    for (bad, what) in [
        (fifo, "a FIFO or pipe"),
        (socket, "a socket"),
        ("/dev/zero".into(), "a character device"),
        ("/dev/null".into(), "a character device"),
        (lab.path(""), "a directory"),
    ] {
        let words = ["neither a file nor a block device", what];
        let timed = |args: &[std::ffi::OsString]| {
            let mut command = std::process::Command::new("timeout");
            let inner = crate::cli::command(args);
            command.arg("20").arg(inner.get_program()).args(inner.get_args()).env("NO_COLOR", "1");
            crate::cli::finish(command)
        };
        let out = lab.path("out");
        for args in [
            &args!["status", bad][..],
            &args!["doctor", bad, "--efivars", "none"],
            &args!["swap", bad, image, "--yes"],
            &args!["swap", bad, image, "--yes", "--out", out],
            &args!["swap", disk, bad, "--yes"],
            &args!["recover", bad, "--yes"],
            &args!["prune", bad, "--dry-run"],
            &args!["restore", bad, "--list"],
            &args!["inspect", bad],
            &args!["verify", bad],
            &args!["diff", bad, image],
            &args!["extract", bad, "--out", out],
        ] {
            // A folder may be an OCI image, as one that is given for an image: this one is none.
            let is_image =
                bad.is_dir() && ["swap", "verify", "inspect", "diff", "extract"].iter().any(|c| args[0] == **c);
            let ran = timed(args);
            // An image may come through a pipe, if it is known what has to arrive.
            let pipe = what == "a FIFO or pipe"
                && (["inspect", "verify", "extract"].iter().any(|c| args[0] == **c) || args[1] == disk);
            if pipe {
                let _ = ran.fails(2, &["nothing says what has to arrive", "--bytes N"]);
            } else if is_image && ran.code == 3 {
                let _ = ran.fails(3, &["folder without an OCI image"]);
            } else {
                let _ = ran.fails(1, &words);
            }
        }
    }
}

#[test]
fn issue14_1_and_2_a_member_of_a_mirror_is_read_and_not_written() {
    let lab = Lab::new();
    for metadata in ["0.90", "1.0", "1.1", "1.2"] {
        for whole in [true, false] {
            let disk = lab.fixture_as("disk-512.img.zst", "disk.img");
            if whole && matches!(metadata, "1.1" | "1.2") {
                // Data begins behind such a superblock: there is no table at the start of a member.
                continue;
            }
            if whole {
                // What lies behind the array: its superblock. The backup table is at the end of the array, not of the
                // disk.
                let length = disk.metadata().unwrap().len();
                truncate(&disk, length + (1 << 20));
                md_superblock(&disk, 0, length + (1 << 20), metadata, "boot");
            } else {
                md_superblock(&disk, ESP, esp_bytes(&disk), metadata, "esp");
            }
            let version = format!("metadata {metadata}");
            read_and_not_written(&lab, &disk, &[], &["a member of the md array", &version, "mdadm --assemble"]);
            let report = bootsurgeon!("doctor", disk, "--efivars", "none", "--json").json();
            if whole {
                assert!(!report.to_string().contains("sgdisk -e"), "advice that destroys: {report:#}");
            }
            assert!(report.to_string().contains("mdadm --assemble"), "{report:#}");
            if tool("mdadm") && whole {
                let said = run("mdadm", &["--examine", &disk.display().to_string()]);
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                assert!(said.contains("raid1") && said.contains(metadata), "the generator: {said}");
                assert!(!said.to_lowercase().contains("expected"), "the generator's checksum: {said}");
            }
        }
    }
}

/// Another image is renamed over the one that is being changed.
struct Replacing {
    disk: std::path::PathBuf,
    other: std::path::PathBuf,
    /// The step at whose begin that happens.
    at: &'static str,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl bootsurgeon::command::Ui for Replacing {
    fn event(&self, event: bootsurgeon::command::Event) {
        if matches!(event, bootsurgeon::command::Event::Step(step) if step.contains(self.at)) && self.other.exists() {
            std::fs::rename(&self.disk, self.disk.with_extension("moved")).unwrap();
            std::fs::rename(&self.other, &self.disk).unwrap();
        }
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        Some(true)
    }

    fn cancelled(&self) -> &std::sync::Arc<std::sync::atomic::AtomicBool> {
        &self.stop
    }
}

#[test]
fn issue11_an_image_that_is_replaced_during_the_run_is_no_success() {
    use bootsurgeon::command::{Change, DiskRequest, ImageRequest, ImageSource, Swap, TrustRequest, VariablesChoice};
    for at in ["writing the image", "committing"] {
        let lab = Lab::new();
        let disk = lab.fixture("disk-512.img.zst");
        let other = crate::cli::copy(&disk, &lab.path("other.img"));
        let hash = sha256(&other);
        let ui = Replacing { disk: disk.clone(), other, at, stop: std::sync::Arc::default() };
        let image = uki(&lab, INSTALLER).display().to_string();
        let request = DiskRequest { efivars: VariablesChoice::None, ..DiskRequest::new(&disk) };
        let image = ImageSource::Named(ImageRequest::new(image));
        let change = Change { yes: true, ..Change::default() };
        let error = Swap::new(request, image, TrustRequest::default(), change).run(&ui).expect_err(at);
        assert_eq!(error.code(), bootsurgeon::Code::Medium, "{at}: {error}");
        assert!(error.to_string().contains("was moved or replaced during the run"), "{at}: {error}");
        assert_eq!(sha256(&disk), hash, "{at}: the other image was changed");
        // What is left behind can be recovered under its new name.
        let moved = disk.with_extension("moved");
        bootsurgeon!("recover", moved, "--yes").code(0);
        crate::support::fsck_clean(&moved, ESP);
    }
}

/// A disk with an MBR made by sfdisk from this script, and the ESP of a fixture in the partition that begins at
/// sector 4096.
pub(super) fn mbr_disk(lab: &Lab, script: &str) -> std::path::PathBuf {
    let disk = lab.path("mbr.img");
    std::fs::write(&disk, b"").unwrap();
    truncate(&disk, 96 << 20);
    let sfdisk = std::process::Command::new("sfdisk")
        .arg("--quiet")
        .arg(&disk)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes())?;
            child.wait()
        });
    assert!(sfdisk.unwrap().success(), "sfdisk: {script}");
    let esp = crate::cli::bytes_at(&lab.fixture("disk-512.img.zst"), ESP, 48 << 20);
    patch(&disk, 4096 * 512, &esp);
    disk
}

#[test]
fn issue14_4_disks_with_an_mbr() {
    if !tool("sfdisk") {
        return;
    }
    let head = "label: dos\nlabel-id: 0x1a2b3c4d\n";
    let logical =
        "start=2048, size=120000, type=f\nstart=4096, size=98304, type=ef\nstart=104448, size=2048, type=83\n";
    let cases = [
        (format!("{head}start=4096, size=98304, type=ef\nstart=104448, type=83\n"), 1, true),
        (format!("{head}start=104448, type=83\nstart=4096, size=98304, type=c\n"), 2, false),
        (format!("{head}start=4096, size=98304, type=e\n"), 1, false),
        (format!("{head}start=4096, size=98304, type=6\n"), 1, false),
        (format!("{head}start=4096, size=98304, type=b\n"), 1, false),
        (format!("{head}start=4096, size=98304, type=4\nstart=104448, type=83\n"), 1, false),
        (format!("{head}{logical}"), 5, true),
    ];
    for (script, number, by_type) in cases {
        let lab = Lab::new();
        let disk = mbr_disk(&lab, &script);
        let outside = |disk: &Path| {
            let all = std::fs::read(disk).unwrap();
            [&all[..4096 * 512], &all[(4096 + 98304) * 512..]].concat()
        };
        let before = outside(&disk);
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        let partition = &status["disk"]["partition"];
        assert_eq!(partition["number"], number, "{script}{status:#}");
        assert_eq!(partition["partuuid"], format!("1a2b3c4d-0{number}"), "{script}{status:#}");
        assert_eq!(status["warnings"].to_string().contains("used as the ESP"), !by_type, "{script}{status:#}");
        let inspected = bootsurgeon!("inspect", disk, "--json").code(0).json();
        assert_eq!(inspected["ukis"].as_array().map(Vec::len), Some(2), "{script}{inspected:#}");
        bootsurgeon!("doctor", disk, "--efivars", "none", "--json");
        for choice in [number.to_string(), format!("1A2B3C4D-0{number}")] {
            bootsurgeon!("status", disk, "--partition", choice).code(0);
        }
        bootsurgeon!("status", disk, "--partition", "9").fails(2, &["no partition is \"9\"", "1a2b3c4d-0"]);
        let report = bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes", "--json").code(0).json();
        assert_eq!(report["committed"], true);
        crate::support::fsck_clean(&disk, 4096 * 512);
        assert!(outside(&disk) == before, "{script}: something outside the ESP has changed");
    }
    // A hybrid MBR beside a GPT: the GPT counts.
    if tool("sgdisk") {
        let lab = Lab::new();
        let disk = lab.fixture("disk-512.img.zst");
        run_ok("sgdisk", &["-h", "4", &disk.display().to_string()]);
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert_eq!(status["disk"]["partition"]["label"], "EFI");
        assert!(status["warnings"].to_string().contains("hybrid MBR"), "{status:#}");
        bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes").code(0);
    }
}

#[test]
fn issue14_5_an_esp_of_the_wrong_type_or_label() {
    const BASIC_DATA: &str = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7";
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    for label in ["EFI", "SYSTEM", ""] {
        let disk = lab.fixture_as("disk-512.img.zst", "disk.img");
        Gpt::edit(&disk, |table| {
            table.kind(1, BASIC_DATA);
            table.label(1, label);
        });
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert_eq!(status["disk"]["partition"]["number"], 1);
        let warnings = status["warnings"].to_string();
        assert!(warnings.contains("used as the ESP") && warnings.contains(BASIC_DATA), "{status:#}");
        bootsurgeon!("swap", disk, image, "--yes").code(0);
    }
    // The type without Talos' label.
    let disk = lab.fixture_as("disk-512.img.zst", "disk.img");
    Gpt::edit(&disk, |table| table.label(1, "boot"));
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert!(status["warnings"].to_string().contains("not the label EFI"), "{status:#}");
    // Two of them: the user chooses. One with the right type wins.
    let disk = lab.fixture_as("disk-two-esps.img.zst", "disk.img");
    Gpt::edit(&disk, |table| [1, 7].iter().for_each(|n| table.kind(*n, BASIC_DATA)));
    bootsurgeon!("status", disk).fails(2, &["2 EFI System Partitions", "--partition"]);
    bootsurgeon!("status", disk, "--partition", "7").code(0);
    let disk = lab.fixture_as("disk-two-esps.img.zst", "disk.img");
    Gpt::edit(&disk, |table| table.kind(7, BASIC_DATA));
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert_eq!(status["disk"]["partition"]["number"], 1);
    put(&disk, SECOND, "EFI/BOOT/BOOTAA64.EFI", &systemd_boot("257.9", Arch::Arm64));
    bootsurgeon!("swap", disk, image, "--partition", "7", "--yes").code(0);
    bootsurgeon!("status", disk, "--partition", "4").fails(2, &["holds no FAT file system"]);
}

#[test]
fn issue14_10_of_several_esps_the_one_that_the_machine_booted_from_is_used() {
    let lab = Lab::new();
    let vars = lab.path("vars");
    std::fs::create_dir(&vars).unwrap();
    for number in [1u64, 7] {
        let disk = lab.fixture_as("disk-two-esps.img.zst", "disk.img");
        let named = bootsurgeon!("status", disk, "--partition", number.to_string(), "--json").code(0).json();
        let partuuid = named["disk"]["partition"]["partuuid"].as_str().unwrap().to_uppercase();
        let text = partuuid.encode_utf16().chain(Some(0)).flat_map(u16::to_le_bytes);
        let bytes: Vec<u8> = [6, 0, 0, 0].into_iter().chain(text).collect();
        std::fs::write(vars.join("LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"), bytes).unwrap();
        let status = bootsurgeon!("status", disk, "--efivars", vars, "--json").code(0).json();
        assert_eq!(status["disk"]["partition"]["number"], number, "{status:#}");
        assert!(status["warnings"].to_string().contains("LoaderDevicePartUUID"), "{status:#}");
        // What the user names counts more, and what is nowhere says nothing.
        let other = if number == 1 { "7" } else { "1" };
        let status = bootsurgeon!("status", disk, "--efivars", vars, "--partition", other, "--json").code(0).json();
        assert_eq!(status["disk"]["partition"]["number"].to_string(), other);
        let text = "00000000-0000-0000-0000-000000000001".encode_utf16().flat_map(u16::to_le_bytes);
        let bytes: Vec<u8> = [6, 0, 0, 0].into_iter().chain(text).collect();
        std::fs::write(vars.join("LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"), bytes).unwrap();
        bootsurgeon!("status", disk, "--efivars", vars).fails(2, &["2 EFI System Partitions", "--partition"]);
    }
}

/// sfdisk and tables made by hand have headers of up to a sector and entries of 256 bytes and more; `damaged`, it was
/// said, with the way into sgdisk's recovery menu.
#[test]
fn rutil_linux_tables_with_longer_headers_and_entries_are_read_and_written() {
    for (header, entry) in [(92, 256), (512, 128), (200, 256), (92, 512), (512, 1024)] {
        let lab = Lab::new();
        let disk = lab.fixture("disk-512.img.zst");
        Gpt::resize(&disk, header, entry);
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert_eq!(status["disk"]["partition"]["label"], "EFI", "{header} {entry}");
        let doctor = bootsurgeon!("doctor", disk, "--json").code(0).json();
        let ids: Vec<&str> = doctor["findings"].as_array().unwrap().iter().filter_map(|f| f["id"].as_str()).collect();
        assert!(ids.iter().all(|id| !id.contains("gpt") && !id.contains("table")), "{ids:?}");
        let around = around_esp(&disk, 48 << 20);
        bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes").code(0);
        assert!(around_esp(&disk, 48 << 20) == around, "{header} {entry}");
    }
}

/// A card image cut inside its ESP was "not installed for UEFI boot"; the warning that knew better was dropped.
#[test]
fn rbalena_1541_an_image_that_ends_before_its_esp_does_says_so() {
    let lab = Lab::new();
    let gpt = lab.fixture("disk-512.img.zst");
    let script = "label: dos\nstart=4096, size=98304, type=ef\n";
    for (disk, end) in [(gpt, (1 << 20) + (48 << 20)), (mbr_disk(&lab, script), (2 << 20) + (48 << 20))] {
        // At random places from behind the table to the last byte of the ESP.
        let mut at: u64 = 0x9E37_79B9;
        for _ in 0..12 {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bytes = 34 * 512 + (at >> 33) % (end - 34 * 512);
            let cut = lab.path("cut.img");
            std::fs::copy(&disk, &cut).unwrap();
            truncate(&cut, bytes);
            for (command, options) in
                [("status", &[][..]), ("doctor", &[]), ("prune", &["--yes"]), ("status", &["--partition", "1"])]
            {
                let options = options.iter().map(std::ffi::OsString::from);
                let ran = crate::cli::run(&args![command, cut].into_iter().chain(options).collect::<Vec<_>>());
                let said = format!("{}{}", ran.out, ran.err).split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(said.contains("reaches past the end of the disk"), "{bytes}: {command}: {said}");
                assert!(!said.contains("not installed for UEFI"), "{bytes}: {said}");
            }
        }
    }
}
