//! Numbers in raw blocks, all big-endian but the checksums, and the marks that version 5 puts on each block.

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::disk::crc::crc32c;
pub(super) use crate::disk::number::{be16, be32, be64, byte as u8_at, nonzero, take};
use crate::error::{Error, Result};

/// The parts of a block that nothing uses.
pub(super) type Dead = Vec<Range<usize>>;

/// One such part.
pub(super) fn only(part: Range<usize>) -> Dead {
    std::iter::once(part).collect()
}

/// Metadata that is not as a sound filesystem has it.
pub(super) fn damaged(what: impl AsRef<str>) -> Error {
    Error::unsupported(format!("the XFS filesystem is damaged: {}", what.as_ref()))
        .hint("run xfs_repair in the guest, or mount and unmount it there")
}

/// Whether all bytes are zero; far faster than to count the others.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (wide, rest) = bytes.as_chunks::<64>();
    let is_zero = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte) == 0;
    wide.iter().all(|bytes| is_zero(bytes)) && is_zero(rest)
}

/// The checksum of a block, whose field at `at` counts as zero.
fn checksum(block: &[u8], at: usize) -> [u8; 4] {
    let (before, from) = block.split_at(at.min(block.len()));
    let after = from.get(4..).unwrap_or_default();
    (!crc32c(crc32c(crc32c(!0, before), &[0; 4]), after)).to_le_bytes()
}

/// Whether the checksum at `at` is the right one.
pub(super) fn is_sealed(block: &[u8], at: usize) -> bool {
    take::<4>(block, at) == checksum(block, at)
}

/// Writes the right checksum at `at`.
pub(super) fn seal(block: &mut [u8], at: usize) {
    let sum = checksum(block, at);
    if let Some(field) = block.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *field = sum;
    }
}

/// Where a kind of block of version 5 has its marks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    pub(super) crc: usize,
    blkno: usize,
    uuid: usize,
    owner: usize,
    /// A number of an allocation group has 32 bits, one of an inode 64.
    narrow_owner: bool,
}

/// `struct xfs_btree_block` with 32-bit pointers.
pub(super) const SHORT_TREE: Marks = Marks { crc: 52, blkno: 16, uuid: 32, owner: 48, narrow_owner: true };
/// The same with 64-bit pointers.
pub(super) const LONG_TREE: Marks = Marks { crc: 64, blkno: 24, uuid: 40, owner: 56, narrow_owner: false };
/// `struct xfs_dir3_blk_hdr`.
pub(super) const DIRECTORY: Marks = Marks { crc: 4, blkno: 8, uuid: 24, owner: 40, narrow_owner: false };
/// `struct xfs_da3_blkinfo`.
pub(super) const DA: Marks = Marks { crc: 12, blkno: 16, uuid: 32, owner: 48, narrow_owner: false };
/// `struct xfs_attr3_rmt_hdr` and `struct xfs_dsymlink_hdr`.
pub(super) const REMOTE: Marks = Marks { crc: 12, blkno: 40, uuid: 16, owner: 32, narrow_owner: false };

impl Marks {
    /// Whether a block says that it is the one at this byte, of this filesystem and owner.
    pub(super) fn check(&self, block: &[u8], at: u64, uuid: &[u8; 16], owner: u64) -> Result<()> {
        let found =
            if self.narrow_owner { u64::from(be32(block, self.owner)) } else { be64(block, self.owner) };
        if be64(block, self.blkno) == at / 512 && take::<16>(block, self.uuid) == *uuid && found == owner {
            return Ok(());
        }
        Err(damaged(format!("the block at byte {at} belongs elsewhere")))
    }
}
