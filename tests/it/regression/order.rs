//! Between the steps of a plan the menu is another one: in every state that a power cut can leave, the board starts the
//! old image or the new one, by the project's own prediction, in every future. The power is cut after every sector, in
//! the operation and in the recovery from it.

mod esp;

use bootsurgeon::block::read_vec;
use bootsurgeon::boot::Variables;
use bootsurgeon::esp::Inventory;
use bootsurgeon::fat::Volume;
use bootsurgeon::plan::{PruneOptions, PrunePlan};
use esp::{
    Esp, NOTHING_TO_DO, Operation, Random, Recorder, SECTOR, STAMP, Start, dead, foreign, image, list, starts, utf16,
    with_profile,
};

use bootsurgeon::Code;
use std::cell::RefCell;

// ---- the shapes of the report
// ------------------------------------------------------------------------------------------

#[test]
fn issue11_1_restore_of_an_older_version_beside_a_duplicate() {
    let mut esp = Esp::new(&[("Talos-v1.12.4.efi", "v1.12.4"), ("Talos-v1.12.4~1.efi", "v1.12.4")]);
    esp.add("Talos-v1.12.4.efi.bak.1770000000", &image("v1.11.0", 1));
    // It has to start what it has started.
    esp.variables.default = Some(utf16("Talos-v1.12.4.efi"));
    let plan = esp.prove(&Operation::Restore(0)).expect("there is a safe order");
    assert_eq!(plan, ["Talos-v1.12.4~1.efi"], "leaves before the commit");
    // Without the pin as well: 1.12.4 wins over its duplicate, which wins over 1.11.0.
    esp.variables.default = None;
    esp.prove(&Operation::Restore(0)).expect("there is a safe order");
}

#[test]
fn issue11_1_restore_of_an_older_version_beside_a_dead_duplicate() {
    let mut esp = Esp::new(&[("Talos-v1.12.4.efi", "v1.12.4")]);
    esp.add("Talos-v1.12.4~1.efi", &dead("v1.12.4"));
    esp.add("Talos-v1.12.4.efi.bak.1770000000", &image("v1.11.0", 1));
    esp.prove(&Operation::Restore(0)).expect("there is a safe order");
    esp.variables.default = Some(utf16("Talos-v1.12.4.efi"));
    esp.prove(&Operation::Restore(0)).expect("there is a safe order");
}

#[test]
fn issue11_1_swap_of_the_same_name_to_an_older_version() {
    let mut esp = Esp::new(&[("Talos-v1.12.4.efi", "v1.12.4"), ("Talos-v1.12.4~1.efi", "v1.12.4")]);
    let swap = |version: &str| Operation::Swap {
        image: image(version, 9),
        target: Some("Talos-v1.12.4.efi".into()),
        keep_duplicates: false,
        keep_backups: None,
    };
    esp.prove(&swap("v1.11.0")).expect("there is a safe order");
    esp.add("Talos-v1.12.3~2.efi", &dead("v1.12.3"));
    esp.variables.default = Some(utf16("Talos-v1.12.4.efi"));
    let plan = esp.prove(&swap("v1.11.0")).expect("there is a safe order");
    assert_eq!(plan.len(), 2, "{plan:?}");
}

#[test]
fn issue11_1_restore_after_a_swap_to_another_name_and_an_upgrade() {
    // `swap --target Talos.efi` replaced 1.11.0 by 1.12.4; then `talosctl upgrade` left another file of that version.
    let mut esp = Esp::new(&[("Talos.efi", "v1.12.4"), ("Talos-v1.12.4.efi", "v1.12.4")]);
    esp.add("Talos.efi.bak.1770000000", &image("v1.11.0", 1));
    for pin in [None, Some(utf16("Talos.efi"))] {
        esp.variables.default = pin;
        esp.prove(&Operation::Restore(0)).expect("there is a safe order");
    }
}

