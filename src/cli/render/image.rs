//! What commands that look at images say.

use super::change::{checks, service_configs};
use super::{Page, Paint, Render, board};
use crate::command::{
    CompanionReport, DiffReport, ExtractReport, FetchReport, InspectReport, SchematicReport, UkiReport,
};
use crate::uki::CompanionKind;
use crate::units::size;
use crate::verify::{ExtensionLoss, Report, Verdict};
use std::fmt;

impl Render for SchematicReport {
    const IS_DATA: bool = true;

    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        writeln!(f, "{}", p.strong(&self.id))?;
        f.block(&self.schematic)
    }
}

impl Render for FetchReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        writeln!(f, "{} {} ({}) from {}", p.good("fetched"), self.out, size(self.bytes), self.url)?;
        if self.resumed_from > 0 {
            writeln!(f, "resumed after {}", size(self.resumed_from))?;
        }
        writeln!(f, "sha256 {}", self.sha256)?;
        match &self.certificate {
            Some(pem) => writeln!(f, "{pem} is the certificate that the factory signs with, for `verify --cert`"),
            None => Ok(()),
        }
    }
}

impl Render for ExtractReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("the UKI");
        writeln!(f, "{} {name} ({}) from {} to {}", p.good("extracted"), size(self.bytes), self.place, self.out)
    }
}

impl Render for Report {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        checks(f, p, &self.checks)?;
        for s in &self.signers {
            let by = s.trusted_by.as_ref().map_or_else(|| p.warn("not trusted"), |by| format!("trusted by {by}"));
            let expired = if s.expired { " (expired; firmware does not mind)" } else { "" };
            let text = format!("{}, valid until {}{expired}, {by}", s.subject, s.not_after);
            f.wrapped(format_args!("signed by "), &text)?;
        }
        if let Some(loss) = &self.extension_loss {
            lost(f, p, loss)?;
        }
        service_configs(f, p, &self.image.waiting_services)?;
        let verdict = match self.verdict {
            Verdict::Accept => p.good("accept"),
            Verdict::Reject => p.bad("reject"),
        };
        match &self.image.sha256 {
            Some(sha256) => writeln!(f, "{verdict}  sha256 {sha256}"),
            None => writeln!(f, "{verdict}"),
        }
    }
}

/// Extensions that are lost, and the schematic that has them all.
fn lost(f: &mut Page, p: Paint, loss: &ExtensionLoss) -> fmt::Result {
    writeln!(f, "{} {}", p.warn("warning:"), loss.words())?;
    let Some(all) = &loss.schematic else { return Ok(()) };
    writeln!(f, "The schematic with all of them, whose ID is {}:", all.id)?;
    f.block(&all.schematic)
}

impl Render for InspectReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        let volume = self.volume.as_ref().map_or(String::new(), |v| format!(", volume {v:?}"));
        let packed = match (self.packed, self.packed_bytes) {
            (Some(packing), Some(bytes)) => format!(", packed with {packing} in {}", size(bytes)),
            _ => String::new(),
        };
        writeln!(f, "{}: {}, {}{packed}{volume}", p.strong(&self.path), self.kind, size(self.bytes))?;
        for part in &self.partitions {
            let esp = match (part.esp, part.xbootldr) {
                (true, _) => p.good("  EFI System Partition"),
                (false, true) => p.good("  XBOOTLDR"),
                (false, false) => String::new(),
            };
            writeln!(f, "  partition {:2}  {:10} {:>12}{esp}", part.number, part.label, size(part.bytes))?;
        }
        for u in &self.ukis {
            writeln!(f, "  UKI {} ({}) in {}", u.name.as_deref().unwrap_or("(bare)"), size(u.bytes), u.place)?;
        }
        match &self.uki {
            Some(uki) => uki_text(f, p, uki),
            None if self.ukis.len() > 1 => writeln!(f, "Choose one with --uki NAME to see what is in it."),
            None => writeln!(f, "No UKI in it."),
        }
    }
}

