//! The way from the firmware to the file: boot options, loaders in several places, an Extended Boot Loader Partition, a
//! second ESP. Every state has a machine of its own, whose firmware goes by the variables in its store.

use crate::expected::{self, payload};
use crate::lab::{self, Systemd};
use crate::load_option::{HardDrive, load_option, utf16};
use crate::machine::{Boot, Machine, in_parallel};
use crate::nvram::GLOBAL;
use crate::others::Others;
use crate::states::Random;
use crate::{job, nvram, volume};
use bootsurgeon::bootpath::BootScenario;
use bootsurgeon::command::VariablesChoice;
use bootsurgeon::disk::Target;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// A disk and boot options.
struct Ways {
    /// The partitions: paths and contents. The second one is an ESP, the third the Extended Boot Loader Partition.
    volumes: [Vec<(String, Vec<u8>)>; 3],
    /// `Boot0001` and so on, in BootOrder.
    options: Vec<Opt>,
    /// BootNext.
    next: Option<u16>,
    /// `LoaderEntryDefault`.
    pin: Option<String>,
}

/// At most so many starts in a row: what the machine writes stays, and each start is predicted anew.
const MAX_STARTS: usize = 3;

/// A lot that draws more uncertain states than this in a row draws badly.
const MAX_DRAWN: usize = 50;

/// A boot option.
#[derive(Debug)]
struct Opt {
    attributes: u32,
    /// The partition, counted from 0; `None` for a path on any volume.
    volume: Option<usize>,
    /// What it says of the partition's number, from 1; mostly the right one.
    number: u32,
    /// The file; none for the partition's removable-media path.
    file: String,
    /// LoadOptions.
    optional: &'static str,
}

/// What came of one state.
#[derive(Default)]
struct Tried {
    starts: usize,
    /// States that were drawn before this one and not started: the prediction claims nothing.
    uncertain: usize,
    mismatch: Option<String>,
}

/// What came of all.
pub(crate) struct Outcome {
    pub(crate) states: usize,
    /// All of them predicted as certain.
    pub(crate) starts: usize,
    /// States that were drawn and not started, because the prediction for them says that it is not certain.
    pub(crate) uncertain: usize,
    pub(crate) mismatches: Vec<String>,
}

/// Draws states and boots them.
pub(crate) fn run(machine: Machine, systemd: &Systemd, others: &Others, states: usize) -> Outcome {
    let seed = lab::number("BOOTSURGEON_BOOTS_SEED", 1);
    let from = lab::number("BOOTSURGEON_WAYS_FROM", 0);
    let numbers: Vec<u64> = (from..from + states as u64).collect();
    let tried = in_parallel(&numbers, |number| {
        let random = &mut Random::new((seed << 32 | number) ^ 0xA11);
        let name = format!("systemd-boot {}, seed {seed}, way {number}", systemd.version.text);
        let mut uncertain = 0;
        loop {
            match Ways::draw(systemd, others, random).boot(machine, &name) {
                Some(tried) => return Tried { uncertain, ..tried },
                None => uncertain += 1,
            }
            assert!(uncertain < MAX_DRAWN, "{name}: hardly anything is predicted");
        }
    });
    Outcome {
        states,
        starts: tried.iter().map(|t| t.starts).sum(),
        uncertain: tried.iter().map(|t| t.uncertain).sum(),
        mismatches: tried.into_iter().filter_map(|t| t.mismatch).collect(),
    }
}

/// Whether the kernel's command line is the predicted one. systemd's stub adds the firmware's console from version 258 on,
/// where none is named (`src/boot/stub.c`).
fn is_handed_over(predicted: &str, real: Option<&str>) -> bool {
    let Some(added) = real.and_then(|real| real.strip_prefix(predicted)) else { return false };
    added.is_empty() || added.starts_with(" console=") && !predicted.contains("console=") && !added[1..].contains(' ')
}

