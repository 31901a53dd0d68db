//! `doctor` for people: problem, meaning, next command; then the facts behind them.

use super::status::bar;
use super::{Page, Paint, Render, size};
use crate::bootpath::BootOptions;
use crate::command::DoctorReport;
use crate::doctor::{Finding, FirmwareFacts, SetVariable, Severity};
use crate::efivars::OriginKind;
use std::fmt;

/// Columns that running text is broken at.
const WIDTH: usize = 100;

impl Render for DoctorReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        let several = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
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
                writeln!(f, "{mark} {:width$}  {}  {meaning}", v.name, v.value)?;
            }
        }
        options(f, p, &self.boot_options)?;
        if let Some(sentence) = &self.firmware_starts {
            writeln!(f)?;
            writeln!(f, "{} {sentence}", p.strong("The firmware starts"))?;
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
            writeln!(
                f,
                "    {} {} {} of {} free; {loader}; {} in EFI/Linux, {starts}",
                e.fat.name(),
                bar(e.total_bytes, e.free_bytes),
                size(e.free_bytes),
                size(e.total_bytes),
                several(esp.files.len(), "file"),
            )?;
        }
        if self.firmware.is_some() {
            writeln!(f)?;
            writeln!(f, "{}", p.strong("Findings"))?;
        }
        findings(f, p, &self.findings, true)?;
        if self.firmware.is_none() {
            return Ok(()); // a line of text was explained, and nothing was looked at
        }
        let count = |s| self.findings.iter().filter(|x| x.severity == s).count();
        let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
        writeln!(f)?;
        match self.worst {
            Severity::Problem => {
                writeln!(f, "{}, {}.", p.bad(several(problems, "problem")), several(warnings, "warning"))
            }
            Severity::Warning => writeln!(f, "No problem, {}.", p.warn(several(warnings, "warning"))),
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
        writeln!(f, "{mark} {} {}  {}{words}", o.name, o.description, p.faint(&o.target.path))?;
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
        write!(f, "  {word}{pad}  ")?;
        wrapped(f, &format!("{subject}{}", x.what), 11)?;
        // What is in order needs no explanation, but for why it starts.
        if x.severity != Severity::Ok || x.id == "starts" {
            write!(f, "           ")?;
            wrapped(f, &x.meaning, 11)?;
        }
        if let Some(action) = &x.action {
            write!(f, "           {} ", p.strong("->"))?;
            wrapped(f, action, 14)?;
        }
    }
    Ok(())
}

/// Text broken at blanks, but never inside a command in backticks: those are for copying.
fn wrapped(f: &mut Page, text: &str, indent: usize) -> fmt::Result {
    let mut column = indent;
    for (i, word) in words(text).enumerate() {
        let width = word.chars().count();
        if i > 0 && column + 1 + width > WIDTH {
            writeln!(f)?;
            write!(f, "{:indent$}", "")?;
            column = indent;
        } else if i > 0 {
            write!(f, " ")?;
            column += 1;
        }
        write!(f, "{word}")?;
        column += width;
    }
    writeln!(f)
}

/// Words at blanks; what stands in backticks is one word with whatever touches it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut in_command = false;
    text.split(move |c: char| {
        in_command ^= c == '`';
        c == ' ' && !in_command
    })
    .filter(|w| !w.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_never_broken() {
        let mut page = Page::new(true);
        let long = "x".repeat(60);
        wrapped(&mut page, &format!("{long} `swap disk.img disk.img --uki name of file`, or"), 4).unwrap();
        assert_eq!(page.finish(), format!("{long}\n    `swap disk.img disk.img --uki name of file`, or\n"));
        assert_eq!(words("a  `b c`, d").collect::<Vec<_>>(), ["a", "`b c`,", "d"]);
        assert_eq!(words("it's `open to the end").collect::<Vec<_>>(), ["it's", "`open to the end"]);
    }
}
