//! Whether the programs on the way of the boot are started at all, with Secure Boot on.
//!
//! The firmware verifies each program that it is asked to start against db and dbx, and knows nothing of SBAT. Behind
//! shim it is shim that decides: by db, dbx, the keys of the machine's owner (MOK), a certificate of its own, and the
//! SBAT level, which it holds its own data against as well. What shim's own certificate makes good cannot be told from
//! here.

use super::Silent;
use super::examine::{FileHash, examine_hashed};
use crate::block::ReadAt;
use crate::boot::lenient_string;
use crate::bootpath::{BootScenario, Located, ProgramKind};
use crate::disk::{PartUuid, Target};
use crate::doctor::{Judge, Objection};
use crate::efivars::{EfiVars, LOADER, SHIM};
use crate::esp::{FileKind, Inventory, Place};
use crate::trust::Firmware;
use crate::verify::{ImageFacts, Policy, verify};
use crate::{Code, Error, Result};

/// What speaks against the programs on the way of a scenario. Nothing does where Secure Boot is off or its state is not
/// known.
///
/// # Errors
/// What the source reports.
pub(super) fn objections<S: ReadAt>(
    esp: &Inventory<S>,
    vars: &EfiVars,
    scenario: BootScenario,
) -> Result<Vec<Objection>> {
    objections_but(esp, vars, scenario, None)
}

/// [`objections`], without those to a program that is about to be replaced.
fn objections_but<S: ReadAt>(
    esp: &Inventory<S>,
    vars: &EfiVars,
    scenario: BootScenario,
    replaced: Option<&Located>,
) -> Result<Vec<Objection>> {
    // Variables that cannot be read are reported where the image is verified.
    let firmware = Firmware::read(vars).unwrap_or_default();
    if firmware.secure_boot != Some(true) {
        return Ok(Vec::new());
    }
    let image = esp.place().ok().flatten().map(|place| place.at);
    let mut found = Vec::new();
    let mut behind_shim = false;
    for (at, kind) in esp.way(scenario).programs.iter().filter(|(at, _)| Some(at) != replaced) {
        let Some(file) = esp.open_at(at)? else { continue };
        let facts = examine_hashed(&file, &[], FileHash::Unwanted, &mut [], &Silent::default())?.facts;
        let is_shim = *kind == ProgramKind::Shim;
        let is_image = image.as_ref() == Some(at);
        let objection = |judge, why: Option<String>| {
            let is_systemd_boot = matches!(kind, ProgramKind::SystemdBoot(_));
            why.map(|why| Objection { place: esp.describe_place(at), judge, why, is_image, is_systemd_boot })
        };
        found.extend(if behind_shim {
            let why = below_level(&facts, &firmware).or_else(|| refused_by_shim(&facts, &firmware, vars));
            objection(Judge::Shim, why)
        } else {
            let judge = if is_shim { Judge::Shim } else { Judge::Nobody };
            objection(Judge::Firmware, refused(&facts, firmware.clone()))
                .or_else(|| objection(judge, below_level(&facts, &firmware)))
        });
        behind_shim |= is_shim;
    }
    Ok(found)
}

/// Refuses to promise that the board starts an image, where it does not come by the programs before it. `place` is the
/// image, where it is one of these programs and replaced.
///
/// # Errors
/// [`Code::WouldNotBoot`]. Where the variables may be those of another machine it is a warning, which is returned.
pub(super) fn refuse_distrusted<S: ReadAt>(
    esp: &Inventory<S>,
    vars: &EfiVars,
    are_the_boards: bool,
    place: Option<&Place>,
) -> Result<Vec<String>> {
    let objections = objections_but(esp, vars, BootScenario::Later, place.map(|place| &place.at))?;
    let refused = objections.iter().filter(|o| o.judge != Judge::Nobody);
    let refused: Vec<String> = refused.map(ToString::to_string).collect();
    if refused.is_empty() {
        return Ok(objections.iter().map(ToString::to_string).collect());
    }
    let refused = refused.join("; ");
    if !are_the_boards {
        return Ok(vec![format!("if these are the variables of the board that starts from here: {refused}")]);
    }
    Err(Error::new(Code::WouldNotBoot, format!("the board never gets to its images: {refused}")).advise(
        "replace that program by one that is signed for this board (`loader` does that for a systemd-boot: it is on \
         the Secure Boot ISO that the image comes from), or enrol its key; `--efivars none` if the variables are those of another machine",
    ))
}

