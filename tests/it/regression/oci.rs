//! OCI images as `IMAGE`: what a registry has of a Talos installer, whose digest is the only pin there is
//! (siderolabs/image-factory#596).

use super::uki::debian_esp_of;
use crate::makers::{Made, certificate, verify};
use crate::support::{Lab, run_ok, tool};
use bootsurgeon::block::{ReadAt, read_vec};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::crash::Random;
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

/// An image of one layer as Talos' imager writes it to a file: `manifest.json` of `docker save`, the configuration
/// named by its whole digest, layers packed.
pub(super) fn imager_archive(path: &str, uki: &[u8]) -> Vec<u8> {
    let unpacked = layer(&[(path, uki)]);
    let packed = gzip(&unpacked);
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha256(&unpacked)]}});
    let config = config.to_string();
    let (name, part) = (sha256(config.as_bytes()), format!("{}.tar.gz", &sha256(&packed)[7..]));
    let manifest = json!([{"Config": name, "RepoTags": null, "Layers": [part]}]).to_string();
    layer(&[(&name, config.as_bytes()), (&part, &packed), ("manifest.json", manifest.as_bytes())])
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
    verify(&lab, with_digest(&plain, &other)).fails(2, &["it is not an OCI image"]);

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
        let _ = verify(&lab, &archive).fails(3, &["a name of 1.0 GiB"]);
        let layer = [header.as_bytes().as_slice(), &[b'a'; 4096]].concat();
        let layout = Layout::new(lab.path("layout"));
        let image = layout.image("arm64", &[("tar", layer.clone(), layer)]);
        layout.index(&[image]);
        let _ = verify(&lab, &layout.0).fails(3, &["a name of 1.0 GiB"]);
        std::fs::remove_dir_all(&layout.0).unwrap();
    }
}

/// Drawn images of a few layers, in which files, folders and whiteouts lie over each other, held against what comes of
/// unpacking the layers into a folder one after the other, as a container's file system is made.
#[test]
fn rimage_factory_596_layers_hide_what_a_container_does_not_see() {
    let lab = Lab::new();
    let mut random = Random::new(596);
    let ukis: Vec<_> = (1..=6).map(|n| Made::debian(&format!("6.{n}.0-arm64")).unsigned()).collect();
    let (mut several, mut none) = (0, 0);
    for case in 0..150 {
        let root = lab.path("root");
        std::fs::create_dir_all(&root).unwrap();
        let layout = Layout::new(lab.path("layout"));
        let mut layers = Vec::new();
        for _ in 0..2 + random.below(3) {
            let members = drawn_layer(&mut random, ukis.len());
            layers.push(tar_of(&members, &ukis));
            apply(&root, &members, &ukis);
        }
        let seen = below(&root, &root);
        let layers: Vec<_> = layers.into_iter().map(|bytes| ("tar", bytes.clone(), bytes)).collect();
        layout.index(&[layout.image("arm64", &layers)]);
        let found = bootsurgeon::oci::open(&layout.0, None, &false.into()).unwrap().unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|uki| (uki.path.clone(), read_vec(&*uki.file, 0, uki.file.size() as usize).unwrap()))
            .collect();
        assert!(found == seen, "case {case}: found {:?}, seen {:?}", paths(&found), paths(&seen));
        several += usize::from(found.len() > 1);
        none += usize::from(found.is_empty());
        std::fs::remove_dir_all(&root).unwrap();
        std::fs::remove_dir_all(&layout.0).unwrap();
    }
    assert!(
        several > 50 && (3..75).contains(&none),
        "the draws are one-sided: {several} with several, {none} with none"
    );
}

/// Path and kind of a member.
type Member = (String, Kind);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Folder,
    Link,
    Uki(usize),
    Whiteout,
}

/// Members that one layer can have: no path twice, and nothing below a file.
fn drawn_layer(random: &mut Random, ukis: usize) -> Vec<Member> {
    let names = ["a", "b.efi", "c.efi"];
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..2 + random.below(5) {
        let depth = 1 + random.below(3);
        let mut path: Vec<_> = (0..depth).map(|_| random.pick(&names).to_owned()).collect();
        let kind = match random.below(8) {
            0 => Kind::Whiteout,
            1 => Kind::Folder,
            2 => Kind::Link,
            _ => Kind::Uki(random.below(ukis)),
        };
        if kind == Kind::Whiteout {
            let name = path.pop().unwrap();
            path.push(if random.below(3) == 0 { ".wh..wh..opq".into() } else { format!(".wh.{name}") });
        }
        let path = path.join("/");
        let clashes = |other: &Member| {
            let inside =
                |outer: &Member, inner: &str| outer.1 != Kind::Folder && inner.starts_with(&format!("{}/", outer.0));
            other.0 == path || inside(other, &path) || inside(&(path.clone(), kind), &other.0)
        };
        if !members.iter().any(clashes) {
            members.push((path, kind));
        }
    }
    members
}

fn tar_of(members: &[Member], ukis: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, kind) in members {
        let mut header = tar::Header::new_gnu();
        let content: &[u8] = if let Kind::Uki(n) = kind { &ukis[*n] } else { b"" };
        header.set_entry_type(match kind {
            Kind::Folder => tar::EntryType::Directory,
            Kind::Link => tar::EntryType::Symlink,
            _ => tar::EntryType::Regular,
        });
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        if *kind == Kind::Link {
            archive.append_link(&mut header, path, "nowhere").unwrap();
        } else {
            archive.append_data(&mut header, path, content).unwrap();
        }
    }
    archive.into_inner().unwrap()
}

/// Unpacks a layer over what is there: first what it takes away, then what it brings.
fn apply(root: &Path, members: &[Member], ukis: &[Vec<u8>]) {
    let remove = |path: &Path| match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    };
    for (path, _) in members.iter().filter(|(_, kind)| *kind == Kind::Whiteout) {
        let path = root.join(path);
        // A file where the folder of the whiteout should be has nothing in it.
        let folder = path.parent().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().trim_start_matches(".wh.");
        match name {
            ".opq" if folder.is_dir() => std::fs::read_dir(folder).unwrap().for_each(|e| remove(&e.unwrap().path())),
            ".opq" => {}
            name => remove(&folder.join(name)),
        }
    }
    for (path, kind) in members.iter().filter(|(_, kind)| *kind != Kind::Whiteout) {
        let path = root.join(path);
        for folder in path.parent().unwrap().ancestors().take_while(|f| f.starts_with(root)) {
            if folder.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
                remove(folder);
            }
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match kind {
            Kind::Folder if path.is_dir() && !path.is_symlink() => {}
            Kind::Folder => {
                remove(&path);
                std::fs::create_dir(&path).unwrap();
            }
            Kind::Link => {
                remove(&path);
                std::os::unix::fs::symlink("nowhere", &path).unwrap();
            }
            Kind::Uki(n) => {
                remove(&path);
                std::fs::write(&path, &ukis[*n]).unwrap();
            }
            Kind::Whiteout => {}
        }
    }
}

/// Files of a folder and what is below it, in the order of their paths, but for those whose names are none of a UKI.
fn below(root: &Path, folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if is.is_dir() {
            found.extend(below(root, &path));
        } else if is.is_file() && name.ends_with(".efi") {
            found.push((name, std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn paths(found: &[(String, Vec<u8>)]) -> Vec<&str> {
    found.iter().map(|(path, _)| path.as_str()).collect()
}
