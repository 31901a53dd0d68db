//! The variables of systemd-boot and its stub in words (Boot Loader Interface; systemd's boot.c and stub.c).

use super::plain;
use crate::boot::{LoaderVersion, lenient_string, variable_string};
use crate::efivars::{EfiVars, LOADER};
use serde::Serialize;

/// `EFI_VARIABLE_NON_VOLATILE`.
const NON_VOLATILE: u32 = 1;

/// A variable in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DecodedVariable {
    /// Its name.
    pub name: String,
    /// `EFI_VARIABLE_*` bits.
    pub attributes: u32,
    /// Whether it outlives a reboot.
    pub non_volatile: bool,
    /// Its value for people.
    pub value: String,
    /// What it is for.
    pub meaning: String,
    /// What is wrong with it.
    pub problem: Option<String>,
}

enum Form {
    /// UTF-16LE, closed by NUL.
    Text,
    /// Several of those, one behind the other.
    Texts,
    /// Decimal microseconds as text.
    Microseconds,
    /// 64 bits, little endian.
    LoaderFeatures,
    /// 64 bits, little endian.
    StubFeatures,
    /// Not to be shown.
    Secret,
}

/// Every variable of the Boot Loader Interface that is known, in the order in which people want to read them.
const KNOWN: &[(&str, Form, &str)] = &[
    ("LoaderInfo", Form::Text, "the boot loader that was started last"),
    ("LoaderFirmwareInfo", Form::Text, "the firmware"),
    ("LoaderFirmwareType", Form::Text, "the kind of firmware"),
    ("LoaderImageIdentifier", Form::Text, "the boot loader's own file"),
    ("LoaderDevicePartUUID", Form::Text, "the partition the boot loader was started from"),
    ("LoaderEntrySelected", Form::Text, "the entry that was started last"),
    ("LoaderEntryDefault", Form::Text, "pins the entry that starts (a pattern)"),
    ("LoaderEntryPreferred", Form::Text, "pins the entry that starts, before LoaderEntryDefault (since 260)"),
    ("LoaderEntryOneShot", Form::Text, "the entry for the next boot only; used up when it is read"),
    ("LoaderEntryLastBooted", Form::Text, "what @saved means"),
    ("LoaderEntrySysFail", Form::Text, "the entry after a failed firmware update; no version acts upon it"),
    ("LoaderSysFailReason", Form::Text, "why the firmware is said to have failed"),
    ("LoaderEntryRebootReason", Form::Text, "how the last system went down, by the kernel"),
    ("LoaderEntries", Form::Texts, "the menu as it was at the last boot"),
    ("LoaderConfigTimeout", Form::Text, "seconds that the menu waits"),
    ("LoaderConfigTimeoutOneShot", Form::Text, "the same for the next boot only; shows the menu"),
    ("LoaderConfigConsoleMode", Form::Text, "the console's mode"),
    ("LoaderBootCountPath", Form::Text, "the file that boot counting renamed"),
    ("LoaderFeatures", Form::LoaderFeatures, "what the boot loader can do"),
    ("LoaderTimeInitUSec", Form::Microseconds, "when the boot loader was started"),
    ("LoaderTimeMenuUSec", Form::Microseconds, "when its menu was shown"),
    ("LoaderTimeExecUSec", Form::Microseconds, "when it started the system"),
    ("LoaderDeviceURL", Form::Text, "where the boot loader was downloaded from"),
    ("LoaderTpm2ActivePcrBanks", Form::Text, "the TPM's banks"),
    ("LoaderKeyboardLayout", Form::Text, "the keyboard's layout"),
    ("LoaderPcrSMBIOS", Form::Text, "the PCR that SMBIOS data went to"),
    ("LoaderSystemToken", Form::Secret, "seeds the random generator"),
    ("LoaderRandomSeed", Form::Secret, "seeds the random generator (up to 252)"),
    ("LoaderBootSecret", Form::Secret, "the stub's secret (since 261)"),
    ("StubInfo", Form::Text, "the stub inside the UKI that was started"),
    ("StubFeatures", Form::StubFeatures, "what the stub can do"),
    ("StubImageIdentifier", Form::Text, "the UKI that was started"),
    ("StubDevicePartUUID", Form::Text, "the partition it was started from"),
    ("StubProfile", Form::Text, "the profile that was started; 0 is the system itself"),
    ("StubPcrKernelImage", Form::Text, "the PCR that the kernel was measured into"),
    ("StubPcrKernelParameters", Form::Text, "the PCR that the command line was measured into"),
    ("StubPcrInitRDSysExts", Form::Text, "the PCR that system extensions were measured into"),
    ("StubPcrInitRDConfExts", Form::Text, "the PCR that configuration extensions were measured into"),
];

