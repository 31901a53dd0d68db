//! `inspect` and `diff`: what something is and what is in it.

use super::beside::beside_candidate;
use super::board::BoardDifference;
use super::examine::{Examined, examine};
use super::{ImageRequest, Ui};
use crate::Result;
use crate::authenticode::Signature;
use crate::block::{FileSource, ReadAt};
use crate::disk::{Partition, PartitionTable, PartitionType};
use crate::image::{Candidate, ImageKind};
use crate::iso::Iso;
use crate::packed::{Packing, Unpacked};
use crate::pcr::{Bank, PcrSignature, key_fingerprint};
use crate::pe::Arch;
use crate::sorting::set;
use crate::uki::{CompanionKind, Family, Uki, additions, cmdline, kernel_version};
use crate::verify::{
    CompanionFacts, ExtensionFacts, ExtensionLoss, ImageExtensions, ImageFacts, InitrdFacts, ProfilePcr,
};
use serde::Serialize;

/// What `inspect` is asked for.
#[derive(Debug)]
pub struct Inspect {
    /// What to look into.
    pub image: ImageRequest,
}

/// What it found.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct InspectReport {
    /// As given.
    pub path: String,
    /// `UKI`, `ISO`, `disk image` or `FAT image`.
    pub kind: String,
    /// Length in bytes; of a packed image what it unpacks to, of an OCI image that of its UKIs.
    pub bytes: u64,
    /// How it is packed; `null` when it is not.
    pub packed: Option<Packing>,
    /// Length of the packed file in bytes.
    pub packed_bytes: Option<u64>,
    /// The volume name of an ISO.
    pub volume: Option<String>,
    /// The partitions of a disk.
    pub partitions: Vec<InspectedPartition>,
    /// Every UKI that was found: name and place.
    pub ukis: Vec<UkiPlace>,
    /// The UKI that was chosen, or the only one.
    pub uki: Option<UkiReport>,
}

/// Where a UKI is.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct UkiPlace {
    /// Its name; `null` for a bare UKI.
    pub name: Option<String>,
    /// Where, in words.
    pub place: String,
    /// Its length.
    pub bytes: u64,
}

/// A partition of a disk.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct InspectedPartition {
    /// Its number.
    pub number: u32,
    /// Its label.
    pub label: String,
    /// Its PARTUUID.
    pub partuuid: String,
    /// Its type: the GUID of a GPT entry, or the byte of an MBR entry as `0x0c`.
    #[serde(rename = "type")]
    pub kind: PartitionType,
    /// Its type GUID; `null` in an MBR.
    pub type_guid: Option<String>,
    /// Whether it is an EFI System Partition.
    pub esp: bool,
    /// Whether it is an XBOOTLDR partition, which systemd-boot reads beside the ESP.
    pub xbootldr: bool,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Everything that is known of a UKI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UkiReport {
    /// SHA-256 of the whole file.
    pub sha256: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Whose image it is: `talos`, `systemd`, `lanzaboote`, `unknown`.
    pub family: Family,
    /// Architecture.
    pub arch: Option<Arch>,
    /// `VERSION_ID`.
    pub version: Option<String>,
    /// `PRETTY_NAME`.
    pub os: Option<String>,
    /// Version of the kernel.
    pub kernel: Option<String>,
    /// Name and version of the stub.
    pub stub: Option<String>,
    /// The schematic it was built from.
    pub schematic: Option<String>,
    /// That schematic, as YAML.
    pub schematic_yaml: Option<String>,
    /// The extensions in it.
    pub extensions: Vec<ExtensionFacts>,
    /// Names of extension services that wait for an ExtensionServiceConfig.
    pub waiting_services: Vec<String>,
    /// The ways to boot it.
    pub profiles: Vec<ProfileReport>,
    /// Subjects of its signers.
    pub signers: Vec<String>,
    /// SHA-256 over the parts that a signature covers.
    pub authenticode_sha256: Option<String>,
    /// SHA-256 of its PCR public key.
    pub pcr_key: Option<String>,
    /// The section table.
    pub sections: Vec<SectionReport>,
    /// What lies beside it for systemd's stub to add to it, in the stub's order; `null` where that is not known.
    pub companions: Option<Vec<CompanionReport>>,
    /// What the initrd holds, or why it cannot be read.
    pub initrd: String,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

/// A profile of a UKI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProfileReport {
    /// Its number.
    pub index: usize,
    /// Its id.
    pub id: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// Its kernel command line.
    pub cmdline: Option<String>,
    /// The same with what addons add to it; `null` where they add nothing. Whether firmware takes them depends on its
    /// keys.
    pub cmdline_with_addons: Option<String>,
    /// Whether it stops on an installed node.
    pub halts_if_installed: bool,
    /// What it wipes.
    pub wipes: Option<String>,
    /// PCR 11 (SHA-256) when the stub is done.
    pub pcr11_sections: Option<String>,
    /// PCR 11 (SHA-256) after each of the phases of its family.
    pub pcr11_phases: Vec<(String, String)>,
    /// What became of its signed policy.
    pub pcr_signature: String,
}

