//! What grows, and what is run on it.

use super::images;
use super::measure::{Outcome, Step, ours};
use super::volume::{Content, Volume};
use bootsurgeon::testkit::{signing::SigningKey, talos};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
/// The file of most volumes: sparse, in clusters of 4 KiB.
pub(super) const ESP: &str = "esp.img";
const INSTALLED: &str = "EFI/Linux/Talos-v1.12.3.efi";

/// Something that grows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Uki,
    Esp,
    Files,
    Type1,
    Iso,
    Backups,
}

/// A command to be measured.
pub(super) struct Task {
    pub(super) name: &'static str,
    pub(super) step: Step,
    /// The volume that it changes: written anew before each run.
    pub(super) renew: Option<Volume>,
}

impl Subject {
    pub(super) const ALL: [Self; 6] = [Self::Uki, Self::Esp, Self::Files, Self::Type1, Self::Iso, Self::Backups];

    /// The name of its plot.
    pub(super) fn slug(self) -> &'static str {
        match self {
            Self::Uki => "uki",
            Self::Esp => "esp",
            Self::Files => "files",
            Self::Type1 => "type1",
            Self::Iso => "iso",
            Self::Backups => "backups",
        }
    }

    /// What is counted.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Uki => "Size of the UKI",
            Self::Esp => "Size of the ESP (clusters of 512 bytes, half of them in use)",
            Self::Files => "UKIs in EFI/Linux",
            Self::Type1 => "Type #1 entries in loader/entries",
            Self::Iso => "Entries of an ISO's first directory",
            Self::Backups => "Backups in EFI/Linux",
        }
    }

    pub(super) fn points(self) -> &'static [u64] {
        match self {
            Self::Uki => &[1_000_000, 16_000_000, 128_000_000, 512_000_000, 2_000_000_000],
            Self::Esp => &[64 * MIB, 512 * MIB, 4096 * MIB, 16_384 * MIB, 32_768 * MIB],
            Self::Files => &[1, 10, 100, 1_000, 10_000],
            Self::Type1 => &[1, 16, 128, 512, 1_024],
            Self::Iso => &[10, 100, 1_000, 10_000, 100_000],
            Self::Backups => &[1, 10, 100, 300, 1_000],
        }
    }

    /// A point for people.
    pub(super) fn shown(self, x: u64) -> String {
        match self {
            Self::Uki if x >= 1_000_000_000 => format!("{} GB", x / 1_000_000_000),
            Self::Uki => format!("{} MB", x / 1_000_000),
            Self::Esp if x >= 1024 * MIB => format!("{} GiB", x / (1024 * MIB)),
            Self::Esp => format!("{} MiB", x / MIB),
            _ if x >= 1000 => format!("{},{:03}", x / 1000, x % 1000),
            _ => x.to_string(),
        }
    }

    /// Makes the inputs of one point in `folder`, and says what is to be run there.
    pub(super) fn prepare(self, folder: &Path, x: u64) -> Outcome<Vec<Task>> {
        let bench = Bench { folder, esp: folder.join(ESP), key: images::key()? };
        std::fs::write(folder.join("signer.pem"), bench.key.certificate_pem()?)?;
        match self {
            Self::Uki => bench.uki(x),
            Self::Esp => bench.esp(x),
            Self::Files => bench.files(x),
            Self::Type1 => bench.type1(x),
            Self::Iso => bench.iso(x),
            Self::Backups => bench.backups(x),
        }
    }
}

struct Bench<'f> {
    folder: &'f Path,
    esp: PathBuf,
    key: SigningKey,
}

