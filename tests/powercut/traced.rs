//! mtools under the cuts: its writes are taken from the system calls that `strace` sees, sector by sector.

use crate::frame::{Frame, sector};
use crate::recorder::IoEvent;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs mtools commands on an image of `frame` and gives their writes in program order, one event for each sector.
/// In arguments `NEW` stands for a file of the bytes `new`.
pub fn record(frame: &Frame, new: &[u8], commands: &[&[&str]]) -> io::Result<Vec<IoEvent>> {
    let folder = tempfile::tempdir()?;
    let (image, source) = (folder.path().join("image"), folder.path().join("new"));
    frame.write_sparse(&std::fs::File::create(&image)?)?;
    std::fs::write(&source, new)?;
    let (mut now, mut events) = (frame.clone(), Vec::new());
    for command in commands {
        let trace = folder.path().join("trace");
        let [program, arguments @ ..] = command else { continue };
        let out = Command::new("strace")
            .args(["-xx", "-s", "100000000", "-e", "trace=openat,lseek,read,write", "-o"])
            .arg(&trace)
            .args([program, "-i"])
            .arg(&image)
            .args(arguments.iter().map(|a| if *a == "NEW" { source.as_os_str() } else { a.as_ref() }))
            .env("MTOOLS_SKIP_CHECK", "1")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| io::Error::other(format!("strace is needed: {e}")))?;
        if !out.status.success() {
            return Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr))));
        }
        replay(&std::fs::read_to_string(&trace)?, &image, &mut now, &mut events)?;
    }
    let written = std::fs::read(&image)?;
    if written != now.to_bytes() {
        return Err(io::Error::other("the traced writes do not make up the image"));
    }
    Ok(events)
}

fn replay(trace: &str, image: &Path, now: &mut Frame, events: &mut Vec<IoEvent>) -> io::Result<()> {
    let path: String = image.to_string_lossy().bytes().map(|b| format!("\\x{b:02x}")).collect();
    let (mut descriptor, mut at) = (None, 0);
    for line in trace.lines() {
        let Some((call, result)) = line.rsplit_once(" = ") else { continue };
        let Ok(result) = result.trim().parse::<u64>() else { continue };
        let Some((name, arguments)) = call.split_once('(') else { continue };
        let first = arguments.split(',').next().and_then(|d| d.parse::<u64>().ok());
        match name {
            "openat" if arguments.contains(&path) => (descriptor, at) = (Some(result), 0),
            "lseek" if first.is_some() && first == descriptor => at = result,
            "read" if first.is_some() && first == descriptor => at += result,
            "write" if first.is_some() && first == descriptor => {
                let bytes = arguments.split('"').nth(1).and_then(unescape).filter(|b| b.len() as u64 == result);
                let bytes = bytes.ok_or_else(|| io::Error::other("a write that strace did not print in full"))?;
                write(now, at, &bytes, events)?;
                at += result;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The bytes of `\x00\x01…`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    text.as_bytes()
        .chunks(4)
        .map(|c| u8::from_str_radix(std::str::from_utf8(c).ok()?.strip_prefix("\\x")?, 16).ok())
        .collect()
}

fn write(now: &mut Frame, at: u64, bytes: &[u8], events: &mut Vec<IoEvent>) -> io::Result<()> {
    let unit = now.sector_size();
    if !at.is_multiple_of(unit as u64) || !bytes.len().is_multiple_of(unit) {
        return Err(io::Error::other("a write of other than whole sectors"));
    }
    for (i, part) in bytes.chunks(unit).enumerate() {
        let (n, data) = (at / unit as u64 + i as u64, sector(part));
        let before = now.set(n, data.clone());
        events.push(IoEvent::Write { sector: n, data, before });
    }
    Ok(())
}
