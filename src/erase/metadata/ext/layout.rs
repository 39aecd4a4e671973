//! Where an ext2, ext3 or ext4 keeps its metadata: `struct ext4_super_block` and `struct ext4_group_desc` of the
//! kernel's fs/ext4/ext4.h.

#![forbid(unsafe_code)]

use super::fields::{byte, le16, le32, part};
use super::sheet::Window;
use crate::disk::crc::crc32c;
use crate::erase::volume::VolumeBytes;
use crate::error::{Error, Result};

/// Where the superblock is, and its length.
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_RESIZE_INODE: u32 = 0x10;
const COMPAT_DIR_INDEX: u32 = 0x20;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
const INCOMPAT_LARGEDIR: u32 = 0x4000;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_GDT_CSUM: u32 = 0x10;
const RO_COMPAT_BIGALLOC: u32 = 0x200;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
const RO_COMPAT_ORPHAN_PRESENT: u32 = 0x1_0000;

/// What this room knows: filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir,
/// inline_data, encrypt, casefold.
const KNOWN_INCOMPAT: u32 = 0x1f7d6;
/// sparse_super, large_file, btree_dir, huge_file, gdt_csum, dir_nlink, extra_isize, quota, bigalloc, metadata_csum,
/// readonly, project, verity, orphan_present.
const KNOWN_RO_COMPAT: u32 = 0x1b77f;

/// `s_state`: cleanly unmounted; `s_creator_os`: the Hurd, which uses fields of inodes in its own way.
const VALID: u16 = 1;
const HURD: u32 = 1;

/// Of a group: its inode bitmap was never written.
const INODE_UNINIT: u16 = 1;
/// Its block bitmap was never written.
const BLOCK_UNINIT: u16 = 2;

/// Where a filesystem keeps what, every number checked against its volume.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Bytes of a block.
    pub(super) block: u32,
    /// Blocks of a cluster, the unit of allocation.
    pub(super) cluster: u64,
    /// How many blocks, and the first that is in a group.
    pub(super) blocks: u64,
    first_block: u64,
    blocks_per_group: u64,
    pub(super) groups: u32,
    pub(super) inodes_per_group: u32,
    /// Bytes of an inode.
    pub(super) inode: usize,
    /// The first that is not reserved.
    pub(super) first_inode: u32,
    descriptor: usize,
    first_meta_group: Option<u32>,
    /// How many blocks the resize inode reserves behind each copy of the descriptors.
    pub(super) reserved_descriptors: u64,
    supers: Supers,
    /// Whether metadata has checksums, whether group descriptors do, and what those of metadata start from.
    pub(super) checksums: bool,
    group_flags: bool,
    pub(super) seed: u32,
    /// Whether directories may have an index, and how many levels one may have.
    pub(super) indexes: bool,
    pub(super) large_directories: bool,
    /// The inode of the journal.
    pub(super) journal: Option<u32>,
}

/// Which groups have a copy of the superblock.
#[derive(Debug, Clone)]
enum Supers {
    All,
    Sparse,
    These([u32; 2]),
}

/// One group of blocks and inodes.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// First block of the table of inodes.
    pub(super) inode_table: u64,
    /// The blocks of the bitmaps.
    pub(super) inode_bitmap: u64,
    pub(super) block_bitmap: u64,
    /// Whether the bitmaps were never written: then every inode is free.
    pub(super) inodes_uninit: bool,
    pub(super) blocks_uninit: bool,
    pub(super) free_inodes: u32,
    bitmap_checksum: u32,
    bitmap_checksum_mask: u32,
}

/// What is said of a filesystem whose numbers cannot be.
pub(super) fn damaged(what: impl std::fmt::Display) -> Error {
    Error::unsupported(format!("the filesystem is damaged: {what}"))
        .hint("run e2fsck on it in its guest, then seal again")
}

