//! ext2, ext3, ext4 and their external journal: `struct ext4_super_block` of the kernel's fs/ext4/ext4.h.

use std::io::{self, Read, Seek};

use crate::disk::bytes::{Block, Window};
use crate::disk::content::{Content, ExtFeatures, FsState, LastMount, Superblock};
use crate::disk::crc::crc32c;

const OFFSET: u64 = 1024;
const LEN: u32 = 1024;
const MAGIC: [u8; 2] = [0x53, 0xef];

/// `s_state`: cleanly unmounted, and errors were seen.
const VALID: u16 = 1;
const ERROR: u16 = 2;

const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_ORPHAN_PRESENT: u32 = 0x1_0000;

/// What ext2 and ext3 know of `incompat` (filetype, recover, meta_bg) and `ro_compat` (sparse_super, large_file,
/// btree_dir); anything more makes it ext4.
const EXT2_INCOMPAT: u32 = 0x12;
const EXT3_INCOMPAT: u32 = 0x16;
const EXT3_RO_COMPAT: u32 = 0x7;

pub(super) fn ext<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let Some(sb) = window.block(OFFSET, LEN)?.filter(|sb| sb.has(56, &MAGIC)) else {
        return Ok(None);
    };
    let log_block_size = sb.le32(24);
    if log_block_size > 6 {
        return Ok(None);
    }
    let features = ExtFeatures {
        compat: sb.le32(92),
        incompat: sb.le32(96),
        ro_compat: sb.le32(100),
        inode_size: if sb.le32(76) == 0 { 128 } else { sb.le16(88) },
    };
    let block_size = 1024_u32 << log_block_size;
    let sound = !features.has_metadata_csum() || crc32c(!0, sb.slice(0, 1020)) == sb.le32(1020);
    Ok(Some(
        Superblock {
            uuid: sb.uuid(104),
            label: sb.text(120, 16),
            block_size: Some(block_size),
            total_bytes: blocks(&sb, features).checked_mul(block_size.into()),
            state: state(&sb, features),
            mounted: Some(LastMount {
                seconds: i64::from(sb.le32(44)) | i64::from(sb.u8(629)) << 32,
                count: sb.le16(52),
            }),
            needs_other_device: features.has_journal() && sb.le32(224) == 0 && sb.le32(228) != 0,
            ext: Some(features),
            ..Superblock::new(content(features))
        }
        .checked(sound),
    ))
}

fn content(features: ExtFeatures) -> Content {
    let known =
        |incompat: u32| features.incompat & !incompat == 0 && features.ro_compat & !EXT3_RO_COMPAT == 0;
    match features.has_journal() {
        _ if features.incompat & INCOMPAT_JOURNAL_DEV != 0 => Content::ExtJournal,
        false if known(EXT2_INCOMPAT) => Content::Ext2,
        true if known(EXT3_INCOMPAT) => Content::Ext3,
        _ => Content::Ext4,
    }
}

fn blocks(sb: &Block, features: ExtFeatures) -> u64 {
    let high = if features.incompat & INCOMPAT_64BIT == 0 { 0 } else { sb.le32(336) };
    (u64::from(high) << 32) | u64::from(sb.le32(4))
}

fn state(sb: &Block, features: ExtFeatures) -> FsState {
    let orphans = sb.le32(232) != 0 || features.ro_compat & RO_COMPAT_ORPHAN_PRESENT != 0;
    if features.incompat & INCOMPAT_JOURNAL_DEV != 0 {
        FsState::Unknown
    } else if sb.le16(58) & ERROR != 0 {
        FsState::Errors
    } else if features.has_journal() && features.incompat & INCOMPAT_RECOVER != 0 {
        FsState::NeedsRecovery
    } else if sb.le16(58) & VALID == 0 {
        FsState::Errors
    } else if orphans {
        FsState::NeedsRecovery
    } else {
        FsState::Clean
    }
}
