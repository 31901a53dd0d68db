//! The boot options, held against the ESPs that were read.

use super::ExaminedEsp;
use crate::bootpath::{BootOptions, BootScenario, BootVolume, Located, Program, Unseen, Volumes, Way};
use crate::disk::PartUuid;
use crate::doctor::{DecodedVariable, EspPlace, Finding, Severity, what_starts};
use crate::efivars::EfiVars;
use crate::pe::Arch;

/// Every ESP that was read, as firmware sees them.
struct AllEsps<'e> {
    examined: &'e [ExaminedEsp],
    list: Vec<BootVolume>,
    complete: bool,
    is_uboot: bool,
}

impl Volumes for AllEsps<'_> {
    fn list(&self) -> &[BootVolume] {
        &self.list
    }

    fn unseen(&self, _: PartUuid) -> Option<Unseen<'_>> {
        None
    }

    fn complete(&self) -> bool {
        self.complete
    }

    fn arch(&self) -> Arch {
        self.examined.iter().find_map(|e| e.place.arch).unwrap_or(Arch::Arm64)
    }

    fn is_uboot(&self) -> bool {
        self.is_uboot
    }

    fn program(&self, at: &Located) -> Result<Option<Program>, String> {
        self.examined.get(at.volume).map_or(Ok(None), |e| e.esp.program(&at.path))
    }

    fn is_file(&self, at: &Located) -> bool {
        let path = at.path.replace('\\', "/");
        self.examined.get(at.volume).is_some_and(|e| {
            e.esp.volume.find(path.trim_start_matches('/')).ok().flatten().is_some_and(|entry| !entry.is_dir())
        })
    }
}

/// Decodes the boot options, holds them against the ESPs, and says what the firmware starts.
pub(super) fn boot_options(
    vars: &EfiVars,
    examined: &[ExaminedEsp],
    (complete, unread): (bool, &[String]),
    findings: &mut Vec<Finding>,
) -> (BootOptions, String) {
    let mut options = BootOptions::read(vars);
    let list =
        examined.iter().map(|e| BootVolume { name: e.place.name.clone(), partuuid: e.place.partuuid, place: None });
    let esps = AllEsps { examined, list: list.collect(), complete, is_uboot: vars.is_uboot() };
    options.check(&esps);
    let way = Way::follow(&options, BootScenario::Next, &esps);
    let places: Vec<EspPlace> = examined.iter().map(|e| e.place.clone()).collect();
    let (sentence, found) = what_starts(&way, &options, &places, unread);
    findings.extend(found);
    (options, sentence)
}

pub(super) fn misread(v: &DecodedVariable) -> Option<Finding> {
    let problem = v.problem.as_ref()?;
    let what = format!("{} {problem}", v.name);
    if v.name == "LoaderEntryOneShot" && v.value.starts_with("kexec") {
        let meaning = "Linux leaves it when it restarts by kexec; it matches no entry and is used up at the next start";
        return Some(Finding::new(Severity::Note, "kexec-note", what, meaning));
    }
    let meaning = format!("the boot loader goes by what it reads. The variable: {}", v.meaning);
    Some(Finding::new(Severity::Warning, "variable-misread", what, meaning))
}
