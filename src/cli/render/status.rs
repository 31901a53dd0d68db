//! `status` for people: the ESP, its files with the parts they play, the menu as it will be drawn.

use super::{Paint, Render, size};
use crate::command::{FileReport, StatusReport};
use crate::esp::FileKind;
use std::fmt::{self, Write};

/// Width of the bar that shows how full the ESP is.
const BAR: u64 = 32;

impl Render for StatusReport {
    fn text(&self, f: &mut dyn Write, p: Paint) -> fmt::Result {
        let d = &self.disk;
        match &d.partition {
            Some(part) => writeln!(
                f,
                "{}  partition {} {:?}, {} bytes per sector",
                p.strong(&d.path),
                part.number,
                part.label,
                d.sector_size
            )?,
            None => writeln!(f, "{}  {} bytes per sector", p.strong(&d.path), d.sector_size)?,
        }
        let e = &self.esp;
        let used = e.total_bytes - e.free_bytes;
        let filled = (used * BAR).checked_div(e.total_bytes).unwrap_or(0);
        let bar: String = (0..BAR).map(|i| if i < filled { '#' } else { '.' }).collect();
        let state = if e.healthy { p.good("healthy") } else { p.bad("not healthy") };
        writeln!(f, "ESP   {} [{bar}] {} of {} free, {state}", e.fat.name(), size(e.free_bytes), size(e.total_bytes))?;
        for problem in &e.problems {
            writeln!(f, "      {} {problem}", p.bad("!"))?;
        }
        for note in &e.notes {
            writeln!(f, "      {} {note}", p.faint("note:"))?;
        }
        match &self.loader {
            Some(l) => {
                let what = l.systemd_boot.as_ref().map_or("not a systemd-boot that is known".to_owned(), Clone::clone);
                writeln!(f, "Boot  {}, {what}", l.path)?;
            }
            None => writeln!(f, "Boot  {}", p.bad("no boot loader in EFI/BOOT: the firmware finds nothing to start"))?,
        }
        if let Some(interrupted) = &self.interrupted {
            writeln!(f, "\n{} {interrupted}\n      run `bootsurgeon recover {}`", p.bad("!"), d.path)?;
        }

        writeln!(f, "\n{}", p.strong("EFI/Linux"))?;
        if self.files.is_empty() {
            writeln!(f, "  no files")?;
        }
        let width = self.files.iter().map(|x| x.name.len()).max().unwrap_or(0);
        for file in &self.files {
            writeln!(f, "  {:width$}  {:>10}  {}", file.name, size(u64::from(file.bytes)), self.parts(file, p))?;
        }

        writeln!(f, "\n{}", p.strong("Boot menu"))?;
        if self.boot.entries.is_empty() {
            writeln!(f, "  empty")?;
        }
        for (i, entry) in self.boot.entries.iter().enumerate() {
            let arrow = if self.boot.roles.selected == Some(i) { p.good("->") } else { "  ".into() };
            let danger = entry.danger.as_ref().map_or(String::new(), |d| format!("  {}", p.bad(d)));
            writeln!(f, "{arrow} {}  {}{danger}", entry.title, p.faint(&entry.id))?;
        }
        match &self.boot.selected {
            Some(name) => writeln!(f, "\nStarts {}: {}", p.good(name), self.boot.reason)?,
            None => writeln!(f, "\n{}: {}", p.bad("Starts nothing"), self.boot.reason)?,
        }
        if self.boot.selected_without_variables != self.boot.selected {
            writeln!(
                f,
                "Without EFI variables (NVRAM reset) it would start {}",
                p.warn(self.boot.selected_without_variables.as_deref().unwrap_or("nothing"))
            )?;
        }
        for warning in &self.warnings {
            writeln!(f, "{} {warning}", p.warn("warning:"))?;
        }
        if self.files.iter().any(|x| x.duplicate_of.is_some()) {
            writeln!(f, "\n`bootsurgeon prune {}` takes the duplicates out of the menu.", d.path)?;
        }
        Ok(())
    }
}

impl StatusReport {
    /// The parts a file plays, in words.
    fn parts(&self, file: &FileReport, p: Paint) -> String {
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
            words.push(p.strong("running"));
        }
        if role(self.boot.roles.fallback) {
            words.push("fallback".into());
        }
        if let Some(original) = &file.duplicate_of {
            words.push(p.warn(format!("duplicate of {original}")));
        }
        match file.kind {
            FileKind::Backup => words.push("backup".into()),
            FileKind::Disabled => words.push("disabled".into()),
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
