//! The main job, judged by booting: before, after `swap`, after `restore`; with Secure Boot on and off.

use crate::lab::Systemd;
use crate::machine::{Boot, Machine};
use crate::{nvram, volume};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::signing::{SigningKey, sign_pe};
use bootsurgeon::testkit::uki::{cpio, zstd};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// A Talos image whose kernel prints this name.
pub(crate) fn talos(systemd: &Systemd, version: &str, payload: &str) -> Vec<u8> {
    let os_release = format!("NAME=\"Talos\"\nID=talos\nVERSION_ID={version}\nPRETTY_NAME=\"Talos ({version})\"\n");
    let initrd = zstd(&cpio(&[("init", b"never started")]).unwrap(), 1).unwrap();
    systemd.uki(&[
        (".osrel", os_release.into_bytes()),
        (".cmdline", format!("talos.platform=metal from={payload}").into_bytes()),
        (".linux", systemd.payload(payload)),
        (".initrd", initrd),
    ])
}

/// Runs the program.
pub(crate) fn bootsurgeon(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bootsurgeon"));
    command.args(["--no-progress", "--color", "never"]);
    command.args(arguments.iter().map(|a| a.as_ref())).output().unwrap()
}

fn succeeds(arguments: &[&dyn AsRef<std::ffi::OsStr>]) {
    let output = bootsurgeon(arguments);
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Boots the disk; what it started.
fn boots(machine: Machine, disk: &Path, store: &[u8], limit: Duration) -> Boot {
    let dir = tempfile::tempdir().unwrap();
    let variables = dir.path().join("variables.fd");
    std::fs::write(&variables, store).unwrap();
    let console = machine.boot(disk, &variables, limit);
    Boot::single(&console.text)
}

/// How many boots it took. `machine.secure` decides about Secure Boot.
pub(crate) fn run(machine: Machine, systemd: &Systemd) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let key = SigningKey::test("Test signer").unwrap();
    let other = SigningKey::other_test("Somebody else").unwrap();
    let signed = |image: Vec<u8>| if machine.secure { sign_pe(image, &key).unwrap() } else { image };
    std::fs::write(path("cert.pem"), key.certificate_pem().unwrap()).unwrap();
    std::fs::write(path("new.efi"), signed(talos(systemd, "v1.12.4", "new"))).unwrap();
    let foreign = sign_pe(talos(systemd, "v1.12.9", "foreign"), &other).unwrap();
    std::fs::write(path("foreign.efi"), &foreign).unwrap();

    let mut store = machine.formatted_variables();
    if machine.secure {
        nvram::enrol(&mut store, &key.certificate_der().unwrap());
    }
    let linux = |name: &str| format!("EFI/Linux/{name}");
    let mut files = vec![
        (systemd.loader_path().to_owned(), signed(systemd.loader.clone())),
        ("loader/loader.conf".to_owned(), b"timeout 0\n".to_vec()),
        (linux("Talos-v1.12.4.efi"), signed(talos(systemd, "v1.12.4", "old"))),
        (linux("Talos-v1.12.3.efi"), signed(talos(systemd, "v1.12.3", "older"))),
    ];
    let disk = path("disk.img");
    let mut count = 0;
    let mut expect = |disk: &Path, payload: Option<&str>, selected: &str, limit: Duration| {
        let boot = boots(machine, disk, &store, limit);
        let what = format!("systemd-boot {}, secure boot {}: {boot:?}", systemd.version.text, machine.secure);
        assert_eq!(boot.payload.as_ref().map(|(name, _)| name.as_str()), payload, "{what}");
        if payload.is_some() {
            assert_eq!(boot.selected.as_deref(), Some(selected), "{what}");
            assert_eq!(boot.secure_boot, machine.secure, "{what}");
            assert!(!machine.secure || !boot.setup_mode, "{what}");
        }
        count += 1;
    };

    volume::disk(&disk, &[64 << 20], |_| volume::esp(64 << 20, &files));
    let (name, cert) = ("talos-v1.12.4.efi", path("cert.pem"));
    expect(&disk, Some("old"), name, LIMIT);
    // Without Secure Boot nothing is signed.
    let trust: [&dyn AsRef<std::ffi::OsStr>; 2] =
        if machine.secure { [&"--cert", &cert] } else { [&"--allow-untrusted", &"--quiet"] };
    succeeds(&[&"swap", &disk, &path("new.efi"), &"--yes", &"--allow-halt-if-installed", trust[0], trust[1]]);
    expect(&disk, Some("new"), name, LIMIT);
    succeeds(&[&"restore", &disk, &"--yes", trust[0], trust[1]]);
    expect(&disk, Some("old"), name, LIMIT);

    if machine.secure {
        // Signed by a key that nobody enrolled: refused here, and by the firmware if somebody puts it there all the
        // same.
        let verdict = bootsurgeon(&[&"verify", &path("foreign.efi"), &"--cert", &cert]);
        assert_eq!(verdict.status.code(), Some(3), "{}", String::from_utf8_lossy(&verdict.stderr));
        let refused = bootsurgeon(&[
            &"swap",
            &disk,
            &path("foreign.efi"),
            &"--yes",
            &"--allow-halt-if-installed",
            &"--cert",
            &cert,
        ]);
        assert!(!refused.status.success());
        expect(&disk, Some("old"), name, LIMIT);
        files.push((linux("Talos-v1.12.9.efi"), foreign));
        volume::disk(&disk, &[64 << 20], |_| volume::esp(64 << 20, &files));
        // The firmware returns to its own menu, so this boot ends by its time limit.
        let quick = Duration::from_secs(if systemd.arch == Arch::Amd64 { 30 } else { 60 });
        expect(&disk, None, "talos-v1.12.9.efi", quick);
    }
    count
}
