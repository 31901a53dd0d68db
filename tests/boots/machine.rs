//! The virtual machine: firmware, a disk, a serial port.

use crate::nvram;
use bootsurgeon::pe::Arch;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// A kind of machine.
#[derive(Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) arch: Arch,
    /// Firmware that knows Secure Boot, with its variables protected by SMM on x64.
    pub(crate) secure: bool,
}

/// What a boot printed.
pub(crate) struct Console {
    pub(crate) text: String,
}

impl Machine {
    /// As Debian's packages `ovmf` and `qemu-efi-aarch64` install it.
    fn firmware(&self) -> &'static Path {
        Path::new(match (self.arch, self.secure) {
            (Arch::Amd64, false) => "/usr/share/OVMF/OVMF_CODE_4M.fd",
            (Arch::Amd64, true) => "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
            (Arch::Arm64, _) => "/usr/share/AAVMF/AAVMF_CODE.fd",
        })
    }

    /// Variables as they come with the firmware.
    pub(crate) fn empty_variables(&self) -> &'static Path {
        Path::new(match self.arch {
            Arch::Amd64 => "/usr/share/OVMF/OVMF_VARS_4M.fd",
            Arch::Arm64 => "/usr/share/AAVMF/AAVMF_VARS.fd",
        })
    }

    /// Variables that can be added to. Debian's file for arm64 is not formatted: the firmware does that once.
    pub(crate) fn formatted_variables(&self) -> Vec<u8> {
        static ARM64: OnceLock<Vec<u8>> = OnceLock::new();
        if self.arch == Arch::Amd64 {
            return std::fs::read(self.empty_variables()).unwrap();
        }
        let format = || {
            let dir = tempfile::tempdir().unwrap();
            let (disk, variables) = (dir.path().join("empty.img"), dir.path().join("variables.fd"));
            std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
            std::fs::copy(self.empty_variables(), &variables).unwrap();
            // It finds nothing to boot, so it has to be stopped.
            self.boot(&disk, &variables, Duration::from_secs(25));
            let mut store = std::fs::read(&variables).unwrap();
            // Boot options that it made for itself would stand before those that are added.
            nvram::clear(&mut store);
            store
        };
        ARM64.get_or_init(format).clone()
    }

    /// Starts from this disk, which is not changed, with these variables, which are.
    pub(crate) fn boot(&self, disk: &Path, variables: &Path, limit: Duration) -> Console {
        let mut qemu = self.qemu(variables);
        qemu.args(["-drive", &format!("if=none,id=d,format=raw,snapshot=on,file={}", disk.display())])
            .args(["-device", "virtio-blk-pci,drive=d,bootindex=1"]);
        Self::run(qemu, variables, limit)
    }

    /// The same, of firmware that goes by its own variables, above which an order from outside would stand; and what is
    /// written to the disk stays.
    pub(crate) fn boot_and_keep(&self, disk: &Path, variables: &Path, limit: Duration) -> Console {
        let mut qemu = self.qemu(variables);
        qemu.args(["-drive", &format!("if=none,id=d,format=raw,file={}", disk.display())])
            .args(["-device", "virtio-blk-pci,drive=d"]);
        Self::run(qemu, variables, limit)
    }

    /// A machine with firmware, these variables and a serial port, and no disk yet.
    pub(crate) fn qemu(&self, variables: &Path) -> Command {
        let drive = |unit: u8, path: &Path, options: &str| {
            format!("if=pflash,format=raw,unit={unit},file={}{options}", path.display())
        };
        let code = self.firmware();
        let mut qemu = match self.arch {
            Arch::Amd64 => {
                let mut q = Command::new("qemu-system-x86_64");
                let smm = if self.secure { "q35,smm=on" } else { "q35,smm=off" };
                q.args(["-machine", smm, "-accel", accelerator(), "-cpu", "qemu64", "-m", "256"]);
                if self.secure {
                    q.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
                }
                q
            }
            Arch::Arm64 => {
                let mut q = Command::new("qemu-system-aarch64");
                q.args(["-machine", "virt", "-accel", "tcg", "-cpu", "cortex-a57", "-m", "512"]);
                q
            }
        };
        qemu.args(["-display", "none", "-vga", "none", "-nic", "none", "-monitor", "none", "-no-reboot"])
            .args(["-drive", &drive(0, code, ",readonly=on"), "-drive", &drive(1, variables, "")])
            .args(["-serial", &format!("file:{}", serial(variables).display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        qemu
    }

    /// Runs a machine of [`Self::qemu`] until it is turned off, or for so long.
    pub(crate) fn run(mut qemu: Command, variables: &Path, limit: Duration) -> Console {
        let _turn = Turn::take();
        wait(qemu.spawn().unwrap_or_else(|e| panic!("{qemu:?}: {e}")), limit);
        let text = String::from_utf8_lossy(&std::fs::read(serial(variables)).unwrap_or_default()).into_owned();
        Console { text }
    }
}

/// Where the console goes: beside the variables.
fn serial(variables: &Path) -> PathBuf {
    variables.with_extension("serial")
}

/// Does something with each of these, as many at a time as there are processors; what came of it, in the same order.
pub(crate) fn in_parallel<T: Sync, R: Send>(all: &[T], job: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((n, one)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, all.get(n)?))) {
            done.push((n, job(one)));
        }
        done
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..most).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}

/// As many machines at a time as there are processors: more would only wait for each other, and run into their limits.
pub(crate) struct Turn;

static TURNS: Mutex<usize> = Mutex::new(0);
static FREE: Condvar = Condvar::new();

