//! Swap, prune, restore and recover on volumes in memory, judged by other readers.

use bootsurgeon::Kind;
use bootsurgeon::block::{Memory, ReadAt, Sink, WriteAt, read_vec};
use bootsurgeon::fat::{Editor, Health, Stamp, Volume};
use bootsurgeon::surgery::{
    ContentRef, FileStep, INTENT_NAME, LINUX_DIR, Order, Rename, Staged, Staging, Tidying, interrupted, open_healthy,
    recover, rehearse_recovery,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::process::Command;

const STAMP: Stamp = Stamp(1_771_000_000);

fn pattern(seed: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

/// A volume formatted by the fatfs crate, with a Talos-like ESP on it.
fn volume(kind: fatfs::FatType, bytes: usize, cluster: u32, sector: u16) -> Memory {
    let mut raw = Cursor::new(vec![0; bytes]);
    let options = fatfs::FormatVolumeOptions::new()
        .fat_type(kind)
        .bytes_per_cluster(cluster)
        .bytes_per_sector(sector)
        .volume_label(*b"EFI        ");
    fatfs::format_volume(&mut raw, options).unwrap();
    let medium = Memory::with_sector_size(raw.into_inner(), u32::from(sector));
    let mut editor = Editor::open(&medium).unwrap();
    for dir in ["EFI/BOOT", "EFI/Linux", "loader"] {
        editor.make_directories(dir, STAMP).unwrap();
    }
    editor.make_file("EFI/BOOT", "BOOTAA64.EFI", &pattern(1, 5000), STAMP).unwrap();
    editor.make_file("loader", "loader.conf", b"timeout 10\n", STAMP).unwrap();
    editor.make_file(LINUX_DIR, "Talos-v1.12.4.efi", &pattern(2, 70_001), STAMP).unwrap();
    editor.make_file(LINUX_DIR, "Talos-v1.12.4~1.efi", &pattern(3, 60_000), STAMP).unwrap();
    editor.write_fsinfo().unwrap();
    medium
}

fn stage<'m>(medium: &'m dyn WriteAt, image: &[u8]) -> Staged<'m> {
    try_stage(medium, image).unwrap()
}

fn try_stage<'m>(medium: &'m dyn WriteAt, image: &[u8]) -> bootsurgeon::Result<Staged<'m>> {
    let mut staging = Staging::begin(open_healthy(medium)?, image.len() as u64)?;
    for chunk in image.chunks(16 * 1024) {
        staging.chunk(chunk)?;
    }
    staging.seal(Sha256::digest(image).into())
}

fn content(medium: &Memory, name: &str) -> Option<ContentRef> {
    let volume = Volume::open(medium).unwrap();
    let e = volume.find(&format!("{LINUX_DIR}/{name}")).unwrap()?;
    Some(ContentRef { cluster: e.first_cluster, bytes: e.bytes, sha256: None })
}

fn swap(medium: &Memory, target: &str, image: &[u8], after: Vec<FileStep>) -> bool {
    stage(medium, image).commit(&order("swap", target, after)).unwrap().exchanged
}

fn order(command: &str, target: &str, after: Vec<FileStep>) -> Order {
    let backup = Some(format!("{target}.bak.1771000000"));
    Order {
        command: command.into(),
        time: STAMP.0,
        directory: LINUX_DIR.into(),
        before: Vec::new(),
        target: target.into(),
        backup,
        directories: Vec::new(),
        set: Vec::new(),
        after,
    }
}

/// `commit` took the description of the new content from its caller, and `begin` a medium beside the editor's: a caller
/// could install what was never staged, or read another device back.
#[test]
fn issue12_1_what_was_staged_on_the_editors_medium_is_what_is_installed() {
    let [medium, other] = [(); 2].map(|()| volume(fatfs::FatType::Fat16, 16 << 20, 512, 512));
    let image = pattern(9, 50_000);
    let outcome = stage(&medium, &image).commit(&order("swap", "Talos-v1.12.4.efi", vec![])).unwrap();
    let new = outcome.operation.install.unwrap().new;
    assert_eq!((new.bytes, new.sha256), (50_000, Some(hex::encode(Sha256::digest(&image)))));
    let installed = |medium: &Memory| {
        let volume = Volume::open(medium).unwrap();
        let entry = volume.find("EFI/Linux/Talos-v1.12.4.efi").unwrap().unwrap();
        let file = volume.file(&entry).unwrap();
        read_vec(&file, 0, entry.bytes as usize).unwrap()
    };
    assert_eq!(installed(&medium), image);
    assert_eq!(installed(&other), pattern(2, 70_001));
}

