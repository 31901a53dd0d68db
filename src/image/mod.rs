//! What an IMAGE is, found out by content, and the UKIs in it: a bare UKI, an ISO, a raw disk image, a FAT image. Reads
//! only, except for [`extract`], which writes the file it is told to.
//!
//! Nothing here assumes a local file: a source may be a URL, so structures are read in a few large pieces and a UKI is
//! a list of extents until somebody wants its bytes.

mod extract;
mod files;
mod twins;

pub use extract::extract;
pub use files::{ImageFile, files_at};
pub use twins::{TwinVerdict, compare_twins};

use crate::block::{Extent, Pieces, ReadAt, Window, read_vec};
use crate::fat::Volume;
use crate::iso::{EfiImage, EfiImageOrigin, Iso};
use crate::oci::OciUki;
use crate::uki::{Companion, CompanionKind, Companions};
use crate::units::size;
use crate::{Context, Error, Result};
use std::fmt;
use std::sync::Arc;

/// A source that several readers share.
pub type SharedSource = Arc<dyn ReadAt>;

/// Where systemd-boot looks for UKIs (UAPI.1, Boot Loader Specification type #2).
const UKI_FOLDER: &str = "EFI/Linux";

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageKind {
    /// A PE image: a bare UKI, or something that claims to be one.
    Uki,
    /// An ISO 9660 volume.
    Iso,
    /// A disk with a GPT or an MBR, in 512- or 4096-byte sectors.
    Disk,
    /// A FAT file system without a partition table.
    Fat,
    /// An OCI image, as a layout in a folder or an archive ([`crate::oci`]).
    Oci,
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uki => "UKI",
            Self::Iso => "ISO",
            Self::Disk => "disk image",
            Self::Fat => "FAT image",
            Self::Oci => "OCI image",
        })
    }
}

impl ImageKind {
    /// What the first bytes of `source` say it is; `None` when it is nothing this tool knows.
    ///
    /// # Errors
    /// What the source reports; [`crate::Kind::Rejected`] when it is a disk whose partition tables are both bad.
    pub fn detect(source: &dyn ReadAt) -> Result<Option<Self>> {
        // A hybrid ISO also has an MBR, perhaps a GPT, and a boot sector that may begin like anything: the ISO first.
        Ok(if crate::iso::is_iso(source)? {
            Some(Self::Iso)
        } else if is_pe(source)? {
            Some(Self::Uki)
        } else if crate::disk::PartitionTable::read(source, None)?.is_some() {
            Some(Self::Disk)
        } else {
            crate::fat::is_fat(source)?.then_some(Self::Fat)
        })
    }

    /// Where the UKIs of such an image were looked for.
    const fn places(self) -> &'static str {
        match self {
            Self::Uki => "the file itself",
            Self::Iso => "EFI/Linux of the ISO's tree and of its EFI boot images",
            Self::Disk => "EFI/Linux of the disk's EFI System and XBOOTLDR partitions",
            Self::Fat => "EFI/Linux of the FAT image",
            Self::Oci => "its layers",
        }
    }
}

/// A UKI in an image.
#[derive(Clone)]
#[non_exhaustive]
pub struct Candidate {
    /// File name as on the medium; `None` for a bare UKI, whose name only the caller can know.
    pub name: Option<String>,
    /// Where it was found, in words.
    pub place: String,
    /// Its bytes. The extents are those of the whole source.
    pub bytes: Pieces<SharedSource>,
    /// The same file in another place of an ISO, next to be asked: the tree's twin is the copy in the FAT image, which
    /// firmware boots.
    pub twin: Option<Box<Self>>,
    /// Why its bytes cannot be had: the file system is damaged here. `bytes` is then empty.
    pub trouble: Option<String>,
    /// What lies beside it for systemd's stub to add, in the stub's order; or why that is not known.
    pub companions: Result<Vec<CompanionFile>, String>,
    /// The FAT volume that it lies on, as a part of the source.
    pub volume: Option<Extent>,
}

/// A file beside a UKI in an image.
#[derive(Clone)]
#[non_exhaustive]
pub struct CompanionFile {
    /// From the root of the volume.
    pub path: String,
    /// What it is.
    pub kind: CompanionKind,
    /// Its bytes, or why they cannot be had.
    pub bytes: Result<Pieces<SharedSource>, String>,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("name", &self.name)
            .field("place", &self.place)
            .field("extents", &self.bytes.extents())
            .field("twin", &self.twin)
            .finish()
    }
}

impl fmt::Display for Candidate {
    /// Name and place; the name in quotes and escaped, because whoever made the image chose it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name:?} ({})", self.place)?,
            None => f.write_str(&self.place)?,
        }
        if self.trouble.is_some() { f.write_str(", unreadable") } else { Ok(()) }
    }
}

