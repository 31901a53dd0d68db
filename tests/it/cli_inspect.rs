//! What only looks: `extract`, `inspect`, `status`, `verify`, `diff`, `schematic id`, and the JSON that scripts rely
//! on.

use crate::cli::{ESP, NOHALT, TAILSCALE, TARGET, uki, uki_bytes};
use crate::support::{Lab, bsdtar_read, mtools_read, sha256, tool};
use serde_json::{Value, json};
use std::io::Write;

const INSTALLER: &str = "v1.12.4-arm64-installer";
const PLAIN: &str = "v1.12.4-arm64-plain";
const PLAIN_ID: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
const SEED_ID: &str = "08086db1d88ea52b2e873f0b0c64562af7ae98f6ed83da5ee478871bbe52abd6";

/// Asserts that an object has these fields, and more perhaps.
#[track_caller]
fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "no {field}: {value:#}");
    }
}

#[test]
fn extract_gives_the_bytes_that_bsdtar_gives() {
    let lab = Lab::new();
    for (iso, arch, inside) in
        [("secureboot-arm64", "arm64", "v1.12.4-arm64-iso"), ("secureboot-amd64", "amd64", "v1.12.4-amd64-iso")]
    {
        let iso = lab.fixture(&format!("{iso}.iso.zst"));
        let out = lab.path(&format!("{arch}.efi"));
        let report = bootsurgeon!("extract", iso, "--out", out, "--json").code(0).json();
        let bytes = std::fs::read(&out).unwrap();
        assert!(bytes == uki_bytes(&lab, inside));
        assert_eq!(report["bytes"], bytes.len());
        if tool("bsdtar") {
            let list = crate::support::run_ok("bsdtar", &args!["-tf", iso]);
            let list = String::from_utf8(list).unwrap();
            let name = list.lines().find(|l| l.to_lowercase().ends_with(".efi") && l.contains("Linux")).unwrap();
            assert!(bytes == bsdtar_read(&iso, name), "{name}");
        }
        // A file that is there is not written over, unless that was requested.
        bootsurgeon!("extract", iso, "--out", out).fails(4, &["exists already", "remove it"]);
        bootsurgeon!("extract", iso, "--out", out, "--force").code(0);
        assert!(bytes == std::fs::read(&out).unwrap());
    }
}

#[test]
fn extract_from_everything_that_holds_a_uki() {
    let lab = Lab::new();
    let take = |image: &std::path::Path, options: &[&str], wanted: &str| {
        let out = lab.path("out.efi");
        let mut args = args!["extract", image, "--out", out, "--force"].to_vec();
        args.extend(options.iter().map(Into::into));
        crate::cli::run(&args).code(0);
        assert!(std::fs::read(&out).unwrap() == uki_bytes(&lab, wanted), "{}", image.display());
    };
    take(&uki(&lab, INSTALLER), &[], INSTALLER);
    // Talos < 1.8 has the UKI in efiboot.img alone.
    take(&lab.fixture("old-layout-amd64.iso.zst"), &[], "v1.7.6-amd64-xz");
    take(&lab.fixture("fat16.img.zst"), &[], "v1.12.4-arm64-uki");
    let disk = lab.fixture("disk-512.img.zst");
    let both = ["Talos-v1.12.4.efi", "Talos-v1.12.4~1.efi", "--uki"];
    bootsurgeon!("extract", disk, "--out", lab.path("two.efi")).fails(2, &both);
    assert!(!lab.path("two.efi").exists());
    take(&disk, &["--uki", "Talos-v1.12.4.efi"], PLAIN);
    take(&disk, &["--uki", "Talos-v1.12.4~1.efi"], INSTALLER);
    take(&lab.fixture("disk-4096.img.zst"), &["--uki", "Talos-v1.12.4~1.efi"], INSTALLER);
    if tool("mcopy") {
        assert!(mtools_read(&disk, ESP, TARGET).unwrap() == uki_bytes(&lab, PLAIN));
    }
}