fn rename(from: &str, to: &str) -> FileStep {
    FileStep::Rename(Rename { from: from.into(), to: to.into() })
}

fn prune(step: FileStep) -> Tidying {
    Tidying { command: "prune".into(), time: STAMP.0, directory: LINUX_DIR.into(), steps: vec![step] }
}

/// Every file by path, as the fatfs crate reads it.
fn files(medium: &Memory) -> BTreeMap<String, Vec<u8>> {
    let bytes = read_vec(medium, 0, medium.size() as usize).unwrap();
    let fs = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
    let mut all = BTreeMap::new();
    let mut dirs = vec![(String::new(), fs.root_dir())];
    while let Some((path, dir)) = dirs.pop() {
        for e in dir.iter().map(Result::unwrap).filter(|e| e.file_name() != "." && e.file_name() != "..") {
            let path = format!("{path}/{}", e.file_name());
            if e.is_dir() {
                dirs.push((path, e.to_dir()));
            } else {
                let mut content = Vec::new();
                e.to_file().read_to_end(&mut content).unwrap();
                all.insert(path, content);
            }
        }
    }
    all
}

/// `fsck.fat -n`, where it is installed; in CI it must be.
fn fsck(medium: &Memory) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), read_vec(medium, 0, medium.size() as usize).unwrap()).unwrap();
    match Command::new("fsck.fat").arg("-n").arg(file.path()).output() {
        Ok(out) => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout)),
        Err(e) => crate::support::skip(&format!("fsck.fat: {e}")),
    }
}

fn assert_clean(medium: &Memory) {
    let volume = Volume::open(medium).unwrap();
    let health = Health::check(&volume).unwrap();
    assert!(health.is_healthy() && !health.fsinfo_stale, "{:?}", health.problems);
    assert_eq!(interrupted(&volume).unwrap(), None);
    fsck(medium);
}

const SHAPES: [(fatfs::FatType, usize, u32, u16); 5] = [
    (fatfs::FatType::Fat12, 2 << 20, 1024, 512),
    (fatfs::FatType::Fat16, 8 << 20, 512, 512),
    (fatfs::FatType::Fat32, 40 << 20, 512, 512),
    (fatfs::FatType::Fat32, 300 << 20, 4096, 4096),
    (fatfs::FatType::Fat16, 40 << 20, 8192, 4096),
];

#[test]
fn swap_exchanges_in_place_and_touches_nothing_else() {
    for (kind, bytes, cluster, sector) in SHAPES {
        let medium = volume(kind, bytes, cluster, sector);
        assert_clean(&medium);
        let mut expected = files(&medium);
        let image = pattern(9, 90_123);
        let disable = rename("Talos-v1.12.4~1.efi", "Talos-v1.12.4~1.efi.disabled.1771000000");
        assert!(swap(&medium, "Talos-v1.12.4.efi", &image, vec![disable]), "{kind:?}: the exchange is one write");
        let old = expected.insert("/EFI/Linux/Talos-v1.12.4.efi".into(), image).unwrap();
        expected.insert("/EFI/Linux/Talos-v1.12.4.efi.bak.1771000000".into(), old);
        let twin = expected.remove("/EFI/Linux/Talos-v1.12.4~1.efi").unwrap();
        expected.insert("/EFI/Linux/Talos-v1.12.4~1.efi.disabled.1771000000".into(), twin);
        assert!(files(&medium) == expected, "{kind:?}");
        assert_clean(&medium);
        assert_eq!(recover(&medium).unwrap(), Default::default());
    }
}

#[test]
fn a_directory_without_room_beside_the_target_still_swaps() {
    let medium = volume(fatfs::FatType::Fat32, 40 << 20, 512, 512);
    let mut editor = Editor::open(&medium).unwrap();
    for i in 0..20 {
        editor.make_file(LINUX_DIR, &format!("filler {i}.txt"), b"x", STAMP).unwrap();
    }
    editor.write_fsinfo().unwrap();
    let mut expected = files(&medium);
    let image = pattern(9, 50_000);
    assert!(!swap(&medium, "Talos-v1.12.4.efi", &image, vec![]), "no room: the backup stands elsewhere");
    let old = expected.insert("/EFI/Linux/Talos-v1.12.4.efi".into(), image).unwrap();
    expected.insert("/EFI/Linux/Talos-v1.12.4.efi.bak.1771000000".into(), old);
    assert!(files(&medium) == expected);
    assert_clean(&medium);
}

