//! Whatever a user names as an image: what it is, and the UKIs in it.
#![no_main]

use bootsurgeon::image::{ImageKind, compare_twins, locate};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let data = data.to_vec();
    let _ = ImageKind::detect(&data);
    let Ok(found) = locate(Arc::new(data)) else { return };
    for candidate in &found.candidates {
        let _ = (candidate.to_string(), compare_twins(candidate));
    }
});
