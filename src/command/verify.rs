//! `verify`: every check with its verdict.

use super::beside::{beside_candidate, pointed_of_candidate};
use super::examine::examine;
use super::trust::{TrustRequest, add_installed};
use super::{DiskRequest, Event, ImageRequest, Ui};
use crate::Result;
use crate::efivars::EfiVars;
use crate::factory::Schematic;
use crate::image::{TwinVerdict, compare_twins};
use crate::pcr::Bank;
use crate::verify::{Check, CheckId, CheckStatus, Policy, Report, Verdict, verify};
use std::path::PathBuf;

/// What `verify` is asked for.
#[derive(Debug)]
pub struct Verify {
    /// Which image.
    pub image: ImageRequest,
    /// Held against what.
    pub trust: TrustRequest,
    /// EFI variables; `None` for none.
    pub efivars: Option<PathBuf>,
    /// The disk whose installed UKI it is compared with.
    pub installed: Option<DiskRequest>,
}

impl Verify {
    /// Reads the image once and applies the policy.
    ///
    /// # Errors
    /// As [`ImageRequest::open`]. A rejected image is no error: the report says so.
    pub fn run(&self, ui: &dyn Ui) -> Result<Report> {
        let mut policy = self.trust.policy(&EfiVars::open(self.efivars.as_deref()), ui)?;
        if let Some(disk) = &self.installed {
            add_installed(&mut policy, disk, ui)?;
        }
        let opened = self.image.open(true, ui)?;
        let candidate = opened.uki()?;
        ui.event(Event::Step("verifying".into()));
        let mut examined = examine(&candidate.bytes, &[Bank::Sha256], &mut [], ui)?;
        examined.facts.companions = match &policy.installed {
            // A swap leaves the image the name that what lies there belongs to.
            Some(installed) => Ok(installed.companions.clone()),
            None => beside_candidate(candidate),
        };
        examined.facts.pointed = pointed_of_candidate(candidate, &examined.facts);
        without_halt(&mut policy, examined.uki.as_ref());
        let mut report = verify(&examined.facts, &policy);
        report.checks.extend(copies(&compare_twins(candidate)?));
        Ok(report)
    }
}

/// The ID of the image's own schematic with the halt flag negated: the way out that the `cmdline` check names.
pub(super) fn without_halt(policy: &mut Policy, uki: Option<&crate::uki::Uki>) {
    let yaml = uki.and_then(|u| u.schematic()).map(|s| s.yaml.clone());
    let schematic = yaml.and_then(|yaml| Schematic::parse(&yaml).ok()).filter(|s| !s.negates_halt());
    policy.schematic_without_halt = schematic.map(|s| s.negating_halt().id());
}

/// The two copies of the UKI in an ISO.
fn copies(verdict: &TwinVerdict) -> Option<Check> {
    match verdict {
        TwinVerdict::Alone => None,
        TwinVerdict::Same => Some(Check {
            id: CheckId::IsoCopies,
            status: CheckStatus::Pass,
            detail: "Both copies of the UKI in the ISO are the same.".into(),
        }),
        TwinVerdict::Different { place, at, bytes, twin_bytes } => Some(Check {
            id: CheckId::IsoCopies,
            status: CheckStatus::Warn,
            detail: format!(
                "The copies of the UKI in the ISO differ from byte {at} on ({bytes} and {twin_bytes} bytes). Firmware \
                 boots the one in {place}; verified was the one in the ISO tree. Fetch the ISO again."
            ),
        }),
    }
}

/// Whether a report lets a swap go on.
pub(super) fn accepted(report: &Report) -> bool {
    report.verdict == Verdict::Accept
}
