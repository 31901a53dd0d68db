//! What a shell offers while a command line is typed: values that only the program knows (issue 16).

use crate::cli::{ESP, put, uki};
use crate::support::{Lab, program, tool};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const INSTALLER: &str = "v1.12.4-arm64-installer";

/// A disk with backups: two of the image that starts, and one image that was disabled.
fn disk(lab: &Lab) -> PathBuf {
    let disk = lab.fixture("disk-512.img.zst");
    bootsurgeon!("swap", disk, uki(lab, INSTALLER), "--yes").code(0);
    bootsurgeon!("swap", disk, uki(lab, "v1.12.3-arm64-installer"), "--yes").code(0);
    disk
}

/// The kind of the answer and its values.
fn offered(words: &[&str]) -> Option<(String, Vec<String>)> {
    let words: Vec<&str> = std::iter::once("__complete").chain(words.iter().copied()).collect();
    let ran = crate::cli::run(&words).code(0).quiet_on_stderr();
    let mut lines = ran.out.lines().map(str::to_owned);
    let kind = lines.next()?;
    Some((kind, lines.map(|line| line.split_once('\t').expect("a tab").0.to_owned()).collect()))
}

/// The program as `bootsurgeon` in a folder of its own; what it is called with, but to complete, goes into a file
/// `ran`.
fn installed(lab: &Lab) -> PathBuf {
    let bin = lab.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let program = program();
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let ran = lab.path("ran");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = __complete ]; then exec {} \"$@\"; fi\nprintf '%s\\n' \"$@\" > '{}'\n",
        words.join(" "),
        ran.display()
    );
    let path = bin.join("bootsurgeon");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = bootsurgeon!("completions", shell).code(0).out;
        std::fs::write(lab.path(&format!("script.{shell}")), script).unwrap();
    }
    bin
}

fn shell(lab: &Lab, bin: &Path, name: &str, args: &[&str]) -> Vec<String> {
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("timeout");
    command.args(["60", name]).args(args).current_dir(lab.path("")).env("PATH", path).env("HOME", lab.path(""));
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME").env("TERM", "dumb");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Whatever is offered works.
#[test]
fn issue16_every_value_that_is_offered_is_accepted() {
    let lab = Lab::new();
    let disk = disk(&lab);
    let path = disk.to_str().unwrap();
    let (kind, backups) = offered(&["restore", path, ""]).unwrap();
    assert_eq!((kind.as_str(), backups.len()), ("values", 3), "{backups:?}");
    for backup in &backups {
        bootsurgeon!("restore", disk, backup, "--dry-run").code(0);
    }
    let listed = bootsurgeon!("restore", disk, "--list", "--json").code(0).json();
    let listed: Vec<&str> = listed["backups"].as_array().unwrap().iter().filter_map(|b| b["name"].as_str()).collect();
    assert_eq!(backups, listed);
    let (_, targets) = offered(&["swap", path, "--target", "T"]).unwrap();
    assert!(!targets.is_empty());
    for target in &targets {
        let image = uki(&lab, INSTALLER);
        bootsurgeon!("swap", disk, image, "--target", target, "--dry-run").code(0);
    }
    let (_, ukis) = offered(&["extract", path, "--uki="]).unwrap();
    assert!(!ukis.is_empty());
    for uki in &ukis {
        bootsurgeon!("extract", disk, "--uki", uki, "--out", lab.path(&format!("{uki}.out"))).code(0);
    }
    let (_, partitions) = offered(&["status", path, "--partition", ""]).unwrap();
    assert_eq!(partitions.len(), 1);
    bootsurgeon!("status", disk, "--partition", partitions[0]).code(0);
    let (kind, disks) = offered(&["-v", "status", ""]).unwrap();
    assert!(kind == "files" && disks.iter().all(|disk| Path::new(disk).exists()), "{disks:?}");
    assert_eq!(offered(&["restore", path, "no such beginning"]), Some(("values".into(), Vec::new())));
    assert_eq!(offered(&["restore", path, "--dry"]), None);
}

/// Whoever presses a key wants no messages and no waiting, whatever DISK is.
#[test]
fn issue16_what_cannot_be_read_offers_nothing_and_says_nothing() {
    let lab = Lab::new();
    let fifo = lab.path("fifo");
    let garbage = lab.path("garbage");
    std::fs::write(&garbage, [7; 3000]).unwrap();
    let none = Some(("values".to_owned(), Vec::new()));
    let packed = crate::support::fixtures().join("disk/disk-512.img.zst");
    let mut disks = vec![lab.path("missing"), lab.path(""), garbage, packed];
    if tool("mkfifo") {
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        disks.push(fifo);
    }
    for disk in disks {
        let disk = disk.to_str().unwrap();
        assert_eq!(offered(&["restore", disk, ""]), none, "{disk}");
        assert_eq!(offered(&["swap", disk, "--target", ""]), none, "{disk}");
        assert_eq!(offered(&["inspect", disk, "--uki", ""]), none, "{disk}");
    }
    for words in [&[][..], &["status", "--no-such", ""], &["nonsense", ""], &["swap", "--"], &[""]] {
        assert_eq!(offered(words), None, "{words:?}");
    }
    assert!(!bootsurgeon!("--help").code(0).out.contains("__complete"));
}

/// A name on a disk is somebody else's: one that a shell would act upon is not offered.
#[test]
fn issue16_names_that_a_shell_acts_upon_are_not_offered() {
    if !tool("mcopy") {
        return;
    }
    let lab = Lab::new();
    let disk = disk(&lab);
    let before = offered(&["restore", disk.to_str().unwrap(), ""]).unwrap();
    for name in ["$(touch x).efi.bak.1771000000", "`x`.efi.bak.1771000000", "a b.efi.bak.1771000000"] {
        put(&disk, ESP, &format!("EFI/Linux/{name}"), b"MZ");
    }
    assert_eq!(offered(&["restore", disk.to_str().unwrap(), ""]).unwrap(), before);
}

#[test]
fn issue16_bash_offers_what_the_program_knows() {
    if !tool("bash") {
        return;
    }
    let lab = Lab::new();
    let disk = disk(&lab);
    let bin = installed(&lab);
    let complete = "source script.bash; COMP_WORDS=(bootsurgeon \"$@\"); COMP_CWORD=$#\n\
        _bootsurgeon bootsurgeon \"${@: -1}\" \"${@: -2:1}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let bash = |words: &[&str]| {
        let args: Vec<&str> = ["--norc", "-c", complete, "bash"].iter().chain(words).copied().collect();
        shell(&lab, &bin, "bash", &args)
    };
    let (_, backups) = offered(&["restore", disk.to_str().unwrap(), ""]).unwrap();
    assert_eq!(bash(&["restore", "disk-512.img", ""]), backups);
    // As bash splits `--target=Talos`, and as it is typed within quotes.
    assert!(bash(&["swap", "'disk-512.img'", "--target", "=", "Talos-v"])[0].starts_with("Talos-v1.12."));
    assert!(bash(&["fetch", "--arch", "ar"]).contains(&"arm64".to_owned()));
    assert!(bash(&["rest"]).contains(&"restore".to_owned()));
    // Nothing but names of files, which bash completes by itself.
    assert_eq!(bash(&["inspect", "disk"]), [""]);
    std::fs::write(lab.path("dev"), "").unwrap();
    for line in bash(&["status", "/dev/"]).iter().filter(|line| !line.is_empty()) {
        assert!(Path::new(line).exists(), "{line}");
    }
}

