//! The first steps at the desk: schematics and manifests.

use crate::cli::{NOHALT, TAILSCALE, uki};
use crate::support::Lab;
use bootsurgeon::testkit::factory::LocalFactory;

#[test]
fn issue16_12_a_schematic_goes_down_a_pipe() {
    let lab = Lab::new();
    let factory = LocalFactory::start().unwrap();
    let file = lab.path("s.yaml");
    std::fs::write(&file, "customization: {systemExtensions: {officialExtensions: [siderolabs/tailscale]}}\n").unwrap();
    let id = bootsurgeon!("schematic", "id", file, "--json").code(0).json()["id"].as_str().unwrap().to_owned();
    let create = bootsurgeon!("schematic", "create", file, "--factory", factory.url()).code(0).says(&[&id]);
    let show = bootsurgeon!("schematic", "show", id, "--factory", factory.url()).code(0).says(&[&id]);
    let edit = bootsurgeon!("schematic", "edit", file).code(0).says(&[&id]);
    for ran in [create, show, edit] {
        assert!(ran.out.starts_with("customization:\n") && !ran.out.contains(&id), "{}", ran.out);
        std::fs::write(lab.path("again.yaml"), &ran.out).unwrap();
        let again = bootsurgeon!("schematic", "id", lab.path("again.yaml"), "--json").code(0).json();
        assert_eq!(again["id"], *id);
    }
    let json = bootsurgeon!("schematic", "create", file, "--factory", factory.url(), "--json").code(0).json();
    assert_eq!(json["id"], *id);
}

#[test]
fn issue16_12_a_schematic_is_edited_from_a_file_or_from_a_disk() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let same = bootsurgeon!("schematic", "edit", "--from", disk, "--json").code(0).json();
    assert_eq!(same["id"], "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba", "the empty schematic");
    let more =
        bootsurgeon!("schematic", "edit", "--from", disk, "--add-extension", "tailscale", "--json").code(0).json();
    assert_eq!(more["id"], TAILSCALE);
    let halt = "-talos.halt_if_installed";
    let mut both = args!["schematic", "edit", "--from", disk, "--json"].to_vec();
    both.extend(args!["--add-extension", "tailscale", "--extra-kernel-arg", halt]);
    let changed = crate::cli::run(&both).code(0).json();
    assert_eq!(changed["id"], NOHALT);
    let file = lab.path("s.yaml");
    std::fs::write(&file, changed["schematic"].as_str().unwrap()).unwrap();
    let back = bootsurgeon!("schematic", "edit", file, "--remove-kernel-arg", halt, "--json").code(0).json();
    assert_eq!(back["id"], TAILSCALE);
    let args = ["--add-extension", "i915", "--remove-extension", "tailscale"];
    let other = bootsurgeon!("schematic", "edit", file, args[0], args[1], args[2], args[3]).code(0);
    assert!(other.out.contains("- siderolabs/i915\n") && !other.out.contains("tailscale"), "{}", other.out);
    bootsurgeon!("schematic", "edit", file, "--remove-extension", "nvidia")
        .fails(2, &["nvidia", "siderolabs/tailscale"]);
    bootsurgeon!("schematic", "edit").code(2);
}

#[test]
fn issue16_11_an_address_is_no_nodes_name() {
    for address in ["192.168.1.203", "fd00::1"] {
        for pod in [["manifest", "--node"], ["job", "--nodes"]] {
            let ran = bootsurgeon!("pod", pod[0], pod[1], address, "--disk", "/dev/sda", "https://x.example/y.efi");
            ran.fails(2, &["is an address", "kubectl get nodes -o wide"]);
        }
    }
}

/// Whoever rolls an image out needs to know what a node that runs it has to show: also where nothing had to be written.
#[test]
fn issue18_3_swap_says_what_the_image_holds_also_where_it_is_in_place() {
    let lab = Lab::new();
    let (image, disk) = (uki(&lab, "v1.12.4-arm64-installer"), lab.fixture("disk-512.img.zst"));
    let verified = bootsurgeon!("verify", image, "--allow-untrusted", "--json").code(0).json()["image"].clone();
    assert_eq!(verified["services"], serde_json::json!(["tailscale"]), "{verified:#}");
    for (how, in_place) in [("--dry-run", false), ("--yes", false), ("--dry-run", true), ("--yes", true)] {
        let report = bootsurgeon!("swap", disk, image, how, "--json").code(0).json();
        assert_eq!((&report["image"], &report["already_in_place"]), (&verified, &in_place.into()), "{report:#}");
        assert_eq!(report["waiting_services"], verified["waiting_services"], "{report:#}");
    }
}
