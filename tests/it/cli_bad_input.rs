//! Bad input, class by class, through the program: the right exit code, a message that says what is wrong and what to
//! do, and an ESP that is as it was.

use crate::cli::{DUPLICATE, ESP, TARGET, bytes_at, files, named, patch, uki, uki_bytes};
use crate::support::{Lab, fsck_clean, sha256, tool, tools};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const INSTALLER: &str = "v1.12.4-arm64-installer";
const PLAIN: &str = "v1.12.4-arm64-plain";

fn u16_at(path: &Path, at: u64) -> u64 {
    u64::from(u16::from_le_bytes(bytes_at(path, at, 2).try_into().unwrap()))
}

fn u32_at(path: &Path, at: u64) -> u64 {
    u64::from(u32::from_le_bytes(bytes_at(path, at, 4).try_into().unwrap()))
}

/// `verify` and a rehearsed and a real swap reject this image (exit 3) with these words; nothing on the ESP refers to
/// it.
#[track_caller]
fn rejected(lab: &Lab, image: &Path, words: &[&str]) {
    let disk = lab.fixture_as("disk-512.img.zst", "target.img");
    let hash = sha256(&disk);
    let verdict =
        bootsurgeon!("verify", image, "--json", "--cert", crate::cli::fixture("keys/test-signing.crt")).code(3);
    let verdict = verdict.json();
    // Either the report, or the error of an image that cannot even be opened.
    assert!(verdict["verdict"] == "reject" || verdict["error"]["exit_code"] == 3, "{verdict:#}");
    bootsurgeon!("swap", disk, image, "--dry-run").fails(3, words);
    assert_eq!(sha256(&disk), hash, "a dry run wrote");
    let before = tool("mcopy").then(|| files(&disk, ESP));
    bootsurgeon!("swap", disk, image, "--yes").fails(3, words);
    fsck_clean(&disk, ESP);
    assert!(before == tool("mcopy").then(|| files(&disk, ESP)), "the ESP has changed");
}

/// First byte of the section table of a PE file, and of its data directories (PE32+).
fn pe_tables(image: &Path) -> (u64, u64) {
    let pe = u32_at(image, 0x3c);
    (pe + 24 + u16_at(image, pe + 20), pe + 24 + 112)
}

#[test]
fn pe_truncated() {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    let whole = image.metadata().unwrap().len();
    for (length, words) in [(whole - 10, "truncated"), (whole / 2, "truncated"), (300, ""), (64, "")] {
        let cut = crate::cli::copy(&image, &lab.path(&format!("cut-{length}.efi")));
        crate::cli::truncate(&cut, length);
        rejected(&lab, &cut, &[words]);
    }
}

#[test]
fn pe_with_a_section_past_the_end() {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    let (sections, _) = pe_tables(&image);
    for (field, value) in [(16, 0x7fff_ffff_u32), (16, u32::MAX), (20, 0x7fff_0000), (20, u32::MAX)] {
        let bad = crate::cli::copy(&image, &lab.path("bad.efi"));
        patch(&bad, sections + field, &value.to_le_bytes());
        rejected(&lab, &bad, &["section", "truncated"]);
    }
}

#[test]
fn certificate_table_past_the_end() {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    let (_, directories) = pe_tables(&image);
    // The fifth directory: offset in the file, length.
    for (field, value) in [(0, 0x7fff_ff00_u32), (4, 0x7fff_ff00), (4, u32::MAX)] {
        let bad = crate::cli::copy(&image, &lab.path("bad.efi"));
        patch(&bad, directories + 4 * 8 + field, &value.to_le_bytes());
        rejected(&lab, &bad, &["certificate table", "truncated"]);
    }
}

#[test]
fn digest_mismatch() {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    // One byte of the second section's data, and the end of the kernel.
    let (sections, _) = pe_tables(&image);
    let at = u32_at(&image, sections + 40 + 20);
    let bad = crate::cli::copy(&image, &lab.path("bad.efi"));
    patch(&bad, at, &[bytes_at(&image, at, 1)[0] ^ 1]);
    rejected(&lab, &bad, &["authenticode-digest", "the ESP was not changed"]);
    let report = bootsurgeon!("verify", bad, "--json").code(3).json();
    let digest = report["checks"].as_array().unwrap().iter().find(|c| c["id"] == "authenticode-digest").unwrap();
    assert_eq!(digest["status"], "fail");
    // Who trusts everything gets no corrupt image either, unless it was said in as many words.
    if tool("sbverify") {
        assert!(!crate::support::sbverify(&bad, &crate::cli::fixture("keys/test-signing.crt")));
    }
}

