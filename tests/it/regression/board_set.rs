//! A swap that brings the board's own files with it (issue 19, point 3), as the command does it.

use super::disks::mbr_disk;
use super::recovery::Overlay;
use crate::cli::{ESP, copy, files, put, uki};
use crate::support::{self, Lab, fsck_clean, sha256, tools};
use bootsurgeon::block::{ReadAt, Sink};
use bootsurgeon::surgery::{LINUX_DIR, Order, SetContent, SetFile, Staging, open_healthy, recover};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the board was installed with, and what the source has: path, old bytes, new bytes.
const FILES: [(&str, Option<&str>, Option<&str>); 11] = [
    ("start4.elf", Some("old start4"), Some("the new start4")),
    ("fixup4.dat", Some("old fixup4"), Some("the new fixup4")),
    ("config.txt", Some("dtparam=audio=on\n"), Some("dtparam=audio=off\n")),
    ("u-boot.bin", Some("the same U-Boot"), Some("the same U-Boot")),
    ("bcm2711-rpi-4-b.dtb", Some("old tree"), Some("the new tree")),
    ("bcm2712-rpi-5-b.dtb", None, Some("a tree that is new")),
    ("overlays/vc4-kms-v3d.dtbo", Some("old overlay"), Some("the new overlay")),
    ("dtb/rockchip/rk3588.dtb", None, Some("in a directory that the ESP has not")),
    ("boot.scr", None, Some("what U-Boot would run")),
    ("extlinux/extlinux.conf", None, Some("what U-Boot would start")),
    ("uboot.env", Some("the board's own"), None),
];

fn directory(disk: &Path, esp: u64, name: &str) {
    support::run_ok("mmd", &["-i", &format!("{}@@{esp}", disk.display()), &format!("::/{name}")]);
}

/// A board of an older version, and a packed disk image of a newer one.
fn board(lab: &Lab) -> (PathBuf, PathBuf) {
    let disk = lab.fixture("disk-512.img.zst");
    let source = copy(&disk, &lab.path("source.raw"));
    directory(&disk, ESP, "overlays");
    directory(&source, ESP, "overlays");
    for name in ["dtb", "dtb/rockchip", "extlinux"] {
        directory(&source, ESP, name);
    }
    for (path, old, new) in FILES {
        for (image, content) in [(&disk, old), (&source, new)] {
            if let Some(content) = content {
                put(image, ESP, path, content.as_bytes());
            }
        }
    }
    let _ = bootsurgeon!("swap", source, uki(lab, "v1.12.4-arm64-installer"), "--yes").code(0);
    support::run_ok("xz", &["-T0", "-0", &source.display().to_string()]);
    (disk, lab.path("source.raw.xz"))
}

fn paths(report: &Value, list: &str) -> Vec<String> {
    let list = report["board_files"][list].as_array().unwrap_or_else(|| panic!("{report:#}"));
    list.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

fn text<'f>(files: &'f BTreeMap<String, Vec<u8>>, path: &str) -> &'f str {
    files.get(path).map_or("(none)", |bytes| std::str::from_utf8(bytes).unwrap())
}

