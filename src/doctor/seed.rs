//! `loader/random-seed`, which the firmware writes at every start.

use super::{EspView, Finding, Severity};
use crate::block::{ReadAt, read_vec};
use crate::fat::RANDOM_SEED;
use crate::surgery::unusable_seed;

/// Where the next seed comes from.
pub(super) const NEW_ONE: &str =
    "`bootctl random-seed` makes a new one, and so do newer versions of systemd-boot by themselves";

/// A file that systemd-boot takes no seed from, on a volume that is otherwise sound.
pub(super) fn finding<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let volume = &view.esp.volume;
    let entry = volume.find(RANDOM_SEED).ok().flatten()?;
    let unread = || match volume.file(&entry).and_then(|file| Ok(read_vec(&file, 0, entry.bytes as usize)?)) {
        Ok(_) => None,
        Err(e) => Some(format!("the medium does not give it ({e})")),
    };
    let unusable = unusable_seed(&entry);
    let is_removed = unusable.is_some() && !entry.is_dir();
    let what = format!("{RANDOM_SEED} is no use: {}", unusable.or_else(unread)?);
    let meaning = "the kernel has less randomness to begin with; systemd-boot goes on without it";
    let finding = Finding::new(Severity::Note, "unusable-random-seed", what, meaning);
    Some(match is_removed {
        true => finding.then(format!("{} removes it; {NEW_ONE}", view.words.command("recover", ""))),
        false => finding,
    })
}