#[test]
fn inspect_says_what_is_in_it() {
    let lab = Lab::new();
    let report = bootsurgeon!("inspect", uki(&lab, INSTALLER), "--json").code(0).json();
    has(&report, &["path", "kind", "bytes", "ukis", "uki", "partitions"]);
    let found = &report["uki"];
    assert_eq!(found["sha256"], sha256(&uki(&lab, INSTALLER)));
    assert_eq!(found["arch"], "arm64");
    assert_eq!(found["version"], "v1.12.4");
    assert_eq!(found["schematic"], TAILSCALE);
    assert_eq!(found["extensions"][0]["name"], "tailscale");
    assert_eq!(found["problems"], json!([]));
    assert_eq!(found["profiles"].as_array().unwrap().len(), 2);
    assert_eq!(found["profiles"][0]["pcr_signature"], "verified");
    let names: Vec<_> = found["sections"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    for name in [".osrel", ".cmdline", ".linux", ".initrd", ".pcrpkey", ".pcrsig", ".profile"] {
        assert!(names.contains(&name), "{names:?}");
    }

    let report = bootsurgeon!("inspect", lab.fixture("secureboot-arm64.iso.zst"), "--json").code(0).json();
    assert_eq!(report["kind"], "ISO");
    assert!(report["volume"].is_string());
    assert_eq!(report["uki"]["profiles"][0]["halts_if_installed"], true);
    assert!(report["uki"]["profiles"][1]["wipes"].is_string(), "{report:#}");

    let report = bootsurgeon!("inspect", lab.fixture("disk-512.img.zst"), "--json").code(0).json();
    assert_eq!(report["kind"], "disk image");
    assert_eq!(report["ukis"].as_array().unwrap().len(), 2);
    let esp = &report["partitions"][0];
    assert_eq!((&esp["number"], &esp["esp"], &esp["offset"]), (&json!(1), &json!(true), &json!(ESP)));
    assert_eq!(report["partitions"].as_array().unwrap().len(), 4);
    // For people, too.
    bootsurgeon!("inspect", lab.path("disk-512.img")).code(0);
    assert!(bootsurgeon!("inspect", uki(&lab, PLAIN)).code(0).out.contains("v1.12.4"));
}

#[test]
fn status_keeps_its_contract() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let hash = sha256(&disk);
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    assert_eq!(status["disk"]["path"], disk.to_str().unwrap());
    assert_eq!(status["disk"]["sector_size"], 512);
    assert_eq!(
        status["disk"]["partition"],
        json!({"number": 1, "label": "EFI", "partuuid": "d1e6a7b4-0001-4c11-8e55-0123456789ab", "offset": ESP,
            "bytes": 48 * 1024 * 1024})
    );
    has(&status["esp"], &["fat", "cluster_bytes", "total_bytes", "free_bytes", "dirty", "healthy", "problems"]);
    assert_eq!(status["esp"]["fat"], "fat32");
    assert_eq!((&status["esp"]["dirty"], &status["esp"]["healthy"]), (&json!(false), &json!(true)));
    assert_eq!(status["esp"]["problems"], json!([]));
    let files = status["files"].as_array().unwrap();
    assert_eq!(files.len(), 2);
    for (file, image, schematic) in [(&files[0], PLAIN, PLAIN_ID), (&files[1], INSTALLER, TAILSCALE)] {
        has(file, &["name", "kind", "bytes", "sha256", "version", "arch", "schematic", "duplicate_of"]);
        assert_eq!(file["kind"], "uki");
        assert_eq!(file["sha256"], sha256(&uki(&lab, image)));
        assert_eq!(file["bytes"], uki_bytes(&lab, image).len());
        assert_eq!((&file["version"], &file["arch"]), (&json!("v1.12.4"), &json!("arm64")));
        assert_eq!(file["schematic"], schematic);
    }
    assert!(files.iter().any(|f| f["duplicate_of"].is_string()), "{status:#}");
    assert_eq!(status["boot"]["menu"][0], "talos-v1.12.4.efi");
    assert_eq!(status["boot"]["selected"], "Talos-v1.12.4.efi");
    assert!(status["boot"]["reason"].is_string());
    assert_eq!(status["interrupted"], Value::Null);

    // Kinds of files, after a swap: uki, backup, disabled; then what no loader would start, and what is none.
    bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes").code(0);
    if tool("mcopy") {
        crate::cli::put(&disk, ESP, "EFI/Linux/broken.efi", b"MZ, and no more");
        crate::cli::put(&disk, ESP, "EFI/Linux/notes.txt", b"a note");
    }
    let status = bootsurgeon!("status", disk, "--json").code(0).json();
    let mut kinds: Vec<_> =
        status["files"].as_array().unwrap().iter().map(|f| f["kind"].as_str().unwrap().to_owned()).collect();
    kinds.sort();
    let all = ["backup", "broken", "disabled", "other", "uki"];
    let wanted: Vec<_> = all.into_iter().filter(|k| tool("mcopy") || !["broken", "other"].contains(k)).collect();
    assert_eq!(kinds, wanted, "{status:#}");
    bootsurgeon!("status", disk).code(0);
    assert_ne!(sha256(&disk), hash);
}

