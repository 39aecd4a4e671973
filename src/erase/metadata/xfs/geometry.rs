//! What the superblock says of sizes and places: `struct xfs_dsb` of fs/xfs/libxfs/xfs_format.h. Every number of a
//! block goes through here on its way to a byte of the volume.

#![forbid(unsafe_code)]

use super::fields::{be16, be32, be64, damaged, is_sealed, take, u8_at};
use crate::erase::extent::Extent;
use crate::erase::volume::VolumeBytes;
use crate::error::{Error, Result};

/// `XFS_SB_VERSION_DIRV2BIT`: directories of the only kind that Linux ever had.
const DIRECTORIES_2: u16 = 0x2000;
/// `XFS_SB_VERSION_MOREBITSBIT`: `sb_features2` counts.
const MORE_BITS: u16 = 0x8000;
/// `XFS_SB_VERSION2_FTYPE`.
const FTYPE_2: u32 = 0x200;

/// `XFS_SB_FEAT_RO_COMPAT_*`: finobt, rmapbt, reflink, inobtcnt.
const KNOWN_RO_COMPAT: u32 = 0xf;
/// `XFS_SB_FEAT_INCOMPAT_*`: ftype, spinodes, meta_uuid, bigtime, nrext64, exchrange, parent. Not needsrepair.
const KNOWN_INCOMPAT: u32 = 0xef;

/// The sizes of one filesystem.
#[derive(Debug, Clone)]
pub(super) struct Geometry {
    /// Bytes of a block.
    pub(super) block: u64,
    pub(super) block_log: u8,
    pub(super) sector: usize,
    pub(super) inode_log: u8,
    pub(super) ag_blocks: u32,
    pub(super) ag_count: u32,
    ag_block_log: u8,
    /// Blocks of the whole filesystem.
    pub(super) blocks: u64,
    /// Blocks of a directory block.
    pub(super) directory_blocks: u64,
    log_start: u64,
    log_blocks: u32,
    /// Version 5: blocks have checksums.
    pub(super) v5: bool,
    /// Directory entries name the type of the file.
    pub(super) file_types: bool,
    pub(super) sparse_inodes: bool,
    pub(super) free_inode_tree: bool,
    pub(super) reverse_tree: bool,
    pub(super) reference_tree: bool,
    /// What all blocks of version 5 carry.
    pub(super) uuid: [u8; 16],
}

impl Geometry {
    /// Reads the first superblock.
    pub(super) fn read(volume: &VolumeBytes<'_>) -> Result<Self> {
        let head = volume.read_vec(0, 512)?;
        let sector_log = u8_at(&head, 121);
        if !head.starts_with(b"XFSB") || !(9..=15).contains(&sector_log) {
            return Err(damaged("it has no superblock"));
        }
        let sb = volume.read_vec(0, 1 << sector_log)?;
        let geometry = Self::parse(&sb)?;
        geometry.check(&sb, volume.length())?;
        Ok(geometry)
    }

    fn parse(sb: &[u8]) -> Result<Self> {
        let version = be16(sb, 100);
        let v5 = match version & 0xf {
            4 if version & DIRECTORIES_2 != 0 => false,
            5 if is_sealed(sb, 224) => true,
            5 => return Err(damaged("the checksum of its superblock is wrong")),
            other => return Err(Error::unsupported(format!("XFS of version {other} is not known"))),
        };
        let (ro_compat, incompat) = if v5 { (be32(sb, 212), be32(sb, 216)) } else { (0, 0) };
        if ro_compat & !KNOWN_RO_COMPAT != 0 || incompat & !KNOWN_INCOMPAT != 0 {
            let what =
                format!("the XFS filesystem has features {ro_compat:#x}, {incompat:#x} not known here");
            return Err(Error::unsupported(what));
        }
        let (block_log, directory_log) = (u8_at(sb, 120), u8_at(sb, 192));
        if !(9..=16).contains(&block_log) || directory_log > 16 - block_log {
            return Err(damaged("the size of its blocks"));
        }
        let file_types =
            if v5 { incompat & 1 } else { u32::from(version & MORE_BITS != 0) * (be32(sb, 200) & FTYPE_2) };
        Ok(Self {
            block: 1 << block_log,
            block_log,
            sector: usize::from(be16(sb, 102)),
            inode_log: u8_at(sb, 122),
            ag_blocks: be32(sb, 84),
            ag_count: be32(sb, 88),
            ag_block_log: u8_at(sb, 124),
            blocks: be64(sb, 8),
            directory_blocks: 1 << directory_log,
            log_start: be64(sb, 48),
            log_blocks: be32(sb, 96),
            v5,
            file_types: file_types != 0,
            sparse_inodes: incompat & 2 != 0,
            free_inode_tree: ro_compat & 1 != 0,
            reverse_tree: ro_compat & 2 != 0,
            reference_tree: ro_compat & 4 != 0,
            uuid: take(sb, if incompat & 4 != 0 { 248 } else { 32 }),
        })
    }

