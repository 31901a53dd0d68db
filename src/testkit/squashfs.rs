//! Small squashfs images that Linux mounts: what extensions and root file systems of stand-in images are made of.
//!
//! Nothing in them is compressed, and the tables must fit one metadata block each, which is plenty for a few files.
//! Format: Linux `Documentation/filesystems/squashfs.rst`, version 4.0.

use std::collections::BTreeMap;
use std::io;

const SUPERBLOCK: usize = 96;
const BLOCK: usize = 128 * 1024;
/// Bit 24 of a block's size: it is stored as it is. Bit 15 in the header of a metadata block.
const STORED: u32 = 1 << 24;
const METADATA_STORED: u16 = 1 << 15;
const METADATA: usize = 8192;
const NONE: u64 = u64::MAX;
/// Inodes, data and fragments are not compressed, there are no fragments and no attributes.
const FLAGS: u16 = 0x0001 | 0x0002 | 0x0008 | 0x0010 | 0x0200;
/// The compression that the superblock has to name: zstd.
const ZSTD: u16 = 6;

/// A directory of the tree, or a file.
enum Node<'a> {
    Directory(BTreeMap<&'a str, Self>),
    File(&'a [u8]),
}

/// An image with these files, by path (`usr/local/etc/containers/tailscale.yaml`), and the directories that they need;
/// padded to 4 KiB, as mksquashfs does.
///
/// # Errors
/// When the tables would not fit, or a path goes through a file.
pub fn image(files: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let mut root = BTreeMap::new();
    for (path, content) in files {
        insert(&mut root, path, content)?;
    }
    let mut writer = Writer { image: vec![0; SUPERBLOCK], inodes: Vec::new(), lists: Vec::new(), count: 0 };
    let (root, _) = writer.directory(&root)?;
    writer.finish(root)
}

fn insert<'a>(directory: &mut BTreeMap<&'a str, Node<'a>>, path: &'a str, content: &'a [u8]) -> io::Result<()> {
    let Some((first, rest)) = path.split_once('/') else {
        directory.insert(path, Node::File(content));
        return Ok(());
    };
    match directory.entry(first).or_insert_with(|| Node::Directory(BTreeMap::new())) {
        Node::Directory(below) => insert(below, rest, content),
        Node::File(_) => Err(io::Error::other(format!("{first} is a file"))),
    }
}

struct Writer {
    image: Vec<u8>,
    inodes: Vec<u8>,
    lists: Vec<u8>,
    count: u32,
}

/// Where an inode is in its table, and its number.
type Place = (u16, u32);

impl Writer {
    fn directory(&mut self, entries: &BTreeMap<&str, Node<'_>>) -> io::Result<Place> {
        // What a directory lists comes before it.
        let mut listed = Vec::new();
        for (name, node) in entries {
            let (place, kind) = match node {
                Node::Directory(below) => (self.directory(below)?, 1u16),
                Node::File(content) => (self.file(content), 2),
            };
            listed.push((*name, place, kind));
        }
        let at = self.lists.len();
        if let Some((_, (_, first), _)) = listed.first() {
            let first = *first;
            for word in [listed.len() as u32 - 1, 0, first] {
                self.lists.extend(word.to_le_bytes());
            }
            for (name, (offset, number), kind) in &listed {
                let delta = (*number as i32 - first as i32) as i16;
                self.lists.extend(offset.to_le_bytes());
                self.lists.extend(delta.to_le_bytes());
                self.lists.extend(kind.to_le_bytes());
                self.lists.extend((name.len() as u16 - 1).to_le_bytes());
                self.lists.extend(name.as_bytes());
            }
        }
        let bytes = self.lists.len() - at + 3;
        let place = self.inode(1, 0o755);
        let links = 2 + listed.iter().filter(|(_, _, kind)| *kind == 1).count() as u32;
        self.inodes.extend(0u32.to_le_bytes());
        self.inodes.extend(links.to_le_bytes());
        self.inodes.extend((bytes as u16).to_le_bytes());
        self.inodes.extend((at as u16).to_le_bytes());
        // The parent's number is not known yet, and nobody needs it: `..` is the kernel's own.
        self.inodes.extend(0u32.to_le_bytes());
        Ok(place)
    }

    fn file(&mut self, content: &[u8]) -> Place {
        let start = self.image.len() as u32;
        let place = self.inode(2, 0o644);
        for word in [start, u32::MAX, 0, content.len() as u32] {
            self.inodes.extend(word.to_le_bytes());
        }
        for block in content.chunks(BLOCK) {
            self.inodes.extend((block.len() as u32 | STORED).to_le_bytes());
            self.image.extend(block);
        }
        place
    }

    /// The head that all inodes share.
    fn inode(&mut self, kind: u16, mode: u16) -> Place {
        self.count += 1;
        let place = (self.inodes.len() as u16, self.count);
        for half in [kind, mode, 0, 0] {
            self.inodes.extend(half.to_le_bytes());
        }
        self.inodes.extend(0u32.to_le_bytes());
        self.inodes.extend(self.count.to_le_bytes());
        place
    }

    fn finish(mut self, root: u16) -> io::Result<Vec<u8>> {
        if self.inodes.len() > METADATA || self.lists.len() > METADATA {
            return Err(io::Error::other("too many files for one metadata block"));
        }
        let inodes_at = self.image.len() as u64;
        metadata(&mut self.image, &self.inodes);
        let lists_at = self.image.len() as u64;
        if !self.lists.is_empty() {
            metadata(&mut self.image, &self.lists);
        }
        let owners = self.image.len() as u64;
        metadata(&mut self.image, &[0; 4]);
        let owners_at = self.image.len() as u64;
        self.image.extend(owners.to_le_bytes());
        let used = self.image.len() as u64;

        let mut head = b"hsqs".to_vec();
        for word in [self.count, 0, BLOCK as u32, 0] {
            head.extend(word.to_le_bytes());
        }
        for half in [ZSTD, BLOCK.ilog2() as u16, FLAGS, 1, 4, 0] {
            head.extend(half.to_le_bytes());
        }
        for place in [u64::from(root), used, owners_at, NONE, inodes_at, lists_at, NONE, NONE] {
            head.extend(place.to_le_bytes());
        }
        self.image[..SUPERBLOCK].copy_from_slice(&head);
        self.image.resize(self.image.len().next_multiple_of(4096), 0);
        Ok(self.image)
    }
}

fn metadata(image: &mut Vec<u8>, data: &[u8]) {
    image.extend((data.len() as u16 | METADATA_STORED).to_le_bytes());
    image.extend(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_tool_of_others_reads_it() {
        let large: Vec<u8> = (0..300_000u32).map(|i| (i * 7 >> 3) as u8).collect();
        let files: [(&str, &[u8]); 4] = [
            ("usr/local/etc/a.yaml", b"name: a\n"),
            ("usr/local/bin/tool", &large),
            ("etc/os-release", b"ID=x\n"),
            ("z", b""),
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, image(&files).unwrap()).unwrap();
        let out = dir.path().join("out");
        let Ok(ran) = Command::new("unsquashfs").args(["-no-xattrs", "-d"]).args([&out, &path]).output() else {
            crate::testkit::skipped::skip("tool missing: unsquashfs");
            return;
        };
        assert!(ran.status.success(), "{ran:?}");
        for (name, content) in files {
            assert_eq!(std::fs::read(out.join(name)).unwrap(), content, "{name}");
        }
        assert!(image(&[]).is_ok());
        assert!(image(&[("a", b""), ("a/b", b"")]).is_err());
    }
}
