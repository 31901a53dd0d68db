//! Somebody else's file system code under power cuts: the `fatfs` crate replaces a file, and every image that a cut can
//! leave is read again.
//!
//! Three sequences: the file is truncated and written anew; the new file is written beside it, the old one removed, the
//! new one renamed; and an order of writes that holds, with mistakes in it, which have to be found. Printed is in how
//! many states the file is neither the old one nor the new one.
//!
//! `cargo run --example crash_images`

use bootsurgeon::block::WriteAt;
use bootsurgeon::fat::{Attributes, Content, Editor, Stamp};
use bootsurgeon::testkit::crash::{
    Flush, Frame, IoEvent, Limits, MediumStream, Mistake, enumerate, mistakes, record, with_mistake,
};
use std::io::{self, Cursor, Read, Write};

const SECTOR: usize = 512;

/// What is done to a volume.
type Sequence = fn(&fatfs::FileSystem<MediumStream<'_>>) -> io::Result<()>;

fn old() -> Vec<u8> {
    vec![b'o'; 3000]
}

fn new() -> Vec<u8> {
    vec![b'n'; 5000]
}

fn overwrite(fs: &fatfs::FileSystem<MediumStream<'_>>) -> io::Result<()> {
    let mut file = fs.root_dir().create_file("image")?;
    file.truncate()?;
    file.write_all(&new())?;
    file.flush()
}

fn rename(fs: &fatfs::FileSystem<MediumStream<'_>>) -> io::Result<()> {
    let root = fs.root_dir();
    let mut file = root.create_file("incoming")?;
    file.write_all(&new())?;
    file.flush()?;
    drop(file);
    root.remove("image")?;
    root.rename("incoming", &root, "image")
}

/// What the file holds, read by the same crate; `None` where it is not there, or cannot be read.
fn image(frame: &Frame) -> Option<Vec<u8>> {
    let fs = fatfs::FileSystem::new(Cursor::new(frame.to_bytes()), fatfs::FsOptions::new()).ok()?;
    let mut bytes = Vec::new();
    fs.root_dir().open_file("image").ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The same by this crate's editor, in an order that holds: what a sector refers to is on the medium before it.
fn exchange(medium: &dyn WriteAt) -> bootsurgeon::Result<()> {
    let mut editor = Editor::open(medium)?;
    let find = |editor: &Editor<'_>, name: &str| {
        let found = editor.directory("")?.find(name).cloned();
        found.ok_or_else(|| bootsurgeon::Error::usage(format!("there is no {name}")))
    };
    let old = find(&editor, "image")?;
    let runs = editor.reserve(editor.geometry().clusters_for(new().len() as u64) as u32)?;
    editor.write_data(&runs, 0, &new())?;
    editor.barrier()?;
    editor.link(&runs)?;
    editor.barrier()?;
    let content = Content::new(runs[0].first, new().len() as u32, Stamp(1_771_000_000));
    editor.create("", "backup", Attributes::ARCHIVE, content, Some(old.short_slot()))?;
    editor.barrier()?;
    editor.exchange("", &old, &find(&editor, "backup")?)?;
    editor.barrier()
}

/// In how many of the states that a cut can leave of a run the file is neither the old one nor the new one.
fn judge(before: &Frame, events: &[IoEvent]) -> (usize, usize) {
    // Everything counts as metadata here; what is too much to enumerate is sampled.
    let limits = Limits { complete: 1 << 16, sampled: 500, torn: 0, seed: 1 };
    let (mut states, mut bad) = (0, 0);
    enumerate(&mut before.clone(), events, &|_| false, limits, &mut |frame, _| {
        states += 1;
        let image = image(frame);
        bad += usize::from(image != Some(old()) && image != Some(new()));
    });
    (states, bad)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut bytes = Cursor::new(vec![0; 256 * 1024]);
    fatfs::format_volume(&mut bytes, fatfs::FormatVolumeOptions::new())?;
    let fs = fatfs::FileSystem::new(&mut bytes, fatfs::FsOptions::new())?;
    fs.root_dir().create_file("image")?.write_all(&old())?;
    fs.unmount()?;
    let before = Frame::new(&bytes.into_inner(), SECTOR);

    let sequences: [(&str, Sequence); 2] = [("truncate and overwrite", overwrite), ("write, remove, rename", rename)];
    for (name, sequence) in sequences {
        let run = record(&before, |medium| {
            let fs = fatfs::FileSystem::new(MediumStream::new(medium, Flush::Barrier), fatfs::FsOptions::new())?;
            sequence(&fs)?;
            Ok(fs.unmount()?)
        })?;
        let (states, bad) = judge(&before, &run.events);
        println!("fatfs, {name}: in {bad} of {states} states the file is neither the old one nor the new one");
    }
    let events = record(&before, exchange)?.events;
    let (states, bad) = judge(&before, &events);
    println!("an exchange in order: in {bad} of {states} states");
    let all = mistakes(&events);
    let found = |m: &&Mistake| judge(&before, &with_mistake(&mut before.clone(), &events, **m)).1 > 0;
    let caught: Vec<&Mistake> = all.iter().filter(found).collect();
    println!("{} mistakes in that order, {} break that promise: {caught:?}", all.len(), caught.len());
    if bad == 0 && !caught.is_empty() {
        Ok(())
    } else {
        Err("the order does not hold, or the proof finds nothing".into())
    }
}
