use super::*;
use crate::Kind;
use crate::testkit::uki::{cpio, zstd};
use proptest::prelude::*;
use std::io::Write;

/// As the kernel wants it: checked by CRC32.
fn xz(data: &[u8], preset: u32) -> Vec<u8> {
    xz_by(liblzma::stream::Stream::new_easy_encoder(preset, liblzma::stream::Check::Crc32).unwrap(), data)
}

fn xz_by(stream: liblzma::stream::Stream, data: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn lzma(data: &[u8], preset: u32) -> Vec<u8> {
    let options = liblzma::stream::LzmaOptions::new_preset(preset).unwrap();
    xz_by(liblzma::stream::Stream::new_lzma_encoder(&options).unwrap(), data)
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new().filename("initrd").write(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(data: &[u8]) -> Vec<u8> {
    let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// lz4's legacy format with blocks of literals, which is what its compressor makes of noise.
fn lz4(data: &[u8]) -> Vec<u8> {
    let mut all = 0x184C_2102u32.to_le_bytes().to_vec();
    for block in data.chunks(8 << 20) {
        let mut packed = vec![if block.len() < 15 { (block.len() as u8) << 4 } else { 0xF0 }];
        if let Some(mut rest) = block.len().checked_sub(15) {
            while rest >= 255 {
                packed.push(255);
                rest -= 255;
            }
            packed.push(rest as u8);
        }
        packed.extend(block);
        all.extend((packed.len() as u32).to_le_bytes());
        all.extend(packed);
    }
    all
}

fn coded(coding: Coding, data: &[u8]) -> Vec<u8> {
    let mut packed = match coding {
        Coding::Plain => data.to_vec(),
        Coding::Zstd => zstd(data, 3).unwrap(),
        Coding::Xz => xz(data, 0),
        Coding::Lzma => lzma(data, 0),
        Coding::Gzip => gzip(data),
        Coding::Bzip2 => bzip2(data),
        Coding::Lz4 => lz4(data),
        Coding::Lzo => panic!("lzo is not packed here"),
    };
    // A plain archive behind it has to be aligned.
    packed.resize(packed.len().next_multiple_of(4), 0);
    packed
}

/// Those that are unpacked here.
const CODINGS: [Coding; 7] =
    [Coding::Plain, Coding::Gzip, Coding::Bzip2, Coding::Lzma, Coding::Xz, Coding::Lz4, Coding::Zstd];

fn read(bytes: &[u8]) -> Result<Initrd> {
    read_initrd(bytes, &mut ())
}

fn rejection(bytes: &[u8]) -> String {
    let e = read(bytes).unwrap_err();
    assert_eq!(e.kind(), Kind::Rejected, "{e}");
    e.to_string()
}

/// One entry with a header of its own making.
fn entry(name: &[u8], mode: u32, nlink: u32, data: &[u8]) -> Vec<u8> {
    let mut e = format!("070701{:08x}{mode:08x}{:08x}{:08x}{nlink:08x}{:08x}{:08x}", 1, 0, 0, 0, data.len());
    e += &format!("{:032x}{:08x}{:08x}", 0, name.len() + 1, 0);
    let mut e = e.into_bytes();
    for part in [&[name, b"\0"].concat()[..], data] {
        e.extend(part);
        e.resize(e.len().next_multiple_of(4), 0);
    }
    e
}

fn closed(mut entries: Vec<u8>) -> Vec<u8> {
    entries.extend(entry(b"TRAILER!!!", 0, 1, b""));
    entries
}

/// A base archive and one with extensions, as Talos has them.
fn pair() -> (Vec<u8>, Vec<u8>) {
    let noise: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let base = cpio(&[("init", b"#!"), ("rootfs.sqsh", &noise)]).unwrap();
    let extra =
        cpio(&[("0.sqsh", b"zero"), ("dir/1.sqsh", b"no"), ("extensions.yaml", b"layers: []\n"), ("./2.sqsh", b"")]);
    (base, extra.unwrap())
}

#[test]
fn archives_follow_each_other_in_any_coding() {
    let (base, extra) = pair();
    let microcode = cpio(&[("kernel/x86/microcode/AuthenticAMD.bin", b"mc")]).unwrap();
    for first in CODINGS {
        for second in CODINGS {
            for padding in [0, 4, 508] {
                // Whatever follows lz4 blocks and is not zero is one more to the kernel.
                if first == Coding::Lz4 && padding == 0 {
                    continue;
                }
                let zeros = vec![0; padding];
                let all =
                    [&microcode[..], &zeros, &coded(first, &base), &zeros, &coded(second, &extra), &zeros].concat();
                let initrd = read(&all).unwrap();
                assert_eq!(initrd.archives.len(), 3);
                assert_eq!((initrd.entries(), initrd.unpacked_bytes()), (7, 2 + 2 + 300_000 + 4 + 2 + 11));
                let names: Vec<_> = initrd.squashfs.iter().map(|m| (m.name.as_str(), m.bytes)).collect();
                assert_eq!(names, [("rootfs.sqsh", 300_000), ("0.sqsh", 4), ("2.sqsh", 0)]);
                assert_eq!(initrd.extensions_yaml.as_deref(), Some(&b"layers: []\n"[..]));
                assert!(initrd.notes.is_empty(), "{:?}", initrd.notes);
            }
        }
    }
}

#[test]
fn one_frame_may_hold_several_archives_but_no_entry_spans_frames() {
    let (base, extra) = pair();
    let together = [&base[..], &[0; 512], &extra].concat();
    assert_eq!(read(&zstd(&together, 1).unwrap()).unwrap().archives.len(), 2);

    // Only a plain archive has to be aligned.
    assert_eq!(read(&[&extra[..], &[0; 3], &zstd(&base, 1).unwrap()].concat()).unwrap().archives.len(), 2);

    for at in [1, 50, 111, 200, 70_000, base.len() - 200, base.len() - 1] {
        let (a, b) = base.split_at(at);
        let mut split = ::zstd::encode_all(a, 1).unwrap();
        split.extend(::zstd::encode_all(b, 1).unwrap());
        assert!(rejection(&split).contains("spans several zstd frames"), "{at}");
    }
    // Between entries a frame may end, and the kernel counts anew from there.
    let (a, b) = base.split_at(120);
    let split =
        [::zstd::encode_all(&[a, &[0; 3]].concat()[..], 1).unwrap(), ::zstd::encode_all(b, 1).unwrap()].concat();
    let initrd = read(&split).unwrap();
    assert_eq!((initrd.archives.len(), initrd.entries()), (1, 2));
}

#[test]
fn a_trailer_need_not_be_there() {
    let (base, extra) = pair();
    let cut = |archive: &[u8]| {
        let at = archive.windows(10).rposition(|w| w == b"TRAILER!!!").unwrap() - HEADER;
        archive[..at].to_vec()
    };
    for coding in CODINGS {
        let all = [coded(coding, &cut(&extra)), vec![0; 8], coded(Coding::Zstd, &cut(&base))].concat();
        let initrd = read(&all).unwrap();
        let trailers: Vec<_> = initrd.archives.iter().map(|a| (a.entries, a.trailer)).collect();
        assert_eq!(trailers, [(4, false), (2, false)], "{coding}");
        assert!(read(&coded(coding, &base)).unwrap().archives[0].trailer);
    }
    assert_eq!(read(&[]).unwrap().archives, []);
    assert_eq!(read(&[0; 5000]).unwrap().archives, []);
}

#[test]
fn what_is_not_unpacked_here_is_named() {
    let (base, _) = pair();
    let lzo = b"\x89LZO\0\r\n\x1a\n and more";
    let initrd = read(&[&base[..], lzo].concat()).unwrap();
    assert_eq!(initrd.entries(), 2);
    assert!(initrd.unread.unwrap().contains("reading the lzo archive at byte"));
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
    options.dict_size(128 << 20);
    let large = xz_by(liblzma::stream::Stream::new_lzma_encoder(&options).unwrap(), &base);
    assert!(read(&large).unwrap().unread.unwrap().contains("more than 34 MiB of memory"));
}

#[test]
fn what_tools_pack_is_read() {
    let (base, _) = pair();
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("initrd");
    std::fs::write(&plain, &base).unwrap();
    let tools: [&[&str]; 12] = [
        &["gzip", "-9", "-c"],
        &["gzip", "-n", "-c"],
        &["bzip2", "-c"],
        &["xz", "--format=lzma", "-c"],
        &["xz", "--check=crc32", "-c"],
        &["xz", "--check=none", "-8", "-c"],
        &["xz", "--check=crc32", "--x86", "--lzma2=dict=1MiB", "-c"],
        &["xz", "--check=crc32", "-T2", "--block-size=65536", "-c"],
        &["lz4", "-l", "-c"],
        &["lz4", "-9", "-l", "-c"],
        &["zstd", "-19", "-c"],
        &["zstd", "--ultra", "-20", "-T2", "-c"],
    ];
    for tool in tools {
        let packed = std::process::Command::new(tool[0]).args(&tool[1..]).arg(&plain).output();
        let Ok(packed) = packed else {
            crate::testkit::skipped::skip(&format!("tool missing: {}", tool[0]));
            continue;
        };
        assert!(packed.status.success(), "{tool:?}: {packed:?}");
        let initrd = read(&packed.stdout).unwrap_or_else(|e| panic!("{tool:?}: {e}"));
        assert_eq!((initrd.entries(), initrd.archives[0].trailer), (2, true), "{tool:?}");
    }
    for (tool, why) in [
        (&["xz", "-c"][..], "CRC64"),
        (&["xz", "--check=sha256", "-c"], "SHA-256"),
        (&["xz", "--check=crc32", "--delta=dist=4", "--lzma2", "-c"], "delta"),
        (&["xz", "--check=crc32", "--x86", "--arm", "--lzma2", "-c"], "at most one branch filter"),
        (&["lz4", "-c"], "lz4 -l"),
    ] {
        let Ok(packed) = std::process::Command::new(tool[0]).args(&tool[1..]).arg(&plain).output() else { continue };
        let e = rejection(&packed.stdout);
        // A frame of lz4's newer format begins with other bytes altogether.
        assert!(e.contains(why) || e.contains("begins no archive that the kernel knows"), "{tool:?}: {e}");
    }
}

#[test]
fn the_last_extensions_yaml_at_the_root_counts() {
    let a = cpio(&[("extensions.yaml", b"first"), ("etc/extensions.yaml", b"no")]).unwrap();
    let b = cpio(&[("/.//extensions.yaml", b"second"), ("x/../extensions.yaml", b"no"), ("extensions.yaml/x", b"no")]);
    let initrd = read(&[a, b.unwrap()].concat()).unwrap();
    assert_eq!(initrd.extensions_yaml.as_deref(), Some(&b"second"[..]));
    assert_eq!(initrd.notes, ["several extensions.yaml: the last one counts", "a path with \"..\" in it"]);
}

#[test]
fn links_named_extensions_yaml_are_refused_and_other_kinds_ignored() {
    for (mode, nlink) in [(0o120_777, 1), (0o040_755, 1), (0o100_644, 2)] {
        assert!(rejection(&closed(entry(b"extensions.yaml", mode, nlink, b"x"))).contains("not a regular file"));
    }
    let odd = closed([entry(b"dev/null", 0o020_666, 1, b""), entry(b"1.sqsh", 0o120_777, 1, b"x")].concat());
    assert!(read(&odd).unwrap().squashfs.is_empty());
}

#[test]
fn wanted_members_are_handed_over() {
    struct Take(Vec<u8>);
    impl Members for Take {
        fn wants(&mut self, member: &ArchiveFile) -> bool {
            member.name == "0.sqsh"
        }
        fn data(&mut self, bytes: &[u8]) -> Result<()> {
            self.0.extend(bytes);
            Ok(())
        }
    }
    let (base, extra) = pair();
    let mut take = Take(Vec::new());
    read_initrd(&[zstd(&base, 1).unwrap(), xz(&extra, 0)].concat()[..], &mut take).unwrap();
    assert_eq!(take.0, b"zero");
}

#[test]
fn malformed_archives_are_rejected_with_a_reason() {
    let (base, _) = pair();
    let long_name = closed(entry(&[b'a'; 4096], 0o100_644, 1, b""));
    let mut huge_name = entry(b"a", 0o100_644, 1, b"");
    huge_name[94..102].copy_from_slice(b"ffffffff");
    let mut no_name = huge_name.clone();
    no_name[94..102].copy_from_slice(b"00000000");
    let mut signed = huge_name.clone();
    signed[94..102].copy_from_slice(b"+0000002");
    let mut huge_file = entry(b"a", 0o100_644, 1, b"");
    huge_file[54..62].copy_from_slice(b"ffffffff");
    let mut huge_yaml = entry(b"extensions.yaml", 0o100_644, 1, b"");
    huge_yaml[54..62].copy_from_slice(b"00400001");
    let mut bad_checksum = zstd(&base, 1).unwrap();
    let middle = bad_checksum.len() / 2;
    bad_checksum[middle] ^= 1;
    for (what, bytes, reason) in [
        ("junk", b"hello".to_vec(), "begins no archive that the kernel knows"),
        ("gzip", vec![0x1F, 0x8B, 8, 0], "gzip"),
        ("wrong zstd magic", vec![0x28, 0xB5, 2, 3, 4, 5], ""),
        ("wrong xz magic", vec![0xFD, 0x37, 2, 3, 4, 5, 6, 1, 8, 9, 10, 11, 12], ""),
        ("wrong bzip2 magic", b"BZ1234567890".to_vec(), ""),
        ("cut lz4", lz4(&base)[..1000].to_vec(), "too early"),
        ("junk behind lz4", [lz4(&base), base.clone()].concat(), "after lz4 blocks"),
        ("junk behind", [&base[..], b"junk"].concat(), "begins no archive"),
        ("junk in a frame", zstd(&[&base[..], b"junk"].concat(), 1).unwrap(), "begins no other"),
        ("misaligned", [&base[..], &[0; 5], &base].concat(), "no multiple of 4"),
        ("misaligned in a frame", zstd(&[&base[..], &[0; 6], &base].concat(), 1).unwrap(), "no multiple of 4"),
        ("odc", b"070707".repeat(50), ""),
        ("long name", long_name, "not a newc header"),
        ("huge name", huge_name, "not a newc header"),
        ("no name", no_name, "not a newc header"),
        ("signed number", signed, "not a newc header"),
        ("huge file", huge_file, "too early"),
        ("huge yaml", huge_yaml, "extensions.yaml has 4194305 bytes"),
        ("damaged frame", bad_checksum, ""),
        ("cut frame", zstd(&base, 1).unwrap()[..1000].to_vec(), "too early"),
        ("cut xz", xz(&base, 0)[..1000].to_vec(), ""),
    ] {
        let message = rejection(&bytes);
        assert!(message.contains(reason), "{what}: {message}");
    }
}

#[test]
fn an_initrd_cut_anywhere_is_noticed() {
    let archive = cpio(&[("extensions.yaml", b"layers: []\n"), ("0.sqsh", &[7; 900])]).unwrap();
    let complete = read(&archive).unwrap();
    for coding in CODINGS {
        let whole = coded(coding, &archive);
        for end in (0..whole.len()).filter(|&end| whole[end..].iter().any(|b| *b != 0) || coding == Coding::Plain) {
            match read(&whole[..end]) {
                Err(e) => assert_eq!(e.kind(), Kind::Rejected, "{coding} {end}"),
                // A plain archive that ends behind an entry is one without a trailer.
                Ok(less) => {
                    assert!(coding == Coding::Plain || end == 0, "{coding} {end}");
                    assert!(!less.archives.iter().any(|a| a.trailer), "{end}");
                    assert!(less.entries() < complete.entries() || end % 4 == 0, "{end}");
                }
            }
        }
    }
}

#[test]
fn windows_that_the_kernel_does_not_take_are_refused_and_large_ones_not_unpacked() {
    let archive = cpio(&[("a", b"b")]).unwrap();
    for (log, why) in [(23, None), (25, None), (26, Some("64.0 MiB")), (27, Some("128 MiB")), (28, None), (30, None)] {
        let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(&archive).unwrap();
        encoder.flush().unwrap();
        let packed = encoder.finish().unwrap();
        if log > 27 {
            assert!(rejection(&packed).contains("the kernel takes 128 MiB"), "{log}");
            continue;
        }
        let unread = read(&packed).unwrap().unread;
        assert_eq!(unread.is_some(), why.is_some(), "{log}: {unread:?}");
        assert!(why.is_none_or(|why| unread.unwrap().contains(why)), "{log}");
    }
    assert_eq!(read(&xz(&archive, 8)).unwrap().unread, None);
    assert!(read(&xz(&archive, 9)).unwrap().unread.unwrap().contains("memory"));
}

#[test]
fn bombs_are_refused() {
    let mut zeros = closed(entry(b"a", 0o100_644, 1, &vec![0; 100 << 20]));
    assert!(rejection(&zstd(&zeros, 1).unwrap()).contains("bomb"));
    zeros.truncate(50 << 20);
    assert!(rejection(&zstd(&zeros, 1).unwrap()).contains("too early"));

    let empty = ::zstd::encode_all(&b""[..], 1).unwrap();
    assert!(rejection(&empty.repeat(20_000)).contains("frames"));

    let entries = entry(b"a", 0o100_644, 1, b"").repeat(1_000_001);
    assert!(rejection(&entries).contains("entries"));
    let archives = cpio(&[]).unwrap().repeat(5000);
    assert!(rejection(&archives).contains("archives"));
    let layers: Vec<u8> = (0..2000).flat_map(|i| entry(format!("{i}.sqsh").as_bytes(), 0o100_644, 1, b"")).collect();
    assert!(rejection(&layers).contains("squashfs"));
}

#[test]
fn an_error_of_the_medium_stays_one() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("bad sector"))
        }
    }
    let (base, _) = pair();
    for start in CODINGS.map(|coding| coded(coding, &base)) {
        let cut = &start[..start.len() / 2];
        let e = read_initrd(BufReader::new(cut.chain(Broken)), &mut ()).unwrap_err();
        assert_eq!(e.kind(), Kind::Io, "{e}");
        assert!(e.to_string().contains("bad sector"), "{e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn damage_never_panics(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), coding in 0..7usize) {
        let archive = cpio(&[("extensions.yaml", b"layers: []"), ("0.sqsh", &[7; 300])]).unwrap();
        let mut bytes = coded(CODINGS[coding], &archive);
        bytes.extend(&archive);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = read(&bytes);
    }
}
