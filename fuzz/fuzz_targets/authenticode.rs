//! The certificate table alone, and the digest of any PE file; what comes out is verified against its own certificates.
#![no_main]

use bootsurgeon::authenticode::{DigestSink, Signature, parse_table, verify};
use bootsurgeon::block::Sink;
use bootsurgeon::pe::Head;
use libfuzzer_sys::fuzz_target;
use std::time::SystemTime;

fn judge(signatures: &[Signature], digest: &[u8; 32]) {
    let certificates: Vec<_> = signatures.iter().map(|s| &s.signer).collect();
    for c in &certificates {
        let _ = (c.subject(), c.issuer(), c.serial(), c.not_after(), c.expired(SystemTime::UNIX_EPOCH));
    }
    for outcome in verify(signatures, digest, &certificates) {
        let _ = (outcome.is_trusted(), outcome.is_sound());
    }
}

fuzz_target!(|data: &[u8]| {
    if !data.starts_with(b"MZ") {
        let _ = Signature::parse(data);
        if let Ok(signatures) = parse_table(data) {
            judge(&signatures, &[0; 32]);
        }
        return;
    }
    let data = data.to_vec();
    let Ok(head) = Head::read(&data) else { return };
    let Ok(mut sink) = DigestSink::new(&head) else { return };
    // The digest does not depend on how the stream is cut.
    let mut pieces = DigestSink::new(&head).expect("as before");
    sink.chunk(&data).expect("hashing memory");
    for piece in data.chunks(61) {
        pieces.chunk(piece).expect("hashing memory");
    }
    let (whole, pieces) = (sink.finish(), pieces.finish());
    assert_eq!(whole.is_ok(), pieces.is_ok());
    if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
        assert_eq!(whole.sha256, pieces.sha256);
        if let Ok(signatures) = parse_table(&whole.certificate_table) {
            judge(&signatures, &whole.sha256);
        }
    }
});
