//! `status` for people: the ESP, its files with the parts they play, the menu as it will be drawn.

use super::bar::bar;
use super::doctor::findings;
use super::{Page, Paint, Render, board, way};
use crate::boot::MenuMode;
use crate::bootpath::{Certainty, StepKind, WayStep};
use crate::command::{EntryReport, FileReport, LoaderReport, StatusReport};
use crate::doctor::Severity;
use crate::efivars::OriginKind;
use crate::esp::{BackupName, FileKind};
use crate::units::size;
use std::fmt;

impl Render for StatusReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        let d = &self.disk;
        let packed = d.packed.map_or(String::new(), |packing| format!(", an image packed with {packing}"));
        match &d.partition {
            Some(part) => writeln!(
                f,
                "{}  partition {} {:?}, {} bytes per sector{packed}",
                p.strong(&d.path),
                part.number,
                part.label,
                d.sector_size
            )?,
            None => writeln!(f, "{}  {} bytes per sector{packed}", p.strong(&d.path), d.sector_size)?,
        }
        let e = &self.esp;
        let state = if e.healthy { p.good("healthy") } else { p.bad("not healthy") };
        let (free, total) = (size(e.free_bytes), size(e.total_bytes));
        writeln!(f, "ESP   {} {} {free} of {total} free, {state}", e.fat.name(), bar(e.total_bytes, e.free_bytes))?;
        for note in &e.notes {
            f.wrapped(format_args!("      {} ", p.faint("note:")), note)?;
        }
        f.wrapped(format_args!("Boot  "), &self.way_in_short(p))?;
        if let (OriginKind::UBoot | OriginKind::Edk2, Some(place)) = (self.variables.kind, &self.variables.place) {
            f.wrapped(format_args!("Vars  "), &format!("{place}: {}", self.variables.why))?;
        }
        if self.loaders.iter().any(|one| self.loaders.first().is_some_and(|l| l.systemd_boot != one.systemd_boot)) {
            let one = |l: &LoaderReport| format!("{} {}", l.path, l.systemd_boot.as_deref().unwrap_or("is broken"));
            let all: Vec<String> = self.loaders.iter().map(one).collect();
            f.wrapped(format_args!("      {} ", p.warn("boot loaders:")), &all.join(", "))?;
        }
        writeln!(f)?;
        writeln!(f, "{}", p.strong("EFI/Linux"))?;
        if self.files.is_empty() {
            writeln!(f, "  no files")?;
        }
        let width = self.files.iter().map(|x| x.name.len()).max().unwrap_or(0);
        for file in &self.files {
            let bytes = size(u64::from(file.bytes));
            f.wrapped(format_args!("  {:width$}  {bytes:>10}  ", file.name), &self.parts(file, p))?;
        }

        if !self.examined {
            let said = "headers alone were read: hashes, schematics, extensions and their services are not known";
            writeln!(f, "  {}", p.faint(said))?;
        }
        if !self.elsewhere.is_empty() {
            writeln!(f)?;
            writeln!(f, "{}", p.strong("Elsewhere"))?;
        }
        let width = self.elsewhere.iter().map(|x| x.name.len()).max().unwrap_or(0);
        for (n, file) in self.elsewhere.iter().enumerate() {
            let version = file.version.as_deref().unwrap_or("?");
            let part = match (n, file.kind) {
                (0, _) => p.good("starts, and is what a swap replaces"),
                (_, FileKind::Backup) => "backup".to_owned(),
                _ => p.faint("disabled"),
            };
            writeln!(f, "  {:width$}  {:>10}  {version}, {part}", file.name, size(u64::from(file.bytes)))?;
        }

        if !self.companions.is_empty() {
            writeln!(f)?;
            writeln!(f, "{}  {}", p.strong("Beside the images"), p.faint("systemd's stub adds these to them"))?;
        }
        for c in &self.companions {
            let whose = match (&c.trouble, c.added_to.as_slice(), &c.image) {
                (Some(why), ..) => p.warn(format!("passed over: {why}")),
                (None, [], Some(image)) => p.warn(format!("added to nothing: for {image}")),
                (None, [], None) => p.warn("added to nothing".to_owned()),
                (None, names, _) => format!("added to {}", names.join(", ")),
            };
            let line = c.cmdline.as_ref().map_or(String::new(), |line| format!(": {line:?}"));
            let bytes = size(u64::from(c.bytes));
            f.wrapped(format_args!("  {}  {bytes:>10}  ", c.path), &format!("{}, {whose}{line}", c.kind))?;
        }

        board::status(f, p, self)?;
        let mode = match self.boot.mode {
            MenuMode::Hidden => "not drawn unless a key is held; the line with -> starts at once".to_owned(),
            MenuMode::Disabled => "not drawn; the line with -> starts at once".to_owned(),
            MenuMode::Countdown(seconds) => format!("the line with -> starts after {seconds} s"),
            MenuMode::Waits => "it waits until somebody presses a key".to_owned(),
        };
        let mode = match (self.boot.entries.is_empty(), self.boot.is_on_the_way) {
            (true, _) => String::new(),
            (false, true) => format!("  {}", p.faint(mode)),
            (false, false) => format!("  {}", p.warn("not on the way of the boot: what systemd-boot would show here")),
        };
        writeln!(f)?;
        writeln!(f, "{}{mode}", p.strong("Boot menu"))?;
        if self.boot.entries.is_empty() {
            writeln!(f, "  empty")?;
        }
        let width = self.boot.entries.iter().map(|e| e.title.chars().count()).max().unwrap_or(0);
        for (i, entry) in self.boot.entries.iter().enumerate() {
            let arrow = if self.boot.roles.selected == Some(i) { p.good("->") } else { "  ".into() };
            f.wrapped(format_args!("{arrow} {}  ", pad(&entry.title, width)), &self.entry_parts(i, entry, p))?;
        }
        writeln!(f)?;
        match &self.boot.selected {
            Some(name) => f.wrapped(format_args!("Starts "), &format!("{}: {}", p.good(name), self.boot.reason))?,
            None => {
                f.wrapped(format_args!("{}: ", p.bad(format!("Starts {}", self.boot.starts))), &self.boot.reason)?;
            }
        }
        if !self.is_ordinary() {
            self.way_step_by_step(f, p)?;
        }
        if self.boot.selected_without_variables != self.boot.selected {
            writeln!(
                f,
                "Without EFI variables (NVRAM reset) it would start {}",
                p.warn(self.boot.selected_without_variables.as_deref().unwrap_or("nothing"))
            )?;
        }
        for warning in &self.warnings {
            f.wrapped(format_args!("{} ", p.warn("warning:")), warning)?;
        }
        if self.findings.iter().any(|x| x.severity <= Severity::Warning) {
            writeln!(f)?;
            writeln!(f, "{}", p.strong("What to do"))?;
            findings(f, p, &self.findings, false)?;
        }
        Ok(())
    }
}

