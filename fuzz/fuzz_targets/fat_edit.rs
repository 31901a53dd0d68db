//! Operations on a volume that was damaged in any way: never a panic, and where health says healthy, never another
//! file lost and never a damaged volume left behind.
//!
//! Input: one byte for the width, one for the number of patches, per patch offset (3 bytes) and value (1), then the
//! operations, three bytes each.
#![no_main]

use bootsurgeon::block::{Memory, Sink};
use bootsurgeon::fat::{Attributes, Content, Editor, Health, Volume};
use bootsurgeon::surgery::{FileStep, INTENT_NAME, LINUX_DIR, Order, Rename, Staging, Tidying, open_healthy, recover};
use bootsurgeon_fuzz::{DIR, NAMES, STAMP, Width, files, volume};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::sync::LazyLock;

type Files = BTreeMap<String, Vec<u8>>;

static VOLUMES: LazyLock<[Vec<u8>; 3]> =
    LazyLock::new(|| [volume(Width::Fat12), volume(Width::Fat32), volume(Width::Fat16)]);

/// One operation; `Some` with the names it was about when it says that it was done.
fn operate(medium: &Memory, op: &[u8; 3]) -> (Vec<String>, bool) {
    let name = |n: u8| NAMES[usize::from(n) % NAMES.len()];
    let (a, b) = (name(op[1]), name(op[1] >> 4));
    let touched = vec![format!("{DIR}/{a}"), format!("{DIR}/{b}")];
    let done = || -> bootsurgeon::Result<()> {
        let volume = Volume::open(medium)?;
        let find = |name: &str| volume.find(&format!("{DIR}/{name}"));
        let missing = || bootsurgeon::Error::rejected("no such file");
        match op[0] % 7 {
            0 => {
                let mut editor = Editor::open(medium)?;
                if find(a)?.is_some() {
                    return Err(missing());
                }
                editor.make_file(DIR, a, &vec![op[2]; usize::from(op[2]) * 9], STAMP)
            }
            1 => {
                let entry = find(a)?.ok_or_else(missing)?;
                if find(b)?.is_some() {
                    return Err(missing());
                }
                Editor::open(medium)?.rename(DIR, &entry, b)
            }
            2 => {
                let entry = find(a)?.ok_or_else(missing)?;
                if entry.is_dir() {
                    return Err(missing());
                }
                let mut editor = Editor::open(medium)?;
                let runs = match entry.first_cluster {
                    0 => Vec::new(),
                    first => editor.table().chain(first)?,
                };
                editor.remove(DIR, &entry)?;
                editor.free(&runs)?;
                editor.write_fsinfo()
            }
            3 => {
                let (x, y) = (find(a)?.ok_or_else(missing)?, find(b)?.ok_or_else(missing)?);
                Editor::open(medium)?.exchange(DIR, &x, &y)
            }
            4 => {
                // A directory that is filled until it grows or the volume is full.
                let mut editor = Editor::open(medium)?;
                for i in 0..op[2] % 40 {
                    let name = format!("{i}-{}-{}", op[1], "filler".repeat(1 + usize::from(i % 5)));
                    if find(&name)?.is_none() {
                        editor.create(DIR, &name, Attributes::ARCHIVE, Content::new(0, 0, STAMP), None)?;
                    }
                }
                Ok(())
            }
            5 => {
                let step = match op[2] & 1 {
                    0 => FileStep::Remove(a.into()),
                    _ => FileStep::Rename(Rename { from: a.into(), to: b.into() }),
                };
                let tidying =
                    Tidying { command: "prune".into(), time: STAMP.0, directory: LINUX_DIR.into(), steps: vec![step] };
                tidying.run(open_healthy(medium)?).map(|_| ())
            }
            _ => {
                let image = vec![op[2]; usize::from(op[2]) * 11 + 1];
                let mut staging = Staging::begin(open_healthy(medium)?, image.len() as u64)?;
                staging.chunk(&image)?;
                let staged = staging.seal(bootsurgeon::block::sha256_of(&image, image.len() as u64)?)?;
                let order = Order {
                    command: "swap".into(),
                    time: STAMP.0,
                    directory: LINUX_DIR.into(),
                    before: Vec::new(),
                    target: a.into(),
                    backup: find(a)?.map(|_| b.into()),
                    directories: Vec::new(),
                    set: Vec::new(),
                    after: Vec::new(),
                };
                staged.commit(&order).map(|_| ())
            }
        }
    };
    let done = done().is_ok();
    (touched, done)
}

/// What an operation on `touched` has no business with.
fn others<'a>(all: &'a Files, touched: &[String]) -> Vec<(&'a String, &'a Vec<u8>)> {
    all.iter()
        // The record of an operation that went wrong on its way is recovery's business.
        .filter(|(path, _)| *path != INTENT_NAME)
        .filter(|(path, _)| !touched.iter().any(|t| t.eq_ignore_ascii_case(path)) && !path.contains("filler"))
        .collect()
}

/// The volume's health, if it can be told, and where it is good the files; `None` when it is no volume.
fn state(medium: &Memory) -> Option<(Option<Health>, Files)> {
    let volume = Volume::open(medium).ok()?;
    let health = Health::check(&volume).ok();
    let files = if health.as_ref().is_some_and(|h| !h.is_damaged()) { files(&volume) } else { Files::new() };
    Some((health, files))
}

fuzz_target!(|data: &[u8]| {
    let [width, patches, rest @ ..] = data else { return };
    // FAT16 has 4085 clusters at least: two megabytes to copy and to check, so a sixteenth of the lot.
    let mut bytes = VOLUMES[match width % 16 {
        0..8 => 0,
        8..15 => 1,
        _ => 2,
    }]
    .clone();
    let (patches, ops) = rest.split_at((usize::from(*patches) % 64 * 4).min(rest.len()));
    for patch in patches.chunks_exact(4) {
        let at = u32::from_le_bytes([patch[0], patch[1], patch[2], 0]) as usize % bytes.len();
        bytes[at] = patch[3];
    }
    let medium = Memory::new(bytes);
    let Some((mut health, mut before)) = state(&medium) else { return };
    // Few for each input: more inputs find more than longer ones.
    for op in ops.chunks_exact(3).take(5) {
        let op = &[op[0], op[1], op[2]];
        let healthy = health.is_some_and(|h| h.is_healthy());
        let (touched, done) = operate(&medium, op);
        let Some((health_now, mut now)) = state(&medium) else {
            assert!(!healthy, "{op:?} (done: {done}) left no volume");
            return;
        };
        health = health_now;
        if healthy {
            let after = health.as_ref().expect("it could be checked before");
            assert!(!after.is_damaged(), "{op:?} (done: {done}) damaged a healthy volume: {:?}", after.problems);
            let kept = others(&before, &touched);
            assert_eq!(kept, others(&now, &touched), "{op:?} (done: {done}) changed another file");
            if !after.is_healthy() {
                recover(&medium).expect("leftovers can be taken away");
                (health, now) = state(&medium).expect("it was a volume before");
                let after = health.as_ref().expect("it could be checked before");
                assert!(after.is_healthy(), "{op:?}: not healthy after recovery: {:?}", after.problems);
                assert_eq!(kept, others(&now, &touched), "{op:?}: recovery changed another file");
            }
        }
        before = now;
    }
    let _ = recover(&medium);
});
