//! Between the steps of a plan the menu is another one: in every state that a power cut can leave, the board starts the old
//! image or the new one, by the project's own prediction, in every future. The power is cut after every sector, in the
//! operation and in the recovery from it.

use bootsurgeon::block::{Memory, ReadAt, Sink, WriteAt, read_vec};
use bootsurgeon::boot::{EntryKind, Prediction, Variables};
use bootsurgeon::esp::{FileKind, Inventory};
use bootsurgeon::fat::{Editor, Stamp, Volume};
use bootsurgeon::pe::Arch;
use bootsurgeon::plan::{NewImage, PruneOptions, PrunePlan, SwapOptions, SwapPlan, backups, latest_backup};
use bootsurgeon::surgery::{ContentRef, LINUX_DIR, Outcome, Staging, interrupted, open_healthy, recover};

use bootsurgeon::testkit::uki::Builder;
use bootsurgeon::{Code, Result};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::io::Cursor;
use std::sync::Mutex;

const STAMP: Stamp = Stamp(1_771_000_000);
const SECTOR: usize = 512;

// ---- the shapes of the report ------------------------------------------------------------------------------------------

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

// ---- drawn menus -------------------------------------------------------------------------------------------------------

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

// ---- the way back ------------------------------------------------------------------------------------------------------

#[test]
fn issue13_8_of_two_backups_of_one_swap_a_restore_takes_the_image_that_booted() {
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

// ---- an ESP in memory, and the power going -----------------------------------------------------------------------------

#[derive(Clone)]
enum Operation {
    Swap {
        image: Vec<u8>,
        target: Option<String>,
        keep_duplicates: bool,
        keep_backups: Option<usize>,
    },
    /// The backup of that number, the newest first.
    Restore(usize),
    Prune {
        delete: bool,
        keep_backups: Option<usize>,
        no_fallback: bool,
    },
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Swap { target, keep_duplicates, keep_backups, .. } => {
                write!(f, "swap to {target:?}, keep duplicates {keep_duplicates}, backups {keep_backups:?}")
            }
            Self::Restore(n) => write!(f, "restore of backup {n}"),
            Self::Prune { delete, keep_backups, no_fallback } => {
                write!(f, "prune, delete {delete}, keep backups {keep_backups:?}, no fallback {no_fallback}")
            }
        }
    }
}

const NOTHING_TO_DO: &str = "nothing to do";

struct Esp {
    disk: Vec<u8>,
    variables: Variables,
}

/// What a board starts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    Nothing,
    Image { sha256: [u8; 32], profile: u32 },
    Entry(String),
}

/// What has to start in the scenarios, and in which of them the new image does by now.
#[derive(Debug, Clone)]
struct Watch {
    old: Vec<Start>,
    new: Option<Start>,
    is_new: Vec<bool>,
}

impl Watch {
    fn look(&mut self, esp: &Inventory<&Vec<u8>>, when: &dyn Fn() -> String) {
        for (i, start) in starts(esp).into_iter().enumerate() {
            if Some(&start) == self.new.as_ref() {
                self.is_new[i] = true;
            } else if self.new.is_none() && self.old[i] == Start::Nothing {
                // A prune that takes a dead entry away.
                self.old[i] = start;
            } else if self.is_new[i] || start != self.old[i] {
                let menu: Vec<&str> = esp.files.iter().map(|f| f.name()).collect();
                panic!("{}, future {i}: starts {start:?} instead of {:?}: {menu:?}", when(), self.old[i]);
            }
        }
    }
}

fn starts<S: ReadAt>(esp: &Inventory<S>) -> Vec<Start> {
    let start = |(prediction, _): (&Prediction, _)| {
        let Some(entry) = prediction.selected_entry() else { return Start::Nothing };
        let Some(file) = entry.file.as_deref().and_then(|name| esp.file(name)) else {
            return Start::Entry(entry.id.clone());
        };
        assert_eq!(entry.kind, EntryKind::Uki);
        if file.kind == FileKind::Broken {
            return Start::Nothing;
        }
        let bytes = esp.volume.file(&file.entry).unwrap();
        let bytes = read_vec(&bytes, 0, bytes.size() as usize).unwrap();
        Start::Image { sha256: Sha256::digest(bytes).into(), profile: entry.profile }
    };
    esp.predict(esp.as_seen()).all().map(start).collect()
}

