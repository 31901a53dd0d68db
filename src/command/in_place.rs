//! The image that is in place already.

use super::Ui;
use super::examine::examine;
use crate::authenticode::{DigestSink, Hash, parse_table};
use crate::block::{ReadAt, Sink as _, fan_out, read_vec};
use crate::esp::{Inventory, Place};
use crate::pe::Head;
use crate::verify::ImageSummary;
use crate::{Result, uki};

/// The image in its own place, or the file of the menu that has this name.
pub(super) fn open_target<'e, S: ReadAt>(
    esp: &'e Inventory<S>,
    place: Option<&'e Place>,
    target: &str,
) -> Result<Option<Box<dyn ReadAt + 'e>>> {
    match (place, esp.file(target)) {
        (Some(place), _) => esp.open_at(&place.at),
        (None, Some(file)) => Ok(Some(Box::new(esp.volume.file(&file.entry)?))),
        (None, None) => Ok(None),
    }
}

/// What an image is that was in place already: it was compared, and not looked into.
pub(super) fn summary_of<S: ReadAt>(
    esp: &Inventory<S>,
    place: Option<&Place>,
    target: &str,
    ui: &dyn Ui,
) -> Result<Option<ImageSummary>> {
    let Some(bytes) = open_target(esp, place, target)? else { return Ok(None) };
    Ok(Some(ImageSummary::of(&examine(&bytes, &[], &mut [], ui)?.facts)))
}

/// So much is compared at once, in bytes.
const COMPARED_AT_ONCE: u64 = 1 << 20;

/// So much of an image's beginning is compared where the rest of it is not read, in bytes: more than any headers take.
const COMPARED_HEADERS: u64 = 64 << 10;

/// The hash of two sources of one length, if they are equal. Neither is read further than to the first difference.
pub(super) fn hash_if_equal(installed: &dyn ReadAt, image: &dyn ReadAt) -> Result<Option<String>> {
    let (bytes, mut at, mut hash) = (image.size(), 0, uki::Sha256Sink::new());
    while at < bytes {
        let part = (bytes - at).min(COMPARED_AT_ONCE) as usize;
        let ours = read_vec(image, at, part)?;
        if read_vec(installed, at, part)? != ours {
            return Ok(None);
        }
        hash.chunk(&ours)?;
        at += part as u64;
    }
    Ok(Some(hex::encode(hash.finish())))
}

/// The installed image's hash, if a remote image of the same length is the same, without transferring it: the same
/// headers, the same certificate table, and the installed bytes are the ones its signatures were made for. A signature
/// covers every byte but those two.
pub(super) fn same_by_signature(installed: &dyn ReadAt, remote: &dyn ReadAt) -> Result<Option<String>> {
    let (Ok(old), new) = (Head::read(installed), Head::read(remote)?) else { return Ok(None) };
    let Some(table) = new.certificate_table.filter(|t| t.bytes <= 1 << 20) else { return Ok(None) };
    let headers = installed.size().min(remote.size()).min(COMPARED_HEADERS) as usize;
    if read_vec(installed, 0, headers)? != read_vec(remote, 0, headers)? {
        return Ok(None);
    }
    let raw = read_vec(remote, table.offset, table.bytes as usize)?;
    if read_vec(installed, table.offset, table.bytes as usize)? != raw {
        return Ok(None);
    }
    let (Ok(mut digest), Ok(signatures)) = (DigestSink::new(&old), parse_table(&raw)) else { return Ok(None) };
    let mut hash = uki::Sha256Sink::new();
    fan_out(installed, 0, installed.size(), &mut [&mut digest, &mut hash])?;
    let digest = digest.finish()?;
    let signed = digest.gap_bytes == 0
        && signatures.first().is_some_and(|s| s.digest_hash == Some(Hash::Sha256) && s.digest == digest.sha256);
    Ok(signed.then(|| hex::encode(hash.finish())))
}
