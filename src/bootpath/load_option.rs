//! `Boot####`, `BootOrder`, `BootNext` and `BootCurrent`: what the firmware itself would start.
//!
//! Formats: UEFI specification 2.10, section 3.1.3 "Load Options" (EFI_LOAD_OPTION) and chapter 10 (device paths). Own
//! code: a hundred lines, by value and with every length checked, where crates bring a firmware's worth of types.

use super::BootScenario;
use crate::disk::PartUuid;
use crate::efivars::{EfiVars, GLOBAL};
use crate::harmless::harmless;
use crate::sorting::Sort as _;
use serde::Serialize;
use uuid::Uuid;

/// `LOAD_OPTION_ACTIVE`.
const ACTIVE: u32 = 1;
/// `LOAD_OPTION_HIDDEN`.
const HIDDEN: u32 = 8;
/// `LOAD_OPTION_CATEGORY`; other categories than 0 (boot) are not started by themselves.
const CATEGORY: u32 = 0x1F00;
/// More nodes of one device path than this are not decoded.
const MAX_NODES: usize = 64;
/// More options than this no firmware's menu could show.
const MAX_OPTIONS: usize = 1024;
/// Longer texts are cut, in characters.
const MAX_TEXT: usize = 512;
/// Longer LoadOptions are not kept, in bytes.
const MAX_OPTIONAL: usize = 4096;

/// What U-Boot since 2024.01 writes behind the options that it makes at each start, one for each medium
/// (`efi_bootmgr_update_media_device_boot_option` in lib/efi_loader/efi_bootmgr.c); EDK II's boot manager has the same
/// mark.
const MADE_BY_FIRMWARE: Uuid = uuid::uuid!("8108ac4e-9f11-4d59-850e-e21a522c59b2");

/// Where a boot option leads, as far as this tool follows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BootTarget {
    /// The whole device path in words: `HD(1,GPT,…)/\EFI\BOOT\BOOTAA64.EFI`.
    pub path: String,
    /// The partition it is on.
    pub partuuid: Option<PartUuid>,
    /// The file on that partition.
    pub file: Option<String>,
    /// The partition's node, if there is one.
    #[serde(skip)]
    pub hard_drive: Option<HardDrive>,
    /// What sort of place the path begins at.
    #[serde(skip)]
    pub lead: Lead,
}

/// A Hard Drive Media node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HardDrive {
    /// The partition's number.
    pub number: u32,
    /// Its first sector.
    pub start: u64,
    /// Its length in sectors.
    pub sectors: u64,
    /// What it is recognised by; `None` where the node holds nothing of that sort.
    pub partuuid: Option<PartUuid>,
}

/// What sort of place a device path leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lead {
    /// A file on any volume: the path begins with the file.
    File,
    /// A device, by where it is attached.
    Device,
    /// The network.
    Network,
    /// A part of the firmware itself.
    Firmware,
    /// Anything else.
    #[default]
    Other,
}

/// A `Boot####` variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BootOption {
    /// `Boot0001`.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// The firmware may start it by itself.
    pub active: bool,
    /// It is a system to start, and no application for somebody to choose.
    pub is_system: bool,
    /// It is not shown in the firmware's menu.
    pub hidden: bool,
    /// The text of the firmware's menu.
    pub description: String,
    /// Where it leads.
    pub target: BootTarget,
    /// Bytes that the image gets as LoadOptions.
    pub optional_bytes: usize,
    /// These bytes, up to 4096 of them.
    #[serde(skip)]
    pub optional: Vec<u8>,
    /// It is the only one that the firmware made for a medium by itself.
    #[serde(skip)]
    pub(super) is_only_medium: bool,
    /// Its place in BootOrder, from 0.
    pub place: Option<usize>,
    /// Whether its file is there, once held against the partitions that are known; `null` where that cannot be told.
    pub found: Option<bool>,
    /// Why it leads nowhere.
    pub problem: Option<String>,
}

/// All boot options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BootOptions {
    /// In BootOrder; those that are not in it behind.
    pub options: Vec<BootOption>,
    /// BootOrder, if there is one.
    pub order: Option<Vec<u16>>,
    /// BootNext: once, before everything else.
    pub next: Option<u16>,
    /// BootCurrent: what the firmware started last time.
    pub current: Option<u16>,
    /// Variables that cannot be decoded, and numbers in BootOrder without a variable.
    pub broken: Vec<String>,
    /// The firmware's variables could be looked at.
    #[serde(skip)]
    pub known: bool,
}

