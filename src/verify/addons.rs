//! The check of what systemd's stub adds to the image from beside it: who stands for each addon, which of them the stub
//! takes, and the command line that comes of it.
//!
//! Firmware loads an addon as it loads an image: with Secure Boot on, one that db does not stand for is not taken, and
//! the stub starts without it.

use super::signature::Signed;
use super::{Addon, Check, CheckId, CheckStatus, CompanionFacts, ImageFacts, InstalledFacts, Policy};
use crate::uki::{CompanionKind, Host, additions, cmdline};

/// What comes of the companions of an image.
pub(super) struct Added {
    /// The check.
    pub(super) check: Check,
    /// Paths of the addons that are taken and what each adds to the command line, in their order.
    pub(super) lines: Vec<(String, String)>,
    /// The same of the installed image.
    installed: Vec<(String, String)>,
}

impl Added {
    /// A command line of the image with what is added to it.
    pub(super) fn to(&self, own: &str) -> String {
        joined(own, &self.lines)
    }

    /// The installed image's command line with what is added to it, if that is known.
    pub(super) fn to_installed(&self, installed: &InstalledFacts) -> Option<String> {
        Some(joined(installed.cmdline.as_deref()?, &self.installed))
    }
}

fn joined(own: &str, lines: &[(String, String)]) -> String {
    let all = std::iter::once(own).chain(lines.iter().map(|(_, line)| line.as_str()));
    all.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

pub(super) fn judge(facts: &ImageFacts, policy: &Policy) -> Added {
    let installed = policy.installed.as_ref();
    let installed_lines = installed.map(|i| lines(&i.companions, &i.host, policy)).unwrap_or_default();
    let check = |status, detail: String| Check::new(CheckId::Addons, status, detail);
    let companions = match &facts.companions {
        Ok(companions) => companions,
        Err(why) => {
            return Added {
                check: check(CheckStatus::Skip, why.clone()),
                lines: Vec::new(),
                installed: installed_lines,
            };
        }
    };
    let lines = lines(companions, &facts.host, policy);
    let mut found = Findings::default();
    for companion in companions {
        found.look(companion, facts, policy);
    }
    let own = facts.profiles.first().map(|p| p.cmdline.as_str()).unwrap_or_default();
    found.losses(installed, companions, &facts.host, &joined(own, &lines), policy);
    Added { check: found.check(policy), lines, installed: installed_lines }
}

/// Sentences about companions.
#[derive(Default)]
struct Findings {
    good: Vec<String>,
    untrusted: Vec<String>,
    lost: Vec<String>,
    notes: Vec<String>,
    unverified: Vec<String>,
}

impl Findings {
    fn look(&mut self, companion: &CompanionFacts, facts: &ImageFacts, policy: &Policy) {
        let path = &companion.path;
        let Some(addon) = &companion.addon else {
            return self.unverified.push(format!("{path} ({})", companion.kind));
        };
        let addon = match taken(addon, &facts.host, policy) {
            Ok(addon) => addon,
            Err(why) => return self.notes.push(format!("{path} is passed over: {why}.")),
        };
        let signed = Signed::of_addon(addon, policy);
        let what = adds(addon);
        let revoked = signed.revocation();
        match signed.in_short() {
            Ok(_) if revoked.status == CheckStatus::Fail => {
                self.untrusted.push(format!("{path} adds {what}, and is revoked."));
            }
            Ok(by) => self.good.push(format!("{path} adds {what}, {by}.")),
            // A board that looks at no signature starts with it as it is: the new image changes nothing about that.
            Err(why) if starts_unverified(path, addon, policy) => self.notes.push(format!(
                "{path} adds {what}, and {why}: Secure Boot is off, and the installed image starts with it as well."
            )),
            Err(why) => self.untrusted.push(format!("{path} adds {what}, and {why}.")),
        }
    }

    /// Addons that the installed image starts with, that are there for the new one as well, and that it does not take:
    /// for another kernel, say. One whose parameters are on the new command line anyway is no loss.
    fn losses(
        &mut self,
        installed: Option<&InstalledFacts>,
        companions: &[CompanionFacts],
        host: &Host,
        line: &str,
        policy: &Policy,
    ) {
        let Some(installed) = installed else { return };
        let parameters = cmdline::parameters(line);
        for old in installed.companions.iter().filter(|c| companions.iter().any(|new| new.path == c.path)) {
            let Some(content) = &old.addon else { continue };
            let (Ok(addon), Err(why)) = (taken(content, &installed.host, policy), taken(content, host, policy)) else {
                continue;
            };
            let only_cmdline = additions(&addon.says) == [".cmdline"];
            let kept = only_cmdline
                && cmdline::parameters(addon.says.cmdline().unwrap_or_default()).iter().all(|p| parameters.contains(p));
            if !kept {
                self.lost.push(format!(
                    "The installed image starts with {}, which adds {}; this one would start without it: {why}. Put \
                     one for \
                     this image beside it first, or remove that one if it is not needed.",
                    old.path,
                    adds(addon)
                ));
            }
        }
    }

    fn check(self, policy: &Policy) -> Check {
        let untrusted_fails = !self.untrusted.is_empty() && !policy.allow_untrusted && !policy.way_back;
        let status = if untrusted_fails || !self.lost.is_empty() && !policy.way_back {
            CheckStatus::Fail
        } else if [&self.untrusted, &self.lost, &self.notes, &self.unverified].iter().any(|list| !list.is_empty()) {
            CheckStatus::Warn
        } else {
            CheckStatus::Pass
        };
        let mut all = [self.lost, self.untrusted].concat();
        if untrusted_fails {
            all.push(
                "Remove what is not wanted, name the signer with --cert, or give --allow-untrusted if the board runs \
                 without \
                 Secure Boot."
                    .into(),
            );
        }
        all.extend(self.notes);
        all.extend(self.good);
        if !self.unverified.is_empty() {
            all.push(format!("Added as well, and not verified here: {}.", self.unverified.join(", ")));
        }
        if all.is_empty() {
            all.push("There is nothing beside the image that systemd's stub would add to it.".into());
        }
        Check::new(CheckId::Addons, status, all.join(" "))
    }
}

/// The addon, if the stub takes it; else why not.
fn taken<'a>(content: &'a Result<Addon, String>, host: &Host, policy: &Policy) -> Result<&'a Addon, String> {
    let addon = content.as_ref().map_err(|why| format!("it cannot be read ({why})"))?;
    if let Some(why) = host.passes_over(&addon.says) {
        return Err(why);
    }
    match Signed::of_addon(addon, policy).firmware_refuses() {
        Some(why) => Err(format!("the firmware refuses it ({why})")),
        None => Ok(addon),
    }
}

