//! Boot counting: what several starts, one after the other, make of the menu.
//!
//! At every start of an entry with a counter systemd-boot renames its file, and once no tries are left the entry sorts
//! behind all others, unless the system that ran has taken the counter off the name before (systemd-bless-boot(8)). So
//! what starts next is not what starts for good.

use super::Inventory;
use super::predict::Scene;
use crate::block::ReadAt;
use crate::boot::{Counter, EntryKind, Prediction, UkiFile};
use crate::bootpath::BootScenario;

/// Starts that are followed at most. A counter may allow two billions.
const MAX_STARTS: usize = 32;

/// One of several starts in a row.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FutureStart {
    /// What systemd-boot shows and starts then.
    pub prediction: Prediction,
    /// The file in `EFI/Linux` of this volume that starts then, by the name it had before the first of these starts.
    pub file: Option<String>,
}

impl<S: ReadAt> Inventory<S> {
    /// The starts from a state in which `EFI/Linux` holds these files, if nobody ever marks one as good: until every
    /// further one would be like the last, at most 32.
    #[must_use]
    pub fn starts(&self, first: BootScenario, linux: &[UkiFile]) -> Vec<FutureStart> {
        self.starts_from(first, Scene::of(self, linux))
    }

    pub(super) fn starts_from(&self, first: BootScenario, mut scene: Scene) -> Vec<FutureStart> {
        let names: Vec<String> = scene.linux.iter().map(|f| f.name.clone()).collect();
        let mut all = Vec::new();
        while all.len() < MAX_STARTS {
            let scenario = if first == BootScenario::Next && !all.is_empty() { BootScenario::Later } else { first };
            let prediction = self.predict_scene(scenario, &scene);
            let place = |name: &str| scene.linux.iter().position(|f| f.name == name);
            let at = prediction.selected_file().and_then(place);
            let file = at.and_then(|at| names.get(at).cloned());
            let renamed = scene.count(&prediction);
            let settled = !renamed && scenario != BootScenario::Next || prediction.enrolls_keys;
            all.push(FutureStart { prediction, file });
            if settled {
                break;
            }
        }
        all
    }
}

impl Scene {
    /// Gives the file that starts the name that it has after that; whether it got one. `LoaderEntryLastBooted` names it
    /// then.
    fn count(&mut self, prediction: &Prediction) -> bool {
        let Some(entry) = prediction.selected_entry() else { return false };
        self.last_booted = Some(entry.id.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect());
        let Some(next) = &prediction.renamed_to else { return false };
        if entry.kind == EntryKind::Uki {
            let file = self.linux_on(entry.xbootldr).iter_mut().find(|f| Some(&f.name) == entry.file.as_ref());
            return file.map(|f| f.name.clone_from(next)).is_some();
        }
        let becomes = |name: &str| Counter::parse(name, ".conf").is_some_and(|c| c.next_name == *next);
        let file = self.type1_on(entry.xbootldr).iter_mut().find(|f| becomes(&f.name));
        file.map(|f| f.name.clone_from(next)).is_some()
    }
}
