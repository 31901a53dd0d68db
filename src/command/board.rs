//! What of a board stays as it is when its image is replaced: the files beside the image, held against those of the
//! source; the boot loader, held against the image's stub; boot loaders in sectors of the disk.

use super::image::OpenImage;
use crate::block::ReadAt;
use crate::board::{BoardFiles, BoardSource, Compared, RawLoader, Relation, Sort, compare, raw_loaders};
use crate::boot::Loader;
use crate::disk::Target;
use crate::fat::{Volume, same_name};
use crate::image::{Candidate, ImageKind};
use crate::{Context, Result};
use serde::Serialize;

/// Programs that are looked into for their version.
const MAX_LOADERS: usize = 16;

/// What of a board stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BoardReport {
    /// Where the files of the source were found, in words; `null` where there are none to compare with.
    pub source: Option<String>,
    /// The files of the ESP, and those of the source, each with how the two stand to each other.
    pub files: Vec<Compared>,
    /// Why files were not compared with a source's; `null` where they were.
    pub not_compared: Option<String>,
    /// What of either could not be looked at, or is beyond the limits of a comparison: files are missing here.
    pub not_looked_at: Vec<String>,
    /// The systemd-boots among the files.
    pub loaders: Vec<BoardLoader>,
    /// The release of systemd that the stub of the image is from, if it says so.
    pub stub: Option<u32>,
    /// Boot loaders in sectors of the disk, outside of any file system. They are never written.
    pub raw_loaders: Vec<RawLoader>,
}

/// A systemd-boot on the ESP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BoardLoader {
    /// From the root of the volume.
    pub path: String,
    /// Its version: `257.9-talos`.
    pub version: String,
    /// The version of the source's at this path, if that is a systemd-boot.
    pub source_version: Option<String>,
    /// Whether its release is older than that of the image's stub.
    pub is_older_than_stub: bool,
    #[serde(skip)]
    release: u32,
}

impl BoardReport {
    /// What is on an ESP, and in the sectors of its disk. What cannot be read is passed over, or said to be unknown: a
    /// swap of the image needs none of it.
    pub(super) fn of_esp<S: ReadAt>(target: &Target, esp: &Volume<S>) -> Self {
        let ours = BoardFiles::read(esp).unwrap_or_default();
        let unread = |relation| ours.files.iter().map(move |file| Compared::alone(file, relation)).collect();
        Self { files: unread(Relation::NotCompared), loaders: loaders(esp, &ours), ..Self::of_disk(target) }
    }

    fn of_disk(target: &Target) -> Self {
        let found = || -> Result<Vec<RawLoader>> {
            match (target.open_disk()?, target.table()) {
                (Some(disk), Some(table)) => {
                    let partitions: Vec<_> = table.partitions.iter().map(|partition| partition.extent).collect();
                    raw_loaders(&disk, &partitions)
                }
                _ => Ok(Vec::new()),
            }
        };
        Self { raw_loaders: found().unwrap_or_default(), ..Self::default() }
    }

    /// The same, with the files compared with those of an image. `replaced` is the path of the file that a swap is to
    /// replace, where that is no image in `EFI/Linux`.
    pub(super) fn against<S: ReadAt>(
        target: &Target,
        esp: &Volume<S>,
        opened: &OpenImage,
        candidate: &Candidate,
        replaced: Option<&str>,
    ) -> Self {
        let mut report = Self::of_esp(target, esp);
        match compared(esp, opened, Some(candidate)) {
            Ok((place, files, versions, trouble)) => {
                report.not_looked_at = trouble;
                for loader in &mut report.loaders {
                    let there = versions.iter().find(|(path, _)| same_name(path, &loader.path));
                    loader.source_version = there.map(|(_, version)| version.clone());
                }
                (report.source, report.files) = (Some(place), files);
            }
            Err(why) => report.not_compared = Some(why),
        }
        let is_replaced = |path: &str| replaced.is_some_and(|replaced| same_name(replaced, path));
        report.files.retain(|file| !is_replaced(&file.path));
        report.loaders.retain(|loader| !is_replaced(&loader.path));
        report
    }

