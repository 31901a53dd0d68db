//! Any bytes as a FAT volume: listed, checked, planned for, recovered.
#![no_main]

use bootsurgeon::block::{Memory, ReadAt};
use bootsurgeon::board::{BoardFiles, Relation, compare};
use bootsurgeon::boot::Variables;
use bootsurgeon::esp::Inventory;
use bootsurgeon::fat::{Health, Volume};
use bootsurgeon::surgery::{recover, rehearse_recovery};
use bootsurgeon_fuzz::files;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let medium = Memory::new(data.to_vec());
    let Ok(volume) = Volume::open(&medium) else { return };
    let _ = (volume.free_bytes(), volume.list("EFI/Linux"), volume.read_small("loader/loader.conf", 4096));
    if let Ok(found) = BoardFiles::read(&volume) {
        let compared = compare((&volume, &found), (&volume, &found)).expect("memory can be read");
        let is_itself = |relation| matches!(relation, Relation::Same | Relation::NotCompared);
        assert!(compared.iter().all(|file| is_itself(file.relation)), "another than itself: {compared:?}");
    }
    let health = Health::check(&volume);
    let before = health.is_ok_and(|h| !h.is_damaged()).then(|| files(&volume));
    if let Ok(mut esp) = Inventory::read(&medium as &dyn ReadAt, Variables::default()) {
        let _ = (esp.refuse_unsafe(), esp.examine(), esp.arch(), esp.rules());
    }
    let rehearsed = rehearse_recovery(&medium, 512);
    let recovered = recover(&medium);
    assert_eq!(rehearsed.as_ref().ok(), recovered.as_ref().ok(), "the rehearsal said something else");
    let Ok(recovery) = recovered else { return };
    let volume = Volume::open(&medium).expect("it was a volume before");
    let after = Health::check(&volume).expect("it could be checked before");
    assert!(after.is_healthy(), "recovered and not healthy: {:?}", after.problems);
    // What recovery may take away belongs to an interrupted operation, and only that.
    if let (None, Some(before)) = (recovery.interrupted, before) {
        assert_eq!(before, files(&volume), "recovery changed a file");
    }
});
