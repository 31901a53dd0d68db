//! The parts of the harness against other readers, and against themselves.

use crate::checker::{Checker, Content, Problem};
use crate::crash::frame::sector;
use crate::crash::{self, Cut, CutKind, Limits};
use crate::crash::{Frame, Random};
use crate::geometry::Width;
use crate::matrix;
use crate::readers;
use crate::recorder::{Access, How, IoFault, Recorder};
use crate::volumes::{OTHER, Shape, TARGET, Volume};
use bootsurgeon::block::{ReadAt, WriteAt};
use std::collections::BTreeMap;

#[test]
fn volumes_are_what_every_reader_expects() {
    for shape in matrix::shapes().into_iter().chain(Some(matrix::full_size())) {
        let name = shape.describe();
        let volume = Volume::build(shape);
        let report = Checker::default().check(&volume.frame);
        assert_eq!(report.problems, [], "{name}");
        assert!(!report.dirty, "{name}");
        let read: BTreeMap<_, _> =
            report.entries.iter().filter(|e| !e.is_directory()).map(|e| (e.path.clone(), e.content)).collect();
        let content = |b: &Vec<u8>| Some(Content::of(b, shape.sector as usize));
        let written: BTreeMap<_, _> = volume.files.iter().map(|(p, b)| (p.clone(), content(b))).collect();
        assert_eq!(read, written, "{name}");
        assert_eq!(readers::by_fsck(&volume.frame).unwrap(), [""; 0], "{name}");
        if !shape.is_read_by_all() {
            continue;
        }
        assert_eq!(readers::disagreement(&volume.frame, &report), None, "{name}");
        let paths: Vec<&str> = [OTHER, TARGET].into_iter().filter(|p| volume.files.contains_key(*p)).collect();
        let seen = readers::by_mtools(&volume.frame, &paths).unwrap();
        for (path, bytes) in paths.iter().zip(seen) {
            assert!(bytes.as_ref() == volume.files.get(*path), "{name}: mtools reads something else in {path}");
        }
    }
}

/// A way to damage a volume, and how the checker names it.
type Damage = (&'static str, fn(&Volume, &mut [u8]), fn(&Problem) -> bool);

const DAMAGES: &[Damage] = &[
    ("a lost cluster", |v, b| set_fat(v, b, free(v), v.geometry.mask()), |p| matches!(p, Problem::LostClusters(_))),
    ("a free cluster in a chain", |v, b| set_fat(v, b, start(v, TARGET), 0), |p| matches!(p, Problem::BadChain { .. })),
    ("a circle", |v, b| set_fat(v, b, start(v, TARGET), start(v, TARGET)), |p| matches!(p, Problem::BadChain { .. })),
    (
        "a chain out of the volume",
        |v, b| set_fat(v, b, start(v, TARGET), v.geometry.last() + 1),
        |p| matches!(p, Problem::BadChain { .. }),
    ),
    (
        "a chain that ends early",
        |v, b| set_fat(v, b, start(v, TARGET), v.geometry.mask()),
        |p| matches!(p, Problem::SizeMismatch { .. }),
    ),
    (
        "a shared chain",
        |v, b| set_fat(v, b, start(v, TARGET), start(v, OTHER)),
        |p| matches!(p, Problem::SharedChain(..)),
    ),
    ("a size of zero", |v, b| slot(v, b, TARGET)[28..].fill(0), |p| matches!(p, Problem::SizeMismatch { .. })),
    (
        "FATs that differ",
        |v, b| set_one_fat(v, b, 1, start(v, TARGET), 0),
        |p| matches!(p, Problem::FatsDiffer { used: true, .. }),
    ),
    ("a wrong long-name checksum", |v, b| slot(v, b, TARGET)[0] ^= 1, |p| matches!(p, Problem::OrphanLfn { .. })),
    ("an illegal short name", |v, b| slot(v, b, TARGET)[1] = b'*', |p| matches!(p, Problem::BadDirectory { .. })),
    ("the same name twice", duplicate, |p| matches!(p, Problem::DuplicateName(_))),
    ("a directory without its dot", |v, b| b[directory(v)] = 0xE5, |p| matches!(p, Problem::BadDirectory { .. })),
    ("a wrong parent", |v, b| b[directory(v) + 32 + 26] ^= 1, |p| matches!(p, Problem::BadDirectory { .. })),
];

fn set_fat(v: &Volume, b: &mut [u8], cluster: u32, value: u32) {
    for fat in 0..v.geometry.fats {
        set_one_fat(v, b, fat, cluster, value);
    }
}

fn set_one_fat(v: &Volume, b: &mut [u8], fat: u64, cluster: u32, value: u32) {
    let g = &v.geometry;
    let start = ((g.fat_start + fat * g.fat_sectors) * g.sector) as usize;
    let c = cluster as usize;
    match g.width {
        Width::Fat12 => {
            let at = start + c * 3 / 2;
            let old = u16::from_le_bytes([b[at], b[at + 1]]);
            let value = value as u16 & 0xFFF;
            let new = if c.is_multiple_of(2) { old & 0xF000 | value } else { old & 0xF | value << 4 };
            b[at..at + 2].copy_from_slice(&new.to_le_bytes());
        }
        Width::Fat16 => b[start + c * 2..][..2].copy_from_slice(&(value as u16).to_le_bytes()),
        Width::Fat32 => b[start + c * 4..][..4].copy_from_slice(&value.to_le_bytes()),
    }
}

fn start(v: &Volume, path: &str) -> u32 {
    let report = Checker::default().check(&v.frame);
    crate::formatter::first_cluster(&report.find(path).unwrap().raw)
}

fn free(v: &Volume) -> u32 {
    (2..=v.geometry.last()).find(|c| v.geometry.entry(&v.frame, 0, *c) == 0).unwrap()
}

/// Where the directory of the target begins.
fn directory(v: &Volume) -> usize {
    (v.geometry.cluster_sector(start(v, "EFI/Linux")) * v.geometry.sector) as usize
}

/// The short entry of a file.
fn slot<'b>(v: &Volume, b: &'b mut [u8], path: &str) -> &'b mut [u8] {
    let raw = Checker::default().check(&v.frame).find(path).unwrap().raw;
    let at = b.windows(32).position(|w| w == raw).unwrap();
    &mut b[at..at + 32]
}

