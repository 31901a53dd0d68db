//! A file on a FAT volume gets a new content so that a power cut at any moment leaves the old one or the new one:
//! `cargo run --example exchange_on_fat -- FAT.img`. The volume is read into memory, and the file is left alone.
//!
//! The order of writes is what makes it safe, and [`Editor`] leaves it to its caller: what a sector refers to is
//! written, and behind a barrier, before the sector that refers to it. One write of one sector exchanges the two
//! contents.

use bootsurgeon::block::{Memory, read_vec};
use bootsurgeon::fat::{Attributes, Content, Editor, Health, Stamp, Volume};
use bootsurgeon::{Error, Result};

const STAMP: Stamp = Stamp(1_771_000_000);

/// Gives `name` in `directory` the content `new`; the old content is `backup` afterwards.
fn exchange(medium: &Memory, directory: &str, name: &str, backup: &str, new: &[u8]) -> Result<()> {
    let mut editor = Editor::open(medium)?;
    let find = |editor: &Editor<'_>, name: &str| {
        let found = editor.directory(directory)?.find(name).cloned();
        found.ok_or_else(|| Error::usage(format!("there is no {name} in {directory}")))
    };
    let old = find(&editor, name)?;

    // The new content, in clusters that nothing refers to.
    let bytes = u32::try_from(new.len()).map_err(|_| Error::usage("4 GiB or more"))?;
    let clusters = editor.geometry().clusters_for(u64::from(bytes)) as u32;
    let runs = editor.reserve(clusters)?;
    editor.write_data(&runs, 0, new)?;
    editor.barrier()?;
    // The chain, then a name for it in the very sector of the old name.
    editor.link(&runs)?;
    editor.barrier()?;
    let first = runs.first().map_or(0, |run| run.first);
    let content = Content::new(first, bytes, STAMP);
    if !editor.create(directory, backup, Attributes::ARCHIVE, content, Some(old.short_slot()))? {
        return Err(Error::refused("the directory's sector has no room: see how `surgery` goes about that"));
    }
    editor.barrier()?;
    // One sector write: from here on the name has the new content, and the backup the old one.
    editor.exchange(directory, &old, &find(&editor, backup)?)?;
    editor.barrier()?;
    editor.write_fsinfo()?;
    editor.barrier()
}

fn main() -> Result<()> {
    let Some(image) = std::env::args_os().nth(1) else {
        return Err(Error::usage("which FAT image?"));
    };
    let medium = Memory::new(std::fs::read(image)?);
    let (directory, name) = ("EFI/Linux", "Talos-v1.12.4.efi");
    let new = vec![7; 300_000];
    exchange(&medium, directory, name, "before.bak", &new)?;

    let volume = Volume::open(&medium)?;
    let file = volume.find(&format!("{directory}/{name}"))?.ok_or_else(|| Error::io("the file is gone"))?;
    let there = read_vec(&volume.file(&file)?, 0, file.bytes as usize)?;
    let healthy = Health::check(&volume)?.is_healthy();
    println!("{name} has {} bytes now, the new ones: {}; healthy: {healthy}", there.len(), there == new);
    if there == new && healthy { Ok(()) } else { Err(Error::io("this should not be")) }
}
