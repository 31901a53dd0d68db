//! Images that were made to hurt: bombs, loops, huge directories, absurd counts. The built program has to refuse or to
//! answer in bounded time, without a panic, and in 64 MiB. And whoever changes one byte of a signed image is found out.

use crate::support::{Lab, fixtures, run_ok, tool};
use bootsurgeon::authenticode::{DigestSink, parse_table};
use bootsurgeon::block::{Memory, Sink};
use bootsurgeon::fat::Volume;
use bootsurgeon::pe::{Arch, Head};
use bootsurgeon::testkit::uki::{Builder, cpio, extensions_yaml, zstd as pack_zstd};
use bootsurgeon::uki::read_initrd;
use proptest::prelude::*;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The exit code for an image that was rejected.
const REJECTED: i32 = 3;
/// What a command may take, in KiB.
const MAX_KIB: u64 = 64 * 1024;
/// How long a command may take on a busy machine. What it refuses here, it refuses in a second or two.
const MAX_TIME: Duration = Duration::from_secs(60);

struct Outcome {
    code: i32,
    said: String,
}

/// Runs the program, and holds it to its limits. Its greatest resident size is read from the system while it runs.
fn surgeon(args: &[&str]) -> Outcome {
    let lab = Lab::new();
    let (out, err) = (lab.path("out"), lab.path("err"));
    let file = |path: &Path| Stdio::from(std::fs::File::create(path).unwrap());
    let begin = Instant::now();
    let mut child = crate::support::program()
        .args(args)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let code = loop {
        let now = std::fs::read_to_string(&status).unwrap_or_default();
        let kib = now.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if begin.elapsed() > MAX_TIME {
            child.kill().unwrap();
            panic!("{args:?}: still running after {MAX_TIME:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let said = [out, err].map(|p| String::from_utf8_lossy(&std::fs::read(p).unwrap()).into_owned()).concat();
    eprintln!("{args:?}: {peak} KiB, {:?}, exit {code:?}", begin.elapsed());
    let code = code.unwrap_or_else(|| panic!("{args:?}: killed: {said}"));
    assert!(code != 101 && !said.contains("panicked"), "{args:?}: {said}");
    assert!(peak <= MAX_KIB, "{args:?}: {peak} KiB");
    Outcome { code, said: crate::support::unwrapped(&said) }
}

/// A UKI with this initrd, in a file.
fn uki(lab: &Lab, name: &str, initrd: Vec<u8>) -> String {
    let image = Builder::new(Arch::Arm64)
        .section(".text", [0xC3; 64])
        .section(".sdmagic", *b"#### LoaderInfo: systemd-stub 257.9-talos ####\0")
        .section(".osrel", *b"ID=talos\nNAME=\"Talos\"\nVERSION_ID=v1.12.4\n")
        .section(".cmdline", *b"talos.platform=metal\n")
        .section(".linux", [4; 700])
        .section(".initrd", initrd)
        .build();
    let path = lab.path(name);
    std::fs::write(&path, image).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The header of a newc entry, padded.
fn header(name: &str, mode: u32, bytes: u64) -> Vec<u8> {
    let mut e = format!("070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{bytes:08x}", 1, 0, 0, 1, 0);
    e += &format!("{:032x}{:08x}{:08x}{name}\0", 0, name.len() + 1, 0);
    let mut e = e.into_bytes();
    e.resize(e.len().next_multiple_of(4), 0);
    e
}

/// An archive with one file of so many zeros.
fn zeros(to: &mut dyn Write, name: &str, bytes: u64) {
    to.write_all(&header(name, 0o100_644, bytes)).unwrap();
    let block = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        to.write_all(&block).unwrap();
    }
    to.write_all(&header("TRAILER!!!", 0, 0)).unwrap();
}

#[test]
fn decompression_bombs_are_refused() {
    let lab = Lab::new();
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    zeros(&mut zstd, "0.sqsh", 1 << 30);
    let zstd = zstd.finish().unwrap();
    let easy = liblzma::stream::Stream::new_easy_encoder(0, liblzma::stream::Check::Crc32).unwrap();
    let mut xz = liblzma::write::XzEncoder::new_stream(Vec::new(), easy);
    zeros(&mut xz, "rootfs.sqsh", 512 << 20);
    let xz = xz.finish().unwrap();
    // A frame that wants a window of 128 MiB, and an xz stream that wants a dictionary of 64 MiB.
    let mut window = zstd::Encoder::new(Vec::new(), 1).unwrap();
    window.window_log(27).unwrap();
    zeros(&mut window, "a", 256 << 20);
    let window = window.finish().unwrap();
    let mut dictionary = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
    dictionary.dict_size(64 << 20);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&dictionary);
    let stream = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).unwrap();
    let mut large = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    zeros(&mut large, "a", 1 << 20);
    let large = large.finish().unwrap();
    for (name, bytes, status, why) in [
        ("zstd", zstd, "FAIL", "decompression bomb"),
        ("xz", xz, "FAIL", "decompression bomb"),
        ("window", window, "skip", "32 MiB is the limit here"),
        ("dictionary", large, "skip", "more than 34 MiB of memory"),
    ] {
        let outcome = surgeon(&["verify", &uki(&lab, name, bytes)]);
        assert_eq!(outcome.code, REJECTED, "{name}: {}", outcome.said);
        let line = outcome.said.lines().find(|l| l.contains("initrd  ")).unwrap();
        assert!(line.starts_with(status) && line.contains(why), "{name}: {line}");
    }
}

#[test]
fn a_million_entries_and_a_million_frames_end() {
    let lab = Lab::new();
    let mut archive = Vec::new();
    for i in 0..1_000_100 {
        archive.extend(header(&format!("{i}"), 0o100_644, 0));
    }
    let outcome = surgeon(&["verify", &uki(&lab, "entries", pack_zstd(&archive, 1).unwrap())]);
    assert!(outcome.said.contains("more than 1000000 entries"), "{}", outcome.said);
    let frame = pack_zstd(&header("TRAILER!!!", 0, 0), 1).unwrap();
    let outcome = surgeon(&["verify", &uki(&lab, "frames", frame.repeat(1_000_000 / frame.len() * 10))]);
    assert!(outcome.said.contains("more than"), "{}", outcome.said);
    // Empty squashfs images of one name, each looked into.
    let image = [header("0.sqsh", 0o100_644, 96), [&b"hsqs"[..], &[0; 92]].concat()].concat();
    let outcome = surgeon(&["verify", &uki(&lab, "images", pack_zstd(&image.repeat(500_000), 1).unwrap())]);
    assert_eq!(outcome.code, REJECTED, "{}", outcome.said);
}

#[test]
fn paths_in_an_archive_lead_nowhere() {
    let yaml = extensions_yaml(&[("tailscale", "1.90.6")], "customization: {}\n");
    let names = ["../extensions.yaml", "a/../extensions.yaml", "../../0.sqsh", "/a/0.sqsh", "extensions.yaml/x"];
    let files: Vec<_> = names.iter().map(|n| (*n, yaml.as_bytes())).collect();
    let initrd = read_initrd(&cpio(&files).unwrap()[..], &mut ()).unwrap();
    assert_eq!((initrd.extensions_yaml, initrd.squashfs.len(), initrd.services.len()), (None, 0, 0));
    assert_eq!(initrd.notes, ["a path with \"..\" in it"]);
    // The kernel takes these for the root's file, and so it is here.
    for name in ["/extensions.yaml", "./extensions.yaml", ".//./extensions.yaml"] {
        let initrd = read_initrd(&cpio(&[(name, yaml.as_bytes())]).unwrap()[..], &mut ()).unwrap();
        assert_eq!(initrd.extensions_yaml.as_deref(), Some(yaml.as_bytes()), "{name}");
    }
    // A link in the place of a file.
    let link = [header("extensions.yaml", 0o120_777, 4), b"/etc".to_vec(), header("TRAILER!!!", 0, 0)].concat();
    assert!(read_initrd(&link[..], &mut ()).unwrap_err().to_string().contains("extensions.yaml is not a regular file"));
}

/// A service that waits is found in an image larger than what may be kept of it, and 64 MiB are enough.
#[test]
fn a_waiting_service_is_found_in_a_large_extension() {
    if !tool("mksquashfs") {
        return;
    }
    let lab = Lab::new();
    let folder = lab.path("ext/usr/local/etc/containers");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("tailscale.yaml"), "name: tailscale\ndepends:\n  - configuration: true\n").unwrap();
    let mut x = 1u64;
    let noise: Vec<u8> = (0..6 << 20)
        .flat_map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 24).to_le_bytes()
        })
        .collect();
    std::fs::write(lab.path("ext/usr/local/tailscaled"), noise).unwrap();
    let image = lab.path("0.sqsh");
    let ext = lab.path("ext");
    let paths = [ext.to_str().unwrap(), image.to_str().unwrap()];
    let options = ["-comp", "zstd", "-Xcompression-level", "1", "-noappend", "-all-root", "-quiet", "-no-progress"];
    run_ok("mksquashfs", &[&paths[..], &options].concat());
    let image = std::fs::read(image).unwrap();
    assert!(image.len() > 30 << 20);
    let schematic = bootsurgeon::testkit::squashfs::image(&[("schematic.yaml", b"customization: {}\n")]).unwrap();
    let yaml = extensions_yaml(&[("tailscale", "1.90.6")], "customization: {}\n");
    let files = [("0.sqsh", &image[..]), ("1.sqsh", &schematic[..]), ("extensions.yaml", yaml.as_bytes())];
    let uki = uki(&lab, "large", pack_zstd(&cpio(&files).unwrap(), 1).unwrap());
    for command in ["verify", "inspect"] {
        let outcome = surgeon(&[command, &uki]);
        let waits = "ext-tailscale waits for an ExtensionServiceConfig; apply it before the reboot";
        assert!(outcome.said.contains(waits), "{}", outcome.said);
    }
}

