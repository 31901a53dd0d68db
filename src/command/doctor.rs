//! `doctor`: firmware, variables and every ESP, what is wrong with them and the next command. Reads only.

use super::copy::unpack;
use super::examine::examine;
use super::status::report;
use super::trust::{TrustRequest, add_disk};
use super::{DiskRequest, Event, StatusReport, Ui, VariablesChoice, boot_variables, check_cancelled};
use crate::Result;
use crate::block::{FileSource, ReadAt};
use crate::boot::{Variables, lenient_string};
use crate::disk::{Gpt, Target};
use crate::doctor::{
    BootOptions, DecodedVariable, DiskWords, EspPlace, EspView, Finding, FirmwareFacts, Machine, Severity,
    decode_variables, examine_esp, explain, firmware, several_esps, sort, what_starts,
};
use crate::efivars::{EfiVars, LOADER};
use crate::esp::{FileKind, Inventory};
use crate::packed::Unpacked;
use crate::pcr::Bank;
use crate::verify::{CheckId, Status as CheckStatus, verify};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// More ESPs than this are not looked at.
const MAX_ESPS: usize = 64;

/// What `doctor` is asked for.
#[derive(Debug)]
pub struct Doctor {
    /// The disks; every disk of this machine if none is named.
    pub disks: Vec<PathBuf>,
    /// `--partition`, for one disk.
    pub partition: Option<String>,
    /// `--efivars`.
    pub efivars: VariablesChoice,
    /// Where the machine's `/proc`, `/sys` and `/dev` are.
    pub root: PathBuf,
    /// A line of text to explain; without disks and variables nothing else is looked at.
    pub error: Option<String>,
}

/// What it found.
#[derive(Debug, Serialize)]
pub struct DoctorReport {
    /// How bad the worst finding is.
    pub worst: Severity,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// The firmware.
    pub firmware: Option<FirmwareFacts>,
    /// The variables of systemd-boot and its stub.
    pub variables: Vec<DecodedVariable>,
    /// `Boot####` and its order.
    pub boot_options: BootOptions,
    /// What the firmware itself starts, in a sentence.
    pub firmware_starts: Option<String>,
    /// Every ESP, as `status` shows it.
    pub esps: Vec<StatusReport>,
}

/// An ESP that is to be looked at.
struct Place {
    request: DiskRequest,
    /// The disk image, if it is packed.
    unpacked: Option<Unpacked>,
}

impl Place {
    fn find(&self) -> Result<Target> {
        let DiskRequest { path, partition, .. } = &self.request;
        match &self.unpacked {
            Some(image) => Target::find_unpacked(path, image, partition.as_deref()),
            None => Target::find(path, partition.as_deref()),
        }
    }
}

/// An ESP that was read.
struct Examined {
    place: EspPlace,
    words: DiskWords,
    esp: Inventory<Box<dyn ReadAt>>,
}