/// Whether the board starts the installed image with this very addon, and looks at no signature when it does.
fn starts_unverified(path: &str, addon: &Addon, policy: &Policy) -> bool {
    let (Some(installed), Ok(digest)) = (&policy.installed, &addon.digest) else { return false };
    let no_secure_boot = policy.firmware_is_the_boards && policy.firmware.secure_boot == Some(false);
    let is_same = |old: &CompanionFacts| {
        let old = old.addon.as_ref().filter(|_| old.path == path)?;
        let old = taken(old, &installed.host, policy).ok()?;
        (old.digest.as_ref().ok()?.sha256 == digest.sha256).then_some(())
    };
    no_secure_boot && installed.companions.iter().any(|old| is_same(old).is_some())
}

/// What the addons that are taken add to the command line.
fn lines(companions: &[CompanionFacts], host: &Host, policy: &Policy) -> Vec<(String, String)> {
    let addons = companions.iter().filter(|c| c.kind == CompanionKind::Addon);
    let line = |c: &CompanionFacts| {
        let line = taken(c.addon.as_ref()?, host, policy).ok()?.says.cmdline()?.to_owned();
        Some((c.path.clone(), line))
    };
    addons.filter_map(line).filter(|(_, line)| !line.is_empty()).collect()
}

/// `"quiet" to the command line and a .dtb`.
fn adds(addon: &Addon) -> String {
    let part = |name: &&str| match *name {
        ".cmdline" => format!("{:?} to the command line", addon.says.cmdline().unwrap_or_default()),
        other => format!("a {other}"),
    };
    additions(&addon.says).iter().map(part).collect::<Vec<_>>().join(" and ")
}