/// A file that systemd's stub adds to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CompanionReport {
    /// From the root of the volume.
    pub path: String,
    /// What it is.
    pub kind: CompanionKind,
    /// Length in bytes.
    pub bytes: u64,
    /// The sections of an addon that are added: `.cmdline`.
    pub adds: Vec<String>,
    /// What an addon adds to the command line.
    pub cmdline: Option<String>,
    /// Subjects of an addon's signers.
    pub signers: Vec<String>,
    /// Why the stub passes an addon over, signatures aside.
    pub passed_over: Option<String>,
}

impl CompanionReport {
    fn all(companions: &[CompanionFacts], facts: &ImageFacts) -> Vec<Self> {
        companions.iter().map(|c| Self::of(c, facts)).collect()
    }

    fn of(companion: &CompanionFacts, facts: &ImageFacts) -> Self {
        let addon = companion.addon.as_ref().and_then(|a| a.as_ref().ok());
        let signers = addon.and_then(|a| a.signatures.as_deref().ok()).unwrap_or_default();
        Self {
            path: companion.path.clone(),
            kind: companion.kind,
            bytes: companion.bytes,
            adds: addon.map_or(Vec::new(), |a| additions(&a.says).into_iter().map(str::to_owned).collect()),
            cmdline: addon.and_then(|a| a.says.cmdline().map(str::to_owned)),
            signers: signers.iter().map(|s| s.signer.subject()).collect(),
            passed_over: match &companion.addon {
                None => None,
                Some(Err(why)) => Some(format!("it cannot be read: {why}")),
                Some(Ok(addon)) => facts.host.passes_over(&addon.says),
            },
        }
    }
}

/// What the addons that the stub takes add to the command line.
fn added_lines(facts: &ImageFacts) -> Vec<String> {
    let all = facts.companions.as_deref().map_or(Vec::new(), |all| CompanionReport::all(all, facts));
    let lines = all.into_iter().filter(|c| c.kind == CompanionKind::Addon && c.passed_over.is_none());
    lines.filter_map(|c| c.cmdline).filter(|line| !line.is_empty()).collect()
}

/// A section of a UKI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SectionReport {
    /// Its name.
    pub name: String,
    /// Where it begins in the file.
    pub offset: u64,
    /// Bytes of data.
    pub bytes: u32,
}

impl Inspect {
    /// Looks.
    ///
    /// # Errors
    /// As [`ImageRequest::open`].
    pub fn run(&self, ui: &dyn Ui) -> Result<InspectReport> {
        let opened = self.image.open_to_look_around(ui)?;
        let places = |c: &Candidate| UkiPlace { name: c.name.clone(), place: c.place.clone(), bytes: c.bytes.size() };
        let one = match (&self.image.uki, opened.found.candidates.as_slice()) {
            (None, [_, _, ..] | []) => None,
            _ => Some(opened.uki()?),
        };
        let whole = opened.source();
        Ok(InspectReport {
            path: crate::factory::show_url(&self.image.image),
            kind: opened.found.kind.to_string(),
            bytes: match opened.found.kind {
                ImageKind::Oci => opened.found.candidates.iter().map(|c| c.bytes.size()).sum(),
                _ => whole.size(),
            },
            packed: opened.unpacked.as_ref().map(Unpacked::packing),
            packed_bytes: opened.unpacked.as_ref().map(Unpacked::packed_bytes),
            volume: match opened.found.kind {
                ImageKind::Iso => Some(Iso::open(&*whole)?.volume_id()),
                _ => None,
            },
            partitions: match opened.found.kind {
                ImageKind::Disk => partitions(&*whole, opened.file.as_deref())?,
                _ => Vec::new(),
            },
            ukis: opened.found.candidates.iter().map(places).collect(),
            uki: one.map(|c| uki_report(c, ui)).transpose()?,
        })
    }
}

