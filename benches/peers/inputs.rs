//! The inputs, of the size they have in the field: a 120 MB UKI, its 250 MB Secure Boot ISO, a 2 GiB disk. Made once,
//! kept in the target folder.
//!
//! The UKIs are the small ones of `fixtures/` (whose stub is systemd's own) with a large initrd: two zstd archives of
//! squashfs files that cannot be compressed further, as in the field. PCR policy, signature, ISO and disk are made as
//! for the fixtures, by the same tools.

use super::measure::{Outcome, Step, fixtures, volume};
use bootsurgeon::block::Sink;
use bootsurgeon::pcr::{self, Bank, SectionHashes};
use bootsurgeon::pe::{Arch, Head};
use bootsurgeon::testkit::squashfs;
use bootsurgeon::testkit::uki::{Builder, cpio, extensions_yaml, zstd};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes of the two large files in the initrd.
const ROOTFS: usize = 72_000_000;
const EXTENSION: usize = 48_000_000;
/// The latter in the image of [`Inputs::long_uki`], which is 126 MB long.
const LONG_EXTENSION: usize = 54_000_000;
/// Where the ESP begins on the disk, and how long it is, in MiB.
const ESP_AT: u64 = 1;
const ESP_MIB: u64 = 1536;
/// Length of the volume of [`Inputs::full_esp`], in MiB.
const FULL_ESP_MIB: u64 = 2048;
/// Changes with what is made here, so that older inputs are made anew.
const EDITION: &str = "4";
/// The canonical schematic of the initrd's last layer.
const SCHEMATIC: &str =
    "customization:\n    systemExtensions:\n        officialExtensions:\n            - siderolabs/tailscale\n";

/// The schematic under which the local factory serves the images.
pub(super) const SCHEMATIC_ID: &str = "4a0d65c669d46663f377e7161e50cfd570c401f26fd9e7bda34a0216b6f1922b";

/// Programs without which the inputs cannot be made.
pub(super) const TOOLS: [&str; 9] =
    ["zstd", "openssl", "sbsign", "xorrisofs", "mkfs.vfat", "mcopy", "mmd", "sgdisk", "cp"];

/// Where the inputs are.
pub(super) struct Inputs {
    pub(super) folder: PathBuf,
    /// The new UKI, as it is in the ISO.
    pub(super) uki: PathBuf,
    /// The UKI that is installed on the disk.
    pub(super) old: PathBuf,
    pub(super) iso: PathBuf,
    /// The disk as it is before a swap; copy it, do not change it.
    pub(super) disk: PathBuf,
    /// A packed FAT image with the new UKI and files of a board.
    pub(super) board: PathBuf,
    /// The small disk of the fixtures.
    pub(super) small_disk: PathBuf,
    /// The signer.
    pub(super) cert: PathBuf,
}

impl Inputs {
    /// The name of the new UKI in the ISO.
    pub(super) const IN_ISO: &'static str = "EFI/Linux/Talos-v1.12.4.efi";
    /// The name of the installed UKI; its duplicate has `~1` in front of the suffix.
    pub(super) const INSTALLED: &'static str = "Talos-v1.12.3.efi";
    /// Where the ESP is on the disk, in bytes.
    pub(super) const ESP_OFFSET: u64 = ESP_AT << 20;