/// Why firmware refuses a program.
fn refused(facts: &ImageFacts, firmware: Firmware) -> Option<String> {
    let is_unsigned = facts.signatures.as_ref().is_ok_and(Vec::is_empty);
    let policy = Policy { firmware, firmware_is_the_boards: true, allow_untrusted: true, ..Policy::default() };
    let why = verify(facts, &policy).firmware_refuses?;
    Some(if is_unsigned {
        "Secure Boot is on, and it is not signed".to_owned()
    } else {
        why.replace("the image", "it")
    })
}

/// Why shim refuses what it starts, as far as that is certain.
fn refused_by_shim(facts: &ImageFacts, firmware: &Firmware, vars: &EfiVars) -> Option<String> {
    // Of the certificates only those of dbx are known to decide.
    let by_dbx = Firmware { db: None, db_images: Vec::new(), ..firmware.clone() };
    if let Some(why) = refused(facts, by_dbx) {
        return Some(why);
    }
    // A list of the owner's may hold its hash, and the owner may have switched the verification off.
    let owner = ["MokListRT", "MokSBStateRT"].iter().any(|name| !matches!(vars.read(name, SHIM), Ok(None)));
    let in_db = facts.digest.as_ref().is_ok_and(|digest| firmware.db_images.contains(&digest.sha256));
    let is_unsigned = facts.signatures.as_ref().is_ok_and(Vec::is_empty);
    (is_unsigned && !in_db && !owner).then(|| "Secure Boot is on, and it is not signed".to_owned())
}

/// Why shim refuses it for its age.
fn below_level(facts: &ImageFacts, firmware: &Firmware) -> Option<String> {
    let sbat = facts.sbat.as_ref().ok()?.as_ref()?;
    let below = sbat.below(firmware.sbat_level.as_ref()?);
    let words = below
        .iter()
        .map(|(name, has, lowest)| format!("its {name} is of SBAT generation {has}, and the level asks for {lowest}"));
    (!below.is_empty()).then(|| words.collect::<Vec<_>>().join(", "))
}

/// Images in the menu that firmware with Secure Boot on refuses, each with the reason. None are known behind shim,
/// which has certificates of its own. And where the firmware takes none of the images, it is more likely that these are
/// the variables of another machine: a disk of a board, attached to a workstation. Nothing is taken out of the way for
/// that.
///
/// # Errors
/// What the source reports.
pub(super) fn refused_images<S: ReadAt>(esp: &Inventory<S>, vars: &EfiVars) -> Result<Vec<(String, String)>> {
    let firmware = Firmware::read(vars).unwrap_or_default();
    let has_shim = |scenario| esp.way(scenario).programs.iter().any(|(_, kind)| *kind == ProgramKind::Shim);
    if firmware.secure_boot != Some(true)
        || [BootScenario::Next, BootScenario::Later, BootScenario::Reset].into_iter().any(has_shim)
    {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let images: Vec<_> = esp.files.iter().filter(|f| f.kind == FileKind::Uki && !f.is_foreign).collect();
    for file in &images {
        let bytes = esp.volume.file(&file.entry)?;
        let facts = examine_hashed(&bytes, &[], FileHash::Unwanted, &mut [], &Silent::default())?.facts;
        found.extend(refused(&facts, firmware.clone()).map(|why| (file.name().to_owned(), why)));
    }
    if found.len() == images.len() {
        found.clear();
    }
    Ok(found)
}

/// Whether the variables say that systemd-boot was started from this partition the last time (LoaderDevicePartUUID):
/// those of the machine that a disk is attached to need not be those of the board that starts from it.
pub(super) fn started_from(target: &Target, vars: &EfiVars) -> bool {
    let text = vars.read("LoaderDevicePartUUID", LOADER).ok().flatten().map(|v| lenient_string(&v.data));
    let uuid = text.and_then(|text| uuid::Uuid::try_parse(&text).ok());
    let partition = target.partition.as_ref().map(|p| p.partuuid);
    uuid.is_some_and(|uuid| partition == Some(PartUuid::Gpt(uuid)))
}