impl StatusReport {
    /// Nothing about the way of the boot is worth more than a line: firmware, systemd-boot, an image in `EFI/Linux`.
    fn is_ordinary(&self) -> bool {
        let kinds: Vec<StepKind> = self.way.iter().map(|s| s.step).collect();
        let plain = [StepKind::Firmware, StepKind::Program, StepKind::Menu, StepKind::Image, StepKind::Kernel];
        let in_linux = |s: &WayStep| s.place.as_deref().is_some_and(|place| place.starts_with("EFI/Linux/"));
        kinds == plain
            && self.way_notes.is_empty()
            && self.way.iter().all(|s| s.certainty != Certainty::Unknown)
            && self.way.iter().filter(|s| s.step == StepKind::Image).all(in_linux)
    }

    /// `firmware -> systemd-boot 257.9 (EFI/BOOT/BOOTAA64.EFI) -> Talos-v1.12.4.efi`
    fn way_in_short(&self, p: Paint) -> String {
        let mut words = vec!["firmware".to_owned()];
        for step in &self.way {
            match (step.step, &step.place) {
                (StepKind::Program, Some(place)) => {
                    let path = place.split_once(" on ").map_or(place.as_str(), |(path, _)| path);
                    words.push(format!("{} ({path})", step.what));
                }
                (StepKind::Program | StepKind::Image, _) => words.push(step.what.clone()),
                (StepKind::Firmware | StepKind::Menu | StepKind::Kernel, _) => {}
            }
        }
        match self.way.last().map(|s| s.step) {
            Some(StepKind::Kernel | StepKind::Image) => {}
            _ => words.push(p.bad(&self.boot.starts)),
        }
        words.join(" -> ")
    }

