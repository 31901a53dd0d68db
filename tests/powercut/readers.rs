//! Readers by other hands: the fatfs crate, `fsck.fat`, mtools. They are slow, so they see a sample of the states.

use crate::checker::Report;
use crate::frame::Frame;
use bootsurgeon::block::ReadAt;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};

/// How much of a damaged volume is read before giving up: the fatfs crate runs in circles on a cyclic directory.
const BUDGET: usize = 200_000;

struct Cursor<'a> {
    frame: &'a Frame,
    at: u64,
    reads: usize,
}

impl Read for Cursor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.reads > BUDGET {
            return Err(io::Error::other("read budget used up"));
        }
        let part = (self.frame.size().saturating_sub(self.at) as usize).min(buf.len());
        self.frame.read_exact_at(&mut buf[..part], self.at)?;
        self.at += part as u64;
        Ok(part)
    }
}

impl Write for Cursor<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.frame.size().checked_add_signed(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Every file and its bytes, as the fatfs crate reads them. It takes FAT32 only with 65,525 clusters or more.
pub fn by_fatfs(frame: &Frame) -> io::Result<BTreeMap<String, Vec<u8>>> {
    // Without `update_accessed_date` and with the volume never written, nothing is written back.
    let cursor = Cursor { frame, at: 0, reads: 0 };
    let volume = fatfs::FileSystem::new(cursor, fatfs::FsOptions::new())?;
    let mut files = BTreeMap::new();
    let mut pending = vec![(String::new(), volume.root_dir())];
    let mut budget = BUDGET;
    while let Some((prefix, directory)) = pending.pop() {
        for entry in directory.iter() {
            let entry = entry?;
            budget = budget.checked_sub(1).ok_or_else(|| io::Error::other("entry budget used up"))?;
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{prefix}{name}");
            if entry.is_dir() {
                pending.push((format!("{path}/"), entry.to_dir()));
            } else {
                let mut bytes = Vec::new();
                entry.to_file().take(entry.len()).read_to_end(&mut bytes)?;
                files.insert(path, bytes);
            }
        }
    }
    Ok(files)
}

/// What `fsck.fat -n` complains about; nothing for a clean volume. Its exit status alone does not tell: what it would
/// not repair, such as a wrong checksum of a long name, leaves it at 0.
pub fn by_fsck(frame: &Frame) -> io::Result<Vec<String>> {
    let file = tempfile::NamedTempFile::new()?;
    frame.write_sparse(file.as_file())?;
    let out = Command::new(fsck()).arg("-n").arg(file.path()).env("LC_ALL", "C").stdin(Stdio::null()).output();
    let out = out.map_err(|e| io::Error::other(format!("fsck.fat (package dosfstools) is needed: {e}")))?;
    let words = String::from_utf8_lossy(&out.stdout);
    let expected =
        |line: &str| line.starts_with("fsck.fat ") || (line.contains(" files, ") && line.ends_with(" clusters"));
    let mut complaints: Vec<String> = words.lines().filter(|l| !expected(l)).map(str::to_owned).collect();
    if !out.status.success() && complaints.is_empty() {
        complaints.push(format!("exit status {}: {}", out.status, String::from_utf8_lossy(&out.stderr)));
    }
    // A free count that says "unknown" (0xFFFFFFFF) is allowed (fatgen103, FSI_Free_Count).
    complaints.retain(|line| !line.starts_with("Free cluster summary uninitialized"));
    Ok(complaints)
}

fn fsck() -> &'static str {
    // Debian keeps it out of a user's PATH.
    if std::path::Path::new("/usr/sbin/fsck.fat").exists() { "/usr/sbin/fsck.fat" } else { "fsck.fat" }
}

/// One file's bytes as mtools reads them; `None` when it finds none. It takes FAT32 only with 65,525 clusters or more.
pub fn by_mtools(frame: &Frame, paths: &[&str]) -> io::Result<Vec<Option<Vec<u8>>>> {
    let file = tempfile::NamedTempFile::new()?;
    frame.write_sparse(file.as_file())?;
    let read = |path: &&str| {
        let out = Command::new("mcopy")
            .args(["-n", "-i"])
            .arg(file.path())
            .arg(format!("::/{path}"))
            .arg("-")
            .env("MTOOLS_SKIP_CHECK", "1")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| io::Error::other(format!("mcopy (package mtools) is needed: {e}")))?;
        Ok(out.status.success().then_some(out.stdout))
    };
    paths.iter().map(read).collect()
}

/// Every file and its bytes, as 7-Zip reads them: the one reader here that knows of FAT32 volumes of few clusters and
/// of those without mirroring.
pub fn by_seven_zip(frame: &Frame) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let (image, out) = (folder.path().join("image"), folder.path().join("out"));
    frame.write_sparse(&std::fs::File::create(&image)?)?;
    let run = Command::new("7z")
        .args(["x", "-y", "-tfat", "-bd"])
        .arg(format!("-o{}", out.display()))
        .arg(&image)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io::Error::other(format!("7z (package p7zip-full) is needed: {e}")))?;
    if !run.status.success() {
        let words = String::from_utf8_lossy(&run.stderr);
        return Err(io::Error::other(format!("7z: {}: {}", run.status, words.trim())));
    }
    let mut files = BTreeMap::new();
    let mut pending = vec![(String::new(), out)];
    while let Some((prefix, directory)) = pending.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                pending.push((format!("{name}/"), entry.path()));
            } else {
                files.insert(name, std::fs::read(entry.path())?);
            }
        }
    }
    Ok(files)
}

/// Compares our checker's report with what 7-Zip unpacks; the first difference.
pub fn seven_zip_disagrees(frame: &Frame, report: &Report) -> Option<String> {
    match by_seven_zip(frame) {
        Ok(files) => differ("7-Zip", &files, frame, report),
        Err(e) => Some(e.to_string()),
    }
}

/// Compares our checker's report with the fatfs crate's view; the first difference.
pub fn disagreement(frame: &Frame, report: &Report) -> Option<String> {
    let files = match by_fatfs(frame) {
        Ok(files) => files,
        Err(e) => return Some(format!("fatfs: {e}")),
    };
    differ("fatfs", &files, frame, report)
}

fn differ(who: &str, files: &BTreeMap<String, Vec<u8>>, frame: &Frame, report: &Report) -> Option<String> {
    let ours: Vec<_> = report.entries.iter().filter(|e| !e.is_directory()).collect();
    if ours.len() != files.len() {
        return Some(format!("{who} sees {} files, the checker {}", files.len(), ours.len()));
    }
    ours.iter().find_map(|e| {
        let content = files.get(&e.path).map(|b| crate::checker::Content::of(b, frame.sector_size()));
        (content != e.content).then(|| format!("{}: {who} reads {content:?}, the checker {:?}", e.path, e.content))
    })
}
