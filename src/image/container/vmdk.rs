//! What the grain tables of a vmdk of one sparse file do not refer to. By VMware's "Virtual Disk Format 5.0"; numbers are
//! little-endian, places in sectors of 512 bytes.

#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::Account;
use crate::disk::number::{le32, le64};
use crate::erase::extent::Extent;

const SECTOR: u64 = 512;
/// Flags of the header: grains are compressed, markers stand between them.
const COMPRESSED: u32 = 1 << 16 | 1 << 17;
/// Entries of a grain table, by the specification.
const TABLE_ENTRIES: u64 = 512;
/// The most entries of a grain directory: 16 TiB in grains of 64 KiB.
const DIRECTORY_ENTRIES: u64 = 512 << 10;
/// Entries that name no grain: there is none, or it reads as zeros.
const NO_GRAIN: u32 = 1;

/// The stretches of the file that hold nothing of the disk, or why they cannot be told.
pub(super) fn unreferenced(file: &File, end: u64) -> Result<Vec<Extent>, String> {
    let header = read(file, "header", 0, SECTOR)?;
    let (flags, capacity, grain) = (le32(&header, 8), le64(&header, 12), le64(&header, 20));
    if flags & COMPRESSED != 0 {
        return Err("it is a stream of compressed grains".into());
    }
    let sane = grain.is_power_of_two() && (8..=4096).contains(&grain);
    if !header.starts_with(b"KDMV") || !sane || u64::from(le32(&header, 44)) != TABLE_ENTRIES {
        return Err("its header makes no sense".into());
    }
    let tables = capacity.div_ceil(grain * TABLE_ENTRIES);
    if tables > DIRECTORY_ENTRIES {
        return Err("its disk is too large".into());
    }
    let mut live = Account::new(end);
    live.take("header", 0, SECTOR)?;
    live.take("description", sectors(le64(&header, 28))?, sectors(le64(&header, 36))?)?;
    // Two directories with a set of tables each, which name the same grains.
    let mut directories = vec![le64(&header, 56)];
    directories.extend((flags & 2 != 0).then(|| le64(&header, 48)));
    let mut entries = Vec::new();
    for directory in directories {
        let place = sectors(directory)?;
        live.take("grain directory", place, tables * 4)?;
        entries.push(read(file, "grain directory", place, tables * 4)?);
    }
    for index in 0..tables {
        let entry = usize::try_from(index * 4).map_err(|error| error.to_string())?;
        let mut twins = Vec::new();
        for table in entries.iter().map(|directory| le32(directory, entry)) {
            let place = sectors(table.into())?;
            if place > 0 {
                live.take("grain table", place, TABLE_ENTRIES * 4)?;
            }
            let table = (place > 0).then(|| read(file, "grain table", place, TABLE_ENTRIES * 4));
            twins.push(table.transpose()?);
        }
        if twins.windows(2).any(|twin| twin[0] != twin[1]) {
            return Err("its two sets of grain tables differ".into());
        }
        let Some(Some(table)) = twins.first() else { continue };
        for (at, number) in table.chunks_exact(4).map(|entry| le32(entry, 0)).zip(index * TABLE_ENTRIES..) {
            let inside = capacity.saturating_sub(number * grain).min(grain);
            if at > NO_GRAIN && inside > 0 {
                live.take("grain", sectors(at.into())?, sectors(inside)?)?;
            }
        }
    }
    live.rest()
}

fn sectors(count: u64) -> Result<u64, String> {
    count.checked_mul(SECTOR).ok_or_else(|| "it names a place beyond all files".into())
}

fn read(file: &File, what: &str, at: u64, length: u64) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
    file.read_exact_at(&mut bytes, at).map_err(|error| format!("its {what} cannot be read: {error}"))?;
    Ok(bytes)
}