impl Layout {
    /// Reads the superblock of a filesystem that is cleanly unmounted.
    pub(super) fn read(volume: &VolumeBytes<'_>) -> Result<Self> {
        let sb = volume.read_vec(SUPERBLOCK, 1024)?;
        if le16(&sb, 56) != MAGIC {
            return Err(Error::unsupported("this is no ext2, ext3 or ext4"));
        }
        known_and_clean(&sb)?;
        let layout = Self::parse(&sb)?;
        layout.fits(&sb, volume.length())?;
        Ok(layout)
    }

    /// Of a small filesystem with blocks of 1 KiB, for the tests of what is in them.
    #[cfg(test)]
    pub(super) fn small(checksums: bool) -> Self {
        use super::fields::put;
        let mut sb = vec![0; 1024];
        for (at, value) in [(0, 64), (4, 512), (20, 1), (32, 8192), (40, 64), (76, 1), (84, 11), (88, 256)] {
            put(&mut sb, at, &u32::to_le_bytes(value));
        }
        put(&mut sb, 100, &(if checksums { RO_COMPAT_METADATA_CSUM } else { 0 }).to_le_bytes());
        Self::parse(&sb).unwrap()
    }

    fn parse(sb: &[u8]) -> Result<Self> {
        let (compat, incompat, ro_compat) = (le32(sb, 92), le32(sb, 96), le32(sb, 100));
        let dynamic = le32(sb, 76) != 0;
        let wide = incompat & INCOMPAT_64BIT != 0;
        let block = 1024_u32.checked_shl(le32(sb, 24)).filter(|size| (1024..=65536).contains(size));
        let block = block.ok_or_else(|| damaged("the size of its blocks"))?;
        let ratio = if ro_compat & RO_COMPAT_BIGALLOC == 0 {
            Some(0)
        } else {
            le32(sb, 28).checked_sub(le32(sb, 24))
        };
        let ratio = ratio.filter(|ratio| *ratio <= 20).ok_or_else(|| damaged("the size of its clusters"))?;
        let journal = (compat & COMPAT_HAS_JOURNAL != 0).then(|| le32(sb, 224));
        let (blocks, first_block) = (blocks(sb, wide), u64::from(le32(sb, 20)));
        let blocks_per_group = u64::from(le32(sb, 32));
        let groups = blocks.saturating_sub(first_block).checked_add(blocks_per_group.saturating_sub(1));
        let groups = groups.and_then(|all| all.checked_div(blocks_per_group));
        let groups = groups.and_then(|groups| u32::try_from(groups).ok()).filter(|groups| *groups > 0);
        let checksums = ro_compat & RO_COMPAT_METADATA_CSUM != 0;
        let seeded = incompat & INCOMPAT_CSUM_SEED != 0;
        Ok(Self {
            block,
            cluster: 1 << ratio,
            blocks,
            first_block,
            blocks_per_group,
            groups: groups.ok_or_else(|| damaged("how many groups it has"))?,
            inodes_per_group: le32(sb, 40),
            inode: if dynamic { usize::from(le16(sb, 88)) } else { 128 },
            first_inode: if dynamic { le32(sb, 84) } else { 11 },
            descriptor: if wide { usize::from(le16(sb, 254)) } else { 32 },
            first_meta_group: (incompat & INCOMPAT_META_BG != 0).then(|| le32(sb, 260)),
            reserved_descriptors: if compat & COMPAT_RESIZE_INODE == 0 { 0 } else { le16(sb, 206).into() },
            supers: match (compat & COMPAT_SPARSE_SUPER2 != 0, ro_compat & RO_COMPAT_SPARSE_SUPER != 0) {
                (true, _) => Supers::These([le32(sb, 588), le32(sb, 592)]),
                (_, true) => Supers::Sparse,
                _ => Supers::All,
            },
            checksums,
            group_flags: checksums || ro_compat & RO_COMPAT_GDT_CSUM != 0,
            seed: if seeded { le32(sb, 624) } else { crc32c(!0, part(sb, 104..120)) },
            indexes: compat & COMPAT_DIR_INDEX != 0,
            large_directories: incompat & INCOMPAT_LARGEDIR != 0,
            journal,
        })
    }