#[test]
fn issue19_3_the_boards_files_come_with_the_image() {
    if !tools(&["mcopy", "mmd", "xz"]) {
        return;
    }
    let lab = Lab::new();
    let (disk, source) = board(&lab);
    let (untouched, before) = (sha256(&disk), files(&disk, ESP));
    for how in ["--dry-run", "--yes"] {
        let _ =
            bootsurgeon!("swap", disk, source, "--with-board-files", how).fails(4, &["start*.elf", "--accept-mixture"]);
        assert_eq!(sha256(&disk), untouched);
    }
    let swap = |how: &str| bootsurgeon!("swap", disk, source, "--with-board-files", "--accept-mixture", how, "--json");
    let planned = swap("--dry-run").code(0).json();
    assert_eq!(sha256(&disk), untouched);
    let done = swap("--yes").code(0).json();
    for list in ["change", "keep"] {
        assert_eq!(paths(&planned, list), paths(&done, list));
    }
    assert_eq!(
        paths(&done, "change"),
        [
            "overlays/vc4-kms-v3d.dtbo",
            "bcm2711-rpi-4-b.dtb",
            "bcm2712-rpi-5-b.dtb",
            "dtb/rockchip/rk3588.dtb",
            "fixup4.dat",
            "start4.elf",
        ]
    );
    let made = serde_json::json!(["dtb", "dtb/rockchip"]);
    for report in [&planned, &done] {
        assert_eq!(report["board_files"]["directories"], made, "{report:#}");
    }
    assert_eq!(done["committed"], true, "{done:#}");
    let kept = paths(&done, "keep");
    assert!(!kept.contains(&"u-boot.bin".into()), "{kept:?}");
    assert!(kept.contains(&"config.txt".into()), "{kept:?}");
    // Where a board starts without settings, new ones may change what starts.
    assert!(kept.contains(&"boot.scr".into()) && kept.contains(&"extlinux/extlinux.conf".into()), "{kept:?}");

    let after = files(&disk, ESP);
    for (path, old, new) in FILES {
        let stays = ["config.txt", "uboot.env", "boot.scr", "extlinux/extlinux.conf"].contains(&path);
        let expected = if stays { old } else { new }.unwrap_or("(none)");
        assert_eq!(text(&after, path), expected, "{path}");
    }
    // Every old content is there under another name, and nothing else has changed.
    for (path, bytes) in &before {
        assert!(after.values().any(|content| content == bytes), "{path}");
    }
    assert!(fsck_clean(&disk, ESP));
    assert!(bootsurgeon!("status", disk, "--json").code(0).json()["interrupted"].is_null());

    // The way back that the report names puts back everything but what was added.
    let back = copy(&disk, &lab.path("back.img"));
    let next = done["next"].as_array().unwrap();
    let way_back = next.iter().find(|step| step["why"] == "the way back").unwrap();
    let run: Vec<String> = way_back["run"].as_array().unwrap()[1..]
        .iter()
        .map(|word| word.as_str().unwrap().replace(&*disk.to_string_lossy(), &back.to_string_lossy()))
        .collect();
    assert!(run.contains(&"--with-board-files".to_owned()), "{run:?}");
    let mut said = bootsurgeon!("restore", back, "--yes", "--dry-run", "--json").code(0).json();
    assert!(said["warnings"].take().to_string().contains("4 files of the board"));
    let restored = crate::cli::run(&[&run[..], &["--yes".to_owned(), "--json".to_owned()]].concat()).code(0).json();
    assert_eq!(paths(&restored, "change").len(), 4, "{restored:#}");
    let there = files(&back, ESP);
    for (path, content) in before.iter().filter(|(path, _)| !path.contains("~1")) {
        assert!(there[path] == *content, "{path}");
    }
    assert_eq!(text(&there, "bcm2712-rpi-5-b.dtb"), "a tree that is new");
    assert!(fsck_clean(&back, ESP));

    let now = sha256(&disk);
    let again = swap("--yes").code(0).json();
    assert_eq!((&again["committed"], &again["already_in_place"]), (&false.into(), &true.into()), "{again:#}");
    assert_eq!(sha256(&disk), now);
}

#[test]
fn issue19_3_the_image_is_in_place_and_the_files_are_not() {
    if !tools(&["mcopy", "mmd", "xz"]) {
        return;
    }
    let lab = Lab::new();
    let (disk, source) = board(&lab);
    let installed = copy(&disk, &lab.path("installed.raw"));
    let _ = bootsurgeon!("swap", disk, uki(&lab, "v1.12.4-arm64-installer"), "--yes").code(0);
    let changed = "somebody's own tree";
    put(&disk, ESP, "bcm2711-rpi-4-b.dtb", changed.as_bytes());
    let before = sha256(&disk);
    let trees = |how: &str| {
        let only = "--with-board-files=*.DTB";
        bootsurgeon!("swap", disk, source, only, "--installed-from", installed, how, "--json").code(0).json()
    };
    let planned = trees("--dry-run");
    assert_eq!(sha256(&disk), before);
    assert_eq!(paths(&planned, "change"), ["bcm2712-rpi-5-b.dtb", "dtb/rockchip/rk3588.dtb"]);
    let done = trees("--yes");
    assert_eq!((&done["committed"], &done["already_in_place"]), (&true.into(), &true.into()), "{done:#}");
    assert_eq!(paths(&done, "change"), ["bcm2712-rpi-5-b.dtb", "dtb/rockchip/rk3588.dtb"]);
    let after = files(&disk, ESP);
    assert_eq!(text(&after, "bcm2711-rpi-4-b.dtb"), changed);
    assert_eq!(text(&after, "bcm2712-rpi-5-b.dtb"), "a tree that is new");
    assert_eq!(text(&after, "start4.elf"), "old start4");

    // What the user asks for by name is taken.
    let overwrite = ["--overwrite", "BCM2711-rpi-4-b.dtb", "--overwrite", "config.txt"];
    let [a, b, c, d] = overwrite;
    let all = "--with-board-files";
    let done = bootsurgeon!(
        "swap",
        disk,
        source,
        all,
        "--installed-from",
        installed,
        a,
        b,
        c,
        d,
        "--accept-mixture",
        "--yes",
        "--json"
    );
    let done = done.code(0).json();
    assert_eq!(done["committed"], true, "{done:#}");
    let after = files(&disk, ESP);
    assert_eq!(text(&after, "bcm2711-rpi-4-b.dtb"), "the new tree");
    assert_eq!(text(&after, "config.txt"), "dtparam=audio=off\n");
    assert!(after.values().any(|content| content == changed.as_bytes()));
    assert!(fsck_clean(&disk, ESP));
}

