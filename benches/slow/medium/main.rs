//! A slow medium: a file shown through FUSE, on which every read and write takes the time that its speed allows, one
//! after the other, and is counted. The kernel caches nothing of it (`FOPEN_DIRECT_IO`), so what is counted is what a
//! program asks for.
//!
//!     slow-medium FILE FOLDER
//!
//! shows it as FOLDER/medium.img until standard input ends, with these commands, a line each:
//!
//!     speed READ WRITE    from now on it has this speed, in bytes a second (0 0: as fast as it goes); nothing counted yet
//!     traffic             what went over it since
//!     reset               what was written is forgotten: it stays in memory, and FILE as it was
//!
//! Each is answered by a line of two numbers: the bytes read and written since `speed`.
#![allow(missing_docs)] // a program, not a library

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};
use std::collections::HashMap;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What is written is kept in blocks of this length, in bytes.
const BLOCK: usize = 4096;
/// The name of the file.
const NAME: &str = "medium.img";
/// How long the kernel may go by what it was told of the file: it does not change.
const TTL: Duration = Duration::from_secs(3600);
/// A pause between two requests that is no pause to a medium: its own buffer has the next one.
const QUEUE: Duration = Duration::from_millis(1);

/// Bytes a second.
#[derive(Debug, Clone, Copy)]
struct Speed {
    read: f64,
    write: f64,
}

/// What went over the medium, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    read: u64,
    written: u64,
}

struct State {
    below: File,
    bytes: u64,
    written: HashMap<u64, Box<[u8; BLOCK]>>,
    /// `None`: as fast as it goes.
    speed: Option<Speed>,
    busy_until: Instant,
    traffic: Traffic,
}

fn main() -> Result<(), Box<dyn Error>> {
    let [file, folder] = &std::env::args_os().skip(1).collect::<Vec<_>>()[..] else {
        return Err("usage: slow-medium FILE FOLDER".into());
    };
    let below = File::open(file)?;
    let bytes = below.metadata()?.len();
    let (written, traffic) = (HashMap::new(), Traffic::default());
    let state = State { below, bytes, written, speed: None, busy_until: Instant::now(), traffic };
    let shared = Arc::new(Mutex::new(state));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("slow".into()), MountOption::NoAtime];
    let session = fuser::spawn_mount(Shown(Arc::clone(&shared)), folder, &config)?;
    println!("shown");
    for line in std::io::stdin().lines() {
        let Traffic { read, written } = lock(&shared).obey(&line?)?;
        println!("{read} {written}");
    }
    session.umount_and_join()?;
    Ok(())
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Carries out a command from standard input.
    fn obey(&mut self, command: &str) -> Result<Traffic, Box<dyn Error>> {
        match command.split_whitespace().collect::<Vec<_>>()[..] {
            ["speed", read, write] => {
                let speed = Speed { read: read.parse()?, write: write.parse()? };
                self.speed = Some(speed).filter(|speed| speed.read > 0.0 && speed.write > 0.0);
                (self.traffic, self.busy_until) = (Traffic::default(), Instant::now());
            }
            ["traffic"] => {}
            ["reset"] => self.written.clear(),
            _ => return Err(format!("not a command: {command}").into()),
        }
        Ok(self.traffic)
    }

    fn read(&mut self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.below.read_exact_at(buf, offset)?;
        for (block, from, to) in blocks(offset, buf.len()) {
            if let Some(bytes) = self.written.get(&block) {
                let at = (block * BLOCK as u64 + from as u64 - offset) as usize;
                buf[at..at + to - from].copy_from_slice(&bytes[from..to]);
            }
        }
        Ok(())
    }

    fn write(&mut self, data: &[u8], offset: u64) -> std::io::Result<()> {
        for (block, from, to) in blocks(offset, data.len()) {
            let begin = block * BLOCK as u64;
            let at = (begin + from as u64 - offset) as usize;
            let bytes = match self.written.entry(block) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    let mut bytes = Box::new([0; BLOCK]);
                    if to - from < BLOCK {
                        let there = (self.bytes - begin).min(BLOCK as u64) as usize;
                        self.below.read_exact_at(&mut bytes[..there], begin)?;
                    }
                    entry.insert(bytes)
                }
            };
            bytes[from..to].copy_from_slice(&data[at..at + to - from]);
        }
        Ok(())
    }

    /// When a transfer that was asked for at `arrived` is through. What this program itself does for it goes on
    /// meanwhile.
    fn through(&mut self, arrived: Instant, bytes: usize, speed: impl Fn(Speed) -> f64) -> Instant {
        let Some(own) = self.speed else { return arrived };
        let begin = self.busy_until.max(arrived.checked_sub(QUEUE).unwrap_or(arrived));
        self.busy_until = begin + Duration::from_secs_f64(bytes as f64 / speed(own));
        self.busy_until
    }
}

/// The blocks of a range, and which bytes of each.
fn blocks(offset: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let (size, end) = (BLOCK as u64, offset + bytes as u64);
    (offset / size..end.div_ceil(size)).map(move |block| {
        let begin = block * size;
        (block, offset.saturating_sub(begin) as usize, (end - begin).min(size) as usize)
    })
}

/// The folder with the one file in it.
struct Shown(Arc<Mutex<State>>);

impl Shown {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, size, perm) = match u64::from(inode) {
            1 => (FileType::Directory, 0, 0o755),
            2 => (FileType::RegularFile, lock(&self.0).bytes, 0o644),
            _ => return None,
        };
        let time = SystemTime::UNIX_EPOCH;
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: BLOCK as u32,
            flags: 0,
        })
    }
}

fn wait_until(when: Instant) {
    if let Some(left) = when.checked_duration_since(Instant::now()) {
        std::thread::sleep(left);
    }
}

impl Filesystem for Shown {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // The largest that goes: a request costs this machine time that a medium does not take.
        if let Err(most) = config.set_max_write(1 << 20) {
            let _ = config.set_max_write(most);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(INodeNo(2)).filter(|_| parent == INodeNo::ROOT && name == NAME) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let arrived = Instant::now();
        let mut state = lock(&self.0);
        let bytes = state.bytes.saturating_sub(offset).min(u64::from(size)) as usize;
        let mut buf = vec![0; bytes];
        let outcome = state.read(&mut buf, offset);
        state.traffic.read += bytes as u64;
        let through = state.through(arrived, bytes, |speed| speed.read);
        drop(state);
        wait_until(through);
        match outcome {
            Ok(()) => reply.data(&buf),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let arrived = Instant::now();
        let mut state = lock(&self.0);
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > state.bytes) {
            return reply.error(Errno::ENOSPC);
        }
        let outcome = state.write(data, offset);
        state.traffic.written += data.len() as u64;
        let through = state.through(arrived, data.len(), |speed| speed.write);
        drop(state);
        wait_until(through);
        match outcome {
            Ok(()) => reply.written(data.len() as u32),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    /// Nothing is cached anywhere.
    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
