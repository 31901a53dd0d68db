//! Programs on the way of the boot that somebody refuses to start.

use super::words::DiskWords;
use super::{Finding, Severity};
use std::fmt;

/// Who decides whether a program is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// The firmware.
    Firmware,
    /// shim, which comes before it or is the program.
    Shim,
    /// Nobody on this way.
    Nobody,
}

/// What speaks against a program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Objection {
    /// For people: its path and partition.
    pub place: String,
    /// Who refuses to start it.
    pub judge: Judge,
    /// Why.
    pub why: String,
    /// Whether it is the image itself, which a swap replaces in its place.
    pub is_image: bool,
    /// Whether it is a systemd-boot.
    pub is_systemd_boot: bool,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, judge, why, .. } = self;
        match judge {
            Judge::Firmware => write!(f, "the firmware refuses to start {place}: {why}"),
            Judge::Shim => write!(f, "shim refuses to start {place}: {why}"),
            Judge::Nobody => {
                write!(f, "{place} is old: {why}. The firmware does not look at that; shim would refuse it")
            }
        }
    }
}

/// The findings about them.
pub(super) fn findings(objections: &[Objection], words: &DiskWords) -> Vec<Finding> {
    let finding = |objection: &Objection| match objection.judge {
        Judge::Nobody => {
            let finding = Finding::new(
                Severity::Note,
                "loader-below-sbat-level",
                objection.to_string(),
                "anyone who can put an old boot loader there can exploit its known flaws",
            );
            if objection.is_systemd_boot { finding.then(words.command("loader", "IMAGE")) } else { finding }
        }
        Judge::Firmware | Judge::Shim if objection.is_image => Finding::new(
            Severity::Problem,
            "loader-refused",
            objection.to_string(),
            "this image is not started (\"Access denied\" or \"Security Violation\" on the console); a swap replaces \
             it in its place, \
             and refuses an image that the firmware is known to refuse",
        )
        .then(format!("put an image that is signed for this board in its place: {}", words.command("swap", "IMAGE"))),
        Judge::Firmware | Judge::Shim => Finding::new(
            Severity::Problem,
            "loader-refused",
            objection.to_string(),
            "the board never gets to its images (\"Access denied\" or \"Security Violation\" on the console); a swap \
             is \
             refused as long as that is so",
        )
        .then(if objection.is_systemd_boot {
            format!(
                "{} puts one that is signed for this board there (it is on the Secure Boot ISO that the image comes \
                 from); or enrol its key",
                words.command("loader", "IMAGE")
            )
        } else {
            "replace it by one that is signed for this board, or enrol its key".to_owned()
        }),
    };
    objections.iter().map(finding).collect()
}
