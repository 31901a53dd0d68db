//! Files and directories on volumes this program makes itself: the demonstration's disk, and tests. Not for a user's
//! ESP: there [`crate::surgery`] writes, behind its plans and records.

use crate::fat::{Attributes, Content, Editor, Stamp, empty_directory};
use crate::{Error, Result};

impl Editor<'_> {
    /// Makes a directory and those above it, where they are missing.
    ///
    /// # Errors
    /// As [`Editor::create`].
    pub fn make_directories(&mut self, path: &str, stamp: Stamp) -> Result<()> {
        let mut parent = String::new();
        for name in path.split('/').filter(|c| !c.is_empty()) {
            let here = self.directory(&parent)?;
            if here.find(name).is_none() {
                let above = here.runs.first().map_or(0, |r| if parent.is_empty() { 0 } else { r.first });
                self.make_directory(&parent, name, above, stamp)?;
            }
            parent = if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
        }
        Ok(())
    }

    fn make_directory(&mut self, parent: &str, name: &str, above: u32, stamp: Stamp) -> Result<()> {
        let runs = self.reserve(1)?;
        let Some(own) = runs.first().map(|r| r.first) else { return Err(Error::refused("no free cluster")) };
        let cluster = empty_directory(own, above, stamp, self.geometry().cluster_bytes as usize);
        self.write_data(&runs, 0, &cluster)?;
        self.link(&runs)?;
        self.create(parent, name, Attributes::DIRECTORY, Content::new(own, 0, stamp), None)?;
        Ok(())
    }

    /// Makes a file with this content. The directory exists, the file does not.
    ///
    /// # Errors
    /// As [`Editor::create`].
    pub fn make_file(&mut self, directory: &str, name: &str, bytes: &[u8], stamp: Stamp) -> Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| Error::usage("a file of 4 GiB or more"))?;
        let runs = self.reserve(self.geometry().clusters_for(u64::from(len)) as u32)?;
        self.write_data(&runs, 0, bytes)?;
        self.link(&runs)?;
        let first = runs.first().map_or(0, |r| r.first);
        self.create(directory, name, Attributes::ARCHIVE, Content::new(first, len, stamp), None)?;
        Ok(())
    }
}
