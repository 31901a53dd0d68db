//! Runs the built program and judges what it leaves behind.
//!
//! A part of `tests/it`, which takes it in beside `support`.

// Every test program compiles this module for itself and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use crate::support::{self, Lab, fixtures};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// First byte of the ESP on every disk fixture that has one.
pub const ESP: u64 = 1024 * 1024;
/// Schematic of the fixtures that hold tailscale.
pub const TAILSCALE: &str = "4a0d65c669d46663f377e7161e50cfd570c401f26fd9e7bda34a0216b6f1922b";
/// The same schematic with the halt flag taken back.
pub const NOHALT: &str = "09d378fd7c14adb9a9b49e5ca8adc392e50938bcb6c41e13971f711b634ab11e";
/// What `disk-512` boots, and its duplicate.
pub const TARGET: &str = "EFI/Linux/Talos-v1.12.4.efi";
pub const DUPLICATE: &str = "EFI/Linux/Talos-v1.12.4~1.efi";

/// What a run of the program gave.
#[derive(Debug)]
pub struct Ran {
    pub command: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The program, with nothing of the tester's environment that it would listen to, and nobody at the keyboard.
pub fn command<A: AsRef<OsStr>>(args: &[A]) -> Command {
    let mut command = support::program();
    command.args(args).stdin(Stdio::null()).env("NO_COLOR", "1");
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        if upper.starts_with("BOOTSURGEON_") || upper.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the program to its end. Whatever it was given, it has not panicked.
pub fn run<A: AsRef<OsStr>>(args: &[A]) -> Ran {
    finish(command(args))
}

/// [`run`], for a command that was prepared.
pub fn finish(mut command: Command) -> Ran {
    let output = command.output().expect("the program starts");
    let ran = Ran {
        command: format!("{command:?}"),
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
        err: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
    };
    assert!(!ran.err.contains("panicked") && ran.code >= 0, "{ran:#?}");
    ran
}

impl Ran {
    /// Asserts the exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert!(
            self.code == code,
            "wanted exit code {code}: {}\n{}\n{}\n{}",
            self.command,
            self.code,
            self.out,
            self.err
        );
        self
    }

    /// Asserts that stderr holds each of these.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in what it said: {}\n{}{}", self.command, self.out, self.err);
        }
        self
    }

    /// An error that says what to do, too.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        let ran = self.code(code).says(words).says(&["error: "]);
        assert!(!ran.out.contains("\"plan\""), "a plan in spite of the error: {}\n{}", ran.command, ran.out);
        ran
    }

    /// Asserts that nothing was printed.
    #[track_caller]
    pub fn quiet(self) -> Self {
        assert!(self.out.is_empty(), "{}\n{}", self.command, self.out);
        self.quiet_on_stderr()
    }

    /// Asserts that nothing was printed but a report.
    #[track_caller]
    pub fn quiet_on_stderr(self) -> Self {
        assert!(self.err.is_empty(), "{}\n{}", self.command, self.err);
        self
    }

    /// The one JSON document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("not one JSON document ({e}): {}\n{}\n{}", self.command, self.out, self.err))
    }
}

/// A report without the commands that it recommends: in a pod they are for the pod.
pub fn without_commands(mut report: Value) -> Value {
    match &mut report {
        Value::Object(fields) => {
            fields.retain(|name, _| !["run", "action", "advice", "command", "fix"].contains(&name.as_str()));
            fields.values_mut().for_each(|value| *value = without_commands(value.take()));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = without_commands(value.take())),
        _ => {}
    }
    report
}

/// Arguments of several kinds as one list.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { [$(std::ffi::OsStr::new(&$arg).to_owned()),*] };
}

/// Runs the program with arguments of several kinds (`&str`, paths).
#[macro_export]
macro_rules! bootsurgeon {
    ($($arg:expr),* $(,)?) => { $crate::cli::run(&$crate::args![$($arg),*]) };
}

/// A UKI fixture by the end of its name: `v1.12.4-arm64-plain`.
pub fn uki(lab: &Lab, name: &str) -> PathBuf {
    lab.fixture(&format!("talos-{name}.efi.zst"))
}

/// The bytes of a UKI fixture.
pub fn uki_bytes(lab: &Lab, name: &str) -> Vec<u8> {
    std::fs::read(uki(lab, name)).expect("a fixture")
}

/// A file of `fixtures/`.
pub fn fixture(path: &str) -> PathBuf {
    fixtures().join(path)
}

/// Every file of the FAT volume at `offset` by path, as mtools reads it; directories end in `/` and are empty. Ask
/// [`support::tool`] for `mcopy` first.
pub fn files(image: &Path, offset: u64) -> BTreeMap<String, Vec<u8>> {
    let lab = Lab::new();
    let volume = format!("{}@@{offset}", image.display());
    support::run_ok("mcopy", &["-s", "-n", "-i", &volume, "::/", &lab.path("").display().to_string()]);
    let mut all = BTreeMap::new();
    let mut folders = vec![lab.path("")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(lab.path("")).expect("inside").to_string_lossy().into_owned();
            if path.is_dir() {
                all.insert(format!("{name}/"), Vec::new());
                folders.push(path);
            } else {
                all.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    all
}

/// Names whose path begins and ends like this.
pub fn named<'a>(files: &'a BTreeMap<String, Vec<u8>>, begin: &str, middle: &str) -> Vec<&'a str> {
    files.keys().filter(|n| n.starts_with(begin) && n[begin.len()..].starts_with(middle)).map(String::as_str).collect()
}

/// Bytes of a file, from an offset.
pub fn bytes_at(path: &Path, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    File::open(path).and_then(|f| f.read_exact_at(&mut bytes, offset)).expect("bytes to read");
    bytes
}

/// Writes over bytes of a file.
pub fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("a file to write");
    file.write_all_at(bytes, offset).expect("bytes to write");
}

/// Cuts a file off.
pub fn truncate(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(length)).expect("a file to cut");
}

/// Copies a file, holes and all: `cp` does not read them.
pub fn copy(from: &Path, to: &Path) -> PathBuf {
    support::run_ok("cp", &["--sparse=auto", &from.display().to_string(), &to.display().to_string()]);
    to.to_owned()
}

/// SHA-256 of the bytes of a disk in front of the ESP and behind it.
pub fn around_esp(disk: &Path, esp_bytes: u64) -> String {
    use sha2::{Digest, Sha256};
    let length = disk.metadata().expect("a disk").len();
    let mut hasher = Sha256::new();
    for (mut at, end) in [(0, ESP), (ESP + esp_bytes, length)] {
        while at < end {
            let n = (end - at).min(1 << 20);
            hasher.update(bytes_at(disk, at, n as usize));
            at += n;
        }
    }
    hex::encode(hasher.finalize())
}

/// Length of the ESP, as the status says.
pub fn esp_bytes(disk: &Path) -> u64 {
    bootsurgeon!("status", disk, "--json").code(0).json()["disk"]["partition"]["bytes"].as_u64().expect("a length")
}

/// Puts a file onto the volume, by mtools. Ask [`support::tool`] for `mcopy` first.
pub fn put(image: &Path, offset: u64, name: &str, content: &[u8]) {
    let lab = Lab::new();
    let source = lab.path("content");
    std::fs::write(&source, content).expect("a file");
    let volume = format!("{}@@{offset}", image.display());
    support::run_ok("mcopy", &["-o", "-i", &volume, &source.display().to_string(), &format!("::/{name}")]);
}
