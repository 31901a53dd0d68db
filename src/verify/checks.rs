//! The checks that are about contents: is it what was requested, will it boot, will disks unlock.

use super::addons::Added;
use super::change::{ExtensionLoss, is_lower};
use super::{Check, CheckId, CheckStatus, ImageFacts, InitrdFacts, Policy, ProfilePcr};
use crate::pcr::{PcrSignature, key_fingerprint};
use crate::sorting::set;
use crate::uki::Family;

const HALT: &str = "talos.halt_if_installed";
const WIPE: &str = "talos.experimental.wipe";
/// Talos' root file system in the initrd.
const ROOT_FS: &str = "rootfs.sqsh";

pub(super) fn pe(facts: &ImageFacts) -> Check {
    problems(CheckId::Pe, &facts.pe_problems, "A PE32+ image that systemd-boot starts.")
}

pub(super) fn sections(facts: &ImageFacts) -> Check {
    if facts.section_problems.is_empty() && !facts.section_warnings.is_empty() {
        return Check::new(CheckId::Sections, CheckStatus::Warn, format!("{}.", facts.section_warnings.join("; ")));
    }
    problems(CheckId::Sections, &facts.section_problems, "Every section that a UKI needs is there.")
}

fn problems(id: CheckId, problems: &[String], good: &str) -> Check {
    if problems.is_empty() {
        return Check::new(id, CheckStatus::Pass, good);
    }
    Check::new(
        id,
        CheckStatus::Fail,
        format!("{}. The image is damaged or not a UKI: fetch it again.", problems.join("; ")),
    )
}

pub(super) fn arch(facts: &ImageFacts, policy: &Policy) -> Check {
    let id = CheckId::Arch;
    let Some(arch) = facts.arch else {
        return Check::new(id, CheckStatus::Fail, "The image is for neither arm64 nor amd64.");
    };
    let installed = policy.installed.as_ref().and_then(|i| i.arch);
    for (wanted, by) in [(policy.arch, "was requested"), (installed, "is installed")] {
        if let Some(wanted) = wanted
            && wanted != arch
        {
            let detail = format!("The image is for {arch}, and {wanted} {by}. Fetch the one for {wanted}.");
            return Check::new(id, CheckStatus::Fail, detail);
        }
    }
    if policy.arch.or(installed).is_none() {
        let detail = format!("The image is for {arch}; --arch would check that.");
        return Check::new(id, CheckStatus::Skip, detail);
    }
    Check::new(id, CheckStatus::Pass, format!("The image is for {arch}, as requested."))
}

pub(super) fn version(facts: &ImageFacts, policy: &Policy) -> Check {
    let id = CheckId::Version;
    if !facts.contradictions.is_empty() {
        return Check::new(
            id,
            CheckStatus::Fail,
            format!("The image contradicts itself: {}.", facts.contradictions.join("; ")),
        );
    }
    let plain = |v: &str| v.strip_prefix('v').unwrap_or(v).to_owned();
    let is_wanted = |version: &str| policy.version.as_ref().is_none_or(|wanted| plain(wanted) == plain(version));
    let installed = policy.installed.as_ref().and_then(|i| i.version.as_deref());
    if let (Some(version), Some(installed)) = (&facts.version, installed)
        && facts.family == Family::Talos
        && !policy.way_back
        && is_wanted(version)
        && is_lower(version, installed)
    {
        let asked = if policy.version.is_some() { ", as asked for" } else { "" };
        let detail = format!(
            "The image is {version}{asked}, and {installed} is installed: that is a downgrade. Talos may be unable to \
             read what the higher version has written (configuration, etcd)."
        );
        return Check::new(id, CheckStatus::Warn, detail);
    }
    match (&facts.version, &policy.version) {
        (None, Some(wanted)) => {
            Check::new(id, CheckStatus::Fail, format!("The image states no version, and {wanted} was requested."))
        }
        (None, None) => Check::new(id, CheckStatus::Skip, "The image states no version, and none was requested."),
        (Some(version), None) if facts.family == Family::Talos => {
            let detail = format!("The image is {version}; --talos would check that.");
            Check::new(id, CheckStatus::Skip, detail)
        }
        (Some(version), None) => {
            Check::new(id, CheckStatus::Skip, format!("The image is {version}, and none was requested."))
        }
        (Some(version), Some(wanted)) if plain(version) == plain(wanted) => {
            Check::new(id, CheckStatus::Pass, format!("The image is {version}, as requested."))
        }
        (Some(version), Some(wanted)) => {
            Check::new(id, CheckStatus::Fail, format!("The image is {version}, and {wanted} was requested."))
        }
    }
}

