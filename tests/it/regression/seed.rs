//! `loader/random-seed`, which the firmware writes at every start.

use super::recovery::{Overlay, STAMP, files, formatted, interrupted, with_files};
use super::reports::findings;
use crate::cli::{ESP, patch, put};
use crate::support::{Lab, fsck_clean, sha256, tools};
use bootsurgeon::fat::{Editor, Health, RANDOM_SEED, Volume};
use bootsurgeon::surgery::recover;
use serde_json::json;
use std::path::Path;

/// What the firmware's write may leave of `loader/random-seed`.
#[derive(Debug, Clone, Copy)]
enum Seed {
    Length(usize),
    /// First cluster 0, and a length.
    NoCluster,
    /// A chain that is longer than the file.
    LongChain,
    /// Its entry in the table is free.
    FreeCluster,
    /// It begins where the image begins.
    InTheImage,
    /// It begins behind the last cluster.
    Outside,
}

/// systemd/systemd#42979: `loader/random-seed` is written by the firmware at every start, and damaged by it.
#[test]
fn rsystemd_42979_a_damaged_random_seed_is_said_and_removed() {
    if !tools(&["mcopy", "mdir", "fsck.fat"]) {
        return;
    }
    use Seed::{FreeCluster, InTheImage, Length, LongChain, NoCluster, Outside};
    for seed in [Length(0), Length(31), Length(40_000), NoCluster, LongChain, FreeCluster, InTheImage, Outside] {
        let lab = Lab::new();
        let disk = lab.fixture("disk-512.img.zst");
        let length = if let Length(n) = seed { n } else { 32 };
        put(&disk, ESP, "loader/random-seed", &vec![0xA5; length]);
        damage(&disk, seed);
        let image = lab.fixture("talos-v1.12.4-arm64-installer.efi.zst");
        let report = bootsurgeon!("status", disk, "--json").code(0).json();
        let is_damage = !matches!(seed, Length(_));
        assert_eq!(report["esp"]["healthy"], !is_damage, "{seed:?}: {report:#}");
        let id = if is_damage { "fat-damaged" } else { "unusable-random-seed" };
        let [finding] = &findings(&report, id)[..] else { panic!("{seed:?}: {report:#}") };
        let action = finding["action"].as_str().unwrap();
        assert!(action.contains("`bootsurgeon recover "), "{seed:?}: {action}");
        let text = finding.to_string();
        assert!(text.contains("loader/random-seed") && text.contains("goes on without"), "{seed:?}: {text}");
        assert!(!text.contains("fsck.fat"), "{seed:?}: {text}");
        if is_damage {
            for how in ["--dry-run", "--yes"] {
                bootsurgeon!("swap", disk, image, how).fails(4, &["random-seed", "run `recover` first"]);
            }
        } else {
            bootsurgeon!("swap", disk, image, "--dry-run").code(0);
        }
        let hash = sha256(&disk);
        let told = bootsurgeon!("recover", disk, "--dry-run", "--json").code(0).json();
        assert_eq!(sha256(&disk), hash, "{seed:?}: a dry run wrote");
        let done = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
        assert_eq!(told["actions"], done["actions"], "{seed:?}");
        assert!(done["actions"].to_string().contains("removed loader/random-seed"), "{seed:?}: {done:#}");
        let report = bootsurgeon!("status", disk, "--json").code(0).json();
        assert_eq!(
            (&report["esp"]["healthy"], &report["boot"]["selected"]),
            (&true.into(), &"Talos-v1.12.4.efi".into())
        );
        assert!(!report["findings"].to_string().contains("random-seed"), "{seed:?}: {report:#}");
        // A chain that is nobody's any more stays until somebody decides.
        bootsurgeon!("recover", disk, "--free-lost", "--yes").code(0);
        fsck_clean(&disk, ESP);
        let again = bootsurgeon!("recover", disk, "--yes", "--json").code(0).json();
        assert_eq!(again["actions"], json!([]), "{seed:?}: {again:#}");
        bootsurgeon!("swap", disk, image, "--yes").code(0);
    }
}

/// A sound seed stays, and damage elsewhere is not taken for the seed's.
#[test]
fn rsystemd_42979_a_sound_random_seed_stays_and_other_damage_is_not_its() {
    if !tools(&["mcopy", "mdir"]) {
        return;
    }
    for (length, other) in [(32, false), (512, false), (32 * 1024, false), (32, true)] {
        let lab = Lab::new();
        let disk = lab.fixture("disk-512.img.zst");
        put(&disk, ESP, "loader/random-seed", &vec![0xA5; length]);
        if other {
            put(&disk, ESP, "loader/other", &[1; 32]);
            damage(&disk, Seed::FreeCluster);
            damage_file(&disk, b"OTHER      ", Seed::NoCluster);
        }
        let report = bootsurgeon!("status", disk, "--json").code(0).json();
        assert!(findings(&report, "unusable-random-seed").is_empty(), "{report:#}");
        let hash = sha256(&disk);
        let ran = bootsurgeon!("recover", disk, "--yes", "--json");
        assert_eq!((ran.code, sha256(&disk) == hash), (if other { 4 } else { 0 }, true), "{ran:?}");
        if other {
            // Of the library, too: nothing goes before it is known that the rest is sound.
            let esp = crate::cli::bytes_at(&disk, ESP, 48 << 20);
            let medium = Overlay::new(&esp);
            recover(&medium).unwrap_err();
            assert_eq!(medium.writes(), 0);
        }
    }
}

