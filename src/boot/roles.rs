//! Who is who in the menu: what runs now, what starts next, what is left if that fails.

use super::Variables;
use super::predict::Prediction;
use super::text::lenient_string;
use serde::Serialize;

/// The parts that entries play at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Roles {
    /// Name of the UKI that was started at the last firmware boot, with its case where that is known. It may be gone
    /// from the disk. After a kexec the running system is another one: kexec leaves these variables as they were.
    pub running_file: Option<String>,
    /// The entry that was started, if it is still in the menu.
    pub running: Option<usize>,
    /// The entry that starts next.
    pub selected: Option<usize>,
    /// The entry that would start if the selected file were not there.
    pub fallback: Option<usize>,
}

/// Reads the parts from a prediction and from what systemd-boot and its stub left in the variables
/// (`LoaderEntrySelected`, `StubImageIdentifier`).
#[must_use]
pub fn roles(prediction: &Prediction, vars: &Variables) -> Roles {
    let menu = &prediction.menu;
    let stub_file = vars.stub_image.as_deref().map(lenient_string).and_then(|path| linux_file(&path));
    let id = vars.selected.as_deref().map(lenient_string).filter(|id| !id.is_empty());

    let of_file = |e: &super::MenuEntry| match (&e.file, &stub_file) {
        (Some(file), Some(stub)) => file.eq_ignore_ascii_case(stub),
        (_, None) => true,
        (None, Some(_)) => false,
    };
    let by_id = id.as_ref().and_then(|id| menu.iter().position(|e| e.id == *id && of_file(e)));
    let by_file = || stub_file.as_ref().and_then(|_| menu.iter().position(|e| e.file.is_some() && of_file(e)));
    let running = by_id.or_else(by_file);
    let of_menu = running.and_then(|i| menu.get(i)).and_then(|e| e.file.clone());
    let of_id = || {
        let id = id.as_ref()?;
        let file = id.split_once(".efi@").map_or(id.clone(), |(file, _)| format!("{file}.efi"));
        file.to_ascii_lowercase().ends_with(".efi").then_some(file)
    };
    Roles {
        running_file: of_menu.or(stub_file.clone()).or_else(of_id),
        running,
        selected: prediction.selected,
        fallback: prediction.fallback,
    }
}

/// The file name of a path in `\EFI\Linux`; the stub writes `\EFI\Linux\x.efi`, some firmware with slashes.
fn linux_file(path: &str) -> Option<String> {
    let mut parts = path.split(['\\', '/']).filter(|part| !part.is_empty()).rev();
    let name = parts.next()?;
    let linux = parts.next()?.eq_ignore_ascii_case("linux") && parts.next()?.eq_ignore_ascii_case("efi");
    linux.then(|| name.to_owned())
}
