#![allow(clippy::unwrap_used)] // statics are not seen to be tests

use super::*;
use crate::block::Sink;
use crate::pe::Head;
use crate::testkit::pe::pe;
use crate::testkit::signing::{SigningKey, sign_pe};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// A way to damage a file or table.
type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::test("bootsurgeon test").unwrap());
static OTHER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::other_test("somebody else").unwrap());

fn plain() -> Vec<u8> {
    pe(&[(".osrel", b"ID=talos\n", 0), (".linux", &[7; 3000], 0), (".initrd", &[9; 700], 0)])
}

/// The digest with the file coming in chunks of `chunk` bytes.
fn digest(file: &[u8], chunk: usize) -> crate::Result<ImageDigest> {
    let mut sink = DigestSink::new(&Head::read(&file.to_vec())?)?;
    for bytes in file.chunks(chunk) {
        sink.chunk(bytes)?;
    }
    sink.finish()
}

/// Whether firmware with `trusted` in its db would take the file.
fn accepted(file: &[u8], trusted: &[&Certificate]) -> bool {
    let Ok(digest) = digest(file, 1 << 16) else { return false };
    let Ok(signatures) = parse_table(&digest.certificate_table) else { return false };
    verify(&signatures, &digest.sha256, trusted).iter().any(SignatureOutcome::is_trusted)
}

#[test]
fn the_digest_leaves_out_checksum_directory_and_table() {
    let mut file = plain();
    file.extend(b"trailing");
    let head = Head::read(&file).unwrap();
    let (checksum, directory) = (head.checksum_at as usize, head.security_directory_at.unwrap() as usize);
    let expected = Sha256::digest([&file[..checksum], &file[checksum + 4..directory], &file[directory + 8..]].concat());
    for chunk in [1, 7, 1000, file.len()] {
        assert_eq!(digest(&file, chunk).unwrap().sha256, *expected);
    }
    let signed = sign_pe(file, &KEY).unwrap();
    for chunk in [1, 999, signed.len()] {
        assert_eq!(digest(&signed, chunk).unwrap().sha256, *expected);
    }
}

#[test]
fn an_unsigned_file_counts_as_padded() {
    let mut file = plain();
    file.extend(b"abc");
    let before = digest(&file, 4096).unwrap();
    assert!(before.unpadded.is_some_and(|d| d != before.sha256));
    assert!(before.certificate_table.is_empty());
    assert_eq!(before.sha256, digest(&sign_pe(file, &KEY).unwrap(), 4096).unwrap().sha256);
}

#[test]
fn a_gap_is_left_out_and_as_much_of_the_end_hashed_twice() {
    let file = pe(&[(".a", &[1; 1024], 0), (".b", &[2; 2048], 512)]);
    let head = Head::read(&file).unwrap();
    let (checksum, directory) = (head.checksum_at as usize, head.security_directory_at.unwrap() as usize);
    let expected = Sha256::digest(
        [
            &file[..checksum],
            &file[checksum + 4..directory],
            &file[directory + 8..2048],
            &file[2560..],
            &file[file.len() - 512..],
        ]
        .concat(),
    );
    for chunk in [1, 500, file.len()] {
        let d = digest(&file, chunk).unwrap();
        assert_eq!((d.sha256, d.gap_bytes), ((*expected).try_into().unwrap(), 512));
    }
}