/// Starts of one disk in a row, with boot counters in some names: how many, and those that were not as predicted.
pub(crate) fn counted(machine: Machine, systemd: &Systemd, states: usize) -> (usize, Vec<String>) {
    const STARTS: usize = 4;
    let seed = lab::number("BOOTSURGEON_BOOTS_SEED", 1);
    let (mut boots, mut mismatches) = (0, Vec::new());
    for number in 0..states as u64 {
        let random = &mut Random::new((seed << 32 | number) ^ 0xC0);
        let mut volumes: [Vec<(String, Vec<u8>)>; 2] = Default::default();
        volumes[0].push((systemd.loader_path().to_owned(), systemd.loader.clone()));
        volumes[1].push(("loader/".to_owned(), Vec::new()));
        for version in ["v1.12.3", "v1.12.4", "v1.13.0"] {
            let counter = random.pick(&["", "", "+1", "+2-1", "+3", "+0-2"]);
            let counter = if version == "v1.12.3" { "" } else { counter };
            let volume = usize::from(random.percent(30));
            let path = format!("EFI/Linux/Talos-{version}{counter}.efi");
            let image = job::talos(systemd, version, &payload(volume, &path));
            volumes[volume].push((path, image));
        }
        let names: Vec<&String> = volumes.iter().flatten().map(|(path, _)| path).collect();
        let described = format!("{names:?}");
        let dir = tempfile::tempdir().unwrap();
        let (disk, variables) = (dir.path().join("disk.img"), dir.path().join("variables.fd"));
        let raw = volumes.each_ref().map(|files| volume::small(files));
        let kinds = [gpt::partition_types::EFI, gpt::partition_types::FREEDESK_BOOT];
        let partitions: Vec<_> = raw.iter().map(Vec::len).zip(kinds).collect();
        volume::partitioned(&disk, &partitions, |n| raw[n].clone());
        std::fs::write(&variables, machine.formatted_variables()).unwrap();

        let esp = expected::inventory(&disk, "1", &VariablesChoice::Dir(variables.clone()));
        let starts = esp.starts(BootScenario::Next, esp.as_seen());
        for n in 0..STARTS {
            let entry = starts[n.min(starts.len() - 1)].prediction.selected_entry();
            let predicted = entry.and_then(|e| {
                let path = e.path.as_ref()?.trim_start_matches('\\').replace('\\', "/");
                Some(payload(usize::from(e.xbootldr), &path))
            });
            let boot = Boot::single(&machine.boot_and_keep(&disk, &variables, LIMIT).text);
            let real = boot.payload.map(|(name, _)| name);
            boots += 1;
            if predicted != real {
                mismatches.push(format!(
                    "systemd-boot {}, seed {seed}, counters {number}, start {}: predicted {predicted:?}, real \
                        {real:?}\n    {described}",
                    systemd.version.text,
                    n + 1
                ));
                break;
            }
        }
    }
    (boots, mismatches)
}