/// What an image holds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImageContents {
    /// What the image is.
    pub kind: ImageKind,
    /// The UKIs in it, in the order of the medium.
    pub candidates: Vec<Candidate>,
}

/// Finds out what `source` is and where the UKIs in it are, with their second copies.
///
/// # Errors
/// [`crate::Kind::Rejected`] when it is nothing this tool knows, or malformed or truncated; what the source reports.
pub fn locate(source: SharedSource) -> Result<ImageContents> {
    locate_in(&source, true)
}

/// As [`locate`], but an ISO whose tree holds UKIs is not searched for second copies: to do so costs about a megabyte
/// (the allocation table of the FAT image), which matters when the source is far away.
///
/// # Errors
/// As [`locate`].
pub fn locate_without_twins(source: SharedSource) -> Result<ImageContents> {
    locate_in(&source, false)
}

fn locate_in(source: &SharedSource, twins: bool) -> Result<ImageContents> {
    let kind = ImageKind::detect(source)?.ok_or_else(|| unknown(source))?;
    let all = Extent { offset: 0, bytes: source.size() };
    let candidates = match kind {
        ImageKind::Uki => vec![candidate(source, None, "the image itself", vec![all])?],
        ImageKind::Iso => in_iso(source, twins)?,
        ImageKind::Disk | ImageKind::Fat => in_volumes(source, volumes(source, kind)?)?,
        // Not found out from a source of bytes.
        ImageKind::Oci => Vec::new(),
    };
    Ok(ImageContents { kind, candidates })
}

/// The UKIs that were found in an OCI image, as what an image holds.
///
/// # Errors
/// None in practice: each is a file of its own, and all of it.
pub fn of_oci(ukis: Vec<OciUki>) -> Result<ImageContents> {
    let one = |uki: OciUki| {
        let source: SharedSource = uki.file;
        let all = Extent { offset: 0, bytes: source.size() };
        candidate(&source, Some(uki.path), &uki.image, vec![all])
    };
    Ok(ImageContents { kind: ImageKind::Oci, candidates: ukis.into_iter().map(one).collect::<Result<_>>()? })
}

/// The UKI that is meant: the only one, or the one named `uki` (without regard to case, `.efi` may be left out).
///
/// # Errors
/// [`crate::Kind::Rejected`] when there is none; [`crate::Kind::Usage`] when there are several and no name, or the
/// name fits none or several: the error lists what there is.
pub fn choose<'a>(found: &'a ImageContents, uki: Option<&str>) -> Result<&'a Candidate> {
    let kind = found.kind;
    let fits = |c: &&Candidate| match (uki, &c.name) {
        (None, _) => true,
        (Some(wanted), Some(_)) => {
            let twins = std::iter::successors(Some(*c), |c| c.twin.as_deref());
            let mut names = twins.filter_map(|c| c.name.as_deref());
            names.any(|name| same_name(name, wanted) || same_name(name, &format!("{wanted}.efi")))
        }
        (Some(_), None) => false,
    };
    let chosen: Vec<&Candidate> = found.candidates.iter().filter(fits).collect();
    let list = |these: &[&Candidate]| these.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (chosen[..].split_first(), uki) {
        (Some((one, [])), _) => match &one.trouble {
            None => Ok(one),
            Some(why) => Err(Error::rejected(why.clone()).advise("repair the file system, or take another image")),
        },
        (Some(_), None) => Err(Error::usage(format!("the {kind} holds {} UKIs: {}", chosen.len(), list(&chosen)))
            .advise("choose one with --uki NAME")),
        (Some(_), Some(wanted)) => {
            Err(Error::usage(format!("--uki {wanted:?} fits {} UKIs: {}", chosen.len(), list(&chosen)))
                .advise("take the right one out with another tool and give that file"))
        }
        (None, _) if found.candidates.is_empty() => {
            Err(Error::rejected(format!("no UKI in the {kind}: looked for *.efi in {}", kind.places()))
                .advise("give a Secure Boot image: metal-<arch>-secureboot.iso or metal-<arch>-secureboot-uki.efi"))
        }
        (None, _) if kind == ImageKind::Uki => {
            Err(Error::usage("the image is a UKI itself: there is nothing to choose with --uki"))
        }
        (None, wanted) => {
            let all: Vec<&Candidate> = found.candidates.iter().collect();
            Err(Error::usage(format!("no UKI in the {kind} is named {:?}", wanted.unwrap_or_default()))
                .advise(format!("there are: {}", list(&all))))
        }
    }
}

