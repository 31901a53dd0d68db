//! What the firmware's boot manager starts: BootNext, then BootOrder, then the removable-media path (UEFI specification
//! 2.10, 3.1.1 to 3.1.3 and 3.5.1.1; the boot managers of EDK II and of U-Boot).

use super::load_option::{BootOption, BootOptions, HardDrive, Lead};
use super::program::Program;
use super::{BootScenario, Certainty, StepKind, WayStep};
use crate::disk::PartUuid;
use crate::pe::Arch;

/// A FAT volume that firmware can start programs from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootVolume {
    /// For people: `partition 1`.
    pub name: String,
    /// What boot options name it by; `None` for a file system without a partition table.
    pub partuuid: Option<PartUuid>,
    /// Its number, first sector and sectors, where a table tells.
    pub place: Option<(u32, u64, u64)>,
}

/// A file on one of the volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The volume's place in [`Volumes::list`].
    pub volume: usize,
    /// From its root, with backslashes.
    pub path: String,
}

impl Located {
    /// `EFI/BOOT/BOOTAA64.EFI on partition 1`.
    #[must_use]
    pub fn describe(&self, volumes: &dyn Volumes) -> String {
        let path = self.path.trim_start_matches('\\').replace('\\', "/");
        match volumes.list().get(self.volume).map(|v| v.name.as_str()).filter(|name| !name.is_empty()) {
            Some(name) => format!("{path} on {name}"),
            None => path,
        }
    }
}

/// A partition that is none of the volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unseen<'a> {
    /// It holds no file system.
    Empty,
    /// What firmware finds on it is not known, and why.
    Unknown(&'a str),
}

/// The volumes that can be looked at, and what is known of the machine.
pub trait Volumes {
    /// The volumes, in the order in which firmware meets them.
    fn list(&self) -> &[BootVolume];

    /// A partition that is there and is none of the volumes.
    fn unseen(&self, partuuid: PartUuid) -> Option<Unseen<'_>>;

    /// Whether these are all the volumes of the machine.
    fn complete(&self) -> bool;

    /// The volume that somebody asks about, if it is one: where nothing decides between it and others, the way is that
    /// of a start from it.
    fn this(&self) -> Option<usize> {
        None
    }

    /// The architecture of the machine.
    fn arch(&self) -> Arch;

    /// Whether the firmware is U-Boot, which takes a partition to be another one when its place or length has changed.
    fn is_uboot(&self) -> bool;

    /// The program at a place; `None` when there is no such file.
    ///
    /// # Errors
    /// Why the file there is not an EFI program.
    fn program(&self, at: &Located) -> Result<Option<Program>, String>;

    /// Whether there is a file, whatever is in it.
    fn is_file(&self, at: &Located) -> bool;
}

/// What the firmware starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Started {
    /// The step of the way.
    pub(super) step: WayStep,
    /// The program; `None` when there is none to be seen.
    pub(super) program: Option<Located>,
    /// By which means.
    pub(super) by: FirmwareStart,
    /// What the program gets as LoadOptions.
    pub(super) optional: Vec<u8>,
    /// Boot options that come first and lead where nothing can be looked at.
    pub(super) in_doubt: Vec<String>,
    /// Boot options that are passed over, and why.
    pub(super) passed_over: Vec<String>,
    /// The first file that a boot option leads to and that is no EFI program.
    pub(super) broken: Option<Located>,
}

/// By which means the firmware found a program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FirmwareStart {
    /// A boot option of this name.
    Option(String),
    /// The removable-media path.
    RemovableMedia,
    /// None.
    Nothing,
}

/// Where a boot option leads.
pub(super) enum Leads {
    To(Located, Certainty),
    /// Nowhere: the firmware passes over it.
    Nowhere(String),
    /// Where nothing can be looked at from here.
    Elsewhere(String),
}

/// `\EFI\BOOT\BOOTAA64.EFI`.
#[must_use]
pub fn removable_path(arch: Arch) -> String {
    format!("\\EFI\\BOOT\\{}", arch.removable_loader())
}

