//! The way from the firmware to the file: boot options, loaders in several places, an Extended Boot Loader Partition, a second
//! ESP. Every state has a machine of its own, whose firmware goes by the variables in its store.

use crate::expected::{self, payload};
use crate::lab::{self, Systemd};
use crate::load_option::{HardDrive, load_option};
use crate::machine::{Boot, Machine};
use crate::states::Random;
use crate::{job, nvram, volume};
use bootsurgeon::bootpath::{BootScenario, Certainty, StepKind};
use bootsurgeon::command::VariablesChoice;
use bootsurgeon::disk::Target;
use bootsurgeon::esp::Runs;
use std::path::Path;
use std::time::Duration;

const GLOBAL: uuid::Uuid = uuid::uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
const LIMIT: Duration = Duration::from_secs(120);

/// A disk and boot options.
struct Ways {
    /// The partitions: paths and contents. The second one is an ESP, the third the Extended Boot Loader Partition.
    volumes: [Vec<(String, Vec<u8>)>; 3],
    /// `Boot0001` and so on, in BootOrder: the partition, counted from 0, and the file; none for its removable-media path.
    options: Vec<(usize, String)>,
    /// BootNext: one of them.
    next: Option<usize>,
    /// `LoaderEntryDefault`.
    pin: Option<String>,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) states: usize,
    /// Of them, those in which the prediction was certain.
    pub(crate) certain: usize,
    pub(crate) mismatches: Vec<String>,
}