#[test]
fn issue11_1_no_order_is_a_refusal_that_names_the_state() {
    // Each of the two starts in one of the scenarios, and both would win over the new image under its name.
    let mut esp = Esp::new(&[("Talos-v1.13.0.efi", "v1.13.0"), ("Talos-v1.12.4.efi", "v1.12.4")]);
    esp.variables.default = Some(utf16("Talos-v1.12.4.efi"));
    let swap = Operation::Swap {
        image: image("v1.11.0", 9),
        target: Some("Talos-v1.11.0.efi".into()),
        keep_duplicates: false,
        keep_backups: None,
    };
    let e = esp.prove(&swap).unwrap_err();
    assert_eq!(e.code(), Code::WouldNotBoot);
    let text = e.to_string();
    assert!(text.contains("would start Talos-v1.1") && text.contains("instead of"), "{text}");
}

#[test]
fn rbootc_2228_prune_takes_the_dead_entry_that_starts_next() {
    let mut esp = Esp::new(&[("Talos-v1.12.4.efi", "v1.12.4")]);
    esp.add("Talos-v1.13.0.efi", &dead("v1.13.0"));
    for (delete, no_fallback) in [(false, false), (true, false), (true, true)] {
        let prune = Operation::Prune { delete, keep_backups: None, no_fallback };
        esp.prove(&prune).unwrap();
        let inventory = Inventory::read(&esp.disk, esp.variables.clone()).unwrap();
        let options = PruneOptions { delete, keep_backups: None, no_fallback, time: STAMP.0 };
        let plan = PrunePlan::make(&inventory, &options).unwrap();
        let leaves: Vec<&String> = plan.delete.iter().chain(plan.renames.iter().map(|r| &r.from)).collect();
        assert_eq!(leaves, ["Talos-v1.13.0.efi"], "the sound image stays");
        assert_eq!(plan.boot_before.as_deref(), Some("Talos-v1.13.0.efi"));
        assert_eq!(plan.boot.as_deref(), Some("Talos-v1.12.4.efi"));
    }
}

#[test]
fn issue11_1_a_file_that_a_type1_entry_starts_stays() {
    let mut esp = Esp::new(&[("Talos-v1.12.4.efi", "v1.12.4"), ("Talos-v1.11.0~2.efi", "v1.11.0")]);
    esp.type1("title pinned\nsort-key a\nefi /EFI/Linux/talos-v1.11.0~2.efi\n");
    for delete in [false, true] {
        let prune = Operation::Prune { delete, keep_backups: None, no_fallback: true };
        let before = starts(&Inventory::read(&esp.disk, esp.variables.clone()).unwrap());
        assert_eq!(before[0], Start::Entry("other.conf".into()));
        esp.prove(&prune).unwrap();
    }
}

// ---- drawn menus
// -------------------------------------------------------------------------------------------------------

#[test]
fn issue11_1_every_state_of_drawn_operations_starts_the_old_image_or_the_new_one() {
    // `ORDER_SEEDS=17..18` repeats one, `ORDER_SEEDS=0..5000` takes minutes.
    let seeds = std::env::var("ORDER_SEEDS").unwrap_or_else(|_| "0..150".to_owned());
    let (first, end) = seeds.split_once("..").unwrap();
    let (mut done, mut refused, mut nothing_to_do) = (0, 0, 0);
    for seed in first.parse::<u64>().unwrap()..end.parse().unwrap() {
        let mut random = Random(seed);
        let (esp, operation) = draw(&mut random);
        match std::panic::catch_unwind(|| esp.prove(&operation)) {
            Err(_) => panic!("seed {seed}: ORDER_SEEDS={seed}..{}\n{operation:?}\n{}", seed + 1, esp.describe()),
            Ok(Ok(renamed)) if renamed == [NOTHING_TO_DO] => nothing_to_do += 1,
            Ok(Ok(_)) => done += 1,
            Ok(Err(e)) => {
                assert!(matches!(e.code(), Code::WouldNotBoot | Code::Usage), "seed {seed}: {e}");
                refused += 1;
            }
        }
    }
    println!("{done} operations, {refused} refused, {nothing_to_do} with nothing to do");
    assert!(end.parse::<u64>().unwrap() < 100 || done > refused, "{done} operations, {refused} refused");
}