    /// Whether the numbers agree with each other and with the volume.
    fn fits(&self, sb: &[u8], length: u64) -> Result<()> {
        let size = self.block as usize;
        let clustered = self.cluster > 1;
        let first = if size == 1024 && !clustered { 1 } else { 0 };
        let checks = [
            (self.blocks.checked_mul(self.block.into()).is_some_and(|bytes| bytes <= length), "its length"),
            (self.first_block == first, "its first block"),
            (self.inode.is_power_of_two() && (128..=size).contains(&self.inode), "the size of its inodes"),
            ((11..=self.inodes_per_group).contains(&self.first_inode), "its first inode"),
            (self.inodes_per_group as usize <= size * 8, "how many inodes a group has"),
            (self.blocks_per_group <= size as u64 * 8 * self.cluster, "how many blocks a group has"),
            (self.blocks_per_group.is_multiple_of(self.cluster), "how many clusters a group has"),
            (
                self.descriptor.is_power_of_two() && (32..=1024).contains(&self.descriptor),
                "its group descriptors",
            ),
            (self.reserved_descriptors <= size as u64 / 4, "how many group descriptors it may have"),
            (self.groups.checked_mul(self.inodes_per_group) == Some(le32(sb, 0)), "how many inodes it has"),
            (
                !self.checksums || crc32c(!0, part(sb, 0..1020)) == le32(sb, 1020),
                "the checksum of its superblock",
            ),
        ];
        match checks.iter().find(|(sound, _)| !sound) {
            Some((_, what)) => Err(damaged(what)),
            None if self.journal == Some(0) => Err(Error::unsupported("its journal is on another device")),
            None => Ok(()),
        }
    }

    /// The first byte of `count` blocks, all of which the filesystem has.
    pub(super) fn place(&self, block: u64, count: u64) -> Result<u64> {
        let end =
            block.checked_add(count).filter(|end| block >= self.first_block.max(1) && *end <= self.blocks);
        end.map(|_| block * u64::from(self.block))
            .ok_or_else(|| damaged(format_args!("it names block {block}")))
    }

    /// Where the descriptor of a group is.
    fn descriptor_at(&self, group: u32) -> u64 {
        let per_block = self.descriptors_per_block();
        let (index, rest) = (group / per_block, group % per_block);
        let block = match self.first_meta_group {
            Some(first) if index >= first => self.descriptors(index * per_block).0,
            _ => self.descriptors(0).0 + u64::from(index),
        };
        block.saturating_mul(self.block.into()).saturating_add(u64::from(rest) * self.descriptor as u64)
    }

    /// The first block of a group.
    pub(super) fn group_start(&self, group: u32) -> u64 {
        self.first_block + u64::from(group) * self.blocks_per_group
    }

    /// Where the group's copy of group descriptors is, and how many blocks it has.
    pub(super) fn descriptors(&self, group: u32) -> (u64, u64) {
        let per_block = self.descriptors_per_block();
        let index = group / per_block;
        // The first group's superblock is in the block behind the boot sector when blocks are small.
        let boot = u64::from(group == 0 && self.block == 1024 && self.first_block == 0);
        let behind = self.group_start(group) + u64::from(self.has_super(group)) + boot;
        let count = match self.first_meta_group {
            // A group of groups has its one block in its first, second and last group.
            Some(first) if index >= first => u64::from([0, 1, per_block - 1].contains(&(group % per_block))),
            _ if !self.has_super(group) => 0,
            first => u64::from(self.groups.div_ceil(per_block).min(first.unwrap_or(u32::MAX))),
        };
        (behind, count)
    }

    fn descriptors_per_block(&self) -> u32 {
        (self.block / u32::try_from(self.descriptor).unwrap_or(u32::MAX).max(1)).max(1)
    }