#[test]
fn issue19_3_what_has_no_board_files_is_refused_in_the_same_way_by_a_dry_run() {
    if !tools(&["mcopy", "mmd", "xz"]) {
        return;
    }
    let lab = Lab::new();
    let (disk, source) = board(&lab);
    let image = uki(&lab, "v1.12.4-arm64-installer");
    let untouched = sha256(&disk);
    for how in ["--dry-run", "--yes"] {
        let _ = bootsurgeon!("swap", disk, image, "--with-board-files", how).fails(3, &["holds no file system"]);
        let url = "http://127.0.0.1:9/metal.raw";
        let _ = bootsurgeon!("swap", disk, url, "--with-board-files", how).fails(3, &["lies on a server"]);
        let _ = bootsurgeon!("swap", disk, source, "--with-board-files=*.nothing", how)
            .fails(2, &["no file of the source"]);
        let _ = bootsurgeon!("swap", disk, source, "--with-board-files", "--overwrite", "x.dtb", how)
            .fails(2, &["--overwrite x.dtb"]);
        let _ = bootsurgeon!("swap", disk, source, "--overwrite", "config.txt", how).fails(2, &["--with-board-files"]);
    }
    assert_eq!(sha256(&disk), untouched);
}

#[test]
fn issue19_3_a_card_with_an_mbr() {
    const CARD: u64 = 4096 * 512;
    if !tools(&["mcopy", "mmd", "xz", "sfdisk"]) {
        return;
    }
    let lab = Lab::new();
    let (_, source) = board(&lab);
    let card = mbr_disk(&lab, "label: dos\nstart=4096, size=98304, type=c\nstart=104448, type=83\n");
    directory(&card, CARD, "overlays");
    for (path, old, _) in FILES {
        if let Some(old) = old {
            put(&card, CARD, path, old.as_bytes());
        }
    }
    let outside = |bytes: Vec<u8>| [&bytes[..CARD as usize], &bytes[CARD as usize + 98304 * 512..]].concat();
    let before = outside(std::fs::read(&card).unwrap());
    let old = files(&card, CARD);
    let done = bootsurgeon!("swap", card, source, "--with-board-files", "--accept-mixture", "--yes", "--json");
    assert_eq!(paths(&done.code(0).json(), "change").len(), 6);
    let after = files(&card, CARD);
    for (path, old, new) in FILES {
        let stays = ["config.txt", "uboot.env", "boot.scr", "extlinux/extlinux.conf"].contains(&path);
        assert_eq!(text(&after, path), if stays { old } else { new }.unwrap_or("(none)"), "{path}");
    }
    assert!(old.values().all(|content| after.values().any(|there| there == content)));
    assert!(outside(std::fs::read(&card).unwrap()) == before, "something outside the ESP has changed");
    assert!(fsck_clean(&card, CARD));
}

