//! Which of the board's own files change with an image, and which stay as they are: for `swap --with-board-files`.

use super::board_backups::{BoardBackup, board_backups};
use crate::block::ReadAt;
use crate::board::{Compared, Relation, Sort};
use crate::boot::glob;
use crate::esp::{END_OF_TIME, backup_of};
use crate::fat::{Volume, check_long_name, folded, same_name};
use crate::sorting::Sort as _;
use crate::surgery::{SetContent, SetFile};
use crate::units::count;
use crate::{Code, Error, Result};
use serde::Serialize;
use std::collections::HashMap;

/// The set of files that change together with an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BoardSetPlan {
    /// Directories that are made first, from the root of the ESP, each behind the one that it lies in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<String>,
    /// The files that get a new content, in the order in which they do.
    pub change: Vec<BoardChange>,
    /// Files of the source that are another on the ESP, or not there, and that stay as they are.
    pub keep: Vec<BoardKept>,
    /// How many files hold the same bytes already; nothing of them is written.
    pub same: usize,
    /// Bytes of these files that go to the medium.
    pub bytes_to_write: u64,
    /// What the board may make of it when only some of the files are new, where that is more than a chance.
    pub mixture: Option<String>,
}

/// A file that gets a new content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BoardChange {
    /// From the root of the ESP.
    pub path: String,
    /// What sort of file it is.
    pub sort: Sort,
    /// Its new length in bytes.
    pub bytes: u32,
    /// Where its old content stays, from the root of the ESP; `null` for a file that is new.
    pub backup: Option<String>,
    /// The backup that it gets back, from the root of the ESP, for a restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<String>,
}

/// A file that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BoardKept {
    /// From the root of the ESP.
    pub path: String,
    /// What sort of file it is.
    pub sort: Sort,
    /// Why it stays.
    pub why: String,
}

/// What the user asked of a set.
#[derive(Debug, Clone, Default)]
pub struct BoardSetOptions {
    /// `--with-board-files=GLOB`: only files whose path fits.
    pub only: Option<String>,
    /// `--overwrite`: files that get the source's content although they would stay.
    pub overwrite: Vec<String>,
    /// `--accept-mixture`.
    pub accept_mixture: bool,
    /// Now, in seconds since 1970 UTC.
    pub time: u64,
}

impl BoardSetPlan {
    /// Plans a set. `compared` is the new source beside the ESP, `installed` the image beside the ESP from which its
    /// files came, where the user named one.
    ///
    /// # Errors
    /// [`Code::Usage`] when a name or a pattern of the user's means no file of the source; [`Code::Mixture`] where files
    /// change that have to fit each other, and nobody accepted that; [`crate::Kind::Rejected`] when a directory cannot
    /// be read.
    pub fn make<S: ReadAt>(
        esp: &Volume<S>,
        compared: &[Compared],
        installed: Option<&[Compared]>,
        options: &BoardSetOptions,
    ) -> Result<Self> {
        let in_source = || compared.iter().filter(|file| file.source_bytes.is_some());
        let fits = |pattern: &str, file: &Compared| glob::matches(&folded(pattern), &folded(&file.path));
        if let Some(pattern) = &options.only
            && !in_source().any(|file| fits(pattern, file))
        {
            return Err(Error::usage(format!("no file of the source fits --with-board-files={pattern}"))
                .advise("`diff` and a dry run without a pattern list the files; * stands for any text, / included"));
        }
        for path in &options.overwrite {
            let Some(file) = in_source().find(|file| folded(&file.path) == folded(path)) else {
                return Err(Error::usage(format!("--overwrite {path}: the source has no such file")));
            };
            if let Some(pattern) = options.only.as_ref().filter(|pattern| !fits(pattern, file)) {
                return Err(Error::usage(format!("--overwrite {path}: --with-board-files={pattern} leaves it out")));
            }
        }
        let changed: Option<HashMap<String, Relation>> =
            installed.map(|all| all.iter().map(|file| (folded(&file.path), file.relation)).collect());
        let mut plan = Self::default();
        let mut staying = Vec::new();
        let mut directories: HashMap<String, Option<Vec<String>>> = HashMap::new();
        for file in in_source() {
            let is_another =
                matches!(file.relation, Relation::Differs | Relation::NotCompared) && file.esp_bytes.is_some();
            if options.only.as_ref().is_some_and(|pattern| !fits(pattern, file)) {
                staying.extend(is_another.then(|| (file.path.clone(), file.sort)));
                continue;
            }
            if file.relation == Relation::Same {
                plan.same += 1;
                continue;
            }
            let wanted = options.overwrite.iter().any(|path| folded(path) == folded(&file.path));
            let why = match why_kept(file, options.only.is_some(), wanted, changed.as_ref()) {
                Some(why) => Some(why),
                None => {
                    let directory = split(&file.path).0;
                    match names_in(esp, &mut directories, directory)? {
                        Some(names) => plan.add(file, names, &[], options.time).err(),
                        None => match missing_of(esp, directory)? {
                            Ok(missing) => plan.add(file, &[], &missing, options.time).err(),
                            Err(why) => Some(why),
                        },
                    }
                }
            };
            if let Some(why) = why {
                staying.extend(is_another.then(|| (file.path.clone(), file.sort)));
                plan.keep.push(BoardKept { path: file.path.clone(), sort: file.sort, why });
            }
        }
        plan.change.sort_by_key(BoardChange::rank);
        plan.checked(&staying, options)
    }