impl Ways {
    fn draw(systemd: &Systemd, others: &Others, random: &mut Random) -> Self {
        let removable = systemd.loader_path();
        let suffix = lab::efi_name(systemd.arch);
        let elsewhere = format!("EFI/systemd/systemd-boot{suffix}.efi");
        let uki = |volume: usize, path: &str, version: &str| {
            (path.to_owned(), job::talos(systemd, version, &payload(volume, path)))
        };
        let older = "EFI/Linux/Talos-v1.12.3.efi";
        let mut volumes: [Vec<(String, Vec<u8>)>; 3] = Default::default();
        for (volume, files) in volumes.iter_mut().enumerate() {
            for version in ["v1.12.3", "v1.12.4", "v1.13.0"] {
                if random.percent(if volume == 0 { 60 } else { 40 }) {
                    files.push(uki(volume, &format!("EFI/Linux/Talos-{version}.efi"), version));
                }
            }
            files.push(("loader/".to_owned(), Vec::new()));
        }
        if random.percent(50) {
            volumes[0].push((elsewhere.clone(), systemd.loader.clone()));
        }
        if random.percent(40) {
            volumes[1].push((elsewhere.clone(), systemd.loader.clone()));
        }
        if random.percent(15) {
            volumes[1].push((removable.to_owned(), systemd.loader.clone()));
        }
        // A menu without entries gives the control back to the firmware, which goes on to what comes next.
        for (volume, files) in volumes.iter_mut().enumerate().take(2) {
            if files.iter().all(|(path, _)| !path.starts_with("EFI/Linux/")) {
                files.push(uki(volume, "EFI/Linux/Talos-v1.12.4.efi", "v1.12.4"));
            }
        }
        let grub = format!("EFI/BOOT/grub{suffix}.efi");
        let first = match random.below(10) {
            0 => uki(0, removable, "v1.12.0").1,
            1 => systemd.payload(&payload(0, removable)),
            2 => {
                volumes[0].extend(others.grub_config(systemd, 0, removable));
                others.grub.clone()
            }
            3 => {
                let second = match random.below(3) {
                    0 => systemd.loader.clone(),
                    1 => uki(0, &grub, "v1.12.0").1,
                    _ => {
                        volumes[0].extend(others.grub_config(systemd, 0, &grub));
                        others.grub.clone()
                    }
                };
                volumes[0].push((grub, second));
                others.shim.clone()
            }
            _ => systemd.loader.clone(),
        };
        volumes[0].push((removable.to_owned(), first));
        let shim = format!("EFI/debian/shim{suffix}.efi");
        if random.percent(30) {
            let grub = format!("EFI/debian/grub{suffix}.efi");
            volumes[1].extend(others.grub_config(systemd, 1, &grub));
            volumes[1].push((grub, others.grub.clone()));
            volumes[1].push((shim.clone(), others.shim.clone()));
        }
        if random.percent(40) {
            let path = "EFI/kairos/active.efi";
            volumes[0].push(uki(0, path, "v1.12.4"));
            let (key, sorted) = (random.pick(&["efi", "uki"]), random.pick(&["aaa", "talos", "zzz"]));
            let counter = random.pick(&["", "", "+2", "+0-1"]);
            let entry = format!("title Kairos\n{key} /{path}\nsort-key {sorted}\nversion v9\n");
            volumes[0].push((format!("loader/entries/active{counter}.conf"), entry.into_bytes()));
        }
        if random.percent(50) {
            let volume = random.pick(&[0, 2]);
            let path = format!("EFI/Linux/Talos-v1.14.0{}.efi", random.pick(&["+2-1", "+1", "+3", "+0-2"]));
            volumes[volume].push(uki(volume, &path, "v1.14.0"));
        }
        let options = (0..random.below(5)).map(|_| {
            let volume = random.below(2);
            let attributes = random.pick(&[1, 1, 1, 1, 1, 0, 0x101]);
            let other = random.percent(12).then(|| 1 + random.below(3) as u32);
            let opt = |volume: Option<usize>, file: &str| {
                let number = other.unwrap_or(volume.unwrap_or(0) as u32 + 1);
                Opt { attributes, volume, number, file: file.to_owned(), optional: "" }
            };
            let written = match random.below(6) {
                0 => "EFI/Linux/../Linux/Talos-v1.12.3.efi",
                1 => "EFI//Linux/Talos-v1.12.3.efi",
                2 => "EFI/./Linux/Talos-v1.12.3.efi",
                3 => "EFI/LINUX/TALOS-~1.EFI",
                4 => "EFI/Linux/talos-V1.12.3.EFI",
                _ => "../EFI/Linux/Talos-v1.12.3.efi",
            };
            match random.below(9) {
                8 => opt(Some(volume), written),
                0 => opt(Some(volume), "EFI/gone/gone.efi"),
                1 => opt(Some(0), removable),
                2 => opt(Some(volume), &elsewhere),
                3 => Opt { optional: random.pick(&["", "quiet from=option"]), ..opt(Some(volume), older) },
                4 => opt(Some(volume), ""),
                5 => opt(None, random.pick(&[&elsewhere as &str, older])),
                6 => Opt { optional: random.pick(&["", "\\EFI\\Linux\\Talos-v1.12.4.efi"]), ..opt(Some(1), &shim) },
                _ => opt(Some(volume), &older.to_uppercase()),
            }
        });
        let options: Vec<Opt> = options.collect();
        // One more than there are: an option that does not exist.
        let next = random.percent(30).then(|| 1 + random.below(options.len() + 1) as u16);
        let pin = random.percent(25).then(|| format!("Talos-{}.efi", random.pick(&["v1.12.3", "v1.12.4"])));
        Self { volumes, options, next, pin }
    }

