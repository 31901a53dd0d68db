//! The way of the boot: from the firmware to the file that runs.
//!
//! What a board starts is decided in several places, one after the other. Each is a [`WayStep`] with what is chosen
//! there, why, and how sure that is:
//!
//! | step | decides | by |
//! | --- | --- | --- |
//! | `firmware` | which program, on which partition | BootNext, BootOrder and `Boot####` ([`BootOptions`]); else the removable-media path of the architecture |
//! | `program` | what that program is | its sections and its SBAT data ([`Program`]), never its name |
//! | `menu` | which entry | systemd-boot's own rules ([`crate::boot`]) |
//! | `image` | which file | the entry |
//! | `kernel` | with which command line | the image, and addons beside it |
//!
//! A program that is not known ends the way: what it starts cannot be told from here. The way can end in something that
//! is no UKI (GRUB, a kernel with its initrd), or in nothing.
//!
//! Pure: facts come through [`Volumes`], and nothing here knows where they are from.

mod firmware;
mod load_option;
mod program;

#[cfg(test)]
mod tests;

pub use firmware::{BootVolume, FirmwareStart, Located, Unseen, Volumes, removable_path};
pub use load_option::{BootOption, BootOptions, BootTarget, HardDrive, Lead};
pub use program::{Program, ProgramKind};

use serde::Serialize;

/// How sure a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// Something says so that was read: a variable, a file.
    Known,
    /// Nothing says otherwise, and this is what happens then.
    Default,
    /// It cannot be known from here, and the reason is said.
    Unknown,
}

/// The places where something is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StepKind {
    /// The firmware's boot manager.
    Firmware,
    /// A program that the firmware or another program starts.
    Program,
    /// The menu of systemd-boot.
    Menu,
    /// The file that is started last.
    Image,
    /// The kernel in it.
    Kernel,
}

/// A step of the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WayStep {
    /// Where the decision is made.
    pub step: StepKind,
    /// What is chosen.
    pub what: String,
    /// Where that is: a path, and on which partition.
    #[serde(rename = "where")]
    pub place: Option<String>,
    /// Why that one.
    pub why: String,
    /// How sure it is.
    pub certainty: Certainty,
}

impl WayStep {
    #[cfg(test)]
    pub(crate) fn firmware(what: &str, place: Option<&str>) -> Self {
        let place = place.map(str::to_owned);
        Self {
            step: StepKind::Firmware,
            what: what.to_owned(),
            place,
            why: String::new(),
            certainty: Certainty::Default,
        }
    }
}

/// The start that is looked at: which EFI variables it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootScenario {
    /// The next start: BootNext and the one-shot variables count.
    Next,
    /// The starts after it: what is meant for one start is used up.
    Later,
    /// A start without any variable: NVRAM was reset.
    Reset,
}

/// What the way ends in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// A UKI on one of the volumes.
    Uki(Located),
    /// The menu of a systemd-boot; which of its entries is for [`crate::boot`] to say.
    Menu {
        /// The systemd-boot.
        loader: crate::boot::Loader,
        /// Where it lies: its volume is the one whose `EFI/Linux` it reads.
        at: Located,
    },
    /// Something else, and what.
    Other(String),
    /// Nothing starts, and why.
    Nothing(String),
    /// It cannot be told from here, and why.
    Unknown(String),
}

/// The way up to the program that chooses a system, or is one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Way {
    /// Its steps, in order.
    pub steps: Vec<WayStep>,
    /// What it ends in.
    pub end: End,
    /// Why something outside of these volumes may start instead: boot options that come first and lead where nothing
    /// can be looked at.
    pub in_doubt: Vec<String>,
    /// Boot options that are passed over, and why.
    pub passed_over: Vec<String>,
    /// The first file on it that should start and cannot: it is no EFI program, or has no kernel.
    pub broken: Option<Located>,
    /// What a UKI at its end gets as LoadOptions from the firmware, where systemd's stub takes them for text.
    pub load_options: Option<String>,
    /// By which means the firmware came to the first program.
    pub by: FirmwareStart,
    /// The programs on it, in their order; the second one and what follows is started by the one before it.
    pub programs: Vec<(Located, ProgramKind)>,
}

impl Way {
    /// Follows the way from the firmware over the programs it starts.
    #[must_use]
    pub fn follow(options: &BootOptions, scenario: BootScenario, volumes: &dyn Volumes) -> Self {
        let started = firmware::start(options, scenario, volumes);
        let mut way = Self {
            steps: vec![started.step],
            end: End::Nothing(String::new()),
            in_doubt: started.in_doubt,
            passed_over: started.passed_over,
            broken: started.broken,
            load_options: None,
            by: started.by,
            programs: Vec::new(),
        };
        way.end = match started.program {
            Some(at) => way.programs(at, &started.optional, volumes),
            None => End::Nothing(way.steps[0].why.clone()),
        };
        way
    }

    /// The profile of the UKI at its end that the firmware asks for.
    #[must_use]
    pub fn profile(&self) -> u32 {
        self.load_options.as_deref().map_or(0, |options| split_profile(options).0)
    }

