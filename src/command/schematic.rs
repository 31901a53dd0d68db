//! `schematic id` and `schematic edit`: canonical form and ID, without asking anybody.

use super::trust::read_schematic;
use super::{DiskRequest, ImageRequest, Ui, boot_variables};
use crate::block::ReadAt;
use crate::esp::Inventory;
use crate::factory::Schematic;
use crate::{Context, Error, Result, uki};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A schematic and its ID.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct SchematicReport {
    /// SHA-256 of the canonical form.
    pub id: String,
    /// The canonical form.
    pub schematic: String,
}

/// `schematic id`: canonical form and ID, with changes on request.
///
/// # Errors
/// [`crate::Kind::Usage`] when the file is no schematic.
pub fn schematic_of(file: &Path, extensions: &[String], kernel_args: &[String]) -> Result<SchematicReport> {
    let mut schematic = read_schematic(file)?;
    for name in extensions {
        schematic = schematic.with_extension(name);
    }
    for arg in kernel_args {
        schematic = schematic.with_extra_kernel_arg(arg);
    }
    Ok(SchematicReport { id: schematic.id(), schematic: schematic.canonical() })
}

/// What `schematic edit` is asked for.
#[derive(Debug)]
pub struct EditSchematic {
    /// Which schematic.
    pub from: EditFrom,
    /// `--add-extension`; a short name means Sidero Labs'.
    pub add_extensions: Vec<String>,
    /// `--remove-extension`, likewise.
    pub remove_extensions: Vec<String>,
    /// `--extra-kernel-arg`.
    pub add_kernel_args: Vec<String>,
    /// `--remove-kernel-arg`.
    pub remove_kernel_args: Vec<String>,
}

/// The schematic that is changed.
#[derive(Debug)]
pub enum EditFrom {
    /// A YAML file, or `-`.
    File(PathBuf),
    /// That of the UKI which starts from this disk, or of the UKI in this image.
    Disk(DiskRequest),
}

impl EditSchematic {
    /// The changed schematic.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] when the file is no schematic, or what is to be removed is not in it;
    /// [`crate::Kind::Rejected`] when the UKI on the disk does not hold its schematic.
    pub fn run(&self, ui: &dyn Ui) -> Result<SchematicReport> {
        let mut schematic = match &self.from {
            EditFrom::File(file) => read_schematic(file)?,
            EditFrom::Disk(disk) => installed(disk, ui).or_else(|e| of_image(&disk.path, ui).map_err(|_| e))?,
        };
        for name in &self.remove_extensions {
            let full = if name.contains('/') { name.clone() } else { format!("siderolabs/{name}") };
            remove(&mut schematic.official_extensions, &full, "extension")?;
        }
        for arg in &self.remove_kernel_args {
            remove(&mut schematic.extra_kernel_args, arg, "extra kernel argument")?;
        }
        for name in &self.add_extensions {
            schematic = schematic.with_extension(name);
        }
        for arg in &self.add_kernel_args {
            schematic = schematic.with_extra_kernel_arg(arg);
        }
        Ok(SchematicReport { id: schematic.id(), schematic: schematic.canonical() })
    }
}

/// Removes what is there; a name that is not in the list was probably misspelt.
fn remove(list: &mut Vec<String>, what: &str, kind: &str) -> Result<()> {
    let before = list.len();
    list.retain(|there| there != what);
    if list.len() < before {
        return Ok(());
    }
    let there = if list.is_empty() { "it has none".to_owned() } else { format!("it has {}", list.join(", ")) };
    Err(Error::usage(format!("the schematic has no {kind} {what}: {there}")))
}

/// The schematic that the UKI which starts from a disk was built from.
fn installed(disk: &DiskRequest, ui: &dyn Ui) -> Result<Schematic> {
    let read = || {
        let target = disk.find(ui)?;
        let (variables, _) = boot_variables(&disk.efivars(&target));
        let esp = Inventory::read(target.open()?, variables)?;
        let file = esp.selected().ok_or_else(|| Error::rejected("nothing starts from it"))?;
        proven(&esp.volume.file(&file.entry)?, file.name())
    };
    read().while_doing(|| format!("reading the schematic of the image on {}", disk.path.display()))
}

/// The schematic that an image was built from.
fn of_image(path: &Path, ui: &dyn Ui) -> Result<Schematic> {
    let opened = ImageRequest::new(path.display().to_string()).open(false, ui)?;
    proven(&opened.uki()?.bytes, "the image")
}

/// The schematic in a UKI, if its hash is the ID that the UKI states.
fn proven(source: &dyn ReadAt, name: &str) -> Result<Schematic> {
    let image = uki::analyse(source, &mut [])?;
    let schematic = image.schematic().filter(|s| s.id_matches() == Some(true));
    let schematic = schematic
        .ok_or_else(|| Error::rejected(format!("{name} does not hold the schematic that it was built from")))?;
    Schematic::parse(&schematic.yaml)
}