#[test]
fn issue20_verify_takes_the_hash_of_the_file_for_those_who_ask() {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    let hash = sha256(&image);
    let short = bootsurgeon!("verify", image, "--allow-untrusted", "--efivars", "none").code(0).out;
    assert!(short.contains("accept") && !short.contains("accept  sha256"), "{short}");
    let long = bootsurgeon!("verify", image, "--allow-untrusted", "--efivars", "none", "--verbose").code(0).out;
    assert!(long.ends_with(&format!("accept  sha256 {hash}\n")), "{long}");
}

#[test]
fn verify_keeps_its_contract() {
    let lab = Lab::new();
    let image = uki(&lab, INSTALLER);
    let cert = crate::cli::fixture("keys/test-signing.crt");
    let report = bootsurgeon!("verify", image, "--cert", cert, "--json", "--efivars", "none").code(0).json();
    assert_eq!(report["verdict"], "accept");
    assert_eq!(report["image"]["sha256"], sha256(&image));
    assert_eq!(report["image"]["bytes"], uki_bytes(&lab, INSTALLER).len());
    assert_eq!((&report["image"]["arch"], &report["image"]["version"]), (&json!("arm64"), &json!("v1.12.4")));
    assert_eq!(report["image"]["schematic"], TAILSCALE);
    has(&report["image"]["extensions"][0], &["name", "version"]);
    let ids = [
        "pe",
        "sections",
        "arch",
        "version",
        "authenticode-digest",
        "authenticode-signer",
        "revocation",
        "pcr-signature",
        "pcr-key",
        "pcr7",
        "schematic",
        "extensions",
        "initrd",
        "cmdline",
    ];
    let checks = report["checks"].as_array().unwrap();
    for id in ids {
        let check = checks.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no check {id}: {report:#}"));
        assert!(["pass", "warn", "fail", "skip"].contains(&check["status"].as_str().unwrap()), "{check}");
        assert!(!check["detail"].as_str().unwrap().is_empty(), "{check}: skip says why, and so does everything else");
    }
    let status = |report: &Value, id: &str| {
        report["checks"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap()["status"].clone()
    };

    // Nobody is trusted unasked.
    let report = bootsurgeon!("verify", image, "--json", "--efivars", "none").code(3).json();
    assert_eq!((&report["verdict"], status(&report, "authenticode-signer")), (&json!("reject"), json!("fail")));
    // The board's own keys, the ESP's own signer.
    let vars = crate::cli::fixture("efivars/secureboot-on");
    bootsurgeon!("verify", image, "--efivars", vars).code(0);
    let disk = lab.fixture("disk-512.img.zst");
    let report =
        bootsurgeon!("verify", image, "--json", "--efivars", "none", "--installed", disk, "--require-pcr-key").code(0);
    assert_eq!(status(&report.json(), "pcr-key"), "pass");
    let revoked = crate::cli::fixture("efivars/revoked-hash");
    let asset = uki(&lab, "v1.12.4-arm64-uki");
    let report = bootsurgeon!("verify", asset, "--json", "--efivars", revoked).code(3).json();
    assert_eq!(status(&report, "revocation"), "fail");
    // An ISO's halt flag is worth a warning here; so are copies that differ.
    let iso = lab.fixture("secureboot-arm64.iso.zst");
    let report = bootsurgeon!("verify", iso, "--json", "--cert", cert).code(0).json();
    assert_eq!((status(&report, "cmdline"), status(&report, "iso-copies")), (json!("warn"), json!("pass")));
    assert!(report["checks"].to_string().contains(NOHALT), "{report:#}");
    let iso = lab.fixture("copies-differ-arm64.iso.zst");
    let report = bootsurgeon!("verify", iso, "--json", "--cert", cert).code(0).json();
    assert_eq!(status(&report, "iso-copies"), "warn");
    // What was requested and is not so.
    for options in [["--talos", "v1.12.3"], ["--arch", "amd64"], ["--schematic", NOHALT], ["--require-extension", "x"]]
    {
        let mut args = args!["verify", image, "--cert", cert].to_vec();
        args.extend(options.iter().map(Into::into));
        crate::cli::run(&args).code(3);
    }
}

#[test]
fn diff_shows_both_sides() {
    let lab = Lab::new();
    let report = bootsurgeon!("diff", uki(&lab, PLAIN), uki(&lab, INSTALLER), "--json").code(0).json();
    assert_eq!(report["identical"], false);
    let change = |what: &str| report["changes"].as_array().unwrap().iter().find(|c| c["what"] == what).cloned();
    let schematic = change("schematic").unwrap();
    assert_eq!((&schematic["old"], &schematic["new"]), (&json!(PLAIN_ID), &json!(TAILSCALE)));
    assert_eq!(change("extension tailscale").unwrap()["old"], Value::Null);
    assert_eq!(change("version"), None);
    let same = bootsurgeon!("diff", uki(&lab, PLAIN), uki(&lab, PLAIN), "--json").code(0).json();
    assert_eq!((&same["identical"], &same["changes"]), (&json!(true), &json!([])));
    bootsurgeon!("diff", lab.fixture("secureboot-arm64.iso.zst"), uki(&lab, "v1.12.4-arm64-uki")).code(0);
}

#[test]
fn schematic_ids_are_the_factorys() {
    let lab = Lab::new();
    let extensions = |names: &[&str]| {
        let list: String = names.iter().map(|n| format!("      - siderolabs/{n}\n")).collect();
        format!("customization:\n  systemExtensions:\n    officialExtensions:\n{list}")
    };
    let halt = format!("{}  extraKernelArgs: [-talos.halt_if_installed]\n", extensions(&["tailscale"]));
    let cases = [
        ("{}".to_owned(), PLAIN_ID),
        ("customization: {}\n".to_owned(), PLAIN_ID),
        ("# a comment\ncustomization:\n".to_owned(), PLAIN_ID),
        (extensions(&["i915", "intel-ucode", "tailscale"]), SEED_ID),
        (extensions(&["tailscale"]), TAILSCALE),
        (halt, NOHALT),
    ];
    for (yaml, id) in cases {
        let file = lab.path("schematic.yaml");
        std::fs::write(&file, &yaml).unwrap();
        let report = bootsurgeon!("schematic", "id", file, "--json").code(0).json();
        assert_eq!(report["id"], id, "{yaml}");
        // The ID is nothing but the hash of the canonical form.
        let canonical = lab.path("canonical.yaml");
        std::fs::write(&canonical, report["schematic"].as_str().unwrap()).unwrap();
        assert_eq!(sha256(&canonical), id);
        let mut child = crate::cli::command(&args!["schematic", "id", "-"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(id));
    }
    let file = lab.path("schematic.yaml");
    std::fs::write(&file, extensions(&["tailscale"])).unwrap();
    let report = bootsurgeon!("schematic", "id", file, "--extra-kernel-arg", "-talos.halt_if_installed", "--json")
        .code(0)
        .json();
    assert_eq!(report["id"], NOHALT);
    std::fs::write(&file, "customization: [").unwrap();
    bootsurgeon!("schematic", "id", file).fails(2, &["schematic.yaml"]);
    std::fs::write(&file, "customisation: {}").unwrap();
    bootsurgeon!("schematic", "id", file).fails(2, &["customisation"]);
}

#[test]
fn errors_are_json_for_who_asks_for_json() {
    let lab = Lab::new();
    for (args, code) in [
        (args!["status", lab.path("missing.img"), "--json"].to_vec(), 1),
        (args!["swap", "--json"].to_vec(), 2),
        (args!["nonsense", "--json"].to_vec(), 2),
    ] {
        let error = crate::cli::run(&args).code(code).json();
        assert_eq!(error["error"]["exit_code"], code);
        assert!(!error["error"]["message"].as_str().unwrap().is_empty());
    }
    bootsurgeon!("--help").code(0);
    bootsurgeon!("--version").code(0);
    bootsurgeon!("completions", "bash").code(0);
    bootsurgeon!("man", lab.path("")).code(0);
    assert!(lab.path("bootsurgeon.1").is_file());
    bootsurgeon!("man", lab.path("missing")).fails(1, &["missing", "must exist"]);
}
