//! `doctor` for people: problem, meaning, next command; then the facts behind them.

use super::bar::bar;
use super::{Page, Paint, Render};
use crate::bootpath::BootOptions;
use crate::command::DoctorReport;
use crate::doctor::{Finding, FirmwareFacts, SetVariable, Severity};
use crate::efivars::OriginKind;
use crate::units::{count, size};
use std::fmt;

impl Render for DoctorReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        if let Some(firmware) = &self.firmware {
            facts(f, p, firmware)?;
        }
        if !self.variables.is_empty() {
            writeln!(f)?;
            writeln!(f, "{}", p.strong("Loader and stub variables"))?;
            let width = self.variables.iter().map(|v| v.name.len()).max().unwrap_or(0);
            for v in &self.variables {
                let lasting = if v.non_volatile { "kept" } else { "this start" };
                let mark = if v.problem.is_some() { p.warn("!") } else { " ".to_owned() };
                let meaning = p.faint(format!("({lasting}; {})", v.meaning));
                f.wrapped(format_args!("{mark} {:width$}  ", v.name), &format!("{}  {meaning}", v.value))?;
            }
        }
        options(f, p, &self.boot_options)?;
        if let Some(sentence) = &self.firmware_starts {
            writeln!(f)?;
            f.wrapped(format_args!("{} ", p.strong("The firmware starts")), sentence)?;
        }
        if !self.esps.is_empty() {
            writeln!(f)?;
            writeln!(f, "{}", p.strong("EFI System Partitions"))?;
        }
        for esp in &self.esps {
            let part =
                esp.disk.partition.as_ref().map_or(String::new(), |x| format!(" partition {} {:?}", x.number, x.label));
            let e = &esp.esp;
            let loader = esp
                .loader
                .as_ref()
                .map_or("no boot loader", |l| l.systemd_boot.as_deref().unwrap_or("another boot loader"));
            let starts = format!("starts {}", esp.boot.starts);
            writeln!(f, "  {}{part}", esp.disk.path)?;
            let text = format!(
                "{} {} {} of {} free; {loader}; {} in EFI/Linux, {starts}",
                e.fat.name(),
                bar(e.total_bytes, e.free_bytes),
                size(e.free_bytes),
                size(e.total_bytes),
                count(esp.files.len(), "file"),
            );
            f.wrapped(format_args!("    "), &text)?;
        }
        if self.firmware.is_some() {
            writeln!(f)?;
            writeln!(f, "{}", p.strong("Findings"))?;
        }
        findings(f, p, &self.findings, true)?;
        if self.firmware.is_none() {
            return Ok(()); // a line of text was explained, and nothing was looked at
        }
        let of = |s| self.findings.iter().filter(|x| x.severity == s).count();
        let (problems, warnings) = (of(Severity::Problem), of(Severity::Warning));
        writeln!(f)?;
        match self.worst {
            Severity::Problem => {
                writeln!(f, "{}, {}.", p.bad(count(problems, "problem")), count(warnings, "warning"))
            }
            Severity::Warning => writeln!(f, "No problem, {}.", p.warn(count(warnings, "warning"))),
            Severity::Note | Severity::Ok => writeln!(f, "{}", p.good("Nothing is wrong.")),
        }
    }
}