/// Bits of `LoaderFeatures`.
const LOADER_FEATURES: [&str; 22] = [
    "timeout",
    "one-shot timeout",
    "default entry",
    "one-shot entry",
    "boot counting",
    "XBOOTLDR",
    "random seed",
    "drivers",
    "sort keys",
    "@saved",
    "devicetree",
    "key enrolment",
    "retains shim",
    "menu-disabled",
    "multi-profile UKIs",
    "reports URL",
    "type 1 UKIs",
    "type 1 UKI URLs",
    "TPM banks",
    "preferred entry",
    "keyboard",
    "measures SMBIOS",
];

/// Bits of `StubFeatures`.
const STUB_FEATURES: [&str; 8] = [
    "reports boot partition",
    "credentials",
    "system extensions",
    "three PCRs",
    "random seed",
    "command line addons",
    "SMBIOS command line",
    "devicetree addons",
];

/// Decodes what is there. `loader` is the systemd-boot on the disk, if that is known; else the one that wrote
/// `LoaderInfo` counts. A variable that cannot be read appears with its error.
#[must_use]
pub fn decode(vars: &EfiVars, loader: Option<&LoaderVersion>) -> Vec<DecodedVariable> {
    let written_by = || {
        let info = vars.read("LoaderInfo", LOADER).ok().flatten()?;
        LoaderVersion::parse(lenient_string(&info.data).strip_prefix("systemd-boot ")?)
    };
    let loader = loader.cloned().or_else(written_by).unwrap_or_default();
    let mut all = Vec::new();
    for (name, form, meaning) in KNOWN {
        let decoded = |attributes, value, problem| DecodedVariable {
            name: (*name).to_owned(),
            attributes,
            non_volatile: attributes & NON_VOLATILE != 0,
            value,
            meaning: (*meaning).to_owned(),
            problem,
        };
        match vars.read(name, LOADER) {
            Ok(None) => {}
            Ok(Some(v)) => {
                let problem = match form {
                    Form::Text | Form::Microseconds => misread(&v.data, &loader),
                    _ => None,
                };
                all.push(decoded(v.attributes, plain(&value(form, &v.data)), problem.as_deref().map(plain)));
            }
            Err(e) => all.push(decoded(0, String::new(), Some(e.to_string()))),
        }
    }
    all
}

fn value(form: &Form, data: &[u8]) -> String {
    let bits = |names: &[&str]| {
        let bits = data.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
        let name = |i: u32| names.get(i as usize).map_or_else(|| format!("bit {i}"), |n| (*n).to_owned());
        (0..64).filter(|i| bits >> i & 1 == 1).map(name).collect::<Vec<_>>().join(", ")
    };
    match form {
        Form::Text => lenient_string(data),
        Form::Microseconds => {
            let text = lenient_string(data);
            text.parse::<u64>().map_or(text, |us| format!("{:.3} s", us as f64 / 1e6))
        }
        Form::Texts => {
            let units: Vec<u16> = data.as_chunks::<2>().0.iter().map(|u| u16::from_le_bytes(*u)).collect();
            let ids = units.split(|u| *u == 0).filter(|id| !id.is_empty());
            ids.map(String::from_utf16_lossy).collect::<Vec<_>>().join(", ")
        }
        Form::LoaderFeatures => bits(&LOADER_FEATURES),
        Form::StubFeatures => bits(&STUB_FEATURES),
        Form::Secret => format!("{} bytes, not shown", data.len()),
    }
}

/// Where the loader reads something else than was meant.
fn misread(data: &[u8], loader: &LoaderVersion) -> Option<String> {
    let meant = lenient_string(data);
    match variable_string(data, loader) {
        None => Some(format!("has an odd number of bytes ({}): the boot loader ignores it", data.len())),
        Some(read) if read != meant => {
            Some(format!("has no closing NUL: {loader} reads {read:?} instead of {meant:?}"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn values_are_decoded_by_their_form() {
        let text = |s: &str| s.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        assert_eq!(value(&Form::Text, &text("a\0")), "a");
        assert_eq!(value(&Form::Texts, &text("a.efi\0b.efi\0")), "a.efi, b.efi");
        assert_eq!(value(&Form::Microseconds, &text("1234567\0")), "1.235 s");
        assert_eq!(value(&Form::LoaderFeatures, &[5, 0, 0, 0, 0, 0, 0, 0x80]), "timeout, default entry, bit 63");
        assert_eq!(value(&Form::LoaderFeatures, &[5]), "");
        assert_eq!(value(&Form::Secret, &[1; 32]), "32 bytes, not shown");
    }

    #[test]
    fn a_missing_nul_is_named_with_what_is_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/efivars/no-nul");
        let all = decode(&EfiVars::open(Some(&dir)), None);
        let default = all.iter().find(|v| v.name == "LoaderEntryDefault").unwrap();
        assert!(default.problem.as_deref().unwrap().contains("no closing NUL"), "{default:?}");
        let fixed = decode(&EfiVars::open(Some(&dir)), LoaderVersion::parse("262").as_ref());
        assert_eq!(fixed.iter().find(|v| v.name == "LoaderEntryDefault").unwrap().problem, None);
    }
}
