//! The doctor: what is the matter with a board's firmware, its variables and its ESPs, what it means, and the exact
//! next command. Facts in, findings out; nothing here writes, to a disk or to NVRAM, and nothing tries a write to see
//! whether it works: on some boards the attempt itself does harm.
//!
//! | part | looks at |
//! | --- | --- |
//! | [`Machine`] | `/proc/mounts`, `/sys/firmware/efi`, the disks in `/sys/block`, the kernel's log |
//! | [`firmware`] | Secure Boot, efivarfs, whether variables can be set at run time, as far as reading tells |
//! | [`decode_variables`] | the variables of systemd-boot and its stub |
//! | [`examine_esp`] | an ESP: what starts, half-done upgrades, stale pins, damage, space |
//! | [`what_starts`], [`several_esps`] | which ESP the firmware turns to, and where it might be the wrong one |
//! | [`explain`] | a line of text that `talosctl` or the console showed |

mod esp;
mod failures;
mod firmware;
mod machine;
mod placed;
mod programs;
mod seed;
mod services;
mod start;
mod upgrade;
mod variables;
mod view;
mod words;

pub use esp::examine_esp;
pub use failures::{FailureClass, KNOWN_FAILURES, explain, in_log};
pub use firmware::{FirmwareFacts, SetVariable, firmware};
pub use machine::{Machine, Mount};
pub use programs::{Judge, Objection};
pub use start::{EspPlace, several_esps, what_starts};
pub use variables::{DecodedVariable, decode as decode_variables};
pub use view::EspView;
pub use words::{DiskWords, plain};

pub use crate::harmless::quoted;
use crate::sorting::Sort as _;
use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The board does not start, starts the wrong image, or an operation is in the way.
    Problem,
    /// It works now and may not after the next change, reset or reboot.
    Warning,
    /// Worth knowing.
    Note,
    /// Looked at and in order.
    Ok,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A word for programs: `stale-pin`.
    pub id: &'static str,
    /// Where: a disk and partition, or nothing for the firmware.
    pub subject: Option<String>,
    /// What is the case.
    pub what: String,
    /// What that means for the board.
    pub meaning: String,
    /// What to do now: a command wherever there is one.
    pub action: Option<String>,
}

impl Finding {
    /// A finding; control characters in its texts are made visible.
    pub fn new(severity: Severity, id: &'static str, what: impl Into<String>, meaning: impl Into<String>) -> Self {
        // Names on a damaged or hostile disk may hold anything, and all this goes to a terminal.
        let (what, meaning) = (plain(&what.into()), plain(&meaning.into()));
        Self { severity, id, subject: None, what, meaning, action: None }
    }

    /// Says what to do now.
    #[must_use]
    pub fn then(mut self, action: impl Into<String>) -> Self {
        self.action = Some(plain(&action.into()));
        self
    }

    /// Says which disk and partition it is about.
    #[must_use]
    pub fn of(mut self, subject: &str) -> Self {
        self.subject = Some(plain(subject));
        self
    }
}

/// The worst first; among equals as they were found.
pub fn sort(findings: &mut [Finding]) {
    findings.put_in_order_by(|f| f.severity);
}