fn damage(disk: &Path, seed: Seed) {
    // The one name with a digit in its end is the short name of the long one.
    damage_file(disk, b"RANDOM~1   ", seed);
}

fn damage_file(disk: &Path, short: &[u8; 11], seed: Seed) {
    let esp = crate::cli::bytes_at(disk, ESP, 32 << 20);
    let entry = |short: &[u8; 11]| {
        let at = (0..esp.len()).step_by(32).find(|at| esp[*at..].starts_with(short) && esp[at + 11] & 0x18 == 0);
        at.unwrap_or_else(|| panic!("no entry {short:?}")) as u64
    };
    let at = entry(short);
    let half = |at: u64| u32::from(u16::from_le_bytes([esp[at as usize], esp[at as usize + 1]]));
    let field = |at: usize, n: usize| esp[at..at + n].iter().rev().fold(0u64, |all, b| all << 8 | u64::from(*b));
    let (sector, reserved) = (field(11, 2), field(14, 2));
    let fats = [0, 1].map(|n| ESP + (reserved + n * field(36, 4)) * sector);
    let first = u64::from(half(at + 20) << 16 | half(at + 26));
    let link = |cluster: u64, to: u32| fats.iter().for_each(|fat| patch(disk, fat + cluster * 4, &to.to_le_bytes()));
    let begin = |cluster: u32| {
        patch(disk, ESP + at + 26, &(cluster as u16).to_le_bytes());
        patch(disk, ESP + at + 20, &((cluster >> 16) as u16).to_le_bytes());
    };
    match seed {
        Seed::Length(_) => {}
        Seed::NoCluster => begin(0),
        Seed::LongChain => {
            let table = fats[0] - ESP;
            let free = (first + 1..).find(|n| field((table + n * 4) as usize, 4) == 0).unwrap();
            link(first, free as u32);
            link(free, 0x0FFF_FFFF);
        }
        Seed::FreeCluster => link(first, 0),
        Seed::InTheImage => {
            let image = entry(b"TALOS-~1EFI");
            begin(half(image + 20) << 16 | half(image + 26));
        }
        Seed::Outside => begin(0x0FFF_FF00),
    }
}

/// systemd/systemd#42979: the seed goes, the power may go with it, and every other file stays.
#[test]
fn rsystemd_42979_removing_the_seed_may_be_cut_at_any_write() {
    for (kind, state) in [(fatfs::FatType::Fat12, false), (fatfs::FatType::Fat16, true)] {
        let volume = with_files(&formatted(kind, if state { 4 << 20 } else { 1 << 20 }));
        let volume = if state { interrupted(&volume) } else { volume };
        let expected = Overlay::new(&volume);
        recover(&expected).unwrap();
        let expected = files(&expected);
        // Empty, too long; and first clusters that lead to nothing, into another file, behind the end.
        for (length, first) in [(0, None), (40_000, None), (32, Some(900)), (32, Some(3)), (32, Some(0xFFF0))] {
            let medium = Overlay::new(&volume);
            let mut editor = Editor::open(&medium).unwrap();
            editor.make_directories("loader", STAMP).unwrap();
            editor.make_file("loader", "random-seed", &vec![0xA5; length], STAMP).unwrap();
            let entry = editor.volume().find(RANDOM_SEED).unwrap().unwrap();
            let at = editor.directory("loader").unwrap().offset_of(entry.short_slot()).unwrap() as usize;
            let mut damaged = medium.to_bytes();
            if let Some(first) = first {
                damaged[at + 26..at + 28].copy_from_slice(&u16::to_le_bytes(first));
            }
            let medium = Overlay::new(&damaged);
            recover(&medium).unwrap();
            let writes = medium.writes();
            for cut in 0..=2 * writes {
                let medium = Overlay::cut_after(&damaged, cut);
                let _ = recover(&medium);
                let after = medium.to_bytes();
                let again = Overlay::new(&after);
                recover(&again).unwrap_or_else(|e| panic!("{length} {first:?}, cut after {cut}: {e}"));
                assert!(files(&again) == expected, "{length} {first:?}, cut after {cut}: files differ");
                let health = Health::check(&Volume::open(&again).unwrap()).unwrap();
                assert!(health.is_healthy(), "{length} {first:?}, cut after {cut}: {:?}", health.problems);
                assert!(first.is_some() || health.lost.is_empty(), "{length}, cut after {cut}: clusters are lost");
            }
        }
    }
}