/// The places of directory records of this name.
fn records(iso: &[u8], name: &str) -> Vec<usize> {
    let pattern = [&[name.len() as u8], name.as_bytes()].concat();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(n) = memchr_find(&iso[at..], &pattern) {
        found.push(at + n - 32);
        at += n + 1;
    }
    found
}

fn memchr_find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len()).position(|w| w == pattern)
}

fn both(value: u32) -> [u8; 8] {
    let mut b = [0; 8];
    b[..4].copy_from_slice(&value.to_le_bytes());
    b[4..].copy_from_slice(&value.to_be_bytes());
    b
}

/// A small ISO with `EFI/LINUX/X.EFI`, by xorriso.
fn iso(lab: &Lab, depth: usize) -> Vec<u8> {
    let mut folder = lab.path("tree/EFI/LINUX");
    for i in 0..depth {
        folder = folder.join(format!("D{i}"));
    }
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("X.EFI"), "MZ").unwrap();
    let (tree, out) = (lab.path("tree"), lab.path("plain.iso"));
    run_ok("xorriso", &["-as", "mkisofs", "-quiet", "-D", "-R", "-o", out.to_str().unwrap(), tree.to_str().unwrap()]);
    std::fs::read(out).unwrap()
}

#[test]
fn iso_trees_that_are_deep_or_loop_or_are_wide_end() {
    if !tool("xorriso") {
        return;
    }
    let lab = Lab::new();
    let look = |name: &str, iso: &[u8], why: &str| {
        let path = lab.path(name);
        std::fs::write(&path, iso).unwrap();
        for command in ["inspect", "verify"] {
            let outcome = surgeon(&[command, path.to_str().unwrap()]);
            eprintln!("{}", outcome.said.lines().next().unwrap_or_default());
            assert!(outcome.code != 0 || command == "inspect", "{name}: {}", outcome.said);
            assert!(outcome.said.contains(why), "{name}: no {why:?} in {}", outcome.said);
        }
    };
    look("deep.iso", &iso(&lab, 60), "");
    let lab_iso = Lab::new();
    let plain = iso(&lab_iso, 0);
    let linux = records(&plain, "LINUX");
    let efi = records(&plain, "EFI");
    assert!(!linux.is_empty() && !efi.is_empty());

    // EFI/LINUX is EFI: a tree without an end.
    let mut looped = plain.clone();
    let place: Vec<u8> = plain[efi[0] + 2..efi[0] + 18].to_vec();
    for at in &linux {
        looped[at + 2..at + 18].copy_from_slice(&place);
    }
    look("loop.iso", &looped, "");

    // EFI/LINUX lists a million files.
    let place_of_linux = plain[linux[0] + 2..linux[0] + 6].to_vec();
    let mut wide = plain;
    wide.resize(wide.len().next_multiple_of(2048), 0);
    let first = (wide.len() / 2048) as u32;
    let record = |name: &[u8], flags: u8| {
        let mut r = vec![0; 33];
        r[2..10].copy_from_slice(&both(first));
        r[10..18].copy_from_slice(&both(2));
        r[25] = flags;
        r[28..32].copy_from_slice(&[1, 0, 0, 1]);
        r[32] = name.len() as u8;
        r.extend(name);
        r.resize(r.len().next_multiple_of(2), 0);
        r[0] = r.len() as u8;
        r
    };
    let mut put = |r: Vec<u8>| {
        if wide.len() % 2048 + r.len() > 2048 {
            wide.resize(wide.len().next_multiple_of(2048), 0);
        }
        wide.extend(r);
    };
    put(record(&[0], 2));
    put(record(&[1], 2));
    for i in 0..1_000_000 {
        put(record(format!("F{i:07}.EFI;1").as_bytes(), 0));
    }
    wide.resize(wide.len().next_multiple_of(2048), 0);
    let bytes = wide.len() as u32 - first * 2048;
    // The directory's own record, the first, knows its length too.
    let own = first as usize * 2048;
    wide[own + 10..own + 18].copy_from_slice(&both(bytes));
    for at in linux {
        wide[at + 2..at + 10].copy_from_slice(&both(first));
        wide[at + 10..at + 18].copy_from_slice(&both(bytes));
    }
    // The path tables, little- and big-endian, know where each directory lies.
    let old = u32::from_le_bytes(place_of_linux.try_into().unwrap());
    for (from, to) in [(old.to_le_bytes(), first.to_le_bytes()), (old.to_be_bytes(), first.to_be_bytes())] {
        let pattern = [&[5, 0], &from[..]].concat();
        let mut at = 0;
        while let Some(n) = memchr_find(&wide[at..(first * 2048) as usize], &pattern) {
            if wide[at + n + 8..].starts_with(b"LINUX") {
                wide[at + n + 2..at + n + 6].copy_from_slice(&to);
            }
            at += n + 1;
        }
    }
    // The volume descriptor knows the length of the medium.
    let sectors = (wide.len() / 2048) as u32;
    wide[16 * 2048 + 80..16 * 2048 + 88].copy_from_slice(&both(sectors));
    look("wide.iso", &wide, "more than 131072 entries");
}