#[test]
fn a_new_name_appears_whole_and_the_old_one_is_retired() {
    let medium = volume(fatfs::FatType::Fat32, 40 << 20, 512, 512);
    let retire = rename("Talos-v1.12.4.efi", "Talos-v1.12.4.efi.bak.1771000000");
    let remove = FileStep::Remove("Talos-v1.12.4~1.efi".into());
    let mut expected = files(&medium);
    let image = pattern(9, 50_000);
    swap(&medium, "Talos-v1.13.0.efi", &image, vec![retire, remove]);
    expected.insert("/EFI/Linux/Talos-v1.13.0.efi".into(), image);
    let old = expected.remove("/EFI/Linux/Talos-v1.12.4.efi").unwrap();
    expected.insert("/EFI/Linux/Talos-v1.12.4.efi.bak.1771000000".into(), old);
    expected.remove("/EFI/Linux/Talos-v1.12.4~1.efi");
    assert!(files(&medium) == expected);
    assert_clean(&medium);
}

#[test]
fn restore_puts_the_backup_back_without_copying() {
    let medium = volume(fatfs::FatType::Fat32, 40 << 20, 512, 512);
    let before = files(&medium);
    swap(&medium, "Talos-v1.12.4.efi", &pattern(9, 50_000), vec![]);
    let backup = "Talos-v1.12.4.efi.bak.1771000000";
    let verified = content(&medium, backup).unwrap();
    let order = Order {
        backup: Some("Talos-v1.12.4.efi.bak.1771000099".into()),
        time: 1_771_000_099,
        ..order("restore", "Talos-v1.12.4.efi", vec![])
    };
    // A backup that is not what was verified is not restored.
    let other = ContentRef { bytes: verified.bytes + 1, ..verified.clone() };
    assert_eq!(order.restore(open_healthy(&medium).unwrap(), backup, other).unwrap_err().kind(), Kind::Unsafe);
    order.restore(open_healthy(&medium).unwrap(), backup, verified).unwrap();
    let after = files(&medium);
    assert!(after["/EFI/Linux/Talos-v1.12.4.efi"] == before["/EFI/Linux/Talos-v1.12.4.efi"]);
    assert!(after["/EFI/Linux/Talos-v1.12.4.efi.bak.1771000099"] == pattern(9, 50_000));
    assert_eq!(after.len(), before.len() + 1);
    assert_clean(&medium);
}

#[test]
fn a_full_volume_is_refused_before_anything_is_written() {
    let medium = volume(fatfs::FatType::Fat12, 1 << 20, 1024, 512);
    let before = read_vec(&medium, 0, medium.size() as usize).unwrap();
    let e = Staging::begin(open_healthy(&medium).unwrap(), 1 << 20).err().unwrap();
    assert_eq!(e.kind(), Kind::Unsafe);
    assert!(e.to_string().contains("no room"), "{e}");
    assert!(read_vec(&medium, 0, medium.size() as usize).unwrap() == before);
}

#[test]
fn an_interrupted_operation_is_named_and_everything_else_refused() {
    let medium = volume(fatfs::FatType::Fat32, 40 << 20, 512, 512);
    let mut editor = Editor::open(&medium).unwrap();
    let record = br#"{"bootsurgeon": 1, "operation": {"command": "prune", "time": 1, "install": null, "tidy": []}}"#;
    editor.make_file("", INTENT_NAME, record, STAMP).unwrap();
    assert_eq!(open_healthy(&medium).err().unwrap().kind(), Kind::Interrupted);
    let dry = rehearse_recovery(&medium, 512).unwrap();
    assert!(interrupted(&Volume::open(&medium).unwrap()).unwrap().is_some(), "a dry run writes nothing");
    assert_eq!(recover(&medium).unwrap(), dry);
    assert_clean(&medium);
}

