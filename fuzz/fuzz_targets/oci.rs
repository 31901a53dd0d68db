//! OCI images as archives: tar, index, manifests, layers.
//!
//! Input: the archive as it is; or, behind a byte 0xFE, the text of an index, a byte 0xFF, and a layer: an archive is
//! made of them in which every digest is right.
#![no_main]

use bootsurgeon::oci;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::sync::atomic::AtomicBool;

fn archive(index: &[u8], layer: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let _ = tar.append_data(&mut header, name, bytes);
    };
    let digest = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let kinds = ["application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+zstd"];
    let kind = kinds[usize::from(layer.first().is_some_and(|b| *b == 0x28))];
    let manifest = format!(
        "{{\"schemaVersion\":2,\"layers\":[{{\"mediaType\":\"{kind}\",\"digest\":\"sha256:{}\",\"size\":{}}}]}}",
        digest(layer),
        layer.len()
    );
    let usual = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:{}\",\"size\":{},\"platform\":{{\"os\":\"linux\",\"architecture\":\"arm64\"}}}}]}}",
        digest(manifest.as_bytes()),
        manifest.len()
    );
    add("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}");
    add("index.json", if index.is_empty() { usual.as_bytes() } else { index });
    add(&format!("blobs/sha256/{}", digest(manifest.as_bytes())), manifest.as_bytes());
    add(&format!("blobs/sha256/{}", digest(layer)), layer);
    tar.into_inner().unwrap_or_default()
}

fuzz_target!(|data: &[u8]| {
    let made;
    let bytes = match data.split_first() {
        Some((0xFE, rest)) => {
            let cut = rest.iter().position(|b| *b == 0xFF).unwrap_or(rest.len());
            made = archive(&rest[..cut], rest.get(cut + 1..).unwrap_or_default());
            &made[..]
        }
        _ => data,
    };
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room");
    let Ok(Some(ukis)) = oci::open(file.path(), None, &AtomicBool::new(false)) else { return };
    assert!(ukis.iter().all(|uki| !uki.path.is_empty()));
});
