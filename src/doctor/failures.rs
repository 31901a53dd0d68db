//! Error lines that people paste, and what they mean. Each class comes from public reports; the errno is the one that
//! Talos (a Go program) or the kernel prints.

use super::{Finding, Severity};

/// A way to fail that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailureClass {
    /// A word for programs.
    pub id: &'static str,
    /// The errno behind it, if there is one.
    pub errno: Option<&'static str>,
    /// What happened.
    pub what: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// The way out.
    pub way_out: &'static str,
    /// A text shows it if all words of one of these groups are in it; lower case.
    signs: &'static [&'static [&'static str]],
}

const SWAP: &str = "`bootsurgeon swap DISK --schematic ID --talos VERSION` (or `swap DISK IMAGE`): it changes a file \
                    on the ESP \
                    and no variable; `bootsurgeon doctor DISK` first says what a failed upgrade left behind";

/// The classes, the more particular ones first: the first that fits is meant.
pub const KNOWN_FAILURES: &[FailureClass] = &[
    FailureClass {
        id: "sealed-to-another-state",
        errno: None,
        what: "the TPM's policy is not the one that the disk's key was sealed under",
        meaning: "the state of Secure Boot or its keys (PCR 7), or the key that signs the image's PCR policies, is \
                  not the one of \
                  the time when the disk was encrypted: a setting in the firmware, newly enrolled keys, or an image \
                  of another \
                  maker. The data itself is still on the disk",
        way_out: "if the image was changed last, `bootsurgeon restore DISK` puts the one before it back; if the \
                  firmware's settings \
                  or keys were, set them back. `bootsurgeon diff OLD NEW` says whether the PCR key of two images \
                  differs",
        signs: &[&["sealing policy digest does not match"]],
    },
    FailureClass {
        id: "installer-not-for-secure-boot",
        errno: Some("ENOENT (2)"),
        what: "the installer image has no signed boot files",
        meaning: "most often the machine started with Secure Boot's image, and the installer named for it is the \
                  plain one \
                  (siderolabs/talos#10378)",
        way_out: "in the machine configuration or the upgrade, name the installer for Secure Boot \
                  (installer-secureboot, or \
                  metal-installer-secureboot, of the same schematic)",
        signs: &[&[".efi.signed", "no such file"], &[".efi.signed", "file does not exist"]],
    },
    FailureClass {
        id: "random-seed",
        errno: None,
        what: "the boot loader could not use loader/random-seed on the ESP",
        meaning: "systemd-boot says so and boots on: the kernel has less randomness to begin with. Where it could not \
                  be read or \
                  written, the file system may be damaged, full or write-protected",
        way_out: "`bootsurgeon doctor DISK` says whether the file system is healthy and has room",
        signs: &[&["random seed file"], &["file info for random seed"]],
    },
    FailureClass {
        id: "set-variable-unsupported",
        errno: Some("EINVAL (22) on the remount of efivarfs"),
        what: "the firmware does not support SetVariable at run time",
        meaning: "the firmware's own table (EFI_RT_PROPERTIES_TABLE) says that variables cannot be set once an \
                  operating \
                  system runs: U-Boot and many EDK2 builds for single-board computers. The kernel keeps efivarfs \
                  read-only. \
                  Where Talos uses systemd-boot it treats that as fatal, after the new image is on the ESP already \
                  (siderolabs/sbc-raspberrypi#56)",
        way_out: SWAP,
        signs: &[
            &["setvariablert"],
            &["remount", "efivars", "invalid argument"],
            &["remount", "efivarfs", "invalid argument"],
            &["can not remount with rw"],
        ],
    },
    FailureClass {
        id: "crash-records",
        errno: Some("ENOSPC (28), with some firmware EINVAL (22)"),
        what: "crash records of the kernel (dump-type0-…) in the firmware's variable store",
        meaning: "at a crash the kernel leaves its last messages in NVRAM, in pieces named dump-type0-…, and nothing \
         removes them: they fill it until variables can no longer be written",
        way_out: "delete them: on a system with a shell as files of /sys/fs/pstore (systemd-pstore moves them from \
                  there to \
                  /var/lib/systemd/pstore), or in the firmware setup; or go without variables: `bootsurgeon swap DISK \
                  IMAGE`",
        signs: &[&["dump-type0"]],
    },
    FailureClass {
        id: "variables-full",
        errno: Some("ENOSPC (28)"),
        what: "the firmware's variable store is full, or the kernel keeps its last 5 KiB free",
        meaning: "stale variables (crash dumps named dump-type0-…, old Boot#### entries) fill NVRAM; the write failed \
                  and the \
                  default did not change",
        way_out: "delete old crash dumps in the firmware setup or from another system, or go without variables: \
                  `bootsurgeon swap DISK IMAGE`",
        signs: &[&["efivar", "no space left"], &["loaderentry", "no space left"], &["efivar", "enospc"]],
    },
    FailureClass {
        id: "esp-full",
        errno: Some("ENOSPC (28)"),
        what: "the ESP is full",
        meaning: "images of earlier versions, duplicates or backups take the room that the new image needs",
        way_out: "`bootsurgeon status DISK` says what takes the room, and which command makes room without touching \
                  what runs or starts next",
        signs: &[&["no space left"], &["enospc"]],
    },
    FailureClass {
        id: "efivarfs-read-only",
        errno: Some("EROFS (30)"),
        what: "efivarfs is mounted read-only",
        meaning: "the mount refuses the write before the firmware is asked: a container's /sys, a deliberate mount \
                  option, or \
                  the kernel's own choice because the firmware cannot set variables at run time",
        way_out: SWAP,
        signs: &[&["efivar", "read-only file system"], &["efivar", "erofs"], &["loaderentry", "read-only file system"]],
    },
    FailureClass {
        id: "variable-protected",
        errno: Some("EPERM (1) or EACCES (13)"),
        what: "the write of a variable was not permitted",
        meaning: "the file of the variable is immutable (`lsattr`; Talos clears that flag itself), the process lacks \
                  privileges, \
                  or kernel lockdown forbids it",
        way_out: SWAP,
        signs: &[
            &["efivar", "operation not permitted"],
            &["efivar", "permission denied"],
            &["loaderentry", "operation not permitted"],
            &["loaderentry", "permission denied"],
        ],
    },
    FailureClass {
        id: "write-io-error",
        errno: Some("EIO (5)"),
        what: "the firmware failed while it wrote the variable (EFI_DEVICE_ERROR)",
        meaning: "SetVariable is there but broken, as on Ampere Altra boards with faulty variable storage: the flash \
                  is worn, \
                  locked, or belongs to the BMC. Trying again sometimes works and proves nothing",
        way_out: SWAP,
        signs: &[
            &["efivar", "input/output error"],
            &["loaderentry", "input/output error"],
            &["loaderconfig", "input/output error"],
            &["efi variable", "input/output error"],
            &["efivar", "eio"],
        ],
    },
    FailureClass {
        id: "write-refused",
        errno: Some("EINVAL (22) on the write"),
        what: "the firmware refused the variable (EFI_INVALID_PARAMETER)",
        meaning: "SetVariable is there but takes no non-volatile variables at run time, or not these: emulated \
                  variable stores \
                  answer like this, and some firmware with a full store. Talos has copied the new image by then and \
                  stops, so \
                  every attempt leaves one more Talos-<version>~N.efi behind (siderolabs/talos#11844)",
        way_out: SWAP,
        signs: &[
            &["efivar", "invalid argument"],
            &["loaderentry", "invalid argument"],
            &["loaderconfig", "invalid argument"],
            &["efi variable", "invalid argument"],
            &["failed to install bootloader", "invalid argument"],
            &["efivar", "einval"],
        ],
    },
    FailureClass {
        id: "bootloader-not-recognised",
        errno: Some("ENOENT (2)"),
        what: "Talos recognised no boot loader on the disk",
        meaning: "it found neither GRUB's files nor a systemd-boot that fits the variables: there is no efivarfs, or \
                  no \
                  LoaderEntrySelected and LoaderEntryDefault in it, or they name an image that is not on the ESP \
                  (siderolabs/talos#10859, #12300). It does not mean that there is no ESP",
        way_out: "look at the disk itself, no variables are needed for that: `bootsurgeon doctor DISK`. Where it \
                  shows a \
                  systemd-boot: `bootsurgeon swap DISK --schematic ID --talos VERSION`",
        signs: &[&["probe bootloader", "file does not exist"], &["probe bootloader", "no such file"]],
    },
    FailureClass {
        id: "no-efivarfs",
        errno: Some("ENOENT (2)"),
        what: "there is no efivarfs",
        meaning: "the kernel shows no EFI variables at all: started without UEFI, with efi=noruntime, or on firmware \
                  whose run-time \
                  services are off. It does not mean that there is no ESP",
        way_out: "give the disk itself, no variables are needed: `bootsurgeon doctor DISK`, then `bootsurgeon swap \
                  DISK \
                  --schematic ID --talos VERSION`",
        signs: &[
            &["efivar", "no such file"],
            &["efivar", "file does not exist"],
            &["loaderentry", "file does not exist"],
            &["loaderentry", "no such file"],
            &["efi variables are not supported"],
        ],
    },
    FailureClass {
        id: "secure-boot-refused",
        errno: None,
        what: "the firmware refused to start an image (Access Denied or Security Violation)",
        meaning: "Secure Boot is on, and the image is unsigned, signed by a key that is not in db, revoked by dbx, or \
                  damaged since it \
                  was signed. systemd-boot does not try the next entry: the node is down until the file is replaced \
                  (siderolabs/talos#8097)",
        way_out: "`bootsurgeon verify FILE` names the reason; `bootsurgeon restore DISK` puts the backup back",
        signs: &[&["access denied"], &["security violation"], &["security policy violation"]],
    },
    FailureClass {
        id: "image-not-found",
        errno: None,
        what: "systemd-boot listed an image and then did not find it",
        meaning: "the menu and the file come from different volumes: usually a second ESP on another disk \
                  (siderolabs/talos#11909), \
                  or a damaged directory",
        way_out: "`bootsurgeon doctor` without a disk lists every ESP of the machine; `bootsurgeon status DISK` looks \
                  at one",
        signs: &[&["error loading", "not found"], &["error loading", "efi", "linux"]],
    },
    FailureClass {
        id: "halts-if-installed",
        errno: None,
        what: "the image is an ISO's and halts on installed machines",
        meaning: "its signed command line has talos.halt_if_installed=1: Talos stops for up to 70 minutes before it \
                  loads its \
                  configuration",
        way_out: "`bootsurgeon restore DISK`, then swap with the factory's metal-<arch>-secureboot-uki.efi (`swap \
                  DISK --schematic \
                  ID --talos VERSION` asks for it)",
        signs: &[&["already installed", "another media"], &["halt_if_installed"]],
    },
    FailureClass {
        id: "volume-corrupt",
        errno: None,
        what: "the file system of the ESP is damaged",
        meaning: "firmware or the kernel found the FAT inconsistent",
        way_out: "`bootsurgeon doctor DISK` says what is damaged; `bootsurgeon recover DISK` repairs what an \
                  interrupted swap left, \
                  `fsck.fat` from another system the rest",
        signs: &[&["volume corrupt"], &["fat-fs", "error"], &["fat: filesystem error"]],
    },
    FailureClass {
        id: "writes-lost",
        errno: None,
        what: "the variable was accepted and is lost after the reboot",
        meaning: "the firmware keeps variables in memory or in a file that nobody saves (Raspberry Pi's RPI_EFI.fd, \
                  ubootefi.var, some \
                  clouds). Writing and reading back looks right; only a reboot shows it (siderolabs/talos#12505)",
        way_out: SWAP,
        signs: &[&["not persist"], &["lost after reboot"], &["forgets", "variable"], &["still boots the old"]],
    },
];