#[test]
fn other_signer_and_other_architecture() {
    let lab = Lab::new();
    rejected(&lab, &uki(&lab, "v1.12.4-arm64-other-signer"), &["authenticode-signer", "--cert"]);
    let disk = lab.fixture("disk-512.img.zst");
    let hash = sha256(&disk);
    let words = ["arch", "amd64", "arm64", "the ESP was not changed"];
    for how in ["--dry-run", "--yes"] {
        bootsurgeon!("swap", disk, uki(&lab, "v1.12.4-amd64-uki"), how).fails(3, &words);
    }
    assert_eq!(sha256(&disk), hash);
    bootsurgeon!("verify", uki(&lab, "v1.12.4-amd64-uki"), "--arch", "arm64").code(3);
}

#[test]
fn files_that_are_no_images() {
    let lab = Lab::new();
    let empty = lab.path("empty");
    std::fs::write(&empty, b"").unwrap();
    let text = lab.path("text.efi");
    std::fs::write(&text, "MZ is how it begins, and then it is only text. ".repeat(400)).unwrap();
    let zeros = lab.path("zeros");
    std::fs::write(&zeros, vec![0; 3 << 20]).unwrap();
    for image in [&empty, &text, &zeros] {
        rejected(&lab, image, &[]);
        bootsurgeon!("inspect", image).code(3);
        bootsurgeon!("extract", image, "--out", lab.path("out.efi")).code(3);
        assert!(!lab.path("out.efi").exists(), "an output in spite of the error");
        bootsurgeon!("status", image).fails(3, &["neither a partition table (GPT or MBR) nor a FAT file system"]);
    }
    let disk = lab.fixture("disk-512.img.zst");
    bootsurgeon!("swap", disk, lab.path("missing.efi"), "--yes").fails(1, &["missing.efi", "No such file"]);
    bootsurgeon!("swap", lab.path("missing.img"), text, "--yes").fails(1, &["missing.img", "No such file"]);
    bootsurgeon!("status", lab.path("")).fails(1, &["neither a file nor a block device"]);
}

/// Where the record of a name is in a directory of an ISO.
fn iso_record(iso: &Path, directory: u64, name: &str) -> u64 {
    let length = u32_at(iso, directory + 10);
    let mut at = directory;
    while at < directory + length {
        let record = bytes_at(iso, at, 255);
        if record[0] == 0 {
            at = (at / 2048 + 1) * 2048;
            continue;
        }
        let identifier = &record[33..33 + usize::from(record[32])];
        if String::from_utf8_lossy(identifier).to_uppercase().starts_with(name) {
            return at;
        }
        at += u64::from(record[0]);
    }
    panic!("no {name} in the directory at {directory}");
}

/// A number in both byte orders, as ISO 9660 has it.
fn both(n: u32) -> Vec<u8> {
    [n.to_le_bytes(), n.to_be_bytes()].concat()
}

