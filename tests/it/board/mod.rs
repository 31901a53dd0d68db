//! A board in a folder: disks, EFI variables, the kernel's log; and the program run on it, its words compared.

// Every test program compiles this module for itself and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use crate::support::{Lab, program, sha256};
use bootsurgeon::disk::Target;
use bootsurgeon::fat::{Content, Editor, Entry, Stamp};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::Builder;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const STAMP: Stamp = Stamp(1_771_000_000);
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const LINUX: &str = "EFI/Linux";
/// PARTUUID of the fixtures' ESP.
pub const ESP_A: &str = "d1e6a7b4-0001-4c11-8e55-0123456789ab";
/// Another one.
pub const ESP_B: &str = "d1e6a7b4-000b-4c11-8e55-0123456789ab";

pub struct Board {
    pub lab: Lab,
}

impl Board {
    pub fn new() -> Self {
        let board = Self { lab: Lab::new() };
        for dir in ["node/dev", "node/sys/block", "node/proc", "node/sys/firmware/efi/efivars"] {
            std::fs::create_dir_all(board.lab.path(dir)).unwrap();
        }
        // The same directory under a short name, for commands that take --efivars.
        std::os::unix::fs::symlink("node/sys/firmware/efi/efivars", board.lab.path("vars")).unwrap();
        board
    }

    /// A disk of the board: the fixture after a failed upgrade, under this PARTUUID. Returns its path from the lab.
    pub fn disk(&self, name: &str, partuuid: &str) -> String {
        let path = format!("node/dev/{name}");
        let image = self.lab.fixture_as("disk-512.img.zst", &path);
        set_partuuid(&image, partuuid);
        std::fs::create_dir_all(self.lab.path("node/sys/block").join(name)).unwrap();
        path
    }

    pub fn variable(&self, name: &str, vendor: &str, attributes: u32, data: &[u8]) {
        let path = self.lab.path("vars").join(format!("{name}-{vendor}"));
        std::fs::write(path, [&attributes.to_le_bytes()[..], data].concat()).unwrap();
    }

    /// A variable of systemd-boot with text.
    pub fn text(&self, name: &str, attributes: u32, text: &str) {
        self.variable(name, LOADER, attributes, &utf16(text));
    }

    pub fn global(&self, name: &str, attributes: u32, data: &[u8]) {
        self.variable(name, GLOBAL, attributes, data);
    }

    pub fn flag(&self, name: &str, value: u8) {
        self.global(name, 6, &[value]);
    }

    pub fn variables_of(&self, dir: &Path) {
        for file in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), self.lab.path("vars").join(file.file_name())).unwrap();
        }
    }

    /// The machine was not started by UEFI.
    pub fn without_variables(&self) {
        std::fs::remove_dir_all(self.lab.path("node/sys/firmware")).unwrap();
    }

    pub fn mounted(&self, mode: &str) {
        let line = format!("efivarfs /sys/firmware/efi/efivars efivarfs {mode},nosuid,nodev,noexec,relatime 0 0\n");
        std::fs::write(self.lab.path("node/proc/mounts"), line).unwrap();
    }

    pub fn log(&self, line: &str) {
        let log = format!("6,100,1000,-;Linux version 6.12.62-talos\n4,200,2000,-;{line}\n");
        std::fs::write(self.lab.path("node/dev/kmsg"), log).unwrap();
    }

    fn edit(&self, disk: &str, change: impl FnOnce(&mut Editor<'_>)) {
        let opened = Target::find(&self.lab.path(disk), None).unwrap().open_surgery().unwrap();
        let mut editor = Editor::open(opened.medium()).unwrap();
        change(&mut editor);
        editor.write_fsinfo().unwrap();
        editor.barrier().unwrap();
    }

    pub fn remove(&self, disk: &str, name: &str) {
        self.remove_from(disk, LINUX, name);
    }

    pub fn remove_from(&self, disk: &str, dir: &str, name: &str) {
        self.edit(disk, |editor| remove(editor, dir, name));
    }

    pub fn rename(&self, disk: &str, from: &str, to: &str) {
        self.edit(disk, |editor| {
            let entry = find(editor, LINUX, from).unwrap();
            editor.rename(LINUX, &entry, to).unwrap();
        });
    }

    /// A file with this content, in the place of the one that may be there.
    pub fn replace(&self, disk: &str, dir: &str, name: &str, bytes: &[u8]) {
        self.edit(disk, |editor| {
            if find(editor, dir, name).is_some() {
                remove(editor, dir, name);
            }
            editor.make_file(dir, name, bytes, STAMP).unwrap();
        });
    }

    /// A directory, and those above it.
    pub fn directory(&self, disk: &str, path: &str) {
        self.edit(disk, |editor| editor.make_directories(path, STAMP).unwrap());
    }

    /// The second file gets the first one's clusters, as damaged file systems have it.
    pub fn cross_link(&self, disk: &str, one: &str, other: &str) {
        self.edit(disk, |editor| {
            let (one, other) = (find(editor, LINUX, one).unwrap(), find(editor, LINUX, other).unwrap());
            editor.retarget(LINUX, &other, Content::of(&one)).unwrap();
        });
    }

    pub fn run(&self, args: &[&str]) -> Output {
        let out = program().args(args).current_dir(self.lab.path(".")).output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        out
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// What is recommended for the finding of this id.
    pub fn action(&self, report: &Value, id: &str) -> String {
        let findings = report["findings"].as_array().unwrap();
        let finding = findings.iter().find(|f| f["id"] == id).unwrap_or_else(|| panic!("no {id} in {report}"));
        finding["action"].as_str().unwrap().to_owned()
    }

    /// Runs the first command in backticks of an action, as a shell would, with `--yes`.
    pub fn run_recommended(&self, action: &str) {
        let command = action.split('`').nth(1).unwrap();
        let program = program();
        let words = [program.get_program()].into_iter().chain(program.get_args());
        let program = words.map(|w| w.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        let line = format!("bootsurgeon() {{ {program} \"$@\" --yes; }}\n{command}");
        let out = Command::new("sh").args(["-c", &line]).current_dir(self.lab.path(".")).output().unwrap();
        assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Asserts that nothing of the board has changed: no variable, no disk.
    pub fn unchanged(&self, work: impl FnOnce()) {
        let before = files(&self.lab.path("node"));
        work();
        assert_eq!(files(&self.lab.path("node")), before, "something was written");
    }

    /// Compares what the program says with `tests/snapshots/<name>.txt`.
    pub fn snapshot(&self, name: &str, args: &[&str]) {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        let command = args.iter().map(|a| if a.contains(' ') { format!("'{a}'") } else { (*a).to_owned() });
        let command = command.collect::<Vec<_>>().join(" ");
        let said = format!("$ bootsurgeon {command}\n{}", without_times(&String::from_utf8(out.stdout).unwrap()));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, said).unwrap();
            return;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if said != expected {
            let differs = said.lines().zip(expected.lines()).position(|(a, b)| a != b);
            let line = differs.unwrap_or(said.lines().count().min(expected.lines().count())) + 1;
            panic!("{} differs from line {line} on; UPDATE_SNAPSHOTS=1 writes it anew. Now:\n{said}", path.display());
        }
    }
}

/// A UKI of the fixtures.
pub fn uki(lab: &Lab, name: &str) -> Vec<u8> {
    std::fs::read(lab.fixture(&format!("{name}.efi.zst"))).unwrap()
}

fn find(editor: &Editor<'_>, dir: &str, name: &str) -> Option<Entry> {
    editor.volume().find(&format!("{dir}/{name}")).unwrap()
}

fn remove(editor: &mut Editor<'_>, dir: &str, name: &str) {
    let entry = find(editor, dir, name).unwrap();
    let runs = editor.volume().table().chain(entry.first_cluster).unwrap();
    editor.remove(dir, &entry).unwrap();
    editor.free(&runs).unwrap();
}

/// Everything below a folder: path and hash.
fn files(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let hash = sha256(&path);
            all.push((path, hash));
        }
    }
    all.sort();
    all
}

