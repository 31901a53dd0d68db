//! `swap --with-board-files`: the board's own files change with the image, as one set.

use super::board::not_looked_at;
use super::image::OpenImage;
use super::source::ImageSource;
use super::{Event, ImageRequest, Ui, check_cancelled};
use crate::block::{Pieces, ReadAt, Window, WriteAt, fan_out, sha256_of};
use crate::board::{BoardFiles, BoardSource, compare};
use crate::esp::{Inventory, Place};
use crate::factory::is_url;
use crate::fat::{Editor, Volume, same_name};
use crate::image::{Candidate, SharedSource};
use crate::plan::{BoardSetOptions, BoardSetPlan};
use crate::surgery::{ContentRef, Operation, Order, Staged, Staging};
use crate::{Code, Context, Error, Result};

/// What a set is asked for.
#[derive(Debug, Clone, Default)]
pub struct BoardSetRequest {
    /// Which files, and what is accepted.
    pub options: BoardSetOptions,
    /// `--installed-from`: the image whose files the ESP got when it was installed.
    pub installed_from: Option<ImageRequest>,
}

/// A set that is planned, with the source of its files.
pub(super) struct PreparedSet {
    source: BoardSource,
    pub(super) plan: BoardSetPlan,
}

impl PreparedSet {
    /// Plans the set of the files beside `candidate`.
    ///
    /// # Errors
    /// [`Code::Unsupported`] when the image has no such files, or they cannot be had; as [`BoardSetPlan::make`].
    pub(super) fn prepare<S: ReadAt>(
        request: &BoardSetRequest,
        (opened, candidate): (&OpenImage, &Candidate),
        (esp, place): (&Inventory<S>, Option<&Place>),
        time: u64,
        ui: &dyn Ui,
    ) -> Result<Self> {
        let esp = &esp.volume;
        let source = files_beside(opened, Some(candidate)).while_doing(|| "--with-board-files")?;
        let ours = BoardFiles::read(esp).while_doing(|| "reading the files of the ESP")?;
        let mut compared = compare((&source.volume, &source.files), (esp, &ours))?;
        let installed = match &request.installed_from {
            None => None,
            Some(image) => {
                let look = || {
                    let opened = image.open_to_look_around(ui)?;
                    let old = files_beside(&opened, None)?;
                    compare((&old.volume, &old.files), (esp, &ours))
                };
                Some(look().while_doing(|| format!("--installed-from {}", image.image))?)
            }
        };
        let options = BoardSetOptions { time, ..request.options.clone() };
        // The image that is replaced in its own place is no file of the set.
        let image = place.filter(|place| place.partition.is_none()).map(|place| place.path(place.name()));
        compared.retain(|file| !image.as_ref().is_some_and(|image| same_name(image, &file.path)));
        let plan = BoardSetPlan::make(esp, &compared, installed.as_deref(), &options).map_err(|e| {
            // What the user named may be there, and out of sight.
            match not_looked_at(&source.files, &ours).into_iter().next().filter(|_| e.code() == Code::Usage) {
                Some(trouble) => e.while_doing(trouble),
                None => e,
            }
        })?;
        Ok(Self { source, plan })
    }

    /// The new contents, in the plan's order.
    fn contents(&self) -> Result<Vec<Pieces<&Window<SharedSource>>>> {
        let open = |path: &String| match self.source.files.find(path) {
            Some(file) => file.open(&self.source.volume),
            None => Err(Error::new(Code::Bug, format!("the source has no {path}"))),
        };
        self.plan.change.iter().map(|file| open(&file.path)).collect()
    }

    /// Stages the files beside the image.
    pub(super) fn stage(&self, staged: &mut Staged<'_>, ui: &dyn Ui) -> Result<()> {
        let contents = self.contents()?;
        self.stage_contents(staged, &contents.iter().map(|c| c as &dyn ReadAt).collect::<Vec<_>>(), ui)
    }

    fn stage_contents(&self, staged: &mut Staged<'_>, contents: &[&dyn ReadAt], ui: &dyn Ui) -> Result<()> {
        ui.event(Event::Step("writing the board's files into free space, and reading them back".into()));
        let (mut done, total) = (0, Some(self.plan.bytes_to_write));
        staged.stage_set(contents, &mut |bytes| {
            done += bytes;
            ui.event(Event::Progress { done, total });
            check_cancelled(ui)
        })
    }

