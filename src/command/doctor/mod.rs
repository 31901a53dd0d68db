//! `doctor`: firmware, variables and every ESP, what is wrong with them and the next command. Reads only.
mod esp;
mod options;
mod places;

use self::esp::{ExaminedEsp, elsewhere, name_the_disk, unreadable_esp};
use self::options::{boot_options, misread};
use self::places::{EspCandidate, name_of};
use super::{Event, StatusReport, Ui, VariablesChoice, boot_variables, check_cancelled};
use crate::Result;
use crate::boot::lenient_string;
use crate::bootpath::BootOptions;
use crate::doctor::{
    DecodedVariable, EspPlace, Finding, FirmwareFacts, Machine, Severity, decode_variables, explain, firmware,
    several_esps, sort,
};
use crate::efivars::LOADER;
use serde::Serialize;
use std::path::PathBuf;
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
#[non_exhaustive]
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
    /// Disks and ESPs that could not be read: nothing is known of what is on them.
    pub unread: Vec<String>,
    /// Every ESP, as `status` shows it.
    pub esps: Vec<StatusReport>,
}

impl Doctor {
    /// Looks.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] and [`crate::Kind::Rejected`] when a disk that was named cannot be read or is none;
    /// [`crate::Kind::Cancelled`]. Whatever is wrong *with* a disk is a finding and no error.
    pub fn run(&self, ui: &dyn Ui) -> Result<DoctorReport> {
        let mut findings = self.error.as_deref().map(explain).unwrap_or_default();
        if self.error.is_some() && self.disks.is_empty() && self.efivars == VariablesChoice::Unspecified {
            return Ok(DoctorReport::new(findings));
        }
        let machine = Machine::read(&self.root);
        let (mut requests, mut unread) = self.requests(&machine, &mut findings, ui)?;
        let is_this_machine = self.disks.is_empty();
        if requests.len() > MAX_ESPS {
            let what = format!("{} ESPs: only the first {MAX_ESPS} are looked at", requests.len());
            findings.push(Finding::new(Severity::Warning, "too-many-esps", what, "name the disk that is meant"));
            requests.truncate(MAX_ESPS);
        }
        let vars = self.variables(is_this_machine, &requests);
        let ours = is_this_machine && self.efivars == VariablesChoice::Unspecified
            || vars.dir().is_some_and(|dir| machine.mount_of(dir).is_some());
        let (facts, mut about) = firmware(&vars, ours.then_some(&machine));
        let (variables, unreadable) = boot_variables(&vars);
        for what in unreadable {
            let finding = if vars.warnings().contains(&what) {
                let meaning = "what is said below depends on which variables count at the next start";
                Finding::new(Severity::Warning, "variables-in-doubt", what, meaning)
            } else {
                Finding::new(Severity::Warning, "variable-unreadable", what, "it counts as absent")
            };
            if !findings.iter().any(|f| f.what == finding.what) {
                findings.push(finding);
            }
        }

        let (mut examined, mut esps) = (Vec::new(), Vec::new());
        for place in &requests {
            let request = &place.request;
            check_cancelled(ui)?;
            let name = name_of(request);
            ui.event(Event::Step(format!("reading the ESP of {name}")));
            match ExaminedEsp::read(place, &name, &variables, &vars, ui) {
                Ok((one, status)) => {
                    examined.push(one);
                    esps.push(status);
                }
                Err(e) if e.code() == crate::Code::Cancelled => return Err(e),
                // One disk that was named, and it cannot be opened or is none: there is nothing to report on.
                Err(e) if requests.len() == 1 && !self.disks.is_empty() && request.partition.is_none() => {
                    return Err(e);
                }
                Err(e) => {
                    findings.push(unreadable_esp(&name, &e));
                    unread.push(name);
                }
            }
        }
        // Of disks that were named nobody says that they are all.
        let complete = is_this_machine && unread.is_empty();
        elsewhere(&examined, &mut esps);
        name_the_disk(&examined, &mut about);
        findings.extend(about);
        findings.extend(esps.iter().flat_map(|e| e.findings.iter().cloned()));
        let loader = examined.iter().find_map(|e| Some(&e.esp.loader.as_ref()?.1.as_ref()?.version));
        let decoded = decode_variables(&vars, loader);
        findings.extend(decoded.iter().filter_map(misread));
        let (boot_options, firmware_starts) = boot_options(&vars, &examined, (complete, &unread), &mut findings);
        let places: Vec<EspPlace> = examined.iter().map(|e| e.place.clone()).collect();
        let booted = vars.read("LoaderDevicePartUUID", LOADER).ok().flatten();
        let booted = booted.and_then(|v| Uuid::try_parse(&lenient_string(&v.data)).ok());
        findings.extend(several_esps(&places, booted, complete));
        let mut report = DoctorReport::new(findings);
        report.firmware = Some(facts);
        report.variables = decoded;
        report.boot_options = boot_options;
        report.firmware_starts = Some(firmware_starts);
        report.unread = unread;
        report.esps = esps;
        Ok(report)
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
            unread: Vec::new(),
            esps: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Silent;
    use super::*;
    use std::path::Path;

    fn doctor(disks: Vec<PathBuf>, root: &Path) -> Result<DoctorReport> {
        let doctor = Doctor {
            disks,
            partition: None,
            efivars: VariablesChoice::Unspecified,
            root: root.to_owned(),
            error: None,
        };
        doctor.run(&Silent::default())
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
            efivars: VariablesChoice::Unspecified,
            root: "/nonexistent".into(),
            error: Some("Firmware does not support SetVariableRT. Can not remount with rw".into()),
        };
        let report = doctor.run(&Silent::default()).unwrap();
        assert_eq!(report.findings[0].id, "set-variable-unsupported");
        assert!(report.firmware.is_none());
    }
}