    /// Plans the way back of a set: the backups that were made together with an image's, at `made`, outside of the
    /// directory of the images. What was added then stays.
    ///
    /// # Errors
    /// [`Code::Mixture`] as [`Self::make`]; [`crate::Kind::Rejected`] when a directory cannot be read.
    pub fn restoring<S: ReadAt>(esp: &Volume<S>, made: u64, options: &BoardSetOptions) -> Result<Self> {
        let mut plan = Self::default();
        let mut directories = HashMap::new();
        let of_sets = board_backups(esp)?.into_iter().filter(BoardBackup::is_of_a_set);
        let (backups, mut others): (Vec<_>, Vec<_>) = of_sets.partition(|backup| backup.time == made);
        others.put_in_order_by(|backup| backup.time);
        for backup in backups {
            let (path, restored) = (backup.original_path(), backup.path());
            let Some(sort) = Sort::of(&path) else { continue };
            let names = names_in(esp, &mut directories, &backup.directory)?.unwrap_or_default();
            let taken = |name: &str| names.iter().any(|known| *known == folded(name));
            let name = backup.is_replaced.then(|| backup_of(&backup.original, options.time, taken));
            plan.change.push(BoardChange {
                path,
                sort,
                bytes: backup.entry.bytes,
                backup: name.map(|name| join(&backup.directory, &name)),
                restored: Some(restored),
            });
        }
        plan.change.sort_by_key(BoardChange::rank);
        // What changed later, and not with this image: the first of those backups is what it was then.
        let is_later =
            |backup: &&BoardBackup| (made.saturating_add(1)..END_OF_TIME).contains(&backup.time) && backup.is_replaced;
        for later in others.iter().filter(is_later) {
            let path = later.original_path();
            let is_known = |known: &str| same_name(known, &path);
            let is_back = plan.change.iter().any(|file| is_known(&file.path));
            let is_named = plan.keep.iter().any(|file| is_known(&file.path));
            if let Some(sort) = Sort::of(&path).filter(|_| !is_back && !is_named) {
                let why = format!("it was changed later; {} is what it was before that", later.path());
                plan.keep.push(BoardKept { path, sort, why });
            }
        }
        let staying: Vec<_> = plan.keep.iter().map(|file| (file.path.clone(), file.sort)).collect();
        plan.checked(&staying, options)
    }

    /// The plan, where it may be carried out. `staying` are files that would have another content, too, if all changed.
    fn checked(mut self, staying: &[(String, Sort)], options: &BoardSetOptions) -> Result<Self> {
        self.mixture = self.mixture(staying);
        match &self.mixture {
            Some(why) if !options.accept_mixture => Err(Error::new(Code::Mixture, why.clone())
                .advise("run it with --accept-mixture where you can get at the medium, should it come to that")),
            _ => Ok(self),
        }
    }

    /// The files as the surgery takes them.
    #[must_use]
    pub fn set(&self) -> Vec<SetFile> {
        self.change.iter().map(BoardChange::as_set_file).collect()
    }