/// Gives the other UKI's short entry the target's name.
fn duplicate(v: &Volume, b: &mut [u8]) {
    let name = slot(v, b, TARGET)[..11].to_vec();
    slot(v, b, OTHER)[..11].copy_from_slice(&name);
}

#[test]
fn the_checker_and_fsck_agree_on_damage() {
    for shape in [
        Shape::usual(Width::Fat12, 512, 512),
        Shape::usual(Width::Fat16, 512, 512),
        Shape::usual(Width::Fat32, 512, 512),
        Shape::usual(Width::Fat32, 4096, 4096),
    ] {
        let volume = Volume::build(shape);
        let intact = volume.frame.to_bytes();
        for (name, damage, expected) in DAMAGES {
            let mut bytes = intact.clone();
            damage(&volume, &mut bytes);
            let frame = Frame::new(&bytes, shape.sector as usize);
            let report = Checker::default().check(&frame);
            assert!(report.problems.iter().any(expected), "{name} on {}: {:?}", shape.describe(), report.problems);
            let complaints = readers::by_fsck(&frame).unwrap();
            assert!(!complaints.is_empty(), "fsck.fat overlooks {name} on {}", shape.describe());
        }
    }
}

#[test]
fn a_remembering_checker_says_the_same_as_a_fresh_one() {
    for shape in [Shape::usual(Width::Fat12, 512, 512), Shape::usual(Width::Fat32, 512, 512)] {
        let volume = Volume::build(shape);
        let mut frame = volume.frame.clone();
        let mut random = Random::new(7);
        let mut remembering = Checker::default();
        let metadata = volume.geometry.data_start + 24;
        for _ in 0..2000 {
            let n = 1 + random.below(metadata as usize - 1) as u64;
            let mut bytes = frame.get(n).bytes.to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = random.next_u64() as u8;
            }
            let old = frame.set(n, sector(&bytes));
            let (a, b) = (remembering.check(&frame), Checker::default().check(&frame));
            assert_eq!((&a.entries, &a.problems), (&b.entries, &b.problems));
            if random.below(5) > 0 {
                frame.set(n, old);
            }
        }
    }
}

fn tiny(sectors: usize) -> Frame {
    Frame::new(&vec![0; sectors * 512], 512)
}

fn limits(complete: usize, sampled: usize, torn: usize) -> Limits {
    Limits { complete, sampled, torn, seed: 3 }
}

/// The first byte of every sector.
fn firsts(frame: &Frame) -> Vec<u8> {
    (0..frame.sector_count()).map(|n| frame.get(n).bytes[0]).collect()
}

