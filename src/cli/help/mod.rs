//! What help and manual pages say beyond the list of options: headings, usage, examples, exit codes.
//!
//! One table (`table`), so that a command's help, its manual page and its completions cannot say different things. Every example
//! is parsed by a test, and those on files are run on fixtures.

mod table;

use super::args::{Cli, FACTORY};
use clap::{Arg, ArgAction, Command, CommandFactory, ValueHint};
use std::fmt::Write;
use std::sync::OnceLock;
use table::{Ends, Entry, find};

/// Heading of the options that every command has.
const OUTPUT: &str = "Output";

/// The command line as it is parsed, with all that help and manual pages say.
pub(super) fn command() -> Command {
    let help = Arg::new("help").short('h').long("help").action(ArgAction::Help).global(true);
    let version = Arg::new("version").short('V').long("version").action(ArgAction::Version).global(true);
    let command = Cli::command()
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(help.help("Print help (--help: with more details)").help_heading(OUTPUT))
        .arg(version.help("Print the version (--version: with commit, target and features)").help_heading(OUTPUT))
        .long_version(long_version());
    dress(command, "")
}

/// Version, commit, target and features. Who builds a release says the commit.
pub(super) fn long_version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(build)
}

fn build() -> String {
    let commit = option_env!("BOOTSURGEON_COMMIT").unwrap_or("not known (no release build)");
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let features: Vec<&str> = [
        cfg!(feature = "cli").then_some("cli"),
        cfg!(feature = "net").then_some("net"),
        cfg!(feature = "demo").then_some("demo"),
        cfg!(feature = "testkit").then_some("testkit"),
    ]
    .into_iter()
    .flatten()
    .collect();
    format!(
        "{}\ncommit: {commit}\ntarget: {}-{}-{libc}{}\nfeatures: {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        if cfg!(target_feature = "crt-static") { ", static" } else { "" },
        features.join(", ")
    )
}

/// Headings, hints, usage, examples and exit codes, of a command and of those below it.
fn dress(command: Command, path: &str) -> Command {
    let command = command.mut_args(|arg| {
        let heading = heading(arg.get_id().as_str());
        let arg = match hint(&arg) {
            Some(hint) => arg.value_hint(hint),
            None => arg,
        };
        if arg.is_positional() || arg.get_help_heading().is_some() { arg } else { arg.help_heading(heading) }
    });
    let command = match find(path) {
        Some(entry) => {
            let command = match entry.usage {
                [] => command,
                forms => {
                    let forms: Vec<String> = forms.iter().map(|form| format!("bootsurgeon {form}")).collect();
                    command.override_usage(forms.join("\n       "))
                }
            };
            let before = command.get_after_help().map_or(String::new(), |text| format!("{text}\n\n"));
            command.after_help(format!("{before}{}", after(entry)))
        }
        None => command,
    };
    command.mut_subcommands(|sub| {
        let below = format!("{path} {}", sub.get_name());
        dress(sub, below.trim_start())
    })
}

/// Under which heading an option stands.
fn heading(id: &str) -> Option<&'static str> {
    Some(match id {
        "partition" | "all_members" | "efivars" | "target" | "keep_duplicates" | "keep_backups" | "delete"
        | "no_fallback" | "clear" | "list" | "salvage" | "free_lost" | "set_aside" | "forward" | "back" | "truth"
        | "root" | "from" | "no_hashes" => "Disk",
        "uki" | "with_board_files" | "overwrite" | "accept_mixture" | "installed_from" | "bytes" | "sha256"
        | "kind" | "asset" | "via" | "add_extension" | "remove_extension" | "extra_kernel_arg"
        | "remove_kernel_arg" => "Image",
        "cert"
        | "schematic"
        | "talos"
        | "arch"
        | "require_extension"
        | "allow_untrusted"
        | "require_pcr_key"
        | "installed"
        | "sbat_level"
        | "machine_config"
        | "allow_halt_if_installed"
        | "allow_downgrade"
        | "allow_extension_loss"
        | "no_extension_check" => "Trust",
        "url" | "ca" | "auth_file" | "timeout" | "retry_for" | "cache" | "offline" => "Factory",
        "dry_run" | "yes" | "out" | "force" | "backup_to" | "node" | "svg" => "Change",
        "json" | "no_progress" | "color" | "verbose" | "quiet" | "help" | "version" => OUTPUT,
        _ => return None,
    })
}