/// A menu and what to do with it.
fn draw(random: &mut Random) -> (Esp, Operation) {
    const VERSIONS: [&str; 4] = ["v1.11.0", "v1.12.3", "v1.12.4", "v1.13.0"];
    let loader = random.pick(&["252.4", "254.1", "257.9-talos", "258", "260", "262.1"]);
    let mut esp = Esp::with_loader(loader);
    let mut names = Vec::new();
    for n in 0..1 + random.below(5) {
        let version = random.pick(&VERSIONS);
        let name = match random.below(8) {
            0 => "Talos.efi".to_owned(),
            1 | 2 => format!("Talos-{version}~{}.efi", 1 + random.below(2)),
            3 => format!("Talos-{version}+{}.efi", random.below(4)),
            4 => format!("Talos-{}.efi", random.pick(&VERSIONS)),
            _ => format!("Talos-{version}.efi"),
        };
        let content = match random.below(8) {
            0 | 1 => dead(version),
            2 => foreign(version),
            3 => with_profile(version, n as u8),
            _ => image(version, n as u8),
        };
        if esp.add(&name, &content) {
            names.push(name);
        }
    }
    for n in 0..random.below(4) {
        let original = match random.below(3) {
            0 => format!("Talos-{}.efi", random.pick(&VERSIONS)),
            _ => random.pick(&names).clone(),
        };
        let kind = random.pick(&["bak", "bak", "disabled"]);
        let version = random.pick(&VERSIONS);
        esp.add(&format!("{original}.{kind}.{}", 1_770_000_000 + n), &image(version, 100 + n as u8));
    }
    let id = |random: &mut Random| match random.below(6) {
        0 => "talos-v1.12*".to_owned(),
        1 => "Talos-v1.10.0.efi".to_owned(),
        _ => random.pick(&names).split('+').next().unwrap().trim_end_matches(".efi").to_owned() + ".efi",
    };
    let mut pin = |one_in: usize| (random.below(one_in) == 0).then(|| id(random));
    let in_file = pin(4);
    (esp.variables.default, esp.variables.oneshot) = (pin(3).map(|id| utf16(&id)), pin(5).map(|id| utf16(&id)));
    esp.variables.preferred = pin(8).map(|id| utf16(&id));
    esp.configure(in_file.as_deref());
    if random.below(5) == 0 {
        let file = random.pick(&names).clone();
        esp.type1(&format!("title other\nversion 9\nsort-key a\nefi /EFI/Linux/{file}\n"));
    }
    let version = *random.pick(&VERSIONS);
    let operation = match random.below(4) {
        0 => Operation::Restore(random.below(4)),
        1 => Operation::Prune {
            delete: random.below(2) == 0,
            keep_backups: (random.below(2) == 0).then(|| random.below(2)),
            no_fallback: random.below(3) == 0,
        },
        _ => Operation::Swap {
            image: image(version, 200),
            target: match random.below(4) {
                0 => Some(random.pick(&names).clone()),
                1 => Some("Talos.efi".to_owned()),
                _ => None,
            },
            keep_duplicates: random.below(5) == 0,
            keep_backups: (random.below(3) == 0).then(|| random.below(2)),
        },
    };
    (esp, operation)
}

// ---- the way back
// ------------------------------------------------------------------------------------------------------

#[test]
fn rtalos_14002_of_two_backups_of_one_swap_a_restore_takes_the_image_that_booted() {
    // 1.12.4 boots; the target holds another image, which may never have run.
    for target in ["Talos.efi", "Talos-a.efi", "A.efi"] {
        let mut esp = Esp::new(&[("Talos-v1.12.4.efi", "v1.12.4")]);
        esp.add(target, &image("v1.12.3", 5));
        let plan = esp.swap_to(target, "v1.13.0");
        let backup = plan.backup.unwrap();
        assert!(backup.starts_with("Talos-v1.12.4.efi.bak."), "{backup}");
        assert!(plan.target_backup.unwrap().starts_with(&format!("{target}.bak.")));
        assert_eq!(esp.latest_backup(), backup);
    }
}

