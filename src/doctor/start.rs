//! Which ESP the firmware turns to: its way held against the ESPs that are there, and where it may be the wrong one.

use super::{Finding, Severity};
use crate::bootpath::{BootOptions, FirmwareStart, StepKind, Way};
use crate::disk::PartUuid;
use crate::pe::Arch;
use uuid::Uuid;

/// More findings of one kind than this say nothing new.
const MAX_SAME: usize = 8;

/// An ESP among others.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EspPlace {
    /// For people: the disk and the partition.
    pub name: String,
    /// Its PARTUUID, where a partition table tells it.
    pub partuuid: Option<PartUuid>,
    /// The removable-media loader that is there: `EFI/BOOT/BOOTAA64.EFI`.
    pub loader: Option<String>,
    /// Whether there are images in `EFI/Linux`.
    pub has_images: bool,
    /// The architecture of its images.
    pub arch: Option<Arch>,
}

/// What the firmware starts, in a sentence, and what is wrong with its list. `options` are held against the ESPs
/// already ([`BootOptions::check`]); without variables they are empty. `way` is the one of the next start. `unread`:
/// disks and ESPs that could not be read.
#[must_use]
pub fn what_starts(way: &Way, options: &BootOptions, esps: &[EspPlace], unread: &[String]) -> (String, Vec<Finding>) {
    let mut findings = Vec::new();
    for option in options.options.iter().filter(|o| o.problem.is_some()).take(MAX_SAME) {
        let problem = option.problem.as_deref().unwrap_or_default();
        let listed = if option.place.is_some() { "in BootOrder" } else { "not in BootOrder" };
        findings.push(
            Finding::new(
                Severity::Warning,
                "dangling-boot-option",
                format!("{} ({:?}, {listed}) leads nowhere: {problem}", option.name, option.description),
                "the firmware skips it, sometimes after a pause or a question; some firmware deletes such an entry by \
                 itself",
            )
            .then(
                "no variable needs to be written: EFI/BOOT on the ESP is started without an entry. Delete it in the \
                   firmware's \
                   setup if it is in the way",
            ),
        );
    }
    for broken in options.broken.iter().take(MAX_SAME) {
        findings.push(Finding::new(
            Severity::Warning,
            "broken-boot-option",
            broken.clone(),
            "the firmware ignores what it cannot read",
        ));
    }
    let sentence = sentence(way, unread);
    let started = &way.by;
    for esp in esps.iter().filter(|e| e.loader.is_none() && e.has_images) {
        let wanted = format!("EFI/BOOT/{}", esp.arch.unwrap_or(Arch::Arm64).removable_loader());
        let by_option = options
            .options
            .iter()
            .find(|o| o.problem.is_none() && o.target.partuuid.is_some() && o.target.partuuid == esp.partuuid);
        let (severity, meaning) = match (by_option, started) {
            (Some(o), FirmwareStart::Option(name)) if *name == o.name => (
                Severity::Warning,
                format!(
                    "{name} starts another loader there, so the board comes up; once that variable is lost, it does not"
                ),
            ),
            (Some(o), _) => (
                Severity::Problem,
                format!("only {} leads to a loader on this ESP, and it is not what the firmware takes first", o.name),
            ),
            (None, _) => (
                Severity::Problem,
                format!(
                    "the images there never start: the firmware finds no loader on this ESP, and starts {sentence}"
                ),
            ),
        };
        findings.push(
            Finding::new(severity, "no-boot-loader", format!("{wanted} is missing"), meaning)
                .then(match by_option {
                    None => "`bootsurgeon loader DISK ISO` puts systemd-boot there, from the Secure Boot ISO of the \
                             same Talos version (`bootsurgeon fetch`)"
                        .to_owned(),
                    // What starts already is not invented at another place.
                    Some(_) => format!(
                        "copy the systemd-boot there that the option leads to, or {wanted} of the Secure Boot ISO of \
                         the same Talos version (mtools: `mcopy`)"
                    ),
                })
                .of(&esp.name),
        );
    }
    (sentence, findings)
}

/// `Boot0001 ("Talos Linux UKI"): EFI/BOOT/BOOTAA64.EFI on node/dev/sda`.
fn sentence(way: &Way, unread: &[String]) -> String {
    let place = way.steps.first().and_then(|step| step.place.clone());
    let what = way.steps.first().map_or("nothing", |step| step.what.as_str());
    let start = match (&way.by, place) {
        (FirmwareStart::Option(_), Some(place)) => format!("{what}: {place}"),
        (FirmwareStart::RemovableMedia, Some(place)) => place,
        _ if !unread.is_empty() => {
            format!("something that is not known: {} could not be read", unread.join(", "))
        }
        _ => {
            "nothing that is known: no ESP here has EFI/BOOT/BOOT<ARCH>.EFI; most firmware tries the network and ends \
            in its setup \
              or a shell"
                .to_owned()
        }
    };
    let programs: Vec<&str> =
        way.steps.iter().filter(|step| step.step == StepKind::Program).map(|step| step.what.as_str()).collect();
    let start = match programs.as_slice() {
        [] => start,
        [only] if only.starts_with("systemd-boot") => start,
        several => format!("{start}, which is {}", several.join(", which starts ")),
    };
    match way.in_doubt.as_slice() {
        [] => start,
        doubts => format!(
            "perhaps something else first, which cannot be followed from here: {}; then {start}",
            doubts.join("; ")
        ),
    }
}

