//! Packed disk images as `DISK` and `IMAGE`, and `--out`: a changed copy of an image file instead of a change in place.

use super::{Change, DiskRequest, Event, Ui};
use crate::block::{FileSource, Lock, NewFile, ORDINARY_MODE, ReadAt, check_free, check_not_itself, fan_out};
use crate::disk::{self, Target};
use crate::packed::{self, Folder, Packing, Unpacked, Watch};
use crate::{Code, Context, Error, Result};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `--out`: the changed image goes into another file, and the one that was given is not touched.
#[derive(Debug, Clone)]
pub struct CopyOut {
    /// The file. Its name says how it is packed.
    pub file: PathBuf,
    /// Replace it if it exists.
    pub force: bool,
}

/// An image that was packed, unpacked; `None` when it is not packed.
///
/// # Errors
/// As [`packed::unpack`].
pub(super) fn unpack(path: &Path, ui: &dyn Ui) -> Result<Option<Unpacked>> {
    let source = FileSource::open(path)?;
    if source.is_block_device() || packing_of(&source)?.is_none() {
        return Ok(None);
    }
    ui.event(Event::Step(format!("unpacking {}", path.display())));
    packed::unpack(&source, watch(ui, &|done, total| progress(ui, done, total)))
}

fn packing_of(source: &FileSource) -> Result<Option<Packing>> {
    Packing::detect(source).while_doing(|| format!("reading {}", source.path().display()))
}

fn watch<'a>(ui: &'a dyn Ui, progress: &'a dyn Fn(u64, u64)) -> Watch<'a> {
    Watch { cancelled: ui.cancelled(), progress }
}

fn progress(ui: &dyn Ui, done: u64, total: u64) {
    ui.event(Event::Progress { done, total: Some(total) });
}

impl DiskRequest {
    /// Finds the ESP. A packed disk image is unpacked for that, into a temporary file.
    ///
    /// # Errors
    /// As [`Target::find`] and [`packed::unpack`].
    pub fn find(&self, ui: &dyn Ui) -> Result<Target> {
        let booted = self.booted_esp();
        if !self.other_members.is_empty() {
            return Target::find_members(&self.members(), self.choice(&booted));
        }
        match unpack(&self.path, ui)? {
            Some(image) => Target::find_unpacked(&self.path, &image, self.choice(&booted)),
            None => Target::find(&self.path, self.choice(&booted)),
        }
    }
}

impl Change {
    /// Finds the ESP that a command is to change and hands it to the command: that of the disk, or with `--out` that of
    /// a copy, which gets its name when the command is done. In a dry run nothing is copied.
    ///
    /// # Errors
    /// [`crate::Kind::Unsafe`] for a packed image without `--out`, and as [`check_free`] and
    /// [`Target::check_writable`]; [`crate::Kind::Usage`] when `--out` makes no sense; what the command reports.
    pub(super) fn on<T>(
        &self,
        disk: &DiskRequest,
        ui: &dyn Ui,
        command: impl FnOnce(&Target) -> Result<T>,
    ) -> Result<T> {
        if !disk.other_members.is_empty() {
            return self.on_members(disk, ui, command);
        }
        let Some(out) = &self.out else {
            if !self.dry_run {
                refuse_packed(&disk.path)?;
            }
            return command(&writable(disk.find(ui)?)?);
        };
        out.check(&disk.path)?;
        if self.dry_run {
            return command(&writable(disk.find(ui)?)?);
        }
        out.make(disk, ui, command).map_err(|e| e.on_copy_of(&disk.path))
    }

    /// The file of `--out`, for the report of a command that is done; `None` when none was written.
    pub(super) fn written(&self) -> Option<String> {
        self.out.as_ref().filter(|_| !self.dry_run).map(|out| out.file.display().to_string())
    }
}

/// A target whose layout allows a change: what a dry run says, too.
fn writable(target: Target) -> Result<Target> {
    target.check_writable()?;
    Ok(target)
}

/// A packed image cannot be changed in place. That is said before it is unpacked.
fn refuse_packed(path: &Path) -> Result<()> {
    let source = FileSource::open(path)?;
    let packing = if source.is_block_device() { None } else { packing_of(&source)? };
    match packing {
        Some(packing) => Err(disk::packed(packing).while_doing(format!("opening {}", path.display()))),
        None => Ok(()),
    }
}

