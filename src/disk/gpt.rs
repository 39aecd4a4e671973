//! The GUID partition table of the UEFI specification (2.10, chapter 5), as strict as the kernel's
//! block/partitions/efi.c. An own parser: gptman 3.1 asks for 650 GB or panics on forged counts, sizes and addresses.

pub(super) mod grow;

use std::io::{self, Read, Seek};

use super::bytes::{Block, guid, read_block};
use super::crc::crc32;
use super::mbr::BootSector;
use super::table::{
    Extent, MAX_PARTITIONS, Partition, PartitionTable, TableKind, check_inside, check_overlap, lie,
};
use crate::error::{Context, Result};

const SECTOR_SIZES: [u32; 2] = [512, 4096];
const SIGNATURE: &[u8] = b"EFI PART";
const HEADER_LEN: u32 = 92;
/// The only entry size that the kernel takes.
const ENTRY_LEN: u32 = 128;
/// Tables have 128 entries; nobody needs more than this many.
const MAX_ENTRIES: u32 = 4096;
/// Attribute bit 2: legacy BIOS bootable.
const BOOTABLE: u64 = 1 << 2;

/// What stands where a header should be.
enum Found {
    Nothing,
    Damaged(&'static str),
    Sound(Box<Header>),
}

struct Header {
    sector_size: u32,
    at: u64,
    alternate: u64,
    first_usable: u64,
    last_usable: u64,
    disk: Option<String>,
    entries_at: u64,
    entries: Block,
    entries_crc: u32,
}

/// What a look for a GPT gave.
pub(super) enum Gpt {
    /// There is none, not even a damaged one, whatever the boot sector says.
    Absent,
    /// A sound table, but the boot sector does not announce it: kernels ignore such a table.
    Unannounced(PartitionTable),
    /// The table of this disk.
    Table(PartitionTable),
}

/// Looks for the primary table at the second sector and, when it is announced but damaged, for the backup at the end
/// of the disk; for both sector sizes.
///
/// # Errors
/// When the disk cannot be read, when a table is announced and all its copies are damaged, and when its entries lie
/// outside the disk or overlap.
pub(super) fn read<R: Read + Seek>(disk: &mut R, bytes: u64, boot: Option<&BootSector>) -> Result<Gpt> {
    let announced = boot.and_then(BootSector::protective_sectors);
    let unreadable = || "cannot read the partition table";
    let mut damage = Vec::new();
    let mut primaries = Vec::new();
    for size in SECTOR_SIZES {
        match read_header(disk, bytes, size, 1).context(unreadable)? {
            Found::Nothing => {}
            Found::Damaged(why) => damage.push(format!("primary: {why}")),
            Found::Sound(header) => primaries.push(*header),
        }
    }
    // Of two tables left by tools that thought differently of sectors, the boot sector tells which one counts.
    primaries.sort_by_key(|header| {
        announced.is_none_or(|sectors| bytes / u64::from(header.sector_size) != u64::from(sectors) + 1)
    });
    if announced.is_none() {
        let table = primaries.first().and_then(|header| table(header, bytes, Vec::new()).ok());
        return Ok(table.map_or(Gpt::Absent, Gpt::Unannounced));
    }
    if let Some(header) = primaries.first() {
        let mut warnings = backup_warnings(disk, bytes, header).context(unreadable)?;
        if primaries.len() > 1 {
            warnings.push("there are two GPTs, for sectors of 512 and of 4096 bytes".to_owned());
        }
        return table(header, bytes, warnings).map(Gpt::Table);
    }
    for size in SECTOR_SIZES {
        let Some(last) = (bytes / u64::from(size)).checked_sub(1) else { continue };
        match read_header(disk, bytes, size, last).context(unreadable)? {
            Found::Nothing => {}
            Found::Damaged(why) => damage.push(format!("backup: {why}")),
            Found::Sound(header) => {
                let warning = "the primary GPT is damaged: the backup at the end of the disk is used";
                return table(&header, bytes, vec![warning.to_owned()]).map(Gpt::Table);
            }
        }
    }
    if damage.is_empty() {
        return Ok(Gpt::Absent);
    }
    Err(lie(format!("both copies of the GPT are damaged ({})", damage.join("; "))))
}

fn read_header<R: Read + Seek>(disk: &mut R, bytes: u64, size: u32, lba: u64) -> io::Result<Found> {
    let sectors = bytes / u64::from(size);
    let Some(at) = lba.checked_mul(size.into()).filter(|_| lba < sectors) else {
        return Ok(Found::Nothing);
    };
    let Some(sector) = read_block(disk, at, size)?.filter(|sector| sector.has(0, SIGNATURE)) else {
        return Ok(Found::Nothing);
    };
    let length = sector.le32(12);
    let (count, entry) = (sector.le32(80), sector.le32(84));
    let (first_usable, last_usable) = (sector.le64(40), sector.le64(48));
    if !(HEADER_LEN..=size).contains(&length) || header_crc(&sector, length) != sector.le32(16) {
        return Ok(Found::Damaged("wrong header checksum"));
    }
    if sector.le64(24) != lba {
        return Ok(Found::Damaged("the header is not where it says"));
    }
    if first_usable > last_usable || last_usable >= sectors {
        return Ok(Found::Damaged("it is made for a larger disk"));
    }
    if entry != ENTRY_LEN || !(1..=MAX_ENTRIES).contains(&count) {
        return Ok(Found::Damaged("impossible number or size of entries"));
    }
    let entries_at = sector.le64(72);
    let entries = match entries_at.checked_mul(size.into()).filter(|_| entries_at < sectors) {
        Some(at) => read_block(disk, at, count * ENTRY_LEN)?,
        None => None,
    };
    let entries_crc = sector.le32(88);
    let Some(entries) = entries.filter(|entries| !crc32(!0, entries.all()) == entries_crc) else {
        return Ok(Found::Damaged("wrong checksum of the entries"));
    };
    Ok(Found::Sound(Box::new(Header {
        sector_size: size,
        at: lba,
        alternate: sector.le64(32),
        first_usable,
        last_usable,
        disk: guid(sector.bytes(56)),
        entries_at,
        entries,
        entries_crc,
    })))
}

/// The checksum counts as zero in itself.
fn header_crc(sector: &Block, length: u32) -> u32 {
    let header = sector.slice(0, usize::try_from(length).unwrap_or(usize::MAX));
    !crc32(crc32(crc32(!0, &header[..16]), &[0; 4]), &header[20..])
}

fn backup_warnings<R: Read + Seek>(disk: &mut R, bytes: u64, primary: &Header) -> io::Result<Vec<String>> {
    let mut warnings = Vec::new();
    if primary.alternate != bytes / u64::from(primary.sector_size) - 1 {
        warnings.push("the backup GPT is not at the end of the disk: the disk was resized".to_owned());
    }
    match read_header(disk, bytes, primary.sector_size, primary.alternate)? {
        Found::Sound(backup) if backup.disk == primary.disk && backup.entries_crc == primary.entries_crc => {}
        Found::Sound(_) => warnings.push("the backup GPT differs from the primary one".to_owned()),
        Found::Nothing | Found::Damaged(_) => {
            warnings.push("the backup GPT is missing or damaged".to_owned());
        }
    }
    Ok(warnings)
}

fn table(header: &Header, bytes: u64, mut warnings: Vec<String>) -> Result<PartitionTable> {
    let sector = u64::from(header.sector_size);
    let entries_last = header.entries_at + (header.entries.all().len() as u64).div_ceil(sector) - 1;
    let of_table = |first, last| Extent { owner: "the GPT itself".to_owned(), first, last };
    let mut extents =
        vec![of_table(0, 0), of_table(header.at, header.at), of_table(header.entries_at, entries_last)];
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(header.entries.all().as_chunks::<{ ENTRY_LEN as usize }>().0) {
        let entry = Block::from(entry.as_slice());
        let Some(type_id) = guid(entry.bytes(0)) else { continue };
        let (first, last) = (entry.le64(32), entry.le64(40));
        let extent = Extent { owner: format!("partition {number}"), first, last };
        if first > last {
            return Err(lie(format!("partition {number} ends before it starts")));
        }
        check_inside(&extent, bytes / sector)?;
        if first < header.first_usable || last > header.last_usable {
            warnings
                .push(format!("partition {number} lies outside the area that the GPT gives to partitions"));
        }
        extents.push(extent);
        partitions.push(Partition {
            number,
            start: first * sector,
            length: (last - first + 1) * sector,
            type_id,
            part_uuid: guid(entry.bytes(16)),
            part_label: entry.text_utf16(56, 72),
            bootable: entry.le64(48) & BOOTABLE != 0,
        });
    }
    if partitions.len() > MAX_PARTITIONS {
        return Err(lie(format!("the GPT has more than {MAX_PARTITIONS} partitions")));
    }
    check_overlap(extents)?;
    // Each copy of the table is its header and as many sectors of entries beside it.
    let copy = entries_last - header.entries_at + 1;
    let other = (header.alternate.saturating_sub(copy), header.alternate.saturating_add(1 + copy));
    let own = [(0, header.first_usable), (header.last_usable + 1, u64::MAX), other];
    Ok(PartitionTable {
        own: own
            .map(|(first, end)| (first.saturating_mul(sector), end.saturating_mul(sector).min(bytes)))
            .into(),
        kind: TableKind::Gpt,
        sector_size: header.sector_size,
        id: header.disk.clone().unwrap_or_default(),
        partitions,
        warnings,
    })
}

#[cfg(test)]
mod tests;
