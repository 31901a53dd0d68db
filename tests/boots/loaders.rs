//! Power cuts while systemd-boot itself is replaced: at every one the firmware starts the old or the new systemd-boot,
//! and that one the image that is predicted for it.

use crate::cut_shapes::{Act, NOW, Shape};
use crate::job::talos;
use crate::lab::Systemd;
use crate::recorder::Recorder;
use bootsurgeon::block::{Sink, read_vec};
use bootsurgeon::esp::Inventory;
use bootsurgeon::pe::Arch;
use bootsurgeon::plan::{LoaderStep, loader_places, usual_loader_paths};
use bootsurgeon::surgery::{ContentRef, Staging, open_healthy};
use sha2::{Digest, Sha256};

const NAME: &str = "Talos-v1.12.4.efi";
const OLDER: &str = "Talos-v1.12.3.efi";

/// Three releases of systemd-boot on a board that has the oldest at both places.
pub(crate) fn shapes(releases: &[Systemd; 3]) -> Vec<Shape> {
    let [oldest, middle, newest] = releases;
    let arch = oldest.arch;
    let [_, installed] = usual_loader_paths(arch);
    let image = talos(oldest, "v1.12.4", "old");
    let older = talos(oldest, "v1.12.3", "older");
    let replaced = |by: &Systemd| -> Act {
        let bytes = by.loader.clone();
        Box::new(move |medium, shape| replace(medium, shape, arch, &bytes))
    };
    let shape = |name: String, from: &Systemd, to: &Systemd, option: Option<&String>, operation| {
        let mut shape = Shape::new(oldest, &name, &[(NAME, &image), (OLDER, &older)], operation);
        shape.beside.push((installed.clone(), oldest.loader.clone()));
        Shape {
            option: option.cloned(),
            images: vec![(image.clone(), "old"), (older.clone(), "older")],
            loaders: Some([from.version.text.clone(), to.version.text.clone()]),
            contents: releases.iter().map(|systemd| systemd.loader.clone()).collect(),
            watched: usual_loader_paths(arch).to_vec(),
            ..shape
        }
    };
    let name = |from: &Systemd, to: &Systemd| format!("`loader` from {} to {}", from.version.major, to.version.major);
    let preferred = format!("timeout 0\npreferred {}\n", OLDER.to_lowercase());
    vec![
        shape(name(oldest, middle), oldest, middle, Some(&installed), replaced(middle)),
        Shape {
            earlier: vec![replaced(middle)],
            ..shape(name(middle, newest), middle, newest, None, replaced(newest))
        },
        Shape {
            earlier: vec![replaced(middle)],
            ..shape(
                format!("a restore of {} at both places", oldest.version.major),
                middle,
                oldest,
                Some(&installed),
                Box::new(move |medium, shape| restore(medium, shape, arch)),
            )
        },
        {
            // The command refuses this one: the newest goes by a line that the others do not know.
            let name = format!("{}, which starts another image", name(middle, newest));
            let mut all = shape(name, middle, newest, Some(&installed), replaced(newest));
            all.earlier = vec![replaced(middle)];
            let conf = all.beside.iter_mut().find(|(path, _)| path == "loader/loader.conf").unwrap();
            conf.1 = preferred.into_bytes();
            let other = talos(oldest, "v1.12.3", "new");
            Shape {
                files: vec![(NAME, image.clone()), (OLDER, other.clone())],
                images: vec![(image.clone(), "old"), (other, "new")],
                loaders: None,
                ..all
            }
        },
    ]
}

/// As the command does it, place after place, without its checks of signatures and of what starts.
fn replace(medium: &Recorder, shape: &Shape, arch: Arch, bytes: &Vec<u8>) {
    let esp = Inventory::read_in(medium, shape.known_variables(), shape.context()).unwrap();
    let places = loader_places(&esp, arch).unwrap().places;
    assert_eq!(places.len(), 2, "{places:?}");
    let steps: Vec<_> = places.iter().map(|place| LoaderStep::replace(&esp, place, None, None, NOW).unwrap()).collect();
    for step in &steps {
        let mut staging = Staging::begin(open_healthy(medium).unwrap(), bytes.len() as u64).unwrap();
        staging.chunk(bytes).unwrap();
        let staged = staging.seal(Sha256::digest(bytes).into()).unwrap();
        let _ = staged.commit(step.order().unwrap()).unwrap();
    }
}

/// Every place gets its backup back.
fn restore(medium: &Recorder, shape: &Shape, arch: Arch) {
    for path in usual_loader_paths(arch) {
        let esp = Inventory::read_in(medium, shape.known_variables(), shape.context()).unwrap();
        let places = loader_places(&esp, arch).unwrap().places;
        let place = places.iter().find(|place| place.path() == path).unwrap();
        let backup = format!("{}.bak.{NOW}", place.name);
        let entry = esp.volume.find(&format!("{}/{backup}", place.directory)).unwrap().expect("a backup");
        let bytes = read_vec(&esp.volume.file(&entry).unwrap(), 0, entry.bytes as usize).unwrap();
        let sha256 = Some(hex::encode(Sha256::digest(&bytes)));
        let verified = ContentRef { cluster: entry.first_cluster, bytes: entry.bytes, sha256 };
        let step = LoaderStep::replace(&esp, place, Some(&backup), None, NOW + 1).unwrap();
        let editor = open_healthy(medium).unwrap();
        let _ = step.order().unwrap().restore(editor, &backup, verified).unwrap();
    }
}
