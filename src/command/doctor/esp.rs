//! One ESP: what is on it, and whether the image that starts next is sound.

use super::super::examine::{FileHash, examine_hashed};
use super::super::programs::objections;
use super::super::status::report;
use super::super::trust::{TrustRequest, add_disk};
use super::super::{StatusReport, Ui, now};
use super::EspCandidate;
use crate::Result;
use crate::block::ReadAt;
use crate::boot::Variables;
use crate::bootpath::BootScenario;
use crate::disk::Target;
use crate::doctor::{DiskWords, EspPlace, EspView, Finding, Severity, examine_esp, sort};
use crate::efivars::EfiVars;
use crate::esp::{FileKind, Inventory, Place, Runs};
use crate::fat::Health;
use crate::pcr::Bank;
use crate::plan::room_for_one_more;
use crate::verify::{CheckId, CheckStatus, verify};

/// An ESP that was read.
pub(super) struct ExaminedEsp {
    pub(super) place: EspPlace,
    pub(super) words: DiskWords,
    pub(super) esp: Inventory<Box<dyn ReadAt>>,
}

impl ExaminedEsp {
    /// Reads the ESP at `place` and says what is wrong with it.
    pub(super) fn read(
        place: &EspCandidate,
        name: &str,
        variables: &Variables,
        vars: &EfiVars,
        ui: &dyn Ui,
    ) -> Result<(Self, StatusReport)> {
        let (request, target) = (&place.request, place.find()?);
        let context = request.context(&target, vars, None);
        let mut esp = Inventory::read_in(target.open()?, variables.clone(), context)?;
        esp.examine()?;
        // A check-up has the time to look at all of it.
        esp.health = Health::check_whole(&esp.volume)?;
        let words = request.words(&target, esp.arch());
        let room = room_for_one_more(&esp, esp.stamp(now()))?;
        let objections = objections(&esp, vars, BootScenario::Next)?;
        let view = EspView {
            esp: &esp,
            words: words.clone(),
            variables_known: vars.unavailable().is_none(),
            room,
            objections: &objections,
        };
        let mut found = examine_esp(&view);
        found.extend(verified(&view, vars, ui)?);
        let mut found: Vec<Finding> = found.into_iter().map(|f| f.of(name)).collect();
        let users = target.users();
        if !users.is_empty() {
            found.push(
                Finding::new(
                    Severity::Note,
                    "in-use",
                    format!("in use: {}", users.join(", ")),
                    "a swap is refused as long as that is so: the kernel would write over it. Talos mounts the ESP \
                     only during an \
                     installation or upgrade",
                )
                .then("unmount or stop that before a swap")
                .of(name),
            );
        }
        found.extend(layout(&target, &words).into_iter().map(|f| f.of(name)));
        sort(&mut found);
        let warnings = esp.predictions.next.warnings.clone();
        let status = report(&target, &esp, vars.origin(), warnings, found);
        let place = EspPlace {
            name: name.to_owned(),
            partuuid: target.partition.as_ref().map(|p| p.partuuid),
            loader: esp.loader.as_ref().map(|(path, _)| path.clone()),
            has_images: esp.files.iter().any(|f| f.kind == FileKind::Uki),
            arch: esp.arch(),
        };
        let words = request.words(&target, esp.arch());
        Ok((Self { place, words, esp }, status))
    }
}

/// What is noteworthy about the partition table.
fn layout(target: &Target, words: &DiskWords) -> Vec<Finding> {
    let mut findings: Vec<Finding> = target
        .notes()
        .iter()
        .map(|note| {
            let finding = Finding::new(Severity::Warning, note.id, note.what.clone(), note.meaning);
            if note.rewriting_helps && target.rewriting_is_possible() {
                finding.then(format!("`sgdisk -e {}` writes both copies of the table anew", words.disk()))
            } else {
                finding
            }
        })
        .collect();
    if let Err(refusal) = target.check_writable() {
        let finding = Finding::new(
            Severity::Warning,
            "not-written",
            refusal.message(),
            "it is read as it is; every command that would change it is refused",
        );
        findings.push(match refusal.advice() {
            Some(advice) => finding.then(advice),
            None => finding,
        });
    }
    findings
}

/// An ESP without images is no emergency while another one has them, and nothing is to be put there.
pub(super) fn elsewhere(examined: &[ExaminedEsp], esps: &mut [StatusReport]) {
    let with: Vec<&str> = examined.iter().filter(|e| e.place.has_images).map(|e| e.place.name.as_str()).collect();
    if with.is_empty() {
        return;
    }
    let with = with.join(", ");
    for (one, esp) in examined.iter().zip(esps).filter(|(one, _)| !one.place.has_images) {
        for finding in esp.findings.iter_mut().filter(|f| f.id == "nothing-starts") {
            finding.severity = Severity::Warning;
            finding.action = None;
            *finding = finding
                .clone()
                .then(format!("nothing has to be put there: the images are on {with}"))
                .of(&one.place.name);
        }
    }
}