/// What a shell can offer for a value, beyond a list of values.
fn hint(arg: &Arg) -> Option<ValueHint> {
    Some(match arg.get_id().as_str() {
        "disk" | "disks" | "image" | "files" | "machine_config" | "path" | "old" | "new" | "file" | "from"
        | "installed" | "cert" | "schematic" | "ca" | "auth_file" | "out" | "backup_to" | "sbat_level" | "truth"
        | "svg" | "kubeconfig" | "binary" => ValueHint::FilePath,
        "efivars" => ValueHint::AnyPath,
        "cache" | "root" | "dir" | "keep" => ValueHint::DirPath,
        "url" => ValueHint::Url,
        "node" | "nodes" => ValueHint::Hostname,
        _ => return None,
    })
}

/// Examples and exit codes.
fn after(entry: &Entry) -> String {
    let mut text = String::from("EXAMPLES\n");
    for (line, what) in entry.examples {
        let _ = writeln!(text, "  bootsurgeon {line}\n      {what}");
    }
    text.push_str("\nEXIT STATUS\n");
    for (code, what) in exit_codes(entry.ends) {
        let _ = writeln!(text, "  {code:<3}  {what}");
    }
    text.trim_end().to_owned()
}

/// Exit codes and what they mean.
fn exit_codes(ends: Ends) -> Vec<(u8, &'static str)> {
    let done = match ends {
        Ends::Plain | Ends::Reads | Ends::Makes => "done",
        Ends::Writes => "done, or nothing to do",
        Ends::Proves => "everything held",
    };
    let failed = if matches!(ends, Ends::Proves) {
        "something did not hold, or could not be done"
    } else {
        "input, output or network failed"
    };
    let mut codes = vec![(0, done), (1, failed), (2, "wrong usage")];
    if matches!(ends, Ends::Reads | Ends::Makes | Ends::Writes) {
        codes.push((3, "rejected: malformed, untrusted, or not what was requested"));
    }
    if matches!(ends, Ends::Makes) {
        codes.push((4, "refused: the file exists, and --force was not given"));
    }
    if matches!(ends, Ends::Writes) {
        codes.push((4, "refused as unsafe: busy, unhealthy, no room, would not boot, not confirmed"));
        codes.push((5, "an earlier operation was interrupted: run `bootsurgeon recover DISK`"));
    }
    codes.push((130, "stopped by the user (Ctrl-C)"));
    codes
}

/// What a manual page says behind the options: heading and entries of term and text.
pub(super) struct Section {
    pub(super) heading: &'static str,
    pub(super) items: Vec<(String, String)>,
}

/// EXAMPLES, EXIT STATUS, ENVIRONMENT, FILES. `command`: the built one.
pub(super) fn sections(command: &Command, path: &str) -> Vec<Section> {
    let mut sections = Vec::new();
    if let Some(entry) = find(path) {
        let examples = entry.examples.iter();
        let items = examples.map(|(line, what)| (format!("bootsurgeon {line}"), (*what).to_owned())).collect();
        sections.push(Section { heading: "EXAMPLES", items });
        let items =
            exit_codes(entry.ends).into_iter().map(|(code, what)| (code.to_string(), what.to_owned())).collect();
        sections.push(Section { heading: "EXIT STATUS", items });
    }
    sections.push(Section { heading: "ENVIRONMENT", items: environment(command) });
    let files = files(command);
    if !files.is_empty() {
        sections.push(Section { heading: "FILES", items: files });
    }
    sections
}

fn has(command: &Command, id: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == id)
}

