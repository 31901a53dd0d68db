//! Boot options as they stand in `Boot####` (UEFI specification 2.10, 3.1.3).

/// What a Hard Drive node says of a partition.
pub(crate) struct HardDrive<'a> {
    pub(crate) number: u32,
    /// In sectors; 0 in the short form that most tools write.
    pub(crate) start: u64,
    pub(crate) sectors: u64,
    pub(crate) partuuid: &'a str,
}

/// An EFI_LOAD_OPTION: a partition and a file on it or none, or a file alone, and LoadOptions.
pub(crate) fn load_option(attributes: u32, drive: Option<&HardDrive<'_>>, file: &str, optional: &str) -> Vec<u8> {
    let node =
        |kind: u8, sub: u8, data: &[u8]| [&[kind, sub][..], &(data.len() as u16 + 4).to_le_bytes(), data].concat();
    let drive = drive.map_or_else(Vec::new, |drive| {
        let guid = uuid::Uuid::parse_str(drive.partuuid).unwrap().to_bytes_le();
        let place = [drive.start.to_le_bytes(), drive.sectors.to_le_bytes()].concat();
        node(4, 1, &[&drive.number.to_le_bytes()[..], &place, &guid, &[2, 2]].concat())
    });
    let file = match file {
        "" => Vec::new(),
        file => node(4, 4, &utf16(&format!("\\{}", file.replace('/', "\\")))),
    };
    let path = [drive, file, node(0x7F, 0xFF, &[])].concat();
    let optional = if optional.is_empty() { Vec::new() } else { utf16(optional) };
    let head = [&attributes.to_le_bytes()[..], &(path.len() as u16).to_le_bytes(), &utf16("option")].concat();
    [head, path, optional].concat()
}

pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}
