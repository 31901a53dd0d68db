//! After a power cut: undo what was cut before its commit, finish what was cut behind it, take leftovers away.
//!
//! Safe against power cuts itself: the intent record goes last, and every step can be done again. It does what the
//! record says and no more: a name that holds something else by now is left as it is, and clusters are freed only where
//! the record accounts for them. The board may have run in between, and somebody's only copy may be among what looks
//! like leftovers.

use super::copies::{choose_table, equalise_copies};
use super::intent::{self, Interrupted, RecordState, interrupted};
use super::lost::{self, Lost, LostFiles};
use super::record::Record;
use super::recovery::{Recovery, RecoveryOptions};
use super::settling::{Course, Settling};
use super::shadow::Shadow;
use super::{Action, INTENT_NAME, beyond_recovery, discard, seed};
use crate::block::{ReadAt, WriteAt};
use crate::fat::{
    AllocationTable, BootSectorCopy, BootSectorRepair, Editor, Geometry, Health, ProblemClass, Volume,
    boot_sector_repair, contradiction,
};
use crate::{Code, Error, Result};

/// What [`recover`] would do.
///
/// # Errors
/// As [`recover`].
pub fn rehearse(source: &dyn ReadAt, sector_size: u32) -> Result<Recovery> {
    rehearse_with(source, sector_size, &RecoveryOptions::default())
}

/// What [`recover_with`] would do. It runs the same code on a view whose writes stay in memory, so what it says is what
/// would be done.
///
/// # Errors
/// As [`recover`].
pub fn rehearse_with(source: &dyn ReadAt, sector_size: u32, options: &RecoveryOptions) -> Result<Recovery> {
    recover_with(&Shadow::new(source, sector_size), options)
}

/// Brings a volume back to a clean state. Lost chains that this program did not leave stay.
///
/// # Errors
/// [`crate::Kind::Unsafe`] when the volume is damaged in a way that no interrupted operation of this program explains,
/// or something else has the record's name ([`Code::ForeignRecord`]); [`Code::RecordVersion`]; what the medium reports.
pub fn recover(medium: &dyn WriteAt) -> Result<Recovery> {
    recover_with(medium, &RecoveryOptions::default())
}

/// [`recover`], with options.
///
/// # Errors
/// As [`recover`].
pub fn recover_with(medium: &dyn WriteAt, options: &RecoveryOptions) -> Result<Recovery> {
    recover_and_mark(medium, options, None)
}

/// [`recover_with`] on one member of a mirror: with `truth`, a mark that names it takes the place of the record at the
/// end, or appears.
pub(super) fn recover_and_mark(
    medium: &dyn WriteAt,
    options: &RecoveryOptions,
    truth: Option<&str>,
) -> Result<Recovery> {
    run(medium, options, truth).map_err(|e| match e.code().is_bad_content() {
        // Whatever of the volume cannot be understood, it is the volume: no image is involved here.
        true => e.with_code(Code::Unhealthy),
        false => e,
    })
}

fn run(medium: &dyn WriteAt, options: &RecoveryOptions, truth: Option<&str>) -> Result<Recovery> {
    let mut done = Recovery::default();
    let mut volume = Volume::open(medium)?;
    let repair = boot_sector_repair(&volume)?;
    match &repair {
        Some(repair) => {
            let table = AllocationTable::read(&medium, &repair.geometry, repair.geometry.active_fat)?;
            volume = Volume::with_table(medium, repair.geometry.clone(), table);
        }
        None => {
            if let Some(why) = contradiction(&volume)? {
                return Err(beyond_recovery(&why));
            }
        }
    }
    // Before the first write: what is not ours to end stays as it is, to the last bit. Where the root directory or the
    // record cannot be read whole by this copy of the table, another one may be right.
    let found = interrupted(&volume).or_else(|e| if e.code().is_bad_content() { Ok(None) } else { Err(e) })?;
    refuse_foreign(found.filter(|f| f.state != RecordState::Damaged).as_ref(), options)?;
    if let Some(BootSectorRepair { wrong, why, .. }) = repair {
        let editor = Editor::of_volume(volume)?;
        editor.restore_boot_sector(wrong)?;
        editor.barrier()?;
        done.actions.push(match wrong {
            BootSectorCopy::First => Action::RestoreBootSector { why },
            BootSectorCopy::Backup => Action::RewriteBackupBootSector { why },
        });
    }
    choose_table(medium, &mut done.actions)?;
    let mut editor = Editor::open(medium)?;
    let found = interrupted(&editor.volume())?;
    refuse_foreign(found.as_ref(), options)?;
    equalise_copies(&editor, &mut done.actions)?;
    done.actions.extend(seed::remove_unusable(&mut editor)?);
    if options.set_aside && found.as_ref().is_some_and(|f| f.record.is_none()) {
        set_aside(&mut editor, &mut done)?;
    }
    let record = found.as_ref().and_then(|f| f.record.as_ref());
    let course = match record {
        Some(record) => Settling { editor: &mut editor, record, done: &mut done }.course(options.direction)?,
        None => Course::Leave,
    };
    // Finishing may take a cluster, and on a full volume the last one may be lost to a recovery that was cut. Of a
    // damaged tree nobody can say what is lost.
    let health = Health::check_whole(&editor.volume())?;
    if !health.is_damaged() {
        done.actions.extend(discard::finish(&mut editor, &health.lost)?);
        if course != Course::Complete {
            free_ours(&mut editor, record, &mut done)?;
        }
        // A name that was being written when an earlier recovery was cut takes the room that the same name needs now.
        clear_orphans(&editor, &health, &mut done)?;
    }
    if let Some(record) = record {
        done.interrupted = found.as_ref().map(ToString::to_string);
        Settling { editor: &mut editor, record, done: &mut done }.settle(course)?;
    }
    clean(&mut editor, record, &mut done)?;
    match truth {
        Some(truth) if record.is_some_and(|r| r.truth.as_deref() == Some(truth)) => {}
        Some(truth) => intent::mark(&mut editor, truth, options.time)?,
        None if record.is_some() => {
            intent::clear(&mut editor)?;
            done.actions.push(Action::RemoveRecord);
        }
        None => {}
    }
    others(&mut editor, options, &mut done)?;
    Ok(done)
}

