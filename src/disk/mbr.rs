//! The DOS partition table in the master boot record, and the chain of extended boot records behind it, read as the
//! kernel's block/partitions/msdos.c does. An own parser: mbrman 0.6 panics on an entry at sector 0, follows a chain of
//! any length, and stands on bincode, which is given up (RUSTSEC-2025-0141).

pub(super) mod grow;

use std::collections::HashSet;
use std::io::{Read, Seek};

use super::bytes::{Block, read_block};
use super::table::{
    Extent, MAX_PARTITIONS, Partition, PartitionTable, TableKind, check_inside, check_overlap, lie,
};
use crate::error::{Context, Result};

const ENTRIES: usize = 446;
const ENTRY_LEN: usize = 16;
const PROTECTIVE: u8 = 0xee;
const ACTIVE: u8 = 0x80;
const FIRST_LOGICAL: u32 = 5;

/// The partition entries of the first sector of a disk.
#[derive(Debug, Clone)]
pub(super) struct BootSector {
    id: u32,
    entries: [Entry; 4],
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    flags: u8,
    kind: u8,
    start: u32,
    sectors: u32,
}

impl Entry {
    fn is_used(self) -> bool {
        self.sectors != 0
    }

    fn is_extended(self) -> bool {
        self.is_used() && matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    fn is_data(self) -> bool {
        self.is_used() && !self.is_extended()
    }
}

impl BootSector {
    /// None when the sector has no boot signature.
    pub(super) fn parse(sector: &Block) -> Option<Self> {
        sector.has(510, &[0x55, 0xaa]).then(|| Self { id: sector.le32(440), entries: entries(sector) })
    }

    /// How many sectors the protective entry of a GPT covers, when there is one.
    pub(super) fn protective_sectors(&self) -> Option<u32> {
        self.entries.iter().find(|entry| entry.kind == PROTECTIVE).map(|entry| entry.sectors)
    }

    /// Whether the entries can be a partition table: some are used, and all flags are those of one.
    pub(super) fn is_table(&self) -> bool {
        self.entries.iter().all(|entry| entry.flags & !ACTIVE == 0)
            && self.entries.iter().any(|entry| entry.is_used())
    }
}

fn entries(sector: &Block) -> [Entry; 4] {
    [0, 1, 2, 3].map(|index| {
        let at = ENTRIES + index * ENTRY_LEN;
        Entry {
            flags: sector.u8(at),
            kind: sector.u8(at + 4),
            start: sector.le32(at + 8),
            sectors: sector.le32(at + 12),
        }
    })
}

/// Reads the table that `boot` begins, counting in sectors of `sector_size` bytes.
///
/// # Errors
/// When the disk cannot be read, and when partitions lie outside the disk or overlap, or extended boot records lead
/// out of their partition or in a circle.
pub(super) fn read<R: Read + Seek>(
    disk: &mut R,
    bytes: u64,
    boot: &BootSector,
    sector_size: u32,
) -> Result<PartitionTable> {
    let sectors = bytes / u64::from(sector_size);
    let mut extents = vec![Extent { owner: "the partition table".to_owned(), first: 0, last: 0 }];
    let mut builder = Builder { id: boot.id, sector_size: sector_size.into(), partitions: Vec::new() };
    for (number, entry) in (1..).zip(boot.entries).filter(|(_, entry)| entry.is_used()) {
        let extent = builder.add(number, entry, 0);
        check_inside(&extent, sectors)?;
        extents.push(extent);
    }
    check_overlap(extents)?;
    let mut warnings = Vec::new();
    let mut own = vec![(0, 1)];
    for extended in boot.entries.into_iter().filter(|entry| entry.is_extended()) {
        let mut chain = Chain { extended, extents: Vec::new(), records: Vec::new(), warnings: Vec::new() };
        chain.follow(disk, &mut builder)?;
        check_overlap(chain.extents)?;
        // Behind a break in the chain there may be partitions that somebody still knows of.
        let first = u64::from(extended.start);
        let broken = !chain.warnings.is_empty();
        own.extend(broken.then_some((first, first + u64::from(extended.sectors))));
        own.extend(chain.records.into_iter().map(|record| (record, record + 1)));
        warnings.append(&mut chain.warnings);
    }
    let own = own.into_iter().map(|(first, end)| {
        (first.saturating_mul(sector_size.into()), end.saturating_mul(sector_size.into()).min(bytes))
    });
    Ok(PartitionTable {
        kind: TableKind::Mbr,
        sector_size,
        id: format!("{:08x}", boot.id),
        partitions: builder.partitions,
        warnings,
        own: own.collect(),
    })
}

struct Builder {
    id: u32,
    sector_size: u64,
    partitions: Vec<Partition>,
}

impl Builder {
    /// `base` is the sector from which the entry counts. Sums of two sector numbers of 32 bits cannot overflow.
    fn add(&mut self, number: u32, entry: Entry, base: u64) -> Extent {
        let first = base + u64::from(entry.start);
        self.partitions.push(Partition {
            number,
            start: first * self.sector_size,
            length: u64::from(entry.sectors) * self.sector_size,
            type_id: format!("{:#x}", entry.kind),
            part_uuid: (self.id != 0).then(|| format!("{:08x}-{number:02x}", self.id)),
            part_label: None,
            bootable: entry.flags & ACTIVE != 0,
        });
        let last = first + u64::from(entry.sectors) - 1;
        Extent { owner: format!("partition {number}"), first, last }
    }

