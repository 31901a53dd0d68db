//! A node's configuration, held against an image.

use crate::cli::{ESP, uki};
use crate::support::{Lab, fixtures, fsck_clean};
use serde_json::Value;

const INSTALLER: &str = "v1.12.4-arm64-installer";
const SECRET: &str = "kAbCdE-0123456789";

/// The codes of the findings, and the finding of one.
fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect()
}

fn put<'a>(report: &'a Value, code: &str) -> &'a str {
    let finding = report["findings"].as_array().unwrap().iter().find(|f| f["code"] == code);
    finding.unwrap_or_else(|| panic!("no {code}: {report:#}"))["put"].as_str().unwrap()
}

/// What is printed to put there makes the configuration fit.
#[test]
fn issue18_4_what_config_check_prints_to_put_there_fits() {
    let lab = Lab::new();
    let (image, file) = (uki(&lab, INSTALLER), lab.path("worker.yaml"));
    let machine = "machine:\n  type: worker\n  install:\n    image: ghcr.io/siderolabs/installer:v1.12.4\n";
    std::fs::write(&file, machine).unwrap();
    let before = bootsurgeon!("config", "check", file, "--image", image, "--json").code(3).json();
    assert_eq!(codes(&before), ["service-waits", "install-image"]);
    assert_eq!(before["image"]["version"], "v1.12.4");
    assert_eq!(before["findings"][1]["line"], 4);
    let document = put(&before, "service-waits").replace("REPLACE-ME", &format!("tskey-auth-{SECRET}"));
    let line = put(&before, "install-image");
    let after = machine.replace("image: ghcr.io/siderolabs/installer:v1.12.4", line);
    std::fs::write(&file, format!("{after}---\n{document}")).unwrap();
    let ran = bootsurgeon!("config", "check", file, "--image", image, "--json").code(0);
    let report = ran.json();
    assert_eq!((codes(&report), &report["verdict"]), (vec!["tailscale-authkey-kind"], &"fits".into()));
    assert!(!ran.out.contains(SECRET) && !ran.err.contains(SECRET), "{ran:?}");
    let text = bootsurgeon!("config", "check", file, "--image", image).code(0);
    assert!(text.out.contains("fits:") && !text.out.contains(SECRET), "{}", text.out);
    // As a check of the image.
    let certificate = fixtures().join("keys/test-signing.crt");
    let report =
        bootsurgeon!("verify", image, "--cert", certificate, "--machine-config", file, "--json").code(0).json();
    let check = report["checks"].as_array().unwrap().iter().find(|c| c["id"] == "config").unwrap().clone();
    assert_eq!(check["status"], "pass", "{check}");
    assert!(check["detail"].as_str().unwrap().contains("it configures tailscale"), "{check}");
}

/// It warns, and a swap goes on: the board starts the image whatever its configuration says.
#[test]
fn issue18_4_a_swap_says_what_does_not_fit_and_goes_on() {
    let lab = Lab::new();
    let (image, file, disk) = (uki(&lab, INSTALLER), lab.path("node.yaml"), lab.fixture("disk-512.img.zst"));
    let text = format!(
        "apiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: ext-tailscale\nenvironment:\n  - \
         TS_AUTHKEY=\"{SECRET}\"\n---\nmachine: {{install: {{image: 'ghcr.io/siderolabs/installer:v1.12.4'}}}}\n"
    );
    std::fs::write(&file, text).unwrap();
    for how in ["--dry-run", "--yes"] {
        let ran = bootsurgeon!("swap", disk, image, "--machine-config", file, how, "--json").code(0);
        let report = ran.json();
        assert_eq!(report["committed"], how == "--yes", "{report:#}");
        let check = report["checks"].as_array().unwrap().iter().find(|c| c["id"] == "config").unwrap().clone();
        let detail = check["detail"].as_str().unwrap();
        for words in ["node.yaml:3: ", "write `name: tailscale`", "node.yaml:5: quotes", "node.yaml:7: ", "`image: "] {
            assert!(detail.contains(words), "no {words}: {detail}");
        }
        assert_eq!(check["status"], "warn");
        assert!(!ran.out.contains(SECRET) && !ran.err.contains(SECRET), "{ran:?}");
    }
    fsck_clean(&disk, ESP);
}

#[test]
fn issue18_4_files_that_are_no_configuration_say_so() {
    let lab = Lab::new();
    let write = |name: &str, content: &[u8]| {
        std::fs::write(lab.path(name), content).unwrap();
        lab.path(name)
    };
    bootsurgeon!("config", "check", lab.path("none.yaml")).fails(1, &["none.yaml"]);
    bootsurgeon!("config", "check", write("binary", b"\xFF\xFE")).fails(3, &["UTF-8"]);
    bootsurgeon!("config", "check", write("large", &vec![b'a'; 2 << 20])).fails(2, &["larger than"]);
    let empty = bootsurgeon!("config", "check", write("empty", b""), "--json").code(0).json();
    assert_eq!((&empty["documents"], codes(&empty)), (&0.into(), vec![]));
    let bomb: String =
        (1..40).fold("a0: &a0 [x,x]\n".into(), |s, i| s + &format!("a{i}: &a{i} [*a{0},*a{0}]\n", i - 1));
    let deep = "[".repeat(100_000);
    for text in [bomb.as_bytes(), deep.as_bytes(), b"a: [", b"a: b: c"] {
        let report = bootsurgeon!("config", "check", write("bad", text), "--json").code(3).json();
        assert_eq!(codes(&report), ["not-yaml"], "{report:#}");
    }
    bootsurgeon!("config", "check").code(2);
    let (fifo, file) = (lab.path("fifo"), write("good", b"machine: {}\n"));
    crate::support::run_ok("mkfifo", &[&fifo]);
    bootsurgeon!("config", "check", file, "--image", fifo).fails(1, &["a FIFO or pipe"]);
}
