//! What is written is read back from the medium before anything refers to it: whole at the end, or piece by piece while
//! the rest arrives. A medium that lies about any sector of it, at any time, is found out.

use bootsurgeon::block::{Cached, Memory, ReadAt, Sink, WriteAt, read_vec};
use bootsurgeon::fat::{Editor, Geometry, Stamp, Volume};
use bootsurgeon::surgery::{LINUX_DIR, Order, Staged, Staging, open_healthy};
use bootsurgeon::{Code, Result};
use sha2::{Digest, Sha256};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const STAMP: Stamp = Stamp(1_771_000_000);
const SECTOR: u64 = 512;
/// Length of a piece, in bytes, and of the image: nine pieces, the last one shorter.
const PIECE: u64 = 4096;
const IMAGE: usize = 8 * PIECE as usize + 1300;

fn image() -> Vec<u8> {
    (0..IMAGE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn esp() -> Vec<u8> {
    let mut raw = io::Cursor::new(vec![0; 1 << 20]);
    // Clusters as long as what is remembered at once: none of the image is beside something else.
    let options = fatfs::FormatVolumeOptions::new().bytes_per_cluster(PIECE as u32).volume_label(*b"EFI        ");
    fatfs::format_volume(&mut raw, options).unwrap();
    let medium = Memory::new(raw.into_inner());
    let mut editor = Editor::open(&medium).unwrap();
    editor.make_directories(LINUX_DIR, STAMP).unwrap();
    editor.make_file(LINUX_DIR, "Talos-v1.12.4.efi", &[7; 3000], STAMP).unwrap();
    editor.write_fsinfo().unwrap();
    medium.into_bytes()
}

/// How a medium lies.
#[derive(Debug, Clone, Copy)]
enum Lie {
    None,
    /// This write is reported as done, and its first sector in `.1` stays as it was.
    Forgets(u64),
    /// This sector has another bit when it is read from the medium.
    Flips(u64),
    /// What is written to the second of these places shows at the first one, too: less room than it says.
    Wraps(u64, u64),
}

/// A medium with a cache in front of it: what was written reads as it was written until the caches are dropped.
struct Liar {
    cache: Memory,
    medium: Memory,
    lie: Lie,
    read: AtomicU64,
    dropped: AtomicU64,
    dirty: Mutex<Vec<(u64, usize)>>,
}

impl Liar {
    fn new(bytes: Vec<u8>, lie: Lie) -> Self {
        let (cache, medium) = (Memory::new(bytes.clone()), Memory::new(bytes));
        let zero = || AtomicU64::new(0);
        Self { cache, medium, lie, read: zero(), dropped: zero(), dirty: Mutex::default() }
    }
}

impl ReadAt for Liar {
    fn size(&self) -> u64 {
        self.medium.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.cache.read_exact_at(buf, offset)
    }
}

impl WriteAt for Liar {
    fn sector_size(&self) -> u32 {
        SECTOR as u32
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.dirty.lock().unwrap().push((offset, buf.len()));
        self.cache.write_all_at(buf, offset)
    }

    /// The cache goes to the medium, which does with it what it likes.
    fn barrier(&self) -> io::Result<()> {
        for (offset, bytes) in std::mem::take(&mut *self.dirty.lock().unwrap()) {
            for at in (offset..offset + bytes as u64).step_by(SECTOR as usize) {
                let mut sector = read_vec(&self.cache, at, SECTOR as usize)?;
                match self.lie {
                    Lie::Forgets(lost) if lost == at => continue,
                    Lie::Flips(flipped) if flipped == at => sector[100] ^= 4,
                    Lie::Wraps(early, late) if late == at => self.medium.write_all_at(&sector, early)?,
                    _ => {}
                }
                self.medium.write_all_at(&sector, at)?;
            }
        }
        Ok(())
    }

    fn drop_caches(&self) -> io::Result<()> {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        let dirty = self.dirty.lock().unwrap();
        assert!(dirty.is_empty(), "caches are dropped behind a barrier");
        self.cache.write_all_at(&read_vec(&self.medium, 0, self.medium.size() as usize)?, 0)
    }
}

fn stage(medium: &dyn WriteAt, piece: Option<u64>) -> Result<Staged<'_>> {
    let image = image();
    let mut staging = Staging::begin(open_healthy(medium)?, image.len() as u64)?;
    if let Some(piece) = piece {
        staging = staging.in_pieces(piece);
    }
    for chunk in image.chunks(2048) {
        staging.chunk(chunk)?;
    }
    staging.seal(Sha256::digest(&image).into())
}

/// Where the image's sectors are on the volume.
fn sectors() -> Vec<u64> {
    let medium = Liar::new(esp(), Lie::None);
    let staged = stage(&medium, None).unwrap();
    let extents = staged.image().unwrap().extents().to_vec();
    extents.iter().flat_map(|e| (e.offset..e.offset + e.bytes).step_by(SECTOR as usize)).collect()
}

#[test]
fn issue20_1_a_medium_that_lies_about_one_sector_of_any_piece_is_found_out() {
    let sectors = sectors();
    assert_eq!(sectors.len(), IMAGE.div_ceil(SECTOR as usize));
    for piece in [None, Some(PIECE), Some(2048), Some(3 * PIECE), Some(1 << 20)] {
        assert!(stage(&Liar::new(esp(), Lie::None), piece).is_ok(), "an honest medium");
        for at in &sectors {
            for lie in [Lie::Forgets(*at), Lie::Flips(*at)] {
                let medium = Liar::new(esp(), lie);
                let e = stage(&medium, piece).err().unwrap_or_else(|| panic!("{lie:?} in pieces of {piece:?}"));
                assert!(e.to_string().contains("does not give back what was written"), "{e}");
                assert_eq!(e.kind(), bootsurgeon::Kind::Io);
            }
        }
    }
}

#[test]
fn issue20_1_a_medium_with_less_room_than_it_says_is_found_out() {
    let (sectors, per_piece) = (sectors(), (PIECE / SECTOR) as usize);
    for early in (0..sectors.len() - per_piece).step_by(per_piece) {
        for late in (early + per_piece..sectors.len()).step_by(per_piece) {
            for piece in [None, Some(PIECE)] {
                let medium = Liar::new(esp(), Lie::Wraps(sectors[early], sectors[late]));
                assert!(stage(&medium, piece).is_err(), "{early} is overwritten by {late}, in pieces of {piece:?}");
            }
        }
    }
}

/// What is put where the table or a directory was is found before anything is committed, although that was read before
/// and is remembered: behind the commit the board would start from what is left of it.
#[test]
fn issue20_3_a_medium_that_puts_the_image_over_the_volume_itself_is_found_out() {
    let order = Order {
        command: "swap".to_owned(),
        time: 1_771_000_001,
        directory: LINUX_DIR.to_owned(),
        before: Vec::new(),
        target: "Talos-v1.12.4.efi".to_owned(),
        backup: Some("Talos-v1.12.4.efi.bak.1771000001".to_owned()),
        directories: Vec::new(),
        set: Vec::new(),
        after: Vec::new(),
    };
    let geometry = Geometry::read(&Memory::new(esp())).unwrap();
    let linux = Volume::open(Memory::new(esp())).unwrap().find_directory(LINUX_DIR).unwrap().unwrap();
    let places = [0, geometry.fat_copy_offset(0), geometry.cluster_offset(linux.runs[0].first)];
    for (place, late) in places.into_iter().flat_map(|place| sectors().into_iter().map(move |late| (place, late))) {
        for piece in [None, Some(PIECE)] {
            let medium = Cached::new(Liar::new(esp(), Lie::Wraps(place, late)));
            let staged = stage(&medium, piece).unwrap();
            let e = staged.commit(&order).err().unwrap_or_else(|| panic!("{place} is overwritten by {late}"));
            assert_eq!(e.code(), Code::Medium, "{e}");
        }
    }
    let honest = Cached::new(Liar::new(esp(), Lie::None));
    stage(&honest, None).unwrap().commit(&order).unwrap();
}

#[test]
fn issue20_1_the_image_is_read_back_once() {
    let once = IMAGE as u64;
    for (piece, times) in [(None, 1), (Some(PIECE), 9)] {
        let medium = Liar::new(esp(), Lie::None);
        let begun = {
            let _ = open_healthy(&medium).unwrap();
            medium.read.swap(0, Ordering::Relaxed)
        };
        let staged = stage(&medium, piece).unwrap();
        let read = medium.read.load(Ordering::Relaxed) - begun;
        assert!((once..once + 10 * 4096 + 4096).contains(&read), "{read} bytes for an image of {once}");
        assert!(medium.dropped.load(Ordering::Relaxed) >= times, "past the caches, each time");
        drop(staged);
    }
}

/// What came while it was read back is not looked at again; what somebody else has done meanwhile is.
#[test]
fn issue20_1_a_change_after_the_read_back_is_refused() {
    let sectors = sectors();
    for piece in [None, Some(PIECE)] {
        let medium = Liar::new(esp(), Lie::None);
        let staged = stage(&medium, piece).unwrap();
        staged.refuse_changed().unwrap();
        medium.medium.write_all_at(&[0x55; 512], sectors[20]).unwrap();
        assert_eq!(staged.refuse_changed().unwrap_err().code(), Code::Unsafe);
    }
}