#[test]
fn issue19_3_a_file_in_the_place_of_a_directory_stays_and_what_is_named_is_added() {
    if !tools(&["mcopy", "mmd", "xz"]) {
        return;
    }
    let lab = Lab::new();
    let (disk, source) = board(&lab);
    put(&disk, ESP, "DTB", b"no directory");
    let swap = |more: &str, how: &str| {
        bootsurgeon!("swap", disk, source, "--with-board-files", "--accept-mixture", more, how, "--json").code(0).json()
    };
    let planned = swap("--overwrite=extlinux/extlinux.conf", "--dry-run");
    let done = swap("--overwrite=extlinux/extlinux.conf", "--yes");
    for report in [planned, done] {
        let keep = report["board_files"]["keep"].as_array().unwrap().clone();
        let tree = keep.iter().find(|file| file["path"] == "dtb/rockchip/rk3588.dtb").unwrap();
        assert_eq!(tree["why"], "on the ESP dtb is a file, and no directory");
        assert_eq!(report["board_files"]["directories"], serde_json::json!(["extlinux"]));
    }
    let after = files(&disk, ESP);
    assert_eq!(text(&after, "DTB"), "no directory");
    assert_eq!(text(&after, "extlinux/extlinux.conf"), "what U-Boot would start");
    assert!(fsck_clean(&disk, ESP));
}

/// What a swap with a set leaves that is cut after so many writes behind the staging; `None` when it came to its end.
fn cut_set<'b>(esp: &'b [u8], image: &[u8], writes: usize) -> Option<Overlay<'b>> {
    let medium = Overlay::cut_after(esp, writes);
    let name = |name: &str| SetFile {
        directory: String::new(),
        target: name.to_owned(),
        backup: Some(format!("{name}.bak.1771000000")),
        content: SetContent::Staged { bytes: 8 },
    };
    let order = Order {
        directories: Vec::new(),
        command: "swap".to_owned(),
        time: 1_771_000_000,
        directory: LINUX_DIR.to_owned(),
        before: Vec::new(),
        target: "Talos-v1.12.4.efi".to_owned(),
        backup: Some("Talos-v1.12.4.efi.bak.1771000000".to_owned()),
        set: vec![name("fixup4.dat"), name("start4.elf")],
        after: Vec::new(),
    };
    let run = || -> bootsurgeon::Result<()> {
        let mut staging = Staging::begin(open_healthy(&medium)?, image.len() as u64)?;
        image.chunks(1 << 16).try_for_each(|chunk| staging.chunk(chunk))?;
        let mut staged = staging.seal(Sha256::digest(image).into())?;
        let contents: [Vec<u8>; 2] = [b"new fix.".to_vec(), b"new str.".to_vec()];
        staged.stage_set(&contents.each_ref().map(|c| c as &dyn ReadAt), &mut |_| Ok(()))?;
        staged.commit(&order).map(drop)
    };
    let done = run().is_ok();
    (!done).then_some(medium)
}

/// A board whose swap with a set is cut.
struct Interrupted {
    lab: Lab,
    disk: PathBuf,
    /// The bytes of the disk from its ESP on.
    esp: Vec<u8>,
    image: Vec<u8>,
    /// Its files before.
    old: BTreeMap<String, Vec<u8>>,
    /// Where a cut image goes.
    cut: PathBuf,
    /// What is written before the record: staging alone takes hundreds of sectors.
    sectors: usize,
}

impl Interrupted {
    fn new() -> Self {
        let lab = Lab::new();
        let (disk, _) = board(&lab);
        let image = std::fs::read(uki(&lab, "v1.12.4-arm64-installer")).unwrap();
        let (old, cut) = (files(&disk, ESP), lab.path("cut.img"));
        let sectors = image.len().div_ceil(512) + 2;
        let esp = std::fs::read(&disk).unwrap().split_off(ESP as usize);
        Self { lab, disk, esp, image, old, cut, sectors }
    }
}

/// Puts a disk at `cut`, with what was written to its ESP.
fn put_cut(disk: &Path, medium: &Overlay<'_>, cut: &Path) {
    copy(disk, cut);
    medium.write_to(cut, ESP);
}