impl Doctor {
    /// Looks.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] and [`crate::Kind::Rejected`] when a disk that was named cannot be read or is none;
    /// [`crate::Kind::Cancelled`]. Whatever is wrong *with* a disk is a finding and no error.
    pub fn run(&self, ui: &dyn Ui) -> Result<DoctorReport> {
        let mut findings = self.error.as_deref().map(explain).unwrap_or_default();
        if self.error.is_some() && self.disks.is_empty() && self.efivars == VariablesChoice::Unsaid {
            return Ok(DoctorReport::new(findings));
        }
        let machine = Machine::read(&self.root);
        let (mut requests, complete) = self.requests(&machine, &mut findings, ui)?;
        let is_this_machine = self.disks.is_empty();
        let vars = self.variables(&machine, is_this_machine);
        let ours = is_this_machine && self.efivars == VariablesChoice::Unsaid
            || vars.dir().is_some_and(|dir| machine.mount_of(dir).is_some());
        let (facts, mut about) = firmware(&vars, ours.then_some(&machine));
        let (variables, unreadable) = boot_variables(&vars);
        for what in unreadable {
            let finding = Finding::new(Severity::Warning, "variable-unreadable", what, "it counts as absent");
            if !findings.iter().any(|f| f.what == finding.what) {
                findings.push(finding);
            }
        }

        let (mut examined, mut esps) = (Vec::new(), Vec::new());
        if requests.len() > MAX_ESPS {
            let what = format!("{} ESPs: only the first {MAX_ESPS} are looked at", requests.len());
            findings.push(Finding::new(Severity::Warning, "too-many-esps", what, "name the disk that is meant"));
            requests.truncate(MAX_ESPS);
        }
        for place in &requests {
            let request = &place.request;
            check_cancelled(ui)?;
            let name = name_of(request);
            ui.event(Event::Step(format!("reading the ESP of {name}")));
            match self.one(place, &name, &variables, &vars, ui) {
                Ok((one, status)) => {
                    examined.push(one);
                    esps.push(status);
                }
                Err(e) if e.kind() == crate::Kind::Cancelled => return Err(e),
                // One disk that was named, and it cannot be opened or is none: there is nothing to report on.
                Err(e) if requests.len() == 1 && !self.disks.is_empty() && request.partition.is_none() => {
                    return Err(e);
                }
                Err(e) => findings.push(unreadable_esp(&name, &e)),
            }
        }
        elsewhere(&examined, &mut esps);
        name_the_disk(&examined, &mut about);
        findings.extend(about);
        findings.extend(esps.iter().flat_map(|e| e.findings.iter().cloned()));
        let loader = examined.iter().find_map(|e| Some(&e.esp.loader.as_ref()?.1.as_ref()?.version));
        let decoded = decode_variables(&vars, loader);
        findings.extend(decoded.iter().filter_map(misread));
        let (boot_options, firmware_starts) = boot_options(&vars, &examined, complete, &mut findings);
        let places: Vec<EspPlace> = examined.iter().map(|e| e.place.clone()).collect();
        let booted = vars.read("LoaderDevicePartUUID", LOADER).ok().flatten();
        let booted = booted.and_then(|v| Uuid::try_parse(&lenient_string(&v.data)).ok());
        findings.extend(several_esps(&places, booted, complete));
        let mut report = DoctorReport::new(findings);
        report.firmware = Some(facts);
        report.variables = decoded;
        report.boot_options = boot_options;
        report.firmware_starts = Some(firmware_starts);
        report.esps = esps;
        Ok(report)
    }

    /// Every ESP that is to be looked at, and whether that is certainly every ESP of this machine.
    fn requests(&self, machine: &Machine, findings: &mut Vec<Finding>, ui: &dyn Ui) -> Result<(Vec<Place>, bool)> {
        if !self.disks.is_empty() {
            let mut all = Vec::new();
            for disk in &self.disks {
                let found = self.esps_of(disk, ui)?;
                if found.is_empty() {
                    findings.push(no_esp(disk));
                }
                all.extend(found);
            }
            return Ok((all, false));
        }
        let (disks, missing) = machine.disks();
        let mut complete = missing.is_empty();
        for name in missing {
            findings.push(
                Finding::new(
                    Severity::Warning,
                    "disk-without-node",
                    format!("the kernel knows the disk {name}, and it has no node in /dev"),
                    "in a container only the devices that were handed to it are there: the ESP may be on this disk",
                )
                .then("mount the node's /dev into the pod (hostPath), or run privileged"),
            );
        }
        let mut all = Vec::new();
        for disk in &disks {
            match self.esps_of(disk, ui) {
                Ok(found) => all.extend(found),
                // Most disks of a machine have no ESP, and some no medium.
                Err(e) if e.kind() == crate::Kind::Rejected => {}
                Err(e) => {
                    complete = false;
                    let meaning = "whether it has an ESP is not known: no medium, or this process may not read it";
                    let finding = Finding::new(Severity::Warning, "disk-unreadable", e.to_string(), meaning);
                    findings.push(
                        finding.then("run as root, in a pod privileged; or ignore it if it is an empty card reader"),
                    );
                }
            }
        }
        if all.is_empty() {
            let looked = match disks.len() {
                0 => "no disk is to be seen here".to_owned(),
                n => format!("no EFI System Partition on {n} disks"),
            };
            findings.push(
                Finding::new(
                    Severity::Warning,
                    "no-esp",
                    looked,
                    "there is nothing that UEFI firmware could start from",
                )
                .then("name the disk or image: `bootsurgeon doctor DISK`"),
            );
        }
        Ok((all, complete))
    }

