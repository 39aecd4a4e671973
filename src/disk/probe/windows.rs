//! What Windows makes: NTFS, exFAT and BitLocker. Linux guests share disks in these formats.

use std::io::{self, Read, Seek};

use super::fat;
use crate::disk::bytes::Window;
use crate::disk::content::{Content, FsState, Superblock};

const LEN: u32 = 512;

/// BitLocker's volume header; "BitLocker To Go" looks like FAT32 but for its metadata.
pub(super) fn bitlocker<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let Some(boot) = window.block(0, LEN)? else {
        return Ok(None);
    };
    let metadata = if boot.has(0, b"\xeb\x52\x90-FVE-FS-") {
        return Ok(Some(Superblock::new(Content::Bitlocker))); // Vista
    } else if boot.has(0, b"\xeb\x58\x90-FVE-FS-") {
        boot.le64(176)
    } else if boot.has(0, b"\xeb\x58\x90MSWIN4.1") {
        boot.le64(440)
    } else {
        return Ok(None);
    };
    if metadata == 0 || metadata % 64 != 0 {
        return Ok(None);
    }
    let block = window.block(metadata, 64)?.filter(|block| block.has(0, b"-FVE-FS-"));
    Ok(block.map(|_| Superblock::new(Content::Bitlocker)))
}

/// NTFS: the boot sector, and the first record of the master file table must be where it says.
pub(super) fn ntfs<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let Some(boot) = window.block(0, LEN)?.filter(|boot| boot.has(3, b"NTFS    ")) else {
        return Ok(None);
    };
    let sector = boot.le16(0x0b);
    let per_cluster: u32 = match boot.u8(0x0d) {
        count if count.is_power_of_two() => count.into(),
        count @ 240..=249 => 1 << (256 - u32::from(count)),
        _ => return Ok(None),
    };
    let unused = [boot.le16(0x0e), boot.le16(0x11), boot.le16(0x13), boot.le16(0x16), boot.u8(0x10).into()];
    if !matches!(sector, 256 | 512 | 1024 | 2048 | 4096) || unused != [0; 5] || boot.le32(0x20) != 0 {
        return Ok(None);
    }
    let table = boot.le64(0x30).checked_mul(u64::from(sector) * u64::from(per_cluster));
    let record = match table {
        Some(at) => window.block(at, 4)?,
        None => None,
    };
    if !record.is_some_and(|record| record.has(0, b"FILE")) {
        return Ok(None);
    }
    Ok(Some(Superblock {
        uuid: Some(format!("{:016X}", boot.le64(0x48))),
        block_size: Some(sector.into()),
        total_bytes: boot.le64(0x28).checked_mul(sector.into()),
        ..Superblock::new(Content::Ntfs)
    }))
}

/// exFAT, by Microsoft's specification; the label is read from the first cluster of the root folder, where mkfs and
/// Windows put it.
pub(super) fn exfat<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let Some(boot) = window.block(0, LEN)? else {
        return Ok(None);
    };
    let (sector_shift, cluster_shift) = (boot.u8(108), boot.u8(109));
    let named = boot.has(0, b"\xeb\x76\x90EXFAT   ") && boot.has(510, &[0x55, 0xaa]);
    if !named
        || boot.slice(11, 53).iter().any(|byte| *byte != 0)
        || !(9..=12).contains(&sector_shift)
        || cluster_shift > 25 - sector_shift
        || !(1..=2).contains(&boot.u8(110))
    {
        return Ok(None);
    }
    let root = u64::from(boot.le32(96)).saturating_sub(2) << cluster_shift;
    let root = (u64::from(boot.le32(88)) + root) << sector_shift;
    let mut label = None;
    for number in 0..(1_u64 << (sector_shift + cluster_shift)).min(16 << 10) / 32 {
        let Some(entry) = window.block(root + number * 32, 32)? else { break };
        match entry.u8(0) {
            0 => break,
            0x83 => {
                label = entry.text_utf16(2, usize::from(entry.u8(1)).min(11) * 2);
                break;
            }
            _ => {}
        }
    }
    // Volume flags: bit 1 dirty, bit 2 media failure.
    let state = if boot.le16(106) & 0x6 == 0 { FsState::Clean } else { FsState::Errors };
    Ok(Some(Superblock {
        uuid: Some(fat::serial(boot.bytes(100))),
        label,
        block_size: Some(1 << sector_shift),
        total_bytes: boot.le64(72).checked_mul(1 << sector_shift),
        state,
        ..Superblock::new(Content::Exfat)
    }))
}
