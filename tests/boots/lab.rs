//! What `prepare.sh` laid ready: real systemd-boot and stubs, firmware, the test programs; and images made of them.

use bootsurgeon::boot::{Loader, LoaderVersion};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::Builder;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// Everything that real boots need.
pub(crate) struct Lab {
    /// What `prepare.sh` filled.
    pub(crate) dir: PathBuf,
    /// States for each version on x64.
    states: usize,
    nightly: bool,
}

impl Lab {
    /// `None`, and a line that says so, where nobody asked for real boots. Asked for, a missing tool is a failure.
    pub(crate) fn open() -> Option<&'static Self> {
        static LAB: OnceLock<Option<Lab>> = OnceLock::new();
        LAB.get_or_init(|| {
            let Ok(asked) = std::env::var("BOOTSURGEON_BOOTS") else {
                bootsurgeon::testkit::skipped::not_asked(
                    "real boots in QEMU. For them: BOOTSURGEON_BOOTS=ci cargo test --test boots",
                );
                return None;
            };
            let (states, nightly) = match asked.as_str() {
                "ci" => (40, false),
                "nightly" => (200, true),
                number => (number.parse().expect("BOOTSURGEON_BOOTS is ci, nightly, or a number"), false),
            };
            Some(Self { dir: prepare("boots"), states, nightly })
        })
        .as_ref()
    }

    /// The versions that the job is done with: what Talos 1.12 is nearest to, or all.
    pub(crate) fn for_the_job(&self, arch: Arch) -> Vec<Systemd> {
        let mut all = Systemd::all(&self.dir, arch);
        if !self.nightly {
            all.retain(|s| s.version.major == 257);
        }
        if arch == Arch::Arm64 {
            all.retain(|s| s.version.major >= 257);
            all.truncate(1);
        }
        all
    }

    /// Images after a power cut, for each version.
    pub(crate) fn crash_images(&self) -> usize {
        if self.nightly { 120 } else { 40 }
    }

    /// The oldest systemd-boot that there is, what Talos 1.12 is nearest to, and a new one; of which one takes the
    /// place of another. `None`, and a line that says so, where `BOOTSURGEON_BOOTS_VERSIONS` leaves one of them out.
    pub(crate) fn releases(&self, arch: Arch) -> Option<[Systemd; 3]> {
        let mut all = Systemd::all(&self.dir, arch);
        let mut of = |major| all.iter().position(|s| s.version.major == major).map(|at| all.remove(at));
        let releases = of(252).zip(of(257)).zip(of(262)).map(|((old, middle), new)| [old, middle, new]);
        if releases.is_none() {
            crate::say("boots: not run: this takes systemd-boot 252, 257 and 262");
        }
        releases
    }

    /// How many of the newer [`Self::releases`] take each other's place under Secure Boot; `None`, and a line that says
    /// so, where that is left to the night.
    pub(crate) fn signed_loaders(&self, arch: Arch) -> Option<usize> {
        match (self.nightly, arch) {
            (true, _) => Some(2),
            (false, Arch::Amd64) => Some(1),
            (false, Arch::Arm64) => {
                crate::say(
                    "boots: not run: `loader` under Secure Boot on arm64, which is for BOOTSURGEON_BOOTS=nightly",
                );
                None
            }
        }
    }

    /// Images after a power cut in a change of boot loaders or of a set, for each of these: at night all.
    pub(crate) fn further_crash_images(&self) -> usize {
        if self.nightly { usize::MAX } else { 12 }
    }

    /// The versions that ways from the firmware on are tried with: all, or one for arm64, which is slow.
    pub(crate) fn for_ways(&self, arch: Arch) -> Vec<Systemd> {
        if arch == Arch::Arm64 { self.for_the_job(arch) } else { Systemd::all(&self.dir, arch) }
    }

    /// Ways from the firmware on, each in a machine of its own, for each version.
    pub(crate) fn ways(&self, arch: Arch) -> usize {
        let otherwise = match (arch, self.nightly) {
            (Arch::Amd64, true) => 200,
            (Arch::Arm64, true) => 40,
            (Arch::Amd64, false) => 8,
            (Arch::Arm64, false) => 4,
        };
        number("BOOTSURGEON_WAYS", otherwise) as usize
    }

    /// U-Boot by its versions, oldest first.
    pub(crate) fn uboots(&self) -> Vec<(String, PathBuf)> {
        let all = std::fs::read_dir(self.dir.join("uboot")).unwrap().map(|e| e.unwrap());
        let mut all: Vec<_> = all.filter(|e| e.path().is_dir()).collect();
        all.sort_by_key(std::fs::DirEntry::file_name);
        all.iter().map(|e| (e.file_name().into_string().unwrap(), e.path().join("u-boot.bin"))).collect()
    }

    /// States with boot counters, each started several times.
    pub(crate) fn counted(&self) -> usize {
        if self.nightly { 16 } else { 4 }
    }

    /// How many states for each version, and how many of them in a machine of their own.
    pub(crate) fn amount(&self, arch: Arch) -> (usize, usize) {
        match (arch, self.nightly) {
            (Arch::Amd64, true) => (self.states, 12),
            (Arch::Arm64, true) => (40, 4),
            (Arch::Amd64, false) => (self.states, 1),
            (Arch::Arm64, false) => (self.states.min(12), 1),
        }
    }
}