fn facts(f: &mut Page, p: Paint, firmware: &FirmwareFacts) -> fmt::Result {
    writeln!(f, "{}", p.strong("Firmware"))?;
    if let Some(name) = &firmware.firmware {
        writeln!(f, "  firmware      {name}")?;
    }
    let mode = match (firmware.secure_boot, firmware.setup_mode, firmware.deployed_mode) {
        (None, ..) => "not known".to_owned(),
        (Some(true), _, Some(true)) => p.good("on, deployed mode"),
        (Some(true), ..) => p.good("on, user mode"),
        (Some(false), Some(true), _) => "off, setup mode".to_owned(),
        (Some(false), ..) => "off".to_owned(),
    };
    let audit = if firmware.audit_mode == Some(true) { ", audit mode" } else { "" };
    writeln!(f, "  Secure Boot   {mode}{audit}")?;
    match (&firmware.directory, &firmware.unavailable) {
        (None, None) => writeln!(f, "  variables     {}", firmware.variables.place.as_deref().unwrap_or_default())?,
        (Some(dir), _) => {
            let mount = match &firmware.mount {
                Some(m) if m.read_only => format!(", efivarfs {}", p.warn("mounted read-only")),
                Some(_) => ", efivarfs mounted read-write".to_owned(),
                None => String::new(),
            };
            writeln!(f, "  variables     {dir}{mount}")?;
            if matches!(firmware.variables.kind, OriginKind::UBoot | OriginKind::Edk2) {
                writeln!(f, "  next start    goes by {}", firmware.variables.place.as_deref().unwrap_or_default())?;
            }
        }
        (None, why) => {
            writeln!(f, "  variables     {}", p.warn(format!("none: {}", why.as_deref().unwrap_or("not asked for"))))?;
        }
    }
    let set = match firmware.set_variable {
        SetVariable::Unsupported => p.bad("no: the firmware does not support it"),
        SetVariable::Failed => p.bad("tried, and the firmware failed"),
        SetVariable::ReadOnly => p.warn("not through this mount"),
        SetVariable::Volatile => p.warn("in memory only, lost at the next start"),
        SetVariable::Worked => p.good("has worked"),
        SetVariable::Unknown => "cannot be told by reading".to_owned(),
        SetVariable::NoVariables => "there are none".to_owned(),
    };
    writeln!(f, "  can be set    {set}")
}

fn options(f: &mut Page, p: Paint, all: &BootOptions) -> fmt::Result {
    if all.options.is_empty() {
        return Ok(());
    }
    writeln!(f)?;
    writeln!(f, "{}", p.strong("Boot options, in BootOrder"))?;
    for o in &all.options {
        let mut words = Vec::new();
        if all.current == Some(o.number) {
            words.push("started last".to_owned());
        }
        if all.next == Some(o.number) {
            words.push(p.warn("next boot only"));
        }
        if o.place.is_none() {
            words.push("not in BootOrder".to_owned());
        }
        if !o.active {
            words.push("inactive".to_owned());
        }
        words.extend(o.problem.as_ref().map(|why| p.warn(why)));
        let mark = if o.problem.is_some() { p.warn("!") } else { " ".to_owned() };
        let words = if words.is_empty() { String::new() } else { format!("  [{}]", words.join(", ")) };
        let text = format!("{}  {}{words}", o.description, p.faint(&o.target.path));
        f.wrapped(format_args!("{mark} {} ", o.name), &text)?;
    }
    Ok(())
}

/// Findings in the order given. `all`: notes and what is in order, too.
pub(super) fn findings(f: &mut Page, p: Paint, list: &[Finding], all: bool) -> fmt::Result {
    for x in list.iter().filter(|x| all || x.severity <= Severity::Warning) {
        let (word, plain) = match x.severity {
            Severity::Problem => (p.bad("problem"), "problem"),
            Severity::Warning => (p.warn("warning"), "warning"),
            Severity::Note => (p.faint("note"), "note"),
            Severity::Ok => (p.good("ok"), "ok"),
        };
        let subject = x.subject.as_ref().map_or(String::new(), |s| format!("{s}: "));
        let pad = " ".repeat("problem".len().saturating_sub(plain.len()));
        f.wrapped(format_args!("  {word}{pad}  "), &format!("{subject}{}", x.what))?;
        // What is in order needs no explanation, but for why it starts.
        if x.severity != Severity::Ok || x.id == "starts" {
            f.wrapped(format_args!("           "), &x.meaning)?;
        }
        if let Some(action) = &x.action {
            f.wrapped(format_args!("           {} ", p.strong("->")), action)?;
        }
    }
    Ok(())
}
