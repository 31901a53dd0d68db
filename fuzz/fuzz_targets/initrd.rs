//! cpio archives in any packing, `extensions.yaml` in them.
#![no_main]

use bootsurgeon::Result;
use bootsurgeon::uki::{Extensions, ArchiveFile, Members, read_initrd};
use libfuzzer_sys::fuzz_target;

/// Counts what it is given and holds it against what was announced.
#[derive(Default)]
struct Everything {
    announced: u64,
    given: u64,
}

impl Members for Everything {
    fn wants(&mut self, member: &ArchiveFile) -> bool {
        assert!(!member.name.split('/').any(|part| matches!(part, "" | ".")) || member.name.is_empty());
        self.announced += member.bytes;
        true
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.given += bytes.len() as u64;
        assert!(self.given <= self.announced, "more data than announced");
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut members = Everything::default();
    if let Ok(initrd) = read_initrd(data, &mut members) {
        assert_eq!(members.given, members.announced, "a member was cut short");
        if let Some(Ok(extensions)) = initrd.extensions_yaml.as_deref().map(Extensions::parse) {
            let _ = (extensions.images().count(), extensions.schematic.is_some_and(|s| s.id_matches() == Some(true)));
        }
    }
    if let Ok(extensions) = Extensions::parse(data) {
        let _ = extensions.images().count();
    }
});