impl BootOptions {
    /// Reads them. What cannot be read is named in `broken`.
    #[must_use]
    pub fn read(vars: &EfiVars) -> Self {
        let mut all = Self { known: vars.unavailable().is_none(), ..Self::default() };
        let number = |name: &str| vars.read(name, GLOBAL).ok().flatten().and_then(|v| le16(&v.data).first().copied());
        all.next = number("BootNext");
        all.current = number("BootCurrent");
        all.order = vars.read("BootOrder", GLOBAL).ok().flatten().map(|v| {
            let mut order = le16(&v.data);
            order.truncate(MAX_OPTIONS);
            order
        });
        for (name, vendor) in vars.list().unwrap_or_default() {
            let Some(n) = (vendor == GLOBAL).then(|| option_number(&name)).flatten() else { continue };
            if all.options.len() + all.broken.len() >= MAX_OPTIONS {
                break;
            }
            let decoded = match vars.read(&name, GLOBAL) {
                Ok(Some(v)) => BootOption::decode(n, &v.data),
                Ok(None) => continue,
                Err(e) => Err(e.to_string()),
            };
            match decoded {
                Ok(option) => all.options.push(option),
                Err(why) => all.broken.push(harmless(&format!("{name}: {why}")).into_owned()),
            }
        }
        let is_made = |o: &&mut BootOption| o.optional == MADE_BY_FIRMWARE.to_bytes_le() && o.target.file.is_none();
        if let [only] = all.options.iter_mut().filter(is_made).collect::<Vec<_>>().as_mut_slice() {
            only.is_only_medium = true;
        }
        let order = all.order.clone().unwrap_or_default();
        for option in &mut all.options {
            option.place = order.iter().position(|n| *n == option.number);
        }
        all.options.put_in_order_by(|o| (o.place.unwrap_or(usize::MAX), o.number));
        let known = |n: &u16| all.options.iter().any(|o| o.number == *n);
        let broken = |n: &u16| all.broken.iter().any(|b| b.starts_with(&format!("Boot{n:04X}:")));
        let mut missing: Vec<u16> = order.into_iter().filter(|n| !known(n) && !broken(n)).collect();
        missing.put_in_order(Ord::cmp);
        missing.dedup();
        all.broken.extend(missing.iter().map(|n| format!("BootOrder names Boot{n:04X}, which does not exist")));
        all
    }

    /// The options that the firmware tries in a scenario, in its order, and whether it does so for one start only.
    pub(super) fn tried(&self, scenario: BootScenario) -> impl Iterator<Item = (&BootOption, bool)> {
        let (next, order) = match scenario {
            BootScenario::Next => (self.next, true),
            BootScenario::Later => (None, true),
            BootScenario::Reset => (None, false),
        };
        let next = self.options.iter().filter(move |o| Some(o.number) == next).map(|o| (o, true));
        let ordered = self.options.iter().filter(move |o| order && o.place.is_some() && o.active && o.is_system);
        next.chain(ordered.map(|o| (o, false)))
    }

    /// BootNext, where it counts and no option has its number.
    pub(super) fn missing_next(&self, scenario: BootScenario) -> Option<u16> {
        let next = self.next.filter(|_| scenario == BootScenario::Next)?;
        self.options.iter().all(|option| option.number != next).then_some(next)
    }
}

impl BootOption {
    /// What the program gets as LoadOptions: the mark of an option that the firmware made itself is not handed over
    /// (EDK II: EfiBootManagerBoot).
    pub(super) fn load_options(&self) -> &[u8] {
        if self.optional == MADE_BY_FIRMWARE.to_bytes_le() { &[] } else { &self.optional }
    }