    fn way_step_by_step(&self, f: &mut Page, p: Paint) -> fmt::Result {
        writeln!(f)?;
        writeln!(f, "{}", p.strong("Way of the boot"))?;
        for step in &self.way {
            let kind = way::kind(step);
            let place = step.place.as_ref().map_or(String::new(), |place| format!(", {place}"));
            let what = format!("{}{place}", step.what);
            let what = if step.certainty == Certainty::Unknown { p.warn(what) } else { what };
            f.wrapped(format_args!("  {kind:8}  "), &what)?;
            let sure = way::certainty(step);
            f.wrapped(format_args!("            "), &p.faint(format!("{sure}{}", step.why)))?;
        }
        for note in &self.way_notes {
            f.wrapped(format_args!("  {} ", p.warn("note:")), note)?;
        }
        Ok(())
    }

    /// The parts a line of the menu plays, in words; its id where the title does not show it.
    pub(super) fn entry_parts(&self, i: usize, entry: &EntryReport, p: Paint) -> String {
        let roles = &self.boot.roles;
        let mut words = Vec::new();
        if roles.selected == Some(i) {
            words.push(p.good("starts next"));
        }
        if roles.running == Some(i) {
            words.push(p.strong(self.running(entry.file.as_deref().unwrap_or_default())));
        }
        if roles.fallback == Some(i) {
            words.push("fallback".to_owned());
        }
        words.extend(entry.danger.as_ref().map(|d| p.bad(d)));
        if !entry.title.contains(&entry.id) {
            words.push(p.faint(&entry.id));
        }
        words.join(", ")
    }

    /// The variables name what was started, and a swap may have changed what has that name.
    fn running(&self, file: &str) -> &'static str {
        let backed_up = |x: &FileReport| {
            BackupName::parse(&x.name).is_some_and(|b| !b.disabled && b.original.eq_ignore_ascii_case(file))
        };
        if self.files.iter().any(backed_up) { "started last under this name" } else { "running" }
    }

    /// The parts a file plays, in words.
    pub(super) fn parts(&self, file: &FileReport, p: Paint) -> String {
        let mut words = Vec::new();
        let role = |i: Option<usize>| {
            i.and_then(|i| self.boot.entries.get(i)).and_then(|e| e.file.as_deref()) == Some(&file.name)
        };
        if let Some(version) = &file.version {
            words.push(format!("{version} {}", file.arch.map_or("", |a| a.name())));
        }
        if role(self.boot.roles.selected) {
            words.push(p.good("starts next"));
        }
        if self.boot.roles.running_file.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(&file.name)) {
            words.push(p.strong(self.running(&file.name)));
        }
        if role(self.boot.roles.fallback) {
            words.push("fallback".into());
        }
        if let Some(original) = &file.duplicate_of {
            words.push(p.warn(format!("duplicate of {original}")));
        }
        match file.kind {
            FileKind::Backup => words.push(aside("backup", &file.name)),
            FileKind::Disabled => words.push(aside("disabled", &file.name)),
            FileKind::Broken => {
                words.push(p.bad(format!("broken: {}", file.trouble.as_deref().unwrap_or("would not start"))));
            }
            FileKind::Other => words.push("not in the menu".into()),
            FileKind::Uki => {}
        }
        if let Some(schematic) = &file.schematic {
            words.push(p.faint(format!("schematic {}", schematic.get(..8).unwrap_or(schematic))));
        }
        words.join(", ")
    }
}

/// `backup of Talos-v1.12.4.efi, replaced 2026-02-13T16:26:40Z`.
fn aside(what: &str, name: &str) -> String {
    let Some(parsed) = BackupName::parse(name) else { return what.to_owned() };
    // The last second that RFC 3339 can write.
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(parsed.time.min(253_402_300_799));
    let since = humantime::format_rfc3339_seconds(at);
    if parsed.disabled {
        format!("{what} since {since}")
    } else {
        format!("{what} of {} since {since}", parsed.original)
    }
}

/// Blanks behind a text up to a width in characters.
fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.chars().count())))
}