#[test]
fn fat_directories_that_loop_or_are_wide_end() {
    let mut raw = Cursor::new(vec![0; 72 << 20]);
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32).bytes_per_cluster(512);
    fatfs::format_volume(&mut raw, options).unwrap();
    for folder in ["EFI", "EFI/Linux"] {
        raw.set_position(0);
        fatfs::FileSystem::new(&mut raw, fatfs::FsOptions::new()).unwrap().root_dir().create_dir(folder).unwrap();
    }
    let plain = raw.into_inner();
    let linux = {
        let medium = Memory::new(plain.clone());
        Volume::open(&medium).unwrap().find("EFI/Linux").unwrap().unwrap().first_cluster
    };
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([plain[at], plain[at + 1]]));
    let fat_bytes = u32::from_le_bytes(plain[36..40].try_into().unwrap()) as usize * 512;
    let fats = u16_at(14) * 512;
    let data = fats + usize::from(plain[16]) * fat_bytes;
    let link = |volume: &mut Vec<u8>, cluster: u32, next: u32| {
        for copy in 0..usize::from(plain[16]) {
            let at = fats + copy * fat_bytes + cluster as usize * 4;
            volume[at..at + 4].copy_from_slice(&next.to_le_bytes());
        }
    };
    let lab = Lab::new();
    let look = |name: &str, volume: &[u8]| {
        let path = lab.path(name);
        std::fs::write(&path, volume).unwrap();
        let path = path.to_str().unwrap();
        for args in
            [&["inspect", path][..], &["status", path], &["recover", path, "--dry-run"], &["prune", path, "--dry-run"]]
        {
            let outcome = surgeon(args);
            eprintln!("{}", outcome.said.lines().next().unwrap_or_default());
            assert!(outcome.code != 0 || args[0] == "status", "{args:?}: {}", outcome.said);
        }
    };
    let mut looped = plain.clone();
    link(&mut looped, linux, linux);
    look("loop.img", &looped);

    // A million entries of 32 bytes.
    let mut wide = plain.clone();
    let (first, clusters) = (linux + 1000, 1_000_000u32 * 32 / 512);
    link(&mut wide, linux, first);
    for c in first..first + clusters {
        link(&mut wide, c, if c + 1 == first + clusters { 0x0FFF_FFFF } else { c + 1 });
    }
    let at = data + (first as usize - 2) * 512;
    for i in 0..clusters as usize * 16 {
        let entry = &mut wide[at + i * 32..at + i * 32 + 32];
        entry[..11].copy_from_slice(format!("F{i:07}EFI").as_bytes());
        entry[11] = 0x20;
    }
    look("wide.img", &wide);
}

