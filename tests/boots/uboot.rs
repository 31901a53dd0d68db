//! U-Boot as the firmware. Its console makes the boot options and variables, U-Boot itself writes them to
//! `ubootefi.var` on the ESP, and what the prediction reads there has to be what U-Boot starts from a machine that was
//! off in between.

use crate::expected::{self, payload};
use crate::lab::Systemd;
use crate::load_option::{HardDrive, load_option, utf16};
use crate::machine::{Boot, Turn};
use crate::{job, volume};
use bootsurgeon::command::VariablesChoice;
use bootsurgeon::disk::Target;
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(90);
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const REMOVABLE: &str = "EFI/BOOT/BOOTAA64.EFI";
const ELSEWHERE: &str = "EFI/systemd/systemd-bootaa64.efi";

/// A disk, the variables that are set at U-Boot's console, and what is done to the disk while the machine is off.
pub(crate) struct State {
    pub(crate) name: &'static str,
    /// The partitions: two ESPs and an Extended Boot Loader Partition.
    volumes: [Vec<(String, Vec<u8>)>; 3],
    /// Boot0001 and so on: the partition, counted from 1, and the file.
    options: Vec<(u32, &'static str)>,
    /// Whether the options name their partition alone, and not the device as well.
    short: bool,
    order: Option<Vec<u16>>,
    next: Option<u16>,
    /// Of systemd-boot.
    variable: Option<(&'static str, &'static str)>,
    off: fn(&Path),
    /// Starts in a row; each is predicted from what the one before it left.
    starts: usize,
}

/// How many starts, in how many of them the prediction was certain, and those that were not as predicted.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) starts: usize,
    pub(crate) certain: usize,
    pub(crate) mismatches: Vec<String>,
}

/// Sets a state up and starts it.
pub(crate) fn run(firmware: &Path, state: &State) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.img");
    let mut raw = state.volumes.each_ref().map(|files| volume::small(files));
    // Room behind the file system, so that the partition can be made shorter.
    raw[0].resize(raw[0].len() + (64 << 10), 0);
    let esp = gpt::partition_types::EFI;
    let kinds = [esp.clone(), esp, gpt::partition_types::FREEDESK_BOOT];
    let partitions: Vec<_> = raw.iter().map(Vec::len).zip(kinds).collect();
    volume::partitioned(&disk, &partitions, |n| raw[n].clone());

    let mut console = String::new();
    if state.sets_variables() {
        let mut machine = Powered::on(firmware, &disk, &dir.path().join("setup.log"));
        machine.wait_for("Hit any key");
        machine.send("");
        machine.wait_for("=> ");
        let has_efidebug = machine.succeeds("help efidebug");
        for line in state.typed(&disk, has_efidebug) {
            assert!(machine.succeeds(&line), "{}", machine.text());
        }
        console = machine.text();
    }
    (state.off)(&disk);

    let mut outcome = Outcome::default();
    for start in 0..state.starts {
        let expected = expected::run(&disk, &VariablesChoice::Unspecified);
        let mut machine = Powered::on(firmware, &disk, &dir.path().join("start.log"));
        machine.wait_until_off();
        let text = machine.text();
        let real = Boot::single(&text).payload.map(|(name, _)| name);
        outcome.starts += 1;
        outcome.certain += usize::from(expected.certain);
        if expected.certain && expected.payload != real {
            outcome.mismatches.push(format!(
                "{}, start {}: predicted {:?}, real {real:?}\n{:#?}\n{console}\n{text}",
                state.name,
                start + 1,
                expected.payload,
                expected.steps
            ));
            break;
        }
    }
    outcome
}

/// A machine with its console.
struct Powered {
    qemu: Child,
    keyboard: ChildStdin,
    log: PathBuf,
    seen: usize,
    until: Instant,
    _turn: Turn,
}

