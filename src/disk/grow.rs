//! Growing a partition: which one can, how far, and what is written of the table for it. Nothing is written here.

use std::io::{Read, Seek};

use super::table::{Partition, PartitionTable, TableKind, lie};
use super::{gpt, mbr};
use crate::error::{Error, Result};

/// Where partitions begin and end by habit, so that no layer above is cut inside one of its own units.
const ALIGNMENT: u64 = 1 << 20;

/// Bytes that are written to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Their first place, in bytes from the start of the disk.
    pub at: u64,
    /// They.
    pub bytes: Vec<u8>,
}

/// A table in which one partition has grown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrownTable {
    /// What is written, in this order; nothing when all is as it should be.
    pub patches: Vec<Patch>,
    /// The partitions that are longer now: number, start and length in bytes. An extended one comes before what is in it.
    pub grown: Vec<(u32, u64, u64)>,
}

/// Grows a partition of `disk` to the end of its `bytes`, which may be more than there were when the table was made; the
/// table's copy at the end of the disk goes there too. When the disk itself did not grow (`wants_room` is false), a
/// partition with others behind it stays as it is.
///
/// # Errors
/// Unsupported when another partition lies behind it, or the table cannot say that much; when the disk cannot be read.
pub fn grow_partition<R: Read + Seek>(
    disk: &mut R,
    bytes: u64,
    (table, number): (&PartitionTable, u32),
    wants_room: bool,
) -> Result<GrownTable> {
    let partition = table.partitions.iter().find(|partition| partition.number == number);
    let partition = partition.ok_or_else(|| Error::failed(format!("there is no partition {number}")))?;
    let behind =
        table.partitions.iter().filter(|other| other.start >= partition.end()).min_by_key(|p| p.start);
    if let Some(behind) = behind.filter(|_| wants_room) {
        return Err(in_the_way(partition, behind));
    }
    let end = match (behind, table.kind) {
        (Some(_), _) => partition.end(),
        (None, TableKind::Gpt) => gpt::grow::last_end(disk, bytes, table)?,
        (None, TableKind::Mbr) => mbr_end(bytes, table, partition)?,
    };
    // What is lost at the end is less than what tools leave at the start.
    let end = Some(end - end % ALIGNMENT).filter(|end| *end > partition.end()).unwrap_or(partition.end());
    match table.kind {
        TableKind::Gpt => gpt::grow::grow(disk, bytes, (table, partition), end),
        TableKind::Mbr if end == partition.end() => Ok(GrownTable { patches: Vec::new(), grown: Vec::new() }),
        TableKind::Mbr => mbr::grow::grow(disk, (table, partition), end),
    }
}

fn in_the_way(partition: &Partition, behind: &Partition) -> Error {
    let label = behind.part_label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
    let (own, other) = (partition.number, behind.number);
    Error::unsupported(format!(
        "partition {own} cannot grow: partition {other}{label} lies behind it on the disk"
    ))
    .hint("name the volume that is to grow, the last one of the disk: --expand-volume VOLUME")
}

/// An MBR counts sectors with 32 bits.
fn mbr_end(bytes: u64, table: &PartitionTable, partition: &Partition) -> Result<u64> {
    let sector = u64::from(table.sector_size);
    let (last, most) = (bytes / sector, u64::from(u32::MAX));
    if last > most {
        return Err(Error::unsupported(format!(
            "partition {} cannot grow: an MBR knows {} bytes at most, and the disk is to have {bytes}",
            partition.number,
            most * sector
        ))
        .hint("choose a smaller size, or convert the table to GPT in the guest first"));
    }
    Ok(last * sector)
}

/// A copy of `sector` with little-endian numbers put in.
pub(super) fn with_numbers(sector: &[u8], numbers: &[(usize, &[u8])]) -> Vec<u8> {
    let mut sector = sector.to_vec();
    for (at, bytes) in numbers {
        for (to, from) in sector.iter_mut().skip(*at).zip(*bytes) {
            *to = *from;
        }
    }
    sector
}

/// What to say of a table that is not as it was read before.
pub(super) fn changed() -> Error {
    lie("the partition table cannot be read again as it was")
}

#[cfg(test)]
mod tests;