/// In an interactive shell, with the key.
#[test]
fn issue16_zsh_offers_what_the_program_knows() {
    if !tool("zsh") {
        return;
    }
    let lab = Lab::new();
    let disk = disk(&lab);
    let bin = installed(&lab);
    shell(&lab, &bin, "zsh", &["-f", "-n", "script.zsh"]);
    let (_, backups) = offered(&["restore", disk.to_str().unwrap(), ""]).unwrap();
    let disabled = backups.iter().find(|name| name.contains(".disabled.")).unwrap();
    let begin = &disabled[..disabled.find("disabled").unwrap() + 4];
    let (_, targets) = offered(&["swap", disk.to_str().unwrap(), "--target", ""]).unwrap();
    let target = &targets[0];
    std::fs::write(lab.path("init.zsh"), "autoload -Uz compinit; compinit -u -D; source script.zsh\n").unwrap();
    for (typed, ran) in [
        (format!("restore disk-512.img {begin}"), format!("restore disk-512.img {disabled}")),
        ("restore --partition=1 disk-512.im".to_owned(), "restore --partition=1 disk-512.img".to_owned()),
        (
            format!("swap disk-512.img --target={}", &target[..target.len() - 5]),
            format!("swap disk-512.img --target={target}"),
        ),
    ] {
        let session = format!(
            "zmodload zsh/zpty; zpty shell zsh -f -i; zpty -w shell 'source init.zsh'\n\
             zpty -w shell $'bootsurgeon {typed}\\t'; zpty -w shell exit\n\
             while zpty -r shell line; do :; done\n"
        );
        std::fs::write(lab.path("session.zsh"), session).unwrap();
        let _ = std::fs::remove_file(lab.path("ran"));
        shell(&lab, &bin, "zsh", &["-f", "session.zsh"]);
        let words = std::fs::read_to_string(lab.path("ran")).unwrap_or_default();
        assert_eq!(words.lines().collect::<Vec<_>>().join(" ").trim_end(), ran, "{typed}");
    }
}

#[test]
fn issue16_fish_offers_what_the_program_knows() {
    if !tool("fish") {
        return;
    }
    let lab = Lab::new();
    let disk = disk(&lab);
    let bin = installed(&lab);
    let fish = |line: &str| -> Vec<String> {
        let command = format!("source script.fish; complete -C 'bootsurgeon {line}'");
        let lines = shell(&lab, &bin, "fish", &["--no-config", "-c", &command]);
        lines.iter().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    };
    let (_, backups) = offered(&["restore", disk.to_str().unwrap(), ""]).unwrap();
    assert_eq!(fish("restore disk-512.img "), backups);
    assert!(fish("status disk-5").contains(&"disk-512.img".to_owned()));
    let targets = fish("swap disk-512.img --target T");
    assert!(!targets.is_empty() && targets.iter().all(|name| name.starts_with("Talos-v")), "{targets:?}");
    assert!(fish("rest").contains(&"restore".to_owned()));
}