impl FailureClass {
    /// The class that a line of text belongs to.
    #[must_use]
    pub fn of(text: &str) -> Option<&'static Self> {
        let lower = text.to_lowercase();
        let fits = |class: &&Self| class.signs.iter().any(|group| group.iter().all(|word| lower.contains(word)));
        KNOWN_FAILURES.iter().find(fits)
    }

    fn finding(&self, severity: Severity) -> Finding {
        let errno = self.errno.map_or(String::new(), |e| format!(" [{e}]"));
        Finding::new(severity, self.id, format!("{}{errno}", self.what), self.meaning).then(self.way_out)
    }
}

/// A known failure in a line of the kernel's log, where Talos and the kernel leave their messages. Only lines that are
/// about variables, the boot loader or FAT count: a log holds much else that is denied or not found.
#[must_use]
pub fn in_log(line: &str) -> Option<&'static FailureClass> {
    let lower = line.to_lowercase();
    let about = ["efivar", "setvariablert", "loaderentry", "bootloader", "fat-fs", "/boot/efi"];
    about.iter().any(|word| lower.contains(word)).then(|| FailureClass::of(line))?
}

/// What a line of text from talosctl, the kernel or the console means. Always at least one finding.
#[must_use]
pub fn explain(text: &str) -> Vec<Finding> {
    if let Some(class) = FailureClass::of(text) {
        return vec![class.finding(Severity::Problem)];
    }
    let lower = text.to_lowercase();
    let errno = [("invalid argument", "EINVAL"), ("input/output error", "EIO"), ("file does not exist", "ENOENT")]
        .iter()
        .find(|(words, _)| lower.contains(words));
    let what = match errno {
        Some((_, name)) => format!("{name} alone: the text does not say what it was about"),
        None => "this text is not among the known failures".to_owned(),
    };
    let known: Vec<&str> = KNOWN_FAILURES.iter().map(|c| c.id).collect();
    vec![Finding::new(Severity::Note, "not-recognised", what, format!("known are: {}", known.join(", "))).then(
        "give the whole line, with the name of the variable or file in it; or look at the board itself: \
               `bootsurgeon doctor`",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_public_reports_find_their_class() {
        for (text, id) in [
            (
                "error opening encrypted volume: failed to unseal: sealing policy digest does not match",
                "sealed-to-another-state",
            ),
            (
                "failed to install bootloader: error copying /usr/install/amd64/vmlinuz.efi.signed -> \
                 /boot/EFI/EFI/Linux/Talos-v1.9.2.efi: open /usr/install/amd64/vmlinuz.efi.signed: no such file or \
                 directory",
                "installer-not-for-secure-boot",
            ),
            ("Failed to open random seed file: Volume Corrupt", "random-seed"),
            ("Random seed file is too short.", "random-seed"),
            ("Firmware does not support SetVariableRT. Can not remount with rw", "set-variable-unsupported"),
            ("failed to remount /sys/firmware/efi/efivars: invalid argument", "set-variable-unsupported"),
            (
                "failed to install bootloader: write \
                 /sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f: invalid argument",
                "write-refused",
            ),
            (
                "error: write /sys/firmware/efi/efivars/LoaderConfigTimeout-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f: \
                 input/output error",
                "write-io-error",
            ),
            ("Error: failed to probe bootloader on upgrade: file does not exist", "bootloader-not-recognised"),
            ("open /sys/firmware/efi/efivars/LoaderEntryDefault-4a67: no such file or directory", "no-efivarfs"),
            ("open /sys/firmware/efi/efivars/LoaderEntryDefault-4a67: read-only file system", "efivarfs-read-only"),
            ("open /sys/firmware/efi/efivars/LoaderEntryDefault-4a67: operation not permitted", "variable-protected"),
            ("write /boot/EFI/EFI/Linux/Talos-v1.12.4.efi: no space left on device", "esp-full"),
            ("write /sys/firmware/efi/efivars/Boot0001-8be4: no space left on device", "variables-full"),
            (
                "open /sys/firmware/efi/efivars/dump-type0-1-1-1700000000-C-cfc8fc79: no space left on device",
                "crash-records",
            ),
            ("Error loading \\EFI\\Linux\\Talos-v1.10.5.efi: Not found", "image-not-found"),
            ("Error loading \\EFI\\Linux\\Talos-v1.10.5.efi: Access denied", "secure-boot-refused"),
            ("talos is already installed to disk but booted from another media", "halts-if-installed"),
            ("failed to install bootloader: invalid argument", "write-refused"),
            ("something else", "not-recognised"),
            ("upgrade failed: input/output error", "not-recognised"),
        ] {
            let found = explain(text);
            assert_eq!(found[0].id, id, "{text}");
            assert!(found[0].action.is_some());
        }
    }

    #[test]
    fn a_log_is_read_with_care() {
        let talos = "[talos] task upgrade (1/1): failed to install bootloader: write \
                     /sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082: invalid argument";
        assert_eq!(in_log(talos).map(|c| c.id), Some("write-refused"));
        assert_eq!(in_log("FAT-fs (sda1): error, fat_get_cluster").map(|c| c.id), Some("volume-corrupt"));
        for other in ["audit: access denied", "no space left on device", "efivars: Registered efivars operations", ""] {
            assert_eq!(in_log(other), None, "{other}");
        }
    }
}
