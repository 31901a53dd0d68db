//! The pod of a manifest, run as far as that goes without a cluster: the manifest's mounts around an otherwise empty, read-only
//! root directory, the node's disk as a loop device, the arguments and variables as printed. No kubelet, no EFI variables.

use crate::cli::{TAILSCALE, TARGET, uki, uki_bytes};
use crate::loops::Loop;
use crate::support::Lab;
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;

/// Makes a manifest with these words, runs its container and returns the one document on its standard output.
fn in_its_container(lab: &Lab, words: &[&str]) -> (Option<i32>, Value) {
    let usual = ["pod", "manifest", "--node", "n1", "--image", "r.example/b:1", "--json", "-q"];
    // This machine may have no EFI variables, and its firmware did not boot the disk.
    let variables: &[&str] = if words.contains(&"recover") { &[] } else { &["--efivars", "none"] };
    let all = [&usual[..], variables, words];
    let manifest = lab.path("manifest.json");
    std::fs::write(&manifest, crate::cli::run(&all.concat()).code(0).out).expect("a file");
    let root = lab.path("root");
    std::fs::create_dir_all(&root).expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/container.sh");
    let program = Path::new(env!("CARGO_BIN_EXE_bootsurgeon"));
    let parts =
        [OsStr::new("-m"), OsStr::new("sh"), script.as_ref(), manifest.as_ref(), root.as_ref(), program.as_ref()];
    let output = crate::support::run("unshare", &parts);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("not one JSON document ({e}): {words:?}\n{}{said}", String::from_utf8_lossy(&output.stdout))
    });
    (output.status.code(), document)
}

#[test]
fn a_swap_in_the_pods_container() {
    if !crate::support::tools(&["unshare", "jq"]) {
        return;
    }
    let Some(_turn) = crate::loops::turn() else { return };
    let lab = Lab::new();
    let node = Loop::attach(&lab.fixture("disk-512.img.zst"), &[]);
    let disk = node.node().to_str().expect("a path");
    let elsewhere = format!("/host{disk}");
    let new = uki_bytes(&lab, "v1.12.4-arm64-uki");
    let sha256 = crate::support::sha256(&uki(&lab, "v1.12.4-arm64-uki"));
    let factory = LocalFactory::start().expect("a factory");
    factory.serve(TAILSCALE, "v1.12.4", "metal-arm64-secureboot-uki.efi", new, Behaviour::default());
    let url = factory.url();
    let swap = ["--schematic", TAILSCALE, "--talos", "v1.12.4", "--arch", "arm64", "--factory", &url];

    let (code, before) = in_its_container(&lab, &["--disk", disk, "--command", "status"]);
    assert_eq!((code, &before["boot"]["selected"]), (Some(0), &Value::from(TARGET.trim_start_matches("EFI/Linux/"))));

    // Without ranges a rehearsal needs the whole image in a file: the root is read-only, and there is room in /tmp.
    let (code, plan) = in_its_container(&lab, &[&["--disk", disk, "--dry-run"][..], &swap].concat());
    assert_eq!((code, &plan["committed"]), (Some(0), &Value::from(false)), "{plan:#}");

    let (code, done) = in_its_container(&lab, &[&["--disk", disk][..], &swap].concat());
    assert_eq!(
        (code, &done["committed"], &done["sha256"]),
        (Some(0), &true.into(), &sha256.clone().into()),
        "{done:#}"
    );

    // With the node's devices where debug containers have them; and a command that asks for the backup.
    let (code, after) = in_its_container(&lab, &["--disk", &elsewhere, "--command", "status"]);
    let holds =
        after["files"].as_array().expect("files").iter().any(|f| f["kind"] == "uki" && f["sha256"] == sha256.as_str());
    assert!(code == Some(0) && holds, "{after:#}");
    let (code, back) = in_its_container(&lab, &["--disk", &elsewhere, "--command", "restore"]);
    assert_eq!((code, &back["committed"]), (Some(0), &true.into()), "{back:#}");
    let (code, clean) = in_its_container(&lab, &["--disk", disk, "--command", "recover"]);
    assert_eq!((code, &clean["committed"]), (Some(0), &false.into()), "{clean:#}");

    // A disk that is not there: an error as a document, and the code that the job's condition will name.
    let (code, error) = in_its_container(&lab, &["--disk", "/dev/no-such-disk", "--command", "status"]);
    assert!(code.is_some_and(|c| c != 0) && error["error"]["message"].is_string(), "{code:?} {error:#}");
}