fn environment(command: &Command) -> Vec<(String, String)> {
    let item = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let mut items: Vec<(String, String)> = command
        .get_arguments()
        .filter_map(|arg| Some((arg.get_env()?.to_string_lossy().into_owned(), arg.get_long()?)))
        .map(|(name, long)| (name, format!("The value of --{long} where that is not given.")))
        .collect();
    if has(command, "ca") {
        let named = items.iter().any(|(name, _)| name == FACTORY);
        if !named {
            items.push(item(FACTORY, "The factory that the credentials below are for."));
        }
        items.push(item("BOOTSURGEON_FACTORY_TOKEN", "A token for the factory."));
        items
            .push(item("BOOTSURGEON_FACTORY_USER, BOOTSURGEON_FACTORY_PASSWORD", "User and password for the factory."));
        items.push(item("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "Proxies, as usual."));
    }
    items.push(item("COLUMNS", "The width of the output, from 80 to 200; without it the terminal's."));
    items.push(item("NO_COLOR", "Not empty: no colours."));
    items.push(item("TMPDIR", "Where images that are packed with zstd or xz are unpacked."));
    items
}

fn files(command: &Command) -> Vec<(String, String)> {
    let item = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let mut items = Vec::new();
    if has(command, "disk") || has(command, "disks") {
        items.push(item("EFI/Linux/*.efi", "On the ESP: the images of the boot menu."));
        items.push(item("EFI/Linux/NAME.bak.TIME", "A backup: what NAME was before a swap at that time."));
        items.push(item("EFI/Linux/NAME.disabled.TIME", "An image that was taken out of the boot menu."));
        items.push(item("BOOTSURG.TXN", "On the ESP: the record of an operation that is under way."));
        items.push(item(crate::efivars::DEFAULT_DIR, "The EFI variables of this machine."));
    }
    if has(command, "kind") {
        items.push(item("FILE.part, FILE.part.json", "A download that is not complete; the same command resumes it."));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::table::TABLE;
    use super::*;

    /// The leaves of the tree of commands, by path.
    fn paths(command: &Command, path: &str) -> Vec<String> {
        let below = |c: &Command| format!("{path} {}", c.get_name()).trim_start().to_owned();
        let subs: Vec<&Command> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
        if subs.is_empty() { vec![path.to_owned()] } else { subs.iter().flat_map(|c| paths(c, &below(c))).collect() }
    }

    #[test]
    fn every_command_has_examples_that_are_command_lines() {
        let all = paths(&command(), "");
        for path in &all {
            assert!(find(path).is_some_and(|e| !e.examples.is_empty()), "{path}");
        }
        for entry in &TABLE {
            assert!(entry.path.is_empty() || all.iter().any(|p| p == entry.path), "no command {}", entry.path);
            for (line, what) in entry.examples {
                let words = words(line);
                let parsed = command().try_get_matches_from([vec!["bootsurgeon".to_owned()], words].concat());
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                assert!(line.starts_with(entry.path) && !what.ends_with('.'), "{line}");
            }
        }
    }

    /// As a shell splits it: single quotes are all that the examples use.
    fn words(line: &str) -> Vec<String> {
        let pieces = line.split('\'').enumerate();
        pieces
            .flat_map(|(n, piece)| {
                if n % 2 == 1 { vec![piece.to_owned()] } else { piece.split_whitespace().map(str::to_owned).collect() }
            })
            .collect()
    }

    #[test]
    fn options_that_every_command_has_stand_under_one_heading_at_the_end() {
        let mut all = command();
        all.build();
        for path in paths(&all, "") {
            let mut at = &mut all;
            for name in path.split(' ') {
                at = at.find_subcommand_mut(name).unwrap();
            }
            let help = at.render_long_help().to_string();
            let (before, output) = help.split_once("\nOutput:\n").unwrap_or_else(|| panic!("{path}: {help}"));
            for option in ["--json", "--no-progress", "--color", "--verbose", "--quiet", "--help", "--version"] {
                assert!(!before.contains(&format!("{option}\n")) && output.contains(option), "{path} {option}: {help}");
            }
            let (options, after) = output.split_once("\nEXAMPLES\n").unwrap_or_else(|| panic!("{path}: {help}"));
            assert!(!options.contains(":\n  -") && after.contains("\nEXIT STATUS\n  0 "), "{path}: {help}");
        }
    }
}
