//! All members of an md RAID1 that is not assembled, named by the user, as one ESP.
//!
//! Only mirrors whose content begins where the member begins (metadata 0.90 and 1.0): firmware cannot start from
//! others. The superblocks are read and never written: at the next assembly md finds the members as in step with each
//! other as before, and does not notice what was changed on all of them alike.

use super::choice::EspChoice;
use super::md::Superblock;
use super::members;
use super::target::Opened;
use super::{SurgeryTarget, Target, busy};
use crate::block::{Extent, Mirror, ReadAt, WriteAt, first_difference};
use crate::units::{count, exact};
use crate::{Code, Error, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

impl Target {
    /// Finds the ESP on all members of a mirror. The first one is read for all of them.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] when these are not all members of one mirror, each once; [`Code::Layout`] when it is no
    /// mirror of which one member can be read like the whole; as [`Self::find`].
    pub fn find_members<'a>(paths: &[PathBuf], choice: impl Into<EspChoice<'a>>) -> Result<Self> {
        let choice = choice.into();
        for (n, path) in paths.iter().enumerate() {
            if let Some(other) = paths[..n].iter().find(|other| is_same(other, path)) {
                let what = format!("{} and {} are one and the same", other.display(), path.display());
                return Err(Error::usage(what).advise("name each member of the mirror once"));
            }
        }
        let mut found = Vec::new();
        for path in paths {
            found.push(Self::find(path, choice)?.cut_to_array()?);
        }
        let blocks: Vec<(&Path, &Superblock)> =
            found.iter().filter_map(|t| Some((t.path.as_path(), t.member.as_ref()?.md.as_ref()?))).collect();
        belong_together(&blocks)?;
        if let Some(odd) = found.iter().find(|t| t.esp_bytes() != found[0].esp_bytes()) {
            let what = format!(
                "the ESP has {} on {}, and {} on {}",
                exact(found[0].esp_bytes().unwrap_or_default()),
                found[0].path.display(),
                exact(odd.esp_bytes().unwrap_or_default()),
                odd.path.display()
            );
            return Err(Error::new(Code::MembersDiffer, what)
                .advise("assemble the array and have it checked: `echo check > /sys/block/mdN/md/sync_action`"));
        }
        let events: Vec<u64> = blocks.iter().map(|(_, md)| md.events).collect();
        let stale = events.iter().any(|n| *n != events[0]).then(|| {
            "the members have seen different numbers of events: at the next assembly md may leave one of them out, \
             and copy to it \
             what the others hold"
                .to_owned()
        });
        let mut members = found.into_iter();
        let Some(mut first) = members.next() else { return Err(Error::new(Code::Bug, "no member")) };
        // What was said of a member alone.
        let alone = first.member.as_ref().map(|member| member.refusal.why.clone()).unwrap_or_default();
        first.warnings.retain(|warning| !warning.starts_with(&alone));
        first.warnings.extend(stale);
        first.others = members.collect();
        Ok(first)
    }

    /// Another partition of the same disks, which has to be equal on all of them.
    pub(super) fn sibling_of_mirror(&self, choice: EspChoice<'_>) -> Result<Self> {
        let disk = |member: &Self| member.disk.clone().unwrap_or_else(|| member.path.clone());
        let sibling = Self::find_members(&self.members().map(disk).collect::<Vec<_>>(), choice)?;
        sibling.check_equal()?;
        Ok(sibling)
    }

    /// The ESP as far as the array reaches: behind its end stands the superblock.
    fn cut_to_array(mut self) -> Result<Self> {
        let path = self.path.display().to_string();
        let Some(md) = self.member.as_ref().and_then(|member| member.md.clone()) else {
            return Err(
                Error::usage(format!("{path} is not a member of an md array")).advise("give it as the DISK, alone")
            );
        };
        if md.level != 1 {
            let what = format!("{path} is a member of an array of RAID level {}, not a mirror", md.level);
            return Err(Error::new(Code::Layout, what).advise("assemble the array and give the md device"));
        }
        if md.data_offset != 0 || !matches!(md.metadata, "0.90" | "1.0") {
            let what = format!(
                "the content of the array begins at byte {} of {path} (metadata {}): no firmware finds an ESP there",
                md.data_offset, md.metadata
            );
            return Err(Error::new(Code::Layout, what).advise("assemble the array and give the md device"));
        }
        let offset = self.member.as_ref().map_or(0, |member| member.esp_offset);
        let room = md.content_bytes.saturating_sub(offset);
        let Some(bytes) = self.esp_bytes() else { return Ok(self) };
        if offset > 0 && bytes > room {
            let what = format!("the ESP of {path} reaches behind the end of the array");
            return Err(Error::new(Code::Layout, what).advise("assemble the array and look at its partition table"));
        }
        let begin = self.window.map_or(0, |window| window.offset);
        self.window = Some(Extent { offset: begin, bytes: bytes.min(room) });
        if let Some(esp) = &mut self.bounds.esp {
            esp.bytes = esp.bytes.min(room);
        }
        Ok(self)
    }

    /// The ESP's length in bytes, as far as it can be told without a look at the medium.
    fn esp_bytes(&self) -> Option<u64> {
        match self.window {
            Some(window) => Some(window.bytes),
            None => self.open().ok().map(|medium| medium.size()),
        }
    }

    /// What it is called in sentences: the disk, or all members of the mirror.
    #[must_use]
    pub fn in_words(&self) -> String {
        self.paths().iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
    }

    /// What the user named: the disk, or all members of a mirror.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        self.members().map(|member| member.path.as_path()).collect()
    }

    /// The members of the mirror, this one first; this alone where it is none.
    pub fn members(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.others)
    }

    /// The number of a member in its array; `None` where it is none.
    #[must_use]
    pub fn member_number(&self) -> Option<u32> {
        Some(self.member.as_ref()?.md.as_ref()?.number)
    }

    /// Makes sure that the ESP is the same, byte for byte, on all members.
    ///
    /// # Errors
    /// [`Code::MembersDiffer`] with the first byte that is not; what the media report.
    pub fn check_equal(&self) -> Result<()> {
        let ours = self.open()?;
        for other in &self.others {
            if let Some(at) = first_difference(&*ours, &*other.open()?)? {
                return Err(Error::new(
                    Code::MembersDiffer,
                    format!("{} and {} differ at byte {at} of the ESP", self.path.display(), other.path.display()),
                ));
            }
        }
        Ok(())
    }

    /// As [`Self::check_writable`], for each member.
    pub(super) fn check_members(&self) -> Result<()> {
        for member in self.members() {
            let nodes = [Some(member.node.as_path()), member.disk.as_deref()];
            if let Some((node, holder)) = nodes.into_iter().flatten().find_map(|n| Some((n, busy::assembled(n)?))) {
                return Err(members::assembled(node, &holder));
            }
            if let Some(refusal) = &member.refusal {
                return Err(refusal.error());
            }
        }
        Ok(())
    }

    /// Claims each member for this process and opens it for writing, alone.
    ///
    /// # Errors
    /// As [`Self::open_surgery`].
    pub fn open_each(&self) -> Result<Vec<SurgeryTarget>> {
        Ok(self.open_members()?.into_iter().map(SurgeryTarget::from).collect())
    }

    fn open_members(&self) -> Result<Vec<Opened>> {
        self.check_members()?;
        let mut opened = Vec::new();
        let mut locked = Vec::new();
        for member in self.members() {
            opened.push(member.open_alone(&locked)?);
            locked.extend(member.disk.as_deref());
        }
        Ok(opened)
    }

    /// Opens all members as one medium, after another look whether they are equal: now nobody else can write to them.
    pub(super) fn open_mirror(&self) -> Result<Opened> {
        let opened = self.open_members()?;
        self.check_equal()?;
        let mut locks = Vec::new();
        let mut media: Vec<(String, Box<dyn WriteAt>)> = Vec::new();
        for (member, target) in self.members().zip(opened) {
            media.push((member.path.display().to_string(), target.medium));
            locks.extend(target.locks);
        }
        Ok(Opened { medium: Box::new(Mirror::new(media)?), locks })
    }
}