/// What the firmware starts in a scenario.
pub(super) fn start(options: &BootOptions, scenario: BootScenario, volumes: &dyn Volumes) -> Started {
    let (mut in_doubt, mut passed_over) = (Vec::new(), Vec::new());
    if let Some(next) = options.missing_next(scenario) {
        // EDK II makes options for what it finds on its own, and gives them free numbers, before it looks at BootNext.
        in_doubt.push(format!(
            "BootNext names Boot{next:04X}, which does not exist: the firmware may give that number to an option of \
             its own first"
        ));
    }
    let mut broken = None;
    let mut next_led_nowhere = false;
    for (option, once) in options.tried(scenario) {
        let name = format!("{} ({:?})", option.name, option.description);
        let mut pass_over = |why: String| {
            next_led_nowhere |= once;
            let set = if once { "BootNext, which counts for one start, is " } else { "" };
            passed_over.push(format!("{set}{name}: {why}"));
        };
        match leads(option, volumes) {
            Leads::Nowhere(why) => pass_over(why),
            // What cannot be loaded is not started, and the boot manager goes on (EDK II: EfiBootManagerBoot; U-Boot:
            // efi_bootmgr_load).
            Leads::To(at, _) if let Err(why) = volumes.program(&at) => {
                pass_over(format!("{} is no EFI program: {why}", at.describe(volumes)));
                broken.get_or_insert(at);
            }
            Leads::Elsewhere(why) => in_doubt.push(format!("{name} {why}")),
            Leads::To(at, certainty) => {
                let mut why = match (once, passed_over.len() - usize::from(next_led_nowhere)) {
                    (true, _) => "BootNext, for one start".to_owned(),
                    (false, 0) => "first in BootOrder".to_owned(),
                    (false, n) => format!("first in BootOrder that leads to a program, after {n} that do not"),
                };
                if next_led_nowhere {
                    why = format!("{why}; BootNext leads to none");
                }
                let certainty = doubt(&mut why, &in_doubt, certainty);
                let step =
                    WayStep { step: StepKind::Firmware, what: name, place: Some(at.describe(volumes)), why, certainty };
                let by = FirmwareStart::Option(option.name.clone());
                return Started {
                    step,
                    program: Some(at),
                    by,
                    optional: option.load_options().to_vec(),
                    in_doubt,
                    passed_over,
                    broken,
                };
            }
        }
    }
    let path = removable_path(volumes.arch());
    let found = removable(&path, volumes, &mut in_doubt);
    let reason = match (scenario, options.known, passed_over.is_empty()) {
        (BootScenario::Reset, ..) => "without variables the firmware takes the removable-media path",
        (_, false, _) => "no boot option is known, and then the firmware takes the removable-media path",
        (_, true, true) => "there is no boot option, and then the firmware takes the removable-media path",
        (_, true, false) => "no boot option leads to a program, and then the firmware takes the removable-media path",
    };
    let mut why = match found {
        Some(_) => reason.to_owned(),
        None => format!("{reason}; {} is on no volume here", path.trim_start_matches('\\').replace('\\', "/")),
    };
    let certainty = doubt(&mut why, &in_doubt, Certainty::Default);
    let step = WayStep {
        step: StepKind::Firmware,
        what: if found.is_some() { "the removable-media path" } else { "nothing" }.to_owned(),
        place: found.as_ref().map(|at| at.describe(volumes)),
        why,
        certainty,
    };
    let by = if found.is_some() { FirmwareStart::RemovableMedia } else { FirmwareStart::Nothing };
    Started { step, program: found, by, optional: Vec::new(), in_doubt, passed_over, broken }
}

/// The removable-media path on the first volume that has it. Which of several partitions comes first is for the
/// firmware to say: of a volume that is asked about, the start from it is looked at, and the others are doubts.
fn removable(path: &str, volumes: &dyn Volumes, in_doubt: &mut Vec<String>) -> Option<Located> {
    let all = (0..volumes.list().len()).map(|volume| Located { volume, path: path.to_owned() });
    let mut all: Vec<Located> = all.filter(|at| volumes.is_file(at)).collect();
    let Some(own) = all.iter().position(|at| Some(at.volume) == volumes.this()) else { return all.into_iter().next() };
    let own = all.remove(own);
    in_doubt.extend(
        all.iter().map(|at| {
            format!("{}: whether the firmware takes that partition first is not known", at.describe(volumes))
        }),
    );
    Some(own)
}

/// What comes first and cannot be looked at makes everything behind it unsure.
fn doubt(why: &mut String, in_doubt: &[String], certainty: Certainty) -> Certainty {
    if in_doubt.is_empty() {
        return certainty;
    }
    *why = format!("{why}; but before it {}", in_doubt.join("; and "));
    Certainty::Unknown
}

