//! The firmware as its variables and the kernel show it: Secure Boot, efivarfs, and whether a running system can set
//! variables, as far as reading tells. Nothing is written to find out.

use super::failures::{KNOWN_FAILURES, in_log};
use super::machine::{Machine, Mount};
use super::{Finding, Severity};
use crate::boot::lenient_string;
use crate::efivars::{EfiVars, GLOBAL, LOADER, StoreFormat, U_BOOT, VariablesOrigin};
use crate::units::{count, size};
use serde::Serialize;

/// More lines of the kernel's log than this are not quoted.
const MAX_LOG_FINDINGS: usize = 8;

/// Whether a running system can set variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SetVariable {
    /// No: the kernel says that the firmware does not support it.
    Unsupported,
    /// Not through this mount: it is read-only.
    ReadOnly,
    /// It was tried, and the firmware refused or failed.
    Failed,
    /// Writes go to memory and are lost at the next start unless somebody saves them.
    Volatile,
    /// It worked at least once: a variable is there that only Linux writes.
    Worked,
    /// Only a write would tell, and this program writes no variable.
    Unknown,
    /// There are no variables.
    NoVariables,
}

/// More crash records are not read to add up their sizes.
const MAX_RECORDS: usize = 1024;
/// As many crash records as fill a good part of a store of 64 KiB: each has up to a KiB, and a crash leaves a dozen or
/// more.
const MANY_RECORDS: usize = 16;

/// What is known of the firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FirmwareFacts {
    /// The directory that the variables were read from.
    pub directory: Option<String>,
    /// Where the variables come from that count at the next start.
    pub variables: VariablesOrigin,
    /// Why there are no variables, if there are none.
    pub unavailable: Option<String>,
    /// Whether the running kernel was started by UEFI; `null` when the variables are not those of this machine.
    pub started_by_uefi: Option<bool>,
    /// The mount of efivarfs that the directory belongs to.
    pub mount: Option<Mount>,
    /// Whether a running system can set variables.
    pub set_variable: SetVariable,
    /// `SecureBoot`: whether signatures are enforced.
    pub secure_boot: Option<bool>,
    /// `SetupMode`: no platform key is enrolled.
    pub setup_mode: Option<bool>,
    /// `AuditMode`.
    pub audit_mode: Option<bool>,
    /// `DeployedMode`.
    pub deployed_mode: Option<bool>,
    /// Name and revision of the firmware, as systemd-boot wrote them down.
    pub firmware: Option<String>,
}

/// Looks at the firmware. `machine` is given when the variables are those of the machine this program runs on.
#[must_use]
pub fn firmware(vars: &EfiVars, machine: Option<&Machine>) -> (FirmwareFacts, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut flag = |name: &str| match vars.flag(name, GLOBAL) {
        Ok(flag) => flag,
        Err(e) => {
            let meaning = "it counts as absent";
            findings.push(Finding::new(Severity::Warning, "variable-unreadable", e.to_string(), meaning));
            None
        }
    };
    let (secure_boot, setup_mode) = (flag("SecureBoot"), flag("SetupMode"));
    let (audit_mode, deployed_mode) = (flag("AuditMode"), flag("DeployedMode"));
    let info = vars.read("LoaderFirmwareInfo", LOADER).ok().flatten();
    let logged = machine.map(logged_failures).unwrap_or_default();
    let mount = vars.dir().zip(machine).and_then(|(dir, m)| m.mount_of(dir).cloned());
    let facts = FirmwareFacts {
        directory: vars.dir().map(|d| d.display().to_string()),
        variables: vars.origin(),
        unavailable: vars.unavailable().map(str::to_owned),
        started_by_uefi: machine.map(|m| m.efi),
        set_variable: set_variable(vars, mount.as_ref(), &logged),
        mount,
        secure_boot,
        setup_mode,
        audit_mode,
        deployed_mode,
        firmware: info.map(|v| super::plain(&lenient_string(&v.data))).filter(|s| !s.is_empty()),
    };
    findings.extend(about_setting(vars, &facts));
    findings.extend(about_secure_boot(&facts));
    findings.extend(about_crash_records(vars));
    findings.extend(logged.into_iter().map(|(id, line)| from_log(id, &line)));
    (facts, findings)
}

/// The first line of each class of failure in the kernel's log.
fn logged_failures(machine: &Machine) -> Vec<(&'static str, String)> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    machine.kernel_log(|line| {
        if let Some(class) = in_log(line)
            && found.len() < MAX_LOG_FINDINGS
            && !found.iter().any(|(id, _)| *id == class.id)
        {
            found.push((class.id, line.trim().chars().take(300).collect()));
        }
    });
    found
}

