//! Metadata that stands at fixed places in a group: the copies of the superblock and of the group descriptors, and the
//! blocks that the resize inode reserves for more descriptors. Nobody writes the reserved ones beside a copy before
//! the filesystem grows, so they hold what the disk held before it was made.

#![forbid(unsafe_code)]

use super::Walk;
use super::layout::{Group, damaged};
use super::tally::Kind;
use crate::error::Result;

/// Length of a superblock.
const SUPERBLOCK: usize = 1024;

/// Cleans what is unused at the head of a group.
pub(super) fn clean(walk: &mut Walk<'_>, number: u32, group: &Group) -> Result<()> {
    let layout = &walk.layout;
    let table = (u64::from(layout.inodes_per_group) * layout.inode as u64).div_ceil(layout.block.into());
    let (start, copy, (descriptors, count)) =
        (layout.group_start(number), layout.has_super(number), layout.descriptors(number));
    let reserved = if copy { layout.reserved_descriptors } else { 0 };
    if number > 0 && copy {
        rest(walk, start)?;
        let from = descriptors + count;
        let inside = |block| (from..from + reserved).contains(&block);
        if inside(group.inode_table) || inside(group.inode_bitmap) || inside(group.block_bitmap) {
            return Err(damaged(format_args!("the head of group {number}")));
        }
        walk.blank(Kind::Preallocated, from, reserved)?;
    }
    if copy {
        // In front of the first group, the boot sector is in a block of its own or in that of the superblock.
        walk.partial(start, descriptors - start)?;
    }
    walk.partial(descriptors, count + reserved)?;
    walk.partial(group.block_bitmap, 1)?;
    walk.partial(group.inode_bitmap, 1)?;
    walk.partial(group.inode_table, table)
}

/// Cleans what is behind a copy of the superblock in its block.
fn rest(walk: &mut Walk<'_>, number: u64) -> Result<()> {
    let mut block = walk.block(number)?;
    let end = block.len();
    if walk.tally.clean(Kind::Preallocated, &mut block[SUPERBLOCK..end]) {
        walk.volume.write(walk.layout.place(number, 1)?, &block)?;
    }
    Ok(())
}
