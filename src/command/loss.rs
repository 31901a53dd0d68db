//! Extensions that a swap would take away: the refusal, with the schematic that has them all.

use super::{Event, Ui};
use crate::doctor::quoted;
use crate::verify::ExtensionLoss;
use crate::{Code, Error};

/// The refusal. The schematic goes to the user line by line, as YAML to copy.
pub(super) fn refusal(loss: &ExtensionLoss, edit: Option<String>, ui: &dyn Ui) -> Error {
    let (mut message, mut advice) = (loss.words(), "use an image that has them".to_owned());
    if let Some(all) = &loss.schematic {
        ui.event(Event::Note(format!("The schematic with all extensions, whose ID is {}:", all.id)));
        all.schematic.lines().for_each(|line| ui.event(Event::Note(line.to_owned())));
        message.push_str(&format!(" (the schematic with all of them has the ID {})", all.id));
        if let Some(edit) = edit {
            let add: String = loss.to_add.iter().map(|name| format!(" --add-extension {}", quoted(name))).collect();
            advice = format!(
                "`{edit}{add} > all.yaml` writes the schematic with all of them, and a swap with `--schematic \
                    all.yaml` takes \
                 that image from the factory"
            );
        }
    }
    Error::new(Code::ExtensionLoss, message).advise(format!("{advice}; --allow-extension-loss goes on without them"))
}