    /// The limits of the kernel's `xfs_validate_sb_common`, and that all is inside the volume.
    fn check(&self, sb: &[u8], volume: u64) -> Result<()> {
        if be64(sb, 16) != 0 {
            return Err(Error::unsupported("the XFS filesystem has a realtime device"));
        }
        if self.log_start == 0 {
            return Err(Error::unsupported("the XFS filesystem has an external log"));
        }
        let ag_blocks = u64::from(self.ag_blocks);
        let sound = be32(sb, 4) == 1 << self.block_log
            && self.sector == 1 << u8_at(sb, 121)
            && self.sector as u64 <= self.block
            && (8..=11).contains(&self.inode_log)
            && u32::from(be16(sb, 104)) == 1 << self.inode_log
            && self.block_log.checked_sub(self.inode_log) == Some(u8_at(sb, 123))
            && (64..=1 << 31).contains(&self.ag_blocks)
            && self.ag_blocks.next_power_of_two().trailing_zeros() == u32::from(self.ag_block_log)
            && self.blocks.div_ceil(ag_blocks) == u64::from(self.ag_count)
            && self.ag_count > 0
            && self.blocks.checked_mul(self.block).is_some_and(|bytes| bytes <= volume)
            && u8_at(sb, 126) == 0;
        if sound { Ok(()) } else { Err(damaged("its superblock contradicts itself or the volume")) }
    }

    /// Bytes of a block, for lengths in memory.
    pub(super) fn block_len(&self) -> usize {
        1 << self.block_log
    }

    /// The first byte of an allocation group.
    pub(super) fn group(&self, ag: u32) -> u64 {
        u64::from(ag) * u64::from(self.ag_blocks) * self.block
    }

    /// Blocks of an allocation group; the last one may be shorter.
    pub(super) fn group_blocks(&self, ag: u32) -> u64 {
        let before = u64::from(ag) * u64::from(self.ag_blocks);
        self.blocks.saturating_sub(before).min(self.ag_blocks.into())
    }

    /// The bytes of `count` blocks of an allocation group, which must lie behind its headers.
    pub(super) fn in_group(&self, ag: u32, block: u64, count: u64) -> Result<Extent> {
        let headers = (4 * self.sector as u64).div_ceil(self.block);
        let end = block.checked_add(count).filter(|end| ag < self.ag_count && *end <= self.group_blocks(ag));
        match end {
            Some(_) if block >= headers && count > 0 => {
                Ok(Extent { start: self.group(ag) + block * self.block, length: count * self.block })
            }
            _ => Err(damaged(format!("it names block {block} of allocation group {ag}"))),
        }
    }

    /// The bytes of `count` blocks from the filesystem block `number` on.
    pub(super) fn blocks_at(&self, number: u64, count: u64) -> Result<Extent> {
        let ag = u32::try_from(number >> self.ag_block_log)
            .map_err(|_| damaged(format!("it names block {number:#x}")))?;
        self.in_group(ag, number & ((1 << self.ag_block_log) - 1), count)
    }

    /// The bytes of the log.
    pub(super) fn log(&self) -> Result<Extent> {
        self.blocks_at(self.log_start, self.log_blocks.into())
    }

    /// The number of the inode that an allocation group counts as `number`.
    pub(super) fn inode(&self, ag: u32, number: u32) -> u64 {
        u64::from(ag) << (self.ag_block_log + self.block_log - self.inode_log) | u64::from(number)
    }
}