impl Turn {
    pub(crate) fn take() -> Self {
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        let mut running = FREE.wait_while(TURNS.lock().unwrap(), |running| *running >= most).unwrap();
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TURNS.lock().unwrap() -= 1;
        FREE.notify_one();
    }
}

/// KVM where it works. A device node alone says little: with some hosts the machine stops at its first instructions.
fn accelerator() -> &'static str {
    static FOUND: OnceLock<&str> = OnceLock::new();
    FOUND.get_or_init(|| {
        let works = cfg!(target_arch = "x86_64") && Path::new("/dev/kvm").exists() && {
            // Firmware that runs says something on the debug port soon, whatever there is to boot.
            let log = tempfile::NamedTempFile::new().unwrap();
            let child = Command::new("qemu-system-x86_64")
                .args(["-machine", "q35", "-accel", "kvm", "-cpu", "qemu64", "-m", "256", "-display", "none"])
                .args(["-vga", "none", "-nic", "none", "-monitor", "none", "-no-reboot"])
                .args(["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"])
                .args(["-drive", "if=pflash,format=raw,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd"])
                .args(["-serial", &format!("file:{}", log.path().display())])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            child.is_ok_and(|child| {
                wait(child, Duration::from_secs(8));
                std::fs::metadata(log.path()).is_ok_and(|m| m.len() > 0)
            })
        };
        let chosen = if works { "kvm" } else { "tcg" };
        crate::say(&format!("boots: x64 runs under {chosen}"));
        chosen
    })
}

/// Waits; kills it when its time is up.
fn wait(mut child: Child, limit: Duration) {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            if !status.success() {
                crate::say(&format!("boots: qemu: {status}"));
            }
            return;
        }
        if started.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What systemd-boot did in one state, from the lines of the test programs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Boot {
    /// `LoaderInfo`: which systemd-boot it was, as it says itself.
    pub(crate) loader: Option<String>,
    /// `LoaderEntries`: the menu.
    pub(crate) menu: Vec<String>,
    /// `LoaderEntrySelected`.
    pub(crate) selected: Option<String>,
    /// The payload that ran, and its command line.
    pub(crate) payload: Option<(String, String)>,
    /// File name in `LoaderBootCountPath`.
    pub(crate) counted: Option<String>,
    /// The machine was to be reset or turned off.
    pub(crate) reset: bool,
    /// `LoaderEntryOneShot` is still there.
    pub(crate) oneshot_left: bool,
    pub(crate) secure_boot: bool,
    pub(crate) setup_mode: bool,
    /// `OsIndicationsSupported`, its lowest byte.
    pub(crate) os_indications_supported: u64,
    /// The boot loader came back, or the payload said all it had to say.
    pub(crate) complete: bool,
}

impl Boot {
    /// The first boot that a console shows.
    pub(crate) fn single(text: &str) -> Self {
        Self::read(lines(text))
    }

    /// The boots of the runner by their number.
    pub(crate) fn many(text: &str) -> std::collections::BTreeMap<u32, Self> {
        let all: Vec<_> = lines(text).collect();
        all.split(|(tag, _)| *tag == "STATE")
            .skip(1)
            .zip(all.iter().filter(|(tag, _)| *tag == "STATE"))
            .map(|(part, (_, number))| (u32::from_str_radix(number, 16).unwrap(), Self::read(part.iter().copied())))
            .collect()
    }

    fn read<'a>(lines: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut boot = Self::default();
        for (tag, rest) in lines {
            let text = decode(rest);
            let text = text.trim_end_matches('\0');
            match tag {
                "PAYLOAD" => {
                    let (name, cmdline) = rest.split_once(' ').unwrap_or((rest, ""));
                    boot.payload = Some((name.to_owned(), decode(cmdline).trim_end_matches('\0').to_owned()));
                }
                "INFO" => boot.loader = Some(text.strip_prefix("systemd-boot ").unwrap_or(text).to_owned()),
                "ENTRIES" => boot.menu = text.split('\0').map(str::to_owned).collect(),
                "SELECTED" => boot.selected = Some(text.to_owned()),
                "COUNTED" => boot.counted = text.rsplit('\\').next().map(str::to_owned),
                "RESET" => boot.reset = true,
                "ONESHOT" => boot.oneshot_left = true,
                "SECUREBOOT" => boot.secure_boot = rest == "01",
                "SETUPMODE" => boot.setup_mode = rest == "01",
                "INDICATIONS" => {
                    let low = rest.get(..2).and_then(|byte| u64::from_str_radix(byte, 16).ok());
                    boot.os_indications_supported = low.unwrap_or(0);
                }
                "RETURNED" | "END" => boot.complete = true,
                _ => {}
            }
            if tag == "RETURNED" || tag == "END" {
                break;
            }
        }
        boot
    }
}

/// The lines of the test programs: tag and text. The console prints on the same port.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let line = line.trim_end().strip_suffix(" @")?;
        let (_, line) = line.rsplit_once("@@")?;
        Some(line.split_once(' ').unwrap_or((line, "")))
    })
}

/// `\0041` is U+0041.
fn decode(text: &str) -> String {
    let mut units = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match rest.strip_prefix('\\').and_then(|r| u16::from_str_radix(r.get(..4)?, 16).ok()) {
            Some(unit) => {
                units.push(unit);
                rest = &rest[5..];
            }
            None => {
                units.extend(c.encode_utf16(&mut [0; 2]).iter());
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    String::from_utf16_lossy(&units)
}