impl BootOptions {
    /// The files that options lead to, whether they are in BootOrder or not, with the options' names.
    #[must_use]
    pub fn files(&self, volumes: &dyn Volumes) -> Vec<(String, Located)> {
        let file = |option: &BootOption| match leads(option, volumes) {
            Leads::To(at, _) => Some((option.name.clone(), at)),
            Leads::Nowhere(_) | Leads::Elsewhere(_) => None,
        };
        self.options.iter().filter_map(file).collect()
    }

    /// Holds every option against the volumes, for reports.
    pub fn check(&mut self, volumes: &dyn Volumes) {
        for option in &mut self.options {
            (option.found, option.problem) = match leads(option, volumes) {
                Leads::To(..) => (Some(true), None),
                Leads::Nowhere(why) => (Some(false), Some(why)),
                Leads::Elsewhere(_) => (None, None),
            };
        }
    }
}

/// Where a boot option leads, as far as that can be seen.
pub(super) fn leads(option: &BootOption, volumes: &dyn Volumes) -> Leads {
    let target = &option.target;
    let path = target.file.as_ref().map_or_else(|| removable_path(volumes.arch()), |file| rooted(file));
    if let Some(drive) = &target.hard_drive {
        let Some(partuuid) = drive.partuuid else {
            return Leads::Elsewhere(format!("names a partition without saying of which disk ({})", target.path));
        };
        let is_meant = |v: &BootVolume| {
            let agrees = if volumes.is_uboot() { is_in_place(v, drive) } else { has_number(v, drive.number) };
            v.partuuid == Some(partuuid) && agrees
        };
        return match volumes.list().iter().position(is_meant) {
            Some(volume) => {
                let at = Located { volume, path };
                if volumes.is_file(&at) {
                    Leads::To(at, Certainty::Known)
                } else {
                    Leads::Nowhere(format!("there is no {}", at.describe(volumes)))
                }
            }
            None if volumes.list().iter().any(|v| v.partuuid == Some(partuuid)) => {
                Leads::Nowhere(match volumes.is_uboot() {
                    true => format!("partition {partuuid} has moved since, and U-Boot then takes it for another one"),
                    false => format!(
                        "it says that partition {partuuid} is number {}, which it is not, and EDK II \
                         compares both",
                        drive.number
                    ),
                })
            }
            None if let Some(unseen) = volumes.unseen(partuuid) => match unseen {
                Unseen::Empty => Leads::Nowhere(format!("partition {partuuid} holds no file system that is known")),
                Unseen::Unknown(why) => Leads::Elsewhere(format!("names partition {partuuid}, and {why}")),
            },
            None if volumes.complete() => Leads::Nowhere(format!("no disk of this machine has partition {partuuid}")),
            None => Leads::Elsewhere(format!(
                "names partition {partuuid}, which is not here: another disk, or one that is gone"
            )),
        };
    }
    match target.lead {
        // U-Boot names a medium by its own numbers: where it has found one only, that is the one of these volumes.
        lead if lead == Lead::File || option.is_only_medium && volumes.is_uboot() => {
            let places = (0..volumes.list().len()).map(|volume| Located { volume, path: path.clone() });
            match places.into_iter().find(|at| volumes.is_file(at)) {
                Some(at) => Leads::To(at, Certainty::Default),
                None if volumes.complete() => Leads::Nowhere(format!("no volume has {path}")),
                None => Leads::Elsewhere(format!("names {path} on any volume, and none here has it")),
            }
        }
        Lead::Device => Leads::Elsewhere(format!("names a device by where it is attached ({})", target.path)),
        Lead::Network => Leads::Elsewhere(format!("leads to the network ({})", target.path)),
        Lead::Firmware => Leads::Elsewhere(format!("starts a part of the firmware ({})", target.path)),
        Lead::File | Lead::Other => Leads::Elsewhere(format!("leads where it cannot be followed ({})", target.path)),
    }
}

/// Whether a node has the partition's number. EDK II compares it and the signature, and nothing else
/// (`BmMatchPartitionDevicePathNode`).
fn has_number(volume: &BootVolume, number: u32) -> bool {
    volume.place.is_none_or(|(own, ..)| own == number)
}

/// Whether a node and a partition agree in number, place and length.
fn is_in_place(volume: &BootVolume, drive: &HardDrive) -> bool {
    volume.place.is_none_or(|place| place == (drive.number, drive.start, drive.sectors))
}

/// With a backslash in front, and no other separators.
fn rooted(file: &str) -> String {
    let path = file.replace('/', "\\");
    if path.starts_with('\\') { path } else { format!("\\{path}") }
}