#[test]
fn layouts_that_firmware_would_not_hash_as_loaded_are_refused() {
    let raw_pointer = |section: usize| 88 + 240 + 40 * section + 20;
    let cases: &[(&str, Damage<'_>)] = &[
        ("over each other", &|f| f[raw_pointer(1)..][..4].copy_from_slice(&1100u32.to_le_bytes())),
        ("in the headers", &|f| f[raw_pointer(0)..][..4].copy_from_slice(&512u32.to_le_bytes())),
        ("table over sections", &|f| {
            f[88 + 112 + 32..][..8].copy_from_slice(&[0, 8, 0, 0, 8, 0, 0, 0]);
        }),
        ("huge table", &|f| {
            let at = f.len() as u32;
            f.resize(f.len() + (2 << 20), 0);
            f[88 + 112 + 32..][..4].copy_from_slice(&at.to_le_bytes());
            f[88 + 112 + 36..][..4].copy_from_slice(&(2u32 << 20).to_le_bytes());
        }),
    ];
    for (what, damage) in cases {
        let mut file = plain();
        damage(&mut file);
        let e = digest(&file, 4096).expect_err(what);
        assert_eq!(e.kind(), crate::Kind::Rejected, "{what}: {e}");
    }
}

#[test]
fn a_short_or_grown_file_is_an_error() {
    let file = plain();
    let head = Head::read(&file).unwrap();
    let mut sink = DigestSink::new(&head).unwrap();
    sink.chunk(&file[1..]).unwrap();
    assert!(sink.finish().is_err());
    let mut sink = DigestSink::new(&head).unwrap();
    sink.chunk(&file[1..]).unwrap();
    assert!(sink.chunk(&[0; 2]).is_err());
}

#[test]
fn trust_is_by_leaf_or_issuer_and_by_nobody_else() {
    let signed = sign_pe(plain(), &KEY).unwrap();
    let (ours, others) = (KEY.certificate().unwrap(), OTHER.certificate().unwrap());
    assert!(accepted(&signed, &[&ours]));
    assert!(accepted(&signed, &[&others, &ours]));
    assert!(!accepted(&signed, &[&others]));
    assert!(!accepted(&signed, &[]));

    let d = digest(&signed, 4096).unwrap();
    let signatures = parse_table(&d.certificate_table).unwrap();
    let [outcome] = &verify(&signatures, &d.sha256, &[&others, &ours])[..] else { panic!("one signature") };
    assert_eq!((outcome.anchor, outcome.chain.len()), (Some(1), 1));
    assert_eq!(signatures[0].signer.subject(), "CN=bootsurgeon test");
    assert!(!signatures[0].signer.expired(std::time::SystemTime::now()));
}

#[test]
fn two_signatures_are_both_found() {
    let signed = sign_pe(sign_pe(plain(), &KEY).unwrap(), &OTHER).unwrap();
    assert!(accepted(&signed, &[&KEY.certificate().unwrap()]));
    assert!(accepted(&signed, &[&OTHER.certificate().unwrap()]));
    assert_eq!(parse_table(&digest(&signed, 4096).unwrap().certificate_table).unwrap().len(), 2);
}

#[test]
fn appending_or_truncating_breaks_a_signature() {
    let signed = sign_pe(plain(), &KEY).unwrap();
    let ours = KEY.certificate().unwrap();
    let mut longer = signed.clone();
    longer.extend([0; 8]);
    assert!(!accepted(&longer, &[&ours]));
    assert!(!accepted(&signed[..signed.len() - 8], &[&ours]));
}

#[test]
fn a_table_must_end_where_it_says() {
    let table = digest(&sign_pe(plain(), &KEY).unwrap(), 4096).unwrap().certificate_table;
    let stated = u32::from_le_bytes([table[0], table[1], table[2], table[3]]) as usize;
    // An entry of 1 byte more than a multiple of 8, whatever the signature's own length: PKCS#7 ends by itself.
    let length = stated.next_multiple_of(8) as u32 + 1;
    let mut table = table[..stated].to_vec();
    table[0..4].copy_from_slice(&length.to_le_bytes());
    table.resize(length as usize + 7, 0);
    assert!(parse_table(&table).is_ok());
    let cases: &[(&str, Damage<'_>)] = &[
        ("no padding", &|t| t.truncate(length as usize)),
        ("bytes left over", &|t| t.extend([0; 4])),
        ("an empty entry", &|t| t.extend([8, 0, 0, 0, 0, 2, 2, 0])),
        ("zeros", &|t| t.extend([0; 16])),
        ("too long", &|t| t[0..4].copy_from_slice(&(length + 100).to_le_bytes())),
        ("huge", &|t| t[0..4].copy_from_slice(&u32::MAX.to_le_bytes())),
        ("revision", &|t| t[5] = 1),
        ("type", &|t| t[6] = 1),
    ];
    for (what, damage) in cases {
        let mut table = table.clone();
        damage(&mut table);
        assert!(parse_table(&table).is_err(), "{what}");
    }
}

#[test]
fn a_signature_for_another_image_does_not_count() {
    let mut signed = sign_pe(plain(), &KEY).unwrap();
    signed[2000] ^= 1;
    let d = digest(&signed, 4096).unwrap();
    let signatures = parse_table(&d.certificate_table).unwrap();
    let ours = KEY.certificate().unwrap();
    let [outcome] = &verify(&signatures, &d.sha256, &[&ours])[..] else { panic!("one signature") };
    assert!(!outcome.digest_matches && outcome.problem.is_none() && outcome.anchor.is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_flipped_byte_in_the_hashed_ranges_is_rejected(at in any::<prop::sample::Index>(), bits in 1u8..) {
        static SIGNED: LazyLock<(Vec<u8>, Vec<usize>)> = LazyLock::new(|| {
            let signed = sign_pe(plain(), &KEY).unwrap();
            let head = Head::read(&signed).unwrap();
            let table = head.certificate_table.unwrap().offset;
            let (sum, dir) = (head.checksum_at, head.security_directory_at.unwrap());
            let hashed = (0..table)
                .filter(|at| !(sum..sum + 4).contains(at) && !(dir..dir + 8).contains(at))
                .map(|at| at as usize)
                .collect();
            (signed, hashed)
        });
        let (signed, hashed) = &*SIGNED;
        let mut file = signed.clone();
        file[*at.get(hashed)] ^= bits;
        prop_assert!(!accepted(&file, &[&KEY.certificate().unwrap()]));
    }

    #[test]
    fn a_damaged_table_never_panics(at in any::<prop::sample::Index>(), bits in 1u8..) {
        static SIGNED: LazyLock<Vec<u8>> = LazyLock::new(|| sign_pe(plain(), &KEY).unwrap());
        let start = Head::read(&*SIGNED).unwrap().certificate_table.unwrap().offset as usize;
        let mut file = SIGNED.clone();
        let at = start + at.index(file.len() - start);
        file[at] ^= bits;
        accepted(&file, &[&KEY.certificate().unwrap()]);
    }

    #[test]
    fn any_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_table(&bytes);
        let _ = Signature::parse(&bytes);
        let _ = Certificate::from_der(&bytes);
    }
}

/// EDK2's `HashPeImage`, step by step over the whole file.
fn edk2(file: &[u8], head: &Head) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    let (checksum, headers) = (head.checksum_at as usize, head.size_of_headers as usize);
    hash.update(file.get(..checksum)?);
    match head.security_directory_at {
        None => hash.update(file.get(checksum + 4..headers)?),
        Some(at) => {
            hash.update(file.get(checksum + 4..at as usize)?);
            hash.update(file.get(at as usize + 8..headers)?);
        }
    }
    let mut sum = headers;
    let mut sections: Vec<_> = head.sections.iter().collect();
    sections.sort_by_key(|s| s.raw.offset);
    for section in sections.iter().filter(|s| s.raw.bytes > 0) {
        let (at, bytes) = (section.raw.offset as usize, section.raw.bytes as usize);
        hash.update(file.get(at..at + bytes)?);
        sum += bytes;
    }
    let table = head.certificate_table.map_or(0, |t| t.bytes as usize);
    hash.update(file.get(sum..file.len().checked_sub(table)?)?);
    Some(hash.finalize().into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_layout_hashes_as_in_edk2_or_is_refused(
        sections in prop::collection::vec((1usize..3000, prop_oneof![4 => Just(0usize), 1 => 1usize..2000]), 1..6),
        trailing in 0usize..40,
        chunk in 1usize..5000,
        sign in any::<bool>(),
        damage in prop::collection::vec((88usize..88 + 240 + 200, any::<u8>()), 0..4),
    ) {
        let data: Vec<Vec<u8>> = sections.iter().enumerate().map(|(i, (n, _))| vec![i as u8 + 1; *n]).collect();
        let pieces: Vec<_> = data.iter().zip(&sections).map(|(d, (_, gap))| (".s", &d[..], *gap)).collect();
        let mut file = pe(&pieces);
        file.extend((0..trailing).map(|i| i as u8));
        if sign {
            file = sign_pe(file, &KEY).unwrap();
        }
        for (at, byte) in damage {
            file[at] = byte;
        }
        if let Ok(head) = Head::read(&file) && let Ok(ours) = digest(&file, chunk) {
            prop_assert_eq!(Some(ours.unpadded.unwrap_or(ours.sha256)), edk2(&file, &head));
        }
    }
}
