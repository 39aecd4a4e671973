//! Filesystems that Linux guests use now and then: images (ISO 9660, UDF, SquashFS, EROFS), F2FS, NILFS2, JFS, ReiserFS.

use std::io::{self, Read, Seek};

use crate::disk::bytes::{Block, Window};
use crate::disk::content::{Content, FsState, Superblock};
use crate::disk::crc::{crc32, crc32c};

/// SquashFS 4: `struct squashfs_super_block` of the kernel's fs/squashfs/squashfs_fs.h.
pub(super) fn squashfs<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let sb = window.block(0, 96)?.filter(|sb| sb.has(0, b"hsqs") && sb.le16(28) == 4);
    Ok(sb.map(|sb| Superblock {
        block_size: Some(sb.le32(12)),
        total_bytes: Some(sb.le64(40)),
        state: FsState::Clean,
        ..Superblock::new(Content::Squashfs)
    }))
}

/// EROFS: `struct erofs_super_block` of the kernel's fs/erofs/erofs_fs.h.
pub(super) fn erofs<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    const FEATURE_CHECKSUM: u32 = 1;
    let Some(sb) = window.block(1024, 128)? else {
        return Ok(None);
    };
    let bits = sb.u8(12);
    if !sb.has(0, b"\xe2\xe1\xf5\xe0") || !(9..=16).contains(&bits) {
        return Ok(None);
    }
    let block_size = 1_u32 << bits;
    let sound = match block_size.checked_sub(1024).filter(|_| sb.le32(8) & FEATURE_CHECKSUM != 0) {
        None => true,
        Some(len) => window.block(1024, len)?.is_some_and(|all| {
            let crc =
                crc32c(crc32c(crc32c(!0, all.slice(0, 4)), &[0; 4]), &all.all()[8.min(all.all().len())..]);
            crc == sb.le32(4)
        }),
    };
    Ok(Some(
        Superblock {
            uuid: sb.uuid(48),
            label: sb.text(64, 16),
            block_size: Some(block_size),
            total_bytes: Some(u64::from(sb.le32(36)) * u64::from(block_size)),
            state: FsState::Clean,
            ..Superblock::new(Content::Erofs)
        }
        .checked(sound),
    ))
}

/// F2FS: `struct f2fs_super_block` of the kernel's include/linux/f2fs_fs.h. Its state is in the checkpoints.
pub(super) fn f2fs<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    const MAGIC: u32 = 0xf2f5_2010;
    let Some(sb) = window.block(1024, 3072)?.filter(|sb| sb.le32(0) == MAGIC) else {
        return Ok(None);
    };
    let checksum = usize::try_from(sb.le32(32)).unwrap_or(usize::MAX);
    if !(9..=16).contains(&sb.le32(16)) {
        return Ok(None);
    }
    let block_size = 1_u32 << sb.le32(16);
    let sound = checksum == 0
        || (checksum <= sb.all().len() - 4 && crc32(MAGIC, sb.slice(0, checksum)) == sb.le32(checksum));
    Ok(Some(
        Superblock {
            uuid: sb.uuid(0x6c),
            label: sb.text_utf16(0x7c, 1024),
            block_size: Some(block_size),
            total_bytes: sb.le64(0x24).checked_mul(block_size.into()),
            ..Superblock::new(Content::F2fs)
        }
        .checked(sound),
    ))
}

/// NILFS2: `struct nilfs_super_block` of the kernel's include/uapi/linux/nilfs2_ondisk.h.
pub(super) fn nilfs2<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    const MAGIC: u16 = 0x3434;
    let Some(sb) = window.block(1024, 1024)?.filter(|sb| sb.le16(6) == MAGIC) else {
        return Ok(None);
    };
    let len = usize::from(sb.le16(8));
    if !(20..=1024).contains(&len) || sb.le32(20) > 6 {
        return Ok(None);
    }
    let crc = crc32(crc32(crc32(sb.le32(12), sb.slice(0, 16)), &[0; 4]), sb.slice(20, len - 20));
    Ok((crc == sb.le32(16)).then(|| Superblock {
        uuid: sb.uuid(152),
        label: sb.text(168, 80),
        block_size: Some(1024 << sb.le32(20)),
        total_bytes: Some(sb.le64(32)),
        ..Superblock::new(Content::Nilfs2)
    }))
}