impl Esp {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut esp = Self::with_loader("257.9-talos");
        for (n, (name, version)) in files.iter().enumerate() {
            esp.add(name, &image(version, n as u8));
        }
        esp
    }

    fn with_loader(version: &str) -> Self {
        let mut raw = Cursor::new(vec![0; 3 << 20]);
        let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat16).bytes_per_cluster(512);
        fatfs::format_volume(&mut raw, options).unwrap();
        let mut esp = Self { disk: raw.into_inner(), variables: Variables::default() };
        let magic = format!("#### LoaderInfo: systemd-boot {version} ####\0");
        let loader = Builder::new(Arch::Arm64).section(".text", [0; 16]).section(".sdmagic", magic).build();
        esp.edit(|editor| {
            for dir in ["EFI/BOOT", LINUX_DIR, "loader/entries"] {
                editor.make_directories(dir, STAMP).unwrap();
            }
            editor.make_file("EFI/BOOT", "BOOTAA64.EFI", &loader, STAMP).unwrap();
        });
        esp
    }

    /// Adds a file, if there is none of that name.
    fn add(&mut self, name: &str, content: &[u8]) -> bool {
        self.edit(|editor| {
            let free = editor.directory(LINUX_DIR).unwrap().find(name).is_none();
            if free {
                editor.make_file(LINUX_DIR, name, content, STAMP).unwrap();
            }
            free
        })
    }

    fn configure(&mut self, default: Option<&str>) {
        let default = default.map_or(String::new(), |id| format!("default {id}\n"));
        let conf = format!("timeout 10\n{default}");
        self.edit(|editor| editor.make_file("loader", "loader.conf", conf.as_bytes(), STAMP).unwrap());
    }

    fn type1(&mut self, text: &str) {
        self.edit(|editor| editor.make_file("loader/entries", "other.conf", text.as_bytes(), STAMP).unwrap());
    }

    /// The same, with all clusters but so many in use.
    fn with_free_clusters(mut self, free: u32) -> Self {
        let clusters = Volume::open(&self.disk).unwrap().table().free_clusters() - free;
        self.edit(|editor| {
            let filler = vec![1; (clusters * editor.geometry().cluster_bytes) as usize];
            editor.make_file("", "FILLER.BIN", &filler, STAMP).unwrap();
        });
        self
    }

    fn edit<T>(&mut self, change: impl FnOnce(&mut Editor<'_>) -> T) -> T {
        let medium = Memory::new(std::mem::take(&mut self.disk));
        let mut editor = Editor::open(&medium).unwrap();
        let done = change(&mut editor);
        editor.write_fsinfo().unwrap();
        drop(editor);
        self.disk = medium.into_bytes();
        done
    }

    fn describe(&self) -> String {
        let esp = Inventory::read(&self.disk, self.variables.clone()).unwrap();
        let mut text = String::new();
        for f in &esp.files {
            text += &format!("{:?} {} {:?}\n", f.kind, f.name(), f.version());
        }
        for (prediction, when) in esp.predict(esp.as_seen()).all() {
            text += &format!("{:?} {when}: {}\n", prediction.selected_file(), prediction.reason);
        }
        text
    }

    /// Swaps, and says what the plan was. Nothing may start but the old image and the new one.
    fn swap_to(&mut self, target: &str, version: &str) -> SwapPlan {
        let esp = Inventory::read(&self.disk, self.variables.clone()).unwrap();
        let (image, time) = (image(version, 200), esp.stamp(STAMP.0));
        let options = SwapOptions { target: Some(target.to_owned()), time, ..SwapOptions::default() };
        let facts = bootsurgeon::uki::probe(&image).unwrap();
        let new = NewImage { source: &image, facts: Some(&facts), bytes_to_write: 1, from_file: None };
        let plan = SwapPlan::make(&esp, &new, &options).unwrap();
        let medium = Memory::new(self.disk.clone());
        let mut staging = Staging::begin(open_healthy(&medium).unwrap(), image.len() as u64).unwrap();
        staging.chunk(&image).unwrap();
        staging.seal(Sha256::digest(&image).into()).unwrap().commit(&plan.order("swap", time)).unwrap();
        self.disk = medium.into_bytes();
        plan
    }

    fn latest_backup(&self) -> String {
        let esp = Inventory::read(&self.disk, self.variables.clone()).unwrap();
        latest_backup(&esp).unwrap().0
    }

    /// Plans the operation and carries it out; cuts it after every sector, recovers, and cuts that too. Returns the files
    /// that left before the commit.
    fn prove(&self, operation: &Operation) -> Result<Vec<String>> {
        let plan = RefCell::new(Vec::new());
        let recorder = Recorder::new(&self.disk);
        let (old, mut new) = (starts(&Inventory::read(&self.disk, self.variables.clone())?), None);
        let outcome = self.run(operation, &recorder, &plan, &mut new)?;
        let Some(outcome) = outcome else { return Ok(vec![NOTHING_TO_DO.to_owned()]) };
        let installs = outcome.operation.install.is_some();
        let mut watch = Watch { is_new: vec![false; old.len()], old, new };
        let mut listing = None;
        let mut image = self.disk.clone();
        let writes = recorder.writes();
        for (n, (offset, sector)) in writes.iter().enumerate() {
            image[*offset..*offset + sector.len()].copy_from_slice(sector);
            let now = list(&image);
            let changed = listing.as_ref() != Some(&now);
            let when = || format!("{operation:?}, cut after {} of {} sectors", n + 1, writes.len());
            if changed {
                listing = Some(now);
                watch.look(&Inventory::read(&image, self.variables.clone()).unwrap(), &when);
            }
            if changed || n % 5 == 0 || n + 1 == writes.len() {
                self.recover(&image, &watch, &when);
            }
        }
        assert!(!installs || watch.is_new.iter().all(|new| *new), "the new image starts at the end");
        Ok(plan.into_inner())
    }

    /// Recovers a state; each state on that way has to start what it should.
    fn recover(&self, cut: &[u8], watch: &Watch, when: &dyn Fn() -> String) {
        let recorder = Recorder::new(cut);
        recover(&recorder).unwrap();
        let (mut watch, mut image) = (watch.clone(), cut.to_owned());
        let mut listing = list(&image);
        let when = || format!("{}, in the recovery", when());
        for (offset, sector) in recorder.writes() {
            image[offset..offset + sector.len()].copy_from_slice(&sector);
            let now = list(&image);
            if now != listing {
                listing = now;
                watch.look(&Inventory::read(&image, self.variables.clone()).unwrap(), &when);
            }
        }
        let volume = Volume::open(&image).unwrap();
        assert_eq!(interrupted(&volume).unwrap(), None);
        open_healthy(&Memory::new(image)).unwrap();
    }

    /// Plans and carries out. `None` when there is nothing to do.
    fn run(
        &self,
        operation: &Operation,
        medium: &dyn WriteAt,
        before: &RefCell<Vec<String>>,
        new: &mut Option<Start>,
    ) -> Result<Option<Outcome>> {
        let esp = Inventory::read(medium, self.variables.clone())?;
        let time = esp.stamp(STAMP.0);
        let note = |plan: &SwapPlan| {
            let order = plan.order("", time);
            *before.borrow_mut() = order.before.into_iter().map(|r| r.from).collect();
        };
        let mut comes = |bytes: &[u8]| *new = Some(Start::Image { sha256: Sha256::digest(bytes).into(), profile: 0 });
        Ok(Some(match operation {
            Operation::Swap { image, target, keep_duplicates, keep_backups } => {
                comes(image);
                let (target, keep_backups) = (target.clone(), *keep_backups);
                let options = SwapOptions { target, keep_duplicates: *keep_duplicates, keep_backups, time };
                let facts = bootsurgeon::uki::probe(image)?;
                let new = NewImage {
                    source: image,
                    facts: Some(&facts),
                    bytes_to_write: image.len() as u64,
                    from_file: None,
                };
                let plan = SwapPlan::make(&esp, &new, &options)?;
                note(&plan);
                plan.order("swap", time).rehearse(&medium, SECTOR as u32, image.len() as u64)?;
                let mut staging = Staging::begin(open_healthy(medium)?, image.len() as u64)?;
                staging.chunk(image)?;
                staging.seal(Sha256::digest(image).into())?.commit(&plan.order("swap", time))?
            }
            Operation::Restore(n) => {
                let Some((name, parsed)) = backups(&esp).into_iter().cycle().nth(*n) else { return Ok(None) };
                let file = esp.file(&name).unwrap();
                let source = esp.volume.file(&file.entry)?;
                comes(&read_vec(&source, 0, source.size() as usize).unwrap());
                let image =
                    NewImage { source: &source, facts: file.facts.as_ref(), bytes_to_write: 0, from_file: Some(&name) };
                let options = SwapOptions { target: Some(parsed.original), time, ..SwapOptions::default() };
                let plan = SwapPlan::make(&esp, &image, &options)?;
                note(&plan);
                let entry = &file.entry;
                let verified = ContentRef { cluster: entry.first_cluster, bytes: entry.bytes, sha256: None };
                plan.order("restore", time).restore(open_healthy(medium)?, &name, verified)?
            }
            Operation::Prune { delete, keep_backups, no_fallback } => {
                let options =
                    PruneOptions { delete: *delete, keep_backups: *keep_backups, no_fallback: *no_fallback, time };
                let plan = PrunePlan::make(&esp, &options)?;
                if plan.is_empty() {
                    return Ok(None);
                }
                plan.tidying(time).run(open_healthy(medium)?)?
            }
        }))
    }
}

