//! Images that stay on their server: every kind of server, straight into the swap, nothing stored locally.

use crate::support::{Lab, mtools_read, sha256, tool};
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

const UKI: &str = "talos-v1.12.4-arm64-uki.efi";
const SCHEMATIC: &str = "4a0d65c669d46663f377e7161e50cfd570c401f26fd9e7bda34a0216b6f1922b";
/// Where the ESP of the fixture disk begins.
const ESP: u64 = 1 << 20;

fn bootsurgeon(lab: &Lab, args: &[&str]) -> Output {
    // A download would land in TMPDIR: it must stay empty.
    let tmp = lab.path("tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    let out = crate::support::program().args(args).env("TMPDIR", &tmp).output().unwrap();
    assert!(!String::from_utf8_lossy(&out.stderr).contains("panicked"), "{}", String::from_utf8_lossy(&out.stderr));
    out
}

fn json(out: &Output) -> Value {
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Swaps from `url` and judges the disk by mtools.
fn swaps(url: &str, extra: &[&str], expected: &Path, lab: &Lab) -> Value {
    let disk = lab.fixture("disk-512.img.zst");
    let disk = disk.to_str().unwrap();
    let args = [&["swap", disk, url, "--yes", "--json"], extra].concat();
    let report = json(&bootsurgeon(lab, &args));
    assert_eq!(report["committed"], true, "{report}");
    assert_eq!(report["sha256"], sha256(expected));
    assert_eq!(std::fs::read_dir(lab.path("tmp")).unwrap().count(), 0, "something was stored locally");
    if tool("mcopy") {
        let on_esp = mtools_read(Path::new(disk), ESP, "EFI/Linux/Talos-v1.12.4.efi").unwrap();
        assert!(on_esp == std::fs::read(expected).unwrap());
    }
    // The same again: nothing is written, and with ranges next to nothing is transferred.
    let again = json(&bootsurgeon(lab, &args));
    assert_eq!((&again["already_in_place"], &again["committed"]), (&Value::Bool(true), &Value::Bool(false)), "{again}");
    report
}

fn server_kinds() -> Vec<(&'static str, Behaviour)> {
    let plain = Behaviour::default;
    vec![
        ("redirect to storage with ranges", Behaviour { redirect: true, ..plain() }),
        ("ranges at the factory", Behaviour { ranges: true, ..plain() }),
        ("no ranges", plain()),
        ("presigned addresses that expire", Behaviour { redirect: true, url_bytes: Some(50_000), ..plain() }),
        ("connections that break", Behaviour { ranges: true, drop_after: Some((40_000, 5)), ..plain() }),
        ("connections that break, no ranges", Behaviour { drop_after: Some((40_000, 3)), ..plain() }),
        ("refusals that pass", Behaviour { ranges: true, refuse: Some((503, 2, Some(0))), ..plain() }),
    ]
}

#[test]
fn a_uki_goes_from_any_server_into_the_esp() {
    for (name, behaviour) in server_kinds() {
        let lab = Lab::new();
        let uki = lab.fixture(&format!("{UKI}.zst"));
        let factory = LocalFactory::start().unwrap();
        let url = factory.serve_path("/x.efi", std::fs::read(&uki).unwrap(), behaviour);
        let report = swaps(&url, &[], &uki, &lab);
        let wire = report["wire_bytes"].as_u64().unwrap();
        assert!(wire >= std::fs::metadata(&uki).unwrap().len(), "{name}: {wire}");
    }
}

#[test]
fn the_uki_in_an_iso_comes_without_the_rest() {
    for (name, behaviour) in server_kinds() {
        let lab = Lab::new();
        let iso = lab.fixture("secureboot-arm64.iso.zst");
        let uki = lab.fixture("talos-v1.12.4-arm64-iso.efi.zst");
        let factory = LocalFactory::start().unwrap();
        let url = factory.serve_path("/x.iso", std::fs::read(&iso).unwrap(), behaviour);
        let report = swaps(&url, &["--allow-halt-if-installed"], &uki, &lab);
        let (wire, whole) = (report["wire_bytes"].as_u64().unwrap(), std::fs::metadata(&iso).unwrap().len());
        assert!(wire < whole / 4, "{name}: {wire} of {whole} bytes");
    }
}

#[test]
fn a_corrupt_transfer_is_never_committed() {
    for ranges in [true, false] {
        let lab = Lab::new();
        let uki = lab.fixture(&format!("{UKI}.zst"));
        let disk = lab.fixture("disk-512.img.zst");
        let factory = LocalFactory::start().unwrap();
        let behaviour = Behaviour { ranges, corrupt_at: Some(70_000), ..Behaviour::default() };
        let url = factory.serve_path("/x.efi", std::fs::read(&uki).unwrap(), behaviour);
        let out = bootsurgeon(&lab, &["swap", disk.to_str().unwrap(), &url, "--yes"]);
        assert_eq!(out.status.code(), Some(3), "{}", String::from_utf8_lossy(&out.stderr));
        let status = json(&bootsurgeon(&lab, &["status", disk.to_str().unwrap(), "--json"]));
        assert_eq!(status["esp"]["healthy"], true);
        assert_eq!(status["interrupted"], Value::Null);
        // Free clusters were written; no directory, no table.
        crate::support::fsck_clean(&disk, ESP);
    }
}

#[test]
fn the_factory_is_asked_for_the_uki_and_then_for_the_iso() {
    for has_uki in [true, false] {
        let lab = Lab::new();
        let (uki, iso) = (lab.fixture(&format!("{UKI}.zst")), lab.fixture("secureboot-arm64.iso.zst"));
        let factory = LocalFactory::start().unwrap();
        let behaviour = || Behaviour { redirect: true, ..Behaviour::default() };
        if has_uki {
            factory.serve(
                SCHEMATIC,
                "v1.12.4",
                "metal-arm64-secureboot-uki.efi",
                std::fs::read(&uki).unwrap(),
                behaviour(),
            );
        }
        factory.serve(SCHEMATIC, "v1.12.4", "metal-arm64-secureboot.iso", std::fs::read(&iso).unwrap(), behaviour());
        let disk = lab.fixture("disk-512.img.zst");
        let base = factory.url();
        let args = ["swap", disk.to_str().unwrap(), "--schematic", SCHEMATIC, "--talos", "v1.12.4", "--arch", "arm64"];
        let out = bootsurgeon(&lab, &[&args[..], &["--factory", base.as_ref(), "--yes", "--json"]].concat());
        if has_uki {
            assert_eq!(json(&out)["sha256"], sha256(&uki));
        } else {
            // The ISO's UKI halts an installed node: the guard stands here too.
            assert_eq!(out.status.code(), Some(4), "{}", String::from_utf8_lossy(&out.stderr));
            assert!(String::from_utf8_lossy(&out.stderr).contains("halt_if_installed"));
        }
    }
}

#[test]
fn the_cache_serves_offline_and_is_verified_on_use() {
    let lab = Lab::new();
    let uki = lab.fixture(&format!("{UKI}.zst"));
    let factory = LocalFactory::start().unwrap();
    factory.serve(
        SCHEMATIC,
        "v1.12.4",
        "metal-arm64-secureboot-uki.efi",
        std::fs::read(&uki).unwrap(),
        Behaviour::default(),
    );
    let cache = lab.path("cache");
    let swap = |name: &str, base: &str, offline: bool| {
        let disk = lab.fixture_as("disk-512.img.zst", name);
        let args = ["swap", disk.to_str().unwrap(), "--schematic", SCHEMATIC, "--talos", "v1.12.4", "--arch", "arm64"];
        let more = ["--factory", base, "--cache", cache.to_str().unwrap(), "--yes", "--json"];
        let offline: &[&str] = if offline { &["--offline"] } else { &[] };
        bootsurgeon(&lab, &[&args[..], &more, offline].concat())
    };
    let nobody = "http://127.0.0.1:9";
    let missing = swap("a.img", nobody, true);
    assert_eq!(missing.status.code(), Some(1), "{}", String::from_utf8_lossy(&missing.stderr));
    assert_eq!(json(&swap("b.img", &factory.url(), false))["sha256"], sha256(&uki));
    assert_eq!(json(&swap("c.img", nobody, true))["sha256"], sha256(&uki));
    // A damaged file is not used.
    let kept = cache.join(SCHEMATIC).join("v1.12.4/metal-arm64-secureboot-uki.efi");
    let mut bytes = std::fs::read(&kept).unwrap();
    bytes[50_000] ^= 1;
    std::fs::write(&kept, bytes).unwrap();
    assert_eq!(swap("d.img", nobody, true).status.code(), Some(1));
    assert_eq!(json(&swap("e.img", &factory.url(), false))["sha256"], sha256(&uki));
}