    /// The ESPs of a disk; the disk itself when it has no partition table.
    fn esps_of(&self, disk: &Path, ui: &dyn Ui) -> Result<Vec<Place>> {
        let unpacked = unpack(disk, ui)?;
        let request = |partition| Place {
            request: DiskRequest { path: disk.to_owned(), partition, efivars: self.efivars.clone() },
            unpacked: unpacked.clone(),
        };
        if self.partition.is_some() {
            return Ok(vec![request(self.partition.clone())]);
        }
        let source = match &unpacked {
            Some(image) => Arc::clone(image.source()),
            None => Arc::new(FileSource::open(disk)?),
        };
        let Some(gpt) = Gpt::read(&*source, source.device_sector_size())? else {
            // Not a partition table: a bare FAT volume, or an error that says what it is not.
            let place = request(None);
            place.find()?;
            return Ok(vec![place]);
        };
        let esps: Vec<_> = gpt.partitions.iter().filter(|p| p.is_esp()).collect();
        Ok(match esps.as_slice() {
            [_] => vec![request(None)],
            several => several.iter().map(|p| request(Some(p.number.to_string()))).collect(),
        })
    }

    fn variables(&self, machine: &Machine, is_this_machine: bool) -> EfiVars {
        let ours = || self.disks.iter().all(|d| FileSource::open(d).is_ok_and(|s| s.is_block_device()));
        match &self.efivars {
            VariablesChoice::None => EfiVars::open(None),
            VariablesChoice::Dir(dir) => EfiVars::open(Some(dir)),
            VariablesChoice::Unsaid if is_this_machine || ours() => EfiVars::open(Some(&machine.variables())),
            VariablesChoice::Unsaid => EfiVars::open(None),
        }
    }

    fn one(
        &self,
        place: &Place,
        name: &str,
        variables: &Variables,
        vars: &EfiVars,
        ui: &dyn Ui,
    ) -> Result<(Examined, StatusReport)> {
        let (request, target) = (&place.request, place.find()?);
        let mut esp = Inventory::read(target.open()?, variables.clone())?;
        esp.examine()?;
        let words = request.words(&target, esp.arch());
        let view = EspView { esp: &esp, words, variables_known: vars.dir().is_some() };
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
                    "a swap is refused as long as that is so: the kernel would write over it. Talos mounts the ESP only during an \
                     installation or upgrade",
                )
                .then("unmount or stop that before a swap")
                .of(name),
            );
        }
        for warning in &target.warnings {
            found.push(
                Finding::new(Severity::Warning, "partition-table", warning.clone(), "firmware may read the other copy")
                    .then("`sgdisk -v` looks at both copies, `sgdisk -e` and its recovery menu mend them")
                    .of(name),
            );
        }
        sort(&mut found);
        let warnings = esp.worlds[0].warnings.clone();
        let status = report(&target, &esp, warnings, found);
        let place = EspPlace {
            name: name.to_owned(),
            partuuid: target.partition.as_ref().map(|p| p.partuuid),
            loader: esp.loader.as_ref().map(|(path, _)| path.clone()),
            has_images: esp.files.iter().any(|f| f.kind == FileKind::Uki),
            arch: esp.arch(),
        };
        let words = request.words(&target, esp.arch());
        Ok((Examined { place, words, esp }, status))
    }
}

impl DoctorReport {
    fn new(mut findings: Vec<Finding>) -> Self {
        sort(&mut findings);
        Self {
            worst: findings.first().map_or(Severity::Ok, |f| f.severity),
            findings,
            firmware: None,
            variables: Vec::new(),
            boot_options: BootOptions::default(),
            firmware_starts: None,
            esps: Vec::new(),
        }
    }
}

