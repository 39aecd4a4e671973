//! The form of a partition table, whichever kind it is, and the checks that both kinds share.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The kinds of partition table that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    /// The GUID partition table of the UEFI specification.
    Gpt,
    /// The DOS table in the master boot record, with logical partitions in extended ones.
    Mbr,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Partition {
    /// The number that the kernel gives it: the 2 of `/dev/sda2`.
    pub number: u32,
    /// Where it starts, in bytes from the start of the disk.
    pub start: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// Its type: for GPT a GUID in lower case, for MBR a number such as `0x83`.
    pub type_id: String,
    /// The identity that `PARTUUID=` means, as `blkid` prints it.
    pub part_uuid: Option<String>,
    /// The name that `PARTLABEL=` means; only GPT has one.
    pub part_label: Option<String>,
    /// Whether a BIOS would boot from it: the active flag of MBR, the legacy bootable attribute of GPT.
    pub bootable: bool,
}

impl Partition {
    /// Whether it is an extended partition of an MBR, which holds logical partitions and nothing of its own.
    pub fn is_extended(&self) -> bool {
        matches!(self.type_id.as_str(), "0x5" | "0xf" | "0x85")
    }

    /// The first byte behind it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// A partition table whose entries lie inside the disk and do not overlap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PartitionTable {
    /// Which kind it is.
    pub kind: TableKind,
    /// Bytes a sector, by which the table counts: 512 or 4096.
    pub sector_size: u32,
    /// The identity of the table (`PTUUID` of `blkid`): a GUID in lower case, or eight hexadecimal digits.
    pub id: String,
    /// The partitions by their numbers; extended ones included.
    pub partitions: Vec<Partition>,
    /// What is odd about it, each a sentence.
    pub warnings: Vec<String>,
    /// Where the table itself is: first byte, and the one behind the last.
    #[serde(skip)]
    pub own: Vec<(u64, u64)>,
}

/// The kernel shows no more partitions than this (`DISK_MAX_PARTS`).
pub(super) const MAX_PARTITIONS: usize = 256;

/// A range of sectors that belongs to somebody: a partition or a part of the table itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) owner: String,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// A partition table that cannot be trusted.
pub(super) fn lie(what: impl Into<String>) -> Error {
    Error::unsupported(what).hint("repair the partition table, or check that the image is complete")
}

/// Refuses extents that share a sector.
pub(super) fn check_overlap(mut extents: Vec<Extent>) -> Result<()> {
    extents.sort_by_key(|extent| extent.first);
    match extents.windows(2).find(|pair| pair[1].first <= pair[0].last) {
        Some([one, other]) => Err(lie(format!("{} and {} overlap on the disk", one.owner, other.owner))),
        _ => Ok(()),
    }
}

/// Refuses an extent that reaches beyond the `sectors` of the disk.
pub(super) fn check_inside(extent: &Extent, sectors: u64) -> Result<()> {
    if extent.last < sectors {
        return Ok(());
    }
    Err(lie(format!(
        "{} ends at sector {}, but the disk has only {sectors} sectors",
        extent.owner, extent.last
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(owner: &str, first: u64, last: u64) -> Extent {
        Extent { owner: owner.to_owned(), first, last }
    }

    #[test]
    fn neighbours_do_not_overlap() {
        check_overlap(vec![extent("b", 10, 19), extent("a", 0, 9)]).unwrap();
        let error = check_overlap(vec![extent("b", 9, 19), extent("a", 0, 9)]).unwrap_err();
        assert_eq!(error.to_string(), "a and b overlap on the disk");
    }

    #[test]
    fn the_last_sector_belongs_to_the_disk() {
        check_inside(&extent("a", 0, 99), 100).unwrap();
        assert!(check_inside(&extent("a", 0, 100), 100).is_err());
    }
}
