//! Any bytes as the image of an extension: which services in it wait for configuration.
#![no_main]

use bootsurgeon::uki::read_initrd;
use libfuzzer_sys::fuzz_target;

/// A newc entry of a regular file.
fn entry(name: &str, data: &[u8]) -> Vec<u8> {
    let mut e = format!("070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}", 1, 0o100_644, 0, 0, 1, 0, data.len());
    e += &format!("{:032x}{:08x}{:08x}{name}\0", 0, name.len() + 1, 0);
    let mut e = e.into_bytes();
    e.resize(e.len().next_multiple_of(4), 0);
    e.extend(data);
    e.resize(e.len().next_multiple_of(4), 0);
    e
}

fuzz_target!(|data: &[u8]| {
    let initrd = [entry("0.sqsh", data), entry("TRAILER!!!", b"")].concat();
    let initrd = read_initrd(&initrd[..], &mut ()).expect("an archive with one file");
    let services = &initrd.services["0.sqsh"];
    assert!(services.waiting.len() <= 64);
});