    /// The same with the backups named after another time: that of the image's backup, by which a restore finds them.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when a directory cannot be read.
    pub fn named_after<S: ReadAt>(&mut self, esp: &Volume<S>, time: u64) -> Result<()> {
        let mut directories = HashMap::new();
        for file in self.change.iter_mut().filter(|file| file.backup.is_some()) {
            let (directory, name) = split(&file.path);
            let names = names_in(esp, &mut directories, directory)?.unwrap_or_default();
            let backup = backup_of(name, time, |name| names.iter().any(|known| *known == folded(name)));
            file.backup = Some(join(directory, &backup));
        }
        Ok(())
    }

    /// Whether it replaces anything: then there is something to put back.
    #[must_use]
    pub fn replaces(&self) -> bool {
        self.change.iter().any(|file| file.backup.is_some())
    }

    /// Takes a file of the source in; the error says why it stays out. `names` are those of its directory, `missing` the
    /// directories above it that the ESP lacks.
    fn add(&mut self, file: &Compared, names: &[String], missing: &[String], time: u64) -> Result<(), String> {
        let (directory, name) = split(&file.path);
        let Some(bytes) = file.source_bytes.and_then(|bytes| u32::try_from(bytes).ok()) else {
            return Err("it is too long for FAT".to_owned());
        };
        let taken = |name: &str| names.iter().any(|known| *known == folded(name));
        let backup = file.esp_bytes.map(|_| backup_of(name, time, taken));
        if backup.is_none() && taken(name) {
            return Err("on the ESP a directory has this name".to_owned());
        }
        if let Some(Err(e)) = backup.as_deref().map(check_long_name) {
            return Err(format!("the name of its backup would be none: {e}"));
        }
        let backup = backup.map(|name| join(directory, &name));
        for directory in missing {
            if !self.directories.iter().any(|known| same_name(known, directory)) {
                self.directories.push(directory.clone());
            }
        }
        self.bytes_to_write += u64::from(bytes);
        let (path, sort) = (file.path.clone(), file.sort);
        self.change.push(BoardChange { path, sort, bytes, backup, restored: None });
        Ok(())
    }

    /// What a board may make of new files beside old ones: in between, and for good where some of those that have to fit
    /// each other stay.
    fn mixture(&self, staying: &[(String, Sort)]) -> Option<String> {
        let is_start = |path: &str| {
            let name = split(path).1.to_ascii_lowercase();
            let is = |begin: &str, end: &str| name.starts_with(begin) && name.ends_with(end);
            is("start", ".elf") || is("fixup", ".dat")
        };
        let replaced: Vec<(&str, Sort)> = self
            .change
            .iter()
            .filter(|file| file.backup.is_some())
            .map(|file| (file.path.as_str(), file.sort))
            .collect();
        let staying: Vec<(&str, Sort)> = staying.iter().map(|(path, sort)| (path.as_str(), *sort)).collect();
        let starts = |files: &[(&str, Sort)]| files.iter().filter(|(path, _)| is_start(path)).count();
        let of = |files: &[(&str, Sort)], sort: Sort| files.iter().filter(|(_, of)| *of == sort).count();
        let (start, start_stays) = (starts(&replaced), starts(&staying));
        let (trees, trees_stay) = (of(&replaced, Sort::DeviceTree), of(&staying, Sort::DeviceTree));
        let (overlays, overlays_stay) = (of(&replaced, Sort::Overlay), of(&staying, Sort::Overlay));
        let fit = trees + trees_stay > 0 && overlays + overlays_stay > 0 && trees + overlays > 0;
        let (what, stay) = match () {
            () if start > 0 && start + start_stays > 1 => (
                format!(
                    "{} of the Raspberry Pi's firmware (start*.elf, fixup*.dat) have to be of one version",
                    count(start + start_stays, "file")
                ),
                start_stays,
            ),
            () if fit => (
                format!(
                    "{} and {} have to fit each other",
                    count(trees + trees_stay, "device tree"),
                    count(overlays + overlays_stay, "overlay")
                ),
                trees_stay + overlays_stay,
            ),
            () => return None,
        };
        if stay > 0 {
            return Some(format!(
                "{what}, and {stay} of them would stay as they are: the board may not start with both"
            ));
        }
        Some(format!(
            "{what}, and each file changes in a write of its own: after a power cut between two of them the board may \
             not start until `recover` has run on the medium in another machine"
        ))
    }
}