fn partitions(source: &dyn ReadAt, file: Option<&FileSource>) -> Result<Vec<InspectedPartition>> {
    let table = PartitionTable::read(source, file.and_then(FileSource::device_sector_size))?;
    let report = |p: Partition| InspectedPartition {
        esp: p.is_esp(),
        xbootldr: p.is_xbootldr(),
        number: p.number,
        label: p.label,
        partuuid: p.partuuid.to_string(),
        type_guid: matches!(p.kind, PartitionType::Gpt(_)).then(|| p.kind.to_string()),
        kind: p.kind,
        offset: p.extent.offset,
        bytes: p.extent.bytes,
    };
    Ok(table.into_iter().flat_map(|t| t.partitions).map(report).collect())
}

/// Reads a UKI whole and says everything about it.
fn uki_report(candidate: &Candidate, ui: &dyn Ui) -> Result<UkiReport> {
    let source: &dyn ReadAt = &candidate.bytes;
    let mut examined = examine(source, &[Bank::Sha256], &mut [], ui)?;
    examined.facts.companions = beside_candidate(candidate);
    let kernel = match &examined.uki {
        Some(uki) => match (&uki.facts.uname, uki.facts.extent(".linux")) {
            (Some(uname), _) => Some(uname.clone()),
            (None, Some(extent)) => kernel_version(source, extent)?,
            (None, None) => None,
        },
        None => None,
    };
    Ok(UkiReport::of(&examined, kernel))
}

impl UkiReport {
    fn image_extensions(&self) -> ImageExtensions {
        ImageExtensions {
            schematic: self.schematic.clone(),
            yaml: self.schematic_yaml.clone(),
            extensions: self.extensions.clone(),
        }
    }

    fn of(examined: &Examined, kernel: Option<String>) -> Self {
        let facts = &examined.facts;
        let uki = examined.uki.as_ref();
        let signers = |all: &[Signature]| all.iter().map(|s| s.signer.subject()).collect();
        let problems = facts.pe_problems.iter().chain(&facts.section_problems).cloned();
        let unread = facts.unread_services.iter().map(|(extension, why)| format!("services of {extension}: {why}"));
        Self {
            sha256: facts.sha256.map(hex::encode).unwrap_or_default(),
            bytes: facts.bytes,
            family: facts.family,
            arch: facts.arch,
            version: facts.version.clone(),
            os: uki.and_then(|u| u.facts.os_release.pretty_name.clone()),
            kernel,
            stub: uki.and_then(|u| u.facts.stub().map(str::to_owned)),
            schematic: facts.schematic.as_ref().map(|s| s.id.clone()),
            schematic_yaml: uki.and_then(|u| u.schematic()).map(|s| s.yaml.clone()),
            extensions: facts.extensions.clone(),
            waiting_services: facts.waiting_services.clone(),
            profiles: uki.map_or(Vec::new(), |u| profiles(u, examined)),
            signers: facts.signatures.as_deref().map_or(Vec::new(), signers),
            authenticode_sha256: facts.digest.as_ref().ok().map(|d| hex::encode(d.sha256)),
            pcr_key: facts.pcrpkey.as_deref().and_then(|key| key_fingerprint(key).ok()),
            sections: uki.map_or(Vec::new(), |u| {
                let all = u.facts.head.sections.iter();
                all.map(|s| SectionReport { name: s.name.to_string(), offset: s.raw.offset, bytes: s.virtual_bytes })
                    .collect()
            }),
            companions: facts.companions.as_ref().ok().map(|all| CompanionReport::all(all, facts)),
            initrd: match &facts.initrd {
                InitrdFacts::Absent => "none".to_owned(),
                InitrdFacts::Read(what) => what.clone(),
                InitrdFacts::Unread(why) => format!("not read to its end: {why}"),
                InitrdFacts::Bad(why) => format!("cannot be read: {why}"),
            },
            problems: problems
                .chain(facts.signatures.as_ref().err().cloned())
                .chain(facts.damaged_images.iter().map(|(image, why)| format!("{image}: {why}")))
                .chain(unread)
                .collect(),
        }
    }
}

