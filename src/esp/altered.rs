//! What the board would start if a directory held other files under some names than it does.

use super::context::{View, slashes};
use super::predict::Scene;
use super::{Inventory, Runs};
use crate::block::ReadAt;
use crate::boot::{Prediction, UkiFile};
use crate::bootpath::{BootScenario, BootVolume, End, Located, Program, Unseen, Volumes, Way};
use crate::disk::PartUuid;
use crate::fat::same_name;
use crate::pe::Arch;
use std::rc::Rc;

/// What the way of the boot sees of a file's content.
#[derive(Debug)]
pub(crate) struct Content {
    /// As a program that firmware or a boot loader starts, or why it is none.
    pub(crate) program: Result<Program, String>,
    /// As systemd-boot sees it in `EFI/Linux`; its name counts for nothing.
    pub(crate) seen: UkiFile,
}

/// A directory with other files in it, under some names.
#[derive(Debug, Clone)]
pub(crate) struct Altered {
    /// The volume's place.
    pub(crate) volume: usize,
    /// From the root, with slashes.
    pub(crate) directory: String,
    /// What something calls a file there, and its long name, where that is another one.
    pub(crate) alias: Option<(String, String)>,
    /// Names, and what they lead to; `None` where there is no such file.
    pub(crate) names: Vec<(String, Option<Rc<Content>>)>,
}

impl Altered {
    /// The place of a path in `names`.
    pub(crate) fn position(&self, at: &Located) -> Option<usize> {
        if at.volume != self.volume {
            return None;
        }
        let path = slashes(&at.path);
        let name = self.name_in(&path)?;
        let name = self.alias.as_ref().filter(|(alias, _)| same_name(alias, name)).map_or(name, |(_, long)| long);
        self.names.iter().position(|(known, _)| same_name(known, name))
    }

    /// The file name of a path that leads into the directory.
    fn name_in<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (directory, name) = path.rsplit_once(['\\', '/']).unwrap_or(("", path));
        let parts = |path: &'p str| path.split(['\\', '/']).filter(|part| !part.is_empty());
        let mut own = self.directory.split('/').filter(|part| !part.is_empty());
        let inside = parts(directory).all(|part| own.next().is_some_and(|own| same_name(own, part)));
        (inside && own.next().is_none()).then_some(name)
    }

    /// What is changed of a path: nothing, or its content.
    fn content(&self, at: &Located) -> Option<Option<&Rc<Content>>> {
        Some(self.names.get(self.position(at)?)?.1.as_ref())
    }

    fn alter<S: ReadAt>(&self, scene: &mut Scene, esp: &Inventory<S>) {
        let is_here = self.volume == esp.context.this();
        let xbootldr = esp.context.xbootldr_place() == Some(self.volume);
        if !is_here && !xbootldr {
            return;
        }
        if crate::surgery::is_linux_dir(&self.directory) {
            let linux = scene.linux_on(xbootldr);
            for (name, content) in &self.names {
                let at = linux.iter().position(|f| same_name(&f.name, name));
                let new = content.as_ref().map(|c| UkiFile { name: name.clone(), ..c.seen.clone() });
                match (at, new) {
                    (Some(at), Some(new)) => linux[at] = new,
                    (Some(at), None) => drop(linux.remove(at)),
                    (None, Some(new)) => linux.push(new),
                    (None, None) => {}
                }
            }
        }
        for (path, found) in scene.found_on(xbootldr).iter_mut() {
            let followed = slashes(path);
            let Some(named) = self.name_in(&followed) else { continue };
            // An entry may name a file by its short name.
            let name = found.clone().unwrap_or_else(|| named.to_owned());
            if let Some((name, content)) = self.names.iter().find(|(known, _)| same_name(known, &name)) {
                *found = content.as_ref().map(|_| name.clone());
            }
        }
    }
}

impl<S: ReadAt> Inventory<S> {
    /// What would run in a scenario, and the prediction for it where the menu of this volume's systemd-boot is on the
    /// way.
    pub(crate) fn runs_if(&self, scenario: BootScenario, altered: &Altered) -> (Runs, Option<Prediction>) {
        let view = AlteredView { below: View::new(&self.volume, &self.context), altered };
        let way = Way::follow(&self.context.options, scenario, &view);
        let runs = match way.end {
            End::Uki(ref at) => Runs::Image { at: at.clone(), profile: way.profile() },
            End::Menu { .. } if way.end == self.way(scenario).end && self.is_read(scenario) => {
                let mut scene = Scene::of(self, self.as_seen());
                altered.alter(&mut scene, self);
                let prediction = self.predict_scene(scenario, &scene);
                let runs = self.runs_by_menu(&prediction, |at| match altered.content(at) {
                    Some(content) => content.map(|c| c.program.clone()).transpose(),
                    None => self.program_there(at),
                });
                return (runs, Some(prediction));
            }
            End::Menu { loader, at } => Runs::Other(format!("{} on {}", loader.version, self.context.name(at.volume))),
            End::Other(what) => Runs::Other(what),
            End::Nothing(why) => Runs::Nothing(why),
            End::Unknown(why) => Runs::Unknown(why),
        };
        (runs, None)
    }
}

/// The volumes with the directory altered.
struct AlteredView<'a, S> {
    below: View<'a, S>,
    altered: &'a Altered,
}

impl<S: ReadAt> Volumes for AlteredView<'_, S> {
    fn list(&self) -> &[BootVolume] {
        self.below.list()
    }

    fn unseen(&self, partuuid: PartUuid) -> Option<Unseen<'_>> {
        self.below.unseen(partuuid)
    }

    fn complete(&self) -> bool {
        self.below.complete()
    }

    fn this(&self) -> Option<usize> {
        self.below.this()
    }

    fn arch(&self) -> Arch {
        self.below.arch()
    }

    fn is_uboot(&self) -> bool {
        self.below.is_uboot()
    }

    fn program(&self, at: &Located) -> Result<Option<Program>, String> {
        match self.altered.content(at) {
            Some(content) => content.map(|c| c.program.clone()).transpose(),
            None => self.below.program(at),
        }
    }

    fn is_file(&self, at: &Located) -> bool {
        self.altered.content(at).map_or_else(|| self.below.is_file(at), |content| content.is_some())
    }
}
