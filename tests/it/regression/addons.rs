//! What lies beside an image for systemd's stub to add to it: listed, verified, part of the command line that is
//! judged.

use super::uki::{check, debian_esp_of};
use crate::cli::Ran;
use crate::makers::{KEY, Made, certificate};
use crate::support::{Lab, run, run_ok, tools};
use bootsurgeon::testkit::signing::sign_pe;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const OLD: &str = "4f5e-6.12.1-arm64.efi";

/// An ESP with a kernel of Debian on it, and a newer one beside the ESP.
struct Board {
    lab: Lab,
    esp: PathBuf,
    new: PathBuf,
}

impl Board {
    fn new() -> Option<Self> {
        let lab = Lab::new();
        let old = Made::debian("6.12.1-arm64").file(&lab, "old.efi");
        let new = Made::debian("6.12.2-arm64").file(&lab, "new.efi");
        let esp = debian_esp_of(&lab, 24, &[(OLD, &old)])?;
        Some(Self { lab, esp, new })
    }

    /// Puts a file there, with its folder.
    fn put(&self, path: &str, content: &[u8]) {
        put(&self.lab, self.esp.to_str().unwrap(), path, content);
    }

    fn verify(&self, more: &[&str]) -> Ran {
        let args = crate::args!["verify", self.esp, "--cert", certificate(&self.lab), "--efivars", "none", "--json"];
        with(&args, more)
    }

    fn swap(&self, more: &[&str]) -> Ran {
        with(&crate::args!["swap", self.esp, self.new, "--cert", certificate(&self.lab), "--yes", "--json"], more)
    }
}

fn with(args: &[std::ffi::OsString], more: &[&str]) -> Ran {
    let more: Vec<std::ffi::OsString> = more.iter().map(Into::into).collect();
    let args = [args, &more].concat();
    crate::cli::run(&args)
}

/// Puts a file on a FAT volume that mtools names so.
fn put(lab: &Lab, image: &str, path: &str, content: &[u8]) {
    let (folder, _) = path.rsplit_once('/').unwrap();
    let mut at = String::new();
    for part in folder.split('/') {
        at = format!("{at}/{part}");
        let _there_already = run("mmd", &["-D", "s", "-i", image, &format!("::{at}")]);
    }
    let file = lab.path("beside");
    std::fs::write(&file, content).unwrap();
    run_ok("mcopy", &["-o", "-i", image, file.to_str().unwrap(), &format!("::/{path}")]);
}

/// An addon as ukify makes it.
fn addon(line: &str) -> Made {
    Made { sections: Vec::new(), ..Made::debian("") }
        .with(".sbat", *b"sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n")
        .with(".cmdline", line.as_bytes())
}

fn signed(made: &Made) -> Vec<u8> {
    sign_pe(made.unsigned(), &KEY).unwrap()
}

fn root() -> Vec<u8> {
    signed(&addon("root=/dev/sda2"))
}

fn place(path: &str) -> String {
    format!("EFI/Linux/{OLD}.extra.d/{path}")
}

#[test]
fn issue15_2_addons_are_listed_verified_and_part_of_the_command_line() {
    let Some(board) = Board::new() else { return };
    let none = check(&board.verify(&[]).code(0).json(), "addons");
    assert_eq!((none.0.as_str(), none.1.contains("nothing beside the image")), ("pass", true), "{none:?}");

    board.put(&place("root.addon.efi"), &root());
    board.put("loader/addons/b.addon.efi", &signed(&addon("second")));
    board.put("loader/addons/A.addon.efi", &signed(&addon("first")));
    board.put("loader/addons/.hidden.addon.efi", &signed(&addon("hidden")));
    board.put("EFI/Linux/other.efi.extra.d/other.addon.efi", &signed(&addon("other")));
    let (status, detail) = check(&board.verify(&[]).code(0).json(), "addons");
    assert!(status == "pass" && detail.contains("adds \"root=/dev/sda2\" to the command line, signed by"), "{detail}");
    let report = bootsurgeon!("inspect", board.esp, "--json").code(0).json();
    let line = report["uki"]["profiles"][0]["cmdline_with_addons"].as_str().unwrap();
    // Those for every image first, each directory by name.
    assert!(line.ends_with("ro quiet first second root=/dev/sda2"), "{line}");
    assert_eq!(report["uki"]["companions"].as_array().unwrap().len(), 3);

    board.put("loader/credentials/a.cred", b"c");
    board.put(&place("etc.confext.raw"), b"raw");
    let (status, detail) = check(&board.verify(&[]).code(0).json(), "addons");
    let words = "not verified here: loader/credentials/a.cred (credential)";
    assert!(status == "warn" && detail.contains(words) && detail.contains("etc.confext.raw"), "{detail}");

    let beside = bootsurgeon!("status", board.esp, "--json").code(0).json()["companions"].clone();
    let find = |path: &str| beside.as_array().unwrap().iter().find(|c| c["path"] == path).unwrap().clone();
    let found = find(&place("root.addon.efi"));
    assert_eq!((&found["added_to"], &found["cmdline"]), (&json!([OLD]), &json!("root=/dev/sda2")));
    let found = find("EFI/Linux/other.efi.extra.d/other.addon.efi");
    assert_eq!((&found["added_to"], &found["image"]), (&json!([]), &json!("other.efi")));
    let text = bootsurgeon!("status", board.esp).code(0).out;
    assert!(text.contains("added to nothing: for other.efi"), "{text}");

    let bare = bootsurgeon!("verify", board.new, "--cert", certificate(&board.lab), "--efivars", "none", "--json");
    assert_eq!(check(&bare.code(0).json(), "addons").0, "skip");
}

