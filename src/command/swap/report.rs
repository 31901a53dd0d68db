//! What `swap` reports.

use super::super::NextStep;
use super::super::board::BoardReport;
use super::super::board_set::PreparedSet;
use crate::plan::{BoardSetPlan, SwapPlan};
use crate::verify::{Check, ExtensionLoss, ImageChange, ImageSummary, Report};
use serde::Serialize;

/// What `swap` did. The fields of the contract come first.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct SwapReport {
    /// The plan.
    pub plan: SwapPlan,
    /// Every check.
    pub checks: Vec<Check>,
    /// What is another than with the installed image; `null` where nothing had to be read to know that there is nothing
    /// to do.
    pub change: Option<ImageChange>,
    /// Extensions that the installed image has and the new one lacks.
    pub extension_loss: Option<ExtensionLoss>,
    /// Whether the ESP holds the new image now.
    pub committed: bool,
    /// SHA-256 of the image.
    pub sha256: String,
    /// What the image is: what a node that starts it has to show.
    pub image: Option<ImageSummary>,
    /// Whether the very same bytes were in place already.
    pub already_in_place: bool,
    /// The board's own files that changed with the image, and those that stayed; `null` where nobody asked for that.
    pub board_files: Option<BoardSetPlan>,
    /// What of the board a swap of the image alone leaves as it is: files beside the image, as they stood to the source's
    /// before the swap; boot loaders.
    pub board: BoardReport,
    /// Bytes that came over the network, for a remote image.
    pub wire_bytes: Option<u64>,
    /// The file of `--out`, which holds the changed image now (an unchanged one where there was nothing to do); `null`
    /// when none was written.
    pub out: Option<String>,
    /// All members of the mirror that were written, or would be; empty for a disk by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// Names of the image's extension services that wait for an ExtensionServiceConfig.
    pub waiting_services: Vec<String>,
    /// What somebody should know.
    pub warnings: Vec<String>,
    /// What is left to do on the node, in order; empty when nothing was changed.
    pub next: Vec<NextStep>,
}

/// The report of a swap of the image alone.
pub(super) fn report(
    plan: SwapPlan,
    judged: Option<Report>,
    committed: bool,
    sha256: String,
    in_place: bool,
) -> SwapReport {
    let (change, extension_loss) = judged.as_ref().map(|j| (j.change.clone(), j.extension_loss.clone())).unzip();
    let (checks, image) = judged.map(|j| (j.checks, j.image)).unzip();
    SwapReport {
        plan,
        checks: checks.unwrap_or_default(),
        change,
        extension_loss: extension_loss.flatten(),
        committed,
        sha256,
        waiting_services: image.as_ref().map(|image| image.waiting_services.clone()).unwrap_or_default(),
        image,
        already_in_place: in_place,
        board_files: None,
        board: BoardReport::default(),
        wire_bytes: None,
        out: None,
        members: Vec::new(),
        warnings: Vec::new(),
        next: Vec::new(),
    }
}

/// The same with the board's own files.
pub(super) fn with_set(report: SwapReport, set: Option<PreparedSet>) -> SwapReport {
    SwapReport { board_files: set.map(|set| set.plan), ..report }
}