#[test]
fn issue13_8_the_image_that_runs_stays_a_backup_and_the_first_to_go_back() {
    // The second of the duplicates was started by hand.
    let mut esp = Esp::new(&[("Talos-v1.12.4.efi", "v1.12.4"), ("Talos-v1.12.4~1.efi", "v1.12.4")]);
    esp.variables.selected = Some(utf16("talos-v1.12.4~1.efi"));
    let _ = esp.swap_to("Talos-v1.13.0.efi", "v1.13.0");
    let backup = esp.latest_backup();
    assert!(backup.starts_with("Talos-v1.12.4~1.efi.bak."), "{backup}");
    // The next swap comes before the new image was ever started.
    let _ = esp.swap_to("Talos-v1.13.1.efi", "v1.13.1");
    assert_eq!(esp.latest_backup(), backup);
    // Without variables nobody can tell, and the newest counts.
    esp.variables.selected = None;
    assert!(esp.latest_backup().starts_with("Talos-v1.13.0.efi.bak."));
}

#[test]
fn issue13_8_what_could_not_start_is_no_backup() {
    let mut esp = Esp::new(&[("Talos-v1.12.4.efi", "v1.12.4")]);
    esp.add("Talos-v1.13.0.efi", &dead("v1.13.0"));
    esp.add("Talos-v1.11.0.efi.bak.9999999999", &image("v1.11.0", 3));
    esp.add("Talos-v1.12.0.efi.bak.1771000009", b"no image");
    esp.variables.default = Some(utf16("Talos-v1.12.4.efi"));
    let plan = esp.swap_to("Talos-v1.13.0.efi", "v1.13.0");
    assert!(plan.target_backup.as_ref().unwrap().starts_with("Talos-v1.13.0.efi.disabled."));
    assert_eq!(Some(esp.latest_backup()), plan.backup);
    assert!(plan.backup.unwrap().starts_with("Talos-v1.12.4.efi.bak."));
}

// ---- room ---------------------------------------------------------------------------------------------------------------

#[test]
fn issue11_room_is_counted_for_the_whole_plan_before_it_begins() {
    // So many duplicates that their new names take a cluster of the directory each.
    let mut full = Esp::new(&[("Talos-v1.12.4.efi", "v1.12.4")]);
    for n in 1..9 {
        full.add(&format!("Talos-v1.12.4~{n}.efi"), &image("v1.12.4", n));
    }
    full.add("Talos-v1.12.4.efi.bak.1770000000", &image("v1.11.0", 99));
    let operations = [
        Operation::Swap { image: image("v1.12.4", 200), target: None, keep_duplicates: false, keep_backups: None },
        Operation::Swap { image: image("v1.11.0", 200), target: None, keep_duplicates: false, keep_backups: Some(0) },
        Operation::Restore(0),
        Operation::Prune { delete: false, keep_backups: Some(0), no_fallback: false },
    ];
    for operation in operations {
        let (mut done, mut refused) = (0, 0);
        for free in 0..24 {
            let esp = Esp { disk: full.disk.clone(), variables: Variables::default() }.with_free_clusters(free);
            let recorder = Recorder::new(&esp.disk);
            match esp.run(&operation, &recorder, &RefCell::default(), &mut None) {
                Ok(_) => done += 1,
                Err(e) => {
                    assert_eq!(e.code(), Code::NoRoom, "{free} clusters: {e}");
                    assert_ne!(e.esp_changed(), Some(true), "{free} clusters: {e}");
                    assert!(e.to_string().contains("free"), "{e}");
                    // At most free clusters were written to.
                    let now = read_vec(&recorder, 0, esp.disk.len()).unwrap();
                    let table = Volume::open(&esp.disk).unwrap().geometry().fat_copy_offset(0) as usize;
                    assert!(now[..table + 4 * SECTOR] == esp.disk[..table + 4 * SECTOR], "{free} clusters: {e}");
                    assert_eq!(list(&now), list(&esp.disk), "{free} clusters");
                    refused += 1;
                }
            }
        }
        assert!(done > 5 && refused > 0, "{operation:?}: {done} done, {refused} refused");
    }
}

// ---- an ESP in memory, and the power going
// -----------------------------------------------------------------------------
