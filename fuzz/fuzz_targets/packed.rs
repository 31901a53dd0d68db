//! Any bytes as a packed disk image: what it says of itself, and unpacking it within limits.
#![no_main]

use bootsurgeon::block::FileSource;
use bootsurgeon::packed::{Packing, Watch, unpack};
use libfuzzer_sys::fuzz_target;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

thread_local! {
    /// One file for all inputs: to make one takes longer than to look at it.
    static INPUT: File = {
        let path = std::env::temp_dir().join(format!("bootsurgeon-fuzz-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
        std::fs::remove_file(path).expect("it was just made");
        file
    };
}

fuzz_target!(|data: &[u8]| {
    if Packing::detect(&data.to_vec()).ok().flatten().is_none() {
        return;
    }
    let source = INPUT.with(|mut file| {
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(data)).expect("room for a few bytes");
        FileSource::of_file(file.try_clone().expect("a descriptor"), Path::new("input")).expect("a length")
    });
    let watch = Watch { cancelled: &AtomicBool::new(false), progress: &|_, _| {} };
    if let Ok(image) = unpack(&source, watch) {
        let image = image.expect("it is packed");
        assert_eq!(image.packed_bytes(), data.len() as u64);
    }
});
