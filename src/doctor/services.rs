//! Extension services of the image that starts next, which wait for configuration.

use super::{EspView, Finding, Severity};
use crate::block::ReadAt;
use crate::bootpath::BootScenario;

/// Services that wait, unless the image has run already: then the node has their configuration, or lives without.
pub(super) fn finding<S: ReadAt>(view: &EspView<'_, S>) -> Option<Finding> {
    let esp = view.esp;
    let file = esp.selected().filter(|file| !file.waiting_services.is_empty() && esp.is_read(BootScenario::Next))?;
    let ran = crate::boot::roles(&esp.predictions.next, &esp.variables).running_file;
    if ran.is_some_and(|ran| ran.eq_ignore_ascii_case(file.name())) {
        return None;
    }
    let names: Vec<String> = file.waiting_services.iter().map(|name| format!("ext-{name}")).collect();
    let (what, meaning) = match names.len() {
        1 => ("waits", "it does not start before the node has that document; whether it has is not on the ESP"),
        _ => ("wait", "they do not start before the node has those documents; whether it has is not on the ESP"),
    };
    let what = format!("{} of {} {what} for an ExtensionServiceConfig", names.join(", "), file.name());
    let action = format!("{} prints what to start from", view.words.inspect(file.name()));
    Some(Finding::new(Severity::Note, "waiting-services", what, meaning).then(action))
}
