//! Members of pools and caches: ZFS, bcachefs, bcache, Stratis.

use std::io::{self, Read, Seek};

use crate::disk::bytes::{Block, Window};
use crate::disk::content::{Content, FsState, Superblock};
use crate::disk::crc::crc32c;

const BCACHE: u64 = 4096;
const BCACHE_MAGIC: &[u8] = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
const BCACHEFS_MAGIC: &[u8] = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";

/// bcache: `struct cache_sb_disk` of the kernel's drivers/md/bcache/bcache_ondisk.h.
pub(super) fn bcache<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let sb = window.block(BCACHE, 512)?;
    let sb = sb.filter(|sb| sb.has(24, BCACHE_MAGIC) && sb.le64(8) == BCACHE / 512);
    Ok(sb.map(|sb| Superblock {
        uuid: sb.uuid(40),
        label: sb.text(72, 32),
        ..Superblock::new(Content::Bcache)
    }))
}

/// bcachefs: `struct bch_sb` of bcachefs_format.h; its first versions had the magic of bcache.
pub(super) fn bcachefs<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let Some(sb) = window.block(BCACHE, 512)? else {
        return Ok(None);
    };
    let (index, devices) = (sb.u8(122), sb.u8(123));
    let magic = sb.has(24, BCACHEFS_MAGIC) || sb.has(24, BCACHE_MAGIC);
    if !magic || sb.le64(104) != BCACHE / 512 || index >= devices {
        return Ok(None);
    }
    // Bit 1 of the first word of flags says that it was unmounted in order.
    let state = if sb.le64(144) & 2 != 0 { FsState::Clean } else { FsState::NeedsRecovery };
    Ok(Some(Superblock {
        uuid: sb.uuid(56),
        label: sb.text(72, 32),
        block_size: Some(u32::from(sb.le16(120)) * 512),
        state,
        needs_other_device: devices > 1,
        ..Superblock::new(Content::Bcachefs)
    }))
}

/// Stratis: one of two copies with a sound checksum; the UUIDs are text without dashes.
pub(super) fn stratis<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    for at in [512, 4608] {
        let Some(sb) = window.block(at, 512)? else { break };
        if !sb.has(4, b"!Stra0tis\x86\xff\x02^\x41rh") || !crc32c(!0, sb.slice(4, 508)) != sb.le32(0) {
            continue;
        }
        let id = sb.text(64, 32).filter(|id| id.is_ascii() && id.len() == 32);
        let uuid = id.map(|id| [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-"));
        return Ok(Some(Superblock { uuid, ..Superblock::new(Content::StratisMember) }));
    }
    Ok(None)
}

const ZFS_LABEL: u64 = 256 << 10;
/// The list of name-value pairs starts 16 KiB into a label; what is asked for stands at its beginning.
const ZFS_PAIRS: u64 = 16 << 10;
const ZFS_PAIRS_LEN: u32 = 4096;
const ZFS_MIN: u64 = 64 << 20;

/// ZFS: any of the four labels of a device. UUID is the pool's number in decimal, as `blkid` prints it.
pub(super) fn zfs<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let length = window.length();
    if length < ZFS_MIN {
        return Ok(None);
    }
    let end = length / ZFS_LABEL * ZFS_LABEL;
    for label in [0, ZFS_LABEL, end - 2 * ZFS_LABEL, end - ZFS_LABEL] {
        let Some(pairs) = window.block(label + ZFS_PAIRS, ZFS_PAIRS_LEN)? else { continue };
        if let Some(found) = zfs_pool(&pairs) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Walks the outer pairs of an XDR-encoded nvlist: size, decoded size, name (length, text, padding), type, count,
/// value; all numbers big-endian.
fn zfs_pool(pairs: &Block) -> Option<Superblock> {
    const UINT64: u32 = 8;
    const STRING: u32 = 9;
    if pairs.u8(0) != 1 || pairs.u8(1) > 1 {
        return None;
    }
    let (mut guid, mut name) = (None, None);
    let mut at = 12;
    while at < pairs.all().len() {
        let size = usize::try_from(pairs.be32(at)).ok().filter(|size| *size >= 20)?;
        let name_len = usize::try_from(pairs.be32(at + 8)).ok().filter(|len| *len < 64)?;
        let value = at + 12 + name_len.next_multiple_of(4);
        match (pairs.slice(at + 12, name_len), pairs.be32(value)) {
            (b"pool_guid", UINT64) => guid = Some(pairs.be64(value + 8)),
            (b"name", STRING) => {
                let len = usize::try_from(pairs.be32(value + 8)).ok().filter(|len| *len <= 256)?;
                name = pairs.text(value + 12, len);
            }
            _ => {}
        }
        if let (Some(guid), Some(_)) = (guid, &name) {
            let uuid = Some(guid.to_string());
            return Some(Superblock { uuid, label: name, ..Superblock::new(Content::ZfsMember) });
        }
        at = at.checked_add(size)?;
    }
    None
}
