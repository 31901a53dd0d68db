//! `schematic id`: canonical form and ID, without asking anybody.

use super::trust::read_schematic;
use crate::Result;
use serde::Serialize;
use std::path::Path;

/// A schematic and its ID.
#[derive(Debug, Serialize)]
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