/// Draws states and boots them.
pub(crate) fn run(machine: Machine, systemd: &Systemd, states: usize) -> Outcome {
    let seed = lab::number("BOOTSURGEON_BOOTS_SEED", 1);
    let mut outcome = Outcome { states, certain: 0, mismatches: Vec::new() };
    for number in 0..states as u64 {
        let ways = Ways::draw(systemd, &mut Random::new((seed << 32 | number) ^ 0xA11));
        let (predicted, certain, described, boot) = ways.boot(machine);
        outcome.certain += usize::from(certain);
        let real = boot.payload.as_ref().map(|(name, _)| name.clone());
        if certain && predicted != real {
            outcome.mismatches.push(format!(
                "systemd-boot {}, seed {seed}, way {number}: predicted {predicted:?}, real {real:?}\n{described}",
                systemd.version.text
            ));
        }
    }
    outcome
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
                    "systemd-boot {}, seed {seed}, counters {number}, start {}: predicted {predicted:?}, real {real:?}\n    {described}",
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
    fn draw(systemd: &Systemd, random: &mut Random) -> Self {
        let arch = systemd.loader_path();
        let elsewhere = format!("EFI/systemd/systemd-boot{}.efi", lab::efi_name(systemd.arch));
        let mut volumes: [Vec<(String, Vec<u8>)>; 3] = Default::default();
        let uki = |volume: usize, path: &str, version: &str| {
            (path.to_owned(), job::talos(systemd, version, &payload(volume, path)))
        };
        for (volume, files) in volumes.iter_mut().enumerate() {
            for version in ["v1.12.3", "v1.12.4", "v1.13.0"] {
                if random.percent(if volume == 0 { 60 } else { 40 }) {
                    files.push(uki(volume, &format!("EFI/Linux/Talos-{version}.efi"), version));
                }
            }
            files.push(("loader/".to_owned(), Vec::new()));
        }
        // What boots on the first ESP at least.
        if volumes[0].iter().all(|(path, _)| !path.starts_with("EFI/Linux")) {
            let one = uki(0, "EFI/Linux/Talos-v1.12.4.efi", "v1.12.4");
            volumes[0].push(one);
        }
        let loader = match random.below(8) {
            0 => uki(0, arch, "v1.12.0").1,
            1 => systemd.payload(&payload(0, arch)),
            _ => systemd.loader.clone(),
        };
        volumes[0].push((arch.to_owned(), loader));
        if random.percent(50) {
            volumes[0].push((elsewhere.clone(), systemd.loader.clone()));
        }
        if random.percent(40) {
            volumes[1].push((elsewhere.clone(), systemd.loader.clone()));
        }
        if random.percent(30) {
            let path = "EFI/kairos/active.efi";
            volumes[0].push(uki(0, path, "v1.12.4"));
            let sorted = random.pick(&["aaa", "talos", "zzz"]);
            let entry = format!("title Kairos\nefi /{path}\nsort-key {sorted}\nversion v9\n");
            volumes[0].push(("loader/entries/active.conf".to_owned(), entry.into_bytes()));
        }
        if random.percent(25) {
            let path = "EFI/Linux/Talos-v1.14.0+2-1.efi";
            volumes[random.pick(&[0, 2])].push(uki(0, path, "v1.14.0"));
        }
        let mut options = Vec::new();
        for _ in 0..random.below(4) {
            let volume = random.below(2);
            options.push(match random.below(5) {
                0 => (volume, "EFI/gone/gone.efi".to_owned()),
                1 => (0, arch.to_owned()),
                2 => (volume, elsewhere.clone()),
                3 => (volume, "EFI/Linux/Talos-v1.12.3.efi".to_owned()),
                _ => (volume, String::new()),
            });
        }
        let next = (!options.is_empty() && random.percent(30)).then(|| random.below(options.len()));
        let pin = random.percent(25).then(|| format!("Talos-{}.efi", random.pick(&["v1.12.3", "v1.12.4"])));
        // A counted file has its payload's name from the first ESP, wherever it lies: make it its own.
        for (volume, files) in volumes.iter_mut().enumerate() {
            for (path, content) in files.iter_mut().filter(|(path, _)| path.contains('+')) {
                *content = uki(volume, path, "v1.14.0").1;
            }
        }
        Self { volumes, options, next, pin }
    }

    /// The payload that is predicted, whether that is certain, the state in words, and what ran.
    fn boot(&self, machine: Machine) -> (Option<String>, bool, String, Boot) {
        let dir = tempfile::tempdir().unwrap();
        let (disk, variables) = (dir.path().join("disk.img"), dir.path().join("variables.fd"));
        let volumes = self.volumes.each_ref().map(|files| volume::small(files));
        let esp = gpt::partition_types::EFI;
        let kinds = [esp.clone(), esp, gpt::partition_types::FREEDESK_BOOT];
        let partitions: Vec<_> = volumes.iter().map(Vec::len).zip(kinds).collect();
        volume::partitioned(&disk, &partitions, |n| volumes[n].clone());
        let table = Target::find(&disk, Some("1")).unwrap();
        let partuuid = |n: usize| table.table().unwrap().partitions[n].partuuid.to_string();
        let mut store = machine.formatted_variables();
        for (n, (volume, file)) in self.options.iter().enumerate() {
            let drive = HardDrive { number: 1, start: 0, sectors: 0, partuuid: &partuuid(*volume) };
            let option = load_option(&drive, file);
            nvram::add(&mut store, &format!("Boot{:04X}", n + 1), GLOBAL, nvram::PLAIN, &option);
        }
        let order: Vec<u8> = (1..=self.options.len() as u16).flat_map(u16::to_le_bytes).collect();
        if !order.is_empty() {
            nvram::add(&mut store, "BootOrder", GLOBAL, nvram::PLAIN, &order);
        }
        if let Some(next) = self.next {
            nvram::add(&mut store, "BootNext", GLOBAL, nvram::PLAIN, &(next as u16 + 1).to_le_bytes());
        }
        if let Some(pin) = &self.pin {
            let data: Vec<u8> = pin.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            nvram::add(&mut store, "LoaderEntryDefault", nvram::LOADER, nvram::PLAIN, &data);
        }
        std::fs::write(&variables, &store).unwrap();
        let (predicted, certain) = self.predicted(&disk, &variables);
        let console = machine.boot_by_variables(&disk, &variables, LIMIT);
        (predicted, certain, self.describe(), Boot::single(&console.text))
    }

    fn predicted(&self, disk: &Path, variables: &Path) -> (Option<String>, bool) {
        let esp = expected::inventory(disk, "1", &VariablesChoice::Dir(variables.to_owned()));
        let steps = esp.steps(BootScenario::Next);
        let place = match esp.runs(BootScenario::Next).0 {
            Runs::Image { at, .. } => Some(esp.describe_place(&at)),
            // A systemd-boot of the other ESP: its own menu is predicted from there.
            Runs::Other(what) if what.contains("systemd-boot") => return (None, false),
            Runs::Other(_) | Runs::Unknown(_) => {
                steps.iter().rev().find(|s| s.step == StepKind::Program).and_then(|s| s.place.clone())
            }
            Runs::Nothing(_) | Runs::Enrolment => None,
        };
        // Which file of two is first on the removable-media path is the firmware's business, and a program that is not known
        // is one all the same.
        let certain = steps.iter().all(|s| s.step == StepKind::Program || s.certainty != Certainty::Unknown);
        let name = place.and_then(|place| {
            let (path, number) = place.rsplit_once(" on partition ")?;
            Some(payload(number.parse::<usize>().ok()? - 1, path))
        });
        (name, certain)
    }

    fn describe(&self) -> String {
        let mut text = format!("    options {:?}, next {:?}, pin {:?}\n", self.options, self.next, self.pin);
        for (n, files) in self.volumes.iter().enumerate() {
            let names: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
            text += &format!("    partition {}: {}\n", n + 1, names.join(", "));
        }
        text
    }
}