    /// Whether a group starts with a copy of the superblock.
    pub(super) fn has_super(&self, group: u32) -> bool {
        let power = |base: u32| {
            let mut value = base;
            while value < group {
                value = value.saturating_mul(base);
            }
            value == group
        };
        match self.supers {
            _ if group == 0 => true,
            Supers::All => true,
            Supers::These(groups) => groups.contains(&group),
            Supers::Sparse => group == 1 || [3, 5, 7].into_iter().any(power),
        }
    }

    /// Reads the descriptor of a group.
    pub(super) fn group(&self, descriptors: &mut Window<'_>, group: u32) -> Result<Group> {
        let bytes = descriptors.read(self.descriptor_at(group), self.descriptor)?;
        let wide = |low: u32, high: usize| {
            u64::from(low) | if self.descriptor >= 64 { u64::from(le32(bytes, high)) << 32 } else { 0 }
        };
        let half = |low: usize, high: usize| {
            let high = if self.descriptor >= 64 { le16(bytes, high) } else { 0 };
            u32::from(le16(bytes, low)) | u32::from(high) << 16
        };
        let flags = if self.group_flags { le16(bytes, 18) } else { 0 };
        let table = u64::from(self.inodes_per_group) * self.inode as u64;
        let found = Group {
            inode_table: wide(le32(bytes, 8), 40),
            inode_bitmap: wide(le32(bytes, 4), 36),
            block_bitmap: wide(le32(bytes, 0), 32),
            inodes_uninit: flags & INODE_UNINIT != 0,
            blocks_uninit: flags & BLOCK_UNINIT != 0,
            free_inodes: half(14, 46),
            bitmap_checksum: half(26, 58),
            bitmap_checksum_mask: if self.descriptor >= 64 { u32::MAX } else { 0xffff },
        };
        self.place(found.inode_table, table.div_ceil(self.block.into()))?;
        self.place(found.inode_bitmap, 1)?;
        self.place(found.block_bitmap, 1)?;
        Ok(found)
    }

    /// Whether a bitmap of inodes is the one that the group's descriptor tells of.
    pub(super) fn holds(&self, group: &Group, bitmap: &[u8]) -> bool {
        let bits = self.inodes_per_group as usize;
        let free: u32 = bitmap.iter().take(bits / 8).map(|byte| byte.count_zeros()).sum();
        let rest = (bits / 8 * 8..bits).filter(|bit| byte(bitmap, bit / 8) >> (bit % 8) & 1 == 0).count();
        let counted = u64::from(free) + rest as u64 == u64::from(group.free_inodes);
        let checksum = || crc32c(self.seed, part(bitmap, 0..bits / 8)) & group.bitmap_checksum_mask;
        counted && (!self.checksums || checksum() == group.bitmap_checksum)
    }
}

fn blocks(sb: &[u8], wide: bool) -> u64 {
    u64::from(le32(sb, 4)) | if wide { u64::from(le32(sb, 336)) << 32 } else { 0 }
}

/// Whether this room knows everything that the filesystem has, and nothing is left to be done before it is read.
fn known_and_clean(sb: &[u8]) -> Result<()> {
    let (incompat, ro_compat) = (le32(sb, 96), le32(sb, 100));
    if incompat & INCOMPAT_RECOVER != 0 {
        return Err(Error::unsupported(
            "its journal is not empty: mount it for writing and unmount it first",
        ));
    }
    if incompat & !KNOWN_INCOMPAT != 0 || ro_compat & !KNOWN_RO_COMPAT != 0 || le32(sb, 72) == HURD {
        return Err(Error::unsupported(format!(
            "it has features that guestseal does not know (incompat {incompat:#x}, ro_compat {ro_compat:#x})"
        )));
    }
    if le32(sb, 232) != 0 || ro_compat & RO_COMPAT_ORPHAN_PRESENT != 0 {
        return Err(Error::unsupported("it has files that are deleted in part: mount it for writing first"));
    }
    if le16(sb, 58) & VALID == 0 {
        return Err(Error::unsupported("it was not unmounted cleanly"));
    }
    Ok(())
}
