//! Damage, class by class, and what has to be said of it.

use super::Verdict;
use super::image::Image;
use bootsurgeon::fat::{FatKind, Root, Volume};

pub(super) struct Case {
    pub name: &'static str,
    /// Which volumes can have it.
    pub fits: fn(&Image) -> bool,
    pub damage: fn(&mut Image),
    pub expected: Verdict,
}

pub(super) const fn case(
    name: &'static str,
    fits: fn(&Image) -> bool,
    damage: fn(&mut Image),
    expected: Verdict,
) -> Case {
    Case { name, fits, damage, expected }
}

pub(super) fn any(_: &Image) -> bool {
    true
}
pub(super) fn two(i: &Image) -> bool {
    i.geometry.fats == 2
}
pub(super) fn fat32(i: &Image) -> bool {
    i.is_fat32()
}
pub(super) fn small(i: &Image) -> bool {
    !i.is_fat32()
}
pub(super) fn flagged(i: &Image) -> bool {
    i.geometry.kind != FatKind::Fat12
}
pub(super) fn fsinfo(i: &Image) -> bool {
    i.geometry.fsinfo_offset.is_some()
}

pub(super) const A: &str = "A.TXT";
pub(super) const B: &str = "B.TXT";
pub(super) const UKI: &str = "EFI/Linux/Talos-v1.12.4.efi";
pub(super) const LONG: &str = "a long name.txt";