/// Whether two paths lead to one file or device.
fn is_same(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some(if meta.file_type().is_block_device() { (0, meta.rdev()) } else { (meta.dev(), meta.ino()) })
    };
    identity(a).is_some_and(|a| identity(b) == Some(a))
}

/// Makes sure that these are all members of one mirror, each once.
fn belong_together(members: &[(&Path, &Superblock)]) -> Result<()> {
    let Some(((first, ours), others)) = members.split_first() else {
        return Err(Error::new(Code::Bug, "members without a superblock"));
    };
    for (n, (path, md)) in others.iter().enumerate() {
        let both = format!("{} and {}", first.display(), path.display());
        if md.uuid != ours.uuid || md.metadata != ours.metadata {
            let what = format!("{both} are members of different arrays: {} and {}", ours.uuid, md.uuid);
            return Err(Error::usage(what).advise("`mdadm --examine` says which members an array has"));
        }
        if md.content_bytes != ours.content_bytes {
            let what = format!(
                "{both} tell different lengths of the array: {} and {}",
                exact(ours.content_bytes),
                exact(md.content_bytes)
            );
            return Err(Error::new(Code::Layout, what).advise("assemble the array and give the md device"));
        }
        if let Some((twin, _)) = members[..=n].iter().find(|(_, other)| other.number == md.number) {
            let what = format!(
                "{} and {} are two copies of one member, number {} of the array",
                twin.display(),
                path.display(),
                md.number
            );
            return Err(Error::usage(what).advise("name each member of the mirror once"));
        }
    }
    let active = members.iter().map(|(_, md)| md.active).max().unwrap_or_default();
    if active as usize != members.len() {
        let what =
            format!("the mirror has {} in use, and --all-members names {}", count(active, "member"), members.len());
        return Err(Error::usage(what).advise(
            "name all members that are in use (`mdadm --examine` says how many there are), or assemble the array and \
             give the md device",
        ));
    }
    Ok(())
}
