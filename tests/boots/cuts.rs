//! Power cuts around the commit of a swap: every image that one can leave boots the old system or the new one.

use crate::crash::{self, Kind, Limits};
use crate::frame::Frame;
use crate::job::talos;
use crate::lab::Systemd;
use crate::machine::{Boot, Machine};
use crate::recorder::Recorder;
use crate::volume;
use bootsurgeon::block::{ReadAt, read_vec};
use bootsurgeon::fat::{Stamp, Volume};
use bootsurgeon::surgery::{LINUX_DIR, Order, Staging, open_healthy};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::time::Duration;

const NAME: &str = "Talos-v1.12.4.efi";
/// Stands in every volume once; its first bytes are the number of the state.
const MARK: &[u8] = b"\0\0\0\0\0\0\0\0number of a crash state";

/// How many images started the old system, and how many the new one.
pub(crate) fn run(machine: Machine, systemd: &Systemd, wanted: usize) -> (usize, usize) {
    let images = crash_images(systemd, wanted);
    assert!(images.len() >= 20, "{} crash images", images.len());
    let (mut old, mut new) = (0, 0);
    for (batch, images) in images.chunks(40).enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, variables) = (dir.path().join("disk.img"), dir.path().join("variables.fd"));
        let runner = volume::fat(4 << 20, &[(systemd.loader_path().to_owned(), systemd.runner())]);
        let sizes: Vec<_> = std::iter::once(runner.len()).chain(images.iter().map(|(_, i)| i.len())).collect();
        volume::disk(&disk, &sizes, |n| match n.checked_sub(1) {
            None => runner.clone(),
            Some(n) => numbered(&images[n].1, n as u32),
        });
        std::fs::copy(machine.empty_variables(), &variables).unwrap();
        let console = machine.boot(&disk, &variables, Duration::from_secs(300));
        let boots = Boot::many(&console.text);
        for (n, (cut, _)) in images.iter().enumerate() {
            let boot = boots.get(&(n as u32)).unwrap_or_else(|| panic!("no boot of {cut}:\n{}", console.text));
            match boot.payload.as_ref().map(|(name, _)| name.as_str()) {
                Some("old") => old += 1,
                Some("new") => new += 1,
                _ => panic!("systemd-boot {}, batch {batch}, {cut}: {boot:?}", systemd.version.text),
            }
        }
    }
    (old, new)
}

fn numbered(image: &[u8], number: u32) -> Vec<u8> {
    let mut image = image.to_vec();
    let at = memchr::memmem::find(&image, MARK).expect("the file `state`");
    image[at..at + 4].copy_from_slice(&number.to_le_bytes());
    image
}

/// A swap of the same name, recorded; images from all over it, most of them from around its commit.
fn crash_images(systemd: &Systemd, wanted: usize) -> Vec<(String, Vec<u8>)> {
    let files = [
        (systemd.loader_path().to_owned(), systemd.loader.clone()),
        ("state".to_owned(), MARK.to_vec()),
        ("loader/loader.conf".to_owned(), b"timeout 0\n".to_vec()),
        (format!("{LINUX_DIR}/{NAME}"), talos(systemd, "v1.12.4", "old")),
    ];
    let new = talos(systemd, "v1.12.4", "new");
    let before = volume::esp(4 << 20, &files);
    let recorder = Recorder::new(Frame::new(&before, 512));
    swap(&recorder, &new);
    let recording = recorder.into_recording();
    assert_eq!(recording.misuse, None);
    let (mut frame, events) = recording.rewind();

    // The image's own sectors are data; everything else is what a commit is made of.
    let chunks: HashSet<[u8; 512]> = new.as_chunks().0.iter().copied().collect();
    let data: HashSet<u64> = events
        .iter()
        .filter_map(|e| match e {
            crate::recorder::Event::Write { sector, data, .. } => {
                let bytes: &[u8; 512] = data.bytes.first_chunk()?;
                (chunks.contains(bytes) && bytes.iter().any(|b| *b != 0)).then_some(*sector)
            }
            _ => None,
        })
        .collect();
    let limits = Limits { complete: 256, sampled: 12, torn: 0, seed: 1 };
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    crash::enumerate(&mut frame, &events, &|n| data.contains(&n), limits, &mut |frame, cut| {
        // Of the states while the image is being written, which differ in free clusters alone, a few are enough.
        let dull = matches!(cut.kind, Kind::Prefix(n) if n % 64 != 0) && cut.epoch < 2;
        if !dull && seen.insert(frame.key()) {
            all.push((cut, frame.to_bytes()));
        }
    });
    // As many as are wanted, half of them from before the commit and half from after it, where there are so many.
    all.sort_by_key(|(cut, _)| cut.epoch);
    let commit = (0..all.len()).find(|n| names_new(&all[*n].1, &new)).unwrap_or(all.len());
    let first = commit.saturating_sub(wanted / 2).min(all.len().saturating_sub(wanted));
    all.into_iter().skip(first).take(wanted).map(|(cut, image)| (format!("{cut:?}"), image)).collect()
}

/// Whether the file holds the new image.
fn names_new(volume: &[u8], new: &[u8]) -> bool {
    let volume = Volume::open(volume).unwrap();
    let entry = volume.find(&format!("{LINUX_DIR}/{NAME}")).unwrap();
    let content = entry.and_then(|e| {
        let bytes = volume.file(&e).ok()?;
        read_vec(&bytes, 0, bytes.size() as usize).ok()
    });
    content.is_some_and(|content| content == new)
}

fn swap(medium: &Recorder, new: &[u8]) {
    const STAMP: Stamp = Stamp(1_771_000_000);
    let mut staging = Staging::begin(open_healthy(medium).unwrap(), new.len() as u64).unwrap();
    for chunk in new.chunks(16 * 1024) {
        bootsurgeon::block::Sink::chunk(&mut staging, chunk).unwrap();
    }
    let staged = staging.seal(Sha256::digest(new).into()).unwrap();
    let backup = Some(format!("{NAME}.bak.1771000000"));
    let order = Order {
        command: "swap".into(),
        time: STAMP.0,
        before: Vec::new(),
        target: NAME.into(),
        backup,
        after: Vec::new(),
    };
    assert!(staged.commit(&order).unwrap().exchanged);
}
