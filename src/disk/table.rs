//! Partitions, whichever table describes them.

use crate::Result;
use crate::block::Extent;
use crate::units::size;
use serde::{Serialize, Serializer};
use std::fmt;
use uuid::Uuid;

/// GPT partition type of an EFI System Partition (UEFI specification 2.10, table 5.7).
pub const ESP_TYPE: Uuid = Uuid::from_u128(0xC12A7328_F81F_11D2_BA4B_00A0C93EC93B);

/// GPT partition type of an extended boot loader partition, XBOOTLDR (UAPI.1, Boot Loader Specification).
pub const XBOOTLDR_TYPE: Uuid = Uuid::from_u128(0xBC13C2FF_59E6_4262_A352_B275FD6F7172);

/// MBR partition type of an EFI System Partition (UEFI specification 2.10, 5.2.2).
const MBR_ESP: u8 = 0xEF;

/// MBR partition type of an XBOOTLDR partition (UAPI.1).
const MBR_XBOOTLDR: u8 = 0xEA;

/// What a partition is for, as its table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartitionType {
    /// The type GUID of a GPT entry.
    Gpt(Uuid),
    /// The type byte of an MBR entry.
    Mbr(u8),
}

impl PartitionType {
    /// Whether the type says EFI System Partition.
    #[must_use]
    pub fn is_esp(self) -> bool {
        matches!(self, Self::Gpt(ESP_TYPE) | Self::Mbr(MBR_ESP))
    }

    /// Whether the type says XBOOTLDR: systemd-boot reads entries and images there, too.
    #[must_use]
    pub fn is_xbootldr(self) -> bool {
        matches!(self, Self::Gpt(XBOOTLDR_TYPE) | Self::Mbr(MBR_XBOOTLDR))
    }
}

impl fmt::Display for PartitionType {
    /// The GUID, or the byte as `0x0c`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(guid) => guid.fmt(f),
            Self::Mbr(byte) => write!(f, "{byte:#04x}"),
        }
    }
}

impl Serialize for PartitionType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What tells a partition from all others, as Linux writes it in `PARTUUID=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartUuid {
    /// The unique GUID of a GPT entry.
    Gpt(Uuid),
    /// The signature of an MBR (bytes 440 to 443) and the number of the partition. An EFI device path names an MBR
    /// partition by the same two (UEFI specification 2.10, 10.3.5.1).
    Mbr {
        /// The disk's signature.
        signature: u32,
        /// The partition's number.
        number: u32,
    },
}

impl PartUuid {
    /// The GUID, for a partition of a GPT.
    #[must_use]
    pub fn guid(self) -> Option<Uuid> {
        match self {
            Self::Gpt(guid) => Some(guid),
            Self::Mbr { .. } => None,
        }
    }

    /// Whether somebody means this partition by `text`, in either case.
    #[must_use]
    pub fn is(self, text: &str) -> bool {
        match self {
            Self::Gpt(guid) => Uuid::try_parse(text) == Ok(guid),
            Self::Mbr { .. } => self.to_string().eq_ignore_ascii_case(text),
        }
    }
}

impl fmt::Display for PartUuid {
    /// `d1e6a7b4-0001-4c11-8e55-0123456789ab`, or `1a2b3c4d-01`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(guid) => guid.fmt(f),
            Self::Mbr { signature, number } => write!(f, "{signature:08x}-{number:02x}"),
        }
    }
}

impl Serialize for PartUuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partition {
    /// As the kernel numbers it: the slot of a GPT, counted from 1; 1 to 4 for the entries of an MBR, from 5 on for
    /// logical partitions.
    pub number: u32,
    /// Partition type.
    pub kind: PartitionType,
    /// `PARTUUID`.
    pub partuuid: PartUuid,
    /// Name, which Talos calls the label; an MBR has none.
    pub label: String,
    /// Where it lies on the disk, in bytes.
    pub extent: Extent,
}

impl Partition {
    /// Whether its type says EFI System Partition.
    #[must_use]
    pub fn is_esp(&self) -> bool {
        self.kind.is_esp()
    }

    /// Whether its type says XBOOTLDR.
    #[must_use]
    pub fn is_xbootldr(&self) -> bool {
        self.kind.is_xbootldr()
    }

    /// Whether it is meant by `choice`: a number, a label or a PARTUUID.
    #[must_use]
    pub(super) fn is_meant(&self, choice: &str) -> bool {
        choice.parse() == Ok(self.number) || !self.label.is_empty() && self.label == choice || self.partuuid.is(choice)
    }

    /// `1 (label "EFI", PARTUUID …, 100 MiB)`.
    pub(super) fn describe(&self) -> String {
        let bytes = size(self.extent.bytes);
        match self.kind {
            PartitionType::Gpt(_) => {
                format!("{} (label {:?}, PARTUUID {}, {bytes})", self.number, self.label, self.partuuid)
            }
            PartitionType::Mbr(_) => {
                format!("{} (type {}, PARTUUID {}, {bytes})", self.number, self.kind, self.partuuid)
            }
        }
    }

    /// `partition 1 (EFI)`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.label.as_str() {
            "" => format!("partition {}", self.number),
            label => format!("partition {} ({label:?})", self.number),
        }
    }
}

/// What sort of table it is, and what tells the disk from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// A GUID partition table.
    Gpt {
        /// The disk's GUID.
        disk: Uuid,
    },
    /// The partition table of a master boot record.
    Mbr {
        /// Bytes 440 to 443.
        signature: u32,
    },
}

/// A partition table that counts: firmware and kernel go by it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionTable {
    /// GPT or MBR.
    pub scheme: Scheme,
    /// Sector size that the table counts in, in bytes.
    pub sector_size: u32,
    /// Used entries, by number.
    pub partitions: Vec<Partition>,
    /// Entries that reach past the end of the disk, which nobody can use: an image that was cut off, or a card too
    /// small for it.
    pub cut_off: Vec<Partition>,
}

impl PartitionTable {
    /// The partition with this number.
    #[must_use]
    pub fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.number == number)
    }

    /// The XBOOTLDR partition that systemd-boot would read beside the ESP: the first one of a GPT
    /// (`src/boot/xbootldr.c` of systemd looks at nothing else).
    #[must_use]
    pub fn xbootldr(&self) -> Option<&Partition> {
        self.partitions.iter().find(|p| matches!(p.kind, PartitionType::Gpt(_)) && p.is_xbootldr())
    }
}
