//! Advisory locks (`flock`) against a second program at the same file or disk.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// A lock on an open file, held for as long as this value lives.
///
/// It is given back by name. Closing the file is not enough: a child process that another thread has just forked has
/// the file open, too, until it starts its program, and would keep the lock that long.
#[derive(Debug)]
pub struct Lock {
    /// The same open file as the caller's: to the kernel, that is what holds the lock.
    file: File,
}

impl Lock {
    /// Takes the lock for this file alone; `None` when somebody else holds one.
    ///
    /// # Errors
    /// What the system says, for example of a file system without locks.
    pub fn exclusive(file: &File) -> io::Result<Option<Self>> {
        Self::take(file, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes a lock that others may share, and that keeps exclusive ones away; `None` when somebody holds one of those.
    ///
    /// # Errors
    /// As [`Self::exclusive`].
    pub fn shared(file: &File) -> io::Result<Option<Self>> {
        Self::take(file, FlockOperation::NonBlockingLockShared)
    }

    fn take(file: &File, how: FlockOperation) -> io::Result<Option<Self>> {
        let file = file.try_clone()?;
        match flock(&file, how) {
            Ok(()) => Ok(Some(Self { file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_value_even_where_the_file_is_open_elsewhere() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let first = named.as_file();
        let second = named.reopen().unwrap();
        // What a forked child has until it starts its program.
        let inherited = first.try_clone().unwrap();
        let lock = Lock::exclusive(first).unwrap().unwrap();
        assert!(Lock::exclusive(&second).unwrap().is_none());
        assert!(Lock::shared(&second).unwrap().is_none());
        drop(lock);
        let shared = Lock::shared(&second).unwrap().unwrap();
        assert!(Lock::exclusive(first).unwrap().is_none());
        let other = Lock::shared(first).unwrap();
        assert!(other.is_some());
        drop((shared, other, inherited));
        assert!(Lock::exclusive(first).unwrap().is_some());
    }
}
