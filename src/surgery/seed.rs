//! `loader/random-seed`: the one file of the ESP that the firmware writes at every start, so the first that careless
//! firmware damages (systemd/systemd#42979). systemd-boot goes on without it, and it is easily made anew: what is no
//! seed any more is removed.

use super::{Action, discard};
use crate::Result;
use crate::fat::{Editor, Entry, Health, RANDOM_SEED, Remedy};
use crate::units::exact;

/// The lengths that systemd-boot reads, in bytes (`RANDOM_MAX_SIZE_MIN` and `RANDOM_MAX_SIZE_MAX` of its sources).
const LENGTHS: std::ops::RangeInclusive<u32> = 32..=32 * 1024;

/// Why systemd-boot takes no seed from a file of this length.
pub(crate) fn unusable_seed(entry: &Entry) -> Option<String> {
    if entry.is_dir() {
        return Some("it is a directory".to_owned());
    }
    let bytes = exact(u64::from(entry.bytes));
    (!LENGTHS.contains(&entry.bytes)).then(|| match entry.bytes {
        0 => "it is empty".to_owned(),
        n if n < *LENGTHS.start() => format!("it has {bytes}, and a seed has 32 bytes or more"),
        _ => format!("it has {bytes}, and systemd-boot reads no more than 32 KiB"),
    })
}

/// Removes the seed where it is none, or where nothing else on the volume is damaged. Says what was done.
///
/// Of a damaged chain nobody knows whose clusters it leads through: the name goes, and clusters that belong to no other
/// file stay, as all lost clusters do.
pub(super) fn remove_unusable(editor: &mut Editor<'_>) -> Result<Option<Action>> {
    let volume = editor.volume();
    let health = Health::check_whole(&volume)?;
    if health.is_damaged() && health.remedy != Remedy::DropSeed {
        return Ok(None);
    }
    let Some(entry) = volume.find(RANDOM_SEED)?.filter(|entry| !entry.is_dir()) else { return Ok(None) };
    let dir = RANDOM_SEED.rsplit_once('/').map_or("", |(dir, _)| dir);
    if health.is_damaged() {
        editor.remove(dir, &entry)?;
        return Ok(Some(Action::RemoveDamagedSeed));
    }
    let Some(why) = unusable_seed(&entry) else { return Ok(None) };
    discard::discard(editor, dir, &entry)?;
    Ok(Some(Action::RemoveSeed { why }))
}