/// A medium as a power cut leaves it after so many writes of `run`.
fn cut_after(medium: &Memory, writes: usize, run: impl FnOnce(&dyn WriteAt)) -> Memory {
    struct Cut<'m> {
        below: &'m Memory,
        left: std::sync::atomic::AtomicUsize,
    }
    impl ReadAt for Cut<'_> {
        fn size(&self) -> u64 {
            self.below.size()
        }
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
            self.below.read_exact_at(buf, offset)
        }
    }
    impl WriteAt for Cut<'_> {
        fn sector_size(&self) -> u32 {
            self.below.sector_size()
        }
        fn write_all_at(&self, buf: &[u8], offset: u64) -> std::io::Result<()> {
            use std::sync::atomic::Ordering::Relaxed;
            if self.left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_err() {
                return Err(std::io::Error::other("the power is gone"));
            }
            self.below.write_all_at(buf, offset)
        }
        fn barrier(&self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let bytes = read_vec(medium, 0, medium.size() as usize).unwrap();
    let copy = Memory::with_sector_size(bytes, medium.sector_size());
    run(&Cut { below: &copy, left: writes.into() });
    copy
}

#[test]
fn what_the_board_wrote_since_is_nobodys_leftover() {
    let medium = volume(fatfs::FatType::Fat16, 16 << 20, 2048, 512);
    let removal = |medium: &dyn WriteAt| {
        let _ = prune(FileStep::Remove("Talos-v1.12.4~1.efi".into())).run(open_healthy(medium).unwrap());
    };
    let mut tried = 0;
    for writes in 0..40 {
        let cut = cut_after(&medium, writes, removal);
        let left = files(&cut);
        if !left.contains_key(&format!("/{INTENT_NAME}")) || left.contains_key("/EFI/Linux/Talos-v1.12.4~1.efi") {
            continue;
        }
        // The board boots, and an upgrade writes a file of that name again. Then somebody remembers `recover`.
        let mut editor = Editor::open(&cut).unwrap();
        editor.make_file(LINUX_DIR, "Talos-v1.12.4~1.efi", &pattern(9, 40_000), STAMP).unwrap();
        recover(&cut).unwrap();
        assert_eq!(files(&cut).get("/EFI/Linux/Talos-v1.12.4~1.efi"), Some(&pattern(9, 40_000)), "{writes} writes");
        tried += 1;
    }
    assert!(tried > 0);
}

#[test]
fn an_image_that_somebody_replaced_since_keeps_its_backup() {
    let medium = volume(fatfs::FatType::Fat16, 16 << 20, 2048, 512);
    let target = "Talos-v1.12.4.efi";
    let exchange = |medium: &dyn WriteAt| {
        let Ok(mut staging) = Staging::begin(open_healthy(medium).unwrap(), 50_000) else { return };
        let image = pattern(7, 50_000);
        if staging.chunk(&image).is_err() {
            return;
        }
        let Ok(staged) = staging.seal(Sha256::digest(&image).into()) else { return };
        let _ = staged.commit(&order("swap", target, vec![]));
    };
    let mut tried = 0;
    for writes in 0..400 {
        let cut = cut_after(&medium, writes, exchange);
        let left = files(&cut);
        let committed = left.get(&format!("/EFI/Linux/{target}")) == Some(&pattern(7, 50_000));
        if !left.contains_key(&format!("/{INTENT_NAME}")) || !committed {
            continue;
        }
        // The new image booted, and replaced itself.
        let mut editor = Editor::open(&cut).unwrap();
        let entry = editor.volume().find(&format!("{LINUX_DIR}/{target}")).unwrap().unwrap();
        editor.remove(LINUX_DIR, &entry).unwrap();
        editor.make_file(LINUX_DIR, target, &pattern(8, 30_000), STAMP).unwrap();
        recover(&cut).unwrap();
        let after = files(&cut);
        assert_eq!(after.get(&format!("/EFI/Linux/{target}")), Some(&pattern(8, 30_000)), "{writes} writes");
        assert_eq!(after.get(&format!("/EFI/Linux/{target}.bak.1771000000")), Some(&pattern(2, 70_001)), "{writes}");
        assert!(Health::check(&Volume::open(&cut).unwrap()).unwrap().is_healthy());
        tried += 1;
    }
    assert!(tried > 0);
}

