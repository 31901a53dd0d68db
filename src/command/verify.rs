//! `verify`: every check with its verdict.

use super::beside::{beside_candidate, pointed_of_candidate};
use super::examine::{FileHash, examine_hashed};
use super::trust::{TrustRequest, add_installed};
use super::{DiskRequest, Event, ImageRequest, Ui};
use crate::Result;
use crate::block::ReadAt;
use crate::doctor::quoted;
use crate::efivars::EfiVars;
use crate::factory::{Schematic, is_url};
use crate::image::{ImageKind, TwinVerdict, compare_twins};
use crate::pcr::Bank;
use crate::units::exact;
use crate::verify::{Check, CheckId, CheckStatus, Policy, Report, Verdict, verify};
use std::path::{Path, PathBuf};

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
    /// Whether the report is to have the SHA-256 of the whole file, a hash more over every byte. What comes from a
    /// server or through a pipe has it either way.
    pub hash: FileHash,
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
        // Which bytes were judged is not to be found out later where they come by once.
        let comes_by = candidate.bytes.is_remote() || self.image.is_stream();
        let hash = if comes_by { FileHash::Wanted } else { self.hash };
        let mut examined = examine_hashed(&candidate.bytes, &[Bank::Sha256], hash, &mut [], ui)?;
        examined.facts.companions = match &policy.installed {
            // A swap leaves the image the name that what lies there belongs to.
            Some(installed) => Ok(installed.companions.clone()),
            None => beside_candidate(candidate),
        };
        examined.facts.pointed = pointed_of_candidate(candidate, &examined.facts);
        without_halt(&mut policy, examined.uki.as_ref());
        let mut report = verify(&examined.facts, &policy);
        self.name_commands(&mut report, &opened.found.kind, &policy);
        report.checks.extend(copies(&compare_twins(candidate)?));
        Ok(report)
    }
}

impl Verify {
    /// Where nobody stands for the signer, the commands that can.
    fn name_commands(&self, report: &mut Report, kind: &ImageKind, policy: &Policy) {
        let unknown = policy.anchors.is_empty() && !report.signers.is_empty();
        let Some(check) = report.checks.iter_mut().find(|c| c.id == CheckId::AuthenticodeSigner) else { return };
        let by_nobody = matches!(check.status, CheckStatus::Fail | CheckStatus::Warn);
        if !(unknown && by_nobody) || is_url(&self.image.image) || self.image.is_stream() {
            return;
        }
        let image = quoted(&self.image.image);
        let uki = self.image.uki.as_ref().map_or_else(String::new, |uki| format!(" --uki {}", quoted(uki)));
        let command = |rest: &str| format!("`bootsurgeon verify {image}{uki} {rest}`");
        let pinned = certificate_beside(Path::new(&self.image.image));
        let mut ways = Vec::new();
        if pinned.is_file() {
            ways.push(format!("{} takes the factory's, kept when it was fetched", {
                command(&format!("--cert {}", quoted(&pinned.display().to_string())))
            }));
        }
        if matches!(kind, ImageKind::Disk | ImageKind::Fat) {
            let way = command(&format!("--installed {image}"));
            ways.push(format!("{way} takes the keys on its ESP and the signer of the image that it starts"));
        } else {
            ways.push(format!("{} takes those of the board's disk", command("--installed DISK")));
        }
        check.detail.push_str(&format!(" {}.", ways.join("; ")));
    }
}

/// Where `fetch` keeps the certificate of the factory that an image came from: `FILE.cert.pem`.
pub(super) fn certificate_beside(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".cert.pem");
    name.into()
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
                "The copies of the UKI in the ISO differ from byte {at} on ({} and {}). Firmware \
                 boots the one in {place}; verified was the one in the ISO tree. Fetch the ISO again.",
                exact(*bytes),
                exact(*twin_bytes)
            ),
        }),
    }
}

/// Whether a report lets a swap go on.
pub(super) fn accepted(report: &Report) -> bool {
    report.verdict == Verdict::Accept
}