/// `recover` by itself, with `--forward` and with `--back`, wherever a set was cut: each says first what it then does.
#[test]
fn issue19_3_recover_goes_the_way_that_it_is_asked_to() {
    if !tools(&["mcopy", "mmd", "xz"]) {
        return;
    }
    let Interrupted { lab: _lab, disk, esp, image, old, cut, sectors } = Interrupted::new();
    let (mut forward, mut back, mut refused) = (0, 0, 0);
    for writes in sectors.. {
        let Some(left) = cut_set(&esp, &image, writes) else { break };
        for way in ["--forward", "--back", "--no-progress"] {
            put_cut(&disk, &left, &cut);
            let says = bootsurgeon!("recover", cut, way, "--dry-run", "--json");
            let did = bootsurgeon!("recover", cut, way, "--yes", "--json");
            assert_eq!(says.code, did.code, "{writes} {way}");
            if did.code == 4 {
                assert!(did.err.contains("without --forward"), "{writes} {way}: {}", did.err);
                refused += 1;
                continue;
            }
            let (says, did) = (says.code(0).json(), did.code(0).json());
            assert_eq!(says["actions"], did["actions"], "{writes} {way}");
            if did["interrupted"].is_null() {
                continue;
            }
            let now = files(&cut, ESP);
            let is_new = |path: &str, new: &[u8]| now[path] == new;
            let new = [
                is_new("start4.elf", b"new str."),
                is_new("fixup4.dat", b"new fix."),
                is_new("EFI/Linux/Talos-v1.12.4.efi", &image),
            ];
            match way {
                "--forward" => {
                    assert_eq!(new, [true; 3], "{writes}");
                    forward += 1;
                }
                "--back" => {
                    assert!(now == old, "{writes}: {:?}", now.keys());
                    back += 1;
                }
                _ => assert!(new == [true; 3] || now == old, "{writes}"),
            }
            assert!(fsck_clean(&cut, ESP), "{writes} {way}");
        }
    }
    assert!(forward > 5 && back > 5 && refused > 0, "{forward} {back} {refused}");
}

/// Somebody else wrote into the clusters of what was staged: it is not carried to its end, and going back is possible.
#[test]
fn issue19_3_what_is_not_whole_is_not_carried_to_its_end() {
    if !tools(&["mcopy", "mmd", "xz"]) {
        return;
    }
    let Interrupted { lab: _lab, disk, esp, image, old, cut, sectors } = Interrupted::new();
    let mut spoilt = 0;
    for writes in (sectors..).step_by(3) {
        let Some(left) = cut_set(&esp, &image, writes) else { break };
        let content = b"new str.";
        let whole = left.to_bytes();
        let Some(at) = whole.windows(content.len()).position(|bytes| bytes == content) else { continue };
        put_cut(&disk, &left, &cut);
        let is_new = files(&cut, ESP)["start4.elf"] == content;
        if is_new || bootsurgeon!("recover", cut, "--forward", "--dry-run").code != 0 {
            continue;
        }
        put_cut(&disk, &left, &cut);
        crate::cli::patch(&cut, ESP + at as u64, &[whole[at] ^ 1]);
        if bootsurgeon!("recover", cut, "--dry-run", "--json").code(0).json()["interrupted"].is_null() {
            continue;
        }
        let _ = bootsurgeon!("recover", cut, "--forward", "--yes").fails(4, &["start4.elf", "without --forward"]);
        let report = bootsurgeon!("recover", cut, "--yes", "--json").code(0).json();
        assert_eq!(report["finished"], false, "{writes}: {report:#}");
        let now = files(&cut, ESP);
        for (path, content) in &old {
            assert!(now[path] == *content, "{writes}: {path}");
        }
        spoilt += 1;
    }
    assert!(spoilt > 2, "{spoilt}");
}