/// What the directory says: names, clusters and lengths.
fn list(image: &Vec<u8>) -> Vec<(String, u32, u32)> {
    let entries = Volume::open(image).unwrap().list(LINUX_DIR).unwrap().unwrap();
    entries.into_iter().map(|e| (e.name, e.first_cluster, e.bytes)).collect()
}

/// Keeps the order in which sectors are written.
struct Recorder {
    medium: Memory,
    writes: Mutex<Vec<(usize, Vec<u8>)>>,
}

impl Recorder {
    fn new(bytes: &[u8]) -> Self {
        Self { medium: Memory::new(bytes.to_owned()), writes: Mutex::default() }
    }

    fn writes(&self) -> Vec<(usize, Vec<u8>)> {
        self.writes.lock().unwrap().clone()
    }
}

impl ReadAt for Recorder {
    fn size(&self) -> u64 {
        self.medium.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.medium.read_exact_at(buf, offset)
    }
}

impl WriteAt for Recorder {
    fn sector_size(&self) -> u32 {
        SECTOR as u32
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> std::io::Result<()> {
        for (i, sector) in buf.chunks(SECTOR).enumerate() {
            self.writes.lock().unwrap().push((offset as usize + i * SECTOR, sector.to_owned()));
        }
        self.medium.write_all_at(buf, offset)
    }

    fn barrier(&self) -> std::io::Result<()> {
        Ok(())
    }
}

// ---- images ------------------------------------------------------------------------------------------------------------

fn uki(arch: Arch, version: &str) -> Builder {
    let release = format!("ID=talos\nNAME=Talos\nPRETTY_NAME=\"Talos ({version})\"\nVERSION_ID={version}\n");
    Builder::new(arch).section(".osrel", release).section(".cmdline", "talos.platform=metal")
}

fn image(version: &str, seed: u8) -> Vec<u8> {
    uki(Arch::Arm64, version).section(".linux", [seed; 64]).build()
}

/// Listed, and it does not start: it has no kernel.
fn dead(version: &str) -> Vec<u8> {
    uki(Arch::Arm64, version).build()
}

fn foreign(version: &str) -> Vec<u8> {
    uki(Arch::Amd64, version).section(".linux", [1; 64]).build()
}

fn with_profile(version: &str, seed: u8) -> Vec<u8> {
    let base = uki(Arch::Arm64, version).section(".linux", [seed; 64]);
    base.section(".profile", "ID=main\n").section(".profile", "ID=other\nTITLE=Other\n").build()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}