#[rustfmt::skip]
pub(super) fn cases() -> Vec<Case> {
    use Verdict::{Clean, Damage, Leftover, Note, Unreadable};
    vec![
        case("nothing", any, |_| {}, Clean),
        // The table.
        case("copies differ where a file \
            is", two, |i| { let c = i.chain(UKI)[1]; let e = i.end_mark(); i.set(1..2, c, e); }, Damage),
        case("first copy broken where a file is", two, |i| { let c = i.chain(UKI)[1]; i.set(0..1, c, 0); }, Damage),
        case("copies differ in a free \
            cluster", two, |i| { let c = i.free_cluster(); let e = i.end_mark(); i.set(1..2, c, e); }, Leftover),
        case("loop", any, |i| { let c = i.chain(UKI); i.set_all(c[c.len() - 1], c[0]); }, Damage),
        case("loop of one", any, |i| { let c = i.chain(UKI); i.set_all(c[1], c[1]); }, Damage),
        case("chains meet", any, |i| { let (a, b) = (i.chain(A), i.chain(B)); i.set_all(a[0], b[1]); }, Damage),
        case("two files, one chain", any, |i| { let a = i.chain(A); i.set_first(B, a[0]); }, Damage),
        case("chain past the \
            end", any, |i| { let c = i.chain(UKI); let n = i.geometry.clusters + 2; i.set_all(c[1], n); }, Damage),
        case("chain to cluster 1", any, |i| { let c = i.chain(UKI); i.set_all(c[1], 1); }, Damage),
        case("chain into a free \
            cluster", any, |i| { let c = i.chain(UKI); let f = i.free_cluster(); i.set_all(c[1], f); }, Damage),
        case("chain cut by 0", any, |i| { let c = i.chain(UKI); i.set_all(c[1], 0); }, Damage),
        case("chain into a defective \
            cluster", any, |i| { let c = i.chain(UKI); let bad = i.end_mark() - 8; i.set_all(c[1], bad); }, Damage),
        case("defective clusters set aside", any, |i| {
            let bad = i.end_mark() - 8; let c = i.free_cluster(); i.set_all(c, bad); fix_fsinfo(i);
        }, Clean),
        case("lost cluster", any, |i| { let c = i.free_cluster(); let e = i.end_mark(); i.set_all(c, e); }, Note),
        case("lost chain", any, |i| {
            let c = i.free_cluster(); let e = i.end_mark(); i.set_all(c - 1, c); i.set_all(c, e);
        }, Note),
        case("lost loop", any, |i| { let c = i.free_cluster(); i.set_all(c - 1, c); i.set_all(c, c - 1); }, Note),
        case("lost cluster that points past the end", any, |i| {
            let c = i.free_cluster(); let n = i.geometry.clusters + 2; i.set_all(c, n);
        }, Note),
        case("lost cluster that points into a file", any, |i| {
            let c = i.free_cluster(); let a = i.chain(A); i.set_all(c, a[0]);
        }, Note),
        case("dirty in the table", flagged, |i| {
            let v = i.end_mark() & if i.is_fat32() { 0x07FF_FFFF } else { 0x7FFF }; i.set_all(1, v);
        }, Note),
        case("I/O errors in the table", flagged, |i| {
            let v = i.end_mark() & if i.is_fat32() { 0x0BFF_FFFF } else { 0xBFFF }; i.set_all(1, v);
        }, Damage),
        case("media byte of a floppy in the \
            table", any, |i| { let v = i.end_mark() & !0xFF | 0xF0; i.set_all(0, v); }, Clean),
        case("no media byte in the table", any, |i| i.set_all(0, 0), Damage),
        case("no media byte in the first copy", two, |i| i.set(0..1, 0, 0), Damage),
        // Sizes.
        case("longer than its chain", any, |i| i.set_size(UKI, 40_000 + 8192), Damage),
        case("shorter than its chain", any, |i| i.set_size(UKI, 1), Damage),
        case("no bytes, but a chain", any, |i| i.set_size(A, 0), Damage),
        case("bytes without a cluster", any, |i| i.set_first(A, 0), Damage),
        case("begins at cluster 1", any, |i| i.set_first(A, 1), Damage),
        case("begins past the end", any, |i| { let n = i.geometry.clusters + 2; i.set_first(A, n); }, Damage),
        case("begins in a free cluster", any, |i| { let c = i.free_cluster(); i.set_first(A, c); }, Damage),
        // Directories.
        case("directory with a size", any, |i| i.set_size("EMPTY", 512), Damage),
        case("directory without a cluster", any, |i| i.set_first("EMPTY", 0), Damage),
        case("`.` of another directory", any, |i| { let at = i.slot("EMPTY", 0); i.put(at + 26, &[2, 0]); }, Damage),
        case("`.` of no cluster", any, |i| { let at = i.slot("EMPTY", 0); i.put(at + 26, &[0, 0]); }, Leftover),
        case("`..` of another \
            directory", any, |i| { let at = i.slot("EFI/Linux", 1); i.put(at + 26, &[9, 0]); }, Damage),
        case("`..` of no cluster", any, |i| { let at = i.slot("EFI/Linux", 1); i.put(at + 26, &[0, 0]); }, Leftover),
        case("`..` to the root by its \
            cluster", fat32, |i| { let at = i.slot("EFI", 1); i.put(at + 26, &[2, 0]); }, Leftover),
        case("`.` renamed", any, |i| { let at = i.slot("EMPTY", 0); i.put(at, b"X"); }, Damage),
        case("`..` renamed", any, |i| { let at = i.slot("EMPTY", 1); i.put(at, b"XX"); }, Damage),
        case("`.` deleted", any, |i| { let at = i.slot("EMPTY", 0); i.put(at, &[0xE5]); }, Damage),
        case("`.` and `..` \
            deleted", any, |i| { for s in 0..2 { let at = i.slot("EMPTY", s); i.put(at, &[0xE5]); } }, Damage),
        case("empty directory without `.`", any, |i| { let at = i.slot("EMPTY", 0); i.put(at, &[0; 64]); }, Damage),
        case("`.` in the \
            root", any, |i| { let at = i.short(A); i.put(at, b".          \x10"); i.put(at + 26, &[0; 6]); }, Damage),
        case("`.` with a wrong attribute", any, |i| { let at = i.slot("EMPTY", 0); i.put(at + 11, &[0x20]); }, Damage),
        case("a directory in itself", any, |i| { let c = i.chain("EFI")[0]; i.set_first("EFI/Linux", c); }, Damage),
        case("two directories in each other", any, |i| {
            let (e, l) = (i.chain("EFI")[0], i.chain("EFI/Linux")[0]);
            i.set_first("EFI/Linux", e); i.set_first("EFI", l);
        }, Damage),
        case("a directory that is the root", fat32, |i| {
            let Root::Chain(root) = i.geometry.root else { unreachable!() }; i.set_first("EMPTY", root);
        }, Damage),
        case("two names of one directory", any, |i| { let c = i.chain("loader")[0]; i.set_first("EMPTY", c); }, Damage),
        case("a file marked as directory", any, |i| { let at = i.short(A); i.put(at + 11, &[0x10]); }, Damage),
        case("a directory marked as file", any, |i| { let at = i.short("loader"); i.put(at + 11, &[0x20]); }, Damage),
        case("directory chain in a loop", any, |i| { let c = i.chain("loader")[0]; i.set_all(c, c); }, Damage),
        case("directory chain into a free \
            cluster", any, |i| { let c = i.chain("loader")[0]; let f = i.free_cluster(); i.set_all(c, f); }, Damage),
        case("directory full of text", any, |i| { let at = i.slot("loader", 0); i.put(at, &[b'x'; 512]); }, Damage),
        // Names.
        case("long name without its short entry", any, |i| { let at = i.short(LONG); i.put(at, &[0xE5]); }, Leftover),
        case("long name's checksum wrong", any, |i| { let at = i.long(LONG); i.put(at + 13, &[0x99]); }, Leftover),
        case("long name's number wrong", any, |i| { let at = i.long(LONG); i.put(at, &[0x43]); }, Leftover),
        case("long name without its last part", any, |i| { let at = i.long(LONG); i.put(at, &[0x02]); }, Leftover),
        case("long name's first part deleted", any, |i| { let at = i.long(LONG); i.put(at, &[0xE5]); }, Leftover),
        case("short name twice", any, |i| { let at = i.short(B); i.put(at, b"A"); }, Damage),
        case("long name of no characters", any, |i| { let at = i.long(LONG) + 32; i.put(at + 1, &[0, 0]); }, Leftover),
        case("`*` in a short name", any, |i| { let at = i.short(B); i.put(at, b"*"); }, Damage),
        case("control character in a short name", any, |i| { let at = i.short(B); i.put(at, &[0x1F]); }, Damage),
        case("a short name begins with a space", any, |i| { let at = i.short(B); i.put(at, b" "); }, Damage),
        case("small letters in a short name", any, |i| { let at = i.short(B); i.put(at, b"b"); }, Clean),
        case("DEL in a short name", any, |i| { let at = i.short(B); i.put(at, &[0x7F]); }, Damage),
        case("a short name of non-ASCII \
            bytes", any, |i| { let at = i.short(B); i.put(at, &[0x05, 0x80, 0xFF]); }, Clean),
        case("NT flags for small letters", any, |i| { let at = i.short(B); i.put(at + 12, &[0x18]); }, Clean),
        case("no times", any, |i| { let at = i.short(B); i.put(at + 13, &[0; 7]); i.put(at + 22, &[0; 4]); }, Clean),
        case("volume label twice", any, |i| { let at = i.short("NOTHING.TXT"); i.put(at, b"EFI        \x08"); }, Clean),
        case("volume label in a \
            directory", any, |i| { let at = i.short("loader/loader.conf"); i.put(at + 11, &[0x08]); }, Damage),
        // FSInfo, boot sector.
        case("FSInfo \
            wrong", fsinfo, |i| { let at = i.geometry.fsinfo_offset.unwrap(); i.put(at + 488, &[7, 0, 0, 0]); }, Note),
        case("FSInfo \
            unknown", fsinfo, |i| { let at = i.geometry.fsinfo_offset.unwrap(); i.put(at + 488, &[0xFF; 4]); }, Note),
        case("FSInfo without \
            signature", fsinfo, |i| { let at = i.geometry.fsinfo_offset.unwrap(); i.put(at, &[0; 4]); }, Note),
        case("FSInfo without second \
            signature", fsinfo, |i| { let at = i.geometry.fsinfo_offset.unwrap(); i.put(at + 484, &[0; 4]); }, Note),
        case("FSInfo without end \
            signature", fsinfo, |i| { let at = i.geometry.fsinfo_offset.unwrap(); i.put(at + 510, &[0; 2]); }, Note),
        case("no FSInfo", fat32, |i| i.put(48, &[0; 2]), Damage),
        case("FSInfo outside", fat32, |i| i.put(48, &[0xF0; 2]), Damage),
        case("dirty in the boot \
            sector", any, |i| { let at = if i.is_fat32() { 65 } else { 37 }; i.put(at, &[1]); }, Note),
        case("I/O errors in the boot \
            sector", any, |i| { let at = if i.is_fat32() { 65 } else { 37 }; i.put(at, &[2]); }, Clean),
        case("boot sector and backup differ in the serial number", fat32, |i| i.put(67, &[0x55]), Note),
        case("boot sector and backup differ in the place of FSInfo", fat32, |i| i.put(48, &[2]), Damage),
        case("boot sector of a smaller volume", fat32, smaller, Damage),
        case("no backup boot sector", fat32, |i| i.put(50, &[0; 2]), Note),
        case("no sectors per cluster", small, |i| i.put(13, &[0]), Unreadable),
        case("no sectors per cluster", fat32, |i| i.put(13, &[0]), Damage),
        case("three sectors per cluster", small, |i| i.put(13, &[3]), Unreadable),
        case("three sectors per cluster", fat32, |i| i.put(13, &[3]), Damage),
        case("no bytes per sector", small, |i| i.put(11, &[0, 0]), Unreadable),
        case("no bytes per sector", fat32, |i| i.put(11, &[0, 0]), Damage),
        case("no reserved sectors", small, |i| i.put(14, &[0, 0]), Unreadable),
        case("no reserved sectors", fat32, |i| i.put(14, &[0, 0]), Damage),
        case("no tables", small, |i| i.put(16, &[0]), Unreadable),
        case("no tables", fat32, |i| i.put(16, &[0]), Damage),
        case("three tables", small, |i| i.put(16, &[3]), Unreadable),
        case("three tables", fat32, |i| i.put(16, &[3]), Damage),
        case("table of no sectors", small, |i| { i.put(22, &[0; 2]); i.put(36, &[0; 4]); }, Unreadable),
        case("table of no sectors", fat32, |i| { i.put(22, &[0; 2]); i.put(36, &[0; 4]); }, Damage),
        case("table too small", any, |i| { let at = if i.is_fat32() { 36 } else { 22 }; i.put(at, &[1, 0]); }, Damage),
        case("no sectors", small, |i| { i.put(19, &[0; 2]); i.put(32, &[0; 4]); }, Unreadable),
        case("no sectors", fat32, |i| { i.put(19, &[0; 2]); i.put(32, &[0; 4]); }, Damage),
        case("more sectors than there are", any, |i| {
            let n = (i.geometry.total_bytes / u64::from(i.geometry.sector_bytes)) as u32 + 64;
            i.put(19, &[0; 2]); i.put(32, &n.to_le_bytes());
        }, Damage),
        case("`..` of no cluster, and lost clusters", any, |i| {
            let at = i.slot("EFI/Linux", 1); i.put(at + 26, &[0, 0]);
            let c = i.free_cluster(); let e = i.end_mark(); i.set_all(c, e);
        }, Damage),

        case("no boot sector", small, |i| i.put(0, &[0; 512]), Unreadable),
        case("no boot sector", fat32, |i| i.put(0, &[0; 512]), Damage),
        case("noise for a boot sector", fat32, |i| i.put(0, &[0xA7; 512]), Damage),
        case("no boot sector, and no FSInfo", fat32, |i| {
            let at = i.geometry.fsinfo_offset.unwrap(); i.put(0, &[0; 512]); i.put(at, &[0; 4]);
        }, Unreadable),
        case("no boot sector, and another table", fat32, |i| { i.put(0, &[0; 512]); i.set_all(0, 0); }, Unreadable),
        case("no root entries", small, |i| i.put(17, &[0; 2]), Unreadable),
        case("root directory in cluster 0", fat32, |i| i.put(44, &[0; 4]), Damage),
        case("root directory in cluster 1", fat32, |i| i.put(44, &[1, 0, 0, 0]), Damage),
        case("root directory past the end", fat32, |i| i.put(44, &[0, 0, 0xFF, 0]), Damage),
        case("root directory in a free \
            cluster", fat32, |i| { let c = i.free_cluster(); i.put(44, &c.to_le_bytes()); }, Unreadable),
        case("root directory in a loop", fat32, |i| i.set_all(2, 2), Unreadable),
    ]
}

/// The boot sector speaks of a smaller volume. Nothing on it tells that the backup is right.
pub(super) fn smaller(image: &mut Image) {
    let n = (image.geometry.total_bytes / u64::from(image.geometry.sector_bytes)) as u32 - 64;
    image.put(19, &[0; 2]);
    image.put(32, &n.to_le_bytes());
}

/// The free count as it is, so that a case is about one thing.
pub(super) fn fix_fsinfo(image: &mut Image) {
    let Some(at) = image.geometry.fsinfo_offset else { return };
    let free = Volume::open(&image.bytes).unwrap().table().free_clusters();
    image.put(at + 488, &free.to_le_bytes());
}