#[test]
fn issue15_2_an_addon_that_nobody_stands_for_is_refused() {
    let Some(board) = Board::new() else { return };
    let mut changed = root();
    let at = changed.windows(4).position(|w| w == b"root").unwrap();
    changed[at] = b'R';
    for (content, why) in [(addon("quiet").unsigned(), "it is not signed"), (changed, "it was changed after")] {
        board.put("loader/addons/x.addon.efi", &content);
        for ran in [board.verify(&[]), board.swap(&["--dry-run"]), board.swap(&[])] {
            assert_eq!(ran.code, 3, "{ran:?}");
            assert!(ran.out.contains(why) || ran.err.contains(why), "{ran:?}");
        }
        let (status, detail) = check(&board.verify(&["--allow-untrusted"]).code(0).json(), "addons");
        assert!(status == "warn" && detail.contains(why), "{status}: {detail}");
    }
    // On a board that looks at no signature, the installed image starts with it as well; another image is still
    // verified.
    board.put("loader/addons/x.addon.efi", &addon("quiet").unsigned());
    let vars = board.lab.path("vars");
    std::fs::create_dir_all(&vars).unwrap();
    let secure_boot = |on: u8| {
        let name = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
        std::fs::write(vars.join(name), [6, 0, 0, 0, on]).unwrap();
    };
    let with_variables = ["--efivars", vars.to_str().unwrap(), "--dry-run"];
    secure_boot(0);
    let (status, detail) = check(&board.swap(&with_variables).code(0).json(), "addons");
    assert!(status == "warn" && detail.contains("the installed image starts with it as well"), "{status}: {detail}");
    let unsigned = board.lab.path("unsigned.efi");
    std::fs::write(&unsigned, Made::debian("6.12.2-arm64").unsigned()).unwrap();
    let args = crate::args!["swap", board.esp, unsigned, "--cert", certificate(&board.lab), "--json"];
    with(&args, &with_variables).code(3);
    // With Secure Boot on, the firmware passes over it.
    secure_boot(1);
    let (_, detail) = check(&board.swap(&[&with_variables[..], &["--allow-untrusted"]].concat()).json(), "addons");
    assert!(!detail.contains("the installed image starts with it as well"), "{detail}");
    // What the stub passes over is nothing to refuse.
    for (content, why) in [
        (b"no program".to_vec(), "cannot be read"),
        (Made::debian("6.12.1-arm64").unsigned(), "has a kernel in it"),
        (addon("quiet").with(".uname", *b"5.10").unsigned(), "it is for the kernel 5.10"),
        (Made { arch: bootsurgeon::pe::Arch::Amd64, ..addon("quiet") }.unsigned(), "it is for amd64"),
    ] {
        board.put("loader/addons/x.addon.efi", &content);
        let (status, detail) = check(&board.verify(&[]).code(0).json(), "addons");
        assert!(status == "warn" && detail.contains("is passed over") && detail.contains(why), "{status}: {detail}");
    }
}

#[test]
fn issue15_2_an_addon_for_the_old_kernel_is_not_lost_in_silence() {
    let Some(board) = Board::new() else { return };
    let for_old = |line: &str| signed(&addon(line).with(".uname", *b"6.12.1-arm64"));
    board.put("loader/addons/x.addon.efi", &for_old("root=/dev/sda2"));
    for more in [&["--dry-run"][..], &[]] {
        let words = ["starts with loader/addons/x.addon.efi", "it is for the kernel 6.12.1-arm64"];
        board.swap(more).fails(3, &words);
    }
    // What the new image has anyway is no loss, and neither is what another addon brings.
    board.put("loader/addons/x.addon.efi", &for_old("quiet"));
    board.swap(&["--dry-run"]).code(0);
    board.put("loader/addons/x.addon.efi", &for_old("root=/dev/sda2"));
    board.put("loader/addons/y.addon.efi", &signed(&addon("root=/dev/sda2").with(".uname", *b"6.12.2-arm64")));
    let done = board.swap(&[]).code(0).json();
    assert_eq!(check(&done, "addons").0, "warn", "{done:#}");
    // The way back is open.
    bootsurgeon!("restore", board.esp, "--cert", certificate(&board.lab), "--yes").code(0);
}

