//! Completion scripts: clap's own, and in those for bash, zsh and fish a few lines that ask this program for what only
//! it knows: disks, ESPs, backups, images.
//!
//! They call `bootsurgeon __complete WORD…` with the words of the command line up to the cursor. Where the last of
//! them stands for something that is known here, the first line of the answer says whether there is anything else to offer
//! (`files`: names of files; `values`: nothing), and each line behind it is a value, a tab, and what is known of it.
//! Otherwise there is no answer, and clap's lists hold. The command reads only and never fails: whoever presses a key
//! wants no messages.

use super::help;
use crate::Result;
use crate::command::DiskRequest;
use crate::command::completion::{Offer, backups, disks, images, partitions, ukis};
use crate::harmless::harmless;
use clap::{Arg, ArgAction, Command, ValueHint};
use clap_complete::Shell;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the scripts call. It is in no help.
pub(super) const COMMAND: &str = "__complete";

/// Options whose values are known here, for fish, which is told for each.
const OPTIONS: [&str; 6] = ["from", "installed", "partition", "target", "truth", "uki"];

const BASH: &str = include_str!("completion.bash");
const ZSH: &str = include_str!("completion.zsh");
const FISH: &str = include_str!("completion.fish");

/// The script for a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut help::command(), "bootsurgeon", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let first = "_bootsurgeon() {\n";
    match shell {
        Shell::Bash => BASH.to_owned() + &script.replacen(first, &format!("{first}    {ASK}\n"), 1),
        // Its first line has to stay the first.
        Shell::Zsh => script.replacen(first, &format!("{ZSH}\n{first}    {ASK}\n"), 1),
        Shell::Fish => {
            let mut with_values = String::new();
            for line in script.lines() {
                let is_known = OPTIONS.iter().any(|option| line.contains(&format!(" -l {option} ")));
                // Where clap offers names of files it says so.
                let only = if is_known && !line.ends_with(" -F") { " -f" } else { "" };
                let values = if is_known { " -k -a \"(__bootsurgeon_values)\"" } else { "" };
                let _ = writeln!(with_values, "{line}{only}{values}");
            }
            with_values + FISH
        }
        _ => script,
    }
}

/// The first line of the function in the scripts for bash and zsh.
const ASK: &str = "_bootsurgeon_values \"$@\" && return 0";

/// Prints what can be offered for the last of the words behind [`COMMAND`].
pub(super) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let mut command = help::command();
    command.build();
    if let Some((kind, offers)) = offers(&command, &words) {
        let mut text = format!("{kind}\n");
        for (value, what) in offers {
            let _ = writeln!(text, "{value}\t{}", harmless(&what));
        }
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
    ExitCode::SUCCESS
}

/// `files` or `values`, and the values. `None` where nothing is known of the last word.
fn offers(command: &Command, words: &[String]) -> Option<(&'static str, Vec<Offer>)> {
    let (last, before) = words.split_last()?;
    let line = Line::parse(command, before)?;
    let (arg, typed) = match line.open {
        // bash makes three words of `--target=Talos`.
        Some(option) => (option, if last == "=" { "" } else { last }),
        None => match last.strip_prefix("--").and_then(|option| option.split_once('=')) {
            Some((name, typed)) => (line.option(name)?, typed),
            None if last.starts_with('-') => return None,
            None => (line.positional()?, last.as_str()),
        },
    };
    let disk = || -> Option<DiskRequest> {
        let disk = line.value("disk").or_else(|| line.value("all_members")?.split(',').next())?;
        let partition = line.value("partition").map(str::to_owned);
        Some(DiskRequest { partition, ..DiskRequest::new(local(disk)?) })
    };
    let image = || ["image", "path"].iter().find_map(|id| local(line.value(id)?));
    let known = |offers: Option<Result<Vec<Offer>>>| offers.and_then(Result::ok).unwrap_or_default();
    let (kind, mut offers) = match arg.get_id().as_str() {
        "disk" | "disks" | "from" | "installed" => ("files", disks()),
        "backup" => ("values", known(disk().map(|disk| backups(&disk)))),
        "target" => ("values", known(disk().map(|disk| images(&disk)))),
        "uki" => ("values", known(image().map(|image| ukis(&image)))),
        "partition" => ("values", known(disk().map(|disk| partitions(&disk.path)))),
        "truth" => ("values", line.value("all_members")?.split(',').map(|m| (m.to_owned(), String::new())).collect()),
        _ if arg.is_positional() && matches!(arg.get_value_hint(), ValueHint::FilePath | ValueHint::DirPath) => {
            ("files", Vec::new())
        }
        _ => return None,
    };
    let typed = unquoted(typed);
    offers.retain(|(value, _)| value.starts_with(&typed) && is_plain(value));
    Some((kind, offers))
}

/// The words before the one that is being typed.
struct Line<'a> {
    /// The command that they name.
    command: &'a Command,
    /// IDs of options and arguments with the values that they were given.
    given: Vec<(&'a str, &'a str)>,
    /// How many of these have no name.
    positionals: usize,
    /// The option whose value is being typed.
    open: Option<&'a Arg>,
}