pub(super) fn pcr_signature(facts: &ImageFacts, policy: &Policy) -> Check {
    let id = CheckId::PcrSignature;
    if facts.pcrpkey.is_none() && facts.profiles.iter().all(|p| p.pcr == ProfilePcr::Missing) {
        let detail = "The image has no PCR key and no PCR signature: disks that are sealed to a TPM under a signed \
                      policy \
                      cannot be unlocked with it.";
        return Check::new(id, CheckStatus::Skip, detail);
    }
    let Some(default) = facts.profiles.first() else {
        return Check::new(id, CheckStatus::Fail, "Wrong: there is no profile to measure.");
    };
    let (status, mut detail) = default_profile(facts, default, policy);
    // Nobody unlocks disks in a profile that wipes them, so the board still boots.
    let others = facts.profiles.iter().skip(1).filter_map(|p| Some((p, pcr_problem(facts.family, &p.pcr)?)));
    let others: Vec<_> = others.map(|(p, why)| format!("the PCR signature of profile {}: {why}", name(p))).collect();
    if others.is_empty() {
        return Check::new(id, status, detail);
    }
    let others = others.join("; ");
    if status == CheckStatus::Pass {
        return Check::new(id, CheckStatus::Warn, format!("The profile that boots by default is right, but {others}."));
    }
    detail.push_str(&format!(" And {others}."));
    Check::new(id, status, detail)
}

/// The profile that boots when nobody chooses.
fn default_profile(facts: &ImageFacts, profile: &super::ProfileFacts, policy: &Policy) -> (CheckStatus, String) {
    const LOCKED: &str = "A TPM would not release the keys of disks that are sealed to signed policies";
    let n = facts.profiles.len();
    let signature = match &profile.pcr {
        ProfilePcr::Missing => {
            let missing = "The image has a PCR key (.pcrpkey) and no PCR signature (.pcrsig).";
            let installed = policy.installed.as_ref().is_some_and(|i| i.pcrsig);
            return match (policy.require_pcr_key, installed) {
                (_, true) => (CheckStatus::Fail, format!("{missing} The installed UKI has one. {LOCKED}.")),
                (true, false) => (CheckStatus::Fail, format!("{missing} {LOCKED}, and --require-pcr-key was given.")),
                (false, false) => (CheckStatus::Warn, format!("{missing} {LOCKED}, if the board has such disks.")),
            };
        }
        ProfilePcr::Unusable(why) => {
            return (
                CheckStatus::Fail,
                format!("Wrong: the PCR signature of profile {}: {why}. {LOCKED}.", name(profile)),
            );
        }
        ProfilePcr::Checked(signature) => signature,
    };
    if signature.is_exchanged() && facts.family != Family::Talos {
        // No disk can be sealed to such policies, so an installed image with the same is no reason to refuse this one.
        let why = signature.problem().unwrap_or_default();
        let needed = policy.require_pcr_key || policy.installed.as_ref().is_some_and(|i| i.pcrsig);
        let status = if needed { CheckStatus::Fail } else { CheckStatus::Warn };
        return (status, format!("The PCR signature of profile {}: {why}. {LOCKED}.", name(profile)));
    }
    if let Some(why) = pcr_problem(facts.family, &profile.pcr) {
        let detail =
            format!("Wrong: the PCR signature of profile {}: {why}. {LOCKED}: fetch the image again.", name(profile));
        return (CheckStatus::Fail, detail);
    }
    if let Some(why) = signature.unjudged() {
        return (CheckStatus::Skip, format!("The signed PCR 11 policy cannot be judged from the image: {why}."));
    }
    let alternatives = set(signature.verified().map(|(_, _, alternative)| alternative));
    let fits = format!(
        "The signed PCR 11 policy fits the measured sections ({n} of {n} profiles; phases: {}).",
        phases(signature)
    );
    match profile.by_hardware {
        0 => (CheckStatus::Pass, fits),
        1 if alternatives.contains(&1) => {
            let without = if alternatives.contains(&0) { ", and where it takes none" } else { "" };
            (CheckStatus::Pass, format!("{fits} It holds where the board takes the device tree in the image{without}."))
        }
        all => {
            let signed = alternatives.iter().filter(|a| **a > 0).count();
            let none = if alternatives.contains(&0) { "one" } else { "no policy" };
            let detail = format!(
                "It depends on the board: the stub measures the one of {all} hardware-dependent sections (.dtbauto, \
                 .efifw) that fits it. Policies that fit the image are signed for {signed} of them, and {none} for a \
                 board \
                 that none of them fits."
            );
            (CheckStatus::Skip, detail)
        }
    }
}