/// A system writes its image anew between the cut and `recover`: the files of the board go back all the same, or all are
/// new already. None is left half.
#[test]
fn issue19_3_the_image_is_another_since_and_no_half_of_the_set_stays() {
    if !tools(&["mcopy", "mmd", "mdel", "xz"]) {
        return;
    }
    let Interrupted { lab: _lab, disk, esp, image, old, cut, sectors } = Interrupted::new();
    let (mut halves, mut whole) = (0, 0);
    let paths = ["start4.elf", "fixup4.dat"];
    let target = "EFI/Linux/Talos-v1.12.4.efi";
    for writes in sectors.. {
        let Some(left) = cut_set(&esp, &image, writes) else { break };
        for (way, is_gone) in
            [("--no-progress", false), ("--no-progress", true), ("--back", false), ("--forward", true)]
        {
            put_cut(&disk, &left, &cut);
            if bootsurgeon!("status", cut, "--json").json()["interrupted"].is_null() {
                continue;
            }
            if is_gone {
                let esp = format!("{}@@{ESP}", cut.display());
                support::run_ok("mdel", &["-i", &esp, &format!("::/{target}")]);
            } else {
                put(&cut, ESP, target, b"somebody else's image");
            }
            let before = files(&cut, ESP);
            let is_new = paths.map(|path| before[path] != old[path]);
            let did = bootsurgeon!("recover", cut, way, "--yes", "--json");
            let now = files(&cut, ESP);
            if way == "--forward" {
                assert_eq!(did.code, 4, "{writes}: {}", did.err);
                assert!(did.err.contains("without --forward"), "{writes}: {}", did.err);
                assert!(now == before);
                continue;
            }
            let report = did.code(0).json();
            assert_eq!(now.get(target), before.get(target), "{writes} {way}");
            let contents = paths.map(|path| now[path] != old[path]);
            if is_new == [true; 2] && way != "--back" {
                assert_eq!(contents, [true; 2], "{writes}: {report:#}");
                assert!(paths.iter().all(|path| now[&format!("{path}.bak.1771000000")] == old[*path]), "{writes}");
                whole += 1;
            } else {
                assert_eq!(contents, [false; 2], "{writes} {way}: {report:#}");
                assert!(paths.iter().all(|path| !now.contains_key(&format!("{path}.bak.1771000000"))), "{writes}");
                halves += usize::from(is_new != [false; 2]);
            }
            assert!(bootsurgeon!("status", cut, "--json").json()["interrupted"].is_null());
            assert!(fsck_clean(&cut, ESP), "{writes} {way}");
        }
    }
    assert!(halves > 3 && whole > 1, "{halves} {whole}");
}

/// A pattern, a file that somebody has changed, or a restore may leave a part of what has to fit each other.
#[test]
fn issue19_3_files_that_have_to_fit_and_stay_make_a_mixture() {
    if !tools(&["mcopy", "mmd", "xz"]) {
        return;
    }
    let lab = Lab::new();
    let (disk, source) = board(&lab);
    let untouched = sha256(&disk);
    for pattern in ["start4.elf", "fixup*", "*.dtb", "overlays/*"] {
        let glob = format!("--with-board-files={pattern}");
        for how in ["--dry-run", "--yes"] {
            let _ =
                bootsurgeon!("swap", disk, source, glob, how).fails(4, &["would stay as they are", "--accept-mixture"]);
        }
    }
    // What is left out is not overwritten in silence.
    let _ = bootsurgeon!("swap", disk, source, "--with-board-files=*.dtb", "--overwrite", "config.txt", "--yes")
        .fails(2, &["--overwrite config.txt", "leaves it out"]);
    assert_eq!(sha256(&disk), untouched);
    // Alone, a new overlay fits the trees that are the same.
    put(&disk, ESP, "bcm2711-rpi-4-b.dtb", b"the new tree");
    let overlay = "--with-board-files=overlays/*";
    let done = bootsurgeon!("swap", disk, source, overlay, "--yes", "--json").code(0).json();
    assert_eq!(paths(&done, "change"), ["overlays/vc4-kms-v3d.dtbo"]);
    // The firmware later, by itself: with the image alone it does not come back, and that is said.
    let firmware = bootsurgeon!("swap", disk, source, "--with-board-files", "--accept-mixture", "--yes", "--json");
    assert_eq!(paths(&firmware.code(0).json(), "change").len(), 4);
    let back = bootsurgeon!("restore", disk, "--with-board-files", "--dry-run", "--json").code(0).json();
    assert_eq!(paths(&back, "change"), ["overlays/vc4-kms-v3d.dtbo"]);
    let kept = back["board_files"]["keep"].as_array().unwrap();
    let start = kept.iter().find(|file| file["path"] == "start4.elf").unwrap_or_else(|| panic!("{back:#}"));
    assert!(start["why"].as_str().unwrap().contains("start4.elf.bak."), "{start:#}");
}