/// A program that says it is this version of systemd-boot.
pub fn systemd_boot(version: &str, arch: Arch) -> Vec<u8> {
    let magic = format!("#### LoaderInfo: systemd-boot {version} ####");
    Builder::new(arch).section(".text", vec![0xC3; 512]).section(".sdmagic", magic).build()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// An EFI_LOAD_OPTION with a short-form path: a GPT partition and a file on it; no file means the partition alone.
pub fn boot_option(text: &str, partuuid: &str, file: &str) -> Vec<u8> {
    let node =
        |kind: u8, sub: u8, data: &[u8]| [&[kind, sub][..], &(data.len() as u16 + 4).to_le_bytes(), data].concat();
    let guid = uuid::Uuid::parse_str(partuuid).unwrap().to_bytes_le();
    let hard_drive = node(4, 1, &[&1u32.to_le_bytes()[..], &[0; 16], &guid, &[2, 2]].concat());
    let file = if file.is_empty() { Vec::new() } else { node(4, 4, &utf16(file)) };
    let path = [hard_drive, file, node(0x7F, 0xFF, &[])].concat();
    [&1u32.to_le_bytes()[..], &(path.len() as u16).to_le_bytes(), &utf16(text), &path].concat()
}

/// Gives the partition in slot 1 another unique GUID, in both copies of the table (UEFI specification 2.10, 5.3).
fn set_partuuid(image: &Path, partuuid: &str) {
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let sectors = file.metadata().unwrap().len() / 512;
    for lba in [1, sectors - 1] {
        let mut header = read(&file, lba * 512, 512);
        let field = |header: &[u8], at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let entries_at = u64::from(field(&header, 72)) * 512;
        let mut entries = read(&file, entries_at, field(&header, 80) as usize * field(&header, 84) as usize);
        entries[16..32].copy_from_slice(&uuid::Uuid::parse_str(partuuid).unwrap().to_bytes_le());
        header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        header[16..20].fill(0);
        let checksum = crc32fast::hash(&header[..field(&header, 12) as usize]);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        file.write_all_at(&entries, entries_at).unwrap();
        file.write_all_at(&header, lba * 512).unwrap();
    }
}

fn read(file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// Times of backups differ from run to run: seconds since 1970 have ten digits, RFC 3339 follows "since", on the next
/// line where the page ends there.
fn without_times(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    loop {
        let found = [".bak.", ".disabled.", " since"].iter().filter_map(|m| Some((rest.find(m)?, *m))).min();
        let Some((at, mark)) = found else { break };
        let is_since = mark == " since";
        let end = at + mark.len();
        let blanks = if is_since { rest[end..].len() - rest[end..].trim_start().len() } else { 0 };
        let end = end + blanks;
        out.push_str(&rest[..end]);
        rest = &rest[end..];
        let time = |c: char| c.is_ascii_digit() || (is_since && "-:TZ".contains(c));
        let len = rest.find(|c| !time(c)).unwrap_or(rest.len());
        if len >= 10 {
            out.push_str(if is_since { "TIME" } else { "0000000000" });
            rest = &rest[len..];
        }
    }
    out + rest
}