/// Where only one ESP can be meant, commands name its disk.
pub(super) fn name_the_disk(examined: &[ExaminedEsp], findings: &mut [Finding]) {
    let mut with = examined.iter().filter(|e| e.place.has_images);
    let (Some(only), None) = (with.next(), with.next()) else { return };
    for action in findings.iter_mut().filter_map(|f| f.action.as_mut()) {
        *action = only.words.name_disk(action);
    }
}

/// The image that starts next, read whole: is it intact, and would the firmware take it?
fn verified<S: ReadAt>(view: &EspView<'_, S>, vars: &EfiVars, ui: &dyn Ui) -> Result<Vec<Finding>> {
    let (esp, words) = (view.esp, &view.words);
    let place = esp.place().ok().flatten();
    // What is set for one start may lead elsewhere.
    let starts_next =
        |place: &&Place| matches!(esp.runs(BootScenario::Next).0, Runs::Image { at, .. } if at == place.at);
    let (name, bytes) = match (esp.selected(), place.as_ref().filter(starts_next)) {
        (_, Some(place)) if place.image.kind == FileKind::Uki => match esp.open_at(&place.at) {
            Ok(Some(bytes)) => (place.words(), bytes),
            _ => return Ok(Vec::new()),
        },
        (Some(file), None) if file.kind == FileKind::Uki => match esp.volume.file(&file.entry) {
            Ok(bytes) => (file.name().to_owned(), Box::new(bytes) as Box<dyn ReadAt + '_>),
            Err(_) => return Ok(Vec::new()),
        },
        _ => return Ok(Vec::new()),
    };
    // Whether anybody trusts the signer is the firmware's business here; whether the bytes are intact is ours.
    let mut policy = TrustRequest { allow_untrusted: true, ..TrustRequest::default() }.policy(vars, ui)?;
    policy.firmware_is_the_boards = true;
    add_disk(&mut policy, esp, place.as_ref(), ui)?;
    let examined = examine_hashed(&bytes, &[Bank::Sha256], FileHash::Unwanted, &mut [], ui)?;
    let report = verify(&examined.facts, &policy);
    let way_out = format!("{}, or {}", words.command("restore", ""), words.swap_from_factory());
    let mut findings = Vec::new();
    // Said of the way, where the firmware starts it itself.
    let is_said = view.objections.iter().any(|o| o.is_image);
    if let Some(why) = report.firmware_refuses.as_ref().filter(|_| !is_said) {
        findings.push(
            Finding::new(
                Severity::Problem,
                "firmware-refuses",
                format!("the firmware will refuse {name}, which starts next: {why}"),
                "systemd-boot tries no other entry: the board does not come up (\"Access denied\" or \"Security \
                 Violation\" on the \
                 console)",
            )
            .then(way_out.clone()),
        );
    }
    let is_signed = examined.facts.signatures.as_ref().is_ok_and(|s| !s.is_empty());
    let bad = |c: &&crate::verify::Check| {
        let changed = c.id == CheckId::AuthenticodeDigest && is_signed && c.status == CheckStatus::Warn;
        c.status == CheckStatus::Fail || changed
    };
    let firmware_said_so = report.firmware_refuses.is_some();
    for check in report.checks.iter().filter(bad) {
        if firmware_said_so && matches!(check.id, CheckId::AuthenticodeDigest | CheckId::Revocation) {
            continue;
        }
        findings.push(
            Finding::new(
                Severity::Problem,
                "selected-image-bad",
                format!("{name} starts next, and `{}` fails: {}", check.id.name(), check.detail),
                "it was damaged or changed since it was built; it may not start, or not unlock the disks",
            )
            .then(way_out.clone()),
        );
    }
    if findings.is_empty() && !is_said && policy.firmware.secure_boot == Some(true) {
        findings.push(Finding::new(
            Severity::Ok,
            "signature",
            format!("the signature of {name} is good"),
            "checked against db and dbx",
        ));
    }
    Ok(findings)
}

pub(super) fn unreadable_esp(name: &str, e: &crate::Error) -> Finding {
    let finding =
        Finding::new(Severity::Problem, "esp-unreadable", e.to_string(), "nothing is known about what is on it");
    match e.advice() {
        Some(advice) => finding.then(advice),
        None => finding,
    }
    .of(name)
}
