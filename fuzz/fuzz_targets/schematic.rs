//! A schematic in YAML: what was accepted has a canonical form that is accepted, too, and means the same.
#![no_main]

use bootsurgeon::factory::Schematic;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    let Ok(schematic) = Schematic::parse(data) else { return };
    let canonical = schematic.canonical();
    let again =
        Schematic::parse(&canonical).unwrap_or_else(|e| panic!("its canonical form is refused: {e}\n{canonical}"));
    assert_eq!(again.canonical(), canonical, "the canonical form of the canonical form is another one");
    assert_eq!(again.id(), schematic.id());
    let _ = (schematic.negates_halt(), schematic.negating_halt().id());
});
