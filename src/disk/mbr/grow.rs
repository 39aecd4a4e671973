//! An MBR in which one partition has another end, and with a logical one the extended one that it is in.

use std::io::{Read, Seek};

use super::{ENTRIES, ENTRY_LEN, Entry, FIRST_LOGICAL, PROTECTIVE, entries};
use crate::disk::bytes::{Block, read_block};
use crate::disk::grow::{GrownTable, Patch, changed, with_numbers};
use crate::disk::table::{MAX_PARTITIONS, Partition, PartitionTable};
use crate::error::{Context, Result};

/// Everything that says where the partition ends says it anew.
pub(in crate::disk) fn grow<R: Read + Seek>(
    disk: &mut R,
    (table, partition): (&PartitionTable, &Partition),
    end: u64,
) -> Result<GrownTable> {
    let mut table =
        Table { disk, sector: table.sector_size.into(), of: table, patches: Vec::new(), grown: Vec::new() };
    if partition.number < FIRST_LOGICAL {
        table.primary(partition, end)?;
    } else {
        table.logical(partition, end)?;
    }
    Ok(GrownTable { patches: table.patches, grown: table.grown })
}

/// The first sector of a GPT's disk, when it says nothing but that there is a GPT on the whole of it.
pub(in crate::disk) fn protective<R: Read + Seek>(disk: &mut R, sectors: u64) -> Result<Option<Patch>> {
    let block = read_sector(disk, 0)?;
    let used: Vec<(usize, Entry)> =
        entries(&block).into_iter().enumerate().filter(|(_, entry)| entry.is_used()).collect();
    let [(index, Entry { kind: PROTECTIVE, start: 1, .. })] = used.as_slice() else { return Ok(None) };
    let covered = u32::try_from(sectors - 1).unwrap_or(u32::MAX).to_le_bytes();
    Ok(Some(Patch {
        at: 0,
        bytes: with_numbers(block.all(), &[(ENTRIES + index * ENTRY_LEN + 12, &covered)]),
    }))
}

struct Table<'a, R> {
    disk: &'a mut R,
    sector: u64,
    of: &'a PartitionTable,
    patches: Vec<Patch>,
    grown: Vec<(u32, u64, u64)>,
}

impl<R: Read + Seek> Table<'_, R> {
    fn primary(&mut self, partition: &Partition, end: u64) -> Result<()> {
        let index = usize::try_from(partition.number - 1).map_err(|_| changed())?;
        let start = partition.start / self.sector;
        self.set((0, index), start, (start, end / self.sector))?;
        self.grown.push((partition.number, partition.start, end - partition.start));
        Ok(())
    }

    /// The partition counts from its record, and the record before says how far both reach.
    fn logical(&mut self, partition: &Partition, end: u64) -> Result<()> {
        let holds = |other: &&Partition| {
            other.is_extended() && other.start < partition.start && partition.end() <= other.end()
        };
        let extended = self.of.partitions.iter().find(holds).ok_or_else(changed)?;
        if extended.end() < end {
            self.primary(extended, end)?;
        }
        let (base, wanted) = (extended.start / self.sector, partition.start / self.sector);
        let (mut record, mut link) = (base, None);
        for _ in 0..=MAX_PARTITIONS {
            let entries = entries(&read_sector(self.disk, record * self.sector)?);
            let own = |entry: &Entry| entry.is_data() && record + u64::from(entry.start) == wanted;
            if let Some(index) = entries.iter().position(own) {
                self.set((record, index), wanted - record, (wanted, end / self.sector))?;
                if let Some((before, index)) = link {
                    self.set((before, index), record - base, (record, end / self.sector))?;
                }
                self.grown.push((partition.number, partition.start, end - partition.start));
                return Ok(());
            }
            let index = entries.iter().position(|entry| entry.is_extended()).ok_or_else(changed)?;
            link = Some((record, index));
            record = base + u64::from(entries[index].start);
        }
        Err(changed())
    }

    /// Writes into an entry of a record which sectors of the disk it means; `counted` is how it counts the first.
    fn set(&mut self, (record, index): (u64, usize), counted: u64, (first, end): (u64, u64)) -> Result<()> {
        let at = record * self.sector;
        let block = read_sector(self.disk, at)?;
        let entry = entries(&block).get(index).copied().ok_or_else(changed)?;
        if u64::from(entry.start) != counted {
            return Err(changed());
        }
        let sectors = u32::try_from(end - first).map_err(|_| changed())?;
        let place = ENTRIES + index * ENTRY_LEN;
        let numbers: [(usize, &[u8]); 2] = [(place + 5, &chs(end - 1)), (place + 12, &sectors.to_le_bytes())];
        self.patches.push(Patch { at, bytes: with_numbers(block.all(), &numbers) });
        Ok(())
    }
}

fn read_sector<R: Read + Seek>(disk: &mut R, at: u64) -> Result<Block> {
    read_block(disk, at, 512).context(|| "cannot read the partition table")?.ok_or_else(changed)
}

/// Cylinder, head and sector as tools have counted them since disks had other ones: 255 heads, 63 sectors; the most that
/// can be said of what lies behind.
fn chs(sector: u64) -> [u8; 3] {
    let (cylinder, head, sector) = (sector / (255 * 63), sector / 63 % 255, sector % 63 + 1);
    let byte = |number: u64| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
    match cylinder {
        0..1024 => [byte(head), byte(sector | (cylinder >> 2 & 0xc0)), byte(cylinder)],
        _ => [0xfe, 0xff, 0xff],
    }
}
