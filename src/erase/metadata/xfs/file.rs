//! What regular files and symbolic links own: blocks that were allocated and never written to, and the rest of the
//! blocks that hold a long target.

#![forbid(unsafe_code)]

use super::fields::{REMOTE, be32, damaged, only};
use super::inode::Inode;
use super::{Kind, Walk, fork};
use crate::error::Result;

/// `sizeof(struct xfs_dsymlink_hdr)`.
const LINK_HEAD: usize = 56;
/// `XFS_SYMLINK_MAXLEN`.
const LONGEST_LINK: u64 = 1024;

/// Blocks that the longest target takes, of the smallest size and with their heads, and one more.
const MOST_BLOCKS: u64 = 4;

/// Makes blocks zero that a file owns and that were never written to.
pub(super) fn clean_preallocated(walk: &mut Walk<'_>, inode: &Inode, slot: &[u8]) -> Result<()> {
    fork::each(walk, inode, &inode.data, slot, &mut |walk, mapping| {
        if !mapping.unwritten {
            return Ok(());
        }
        walk.spend(mapping.blocks)?;
        walk.clean_all(Kind::Preallocated, mapping.place)
    })
}

/// Cleans the blocks of a target that does not fit into the inode. In version 5 each extent has a head of its own.
pub(super) fn clean_link(walk: &mut Walk<'_>, inode: &Inode, slot: &[u8]) -> Result<()> {
    let wrong = || damaged(format!("inode {}: the target of the link", inode.number));
    let mut left = usize::try_from(inode.size.min(LONGEST_LINK + 1)).unwrap_or_default();
    for mapping in fork::list(walk, inode, &inode.data, slot)? {
        walk.spend(mapping.blocks)?;
        if mapping.blocks > MOST_BLOCKS {
            return Err(wrong());
        }
        let mut block = walk.read(&[mapping.place])?;
        let head = if walk.geometry.v5 { LINK_HEAD } else { 0 };
        let here = left.min(block.len() - head);
        if walk.geometry.v5 {
            REMOTE.check(&block, mapping.place.start, &walk.geometry.uuid, inode.number)?;
            if !block.starts_with(b"XSLM") || be32(&block, 8) as usize != here {
                return Err(wrong());
            }
        }
        let dead = only(head + here..block.len());
        let crc = walk.geometry.v5.then_some(REMOTE.crc);
        walk.clean_at(Kind::Links, &[mapping.place], &mut block, &dead, crc)?;
        left -= here;
    }
    Ok(())
}