/// More than one ESP that something could start from, and signs that the wrong one does. `booted_from` is
/// LoaderDevicePartUUID: the partition that systemd-boot was started from. `complete`: every disk of the machine was
/// looked at.
#[must_use]
pub fn several_esps(esps: &[EspPlace], booted_from: Option<Uuid>, complete: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let starting: Vec<&EspPlace> = esps.iter().filter(|e| e.loader.is_some()).collect();
    let names = |these: &[&EspPlace]| these.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", ");
    if starting.len() > 1 {
        findings.push(
            Finding::new(
                Severity::Warning,
                "several-boot-esps",
                format!("{} ESPs have a boot loader in EFI/BOOT: {}", starting.len(), names(&starting)),
                "which one the firmware takes depends on its list and on the order of the disks, and both can change. \
                 systemd-boot \
                 lists the images of its own ESP only: \"Error loading …: Not found\" is what a mixture looks like \
                 (siderolabs/talos#11909)",
            )
            .then(
                "swap on the ESP that the firmware starts from, and take the loader of the other one away (rename \
                   its EFI/BOOT) if \
                   nothing needs it",
            ),
        );
    }
    for (i, esp) in esps.iter().enumerate() {
        let twins: Vec<&EspPlace> =
            esps.iter().filter(|e| e.partuuid.is_some() && e.partuuid == esp.partuuid).collect();
        let first = esps.iter().position(|e| e.partuuid == esp.partuuid) == Some(i);
        if twins.len() > 1 && first {
            findings.push(
                Finding::new(
                    Severity::Warning,
                    "same-partuuid",
                    format!("{} have the same PARTUUID", names(&twins)),
                    "one disk is a copy of the other. Boot entries and systemd-boot name partitions by PARTUUID, and \
                     cannot tell them \
                     apart",
                )
                .then("take one of the disks out, or give its partition a new GUID (`sgdisk -u`)"),
            );
        }
    }
    let Some(booted) = booted_from else { return findings };
    match esps.iter().find(|e| e.partuuid == Some(PartUuid::Gpt(booted))) {
        Some(e) if !e.has_images && esps.iter().any(|o| o.has_images) => findings.push(
            Finding::new(
                Severity::Problem,
                "booted-from-other-esp",
                format!("systemd-boot was started from {}, which has no images in EFI/Linux", e.name),
                format!(
                    "the images are on {}, and that systemd-boot does not see them",
                    names(&esps.iter().filter(|o| o.has_images).collect::<Vec<_>>())
                ),
            )
            .then("put the disk with the images first in the firmware's setup, or take the other loader away"),
        ),
        Some(_) => {}
        None => {
            let severity = if complete { Severity::Warning } else { Severity::Note };
            findings.push(Finding::new(
                severity,
                "booted-from-elsewhere",
                format!(
                    "systemd-boot was started from partition {booted} (LoaderDevicePartUUID), which is not among these"
                ),
                "another disk, an installation medium, or a disk that was repartitioned since",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = uuid::uuid!("d1e6a7b4-0001-4c11-8e55-0123456789ab");
    const B: Uuid = uuid::uuid!("d1e6a7b4-0002-4c11-8e55-0123456789ab");

    fn esp(name: &str, partuuid: Uuid, loader: bool, has_images: bool) -> EspPlace {
        EspPlace {
            name: name.into(),
            partuuid: Some(PartUuid::Gpt(partuuid)),
            loader: loader.then(|| "EFI/BOOT/BOOTAA64.EFI".into()),
            has_images,
            arch: Some(Arch::Arm64),
        }
    }

    fn ids(findings: &[Finding]) -> Vec<&'static str> {
        findings.iter().map(|f| f.id).collect()
    }

    #[test]
    fn a_second_esp_is_named_where_it_matters() {
        let (one, two) = (esp("sda 1", A, true, true), esp("sdb 1", B, true, false));
        assert_eq!(ids(&several_esps(std::slice::from_ref(&one), Some(A), true)), [""; 0]);
        assert_eq!(ids(&several_esps(&[one.clone(), two.clone()], Some(A), true)), ["several-boot-esps"]);
        let wrong = several_esps(&[one.clone(), two], Some(B), true);
        assert_eq!(ids(&wrong), ["several-boot-esps", "booted-from-other-esp"]);
        let twin = esp("sdb 1", A, false, false);
        assert_eq!(ids(&several_esps(&[one.clone(), twin], None, true)), ["same-partuuid"]);
        assert_eq!(ids(&several_esps(&[one], Some(B), true)), ["booted-from-elsewhere"]);
    }

    #[test]
    fn without_a_loader_the_firmware_goes_elsewhere() {
        let way = |by, what: &str, place: Option<&str>| Way {
            steps: vec![crate::bootpath::WayStep::firmware(what, place)],
            end: crate::bootpath::End::Nothing(String::new()),
            in_doubt: Vec::new(),
            passed_over: Vec::new(),
            broken: None,
            load_options: None,
            by,
            programs: Vec::new(),
        };
        let options = BootOptions::default();
        let nothing = way(FirmwareStart::Nothing, "nothing", None);
        let (says, findings) = what_starts(&nothing, &options, &[esp("sda 1", A, false, true)], &[]);
        assert!(says.starts_with("nothing that is known"), "{says}");
        assert_eq!((findings[0].id, findings[0].severity), ("no-boot-loader", Severity::Problem));
        let place = "EFI/BOOT/BOOTAA64.EFI on sda 1";
        let removable = way(FirmwareStart::RemovableMedia, "the removable-media path", Some(place));
        let (says, findings) = what_starts(&removable, &options, &[esp("sda 1", A, true, true)], &[]);
        assert_eq!(says, place);
        assert!(findings.is_empty());
    }
}