    /// Decodes an EFI_LOAD_OPTION.
    ///
    /// # Errors
    /// What breaks the format, in words.
    pub fn decode(number: u16, data: &[u8]) -> Result<Self, String> {
        let short = || format!("{} bytes are too few for a load option", data.len());
        let (attributes, rest) = data.split_first_chunk::<4>().ok_or_else(short)?;
        let (path_bytes, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        let units = le16(rest);
        let end = units.iter().position(|u| *u == 0).ok_or("its description has no end")?;
        let behind = rest.get((end + 1) * 2..).unwrap_or_default();
        let (path, optional) = behind
            .split_at_checked(usize::from(u16::from_le_bytes(*path_bytes)))
            .ok_or("its device path is longer than the variable")?;
        let attributes = u32::from_le_bytes(*attributes);
        Ok(Self {
            name: format!("Boot{number:04X}"),
            number,
            active: attributes & ACTIVE != 0,
            is_system: attributes & CATEGORY == 0,
            hidden: attributes & HIDDEN != 0,
            description: shown(&units[..end]),
            target: BootTarget::decode(path)?,
            optional_bytes: optional.len(),
            optional: optional[..optional.len().min(MAX_OPTIONAL)].to_vec(),
            is_only_medium: false,
            place: None,
            found: None,
            problem: None,
        })
    }
}

impl BootTarget {
    /// Decodes the first device path of a list.
    fn decode(mut path: &[u8]) -> Result<Self, String> {
        let mut target = Self::default();
        let mut words: Vec<String> = Vec::new();
        for place in 0..MAX_NODES {
            let Some((&[kind, subkind, low, high], _)) = path.split_first_chunk::<4>() else { break };
            let bytes = usize::from(u16::from_le_bytes([low, high]));
            let (node, rest) = path
                .split_at_checked(bytes)
                .filter(|_| bytes >= 4)
                .ok_or("its device path has a node of impossible length")?;
            path = rest;
            let data = node.get(4..).unwrap_or_default();
            if let Some(lead) = lead_of(kind, subkind, place == 0) {
                target.lead = lead;
            }
            match (kind, subkind) {
                (0x7F, _) => break,
                (4, 1) => words.push(target.hard_drive(data)),
                (4, 4) => {
                    let units: Vec<u16> = le16(data).into_iter().take_while(|u| *u != 0).collect();
                    let name = shown(&units);
                    target.file = Some(target.file.take().map_or(name.clone(), |f| format!("{f}\\{name}")));
                    words.push(name);
                }
                _ => words.push(node_name(kind, subkind)),
            }
        }
        target.path = words.join("/");
        Ok(target)
    }

    /// A Hard Drive Media node: partition number, start, size, signature, format of the table, kind of signature.
    fn hard_drive(&mut self, data: &[u8]) -> String {
        let u64_at = |at: usize| data.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b));
        let number = data.first_chunk::<4>().map_or(0, |n| u32::from_le_bytes(*n));
        let (text, partuuid) = match (data.get(20..36), data.get(36), data.get(37)) {
            (Some(guid), Some(2), Some(2)) => {
                // GUIDs stand in mixed byte order (UEFI specification, appendix A).
                let uuid = Uuid::from_slice_le(guid).unwrap_or_default();
                (format!("HD({number},GPT,{uuid})"), Some(PartUuid::Gpt(uuid)))
            }
            (Some(&[a, b, c, d, ..]), Some(1), Some(1)) => {
                let signature = u32::from_le_bytes([a, b, c, d]);
                (format!("HD({number},MBR,0x{signature:08x})"), Some(PartUuid::Mbr { signature, number }))
            }
            _ => (format!("HD({number})"), None),
        };
        self.partuuid = partuuid;
        self.hard_drive = Some(HardDrive { number, start: u64_at(4), sectors: u64_at(12), partuuid });
        text
    }
}

/// What a node says about where the path leads; the last one that says something counts.
fn lead_of(kind: u8, subkind: u8, is_first: bool) -> Option<Lead> {
    match (kind, subkind) {
        (4, 4) if is_first => Some(Lead::File),
        (3, 11..=13 | 24) => Some(Lead::Network),
        (4, 6 | 7) => Some(Lead::Firmware),
        (3, 1 | 2 | 5 | 15 | 16 | 18 | 22 | 23 | 26 | 29) | (4, 2) => Some(Lead::Device),
        _ => None,
    }
}

fn node_name(kind: u8, subkind: u8) -> String {
    let name = match (kind, subkind) {
        (1, 1) => "Pci",
        (1, 4) => "VenHw",
        (2, 1) => "Acpi",
        (3, 2) => "Scsi",
        (3, 5) => "Usb",
        (3, 10) => "VenMsg",
        (3, 11) => "Mac",
        (3, 12) => "IPv4",
        (3, 13) => "IPv6",
        (3, 18) => "Sata",
        (3, 23) => "NVMe",
        (3, 24) => "Uri",
        (3, 26) => "SD",
        (3, 29) => "eMMC",
        (4, 2) => "CDROM",
        (4, 6) => "FvFile",
        (4, 7) => "Fv",
        (5, 1) => "BIOS",
        _ => return format!("Path({kind},{subkind})"),
    };
    name.to_owned()
}

