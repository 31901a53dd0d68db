//! Whether the way of the boot comes by the files that a plan would change at all.

use crate::block::ReadAt;
use crate::bootpath::{BootScenario, End};
use crate::esp::Inventory;
use crate::{Code, Error, Result};

/// Refuses to change what nobody reads: the board starts something else, and would afterwards. Returns what somebody
/// should know where the way is unsure, or another one for one start or without variables.
///
/// # Errors
/// [`Code::WouldNotBoot`], with what starts instead and what could be done.
pub fn refuse_unreached<S: ReadAt>(esp: &Inventory<S>) -> Result<Vec<String>> {
    refuse_xbootldr(esp)?;
    let lasting = esp.way(BootScenario::Later);
    if !esp.context.knows_disk() && matches!(lasting.end, End::Nothing(_)) && esp.loader.is_none() {
        // A file system by itself: what lies around it elsewhere may start from here.
        return Ok(vec![
            "no boot loader is on this volume: whether the one of another partition starts these images cannot be told \
                from here"
                .to_owned(),
        ]);
    }
    if !esp.is_read(BootScenario::Later) {
        let (what, advice) = instead(esp, &lasting.end);
        let doubt = match lasting.in_doubt.as_slice() {
            [] => String::new(),
            doubts => format!(" (before that, {})", doubts.join("; ")),
        };
        return Err(Error::new(
            Code::WouldNotBoot,
            format!("the board does not start the images in EFI/Linux of this partition: {what}{doubt}"),
        )
        .advise(advice));
    }
    let mut warnings = Vec::new();
    for doubt in &lasting.in_doubt {
        warnings.push(format!(
            "whether the board starts from here is not certain: {doubt}. What is said here holds for a start from this \
                partition"
        ));
    }
    if !esp.is_read(BootScenario::Next) {
        let (what, _) = instead(esp, &esp.way(BootScenario::Next).end);
        warnings.push(format!("the next start is an exception: BootNext is set, and {what}"));
    }
    if !esp.is_read(BootScenario::Reset) {
        let (what, _) = instead(esp, &esp.way(BootScenario::Reset).end);
        warnings.push(format!(
            "without EFI variables the board would not start from here, before and after the change: {what}"
        ));
    }
    Ok(warnings)
}

/// Refuses to change a menu that is not known whole: that of an Extended Boot Loader Partition, which is predicted from
/// the ESP's side, and one with such a partition beside it that cannot be looked at.
///
/// # Errors
/// [`Code::WouldNotBoot`].
pub(super) fn refuse_xbootldr<S: ReadAt>(esp: &Inventory<S>) -> Result<()> {
    let is_read = [BootScenario::Next, BootScenario::Later, BootScenario::Reset]
        .into_iter()
        .any(|scenario| esp.is_read(scenario));
    if is_read && let Some(why) = esp.xbootldr_trouble() {
        return Err(Error::new(
            Code::WouldNotBoot,
            format!(
                "systemd-boot may start what lies on the Extended Boot Loader Partition, and what that is, is not \
                    known: {why}"
            ),
        )
        .advise("repair that partition, let it be read, or give it another type if nothing starts from it"));
    }
    if !esp.context.is_xbootldr {
        return Ok(());
    }
    Err(Error::new(
        Code::WouldNotBoot,
        "this is an Extended Boot Loader Partition: systemd-boot shows its images in one menu with those of the ESP, \
            and what that \
         menu starts after a change here is not predicted",
    )
    .advise("put the image on the ESP: name that partition with --partition; `status` of it shows the whole menu"))
}

/// What happens instead, and what could be done.
fn instead<S: ReadAt>(esp: &Inventory<S>, end: &End) -> (String, String) {
    let loader =
        esp.arch().map_or("EFI/BOOT/BOOT<ARCH>.EFI".to_owned(), |a| format!("EFI/BOOT/{}", a.removable_loader()));
    let look = "`status` shows the way of the boot step by step";
    match end {
        End::Menu { loader, at } => (
            format!(
                "the firmware starts {} in {}, which reads the images of that partition",
                loader.version,
                esp.describe_place(at)
            ),
            format!("name that partition with --partition, or let the firmware start this one; {look}"),
        ),
        End::Uki(at) => (
            format!("the firmware starts the image {} itself, without a boot menu", esp.describe_place(at)),
            match esp.is_here(at) {
                true => format!("leave --target out, and that file is replaced; {look}"),
                false => format!("name that partition with --partition, and that file is replaced; {look}"),
            },
        ),
        End::Other(what) => (
            format!("it starts {what}, and what that starts lies elsewhere"),
            format!(
                "change what {what} starts by its own means (`talosctl upgrade` does where Talos was installed with \
                    it); or install \
                 systemd-boot as {loader} and let the firmware start it; {look}"
            ),
        ),
        End::Nothing(why) => (
            format!("nothing starts here: {why}"),
            format!(
                "put systemd-boot at {loader}: `loader` takes it from the Secure Boot ISO of the same Talos version; \
                 {look}"
            ),
        ),
        End::Unknown(why) => (
            format!("what starts cannot be told: {why}"),
            format!("if systemd-boot should start here, put it at {loader}; {look}"),
        ),
    }
}