/// JFS: `struct jfs_superblock` of the kernel's fs/jfs/jfs_superblock.h.
pub(super) fn jfs<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let Some(sb) = window.block(32 << 10, 184)?.filter(|sb| sb.has(0, b"JFS1")) else {
        return Ok(None);
    };
    let (block, block_log) = (sb.le32(16), sb.le16(20));
    let (sector, sector_log) = (sb.le32(24), sb.le16(28));
    let is_log = |size: u32, log: u16| 1_u32.checked_shl(log.into()) == Some(size);
    if !is_log(block, block_log)
        || !is_log(sector, sector_log)
        || block_log.checked_sub(sector_log) != Some(sb.le16(22))
    {
        return Ok(None);
    }
    Ok(Some(Superblock {
        uuid: sb.uuid(136),
        label: sb.text(152, 16),
        block_size: Some(block),
        total_bytes: sb.le64(8).checked_mul(sector.into()),
        state: if sb.le32(40) == 0 { FsState::Clean } else { FsState::NeedsRecovery },
        ..Superblock::new(Content::Jfs)
    }))
}

/// ReiserFS 3.5 and 3.6: `struct reiserfs_super_block` of the kernel's fs/reiserfs/reiserfs.h.
pub(super) fn reiserfs<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    for at in [64 << 10, 8 << 10] {
        let Some(sb) = window.block(at, 256)? else { continue };
        let has_identity = sb.has(52, b"ReIsEr2Fs") || sb.has(52, b"ReIsEr3Fs");
        let block_size = sb.le16(44);
        if !(has_identity || sb.has(52, b"ReIsErFs")) || block_size < 512 || !block_size.is_power_of_two() {
            continue;
        }
        // A copy inside the journal is not the superblock.
        if at / u64::from(block_size) > u64::from(sb.le32(12)) {
            continue;
        }
        return Ok(Some(Superblock {
            uuid: sb.uuid(84).filter(|_| has_identity),
            label: sb.text(100, 16).filter(|_| has_identity),
            block_size: Some(block_size.into()),
            total_bytes: Some(u64::from(sb.le32(0)) * u64::from(block_size)),
            ..Superblock::new(Content::Reiserfs)
        }));
    }
    Ok(None)
}

/// Volume descriptors of ECMA-119 and ECMA-167 start at 32 KiB and are 2 KiB each.
const DESCRIPTORS: u64 = 32 << 10;
const DESCRIPTOR: u32 = 2048;

/// ISO 9660. The UUID is the time of its last change, as `blkid` writes it.
pub(super) fn iso9660<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    for number in 0..16 {
        let block = window.block(DESCRIPTORS + number * u64::from(DESCRIPTOR), DESCRIPTOR)?;
        match block.filter(|block| block.has(1, b"CD001")) {
            Some(primary) if primary.u8(0) == 1 => return Ok(iso9660_volume(&primary)),
            Some(other) if other.u8(0) != 255 => {}
            _ => break,
        }
    }
    Ok(None)
}

fn iso9660_volume(primary: &Block) -> Option<Superblock> {
    let block_size = u32::from(primary.le16(128));
    if !block_size.is_power_of_two() || !(512..=4096).contains(&block_size) {
        return None;
    }
    let date = |at| {
        let digits = primary.slice(at, 16);
        let set = digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|digit| *digit != b'0');
        let text = String::from_utf8_lossy(digits);
        let parts = [0..4, 4..6, 6..8, 8..10, 10..12, 12..14, 14..16];
        set.then(|| parts.map(|part| &text[part]).join("-"))
    };
    Some(Superblock {
        uuid: date(830).or_else(|| date(813)),
        label: primary.text(40, 32),
        block_size: Some(block_size),
        total_bytes: Some(u64::from(primary.le32(80)) * u64::from(block_size)),
        state: FsState::Clean,
        ..Superblock::new(Content::Iso9660)
    })
}

/// UDF, by its volume recognition sequence only: neither label nor UUID is read.
pub(super) fn udf<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    const KNOWN: [&[u8]; 5] = [b"BEA01", b"BOOT2", b"CD001", b"CDW02", b"TEA01"];
    for number in 0..64 {
        let Some(block) = window.block(DESCRIPTORS + number * u64::from(DESCRIPTOR), 7)? else { break };
        if block.has(1, b"NSR02") || block.has(1, b"NSR03") {
            return Ok(Some(Superblock::new(Content::Udf)));
        }
        if !KNOWN.iter().any(|known| block.has(1, known)) {
            break;
        }
    }
    Ok(None)
}
