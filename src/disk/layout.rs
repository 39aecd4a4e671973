//! The picture of a whole disk, and the decision whether a disk is partitioned or one filesystem: boot sectors of
//! filesystems look like partition tables, and remains of either are found on disks that were used before.

use std::io::{Read, Seek};

use serde::{Deserialize, Serialize};

use super::bytes::{Block, read_block};
use super::content::{Content, Superblock};
use super::gpt::{self, Gpt};
use super::mbr::{self, BootSector};
use super::probe::probe;
use super::table::{Partition, PartitionTable, lie};
use crate::error::{Context, Error, Result};

/// A stretch of a disk that can hold a filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Volume {
    /// Which of the guest's disks it is on, from 0.
    pub disk: usize,
    /// What that disk is called; none when there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// The partition it is; none for a whole disk.
    pub partition: Option<Partition>,
    /// Where it starts, in bytes from the start of the disk.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// What it holds; none when nothing known.
    pub superblock: Option<Superblock>,
}

/// Everything this room knows of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLayout {
    /// The size of the disk.
    pub bytes: u64,
    /// Whether a BIOS finds GRUB in its first sector.
    pub grub: bool,
    /// Its partition table; none when the disk is one volume.
    pub table: Option<PartitionTable>,
    /// Its volumes by their numbers: all partitions but extended ones, or the disk itself.
    pub volumes: Vec<Volume>,
    /// What is odd about the disk, each a sentence; those about the table are in the table.
    pub warnings: Vec<String>,
}

impl DiskLayout {
    fn new(bytes: u64, table: Option<PartitionTable>, volumes: Vec<Volume>) -> Self {
        let warnings = volumes.iter().flat_map(warnings_of).collect();
        Self { bytes, grub: false, table, volumes, warnings }
    }

    fn whole(bytes: u64, superblock: Option<Superblock>) -> Self {
        Self::new(
            bytes,
            None,
            vec![Volume { disk: 0, on: None, partition: None, offset: 0, length: bytes, superblock }],
        )
    }

    fn partitioned<R: Read + Seek>(disk: &mut R, bytes: u64, table: PartitionTable) -> Result<Self> {
        let mut volumes = Vec::new();
        for partition in table.partitions.iter().filter(|partition| !partition.is_extended()) {
            let (offset, length) = (partition.start, partition.length);
            let superblock = probe(disk, offset, length)
                .context(|| format!("cannot read partition {}", partition.number))?;
            volumes.push(Volume {
                disk: 0,
                on: None,
                partition: Some(partition.clone()),
                offset,
                length,
                superblock,
            });
        }
        Ok(Self::new(bytes, Some(table), volumes))
    }

    /// How many partitions hold something known: the sign that a table is real.
    fn known(&self) -> usize {
        self.volumes.iter().filter(|volume| volume.superblock.is_some()).count()
    }

    fn warn(mut self, warning: impl Into<String>) -> Self {
        self.warnings.insert(0, warning.into());
        self
    }
}

fn warnings_of(volume: &Volume) -> Vec<String> {
    let Some(superblock) = &volume.superblock else {
        return Vec::new();
    };
    let name = volume.partition.as_ref().map_or("the disk".to_owned(), |p| format!("partition {}", p.number));
    let content = superblock.content;
    let mut warnings = Vec::new();
    if !superblock.also.is_empty() {
        let others: Vec<_> = superblock.also.iter().map(|other| other.name()).collect();
        warnings.push(format!(
            "{name} is taken as {content}, but there are superblocks of {} as well",
            others.join(", ")
        ));
    }
    if superblock.damaged {
        warnings.push(format!("{name}: the checksum of the {content} superblock is wrong"));
    }
    let too_large = superblock.total_bytes.filter(|total| *total > volume.length);
    if let Some(total) = too_large.filter(|_| !superblock.needs_other_device) {
        warnings.push(format!(
            "{name}: the {content} takes {total} bytes, but there are only {}: is the image complete?",
            volume.length
        ));
    }
    warnings
}

/// Reads the partition table of a disk of `disk_bytes` bytes; none when the disk is one filesystem or holds nothing.
///
/// # Errors
/// As [`read_disk`].
pub fn read_table<R: Read + Seek>(disk: &mut R, disk_bytes: u64) -> Result<Option<PartitionTable>> {
    Ok(read_disk(disk, disk_bytes)?.table)
}