/// A directory has the name of a file of the source, or a name leaves no room for that of a backup: the file stays, and
/// is named.
#[test]
fn issue19_3_a_file_that_cannot_be_changed_stays_and_is_named() {
    if !tools(&["mcopy", "mmd", "xz"]) {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let source = copy(&disk, &lab.path("source.raw"));
    let long = format!("{}.dtb", "x".repeat(240));
    directory(&disk, ESP, "clash.dtb");
    put(&source, ESP, "clash.dtb", b"a tree");
    for (image, content) in [(&disk, b"old"), (&source, b"new")] {
        put(image, ESP, &long, content);
        put(image, ESP, "u-boot.bin", content);
    }
    let _ = bootsurgeon!("swap", source, uki(&lab, "v1.12.4-arm64-installer"), "--yes").code(0);
    let done = bootsurgeon!("swap", disk, source, "--with-board-files", "--yes", "--json").code(0).json();
    assert_eq!(paths(&done, "change"), ["u-boot.bin"]);
    let kept = paths(&done, "keep");
    assert!(kept.contains(&"clash.dtb".into()) && kept.contains(&long), "{kept:?}");
}

/// What lies too deep to be looked at is said, and what the user names there is not said to be missing without that.
#[test]
fn issue19_3_what_is_not_looked_at_is_said() {
    if !tools(&["mcopy", "mmd"]) {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let source = copy(&disk, &lab.path("source.raw"));
    for depth in 1..=10 {
        directory(&source, ESP, &vec!["d"; depth].join("/"));
    }
    put(&source, ESP, &format!("{}/deep.dtb", ["d"; 10].join("/")), b"a tree");
    let _ = bootsurgeon!("swap", source, uki(&lab, "v1.12.4-arm64-installer"), "--yes").code(0);
    for how in [&["--dry-run"][..], &["--dry-run", "--with-board-files"]] {
        let report =
            crate::cli::run(&[&["swap", disk.to_str().unwrap(), source.to_str().unwrap(), "--json"][..], how].concat());
        let report = report.code(0).json();
        assert!(
            report["warnings"].to_string().contains("beside the new image: d/d/d/d/d/d/d/d/d lies too deep"),
            "{report:#}"
        );
        assert!(!report["board"]["not_looked_at"].as_array().unwrap().is_empty(), "{report:#}");
    }
    let _ = bootsurgeon!("swap", disk, source, "--with-board-files=*deep.dtb", "--dry-run")
        .fails(2, &["no file of the source fits", "lies too deep", "list the files"]);
}

/// The recovery that takes a set back around somebody else's image is cut at each of its writes, and run again.
#[test]
fn issue19_3_a_recovery_around_another_image_is_cut_anywhere() {
    if !tools(&["mcopy", "mmd", "xz"]) {
        return;
    }
    let Interrupted { lab, disk, esp, image, old, cut, sectors } = Interrupted::new();
    let target = "EFI/Linux/Talos-v1.12.4.efi";
    let paths = ["start4.elf", "fixup4.dat"];
    let (mut states, mut cuts) = (0, 0);
    for writes in sectors.. {
        let Some(left) = cut_set(&esp, &image, writes) else { break };
        put_cut(&disk, &left, &cut);
        if bootsurgeon!("status", cut, "--json").json()["interrupted"].is_null() {
            continue;
        }
        put(&cut, ESP, target, b"somebody else's image");
        let before = files(&cut, ESP);
        let is_half = paths.iter().any(|path| before[*path] == old[*path]);
        if !is_half {
            continue;
        }
        states += 1;
        let start = copy(&cut, &lab.path("start.img"));
        let esp = std::fs::read(&start).unwrap().split_off(ESP as usize);
        for writes in 0.. {
            let medium = Overlay::cut_after(&esp, writes);
            let is_done = recover(&medium).is_ok();
            put_cut(&start, &medium, &cut);
            let now = files(&cut, ESP);
            for path in paths {
                assert!(now[path] == old[path] || now[path] == before[path], "{path} is neither, cut at {writes}");
            }
            assert!(now[target] == before[target]);
            if is_done {
                break;
            }
            cuts += 1;
            let _ = bootsurgeon!("recover", cut, "--yes").code(0);
            let now = files(&cut, ESP);
            assert!(paths.iter().all(|path| now[*path] == old[*path]), "cut at {writes}");
            assert!(now[target] == before[target] && fsck_clean(&cut, ESP));
        }
    }
    assert!(states > 5 && cuts > 30, "{states} {cuts}");
}