#[test]
fn iso_with_a_directory_loop_and_with_extents_past_the_end() {
    let lab = Lab::new();
    let iso = lab.fixture("secureboot-arm64.iso.zst");
    let root = u32_at(&iso, 16 * 2048 + 156 + 2) * 2048;
    let efi = iso_record(&iso, root, "EFI");
    let efi_at = u32_at(&iso, efi + 2) as u32;
    let linux = iso_record(&iso, u64::from(efi_at) * 2048, "LINUX");
    let linux_at = u64::from(u32_at(&iso, linux + 2) as u32) * 2048;
    let file = iso_record(&iso, linux_at, "TALOS");
    let cases: &[(&str, u64, Vec<u8>, &[&str])] = &[
        ("loop.iso", linux + 2, both(efi_at), &["directory loop"]),
        ("directory.iso", linux + 2, both(0x00ff_ffff), &["truncated"]),
        ("extent.iso", file + 2, both(0x00ff_ffff), &["truncated"]),
        ("length.iso", file + 10, both(0x7fff_ffff), &["truncated"]),
        ("root.iso", 16 * 2048 + 156 + 2, both(0x00ff_ffff), &["truncated"]),
    ];
    for (name, at, bytes, words) in cases {
        let bad = crate::cli::copy(&iso, &lab.path(name));
        patch(&bad, *at, bytes);
        rejected(&lab, &bad, words);
        bootsurgeon!("extract", bad, "--out", lab.path("out.efi")).fails(3, words);
        assert!(!lab.path("out.efi").exists(), "an output in spite of the error");
    }
    let cut = crate::cli::copy(&iso, &lab.path("cut.iso"));
    crate::cli::truncate(&cut, 20 * 2048);
    rejected(&lab, &cut, &["truncated"]);
}

/// The file allocation tables of a FAT32 volume at an offset of an image.
struct Tables {
    image: PathBuf,
    offset: u64,
    reserved: u64,
    bytes: u64,
    copies: u64,
    clusters: u32,
}

impl Tables {
    fn of(image: &Path, offset: u64) -> Self {
        let sector = u16_at(image, offset + 11);
        let reserved = u16_at(image, offset + 14) * sector;
        let copies = u64::from(bytes_at(image, offset + 16, 1)[0]);
        let bytes = u32_at(image, offset + 36) * sector;
        let data = u32_at(image, offset + 32) * sector - reserved - copies * bytes;
        let clusters = data / (u64::from(bytes_at(image, offset + 13, 1)[0]) * sector);
        Self { image: image.to_owned(), offset, reserved, bytes, copies, clusters: clusters as u32 }
    }

    /// Changes an entry in every copy.
    fn set(&self, cluster: u32, next: u32) {
        for copy in 0..self.copies {
            let at = self.offset + self.reserved + copy * self.bytes + u64::from(cluster) * 4;
            patch(&self.image, at, &next.to_le_bytes());
        }
    }

    /// First and last cluster of a contiguous file, by mtools.
    fn extent(&self, path: &str) -> (u32, u32) {
        let volume = format!("{}@@{}", self.image.display(), self.offset);
        let said = crate::support::run_ok("mshowfat", &["-i", &volume, &format!("::/{path}")]);
        let said = String::from_utf8_lossy(&said).into_owned();
        let (_, range) = said.split_once('<').unwrap();
        let (first, last) = range.split_once('>').unwrap().0.split_once('-').unwrap();
        (first.parse().unwrap(), last.parse().unwrap())
    }
}

/// Everything that writes refuses this disk (exit 4); the status says why and does not fail.
#[track_caller]
fn unhealthy(lab: &Lab, disk: &Path, words: &[&str]) {
    let hash = sha256(disk);
    for how in ["--dry-run", "--yes"] {
        bootsurgeon!("swap", disk, uki(lab, INSTALLER), how).fails(4, words).says(&["fsck"]);
        bootsurgeon!("prune", disk, how).fails(4, words);
        bootsurgeon!("restore", disk, how).fails(4, words);
    }
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert_eq!(status["esp"]["healthy"], false);
    let problems = status["esp"]["problems"].to_string();
    assert!(words.iter().all(|w| problems.contains(w)), "{words:?}: {problems}");
    assert_eq!(sha256(disk), hash);
}

