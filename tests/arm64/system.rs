//! A system around the program: Debian's kernel in a UKI, with an initramfs that holds the program and next to nothing
//! else. The firmware starts it as it starts any other image; the disk that is operated on is not what it booted from.

use crate::lab::prepare;
use crate::machine::Machine;
use crate::node::Node;
use cpio::newc;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
const BLOCK_DEVICE: u32 = 0o060_600;
/// The console; the parts of the first NVMe disk. Linux, Documentation/admin-guide/devices.txt: NVMe's minor numbers
/// are given out as disks and partitions are found, and there is one disk.
const NODES: [(&str, u32, (u32, u32)); 4] = [
    ("dev/console", CHARACTER_DEVICE, (5, 1)),
    ("dev/nvme0n1", BLOCK_DEVICE, (259, 0)),
    ("dev/nvme0n1p1", BLOCK_DEVICE, (259, 1)),
    ("dev/nvme0n1p2", BLOCK_DEVICE, (259, 2)),
];
/// A panic ends the machine at once. Only what a panic says is printed, so that the program has the console for itself.
const KERNEL: &str = "console=ttyAMA0 panic=-1 loglevel=1";
/// For the program: the console is a terminal, and the document is to be found among what it shows.
const QUIET: &str = "--no-progress --color never";
const LIMIT: Duration = Duration::from_secs(400);

/// What is the same for all systems.
pub(crate) struct System {
    dir: PathBuf,
    program: Vec<u8>,
    /// The kernel's package.
    pub(crate) kernel: String,
}

/// A disk that the system can write to.
pub(crate) enum Attached<'a> {
    Nvme(&'a Path),
    Virtio(&'a Path),
}

/// One command and what came of it.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) command: String,
    pub(crate) code: i32,
    /// The greatest resident size in KiB; 0 where nobody measured it.
    pub(crate) resident_kib: u64,
    /// Both its outputs, and the kernel's last words.
    pub(crate) output: String,
}

impl Step {
    /// The JSON document that it printed.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let start = self.output.find("\n{").unwrap_or_else(|| panic!("no JSON: {self:#?}"));
        let mut documents = serde_json::Deserializer::from_str(&self.output[start..]).into_iter();
        documents.next().unwrap_or_else(|| panic!("no JSON: {self:#?}")).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

impl System {
    pub(crate) fn new(program: &Path) -> Self {
        let dir = prepare("arm64");
        let kernel = std::fs::read_to_string(dir.join("kernel/version")).unwrap().trim().to_owned();
        Self { dir, program: std::fs::read(program).unwrap(), kernel }
    }

    /// Starts a system whose only process is the program with these arguments.
    pub(crate) fn alone(&self, node: &Node, disks: &[Attached], arguments: &str) -> Step {
        let mut files = Initramfs::default();
        files.add("dev", DIRECTORY, (0, 0), &[]);
        for (name, mode, number) in NODES {
            files.add(name, mode, number, &[]);
        }
        files.add("bootsurgeon", EXECUTABLE, (0, 0), &self.program);
        let options = format!("{KERNEL} rdinit=/bootsurgeon -- {QUIET} {arguments}");
        let console = self.start(node, disks, files, &options);
        let (output, panic) = console
            .split_once("Attempted to kill init! exitcode=0x")
            .unwrap_or_else(|| panic!("{arguments}: the program did not end:\n{console}"));
        // As wait(2) gives it: the exit code in the second byte, a signal in the lowest.
        let status = i32::from_str_radix(&panic[..8], 16).unwrap();
        let code = if status & 0x7f == 0 { status >> 8 } else { 128 + (status & 0x7f) };
        Step { command: arguments.to_owned(), code, resident_kib: 0, output: output.to_owned() }
    }