#[test]
fn deleting_is_the_way_out_of_a_full_volume() {
    let medium = volume(fatfs::FatType::Fat16, 16 << 20, 2048, 512);
    let free = Volume::open(&medium).unwrap().free_bytes() as usize;
    Editor::open(&medium).unwrap().make_file("", "FILLER.BIN", &vec![1; free], STAMP).unwrap();
    assert_eq!(Volume::open(&medium).unwrap().free_bytes(), 0);
    let run = |step: FileStep| prune(step).run(open_healthy(&medium).unwrap());
    let name = "Talos-v1.12.4~1.efi".to_owned();
    let disable = rename(&name, &format!("{name}.disabled.1"));
    assert_eq!(run(disable).unwrap_err().kind(), Kind::Unsafe);
    // There is no room for a record. Cut anywhere, the file is there or not, and everything else as it was.
    let before = files(&medium);
    let mut states = std::collections::BTreeSet::new();
    for writes in 0..60 {
        let cut = cut_after(&medium, writes, |medium| {
            let _ = prune(FileStep::Remove(name.clone())).run(open_healthy(medium).unwrap());
        });
        recover(&cut).unwrap();
        assert!(Health::check(&Volume::open(&cut).unwrap()).unwrap().is_healthy(), "{writes} writes");
        let mut after = files(&cut);
        let gone = !after.contains_key(&format!("/EFI/Linux/{name}"));
        if gone {
            after.insert(format!("/EFI/Linux/{name}"), before[&format!("/EFI/Linux/{name}")].clone());
        }
        assert!(after == before, "{writes} writes");
        states.insert(gone);
    }
    assert_eq!(states.len(), 2);
    run(FileStep::Remove(name)).unwrap();
    assert!(!files(&medium).contains_key("/EFI/Linux/Talos-v1.12.4~1.efi"));
    assert!(interrupted(&Volume::open(&medium).unwrap()).unwrap().is_none());
    assert!(Health::check(&Volume::open(&medium).unwrap()).unwrap().is_healthy());
}

/// Several deletions go from one reading of the directory. Cut anywhere, each file is there whole or gone, and nothing
/// else is touched. A file that is named twice, by its short name as well, goes once.
#[test]
fn issue20_4_deletions_that_follow_each_other_are_cut_anywhere() {
    let medium = volume(fatfs::FatType::Fat16, 16 << 20, 2048, 512);
    let name = |n: u32| format!("Talos-v1.12.4.efi.bak.177100000{n}");
    let mut editor = Editor::open(&medium).unwrap();
    for n in 0..6 {
        editor.make_file(LINUX_DIR, &name(n), &pattern(n, 9_000), STAMP).unwrap();
    }
    editor.write_fsinfo().unwrap();
    let directory = editor.directory(LINUX_DIR).unwrap();
    let short = directory.find(&name(1)).unwrap().short;
    let short = String::from_utf8(short.to_vec()).unwrap();
    let short = format!("{}.{}", short[..8].trim_end(), short[8..].trim_end());
    assert!(directory.find(&short).unwrap().is_named(&name(1)), "{short}");
    let tidying = Tidying {
        steps: [name(0), name(1), short, name(3), name(0)].map(FileStep::Remove).to_vec(),
        ..prune(FileStep::Remove(name(0)))
    };

    let before = files(&medium);
    let going = [0, 1, 3].map(|n| format!("/EFI/Linux/{}", name(n)));
    let mut states = std::collections::BTreeSet::new();
    let mut is_done = false;
    for writes in 0..200 {
        let cut = cut_after(&medium, writes, |medium| is_done = tidying.run(open_healthy(medium).unwrap()).is_ok());
        let left = files(&cut);
        for (path, content) in &before {
            assert!(left.get(path).map_or(going.contains(path), |now| now == content), "{path}, {writes} writes");
        }
        recover(&cut).unwrap();
        assert_clean(&cut);
        let after = files(&cut);
        assert!(before.iter().all(|(path, content)| going.contains(path) || after.get(path) == Some(content)));
        states.insert(going.iter().filter(|path| left.contains_key(*path)).count());
        if is_done {
            assert!(going.iter().all(|path| !after.contains_key(path)));
            break;
        }
    }
    assert!(is_done, "it never ends well");
    assert_eq!(states.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);

    // What is not in its place any more is not removed a second time.
    let editor = Editor::open(&medium).unwrap();
    let entry = directory.find(&name(2)).unwrap();
    editor.remove_from(&directory, entry).unwrap();
    assert_eq!(editor.remove_from(&directory, entry).unwrap_err().code(), bootsurgeon::Code::Bug);
}

