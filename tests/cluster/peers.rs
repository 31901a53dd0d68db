//! The inputs of the benchmark, which have the size of the field.

#[path = "../../benches/peers/inputs.rs"]
#[allow(dead_code)]
mod inputs;
#[path = "../../benches/peers/measure.rs"]
#[allow(dead_code)]
mod measure;

use crate::support::tools;
use std::path::{Path, PathBuf};

/// A disk of a node, and an image of 120 MB for it.
pub(crate) struct Field {
    pub(crate) disk: PathBuf,
    pub(crate) uki: PathBuf,
}

impl Field {
    /// Those of the benchmark, made if they are not there; `None` where the tools for that are missing.
    pub(crate) fn new() -> Option<Self> {
        if !tools(&inputs::TOOLS) {
            return None;
        }
        let inputs = inputs::Inputs::make(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers")).expect("inputs");
        Some(Self { disk: inputs.disk, uki: inputs.uki })
    }
}
