//! What `swap` and `restore` say when they refuse an image.

use crate::uki;
use crate::verify::{Check, CheckId, CheckStatus, Policy, Report};
use crate::{Error, Kind};

/// The refusal of an image that halts. The flag is in the first kilobytes, so this comes before anything is written.
pub(super) fn halts(facts: &uki::Facts, policy: &Policy) -> Error {
    Error::refused(
        "the image has talos.halt_if_installed=1 in its signed command line, as every ISO's UKI has: an installed \
             node that boots it stops for up to 70 minutes before it loads its configuration",
    )
    .advise(format!(
        "use the factory's metal-{}-secureboot-uki.efi (`swap DISK --schematic … --talos …` asks for it), or a \
             schematic with -talos.halt_if_installed in extraKernelArgs{}; --allow-halt-if-installed overrides",
        facts.arch.map_or("<arch>", |a| a.name()),
        policy.schematic_without_halt.as_ref().map_or(String::new(), |id| format!(" (its ID is {id})"))
    ))
}

/// The refusal of what the firmware would not start, whatever anybody allows.
pub(super) fn firmware_refuses(what: &str, why: &str) -> Error {
    Error::refused(format!("the board's firmware would refuse {what}: {why}"))
        .advise("take an image that the firmware's db stands for and its dbx does not revoke")
}

/// The refusal of an image that failed checks.
pub(super) fn rejected(report: &Report) -> Error {
    let failed: Vec<&Check> = report.checks.iter().filter(|c| c.status == CheckStatus::Fail).collect();
    let list: Vec<String> = failed.iter().map(|c| format!("{}: {}", c.id.name(), c.detail)).collect();
    let only_halt = failed.iter().all(|c| c.id == CheckId::Cmdline);
    let error = Error::new(
        if only_halt { Kind::Unsafe } else { Kind::Rejected },
        format!("the image was rejected: {}", list.join(" ")),
    );
    let signer = failed.iter().any(|c| c.id == CheckId::AuthenticodeSigner);
    match (signer, report.signers.is_empty()) {
        (true, false) => error.advise("name the signer you trust with --cert FILE"),
        // No certificate stands for what is not signed.
        (true, true) => error.advise("take an image that is signed: the factory's for Secure Boot, say"),
        (false, _) => error,
    }
}