/// Has `tests/NAME/prepare.sh` fill `target/NAME`, once, whichever test comes first.
pub(crate) fn prepare(name: &str) -> PathBuf {
    static PREPARED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut prepared = PREPARED.lock().unwrap();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join(name);
    if prepared.iter().any(|n| n == name) {
        return dir;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name).join("prepare.sh");
    let status = Command::new(&script).arg(&dir).status().expect("prepare.sh");
    assert!(status.success(), "{}: {status}", script.display());
    prepared.push(name.to_owned());
    dir
}

/// A number from the environment.
pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")),
        Err(_) => otherwise,
    }
}

/// An architecture as EFI file names call it.
pub(crate) fn efi_name(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x64",
        Arch::Arm64 => "aa64",
    }
}

/// A version of systemd-boot with its stub, for one architecture.
pub(crate) struct Systemd {
    pub(crate) arch: Arch,
    pub(crate) version: LoaderVersion,
    pub(crate) loader: Vec<u8>,
    pub(crate) stub: Vec<u8>,
    /// A stub that knows profiles: this version's own, or the oldest one that does.
    pub(crate) profile_stub: Vec<u8>,
    payload: Vec<u8>,
    runner: Vec<u8>,
}

impl Systemd {
    /// Every version there is for this architecture, oldest first; `BOOTSURGEON_BOOTS_VERSIONS` chooses.
    pub(crate) fn all(dir: &Path, arch: Arch) -> Vec<Self> {
        let wanted = std::env::var("BOOTSURGEON_BOOTS_VERSIONS").unwrap_or_default();
        let mut names: Vec<_> = std::fs::read_dir(dir.join("systemd"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "complete")
            .collect();
        names.sort();
        let stub = |name: &str| read(&dir.join("systemd").join(name).join(efi_name(arch)).join("stub.efi"));
        let knows_profiles = |name: &&String| LoaderVersion::parse(name).is_some_and(|v| v.major >= 257);
        let first = names.iter().find(knows_profiles).expect("a stub of 257 or newer");
        let is = |n: &str, w: &str| n == w || n.starts_with(w) && !names.iter().any(|exact| exact == w);
        let chosen = |n: &&String| wanted.is_empty() || wanted.split(',').any(|w| is(n, w));
        let open = |name: &String| {
            let loader = read(&dir.join("systemd").join(name).join(efi_name(arch)).join("systemd-boot.efi"));
            Self {
                arch,
                version: Loader::probe(&loader).expect("a systemd-boot").version,
                loader,
                stub: stub(name),
                profile_stub: stub(if knows_profiles(&name) { name } else { first }),
                payload: read(&dir.join("programs").join(format!("payload-{}.bin", efi_name(arch)))),
                runner: read(&dir.join("programs").join(format!("runner-{}.bin", efi_name(arch)))),
            }
        };
        names.iter().filter(chosen).map(open).collect()
    }

    /// The boot loader's path on a volume.
    pub(crate) fn loader_path(&self) -> &'static str {
        match self.arch {
            Arch::Amd64 => "EFI/BOOT/BOOTX64.EFI",
            Arch::Arm64 => "EFI/BOOT/BOOTAA64.EFI",
        }
    }

