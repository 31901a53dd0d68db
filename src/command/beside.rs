//! Reading what lies beside an image: addons whole, because their signatures are looked at, everything else by name.

use crate::authenticode::{DigestSink, parse_table};
use crate::block::{ReadAt, Window, fan_out, sha256_of};
use crate::bootpath::Located;
use crate::esp::{Inventory, Place};
use crate::fat::Volume;
use crate::image::Candidate;
use crate::trust::Sbat;
use crate::uki::{self, CompanionKind, Family, Pointer};
use crate::verify::{Addon, CompanionFacts, ImageFacts, PointedFile};
use crate::{Error, Result};
use std::sync::Arc;

/// More addons are not read: no board has so many.
const MAX_ADDONS: usize = 64;
/// Nor more bytes of them in all.
const MAX_BYTES: u64 = 1 << 30;

/// What lies beside a UKI in an image, or why that is not known.
pub(super) fn beside_candidate(candidate: &Candidate) -> Result<Vec<CompanionFacts>, String> {
    let files = candidate.companions.as_ref().map_err(Clone::clone)?;
    let mut reader = Reader::default();
    Ok(files.iter().map(|f| reader.read(&f.path, f.kind, f.bytes.as_ref().map_err(Clone::clone))).collect())
}

/// What lies on the ESP beside an image of this name.
pub(super) fn beside<S: ReadAt>(esp: &Inventory<S>, name: &str) -> Vec<CompanionFacts> {
    let mut reader = Reader::default();
    let read = |c: &uki::Companion| {
        let bytes = esp.volume.file(&c.entry).map_err(|e| e.to_string());
        let length = u64::from(c.entry.bytes);
        let read = reader.read(&c.path, c.kind, bytes.as_ref().map_err(Clone::clone));
        CompanionFacts { bytes: length, ..read }
    };
    esp.companions.of(name).map(read).collect()
}

/// What lies beside an image in its own place.
pub(super) fn beside_place<S: ReadAt>(esp: &Inventory<S>, place: &Place) -> Vec<CompanionFacts> {
    let mut reader = Reader::default();
    let read = |c: &uki::Companion| {
        let at = Located { volume: place.at.volume, path: c.path.clone() };
        let bytes = match esp.open_at(&at) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err("it is not there any more".to_owned()),
            Err(e) => Err(e.to_string()),
        };
        let read = reader.read(&c.path, c.kind, bytes.as_ref().map_err(Clone::clone));
        CompanionFacts { bytes: u64::from(c.entry.bytes), ..read }
    };
    place.companions.of(place.name()).map(read).collect()
}

/// Whether the files that a lanzaboote stub names are on its volume; nothing for other families.
pub(super) fn pointed<S: ReadAt>(
    image: &dyn ReadAt,
    family: Family,
    volume: &Volume<S>,
) -> Result<Vec<PointedFile>, String> {
    if family != Family::Lanzaboote {
        return Ok(Vec::new());
    }
    let facts = uki::probe(image).map_err(|e| e.to_string())?;
    let named = uki::pointers(image, &facts).map_err(|e| e.to_string())?;
    Ok(named.into_iter().map(|p| PointedFile { trouble: trouble(volume, &p), path: p.path }).collect())
}

/// As [`pointed`], on the volume that a candidate lies on; `known` where it lies on none.
pub(super) fn pointed_of_candidate(candidate: &Candidate, known: &ImageFacts) -> Result<Vec<PointedFile>, String> {
    let (Some(extent), Family::Lanzaboote) = (candidate.volume, known.family) else { return known.pointed.clone() };
    let source = Arc::clone(candidate.bytes.source());
    let volume = Window::new(source, extent).map_err(Error::from).and_then(Volume::open).map_err(|e| e.to_string())?;
    pointed(&candidate.bytes, known.family, &volume)
}

/// Why a file is not the one that the stub names.
fn trouble<S: ReadAt>(volume: &Volume<S>, pointer: &Pointer) -> Option<String> {
    let entry = match volume.find(&pointer.path) {
        Ok(Some(entry)) if !entry.is_dir() => entry,
        Ok(_) => return Some("is not on the ESP".to_owned()),
        Err(e) => return Some(format!("cannot be read: {e}")),
    };
    let hash = volume.file(&entry).and_then(|bytes| sha256_of(&bytes, bytes.size()));
    match hash {
        Ok(hash) if hash == pointer.sha256 => None,
        Ok(_) => Some(format!("is not the {} that the stub was made for: it has another hash", pointer.what)),
        Err(e) => Some(format!("cannot be read: {e}")),
    }
}

/// Reads companions up to its limits.
#[derive(Default)]
struct Reader {
    addons: usize,
    bytes: u64,
}

impl Reader {
    fn read<S: ReadAt>(&mut self, path: &str, kind: CompanionKind, source: Result<&S, String>) -> CompanionFacts {
        let bytes = source.as_ref().map_or(0, |s| s.size());
        let addon = (kind == CompanionKind::Addon).then(|| {
            let source = source?;
            self.addons += 1;
            self.bytes = self.bytes.saturating_add(bytes);
            if self.addons > MAX_ADDONS || self.bytes > MAX_BYTES {
                return Err("there are too many addons, or too large ones, to look at all of them".to_owned());
            }
            read_addon(source).map_err(|e| e.to_string())
        });
        CompanionFacts { path: path.to_owned(), kind, bytes, addon }
    }
}

fn read_addon(source: &dyn ReadAt) -> Result<Addon> {
    let says = uki::probe(source)?;
    let text = |e: Error| e.to_string();
    let digest = DigestSink::new(&says.head).and_then(|mut sink| {
        fan_out(source, 0, source.size(), &mut [&mut sink])?;
        sink.finish()
    });
    let digest = digest.map_err(text);
    let signatures = match &digest {
        Ok(d) if d.certificate_table.is_empty() => Ok(Vec::new()),
        Ok(d) => parse_table(&d.certificate_table).map_err(text),
        Err(why) => Err(why.clone()),
    };
    let sbat = says.sbat.as_ref().map(|t| Sbat::parse(t.as_bytes())).transpose().map_err(text);
    Ok(Addon { says, digest, signatures, sbat })
}
