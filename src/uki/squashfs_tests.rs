use super::*;
use proptest::prelude::*;

impl Bytes for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn bytes(&self, at: u64, len: usize) -> Option<&[u8]> {
        let at = usize::try_from(at).ok()?;
        self.get(at..at.checked_add(len)?)
    }
}

const FOLDER: [&str; 4] = ["usr", "local", "etc", "containers"];
const TEXT: &[u8] = b"name: tailscale\ndepends:\n  - configuration: true\n";

/// A metadata block.
fn meta(coding: Coding, data: &[u8]) -> Vec<u8> {
    let packed = pack(coding, data);
    [&(packed.len() as u16).to_le_bytes()[..], &packed].concat()
}

fn pack(coding: Coding, data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    match coding {
        Coding::Zstd => zstd::bulk::compress(data, 3).unwrap(),
        Coding::Xz => {
            let mut e = liblzma::write::XzEncoder::new(Vec::new(), 0);
            e.write_all(data).unwrap();
            e.finish().unwrap()
        }
        Coding::Gzip => {
            let mut e = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(data).unwrap();
            e.finish().unwrap()
        }
    }
}

fn words(list: &[(u64, usize)]) -> Vec<u8> {
    list.iter().flat_map(|(value, bytes)| value.to_le_bytes()[..*bytes].to_vec()).collect()
}

/// An image with the folders above and one file of this content, in a fragment or in blocks of its own.
fn image(coding: Coding, content: &[u8], fragment: bool) -> Vec<u8> {
    let block_bytes = 4096;
    let mut image = vec![0; 96];
    let data_at = image.len() as u64;
    let mut sizes = Vec::new();
    let parts: Vec<&[u8]> = if fragment { vec![content] } else { content.chunks(block_bytes).collect() };
    for part in parts {
        let packed = pack(coding, part);
        sizes.push((packed.len() as u64, 4));
        image.extend(packed);
    }
    let inode = |kind: u64, n: usize| words(&[(kind, 2), (0o755, 2), (0, 2), (0, 2), (0, 4), (n as u64, 4)]);
    // The file comes first, then each folder behind what it holds; folders list one name each.
    let (mut inodes, mut lists) = (inode(2, 1), Vec::new());
    let place = if fragment { [(0, 4), (0, 4), (0, 4)] } else { [(data_at, 4), (0xFFFF_FFFF, 4), (0, 4)] };
    inodes.extend(words(&place));
    inodes.extend(words(&[(content.len() as u64, 4)]));
    if !fragment {
        inodes.extend(words(&sizes));
    }
    let (mut child, mut kind) = (0, 2);
    for (n, name) in ["tailscale.yaml"].into_iter().chain(FOLDER.into_iter().rev()).enumerate() {
        let at = lists.len() as u64;
        lists.extend(words(&[(0, 4), (0, 4), (n as u64 + 1, 4)]));
        lists.extend(words(&[(child, 2), (0, 2), (kind, 2), (name.len() as u64 - 1, 2)]));
        lists.extend(name.as_bytes());
        (child, kind) = (inodes.len() as u64, 1);
        inodes.extend(inode(1, n + 2));
        inodes.extend(words(&[(0, 4), (2, 4), (lists.len() as u64 - at + 3, 2), (at, 2), (0, 4)]));
    }
    let inodes_at = image.len() as u64;
    image.extend(meta(coding, &inodes));
    let lists_at = image.len() as u64;
    image.extend(meta(coding, &lists));
    let fragment_block = image.len() as u64;
    image.extend(meta(coding, &words(&[(data_at, 8), (sizes[0].0, 4), (0, 4)])));
    let fragments_at = image.len() as u64;
    image.extend(fragment_block.to_le_bytes());
    let owners = image.len() as u64;
    image.extend(meta(coding, &[0; 4]));
    let owners_at = image.len() as u64;
    image.extend(owners.to_le_bytes());
    let used = image.len() as u64;

    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"hsqs");
    put(12, &(block_bytes as u32).to_le_bytes());
    put(16, &1u32.to_le_bytes());
    let number: u16 = match coding {
        Coding::Gzip => 1,
        Coding::Xz => 4,
        Coding::Zstd => 6,
    };
    put(20, &number.to_le_bytes());
    put(22, &12u16.to_le_bytes());
    put(26, &1u16.to_le_bytes());
    put(28, &[4, 0, 0, 0]);
    put(32, &child.to_le_bytes());
    put(40, &used.to_le_bytes());
    put(48, &owners_at.to_le_bytes());
    put(56, &[0xFF; 8]);
    put(88, &[0xFF; 8]);
    put(64, &inodes_at.to_le_bytes());
    put(72, &lists_at.to_le_bytes());
    put(80, &fragments_at.to_le_bytes());
    image
}

fn read(image: &Vec<u8>, budget: &mut u32) -> Result<Vec<(String, Vec<u8>)>> {
    Squashfs::open(image, budget)?.read_dir(&FOLDER, ".yaml", 4, 20_000)
}

#[test]
fn a_file_is_read_in_every_coding_from_fragments_and_blocks() {
    for coding in [Coding::Zstd, Coding::Xz, Coding::Gzip] {
        let long: Vec<u8> = (0..10_000u32).map(|i| (i * i >> 3) as u8).collect();
        for (content, fragment) in [(TEXT, true), (TEXT, false), (&long[..], false)] {
            let found = read(&image(coding, content, fragment), &mut 100).unwrap();
            assert_eq!(found, [("tailscale.yaml".to_owned(), content.to_vec())], "{coding:?}");
        }
    }
}