fn profiles(uki: &Uki, examined: &Examined) -> Vec<ProfileReport> {
    let talos = examined.facts.family == Family::Talos;
    let added = added_lines(&examined.facts);
    let judged = |index: usize| examined.facts.profiles.iter().find(|p| p.index == index);
    uki.facts
        .profiles
        .iter()
        .map(|p| {
            let values =
                examined.pcr.iter().find(|(i, bank, _)| *i == p.index && *bank == Bank::Sha256).map(|(_, _, v)| v);
            let line = p.cmdline.as_deref().unwrap_or_default();
            let whole = format!("{line} {}", added.join(" "));
            ProfileReport {
                index: p.index,
                id: p.id.clone(),
                title: p.title.clone(),
                cmdline: p.cmdline.clone(),
                cmdline_with_addons: (!added.is_empty())
                    .then(|| format!("{line} {}", added.join(" ")).trim().to_owned()),
                halts_if_installed: talos && cmdline::halt_if_installed(&whole),
                wipes: cmdline::wipes(&whole).filter(|_| talos).map(|what| what.to_string()),
                pcr11_sections: values.map(|v| hex::encode(&v.sections)),
                pcr11_phases: values.map_or(Vec::new(), |v| {
                    v.phases.iter().map(|(word, value)| (word.clone(), hex::encode(value))).collect()
                }),
                pcr_signature: match judged(p.index).map(|p| &p.pcr) {
                    None | Some(ProfilePcr::Missing) => "none".to_owned(),
                    Some(ProfilePcr::Unusable(why)) => why.clone(),
                    Some(ProfilePcr::Checked(c)) => policies(examined.facts.family, c),
                },
            }
        })
        .collect()
}

/// What became of a signed policy, in a few words.
fn policies(family: Family, signature: &PcrSignature) -> String {
    let problem = if family == Family::Talos { signature.problem_for_talos() } else { signature.problem() };
    problem.unwrap_or_else(|| match signature.unjudged() {
        Some(why) => format!("not judged: {why}"),
        None => "verified".to_owned(),
    })
}

/// What `diff` is asked for.
#[derive(Debug)]
pub struct Diff {
    /// The one.
    pub old: ImageRequest,
    /// The other.
    pub new: ImageRequest,
}

/// Two images side by side.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct DiffReport {
    /// The one.
    pub old: UkiReport,
    /// The other.
    pub new: UkiReport,
    /// Whether they are the same, byte for byte.
    pub identical: bool,
    /// What differs.
    pub changes: Vec<FieldDifference>,
    /// Extensions that the old image has and the new one lacks.
    pub extension_loss: Option<ExtensionLoss>,
    /// The files beside the two images.
    pub board: BoardDifference,
}

/// One difference.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FieldDifference {
    /// What: `version`, `kernel`, `extension tailscale`.
    pub what: String,
    /// In the one.
    pub old: Option<String>,
    /// In the other.
    pub new: Option<String>,
}

impl Diff {
    /// Compares.
    ///
    /// # Errors
    /// As [`ImageRequest::open`].
    pub fn run(&self, ui: &dyn Ui) -> Result<DiffReport> {
        let (old, new) = (self.old.open_to_look_around(ui)?, self.new.open_to_look_around(ui)?);
        let board = BoardDifference::between((&old, old.uki()?), (&new, new.uki()?));
        let (old, new) = (uki_report(old.uki()?, ui)?, uki_report(new.uki()?, ui)?);
        let loss = ExtensionLoss::between(&old.image_extensions(), &new.image_extensions());
        let loss = loss.filter(|_| old.family == Family::Talos && new.family == Family::Talos);
        let changes = changes(&old, &new);
        Ok(DiffReport { identical: old.sha256 == new.sha256, changes, extension_loss: loss, board, old, new })
    }
}