#[test]
fn every_state_of_an_epoch_is_built_and_none_that_a_barrier_forbids() {
    let recorder = Recorder::new(tiny(4));
    let put = |n: u64, b: u8| recorder.write_all_at(&[b; 512], n * 512).unwrap();
    put(0, 1);
    recorder.barrier().unwrap();
    put(1, 1);
    put(2, 1);
    put(1, 2);
    recorder.barrier().unwrap();
    recorder.write_all_at(&[3; 1024], 1024).unwrap();
    let (mut frame, events) = recorder.into_recording().rewind();
    let mut states = Vec::new();
    crash::enumerate(&mut frame, &events, &|_| false, limits(100, 0, 0), &mut |f, _| states.push(firsts(f)));
    assert_eq!(firsts(&frame), [0; 4]);
    states.sort_unstable();
    states.dedup();
    // Sector 0 first; then three versions of sector 1 with two of sector 2; then sectors 2 and 3 once more.
    let mut expected = vec![vec![0, 0, 0, 0]];
    for one in 0..3 {
        expected.extend((0..2).map(|two| vec![1, one, two, 0]));
    }
    expected.extend([vec![1, 2, 3, 0], vec![1, 2, 1, 3], vec![1, 2, 3, 3]]);
    expected.sort_unstable();
    assert_eq!(states, expected);
}

#[test]
fn large_epochs_are_sampled_repeatably_and_restored() {
    let run = || {
        let recorder = Recorder::new(tiny(64));
        for n in 0..40u8 {
            recorder.write_all_at(&[n + 1; 512], u64::from(n) * 512).unwrap();
        }
        let (mut frame, events) = recorder.into_recording().rewind();
        let mut states = Vec::new();
        crash::enumerate(&mut frame, &events, &|s| s >= 20, limits(1 << 16, 50, 100), &mut |f, c| {
            states.push((f.key(), c.kind));
        });
        assert!(firsts(&frame).iter().all(|b| *b == 0));
        states
    };
    let states = run();
    assert_eq!(states, run());
    let prefixes = states.iter().filter(|s| matches!(s.1, CutKind::Prefix(_))).count();
    let torn = states.iter().filter(|s| matches!(s.1, CutKind::Torn { .. })).count();
    assert_eq!(prefixes, 41);
    assert!(states.len() > 41 + 60 && torn > 60, "{} states, {torn} torn", states.len());
}

#[test]
fn a_torn_sector_is_new_up_to_the_tear() {
    let recorder = Recorder::new(tiny(1));
    recorder.write_all_at(&[9; 512], 0).unwrap();
    let (mut frame, events) = recorder.into_recording().rewind();
    let mut torn = 0;
    crash::enumerate(&mut frame, &events, &|_| false, limits(16, 0, 600), &mut |f, c: Cut| {
        if let CutKind::Torn { at, .. } = c.kind {
            torn += 1;
            assert!(f.get(0).bytes.iter().enumerate().all(|(i, b)| *b == if i < at { 9 } else { 0 }));
        }
    });
    assert_eq!(torn, 512);
}

#[test]
fn faults_strike_where_they_are_told_to() {
    let fault = |on, nth, how| Recorder::with_fault(tiny(8), IoFault { on, nth, how });
    let write = |r: &Recorder| r.write_all_at(&[1; 2048], 0);

    let r = fault(Access::Write, 1, How::Fails);
    assert_eq!((write(&r).is_ok(), write(&r).is_ok(), write(&r).is_ok()), (true, false, true));

    let r = fault(Access::Write, 0, How::Short(3));
    assert_eq!(write(&r).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(firsts(&r.into_recording().frame), [1, 1, 1, 0, 0, 0, 0, 0]);

    let r = fault(Access::Barrier, 0, How::Vanishes);
    assert!(write(&r).is_ok() && r.barrier().is_err() && write(&r).is_err() && r.read_exact_at(&mut [0], 0).is_err());
    assert!(r.drop_caches().is_err());

    let r = fault(Access::Read, 0, How::Fails);
    assert!(r.read_exact_at(&mut [0], 0).is_err() && r.read_exact_at(&mut [0], 0).is_ok());

    let r = Recorder::new(tiny(8));
    assert!(r.write_all_at(&[1; 100], 0).is_err() && r.write_all_at(&[1; 512], 8 * 512).is_err());
    assert!(r.into_recording().misuse.is_some());
}
