//! The factory's plain images beside those for Secure Boot.

use super::uki::debian_esp_of;
use crate::cli::Ran;
use crate::makers::{Made, certificate};
use crate::support::Lab;
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
use bootsurgeon::testkit::squashfs;
use bootsurgeon::testkit::uki::extensions_yaml;
use std::path::{Path, PathBuf};

const SCHEMATIC: &str = "customization: {}\n";
const ID: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

/// Talos v1.12.4 for amd64, with this on its command line.
fn talos(more: &str) -> Made {
    let schematic = squashfs::image(&[("schematic.yaml", SCHEMATIC.as_bytes())]).unwrap();
    let made = Made::talos("v1.12.4", &[("0.sqsh", &schematic)], &extensions_yaml(&[], SCHEMATIC));
    made.instead(".cmdline", format!("talos.platform=metal {more}").trim().to_owned())
}

struct Board {
    lab: Lab,
    factory: LocalFactory,
}

impl Board {
    /// A factory that has both images of v1.12.4.
    fn new() -> Self {
        let lab = Lab::new();
        let factory = LocalFactory::start().unwrap();
        let signed = talos("lockdown=confidentiality").file(&lab, "signed.efi");
        let plain = talos("").unsigned();
        let behaviour = || Behaviour { redirect: true, ..Behaviour::default() };
        factory.serve(ID, "v1.12.4", "metal-amd64-secureboot-uki.efi", std::fs::read(signed).unwrap(), behaviour());
        let path = "usr/install/amd64/vmlinuz.efi.signed";
        let installer = super::oci::imager_archive(path, &std::fs::read(lab.path("signed.efi")).unwrap());
        factory.serve(ID, "v1.12.4", "installer-amd64-secureboot.tar", installer, behaviour());
        let installer = super::oci::imager_archive("usr/install/amd64/vmlinuz.efi", &plain);
        factory.serve(ID, "v1.12.4", "installer-amd64.tar", installer, behaviour());
        factory.serve(ID, "v1.12.4", "metal-amd64-uki.efi", plain, behaviour());
        Self { lab, factory }
    }

    fn esp(&self, installed: &Path) -> Option<PathBuf> {
        debian_esp_of(&self.lab, 24, &[("Talos-v1.12.3.efi", installed)])
    }

    fn installed(&self, signed: bool) -> PathBuf {
        let made = talos(if signed { "lockdown=confidentiality" } else { "" });
        let made = made.instead(".osrel", *b"NAME=\"Talos\"\nID=talos\nVERSION_ID=v1.12.3\n");
        if signed {
            return made.file(&self.lab, "installed.efi");
        }
        let path = self.lab.path("installed-plain.efi");
        std::fs::write(&path, made.unsigned()).unwrap();
        path
    }

    fn swap(&self, esp: &Path, more: &[&str]) -> Ran {
        let (url, cert) = (self.factory.url(), certificate(&self.lab));
        let args = crate::args![
            "swap",
            esp,
            "--schematic",
            ID,
            "--talos",
            "v1.12.4",
            "--arch",
            "amd64",
            "--factory",
            url,
            "--cert",
            cert,
            "--efivars",
            "none",
            "--dry-run",
            "--json"
        ];
        let more: Vec<std::ffi::OsString> = more.iter().map(Into::into).collect();
        crate::cli::run(&[&args[..], &more].concat())
    }

    /// The last asset that was requested.
    fn asked(&self) -> String {
        let all = self.factory.requests();
        let is_asset = |target: &str| target.contains("/image/") && !target.contains(".sha");
        let asset = all.iter().rev().find(|r| is_asset(&r.target)).unwrap();
        asset.target.rsplit('/').next().unwrap().to_owned()
    }
}

#[test]
fn rcluster_template_1634_the_factorys_plain_image_is_asked_for_where_the_board_has_one() {
    let board = Board::new();
    let (signed, plain) = ("metal-amd64-secureboot-uki.efi", "metal-amd64-uki.efi");
    let Some(esp) = board.esp(&board.installed(true)) else { return };
    board.swap(&esp, &[]).code(0);
    assert_eq!(board.asked(), signed);
    // Nothing stands for an image that is not signed.
    board.swap(&esp, &["--asset", "plain"]).fails(3, &["not signed"]);
    assert_eq!(board.asked(), plain);
    let warnings = board.swap(&esp, &["--asset", "plain", "--allow-untrusted"]).code(0).json()["warnings"].to_string();
    assert!(warnings.contains("lockdown changes from confidentiality to not set"), "{warnings}");

    let Some(esp) = board.esp(&board.installed(false)) else { return };
    let ran =
        board.swap(&esp, &[]).code(0).says(&["the installed image is not signed", "--asset plain --allow-untrusted"]);
    assert!(ran.json()["warnings"].to_string().contains("lockdown changes from not set to confidentiality"));
    assert_eq!(board.asked(), signed);
    let report = board.swap(&esp, &["--allow-untrusted"]).code(0).json();
    assert!(!report["warnings"].to_string().contains("lockdown"), "{report:#}");
    assert_eq!(board.asked(), plain);
    board.swap(&esp, &["--asset", "secureboot", "--allow-untrusted"]).code(0);
    assert_eq!(board.asked(), signed);

    let out = board.lab.path("out.efi");
    let url = board.factory.url();
    let args = crate::args![
        "fetch",
        "--schematic",
        ID,
        "--talos",
        "v1.12.4",
        "--arch",
        "amd64",
        "--kind",
        "uki",
        "--asset",
        "plain",
        "--factory",
        url,
        "--out",
        out
    ];
    crate::cli::run(&args).code(0);
    assert!(std::fs::read(&out).unwrap() == talos("").unsigned());
}

#[test]
fn issue15_3_the_installers_image_is_an_asset_as_well() {
    let board = Board::new();
    let Some(esp) = board.esp(&board.installed(true)) else { return };
    board.swap(&esp, &["--via", "installer"]).fails(2, &["--cache DIR"]);
    let cache = board.lab.path("cache");
    let more = ["--via", "installer", "--cache", cache.to_str().unwrap()];
    let report = board.swap(&esp, &more).code(0).json();
    assert_eq!(board.asked(), "installer-amd64-secureboot.tar");
    assert_eq!(report["plan"]["boot_after"], "Talos-v1.12.4.efi");
    board.swap(&esp, &[&more[..], &["--asset", "plain", "--allow-untrusted"]].concat()).code(0);
    assert_eq!(board.asked(), "installer-amd64.tar");

    let (url, to) = (board.factory.url(), board.lab.path("installer.tar"));
    let which = crate::args!["--schematic", ID, "--talos", "v1.12.4", "--arch", "amd64", "--factory", url, "--out", to];
    let fetch = |kind: &str| crate::cli::run(&[&crate::args!["fetch", "--kind", kind][..], &which].concat());
    fetch("installer").code(0);
    let (out, signed) = (board.lab.path("out.efi"), board.lab.path("signed.efi"));
    bootsurgeon!("extract", to, "--out", out).code(0);
    assert!(std::fs::read(&out).unwrap() == std::fs::read(signed).unwrap());
    // What is no archive gets no name.
    board.factory.serve(ID, "v1.12.4", "installer-amd64-secureboot.tar", vec![7; 4096], Behaviour::default());
    std::fs::remove_file(&to).unwrap();
    fetch("installer").fails(1, &["an installer's image was requested, and something else came"]);
    assert!(!to.exists());
}
