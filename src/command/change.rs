//! What all commands that write have in common: they ask first, and look at the result.

use super::{CopyOut, Ui, boot_variables, check_cancelled};
use crate::block::{ReadAt, WriteAt};
use crate::efivars::EfiVars;
use crate::esp::{Inventory, Place};
use crate::fat::Volume;
use crate::surgery::{ContentRef, Operation};
use crate::{Code, Error, Kind, Result};

/// How a change is to be made.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Plan only.
    pub dry_run: bool,
    /// Do not ask.
    pub yes: bool,
    /// Change a copy of the disk image, not the image.
    pub out: Option<CopyOut>,
}

impl Change {
    /// Asks whether to go on.
    ///
    /// # Errors
    /// [`Kind::Unsafe`] when nobody can be asked and `--yes` was not given; [`Kind::Cancelled`] when the answer is no.
    pub fn confirm(&self, ui: &dyn Ui, question: &str) -> Result<()> {
        check_cancelled(ui)?;
        if self.yes {
            return Ok(());
        }
        let answer = ui.confirm(question);
        check_cancelled(ui)?;
        match answer {
            Some(true) => Ok(()),
            Some(false) => Err(Error::new(Kind::Cancelled, "not confirmed")),
            None => Err(unconfirmed()),
        }
    }

    /// Whether it will come to no change, because nobody can say yes to it. Then everything else is done as for a dry
    /// run.
    pub(super) fn cannot_be_confirmed(&self, ui: &dyn Ui) -> bool {
        !self.yes && !ui.can_ask()
    }
}

/// The refusal where nobody can be asked.
pub(super) fn unconfirmed() -> Error {
    Error::new(Code::Unconfirmed, "confirmation is missing, and there is no terminal to ask at")
        .advise("look at the plan with --dry-run, then run it with --yes")
}

/// Refuses to go on when the ESP or the EFI variables are not those that the plan was made from. Between the two
/// somebody may have taken an hour to say yes.
///
/// # Errors
/// [`Kind::Unsafe`]; what the source reports.
pub(super) fn refuse_changed<S: ReadAt, N: ReadAt>(
    esp: &Inventory<S>,
    place: Option<&Place>,
    now: &Volume<N>,
    vars: &EfiVars,
) -> Result<()> {
    match place {
        // The ESP is another volume than the one that is written.
        Some(place) if place.partition.is_some() => {
            esp.refuse_changed(&Volume::open(esp.volume.source())?)?;
            place.refuse_changed(now)?;
        }
        Some(place) => {
            esp.refuse_changed(now)?;
            place.refuse_changed(now)?;
        }
        None => esp.refuse_changed(now)?,
    }
    let (variables, unreadable) = boot_variables(vars);
    if variables == esp.variables {
        return Ok(());
    }
    if let Some(why) = unreadable.first() {
        // It could be read when the plan was made, or the two would be equal.
        return Err(
            Error::io(format!("an EFI variable cannot be read: {why}")).advise("nothing was changed; try again")
        );
    }
    Err(Error::refused("the EFI variables have changed since the plan was made").advise("run it again"))
}

/// Reads the ESP anew, past the caches, and makes sure that it is sound, that the image and its backup have the
/// contents that the operation gave them, and that the board starts these files: with the variables as they are, and
/// with none.
///
/// # Errors
/// [`Kind::Io`] when it is not what the plan promised; what the medium reports.
pub(super) fn confirm_on_medium<S: ReadAt>(
    medium: &dyn WriteAt,
    operation: &Operation,
    before: &Inventory<S>,
    boot: [Option<&str>; 2],
) -> Result<()> {
    let look = || -> Result<()> {
        medium.drop_written()?;
        let esp = Inventory::read_again(medium, before)?;
        esp.refuse_unreadable()?;
        let holds = |name: &str, content: &ContentRef| {
            esp.file(name).is_some_and(|f| f.entry.first_cluster == content.cluster && f.entry.bytes == content.bytes)
        };
        let in_place = operation.install.as_ref().is_none_or(|i| {
            holds(&i.target, &i.new) && i.backup.iter().zip(&i.old).all(|(backup, old)| holds(backup, old))
        });
        let as_planned = esp.predictions.selected_files() == boot;
        if esp.health.is_healthy() && esp.interrupted.is_none() && in_place && as_planned {
            // This looks once more whether the name that the user gave still leads here.
            return Ok(medium.drop_written()?);
        }
        Err(Error::io("the ESP does not look as planned after the change: the medium may have lost writes"))
    };
    look().map_err(|e| e.advise("look at it with `status`; `restore` puts a backup back").with_esp_changed(true))
}