/// Writes the record of a cut operation anew as the version before this one did, which knew no directory but
/// `EFI/Linux`.
fn as_format_2(medium: &Memory) -> bool {
    let volume = Volume::open(medium).unwrap();
    let cluster = volume.geometry().cluster_bytes as usize;
    let Some(entry) = volume.find(INTENT_NAME).unwrap() else { return false };
    let bytes = volume.read_small(INTENT_NAME, 1 << 20).unwrap().unwrap();
    let body: Vec<u8> = bytes
        .chunks(cluster)
        .flat_map(|part| part[part.iter().position(|b| *b == b'\n').unwrap() + 1..].to_vec())
        .collect();
    let mut record: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(record["operation"].as_object_mut().unwrap().remove("directory"), Some(LINUX_DIR.into()));
    let body = serde_json::to_vec(&record).unwrap();
    let line = |number: usize, of: usize, payload: &[u8]| {
        let begin = format!("BOOTSURGEON RECORD 2 0.1.0 part {number:04} of {of:04} bytes {:06} sum ", payload.len());
        let sum = Sha256::new().chain_update(&begin).chain_update(payload).finalize();
        format!("{begin}{}\n", hex::encode(&sum[..16])).into_bytes()
    };
    let room = cluster - line(0, 0, &[]).len();
    let of = body.len().div_ceil(room);
    let parts = body.chunks(room).enumerate();
    let old: Vec<u8> = parts.flat_map(|(i, part)| [line(i + 1, of, part), part.to_vec()].concat()).collect();
    let mut editor = Editor::open(medium).unwrap();
    let runs = editor.table().chain(entry.first_cluster).unwrap();
    editor.remove("", &entry).unwrap();
    editor.free(&runs).unwrap();
    editor.make_file("", INTENT_NAME, &old, STAMP).unwrap();
    true
}

#[test]
fn issue13_4_a_record_of_the_version_before_is_finished_or_undone() {
    let medium = volume(fatfs::FatType::Fat16, 16 << 20, 2048, 512);
    let (target, twin) = ("/EFI/Linux/Talos-v1.12.4.efi", "/EFI/Linux/Talos-v1.12.4~1.efi");
    let image = pattern(9, 50_000);
    let swap = |medium: &dyn WriteAt| {
        let order = order("swap", "Talos-v1.12.4.efi", vec![FileStep::Remove("Talos-v1.12.4~1.efi".into())]);
        let _ = try_stage(medium, &image).and_then(|staged| staged.commit(&order));
    };
    let (mut finished, mut undone) = (0, 0);
    for writes in 0..100 {
        let cut = cut_after(&medium, writes, swap);
        if !as_format_2(&cut) {
            continue;
        }
        let recovery = recover(&cut).unwrap();
        let after = files(&cut);
        match recovery.finished {
            Some(true) => finished += 1,
            _ => undone += 1,
        }
        let expected = if recovery.finished == Some(true) { &image } else { &pattern(2, 70_001) };
        assert!(after[target] == *expected, "after {writes} writes: {recovery:?}");
        assert_eq!(after.contains_key(twin), recovery.finished != Some(true), "after {writes} writes: {recovery:?}");
        assert_clean(&cut);
    }
    assert!(finished > 1 && undone > 1, "finished {finished}, undone {undone}");
}

#[test]
fn issue13_4_another_directory_gets_the_same_surgery() {
    let medium = volume(fatfs::FatType::Fat16, 16 << 20, 2048, 512);
    let before = files(&medium);
    let image = pattern(9, 50_000);
    let order = Order {
        directory: "EFI/BOOT".into(),
        backup: Some("BOOTAA64.EFI.bak.1771000000".into()),
        ..order("swap", "BOOTAA64.EFI", vec![])
    };
    let mut seen = [false; 2];
    for writes in 0..200 {
        let cut = cut_after(&medium, writes, |medium| {
            let _ = try_stage(medium, &image).and_then(|staged| staged.commit(&order));
        });
        let recovery = recover(&cut).unwrap();
        let mut after = files(&cut);
        let is_new = after["/EFI/BOOT/BOOTAA64.EFI"] == image;
        if recovery.interrupted.is_some() {
            assert_eq!(recovery.finished, Some(is_new));
        }
        if is_new {
            assert!(after["/EFI/BOOT/BOOTAA64.EFI.bak.1771000000"] == before["/EFI/BOOT/BOOTAA64.EFI"]);
            after.remove("/EFI/BOOT/BOOTAA64.EFI.bak.1771000000");
            after.insert("/EFI/BOOT/BOOTAA64.EFI".into(), before["/EFI/BOOT/BOOTAA64.EFI"].clone());
        }
        assert!(after == before, "after {writes} writes: {recovery:?}");
        assert_clean(&cut);
        if let Some(words) = recovery.interrupted {
            assert!(words.contains("swap of EFI/BOOT/BOOTAA64.EFI"), "{words}");
            seen[usize::from(is_new)] = true;
        }
    }
    assert_eq!(seen, [true; 2]);
}
