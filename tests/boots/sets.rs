//! Power cuts while the board's own files change with the image: at every one the old or the new image boots. This
//! firmware does not read those files, so no mixture of them keeps an image from starting.

use crate::cut_shapes::{Act, NOW, Shape};
use crate::job::talos;
use crate::lab::Systemd;
use crate::recorder::Recorder;
use crate::volume;
use bootsurgeon::block::{ReadAt, Sink, read_vec};
use bootsurgeon::board::{BoardFiles, compare};
use bootsurgeon::esp::{BackupName, Inventory};
use bootsurgeon::fat::Volume;
use bootsurgeon::plan::{BoardSetOptions, BoardSetPlan, NewImage, SwapOptions, SwapPlan, backups};
use bootsurgeon::surgery::{ContentRef, Order, Staging, open_healthy};
use bootsurgeon::uki;
use sha2::{Digest, Sha256};

const NAME: &str = "Talos-v1.12.4.efi";

/// Files of the board in several directories: path, length on the board (0: not there), length in the source.
pub(crate) const FILES: [(&str, usize, usize); 7] = [
    ("start4.elf", 3000, 3100),
    ("fixup4.dat", 600, 600),
    ("bcm2711-rpi-4-b.dtb", 5000, 4200),
    ("overlays/vc4-kms-v3d.dtbo", 700, 1500),
    ("dtb/rockchip/rk3588.dtb", 2048, 2048),
    ("dtb/rockchip/rk3588-new.dtb", 0, 900),
    // Its directories are not on the board.
    ("dtb/allwinner/new/h618.dtb", 0, 1200),
];

/// Bytes of one of these files, which differ from those of every other.
pub(crate) fn content(path: &str, bytes: usize, is_new: bool) -> Vec<u8> {
    let sort = if is_new { "new" } else { "old" };
    format!("{path}, the {sort} one. ").into_bytes().into_iter().cycle().take(bytes).collect()
}

/// The board's files, or those of the source.
pub(crate) fn files(is_new: bool) -> impl Iterator<Item = (String, Vec<u8>)> {
    FILES.iter().filter_map(move |(path, old, new)| {
        let bytes = if is_new { *new } else { *old };
        (bytes > 0).then(|| ((*path).to_owned(), content(path, bytes, is_new)))
    })
}

/// A board of the old release: a swap that brings files of the board, and the way back of all of them.
pub(crate) fn shapes(old: &Systemd, new: &Systemd) -> Vec<Shape> {
    let (image, next) = (talos(old, "v1.12.4", "old"), talos(new, "v1.12.4", "new"));
    let swap = || -> Act {
        let next = next.clone();
        Box::new(move |medium, shape| swap(medium, shape, &next))
    };
    let shape = |name: &str, earlier: Vec<Act>, operation| {
        let mut shape = Shape::new(old, name, &[(NAME, &image)], operation);
        shape.beside.extend(files(false));
        let all = FILES.iter().map(|(path, ..)| (*path).to_owned());
        Shape {
            earlier,
            images: vec![(image.clone(), "old"), (next.clone(), "new")],
            contents: files(true).map(|(_, content)| content).collect(),
            watched: all.chain([format!("EFI/Linux/{NAME}")]).collect(),
            ..shape
        }
    };
    vec![
        shape("a swap with files of the board", Vec::new(), swap()),
        shape("the restore of such a swap", vec![swap()], Box::new(restore)),
    ]
}

/// As the command does it with `--with-board-files --accept-mixture`.
fn swap(medium: &Recorder, shape: &Shape, bytes: &Vec<u8>) {
    let esp = Inventory::read(medium, shape.known_variables()).unwrap();
    let source = Volume::open(volume::esp(8 << 20, &files(true).collect::<Vec<_>>())).unwrap();
    let (theirs, ours) = (BoardFiles::read(&source).unwrap(), BoardFiles::read(&esp.volume).unwrap());
    let compared = compare((&source, &theirs), (&esp.volume, &ours)).unwrap();
    let time = esp.stamp(NOW);
    let options = BoardSetOptions { accept_mixture: true, time, ..BoardSetOptions::default() };
    let mut set = BoardSetPlan::make(&esp.volume, &compared, None, &options).unwrap();
    assert_eq!(set.change.len(), FILES.len(), "{set:?}");

    let facts = uki::probe(bytes).unwrap();
    let image = NewImage { source: bytes, facts: Some(&facts), bytes_to_write: bytes.len() as u64, from_file: None };
    let plan = SwapPlan::make(&esp, &image, &SwapOptions { time, ..SwapOptions::default() }).unwrap();
    let backup = plan.backup.as_deref().and_then(BackupName::parse).unwrap();
    set.named_after(&esp.volume, backup.time).unwrap();
    let mut staging = Staging::begin(open_healthy(medium).unwrap(), bytes.len() as u64).unwrap();
    staging.chunk(bytes).unwrap();
    let mut staged = staging.seal(Sha256::digest(bytes).into()).unwrap();
    let contents: Vec<_> = set.change.iter().map(|f| theirs.find(&f.path).unwrap().open(&source).unwrap()).collect();
    let contents: Vec<&dyn ReadAt> = contents.iter().map(|content| content as &dyn ReadAt).collect();
    staged.stage_set(&contents, &mut |_| Ok(())).unwrap();
    let directories = set.directories.clone();
    assert_eq!(directories.len(), 2, "{directories:?}");
    let _ = staged.commit(&Order { set: set.set(), directories, ..plan.order("swap", time) }).unwrap();
}

/// The newest backup goes back, and the files that changed with it.
fn restore(medium: &Recorder, shape: &Shape) {
    let esp = Inventory::read(medium, shape.known_variables()).unwrap();
    let (name, backup) = backups(&esp).first().cloned().unwrap();
    let file = esp.file(&name).unwrap();
    let bytes = esp.volume.file(&file.entry).unwrap();
    let image = NewImage { source: &bytes, facts: file.facts.as_deref(), bytes_to_write: 0, from_file: Some(&name) };
    let time = esp.stamp(NOW);
    let options = SwapOptions { target: Some(backup.original), time, ..SwapOptions::default() };
    let plan = SwapPlan::make(&esp, &image, &options).unwrap();
    let options = BoardSetOptions { accept_mixture: true, time, ..BoardSetOptions::default() };
    let set = BoardSetPlan::restoring(&esp.volume, backup.time, &options).unwrap();
    assert_eq!(set.change.len(), files(false).count(), "{set:?}");
    let sha256 = Some(hex::encode(Sha256::digest(read_vec(&bytes, 0, bytes.size() as usize).unwrap())));
    let verified = ContentRef { cluster: file.entry.first_cluster, bytes: file.entry.bytes, sha256 };
    let order = Order { set: set.set(), ..plan.order("restore", time) };
    let _ = order.restore(open_healthy(medium).unwrap(), &name, verified).unwrap();
}