    /// Makes what is not there yet.
    pub(super) fn make(folder: &Path) -> Outcome<Self> {
        let at = |name: &str| folder.join(name);
        let inputs = Self {
            folder: folder.to_owned(),
            uki: at("new.efi"),
            old: at("old.efi"),
            iso: at("metal-arm64-secureboot.iso"),
            disk: at("disk.img"),
            board: at("board.img.zst"),
            small_disk: at("small-disk.img"),
            cert: fixtures().join("keys/test-signing.crt"),
        };
        let edition = at("edition");
        if fs::read_to_string(&edition).is_ok_and(|e| e == EDITION) {
            return Ok(inputs);
        }
        eprintln!("making the inputs in {}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        inputs.make_uki("uki/talos-v1.12.4-arm64-iso.efi.zst", &inputs.uki, 1, EXTENSION)?;
        inputs.make_uki("uki/talos-v1.12.3-arm64-installer.efi.zst", &inputs.old, 2, EXTENSION)?;
        inputs.make_iso()?;
        inputs.make_disk()?;
        inputs.make_board()?;
        unpack("disk/disk-512.img.zst", &inputs.small_disk)?;
        fs::write(edition, EDITION)?;
        Ok(inputs)
    }

    /// A UKI of 126 MB, made when it is asked for.
    pub(super) fn long_uki(&self) -> Outcome<PathBuf> {
        let long = self.folder.join("long.efi");
        if !long.exists() {
            self.make_uki("uki/talos-v1.12.4-arm64-iso.efi.zst", &long, 1, LONG_EXTENSION)?;
        }
        Ok(long)
    }

    /// An ESP of 2 GiB without a partition table around it, with four UKIs: the installed one and three backups.
    pub(super) fn full_esp(&self) -> Outcome<PathBuf> {
        let (esp, done) = (self.folder.join("full-esp.img"), self.folder.join("full-esp.done"));
        if !done.exists() {
            fs::File::create(&esp)?.set_len(FULL_ESP_MIB << 20)?;
            self.sh(&[&"mkfs.vfat", &"-F", &"32", &"-n", &"EFI", &esp])?;
            let backups = [3, 2, 1].map(|n| format!("{}.bak.17{n}0000000", Self::INSTALLED));
            let files = [Self::INSTALLED, &backups[0], &backups[1], &backups[2]];
            self.fill(&volume(&esp, 0), &files.map(|name| (&*self.old, name)))?;
            fs::write(done, [])?;
        }
        Ok(esp)
    }

    fn sh(&self, argv: &[&dyn AsRef<std::ffi::OsStr>]) -> Outcome<()> {
        Step::new(argv).run(&self.folder).map(drop)
    }

    /// The UKI of a fixture with a large initrd, its PCR policy over that, signed.
    fn make_uki(&self, fixture: &str, out: &Path, seed: u64, extension: usize) -> Outcome<()> {
        let small = zstd_read(fixture)?;
        let yaml = extensions_yaml(&[("tailscale", "1.90.6")], SCHEMATIC);
        let root = squashfs::image(&[("sbin/init", &noise(ROOTFS, seed))])?;
        let base = cpio(&[("rootfs.sqsh", &root)])?;
        drop(root);
        let extension = squashfs::image(&[("usr/local/bin/tailscaled", &noise(extension, seed + 2))])?;
        let schematic = squashfs::image(&[("schematic.yaml", SCHEMATIC.as_bytes())])?;
        let layers = cpio(&[("0.sqsh", &extension), ("1.sqsh", &schematic), ("extensions.yaml", yaml.as_bytes())])?;
        let initrd = [zstd(&base, 1)?, zstd(&layers, 1)?].concat();
        drop((base, layers));

        let head = Head::read(&small)?;
        let build = |policies: &[String]| {
            let mut policies = policies.iter();
            head.sections.iter().fold(Builder::new(Arch::Arm64), |builder, section| {
                let data = section.data();
                let old = small.get(data.offset as usize..(data.offset + data.bytes) as usize).unwrap_or_default();
                match &*section.name {
                    ".initrd" => builder.section(".initrd", &initrd[..]),
                    ".pcrsig" => builder.section(".pcrsig", policies.next().map_or("{}", |p| p).as_bytes()),
                    name => builder.section(name, old),
                }
            })
        };
        let policies = policies(&build(&[]).build())?;
        let unsigned = self.folder.join("unsigned.efi");
        fs::write(&unsigned, build(&policies).build())?;
        let key = fixtures().join("keys/test-signing.key");
        self.sh(&[&"sbsign", &"--key", &key, &"--cert", &self.cert, &"--output", &out, &unsigned])?;
        Ok(fs::remove_file(unsigned)?)
    }

    /// The Secure Boot ISO by the arguments of siderolabs/talos `pkg/imager/iso/uefi.go`.
    fn make_iso(&self) -> Outcome<()> {
        let fat = self.folder.join("efiboot.img");
        let bytes = fs::metadata(&self.uki)?.len();
        fs::File::create(&fat)?.set_len((bytes >> 20 << 20) + (12 << 20))?;
        self.sh(&[&"mkfs.vfat", &"-F", &"32", &"-n", &"EFI", &fat])?;
        self.fill(&volume(&fat, 0), &[(&self.uki, "Talos-v1.12.4.efi")])?;
        let tree = self.folder.join("tree");
        fs::create_dir_all(tree.join("EFI/Linux"))?;
        fs::copy(&self.uki, tree.join(Self::IN_ISO))?;
        self.sh(&[
            &"xorrisofs",
            &"-quiet",
            &"-e",
            &"--interval:appended_partition_2:all::",
            &"-append_partition",
            &"2",
            &"0xef",
            &fat,
            &"-partition_cyl_align",
            &"all",
            &"-partition_offset",
            &"16",
            &"-iso_mbr_part_type",
            &"0x83",
            &"-no-emul-boot",
            &"-m",
            &"efiboot.img",
            &"-iso-level",
            &"3",
            &"-o",
            &self.iso,
            &tree,
            &"--",
            &"-volid",
            &"TALOS_V1_12_4",
            &"-volset-id",
            &"Talos-v1.12.4",
        ])?;
        fs::remove_file(fat)?;
        Ok(fs::remove_dir_all(tree)?)
    }

    /// Bytes of the board's files in [`Self::board`], all together.
    pub(super) const BOARD_FILES: usize = 40 * 250_000;

    /// The new UKI with 40 overlays, in a directory that the disk's ESP does not have.
    fn make_board(&self) -> Outcome<()> {
        let image = self.folder.join("board.img");
        fs::File::create(&image)?.set_len(256 << 20)?;
        self.sh(&[&"mkfs.vfat", &"-F", &"32", &"-n", &"EFI", &image])?;
        let esp = volume(&image, 0);
        self.fill(&esp, &[(&self.uki, "Talos-v1.12.4.efi")])?;
        self.sh(&[&"mmd", &"-i", &esp, &"::/overlays"])?;
        let overlay = self.folder.join("overlay");
        for n in 0..40 {
            fs::write(&overlay, noise(Self::BOARD_FILES / 40, 100 + n))?;
            self.sh(&[&"mcopy", &"-i", &esp, &overlay, &format!("::/overlays/overlay-{n}.dtbo")])?;
        }
        fs::remove_file(overlay)?;
        self.sh(&[&"zstd", &"-q", &"-1", &"--rm", &image])
    }

    /// A node's disk after a failed upgrade: the installed UKI and a duplicate.
    fn make_disk(&self) -> Outcome<()> {
        fs::File::create(&self.disk)?.set_len(2 << 30)?;
        let esp = self.folder.join("esp.img");
        fs::File::create(&esp)?.set_len(ESP_MIB << 20)?;
        let partition = format!("1:{ESP_AT}M:+{ESP_MIB}M");
        let kind = "1:C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
        self.sh(&[&"sgdisk", &"-n", &partition, &"-c", &"1:EFI", &"-t", &kind, &self.disk])?;
        self.sh(&[&"mkfs.vfat", &"-F", &"32", &"-n", &"EFI", &esp])?;
        let duplicate = Self::INSTALLED.replace(".efi", "~1.efi");
        self.fill(&volume(&esp, 0), &[(&self.old, Self::INSTALLED), (&self.old, &duplicate)])?;
        let seek = format!("seek={ESP_AT}");
        let (from, to) = (format!("if={}", esp.display()), format!("of={}", self.disk.display()));
        self.sh(&[&"dd", &from, &to, &"bs=1M", &seek, &"conv=notrunc,sparse", &"status=none"])?;
        Ok(fs::remove_file(esp)?)
    }

    /// What Talos keeps on an ESP, with these UKIs.
    fn fill(&self, volume: &str, ukis: &[(&Path, &str)]) -> Outcome<()> {
        for dir in ["EFI", "EFI/BOOT", "EFI/Linux", "loader", "loader/keys", "loader/keys/auto"] {
            self.sh(&[&"mmd", &"-i", &volume, &format!("::/{dir}")])?;
        }
        let conf = self.folder.join("loader.conf");
        fs::write(&conf, "# systemd-boot configuration\n\ntimeout 10\n")?;
        self.sh(&[&"mcopy", &"-i", &volume, &conf, &"::/loader/loader.conf"])?;
        let db = fixtures().join("keys-auto/db.auth");
        self.sh(&[&"mcopy", &"-i", &volume, &db, &"::/loader/keys/auto/db.auth"])?;
        for (uki, name) in ukis {
            self.sh(&[&"mcopy", &"-i", &volume, uki, &format!("::/EFI/Linux/{name}")])?;
        }
        // Without a boot loader nothing starts these images, and a swap is refused.
        let loader = self.folder.join("loader.efi");
        let magic = "#### LoaderInfo: systemd-boot 257.9-talos ####\0";
        fs::write(&loader, Builder::new(Arch::Arm64).section(".text", [0xC3]).section(".sdmagic", magic).build())?;
        self.sh(&[&"mcopy", &"-i", &volume, &loader, &"::/EFI/BOOT/BOOTAA64.EFI"])
    }
}

/// The `.pcrsig` of every profile of an image, by the fixtures' PCR key, for the bank that Talos unseals with.
fn policies(image: &[u8]) -> Outcome<Vec<String>> {
    let key = fixtures().join("keys/test-pcr-signing.key");
    let public = openssl(&["rsa", "-in", &key.display().to_string(), "-pubout"], b"")?;
    let head = Head::read(&image)?;
    let mut hashes = SectionHashes::new(&head, &[Bank::Sha256])?;
    hashes.chunk(image)?;
    let hashes = hashes.finish()?;
    let section = |name: &str| {
        let data = head.sections.iter().find(|s| s.name == name).map(bootsurgeon::pe::Section::data);
        data.and_then(|d| image.get(d.offset as usize..(d.offset + d.bytes) as usize)).unwrap_or_default()
    };
    let stub = pcr::stub_version(section(".sdmagic"));
    let mut all = Vec::new();
    for profile in pcr::profiles(&head.sections, stub) {
        let values =
            pcr::values(Bank::Sha256, &profile.measured, &hashes, &pcr::TALOS_PHASES).ok_or("PCR 11 is incomplete")?;
        let policy = pcr::policy_digest(Bank::Sha256, values.last());
        let signature = openssl(&["dgst", "-sha256", "-sign", &key.display().to_string()], &policy)?;
        use base64::Engine as _;
        let signature = base64::engine::general_purpose::STANDARD.encode(signature);
        let fingerprint = pcr::key_fingerprint(&public)?;
        let policy = hex::encode(policy);
        all.push(format!(
            r#"{{"sha256":[{{"pcrs":[11],"pkfp":"{fingerprint}","pol":"{policy}","sig":"{signature}"}}]}}"#
        ));
    }
    Ok(all)
}

fn openssl(args: &[&str], stdin: &[u8]) -> Outcome<Vec<u8>> {
    let (inlet, outlet) = (Stdio::piped(), Stdio::piped());
    let mut child = Command::new("openssl").args(args).stdin(inlet).stdout(outlet).stderr(Stdio::null()).spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(stdin)?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() { Ok(output.stdout) } else { Err(format!("openssl {args:?}: {}", output.status).into()) }
}

/// Bytes that cannot be compressed: xorshift64.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2 * seed + 1);
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

fn zstd_read(fixture: &str) -> Outcome<Vec<u8>> {
    Step::new(&[&"zstd", &"-dcq", &fixtures().join(fixture)]).run(&fixtures())
}

/// A fixture as a file with holes.
fn unpack(fixture: &str, out: &Path) -> Outcome<()> {
    Step::new(&[&"zstd", &"-dqf", &"--sparse", &fixtures().join(fixture), &"-o", &out]).run(&fixtures()).map(drop)
}
