//! PE headers, sections, the texts of a UKI, its kernel, and the one pass over all of it.
#![no_main]

use bootsurgeon::pe::Head;
use bootsurgeon::uki::{Profiles, analyse, check_layout, kernel_version, probe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let data = data.to_vec();
    let Ok(head) = Head::read(&data) else { return };
    let _ = check_layout(&head);
    let profiles = Profiles::of(&head.sections);
    for profile in 0..profiles.count() {
        let _ =
            (profiles.find(&head.sections, profile, ".cmdline"), profiles.find_own(&head.sections, profile, ".pcrsig"));
    }
    let probed = probe(&data);
    let Ok(uki) = analyse(&data, &mut []) else { return };
    // What reads a little and what reads everything must say the same.
    assert_eq!(probed.expect("analyse could read it").profiles, uki.facts.profiles);
    let _ = (uki.missing_images(), uki.schematic(), uki.facts.version(), uki.facts.stub());
    if let Some(linux) = uki.facts.extent(".linux") {
        let _ = kernel_version(&data, linux);
    }
});