fn in_iso(source: &SharedSource, twins: bool) -> Result<Vec<Candidate>> {
    let mut iso = Iso::open(Arc::clone(source))?;
    let (mut found, mut packed) = (Vec::new(), Vec::new());
    if let Some(folder) = iso.find(UKI_FOLDER)?.filter(|node| node.is_dir) {
        for node in iso.read_dir(&folder)? {
            if !node.is_dir && is_efi(&node.name) {
                let mut file = candidate(source, Some(node.name), "EFI/Linux in the ISO's tree", node.extents)?;
                if is_zisofs(&file.bytes)? {
                    file.trouble =
                        Some(format!("{}: it is compressed with zisofs, which is not unpacked here", file.place));
                    packed.push(file);
                } else {
                    found.push(file);
                }
            }
        }
    }
    if !twins && !found.is_empty() {
        return Ok(found);
    }
    found.extend(in_volumes(source, iso_volumes(&mut iso)?)?);
    // Firmware boots the copy in the FAT image, which cannot be compressed.
    packed.retain(|p| {
        !found.iter().any(|f| same_name(f.name.as_deref().unwrap_or_default(), p.name.as_deref().unwrap_or_default()))
    });
    found.extend(packed);
    same_under_other_names(pair(found))
}

fn in_volumes(source: &SharedSource, volumes: Vec<ImageVolume>) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for volume in volumes {
        found.extend(in_fat(source, volume.extent, &volume.place)?);
    }
    Ok(found)
}

/// A FAT volume in an image that boot loaders read images from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageVolume {
    /// Where it lies in the source.
    pub extent: Extent,
    /// The same in words.
    pub place: String,
    /// Whether it is an Extended Boot Loader Partition beside an ESP.
    pub is_xbootldr: bool,
}

/// The FAT volumes of a source of this kind, the one that firmware boots from first.
///
/// # Errors
/// [`crate::Kind::Rejected`] when it is malformed or truncated; what the source reports.
pub fn volumes(source: &SharedSource, kind: ImageKind) -> Result<Vec<ImageVolume>> {
    let whole = Extent { offset: 0, bytes: source.size() };
    match kind {
        ImageKind::Uki | ImageKind::Oci => Ok(Vec::new()),
        ImageKind::Fat => Ok(vec![ImageVolume { extent: whole, place: "the FAT image".into(), is_xbootldr: false }]),
        ImageKind::Iso => iso_volumes(&mut Iso::open(Arc::clone(source))?),
        ImageKind::Disk => {
            let partitions = crate::disk::boot_volumes(source)?.unwrap_or_default().into_iter();
            let volume = |partition: crate::disk::Partition| {
                let (extent, is_xbootldr) = (partition.extent, partition.is_xbootldr());
                let what = if is_xbootldr { "XBOOTLDR partition" } else { "EFI System Partition" };
                ImageVolume { extent, place: format!("the {what} at byte {}", extent.offset), is_xbootldr }
            };
            Ok(partitions.map(volume).collect())
        }
    }
}

fn iso_volumes(iso: &mut Iso<SharedSource>) -> Result<Vec<ImageVolume>> {
    let volume = |image: EfiImage| {
        let place = match image.origin {
            EfiImageOrigin::ElTorito => "the ISO's El Torito FAT image".to_owned(),
            EfiImageOrigin::AppendedPartition => "the ISO's appended EFI partition".to_owned(),
            EfiImageOrigin::TreeFile(name) => format!("the FAT image {name} in the ISO's tree"),
        };
        ImageVolume { extent: image.extent, place, is_xbootldr: false }
    };
    Ok(iso.efi_images()?.into_iter().map(volume).collect())
}

/// The UKIs of a FAT volume that lies at `extent` of the source.
fn in_fat(source: &SharedSource, extent: Extent, place: &str) -> Result<Vec<Candidate>> {
    let read = || -> Result<Vec<Candidate>> {
        let volume = Volume::open(Window::new(Arc::clone(source), extent)?)?;
        let mut found = Vec::new();
        let companions = Companions::read(&volume, true)?;
        let beside = |name: &str| companions.of(name).map(|c| beside(source, &volume, extent, c)).collect();
        for entry in volume.list(UKI_FOLDER)?.unwrap_or_default() {
            if !entry.is_dir() && is_efi(&entry.name) {
                // One broken file must not hide the others: they may be what somebody wants to save.
                let (mut extents, trouble) = match volume.extents(&entry) {
                    Ok(extents) => (extents, None),
                    Err(e) if e.code().is_bad_content() => (Vec::new(), Some(format!("{place}: {e}"))),
                    Err(e) => return Err(e),
                };
                for e in &mut extents {
                    e.offset += extent.offset;
                }
                let companions = Ok(beside(&entry.name));
                let found_here = candidate(source, Some(entry.name), &format!("{UKI_FOLDER} in {place}"), extents)?;
                found.push(Candidate { trouble, companions, volume: Some(extent), ..found_here });
            }
        }
        Ok(found)
    };
    read().while_doing(|| format!("looking for UKIs in {place}"))
}