    /// The same, for an image whose stub is from this release of systemd.
    pub(super) fn for_stub(&self, stub: Option<u32>) -> Self {
        let mut report = self.clone();
        for loader in &mut report.loaders {
            loader.is_older_than_stub = stub.is_some_and(|stub| loader.release < stub);
        }
        Self { stub, ..report }
    }

    /// The files that stand to the source in this way, loaders aside that are told of by their versions.
    pub fn files_that(&self, relation: Relation) -> impl Iterator<Item = &Compared> {
        self.files.iter().filter(move |file| file.relation == relation)
    }
}

/// The files of both, or why they were not compared.
type Found = (String, Vec<Compared>, Vec<(String, String)>, Vec<String>);

fn compared<S: ReadAt>(esp: &Volume<S>, opened: &OpenImage, candidate: Option<&Candidate>) -> Result<Found, String> {
    if opened.is_sequential() {
        return Err("the image is read once, from front to back".to_owned());
    }
    match opened.found.kind {
        ImageKind::Uki => return Err("the image is a UKI and brings none".to_owned()),
        ImageKind::Oci => return Err("the files in an OCI image are not looked at".to_owned()),
        _ => {}
    }
    let found = || -> Result<Option<Found>> {
        let Some(theirs) = BoardSource::open(&opened.source(), &opened.found, candidate)? else { return Ok(None) };
        let ours = BoardFiles::read(esp).while_doing(|| "reading the files of the ESP")?;
        let files = compare((&theirs.volume, &theirs.files), (esp, &ours))?;
        let versions = loaders(&theirs.volume, &theirs.files).into_iter().map(|l| (l.path, l.version)).collect();
        Ok(Some((theirs.place, files, versions, not_looked_at(&theirs.files, &ours))))
    };
    match found() {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(format!("the {} holds no file system with such files", opened.found.kind)),
        Err(e) => Err(e.to_string()),
    }
}

/// What of the files of a source and of an ESP could not be looked at.
pub(super) fn not_looked_at(theirs: &BoardFiles, ours: &BoardFiles) -> Vec<String> {
    let of = |files: &BoardFiles, whose: &str| -> Vec<String> {
        files.trouble.iter().map(|what| format!("of the board's files {whose}: {what}")).collect()
    };
    [of(theirs, "beside the new image"), of(ours, "on the ESP")].concat()
}

/// The systemd-boots among the files of a volume.
fn loaders<S: ReadAt>(volume: &Volume<S>, files: &BoardFiles) -> Vec<BoardLoader> {
    let of_sort = files.files.iter().filter(|file| file.sort == Sort::Loader).take(MAX_LOADERS);
    let read = of_sort.filter_map(|file| {
        let version = Loader::probe(&file.open(volume).ok()?)?.version;
        let (release, version) = (version.major, version.text);
        let path = file.path.clone();
        Some(BoardLoader { path, version, release, source_version: None, is_older_than_stub: false })
    });
    read.collect()
}

/// The files of two images side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BoardDifference {
    /// Every file of either: `only-in-source` are those of the new image, `only-on-esp` those of the old one.
    pub files: Vec<Compared>,
    /// Why they were not compared; `null` where they were.
    pub not_compared: Option<String>,
}

impl BoardDifference {
    /// Between the volumes that two UKIs lie on.
    pub(super) fn between(old: (&OpenImage, &Candidate), new: (&OpenImage, &Candidate)) -> Self {
        if old.0.is_sequential() {
            return Self {
                not_compared: Some("the old image is read once, from front to back".into()),
                ..Self::default()
            };
        }
        let found = || BoardSource::open(&old.0.source(), &old.0.found, Some(old.1)).map_err(|e| e.to_string());
        let compared = found().and_then(|found| match found {
            Some(found) => compared(&found.volume, new.0, Some(new.1)),
            None => Err("the old image brings no files beside it".to_owned()),
        });
        match compared {
            Ok((_, files, _, _)) => Self { files, not_compared: None },
            Err(why) => Self { files: Vec::new(), not_compared: Some(why) },
        }
    }
}
