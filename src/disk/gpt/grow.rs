//! A GPT whose backup is at the end of a disk that grew, and one of whose partitions has another end.

use std::io::{Read, Seek};

use super::{ENTRY_LEN, Found, Header, header_crc, read_header};
use crate::disk::bytes::{Block, read_block};
use crate::disk::crc::crc32;
use crate::disk::grow::{GrownTable, Patch, changed, with_numbers};
use crate::disk::mbr::grow::protective;
use crate::disk::table::{Partition, PartitionTable, lie};
use crate::error::{Context, Result};

/// The bytes behind the last one that a partition may have.
pub(in crate::disk) fn last_end<R: Read + Seek>(
    disk: &mut R,
    bytes: u64,
    table: &PartitionTable,
) -> Result<u64> {
    let header = primary(disk, bytes, table)?;
    Ok((Places::of(&header, bytes).last_usable + 1) * u64::from(header.sector_size))
}

/// Everything is written anew but the entries of the other partitions.
pub(in crate::disk) fn grow<R: Read + Seek>(
    disk: &mut R,
    bytes: u64,
    (table, partition): (&PartitionTable, &Partition),
    end: u64,
) -> Result<GrownTable> {
    let header = primary(disk, bytes, table)?;
    let places = Places::of(&header, bytes);
    if !places.moved && end == partition.end() {
        return Ok(GrownTable { patches: Vec::new(), grown: Vec::new() });
    }
    let size = u64::from(header.sector_size);
    if table.partitions.iter().any(|other| other.end() > places.backup_entries * size) {
        return Err(lie("partitions leave no room for the backup of the GPT at the end of the disk"));
    }
    let cannot = || "cannot read the partition table";
    let sector = read_block(disk, size, header.sector_size).context(cannot)?.ok_or_else(changed)?;
    let entry =
        usize::try_from(u64::from(partition.number - 1) * u64::from(ENTRY_LEN) + 40).unwrap_or(usize::MAX);
    let entries = with_numbers(header.entries.all(), &[(entry, &(end / size - 1).to_le_bytes())]);
    let copy = |at: u64, other: u64, entries_at: u64| {
        let sector = with_numbers(
            sector.all(),
            &[
                (24, &at.to_le_bytes()),
                (32, &other.to_le_bytes()),
                (48, &places.last_usable.to_le_bytes()),
                (72, &entries_at.to_le_bytes()),
                (88, &(!crc32(!0, &entries)).to_le_bytes()),
            ],
        );
        let block = Block::from(sector.as_slice());
        let bytes = with_numbers(&sector, &[(16, &header_crc(&block, block.le32(12)).to_le_bytes())]);
        [Patch { at: entries_at * size, bytes: entries.clone() }, Patch { at: at * size, bytes }]
    };
    let mut patches = old_backup(disk, bytes, (&header, table))?;
    patches.extend(copy(places.last, 1, places.backup_entries));
    patches.extend(copy(1, places.last, header.entries_at));
    patches.extend(protective(disk, bytes / size)?);
    let longer = (partition.number, partition.start, end - partition.start);
    Ok(GrownTable { patches, grown: (end > partition.end()).then_some(longer).into_iter().collect() })
}

/// Where the parts of a table belong on a disk of some length, in sectors.
struct Places {
    last: u64,
    backup_entries: u64,
    last_usable: u64,
    /// Whether the backup is somewhere else.
    moved: bool,
}

impl Places {
    fn of(header: &Header, bytes: u64) -> Self {
        let size = u64::from(header.sector_size);
        let last = bytes / size - 1;
        let entries = (header.entries.all().len() as u64).div_ceil(size);
        let backup_entries = last.saturating_sub(entries);
        let moved = header.alternate != last;
        let most = backup_entries.saturating_sub(1);
        // What a table on a disk of the same length keeps free has a reason.
        let last_usable = if moved { most } else { most.min(header.last_usable) };
        Self { last, backup_entries, last_usable, moved }
    }
}

fn primary<R: Read + Seek>(disk: &mut R, bytes: u64, table: &PartitionTable) -> Result<Header> {
    let cannot = || "cannot read the partition table";
    match read_header(disk, bytes, table.sector_size, 1).context(cannot)? {
        Found::Sound(header) if header.alternate > header.last_usable => Ok(*header),
        _ => Err(lie("the primary GPT is damaged, so no partition of it can grow")),
    }
}

/// The backup at the old end is made zero: the next tool would find two.
fn old_backup<R: Read + Seek>(
    disk: &mut R,
    bytes: u64,
    (header, table): (&Header, &PartitionTable),
) -> Result<Vec<Patch>> {
    let size = u64::from(header.sector_size);
    let found = read_header(disk, bytes, header.sector_size, header.alternate);
    let Found::Sound(backup) = found.context(|| "cannot read the partition table")? else {
        return Ok(Vec::new());
    };
    let zeros = |sector: u64, length: u64| Patch {
        at: sector * size,
        bytes: vec![0; usize::try_from(length).unwrap_or(0)],
    };
    let entries = backup.entries.all().len() as u64;
    let all = [zeros(backup.entries_at, entries), zeros(backup.at, size)];
    let is_free = |patch: &Patch| {
        let end = patch.at + patch.bytes.len() as u64;
        patch.at >= (header.last_usable + 1) * size
            && table.partitions.iter().all(|other| end <= other.start || other.end() <= patch.at)
    };
    Ok(all.into_iter().filter(is_free).collect())
}