/// The phase paths of the policies that fit.
fn phases(signature: &PcrSignature) -> String {
    let paths = set(signature.verified().map(|(_, phases, _)| phases));
    let show = |path: &&str| if path.is_empty() { "before the first one".to_owned() } else { (*path).to_owned() };
    paths.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// What is wrong with a profile's policy, by the rules of its family.
fn pcr_problem(family: Family, pcr: &ProfilePcr) -> Option<String> {
    match pcr {
        ProfilePcr::Missing => Some("there is none".to_owned()),
        ProfilePcr::Unusable(why) => Some(why.clone()),
        ProfilePcr::Checked(signature) if family == Family::Talos => signature.problem_for_talos(),
        ProfilePcr::Checked(signature) => signature.problem(),
    }
}

fn name(profile: &super::ProfileFacts) -> String {
    profile.id.as_ref().map_or_else(|| profile.index.to_string(), |id| format!("{} ({id})", profile.index))
}

pub(super) fn pcr_key(facts: &ImageFacts, policy: &Policy) -> Check {
    let id = CheckId::PcrKey;
    let found = |detail: String| {
        if policy.require_pcr_key {
            Check::new(id, CheckStatus::Fail, detail)
        } else {
            Check::new(id, CheckStatus::Warn, format!("{detail} --require-pcr-key makes this a failure."))
        }
    };
    let nothing = |detail: &str| {
        let status = if policy.require_pcr_key { CheckStatus::Fail } else { CheckStatus::Skip };
        Check::new(id, status, detail)
    };
    let Some(installed) = &policy.installed else {
        return nothing("There is no installed UKI to compare the PCR key with.");
    };
    let disks = if facts.family == Family::Talos { " (STATE, EPHEMERAL)" } else { "" };
    let sealed = format!("Disks sealed to the TPM under the installed key{disks} would stay locked after the swap.");
    match (&facts.pcrpkey, &installed.pcrpkey) {
        (None, None) => nothing("Neither the image nor the installed UKI has a PCR key."),
        (Some(_), None) => nothing("The installed UKI has no PCR key, so no disk can be sealed to one."),
        (None, Some(_)) => found(format!("The image has no PCR key, and the installed UKI has one. {sealed}")),
        (Some(new), Some(old)) => match (key_fingerprint(new), key_fingerprint(old)) {
            (Ok(new), Ok(old)) if new == old => {
                Check::new(id, CheckStatus::Pass, format!("The PCR key is the installed one ({new})."))
            }
            (Ok(new), Ok(old)) => {
                found(format!("The image's PCR key is {new}, the installed UKI's is {old}. {sealed}"))
            }
            (Err(e), _) => found(format!("The image's PCR key cannot be read: {e}. {sealed}")),
            (_, Err(e)) => found(format!("The installed UKI's PCR key cannot be read: {e}.")),
        },
    }
}

pub(super) fn schematic(facts: &ImageFacts, policy: &Policy) -> Check {
    let id = CheckId::Schematic;
    let Some(schematic) = &facts.schematic else {
        return match &policy.schematic {
            None if facts.family != Family::Talos => {
                Check::new(id, CheckStatus::Skip, "Images of this family are not built from schematics.")
            }
            Some(wanted) => Check::new(
                id,
                CheckStatus::Fail,
                format!("The image has no schematic layer, and {wanted} was requested: it is not from that factory."),
            ),
            None => {
                Check::new(id, CheckStatus::Skip, "The image has no schematic layer, and no schematic was requested.")
            }
        };
    };
    let states = &schematic.id;
    if schematic.id_matches == Some(false) {
        let detail = format!("The image states the schematic {states}, but the schematic in it has another hash.");
        return Check::new(id, CheckStatus::Fail, detail);
    }
    match &policy.schematic {
        Some(wanted) if !wanted.eq_ignore_ascii_case(states) => Check::new(
            id,
            CheckStatus::Fail,
            format!("The image was built from the schematic {states}, and {wanted} was requested."),
        ),
        wanted if schematic.id_matches.is_none() => {
            let (status, asked) =
                if wanted.is_some() { (CheckStatus::Warn, "requested, ") } else { (CheckStatus::Skip, "") };
            let detail = format!(
                "The image says it was built from the schematic {asked}{states}. The schematic itself is not in it, \
                 so the \
                 ID cannot be compared with it."
            );
            Check::new(id, status, detail)
        }
        Some(_) => Check::new(id, CheckStatus::Pass, format!("Built from the requested schematic, {states}.")),
        None => Check::new(
            id,
            CheckStatus::Pass,
            format!("Built from the schematic {states}; --schematic would check that."),
        ),
    }
}

pub(super) fn extensions(facts: &ImageFacts, policy: &Policy, loss: Option<&ExtensionLoss>) -> Check {
    let id = CheckId::Extensions;
    let plain = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    let there = set(facts.extensions.iter().map(|e| plain(&e.name)));
    let missing: Vec<_> = policy.required_extensions.iter().filter(|e| !there.contains(&plain(e))).cloned().collect();
    let list = facts.extensions.iter().map(|e| format!("{} {}", e.name, e.version)).collect::<Vec<_>>().join(", ");
    let list = if list.is_empty() { "none".to_owned() } else { list };
    if !missing.is_empty() {
        let detail =
            format!("Not in the image: {}. It has: {list}. Use a schematic with these extensions.", missing.join(", "));
        return Check::new(id, CheckStatus::Fail, detail);
    }
    let damaged = facts.damaged_images.iter().filter(|(name, _)| name != ROOT_FS);
    let damaged: Vec<_> = damaged.map(|(name, why)| format!("Linux would not mount {name}: {why}")).collect();
    if !damaged.is_empty() && facts.family == Family::Talos {
        let detail = format!(
            "Extensions: {list}. {}. Talos mounts each at every start: fetch the image again.",
            damaged.join("; ")
        );
        return Check::new(id, CheckStatus::Fail, detail);
    }
    let mut warnings: Vec<_> = loss.iter().map(|loss| lost(loss)).collect();
    warnings.extend(facts.waiting_services.iter().map(|name| waits(name)));
    warnings.extend(facts.unread_services.iter().map(|(extension, why)| {
        format!("Whether a service of {extension} waits for an ExtensionServiceConfig could not be found out ({why})")
    }));
    if !warnings.is_empty() {
        return Check::new(id, CheckStatus::Warn, format!("Extensions: {list}. {}.", warnings.join("; ")));
    }
    if policy.required_extensions.is_empty() && facts.family != Family::Talos {
        return Check::new(
            id,
            CheckStatus::Skip,
            "Images of this family have no such extensions, and none was requested.",
        );
    }
    if policy.required_extensions.is_empty() {
        return Check::new(id, CheckStatus::Skip, format!("No extension was required. The image has: {list}."));
    }
    Check::new(id, CheckStatus::Pass, format!("Every required extension is present: {list}."))
}

/// What is lost, and how to keep it.
fn lost(loss: &ExtensionLoss) -> String {
    let way = loss
        .schematic
        .as_ref()
        .map_or_else(String::new, |all| format!(" (the schematic with all has the ID {})", all.id));
    let words = loss.words();
    let mut letters = words.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    format!("{}{way}", first.into_iter().chain(letters).collect::<String>())
}

/// What it means that an extension service depends on configuration.
#[must_use]
pub fn waits(service: &str) -> String {
    format!("ext-{service} waits for an ExtensionServiceConfig; apply it before the reboot")
}

/// The files that a lanzaboote stub starts.
fn pointed(facts: &ImageFacts) -> Check {
    let id = CheckId::Initrd;
    let files = match &facts.pointed {
        Ok(files) => files,
        Err(why) => return Check::new(id, CheckStatus::Skip, format!("{why}.")),
    };
    let trouble: Vec<_> = files.iter().filter_map(|f| Some(format!("{} {}", f.path, f.trouble.as_ref()?))).collect();
    if !trouble.is_empty() {
        let detail =
            format!("The stub would not start what it names: {}. Install that file with it.", trouble.join("; "));
        return Check::new(id, CheckStatus::Fail, detail);
    }
    let names: Vec<_> = files.iter().map(|f| f.path.as_str()).collect();
    Check::new(id, CheckStatus::Pass, format!("On the ESP with the hashes that the stub states: {}.", names.join(", ")))
}

pub(super) fn initrd(facts: &ImageFacts) -> Check {
    let id = CheckId::Initrd;
    if facts.family == Family::Lanzaboote {
        return pointed(facts);
    }
    let root = facts.damaged_images.iter().find(|(name, _)| name == ROOT_FS);
    match (&facts.initrd, root) {
        (InitrdFacts::Read(_), Some((name, why))) if facts.family == Family::Talos => {
            Check::new(id, CheckStatus::Fail, format!("Linux would not mount {name}: {why}. Fetch the image again."))
        }
        (InitrdFacts::Read(what), _) => Check::new(id, CheckStatus::Pass, what),
        (InitrdFacts::Absent, _) if facts.family == Family::Talos => {
            Check::new(id, CheckStatus::Fail, "The image has no initrd, and Talos does not start without one.")
        }
        (InitrdFacts::Absent, _) => {
            Check::new(id, CheckStatus::Pass, "The image has no initrd: the kernel does without.")
        }
        (InitrdFacts::Unread(why), _) => {
            Check::new(id, CheckStatus::Skip, format!("The initrd was not read to its end: {why}."))
        }
        (InitrdFacts::Bad(why), _) => {
            let detail = format!("The kernel could not unpack the initrd: {why}. Fetch the image again.");
            Check::new(id, CheckStatus::Fail, detail)
        }
    }
}

/// The values of one kernel parameter, in order; a parameter without `=` has an empty value.
fn parameter<'a>(cmdline: &'a str, name: &str) -> Vec<&'a str> {
    cmdline
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('=').or(Some((word, ""))))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value)
        .collect()
}

