//! What the tests over whole commands cannot see: holes, headers, indices. `tests/packed.rs` has the real tools.

use super::*;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 1).unwrap()
}

fn xz(content: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn file(content: &[u8]) -> FileSource {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    FileSource::of_file(file, Path::new("packed")).unwrap()
}

fn quiet(cancelled: &AtomicBool) -> Watch<'_> {
    Watch { cancelled, progress: &|_, _| {} }
}

fn unpacked(content: &[u8]) -> Result<Vec<u8>> {
    let image = unpack(&file(content), quiet(&AtomicBool::new(false)))?.expect("it is packed");
    assert_eq!(image.packed_bytes(), content.len() as u64);
    Ok(read_vec(&**image.source(), 0, image.source().size() as usize)?)
}

/// Data, zeros that are whole pages, zeros that are not, and an end inside a page.
fn image() -> Vec<u8> {
    let mut image = vec![7; 5000];
    image.resize(3 << 20, 0);
    image.extend([9; 4097]);
    image.resize(image.len() + 100_001, 0);
    image
}

#[test]
fn what_was_packed_comes_out_again() {
    let image = image();
    let padded = |bytes: Vec<u8>, zeros: usize| [bytes, vec![0; zeros]].concat();
    let skippable = [&b"\x5A\x2A\x4D\x18\x03\0\0\0abc"[..], &zstd(&image)].concat();
    for (what, packed) in [
        ("zstd", zstd(&image)),
        ("zstd, two frames", [zstd(&image[..70_000]), zstd(&image[70_000..])].concat()),
        ("zstd behind a skippable frame", skippable.clone()),
        ("zstd before a skippable frame", [zstd(&image), skippable[..11].to_vec()].concat()),
        ("xz", xz(&image)),
        ("xz, padded", padded(xz(&image), 8)),
        ("xz, two streams", [padded(xz(&image[..70_000]), 200_000), xz(&image[70_000..])].concat()),
        ("xz, and an empty stream", [xz(&image), xz(b"")].concat()),
    ] {
        assert!(unpacked(&packed).unwrap_or_else(|e| panic!("{what}: {e}")) == image, "{what}");
    }
    assert!(unpack(&file(&image), quiet(&AtomicBool::new(false))).unwrap().is_none());
    assert!(unpack(&file(b""), quiet(&AtomicBool::new(false))).unwrap().is_none());
}

#[test]
fn zeros_become_holes_and_stay_so() {
    let (never, place) = (AtomicBool::new(false), Folder { dir: "here".into(), advice: String::new() });
    let stored = |file: &File| file.metadata().unwrap().blocks() * 512;
    let content = image();
    for source in [file(&zstd(&content)), file(&xz(&content)), file(&content)] {
        let first = tempfile::tempfile().unwrap();
        copy(&source, &first, &place, quiet(&never)).unwrap();
        let raw = FileSource::of_file(first, Path::new("raw")).unwrap();
        let second = tempfile::tempfile().unwrap();
        copy(&raw, &second, &place, quiet(&never)).unwrap();
        for file in [raw.file(), &second] {
            assert!(stored(file) <= 4 * 4096, "{} bytes", stored(file));
        }
        let second = FileSource::of_file(second, Path::new("raw")).unwrap();
        assert!(read_vec(&second, 0, content.len()).unwrap() == content && second.size() == content.len() as u64);
    }
}

#[test]
fn packing_and_unpacking_are_inverse() {
    let (never, place) = (AtomicBool::new(false), Folder { dir: "here".into(), advice: String::new() });
    for content in [image(), Vec::new()] {
        for packing in [Packing::Zstd, Packing::Xz] {
            let out = tempfile::tempfile().unwrap();
            pack(&file(&content), packing, &out, &place, quiet(&never)).unwrap();
            let packed = FileSource::of_file(out, Path::new("packed")).unwrap();
            assert_eq!(Packing::detect(&packed).unwrap(), Some(packing));
            assert!(unpacked(&read_vec(&packed, 0, packed.size() as usize).unwrap()).unwrap() == content);
        }
    }
}

#[test]
fn what_is_broken_is_rejected() {
    let content = image();
    let mut lie = xz(&vec![0; 4 << 20]);
    // The record's second number, 4 MiB in seven bits a byte, becomes 2 MiB. (The index' checksum comes too late.)
    let at = lie.windows(4).rposition(|w| w == b"\x80\x80\x80\x02").unwrap();
    lie[at + 3] = 1;
    let mut bit = zstd(&content);
    let middle = bit.len() / 2;
    bit[middle] ^= 4;
    for (what, bytes, why) in [
        ("zstd, cut", zstd(&content)[..30].to_vec(), "too early"),
        ("zstd, a bit", bit, "not a valid zstd"),
        ("zstd, more behind it", [zstd(&content), b"garbage".to_vec()].concat(), "not a valid zstd"),
        ("zstd, zeros behind it", [zstd(&content), vec![0; 16]].concat(), "not a valid zstd"),
        ("xz, cut", xz(&content)[..200].to_vec(), "no xz stream ends here"),
        ("xz, cut short", xz(&content)[..20].to_vec(), "no xz stream ends here"),
        ("xz, header alone", xz(&content)[..12].to_vec(), "no xz stream ends here"),
        ("xz, more behind it", [xz(&content), b"garbage".to_vec()].concat(), "no xz stream ends here"),
        ("xz, odd padding", [xz(&content), vec![0; 3]].concat(), "no xz stream ends here"),
        ("xz, front cut", [XZ, &xz(&content)[100..]].concat(), "do not fit in front of it"),
        (
            "xz, a second header",
            [xz(&content), vec![1; 12], xz(&content)[12..].to_vec()].concat(),
            "no xz stream begins",
        ),
        ("xz, more than its index says", lie, "more than the 2.0 MiB (2097152 bytes) that"),
        ("gzip", b"\x1F\x8B\x08\0\0\0\0\0".to_vec(), "packed with gzip"),
        ("bzip2", b"BZh91AY&SY".to_vec(), "packed with bzip2"),
    ] {
        let e = unpacked(&bytes).map(|b| b.len()).expect_err(what);
        assert!(e.kind() == Kind::Rejected && e.to_string().contains(why) && e.advice().is_some(), "{what}: {e}");
    }
}