#[test]
fn absurd_section_counts_are_refused() {
    let lab = Lab::new();
    let path = lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let good = std::fs::read(&path).unwrap();
    let pe = u32::from_le_bytes(good[60..64].try_into().unwrap()) as usize;
    let file = lab.path("bad.efi");
    for (at, value) in [(pe + 6, vec![0xFF, 0xFF]), (pe + 6, vec![0xE8, 3]), (pe + 20, vec![0xFF, 0xFF])] {
        let mut bad = good.clone();
        bad[at..at + value.len()].copy_from_slice(&value);
        std::fs::write(&file, bad).unwrap();
        let outcome = surgeon(&["verify", file.to_str().unwrap()]);
        assert_eq!(outcome.code, REJECTED, "{}", outcome.said);
    }
    // As many sections as there may be, each of them over all of a large file: hashed one by one, that would be 8 GiB.
    let mut builder = Builder::new(Arch::Arm64);
    for _ in 0..1000 {
        builder = builder.section(".dtbauto", [1]);
    }
    let mut bad = builder.build();
    bad.resize(8 << 20, 7);
    let table = 64 + 24 + 112 + 128;
    for i in 0..1000 {
        let at = table + i * 40;
        bad[at + 8..at + 12].copy_from_slice(&(8u32 << 20).to_le_bytes());
        bad[at + 16..at + 20].copy_from_slice(&(8u32 << 20).to_le_bytes());
        bad[at + 20..at + 24].copy_from_slice(&0u32.to_le_bytes());
    }
    std::fs::write(&file, bad).unwrap();
    assert_eq!(surgeon(&["verify", file.to_str().unwrap()]).code, REJECTED);
}