impl BoardChange {
    /// As the surgery takes it.
    #[must_use]
    pub fn as_set_file(&self) -> SetFile {
        let (directory, name) = split(&self.path);
        SetFile {
            directory: directory.to_owned(),
            target: name.to_owned(),
            backup: self.backup.as_deref().map(|path| split(path).1.to_owned()),
            content: match &self.restored {
                None => SetContent::Staged { bytes: self.bytes },
                Some(path) => SetContent::File(split(path).1.to_owned()),
            },
        }
    }

    /// What a board needs first changes last, one beside the other. An empty file cannot be the one that decides.
    fn rank(&self) -> u8 {
        match self.sort {
            _ if self.bytes == 0 => 0,
            Sort::Overlay => 1,
            Sort::DeviceTree => 2,
            Sort::Firmware => 4,
            _ => 3,
        }
    }
}

/// Why a file that is another in the source stays as it is on the ESP.
fn why_kept(
    file: &Compared,
    is_named: bool,
    wanted: bool,
    installed: Option<&HashMap<String, Relation>>,
) -> Option<String> {
    let is_program = file.path.rsplit('.').next().is_some_and(|end| end.eq_ignore_ascii_case("efi"));
    match file.sort {
        Sort::Loader => {
            return Some("`bootsurgeon loader` replaces the boot loader, and predicts what it starts".into());
        }
        Sort::LoaderConfiguration => return Some("it decides what the boot loader starts: `pin` changes it".into()),
        Sort::Other if is_program => return Some("it is a program that firmware may start".into()),
        Sort::Other if !is_named && !wanted => return Some("what it is for is not known".into()),
        _ => {}
    }
    if file.relation == Relation::NotCompared {
        let why = file.why.as_deref().unwrap_or("it could not be read");
        return Some(format!("it was not compared: {why}"));
    }
    if wanted {
        return None;
    }
    if file.relation == Relation::OnlyInSource {
        // U-Boot looks for `boot.scr` and `extlinux.conf` before it looks for a boot loader, say.
        return (file.sort == Sort::Configuration)
            .then(|| "it holds settings, and the board starts without it: --overwrite adds it".into());
    }
    // EDK II for the Raspberry Pi keeps its variables in its own file, `RPI_EFI.fd`.
    if file.path.to_ascii_lowercase().ends_with(".fd") {
        return Some("it may hold the firmware's EFI variables: --overwrite takes the new one, and loses them".into());
    }
    if file.sort == Sort::Configuration {
        return Some("it holds settings, which somebody may have changed: --overwrite takes the new ones".into());
    }
    match installed?.get(&folded(&file.path)) {
        Some(Relation::Same) => None,
        Some(Relation::Differs) => Some("somebody has changed it: --overwrite takes the new one".into()),
        _ => Some("the image that was named as installed does not have it: --overwrite takes the new one".into()),
    }
}

pub(super) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The directories of a path that are not on the ESP, each behind the one that it lies in; the inner error says what is
/// in their place.
fn missing_of<S: ReadAt>(esp: &Volume<S>, directory: &str) -> Result<Result<Vec<String>, String>> {
    let mut missing = Vec::new();
    for (end, _) in directory.match_indices('/').chain([(directory.len(), "")]) {
        let path = &directory[..end];
        match esp.find(path)? {
            Some(entry) if entry.is_dir() => {}
            Some(_) => return Ok(Err(format!("on the ESP {path} is a file, and no directory"))),
            None => missing.push(path.to_owned()),
        }
    }
    Ok(Ok(missing))
}

/// The names in a directory of the ESP, as FAT tells them apart; `None` where there is no such directory.
fn names_in<'n, S: ReadAt>(
    esp: &Volume<S>,
    known: &'n mut HashMap<String, Option<Vec<String>>>,
    directory: &str,
) -> Result<Option<&'n [String]>> {
    let key = folded(directory);
    if !known.contains_key(&key) {
        let entries = if directory.is_empty() { Some(esp.root()?.entries) } else { esp.list(directory)? };
        let names = entries.map(|entries| entries.iter().map(|entry| folded(&entry.name)).collect());
        known.insert(key.clone(), names);
    }
    Ok(known.get(&key).and_then(Option::as_deref))
}