#[test]
fn bombs_are_refused_by_what_they_say() {
    // A header alone: single segment, eight bytes of content size, 1 TiB.
    let e = unpacked(&[ZSTD, &[0b1110_0000], &(1u64 << 40).to_le_bytes()].concat()).unwrap_err();
    assert!(e.to_string().contains("unpacks to 1024 GiB"), "{e}");
    // A window of 128 MiB (exponent 17), of 48 MiB (15, and four eighths), and one of 32 MiB.
    for (window, why) in [(17 << 3, "128 MiB"), (15 << 3 | 4, "48.0 MiB"), (15 << 3, "too early")] {
        let e = unpacked(&[ZSTD, &[0, window]].concat()).unwrap_err();
        assert!(e.to_string().contains(why), "{e}");
    }
    // A dictionary of 64 MiB, and so much to look for in it.
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(options.dict_size(64 << 20));
    let stream = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).unwrap();
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new_stream(&vec![7; 40 << 20][..], stream).read_to_end(&mut packed).unwrap();
    let e = unpacked(&packed).map(|b| b.len()).unwrap_err();
    assert!(e.to_string().contains("34 MiB is the limit"), "{e}");
    // So many streams that their indices alone would take a while.
    let e = unpacked(&xz(b"").repeat(70_000)).map(|b| b.len()).unwrap_err();
    assert!(e.to_string().contains("65536 xz streams"), "{e}");
}

#[test]
fn a_dictionary_is_no_larger_than_what_is_in_the_file() {
    let image = image();
    for (dictionary, check) in [
        (64 << 20, liblzma::stream::Check::Crc32),
        (1 << 30, liblzma::stream::Check::Crc64),
        (4096, liblzma::stream::Check::Sha256),
    ] {
        let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
        let mut filters = liblzma::stream::Filters::new();
        filters.x86().lzma2(options.dict_size(dictionary));
        let stream = liblzma::stream::Stream::new_stream_encoder(&filters, check).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(&image).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(unpacked(&packed).unwrap() == image, "{dictionary}");
        // What is damaged is damaged all the same.
        for at in [12, 13, 14, 16, 20] {
            let mut bad = packed.clone();
            bad[at] ^= 0x10;
            assert!(unpacked(&bad).is_err(), "{dictionary} {at}");
        }
    }
}

#[test]
fn what_no_header_says_is_counted() {
    // Zeros in many frames, the first of which says no more than its own length.
    let frame = zstd(&vec![0; 1 << 20]);
    let (stop, place) = (AtomicBool::new(false), Folder { dir: std::env::temp_dir(), advice: String::new() });
    for (frames, fits) in [(64, true), (65, false)] {
        let (out, source) = (tempfile::tempfile().unwrap(), file(&frame.repeat(frames)));
        let to = Sparse::new(&out, &place);
        let done = decode::unpack_at_most(&source, Packing::Zstd, to, quiet(&stop), 64 << 20);
        match done {
            Ok(()) => assert!(fits),
            Err(e) => assert!(!fits && e.to_string().contains("it unpacks to more than"), "{e}"),
        }
    }
}

#[test]
fn names_say_how_a_copy_is_packed() {
    for (name, packing) in [
        ("a.raw", None),
        ("zst", None),
        ("a.raw.zst", Some(Packing::Zstd)),
        ("a.ZSTD", Some(Packing::Zstd)),
        ("d.zst/a.xz", Some(Packing::Xz)),
        ("a.xz.img", None),
    ] {
        assert_eq!(Packing::of_name(Path::new(name)).unwrap(), packing, "{name}");
    }
    for name in ["a.raw.gz", "a.7z", "a.qcow2"] {
        assert_eq!(Packing::of_name(Path::new(name)).unwrap_err().kind(), Kind::Usage, "{name}");
    }
}

#[test]
fn it_stops_when_told_to() {
    let (stop, place) = (AtomicBool::new(true), Folder { dir: "here".into(), advice: String::new() });
    let out = tempfile::tempfile().unwrap();
    let content = image();
    for outcome in [
        unpack(&file(&zstd(&content)), quiet(&stop)).map(|_| ()),
        copy(&file(&content), &out, &place, quiet(&stop)),
        pack(&file(&content), Packing::Xz, &out, &place, quiet(&stop)),
    ] {
        assert_eq!(outcome.unwrap_err().kind(), Kind::Cancelled);
    }
}