/// The number of `Boot####`: four hexadecimal digits in upper case.
fn option_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?;
    let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
    (digits.len() == 4 && digits.bytes().all(upper)).then(|| u16::from_str_radix(digits, 16).ok())?
}

fn shown(units: &[u16]) -> String {
    harmless(&String::from_utf16_lossy(&units[..units.len().min(MAX_TEXT)])).into_owned()
}

fn le16(data: &[u8]) -> Vec<u16> {
    data.as_chunks::<2>().0.iter().map(|u| u16::from_le_bytes(*u)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESP: Uuid = uuid::uuid!("d1e6a7b4-0001-4c11-8e55-0123456789ab");

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    }

    fn node(kind: u8, subkind: u8, data: &[u8]) -> Vec<u8> {
        [&[kind, subkind][..], &(data.len() as u16 + 4).to_le_bytes(), data].concat()
    }

    fn hard_drive(uuid: Uuid) -> Vec<u8> {
        let mut data = vec![1, 0, 0, 0];
        data.extend([0; 16]);
        data.extend(uuid.to_bytes_le());
        data.extend([2, 2]);
        node(4, 1, &data)
    }

    fn option(attributes: u32, text: &str, path: &[u8], optional: &[u8]) -> Vec<u8> {
        [&attributes.to_le_bytes()[..], &(path.len() as u16).to_le_bytes(), &utf16(text), path, optional].concat()
    }

    fn talos(uuid: Uuid, file: &str) -> Vec<u8> {
        let path = [hard_drive(uuid), node(4, 4, &utf16(file)), node(0x7F, 0xFF, &[])].concat();
        option(1, "Talos Linux UKI", &path, b"")
    }

    #[test]
    fn a_talos_entry_is_decoded() {
        let o = BootOption::decode(1, &talos(ESP, "\\EFI\\BOOT\\BOOTAA64.EFI")).unwrap();
        assert_eq!((o.name.as_str(), o.active, o.description.as_str()), ("Boot0001", true, "Talos Linux UKI"));
        assert_eq!(o.target.partuuid, Some(PartUuid::Gpt(ESP)));
        assert_eq!(o.target.file.as_deref(), Some("\\EFI\\BOOT\\BOOTAA64.EFI"));
        assert_eq!(o.target.path, format!("HD(1,GPT,{ESP})/\\EFI\\BOOT\\BOOTAA64.EFI"));
    }

    #[test]
    fn hostile_options_are_bounded_and_shown_without_control_characters() {
        let o = BootOption::decode(1, &option(1, "\u{1b}[2Jx", &node(4, 4, &utf16("a\u{7}b")), b"")).unwrap();
        assert_eq!((o.description.as_str(), o.target.file.as_deref()), (r"\u{1b}[2Jx", Some(r"a\u{7}b")));
        let long = "x".repeat(100_000);
        assert_eq!(BootOption::decode(1, &option(1, &long, b"", b"")).unwrap().description.len(), MAX_TEXT);
        let path: Vec<u8> = (0..10_000).flat_map(|_| node(1, 1, b"")).collect();
        let o = BootOption::decode(1, &option(1, "many nodes", &path, b"")).unwrap();
        assert_eq!(o.target.path.matches("Pci").count(), MAX_NODES);
        // Every byte of a good option replaced by every kind of bad one.
        let good = talos(ESP, "\\x.efi");
        for at in 0..good.len() {
            for byte in [0, 1, 4, 0x7F, 0x80, 0xFF] {
                let mut bad = good.clone();
                bad[at] = byte;
                let _ = BootOption::decode(0, &bad);
            }
        }
    }

    #[test]
    fn broken_options_are_errors_and_no_panic() {
        let good = talos(ESP, "\\x.efi");
        for len in 0..good.len() {
            let _ = BootOption::decode(0, &good[..len]);
        }
        for (data, why) in [
            (&[1, 0, 0, 0, 0][..], "too few"),
            (&[1, 0, 0, 0, 0, 0, b'x', 0], "no end"),
            (&[1, 0, 0, 0, 9, 0, 0, 0], "longer"),
            (&[1, 0, 0, 0, 4, 0, 0, 0, 4, 1, 2, 0], "impossible"),
            (&[1, 0, 0, 0, 4, 0, 0, 0, 4, 1, 9, 0], "impossible"),
        ] {
            assert!(BootOption::decode(0, data).unwrap_err().contains(why), "{data:?}");
        }
    }
}
