//! What the integration tests share: fixtures unpacked into a folder of their own, and the tools that judge the result.
//!
//! The tools are other people's (dosfstools, mtools, gdisk, libarchive, sbsigntool): a test that asks this project's
//! own readers whether this project's own writers were right would prove little. Where a tool is missing, the test says
//! so in a line and goes on; under `CI` (the environment variable) a missing tool is a failure.

// Every test program compiles this module for itself and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

pub use bootsurgeon::testkit::skipped::skip;

/// The folder `fixtures/` of the repository.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The program under test, as yet without arguments: the one that cargo built. `BOOTSURGEON_TEST_PROGRAM` names another
/// build of it, and `BOOTSURGEON_TEST_RUNNER` what runs it there, with its own arguments: `qemu-aarch64-static -cpu
/// max`.
///
/// # Panics
/// When the program that was named does not exist.
#[must_use]
pub fn program() -> Command {
    let program = match std::env::var_os("BOOTSURGEON_TEST_PROGRAM") {
        // Some tests start it in another folder.
        Some(path) => std::fs::canonicalize(&path).unwrap_or_else(|e| panic!("BOOTSURGEON_TEST_PROGRAM={path:?}: {e}")),
        None => PathBuf::from(env!("CARGO_BIN_EXE_bootsurgeon")),
    };
    let runner = std::env::var("BOOTSURGEON_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(first) = words.next() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(words).arg(program);
    command
}

/// A report as it would be on an endless line: what was broken at the width of the page is put together again.
#[must_use]
pub fn unwrapped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        match line.strip_prefix("      ") {
            Some(rest) if !out.is_empty() => {
                out.push(' ');
                out.push_str(rest.trim_start());
            }
            _ => {
                out.push_str(if out.is_empty() { "" } else { "\n" });
                out.push_str(line);
            }
        }
    }
    out
}

