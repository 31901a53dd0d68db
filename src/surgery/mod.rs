//! Operations: the one place that changes an ESP.
//!
//! What must hold at every moment, power cuts included: the board boots, and it boots either the old image or the new
//! one; the old image stays reachable by name; no other file changes; one sector write decides. The way there:
//!
//! 1. [`Staging`]: the new image goes into free clusters that nothing refers to. Barrier. It is read back from the
//!    medium and compared. A power cut up to here leaves the volume as it was, to the last table entry.
//! 2. [`Operation`]: an intent record appears (`\BOOTSURG.TXN`). Files that would win over the new content are renamed.
//!    The chain is linked, then a backup entry appears in the target's own directory sector, pointing at the *new*
//!    chain; then that one sector is rewritten with the two entries' contents exchanged. That write is the commit.
//!    Other files leave the menu, the record goes.
//! 3. [`recover`]: undoes what was cut before the commit, in the reverse order, and finishes what was cut behind it.
//!
//! What an operation is to do, [`crate::plan`] decides.

mod actions;
mod copies;
mod discard;
mod intent;
mod lost;
mod members;
mod operation;
mod order;
mod record;
mod recover;
mod recovery;
mod rehearsal;
mod seed;
mod settling;
mod shadow;
mod staging;
mod steps;

pub use actions::Action;
pub use intent::{INTENT_NAME, Interrupted, RecordState, interrupted};
pub use lost::{LostChain, LostClusters, LostFiles};
pub use members::{Member, MembersRecovery, recover_members, rehearse_members};
pub use operation::Outcome;
pub use order::{
    ContentRef, ContentSource, FileStep, Install, NewDirectory, Operation, Order, Rename, SetContent, SetFile,
    SetInstall, Tidying,
};
pub use recover::{recover, recover_with, rehearse as rehearse_recovery, rehearse_with};
pub use recovery::{Direction, Recovery, RecoveryOptions};
pub use rehearsal::Preview;
pub(crate) use seed::unusable_seed;
pub use staging::{Staged, Staging, room_for};

use crate::block::WriteAt;
use crate::fat::{Editor, Health, ProblemClass, Remedy};
use crate::{Code, Error, Result};

/// Where the UKIs of systemd-boot's menu live.
pub const LINUX_DIR: &str = "EFI/Linux";

/// Whether a path from the root of a volume is [`LINUX_DIR`], by FAT's rules.
pub(crate) fn is_linux_dir(path: &str) -> bool {
    path.eq_ignore_ascii_case(LINUX_DIR)
}

/// Opens a volume for an operation: no earlier one interrupted, nothing damaged.
///
/// # Errors
/// [`crate::Kind::Interrupted`] with the earlier operation's name and time; [`crate::Kind::Unsafe`] with what is
/// damaged.
pub fn open_healthy(medium: &dyn WriteAt) -> Result<Editor<'_>> {
    let editor = Editor::open(medium)?;
    let volume = editor.volume();
    if let Some(found) = interrupted(&volume)? {
        return Err(found.error());
    }
    refuse_unhealthy(&Health::check(&volume)?)?;
    Ok(editor)
}

/// Refuses a volume that must not be written, with what is wrong and what to do.
///
/// # Errors
/// [`crate::Kind::Unsafe`].
pub fn refuse_unhealthy(health: &Health) -> Result<()> {
    if health.is_healthy() {
        return Ok(());
    }
    let what: Vec<&str> =
        health.problems.iter().filter(|p| p.class != ProblemClass::Note).take(4).map(|p| p.what.as_str()).collect();
    let advice = match (health.is_damaged(), health.remedy) {
        (false, _) => "run `recover` first: it repairs this",
        (true, Remedy::Recover) => "run `recover` first: it restores the boot sector",
        (true, Remedy::DropSeed) => "run `recover` first: it removes loader/random-seed, which no start needs",
        (true, Remedy::AskedFsck) => {
            "look at it with `doctor`; `fsck.fat -r` from another system asks which copy of the boot sector is right"
        }
        (true, Remedy::Elsewhere) => "look at it with `doctor`; nothing that writes to this volume can repair it",
        (true, Remedy::Fsck) => {
            "look at it with `doctor`; repair it with `fsck.fat` from another system before anything is written"
        }
    };
    Err(Error::new(Code::Unhealthy, format!("the file system of the ESP is not healthy: {}", what.join("; ")))
        .advise(advice))
}

/// A file system that recovery leaves as it is.
fn beyond_recovery(what: &str) -> Error {
    Error::new(Code::Unhealthy, format!("the file system is damaged beyond what `recover` may decide: {what}"))
        .advise("make an image of the partition first, then repair it with `fsck.fat` from another system")
}
