//! The boot options, held against the ESPs that were read.

use super::Examined;
use crate::doctor::{BootOptions, DecodedVariable, EspPlace, Finding, Severity, what_starts};
use crate::efivars::EfiVars;
use uuid::Uuid;

/// Decodes the boot options and holds them against the ESPs.
pub(super) fn boot_options(
    vars: &EfiVars,
    examined: &[Examined],
    complete: bool,
    findings: &mut Vec<Finding>,
) -> (BootOptions, String) {
    let mut options = BootOptions::read(vars);
    let look = |partuuid: Uuid, file: Option<&str>| {
        let on = examined.iter().find(|e| e.place.partuuid == Some(partuuid))?;
        Some(match file {
            Some(file) => on.esp.volume.find(&file.replace('\\', "/")).ok().flatten().is_some_and(|e| !e.is_dir()),
            // A path that ends at the partition means its removable-media loader (UEFI specification, 3.1.2).
            None => on.place.loader.is_some(),
        })
    };
    options.check(complete, look);
    let places: Vec<EspPlace> = examined.iter().map(|e| e.place.clone()).collect();
    let (sentence, found) = what_starts(&options, &places);
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