/// An ESP without images is no emergency while another one has them, and nothing is to be put there.
fn elsewhere(examined: &[Examined], esps: &mut [StatusReport]) {
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
fn name_the_disk(examined: &[Examined], findings: &mut [Finding]) {
    let mut with = examined.iter().filter(|e| e.place.has_images);
    let (Some(only), None) = (with.next(), with.next()) else { return };
    for action in findings.iter_mut().filter_map(|f| f.action.as_mut()) {
        *action = action.replace(" DISK", &format!(" {}", only.words.disk()));
    }
}

/// The image that starts next, read whole: is it intact, and would the firmware take it?
fn verified<S: ReadAt>(view: &EspView<'_, S>, vars: &EfiVars, ui: &dyn Ui) -> Result<Vec<Finding>> {
    let (esp, words) = (view.esp, &view.words);
    let Some(file) = esp.selected().filter(|f| f.kind == FileKind::Uki) else { return Ok(Vec::new()) };
    let Ok(bytes) = esp.volume.file(&file.entry) else { return Ok(Vec::new()) };
    // Whether anybody trusts the signer is the firmware's business here; whether the bytes are intact is ours.
    let mut policy = TrustRequest { allow_untrusted: true, ..TrustRequest::default() }.policy(vars, ui)?;
    policy.firmware_is_the_boards = true;
    add_disk(&mut policy, esp, ui)?;
    let examined = examine(&bytes, &[Bank::Sha256], &mut [], ui)?;
    let report = verify(&examined.facts, &policy);
    let way_out = format!("{}, or {}", words.command("restore", ""), words.swap_from_factory());
    let mut findings = Vec::new();
    if let Some(why) = &report.firmware_refuses {
        findings.push(
            Finding::new(
                Severity::Problem,
                "firmware-refuses",
                format!("the firmware will refuse {}, which starts next: {why}", file.name()),
                "systemd-boot tries no other entry: the board does not come up (\"Access denied\" or \"Security Violation\" on the \
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
                format!("{} starts next, and `{}` fails: {}", file.name(), check.id.name(), check.detail),
                "it was damaged or changed since it was built; it may not start, or not unlock the disks",
            )
            .then(way_out.clone()),
        );
    }
    if findings.is_empty() && policy.firmware.secure_boot == Some(true) {
        findings.push(Finding::new(
            Severity::Ok,
            "signature",
            format!("nothing speaks against the signature of {}", file.name()),
            "held against db and dbx",
        ));
    }
    Ok(findings)
}

/// Decodes the boot options and holds them against the ESPs.
fn boot_options(
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

fn misread(v: &DecodedVariable) -> Option<Finding> {
    let problem = v.problem.as_ref()?;
    let what = format!("{} {problem}", v.name);
    if v.name == "LoaderEntryOneShot" && v.value.starts_with("kexec") {
        let meaning = "Linux leaves it when it restarts by kexec; it matches no entry and is used up at the next start";
        return Some(Finding::new(Severity::Note, "kexec-note", what, meaning));
    }
    let meaning = format!("the boot loader goes by what it reads. The variable: {}", v.meaning);
    Some(Finding::new(Severity::Warning, "variable-misread", what, meaning))
}

fn unreadable_esp(name: &str, e: &crate::Error) -> Finding {
    let finding =
        Finding::new(Severity::Problem, "esp-unreadable", e.to_string(), "nothing can be said about what is on it");
    match e.advice() {
        Some(advice) => finding.then(advice),
        None => finding,
    }
    .of(name)
}

fn no_esp(disk: &Path) -> Finding {
    Finding::new(
        Severity::Problem,
        "no-esp",
        "the disk has a partition table and no EFI System Partition",
        "UEFI firmware finds nothing to start here: it was installed for BIOS, or is a data disk, or another disk is meant",
    )
    .then("`bootsurgeon doctor` without a disk looks at all of this machine")
    .of(&disk.display().to_string())
}

fn name_of(request: &DiskRequest) -> String {
    let partition = request.partition.as_ref().map_or(String::new(), |p| format!(" partition {p}"));
    format!("{}{partition}", request.path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent(std::sync::Arc<std::sync::atomic::AtomicBool>);

    impl Ui for Silent {
        fn event(&self, _: Event) {}
        fn confirm(&self, _: &str) -> Option<bool> {
            None
        }
        fn cancelled(&self) -> &std::sync::Arc<std::sync::atomic::AtomicBool> {
            &self.0
        }
    }

    fn doctor(disks: Vec<PathBuf>, root: &Path) -> Result<DoctorReport> {
        let doctor =
            Doctor { disks, partition: None, efivars: VariablesChoice::Unsaid, root: root.to_owned(), error: None };
        doctor.run(&Silent(std::sync::Arc::default()))
    }

    #[test]
    fn a_bare_machine_and_bad_disks_are_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let report = doctor(vec![], dir.path()).unwrap();
        assert!(report.findings.iter().any(|f| f.id == "no-esp"), "{:?}", report.findings);
        let file = dir.path().join("zeros.img");
        std::fs::write(&file, vec![0; 1 << 20]).unwrap();
        assert_eq!(doctor(vec![file], dir.path()).unwrap_err().kind(), crate::Kind::Rejected);
        assert_eq!(doctor(vec![dir.path().join("none")], dir.path()).unwrap_err().kind(), crate::Kind::Io);
    }

    #[test]
    fn a_line_alone_is_explained_without_looking_at_anything() {
        let doctor = Doctor {
            disks: vec![],
            partition: None,
            efivars: VariablesChoice::Unsaid,
            root: "/nonexistent".into(),
            error: Some("Firmware does not support SetVariableRT. Can not remount with rw".into()),
        };
        let report = doctor.run(&Silent(std::sync::Arc::default())).unwrap();
        assert_eq!(report.findings[0].id, "set-variable-unsupported");
        assert!(report.firmware.is_none());
    }
}
