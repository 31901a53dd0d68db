//! What a user would otherwise run, under the same cuts: the comparison, and the proof that the harness can fail.
//!
//! Cuts in program order are the best case of each sequence, as if the medium never reordered anything; beside them a
//! sample of what a medium that does reorder leaves.

use crate::checker::{Checker, Content};
use crate::crash::{self, CutKind, Flush, Limits, MediumStream};
use crate::geometry::Width;
use crate::real::Job;
use crate::recorder::{IoEvent, Recorder};
use crate::traced;
use crate::volumes::{OTHER, Shape, TARGET, Volume};
use std::io::{self, Write};

type Root<'a, 'm> = fatfs::Dir<'a, MediumStream<'m>>;
type Sequence = fn(&Root<'_, '_>, &[u8]) -> io::Result<()>;

const INCOMING: &str = "EFI/Linux/incoming.tmp";
const AWAY: &str = "EFI/Linux/Talos-v1.12.4.efi.bak";

fn put(root: &Root<'_, '_>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = root.create_file(path)?;
    file.truncate()?;
    file.write_all(bytes)?;
    file.flush()
}

const SEQUENCES: [(&str, Sequence); 3] = [
    ("fatfs: truncate and overwrite", |root, new| put(root, TARGET, new)),
    ("fatfs: write, remove, rename", |root, new| {
        put(root, INCOMING, new)?;
        root.remove(TARGET)?;
        root.rename(INCOMING, root, TARGET)
    }),
    ("fatfs: write, rename twice", |root, new| {
        put(root, INCOMING, new)?;
        root.rename(TARGET, root, AWAY)?;
        root.rename(INCOMING, root, TARGET)
    }),
];

/// What cutting a sequence showed.
#[derive(Default)]
struct Outcome {
    /// Before the first write and after each one; or states that a medium which reorders leaves.
    cuts: usize,
    /// The target is neither the old image nor the new one.
    bad: usize,
    /// No file holds a complete image, old or new.
    nothing_boots: usize,
}

/// What a sequence of the fatfs crate writes.
fn record(volume: &Volume, sequence: Sequence) -> Vec<IoEvent> {
    let recorder = Recorder::new(volume.frame.clone());
    {
        let disk = MediumStream::new(&recorder, Flush::Nothing);
        let fs = fatfs::FileSystem::new(disk, fatfs::FsOptions::new()).unwrap();
        sequence(&fs.root_dir(), &volume.new).unwrap();
        fs.unmount().unwrap();
    }
    recorder.into_recording().events
}

/// Cuts in program order, and a sample of what reordering between barriers can leave.
fn cut(volume: &Volume, events: &[IoEvent]) -> [Outcome; 2] {
    let mut frame = volume.frame.clone();
    let sector = frame.sector_size();
    let whole = [Content::of(volume.old.as_ref().unwrap(), sector), Content::of(&volume.new, sector)];
    let mut checker = Checker::default();
    let mut outcomes = [Outcome::default(), Outcome::default()];
    let limits = Limits { complete: 1 << crash::COMPLETE_WRITES, sampled: 500, torn: 0, seed: 1 };
    crash::enumerate(&mut frame, events, &volume.data_sectors(), limits, &mut |frame, cut| {
        let outcome = &mut outcomes[usize::from(!matches!(cut.kind, CutKind::Prefix(_)))];
        let report = checker.files(frame);
        let is_whole = |c: Option<Content>| c.is_some_and(|c| whole.contains(&c));
        outcome.cuts += 1;
        outcome.bad += usize::from(!is_whole(report.content(TARGET)));
        outcome.nothing_boots += usize::from(!report.entries.iter().any(|e| is_whole(e.content)));
    });
    crash::redo(&mut frame, events);
    let report = checker.check(&frame);
    assert_eq!(report.content(TARGET), Some(whole[1]), "the sequence does what it is meant to");
    assert!(report.content(OTHER).is_some());
    outcomes
}

/// Arguments of mtools commands, without the image.
type Commands = &'static [&'static [&'static str]];

const MTOOLS: [(&str, Commands); 2] = [
    ("mtools: mcopy -o", &[&["mcopy", "-o", "NEW", "::/EFI/Linux/Talos-v1.12.4.efi"]]),
    (
        "mtools: mcopy, mdel, mren",
        &[
            &["mcopy", "NEW", "::/EFI/Linux/incoming.tmp"],
            &["mdel", "::/EFI/Linux/Talos-v1.12.4.efi"],
            &["mren", "::/EFI/Linux/incoming.tmp", "Talos-v1.12.4.efi"],
        ],
    ),
];

/// Prints the table of README: `cargo test --test powercut -- --nocapture what_others_leave_behind`.
#[test]
fn what_others_leave_behind() {
    let shape = Shape { clusters: 129_000, old: Some(400_000), new: 520_000, ..Shape::usual(Width::Fat32, 512, 512) };
    let volume = Volume::build(shape);
    println!("\n64 MiB FAT32, 512-byte clusters, 400 kB old, 520 kB new. Bad: the target is neither old nor new.");
    println!("None: no file on the volume holds a whole image, old or new.");
    println!("{:<30} {:>34}   {:>34}", "", "cut after every write, in order", "writes reordered between barriers");
    let head = format!("{:>10} {:>12} {:>10}", "cuts", "bad", "none");
    println!("{:<30} {head}   {head}", "sequence");
    let fatfs = SEQUENCES.iter().map(|(name, sequence)| (*name, record(&volume, *sequence), true));
    let mtools = MTOOLS.iter().map(|(name, commands)| {
        let events = traced::record(&volume.frame, &volume.new, commands);
        (*name, events.unwrap_or_else(|e| panic!("{name}: {e}")), true)
    });
    for (name, events, breaks) in fatfs.chain(mtools).chain(Some(("bootsurgeon: swap", ours(&volume), false))) {
        let outcomes = cut(&volume, &events);
        let columns = outcomes.each_ref().map(|o| format!("{:>10} {:>12} {:>10}", o.cuts, o.bad, o.nothing_boots));
        println!("{name:<30} {}   {}", columns[0], columns[1]);
        assert_eq!(outcomes[0].bad > 0, breaks, "{name}");
        assert!(breaks || outcomes.iter().all(|o| o.bad == 0 && o.nothing_boots == 0), "{name}");
    }
}

/// What this program's swap writes.
fn ours(volume: &Volume) -> Vec<IoEvent> {
    let report = Checker::default().check(&volume.frame);
    let (_, operation) = Job::Swap.on(volume, &report);
    let recorder = Recorder::new(volume.frame.clone());
    operation.run(&recorder).unwrap();
    recorder.into_recording().events
}