fn candidate(source: &SharedSource, name: Option<String>, place: &str, extents: Vec<Extent>) -> Result<Candidate> {
    let bytes = Pieces::new(Arc::clone(source), extents)?;
    let companions =
        Err("It is not known what systemd's stub would add from the ESP; --installed names the disk.".to_owned());
    Ok(Candidate { name, place: place.to_owned(), bytes, twin: None, trouble: None, companions, volume: None })
}

/// A companion file of a FAT volume that lies at `extent` of the source.
fn beside<S: ReadAt>(
    source: &SharedSource,
    volume: &Volume<S>,
    extent: Extent,
    companion: &Companion,
) -> CompanionFile {
    let bytes = volume.extents(&companion.entry).and_then(|mut extents| {
        for e in &mut extents {
            e.offset += extent.offset;
        }
        Ok(Pieces::new(Arc::clone(source), extents)?)
    });
    CompanionFile { path: companion.path.clone(), kind: companion.kind, bytes: bytes.map_err(|e| e.to_string()) }
}

/// Hangs every later file under the first one of its name.
fn pair(found: Vec<Candidate>) -> Vec<Candidate> {
    let mut heads: Vec<Candidate> = Vec::new();
    for candidate in found {
        let name = candidate.name.as_deref().unwrap_or_default();
        match heads.iter_mut().find(|h| same_name(h.name.as_deref().unwrap_or_default(), name)) {
            Some(head) => {
                let mut last = &mut head.twin;
                while let Some(twin) = last {
                    last = &mut twin.twin;
                }
                *last = Some(Box::new(candidate));
            }
            None => heads.push(candidate),
        }
    }
    heads
}

/// Whether an ISO holds a file in the form that the kernel unpacks as it reads (zisofs, by mkzftree or xorriso).
fn is_zisofs(file: &dyn ReadAt) -> Result<bool> {
    const MAGIC: &[u8] = b"\x37\xE4\x53\x96\xC9\xDB\xD6\x07";
    Ok(file.size() >= MAGIC.len() as u64 && read_vec(file, 0, MAGIC.len())? == MAGIC)
}

/// Without Rock Ridge a file in the tree has the short name that ISO 9660 allows, and another one in the FAT image:
/// what has the same bytes is one image, under the name that tells more.
fn same_under_other_names(found: Vec<Candidate>) -> Result<Vec<Candidate>> {
    let mut heads: Vec<Candidate> = Vec::new();
    for mut candidate in found {
        let mut same = None;
        for (n, head) in heads.iter().enumerate() {
            let comparable = head.trouble.is_none() && candidate.trouble.is_none();
            if comparable
                && head.bytes.size() == candidate.bytes.size()
                && twins::first_difference(head, &candidate)?.is_none()
            {
                same = Some(n);
                break;
            }
        }
        let Some(head) = same.and_then(|n| heads.get_mut(n)) else {
            heads.push(candidate);
            continue;
        };
        if !tells(head) && tells(&candidate) {
            std::mem::swap(&mut head.name, &mut candidate.name);
        }
        let mut last = &mut head.twin;
        while let Some(twin) = last {
            last = &mut twin.twin;
        }
        *last = Some(Box::new(candidate));
    }
    Ok(heads)
}

/// Whether a name is more than ISO 9660's capitals.
fn tells(candidate: &Candidate) -> bool {
    candidate.name.as_deref().is_some_and(|name| name.bytes().any(|b| b.is_ascii_lowercase()))
}

/// `MZ`, and `PE\0\0` where the DOS header says.
fn is_pe(source: &dyn ReadAt) -> Result<bool> {
    if !crate::pe::Head::is_candidate(source)? {
        return Ok(false);
    }
    let at = read_vec(source, 0x3C, 4)?;
    let at = u64::from(u32::from_le_bytes([at[0], at[1], at[2], at[3]]));
    Ok(at + 4 <= source.size() && read_vec(source, at, 4)? == b"PE\0\0")
}

fn is_efi(name: &str) -> bool {
    name.len() > 4 && name.to_lowercase().ends_with(".efi")
}

fn same_name(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

/// A source without anything known in it. What is packed has been unpacked before it comes here, once.
fn unknown(source: &SharedSource) -> Error {
    match crate::packed::Packing::detect(source) {
        Err(e) => e,
        Ok(Some(packing)) => packing.unexpected(),
        Ok(None) => Error::rejected(format!(
            "the image ({}) is neither a UKI (PE) nor an ISO nor a disk image (GPT or MBR) nor a FAT image",
            size(source.size())
        ))
        .advise("is it the right file, and complete?"),
    }
}

#[cfg(test)]
mod tests;