/// Whether a byte of a signed image is outside of what the signature covers: CheckSum, the certificate table and its
/// place in the directory.
fn unsigned(head: &Head, at: u64) -> bool {
    let inside = |start: u64, bytes: u64| (start..start + bytes).contains(&at);
    inside(head.checksum_at, 4)
        || head.security_directory_at.is_some_and(|d| inside(d, 8))
        || head.certificate_table.is_some_and(|t| inside(t.offset, t.bytes))
}

/// Whether the digest of these bytes still is the one that was signed.
#[allow(clippy::ptr_arg)] // what can be read at a place is a vector, not a slice
fn as_signed(image: &Vec<u8>) -> bool {
    let digest = Head::read(image).and_then(|head| {
        let mut sink = DigestSink::new(&head)?;
        sink.chunk(image)?;
        sink.finish()
    });
    let Ok(digest) = digest else { return false };
    parse_table(&digest.certificate_table).is_ok_and(|all| all.iter().any(|s| s.digest == digest.sha256))
}

#[test]
fn every_byte_of_the_headers_is_signed() {
    let image = std::fs::read(Lab::new().fixture("talos-v1.12.4-arm64-uki.efi.zst")).unwrap();
    let head = Head::read(&image).unwrap();
    assert!(as_signed(&image));
    for at in (0..1536).filter(|at| !unsigned(&head, *at as u64)) {
        let mut bad = image.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(!as_signed(&bad), "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    /// Any single changed byte that the signature covers is rejected by `verify`, whichever byte and whatever the
    /// change.
    #[test]
    fn a_changed_byte_is_rejected(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let lab = Lab::new();
        let path = lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
        let mut image = std::fs::read(&path).unwrap();
        let head = Head::read(&image).unwrap();
        let at = at.index(image.len());
        prop_assume!(!unsigned(&head, at as u64));
        image[at] ^= flip;
        prop_assert!(!as_signed(&image), "byte {at} ^ {flip}");
        std::fs::write(&path, image).unwrap();
        let cert = fixtures().join("keys/test-signing.crt");
        let outcome = surgeon(&["verify", path.to_str().unwrap(), "--cert", cert.to_str().unwrap()]);
        prop_assert_eq!(outcome.code, REJECTED, "byte {} ^ {}: {}", at, flip, outcome.said);
    }
}
