//! btrfs: `struct btrfs_super_block` of the kernel's include/uapi/linux/btrfs_tree.h, first copy at 64 KiB.

use std::io::{self, Read, Seek};

use crate::disk::bytes::Window;
use crate::disk::content::{BtrfsDevice, Content, FsState, Superblock};
use crate::disk::crc::crc32c;

const OFFSET: u64 = 64 << 10;
const LEN: u32 = 4096;

/// `BTRFS_SUPER_FLAG_ERROR`.
const FLAG_ERROR: u64 = 4;

/// `BTRFS_CSUM_TYPE_CRC32`; the other kinds are left to the kernel.
const CSUM_CRC32C: u16 = 0;

pub(super) fn btrfs<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let Some(sb) = window.block(OFFSET, LEN)?.filter(|sb| sb.has(64, b"_BHRfS_M")) else {
        return Ok(None);
    };
    let sector_size = sb.le32(144);
    if sb.le64(48) != OFFSET || !sector_size.is_power_of_two() {
        return Ok(None);
    }
    let device = BtrfsDevice { devices: sb.le64(136), device_id: sb.le64(201), device_uuid: sb.uuid(267) };
    let state = if sb.le64(56) & FLAG_ERROR != 0 {
        FsState::Errors
    } else if sb.le64(96) != 0 {
        // A log tree is what fsync left for the next mount.
        FsState::NeedsRecovery
    } else {
        FsState::Clean
    };
    let sound = sb.le16(196) != CSUM_CRC32C || !crc32c(!0, &sb.all()[32..]) == sb.le32(0);
    Ok(Some(
        Superblock {
            uuid: sb.uuid(32),
            label: sb.text(299, 256),
            block_size: Some(sector_size),
            total_bytes: Some(sb.le64(112)),
            state,
            needs_other_device: device.devices != 1,
            btrfs: Some(device),
            ..Superblock::new(Content::Btrfs)
        }
        .checked(sound),
    ))
}
