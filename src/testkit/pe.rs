//! Small PE images for tests.

/// Size of the headers that [`pe`] makes, and the alignment of its sections, in bytes.
pub(crate) const HEADERS: usize = 1024;
const ALIGN: usize = 512;

/// A section for [`pe`]: name, data, and bytes of nothing before it.
pub(crate) type SectionBytes<'a> = (&'a str, &'a [u8], usize);

/// A PE32+ image for arm64 with these sections, each padded to 512 bytes in the file, in table order.
pub(crate) fn pe(sections: &[SectionBytes<'_>]) -> Vec<u8> {
    let mut b = vec![0; HEADERS];
    let put = |b: &mut Vec<u8>, at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
    put(&mut b, 0, b"MZ");
    put(&mut b, 60, &64u32.to_le_bytes());
    put(&mut b, 64, b"PE\0\0");
    put(&mut b, 68, &0xAA64u16.to_le_bytes());
    put(&mut b, 70, &(sections.len() as u16).to_le_bytes());
    put(&mut b, 84, &240u16.to_le_bytes());
    put(&mut b, 86, &0x22u16.to_le_bytes());
    let optional = 88;
    put(&mut b, optional, &0x20Bu16.to_le_bytes());
    put(&mut b, optional + 32, &4096u32.to_le_bytes());
    put(&mut b, optional + 36, &(ALIGN as u32).to_le_bytes());
    put(&mut b, optional + 60, &(HEADERS as u32).to_le_bytes());
    put(&mut b, optional + 64, &0xDEAD_BEEFu32.to_le_bytes());
    put(&mut b, optional + 68, &10u16.to_le_bytes());
    put(&mut b, optional + 108, &16u32.to_le_bytes());
    let mut rva = 4096u32;
    for (i, (name, data, gap)) in sections.iter().enumerate() {
        let entry = optional + 240 + 40 * i;
        b.resize(b.len() + gap, 0xEE);
        let (at, raw) = (b.len() as u32, data.len().next_multiple_of(ALIGN) as u32);
        put(&mut b, entry, name.as_bytes());
        put(&mut b, entry + 8, &(data.len() as u32).to_le_bytes());
        put(&mut b, entry + 12, &rva.to_le_bytes());
        put(&mut b, entry + 16, &raw.to_le_bytes());
        put(&mut b, entry + 20, &at.to_le_bytes());
        b.extend_from_slice(data);
        b.resize((at + raw) as usize, 0);
        rva += raw.next_multiple_of(4096).max(4096);
    }
    put(&mut b, optional + 56, &rva.to_le_bytes());
    b
}