#[test]
fn fat_with_broken_chains() {
    if !tools(&["mshowfat", "mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let fresh = || {
        let disk = lab.fixture("disk-512.img.zst");
        let tables = Tables::of(&disk, ESP);
        (disk, tables)
    };
    let (disk, fat) = fresh();
    let (first, last) = fat.extent(TARGET);
    fat.set(last, first);
    unhealthy(&lab, &disk, &["Talos-v1.12.4.efi", "loop"]);

    let (disk, fat) = fresh();
    let (other, _) = fat.extent(DUPLICATE);
    fat.set(first + 1, other + 2);
    unhealthy(&lab, &disk, &["Talos-v1.12.4"]);

    for next in [fat.clusters + 2, 0x0fff_fff0, 1] {
        let (disk, fat) = fresh();
        fat.set(first + 3, next);
        unhealthy(&lab, &disk, &["Talos-v1.12.4.efi"]);
    }

    // A chain that ends too early.
    let (disk, fat) = fresh();
    fat.set(first + 3, 0x0fff_ffff);
    unhealthy(&lab, &disk, &["Talos-v1.12.4.efi"]);
}

#[test]
fn fat_with_a_boot_sector_that_makes_no_sense() {
    let lab = Lab::new();
    // Sectors per cluster 0 and 3, bytes per sector 0, no tables, a table longer than the volume.
    let cases: &[(u64, &[u8], &str)] = &[
        (13, &[0], "sectors per cluster"),
        (13, &[3], "sectors per cluster"),
        (11, &[0, 0], "bytes per sector"),
        (16, &[0], ""),
        (36, &[0xff, 0xff, 0xff, 0x7f], ""),
        (32, &[0xff, 0xff, 0xff, 0x7f], ""),
    ];
    for (at, bytes, words) in cases {
        let disk = lab.fixture("disk-512.img.zst");
        patch(&disk, ESP + at, bytes);
        let hash = sha256(&disk);
        for how in ["--dry-run", "--yes"] {
            bootsurgeon!("swap", disk, uki(&lab, INSTALLER), how).fails(4, &[words, "boot sector"]);
        }
        // What only looks goes by the backup, or as far as the numbers lead.
        let status = bootsurgeon!("status", disk, "--json").code(0).json();
        assert_eq!(status["esp"]["healthy"], false, "{status:#}");
        assert_eq!(sha256(&disk), hash);
        // As the whole of an image there is nothing left that would tell a FAT volume.
        let bare = lab.fixture("fat32.img.zst");
        patch(&bare, *at, bytes);
        let ran = bootsurgeon!("swap", bare, uki(&lab, INSTALLER), "--yes");
        assert!([3, 4].contains(&ran.code), "{ran:#?}");
    }
}

#[test]
fn gpt_with_a_bad_primary_works_and_warns_and_with_both_bad_is_refused() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    // A byte in the primary header: its checksum is wrong then.
    patch(&disk, 512 + 56, &[0xee]);
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert!(status["warnings"].to_string().contains("primary partition table is damaged"), "{status:#}");
    let header = bytes_at(&disk, 0, 34 * 512);
    let report = bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes", "--json").code(0).json();
    assert!(report["warnings"].to_string().contains("primary partition table is damaged"), "{report:#}");
    assert!(bytes_at(&disk, 0, 34 * 512) == header, "the table is not this program's to mend");
    fsck_clean(&disk, ESP);

    // The backup alone damaged is worth a warning.
    let other = lab.fixture_as("disk-512.img.zst", "backup.img");
    let last = other.metadata().unwrap().len() - 512;
    patch(&other, last + 56, &[0xee]);
    let report = bootsurgeon!("swap", other, uki(&lab, INSTALLER), "--dry-run", "--json").code(0).json();
    assert!(report["warnings"].to_string().contains("backup partition table"), "{report:#}");

    patch(&disk, last + 56, &[0xee]);
    let hash = sha256(&disk);
    bootsurgeon!("swap", disk, uki(&lab, PLAIN), "--yes").fails(3, &["both partition tables are damaged", "sgdisk"]);
    bootsurgeon!("status", disk).fails(3, &["both partition tables are damaged"]);
    assert_eq!(sha256(&disk), hash);
}

#[test]
fn no_esp_and_two_esps() {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    let disk = lab.fixture("disk-no-esp.img.zst");
    bootsurgeon!("swap", disk, image, "--yes").fails(3, &["no EFI System Partition", "META", "STATE"]);
    bootsurgeon!("status", disk).fails(3, &["no EFI System Partition"]);
    let disk = lab.fixture("disk-two-esps.img.zst");
    bootsurgeon!("swap", disk, image, "--yes").fails(2, &["2 EFI System Partitions", "--partition"]);
}