/// The halt flag in the image itself, and the ways out.
fn halts(facts: &ImageFacts, policy: &Policy) -> String {
    let arch = facts.arch.map_or("<arch>", |arch| arch.name());
    let id = policy.schematic_without_halt.as_ref().map(|id| format!(", whose ID is then {id}")).unwrap_or_default();
    format!(
        "The command line has {HALT}: an installed node that boots it stops for up to 70 minutes before it loads \
         its configuration (ISOs have it). Two ways out: the factory's `metal-{arch}-secureboot-uki.efi`, which does \
         not have it, or a schematic with `-{HALT}` in extraKernelArgs{id}."
    )
}

pub(super) fn cmdline(facts: &ImageFacts, policy: &Policy, added: &Added) -> Check {
    let id = CheckId::Cmdline;
    let talos = facts.family == Family::Talos;
    let (mut failures, mut warnings) = (Vec::new(), Vec::new());
    // Where a flag comes from that the image itself does not have.
    let from = |own: &str, flag: &str| {
        let has = |(_, line): &&(String, String)| !parameter(line, flag).is_empty();
        let addon = added.lines.iter().find(has).filter(|_| parameter(own, flag).is_empty());
        addon.map(|(path, _)| format!(", from the addon {path}")).unwrap_or_default()
    };
    for profile in facts.profiles.iter().filter(|_| talos) {
        let from = from(&profile.cmdline, WIPE);
        if let Some(what) = parameter(&added.to(&profile.cmdline), WIPE).first() {
            if profile.index == 0 {
                let way_out = if from.is_empty() { "Use an image without that flag" } else { "Remove that file" };
                failures.push(format!(
                    "What boots by default wipes the node at every start ({WIPE}={what}{from}). {way_out}."
                ));
            } else {
                warnings.push(format!(
                    "The boot menu gets an entry that wipes ({WIPE}={what}{from}): profile {}. It never boots by \
                     itself.",
                    name(profile)
                ));
            }
        }
    }
    let own = facts.profiles.iter().find(|p| p.index == 0).map(|p| p.cmdline.as_str()).unwrap_or_default();
    let default = &added.to(own);
    if talos && parameter(default, HALT).iter().any(|value| *value != "0") {
        let from = from(own, HALT);
        let text = if from.is_empty() {
            halts(facts, policy)
        } else {
            format!(
                "The command line has {HALT}{from}: an installed node that boots it stops for up to 70 minutes before \
                 it \
                 loads its configuration. Remove that file."
            )
        };
        if policy.refuse_halt { failures.push(text) } else { warnings.push(text) }
    }
    if let Some(old) = policy.installed.as_ref().and_then(|i| added.to_installed(i)) {
        for name in ["talos.platform", "console", "root", "lockdown"] {
            let (old, new) = (parameter(&old, name), parameter(default, name));
            if old != new {
                let show = |values: &[&str]| if values.is_empty() { "not set".to_owned() } else { values.join(" ") };
                warnings.push(format!("{name} changes from {} to {}.", show(&old), show(&new)));
            }
        }
    }
    let status = match (failures.is_empty(), warnings.is_empty()) {
        (false, _) => CheckStatus::Fail,
        (true, false) => CheckStatus::Warn,
        (true, true) if talos => {
            return Check::new(id, CheckStatus::Pass, "Nothing on the command lines halts or wipes.");
        }
        (true, true) => {
            return Check::new(id, CheckStatus::Pass, "Nothing on the command line is known to prevent the boot.");
        }
    };
    failures.append(&mut warnings);
    Check::new(id, status, failures.join(" "))
}
