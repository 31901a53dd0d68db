//! What is predicted to run, from the firmware on: the name that the program at the end of the way prints.

use bootsurgeon::block::ReadAt;
use bootsurgeon::bootpath::{BootScenario, Certainty, End, StepKind, WayStep};
use bootsurgeon::command::{DiskRequest, VariablesChoice, boot_variables};
use bootsurgeon::disk::Target;
use bootsurgeon::esp::{Inventory, Runs, without_counter};
use std::path::Path;

/// A prediction for the next start of a disk.
pub(crate) struct Expected {
    /// [`payload`] of the file that is to run; `None` when nothing is.
    pub(crate) payload: Option<String>,
    /// Whether the prediction claims to be sure.
    pub(crate) certain: bool,
    /// Whether systemd-boot counts the start of what runs.
    pub(crate) is_counted: bool,
    /// The command line of the kernel that runs, where it is a UKI's.
    pub(crate) cmdline: Option<String>,
    pub(crate) steps: Vec<WayStep>,
}

/// What the next start of the disk comes to, asked of its first ESP, as a user would ask.
pub(crate) fn run(disk: &Path, variables: &VariablesChoice) -> Expected {
    let esp = inventory(disk, "1", variables);
    let first = follow(&esp);
    match &esp.way(BootScenario::Next).end {
        // A systemd-boot of another partition has a menu of its own: asked of that partition.
        End::Menu { at, .. } if at.volume != 0 => {
            let other = follow(&inventory(disk, &(at.volume + 1).to_string(), variables));
            let steps = [first.steps, other.steps].concat();
            Expected { certain: first.certain && other.certain, steps, ..other }
        }
        _ => first,
    }
}

fn follow(esp: &Inventory<Box<dyn ReadAt>>) -> Expected {
    let steps = esp.steps(BootScenario::Next);
    let (runs, by_menu) = esp.runs(BootScenario::Next);
    let is_counted = by_menu.and_then(|p| p.selected_entry().map(|e| e.tries_left.is_some())).unwrap_or(false);
    let place = match runs {
        Runs::Image { at, .. } => Some(esp.describe_place(&at)),
        Runs::Other(_) | Runs::Unknown(_) => {
            steps.iter().rev().find(|s| s.step == StepKind::Program).and_then(|s| s.place.clone())
        }
        Runs::Nothing(_) | Runs::Enrolment => None,
    };
    // What is handed over counts: Secure Boot is off here, which nothing in the store says.
    let cmdline = steps.iter().find(|s| s.step == StepKind::Kernel).map(|s| s.what.clone());
    // A program that is not known is a program all the same, and it is known which one runs.
    let certain = steps
        .iter()
        .all(|s| matches!(s.step, StepKind::Program | StepKind::Kernel) || s.certainty != Certainty::Unknown);
    // What a UKI says of itself; the place is told as it is written in the option, with dots and short names.
    let itself = cmdline.iter().flat_map(|line| line.split(' ')).find_map(|word| word.strip_prefix("from="));
    let payload = itself.filter(|name| *name != "option").map(str::to_owned).or_else(|| {
        let place = place?;
        let (path, number) = place.rsplit_once(" on partition ")?;
        Some(payload(number.parse::<usize>().ok()? - 1, path))
    });
    Expected { payload, certain, is_counted, cmdline, steps }
}

/// One of a disk's ESPs.
pub(crate) fn inventory(disk: &Path, partition: &str, variables: &VariablesChoice) -> Inventory<Box<dyn ReadAt>> {
    let request =
        DiskRequest { partition: Some(partition.to_owned()), efivars: variables.clone(), ..DiskRequest::new(disk) };
    let target = Target::find(disk, Some(partition)).unwrap();
    let vars = request.efivars(&target);
    let context = request.context(&target, &vars, None);
    let (known, unreadable) = boot_variables(&vars);
    assert_eq!(unreadable, [""; 0]);
    Inventory::read_in(target.open().unwrap(), known, context).unwrap()
}

/// The name that the program at a place prints: no dots and blanks, and no boot counter, which changes.
pub(crate) fn payload(volume: usize, path: &str) -> String {
    let path = without_counter(path).unwrap_or_else(|| path.to_owned());
    let name: String = path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("p{}_{}", volume + 1, name.to_ascii_lowercase())
}
