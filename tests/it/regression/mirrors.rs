//! Mirrors that are not assembled, of which all members are named.

use crate::cli::{ESP, bytes_at, copy, esp_bytes, patch, put, truncate, uki};
use crate::support::{Lab, fsck_clean, gpt_clean, run_ok, tools};
use crate::table::md_member;
use bootsurgeon::block::Extent;
use std::path::{Path, PathBuf};

const INSTALLER: &str = "v1.12.4-arm64-installer";
const PLAIN: &str = "v1.12.4-arm64-plain";

/// Two members of a mirror, and where the ESP is on each.
struct Legs {
    a: PathBuf,
    b: PathBuf,
    esp: [u64; 2],
    bytes: u64,
}

/// What is a member of the mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// A disk, with the partition table and the ESP in the array.
    Disk,
    /// The ESP, of which each disk has a table of its own, at another place.
    Partition,
    /// The ESP, as the image of a partition.
    Bare,
}

impl Legs {
    fn new(lab: &Lab, sort: Sort, metadata: &str) -> Self {
        let disk = lab.fixture_as("disk-512.img.zst", "single.img");
        let bytes = esp_bytes(&disk);
        let leg = |number: u32| {
            let name = lab.path(if number == 0 { "a.img" } else { "b.img" });
            let (offset, length) = match sort {
                Sort::Disk => {
                    copy(&disk, &name);
                    let length = disk.metadata().unwrap().len() + (1 << 20);
                    truncate(&name, length);
                    md_member(&name, Extent { offset: 0, bytes: length }, metadata, "boot", number);
                    return (name, ESP);
                }
                Sort::Partition => (u64::from(number + 1) << 20, bytes + (3 << 20)),
                Sort::Bare => (0, bytes),
            };
            std::fs::write(&name, []).unwrap();
            truncate(&name, length + (1 << 20));
            let place = Extent { offset, bytes: bytes + (1 << 20) };
            if sort == Sort::Partition {
                let (first, last) = (offset / 512, (offset + place.bytes) / 512 - 1);
                let partition = format!("1:{first}:{last}");
                run_ok("sgdisk", &["-n", &partition, "-t", "1:ef00", "-c", "1:EFI", &name.display().to_string()]);
            }
            patch(&name, offset, &bytes_at(&disk, ESP, bytes as usize));
            md_member(&name, place, metadata, "boot", number);
            (name, offset)
        };
        let ((a, at), (b, other)) = (leg(0), leg(1));
        Self { a, b, esp: [at, other], bytes }
    }

    fn both(&self) -> String {
        format!("{},{}", self.a.display(), self.b.display())
    }

    fn esps(&self) -> [Vec<u8>; 2] {
        [bytes_at(&self.a, self.esp[0], self.bytes as usize), bytes_at(&self.b, self.esp[1], self.bytes as usize)]
    }

    /// What lies around the ESP on each: tables, superblocks.
    fn around(&self) -> [Vec<u8>; 2] {
        let around = |path: &Path, at: u64| {
            let mut all = std::fs::read(path).unwrap();
            all[at as usize..(at + self.bytes) as usize].fill(0);
            all
        };
        [around(&self.a, self.esp[0]), around(&self.b, self.esp[1])]
    }

    #[track_caller]
    fn are_equal(&self) {
        let [a, b] = self.esps();
        assert!(a == b, "the members differ at byte {:?}", a.iter().zip(&b).position(|(a, b)| a != b));
        assert!(fsck_clean(&self.a, self.esp[0]) && fsck_clean(&self.b, self.esp[1]));
    }
}

