//! OCI images as `IMAGE`: what a registry has of a Talos installer, whose digest is the only pin there is
//! (siderolabs/image-factory#596).

use super::uki::debian_esp_of;
use crate::cli::Ran;
use crate::makers::{Made, certificate};
use crate::support::{Lab, run_ok, tool};
use bootsurgeon::pe::Arch;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A tar archive of these files.
fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image layout in a folder.
struct Layout(PathBuf);

impl Layout {
    fn new(dir: PathBuf) -> Self {
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        std::fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self(dir)
    }

    fn path_of(&self, digest: &str) -> PathBuf {
        self.0.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        std::fs::write(self.path_of(&digest), bytes).unwrap();
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len()})
    }

    fn json(&self, kind: &str, value: &Value) -> Value {
        self.blob(&format!("{kind}+json"), value.to_string().as_bytes())
    }

    /// An image of these layers, each a media type's ending, the blob, and what it unpacks to.
    fn image(&self, arch: &str, layers: &[(&str, Vec<u8>, Vec<u8>)]) -> Value {
        let diff_ids: Vec<_> = layers.iter().map(|(_, _, unpacked)| sha256(unpacked)).collect();
        let config = json!({"architecture": arch, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.json("config.v1", &config);
        let layers: Vec<_> =
            layers.iter().map(|(kind, blob, _)| self.blob(&format!("layer.v1.{kind}"), blob)).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                              "config": config, "layers": layers});
        let mut found = self.json("manifest.v1", &manifest);
        found["platform"] = json!({"os": "linux", "architecture": arch});
        found
    }

    fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        std::fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }
}

/// An installer as Talos' imager lays it out: a base with an older image and a boot loader, the image above.
fn installer(layout: &Layout, uki: &[u8], arch: &str) -> Value {
    layout.image(arch, &layers(uki, arch, true))
}

fn layers(uki: &[u8], arch: &str, zstd: bool) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let place = format!("usr/install/{arch}/vmlinuz.efi.signed");
    let older = Made::debian("6.11.0").unsigned();
    let loader = Made { sections: vec![(".text".into(), vec![0xC3])], arch: Arch::Arm64 }.unsigned();
    let boot = format!("usr/install/{arch}/systemd-boot.efi.signed");
    let base = layer(&[
        (&place, &older),
        (&boot, &loader),
        ("usr/share/gone/old.efi", &older),
        ("usr/share/removed.efi", &older),
        ("bin/installer", b"#!"),
    ]);
    let middle =
        layer(&[("usr/share/.wh.gone", b""), ("usr/share/.wh.removed.efi", b""), ("README.efi", b"no program")]);
    let top = layer(&[(&place, uki)]);
    let middle_packed =
        if zstd { ("tar+zstd", zstd::encode_all(&middle[..], 3).unwrap()) } else { ("tar+gzip", gzip(&middle)) };
    vec![("tar+gzip", gzip(&base), base), (middle_packed.0, middle_packed.1, middle), ("tar", top.clone(), top)]
}

fn verify(lab: &Lab, image: impl AsRef<std::ffi::OsStr>) -> Ran {
    bootsurgeon!("verify", image.as_ref(), "--cert", certificate(lab), "--efivars", "none", "--json")
}

fn with_digest(image: &Path, digest: &Value) -> String {
    format!("{}@{}", image.display(), digest["digest"].as_str().unwrap())
}

