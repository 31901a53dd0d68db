//! A node to operate on: a disk with systemd-boot and an old image, the new image on another volume, the firmware's
//! variables.

use crate::lab::{Systemd, prepare};
use crate::machine::{Boot, Machine};
use crate::support::{fsck_clean, mtools_read, tools};
use crate::{nvram, volume};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::signing::{SigningKey, sign_pe};
use bootsurgeon::testkit::uki::{cpio, zstd};
use gpt::partition_types;
use std::path::PathBuf;
use std::time::Duration;

/// What boots.
const TARGET: &str = "EFI/Linux/Talos-v1.12.4.efi";
/// Its name in `EFI/Linux`.
pub(crate) const NAME: &str = "Talos-v1.12.4.efi";
/// Where the ESP begins on the disk.
const ESP: u64 = 1 << 20;
/// Of one image. Large enough that caches, read-ahead and barriers have something to do; small enough for firmware that
/// is emulated.
const INITRD_BYTES: usize = 20 << 20;
/// Enough clusters for FAT32.
const ESP_BYTES: usize = 280 << 20;
const STICK_BYTES: usize = 48 << 20;
const LIMIT: Duration = Duration::from_secs(240);

/// A node, turned off.
pub(crate) struct Node {
    dir: tempfile::TempDir,
    pub(crate) machine: Machine,
    pub(crate) systemd: Systemd,
    /// The disk: an ESP, and behind it a volume with the new image.
    pub(crate) disk: PathBuf,
    /// The volume with the new image, as a disk of its own without partitions.
    pub(crate) stick: PathBuf,
    key: Option<SigningKey>,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Node {
    /// With Secure Boot enforced, everything that starts is signed by a key of the firmware's db.
    pub(crate) fn new(secure: bool) -> Self {
        assert!(tools(&["mcopy", "fsck.fat", "qemu-system-aarch64"]), "tests that were asked for need their tools");
        // What Talos 1.12 is nearest to.
        let all = Systemd::all(&prepare("boots"), Arch::Arm64);
        let systemd = all.into_iter().find(|s| s.version.major >= 257).expect("systemd-boot 257 or newer");
        let machine = Machine { arch: Arch::Arm64, secure };
        let dir = tempfile::tempdir().unwrap();
        let key = secure.then(|| SigningKey::test("Test signer").unwrap());
        let sign = |image: Vec<u8>| match &key {
            Some(key) => sign_pe(image, key).unwrap(),
            None => image,
        };
        let old = sign(talos(&systemd, "v1.12.4", "old"));
        let new = sign(talos(&systemd, "v1.12.4", "new"));
        let files = [
            (systemd.loader_path().to_owned(), sign(systemd.loader.clone())),
            ("loader/loader.conf".to_owned(), b"timeout 0\n".to_vec()),
            (TARGET.to_owned(), old.clone()),
        ];
        let (disk, stick) = (dir.path().join("disk.img"), dir.path().join("stick.img"));
        let source = volume::esp(STICK_BYTES, &[("EFI/Linux/new.efi".to_owned(), new.clone())]);
        std::fs::write(&stick, &source).unwrap();
        let mut volumes = vec![source, volume::esp(ESP_BYTES, &files)];
        let partitions = [(ESP_BYTES, partition_types::EFI), (STICK_BYTES, partition_types::BASIC)];
        volume::partitioned(&disk, &partitions, |_| volumes.pop().unwrap());
        let mut store = machine.formatted_variables();
        if let Some(key) = &key {
            nvram::enrol(&mut store, &key.certificate_der().unwrap());
        }
        std::fs::write(dir.path().join("variables.fd"), store).unwrap();
        Self { dir, machine, systemd, disk, stick, key, old, new }
    }

    /// The firmware's variables. They stay from boot to boot, as on a board.
    pub(crate) fn variables(&self) -> PathBuf {
        self.dir.path().join("variables.fd")
    }

    /// An image that this node's firmware starts.
    pub(crate) fn signed(&self, image: Vec<u8>) -> Vec<u8> {
        match &self.key {
            Some(key) => sign_pe(image, key).unwrap(),
            None => image,
        }
    }

    /// A path for something that goes with the node.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Turns it on. Firmware starts systemd-boot from the disk, and systemd-boot this image, whose name is returned.
    #[track_caller]
    pub(crate) fn expect(&self, payload: &'static str) -> &'static str {
        let console = self.machine.boot(&self.disk, &self.variables(), LIMIT);
        let boot = Boot::single(&console.text);
        assert_eq!(boot.payload.as_ref().map(|(name, _)| name.as_str()), Some(payload), "{boot:?}\n{}", console.text);
        assert_eq!(boot.selected.as_deref(), Some("talos-v1.12.4.efi"), "{boot:?}");
        assert_eq!(boot.secure_boot, self.machine.secure, "{boot:?}");
        payload
    }

    /// Asserts, by other people's readers, that the medium holds this image under the target's name, and is in order.
    #[track_caller]
    pub(crate) fn holds(&self, payload: &str) {
        let wanted = if payload == "old" { &self.old } else { &self.new };
        let found = mtools_read(&self.disk, ESP, TARGET).expect("the target");
        assert!(
            found == *wanted,
            "{TARGET} is not the {payload} image: {} bytes, {} wanted",
            found.len(),
            wanted.len()
        );
        assert!(fsck_clean(&self.disk, ESP));
    }
}

/// A Talos image whose kernel prints this name.
fn talos(systemd: &Systemd, version: &str, payload: &str) -> Vec<u8> {
    let os_release = format!("NAME=\"Talos\"\nID=talos\nVERSION_ID={version}\nPRETTY_NAME=\"Talos ({version})\"\n");
    // Nothing that a compressor or a file system could make smaller; different in every image.
    let mut state = payload.bytes().fold(1_u64, |state, byte| state << 8 | u64::from(byte));
    let words = (0..INITRD_BYTES / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let content: Vec<u8> = words.collect();
    systemd.uki(&[
        (".osrel", os_release.into_bytes()),
        (".cmdline", format!("talos.platform=metal from={payload}").into_bytes()),
        (".linux", systemd.payload(payload)),
        (".initrd", zstd(&cpio(&[("init", b"never started"), ("content", &content)]).unwrap(), 1).unwrap()),
    ])
}