/// What it wrote to standard output has these words.
#[track_caller]
fn says(ran: &crate::cli::Ran, words: &[&str]) {
    let said = &ran.out;
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

fn all_sorts() -> impl Iterator<Item = (Sort, &'static str)> {
    let sorts = [Sort::Disk, Sort::Partition, Sort::Bare];
    sorts.into_iter().flat_map(|sort| ["1.0", "0.90"].map(|metadata| (sort, metadata)))
}

#[test]
fn issue14_2_all_members_of_a_mirror_are_written() {
    if !tools(&["sgdisk", "mcopy", "fsck.vfat"]) {
        return;
    }
    for (sort, metadata) in all_sorts() {
        let lab = Lab::new();
        let legs = Legs::new(&lab, sort, metadata);
        let image = uki(&lab, INSTALLER);
        let (before, around) = (legs.esps(), legs.around());

        let plan = bootsurgeon!("swap", "--all-members", legs.both(), image, "--dry-run", "--json").code(0).json();
        assert_eq!(legs.esps(), before, "{sort:?}: a dry run wrote");
        assert_eq!(plan["members"], serde_json::json!([legs.a, legs.b]), "{plan:#}");
        let done = bootsurgeon!("swap", "--all-members", legs.both(), image, "--yes", "--json").code(0).json();
        assert_eq!(done["committed"], true, "{done:#}");
        assert!(legs.esps() != before, "{sort:?} {metadata}: nothing was written");
        legs.are_equal();
        for (path, esp) in [(&legs.a, legs.esp[0]), (&legs.b, legs.esp[1])] {
            let target = done["plan"]["target"].as_str().unwrap();
            let held = crate::support::mtools_read(path, esp, &format!("EFI/Linux/{target}"));
            assert_eq!(held, std::fs::read(&image).ok(), "{sort:?} {metadata} {}", path.display());
        }
        // Once more: nothing to do, and no member was asked twice.
        says(&bootsurgeon!("swap", "--all-members", legs.both(), image, "--yes").code(0), &["Nothing to do"]);
        says(&bootsurgeon!("restore", "--all-members", legs.both(), "--yes").code(0), &["on each of", "a.img"]);
        legs.are_equal();
        bootsurgeon!("prune", "--all-members", legs.both(), "--delete", "--keep-backups", "0", "--yes").code(0);
        legs.are_equal();
        says(
            &bootsurgeon!("recover", "--all-members", legs.both(), "--yes").code(0),
            &["Nothing to do", "all members"],
        );
        assert!(legs.around() == around, "{sort:?} {metadata}: a write beside the ESP");
        if sort == Sort::Partition {
            assert!(gpt_clean(&legs.a) && gpt_clean(&legs.b));
        }
    }
}

#[test]
fn issue14_2_the_refusal_of_one_member_recommends_a_command_that_works() {
    if !tools(&["sgdisk", "mcopy", "fsck.vfat"]) {
        return;
    }
    for (sort, metadata) in all_sorts() {
        let lab = Lab::new();
        let legs = Legs::new(&lab, sort, metadata);
        let image = uki(&lab, INSTALLER);
        let before = legs.esps();
        for how in ["--dry-run", "--yes"] {
            let words = ["a member of the md array", "--all-members A,B in place of the disk"];
            bootsurgeon!("swap", legs.a, image, how).fails(4, &words);
        }
        assert_eq!(legs.esps(), before);
        // As it says, A and B filled in.
        bootsurgeon!("swap", "--all-members", legs.both(), image, "--yes").code(0);
        legs.are_equal();
    }
}

#[test]
fn issue14_2_what_is_no_mirror_is_refused() {
    if !tools(&["sgdisk", "mcopy", "fsck.vfat"]) {
        return;
    }
    let lab = Lab::new();
    let legs = Legs::new(&lab, Sort::Disk, "1.0");
    let image = uki(&lab, INSTALLER);
    let before = legs.esps();
    let swap = |members: String, code: i32, words: &[&str]| {
        for how in ["--dry-run", "--yes"] {
            bootsurgeon!("swap", "--all-members", members, image, how).fails(code, words);
            bootsurgeon!("recover", "--all-members", members, how).fails(code, words);
        }
    };
    let (a, b) = (legs.a.display().to_string(), legs.b.display().to_string());
    let link = lab.path("link.img");
    std::fs::hard_link(&legs.a, &link).unwrap();
    swap(a.clone(), 2, &["names one member"]);
    swap(format!("{a},{a}"), 2, &["one and the same"]);
    swap(format!("{a},{}", link.display()), 2, &["one and the same"]);
    swap(format!("{a},{}", copy(&legs.a, &lab.path("twin.img")).display()), 2, &["two copies of one member"]);
    swap(format!("{a},{}", lab.path("single.img").display()), 2, &["not a member of an md array"]);
    swap(format!("{a},{}", lab.path("none.img").display()), 1, &["No such file"]);

    let length = legs.a.metadata().unwrap().len();
    let other = copy(&legs.b, &lab.path("other.img"));
    md_member(&other, Extent { offset: 0, bytes: length }, "1.0", "other", 1);
    swap(format!("{a},{}", other.display()), 2, &["different arrays"]);
    // As many as the superblocks say, each with its own number.
    let third = copy(&legs.b, &lab.path("third.img"));
    md_member(&third, Extent { offset: 0, bytes: length }, "1.0", "boot", 2);
    swap(format!("{a},{b},{}", third.display()), 2, &["2 members in use, and --all-members names 3"]);
    let longer = copy(&legs.b, &lab.path("longer.img"));
    patch(&longer, (length / 512 - 16) / 8 * 8 * 512, &[0; 4096]);
    truncate(&longer, length + (1 << 20));
    md_member(&longer, Extent { offset: 0, bytes: length + (1 << 20) }, "1.0", "boot", 1);
    swap(format!("{a},{}", longer.display()), 4, &["different lengths"]);
    let striped = [(&legs.a, "s.img"), (&legs.b, "t.img")].map(|(leg, name)| {
        let leg = copy(leg, &lab.path(name));
        patch(&leg, (length / 512 - 16) / 8 * 8 * 512 + 72, &[0]);
        leg.display().to_string()
    });
    swap(striped.join(","), 4, &["RAID level 0"]);

    let both = legs.both();
    bootsurgeon!("swap", "--all-members", both, image, "--out", lab.path("out.img")).fails(2, &["--out makes a copy"]);
    bootsurgeon!("swap", "--all-members", both).fails(2, &["no IMAGE"]);
    bootsurgeon!("prune", a, "--all-members", both).fails(2, &["one argument too many"]);
    bootsurgeon!("swap", a, image, "--all-members", both).fails(2, &["one argument too many"]);
    bootsurgeon!("recover", "--all-members", both, "--truth", image).fails(2, &["not one of the members"]);
    assert_eq!(legs.esps(), before);
}

#[test]
fn issue14_2_members_that_differ_are_refused_with_the_place_and_the_way() {
    if !tools(&["sgdisk", "mcopy", "fsck.vfat"]) {
        return;
    }
    for (sort, metadata) in all_sorts() {
        let lab = Lab::new();
        let legs = Legs::new(&lab, sort, metadata);
        let image = uki(&lab, INSTALLER);
        // In the last cluster, which no file uses: what a swap leaves that was cut while it wrote the image.
        let place = legs.bytes - 512;
        patch(&legs.b, legs.esp[1] + place, b"half an image");
        for how in ["--dry-run", "--yes"] {
            let words = [&*format!("differ at byte {place}"), "recover --all-members"];
            let error = bootsurgeon!("swap", "--all-members", legs.both(), image, how, "--json").code(4).json();
            assert_eq!(error["error"]["code"], "members-differ", "{error:#}");
            bootsurgeon!("swap", "--all-members", legs.both(), image, how).fails(4, &words);
            bootsurgeon!("prune", "--all-members", legs.both(), how).fails(4, &words);
        }
        says(&bootsurgeon!("recover", "--all-members", legs.both(), "--dry-run").code(0), &["would make"]);
        says(&bootsurgeon!("recover", "--all-members", legs.both(), "--yes").code(0), &["made"]);
        legs.are_equal();
        bootsurgeon!("swap", "--all-members", legs.both(), image, "--yes").code(0);
        legs.are_equal();
    }
}

#[test]
fn issue14_2_a_member_that_somebody_else_has_written_is_not_overwritten_unasked() {
    if !tools(&["sgdisk", "mcopy", "fsck.vfat"]) {
        return;
    }
    let lab = Lab::new();
    let legs = Legs::new(&lab, Sort::Disk, "1.0");
    put(&legs.b, legs.esp[1], "EFI/Linux/Talos-v1.14.0.efi", &std::fs::read(uki(&lab, PLAIN)).unwrap());
    let before = legs.esps();
    for how in ["--dry-run", "--yes"] {
        let words = ["differ in more than an interrupted operation explains", "Talos-v1.14.0.efi", "--truth"];
        let error = bootsurgeon!("recover", "--all-members", legs.both(), how, "--json").code(4).json();
        assert_eq!(error["error"]["code"], "members-differ", "{error:#}");
        assert_eq!(error["error"]["esp_changed"], false, "{error:#}");
        bootsurgeon!("recover", "--all-members", legs.both(), how).fails(4, &words);
    }
    assert_eq!(legs.esps(), before);
    // Either of the commands that it names.
    for truth in [&legs.b, &legs.a] {
        let wanted = usize::from(*truth == legs.b);
        patch(&legs.a, legs.esp[0], &before[0]);
        patch(&legs.b, legs.esp[1], &before[1]);
        let report =
            bootsurgeon!("recover", "--all-members", legs.both(), "--truth", truth, "--yes", "--json").code(0).json();
        assert_eq!(report["truth"], truth.display().to_string(), "{report:#}");
        legs.are_equal();
        let name = crate::support::mtools_read(&legs.a, ESP, "EFI/Linux/Talos-v1.14.0.efi");
        assert_eq!(name.is_some(), wanted == 1);
    }
}

/// A superblock of metadata 1.2 has the content behind it: nothing starts from such a member by itself.
#[test]
fn issue14_2_members_with_their_content_elsewhere_are_refused() {
    let lab = Lab::new();
    let [a, b] = [0, 1].map(|number| {
        let disk = lab.fixture_as("disk-512.img.zst", if number == 0 { "a.img" } else { "b.img" });
        md_member(&disk, Extent { offset: ESP, bytes: esp_bytes(&disk) }, "1.2", "esp", number);
        disk.display().to_string()
    });
    let words = ["begins at byte 1048576", "metadata 1.2", "assemble the array"];
    bootsurgeon!("swap", "--all-members", format!("{a},{b}"), uki(&lab, INSTALLER), "--yes").fails(4, &words);
}
