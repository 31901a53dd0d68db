//! What the policy looks at: facts about an image, gathered by those who read it.

use crate::authenticode::{ImageDigest, Signature};
use crate::pcr::PcrSignature;
use crate::pe::Arch;
use crate::trust::Sbat;
use crate::uki::{self, CompanionKind, Family, Host};
use serde::Serialize;

/// An extension in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExtensionFacts {
    /// Its name as in `extensions.yaml`, for example `tailscale`.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl ExtensionFacts {
    /// The extensions of an image, without the schematic layer.
    pub(crate) fn all_of(layers: &uki::Extensions) -> Vec<Self> {
        layers.extensions.iter().map(|e| Self { name: e.name.clone(), version: e.version.clone() }).collect()
    }
}

/// The schematic layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchematicFacts {
    /// The ID that the layer states.
    pub id: String,
    /// Whether the YAML in the layer hashes to this ID; `None` when there is no YAML to compare it with.
    pub id_matches: Option<bool>,
    /// The YAML in the layer; empty when there is none.
    pub yaml: String,
    /// Host and port of the factory that built the image, where the layer names it.
    pub factory: Option<String>,
}

impl SchematicFacts {
    /// The schematic layer of an image.
    pub(crate) fn of(uki: &uki::Uki) -> Option<Self> {
        uki.schematic().map(|layer| Self {
            id: layer.id.clone(),
            id_matches: layer.id_matches(),
            yaml: layer.yaml.clone(),
            factory: layer.factory.clone(),
        })
    }
}

/// What became of one profile's signed PCR policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProfilePcr {
    /// The profile has no `.pcrsig`.
    Missing,
    /// It was verified, with these outcomes.
    Checked(PcrSignature),
    /// `.pcrsig` or `.pcrpkey` cannot be read, or the measurement could not be computed: why.
    Unusable(String),
}

/// One profile of a UKI.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProfileFacts {
    /// 0 is what boots when nobody chooses.
    pub index: usize,
    /// `ID=` of its `.profile`, if it has one.
    pub id: Option<String>,
    /// Its kernel command line; empty when there is none.
    pub cmdline: String,
    /// Its signed PCR 11 policy.
    pub pcr: ProfilePcr,
    /// Sections of which the stub measures the one that fits the hardware (`.dtbauto`, `.efifw`).
    pub by_hardware: usize,
}

/// What became of an image's initrd.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitrdFacts {
    /// There is none, or an empty one.
    Absent,
    /// It was read to its end; what it holds, in one sentence.
    Read(String),
    /// It was not read to its end, and nothing is known to be wrong with it: why.
    Unread(String),
    /// The kernel could not unpack it, or what has to be in it is not: why.
    Bad(String),
}

/// A file that the stub names by path and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PointedFile {
    /// Its path on the volume.
    pub path: String,
    /// Why it is not the one that the stub starts, if it is not.
    pub trouble: Option<String>,
}

/// A file beside the image that systemd's stub adds to it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CompanionFacts {
    /// From the root of the volume: `loader/addons/console.addon.efi`.
    pub path: String,
    /// What it is.
    pub kind: CompanionKind,
    /// Length in bytes.
    pub bytes: u64,
    /// What an addon says, or why it cannot be read; `None` for what is no addon.
    pub addon: Option<Result<Addon, String>>,
}

/// An addon that has been read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Addon {
    /// Its headers and small sections.
    pub says: uki::Facts,
    /// The Authenticode digest.
    pub digest: Result<ImageDigest, String>,
    /// The signatures in its certificate table; empty when there is none.
    pub signatures: Result<Vec<Signature>, String>,
    /// `.sbat`, if there is one.
    pub sbat: Result<Option<Sbat>, String>,
}

/// Facts about an image that `verify` has read. What could not be read carries the reason.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImageFacts {
    /// SHA-256 of the whole file; `None` where it was not taken.
    pub sha256: Option<[u8; 32]>,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Whose UKI it is.
    pub family: Family,
    /// What is wrong with the PE headers, if anything is.
    pub pe_problems: Vec<String>,
    /// What is wrong with the sections: missing ones, bad contents.
    pub section_problems: Vec<String>,
    /// What is unusual about them, and has been trouble to some firmware.
    pub section_warnings: Vec<String>,
    /// The architecture, if it is one that Talos is built for.
    pub arch: Option<Arch>,
    /// `VERSION_ID` of `.osrel`.
    pub version: Option<String>,
    /// Places that state another version or architecture than these, one sentence each.
    pub contradictions: Vec<String>,
    /// The Authenticode digest.
    pub digest: Result<ImageDigest, String>,
    /// The signatures in the certificate table; empty when there is no table.
    pub signatures: Result<Vec<Signature>, String>,
    /// `.sbat`, if there is one.
    pub sbat: Result<Option<Sbat>, String>,
    /// `.pcrpkey` as it stands, if there is one.
    pub pcrpkey: Option<Vec<u8>>,
    /// The profiles, at least one for a UKI.
    pub profiles: Vec<ProfileFacts>,
    /// What became of the initrd.
    pub initrd: InitrdFacts,
    /// The schematic layer, if there is one.
    pub schematic: Option<SchematicFacts>,
    /// The extensions, without the schematic layer.
    pub extensions: Vec<ExtensionFacts>,
    /// Names of extension services that wait for an ExtensionServiceConfig.
    pub waiting_services: Vec<String>,
    /// Names of all extension services; `None` where not all could be read.
    pub services: Option<Vec<String>>,
    /// Files of the initrd that Linux would have to mount and could not: name of the extension or the file, and why.
    pub damaged_images: Vec<(String, String)>,
    /// Extensions of which it could not be found out whether they have such services, with the reason.
    pub unread_services: Vec<(String, String)>,
    /// Files that its stub starts and that lie beside it (lanzaboote); none for other families; or why they are not
    /// known.
    pub pointed: Result<Vec<PointedFile>, String>,
    /// What its stub is, as far as that decides which addons it takes.
    pub host: Host,
    /// What lies beside it for the stub to add, in the stub's order; or why that is not known.
    pub companions: Result<Vec<CompanionFacts>, String>,
}
