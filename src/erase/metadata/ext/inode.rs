//! What one inode says: `struct ext4_inode` of the kernel's fs/ext4/ext4.h.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::fields::{le16, le32, part, put, size16};
use super::layout::{Layout, damaged};
use crate::disk::crc::crc32c;
use crate::error::Result;

/// The reserved inode that is a directory like any other.
pub(super) const ROOT: u32 = 2;
/// The one whose blocks are kept for more group descriptors.
pub(super) const RESIZE: u32 = 7;

const INDEX: u32 = 0x1000;
const ENCRYPT: u32 = 0x800;
const EXTENTS: u32 = 0x8_0000;
const INLINE_DATA: u32 = 0x1000_0000;
const CASEFOLD: u32 = 0x4000_0000;

/// The 60 bytes that hold block numbers, extents, inline data or a short link's target.
pub(super) const BLOCKS: Range<usize> = 40..100;

/// Where the extra fields start, and the two halves of the checksum.
const EXTRA: usize = 128;
const CHECKSUM_LOW: usize = 124;
const CHECKSUM_HIGH: usize = 130;

/// What an inode is, by its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Directory,
    File,
    Link,
    /// Devices, pipes and sockets have no blocks.
    Other,
}

/// What of an inode is needed to find its blocks, in a copy of its own.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) kind: Type,
    pub(super) links: u16,
    pub(super) size: u64,
    flags: u32,
    /// The block of its extended attributes; 0 is none.
    pub(super) attributes: u64,
    /// What the checksums of its blocks start from.
    pub(super) seed: u32,
    /// [`BLOCKS`].
    pub(super) root: [u8; 60],
    /// Where its extra fields end; none when the inode is too small to have any.
    pub(super) tail: Option<usize>,
}

impl Inode {
    pub(super) fn read(layout: &Layout, number: u32, slot: &[u8]) -> Result<Self> {
        let kind = match le16(slot, 0) & 0xf000 {
            0x4000 => Type::Directory,
            0x8000 => Type::File,
            0xa000 => Type::Link,
            _ => Type::Other,
        };
        // Only files, and directories where the feature says so, have the high half of a size.
        let high = kind == Type::File || layout.large_directories;
        let mut root = [0; 60];
        root.copy_from_slice(slot.get(BLOCKS).ok_or_else(|| damaged("an inode is cut off"))?);
        Ok(Self {
            number,
            kind,
            links: le16(slot, 26),
            size: u64::from(le32(slot, 4)) | if high { u64::from(le32(slot, 108)) << 32 } else { 0 },
            flags: le32(slot, 32),
            attributes: u64::from(le32(slot, 104)) | u64::from(le16(slot, 118)) << 32,
            seed: crc32c(crc32c(layout.seed, &number.to_le_bytes()), part(slot, 100..104)),
            root,
            tail: tail(number, slot)?,
        })
    }

    pub(super) fn has_extents(&self) -> bool {
        self.flags & EXTENTS != 0
    }

    pub(super) fn is_inline(&self) -> bool {
        self.flags & INLINE_DATA != 0
    }

    pub(super) fn is_indexed(&self) -> bool {
        self.flags & INDEX != 0
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPT != 0
    }

    /// Whether each name in this directory is followed by its hash.
    pub(super) fn has_hashes(&self) -> bool {
        self.is_encrypted() && self.flags & CASEFOLD != 0
    }

    /// Whether the target of this link stands in the inode itself.
    pub(super) fn is_short_link(&self) -> bool {
        self.kind == Type::Link && self.size < 60 && !self.has_extents() && !self.is_inline()
    }

    /// Whether its blocks are found by extents or by a map, and not in the inode.
    pub(super) fn has_blocks(&self) -> bool {
        self.kind != Type::Other && !self.is_inline() && !self.is_short_link()
    }

    /// How many blocks it takes to hold its size.
    pub(super) fn length(&self, layout: &Layout) -> u64 {
        self.size.div_ceil(layout.block.into())
    }
}

/// Where the extra fields end. An inode that has none of its own count keeps 32 bytes of them in the kernel's eyes.
fn tail(number: u32, slot: &[u8]) -> Result<Option<usize>> {
    if slot.len() <= EXTRA {
        return Ok(None);
    }
    let extra = match size16(slot, EXTRA) {
        0 => 32,
        extra => extra,
    };
    if !extra.is_multiple_of(4) || EXTRA + extra > slot.len() {
        return Err(damaged(format_args!("the length of inode {number}")));
    }
    Ok(Some(EXTRA + extra))
}

/// Whether the checksum of an inode is right, where it has one.
pub(super) fn is_sound(layout: &Layout, inode: &Inode, slot: &[u8]) -> bool {
    let (low, high) = (le16(slot, CHECKSUM_LOW), le16(slot, CHECKSUM_HIGH));
    let stored = if has_high(slot) { u32::from(high) << 16 } else { 0 } | u32::from(low);
    !layout.checksums || checksum(inode, slot) == stored
}

/// Writes the checksum of an inode, where it has one.
pub(super) fn seal(layout: &Layout, inode: &Inode, slot: &mut [u8]) {
    if layout.checksums {
        let [a, b, c, d] = checksum(inode, slot).to_le_bytes();
        put(slot, CHECKSUM_LOW, &[a, b]);
        if has_high(slot) {
            put(slot, CHECKSUM_HIGH, &[c, d]);
        }
    }
}

fn has_high(slot: &[u8]) -> bool {
    slot.len() > EXTRA && size16(slot, EXTRA) >= CHECKSUM_HIGH + 2 - EXTRA
}

/// CRC-32C of the inode with zeros for the checksum's own fields.
fn checksum(inode: &Inode, slot: &[u8]) -> u32 {
    let mut sum = crc32c(inode.seed, part(slot, 0..CHECKSUM_LOW));
    sum = crc32c(sum, &[0; 2]);
    sum = crc32c(sum, part(slot, CHECKSUM_LOW + 2..EXTRA));
    if has_high(slot) {
        sum = crc32c(sum, part(slot, EXTRA..CHECKSUM_HIGH));
        sum = crc32c(sum, &[0; 2]);
        return crc32c(sum, part(slot, CHECKSUM_HIGH + 2..slot.len()));
    }
    crc32c(sum, part(slot, EXTRA..slot.len())) & 0xffff
}
