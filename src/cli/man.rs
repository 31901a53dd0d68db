//! The manual pages: clap_mangen's description of the options, and around it what a page has beside that.

use super::help::{command, sections};
use crate::Context;
use crate::Result;
use crate::block::{check_free, write_whole};
use crate::sorting::Sort as _;
use clap::{Arg, ArgAction, Command};
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use std::path::Path;

/// Writes the manual pages, of all commands or of none.
pub(super) fn write(dir: &Path, force: bool) -> Result<()> {
    let pages: Vec<_> = pages()?.into_iter().map(|(name, text)| (dir.join(name), text)).collect();
    for (path, _) in &pages {
        check_free(path, force).while_doing(|| path.display().to_string())?;
    }
    pages.iter().try_for_each(|(path, text)| write_whole(path, text.as_bytes(), force))
}

/// Names of files and what stands in them.
fn pages() -> Result<Vec<(String, String)>> {
    let mut top = command().disable_help_subcommand(true);
    top.build();
    let mut names = Vec::new();
    collect(&top, "", &mut |command, _| names.push(name(command)));
    let mut pages = Vec::new();
    let mut failed = None;
    collect(&top, "", &mut |command, path| match page(command, path, &names) {
        Ok(text) => pages.push((format!("{}.1", name(command)), text)),
        Err(e) => failed = Some(e),
    });
    match failed {
        Some(e) => Err(e.into()),
        None => Ok(pages),
    }
}

fn collect(command: &Command, path: &str, each: &mut dyn FnMut(&Command, &str)) {
    each(command, path);
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        collect(sub, format!("{path} {}", sub.get_name()).trim_start(), each);
    }
}

/// `bootsurgeon-schematic-id`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: &Command, path: &str, names: &[String]) -> std::io::Result<String> {
    // Options of every command are described in its own page too: a reader of one page needs no second.
    let man = clap_mangen::Man::new(command.clone()).source(format!("bootsurgeon {}", env!("CARGO_PKG_VERSION")));
    let man = man.manual("bootsurgeon");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis(command).to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    for section in sections(command, path) {
        rest.control("SH", [section.heading]);
        for (term, meaning) in section.items {
            rest.control("TP", []);
            rest.text([bold(term)]);
            rest.text([roman(meaning)]);
        }
    }
    rest.control("SH", ["SEE ALSO"]);
    rest.text(see_also(&name(command), names));
    rest.to_writer(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // Each part begins with the same definitions, and a page needs them once.
    let preamble = Roff::new().render();
    Ok(format!("{preamble}{}", text.replace(&preamble, "")))
}

/// A line per way to call it where there are several; each option with its value.
fn synopsis(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    let bin = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let forms = command.get_overridden_usage().map(ToString::to_string).unwrap_or_default();
    for form in forms.lines().map(str::trim).filter(|l| !l.is_empty()) {
        roff.text([bold(bin), roman(form.strip_prefix(bin).unwrap_or(form))]);
        roff.control("br", []);
    }
    if !forms.is_empty() {
        roff.control("PP", []);
    }
    let mut line = vec![bold(bin)];
    let mut options: Vec<&Arg> = command.get_opts().filter(|a| !a.is_hide_set()).collect();
    options.extend(command.get_arguments().filter(|a| is_flag(a) && !a.is_hide_set()));
    options.put_in_order_by(|arg| (!arg.is_required_set(), arg.is_global_set()));
    for arg in options {
        let Some(long) = arg.get_long() else { continue };
        let (before, after) = if arg.is_required_set() { (" ", "") } else { (" [", "]") };
        line.extend([roman(before), bold(format!("--{long}"))]);
        if let Some(names) = arg.get_value_names().filter(|_| !is_flag(arg)) {
            line.extend([roman(" "), italic(names.join(" "))]);
        }
        line.push(roman(after));
    }
    for arg in command.get_positionals() {
        let (before, after) = if arg.is_required_set() { (" ", "") } else { (" [", "]") };
        let name = arg.get_value_names().map_or_else(|| arg.get_id().to_string(), |names| names.join(" "));
        line.extend([roman(before), italic(name), roman(after)]);
    }
    if command.has_subcommands() {
        line.extend([roman(" "), italic("COMMAND")]);
    }
    roff.text(line);
    roff
}

/// Whether it takes no value.
fn is_flag(arg: &Arg) -> bool {
    !arg.is_positional() && !matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// The other pages, and what the terms in them come from.
fn see_also(own: &str, names: &[String]) -> Vec<Inline> {
    let ours = names.iter().filter(|n| *n != own).map(|n| (n.as_str(), "1"));
    let others = [
        ("bootctl", "1"),
        ("ukify", "1"),
        ("sbverify", "1"),
        ("systemd-boot", "7"),
        ("systemd-stub", "7"),
        ("fsck.fat", "8"),
    ];
    let mut line = Vec::new();
    for (name, section) in ours.chain(others) {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(name), roman(format!("({section})"))]);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_sections_of_a_page() {
        let pages = pages().unwrap();
        for (name, text) in &pages {
            for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "EXIT STATUS", "ENVIRONMENT", "SEE ALSO"] {
                // A command that only has commands has no examples of its own.
                let group =
                    ["bootsurgeon-schematic.1", "bootsurgeon-config.1", "bootsurgeon-pod.1"].contains(&name.as_str());
                let has = text.lines().any(|l| l == format!(".SH {heading}") || l == format!(".SH \"{heading}\""));
                assert!(has || group, "{name} has no {heading}:\n{text}");
            }
            assert!(!text.contains("EXTRA"), "{name}");
        }
        let swap = &pages.iter().find(|(name, _)| name == "bootsurgeon-swap.1").unwrap().1;
        assert!(swap.contains("\\-\\-partition\\fR \\fIN|LABEL|PARTUUID") && swap.contains(".SH FILES"), "{swap}");
    }
}