    fn next_logical(&self) -> u32 {
        self.partitions.last().map_or(FIRST_LOGICAL, |last| FIRST_LOGICAL.max(last.number + 1))
    }
}

/// The extended boot records of one extended partition: each has one logical partition and a link to the next record.
struct Chain {
    extended: Entry,
    extents: Vec<Extent>,
    records: Vec<u64>,
    warnings: Vec<String>,
}

impl Chain {
    fn follow<R: Read + Seek>(&mut self, disk: &mut R, builder: &mut Builder) -> Result<()> {
        let first = u64::from(self.extended.start);
        let end = first + u64::from(self.extended.sectors);
        let mut visited = HashSet::new();
        let mut here = Some(first);
        while let Some(record) = here {
            if !visited.insert(record) {
                return Err(lie(format!("the extended boot records lead in a circle to sector {record}")));
            }
            if builder.partitions.len() > MAX_PARTITIONS {
                return Err(lie(format!("the MBR has more than {MAX_PARTITIONS} partitions")));
            }
            if record >= end {
                return Err(lie(format!("the extended boot records lead out of bounds, to sector {record}")));
            }
            if visited.len() > MAX_PARTITIONS {
                return Err(lie(format!("there are more than {MAX_PARTITIONS} logical partitions")));
            }
            let sector = read_block(disk, record * builder.sector_size, 512)
                .context(|| "cannot read the partition table")?;
            let Some(sector) = sector.filter(|sector| sector.has(510, &[0x55, 0xaa])) else {
                if record != first {
                    self.warnings.push(format!("the chain of logical partitions breaks at sector {record}"));
                }
                return Ok(());
            };
            let owner = format!("the boot record at sector {record}");
            self.extents.push(Extent { owner, first: record, last: record });
            self.records.push(record);
            here = self.record(&entries(&sector), record, end, builder)?;
        }
        Ok(())
    }

    /// Takes the logical partitions of one record and returns where the next record is. OS/2 used all four entries;
    /// like the kernel, the latter two count only when they lie inside the record's own range.
    fn record(
        &mut self,
        entries: &[Entry; 4],
        record: u64,
        end: u64,
        builder: &mut Builder,
    ) -> Result<Option<u64>> {
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.is_data()) {
            let number = builder.next_logical();
            let last = record + u64::from(entry.start) + u64::from(entry.sectors) - 1;
            if last >= end && index >= 2 {
                self.warnings.push(format!("the boot record at sector {record} has a senseless entry"));
                continue;
            }
            if last >= end {
                return Err(lie(format!("logical partition {number} reaches out of its extended partition")));
            }
            let extent = builder.add(number, *entry, record);
            self.extents.push(extent);
        }
        let link = entries.iter().find(|entry| entry.is_extended());
        Ok(link.map(|link| u64::from(self.extended.start) + u64::from(link.start)))
    }
}

#[cfg(test)]
mod tests;