fn changes(old: &UkiReport, new: &UkiReport) -> Vec<FieldDifference> {
    let mut all = Vec::new();
    let mut compare = |what: String, old: Option<String>, new: Option<String>| {
        if old != new {
            all.push(FieldDifference { what, old, new });
        }
    };
    let list = |items: &[String]| (!items.is_empty()).then(|| items.join(", "));
    compare("family".into(), Some(old.family.to_string()), Some(new.family.to_string()));
    compare("architecture".into(), old.arch.map(|a| a.to_string()), new.arch.map(|a| a.to_string()));
    compare("version".into(), old.version.clone(), new.version.clone());
    compare("kernel".into(), old.kernel.clone(), new.kernel.clone());
    compare("stub".into(), old.stub.clone(), new.stub.clone());
    compare("schematic".into(), old.schematic.clone(), new.schematic.clone());
    let names = old.extensions.iter().chain(&new.extensions).map(|e| &e.name);
    for name in set(names) {
        let version = |r: &UkiReport| r.extensions.iter().find(|e| e.name == *name).map(|e| e.version.clone());
        compare(format!("extension {name}"), version(old), version(new));
    }
    compare("services that wait for configuration".into(), list(&old.waiting_services), list(&new.waiting_services));
    let beside = |r: &UkiReport| r.companions.clone().unwrap_or_default();
    let (old_beside, new_beside) = (beside(old), beside(new));
    let paths = old_beside.iter().chain(&new_beside).map(|c| (&c.path, c.kind));
    // Where one image is by itself, what lies beside the other is no difference of the images.
    for (path, kind) in set(paths.filter(|_| old.companions.is_some() && new.companions.is_some())) {
        let says = |all: &[CompanionReport]| {
            let found = all.iter().find(|c| c.path == *path)?;
            Some(found.cmdline.clone().unwrap_or_else(|| format!("{} bytes", found.bytes)))
        };
        compare(format!("{kind} {path}"), says(&old_beside), says(&new_beside));
    }
    compare("signer".into(), list(&old.signers), list(&new.signers));
    compare(
        "PCR 7 with Secure Boot on (disks that are sealed to it stay locked where it changes)".into(),
        list(&old.signers),
        list(&new.signers),
    );
    compare("PCR key".into(), old.pcr_key.clone(), new.pcr_key.clone());
    let key = |p: &ProfileReport| p.id.clone().unwrap_or_else(|| p.index.to_string());
    let ids = old.profiles.iter().chain(&new.profiles).map(key);
    for id in set(ids) {
        let find = |r: &UkiReport| r.profiles.iter().find(|p| key(p) == id).cloned();
        let (a, b) = (find(old), find(new));
        let line = |p: &Option<ProfileReport>| p.as_ref().map(|p| p.cmdline.clone().unwrap_or_default());
        compare(format!("command line of profile {id}"), line(&a), line(&b));
        let whole = |p: &Option<ProfileReport>| p.as_ref().and_then(|p| p.cmdline_with_addons.clone());
        if whole(&a).is_some() || whole(&b).is_some() {
            let all = |p: &Option<ProfileReport>| whole(p).or_else(|| line(p));
            compare(format!("command line of profile {id} with its addons"), all(&a), all(&b));
        }
        let lockdown = |p: &Option<ProfileReport>| {
            let p = p.as_ref()?;
            let all = cmdline::parameters(p.cmdline_with_addons.as_deref().or(p.cmdline.as_deref())?);
            all.into_iter().rfind(|p| p.name == "lockdown")?.value
        };
        // What the kernel forbids changes with it (Talos before 1.14 sets it in Secure Boot images): too much to be
        // overlooked in a long line.
        compare(format!("kernel lockdown of profile {id}"), lockdown(&a), lockdown(&b));
    }
    all
}
