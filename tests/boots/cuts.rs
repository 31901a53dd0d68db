//! Power cuts: images that a cut in an operation can leave, booted. What starts has to be what is predicted for that
//! image, and the old system or the new one.

use crate::crash::{self, Cut, CutKind, Limits};
use crate::cut_shapes::Shape;
pub(crate) use crate::cut_shapes::shapes;
use crate::frame::Frame;
use crate::lab::Systemd;
use crate::machine::{Boot, Machine};
use crate::matrix::instructions;
use crate::recorder::{IoEvent, Recorder};
use crate::volume;
use bootsurgeon::block::{ReadAt, read_vec};
use bootsurgeon::esp::Inventory;
use std::collections::HashSet;
use std::time::Duration;

/// Stands behind the instructions in the file `state`, once on every volume.
const MARK: &[u8] = b"the instructions of a crash state end here";

/// Boots as many images of this shape as are wanted. How many started the old system, and how many the new one.
pub(crate) fn run(machine: Machine, systemd: &Systemd, shape: &Shape, wanted: usize) -> (usize, usize) {
    let images = crash_images(systemd, shape, wanted);
    assert!(images.len() >= 12, "{}: {} crash images", shape.name, images.len());
    let (mut old, mut new) = (0, 0);
    for images in images.chunks(40) {
        let dir = tempfile::tempdir().unwrap();
        let (disk, variables) = (dir.path().join("disk.img"), dir.path().join("variables.fd"));
        let runner = volume::fat(4 << 20, &[(systemd.loader_path().to_owned(), systemd.runner())]);
        let sizes: Vec<_> = std::iter::once(runner.len()).chain(images.iter().map(|(_, i)| i.len())).collect();
        volume::disk(&disk, &sizes, |n| match n.checked_sub(1) {
            None => runner.clone(),
            Some(n) => numbered(&images[n].1, n as u32, shape),
        });
        std::fs::copy(machine.empty_variables(), &variables).unwrap();
        let console = machine.boot(&disk, &variables, Duration::from_secs(300));
        let boots = Boot::many(&console.text);
        for (n, (cut, image)) in images.iter().enumerate() {
            let boot = boots.get(&(n as u32)).unwrap_or_else(|| panic!("no boot of {cut:?}:\n{}", console.text));
            let started = boot.payload.as_ref().map(|(name, _)| name.as_str());
            let what = format!("systemd-boot {}, {}, {cut:?}", systemd.version.text, shape.name);
            assert_eq!(started, predicted(image, shape).as_deref(), "{what}: not as predicted");
            match started {
                Some("old") => old += 1,
                Some("new") => new += 1,
                _ => panic!("{what}: boots {started:?}, neither old nor new"),
            }
        }
    }
    (old, new)
}

/// The payload of the file that the prediction names for this image.
fn predicted(image: &[u8], shape: &Shape) -> Option<String> {
    let esp = Inventory::read(image, shape.known_variables()).unwrap();
    let file = esp.selected()?;
    let bytes = esp.volume.file(&file.entry).unwrap();
    let bytes = read_vec(&bytes, 0, bytes.size() as usize).unwrap();
    shape.payload(&bytes).map(str::to_owned)
}

fn numbered(image: &[u8], number: u32, shape: &Shape) -> Vec<u8> {
    let mut image = image.to_vec();
    let length = instructions(0, &shape.variables).len();
    let end = memchr::memmem::find(&image, MARK).expect("the file `state`");
    image[end - length..end - length + 4].copy_from_slice(&number.to_le_bytes());
    image
}

/// The operation recorded; images from all over it, but for those that differ in free clusters alone.
fn crash_images(systemd: &Systemd, shape: &Shape, wanted: usize) -> Vec<(Cut, Vec<u8>)> {
    let mut state = instructions(0, &shape.variables);
    state.extend(MARK);
    let mut files = vec![
        (systemd.loader_path().to_owned(), systemd.loader.clone()),
        ("state".to_owned(), state),
        ("loader/loader.conf".to_owned(), b"timeout 0\n".to_vec()),
    ];
    files.extend(shape.files.iter().map(|(name, bytes)| (format!("EFI/Linux/{name}"), bytes.clone())));
    let mut frame = Frame::new(&volume::esp(8 << 20, &files), 512);
    for earlier in &shape.earlier {
        let recorder = Recorder::new(frame);
        earlier(&recorder, shape);
        frame = recorder.into_recording().frame;
    }
    let recorder = Recorder::new(frame);
    (shape.operation)(&recorder, shape);
    let recording = recorder.into_recording();
    assert_eq!(recording.misuse, None);
    let (mut frame, events) = recording.rewind();
    let data = image_sectors(&events, shape);
    let limits = Limits { complete: 256, sampled: 12, torn: 0, seed: 1 };
    let is_data = |n| data.contains(&n);
    let mut enumerate = |visit: &mut dyn FnMut(usize, &Frame, Cut)| {
        let (mut seen, mut nth) = (HashSet::new(), 0);
        crash::enumerate(&mut frame, &events, &is_data, limits, &mut |frame, cut| {
            let writes_image = matches!(cut.kind, CutKind::Prefix(n) if n > 0 && is_last_of(&events, n, &data));
            if !writes_image && seen.insert(frame.key()) {
                visit(nth, frame, cut);
                nth += 1;
            }
        });
    };
    let mut count = 0;
    enumerate(&mut |_, _, _| count += 1);
    let chosen: HashSet<usize> = (0..wanted.min(count)).map(|i| i * count / wanted.min(count)).collect();
    let mut images = Vec::new();
    enumerate(&mut |nth, frame, cut| {
        if chosen.contains(&nth) {
            images.push((cut, frame.to_bytes()));
        }
    });
    images
}

/// The sectors that the new image itself goes to: data, where everything else is what a commit is made of.
fn image_sectors(events: &[IoEvent], shape: &Shape) -> HashSet<u64> {
    let chunks: HashSet<&[u8; 512]> = shape.images.iter().flat_map(|(image, _)| image.as_chunks().0).collect();
    let of_an_image = |bytes: &[u8]| {
        let bytes: Option<&[u8; 512]> = bytes.first_chunk();
        bytes.is_some_and(|b| chunks.contains(b) && b.iter().any(|b| *b != 0))
    };
    let sector = |e: &IoEvent| match e {
        IoEvent::Write { sector, data, .. } => of_an_image(&data.bytes).then_some(*sector),
        _ => None,
    };
    events.iter().filter_map(sector).collect()
}

/// Whether the nth write, from 1, is one of the image's.
fn is_last_of(events: &[IoEvent], n: usize, data: &HashSet<u64>) -> bool {
    let sectors = events.iter().filter_map(|e| match e {
        IoEvent::Write { sector, .. } => Some(*sector),
        _ => None,
    });
    sectors.skip(n - 1).take(1).any(|sector| data.contains(&sector))
}