/// Reads the partition table and the superblocks of a disk of `disk_bytes` bytes.
///
/// A GPT that the boot sector announces is the table, whatever else is found. An MBR is the table unless the whole disk
/// is a filesystem and no partition holds anything known. The sector size of an MBR is not written anywhere: it is the
/// one at which partitions lie inside the disk and hold something known, else 512.
///
/// # Errors
/// When the disk cannot be read; kind [`crate::ErrorKind::Unsupported`] when a partition table lies: overlaps, reaches
/// out of the disk, leads in circles, or is announced and damaged in all copies.
pub fn read_disk<R: Read + Seek>(disk: &mut R, disk_bytes: u64) -> Result<DiskLayout> {
    let boot = read_block(disk, 0, 512).context(|| "cannot read the first sector of the disk")?;
    // Its own messages, in boot.S of GRUB.
    let grub = boot.as_ref().is_some_and(|boot| boot.all().windows(GRUB.len()).any(|text| text == GRUB));
    Ok(DiskLayout { grub, ..read_layout(disk, disk_bytes, boot.as_ref())? })
}

/// What GRUB says from the first sector, and nobody else.
const GRUB: &[u8] = b"GRUB \0Geom\0";

fn read_layout<R: Read + Seek>(disk: &mut R, disk_bytes: u64, boot: Option<&Block>) -> Result<DiskLayout> {
    let boot = boot.and_then(BootSector::parse);
    let whole = probe(disk, 0, disk_bytes).context(|| "cannot read the disk")?;
    let announced = boot.as_ref().and_then(BootSector::protective_sectors).is_some();
    match gpt::read(disk, disk_bytes, boot.as_ref())? {
        Gpt::Table(table) => {
            let layout = DiskLayout::partitioned(disk, disk_bytes, table)?;
            return warn_of_remains(layout, whole.as_ref());
        }
        Gpt::Absent if announced && whole.is_none() => {
            return Err(lie("the boot sector announces a GPT, but there is none at either end of the disk"));
        }
        Gpt::Unannounced(table) if whole.is_none() && !has_mbr(boot.as_ref()) => {
            let layout = DiskLayout::partitioned(disk, disk_bytes, table)?;
            return Ok(layout.warn("the boot sector does not announce the GPT: most systems will not see it"));
        }
        Gpt::Absent | Gpt::Unannounced(_) => {}
    }
    match boot.filter(|boot| !announced && boot.is_table()) {
        Some(boot) => read_mbr(disk, disk_bytes, &boot, whole),
        None => Ok(DiskLayout::whole(disk_bytes, whole)),
    }
}

fn has_mbr(boot: Option<&BootSector>) -> bool {
    boot.is_some_and(BootSector::is_table)
}

/// What stands at the end of the last partition can look like the end of the disk: that is no remainder.
///
/// # Errors
/// When the whole disk is a member of a RAID, whose partitions merely show on each of its halves.
fn warn_of_remains(layout: DiskLayout, whole: Option<&Superblock>) -> Result<DiskLayout> {
    let is_same =
        |one: &Superblock, other: &Superblock| (one.content, &one.uuid) == (other.content, &other.uuid);
    let mut known = layout.volumes.iter().filter_map(|volume| volume.superblock.as_ref());
    let Some(remains) = whole.filter(|whole| !known.any(|known| is_same(known, whole))) else {
        return Ok(layout);
    };
    let content = remains.content;
    if content == Content::MdMember && !remains.damaged {
        return Err(Error::unsupported("the whole disk is a member of a software RAID (md)").hint(
            "sealing one half of a mirror would leave the other as it was; when it is none any more, take the superblock away: mdadm --zero-superblock, on a copy",
        ));
    }
    Ok(layout
        .warn(format!("the disk as a whole has a superblock of {content}, ignored for the partition table")))
}

fn read_mbr<R: Read + Seek>(
    disk: &mut R,
    bytes: u64,
    boot: &BootSector,
    whole: Option<Superblock>,
) -> Result<DiskLayout> {
    let layout = mbr_layout(disk, bytes, boot);
    let Some(superblock) = whole else {
        return layout;
    };
    match layout {
        // A superblock that a partition table was written over is no reason to doubt the table.
        Ok(layout) if layout.known() > 0 || superblock.damaged => warn_of_remains(layout, Some(&superblock)),
        Ok(_) => Ok(DiskLayout::whole(bytes, Some(superblock)).warn(
            "the first sector looks like a partition table; it is ignored, since no partition holds anything",
        )),
        Err(error) if is_io(&error) => Err(error),
        Err(_) => Ok(DiskLayout::whole(bytes, Some(superblock))),
    }
}

fn is_io(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

/// Tries the two sector sizes and takes the first at which something known is found.
fn mbr_layout<R: Read + Seek>(disk: &mut R, bytes: u64, boot: &BootSector) -> Result<DiskLayout> {
    let mut read = |sector_size| {
        let table = mbr::read(disk, bytes, boot, sector_size)?;
        DiskLayout::partitioned(disk, bytes, table)
    };
    let small = read(512);
    if small.as_ref().is_ok_and(|layout| layout.known() > 0) || small.as_ref().is_err_and(is_io) {
        return small;
    }
    match read(4096) {
        Ok(large) if large.known() > 0 => Ok(large),
        Err(error) if is_io(&error) => Err(error),
        _ => small,
    }
}

#[cfg(test)]
mod tests;
