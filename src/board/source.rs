//! The volume of an image that holds a board's files.

use super::BoardFiles;
use crate::block::{Extent, Window};
use crate::fat::{Geometry, Volume};
use crate::image::{Candidate, ImageContents, ImageVolume, SharedSource, volumes};
use crate::units::size;
use crate::{Context, Error, Result};

/// What a source over a network may cost: the allocation table of the volume, which is read whole, and the files.
const REMOTE_TABLE: u64 = 2 << 20;

/// A volume with the files of a board, in an image.
pub struct BoardSource {
    /// The volume.
    pub volume: Volume<Window<SharedSource>>,
    /// Its files.
    pub files: BoardFiles,
    /// Where it was found, in words: `the ISO's El Torito FAT image`.
    pub place: String,
}

impl BoardSource {
    /// The volume that firmware would start `candidate` from, if the image holds one: the volume with the UKI, or the
    /// only ESP. `source` is the one that `found` was found in. `None` for what is no volume: a bare UKI, an OCI image.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when the volume is damaged, when there are several and nothing tells which is meant,
    /// or when it lies on a server and to read it takes too many bytes; what the source reports.
    pub fn open(source: &SharedSource, found: &ImageContents, candidate: Option<&Candidate>) -> Result<Option<Self>> {
        let all: Vec<ImageVolume> = volumes(source, found.kind)?.into_iter().filter(|v| !v.is_xbootldr).collect();
        let twins = std::iter::successors(candidate, |c| c.twin.as_deref());
        let with_uki: Vec<Extent> = twins.filter_map(|c| c.volume).collect();
        let meant = all.iter().find(|v| with_uki.contains(&v.extent));
        let volume = match (meant, &all[..]) {
            (Some(volume), _) | (None, [volume]) => volume,
            (None, []) => return Ok(None),
            // What firmware boots comes first, and the others are the same in other places.
            (None, [first, ..]) if found.kind == crate::image::ImageKind::Iso => first,
            (None, several) => {
                let places: Vec<&str> = several.iter().map(|v| v.place.as_str()).collect();
                return Err(Error::rejected(format!(
                    "the image holds several ESPs ({}), and nothing tells which one is meant",
                    places.join(", ")
                )));
            }
        };
        Self::read(source, volume).while_doing(|| format!("reading the files in {}", volume.place)).map(Some)
    }

    fn read(source: &SharedSource, found: &ImageVolume) -> Result<Self> {
        let window = Window::new(SharedSource::clone(source), found.extent)?;
        let table = Geometry::read(&window)?.fat_bytes;
        if source.is_remote() && table > REMOTE_TABLE {
            return Err(Error::rejected(format!("it lies on a server, and its allocation table has {}", size(table))));
        }
        let volume = Volume::open(window)?;
        let files = BoardFiles::read(&volume)?;
        Ok(Self { volume, files, place: found.place.clone() })
    }
}