    /// Starts a system whose init goes through these lines, which are those of init.c. `bootsurgeon` and `plain` are
    /// short for a run of the program.
    pub(crate) fn commands(&self, node: &Node, disks: &[Attached], lines: &[&str]) -> Vec<Step> {
        let short = |line: &str| match line.split_once(' ') {
            Some(("bootsurgeon", arguments)) => format!("run /bootsurgeon {QUIET} {arguments}\n"),
            Some(("plain", arguments)) => format!("plain /bootsurgeon {QUIET} {arguments}\n"),
            _ => format!("{line}\n"),
        };
        let script: String = lines.iter().map(|line| short(line)).collect();
        let mut files = Initramfs::default();
        files.add("dev", DIRECTORY, (0, 0), &[]);
        files.add("sys", DIRECTORY, (0, 0), &[]);
        files.add("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
        files.add("init", EXECUTABLE, (0, 0), &self.read("init"));
        files.add("bootsurgeon", EXECUTABLE, (0, 0), &self.program);
        files.add("commands", 0o100_644, (0, 0), script.as_bytes());
        for module in std::fs::read_dir(self.dir.join("kernel")).unwrap() {
            let name = module.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".ko") {
                files.add(&name, 0o100_644, (0, 0), &self.read(&format!("kernel/{name}")));
            }
        }
        let console = self.start(node, disks, files, &format!("{KERNEL} rdinit=/init"));
        let steps: Vec<_> = console.split("@@ ").skip(1).map(step).collect();
        assert_eq!(steps.len(), lines.len(), "not all commands were run:\n{console}");
        steps
    }

    fn read(&self, name: &str) -> Vec<u8> {
        let path = self.dir.join(name);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// What the console showed.
    fn start(&self, node: &Node, disks: &[Attached], files: Initramfs, options: &str) -> String {
        let image = node.systemd.uki(&[
            (".osrel", b"NAME=\"Test\"\nID=test\nVERSION_ID=1\n".to_vec()),
            (".cmdline", options.as_bytes().to_vec()),
            (".linux", self.read("kernel/vmlinuz")),
            (".initrd", files.finish()),
        ]);
        let path = node.path("system.efi");
        std::fs::write(&path, node.signed(image)).unwrap();
        let variables = node.variables();
        let mut qemu = node.machine.qemu(&variables);
        qemu.arg("-kernel").arg(path);
        // What programs run, and not the kernel, whose addresses are in the upper half.
        qemu.args(["-d", "in_asm", "-dfilter", "0x0..0xffffffffffff", "-D"]).arg(instructions(node));
        for (i, disk) in disks.iter().enumerate() {
            let (file, device) = match disk {
                Attached::Nvme(file) => (file, "nvme,serial=one"),
                Attached::Virtio(file) => (file, "virtio-blk-pci"),
            };
            qemu.args(["-drive", &format!("if=none,id=d{i},format=raw,file={}", file.display())]);
            qemu.args(["-device", &format!("{device},drive=d{i}")]);
        }
        Machine::run(qemu, &variables, LIMIT).text.replace('\r', "")
    }
}

/// Where the emulator writes down every instruction that the last system has reached.
pub(crate) fn instructions(node: &Node) -> PathBuf {
    node.path("instructions")
}

/// `COMMAND`, its output, `@@= RESULT RESIDENT`.
fn step(text: &str) -> Step {
    let (command, rest) = text.split_once('\n').unwrap_or((text, ""));
    let (output, result) = rest.split_once("\n@@= ").unwrap_or_else(|| panic!("{command} did not end:\n{rest}"));
    let mut numbers = result.split_whitespace();
    let mut number = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{command}: {result}"));
    let (code, resident_kib): (i64, i64) = (number(), number());
    Step {
        command: command.to_owned(),
        code: i32::try_from(code).unwrap(),
        resident_kib: u64::try_from(resident_kib).unwrap(),
        output: format!("\n{output}"),
    }
}

/// A cpio archive as the kernel unpacks it.
#[derive(Default)]
struct Initramfs {
    archive: Vec<u8>,
    entries: u32,
}

impl Initramfs {
    fn add(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let mut entry = newc::Builder::new(name)
            .ino(self.entries)
            .mode(mode)
            .rdev_major(major)
            .rdev_minor(minor)
            .write(&mut self.archive, u32::try_from(content.len()).unwrap());
        entry.write_all(content).unwrap();
        entry.finish().unwrap();
    }

    fn finish(mut self) -> Vec<u8> {
        newc::trailer(&mut self.archive).unwrap();
        self.archive
    }
}
