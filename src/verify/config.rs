//! The node's configuration as a check, and the installer that holds what an image holds.

use super::{Check, CheckId, CheckStatus, ImageFacts, Policy, is_lower};
use crate::config::{ConfigReport, Finding, ImageNeeds, Severity, check};
use crate::factory::is_id;

/// What the image says that configuration has to fit. `asked`: the factory that was asked for the image.
pub(crate) fn needs(facts: &ImageFacts, asked: Option<String>) -> ImageNeeds {
    let mut needs = ImageNeeds::default();
    needs.version.clone_from(&facts.version);
    needs.schematic = facts.schematic.as_ref().map(|schematic| schematic.id.clone());
    needs.installer = installer_image(facts, asked);
    needs.waiting.clone_from(&facts.waiting_services);
    needs.services.clone_from(&facts.services);
    needs
}

/// `--machine-config`: never a failure, because the board starts the image whatever its configuration says.
pub(super) fn machine_config(facts: &ImageFacts, policy: &Policy) -> Option<Check> {
    if policy.machine_config.is_empty() {
        return None;
    }
    let report = check(&policy.machine_config, Some(&needs(facts, None)));
    let told = report.findings.iter().filter(|f| f.severity != Severity::Hint);
    let told: Vec<_> = told.map(sentence).collect();
    Some(match told.is_empty() {
        true => Check::new(CheckId::Config, CheckStatus::Pass, fits(&report)),
        false => Check::new(CheckId::Config, CheckStatus::Warn, told.join(" ")),
    })
}

/// A finding, what to do, and what to put there if that is one line.
fn sentence(finding: &Finding) -> String {
    let put = match finding.put.as_deref() {
        Some(put) if !put.contains('\n') => format!(": `{put}`"),
        Some(_) => " (`bootsurgeon config check` prints it)".to_owned(),
        None => String::new(),
    };
    format!("{}{}; {}{put}.", finding.place_and_colon(), finding.what, finding.advice)
}

fn fits(report: &ConfigReport) -> String {
    let services = match report.services.as_slice() {
        [] => "no extension service".to_owned(),
        all => all.join(", "),
    };
    let but = match report.not_checked.as_slice() {
        [] => String::new(),
        all => format!(" Not checked: {}.", all.join("; ")),
    };
    format!("Nothing in the configuration speaks against the image; it configures {services}.{but}")
}

/// The image of the installer that puts the same system onto the disk:
/// `factory.talos.dev/metal-installer-secureboot/ID:v1.12.4`.
/// `asked`: the factory that was asked for the image; otherwise the one that the image names. Source of the names:
/// `internal/frontend/http` of the Image Factory; up to Talos 1.9 they do not name the platform.
pub(crate) fn installer_image(facts: &ImageFacts, asked: Option<String>) -> Option<String> {
    let schematic = facts.schematic.as_ref().filter(|s| is_id(&s.id) && s.id_matches != Some(false))?;
    let version = facts.version.as_deref().filter(|v| v.starts_with('v'))?;
    let host = asked.as_deref().or(schematic.factory.as_deref()).unwrap_or("factory.talos.dev");
    let cmdline = facts.profiles.first().map_or("", |profile| profile.cmdline.as_str());
    let platform = cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix("talos.platform="));
    let plain = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let names_platform = !is_lower(version, "v1.10.0-alpha.0");
    let platform = platform.filter(plain).filter(|_| names_platform).or(names_platform.then_some("metal"));
    let platform = platform.map_or_else(String::new, |platform| format!("{platform}-"));
    let is_signed = facts.signatures.as_ref().is_ok_and(|all| !all.is_empty());
    let secure_boot = if is_signed { "-secureboot" } else { "" };
    Some(format!("{host}/{platform}installer{secure_boot}/{}:{version}", schematic.id))
}