fn set_variable(vars: &EfiVars, mount: Option<&Mount>, logged: &[(&'static str, String)]) -> SetVariable {
    let there = |name: &str, vendor| vars.read(name, vendor).is_ok_and(|v| v.is_some());
    let is_logged = |ids: &[&str]| logged.iter().any(|(id, _)| ids.contains(id));
    if vars.unavailable().is_some() {
        SetVariable::NoVariables
    } else if is_logged(&["set-variable-unsupported"]) {
        SetVariable::Unsupported
    } else if is_logged(&["write-refused", "write-io-error", "variables-full"]) {
        SetVariable::Failed
    } else if mount.is_some_and(|m| m.read_only) {
        SetVariable::ReadOnly
    } else if there("RTStorageVolatile", U_BOOT) || vars.store().is_some() {
        SetVariable::Volatile
    } else if there("LoaderEntryRebootReason", LOADER) {
        // Linux' efibc driver writes it when the system goes down.
        SetVariable::Worked
    } else {
        SetVariable::Unknown
    }
}

fn about_setting(vars: &EfiVars, facts: &FirmwareFacts) -> Option<Finding> {
    let class = |severity, id: &'static str, what: String| {
        let known = KNOWN_FAILURES.iter().find(|c| c.id == id)?;
        Some(Finding::new(severity, id, what, known.meaning).then(known.way_out))
    };
    match facts.set_variable {
        SetVariable::NoVariables => {
            let why = vars.unavailable().unwrap_or_default();
            match facts.started_by_uefi {
                Some(_) => class(Severity::Warning, "no-efivarfs", format!("no EFI variables: {why}")),
                None => Some(Finding::new(
                    Severity::Note,
                    "variables-not-looked-at",
                    format!("no EFI variables: {why}"),
                    "what is said below holds for a board without EFI variables; --efivars names a directory with \
                     the \
                     board's variables",
                )),
            }
        }
        // The line of the log is a finding of its own.
        SetVariable::Unsupported | SetVariable::Failed => None,
        SetVariable::ReadOnly => {
            let at = facts.mount.as_ref().map_or("efivarfs", |m| &m.point);
            class(Severity::Warning, "efivarfs-read-only", format!("efivarfs is mounted read-only at {at}"))
        }
        SetVariable::Volatile => {
            let what = match vars.store().map(|s| (s.format, &s.place)) {
                Some((StoreFormat::Edk2, place)) => {
                    format!("the firmware keeps its variables in {place}, and in memory while a system runs")
                }
                Some((StoreFormat::UBoot, place)) => {
                    format!("U-Boot keeps its variables in {place}, and in memory while a system runs")
                }
                None => "U-Boot keeps the variables in memory while a system runs (RTStorageVolatile)".to_owned(),
            };
            class(Severity::Warning, "writes-lost", what)
        }
        SetVariable::Worked => Some(Finding::new(
            Severity::Ok,
            "variables-writable",
            "a running system could set variables (LoaderEntryRebootReason, which Linux writes, is there)",
            "that does not prove that every write works, or outlives a reset",
        )),
        SetVariable::Unknown => Some(Finding::new(
            Severity::Note,
            "set-variable-unknown",
            "whether a running system can set variables cannot be told by reading",
            "only a write would show it, and this program writes none. A failed upgrade shows it too: see below, and \
             `doctor \
             --error 'LINE'` explains the line that talosctl printed",
        )),
    }
}

/// The kernel's crash records in NVRAM: few are a trace of a crash, many fill the store.
fn about_crash_records(vars: &EfiVars) -> Option<Finding> {
    let known = KNOWN_FAILURES.iter().find(|c| c.id == "crash-records")?;
    let all = vars.list().ok()?;
    let records: Vec<_> = all.iter().filter(|(name, _)| name.starts_with("dump-type0-")).collect();
    let bytes = |(name, vendor): &&(String, uuid::Uuid)| Some(vars.read(name, *vendor).ok()??.data.len());
    let total: usize = records.iter().take(MAX_RECORDS).filter_map(bytes).sum();
    let severity = match records.len() {
        0 => return None,
        1..MANY_RECORDS => Severity::Note,
        _ => Severity::Warning,
    };
    let (records, total) = (count(records.len(), "crash record"), size(total as u64));
    let what = format!("{records} of the kernel (dump-type0-…) in the variable store: {total}");
    Some(Finding::new(severity, known.id, what, known.meaning).then(known.way_out))
}

fn about_secure_boot(facts: &FirmwareFacts) -> Option<Finding> {
    let finding = match (facts.secure_boot?, facts.setup_mode) {
        (true, _) => Finding::new(
            Severity::Ok,
            "secure-boot-on",
            "Secure Boot is on",
            "only images signed by a key in db start; systemd-boot does not skip one that is refused",
        ),
        (false, Some(true)) => Finding::new(
            Severity::Note,
            "setup-mode",
            "Secure Boot is in setup mode",
            "no platform key is enrolled, and everything starts. In a virtual machine systemd-boot enrols the keys in \
             loader/keys/auto at the next start",
        ),
        (false, _) => Finding::new(
            Severity::Note,
            "secure-boot-off",
            "Secure Boot is off",
            "the firmware starts unsigned images, too",
        ),
    };
    Some(finding)
}

/// A finding from the log, with the line it comes from.
fn from_log(id: &'static str, line: &str) -> Finding {
    let known = KNOWN_FAILURES.iter().find(|c| c.id == id);
    let errno = known.and_then(|c| c.errno).map_or(String::new(), |e| format!(" [{e}]"));
    let what = format!("{}{errno}; the kernel's log says: {line}", known.map_or(id, |c| c.what));
    Finding::new(Severity::Problem, id, what, known.map_or("", |c| c.meaning)).then(known.map_or("", |c| c.way_out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    struct Board(tempfile::TempDir);

    impl Board {
        fn new(files: &[(&str, &[u8])]) -> Self {
            let board = Self(tempfile::tempdir().unwrap());
            for (path, bytes) in files {
                let path = board.0.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            board
        }

        fn look(&self) -> (FirmwareFacts, Vec<&'static str>) {
            let machine = Machine::read(self.0.path());
            let (facts, findings) = firmware(&EfiVars::open(Some(&machine.variables())), Some(&machine));
            (facts, findings.into_iter().map(|f| f.id).collect())
        }
    }

    const SECURE_BOOT: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    const REASON: &str = "sys/firmware/efi/efivars/LoaderEntryRebootReason-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
    const VOLATILE: &str = "sys/firmware/efi/efivars/RTStorageVolatile-b2ac5fc9-92b7-4acd-aeac-11e818c3130c";
    const RO: &[u8] = b"efivarfs /sys/firmware/efi/efivars efivarfs ro,nosuid 0 0\n";
    const RW: &[u8] = b"efivarfs /sys/firmware/efi/efivars efivarfs rw,nosuid 0 0\n";

    #[test]
    fn whether_variables_can_be_set_is_told_by_reading() {
        let on: (&str, &[u8]) = (SECURE_BOOT, &[6, 0, 0, 0, 1]);
        let reason: (&str, &[u8]) = (REASON, &[7, 0, 0, 0, b'r', 0, 0, 0]);
        let unsupported: &[u8] =
            b"3,1,1,-;efivarfs: Firmware does not support SetVariableRT. Can not remount with rw\n";
        let refused: &[u8] =
            b"4,1,1,-;[talos] write /sys/firmware/efi/efivars/LoaderEntryDefault-4a67: invalid argument\n";
        for (files, set, id) in [
            (&[][..], SetVariable::NoVariables, "no-efivarfs"),
            (&[on][..], SetVariable::Unknown, "set-variable-unknown"),
            (&[on, ("proc/mounts", RW), reason][..], SetVariable::Worked, "variables-writable"),
            (&[on, ("proc/mounts", RO), reason][..], SetVariable::ReadOnly, "efivarfs-read-only"),
            (
                &[on, ("proc/mounts", RO), ("dev/kmsg", unsupported)][..],
                SetVariable::Unsupported,
                "set-variable-unsupported",
            ),
            (&[on, ("dev/kmsg", refused)][..], SetVariable::Failed, "write-refused"),
            (&[on, (VOLATILE, b"\x06\0\0\0ubootefi.var\0")][..], SetVariable::Volatile, "writes-lost"),
        ] {
            let (facts, ids) = Board::new(files).look();
            assert_eq!(facts.set_variable, set, "{files:?}");
            assert!(ids.contains(&id), "{ids:?}");
        }
    }

    #[test]
    fn truncated_and_odd_variables_are_findings() {
        for bytes in [&[][..], &[6], &[6, 0, 0], &[6, 0, 0, 0]] {
            let (facts, ids) = Board::new(&[(SECURE_BOOT, bytes)]).look();
            assert_eq!(facts.secure_boot, None);
            assert_eq!(ids.contains(&"variable-unreadable"), matches!(bytes.len(), 1..4), "{bytes:?} {ids:?}");
        }
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/efivars");
        let (facts, _) = firmware(&EfiVars::open(Some(&fixtures.join("setup-mode"))), None);
        assert_eq!((facts.secure_boot, facts.setup_mode, facts.started_by_uefi), (Some(false), Some(true), None));
    }
}
