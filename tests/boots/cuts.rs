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
use bootsurgeon::bootpath::{BootScenario, End};
use bootsurgeon::esp::Inventory;
use bootsurgeon::fat::Volume;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Stands behind the instructions in the file `state`, once on every volume.
const MARK: &[u8] = b"the instructions of a crash state end here";

/// What came of the images of a shape.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    /// Started the old system, or the old systemd-boot.
    pub(crate) old: usize,
    /// Started the new one.
    pub(crate) new: usize,
    /// Of them, those with some of the watched files old and some new.
    pub(crate) mixtures: usize,
    /// How many images there are, booted or not.
    pub(crate) of: usize,
}

/// What a start comes to: the payload, and the version of the systemd-boot that chose it.
#[derive(Debug, PartialEq, Eq)]
struct Start {
    payload: Option<String>,
    loader: Option<String>,
}

/// Boots images of this shape: one for each mixture of old and new files, and as many as are wanted, evenly out of all.
pub(crate) fn run(machine: Machine, systemd: &Systemd, shape: &Shape, wanted: usize) -> Tally {
    let (images, of) = crash_images(shape, wanted);
    assert!(images.len() >= 12, "{}: {} crash images", shape.name, images.len());
    let mut tally = Tally { of, ..Tally::default() };
    for images in images.chunks(40) {
        let dir = tempfile::tempdir().unwrap();
        let (disk, variables) = (dir.path().join("disk.img"), dir.path().join("variables.fd"));
        let runner = volume::fat(4 << 20, &[(systemd.loader_path().to_owned(), systemd.runner())]);
        let sizes: Vec<_> = std::iter::once(runner.len()).chain(images.iter().map(|i| i.bytes.len())).collect();
        volume::disk(&disk, &sizes, |n| match n.checked_sub(1) {
            None => runner.clone(),
            Some(n) => numbered(&images[n].bytes, n as u32, shape),
        });
        std::fs::copy(machine.empty_variables(), &variables).unwrap();
        let console = machine.boot(&disk, &variables, Duration::from_secs(300));
        let boots = Boot::many(&console.text);
        for (n, CrashImage { cut, bytes, is_mixture }) in images.iter().enumerate() {
            let boot = boots.get(&(n as u32)).unwrap_or_else(|| panic!("no boot of {cut:?}:\n{}", console.text));
            let what = format!("{}, {}, {cut:?}", systemd.version, shape.name);
            let started =
                Start { payload: boot.payload.as_ref().map(|(name, _)| name.clone()), loader: boot.loader.clone() };
            assert_eq!(started, predicted(bytes, shape), "{what}: not as predicted");
            match is_new(&started, shape) {
                Some(false) => tally.old += 1,
                Some(true) => tally.new += 1,
                None => panic!("{what}: boots {started:?}, neither old nor new"),
            }
            tally.mixtures += usize::from(*is_mixture);
        }
    }
    tally
}

/// Whether what was to change is the new one at this start; `None` where it is neither that nor the old one.
fn is_new(started: &Start, shape: &Shape) -> Option<bool> {
    let (is, sides) = match &shape.loaders {
        Some(loaders) => (started.loader.as_deref()?, loaders.each_ref().map(String::as_str)),
        None => (started.payload.as_deref()?, ["old", "new"]),
    };
    sides.iter().position(|side| *side == is).map(|side| side == 1)
}

/// What the prediction names for this image: the systemd-boot, and the payload of the file.
fn predicted(image: &[u8], shape: &Shape) -> Start {
    let esp = Inventory::read_in(image, shape.known_variables(), shape.context()).unwrap();
    let End::Menu { loader, at } = &esp.way(BootScenario::Next).end else {
        return Start { payload: None, loader: None };
    };
    if let Some(path) = &shape.option {
        let is_it = at.path.trim_matches('\\').eq_ignore_ascii_case(&path.replace('/', "\\"));
        assert!(is_it, "{}: {}", shape.name, at.path);
    }
    let payload = esp.selected().and_then(|file| {
        let bytes = esp.volume.file(&file.entry).unwrap();
        let bytes = read_vec(&bytes, 0, bytes.size() as usize).unwrap();
        shape.payload(&bytes).map(str::to_owned)
    });
    Start { payload, loader: Some(loader.version.text.clone()) }
}

fn numbered(image: &[u8], number: u32, shape: &Shape) -> Vec<u8> {
    let mut image = image.to_vec();
    let length = instructions(0, &shape.settings()).len();
    let end = memchr::memmem::find(&image, MARK).expect("the file `state`");
    image[end - length..end - length + 4].copy_from_slice(&number.to_le_bytes());
    image
}

/// An image that a cut left.
struct CrashImage {
    cut: Cut,
    bytes: Vec<u8>,
    /// Some of the watched files have their new content, and some their old one.
    is_mixture: bool,
}

/// The operation recorded; images from all over it, but for those that differ in free clusters alone. And how many
/// there are.
fn crash_images(shape: &Shape, wanted: usize) -> (Vec<CrashImage>, usize) {
    let mut state = instructions(0, &shape.settings());
    state.extend(MARK);
    let mut files = vec![("state".to_owned(), state)];
    files.extend(shape.beside.iter().cloned());
    files.extend(shape.files.iter().map(|(name, bytes)| (format!("EFI/Linux/{name}"), bytes.clone())));
    let mut frame = Frame::new(&volume::esp(8 << 20, &files), 512);
    for earlier in &shape.earlier {
        let recorder = Recorder::new(frame);
        earlier(&recorder, shape);
        frame = recorder.into_recording().frame;
    }
    let before = watched(&frame, shape);
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
    let (mut count, mut mixtures) = (0, HashMap::new());
    enumerate(&mut |nth, frame, _| {
        let changed: Vec<bool> = watched(frame, shape).iter().zip(&before).map(|(now, then)| now != then).collect();
        let _ = mixtures.entry(changed).or_insert(nth);
        count += 1;
    });
    let wanted = wanted.min(count);
    let chosen: HashSet<usize> = (0..wanted).map(|i| i * count / wanted).chain(mixtures.into_values()).collect();
    let mut images = Vec::new();
    enumerate(&mut |nth, frame, cut| {
        if chosen.contains(&nth) {
            let new = watched(frame, shape).iter().zip(&before).filter(|(now, then)| now != then).count();
            images.push(CrashImage { cut, bytes: frame.to_bytes(), is_mixture: 0 < new && new < before.len() });
        }
    });
    (images, count)
}

/// The contents of the watched files, as FAT has them.
fn watched(frame: &Frame, shape: &Shape) -> Vec<Option<Vec<u8>>> {
    if shape.watched.is_empty() {
        return Vec::new();
    }
    let volume = Volume::open(frame).unwrap();
    let content = |path: &String| {
        let file = volume.file(&volume.find(path).unwrap()?).unwrap();
        Some(read_vec(&file, 0, file.size() as usize).unwrap())
    };
    shape.watched.iter().map(content).collect()
}

/// The sectors that new contents go to: data, where everything else is what a commit is made of.
fn image_sectors(events: &[IoEvent], shape: &Shape) -> HashSet<u64> {
    let contents = shape.images.iter().map(|(image, _)| image).chain(&shape.contents);
    let chunks: HashSet<&[u8; 512]> = contents.flat_map(|content| content.as_chunks().0).collect();
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