/// A folder for one test, gone with the value.
pub struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// An empty folder.
    #[must_use]
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    /// The path of `name` in the folder, whether it exists or not.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Unpacks a fixture, named like `disk-512.img.zst` or `disk/disk-512.img.zst`, and returns the path of the result
    /// (`…/disk-512.img`). It may be written to. Runs of zeros become holes, so a 288 MiB disk takes well under a MiB.
    #[must_use]
    pub fn fixture(&self, name: &str) -> PathBuf {
        self.fixture_as(name, Path::new(name).file_stem().and_then(OsStr::to_str).expect("a file name"))
    }

    /// [`Lab::fixture`] under another name, for tests that need one fixture twice.
    #[must_use]
    pub fn fixture_as(&self, name: &str, unpacked: &str) -> PathBuf {
        let packed = find_fixture(name);
        let out = self.path(unpacked);
        let source = File::open(&packed).unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
        let mut source = zstd::stream::read::Decoder::new(source).expect("a zstd stream");
        let mut target = File::create(&out).unwrap_or_else(|e| panic!("{}: {e}", out.display()));
        copy_sparse(&mut source, &mut target).unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
        out
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// The packed fixture of this name, in whichever folder of `fixtures/` it lies.
fn find_fixture(name: &str) -> PathBuf {
    ["", "uki", "iso", "fat", "disk"]
        .iter()
        .map(|folder| fixtures().join(folder).join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("there is no fixture {name}; fixtures/README.md lists them"))
}

/// Copies everything, leaving holes where the source has 64 KiB of zeros.
///
/// # Errors
/// What the files report.
pub fn copy_sparse(source: &mut impl Read, target: &mut File) -> io::Result<()> {
    static ZEROS: [u8; 65536] = [0; 65536];
    let mut buffer = vec![0; ZEROS.len()];
    let mut length = 0;
    loop {
        let filled = read_full(source, &mut buffer)?;
        if filled == 0 {
            break;
        }
        length += filled as u64;
        if buffer[..filled] == ZEROS[..filled] {
            target.seek(SeekFrom::Start(length))?;
        } else {
            target.write_all(&buffer[..filled])?;
        }
    }
    target.set_len(length)
}

/// Reads until the buffer is full or the source has ended.
fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Lower-case hex SHA-256 of a file.
#[must_use]
pub fn sha256(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut buffer = vec![0; 65536];
    let mut hasher = Sha256::new();
    loop {
        match read_full(&mut file, &mut buffer).unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
            0 => return hex::encode(hasher.finalize()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Whether a tool can be run. Where it cannot, the caller returns: the test counts as not run ([`skip`]).
///
/// # Panics
/// When the tool is missing and `CI` is set.
#[must_use]
pub fn tool(program: &str) -> bool {
    if locate(program).is_some() {
        return true;
    }
    skip(&format!("tool missing: {program}"));
    false
}

/// [`tool`] for several of them: true when all are there.
#[must_use]
pub fn tools(programs: &[&str]) -> bool {
    programs.iter().all(|program| tool(program))
}

/// The tool's path: in `PATH`, or in the folders for the administrator, which a plain user's `PATH` leaves out.
fn locate(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Runs a tool that [`tool`] has found, whatever its exit status.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn run<A: AsRef<OsStr>>(program: &str, args: &[A]) -> Output {
    let path = locate(program).unwrap_or_else(|| panic!("{program} is missing; ask tool(\"{program}\") first"));
    Command::new(path)
        .args(args)
        // mtools converts long names by the locale, and without this refuses volumes with odd geometry.
        .envs([("LC_ALL", "C.UTF-8"), ("TZ", "UTC"), ("MTOOLS_SKIP_CHECK", "1")])
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// [`run`], and the tool's standard output.
///
/// # Panics
/// With all the tool said, when it fails.
pub fn run_ok<A: AsRef<OsStr>>(program: &str, args: &[A]) -> Vec<u8> {
    let output = run(program, args);
    assert!(output.status.success(), "{program}: {}\n{}", output.status, said(&output));
    output.stdout
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Asserts that `fsck.fat -n` finds nothing wrong with the FAT volume at byte `offset` of an image (0 for a bare
/// volume). Returns false, having said so, where the tool is missing.
pub fn fsck_clean(image: &Path, offset: u64) -> bool {
    if !tool("fsck.fat") {
        return false;
    }
    let (_scratch, volume) = volume_at(image, offset);
    let output = run("fsck.fat", &[OsStr::new("-n"), volume.as_os_str()]);
    assert!(output.status.success(), "{} at {offset}: fsck.fat: {}", image.display(), said(&output));
    true
}

/// The FAT volume at `offset` as a file of its own (fsck.fat knows no offsets), as long as its boot sector says.
fn volume_at(image: &Path, offset: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("volume.img");
    let copy = || -> io::Result<()> {
        let mut source = File::open(image)?;
        source.seek(SeekFrom::Start(offset))?;
        let mut boot = [0; 512];
        source.read_exact(&mut boot)?;
        let u16_at = |at: usize| u16::from_le_bytes([boot[at], boot[at + 1]]);
        // BPB_TotSec16, or BPB_TotSec32 where that is 0, in units of BPB_BytsPerSec.
        let sectors = match u16_at(19) {
            0 => u32::from_le_bytes([boot[32], boot[33], boot[34], boot[35]]),
            n => u32::from(n),
        };
        source.seek(SeekFrom::Start(offset))?;
        copy_sparse(&mut source.take(u64::from(sectors) * u64::from(u16_at(11))), &mut File::create(&path)?)
    };
    copy().unwrap_or_else(|e| panic!("{} at {offset}: {e}", image.display()));
    (dir, path)
}

/// mtools' name for the volume at `offset` of an image.
fn mtools_image(image: &Path, offset: u64) -> String {
    format!("{}@@{offset}", image.display())
}

/// The bytes of the file `path` (`EFI/Linux/Talos-v1.12.4.efi`; mtools takes `*`, `?` and `[` for patterns) on the FAT
/// volume at `offset`, read by mtools; `None` where there is no such file. Ask [`tool`] for `mcopy` first. mtools sees
/// nothing on a FAT32 volume with fewer than 65,525 clusters.
#[must_use]
pub fn mtools_read(image: &Path, offset: u64, path: &str) -> Option<Vec<u8>> {
    let output = run("mcopy", &["-n", "-i", &mtools_image(image, offset), &format!("::/{path}"), "-"]);
    output.status.success().then_some(output.stdout)
}

/// Every file and directory on the FAT volume at `offset`, by mtools, sorted; directories end in `/`. As for
/// [`mtools_read`].
#[must_use]
pub fn mtools_list(image: &Path, offset: u64) -> Vec<String> {
    let listing = run_ok("mdir", &["-/", "-b", "-a", "-i", &mtools_image(image, offset), "::/"]);
    let mut names: Vec<_> =
        String::from_utf8_lossy(&listing).lines().map(|line| line.trim_start_matches("::/").to_owned()).collect();
    names.sort();
    names
}

/// Asserts that `sgdisk -v` finds no problem with the GPT of a disk image with 512-byte sectors. Returns false, having
/// said so, where the tool is missing.
pub fn gpt_clean(disk: &Path) -> bool {
    if !tool("sgdisk") {
        return false;
    }
    let output = run("sgdisk", &[OsStr::new("-v"), disk.as_os_str()]);
    assert!(said(&output).contains("No problems found"), "{}: sgdisk: {}", disk.display(), said(&output));
    true
}

/// Whether `sbverify` accepts a signature of this certificate (PEM) on the image. Ask [`tool`] first.
#[must_use]
pub fn sbverify(image: &Path, certificate: &Path) -> bool {
    run("sbverify", &[OsStr::new("--cert"), certificate.as_os_str(), image.as_os_str()]).status.success()
}

/// A file's bytes out of an ISO's tree, by libarchive. Ask [`tool`] for `bsdtar` first.
#[must_use]
pub fn bsdtar_read(iso: &Path, path: &str) -> Vec<u8> {
    run_ok("bsdtar", &[OsStr::new("-xOf"), iso.as_os_str(), OsStr::new(path)])
}