impl CopyOut {
    /// Whether the copy can be made at all: what a dry run says, too.
    fn check(&self, disk: &Path) -> Result<()> {
        let check = || -> Result<()> {
            let source = FileSource::open(disk)?;
            if source.is_block_device() {
                return Err(Error::usage(format!(
                    "--out makes a changed copy of an image file, and {} is a device",
                    disk.display()
                ))
                .advise("leave --out away to change the disk itself, or read it into a file first"));
            }
            check_not_itself(&self.file, disk, "the disk image")?;
            let _ = Packing::of_name(&self.file)?;
            check_free(&self.file, self.force)
        };
        check().while_doing(|| format!("--out {}", self.file.display()))
    }

    fn make<T>(&self, disk: &DiskRequest, ui: &dyn Ui, command: impl FnOnce(&Target) -> Result<T>) -> Result<T> {
        let source = FileSource::open(&disk.path)?;
        let _lock = quiet(&source, disk)?;
        let mode = source.file().metadata()?.permissions().mode() & 0o666 | 0o600;
        let dir = self.file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let place =
            Folder { dir: dir.to_owned(), advice: "make room there, or choose another folder for --out".into() };
        let new = || NewFile::create(&self.file, mode).while_doing(|| format!("creating a file in {}", dir.display()));
        let progress = |done, total| progress(ui, done, total);
        let watch = watch(ui, &progress);

        let copy = new()?;
        ui.event(Event::Step(format!("copying {}", disk.path.display())));
        packed::copy(&source, copy.file(), &place, watch)?;
        let target = writable(Target::find_at(&self.file, copy.part(), disk.choice(&disk.booted_esp()))?)?;
        let done = command(&target)?;

        let finished = match Packing::of_name(&self.file)? {
            None => copy,
            Some(packing) => {
                ui.event(Event::Step(format!("packing {}", self.file.display())));
                let packed = new()?;
                let raw = FileSource::open(copy.part())?;
                packed::pack(&raw, packing, packed.file(), &place, watch)?;
                packed
            }
        };
        super::check_cancelled(ui)?;
        let name = || -> Result<()> {
            finished.file().sync_all()?;
            finished.commit(self.force)
        };
        name().while_doing(|| format!("writing {}", self.file.display()))?;
        // The name, too, where the file system can do that. What it names is on the medium already.
        let _ = File::open(dir).and_then(|dir| dir.sync_all());
        Ok(done)
    }
}

/// Makes sure that nobody writes to a raw image while it is copied, as for an operation in place. Returns what keeps
/// them away.
fn quiet(source: &FileSource, disk: &DiskRequest) -> Result<Option<Lock>> {
    if packing_of(source)?.is_none() {
        let users = Target::find(&disk.path, disk.choice(&disk.booted_esp()))?.users();
        if !users.is_empty() {
            return Err(Error::new(Code::Busy, format!("{} is in use: {}", disk.path.display(), users.join(", ")))
                .advise("unmount or stop that first, then try again"));
        }
    }
    match Lock::shared(source.file()) {
        Ok(Some(lock)) => Ok(Some(lock)),
        Ok(None) => Err(Error::new(Code::Busy, format!("another process holds a lock on {}", disk.path.display()))
            .advise("wait until that process has finished")),
        // A file system without locks has nobody who holds one.
        Err(_) => Ok(None),
    }
}

/// Copies a file of the ESP to another medium, complete or not at all.
pub(super) fn copy_out(bytes: &dyn ReadAt, out: &Path, force: bool) -> Result<()> {
    let copy = || -> Result<()> {
        check_free(out, force)?;
        let new = NewFile::create(out, ORDINARY_MODE)?;
        let mut write = |chunk: &[u8]| -> Result<()> { Ok(new.file().write_all(chunk)?) };
        fan_out(bytes, 0, bytes.size(), &mut [&mut write])?;
        new.file().sync_all()?;
        new.commit(force)?;
        // The name, too, where the file system can do that.
        let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    };
    copy().while_doing(|| format!("copying the old image to {}", out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_on_a_copy_left_the_disk_as_it_was() {
        let failed = || Error::io("no medium").advise("run `bootsurgeon recover`");
        let e = failed().with_esp_changed(true).on_copy_of(Path::new("a.zst"));
        assert_eq!((e.esp_changed(), e.to_string()), (Some(false), "making a changed copy of a.zst: no medium".into()));
        assert!(e.advice().is_some_and(|a| a.contains("a.zst is unchanged") && !a.contains("recover")));
        for e in [failed().with_esp_changed(false), failed()] {
            let e = e.on_copy_of(Path::new("a.zst"));
            assert_eq!((e.esp_changed(), e.advice()), (Some(false), Some("run `bootsurgeon recover`")));
        }
    }
}
