//! The matrix: what the prediction says, and what real systemd-boot does, state by state.

use crate::lab::{self, Systemd};
use crate::machine::{Boot, Machine};
use crate::states::{Random, State};
use crate::{nvram, volume};
use bootsurgeon::boot::{EntryKind, Prediction};
use bootsurgeon::esp::Inventory;
use std::time::{Duration, Instant};

/// States that share one start of the firmware.
const BATCH: usize = 40;
/// `OsIndicationsSupported` of EDK2: `EFI_OS_INDICATIONS_BOOT_TO_FW_UI`.
const FIRMWARE_SETUP: u64 = 1;

/// What came of one version's states.
pub(crate) struct Outcome {
    pub(crate) version: String,
    pub(crate) states: usize,
    /// Of them, those with a whole machine of their own.
    pub(crate) whole: usize,
    /// Entries that started their payload.
    pub(crate) payloads: usize,
    pub(crate) mismatches: Vec<String>,
    pub(crate) took: Duration,
}

/// Draws states and runs them; `whole` of them in a machine of their own, too: the first that start something.
pub(crate) fn run(machine: Machine, systemd: &Systemd, states: usize, whole: usize) -> Outcome {
    let started = Instant::now();
    let seed = lab::number("BOOTSURGEON_BOOTS_SEED", 1);
    let drawn: Vec<(u32, State)> =
        (0..states as u32).map(|n| (n, State::draw(systemd, &mut Random::new(seed << 32 | u64::from(n))))).collect();
    let mut outcome = Outcome {
        version: systemd.version.text.clone(),
        states,
        whole: 0,
        payloads: 0,
        mismatches: Vec::new(),
        took: Duration::ZERO,
    };
    for batch in drawn.chunks(BATCH) {
        outcome.batch(machine, systemd, batch, seed);
    }
    for (number, state) in &drawn {
        if outcome.whole < whole {
            outcome.whole(machine, systemd, *number, state, seed);
        }
    }
    outcome.took = started.elapsed();
    outcome
}

impl Outcome {
    /// Many states in one start of the firmware. A state that never comes back is a mismatch; those behind it are run
    /// again.
    fn batch(&mut self, machine: Machine, systemd: &Systemd, batch: &[(u32, State)], seed: u64) {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.img");
        let variables = dir.path().join("variables.fd");
        let mut left = batch;
        while !left.is_empty() {
            let runner = volume::fat(4 << 20, &[(systemd.loader_path().to_owned(), systemd.runner())]);
            let volumes: Vec<_> = left
                .iter()
                .map(|(number, state)| {
                    let mut files = state.files.clone();
                    files.push(("state".to_owned(), instructions(*number, &state.variables)));
                    volume::small(&files)
                })
                .collect();
            let sizes: Vec<_> = std::iter::once(&runner).chain(&volumes).map(Vec::len).collect();
            volume::disk(&disk, &sizes, |n| n.checked_sub(1).map_or(&runner, |n| &volumes[n]).clone());
            std::fs::copy(machine.empty_variables(), &variables).unwrap();
            let limit = Duration::from_secs(120) + Duration::from_secs(5) * left.len() as u32;
            let console = machine.boot(&disk, &variables, limit);
            let boots = Boot::many(&console.text);
            let mut done = 0;
            for ((number, state), volume) in left.iter().zip(&volumes) {
                let Some(boot) = boots.get(number) else { break };
                done += 1;
                self.compare(*number, seed, state, volume, boot);
            }
            assert!(done > 0, "systemd-boot {}: no state was run; the console:\n{}", self.version, console.text);
            left = &left[done..];
        }
    }

    /// One state in a machine of its own, with its variables in the firmware's store.
    fn whole(&mut self, machine: Machine, systemd: &Systemd, number: u32, state: &State, seed: u64) {
        // Without a payload the boot ends in the firmware's own menu, and the variables are not seen.
        let volume = volume::small(&state.files);
        let known = state.known_variables(FIRMWARE_SETUP);
        let inventory = Inventory::read(&volume, known).unwrap();
        let starts =
            |path: &str| state.truth.get(&path.trim_start_matches('\\').replace('\\', "/").to_ascii_lowercase());
        let entry = inventory.predictions.next.selected_entry().and_then(|e| e.path.as_deref());
        if entry.and_then(starts).is_none_or(|truth| truth.starts != Some(true)) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.img");
        let variables = dir.path().join("variables.fd");
        volume::disk(&disk, &[volume.len()], |_| volume.clone());
        let mut store = machine.formatted_variables();
        for (name, data) in &state.variables {
            nvram::add(&mut store, name, nvram::LOADER, nvram::PLAIN, data);
        }
        std::fs::write(&variables, store).unwrap();
        let console = machine.boot(&disk, &variables, Duration::from_secs(120));
        self.whole += 1;
        let before = self.mismatches.len();
        self.compare(number, seed, state, &volume, &Boot::single(&console.text));
        if self.mismatches.len() > before {
            self.mismatches.push(format!("(the one above in a machine of its own; {})", systemd.loader_path()));
        }
    }