    /// The program there, and what it starts.
    fn programs(&mut self, at: Located, optional: &[u8], volumes: &dyn Volumes) -> End {
        let program = match volumes.program(&at) {
            Ok(Some(program)) => program,
            Ok(None) => return End::Nothing(format!("{} is not there", at.path)),
            Err(why) => return self.unreadable(&at, volumes, why),
        };
        self.steps.push(WayStep {
            step: StepKind::Program,
            what: program.to_string(),
            place: Some(at.describe(volumes)),
            why: program.evidence.clone(),
            certainty: if program.kind == ProgramKind::Unknown { Certainty::Unknown } else { Certainty::Known },
        });
        self.programs.push((at.clone(), program.kind.clone()));
        match program.kind {
            ProgramKind::SystemdBoot(loader) => End::Menu { loader, at },
            ProgramKind::Uki => {
                self.load_options = stub_options(optional);
                End::Uki(at)
            }
            ProgramKind::Shim => self.second_stage(&at, optional, volumes),
            ProgramKind::Unknown => End::Unknown(format!("{} is no boot loader that is known", at.path)),
            ProgramKind::Addon => {
                self.broken.get_or_insert(at);
                End::Other(program.to_string())
            }
            _ => End::Other(program.to_string()),
        }
    }

    fn unreadable(&mut self, at: &Located, volumes: &dyn Volumes, why: String) -> End {
        self.broken.get_or_insert_with(|| at.clone());
        self.steps.push(WayStep {
            step: StepKind::Program,
            what: "a file that is not an EFI program".to_owned(),
            place: Some(at.describe(volumes)),
            why: why.clone(),
            certainty: Certainty::Known,
        });
        End::Nothing(format!("{} is not an EFI program: {why}", at.path))
    }

    /// What shim starts: the file named in its options, else `grub<arch>.efi` beside it, whatever that is; and from
    /// `EFI/BOOT` first of all the program that makes boot options anew, if it is there (shim's README.fallback).
    fn second_stage(&mut self, shim: &Located, optional: &[u8], volumes: &dyn Volumes) -> End {
        let (dir, name) = shim.path.rsplit_once('\\').unwrap_or(("", &shim.path));
        let suffix = volumes.arch().removable_loader().trim_start_matches("BOOT").to_ascii_lowercase();
        let beside = |file: String| Located { volume: shim.volume, path: format!("{dir}\\{file}") };
        let fallback = beside(format!("fb{suffix}"));
        let is_removable = name.eq_ignore_ascii_case(volumes.arch().removable_loader());
        if is_removable && volumes.program(&fallback).is_ok_and(|p| p.is_some()) {
            let why = format!(
                "{} makes boot options out of the BOOT*.CSV files it finds and starts one of them",
                fallback.path
            );
            self.steps.push(WayStep {
                step: StepKind::Program,
                what: "shim's fallback".to_owned(),
                place: Some(fallback.describe(volumes)),
                why: "shim starts it when it was started from EFI/BOOT".to_owned(),
                certainty: Certainty::Known,
            });
            return End::Unknown(why);
        }
        let named: Vec<u16> = optional.as_chunks::<2>().0.iter().map(|u| u16::from_le_bytes(*u)).collect();
        let named = String::from_utf16_lossy(&named);
        let named = named.trim_matches(['\0', ' ']);
        let usual = beside(format!("grub{suffix}"));
        let next = match named {
            "" => usual,
            named => {
                let path = if named.starts_with('\\') { named.to_owned() } else { beside(named.to_owned()).path };
                let named = Located { volume: shim.volume, path };
                // What is not there is not the end: shim goes back to the usual one (`init_grub` in shim.c).
                if matches!(volumes.program(&named), Ok(None)) { usual } else { named }
            }
        };
        match volumes.program(&next) {
            Ok(Some(program)) if program.kind == ProgramKind::Shim => {
                End::Unknown(format!("{} is another shim", next.path))
            }
            Ok(Some(_)) => self.programs(next, &[], volumes),
            Ok(None) => End::Nothing(format!("shim starts {}, which is not there", next.path)),
            Err(why) => self.unreadable(&next, volumes, why),
        }
    }
}

/// LoadOptions as systemd's stub reads them (`process_arguments` in stub.c): UTF-16 up to a NUL; what does not begin
/// with a character that is shown is something of the firmware's.
fn stub_options(optional: &[u8]) -> Option<String> {
    let units = optional.as_chunks::<2>().0.iter().map(|u| u16::from_le_bytes(*u));
    let text: Vec<u16> = units.take_while(|u| *u != 0).collect();
    text.first().filter(|first| **first > 0x1F)?;
    Some(String::from_utf16_lossy(&text))
}

/// A leading `@N`, by which systemd's stub takes profile N, and what follows (`parse_profile_from_cmdline` in stub.c).
pub(crate) fn split_profile(options: &str) -> (u32, &str) {
    let Some(rest) = options.strip_prefix('@') else { return (0, options) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, tail) = rest.split_at(digits);
    match number.parse() {
        Ok(number) if tail.is_empty() || tail.starts_with(' ') => (number, tail.trim_start_matches(' ')),
        _ => (0, options),
    }
}