    /// Starts it and compares; `None` where the prediction for the first start is not certain.
    fn boot(&self, machine: Machine, name: &str) -> Option<Tried> {
        let dir = tempfile::tempdir().unwrap();
        let (disk, variables) = (dir.path().join("disk.img"), dir.path().join("variables.fd"));
        let volumes = self.volumes.each_ref().map(|files| volume::small(files));
        let esp = gpt::partition_types::EFI;
        let kinds = [esp.clone(), esp, gpt::partition_types::FREEDESK_BOOT];
        let partitions: Vec<_> = volumes.iter().map(Vec::len).zip(kinds).collect();
        volume::partitioned(&disk, &partitions, |n| volumes[n].clone());
        std::fs::write(&variables, self.store(machine, &disk)).unwrap();

        let mut tried = Tried::default();
        let mut more = 1;
        while tried.starts < more.min(MAX_STARTS) {
            let expected = expected::run(&disk, &VariablesChoice::Dir(variables.clone()));
            if !expected.certain {
                break;
            }
            // A counter is followed to its end, and BootNext to what comes behind it.
            more = match (expected.is_counted, self.next) {
                (true, _) => MAX_STARTS,
                (false, Some(_)) => more.max(2),
                (false, None) => more,
            };
            let boot = Boot::single(&machine.boot_and_keep(&disk, &variables, LIMIT).text);
            let (real, cmdline) = boot.payload.unzip();
            tried.starts += 1;
            let other_cmdline =
                expected.cmdline.as_deref().is_some_and(|line| !is_handed_over(line, cmdline.as_deref()));
            if expected.payload != real || other_cmdline {
                tried.mismatch = Some(format!(
                    "{name}, start {}: predicted {:?} with {:?}, real {real:?} with {cmdline:?}\n{}{:#?}",
                    tried.starts,
                    expected.payload,
                    expected.cmdline,
                    self.describe(),
                    expected.steps
                ));
                break;
            }
        }
        (tried.starts > 0).then_some(tried)
    }

    /// The firmware's variables.
    fn store(&self, machine: Machine, disk: &Path) -> Vec<u8> {
        let table = Target::find(disk, Some("1")).unwrap();
        let partuuid = |n: usize| table.table().unwrap().partitions[n].partuuid.to_string();
        let mut store = machine.formatted_variables();
        for (n, option) in self.options.iter().enumerate() {
            let partuuid = option.volume.map(partuuid);
            let drive =
                partuuid.as_deref().map(|partuuid| HardDrive { number: option.number, start: 0, sectors: 0, partuuid });
            let data = load_option(option.attributes, drive.as_ref(), &option.file, option.optional);
            nvram::add(&mut store, &format!("Boot{:04X}", n + 1), GLOBAL, nvram::PLAIN, &data);
        }
        let order: Vec<u8> = (1..=self.options.len() as u16).flat_map(u16::to_le_bytes).collect();
        if !order.is_empty() {
            nvram::add(&mut store, "BootOrder", GLOBAL, nvram::PLAIN, &order);
        }
        if let Some(next) = self.next {
            nvram::add(&mut store, "BootNext", GLOBAL, nvram::PLAIN, &next.to_le_bytes());
        }
        if let Some(pin) = &self.pin {
            nvram::add(&mut store, "LoaderEntryDefault", nvram::LOADER, nvram::PLAIN, &utf16(pin));
        }
        store
    }

    fn describe(&self) -> String {
        let mut text = format!("    options {:#?}, next {:?}, pin {:?}\n", self.options, self.next, self.pin);
        for (n, files) in self.volumes.iter().enumerate() {
            let names: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
            text += &format!("    partition {}: {}\n", n + 1, names.join(", "));
        }
        text
    }
}
