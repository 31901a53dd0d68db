//! Words for the steps of the way of the boot, the same in text and in pictures.

use crate::bootpath::{Certainty, StepKind, WayStep};

/// What kind of step it is.
pub(super) fn kind(step: &WayStep) -> &'static str {
    match step.step {
        StepKind::Firmware => "firmware",
        StepKind::Program => "program",
        StepKind::Menu => "menu",
        StepKind::Image => "image",
        StepKind::Kernel => "kernel",
    }
}

/// How sure it is, in front of the reason.
pub(super) fn certainty(step: &WayStep) -> &'static str {
    match step.certainty {
        Certainty::Known => "",
        Certainty::Default => "by default: ",
        Certainty::Unknown => "not certain: ",
    }
}