impl Powered {
    fn on(firmware: &Path, disk: &Path, log: &Path) -> Self {
        let _turn = Turn::take();
        let mut qemu = Command::new("qemu-system-aarch64")
            .args(["-machine", "virt", "-accel", "tcg", "-cpu", "cortex-a57", "-m", "512", "-no-reboot"])
            .args(["-display", "none", "-vga", "none", "-nic", "none", "-monitor", "none", "-serial", "stdio"])
            .arg("-bios")
            .arg(firmware)
            .args(["-drive", &format!("if=none,id=d,format=raw,file={}", disk.display())])
            .args(["-device", "virtio-blk-device,drive=d", "-device", "virtio-rng-device"])
            .stdin(Stdio::piped())
            .stdout(File::create(log).unwrap())
            .spawn()
            .unwrap_or_else(|e| panic!("qemu-system-aarch64: {e}"));
        let keyboard = qemu.stdin.take().unwrap();
        Self { qemu, keyboard, log: log.to_owned(), seen: 0, until: Instant::now() + LIMIT, _turn }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits for words that were not there the last time.
    fn wait_for(&mut self, words: &str) {
        loop {
            let text = std::fs::read(&self.log).unwrap();
            if let Some(at) = text[self.seen..].windows(words.len()).position(|w| w == words.as_bytes()) {
                self.seen += at + words.len();
                return;
            }
            assert!(Instant::now() < self.until, "U-Boot never said {words:?}:\n{}", String::from_utf8_lossy(&text));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a command at U-Boot's prompt.
    fn succeeds(&mut self, line: &str) -> bool {
        // The console shows what is typed: not yet what is waited for.
        self.send(&format!("{line}; echo \"d\"one $?."));
        self.wait_for("done ");
        let from = self.seen;
        self.wait_for(".");
        std::fs::read(&self.log).unwrap()[from] == b'0'
    }

    fn send(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn wait_until_off(&mut self) {
        // A start that ends at U-Boot's own prompt, or tries the network, is one of nothing.
        while self.qemu.try_wait().unwrap().is_none() && Instant::now() < self.until && !self.text().ends_with("=> ") {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// What is on the disks: images of two versions, systemd-boot in two places of the first ESP and in one of the second.
struct Files<'a>(&'a Systemd, [Vec<(String, Vec<u8>)>; 3]);

impl<'a> Files<'a> {
    fn new(systemd: &'a Systemd) -> Self {
        let mut files = Self(systemd, Default::default());
        for volume in &mut files.1 {
            volume.push(("loader/".to_owned(), Vec::new()));
        }
        files.image(0, "EFI/Linux/Talos-v1.12.3.efi", "v1.12.3");
        files.image(0, "EFI/Linux/Talos-v1.12.4.efi", "v1.12.4");
        files.image(1, "EFI/Linux/Talos-v1.11.0.efi", "v1.11.0");
        for (volume, path) in [(0, REMOVABLE), (0, ELSEWHERE), (1, ELSEWHERE)] {
            files.1[volume].push((path.to_owned(), systemd.loader.clone()));
        }
        files
    }

    fn image(&mut self, volume: usize, path: &str, version: &str) {
        self.put(volume, path, job::talos(self.0, version, &payload(volume, path)));
    }

    fn put(&mut self, volume: usize, path: &str, content: Vec<u8>) {
        self.1[volume].retain(|(p, _)| p != path);
        self.1[volume].push((path.to_owned(), content));
    }
}

impl State {
    fn sets_variables(&self) -> bool {
        !self.options.is_empty() || self.order.is_some() || self.next.is_some() || self.variable.is_some()
    }

    /// What is typed: U-Boot's own tool for boot options, where it is built in, or their bytes.
    fn typed(&self, disk: &Path, has_efidebug: bool) -> Vec<String> {
        let target = Target::find(disk, Some("1")).unwrap();
        let partitions = &target.table().unwrap().partitions;
        let bytes = |name: &str, vendor: &str, data: &[u8]| {
            // A line of the console holds 512 characters.
            data.chunks(120)
                .enumerate()
                .map(|(n, part)| {
                    let append = if n == 0 { "" } else { " -a" };
                    format!("setenv -e -nv -bs -rt{append} -guid {vendor} {name} =H{}", hex::encode(part))
                })
                .collect::<Vec<_>>()
        };
        let mut lines = Vec::new();
        for (number, (partition, path)) in (1_u16..).zip(&self.options) {
            if has_efidebug {
                let how = if self.short { "-B" } else { "-b" };
                lines.push(format!("efidebug boot add {how} {number:04X} option{number} virtio 0:{partition} {path}"));
            } else {
                let p = &partitions[*partition as usize - 1];
                let place = HardDrive {
                    number: *partition,
                    start: p.extent.offset / 512,
                    sectors: p.extent.bytes / 512,
                    partuuid: &p.partuuid.to_string(),
                };
                let option = load_option(1, Some(&place), path, "");
                lines.extend(bytes(&format!("Boot{number:04X}"), GLOBAL, &option));
            }
        }
        if let Some(order) = &self.order {
            let data: Vec<u8> = order.iter().flat_map(|n| n.to_le_bytes()).collect();
            lines.extend(bytes("BootOrder", GLOBAL, &data));
        }
        if let Some(next) = self.next {
            lines.extend(bytes("BootNext", GLOBAL, &next.to_le_bytes()));
        }
        if let Some((name, text)) = self.variable {
            lines.extend(bytes(name, LOADER, &utf16(text)));
        }
        lines
    }
}

/// The states.
pub(crate) fn states(systemd: &Systemd) -> Vec<State> {
    const OLDER: &str = "EFI/Linux/Talos-v1.12.3.efi";
    const GONE: &str = "EFI/gone/gone.efi";
    let new = || Files::new(systemd);
    let with = |path, volume, version| {
        let mut files = new();
        files.image(volume, path, version);
        files
    };
    let state = |name, files: Files<'_>| State {
        name,
        volumes: files.1,
        options: Vec::new(),
        short: false,
        order: None,
        next: None,
        variable: None,
        off: |_| {},
        starts: 1,
    };
    let options = |name, options: &[(u32, &'static str)]| State {
        options: options.to_vec(),
        order: Some((1..=options.len() as u16).collect()),
        ..state(name, new())
    };
    let pin = |name, variable, image| State { variable: Some((variable, image)), ..state(name, new()) };
    let mut stranger = new();
    stranger.put(0, REMOVABLE, systemd.payload(&payload(0, REMOVABLE)));
    vec![
        pin("a pin", "LoaderEntryDefault", "Talos-v1.12.3.efi"),
        options("BootOrder names an image", &[(1, OLDER)]),
        State {
            order: Some(vec![1]),
            next: Some(2),
            starts: 2,
            ..options("BootNext names an image, BootOrder a loader elsewhere", &[(1, ELSEWHERE), (1, OLDER)])
        },
        state("no variables", new()),
        pin("a pin of an image that is gone", "LoaderEntryDefault", "Talos-v9.efi"),
        State { starts: 2, ..pin("a choice for one start", "LoaderEntryOneShot", "Talos-v1.12.3.efi") },
        options("the first boot option names a file that is gone", &[(1, GONE), (1, OLDER)]),
        options("every boot option names a file that is gone", &[(1, GONE), (2, GONE)]),
        State {
            volumes: stranger.1,
            ..options("a loader elsewhere, a stranger as the removable one", &[(1, ELSEWHERE)])
        },
        options("the loader of the second ESP", &[(2, ELSEWHERE)]),
        state("a newer image on the Extended Boot Loader Partition", with("EFI/Linux/Talos-v1.13.0.efi", 2, "v1.13.0")),
        State { starts: 4, ..state("a boot counter", with("EFI/Linux/Talos-v1.13.0+2.efi", 0, "v1.13.0")) },
        State {
            off: shorten,
            ..options("the partition of the first boot option is another one since", &[(1, OLDER), (2, ELSEWHERE)])
        },
        state("an image as the removable loader", with(REMOVABLE, 0, "v1.10.0")),
        State { short: true, ..options("a boot option that names the partition alone", &[(1, OLDER)]) },
        State { off: move_variables, ..options("the variables are on the second ESP", &[(1, OLDER)]) },
        State { order: None, ..options("boot options and no order", &[(1, OLDER)]) },
        State { order: Some(vec![1]), ..state("an order of options that do not exist", new()) },
        State { next: Some(7), ..options("BootNext of an option that does not exist", &[(1, OLDER)]) },
    ]
}

/// Makes the first partition one sector shorter.
fn shorten(disk: &Path) {
    let file = File::options().read(true).write(true).open(disk).unwrap();
    let mut table = gpt::GptConfig::new().writable(true).open_from_device(file).unwrap();
    let mut partitions = table.partitions().clone();
    partitions.get_mut(&1).unwrap().last_lba -= 1;
    table.update_partitions(partitions).unwrap();
    table.write().unwrap();
}

/// Takes the file with the variables from the first ESP to the second.
fn move_variables(disk: &Path) {
    let file = File::options().read(true).write(true).open(disk).unwrap();
    let mut content = Vec::new();
    for number in ["1", "2"] {
        let extent = Target::find(disk, Some(number)).unwrap().partition.unwrap().extent;
        let mut raw = Cursor::new(vec![0; extent.bytes as usize]);
        file.read_exact_at(raw.get_mut(), extent.offset).unwrap();
        let volume = fatfs::FileSystem::new(&mut raw, fatfs::FsOptions::new()).unwrap();
        if content.is_empty() {
            volume.root_dir().open_file("ubootefi.var").unwrap().read_to_end(&mut content).unwrap();
            volume.root_dir().remove("ubootefi.var").unwrap();
        } else {
            volume.root_dir().create_file("ubootefi.var").unwrap().write_all(&content).unwrap();
        }
        volume.unmount().unwrap();
        file.write_all_at(raw.get_ref(), extent.offset).unwrap();
    }
}
