//! Anything under the name of an operation's record: never a panic, and where it is no record nothing changes.
//!
//! Input: one byte for what stands in front (0: nothing, 1: the line of a record with right lengths and checksum), the
//! rest is the record's body.
#![no_main]

use bootsurgeon::block::{Memory, ReadAt, read_vec};
use bootsurgeon::fat::{Editor, Volume};
use bootsurgeon::surgery::{INTENT_NAME, RecordState, interrupted, recover};
use bootsurgeon_fuzz::{STAMP, Width, volume};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

static VOLUMES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [volume(Width::Fat12), volume(Width::Fat32)]);

/// One part: the line that `docs/recovery.md` describes, and the body.
fn part(format: u8, body: &[u8]) -> Vec<u8> {
    let line = format!("BOOTSURGEON RECORD {format} 0.1.0 part 0001 of 0001 bytes {:06} sum ", body.len());
    let sum = Sha256::new().chain_update(&line).chain_update(body).finalize();
    let sum: String = sum[..16].iter().map(|b| format!("{b:02x}")).collect();
    [line.as_bytes(), sum.as_bytes(), b"\n", body].concat()
}

fuzz_target!(|data: &[u8]| {
    let [sort, body @ ..] = data else { return };
    let record = if sort & 1 == 0 { body.to_vec() } else { part(sort >> 1 & 3, &body[..body.len().min(400)]) };
    let medium = Memory::new(VOLUMES[usize::from(sort >> 3 & 1)].clone());
    let mut editor = Editor::open(&medium).expect("a volume");
    if editor.make_file("", INTENT_NAME, &record, STAMP).is_err() {
        return;
    }
    let _ = editor.write_fsinfo();
    let all = |medium: &Memory| read_vec(medium, 0, medium.size() as usize).expect("memory");
    let before = all(&medium);
    let volume = Volume::open(&medium).expect("a volume");
    let found = interrupted(&volume).expect("memory").expect("a file of that name");
    let _ = (found.to_string(), found.error().to_string());
    let state = found.state.clone();
    drop(volume);
    if recover(&medium).is_err() || !matches!(state, RecordState::Sound) {
        assert_eq!(all(&medium) == before, true, "{state:?}: written to");
    } else {
        assert!(Volume::open(&medium).is_ok_and(|v| v.find(INTENT_NAME).is_ok_and(|e| e.is_none())));
    }
});