/// Refuses what is not this program's to end.
fn refuse_foreign(found: Option<&Interrupted>, options: &RecoveryOptions) -> Result<()> {
    let Some(found) = found else { return Ok(()) };
    match found.state {
        RecordState::Sound => Ok(()),
        RecordState::Damaged | RecordState::Foreign(_) if options.set_aside => Ok(()),
        RecordState::Damaged | RecordState::Foreign(_) | RecordState::OtherVersion { .. } => Err(found.error()),
    }
}

/// Gives another name to what has the record's name.
fn set_aside(editor: &mut Editor<'_>, done: &mut Recovery) -> Result<()> {
    let health = Health::check_whole(&editor.volume())?;
    if let Some(p) = health.problems.iter().find(|p| p.class == ProblemClass::Damage) {
        return Err(beyond_recovery(&p.what));
    }
    let root = editor.directory("")?;
    let Some(entry) = root.find(INTENT_NAME).cloned() else { return Ok(()) };
    let mut names = (0..1000).map(|n| format!("BOOTSURG.{n:03}"));
    let name = names.find(|name| root.find(name).is_none());
    let name = name.ok_or_else(|| Error::refused(format!("no name is left for {INTENT_NAME}")))?;
    editor.rename("", &entry, &name)?;
    done.actions.push(Action::SetAside { to: name });
    Ok(())
}

/// Takes away what no file depends on and this program left: orphaned name slots, clusters, a stale FSInfo.
fn clean(editor: &mut Editor<'_>, record: Option<&Record>, done: &mut Recovery) -> Result<()> {
    let health = Health::check_whole(&editor.volume())?;
    if let Some(p) = health.problems.iter().find(|p| p.class == ProblemClass::Damage) {
        return Err(beyond_recovery(&p.what));
    }
    clear_orphans(editor, &health, done)?;
    for dot in &health.wrong_dots {
        editor.set_first_cluster(&dot.path, dot.slot, dot.cluster)?;
        editor.barrier()?;
        let name = if dot.slot == 0 { "." } else { ".." };
        done.actions.push(Action::PointDot { name, directory: dot.path.clone(), cluster: dot.cluster });
    }
    let freed = free_ours(editor, record, done)?;
    if health.fsinfo_lost && fsinfo_has_its_place(editor.geometry()) {
        editor.rebuild_fsinfo()?;
        editor.barrier()?;
        done.actions.push(Action::RewriteFsInfo);
    } else if health.fsinfo_stale || freed > 0 {
        write_fsinfo(editor, done)?;
    }
    Ok(())
}

fn clear_orphans(editor: &Editor<'_>, health: &Health, done: &mut Recovery) -> Result<()> {
    for (path, slots) in &health.orphan_slots {
        for slot in editor.directory(path)?.orphans {
            editor.clear(path, &(slot..slot + 1))?;
        }
        editor.barrier()?;
        done.actions.push(Action::ClearSlots { slots: *slots, directory: path.clone() });
    }
    Ok(())
}

/// Whether the boot sector's backup bears out where FSInfo is, and it is not where the backup stands.
fn fsinfo_has_its_place(geometry: &Geometry) -> bool {
    geometry.backup_boot_offset.is_some_and(|backup| geometry.fsinfo_offset.is_some_and(|fsinfo| fsinfo != backup))
}

fn write_fsinfo(editor: &mut Editor<'_>, done: &mut Recovery) -> Result<()> {
    editor.write_fsinfo()?;
    editor.barrier()?;
    done.actions.push(Action::UpdateFsInfo);
    Ok(())
}

/// Frees the lost clusters that this program left; how many there were.
fn free_ours(editor: &mut Editor<'_>, record: Option<&Record>, done: &mut Recovery) -> Result<u64> {
    let volume = editor.volume();
    let health = Health::check_whole(&volume)?;
    let freed = lost::free(editor, &Lost::sort(&volume, &health.lost, record)?.ours)?;
    if freed > 0 {
        let bytes = freed * u64::from(editor.geometry().cluster_bytes);
        done.actions.push(Action::FreeOwn { clusters: freed, bytes });
    }
    Ok(freed)
}

/// The lost chains that this program did not leave: kept and described, named, or freed.
fn others(editor: &mut Editor<'_>, options: &RecoveryOptions, done: &mut Recovery) -> Result<()> {
    let volume = editor.volume();
    let others = Lost::sort(&volume, &Health::check_whole(&volume)?.lost, None)?.others;
    if others.is_empty() {
        return Ok(());
    }
    match options.lost {
        LostFiles::Keep => (done.lost, done.lost_unlisted) = lost::describe(&volume, others)?,
        LostFiles::Salvage => done.actions.extend(lost::salvage(editor, others, options.time)?),
        LostFiles::Free => {
            let (described, unlisted) = lost::describe(&volume, others.clone())?;
            lost::free(editor, &others)?;
            done.actions.extend(described.into_iter().map(Action::FreeLost));
            if unlisted > 0 {
                done.actions.push(Action::FreeOtherLost { chains: unlisted });
            }
        }
    }
    if options.lost != LostFiles::Keep && editor.geometry().fsinfo_offset.is_some() {
        write_fsinfo(editor, done)?;
    }
    Ok(())
}
