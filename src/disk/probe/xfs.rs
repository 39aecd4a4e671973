//! XFS: `struct xfs_dsb` of the kernel's fs/xfs/libxfs/xfs_format.h, big-endian.

use std::io::{self, Read, Seek};

use super::xfs_log;
use crate::disk::bytes::{Block, Window};
use crate::disk::content::{Content, FsState, Superblock};
use crate::disk::crc::crc32c;

/// Largest sector that XFS knows; the checksum covers one sector.
const LEN: u32 = 512;
const MAX_SECTOR: u32 = 32 << 10;
const CRC: usize = 224;

/// `XFS_SB_FEAT_INCOMPAT_NEEDSREPAIR`.
const NEEDS_REPAIR: u32 = 1 << 4;

pub(super) fn xfs<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let Some(sb) = window.block(0, LEN)?.filter(|sb| sb.has(0, b"XFSB") && is_plausible(sb)) else {
        return Ok(None);
    };
    let block_size = sb.be32(4);
    let sound = is_sound(&sb, window)?;
    let external_log = sb.be64(48) == 0;
    let state = if sb.u8(126) != 0 || (is_v5(&sb) && sb.be32(216) & NEEDS_REPAIR != 0) {
        FsState::Errors
    } else if external_log || !sound {
        FsState::Unknown
    } else {
        xfs_log::state(window, &sb)?
    };
    Ok(Some(
        Superblock {
            uuid: sb.uuid(32),
            label: sb.text(108, 12),
            block_size: Some(block_size),
            total_bytes: sb.be64(8).checked_mul(block_size.into()),
            state,
            needs_other_device: external_log || sb.be64(16) != 0,
            ..Superblock::new(Content::Xfs)
        }
        .checked(sound),
    ))
}

/// The same limits that libblkid and the kernel's `xfs_validate_sb_common` have.
fn is_plausible(sb: &Block) -> bool {
    let is_log = |size: u32, log: u8, range: std::ops::RangeInclusive<u8>| {
        range.contains(&log) && size == 1_u32 << log
    };
    let (ag_blocks, ag_count) = (u64::from(sb.be32(84)), u64::from(sb.be32(88)));
    is_log(sb.be32(4), sb.u8(120), 9..=16)
        && is_log(sb.be16(102).into(), sb.u8(121), 9..=15)
        && is_log(sb.be16(104).into(), sb.u8(122), 8..=11)
        && sb.u8(120).checked_sub(sb.u8(122)) == Some(sb.u8(123))
        && sb.u8(127) <= 100
        && ag_count > 0
        && (1..=ag_count * ag_blocks).contains(&sb.be64(8))
}

fn is_v5(sb: &Block) -> bool {
    sb.be16(100) & 0xf == 5
}

/// Only version 5 has checksums; the field itself counts as zero.
fn is_sound<R: Read + Seek>(sb: &Block, window: &mut Window<'_, R>) -> io::Result<bool> {
    if !is_v5(sb) {
        return Ok(true);
    }
    let len = u32::from(sb.be16(102)).min(MAX_SECTOR);
    let Some(sector) = window.block(0, len)? else {
        return Ok(false);
    };
    let (before, after) = sector.all().split_at(CRC);
    let crc = crc32c(crc32c(crc32c(!0, before), &[0; 4]), &after[4..]);
    Ok(!crc == sb.le32(CRC))
}