impl<'a> Line<'a> {
    /// `None` for what makes no sense here: an option that does not exist, something behind `--`, disks that are those
    /// of another machine.
    fn parse(command: &'a Command, words: &'a [String]) -> Option<Self> {
        let mut line = Self { command, given: Vec::new(), positionals: 0, open: None };
        for word in words {
            if let Some(option) = line.open {
                if word != "=" {
                    line.given.push((option.get_id().as_str(), word));
                    line.open = None;
                }
            } else if let Some(option) = word.strip_prefix("--") {
                let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
                let arg = line.option(name)?;
                match value {
                    Some(value) => line.given.push((arg.get_id().as_str(), value)),
                    None => line.open = arg.get_action().takes_values().then_some(arg),
                }
            } else if word.starts_with('-') && word.len() > 1 {
                // No option with one letter takes a value.
            } else if let Some(command) = line.command.find_subcommand(word).filter(|_| line.positionals == 0) {
                if word == "pod" {
                    return None;
                }
                line.command = command;
            } else {
                line.given.push((line.positional()?.get_id().as_str(), word));
                line.positionals += 1;
            }
        }
        Some(line)
    }

    fn option(&self, long: &str) -> Option<&'a Arg> {
        self.command.get_arguments().find(|arg| arg.get_long() == Some(long))
    }

    /// The argument that the next word stands for, if it is no option.
    fn positional(&self) -> Option<&'a Arg> {
        // With --all-members there is no DISK.
        let skipped = usize::from(self.value("all_members").is_some());
        let mut all = self.command.get_positionals();
        let repeated =
            self.command.get_positionals().last().filter(|arg| matches!(arg.get_action(), ArgAction::Append));
        all.nth(self.positionals + skipped).or(repeated)
    }

    fn value(&self, id: &str) -> Option<&'a str> {
        self.given.iter().find(|(given, _)| *given == id).map(|(_, value)| *value)
    }
}

/// A disk or a file of this machine, as it was typed: nothing else is opened.
fn local(typed: &str) -> Option<PathBuf> {
    let is_local = |path: &Path| path.metadata().is_ok_and(|m| m.is_file() || m.file_type().is_block_device());
    [typed.to_owned(), unquoted(typed)].map(PathBuf::from).into_iter().find(|path| is_local(path))
}

/// A word as a shell would hand it over, were it complete.
fn unquoted(word: &str) -> String {
    let home = || std::env::var("HOME").ok();
    let mut text = match word.strip_prefix("~/").and_then(|rest| Some((home()?, rest))) {
        Some((home, _)) => home + "/",
        None => String::new(),
    };
    let mut rest = if text.is_empty() { word } else { &word[2..] }.chars();
    let mut quote = None;
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => text.extend(rest.next()),
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, _) => text.push(c),
        }
    }
    text
}

/// Whether a value needs no quotes in any shell. Names on a disk are other people's.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "/._~+-:@".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lose_their_quotes() {
        for (word, text) in [
            ("plain", "plain"),
            (r"a\ b", "a b"),
            ("'a b", "a b"),
            ("\"a'b\"", "a'b"),
            ("'a\"b'c", "a\"bc"),
            (r"ends\", "ends"),
            ("", ""),
        ] {
            assert_eq!(unquoted(word), text);
        }
        assert!(is_plain("Talos-v1.12.4~1.efi.bak.1771000000"));
        for hostile in ["", "a b", "$(reboot)", "a;b", "a\u{202e}b", "`x`", "*.efi", "a'b", "ä"] {
            assert!(!is_plain(hostile), "{hostile}");
        }
    }

    /// What is known of the word at the end.
    #[test]
    fn the_place_of_a_word_says_what_it_stands_for() {
        let mut command = help::command();
        command.build();
        let kind = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            offers(&command, &words).map(|(kind, _)| kind)
        };
        for (line, expected) in [
            ("status ", Some("files")),
            ("-v --color never status --json x", Some("files")),
            ("status --", None),
            ("stat", None),
            ("doctor a b c", Some("files")),
            ("restore x.img ", Some("values")),
            ("restore x.img y z", None),
            ("restore --all-members a,b ", Some("values")),
            ("restore x.img --cert ", None),
            ("restore x.img --cert c.pem ", Some("values")),
            ("restore --no-such-option ", None),
            ("swap x.img --target ", Some("values")),
            ("swap x.img --target = ", Some("values")),
            ("swap x.img --target =", Some("values")),
            ("swap x.img --target=T", Some("values")),
            ("swap x.img --target = T ", Some("files")),
            ("swap x.img --target=T ", Some("files")),
            ("recover --all-members a,b --truth ", Some("values")),
            ("schematic edit --from ", Some("files")),
            ("schematic ", None),
            ("verify new.efi --installed ", Some("files")),
            ("fetch --arch ", None),
            ("pod manifest --disk /dev/sda --target ", None),
            ("extract a.iso --uki ", Some("values")),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
        assert_eq!(offers(&command, &[]), None);
    }

    #[test]
    fn every_option_with_known_values_is_in_the_script_for_fish() {
        let script = script(Shell::Fish);
        for option in OPTIONS {
            let lines: Vec<&str> = script.lines().filter(|line| line.contains(&format!(" -l {option} "))).collect();
            assert!(!lines.is_empty() && lines.iter().all(|l| l.contains("__bootsurgeon_values")), "{option}");
        }
        for shell in [Shell::Bash, Shell::Zsh] {
            assert_eq!(self::script(shell).matches(ASK).count(), 1, "{shell}");
        }
    }
}