#[test]
fn esp_full() {
    if !tool("mcopy") {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let free = bootsurgeon!("status", disk, "--json").code(0).json()["esp"]["free_bytes"].as_u64().unwrap();
    crate::cli::put(&disk, ESP, "ballast", &vec![7; free as usize - 90_000]);
    fsck_clean(&disk, ESP);
    let hash = sha256(&disk);
    for how in ["--dry-run", "--yes"] {
        bootsurgeon!("swap", disk, uki(&lab, INSTALLER), how).fails(4, &["free", "prune"]);
    }
    assert_eq!(sha256(&disk), hash);
    // Room for a rename is there all the same.
    bootsurgeon!("prune", disk, "--yes", "--delete").code(0);
    bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes").code(0);
    fsck_clean(&disk, ESP);
}

#[test]
fn image_file_read_only() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let mut permissions = disk.metadata().unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&disk, permissions).unwrap();
    let hash = sha256(&disk);
    bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes").fails(4, &["read-only", "chmod u+w"]);
    bootsurgeon!("prune", disk, "--yes").fails(4, &["read-only"]);
    bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--dry-run").code(0);
    assert_eq!(sha256(&disk), hash);
}

#[test]
fn nobody_to_ask_and_no_yes() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let hash = sha256(&disk);
    let said = ["confirmation", "--yes", "--dry-run", "the ESP was not changed"];
    bootsurgeon!("swap", disk, uki(&lab, INSTALLER)).fails(4, &said);
    bootsurgeon!("prune", disk).fails(4, &said);
    assert_eq!(sha256(&disk), hash);
    let error = bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--json").code(4).json();
    assert_eq!(error["error"]["exit_code"], 4);
    assert_eq!(error["error"]["esp_changed"], false);
}

/// Whether this process holds a lock (flock) on the file, as the kernel tells.
fn locks(process: u32, file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{}", file.metadata().unwrap().ino());
    let all = std::fs::read_to_string("/proc/locks").unwrap();
    let fields = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|f| f.get(4) == Some(&process.to_string().as_str())).any(|f| f[5].ends_with(&inode))
}

/// A server without ranges that keeps the end of a file until it is told.
fn slow_server(content: Vec<u8>, go_on: Arc<AtomicBool>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.efi", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (content, go_on) = (content.clone(), Arc::clone(&go_on));
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut stream = stream?;
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
                    request.push(byte[0]);
                }
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len())?;
                let (one, other) = content.split_at(content.len() - 1600);
                stream.write_all(one)?;
                // The first question is whether there are ranges; the answer is the whole, which says no.
                let asked = String::from_utf8_lossy(&request).to_lowercase().contains("range:");
                while !asked && !go_on.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                stream.write_all(other)
            });
        }
    });
    url
}

#[test]
fn two_swaps_at_once() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let go_on = Arc::new(AtomicBool::new(false));
    // Bytes behind the certificate table, which no signature covers: so much that the swap waits for the rest of them
    // while it writes, and is rejected in the end.
    let image = [uki_bytes(&lab, INSTALLER), vec![0; 2 << 20]].concat();
    let url = slow_server(image, Arc::clone(&go_on));
    let mut first = crate::cli::command(&args!["swap", disk, url, "--yes", "--json"]);
    let mut first = first.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !locks(first.id(), &disk) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the first swap does not claim the disk");
        assert!(first.try_wait().unwrap().is_none(), "{:?}", first.wait_with_output());
        std::thread::sleep(Duration::from_millis(20));
    }
    let words = ["another process holds a lock", "wait"];
    bootsurgeon!("swap", disk, uki(&lab, "v1.12.4-arm64-uki"), "--yes").fails(4, &words);
    bootsurgeon!("prune", disk, "--yes").fails(4, &words);
    // Looking is no change.
    bootsurgeon!("status", disk).code(0);
    go_on.store(true, Ordering::Relaxed);
    let done = first.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(3), "{}", String::from_utf8_lossy(&done.stderr));
    // The lock is gone with its holder.
    bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes").code(0);
    fsck_clean(&disk, ESP);
    if tool("mcopy") {
        let after = files(&disk, ESP);
        assert!(after[TARGET] == uki_bytes(&lab, INSTALLER));
        assert_eq!(named(&after, TARGET, ".bak.").len(), 1);
    }
}
