//! Upgrades that stopped half-way, and pins that name what is not there.
//!
//! `talosctl upgrade` copies the new image first and sets `LoaderEntryDefault` last. A second image of one version is
//! called `Talos-<version>~1.efi`, then `~2` and so on, and systemd-boot's order puts every `~N` *below* the plain
//! name: when the variable could not be set, the new image is on the ESP and never starts (siderolabs/talos#11844).

use super::view::EspView;
use super::{Finding, Severity};
use crate::block::ReadAt;
use crate::boot::{LoaderVersion, glob, lenient_string, near_miss, variable_string};
use crate::esp::{EspFile, FileKind};
use crate::harmless::quoted;
use crate::verify::{ExtensionLoss, ImageExtensions};

pub(super) fn findings<S: ReadAt>(view: &EspView<'_, S>) -> Vec<Finding> {
    let half_done = half_done(view).or_else(|| not_the_default(view));
    [half_done, stale_pin(view)].into_iter().flatten().collect()
}

/// The command that puts another image in the place of the one that starts, and which extensions go with that.
fn swap_to<S: ReadAt>(view: &EspView<'_, S>, starts: &EspFile, file: &EspFile) -> String {
    if !view.esp.examined {
        return format!("{} reads both whole and says how to go on", view.words.command("status", ""));
    }
    let both = starts.extensions.as_ref().zip(file.extensions.as_ref());
    let both = both.map(|(old, new)| (ImageExtensions::of_layers(old), ImageExtensions::of_layers(new)));
    match both.and_then(|(old, new)| ExtensionLoss::between(&old, &new)) {
        None => view.words.swap_from_itself(file.name()),
        Some(loss) => {
            let command = view.words.swap_with_loss(file.name());
            format!("{command} (it has no {}, which {} has)", loss.names.join(", "), starts.name())
        }
    }
}

/// The number in `Talos-v1.12.4~2.efi`; Talos' names are case-sensitive.
fn retry_number(name: &str) -> Option<u32> {
    let stem = name.strip_prefix("Talos-")?.strip_suffix(".efi")?;
    let (_, number) = stem.rsplit_once('~')?;
    number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())?
}

/// The newest image of the version that starts, which does not start.
fn half_done<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let esp = view.esp;
    let starts = esp.selected()?;
    let ours = retry_number(starts.name()).unwrap_or(0);
    let siblings = || {
        let same = |f: &&EspFile| {
            f.kind == FileKind::Uki && !f.is_foreign && f.version().is_some() && f.version() == starts.version()
        };
        esp.files.iter().filter(same).filter_map(|f| Some((retry_number(f.name())?, f)))
    };
    let (_, newest) = siblings().filter(|(n, _)| *n > ours).max_by_key(|(n, _)| *n)?;
    if newest.sha256.is_some() && newest.sha256 == starts.sha256 {
        return None; // the very same image twice: a duplicate, and pruning is all there is to do
    }
    let made = match (&starts.schematic, &newest.schematic) {
        (Some(old), Some(new)) if old != new => {
            format!(" It was built from schematic {}, the one that starts from {}.", short(new), short(old))
        }
        _ => String::new(),
    };
    let made = match view.esp.examined {
        true => made,
        false => " Only headers were read: both may also be one image, and then there is nothing to do.".to_owned(),
    };
    let attempts = siblings().map(|(n, _)| n).max().unwrap_or(1);
    let times =
        if attempts > 1 { format!(" Its number says that it was tried {attempts} times.") } else { String::new() };
    // On a board whose variables work, LoaderEntryDefault names the newest, and all is well.
    let (severity, unless) = match view.variables_known {
        true => (Severity::Problem, ""),
        false => (Severity::Warning, ", unless a variable of the board pins it (none were looked at)"),
    };
    Some(
        Finding::new(
            severity,
            "half-done-upgrade",
            format!("half-done upgrade: {} is there, and {} starts{unless}", newest.name(), starts.name()),
            format!(
                "`talosctl upgrade` copied the new image and could not set LoaderEntryDefault; without it \
                 systemd-boot starts the name without ~N forever.{times}{made} A swap does the same without EFI \
                 variables: it puts the content of {} under the name that starts and keeps the old one as a backup",
                newest.name()
            ),
        )
        .then(swap_to(view, starts, newest)),
    )
}

/// A newer version is there, and a variable keeps the older one.
fn not_the_default<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let esp = view.esp;
    let starts = esp.selected()?;
    let newer = esp.predictions.reset.selected_file().and_then(|name| esp.file(name))?;
    if newer.name() == starts.name() || newer.kind != FileKind::Uki || newer.version() == starts.version() {
        return None;
    }
    Some(
        Finding::new(
            Severity::Warning,
            "newer-not-default",
            format!("{} is there and newer; the variables pin {}", newer.name(), starts.name()),
            "an upgrade that stopped before it set LoaderEntryDefault, or a rollback by hand. If the variables are \
             lost, the newer \
             one starts",
        )
        .then(format!(
            "to finish the upgrade: {}; to stay with the old one in any case: {}",
            swap_to(view, starts, newer),
            view.words.command("pin", &quoted(starts.name())),
        )),
    )
}

/// `LoaderEntryDefault` that matches no entry.
fn stale_pin<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let esp = view.esp;
    let data = esp.variables.default.as_deref()?;
    let loader: &LoaderVersion = &esp.predictions.next.loader;
    let meant = lenient_string(data);
    let read = variable_string(data, loader).unwrap_or_default().to_ascii_lowercase();
    let menu = &esp.predictions.next.menu;
    if meant.is_empty() || read == "@saved" || menu.iter().any(|e| glob::matches(&read, &e.id)) {
        return None;
    }
    let by_order = esp.predictions.next.selected_file().unwrap_or("nothing");
    let lost_end = menu.iter().any(|e| glob::matches(&meant.to_ascii_lowercase(), &e.id));
    let near = near_miss(menu, &read);
    let (what, why) = if let (Some((id, why)), false) = (near, lost_end) {
        (
            format!("LoaderEntryDefault names {meant}, which nothing on the ESP matches: the entry is called {id}"),
            format!("{why}. It goes by its order and starts {by_order}"),
        )
    } else if lost_end {
        (
            format!("LoaderEntryDefault names {meant}, and the boot loader reads {read}"),
            format!(
                "the variable has no closing NUL, and {loader} takes its last character for it: nothing has that name, \
                 and {by_order} starts"
            ),
        )
    } else {
        (
            format!("stale pin: LoaderEntryDefault names {meant}, which nothing on the ESP matches"),
            format!(
                "the disk was rewritten after the variable was set, or the file is gone. systemd-boot goes by its \
                 order \
                 and starts {by_order}; a file of that name would win over everything. `talosctl upgrade` fails on \
                 such a pin (siderolabs/talos#12300)"
            ),
        )
    };
    Some(Finding::new(Severity::Warning, "stale-pin", what, why).then(format!(
        "the board starts, and nothing has to be done now. Upgrade with {}: it needs no EFI variable and respects the \
         pin",
        view.words.swap_from_factory()
    )))
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_talos_names() {
        for (name, number) in [
            ("Talos-v1.12.4~1.efi", Some(1)),
            ("Talos-v1.12.4~12.efi", Some(12)),
            ("Talos-v1.12.4.efi", None),
            ("talos-v1.12.4~1.efi", None),
            ("Talos-v1.12.4~.efi", Some(0)),
            ("Talos-v1.12.4~x.efi", None),
            ("Talos-~99999999999.efi", None),
        ] {
            assert_eq!(retry_number(name).unwrap_or(0), number.unwrap_or(0), "{name}");
        }
    }
}
