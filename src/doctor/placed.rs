//! Images that start by their path, from elsewhere than the menu's own directory: whether they start, and with what
//! command line.

use super::view::trouble;
use super::{EspView, Finding, Severity};
use crate::block::ReadAt;
use crate::bootpath::BootScenario;
use crate::esp::{FileKind, HandedCmdline, Runs};
use crate::uki::cmdline;

/// An image that starts by its path and cannot be started.
pub(super) fn broken<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let esp = view.esp;
    let place = esp.place().ok().flatten().filter(|place| place.image.kind == FileKind::Broken)?;
    let instead = match esp.runs(BootScenario::Later).0 {
        Runs::Image { at, .. } if at != place.at => format!("{} starts instead", esp.describe_place(&at)),
        Runs::Other(what) => format!("{what} starts instead"),
        Runs::Unknown(why) => format!("what starts instead is not known: {why}"),
        Runs::Enrolment => "keys are enrolled instead".to_owned(),
        Runs::Image { .. } | Runs::Nothing(_) => "nothing else is tried: the board does not come up".to_owned(),
    };
    let what = format!("{} should start, and it is broken: it {}", place.words(), trouble(&place.image));
    let finding = Finding::new(Severity::Problem, "selected-broken", what, instead);
    Some(match place.backups().is_empty() {
        true => finding.then(view.words.swap_from_factory()),
        false => finding.then(format!("{}, or {}", view.words.command("restore", ""), view.words.swap_from_factory())),
    })
}

/// An image that starts by its path wipes the board or stops it, by its own command line or by one that it gets.
pub(super) fn dangerous_cmdline<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let esp = view.esp;
    let Runs::Image { at, profile: 0 } = esp.runs(BootScenario::Next).0 else { return None };
    let place = esp.describe_place(&at);
    let text = esp.cmdline(BootScenario::Next)?;
    let handed = esp.handed_cmdline(BootScenario::Next).filter(|handed| handed.counts != Some(false));
    let from = match &handed {
        Some(HandedCmdline { by, counts: None, .. }) => format!(
            "by the command line that {by} passes, unless Secure \
         Boot is on"
        ),
        Some(HandedCmdline { by, .. }) => format!("by the command line that {by} passes"),
        None => "by its own command line".to_owned(),
    };
    let finding = if let Some(what) = cmdline::wipes(&text) {
        let what = format!("{place} starts next, and wipes {what}, {from} ({})", cmdline::WIPE);
        Finding::new(Severity::Problem, "wipes-at-start", what, "Talos wipes before it starts, at every start")
    } else if cmdline::halt_if_installed(&text) {
        let what = format!("{place} starts next with talos.halt_if_installed=1, {from}");
        let meaning = "Talos stops for up to 70 minutes before it loads its configuration, at every start";
        Finding::new(Severity::Problem, "halts-if-installed", what, meaning)
    } else {
        return None;
    };
    Some(match handed {
        Some(handed) => finding.then(format!("take these options out of {}", handed.by)),
        None => finding.then(view.words.swap_from_factory()),
    })
}