impl Bench<'_> {
    fn uki(&self, bytes: u64) -> Outcome<Vec<Task>> {
        images::long_uki(&self.folder.join("new.efi"), bytes)?;
        let verify = ours(&[&"verify", &"new.efi", &"--cert", &"signer.pem", &"--efivars", &"none"]);
        let volume = self.with_one_uki(4096 * MIB, 8)?;
        Ok(vec![Task { name: "verify", step: verify, renew: None }, self.swap(volume)])
    }

    fn esp(&self, bytes: u64) -> Outcome<Vec<Task>> {
        const LONGEST: u64 = 2 << 30;
        let mut volume = self.with_one_uki(bytes, 1)?;
        let mut left = bytes / 2;
        while left > 0 {
            let part = left.min(LONGEST);
            volume.add(format!("other/file-{left}.bin"), Content::Hole(part as u32));
            left -= part;
        }
        volume.write(&self.esp)?;
        images::new_uki(&self.folder.join("new.efi"))?;
        Ok(vec![
            self.on_esp("status --no-hashes", &["status", ESP, "--no-hashes"]),
            self.on_esp("doctor", &["doctor", ESP]),
            self.swap(volume),
        ])
    }

    fn files(&self, files: u64) -> Outcome<Vec<Task>> {
        let mut volume = self.with_one_uki(1024 * MIB, 8)?;
        for n in 1..files {
            let version = format!("v1.{}.{}", n / 100 % 12, n);
            volume.add(format!("EFI/Linux/Talos-{version}.efi"), Content::of(images::short_uki(&version)));
        }
        volume.write(&self.esp)?;
        images::new_uki(&self.folder.join("new.efi"))?;
        Ok(vec![self.on_esp("status", &["status", ESP]), self.swap(volume)])
    }

    fn type1(&self, entries: u64) -> Outcome<Vec<Task>> {
        let mut volume = self.with_one_uki(1024 * MIB, 8)?;
        for n in 0..entries {
            let kernel = format!("kernels/{n}/linux.efi");
            let text = format!(
                "title Linux {n}\nversion 6.{n}.0\nmachine-id 0123456789abcdef0123456789abcdef\nsort-key linux\n\
                 options root=LABEL=root quiet\nlinux /{kernel}\ninitrd /kernels/{n}/initrd\n"
            );
            volume.add(format!("loader/entries/linux-6.{n}.0.conf"), Content::of(text.into_bytes()));
            volume.add(kernel, Content::of(images::short_uki(&format!("6.{n}.0"))));
            volume.add(format!("kernels/{n}/initrd"), Content::of(*b"070701"));
        }
        volume.write(&self.esp)?;
        Ok(vec![self.on_esp("status", &["status", ESP])])
    }

    fn iso(&self, entries: u64) -> Outcome<Vec<Task>> {
        images::iso(&self.folder.join("image.iso"), entries as usize)?;
        let extract = ours(&[&"extract", &"image.iso", &"--out", &"out.efi", &"--force"]);
        let inspect = ours(&[&"inspect", &"image.iso"]);
        Ok(vec![
            Task { name: "inspect", step: inspect, renew: None },
            Task { name: "extract", step: extract, renew: None },
        ])
    }

    fn backups(&self, backups: u64) -> Outcome<Vec<Task>> {
        let mut volume = self.with_one_uki(1024 * MIB, 8)?;
        for n in 0..backups {
            let (name, version) = (format!("{INSTALLED}.bak.{}", 1_700_000_000 + n), format!("v1.11.{n}"));
            volume.add(name, Content::of(images::short_uki(&version)));
        }
        volume.write(&self.esp)?;
        let prune = ["prune", ESP, "--keep-backups", "1", "--dry-run"];
        Ok(vec![self.on_esp("status", &["status", ESP]), self.on_esp("prune --keep-backups 1 --dry-run", &prune)])
    }

    /// What is on every ESP: a boot loader, its settings, and the UKI that starts.
    fn with_one_uki(&self, bytes: u64, cluster: u64) -> Outcome<Volume> {
        let mut volume = Volume::new(bytes, cluster);
        let loader = format!("EFI/BOOT/{}", talos::ARCH.removable_loader());
        volume.add(loader, Content::of(talos::loader(&self.key)?));
        volume.add("loader/loader.conf", Content::of(*b"timeout 10\n"));
        volume.add(INSTALLED, Content::of(images::short_uki("v1.12.3")));
        Ok(volume)
    }

    fn on_esp(&self, name: &'static str, args: &[&str]) -> Task {
        let args = [args, &["--efivars", "none"]].concat();
        let line: Vec<&dyn AsRef<std::ffi::OsStr>> = args.iter().map(|arg| arg as _).collect();
        Task { name, step: ours(&line), renew: None }
    }

    fn swap(&self, volume: Volume) -> Task {
        let args = ["swap", ESP, "new.efi", "--cert", "signer.pem", "--yes"];
        Task { renew: Some(volume), ..self.on_esp("swap", &args) }
    }
}
