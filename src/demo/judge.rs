//! What became of the disk, by other readers than the surgeon's own: the fatfs crate, plain bytes, and `fsck.fat`.

use crate::block::Extent;
use crate::testkit::media::Portion;
use crate::{Context, Error, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes looked at in one piece; partitions begin and end on such a boundary.
const BLOCK: usize = 4096;

/// Every file of a FAT volume inside a disk image, by path, as the fatfs crate reads it. The image is opened read-only.
pub(super) fn files(disk: &Path, esp: Extent) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = || -> Result<_> {
        let file = File::open(disk)?;
        let volume = fatfs::FileSystem::new(Portion::new(&file, esp.offset, esp.bytes), fatfs::FsOptions::new())?;
        let mut all = BTreeMap::new();
        let mut directories = vec![(String::new(), volume.root_dir())];
        while let Some((path, directory)) = directories.pop() {
            for entry in directory.iter() {
                let entry = entry?;
                let name = entry.file_name();
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                if entry.is_file() {
                    let mut content = Vec::new();
                    entry.to_file().read_to_end(&mut content)?;
                    all.insert(path, content);
                } else if name != "." && name != ".." {
                    directories.push((path, entry.to_dir()));
                }
            }
        }
        Ok(all)
    };
    read().while_doing(|| format!("reading {} with fatfs", disk.display()))
}

/// SHA-256 over what is on a disk image outside `except`. Holes and zeros are the same.
pub(super) fn fingerprint(disk: &Path, except: Option<Extent>) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    blocks(disk, |at, block| {
        if !except.is_some_and(|e| at >= e.offset && at < e.offset + e.bytes) {
            hash.update(at.to_le_bytes());
            hash.update(block);
        }
        Ok(())
    })?;
    Ok(hash.finalize().into())
}

/// What `fsck.fat -n` said.
pub(super) struct FsckVerdict {
    /// As typed.
    pub(super) command: String,
    /// Its exit code; 0 for a file system without faults.
    pub(super) exit_code: u8,
    /// What it printed.
    pub(super) output: String,
}

/// Asks `fsck.fat` about a copy of the ESP. `None` where it is not installed.
pub(super) fn fsck(disk: &Path, esp: Extent, copy: &Path) -> Result<Option<FsckVerdict>> {
    // Debian has it outside the PATH of ordinary users.
    let tools = ["fsck.fat", "/usr/sbin/fsck.fat", "/sbin/fsck.fat"].map(PathBuf::from);
    for tool in tools {
        if !tool.is_absolute() && !in_path(&tool) || tool.is_absolute() && !tool.exists() {
            continue;
        }
        let to = File::create(copy).while_doing(|| format!("copying the ESP to {}", copy.display()))?;
        to.set_len(esp.bytes)?;
        blocks(disk, |at, block| match at.checked_sub(esp.offset).filter(|at| *at < esp.bytes) {
            Some(at) => Ok(to.write_all_at(block, at)?),
            None => Ok(()),
        })?;
        let output = Command::new(&tool).arg("-n").arg(copy).output().while_doing(|| "running fsck.fat")?;
        return Ok(Some(FsckVerdict {
            command: format!("{} -n {}", tool.display(), super::word(&copy.display().to_string())),
            exit_code: output.status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(u8::MAX),
            output: String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        }));
    }
    Ok(None)
}

fn in_path(tool: &Path) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()))
}

/// Every block of a file that holds more than zeros, in order. Holes are skipped, not read.
fn blocks(path: &Path, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let file = File::open(path).while_doing(|| format!("opening {}", path.display()))?;
    let size = file.metadata()?.len();
    let mut buf = vec![0; 256 * BLOCK];
    let mut at = 0;
    while at < size {
        // Where a file system knows no holes, all is data.
        at = match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data / BLOCK as u64 * BLOCK as u64,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(rustix::io::Errno::INVAL) => at,
            Err(e) => return Err(Error::from(std::io::Error::from(e))),
        };
        let n = usize::try_from(size - at).unwrap_or(usize::MAX).min(buf.len());
        let part = &mut buf[..n];
        file.read_exact_at(part, at)?;
        for (i, block) in part.chunks(BLOCK).enumerate() {
            if block.iter().any(|b| *b != 0) {
                each(at + (i * BLOCK) as u64, block)?;
            }
        }
        at += n as u64;
    }
    Ok(())
}
