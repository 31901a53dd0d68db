//! Which volume a change is made to: the ESP, or the Extended Boot Loader Partition whose images are in the same menu.

use super::DiskRequest;
use crate::block::{ReadAt, WriteAt};
use crate::disk::Target;
use crate::efivars::EfiVars;
use crate::esp::{Inventory, Place};
use crate::fat::{Health, Volume};
use crate::pe::Arch;
use crate::surgery::{ContentRef, Operation, interrupted, refuse_unhealthy};
use crate::{Code, Error, Result};
use std::borrow::Cow;

/// The ESP that a menu belongs to, and the partition that was named, where that is the Extended Boot Loader Partition:
/// its images are predicted from the ESP's side.
pub(super) struct Side<'t> {
    pub(super) esp: Cow<'t, Target>,
    only: Option<u32>,
}

impl<'t> Side<'t> {
    /// # Errors
    /// As [`Target::find`], where the disk has no ESP to the Extended Boot Loader Partition, or several.
    pub(super) fn of(target: &'t Target) -> Result<Self> {
        match &target.partition {
            Some(p) if p.is_xbootldr() => Ok(Self { esp: Cow::Owned(target.sibling(None)?), only: Some(p.number) }),
            _ => Ok(Self { esp: Cow::Borrowed(target), only: None }),
        }
    }

    /// The partition to be written; `None` when it is the ESP.
    ///
    /// # Errors
    /// [`Code::WouldNotBoot`] when the partition that was named is not where the board starts from; what stands in the
    /// way of writing to it.
    pub(super) fn medium<S: ReadAt>(&self, esp: &Inventory<S>, place: Option<&Place>) -> Result<Option<Target>> {
        let number = place.and_then(|place| place.partition_number(esp));
        if let Some(only) = self.only.filter(|only| Some(*only) != number) {
            let starts = place.map_or_else(
                || esp.selected().map_or("nothing there".to_owned(), |file| format!("{} of the ESP", file.name())),
                Place::words,
            );
            return Err(Error::new(
                Code::WouldNotBoot,
                format!("the board does not start what is on partition {only}: it starts {starts}"),
            )
            .advise("leave --partition out, or name the ESP with it"));
        }
        let Some(number) = number else { return Ok(None) };
        let medium = self.esp.sibling(Some(number))?;
        medium.check_writable()?;
        let volume = Volume::open(medium.open()?)?;
        if let Some(found) = interrupted(&volume)? {
            return Err(found
                .error()
                .while_doing(format!("on partition {number}, the Extended Boot Loader Partition")));
        }
        refuse_unhealthy(&Health::check(&volume)?)
            .map_err(|e| e.while_doing(format!("on partition {number}, the Extended Boot Loader Partition")))?;
        Ok(Some(medium))
    }
}

/// Where an image in its own place is looked at again after a change.
pub(super) struct Again<'a> {
    pub(super) disk: &'a DiskRequest,
    pub(super) esp: &'a Target,
    pub(super) vars: &'a EfiVars,
    pub(super) arch: Option<Arch>,
}

impl Again<'_> {
    /// Reads the volumes anew, past the caches of the one that was written, and makes sure that it is sound, that the
    /// image and its backup have the contents that the operation gave them, and that the image is what the board
    /// starts.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when it is not what the plan promised; what the medium reports.
    pub(super) fn confirm<S: ReadAt>(
        &self,
        medium: &dyn WriteAt,
        operation: &Operation,
        before: &Inventory<S>,
        place: &Place,
    ) -> Result<()> {
        let look = || -> Result<()> {
            medium.drop_written()?;
            let volume = Volume::open(medium)?;
            let sound = Health::check(&volume)?.is_healthy() && interrupted(&volume)?.is_none();
            let context = self.disk.context(self.esp, self.vars, self.arch);
            let now = if place.partition.is_some() {
                let esp = Inventory::read_in(self.esp.open()?, before.variables.clone(), context)?;
                esp.refuse_unreadable()?;
                esp.place()?
            } else {
                let esp = Inventory::read_in(medium, before.variables.clone(), context)?;
                esp.refuse_unreadable()?;
                esp.place()?
            };
            let now = now.filter(|now| now.at == place.at && now.profile == place.profile);
            let holds = |name: &str, content: &ContentRef| {
                let file = now.as_ref().and_then(|now| now.file(name));
                file.is_some_and(|f| f.entry.first_cluster == content.cluster && f.entry.bytes == content.bytes)
            };
            let in_place = now.is_some()
                && operation.install.as_ref().is_none_or(|i| {
                    holds(&i.target, &i.new) && i.backup.iter().zip(&i.old).all(|(backup, old)| holds(backup, old))
                });
            if sound && in_place {
                // This looks once more whether the name that the user gave still leads here.
                return Ok(medium.drop_written()?);
            }
            Err(Error::io("the volume does not look as planned after the change: the medium may have lost writes"))
        };
        look().map_err(|e| e.advise("look at it with `status`; `restore` puts a backup back").with_esp_changed(true))
    }
}