    fn compare(&mut self, number: u32, seed: u64, state: &State, volume: &[u8], boot: &Boot) {
        let known = state.known_variables(boot.os_indications_supported);
        let inventory = Inventory::read(volume, known).unwrap();
        let predicted = &inventory.predictions.next;
        self.payloads += usize::from(boot.payload.is_some());
        let differences = differences(state, predicted, boot);
        if !differences.is_empty() {
            self.mismatches.push(format!(
                "systemd-boot {}, seed {seed}, state {number}:\n  {}\n{}    reason: {}\n",
                self.version,
                differences.join("\n  "),
                state.describe(),
                predicted.reason,
            ));
        }
    }
}

/// What the runner is told: the state's number, and its variables. A name that begins with a backslash is the file to
/// start, in place of the removable-media path.
pub(crate) fn instructions<N: AsRef<str>>(number: u32, variables: &[(N, Vec<u8>)]) -> Vec<u8> {
    let mut text = number.to_le_bytes().to_vec();
    text.extend((variables.len() as u32).to_le_bytes());
    for (name, data) in variables {
        let name: Vec<u8> = name.as_ref().encode_utf16().flat_map(u16::to_le_bytes).collect();
        text.extend((name.len() as u32 / 2).to_le_bytes());
        text.extend((data.len() as u32).to_le_bytes());
        text.extend(name);
        text.extend(data);
    }
    text
}

/// Everything in which a prediction and a boot differ.
pub(crate) fn differences(state: &State, predicted: &Prediction, boot: &Boot) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, predicted: String, real: String| {
        if predicted != real {
            found.push(format!("{what}:\n    predicted {predicted}\n    real      {real}"));
        }
    };
    compare("came back", "true".into(), boot.complete.to_string());
    let menu: Vec<&str> = predicted.menu.iter().map(|e| e.id.as_str()).collect();
    compare("menu", menu.join(" | "), boot.menu.join(" | "));
    let Some(entry) = predicted.selected_entry() else {
        compare("selected", "None".into(), format!("{:?}", boot.selected));
        compare("payload", "None".into(), format!("{:?}", boot.payload));
        return found;
    };
    // What systemd-boot does itself, it does without a word in LoaderEntrySelected.
    let action = entry.kind == EntryKind::Action;
    let selected = Some(&entry.id).filter(|_| !action);
    compare("selected", format!("{selected:?}"), format!("{:?}", boot.selected.as_ref()));
    compare("boot counting", format!("{:?}", predicted.renamed_to), format!("{:?}", boot.counted));
    if action {
        compare("reset", "true".into(), boot.reset.to_string());
    }
    let path = entry.path.as_deref().unwrap_or_default().replace('\\', "/").to_ascii_lowercase();
    let path = path.split('/').filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
    let Some(truth) = state.truth.get(&path) else {
        compare("payload", "None".into(), format!("{:?}", boot.payload));
        return found;
    };
    let real = boot.payload.as_ref().map(|(name, _)| name.as_str());
    match truth.starts {
        Some(true) => {
            compare("payload", format!("{:?}", Some(truth.payload.as_str())), format!("{real:?}"));
            // What the boot loader passes stands above what the UKI has, outside Secure Boot.
            let passed = predicted.load_options.clone().filter(|passed| !passed.starts_with('@'));
            let own = truth.cmdlines.get(entry.profile as usize).cloned();
            let cmdline = passed.or(own).filter(|cmdline| !cmdline.is_empty());
            if let (Some(cmdline), Some((_, real))) = (cmdline, &boot.payload) {
                // Stubs of 262 say which console the firmware has.
                let real = real.split(" console=uart,").next().unwrap_or_default();
                compare("command line", cmdline, real.to_owned());
            }
        }
        Some(false) => compare("payload", "None".into(), format!("{real:?}")),
        None => {}
    }
    found
}