#[test]
fn rimage_factory_596_the_uki_of_an_installer_image_is_taken_by_its_digest() {
    let lab = Lab::new();
    let uki = std::fs::read(Made::debian("6.12.1-arm64").file(&lab, "new.efi")).unwrap();
    let layout = Layout::new(lab.path("installer"));
    let manifest = installer(&layout, &uki, "arm64");
    layout.index(std::slice::from_ref(&manifest));
    let image = layout.0.clone();
    assert_eq!(verify(&lab, &image).code(0).json()["image"]["sha256"], sha256(&uki)[7..]);
    let found = bootsurgeon!("inspect", image, "--json").code(0).json();
    assert_eq!((&found["kind"], &found["ukis"].as_array().unwrap().len()), (&json!("OCI image"), &1));
    assert_eq!(found["ukis"][0]["name"], "usr/install/arm64/vmlinuz.efi.signed");
    let place = found["ukis"][0]["place"].as_str().unwrap();
    assert!(place.contains(manifest["digest"].as_str().unwrap()) && place.contains("linux/arm64"), "{place}");

    // The digest that was pinned, another one, and a file of which there is none.
    verify(&lab, with_digest(&image, &manifest)).code(0);
    let other = json!({"digest": format!("sha256:{}", "7".repeat(64))});
    verify(&lab, with_digest(&image, &other))
        .fails(3, &["nothing in it has the digest sha256:777", "it holds sha256:"]);
    let plain = lab.path("new.efi");
    verify(&lab, with_digest(&plain, &other)).fails(2, &["it is no OCI image"]);

    // An archive of it is the same, and what skopeo makes of it, too.
    let archive = lab.path("installer.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    tar.append_dir_all(".", &image).unwrap();
    tar.finish().unwrap();
    verify(&lab, with_digest(&archive, &manifest)).code(0);
    if tool("skopeo") {
        // Docker knows no layers packed with zstd.
        let plainer = Layout::new(lab.path("gzip"));
        plainer.index(&[plainer.image("arm64", &layers(&uki, "arm64", false))]);
        for (kind, image) in [("oci-archive", &image), ("docker-archive", &plainer.0)] {
            let to = lab.path(kind);
            let arguments = ["copy", "--insecure-policy", "--quiet", "--override-arch", "arm64"];
            let (from, into) = (format!("oci:{}", image.display()), format!("{kind}:{}", to.display()));
            run_ok("skopeo", &[&arguments[..], &[&from, &into]].concat());
            let out = lab.path(&format!("{kind}.efi"));
            bootsurgeon!("extract", to, "--out", out).code(0);
            assert!(std::fs::read(&out).unwrap() == uki, "{kind}");
        }
    }
    let Some(esp) =
        debian_esp_of(&lab, 24, &[("4f5e-6.11.0-arm64.efi", &Made::debian("6.11.0-arm64").file(&lab, "old.efi"))])
    else {
        return;
    };
    let pinned = with_digest(&archive, &manifest);
    let args = crate::args!["swap", esp, pinned, "--cert", certificate(&lab), "--yes", "--json"];
    assert_eq!(crate::cli::run(&args).code(0).json()["plan"]["boot_after"], "4f5e-6.12.1-arm64.efi");
}

#[test]
fn rimage_factory_596_an_index_for_several_machines_needs_a_choice() {
    let lab = Lab::new();
    let arm64 = std::fs::read(Made::debian("6.12.1-arm64").file(&lab, "arm64.efi")).unwrap();
    let amd64 = Made { arch: Arch::Amd64, ..Made::debian("6.12.1-amd64") };
    let amd64 = std::fs::read(amd64.file(&lab, "amd64.efi")).unwrap();
    let layout = Layout::new(lab.path("installer"));
    let manifests = [installer(&layout, &arm64, "arm64"), installer(&layout, &amd64, "amd64")];
    let index = layout.json("index.v1", &json!({"schemaVersion": 2, "manifests": manifests}));
    layout.index(std::slice::from_ref(&index));
    let image = layout.0.clone();
    verify(&lab, &image)
        .fails(2, &["holds 2 UKIs", "usr/install/amd64/vmlinuz.efi.signed", "choose one with --uki NAME"]);
    verify(&lab, with_digest(&image, &index)).fails(2, &["holds 2 UKIs"]);
    let report = verify(&lab, with_digest(&image, &manifests[1])).code(0).json();
    assert_eq!(report["image"]["sha256"], sha256(&amd64)[7..]);
    let name = "usr/install/arm64/vmlinuz.efi.signed";
    let args = crate::args!["verify", image, "--uki", name, "--cert", certificate(&lab), "--efivars", "none", "--json"];
    assert_eq!(crate::cli::run(&args).code(0).json()["image"]["sha256"], sha256(&arm64)[7..]);
}

#[test]
fn rimage_factory_596_whatever_is_changed_in_an_image_is_found() {
    let lab = Lab::new();
    let uki = std::fs::read(Made::debian("6.12.1-arm64").file(&lab, "new.efi")).unwrap();
    let layout = Layout::new(lab.path("installer"));
    let manifest = installer(&layout, &uki, "arm64");
    layout.index(std::slice::from_ref(&manifest));
    let image = layout.0.clone();
    let text = std::fs::read(layout.path_of(manifest["digest"].as_str().unwrap())).unwrap();
    let layers = serde_json::from_slice::<Value>(&text).unwrap()["layers"].clone();
    let all = layers.as_array().unwrap().iter().chain([&manifest]);
    for digest in all.map(|d| d["digest"].as_str().unwrap()) {
        let path = layout.path_of(digest);
        let good = std::fs::read(&path).unwrap();
        for at in [good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert_eq!(verify(&lab, &image).code, 3, "{digest} at {at}");
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(verify(&lab, &image).code, 3, "{digest} cut");
        std::fs::remove_file(&path).unwrap();
        verify(&lab, &image).fails(3, &["which it names"]);
        std::fs::write(&path, good).unwrap();
    }
    verify(&lab, &image).code(0);
    // Nothing of the host is read by a name in the image.
    let outside = json!([{"Config": "../../new.efi", "Layers": ["/etc/passwd"]}]);
    std::fs::write(image.join("manifest.json"), outside.to_string()).unwrap();
    std::fs::remove_file(image.join("index.json")).unwrap();
    assert_eq!(verify(&lab, &image).code, 3);
    std::fs::remove_file(image.join("manifest.json")).unwrap();
    verify(&lab, &image).fails(3, &["a folder without an OCI image"]);
}

/// A member that says that the next one's name is a gigabyte long: no archive may take the memory that it asks for.
#[test]
fn rimage_factory_596_a_name_without_end_is_refused() {
    let lab = Lab::new();
    for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader] {
        let mut header = tar::Header::new_gnu();
        header.set_path("././@LongLink").unwrap();
        header.set_entry_type(kind);
        header.set_size(1 << 30);
        header.set_cksum();
        // As a whole archive, which is full of holes, and in a layer.
        let archive = lab.path("bomb.tar");
        std::fs::write(&archive, header.as_bytes()).unwrap();
        crate::cli::truncate(&archive, (1 << 30) + 2048);
        let _ = verify(&lab, &archive).fails(3, &["a name of 1073741824 bytes"]);
        let layer = [header.as_bytes().as_slice(), &[b'a'; 4096]].concat();
        let layout = Layout::new(lab.path("layout"));
        let image = layout.image("arm64", &[("tar", layer.clone(), layer)]);
        layout.index(&[image]);
        let _ = verify(&lab, &layout.0).fails(3, &["a name of 1073741824 bytes"]);
        std::fs::remove_dir_all(&layout.0).unwrap();
    }
}