#[test]
fn issue15_2_the_name_of_an_older_kernel_is_told_and_pruning_leaves_what_lies_beside() {
    let Some(board) = Board::new() else { return };
    board.put(&place("root.addon.efi"), &root());
    let done = board.swap(&[]).code(0).json();
    assert_eq!(done["plan"]["target"], OLD);
    let warnings = done["warnings"].to_string();
    assert!(warnings.contains("is not called 4f5e-6.12.2-arm64.efi"), "{warnings}");
    let copy = Made::debian("6.12.2-arm64").with(".splash", *b"BM").file(&board.lab, "copy.efi");
    board.put("EFI/Linux/copy.efi", &std::fs::read(copy).unwrap());
    board.put("EFI/Linux/copy.efi.extra.d/x.addon.efi", &root());
    let pruned = bootsurgeon!("prune", board.esp, "--delete", "--yes", "--json").code(0).json();
    assert_eq!(pruned["plan"]["delete"][0], "copy.efi", "{pruned:#}");
    assert!(pruned["plan"]["warnings"].to_string().contains("copy.efi.extra.d stays as it is, with x.addon.efi"));
    let left = crate::support::mtools_read(&board.esp, 0, "EFI/Linux/copy.efi.extra.d/x.addon.efi");
    assert!(left.is_some_and(|left| left == root()));
}

/// Talos' stub is systemd's: an addon can wipe and halt a node as its own command line can.
#[test]
fn issue15_2_an_addon_that_wipes_or_halts_a_node_is_seen() {
    let lab = Lab::new();
    let os = *b"NAME=\"Talos\"\nID=talos\nVERSION_ID=v1.12.4\nPRETTY_NAME=\"Talos (v1.12.4)\"\n";
    let talos = Made::debian("6.18.1-talos").instead(".osrel", os).instead(".cmdline", *b"talos.platform=metal");
    let old = talos.file(&lab, "old.efi");
    let new = talos.with(".splash", *b"BM").file(&lab, "new.efi");
    let Some(esp) = debian_esp_of(&lab, 24, &[("Talos-v1.12.4.efi", &old)]) else { return };
    let put = |line: &str| put(&lab, esp.to_str().unwrap(), "loader/addons/x.addon.efi", &signed(&addon(line)));
    let swap = |more: &[&str]| with(&crate::args!["swap", esp, new, "--cert", certificate(&lab), "--yes"], more);
    put("talos.experimental.wipe=system");
    for more in [&["--dry-run"][..], &[]] {
        let ran = swap(more);
        let words = "talos.experimental.wipe=system, from the addon loader/addons/x.addon.efi";
        ran.fails(4, &[words, "Remove that file"]);
    }
    let entries = bootsurgeon!("status", esp, "--json").code(0).json()["boot"]["entries"].clone();
    assert_eq!(entries[0]["danger"], "wipes system", "{entries:#}");
    put("talos.halt_if_installed=1");
    swap(&["--dry-run"]).fails(4, &["talos.halt_if_installed, from the addon loader/addons/x.addon.efi"]);
    put("quiet");
    swap(&["--dry-run"]).code(0);
}

/// With Secure Boot on, firmware takes no addon that db does not stand for, and the stub starts without it.
#[test]
fn issue15_2_an_addon_that_the_firmware_refuses_adds_nothing() {
    if !tools(&["mcopy", "mmd"]) {
        return;
    }
    let lab = Lab::new();
    let (disk, uki) = (lab.fixture("disk-512.img.zst"), lab.fixture("talos-v1.12.4-arm64-uki.efi.zst"));
    let vars = crate::cli::fixture("efivars/secureboot-on");
    let image = format!("{}@@{}", disk.display(), crate::cli::ESP);
    put(&lab, &image, "loader/addons/x.addon.efi", &addon("talos.experimental.wipe=system").unsigned());
    let swap = |vars: &Path| -> Value {
        let cert = crate::support::fixtures().join("keys/test-signing.crt");
        let args = crate::args!["swap", disk, uki, "--cert", cert, "--efivars", vars, "--dry-run", "--json"];
        crate::cli::run(&args).json()
    };
    let report = swap(&vars);
    let (status, detail) = check(&report, "addons");
    assert!(status == "warn" && detail.contains("the firmware refuses it (Secure Boot is on"), "{status}: {detail}");
    assert_eq!(check(&report, "cmdline").0, "pass");
}