    /// The order of a set whose image is in place already: the last file takes the image's part, and its change is the
    /// commit.
    pub(super) fn order_alone(&self, time: u64) -> Result<Order> {
        let mut set = self.plan.set();
        let last = set.pop().ok_or_else(|| Error::new(Code::Bug, "a set of no files"))?;
        Ok(Order {
            command: "swap".to_owned(),
            time,
            directory: last.directory,
            before: Vec::new(),
            target: last.target,
            backup: last.backup,
            directories: self.plan.directories.clone(),
            set,
            after: Vec::new(),
        })
    }

    /// Stages such a set.
    pub(super) fn stage_alone<'m>(&self, editor: Editor<'m>, ui: &dyn Ui) -> Result<Staged<'m>> {
        let contents = self.contents()?;
        let Some((last, others)) = contents.split_last() else {
            return Err(Error::new(Code::Bug, "a set of no files"));
        };
        let mut staging = Staging::begin(editor, last.size())?;
        let sha256 = sha256_of(last, last.size())?;
        fan_out(last, 0, last.size(), &mut [&mut staging])?;
        let mut staged = staging.seal(sha256)?;
        self.stage_contents(&mut staged, &others.iter().map(|c| c as &dyn ReadAt).collect::<Vec<_>>(), ui)?;
        Ok(staged)
    }
}

/// What a dry run and the run can both read the files from.
pub(super) fn refuse_source(image: &ImageSource) -> Result<()> {
    let none = |why: &str| {
        Err(Error::new(Code::Unsupported, format!("--with-board-files: {why}"))
            .advise("save the disk image or the ISO that has the files to a file, and name it"))
    };
    match image {
        ImageSource::Named(request) if request.is_stream() => none("the image comes through a pipe, and is read once"),
        ImageSource::Named(request) if is_url(&request.image) => none("the image lies on a server"),
        ImageSource::Named(_) => Ok(()),
        #[cfg(feature = "net")]
        ImageSource::Factory(_) => none("what is asked for at the factory here has no such files"),
    }
}

/// The volume of an image with the files beside it.
fn files_beside(opened: &OpenImage, candidate: Option<&Candidate>) -> Result<BoardSource> {
    match BoardSource::open(&opened.source(), &opened.found, candidate)? {
        Some(source) => Ok(source),
        None => {
            let what = format!("the {} holds no file system with such files", opened.found.kind);
            Err(Error::new(Code::Unsupported, what)
                .advise("name the disk image or the ISO that has the files: metal-arm64.raw.zst of the factory, say"))
        }
    }
}

/// Makes sure that the files of a set have the contents that the operation gave them, on the medium itself.
///
/// # Errors
/// [`crate::Kind::Io`] when they do not; what the medium reports.
pub(super) fn confirm_set(medium: &dyn WriteAt, operation: &Operation) -> Result<()> {
    let look = || -> Result<()> {
        medium.drop_written()?;
        let volume = Volume::open(medium)?;
        let holds = |path: &str, content: &ContentRef| -> Result<bool> {
            let Some(entry) = volume.find(path)? else { return Ok(false) };
            let is_it = (entry.first_cluster, entry.bytes) == (content.cluster, content.bytes);
            Ok(is_it
                && match &content.sha256 {
                    None => true,
                    Some(sha256) => hex::encode(sha256_of(&volume.file(&entry)?, u64::from(entry.bytes))?) == *sha256,
                })
        };
        for (directory, install) in operation.installs() {
            let path = |name: &str| if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
            let kept = match (&install.backup, &install.old) {
                (Some(backup), Some(old)) => holds(&path(backup), old)?,
                _ => true,
            };
            if !kept || !holds(&path(&install.target), &install.new)? {
                let what = format!("{} is not as planned after the change", path(&install.target));
                return Err(Error::io(format!("{what}: the medium may have lost writes")));
            }
        }
        Ok(())
    };
    look().map_err(|e| e.advise("look at it with `status`").with_esp_changed(true))
}