    /// The stand-in for a kernel, which prints this name.
    pub(crate) fn payload(&self, name: &str) -> Vec<u8> {
        const MARK: &[u8] = b"bootsurgeon-payload:";
        let mut code = self.payload.clone();
        let at = code.windows(MARK.len()).position(|w| w == MARK).expect("the payload's mark") + MARK.len();
        assert!(name.len() < 48 && !name.contains(['.', ' ']), "{name}");
        code[at..at + name.len()].copy_from_slice(name.as_bytes());
        // Stubs of 262 start only what is as long in memory as in the file.
        code.resize(code.len().next_multiple_of(512), 0);
        Builder::new(self.arch).section(".text", code).build()
    }

    /// The program that starts many boot loaders one after the other.
    pub(crate) fn runner(&self) -> Vec<u8> {
        let mut image = Builder::new(self.arch).section(".text", self.runner.clone()).build();
        let pe = 64;
        // Code and variables in one section: writable, too, and no promise about NX.
        let characteristics = pe + 24 + 240 + 36;
        image[characteristics..characteristics + 4].copy_from_slice(&0xE000_0020_u32.to_le_bytes());
        image[pe + 24 + 70..pe + 24 + 72].copy_from_slice(&0_u16.to_le_bytes());
        image
    }

    /// A UKI: the sections behind those of the stub.
    pub(crate) fn uki(&self, sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let profiles = sections.iter().any(|(name, _)| *name == ".profile");
        append_sections(if profiles { &self.profile_stub } else { &self.stub }, sections)
    }
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What `ukify` does, and room made in the headers where the stub has none.
pub(crate) fn append_sections(stub: &[u8], sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    const FILE_ALIGNMENT: usize = 512;
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([stub[at], stub[at + 1]]));
    let u32_at = |at: usize| u32::from_le_bytes(stub[at..at + 4].try_into().unwrap()) as usize;
    let pe = u32_at(60);
    let (count, table) = (u16_at(pe + 6), pe + 24 + u16_at(pe + 20));
    let old_headers = u32_at(pe + 24 + 60);
    let headers = (table + 40 * (count + sections.len())).next_multiple_of(FILE_ALIGNMENT).max(old_headers);
    let rows: Vec<usize> = (0..count).map(|i| table + 40 * i).collect();
    let first_in_memory = rows.iter().map(|r| u32_at(r + 12)).min().unwrap();
    assert!(headers <= first_in_memory, "no room for {} more section headers", sections.len());
    let moved = headers - old_headers;
    let data_end = rows.iter().map(|r| u32_at(r + 20) + u32_at(r + 16)).max().unwrap();

    let mut image = stub[..old_headers].to_vec();
    image.resize(headers, 0);
    image.extend(&stub[old_headers..data_end]);
    image.resize(image.len().next_multiple_of(FILE_ALIGNMENT), 0);
    let put = |image: &mut Vec<u8>, at: usize, value: usize| {
        image[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
    };
    for row in &rows {
        if u32_at(row + 20) != 0 {
            put(&mut image, row + 20, u32_at(row + 20) + moved);
        }
    }
    let alignment = u32_at(pe + 24 + 32);
    let mut memory = rows.iter().map(|r| u32_at(r + 12) + u32_at(r + 8)).max().unwrap().next_multiple_of(alignment);
    for (i, (name, data)) in sections.iter().enumerate() {
        let row = table + 40 * (count + i);
        image[row..row + 40].fill(0);
        image[row..row + name.len()].copy_from_slice(name.as_bytes());
        let raw = data.len().next_multiple_of(FILE_ALIGNMENT);
        let at = image.len();
        for (field, value) in [(8, data.len()), (12, memory), (16, raw), (20, at), (36, 0x4000_0040)] {
            put(&mut image, row + field, value);
        }
        image.extend(data);
        image.resize(at + raw, 0);
        memory = (memory + data.len().max(1)).next_multiple_of(alignment);
    }
    let total = u16::try_from(count + sections.len()).unwrap();
    image[pe + 6..pe + 8].copy_from_slice(&total.to_le_bytes());
    // No symbols: their offset would be wrong now.
    image[pe + 12..pe + 20].fill(0);
    put(&mut image, pe + 24 + 56, memory);
    put(&mut image, pe + 24 + 60, headers);
    image
}