fn uki_text(f: &mut Page, p: Paint, u: &UkiReport) -> fmt::Result {
    let mut line = |name: &str, value: Option<&str>| match value {
        Some(value) => f.wrapped(format_args!("{name:14} "), value),
        None => Ok(()),
    };
    line("family", Some(u.family.name()))?;
    line("system", u.os.as_deref())?;
    line("version", u.version.as_deref())?;
    line("architecture", u.arch.map(|a| a.name()))?;
    line("kernel", u.kernel.as_deref())?;
    line("stub", u.stub.as_deref())?;
    line("schematic", u.schematic.as_deref())?;
    for e in &u.extensions {
        line("extension", Some(&format!("{} {}", e.name, e.version)))?;
    }
    for service in &u.waiting_services {
        line("waits", Some(&crate::verify::waits(service)))?;
    }
    for c in u.companions.iter().flatten() {
        line(if c.passed_over.is_some() { "passed over" } else { "beside it" }, Some(&companion(c)))?;
    }
    line("initrd", Some(&u.initrd))?;
    if u.signers.is_empty() {
        line("signed by", Some("nobody"))?;
    }
    for s in &u.signers {
        line("signed by", Some(s))?;
    }
    line("PCR key", u.pcr_key.as_deref())?;
    line("sha256", Some(&u.sha256))?;
    line("authenticode", u.authenticode_sha256.as_deref())?;
    for profile in &u.profiles {
        let id = profile.id.as_deref().unwrap_or("-");
        let title = profile.title.as_ref().map_or(String::new(), |t| format!(" {t:?}"));
        writeln!(f, "profile {} {}{title}", profile.index, p.strong(id))?;
        writeln!(f, "  command line   {}", profile.cmdline.as_deref().unwrap_or("(none)"))?;
        if let Some(line) = &profile.cmdline_with_addons {
            writeln!(f, "  with addons    {line}")?;
        }
        if profile.halts_if_installed {
            writeln!(f, "  {}", p.bad("stops on an installed node (talos.halt_if_installed)"))?;
        }
        if let Some(what) = &profile.wipes {
            writeln!(f, "  {}", p.bad(format!("wipes: {what}")))?;
        }
        if let Some(value) = &profile.pcr11_sections {
            writeln!(f, "  PCR 11         {value}")?;
        }
        for (word, value) in &profile.pcr11_phases {
            writeln!(f, "  {word:14} {value}")?;
        }
        writeln!(f, "  PCR signature  {}", profile.pcr_signature)?;
    }
    writeln!(f, "{}", p.faint("sections"))?;
    for s in &u.sections {
        writeln!(f, "  {:10} {:>12}  at {}", s.name, size(u64::from(s.bytes)), s.offset)?;
    }
    for problem in &u.problems {
        writeln!(f, "{} {problem}", p.bad("!"))?;
    }
    service_configs(f, p, &u.waiting_services)
}

/// `loader/addons/console.addon.efi (addon, signed by nobody): "console=ttyS0"`.
fn companion(c: &CompanionReport) -> String {
    let mut text = format!("{} ({}", c.path, c.kind);
    if c.kind == CompanionKind::Addon {
        let signers = if c.signers.is_empty() { "nobody".to_owned() } else { c.signers.join(" and ") };
        text.push_str(&format!(", signed by {signers}"));
    }
    text.push(')');
    match (&c.passed_over, &c.cmdline) {
        (Some(why), _) => text.push_str(&format!(": {why}")),
        (None, Some(line)) => text.push_str(&format!(": {line:?}")),
        (None, None) if !c.adds.is_empty() => text.push_str(&format!(": {}", c.adds.join(", "))),
        (None, None) => {}
    }
    text
}

impl Render for DiffReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        if self.identical {
            writeln!(f, "{}: the same image, byte for byte", p.good("identical"))?;
            return board::difference(f, p, &self.board);
        }
        if self.changes.is_empty() {
            writeln!(f, "the bytes differ, and nothing that is looked at")?;
        }
        for c in &self.changes {
            let side = |x: &Option<String>| x.clone().unwrap_or_else(|| "-".into());
            writeln!(
                f,
                "{}\n  {} {}\n  {} {}",
                p.strong(&c.what),
                p.bad("-"),
                side(&c.old),
                p.good("+"),
                side(&c.new)
            )?;
        }
        board::difference(f, p, &self.board)?;
        self.extension_loss.as_ref().map_or(Ok(()), |loss| lost(f, p, loss))
    }
}