#[test]
fn folders_that_are_not_there_are_empty_and_limits_hold() {
    let image = image(Coding::Zstd, TEXT, true);
    let mut budget = 100;
    let mut fs = Squashfs::open(&image, &mut budget).unwrap();
    assert_eq!(fs.read_dir(&["usr", "lib"], ".yaml", 4, 4096).unwrap(), []);
    assert_eq!(fs.read_dir(&FOLDER, ".toml", 4, 4096).unwrap(), []);
    // A file where a folder should be.
    assert_eq!(fs.read_dir(&["usr", "local", "etc", "containers", "tailscale.yaml"], "", 4, 4096).unwrap(), []);
    for (files, bytes, why) in [(0, 4096, "1 files in usr/local/etc/containers"), (4, 3, "a file of 49 bytes")] {
        assert_eq!(fs.read_dir(&FOLDER, ".yaml", files, bytes), Err(SquashfsError::Unread(why.to_owned())));
    }
    assert!(
        matches!(read(&image, &mut 3), Err(SquashfsError::Unread(why)) if why.starts_with("more blocks to unpack"))
    );
}

#[test]
fn what_is_no_image_is_named() {
    let good = image(Coding::Zstd, TEXT, true);
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        read(&bad, &mut 100).unwrap_err()
    };
    let damaged = |why: &str| SquashfsError::Damaged(why.to_owned());
    assert_eq!(with(0, 0), damaged("it is not a squashfs image"));
    assert_eq!(
        with(20, 3),
        SquashfsError::Unread(
            "it is compressed with lzo, which this program does not \
     unpack"
                .into()
        )
    );
    assert_eq!(with(20, 7), damaged("its compression is number 7, which does not exist"));
    assert_eq!(with(28, 3), damaged("it is of squashfs version 3.0, and Linux mounts 4.0"));
    assert_eq!(with(13, 0x11), damaged("its squashfs blocks have 4352 bytes (2^12)"));
    assert_eq!(with(22, 13), damaged("its squashfs blocks have 4096 bytes (2^13)"));
    assert_eq!(with(26, 0), damaged("its table of owners is empty"));
    assert_eq!(read(&good[..50].to_vec(), &mut 100), Err(damaged("it is too short for a squashfs image")));
}

#[test]
fn an_image_that_is_cut_or_points_outside_itself_is_damaged() {
    let good = image(Coding::Zstd, TEXT, true);
    // Padding behind it belongs to nobody.
    let padded = [&good[..], &[0; 4096]].concat();
    assert!(read(&padded, &mut 100).is_ok());
    for end in 0..good.len() {
        let cut = read(&good[..end].to_vec(), &mut 100).unwrap_err();
        assert!(
            matches!(&cut, SquashfsError::Damaged(why) if why.contains("is truncated") || why.contains("too short")),
            "{end}: {cut:?}"
        );
    }
    for field in [32, 48, 56, 64, 72, 80, 88] {
        for place in [good.len() as u64, 1 << 40, u64::MAX - 1, 0] {
            if (field, place) == (32, 0) || (field, place) == (32, good.len() as u64) {
                continue; // another inode, perhaps
            }
            let mut bad = padded.clone();
            bad[field..field + 8].copy_from_slice(&place.to_le_bytes());
            let fault = read(&bad, &mut 100).unwrap_err();
            assert!(matches!(fault, SquashfsError::Damaged(_)), "{field} {place}: {fault:?}");
        }
    }
    // What an inode points to.
    let mut bad = image(Coding::Zstd, &[9; 3000], false);
    let used = bad.len() as u64;
    bad[40..48].copy_from_slice(&97u64.to_le_bytes());
    assert!(matches!(read(&bad, &mut 100), Err(SquashfsError::Damaged(_))), "{used}");
}

#[test]
fn an_image_of_mksquashfs_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(FOLDER.join("/"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("tailscale.yaml"), TEXT).unwrap();
    std::fs::write(folder.join("notes.txt"), "x").unwrap();
    // More files than one block of directory entries or of inodes has room for.
    for i in 0..1500 {
        std::fs::write(folder.join(format!("{i}-{}", "long".repeat(20))), i.to_string()).unwrap();
    }
    for coding in ["zstd", "xz", "gzip"] {
        let image = dir.path().join(coding);
        let made = std::process::Command::new("mksquashfs")
            .args([dir.path().join("usr").as_os_str(), image.as_os_str()])
            .args(["-keep-as-directory", "-comp", coding, "-noappend", "-all-root", "-quiet", "-no-progress"])
            .output();
        let Ok(made) = made else {
            return crate::testkit::skipped::skip("tool missing: mksquashfs");
        };
        assert!(made.status.success(), "{made:?}");
        let found = read(&std::fs::read(&image).unwrap(), &mut 200).unwrap();
        assert_eq!(found, [("tailscale.yaml".to_owned(), TEXT.to_vec())], "{coding}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn damage_never_panics(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        plain in any::<bool>(),
    ) {
        let mut bad = image(Coding::Zstd, TEXT, true);
        for (at, value) in flips {
            let at = at.index(if plain { 96 } else { bad.len() });
            bad[at] = value;
        }
        let mut budget = 1000;
        let _ = read(&bad, &mut budget);
    }
}
